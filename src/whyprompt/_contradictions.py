"""What in a study contradicts itself, known from the study alone: each with the keys it stands under."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._rows import unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whyprompt.study import AuditSettings, Contrast, EffectSettings, Study

__all__ = ["Problem", "contradictions", "unreadable_values"]

Problem = tuple[tuple["str | int", ...], str]
"""A path of keys, and what is wrong there."""


def unreadable_values(node: Any, at: tuple[str | int, ...] = ()) -> Iterator[Problem]:  # noqa: ANN401 - raw
    """Find values that no setting can hold: half characters, NUL, nan, infinity, numbers beyond 64 bits."""
    if isinstance(node, dict):
        for key, value in node.items():
            if (why := _odd(key)) is not None:
                yield at, f"a key {why}"
            else:
                yield from unreadable_values(value, (*at, key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from unreadable_values(value, (*at, i))
    elif (why := _odd(node)) is not None:
        yield at, why


def _odd(value: object) -> str | None:
    if isinstance(value, str) and "\0" in value:
        return "holds a NUL character"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "holds a whole number beyond 64 bits"
    return unreadable(value)


def contradictions(study: Study) -> Iterator[Problem]:
    """Find what in a study does not go together.

    Yields
    ------
    location, message
    """
    yield from _outcomes(study)
    yield from _arms(study)
    yield from _design(study)


def _outcomes(study: Study) -> Iterator[Problem]:
    names = [o.name for o in study.outcomes]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield ("outcomes", i), f"outcome {name!r} is listed twice"
    for i, source in enumerate(study.items):
        for k, column in enumerate(getattr(getattr(source, "columns", None), "covariates", ())):
            if column in names:
                yield (
                    ("items", i, "columns", "covariates", k),
                    f"{column!r} is both an outcome and a covariate: rename one",
                )
    if study.effect.outcome not in names:
        listed = ", ".join(names)
        yield (
            ("effect", "outcome"),
            f"{study.effect.outcome!r} is not among the outcomes ({listed}): name one of them",
        )


def _arms(study: Study) -> Iterator[Problem]:
    contrasts: list[tuple[tuple[str | int, ...], Contrast | None]] = [
        (("effect", "contrast"), study.effect.contrast)
    ]
    mediation = study.mediation
    if mediation is not None:
        contrasts.append((("mediation", "contrast"), mediation.contrast))
        contrasts += [(("mediation", "contrasts", i), c) for i, c in enumerate(mediation.contrasts)]
    for where, contrast in contrasts:
        if contrast is None:
            continue
        for role in ("treated", "control"):
            arm = getattr(contrast, role)
            if arm not in study.arms:
                yield (*where, role), _no_arm(study, arm)
        if contrast.treated == contrast.control:
            yield where, f"compares {contrast.treated!r} with itself"
    placebo = mediation.placebo if mediation is not None else None
    if placebo is not None and placebo not in study.arms:
        yield ("mediation", "placebo"), _no_arm(study, placebo)
    for name, arm in study.arms.items():
        wanted = getattr(arm, "shots", 0)
        for i, source in enumerate(study.items):
            if wanted > source.shot_pool:
                yield (
                    ("arms", name, "shots"),
                    f"arm {name!r} draws {wanted} shots, but items[{i}].shot_pool is {source.shot_pool}",
                )


def _no_arm(study: Study, name: str) -> str:
    return f"names the arm {name!r}; the arms are {', '.join(study.arms)}"


# Which of the keys of `effect` say nothing under a design, and why.
_IDLE = {
    "paired": (
        ("method", "estimand", "caliper", "exact"),
        "each item is compared with itself; an audit has settings of its own",
    ),
    "randomized": (("method", "caliper", "exact"), "the lot makes the arms comparable"),
}
_CALIPER = ("nearest", "optimal", "full")
_WEIGHTS = ("naive", "ipw", "overlap", "entropy", "aipw")


def _design(study: Study) -> Iterator[Problem]:
    effect, audit = study.effect, study.effect.audit
    idle, why = _IDLE.get(study.design, ((), ""))
    for key in idle:
        silent = [type(effect).model_fields[key].get_default(call_default_factory=True)]
        if study.design == "randomized":
            silent.append("naive")
        if getattr(effect, key) not in silent:
            yield ("effect", key), f"has no meaning with design: {study.design}, where {why}: leave it out"
    if study.design == "paired" and effect.confounders and audit is None:
        why = "each item is compared with itself, and there is no audit"
        yield ("effect", "confounders"), f"has no meaning with design: paired, where {why}: leave it out"
    if study.design == "observational":
        yield from _options(effect, ("effect",))
    if audit is not None:
        if study.design != "paired":
            why = f"an audit needs every item under both arms, and the design is {study.design}"
            yield ("effect", "audit"), f"{why}: leave it out, or set design: paired"
        if audit.draws == 1:
            yield ("effect", "audit", "draws"), "an audit needs at least two draws, or 0 for none"
        yield from _options(audit, ("effect", "audit"))


def _options(settings: EffectSettings | AuditSettings, at: tuple[str, ...]) -> Iterator[Problem]:
    method = settings.method
    if settings.caliper is not None and method not in _CALIPER:
        yield (*at, "caliper"), f"has no meaning for method {method!r}: use {', '.join(_CALIPER)}"
    if settings.exact and method in _WEIGHTS:
        yield (*at, "exact"), f"has no meaning for method {method!r}: use a matching method"
    if getattr(settings, "replace", False) and method != "nearest":
        yield (*at, "replace"), f"has no meaning for method {method!r}: use nearest"
