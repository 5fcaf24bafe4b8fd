"""Power of a mean of differences: what an effect needs to be seen, and what is seen with given items."""

from __future__ import annotations

import math

from whyprompt.errors import EstimationError


def power_of(noncentrality: float, *, df: float, level: float) -> float:
    """Return the power of a two-sided t test; `noncentrality` is the effect over its standard error.

    Reference: Cohen, J. (1988). Statistical Power Analysis for the Behavioral Sciences, section 2.4, with the
    noncentral t distribution.

    >>> round(power_of(2.8, df=1000, level=0.95), 2)
    0.8
    """
    from scipy import stats

    q = float(stats.t.ppf(0.5 + level / 2, df))
    size = abs(noncentrality)
    # The noncentral t has no accurate lower tail far out, where it adds nothing.
    low = float(stats.nct.cdf(-q, df, size)) if size < 6 else 0.0
    return float(stats.nct.sf(q, df, size)) + (low if math.isfinite(low) else 0.0)


def _noncentrality(df: float, level: float, power: float) -> float:
    from scipy import optimize, stats

    if not 0 < power < 1:
        raise EstimationError(f"the power is {power}; it lies between 0 and 1")
    if power <= 1 - level:
        raise EstimationError(f"a power of {power} is had without any effect at level {level}")
    high = 4.0 * float(stats.t.ppf(0.5 + level / 2, df) + stats.t.ppf(max(power, 0.5), df) + 1.0)
    return float(
        optimize.brentq(lambda d: power_of(d, df=df, level=level) - power, 0.0, high, xtol=1e-10, rtol=1e-12)
    )


def detectable_effect(error: float, *, df: float, level: float, power: float) -> float:
    """Return the smallest effect that a two-sided t test finds with the power wanted.

    Raises `EstimationError` if the power is not between ``1 - level`` and 1.

    >>> round(detectable_effect(0.1, df=99, level=0.95, power=0.8), 3)
    0.283
    """
    return _noncentrality(df, level, power) * error


def items_needed(effect: float, *, error: float, df: float, n: int, level: float, power: float) -> int:
    """Return how many items detect an effect, if error and df, which are of `n` items, scale with them.

    At least 2. Raises `EstimationError` if the power is not between ``1 - level`` and 1.
    """
    spread = error * math.sqrt(n)
    if spread == 0:
        return 2
    # Independent items have n - 1; clustered ones keep their share of degrees of freedom an item.
    independent = abs(df - (n - 1)) < 1e-9

    def enough(m: int) -> bool:
        free = m - 1.0 if independent else max(df * m / n, 1.0)
        return power_of(abs(effect) * math.sqrt(m) / spread, df=free, level=level) >= power

    _noncentrality(df, level, power)
    high = 2
    while not enough(high):
        high *= 2
        if high > 1 << 40:
            raise EstimationError(f"an effect of {effect:g} is too small to be seen with any number of items")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
