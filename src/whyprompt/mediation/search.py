"""The smallest set of heads, or other sites, that carries a share of an effect, scored on held-out items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import numpy as np

from whyprompt._words import counted, percent
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import KIND_WORDS, as_sites, refuse_streams, those_named
from whyprompt.mediation.intervals import check_level, interval_words, mean_interval, share_interval
from whyprompt.mediation.results import columns_of, heads_of, kind_of
from whyprompt.mediation.sweep import open_runner, set_sweep, site_sweep, sweep_rows
from whyprompt.results import Estimate, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.runner import Mediator, Outcome, Tokens
    from whyprompt.mediation.engine.sites import Site, SiteLike
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import Head, Sweep

    Array = NDArray[np.float64]

Way = Literal["nie", "pure_nie"]
FEW = 8
"""Held-out sampling units below which how often an interval holds the share was not counted."""
_WAYS: tuple[Way, ...] = ("nie", "pure_nie")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadSearch(Result):
    """A growing set of heads, or of other sites, and the share of the total effect that it carries.

    `overall` is the total effect on the held-out items. `parts` are of the chosen set on those items, three
    a direction, which `by` names: "share" of the total effect (an end of its interval is infinite where the
    items do not bound it), "joint" effect, and "direct", the rest of the total effect (the NDE beside `nie`,
    the total NDE beside `pure_nie`).

    Attributes
    ----------
    method : str
    share : float
        The share that was asked for, in every direction.
    sites : tuple of str
        The chosen set, in the order in which they joined: ``"head 14.1"``, ``"mlp 14"``.
    path : tuple of str
        All that joined, the chosen ones first.
    searched, held_out : mapping of str to ndarray, shape (path,)
        By direction, mean joint effect of the first k of them over the mean total effect, on the items that
        the search saw and on those that it did not. `nie`: what is lost when the set is taken out of prompt
        1; `pure_nie`: what is gained when it is put into prompt 0. One of them where the mediator is the
        attention row.
    reached : bool
        Whether the search items reached `share` in every direction.
    search_items, held_out_items : tuple of str
    """

    method: str
    share: float
    sites: tuple[str, ...]
    path: tuple[str, ...]
    searched: Mapping[str, Array]
    held_out: Mapping[str, Array]
    reached: bool
    search_items: tuple[str, ...]
    held_out_items: tuple[str, ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of the chosen set, as (layer, head)."""
        return heads_of(as_sites(self.sites))

    @property
    def noun(self) -> str:
        """What one of the path is called: a head, where all are."""
        return KIND_WORDS[kind_of(as_sites(self.path))]

    @property
    def search_share(self) -> Array:
        """Share that every direction reaches on the items searched on: the smallest, shape (path,)."""
        return np.asarray(np.min([*self.searched.values()], axis=0))

    @property
    def held_out_share(self) -> Array:
        """Share that every direction reaches on the held-out items: the smallest, shape (path,)."""
        return np.asarray(np.min([*self.held_out.values()], axis=0))

    @property
    def least(self) -> Estimate:
        """The share in the direction in which the chosen set carries the least, on the held-out items."""
        return self.part("share", by=min(self.held_out, key=lambda q: self.held_out[q][len(self.sites) - 1]))

    def to_frame(self) -> pd.DataFrame:
        """One row a head, or other site, of the path.

        Returns
        -------
        pandas.DataFrame
            Columns n_heads, layer, head (where other sites joined n_sites, site, kind, layer), for each
            direction its `search_nie` and `held_out_nie` (or `..._pure_nie`), chosen.
        """
        import pandas as pd

        n = len(self.path)
        columns: dict[str, Any] = columns_of(as_sites(self.path), {})
        columns = {"n_heads" if "head" in columns else "n_sites": np.arange(1, n + 1), **columns}
        for quantity in self.held_out:
            columns[f"search_{quantity}"] = self.searched[quantity]
            columns[f"held_out_{quantity}"] = self.held_out[quantity]
        return pd.DataFrame(columns | {"chosen": np.arange(n) < len(self.sites)})

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import search_plot

        return {"search": lambda: search_plot(self)}


