"""Both outcomes of each item side by side, and the error of a mean difference of them.

The second potential outcome is not imputed but run, so the effect on each item is seen, and nothing about
how arms were chosen has to be assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import counted
from whyprompt.effects.measures import is_binary, stated
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import unlisted
from whyprompt.stats.clusters import known_error
from whyprompt.stats.errors import quantile
from whyprompt.stats.several import two_sided_p
from whyprompt.tables import arms, level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from whyprompt.results import Estimate
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Noise = Literal["independent", "shared", "none"]
Scale = Literal["free", "risks", "counts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedItems:
    """Items run under both arms: their outcomes, and how single items fare as far as these trials show it.

    Attributes
    ----------
    higher, lower, same : int
        Items whose mean outcome under the treated arm is higher, lower, the same in these trials. These are
        counts of trials' outcomes: chance alone makes them.
    gain_at_least, harmed_at_least : int or None
        Lower confidence bounds for the number of items that gain and that are harmed, both at once. None
        where so few trials of an item could not show any, whatever their outcomes.
    seen_gain, seen_harmed : int or None
        Items told apart from noise one by one. None with the bounds.
    spread : float or None
        Standard deviation of the items' own effects, the noise of repeats taken off.
    spread_p : float or None
        One-sided p of no such spread.
    noise : {"independent", "shared", "none"}
        What was taken to make trials of one item and arm differ: draws of their own, draws that items share,
        or nothing.
    level : float
        Of the bounds.
    n_repeats : int
        Rows beyond one for each item and arm.
    incomplete : mapping of str to int
        Why items are left out, and how many.
    incomplete_units : tuple of str
        The first twenty of them.
    mcnemar_p : float or None
        Exact McNemar p for a 0/1 outcome; None with clusters, whose items it would take to be independent.
    mcnemar_counts : tuple of int or None
        Items that only the treated arm gets right in these trials, and that only the control arm does.
    units : tuple of str
        Items with both outcomes, in order of first appearance.
    first_row : ndarray of int, shape (items,)
        First row of each item in the table.
    treated, control : ndarray, shape (items,)
        Outcomes, averaged over repeats.
    trial_item, trial_treated, trial_outcome : ndarray, shape (trials,)
        The trials that the means are of: place of the item in `units`, whether it is of the treated arm, and
        the outcome.
    """

    higher: int
    lower: int
    same: int
    gain_at_least: int | None = None
    harmed_at_least: int | None = None
    seen_gain: int | None = None
    seen_harmed: int | None = None
    spread: float | None = None
    spread_p: float | None = None
    noise: Noise = "independent"
    level: float = 0.95
    n_repeats: int
    incomplete: Mapping[str, int]
    incomplete_units: tuple[str, ...]
    mcnemar_p: float | None = None
    mcnemar_counts: tuple[int, int] | None = None
    units: tuple[str, ...] = unlisted()
    first_row: Ints = unlisted()
    treated: Floats = unlisted()
    control: Floats = unlisted()
    trial_item: Ints = unlisted()
    trial_treated: NDArray[np.bool_] = unlisted()
    trial_outcome: Floats = unlisted()

    @property
    def n_incomplete(self) -> int:
        """Items left out."""
        return sum(self.incomplete.values())

    @property
    def changes(self) -> Floats:
        """Each item's mean difference, nil where only rounding is left of it; shape (items,)."""
        return _changes(self.treated, self.control)

    @property
    def state_labels(self) -> dict[int, str]:
        """What a state of an item means: what is known of items depends on their repeats."""
        if self.gain_at_least is None:
            return {1: "higher in these trials", -1: "lower in these trials", 0: "the same in these trials"}
        if self.noise == "none":
            return {1: "gain", -1: "are harmed", 0: "stay as they were"}
        return {1: "seen to gain", -1: "seen to be harmed", 0: "not told from noise"}


def _changes(treated: Floats, control: Floats) -> Floats:
    change = treated - control
    size = np.maximum(np.abs(treated), np.abs(control))
    return np.where(np.abs(change) <= 1e-13 * size, 0.0, change)


