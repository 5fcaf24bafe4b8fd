"""What rows of logs are adjusted for, where no item has both arms: what is known of a question beforehand.

What a log has beside that may have come after the arm. It is left out, and where it would move the estimate
nothing is claimed until somebody says what it is.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.answers.proposal import after_arm
from whyprompt.effects.assumptions import as_taken
from whyprompt.effects.caused import name_words
from whyprompt.effects.effect import estimate_effect
from whyprompt.effects.result import effect_sentence
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import design_matrix
from whyprompt.stats.moved import moved_by
from whyprompt.tables import open_table
from whyprompt.trials.logs.table import TAKEN, own_name
from whyprompt.trials.reading.questions import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.result import EffectResult
    from whyprompt.stats.moved import Moved
    from whyprompt.trials.logs.result import ReadTrials

_COUNTED = ("question_chars", "question_words", "numbers")
MEASURED = (*_COUNTED, "task_type", "difficulty")
"""Columns that are measured of a question, or told of it by every log that has them."""

_CHANCE = "chance_of_treated"
_ONLY = (
    "no item was run under both arms: rows are adjusted for what was measured of the question afterwards"
    " ({}), and nothing says that this is all that decided the arm"
)
# Of the standard error, that a column which nobody spoke of may move the estimate by; and how sure it is that
# more than chance moved it, all such columns together.
_MOVED, _SURE = 0.5, 0.95


def unclear_columns(found: ReadTrials) -> tuple[str, ...]:
    """Name the columns that may not have been known of the question before the arm was chosen.

    What differs between arms of one item was not; what does not is the item's. Where no item has several
    arms a name may say so, and else nothing does: trials of one arm agree in what the arm does too.
    """
    frame = found.frame
    # What a log calls as the table calls other things are names of something, and nothing to adjust for.
    own = {*TAKEN, *map(own_name, TAKEN), found.outcome}
    shared = frame[frame.groupby("item_id")["arm"].transform("nunique") > 1]
    out: list[str] = []
    for name in (n for n in map(str, frame) if n not in own and n not in _COUNTED):
        if len(shared):
            values = shared.groupby("item_id")[name].nunique()
            unclear = bool((values > 1).any())
        else:
            unclear = "_".join(name_words(name.rpartition(".")[2])) not in KNOWN
        out += [name] if unclear else []
    return tuple(out)


def confounders_of(found: ReadTrials, rows: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Part the columns of the rows: to be adjusted for, of which it is not known, and why others are not."""
    unclear = unclear_columns(found)
    own = {*TAKEN, *map(own_name, TAKEN), found.outcome, _CHANCE} - set(MEASURED)
    known = [name for name in map(str, rows) if name not in {*own, *unclear}]
    # Whatever the order of columns, those that most logs have come first.
    known = sorted(known, key=lambda n: (MEASURED.index(n) if n in MEASURED else len(MEASURED), n))
    why = {name: _why_not(name, rows) for name in (*known, *unclear)}
    said = [f"{name!r}: {why[name]}" for name in known if why[name] and _varies(rows, name)]
    return [n for n in known if not why[n]], [n for n in unclear if not why[n]], said


def _why_not(name: str, rows: pd.DataFrame) -> str:
    return after_arm(name, open_table(rows[[name]]).column(name, role="logged"), len(rows))


def _varies(rows: pd.DataFrame, name: str) -> bool:
    return len(rows[name].dropna().unique()) > 1


