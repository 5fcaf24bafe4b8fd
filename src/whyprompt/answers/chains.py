"""A study's chain before the answer as mediator: set to the other arm's, and measured, on the same items."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt._files import read_json, write_json
from whyprompt.answers.pairs import chosen_items, rendered
from whyprompt.errors import WhypromptError
from whyprompt.mediation.measured.paired import paired_mediation
from whyprompt.mediation.measured.pairs_of_items import read_pairs
from whyprompt.mediation.texts import beside, text_effects
from whyprompt.trials.forced import (
    Forced,
    chain_in,
    forced_outcomes,
    format_of,
    n_tokens,
    to_format,
    to_length,
    with_chain,
)
from whyprompt.trials.items.load import items_of
from whyprompt.trials.outcomes.features import measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from whyprompt.answers.saved import Saved
    from whyprompt.results import Result
    from whyprompt.trials.models.local import LocalModel, PromptCodec

    Progress = Callable[[int, int, str], None]

_FORMAT = 1
_FLAGS = ("list", "json", "lines")
"""What of a chain's format is measured, beside its length in tokens."""


class TextStudy(NamedTuple):
    """A chain as mediator: set, measured, one beside the other, and why a part is not there."""

    set: Result | None
    measured: Result | None
    beside: Result | None
    notes: tuple[str, ...]


class Chains(NamedTuple):
    """Outcomes of every item under both prompts, by what of the chain was set, and the chains themselves."""

    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    own: dict[str, list[float]]
    """Each prompt with its own chain: ``y11``, ``y00``."""
    worlds: dict[str, dict[str, list[float]]]
    """By what was set: ``y10`` (treated prompt, the chain set to the control's), ``y01``."""
    chains: tuple[tuple[str, str], ...]
    """Of each item, control's first."""
    tokens: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]


