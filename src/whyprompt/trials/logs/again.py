"""Single trials of logs with their texts, read a second time: nothing is kept of the others."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from whyprompt.trials.logs.result import ReadTrials
    from whyprompt.trials.readers.record import LoggedTrial


def trials_again(found: ReadTrials, places: Iterable[int]) -> dict[int, LoggedTrial]:
    """Give the trials of these rows of the table, by row, as their logs have them.

    Raises `DataError` if the logs are no longer those that were read.
    """
    wanted = {int(found.rows[place]): int(place) for place in places}
    y = found.frame[found.outcome].to_numpy(dtype=float)
    out: dict[int, LoggedTrial] = {}
    for k, trial in enumerate(chain.from_iterable(log.trials() for log in found.logs)):
        if len(out) == len(wanted):
            break
        if k in wanted and trial.scores.get(found.scorer) == y[wanted[k]]:
            out[wanted[k]] = trial
    if len(out) < len(wanted):
        raise _others(found)
    return out


def every_trial_again(found: ReadTrials) -> Iterator[tuple[int, LoggedTrial]]:
    """Give every row of the table with its trial, as the logs have it; raises as `trials_again`."""
    row = {int(k): place for place, k in enumerate(found.rows)}
    y = found.frame[found.outcome].to_numpy(dtype=float)
    for k, trial in enumerate(chain.from_iterable(log.trials() for log in found.logs)):
        if (place := row.pop(k, None)) is None:
            continue
        if not np.isnan(y[place]) and trial.scores.get(found.scorer) != y[place]:
            raise _others(found)
        yield place, trial
    if row:
        raise _others(found)


def _others(found: ReadTrials) -> DataError:
    files = ", ".join(str(log.path) for log in found.logs)
    return DataError(f"a log has other trials than were read: {files}", hint="read the logs again")
