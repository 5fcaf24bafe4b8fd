"""How far from missing at random the truth must be to overturn a conclusion."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import format_number
from whyprompt.effects.gaps.estimate import estimate_with_imputation
from whyprompt.errors import EstimationError
from whyprompt.results import Reported, rows_frame
from whyprompt.tables import arms, open_table, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["TippingPoint", "TippingRow", "tipping_point"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TippingRow:
    """The pooled estimate at one departure from missing at random.

    Attributes
    ----------
    delta : float
        Added to imputed values: in units of the column, or to the log-odds of a two-level one.
    estimate, std_error, ci_low, ci_high : float
        Pooled.
    """

    delta: float
    estimate: float
    std_error: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class TippingPoint(Reported):
    """A delta-adjusted sensitivity analysis.

    Attributes
    ----------
    column : str
        Whose missing values are varied.
    arm : str
        In which rows: ``"treated"``, ``"control"`` or ``"both"``.
    scale : {"units", "log-odds"}
        Of `delta`.
    rows : tuple of TippingRow
        Sorted by delta; 0 is missing at random.
    n_varied : int
        Missing values that are varied.
    conclusion : str
        At delta 0: ``"positive"``, ``"negative"`` or ``"undecided"`` (the interval includes zero).
    tipping_low, tipping_high : float or None
        The nearest delta below and above 0 at which the conclusion is no longer that, by linear interpolation
        of the interval's limit; None where none in the range does it.
    sentence : str
        The analysis in words.
    """

    column: str
    arm: str
    scale: str
    rows: tuple[TippingRow, ...]
    n_varied: int
    conclusion: str
    tipping_low: float | None
    tipping_high: float | None
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates.

        Returns
        -------
        pandas.DataFrame
            One row a delta.
        """
        return rows_frame(self.rows, TippingRow)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the estimate over departures from missing at random.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        return charts.tipping_plot(self)


def tipping_point(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    column: str | None = None,
    arm: Literal["treated", "control", "both"] = "both",
    deltas: Sequence[float] | None = None,
    missing_outcome: Literal["exclude", "impute"] | None = None,
    **options: Any,  # noqa: ANN401 - those of `estimate_with_imputation`
) -> TippingPoint:
    """Shift imputed values until the conclusion changes.

    Imputation takes values as missing at random. Here every imputed value of one column is moved by delta, in
    each round of the chains, and the effect is estimated again: how large a delta overturns the conclusion,
    and is it plausible?

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome : str
        Columns.
    column : str, optional
        Whose missing values are varied. Default: the outcome, which is then imputed.
    arm : {"treated", "control", "both"}, default "both"
        Rows in which they are varied. For an outcome, one arm moves the estimate; both may cancel.
    deltas : sequence of float, optional
        Default: 17 values from -2 to 2 standard deviations of the column (-3 to 3 in log-odds for two
        levels). 0 is added where it is not among them.
    missing_outcome : {"exclude", "impute"}, optional
        As in `estimate_with_imputation`; ``"impute"`` where the outcome itself is varied.
    **options
        Of `estimate_with_imputation`: confounders, graph, m, method, estimand, treated, ...

    Returns
    -------
    TippingPoint

    Raises
    ------
    EstimationError
        If the column has no gap in these rows, or has more than two levels.
    DataError
        As for `estimate_with_imputation`.

    References
    ----------
    Van Buuren (2018). Flexible Imputation of Missing Data, 2nd edition. CRC Press, section 3.8.
    Cro et al. (2020). Sensitivity analysis for clinical trials with missing continuous outcome data using
    controlled multiple imputation. Statistics in Medicine 39.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> arm, x = rng.integers(0, 2, 200), rng.normal(size=200)
    >>> y = 0.8 * arm + x + rng.normal(size=200)
    >>> y[rng.random(200) < 0.3] = np.nan
    >>> frame = pd.DataFrame({"arm": arm, "x": x, "y": y})
    >>> got = tipping_point(
    ...     frame, treatment="arm", outcome="y", arm="treated", confounders=["x"], deltas=[-4, -2, 0, 2],
    ...     method="ipw", estimand="ate", m=3,
    ... )
    >>> got.conclusion, -4 < got.tipping_low < 0, got.tipping_high
    ('positive', True, None)
    """
    name = outcome if column is None else column
    if arm not in {"treated", "control", "both"}:
        raise EstimationError(f"arm={arm!r} is not known", hint="'treated', 'control' or 'both'")
    table = open_table(frame)
    table.require([name], role="tipping")
    read = open_table(frame).column(name, role="tipping")
    named = (options.get("treated"), options.get("control"))
    rows_used = None
    if None not in named:
        rows_used = rows_of_two_arms(table, treatment, treated=named[0], control=named[1])
    kept = table if rows_used is None else table.keep(rows_used)
    two = arms(kept, treatment, treated=named[0], control=named[1])
    # Gaps in rows of other arms are filled and stay as they are: those rows are in no estimate.
    chosen = np.ones(table.n_rows, dtype=bool) if rows_used is None else rows_used.copy()
    if arm != "both":
        chosen[chosen] = two.indicator if arm == "treated" else ~two.indicator
    varied = int((read.missing & chosen).sum())
    if not varied:
        raise EstimationError(
            f"column {name!r} has no missing value in the rows of arm={arm!r}: nothing to vary"
        )
    known = read.data[~read.missing]
    levels = set(known.tolist())
    logs = read.kind != "number" or levels <= {0.0, 1.0}
    if logs and len(levels) > 2:
        raise EstimationError(
            f"column {name!r} has {len(levels)} levels; only numbers and two levels can be shifted"
        )
    if deltas is None:
        spread = 3.0 if logs else 2 * float(known.std(ddof=1))
        grid = np.linspace(-spread, spread, 17)
    else:
        grid = _numbers(deltas)
        most = 1e6 if logs else 1e6 * max(float(np.abs(known).max()), 1.0)
        if np.abs(grid).max() > most:
            raise EstimationError(
                f"a delta of {np.abs(grid).max():g} is beyond a million times the values of {name!r}"
            )
    grid = np.unique(np.append(grid, 0.0))
    how = "impute" if name == outcome else missing_outcome
    if how is not None:
        options["missing_outcome"] = how
    rows = tuple(
        _row(frame, treatment, outcome, name, float(delta), chosen, options) for delta in grid.tolist()
    )
    at = int(np.flatnonzero(grid == 0)[0])
    conclusion = _verdict(rows[at])
    low = _crossing(rows[at::-1], conclusion)
    high = _crossing(rows[at:], conclusion)
    scale = "log-odds" if logs else "units"
    return TippingPoint(
        column=name,
        arm=arm,
        scale=scale,
        rows=rows,
        n_varied=varied,
        conclusion=conclusion,
        tipping_low=low,
        tipping_high=high,
        sentence=_sentence(
            name, arm, two.treated, two.control, scale, rows, rows[at], varied, conclusion, low, high
        ),
    )