def texts_file(saved: Saved) -> Path:
    """Name the file that belongs to what is asked of the text; the sweep does not depend on it."""
    study = saved.study
    key = {
        "format": _FORMAT,
        "text": sorted(saved.settings.text),
        "outcome": study.effect.outcome,
        "outcomes": [o.model_dump(mode="json") for o in study.outcomes if o.name == study.effect.outcome],
        "generation": study.generation.model_dump(mode="json"),
        "sampling": study.seeds.sampling,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return saved.folder / f"text-{name}.json"


def read_chains(saved: Saved) -> Chains | None:
    """Read what was computed; None where it was not, or the file is damaged and has to be made again."""
    path = texts_file(saved)
    if not saved.settings.text or not path.is_file():
        return None
    try:
        found = read_json(path, hint="delete it and run again: whyprompt mediate STUDY")
        made = Chains(
            item_ids=tuple(map(str, found["item_ids"])),
            clusters=tuple(map(str, found["clusters"])),
            own=_numbers(found["own"], ("y11", "y00")),
            worlds={str(k): _numbers(w, ("y10", "y01")) for k, w in found["worlds"].items()},
            chains=tuple((str(a), str(b)) for a, b in found["chains"]),
            tokens=tuple((int(a), int(b)) for a, b in found["tokens"]),
            notes=tuple(map(str, found["notes"])),
        )
    except (WhypromptError, KeyError, TypeError, ValueError, AttributeError):
        return None
    lengths = {len(made.item_ids), len(made.clusters), len(made.chains), len(made.tokens)}
    lengths |= {len(y) for world in (made.own, *made.worlds.values()) for y in world.values()}
    return made if len(lengths) == 1 and set(made.item_ids) == set(saved.item_tasks) else None


def lack_chains(saved: Saved) -> bool:
    """Whether a study asks for its texts, and they are still to be computed."""
    return bool(saved.settings.text) and read_chains(saved) is None


def _numbers(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, list[float]]:
    return {name: [float(value) for value in found[name]] for name in names}


def compute_chains(lm: LocalModel, saved: Saved, frame: pd.DataFrame, report: Progress) -> None:
    """Set the chain of every item under both prompts, score the outcome anew, and keep what was found."""
    study, contrast = saved.study, saved.contrasts[0]
    items, pool = chosen_items(study, saved.settings), items_of(study)
    outcome = next(o for o in study.outcomes if o.name == study.effect.outcome)
    arms = (contrast.control, contrast.treated)
    worlds: dict[str, dict[str, list[float]]] = {}
    prompts = [[rendered(study, arm, item, pool, lm.codec, frame) for arm in arms] for item in items]
    chains = tuple((chain_in(a).strip(), chain_in(b).strip()) for a, b in prompts)
    wanted = [
        Forced(item, arm, prompt)
        for item, both in zip(items, prompts, strict=True)
        for arm, prompt in zip(arms, both, strict=True)
    ]
    steps = len(saved.settings.text) + 1
    report(0, steps, "texts, as they were written")
    natural = forced_outcomes(study, outcome, wanted, lm)
    notes = []
    for n, name in enumerate(saved.settings.text):
        report(n + 1, steps, f"texts, {name}")
        texts = [_set(name, one, lm.codec) for one in chains]
        if name == "format" and not any(format_of(a) and format_of(b) for a, b in chains):
            notes.append("The format of the chain was not set: an arm has no chain, so no format of its own.")
            continue
        if all(new == old for new, old in zip(texts, chains, strict=True)):
            notes.append(
                f"The {name} of the chain was not set: it is the same under both arms in every item."
            )
            continue
        forced = [
            Forced(item, arm, with_chain(prompt, text))
            for item, both, new in zip(items, prompts, texts, strict=True)
            for arm, prompt, text in zip(arms, both, new, strict=True)
        ]
        found = forced_outcomes(study, outcome, forced, lm)
        # The treated prompt with the control's text comes second of each item.
        worlds[name] = {"y10": found[1::2], "y01": found[0::2]}
    made = Chains(
        item_ids=tuple(item.item_id for item in items),
        clusters=tuple(item.cluster or item.item_id for item in items),
        own={"y11": natural[1::2], "y00": natural[0::2]},
        worlds=worlds,
        chains=chains,
        tokens=tuple((n_tokens(a, lm.codec), n_tokens(b, lm.codec)) for a, b in chains),
        notes=tuple(notes),
    )
    write_json(texts_file(saved), made._asdict())
    report(steps, steps, "texts")


def _set(name: str, chains: tuple[str, str], codec: PromptCodec) -> tuple[str, str]:
    """Give both arms' chains with one thing of them set to that of the other's, control's first."""
    control, treated = chains
    if name == "chain":
        return treated, control
    if name == "length":
        lengths = n_tokens(control, codec), n_tokens(treated, codec)
        return to_length(control, lengths[1], codec), to_length(treated, lengths[0], codec)
    return to_format(control, format_of(treated)), to_format(treated, format_of(control))


def text_study(saved: Saved, found: Chains) -> TextStudy:
    """Make the answers of what was computed: the chain set, the chain measured, both beside each other."""
    study, contrast, settings = saved.study, saved.contrasts[0], saved.settings
    outcome, level = study.effect.outcome, settings.level
    y11, y00 = np.array(found.own["y11"]), np.array(found.own["y00"])
    worlds = {k: (y11, np.array(w["y10"]), np.array(w["y01"]), y00) for k, w in found.worlds.items()}
    made = None
    if worlds:
        made = text_effects(
            worlds,
            clusters=found.clusters,
            outcome=outcome,
            treated=contrast.treated,
            control=contrast.control,
            level=level,
        )
    table, groups, notes = _table(found, outcome, (contrast.control, contrast.treated))
    options: dict[str, Any] = {"level": level, "random_state": study.seeds.analysis}
    names: dict[str, Any] = {"treatment": "arm", "outcome": outcome, "item": "item_id", "cluster": "cluster"}
    if not groups:
        notes.append("The chain was not measured: within each arm its length and its format are the same.")
        return TextStudy(made, None, None, (*found.notes, *notes))
    try:
        measured = paired_mediation(
            table,
            mediators=groups,
            treated=contrast.treated,
            control=contrast.control,
            **names,
            **options,
        )
        pairs = read_pairs(
            table, mediators=groups, arms=(contrast.control, contrast.treated), covariates=(), **names
        )
        order = [found.item_ids.index(item) for item in pairs.items]
        both = {
            name: (w[0][order], w[1][order], w[2][order], w[3][order])
            for name, w in worlds.items()
            if name in groups
        }
        held = beside(pairs, both, **options) if both else None
    except WhypromptError as error:
        notes.append(f"The chain was not measured: {error.message}.")
        return TextStudy(made, None, None, (*found.notes, *notes))
    return TextStudy(made, measured, held, (*found.notes, *notes))


def _table(
    found: Chains, outcome: str, arms: tuple[str, str]
) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]], list[str]]:
    """Give the chains as a table of their measured length and format, and the mediators that these make."""
    import pandas as pd

    rows = []
    for k, arm in enumerate(arms):
        texts = [pair[k] for pair in found.chains]
        columns = {flag: measure(texts, flag) for flag in _FLAGS}
        columns["lines"] = (columns["lines"] > 1).astype(float)
        rows.append(
            pd.DataFrame(
                {
                    "item_id": found.item_ids,
                    "cluster": found.clusters,
                    "arm": arm,
                    outcome: found.own["y11" if k else "y00"],
                    "tokens": [float(pair[k]) for pair in found.tokens],
                    **columns,
                }
            )
        )
    table = pd.concat(rows, ignore_index=True)
    groups: dict[str, tuple[str, ...]] = {}
    if _varies(table, "tokens"):
        groups["length"] = ("tokens",)
    flags = tuple(flag for flag in _FLAGS if _varies(table, flag))
    if flags:
        groups["format"] = flags
    notes = [
        f"The chain's {name} was set and not measured: within each arm it is the same."
        for name in ("length", "format")
        if name in found.worlds and name not in groups
    ]
    return table, groups, notes


def _varies(table: pd.DataFrame, name: str) -> bool:
    return any(np.ptp(values) > 0 for _, values in table.groupby("arm")[name])
