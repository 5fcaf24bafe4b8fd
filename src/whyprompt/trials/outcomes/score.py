"""Scorers: what a completion, or the probability of the gold answer, is worth.

========================  ==============================================================================
``log_prob``              log-probability of the gold answer, all its tokens, natural logarithm
``perplexity``            of the gold answer: ``exp(-log_prob / tokens)``
``exact_match``           1 where greedy decoding writes the gold answer, and the answer ends there
``numeric_match``         1 where the last number equals the gold answer's, to a tolerance, in its units
``string_match``          1 where completion and answer agree without case, punctuation and articles
``token_f1``              F1 of the words of completion and answer, in the same form (as SQuAD)
``choice_match``          1 where the choice that the completion names is the gold answer
``code_match``            1 where both are one Python syntax tree, or one text but for spaces; nothing is run
``well_formed``           1 where the completion has what ``extract`` looks for
``multiple_choice``       1 where the gold answer is the most probable of the item's choices
``embedding_similarity``  cosine similarity of completion and answer (extra ``embedding``)
a judge's name            what its verdicts on the completion are worth (``judge``)
a callable's name         ``call(completion=..., answer=..., item=...)``, or ``needs: scores``
========================  ==============================================================================

What reads a completion reads of it what ``extract`` finds (:mod:`whyprompt.trials.outcomes.extract`), and
then its own part: a number, a choice, a block of code. A completion in which that is not there has the wrong
format: it is worth ``wrong_format``, 0 by default, and is counted.

``exact_match`` asks that the answer *ends*: a model about to write ``10`` has not answered ``1``, though
every token of ``1`` is its first choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from whyprompt.errors import DataError, StudyError
from whyprompt.trials.outcomes.calls import called, load_call
from whyprompt.trials.outcomes.embedding import check_embedding, similarity
from whyprompt.trials.outcomes.extract import extract, find_choice, find_code
from whyprompt.trials.outcomes.judge import check_judge, judged
from whyprompt.trials.outcomes.text import (
    find_number,
    normalise,
    parse_number,
    parse_quantity,
    same_code,
    token_f1,
)

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
    refuses items and options that cannot be scored, before anything runs. ``part`` is what of a completion
    is looked at, after ``extract``: nothing where it is not there. None for all of it.
    """

    reads: What
    value: Callable[[Any, Item, Mapping[str, Any]], float]
    options: tuple[str, ...] = ()
    check: Callable[[Sequence[Item], Mapping[str, Any]], None] | None = None
    part: Callable[[str, Item, Mapping[str, Any]], str | None] | None = None


class Scored(NamedTuple):
    """What a trial's outcomes are worth, and what of its completion each of them took for the answer."""

    values: dict[str, float]
    extracted: dict[str, str | None]
    """None where nothing was found; only of outcomes that read a part of the completion."""


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


def _check_choices(items: Sequence[Item], options: Mapping[str, Any], name: str = "multiple_choice") -> None:
    by = options.get("normalise", "none")
    if by not in _NORMALISE:
        raise StudyError(
            f"outcome 'multiple_choice': options.normalise is {by!r}: use {', '.join(_NORMALISE)}"
        )
    bare = next((i for i in items if len(i.choices) < 2), None)
    if bare is not None:
        raise DataError(
            f"outcome {name!r}: item {bare.item_id!r} has fewer than two choices",
            hint="name the column that holds them: columns: {choices: ...}",
        )


