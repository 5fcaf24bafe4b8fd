"""Two runs held against each other: all that differs, what of it can be told from the arm, what is noise."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whyprompt.answers.apart import ARM, besides, difference_graph, differences_of, separating
from whyprompt.answers.changes import changed_items
from whyprompt.answers.logs import two_arms
from whyprompt.answers.noise import noise_words
from whyprompt.effects.pairs import paired_differences
from whyprompt.errors import EstimationError
from whyprompt.results import Result, unlisted
from whyprompt.trials.logs.differences import Difference, difference_words, shown, unlike_together
from whyprompt.trials.logs.read import read_trials
from whyprompt.trials.logs.result import ReadTrials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from whyprompt.answers.changes import Changed
    from whyprompt.effects.pairs import PairedItems
    from whyprompt.graph.model import CausalGraph

_WIDE = 44
_TELLS = {
    "arm": "it is the arm",
    "aligned": "no",
    "balanced": "yes, alike in both arms",
    "paired": "yes, items are compared with themselves",
    "drawn": "no, it is one draw an arm",
    "inert": "yes, it changes nothing by itself",
    "untold": "not known, a log has none",
}


@dataclass(frozen=True, kw_only=True)
class RunComparison(Result):
    """What differs between two runs and what of it the arm can be told from.

    Its figures: ``strategy``, of `CausalGraph.identify` for the arm and the outcome; ``together``, whether
    differences that each can be told from the arm can be so together; and where items were run under both
    arms ``items``, ``gains`` and ``regressions``, ``mcnemar_p`` for a 0/1 outcome with one trial of an item
    under each arm, and the counts of flips (``flips`` of ``items`` between the first trials of both arms,
    ``same_arm`` of ``pairs`` among trials of one arm, ``expected`` flips by noise, ``low`` to ``high``).

    Attributes
    ----------
    treated, control : str
        The arms.
    outcome : str
        Column with it.
    differences : tuple of Difference
        Everything that differs, by role.
    graph : CausalGraph
        The arm, every difference and the outcome: what goes with the arm shares an unobserved cause with it,
        the choice of the run, and what no value tells from the arm is itself unobserved.
    changed : mapping of str to list
        ``gains`` and ``regressions``: the items with their texts and outcomes.
    trials : ReadTrials
        What was read.
    """

    treated: str
    control: str
    outcome: str
    differences: tuple[Difference, ...]
    graph: CausalGraph = unlisted()
    changed: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    trials: ReadTrials = unlisted()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold; the graph as its text."""
        return super().to_dict() | {"graph": str(self.graph)}

    def to_frame(self) -> pd.DataFrame:
        """Return the differences, a row each: ``role``, ``what``, a column an arm, ``told_apart``."""
        import pandas as pd

        columns = ["role", "what", self.control, self.treated, "told_apart"]
        rows = [
            (d.role, path, *_sides(d, path, self.control, self.treated, width=None), _told(d))
            for d in self.differences
            for path in d.settings
        ]
        return pd.DataFrame(rows, columns=columns)

    def _blocks(self) -> list[str]:
        if not self.differences:
            return []
        head = ("role", "what", f"in {self.control!r}", f"in {self.treated!r}", "told from the arm?")
        rows = [
            (
                d.role,
                path,
                *_sides(d, path, self.control, self.treated, width=_WIDE),
                _told(d) if path == d.path else "the same difference",
            )
            for d in self.differences
            for path in d.settings
        ]
        lines = "\n".join(f"  {line}" for line in str(self.graph).splitlines())
        return [_laid_out([head, *rows]), f"Graph:\n{lines}"]