def find_heads(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    sweep: Sweep | None = None,
    sites: Sequence[SiteLike] = ("head",),
    method: Literal["greedy", "ranked"] = "greedy",
    share: float = 0.8,
    max_heads: int = 32,
    candidates: int = 32,
    held_out: float = 0.5,
    level: float = 0.95,
    mediator: Mediator | None = None,
    tokens: Tokens | None = None,
    outcome: Outcome | None = None,
    max_extra_bytes: int = 256 << 20,
    random_state: int = 0,
    progress: Progress | None = None,
) -> HeadSearch:
    """Grow the smallest set of heads, or sites, that carries a share of the total effect in both directions.

    A set carries the effect where taking it out of prompt 1 loses the share (`nie`) and putting it
    into prompt 0 gains it (`pure_nie`). One direction alone does not tell: of two heads that are both
    needed, each has the whole `nie` and no `pure_nie`; of two that back each other up, each has the
    whole `pure_nie` and no `nie`. Only the pair has both.

    Heads are ranked by the mean of the two, and other sites (`sites`) with them. The greedy search adds the
    one with which the joint effect, averaged over both, is largest; the ranked search adds them in order.
    Both see the search items only; the shares that are reported are those of the held-out items.
    Attention rows move in one direction only, so with ``mediator="attention_row"`` that one ranks and
    counts, and the sentence says so.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    sweep : Sweep, optional
        A finished sweep over at least the search items, in both directions; run here if absent.
    sites : sequence of str or (layer, head), default ("head",)
        What may join: names as of `site_sweep`, "head", "mlp", "attn 14", "neuron 14.123". Residual streams
        may not: one alone carries whatever all below it does. Of a finished sweep what it has of them.
    method : {"greedy", "ranked"}
    share : float, default 0.8
        Share of the total effect to reach on the search items.
    max_heads : int, default 32
        The most heads, or sites, in the set.
    candidates : int, default 32
        How many of the ranking the greedy search chooses from.
    held_out : float, default 0.5
        Share of clusters that the search does not see.
    level : float, default 0.95
    mediator, tokens, outcome, max_extra_bytes
        As in `head_sweep`; of a finished sweep its own.
    random_state : int
        Draws the split.
    progress : callable, optional
        Called with (how many joined, `max_heads`, the share of the search items' effect so far in words).

    Returns
    -------
    HeadSearch

    Raises
    ------
    MediationError
        If there are fewer than two clusters on either side of the split, the items of either
        side have no total effect to share out, the sweep's mediator or outcome is another, or `sites` names
        none, residual streams, or what the sweep or the model has not.

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
    check_level(level)
    refuse_streams(map(str, sites))
    options = _matching(sweep, mediator, tokens, outcome, max_extra_bytes)
    seen, unseen = split_items(pairs, held_out, random_state)
    if sweep is None:
        sweep = site_sweep(model, seen, sites, **options)
    score, total = _scores(sweep, seen)
    allowed = frozenset(those_named(sites, sweep.sites))
    ranking = [sweep.sites[i] for i in np.argsort(-score, kind="stable") if sweep.sites[i] in allowed]
    ways = [q for q in _WAYS if q in sweep.quantities]

    path: list[Site] = []
    curve: list[Array] = []
    with open_runner(model, seen, keep=True, **options) as runner:

        def grow(sets: list[list[Site]]) -> Array:
            """Share of the total effect that each set carries, directions x sets."""
            joint = sweep_rows(runner, seen, {str(i): s for i, s in enumerate(sets)})
            return np.stack([joint.effect(q).mean(0) for q in ways]) / total

        if method == "ranked":
            path = [*ranking[:max_heads]]
            curve = list(grow([path[: k + 1] for k in range(len(path))]).T)
        else:
            pool = [*ranking[:candidates]]
            while pool and len(path) < max_heads and not (curve and curve[-1].min() >= share):
                shares = grow([[*path, h] for h in pool])
                best = int(np.argmax(shares.mean(0)))
                path.append(pool.pop(best))
                curve.append(shares[:, best])
                if progress is not None:
                    progress(len(path), max_heads, f"{percent_words(float(curve[-1].min()))} carried")
    at = next((k for k, shares in enumerate(curve) if shares.min() >= share), None)
    chosen = path if at is None else path[: at + 1]
    nested = {str(k): path[: k + 1] for k in range(len(path))}
    test = set_sweep(model, unseen, nested, directions=ways, **options)
    total_effect = mean_interval(test.te, cluster=test.clusters, level=level, binary=test.binary)
    _check_total(test.te, "held-out")
    out = HeadSearch(
        overall=replace(total_effect, label="total effect"),
        parts=tuple(part for q in ways for part in _carried(q, test, len(chosen), level)),
        level=level,
        axis=f"effect on {test.outcome}, or share of the total effect",
        sentence="",
        method=method,
        share=share,
        sites=tuple(map(str, chosen)),
        path=tuple(map(str, path)),
        searched=dict(zip(ways, np.array(curve).T, strict=True)),
        held_out={q: test.effect(q).mean(0) / test.te.mean() for q in ways},
        reached=at is not None,
        search_items=tuple(p.item_id for p in seen),
        held_out_items=test.item_ids,
    )
    return replace(out, sentence=_sentence(out, test, len(set(test.clusters))))


def _carried(quantity: Way, test: Sweep, n_chosen: int, level: float) -> list[Estimate]:
    """Measure what the chosen set carries in one direction, on the held-out items."""
    joint = test.effect(quantity)
    part = joint[:, n_chosen - 1]
    how: dict[str, Any] = {"cluster": test.clusters, "level": level, "binary": test.binary}
    low, high = share_interval(part, test.te, **how)
    share = Estimate(
        label="share",
        by=quantity,
        estimate=float(joint.mean(0)[n_chosen - 1] / test.te.mean()),
        ci_low=low,
        ci_high=high,
        n_used=len(part),
    )
    effects = {"joint": part, "direct": test.te - part}
    return [
        share,
        *(
            replace(mean_interval(values, **how), label=label, by=quantity)
            for label, values in effects.items()
        ),
    ]


def split_items(
    pairs: Sequence[PromptPair], held_out: float, random_state: int
) -> tuple[list[PromptPair], list[PromptPair]]:
    """Draw whole clusters to search on and to score on."""
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


def _scores(sweep: Sweep, seen: Sequence[PromptPair]) -> tuple[Array, float]:
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
    means = [sweep.effect(q)[rows].mean(0) for q in _WAYS if q in sweep.quantities]
    return np.asarray(sum(means) / len(means)) / total, total


def _check_total(te: Array, which: str) -> None:
    if abs(float(te.mean())) <= 1e-9 * max(1.0, float(np.abs(te).max())):
        raise MediationError(f"the {which} items have no total effect, so there is nothing to share out")


class _Options(TypedDict):
    mediator: Mediator
    tokens: Tokens
    outcome: Outcome
    max_extra_bytes: int


def _matching(
    sweep: Sweep | None,
    mediator: Mediator | None,
    tokens: Tokens | None,
    outcome: Outcome | None,
    max_extra_bytes: int,
) -> _Options:
    """Give the options of the search: a finished sweep's own, unless others are asked for."""
    given = {"mediator": mediator, "tokens": tokens, "outcome": outcome}
    own = {"mediator": "head_output", "tokens": "answer", "outcome": "log_prob"}
    if sweep is not None:
        if sweep.sets:
            raise MediationError(
                "the sweep is one of sets, and single heads are searched",
                hint="give one of head_sweep or site_sweep",
            )
        own = {name: getattr(sweep, name) for name in own}
        for name, value in own.items():
            if given[name] not in {None, value}:
                raise MediationError(
                    f"the sweep's {name} is {value!r}, but {given[name]!r} was asked for",
                    hint="a share of one is no share of the other: leave `sweep` out, or the option",
                )
        if sweep.mediator == "head_output" and not {"nie", "pure_nie"} <= set(sweep.quantities):
            raise MediationError(
                "the sweep ran in one direction only",
                hint="the search ranks heads by both: run head_sweep without `directions`",
            )
    return _Options(
        mediator=mediator or cast("Mediator", own["mediator"]),
        tokens=tokens or cast("Tokens", own["tokens"]),
        outcome=outcome or cast("Outcome", own["outcome"]),
        max_extra_bytes=max_extra_bytes,
    )


