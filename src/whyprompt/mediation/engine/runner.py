"""Running pairs: clean runs in packs, crossed runs one pair at a time, finished ones taken over."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

import numpy as np

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.align import align_shorter
from whyprompt.mediation.results import PairOutcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.actions import Action
    from whyprompt.mediation.engine.attention import World
    from whyprompt.mediation.engine.blocks import Place
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.patching import Job
    from whyprompt.mediation.engine.routes import Path
    from whyprompt.mediation.engine.sites import Site
    from whyprompt.mediation.pairs import PromptPair

Mediator = Literal["head_output", "attention_row", "path", "direct_path"]
PATHS = ("path", "direct_path")
Outcome = Literal["log_prob", "prob", "margin", "first_token"]
Direction = Literal["nie", "nde", "pure_nie", "total_nde"]
Tokens = Literal["answer", "suffix"]

OTHERS = -1
"""In the place of a rival token: whichever of all others has the largest logit."""

_PACK_TOKENS = 448  # four times as many where weights are widened, which costs a pack and not a token


class WorldCache:
    """Clean runs kept for the next sweep over the same pairs, within a budget of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = self._left = max_bytes
        self._held: dict[str, list[World]] = {}

    def get(self, item: str, places: Collection[Place]) -> list[World] | None:
        """Give the runs of an item, or None; runs that did not keep these places are no use."""
        held = self._held.get(item)
        return held if held and all(place in held[0].outputs for place in places) else None

    def offer(self, item: str, worlds: list[World]) -> None:
        """Keep the runs of an item if they still fit, in place of runs that kept less."""
        size = sum(world.nbytes for world in worlds)
        before = sum(world.nbytes for world in self._held.get(item, ()))
        if before < size <= self._left + before:
            self._held[item] = worlds
            self._left -= size - before


