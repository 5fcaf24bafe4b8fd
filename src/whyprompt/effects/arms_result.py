"""What a comparison of many arms gives back, and says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whyprompt._summary import balance_text, parts_table
from whyprompt._words import counted, format_number, percent
from whyprompt.effects.assumptions import FEW_ROWS
from whyprompt.effects.result import method_words
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption, BalanceRow, Estimate, Result, unlisted
from whyprompt.stats.rules import SMD_LIMIT
from whyprompt.stats.several import more_by_steps
from whyprompt.tables import level_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LOW_ESS", "ArmsResult", "arms_balance", "arms_overlap", "arms_sentence"]

LOW_ESS = 0.2
"""Weights worth less than this share of an arm's rows are said to rest on few of them."""


@dataclass(frozen=True, kw_only=True)
class ArmsResult(Result):
    """Many arms two by two; the parts are the pairs, each labelled ``"arm - reference"``.

    A part's `p_adjusted` is of the joint distribution of all pairs (Tukey's all-pairs comparison for weighted
    means, made step-down), or Holm's for methods that match each pair by itself, whose joint distribution is
    not known. Its treated rows are the arm's, its control rows the reference's.

    Attributes
    ----------
    treatment, outcome, estimand, method : str
    reference : str
        The arm that others are compared with, first or alone.
    focal : str or None
        The arm whose population an ATT speaks of.
    pairs : tuple of (str, str)
        Arm and reference of each part: every pair, the reference's first; or its comparisons alone, where a
        reference was asked for.
    means : tuple of Estimate
        Each arm's mean in the population of the estimand. Empty for methods that match each pair by itself.
    ess : mapping of str to float
        Kish's effective sample size of each arm under the weights.
    balance : tuple of BalanceRow
    adjustment : str
        Where the simultaneous intervals come from.
    std_error_method : str
    confounders : tuple of str
    weights : ndarray, shape (n,), optional
    """

    treatment: str
    outcome: str
    estimand: str
    method: str
    reference: str
    focal: str | None
    pairs: tuple[tuple[str, str], ...]
    means: tuple[Estimate, ...]
    ess: Mapping[str, float]
    balance: tuple[BalanceRow, ...]
    adjustment: str
    std_error_method: str
    confounders: tuple[str, ...]
    weights: NDArray[np.float64] | None = unlisted()

    def _blocks(self) -> list[str]:
        out = [f"Pairs of arms:\n{parts_table(self.parts)}"]
        return out + ([balance_text(self.balance)] if self.balance else [])

    def contrast(self, arm: object, reference: object) -> Estimate:
        """Return one pair, in the order asked for.

        Parameters
        ----------
        arm, reference : object
            Two arms.

        Returns
        -------
        Estimate

        Raises
        ------
        EstimationError
            If there is no such pair.
        """
        wanted = (level_name(arm), level_name(reference))
        if wanted in self.pairs:
            return self.parts[self.pairs.index(wanted)]
        if wanted[::-1] in self.pairs:
            return _turned(self.parts[self.pairs.index(wanted[::-1])], *wanted)
        raise EstimationError(f"there is no pair of {wanted[0]!r} and {wanted[1]!r} among the arms")


def _turned(row: Estimate, arm: str, reference: str) -> Estimate:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return replace(
        row,
        label=f"{arm} - {reference}",
        estimate=minus(row.estimate),
        ci_low=minus(row.ci_high),
        ci_high=minus(row.ci_low),
        simultaneous_low=minus(row.simultaneous_high),
        simultaneous_high=minus(row.simultaneous_low),
        n_treated=row.n_control,
        n_control=row.n_treated,
        n_treated_used=row.n_control_used,
        n_control_used=row.n_treated_used,
        mean_treated=row.mean_control,
        mean_control=row.mean_treated,
    )


