"""A model that is loaded by workers: measured by the first of them, and loaded alike by the others."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from whyprompt._workers.place import crew_size, map_units
from whyprompt.trials.models.load import load_again, load_codec, load_model
from whyprompt.trials.models.parts import MANY_WORKERS, parts_are_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from whyprompt.study import ModelSettings
    from whyprompt.trials.models.local import LocalModel

# The model that this worker holds: one work after another is of the same.
_held: list[LocalModel] = []


@dataclass(frozen=True)
class _Measuring:
    """The work of loading a model for the first time: what it gives is what was found of it."""

    settings: ModelSettings
    many: bool  # of the workers

    @contextmanager
    def opened(self) -> Iterator[Callable[[Any], LocalModel]]:
        lm = load_model(**self.settings.model_dump())
        _held[:] = [replace(lm, parts=self.many and parts_are_exact(lm))]
        yield lambda _: _held[0].described()


def open_model(settings: ModelSettings) -> LocalModel:
    """Load a study's model; where workers do the work it is loaded and measured by one of them.

    It comes without its weights then: this process needs the tokenizer, and what was found of it.
    """
    if not crew_size():
        return load_model(**settings.model_dump())
    found: LocalModel
    [(_, found)] = map_units(_Measuring(settings, crew_size() >= MANY_WORKERS), [None])
    return replace(found, codec=load_codec(settings.name, revision=settings.revision))


def sent(lm: LocalModel) -> LocalModel:
    """Give a model as a work holds it: with its weights for this process, described for workers."""
    return lm if lm.model is not None else lm.described()


def loaded(lm: LocalModel, settings: ModelSettings) -> LocalModel:
    """Give a model with its weights: itself, or, in a worker, that of the same fingerprint, loaded once."""
    if lm.model is not None:
        return lm
    if not (_held and _held[0].described() == lm.described()):
        _held.clear()
        _held.append(
            load_again(
                lm,
                revision=settings.revision,
                device=settings.device,
                device_map=settings.device_map,
                threads=settings.threads,
            )
        )
    return _held[0]


@dataclass(frozen=True)
class Loader:
    """Gives a worker the transformers model of a study: it can be pickled, and the model is loaded once."""

    lm: LocalModel
    settings: ModelSettings

    def __call__(self) -> Any:  # noqa: ANN401 - a transformers model
        """Load it, or give it again."""
        return loaded(self.lm, self.settings).model
