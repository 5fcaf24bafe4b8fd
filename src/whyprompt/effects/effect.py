"""The one verb: the effect of one arm against another, on one outcome, several, or an ordered one.

How rows got their arms is an argument. One arm a row is matched or weighed; items under both arms are
compared with themselves. Every further question is asked of either comparison.
"""

# ruff: noqa: ANN401 - any frame library's type, and options that methods check

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from whyprompt._arguments import at_least, seed
from whyprompt.effects.comparison import paired
from whyprompt.effects.designs.make import DESIGNS, design_effect, refuse_foreign_options
from whyprompt.effects.estimate import adjusted, estimated
from whyprompt.effects.large.source import is_path, parquet_files, words_of
from whyprompt.effects.ordinal import ordered_outcome
from whyprompt.effects.paired import paired_effect
from whyprompt.effects.pairs import named_arms, refuse_adjustment
from whyprompt.effects.result import EffectResult
from whyprompt.effects.several import outcome_names, several_outcomes
from whyprompt.errors import EstimationError
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.comparison import Comparison
    from whyprompt.effects.methods.make import MethodLike
    from whyprompt.effects.several import EffectsResult
    from whyprompt.graph.model import CausalGraph


# Of a joint distribution, where none were asked for.
_JOINT_DRAWS = 20_000
_BOOTSTRAP_DRAWS = 1_000
# Designs with one arm a row.
_ONE_ARM = ("observational", "randomized")


