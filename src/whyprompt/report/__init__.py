"""What a study found, drawn and written down: charts, and one self-contained page.

Nothing is estimated here: every figure on the page is a value of a result that a caller has, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whyprompt.report.charts import (
        attention_plot,
        audit_plot,
        count_plot,
        density_plot,
        dose_response_plot,
        draw_plot,
        draws_plot,
        ecdf_plot,
        forest_plot,
        gain_harm_plot,
        head_heatmap,
        head_items_plot,
        imputation_plot,
        interval_plot,
        items_batch_plot,
        joint_plot,
        layer_plot,
        levels_plot,
        little_plot,
        love_plot,
        overlap_plot,
        pattern_plot,
        save_chart,
        search_plot,
        specification_plot,
        statistical_vs_interventional,
        tipping_plot,
        uplift_plot,
    )
    from whyprompt.report.page import build_report, write_report
    from whyprompt.report.strength import Strength, effect_strength

__all__ = [
    "Strength",
    "attention_plot",
    "audit_plot",
    "build_report",
    "count_plot",
    "density_plot",
    "dose_response_plot",
    "draw_plot",
    "draws_plot",
    "ecdf_plot",
    "effect_strength",
    "forest_plot",
    "gain_harm_plot",
    "head_heatmap",
    "head_items_plot",
    "imputation_plot",
    "interval_plot",
    "items_batch_plot",
    "joint_plot",
    "layer_plot",
    "levels_plot",
    "little_plot",
    "love_plot",
    "overlap_plot",
    "pattern_plot",
    "save_chart",
    "search_plot",
    "specification_plot",
    "statistical_vs_interventional",
    "tipping_plot",
    "uplift_plot",
    "write_report",
]

_PAGE = ("build_report", "write_report")
_STRENGTH = ("Strength", "effect_strength")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any member
    # altair takes a second to import: `whyprompt --help` must not wait for it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    part = "page" if name in _PAGE else "strength" if name in _STRENGTH else "charts"
    return getattr(import_module(f"{__name__}.{part}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
