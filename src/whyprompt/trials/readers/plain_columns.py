"""What the columns of a plain table mean: by their names, and by the first of their values."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.errors import DataError
from whyprompt.trials.readers.plain_names import (
    ARMS,
    NAMES,
    NEEDED,
    OUTCOMES,
    SETS,
    WORDY,
    is_score,
    scored,
)
from whyprompt.trials.readers.plain_wide import beside_of, families
from whyprompt.trials.reading.fields import missing, number_of, text_of
from whyprompt.trials.reading.questions import KNOWN
from whyprompt.trials.reading.settings import JUDGES, SAMPLING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from whyprompt.trials.readers.plain_wide import Family
    from whyprompt.trials.reading.rows import Row

_PREFIX = re.compile(r"(?:scores?|metrics?|outcomes?|feedback|evaluations?)[._:/ ](.+)", re.IGNORECASE)
# Mappings in which records keep what an item is, or was asked with.
_HOLDERS = frozenset(
    ("input", "inputs", "metadata", "meta", "item", "example", "vars", "doc", "sample", "params", "config")
)
SAMPLE = 1000
# Of a column that may be a judge's verdicts.
_WORDS = 5
# Of text that may be adjusted for.
_LEVELS = 50


class Columns(NamedTuple):
    """What the columns of a table mean.

    `roles` are columns by meaning, ``"set"`` the one within whose values alone items have names of their own;
    `arms` settings of the prompt, `other` those beside it, `sampling` of sampling, `judges` of who scored;
    `scores` scorers' columns by their names; `covariates`, some of which may not be known beforehand, say
    which of them are numbers. Of a
    wide table, `wide` are the families of its
    scores and `beside` those of what else is there once an arm.
    """

    roles: Mapping[str, str]
    arms: tuple[str, ...]
    other: tuple[str, ...]
    sampling: tuple[str, ...]
    judges: tuple[str, ...]
    scores: Mapping[str, str]
    covariates: Mapping[str, bool]
    wide: tuple[Family, ...]
    beside: Mapping[str, Family]
    notes: tuple[str, ...]


def find_columns(path: Path, sample: Sequence[Row]) -> Columns:
    """Say what each column means, from the first rows; refuses (`DataError`) what cannot be told."""
    names = list(dict.fromkeys(name for row in sample for name in row))
    values = {name: [row.get(name) for row in sample] for name in names}
    plain = {name: _called(name, names) for name in names}
    roles, notes = _roles(path, names, plain)
    arms = _arms(names, plain, values, roles)
    taken = {*roles.values(), *arms}
    other = tuple(n for n in names if n not in taken and plain[n] in ARMS[1])
    sampling = tuple(n for n in names if n not in taken and plain[n] in SAMPLING)
    judges = tuple(n for n in names if n not in taken and plain[n] in JUDGES)
    free = [n for n in names if n not in {*taken, *other, *sampling, *judges}]
    wide: tuple[Family, ...] = ()
    if not arms and not any(plain[n] in OUTCOMES and scored(values[n]) for n in free):
        wide = families(path, free, values)
    beside = beside_of(wide, free) if wide else {}
    pivoted = {c for family in (*wide, *beside.values()) for c in family.columns.values()}
    free = [n for n in free if n not in pivoted]
    scores = {} if wide else _scores(path, free, plain, values)
    free = [n for n in free if n not in scores.values()]
    _answer(free, plain, values, roles, sample)
    free = [n for n in free if n not in roles.values()]
    if (within := _set(names, plain, arms, roles, sample)) is not None:
        roles["set"] = within
    known, unclear, left = _covariates(free, plain, values, roles, sample)
    for some, then in ((unclear, "adjusted for only where confounders=... names them"), (left, "left out")):
        if some:
            notes.append(f"columns that may not be known beforehand, {then}: {', '.join(map(repr, some))}")
    if not wide and "item" not in roles and "question" not in roles:
        raise DataError(
            f"{path}: no column names the item",
            hint=f"call the column item_id, or question; there are: {', '.join(names)}",
        )
    counted = {n: all(missing(v) or number_of(v) is not None for v in values[n]) for n in (*known, *unclear)}
    if "set" in roles:
        notes.append(f"{roles['item']!r} names an item within its {roles['set']!r}: an item is both")
    return Columns(roles, arms, other, sampling, judges, scores, counted, wide, beside, tuple(notes))


def _called(name: str, names: Sequence[str]) -> str:
    """Give a column's name as it is looked up: what is in a mapping goes by its own, where that is free."""
    outer, dot, inner = name.partition(".")
    own = inner if dot and outer.lower() in _HOLDERS and inner not in names else name
    return re.sub(r"[\s\-]+", "_", own.strip().lower())


