"""Does what the model writes change? Greedy decoding under a patch, scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from whyprompt._words import counted
from whyprompt._workers.place import map_units
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.apart import Opening, goes_apart
from whyprompt.mediation.engine.runner import Direction, check_saved, digest_of, run_pairs
from whyprompt.mediation.results import PairOutcomes, Sweep
from whyprompt.mediation.scales import WRITTEN
from whyprompt.mediation.sweep import check_directions, found_of, open_runtime, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.sites import Site, SiteLike
    from whyprompt.mediation.pairs import PromptPair

    Score = Callable[[PromptPair, Sequence[int]], float]
    Stop = Callable[[Sequence[int]], bool]


def generation_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    sites: Mapping[str, Sequence[SiteLike]] | Sequence[SiteLike],
    *,
    score: Score,
    outcome: str = "exact_match",
    max_new_tokens: int = 32,
    stop: Stop | None = None,
    directions: Sequence[Direction] = get_args(Direction),
    max_extra_bytes: int = 256 << 20,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
) -> Sweep:
    """Effect of chosen heads or other sites, or of sets of them, on what the model writes, item by item.

    ``Y(1, M(0))`` is the score of the text that greedy decoding writes after prompt 1 when, at every token it
    writes, the site is set to what it gives after prompt 0 *with the same text written so far*; at the first
    token that is what `head_sweep` sets. So a mediator has one value for every text, whatever was written in
    another world, and the effects add up as they do elsewhere. Exact: no sampling.

    The price is two rows of one token (the prompt's own and the other's, whose outputs are taken over) for
    each site or set, direction, item and token written: of many heads, sweep the log-probability first.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`; the answers are not read, but by `score`.
    sites : sequence of str or (layer, head), or mapping of str to such
        Sites by their names, as in `site_sweep`, each set alone; or named sets, each set together.
    score : callable
        ``score(pair, token_ids)`` gives what a text is worth: 1 where it is right, 0 where it is not, or a
        grade. The token that ended the text, if one did, is the last.
    outcome : str, default "exact_match"
        What the score is called.
    max_new_tokens : int, default 32
    stop : callable, optional
        ``stop(token_ids)`` says whether a text, its last token included, ends there; at an end-of-sequence
        token of the model's by default.
    directions, max_extra_bytes, on_pair, done
        As in `head_sweep`.
    progress : callable, optional
        As in `head_sweep`; before anything runs, it is told how much there is to run at most.

    Returns
    -------
    Sweep
        Its outcome is "generated " and `outcome`: `infer_heads` gives intervals, and says that effects are
        risk differences.

    Raises
    ------
    MediationError
        As in `head_sweep`; if prompt and text do not fit the model's positions, or a score is not finite.

    Examples
    --------
    >>> sweep = generation_sweep(  # doctest: +SKIP
    ...     model,
    ...     pairs,
    ...     [(14, 1), (20, 5)],
    ...     score=lambda pair, ids: tokenizer.decode(ids).strip() == answers[pair.item_id],
    ... )
    >>> infer_heads(sweep).sentence  # doctest: +SKIP
    """
    from whyprompt.mediation.engine.wrapped import plain_model

    asked, model = check_directions(directions), plain_model(model)
    _check_room(model, pairs, max_new_tokens)
    # Their masks reach as far as texts may; which tokens stand there does not matter.
    room = [replace(pair, answer_ids=[pair.ids0[-1]] * max_new_tokens) for pair in pairs]
    ways = [
        (name, base)
        for name, base, own in (("y10", 1, {"nie", "nde"}), ("y01", 0, {"pure_nie", "total_nde"}))
        if asked & own
    ]
    ends = _ends(model) if stop is None else stop
    given = {pair.item_id: pair for pair in pairs}
    with open_runtime(model, room, max_extra_bytes) as runtime:
        if runtime.whole_rows or len(runtime.attending) < runtime.n_layers:
            raise MediationError(
                f"architecture {runtime.model_type!r}: its texts cannot be written under a patch, since not "
                "every layer keeps keys and values alone",
                hint="take an outcome that is had from log-probabilities",
            )
        single, sets = read_rows(runtime, dict(sites) if isinstance(sites, Mapping) else sites)
        rows = [*sets.values()] or [(site,) for site in single]
        if progress is not None:
            progress(0, len(pairs), cost_words(len(pairs), len(rows) * len(ways), max_new_tokens))

        def digest(pair: PromptPair) -> str:
            named = [[str(site) for site in row] for row in rows]
            return digest_of(pair.ids0, pair.ids1, max_new_tokens, outcome, named)

        def fitting(pair: PromptPair, row: PairOutcomes) -> PairOutcomes:
            wanted = {name: any(name == way for way, _ in ways) for name in ("y10", "y01")}
            options = "sites, outcome, max_new_tokens and directions"
            return check_saved(pair, row, wanted, len(rows), digest(pair), options)

        def scored(pair: PromptPair, texts: Sequence[tuple[int, ...]]) -> PairOutcomes:
            worth = [_worth(score, given[pair.item_id], ids) for ids in texts]
            each = iter(np.array(worth[2:]).reshape(len(ways), len(rows)))
            crossed = {name: next(each) for name, _ in ways}
            return PairOutcomes(
                item_id=pair.item_id,
                cluster=pair.cluster,
                y00=worth[0],
                y11=worth[1],
                y10=crossed.get("y10"),
                y01=crossed.get("y01"),
                made_with=digest(pair),
            )

        def run(packs: list[list[PromptPair]]) -> Iterator[tuple[int, list[PairOutcomes]]]:
            how: dict[str, Any] = {"rows": rows, "ways": ways, "most": max_new_tokens, "stop": ends}
            if goes_apart():
                found = map_units(_WriteWork(opening=Opening.of(runtime, room), how=how), packs)
            else:
                found = ((n, _written(runtime, pack, **how)) for n, pack in enumerate(packs))
            # Whoever asked knows what a text is worth: what is written elsewhere is scored here.
            for n, texts in found:
                yield n, [scored(pair, own) for pair, own in zip(packs[n], texts, strict=True)]

        found = run_pairs(
            runtime,
            room,
            run,
            fitting,
            kept=lambda pair: runtime.token_bytes * (len(pair.ids0) + len(pair.ids1)),
            progress=progress,
            on_pair=on_pair,
            done=done,
        )
        return Sweep(
            mediator="head_output",
            outcome=f"{WRITTEN}{outcome}",
            sites=single,
            sets=sets,
            **found_of(runtime, found),
        )


@dataclass(frozen=True, kw_only=True)
class _WriteWork:
    """The work of writing the texts of one pack of pairs at a time; `how` as of `_written`."""

    opening: Opening
    how: dict[str, Any]

    @contextmanager
    def opened(self) -> Iterator[Callable[[Sequence[PromptPair]], list[list[tuple[int, ...]]]]]:
        with self.opening.opened() as runtime:
            yield lambda pack: _written(runtime, pack, **self.how)


def _written(
    runtime: ModelRuntime,
    pack: Sequence[PromptPair],
    *,
    rows: Sequence[tuple[Site, ...]],
    ways: Sequence[tuple[str, int]],
    most: int,
    stop: Stop,
) -> list[list[tuple[int, ...]]]:
    """Give the texts of each pair: after prompt 0, after prompt 1, and the patched ones, a way at a time."""
    from whyprompt.mediation.engine.writing import Text, write

    runs = [(pair, ids) for pair in pack for ids in (pair.ids0, pair.ids1)]
    worlds = runtime.clean_many(
        [(ids, pair.answer_ids) for pair, ids in runs], items=[pair.item_id for pair, _ in runs]
    )
    texts = []
    for k, pair in enumerate(pack):
        both = worlds[2 * k : 2 * k + 2]
        texts += [Text(world, item=pair.item_id) for world in both]
        texts += [Text(both[base], both[1 - base], row, pair.item_id) for _, base in ways for row in rows]
    found = write(runtime, texts, most=most, stop=stop)
    each = len(texts) // len(pack)
    return [found[each * k : each * (k + 1)] for k in range(len(pack))]


def _worth(score: Score, pair: PromptPair, ids: Sequence[int]) -> float:
    value = float(score(pair, ids))
    if not math.isfinite(value):
        raise MediationError(
            f"item {pair.item_id!r}: the score of what was written is {value}", hint="give 0, 1 or a grade"
        )
    return value


def _ends(model: Any) -> Stop:  # noqa: ANN401  # a transformers model ships no type
    """Stop at the end-of-sequence tokens that the model names; where it names none, never."""
    named = [
        getattr(getattr(model, name, None), "eos_token_id", None) for name in ("generation_config", "config")
    ]
    known = next((ids for ids in named if ids is not None), ())
    ends = {known} if isinstance(known, int) else set(known)
    return partial(_ended, frozenset(ends))


def _ended(ends: frozenset[int], ids: Sequence[int]) -> bool:
    return ids[-1] in ends


def _check_room(model: Any, pairs: Sequence[PromptPair], most: int) -> None:  # noqa: ANN401  # as above
    if most < 1:
        raise MediationError(f"max_new_tokens is {most}, but it is at least 1")
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return
    for pair in pairs:
        needed = max(len(pair.ids0), len(pair.ids1)) + most - 1
        if needed > positions:
            raise MediationError(
                f"item {pair.item_id!r}: prompt and text need {needed} positions with max_new_tokens={most}, "
                f"and the model has {positions}",
                hint="ask for fewer tokens, or shorter prompts",
            )


def cost_words(items: int, texts: int, most: int) -> str:
    """Say what there is to write at most: of each item both arms' own texts, and the patched ones.

    >>> cost_words(10, 8, 32)
    '10 items x (2 + 8 x 2) rows x at most 32 steps = 5,760 tokens'
    """
    rows = 2 + 2 * texts
    total = f"{items * rows * most:,} tokens"
    return f"{counted(items, 'item')} x (2 + {texts} x 2) rows x at most {most} steps = {total}"
