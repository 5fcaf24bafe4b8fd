"""Logs whose arms were chosen by what came out before: a bandit, or a gateway that shifts its traffic."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number, p_words
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    import pandas as pd

    from whyprompt.trials.logs.result import ReadTrials

_SAID = re.compile(r"bandit|thompson|epsilon.?greedy|\bucb\b|\bexp3\b|adaptive|explore", re.IGNORECASE)
_OFF = {"false", "no", "none", "off", "0", ""}
_ROLES = ("engine", "harness", "other")
_BLOCKS = 10
_LEAST = 100
_SURE = 1e-4
_FAR = 0.15
_HINT = (
    "log the chance of the arm with each trial (a column propensity), or randomise with a fixed share; a"
    " change of prompt on a date is design='rollout'"
)


def refuse_adaptive(found: ReadTrials, two: pd.DataFrame, treated: str) -> list[str]:
    """Refuse rows of two arms that were dealt adaptively, where a log says so or their shares show it.

    Gives what could not be looked at.

    Raises
    ------
    EstimationError
        Naming the log, or the shares.
    """
    import pandas as pd

    for role in _ROLES:
        every = {**found.shared.get(role, {})} | {
            p: " ".join(v) for p, v in found.differs.get(role, {}).items()
        }
        for path, text in every.items():
            if _SAID.search(f"{path} {text}") and str(text).lower() not in _OFF:
                raise EstimationError(
                    f"the arms were chosen adaptively ({path}: {text}) and no chances were logged: means of"
                    " such trials are biased",
                    hint=_HINT,
                )
    if "started_at" not in two or two["started_at"].isna().any():
        return []
    notes = []
    for log, rows in two.groupby("log", sort=False):
        at = pd.to_datetime(rows["started_at"], errors="coerce", utc=True, format="mixed")
        if at.isna().any():
            notes.append(
                f"{log}: {int(at.isna().sum())} of {len(rows)} times (started_at) cannot be read, such as"
                f" {str(rows['started_at'][at.isna()].iloc[0])!r}: whether the shares of the arms move with"
                " time was not looked at"
            )
            continue
        drift = _drift(rows, at, treated)
        if drift is not None:
            first, last, p = drift
            raise EstimationError(
                f"{log}: the share of {treated!r} moves with time, from {format_number(first, digits=2)} to"
                f" {format_number(last, digits=2)} (p {p_words(p)}), and no chances were logged: arms chosen"
                " by what came out before, or at other times, are not comparable as they stand",
                hint=_HINT,
            )
    return notes


def _drift(rows: pd.DataFrame, at: pd.Series[Any], treated: str) -> tuple[float, float, float] | None:
    """Give the share of the treated arm in the first and last tenth, and the p of one share throughout."""
    from scipy import stats

    if len(rows) < _LEAST or rows["arm"].nunique() < 2:
        return None
    if at.nunique() < _BLOCKS:
        return None
    order = np.argsort(at.to_numpy(), kind="stable")
    arm = (rows["arm"].to_numpy() == treated)[order]
    blocks = np.array_split(arm, _BLOCKS)
    share = np.array([block.mean() for block in blocks])
    table = np.array([[block.sum(), len(block) - block.sum()] for block in blocks])
    p = float(stats.chi2_contingency(table).pvalue)
    if p >= _SURE or share.max() - share.min() < _FAR:
        return None
    return float(share[0]), float(share[-1]), p