def paired_differences(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    unit: str,
    outcome: str,
    treated: object,
    control: object,
) -> PairedItems:
    """Put the two outcomes of each item side by side, one row of the frame a trial.

    A missing outcome makes its item incomplete where no repeat has one. Raises `DataError` if a column is
    absent or of the wrong kind, `EstimationError` if an arm does not occur or no item has both outcomes.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"item": [1, 1, 2], "arm": ["a", "b", "a"], "y": [0.0, 1.0, 1.0]})
    >>> d = paired_differences(frame, treatment="arm", unit="item", outcome="y", treated="b", control="a")
    >>> d.units, dict(d.incomplete)
    (('1',), {"only under 'a'": 1})
    """
    table = open_table(frame)
    labels = table.labels(unit, role="unit")
    levels = table.labels(treatment, role="arm")
    y = table.numbers(outcome, role="outcome", gaps=True)
    names = [level_name(v) for v in (treated, control)]
    if names[0] == names[1]:
        raise EstimationError(f"the treated and the control arm are both {names[0]!r}")
    present = sorted(set(levels.tolist()))
    for name in names:
        if name not in present:
            raise EstimationError(
                f"no row of arm column {treatment!r} is {name!r}: that arm is empty",
                hint=f"the arms are {', '.join(map(repr, present))}",
            )
    code: dict[str, int] = {}
    index = np.fromiter((code.setdefault(u, len(code)) for u in labels), dtype=np.int64, count=len(labels))
    first = np.full(len(code), len(labels), dtype=np.int64)
    np.minimum.at(first, index, np.arange(len(labels)))
    means, rows, finite, trials = [], [], [], []
    for name in names:
        mask = levels == name
        ok = mask & ~np.isnan(y)
        trials.append(ok)
        n_ok = np.bincount(index[ok], minlength=len(code))
        total = np.bincount(index[ok], weights=y[ok], minlength=len(code))
        means.append(np.divide(total, n_ok, out=np.full(len(code), np.nan), where=n_ok > 0))
        rows.append(np.bincount(index[mask], minlength=len(code)))
        finite.append(n_ok)
    here = (rows[0] > 0) | (rows[1] > 0)
    complete = (finite[0] > 0) & (finite[1] > 0)
    why = {
        f"only under {names[0]!r}": here & (rows[1] == 0),
        f"only under {names[1]!r}": here & (rows[0] == 0),
        "outcome missing": (rows[0] > 0) & (rows[1] > 0) & ~complete,
    }
    every = list(code)
    if not complete.any():
        raise EstimationError(
            f"no {unit!r} has an outcome under both {names[0]!r} and {names[1]!r}",
            hint="a paired design needs both arms on the same items; otherwise leave design='paired' out",
        )
    used = sum(int(f[complete].sum()) for f in finite)
    place = np.cumsum(complete) - 1
    kept = np.flatnonzero((trials[0] | trials[1]) & complete[index])
    one, none = (mean[complete] for mean in means)
    change = _changes(one, none)
    return PairedItems(
        higher=int((change > 0).sum()),
        lower=int((change < 0).sum()),
        same=int((change == 0).sum()),
        units=tuple(every[k] for k in np.flatnonzero(complete)),
        first_row=first[complete],
        treated=one,
        control=none,
        n_repeats=used - 2 * int(complete.sum()),
        incomplete={name: int(mask.sum()) for name, mask in why.items() if mask.any()},
        incomplete_units=tuple(every[k] for k in np.flatnonzero(here & ~complete)[:20]),
        trial_item=place[index[kept]],
        trial_treated=trials[0][kept],
        trial_outcome=y[kept],
    )


def paired_scale(pairs: PairedItems, *, clustered: bool) -> Scale:
    """Tell which interval a mean difference has: of counts, of risks, or of a number without bounds.

    Repeats of a 0/1 outcome are averaged within an item; their means are risks all the same. Items sampled in
    groups (`clustered`) are no independent counts.
    """
    if not is_binary(pairs.trial_outcome, pairs.trial_outcome):
        return "free"
    return "counts" if is_binary(pairs.treated, pairs.control) and not clustered else "risks"


