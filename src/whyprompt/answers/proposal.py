"""What a table may be asked: what each column is taken for, and why, before anything is estimated.

Names and values say what a column may be. They do not say what decided the arm: that is for the person who
asks, so that a proposal is shown and no number is.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from whyprompt._summary import grid
from whyprompt._words import counted, format_number
from whyprompt.answers.seen_designs import NOT_ALWAYS, named_arm, rollout_seen
from whyprompt.effects.caused import caused_by_arm, doubt_of, name_words
from whyprompt.effects.units import find_units
from whyprompt.errors import DataError
from whyprompt.stats.order import distinct
from whyprompt.tables import level_name, open_table
from whyprompt.trials.logs.arms import reference_arm
from whyprompt.trials.readers.plain_names import ARMS, NAMES, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.answers.seen_designs import Rollout
    from whyprompt.effects.units import Unit
    from whyprompt.tables import Column, Table

Role = Literal[
    "treatment", "outcome", "item", "time", "route", "cluster", "propensity", "confounder", "left out"
]
"""What a column is taken for, in the order in which it is told."""

# Arms of an experiment are few; more levels are items, or a dose.
_MOST_ARMS = 12
# Text with more levels than this, or a new one in every third row, tells rows apart and no kinds of them.
_MOST_LEVELS = 50
_ARM_WORDS = {
    *("arm", "variant", "condition", "treatment", "treated", "treat", "prompt", "version", "template"),
    *("strategy", "cot", "shots", "format", "experiment", "group"),
}
_SCORE_WORDS = {
    *("score", "correct", "passed", "pass", "success", "accuracy", "reward", "rating", "grade", "y"),
    *("resolved", "solved", "ok", "succeeded", "successful", "accepted", "converted", "csat", "won"),
}
_ITEMS = {name for rank in NAMES["item"] for name in rank}
# The first column of a table that was written with the names of its rows.
_NAMELESS = {"", "Unnamed: 0"}
_PROPENSITY = {name for rank in NAMES["propensity"] for name in rank}


class Taken(NamedTuple):
    """What a column is taken for, and why."""

    column: str
    role: Role
    why: str


class Proposal(NamedTuple):
    """A question that a table may answer; `file` is its name on the command line."""

    file: str
    n_rows: int
    columns: tuple[Taken, ...]
    levels: tuple[str, ...]
    control: str
    paired: bool
    doubts: tuple[str, ...]
    rollout: Rollout | None = None
    verb: str = "effect"

    def named(self, role: Role) -> tuple[str, ...]:
        """Give the columns that are taken for one thing."""
        return tuple(taken.column for taken in self.columns if taken.role == role)

    @property
    def command(self) -> str:
        """The command line that asks the question."""
        (treatment,), (outcome,) = self.named("treatment"), self.named("outcome")
        words = ["whyprompt", self.verb, self.file, "--treatment", treatment, "--outcome", outcome]
        if self.verb == "mediate":
            two = ["--treated", next(level for level in self.levels if level != self.control)]
            return shlex.join([*words, *two, "--control", self.control, "--unit", *self.named("item")])
        if len(self.levels) > 2:
            words += ["--as", f"all-arms:reference={self.control}"]
        else:
            treated = next(level for level in self.levels if level != self.control)
            words += ["--treated", treated, "--control", self.control]
        adjusted, known = self.named("confounder"), self.named("propensity")
        if self.paired:
            words += ["--design", "paired", "--unit", *self.named("item")]
        elif self.rollout is not None:
            words += ["--design", f"rollout:time={self.rollout.time}", "--unit", self.rollout.unit]
            words += ["--confounders", ",".join(adjusted)] if adjusted else []
        elif known:
            words += ["--propensity", known[0], *(["--confounders", ",".join(adjusted)] if adjusted else [])]
        elif adjusted:
            words += ["--confounders", ",".join(adjusted)]
        else:
            words += ["--method", "naive"]
        cluster = self.named("cluster")
        return shlex.join([*words, *(["--cluster", cluster[0]] if cluster else [])])

    @property
    def question(self) -> str:
        """The question in words."""
        (treatment,), (outcome,) = self.named("treatment"), self.named("outcome")
        others = [level for level in self.levels if level != self.control]
        one = f"{others[0]!r}" if len(others) == 1 else f"each of {', '.join(map(repr, others))}"
        said = f"What does {one} instead of {self.control!r} ({treatment}) change in {outcome!r}"
        if self.verb == "mediate":
            return f"{said}, and how much of that goes through the length of the answers?"
        adjusted = self.named("confounder")
        if self.paired:
            return f"{said}, each {self.named('item')[0]!r} compared with itself?"
        if self.rollout is not None:
            return (
                f"{said}, each {self.rollout.unit!r} compared with itself before, beside those not changed?"
            )
        but = f"nothing but {_and(adjusted)}" if adjusted else "nothing"
        return f"{said}, if {but} affects both the choice of arm and the outcome?"

    @property
    def text(self) -> str:
        """The proposal for a reader."""
        rows = [(t.column, t.role, t.why) for t in self.columns]
        lines = [
            f"{self.file}: {counted(self.n_rows, 'row')} of {counted(len(rows), 'column')}.",
            grid(("column", "taken for", "because"), rows, left=3),
            self.question,
            f"  {self.command}",
            *([_ROLLOUT] if self.rollout is not None else [_LOT] if not self.paired else []),
            *self.doubts,
        ]
        return "\n\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give the proposal as values that JSON has."""
        columns = [taken._asdict() for taken in self.columns]
        return {
            "question": self.question,
            "command": self.command,
            "columns": columns,
            "doubts": list(self.doubts),
        }


