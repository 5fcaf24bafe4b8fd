"""The trial table of logs: which fields became what, which trials pair, and what a reader must know of it."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, first_line
from whyprompt.errors import DataError
from whyprompt.trials.logs.arms import find_arms, reference_arm
from whyprompt.trials.logs.differences import Cell
from whyprompt.trials.logs.gather import MISSING, Gathered, ints
from whyprompt.trials.logs.pairing import ENOUGH, item_key, matched_share, pair
from whyprompt.trials.logs.prompts import prompt_notes
from whyprompt.trials.logs.repeats import Rows, broken_off, cells, one_epoch, run_twice
from whyprompt.trials.logs.result import ReadTrials
from whyprompt.trials.logs.scorers import check_scored, check_stated, find_scorer
from whyprompt.trials.logs.table import TAKEN, trial_frame
from whyprompt.trials.logs.taken import by_arm, cut_short, taken_for
from whyprompt.trials.logs.words import common, differences, read_sentence
from whyprompt.trials.readers.find import find_logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from whyprompt.trials.logs.arms import Arms
    from whyprompt.trials.logs.scorers import Scorer
    from whyprompt.trials.readers.find import FoundFile
    from whyprompt.trials.readers.record import Log

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]


def read_trials(
    *paths: str | Path,
    arm: str | None = None,
    scorer: str | None = None,
    item: str | None = None,
    reference: str | None = None,
    texts: bool = True,
) -> ReadTrials:
    r"""Read logs of other tools into one trial table.

    Files are known by what they hold. Nothing is taken silently: `taken`, `sentence` and `warnings` say which
    fields became what, and what has two meanings is refused with its choices.

    Parameters
    ----------
    *paths : str or Path
        Logs, folders of them, or patterns such as ``"logs/*.eval"``.
    arm : str, optional
        What the arm is: a path in the logs (``"task_args.arm"``), or ``"file"``. Default: the one setting of
        the prompt that differs, else of the worked examples, the chat format, the model, the engine or
        sampling; else the file.
    scorer : str, optional
        Its name, with its filter behind a comma. Default: the only one; of several filters that under which
        the fewest arms have no point at all.
    item : str, optional
        ``"id"``, or a covariate, that names the item. Default: what was asked, with its choices and target.
    reference : str, optional
        The arm that the others are held against. Default: one that is called so (``baseline``, ``direct``,
        ...), else the first: of files of an arm each that which is given first, else of the names as they are
        sorted (``v1`` before ``v2``), whatever the order of rows.
    texts : bool, default True
        Whether the table has prompts and completions.

    Returns
    -------
    ReadTrials

    Raises
    ------
    DataError
        If nothing is a log, a log has no scores or contradicts the mean that it states, or the arm or the
        scorer is ambiguous.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> rows = [{"item_id": i, "arm": arm, "score": s} for i in range(4) for arm, s in (("a", 0), ("b", 1))]
    >>> _ = (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    >>> found = read_trials(folder / "log.jsonl")
    >>> found.arms, found.outcome, found.pairing.matched
    (('a', 'b'), 'score', 4)
    """
    if not paths:
        raise DataError("no log is given", hint="name logs, folders or patterns")
    files = find_logs(paths)
    gathered = Gathered(texts=texts, item=item)
    warnings = [f"{path} {why}: left out" for path, why in files.unread.items()]
    left_out = Counter({"files that are no logs": len(files.skipped)} if files.skipped else {})
    for one in files.logs:
        _read(one, gathered, warnings, left_out)
    warnings = [*_notes(gathered), *warnings]
    if not any(gathered.scored):
        raise DataError(
            "\n  ".join(
                (f"no log of {', '.join(map(str, paths))} holds a trial with a score", *warnings[:5])
            ),
            hint="score them first, or name other logs",
        )
    return _Reading(gathered, warnings, left_out).result(arm=arm, scorer=scorer, reference=reference)


def _read(one: FoundFile, gathered: Gathered, warnings: list[str], left_out: Counter[str]) -> None:
    """Gather the logs of a file; a log without scores is refused, or left out of a folder."""
    already = {log.path for log in gathered.logs}
    for log in _logs(one):
        # A file of results leads to the logs beside it, which may be named too.
        if log.path in already:
            continue
        begin = gathered.n
        with _named(one):
            n = gathered.add(log)
        scored = any(gathered.scored[begin:])
        if n and scored:
            continue
        what = "has no scores: none of its trials was scored" if n else "holds no trial"
        if not one.within:
            raise DataError(f"{log.path} {what}", hint="score it first, or leave it out")
        warnings.append(f"{log.path} {what}: left out")
        left_out["logs without scores"] += 1


def _logs(one: FoundFile) -> Iterator[Log]:
    with _named(one):
        yield from one.reader.read(one.path)


@contextmanager
def _named(one: FoundFile) -> Iterator[None]:
    """Name the file in what a reader stumbles over: a record that its format does not have."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{one.path} cannot be read as a log of {one.reader.name}:"
            f" {type(error).__name__}: {first_line(error)}",
            hint="it may be damaged, or of a version that the reader does not know",
        ) from error


