"""A whole study checked against its items, before anything runs: by every verb, in one place.

What a study contradicts in itself is refused when it is read (:mod:`whyprompt.study`). Here its items are
known: what it names is looked for among the columns they will have, and the graph, the arms of a mediation
and its task families are held against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt._study_items import BUILTIN_COLUMNS
from whyprompt.errors import GraphError, StudyError
from whyprompt.graph.model import CausalGraph
from whyprompt.study import Contrast
from whyprompt.trials.items.load import items_of
from whyprompt.trials.outcomes.score import any_reads, check_outcomes
from whyprompt.trials.prompts import check_templates, cue_of, segments_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from whyprompt._study_settings import Problem
    from whyprompt.study import MediationSettings, Study
    from whyprompt.trials.items.item import ItemPool


# The plan lists every trial: this many take some gigabytes.
_MOST_TRIALS = 1_000_000
# Tokens in no segment, under the names that a sweep gives them.
_UNNAMED = ("template", "(other)", "(answer)", "(sink)")


# How the designs of logs are spoken of.
_OF_LOGS = {
    "observational": "observational",
    "instrument": "one of a log with an instrument",
    "front_door": "one of a log with a front door",
    "rollout": "one of a log with a roll-out",
}


def runnable_items(study: Study) -> ItemPool:
    """Load the items of a study that is to be run, and refuse what would go wrong later.

    Raises `InputError` if the design cannot be run, an item, a template or an outcome is malformed, or as
    `check_study`.
    """
    if study.design_name not in {"paired", "randomized"}:
        raise StudyError(
            f"study {study.name!r} is {_OF_LOGS[study.design_name]}: its arms were chosen by others; there"
            " is nothing to run",
            hint="analyse the log with 'whyprompt effect TABLE', or set design to paired or randomized",
        )
    reads = any_reads(study.outcomes, "completion")
    for name, arm in study.arms.items():
        if arm.temperature != 0 and not reads:
            raise StudyError(
                f"arm {name!r} sets a temperature, and no outcome reads a completion",
                hint="add an outcome such as numeric_match or string_match, or drop the temperature",
            )
    pool = items_of(study)
    count = study.n_trials(len(pool.items))
    if count > _MOST_TRIALS:
        raise StudyError(
            f"study {study.name!r} has {count:,} trials; a study has at most {_MOST_TRIALS:,}",
            hint="lower size or reps, or split the study",
        )
    check_study(study, pool)
    check_templates(study.arms, pool.items)
    check_outcomes(study.outcomes, pool.items)
    return pool


def check_study(study: Study, pool: ItemPool) -> None:
    """Refuse a study that names what its items, arms or graph do not have.

    The `StudyError` names every mistake by its key, with the file and the line where the study was read from
    one.
    """
    columns = _item_columns(study, pool)
    problems = [*_named_columns(study, columns), *_graph(study, columns)]
    if study.mediation is not None:
        problems += _mediation(study, study.mediation, pool)
    if problems:
        raise study.refusal(problems)


def _item_columns(study: Study, pool: ItemPool) -> dict[str, Sequence[object]]:
    """Give what is known of an item before its arm is chosen; what is measured later stands as numbers."""
    columns: dict[str, Sequence[object]] = {
        "item_id": [i.item_id for i in pool.items],
        "task_type": [i.task_type for i in pool.items],
        "difficulty": [i.difficulty for i in pool.items],
        "cluster": [i.cluster or i.item_id for i in pool.items],
    }
    columns |= {name: range(len(pool.items)) for name in study.covariates}
    for name in dict.fromkeys(c for i in pool.items for c in i.covariates):
        columns[name] = [i.covariates.get(name) for i in pool.items]
    return columns


def _named_columns(study: Study, columns: Mapping[str, Sequence[object]]) -> Iterator[Problem]:
    effect = study.effect
    named: list[tuple[tuple[str | int, ...], str]] = [
        (("effect", "confounders", i), name) for i, name in enumerate(effect.confounders)
    ]
    if effect.by is not None:
        named.append((("effect", "by"), effect.by))
    for where, settings in ((("effect",), effect), (("effect", "audit"), effect.audit)):
        if settings is not None:
            exact = settings.method_options.get("exact", ())
            at = (*where, "method", settings.method_name, "exact")
            named += [((*at, i), name) for i, name in enumerate(exact)]
    for at, name in named:
        if (why := _unusable(study, name, columns)) is not None:
            yield at, why
    for name in effect.audit.assignment if effect.audit is not None else ():
        at = ("effect", "audit", "assignment", name)
        if (why := _unusable(study, name, columns)) is not None:
            yield at, why
        elif any(isinstance(v, str) for v in columns[name]):
            yield at, "is text; the log-odds of the arm move with a number, difficulty for example"
        elif len(set(columns[name])) < 2:
            yield at, "is the same for every item, so no arm can depend on it"


def _unusable(study: Study, name: str, columns: Mapping[str, Sequence[object]]) -> str | None:
    """Say why a column cannot tell items apart before their arm is chosen; None where it can."""
    if name not in columns:
        later = name in BUILTIN_COLUMNS or name in {o.name for o in study.outcomes}
        what = "is known only after the arm is chosen" if later else "is no column that the items have"
        return f"{name!r} {what}; they have {', '.join(columns)}"
    gap = next((i for i, v in enumerate(columns[name]) if v is None), None)
    if gap is not None:
        return f"item {columns['item_id'][gap]!r} has no {name!r}"
    if len({isinstance(v, str) for v in columns[name]}) > 1:
        return f"{name!r} is a number for some items and text for others"
    return None


def _graph(study: Study, columns: Mapping[str, Sequence[object]]) -> Iterator[Problem]:
    if study.graph is None:
        return
    outcome, effect = study.effect.outcome, study.effect
    try:
        graph = CausalGraph.parse(study.graph)
    except GraphError as error:
        yield ("graph",), str(error).removeprefix("graph, ")
        return
    for node in ("arm", outcome):
        if node not in graph.nodes:
            yield ("graph",), f"has no node {node!r}, only {', '.join(graph.nodes)}; the treatment is 'arm'"
            return
    try:
        if effect.confounders:
            graph.check_adjustment("arm", outcome, effect.confounders)
        elif study.design != "paired" or effect.audit is not None:
            measured = {*columns, *BUILTIN_COLUMNS, *(o.name for o in study.outcomes)} - graph.unobserved
            if not graph.adjustment_sets("arm", outcome, observed=measured & set(graph.nodes)):
                why = f"no columns of the items identify the effect of 'arm' on {outcome!r}"
                yield ("graph",), f"{why}: measure what confounds them, or leave the audit out"
    except GraphError as error:
        yield ("graph",), str(error)


def _mediation(study: Study, settings: MediationSettings, pool: ItemPool) -> Iterator[Problem]:
    tasks = dict.fromkeys(i.task_type for i in pool.items)
    for i, name in enumerate(settings.tasks or ()):
        if name not in tasks:
            yield (
                ("mediation", "tasks", i),
                f"{name!r} is no task family of the items; they are {', '.join(tasks)}",
            )
    if len(study.arms) < 2:
        yield ("mediation",), f"compares two arms, and the study has one, {next(iter(study.arms))!r}"
        return
    main = settings.contrast or study.contrast
    contrasts: list[tuple[tuple[str | int, ...], Contrast]] = [(("mediation", "contrast"), main)]
    contrasts += [(("mediation", "contrasts", i), c) for i, c in enumerate(settings.contrasts)]
    if settings.placebo == main.control:
        yield ("mediation", "placebo"), f"{settings.placebo!r} is the control arm itself"
    elif settings.placebo is not None:
        contrasts.append((("mediation", "placebo"), Contrast(treated=settings.placebo, control=main.control)))
    for at, contrast in contrasts:
        cues = {name: cue_of(study.arms[name]) for name in (contrast.treated, contrast.control)}
        if len(set(cues.values())) > 1:
            why = " and ".join(f"arm {name!r} ends in {cue!r}" for name, cue in cues.items())
            yield at, f"{why}: heads are compared at the answer, so give both arms one format and cue"
    if settings.segment is not None:
        have = dict.fromkeys(
            [s for name in (main.control, main.treated) for s in segments_of(study.arms[name])]
        )
        if settings.segment not in {*have, *_UNNAMED}:
            prompts = f"no prompt of {main.treated!r} or {main.control!r} has a segment"
            yield ("mediation", "segment"), f"{prompts} {settings.segment!r}; they have {', '.join(have)}"
