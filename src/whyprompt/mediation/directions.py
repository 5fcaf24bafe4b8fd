"""Is what a head carries one direction? Learned on some items, tried on others."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from whyprompt._words import counted, percent
from whyprompt._workers.place import map_units
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.apart import Opening, goes_apart
from whyprompt.mediation.engine.runner import in_packs, score_of
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.intervals import check_level, interval_words, mean_interval, share_interval
from whyprompt.mediation.relate import ranked_heads
from whyprompt.mediation.scales import scale_words
from whyprompt.mediation.search import FEW, percent_words, share_words, split_items
from whyprompt.mediation.sweep import check_heads, open_runtime
from whyprompt.results import Estimate, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.attention import LayerState, World
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.sites import Site, SiteLike
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import Head, Sweep

    Array = NDArray[np.float64]

DirectionOutcome = Literal["log_prob", "prob"]
_WAYS = {"nie": "NIE", "pure_nie": "pure NIE"}
_HOWS = ("own", "component", "shift")
_SAID = 3
"""So many heads are told in the sentence; the rows have all."""


def head_directions(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    heads: Sequence[SiteLike] | None = None,
    sweep: Sweep | None = None,
    top: int = 4,
    held_out: float = 0.5,
    outcome: DirectionOutcome = "log_prob",
    level: float = 0.95,
    max_extra_bytes: int = 256 << 20,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Share of a head's effect that one direction of its output carries, on items it was not learned on.

    A head's direction is the mean of ``z(1) - z(0)``, its output under prompt 1 less that under prompt 0,
    over the answer positions of an item and then over the search items. On each held-out item two things are
    done with it, in both directions, at every answer position:

    - *shift*: the direction, with its length, is added to the head's output under prompt 0 (`pure_nie`), or
      taken off its output under prompt 1 (`nie`). Nothing of the item's other prompt is used: a share near 1
      says that the head moves all items by one vector.
    - *component*: the projection of the item's own ``z(1) - z(0)`` on the direction is added under prompt 0,
      or removed under prompt 1; all that is orthogonal stays as it was. A share near 1 says that the effect
      lies on one line, however far each item goes along it.

    A head that writes another vector for every item, as one that copies the answer does, has a small share in
    both, though its effect may be large.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    heads : sequence of (layer, head) or str, optional
        By default the `top` ones of `sweep`, by the mean size of their effect in both directions on the
        search items, so that held-out items do not choose.
    sweep : Sweep, optional
        A finished sweep of heads, over at least the search items and in both directions; needed where `heads`
        is not given.
    top : int, default 4
    held_out : float, default 0.5
        Share of clusters that no direction is learned on.
    outcome : {"log_prob", "prob"}
    level : float, default 0.95
    max_extra_bytes, progress
        As in `head_sweep`.
    random_state : int
        Draws the split, as in `find_heads`.

    Returns
    -------
    Result
        `parts` are of the held-out items, and named by the head: in `by` first what they are, "own" (the
        head's own effect), "component" or "shift" (the effect of either), "component share" or "shift share"
        (over the own effect; an end of its interval is infinite where the items do not bound it), then
        ", NIE" or ", pure NIE". The rows of the own effect have the figure ``cosine``, the mean over the
        held-out items of the cosine of their own difference with the direction. `overall` is the total
        effect. Figures: ``directions``, by head the learned vector, as many numbers as a head's output has;
        ``search_items`` and ``held_out_items``.

    Raises
    ------
    MediationError
        As in `head_sweep`; if there is nothing to choose heads by, or fewer than two clusters on either side
        of the split.

    References
    ----------
    Marks and Tegmark (2024). The geometry of truth. COLM (difference in means, added).
    Geiger et al. (2024). Finding alignments between interpretable causal variables and distributed neural
    representations. CLeaR (the component along a direction set to another input's).

    Examples
    --------
    >>> found = head_directions(model, pairs, sweep=sweep)  # doctest: +SKIP
    >>> found.part("head 14.1", by="component share, NIE").words  # doctest: +SKIP
    """
    check_level(level)
    tried = try_directions(
        model,
        pairs,
        heads=heads,
        sweep=sweep,
        top=top,
        held_out=held_out,
        outcome=outcome,
        max_extra_bytes=max_extra_bytes,
        random_state=random_state,
        progress=progress,
    )
    return judge_directions(tried, level=level)


