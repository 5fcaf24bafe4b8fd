"""How far two ways of judging the same trials agree: a model against labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from whyprompt._arguments import confidence
from whyprompt._words import counted, format_number, percent
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Estimate, Result
from whyprompt.tables import level_name, open_table

# More kinds of judgement than so many are numbers, whose agreement is no matter of kinds.
_MOST_KINDS = 20


def agreement(
    frame: Any,  # noqa: ANN401 - any frame library's type
    one: str,
    other: str,
    *,
    cluster: str | None = None,
    level: float = 0.95,
) -> Result:
    """Hold two columns of judgements against each other: how often they agree, and Cohen's kappa.

    Parameters
    ----------
    frame : DataFrame
        One row a trial; pandas, polars or pyarrow. It is read and never written.
    one, other : str
        Columns, such as a judge's outcome and labels. Rows without one of the two are left out, counted.
    cluster : str, optional
        Column of units whose rows belong together, such as the item under several arms.
    level : float, default 0.95
        Of the interval.

    Returns
    -------
    Result
        Its estimate is kappa, agreement beyond what the two columns' shares would give by chance, with
        error and interval; its figures are ``agree``, the share of rows that agree, and ``n_left_out``.

    Raises
    ------
    DataError
        If a column is absent, or holds more than twenty kinds of judgement.
    EstimationError
        If fewer than two rows (or clusters) have both, or each column has one kind alone, the same.

    Notes
    -----
    The error is that of the delta method [1]_; by cluster the influences of a unit's rows are summed, and the
    variance is raised by G / (G - 1). The interval is on the scale of Fisher's z, with Student's quantiles.

    References
    ----------
    .. [1] Fleiss, J. L., Cohen, J. and Everitt, B. S. (1969). Large sample standard errors of kappa and
       weighted kappa. Psychological Bulletin 72(5), 323-327.

    Examples
    --------
    >>> import pandas as pd
    >>> from whyprompt import agreement
    >>> frame = pd.DataFrame({"judge": [1, 1, 0, 0, 1, 0, 1, 0], "label": [1, 1, 0, 0, 1, 0, 0, 1]})
    >>> round(agreement(frame, "judge", "label").estimate, 3)
    0.5
    """
    confidence(level)
    table = open_table(frame)
    pair = [table.column(name, role="judgement") for name in (one, other)]
    known = ~pair[0].missing & ~pair[1].missing
    given = [np.array([level_name(v) for v in column.data[known]], dtype=str) for column in pair]
    kinds, codes = np.unique(np.concatenate(given), return_inverse=True)
    if len(kinds) > _MOST_KINDS:
        raise DataError(
            f"{one!r} and {other!r} hold {len(kinds)} kinds of judgement: kappa is of kinds, not of numbers",
            hint="round them, or compare them by a correlation",
        )
    a, b = codes[: known.sum()], codes[known.sum() :]
    units = np.arange(len(a)) if cluster is None else table.keys(cluster, role="cluster")[known]
    groups = np.unique(units, return_inverse=True)[1]
    n, n_groups = len(a), int(groups.max(initial=-1)) + 1
    if n_groups < 2:
        what = "row" if cluster is None else "cluster"
        raise EstimationError(f"{counted(n_groups, what)} with both {one!r} and {other!r}: two are needed")
    rows, columns = (np.bincount(x, minlength=len(kinds)) / n for x in (a, b))
    observed, chance = float(np.mean(a == b)), float(rows @ columns)
    if chance == 1:
        raise EstimationError(f"{one!r} and {other!r} are {str(kinds[0])!r} throughout: there is no kappa")
    kappa = (observed - chance) / (1 - chance)
    influence = ((a == b) - observed) / (1 - chance)
    influence -= (1 - observed) / (1 - chance) ** 2 * (columns[a] + rows[b] - 2 * chance)
    sums = np.bincount(groups, weights=influence)
    few = 1.0 if cluster is None else n_groups / (n_groups - 1)
    error = float(np.sqrt(few * (sums**2).sum())) / n
    low, high = _interval(kappa, error, level, n_groups - 1)
    left_out = int((~known).sum())
    gaps = f" {counted(left_out, 'row')} without one of them left out." if left_out else ""
    return Result(
        overall=Estimate(
            label=f"{one} and {other}",
            estimate=kappa,
            std_error=error,
            ci_low=low,
            ci_high=high,
            n_used=n,
            df=float(n_groups - 1),
            figures={"agree": observed, "n_left_out": left_out},
        ),
        sentence=(
            f"{one!r} and {other!r} agree in {percent(observed)} of {counted(n, 'row')}; Cohen's kappa"
            f" {format_number(kappa)} ({percent(level)} interval {format_number(low)} to"
            f" {format_number(high)}).{gaps}"
        ),
    )


def _interval(kappa: float, error: float, level: float, df: int) -> tuple[float, float]:
    if abs(kappa) >= 1:
        return kappa, kappa
    z, reach = np.arctanh(kappa), stats.t.ppf((1 + level) / 2, df) * error / (1 - kappa**2)
    return float(np.tanh(z - reach)), float(np.tanh(z + reach))