_LOT = (
    "What decided the arm is for you to say: leave out of --confounders what came after the arm, and add what"
    " is missing. Where a lot decided it, say --design randomized in place of --confounders."
)

_ROLLOUT = (
    "A prompt that changed on a date: routes that kept theirs say what would have come without it. Few rows a"
    " day are grouped by period=7 in --design. Where it was not the date that decided the arm, say"
    " --confounders in place of --design."
)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def propose(
    frame: Any,  # noqa: ANN401 - any frame
    file: str,
    *,
    verb: str = "effect",
    treatment: str | None = None,
    outcome: str | None = None,
) -> Proposal:
    """Say what a table may be asked, and what each of its columns is taken for.

    Treatment and outcome may be named; the rest is proposed. The verb is that of the command: "effect", or
    "mediate", which needs items that ran under both arms.

    Raises
    ------
    DataError
        If no column can be an arm, or none an outcome, or the one that is named cannot be it; or the verb is
        "mediate" and no column tells items that ran under both arms.

    Examples
    --------
    >>> import pandas as pd
    >>> log = pd.DataFrame({"arm": list("ab") * 20, "length": [1, 2, 2, 5] * 10, "score": [0, 1, 1, 0] * 10})
    >>> propose(log, "t.csv").command
    'whyprompt effect t.csv --treatment arm --outcome score --treated b --control a --confounders length'
    """
    table = open_table(frame)
    read, left = _read(table)
    command = ["whyprompt", verb, file, *(["--treatment", treatment] if treatment else [])]
    if treatment is None:
        treatment, arm_why, other_arms = _treatment(table, {n: c for n, c in read.items() if n != outcome})
    else:
        arm_why, other_arms = _named_treatment(table, treatment)
    if outcome is None:
        outcome, outcome_why, other_outcomes = _outcome(read, left, treatment, command)
    else:
        outcome_why, other_outcomes = _named_outcome(table, outcome, treatment)
    levels = _levels(read[treatment])
    control = reference_arm(levels)
    free = [name for name in read if name not in {treatment, outcome}]
    chances = next((name for name in free if "_".join(name_words(name)) in _PROPENSITY), None)
    first = {
        name: named_arm(read[name], read[treatment]) or _unfit(name, read[name], table.n_rows)
        for name in free
        if name != chances
    }
    sampling, item = find_units(table, treatment=treatment, outcomes=[outcome], covariates=())
    units = _units(sampling, item, table.n_rows)
    paired = item is not None and item.paired
    if verb == "mediate" and not paired:
        raise DataError(
            f"no column tells items that ran under both arms of {treatment!r}: each is compared with itself",
            hint="name that of the item: unit='question_id'; where no item ran under both, whyprompt effect"
            " compares rows, and whyprompt.mediate in Python takes a measured mediator of them",
        )
    rollout = None
    if not paired and len(levels) == 2:
        free_columns = {name: read[name] for name in free}
        rollout, control = rollout_seen(table, read[treatment], control, free_columns)
    if rollout is not None:
        # Routes are the sample, whatever repeats within them.
        units = _of_rollout(rollout)
    confounders = [name for name, why in first.items() if not why and name not in units]
    roles: dict[str, Taken] = {
        treatment: Taken(treatment, "treatment", f"{arm_why}: {_counts(read[treatment], levels)}"),
        outcome: Taken(outcome, "outcome", f"{outcome_why}: {_range(read[outcome])}"),
    }
    if chances is not None:
        roles[chances] = Taken(chances, "propensity", "it is called as the logged chance of an arm is")
    roles |= units
    for name in confounders:
        why = (
            "pairing settles what belongs to the item" if paired else "nothing says that it comes of the arm"
        )
        roles[name] = Taken(name, "left out" if paired else "confounder", why)
    for name in table.columns:
        roles.setdefault(name, Taken(name, "left out", first.get(name) or left.get(name, "")))
    return Proposal(
        file=file,
        n_rows=table.n_rows,
        columns=tuple(roles[name] for name in sorted(table.columns, key=lambda n: _ORDER[roles[n].role])),
        levels=levels,
        control=control,
        paired=paired,
        doubts=tuple(_doubts(other_arms, other_outcomes, treatment, first)),
        rollout=rollout,
        verb=verb,
    )


