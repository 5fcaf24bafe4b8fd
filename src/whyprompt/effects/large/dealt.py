"""Rows and clusters dealt to folds by their places in the order of what they hold, as in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.large.errors import check_clusters
from whyprompt.effects.large.rows import literal
from whyprompt.effects.methods.folds import HASHED, check_folds, deal_units, hashed_sql

if TYPE_CHECKING:
    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.methods.aipw import AIPW

# So many times the memory is sorted at a time: DuckDB merges what it put aside in blocks that it holds.
_AT_A_TIME = 2
# A sum over the rows so far, which DuckDB takes as they pass.
_SO_FAR = "over (rows between unbounded preceding and current row)"


def dealt(rows: Rows, means: Means, method: AIPW, random_state: int) -> tuple[str, int]:
    """Put the rows in the order of their content and deal them to folds; give the relation and the number.

    It has ``fold``, ``place``, that in the order, and ``turn``, a row's place in its arm in the order of the
    files.
    """
    n, units = sum(means.n), None
    if rows.cluster is not None and method.folds != 1:
        units = int(rows.first(["count(distinct c)"], rows.relation)[0])
        check_clusters(rows, units)
    folds = method.settled_folds(means.n, units)
    if folds > 1:
        check_folds(folds, min(means.n), n if units is None else units)
    order = [*_content(rows), *(["e"] if rows.known is not None else []), "y"]
    order += [] if rows.cluster is None else ["c"]
    ones = f"count(*) filter (t) {_SO_FAR}"
    made = f"(select *, row_number() over () - 1 as nth, {ones} as ones from {rows.relation})"
    made = f"(select * exclude (ones), case when t then ones else nth + 1 - ones end - 1 as turn from {made})"
    own = "case when t then ones - 1 else place - ones end"
    fold = "0"
    if folds > 1 and units is None and n > HASHED:
        fold = hashed_sql(f"({own} + {_offset(rows, means, order)})", folds, random_state)
    before, of_arm = 0, 0
    for k, part in enumerate(_parts(rows, made, order[0], n)):
        ordered = f"(select * exclude (nth) from {made} where {part} order by {', '.join(order)}, nth)"
        turns = f"row_number() over () - 1 + {before} as place, {ones} + {of_arm} as ones"
        ordered = f"(select *, {turns} from {ordered})"
        into = "insert into placed" if k else "create or replace temp table placed as"
        rows.connection.execute(f"{into} select * exclude (ones), ({fold})::bigint as fold from {ordered}")
        before, of_arm = rows.ask("select count(*), count(*) filter (t) from placed")[0]
    if folds == 1 or (units is None and n > HASHED):
        return "placed", folds
    import pyarrow as pa

    key, unit = "place", "select place, t::double - 0.5 as lean from placed"
    if units is not None:
        key = "c"
        unit = "select c, min(place) as place, sum(t::double - 0.5) as lean from placed group by c"
    rows.connection.execute(f"create or replace temp table units as {unit}")
    found = rows.connection.execute("select place, lean from units order by place").fetchnumpy()
    place = np.asarray(found["place"], dtype=np.int64)
    of_unit = deal_units(np.sign(found["lean"]), place, folds, random_state, hashed=n > HASHED)
    rows.connection.register("deal", pa.table({"first": place, "dealt": of_unit}))
    rows.connection.execute(
        "create or replace temp table dealt as select p.* exclude (fold), d.dealt as fold from placed p"
        f" join units u on p.{key} = u.{key} join deal d on u.place = d.first"
    )
    rows.connection.execute("drop table placed; drop table units")
    return "dealt", folds


def _parts(rows: Rows, relation: str, first: str, n: int) -> list[str]:
    """Write ranges of the first key, so that what is sorted at a time is a few times the memory at most."""
    size = 8 * n * (len(rows.x) + 6)
    count = int(-(-size // (_AT_A_TIME * rows.table.limit)))
    if count < 2:
        return ["true"]
    shares = ", ".join(str(k / count) for k in range(1, count))
    (found,) = rows.first([f"approx_quantile({first}, [{shares}])"], relation)
    cuts = [literal(float(cut)) for cut in sorted(set(found))]
    return [
        " and ".join([*([f"{first} >= {low}"] if low else []), *([f"{first} < {high}"] if high else [])])
        for low, high in zip(["", *cuts], [*cuts, ""], strict=True)
    ]


def _offset(rows: Rows, means: Means, order: list[str]) -> str:
    """Write how many units were dealt before a row's arm: the larger arm is first, or that which begins."""
    one, none = means.n
    first = one > none
    if one == none:
        ((first,),) = rows.ask(f"select t from {rows.relation} order by {', '.join(order)} limit 1")
    return f"case when t then {0 if first else none} else {one if first else 0} end"


def _content(rows: Rows) -> list[str]:
    """Write what rows are ordered by; levels of text as their dummies would order them."""
    out: list[str] = []
    design = rows.design
    for name in dict.fromkeys(design.sources):
        own = [j for j, source in enumerate(design.sources) if source == name]
        k = len(own) + 1
        out.append(
            " + ".join(f"x{j} * {k - i}" for i, j in enumerate(own, start=1))
            if name in design.levels
            else f"x{own[0]}"
        )
    return out