class Split(Protocol):
    """How a site is set in part: row by row, other values than those of the other run."""

    @property
    def name(self) -> str:
        """What the values depend on, for the digest of a saved item."""

    @property
    def reads(self) -> tuple[Place, ...]:
        """Places that clean runs keep for it."""

    def job(self, base: World, source: World, item: str) -> Job:
        """Give the patched runs of one clean run, with a row for every part."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs pairs: both clean runs, and the crossed runs that the directions need.

    `rows` are sets of heads or, where the mediator is one of `PATHS`, sets of paths; with a `split`, which
    site each of its rows sets.
    """

    runtime: ModelRuntime
    rows: Sequence[Sequence[Site]] | Sequence[Sequence[Path]]
    mediator: Mediator
    directions: frozenset[str]
    outcome: Outcome
    cache: WorldCache | None = None
    tokens: Tokens = "answer"
    split: Split | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("mediator", self.mediator, get_args(Mediator)),
            ("outcome", self.outcome, get_args(Outcome)),
            ("tokens", self.tokens, get_args(Tokens)),
        ):
            if value not in allowed:
                raise MediationError(f"unknown {name} {value!r}", hint=f"one of {', '.join(allowed)}")
        if self.mediator == "attention_row" and (self.tokens != "answer" or self.places):
            raise MediationError(
                "attention rows are moved in heads, at the answer positions",
                hint="leave mediator='attention_row' out, or sweep heads with tokens='answer'",
            )

    @property
    def places(self) -> tuple[Place, ...]:
        """The blocks that some row sets."""
        if self.mediator in PATHS:
            return ()
        rows = cast("Sequence[Sequence[Site]]", self.rows)
        own: dict[Place, None] = {(s.kind, s.layer): None for row in rows for s in row if s.kind != "head"}
        return tuple(own | dict.fromkeys(self.split.reads if self.split is not None else ()))

    def run(self, pairs: Sequence[PromptPair]) -> Iterator[PairOutcomes]:
        """Run some pairs: their clean runs in one pass, their patched rows in common batches."""
        cache = self.cache or WorldCache(0)
        held = {p.item_id: cache.get(p.item_id, self.places) for p in pairs}
        fresh = self._clean([p for p in pairs if held[p.item_id] is None])
        worlds = {item: known or fresh[item] for item, known in held.items()}
        crossings: dict[tuple[str, int, str], tuple[PromptPair, list[World], int]] = {}
        for pair in pairs:
            runs = worlds[pair.item_id]
            cache.offer(pair.item_id, runs)
            # After the gold answer and, for a margin over a foil of several tokens, after the foil.
            for k in range(0, len(runs), 2):
                for name, base in (("y10", 1), ("y01", 0)):
                    if self.wanted(pair, name):
                        crossings[pair.item_id, k, name] = pair, runs[k : k + 2], base
        crossed = dict(zip(crossings, self._crossed([*crossings.values()]), strict=True))
        for pair in pairs:
            yield self._outcomes(pair, worlds[pair.item_id], crossed)

    def _crossed(self, crossings: Sequence[tuple[PromptPair, list[World], int]]) -> list[torch.Tensor]:
        """Run all rows in every crossing: of a pair, its two clean runs, and which of them is patched."""
        from whyprompt.mediation.engine.patching import Job
        from whyprompt.mediation.engine.routes import run_routes

        if self.mediator in PATHS:
            frozen = self.mediator == "direct_path"
            of_paths = [(runs[base], runs[1 - base], pair.item_id) for pair, runs, base in crossings]
            paths = cast("Sequence[Sequence[Path]]", self.rows)
            return run_routes(self.runtime, paths, of_paths, frozen=frozen)
        if self.split is not None:
            split = self.split
            return self.runtime.patched_many(
                [split.job(runs[base], runs[1 - base], pair.item_id) for pair, runs, base in crossings]
            )
        sites = cast("Sequence[Sequence[Site]]", self.rows)
        return self.runtime.patched_many(
            [
                Job(
                    runs[base],
                    sites,
                    self._action(pair, runs, base, 1 - base),
                    pair.item_id,
                    runs[1 - base].outputs,
                )
                for pair, runs, base in crossings
            ]
        )

    def _clean(self, pairs: Sequence[PromptPair]) -> dict[str, list[World]]:
        """Clean runs of both prompts of each pair, after all that is scored."""
        if not pairs:
            return {}
        runs = [(pair, scored, arm) for pair in pairs for scored in self._scored(pair) for arm in (0, 1)]
        windows = [pair.n_suffix - 1 + len(answer) for pair, (answer, _), _ in runs]
        worlds = self.runtime.clean_many(
            [(pair.ids1 if arm else pair.ids0, answer) for pair, (answer, _), arm in runs],
            keep_weights=self.mediator == "attention_row",
            items=[pair.item_id for pair, _, _ in runs],
            patched=[self._bases(pair)[arm] for pair, _, arm in runs],
            windows=windows if self.tokens == "suffix" else None,
            places=self.places,
            rivals=[rival for _, (_, rival), _ in runs],
        )
        out: dict[str, list[World]] = {pair.item_id: [] for pair in pairs}
        for (pair, _, _), world in zip(runs, worlds, strict=True):
            out[pair.item_id].append(world)
        return out

    def _scored(self, pair: PromptPair) -> list[tuple[Sequence[int], int | None]]:
        """Give the tokens that a pair's runs are followed by, and the token that each is held against.

        Of an answer and a foil of one token each, one run has both; what comes first needs no later token.
        """
        if self.outcome == "first_token":
            return [(pair.answer_ids[:1], OTHERS)]
        if self.outcome != "margin":
            return [(pair.answer_ids, None)]
        foil = pair.foil_ids
        if foil is None:
            raise MediationError(f"item {pair.item_id!r} has no foil_ids, which outcome='margin' needs")
        if tuple(foil) == tuple(pair.answer_ids):
            raise MediationError(f"item {pair.item_id!r}: its foil_ids are its answer_ids")
        if len(foil) == 1 == pair.n_answer:
            return [(pair.answer_ids, foil[0])]
        return [(pair.answer_ids, None), (foil, None)]

    def _outcomes(
        self,
        pair: PromptPair,
        worlds: list[World],
        crossed: Mapping[tuple[str, int, str], torch.Tensor],
    ) -> PairOutcomes:
        floor: float | None = None

        def potential(k: int) -> dict[str, NDArray[np.float64] | None]:
            nonlocal floor
            out: dict[str, NDArray[np.float64] | None] = {
                name: score_of(world.log_probs[None], self.outcome)
                for name, world in zip(("y00", "y11"), worlds[k : k + 2], strict=True)
            }
            off = [0.0]
            for name, base in (("y10", out["y11"]), ("y01", out["y00"])):
                rows = crossed.get((pair.item_id, k, name))
                out[name] = None
                if rows is not None:
                    y = score_of(rows, self.outcome)
                    out[name] = y[1:]
                    off.append(float(abs(y[0] - base)[0]))
            floor = max(off) + (floor or 0.0)
            return out

        y = potential(0)
        if len(worlds) > 2:
            foil = potential(2)
            y = {k: None if v is None or (w := foil[k]) is None else v - w for k, v in y.items()}
        assert y["y00"] is not None and y["y11"] is not None  # noqa: PT018  # for mypy
        return PairOutcomes(
            item_id=pair.item_id,
            cluster=pair.cluster,
            y00=float(y["y00"][0]),
            y11=float(y["y11"][0]),
            y10=y["y10"],
            y01=y["y01"],
            floor=floor,
            made_with=self.digest(pair),
        )

    def digest(self, pair: PromptPair) -> str:
        """Name everything that a saved item's numbers depend on, but for the model."""
        rows = [[str(site) for site in row] for row in self.rows]
        foil = pair.foil_ids if self.outcome == "margin" else None
        split = () if self.split is None else (self.split.name,)
        return digest_of(
            pair.ids0,
            pair.ids1,
            pair.answer_ids,
            foil,
            self.mediator,
            self.outcome,
            self.tokens,
            rows,
            *split,
        )

    def fitting(self, pair: PromptPair, row: PairOutcomes) -> PairOutcomes:
        """Check that a saved item is one of this sweep's."""
        wanted = {name: self.wanted(pair, name) for name in ("y10", "y01")}
        options = "sites, tokens, mediator, outcome and directions"
        return check_saved(pair, row, wanted, len(self.rows), self.digest(pair), options)

    def _bases(self, pair: PromptPair) -> tuple[bool, bool]:
        """Which of its prompts are patched, so that their keys and values are kept."""
        return self.wanted(pair, "y01"), self.wanted(pair, "y10")

    def kept_bytes(self, pair: PromptPair) -> int:
        """Count the bytes that a pair keeps: of keys and values, and of sites at every token of a suffix."""
        kept = self.runtime.token_bytes * sum(
            len(ids) for ids, base in zip((pair.ids0, pair.ids1), self._bases(pair), strict=True) if base
        )
        if self.tokens == "suffix":
            widths = sum(self.runtime.blocks.width(place) for place in self.places)
            heads = self.runtime.n_layers * self.runtime.n_heads * self.runtime.value_width
            kept += 2 * pair.n_suffix * (widths + heads) * self.runtime.number_bytes
        return kept * len(self._scored(pair))

    def wanted(self, pair: PromptPair, name: str) -> bool:
        """Say whether a crossed outcome is asked for and can be had."""
        if self.mediator == "attention_row":
            # Only the longer prompt can be the base: the other way, mass on inserted tokens has no place.
            return name == ("y10" if len(pair.ids1) >= len(pair.ids0) else "y01")
        return bool(self.directions & ({"nie", "nde"} if name == "y10" else {"pure_nie", "total_nde"}))

    def _action(self, pair: PromptPair, worlds: list[World], base: int, source: int) -> Action:
        from whyprompt.mediation.engine.actions import set_output, set_row

        if self.mediator == "head_output":
            return set_output(worlds[source].layers)
        place = align_shorter(pair)
        n = len(worlds[source].answer)
        into = list(place) + [len(worlds[base].ids) - n + 1 + j for j in range(n - 1)]
        rows: list[torch.Tensor] = []
        for state in worlds[source].layers:
            assert state.weights is not None
            row = state.weights.new_zeros(*state.weights.shape[:2], len(worlds[base].ids))
            row[..., into] = state.weights
            rows.append(row)
        return set_row(rows)


