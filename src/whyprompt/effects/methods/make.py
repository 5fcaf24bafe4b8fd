"""The estimators by name: `make_method` builds one from its options, `settle_plan` says what is computed."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from whyprompt._arguments import MOST_DRAWS, at_least, seed
from whyprompt._words import listed
from whyprompt.effects.checks.balance import check_denominator
from whyprompt.effects.methods.aipw import AIPW
from whyprompt.effects.methods.cem import CEM
from whyprompt.effects.methods.entropy import Entropy
from whyprompt.effects.methods.full import Full
from whyprompt.effects.methods.ipw import IPW
from whyprompt.effects.methods.kernel import Kernel
from whyprompt.effects.methods.learners import score_column, score_model
from whyprompt.effects.methods.method import Method, Plan
from whyprompt.effects.methods.naive import Naive
from whyprompt.effects.methods.nearest import Nearest
from whyprompt.effects.methods.optimal import Optimal
from whyprompt.effects.methods.overlap import Overlap
from whyprompt.effects.methods.pairing import Pairing
from whyprompt.effects.methods.subclass import Subclass
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.checks.balance import Denominator

_KINDS: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (Naive, Nearest, Optimal, Full, Kernel, Subclass, CEM, IPW, Overlap, Entropy, AIPW)
}
METHODS = tuple(_KINDS)

MethodLike = str | Method | dict[str, dict[str, Any]]
"""A name, a method, or a mapping of one name to its options as a study file has it."""

# How an option that a method has not is spoken of.
_SPOKEN = {
    "caliper": "a caliper has",
    "exact": "exact columns have",
    "covariate_calipers": "calipers on covariates have",
}
_ERRORS = ("abadie_imbens", "auto", "bootstrap", "pairs", "strata", "wild_bootstrap")


def options_of(method: str) -> tuple[str, ...]:
    """Name the options of a method.

    >>> options_of("cem")
    ('cutpoints', 'exact', 'regression_adjustment')
    """
    return tuple(f.name for f in fields(_kind(method)))  # type: ignore[arg-type]  # each is a dataclass


_WRITTEN = (
    ("bool", "switch"),
    ("int", "count"),
    ("float | str", "number or text"),
    ("float", "number"),
    ("Sequence[str]", "columns"),
    ("Mapping", "sizes"),
    ("OutcomeModel", "text"),
)


def option_kinds(method: str) -> dict[str, str]:
    """Say what each option of a method takes, for those who write options as text.

    ``"switch"``, ``"count"``, ``"number"``, ``"number or text"``, ``"columns"``, ``"sizes"`` (a number for
    each of some columns), ``"text"``, or ``"object"``, which has no text.

    >>> option_kinds("ipw")
    {'stabilised': 'switch', 'truncate': 'number', 'discard': 'number or text'}
    """
    written = {f.name: str(f.type) for f in fields(_kind(method))}  # type: ignore[arg-type]  # a dataclass
    return {
        name: next((kind for start, kind in _WRITTEN if annotation.startswith(start)), "text")
        for name, annotation in written.items()
    }


def make_method(method: MethodLike, /, **options: Any) -> Method:  # noqa: ANN401 - checked by the method
    """Build a method from its name and its options.

    Parameters
    ----------
    method : str, mapping or Method
        A name; a mapping of one name to its options, as a study file has it; or a method, which is given
        back and has its options already.
    **options
        Of the method. None and an empty list say nothing.

    Returns
    -------
    Method

    Raises
    ------
    EstimationError
        If there is no such method, or it has no such option; the message names the methods that have it.

    Examples
    --------
    >>> make_method("nearest", caliper=0.2) == make_method({"nearest": {"caliper": 0.2}})
    True
    >>> make_method("ipw", caliper=0.2)
    Traceback (most recent call last):
    ...
    whyprompt.errors.EstimationError: a caliper has no meaning for method 'ipw'
      hint: use nearest, optimal or full
    """
    given = {name: value for name, value in options.items() if not _says_nothing(value)}
    if isinstance(method, Method):
        if given:
            raise EstimationError(
                f"{next(iter(given))} is given beside a method that has its options already",
                hint=f"{type(method).__name__}({next(iter(given))}=...)",
            )
        return method
    if not isinstance(method, str):
        if not hasattr(method, "items") or len(method) != 1:
            raise EstimationError(
                f"method {method!r} is not known",
                hint="a name, or one name with its options: nearest: {caliper: 0.2}",
            )
        method, own = next(iter(method.items()))
        twice = sorted(set(own or {}) & set(given))
        if twice:
            raise EstimationError(f"option {twice[0]!r} is given twice")
        given = {**(own or {}), **given}
    known = options_of(method)
    for name, value in given.items():
        if name not in known:
            raise _foreign(name, value, method)
    return _kind(method)(**given)


def estimand_of(method: MethodLike, asked: str | None) -> str | None:
    """Give what to ask of a method among others: one that estimates a single thing answers that alone."""
    known = (_kind(method) if isinstance(method, str) else make_method(method)).estimands
    return known[0] if len(known) == 1 else asked


def _says_nothing(value: object) -> bool:
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def _kind(name: str) -> type[Method]:
    if name not in _KINDS:
        raise EstimationError(f"method {name!r} is not known", hint=f"one of: {', '.join(METHODS)}")
    return _KINDS[name]


def _foreign(name: str, value: object, method: str) -> EstimationError:
    """Say which methods have an option that this one has not."""
    having = [other for other in METHODS if name in options_of(other)]
    if not having:
        known = {option for other in METHODS for option in options_of(other)}
        own = ", ".join(options_of(method)) or "none"
        return EstimationError(
            f"option {name!r} is not known",
            hint=f"{method} has {own}; other methods have {', '.join(sorted(known - {*options_of(method)}))}",
        )
    if name == "discard":
        return EstimationError(
            f"discard={value!r} has no meaning for method {method!r}, which has no propensity score",
            hint="leave it out",
        )
    spoken = _SPOKEN.get(name, f"{name} has")
    if name == "distance" and value == "mahalanobis":
        spoken = "the Mahalanobis distance has"
        having = [other for other, kind in _KINDS.items() if issubclass(kind, Pairing)]
    return EstimationError(
        f"{spoken} no meaning for method {method!r}", hint=f"use {listed(having, joint='or')}"
    )


def settle_plan(
    chosen: Sequence[str] | None,
    *,
    method: MethodLike | None,
    options: Mapping[str, Any],
    estimand: str | None = None,
    design: str = "observational",
    propensity: Any = None,  # noqa: ANN401 - a column or a classifier
    level: float = 0.95,
    std_error: str = "auto",
    draws: int = 1000,
    denominator: Denominator = "pooled",
    random_state: int = 0,
) -> Plan:
    """Decide what is computed: the method of a call that names none, its estimand, every option checked.

    `chosen` is what is adjusted for, None where it was not said, which is refused where the method needs it;
    `options` are the method's, the rest is as in `estimate_effect`.

    An observational table gets the doubly robust estimate. One whose arms were drawn by lot needs nothing but
    the difference of means; where covariates are named, it is adjusted for what they predict of the outcome,
    which narrows the interval and, the share of the arm being known, biases nothing (Wager, Du, Taylor and
    Tibshirani 2016, PNAS 113, 12673-12678).
    """
    adjusts = bool(chosen) or score_column(propensity) is not None
    if method is None:
        method = "aipw"
        if design == "randomized":
            method, estimand = ("aipw", estimand or "ate") if adjusts else ("naive", estimand)
    made = make_method(method, **options)
    if propensity is not None and not made.by_score:
        raise EstimationError(
            f"propensity= has no meaning for method {made.name!r}, which has no propensity score"
            + (" with a Mahalanobis distance" if getattr(made, "distance", "") == "mahalanobis" else ""),
            hint="method='ipw', 'aipw' or 'overlap' weigh by it, 'full' and 'nearest' match on it",
        )
    wanted = (estimand or made.estimands[0]).lower()
    _check_estimand(made, wanted, estimand)
    if design == "paired":
        raise EstimationError(
            "design='paired' is not made for this analysis, which takes one arm a row",
            hint="estimate_effect, compare_arms and heterogeneous_effects compare items run under both arms",
        )
    if design not in {"observational", "randomized"}:
        also = "; estimate_effect has instrument, front_door and rollout as well"
        raise EstimationError(
            f"design {design!r} is not known", hint=f"observational, randomized or paired{also}"
        )
    if not 0 < level < 1:
        raise EstimationError(f"the level is {level}; it lies between 0 and 1, 0.95 for example")
    if std_error not in _ERRORS:
        raise EstimationError(
            f"standard error {std_error!r} is not known", hint=f"one of: {', '.join(_ERRORS)}"
        )
    at_least(draws, 2, "draws", most=MOST_DRAWS)
    check_denominator(denominator)
    seed(random_state)
    if not adjusts and not isinstance(made, Naive):
        if chosen is None:
            raise EstimationError(
                f"method {made.name!r} needs to know what to adjust for",
                hint="give confounders=[...] or a graph, or method='naive' for the plain difference",
            )
        for name in ("exact", "covariate_calipers", "mahalanobis_on"):
            if made.asked.get(name):
                raise _foreign(name, made.asked[name], "naive")
        made = Naive()
    return Plan(
        method=made,
        estimand=wanted,
        level=level,
        std_error=std_error,
        draws=draws,
        denominator=denominator,
        random_state=random_state,
        # A method's own score is the same by its name.
        score_model=None
        if isinstance(propensity, str) and propensity == made.score
        else score_model(propensity),
    )


def _check_estimand(method: Method, wanted: str, asked: str | None) -> None:
    if wanted not in {"att", "atc", "ate", "ato"}:
        raise EstimationError(f"estimand {asked!r} is not known", hint="one of: att, atc, ate, ato")
    if wanted in method.estimands:
        return
    if wanted == "ato":
        raise EstimationError("the ATO is estimated by overlap weights", hint="method='overlap'")
    raise EstimationError(
        f"method={method.name!r} does not estimate {wanted!r}; it estimates {', '.join(method.estimands)}"
    )
