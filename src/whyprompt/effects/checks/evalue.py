"""E-values: how strong unmeasured confounding must be to explain an effect away."""

from __future__ import annotations

from typing import Literal

import numpy as np

from whyprompt._words import format_number
from whyprompt.errors import EstimationError
from whyprompt.results import Check, Estimate

# In standard deviations; beyond it a risk ratio of exp(0.91 d) is no longer a number to speak of.
_LARGEST = 100.0


def e_value(
    estimate: float,
    *,
    measure: Literal["risk_ratio", "odds_ratio", "difference"] = "risk_ratio",
    ci: tuple[float, float] | None = None,
    std_error: float | None = None,
    sd: float | None = None,
    rare: bool = False,
) -> Check:
    """Compute the E-value of VanderWeele and Ding.

    Parameters
    ----------
    estimate : float
        The effect: a risk ratio, an odds ratio or a difference of means.
    measure : {"risk_ratio", "odds_ratio", "difference"}, default "risk_ratio"
        What `estimate` is. An odds ratio of a common outcome counts as the square of a risk ratio; a
        difference ``d`` in standard deviations as the risk ratio ``exp(0.91 d)``.
    ci : tuple of float, optional
        Interval of a ratio.
    std_error : float, optional
        Of a difference, for its interval ``exp(0.91 d +- 1.78 s)``.
    sd : float, optional
        Standard deviation of the outcome, needed for a difference.
    rare : bool, default False
        Whether the outcome of an odds ratio is rare (below 15%): it then is the risk ratio.

    Returns
    -------
    Check
        `overall` is the effect as a (possibly approximate) risk ratio. Its parts are the ``"E-value"``, the
        least risk ratio that a confounder must have with both treatment and outcome to explain the effect
        away, and, where there is an interval, the ``"E-value of the interval"``, the same for its limit next
        to no effect; 1 where the interval includes it.

    Raises
    ------
    EstimationError
        If a number is not finite, a ratio is not positive, the interval does not hold the estimate, or `sd`
        is missing or far too small.

    References
    ----------
    VanderWeele and Ding (2017). Sensitivity analysis in observational research: introducing the E-value.
    Annals of Internal Medicine 167, table 2.

    Examples
    --------
    >>> found = e_value(3.9, ci=(1.8, 8.7))
    >>> [(part.label, round(part.estimate, 2)) for part in found.parts]
    [('E-value', 7.26), ('E-value of the interval', 3.0)]
    """
    given = {"estimate": estimate, "std_error": std_error, "sd": sd}
    given |= {} if ci is None else {"lower limit": ci[0], "upper limit": ci[1]}
    for name, value in given.items():
        if value is not None and not np.isfinite(value):
            raise EstimationError(f"the {name} is {value}: an E-value needs finite numbers")
    if std_error is not None and std_error < 0:
        raise EstimationError(f"std_error={std_error}: a standard error is not negative")
    if measure == "difference":
        if ci is not None:
            raise EstimationError("give std_error= and not ci= for a difference")
        ratio, limits = _of_difference(estimate, std_error, sd)
    elif measure in {"risk_ratio", "odds_ratio"}:
        ratio, limits = _of_ratio(estimate, ci, root=measure == "odds_ratio" and not rare)
    else:
        raise EstimationError(f"measure={measure!r}: choose 'risk_ratio', 'odds_ratio' or 'difference'")
    nearest = None
    if limits is not None:
        if not limits[0] <= ratio <= limits[1]:
            raise EstimationError(f"the interval {ci} does not hold the estimate {estimate}")
        nearest = 1.0 if limits[0] <= 1 <= limits[1] else _from_ratio(limits[0] if ratio > 1 else limits[1])
    needed = _from_ratio(ratio)
    approximate = measure == "difference" or (measure == "odds_ratio" and not rare)
    parts = [Estimate(label="E-value", estimate=needed)]
    if nearest is not None:
        parts.append(Estimate(label="E-value of the interval", estimate=nearest))
    low, high = limits or (None, None)
    return Check(
        name="E-value",
        verdict="untestable",
        overall=Estimate(
            label="risk ratio",
            estimate=ratio,
            ci_low=low,
            ci_high=high,
            note="approximate" if approximate else "",
        ),
        parts=tuple(parts),
        settings={"measure": measure, "rare": rare},
        axis="risk ratio",
        sentence=_sentence(ratio, needed, nearest, approximate=approximate),
    )


def _of_difference(
    estimate: float, std_error: float | None, sd: float | None
) -> tuple[float, tuple[float, float] | None]:
    """Turn a difference of means into a risk ratio with its interval."""
    if sd is None or not sd > 0:
        raise EstimationError(f"sd={sd}: the E-value of a difference needs the outcome's standard deviation")
    effect = estimate / sd
    reach = abs(effect) + 2.0 * (std_error or 0.0) / sd
    if not reach < _LARGEST:
        raise EstimationError(
            f"a difference of {reach:.3g} standard deviations has no meaning as a risk ratio",
            hint="check sd=, which is the outcome's within the arms",
        )
    ratio = float(np.exp(0.91 * effect))
    if std_error is None:
        return ratio, None
    margin = 1.78 * std_error / sd
    return ratio, (float(np.exp(0.91 * effect - margin)), float(np.exp(0.91 * effect + margin)))


def _of_ratio(
    estimate: float, ci: tuple[float, float] | None, *, root: bool
) -> tuple[float, tuple[float, float] | None]:
    """Take a risk ratio as it is, and an odds ratio of a common outcome by its root."""
    if not estimate > 0 or (ci is not None and not ci[0] > 0):
        raise EstimationError(f"a ratio is positive; got {estimate} with interval {ci}")

    def scaled(value: float) -> float:
        return float(np.sqrt(value)) if root else float(value)

    return scaled(estimate), None if ci is None else (scaled(ci[0]), scaled(ci[1]))


def _sentence(ratio: float, needed: float, nearest: float | None, *, approximate: bool) -> str:
    about = "approximately " if approximate else ""
    words = (
        f"To explain away a risk ratio of {about}{format_number(ratio)}, an unmeasured confounder would need"
        f" a risk ratio of at least {format_number(needed)} with the treatment and with the outcome, beyond"
        " the measured covariates"
    )
    if nearest is None:
        return words + "."
    if nearest == 1.0:
        return words + "; the interval includes no effect already, so none is needed to move it there."
    return words + f"; to move the interval to no effect, at least {format_number(nearest)}."


def _from_ratio(ratio: float) -> float:
    above = max(ratio, 1 / ratio)
    return float(above + np.sqrt(above * (above - 1)))
