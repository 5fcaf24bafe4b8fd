"""A prompt's chain of thought set to another text, and what the answer is worth then.

The chain is what stands in a prompt's segment ``reasoning``, before its cue: written by the model, or given
by the arm; an arm without one has the empty chain. Setting it changes that stretch of the prompt and nothing
else.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from whyprompt.study import TemperatureRange
from whyprompt.trials.models.generation import complete
from whyprompt.trials.models.scoring import score
from whyprompt.trials.outcomes.score import any_reads, score_outcomes
from whyprompt.trials.prompts import trial_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.study import OutcomeSettings, Study
    from whyprompt.trials.items.item import Item
    from whyprompt.trials.models.local import LocalModel, PromptCodec
    from whyprompt.trials.models.scoring import TokenScores
    from whyprompt.trials.prompts import Prompt

FILLER = " ..."
"""What a chain is padded with: length without content (Lanham et al. 2023, "Measuring faithfulness in
chain-of-thought reasoning", section 2.5)."""

_ENTRY = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")


class Forced(NamedTuple):
    """One prompt to be scored: an arm's, with its own chain or another."""

    item: Item
    arm: str
    prompt: Prompt


def chain_in(prompt: Prompt) -> str:
    """Give the chain in a prompt; empty where it has none."""
    return next((prompt.text[start:end] for name, start, end in prompt.segments if name == "reasoning"), "")


def with_chain(prompt: Prompt, chain: str) -> Prompt:
    """Set the chain of a prompt: in place of its own, or before its cue, on a line of its own.

    An empty chain takes the line away: the prompt is then what its arm's would be, had it no chain.
    """
    chain = chain.strip()
    own = next(((start, end) for name, start, end in prompt.segments if name == "reasoning"), None)
    cue = next((start for name, start, _ in reversed(prompt.segments) if name == "cue"), len(prompt.text))
    start, end = own if own is not None else (cue, cue)
    # The line's end belongs to the chain: it comes and goes with it.
    end += own is not None and prompt.text[end : end + 1] == "\n"
    written = f"{chain}\n" if chain else ""
    shift = start + len(written) - end
    others = [
        (name, a + shift * (a >= end), b + shift * (b >= end))
        for name, a, b in prompt.segments
        if name != "reasoning"
    ]
    if chain:
        others.append(("reasoning", start, start + len(chain)))
    return replace(
        prompt,
        text=prompt.text[:start] + written + prompt.text[end:],
        segments=tuple(sorted(others, key=lambda segment: segment[1:])),
    )


def n_tokens(text: str, codec: PromptCodec) -> int:
    """Count a text's tokens by itself."""
    return len(codec.tokens(text))


def to_length(text: str, length: int, codec: PromptCodec) -> str:
    """Cut a text to its first `length` tokens, or pad it with dots to as many.

    What is cut ends with the last whole token; dots are added until there are `length` tokens or more.
    """
    found = codec.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if len(found["input_ids"]) >= length:
        return text[: found["offset_mapping"][length - 1][1]].rstrip() if length else ""
    low, high = 1, 2 * length
    while low < high:
        middle = (low + high) // 2
        if n_tokens((text + FILLER * middle).lstrip(), codec) >= length:
            high = middle
        else:
            low = middle + 1
    return (text + FILLER * low).lstrip()


def format_of(text: str) -> str:
    """Name the format of a text: "json", "list" (of entries), "lines" (several), "line", "" where empty.

    >>> [format_of(t) for t in ("- a", chr(10).join("ab"), "a", '{"steps": ["a"]}', "")]
    ['list', 'lines', 'line', 'json', '']
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    try:
        if isinstance(json.loads(text), dict | list):
            return "json"
    except (ValueError, RecursionError):
        pass
    if all(_ENTRY.match(line) for line in lines):
        return "list"
    return "lines" if len(lines) > 1 else "line"


def to_format(text: str, form: str) -> str:
    """Write a text's steps, which are its lines or the sentences of its one line, in another format.

    >>> print(to_format("3 + 4 = 7. Then 7 * 2 = 14.", "list"))
    - 3 + 4 = 7.
    - Then 7 * 2 = 14.
    """
    own = format_of(text)
    if form in {own, ""} or not own:
        return text
    if own == "json":
        steps = _leaves(json.loads(text))
    elif own == "line":
        steps = _SENTENCE.split(text.strip())
    else:
        steps = [_ENTRY.sub("", line).strip() for line in text.splitlines() if line.strip()]
    if form == "json":
        return json.dumps({"steps": steps}, ensure_ascii=False)
    if form == "list":
        return "\n".join(f"- {step}" for step in steps)
    return ("\n" if form == "lines" else " ").join(steps)


def _leaves(value: object) -> list[str]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [str(value)]


def forced_outcomes(
    study: Study, outcome: OutcomeSettings, wanted: Sequence[Forced], lm: LocalModel
) -> list[float]:
    """Score one outcome of every prompt as a trial's is: what is read comes after the chain.

    What the model writes is drawn with the seed and at the temperature of the arm's first repetition.

    Raises
    ------
    PromptError
        If a prompt with its chain is longer than the model's context, or its answer merges with the cue.
    """
    outcomes = [outcome]
    reads, ahead = any_reads(outcomes, "completion"), any_reads(outcomes, "ending")
    room = study.generation.max_new_tokens if reads else 0
    where = [f"arm {one.arm!r}, item {one.item.item_id!r}" for one in wanted]
    encoded = [
        lm.codec.encode(one.prompt, where=at, room=room, look_ahead=ahead)
        for one, at in zip(wanted, where, strict=True)
    ]
    scores = score(lm, encoded)
    written: list[str | None] = [None] * len(wanted)
    if reads:
        found = complete(
            lm,
            [one.ids for one in encoded],
            max_new_tokens=study.generation.max_new_tokens,
            stop=study.generation.stop,
            temperatures=[_temperature(study, one.arm) for one in wanted],
            seeds=[trial_seed(study.seeds.sampling, one.item.item_id, one.arm, 0) for one in wanted],
        )
        written = [one.text for one in found]
    choices = _choices(wanted, where, lm) if any_reads(outcomes, "choices") else [None] * len(wanted)
    out = []
    for one, at, of, text, chosen in zip(wanted, where, scores, written, choices, strict=True):
        after = of.next_token
        ends = None if after is None else lm.codec.ends_answer(after)
        made = score_outcomes(outcomes, one.item, of, ends=ends, completion=text, choices=chosen, where=at)
        out.append(made.values[outcome.name])
    return out


def _temperature(study: Study, arm: str) -> float:
    setting = study.arms[arm].temperature
    assert not isinstance(setting, TemperatureRange)
    return setting


def _choices(
    wanted: Sequence[Forced], where: Sequence[str], lm: LocalModel
) -> list[dict[str, TokenScores] | None]:
    asked = {
        (n, choice): lm.codec.encode(one.prompt, answer=one.prompt.separator + choice, where=at)
        for n, (one, at) in enumerate(zip(wanted, where, strict=True))
        for choice in one.item.choices
    }
    result: list[dict[str, TokenScores]] = [{} for _ in wanted]
    for (n, choice), scores in zip(asked, score(lm, list(asked.values())), strict=True):
        result[n][choice] = scores
    return list(result)
