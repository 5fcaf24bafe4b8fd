"""Holding a graph against data: tests of the conditional independencies that it implies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from whyprompt._words import p_words
from whyprompt.errors import DataError, GraphError
from whyprompt.results import Check, with_holm
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    from whyprompt.graph.types import Implication
    from whyprompt.tables import Table

    Array = NDArray[np.float64]

_ALPHA = 0.05


def run_tests(
    variables: Sequence[str],
    implications: Callable[[list[str]], Iterable[Implication]],
    frame: IntoDataFrame,
    *,
    missing: str,
) -> Check:
    """Test every implication among measured variables that are columns, as `implications` gives them."""
    if missing not in {"raise", "drop"}:
        raise GraphError(f"missing={missing!r}: choose 'raise' or 'drop'")
    table = open_table(frame)
    columns = [name for name in variables if name in table.columns]
    if not columns:
        raise GraphError(
            "no variable of the graph is a column of the table",
            hint=f"the graph has {', '.join(variables)}; the table has {', '.join(table.columns)}",
        )
    implied = list(implications(columns))
    used = {name for entry in implied for name in (entry.x, entry.y, *entry.given)}
    blocks = {name: _encode(table, name, missing=missing) for name in columns if name in used}
    tests = with_holm([_test(entry, blocks) for entry in implied])
    bad = [test for test in tests if _p(test) < _ALPHA]
    return Check(
        name="implied independencies",
        verdict="fails" if bad else "passes" if tests else "untestable",
        parts=tests,
        sentence=_sentence(len(tests), sorted(bad, key=_p)),
        axis="partial correlation",
        settings={"missing": missing},
    )


def _p(test: Implication) -> float:
    return 1.0 if test.p_adjusted is None else test.p_adjusted


def _sentence(n: int, bad: Sequence[Implication]) -> str:
    if not n:
        return "The graph implies no independence among these columns, so data cannot contradict it."
    if not bad:
        return (
            f"None of the {n} independencies that the graph implies is contradicted at 5% (Holm);"
            " graphs with more arrows fit as well, and a relation that is not linear may have been missed."
        )
    shown = "; ".join(
        f"{t.label} (partial correlation {t.estimate:.2f}, p {p_words(_p(t))})" for t in bad[:3]
    )
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return (
        f"{len(bad)} of the {n} independencies that the graph implies are contradicted at 5%"
        f" (Holm): {shown}{more}. An arrow or a common cause is missing there, or the relation is not"
        " linear; what the graph says may be adjusted for is in doubt."
    )


def _encode(table: Table, name: str, *, missing: str) -> Array:
    """Turn a column into an (n, k) block, one dummy a level less the first unless it is numeric."""
    column = table.column(name, role="graph")
    if column.n_missing and missing == "raise":
        raise DataError(
            f"column {name!r} has {column.n_missing} missing values",
            hint="impute them, or pass missing='drop' to test on complete rows",
        )
    if len(set(column.data[~column.missing].tolist())) < 2:
        raise DataError(f"column {name!r} is constant: its independencies cannot be tested")
    return column.coded().matrix


def _test(implied: Implication, blocks: dict[str, Array]) -> Implication:
    import numpy as np
    from scipy import stats

    x, y = blocks[implied.x], blocks[implied.y]
    z = np.column_stack([np.ones(len(x)), *(blocks[name] for name in sorted(implied.given))])
    whole = ~np.isnan(np.column_stack([x, y, z])).any(axis=1)
    x, y, z = x[whole], y[whole], z[whole]
    n, p, q = len(x), x.shape[1], y.shape[1]
    basis, singular, _ = np.linalg.svd(z / np.maximum(np.abs(z).max(axis=0), 1e-300), full_matrices=False)
    basis = basis[:, singular > singular[0] * 1e-10]
    spare = n - basis.shape[1]
    if spare <= p + q:
        raise DataError(f"{n} complete rows are too few to test {implied}")
    parts = []
    for name, block in ((implied.x, x), (implied.y, y)):
        residual = block - basis @ (basis.T @ block)
        u, s, _ = np.linalg.svd(residual, full_matrices=False)
        scale = np.linalg.norm(block - block.mean(axis=0))
        keep = s > 1e-8 * scale
        if not keep.any():
            given = ", ".join(sorted(implied.given)) or "the constant"
            raise DataError(f"column {name!r} is a linear function of {given}: {implied} cannot be tested")
        parts.append((u[:, keep], residual))
    (u_x, r_x), (u_y, r_y) = parts
    p, q = u_x.shape[1], u_y.shape[1]
    canonical = np.clip(np.linalg.svd(u_x.T @ u_y, compute_uv=False), 0.0, 1.0)
    # A correlation of exactly one would give log 0.
    log_wilks = float(np.sum(np.log1p(-np.minimum(canonical**2, 1 - 1e-15))))
    t = float(np.sqrt((p * p * q * q - 4) / (p * p + q * q - 5))) if p * p + q * q > 5 else 1.0
    df2 = (spare - 0.5 * (p + q + 1)) * t - 0.5 * (p * q - 2)
    ratio = float(np.exp(log_wilks / t))
    statistic = (1 - ratio) / ratio * df2 / (p * q)
    sign = 1.0
    if p == q == 1 and r_x.shape[1] == r_y.shape[1] == 1:
        sign = float(np.sign((r_x * r_y).sum())) or 1.0
    return replace(
        implied,
        estimate=sign * float(canonical[0]),
        statistic=float(statistic),
        df_numerator=float(p * q),
        df=float(df2),
        p_value=float(stats.f.sf(statistic, p * q, df2)),
        n_used=n,
    )
