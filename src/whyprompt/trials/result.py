"""What a study takes, and what a run of it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from whyprompt._display import Shown
from whyprompt._words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from whyprompt.results import Check

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is in all, and what is being done."""


@dataclass(frozen=True, kw_only=True)
class RunResult(Shown):
    """What a study takes, and what a run of it did.

    Parameters
    ----------
    study : str
        Its fingerprint.
    trials, items : int
        Of the whole study.
    arms : mapping of str to int
        The tokens of each arm's prompts and answers; with the longest chain, where a model writes its own.
    completion_tokens : int
        The most that the model writes itself: completions that are read, and chains, each at its longest.
    new_trials : int
        Those that this run computed: none in a dry run.
    model : str or None
        Its fingerprint; None of a dry run, as the store is.
    missing : mapping of str to int
        Trials without an outcome by reason, but for those that the study's `missing` provides for.
    store : Path or None
        The SQLite file.
    notices : tuple of str
        What changed since the store's last study of this name, and what must be said of what was written.
    seconds : float
        Spent on the trials, after the model was loaded.
    checks : tuple of Check
        Of an endpoint: what its probe saw, a row each.
    paid : mapping of str to float
        Of an endpoint: requests, replies, tokens, money, and what may have been paid for nothing.
    currency : str
        Of the money.
    """

    study: str
    trials: int
    items: int
    arms: Mapping[str, int]
    completion_tokens: int = 0
    new_trials: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    model: str | None = None
    store: Path | None = None
    notices: tuple[str, ...] = ()
    seconds: float = 0.0
    checks: tuple[Check, ...] = ()
    paid: Mapping[str, float] = field(default_factory=dict)
    currency: str = ""

    @property
    def sentence(self) -> str:
        """What it takes, or what was done, in words."""
        if self.store is None:
            said = (counted(self.trials, "trial"), counted(self.items, "item"), counted(self.tokens, "token"))
            return "{} of {}, {}.".format(*said)
        kept = self.trials - self.new_trials
        head = f"{counted(self.trials, 'trial')} in {self.store}: {self.new_trials} new"
        lack = sum(self.missing.values())
        left = f"; {lack} without an outcome" if lack else ""
        return f"{head} in {self.seconds:.1f} s, {kept} kept{left}."

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        return ["arm", "tokens"], [[arm, f"{tokens:,}"] for arm, tokens in self.arms.items()]

    def _remarks(self) -> tuple[str, ...]:
        return self.notices

    @property
    def tokens(self) -> int:
        """Tokens of all arms."""
        return sum(self.arms.values())


def silent(_done: int, _total: int, _text: str) -> None:
    """Report nothing."""


def now() -> str:
    """Give this moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