def _sentence(r: HeadSearch, test: Sweep, n_clusters: int) -> str:
    chosen, total = r.sites, cast("Estimate", r.overall)
    one_kind = r.noun == "head"
    shown = [name.removeprefix("head ") if one_kind else name for name in chosen[:8]]
    names = ", ".join(shown) + (", ..." if len(chosen) > 8 else "")
    shares = [part for part in r.parts if part.label == "share"]
    carried = " and ".join(
        f"{percent_words(s.estimate)} ({share_words(s, percent(r.level))}) {_MOVED[s.by]}" for s in shares
    )
    text = (
        f"{counted(len(chosen), r.noun)} ({names}{'; layer.head' if one_kind else ''}) "
        f"{'carries' if len(chosen) == 1 else 'together carry'}, of the "
        f"total effect of {total.estimate:.3g} on {test.scale}, over {total.n_used} held-out items, "
        f"{carried}."
    )
    text += "".join(_beyond(r, share) for share in shares)
    if len(shares) == 1:
        text += f" Only this direction can be run with mediator {test.mediator!r}: the other may carry less."
    if not r.reached:
        seen = ", ".join(f"{_SHORT[q]} {percent_words(s[len(chosen) - 1])}" for q, s in r.searched.items())
        text += f" The search stopped before {percent_words(r.share)} was reached on its own items ({seen})."
    if total.ends[0] <= 0 <= total.ends[1]:
        text += " The total effect itself is not distinguishable from zero on these items"
        text += ", so a share of it says little."
    if n_clusters < FEW:
        text += f" With {n_clusters} held-out sampling units the intervals are rough: add items."
    where = "the tokens that both prompts end with" if test.tokens == "suffix" else "the answer positions"
    return f"{text} Other sets may carry as much; {r.noun}s act at {where} only."


