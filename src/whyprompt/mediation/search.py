"""The smallest set of heads that carries a share of a prompt's effect, scored on held-out items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import percent
from whyprompt.errors import MediationError
from whyprompt.mediation.results import quantity_of
from whyprompt.mediation.sweep import head_sweep, open_search, set_sweep, sweep_sets
from whyprompt.stats.intervals import MeanInterval, interval_words, mean_interval, share_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import HeadSweep, SetSweep

    Array = NDArray[np.float64]

__all__ = ["HeadSearch", "find_heads"]

Head = tuple[int, int]
Way = Literal["nie", "pure_nie"]
_FEW = 8
"""Held-out sampling units below which how often an interval holds the share was not counted."""
_WAYS: tuple[Way, ...] = ("nie", "pure_nie")


@dataclass(frozen=True, kw_only=True, eq=False)
class CarriedShare:
    """What a growing set of heads carries in one direction.

    Attributes
    ----------
    quantity : {"nie", "pure_nie"}
        `nie`: what is lost when the set is taken out of prompt 1; `pure_nie`: what is gained when it is
        put into prompt 0.
    search_share, held_out_share : ndarray, shape (path,)
        Mean joint effect of the first k heads over the mean total effect, on the items that the
        search saw and on those that it did not.
    joint, direct : MeanInterval
        Joint effect of the chosen set on the held-out items, and the rest of the total effect there
        (the NDE beside `nie`, the total NDE beside `pure_nie`).
    share_low, share_high : float
        Interval of the chosen set's held-out share (see `share_interval`); infinite where the items
        do not bound it.
    """

    quantity: Literal["nie", "pure_nie"]
    search_share: Array
    held_out_share: Array
    joint: MeanInterval
    direct: MeanInterval
    share_low: float
    share_high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadSearch:
    """A growing set of heads and the share of the total effect that it carries.

    Attributes
    ----------
    method : str
    share : float
        The share that was asked for, in every direction.
    heads : tuple of (layer, head)
        The chosen set, in the order in which heads joined.
    path : tuple of (layer, head)
        All heads that joined, the chosen ones first.
    ways : tuple of CarriedShare
        The directions: `nie` and `pure_nie`; one of them where the mediator is the attention row.
    reached : bool
        Whether the search items reached `share` in every direction.
    total : MeanInterval
        Total effect on the held-out items.
    search_items, held_out_items : tuple of str
    sentence : str
    """

    method: str
    share: float
    heads: tuple[Head, ...]
    path: tuple[Head, ...]
    ways: tuple[CarriedShare, ...]
    reached: bool
    total: MeanInterval
    search_items: tuple[str, ...]
    held_out_items: tuple[str, ...]
    sentence: str

    @property
    def search_share(self) -> Array:
        """Share that every direction reaches on the items searched on: the smallest, shape (path,)."""
        return np.asarray(np.min([w.search_share for w in self.ways], axis=0))

    @property
    def held_out_share(self) -> Array:
        """Share that every direction reaches on the held-out items: the smallest, shape (path,)."""
        return np.asarray(np.min([w.held_out_share for w in self.ways], axis=0))

    @property
    def least(self) -> CarriedShare:
        """The direction in which the chosen set carries the least of the effect on the held-out items."""
        return min(self.ways, key=lambda w: float(w.held_out_share[len(self.heads) - 1]))

    def to_frame(self) -> pd.DataFrame:
        """One row a head of the path.

        Returns
        -------
        pandas.DataFrame
            Columns n_heads, layer, head, for each direction its `search_nie` and `held_out_nie` (or
            `..._pure_nie`), chosen.
        """
        import pandas as pd

        n = len(self.path)
        columns: dict[str, Any] = {
            "n_heads": np.arange(1, n + 1),
            "layer": [layer for layer, _ in self.path],
            "head": [head for _, head in self.path],
        }
        for way in self.ways:
            columns[f"search_{way.quantity}"] = way.search_share
            columns[f"held_out_{way.quantity}"] = way.held_out_share
        return pd.DataFrame(columns | {"chosen": np.arange(n) < len(self.heads)})


def find_heads(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    sweep: HeadSweep | None = None,
    method: Literal["greedy", "ranked"] = "greedy",
    share: float = 0.8,
    max_heads: int = 32,
    candidates: int = 32,
    held_out: float = 0.5,
    level: float = 0.95,
    random_state: int = 0,
    progress: Callable[[int, float], None] | None = None,
    **options: Any,  # noqa: ANN401  # handed to the sweeps
) -> HeadSearch:
    """Grow the smallest set of heads that carries a share of the total effect in both directions.

    A set carries the effect where taking it out of prompt 1 loses the share (`nie`) and putting it
    into prompt 0 gains it (`pure_nie`). One direction alone does not tell: of two heads that are both
    needed, each has the whole `nie` and no `pure_nie`; of two that back each other up, each has the
    whole `pure_nie` and no `nie`. Only the pair has both.

    Heads are ranked by the mean of the two. The greedy search adds the head with which the joint
    effect, averaged over both, is largest; the ranked search adds heads in the order of the ranking.
    Both see the search items only; the shares that are reported are those of the held-out items.
    Attention rows move in one direction only, so with ``mediator="attention_row"`` that one ranks and
    counts, and the sentence says so.

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
    max_heads : int, default 32
    candidates : int, default 32
        How many heads of the ranking the greedy search chooses from.
    held_out : float, default 0.5
        Share of clusters that the search does not see.
    level : float, default 0.95
    random_state : int
        Draws the split.
    progress : callable, optional
        Called with (heads so far, share on the search items that every direction reaches).
    **options
        `mediator`, `outcome` and `max_extra_bytes` of `head_sweep`.

    Returns
    -------
    HeadSearch

    Raises
    ------
    MediationError
        If there are fewer than two clusters on either side of the split, the items of either
        side have no total effect to share out, or the sweep's mediator or outcome is another.

    References
    ----------
    Conmy et al. (2023). Towards automated circuit discovery. NeurIPS 36.
    Wang et al. (2023). Interpretability in the wild. ICLR, section 3 (backup heads).

    Examples
    --------
    >>> find_heads(model, pairs, share=0.8).sentence  # doctest: +SKIP
    """
    if method not in {"greedy", "ranked"}:
        raise MediationError(f"unknown method {method!r}", hint="greedy or ranked")
    if not share > 0 or not 0 < held_out < 1 or max_heads < 1 or candidates < 1:
        raise MediationError("share, max_heads and candidates are positive; held_out lies between 0 and 1")
    if not 0 < level < 1:
        raise MediationError(f"level is {level!r}, but it lies between 0 and 1")
    options = _matching(sweep, options)
    seen, unseen = _split(pairs, held_out, random_state)
    if sweep is None:
        sweep = head_sweep(model, seen, **options)
    score, total = _scores(sweep, seen)
    ranking = [sweep.heads[i] for i in np.argsort(-score, kind="stable")]
    ways = [q for q in _WAYS if q in sweep.quantities]

    path: list[Head] = []
    curve: list[Array] = []
    with open_search(model, seen, **options) as runner:

        def grow(sets: list[list[Head]]) -> Array:
            """Share of the total effect that each set carries, directions x sets."""
            joint = sweep_sets(runner, seen, {str(i): s for i, s in enumerate(sets)})
            return np.stack([getattr(joint, q).mean(0) for q in ways]) / total

        if method == "ranked":
            path = ranking[:max_heads]
            curve = list(grow([path[: k + 1] for k in range(len(path))]).T)
        else:
            pool = ranking[:candidates]
            while pool and len(path) < max_heads and not (curve and curve[-1].min() >= share):
                shares = grow([[*path, h] for h in pool])
                best = int(np.argmax(shares.mean(0)))
                path.append(pool.pop(best))
                curve.append(shares[:, best])
                if progress is not None:
                    progress(len(path), float(curve[-1].min()))
    at = next((k for k, shares in enumerate(curve) if shares.min() >= share), None)
    chosen = path if at is None else path[: at + 1]
    nested = {str(k): path[: k + 1] for k in range(len(path))}
    test = set_sweep(model, unseen, nested, directions=ways, **options)
    whole = mean_interval(test.te, cluster=test.clusters, level=level)
    _check_total(test.te, "held-out")
    found = tuple(_carried(q, np.array(curve)[:, i], test, len(chosen), level) for i, q in enumerate(ways))
    return HeadSearch(
        method=method,
        share=share,
        heads=tuple(chosen),
        path=tuple(path),
        ways=found,
        reached=at is not None,
        total=whole,
        search_items=tuple(p.item_id for p in seen),
        held_out_items=test.item_ids,
        sentence=_sentence(chosen, found, at is not None, share, whole, level, test.mediator),
    )


def _carried(quantity: Way, curve: Array, test: SetSweep, n_chosen: int, level: float) -> CarriedShare:
    """Measure what the path carries in one direction, on the held-out items."""
    joint = quantity_of(test, quantity)
    part = joint[:, n_chosen - 1]
    low, high = share_interval(part, test.te, cluster=test.clusters, level=level)
    return CarriedShare(
        quantity=quantity,
        search_share=curve,
        held_out_share=joint.mean(0) / test.te.mean(),
        joint=mean_interval(part, cluster=test.clusters, level=level),
        direct=mean_interval(test.te - part, cluster=test.clusters, level=level),
        share_low=low,
        share_high=high,
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
    """Rank heads on the search items by their share of the total effect, the mean of both directions."""
    at = {item: i for i, item in enumerate(sweep.item_ids)}
    missing = [p.item_id for p in seen if p.item_id not in at]
    if missing:
        raise MediationError(
            f"the sweep has no item {missing[0]!r}", hint="leave `sweep` out, or run it on all"
        )
    rows = [at[p.item_id] for p in seen]
    te = sweep.te[rows]
    _check_total(te, "search")
    total = float(te.mean())
    # As shares, so that a head counts for what it does towards the total effect, whatever its sign.
    means = [quantity_of(sweep, q)[rows].mean(0) for q in _WAYS if q in sweep.quantities]
    return np.asarray(sum(means) / len(means)) / total, total


def _check_total(te: Array, which: str) -> None:
    if abs(float(te.mean())) <= 1e-9 * max(1.0, float(np.abs(te).max())):
        raise MediationError(f"the {which} items have no total effect, so there is nothing to share out")


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


def _sentence(
    chosen: Sequence[Head],
    ways: Sequence[CarriedShare],
    reached: bool,  # noqa: FBT001  # private
    share: float,
    total: MeanInterval,
    level: float,
    mediator: str,
) -> str:
    k = len(chosen) - 1
    names = ", ".join(f"{layer}.{head}" for layer, head in chosen[:8]) + (", ..." if len(chosen) > 8 else "")
    words = percent(level)
    carried = " and ".join(
        f"{_percent(float(w.held_out_share[k]))} ({_share_words(w, words)}) {_MOVED[w.quantity]}"
        for w in ways
    )
    text = (
        f"{len(chosen)} head{'s' if len(chosen) > 1 else ''} ({names}; layer.head) together carry, of the "
        f"total effect of {total.mean:.3g} on {total.n_items} held-out items, {carried}."
    )
    text += "".join(_beyond(w, float(w.held_out_share[k])) for w in ways)
    if len(ways) == 1:
        text += f" Only this direction can be run with mediator {mediator!r}: the other may carry less."
    if not reached:
        shares = ", ".join(f"{_SHORT[w.quantity]} {_percent(float(w.search_share[k]))}" for w in ways)
        text += f" The search stopped before {_percent(share)} was reached on its own items ({shares})."
    if total.ci_low <= 0 <= total.ci_high:
        text += " The total effect itself is not distinguishable from zero on these items"
        text += ", so a share of it says little."
    if total.n_clusters < _FEW:
        text += f" With {total.n_clusters} held-out sampling units the intervals are rough: add items."
    return text + " Other sets may carry as much; heads act at the answer positions only."


_SHORT = {"nie": "NIE", "pure_nie": "pure NIE"}
_REST = {"nie": "NDE", "pure_nie": "total NDE"}
_MOVED = {"nie": "when taken out of prompt 1 (NIE)", "pure_nie": "when put into prompt 0 (pure NIE)"}


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%".replace("-0%", "0%") if abs(share) < 0.005 else f"{100 * share:.0f}%"


def _share_words(way: CarriedShare, level: str) -> str:
    """Put the interval of a share into words; an end that the items do not bound is said."""
    low, high = way.share_low, way.share_high
    if np.isinf(low) and np.isinf(high):
        return f"{level} interval: these items do not bound the share"
    if np.isinf(low) or np.isinf(high):
        end, word = (high, "upper") if np.isinf(low) else (low, "lower")
        return f"{level} interval: {_percent(end)} is the {word} bound, and there is no other"
    return f"{level} interval {_percent(low)} to {_percent(high)}"


def _beyond(way: CarriedShare, share: float) -> str:
    """Say why a share lies outside of 0 to 100%: what is left, or the set, pulls the other way."""
    if -0.005 < share < 1.005:
        return ""
    joint, direct = (f"{i.mean:.3g} ({interval_words(i.ci_low, i.ci_high)})" for i in (way.joint, way.direct))
    name, rest = _SHORT[way.quantity], _REST[way.quantity]
    text = f" The joint {name} is {joint} and the rest of the total effect, the {rest}, {direct}: "
    against = way.direct if share > 1 else way.joint
    if against.ci_low <= 0 <= against.ci_high:
        return text + f"a share {'beyond 100%' if share > 1 else 'below 0'} may be chance."
    if share > 1:
        return text + "the two pull against each other, so that the part is larger than the whole."
    return text + "the set pulls against the total effect."
