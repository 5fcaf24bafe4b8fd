"""What reading logs gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whyprompt.results import Result, unlisted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.trials.logs.differences import Cell
    from whyprompt.trials.logs.pairing import Pairing
    from whyprompt.trials.readers.record import Log


@dataclass(frozen=True, kw_only=True)
class ReadTrials(Result):
    """The trials of logs as one table, with what was taken for what.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row a trial, with the columns that `whyprompt.load_trials` has as far as the logs know them:
        ``item_id``, ``arm``, ``rep``, covariates of the item (``question_chars``, ``question_words``,
        ``numbers``, those of the log), ``prompt``, ``completion``, the outcome, ``cost``, ``model``,
        ``error`` (why there is no outcome), ``log``.
    outcome : str
        Column with it.
    scorer : str
        The scorer as the logs name it, its filter behind a comma.
    arms : tuple of str
        In order of appearance.
    arm_role : str
        What the arm is: ``"prompt"``, ``"model"``, ..., or ``"file"``.
    reference : str
        The arm that the others are held against.
    taken : mapping
        Which field of the logs became which column.
    sources : tuple of mapping
        Each log: ``file``, ``format``, ``version``, ``status``, ``trials``, ``arms``.
    pairing : Pairing
        How the arms' items meet.
    differs : mapping
        By role (prompt, model, judge, ...) what differs between the logs or their trials: the values by path.
    shared : mapping
        By role what is the same in all of them: the value by path.
    missing : mapping
        By arm why outcomes are missing, and how often.
    cut_short : mapping
        By arm the ends of completions other than the model's own (a limit, a refusal, a filter).
    flicker : mapping
        By arm ``cells`` (items with more than one trial) and ``vary``, those whose outcomes differ.
    left_out : mapping
        What is not in the table, and how often.
    cells : tuple of Cell
        The settings that trials were run under, each with its arm, its log and the number of its trials.
    rows : ndarray of int, shape (trials,)
        Which trial of the `logs`, counted through all of them, each row of the table is.
    logs : tuple of Log
        In the order that they were read in.
    """

    frame: pd.DataFrame = unlisted()
    outcome: str
    scorer: str
    arms: tuple[str, ...]
    arm_role: str = "prompt"
    reference: str
    taken: Mapping[str, str]
    sources: tuple[Mapping[str, Any], ...]
    pairing: Pairing
    differs: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    shared: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    missing: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cut_short: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    flicker: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    cells: tuple[Cell, ...] = unlisted(())
    rows: NDArray[np.int64] = unlisted()
    logs: tuple[Log, ...] = unlisted(())

    def to_frame(self) -> pd.DataFrame:
        """Return the trial table.

        Returns
        -------
        pandas.DataFrame
            `frame`.
        """
        return self.frame

    def _blocks(self) -> list[str]:
        lines = [f"  {column}: {source}" for column, source in self.taken.items()]
        return ["\n".join(["Taken for:", *lines])] if lines else []