_SHORT = {"nie": "NIE", "pure_nie": "pure NIE"}
_REST = {"nie": "NDE", "pure_nie": "total NDE"}
_MOVED = {"nie": "when taken out of prompt 1 (NIE)", "pure_nie": "when put into prompt 0 (pure NIE)"}


def percent_words(share: float | None) -> str:
    """Write a share in percent."""
    share = np.nan if share is None else share
    return f"{100 * share:.0f}%".replace("-0%", "0%") if abs(share) < 0.005 else f"{100 * share:.0f}%"


def share_words(share: Estimate, level: str) -> str:
    """Put the interval of a share into words; an end that the items do not bound is said."""
    low, high = share.ends
    if np.isinf(low) and np.isinf(high):
        return f"{level} interval: these items do not bound the share"
    if np.isinf(low) or np.isinf(high):
        end, word = (high, "upper") if np.isinf(low) else (low, "lower")
        return f"{level} interval: {percent_words(end)} is the {word} bound, and there is no other"
    return f"{level} interval {percent_words(low)} to {percent_words(high)}"


def _beyond(r: HeadSearch, share: Estimate) -> str:
    """Say why a share lies outside of 0 to 100%: what is left, or the set, pulls the other way."""
    value = cast("float", share.estimate)
    if -0.005 < value < 1.005:
        return ""
    both = [r.part(label, by=share.by) for label in ("joint", "direct")]
    joint, direct = (f"{i.estimate:.3g} ({interval_words(*i.ends)})" for i in both)
    name, rest = _SHORT[share.by], _REST[share.by]
    text = f" The joint {name} is {joint} and the rest of the total effect, the {rest}, {direct}: "
    low, high = both[1 if value > 1 else 0].ends
    if low <= 0 <= high:
        return text + f"a share {'beyond 100%' if value > 1 else 'below 0'} may be chance."
    if value > 1:
        return text + "the two pull against each other, so that the part is larger than the whole."
    return text + "the set pulls against the total effect."
