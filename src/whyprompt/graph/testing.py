"""Holding a graph against data: tests of the conditional independencies that it implies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import p_words
from whyprompt.errors import DataError, GraphError
from whyprompt.graph.types import ImplicationTest
from whyprompt.stats.rules import holm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    import pandas as pd
    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    from whyprompt.graph.data import GraphData
    from whyprompt.graph.types import Implication

    Array = NDArray[np.float64]

__all__ = ["ImplicationTests", "run_tests"]


class ImplicationTests(tuple["ImplicationTest", ...]):
    """The tests of all implied independencies of a graph: a tuple with a sentence."""

    __slots__ = ()

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        if not self:
            return "The graph implies no independence among these columns, so data cannot contradict it."
        bad = sorted((t for t in self if t.p_holm < 0.05), key=lambda t: t.p_holm)
        if not bad:
            return (
                f"None of the {len(self)} independencies that the graph implies is contradicted at 5% (Holm);"
                " graphs with more arrows fit as well, and a relation that is not linear may have been"
                " missed."
            )
        shown = "; ".join(
            f"{t.implication} (partial correlation {t.partial_correlation:.2f}, p {p_words(t.p_holm)})"
            for t in bad[:3]
        )
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return (
            f"{len(bad)} of the {len(self)} independencies that the graph implies are contradicted at 5%"
            f" (Holm): {shown}{more}. An arrow or a common cause is missing there, or the relation is not"
            " linear; what the graph says may be adjusted for is in doubt."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the tests as values that JSON can hold.

        Returns
        -------
        dict
            ``sentence`` and ``tests``.
        """
        return {"sentence": self.sentence, "tests": [_row(test) for test in self]}

    def to_frame(self) -> pd.DataFrame:
        """Return the tests.

        Returns
        -------
        pandas.DataFrame
            One row a test.
        """
        import pandas as pd

        columns = ["implication", "partial_correlation", "statistic", "df1", "df2", "p_value", "p_holm", "n"]
        return pd.DataFrame([_row(test) for test in self], columns=columns)

    def __str__(self) -> str:
        return self.sentence


def _row(test: ImplicationTest) -> dict[str, Any]:
    return {
        "implication": str(test.implication),
        "partial_correlation": test.partial_correlation,
        "statistic": test.statistic,
        "df1": test.df[0],
        "df2": test.df[1],
        "p_value": test.p_value,
        "p_holm": test.p_holm,
        "n": test.n,
    }


def run_tests(
    graph: GraphData,
    implications: Callable[[list[str]], Iterable[Implication]],
    data: IntoDataFrame,
    *,
    missing: str,
) -> ImplicationTests:
    """Test every implication whose variables are columns; `implications` gives those among some columns."""
    import narwhals as nw

    if missing not in {"raise", "drop"}:
        raise GraphError(f"missing={missing!r}: choose 'raise' or 'drop'")
    frame = nw.from_native(data, eager_only=True)
    columns = [node for node in graph.nodes if node in frame.columns and node not in graph.unobserved]
    if not columns:
        raise GraphError(
            "no variable of the graph is a column of the table",
            hint=f"the graph has {', '.join(graph.nodes)}; the table has {', '.join(frame.columns)}",
        )
    implied = list(implications(columns))
    used = {name for entry in implied for name in (entry.x, entry.y, *entry.given)}
    blocks = {name: _encode(frame[name], missing=missing) for name in columns if name in used}
    raw = [_test(entry, blocks) for entry in implied]
    adjusted = holm([entry.p_value for entry in raw])
    return ImplicationTests(
        ImplicationTest(
            implication=entry.implication,
            partial_correlation=entry.partial_correlation,
            statistic=entry.statistic,
            df=entry.df,
            p_value=entry.p_value,
            p_holm=p_holm,
            n=entry.n,
        )
        for entry, p_holm in zip(raw, adjusted, strict=True)
    )


def _encode(series: object, *, missing: str) -> Array:
    """Turn a column into an (n, k) block, one dummy a level less the first unless it is numeric."""
    import narwhals as nw
    import numpy as np

    assert isinstance(series, nw.Series)
    name = series.name
    gone = series.is_null().to_numpy().astype(bool)
    if series.dtype.is_numeric():
        values = np.array(series.cast(nw.Float64).to_numpy(), dtype=float)[:, None]
        values[gone] = np.nan
        if np.isinf(values).any():
            raise DataError(f"column {name!r} has infinite values")
    else:
        labels = np.array([None if v is None else str(v) for v in series.to_list()], dtype=object)
        levels = sorted({str(v) for v in labels[~gone]})
        values = np.column_stack(
            [(labels == level).astype(float) for level in levels[1:]] or [np.zeros(len(labels))]
        )
        values[gone] = np.nan
    absent = int(np.isnan(values).any(axis=1).sum())
    if absent and missing == "raise":
        raise DataError(
            f"column {name!r} has {absent} missing values",
            hint="impute them, or pass missing='drop' to test on complete rows",
        )
    if np.nanmax(values, initial=-np.inf) == np.nanmin(values, initial=np.inf) or absent == len(values):
        raise DataError(f"column {name!r} is constant: its independencies cannot be tested")
    return values


def _test(implied: Implication, blocks: dict[str, Array]) -> ImplicationTest:
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
    return ImplicationTest(
        implication=implied,
        partial_correlation=sign * float(canonical[0]),
        statistic=float(statistic),
        df=(float(p * q), float(df2)),
        p_value=float(stats.f.sf(statistic, p * q, df2)),
        p_holm=1.0,
        n=n,
    )