def _check_numbers(items: Sequence[Item], options: Mapping[str, Any]) -> None:
    for key in ("tolerance", "relative"):
        if not _is_number(options.get(key, 0)) or options.get(key, 0) < 0:
            raise StudyError(
                f"outcome 'numeric_match': options.{key} is {options[key]!r}: give a number, 0 or more"
            )
    units = options.get("units", {})
    if not isinstance(units, dict) or not all(_is_number(v) and v > 0 for v in units.values()):
        raise StudyError(
            f"outcome 'numeric_match': options.units is {units!r}: give each unit what one of it is worth",
            hint="units: {km: 1000, m: 1}; percent: units: {'%': 0.01}",
        )
    words = next((i for i in items if parse_number(i.answer, units) is None), None)
    if words is not None:
        raise DataError(
            f"outcome 'numeric_match': the answer of item {words.item_id!r} is {words.answer!r}, "
            "not a number",
            hint="name its unit in options.units, or use exact_match or string_match for this task",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same_number(text: str, item: Item, options: Mapping[str, Any]) -> float:
    units = options.get("units", {})
    read, gold = parse_quantity(text, units), parse_quantity(item.answer, units)
    assert read is not None
    assert gold is not None
    unit = gold[1] or Fraction(1)
    # A number without a unit is taken to be in that of the gold answer.
    found, wanted = read[0] * (read[1] or unit), gold[0] * unit
    # Written decimals, not what they are in binary: 0.01 is a hundredth.
    absolute, relative = (Fraction(str(options.get(key, 0))) for key in ("tolerance", "relative"))
    return float(abs(found - wanted) <= max(absolute, relative * abs(wanted)))


def _check_letters(items: Sequence[Item], _: Mapping[str, Any]) -> None:
    _check_lettered(items, "choice_match")
    for item in items:
        letters = [chr(65 + k) for k in range(len(item.choices))]
        if item.answer not in item.choices and item.answer.strip().upper() not in letters:
            raise DataError(
                f"outcome 'choice_match': the answer of item {item.item_id!r} is {item.answer!r}, which is"
                " neither one of its choices nor the letter of one"
            )


_MOST_LETTERS = 26


def _check_lettered(items: Sequence[Item], name: str) -> None:
    _check_choices(items, {}, name)
    many = next((i for i in items if len(i.choices) > _MOST_LETTERS), None)
    if many is not None:
        raise DataError(
            f"outcome {name!r}: item {many.item_id!r} has {len(many.choices)} choices, and there are"
            f" {_MOST_LETTERS} letters",
            hint="use string_match, or multiple_choice, which scores every choice",
        )


def _same_choice(letter: str, item: Item, _: Mapping[str, Any]) -> float:
    if item.answer in item.choices:
        return float(item.choices[ord(letter) - 65] == item.answer)
    return float(letter == item.answer.strip().upper())


_SCORERS = {
    "log_prob": Scorer(reads="scores", value=lambda scores, _item, _options: scores.total),
    "perplexity": Scorer(reads="scores", value=lambda scores, _item, _options: math.exp(-_mean(scores))),
    "exact_match": Scorer(reads="ending", value=lambda ends, _item, _options: float(ends)),
    "numeric_match": Scorer(
        reads="completion",
        value=_same_number,
        options=("tolerance", "relative", "units"),
        check=_check_numbers,
        part=lambda text, _item, options: find_number(text, options.get("units")),
    ),
    "string_match": Scorer(
        reads="completion",
        value=lambda text, item, _options: float(normalise(text) == normalise(item.answer)),
    ),
    "token_f1": Scorer(reads="completion", value=lambda text, item, _options: token_f1(text, item.answer)),
    "choice_match": Scorer(
        reads="completion",
        value=_same_choice,
        check=_check_letters,
        part=lambda text, item, _options: find_choice(text, item),
    ),
    "code_match": Scorer(
        reads="completion",
        value=lambda text, item, _options: float(same_code(text, item.answer)),
        part=lambda text, item, _options: find_code(text, item),
    ),
    "well_formed": Scorer(reads="completion", value=lambda _text, _item, _options: 1.0),
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
    return (
        outcome.needs
        if outcome.name not in _SCORERS or outcome.call is not None
        else _SCORERS[outcome.name].reads
    )


def reads_written(outcome: OutcomeSettings) -> bool:
    """Say whether an outcome is of what the model writes: a completion, or whether the answer is written."""
    return _reads(outcome) in {"completion", "ending"}


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
        for _, path in outcome.calls:
            load_call(path, outcome=outcome.name)
        _check_extract(outcome, items)
        if outcome.judge is not None:
            check_judge(outcome.judge, outcome.name)
        if outcome.call is not None or outcome.judge is not None:
            continue
        scorer = _SCORERS[outcome.name]
        unknown = next((k for k in outcome.options if k not in scorer.options), None)
        if unknown is not None:
            takes = f"it takes {', '.join(scorer.options)}" if scorer.options else "it takes none"
            raise StudyError(f"outcome {outcome.name!r}: unknown option {unknown!r}; {takes}")
        if scorer.check is not None:
            scorer.check(items, outcome.options)


def _check_extract(outcome: OutcomeSettings, items: Sequence[Item]) -> None:
    steps = outcome.steps
    if steps is None:
        if outcome.name == "well_formed" and outcome.call is None:
            raise StudyError(
                "outcome 'well_formed' says whether there is something to extract, and 'extract' is missing",
                hint="give the extract of the outcome beside it",
            )
        return
    if _reads(outcome) != "completion":
        raise StudyError(
            f"outcome {outcome.name!r} reads no completion: there is nothing to extract",
            hint="leave extract out, or choose an outcome that reads a completion, such as numeric_match",
        )
    if "choice" in steps:
        _check_lettered(items, outcome.name)
    if steps[-1] in ("last_number", "first_number") and outcome.options.get("units"):
        raise StudyError(
            f"outcome {outcome.name!r}: {steps[-1]!r} gives the number without its unit, and options.units"
            " asks for it",
            hint="numeric_match takes the last number by itself: leave that step out",
        )


def score_outcomes(
    outcomes: Sequence[OutcomeSettings],
    item: Item,
    scores: TokenScores | None = None,
    *,
    ends: bool | None = None,
    completion: str | None = None,
    choices: Mapping[str, TokenScores] | None = None,
    where: str,
) -> Scored:
    """Score every outcome of one trial.

    Parameters
    ----------
    outcomes : sequence of OutcomeSettings
    item : Item
    scores : TokenScores, optional
        Of the gold answer; where no outcome reads them, as of an endpoint, none.
    ends : bool, optional
        Whether the greedy token after the answer leaves it as it is.
    completion : str, optional
    choices : mapping of str to TokenScores, optional
        Of each of the item's choices.
    where : str
        Names the trial in messages.

    Returns
    -------
    Scored
        Each outcome's value, never combined, and what of the completion it took for the answer.

    Raises
    ------
    StudyError
        If a callable fails or gives something else than a finite number.
    """
    seen = {
        "scores": scores,
        "ending": None if ends is None or scores is None else scores.greedy and ends,
        "completion": completion,
        "choices": choices,
    }
    found = Scored({}, {})
    for outcome in outcomes:
        read = seen[_reads(outcome)]
        assert read is not None
        if _reads(outcome) == "completion":
            assert completion is not None
            read = extract(outcome.steps or (), completion, item, outcome=outcome.name, where=where)
            own = outcome.call is not None or outcome.judge is not None
            part = None if own else _SCORERS[outcome.name].part
            if read is not None and part is not None:
                read = part(read, item, outcome.options)
            if outcome.steps is not None or part is not None:
                found.extracted[outcome.name] = read
        if read is None:
            found.values[outcome.name] = outcome.wrong_format
        elif outcome.judge is not None:
            assert isinstance(read, str)
            found.values[outcome.name], found.extracted[outcome.name] = judged(
                outcome.judge, item, read, outcome=outcome.name, where=where
            )
        elif outcome.call is not None:
            found.values[outcome.name] = _called(outcome, item, read, where)
        else:
            found.values[outcome.name] = _SCORERS[outcome.name].value(read, item, outcome.options)
    return found


def _called(outcome: OutcomeSettings, item: Item, read: Any, where: str) -> float:  # noqa: ANN401 - what it reads
    assert outcome.call is not None
    own = {"completion": read} if outcome.needs == "completion" else {"log_probs": read.log_probs}
    given = {"answer": item.answer, "item": item, **outcome.options, **own}
    value = called(outcome.call, given, outcome=outcome.name, where=where)
    return _checked(value, outcome=outcome.name, where=where)


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
