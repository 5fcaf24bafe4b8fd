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

import importlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from whyprompt.errors import DataError, StudyError
from whyprompt.trials.outcomes.embedding import check_embedding, similarity
from whyprompt.trials.outcomes.text import last_number, normalise, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from whyprompt.study import OutcomeSettings
    from whyprompt.trials.items.item import Item
    from whyprompt.trials.models.scoring import TokenScores


What = Literal["scores", "ending", "completion", "choices"]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """What a built-in outcome reads, and how it is worth a number.

    ``value`` is given what is read (the scores of the gold answer, whether greedy decoding writes it and ends
    there, the completion, or the scores of each choice), the item, and the outcome's options. ``check``
    refuses items and options that cannot be scored, before anything runs.
    """

    reads: What
    value: Callable[[Any, Item, Mapping[str, Any]], float]
    options: tuple[str, ...] = ()
    check: Callable[[Sequence[Item], Mapping[str, Any]], None] | None = None


_NORMALISE = ("none", "tokens", "bytes")


def _mean(scores: TokenScores) -> float:
    return scores.total / len(scores.log_probs)


def _best_choice(choices: Mapping[str, TokenScores], item: Item, options: Mapping[str, Any]) -> float:
    by = {
        "none": lambda choice: choices[choice].total,
        "tokens": lambda choice: _mean(choices[choice]),
        "bytes": lambda choice: choices[choice].total / len(choice.encode()),
    }
    return float(max(choices, key=by[options.get("normalise", "none")]) == item.answer)


def _check_choices(items: Sequence[Item], options: Mapping[str, Any]) -> None:
    by = options.get("normalise", "none")
    if by not in _NORMALISE:
        raise StudyError(
            f"outcome 'multiple_choice': options.normalise is {by!r}: use {', '.join(_NORMALISE)}"
        )
    bare = next((i for i in items if len(i.choices) < 2), None)
    if bare is not None:
        raise DataError(
            f"outcome 'multiple_choice': item {bare.item_id!r} has fewer than two choices",
            hint="name the column that holds them: columns: {choices: ...}",
        )


def _check_numbers(items: Sequence[Item], _: Mapping[str, Any]) -> None:
    words = next((i for i in items if parse_number(i.answer) is None), None)
    if words is not None:
        raise DataError(
            f"outcome 'numeric_match': the answer of item {words.item_id!r} is {words.answer!r}, "
            "not a number",
            hint="use exact_match or string_match for this task",
        )


_SCORERS = {
    "log_prob": Scorer(reads="scores", value=lambda scores, _item, _options: scores.total),
    "perplexity": Scorer(reads="scores", value=lambda scores, _item, _options: math.exp(-_mean(scores))),
    "exact_match": Scorer(reads="ending", value=lambda ends, _item, _options: float(ends)),
    "numeric_match": Scorer(
        reads="completion",
        value=lambda text, item, _options: float(last_number(text) == parse_number(item.answer)),
        check=_check_numbers,
    ),
    "string_match": Scorer(
        reads="completion",
        value=lambda text, item, _options: float(normalise(text) == normalise(item.answer)),
    ),
    "multiple_choice": Scorer(
        reads="choices", value=_best_choice, options=("normalise",), check=_check_choices
    ),
    "embedding_similarity": Scorer(
        reads="completion",
        value=lambda text, item, options: similarity(text, item.answer, options),
        options=("model",),
        check=lambda _items, options: check_embedding(options),
    ),
}


def _reads(outcome: OutcomeSettings) -> What:
    return outcome.needs if outcome.call is not None else _SCORERS[outcome.name].reads


def any_reads(outcomes: Sequence[OutcomeSettings], what: What) -> bool:
    """Say whether any outcome reads a completion, what follows the answer, or the item's choices."""
    return any(_reads(o) == what for o in outcomes)


def check_outcomes(outcomes: Sequence[OutcomeSettings], items: Sequence[Item]) -> None:
    """Refuse outcomes that cannot be scored on these items, before anything runs.

    Raises
    ------
    StudyError, DataError
        Naming the outcome and what it lacks.
    """
    for outcome in outcomes:
        if outcome.call is not None:
            _load(outcome.call, outcome=outcome.name)
            continue
        scorer = _SCORERS[outcome.name]
        unknown = next((k for k in outcome.options if k not in scorer.options), None)
        if unknown is not None:
            takes = f"it takes {', '.join(scorer.options)}" if scorer.options else "it takes none"
            raise StudyError(f"outcome {outcome.name!r}: unknown option {unknown!r}; {takes}")
        if scorer.check is not None:
            scorer.check(items, outcome.options)


def score_outcomes(
    outcomes: Sequence[OutcomeSettings],
    item: Item,
    scores: TokenScores,
    *,
    ends: bool | None = None,
    completion: str | None = None,
    choices: Mapping[str, TokenScores] | None = None,
    where: str,
) -> dict[str, float]:
    """Score every outcome of one trial.

    Parameters
    ----------
    outcomes : sequence of OutcomeSettings
    item : Item
    scores : TokenScores
        Of the gold answer.
    ends : bool, optional
        Whether the greedy token after the answer leaves it as it is.
    completion : str, optional
    choices : mapping of str to TokenScores, optional
        Of each of the item's choices.
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
    seen = {
        "scores": scores,
        "ending": None if ends is None else scores.greedy and ends,
        "completion": completion,
        "choices": choices,
    }
    found = {}
    for outcome in outcomes:
        read = seen[_reads(outcome)]
        assert read is not None
        if outcome.call is not None:
            found[outcome.name] = _called(outcome, item, read, where)
        else:
            found[outcome.name] = _SCORERS[outcome.name].value(read, item, outcome.options)
    return found


def _called(outcome: OutcomeSettings, item: Item, read: Any, where: str) -> float:  # noqa: ANN401 - what it reads
    assert outcome.call is not None
    call = _load(outcome.call, outcome=outcome.name)
    own = {"completion": read} if outcome.needs == "completion" else {"log_probs": read.log_probs}
    try:
        value = call(answer=item.answer, item=item, **outcome.options, **own)
    except Exception as error:
        # Any failure of the user's own function is theirs to see, with the trial it happened on.
        raise StudyError(
            f"outcome {outcome.name!r} failed on {where}: {type(error).__name__}: {error}"
        ) from error
    return _checked(value, outcome=outcome.name, where=where)


def _load(path: str, *, outcome: str) -> Callable[..., Any]:
    """Import ``package.module:function``; modules in the current folder are found too."""
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        target: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except Exception as error:
        # Importing runs the user's module: whatever it raises is theirs to see.
        raise StudyError(
            f"outcome {outcome!r}: {path!r} cannot be imported: {type(error).__name__}: {error}",
            hint="modules are found on Python's path and in the current folder",
        ) from error
    if not callable(target):
        raise StudyError(f"outcome {outcome!r}: {path!r} is not callable")
    result: Callable[..., Any] = target
    return result


def _checked(value: object, *, outcome: str, where: str) -> float:
    """Refuse what is not a finite number, naming the outcome and the trial."""
    if isinstance(value, bool):
        return float(value)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise StudyError(
            f"outcome {outcome!r} gave {value!r} for {where}: an outcome is a number, True or False"
        ) from None
    if not math.isfinite(number):
        raise StudyError(f"outcome {outcome!r} gave {number} for {where}: an outcome is finite")
    return number
