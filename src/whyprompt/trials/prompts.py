"""Arms: how an item becomes a prompt.

A prompt is text in named segments (``system``, ``shots``, ``instruction``, ``question``, ``reasoning``,
``cue``; what a chat template adds between them is ``template``), and an answer that follows it. Segments are
known from how the prompt was rendered, never guessed from its text.

The boundary between prompt and answer: a prompt ends with its cue and has no space at its end; the answer
follows after the format's separator (one space after ``Answer:``), and the separator belongs to the answer.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import jinja2
from jinja2 import meta

from whyprompt.errors import PromptError
from whyprompt.study import ChainOfThoughtArm, FewShotArm, FormatArm, TemplateArm
from whyprompt.trials.templates import ADDRESS, Sandbox, compiled, filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.study import Arm
    from whyprompt.trials.items.item import Item, ItemPool

__all__ = [
    "CHAIN_MARK",
    "ChatRenderer",
    "Prompt",
    "check_templates",
    "cut_before_answer",
    "render",
    "trial_seed",
]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A rendered prompt.

    Parameters
    ----------
    text : str
        What is sent, ending with the cue.
    answer : str
        The separator and the gold answer: what is scored after ``text``.
    separator : str
        What stands between the cue and any answer.
    segments : tuple of (name, start, end)
        Named stretches of the text in characters, in order, not overlapping.
    reasoning_first : str, optional
        When the model's own chain is to be made first: the prompt for it. ``text`` then has the mark
        :data:`CHAIN_MARK` where the chain belongs.
    chat : bool
        Whether a chat template wrapped it: special tokens are then in the text already.
    """

    text: str
    answer: str
    separator: str
    segments: tuple[tuple[str, int, int], ...]
    chat: bool
    reasoning_first: str | None = None

    def with_chain(self, chain: str) -> Prompt:
        """Put the model's own chain where it belongs.

        Parameters
        ----------
        chain : str
            What the model wrote after :attr:`reasoning_first`.

        Returns
        -------
        Prompt
            Complete, with the chain as the segment ``reasoning``.
        """
        at = self.text.index(CHAIN_MARK)
        chain = chain.strip()
        shift = len(chain) - len(CHAIN_MARK)

        return replace(
            self,
            text=self.text[:at] + chain + self.text[at + len(CHAIN_MARK) :],
            segments=tuple(
                (name, start + shift * (start > at), end + shift * (end > at))
                for name, start, end in self.segments
            ),
            reasoning_first=None,
        )


CHAIN_MARK = "\ue0ff"
_OPEN, _CLOSE = 0xE000, 0xE080  # private-use characters that mark segments while a template is applied


class ChatRenderer(Protocol):
    """What rendering needs of a tokenizer."""

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer carries a chat template."""

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Apply the tokenizer's own chat template, up to the start of the assistant's turn."""


@dataclass(frozen=True)
class _Format:
    question: str
    cue: str
    separator: str = " "
    json: bool = False


_FORMATS = {
    "plain": _Format("{}", "Answer:"),
    "role": _Format("User: {}", "Assistant:"),
    "question_answer": _Format("Question: {}", "Answer:"),
    "json": _Format('{{"question": {}}}', '{"answer":', json=True),
}

_TEMPLATE_VARIABLES = ("question", "task_type", "difficulty", "solution", "choices", "shots", "item_id")


