"""Scorers: what a completion, or the probability of the gold answer, is worth.

========================  ==============================================================================
``log_prob``              log-probability of the gold answer, all its tokens, natural logarithm
``perplexity``            of the gold answer: ``exp(-log_prob / tokens)``
``exact_match``           1 where greedy decoding writes the gold answer, and the answer ends there
``numeric_match``         1 where the last number of the completion equals the gold answer's
``string_match``          1 where completion and answer agree without case, punctuation and articles
``multiple_choice``       1 where the gold answer is the most probable of the item's choices
``embedding_similarity``  cosine similarity of completion and answer (extra ``embedding``)
a callable's name         ``call(completion=..., answer=..., item=...)``, or ``needs: scores``
========================  ==============================================================================

``exact_match`` asks that the answer *ends*: a model about to write ``10`` has not answered ``1``, though
every token of ``1`` is its first choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError, StudyError
from whyprompt.trials.outcomes.callables import checked_value, load_callable
from whyprompt.trials.outcomes.embedding import check_embedding, similarity
from whyprompt.trials.outcomes.text import last_number, normalise, parse_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.study import OutcomeSettings
    from whyprompt.trials.items.item import Item
    from whyprompt.trials.models.scoring import TokenScores

__all__ = [
    "Observed",
    "check_outcomes",
    "needs_choices",
    "needs_completion",
    "needs_look_ahead",
    "outcome_kind",
    "score_outcomes",
]

_READ_COMPLETION = {"numeric_match", "string_match", "embedding_similarity"}
_BINARY = {"exact_match", "numeric_match", "string_match", "multiple_choice"}


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a trial brought to light, before it is worth anything.

    Parameters
    ----------
    scores : TokenScores
        Of the gold answer.
    ends : bool or None
        Whether the greedy token after the answer leaves it as it is.
    completion : str or None
    choices : mapping of str to TokenScores
        Of each of the item's choices.
    """

    scores: TokenScores
    ends: bool | None = None
    completion: str | None = None
    choices: Mapping[str, TokenScores] | None = None


def needs_completion(outcomes: Sequence[OutcomeSettings]) -> bool:
    """Say whether any outcome reads a completion."""
    return any(o.name in _READ_COMPLETION if o.call is None else o.needs == "completion" for o in outcomes)


def needs_look_ahead(outcomes: Sequence[OutcomeSettings]) -> bool:
    """Say whether any outcome asks what follows the answer."""
    return any(o.call is None and o.name == "exact_match" for o in outcomes)


def needs_choices(outcomes: Sequence[OutcomeSettings]) -> bool:
    """Say whether any outcome compares the item's choices."""
    return any(o.call is None and o.name == "multiple_choice" for o in outcomes)


def outcome_kind(outcome: OutcomeSettings) -> str:
    """Give an outcome's kind: as the study says, else binary or continuous as its scorer is."""
    if outcome.kind is not None:
        return outcome.kind
    return "binary" if outcome.call is None and outcome.name in _BINARY else "continuous"


def check_outcomes(outcomes: Sequence[OutcomeSettings], items: Sequence[Item]) -> None:
    """Refuse outcomes that cannot be scored on these items, before anything runs.

    Raises
    ------
    StudyError, DataError
        Naming the outcome and what it lacks.
    """
    for outcome in outcomes:
        _check_options(outcome)
        if outcome.call is not None:
            load_callable(outcome.call, outcome=outcome.name)
        elif outcome.name == "multiple_choice":
            bare = next((i for i in items if len(i.choices) < 2), None)
            if bare is not None:
                raise DataError(
                    f"outcome 'multiple_choice': item {bare.item_id!r} has fewer than two choices",
                    hint="name the column that holds them: columns: {choices: ...}",
                )
        elif outcome.name == "numeric_match":
            words = next((i for i in items if parse_number(i.answer) is None), None)
            if words is not None:
                raise DataError(
                    f"outcome 'numeric_match': the answer of item {words.item_id!r} is {words.answer!r}, "
                    "not a number",
                    hint="use exact_match or string_match for this task",
                )
        elif outcome.name == "embedding_similarity":
            check_embedding(outcome.options)


_OPTIONS = {"multiple_choice": ("normalise",), "embedding_similarity": ("model",)}
_NORMALISE = ("none", "tokens", "bytes")


def _check_options(outcome: OutcomeSettings) -> None:
    if outcome.call is not None:
        return
    known = _OPTIONS.get(outcome.name, ())
    unknown = next((k for k in outcome.options if k not in known), None)
    if unknown is not None:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise StudyError(f"outcome {outcome.name!r}: unknown option {unknown!r}; {takes}")
    by = outcome.options.get("normalise", "none")
    if by not in _NORMALISE:
        raise StudyError(
            f"outcome {outcome.name!r}: options.normalise is {by!r}: use {', '.join(_NORMALISE)}"
        )


def score_outcomes(
    outcomes: Sequence[OutcomeSettings], item: Item, observed: Observed, *, where: str
) -> dict[str, float]:
    """Score every outcome of one trial.

    Parameters
    ----------
    outcomes : sequence of OutcomeSettings
    item : Item
    observed : Observed
    where : str
        Names the trial in messages.

    Returns
    -------
    dict
        Outcome name to value; several outcomes are kept as they are, never combined.

    Raises
    ------
    StudyError
        If a callable fails or gives something else than a finite number.
    """
    return {o.name: _value(o, item, observed, where) for o in outcomes}


def _value(outcome: OutcomeSettings, item: Item, observed: Observed, where: str) -> float:
    if outcome.call is not None:
        return _called(outcome, item, observed, where)
    name, scores, completion = outcome.name, observed.scores, observed.completion
    if name == "log_prob":
        return scores.total
    if name == "perplexity":
        return math.exp(-scores.total / len(scores.log_probs))
    if name == "exact_match":
        assert observed.ends is not None
        return float(scores.greedy and observed.ends)
    if name == "multiple_choice":
        assert observed.choices is not None
        return float(max(observed.choices, key=lambda c: _choice_score(outcome, observed, c)) == item.answer)
    assert completion is not None
    if name == "numeric_match":
        return float(last_number(completion) == parse_number(item.answer))
    if name == "string_match":
        return float(normalise(completion) == normalise(item.answer))
    return similarity(completion, item.answer, dict(outcome.options))


def _choice_score(outcome: OutcomeSettings, observed: Observed, choice: str) -> float:
    assert observed.choices is not None
    scores = observed.choices[choice]
    by = outcome.options.get("normalise", "none")
    if by == "tokens":
        return scores.total / len(scores.log_probs)
    if by == "bytes":
        return scores.total / len(choice.encode())
    return scores.total


def _called(outcome: OutcomeSettings, item: Item, observed: Observed, where: str) -> float:
    assert outcome.call is not None
    call = load_callable(outcome.call, outcome=outcome.name)
    arguments: dict[str, Any] = {"answer": item.answer, "item": item, **outcome.options}
    if outcome.needs == "completion":
        arguments["completion"] = observed.completion
    else:
        arguments["log_probs"] = observed.scores.log_probs
    try:
        value = call(**arguments)
    except Exception as error:
        # Any failure of the user's own function is theirs to see, with the trial it happened on.
        raise StudyError(
            f"outcome {outcome.name!r} failed on {where}: {type(error).__name__}: {error}"
        ) from error
    return checked_value(value, outcome=outcome.name, where=where)