def _numbers(deltas: object) -> NDArray[np.float64]:
    try:
        grid = np.ravel(np.array([] if isinstance(deltas, str) else deltas, dtype=np.float64))
    except (TypeError, ValueError):
        grid = np.empty(0)
    if not len(grid) or not np.isfinite(grid).all():
        raise EstimationError(f"deltas={deltas!r}: a list of finite numbers is needed", hint="[-1, 0, 1]")
    return np.asarray(grid, dtype=np.float64)


def _row(
    frame: Any,  # noqa: ANN401 - any frame library's type
    treatment: str,
    outcome: str,
    name: str,
    delta: float,
    chosen: NDArray[np.bool_],
    options: dict[str, Any],
) -> TippingRow:
    got = estimate_with_imputation(
        frame, treatment=treatment, outcome=outcome, shift={name: delta * chosen.astype(float)}, **options
    )
    return TippingRow(
        delta=delta, estimate=got.estimate, std_error=got.std_error, ci_low=got.ci_low, ci_high=got.ci_high
    )


def _verdict(row: TippingRow) -> str:
    return "positive" if row.ci_low > 0 else "negative" if row.ci_high < 0 else "undecided"


def _crossing(rows: Sequence[TippingRow], conclusion: str) -> float | None:
    """First delta, going outwards, at which the verdict changes."""
    for before, after in pairwise(rows):
        if _verdict(after) == conclusion:
            continue
        # A decided verdict changes when its nearer limit passes zero, an undecided one when either does.
        limits = {"positive": ("ci_low",), "negative": ("ci_high",)}.get(conclusion, ("ci_low", "ci_high"))
        for limit in limits:
            a, b = getattr(before, limit), getattr(after, limit)
            if (a > 0) != (b > 0):
                return float(before.delta + (after.delta - before.delta) * a / (a - b))
    return None


def _sentence(
    name: str,
    arm: str,
    treated: str,
    control: str,
    scale: str,
    rows: Sequence[TippingRow],
    at_zero: TippingRow,
    varied: int,
    conclusion: str,
    low: float | None,
    high: float | None,
) -> str:
    where = {"treated": f"under {treated!r}", "control": f"under {control!r}", "both": "in both arms"}[arm]
    unit = " in log-odds" if scale == "log-odds" else ""
    base = {
        "positive": "a positive difference",
        "negative": "a negative difference",
        "undecided": "no decision on the sign",
    }[conclusion]
    words = (
        f"With the {varied} missing values of {name!r} {where} missing at random, the estimate is"
        f" {format_number(at_zero.estimate)} ({format_number(at_zero.ci_low)} to"
        f" {format_number(at_zero.ci_high)}): {base}."
    )
    turns = [
        f"{format_number(abs(value))}{unit} {side} than those of like rows"
        for value, side in ((low, "lower"), (high, "higher"))
        if value is not None
    ]
    if turns:
        return f"{words} That changes once they are {' or '.join(turns)}; is so much plausible?"
    return words + (
        f" No shift from {format_number(rows[0].delta)} to {format_number(rows[-1].delta)}{unit} changes"
        " that."
    )
