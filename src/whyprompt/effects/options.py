"""The options of `estimate_effect`: checked, defaults settled, and refused where they would do nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

from whyprompt._arguments import MOST_DRAWS, at_least, seed
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.methods.nearest import Order, TieRule
    from whyprompt.effects.problem import Problem

__all__ = [
    "MATCHING",
    "METHODS",
    "WEIGHTING",
    "Options",
    "check_options",
    "refuse_ignored",
    "settle_options",
]

METHODS = (
    "naive",
    "nearest",
    "optimal",
    "full",
    "kernel",
    "subclass",
    "cem",
    "ipw",
    "overlap",
    "entropy",
    "aipw",
)
# Counts among the options, with the least and the most that is computed.
_COUNTS = (
    ("draws", 2, MOST_DRAWS),
    ("ratio", 1, 1_000),
    ("n_strata", 1, 1_000),
    ("neighbours", 0, 1_000),
)
WEIGHTING = ("ipw", "overlap", "entropy", "aipw")
MATCHING = tuple(name for name in METHODS if name not in {"naive", *WEIGHTING})


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Every option of `estimate_effect` that is not a column, checked."""

    method: str
    estimand: str
    caliper: float | None
    caliper_unit: str
    replace: bool
    ratio: int
    order: Order | None
    distance: Any
    discard: str
    kernel: str
    bandwidth: float | None
    n_strata: int
    cutpoints: Mapping[str, Any] | None
    ties: TieRule
    level: float
    se: str
    draws: int
    neighbours: int
    denominator: Denominator
    random_state: int
    mahalanobis_on: tuple[str, ...] | None = None


def _default_method(design: str, *, adjusts: bool) -> tuple[str, str | None]:
    """Return the method, and the estimand, of a call that names no method.

    Parameters
    ----------
    design : str
    adjusts : bool
        Whether there are covariates, or a known propensity.

    Returns
    -------
    method : str
        An observational table is matched. One whose arms were drawn by lot needs nothing but the difference
        of means; where covariates are named, weights by their score keep every row, remove the chance
        imbalance and so narrow the interval as regression would, and still average over all rows.
    estimand : str or None
        None for the method's own.

    References
    ----------
    Williamson, E. J., Forbes, A. and White, I. R. (2014). Variance reduction in randomised trials by inverse
    probability weighting using the propensity score. Statistics in Medicine 33, 721-737.
    """
    if design != "randomized":
        return "nearest", None
    return ("ipw", "ate") if adjusts else ("naive", None)


def check_options(
    *,
    method: str,
    estimand: str | None,
    design: str,
    level: float,
    se: str,
    replace: bool | None,
    **rest: Any,  # noqa: ANN401 - passed on to `Options`, which types them
) -> Options:
    """Check the options of `estimate_effect` and settle their defaults.

    Returns
    -------
    Options

    Raises
    ------
    EstimationError
        If an option is not known, or two contradict each other.
    """
    name = {"difference": "naive", "naive difference": "naive"}.get(method, method)
    if name not in METHODS:
        raise EstimationError(f"method {method!r} is not known", hint=f"one of: {', '.join(METHODS)}")
    default = {"naive": "ate", "overlap": "ato"}.get(name, "att")
    wanted = (estimand or default).lower()
    if wanted not in {"att", "atc", "ate", "ato"}:
        raise EstimationError(f"estimand {estimand!r} is not known", hint="one of: att, atc, ate, ato")
    if wanted == "ato" and name not in {"overlap", "ipw"}:
        raise EstimationError("the ATO is estimated by overlap weights", hint="method='overlap'")
    if design not in {"observational", "randomized"}:
        raise EstimationError(
            f"design {design!r} is not known",
            hint="observational or randomized; for both arms on the same items use paired_effect",
        )
    if not 0 < level < 1:
        raise EstimationError(f"the level is {level}; it lies between 0 and 1, 0.95 for example")
    kinds = {"auto", "pairs", "abadie_imbens", "strata", "bootstrap", "wild_bootstrap"}
    if se not in kinds:
        raise EstimationError(
            f"standard error {se!r} is not known", hint=f"one of: {', '.join(sorted(kinds))}"
        )
    units = {"sd", "raw", "sd_logit", "raw_logit"}
    if rest["caliper_unit"] not in units:
        raise EstimationError(
            f"caliper unit {rest['caliper_unit']!r} is not known", hint=f"one of: {', '.join(sorted(units))}"
        )
    if rest["caliper"] is not None and name not in {"nearest", "optimal", "full"}:
        raise EstimationError(
            f"a caliper has no meaning for method {name!r}", hint="use nearest, optimal or full"
        )
    for count, least, most in _COUNTS:
        at_least(rest[count], least, count, most=most)
    seed(rest["random_state"])
    for size in ("caliper", "bandwidth"):
        if rest[size] is not None and not 0 < rest[size] < math.inf:
            raise EstimationError(f"{size} is {rest[size]}; it is a distance above zero")
    _refuse_meaningless(name, replace=replace, **rest)
    if isinstance(rest["distance"], str) and rest["distance"] not in {"logistic", "logit", "mahalanobis"}:
        raise EstimationError(
            f"distance {rest['distance']!r} is not known",
            hint="logistic, logit, mahalanobis or a scikit-learn classifier",
        )
    if rest.get("mahalanobis_on") is not None and rest["distance"] != "mahalanobis":
        raise EstimationError(
            "mahalanobis_on names what the Mahalanobis distance is over", hint="distance='mahalanobis'"
        )
    reuse = replace if replace is not None else (name == "nearest" and wanted == "ate")
    return Options(method=name, estimand=wanted, level=level, se=se, replace=reuse, **rest)


