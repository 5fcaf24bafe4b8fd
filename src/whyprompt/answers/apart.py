"""What differs between two runs as a causal graph and in sentences: what of it can be told from the arm."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whyprompt._words import listed
from whyprompt.graph.model import CausalGraph
from whyprompt.trials.logs.arms import LABELS
from whyprompt.trials.logs.differences import NAMES, Difference, find_differences, shown, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.trials.logs.result import ReadTrials

ARM, RUN, ANSWER = "arm", "run", "answer"
# What a log should tell; what may change nothing, and how much is known of that.
_WANTED = ("model", "sampling")
_LOOSE = {
    "date": ": what a served model became in between cannot be told from it",
    "other": ", and what it does is not known",
}


def differences_of(found: ReadTrials, arms: Sequence[str]) -> tuple[Difference, ...]:
    """Give all that differs between two arms of logs."""
    frame = found.frame
    one, other = (frame["item_id"][frame["arm"] == arm] for arm in arms)
    paired = found.pairing.by != "id" and bool(one.isin(other).any())
    return find_differences(found.cells, arms, arm_role=found.arm_role, paired=paired)


def difference_graph(beside: Sequence[Difference], outcome: str) -> CausalGraph:
    """Draw the arm, what differs beside it, and the outcome.

    What is not alike in the arms has a cause in common with the arm: whoever chose the run. A value that is
    seen under one arm alone cannot be adjusted for, so that its node is unobserved. A judge changes what is
    measured, everything else the answer that it judges.

    >>> model = Difference(role="model", settings={"name": {"a": ("m-1",), "b": ("m-2",)}}, verdict="aligned")
    >>> difference_graph([model], "score").identify("arm", "score").strategy
    'none'
    """
    some = [d for d in beside if d.verdict not in {"arm", "untold"}]
    roles = [d.role for d in some]
    taken = {ARM, RUN, ANSWER, outcome}
    names = [
        d.role if roles.count(d.role) == 1 and d.role not in taken else f"{d.role} {d.path}" for d in some
    ]
    judged = any(d.role == "judge" for d in some)
    target = ANSWER if judged else outcome
    chosen = [name for name, d in zip(names, some, strict=True) if d.verdict not in {"balanced", "drawn"}]
    edges = [(RUN, ARM), *((RUN, name) for name in chosen)] if chosen else []
    edges.append((ARM, target))
    acting = [(name, d.role) for name, d in zip(names, some, strict=True) if d.verdict != "inert"]
    edges += [(name, outcome if role == "judge" else target) for name, role in acting]
    edges += [(ANSWER, outcome)] if judged else []
    hidden = [name for name, d in zip(names, some, strict=True) if d.verdict == "aligned"]
    nodes = [*([RUN] if chosen else []), ARM, *names, *([ANSWER] if judged else []), outcome]
    return CausalGraph(
        nodes=tuple(nodes),
        directed=tuple(edges),
        unobserved=frozenset([*hidden, *({RUN, ANSWER} & set(nodes))]),
    )


def named(d: Difference, arms: Sequence[str]) -> str:
    """Name a difference with its values: "model (eval.model: 'm-1' under 'a', 'm-2' under 'b')"."""
    sides = ", ".join(f"{shown(d.of(arm))} under {arm!r}" for arm in arms)
    return f"{d.name} ({d.path}: {sides})"


def one_treatment(beside: Sequence[Difference], arms: Sequence[str], arm: str) -> str:
    """Say which differences and the arm are one treatment, "" where none is."""
    one = [d for d in beside if d.verdict == "aligned" and d.role not in _LOOSE]
    if not one:
        return ""
    names = listed([f"the {name}" for name in dict.fromkeys(d.name for d in one)])
    return (
        f"{'This differs' if len(one) == 1 else 'These differ'} with {arm}:"
        f" {listed([named(d, arms) for d in one])}. {arm.capitalize()} and {names} are one treatment here,"
        " and what either does alone these runs cannot tell."
    )


def called(found: ReadTrials) -> str:
    """Give what the arm is called in a sentence: "the prompt"."""
    return f"the {NAMES.get(found.arm_role, found.arm_role)}"


def besides(found: ReadTrials, beside: Sequence[Difference], arms: Sequence[str]) -> str:
    """Say what differs beside the arm, and how it goes with it."""
    by: dict[str, list[Difference]] = {}
    for d in beside:
        by.setdefault(d.verdict, []).append(d)
    arm = called(found)
    told = {verdict: listed([named(d, arms) for d in some]) for verdict, some in by.items()}
    out = []
    if not set(by) - {"arm"}:
        but = ", nor the prompts that were sent" if found["same_prompts"] else f" but {arm}"
        out.append(f"Nothing that the logs tell differs between {arms[0]!r} and {arms[1]!r}{but}.")
    parts = _texts_of_the_arm(by.get("arm", []))
    if len(parts) > 1:
        out.append(f"The {listed(parts)} of {arm} differ at once, and are one treatment.")
    out += [text for text in [one_treatment(beside, arms, arm)] if text]
    for role, words in _LOOSE.items():
        if some := [d for d in by.get("aligned", []) if d.role == role]:
            out.append(f"The {listed([named(d, arms) for d in some])} changes with {arm} as well{words}.")
    out += [
        f"The {named(d, arms)} is not alike in the arms, but both were run with {shown(d.under_every)}, and"
        f" there {arm} can be told."
        for d in by.get("overlapping", [])
    ]
    out += [
        f"The {named(d, arms)} is as frequent in both arms: it can be told from {arm}."
        for d in by.get("balanced", [])
    ]
    ends = {
        "paired": "differs; the items under both arms are compared with themselves",
        "drawn": "is one draw an arm: chance that no interval has",
        "inert": "changes nothing by itself: the model is named by its content and was run on the spot",
    }
    out += [f"The {told[verdict]} {words}." for verdict, words in ends.items() if verdict in by]
    if "untold" in by:
        names = listed([f"{d.name} ({d.path})" for d in by["untold"]])
        out.append(f"Not every log tells its {names}: it may differ.")
    silent = [role for role in _WANTED if not any(c.values.get(role) for c in found.cells)]
    if silent:
        out.append(f"Of the {listed(silent)} the logs tell nothing: they may differ.")
    return " ".join(out)


def _texts_of_the_arm(some: Sequence[Difference]) -> list[str]:
    """Name the settings of an arm that are more than its name."""
    return [
        path
        for d in some
        for path in d.settings
        if d.role != "other" and re.split(r"[._/]", path)[-1] not in (*LABELS, "tags")
    ]


def separating(found: ReadTrials, beside: Sequence[Difference], arms: Sequence[str]) -> str:
    """Say which run would separate what goes with the arm, and which of the given logs do."""
    out = []
    control, treated = arms
    for d in beside:
        if d.verdict == "overlapping":
            value = d.under_every[0]
            cells = [c for c in found.cells if c.arm in arms]
            logs = {
                c.log: None for c, v in zip(cells, texts(cells, d.role, d.path), strict=True) if v == value
            }
            where = f": compare {listed(list(logs))} alone" if len(logs) > 1 else ""
            out.append(f"The runs with {d.path} {shown([value])} separate the {d.name}{where}.")
    some = [d for d in beside if d.verdict == "aligned"]
    moved = [d for d in some if d.role not in {"judge", "items", *_LOOSE}]
    if moved:
        old = listed([f"{d.path} {shown(d.of(control))}" for d in moved])
        new = listed([f"{d.path} {shown(d.of(treated))}" for d in moved])
        out.append(f"To separate them, run {treated!r} with {old}; or {control!r} with {new}.")
    if any(d.role == "judge" for d in some):
        out.append("The judge needs no new run: have the completions of both arms scored by one judge.")
    if any(d.role == "items" for d in some):
        out.append("Run both arms on the same items, with what was asked in the logs.")
    if any(d.role == "date" for d in some):
        out.append("Run in turns, both arms would have the same dates.")
    if any(d.verdict == "drawn" for d in beside):
        out.append("Several seeds for each arm would tell what the seed does.")
    return " ".join(out)
