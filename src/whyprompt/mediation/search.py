"""The smallest set of heads that carries a share of a prompt's effect, scored on held-out items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import percent
from whyprompt.errors import MediationError
from whyprompt.mediation.inference import MeanInterval, mean_interval
from whyprompt.mediation.results import quantity_of
from whyprompt.mediation.sweep import head_sweep, open_search, set_sweep, sweep_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import HeadSweep, SetSweep
    from whyprompt.mediation.runner import Direction

    Array = NDArray[np.float64]

__all__ = ["HeadSearch", "find_heads"]

Head = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadSearch:
    """A growing set of heads and the share of the total effect that it carries.

    Attributes
    ----------
    method, quantity : str
    share : float
        The share that was asked for.
    heads : tuple of (layer, head)
        The chosen set, in the order in which heads joined.
    path : tuple of (layer, head)
        All heads that joined, the chosen ones first.
    search_share, held_out_share : ndarray, shape (path,)
        Mean joint effect of the first k heads over the mean total effect, on the items that the
        search saw and on those that it did not.
    reached : bool
        Whether the search items reached `share`.
    carried : MeanInterval
        Joint effect of the chosen set on the held-out items.
    total : MeanInterval
        Total effect on the held-out items.
    share_low, share_high : float
        Interval of the held-out share (ratio of means, delta method, clustered).
    search_items, held_out_items : tuple of str
    sentence : str
    """

    method: str
    quantity: str
    share: float
    heads: tuple[Head, ...]
    path: tuple[Head, ...]
    search_share: Array
    held_out_share: Array
    reached: bool
    carried: MeanInterval
    total: MeanInterval
    share_low: float
    share_high: float
    search_items: tuple[str, ...]
    held_out_items: tuple[str, ...]
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """One row a head of the path: n_heads, layer, head, search_share, held_out_share, chosen.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        n = len(self.path)
        return pd.DataFrame(
            {
                "n_heads": np.arange(1, n + 1),
                "layer": [layer for layer, _ in self.path],
                "head": [head for _, head in self.path],
                "search_share": self.search_share,
                "held_out_share": self.held_out_share,
                "chosen": np.arange(n) < len(self.heads),
            }
        )


