"""Runs what is missing of a study, and only that."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whyprompt._words import counted
from whyprompt._workers.place import crew_size, map_units
from whyprompt._workers.seat import hand_on
from whyprompt.errors import DataError, StoreError
from whyprompt.results import Check, Estimate
from whyprompt.study import EndpointSettings, ModelSettings
from whyprompt.trials.check import check_study, runnable_items
from whyprompt.trials.endpoints.drift import drift
from whyprompt.trials.endpoints.judges import elsewhere, judging
from whyprompt.trials.endpoints.plan import without_overflow
from whyprompt.trials.endpoints.run import dry_endpoint, run_endpoint
from whyprompt.trials.items.load import items_of
from whyprompt.trials.manifest import local_facts, save_manifest, seed_everything
from whyprompt.trials.models.load import load_codec, load_model, usable_device
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.models.parts import can_be_parted, cut
from whyprompt.trials.models.remote import loaded, open_model, sent
from whyprompt.trials.models.scoring import RootCache, plan_scoring, score, score_pack
from whyprompt.trials.outcomes.score import any_reads, score_outcomes
from whyprompt.trials.plan import Trial, TrialPlan, make_plan, study_fingerprint
from whyprompt.trials.prompts import trial_seed
from whyprompt.trials.result import Progress, RunResult, now, silent
from whyprompt.trials.store import TrialStore
from whyprompt.trials.told import told, unanswered
from whyprompt.trials.writing import PARTS, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pandas as pd

    from whyprompt.study import Study
    from whyprompt.trials.items.item import Item, Scalar
    from whyprompt.trials.models.local import LocalModel, PromptCodec
    from whyprompt.trials.models.packing import Pack
    from whyprompt.trials.models.scoring import TokenScores
    from whyprompt.trials.writing import Key, Part, Text, Texts

_CPU_BUDGET = 768


def dry_run(study: Study) -> RunResult:
    """Count a study's trials and tokens without loading the model's weights.

    Parameters
    ----------
    study : Study

    Returns
    -------
    RunResult
        Without what only a run knows.

    Raises
    ------
    InputError
        Whatever `run_study` would refuse.
    """
    pool = runnable_items(study)
    if isinstance(study.model, EndpointSettings):
        return dry_endpoint(study, pool)
    codec = load_codec(study.model.name, revision=study.model.revision)
    usable_device(study.model.device)
    plan = make_plan(study, pool, codec, budget=_CPU_BUDGET)
    with judging(study, None) as (bench, _):
        return replace(_taken(plan, codec), checks=bench.checks, notices=tuple(bench.most(pool.items)))


def _taken(plan: TrialPlan, codec: PromptCodec) -> RunResult:
    arms = dict.fromkeys(plan.study.arms, 0)
    settings, written = plan.study.generation, 0
    most = settings.max_new_tokens if any_reads(plan.study.outcomes, "completion") else 0
    for t in plan.trials:
        written += most
        if t.encoded is not None:
            arms[t.arm] += len(t.encoded.ids) + len(t.encoded.answer_ids)
        else:
            arms[t.arm] += len(codec.tokens(t.prompt.reasoning_first or "")) + settings.max_reasoning_tokens
            written += settings.max_reasoning_tokens
    return RunResult(
        study=plan.fingerprint,
        trials=len(plan.trials),
        items=len(plan.pool.items),
        arms=arms,
        completion_tokens=written,
    )


def run_study(
    study: Study, folder: str | Path, *, text: str | None = None, progress: Progress = silent
) -> RunResult:
    """Run what is missing of a study.

    Parameters
    ----------
    study : Study
    folder : str or Path
        Gets ``trials.sqlite`` and ``manifest.json``.
    text : str, optional
        The study file's text, for the manifest.
    progress : callable, optional
        Called as ``progress(done, total, text)``.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the study, its items, its model or the store cannot be used; nothing is written then. Or if the
        folder was deleted, moved or replaced while the run was writing into it.
    """
    folder = Path(folder)
    path = folder / "trials.sqlite"
    pool = runnable_items(study)
    if isinstance(study.model, EndpointSettings):
        return run_endpoint(study, pool, folder, text=text, progress=progress)
    progress(0, 0, "loading the model")
    with TrialStore(path, write=True) as store, judging(study, store) as (bench, judge):
        lm = open_model(study.model)
        plan = make_plan(study, pool, lm.codec, budget=lm.token_budget)
        started = now()
        notices = store.begin(
            study=plan.fingerprint,
            name=study.name,
            spec=plan.spec,
            model=lm.fingerprint,
            model_name=lm.name,
            detail={"name": lm.name, "files": lm.sha256, "dtype": str(lm.dtype), "device": lm.device.type},
            started_at=started,
        )
        if lm.dtype.itemsize < 4:
            notices = [*notices, f"half precision, {lm.notes[0]}; the default is float32"]
        begun = time.perf_counter()
        _measure_items(store, plan, lm, progress)
        # Written before and after: a run that is killed leaves a manifest beside what it computed.
        facts = local_facts(study, lm)
        save_manifest(folder, plan, facts, started_at=started, text=text, notices=notices)
        new = _run_units(store, plan, lm, judge, progress)
        seconds = time.perf_counter() - begun
        save_manifest(folder, plan, facts, started_at=started, text=text, notices=notices, new_trials=new)
        store.check_there()
        table = store.frame(plan.fingerprint, lm.fingerprint)
        notices = [*notices, *told(study, table), *bench.spent()]
    return replace(
        _taken(plan, lm.codec),
        model=lm.fingerprint,
        new_trials=new,
        missing=unanswered(study, table),
        store=path,
        notices=tuple(notices),
        seconds=seconds,
    )


def _measure_items(store: TrialStore, plan: TrialPlan, lm: LocalModel, progress: Progress) -> None:
    """Measure every item's own covariates: length, and how familiar the model finds the question."""
    done = store.done_items(plan.fingerprint, lm.fingerprint)
    items = plan.pool.items
    requests: list[Encoded] = []
    if "question_perplexity" in plan.study.covariates:
        ids = [lm.codec.tokens(item.question, special=True) for item in items]
        short = next((item.item_id for item, i in zip(items, ids, strict=True) if len(i) < 2), None)
        if short is not None:
            raise DataError(
                f"item {short!r}: its question is one token, which has no perplexity",
                hint="leave question_perplexity out of the study's covariates",
            )
        # The first token has nothing before it where the tokenizer sets no beginning: it is not scored.
        requests = [Encoded(i[:1], i[1:]) for i in ids]
    packs = plan_scoring(lm, requests)
    left = [pack for pack in packs if not all(items[n].item_id in done for n in pack.members)]
    if lm.parts:
        able = [can_be_parted(requests, pack) for pack in left]
        left = [pack for _, pack in cut(left, [pack.root for pack in left], able, crew_size())]
    waiting = [(pack.members, pack, {n: requests[n] for n in pack.members}) for pack in left]
    count = len(done)
    progress(count, len(items), "measuring the items")
    if not packs:
        waiting = []
        _add_items(store, plan, lm, range(len(items)), done, {})
    for number, scores in map_units(_Scoring(_settings(plan), sent(lm)), waiting):
        members = waiting[number][0]
        count += _add_items(store, plan, lm, members, done, scores)
        progress(count, len(items), "measuring the items")
    progress(len(items), len(items), "measuring the items")


