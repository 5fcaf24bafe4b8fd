"""What was read, in a sentence: formats, arms, scorer, items, how they pair, and what is missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whyprompt._words import counted, listed
from whyprompt.trials.logs.arms import FILE
from whyprompt.trials.logs.differences import difference_words, find_differences
from whyprompt.trials.logs.gather import differing
from whyprompt.trials.logs.pairing import ENOUGH
from whyprompt.trials.readers.record import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from whyprompt.trials.logs.arms import Arms
    from whyprompt.trials.logs.result import ReadTrials
    from whyprompt.trials.readers.record import Scalar

_ALSO = ("few_shot", "chat_format", "model", "engine", "sampling", "judge", "items", "harness")
_WORD = re.compile(r"[a-z]+|\d+")


def differences(
    settings: Sequence[Mapping[str, Mapping[str, Scalar]]], used: NDArray[np.int64]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Give what differs between settings, by role and path."""
    some = [settings[k] for k in used]
    found = {role: differing(some, role) for role in ROLES}
    return {
        role: {path: tuple(dict.fromkeys(values)) for path, values in paths.items()}
        for role, paths in found.items()
        if paths
    }


def common(
    settings: Sequence[Mapping[str, Mapping[str, Scalar]]], used: NDArray[np.int64]
) -> dict[str, dict[str, str]]:
    """Give what is the same in all settings, by role and path."""
    first, *rest = (settings[k] for k in used)
    found = {
        role: {
            path: str(value)
            for path, value in values.items()
            if value is not None and all(one.get(role, {}).get(path) == value for one in rest)
        }
        for role, values in first.items()
    }
    return {role: paths for role, paths in found.items() if paths}


