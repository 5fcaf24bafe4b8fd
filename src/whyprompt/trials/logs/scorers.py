"""Which scorer is the outcome, and whether its means are those that the logs state."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt._words import format_number
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.trials.readers.record import Log, Scalar, Stated

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

# A log may state a mean to three decimals.
_ROUNDED = 6e-4
_SLIGHT = 1e-9


class Scorer(NamedTuple):
    """The scorer taken, the column of its outcome, and what to say of the choice."""

    name: str
    column: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def base(name: str) -> tuple[str, str]:
    """Part a scorer from its filter, "" where it has none.

    >>> base("exact_match,flexible-extract"), base("match")
    (('exact_match', 'flexible-extract'), ('match', ''))
    """
    stem, comma, rest = name.rpartition(",")
    return (stem.strip(), rest.strip()) if comma else (rest.strip(), "")


def find_scorer(
    scores: Mapping[str, Floats], arm: Ints, names: Sequence[str], asked: str | None, taken: Sequence[str]
) -> Scorer:
    """Say which scorer is meant; `arm` (n,) has each trial's place in `names`, -1 for none.

    Of one scorer's filters the one under which the fewest arms have no point at all is taken, unless one was
    asked for. `taken` are columns with another meaning.

    Raises
    ------
    DataError
        If there is no such scorer, or nothing was asked for and there are several; the message lists them.
    """
    every = list(scores)
    chosen = every if asked is None else [s for s in every if _same(s, asked)]
    if not chosen and asked is not None:
        chosen = [s for s in every if base(s)[0] == asked.strip()]
        if not chosen:
            raise DataError(f"there is no scorer {asked!r} in these logs", hint=f"one of: {'; '.join(every)}")
    notes: list[str] = []
    empty = {s: _without_a_point(scores[s], arm, names) for s in every}
    if len(chosen) > 1 and len({base(s)[0] for s in chosen}) == 1:
        fewest = min(len(empty[s]) for s in chosen)
        best = [s for s in chosen if len(empty[s]) == fewest]
        if len(best) > 1 and not _equal([scores[s] for s in best]):
            raise _ambiguous(best)
        others = [base(s)[1] or "none" for s in chosen if s != best[0]]
        notes.append(
            f"of its filters {base(best[0])[1] or 'none'!r} was taken, not {' or '.join(map(repr, others))},"
            + (
                " under which an arm has no point at all"
                if any(len(empty[s]) > fewest for s in chosen)
                else " with the same scores"
            )
        )
        chosen = best[:1]
    if len(chosen) > 1:
        if not _equal([scores[s] for s in chosen]):
            raise _ambiguous(chosen)
        notes.append(f"the scorers {', '.join(map(repr, chosen))} agree in every trial")
        chosen = [min(chosen, key=lambda s: (s in {"score", "pass", "success"}, chosen.index(s)))]
    name = chosen[0]
    stem, filtered = base(name)
    better = [s for s in every if base(s)[0] == stem and s != name and len(empty[s]) < len(empty[name])]
    warnings = [
        f"under the filter {filtered or 'none'!r} every outcome of {' and of '.join(map(repr, empty[name]))}"
        f" is 0, and under {base(s)[1] or 'none'!r} not: the filter does not read that arm's answers, and the"
        f" difference is its doing (scorer {s!r} takes the other)"
        for s in better[:1]
    ]
    column = stem if stem not in taken else f"score_{stem}"
    return Scorer(name=name, column=column, notes=tuple(notes), warnings=tuple(warnings))


def check_scored(
    name: str, scores: Mapping[str, Floats], arm: Ints, foreign: NDArray[np.bool_], names: Sequence[str]
) -> None:
    """Refuse a scorer that some arm was never scored by; `foreign` (n,) are trials that only others scored.

    Raises
    ------
    DataError
        Which lists the scorers of each such arm.
    """
    without = [k for k in range(len(names)) if (here := arm == k).any() and foreign[here].all()]
    if without:
        of = {
            names[k]: [s for s, values in scores.items() if not np.isnan(values[arm == k]).all()]
            for k in without
        }
        listed = ", ".join(f"{a!r} (scored by {' and '.join(map(repr, some))})" for a, some in of.items())
        raise DataError(
            f"the scorer {name!r} scored no trial of {listed}: arms with other scorers cannot be compared",
            hint="score them alike, choose a scorer that all of them have, or leave their logs out",
        )


def _same(name: str, asked: str) -> bool:
    return name == asked or base(name) == base(asked)


def _ambiguous(names: Sequence[str]) -> DataError:
    return DataError(
        f"these logs have more than one scorer: {'; '.join(names)}", hint="say which with scorer='NAME'"
    )


def _equal(columns: Sequence[Floats]) -> bool:
    return all(np.array_equal(columns[0], column, equal_nan=True) for column in columns[1:])


def _without_a_point(values: Floats, arm: Ints, names: Sequence[str]) -> list[str]:
    """Give the arms of which every score is 0."""
    known = np.isfinite(values)
    return [
        name for k, name in enumerate(names) if (here := known & (arm == k)).any() and not values[here].any()
    ]


def check_stated(
    log: Log,
    scorer: str,
    values: Floats,
    setting: Ints,
    settings: Sequence[Mapping[str, Mapping[str, Scalar]]],
    *,
    complete: bool,
) -> tuple[int, list[str]]:
    """Hold the means that a log states against those of its trials: how many were, and what to warn of.

    `values` (n,) are the log's scores and `setting` the place of each trial's in `settings`; `complete` says
    that every trial has a score and was run once, so that there is but one mean that can be meant.

    Raises
    ------
    DataError
        If a complete log states another mean than that of its trials.
    """
    checked, warnings = 0, []
    for stated in log.stated:
        if not _same(stated.scorer, scorer):
            continue
        meant = np.array([_matches(one, stated) for one in settings], dtype=bool)
        here = meant[setting] & np.isfinite(values)
        if not here.any():
            continue
        checked += 1
        mean, n = float(values[here].mean()), int(here.sum())
        allowed = _ROUNDED if round(stated.mean, 4) == stated.mean else _SLIGHT * max(1.0, abs(stated.mean))
        if abs(mean - stated.mean) <= allowed:
            continue
        text = (
            f"{log.path}: the log states a mean {scorer!r} of {format_number(stated.mean, digits=4)}"
            + (f" over {stated.n}" if stated.n is not None else "")
            + f", and its {n} trials with a score have {format_number(mean, digits=4)}"
        )
        if complete and stated.n in {None, n}:
            raise DataError(text, hint="the log was changed or cut after it was written: take the original")
        warnings.append(text)
    return checked, warnings


def _matches(settings: Mapping[str, Mapping[str, Scalar]], stated: Stated) -> bool:
    return all(any(v.get(path) == value for v in settings.values()) for path, value in stated.where.items())