def _add_items(
    store: TrialStore,
    plan: TrialPlan,
    lm: LocalModel,
    members: Iterable[int],
    done: set[str],
    scores: Mapping[int, TokenScores],
) -> int:
    """Write those of some items that are not there, and count them."""
    items = plan.pool.items
    fresh = [n for n in members if items[n].item_id not in done]
    found = [(n, _measured(plan.study, items[n], lm.codec, scores.get(n))) for n in fresh]
    if found:
        store.add(plan.fingerprint, lm.fingerprint, items=found)
    return len(found)


def _measured(study: Study, item: Item, codec: PromptCodec, scores: TokenScores | None) -> Item:
    """Put what is measured of an item before its own covariates."""
    measured: dict[str, Scalar] = {}
    if "question_tokens" in study.covariates:
        measured["question_tokens"] = len(codec.tokens(item.question))
    if scores is not None:
        measured["question_perplexity"] = math.exp(-scores.total / len(scores.log_probs))
    return replace(item, covariates={**measured, **item.covariates})


def _run_units(
    store: TrialStore,
    plan: TrialPlan,
    lm: LocalModel,
    judge: Callable[[list[Trial]], list[Trial]],
    progress: Progress,
) -> int:
    # One that a judge gave nothing for is asked about again.
    done = store.done_trials(plan.fingerprint, lm.fingerprint, failed=False)
    texts = store.texts(plan.fingerprint, lm.fingerprint)
    waiting: dict[str, list[tuple[int, Sequence[Pack], dict[int, Trial]]]] = {}
    for number, packs in enumerate(plan.units):
        trials = {n: plan.trials[n] for pack in packs for n in pack.members}
        if not all(t.key in done for t in trials.values()):
            waiting.setdefault(next(iter(trials.values())).arm, []).append((number, packs, trials))
    apart = crew_size() > 0
    count, new = len(done), 0
    for arms in [tuple(waiting)] if apart else [(arm,) for arm in waiting]:
        if not apart:
            # What the model writes is written side by side over an arm; a worker writes it by units.
            _write_arm(store, plan, arms[0], done, lm, texts, progress)
        units = [
            (
                *unit,
                {
                    key: texts[key]
                    for t in unit[2].values()
                    for key in product([t.key], PARTS)
                    if key in texts
                },
            )
            for arm in arms
            for unit in waiting[arm]
        ]
        if lm.parts and not _written(plan):
            units = _cut(units, done)
        if units:
            progress(count, len(plan.trials), f"arm {arms[0]}")
        # A unit that is done again is given what was written of it. A trial that is there needs no more.
        unwritten = {t.key: unit[3] for unit in units for t in unit[2].values()}

        def keep(said: tuple[Key, Part, Text], unwritten: dict[Key, Texts] = unwritten) -> None:
            key, part, text = said
            if key in unwritten and (key, part) not in unwritten[key]:
                unwritten[key][key, part] = text
                store.add_text(plan.fingerprint, lm.fingerprint, key, part, text)

        for n, made in _computed(plan, lm, units, keep):
            # Another version may have laid the units otherwise: a trial that is there stays as it is.
            fresh = judge([trial for trial in made if trial.key not in done])
            for trial in made:
                unwritten.pop(trial.key)
            # A unit of which a judge is to be asked again is computed again, and not written again.
            failed = any(trial.error is not None for trial in fresh)
            spent = () if failed else [trial.key for trial in made]
            store.add(plan.fingerprint, lm.fingerprint, trials=fresh, spent=spent)
            count += len(fresh)
            new += len(fresh)
            progress(count, len(plan.trials), f"arm {_arm_of(units[n])}")
    progress(len(plan.trials), len(plan.trials), "done")
    return new


