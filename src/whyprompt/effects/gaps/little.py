"""Little's test that values are missing completely at random."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import format_number, p_words
from whyprompt.charts import little_plot
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Check, Estimate
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.tables import Column

    Floats = NDArray[np.float64]


def little_test(
    frame: Any,  # noqa: ANN401 - any frame library's type
    columns: Sequence[str] | None = None,
    *,
    covariance: Literal["unbiased", "ml"] = "unbiased",
    max_iterations: int = 10_000,
) -> Check:
    """Test whether the means differ between patterns of missing values.

    The reference distribution needs patterns of a fair size, and the test looks at means only. Not rejecting
    is no proof: a value that is missing because of itself (missing not at random) may leave the means of the
    other columns alone.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    columns : sequence of str, optional
        Default: all. A text column is compared by dummies, one for each level but the first.
    covariance : {"unbiased", "ml"}, default "unbiased"
        The maximum-likelihood covariance times n / (n - 1), as in the paper, or as it is (as
        naniar's ``mcar_test`` has it; the statistic is then larger by that factor).
    max_iterations : int, default 10000
        Of the EM algorithm.

    Returns
    -------
    Check
        `overall` is the chi-squared, over the rows with any value; it ``"fails"`` where p is below 0.05. Its
        figures are ``n_patterns``, the patterns of missing values among those rows, and ``columns``, those
        compared (``column_level`` for a dummy); rows without any value are counted in its settings.

    Raises
    ------
    DataError
        If a column is absent, empty or of the wrong kind.
    EstimationError
        If nothing is missing, columns are collinear, or EM does not converge.

    References
    ----------
    Little (1988). A test of missing completely at random for multivariate data with missing values. Journal
    of the American Statistical Association 83, equation 5.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=200)
    >>> y = np.where(x > 0.5, np.nan, x + rng.normal(size=200))
    >>> little_test(pd.DataFrame({"x": x, "y": y})).p_value < 0.001
    True
    """
    from scipy import stats

    if covariance not in {"unbiased", "ml"}:
        raise EstimationError(f"covariance={covariance!r}: choose 'unbiased' or 'ml'")
    read = open_table(frame).read(columns)
    names, matrix = _matrix(read)
    empty = np.isnan(matrix).all(axis=1)
    data = matrix[~empty]
    n, p = data.shape
    if not np.isnan(data).any():
        raise EstimationError(
            "no value is missing in the rows with any value: there is nothing to test",
            hint="name the columns that have gaps",
        )
    if n <= p + 1:
        raise EstimationError(f"{n} rows are too few for {p} columns")
    centre, scale = np.nanmean(data, axis=0), np.nanstd(data, axis=0)
    constant = [name for name, s in zip(names, scale, strict=True) if not s > 0]
    if constant:
        raise EstimationError(f"column {constant[0]!r} is constant where it is known", hint="leave it out")
    data = (data - centre) / scale
    mean, cov = em_normal(data, max_iterations=max_iterations)
    if np.linalg.eigvalsh(cov)[0] < 1e-8:
        raise EstimationError(
            f"the columns {', '.join(names)} are collinear: their covariance cannot be inverted",
            hint="leave out a column that the others determine",
        )
    if covariance == "unbiased":
        cov = cov * n / (n - 1)
    statistic, seen = 0.0, 0
    patterns = _patterns(data)
    for here, rows in patterns:
        gap = data[np.ix_(rows, here)].mean(axis=0) - mean[here]
        statistic += len(rows) * float(gap @ np.linalg.solve(cov[np.ix_(here, here)], gap))
        seen += len(here)
    df = seen - p
    if df == 0:
        raise EstimationError(
            "all rows with any value have the same pattern: the test has no degree of freedom"
        )
    p_value = float(stats.chi2.sf(statistic, df))
    words = (
        "the means differ between patterns, so the values are not missing completely at random; dropping"
        " incomplete rows would select, and imputation needs the columns that explain the gaps"
        if p_value < 0.05
        else "the means of the patterns do not differ by more than chance would have them; this does not show"
        " that gaps are unrelated to the values that are missing"
    )
    found = Check(
        name="missing completely at random",
        verdict="fails" if p_value < 0.05 else "passes",
        overall=Estimate(label="chi-squared", estimate=statistic, df=df, p_value=p_value, n_used=n),
        axis="chi-squared",
        figures={"n_patterns": len(patterns), "columns": names},
        settings={"covariance": covariance, "n_empty": int(empty.sum())},
        sentence=(
            f"Little's test over {len(patterns)} patterns in {n} rows: chi-squared {format_number(statistic)}"
            f" on {df} degrees of freedom, p {p_words(p_value)}; {words}."
        ),
    )
    return replace(found, pictures={"statistic": lambda: little_plot(found)})


def _matrix(read: dict[str, Column]) -> tuple[tuple[str, ...], Floats]:
    parts: list[Floats] = []
    names: list[str] = []
    for name, column in read.items():
        if column.missing.all():
            raise DataError(f"column {name!r} has no value at all", hint="leave it out")
        if column.kind == "text" and len(column.levels) > 20:
            raise DataError(
                f"text column {name!r} has {len(column.levels)} levels; its means say little",
                hint="leave it out, or group its levels",
            )
        coded = column.coded()
        parts.append(coded.matrix)
        names.extend(coded.names)
    if not names:
        raise DataError("no column with more than one level is left to test")
    return tuple(names), np.column_stack(parts)


def _patterns(data: Floats) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Columns known, and rows, of each pattern."""
    known = ~np.isnan(data)
    kinds, which = np.unique(known, axis=0, return_inverse=True)
    which = which.reshape(-1)
    return [(np.flatnonzero(kind), np.flatnonzero(which == at)) for at, kind in enumerate(kinds)]