def try_directions(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    heads: Sequence[SiteLike] | None = None,
    sweep: Sweep | None = None,
    top: int = 4,
    held_out: float = 0.5,
    outcome: DirectionOutcome = "log_prob",
    max_extra_bytes: int = 256 << 20,
    random_state: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Learn directions and try them, as `head_directions` does: item by item, as JSON can hold it."""
    if outcome not in get_args(DirectionOutcome):
        raise MediationError(f"unknown outcome {outcome!r}", hint="log_prob or prob")
    seen, unseen = split_items(pairs, held_out, random_state)
    ranked = _ranked(sweep, seen, top) if heads is None else heads
    with open_runtime(model, pairs, max_extra_bytes) as runtime:
        chosen = as_sites(check_heads(ranked, runtime.n_layers, runtime.width))
        work = _DirectionWork(Opening.of(runtime, pairs), chosen) if goes_apart() else None

        def by_pack(packs: list[list[PromptPair]], learned: list[torch.Tensor]) -> Iterator[list[Any]]:
            """Do each pack, of all workers that there are; what they give comes in the packs' order."""
            units = [(pack, learned, outcome) for pack in packs]
            if work is None:
                yield from (_done(runtime, chosen, unit) for unit in units)
                return
            yield from (found for _, found in sorted(map_units(work, units), key=lambda own: own[0]))

        learned = _learned(by_pack([*in_packs(runtime, seen, kept=lambda _: 0)], []), chosen)
        tried: list[_Tried] = []
        for found in by_pack([*in_packs(runtime, unseen, kept=lambda p: _kept(runtime, p))], learned):
            tried += found
            if progress is not None:
                progress(len(tried), len(unseen), "held-out items")
    return {
        "outcome": outcome,
        "directions": {str(site): v.tolist() for site, v in zip(chosen, learned, strict=True)},
        "search_items": [pair.item_id for pair in seen],
        "held_out_items": [pair.item_id for pair in unseen],
        "clusters": [pair.cluster for pair in unseen],
        "te": [one.te for one in tried],
        "effects": {key: [one.effects[key].tolist() for one in tried] for key in tried[0].effects},
        "cosines": [one.cosines for one in tried],
    }


def judge_directions(tried: Mapping[str, Any], *, level: float = 0.95) -> Result:
    """Say of what `try_directions` gives how much of each head's effect its direction carries."""
    clusters, names = tried["clusters"], [*tried["directions"]]
    effects = {key: np.array(values) for key, values in tried["effects"].items()}
    cosines = np.array(tried["cosines"]).mean(0)
    parts = tuple(
        part
        for k, name in enumerate(names)
        for way in _WAYS.values()
        for part in _parts(
            name,
            way,
            {how: effects[f"{how}, {way}"][:, k] for how in _HOWS},
            float(cosines[k]),
            clusters,
            level,
        )
    )
    scale = scale_words(tried["outcome"])
    out = Result(
        sentence="",
        overall=replace(mean_interval(tried["te"], cluster=clusters, level=level), label="total effect"),
        parts=parts,
        level=level,
        axis=f"effect on {scale}, or share of the head's own effect",
        figures={
            "directions": {name: tuple(v) for name, v in tried["directions"].items()},
            "search_items": tuple(tried["search_items"]),
            "held_out_items": tuple(tried["held_out_items"]),
        },
    )
    return replace(out, sentence=_sentence(out, names, scale, len(set(clusters))))


def _ranked(sweep: Sweep | None, seen: Sequence[PromptPair], top: int) -> tuple[Head, ...]:
    """Give the heads with the largest effects on the search items, the mean size over both directions."""
    if top < 1:
        raise MediationError(f"top is {top}, but it is at least 1")
    return ranked_heads(sweep, [pair.item_id for pair in seen])[:top]


def _kept(runtime: ModelRuntime, pair: PromptPair) -> int:
    return runtime.token_bytes * (len(pair.ids0) + len(pair.ids1))


def _clean(
    runtime: ModelRuntime, pack: Sequence[PromptPair], *, patched: bool
) -> Iterator[tuple[PromptPair, World, World]]:
    runs = [(pair, ids) for pair in pack for ids in (pair.ids0, pair.ids1)]
    worlds = runtime.clean_many(
        [(ids, pair.answer_ids) for pair, ids in runs],
        items=[pair.item_id for pair, _ in runs],
        patched=[patched] * len(runs),
    )
    for k, pair in enumerate(pack):
        yield pair, worlds[2 * k], worlds[2 * k + 1]


def _difference(world0: World, world1: World, site: Site) -> torch.Tensor:
    """Give z(1) - z(0) of a head, (answer, value_dim)."""
    after, before = (world.layers[site.layer].z[:, site.number] for world in (world1, world0))
    return after - before


_Unit = tuple["Sequence[PromptPair]", "list[torch.Tensor]", str]
"""A pack, the directions to try on it (none where they are still to be learned), and the outcome."""


@dataclass(frozen=True)
class _DirectionWork:
    """The work of one pack's differences, or of trying directions on it."""

    opening: Opening
    chosen: tuple[Site, ...]

    @contextmanager
    def opened(self) -> Iterator[Callable[[_Unit], list[Any]]]:
        with self.opening.opened() as runtime:
            yield lambda unit: _done(runtime, self.chosen, unit)


def _done(runtime: ModelRuntime, chosen: Sequence[Site], unit: _Unit) -> list[Any]:
    """Give each pair's differences, one a head, or what came of trying the directions on it."""
    pack, learned, outcome = unit
    if learned:
        return [*_try_on(runtime, pack, chosen, learned, outcome)]
    return [
        [_difference(world0, world1, site).double().mean(0).cpu() for site in chosen]
        for _, world0, world1 in _clean(runtime, pack, patched=False)
    ]


def _learned(packs: Iterator[list[list[torch.Tensor]]], chosen: Sequence[Site]) -> list[torch.Tensor]:
    """Mean difference of each head, over answer positions and then over items."""
    of_items = [one for pack in packs for one in pack]
    means = [sum(own[1:], own[0]) / len(own) for own in zip(*of_items, strict=True)]
    for site, mean in zip(chosen, means, strict=True):
        if not float(mean.norm()) > 0:
            raise MediationError(
                f"{site} gives the same under both prompts on the search items, so it has no direction",
                hint="leave it out",
            )
    return means


class _Tried(NamedTuple):
    """One held-out item: its total effect, the effects of each head by way and how, and cosines."""

    te: float
    effects: dict[str, Array]
    cosines: list[float]


def _try_on(
    runtime: ModelRuntime,
    pack: Sequence[PromptPair],
    chosen: Sequence[Site],
    learned: Sequence[torch.Tensor],
    outcome: str,
) -> Iterator[_Tried]:
    from whyprompt.mediation.engine.actions import set_output
    from whyprompt.mediation.engine.patching import Job

    rows = [(site,) for site in chosen]
    jobs, items = [], [*_clean(runtime, pack, patched=True)]
    keys = [(way, how) for way in _WAYS for how in _HOWS]
    for pair, world0, world1 in items:
        for way, how in keys:
            base, sign = (world1, -1) if way == "nie" else (world0, 1)
            layers = [*base.layers]
            for site, direction in zip(chosen, learned, strict=True):
                own = _difference(world0, world1, site)
                move = _moved(own, direction.to(own), how)
                layers[site.layer] = _with(layers[site.layer], site, sign * move)
            jobs.append(Job(base, rows, set_output(layers), pair.item_id))
    found = iter(runtime.patched_many(jobs))
    for _, world0, world1 in items:
        clean = [float(score_of(world.log_probs[None], outcome)[0]) for world in (world0, world1)]
        effects = {}
        for way, how in keys:
            y = score_of(next(found), outcome)[1:]
            effects[f"{how}, {_WAYS[way]}"] = clean[1] - y if way == "nie" else y - clean[0]
        cosines = [
            _cosine(_difference(world0, world1, site).double().mean(0), v)
            for site, v in zip(chosen, learned, strict=True)
        ]
        yield _Tried(clean[1] - clean[0], effects, cosines)


def _moved(own: torch.Tensor, direction: torch.Tensor, how: str) -> torch.Tensor:
    """Give what is added to z(0), or taken off z(1)."""
    if how == "own":
        return own
    if how == "shift":
        return direction.expand_as(own)
    unit = direction / direction.norm()
    along: torch.Tensor = (own @ unit)[:, None] * unit
    return along


def _with(state: LayerState, site: Site, move: torch.Tensor) -> LayerState:
    z = state.z.clone()
    z[:, site.number] += move
    return replace(state, z=z)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    size = float(a.norm() * b.norm().to(a.device))
    return float(a @ b.to(a)) / size if size > 0 else 0.0


def _parts(
    label: str, way: str, values: Mapping[str, Array], cosine: float, clusters: Sequence[str], level: float
) -> Iterator[Estimate]:
    for how, x in values.items():
        mean = mean_interval(x, cluster=clusters, level=level)
        figures = {"cosine": cosine} if how == "own" else {}
        yield replace(mean, label=label, by=f"{how}, {way}", figures=figures)
    for how in _HOWS[1:]:
        own = values["own"]
        low, high = share_interval(values[how], own, cluster=clusters, level=level)
        whole = float(own.mean())
        yield Estimate(
            label=label,
            by=f"{how} share, {way}",
            estimate=float(values[how].mean()) / whole if whole else None,
            ci_low=low,
            ci_high=high,
            n_used=len(own),
        )


def _sentence(r: Result, names: Sequence[str], scale: str, units: int) -> str:
    n = len(r["held_out_items"])
    text = f"On {counted(n, 'held-out item')}, of effects on {scale}:"
    for name in names[:_SAID]:
        each = []
        for word in _WAYS.values():
            own = r.part(name, by=f"own, {word}")
            line, shift = (r.part(name, by=f"{how} share, {word}") for how in ("component", "shift"))
            each.append(
                f"of its {word} of {own.estimate:.3g} ({interval_words(*own.ends)}) the component along its "
                f"mean difference carries {percent_words(line.estimate)} "
                f"({share_words(line, percent(r.level))}) and that difference itself "
                f"{percent_words(shift.estimate)} ({share_words(shift, percent(r.level))})"
            )
        text += f" {name}: {'; '.join(each)}."
    if units < FEW:
        text += f" With {units} held-out sampling units the intervals are rough: add items."
    return text
