"""Columns of files as expressions of SQL, checked as in memory and refused in the same words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._progress import tell
from whyprompt.effects.problem import not_identified
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.absorb import MANY_LEVELS
from whyprompt.stats.design import design_matrix
from whyprompt.tables import Table, arms, infinite_values, is_text, missing_values, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import duckdb
    from numpy.typing import NDArray

    from whyprompt.effects.large.source import Parquet
    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

# Distinct values of a treatment that are read to say what it holds.
_MOST_ARMS = 100_000
# Rows that are looked at for the kind of a column.
_HEAD = 2_000
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
# A text column with more levels than this share of its rows is an identifier, not a covariate.
_IDENTIFIER_SHARE, _FEW_LEVELS = 0.5, 20


def quoted(name: str) -> str:
    """Write the name of a column."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """Write a value; a number to its last digit, as DOUBLE."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return f"({int(value)})"
    if isinstance(value, float | np.floating):
        return f"({float(value):.17e})"
    return "'" + str(value).replace("'", "''") + "'"


def linear(coef: Iterable[float], columns: Sequence[str]) -> str:
    """Write a linear predictor; `coef` has the intercept first. Summed in order, as in memory."""
    first, *rest = coef
    terms = [f"{literal(float(b))} * {name}" for b, name in zip(rest, columns, strict=True) if b != 0]
    return " + ".join([literal(float(first)), *terms])