def find_heads(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    sweep: HeadSweep | None = None,
    method: Literal["greedy", "ranked"] = "greedy",
    share: float = 0.8,
    quantity: Literal["nie", "pure_nie"] = "nie",
    max_heads: int = 32,
    candidates: int = 32,
    held_out: float = 0.5,
    conf_level: float = 0.95,
    random_state: int = 0,
    progress: Callable[[int, float], None] | None = None,
    **options: Any,  # noqa: ANN401  # handed to the sweeps
) -> HeadSearch:
    """Grow the smallest set of heads whose joint effect is a share of the total effect.

    Heads are ranked by the mean of their `nie` and `pure_nie`: a head with a backup has no
    `nie`, since the backup steps in, but it has a `pure_nie`. The greedy search adds the head
    with which the joint effect, averaged over the same two directions, is largest; the ranked
    search adds heads in the order of the ranking. Both see the search items only; the share
    that is reported is that of the held-out items. Attention rows move in one direction only, so
    with ``mediator="attention_row"`` that one ranks, and a backup stays hidden.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    sweep : HeadSweep, optional
        A finished sweep over at least the search items, in both directions; run here if absent.
        Its mediator and outcome are those of the search.
    method : {"greedy", "ranked"}
    share : float, default 0.8
        Share of the total effect to reach on the search items.
    quantity : {"nie", "pure_nie"}
        The joint effect whose share counts.
    max_heads : int, default 32
    candidates : int, default 32
        How many heads of the ranking the greedy search chooses from.
    held_out : float, default 0.5
        Share of clusters that the search does not see.
    conf_level : float, default 0.95
    random_state : int
        Draws the split.
    progress : callable, optional
        Called with (heads so far, share on the search items).
    **options
        `mediator`, `outcome` and `max_extra_bytes` of `head_sweep`.

    Returns
    -------
    HeadSearch

    Raises
    ------
    MediationError
        If there are fewer than two clusters on either side of the split, the search items
        have no total effect to share out, or the sweep's mediator or outcome is another.

    References
    ----------
    Conmy et al. (2023). Towards automated circuit discovery. NeurIPS 36.
    Wang et al. (2023). Interpretability in the wild. ICLR, section 3 (backup heads).

    Examples
    --------
    >>> find_heads(model, pairs, share=0.8).sentence  # doctest: +SKIP
    """
    if method not in {"greedy", "ranked"} or quantity not in {"nie", "pure_nie"}:
        raise MediationError(f"unknown method {method!r} or quantity {quantity!r}")
    if not share > 0 or not 0 < held_out < 1 or max_heads < 1 or candidates < 1:
        raise MediationError("share, max_heads and candidates are positive; held_out lies between 0 and 1")
    if not 0 < conf_level < 1:
        raise MediationError(f"conf_level is {conf_level!r}, but it lies between 0 and 1")
    options = _matching(sweep, options)
    seen, unseen = _split(pairs, held_out, random_state)
    if sweep is None:
        sweep = head_sweep(model, seen, **options)
    score, total = _scores(sweep, seen)
    order = np.argsort(-score, kind="stable")
    ranking = [sweep.heads[i] for i in order]
    sign = np.sign(total)

    path: list[Head] = []
    curve: list[float] = []
    with open_search(model, seen, **options) as runner:

        def grow(sets: list[list[Head]]) -> SetSweep:
            return sweep_sets(runner, seen, {str(i): s for i, s in enumerate(sets)})

        if method == "ranked":
            nested = [ranking[: k + 1] for k in range(min(max_heads, len(ranking)))]
            joint = getattr(grow(nested), quantity).mean(0) / total
            path, curve = nested[-1], list(joint)
        else:
            pool = ranking[:candidates]
            while pool and len(path) < max_heads and not (curve and curve[-1] >= share):
                result = grow([[*path, h] for h in pool])
                best = int(np.argmax(_both_ways(result) * sign))
                path.append(pool.pop(best))
                curve.append(float(getattr(result, quantity)[:, best].mean() / total))
                if progress is not None:
                    progress(len(path), curve[-1])
    at = next((k for k, value in enumerate(curve) if value >= share), None)
    chosen = path if at is None else path[: at + 1]
    nested = [path[: k + 1] for k in range(len(path))]
    directions: tuple[Direction, ...] = ("nie",) if quantity == "nie" else ("pure_nie",)
    test = set_sweep(
        model, unseen, {str(i): s for i, s in enumerate(nested)}, directions=directions, **options
    )
    joint = getattr(test, quantity)
    carried = mean_interval(joint[:, len(chosen) - 1], clusters=test.clusters, conf_level=conf_level)
    whole = mean_interval(test.te, clusters=test.clusters, conf_level=conf_level)
    low, high = _ratio_interval(joint[:, len(chosen) - 1], test.te, test.clusters, conf_level)
    return HeadSearch(
        method=method,
        quantity=quantity,
        share=share,
        heads=tuple(chosen),
        path=tuple(path),
        search_share=np.array(curve),
        held_out_share=joint.mean(0) / whole.mean,
        reached=at is not None,
        carried=carried,
        total=whole,
        share_low=low,
        share_high=high,
        search_items=tuple(p.item_id for p in seen),
        held_out_items=test.item_ids,
        sentence=_sentence(chosen, at is not None, share, carried, whole, (low, high), conf_level),
    )


def _split(
    pairs: Sequence[PromptPair], held_out: float, random_state: int
) -> tuple[list[PromptPair], list[PromptPair]]:
    clusters = sorted({p.cluster for p in pairs})
    n = round(len(clusters) * held_out)
    if n < 2 or len(clusters) - n < 2:
        raise MediationError(
            f"{len(clusters)} sampling units with held_out={held_out} leave {len(clusters) - n} to search on "
            f"and {n} to score on; each side needs two",
            hint="add items",
        )
    drawn = np.random.default_rng(random_state).permutation(len(clusters))[:n]
    out = {clusters[i] for i in drawn}
    return [p for p in pairs if p.cluster not in out], [p for p in pairs if p.cluster in out]


