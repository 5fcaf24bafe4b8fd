"""The paired design: every item under both arms, compared with itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._summary import figures, measure_lines, parts_table
from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.measures import is_binary, ratio_measures
from whyprompt.effects.paired_items import ItemChanges, change_words, item_changes, item_states
from whyprompt.effects.pairs import (
    PairedDifferences,
    item_labels,
    mcnemar_p,
    paired_differences,
    paired_interval,
    paired_scale,
)
from whyprompt.effects.power import detectable_effect, items_needed
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption, Estimate, Result, unlisted, with_holm
from whyprompt.stats.clusters import known_error, mean_error
from whyprompt.stats.rules import few_clusters
from whyprompt.tables import level_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.paired_items import Noise
    from whyprompt.effects.pairs import Scale
    from whyprompt.results import BalanceRow
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]

__all__ = ["PairedResult", "paired_effect"]


@dataclass(frozen=True, kw_only=True)
class PairedResult(Result):
    """The average within-item difference; the parts are subgroups of items, adjusted by Holm's rule.

    A standard error is absent where items (or clusters) are too few, or all change by the same amount; the
    interval of a 0/1 outcome is then still given.

    Attributes
    ----------
    treatment, outcome, treated, control : str
        Columns and arms.
    mean_treated, mean_control : float
        Over complete items.
    n_clusters : int
        Sampling units.
    incomplete : mapping of str to int
        Why items are left out, and how many.
    items : ItemChanges
        How single items fare: counts of these trials, and how many items must gain or be harmed, as far as
        repeats show it.
    mcnemar_p : float or None
        Exact McNemar p for a 0/1 outcome; None with clusters, whose items it would take to be independent.
    mcnemar_counts : tuple of int or None
        Items that only the treated arm gets right in these trials, and that only the control arm does.
    minimum_detectable : float or None
        Effect that this design detects with power 0.8 at 1 - level.
    heterogeneity : mapping of str to float
        For each `by` column, the p-value of equal effects in its subgroups (Welch's analysis of variance);
        not given with clusters.
    measures : tuple of Estimate
        For a 0/1 outcome: risk difference, risk ratio and odds ratio (marginal), with errors that account for
        the pairing.
    std_error_method, estimand, method : str
    balance : tuple
        Empty: each item is its own control.
    differences : PairedDifferences
        Of the items.
    """

    overall: Estimate
    treatment: str
    outcome: str
    treated: str
    control: str
    mean_treated: float
    mean_control: float
    n_clusters: int
    incomplete: Mapping[str, int]
    items: ItemChanges
    mcnemar_p: float | None
    mcnemar_counts: tuple[int, int] | None
    minimum_detectable: float | None
    std_error_method: str
    measures: tuple[Estimate, ...] = ()
    heterogeneity: Mapping[str, float] = field(default_factory=dict)
    estimand: str = "ate"
    method: str = "paired"
    balance: tuple[BalanceRow, ...] = ()
    differences: PairedDifferences | None = unlisted()

    @property
    def n_pairs(self) -> int:
        """Complete items."""
        return self.overall.n_used or 0

    @property
    def n_incomplete(self) -> int:
        """Items left out."""
        return sum(self.incomplete.values())

    def _blocks(self) -> list[str]:
        out = [
            figures(self.overall, level=self.level, how=self.std_error_method),
            *measure_lines(self.measures),
        ]
        if self.mcnemar_p is not None and self.mcnemar_counts is not None:
            out.append(
                f"exact McNemar p {p_words(self.mcnemar_p)}: {counted(self.mcnemar_counts[0], 'item')} right"
                f" under {self.treated!r} only, {self.mcnemar_counts[1]} under {self.control!r} only"
            )
        if self.minimum_detectable is not None:
            out.append(
                f"these {counted(self.n_pairs, 'item')} detect an effect of"
                f" {format_number(self.minimum_detectable)} with power 0.8"
            )
        return out + ([f"Subgroups:\n{parts_table(self.parts, adjusted='Holm')}"] if self.parts else [])

    def item_states(self) -> NDArray[np.int64]:
        """Tell of each item whether it gains or is harmed: beyond noise, or as its trials came out.

        Returns
        -------
        ndarray of int, shape (items,)
            1, -1 or 0; ``items.state_labels`` says what each means.

        Raises
        ------
        EstimationError
            If the result does not hold its differences.
        """
        if self.differences is None:
            raise EstimationError(
                "the result does not hold its items' differences", hint="estimate_effect(design='paired')"
            )
        return item_states(self.differences, self.items)

    def sample_size(self, effect: float, *, power: float = 0.8) -> int:
        """Return how many items of this kind would detect an effect.

        Parameters
        ----------
        effect : float
            True mean difference, not 0.
        power : float, default 0.8
            Wanted.

        Returns
        -------
        int
            Items under both arms, with this table's spread and clustering.

        Raises
        ------
        EstimationError
            If the effect is 0, the power is not between 0 and 1, or the spread is not known.
        """
        if not (np.isfinite(effect) and effect != 0):
            raise EstimationError("a sample size needs an effect other than 0")
        error, df = self._spread()
        return items_needed(effect, error=error, df=df, n=self.n_pairs, level=self.level, power=power)

    def detectable(self, *, n: int | None = None, power: float = 0.8) -> float:
        """Return the effect that a number of items of this kind would detect.

        Parameters
        ----------
        n : int, optional
            Items under both arms; default those of this table.
        power : float, default 0.8
            Wanted.

        Returns
        -------
        float

        Raises
        ------
        EstimationError
            If the power is not between 0 and 1, the spread is not known, or `n` is below 2.
        """
        error, df = self._spread()
        items = self.n_pairs if n is None else n
        if items < 2:
            raise EstimationError(f"{items} item(s) cannot detect anything; give at least 2")
        scale = items / self.n_pairs
        free = max(df * scale if self.n_clusters < self.n_pairs else items - 1.0, 1.0)
        return detectable_effect(error / np.sqrt(scale), df=free, level=self.level, power=power)

    def _spread(self) -> tuple[float, float]:
        if self.std_error is None or self.df is None:
            raise EstimationError("the spread of the differences is not known from this table")
        return self.std_error, self.df


def paired_effect(
    table: Table,
    *,
    treatment: str,
    outcome: str,
    treated: object,
    control: object,
    unit: str = "item_id",
    cluster: str | None = None,
    by: str | Sequence[str] | None = None,
    noise: Noise = "independent",
    level: float = 0.95,
) -> PairedResult:
    """Estimate the effect of one arm against another from items run under both.

    Parameters
    ----------
    table : Table
    treatment, outcome, treated, control, unit, cluster, by, noise, level
        As in `estimate_effect` with ``design="paired"``.

    Returns
    -------
    PairedResult

    Raises
    ------
    DataError
        If a column is absent or of the wrong kind, or `cluster` or `by` varies within an item.
    EstimationError
        If no item has both outcomes.
    """
    if not 0 < level < 1:
        raise EstimationError(f"the level is {level}; it lies between 0 and 1, 0.95 for example")
    if noise not in {"independent", "shared", "none"}:
        raise EstimationError(f"noise={noise!r}: choose 'independent', 'shared' or 'none'")
    pairs = paired_differences(
        table, unit=unit, treatment=treatment, outcome=outcome, treated=treated, control=control
    )
    d = pairs.treated - pairs.control
    n = len(d)
    label = None if cluster is None else item_labels(table, cluster, unit, pairs, role="cluster")
    size = float(max(np.abs(pairs.treated).max(), np.abs(pairs.control).max()))
    error, df, n_clusters = known_error(d, label, size)
    binary = is_binary(pairs.treated, pairs.control)
    scale = paired_scale(pairs, clustered=label is not None)
    low, high, p = paired_interval(d, error, df, level, scale)
    subgroups = _subgroups(table, by, unit, pairs, d, label, level, scale, size)
    differ = {} if label is not None else _heterogeneity(subgroups)
    counts = (int((d > 0).sum()), int((d < 0).sum()))
    names = (level_name(treated), level_name(control))
    n_incomplete = sum(pairs.incomplete.values())
    items = item_changes(pairs, level=level, noise=noise)
    overall = Estimate(
        label="all items",
        estimate=float(d.mean()),
        std_error=error,
        ci_low=low,
        ci_high=high,
        df=df,
        p_value=p,
        n_treated=n + n_incomplete,
        n_control=n + n_incomplete,
        n_treated_used=n,
        n_control_used=n,
        n_used=n,
    )
    return PairedResult(
        overall=overall,
        parts=subgroups,
        level=level,
        treatment=treatment,
        outcome=outcome,
        treated=names[0],
        control=names[1],
        axis=f"difference in {outcome}, {names[0]} minus {names[1]}",
        mean_treated=float(pairs.treated.mean()),
        mean_control=float(pairs.control.mean()),
        n_clusters=n_clusters,
        incomplete=dict(pairs.incomplete),
        items=items,
        mcnemar_p=mcnemar_p(*counts) if binary and label is None else None,
        mcnemar_counts=counts if binary else None,
        heterogeneity=differ,
        measures=_measures(pairs, label, (low, high), error, level) if scale != "free" else (),
        minimum_detectable=None
        if error is None or df is None
        else detectable_effect(error, df=df, level=level, power=0.8),
        assumptions=_assumptions(pairs, clustered=label is not None, n_incomplete=n_incomplete),
        warnings=_warnings(pairs, n, n_clusters, error, df, clustered=label is not None),
        sentence=_sentence(
            overall, outcome, names, level, n_incomplete, change_words(items, binary=binary), subgroups
        )
        + _differ_words(differ, level),
        std_error_method="CR2 by cluster, Satterthwaite df"
        if label is not None
        else "items; interval of Bonett and Price (2012)"
        if scale == "counts"
        else "items, t distribution",
        differences=pairs,
    )


def _measures(
    pairs: PairedDifferences,
    cluster: NDArray[Any] | None,
    ci: tuple[float | None, float | None],
    error: float | None,
    level: float,
) -> tuple[Estimate, ...]:
    means = (float(pairs.treated.mean()), float(pairs.control.mean()))

    def scaled(a: float, b: float) -> tuple[float | None, float | None]:
        se, df, _ = mean_error(a * pairs.treated - b * pairs.control, cluster)
        return se, df

    difference = Estimate(
        label="risk difference",
        estimate=means[0] - means[1],
        std_error=error,
        ci_low=ci[0],
        ci_high=ci[1],
    )
    return (difference, *ratio_measures(means, scaled, level=level))


def _subgroups(
    table: Table,
    by: str | Sequence[str] | None,
    unit: str,
    pairs: PairedDifferences,
    d: Floats,
    cluster: NDArray[Any] | None,
    level: float,
    scale: Scale,
    size: float,
) -> tuple[Estimate, ...]:
    columns = [] if by is None else [by] if isinstance(by, str) else list(by)
    rows = []
    for name in columns:
        labels = item_labels(table, name, unit, pairs, role="subgroup")
        for value in sorted(set(labels.tolist())):
            here = labels == value
            error, df, _ = known_error(d[here], None if cluster is None else cluster[here], size)
            low, high, p = paired_interval(d[here], error, df, level, scale)
            rows.append(
                Estimate(
                    by=name,
                    label=str(value),
                    estimate=float(d[here].mean()),
                    std_error=error,
                    ci_low=low,
                    ci_high=high,
                    p_value=p,
                    df=df,
                    n_used=int(here.sum()),
                )
            )
    return with_holm(rows)


def _differ_words(differ: Mapping[str, float], level: float) -> str:
    return "".join(
        f" Over {name!r} the effects {'differ' if p < 1 - level else 'are not shown to differ'}"
        f" (p {p_words(p)})."
        for name, p in differ.items()
    )


def _heterogeneity(rows: Sequence[Estimate]) -> dict[str, float]:
    """Welch's analysis of variance of the differences over each column's subgroups.

    Reference: Welch, B. L. (1951). On the comparison of several mean values: an alternative approach.
    Biometrika 38, 330-336.
    """
    from scipy import stats

    out = {}
    for name in dict.fromkeys(row.by for row in rows):
        known = [r for r in rows if r.by == name and r.std_error is not None and r.std_error > 0]
        k = len(known)
        if k < 2:
            continue
        value = np.array([r.estimate for r in known], dtype=float)
        share = np.array([float(r.std_error or 1.0) for r in known]) ** -2.0
        free = np.array([(r.n_used or 0) - 1.0 for r in known])
        centre = float(share @ value / share.sum())
        loss = float(((1.0 - share / share.sum()) ** 2 / free).sum()) / (k**2 - 1.0)
        f = float(share @ (value - centre) ** 2) / (k - 1.0) / (1.0 + 2.0 * (k - 2.0) * loss)
        out[name] = float(stats.f.sf(f, k - 1, 1.0 / (3.0 * loss)))
    return out


def _assumptions(pairs: PairedDifferences, *, clustered: bool, n_incomplete: int) -> tuple[Assumption, ...]:
    total = len(pairs.units) + n_incomplete
    return (
        Assumption(
            name="exchangeability",
            status="holds",
            check="the design",
            detail="each item is compared with itself under the other arm",
        ),
        Assumption(
            name="complete pairs",
            status="holds" if n_incomplete == 0 else "doubtful" if n_incomplete > 0.05 * total else "holds",
            check="items with an outcome under both arms were counted",
            detail=f"{n_incomplete} of {total} items are incomplete"
            + (f": {', '.join(f'{v} {k}' for k, v in pairs.incomplete.items())}" if n_incomplete else ""),
        ),
        Assumption(
            name="no interference",
            status="not checked",
            check="repeated trials with another batch composition would be needed",
            detail="an item's outcome is taken not to depend on the other items of its batch",
        ),
        Assumption(
            name="independent units",
            status="holds" if clustered else "not checked",
            check="items were grouped by the cluster column" if clustered else "no cluster column was given",
            detail="items of different clusters are taken to be sampled independently"
            if clustered
            else "items are taken to be sampled independently; items from one template need cluster=",
        ),
    )


def _warnings(
    pairs: PairedDifferences,
    n: int,
    n_clusters: int,
    error: float | None,
    df: float | None,
    *,
    clustered: bool,
) -> tuple[str, ...]:
    out: list[str] = []
    if pairs.incomplete:
        shown = ", ".join(pairs.incomplete_units[:5])
        reasons = ", ".join(f"{count} {why}" for why, count in pairs.incomplete.items())
        out.append(f"{sum(pairs.incomplete.values())} item(s) left out as incomplete: {reasons} ({shown})")
    if pairs.n_repeats:
        out.append(f"{pairs.n_repeats} repeated trial(s) were averaged within item and arm")
    if n_clusters < 2:
        out.append(f"{n} item(s) in {n_clusters} cluster(s): no standard error can be given")
    elif error is None:
        units = (
            "clusters change by the same amount on average"
            if clustered
            else "items change by the same amount"
        )
        out.append(
            f"all {units}: the spread is zero in this sample, not in the population, and no standard error"
            " can be given"
        )
    elif clustered:
        out += few_clusters(n_clusters, df)
    elif n < 10:
        out.append(f"only {counted(n, 'item')}: the interval rests on their differences being roughly normal")
    return tuple(out)


def _sentence(
    overall: Estimate,
    outcome: str,
    names: tuple[str, str],
    level: float,
    n_incomplete: int,
    single: str,
    subgroups: Sequence[Estimate],
) -> str:
    low, high = overall.ci_low, overall.ci_high
    interval = (
        f"{percent(level)} interval {format_number(low)} to {format_number(high)}"
        if low is not None and high is not None
        else "no interval can be given"
    )
    left_out = f"; {counted(n_incomplete, 'incomplete item')} left out" if n_incomplete else ""
    text = (
        f"On {counted(overall.n_used or 0, 'item')} run under both arms, {names[0]!r} instead of {names[1]!r}"
        f" changes {outcome!r} by {format_number(overall.estimate)} on average ({interval}){left_out}."
        f" {single[0].upper()}{single[1:]}."
    )
    if low is not None and high is not None and low <= 0 <= high:
        text += " The interval includes zero: these items do not decide the sign."
    distinct = [row for row in subgroups if row.p_adjusted is not None and row.p_adjusted < 1 - level]
    if distinct:
        listed = ", ".join(f"{row.by}={row.label} ({format_number(row.estimate)})" for row in distinct)
        text += f" After adjustment for the number of subgroups, an effect is seen in {listed}."
    return text