def outcome_to_name(frame: Any, file: str) -> str:  # noqa: ANN401 - any frame
    """Give the command for a table of arms that lacks only its outcome's name; "" of any other.

    >>> import pandas as pd
    >>> log = pd.DataFrame({"arm": list("ab") * 20, "length": [1, 2, 2, 5] * 10, "happy": [0, 1, 1, 0] * 10})
    >>> outcome_to_name(log, "t.csv")
    'whyprompt effect t.csv --outcome OUTCOME, where OUTCOME is one of happy (0 or 1), length (1.00 to 5.00)'
    """
    table = open_table(frame)
    read, _ = _read(table)
    try:
        treatment = _treatment(table, read)[0]
    except DataError:
        return ""
    return _to_name(read, treatment, ["whyprompt", "effect", file])


def _read(table: Table) -> tuple[dict[str, Column], dict[str, str]]:
    """Read what can be read, and say of the rest why not."""
    read: dict[str, Column] = {}
    left: dict[str, str] = {}
    for name in table.columns:
        try:
            read[name] = table.column(name, role="named")
        except DataError as error:
            told = error.message.removeprefix(f"named column {name!r} ")
            left[name] = told.partition("holds ")[2].partition(";")[0] or told
    return read, left


_ORDER: dict[str, int] = {role: n for n, role in enumerate(get_args(Role))}


def _doubts(
    arms: Sequence[str], outcomes: Sequence[str], treatment: str, unfit: Mapping[str, str]
) -> list[str]:
    lots = [name for name, why in unfit.items() if why == NOT_ALWAYS]
    said = [("treatment", [name for name in arms if name not in lots]), ("outcome", outcomes)]
    return [
        *(
            f"{_and(list(map(repr, names)))} may be the {what} too: --{what}."
            for what, names in said
            if names
        ),
        *(
            f"{name!r} names a level of {treatment!r}: where a lot drew it, --design"
            f" {shlex.quote(f'instrument:instrument={name}')} says what following it does."
            for name in lots
        ),
    ]


def _levels(column: Column) -> tuple[str, ...]:
    values = distinct(column.data[~column.missing])[0]
    return tuple(str(v) if column.kind == "text" else level_name(v) for v in values)