def _scores(sweep: HeadSweep, seen: Sequence[PromptPair]) -> tuple[Array, float]:
    """Rank heads on the search items by the mean of both directions, signed like the total effect."""
    at = {item: i for i, item in enumerate(sweep.item_ids)}
    missing = [p.item_id for p in seen if p.item_id not in at]
    if missing:
        raise MediationError(
            f"the sweep has no item {missing[0]!r}", hint="leave `sweep` out, or run it on all"
        )
    rows = [at[p.item_id] for p in seen]
    te = sweep.te[rows]
    total = float(te.mean())
    if abs(total) <= 1e-9 * max(1.0, float(np.abs(te).max())):
        raise MediationError("the search items have no total effect, so there is nothing to share out")
    return _both_ways(sweep, rows) * np.sign(total), total


def _both_ways(sweep: HeadSweep | SetSweep, rows: list[int] | None = None) -> Array:
    """Mean effect of each mediator over some items and the directions that were run."""
    ways = [q for q in ("nie", "pure_nie") if q in sweep.quantities]
    means = [quantity_of(sweep, q)[slice(None) if rows is None else rows].mean(0) for q in ways]
    return np.asarray(sum(means) / len(means))


def _matching(sweep: HeadSweep | None, options: dict[str, Any]) -> dict[str, Any]:
    """Give the options of the search: a finished sweep's mediator and outcome, unless they differ."""
    if sweep is None:
        return options
    own = {"mediator": sweep.mediator, "outcome": sweep.outcome}
    for name, value in own.items():
        if options.get(name, value) != value:
            raise MediationError(
                f"the sweep's {name} is {value!r}, but {options[name]!r} was asked for",
                hint="a share of one is no share of the other: leave `sweep` out, or the option",
            )
    if sweep.mediator == "head_output" and not {"nie", "pure_nie"} <= set(sweep.quantities):
        raise MediationError(
            "the sweep ran in one direction only",
            hint="the search ranks heads by both: run head_sweep without `directions`",
        )
    return own | options


def _ratio_interval(
    part: Array, whole: Array, clusters: Sequence[str], conf_level: float
) -> tuple[float, float]:
    """Delta-method interval of mean(part) / mean(whole)."""
    ratio = float(part.mean() / whole.mean())
    # The ratio's influence on each item; its mean is zero, so its standard error is the ratio's.
    influence = mean_interval((part - ratio * whole) / whole.mean(), clusters=clusters, conf_level=conf_level)
    half = influence.ci_high - influence.mean
    return ratio - half, ratio + half


def _sentence(
    chosen: Sequence[Head],
    reached: bool,  # noqa: FBT001  # private
    share: float,
    carried: MeanInterval,
    total: MeanInterval,
    interval: tuple[float, float],
    conf_level: float,
) -> str:
    names = ", ".join(f"{layer}.{head}" for layer, head in chosen[:8]) + (", ..." if len(chosen) > 8 else "")
    ratio = carried.mean / total.mean
    level = percent(conf_level)
    text = (
        f"{len(chosen)} head{'s' if len(chosen) > 1 else ''} ({names}; layer.head) together carry "
        f"{100 * ratio:.0f}% ({level} interval {100 * interval[0]:.0f}% to {100 * interval[1]:.0f}%) "
        f"of the total effect of {total.mean:.3g} on {carried.n_items} held-out items."
    )
    if not reached:
        text += f" The search stopped before {100 * share:.0f}% was reached on its own items."
    if total.ci_low <= 0 <= total.ci_high:
        text += " The total effect itself is not distinguishable from zero on these items"
        text += ", so a share of it says little."
    return text + " Other sets may carry as much; heads act at the answer positions only."
