"""A model opened again by other processes: they compute pairs as it is done here."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from whyprompt._workers.place import crew_size
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.runner import Runner, WorldCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.routes import Path
    from whyprompt.mediation.engine.sites import Site
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import PairOutcomes

    Unit = tuple[Sequence[Sequence[Site]] | Sequence[Sequence[Path]], Sequence[PromptPair]]

# How a worker gets the model, which itself is not sent about. Nowhere, unless a caller says so.
_loader: ContextVar[Callable[[], Any] | None] = ContextVar("whyprompt_model_loader", default=None)


@contextmanager
def model_from(loader: Callable[[], Any]) -> Iterator[None]:
    """Let workers get the model of what is computed inside the block by a function that can be pickled."""
    token = _loader.set(loader)
    try:
        yield
    finally:
        _loader.reset(token)


def goes_apart() -> bool:
    """Whether there are workers around, and they can get the model."""
    return crew_size() > 0 and _loader.get() is not None


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a model was opened here, and what was found of it: it is opened alike elsewhere."""

    loader: Callable[[], Any]
    check: tuple[Sequence[int], Sequence[int]]
    item: str
    max_extra_bytes: int
    packs_up_to: int
    at_once: bool
    whole_rows: bool
    least_row_bytes: int
    plain_head: bool
    by_differences: bool

    @classmethod
    def of(cls, runtime: ModelRuntime, pairs: Sequence[PromptPair]) -> Self:
        """Describe a runtime that was opened for some pairs."""
        loader = _loader.get()
        if loader is None:
            raise MediationError("workers do not know how to get the model")
        ids, answer, item = longest_of(pairs)
        return cls(
            loader=loader,
            check=(ids, answer),
            item=item,
            max_extra_bytes=runtime.max_extra_bytes,
            packs_up_to=runtime.packs_up_to,
            at_once=runtime.at_once,
            whole_rows=runtime.whole_rows,
            least_row_bytes=runtime.least_row_bytes,
            plain_head=runtime.unembedding is not None,
            by_differences=runtime.by_differences,
        )

    @contextmanager
    def opened(self) -> Iterator[ModelRuntime]:
        """Open the model."""
        from whyprompt.mediation.engine.opening import model_runtime

        with model_runtime(
            self.loader(), check=self.check, item=self.item, max_extra_bytes=self.max_extra_bytes
        ) as runtime:
            yield replace(
                runtime,
                packs_up_to=self.packs_up_to,
                at_once=self.at_once,
                whole_rows=self.whole_rows,
                least_row_bytes=self.least_row_bytes,
                unembedding=runtime.unembedding if self.plain_head else None,
                by_differences=self.by_differences,
            )


@dataclass(frozen=True, kw_only=True)
class PairWork:
    """The work of running packs of pairs; a unit has the sets of sites too, for a search takes many."""

    opening: Opening
    like: dict[str, Any]
    """The runner's options."""
    cache_bytes: int | None

    @classmethod
    def of(cls, runner: Runner, pairs: Sequence[PromptPair]) -> Self:
        """Describe a runner that runs some pairs."""
        return cls(
            opening=Opening.of(runner.runtime, pairs),
            like={name: getattr(runner, name) for name in ("mediator", "directions", "outcome", "tokens")},
            cache_bytes=None if runner.cache is None else runner.cache.max_bytes,
        )

    @contextmanager
    def opened(self) -> Iterator[Callable[[Unit], list[PairOutcomes]]]:
        """Open the model, with room for clean runs where a search comes back to its pairs."""
        with self.opening.opened() as runtime:
            cache = None if self.cache_bytes is None else WorldCache(self.cache_bytes)
            runner = Runner(runtime, (), cache=cache, **self.like)

            def run(unit: Unit) -> list[PairOutcomes]:
                rows, pairs = unit
                return list(replace(runner, rows=rows).run(pairs))

            yield run


def longest_of(pairs: Sequence[PromptPair]) -> tuple[Sequence[int], Sequence[int], str]:
    """Give the longest prompt among some pairs, the answer after it, and its item."""
    longest = max(pairs, key=lambda p: max(len(p.ids0), len(p.ids1)))
    return max(longest.ids0, longest.ids1, key=len), longest.answer_ids, longest.item_id