@overload
def estimate_effect(
    frame: Any, *, treatment: str, outcome: str, levels: Sequence[object], **options: Any
) -> EffectsResult: ...
@overload
def estimate_effect(
    frame: Any, *, treatment: str, outcome: list[str] | tuple[str, ...], **options: Any
) -> EffectsResult: ...
@overload
def estimate_effect(
    frame: Any, *, outcome: str, design: Literal["rollout"], treatment: None = ..., **options: Any
) -> EffectResult: ...
@overload
def estimate_effect(
    frame: Any,
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = ...,
    graph: CausalGraph | None = ...,
    method: MethodLike | None = ...,
    estimand: str | None = ...,
    design: str = ...,
    treated: object | None = ...,
    control: object | None = ...,
    propensity: Any = ...,
    cluster: str | None = ...,
    by: str | Sequence[str] | None = ...,
    level: float = ...,
    std_error: str = ...,
    draws: int | None = ...,
    base_levels: Mapping[str, str] | None = ...,
    denominator: Denominator = ...,
    random_state: int = ...,
    **options: Any,
) -> EffectResult: ...
def estimate_effect(
    frame: Any,
    *,
    treatment: str | None = None,
    outcome: str | Sequence[str],
    levels: Sequence[object] | None = None,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    method: MethodLike | None = None,
    estimand: str | None = None,
    design: str = "observational",
    treated: object | None = None,
    control: object | None = None,
    propensity: Any = None,
    cluster: str | None = None,
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
    std_error: str = "auto",
    draws: int | None = None,
    base_levels: Mapping[str, str] | None = None,
    denominator: Denominator = "pooled",
    random_state: int = 0,
    **options: Any,
) -> EffectResult | EffectsResult:
    """Estimate the effect of one arm against another.

    Parameters
    ----------
    frame : DataFrame, str or list of str
        pandas, polars or pyarrow. It is read and never written. Or the path of a Parquet file, a pattern such
        as ``"logs/*.parquet"``, or several: read whole where that takes no more than `memory`, and in passes
        by DuckDB otherwise, as ``settings["table"]`` and a warning say.
    treatment : str
        Column with the arm: 0/1, boolean, or levels of which `treated` names one. A roll-out with `changed`
        does without.
    outcome : str or sequence of str
        Column. An outcome of 0 and 1 is also given as a risk ratio and an odds ratio (`measures`). Several
        are estimated together, with p-values and intervals adjusted for their number.
    levels : sequence, optional
        The outcome is ordered, and these are its levels from the lowest to the highest; ``"sorted"`` takes
        those of a column of numbers. The effect is then on reaching each level.
    confounders : sequence of str, optional
        Columns that affect both the choice of arm and the outcome. Text columns are coded by reference
        coding. Columns that the arm causes are refused, by the names that the field gives to them
        (``prompt_tokens``, ``latency_ms``, ...) and where rows of one item show it.
    graph : CausalGraph, optional
        Gives the confounders, or checks those given. It settles what the arm causes, whatever the names are.
    method : str, Method or mapping, optional
        ``aipw``, ``nearest``, ``optimal``, ``full``, ``kernel``, ``subclass``, ``cem``, ``ipw``, ``overlap``,
        ``entropy`` or ``naive`` (difference of means); or one with its options, such as
        ``Nearest(caliper=0.2)``. Default ``aipw``, doubly robust with flexible models of the arm and of the
        outcome; in a randomised design the same of the ATE, with the share of the arm for its score, and
        ``naive`` where there is nothing to adjust for.
    estimand : {"att", "atc", "ate", "ato"}, optional
        Default ``"att"``, or ``"ato"`` with a warning where neither a method nor an estimand is named and the
        treated rows hardly have a counterpart; ``"ato"`` for ``method="overlap"`` and ``"ate"`` for
        ``method="naive"``.
    design : {"observational", "randomized", "paired", "instrument", "front_door", "rollout"}
        How rows got their arms. Paired: every item was run under both, and is compared with itself; nothing
        has to be adjusted for, and what only an adjustment needs is refused. Instrument: the arm follows
        something that moves the outcome through the arm alone, as a randomised assignment that was not always
        kept; the effect is that on the rows that follow it, by two-stage least squares, with the interval of
        Anderson and Rubin, which a weak instrument does not spoil (and may leave unbounded). Front door:
        what decided the arm is not known, and all that the arm does goes through measured mediators, which it
        did not decide; the effect is that of the arm on them times theirs on the outcome. Roll-out: the arm
        changed on a date. What changed rows would have been is imputed from routes that did not change,
        or not yet, with route and period effects (difference in differences, event study, staggered dates);
        from the series' own trend where every route changed at once, or there is but one.
    treated, control : object, optional
        Levels of the treatment. Where both are named, rows of other arms are put aside and counted; for all
        arms at once see `compare_arms`.
    propensity : str or scikit-learn classifier, optional
        Column with known propensities; or what estimates them in place of the method's own score,
        cross-fitted: ``"logit"``, ``"boosted"``, a classifier, or the text of one,
        ``"sklearn.ensemble.RandomForestClassifier(min_samples_leaf=10)"``.
    cluster : str, optional
        Column with the sampling unit. Default: ``cluster``, ``item_id`` or another column that plainly is one
        where its values repeat, with a warning; ``"none"`` takes every row as a unit of its own. In a paired
        design it groups items sampled together (a template); the error is then CR2 with Satterthwaite's
        degrees of freedom.
    by : str or sequence of str, optional
        Columns known before the arm was chosen. The whole analysis is run within each of their levels, with
        Holm's adjustment over all of them and a test of whether the effects differ.
    level : float, default 0.95
        Of the intervals.
    std_error : {"auto", "pairs", "abadie_imbens", "strata", "bootstrap", "wild_bootstrap"}, default "auto"
        ``auto`` is the one that goes with the method, corrected for the estimated score where the correction
        is known; one asked for by name is the textbook's, score taken as known.
    draws : int, optional
        Of a bootstrap (default 1,000), or of the joint distribution of several outcomes (20,000; up to 14
        items or clusters under both arms all sign patterns are used).
    base_levels : mapping of str to str, optional
        Level of a text column that the others are coded against; default the first in sorted order.
    denominator : {"pooled", "treated", "control", "all", "weighted"}, default "pooled"
        Of standardised mean differences.
    random_state : int, default 0
        For everything random (folds, draws, a random order), dealt to rows by what they hold: the order of
        the table decides only between equal scores, and not where `tie_break` is given.
    **options
        Of a path: `memory`, what the table may take, bytes or ``"2GB"`` (default a quarter of what is free).
        Of the method: ``method="nearest", caliper=0.2`` is ``method=Nearest(caliper=0.2)``; of the design.
        One that they have not is refused by name.
        Of a paired design: `unit`, the column with the item (default ``item_id``), whose repeats under an arm
        are averaged, and `noise`: what makes trials of one item and arm differ, for what is said of single
        items. ``"independent"`` (default): draws of their own; ``"shared"``: draws that items share, as one
        set of shots for all items of a repetition; ``"none"``, as where outcomes are scored and prompts
        fixed.
        Of an instrument: `instrument`, its column, a number or two levels. Of a front door: `mediators`,
        numbers, or text as levels (default: the graph's).
        Of a roll-out: `time`, the column with when rows ran (dates or numbers); `unit`, that with their
        route; `changed`, the date or a mapping of route to date (default: where rows of the new arm begin);
        `period`, the days in a period (1); `leads`, the periods before a change that are tested (3); `trend`
        of one series (``"linear"`` or ``"none"``); its `std_error` is ``"jackknife"`` (a route left out at a
        time) or ``"permutation"`` (`draws` other assignments of the dates, 999, or all), which is taken
        unasked where fewer than three routes changed, or did not.

    Returns
    -------
    EffectResult
        Or `EffectsResult` of several outcomes, or an ordered one.

    Raises
    ------
    DataError
        If a column is absent, has missing or infinite values, or is of the wrong kind; in a paired design
        also if `cluster` or `by` varies within an item.
    EstimationError
        If an arm is empty, scores are separated, nothing can be matched, a covariate is caused by the arm, an
        instrument is constant or the arm itself, or options contradict each other or the design; or no item
        has an outcome under both arms.
    GraphError
        If the graph forbids a confounder, or says that an instrument is none.

    See Also
    --------
    Nearest, Optimal, Full, Kernel, Subclass, CEM, IPW, Overlap, Entropy, AIPW : methods and their options.

    References
    ----------
    Rosenbaum, P. R. and Rubin, D. B. (1983). The central role of the propensity score in observational
    studies for causal effects. Biometrika 70, 41-55.
    Bell, R. M. and McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with
    multi-stage samples. Survey Methodology 28, 169-181.
    McNemar, Q. (1947). Psychometrika 12, 153-157, in the exact binomial form.
    Bonett, D. G. and Price, R. M. (2012). Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data. Journal of Educational and Behavioral Statistics 37, 479-488.
    Holm, S. (1979). Scandinavian Journal of Statistics 6, 65-70.
    Anderson, T. W. and Rubin, H. (1949). Annals of Mathematical Statistics 20, 46-63.
    Pearl, J. (1995). Causal diagrams for empirical research. Biometrika 82, 669-688.
    Borusyak, K., Jaravel, X. and Spiess, J. (2024). Revisiting event-study designs: robust and efficient
    estimation. Review of Economic Studies 91, 3253-3285.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> difficulty = rng.normal(size=400)
    >>> arm = rng.random(400) < 1 / (1 + np.exp(-difficulty))
    >>> score = 2.0 * arm - difficulty + rng.normal(size=400)
    >>> frame = pd.DataFrame({"arm": arm, "score": score, "difficulty": difficulty})
    >>> result = estimate_effect(
    ...     frame, treatment="arm", outcome="score", confounders=["difficulty"]
    ... )
    >>> result.ci_low < 2.0 < result.ci_high
    True

    Every item under both arms, on two outcomes, and on one with ordered levels:

    >>> frame = pd.DataFrame({"item_id": [1, 1, 2, 2, 3, 3], "arm": ["direct", "cot"] * 3})
    >>> frame["score"], frame["grade"] = [0.0, 1.0, 2.0, 4.0, 1.0, 4.0], [1, 2, 2, 2, 1, 3]
    >>> shared = {"treatment": "arm", "treated": "cot", "control": "direct", "design": "paired"}
    >>> estimate_effect(frame, outcome="score", **shared).estimate
    2.0
    >>> [part.label for part in estimate_effect(frame, outcome=["score", "grade"], **shared).parts]
    ['score', 'grade']
    >>> [part.label for part in estimate_effect(frame, outcome="grade", levels="sorted", **shared).parts]
    ['at least 2', 'at least 3']
    """
    asked_for = {name: value for name, value in locals().items() if name not in {"frame", "options"}}
    memory = options.pop("memory", None)
    if is_path(frame):
        return _of_files(frame, memory, {**asked_for, **options})
    if memory is not None:
        raise EstimationError(
            "memory= is of a table given by its path, and this one is in memory", hint="leave it out"
        )
    table = open_table(frame)
    several = None if isinstance(outcome, str) else outcome_names(outcome)
    if levels is not None:
        _refuse_ordered(by=by, std_error=std_error, several=several)
    elif several is not None:
        _refuse_several(by=by, std_error=std_error)
    shared: dict[str, Any] = {"treatment": treatment, "cluster": cluster, "level": level}
    asked: dict[str, Any] = {
        "confounders": confounders,
        "graph": graph,
        "method": method,
        "estimand": estimand,
        "propensity": propensity,
        "std_error": std_error,
        "base_levels": base_levels,
        "denominator": denominator,
        **options,
    }
    if design not in (known := ("observational", "randomized", "paired", *DESIGNS)):
        raise EstimationError(f"design {design!r} is not known", hint=f"one of: {', '.join(known)}")
    if design in DESIGNS:
        if several is not None or levels is not None:
            raise EstimationError(
                f"design={design!r} takes one outcome that is not ordered", hint="name one outcome at a time"
            )
        of_call = {"outcome": str(outcome), "treated": treated, "control": control, "by": by}
        of_call |= {"draws": draws, "random_state": random_state}
        return design_effect(table, design, shared | asked | of_call)
    if treatment is None:
        raise EstimationError("treatment= is not given", hint="name the column with the arm")
    refuse_foreign_options(design, options)
    if design == "paired":
        within = _paired_options(asked, draws=draws, single=several is None and levels is None)
        names = named_arms(table, treatment, treated, control)
        shared |= {"treated": names[0], "control": names[1], "unit": within.pop("unit")}
        if several is None and levels is None:
            return paired_effect(table, outcome=str(outcome), by=by, **within, **shared)
        compare: Callable[..., Comparison] = partial(paired, averaged=levels is None, **shared)
    else:
        shared |= {"design": design, "treated": treated, "control": control, "random_state": random_state}
        shared |= asked | {"draws": _BOOTSTRAP_DRAWS if draws is None else draws}
        if several is None and levels is None:
            return estimated(table, outcome=str(outcome), by=by, **shared).result
        compare = partial(adjusted, **shared)
    if levels is not None:
        name = str(outcome)
        return ordered_outcome(table, name, lambda coded: compare(coded, outcomes=[name]), levels=levels)
    assert several is not None
    table.require(several, role="outcome")
    count = _JOINT_DRAWS if draws is None else draws
    at_least(count, 2, "draws")
    seed(random_state)
    return several_outcomes(compare(table, outcomes=several), draws=count, random_state=random_state)


