"""How much the outcome of an item varies when it is run again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import confidence
from whyprompt._words import format_number, percent
from whyprompt.effects.checks.batches import ranges
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Estimate, Result
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def repeat_variance(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str,
    outcome: str,
    treatment: str | None = None,
    rep: str | None = None,
    level: float = 0.95,
) -> Result:
    """Split the variance of an outcome into items and repeats.

    Parameters
    ----------
    frame : DataFrame
        One row a trial; pandas, polars or pyarrow. It is read and never written.
    unit, outcome : str
        Columns.
    treatment : str, optional
        Column; arms are looked at one by one.
    rep : str, optional
        Column that numbers the repetitions, each with seeds of its own, where every item was run once in
        each: then the mean over items in each repetition is given as well.
    level : float, default 0.95
        Of the intervals.

    Returns
    -------
    Result
        An arm a part, by its name; ``"all trials"`` where no arm column was given. Its estimate is the share
        of a single trial's variance that comes from repeats (one minus the intraclass correlation), with an F
        interval; None where nothing varies. Its figures:

        - ``n_items`` and ``n_trials``: items with at least two repeats, and their trials; ``n_single``: items
          with one trial, which say nothing about repeats;
        - ``repeats`` of an item; for unequal numbers the average that the variance components use;
        - ``mean`` over these trials;
        - ``sd_items`` and ``sd_repeats``: standard deviation of the items' expected outcomes, and of repeats
          around them (`error_of_mean` makes an error of the two);
        - ``n_changed``: items whose outcome is not the same in all repeats; ``largest_range`` between two
          repeats of one item, and ``worst_item``, where that is (None where no outcome changes);
        - ``rep_means``: the mean over items in each repetition, where those were named, and ``sd_rep_means``,
          their standard deviation: how far the mean of all items moves when the seeds change.

    Raises
    ------
    DataError
        If a column is absent, or the outcome is missing, infinite or text; with `rep`, if an item is not run
        once in each of at least two repetitions.
    EstimationError
        If fewer than two items of an arm are repeated.

    Notes
    -----
    Components are those of the one-way random-effects analysis of variance, negative ones set to zero. The
    interval is exact for normal outcomes and equal numbers of repeats, and approximate otherwise.

    References
    ----------
    Searle, Casella and McCulloch (1992). Variance Components. Wiley, section 3.6.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"item": [1, 1, 2, 2, 3, 3], "y": [0.0, 1.0, 4.0, 4.0, 8.0, 7.0]})
    >>> row = repeat_variance(frame, unit="item", outcome="y").parts[0]
    >>> row["n_changed"], round(row["sd_repeats"] ** 2, 4), round(row["sd_items"] ** 2, 4)
    (2, 0.3333, 12.0833)
    """
    confidence(level)
    table = open_table(frame)
    labels = table.labels(unit, role="unit")
    y = table.numbers(outcome, role="outcome")
    arms = None if treatment is None else table.labels(treatment, role="arm")
    reps = None if rep is None else table.values(rep, role="repetition")
    rows = []
    for name in [""] if arms is None else sorted(set(arms.tolist())):
        here = np.ones(len(y), dtype=bool) if arms is None else arms == name
        means = () if reps is None else _rep_means(name, labels[here], reps[here], y[here], outcome)
        row = _repeat_row(name, labels[here], y[here], level)
        moved = float(np.std(means, ddof=1)) if means else None
        figures = {**row.figures, "rep_means": means, "sd_rep_means": moved}
        rows.append(replace(row, by=treatment or "", figures=figures))
    return Result(
        parts=tuple(rows),
        level=level,
        axis=f"share of the variance of {outcome} from repeats",
        sentence=_repeat_sentence(outcome, rows, level),
    )


def error_of_mean(row: Estimate, items: int, repeats: int) -> float:
    """Return the standard error of a mean over new items, each repeated, by the variances of a design.

    Parameters
    ----------
    row : Estimate
        A part of `repeat_variance`.
    items, repeats : int
        Of the design asked about.

    Returns
    -------
    float

    Raises
    ------
    EstimationError
        If one is below 1.

    Examples
    --------
    >>> row = Estimate(label="cot", estimate=0.5, figures={"sd_items": 0.3, "sd_repeats": 0.4})
    >>> error_of_mean(row, items=13, repeats=4)
    0.1
    """
    if items < 1 or repeats < 1:
        raise EstimationError(f"items={items}, repeats={repeats}: at least one each is needed")
    return float(np.sqrt((row["sd_items"] ** 2 + row["sd_repeats"] ** 2 / repeats) / items))


def _rep_means(
    name: str, labels: NDArray[Any], reps: NDArray[Any], y: Floats, outcome: str
) -> tuple[float, ...]:
    where = f"arm {name!r}" if name else "the table"
    names, code = np.unique(labels.astype(str), return_inverse=True)
    numbers, turn = np.unique(reps, return_inverse=True)
    if len(np.unique(np.column_stack([code, turn]), axis=0)) < len(y):
        raise DataError(f"{where}: an item occurs twice in one repetition")
    if len(names) < 2 or len(numbers) < 2:
        raise DataError(
            f"{where} has {len(names)} item(s) in {len(numbers)} repetition(s): a variance needs two of each",
            hint="set reps to 2 or more in the study",
        )
    if len(y) < len(names) * len(numbers):
        raise DataError(f"{where}: {outcome!r} is missing for an item in some repetition")
    return tuple((np.bincount(turn, weights=y) / len(names)).tolist())


def _repeat_row(name: str, labels: NDArray[Any], y: Floats, level: float) -> Estimate:
    from scipy import stats

    _, code, count = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    often = int((count >= 2).sum())
    if often < 2:
        raise EstimationError(
            f"{often} item(s){f' of arm {name!r}' if name else ''} are repeated; at least two are needed",
            hint="run the study with repeats",
        )
    used = (count >= 2)[code]
    names, code = np.unique(labels[used].astype(str), return_inverse=True)
    y = y[used]
    single, count = int((~used).sum()), np.bincount(code)
    n, k = len(y), len(names)
    means = np.bincount(code, weights=y) / count
    spread = ranges(y, code)
    # Equal outcomes differ from their mean by rounding only.
    inside = np.where(spread[code] > 0, y - means[code], 0.0)
    within = float(inside @ inside) / (n - k)
    between = float(count @ (means - y.mean()) ** 2) / (k - 1)
    average = (n - float((count**2).sum()) / n) / (k - 1)
    items = max((between - within) / average, 0.0)
    share = bounds = None
    if items + within > 0:
        share = within / (items + within)
    if within > 0:
        ratio = between / within
        tail = (1 - level) / 2
        limits = [ratio / stats.f.ppf(q, k - 1, n - k) for q in (1 - tail, tail)]
        correlation = [min(max((f - 1) / (f + average - 1), 0.0), 1.0) for f in limits]
        bounds = (1 - correlation[1], 1 - correlation[0])
    return Estimate(
        label=name or "all trials",
        estimate=share,
        ci_low=None if bounds is None else float(bounds[0]),
        ci_high=None if bounds is None else float(bounds[1]),
        figures={
            "n_items": k,
            "n_trials": n,
            "n_single": single,
            "repeats": average,
            "mean": float(y.mean()),
            "sd_items": float(np.sqrt(items)),
            "sd_repeats": float(np.sqrt(within)),
            "n_changed": int((spread > 0).sum()),
            "largest_range": float(spread.max()),
            "worst_item": str(names[int(spread.argmax())]) if spread.max() > 0 else None,
        },
    )


def _repeat_sentence(outcome: str, rows: Sequence[Estimate], level: float) -> str:
    parts = []
    for row in rows:
        under = f"Under {row.label!r} " if row.by else ""
        changed, items, trials, single = (row[k] for k in ("n_changed", "n_items", "n_trials", "n_single"))
        if changed == 0:
            start = f"{items} items keep their {outcome!r} in {trials} trials: repeats add nothing"
        else:
            start = f"{changed} of {items} items change their {outcome!r} over repeats"
            if row.estimate is not None:
                start += f", which carry {row.estimate:.0%} of the variance of a single trial"
            if row.ci_low is not None and row.ci_high is not None:
                start += f" ({percent(level)} interval {row.ci_low:.0%} to {row.ci_high:.0%})"
            largest, worst = format_number(row["largest_range"]), row["worst_item"]
            start += f"; the largest change is {largest}, of item {worst!r}"
        if single:
            start += f"; {single} items were run once and say nothing"
        parts.append(under + start + ".")
    return " ".join(parts)