def _written(plan: TrialPlan) -> bool:
    """Say whether trials are more than scores of packs: a unit of those is done as it is."""
    outcomes = plan.study.outcomes
    own = any(o.call is not None for o in outcomes)
    chains = any(t.encoded is None for t in plan.trials)
    return own or chains or any(any_reads(outcomes, what) for what in ("completion", "choices"))


def _cut(units: Sequence[_Unit], done: set[Key]) -> list[_Unit]:
    """Cut units into parts where more workers are than units, or wait for the last ones."""
    able, packs = [], [unit[1][0] for unit in units]
    for _, (pack,), trials, _ in units:
        encoded = {n: t.encoded for n, t in trials.items() if t.encoded is not None}
        able.append(can_be_parted(encoded, pack))
    parts = cut(packs, [_alike(unit) for unit in units], able, crew_size())
    made = [
        (units[n][0], (pack,), {i: units[n][2][i] for i in pack.members}, units[n][3]) for n, pack in parts
    ]
    return [unit for unit in made if not all(t.key in done for t in unit[2].values())]


def _alike(unit: _Unit) -> tuple[str, tuple[int, ...]]:
    # What prompts share at their beginning is computed once by the worker that has them.
    return _arm_of(unit), unit[1][0].root


def _arm_of(unit: _Unit) -> str:
    return next(iter(unit[2].values())).arm


def _computed(
    plan: TrialPlan, lm: LocalModel, units: Sequence[_Unit], keep: Callable[[Any], None]
) -> Iterator[tuple[int, list[Trial]]]:
    return map_units(
        _Units(replace(plan, trials=(), units=()), _settings(plan), sent(lm)),
        units,
        cost=[float(sum(pack.cost for pack in unit[1])) for unit in units],
        alike=[_alike(unit) for unit in units],
        heard=keep,
    )