def _treatment(table: Table, read: dict[str, Column]) -> tuple[str, str, list[str]]:
    """Choose the arm: by its name, a word in it, else a column of two texts; why, and what may be it too."""
    few = {n: len(_levels(c)) for n, c in read.items() if not c.n_missing and _countable(c)}
    may = [
        n for n, count in few.items() if 2 <= count <= _MOST_ARMS and caused_by_arm(n, read[n].data) is None
    ]
    may = [n for n in may if not _called_outcome(n) and not _SCORE_WORDS & set(name_words(n)) - {"y"}]
    ranks = [
        [n for n in may if "_".join(name_words(n)) in ARMS[0]],
        [n for n in may if "_".join(name_words(n)) in {*ARMS[1], *ARMS[2]}],
        [n for n in may if _ARM_WORDS & set(name_words(n))],
        [n for n in may if few[n] == 2 and read[n].kind == "text"],
    ]
    whys = (
        "called as an arm is",
        "called as an arm is",
        "a word of its name is an arm's",
        "text of two levels",
    )
    found, why = next(((rank, why) for rank, why in zip(ranks, whys, strict=True) if rank), ([], ""))
    if not found:
        raise DataError(
            "no column looks like an arm: one of two levels or some more, called arm, variant, version, ...",
            hint=f"say which it is with treatment=; the table has {', '.join(table.columns)}",
        )
    return found[0], why, found[1:]


def _named_treatment(table: Table, name: str) -> tuple[str, list[str]]:
    levels = len(_levels(table.column(name, role="treatment")))
    if not 2 <= levels <= _MOST_ARMS:
        raise DataError(
            f"column {name!r} has {counted(levels, 'level')}, and arms are 2 to {_MOST_ARMS}",
            hint="name the column with the arm; of a dose name treatment= and outcome=",
        )
    return "named", []


def _named_outcome(table: Table, name: str, treatment: str) -> tuple[str, list[str]]:
    column = table.column(name, role="outcome")
    if name == treatment or column.kind == "text" or _constant(column):
        why = (
            "is the treatment"
            if name == treatment
            else "holds text"
            if column.kind == "text"
            else "is the same in every row"
        )
        raise DataError(
            f"column {name!r} cannot be the outcome: it {why}", hint="name a column of numbers, or of 0 and 1"
        )
    return "named", []


def _called_outcome(name: str) -> bool:
    called = "_".join(name_words(name)).removeprefix("is_")
    return called in OUTCOMES or called in _SCORE_WORDS


def _countable(column: Column) -> bool:
    return column.kind != "number" or bool((column.data == np.round(column.data)).all())


def _no_score(column: Column) -> str:
    """Say why what is called an outcome is none, "" where it could be."""
    if column.missing.all():
        return "has no value"
    if column.kind == "text":
        return f"holds text, such as {column.data[~column.missing][0]!r}: write 1 and 0, or numbers"
    return "is the same in every row" if _constant(column) else ""


def _outcome(
    read: dict[str, Column], left: Mapping[str, str], treatment: str, command: Sequence[str]
) -> tuple[str, str, list[str]]:
    """Choose the outcome: by its name, by a word in it, else a judgement; why, and what may be it too."""
    may = [n for n, c in read.items() if n != treatment and c.kind != "text" and not _constant(c)]
    ranks = [
        [n for n in may if "_".join(name_words(n)) in OUTCOMES],
        [n for n in may if _SCORE_WORDS & set(name_words(n))],
        [n for n in may if (caused_by_arm(n) or "").startswith("it is a judgement")],
    ]
    whys = (
        "called as an outcome is",
        "a word of its name is an outcome's",
        "a judgement of what was written",
    )
    found, why = next(((rank, why) for rank, why in zip(ranks, whys, strict=True) if rank), ([], ""))
    if not found:
        called = [f"{n!r} {why}" for n, c in read.items() if _called_outcome(n) and (why := _no_score(c))]
        called += [
            f"{n!r} {why if why.startswith('has ') else f'holds {why}'}"
            for n, why in left.items()
            if _called_outcome(n)
        ]
        raise DataError(
            "no column of numbers looks like an outcome: "
            + ("; ".join(called) or "called score, correct, passed, ..."),
            hint=_to_name(read, treatment, command) or "no other column of the table holds numbers that vary",
        )
    return found[0], why, found[1:]


