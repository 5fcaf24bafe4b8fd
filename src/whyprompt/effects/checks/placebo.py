"""A placebo arm: estimates of an arm that has no effect by construction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._arguments import at_least, generator, names
from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.checks.placebo_arms import arm_drawer
from whyprompt.effects.checks.rerun import Base, of_effect, repeat
from whyprompt.effects.problem import refuse_post_treatment
from whyprompt.errors import EstimationError
from whyprompt.results import Check, Estimate
from whyprompt.stats.rules import p_of_draws
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Verdict

    Floats = NDArray[np.float64]


# A bias of a quarter of a standard error takes a 95% interval's coverage to 94.3%.
_BIAS = 0.25


def placebo_treatment(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    how: Literal["auto", "permute", "propensity"] = "auto",
    within: Sequence[str] = (),
    draws: int = 199,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> Check:
    """Replace the arm by one that cannot have an effect, and estimate again.

    Parameters
    ----------
    frame, treatment, outcome, confounders, graph, random_state, **options
        As in `refute`.
    how : {"auto", "permute", "propensity"}, default "auto"
        Shuffle the arms over rows; or draw each row's arm from its propensity, estimated or known, which
        keeps the placebo as confounded as the real arm (the conditional randomisation test of Candes et al.
        2018).
        ``"auto"`` shuffles where ``design="randomized"`` or nothing is adjusted for.
    within : sequence of str
        Hold the number of treated rows among those equal in these columns (a block, a stratum, a day):
        shuffle within them, or exchange arms within them by the odds of the propensity (the conditional
        permutation test of Berrett et al. 2020).
    draws : int, default 199
        Placebo arms.

    Returns
    -------
    Check
        Its parts: the mean of the placebo estimates, whose p is small where the pipeline finds effects that
        are not there; their standard deviation; the false positive rate, the share of their intervals that
        exclude zero, which should be near `1 - level`; and the randomisation test of no effect on any row,
        whose p is (1 + placebo statistics at least as far from zero as the real one) / (1 + draws). That test
        is left out where arms were shuffled that chance did not give: the real estimate then differs from the
        placebos' by its confounding as well. It ``"fails"`` where placebo arms have effects (p below 0.001,
        and a mean of over a quarter of a standard deviation) or too many false positives (p below 0.001), and
        is ``"doubtful"`` where the real arm's estimate is not unusual among them.

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
    >>> found = placebo_treatment(frame, treatment="arm", outcome="y", method="naive", draws=19)
    >>> found.part("randomisation test").p_value, found.verdict
    (0.05, 'passes')
    """
    from scipy import stats

    at_least(draws, 10, "draws")
    within = tuple(dict.fromkeys(names(within, "within")))
    base = Base(frame, treatment, outcome, confounders, graph, options)
    for name in {treatment, outcome} & set(within):
        role = "treatment" if name == treatment else "outcome"
        raise EstimationError(f"within names {name!r}, the {role}", hint="name columns known before the arm")
    refuse_post_treatment(within, treatment=treatment, outcome=outcome)
    randomised = options.get("design") == "randomized"
    adjusted = bool(base.problem.confounders) or base.problem.known_score is not None
    if how not in {"auto", "permute", "propensity"}:
        raise EstimationError(f"how={how!r} is not known", hint="'auto', 'permute' or 'propensity'")
    chosen = how if how != "auto" else "propensity" if adjusted and not randomised else "permute"
    draw = arm_drawer(
        base.problem,
        chosen,
        score=base.score,
        within={name: base.table.labels(name, role="within") for name in within},
        rng=generator(random_state),
        hint="how='permute' shuffles whole clusters",
    )
    found, failed = repeat(draws, lambda: base.with_arm(draw()), "placebo arms")
    values = np.array([r.estimate for r in found])
    p_value = None
    if chosen == "propensity" or randomised or not adjusted:
        real = _statistic(base.result)
        p_value = p_of_draws(sum(_statistic(r) >= real * (1 - 1e-12) for r in found), len(found))
    spread = float(values.std(ddof=1))
    mean, n = float(values.mean()), len(values)
    error = float(spread / np.sqrt(len(values)))
    bias_p = two_sided_p(mean, error, len(values) - 1) or 1.0
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
    verdict: Verdict = "passes" if p_value is None or p_value <= 0.05 else "doubtful"
    if biased or excess_p < 0.001:
        verdict = "fails"
    what = "placebo estimates"
    parts = [
        Estimate(label=f"mean of {what}", estimate=mean, std_error=error, p_value=bias_p, df=n - 1, n_used=n),
        Estimate(label=f"standard deviation of {what}", estimate=spread, n_used=n),
    ]
    if rate is not None:
        parts.append(
            Estimate(label="false positive rate", estimate=rate, p_value=excess_p, n_used=len(limits))
        )
    if p_value is not None:
        parts.append(Estimate(label="randomisation test", estimate=_statistic(base.result), p_value=p_value))
    made = Check(
        sentence="",
        name="placebo treatment",
        verdict=verdict,
        overall=of_effect(base.result, "the real arm"),
        parts=tuple(parts),
        level=level,
        draws=tuple(values.tolist()),
        n_failed=len(failed),
        settings={"drawn": "placebo arms", "how": chosen, "within": tuple(within)},
    )
    return replace(made, sentence=_sentence(made, p_value, rate))


def _sentence(found: Check, p_value: float | None, rate: float | None) -> str:
    mean, spread = found.parts[:2]
    within = ", ".join(found.settings["within"])
    drawn = "shuffled" if found.settings["how"] == "permute" else "drawn anew from the propensities"
    words = (
        f"With the arm {drawn} {f'within {within}' if within else 'over the rows'}"
        f" {counted(len(found.draws), 'time')}, estimates average {format_number(mean.estimate)}"
        f" with a standard deviation of {format_number(spread.estimate)}"
    )
    if rate is not None:
        words += f", and {rate:.0%} of their {percent(found.level)} intervals exclude zero"
    if found.verdict == "fails":
        return words + (
            f" (mean zero: p {p_words(mean.p_value)}): the pipeline finds effects of arms that"
            " have none, so its estimate or its interval is not to be trusted."
        )
    if p_value is None:
        return words + (
            ": the pipeline finds no effect of a shuffled arm. The real arm was not given by such a shuffle,"
            " so whether its estimate is unusual among these is no test of no effect; placebos drawn from the"
            " propensity (how='propensity') give one."
        )
    usual, tail = (
        ("not unusual", ": the data do not show an effect of the arm on any row.")
        if p_value > 0.05
        else ("unusual", ". This speaks against chance, and not against hidden confounding.")
    )
    return words + (
        f"; the estimate of the real arm, {format_number(found.estimate)}, is {usual} among them"
        f" (p {p_words(p_value, least=p_of_draws(0, len(found.draws)))}){tail}"
    )


def _statistic(result: EffectResult | Fit) -> float:
    if result.std_error is None or not result.std_error > 0:
        return abs(result.estimate)
    return abs(result.estimate) / result.std_error
