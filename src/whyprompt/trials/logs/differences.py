"""What differs between runs beside their arm, and whether it can be told from the arm."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from whyprompt.trials.readers.record import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.trials.readers.record import Scalar

    Settings = Mapping[str, Mapping[str, Scalar]]

Verdict = Literal["arm", "aligned", "overlapping", "balanced", "paired", "drawn", "inert", "untold"]

NAMES = {"few_shot": "worked examples", "chat_format": "chat format", "items": "item set"}
"""What roles are called in a sentence, where that is not their own name."""

# Where nothing is written of these, nothing was there.
_NONE_IS_A_VALUE = ("prompt", "other")
# A model whose weights are named by their content, and served on the spot, is the same on every day.
_PIN = re.compile(r"(^|[._])(\w*(sha\d*|revision|digest|commit|checksum))$", re.IGNORECASE)
_HASH = re.compile(r"(sha\d+:)?[0-9a-f]{7,64}", re.IGNORECASE)
_LOCAL = re.compile(
    r"^(hf|hf-auto|huggingface|transformers|vllm|sglang|mlx|gguf|llama[._-]?cpp(-python)?)$", re.IGNORECASE
)


class Cell(NamedTuple):
    """Trials of one setting: arm and log, how many they are, and the setting's values by role and path."""

    arm: str
    log: str
    trials: int
    values: Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Settings that change together between runs.

    Attributes
    ----------
    role : str
        What they are (`whyprompt.trials.readers.record.ROLES`): ``"model"``, ``"judge"``, ...
    settings : mapping of str to mapping of str to tuple of str
        By path in the logs and by arm, in order of appearance; "" where a log has none.
    verdict : str
        ``"arm"``: part of what the arm is. ``"aligned"``: no value was run under two arms, so that it and the
        arm are one treatment. ``"overlapping"``: some values were run under every arm, and within them the
        arm stands alone. ``"balanced"``: each value is as frequent under every arm. ``"paired"``: another
        set of items, of which those under both arms are compared with themselves. ``"drawn"``: a seed that
        goes with the arm. ``"inert"``: the date of a model that is the same on every day. ``"untold"``: the
        logs of an arm do not have it.
    under_every : tuple of str
        Values of the first path that were run under every arm.
    """

    role: str
    settings: Mapping[str, Mapping[str, tuple[str, ...]]]
    verdict: Verdict
    under_every: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The first path: the others say the same."""
        return next(iter(self.settings))

    def of(self, arm: str) -> tuple[str, ...]:
        """Values of the first path under an arm."""
        return self.settings[self.path][arm]

    @property
    def told(self) -> tuple[str, ...]:
        """Values of the first path, without those that a log does not tell."""
        values = dict.fromkeys(v for some in self.settings[self.path].values() for v in some)
        return tuple(v for v in values if v or self.role in _NONE_IS_A_VALUE)

    @property
    def name(self) -> str:
        """What it is in a sentence: "model", "worked examples"."""
        return NAMES.get(self.role, self.role)


def find_differences(
    cells: Sequence[Cell], arms: Sequence[str], *, arm_role: str, paired: bool
) -> tuple[Difference, ...]:
    """Say of everything that differs between the cells of these arms how it goes with the arm.

    `arm_role` is the role of the setting that the arm is; `paired` says that items meet by what they ask.

    >>> def cell(arm, model):
    ...     return Cell(arm, "log", 1, {"prompt": {"label": arm}, "model": {"name": model}})
    >>> cells = [cell("a", "m-1"), cell("b", "m-2")]
    >>> [(d.role, d.verdict) for d in find_differences(cells, "ab", arm_role="prompt", paired=True)]
    [('prompt', 'arm'), ('model', 'aligned')]
    >>> cells.append(cell("b", "m-1"))
    >>> find_differences(cells, "ab", arm_role="prompt", paired=True)[1].under_every
    ('m-1',)
    """
    cells = [cell for cell in cells if cell.arm in arms]
    out = []
    for role in ROLES:
        groups: dict[tuple[int, ...], list[str]] = {}
        told = {path: texts(cells, role, path) for path in _paths(cells, role)}
        for path, values in told.items():
            if len(set(values)) > 1:
                first: dict[str, int] = {}
                key = tuple(first.setdefault(value, len(first)) for value in values)
                # What a log does not tell is another thing than a value of its own.
                groups.setdefault((int("" in values), *key), []).append(path)
        for paths in groups.values():
            verdict, every = _verdict(role, told[paths[0]], cells, arms, arm_role=arm_role, paired=paired)
            by_arm = {
                path: {
                    arm: tuple(
                        dict.fromkeys(v for v, c in zip(told[path], cells, strict=True) if c.arm == arm)
                    )
                    for arm in arms
                }
                for path in paths
            }
            out.append(Difference(role=role, settings=by_arm, verdict=verdict, under_every=every))
    return tuple(out)


