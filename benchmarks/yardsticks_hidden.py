"""How strong hidden confounding must be to undo an estimate: LaLonde's placebos beside true effects."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from yardsticks_data import RULES, SIMULATED, case, missing

if TYPE_CHECKING:
    from yardsticks_data import Places

# Of each rule, logs whose effect is known to be one.
_LOGS = 4
_TABLES = {
    "re78/out1": ("the experiment, earnings in 1978", "an effect"),
    "re75/out4": ("placebo, CPS", "none"),
    "re75/out5": ("placebo, PSID", "none"),
    "re75/out6": ("placebo, CPS, trimmed", "none"),
    "re75/out7": ("placebo, PSID, trimmed", "none"),
}
_TEXT = """\
### Why the placebo of the trimmed samples is claimed

On the samples as they are the sentence declines: what was recorded took most of a difference away, and
what is left is as likely the rest of the same (*exchangeability fails*). On the trimmed samples it took a
quarter of the difference away at most, overlap is doubtful at most, and balance and curves show nothing:
what differs is not recorded. There remains to ask how strong a hidden confounder would have to be
(Cinelli and Hazlett 2020, of the regression on the same covariates): the robustness value at the 5%
level, and what a confounder as strong as the strongest of the recorded ones would leave of the estimate.
"""
_END = """\
Of {n} simulated logs, whose effect is one, {weaker} have a smaller robustness value than both trimmed
placebos (median {median:.3f}), and in {undone} a confounder as strong as the strongest recorded would
leave nothing. A rule by such bounds that declined the trimmed placebos would decline these and the
experiment before. That they are claimed is a limit of adjusting for what was recorded; what tells is a
placebo outcome, where one has it (`negative_control_outcome`).
"""


class _Strength(NamedTuple):
    estimate: float
    value: float
    left: float


def _strength(yard: str, name: str, places: Places) -> _Strength:
    from whyprompt.effects.checks.partial_r2 import partial_r2_bounds
    from whyprompt.errors import EstimationError
    from whyprompt.stats.design import design_matrix

    one = case(yard, name, places)
    coded = design_matrix({column: one.frame[column].to_numpy() for column in one.confounders})
    groups: dict[str, list[int]] = {}
    for j, source in enumerate(coded.sources):
        groups.setdefault(source, []).append(j)
    try:
        made = partial_r2_bounds(
            one.frame[one.outcome].to_numpy(float),
            one.arm.astype(float),
            coded.matrix,
            benchmarks=groups,
            times=(1.0,),
            names=coded.names,
            strict=False,
        )
    except EstimationError:
        # Few rows may tell the arms apart: nothing is said of them.
        return _Strength(nan, nan, nan)
    way = float(np.sign(made.estimate or 0.0))
    left = min(way * part.estimate for part in made.parts if part.estimate is not None)
    value = made.figures["robustness_value_alpha"]
    assert isinstance(value, float)
    return _Strength(float(made.estimate or 0.0), value, way * left)


def hidden(places: Places) -> list[str]:
    """Say it of LaLonde's data and of the first simulated logs, in Markdown."""
    out = [_TEXT]
    out += [
        "| table | truth | regression | robustness value | left by one as strong as the strongest recorded |",
        "| --- | --- | --- | --- | --- |",
    ]
    values_of = {}
    for name, (title, truth) in _TABLES.items():
        one = _strength("lalonde", name, places)
        values_of[name] = one.value
        cells = f"{one.estimate:,.0f} | {one.value:.3f} | {one.left:,.0f}"
        out.append(f"| {title} | {truth} | {cells.replace('nan', '-')} |")
    out.append("")
    if not missing("prompts", places):
        logs = [
            _strength("prompts", f"{SIMULATED}/{rule}/{draw}", places)
            for rule in RULES
            for draw in range(_LOGS)
        ]
        values = np.array([one.value for one in logs])
        undone = sum(one.estimate * one.left <= 0 for one in logs)
        weaker = int((values < min(values_of[name] for name in ("re75/out6", "re75/out7"))).sum())
        out.append(_END.format(n=len(logs), weaker=weaker, median=np.median(values), undone=undone))
    return out
