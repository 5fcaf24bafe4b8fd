"""Two arms under one design: what any function of the outcomes comes to, and with what error.

Several outcomes and ordered outcomes are asked of a `Comparison`; whether rows are matched, weighed or
compared with themselves is its own business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from whyprompt._words import counted
from whyprompt.effects.paired import paired_effect
from whyprompt.effects.pairs import (
    item_labels,
    mean_change,
    paired_differences,
    paired_interval,
    paired_scale,
)
from whyprompt.effects.pipeline import if_known
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate
from whyprompt.stats.clusters import cluster_sums, mean_error
from whyprompt.stats.errors import interval
from whyprompt.stats.several import correlation, covariance_by_errors, max_t, normal_scores, sign_flip_max_t

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.pairs import PairedItems, Scale
    from whyprompt.effects.problem import Problem
    from whyprompt.effects.result import EffectResult
    from whyprompt.stats.several import Joint
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Ends = tuple[float | None, float | None]
    # An outcome, or a function of it, under the treated and under the control arm.
    Sides = tuple[Floats, Floats]


# What results of every kind say of a comparison.
_SHARED = (
    *("treatment", "treated", "control", "estimand", "method", "balance", "assumptions"),
    *("std_error_method", "level", "confounders"),
)


class Comparison(ABC):
    """What a design gives for every question about two arms.

    `result` is that of the first outcome, `names` are the outcomes and `samples` each of them under the
    treated and under the control arm. `repeats` is the column that rows repeat and that the intervals allow
    for, where they were not asked to; `normal` says whether the joint distribution of several outcomes is
    that of normal scores, and not of t statistics.
    """

    result: EffectResult
    names: tuple[str, ...]
    samples: tuple[Sides, ...]
    repeats: str | None
    normal: ClassVar[bool]

    @property
    def about(self) -> dict[str, Any]:
        """What results of every kind say: columns, arms, estimand, method, balance, assumptions."""
        return {name: getattr(self.result, name) for name in _SHARED}

    @property
    @abstractmethod
    def counts(self) -> dict[str, Any]:
        """Rows (or items) of each arm, in the table and used."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know of the first outcome, but for what is of risks."""
        return tuple(w for w in self.result.warnings if "risk difference" not in w)

    @property
    @abstractmethod
    def adjustment(self) -> str:
        """Where the joint distribution of several outcomes comes from."""

    @abstractmethod
    def contrast(self, y: Sides) -> Estimate:
        """Give the difference of two means, its error and degrees of freedom, whatever its spread."""

    @abstractmethod
    def outcomes(self) -> tuple[list[Estimate], list[str]]:
        """Give each outcome by itself, without an error where the sample shows none, and the warnings."""

    @abstractmethod
    def span(self, k: int, row: Estimate, level: float) -> Ends:
        """Give the interval of an outcome at another level."""

    @abstractmethod
    def at_once(
        self, rows: Sequence[Estimate], *, level: float, draws: int, random_state: int
    ) -> tuple[Joint | None, Floats | None, list[str]]:
        """Adjust outcomes for their number: the largest |t|, their correlation, and what to know of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Adjusted(Comparison):
    """One arm a row, matched or weighed once for all outcomes, with the arrays for analyses that go on.

    `rows` masks the rows of the two arms, None where the table has no other.
    """

    result: EffectResult
    problem: Problem
    plan: Plan
    fit: Fit
    rows: NDArray[np.bool_] | None
    names: tuple[str, ...]
    samples: tuple[Sides, ...]
    repeats: str | None
    normal: ClassVar[bool] = True

    @property
    def adjustment(self) -> str:
        """From the method's own errors."""
        return "the joint distribution of the estimates, simulated"

    @property
    def counts(self) -> dict[str, Any]:
        """Rows of each arm, in the table and with a weight."""
        names = ("n_treated", "n_control", "n_treated_used", "n_control_used")
        return {name: getattr(self.result, name) for name in names}

    def _again(self, y: Floats) -> Fit:
        return self.plan.method.fit_again(self.problem, self.plan, self.fit, y)

    @cached_property
    def _drawn(self) -> tuple[Fit, ...]:
        # The first is fitted already, unless its error was taken from a bootstrap, or away.
        made = self.plan.std_error != "bootstrap" and self.fit.std_error is not None
        first = self.fit if made else self._again(self.samples[0][0])
        return (first, *(self._again(y) for y, _ in self.samples[1:]))

    def contrast(self, y: Sides) -> Estimate:
        """Estimate again, each row with the side of its own arm."""
        treated = self.problem.treated
        return self._again(np.where(treated, *y)).row("", treated)

    def outcomes(self) -> tuple[list[Estimate], list[str]]:
        """Estimate each outcome with the matches and weights of the first."""
        warnings = list(self.warnings)
        rows = []
        for name, (y, _), drawn in zip(self.names, self.samples, self._drawn, strict=True):
            found = if_known(replace(self.problem, y=y), drawn)
            warnings += [w for w in found.warnings if w not in warnings]
            rows.append(replace(found.row(name, self.problem.treated), **self.counts))
        return rows, warnings

    def span(self, k: int, row: Estimate, level: float) -> Ends:  # noqa: ARG002 - every outcome alike
        """Give the t or normal interval."""
        return interval(row.estimate or 0.0, row.std_error, level=level, df=row.df)

    def at_once(
        self, rows: Sequence[Estimate], *, level: float, draws: int, random_state: int
    ) -> tuple[Joint | None, Floats | None, list[str]]:
        """Simulate the largest |t| from the correlation of the estimates."""
        matrix = None if all(row.std_error is None for row in rows) else self._correlation()
        if matrix is None:
            return None, None, ["an outcome has no standard error: no joint adjustment can be made"]
        t = np.array([(row.estimate or 0.0) / row.std_error if row.std_error else 0.0 for row in rows])
        t = normal_scores(t, [row.df for row in rows])
        found = max_t(t, matrix, level=level, draws=draws, random_state=random_state)
        return found, matrix, []

    def _correlation(self) -> Floats | None:
        """Correlation of the estimates, from what units add to their errors where the method has it.

        Otherwise from the errors of sums and differences of scaled outcomes.
        """
        errors = [found.std_error for found in self._drawn]
        if any(e is None for e in errors):
            return None
        units = [found.by_unit for found in self._drawn if found.by_unit is not None]
        if len(units) == len(errors):
            values = np.column_stack(units)
            return correlation(values.T @ values)
        scaled = [y / e if e else y * 0.0 for (y, _), e in zip(self.samples, errors, strict=True)]
        matrix = covariance_by_errors(lambda y: self._again(y).std_error, scaled, scaled=True)
        return None if matrix is None else correlation(matrix)


