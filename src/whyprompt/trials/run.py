"""Runs what is missing of a study, and only that."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from whyprompt._words import counted
from whyprompt.errors import DataError, StoreError
from whyprompt.results import Check, Estimate
from whyprompt.trials.check import check_study, runnable_items
from whyprompt.trials.items.load import load_items
from whyprompt.trials.manifest import save_manifest, seed_everything
from whyprompt.trials.models.generation import CompletionRequest, complete
from whyprompt.trials.models.load import load_codec, load_model, usable_device
from whyprompt.trials.models.scoring import RootCache, ScoreRequest, plan_scoring, score, score_pack
from whyprompt.trials.outcomes.score import (
    Observed,
    needs_choices,
    needs_completion,
    needs_look_ahead,
    score_outcomes,
)
from whyprompt.trials.plan import TrialPlan, Unit, gold_request, make_plan, study_fingerprint
from whyprompt.trials.store import ItemRow, TrialRow, TrialStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from whyprompt.study import Study
    from whyprompt.trials.items.item import Item
    from whyprompt.trials.models.local import LocalModel
    from whyprompt.trials.models.scoring import TokenScores
    from whyprompt.trials.plan import PlannedTrial

__all__ = [
    "DryRun",
    "Progress",
    "RunResult",
    "dry_run",
    "load_trials",
    "run_study",
    "verify_study",
]

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is in all, and what is being done."""

_CPU_BUDGET = 768


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a study would take."""

    trials: int
    items: int
    tokens: int
    arms: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run did.

    Parameters
    ----------
    study, model : str
        Fingerprints.
    trials, new_trials : int
        All trials of the study, and those that this run computed.
    store : Path
        The SQLite file.
    notices : tuple of str
        What changed since the store's last study of this name.
    seconds : float
        Spent on the trials, after the model was loaded.
    """

    study: str
    model: str
    trials: int
    new_trials: int
    store: Path
    notices: tuple[str, ...]
    seconds: float


def _silent(_done: int, _total: int, _text: str) -> None:
    """Report nothing."""


def dry_run(study: Study) -> DryRun:
    """Count a study's trials and tokens without loading the model's weights.

    Raises
    ------
    InputError
        Whatever :func:`run_study` would refuse.
    """
    pool = runnable_items(study)
    codec = load_codec(study.model.name, revision=study.model.revision)
    usable_device(study.model.device)
    plan = make_plan(study, pool, codec, budget=_CPU_BUDGET)
    arms = {
        arm: sum(
            len(t.encoded.ids) + len(t.encoded.answer_ids)
            if t.encoded is not None
            else len(codec.tokens(t.prompt.reasoning_first or "")) + study.generation.max_reasoning_tokens
            for t in plan.trials
            if t.arm == arm
        )
        for arm in study.arms
    }
    return DryRun(trials=len(plan.trials), items=len(plan.pool.items), tokens=sum(arms.values()), arms=arms)


