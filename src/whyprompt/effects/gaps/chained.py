"""Multiple imputation by chained equations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, names, seed
from whyprompt.charts import imputation_plot
from whyprompt.effects.gaps.draws import draw_categories, draw_normal, draw_pmm
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Estimate, Result, unlisted
from whyprompt.stats.design import design_matrix
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.tables import Column

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

METHODS = {
    "pmm": "predictive mean matching",
    "norm": "Bayesian linear regression",
    "logistic": "logistic regression",
    "multinomial": "multinomial regression",
}
_MAX_LEVELS = 50


@dataclass(frozen=True, kw_only=True)
class Imputation(Result):
    """Several completed copies of a table.

    A part is a column with gaps: Gelman and Rubin's ratio of the chains' means in their second half, near 1
    where chains have mixed and None where nothing varies; the gaps filled (`n_used`); and how (`note`).

    Attributes
    ----------
    frames : tuple of DataFrame
        The completed tables, of the caller's kind, rows in the caller's order. Not part of `to_dict`.
    draws, iterations : int
        Tables, and rounds of each chain.
    methods : mapping of str to str
        How each column with gaps was filled.
    n_missing : mapping of str to int
        Gaps filled in each column of each table.
    predictors : tuple of str
        The columns in the models; each was filled given all the others.
    by : str or None
        Column within whose levels the models were fitted separately.
    n_rows : int
        Rows.
    trace : mapping of str to ndarray, shape (draws, iterations)
        Mean of the filled values (share of the last level for two categories; of codes otherwise). Not part
        of `to_dict`.
    """

    frames: tuple[Any, ...] = unlisted()
    draws: int
    iterations: int
    methods: Mapping[str, str]
    n_missing: Mapping[str, int]
    predictors: tuple[str, ...]
    by: str | None
    n_rows: int
    trace: Mapping[str, Floats] = unlisted()

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        return {"chains": lambda: imputation_plot(self)}


def impute(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    columns: Sequence[str] | None = None,
    draws: int = 20,
    iterations: int = 10,
    methods: Mapping[str, str] | None = None,
    by: str | None = None,
    donors: int = 5,
    shift: Mapping[str, float | Floats] | None = None,
    random_state: int = 0,
) -> Imputation:
    """Fill gaps several times by chained equations.

    Each column with gaps is regressed on all the others, parameters are drawn from their posterior, and gaps
    are drawn given them; columns take turns for a number of rounds. The uncertainty of the imputation is in
    the differences between the tables: analyse each and pool by Rubin's rules (`pool_estimates`).

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    columns : sequence of str, optional
        Columns in the models; their gaps are filled, other columns are carried along untouched. Default: all.
        For an effect they must hold the treatment and the outcome, or the imputed covariates are drawn as if
        unrelated to them and the effect is biased; `estimate_with_imputation` sees to that.
    draws : int, default 20
        Completed tables.
    iterations : int, default 10
        Rounds of each chain.
    methods : mapping of str to {"pmm", "norm", "logistic", "multinomial"}, optional
        By default predictive mean matching for numbers, logistic for two levels (and for numbers that are 0
        or 1), multinomial for more. ``"norm"`` draws from the linear regression itself.
    by : str, optional
        Complete column within whose levels models are fitted separately, so that no interaction with it is
        assumed away: the treatment, where rows of each arm are many.
    donors : int, default 5
        Of predictive mean matching.
    shift : mapping of str to float or ndarray, optional
        Added to every imputed number of a column (or to the log-odds of its second level), for values missing
        not at random; an array has one entry for each row of the table.
    random_state : int, default 0
        The same state gives the same tables.

    Raises
    ------
    DataError
        If a column is absent, empty, of the wrong kind, or an identifier.
    EstimationError
        If nothing is missing, an option is not known, or a model cannot be fitted.

    References
    ----------
    Van Buuren and Groothuis-Oudshoorn (2011). mice: Multivariate imputation by chained equations in R.
    Journal of Statistical Software 45(3).
    Moons et al. (2006). Using the outcome for imputation of missing predictor values was preferred. Journal
    of Clinical Epidemiology 59.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": [1.0, 2.0, None, 4.0, 5.0, 6.0], "y": [1.1, 2.2, 2.9, 4.2, 5.1, 5.8]})
    >>> made = impute(frame, draws=2)
    >>> made.draws, made.methods, [int(f["x"].isna().sum()) for f in made.frames]
    (2, {'x': 'pmm'}, [0, 0])
    """
    for count, least, name in ((draws, 2, "draws"), (iterations, 1, "iterations"), (donors, 1, "donors")):
        at_least(count, least, name)
    columns = None if columns is None else names(columns, "columns")
    table = open_table(frame)
    read, n = table.read(columns, role="imputation"), table.n_rows
    _check(read, by)
    how = _methods(read, methods or {})
    if not how:
        raise EstimationError("no value is missing in these columns: there is nothing to impute")
    moved = _shifts(shift or {}, how, read, n)
    groups = _groups(read, by)
    in_models = {name: column for name, column in read.items() if name != by}
    state = np.random.SeedSequence(seed(random_state))
    frames, traces = [], {name: np.zeros((draws, iterations)) for name in how}
    for k, child in enumerate(state.spawn(draws)):
        rng = np.random.default_rng(child)
        filled = {name: in_models[name].data.copy() for name in how}
        weight = {name: in_models[name].n_missing for name in how}
        for rows in groups:
            done = _chain(in_models, how, rows, rng, iterations, donors, moved)
            for name, (values, means, n_filled) in done.items():
                filled[name][rows] = values
                if n_filled:
                    traces[name][k] += means * n_filled / weight[name]
        frames.append(table.written(filled))
    n_missing = {name: read[name].n_missing for name in how}
    parts = tuple(
        Estimate(label=name, estimate=_r_hat(traces[name]), n_used=n_missing[name], note=method)
        for name, method in how.items()
    )
    slow = [repr(part.label) for part in parts if (part.estimate or 0) > 1.2]
    warnings = [f"the chains of {', '.join(slow)} have not mixed: ask for more iterations"] if slow else []
    if moved:
        warnings.append(f"imputed values of {', '.join(map(repr, moved))} were shifted on purpose")
    made = Imputation(
        sentence="",
        frames=tuple(frames),
        draws=draws,
        iterations=iterations,
        methods=how,
        n_missing=n_missing,
        predictors=tuple(read),
        by=by,
        n_rows=n,
        parts=parts,
        axis="R-hat of the chains",
        trace=traces,
        warnings=tuple(warnings),
    )
    return replace(made, sentence=_sentence(made))


def _sentence(made: Imputation) -> str:
    filled = [f"{p.label!r} ({p.n_used} of {made.n_rows} by {METHODS[p.note]})" for p in made.parts]
    more = f" and {len(filled) - 6} more columns" if len(filled) > 6 else ""
    return (
        f"Gaps in {', '.join(filled[:6])}{more} were filled {made.draws} times by chained equations of"
        f" {made.iterations} rounds. This is right if, given {', '.join(made.predictors)}, whether a value is"
        " missing does not depend on the value itself, which these data cannot show."
    )


def _check(read: Mapping[str, Column], by: str | None) -> None:
    if len(read) < 2:
        raise DataError("imputation needs at least two columns: a gap is filled from the others")
    for name, column in read.items():
        if column.missing.all():
            raise DataError(f"column {name!r} has no value at all", hint="leave it out of columns=")
        if column.kind == "text" and len(column.levels) > _MAX_LEVELS:
            raise DataError(
                f"text column {name!r} has {len(column.levels)} levels: it identifies rows rather than"
                " describes them",
                hint="leave it out of columns=, or group its levels",
            )
    if by is not None:
        if by not in read:
            raise DataError(f"by={by!r} is not among the columns of the imputation")
        if read[by].missing.any():
            raise DataError(
                f"by={by!r} has missing values itself", hint="leave by= out, so that it is imputed"
            )


def _methods(read: Mapping[str, Column], given: Mapping[str, str]) -> dict[str, str]:
    for name, method in given.items():
        if name not in read:
            raise DataError(f"methods names {name!r}, which is not among the columns of the imputation")
        if method not in METHODS:
            raise EstimationError(f"method {method!r} for {name!r} is not known", hint=", ".join(METHODS))
    how = {}
    # Columns with few gaps first: they help most with the others.
    for name, column in sorted(read.items(), key=lambda item: item[1].n_missing):
        if not column.n_missing:
            continue
        values = set(column.data[~column.missing].tolist())
        n_levels = len(values)
        two = n_levels <= 2 if column.kind == "text" else column.kind == "boolean" or values <= {0.0, 1.0}
        default = "logistic" if two else "multinomial" if column.kind == "text" else "pmm"
        method = given.get(name, default)
        fits = {
            "pmm": column.kind != "text",
            "norm": column.kind == "number",
            "logistic": two,
            "multinomial": column.kind == "text",
        }
        if not fits[method]:
            raise EstimationError(
                f"method {method!r} does not suit column {name!r} ({column.kind}, {n_levels} values)",
                hint=f"use {default!r}",
            )
        how[name] = method
    return how


def _shifts(
    shift: Mapping[str, float | Floats], how: Mapping[str, str], read: Mapping[str, Column], n: int
) -> dict[str, Floats]:
    out = {}
    for name, value in shift.items():
        if name not in how:
            raise DataError(f"shift names {name!r}, which has no gaps to shift")
        if how[name] == "multinomial":
            raise EstimationError(f"{name!r} has {len(read[name].levels)} levels; only two can be shifted")
        moved = np.broadcast_to(np.asarray(value, dtype=float), (n,)).copy()
        if not np.isfinite(moved).all():
            raise DataError(f"the shift of {name!r} has missing or infinite values")
        if moved.any():
            out[name] = moved
    return out


def _groups(read: Mapping[str, Column], by: str | None) -> list[Ints]:
    if by is None:
        return [np.arange(len(next(iter(read.values())).data))]
    column = read[by]
    levels = sorted(set(column.data.tolist()))
    if len(levels) > 20:
        raise EstimationError(f"by={by!r} has {len(levels)} levels; models in each would have few rows")
    return [np.flatnonzero(column.data == level) for level in levels]


def _chain(
    columns: Mapping[str, Column],
    how: Mapping[str, str],
    rows: Ints,
    rng: np.random.Generator,
    iterations: int,
    donors: int,
    moved: Mapping[str, Floats],
) -> dict[str, tuple[NDArray[Any], Floats, int]]:
    """Fill the gaps of some rows once; values, the mean filled in each round, and their number."""
    values: dict[str, NDArray[Any]] = {}
    blocks: dict[str, Floats] = {}
    known: dict[str, NDArray[np.bool_]] = {}
    for name, column in columns.items():
        here, gone = column.data[rows].copy(), column.missing[rows]
        if gone.all():
            raise EstimationError(
                f"column {name!r} has no known value in a group of {len(rows)} rows", hint="leave by= out"
            )
        if gone.any():
            here[gone] = rng.choice(here[~gone], size=int(gone.sum()))
        values[name], known[name] = here, ~gone
        blocks[name] = _block(column, here)
    means = {name: np.zeros(iterations) for name in how}
    for step in range(iterations):
        for name, method in how.items():
            gone = ~known[name]
            if not gone.any():
                continue
            X = _design([blocks[other] for other in columns if other != name], len(rows))
            drawn = _draw(name, method, values[name], known[name], X, rng, donors, moved.get(name), rows)
            values[name][gone] = drawn
            blocks[name] = _block(columns[name], values[name])
            means[name][step] = blocks[name][gone].mean() if blocks[name].size else 0.0
    return {name: (values[name], means[name], int((~known[name]).sum())) for name in how}


def _draw(
    name: str,
    method: str,
    values: NDArray[Any],
    known: NDArray[np.bool_],
    X: Floats,
    rng: np.random.Generator,
    donors: int,
    moved: Floats | None,
    rows: Ints,
) -> NDArray[Any]:
    gone = ~known
    shift = None if moved is None else moved[rows][gone]
    if int(known.sum()) <= X.shape[1]:
        raise EstimationError(
            f"column {name!r} has {int(known.sum())} known values here for {X.shape[1]} coefficients of its"
            " model",
            hint="leave predictors out of columns=, or leave by= out",
        )
    if method in {"pmm", "norm"}:
        y = values[known].astype(float)
        if method == "pmm":
            drawn = draw_pmm(y, X[known], X[gone], rng, donors=donors)
        else:
            drawn = draw_normal(y, X[known], X[gone], rng)
        return drawn if shift is None else drawn + shift
    levels, code = np.unique(values[known], return_inverse=True)
    if len(levels) == 1:
        return np.repeat(levels, int(gone.sum()))
    picked = draw_categories(
        code.astype(np.int64), len(levels), X[known], X[gone], rng, name=name, shift=shift
    )
    return np.asarray(levels[picked])


def _block(column: Column, values: NDArray[Any]) -> Floats:
    """Return predictors of one column, its gaps filled: itself, or a dummy for each level but the first."""
    levels = {column.name: column.levels} if column.kind == "text" else None
    return design_matrix({column.name: values}, levels=levels).matrix


def _design(blocks: Sequence[Floats], n: int) -> Floats:
    """Ones and the standardised predictors; constant ones left out."""
    X = np.column_stack(blocks)
    centre, scale = X.mean(axis=0), X.std(axis=0)
    keep = scale > 1e-12 * np.maximum(np.abs(centre), 1e-300)
    return np.column_stack([np.ones(n), (X[:, keep] - centre[keep]) / scale[keep]])


def _r_hat(trace: Floats) -> float | None:
    half = trace[:, trace.shape[1] // 2 :]
    length = half.shape[1]
    if length < 2:
        return None
    within = float(half.var(axis=1, ddof=1).mean())
    if within <= 0:
        return None
    between = length * float(half.mean(axis=1).var(ddof=1))
    return float(np.sqrt(((length - 1) / length * within + between / length) / within))
