"""Two prompts for one item that end in the same cue, and the answer scored after both."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PromptPair", "Spans", "pair_from_text"]

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
    def n_answer(self) -> int:
        """Number of answer tokens, and of answer positions patched."""
        return len(self.answer_ids)


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