def run_study(
    study: Study,
    folder: str | Path,
    *,
    text: str | None = None,
    progress: Progress = _silent,
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
    progress(0, 0, "loading the model")
    with TrialStore(path, write=True) as store:
        lm = load_model(
            study.model.name,
            revision=study.model.revision,
            device=study.model.device,
            dtype=study.model.dtype,
            threads=study.model.threads,
        )
        plan = make_plan(study, pool, lm.codec, budget=lm.token_budget)
        seed_everything(study.seeds.sampling)
        started = _now()
        notices = store.begin(
            study=plan.fingerprint,
            name=study.name,
            spec=plan.spec,
            model=lm.fingerprint,
            model_name=lm.files.name,
            detail={
                "name": lm.files.name,
                "files": lm.files.sha256,
                "dtype": str(lm.dtype),
                "device": lm.device.type,
            },
            started_at=started,
        )
        if lm.dtype.itemsize < 4:
            notices = [*notices, f"half precision, {lm.notes[0]}; the default is float32"]
        begun = time.perf_counter()
        _measure_items(store, plan, lm, progress)
        # Written before and after: a run that is killed leaves a manifest beside what it computed.
        save_manifest(folder, plan, lm, started_at=started, text=text, notices=notices)
        new = _run_units(store, plan, lm, progress)
        seconds = time.perf_counter() - begun
        save_manifest(folder, plan, lm, started_at=started, text=text, notices=notices, new_trials=new)
        store.check_there()
    return RunResult(
        study=plan.fingerprint,
        model=lm.fingerprint,
        trials=len(plan.trials),
        new_trials=new,
        store=path,
        notices=tuple(notices),
        seconds=seconds,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _measure_items(store: TrialStore, plan: TrialPlan, lm: LocalModel, progress: Progress) -> None:
    """Measure every item's own covariates: length, and how familiar the model finds the question."""
    done = store.done_items(plan.fingerprint, lm.fingerprint)
    items = plan.pool.items
    wanted: set[str] = set(plan.study.covariates)
    ids = [lm.codec.tokens(item.question, special=True) for item in items]
    if "question_perplexity" in wanted:
        # The first token has nothing before it where the tokenizer sets no beginning: it is not scored.
        requests = [ScoreRequest(i, 1) for i in ids if len(i) > 1]
        which = [n for n, i in enumerate(ids) if len(i) > 1]
        short = next((items[n].item_id for n, i in enumerate(ids) if len(i) < 2), None)
        if short is not None:
            raise DataError(
                f"item {short!r}: its question is one token, which has no perplexity",
                hint="leave question_perplexity out of the study's covariates",
            )
        packs = plan_scoring(lm, requests)
    else:
        requests, which, packs = [], [], []
    units = [[which[m] for m in pack.members] for pack in packs] or [list(range(len(items)))]
    cache = RootCache()
    count = len(done)
    for number, unit in enumerate(units):
        if all(items[n].item_id in done for n in unit):
            continue
        progress(count, len(items), "measuring the items")
        scores: dict[int, TokenScores] = {}
        if packs:
            scores = {which[i]: s for i, s in score_pack(lm, requests, packs[number], cache)}
        store.add(
            plan.fingerprint,
            lm.fingerprint,
            [
                _item_row(items[n], n, len(lm.codec.tokens(items[n].question)), scores.get(n), wanted)
                for n in unit
                if items[n].item_id not in done
            ],
        )
        count += len(unit)
    progress(len(items), len(items), "measuring the items")


def _item_row(
    item: Item, position: int, tokens: int, scores: TokenScores | None, wanted: set[str]
) -> ItemRow:
    measured: dict[str, object] = {}
    if "question_tokens" in wanted:
        measured["question_tokens"] = tokens
    if scores is not None:
        measured["question_perplexity"] = math.exp(-scores.total / len(scores.log_probs))
    return ItemRow(
        item_id=item.item_id,
        position=position,
        task_type=item.task_type,
        difficulty=item.difficulty,
        cluster=item.cluster or item.item_id,
        question=item.question,
        answer=item.answer,
        covariates={**measured, **item.covariates},
    )


def _run_units(store: TrialStore, plan: TrialPlan, lm: LocalModel, progress: Progress) -> int:
    done = store.done_trials(plan.fingerprint, lm.fingerprint)
    count, new = len(done), 0
    cache = RootCache()
    for number, unit in enumerate(plan.units):
        trials = [plan.trials[n] for n in unit.trials]
        if all(t.key in done for t in trials):
            continue
        progress(count, len(plan.trials), f"arm {trials[0].arm}")
        # Another version may have laid the units otherwise: a trial that is there stays as it is.
        rows = [
            row
            for row in _run_unit(plan, unit, number, lm, cache)
            if (row.item_id, row.arm, row.rep) not in done
        ]
        store.add(plan.fingerprint, lm.fingerprint, rows)
        count += len(rows)
        new += len(rows)
    progress(len(plan.trials), len(plan.trials), "done")
    return new


def _run_unit(plan: TrialPlan, unit: Unit, number: int, lm: LocalModel, cache: RootCache) -> list[TrialRow]:
    started, begun = _now(), time.perf_counter()
    outcomes = plan.study.outcomes
    trials = _with_chains(plan, [plan.trials[n] for n in unit.trials], lm)
    scores, ends = _gold_scores(plan, unit, trials, lm, cache)
    choices = _choice_scores(trials, lm) if needs_choices(outcomes) else [None] * len(trials)
    completions: list[tuple[str, int]] | None = None
    if needs_completion(outcomes):
        settings = plan.study.generation
        made = complete(
            lm,
            [
                CompletionRequest(t.encoded.ids, t.temperature, t.seed)
                for t in trials
                if t.encoded is not None
            ],
            max_new_tokens=settings.max_new_tokens,
            stop=settings.stop,
        )
        completions = [(c.text, c.n_tokens) for c in made]
    latency = (time.perf_counter() - begun) / len(trials)
    rows = []
    for n, trial in enumerate(trials):
        assert trial.encoded is not None
        completion = completions[n] if completions is not None else (None, None)
        values = score_outcomes(
            outcomes,
            trial.item,
            Observed(scores=scores[n], ends=ends[n], completion=completion[0], choices=choices[n]),
            where=trial.where,
        )
        rows.append(
            TrialRow(
                item_id=trial.item.item_id,
                arm=trial.arm,
                rep=trial.rep,
                unit=number,
                prompt=trial.prompt.text,
                prompt_tokens=len(trial.encoded.ids),
                completion=completion[0],
                completion_tokens=completion[1],
                outcomes=values,
                temperature=trial.temperature,
                seed=trial.seed,
                latency_s=latency,
                started_at=started,
            )
        )
    return rows


def _with_chains(plan: TrialPlan, trials: Sequence[PlannedTrial], lm: LocalModel) -> list[PlannedTrial]:
    """Let the model write its own chain where an arm asks for it, and put it into the prompt."""
    waiting = [t for t in trials if t.encoded is None]
    if not waiting:
        return list(trials)
    chains = complete(
        lm,
        [
            CompletionRequest(
                lm.codec.tokens(t.prompt.reasoning_first or "", special=not t.prompt.chat),
                t.temperature,
                # A stream of its own: the completion after the chain draws from the trial's seed.
                t.seed ^ 1,
            )
            for t in waiting
        ],
        max_new_tokens=plan.study.generation.max_reasoning_tokens,
    )
    made = {t.key: c.text for t, c in zip(waiting, chains, strict=True)}
    ready = []
    for trial in trials:
        if trial.key not in made:
            ready.append(trial)
            continue
        prompt = trial.prompt.with_chain(made[trial.key] or "...")
        ready.append(replace(trial, prompt=prompt, encoded=lm.codec.encode(prompt, where=trial.where)))
    return ready


def _gold_scores(
    plan: TrialPlan, unit: Unit, trials: Sequence[PlannedTrial], lm: LocalModel, cache: RootCache
) -> tuple[list[TokenScores], list[bool | None]]:
    ahead = needs_look_ahead(plan.study.outcomes)
    requests = {n: gold_request(t, look_ahead=ahead) for n, t in zip(unit.trials, trials, strict=True)}
    found: dict[int, TokenScores] = {}
    if unit.packs:
        for pack in unit.packs:
            found.update(score_pack(lm, requests, pack, cache))
    else:
        found = dict(zip(unit.trials, score(lm, list(requests.values())), strict=True))
    scores = [found[n] for n in unit.trials]
    ends = [None if s.next_token is None else lm.codec.ends_answer(s.next_token) for s in scores]
    return scores, ends


def _choice_scores(trials: Sequence[PlannedTrial], lm: LocalModel) -> list[dict[str, TokenScores] | None]:
    keys: list[tuple[int, str]] = []
    requests: list[ScoreRequest] = []
    for n, trial in enumerate(trials):
        for choice in trial.item.choices:
            encoded = lm.codec.encode(
                trial.prompt,
                answer=trial.prompt.separator + choice,
                where=f"{trial.where}, choice {choice!r}",
            )
            keys.append((n, choice))
            requests.append(ScoreRequest(encoded.ids + encoded.answer_ids, len(encoded.ids)))
    result: list[dict[str, TokenScores] | None] = [{} for _ in trials]
    for (n, choice), scores in zip(keys, score(lm, requests), strict=True):
        mine = result[n]
        assert mine is not None
        mine[choice] = scores
    return result


def load_trials(study: Study, folder: str | Path) -> pd.DataFrame:
    """Read a study's trial table from its folder.

    Parameters
    ----------
    study : Study
    folder : str or Path
        Where :func:`run_study` wrote.

    Returns
    -------
    pandas.DataFrame
        One row a trial.

    Raises
    ------
    StudyError
        If the study names what its items, arms or graph do not have.
    StoreError
        If the study was not run, was changed since, ran on another model, or its run is not complete: trials
        of two versions or two models are never mixed.
    """
    path = Path(folder) / "trials.sqlite"
    pool = load_items(study.items, seed=study.seeds.items)
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
        return store.frame(fingerprint, model)


def verify_study(
    study: Study,
    folder: str | Path,
    *,
    sample: int = 32,
    tolerance: float = 1e-3,
    progress: Progress = _silent,
) -> Check:
    """Score a sample of stored trials again, each alone, and report the largest difference.

    Parameters
    ----------
    study : Study
    folder : str or Path
    sample : int, default 32
        How many trials, spread evenly over the table.
    tolerance : float, default 1e-3
        In units of log-probability.
    progress : callable, optional

    Returns
    -------
    Check
        Its estimate is the largest difference, with the trial that has it.

    Raises
    ------
    StoreError
        If there are no trials, or ``log_prob`` is not among the outcomes.
    """
    if not any(o.name == "log_prob" and o.call is None for o in study.outcomes):
        raise StoreError("run --verify compares log-probabilities, and 'log_prob' is not among the outcomes")
    stored = load_trials(study, folder)
    lm = load_model(
        study.model.name,
        revision=study.model.revision,
        device=study.model.device,
        dtype=study.model.dtype,
        threads=study.model.threads,
    )
    plan = make_plan(study, runnable_items(study), lm.codec, budget=lm.token_budget)
    values = {
        (i, a, int(r)): float(v)
        for i, a, r, v in zip(
            stored["item_id"], stored["arm"], stored["rep"], stored["log_prob"], strict=True
        )
    }
    kept = [t for t in plan.trials if t.key in values and t.encoded is not None]
    if not kept:
        raise StoreError("no stored trial can be scored again: every arm writes its own chain first")
    step = max(1, len(kept) // sample)
    chosen = kept[::step][:sample]
    worst, where = 0.0, chosen[0].where
    for n, trial in enumerate(chosen):
        progress(n, len(chosen), "verifying")
        assert trial.encoded is not None
        ids = trial.encoded.ids + trial.encoded.answer_ids
        again = score(lm, [ScoreRequest(ids, len(trial.encoded.ids))])[0].total
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