def em_normal(
    data: Floats, *, tolerance: float = 1e-10, max_iterations: int = 10_000
) -> tuple[Floats, Floats]:
    """Fit a multivariate normal distribution to data with gaps by EM.

    Little and Rubin (2002), Statistical Analysis with Missing Data, section 11.2.1. Data are (n, p), NaN for
    a gap, with at least one value a row and columns on similar scales. The means (p,) and the covariance
    (p, p), with denominator n, are those at which none moves by more than the tolerance; refused where that
    is not reached.

    Examples
    --------
    >>> mean, _ = em_normal(np.array([[0.0, 1.0], [2.0, 3.0], [4.0, np.nan], [1.0, 2.5]]))
    >>> float(round(mean[0], 6))
    1.75
    """
    n, p = data.shape
    mean = np.nanmean(data, axis=0)
    cov = np.diag(np.nanvar(data, axis=0))
    patterns = _patterns(data)
    # What the data give once and for all: sums and cross-products of the known columns of each pattern.
    totals = [data[np.ix_(rows, here)].sum(axis=0) for here, rows in patterns]
    crosses = [data[np.ix_(rows, here)].T @ data[np.ix_(rows, here)] for here, rows in patterns]
    for _ in range(max_iterations):
        first, second = np.zeros(p), np.zeros((p, p))
        for (here, rows), total, cross in zip(patterns, totals, crosses, strict=True):
            gone = np.setdiff1d(np.arange(p), here)
            m = len(rows)
            # Row by row the expectation is a + B x_known, with B = [identity; slopes].
            slope = np.zeros((p, len(here)))
            slope[here, np.arange(len(here))] = 1.0
            start = np.zeros(p)
            if len(gone):
                slope[gone] = np.linalg.lstsq(cov[np.ix_(here, here)], cov[np.ix_(here, gone)], rcond=None)[
                    0
                ].T
                start[gone] = mean[gone] - slope[gone] @ mean[here]
            image = slope @ total
            first += m * start + image
            second += slope @ cross @ slope.T + np.outer(start, image) + np.outer(image, start)
            second += m * np.outer(start, start)
            if len(gone):
                rest = cov[np.ix_(gone, gone)] - slope[gone] @ cov[np.ix_(here, gone)]
                second[np.ix_(gone, gone)] += m * rest
        new_mean = first / n
        new_cov = second / n - np.outer(new_mean, new_mean)
        change = max(float(np.abs(new_mean - mean).max()), float(np.abs(new_cov - cov).max()))
        mean, cov = new_mean, (new_cov + new_cov.T) / 2
        if change < tolerance:
            return mean, cov
    raise EstimationError(
        f"EM did not converge in {max_iterations} iterations (the last change was {change:.1e})",
        hint="two columns hardly ever known together leave their covariance open; leave one out",
    )