@dataclass(frozen=True, kw_only=True, eq=False)
class Paired(Comparison):
    """Every item under both arms; items are used for all outcomes or for none."""

    result: EffectResult
    names: tuple[str, ...]
    samples: tuple[Sides, ...]
    scales: tuple[Scale, ...]
    cluster: NDArray[Any] | None
    repeats: None = None
    normal: ClassVar[bool] = False

    @property
    def counts(self) -> dict[str, Any]:
        """Items, which are in both arms."""
        total = self.result.n_treated
        n = len(self.samples[0][0])
        shown = {"n_treated": total, "n_control": total, "n_treated_used": n, "n_control_used": n}
        return shown | {"n_used": n}

    @property
    def adjustment(self) -> str:
        """From signs dealt to items, or to clusters of them."""
        return "random signs on items" if self.cluster is None else "random signs on clusters"

    def contrast(self, y: Sides) -> Estimate:
        """Average the differences within items."""
        d = y[0] - y[1]
        error, df, _ = mean_error(d, self.cluster)
        return Estimate(
            label="",
            estimate=float(d.mean()),
            std_error=error,
            df=df,
            mean_treated=float(y[0].mean()),
            mean_control=float(y[1].mean()),
        )

    def outcomes(self) -> tuple[list[Estimate], list[str]]:
        """Average each outcome's differences, with the interval of its own kind."""
        rows = [
            mean_change(
                name,
                t - c,
                self.cluster,
                level=self.result.level,
                scale=scale,
                size=float(max(np.abs(t).max(), np.abs(c).max())),
                mean_treated=float(t.mean()),
                mean_control=float(c.mean()),
                **self.counts,
            )
            for name, (t, c), scale in zip(self.names, self.samples, self.scales, strict=True)
        ]
        elsewhere = ("left out as incomplete", "by the same amount")
        warnings = [w for w in self.result.warnings if not any(text in w for text in elsewhere)]
        n, total = self.counts["n_used"], self.counts["n_treated"]
        still = [row.label for row in rows if row.std_error is None]
        if still and n > 1:
            warnings.append(f"no standard error of {', '.join(still)}: all items (or clusters) change alike")
        if n < total:
            warnings.append(f"{total - n} item(s) without all outcomes under both arms are left out")
        return rows, warnings

    def span(self, k: int, row: Estimate, level: float) -> Ends:
        """Give the interval of counts, risks or numbers."""
        t, c = self.samples[k]
        return paired_interval(t - c, row.std_error, row.df, level, self.scales[k])[:2]

    def at_once(
        self, rows: Sequence[Estimate], *, level: float, draws: int, random_state: int
    ) -> tuple[Joint | None, Floats | None, list[str]]:
        """Flip signs of items, or of clusters of them."""
        d = np.column_stack([t - c for t, c in self.samples])
        units = d if self.cluster is None else _by_cluster(d, self.cluster)
        # Random signs are dealt to the units in an order of their own, not in that of the table.
        units = units[np.lexsort(units.T[::-1])]
        varies = d.std(axis=0) > 0
        matrix = np.eye(len(rows))
        if varies.sum() > 1:
            matrix[np.ix_(varies, varies)] = np.corrcoef(units[:, varies].T)
        if len(units) < 2:
            return None, matrix, []
        least = f"with {len(units)} items (or clusters) no sign-flip p can be below {2 / 2 ** len(units):.3g}"
        found = sign_flip_max_t(units, level=level, draws=draws, random_state=random_state)
        return found, matrix, [least] if len(units) < 7 else []


