"""Internal causality: through which attention heads a prompt change acts.

`head_sweep` gives the exact natural effects of every head, `site_sweep` those of blocks,
neurons and the residual stream beside them, `set_sweep` and `joint_effect` those of sets and paths;
`relate_heads` takes a few heads apart, `find_heads` searches for the smallest set, `infer_heads` does the
statistics, `knockout_sweep` cuts a head's view of a segment and `capture_attention` measures it.
`generation_sweep` says whether what the model writes flips, `head_directions` whether a head's effect
is one direction, `feature_sweep` what features of a given encoder carry.
`mediate` is the statistical mediation of any measured mediator, `mediation_sensitivity` what a cause of
mediator and outcome would do to it, and `compare_mediation` holds it against the sweep.
"""

from whyprompt.mediation.capture import AttentionCapture, HeadCapture, capture_heads
from whyprompt.mediation.directions import head_directions
from whyprompt.mediation.engine.align import align_shorter
from whyprompt.mediation.engine.sites import Site
from whyprompt.mediation.features import feature_sweep
from whyprompt.mediation.generation import generation_sweep
from whyprompt.mediation.inference import HeadInference
from whyprompt.mediation.intervals import mean_interval
from whyprompt.mediation.measured.baron_kenny import baron_kenny
from whyprompt.mediation.measured.compare import MediationComparison
from whyprompt.mediation.measured.mediate import MediationResult, contrast_mediations
from whyprompt.mediation.pairs import PromptPair, pair_from_rendered
from whyprompt.mediation.results import PairOutcomes, Sweep
from whyprompt.mediation.search import HeadSearch

__all__ = [
    "AttentionCapture",
    "HeadCapture",
    "HeadInference",
    "HeadSearch",
    "MediationComparison",
    "MediationResult",
    "PairOutcomes",
    "PromptPair",
    "Site",
    "Sweep",
    "align_shorter",
    "baron_kenny",
    "capture_heads",
    "contrast_mediations",
    "feature_sweep",
    "generation_sweep",
    "head_directions",
    "mean_interval",
    "pair_from_rendered",
]
