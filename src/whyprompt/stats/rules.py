"""Rules that every part keeps alike: Holm's adjustment, when clusters are few, what an imbalance is."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Sequence

SMD_LIMIT = 0.1
"""A standardised mean difference above this is called an imbalance (Austin 2009; Stuart 2010)."""

_FEW_CLUSTERS = 40
"""Where an interval has no degrees of freedom of its own (Angrist and Pischke 2009, section 8.2.3)."""
_FEW_DF = 4.0
"""Of Satterthwaite's degrees of freedom, which count the sizes too (Pustejovsky and Tipton 2018)."""


def few_clusters(count: int, df: float | None = None) -> tuple[str, ...]:
    """Say that clusters are few; empty where they are enough.

    `df` are Satterthwaite's degrees of freedom; left out where an interval has none: by the bootstrap, the
    normal distribution or clusters minus one.

    Angrist, J. D. and Pischke, J.-S. (2009). Mostly Harmless Econometrics. Princeton, section 8.2.3.
    Pustejovsky, J. E. and Tipton, E. (2018). Journal of Business and Economic Statistics 36, 672-683.

    >>> few_clusters(12)
    ('with only 12 clusters intervals are approximate and may be too short',)
    >>> few_clusters(5, df=2.75)
    ('the 5 clusters are worth 2.8 degrees of freedom: intervals are approximate',)
    >>> few_clusters(40), few_clusters(9, df=7.5)
    ((), ())
    """
    if df is not None:
        if df >= _FEW_DF:
            return ()
        return (f"the {count} clusters are worth {df:.1f} degrees of freedom: intervals are approximate",)
    if count >= _FEW_CLUSTERS:
        return ()
    return (f"with only {count} clusters intervals are approximate and may be too short",)


@overload
def holm(p_values: Sequence[float]) -> list[float]: ...
@overload
def holm(p_values: Sequence[float | None]) -> list[float | None]: ...
def holm(p_values: Sequence[float | None]) -> list[float] | list[float | None]:
    """Adjust p-values for their number by Holm's step-down rule; None stays None and is not counted.

    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of
    Statistics 6, 65-70.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, k) in enumerate(known):
        running = max(running, min(1.0, p * (len(known) - rank)))
        out[k] = running
    return out


def p_of_draws(hits: float, draws: int) -> float:
    """Give the share of draws at least as far out, the real one counted in, so that no p is zero.

    Phipson and Smyth (2010). Permutation p-values should never be zero. Statistical Applications in
    Genetics and Molecular Biology 9.
    """
    return (1 + hits) / (1 + draws)
