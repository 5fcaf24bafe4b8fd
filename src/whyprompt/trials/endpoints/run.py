"""Runs what is missing of a study on an endpoint: what is stored is not asked for, nor paid for, again."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from whyprompt._words import counted, format_number
from whyprompt.study import EndpointSettings
from whyprompt.trials.endpoints.client import connected
from whyprompt.trials.endpoints.codec import EndpointCodec
from whyprompt.trials.endpoints.drift import drift
from whyprompt.trials.endpoints.judges import seated
from whyprompt.trials.endpoints.ledger import Ledger
from whyprompt.trials.endpoints.loop import ran
from whyprompt.trials.endpoints.plan import (
    overflowing,
    refuse_overflow,
    refuse_unable,
    taken,
    wanted_of,
)
from whyprompt.trials.endpoints.probe import doubts, probe
from whyprompt.trials.endpoints.sender import Sender
from whyprompt.trials.endpoints.trials import Asker
from whyprompt.trials.manifest import save_manifest
from whyprompt.trials.plan import make_plan
from whyprompt.trials.result import RunResult, now
from whyprompt.trials.store import TrialStore
from whyprompt.trials.told import told, unanswered

if TYPE_CHECKING:
    from pathlib import Path

    from whyprompt.results import Check
    from whyprompt.study import Study
    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.judges import Bench
    from whyprompt.trials.endpoints.probe import Abilities
    from whyprompt.trials.items.item import Item, ItemPool
    from whyprompt.trials.plan import TrialPlan
    from whyprompt.trials.result import Progress


def _settings(study: Study) -> EndpointSettings:
    assert isinstance(study.model, EndpointSettings)
    return study.model


def probe_study(study: Study) -> tuple[Check, ...]:
    """Try what a study's endpoint, and those of its judges, can do on a few tokens, and keep nothing."""

    async def work() -> tuple[Check, ...]:
        checks: tuple[Check, ...] = ()
        if isinstance(study.model, EndpointSettings):
            async with connected(study.model, Ledger(None)) as client:
                checks = (await probe(client)).checks
        async with seated(study, None) as bench:
            return (*checks, *bench.checks)

    return ran(work)


def dry_endpoint(study: Study, pool: ItemPool) -> RunResult:
    """Probe an endpoint, and count what a study would ask of it and cost at most."""

    async def work() -> RunResult:
        async with connected(_settings(study), Ledger(None)) as client, seated(study, None) as bench:
            abilities, codec, plan, dropped = await _ready(client, study, pool)
            kept = [n for n, t in enumerate(plan.trials) if t.item.item_id not in dropped]
            count = taken(plan, codec, kept)
            batch = study.missing.batch == "missing" and client.settings.batch
            money = client.purse.price(count.prompt_tokens, count.completion_tokens, batch=batch)
            tokens = count.prompt_tokens + count.completion_tokens
            paid: dict[str, float] = {"requests": count.requests, "tokens": tokens}
            return RunResult(
                study=plan.fingerprint,
                trials=len(plan.trials),
                items=len(pool.items),
                arms=count.by_arm,
                completion_tokens=count.completion_tokens,
                checks=(*abilities.checks, *bench.checks),
                paid=paid if money is None else {**paid, "money": money},
                currency=client.purse.currency,
                notices=(*_notices(study, abilities, codec, dropped), *bench.most(pool.items)),
            )

    return ran(work)


def run_endpoint(
    study: Study, pool: ItemPool, folder: Path, *, text: str | None, progress: Progress
) -> RunResult:
    """Run what is missing of a study on an endpoint: `run_study` for such a model."""

    async def work() -> RunResult:
        with TrialStore(folder / "trials.sqlite", write=True) as store:
            progress(0, 0, "probing the endpoint")
            async with connected(_settings(study), Ledger(store)) as client, seated(study, store) as bench:
                return await _run(client, bench, store, study, pool, folder, text, progress)

    return ran(work)


async def _ready(
    client: Client, study: Study, pool: ItemPool
) -> tuple[Abilities, EndpointCodec, TrialPlan, set[str]]:
    """Probe, plan, and refuse what cannot be asked."""
    wanted = wanted_of(study)
    abilities = await probe(client, scoring=wanted.scores or wanted.ending or wanted.choices)
    refuse_unable(study, abilities)
    offers = abilities.offers
    codec = EndpointCodec(client.look_now, offers, chat=abilities.asking.api == "chat")
    plan = make_plan(study, pool, codec, budget=None)
    over = overflowing(plan, codec, offers.context)
    return abilities, codec, plan, refuse_overflow(plan, over, offers.context)


