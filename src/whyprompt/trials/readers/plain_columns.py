"""What the columns of a plain table mean: by their names, and by the first of their values."""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import score_value
from whyprompt.trials.reading.fields import missing, number_of, text_of
from whyprompt.trials.reading.questions import ITEMS, KNOWN
from whyprompt.trials.reading.settings import JUDGES, SAMPLING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from whyprompt.trials.reading.rows import Row

# The names of one meaning, in ranks: of a rank all fit alike, and a better rank is asked first.
_NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "item": (("item_id",), tuple(n for n in ITEMS if n not in {"item_id", "id"}), ("id",)),
    "rep": (
        ("rep",),
        ("epoch", "repeat", "repetition", "replicate", "repetition_number"),
        ("run", "attempt", "seed"),
    ),
    "question": (("question",), ("query", "problem", "instruction", "user_input"), ("input", "text")),
    "target": (
        ("target",),
        ("gold", "gold_answer", "expected", "expected_output", "reference", "reference_answer"),
        ("ground_truth", "correct_answer", "ideal"),
    ),
    "prompt": (("prompt",), ("full_prompt", "prompt_text", "rendered_prompt", "messages")),
    "completion": (
        ("completion",),
        ("output", "response", "generation", "model_output", "prediction", "model_answer", "reply"),
    ),
    "model": (("model",), ("model_name", "model_id", "llm")),
    "error": (("error",), ("error_message", "exception")),
    "cost": (("cost",), ("cost_usd", "total_cost", "price_usd")),
    "latency_s": (("latency_s",), ("latency", "latency_seconds", "duration_s", "elapsed_s")),
    "latency_ms": (("latency_ms", "duration_ms", "elapsed_ms"),),
    "prompt_tokens": (("prompt_tokens",), ("input_tokens", "tokens_in", "n_prompt_tokens")),
    "completion_tokens": (("completion_tokens",), ("output_tokens", "tokens_out", "n_completion_tokens")),
    "started_at": (("started_at",), ("timestamp", "created_at", "start_time"), ("date", "datetime")),
    "propensity": (
        ("propensity",),
        ("propensity_score", "assignment_probability", "action_probability", "arm_probability"),
    ),
}
# Without a table of its own a meaning is that of the whole file, or is left out.
_NEEDED = frozenset({"item"})
# An arm goes by many names: all that there are of the best rank are settings of the prompt.
_ARMS = (
    ("arm",),
    (
        *("variant", "condition", "treatment", "prompt_version", "prompt_name", "prompt_variant"),
        *("prompt_label", "prompt_id", "prompt_type", "prompt_template", "system_prompt"),
    ),
    ("prompt", "version", "group", "strategy", "template", "experiment"),
)
OUTCOMES = frozenset(
    (
        *("score", "correct", "is_correct", "passed", "pass", "is_pass", "success", "accuracy", "acc"),
        *("exact_match", "em", "f1", "reward", "rating", "outcome", "grade", "result", "win", "preference"),
        *("log_prob", "quality", "verdict", "judgment", "judgement", "hit", "match"),
    )
)
_WORDY = frozenset({"outcome", "grade", "result", "verdict", "judgment", "judgement", "match", "quality"})
# Data sets that items are of.
_SETS = frozenset(("dataset", "dataset_name", "task", "task_name", "benchmark", "subset", "split"))
# What a score may be of: after "score_" they name a scorer, and no arm.
_SCORED = OUTCOMES | frozenset(
    (
        *("fluency", "relevance", "coherence", "helpfulness", "faithfulness", "correctness", "groundedness"),
        *("precision", "recall", "bleu", "rouge", "rougel", "harmlessness", "safety", "toxicity"),
        *("mean", "std", "min", "max", "total", "sum", "normalized", "overall", "average"),
    )
)
_PREFIX = re.compile(r"(?:scores?|metrics?|outcomes?|feedback|evaluations?)[._:/ ](.+)", re.IGNORECASE)
# Mappings in which records keep what an item is, or was asked with.
_HOLDERS = frozenset(
    ("input", "inputs", "metadata", "meta", "item", "example", "vars", "doc", "sample", "params", "config")
)
_PARTS = re.compile(r"[_.\-:/ ]+")
SAMPLE = 1000


class Family(NamedTuple):
    """Columns of one stem, one for each arm: their columns by the arms' names."""

    stem: str
    columns: Mapping[str, str]


