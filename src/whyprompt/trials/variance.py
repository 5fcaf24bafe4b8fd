"""How much an outcome varies over repetitions, each with seeds of its own, and over items."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RepVariance", "rep_variance"]


@dataclass(frozen=True, kw_only=True)
class RepVariance:
    """Where the variance of one outcome under one arm comes from.

    Parameters
    ----------
    arm : str
    items, reps : int
        Every item was run ``reps`` times.
    mean : float
        Over all trials.
    within : float
        Variance over repetitions of the same item, averaged over items: what the seeds (shots drawn, tokens
        sampled) contribute to one trial.
    between : float
        Variance of the items' own means, the seeds' part taken out; 0 where that would be negative.
    rep_means : tuple of float
        The mean over items in each repetition.
    rep_mean_sd : float
        Standard deviation of :attr:`rep_means`: how far the whole study's mean moves when its seeds change.
    """

    arm: str
    items: int
    reps: int
    mean: float
    within: float
    between: float
    rep_means: tuple[float, ...]
    rep_mean_sd: float


def rep_variance(frame: pd.DataFrame, outcome: str) -> tuple[RepVariance, ...]:
    """Split an outcome's variance into that over repetitions and that over items, for each arm.

    The balanced one-way random-effects decomposition: ``within`` is the mean square within items,
    ``between`` is ``(MSB - MSW) / reps``.

    Parameters
    ----------
    frame : pandas.DataFrame
        A trial table with at least two repetitions: columns ``item_id``, ``arm``, ``rep`` and the outcome.
    outcome : str
        A column of numbers.

    Returns
    -------
    tuple of RepVariance
        One an arm, in the table's order.

    Raises
    ------
    DataError
        If a column lacks, a value is missing, there is one repetition only, or some item was not run in each.

    References
    ----------
    Searle, Casella and McCulloch (1992), Variance Components, section 3.3.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({
    ...     "item_id": ["a", "a", "b", "b"], "arm": "direct", "rep": [0, 1, 0, 1], "y": [1.0, 3.0, 5.0, 7.0]
    ... })
    >>> found = rep_variance(table, "y")[0]
    >>> found.within, found.between, found.rep_means
    (2.0, 7.0, (3.0, 5.0))
    """
    for column in ("item_id", "arm", "rep", outcome):
        if column not in frame.columns:
            raise DataError(f"the trial table has no column {column!r}")
    return tuple(
        _one_arm(str(arm), rows, outcome) for arm, rows in frame.groupby("arm", sort=False, observed=True)
    )


def _one_arm(arm: str, rows: pd.DataFrame, outcome: str) -> RepVariance:
    if rows.duplicated(["item_id", "rep"]).any():
        raise DataError(f"arm {arm!r}: an item occurs twice in one repetition")
    wide = rows.pivot(index="item_id", columns="rep", values=outcome)  # noqa: PD010 - keys are unique
    values = wide.to_numpy(dtype=float)
    items, reps = values.shape
    if reps < 2 or items < 2:
        raise DataError(
            f"arm {arm!r} has {items} item(s) in {reps} repetition(s): a variance needs two of each",
            hint="set reps to 2 or more in the study",
        )
    if not np.all(np.isfinite(values)):
        raise DataError(f"arm {arm!r}: {outcome!r} is missing for an item in some repetition")
    within = float(values.var(axis=1, ddof=1).mean())
    means = float(values.mean(axis=1).var(ddof=1))
    per_rep = values.mean(axis=0)
    return RepVariance(
        arm=arm,
        items=items,
        reps=reps,
        mean=float(values.mean()),
        within=within,
        between=max(0.0, means - within / reps),
        rep_means=tuple(float(m) for m in per_rep),
        rep_mean_sd=math.sqrt(per_rep.var(ddof=1)),
    )
