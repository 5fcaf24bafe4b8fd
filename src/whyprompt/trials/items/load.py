"""The sources of a study as one pool: its items, and those kept out of it for worked examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from whyprompt.errors import DataError
from whyprompt.trials.items.files import from_file, from_gsm8k, from_natural_instructions
from whyprompt.trials.items.generators import from_reasoning_gym
from whyprompt.trials.items.hub import from_hub
from whyprompt.trials.items.item import ItemPool, by_task, check_items, draw, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.study import ItemSource, Study
    from whyprompt.trials.items.item import Item


def load_items(sources: Sequence[ItemSource], *, seed: int = 0, shots: int = 0) -> ItemPool:
    """Load the items of a study and the examples kept out of it.

    Parameters
    ----------
    sources : sequence of ItemSource
        As in a study file.
    seed : int, default 0
        Seeds generators, and the draw of ``size`` items from a larger file.
    shots : int, default 0
        The most examples that an arm draws. A source without a ``size`` gives all its items; where examples
        are drawn and no ``shot_pool`` is given, up to 16 items of each task, at most a quarter of it but no
        fewer than `shots`, are kept out for them.

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
    kept: list[Item] = []
    for source in sources:
        for chosen, examples in _load(source, seed, shots):
            items += chosen
            kept += examples
    check_items(items, where="the study's items")
    # Sources of one task may overlap: an example of one must not be an item of another.
    return ItemPool(items=tuple(items), shots={k: tuple(without(items, v)) for k, v in by_task(kept).items()})


def items_of(study: Study) -> ItemPool:
    """Load a study's own items, and the examples that its arms may draw; raises as `load_items`."""
    shots = max(getattr(arm, "shots", 0) for arm in study.arms.values())
    return load_items(study.items, seed=study.seeds.items, shots=shots)


def _load(source: ItemSource, seed: int, shots: int) -> list[tuple[list[Item], list[Item]]]:
    if source.source == "reasoning_gym":
        return [from_reasoning_gym(source, seed=seed)]
    if source.source == "natural_instructions":
        parts = []
        for name, (instances, examples) in from_natural_instructions(source).items():
            chosen, held_out = _split(instances, source, seed=seed, shots=shots, where=name)
            parts.append((chosen, without(chosen, [*examples, *held_out])[: source.shot_pool]))
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
    return [_split(everything, source, seed=seed, shots=shots, where=where)]


def _split(
    items: list[Item], source: ItemSource, *, seed: int, shots: int, where: str
) -> tuple[list[Item], list[Item]]:
    """Draw the study's items, and examples whose questions are not among them, in the source's order."""
    if not items:
        raise DataError(f"{where}: holds no items", hint="name a file with a row a question")
    if source.size is None:
        parts = [_without_size(group, source, seed, shots) for group in by_task(items).values()]
        kept = {id(item) for _, examples in parts for item in examples}
        chosen, rest = [i for i in items if id(i) not in kept], [i for i in items if id(i) in kept]
    elif len(items) < source.size:
        raise DataError(
            f"{where}: holds {len(items)} items, the study wants {source.size}",
            hint=f"set size to at most {len(items)}, or leave it out to take all",
        )
    else:
        chosen, rest = draw(items, source.size, seed=seed)
    groups = by_task(without(chosen, rest))
    return chosen, [item for group in groups.values() for item in group[: source.shot_pool]]


def _without_size(
    items: list[Item], source: ItemSource, seed: int, shots: int
) -> tuple[list[Item], list[Item]]:
    """Take all of a task but the examples that arms draw."""
    kept = source.shot_pool
    if "shot_pool" not in source.model_fields_set:
        kept = min(kept, max(shots, len(items) // 4))
    return draw(items, len(items) - kept if shots and kept < len(items) else len(items), seed=seed)
