"""Which setting of the logs is the arm: the caller's, or the one that differs; never a guess between two."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from whyprompt.errors import DataError
from whyprompt.trials.logs.gather import differing
from whyprompt.trials.readers.record import ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from whyprompt.trials.readers.record import Scalar

    Settings = Mapping[str, Mapping[str, Scalar]]

LABELS = (
    *("arm", "arms", "label", "variant", "prompt", "version", "name", "task", "id", "condition"),
    "treatment",
)
"""How settings end whose values are names."""

FILE = "file"
"""The arm is the file that a trial is of."""

# What arms may be, the first that differs.
_ROLES = ("prompt", "few_shot", "chat_format", "model", "engine", "sampling")
# Of paths that say the same: what people call an arm, before what only goes with it.
_CALLED = ("arm", "prompt_label", "label", "variant", "prompt_name", "prompt", "version", "name", "task")
_LONG = 60
_ABSENT = "none"
_STAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}")
# A value that says nothing without its setting.
_BARE = re.compile(r"-?[\d.e+-]+|true|false", re.IGNORECASE)
# Words by which people call the arm that others are held against.
_BASE = frozenset(
    (
        *("baseline", "base", "control", "default", "direct", "old", "original", "plain", "reference"),
        *("standard", "vanilla", "before", "none", "zero", "false", "0"),
    )
)


class Arms(NamedTuple):
    """The arm of every setting, "" for none; where it was found, what it is, and what to say of it."""

    of: tuple[str, ...]
    path: str
    role: str
    note: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The arms, in order of appearance."""
        return tuple(dict.fromkeys(name for name in self.of if name))


def find_arms(
    settings: Sequence[Settings],
    files: Sequence[Path],
    asked: str | None = None,
    shared: Callable[[Sequence[int]], bool] = lambda _: False,
) -> Arms:
    """Say which arm each setting is, `files` having the file of each.

    Where several things differ, each in its own way, that one is the arm under whose values the same items
    were run, if it is the only one: `shared` says it of a number for each setting.

    Raises
    ------
    DataError
        If the path that was `asked` for is not there or the same everywhere, or nothing was and more than
        one thing differs; the message lists what does.
    """
    if asked == FILE:
        return _by_file(files)
    if asked is not None:
        return _asked(settings, asked, files)
    for role in _ROLES:
        found = differing(list(settings), role)
        groups, note = _alike(_not_implied(found)), ""
        if len(groups) > 1:
            of_items = [g for g in groups if shared(_partition(found[g[0]]))]
            if len(of_items) == 1:
                rest = ", ".join(_best(g, found) for g in groups if g not in of_items)
                note = f"the same items were run under each of the arms, and not under each of {rest}"
                groups = of_items
        if len(groups) > 1:
            listed = "; ".join(f"{_best(g, found)} ({_values(found[_best(g, found)])})" for g in groups)
            raise DataError(
                f"more than one thing that may be the arm differs in the {_said(role)}: {listed}",
                hint="say which with arm='PATH', and name two arms; or give fewer logs",
            )
        if groups:
            path = _best(groups[0], found)
            names = _named(path, [v or _ABSENT for v in found[path]], files)
            return Arms(of=names, path=path, role=role, note=note)
    return _by_file(files)


def _by_file(files: Sequence[Path]) -> Arms:
    return Arms(of=tuple(_file_names(files)), path=FILE, role=FILE)


def _file_names(files: Sequence[Path]) -> list[str]:
    """Name files by their stems, with as many folders before them as tell them apart.

    One run in two formats is one file.
    """
    runs = len({path.with_suffix("") for path in files})
    for depth in range(1, 1 + max(len(path.parts) for path in files)):
        names = ["/".join((*path.parts[-depth:-1], path.stem)) for path in files]
        if len(set(names)) == runs:
            # Files that are called alike are told by their folders alone.
            folders = [name.rpartition("/")[0] for name in names]
            return folders if len(set(folders)) == runs > 1 else names
    return [str(path.with_suffix("")) for path in files]


def _named(path: str, values: Sequence[str], files: Sequence[Path]) -> tuple[str, ...]:
    """Name arms by their values: a number with what it is of, a long text by its file or its beginning."""
    last = re.split(r"[./]", path)[-1]
    told = last.rpartition("_")[2] in LABELS
    if max(map(len, values)) > _LONG:
        names = _file_names(files)
        # A name that is made of the time of a run tells its reader nothing.
        if _partition(names) == _partition(values) and not any(map(_STAMP.search, names)):
            return tuple(names)
        short = [v if len(v) <= _LONG else f"{v[: _LONG - 3]}..." for v in values]
        whole = _partition(values)
        alike = len(set(short)) < len(set(values))
        return tuple(f"{s} ({n + 1})" if alike else s for s, n in zip(short, whole, strict=True))
    if not told and any(v == _ABSENT or _BARE.fullmatch(v) for v in values):
        return tuple(f"{last}={v}" if v else v for v in values)
    return tuple(values)