def named_columns(found: ReadTrials, rows: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Give the table's names of columns that the caller calls as the logs do; refuse what it has not."""
    asked = [names] if isinstance(names, str) else list(names)
    called = {field: column for column, field in found.taken.items() if column in rows}
    out = [name if name in rows else called.get(name, name) for name in asked]
    dull = {"item_id", "arm", "rep", "log", "error", "prompt", "completion", found.outcome}
    if missing := [name for name in out if name not in rows]:
        there = [name for name in map(str, rows) if name not in dull and _varies(rows, name)]
        raise DataError(
            f"the logs have no column {missing[0]!r} that can be adjusted for",
            hint=f"there are: {', '.join(there)}" if there else "name the columns of the table that has it",
        )
    return out


def refuse_gaps(found: ReadTrials, rows: pd.DataFrame, names: Sequence[str], pair: tuple[str, str]) -> None:
    """Refuse columns with gaps: no row is dropped unasked, and no confounder either."""
    gone = {name: n for name in names if (n := int(rows[name].isna().sum()))}
    if not gone:
        return
    listed = " and ".join(
        f"{name!r} has {counted(n, 'missing value')} in {len(rows)} rows" for name, n in gone.items()
    )
    rest = [name for name in names if name not in gone]
    treated, control = pair
    listed_names = shlex.quote(",".join(names))
    outcomes = ":missing_outcome=exclude" if found.frame[found.outcome].isna().any() else ""
    raise DataError(
        f"{listed}: known of a question before it is asked, it may be what decided the arm",
        hint="fill the gaps in the log; or impute them in its table (whyprompt import LOG --out"
        " trials.parquet && whyprompt effect trials.parquet --treatment arm"
        f" --outcome {shlex.quote(found.outcome)} --treated {shlex.quote(treated)}"
        f" --control {shlex.quote(control)} --confounders {listed_names} --impute 20{outcomes})"
        + (f"; or say that the rest confounds them alone: confounders={rest!r}" if rest else ""),
    )


def adjusted(
    found: ReadTrials, rows: pd.DataFrame, asked: dict[str, Any]
) -> tuple[EffectResult, tuple[str, ...]]:
    """Adjust rows for what was known of their questions, and say what was left out, and what it is worth."""
    pair = str(asked["treated"]), str(asked["control"])
    known, unclear, why_not = confounders_of(found, rows)
    if not known:
        raise EstimationError(
            f"no item was run under both {pair[0]!r} and {pair[1]!r}, and the logs say nothing of the items"
            " that could be adjusted for",
            hint=(f"say confounders={unclear!r} if known before the arm was chosen; or " if unclear else "")
            + "run both arms on the same items; or say design='randomized' if a lot decided the arm",
        )
    refuse_gaps(found, rows, known, pair)
    made = estimate_effect(rows, **asked, confounders=known)
    made = replace(made, assumptions=as_taken(made.assumptions))
    said = [_ONLY.format(", ".join(known))]
    if why_not:
        said.append(f"not adjusted for, though known of the question: {'; '.join(why_not)}")
    if unclear:
        made, text = _beside(made, rows, asked, known, unclear)
        said.append(text)
    return made, tuple(said)


def _beside(
    made: EffectResult, rows: pd.DataFrame, asked: Mapping[str, Any], known: list[str], unclear: list[str]
) -> tuple[EffectResult, str]:
    """Adjust for unclear columns as well, and claim nothing where that moves the estimate."""
    alone = [_moved(made, rows, known, [name]) for name in unclear]
    together = _moved(made, rows, known, unclear)
    blamed = _blamed(unclear, alone, together, made.std_error or 0.0)
    if not blamed:
        it, was = ("it", "was") if len(unclear) == 1 else ("they", "were")
        return made, (
            f"not adjusted for, as nothing says that {it} {was} known before the arm was chosen:"
            f" {_quoted(unclear)}; in a regression {it} would move the estimate by"
            f" {format_number(together.move)}"
        )
    filled, added = _filled(rows, blamed)
    try:
        other: EffectResult | None = estimate_effect(filled, **asked, confounders=[*known, *added])
    except EstimationError:
        other = None
    it, them, was = ("it", "it", "was") if len(blamed) == 1 else ("they", "them", "were")
    worth = f"with {them} " + (
        "there is no estimate"
        if other is None
        else f"the estimate is {format_number(other.estimate)}, not {format_number(made.estimate)}"
    )
    detail = f"nobody has said whether {_quoted(blamed)} {was} known before the arm was chosen, and {worth}"
    assumptions = tuple(
        replace(a, status="fails", detail=detail, check="what was left out moves a regression,"
                f" limit {_MOVED:g} standard errors and beyond chance") if a.name == "exchangeability" else a
        for a in made.assumptions
    )  # fmt: skip
    made = replace(made, assumptions=assumptions, figures={**made.figures, "unclear": tuple(blamed)})
    made = replace(made, sentence=effect_sentence(made, confounders=made.confounders))
    return made, (
        f"{detail}: confounders={[*known, *blamed]!r} adjusts for {them}, and confounders={known!r} says"
        f" that {it} came after the arm, or decided nothing"
    )


def _blamed(names: Sequence[str], alone: Sequence[Moved], together: Moved, std_error: float) -> Sequence[str]:
    """Name the columns that move the estimate by themselves; all, where only all together do."""
    from scipy import stats

    asked = len(names) + (len(names) > 1)

    def moves(one: Moved) -> bool:
        limit = float(stats.t.isf((1.0 - _SURE) / 2 / asked, one.df))
        return one.tells or abs(one.move) > max(_MOVED * std_error, limit * one.error)

    return [name for name, one in zip(names, alone, strict=True) if moves(one)] or (
        names if moves(together) else []
    )


def _moved(made: EffectResult, rows: pd.DataFrame, known: Sequence[str], names: Sequence[str]) -> Moved:
    """Regress on the arm, known columns and others, squares of numbers too: an item once, with its mean.

    No model is learned, whose next fit would differ by chance; so it costs nothing either.
    """
    mean = rows.groupby("item_id")[made.outcome].transform("mean")
    filled, added = _filled(rows.assign(**{made.outcome: mean}).drop_duplicates("item_id"), names)
    table = open_table(filled)

    def columns(of: Sequence[str]) -> NDArray[np.float64]:
        read = {name: table.values(name, role="logged") for name in of}
        numbers = [v - v.mean() for v in read.values() if v.dtype != object]
        return np.column_stack([design_matrix(read).matrix, *(v**2 for v in numbers)])

    treated = filled["arm"].to_numpy() == made.treated
    return moved_by(filled[made.outcome].to_numpy(dtype=float), treated, columns(known), columns(added))


def _filled(rows: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Fill gaps by the median, or a level, and mark them: to see what a column is worth, not to estimate."""
    new: dict[str, Any] = {}
    for name in names:
        gone = rows[name].isna()
        if not gone.any():
            continue
        if rows[name].dtype.kind in "if":
            new[name] = rows[name].fillna(float(np.nanmedian(rows[name])))
            new[f"{name} is missing"] = gone.to_numpy().astype(float)
        else:
            new[name] = rows[name].where(~gone, "missing")
    return rows.assign(**new), [*names, *(name for name in new if name not in names)]


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))
