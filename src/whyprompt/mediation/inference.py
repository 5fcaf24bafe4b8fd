"""Statistics of a sweep over items: intervals, correction for the number of heads, stability.

The sample is of items, in clusters where items share a template. Every counterfactual of an
item is computed, so all uncertainty is in which items were drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy import stats

from whyprompt._summary import figures, parts_table
from whyprompt._words import counted, format_number, percent
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import KIND_WORDS
from whyprompt.mediation.intervals import (
    DRAWS,
    bound_alike,
    bounds_of_alike,
    interval_words,
    mean_interval,
    units_of,
)
from whyprompt.mediation.results import column, columns_of, estimates, heads_of
from whyprompt.results import Estimate, Result
from whyprompt.stats import resampling
from whyprompt.stats.clusters import cluster_sums
from whyprompt.stats.several import t_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.mediation.engine.sites import Kind, Site
    from whyprompt.mediation.results import Head, Sweep

    Array = NDArray[np.float64]

_SHOWN = 10
_NAMES = {"nie": "NIE", "nde": "NDE", "pure_nie": "pure NIE", "total_nde": "total NDE"}


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadInference(Result):
    r"""Which sites (heads and others), or sets of them, have an effect, and how sure one may be.

    `overall` is the total effect, `parts` the mean effect of every site or set, in the sweep's order, each
    with its cluster-robust error (CR2) and bootstrap-t interval, for one part at a time and infinite where
    the items do not bound the mean. Every p is the larger of two: that of a studentised bootstrap of whole
    clusters, which takes the effects as skewed as they are, and that of sign flips, which is exact where
    they are symmetric. `p_value` is of the part's own \|t\|; `p_adjusted` step-down of the largest \|t\|:
    familywise, using the parts' dependence; nowhere below `q_value`, so that a name held to the familywise
    error is one that the false discovery rate gives too.

    Attributes
    ----------
    quantity : {"nie", "nde", "pure_nie", "total_nde"}
    sites : tuple of Site
        Of the parts; empty where they are sets.
    sets : mapping of str to tuple of Site
        Of the parts; empty where they are single sites.
    q_value : ndarray, shape (parts,)
        False discovery rate: how many parts' \|t\| would be as large by chance, of those that are. By
        chance is counted over all parts, since a skewed head's \|t\| is large more often than another's.
    nde : ndarray or None, shape (parts,)
        Mean direct effect beside each `nie`.
    n_clusters, draws : int
        Bootstrap samples, and sign patterns where not all of them are used.
    exhaustive : bool
        Whether all sign patterns were used.
    alpha : float
        Level at which the sentence counts heads.
    split_half : Result or None
        Stability: the rank correlation of the mean effects between random halves of the clusters, and the
        share of the largest that both halves name. None with fewer than four clusters.
    """

    quantity: str
    sites: tuple[Site, ...]
    sets: Mapping[str, tuple[Site, ...]]
    q_value: Array
    nde: Array | None
    n_clusters: int
    draws: int
    exhaustive: bool
    alpha: float
    split_half: Result | None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads among the sites."""
        return heads_of(self.sites)

    def of_kind(self, *kinds: Kind) -> HeadInference:
        """Give the parts of some kinds of sites alone; p, q and the sentence are still those of all.

        Returns
        -------
        HeadInference
        """
        at = [k for k, site in enumerate(self.sites) if site.kind in kinds]
        return replace(
            self,
            sites=tuple(self.sites[k] for k in at),
            parts=tuple(self.parts[k] for k in at),
            q_value=self.q_value[at],
            nde=None if self.nde is None else self.nde[at],
        )

    @cached_property
    def mean(self) -> Array:
        """Mean effect of every part."""
        return column(self.parts, "estimate")

    @property
    def min_p(self) -> float:
        """The least p that sign flips of so few clusters can show, two-sided: ``2 / 2**n_clusters``."""
        return 2.0 ** (1 - self.n_clusters)

    def to_frame(self) -> pd.DataFrame:
        """One row a site, the largest absolute effect first; or one row a set, in the sweep's order.

        Returns
        -------
        pandas.DataFrame
            Columns layer and head (or site, kind and layer where not all are heads; or set and n_sites), the
            quantity's name, nde (beside nie), std_error, ci_low, ci_high, t, p_value, p_adjusted, q_value.
        """
        import pandas as pd

        columns: dict[str, Any] = columns_of(self.sites, self.sets)
        columns[self.quantity] = self.mean
        if self.nde is not None:
            columns["nde"] = self.nde
        columns |= {name: column(self.parts, name) for name in ("std_error", "ci_low", "ci_high")}
        columns["t"] = t_of(self.mean, columns["std_error"])
        columns |= {name: column(self.parts, name) for name in ("p_value", "p_adjusted")}
        frame = pd.DataFrame(columns | {"q_value": self.q_value})
        if self.sets:
            return frame
        return frame.iloc[np.argsort(-np.abs(self.mean), kind="stable")].reset_index(drop=True)

    def _blocks(self) -> list[str]:
        shown = self.parts
        if not self.sets:
            # Of every kind the largest: the residual stream's would leave room for nothing else.
            order = np.argsort(-np.abs(self.mean), kind="stable").tolist()
            kinds = dict.fromkeys(site.kind for site in self.sites)
            each = -(-_SHOWN // max(1, len(kinds)))
            some = [[i for i in order if self.sites[i].kind == kind][:each] for kind in kinds]
            shown = tuple(self.parts[i] for rows in some for i in rows)
        total = figures(cast("Estimate", self.overall), level=self.level)
        return [f"Total effect: {total}", parts_table(shown, adjusted="family-wise")]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt import charts

        if self.sets:
            return {"joint": lambda: charts.joint_plot(self)}
        found: dict[str, Callable[[], Any]] = {}
        if self.heads:
            found |= {"heads": lambda: charts.head_heatmap(self), "layers": lambda: charts.layer_plot(self)}
        if len(self.heads) < len(self.sites):
            found["sites"] = lambda: charts.site_plot(self)
        return found


def infer_heads(
    sweep: Sweep,
    *,
    quantity: str = "nie",
    level: float = 0.95,
    alpha: float = 0.05,
    draws: int = DRAWS,
    n_splits: int = 100,
    random_state: int = 0,
) -> HeadInference:
    """Intervals, familywise p-values and false-discovery q-values of every head or set in a sweep.

    Effects of heads on items are skewed: most items show little and a few much. A test that takes them to
    be symmetric about zero, as sign flips do, calls the skewness an effect. So each p here asks a
    studentised bootstrap as well, and a head has to be beyond chance by both.

    Parameters
    ----------
    sweep : Sweep
        Of heads, from `head_sweep`; or of sets, from `layer_sweep`, `set_sweep` or `joint_effect`.
    quantity : {"nie", "nde", "pure_nie", "total_nde"}
    level : float, default 0.95
    alpha : float, default 0.05
        Level at which the sentence counts heads.
    draws : int, default 10000
        Bootstrap samples drawn, and sign patterns; where there are no more patterns than this, all are used.
    n_splits : int, default 100
        Random halves for the stability.
    random_state : int

    Returns
    -------
    HeadInference

    Raises
    ------
    MediationError
        If there are fewer than two clusters, or the sweep did not run the quantity.

    References
    ----------
    Romano and Wolf (2005). Exact and approximate stepdown methods for multiple hypothesis testing. JASA 100
    (studentised bootstrap).
    Westfall and Young (1993). Resampling-based multiple testing, algorithm 2.8 (step-down maxT).
    Yekutieli and Benjamini (1999). Resampling-based false discovery rate controlling multiple test
    procedures. Journal of Statistical Planning and Inference 82 (false discoveries counted by resampling).
    Winkler et al. (2014). Permutation inference for the general linear model. NeuroImage 92
    (sign flips of whole exchangeability blocks).

    Examples
    --------
    >>> infer_heads(sweep).to_frame().head()  # doctest: +SKIP
    >>> infer_heads(layer_sweep(model, pairs)).to_frame()  # doctest: +SKIP
    """
    return _infer(
        sweep.effect(quantity),
        sweep,
        clusters=sweep.clusters,
        quantity=quantity,
        te=sweep.te,
        nde=sweep.nde.mean(0) if quantity == "nie" else None,
        reach=1.0 if sweep.binary else None,
        level=level,
        alpha=alpha,
        draws=draws,
        n_splits=n_splits,
        random_state=random_state,
    )


def contrast_heads(
    sweep: Sweep,
    other: Sweep,
    *,
    quantity: str = "nie",
    level: float = 0.95,
    alpha: float = 0.05,
    draws: int = DRAWS,
    n_splits: int = 100,
    random_state: int = 0,
) -> HeadInference:
    """Difference of two sweeps over the same items and heads, ``sweep - other``.

    With a placebo sweep (another item's solution inserted) as `other`, this is the effect above
    the noise floor; with the worked solution against the same cut before its answer, the heads
    that carry the copying of a stated answer.

    Parameters
    ----------
    sweep, other : Sweep
        The items present in both are compared; the heads or sets must be the same.
    quantity, level, alpha, draws, n_splits, random_state
        As in `infer_heads`.

    Returns
    -------
    HeadInference

    Raises
    ------
    MediationError
        If the heads, outcomes or clusters differ, or no item is in both.

    Examples
    --------
    >>> contrast_heads(worked, cut_before_answer).sentence  # doctest: +SKIP
    """
    for name in ("sites", "sets", "paths", "outcome", "mediator", "tokens"):
        if getattr(sweep, name) != getattr(other, name):
            raise MediationError(f"the two sweeps differ in {name}", hint="run both with the same options")
    at = {item: i for i, item in enumerate(other.item_ids)}
    both = [(i, at[item]) for i, item in enumerate(sweep.item_ids) if item in at]
    if not both:
        raise MediationError("the two sweeps share no item_id")
    mine, theirs = (list(column) for column in zip(*both, strict=True))
    for i, j in both:
        if sweep.clusters[i] != other.clusters[j]:
            raise MediationError(f"item {sweep.item_ids[i]!r} is in different clusters in the two sweeps")
    return _infer(
        sweep.effect(quantity)[mine] - other.effect(quantity)[theirs],
        sweep,
        clusters=tuple(sweep.clusters[i] for i in mine),
        quantity=quantity,
        te=sweep.te[mine] - other.te[theirs],
        nde=None,
        reach=2.0 if sweep.binary and other.binary else None,
        level=level,
        alpha=alpha,
        draws=draws,
        n_splits=n_splits,
        random_state=random_state,
    )


_ENDS = {
    "set": "Joint effects of sets do not add up to the total effect: what one passes on, another may use.",
    "path": "Effects along paths do not add up: they share heads, and what one passes on, another may use.",
    "part": "Effects of parts of a site do not add up: what comes after it is not linear.",
    "head": "Effects of single heads do not add up to the joint effect of several.",
    "site": "Effects of single sites do not add up: what one passes on, a later one holds too.",
}
_SUFFIX = " Each was set at every token that the two prompts end with, and at the answer positions."


def _infer(
    x: Array,
    sweep: Sweep,
    *,
    clusters: Sequence[str],
    quantity: str,
    te: Array,
    nde: Array | None,
    reach: float | None,
    level: float,
    alpha: float,
    draws: int,
    n_splits: int,
    random_state: int,
) -> HeadInference:
    """Everything about the columns of an items-by-mediators array, named as the sweep's mediators are.

    `reach` is the furthest that an effect can be, where every outcome is 0 or 1.
    """
    if not 0 < level < 1 or not 0 < alpha < 1 or draws < 100:
        raise MediationError("level and alpha lie between 0 and 1, and draws is at least 100")
    groups = units_of(x, clusters)
    sums, sizes = cluster_sums(x, groups)
    rng = np.random.default_rng(random_state)
    figures, q_value, exhaustive = resampling.resample(sums, sizes, level=level, draws=draws, rng=rng)
    total = mean_interval(te, cluster=clusters, level=level)
    if reach is not None:
        bound_alike(figures, x, len(sizes), level, reach)
        if np.ptp(te) == 0:
            low, high = bounds_of_alike(float(te[0]), len(sizes), level, reach)
            total = replace(total, ci_low=low, ci_high=high)
    out = HeadInference(
        overall=replace(total, label="total effect"),
        parts=estimates(sweep.labels, len(x), "", **figures),
        level=level,
        axis=f"{_NAMES[quantity]} on {sweep.outcome}",
        sentence="",
        quantity=quantity,
        sites=sweep.sites,
        sets=sweep.sets,
        q_value=q_value,
        nde=nde,
        n_clusters=len(sizes),
        draws=draws,
        exhaustive=exhaustive,
        alpha=alpha,
        split_half=_split_half(sums, sizes, n_splits, rng, f"{KIND_WORDS[sweep.kind]}s")
        if len(sizes) >= 4 and n_splits
        else None,
    )
    end = _SUFFIX if sweep.tokens == "suffix" else ""
    return replace(out, sentence=_sentence(out, len(x), sweep) + end)


def _sentence(r: HeadInference, n: int, sweep: Sweep) -> str:
    name = _NAMES[r.quantity]
    what, m, te = KIND_WORDS[sweep.kind], len(r.parts), cast("Estimate", r.overall)
    on = f" on {sweep.scale}" if sweep.outcome else ""
    unit = "items" if n == r.n_clusters else f"items in {r.n_clusters} clusters"
    strong = int((column(r.parts, "p_adjusted") < r.alpha).sum())
    loose = int((r.q_value < r.alpha).sum())
    text = (
        f"Over {n} {unit} the total effect{on} is {te.estimate:.3g} "
        f"({interval_words(*te.ends, percent(r.level))}). "
        f"{_largest(r, what, name)}"
        f"{strong or 'None'} of them can be told from zero with the familywise error held at {r.alpha:g}, "
        f"{loose or 'none'} with the false discovery rate held there, both by a bootstrap, which takes the "
        "effects as skewed as they are, and by sign flips, exact for effects symmetric about zero. "
    )
    text += f"With {r.n_clusters} sampling units no p can be below {r.min_p:.2g}"
    if r.min_p >= r.alpha:
        return text + f": at {r.alpha:g} these items can show no {what} at all, whatever the model does."
    floor = max(r.min_p, 1 / r.draws)
    if floor * m >= r.alpha:
        text += f"; a single {what} among {m} then cannot be told from zero at {r.alpha:g}"
        text += ", and absence of a mark is no evidence"
    return f"{text}. {_ENDS.get(sweep.kind, _ENDS['site'])}"


def _largest(r: HeadInference, what: str, name: str) -> str:
    """Name the part with the largest mean effect; of several kinds of sites, that of each.

    The residual stream holds ever more of what came before it, and after the last layer all: of it the layer
    is told from which it holds half of the total effect.
    """
    size = np.abs(r.mean)
    kinds = [site.kind for site in r.sites]
    text, each = "", []
    if not r.sets and "resid" in kinds and r.quantity in {"nie", "pure_nie"}:
        text = _from_where(r)
    if r.sets or len(set(kinds)) == 1:
        best = r.parts[int(np.argmax(size))]
        joint = "joint " if what == "set" else ""
        found = f"{best.label} has the largest mean {joint}{name}, {best.estimate:.3g}"
        return f"Of {len(r.parts)} {what}s, {found} ({interval_words(*best.ends)}). {text}"
    for kind in dict.fromkeys(kinds):
        at = [k for k, own in enumerate(kinds) if own == kind]
        best = r.parts[at[int(np.argmax(size[at]))]]
        found = f"{best.label} among {counted(len(at), KIND_WORDS[kind])}"
        each.append(f"{found}, {best.estimate:.3g} ({interval_words(*best.ends)})")
    return (
        f"Of {len(r.parts)} sites, the largest mean {name} of each kind is that of {'; '.join(each)}. {text}"
    )


def _from_where(r: HeadInference) -> str:
    """Say from which layer on the residual stream holds half of the total effect."""
    te = cast("Estimate", r.overall)
    if te.ends[0] <= 0 <= te.ends[1]:
        return ""
    shares = r.mean / cast("float", te.estimate)
    stream = [(s, share) for s, share in zip(r.sites, shares, strict=True) if s.kind == "resid"]
    upper = [site for site, _ in takewhile(lambda one: one[1] >= 0.5, sorted(stream, reverse=True))]
    if not upper:
        return ""
    return (
        "The residual stream, which after the last layer holds all of the total effect by definition, holds "
        f"half of it or more from {upper[-1]} on. "
    )


def _split_half(
    sums: Array,
    sizes: Array,
    n_splits: int,
    rng: np.random.Generator,
    what: str,
) -> Result:
    """How far random halves of the clusters agree: ranks of all means, and names of the largest."""
    g, m = sums.shape
    top = max(1, min(10, m // 2))  # halves that name every head would always agree
    correlations, overlaps = [], []
    for _ in range(n_splits):
        shuffled = rng.permutation(g)
        a, b = (sums[part].sum(0) / sizes[part].sum() for part in (shuffled[: g // 2], shuffled[g // 2 :]))
        if m > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
            ranks = np.corrcoef(stats.rankdata(a), stats.rankdata(b))
            correlations.append(float(ranks[0, 1]))
        first, second = (set(np.argsort(-np.abs(half), kind="stable")[:top]) for half in (a, b))
        overlaps.append(len(first & second) / top)
    rank, shared = float(np.mean(correlations)) if correlations else 0.0, float(np.mean(overlaps))
    return Result(
        parts=(
            Estimate(label="rank correlation", estimate=rank),
            Estimate(label="agreement on the largest", estimate=shared),
        ),
        sentence=(
            f"Between random halves of the items, the {what}' effects have a rank correlation of "
            f"{format_number(rank)}, and the halves agree on {shared:.0%} of their {top} largest {what} "
            f"(mean over {n_splits} splits)."
        ),
    )
