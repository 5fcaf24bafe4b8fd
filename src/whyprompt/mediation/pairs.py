"""Two prompts for one item that end in the same cue, and the answer scored after both."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEMPLATE = "template"
"""Segment of the tokens between the named parts: special tokens, role names, separators."""

Spans = tuple[tuple[int, int], ...]
"""Half-open token spans ``(start, stop)`` of one named segment."""

_NO_SEGMENTS: Mapping[str, Spans] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class PromptPair:
    """Token ids of the prompts of arms 0 and 1 for one item.

    Parameters
    ----------
    item_id : str
        The item.
    ids0, ids1 : sequence of int
        Token ids of the two prompts, the answer cue included.
    answer_ids : sequence of int
        Token ids of the gold answer, the same after both prompts.
    cluster : str, optional
        Sampling unit for standard errors (a template); `item_id` by default.
    cue_tokens : int, default 1
        How many last tokens make up the cue; these must be the same in both prompts.
    foil_ids : sequence of int, optional
        Token ids of a wrong answer, for ``outcome="margin"``.
    segments0, segments1 : mapping of str to spans, optional
        Named token spans of each prompt, for instance ``{"question": ((3, 40),)}``.

    Raises
    ------
    MediationError
        If a prompt or the answer is empty, the cues differ, or a span is out of range.

    Examples
    --------
    >>> pair = PromptPair(item_id="a", ids0=[5, 9], ids1=[5, 7, 8, 9], answer_ids=[3])
    >>> pair.cluster, pair.n_answer
    ('a', 1)
    """

    item_id: str
    ids0: Sequence[int]
    ids1: Sequence[int]
    answer_ids: Sequence[int]
    cluster: str = ""
    cue_tokens: int = 1
    foil_ids: Sequence[int] | None = None
    segments0: Mapping[str, Spans] = field(default_factory=lambda: _NO_SEGMENTS)
    segments1: Mapping[str, Spans] = field(default_factory=lambda: _NO_SEGMENTS)

    def __post_init__(self) -> None:
        for name in ("ids0", "ids1", "answer_ids", "foil_ids"):
            value = getattr(self, name)
            if value is None:
                continue
            ids = tuple(int(i) for i in value)
            if not ids:
                raise MediationError(f"item {self.item_id!r}: {name} is empty")
            if min(ids) < 0:
                raise MediationError(f"item {self.item_id!r}: {name} holds a negative token id")
            object.__setattr__(self, name, ids)
        if not self.cluster:
            object.__setattr__(self, "cluster", self.item_id)
        self._check_cue()
        for name, n in (("segments0", len(self.ids0)), ("segments1", len(self.ids1))):
            spans = {
                key: tuple((int(a), int(b)) for a, b in value) for key, value in getattr(self, name).items()
            }
            for key, value in spans.items():
                for start, stop in value:
                    if not 0 <= start < stop <= n:
                        raise MediationError(
                            f"item {self.item_id!r}: {name}[{key!r}] has the span ({start}, {stop}), "
                            f"which is not inside the prompt's {n} tokens"
                        )
            object.__setattr__(self, name, MappingProxyType(spans))

    def __reduce__(self) -> tuple[Any, ...]:
        # A view of a mapping cannot be pickled, and pairs are sent to workers.
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {name: dict(plain[name]) for name in ("segments0", "segments1")}
        return partial(type(self), **plain), ()

    def _check_cue(self) -> None:
        n = self.cue_tokens
        if not 1 <= n <= min(len(self.ids0), len(self.ids1)):
            raise MediationError(
                f"item {self.item_id!r}: cue_tokens is {n}, but the prompts have "
                f"{len(self.ids0)} and {len(self.ids1)} tokens"
            )
        if tuple(self.ids0[-n:]) != tuple(self.ids1[-n:]):
            raise MediationError(
                f"item {self.item_id!r}: the two prompts do not end in the same cue: "
                f"the last {n} tokens are {list(self.ids0[-n:])} and {list(self.ids1[-n:])}",
                hint="end both arms' templates with the same answer cue, for instance '\\nAnswer:'",
            )

    @property
    def n_suffix(self) -> int:
        """Number of last tokens that the two prompts have alike: those that `tokens="suffix"` sets."""
        alike = zip(reversed(self.ids0), reversed(self.ids1), strict=False)
        return next((k for k, (a, b) in enumerate(alike) if a != b), min(len(self.ids0), len(self.ids1)))

    @property
    def n_answer(self) -> int:
        """Number of answer tokens, and of answer positions patched."""
        return len(self.answer_ids)


class RenderedPrompt(Protocol):
    """What `pair_from_rendered` reads of a prompt that an arm was rendered to; a dataclass."""

    @property
    def text(self) -> str:
        """The prompt, ending with its cue."""

    @property
    def answer(self) -> str:
        """The separator and the gold answer."""

    @property
    def segments(self) -> Sequence[tuple[str, int, int]]:
        """Named stretches ``(name, start, end)`` of the text in characters, in order."""


class _Encoded(Protocol):
    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def answer_ids(self) -> Sequence[int]: ...
    @property
    def segments(self) -> Sequence[tuple[str, int, int]]: ...


_P = TypeVar("_P", bound=RenderedPrompt)
_P_contra = TypeVar("_P_contra", bound=RenderedPrompt, contravariant=True)


class _Codec(Protocol[_P_contra]):
    def encode(self, prompt: _P_contra, *, answer: str | None = None, where: str = "") -> _Encoded: ...


_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def pair_from_rendered(
    codec: _Codec[_P],
    *,
    item_id: str,
    prompt0: _P,
    prompt1: _P,
    arms: tuple[str, str] = ("0", "1"),
    cluster: str = "",
    foil: str | None = None,
    numbers: bool = False,
) -> PromptPair:
    """Turn one item's two rendered prompts into a pair, its segments known from the rendering.

    Parameters
    ----------
    codec
        A tokenizer with ``encode(prompt, *, answer, where)``, which gives the ids of the prompt
        (special tokens before it included, unless a chat template has put them into the text),
        the ids of the answer after it, and the prompt's segments in tokens.
    item_id, cluster
        As in `PromptPair`.
    prompt0, prompt1 : RenderedPrompt
        The prompts of arms 0 and 1: text, answer and named segments in characters.
    arms : (str, str)
        The arms' names, for messages.
    foil : str, optional
        A wrong answer, its separator included, for ``outcome="margin"``.
    numbers : bool, default False
        Whether each number in the question becomes a segment of its own beside the question
        (``"number 1"``, ``"number 2"``, in order).

    Returns
    -------
    PromptPair
        Tokens in no segment make up the segment ``"template"``. The cue is the last segment
        named ``"cue"``; without one, the last token alone is compared.

    Raises
    ------
    MediationError
        If the prompts do not end in the same cue, or the answer or the foil tokenises
        differently after them; the message names the item and both arms.

    Examples
    --------
    >>> from collections import namedtuple
    >>> from dataclasses import dataclass
    >>> Encoded = namedtuple("Encoded", "ids answer_ids segments")
    >>> @dataclass
    ... class Prompt:
    ...     text: str
    ...     answer: str
    ...     segments: tuple
    >>> class Bytes:
    ...     def encode(self, prompt, *, answer=None, where=""):
    ...         answer = answer or prompt.answer
    ...         return Encoded(prompt.text.encode(), answer.encode(), prompt.segments)
    >>> pair = pair_from_rendered(
    ...     Bytes(),
    ...     item_id="a",
    ...     prompt0=Prompt("2+2?A:", "4", (("question", 0, 4), ("cue", 4, 6))),
    ...     prompt1=Prompt("Add.2+2?A:", "4", (("question", 4, 8), ("cue", 8, 10))),
    ... )
    >>> pair.cue_tokens, dict(pair.segments1)
    (2, {'question': ((4, 8),), 'cue': ((8, 10),), 'template': ((0, 4),)})
    """
    who = f"item {item_id!r}"
    prompts = (prompt0, prompt1)
    where = [f"{who}, arm {arm!r}" for arm in arms]
    gold = [codec.encode(p, where=w) for p, w in zip(prompts, where, strict=True)]
    foils = (
        []
        if foil is None
        else [codec.encode(p, answer=foil, where=w) for p, w in zip(prompts, where, strict=True)]
    )
    for what, texts, both in (
        ("answer", [p.answer for p in prompts], gold),
        ("foil", [foil, foil], foils),
    ):
        if both and tuple(both[0].answer_ids) != tuple(both[1].answer_ids):
            raise MediationError(
                f"{who}: the {what} tokenises differently after the prompts of arms {arms[0]!r} and "
                f"{arms[1]!r}: {texts[0]!r} is {list(both[0].answer_ids)}, "
                f"{texts[1]!r} is {list(both[1].answer_ids)}",
                hint="give both arms the same format and cue, so that the same tokens are scored after both",
            )
    tails = [_cue_ids(e) for e in gold]
    if tails[0] != tails[1]:
        shown = [_cue_text(p) for p in prompts]
        raise MediationError(
            f"{who}: the prompts of arms {arms[0]!r} and {arms[1]!r} do not end in the same cue: "
            f"{shown[0]!r} is {list(tails[0])}, {shown[1]!r} is {list(tails[1])}",
            hint="give both arms the same format and cue, since heads are compared at the answer positions",
        )
    spans = []
    for prompt, encoded in zip(prompts, gold, strict=True):
        named = [*encoded.segments]
        if numbers:
            # Numbers lie inside the question, so they are found in a second pass of their own.
            named += codec.encode(_with_numbers(prompt), where=who).segments
        spans.append(_grouped(named, len(encoded.ids)))
    return PromptPair(
        item_id=item_id,
        cluster=cluster,
        ids0=gold[0].ids,
        ids1=gold[1].ids,
        answer_ids=gold[0].answer_ids,
        foil_ids=foils[0].answer_ids if foils else None,
        cue_tokens=len(tails[0]),
        segments0=spans[0],
        segments1=spans[1],
    )


def _cue_ids(encoded: _Encoded) -> tuple[int, ...]:
    """Tokens of the cue that ends a prompt, or its last token."""
    ids = tuple(encoded.ids)
    cues = [(a, b) for name, a, b in encoded.segments if name == "cue" and b == len(ids)]
    return ids[cues[-1][0] :] if cues else ids[-1:]


def _cue_text(prompt: RenderedPrompt) -> str:
    cues = [prompt.text[start:end] for name, start, end in prompt.segments if name == "cue"]
    return cues[-1] if cues else prompt.text[-16:]


def _with_numbers(prompt: _P) -> _P:
    """Make the numbers of the question the prompt's only segments."""
    found = [
        (start + m.start(), start + m.end())
        for name, start, end in prompt.segments
        if name == "question"
        for m in _NUMBER.finditer(prompt.text[start:end])
    ]
    segments = tuple((f"number {i}", a, b) for i, (a, b) in enumerate(found, start=1))
    out: _P = replace(prompt, segments=segments)  # type: ignore[type-var]  # checked at run time
    return out


