"""The sources of a study as one pool: its items, and those kept out of it for worked examples."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, assert_never

from whyprompt.errors import DataError
from whyprompt.trials.items.files import from_file, from_gsm8k, from_natural_instructions
from whyprompt.trials.items.generators import from_reasoning_gym
from whyprompt.trials.items.hub import from_hub
from whyprompt.trials.items.item import Item, ItemPool, check_items, normalised_question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.study import ItemSource


def load_items(sources: Sequence[ItemSource], *, seed: int = 0) -> ItemPool:
    """Load the items of a study and the examples kept out of it.

    Parameters
    ----------
    sources : sequence of ItemSource
        As in a study file.
    seed : int, default 0
        Seeds generators, and the draw of ``size`` items from a larger file.

    Returns
    -------
    ItemPool
        No question of the study occurs among the examples.

    Raises
    ------
    DataError
        If a source is malformed, holds too few items, or two items share an id.

    Examples
    --------
    >>> from whyprompt.study import ReasoningGymSource
    >>> source = ReasoningGymSource(source="reasoning_gym", dataset="chain_sum", size=4, shot_pool=2)
    >>> pool = load_items([source], seed=1)
    >>> len(pool.items), len(pool.shots["chain_sum"])
    (4, 2)
    """
    items: list[Item] = []
    shots: dict[str, list[Item]] = {}
    for source in sources:
        for chosen, examples in _load(source, seed):
            items += chosen
            for example in examples:
                shots.setdefault(example.task_type, []).append(example)
    check_items(items, where="the study's items")
    # Sources of one task may overlap: an example of one must not be an item of another.
    return ItemPool(items=tuple(items), shots={k: tuple(_without(items, v)) for k, v in shots.items()})


def _load(source: ItemSource, seed: int) -> list[tuple[list[Item], list[Item]]]:
    if source.source == "reasoning_gym":
        return [from_reasoning_gym(source, seed=seed)]
    if source.source == "natural_instructions":
        parts = []
        for name, (instances, examples) in from_natural_instructions(source).items():
            chosen, held_out = _split(instances, source.size, source.shot_pool, seed=seed, where=name)
            parts.append((chosen, _without(chosen, [*examples, *held_out])[: source.shot_pool]))
        return parts
    if source.source == "file":
        everything, where = from_file(source), source.path
    elif source.source == "gsm8k":
        everything, where = from_gsm8k(source), source.path
    elif source.source == "hub":
        everything, where = from_hub(source), source.name
    else:
        assert_never(source)
    check_items(everything, where=where)
    return [_split(everything, source.size, source.shot_pool, seed=seed, where=where)]


def _split(
    items: list[Item], size: int, pool: int, *, seed: int, where: str
) -> tuple[list[Item], list[Item]]:
    """Draw the study's items, and examples whose questions are not among them, in the source's order."""
    if len(items) < size:
        raise DataError(
            f"{where}: holds {len(items)} items, the study wants {size}",
            hint=f"set size to at most {len(items)}",
        )
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible draw, not a secret
    chosen = [items[i] for i in sorted(order[:size])]
    rest = _without(chosen, [items[i] for i in sorted(order[size:])])
    by_task: dict[str, list[Item]] = {}
    for item in rest:
        by_task.setdefault(item.task_type, []).append(item)
    return chosen, [item for group in by_task.values() for item in group[:pool]]


def _without(chosen: list[Item], examples: list[Item]) -> list[Item]:
    taken = {normalised_question(i.question) for i in chosen}
    return [e for e in examples if normalised_question(e.question) not in taken]