def _paths(cells: Sequence[Cell], role: str) -> list[str]:
    return list(dict.fromkeys(path for cell in cells for path in cell.values.get(role, ())))


def texts(cells: Sequence[Cell], role: str, path: str) -> list[str]:
    """Give a path's value in each cell, "" for none."""
    found = [cell.values.get(role, {}).get(path) for cell in cells]
    return ["" if value is None else str(value) for value in found]


def _verdict(
    role: str,
    values: Sequence[str],
    cells: Sequence[Cell],
    arms: Sequence[str],
    *,
    arm_role: str,
    paired: bool,
) -> tuple[Verdict, tuple[str, ...]]:
    """Say how one setting goes with the arm, and which of its values every arm has."""
    told = [
        (value, cell)
        for value, cell in zip(values, cells, strict=True)
        if value or role in _NONE_IS_A_VALUE or role == arm_role
    ]
    if len({value for value, _ in told}) < 2 or {cell.arm for _, cell in told} != set(arms):
        return ("paired" if role == "items" and paired else "untold"), ()
    under: dict[str, Counter[str]] = {}
    size: Counter[str] = Counter()
    for value, cell in told:
        under.setdefault(value, Counter())[cell.arm] += cell.trials
        size[cell.arm] += cell.trials
    every = tuple(value for value, some in under.items() if len(some) == len(arms))
    if not any(len(some) > 1 for some in under.values()):
        if role == arm_role or (role == "other" and all(v == c.arm for v, c in told)):
            return "arm", ()
        return _aligned(role, cells, paired=paired), ()
    # Equal shares, in whole numbers.
    base = arms[0]
    if all(some[a] * size[base] == some[base] * size[a] for some in under.values() for a in arms):
        return "balanced", every
    return "overlapping", every


def _aligned(role: str, cells: Sequence[Cell], *, paired: bool) -> Verdict:
    if role == "items" and paired:
        return "paired"
    if role == "seed":
        return "drawn"
    return "inert" if role == "date" and _always_the_same(cells) else "aligned"


def _always_the_same(cells: Sequence[Cell]) -> bool:
    """Say whether all cells have one model that is named by a hash of its content and served on the spot."""
    pinned = [
        path
        for path in _paths(cells, "model")
        if _PIN.search(path) and len(found := set(texts(cells, "model", path))) == 1
        if _HASH.fullmatch(next(iter(found)))
    ]
    served = [texts(cells, "engine", path) for path in _paths(cells, "engine")]
    return bool(pinned) and any(all(_LOCAL.search(value) for value in values) for values in served)


def unlike_together(cells: Sequence[Cell], arms: Sequence[str], found: Sequence[Difference]) -> bool:
    """Say whether differences that each can be told from the arm cannot be so together.

    That is where no combination of their values was run under every arm.
    """
    some = [d for d in found if d.verdict in {"overlapping", "balanced"}]
    under: dict[tuple[str, ...], set[str]] = {}
    cells = [cell for cell in cells if cell.arm in arms]
    columns = [texts(cells, d.role, d.path) for d in some]
    for cell, values in zip(cells, zip(*columns, strict=True), strict=True) if some else ():
        under.setdefault(values, set()).add(cell.arm)
    return bool(some) and not any(len(every) == len(arms) for every in under.values())


def shown(values: Sequence[str], *, most: int = 3) -> str:
    """Quote values in a sentence, long ones by their beginning.

    >>> shown(["m-1", ""]), shown(["x" * 50])
    ("'m-1' and none", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'")
    """
    quoted = [repr(v if len(v) <= 40 else f"{v[:37]}...") if v else "none" for v in values[:most]]
    return " and ".join(quoted) + (f" and {len(values) - most} more" if len(values) > most else "")


def difference_words(found: Difference) -> str:
    """Say what differs and how it goes with the arm, without a capital and a full stop."""
    told = found.told
    what = f"{found.name} differs too ({found.path}: {shown(told)})"
    if found.verdict == "untold":
        return f"not every log tells its {found.name} ({found.path}: {shown(told)}): it may differ"
    if found.verdict == "balanced":
        every = f"every arm was run with each {found.name} ({found.path}: {shown(told)})"
        return f"{every}: the effect is their average"
    if found.verdict == "overlapping" and found.under_every:
        both = shown(found.under_every)
        return (
            f"the {what}, not alike in the arms: under {both}, which every arm was run with, the arm stands"
            " alone, and in all trials it does not"
        )
    ends = {
        "arm": "it is part of what the arm is",
        "aligned": "it changes with the arm, and the two are one treatment",
        "overlapping": "where it changes with the arm, the two are one treatment",
        "paired": "items are paired by what was asked: it decides which are compared, and how often run",
        "drawn": "it is a draw that goes with the arm: what another would change is in no interval",
        "inert": "it changes nothing by itself: the weights are the same, and run on the spot",
    }
    return f"the {what}: {ends[found.verdict]}"