def trial_seed(seed: int, *parts: str | int) -> int:
    """Give the seed of one trial, from the study's seed and the trial's key.

    Examples
    --------
    >>> trial_seed(0, "item-1", "direct", 0) == trial_seed(0, "item-1", "direct", 0)
    True
    """
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def cut_before_answer(solution: str, answer: str) -> str:
    """Cut a worked solution before its answer first appears.

    Parameters
    ----------
    solution, answer : str
        The answer counts where it stands as a whole number or word, thousands separators aside.

    Returns
    -------
    str
        The solution up to there, without space at its end; the whole of it when the answer never appears.

    Examples
    --------
    >>> cut_before_answer("3 + 4 = 7, then 7 * 2 = 14", "14")
    '3 + 4 = 7, then 7 * 2 ='
    >>> cut_before_answer("140 - 14.5 is large; so 14.", "14")
    '140 - 14.5 is large; so'
    """
    plain = answer.strip()
    forms = {plain}
    if re.fullmatch(r"-?\d{4,}", plain):
        forms.add(f"{int(plain):,}")
    alternatives = "|".join(re.escape(f) for f in sorted(forms, key=len, reverse=True))
    found = re.search(rf"(?<![\w.,])(?:{alternatives})(?![\w]|[.,]\d)", solution)
    if found is None:
        # Inside something like "$14" or "x=14" the left side is no word: one more, looser look.
        found = re.search(rf"(?<![0-9.])(?:{alternatives})(?![0-9]|[.,]\d)", solution)
    return (solution if found is None else solution[: found.start()]).rstrip()


def _worked_solution(item: Item, arm: str) -> str:
    if item.solution is None:
        raise PromptError(
            f"arm {arm!r} inserts a worked solution, and item {item.item_id!r} has none",
            hint="use items with solutions (gsm_symbolic, gsm8k, a 'solution' column), or another reasoning",
        )
    # The source's own final marker is dropped: the cue asks for the answer.
    return re.sub(r"\n?####.*\s*$", "", item.solution).strip()


def _other_solution(item: Item, items: Sequence[Item], arm: str) -> str:
    """Give the solution of the next item of the task whose answer differs, wrapping around."""
    same = [i for i in items if i.task_type == item.task_type]
    at = next(n for n, i in enumerate(same) if i.item_id == item.item_id)
    for step in range(1, len(same)):
        other = same[(at + step) % len(same)]
        if other.answer != item.answer and other.solution is not None:
            text = _worked_solution(other, arm)
            if cut_before_answer(text, item.answer) == text:
                return text
    raise PromptError(
        f"arm {arm!r} inserts another item's solution, and no other item of {item.task_type!r} has one "
        f"that does not state the answer of {item.item_id!r}",
        hint="take more items of this task",
    )


def _draw_shots(arm: Arm, name: str, item: Item, pool: ItemPool, *, rep: int, seed: int) -> list[Item]:
    count = getattr(arm, "shots", 0)
    if count == 0:
        return []
    examples = pool.shots.get(item.task_type, ())
    if len(examples) < count:
        raise PromptError(
            f"arm {name!r} draws {count} worked examples, and {item.task_type!r} has {len(examples)} outside "
            "the study",
            hint="raise shot_pool, lower size, or lower shots",
        )
    keys: dict[str, tuple[str | int, ...]] = {"per_rep": (rep,), "per_item": (rep, item.item_id)}
    key = keys.get(getattr(arm, "draw", "fixed"), ())
    # The task is in the key, the arm is not: two arms with k shots see the same ones.
    rng = random.Random(trial_seed(seed, "shots", item.task_type, *key))  # noqa: S311 - a reproducible draw
    return rng.sample(list(examples), count)