def _of_files(paths: Any, memory: float | str | None, asked: dict[str, Any]) -> EffectResult | EffectsResult:
    """Read files whole where they fit in memory, and say how they were read."""
    table = parquet_files(paths, memory)
    if table.fits:
        found: EffectResult | EffectsResult = estimate_effect(table.read(), **asked)
        if not isinstance(found, EffectResult):
            return found
        return replace(found, settings={**found.settings, "table": "read whole"})
    where = f"{table.label} takes {words_of(table.size)} and may take {words_of(table.memory)}"
    idle = {"levels": None, "by": None, "draws": None}
    for name, value in idle.items():
        if asked.pop(name) != value:
            raise EstimationError(
                f"{where}: {name}= is not offered beyond that", hint="give more with memory="
            )
    if not isinstance(asked["outcome"], str) or asked["design"] not in _ONE_ARM:
        what = "several outcomes" if asked["design"] in _ONE_ARM else ""
        raise EstimationError(
            f"{where}: {what or 'design=' + repr(asked['design'])} is not offered beyond that",
            hint="name one outcome at a time" if what else "give more with memory=, or average by item first",
        )
    if asked["treatment"] is None:
        raise EstimationError("treatment= is not given", hint="name the column with the arm")
    from whyprompt.effects.large.estimate import large_effect

    return large_effect(table, **asked)