def _asked(settings: Sequence[Settings], asked: str, files: Sequence[Path]) -> Arms:
    every = [
        (role, path) for role in ROLES for path in dict.fromkeys(p for s in settings for p in s.get(role, ()))
    ]
    found = [one for one in every if one[1] == asked] or [
        one for one in every if one[1].endswith((f".{asked}", f"/{asked}"))
    ]
    if not found and asked in ROLES:
        groups = differing(list(settings), asked)
        found = [(asked, _best(list(groups), groups))] if len(_alike(groups)) == 1 else []
    told = {path: _at(settings, role, path) for role, path in found}
    if len(found) > 1 and len(_alike(told)) == 1:
        # Paths that change together say the same.
        best = _best(list(told), told)
        found = [one for one in found if one[1] == best]
    if len(found) != 1:
        choices = list(told) or [p for role in ROLES for p in differing(list(settings), role)]
        raise DataError(
            f"arm={asked!r} is {'no setting' if not found else 'more than one setting'} of these logs",
            hint=f"name one of them whole: {', '.join(choices)}"
            if found
            else f"what differs: {', '.join((*choices, FILE))}",
        )
    role, path = found[0]
    values = _at(settings, role, path)
    if len(set(values) - {""}) == 1 and "" in values:
        values = [v or _ABSENT for v in values]
    if len(set(values) - {""}) < 2:
        raise DataError(
            f"arm={asked!r} is the same in all of these logs: {values[0]!r}",
            hint="what differs: "
            + ", ".join((*(p for r in ROLES for p in differing(list(settings), r)), FILE)),
        )
    return Arms(of=_named(path, values, files), path=path, role=role)


def _at(settings: Sequence[Settings], role: str, path: str) -> list[str]:
    """Give the value at a path in every setting, "" where it is not there."""
    return ["" if (v := s.get(role, {}).get(path)) is None else str(v) for s in settings]


def _partition(values: Sequence[str]) -> tuple[int, ...]:
    first: dict[str, int] = {}
    return tuple(first.setdefault(value, len(first)) for value in values)


def _alike(found: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Put paths together whose values change together: they are one difference."""
    pairs = sorted((_partition(values), n, path) for n, (path, values) in enumerate(found.items()))
    groups = [[(n, path) for _, n, path in some] for _, some in groupby(pairs, key=lambda one: one[0])]
    return [[path for _, path in sorted(group)] for group in sorted(groups)]


def _not_implied(found: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Leave out what is set in some of the logs only, and there goes with what all of them have."""
    whole = [values for values in found.values() if "" not in values]
    return {
        path: values
        for path, values in found.items()
        if "" not in values or not any(_goes_with(values, other) for other in whole)
    }


def _goes_with(values: Sequence[str], arm: Sequence[str]) -> bool:
    """Say whether a setting, where it is there, has one value for each arm.

    One of a single value, a system prompt that half the logs have, is told from none by where it is not.
    """
    single = len(set(values) - {""}) == 1
    seen: dict[str, str] = {}
    return all(seen.setdefault(a, v) == v for a, v in zip(arm, values, strict=True) if v or single)


def _best(paths: Sequence[str], found: Mapping[str, Sequence[str]]) -> str:
    def rank(path: str) -> tuple[bool, int, int]:
        last = re.split(r"[./]", path)[-1]
        called = _CALLED.index(last) if last in _CALLED else len(_CALLED)
        longest = max(map(len, found[path]))
        return longest > _LONG or "" in found[path], called, longest

    return min(paths, key=rank)


def _values(values: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(values))
    shown = ", ".join(repr(v if len(v) <= _LONG else f"{v[: _LONG - 3]}...") for v in distinct[:4])
    return shown + (f" and {len(distinct) - 4} more" if len(distinct) > 4 else "")


def _said(role: str) -> str:
    return {"few_shot": "worked examples", "chat_format": "chat format"}.get(role, role)


def reference_arm(names: Sequence[str], asked: str | None = None, *, in_order: bool = False) -> str:
    """Say which arm the others are held against: the one asked for, the one called so, or the first.

    The first is that of an order that somebody gave, `in_order`, else of the names, numbers by their size:
    rows come in no order that means anything.

    >>> reference_arm(["gsm8k_cot", "gsm8k_direct"]), reference_arm(["shots=5", "shots=0"])
    ('gsm8k_direct', 'shots=0')
    >>> reference_arm(["v10", "v9"]), reference_arm(["v10", "v9"], in_order=True)
    ('v9', 'v10')
    """
    if asked is not None:
        return arm_called(names, asked)
    called = [name for name in names if _BASE & set(re.split(r"[^a-z0-9]+", name.lower()))]
    if len(called) == 1:
        return called[0]
    return names[0] if in_order else min(names, key=_natural)


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    parts = re.split(r"(\d+)", name.lower())
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts if p], name


def arm_called(names: Sequence[str], asked: str) -> str:
    """Give the arm of a name, or of the value behind its equals sign; another is a `DataError`.

    >>> arm_called(["num_fewshot=0", "num_fewshot=5"], "5")
    'num_fewshot=5'
    """
    found = [name for name in names if name == asked] or [n for n in names if n.endswith(f"={asked}")]
    if len(found) != 1:
        raise DataError(f"there is no arm {asked!r}", hint=f"the arms are {', '.join(names)}")
    return found[0]