def read_sentence(made: ReadTrials, arms: Arms, said: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Say what was read, and give what is to be warned of."""
    sentences = [_what(made, arms), _items(made), *(text[:1].upper() + text[1:] for text in said)]
    if made.flicker:
        moved = "; ".join(f"{a!r} {f['vary']} of {f['cells']}" for a, f in made.flicker.items() if f["cells"])
        sentences.append(f"Repeats change the outcome of an item: {moved}")
    return " ".join(f"{text}." for text in sentences), _warnings(made, arms)


def _what(made: ReadTrials, arms: Arms) -> str:
    used = [one for one in made.sources if one["used"]]
    formats, n = sorted({str(one["format"]) for one in used}), len(used)
    kind = " and ".join(formats)
    # A table is no log, and is not called one.
    kind = kind[:1].upper() + kind[1:] if "table" in kind else f"{kind} {'log' if n == 1 else 'logs'}"
    where = "the file" if arms.path == FILE else arms.path
    words = [
        f"{kind}, {counted(len(made.arms), 'arm')}: {listed(map(repr, made.arms), most=6)} ({where})",
        f"scorer {made.scorer!r}",
        *(f"model {one}" for one in _only(made, "model")),
        *(
            f"temperature {value}"
            for path, value in made.shared.get("sampling", {}).items()
            if path.rpartition(".")[2] == "temperature"
        ),
    ]
    return ", ".join(words)


def _only(made: ReadTrials, column: str) -> list[str]:
    if column not in made.frame:
        return []
    values = made.frame[column].dropna().unique()
    return [str(values[0])] if len(values) == 1 else []


def _items(made: ReadTrials) -> str:
    p = made.pairing
    by = {
        "content": "content",
        "question": "question, since a log has no targets",
        "id": "id alone, since not every log has the questions",
    }
    how = by.get(p.by, p.by)
    reps = int(made.frame["rep"].max())
    each = f" x up to {reps} trials each" if reps > 1 else ""
    sizes = set(p.items.values())
    if len(made.arms) == 1:
        text = f"{counted(p.matched, 'item')}{each}"
    elif len(sizes) == 1 and p.matched == next(iter(sizes)):
        text = f"{counted(p.matched, 'item')}{each}, all of them under every arm; paired by {how}"
    elif p.matched:
        here = ", ".join(f"{n} only under {a!r}" for a, n in p.only.items() if n)
        text = f"Items{each}: {p.matched} under every arm{f', {here}' if here else ''}; paired by {how}"
    else:
        listed = ", ".join(f"{n} under {a!r}" for a, n in p.items.items())
        text = f"No item was run under all arms ({listed})"
    missing = {arm: sum(why.values()) for arm, why in made.missing.items()}
    if not any(missing.values()):
        return f"{text}; no outcome is missing"
    listed = ", ".join(f"{n} under {arm!r}" for arm, n in missing.items())
    return f"{text}; outcomes missing: {listed}"


def _warnings(made: ReadTrials, arms: Arms) -> tuple[str, ...]:
    p, out = made.pairing, []
    out += [
        f"outcomes missing under {arm!r}: {', '.join(f'{n} ({why})' for why, n in reasons.items())}"
        for arm, reasons in made.missing.items()
    ]
    scored = made.frame[made.frame["error"].notna() & made.frame[made.outcome].notna()]
    out += [
        f"{counted(len(some), 'trial has', 'trials have')} a score under {arm!r} and an error too ("
        f"{some['error'].iloc[0]}): the score counts, which may be that of no answer"
        for arm, some in scored.groupby("arm", sort=False)
    ]
    out += [
        f"completions under {arm!r} that did not end by themselves:"
        f" {', '.join(f'{n} ({why})' for why, n in reasons.items())}; they count as they were scored"
        for arm, reasons in made.cut_short.items()
    ]
    if p.n_targets:
        out.append(
            f"{counted(p.n_targets, 'question has', 'questions have')} another right answer under another"
            f" arm, and {'is' if p.n_targets == 1 else 'are'} not paired ({_ids(p.targets)})"
        )
    if p.repeated:
        out.append(
            f"{counted(p.repeated, 'question is', 'questions are')} in a log under several ids: each counts"
            " as one item"
        )
    if p.n_names:
        out.append(
            f"{counted(p.n_names, 'id names', 'ids name')} another question under another arm"
            f" ({_ids(p.names)}): paired by {p.by}"
        )
    if p.by == "id" and p.matched and len(made.arms) > 1:
        out.append(
            "items are paired by id alone, which may be a position: whether they ask the same is not known"
        )
    if p.matched > 0 and p.share < ENOUGH:
        out.append(
            f"only {p.matched} items are under every arm: what is said of them need not hold for the others"
        )
    beside = find_differences(
        made.cells, made.arms, arm_role=arms.role, paired=p.matched > 0 and p.by != "id"
    )
    told = [d for d in beside if d.role in _ALSO and d.verdict != "arm"]
    untold = list(dict.fromkeys(d.name for d in told if d.verdict == "untold"))
    if untold:
        out.append(f"not every log tells all of its {', '.join(untold)}: what it does not tell may differ")
    out += [difference_words(d) for d in told if d.verdict != "untold" and len(d.told) > 1]
    out += _other_names(made)
    if arms.role in {"model", "engine", "sampling"}:
        out.append(f"what differs is the {arms.role}, and no prompt: the effect is that of the {arms.role}")
    return tuple(out)


def _other_names(made: ReadTrials) -> list[str]:
    """Name the files that are called by another arm than the one that they hold."""
    words = {arm: set(_WORD.findall(arm.lower())) for arm in made.arms}
    own = {
        arm: found - set().union(*(w for a, w in words.items() if a != arm)) for arm, found in words.items()
    }
    out = []
    for one in made.sources:
        if len(one["arms"]) != 1 or not one["used"]:
            continue
        name = set(_WORD.findall(str(one["file"]).replace("\\", "/").rpartition("/")[2].lower()))
        mine = one["arms"][0]
        called = [arm for arm in made.arms if arm != mine and own[arm] and own[arm] <= name]
        if called and not own[mine] & name:
            out.append(
                f"{one['file']} holds the arm {mine!r} and is called by {called[0]!r}: one name is wrong"
            )
    return out


def _ids(names: Sequence[str]) -> str:
    return ", ".join(name if len(name) <= 24 else f"{name[:12]}..." for name in names)
