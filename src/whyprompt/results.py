"""What every analysis gives back: a sentence, an estimate, its parts, and the checks made of them.

An `Estimate` is one number with its interval. A `Result` holds the overall estimate, its parts (subgroups,
pairs of arms, outcomes, thresholds), what was assumed and what to know before quoting it; a `Check` is a
result with a verdict. Printing, tables, JSON and charts are written here once.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from whyprompt._display import Cells, Shown, frame_cells, told_repr
from whyprompt._summary import assumption_lines, figures, parts_cells, parts_table
from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.stats.rules import holm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd

Status = Literal["holds", "fails", "doubtful", "untestable", "not checked"]
Verdict = Literal["passes", "fails", "doubtful", "untestable", "not checked"]
Figure = float | str | tuple["Figure", ...] | Mapping[str, "Figure"] | None
"""A further number of a row or a result, or a word of it."""

# Always told of an estimate; the rest where there is something to tell.
_TOLD = ("label", "estimate", "std_error", "ci_low", "ci_high", "p_value")

# Charts by the names that the field has for them.
_ALSO_CALLED = {"love": "balance", "forest": "effect", "propensity": "overlap", "support": "overlap"}


def unlisted(default: Any = None) -> Any:  # noqa: ANN401 - a dataclass field of any type
    """Make a field that is no part of tables and JSON: an array of one number a row, a table, a model."""
    return field(default=default, repr=False, compare=False, metadata={"listed": False})


def plain(value: Any) -> Any:  # noqa: ANN401 - any field of any result
    """Turn any value of a result into what JSON can hold; a number that is not finite becomes None."""
    if isinstance(value, Result | Estimate):
        return value.to_dict()
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if _listed(f)}
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _listed(f: Any) -> bool:  # noqa: ANN401 - a dataclass field
    return bool(f.metadata.get("listed", True))


def _figure(figures: Mapping[str, Figure], name: str) -> Any:  # noqa: ANN401 - what its documentation says
    if name not in figures:
        known = ", ".join(map(repr, figures))
        raise KeyError(f"no figure {name!r}; there is {known or 'none'}")
    return figures[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One number with its interval: an overall effect, or the effect in one part.

    Attributes
    ----------
    label : str
        What it is of: ``"overall"``, a level of `by`, a pair of arms, an outcome.
    estimate : float or None
        In units of the outcome unless the result says otherwise. None where it could not be had.
    std_error, ci_low, ci_high, p_value : float or None
        Two-sided p; None where the sample cannot show them.
    df : float or None
        Degrees of freedom of the interval; None for the normal distribution or a bootstrap.
    p_adjusted : float or None
        For the number of parts looked at, by the rule that the result names.
    simultaneous_low, simultaneous_high : float or None
        Interval that holds for all parts at once.
    n_treated, n_control : int or None
        Rows of each arm in the table.
    n_treated_used, n_control_used : int or None
        Rows of each arm with a weight in the estimate.
    n_used : int or None
        Items, pairs or rows that the estimate is of.
    mean_treated, mean_control : float or None
        (Weighted) means of the two arms, whose difference the estimate is.
    largest_smd : float or None
        Largest absolute standardised mean difference of the arms after adjustment.
    by : str
        Column whose level the part is.
    note : str
        Why there is no estimate, or what to know about it.
    at : float or None
        Where it is on a curve: a dose, a share of the rows, a predicted effect.
    figures : mapping of str to Figure
        What else belongs to the row, by the names that its maker documents: ``row["rmse"]`` reads one, tables
        and JSON have each as a column of its own.
    """

    label: str
    estimate: float | None
    std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    df: float | None = None
    p_adjusted: float | None = None
    simultaneous_low: float | None = None
    simultaneous_high: float | None = None
    n_treated: int | None = None
    n_control: int | None = None
    n_treated_used: int | None = None
    n_control_used: int | None = None
    n_used: int | None = None
    mean_treated: float | None = None
    mean_control: float | None = None
    largest_smd: float | None = None
    by: str = ""
    note: str = ""
    at: float | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False)

    __repr__ = told_repr

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a figure
        return _figure(self.figures, name)

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of the estimate as values that JSON can hold."""
        return {k: v for k, v in _cells(self).items() if k in _TOLD or v not in (None, "")}

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval; infinite where one is not bounded, or not known."""
        low, high = self.ci_low, self.ci_high
        return (-math.inf if low is None else low), (math.inf if high is None else high)

    @property
    def words(self) -> str:
        """The estimate as a line of text."""
        if self.estimate is None and self.figures and self.note:
            return f"{self.label}: {self.note}"
        if self.estimate is None:
            return f"{self.label}: no estimate" + (f" ({self.note})" if self.note else "")
        inside = [] if self.n_used is None else [f"n = {self.n_used}"]
        if math.isfinite(self.ends[1] - self.ends[0]):
            inside.insert(0, f"{format_number(self.ci_low)} to {format_number(self.ci_high)}")
        p = self.p_value if self.p_adjusted is None else self.p_adjusted
        if p is not None:
            inside.append(f"{'' if self.p_adjusted is None else 'adjusted '}p {p_words(p)}")
        return f"{self.label}: {format_number(self.estimate)}" + (f" ({', '.join(inside)})" if inside else "")


