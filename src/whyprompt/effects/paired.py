"""The paired design: every item under both arms, compared with itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import confidence
from whyprompt._words import counted, format_number
from whyprompt.effects.headline import exact_against_interval
from whyprompt.effects.measures import is_binary, ratio_measures
from whyprompt.effects.paired_items import change_words, item_changes
from whyprompt.effects.pairs import item_labels, mcnemar_p, mean_change, paired_differences, paired_scale
from whyprompt.effects.power import detectable_effect
from whyprompt.effects.result import EffectResult, differ_words, interval_words
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption, Estimate, with_holm
from whyprompt.stats.clusters import mean_error
from whyprompt.stats.rules import few_clusters
from whyprompt.tables import level_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.pairs import Noise, PairedItems
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]


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
) -> EffectResult:
    """Estimate the effect of one arm against another from items run under both.

    Arguments and what is raised as in `estimate_effect` with ``design="paired"``.
    """
    confidence(level)
    if noise not in {"independent", "shared", "none"}:
        raise EstimationError(f"noise={noise!r}: choose 'independent', 'shared' or 'none'")
    pairs = paired_differences(
        table, unit=unit, treatment=treatment, outcome=outcome, treated=treated, control=control
    )
    d = pairs.treated - pairs.control
    n = len(d)
    label = None if cluster is None else item_labels(table, cluster, unit, pairs, role="cluster")
    size = float(max(np.abs(pairs.treated).max(), np.abs(pairs.control).max()))
    n_clusters = n if label is None else len(set(label.tolist()))
    binary = is_binary(pairs.treated, pairs.control)
    scale = paired_scale(pairs, clustered=label is not None)
    shared: dict[str, Any] = {"level": level, "scale": scale, "size": size}
    subgroups = _subgroups(table, by, unit, pairs, d, label, shared)
    counts = (int((d > 0).sum()), int((d < 0).sum()))
    names = (level_name(treated), level_name(control))
    items = replace(
        item_changes(pairs, level=level, noise=noise),
        mcnemar_p=mcnemar_p(*counts) if binary and label is None else None,
        mcnemar_counts=counts if binary else None,
    )
    every = n + items.n_incomplete
    overall = mean_change(
        "all items",
        d,
        label,
        n_treated=every,
        n_control=every,
        n_treated_used=n,
        n_control_used=n,
        n_used=n,
        mean_treated=float(pairs.treated.mean()),
        mean_control=float(pairs.control.mean()),
        **shared,
    )
    least = None
    if overall.std_error is not None and overall.df is not None:
        least = detectable_effect(overall.std_error, df=overall.df, level=level, power=0.8)
    made = EffectResult(
        sentence="",
        overall=overall,
        parts=subgroups,
        level=level,
        treatment=treatment,
        outcome=outcome,
        treated=names[0],
        control=names[1],
        axis=f"difference in {outcome}, {names[0]} minus {names[1]}",
        estimand="ate",
        method="paired",
        ess_treated=float(n),
        ess_control=float(n),
        n_clusters=n_clusters,
        items=items,
        heterogeneity={} if label is not None else _heterogeneity(subgroups),
        measures=_measures(pairs, label, overall, level) if scale != "free" else (),
        minimum_detectable=least,
        assumptions=_assumptions(items, clustered=label is not None),
        std_error_method="CR2 by cluster, Satterthwaite df"
        if label is not None
        else "items; interval of Bonett and Price (2012)"
        if scale == "counts"
        else "items, t distribution",
    )
    text = _sentence(made, items) + differ_words(made.heterogeneity, level)
    return replace(made, sentence=text, warnings=_warnings(made, items, clustered=label is not None))


def _measures(
    pairs: PairedItems, cluster: NDArray[Any] | None, overall: Estimate, level: float
) -> tuple[Estimate, ...]:
    means = (float(pairs.treated.mean()), float(pairs.control.mean()))

    def scaled(a: float, b: float) -> tuple[float | None, float | None]:
        se, df, _ = mean_error(a * pairs.treated - b * pairs.control, cluster)
        return se, df

    difference = Estimate(
        label="risk difference",
        estimate=means[0] - means[1],
        std_error=overall.std_error,
        ci_low=overall.ci_low,
        ci_high=overall.ci_high,
    )
    return (difference, *ratio_measures(means, scaled, level=level))


def _subgroups(
    table: Table,
    by: str | Sequence[str] | None,
    unit: str,
    pairs: PairedItems,
    d: Floats,
    cluster: NDArray[Any] | None,
    shared: dict[str, Any],
) -> tuple[Estimate, ...]:
    columns = [] if by is None else [by] if isinstance(by, str) else list(by)
    rows = []
    for name in columns:
        labels = item_labels(table, name, unit, pairs, role="subgroup")
        for value in sorted(set(labels.tolist())):
            here = labels == value
            held = None if cluster is None else cluster[here]
            n = int(here.sum())
            rows.append(mean_change(str(value), d[here], held, by=name, n_used=n, **shared))
    return with_holm(rows)


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


def _assumptions(pairs: PairedItems, *, clustered: bool) -> tuple[Assumption, ...]:
    n_incomplete = pairs.n_incomplete
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
            status="doubtful" if n_incomplete > 0.05 * total else "holds",
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


def _warnings(made: EffectResult, items: PairedItems, *, clustered: bool) -> tuple[str, ...]:
    n, n_clusters = made.n_pairs, made.n_clusters or 0
    out: list[str] = []
    if items.incomplete:
        shown = ", ".join(items.incomplete_units[:5])
        reasons = ", ".join(f"{count} {why}" for why, count in items.incomplete.items())
        out.append(f"{items.n_incomplete} item(s) left out as incomplete: {reasons} ({shown})")
    if items.n_repeats:
        out.append(f"{items.n_repeats} repeated trial(s) were averaged within item and arm")
    if n_clusters < 2:
        out.append(f"{n} item(s) in {n_clusters} cluster(s): no standard error can be given")
    elif made.std_error is None:
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
        out += few_clusters(n_clusters, made.df)
    elif n < 10:
        out.append(f"only {counted(n, 'item')}: the interval rests on their differences being roughly normal")
    return tuple(out)


def _sentence(made: EffectResult, items: PairedItems) -> str:
    low, high = made.ci_low, made.ci_high
    lost, single = items.n_incomplete, change_words(items)
    left_out = f"; {counted(lost, 'incomplete item')} left out" if lost else ""
    text = (
        f"On {counted(made.n_pairs, 'item')} run under both arms, {made.treated!r} instead of"
        f" {made.control!r} changes {made.outcome!r} by {format_number(made.estimate)} on average"
        f" ({interval_words(made)}){left_out}. {single[0].upper()}{single[1:]}."
    )
    if low is not None and high is not None:
        exact = exact_against_interval(made)
        if exact:
            text += f" {exact}"
        elif low <= 0 <= high:
            text += " The interval includes zero: these items do not decide the sign."
    distinct = [p for p in made.parts if p.p_adjusted is not None and p.p_adjusted < 1 - made.level]
    if distinct:
        listed = ", ".join(f"{row.by}={row.label} ({format_number(row.estimate)})" for row in distinct)
        text += f" After adjustment for the number of subgroups, an effect is seen in {listed}."
    return text
