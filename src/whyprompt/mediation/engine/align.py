"""Where the tokens of the shorter prompt lie in the longer one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from whyprompt.errors import MediationError
from whyprompt.mediation.pairs import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.mediation.pairs import PromptPair, Spans


def align_shorter(pair: PromptPair) -> tuple[int, ...]:
    """Position in the longer prompt of every token of the shorter one.

    The longer prompt must be the shorter one with blocks inserted. Segments that both prompts
    name, with the same tokens, align first: how the prompts were rendered comes before what
    their tokens look like. Between them, and before the first and after the last, a common
    prefix and then a common suffix align by their tokens.

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
    place = _by_gaps(short, long, _by_segments(short, long, named_short, named_long))
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
        # What a template puts between the parts is not one part: its stretches need not correspond.
        if name == TEMPLATE or len(others) != len(spans):
            continue
        for (a, b), (c, d) in zip(spans, others, strict=True):
            if tuple(short[a:b]) == tuple(long[c:d]):
                place |= dict(zip(range(a, b), range(c, d), strict=True))
    return place


def _by_gaps(short: Sequence[int], long: Sequence[int], anchors: dict[int, int]) -> dict[int, int]:
    """Add to the anchors the common prefix and suffix of each stretch between them."""
    place = dict(anchors)
    stops = [*sorted(anchors.items()), (len(short), len(long))]
    a, b = 0, 0
    for c, d in stops:
        i, j = a, b
        while i < c and j < d and short[i] == long[j]:
            place[i] = j
            i, j = i + 1, j + 1
        m, n = c, d
        while m > i and n > j and short[m - 1] == long[n - 1]:
            m, n = m - 1, n - 1
            place[m] = n
        a, b = c + 1, d + 1
    return place