def _fingerprint(settings: EndpointSettings, abilities: Abilities) -> str:
    """Hash what is asked of whom: what decides the replies. Who answered is a column of the table."""
    asking = abilities.asking
    parts = [settings.endpoint, settings.name, asking.api, abilities.scoring, settings.extra]
    parts += [settings.sampling.model_dump(), dict(asking.neutral)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _notices(study: Study, abilities: Abilities, codec: EndpointCodec, dropped: set[str]) -> list[str]:
    notices = [f"the probe leaves in doubt: {line}" for line in doubts(abilities)]
    if _settings(study).batch:
        notices.append(
            "what a batch leaves out is asked for alone, at the full price: the most counts all so"
            if study.missing.batch == "alone"
            else "all goes as batches; what one leaves out has no outcome until the next run sends it again"
        )
    if not codec.tokenizes:
        notices.append("budgets count a token for every byte of a prompt before it goes, and its usage after")
    if dropped:
        items = counted(len(dropped), "item leaves", "items leave")
        notices.append(
            f"{items} every arm, with a prompt beyond the context: the effect is that on the others"
        )
    return notices


async def _run(
    client: Client,
    bench: Bench,
    store: TrialStore,
    study: Study,
    pool: ItemPool,
    folder: Path,
    text: str | None,
    progress: Progress,
) -> RunResult:
    settings = client.settings
    abilities, codec, plan, dropped = await _ready(client, study, pool)
    model, started = _fingerprint(settings, abilities), now()
    detail = {
        "endpoint": settings.endpoint,
        "name": settings.name,
        "api": abilities.asking.api,
        "scoring": abilities.scoring,
        "reported": abilities.model,
    }
    notices = store.begin(
        study=plan.fingerprint,
        name=study.name,
        spec=plan.spec,
        model=model,
        model_name=settings.name,
        detail=detail,
        started_at=started,
    )
    notices += _notices(study, abilities, codec, dropped)
    facts = {
        "model": {**detail, "fingerprint": model, "probe": {c.name: c.sentence for c in abilities.checks}},
        "threads": None,
        "seeds": study.seeds.model_dump(),
    }
    done_items = store.done_items(plan.fingerprint, model)
    items = [
        (n, _measured(study, item, codec))
        for n, item in enumerate(pool.items)
        if item.item_id not in done_items
    ]
    store.add(plan.fingerprint, model, items=items)
    save_manifest(folder, plan, facts, started_at=started, text=text, notices=notices)
    begun = time.perf_counter()
    asker = Asker(client, abilities, codec, plan, bench)
    sender = Sender(client, store, plan, model, asker, progress)
    try:
        await sender.send_all(dropped)
    finally:
        sender.flush()
        save_manifest(
            folder, plan, facts, started_at=started, text=text, notices=notices, new_trials=sender.new
        )
    store.check_there()
    spent = client.ledger.spent()
    table = store.frame(plan.fingerprint, model)
    notices += [*drift(table), *told(study, table)]
    notices += [f"no reply to {said}" for said in asker.failures.values()]
    notices += [*client.purse.doubts(), *bench.spent()]
    if spent.perhaps:
        money = f", {format_number(spent.perhaps_money)} {client.purse.currency}" if settings.price else ""
        notices.append(
            f"{counted(spent.perhaps, 'request')} perhaps paid for without a reply (broken off, or on the way"
            f" when a run ended): at most {counted(spent.perhaps_tokens, 'token')}{money}"
        )
    paid: dict[str, float] = {
        "requests": client.sent,
        "replies": spent.replies,
        "tokens": spent.tokens,
        "perhaps_paid": spent.perhaps,
        "perhaps_tokens": spent.perhaps_tokens,
    }
    if settings.price is not None:
        paid |= {"money": spent.money, "perhaps_money": spent.perhaps_money}
    count = taken(plan, codec)
    return RunResult(
        study=plan.fingerprint,
        trials=len(plan.trials),
        items=len(pool.items),
        arms=count.by_arm,
        new_trials=sender.new,
        missing=unanswered(study, table),
        model=model,
        store=store.path,
        notices=tuple(notices),
        seconds=time.perf_counter() - begun,
        checks=(*abilities.checks, *bench.checks),
        paid=paid,
        currency=client.purse.currency,
    )


def _measured(study: Study, item: Item, codec: EndpointCodec) -> Item:
    if "question_tokens" not in study.covariates:
        return item
    return replace(item, covariates={"question_tokens": len(codec.tokens(item.question)), **item.covariates})