def compare_runs(
    *runs: str | Path | ReadTrials,
    arm: str | None = None,
    scorer: str | None = None,
    item: str | None = None,
    reference: str | None = None,
    treated: str | None = None,
    control: str | None = None,
    level: float = 0.95,
    texts: bool | int = True,
) -> RunComparison:
    r"""Say all that differs between two runs, which of it can be told from the arm, and what may be noise.

    What has one value in one arm and another in the other is one treatment with the arm, whatever is done
    with the numbers; further logs, given with the two, may separate it. A 0/1 outcome's flips are held
    against those of repeats.

    Parameters
    ----------
    *runs : str, Path or ReadTrials
        Logs, folders of them, or patterns, as `read_trials` takes them; or what it gave, alone.
    arm, scorer, item, reference : str, optional
        Of `read_trials`. ``arm="file"`` holds file against file.
    treated, control : str, optional
        The arms, where there are more than two.
    level : float, default 0.95
        Of the range of flips that noise makes.
    texts : bool or int, default True
        Whether changed items have their texts, for which logs are read again, or how many of the gains and of
        the regressions, the largest first, have them.

    Returns
    -------
    RunComparison

    Raises
    ------
    DataError
        Of `read_trials`.
    EstimationError
        If all trials are of one arm, or there are more than two and none is named.

    References
    ----------
    Pearl (2009). Causality, 2nd edition. Cambridge University Press, section 3.3.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> rows = [
    ...     {"item_id": i, "arm": arm, "model": model, "score": s}
    ...     for i in range(4)
    ...     for arm, model, s in (("a", "m-1", 0), ("b", "m-2", 1))
    ... ]
    >>> _ = path.write_text("\n".join(map(json.dumps, rows)))
    >>> found = compare_runs(path)
    >>> [(d.role, d.verdict) for d in found.differences], found["strategy"]
    ([('prompt', 'arm'), ('model', 'aligned')], 'none')
    """
    given = [run for run in runs if isinstance(run, ReadTrials)]
    if given and (len(runs) > 1 or any((arm, scorer, item))):
        raise EstimationError(
            "trials that were read are compared alone", hint="give read_trials all the logs"
        )
    found = (
        given[0]
        if given
        else read_trials(
            *(run for run in runs if not isinstance(run, ReadTrials)),
            arm=arm,
            scorer=scorer,
            item=item,
            reference=reference,
            texts=False,
        )
    )
    treated, control = two_arms(found, treated, control or reference)
    return _compared(found, treated, control, level, texts=texts)


def _compared(
    found: ReadTrials, treated: str, control: str, level: float, *, texts: bool | int
) -> RunComparison:
    arms = (control, treated)
    two = found.frame[found.frame["arm"].isin(arms)]
    beside = differences_of(found, arms)
    together = not unlike_together(found.cells, arms, beside)
    graph = difference_graph(beside, found.outcome)
    strategy = graph.identify(ARM, found.outcome).strategy
    sentences = [found.sentence, besides(found, beside, arms), separating(found, beside, arms)]
    if not together:
        sentences.append(
            "No combination of what can be told from the arm was run under both: it can be told only if these"
            " settings do not change each other's effect."
        )
    figures: dict[str, Any] = {"strategy": strategy, "together": together}
    changed: Changed = {}
    items = _items(two, found.outcome, treated, control)
    if items is not None:
        changed = changed_items(found, items, treated=treated, control=control, texts=texts)
        words, more = noise_words(found, two, items, beside, treated, level)
        figures |= more
        sentences.append(words)
    return RunComparison(
        sentence="\n".join(text for text in sentences if text),
        treated=treated,
        control=control,
        outcome=found.outcome,
        differences=beside,
        graph=graph,
        changed=changed,
        trials=found,
        warnings=tuple(text for text in found.warnings if text not in set(map(difference_words, beside))),
        figures=figures,
        level=level,
    )


def _items(two: pd.DataFrame, outcome: str, treated: str, control: str) -> PairedItems | None:
    """Put items side by side; None where none has an outcome under both arms."""
    try:
        return paired_differences(
            two, treatment="arm", unit="item_id", outcome=outcome, treated=treated, control=control
        )
    except EstimationError:
        return None


# -------------------------------------------------------------------------------------------------- table
def _told(d: Difference) -> str:
    if d.verdict == "overlapping":
        return f"within {shown(d.under_every, most=2)}"
    return _TELLS[d.verdict]


def _sides(d: Difference, path: str, control: str, treated: str, *, width: int | None) -> tuple[str, str]:
    """Give what each arm has: of two long texts, to be cut to a width, the words that differ."""
    sides = [d.settings[path][arm] for arm in (control, treated)]
    one, other = (", ".join(value or "none" for value in side) for side in sides)
    if width is None:
        return one, other
    if max(len(one), len(other)) > width and len(sides[0]) == len(sides[1]) == 1:
        one, other = text_difference(one, other)
    return _clip(one, width), _clip(other, width)


def text_difference(one: str, other: str) -> tuple[str, str]:
    """Give the words of two texts that differ, "..." for what both have.

    >>> text_difference("You are terse. Answer 4.", "You are wordy. Answer 4.")
    ('... terse. ...', '... wordy. ...')
    """
    a, b = one.split(), other.split()
    sides: tuple[list[str], list[str]] = ([], [])
    for what, i, j, k, m in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        sides[0].extend(["..."] if what == "equal" else a[i:j])
        sides[1].extend(["..."] if what == "equal" else b[k:m])
    return " ".join(sides[0]), " ".join(sides[1])


def _clip(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _laid_out(rows: Sequence[Sequence[str]]) -> str:
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