def _notes(gathered: Gathered) -> list[str]:
    """Give what the logs' readers say of them, each thing once."""
    of: dict[str, list[str]] = {}
    for log in gathered.logs:
        for note in log.notes:
            of.setdefault(note, []).append(str(log.path))
    return [f"{some[0] if len(some) == 1 else f'{len(some)} logs'}: {note}" for note, some in of.items()]


class _Reading(Rows):
    """What is made of the gathered trials, step by step."""

    def result(self, *, arm: str | None, scorer: str | None, reference: str | None) -> ReadTrials:
        g = self.g
        key, by = item_key(g.items, ints(g.item), ints(g.name), self.log, np.unique(self.log[self.keep]))
        arms, self.arm = self._arms(arm, key)
        names = list(arms.names)
        ref = reference_arm(names, reference, in_order=self._apart())
        found, y = self._outcome(scorer, names)
        run_twice(self, key, y, names)
        broken_off(self)
        flicker = one_epoch(self, key, y, names)
        stated = self._stated(found, y)
        kept = np.flatnonzero(self.keep)
        rows = {"log": self.log, "arm": self.arm, "key": key, "item": ints(g.item), "name": ints(g.name)}
        rows = {name: values[kept] for name, values in rows.items()}
        pairing = pair(
            g.items,
            **rows,
            by=by,
            arms=names,
            names=list(g.names),
        )
        frame = trial_frame(
            g,
            kept,
            self.settings,
            outcome=(found.column, y[kept]),
            arm=np.asarray(names, dtype=object)[rows["arm"]],
            key=rows["key"],
            cell=cells(self, key)[kept],
        )
        used = np.unique(self.setting[kept])
        differs, shared = differences(self.settings, used), common(self.settings, used)
        alone = not {"few_shot", "chat_format", "model", "engine", "sampling"} & set(differs)
        of_prompts = prompt_notes(g, kept, rows["key"], rows["arm"], names, alone=alone)
        self.warnings += [*found.warnings, *of_prompts.warnings]
        made = ReadTrials(
            sentence="",
            frame=frame,
            outcome=found.column,
            scorer=found.name,
            arms=tuple(names),
            arm_role=arms.role,
            reference=ref,
            taken={},
            sources=self._sources(names),
            pairing=pairing,
            differs=differs,
            shared=shared,
            cells=self._cells(kept, names),
            rows=kept,
            logs=tuple(g.logs),
            missing=by_arm(frame[frame[found.column].isna()], "error"),
            cut_short=cut_short(frame),
            flicker=flicker,
            left_out=dict(self.left_out),
            figures={"means_checked": float(stated), "same_prompts": float(of_prompts.same)},
        )
        made = replace(made, taken=taken_for(g, made, arms, by))
        said = [*found.notes, *self.notes, *of_prompts.notes]
        sentence, further = read_sentence(made, arms, said)
        return replace(made, sentence=sentence, warnings=tuple(dict.fromkeys((*self.warnings, *further))))

    def _arms(self, asked: str | None, key: Ints) -> tuple[Arms, Ints]:
        used = np.unique(self.setting[self.keep])
        logs = [list(self.g.settings)[k][0] for k in used]
        place = np.full(len(self.settings), -1)

        def shared(of: Sequence[int]) -> bool:
            place[used] = of
            return matched_share(key[self.keep], place[self.setting][self.keep]) >= ENOUGH

        arms = find_arms(
            [self.settings[k] for k in used], [self.g.logs[log].path for log in logs], asked, shared
        )
        names = arms.names
        self.notes += [arms.note] if arms.note else []
        place[used] = [names.index(name) if name else -1 for name in arms.of]
        arm = place[self.setting]
        without = self.keep & (arm < 0)
        if without.any():
            self.leave(without, f"trials without {arms.path!r}")
            self.warnings.append(f"{counted(int(without.sum()), 'trial')} without {arms.path!r} are left out")
        return arms, arm

    def _apart(self) -> bool:
        """Say whether every log has one arm: then the order of the arms is that in which logs were given."""
        return len(np.unique(self.log[self.keep] * len(self.settings) + self.arm[self.keep])) == len(
            np.unique(self.log[self.keep])
        )

    def _cells(self, kept: Ints, names: Sequence[str]) -> tuple[Cell, ...]:
        settings, first, trials = np.unique(self.setting[kept], return_index=True, return_counts=True)
        where = list(self.g.settings)
        return tuple(
            Cell(
                names[self.arm[kept[row]]], str(self.g.logs[where[k][0]].path), int(n), self.settings[int(k)]
            )
            for k, row, n in zip(settings, first, trials, strict=True)
        )

    def _outcome(self, asked: str | None, names: Sequence[str]) -> tuple[Scorer, Floats]:
        n = self.g.n
        scores = {name: column.all(n) for name, column in self.g.scores.items()}
        scores = {name: values for name, values in scores.items() if not np.isnan(values[self.keep]).all()}
        arm = np.where(self.keep, self.arm, -1)
        taken = {*TAKEN, *self.g.covariates}
        found = find_scorer(scores, arm, names, asked, sorted(taken))
        y = scores[found.name]
        # A trial that another scorer scored and this one was not asked of is none of its trials.
        foreign = self.keep & np.isnan(y) & np.asarray(self.g.scored, dtype=bool)
        check_scored(found.name, scores, arm, foreign, names)
        self.leave(foreign, f"trials that {found.name!r} did not score") if foreign.any() else None
        return found, np.where(y == MISSING, np.nan, y)

    def _stated(self, found: Scorer, y: Floats) -> int:
        checked = 0
        for k, log in enumerate(self.g.logs):
            here = np.flatnonzero(self.log == k)
            if not log.stated or not len(here):
                continue
            rep = ints(self.g.rep)[here]
            whole = (
                log.status in {"", "complete"} and bool(np.isfinite(y[here]).all()) and int(rep.max()) == 1
            )
            n, warned = check_stated(
                log, found.name, y[here], self.setting[here], self.settings, complete=whole
            )
            checked += n
            self.warnings += warned
        return checked

    def _sources(self, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
        out = []
        for k, log in enumerate(self.g.logs):
            here = self.log == k
            arms = np.unique(self.arm[here & self.keep])
            out.append(
                {
                    "file": str(log.path),
                    "format": log.format,
                    "version": log.version,
                    "status": log.status,
                    "trials": int(here.sum()),
                    "used": int((here & self.keep).sum()),
                    "arms": tuple(names[a] for a in arms),
                }
            )
        return tuple(out)
