"""The specification curve: every defensible way to get the estimate, side by side.

An analyst chooses how to prepare covariates, how far apart a pair may be, and by which method to adjust. Each
choice is defensible and the answer should not hang on it. The curve takes them all and shows the estimates in
order, with the balance that each reached, and what failed and why.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, generator
from whyprompt._words import counted, format_number, p_words
from whyprompt.charts import specification_plot
from whyprompt.effects.checks.balance import covariate_balance
from whyprompt.effects.checks.placebo_arms import arm_drawer
from whyprompt.effects.checks.rerun import effect_options, estimate_or_why, excludes_zero, of_effect, repeat
from whyprompt.effects.estimate import estimated
from whyprompt.effects.methods.make import METHODS, estimand_of, make_method, options_of
from whyprompt.effects.methods.method import Method
from whyprompt.effects.prepare.recipe import Recipe, prepare_table
from whyprompt.effects.prepare.steps import Step
from whyprompt.effects.problem import choose_confounders, prepare
from whyprompt.effects.units import NO_CLUSTER, find_units, settle_cluster
from whyprompt.errors import DataError, EstimationError, WhypromptError
from whyprompt.results import Estimate, Result, rows_frame
from whyprompt.stats.rules import SMD_LIMIT, p_of_draws
from whyprompt.tables import arms, open_table, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.tables import Table

_DEFAULT_METHODS = ("nearest", "full", "subclass", "ipw", "entropy", "aipw")
_DEFAULT_CALIPERS = ("none", 0.1, 0.25)
_OPTIONS = frozenset(inspect.signature(estimated).parameters) | {
    name for method in METHODS for name in options_of(method)
}
# A covariate of fewer values is left as it is by the default preparations.
_FEW_VALUES = 10


@dataclass(frozen=True, kw_only=True)
class SpecificationCurve(Result):
    """Estimates from every specification, in order; `overall` is their median.

    Its p is the share of curves of placebo arms, the real one counted in, whose median statistic is at least
    as large.

    Attributes
    ----------
    parts : tuple of Estimate
        A specification each, sorted by estimate; then those that give none, whose note says why. Their
        figures: ``choices``, what was chosen in each dimension of the grid, and of those with an estimate
        ``estimand``, whose average effect it is; ``balanced``, whether `largest_smd`, of the confounders as
        they are in the table, whatever the preparation made of them, is at most 0.1; and ``significant``,
        whether the interval excludes zero.
    dimensions : tuple of str
        Of the grid.
    low, high : float
        Of the estimates.
    median_balanced : float or None
        Median of those that reached balance; None where none did.
    share_significant, share_same_sign, share_balanced : float
        Of the estimates: interval without zero; sign of the median; every difference at most 0.1.
    influence : mapping of str to float
        Share of the variance of the estimates over the curve that lies between the choices of each dimension
        (eta squared), the most influential first.
    medians : mapping of str to mapping of str to float
        Median estimate of each choice of each dimension.
    draws : int
        Curves of placebo arms; 0 where none were asked for.
    p_share : float or None
        Share of those curves whose number of significant estimates of one sign is at least as large.
    """

    overall: Estimate
    dimensions: tuple[str, ...]
    low: float
    high: float
    median_balanced: float | None
    share_significant: float
    share_same_sign: float
    share_balanced: float
    influence: Mapping[str, float]
    medians: Mapping[str, Mapping[str, float]]
    draws: int
    p_share: float | None

    def to_frame(self) -> pd.DataFrame:
        """Return the curve: a specification a row, and a column for each dimension.

        Returns
        -------
        pandas.DataFrame
            In the order of the estimates, those without one last.
        """
        import pandas as pd

        table = rows_frame(self.parts)
        choices = pd.DataFrame([part["choices"] for part in self.parts], columns=list(self.dimensions))
        return pd.concat([choices, table.drop(columns=["label", "choices"])], axis=1)

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        return {
            "curve": lambda: specification_plot(self.to_frame(), choices=self.dimensions, title=self.axis)
        }


def specification_curve(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    grid: Mapping[str, Any] | None = None,
    estimand: str = "att",
    draws: int = 0,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`, the same in every specification
) -> SpecificationCurve:
    """Estimate in every combination of preparation, caliper, method and other choices.

    Parameters
    ----------
    frame, treatment, outcome, confounders, graph, random_state, **options
        As in `refute`; the same in every specification.
    grid : mapping, optional
        From a dimension to its choices. ``"preparation"`` maps names to lists of steps (`prepare_table`);
        ``"confounders"`` maps names to lists of columns; every other dimension is an option of
        `estimate_effect` with a list of values: ``"method"``, ``"caliper"``, ``"replace"``, ``"ratio"``,
        ``"distance"``, ... A method may have its options with it, as ``Nearest(caliper=0.1)``. A caliper is
        tried only with methods, given by name, that have one; None is none. Default: confounders as they are,
        winsorised at 1% and 99%, and in five bins; nearest and full matching without a caliper and with 0.1
        and 0.25; subclasses; ipw, entropy balancing and aipw.
    estimand : str, default "att"
        One for the whole curve, so that its estimates answer one question; only overlap weights, if the grid
        has them, answer their own.
    draws : int, default 0
        Curves of placebo arms, for the joint test of no effect in any specification. The arms are shuffled
        with ``design="randomized"``, and drawn from the propensity given all confounders where they were
        not given by chance (see `placebo_treatment`).

    Returns
    -------
    SpecificationCurve

    Raises
    ------
    EstimationError
        If the grid is empty, names an option that is not known, or no specification gives an estimate.
    DataError, GraphError
        As for `estimate_effect`.

    References
    ----------
    Simonsohn, Simmons and Nelson (2020). Specification curve analysis. Nature Human Behaviour 4.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=300)
    >>> arm = (hard + rng.normal(size=300) > 0).astype(int)
    >>> frame = pd.DataFrame({"arm": arm, "y": arm - hard + rng.normal(size=300), "hard": hard})
    >>> curve = specification_curve(
    ...     frame, treatment="arm", outcome="y", confounders=["hard"],
    ...     grid={"method": ["ipw", "entropy", "nearest"], "caliper": [None, 0.1]},
    ... )
    >>> len(curve.parts), 0 < curve.low <= curve.estimate <= curve.high < 2
    (4, True)
    """
    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    chosen, _ = choose_confounders(
        table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
    )
    at_least(draws, 0, "draws")
    options = effect_options(options)
    for name in options:
        if name not in _OPTIONS:
            raise EstimationError(f"option {name!r} is not known", hint="an option of estimate_effect")
    if not chosen:
        raise EstimationError(
            "nothing is adjusted for, so there is nothing to specify", hint="confounders=[...]"
        )
    plan = _Plan(table, treatment, outcome, tuple(chosen), grid, estimand, random_state, options)
    rows, failures = plan.run(table)
    if not rows:
        reason, count = Counter(f.note for f in failures).most_common(1)[0]
        raise EstimationError(
            f"none of {len(failures)} specifications gives an estimate; {counted(count, 'time')}: {reason}"
        )
    rows.sort(key=_value)
    values = np.array([_value(row) for row in rows])
    median = float(np.median(values))
    good = [_value(row) for row in rows if row["balanced"]]
    p_median, p_share, done = None, None, 0
    how = "propensity" if options.get("design") != "randomized" else "permute"
    if draws:
        p_median, p_share, done = _placebo_curves(plan, table, rows, draws, random_state, how)
    influence, medians = _influence(rows, plan.dimensions)
    curve = SpecificationCurve(
        dimensions=plan.dimensions,
        overall=Estimate(label="median", estimate=median, p_value=p_median, n_used=len(rows)),
        parts=(*rows, *failures),
        level=plan.options.get("level", 0.95),
        low=float(values[0]),
        high=float(values[-1]),
        median_balanced=float(np.median(good)) if good else None,
        share_significant=float(np.mean([row["significant"] for row in rows])),
        share_same_sign=float(np.mean(np.sign(values) == np.sign(median))),
        share_balanced=len(good) / len(rows),
        influence=influence,
        medians=medians,
        draws=done,
        p_share=p_share,
        sentence="",
    )
    return replace(curve, sentence=_sentence(curve, rows, failures, how))


class _Plan:
    """The grid, settled once, to be run on the table and on tables with other arms."""

    def __init__(
        self,
        table: Table,
        treatment: str,
        outcome: str,
        confounders: tuple[str, ...],
        grid: Mapping[str, Any] | None,
        estimand: str,
        random_state: int,
        options: dict[str, Any],
    ) -> None:
        self.treatment, self.outcome = treatment, outcome
        self.options = {**options, "random_state": random_state}
        self.estimand = estimand
        grid = _default_grid(table, confounders) if grid is None else grid
        self.grid = {name: _choices(name, values, options) for name, values in grid.items()}
        self.dimensions = tuple(self.grid)
        self.sets = self.grid.get("confounders", {"": confounders})
        self.confounders = confounders
        # Rows of other arms than the two that are compared.
        self.rows: NDArray[np.bool_] | None = None
        named = {name: options.get(name) for name in ("treated", "control")}
        if None not in named.values():
            self.rows = rows_of_two_arms(table, treatment, **named)
        kept = self.kept(table)
        sampling, _ = find_units(kept, treatment=treatment, outcomes=[outcome], covariates=confounders)
        self.cluster, _ = settle_cluster(options.get("cluster"), sampling)
        self.options["cluster"] = self.cluster or NO_CLUSTER
        raw = {name: kept.values(name, role="confounder") for name in confounders}
        self.raw = raw
        # Recipes look at the whole table and never at the arm, so other arms need no other.
        self.prepared = {
            name: self._fit(table, steps) for name, steps in self.grid.get("preparation", {"": ()}).items()
        }

    def kept(self, table: Table) -> Table:
        """Return the rows of the two arms."""
        return table if self.rows is None else table.keep(self.rows)

    def problem(self, table: Table) -> Problem:
        """Return the arrays of the rows of the two arms, with every confounder."""
        names = ("treated", "control", "propensity", "base_levels")
        return prepare(
            self.kept(table),
            cluster=self.cluster,
            treatment=self.treatment,
            outcome=self.outcome,
            confounders=self.confounders,
            **{name: self.options[name] for name in names if name in self.options},
        )

    def _fit(self, table: Table, steps: Sequence[Step]) -> Recipe | str | None:
        """Give a preparation, None for none, or why it cannot be made."""
        if not steps:
            return None
        try:
            return prepare_table(table.native, steps, treatment=self.treatment, outcome=self.outcome).recipe
        except DataError as error:
            return error.message

    def run(self, table: Table) -> tuple[list[Estimate], list[Estimate]]:
        """Estimate in every specification."""
        rows: list[Estimate] = []
        failures: list[Estimate] = []
        frames = {
            name: made.apply(table.native).frame if isinstance(made, Recipe) else table.native
            for name, made in self.prepared.items()
        }
        named = {name: self.options.get(name) for name in ("treated", "control")}
        treated, *_ = arms(self.kept(table), self.treatment, **named)
        seen: set[tuple[tuple[str, str], ...]] = set()
        for picked in product(*self.grid.values()):
            choices = dict(zip(self.dimensions, picked, strict=True))
            settings = {d: self.grid[d][c] for d, c in choices.items() if d not in _NAMED}
            method = settings.get("method", self.options.get("method", "aipw"))
            takes = options_of(method) if isinstance(method, str) else ()
            if settings.get("caliper") is not None and "caliper" not in takes:
                # The same specification as without one.
                choices["caliper"], settings["caliper"] = _shown(None), None
            elif "caliper" in settings and "caliper" in takes:
                settings["caliper"] = settings["caliper"] or "none"
            key = tuple(choices.items())
            if key in seen:
                continue
            seen.add(key)
            one = self._one(frames, choices, {"estimand": estimand_of(method, self.estimand), **settings})
            if isinstance(one, str):
                label = ", ".join(choices.values())
                failures.append(Estimate(label=label, estimate=None, note=one, figures={"choices": choices}))
            else:
                rows.append(self._row(one, choices, treated))
        return rows, failures

    def _one(
        self, frames: Mapping[str, Any], choices: Mapping[str, str], settings: Mapping[str, Any]
    ) -> EffectResult | str:
        name = choices.get("preparation", "")
        recipe = self.prepared[name]
        if isinstance(recipe, str):
            return recipe
        confounders = _after(recipe, tuple(self.sets[choices.get("confounders", "")]))
        named = {"treatment": self.treatment, "outcome": self.outcome, "confounders": confounders}
        return estimate_or_why(frames[name], **named, **{**self.options, **settings})

    def _row(self, result: EffectResult, choices: Mapping[str, str], treated: NDArray[np.bool_]) -> Estimate:
        assert result.weights is not None
        weights = result.weights if self.rows is None else result.weights[self.rows]
        balance = covariate_balance(self.raw, treated, weights, denominator="pooled")
        left = [r.smd_after for r in balance]
        known = [abs(v) for v in left if v is not None]
        largest = max(known) if len(known) == len(left) else None
        return replace(
            of_effect(result, ", ".join(choices.values())),
            largest_smd=largest,
            figures={
                "choices": choices,
                "estimand": result.estimand,
                "balanced": largest is not None and largest <= SMD_LIMIT,
                "significant": excludes_zero(result),
            },
        )


_NAMED = frozenset({"preparation", "confounders"})
"""Dimensions whose choices have names of their own."""


def _default_grid(table: Table, confounders: Sequence[str]) -> dict[str, Any]:
    numeric = [
        c.name
        for c in table.read(confounders, role="confounder").values()
        if c.kind == "number" and len(np.unique(c.data[~c.missing])) >= _FEW_VALUES
    ]
    preparations: dict[str, list[Step]] = {"none": []}
    if numeric:
        preparations["winsorised"] = [Step.winsorise(name) for name in numeric]
        preparations["five bins"] = [Step.bin(name, n_bins=5) for name in numeric]
    return {"preparation": preparations, "method": _DEFAULT_METHODS, "caliper": _DEFAULT_CALIPERS}


def _choices(name: str, values: Any, options: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Give the choices of a dimension of the grid, by what they are called."""
    if isinstance(values, str) or not len(values):
        raise EstimationError(f"dimension {name!r} of the grid has no list of choices")
    if name in {"treatment", "outcome", "graph", "estimand", "frame"}:
        raise EstimationError(f"{name!r} changes the question and is no dimension of one curve")
    if name not in {*_OPTIONS, "preparation"}:
        raise EstimationError(f"the grid names {name!r}, which is no option of estimate_effect")
    if name in options:
        raise EstimationError(f"{name!r} is a dimension of the grid and an option as well")
    if name not in _NAMED:
        # A mapping of a name to its options, as a study file has it, is a method as well.
        made = [make_method(v) if name == "method" and isinstance(v, dict) else v for v in values]
        return {_shown(v): v for v in made}
    if not hasattr(values, "items"):
        raise EstimationError(f"dimension {name!r} of the grid maps names to lists")
    for label, value in values.items():
        if isinstance(value, str):
            raise EstimationError(f"{name} {label!r} of the grid is the text {value!r}; a list is needed")
    return {str(k): v for k, v in values.items()}