class _Builder:
    """Collects marked pieces of one message, so that segments survive the chat template."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def mark(self, name: str, text: str) -> str:
        if any(_OPEN <= ord(c) <= _CLOSE + 0x7E for c in text):
            raise PromptError(
                f"the {name} holds private-use characters (U+E000 to U+E0FE)", hint="remove them"
            )
        if len(self.names) >= _CLOSE - _OPEN:
            raise PromptError("a prompt has more than 128 segments", hint="use fewer shots")
        self.names.append(name)
        n = len(self.names) - 1
        return f"{chr(_OPEN + n)}{text}{chr(_CLOSE + n)}"

    def strip(self, marked: str) -> tuple[str, tuple[tuple[str, int, int], ...]]:
        out: list[str] = []
        length = 0
        starts: dict[int, int] = {}
        segments = []
        for char in marked:
            code = ord(char)
            if _OPEN <= code < _OPEN + len(self.names):
                starts[code - _OPEN] = length
            elif _CLOSE <= code < _CLOSE + len(self.names):
                segments.append((self.names[code - _CLOSE], starts[code - _CLOSE], length))
            else:
                out.append(char)
                length += 1
        if len(segments) != len(self.names):
            raise PromptError("the chat template drops or repeats parts of a prompt, so it has no segments")
        return "".join(out), tuple(sorted(segments, key=lambda s: s[1:]))


def _format_of(arm: Arm) -> _Format:
    base = _FORMATS[arm.format] if isinstance(arm, FormatArm) else _FORMATS["plain"]
    if arm.cue is not None:
        cue = arm.cue.rstrip()
        base = _Format(base.question, cue, " " if cue and cue[-1].isalnum() | (cue[-1] in ":.?!>") else "")
    return base


def _answer_text(fmt: _Format, answer: str) -> str:
    """Give the answer as the format writes it: in JSON a number stands bare and other text in quotes."""
    if fmt.json and not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", answer):
        return fmt.separator + json.dumps(answer, ensure_ascii=False)
    return fmt.separator + answer


def _jinja(arm: TemplateArm, name: str) -> jinja2.Template:
    try:
        return compiled(arm.template)
    except jinja2.TemplateSyntaxError as error:
        raise PromptError(
            f"arm {name!r}: the template is malformed at line {error.lineno}: {error.message}"
        ) from None
    except Exception as error:
        # Parts without variables are computed while it is read: it may fail here as on an item.
        raise PromptError(f"arm {name!r}: the template cannot be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def check_templates(arms: Mapping[str, Arm], items: Sequence[Item]) -> None:
    """Refuse templates that are malformed or use an unknown variable, before anything runs.

    Raises
    ------
    PromptError
        Naming the arm and the variable.
    """
    known = {*_TEMPLATE_VARIABLES, *(c for i in items for c in i.covariates)}
    for name, arm in arms.items():
        if not isinstance(arm, TemplateArm):
            continue
        _jinja(arm, name)
        unknown = sorted(meta.find_undeclared_variables(Sandbox().parse(arm.template)) - known)
        if unknown:
            raise PromptError(
                f"arm {name!r}: the template uses {unknown[0]!r}, which is not a variable",
                hint=f"variables are {', '.join(sorted(known))}",
            )


def _template_text(arm: TemplateArm, name: str, item: Item, shots: Sequence[Item]) -> str:
    variables = {
        **item.covariates,
        "question": item.question,
        "task_type": item.task_type,
        "difficulty": item.difficulty,
        "solution": item.solution,
        "choices": list(item.choices),
        "item_id": item.item_id,
        "shots": [{"question": s.question, "answer": s.answer, "solution": s.solution} for s in shots],
    }
    where = f"arm {name!r}: the template"
    template = _jinja(arm, name)
    try:
        text = filled(template, variables).strip()
    except Exception as error:
        # A template computes: whatever that raises, recursion and memory included, is its author's to see.
        raise PromptError(f"{where} fails on item {item.item_id!r}: {_said(error)}") from error
    if not text:
        raise PromptError(f"{where} gives an empty text for item {item.item_id!r}")
    place = ADDRESS.search(text)
    if place is not None and not any(place[0] in str(value) for value in variables.values()):
        raise PromptError(
            f"{where} prints {place[0]!r} for item {item.item_id!r}, which differs from run to run",
            hint="print values: |list or |join after a filter that gives a generator, () after a function",
        )
    return text


def _ask(arm: Arm) -> str | None:
    """Give the words by which an arm asks for a chain; None where it does not ask."""
    if isinstance(arm, ChainOfThoughtArm) and arm.reasoning in {"asked_only", "generated"}:
        return arm.ask.strip()
    return None


def cue_of(arm: Arm) -> str:
    """Give the text that an arm's prompt ends with."""
    return _format_of(arm).cue


def segments_of(arm: Arm) -> tuple[str, ...]:
    """Name the segments that an arm's prompts have; what a chat template adds has none."""
    reasoning = arm.reasoning if isinstance(arm, ChainOfThoughtArm) else None
    found = {
        "system": bool((arm.system or "").strip()),
        "shots": isinstance(arm, FewShotArm),
        "instruction": bool(_ask(arm) or (arm.instruction or "").strip()),
        "question": True,
        "reasoning": reasoning not in {None, "asked_only"},
        "cue": bool(cue_of(arm)),
    }
    return tuple(name for name, there in found.items() if there)


