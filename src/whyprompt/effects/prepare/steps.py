"""The steps of a recipe: what a caller asks for, what is learnt from the table, and how it is applied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import format_number
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.tables import Column

    Floats = NDArray[np.float64]
    Learnt = tuple[dict[str, Any], str]

_MAX_LEVELS = 50

LEARNT = {
    "winsorise": ("low", "high"),
    "flag": ("low", "high"),
    "scale": ("centre", "scale"),
    "bin": ("cuts", "labels"),
    "code": ("levels",),
}
"""What each kind of step has in its settings once it is fitted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a recipe, made by `winsorise`, `flag_outliers`, `scale`, `bin` or `code`.

    All but the last are of a numeric column, and write to it, or to the column named as `into`.

    Attributes
    ----------
    kind : {"winsorise", "flag", "scale", "bin", "code"}
        What it does.
    column : str
        To which column.
    into : tuple of str
        Columns that it writes; those of a coded column are known once it is fitted.
    settings : mapping
        What was asked for, and once it is fitted what was learnt from the table in its place: bounds, centre
        and scale, cuts and labels, or levels, reference first.
    words : str
        The fitted step in words; empty before.
    """

    kind: str
    column: str
    into: tuple[str, ...] = ()
    settings: Mapping[str, Any]
    words: str = ""

    @classmethod
    def winsorise(
        cls,
        column: str,
        *,
        lower: float = 0.01,
        upper: float = 0.99,
        at: tuple[float, float] | None = None,
    ) -> Step:
        """Pull values beyond two bounds to the bounds.

        Parameters
        ----------
        lower, upper : float, default 0.01 and 0.99
            Quantiles of the whole table (linear interpolation, R's type 7).
        at : tuple of float, optional
            Bounds in units of the column, in place of quantiles.
        """
        asked = {"lower": lower, "upper": upper, "at": at}
        return cls(kind="winsorise", column=column, into=(column,), settings=asked)

    @classmethod
    def flag_outliers(
        cls,
        column: str,
        *,
        rule: Literal["iqr", "mad"] = "iqr",
        k: float | None = None,
        into: str | None = None,
    ) -> Step:
        """Mark outlying values in a column of their own and leave them as they are.

        Parameters
        ----------
        rule : {"iqr", "mad"}, default "iqr"
            Beyond `k` interquartile ranges from the quartiles (Tukey 1977), or beyond `k` times 1.4826 median
            absolute deviations from the median (Iglewicz and Hoaglin 1993 use 3.5).
        k : float, optional
            Default 1.5 and 3.5.
        into : str, optional
            Name of the 0/1 column; default ``<column>_outlier``.
        """
        into = into or f"{column}_outlier"
        return cls(kind="flag", column=column, into=(into,), settings={"rule": rule, "k": k})

    @classmethod
    def scale(
        cls,
        column: str,
        *,
        how: Literal["standard", "robust", "range"] = "standard",
        into: str | None = None,
    ) -> Step:
        """Centre and scale a column.

        Parameters
        ----------
        how : {"standard", "robust", "range"}, default "standard"
            Mean and standard deviation (n - 1); median and interquartile range; minimum and range.
        """
        return cls(kind="scale", column=column, into=(into or column,), settings={"how": how})

    @classmethod
    def bin(
        cls,
        column: str,
        *,
        how: Literal["quantile", "width", "cutpoints"] = "quantile",
        n_bins: int = 4,
        cutpoints: Sequence[float] | None = None,
        into: str | None = None,
    ) -> Step:
        """Cut a numeric column into labelled intervals, closed on the left, open-ended at both ends.

        Parameters
        ----------
        how : {"quantile", "width", "cutpoints"}, default "quantile"
            Equal numbers of rows, equal widths, or at `cutpoints`.
        n_bins : int, default 4
            For quantiles and widths; quantiles that coincide are merged, and the words say so.
        cutpoints : sequence of float, optional
            Increasing.
        """
        asked = {"how": how, "n_bins": n_bins, "cutpoints": () if cutpoints is None else tuple(cutpoints)}
        return cls(kind="bin", column=column, into=(into or column,), settings=asked)

    @classmethod
    def code(cls, column: str, *, reference: str | None = None) -> Step:
        """Replace a text or boolean column by 0/1 columns, one for each level but the reference.

        The reference is the first level in sorted order, unless another is named. A level that the recipe was
        not fitted on is refused by name, whatever table it turns up in.
        """
        return cls(kind="code", column=column, settings={"reference": reference})


def fit_step(step: Step, column: Column) -> Step:
    """Learn from a column what a step needs to be applied to any table; a fitted step stays as it is."""
    if step.settings.keys() >= set(LEARNT[step.kind]):
        return step
    if step.kind == "code":
        return _fit_code(step, column)
    learn, what = _LEARN[step.kind]
    if column.kind == "text":
        raise DataError(
            f"column {column.name!r} is text and cannot be {what}", hint="code it by level: Step.code"
        )
    known = np.asarray(column.data, dtype=float)[~column.missing]
    if not len(known):
        raise DataError(f"column {column.name!r} has no value at all", hint="leave it out")
    settings, words = learn(step, known, **step.settings)
    return replace(step, settings=settings, words=words)


def _winsorise(step: Step, known: Floats, lower: float, upper: float, at: Sequence[float] | None) -> Learnt:
    if at is None:
        if not 0 <= lower < upper <= 1:
            raise DataError(
                f"winsorising {step.column!r}: quantiles {lower:g} and {upper:g} are not in order"
            )
        low, high = (float(q) for q in np.quantile(known, [lower, upper]))
        source = f"its {lower:.3g} and {upper:.3g} quantiles"
    else:
        low, high = (float(v) for v in at)
        source = "given bounds"
        if not low < high:
            raise DataError(f"winsorising {step.column!r}: bounds {low:g} and {high:g} are not in order")
    words = f"{step.column!r} winsorised at {source}, {format_number(low)} and {format_number(high)}"
    return {"low": low, "high": high}, words


def _flag(step: Step, known: Floats, rule: str, k: float | None) -> Learnt:
    usual = {"iqr": 1.5, "mad": 3.5}
    if rule not in usual:
        raise DataError(f"outlier rule {rule!r} is not known", hint="iqr or mad")
    k = usual[rule] if k is None else k
    if not k > 0:
        raise DataError(f"outliers of {step.column!r}: k is {k}; it must be positive")
    if rule == "iqr":
        first, third = np.quantile(known, [0.25, 0.75])
        low, high = float(first - k * (third - first)), float(third + k * (third - first))
        shown = f"{k:g} interquartile ranges beyond the quartiles"
    else:
        middle = float(np.median(known))
        spread = 1.4826 * float(np.median(np.abs(known - middle)))
        low, high = middle - k * spread, middle + k * spread
        shown = f"{k:g} scaled median absolute deviations"
    if low == high:
        raise DataError(
            f"outliers of {step.column!r}: more than half of its values are equal, so the rule has no width",
            hint="winsorise at bounds that you give, or leave it",
        )
    outside = f"outside {format_number(low)} to {format_number(high)}"
    return {"low": low, "high": high}, f"{step.into[0]!r} marks {step.column!r} {outside} ({shown})"


def _scale(step: Step, known: Floats, how: str) -> Learnt:
    if how == "standard":
        centre, scale = float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else 0.0
    elif how == "robust":
        first, centre, third = (float(q) for q in np.quantile(known, [0.25, 0.5, 0.75]))
        scale = third - first
    elif how == "range":
        centre, scale = float(known.min()), float(np.ptp(known))
    else:
        raise DataError(f"scaling {how!r} is not known", hint="standard, robust or range")
    if not scale > 0:
        raise DataError(f"column {step.column!r} has no spread: it cannot be scaled", hint="leave it out")
    formula = f"({step.column!r} - {format_number(centre)}) / {format_number(scale)}"
    return {"centre": centre, "scale": scale}, f"{step.into[0]!r} is {formula} ({how})"


def _bin(step: Step, known: Floats, how: str, n_bins: int, cutpoints: Sequence[float]) -> Learnt:
    name, asked = f"binning {step.column!r}", n_bins
    if how == "cutpoints":
        cuts = np.asarray(cutpoints, dtype=float)
        if not len(cuts) or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
            raise DataError(f"{name}: cutpoints must be given and increase")
        asked = len(cuts) + 1
    elif how in {"quantile", "width"}:
        whole = isinstance(n_bins, int | np.integer) and not isinstance(n_bins, bool)
        if not whole or n_bins < 2:
            raise DataError(f"{name}: n_bins is {n_bins}; at least 2 are needed")
        if n_bins > len(known):
            raise DataError(f"{name}: n_bins is {n_bins}, more than its {len(known)} values")
        inner = np.arange(1, n_bins) / n_bins
        cuts = np.quantile(known, inner) if how == "quantile" else known.min() + inner * np.ptp(known)
        # A cut at the minimum would leave the first bin empty.
        cuts = np.unique(cuts[cuts > known.min()])
    else:
        raise DataError(f"binning {how!r} is not known", hint="quantile, width or cutpoints")
    if not len(cuts):
        raise DataError(
            f"{name}: most of its values are equal, so that all fall into one bin", hint="give cutpoints"
        )
    labels = _labels(cuts)
    merged = f" ({asked} asked for; equal cuts are merged)" if len(labels) < asked else ""
    words = f"{step.into[0]!r} is {step.column!r} in {len(labels)} bins by {how}{merged}, cut at "
    words += ", ".join(format_number(float(c)) for c in cuts)
    return {"cuts": cuts.tolist(), "labels": labels}, words


_LEARN: dict[str, tuple[Callable[..., Learnt], str]] = {
    "winsorise": (_winsorise, "winsorised"),
    "flag": (_flag, "searched for outliers"),
    "scale": (_scale, "scaled"),
    "bin": (_bin, "binned"),
}


def _fit_code(step: Step, column: Column) -> Step:
    if column.kind == "number":
        raise DataError(
            f"column {step.column!r} is numeric and cannot be coded by level",
            hint="bin it first, or keep it as a number",
        )
    levels = sorted({str(v) for v in _as_text(column)[~column.missing].tolist()})
    if len(levels) < 2:
        raise DataError(f"column {step.column!r} has {len(levels)} level(s): nothing to code")
    if len(levels) > _MAX_LEVELS:
        raise DataError(
            f"column {step.column!r} has {len(levels)} levels: it identifies rows rather than describes them",
            hint="leave it out, or group its levels",
        )
    asked = step.settings["reference"]
    first = levels[0] if asked is None else asked
    if first not in levels:
        raise DataError(
            f"reference level {first!r} does not occur in column {step.column!r}",
            hint=f"its levels are {', '.join(levels)}",
        )
    rest = [level for level in levels if level != first]
    return replace(
        step,
        into=tuple(f"{step.column}_{level}" for level in rest),
        settings={"levels": [first, *rest]},
        words=f"{step.column!r} coded against {first!r}, with a 0/1 column for {', '.join(map(repr, rest))}",
    )


def apply_step(step: Step, column: Column) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Give the columns that a fitted step writes, and the rows that it changed."""
    known = ~column.missing
    s = step.settings
    if step.kind == "code":
        text, levels = _as_text(column), list(s["levels"])
        unseen = sorted({str(v) for v in text[known].tolist()} - set(levels))
        if unseen:
            raise DataError(
                f"column {step.column!r} has the level {unseen[0]!r}, which the recipe was not fitted on",
                hint=f"its levels are {', '.join(levels)}; fit the recipe on all rows, or remove these on"
                " purpose",
            )
        made = {
            name: np.where(known, (text == level).astype(float), np.nan)
            for name, level in zip(step.into, levels[1:], strict=True)
        }
        return made, known
    if column.kind == "text":
        raise DataError(f"column {step.column!r} is text here; the recipe was fitted on numbers")
    x: Floats = np.asarray(column.data, dtype=float)
    into = step.into[0]
    if step.kind == "winsorise":
        moved = np.clip(x, s["low"], s["high"])
        return {into: moved}, known & (moved != x)
    if step.kind == "flag":
        out = (x < s["low"]) | (x > s["high"])
        return {into: np.where(known, out.astype(float), np.nan)}, known & out
    if step.kind == "scale":
        return {into: (x - s["centre"]) / s["scale"]}, known
    at = np.searchsorted(np.asarray(s["cuts"], dtype=float), np.where(known, x, 0.0), side="right")
    labels = np.asarray([*s["labels"]], dtype=object)[at]
    labels[~known] = None
    return {into: labels}, known


def _as_text(column: Column) -> NDArray[Any]:
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
