"""The paired design: every item under both arms.

The second potential outcome is not imputed but run, so the effect on each item is seen, and nothing about
how arms were chosen has to be assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.measures import is_binary, ratio_measures
from whyprompt.effects.paired.items import change_words, item_changes
from whyprompt.effects.paired.power import detectable_effect
from whyprompt.effects.paired.result import PairedDifferences, PairedResult, SubgroupRow
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Assumption, Measure
from whyprompt.stats.rules import few_clusters, holm
from whyprompt.stats.several import two_sided_p
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.paired.items import Noise
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Scale = Literal["free", "risks", "counts"]

# A standard error below this share of the outcomes' size is rounding.
_ROUNDING = 1e-13

__all__ = [
    "PairedDifferences",
    "PairedResult",
    "SubgroupRow",
    "item_labels",
    "known_error",
    "mean_error",
    "paired_differences",
    "paired_effect",
    "paired_interval",
    "paired_scale",
]


def paired_differences(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str,
    arm: str,
    outcome: str,
    treated: object,
    control: object,
) -> PairedDifferences:
    """Put the two outcomes of each item side by side.

    Parameters
    ----------
    frame : DataFrame
        One row a trial.
    unit, arm, outcome : str
        Columns. A missing outcome makes its item incomplete where no repeat has one.
    treated, control : object
        Levels of `arm`.

    Returns
    -------
    PairedDifferences

    Raises
    ------
    DataError
        If a column is absent or of the wrong kind.
    EstimationError
        If an arm does not occur, or no item has both outcomes.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"item": [1, 1, 2], "arm": ["a", "b", "a"], "y": [0.0, 1.0, 1.0]})
    >>> d = paired_differences(frame, unit="item", arm="arm", outcome="y", treated="b", control="a")
    >>> d.units, dict(d.incomplete)
    (('1',), {"only under 'a'": 1})
    """
    table = open_table(frame)
    labels = table.labels(unit, role="unit")
    levels = table.labels(arm, role="arm")
    y = table.numbers_with_gaps(outcome, role="outcome")
    names = [level_name(v) for v in (treated, control)]
    if names[0] == names[1]:
        raise EstimationError(f"the treated and the control arm are both {names[0]!r}")
    present = sorted(set(levels.tolist()))
    for name in names:
        if name not in present:
            raise EstimationError(
                f"no row of arm column {arm!r} is {name!r}: that arm is empty",
                hint=f"the arms are {', '.join(map(repr, present))}",
            )
    code: dict[str, int] = {}
    index = np.fromiter((code.setdefault(u, len(code)) for u in labels), dtype=np.int64, count=len(labels))
    first = np.full(len(code), len(labels), dtype=np.int64)
    np.minimum.at(first, index, np.arange(len(labels)))
    means, rows, finite, trials = [], [], [], []
    for name in names:
        mask = levels == name
        ok = mask & ~np.isnan(y)
        trials.append(ok)
        n_ok = np.bincount(index[ok], minlength=len(code))
        total = np.bincount(index[ok], weights=y[ok], minlength=len(code))
        means.append(np.divide(total, n_ok, out=np.full(len(code), np.nan), where=n_ok > 0))
        rows.append(np.bincount(index[mask], minlength=len(code)))
        finite.append(n_ok)
    here = (rows[0] > 0) | (rows[1] > 0)
    complete = (finite[0] > 0) & (finite[1] > 0)
    why = {
        f"only under {names[0]!r}": here & (rows[1] == 0),
        f"only under {names[1]!r}": here & (rows[0] == 0),
        "outcome missing": (rows[0] > 0) & (rows[1] > 0) & ~complete,
    }
    every = list(code)
    if not complete.any():
        raise EstimationError(
            f"no {unit!r} has an outcome under both {names[0]!r} and {names[1]!r}",
            hint="a paired effect needs both arms on the same items; otherwise use estimate_effect",
        )
    used = sum(int(f[complete].sum()) for f in finite)
    place = np.cumsum(complete) - 1
    kept = np.flatnonzero((trials[0] | trials[1]) & complete[index])
    return PairedDifferences(
        units=tuple(every[k] for k in np.flatnonzero(complete)),
        first_row=first[complete],
        treated=means[0][complete],
        control=means[1][complete],
        n_repeats=used - 2 * int(complete.sum()),
        incomplete={name: int(mask.sum()) for name, mask in why.items() if mask.any()},
        incomplete_units=tuple(every[k] for k in np.flatnonzero(here & ~complete)[:20]),
        n_other_rows=int((~np.isin(levels, names)).sum()),
        trial_item=place[index[kept]],
        trial_treated=trials[0][kept],
        trial_outcome=y[kept],
    )


def paired_effect(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str = "item_id",
    arm: str = "arm",
    outcome: str,
    treated: object,
    control: object,
    cluster: str | None = None,
    by: str | Sequence[str] | None = None,
    noise: Noise = "independent",
    level: float = 0.95,
) -> PairedResult:
    """Estimate the effect of one arm against another from items run under both.

    Parameters
    ----------
    frame : DataFrame
        One row a trial; repeats of an item under an arm are averaged.
    unit, arm, outcome : str
        Columns.
    treated, control : object
        Levels of `arm`; other arms are ignored.
    cluster : str, optional
        Column that groups items sampled together (a template). The error is then CR2 with Satterthwaite's
        degrees of freedom.
    by : str or sequence of str, optional
        Columns of the item; an effect is given for each level, with Holm's adjustment over all of them.
    noise : {"independent", "shared", "none"}, default "independent"
        What makes trials of one item and arm differ, for what is said of single items: draws of their own;
        draws that items share, as one set of shots for all items of a repetition; nothing, as where outcomes
        are scored and prompts fixed.
    level : float, default 0.95
        Of intervals.

    Returns
    -------
    PairedResult

    Raises
    ------
    DataError
        If a column is absent or of the wrong kind, or `cluster` or `by` varies within an item.
    EstimationError
        If no item has both outcomes.

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with
    multi-stage samples. Survey Methodology 28, 169-181.
    McNemar, Q. (1947). Psychometrika 12, 153-157, in the exact binomial form.
    Bonett, D. G. and Price, R. M. (2012). Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data. Journal of Educational and Behavioral Statistics 37, 479-488.
    Holm, S. (1979). Scandinavian Journal of Statistics 6, 65-70.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame(
    ...     {
    ...         "item_id": [1, 1, 2, 2, 3, 3],
    ...         "arm": ["direct", "cot"] * 3,
    ...         "score": [0.0, 1.0, 2.0, 4.0, 1.0, 1.0],
    ...     }
    ... )
    >>> result = paired_effect(frame, outcome="score", treated="cot", control="direct")
    >>> result.estimate, result.n_pairs
    (1.0, 3)
    """
    if not 0 < level < 1:
        raise EstimationError(f"the level is {level}; it lies between 0 and 1, 0.95 for example")
    if noise not in {"independent", "shared", "none"}:
        raise EstimationError(f"noise={noise!r}: choose 'independent', 'shared' or 'none'")
    table = open_table(frame)
    pairs = paired_differences(table, unit=unit, arm=arm, outcome=outcome, treated=treated, control=control)
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
    names = [level_name(treated), level_name(control)]
    n_incomplete = sum(pairs.incomplete.values())
    items = item_changes(pairs, level=level, noise=noise)
    return PairedResult(
        outcome=outcome,
        treated=names[0],
        control=names[1],
        estimate=float(d.mean()),
        std_error=error,
        ci_low=low,
        ci_high=high,
        level=level,
        df=df,
        p_value=p,
        mean_treated=float(pairs.treated.mean()),
        mean_control=float(pairs.control.mean()),
        n_pairs=n,
        n_clusters=n_clusters,
        n_incomplete=n_incomplete,
        incomplete=dict(pairs.incomplete),
        items=items,
        mcnemar_p=_mcnemar(*counts) if binary and label is None else None,
        mcnemar_counts=counts if binary else None,
        heterogeneity=differ,
        measures=_measures(pairs, label, (low, high), error, level) if scale != "free" else (),
        minimum_detectable=None
        if error is None or df is None
        else detectable_effect(error, df=df, level=level, power=0.8),
        subgroups=subgroups,
        assumptions=_assumptions(pairs, clustered=label is not None, n_incomplete=n_incomplete),
        warnings=_warnings(pairs, n, n_clusters, error, df, clustered=label is not None),
        sentence=_sentence(
            outcome,
            names,
            float(d.mean()),
            (low, high),
            level,
            n,
            n_incomplete,
            change_words(items, binary=binary),
            subgroups,
        )
        + _differ_words(differ, level),
        se_method="CR2 by cluster, Satterthwaite df"
        if label is not None
        else "items; interval of Bonett and Price (2012)"
        if scale == "counts"
        else "items, t distribution",
        differences=pairs,
    )


def paired_scale(pairs: PairedDifferences, *, clustered: bool) -> Scale:
    """Tell which interval a mean difference has: of counts, of risks, or of a number without bounds.

    Parameters
    ----------
    pairs : PairedDifferences
    clustered : bool
        Whether items are sampled in groups: their counts are then no independent ones.

    Returns
    -------
    {"free", "risks", "counts"}
        Repeats of a 0/1 outcome are averaged within an item; their means are risks all the same.
    """
    if not is_binary(pairs.trial_outcome, pairs.trial_outcome):
        return "free"
    return "counts" if is_binary(pairs.treated, pairs.control) and not clustered else "risks"


def item_labels(table: Table, name: str, unit: str, pairs: PairedDifferences, *, role: str) -> NDArray[Any]:
    """Read a property of the item for each complete item.

    Parameters
    ----------
    table : Table
    name, unit : str
        Columns.
    pairs : PairedDifferences
    role : str
        For messages.

    Returns
    -------
    ndarray of str, shape (items,)

    Raises
    ------
    DataError
        If it varies within an item.
    """
    labels = table.labels(name, role=role)
    units = table.labels(unit, role="unit")
    seen: dict[str, str] = {}
    for u, value in zip(units, labels, strict=True):
        if seen.setdefault(u, value) != value:
            raise DataError(
                f"{role} column {name!r} varies within {unit!r} {u!r} ({seen[u]!r} and {value!r})",
                hint="it must be a property of the item, known before the arm is chosen",
            )
    return labels[pairs.first_row]


def mean_error(d: Floats, cluster: NDArray[Any] | None) -> tuple[float | None, float | None, int]:
    """Return the standard error of a mean, CR2 where items are clustered, its degrees of freedom and units.

    Parameters
    ----------
    d : ndarray, shape (items,)
    cluster : ndarray, shape (items,), optional

    Returns
    -------
    std_error, df : float or None
        None with fewer than two units.
    n_units : int

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Survey Methodology 28, 169-181.
    """
    n = len(d)
    if cluster is None:
        if n < 2:
            return None, None, n
        return float(d.std(ddof=1) / np.sqrt(n)), float(n - 1), n
    _, code = np.unique(cluster.astype(str), return_inverse=True)
    size = np.bincount(code).astype(float)
    if len(size) < 2:
        return None, None, len(size)
    sums = np.bincount(code, weights=d - d.mean())
    spare = 1.0 - size / n
    variance = float((sums**2 / spare).sum()) / n**2
    # Degrees of freedom of Bell and McCaffrey for a mean, under independent errors.
    cross = size**2 / spare / n**3
    squares = float((size**2).sum()) / n**4 + float(cross.sum() ** 2 - (cross**2).sum())
    return float(np.sqrt(variance)), (1.0 / n) ** 2 / squares, len(size)


def known_error(
    d: Floats, cluster: NDArray[Any] | None, size: float
) -> tuple[float | None, float | None, int]:
    """Return what `mean_error` does, without an error where the sample shows no spread.

    Parameters
    ----------
    d : ndarray, shape (items,)
        Differences.
    cluster : ndarray, shape (items,), optional
    size : float
        Largest outcome in size, which tells a spread from rounding.

    Returns
    -------
    std_error, df : float or None
        None with fewer than two units, and where all units change by the same amount: that the spread is nil
        in the sample does not make it nil in the population, and an interval without width, or a p of 0,
        would claim that it is.
    n_units : int
    """
    error, df, units = mean_error(d, cluster)
    if error is None or error <= _ROUNDING * size:
        return None, None, units
    return error, df, units


def paired_interval(
    d: Floats, error: float | None, df: float | None, level: float, scale: Scale
) -> tuple[float | None, float | None, float | None]:
    """Give the interval and the two-sided p of the mean difference.

    For 0/1 outcomes the t interval can leave [-1, 1], and has no width where all items behave alike: there
    the adjusted Wald interval of Bonett and Price is used, and the exact McNemar p. Means of repeated 0/1
    outcomes keep the t interval, within [-1, 1].

    Parameters
    ----------
    d : ndarray, shape (items,)
        Differences.
    error, df : float or None
        From `known_error`.
    level : float
    scale : {"free", "risks", "counts"}
        From `paired_scale`.

    Returns
    -------
    low, high, p : float or None
    """
    from scipy import stats

    estimate, n = float(d.mean()), len(d)
    if scale == "counts" and n > 1:
        gained, lost = int((d > 0).sum()), int((d < 0).sum())
        a, b = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
        half = float(stats.norm.ppf(0.5 + level / 2)) * float(np.sqrt((a + b - (a - b) ** 2) / (n + 2)))
        return max(a - b - half, -1.0), min(a - b + half, 1.0), _mcnemar(gained, lost)
    if error is None or df is None:
        return None, None, None
    half = float(stats.t.ppf(0.5 + level / 2, df)) * error
    low, high = estimate - half, estimate + half
    if scale == "risks":
        low, high = max(low, -1.0), min(high, 1.0)
    return low, high, two_sided_p(estimate, error, df)


def _measures(
    pairs: PairedDifferences,
    cluster: NDArray[Any] | None,
    ci: tuple[float | None, float | None],
    error: float | None,
    level: float,
) -> tuple[Measure, ...]:
    means = (float(pairs.treated.mean()), float(pairs.control.mean()))

    def scaled(a: float, b: float) -> tuple[float | None, float | None]:
        se, df, _ = mean_error(a * pairs.treated - b * pairs.control, cluster)
        return se, df

    difference = Measure(
        name="risk difference",
        estimate=means[0] - means[1],
        std_error=error,
        ci_low=ci[0],
        ci_high=ci[1],
        scale="identity",
    )
    return (difference, *ratio_measures(means, scaled, level=level))


def _mcnemar(gained: int, lost: int) -> float:
    from scipy import stats

    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


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
) -> tuple[SubgroupRow, ...]:
    columns = [] if by is None else [by] if isinstance(by, str) else list(by)
    rows: list[dict[str, Any]] = []
    for name in columns:
        labels = item_labels(table, name, unit, pairs, role="subgroup")
        for value in sorted(set(labels.tolist())):
            here = labels == value
            error, df, _ = known_error(d[here], None if cluster is None else cluster[here], size)
            low, high, p = paired_interval(d[here], error, df, level, scale)
            rows.append(
                {
                    "by": name,
                    "level": str(value),
                    "n_pairs": int(here.sum()),
                    "estimate": float(d[here].mean()),
                    "std_error": error,
                    "ci_low": low,
                    "ci_high": high,
                    "p_value": p,
                }
            )
    adjusted = holm([row["p_value"] for row in rows])
    return tuple(SubgroupRow(**row, p_holm=p) for row, p in zip(rows, adjusted, strict=True))


def _differ_words(differ: Mapping[str, float], level: float) -> str:
    return "".join(
        f" Over {name!r} the effects {'differ' if p < 1 - level else 'are not shown to differ'}"
        f" (p {p_words(p)})."
        for name, p in differ.items()
    )


def _heterogeneity(rows: Sequence[SubgroupRow]) -> dict[str, float]:
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
        value = np.array([r.estimate for r in known])
        share = np.array([float(r.std_error or 1.0) for r in known]) ** -2.0
        free = np.array([r.n_pairs - 1.0 for r in known])
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
    outcome: str,
    names: Sequence[str],
    estimate: float,
    ci: tuple[float | None, float | None],
    level: float,
    n: int,
    n_incomplete: int,
    single: str,
    subgroups: Sequence[SubgroupRow],
) -> str:
    interval = (
        f"{percent(level)} interval {format_number(ci[0])} to {format_number(ci[1])}"
        if ci[0] is not None and ci[1] is not None
        else "no interval can be given"
    )
    left_out = f"; {counted(n_incomplete, 'incomplete item')} left out" if n_incomplete else ""
    text = (
        f"On {counted(n, 'item')} run under both arms, {names[0]!r} instead of {names[1]!r} changes"
        f" {outcome!r} by"
        f" {format_number(estimate)} on average ({interval}){left_out}."
        f" {single[0].upper()}{single[1:]}."
    )
    if ci[0] is not None and ci[1] is not None and ci[0] <= 0 <= ci[1]:
        text += " The interval includes zero: these items do not decide the sign."
    distinct = [row for row in subgroups if row.p_holm is not None and row.p_holm < 1 - level]
    if distinct:
        listed = ", ".join(f"{row.by}={row.level} ({format_number(row.estimate)})" for row in distinct)
        text += f" After adjustment for the number of subgroups, an effect is seen in {listed}."
    return text
