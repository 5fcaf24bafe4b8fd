"""The audit: estimates from one arm an item, held against the truth from both.

From items run under both arms, one arm an item is drawn by a stated confounded rule, as logs would have
it. The pipeline sees only that; its estimates are held against the paired truth for the same items.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._progress import steps
from whyprompt._words import counted, format_number, percent
from whyprompt._workers.place import map_units
from whyprompt.charts import audit_plot, draw_plot
from whyprompt.effects.checks.rerun import of_effect
from whyprompt.effects.estimate import estimated
from whyprompt.effects.methods.learners import score_column
from whyprompt.effects.methods.make import METHODS, estimand_of, make_method, options_of, settle_plan
from whyprompt.effects.pairs import paired_differences
from whyprompt.effects.pipeline import compute
from whyprompt.effects.problem import Problem, refuse_post_treatment
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Assumption, Estimate, Result, unlisted
from whyprompt.stats.design import Design, design_matrix
from whyprompt.stats.order import codes
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.methods.make import MethodLike
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.pairs import PairedItems
    from whyprompt.effects.result import EffectResult

    Floats = NDArray[np.float64]

Rule = Callable[[Mapping[str, "NDArray[Any]"]], "NDArray[np.float64]"] | Mapping[str, float]
"""The probability of the treated arm: a function of the covariates, or logistic coefficients."""


# An item with a probability beyond this of one arm hardly ever has the other.
_RARE = 0.02


def _setup(
    frame: Any,  # noqa: ANN401 - any frame library's type
    confounders: Sequence[str],
    rule: Rule,
    what: Mapping[str, Any],
) -> tuple[PairedItems, Problem, Floats, str]:
    """Give the items, what a pipeline sees were all controls, the chance of the treated arm, and the rule."""
    unit, treatment, outcome = what["unit"], what["treatment"], what["outcome"]
    refuse_post_treatment(tuple(confounders), treatment=treatment, outcome=outcome)
    if not confounders:
        raise EstimationError("an audit needs at least one confounder for its rule to act on")
    table = open_table(frame)
    pairs = _by_name(paired_differences(table, **what))
    columns: dict[str, NDArray[Any]] = {}
    units = table.labels(unit, role="unit")
    for name in confounders:
        values = table.values(name, role="confounder")
        columns[name] = values[pairs.first_row]
        expected = dict(zip(pairs.units, columns[name].tolist(), strict=True))
        for u, value in zip(units, values.tolist(), strict=True):
            if u in expected and expected[u] != value:
                raise DataError(
                    f"confounder {name!r} varies within {unit!r} {u!r}: the arm may have caused it",
                    hint="a confounder is a property of the item, known before the arm is chosen",
                )
    design = design_matrix(columns)
    if callable(rule):
        probability = np.asarray(rule(columns), dtype=np.float64)
        description = f"the function {getattr(rule, '__name__', type(rule).__name__)}"
    else:
        probability = _logistic_rule(rule, design)
        description = "logit of the probability = " + " + ".join(
            f"{value:g}" if name == "intercept" else f"{value:g} x {name} (standardised)"
            for name, value in rule.items()
        )
    if probability.shape != (len(pairs.units),):
        raise EstimationError(
            f"the rule gives {probability.shape} probabilities for {counted(len(pairs.units), 'item')}",
            hint="it takes a mapping of covariates and returns one probability an item",
        )
    if not (np.isfinite(probability).all() and (probability > 0).all() and (probability < 1).all()):
        raise EstimationError(
            "the rule gives a probability that is not strictly between 0 and 1",
            hint="an item that can have one arm only has no effect that such data could show",
        )
    problem = Problem(
        outcome_name=outcome,
        treatment_name=treatment,
        treated=np.zeros(len(pairs.units), dtype=bool),
        treated_level=level_name(what["treated"]),
        control_level=level_name(what["control"]),
        y=pairs.control,
        confounders=tuple(columns),
        columns=columns,
        design=design,
        strata=None,
        limits=(),
        cluster=None,
        tie_rank=None,
        known_score=None,
    )
    return pairs, problem, probability, description


def _by_name(pairs: PairedItems) -> PairedItems:
    """Put items in the order of their names, so that a seed draws the same arms in any order of the table."""
    # Numbers within a name count as numbers: item-2 comes before item-10.
    keys = [[int(p) if p.isdecimal() else p for p in re.split(r"([0-9]+)", name)] for name in pairs.units]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return replace(
        pairs,
        units=tuple(pairs.units[k] for k in order),
        first_row=pairs.first_row[order],
        treated=pairs.treated[order],
        control=pairs.control[order],
    )


def _logistic_rule(rule: Mapping[str, float], design: Design) -> Floats:
    linear = np.full(design.matrix.shape[0], float(rule.get("intercept", 0.0)))
    for name, coefficient in rule.items():
        if name == "intercept":
            continue
        if name not in design.names:
            raise EstimationError(
                f"the rule names {name!r}, which is not a covariate of the audit",
                hint=f"its keys are intercept, {', '.join(design.names)}",
            )
        x = design.matrix[:, design.names.index(name)]
        spread = float(x.std())
        if spread == 0:
            raise EstimationError(f"the rule acts on {name!r}, which does not vary over the items")
        linear += float(coefficient) * (x - x.mean()) / spread
    return np.asarray(1.0 / (1.0 + np.exp(-linear)), dtype=np.float64)


def audit(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str = "item_id",
    treatment: str = "arm",
    outcome: str,
    treated: object,
    control: object,
    confounders: Sequence[str],
    rule: Rule,
    draws: int = 200,
    methods: Sequence[MethodLike] = ("naive", "nearest", "ipw", "overlap", "aipw"),
    estimand: str | None = None,
    exact: Sequence[str] = (),
    level: float = 0.95,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - options of estimate_effect
) -> Result:
    """Hold estimates from one arm an item against the paired truth.

    Parameters
    ----------
    frame : DataFrame
        Trials with both arms.
    unit, treatment, outcome : str
        Columns.
    treated, control : object
        Levels of `treatment`.
    confounders : sequence of str
        Item columns that the pipeline adjusts for.
    rule : callable or mapping
        Probability of the treated arm. A function of ``{covariate: array}``, or logistic coefficients on
        the standardised covariates, with an optional ``"intercept"``.
    draws : int, default 200
        How often one arm an item is drawn.
    methods : sequence of str, Method or mapping
        Of `estimate_effect`.
    level, random_state
        As in `estimate_effect`.
    estimand : {"att", "atc", "ate"}, optional
        Default: that of each method.
    exact : sequence of str
        Confounders on which matched items must be equal (``nearest``, ``optimal``, ``kernel``,
        ``subclass``).
    **options
        Further options of `estimate_effect`, such as ``caliper=0.2``; one that a method does not take is
        not given to it.

    Returns
    -------
    Result
        `overall` is the paired effect over all items. Its figures are ``draws``; ``rule``, in words;
        ``mean_share_treated``, the mean probability of the treated arm; and ``confounders``. A part is a
        method over the draws: its estimate is the bias, the mean of estimate minus the paired effect on the
        same items, its standard error the Monte Carlo error of so many draws, and `n_used` counts the draws
        with an estimate. Its figures, None where there are none:

        - ``estimand``; ``truth``, the mean over draws of the paired effect on the items that it names, and
          ``mean_estimate``;
        - ``rmse``; ``mean_std_error``, as the method reports it; ``mean_used``, rows with a weight;
        - ``coverage``, the share of intervals that hold the paired effect on the same items, of the draws
          that have one, and ``coverage_error``, its Monte Carlo error;
        - ``n_failed``, draws in which the method refused to estimate, and ``failures``, the reasons with
          their numbers;
        - ``n_no_interval``, draws with an estimate and no interval; they count in the bias and not in the
          coverage.

    Raises
    ------
    DataError
        If a confounder varies within an item.
    EstimationError
        If the rule does not give probabilities, or a method is not known.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=150)
    >>> trials = pd.DataFrame(
    ...     {
    ...         "item_id": np.repeat(np.arange(150), 2),
    ...         "arm": ["direct", "cot"] * 150,
    ...         "hard": np.repeat(hard, 2),
    ...         "y": (np.column_stack([-hard, 1 - hard]) + rng.normal(0, 0.5, (150, 2))).ravel(),
    ...     }
    ... )
    >>> checked = audit(
    ...     trials,
    ...     outcome="y",
    ...     treated="cot",
    ...     control="direct",
    ...     confounders=["hard"],
    ...     rule={"hard": 1.0},
    ...     draws=20,
    ...     methods=["naive", "ipw"],
    ... )
    >>> abs(checked.part("naive").estimate) > 3 * abs(checked.part("ipw").estimate)
    True
    """
    if draws < 2:
        raise EstimationError(f"{draws} draw(s) were asked for; an audit needs at least two")
    what = {"unit": unit, "treatment": treatment, "outcome": outcome, "treated": treated, "control": control}
    pairs, controls, probability, description = _setup(frame, confounders, rule, what)
    effect = pairs.treated - pairs.control
    for name in exact:
        if name not in controls.columns:
            raise EstimationError(
                f"exact names {name!r}, which is not among the audit's confounders",
                hint=f"they are {', '.join(controls.columns)}",
            )
    strata = codes([controls.columns[name] for name in exact]) if exact else None
    rng = np.random.default_rng(random_state)
    arms = rng.random((draws, len(effect))) < probability
    plans = [_plan_of(method, estimand, level, random_state, options) for method in methods]
    outcomes = (pairs.control, pairs.treated)
    work = _Draws(replace(controls, strata=strata), outcomes, tuple(plans))
    # One draw a unit: a method that boosts trees takes seconds for it.
    of_draw = {}
    with steps(draws, "audit") as one_more:
        for number, found in map_units(work, list(arms)):
            of_draw[number] = found
            one_more()
    rows = []
    for k, (method, plan) in enumerate(zip(methods, plans, strict=True)):
        row = _row([of_draw[d][k] for d in range(draws)], plan)
        rows.append(row if isinstance(method, str) else replace(row, label=str(plan.method)))
    warnings = []
    low, high = float(probability.min()), float(probability.max())
    if low < _RARE or high > 1.0 - _RARE:
        warnings.append(
            f"the rule gives probabilities from {low:.3f} to {high:.3f}: some items hardly ever change arm"
        )
    if pairs.incomplete:
        warnings.append(f"{pairs.n_incomplete} item(s) without both outcomes are left out")
    for name, words in (
        ("n_failed", "could not estimate in {} of {} draws"),
        ("n_no_interval", "gave no interval in {} of {} draws; coverage is of the others"),
    ):
        warnings += [f"{row.label} {words.format(row[name], draws)}" for row in rows if row[name]]
    found = Result(
        overall=Estimate(label="paired effect", estimate=float(effect.mean()), n_used=len(effect)),
        parts=tuple(rows),
        axis="bias (estimate minus truth, in units of the outcome)",
        figures={
            "draws": draws,
            "rule": description,
            "mean_share_treated": float(probability.mean()),
            "confounders": tuple(confounders),
        },
        level=level,
        assumptions=_assumptions(pairs, probability, description),
        warnings=tuple(warnings),
        sentence=_audit_sentence(rows, float(effect.mean()), len(effect), draws, level),
    )
    return replace(
        found, pictures={what: partial(audit_plot, found, what=what) for what in ("bias", "coverage")}
    )


_FOR_ALL = ("std_error", "denominator", "propensity")
# Columns that items are drawn without.
_NOT_DRAWN = {"exact", "covariate_calipers", "tie_break"}


def _plan_of(
    method: MethodLike, estimand: str | None, level: float, random_state: int, options: Mapping[str, Any]
) -> Plan:
    # A method that has its options already takes none of those that the others share.
    made = None if isinstance(method, str) else make_method(method)
    own = options_of(method) if isinstance(method, str) else ()
    for name in () if made is None else sorted(_NOT_DRAWN & set(made.asked)):
        raise EstimationError(
            f"an audit does not look at the {name} of a method", hint="exact= of the audit holds for all"
        )
    known = {*_FOR_ALL, *(name for other in METHODS for name in options_of(other))} - _NOT_DRAWN
    unknown = sorted(set(options) - known)
    if unknown:
        raise EstimationError(
            f"option {unknown[0]!r} is not one of an audit", hint=f"one of: {', '.join(sorted(known))}"
        )
    if score_column(options.get("propensity")) is not None:
        raise EstimationError("an audit knows its propensities; propensity= is for a classifier")
    made = make_method(method, **{name: value for name, value in options.items() if name in own})
    shared = [name for name in _FOR_ALL if name in options and (name != "propensity" or made.by_score)]
    return settle_plan(
        ("an item's",),
        method=made,
        options={},
        estimand=estimand_of(method, estimand),
        level=level,
        random_state=random_state,
        **{name: options[name] for name in shared},
    )


# Estimate, truth, standard error, whether the interval covers, and rows used; or why there is no estimate.
_Drawn = tuple[float, float, float | None, bool | None, int] | str


@dataclass(frozen=True)
class _Draws:
    """The work of an audit: a unit says which items are treated, and gives what each method finds."""

    controls: Problem
    outcomes: tuple[Floats, Floats]  # of both arms
    plans: tuple[Plan, ...]

    @contextmanager
    def opened(self) -> Iterator[Callable[[NDArray[np.bool_]], list[_Drawn]]]:
        def draw(arm: NDArray[np.bool_]) -> list[_Drawn]:
            control, treated = self.outcomes
            problem = replace(self.controls, treated=arm, y=np.where(arm, treated, control))
            return [_drawn(problem, treated - control, plan) for plan in self.plans]

        yield draw


def _drawn(problem: Problem, effect: Floats, plan: Plan) -> _Drawn:
    indicator = problem.treated
    if not 2 <= int(indicator.sum()) <= len(indicator) - 2:
        return "an arm has fewer than two rows"
    try:
        core = compute(problem, plan)
    except EstimationError as error:
        return error.message
    truth = _truth(effect, indicator, core.weights, plan.estimand)
    low, high = core.ci
    covered = None if low is None or high is None else bool(low <= truth <= high)
    return core.estimate, truth, core.std_error, covered, int((core.weights > 0).sum())


def _row(drawn: Sequence[_Drawn], plan: Plan) -> Estimate:
    found = [one for one in drawn if not isinstance(one, str)]
    failures = Counter(one for one in drawn if isinstance(one, str))
    row = Estimate(label=plan.method.name, estimate=None, n_used=len(found))
    figures: dict[str, Any] = {
        "estimand": plan.estimand,
        "n_failed": sum(failures.values()),
        "failures": dict(failures.most_common(5)),
        "n_no_interval": sum(one[3] is None for one in found),
        **dict.fromkeys(
            ("truth", "mean_estimate", "rmse", "mean_std_error", "coverage", "coverage_error", "mean_used")
        ),
    }
    if not found:
        return replace(row, figures=figures)
    estimates, truths = (np.array([one[k] for one in found]) for k in (0, 1))
    errors = estimates - truths
    figures |= {
        "truth": float(truths.mean()),
        "mean_estimate": float(estimates.mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "mean_used": float(np.mean([one[4] for one in found])),
    }
    if spreads := [one[2] for one in found if one[2] is not None]:
        figures["mean_std_error"] = float(np.mean(spreads))
    if covered_all := [one[3] for one in found if one[3] is not None]:
        share = float(np.mean(covered_all))
        figures |= {
            "coverage": share,
            "coverage_error": float(np.sqrt(share * (1 - share) / len(covered_all))),
        }
    m = len(found)
    noise = float(errors.std(ddof=1) / np.sqrt(m)) if m > 1 else None
    return replace(row, estimate=float(errors.mean()), std_error=noise, figures=figures)


def _assumptions(pairs: PairedItems, probability: Floats, rule: str) -> tuple[Assumption, ...]:
    low, high = float(probability.min()), float(probability.max())
    lost = pairs.n_incomplete
    total = len(pairs.units) + lost
    return (
        Assumption(
            name="exchangeability",
            status="holds",
            check="the rule, which is given the covariates and nothing else",
            detail=f"arms are drawn by {rule}; no other cause of the arm exists in the draws",
        ),
        Assumption(
            name="overlap",
            status="holds" if low >= _RARE and high <= 1.0 - _RARE else "doubtful",
            check=f"the rule's probabilities, limits {_RARE:g} and {1.0 - _RARE:g}",
            detail=f"they lie between {low:.3f} and {high:.3f}",
        ),
        Assumption(
            name="complete pairs",
            status="doubtful" if lost > 0.05 * total else "holds",
            check="items with an outcome under both arms were counted",
            detail=f"{lost} of {total} items are incomplete and have no truth to be held against",
        ),
        Assumption(
            name="fixed items",
            status="holds",
            check="the design of the audit",
            detail="each draw chooses arms for the same items, and the truth is these items' own: an interval"
            " that also counts the sampling of items should cover at least its level",
        ),
        Assumption(
            name="the rule of the logs",
            status="untestable",
            check="none is possible without logs whose rule is known",
            detail="a method that does well under this rule need not do so under the one that made the logs",
        ),
        Assumption(
            name="no interference",
            status="not checked",
            check="repeated trials with another batch composition would be needed",
            detail="an item's outcome is taken not to depend on which arm other items got",
        ),
    )


def _truth(effect: Floats, indicator: NDArray[np.bool_], weights: Floats, estimand: str) -> float:
    """Paired effect on the items that the estimate speaks of: those wanted that have a weight."""
    if estimand == "ato":
        # The overlap population weighs every item by e (1 - e), which is what weights of both arms sum to.
        return float(np.average(effect, weights=weights))
    wanted = {"att": indicator, "atc": ~indicator}.get(estimand, np.ones(len(effect), dtype=bool))
    return float(effect[wanted & (weights > 0)].mean())


def _audit_sentence(rows: Sequence[Estimate], truth: float, n: int, draws: int, level: float) -> str:
    parts = []
    for row in rows:
        if row.estimate is None:
            parts.append(f"{row.label} never gave an estimate")
            continue
        coverage, without, failed = row["coverage"], row["n_no_interval"], row["n_failed"]
        covers = f", its {percent(level)} intervals cover {coverage:.0%}" if coverage is not None else ""
        if without and coverage is None:
            covers = ", without an interval in any draw"
        elif without:
            covers += f" ({counted(without, 'draw')} gave an estimate and no interval)"
        lost = f" ({counted(failed, 'draw')} gave no estimate)" if failed else ""
        parts.append(
            f"{row.label} gives {format_number(row['mean_estimate'])} where its items show"
            f" {format_number(row['truth'])} ({row['estimand'].upper()}): off by"
            f" {format_number(row.estimate)}{lost}{covers}"
        )
    return (
        f"Run under both arms, the {counted(n, 'item')} show an effect of {format_number(truth)}. Over"
        f" {counted(draws, 'draw')} of one arm an item, on average, each method beside the paired effect"
        f" on the items that it speaks of: {'; '.join(parts)}."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class OneDraw(Result):
    """One confounded draw, side by side with the truth: `overall` is adjusted, the parts are the others.

    Attributes
    ----------
    naive : EffectResult
        Difference of means in the draw.
    adjusted : EffectResult
        The pipeline's estimate.
    truth : float
        Paired effect on the items whose effect `adjusted` speaks of (those with a weight).
    truth_all : float
        Paired effect on all items.
    table : pandas.DataFrame
        What the pipeline saw: one arm an item.
    """

    naive: EffectResult
    adjusted: EffectResult
    truth: float
    truth_all: float
    table: pd.DataFrame = unlisted()

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        return {"draw": lambda: draw_plot(self)}


def one_draw(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str = "item_id",
    treatment: str = "arm",
    outcome: str,
    treated: object,
    control: object,
    confounders: Sequence[str],
    rule: Rule,
    method: MethodLike = "aipw",
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - options of estimate_effect
) -> OneDraw:
    """Draw one arm an item once, and show the naive difference, the adjusted one and the truth.

    Parameters
    ----------
    frame, unit, treatment, outcome, treated, control, confounders, rule, random_state
        As for `audit`.
    method, **options
        Of `estimate_effect`.

    Returns
    -------
    OneDraw

    Raises
    ------
    EstimationError
        As `estimate_effect`.
    """
    import pandas as pd

    what = {"unit": unit, "treatment": treatment, "outcome": outcome, "treated": treated, "control": control}
    pairs, controls, probability, _ = _setup(frame, confounders, rule, what)
    indicator = np.random.default_rng(random_state).random(len(pairs.units)) < probability
    table = pd.DataFrame(
        {
            unit: list(pairs.units),
            treatment: np.where(indicator, level_name(treated), level_name(control)),
            outcome: np.where(indicator, pairs.treated, pairs.control),
            **controls.columns,
        }
    )
    shared: dict[str, Any] = {
        "treatment": treatment,
        "outcome": outcome,
        "treated": level_name(treated),
        "confounders": list(confounders),
    }
    naive = estimated(table, method="naive", **shared).result
    adjusted = estimated(table, method=method, random_state=random_state, **shared, **options).result
    effect = pairs.treated - pairs.control
    assert adjusted.weights is not None
    truth = _truth(effect, indicator, adjusted.weights, adjusted.estimand)
    said = method if isinstance(method, str) else adjusted.method
    low, high = adjusted.ci_low, adjusted.ci_high
    held = ""
    if low is not None and high is not None:
        held = f", and its interval {'holds' if low <= truth <= high else 'misses'} it"
    return OneDraw(
        overall=of_effect(adjusted, f"adjusted ({adjusted.method})"),
        parts=(
            of_effect(naive, "plain difference"),
            Estimate(label="truth, same items", estimate=truth),
            Estimate(label="truth, all items", estimate=float(effect.mean())),
        ),
        level=adjusted.level,
        naive=naive,
        adjusted=adjusted,
        truth=truth,
        truth_all=float(effect.mean()),
        table=table,
        sentence=(
            f"From one arm an item, the plain difference is {format_number(naive.estimate)} and {said}"
            f" gives {format_number(adjusted.estimate)}; run under both arms, the items it speaks of show"
            f" {format_number(truth)} ({adjusted.estimand.upper()}). {said.capitalize()} is off by"
            f" {format_number(adjusted.estimate - truth)}{held}."
        ),
    )