def _refuse_meaningless(
    method: str,
    *,
    replace: bool | None,
    ratio: int,
    order: Order | None,
    ties: TieRule,
    kernel: str,
    bandwidth: float | None,
    n_strata: int,
    cutpoints: Mapping[str, Any] | None,
    discard: str,
    **_: Any,  # noqa: ANN401 - options that every method takes
) -> None:
    """Refuse an option away from its default that the method would not look at."""
    asked: tuple[tuple[str, bool, tuple[str, ...]], ...] = (
        ("replace", bool(replace), ("nearest",)),
        ("ratio", ratio != 1, ("nearest", "optimal")),
        ("order", order is not None, ("nearest",)),
        ("ties", ties != "sorted", ("nearest",)),
        ("kernel", kernel != "epanechnikov", ("kernel",)),
        ("bandwidth", bandwidth is not None, ("kernel",)),
        ("n_strata", n_strata != 6, ("subclass",)),
        ("cutpoints", cutpoints is not None, ("cem",)),
    )
    for name, is_asked, methods in asked:
        if is_asked and method not in methods:
            raise EstimationError(
                f"{name} has no meaning for method {method!r}", hint=f"use {' or '.join(methods)}"
            )
    if discard == "none":
        return
    if method in {"naive", "cem", "entropy"}:
        raise EstimationError(
            f"discard={discard!r} has no meaning for method {method!r}, which has no propensity score",
            hint="leave it out",
        )
    if method in WEIGHTING and discard != "crump":
        raise EstimationError(
            f"discard={discard!r} is for matching methods",
            hint="for weights discard='crump' trims to the scores where the arms overlap",
        )


def settle_options(
    chosen: tuple[str, ...] | None,
    propensity: str | None,
    *,
    design: str,
    method: str | None,
    estimand: str | None,
    mahalanobis_on: Sequence[str] | None,
    **rest: Any,  # noqa: ANN401 - checked by `check_options`
) -> Options:
    """Settle the method of a call that names none, and check the options.

    Parameters
    ----------
    chosen : tuple of str or None
        What is adjusted for; None where it was not said.
    propensity : str or None
        Column with a known one.
    design, method, estimand, mahalanobis_on, **rest
        As in `estimate_effect`.

    Returns
    -------
    Options

    Raises
    ------
    EstimationError
        As `check_options`, or if a method does not know what to adjust for.
    """
    adjusts = bool(chosen) or propensity is not None
    if method is None:
        method, wanted = _default_method(design, adjusts=adjusts)
        estimand = estimand or wanted
    options = check_options(
        method=method,
        estimand=estimand,
        design=design,
        mahalanobis_on=None if mahalanobis_on is None else tuple(mahalanobis_on),
        **rest,
    )
    if adjusts or options.method == "naive":
        return options
    if chosen is None:
        raise EstimationError(
            f"method {options.method!r} needs to know what to adjust for",
            hint="give confounders=[...] or a graph, or method='naive' for the plain difference",
        )
    return changed(options, method="naive")


def refuse_ignored(problem: Problem, options: Options) -> None:
    """Refuse what was asked for and would have no effect.

    Parameters
    ----------
    problem : Problem
    options : Options

    Raises
    ------
    EstimationError
        If exact columns, covariate calipers or the Mahalanobis distance do not go with the method.
    """
    method = options.method
    pairs = ("nearest", "optimal", "full")
    if problem.strata is not None and (method == "naive" or method in WEIGHTING):
        raise EstimationError(
            f"exact columns have no meaning for method {method!r}", hint="use a matching method"
        )
    if problem.limits and method not in pairs:
        raise EstimationError(
            f"calipers on covariates have no meaning for method {method!r}",
            hint="use nearest, optimal or full",
        )
    if options.distance == "mahalanobis" and method not in pairs:
        raise EstimationError(
            f"the Mahalanobis distance has no meaning for method {method!r}",
            hint="use nearest, optimal or full",
        )