def _value(row: Estimate) -> float:
    assert row.estimate is not None
    return row.estimate


def _shown(value: Any) -> str:  # noqa: ANN401 - any option
    if value is None:
        return "none"
    if isinstance(value, str | int | float | bool | Method):
        return str(value)
    return type(value).__name__


def _after(recipe: Recipe | None, names: tuple[str, ...]) -> list[str]:
    """Name the confounders after a preparation: dummies for a coded column, and columns added."""
    out = list(names)
    for step in () if recipe is None else recipe.steps:
        if step.column not in out:
            continue
        if step.kind == "code":
            out.remove(step.column)
        out += [name for name in step.into if name not in out]
    return out


def _influence(
    rows: Sequence[Estimate], dimensions: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    values = np.array([_value(row) for row in rows])
    total = float(((values - values.mean()) ** 2).sum())
    found = []
    for name in dimensions:
        labels = np.array([row["choices"][name] for row in rows], dtype=object)
        groups = {str(label): values[labels == label] for label in dict.fromkeys(labels.tolist())}
        between = sum(len(g) * float(g.mean() - values.mean()) ** 2 for g in groups.values())
        share = float(between / total) if total > 0 else 0.0
        found.append((name, share, {label: float(np.median(g)) for label, g in groups.items()}))
    found.sort(key=lambda one: -one[1])
    return {name: share for name, share, _ in found}, {name: medians for name, _, medians in found}


def _summary(rows: Sequence[Estimate]) -> tuple[float, int]:
    """Absolute median of estimate over error, and significant estimates of the more frequent sign."""
    z = [_value(row) / row.std_error for row in rows if row.std_error]
    up = sum(row["significant"] and _value(row) > 0 for row in rows)
    down = sum(row["significant"] and _value(row) < 0 for row in rows)
    return (abs(float(np.median(z))) if z else 0.0), max(up, down)


def _placebo_curves(
    plan: _Plan, table: Table, rows: Sequence[Estimate], draws: int, random_state: int, how: str
) -> tuple[float, float, int]:
    problem = plan.problem(table)
    draw = arm_drawer(
        problem,
        how,
        score=None,
        within={},
        rng=generator(random_state),
        hint="draws=0, or design='randomized' if chance gave clusters their arm",
    )
    levels = table.raw(plan.treatment)
    place = np.arange(len(levels)) if plan.rows is None else np.flatnonzero(plan.rows)
    control, treated = (levels[place[arm.argmax()]] for arm in (~problem.treated, problem.treated))

    def one() -> tuple[float, int] | str:
        drawn = levels.copy()
        drawn[place] = np.where(draw(), treated, control)
        try:
            shuffled, _ = plan.run(open_table(table.written({plan.treatment: drawn})))
        except WhypromptError:  # an arm is empty
            shuffled = []
        return _summary(shuffled) if shuffled else "no specification gives an estimate"

    found, _ = repeat(draws, one, "placebo curves")
    real = _summary(rows)
    median = sum(z >= real[0] * (1 - 1e-12) for z, _ in found)
    share = sum(count >= real[1] for _, count in found)
    return p_of_draws(median, len(found)), p_of_draws(share, len(found)), len(found)


def _sentence(
    curve: SpecificationCurve, rows: Sequence[Estimate], failures: Sequence[Estimate], how: str
) -> str:
    words = (
        f"Over {counted(len(rows), 'specification')} the estimates run from {format_number(curve.low)} to"
        f" {format_number(curve.high)} with a median of {format_number(curve.estimate)};"
        f" {curve.share_significant:.0%} of the intervals exclude zero and {curve.share_same_sign:.0%} of the"
        " estimates have the sign of the median."
    )
    good = sum(row["balanced"] for row in rows)
    if not good:
        words += " None reaches balance in every confounder, so none may be claimed as an effect of the arm."
    elif good < len(rows):
        words += f" The {good} that reach balance have a median of {format_number(curve.median_balanced)}."
    else:
        words += " All reach balance."
    others = sorted({row["estimand"] for row in rows})
    if len(others) > 1:
        words += f" They do not all answer one question: the estimands are {', '.join(others)}."
    top = next(iter(curve.influence), None)
    if top is not None and curve.influence[top] > 0 and len(curve.medians[top]) > 1:
        each = ", ".join(f"{label} {format_number(value)}" for label, value in curve.medians[top].items())
        words += (
            f" The choice of {top} moves them most ({curve.influence[top]:.0%} of their variance: {each})."
        )
    if failures:
        reasons = Counter(f.note for f in failures).most_common(2)
        words += f" {len(failures)} give no estimate (" + "; ".join(f"{n}: {r}" for r, n in reasons) + ")."
    if curve.draws:
        drawn = "shuffled" if how == "permute" else "drawn from the propensity"
        ps = [p_words(p, least=p_of_draws(0, curve.draws)) for p in (curve.p_value, curve.p_share)]
        words += (
            f" Of {counted(curve.draws, 'curve')} with arms {drawn}, as strong a median comes with p {ps[0]}"
            f" and as many significant estimates with p {ps[1]}."
        )
    return words + " The specifications share their rows, so the curve is no sum of evidence."