def render(  # noqa: C901 - one straight story: shots, question, reasoning, cue
    item: Item, arm: Arm, *, name: str, pool: ItemPool, renderer: ChatRenderer, rep: int = 0, seed: int = 0
) -> Prompt:
    """Render one item under one arm.

    Parameters
    ----------
    item : Item
    arm : Arm
        The arm's settings.
    name : str
        The arm's name, for messages.
    pool : ItemPool
        Where worked examples and other items' solutions come from.
    renderer : ChatRenderer
        The tokenizer's chat template.
    rep, seed : int
        The repetition, and the study's seed for drawing shots.

    Returns
    -------
    Prompt

    Raises
    ------
    PromptError
        If the arm needs what the item or the model lacks (a solution, a chat template, enough examples).
    """
    if arm.chat == "always" and not renderer.has_chat_template:
        raise PromptError(
            f"arm {name!r} wants the chat template, and this model's tokenizer has none",
            hint="set chat to auto or never, or use an instruction-tuned model",
        )
    chat = arm.chat != "never" and renderer.has_chat_template
    fmt = _format_of(arm)
    build = _Builder()
    shots = _draw_shots(arm, name, item, pool, rep=rep, seed=seed)

    instruction = (arm.instruction or "").strip()
    ask = _ask(arm)
    own_template = isinstance(arm, TemplateArm)

    def user(question: str, *, marked: bool) -> str:
        if not own_template:
            question = fmt.question.format(json.dumps(question, ensure_ascii=False) if fmt.json else question)
        parts = [("instruction", instruction)] if instruction else []
        parts.append(("question", question))
        if ask is not None:
            parts.append(("instruction", ask))
        written = [build.mark(name, text) if marked else text for name, text in parts]
        return "\n".join(text for text in written if text)

    reasoning = ""
    if isinstance(arm, ChainOfThoughtArm):
        if arm.reasoning == "worked":
            reasoning = _worked_solution(item, name)
        elif arm.reasoning == "cut":
            reasoning = cut_before_answer(_worked_solution(item, name), item.answer)
        elif arm.reasoning == "other":
            reasoning = _other_solution(item, pool.items, name)
        elif arm.reasoning == "generated":
            reasoning = CHAIN_MARK

    turns: list[tuple[str, str]] = []
    if not own_template:
        for shot in shots:
            solution = ""
            if isinstance(arm, FewShotArm) and arm.with_solution:
                solution = _worked_solution(shot, name) + "\n"
            reply = f"{solution}{fmt.cue}{_answer_text(fmt, shot.answer)}{'}' if fmt.json else ''}"
            turns.append((user(shot.question, marked=False), reply))
    question = _template_text(arm, name, item, shots) if isinstance(arm, TemplateArm) else item.question
    system = (arm.system or "").strip()

    if chat:
        messages = [{"role": "system", "content": build.mark("system", system)}] if system else []
        for ask_text, reply in turns:
            messages.append({"role": "user", "content": build.mark("shots", ask_text)})
            messages.append({"role": "assistant", "content": build.mark("shots", reply)})
        messages.append({"role": "user", "content": user(question, marked=True)})
        head = renderer.chat(messages)
    else:
        blocks = [build.mark("system", system)] if system else []
        blocks += [build.mark("shots", f"{ask_text}\n{reply}") for ask_text, reply in turns]
        head = "\n\n".join([*blocks, user(question, marked=True)]) + "\n"

    first: str | None = None
    tail = ""
    if reasoning:
        if reasoning == CHAIN_MARK:
            first, _ = build.strip(head)
            first = first if chat else first.rstrip("\n") + "\n"
        tail = build.mark("reasoning", reasoning) + "\n"
    tail += build.mark("cue", fmt.cue) if fmt.cue else ""
    text, segments = build.strip(head + tail)
    trimmed = text.rstrip() if fmt.cue else text
    return Prompt(
        text=trimmed,
        answer=_answer_text(fmt, item.answer),
        separator=fmt.separator,
        segments=segments,
        chat=chat,
        reasoning_first=first,
    )
