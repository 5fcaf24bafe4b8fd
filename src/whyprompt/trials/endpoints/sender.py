"""Asks an endpoint for what a plan lacks: alone or as batches, and writes what comes of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from whyprompt._progress import time_words
from whyprompt.errors import InputError, WhypromptError
from whyprompt.trials.endpoints.batch import Collector, PendingError, Settled, send_batches
from whyprompt.trials.endpoints.plan import OVERFLOW, blocks

if TYPE_CHECKING:
    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.trials import Asker
    from whyprompt.trials.plan import Trial, TrialPlan
    from whyprompt.trials.result import Progress
    from whyprompt.trials.store import TrialStore

# Rows can be made again from the replies: they are written some at a time.
_ROWS = 32
_SHOWN_EVERY_S = 1.0


class Sender:
    """Asks for what is missing, a few trials at a time, and writes what comes of it."""

    def __init__(
        self,
        client: Client,
        store: TrialStore,
        plan: TrialPlan,
        model: str,
        asker: Asker,
        progress: Progress,
    ) -> None:
        self.client = client
        self.new = 0
        self._store = store
        self._plan = plan
        self._model = model
        self._asker = asker
        self._progress = progress
        self._rows: list[Trial] = []
        self._done = self._failed = 0
        self._begun = time.monotonic()
        self._shown = 0.0

    async def send_all(self, dropped: set[str]) -> None:
        """Ask for every trial that is not there; one that failed is asked for again."""
        plan = self._plan
        done = self._store.done_trials(plan.fingerprint, self._model, failed=False)
        waiting = [
            (unit, plan.trials[n])
            for unit, members in enumerate(blocks(plan))
            for n in members
            if plan.trials[n].key not in done
        ]
        self._done = len(plan.trials) - len(waiting)
        if self.client.settings.batch:
            unsent = await self._send_batches([t for _, t in waiting if t.item.item_id not in dropped])
            if plan.study.missing.batch == "missing":
                self._asker = self._asker.with_client(Settled(self.client, unsent))
        queue = iter(waiting)

        async def worker() -> None:
            for unit, trial in queue:
                if trial.item.item_id in dropped:
                    made = self._asker.without(trial, OVERFLOW)
                else:
                    made = await self._asker.ask(trial)
                self._keep(replace(made, unit=unit))

        async def guarded() -> None:
            try:
                await worker()
            except WhypromptError as error:
                # The others finish what is on its way: it is paid for.
                self.client.stop(error)

        workers = min(self.client.settings.limits.concurrency, len(waiting))
        await asyncio.gather(*(guarded() for _ in range(workers)))
        if (error := self.client.stopped) is not None:
            self.flush()
            # What failed is asked for again.
            there = self._done - self._failed
            left = len(plan.trials) - there
            kind = type(error) if isinstance(error, InputError) else WhypromptError
            message = f"{error.message}; {there} of {len(plan.trials)} trials are stored, {left} are left"
            message = "; ".join([message, *self.client.purse.doubts()])
            raise kind(message, hint=error.hint)
        self._progress(len(plan.trials), len(plan.trials), "done")

    async def _send_batches(self, trials: list[Trial]) -> set[str]:
        """Send as batches what the trials lack, a step of each at a time: a chain comes before its answer.

        Returns
        -------
        set of str
            Requests that the budget has no room for.
        """
        asked: set[str] = set()
        unsent: set[str] = set()
        while True:
            collector = Collector(self.client)
            asker = self._asker.with_client(collector)
            pending = []
            for trial in trials:
                try:
                    await asker.gather(trial)
                except PendingError:
                    pending.append(trial)
            trials = pending
            missing = [r for key, r in collector.missing.items() if key not in asked]
            if not missing:
                return unsent
            asked |= {r.hash for r in missing}
            unsent |= await send_batches(self.client, missing, self._waits)

    def _waits(self, text: str) -> None:
        self._progress(self._done, len(self._plan.trials), text)

    def _keep(self, trial: Trial) -> None:
        self._rows.append(trial)
        self._done += 1
        self._failed += trial.error not in {None, OVERFLOW}
        self.new += 1
        if len(self._rows) >= _ROWS:
            self.flush()
        moment = time.monotonic()
        if moment - self._shown > _SHOWN_EVERY_S:
            self._shown = moment
            total = len(self._plan.trials)
            left = (moment - self._begun) / self.new * (total - self._done)
            spent = self.client.purse.said()
            self._progress(self._done, total, f"asking, {spent} spent, {time_words(left)} left")

    def flush(self) -> None:
        """Write the rows that are made."""
        rows, self._rows = self._rows, []
        self._store.add(self._plan.fingerprint, self._model, trials=rows)
