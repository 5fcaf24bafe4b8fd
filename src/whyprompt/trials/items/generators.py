"""Items from the generators of ``reasoning-gym``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError
from whyprompt.trials.items.item import Item, normalised_question

if TYPE_CHECKING:
    from whyprompt.study import ReasoningGymSource

_MOST_DRAWS = 50
# So many draws in a row without a question that is new: the generator has no more of them.
_PATIENCE = 20_000


def from_reasoning_gym(source: ReasoningGymSource, *, seed: int) -> tuple[list[Item], list[Item]]:
    """Make the items of a study and its examples with a generator of ``reasoning-gym``.

    Gives ``size`` items and ``shot_pool`` examples; no question occurs twice among both.

    Raises
    ------
    DataError
        If ``reasoning-gym`` is not installed, does not know the data set or a setting, or cannot make that
        many different questions.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise DataError(
            "reasoning-gym is not installed, and an item source needs it",
            hint='pip install "whyprompt[data]"',
        ) from None
    if source.dataset not in DATASETS:
        raise DataError(
            f"reasoning-gym has no data set {source.dataset!r}; it has {', '.join(sorted(DATASETS))}"
        )
    levels: list[dict[str, Any]] = source.levels or [{}]
    task = source.task_type or source.dataset
    wanted = source.size + source.shot_pool
    per_level = [wanted // len(levels) + (i < wanted % len(levels)) for i in range(len(levels))]
    seen: set[str] = set()
    made: list[list[Item]] = []
    for number, (level, count) in enumerate(zip(levels, per_level, strict=True), start=1):
        settings = {**source.settings, **level}
        try:
            dataset = reasoning_gym.create_dataset(
                source.dataset, size=count * _MOST_DRAWS, seed=seed + 1000 * (number - 1), **settings
            )
        except (TypeError, AssertionError, ValueError) as error:
            raise DataError(f"reasoning-gym refuses the settings of {source.dataset!r}: {error}") from None
        found: list[Item] = []
        newest = 0
        for index in range(count * _MOST_DRAWS):
            if len(found) == count or index - newest > _PATIENCE:
                break
            row = dataset[index]
            key = normalised_question(row["question"])
            if key in seen:
                continue
            seen.add(key)
            newest = index
            found.append(_item(source, task, row, f"{number}-{index}", float(number)))
        if len(found) < count:
            raise DataError(
                f"reasoning-gym made {len(found)} different questions of {source.dataset!r} with {settings}, "
                f"{count} are wanted",
                hint="lower 'size' or 'shot_pool', or widen the settings",
            )
        made.append(found)
    # Round robin over the levels, so that study and examples have the same mix.
    mixed = [items[i] for i in range(max(per_level)) for items in made if i < len(items)]
    return mixed[: source.size], mixed[source.size :]


def _item(source: ReasoningGymSource, task: str, row: dict[str, Any], number: str, level: float) -> Item:
    meta = row["metadata"]
    difficulty: float | None = level if source.levels else None
    if source.difficulty is not None:
        value = meta.get(source.difficulty)
        if not isinstance(value, int | float):
            numeric = sorted(k for k, v in meta.items() if isinstance(v, int | float))
            raise DataError(
                f"reasoning-gym's {source.dataset!r} has no number {source.difficulty!r} in its metadata",
                hint=f"it has {', '.join(numeric)}",
            )
        difficulty = float(value)
    solution = meta.get("answer_cot")
    if difficulty is None and isinstance(solution, str):
        difficulty = float(len([line for line in solution.splitlines() if any(c.isdigit() for c in line)]))
    return Item(
        item_id=f"{task}-{number}",
        question=str(row["question"]).strip(),
        answer=str(row["answer"]).strip(),
        task_type=task,
        difficulty=difficulty,
        solution=solution if isinstance(solution, str) else None,
    )
