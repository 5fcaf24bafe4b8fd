"""The prompts that were sent, held against the arms' names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt._words import counted
from whyprompt.trials.logs.gather import ints
from whyprompt.trials.logs.pairing import distinct_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.trials.logs.gather import Gathered

    Ints = NDArray[np.int64]

_LONG = 80
_STEPS = re.compile(r"step.by.step|step-wise|think|reason", re.IGNORECASE)
_CALLED_STEPS = re.compile(r"(?<![a-z])(cot|chain|steps?|think(ing)?|reason(ing)?)(?![a-z])", re.IGNORECASE)


class PromptNotes(NamedTuple):
    """What the prompts say of the arms; `same` that two arms were sent the same in every item."""

    same: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def prompt_notes(
    g: Gathered, kept: Ints, key: Ints, arm: Ints, names: Sequence[str], *, alone: bool
) -> PromptNotes:
    """Hold the prompts of the kept trials against their arms: `key` is the item of each, `arm` its arm.

    `alone` says that nothing but the prompt tells the arms apart, so that equal prompts make them one.

    Two arms of which every item that both ran got one and the same prompt are one arm. One label under which
    an item got several prompts, or trials of one arm that carry the other's template, are warned of.
    """
    prompt, template = ints(g.prompt)[kept], ints(g.template)[kept]
    sent = prompt != 0
    if not sent.any():
        return PromptNotes()
    n_arms = len(names)
    code = np.unique(prompt[sent], return_inverse=True)[1]
    cell, text = distinct_pairs(key[sent] * n_arms + arm[sent], code)
    first = np.concatenate([[True], cell[1:] != cell[:-1]])
    several = np.unique(cell[~first]) % n_arms
    warnings = [
        f"under {names[a]!r} {counted(int(n), 'item was', 'items were')} sent more than one prompt: one"
        " label, several prompts"
        for a, n in enumerate(np.bincount(several, minlength=n_arms))
        if n
    ]
    item, of_arm, text = cell[first] // n_arms, cell[first] % n_arms, text[first]
    same: list[tuple[str, str, int]] = []
    mixed: list[str] = []
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            mine, theirs = of_arm == a, of_arm == b
            both, one, other = np.intersect1d(item[mine], item[theirs], return_indices=True)
            if not len(both):
                continue
            equal = text[mine][one] == text[theirs][other]
            if equal.all():
                same.append((names[a], names[b], len(both)))
            else:
                if equal.any():
                    mixed.append(
                        f"{counted(int(equal.sum()), 'item')} of {len(both)} got the same prompt under"
                        f" {names[a]!r} and {names[b]!r}"
                    )
                mixed += _carried(template, arm, a, b, names)
    notes = tuple(
        f"{one!r} and {other!r} were sent the same prompt in {n} of {n} items"
        + (": this is an A/A comparison, whatever their names say" if alone else "")
        for one, other, n in same
    )
    if not same and len(names) == 2 and (parts := _differ(g, arm, kept)):
        has = [f"{name!r} has {text!r}" for name, text in zip(names, parts, strict=True) if text]
        notes += (f"the prompts sent differ in that {' where '.join(has)}",)
        stepwise = [bool(_STEPS.search(text)) for text in parts]
        if sorted(stepwise) == [False, True]:
            with_steps, without = names[stepwise.index(True)], names[stepwise.index(False)]
            if _CALLED_STEPS.search(without) and not _CALLED_STEPS.search(with_steps):
                warnings.append(
                    f"{with_steps!r} asks for steps and {without!r}, by its name the one that should, does"
                    " not: their labels look exchanged"
                )
    return PromptNotes(bool(same) and alone, notes, (*warnings, *mixed))


def _carried(template: Ints, arm: Ints, a: int, b: int, names: Sequence[str]) -> list[str]:
    """Say where trials of one arm carry what nearly all of the other's do: a label that is wrong."""
    out = []
    for mine, other in ((a, b), (b, a)):
        own, theirs = template[(arm == mine) & (template != 0)], template[(arm == other) & (template != 0)]
        if not len(own) or not len(theirs):
            continue
        values, counts = np.unique(theirs, return_counts=True)
        if counts.max() <= len(theirs) / 2:
            continue
        wrong = int((own == values[counts.argmax()]).sum())
        if 0 < wrong < len(own) / 2:
            out.append(
                f"{wrong} of {counted(len(own), 'trial')} labelled {names[mine]!r} carry the template of"
                f" {names[other]!r}: their label is wrong"
            )
    return out


def _differ(g: Gathered, arm: Ints, kept: Ints) -> tuple[str, str] | None:
    """Give the words by which the two arms' prompts differ, where all that are at hand agree on them."""
    setting = ints(g.setting)[kept]
    shown: list[dict[int, str]] = [{}, {}]
    for code, some in g.shown.items():
        here = arm[setting == code]
        if len(here) and 0 <= here[0] < 2 and bool((here == here[0]).all()):
            shown[int(here[0])].update(some)
    parts = {_parts(shown[0][item], shown[1][item]) for item in shown[0].keys() & shown[1].keys()}
    if len(parts) != 1:
        return None
    one, other = parts.pop()
    return (one, other) if max(len(one), len(other)) <= _LONG else None


def _parts(one: str, other: str) -> tuple[str, str]:
    """Give what stands between the common beginning and the common end of two texts, by whole words."""
    a, b = one.split(), other.split()
    begin = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    most = min(len(a), len(b)) - begin
    tails = zip(reversed(a[begin:]), reversed(b[begin:]), strict=False)
    end = next((k for k, (x, y) in enumerate(tails) if x != y), most)
    return " ".join(a[begin : len(a) - end]), " ".join(b[begin : len(b) - end])
