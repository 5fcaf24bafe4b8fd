"""Where the tokens of the shorter prompt lie in the longer one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.mediation.pairs import PromptPair, Spans

__all__ = ["align_shorter"]


def align_shorter(pair: PromptPair) -> tuple[int, ...]:
    """Position in the longer prompt of every token of the shorter one.

    The longer prompt must be the shorter one with blocks inserted. The common prefix and the
    common suffix align by their tokens; what lies between them aligns by the segments that
    both prompts name, in order and with the same tokens.

    Parameters
    ----------
    pair : PromptPair

    Returns
    -------
    tuple of int
        Strictly increasing, one for each token of the shorter prompt.

    Raises
    ------
    MediationError
        If a token of the shorter prompt has no place in the longer one.

    Examples
    --------
    >>> from whyprompt.mediation.pairs import PromptPair
    >>> align_shorter(PromptPair(item_id="a", ids0=[1, 2, 9], ids1=[1, 2, 5, 6, 9], answer_ids=[3]))
    (0, 1, 4)
    """
    if len(pair.ids1) >= len(pair.ids0):
        short, long, named_short, named_long = pair.ids0, pair.ids1, pair.segments0, pair.segments1
    else:
        short, long, named_short, named_long = pair.ids1, pair.ids0, pair.segments1, pair.segments0
    prefix = 0
    while prefix < len(short) and short[prefix] == long[prefix]:
        prefix += 1
    suffix = 0
    while suffix < len(short) - prefix and short[-1 - suffix] == long[-1 - suffix]:
        suffix += 1
    place: dict[int, int] = {i: i for i in range(prefix)}
    place |= {len(short) - 1 - i: len(long) - 1 - i for i in range(suffix)}
    if len(place) < len(short):
        place = _by_segments(short, long, named_short, named_long) | place
    missing = [i for i in range(len(short)) if i not in place]
    out = tuple(place.get(i, -1) for i in range(len(short)))
    if missing or any(b <= a for a, b in pairwise(out)):
        where = f"token {missing[0]}" if missing else "the order of the segments"
        raise MediationError(
            f"item {pair.item_id!r}: the longer prompt is not the shorter one with blocks inserted "
            f"({where} has no place in it), so attention rows cannot be moved",
            hint="name the segments that both prompts share, or use mediator='head_output', "
            "which needs no alignment",
        )
    return out


def _by_segments(
    short: Sequence[int],
    long: Sequence[int],
    named_short: Mapping[str, Spans],
    named_long: Mapping[str, Spans],
) -> dict[int, int]:
    """Places from segments with the same name, number of spans and tokens."""
    place: dict[int, int] = {}
    for name, spans in named_short.items():
        others = named_long.get(name, ())
        if len(others) != len(spans):
            continue
        for (a, b), (c, d) in zip(spans, others, strict=True):
            if tuple(short[a:b]) == tuple(long[c:d]):
                place |= dict(zip(range(a, b), range(c, d), strict=True))
    return place