def _to_name(read: dict[str, Column], treatment: str, command: Sequence[str]) -> str:
    """Give the command that lacks only its outcome, and what that may be: columns of 0 and 1 first."""
    may: dict[str, str] = {}
    for name, column in read.items():
        numbers = name != treatment and column.kind != "text" and not _constant(column)
        if numbers and not _counts_rows(column) and "_".join(name_words(name)) not in _ITEMS | _PROPENSITY:
            values = column.data[~column.missing].astype(np.float64)
            two = set(distinct(values)[0]) == {0.0, 1.0}
            ends = (format_number(float(x)) for x in (values.min(), values.max()))
            may[name] = "0 or 1" if two else " to ".join(ends)
    listed = [f"{n} ({said})" for n, said in sorted(may.items(), key=lambda one: one[1] != "0 or 1")]
    return (
        f"{shlex.join(command)} --outcome OUTCOME, where OUTCOME is one of {', '.join(listed)}"
        if listed
        else ""
    )


def _constant(column: Column) -> bool:
    return len(distinct(column.data[~column.missing])[0]) < 2


def _unfit(name: str, column: Column, n_rows: int) -> str:
    """Say why a column does not stand in the command, "" where nothing speaks against it."""
    if why := after_arm(name, column, n_rows):
        return why
    if "," in name:
        return "a comma in its name would part it in --confounders: rename it"
    if column.n_missing:
        return f"{column.n_missing} of its values are missing; --impute 20 fills them"
    return ""


def after_arm(name: str, column: Column, n_rows: int) -> str:
    """Say why a column is not adjusted for, "" where neither name nor values speak against it."""
    if (why := caused_by_arm(name, column.data) or doubt_of(name)) is not None:
        return why
    if _called_outcome(name):
        return "it is called as an outcome is"
    if "_".join(name_words(name)) in _ITEMS or name in _NAMELESS:
        return "it names the row"
    if _constant(column):
        return "the same in every row"
    levels = len(distinct(column.data[~column.missing])[0])
    if column.kind == "text" and (levels > _MOST_LEVELS or levels > n_rows / 3):
        return f"text with {levels} values: it tells rows apart"
    numbers = column.kind == "number" and levels == n_rows and _counts_rows(column)
    return "it numbers the rows" if numbers else ""


def _counts_rows(column: Column) -> bool:
    steps = np.diff(column.data)
    return bool(len(steps) and steps[0] != 0 and (steps == steps[0]).all())


def _of_rollout(found: Rollout) -> dict[str, Taken]:
    why = f"in {found.n_changed} of {found.n_units} the arm changes once, on a date"
    return {
        found.unit: Taken(found.unit, "route", why),
        found.time: Taken(found.time, "time", "the dates of that change are in it"),
    }


def _units(sampling: Unit | None, item: Unit | None, n_rows: int) -> dict[str, Taken]:
    out: dict[str, Taken] = {}
    if sampling is not None:
        role: Role = "cluster"
        why = f"repeats: {sampling.count} in {n_rows} rows"
        out[sampling.name] = Taken(sampling.name, role, why)
    if item is not None and item.paired:
        share = "every" if item.both == item.count else f"{item.both} of {item.count}"
        out = {item.name: Taken(item.name, "item", f"{share} one was run under both arms")}
    return out


def _counts(column: Column, levels: Sequence[str]) -> str:
    values = [str(v) if column.kind == "text" else level_name(v) for v in column.data.tolist()]
    return ", ".join(f"{level} ({values.count(level)} rows)" for level in levels)


def _range(column: Column) -> str:
    values = np.asarray(column.data[~column.missing], dtype=np.float64)
    low, high, mean = (format_number(float(x)) for x in (values.min(), values.max(), values.mean()))
    return f"{low} to {high}, mean {mean}"