def _roles(path: Path, names: Sequence[str], plain: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    roles: dict[str, str] = {}
    notes: list[str] = []
    unclear: dict[str, list[str]] = {}
    for role, ranks in NAMES.items():
        for rank in ranks:
            fit = [n for n in names if plain[n] in rank and n not in roles.values()]
            if len(fit) == 1:
                roles[role] = fit[0]
            if len(fit) > 1:
                unclear[role] = fit
            if fit:
                break
    for role, fit in unclear.items():
        listed = " or ".join(map(repr, fit))
        if role in NEEDED and "question" not in roles:
            raise DataError(
                f"{path}: {listed} may be the {role}", hint=f"call the right one {NAMES[role][0][0]}"
            )
        notes.append(f"{listed} may be the {role.replace('_', ' ')}: none was taken")
    if "latency_s" in roles:
        roles.pop("latency_ms", None)
    return roles, notes


def _arms(
    names: Sequence[str],
    plain: Mapping[str, str],
    values: Mapping[str, list[Any]],
    roles: dict[str, str],
) -> tuple[str, ...]:
    for rank in ARMS:
        found = [n for n in names if plain[n] in rank]
        if "prompt" in rank and (sent := roles.get("prompt")) in found:
            if _shared(values, sent, roles):
                del roles["prompt"]
            else:
                found.remove(sent)
        if found:
            return tuple(n for n in found if n not in roles.values())
    return ()


def _shared(values: Mapping[str, list[Any]], sent: str, roles: Mapping[str, str]) -> bool:
    """Say whether items share their prompts: then a prompt is an arm's, else it is what was sent."""
    item = roles.get("item") or roles.get("question")
    of: defaultdict[str, set[str]] = defaultdict(set)
    for number, prompt in enumerate(values[sent]):
        of[text_of(prompt)].add(str(number) if item is None else text_of(values[item][number]))
    return 2 * sum(len(items) > 1 for items in of.values()) > len(of)


def _scores(
    path: Path, free: Sequence[str], plain: Mapping[str, str], values: Mapping[str, list[Any]]
) -> dict[str, str]:
    called = {n: n for n in free if plain[n] in OUTCOMES}
    for name in free:
        if (match := _PREFIX.fullmatch(name)) and scored(values[name]):
            called[match[1] if match[1] not in called else name] = name
    # What is called a score is read as one, and refused where it is none; a verdict may be a judge's words.
    readable = {
        scorer: n
        for scorer, n in called.items()
        if scored(values[n]) or (plain[n] not in WORDY and any(map(is_score, values[n])))
    }
    if not readable and not called:
        # An answer is the right one or the model's, however like a score: 7, or yes.
        readable = {n: n for n in free if plain[n] not in {*KNOWN, "answer"} and scored(values[n])}
    if not readable:
        # Where nothing is called a score, a column of few words may be a judge's verdicts.
        words = {n: _words_in(values[n]) for n in values if n in free or plain[n] in JUDGES}
        shown = called.values() or [n for n, found in words.items() if len(found) <= _WORDS]
        held = "; ".join(
            f"{n!r} has {' and '.join(map(repr, words[n][:_WORDS]))}, no scores"
            if words[n]
            else f"{n!r} is empty"
            for n in shown
            if words[n] or all(map(missing, values[n]))
        )
        held = f": {held}" if held else ""
        raise DataError(
            f"{path}: no column holds a score{held}",
            hint="call the column score, and give numbers, true or false, or words such as PASS and FAIL;"
            f" there are: {', '.join(values)}",
        )
    return readable


def _words_in(values: Sequence[Any]) -> list[str]:
    """Give what a column holds that is no score."""
    return list(dict.fromkeys(text_of(v)[:60] for v in values if not missing(v) and not is_score(v)))


def _answer(
    free: Sequence[str],
    plain: Mapping[str, str],
    values: Mapping[str, list[Any]],
    roles: dict[str, str],
    sample: Sequence[Row],
) -> None:
    """Say whether "answer" is the right one or the model's: that of one item is always the same."""
    for name in free:
        if plain[name] not in {"answer", "label"}:
            continue
        same = _same_within(values[name], roles, sample)
        if "target" not in roles and (same or (same is None and "completion" in roles)):
            roles["target"] = name
        elif plain[name] == "answer" and same is False:
            roles.setdefault("completion", name)


def _set(
    names: Sequence[str],
    plain: Mapping[str, str],
    arms: Sequence[str],
    roles: Mapping[str, str],
    sample: Sequence[Row],
) -> str | None:
    """Find the data set that an item's name is of: one name is of several, or may be beyond the sample.

    A column whose values go with the arm is none: items that arms share would be called otherwise.
    """
    if "item" not in roles:
        return None
    for name in (n for n in names if plain[n] in SETS):
        named: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
        under: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        for row in sample:
            arm, value = tuple(text_of(row.get(a)) for a in arms), text_of(row.get(name))
            named[*arm, text_of(row.get(roles["item"]))].add(value)
            under[value].add(arm)
        several = any(len(found) > 1 for found in named.values())
        if several or (len(sample) >= SAMPLE and any(len(found) > 1 for found in under.values())):
            return name
    return None


def _item_of(row: Row, roles: Mapping[str, str]) -> str:
    """Give what a row's item is called, within its data set where there is one."""
    return "\0".join(text_of(row.get(roles[r])) for r in ("set", "item", "question") if r in roles)


def _same_within(values: Sequence[Any], roles: Mapping[str, str], sample: Sequence[Row]) -> bool | None:
    """Say whether a column is the same in all rows of an item; None where no item has two rows."""
    if "item" not in roles and "question" not in roles:
        return None
    met: dict[str, set[str]] = defaultdict(set)
    for row, value in zip(sample, values, strict=True):
        met[_item_of(row, roles)].add(text_of(value))
    if any(len(found) > 1 for found in met.values()):
        return False
    return True if len(met) < len(sample) else None


def _covariates(
    free: Sequence[str],
    plain: Mapping[str, str],
    values: Mapping[str, list[Any]],
    roles: Mapping[str, str],
    sample: Sequence[Row],
) -> tuple[list[str], list[str], list[str]]:
    """Part what is known of an item from what may come of its arm, and from what no table of trials has.

    What differs between rows of one item may come of the arm.
    """
    known: list[str] = []
    unclear: list[str] = []
    left: list[str] = []
    for name in free:
        if any(isinstance(v, list | dict) for v in values[name]):
            left.append(name)
            continue
        same = _same_within(values[name], roles, sample)
        told = same or (same is None and plain[name] in KNOWN)
        (known if told else left if _tells_rows_apart(values[name]) else unclear).append(name)
    return known, unclear, left


def _tells_rows_apart(values: Sequence[Any]) -> bool:
    """Say whether a column is text that says something else in too many rows to be adjusted for."""
    found = [text_of(v) for v in values if not missing(v)]
    return len(set(found)) > _LEVELS and any(number_of(v) is None for v in values if not missing(v))