def _settings(plan: TrialPlan) -> ModelSettings:
    assert isinstance(plan.study.model, ModelSettings)
    return plan.study.model


_Unit = tuple[int, Sequence["Pack"], dict[int, Trial], "Texts"]
"""Its number, its packs, the trials that they are of, and what the model has written of them."""


@dataclass(frozen=True)
class _Scoring:
    """The work of scoring packs, each with the requests that it is of."""

    settings: ModelSettings
    lm: LocalModel

    @contextmanager
    def opened(self) -> Iterator[Callable[[Any], Any]]:
        lm, cache = loaded(self.lm, self.settings), RootCache()
        yield lambda unit: dict(score_pack(lm, unit[2], unit[1], cache))


@dataclass(frozen=True)
class _Units:
    """The work of a study's units, wherever it is done; the plan comes without its trials."""

    plan: TrialPlan
    settings: ModelSettings
    lm: LocalModel

    @contextmanager
    def opened(self) -> Iterator[Callable[[_Unit], list[Trial]]]:
        lm, cache = loaded(self.lm, self.settings), RootCache()

        def run(unit: _Unit) -> list[Trial]:
            number, packs, trials, texts = unit
            # What a user's code draws from the global generators depends on the unit, not on who runs it.
            seed_everything(trial_seed(self.plan.study.seeds.sampling, "unit", number) % 2**32)
            return _run_unit(self.plan, packs, number, trials, lm, cache, texts)

        yield run


def _write_arm(
    store: TrialStore,
    plan: TrialPlan,
    arm: str,
    done: set[tuple[str, str, int]],
    lm: LocalModel,
    texts: Texts,
    progress: Progress,
) -> None:
    """Let the model write all that an arm lacks, side by side over its units; each text is stored at once."""
    waiting = {n: t for n, t in enumerate(plan.trials) if t.arm == arm and t.key not in done}
    each = any_reads(plan.study.outcomes, "completion") + any(t.encoded is None for t in waiting.values())
    there = itertools.count(1 + sum((t.key, part) in texts for t in waiting.values() for part in PARTS))

    def keep(key: tuple[str, str, int], part: Part, text: Text) -> None:
        store.add_text(plan.fingerprint, lm.fingerprint, key, part, text)
        progress(next(there), each * len(waiting), f"arm {arm}: the model writes")

    write(plan, waiting, lm, texts, keep)


def _run_unit(
    plan: TrialPlan,
    unit: Sequence[Pack],
    number: int,
    planned: Mapping[int, Trial],
    lm: LocalModel,
    cache: RootCache,
    texts: Texts,
) -> list[Trial]:
    started, outcomes = now(), [o for o in plan.study.outcomes if not elsewhere(o)]
    ready = write(plan, planned, lm, texts, lambda *said: hand_on(said))
    # What was written has times of its own.
    begun = time.perf_counter()
    encoded = {n: t.encoded for n, t in ready.items() if t.encoded is not None}
    if any(t.encoded is None for t in planned.values()):
        # The unit's packs are of the prompts for the chains.
        scores = dict(zip(encoded, score(lm, list(encoded.values())), strict=True))
    else:
        scores = {n: found for pack in unit for n, found in score_pack(lm, encoded, pack, cache)}
    trials = list(ready.values())
    choices = _choice_scores(trials, lm) if any_reads(outcomes, "choices") else [None] * len(trials)
    latency = (time.perf_counter() - begun) / len(trials)
    made = []
    for (n, trial), of_choices in zip(ready.items(), choices, strict=True):
        after = scores[n].next_token
        found = score_outcomes(
            outcomes,
            trial.item,
            scores[n],
            ends=None if after is None else lm.codec.ends_answer(after),
            completion=trial.completion,
            choices=of_choices,
            where=trial.where,
        )
        made.append(
            replace(
                trial,
                unit=number,
                outcomes=found.values,
                extracted=found.extracted,
                latency_s=latency
                + sum(texts[trial.key, p].seconds for p in PARTS if (trial.key, p) in texts),
                started_at=started,
            )
        )
    return made


