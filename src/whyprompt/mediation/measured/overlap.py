"""Whether the mediator takes the values of one arm under the other: what natural effects rest on.

Sequential ignorability has two halves. One is that nothing unmeasured drives mediator and outcome, which
no data can show. The other can be seen: every value that the mediator takes under one arm must be possible
under the other (Imai, Keele and Yamamoto 2010, assumption 1, ``0 < P(M = m | T = t)``). Where it is not,
``E[Y(t, M(1 - t))]`` is read off a fitted line where there are no data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ENOUGH = 0.5
"""Below this share most of what is asked of an arm's outcome model is beyond what that arm has shown."""

_LEFT = 1e-6
_STILL = 0.01


def share_inside(values: Array, seen: Array) -> Array:
    """Share of the rows of `values` (n, ...) that lie inside the range of `seen` (m, ...), a column each.

    From twenty rows on, the lowest and the highest row of `seen` are left out: one row is no support.
    """
    low, high = _range(seen)
    return np.asarray(((values >= low) & (values <= high)).mean(0))


def _range(seen: Array) -> tuple[Array, Array]:
    ordered = np.sort(seen, axis=0)
    cut = int(len(seen) >= 20)
    return ordered[cut], ordered[len(seen) - 1 - cut]


def check_left(m: Array, x: Array, mediator: str, given: Sequence[str]) -> None:
    """Refuse a mediator of which treatment and confounders (`given`, of design `x`) leave nothing.

    R's ``lm`` drops a column of which the others leave a part of 1e-7. Matrices of moments, as in the
    bootstrap here, keep the square of that part, so 1e-6 is asked for: four digits of sixteen.
    """
    centred = m - m.mean()
    residual = centred - x @ np.linalg.lstsq(x, centred, rcond=None)[0]
    left = float(np.linalg.norm(residual) / np.linalg.norm(centred))
    if left < _LEFT:
        raise EstimationError(
            f"the mediator {mediator!r} is all but a function of {' and '.join(map(repr, given))}: of its "
            f"standard deviation they leave a part of {left:.1e}, so its effect cannot be told from theirs",
            hint="take a mediator that varies among rows of one arm",
        )


def overlap_warnings(
    raw: tuple[Array, Array], adjusted: tuple[Array, Array], labels: tuple[str, str], mediator: str
) -> tuple[str, ...]:
    """Say where the outcome model is asked for what an arm has not shown; else nothing.

    `raw` and `adjusted` are the mediator of the rows of either arm, as it is and with the confounders' part
    taken out; `labels` name the arms.
    """
    spread = [float(np.ptp(np.stack(_range(values)))) for values in raw]
    found = []
    for arm, other in ((0, 1), (1, 0)):
        here, there = labels[arm], labels[other]
        if spread[arm] <= _STILL * spread[other]:
            how = "hardly varies, about" if np.ptp(raw[arm]) else "is constant,"
            at = float(np.median(raw[arm]))
            found.append(f"under {here} {mediator} {how} {at:.3g}, so nothing there shows what it does")
            continue
        outside = 1 - float(share_inside(adjusted[other], adjusted[arm]))
        if outside > 1 - ENOUGH:
            rows = "all" if outside == 1 else f"{outside:.0%} of the"
            found.append(f"in {rows} rows of {there} {mediator} lies outside the range seen under {here}")
    if not found:
        return ()
    text = "; ".join(found)
    text = (
        f"{text[0].upper()}{text[1:]}. The split into a mediated and a direct effect therefore extrapolates: "
        f"it asks for the outcome of an arm at values of {mediator} hardly seen but under the other. "
        "The total effect does not rest on that."
    )
    return (text,)
