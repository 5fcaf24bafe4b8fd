"""What effects are effects on, in words: the scale of every outcome of a sweep."""

from __future__ import annotations

WRITTEN = "generated "
"""Begins the outcome of a sweep that scores what the model writes."""

_SCALES = {
    "log_prob": ("the answer's log-probability", "nats"),
    "prob": ("the answer's probability", "risk differences"),
    "margin": ("the answer's log odds over the foil", "nats"),
    "first_token": ("whether the answer's first token is the model's first choice", "risk differences"),
}


def scale_words(outcome: str, *, binary: bool = False) -> str:
    """Say what an effect is on, and in which unit; an outcome of one's own is named, and nothing more.

    `binary` says of what the model writes whether its score is right or wrong, or a grade.

    >>> scale_words("prob")
    "the answer's probability (risk differences)"
    >>> scale_words("generated exact_match", binary=True)
    'exact_match of what the model writes (risk differences)'
    """
    if outcome in _SCALES:
        what, unit = _SCALES[outcome]
        return f"{what} ({unit})"
    if not outcome.startswith(WRITTEN):
        return outcome
    unit = "risk differences" if binary else "differences of means"
    return f"{outcome.removeprefix(WRITTEN)} of what the model writes ({unit})"