def arms_overlap(result: ArmsResult) -> Assumption | None:
    """Judge overlap by what each arm's weights are worth; None where there are no weights."""
    if not result.means or result.method == "naive":
        return None
    rows = {mean.label: mean.n_used or 1 for mean in result.means}
    thin = min(rows, key=lambda arm: result.ess[arm] / rows[arm])
    ess, n = result.ess[thin], rows[thin]
    # Overlap weights leave rows without counterparts out on purpose.
    few = min(result.ess.values()) < FEW_ROWS if result.estimand == "ato" else ess / n < LOW_ESS
    return Assumption(
        name="overlap",
        status="doubtful" if few else "holds",
        check="effective sample size of each arm under its weights",
        detail=f"the least is {ess:.0f} of {n} rows, arm {thin!r}",
    )


def arms_balance(result: ArmsResult) -> tuple[Assumption, ...]:
    """Judge balance: of all arms, or within each pair that was matched by itself."""
    if result.balance:
        bad = [r for r in result.balance if r.smd_after is None or r.smd_after > SMD_LIMIT]
        largest = max((r.smd_after for r in result.balance if r.smd_after is not None), default=0.0)
        listed = ", ".join(
            f"{r.covariate} {format_number(r.smd_after, digits=2)} ({r.worst_pair[1]} and {r.worst_pair[0]})"
            for r in bad
        )
        where, good = "over all pairs of arms", f"the largest is {format_number(largest, digits=2)}"
    elif result.confounders:
        known = [
            (pair, r) for pair, r in zip(result.pairs, result.parts, strict=True) if r.estimate is not None
        ]
        over = [(pair, r) for pair, r in known if r.largest_smd is None or r.largest_smd > SMD_LIMIT]
        listed = ", ".join(f"{a} against {b} {format_number(r.largest_smd, digits=2)}" for (a, b), r in over)
        where, good = "within each pair of arms", "within the limit for every pair"
    else:
        return ()
    return (
        Assumption(
            name="balance",
            status="fails" if listed else "holds",
            check=f"largest standardised mean difference {where}, limit {SMD_LIMIT}",
            detail=f"over the limit: {listed}" if listed else good,
        ),
    )


def _adjusted(row: Estimate) -> float:
    return 1.0 if row.p_adjusted is None else row.p_adjusted


def arms_sentence(
    result: ArmsResult,
    assumptions: Sequence[Assumption],
    confounders: Sequence[str],
    design: str,
    *,
    to_reference: bool,
) -> str:
    """Say which arms differ."""
    rows = list(zip(result.pairs, result.parts, strict=True))
    seen = [
        (pair, r)
        for pair, r in rows
        if r.simultaneous_low is not None
        and r.simultaneous_high is not None
        and (r.simultaneous_low > 0 or r.simultaneous_high < 0)
    ]
    parts = [
        f"{arm!r} in place of {reference!r} by {format_number(r.estimate)}"
        f" ({format_number(r.simultaneous_low)} to {format_number(r.simultaneous_high)})"
        for (arm, reference), r in seen
    ]
    compared = sum(r.estimate is not None for r in result.parts)
    what = (
        f"Of {counted(compared, 'comparison')} with {result.reference!r}"
        if to_reference
        else f"Of {counted(compared, 'pair')} of arms"
    )
    text = (
        f"{what}, {len(seen)} {'differs' if len(seen) == 1 else 'differ'} in {result.outcome!r} after"
        f" adjustment for their number ({result.estimand.upper()} by {method_words(result.method)})"
    )
    text += f": {'; '.join(parts)}; intervals hold at once at {percent(result.level)}." if parts else "."
    rest = [(pair, _adjusted(r)) for pair, r in rows if (pair, r) not in seen]
    text += more_by_steps(
        [f"{arm!r} in place of {reference!r}" for (arm, reference), p in rest if p < 1 - result.level],
        least=[p for _, p in rest],
        level=result.level,
    )
    failed = [a for a in assumptions if a.status == "fails"]
    if failed:
        reasons = ". ".join(a.detail.rstrip(".") for a in failed)
        return f"{text} {reasons}. The differences may therefore not be claimed as effects of the arms."
    if design == "paired":
        return f"{text} Each item was run under every arm, so these are effects of the arms on these items."
    if design == "randomized":
        return f"{text} The arms were randomised, so these are effects of the arms."
    if not confounders:
        return f"{text} These are comparisons and not effects: nothing was adjusted for."
    return f"{text} They are effects if nothing but {', '.join(confounders)} affects both arm and outcome."
