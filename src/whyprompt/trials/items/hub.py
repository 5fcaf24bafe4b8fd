"""Items from data sets on the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import first_line
from whyprompt.errors import DataError
from whyprompt.trials.items.layouts import column_item, gsm8k_item, instance_item

if TYPE_CHECKING:
    from collections.abc import Iterable

    from whyprompt.study import HubSource
    from whyprompt.trials.items.item import Item


def from_hub(source: HubSource) -> list[Item]:
    """Load a data set of the hub by name, or a local folder that ``datasets`` can load, by its layout.

    Raises
    ------
    DataError
        If ``datasets`` is not installed, or the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(
            "datasets is not installed, and an item source needs it", hint='pip install "whyprompt[data]"'
        ) from None
    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(
            source.name, source.config, split=source.split, revision=source.revision
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"the data set {source.name!r} (split {source.split!r}) cannot be loaded: {first_line(error)}",
            hint="check the name, the configuration and the network, or use a local file",
        ) from None
    task = source.task_type or source.name.rsplit("/", 1)[-1].replace("-", "_")
    if source.layout == "gsm8k":
        return [gsm8k_item(row, index=i, task=task, where=source.name) for i, row in enumerate(rows)]
    if source.layout == "natural_instructions":
        return [_instance(row, i, task, source.name) for i, row in enumerate(rows)]
    return [
        column_item(row, source.columns, index=i, task=task, where=source.name) for i, row in enumerate(rows)
    ]


def _instance(row: dict[str, Any], index: int, task: str, where: str) -> Item:
    """Make an item of the hub's copy of Natural Instructions: a row an instance, its definition beside it."""
    for key in ("definition", "inputs", "targets"):
        if key not in row:
            raise DataError(
                f"{where}, row {index + 1}: no column {key!r}, which Natural Instructions has",
                hint=f"it has {', '.join(row)}; use layout: columns, and name them",
            )
    name, number = str(row.get("task_name", task)), str(row.get("id", f"{task}-{index}"))
    return instance_item(number, name, row["definition"], row["inputs"], row["targets"])