def _cells(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass instance
    """Give every field of a row, and each of its further figures, as values that JSON can hold."""
    cells = {f.name: plain(getattr(row, f.name)) for f in fields(row)}
    further = cells.pop("figures", {})
    return {**cells, **further}


_Row = TypeVar("_Row", bound=Estimate)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumption:
    """One thing that must be true for the estimate to be an effect.

    Attributes
    ----------
    name : str
        Such as ``"exchangeability"`` or ``"overlap"``.
    status : {"holds", "fails", "doubtful", "untestable", "not checked"}
        The verdict of the check. ``"untestable"`` where no data of this design could decide.
    check : str
        What was looked at.
    detail : str
        What was found.
    """

    name: str
    status: Status
    check: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceRow:
    """The balance of one covariate before and after adjustment; what does not apply is None.

    Attributes
    ----------
    covariate : str
        Column, or ``column_level`` for one level of a text column.
    binary : bool
        Whether the covariate takes two values; a variance ratio is then not informative and is None.
    smd_before, smd_after : float or None
        Standardised mean difference, treated minus control; of many arms the largest of any two, without its
        sign. None where the denominator is zero.
    variance_ratio_before, variance_ratio_after : float or None
        Variance of the treated over that of the control.
    ks_before, ks_after : float or None
        Largest distance between the two (weighted) distribution functions.
    worst_pair : tuple of str
        Of many arms the two that differ most after adjustment.
    correlation_before, correlation_after : float or None
        With a dose.
    """

    covariate: str
    binary: bool = False
    smd_before: float | None = None
    smd_after: float | None = None
    variance_ratio_before: float | None = None
    variance_ratio_after: float | None = None
    ks_before: float | None = None
    ks_after: float | None = None
    worst_pair: tuple[str, ...] = ()
    correlation_before: float | None = None
    correlation_after: float | None = None

    __repr__ = told_repr


@dataclass(frozen=True, kw_only=True)
class Result(Shown):
    """What an analysis gives back; its kinds add what is their own.

    Attributes
    ----------
    sentence : str
        The result in words, with what may not be claimed.
    overall : Estimate or None
        None where there are only parts.
    parts : tuple of Estimate
        Subgroups, pairs of arms, outcomes, thresholds, left-out columns.
    level : float
        Of the intervals.
    assumptions : tuple of Assumption
        Each with the check made of it.
    warnings : tuple of str
        What a reader must know before quoting the number.
    axis : str
        What the estimates are, with their unit, as an axis of a chart says it.
    figures : mapping of str to Figure
        What else belongs to it, by the names that its maker documents: ``found["draws"]`` reads one, and
        `to_dict` has each under its own name.
    pictures : mapping of str to callable
        Its charts, where it has others than every result has; `plot` draws them.
    """

    sentence: str
    overall: Estimate | None = None
    parts: tuple[Estimate, ...] = ()
    level: float = 0.95
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()
    axis: str = "estimate (units of the outcome)"
    figures: Mapping[str, Figure] = field(default_factory=dict)
    pictures: Mapping[str, Callable[[], Any]] = field(
        default_factory=dict, repr=False, compare=False, metadata={"listed": False}
    )

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a figure
        return _figure(self.figures, name)

    @property
    def estimate(self) -> float:
        """The overall estimate; NaN where there is none."""
        value = None if self.overall is None else self.overall.estimate
        return math.nan if value is None else value

    @property
    def std_error(self) -> float | None:
        """Its standard error."""
        return None if self.overall is None else self.overall.std_error

    @property
    def ci_low(self) -> float | None:
        """Lower end of its interval."""
        return None if self.overall is None else self.overall.ci_low

    @property
    def ci_high(self) -> float | None:
        """Upper end of its interval."""
        return None if self.overall is None else self.overall.ci_high

    @property
    def p_value(self) -> float | None:
        """Two-sided p of no overall effect."""
        return None if self.overall is None else self.overall.p_value

    @property
    def df(self) -> float | None:
        """Degrees of freedom of the overall interval."""
        return None if self.overall is None else self.overall.df

    def part(self, label: object, *, by: str | None = None) -> Estimate:
        """Return one part, or the overall estimate by its label.

        Parameters
        ----------
        label : object
            Its label, as text or as the level itself.
        by : str, optional
            Its column, where parts of several columns have one label.

        Returns
        -------
        Estimate

        Raises
        ------
        KeyError
            If there is no such part.
        """
        every = self.parts if self.overall is None else (*self.parts, self.overall)
        for part in every:
            if part.label == str(label) and by in {None, part.by}:
                return part
        raise KeyError(f"no part {str(label)!r}; there is {', '.join(repr(p.label) for p in self.parts)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
            The overall estimate's figures beside the fields, and the parts as a list of such. A number that
            is not finite becomes None.
        """
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "overall":
                shown = {} if value is None else value.to_dict()
                out |= {k: v for k, v in shown.items() if k != "label"}
            elif f.name == "figures":
                out |= plain(value)
            elif _listed(f):
                out[f.name] = plain(value)
        return out

    def to_frame(self) -> pd.DataFrame:
        """Return the overall estimate and the parts as a table.

        Returns
        -------
        pandas.DataFrame
            One row each, the overall one first; a column for every field that a row has something in.
        """
        return rows_frame(self._every())

    def conf_int(self) -> pd.DataFrame:
        """Return the intervals, at the level of the result.

        Returns
        -------
        pandas.DataFrame
            Columns ``low`` and ``high``; a row for the overall estimate and for each part, by its label, and
            by the column whose level it is where there is one (``"task=sum"``). An end that is not bounded is
            infinite; one that is not known is NaN.

        Raises
        ------
        EstimationError
            If nothing in it has an interval.

        Examples
        --------
        >>> whole = Estimate(label="overall", estimate=0.2, ci_low=0.1, ci_high=0.3)
        >>> Result(sentence="Said.", overall=whole).conf_int()
                 low  high
        overall  0.1   0.3
        """
        import pandas as pd

        rows = self._every()
        if all(row.ci_low is None and row.ci_high is None for row in rows):
            from whyprompt.errors import EstimationError

            raise EstimationError(f"this {type(self).__name__} has no interval", hint="see .to_frame()")
        names = [f"{row.by}={row.label}" if row.by else row.label for row in rows]
        ends = {"low": [row.ci_low for row in rows], "high": [row.ci_high for row in rows]}
        return pd.DataFrame(ends, index=names, dtype=float)

    def _every(self) -> list[Estimate]:
        return ([] if self.overall is None else [self.overall]) + list(self.parts)

    def plot(self, kind: str | None = None) -> Any:  # noqa: ANN401 - a chart
        """Draw the result.

        Parameters
        ----------
        kind : str, optional
            One of its charts, also by a name that the field has for it (``"love"`` for ``"balance"``,
            ``"forest"`` for ``"effect"``); the first by default.

        Returns
        -------
        altair.Chart
            A notebook shows it; ``.save("x.html")`` or ``.save("x.svg")`` writes it, by the file's ending.

        Raises
        ------
        EstimationError
            If it has no such chart, or nothing to draw in it.
        """
        charts = self.pictures or self._charts()
        name = next(iter(charts)) if kind is None else kind
        name = name if name in charts else _ALSO_CALLED.get(name, name)
        if name not in charts:
            from whyprompt.errors import EstimationError

            known = {one: [k for k, own in _ALSO_CALLED.items() if own == one] for one in charts}
            near = difflib.get_close_matches(name, [*charts, *chain(*known.values())], n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            told = [f"{one} (or {', '.join(more)})" if more else one for one, more in known.items()]
            raise EstimationError(
                f"plot kind {kind!r} is not known{guess}", hint=f"one of: {', '.join(told)}"
            )
        return charts[name]()

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        """Name the charts that there are, the first by default, each as what draws it."""
        from whyprompt.charts import forest_plot

        title = None if self.axis == Result.axis else self.axis
        return {"effect": lambda: forest_plot(self, title=title)}

    def summary(self, *, brief: bool = False, words: Callable[[str], str] = str) -> str:
        """Return the result as text: sentence, figures, parts, balance, assumptions and warnings.

        Parameters
        ----------
        brief : bool, default False
            Leave out assumptions and warnings.
        words : callable, default `str`
            Puts assumptions and warnings into the words of where they are read.

        Returns
        -------
        str
        """
        blocks = [*self._first(), *self._blocks()]
        if brief:
            return "\n\n".join(blocks)
        if self.assumptions:
            blocks.append(f"Assumptions:\n{assumption_lines(self.assumptions, words)}")
        # What the sentence says already is not said twice.
        if more := [text for text in self.warnings if text not in self.sentence]:
            blocks.append("\n".join(["Warnings:", *(f"  {words(text)}" for text in more)]))
        return "\n\n".join(blocks)

    def _first(self) -> list[str]:
        """Give what stands first: the sentence."""
        return [self.sentence]

    def _said(self) -> str:
        return "\n\n".join(self._first())

    def _blocks(self) -> list[str]:
        """Give what stands between the sentence and the assumptions, a block of text each."""
        out = [] if self.overall is None else [figures(self.overall, level=self.level)]
        return out + ([f"Parts:\n{parts_table(self.parts)}"] if self.parts else [])

    def _brief(self) -> str:
        counts = [counted(len(self.parts), "part")] if self.parts else []
        counts += [counted(len(self.warnings), "warning")] if self.warnings else []
        said = self.sentence if self.overall is None else self.overall.words
        return "; ".join([said, *counts])

    def _cells(self) -> Cells:
        if type(self).to_frame is not Result.to_frame:
            return frame_cells(self.to_frame())
        titles, rows = parts_cells(self._every())
        return [f"{percent(self.level)} interval" if t == "interval" else t for t in titles], rows

    def _remarks(self) -> tuple[str, ...]:
        return self.warnings


@dataclass(frozen=True, kw_only=True)
class Check(Result):
    """A result with a verdict on another one.

    `overall` is what was checked, `parts` what was looked at, a line each.

    Attributes
    ----------
    name : str
        Such as ``"placebo treatment"``.
    verdict : {"passes", "fails", "doubtful", "untestable", "not checked"}
        ``"untestable"`` where no data of this design could decide, as of hidden confounding.
    draws : tuple of float
        Estimates of the repetitions, where there are any.
    n_failed : int
        Repetitions that could not be estimated.
    settings : mapping
        How it was made; `drawn` says of what there is a draw each.
    """

    name: str
    verdict: Verdict
    draws: tuple[float, ...] = ()
    n_failed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import draws_plot, interval_plot

        if not self.draws:
            shown = ([] if self.overall is None else [self.overall]) + list(self.parts)
            return {"parts": lambda: interval_plot([_line(row) for row in shown], title=self.axis)}
        marks = {} if self.overall is None else {self.overall.label: self.estimate}
        drawn = str(self.settings.get("drawn", "draws"))
        return {"draws": lambda: draws_plot(self.draws, marks=marks, title=self.axis, what=drawn)}


@dataclass(frozen=True, kw_only=True)
class Checks(Result):
    """Several checks of one estimate.

    Attributes
    ----------
    checks : mapping of str to Check
        By name.
    not_done : tuple of str
        What does not apply or could not be done, with the reason.
    """

    checks: Mapping[str, Check]
    not_done: tuple[str, ...] = ()

    def summary(self, *, brief: bool = False, words: Callable[[str], str] = str) -> str:
        """Return the checks as text, a line each: the verdict and the check's own sentence."""
        # The sentence of several checks is theirs, one behind the other: said once.
        text = super().summary(brief=brief, words=words)
        return text.removeprefix(self.sentence).strip() if self.checks else text

    def _blocks(self) -> list[str]:
        lines = [f"  {name} ({found.verdict}): {found.sentence}" for name, found in self.checks.items()]
        return ["\n".join([*lines, *(f"  not done: {text}" for text in self.not_done)])]

    def to_frame(self) -> pd.DataFrame:
        """Return the verdicts.

        Returns
        -------
        pandas.DataFrame
            One row a check: ``check``, ``verdict``, ``sentence``.
        """
        import pandas as pd

        rows = [(name, found.verdict, found.sentence) for name, found in self.checks.items()]
        return pd.DataFrame(rows, columns=["check", "verdict", "sentence"])

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import interval_plot

        title = f"{self.axis}; lines: middle 95% of draws, or interval"
        return {"checks": lambda: interval_plot(self._lines(), title=title)}

    def _lines(self) -> list[dict[str, Any]]:
        """One line a check that has draws, one a part of the others that are in the same unit."""
        import numpy as np

        rows = [] if self.overall is None else [{"label": "estimate", "estimate": self.estimate}]
        for check in self.checks.values():
            if check.draws:
                low, middle, high = np.quantile(check.draws, [0.025, 0.5, 0.975]).tolist()
                label = check.settings.get("drawn", check.name)
                rows.append({"label": label, "estimate": middle, "low": low, "high": high})
            elif check.axis == self.axis:
                rows += [_line(part) for part in check.parts]
        return [{"low": None, "high": None, **row} for row in rows]


class AroundResult(Shown):
    """What a class has that holds a result and more: it shows and draws itself as that result does."""

    __slots__ = ()

    def _held(self) -> Result:
        raise NotImplementedError

    def conf_int(self) -> pd.DataFrame:
        """Return the intervals of the main result, as its own `conf_int` does."""
        return self._held().conf_int()

    def plot(self, kind: str | None = None) -> Any:  # noqa: ANN401 - a chart
        """Draw the main result, as its own `plot` does."""
        return self._held().plot(kind)

    def _brief(self) -> str:
        return self._held()._brief()  # noqa: SLF001 - what holds it shows it

    def _cells(self) -> Cells:
        return self._held()._cells()  # noqa: SLF001 - what holds it shows it

    def _remarks(self) -> Sequence[str]:
        return self._held().warnings


def _line(row: Estimate) -> dict[str, Any]:
    return {"label": row.label, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}


def with_holm(rows: Sequence[_Row]) -> tuple[_Row, ...]:
    """Adjust the p-values of estimates for their number by Holm's rule; those without a p do not count."""
    adjusted = holm([row.p_value for row in rows])
    return tuple(replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True))


def rows_frame(rows: Sequence[Any], kind: type | None = None) -> pd.DataFrame:
    """Turn dataclass instances into a table, one a row.

    Columns are the fields of `kind`, also where there are no rows; by default those of the rows, without
    what no row has anything in.
    """
    import pandas as pd

    if kind is not None:
        columns = [f.name for f in fields(kind)]
        return pd.DataFrame(
            [{name: plain(getattr(row, name)) for name in columns} for row in rows], columns=columns
        )
    cells = [_cells(row) for row in rows]
    names: Iterable[str] = dict.fromkeys(name for row in cells for name in row)
    table = {name: [row.get(name) for row in cells] for name in names}
    shown = {k: v for k, v in table.items() if k in _TOLD or any(x not in (None, "") for x in v)}
    return pd.DataFrame(shown)
