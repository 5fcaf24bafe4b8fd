"""The steps of a recipe: what a caller asks for, and what is learnt from the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import format_number
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.tables import Column

    Floats = NDArray[np.float64]

__all__ = ["Bin", "Code", "FittedStep", "FlagOutliers", "Scale", "Step", "Winsorise", "as_text"]

_MAX_LEVELS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedStep:
    """One step with everything that it needs to be applied to any table.

    Attributes
    ----------
    kind : {"winsorise", "flag", "scale", "bin", "code"}
        What it does.
    column : str
        To which column.
    into : tuple of str
        Columns that it writes.
    settings : mapping
        Bounds, centre and scale, edges and labels, or levels, reference first: what was learnt from the
        table.
    words : str
        The step in words.
    """

    kind: str
    column: str
    into: tuple[str, ...]
    settings: Mapping[str, Any]
    words: str


@dataclass(frozen=True, slots=True)
class Winsorise:
    """Pull values beyond two bounds to the bounds.

    Parameters
    ----------
    column : str
        Numeric.
    lower, upper : float, default 0.01 and 0.99
        Quantiles of the whole table (linear interpolation, R's type 7).
    at : tuple of float, optional
        Bounds in units of the column, in place of quantiles.
    """

    column: str
    lower: float = field(default=0.01, kw_only=True)
    upper: float = field(default=0.99, kw_only=True)
    at: tuple[float, float] | None = field(default=None, kw_only=True)

    def fit(self, column: Column) -> FittedStep:
        """Learn the bounds from a column."""
        known = _numbers(column, "winsorised")
        if self.at is None:
            if not 0 <= self.lower < self.upper <= 1:
                raise DataError(
                    f"winsorising {self.column!r}: quantiles {self.lower:g} and {self.upper:g} are not in"
                    " order"
                )
            low, high = (float(q) for q in np.quantile(known, [self.lower, self.upper]))
            source = f"its {self.lower:.3g} and {self.upper:.3g} quantiles"
        else:
            low, high = (float(v) for v in self.at)
            source = "given bounds"
            if not low < high:
                raise DataError(f"winsorising {self.column!r}: bounds {low:g} and {high:g} are not in order")
        return FittedStep(
            kind="winsorise",
            column=self.column,
            into=(self.column,),
            settings={"low": low, "high": high},
            words=f"{self.column!r} winsorised at {source}, {format_number(low)} and {format_number(high)}",
        )


@dataclass(frozen=True, slots=True)
class FlagOutliers:
    """Mark outlying values in a column of their own and leave them as they are.

    Parameters
    ----------
    column : str
        Numeric.
    rule : {"iqr", "mad"}, default "iqr"
        Beyond `k` interquartile ranges from the quartiles (Tukey 1977), or beyond `k` times 1.4826 median
        absolute deviations from the median (Iglewicz and Hoaglin 1993 use 3.5).
    k : float, optional
        Default 1.5 and 3.5.
    into : str, optional
        Name of the 0/1 column; default ``<column>_outlier``.
    """

    column: str
    rule: Literal["iqr", "mad"] = field(default="iqr", kw_only=True)
    k: float | None = field(default=None, kw_only=True)
    into: str | None = field(default=None, kw_only=True)

    def fit(self, column: Column) -> FittedStep:
        """Learn the bounds from a column."""
        known = _numbers(column, "searched for outliers")
        if self.rule not in {"iqr", "mad"}:
            raise DataError(f"outlier rule {self.rule!r} is not known", hint="iqr or mad")
        k = self.k if self.k is not None else {"iqr": 1.5, "mad": 3.5}[self.rule]
        if not k > 0:
            raise DataError(f"outliers of {self.column!r}: k is {k}; it must be positive")
        if self.rule == "iqr":
            first, third = np.quantile(known, [0.25, 0.75])
            low, high = float(first - k * (third - first)), float(third + k * (third - first))
            rule = f"{k:g} interquartile ranges beyond the quartiles"
        else:
            middle = float(np.median(known))
            spread = 1.4826 * float(np.median(np.abs(known - middle)))
            low, high = middle - k * spread, middle + k * spread
            rule = f"{k:g} scaled median absolute deviations"
        if low == high:
            raise DataError(
                f"outliers of {self.column!r}: more than half of its values are equal, so the rule has no"
                " width",
                hint="winsorise at bounds that you give, or leave it",
            )
        into = self.into or f"{self.column}_outlier"
        return FittedStep(
            kind="flag",
            column=self.column,
            into=(into,),
            settings={"low": low, "high": high},
            words=f"{into!r} marks {self.column!r} outside {format_number(low)} to {format_number(high)}"
            f" ({rule})",
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """Centre and scale a column.

    Parameters
    ----------
    column : str
        Numeric.
    how : {"standard", "robust", "range"}, default "standard"
        Mean and standard deviation (n - 1); median and interquartile range; minimum and range.
    into : str, optional
        Default: in place.
    """

    column: str
    how: Literal["standard", "robust", "range"] = field(default="standard", kw_only=True)
    into: str | None = field(default=None, kw_only=True)

    def fit(self, column: Column) -> FittedStep:
        """Learn centre and scale from a column."""
        known = _numbers(column, "scaled")
        if self.how == "standard":
            centre, scale = float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else 0.0
        elif self.how == "robust":
            first, middle, third = (float(q) for q in np.quantile(known, [0.25, 0.5, 0.75]))
            centre, scale = middle, third - first
        elif self.how == "range":
            centre, scale = float(known.min()), float(np.ptp(known))
        else:
            raise DataError(f"scaling {self.how!r} is not known", hint="standard, robust or range")
        if not scale > 0:
            raise DataError(f"column {self.column!r} has no spread: it cannot be scaled", hint="leave it out")
        into = self.into or self.column
        return FittedStep(
            kind="scale",
            column=self.column,
            into=(into,),
            settings={"centre": centre, "scale": scale},
            words=f"{into!r} is ({self.column!r} - {format_number(centre)}) / {format_number(scale)}"
            f" ({self.how})",
        )


@dataclass(frozen=True, slots=True)
class Bin:
    """Cut a numeric column into labelled intervals, closed on the left, open-ended at both ends.

    Parameters
    ----------
    column : str
        Numeric.
    how : {"quantile", "width", "cutpoints"}, default "quantile"
        Equal numbers of rows, equal widths, or at `cutpoints`.
    n_bins : int, default 4
        For quantiles and widths; quantiles that coincide are merged, and the words say so.
    cutpoints : sequence of float, optional
        Increasing.
    into : str, optional
        Default: in place.
    """

    column: str
    how: Literal["quantile", "width", "cutpoints"] = field(default="quantile", kw_only=True)
    n_bins: int = field(default=4, kw_only=True)
    cutpoints: Sequence[float] | None = field(default=None, kw_only=True)
    into: str | None = field(default=None, kw_only=True)

    def fit(self, column: Column) -> FittedStep:
        """Learn the edges from a column."""
        known = _numbers(column, "binned")
        asked = self.n_bins
        if self.how == "cutpoints":
            cuts = np.asarray(() if self.cutpoints is None else self.cutpoints, dtype=float)
            if not len(cuts) or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
                raise DataError(f"binning {self.column!r}: cutpoints must be given and increase")
            asked = len(cuts) + 1
        elif self.how in {"quantile", "width"}:
            whole = isinstance(self.n_bins, int | np.integer) and not isinstance(self.n_bins, bool)
            if not whole or self.n_bins < 2:
                raise DataError(f"binning {self.column!r}: n_bins is {self.n_bins}; at least 2 are needed")
            if self.n_bins > len(known):
                raise DataError(
                    f"binning {self.column!r}: n_bins is {self.n_bins}, more than its {len(known)} values"
                )
            inner = np.arange(1, self.n_bins) / self.n_bins
            cuts = (
                np.quantile(known, inner) if self.how == "quantile" else known.min() + inner * np.ptp(known)
            )
            # A cut at the minimum would leave the first bin empty.
            cuts = np.unique(cuts[cuts > known.min()])
        else:
            raise DataError(f"binning {self.how!r} is not known", hint="quantile, width or cutpoints")
        if not len(cuts):
            raise DataError(
                f"binning {self.column!r}: most of its values are equal, so that all fall into one bin",
                hint="give cutpoints",
            )
        labels = _labels(cuts)
        into = self.into or self.column
        merged = f" ({asked} asked for; equal cuts are merged)" if len(labels) < asked else ""
        return FittedStep(
            kind="bin",
            column=self.column,
            into=(into,),
            settings={"cuts": [float(c) for c in cuts], "labels": labels},
            words=f"{into!r} is {self.column!r} in {len(labels)} bins by {self.how}{merged}, cut at "
            + ", ".join(format_number(float(c)) for c in cuts),
        )


@dataclass(frozen=True, slots=True)
class Code:
    """Replace a text column by 0/1 columns, one for each level but the reference.

    A level that the recipe was not fitted on is refused by name, whatever table it turns up in.

    Parameters
    ----------
    column : str
        Text or boolean.
    reference : str, optional
        Default: the first level in sorted order.
    """

    column: str
    reference: str | None = field(default=None, kw_only=True)

    def fit(self, column: Column) -> FittedStep:
        """Learn the levels from a column."""
        if column.kind == "number":
            raise DataError(
                f"column {self.column!r} is numeric and cannot be coded by level",
                hint="bin it first, or keep it as a number",
            )
        text = as_text(column)
        levels = sorted({str(v) for v in text[~column.missing].tolist()})
        if len(levels) < 2:
            raise DataError(f"column {self.column!r} has {len(levels)} level(s): nothing to code")
        if len(levels) > _MAX_LEVELS:
            raise DataError(
                f"column {self.column!r} has {len(levels)} levels: it identifies rows rather than describes"
                " them",
                hint="leave it out, or group its levels",
            )
        first = levels[0] if self.reference is None else self.reference
        if first not in levels:
            raise DataError(
                f"reference level {first!r} does not occur in column {self.column!r}",
                hint=f"its levels are {', '.join(levels)}",
            )
        order = [first, *(level for level in levels if level != first)]
        return FittedStep(
            kind="code",
            column=self.column,
            into=tuple(f"{self.column}_{level}" for level in order[1:]),
            settings={"levels": order},
            words=f"{self.column!r} coded against {first!r}, with a 0/1 column for"
            f" {', '.join(map(repr, order[1:]))}",
        )


Step = Winsorise | FlagOutliers | Scale | Bin | Code


def _numbers(column: Column, what: str) -> Floats:
    if column.kind == "text":
        raise DataError(f"column {column.name!r} is text and cannot be {what}", hint="code it by level: Code")
    known = np.asarray(column.data, dtype=float)[~column.missing]
    if not len(known):
        raise DataError(f"column {column.name!r} has no value at all", hint="leave it out")
    return known


def as_text(column: Column) -> NDArray[Any]:
    """Give a column's values as text."""
    if column.kind == "text":
        return column.data
    names = {0.0: "False", 1.0: "True"}
    return np.asarray([names.get(v) for v in column.data.tolist()], dtype=object)


def _labels(cuts: Floats) -> list[str]:
    digits = 6
    shown = [f"{c:.{digits}g}" for c in cuts]
    while len(set(shown)) < len(shown):
        digits += 2
        shown = [f"{c:.{digits}g}" for c in cuts]
    pad = len(str(len(cuts) + 1))
    inner = [f"{low} to {high}" for low, high in pairwise(shown)]
    words = [f"below {shown[0]}", *inner, f"{shown[-1]} or more"]
    # The number keeps text order and size order the same.
    return [f"{k:0{pad}d}: {word}" for k, word in enumerate(words, start=1)]