def item_labels(table: Table, name: str, unit: str, pairs: PairedItems, *, role: str) -> NDArray[Any]:
    """Read a property of the item for each complete item, as text; `role` is for messages.

    Raises `DataError` if it varies within an item.
    """
    labels = table.labels(name, role=role)
    units = table.labels(unit, role="unit")
    seen: dict[str, str] = {}
    for u, value in zip(units, labels, strict=True):
        if seen.setdefault(u, value) != value:
            raise DataError(
                f"{role} column {name!r} varies within {unit!r} {u!r} ({seen[u]!r} and {value!r})",
                hint="it must be a property of the item, known before the arm is chosen",
            )
    return labels[pairs.first_row]


def paired_interval(
    d: Floats, error: float | None, df: float | None, level: float, scale: Scale
) -> tuple[float | None, float | None, float | None]:
    """Give the interval (low, high) and the two-sided p of the mean difference.

    For 0/1 outcomes the t interval can leave [-1, 1], and has no width where all items behave alike: there
    the adjusted Wald interval of Bonett and Price is used, and the exact McNemar p. Means of repeated 0/1
    outcomes keep the t interval, within [-1, 1]. `error` and `df` are those of
    `whyprompt.stats.clusters.known_error`, `scale` that of `paired_scale`.
    """
    estimate, n = float(d.mean()), len(d)
    if scale == "counts" and n > 1:
        gained, lost = int((d > 0).sum()), int((d < 0).sum())
        a, b = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
        half = quantile(level) * float(np.sqrt((a + b - (a - b) ** 2) / (n + 2)))
        return max(a - b - half, -1.0), min(a - b + half, 1.0), mcnemar_p(gained, lost)
    if error is None or df is None:
        return None, None, None
    half = quantile(level, df) * error
    low, high = estimate - half, estimate + half
    if scale == "risks":
        low, high = max(low, -1.0), min(high, 1.0)
    return low, high, two_sided_p(estimate, error, df)


def mean_change(
    label: str,
    d: Floats,
    cluster: NDArray[Any] | None,
    *,
    level: float,
    scale: Scale,
    size: float,
    **more: Any,  # noqa: ANN401 - fields of the estimate
) -> Estimate:
    """State the mean of items' differences by `paired_interval`; `size` tells a spread from rounding."""
    error, df, _ = known_error(d, cluster, size)
    low, high, p = paired_interval(d, error, df, level, scale)
    ends = {"ci_low": low, "ci_high": high, "p_value": p}
    return stated(label, float(d.mean()), error, df, level=level, **ends, **more)


def mcnemar_p(gained: int, lost: int) -> float:
    """Return McNemar's exact two-sided p of the items that one arm alone gets right."""
    from scipy import stats

    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def named_arms(table: Table, column: str, treated: object | None, control: object | None) -> tuple[str, str]:
    """Settle which two arms are meant, where the table leaves no doubt.

    Raises `EstimationError` if there are more than two and not both are named.
    """
    if treated is not None and control is not None:
        return level_name(treated), level_name(control)
    named = set(table.labels(column, role="treatment").tolist())
    if len(named) > 2:
        raise EstimationError(
            "a paired design needs the names of both arms, and"
            f" {column!r} has {counted(len(named), 'level')}",
            hint="treated=..., control=...; for all of them at once compare_arms(design='paired')",
        )
    return arms(table, column, treated=treated, control=control)[1:]


def refuse_adjustment(asked: Mapping[str, object]) -> None:
    """Refuse by name what only a comparison of different rows takes; None and an empty list say nothing."""
    foreign = [name for name, value in asked.items() if value not in (None, (), [])]
    if foreign:
        one = len(foreign) == 1
        raise EstimationError(
            f"{', '.join(f'{name}=' for name in foreign)} {'has' if one else 'have'} no meaning with"
            " design='paired', where each item is compared with itself",
            hint=f"leave {'it' if one else 'them'} out",
        )