class Rows:
    """The rows of two arms in files. What it reads for an estimate is a relation of its own columns.

    `relation` has ``t`` (boolean), ``y``, and ``x0``, ``x1``, ..., the design's columns, as DOUBLE; where
    there are such, ``c``, the cluster, ``e``, a known propensity, and ``k``, which identifies rows.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: Parquet) -> None:
        self.connection, self.table, self.columns = connection, table, table.columns
        # One count for all that are made of it.
        self.passes = [0]
        files = ", ".join(literal(str(path)) for path in table.paths)
        self.scan = f"read_parquet([{files}], union_by_name=true, hive_partitioning=false)"
        self.types = {str(row[0]): str(row[1]) for row in self.ask(f"describe select * from {self.scan}")}
        # DuckDB would call one of them by another name.
        alike = sorted(
            {name for name in table.columns if [*map(str.lower, table.columns)].count(name.lower()) > 1}
        )
        if alike:
            raise DataError(
                f"{table.label}: the names {', '.join(map(repr, alike))} differ by capital letters alone,"
                " which DuckDB does not tell apart",
                hint="rename one of them",
            )
        self.where: tuple[str, ...] = ()
        self.n_rows = table.n_rows
        self.treated_level = self.control_level = self.treatment = self.outcome = ""
        self.is_treated = "true"
        self.design: Design = design_matrix({})
        self.cluster: str | None = None
        # The chance of the treated arm, as an expression.
        self.known: str | None = None
        self.tie: str | None = None

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query, and give its rows."""
        self.tell_pass()
        return self.connection.execute(sql).fetchall()

    def tell_pass(self) -> None:
        """Count a pass over the rows, and show it."""
        self.passes[0] += 1
        tell(self.passes[0], 0, f"pass {self.passes[0]}")

    @property
    def treatment_name(self) -> str:
        """The column of the arm."""
        return self.treatment

    @property
    def outcome_name(self) -> str:
        """The column of the outcome."""
        return self.outcome

    @property
    def cluster_name(self) -> str | None:
        """The column of the clusters."""
        return self.cluster

    @property
    def known_score(self) -> str | None:
        """The chance of the treated arm, where it is known."""
        return self.known

    @property
    def folder(self) -> Path:
        """Where files may be put that are taken away with the connection."""
        ((name,),) = self.connection.execute("select current_setting('temp_directory')").fetchall()
        path = Path(name)
        path.mkdir(exist_ok=True)
        return path

    def first(self, expressions: Sequence[str], of: str | None = None) -> tuple[Any, ...]:
        """Give the one row of some aggregates of the rows kept."""
        return self.ask(f"select {', '.join(expressions)} from {of or self.source}")[0]

    @property
    def source(self) -> str:
        """The rows kept, with the columns of the files."""
        return f"(select * from {self.scan}{' where ' if self.where else ''}{' and '.join(self.where)})"

    def kept(self, predicate: str, n_rows: int) -> Rows:
        """Give the same with fewer rows."""
        other = copy.copy(self)
        other.where, other.n_rows = (*self.where, predicate), n_rows
        return other

    def head(self) -> Table:
        """Give the first rows as a table in memory."""
        return Table(self.connection.sql(f"select * from {self.source} limit {_HEAD}").to_arrow_table())

    def require(self, names: Sequence[str], *, role: str) -> None:
        """Refuse the first name that is no column."""
        self.head().require(names, role=role)

    def raw(self, name: str, *, first: int | None = None) -> NDArray[Any]:  # noqa: ARG002
        """Give some distinct values of a column, as objects: what its name leaves open they tell."""
        found = self.ask(f"select distinct {quoted(name)} from {self.source} limit {_HEAD}")
        out = np.empty(len(found), dtype=object)
        out[:] = [row[0] for row in found]
        return out

    def kind(self, name: str) -> str:
        """Say what a column holds: ``number``, ``boolean``, ``text`` or ``""``."""
        held = self.types[name]
        if held.lstrip("U").startswith(_NUMBERS) and not held.endswith("]"):
            return "number"
        return {"BOOLEAN": "boolean", "VARCHAR": "text"}.get(held, "text" if held.startswith("ENUM(") else "")

    def check(self, roles: Mapping[str, str]) -> None:
        """Refuse the first column, by its role, that has gaps or infinite values, or is of no known kind."""
        for name, role in roles.items():
            self.require([name], role=role)
            if not self.kind(name):
                self.head().column(name, role=role)
                raise DataError(
                    f"{role} column {name!r} holds {self.types[name]}; expected numbers, booleans or text",
                    hint="convert it to a number or to text levels first, or leave it out",
                )
        counts: list[str] = []
        for name in roles:
            column, floats = quoted(name), self.types[name] in {"FLOAT", "DOUBLE"}
            gone = f"{column} is null" + (f" or isnan({column})" if floats else "")
            counts += [f"count(*) filter ({gone})", f"count(*) filter (isinf({column}))" if floats else "0"]
        found = self.first(counts) if counts else ()
        for k, (name, role) in enumerate(roles.items()):
            missing, infinite = found[2 * k : 2 * k + 2]
            if infinite:
                rows = f"select row_number() over () - 1 as place, {quoted(name)} as v from {self.source}"
                at = self.ask(f"select min(place) from ({rows}) where isinf(v)")[0][0]
                raise infinite_values(name, role, infinite, at)
            if missing:
                raise missing_values(name, role, missing, self.n_rows)

    def require_numbers(self, name: str, role: str) -> None:
        """Refuse a column of text."""
        if self.kind(name) == "text":
            raise is_text(name, role, self.first([f"any_value({quoted(name)})"])[0])

    # ------------------------------------------------------------------------------------- the arms
    def of_two_arms(self, treatment: str, treated: object | None, control: object | None) -> Rows:
        """Keep the rows of two arms, and learn which is the treated one."""
        self.check({treatment: "treatment"})
        column = quoted(treatment)
        counted = f"select {column}, count(*) from {self.source} group by 1 limit {_MOST_ARMS + 1}"
        counts = dict(self.ask(counted))
        if len(counts) > _MOST_ARMS:
            raise DataError(
                f"treatment column {treatment!r} has more than {_MOST_ARMS:,} levels; a contrast needs two",
                hint="name the column with the arm; for a dose there is dose_response",
            )
        import pyarrow as pa

        values = list(counts)
        levels = Table(pa.table({treatment: pa.array(values)}))
        out = self
        if treated is not None and control is not None:
            mask = rows_of_two_arms(levels, treatment, treated=treated, control=control)
            if mask is not None:
                values = [value for value, keep in zip(values, mask.tolist(), strict=True) if keep]
                levels = levels.keep(mask)
                listed = ", ".join(literal(value) for value in values)
                out = self.kept(f"{column} in ({listed})", sum(counts[value] for value in values))
        given, one, other = arms(levels, treatment, treated=treated, control=control)
        for level, mine in ((one, True), (other, False)):
            if sum(counts[v] for v, g in zip(values, given.tolist(), strict=True) if g is mine) < 2:
                raise EstimationError(
                    f"arm {level!r} of treatment column {treatment!r} has one row: its spread cannot be"
                    " known",
                    hint="run that arm on more items",
                )
        out = out if out is not self else copy.copy(self)
        out.treatment, out.treated_level, out.control_level = treatment, one, other
        out.is_treated = f"{column} = {literal(values[given.tolist().index(True)])}"
        return out

    def n_arms(self) -> tuple[int, int]:
        """Count the treated and the control rows."""
        n = int(self.first([f"count(*) filter ({self.is_treated})"])[0])
        return n, self.n_rows - n

    # ----------------------------------------------------------------------------------- the columns
    def levels(self, name: str) -> list[str]:
        """Give the levels of a text column, sorted; an identifier is refused, and more than have columns."""
        column = quoted(name)
        found = self.ask(f"select distinct {column} from {self.source} limit {MANY_LEVELS + 1}")
        if len(found) > MANY_LEVELS:
            count = self.ask(f"select count(*) from (select distinct {column} from {self.source})")[0][0]
            if count > _FEW_LEVELS and count > _IDENTIFIER_SHARE * self.n_rows:
                raise EstimationError(
                    f"confounder {name!r} has {count} levels in {self.n_rows} rows: it identifies rows"
                    " and has no counterpart in the other arm",
                    hint="leave it out, or derive a covariate from it (a length, a task type)",
                )
            raise EstimationError(
                f"confounder {name!r} has {count} levels: a table larger than memory may have {MANY_LEVELS}"
                " of a text column",
                hint="merge rare levels, leave it out, or give more with memory=",
            )
        return sorted(str(row[0]) for row in found)

    def read(
        self,
        outcome: str,
        confounders: Sequence[str],
        *,
        cluster: str | None,
        propensity: str | None,
        base_levels: Mapping[str, str] | None,
        tie_break: str | None = None,
    ) -> Rows:
        """Check and name the columns of an estimate."""
        if self.treatment == outcome:
            raise EstimationError(f"{self.treatment!r} is both the treatment and the outcome")
        roles = {outcome: "outcome"} | dict.fromkeys(confounders, "confounder")
        roles |= {} if propensity is None else {propensity: "propensity"}
        roles |= {} if cluster is None else {cluster: "cluster"}
        roles |= {} if tie_break is None else {tie_break: "tie-break"}
        self.check(roles)
        for name, role in ((outcome, "outcome"), (propensity, "propensity")):
            if name is not None:
                self.require_numbers(name, role)
        if propensity is not None:
            column = quoted(propensity)
            if not self.first([f"bool_and({column} > 0 and {column} < 1)"])[0]:
                raise DataError(
                    f"propensity column {propensity!r} must lie strictly between 0 and 1",
                    hint="a row that could have had one arm only carries no information on the effect",
                )
        if tie_break is not None and self.first([f"count(distinct {quoted(tie_break)})"])[0] < self.n_rows:
            raise not_identified(tie_break)
        columns: dict[str, NDArray[Any]] = {}
        texts = {name: self.levels(name) for name in confounders if self.kind(name) == "text"}
        longest = max(map(len, texts.values()), default=1)
        for name in confounders:
            # As many rows as show every level.
            listed = [texts[name][k % len(texts[name])] for k in range(longest)] if name in texts else None
            columns[name] = np.zeros(longest) if listed is None else np.array(listed, dtype=object)
        out = copy.copy(self)
        out.outcome, out.cluster, out.tie = outcome, cluster, tie_break
        out.known = None if propensity is None else f"cast({quoted(propensity)} as double)"
        out.design = design_matrix(columns, reference=base_levels, n_rows=longest)
        return out

    @property
    def x(self) -> tuple[str, ...]:
        """The design's columns in the relation."""
        return tuple(f"x{j}" for j in range(len(self.design.names)))

    def column_of(self, j: int) -> str:
        """Write a column of the design."""
        name = self.design.sources[j]
        if name not in self.design.levels:
            return f"cast({quoted(name)} as double)"
        level = self.design.names[j].removeprefix(f"{name}_")
        return f"cast(cast({quoted(name)} as varchar) = {literal(level)} as double)"

    @property
    def relation(self) -> str:
        """The rows as an estimate reads them."""
        read = [f"{self.is_treated} as t", f"cast({quoted(self.outcome)} as double) as y"]
        read += [f"{self.column_of(j)} as {x}" for j, x in enumerate(self.x)]
        read += [] if self.cluster is None else [f"{quoted(self.cluster)} as c"]
        read += [] if self.known is None else [f"{self.known} as e"]
        read += [] if self.tie is None else [f"{quoted(self.tie)} as k"]
        where = f" where {' and '.join(self.where)}" if self.where else ""
        return f"(select {', '.join(read)} from {self.scan}{where})"