def digest_of(*parts: object) -> str:
    """Digest of plain values."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def score_of(log_probs: torch.Tensor, outcome: str) -> NDArray[np.float64]:
    """Outcome of each row from its answer tokens' log-probabilities, or logits less those of rivals."""
    total: NDArray[np.float64] = log_probs.sum(-1).numpy()
    if outcome == "first_token":
        return (total > 0).astype(np.float64)
    return np.exp(total) if outcome == "prob" else total


def in_packs(
    runtime: ModelRuntime, pairs: Sequence[PromptPair], *, kept: Callable[[PromptPair], int]
) -> Iterator[list[PromptPair]]:
    """Pairs that run together: as many as keep matrix products fast, and no more than the budget holds.

    `kept` counts the bytes that a pair keeps.
    """
    # A quarter of the budget for what is kept; what passes through has the rest.
    most_kept = runtime.max_extra_bytes // 4
    most_run = min(
        _PACK_TOKENS * (4 if runtime.by_differences else 1),
        runtime.max_extra_bytes // (2 * runtime.number_bytes * runtime.row_width),
    )
    pack: list[PromptPair] = []
    run = keep = 0
    for pair in pairs:
        # The second prompt brings only what is its own.
        own = len(pair.ids0) + len(pair.ids1) - _common(pair.ids0, pair.ids1)
        if pack and (run + own > most_run or keep + kept(pair) > most_kept):
            yield pack
            pack, run, keep = [], 0, 0
        pack.append(pair)
        run, keep = run + own, keep + kept(pair)
    if pack:
        yield pack


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Count the first tokens that are alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def run_pairs(
    runtime: ModelRuntime,
    pairs: Sequence[PromptPair],
    run: Callable[[list[list[PromptPair]]], Iterator[tuple[int, list[PairOutcomes]]]],
    fitting: Callable[[PromptPair, PairOutcomes], PairOutcomes],
    *,
    kept: Callable[[PromptPair], int],
    progress: Progress | None,
    on_pair: Callable[[PairOutcomes], None] | None,
    done: Mapping[str, PairOutcomes] | None,
) -> list[PairOutcomes]:
    """Run all pairs but those done, and give their outcomes in the order of the pairs.

    `run` runs packs, each by its number, in any order; `fitting` checks a saved item, `kept` is as in
    `in_packs`. The packs are those of all pairs, done or not: who runs together decides the last digits.
    """
    rows = {p.item_id: fitting(p, done[p.item_id]) for p in pairs if done and p.item_id in done}
    finished = len(rows)
    if progress is not None and finished:
        progress(finished, len(pairs), "items")
    packs = [
        pack for pack in in_packs(runtime, pairs, kept=kept) if not all(pair.item_id in rows for pair in pack)
    ]
    for _, found in run(packs):
        for row in found:
            if row.item_id in rows:
                continue
            rows[row.item_id] = row
            finished += 1
            if on_pair is not None:
                on_pair(row)
            if progress is not None:
                progress(finished, len(pairs), "items")
    return [rows[p.item_id] for p in pairs]


def check_saved(
    pair: PromptPair, row: PairOutcomes, wanted: Mapping[str, bool], n: int, digest: str, options: str
) -> PairOutcomes:
    """Check that a saved item is one of this sweep's; one that does not say what it was made with is trusted.

    `wanted` says which outcomes the sweep runs, of `n` mediators each.
    """
    hint = f"resume with the same prompts, {options}, or start afresh"
    for name, here in wanted.items():
        array = getattr(row, name)
        if (array is not None) != here or (array is not None and array.shape != (n,)):
            raise MediationError(
                f"item {pair.item_id!r}: the saved {name} does not fit this sweep", hint=hint
            )
    if row.made_with and row.made_with != digest:
        raise MediationError(
            f"item {pair.item_id!r}: what is saved of it was made with other prompts or options", hint=hint
        )
    return replace(row, cluster=pair.cluster)
