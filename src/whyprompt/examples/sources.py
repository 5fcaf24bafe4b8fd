"""Where the items of the two examples come from, in order of preference."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from whyprompt.errors import DataError
from whyprompt.study import (
    Columns,
    Gsm8kSource,
    HubSource,
    NaturalInstructionsSource,
    ReasoningGymSource,
)
from whyprompt.trials.items.files import from_gsm8k, from_natural_instructions
from whyprompt.trials.items.generators import from_reasoning_gym
from whyprompt.trials.items.hub import from_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whyprompt.trials.items.item import Item

GENERATED = "generated"
"""The name that asks for generated tasks outright, so that no hub is tried."""

_NATURAL_INSTRUCTIONS = "Muennighoff/natural-instructions"
# The hub's copy lists its rows task by task: ten slices over its length reach different tasks.
_NI_SPLIT = "+".join(f"test[{k}%:{k + 1}%]" for k in range(5, 100, 10))
_P3 = "bigscience/P3"
# Data sets of P3 whose answers are a word or a phrase: they can be checked.
_P3_CONFIGS = {
    "ag_news_classify": "ag_news",
    "super_glue_copa_choose": "copa",
    "super_glue_rte_does_it_follow_that": "rte",
    "trec_what_category_best_describe": "trec",
}
_GSM8K = "openai/gsm8k"
_PATIENCE = 5.0
"""Seconds in which a host that can be reached takes a connection."""

# Tasks of a short answer that a model of 135M parameters sometimes gets right and sometimes does not.
_TASKS: dict[str, dict[str, Any]] = {
    "letter_counting": {"settings": {"min_words": 2, "max_words": 5}, "difficulty": "span_length"},
    "chain_sum": {
        "settings": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
        "difficulty": "num_digits",
    },
    "gcd": {
        "settings": {"min_numbers": 2, "max_numbers": 2, "min_value": 1},
        "levels": [{"max_value": 20}, {"max_value": 60}],
    },
    "needle_haystack": {
        "settings": {"min_num_statements": 3, "max_num_statements": 10},
        "difficulty": "num_statements",
    },
    "calendar_arithmetic": {},
    "syllogism": {},
}

Found = tuple[str, str, "Sequence[Item]", "Sequence[Item]"]
"""Of a source its kind, its name, its items and its own worked examples, before any is dropped or drawn."""

Notices = tuple[str, ...]
"""What was tried and failed, and what stands in its place; nothing where the wanted source was read."""


def example1_items(source: str | None, *, size: int, examples: int, seed: int) -> tuple[Found, Notices]:
    """Find the items of Example 1; the arguments are those of `prepare_example1`.

    Generated tasks are made in the numbers asked for, data sets are read whole. A source that was asked for
    and cannot be read is refused.
    """

    def named(path: Path | None) -> Found:
        if path is not None:
            return _local_instructions(str(source), path)
        return _p3() if source == _P3 else _hub_instructions(str(source))

    return _find(
        source,
        [
            (f"Natural Instructions ({_NATURAL_INSTRUCTIONS})", lambda: _hub_instructions(None)),
            (f"P3 ({_P3})", _p3),
        ],
        named,
        lambda: _generated(_TASKS, size=size, examples=examples, seed=seed),
        "generated, verifiable tasks of reasoning-gym; these are NOT Natural Instructions",
    )


def example2_items(source: str | None, *, size: int, examples: int, seed: int) -> tuple[Found, Notices]:
    """Find the items of Example 2, as `example1_items` those of Example 1."""

    def named(path: Path | None) -> Found:
        if path is None:
            return _hub_gsm8k(str(source))
        return "gsm8k", str(source), from_gsm8k(Gsm8kSource(source="gsm8k", path=str(path))), ()

    return _find(
        source,
        [(f"GSM8K ({_GSM8K})", lambda: _hub_gsm8k(_GSM8K))],
        named,
        lambda: _generated({"gsm_symbolic": {}}, size=size, examples=examples, seed=seed),
        "gsm_symbolic of reasoning-gym, generated problems with worked solutions; these are NOT GSM8K",
    )


def _find(
    source: str | None,
    preferred: Sequence[tuple[str, Callable[[], Found]]],
    named: Callable[[Path | None], Found],
    generated: Callable[[], Found],
    instead: str,
) -> tuple[Found, Notices]:
    """Read what was asked for; of nothing in particular the first that can be read, and say what failed."""
    if source == GENERATED:
        return generated(), ()
    if source is not None:
        return named(_local(source)), ()
    failed: list[str] = []
    for name, read in preferred:
        try:
            found = read()
        except DataError as error:
            failed.append(f"{name} cannot be had: {error.message}")
            continue
        return found, (*failed, f"fallback taken: {name}") if failed else ()
    return generated(), (*failed, f"fallback taken: {instead}")


def _local(source: str) -> Path | None:
    """Give the path that a source names, or None where it can only be a name on the hub."""
    if not source.strip():
        raise DataError("the source has no name", hint=f"give a path, a name on the hub, or {GENERATED!r}")
    path = Path(source).expanduser()
    if path.exists():
        return path
    plain_name = source.count("/") <= 1 and not source.startswith((".", "~", "/"))
    if plain_name and "\\" not in source and path.suffix not in {".json", ".jsonl", ".csv"}:
        return None
    raise DataError(f"no such file or folder: {source}")


def _generated(tasks: dict[str, dict[str, Any]], *, size: int, examples: int, seed: int) -> Found:
    items: list[Item] = []
    shown: list[Item] = []
    for name, options in tasks.items():
        source = ReasoningGymSource(
            source="reasoning_gym", dataset=name, size=size, shot_pool=examples, **options
        )
        made, kept = from_reasoning_gym(source, seed=seed)
        items += made
        shown += kept
    return "reasoning_gym", ", ".join(tasks), items, shown


def _local_instructions(name: str, path: Path) -> Found:
    source = NaturalInstructionsSource(source="natural_instructions", path=str(path))
    tasks = from_natural_instructions(source).values()
    items = [item for instances, _ in tasks for item in instances]
    return "natural_instructions", name, items, [example for _, shown in tasks for example in shown]


def _read_hub(source: HubSource) -> list[Item]:
    """Read a data set of the hub; where the hub cannot be reached, the copy that an earlier read left here.

    Left to itself the hub's client would ask six times, half a minute for each name, before it said so.
    """
    try:
        from datasets import config
        from huggingface_hub import constants
    except ImportError:
        return from_hub(source)  # which says what to install
    if constants.HF_HUB_OFFLINE or _reachable(constants.ENDPOINT):
        return from_hub(source)
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        return from_hub(source)
    except DataError:
        raise DataError(
            f"{constants.ENDPOINT} cannot be reached, and no copy of {source.name!r} is here",
            hint="check the network, or give a local folder",
        ) from None
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    """Say whether a connection to a host can be opened; behind a proxy, whose affair that is, yes."""
    parts = urlsplit(address)
    if parts.hostname is None or getproxies():
        return True
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname, port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _hub_instructions(name: str | None) -> Found:
    source = HubSource(
        source="hub",
        name=name or _NATURAL_INSTRUCTIONS,
        split=_NI_SPLIT if name in {None, _NATURAL_INSTRUCTIONS} else "test",
        layout="natural_instructions",
    )
    return "natural_instructions", source.name, _read_hub(source), ()


def _p3() -> Found:
    items: list[Item] = []
    for config, task in _P3_CONFIGS.items():
        source = HubSource(
            source="hub",
            name=_P3,
            config=config,
            split="train[:2000]",
            task_type=task,
            columns=Columns(question="inputs_pretokenized", answer="targets_pretokenized"),
        )
        items += _read_hub(source)
    return "p3", _P3, items, ()


def _hub_gsm8k(name: str) -> Found:
    source = HubSource(
        source="hub", name=name, config="main", split="test", layout="gsm8k", task_type="gsm8k"
    )
    return "gsm8k", name, _read_hub(source), ()
