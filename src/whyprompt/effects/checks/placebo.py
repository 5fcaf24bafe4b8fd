"""Refutations by what the arm cannot do: a placebo arm, and outcomes that it cannot move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._arguments import at_least, generator, names
from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.checks.placebo_arms import (
    arm_units,
    chance_of_arm,
    placebo_blocks,
    placebo_drawer,
    settle_how,
)
from whyprompt.effects.checks.rerun import Base, failed_share
from whyprompt.effects.problem import refuse_post_treatment
from whyprompt.errors import EstimationError
from whyprompt.results import Reported, rows_frame
from whyprompt.stats.rules import holm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.checks.rerun import Verdict
    from whyprompt.effects.pipeline import Core
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph

    Floats = NDArray[np.float64]

__all__ = [
    "NegativeControl",
    "NegativeControls",
    "PlaceboTreatment",
    "negative_control_outcome",
    "placebo_treatment",
]


# A bias of a quarter of a standard error takes a 95% interval's coverage to 94.3%.
_BIAS = 0.25


@dataclass(frozen=True, kw_only=True)
class PlaceboTreatment(Reported):
    """Estimates of an arm that has no effect by construction.

    Attributes
    ----------
    estimate : float
        Of the real arm.
    how : {"permute", "propensity"}
        How placebo arms were drawn.
    within : tuple of str
        Columns within whose levels the number of treated rows was held.
    draws, n_failed : int
        Placebo arms, and those that could not be estimated.
    p_value : float or None
        (1 + placebo statistics at least as far from zero as the real one) / (1 + draws): the randomisation
        test of no effect on any row. None where arms were shuffled that chance did not give: the real
        estimate then differs from the placebos' by its confounding as well, and p would be no test.
    placebo_mean, placebo_sd : float
        Of the placebo estimates.
    placebo_bias_p : float
        Of the test that their mean is zero: small where the pipeline finds effects that are not there.
    false_positive_rate : float or None
        Share of placebo intervals that exclude zero; should be near `1 - level`.
    level : float
        Of the intervals.
    estimates : tuple of float
        The placebo estimates.
    verdict : {"passes", "fails", "doubtful"}
        ``"fails"`` where placebo arms have effects (p below 0.001, and a mean of over a quarter of a
        standard deviation) or too many false positives (p below 0.001); ``"doubtful"`` where the real arm's
        estimate is not unusual among them.
    sentence : str
        The result in words.
    """

    estimate: float
    how: str
    within: tuple[str, ...]
    draws: int
    n_failed: int
    p_value: float | None
    placebo_mean: float
    placebo_sd: float
    placebo_bias_p: float
    false_positive_rate: float | None
    level: float
    estimates: tuple[float, ...]
    verdict: Verdict
    sentence: str

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the placebos' estimates beside the real arm's.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        return charts.draws_plot(
            self.estimates,
            marks={"the real arm": self.estimate},
            title="estimate (units of the outcome)",
            what="placebo arms",
        )


def placebo_treatment(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    how: Literal["auto", "permute", "propensity"] = "auto",
    within: Sequence[str] = (),
    placebos: int = 199,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> PlaceboTreatment:
    """Replace the arm by one that cannot have an effect, and estimate again.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome, confounders, graph
        As in `estimate_effect`.
    how : {"auto", "permute", "propensity"}, default "auto"
        Shuffle the arms over rows; or draw each row's arm from its propensity, estimated or known, which
        keeps the placebo as confounded as the real arm (the conditional randomisation test of Candes et al.
        2018).
        ``"auto"`` shuffles where ``design="randomized"`` or nothing is adjusted for.
    within : sequence of str
        Hold the number of treated rows among those equal in these columns (a block, a stratum, a day):
        shuffle within them, or exchange arms within them by the odds of the propensity (the conditional
        permutation test of Berrett et al. 2020).
    placebos : int, default 199
        Placebo arms.
    random_state : int, default 0
        For the draws.
    **options
        Of `estimate_effect`.

    Returns
    -------
    PlaceboTreatment

    Raises
    ------
    EstimationError
        If an option is not known, or more than a fifth of the placebos cannot be estimated.
    DataError, GraphError
        As for `estimate_effect`.

    Notes
    -----
    The statistic is the estimate over its standard error, which keeps the test's size also where only the
    average effect is zero (Wu and Ding 2021). Where the arm was randomised as it is shuffled, p is exact: it
    is uniform on its grid if the arm does nothing. Drawn from an estimated propensity it is approximate, and
    as good as that model.

    Shuffling arms that were chosen by the confounders gives no p-value. Matching leaves some of their
    imbalance in the real comparison and none, on average, in a shuffled one, within blocks or not; so an arm
    without any effect would look unusual too often. Placebos from the propensity leave as much of it as the
    real arm.

    With ``cluster=`` and one arm a cluster, clusters are shuffled in place of rows.

    References
    ----------
    Fisher (1935). The Design of Experiments. Oliver and Boyd, chapter 2.
    Wu and Ding (2021). Randomization tests for weak null hypotheses in randomized experiments. Journal of the
    American Statistical Association 116.
    Candes, Fan, Janson and Lv (2018). Panning for gold. Journal of the Royal Statistical Society B 80,
    section 4.
    Berrett, Wang, Barber and Samworth (2020). The conditional permutation test for independence while
    controlling for confounders. Journal of the Royal Statistical Society B 82.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(1)
    >>> arm = rng.integers(0, 2, 100)
    >>> frame = pd.DataFrame({"arm": arm, "y": 2.0 * arm + rng.normal(size=100)})
    >>> found = placebo_treatment(frame, treatment="arm", outcome="y", method="naive", placebos=19)
    >>> found.p_value, found.verdict
    (0.05, 'passes')
    """
    from scipy import stats

    at_least(placebos, 10, "placebos")
    within = tuple(dict.fromkeys(names(within, "within")))
    base = Base(
        frame, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph, options=options
    )
    for name in {treatment, outcome} & set(within):
        role = "treatment" if name == treatment else "outcome"
        raise EstimationError(f"within names {name!r}, the {role}", hint="name columns known before the arm")
    refuse_post_treatment(within, treatment=treatment, outcome=outcome)
    randomised = options.get("design") == "randomized"
    adjusted = bool(base.problem.confounders) or base.problem.known_score is not None
    chosen = settle_how(how, randomised=randomised, adjusted=adjusted)
    draw = _drawer(base, chosen, within, generator(random_state))
    found: list[Core] = []
    failed: list[str] = []
    for _ in range(placebos):
        one = base.with_arm(draw())
        if isinstance(one, str):
            failed.append(one)
        else:
            found.append(one)
    failed_share(failed, placebos, "placebo arms")
    values = np.array([r.estimate for r in found])
    p_value = None
    if chosen == "propensity" or randomised or not adjusted:
        real = _statistic(base.result)
        p_value = (1 + sum(_statistic(r) >= real * (1 - 1e-12) for r in found)) / (1 + len(found))
    spread = float(values.std(ddof=1))
    mean = float(values.mean())
    error = spread / np.sqrt(len(values))
    bias_p = float(2 * stats.t.sf(abs(mean) / error, len(values) - 1)) if error > 0 else 1.0
    limits = [(r.ci[0], r.ci[1]) for r in found if r.ci[0] is not None and r.ci[1] is not None]
    level = base.result.level
    rate, excess_p = None, 1.0
    if limits:
        wrong = sum(low > 0 or high < 0 for low, high in limits)
        rate = wrong / len(limits)
        excess_p = float(stats.binom.sf(wrong - 1, len(limits), 1 - level))
    # A pipeline is not condemned by bad luck of the draws (one in five hundred, over two tests), nor for a
    # bias that many draws can show and that changes no interval's coverage by a percentage point.
    biased = bias_p < 0.001 and abs(mean) > _BIAS * spread
    verdict: Verdict = (
        "fails"
        if biased or excess_p < 0.001
        else "passes"
        if p_value is None or p_value <= 0.05
        else "doubtful"
    )
    return PlaceboTreatment(
        estimate=base.result.estimate,
        how=chosen,
        within=tuple(within),
        draws=len(found),
        n_failed=len(failed),
        p_value=p_value,
        placebo_mean=mean,
        placebo_sd=spread,
        placebo_bias_p=bias_p,
        false_positive_rate=rate,
        level=level,
        estimates=tuple(values.tolist()),
        verdict=verdict,
        sentence=_placebo_sentence(base.result, values, p_value, bias_p, rate, verdict, chosen, within),
    )


def _drawer(
    base: Base, how: str, within: Sequence[str], rng: np.random.Generator
) -> Callable[[], NDArray[np.bool_]]:
    problem = base.problem
    columns = [base.table.labels(name, role="within") for name in within]
    blocks = placebo_blocks(columns, base.table.n_rows)
    if within and not any(0 < base.treated[rows].sum() < len(rows) for rows in blocks):
        raise EstimationError(
            f"no block of {', '.join(within)} holds both arms: shuffling within them changes nothing"
        )
    units = arm_units(problem)
    if units is not None and how == "propensity":
        raise EstimationError(
            "every cluster has one arm, so clusters got the arm and a propensity of rows cannot draw it",
            hint="how='permute' shuffles whole clusters",
        )
    if units is not None and any(
        len(set(units[rows].tolist()) & set(units[other].tolist())) > 0
        for k, rows in enumerate(blocks)
        for other in blocks[k + 1 :]
    ):
        raise EstimationError(f"a cluster with one arm lies in several blocks of {', '.join(within)}")
    chance = chance_of_arm(problem, base.score) if how == "propensity" else None
    return placebo_drawer(base.treated, blocks, chance=chance, within=bool(within), units=units, rng=rng)


def _placebo_sentence(
    result: EffectResult,
    values: Floats,
    p_value: float | None,
    bias_p: float,
    rate: float | None,
    verdict: Verdict,
    how: str,
    within: Sequence[str],
) -> str:
    drawn = "shuffled" if how == "permute" else "drawn anew from the propensities"
    place = f"within {', '.join(within)}" if within else "over the rows"
    words = (
        f"With the arm {drawn} {place} {counted(len(values), 'time')}, estimates average"
        f" {format_number(float(values.mean()))}"
        f" with a standard deviation of {format_number(float(values.std(ddof=1)))}"
    )
    if rate is not None:
        words += f", and {rate:.0%} of their {percent(result.level)} intervals exclude zero"
    if verdict == "fails":
        return words + (
            f" (mean zero: p {p_words(bias_p)}): the pipeline finds effects of arms that"
            " have none, so its estimate or its interval is not to be trusted."
        )
    if p_value is None:
        return words + (
            ": the pipeline finds no effect of a shuffled arm. The real arm was not given by such a shuffle,"
            " so whether its estimate is unusual among these is no test of no effect; placebos drawn from the"
            " propensity (how='propensity') give one."
        )
    usual = "not unusual among them" if p_value > 0.05 else "unusual among them"
    tail = (
        ": the data do not show an effect of the arm on any row."
        if p_value > 0.05
        else ". This speaks against chance, and not against hidden confounding."
    )
    return words + (
        f"; the estimate of the real arm, {format_number(result.estimate)}, is {usual}"
        f" (p {p_words(p_value, least=1 / (1 + len(values)))}){tail}"
    )


def _statistic(result: EffectResult | Core) -> float:
    if result.std_error is None or not result.std_error > 0:
        return abs(result.estimate)
    return abs(result.estimate) / result.std_error


@dataclass(frozen=True, kw_only=True, slots=True)
class NegativeControl:
    """The arm's apparent effect on an outcome that it cannot move.

    Attributes
    ----------
    outcome : str
    estimate : float
    std_error, ci_low, ci_high, p_value, p_holm : float or None
        Against zero; adjusted for the number of negative controls.
    standardised : float or None
        Estimate in standard deviations of the outcome among the control arm.
    """

    outcome: str
    estimate: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    standardised: float | None


@dataclass(frozen=True, kw_only=True)
class NegativeControls(Reported):
    """Estimates for outcomes that the arm cannot move.

    Attributes
    ----------
    rows : tuple of NegativeControl
        One an outcome.
    verdict : {"passes", "fails", "doubtful"}
        ``"fails"`` where one differs from zero after adjustment; ``"doubtful"`` where no interval can be had.
    sentence : str
        The result in words.
    """

    rows: tuple[NegativeControl, ...]
    verdict: Verdict
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates.

        Returns
        -------
        pandas.DataFrame
            One row an outcome.
        """
        return rows_frame(self.rows, NegativeControl)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the estimate of each outcome in its standard deviations.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        rows = []
        for row in self.rows:
            # The interval in the same unit as the estimate.
            unit = row.standardised / row.estimate if row.standardised is not None and row.estimate else None
            low, high = (None if v is None or unit is None else v * unit for v in (row.ci_low, row.ci_high))
            rows.append({"label": row.outcome, "estimate": row.standardised, "low": low, "high": high})
        return charts.interval_plot(
            rows, title="apparent effect (standard deviations of the outcome in the control arm)"
        )