def _by_cluster(d: Floats, label: NDArray[Any]) -> Floats:
    return cluster_sums(d, np.unique(label.astype(str), return_inverse=True)[1])[0]


def paired(
    table: Table,
    *,
    treatment: str,
    outcomes: Sequence[str],
    unit: str,
    treated: object,
    control: object,
    cluster: str | None = None,
    level: float = 0.95,
    averaged: bool = True,
) -> Paired:
    """Compare two arms item by item, on one outcome or more; repeats of an item are `averaged` or refused.

    Raises as `estimate_effect` with ``design="paired"``; also if no item has all outcomes under both arms.
    """
    shared: dict[str, Any] = {"unit": unit, "treatment": treatment, "treated": treated, "control": control}
    made = [paired_differences(table, outcome=name, **shared) for name in outcomes]
    if not averaged:
        _refuse_repeats(made[0])
    common = set.intersection(*(set(pairs.units) for pairs in made))
    if not common:
        raise EstimationError(f"no {unit!r} has all of {', '.join(outcomes)} under both arms")
    places = [np.array([u in common for u in pairs.units]) for pairs in made]
    label = None
    if cluster is not None:
        label = item_labels(table, cluster, unit, made[0], role="cluster")[places[0]]
    return Paired(
        result=paired_effect(table, outcome=outcomes[0], cluster=cluster, level=level, **shared),
        names=tuple(outcomes),
        samples=tuple((p.treated[here], p.control[here]) for p, here in zip(made, places, strict=True)),
        scales=tuple(paired_scale(pairs, clustered=label is not None) for pairs in made),
        cluster=label,
    )


def _refuse_repeats(pairs: PairedItems) -> None:
    if pairs.n_repeats:
        arm = pairs.trial_item * 2 + pairs.trial_treated
        repeated = np.unique(np.flatnonzero(np.bincount(arm) > 1) // 2)
        raise EstimationError(
            f"{len(repeated)} of {counted(len(pairs.units), 'item')} have repeats within an arm: a"
            " mean of levels is not a level",
            hint="keep one repeat, or score the outcome as a number",
        )