def _choice_scores(trials: Sequence[Trial], lm: LocalModel) -> list[dict[str, TokenScores]]:
    asked = {
        (n, choice): lm.codec.encode(
            trial.prompt, answer=trial.prompt.separator + choice, where=f"{trial.where}, choice {choice!r}"
        )
        for n, trial in enumerate(trials)
        for choice in trial.item.choices
    }
    result: list[dict[str, TokenScores]] = [{} for _ in trials]
    for (n, choice), scores in zip(asked, score(lm, list(asked.values())), strict=True):
        result[n][choice] = scores
    return result


def load_trials(study: Study, folder: str | Path) -> pd.DataFrame:
    """Read a study's trial table from its folder.

    Parameters
    ----------
    study, folder
        As for `run_study`, which wrote there.

    Returns
    -------
    pandas.DataFrame
        One row a trial.

    Raises
    ------
    StudyError
        If the study names what its items, arms or graph do not have.
    ModelError
        If its arms were answered by different models behind one endpoint.
    StoreError
        If the study was not run, was changed since, ran on another model, or its run is not complete: trials
        of two versions or two models are never mixed.
    """
    path = Path(folder) / "trials.sqlite"
    pool = items_of(study)
    check_study(study, pool)
    with TrialStore(path, write=False) as store:
        fingerprint, model = store.latest(study.name)
        if fingerprint != study_fingerprint(study, pool):
            raise StoreError(
                f"{path} holds trials of another version of study {study.name!r}",
                hint="run the study again: whyprompt run computes what this version needs",
            )
        if (name := store.model_name(model)) != study.model.name:
            raise StoreError(
                f"{path} was last run on the model {name!r}, and the study names {study.model.name!r}",
                hint="run the study again: whyprompt run computes what this model needs",
            )
        done, wanted = len(store.done_trials(fingerprint, model)), study.n_trials(len(pool.items))
        if done < wanted:
            raise StoreError(
                f"{path} holds {done} of the {wanted} trials of study {study.name!r}",
                hint="run the study again: whyprompt run goes on where it stopped",
            )
        frame = store.frame(fingerprint, model)
    drift(frame)
    return without_overflow(study, frame)


def verify_study(
    study: Study,
    folder: str | Path,
    *,
    sample: int = 32,
    tolerance: float = 1e-3,
    progress: Progress = silent,
) -> Check:
    """Score a sample of stored trials again, each alone, and report the largest difference.

    Parameters
    ----------
    study, folder, progress
        As for `run_study`.
    sample : int, default 32
        How many trials, spread evenly over the table.
    tolerance : float, default 1e-3
        In units of log-probability.

    Returns
    -------
    Check
        Its estimate is the largest difference, with the trial that has it.

    Raises
    ------
    StoreError
        If there are no trials, or ``log_prob`` is not among the outcomes.
    """
    if isinstance(study.model, EndpointSettings):
        raise StoreError(
            "run --verify scores again on this machine, and the model is behind an endpoint",
            hint="its replies are stored as they came: repetitions (reps) show what moves",
        )
    if not any(o.name == "log_prob" and o.call is None for o in study.outcomes):
        raise StoreError("run --verify compares log-probabilities, and 'log_prob' is not among the outcomes")
    stored = load_trials(study, folder)
    lm = load_model(**study.model.model_dump())
    plan = make_plan(study, runnable_items(study), lm.codec, budget=lm.token_budget)
    values = stored.set_index(["item_id", "arm", "rep"])["log_prob"].to_dict()
    kept = [t for t in plan.trials if t.key in values and t.encoded is not None]
    if not kept:
        raise StoreError("no stored trial can be scored again: every arm writes its own chain first")
    step = max(1, len(kept) // sample)
    chosen = kept[::step][:sample]
    worst, where = 0.0, chosen[0].where
    for n, trial in enumerate(chosen):
        progress(n, len(chosen), "verifying")
        assert trial.encoded is not None
        again = score(lm, [trial.encoded])[0].total
        if (difference := abs(again - values[trial.key])) > worst:
            worst, where = difference, trial.where
    progress(len(chosen), len(chosen), "verifying")
    return Check(
        name="stored log-probabilities",
        verdict="passes" if worst <= tolerance else "fails",
        overall=Estimate(label=where, estimate=worst, n_used=len(chosen)),
        settings={"tolerance": tolerance},
        sentence=(
            f"{counted(len(chosen), 'trial')} scored again, each alone: log-probabilities differ by at most"
            f" {worst:.1e} ({where}); tolerance {tolerance:.0e}."
        ),
    )
