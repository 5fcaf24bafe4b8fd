"""Every chart, as a function from values to an altair chart.

Each has axes with units, intervals, colours of Okabe and Ito's palette and a description for those who do not
see it; `width` is that of the whole picture, in pixels. `save_chart` writes one as PNG or SVG.
"""

from __future__ import annotations

from whyprompt.charts.balance import density_plot, ecdf_plot, love_plot, overlap_plot
from whyprompt.charts.change import change_plot
from whyprompt.charts.checks import (
    count_plot,
    draws_plot,
    imputation_plot,
    interval_plot,
    little_plot,
    pattern_plot,
    tipping_plot,
)
from whyprompt.charts.effects import (
    audit_plot,
    dose_response_plot,
    draw_plot,
    forest_plot,
    specification_plot,
)
from whyprompt.charts.events import event_plot
from whyprompt.charts.heads import head_heatmap, head_items_plot, joint_plot, layer_plot, search_plot
from whyprompt.charts.items import gain_harm_plot
from whyprompt.charts.levels import attention_plot, levels_plot, statistical_vs_interventional
from whyprompt.charts.paths import path_plot
from whyprompt.charts.sites import site_plot
from whyprompt.charts.uplift import uplift_plot

__all__ = [
    "attention_plot",
    "audit_plot",
    "change_plot",
    "count_plot",
    "density_plot",
    "dose_response_plot",
    "draw_plot",
    "draws_plot",
    "ecdf_plot",
    "event_plot",
    "forest_plot",
    "gain_harm_plot",
    "head_heatmap",
    "head_items_plot",
    "imputation_plot",
    "interval_plot",
    "joint_plot",
    "layer_plot",
    "levels_plot",
    "little_plot",
    "love_plot",
    "overlap_plot",
    "path_plot",
    "pattern_plot",
    "search_plot",
    "site_plot",
    "specification_plot",
    "statistical_vs_interventional",
    "tipping_plot",
    "uplift_plot",
]
