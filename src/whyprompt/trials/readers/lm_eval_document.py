"""One document of lm-evaluation-harness: what was asked, what came back, and what is known of it."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from whyprompt.trials.readers.record import LoggedTrial, score_value
from whyprompt.trials.reading.chats import chat_text
from whyprompt.trials.reading.fields import texts
from whyprompt.trials.reading.settings import flat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_QUESTION = (
    *("question", "query", "input", "problem", "prompt", "instruction", "text", "sentence", "ctx", "goal"),
    *("input_final_prompts", "premise", "context", "passage", "story", "title"),
)
_ANSWER = re.compile(
    r"(^|_)(answers?|answer_?(key|index|idx)|labels?|gold|targets?|solution|output)$", re.IGNORECASE
)
_CHOICES = ("choices", "options", "endings")
# A longer text is content, and no covariate.
_LONG = 200


def responses(found: Mapping[str, Any]) -> list[Any]:
    """Give what came back for a document's one request, one for each repeat; none of several requests."""
    asked = found.get("resps")
    if not isinstance(asked, list) or len(asked) != 1 or not isinstance(asked[0], list):
        return []
    return asked[0]


def of_document(found: Mapping[str, Any], scores: Mapping[str, Any]) -> Iterator[LoggedTrial]:
    """Give the trials of a document: one, or one for each repeat where a score has a value for each."""
    doc = found.get("doc")
    doc = doc if isinstance(doc, dict) else {"question": texts(doc)} if doc else {}
    prompt, continuations = _arguments(found.get("arguments", found.get("input")))
    field = next((f for f in _QUESTION if isinstance(doc.get(f), str) and doc[f].strip()), None)
    question = doc[field] if field else json.dumps(doc, ensure_ascii=False) if doc else prompt or ""
    said = [one for one in responses(found) if isinstance(one, str)]
    lists = [value for value in scores.values() if isinstance(value, list)]
    for rep in range(len(lists[0]) if lists else 1):
        yield LoggedTrial(
            item=str(found.get("doc_hash") or found.get("doc_id", "")),
            question=question,
            target=texts(found.get("target")),
            choices=_choices(doc) or continuations,
            rep=rep + 1,
            # A score of all repeats together is there once.
            scores={
                scorer: score_value(value[rep] if isinstance(value, list) else value)
                for scorer, value in scores.items()
                if isinstance(value, list) or rep == 0
            },
            covariates={
                key: value
                for key, value in flat("", doc, lists=False)
                if key != field
                and not _ANSWER.search(key)
                and not (isinstance(value, str) and len(value) > _LONG)
            },
            prompt=prompt,
            completion=said[rep] if rep < len(said) else None,
        )


def _arguments(arguments: object) -> tuple[str | None, tuple[str, ...]]:
    """Give the prompt, and the continuations of it that were scored."""
    if isinstance(arguments, str):
        return arguments, ()
    if isinstance(arguments, dict):
        asked = [list(one.values()) if isinstance(one, dict) else [one] for one in arguments.values()]
    elif isinstance(arguments, list):
        asked = [one if isinstance(one, list) else [one] for one in arguments]
        if arguments and not isinstance(arguments[0], list):
            asked = [arguments]
    else:
        return None, ()
    first = asked[0][0] if asked and asked[0] else None
    rest = tuple(one[1] for one in asked if len(one) > 1 and isinstance(one[1], str))
    return _prompt(first), rest if len(rest) > 1 else ()


def _prompt(given: object) -> str | None:
    """Give a prompt as text: a chat is a list of messages, or the JSON of one, in a list of one."""
    while isinstance(given, list) and len(given) == 1 and isinstance(given[0], str | list):
        given = given[0]
    if isinstance(given, str) and given.startswith('[{"role"'):
        with contextlib.suppress(ValueError):
            given = json.loads(given)
    return None if given is None else chat_text(given)


def _choices(doc: Mapping[str, Any]) -> tuple[str, ...]:
    for key in _CHOICES:
        value = doc.get(key)
        if isinstance(value, dict):
            value = value.get("text")
        if isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value):
            return tuple(map(str, value))
    return ()