class Columns(NamedTuple):
    """What the columns of a table mean.

    `roles` are columns by meaning, ``"set"`` the one within whose values alone items have names of their own;
    `arms` settings of the prompt, `other` those beside it, `sampling` of sampling, `judges` of who scored;
    `scores` scorers' columns by their names; `covariates` say which of them are numbers. Of a
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
    other = tuple(n for n in names if n not in taken and plain[n] in _ARMS[1])
    sampling = tuple(n for n in names if n not in taken and plain[n] in SAMPLING)
    judges = tuple(n for n in names if n not in taken and plain[n] in JUDGES)
    free = [n for n in names if n not in {*taken, *other, *sampling, *judges}]
    wide: tuple[Family, ...] = ()
    if not arms and not any(plain[n] in OUTCOMES and _scored(values[n]) for n in free):
        wide = _families(path, free, values)
    beside = _beside(wide, free) if wide else {}
    pivoted = {c for family in (*wide, *beside.values()) for c in family.columns.values()}
    free = [n for n in free if n not in pivoted]
    scores = {} if wide else _scores(path, free, plain, values)
    free = [n for n in free if n not in scores.values()]
    _answer(free, plain, values, roles, sample)
    free = [n for n in free if n not in roles.values()]
    if (within := _set(names, plain, arms, roles, sample)) is not None:
        roles["set"] = within
    known, left = _covariates(free, plain, values, roles, sample)
    if left:
        notes.append(f"columns left out, as they may not be known beforehand: {', '.join(map(repr, left))}")
    if not wide and "item" not in roles and "question" not in roles:
        raise DataError(
            f"{path}: no column names the item",
            hint=f"call the column item_id, or question; there are: {', '.join(names)}",
        )
    counted = {n: all(missing(v) or number_of(v) is not None for v in values[n]) for n in known}
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
    for role, ranks in _NAMES.items():
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
        if role in _NEEDED and "question" not in roles:
            raise DataError(
                f"{path}: {listed} may be the {role}", hint=f"call the right one {_NAMES[role][0][0]}"
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
    for rank in _ARMS:
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


def _scored(values: Iterable[Any]) -> bool:
    """Say whether all the values that there are can be scores, and one is there."""
    found = [v for v in values if not missing(v)]
    return bool(found) and all(map(_is_score, found))


def _is_score(value: object) -> bool:
    # A decimal comma is told where it is read.
    text = value.replace(",", ".") if isinstance(value, str) else value
    return isinstance(text, Decimal) or score_value(text) is not None


def _scores(
    path: Path, free: Sequence[str], plain: Mapping[str, str], values: Mapping[str, list[Any]]
) -> dict[str, str]:
    called = {n: n for n in free if plain[n] in OUTCOMES}
    for name in free:
        if (match := _PREFIX.fullmatch(name)) and _scored(values[name]):
            called[match[1] if match[1] not in called else name] = name
    # What is called a score is read as one, and refused where it is none; a verdict may be a judge's words.
    readable = {
        scorer: n
        for scorer, n in called.items()
        if _scored(values[n]) or (plain[n] not in _WORDY and any(map(_is_score, values[n])))
    }
    if not readable and not called:
        readable = {n: n for n in free if plain[n] not in KNOWN and _scored(values[n])}
    if not readable:
        wrong = [(n, v) for n in called.values() for v in values[n] if not missing(v) and not _is_score(v)]
        held = f": {wrong[0][0]!r} has {wrong[0][1]!r}, which is none" if wrong else ""
        raise DataError(
            f"{path}: no column holds a score{held}",
            hint=f"call the column score, and give numbers, true or false; there are: {', '.join(values)}",
        )
    return readable


def _families(path: Path, free: Sequence[str], values: Mapping[str, list[Any]]) -> tuple[Family, ...]:
    """Find the scores of a wide table: the families whose stem names a score, else the only one there is."""
    every = [f for f in _stems(free) if all(_scored(values[c]) for c in f.columns.values())]
    every = [f for f in every if not {e.lower() for e in f.columns} & _SCORED]
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
    for rank in _NAMES[role]
    for name in rank
}


def _beside(wide: Sequence[Family], free: Sequence[str]) -> dict[str, Family]:
    """Find what else a wide table has once an arm: outputs, costs, errors."""
    arms = set(wide[0].columns)
    found: dict[str, Family] = {}
    for family in _stems(free, 1):
        role = _COMPANIONS.get(family.stem)
        if role is not None and set(family.columns) <= arms:
            found[role] = family
    return found


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
    for name in (n for n in names if plain[n] in _SETS):
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
) -> tuple[tuple[str, ...], list[str]]:
    """Part what is known of an item from what may come of its arm: that differs between rows of one item."""
    known: list[str] = []
    left: list[str] = []
    for name in free:
        if any(isinstance(v, list | dict) for v in values[name]):
            left.append(name)
            continue
        same = _same_within(values[name], roles, sample)
        (known if same or (same is None and plain[name] in KNOWN) else left).append(name)
    return tuple(known), left
