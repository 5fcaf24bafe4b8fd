"""Weights of learned odds made fit for use, by sums: see `effects.methods.calibrated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.large.rows import linear, literal
from whyprompt.effects.large.sums import products, square
from whyprompt.effects.methods.calibrated import FAR, STEPS, limit_of, moved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.methods.calibrated import Moments

    Floats = NDArray[np.float64]


def by_calibrated(rows: Rows, means: Means, made: str, estimand: str) -> tuple[str, str]:
    """Lower the largest of the weights ``raw`` of a relation, and move them until means are met.

    Give the relation with columns that the new weights need, and the weights.
    """
    about = {"att": "t", "atc": "not t"}.get(estimand, "true")
    size = {"att": means.n[0], "atc": means.n[1]}.get(estimand, sum(means.n))
    used = np.flatnonzero(means.scale)
    scaled = [
        f"least(greatest(u{j} / {literal(means.scale[j])}, {literal(-FAR)}), {literal(FAR)})" for j in used
    ]
    k = [f"k{i}" for i in range(len(used))]
    if k:
        middle = rows.first([f"avg({one})" for one in scaled], f"(select * from {made} where {about})")
        listed = ", ".join(
            f"{one} - {literal(m)} as {name}" for one, m, name in zip(scaled, middle, k, strict=True)
        )
        made = f"(select *, {listed} from {made})"
    weights = []
    for mine, n in (("t", means.n[0]), ("not t", means.n[1])):
        weights.append("raw" if mine == about else _of_arm(rows, made, mine, n, k, size))
    return made, f"case when t then {weights[0]} else {weights[1]} end"


def _of_arm(rows: Rows, made: str, mine: str, n: int, k: list[str], size: int) -> str:
    """Write the weights of an arm's `n` rows, which sum to `size`."""
    arm = f"(select * from {made} where {mine})"
    total, most = rows.first(["sum(raw)", "max(raw)"], arm)
    base, limit, largest = "raw", limit_of(n), most
    for _ in range(STEPS):
        cap = limit * total / n
        if largest <= cap * (1 + 1e-9):
            break
        base, largest = f"least(raw, {literal(cap)})", min(most, cap)
        (total,) = rows.first([f"sum({base})"], arm)
    base = f"{base} / {literal(total)}"
    level = 0.0

    def line(multipliers: Floats) -> str:
        return linear([-level, *multipliers], k)

    def sums(multipliers: Floats, asked: list[str]) -> Floats:
        given = f"(select *, {base} * exp({line(multipliers)}) as h from {arm})"
        return np.array(rows.first(asked, given), dtype=np.float64)

    def at(multipliers: Floats) -> tuple[float, Moments]:
        # Less what they came to before: exponentials then neither vanish nor overflow on the way.
        nonlocal level
        found = sums(multipliers, products(["1", *k], "h"))
        gram = square(found, len(k) + 1)
        whole = float(gram[0, 0])
        if not np.isfinite(found).all() or whole <= 0:
            return np.inf, lambda: (np.zeros(len(k)), np.eye(len(k)))
        level += float(np.log(whole))
        return level, lambda: (gram[0, 1:] / whole, gram[1:, 1:] / whole)

    def squares(multipliers: Floats) -> float:
        one, two = sums(multipliers, ["sum(h)", "sum(h * h)"])
        return float(two / one**2)

    (equal,) = rows.first([f"sum(({base}) * ({base}))"], arm)
    multipliers = moved(at, squares, len(k), float(equal))
    (whole,) = sums(multipliers, ["sum(h)"])
    return f"{base} * exp({line(multipliers)}) * {literal(size / float(whole))}"