def _grouped(named: Sequence[tuple[str, int, int]], n: int) -> dict[str, Spans]:
    """Spans by name, and the tokens in none as the template."""
    out: dict[str, Spans] = {}
    free = [True] * n
    for name, start, stop in named:
        out[name] = (*out.get(name, ()), (start, stop))
        free[start:stop] = [False] * (stop - start)
    edges = [i for i in range(n + 1) if (0 < i < n and free[i] != free[i - 1]) or i in {0, n}]
    rest = tuple((a, b) for a, b in pairwise(edges) if free[a])
    if rest:
        out[TEMPLATE] = (*out.get(TEMPLATE, ()), *rest)
    return out


def pair_from_text(
    tokenizer: Any,  # noqa: ANN401  # any tokenizer with the transformers call signature
    *,
    item_id: str,
    prompt0: str | Sequence[tuple[str, str]],
    prompt1: str | Sequence[tuple[str, str]],
    answer: str,
    cluster: str = "",
    cue_tokens: int = 1,
    foil: str | None = None,
    add_special_tokens: bool = False,
) -> PromptPair:
    r"""Tokenise two rendered prompts and the answer that follows both.

    Parameters
    ----------
    tokenizer
        A fast transformers tokenizer.
    item_id, cluster, cue_tokens
        As in `PromptPair`.
    prompt0, prompt1 : str or sequence of (name, text)
        The rendered prompts; given as named parts, their token spans become segments.
        A token that straddles two parts belongs to the part it begins in.
    answer, foil : str
        The text that follows the cue, its leading space included where the cue has none.
    add_special_tokens : bool, default False
        Whether the tokenizer adds its own special tokens before the prompt.

    Returns
    -------
    PromptPair

    Raises
    ------
    MediationError
        If the answer's tokens merge with the prompt's, or differ between the two prompts.

    Examples
    --------
    >>> pair = pair_from_text(  # doctest: +SKIP
    ...     tokenizer, item_id="a", prompt0=[("question", "2+2?"), ("cue", "\nAnswer:")],
    ...     prompt1=[("question", "2+2?"), ("reasoning", "\n2+2=4"), ("cue", "\nAnswer:")], answer=" 4")
    """

    def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        out = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
        return list(out["input_ids"]), [tuple(o) for o in out["offset_mapping"]]

    def continuation(prompt: str, ids: list[int], text: str, what: str) -> list[int]:
        whole = encode(prompt + text)[0]
        if whole[: len(ids)] != ids or len(whole) == len(ids):
            raise MediationError(
                f"item {item_id!r}: the {what} {text!r} changes the tokens of the prompt it follows",
                hint="begin the answer with a space, or end the cue without one",
            )
        return whole[len(ids) :]

    ids: list[list[int]] = []
    segments: list[dict[str, Spans]] = []
    gold: list[list[int]] = []
    foils: list[list[int]] = []
    for prompt in (prompt0, prompt1):
        parts = [("", prompt)] if isinstance(prompt, str) else list(prompt)
        text = "".join(part for _, part in parts)
        tokens, offsets = encode(text)
        ids.append(tokens)
        segments.append(_spans(parts, offsets))
        gold.append(continuation(text, tokens, answer, "answer"))
        if foil is not None:
            foils.append(continuation(text, tokens, foil, "foil"))
    for name, pair in (("answer", gold), ("foil", foils)):
        if pair and pair[0] != pair[1]:
            raise MediationError(
                f"item {item_id!r}: the {name} tokenises differently after the two prompts: "
                f"{pair[0]} and {pair[1]}"
            )
    return PromptPair(
        item_id=item_id,
        cluster=cluster,
        ids0=ids[0],
        ids1=ids[1],
        answer_ids=gold[0],
        foil_ids=foils[0] if foils else None,
        cue_tokens=cue_tokens,
        segments0=segments[0],
        segments1=segments[1],
    )


def _spans(parts: Sequence[tuple[str, str]], offsets: Sequence[tuple[int, int]]) -> dict[str, Spans]:
    """Token spans of named parts; parts that no token begins in have none."""
    out: dict[str, Spans] = {}
    start = 0
    for name, text in parts:
        stop = start + len(text)
        inside = [i for i, (a, b) in enumerate(offsets) if start <= a < stop and b > a]
        if name and inside:
            out[name] = (*out.get(name, ()), (inside[0], inside[-1] + 1))
        start = stop
    return out