def negative_control_outcome(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcomes: Sequence[str],
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    alpha: float = 0.05,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> NegativeControls:
    """Estimate the arm's effect on outcomes that it cannot have one on.

    Such as the score of the same item before the arm was run, or under a prompt that was the same in both
    arms. What confounds the real outcome should confound these as well; then an estimate away from zero shows
    confounding that was not adjusted for.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment : str
        Column.
    outcomes : sequence of str
        Columns that the arm cannot have moved.
    confounders, graph
        As in `estimate_effect`; the graph gives the adjustment set of each outcome, so it must hold them.
    alpha : float, default 0.05
        Level of the verdict, after Holm's adjustment.
    **options
        Of `estimate_effect`.

    Returns
    -------
    NegativeControls

    Raises
    ------
    EstimationError
        If no outcome is given, or as for `estimate_effect`.

    References
    ----------
    Lipsitch, Tchetgen Tchetgen and Cohen (2010). Negative controls: a tool for detecting confounding and bias
    in observational studies. Epidemiology 21.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=500)
    >>> arm = (hard + rng.normal(size=500) > 0).astype(int)
    >>> before = -hard + rng.normal(size=500)
    >>> frame = pd.DataFrame({"arm": arm, "before": before, "hard": hard})
    >>> negative_control_outcome(frame, treatment="arm", outcomes=["before"], method="naive").verdict
    'fails'
    >>> negative_control_outcome(
    ...     frame, treatment="arm", outcomes=["before"], confounders=["hard"], method="overlap"
    ... ).verdict
    'passes'
    """
    if isinstance(outcomes, str) or not outcomes:
        raise EstimationError("outcomes is a list of at least one column", hint="outcomes=['score_before']")
    repeated = sorted({name for name in outcomes if list(outcomes).count(name) > 1})
    if repeated:
        raise EstimationError(f"outcomes names {repeated[0]!r} twice")
    if not 0 < alpha < 1:
        raise EstimationError(f"alpha={alpha}: it lies between 0 and 1, 0.05 for example")
    if graph is not None:
        for name in outcomes:
            if name in graph.nodes and name in graph.descendants(treatment):
                raise EstimationError(
                    f"the graph says that {treatment!r} causes {name!r}: it is no negative control",
                    hint="take an outcome that the arm cannot have moved",
                )
    made = []
    for name in outcomes:
        base = Base(
            frame, treatment=treatment, outcome=name, confounders=confounders, graph=graph, options=options
        )
        y = base.problem.y[~base.treated]
        spread = float(y.std(ddof=1)) if len(y) > 1 else 0.0
        made.append((name, base.result, base.result.estimate / spread if spread > 0 else None))
    raw = [r.p_value for _, r, _ in made]
    rows = tuple(
        NegativeControl(
            outcome=name,
            estimate=r.estimate,
            std_error=r.std_error,
            ci_low=r.ci_low,
            ci_high=r.ci_high,
            p_value=p,
            p_holm=adjusted,
            standardised=scaled,
        )
        for (name, r, scaled), p, adjusted in zip(made, raw, holm(raw), strict=True)
    )
    bad = [row for row in rows if row.p_holm is not None and row.p_holm < alpha]
    unknown = [row for row in rows if row.p_value is None]
    verdict: Verdict = "fails" if bad else "doubtful" if unknown else "passes"
    if bad:
        worst = min(bad, key=lambda row: row.p_holm or 0.0)
        words = (
            f"The arm appears to change {worst.outcome!r} by {format_number(worst.estimate)}"
            f" ({format_number(worst.ci_low)} to {format_number(worst.ci_high)},"
            f" p {p_words(worst.p_holm)}), which it cannot have done: the arms differ in"
            " something that was not adjusted for, and the effect on the real outcome is in doubt by as much."
        )
    elif unknown:
        words = (
            f"No interval can be had for {unknown[0].outcome!r}, so it cannot serve as a negative control."
        )
    else:
        names = ", ".join(repr(row.outcome) for row in rows)
        widest = max(rows, key=lambda row: row.std_error or 0.0)
        words = (
            f"No effect is found on {names}, which the arm cannot have moved; the interval for"
            f" {widest.outcome!r} is {format_number(widest.ci_low)} to {format_number(widest.ci_high)}, so"
            " confounding beyond that is unlikely if it would have shown there."
        )
    return NegativeControls(rows=rows, verdict=verdict, sentence=words)