def _refuse_ordered(*, by: object, std_error: str, several: object) -> None:
    """Refuse what is not made for an ordered outcome."""
    if several is not None:
        raise EstimationError(
            "levels= is for one ordered outcome, and several outcomes are named", hint="name one at a time"
        )
    if std_error == "bootstrap":
        raise EstimationError("the bootstrap is not made for ordered outcomes", hint="leave std_error='auto'")
    if by is not None:
        raise EstimationError("by= is not made for ordered outcomes", hint="give the rows of one subgroup")


def _refuse_several(*, by: object, std_error: str) -> None:
    """Refuse what is made for one outcome at a time."""
    if std_error in {"bootstrap", "wild_bootstrap"}:
        raise EstimationError(
            "a bootstrap is not made for several outcomes at once", hint="leave std_error='auto'"
        )
    if by is not None:
        raise EstimationError("by= is for one outcome at a time", hint="name one outcome")


def _paired_options(asked: Mapping[str, Any], *, draws: int | None, single: bool) -> dict[str, Any]:
    """Give what a paired design takes; what only an adjustment needs is refused by name."""
    idle = {"std_error": "auto", "denominator": "pooled"}
    within = {"unit": asked.get("unit", "item_id")}
    refuse_adjustment({k: v for k, v in asked.items() if k not in {"unit", "noise"} and v != idle.get(k)})
    if single:
        if draws is not None:
            raise EstimationError(
                "draws= has no meaning with design='paired' and one outcome: nothing is drawn",
                hint="leave it out",
            )
        within["noise"] = asked.get("noise", "independent")
    elif "noise" in asked:
        raise EstimationError(
            "noise= is of what is said of single items, for one outcome that is not ordered",
            hint="leave it out",
        )
    return within
