"""How much the outcome of an item varies when it is run again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number, percent
from whyprompt.errors import EstimationError
from whyprompt.results import Reported, rows_frame
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


__all__ = ["RepeatRow", "RepeatVariance", "repeat_variance"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatRow:
    """How much outcomes vary over repeats of the same items under one arm.

    Attributes
    ----------
    arm : str
        Empty where no arm column was given.
    n_items, n_trials : int
        Items with at least two repeats, and their trials.
    n_single : int
        Items with one trial, which say nothing about repeats.
    repeats : float
        Per item; for unequal numbers the average that the variance components use.
    sd_items, sd_repeats : float
        Standard deviation of the items' expected outcomes, and of repeats around them.
    share_repeats, ci_low, ci_high : float or None
        Of the variance of a single trial, from repeats (one minus the intraclass correlation), with an F
        interval; None where nothing varies.
    n_changed : int
        Items whose outcome is not the same in all repeats.
    largest_range : float
        Between two repeats of one item.
    worst_item : str or None
        Where; None where no outcome changes.
    """

    arm: str
    n_items: int
    n_trials: int
    n_single: int
    repeats: float
    sd_items: float
    sd_repeats: float
    share_repeats: float | None
    ci_low: float | None
    ci_high: float | None
    n_changed: int
    largest_range: float
    worst_item: str | None

    def std_error(self, items: int, repeats: int) -> float:
        """Return the standard error of a mean over new items, each repeated.

        Parameters
        ----------
        items, repeats : int
            Of the design asked about.

        Returns
        -------
        float
        """
        if items < 1 or repeats < 1:
            raise EstimationError(f"items={items}, repeats={repeats}: at least one each is needed")
        return float(np.sqrt((self.sd_items**2 + self.sd_repeats**2 / repeats) / items))


@dataclass(frozen=True, kw_only=True)
class RepeatVariance(Reported):
    """Variance over repeats, an arm at a time.

    Attributes
    ----------
    outcome : str
    level : float
        Of the intervals.
    rows : tuple of RepeatRow
        One an arm.
    sentence : str
        The result in words.
    """

    outcome: str
    level: float
    rows: tuple[RepeatRow, ...]
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return the variance components.

        Returns
        -------
        pandas.DataFrame
            One row an arm.
        """
        return rows_frame(self.rows, RepeatRow)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the share of a trial's variance that comes from repeats, an arm a line.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        rows = [
            {
                "label": row.arm or "all trials",
                "estimate": row.share_repeats,
                "low": row.ci_low,
                "high": row.ci_high,
            }
            for row in self.rows
        ]
        return charts.interval_plot(rows, title=f"share of the variance of {self.outcome} from repeats")


def repeat_variance(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    item: str,
    outcome: str,
    arm: str | None = None,
    level: float = 0.95,
) -> RepeatVariance:
    """Split the variance of an outcome into items and repeats.

    Parameters
    ----------
    frame : DataFrame
        One row a trial; pandas, polars or pyarrow. It is read and never written.
    item, outcome : str
        Columns.
    arm : str, optional
        Column; arms are looked at one by one.
    level : float, default 0.95
        Of the intervals.

    Returns
    -------
    RepeatVariance

    Raises
    ------
    DataError
        If a column is absent, or the outcome is missing, infinite or text.
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
    >>> row = repeat_variance(frame, item="item", outcome="y").rows[0]
    >>> row.n_changed, round(row.sd_repeats**2, 4), round(row.sd_items**2, 4)
    (2, 0.3333, 12.0833)
    """
    if not 0 < level < 1:
        raise EstimationError(f"the level is {level}; it lies between 0 and 1, 0.95 for example")
    table = open_table(frame)
    labels = table.labels(item, role="item")
    y = table.numbers(outcome, role="outcome")
    arms = None if arm is None else table.labels(arm, role="arm")
    rows = []
    for name in [""] if arms is None else sorted(set(arms.tolist())):
        here = np.ones(len(y), dtype=bool) if arms is None else arms == name
        rows.append(_repeat_row(name, labels[here], y[here], level))
    return RepeatVariance(
        outcome=outcome, level=level, rows=tuple(rows), sentence=_repeat_sentence(outcome, rows, level)
    )


def _repeat_row(name: str, labels: NDArray[Any], y: Floats, level: float) -> RepeatRow:
    from scipy import stats

    names, code = np.unique(labels.astype(str), return_inverse=True)
    count = np.bincount(code)
    single = int((count == 1).sum())
    used = (count >= 2)[code]
    where = f" of arm {name!r}" if name else ""
    if int((count >= 2).sum()) < 2:
        raise EstimationError(
            f"{int((count >= 2).sum())} item(s){where} are repeated; at least two are needed",
            hint="run the study with repeats",
        )
    names, code = np.unique(labels[used].astype(str), return_inverse=True)
    y = y[used]
    count = np.bincount(code)
    n, k = len(y), len(names)
    means = np.bincount(code, weights=y) / count
    low, high = np.full(k, np.inf), np.full(k, -np.inf)
    np.minimum.at(low, code, y)
    np.maximum.at(high, code, y)
    spread = high - low
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
    return RepeatRow(
        arm=name,
        n_items=k,
        n_trials=n,
        n_single=single,
        repeats=average,
        sd_items=float(np.sqrt(items)),
        sd_repeats=float(np.sqrt(within)),
        share_repeats=share,
        ci_low=None if bounds is None else float(bounds[0]),
        ci_high=None if bounds is None else float(bounds[1]),
        n_changed=int((spread > 0).sum()),
        largest_range=float(spread.max()),
        worst_item=str(names[int(spread.argmax())]) if spread.max() > 0 else None,
    )


def _repeat_sentence(outcome: str, rows: Sequence[RepeatRow], level: float) -> str:
    parts = []
    for row in rows:
        under = f"Under {row.arm!r} " if row.arm else ""
        if row.n_changed == 0:
            start = (
                f"{row.n_items} items keep their {outcome!r} in {row.n_trials} trials: repeats add nothing"
            )
        else:
            start = f"{row.n_changed} of {row.n_items} items change their {outcome!r} over repeats"
            if row.share_repeats is not None:
                start += f", which carry {row.share_repeats:.0%} of the variance of a single trial"
            if row.ci_low is not None and row.ci_high is not None:
                start += f" ({percent(level)} interval {row.ci_low:.0%} to {row.ci_high:.0%})"
            start += f"; the largest change is {format_number(row.largest_range)}, of item {row.worst_item!r}"
        if row.n_single:
            start += f"; {row.n_single} items were run once and say nothing"
        parts.append(under + start + ".")
    return " ".join(parts)
