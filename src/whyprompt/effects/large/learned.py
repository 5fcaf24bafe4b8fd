"""Learned models of a table larger than memory: fitted to samples of the other folds, predicted in a pass.

A model is fitted to as many rows as in memory, of which no more than `ROWS` are taken there either. Those of
a larger table are drawn by their places, so that the same table gives the same sample; each row is predicted
by models that have not seen its fold, so that the estimate is cross-fitted as in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt.effects.large.rows import literal
from whyprompt.effects.methods.boosted import BOOSTED, LogitAndTrees, RidgeAndTrees
from whyprompt.effects.methods.covariates import Covariates
from whyprompt.effects.methods.folds import half_of_others, hashed_sql
from whyprompt.effects.methods.learners import LINEAR, LOGIT, ROWS, fit_outcome, fit_score
from whyprompt.stats.threads import one_blas_thread, one_openmp_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.methods.aipw import AIPW
    from whyprompt.effects.methods.method import Plan

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

# Rows that are predicted at a time, and parts that places are dealt to, of which a sample has some.
_BLOCK, _PARTS = 50_000, 1_000_000


class Learns(NamedTuple):
    """Which models are learned, and not taken from sums over all rows."""

    score: bool
    outcome: bool

    @classmethod
    def of(cls, plan: Plan, method: AIPW, *, known: bool) -> Learns:
        """Read it from what is asked."""
        return cls(not known and plan.score_model != LOGIT, method.outcome_model != LINEAR)


class Predicted(NamedTuple):
    """A relation with the predictions ``q1`` and ``q0`` of the outcome and ``qe`` of the score.

    `sampled` says that a model was fitted to fewer rows than there are of the other folds.
    """

    relation: str
    sampled: bool


def predicted(
    rows: Rows,
    plan: Plan,
    method: AIPW,
    relation: str,
    folds: int,
    wanted: Sequence[int],
    *,
    fewer: bool = False,
) -> Predicted:
    """Learn each fold's models, and predict its rows in a pass; of arms `wanted` 0 is the treated."""
    learns = Learns.of(plan, method, known=rows.known is not None)
    sample = _Sample(rows, relation, plan.random_state)
    models: list[dict[str, Callable[[Floats], Floats]]] = [{} for _ in range(folds)]
    others = [where_of_others(fold, folds, fewer=fewer) for fold in range(folds)]
    if fewer:
        others = [sample.thinned(where) for where in others]
    with one_blas_thread(ROWS), one_openmp_thread():
        if learns.score:
            model = plan.score_model
            if model is None:
                X, t, _ = sample.of("true")
                model = LogitAndTrees.settled(_covariates(X), t)
            for of_fold, where in zip(models, others, strict=True):
                X, t, _ = sample.of(where)
                of_fold["qe"] = fit_score(X, t, model, names=rows.design.names)
        for arm in wanted if learns.outcome else ():
            mine, outcome = ("t", "not t")[arm], method.outcome_model
            if outcome in (None, BOOSTED):
                X, _, y = sample.of(mine)
                outcome = RidgeAndTrees.settled(_covariates(X), np.ones(len(y), dtype=bool), y)
            for of_fold, where in zip(models, others, strict=True):
                X, _, y = sample.of(f"{mine} and {where}")
                of_fold[f"q{1 - arm}"] = fit_outcome(X, y, outcome).predict
        path = _predictions(rows, relation, models, "predicted_by_fewer" if fewer else "predicted")
    return Predicted(f"read_parquet({literal(str(path))})", sample.partial)


def where_of_others(fold: int, folds: int, *, fewer: bool) -> str:
    """Write which rows a fold learns from: those of the others, or of half of them."""
    if folds == 1:
        return "true"
    return f"fold in ({', '.join(map(str, half_of_others(fold, folds)))})" if fewer else f"fold <> {fold}"


def _covariates(X: Floats) -> Covariates:
    return Covariates(X, np.empty((len(X), 0), dtype=np.int64))


class _Sample:
    """Reads the rows that a model is fitted to, in the order of their content."""

    def __init__(self, rows: Rows, relation: str, random_state: int) -> None:
        self.rows, self.relation = rows, relation
        # Not the deal of the folds.
        self.part = hashed_sql("place", _PARTS, random_state + 1)
        self.partial = False

    def thinned(self, where: str) -> str:
        """Of more than half of `ROWS` rows take so many: the half of what a model has of very many."""
        (n,) = self.rows.first(["count(*)"], f"(select * from {self.relation} where {where})")
        return f"{where} and {self.part} < {ROWS * _PARTS // (2 * n)}" if 2 * n > ROWS else where

    def of(self, where: str) -> tuple[Floats, Bools, Floats]:
        """Give columns, arms and outcomes of rows; of more than `ROWS` a sample by their places."""
        relation = f"(select * from {self.relation} where {where})"
        (n,) = self.rows.first(["count(*)"], relation)
        if n > ROWS:
            self.partial = True
            relation = f"(select * from {relation} where {self.part} < {ROWS * _PARTS // n})"
        columns = ", ".join([*self.rows.x, "t", "y"])
        self.rows.tell_pass()
        found = self.rows.connection.execute(f"select {columns} from {relation} order by place").fetchnumpy()
        t, y = np.asarray(found["t"], dtype=bool), np.asarray(found["y"], dtype=np.float64)
        X = np.empty((len(y), len(self.rows.x)), order="F")
        for j, x in enumerate(self.rows.x):
            X[:, j] = found[x]
        return X, t, y


def _predictions(
    rows: Rows, relation: str, models: Sequence[dict[str, Callable[[Floats], Floats]]], name: str
) -> Path:
    """Write the rows of a relation with what the models of their folds predict of them."""
    import pyarrow as pa
    from pyarrow import parquet

    path, writer = rows.folder / f"{name}.parquet", None
    rows.tell_pass()
    for batch in rows.connection.sql(f"from {relation}").to_arrow_reader(_BLOCK):
        if not len(batch):
            continue
        columns: dict[str, Any] = dict(zip(batch.schema.names, batch.columns, strict=True))
        fold = columns["fold"].to_numpy(zero_copy_only=False)
        X = np.empty((len(batch), len(rows.x)), order="F")
        for j, x in enumerate(rows.x):
            X[:, j] = columns[x].to_numpy(zero_copy_only=False)
        for column in models[0]:
            made = np.empty(len(batch))
            for k, of_fold in enumerate(models):
                here = np.flatnonzero(fold == k)
                if len(here):
                    made[here] = of_fold[column](X[here])
            columns[column] = pa.array(made)
        table = pa.table(columns)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return path
