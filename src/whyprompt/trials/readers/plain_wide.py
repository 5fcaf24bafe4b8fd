"""Wide tables: families of columns of one stem, a column an arm."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.errors import DataError
from whyprompt.trials.readers.plain_names import NAMES, OUTCOMES, SCORED, scored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PARTS = re.compile(r"[_.\-:/ ]+")


class Family(NamedTuple):
    """Columns of one stem, one for each arm: their columns by the arms' names."""

    stem: str
    columns: Mapping[str, str]


def families(path: Path, free: Sequence[str], values: Mapping[str, list[Any]]) -> tuple[Family, ...]:
    """Find the scores of a wide table: the families whose stem names a score, else the only one there is."""
    every = [f for f in _stems(free) if all(scored(values[c]) for c in f.columns.values())]
    every = [f for f in every if not {e.lower() for e in f.columns} & SCORED]
    called = _widest([f for f in every if f.stem in OUTCOMES])
    found = called or _widest([f for f in every if f.stem not in _COMPANIONS])
    if len(found) > 1 and (not called or len({frozenset(f.columns) for f in found}) > 1):
        listed = "; ".join(f"{f.stem} ({', '.join(f.columns.values())})" for f in found)
        raise DataError(
            f"{path}: more than one family of columns may hold the scores of its arms: {listed}",
            hint="keep one family, or give a row a trial with the columns item_id, arm and score",
        )
    return tuple(found)


def _stems(free: Sequence[str], least: int = 2) -> list[Family]:
    groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in free:
        for cut in _PARTS.finditer(name):
            stem, ending = name[: cut.start()].lower(), name[cut.end() :]
            if stem and ending:
                groups[stem][ending] = name
    return [Family(stem, found) for stem, found in groups.items() if len(found) >= least]


def _widest(families: Sequence[Family]) -> list[Family]:
    """Leave out families inside others: of one set of columns, that with the longest stem stays."""
    kept: list[Family] = []
    for family in sorted(families, key=lambda f: (-len(f.columns), -len(f.stem))):
        columns = set(family.columns.values())
        if not any(columns <= set(other.columns.values()) for other in kept):
            kept.append(family)
    return kept


_COMPANIONS: Mapping[str, str] = {
    name: role
    for role in (
        *("prompt", "completion", "error", "cost", "latency_s", "latency_ms", "model"),
        *("prompt_tokens", "completion_tokens"),
    )
    for rank in NAMES[role]
    for name in rank
}


def beside_of(wide: Sequence[Family], free: Sequence[str]) -> dict[str, Family]:
    """Find what else a wide table has once an arm: outputs, costs, errors."""
    arms = set(wide[0].columns)
    found: dict[str, Family] = {}
    for family in _stems(free, 1):
        role = _COMPANIONS.get(family.stem)
        if role is not None and set(family.columns) <= arms:
            found[role] = family
    return found
