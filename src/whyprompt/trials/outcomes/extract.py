r"""Reading the answer out of a completion.

============================  ==========================================================================
``last_number``               the last number of the text, ``#### 42`` before any other
``first_number``              the first
``choice``                    the letter of one of the item's choices, or the text of one
``code``                      the last fenced block; a text without a fence is code throughout
``{marker: The answer is}``   what follows the marker where it stands last, up to the end of the line;
                              upper and lower case count as one
``{regex: 'x = (\d+)'}``      the last match: its first group, or the whole where it has none
``{json: answer.value}``      a field of the last JSON object that has it
``{call: 'module:function'}`` ``function(completion)``, which gives a text, or None
============================  ==========================================================================

Steps follow one another: each reads what the one before found. Where one finds nothing there is no answer:
the completion has the wrong format, which is counted, and nothing else of it is taken instead.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from whyprompt.errors import StudyError
from whyprompt.trials.outcomes.calls import called
from whyprompt.trials.outcomes.text import find_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt._study_outcomes import ExtractKey
    from whyprompt.trials.items.item import Item

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
# A fence that is opened and never closed: the completion ended inside it.
_OPEN = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^\n`]*\n(.*)\Z", re.MULTILINE | re.DOTALL)


def extract(
    steps: Sequence[str | dict[ExtractKey, str]], text: str, item: Item, *, outcome: str, where: str
) -> str | None:
    """Read the answer out of a text.

    Parameters
    ----------
    steps : sequence of str or dict
        As a study's ``extract`` has them; none leaves the text as it is.
    text : str
        A completion.
    item : Item
        Its choices are those that ``choice`` knows.
    outcome, where : str
        Name the outcome and the trial in messages.

    Returns
    -------
    str or None
        None where there is nothing to extract.

    Raises
    ------
    StudyError
        If a function of the user's own fails or gives no text.

    Examples
    --------
    >>> from whyprompt.trials.items.item import Item
    >>> item = Item(item_id="a", question="?", answer="12", task_type="t")
    >>> extract([{"marker": "The answer is"}], "3 + 9. The answer is 12.", item, outcome="o", where="w")
    '12.'
    >>> extract(["last_number"], "I cannot say.", item, outcome="o", where="w") is None
    True
    """
    found: str | None = text
    for step in steps:
        if found is None:
            return None
        if isinstance(step, str):
            found = _NAMED[step](found, item)
        else:
            ((key, value),) = step.items()
            if key == "call":
                found = _by_call(value, found, outcome=outcome, where=where)
            else:
                found = _KEYED[key](value, found)
    return found


def _last_number(text: str, _: Item) -> str | None:
    return find_number(text)


def _first_number(text: str, _: Item) -> str | None:
    return find_number(text, first=True)


def find_code(text: str, _: Item) -> str | None:
    """Give the last fenced block of a text, or all of it where nothing is fenced."""
    blocks = [m[2] for m in _FENCE.finditer(text)] or [m[1] for m in _OPEN.finditer(text)][-1:]
    found = blocks[-1] if blocks else text
    return found if found.strip() else None


@lru_cache
def _choice_patterns(count: int) -> tuple[re.Pattern[str], ...]:
    upper, both = f"[A-{chr(64 + count)}]", f"[A-{chr(64 + count)}a-{chr(96 + count)}]"
    # "A" and "I" are words too: a lone letter counts where no lower-case word follows.
    alone = rf"({upper})(?![A-Za-z0-9'])(?!\s+[a-z])"
    return (
        re.compile(rf"(?i:answer|choice|option)(?i:\s+is)?\s*[:=]?\s*[*_$]*\(({both})\)"),
        re.compile(rf"(?i:answer|choice|option)(?i:\s+is)?\s*[:=]?\s*[*_$]*{alone}"),
        re.compile(rf"\(({both})\)"),
        re.compile(rf"(?m)^\W*{alone}"),
    )


def find_choice(text: str, item: Item) -> str | None:
    """Give the letter of the one of an item's choices, at most 26, that a text names; None where none is."""
    same = [k for k, c in enumerate(item.choices) if c.strip().casefold() == text.strip(" .\n").casefold()]
    if len(same) == 1:
        return chr(65 + same[0])
    for pattern in _choice_patterns(len(item.choices)):
        found = [m[1] for m in pattern.finditer(text)]
        if found:
            return str(found[-1]).upper()
    named = [
        k
        for k, c in enumerate(item.choices)
        if c.strip() and re.search(rf"(?<!\w){re.escape(c.strip())}(?!\w)", text, re.IGNORECASE)
    ]
    return chr(65 + named[0]) if len(named) == 1 else None


def _after_marker(marker: str, text: str) -> str | None:
    found = list(re.finditer(re.escape(marker), text, re.IGNORECASE))
    if not found:
        return None
    rest = text[found[-1].end() :].lstrip(" \t:*_").lstrip()
    line = rest.split("\n", 1)[0].strip()
    return line or None


def _by_regex(pattern: str, text: str) -> str | None:
    found = None
    for match in re.finditer(pattern, text):
        found = match
    if found is None:
        return None
    return (found[1] if found.re.groups else found[0]) or None


def _json_field(path: str, text: str) -> str | None:
    decoder, at, found = json.JSONDecoder(), 0, None
    while (at := text.find("{", at)) >= 0:
        try:
            value, stop = decoder.raw_decode(text, at)
            for key in path.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except RecursionError:
            # Nobody's answer is so deep: what is inside is not looked at by itself.
            return None
        except ValueError:
            at += 1
            continue
        at, found = stop, found if value is None else written
    return found or None


def _by_call(path: str, text: str, *, outcome: str, where: str) -> str | None:
    found = called(path, {"completion": text}, outcome=outcome, where=where)
    if found is not None and not isinstance(found, str):
        raise StudyError(
            f"outcome {outcome!r}: extract.call gave {found!r} for {where}: it gives a text, or None"
        )
    return found or None


_NAMED = {
    "last_number": _last_number,
    "first_number": _first_number,
    "choice": find_choice,
    "code": find_code,
}
_KEYED = {"marker": _after_marker, "regex": _by_regex, "json": _json_field}
