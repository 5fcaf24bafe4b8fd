"""Statistics of a sweep over items: intervals, correction for the number of heads, stability.

The sample is of items, in clusters where items share a template. Every counterfactual of an
item is computed, so all uncertainty is in which items were drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from whyprompt._words import percent
from whyprompt.errors import MediationError
from whyprompt.mediation.results import quantity_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.mediation.results import HeadSweep, SetSweep

    Array = NDArray[np.float64]

__all__ = [
    "HeadInference",
    "MeanInterval",
    "SetInference",
    "SplitHalf",
    "contrast_heads",
    "infer_heads",
    "infer_sets",
    "mean_interval",
]

_BLOCK = 1 << 22
_FLAT = 1e-5
"""Spread, as a share of the squares, below which effects count as all alike: rounding hides the rest."""
_SAME = 1e-9
_NAMES = {"nie": "NIE", "nde": "NDE", "pure_nie": "pure NIE", "total_nde": "total NDE"}


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanInterval:
    """Mean over items with its cluster-robust t interval.

    Attributes
    ----------
    mean, standard_error, ci_low, ci_high : float
    n_items, n_clusters : int
    """

    mean: float
    standard_error: float
    ci_low: float
    ci_high: float
    n_items: int
    n_clusters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitHalf:
    """Agreement of the heads' mean effects between random halves of the clusters.

    Attributes
    ----------
    rank_correlation : float
        Mean Spearman correlation over splits.
    top_overlap : float
        Mean share of the `top` largest heads in absolute value that both halves name.
    top, n_splits : int
    """

    rank_correlation: float
    top_overlap: float
    top: int
    n_splits: int


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadInference:
    r"""Which heads have an effect, and how sure one may be.

    Attributes
    ----------
    quantity : str
    heads : tuple of (layer, head)
    mean, standard_error, ci_low, ci_high, t : ndarray, shape (heads,)
        Cluster-robust (CR2, Satterthwaite's degrees of freedom; `t` is the sign flips' own statistic);
        intervals are for one head at a time.
    p_value : ndarray
        Two-sided sign-flip p of the head's own \|t\|.
    p_fwer : ndarray
        Step-down max-\|t\| (Westfall-Young) p: familywise, using the heads' dependence.
    q_value : ndarray
        Benjamini-Hochberg.
    nde : ndarray or None
        Mean direct effect beside each `nie`.
    te : MeanInterval or None
        Total effect.
    n_items, n_clusters, n_flips : int
        `n_flips` counts the sign patterns used; all of them where `exhaustive`.
    exhaustive : bool
    min_p : float
        No two-sided sign-flip p can be smaller with so few clusters: ``2 / 2**n_clusters``.
    alpha : float
    split_half : SplitHalf or None
        None with fewer than four clusters.
    sentence : str
    """

    quantity: str
    heads: tuple[tuple[int, int], ...]
    mean: Array
    standard_error: Array
    ci_low: Array
    ci_high: Array
    t: Array
    p_value: Array
    p_fwer: Array
    q_value: Array
    nde: Array | None
    te: MeanInterval | None
    n_items: int
    n_clusters: int
    n_flips: int
    exhaustive: bool
    min_p: float
    alpha: float
    split_half: SplitHalf | None
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """One row a head, the largest absolute effect first.

        Returns
        -------
        pandas.DataFrame
            Columns layer, head, the quantity's name, nde (beside nie), standard_error, ci_low,
            ci_high, t, p_value, p_fwer, q_value.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            "layer": [layer for layer, _ in self.heads],
            "head": [head for _, head in self.heads],
            self.quantity: self.mean,
        }
        if self.nde is not None:
            columns["nde"] = self.nde
        columns |= {name: getattr(self, name) for name in _COLUMNS}
        order = np.argsort(-np.abs(self.mean), kind="stable")
        return pd.DataFrame(columns).iloc[order].reset_index(drop=True)


_COLUMNS = ("standard_error", "ci_low", "ci_high", "t", "p_value", "p_fwer", "q_value")


@dataclass(frozen=True, kw_only=True, eq=False)
class SetInference:
    """Joint effects of sets of heads, a layer's for instance, and how sure one may be.

    Attributes
    ----------
    quantity : str
    names : tuple of str
    sets : tuple of tuples of (layer, head)
    mean, standard_error, ci_low, ci_high, t, p_value, p_fwer, q_value : ndarray, shape (sets,)
        As in `HeadInference`; the family is that of the sets.
    nde : ndarray or None
        Mean direct effect beside each `nie`.
    te : MeanInterval
        Total effect.
    n_items, n_clusters, n_flips : int
    exhaustive : bool
    min_p, alpha : float
    split_half : SplitHalf or None
    sentence : str
    """

    quantity: str
    names: tuple[str, ...]
    sets: tuple[tuple[tuple[int, int], ...], ...]
    mean: Array
    standard_error: Array
    ci_low: Array
    ci_high: Array
    t: Array
    p_value: Array
    p_fwer: Array
    q_value: Array
    nde: Array | None
    te: MeanInterval
    n_items: int
    n_clusters: int
    n_flips: int
    exhaustive: bool
    min_p: float
    alpha: float
    split_half: SplitHalf | None
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """One row a set, in the sweep's order.

        Returns
        -------
        pandas.DataFrame
            Columns set, n_heads, the quantity's name, nde (beside nie), standard_error, ci_low,
            ci_high, t, p_value, p_fwer, q_value.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            "set": list(self.names),
            "n_heads": [len(s) for s in self.sets],
            self.quantity: self.mean,
        }
        if self.nde is not None:
            columns["nde"] = self.nde
        return pd.DataFrame(columns | {name: getattr(self, name) for name in _COLUMNS})

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON.

        Returns
        -------
        dict
            One entry a set under ``sets``, the total effect, and the sentence.
        """
        rows = [{str(k): v for k, v in row.items()} for row in self.to_frame().to_dict("records")]
        return {
            "quantity": self.quantity,
            "sets": rows,
            "total_effect": {"estimate": self.te.mean, "ci_low": self.te.ci_low, "ci_high": self.te.ci_high},
            "n_items": self.n_items,
            "n_clusters": self.n_clusters,
            "smallest_possible_p": self.min_p,
            "sentence": self.sentence,
        }


def mean_interval(
    values: Sequence[float] | Array, *, clusters: Sequence[str] | None = None, conf_level: float = 0.95
) -> MeanInterval:
    """Mean over items with a cluster-robust t interval.

    Parameters
    ----------
    values : array-like, shape (items,)
    clusters : sequence of str, optional
        Sampling units; every item its own by default.
    conf_level : float, default 0.95

    Returns
    -------
    MeanInterval

    Raises
    ------
    MediationError
        If there are fewer than two clusters, a value is not finite, or `conf_level` is no level.

    References
    ----------
    Bell and McCaffrey (2002). Bias reduction in standard errors for linear regression with multi-stage
    samples. Survey Methodology 28 (CR2, Satterthwaite's degrees of freedom): with clusters of one size
    G / (G - 1) and G - 1, and fewer degrees of freedom where one cluster holds most items.

    Examples
    --------
    >>> i = mean_interval([1.0, 2.0, 3.0])
    >>> round(i.mean, 3), round(i.ci_low, 3), round(i.ci_high, 3)
    (2.0, -0.484, 4.484)
    """
    if not 0 < conf_level < 1:
        raise MediationError(f"conf_level is {conf_level!r}, but it lies between 0 and 1")
    x = np.asarray(values, dtype=np.float64)[:, None]
    groups = _clusters(x, clusters)
    mean, se, df = _mean_error(*_cluster_sums(x, groups), n=len(x))
    half = float(stats.t.ppf(0.5 + conf_level / 2, df) * se[0])
    return MeanInterval(
        mean=float(mean[0]),
        standard_error=float(se[0]),
        ci_low=float(mean[0]) - half,
        ci_high=float(mean[0]) + half,
        n_items=len(x),
        n_clusters=int(groups.max()) + 1,
    )


def infer_heads(
    sweep: HeadSweep,
    *,
    quantity: str = "nie",
    conf_level: float = 0.95,
    alpha: float = 0.05,
    n_flips: int = 20_000,
    n_splits: int = 100,
    random_state: int = 0,
) -> HeadInference:
    """Intervals, familywise p-values and false-discovery q-values of every head in a sweep.

    Parameters
    ----------
    sweep : HeadSweep
    quantity : {"nie", "nde", "pure_nie", "total_nde"}
    conf_level : float, default 0.95
    alpha : float, default 0.05
        Level at which the sentence counts heads.
    n_flips : int, default 20000
        Sign patterns drawn; where there are no more than this, all are used and p is exact.
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
    Westfall and Young (1993). Resampling-based multiple testing, algorithm 2.8 (step-down maxT).
    Benjamini and Hochberg (1995). Controlling the false discovery rate. JRSS B 57.
    Winkler et al. (2014). Permutation inference for the general linear model. NeuroImage 92
    (sign flips of whole exchangeability blocks).

    Examples
    --------
    >>> infer_heads(sweep).to_frame().head()  # doctest: +SKIP
    """
    return HeadInference(
        heads=sweep.heads,
        **_infer(
            quantity_of(sweep, quantity),
            labels=[_head_words(h) for h in sweep.heads],
            unit=("head", _HEADS_END),
            clusters=sweep.clusters,
            quantity=quantity,
            te=sweep.te,
            nde=sweep.nde.mean(0) if quantity == "nie" else None,
            conf_level=conf_level,
            alpha=alpha,
            n_flips=n_flips,
            n_splits=n_splits,
            random_state=random_state,
        ),
    )


def infer_sets(
    sweep: SetSweep,
    *,
    quantity: str = "nie",
    conf_level: float = 0.95,
    alpha: float = 0.05,
    n_flips: int = 20_000,
    n_splits: int = 100,
    random_state: int = 0,
) -> SetInference:
    """Intervals, familywise p-values and q-values of joint effects: of each layer, of named sets.

    Parameters
    ----------
    sweep : SetSweep
        From `layer_sweep`, `set_sweep` or `joint_effect`.
    quantity, conf_level, alpha, n_flips, n_splits, random_state
        As in `infer_heads`.

    Returns
    -------
    SetInference

    Raises
    ------
    MediationError
        As in `infer_heads`.

    Examples
    --------
    >>> infer_sets(layer_sweep(model, pairs)).to_frame()  # doctest: +SKIP
    """
    return SetInference(
        names=sweep.names,
        sets=sweep.sets,
        **_infer(
            quantity_of(sweep, quantity),
            labels=list(sweep.names),
            unit=("set", _SETS_END),
            clusters=sweep.clusters,
            quantity=quantity,
            te=sweep.te,
            nde=sweep.nde.mean(0) if quantity == "nie" else None,
            conf_level=conf_level,
            alpha=alpha,
            n_flips=n_flips,
            n_splits=n_splits,
            random_state=random_state,
        ),
    )


def contrast_heads(
    sweep: HeadSweep,
    other: HeadSweep,
    *,
    quantity: str = "nie",
    conf_level: float = 0.95,
    alpha: float = 0.05,
    n_flips: int = 20_000,
    n_splits: int = 100,
    random_state: int = 0,
) -> HeadInference:
    """Difference of two sweeps over the same items and heads, ``sweep - other``.

    With a placebo sweep (another item's solution inserted) as `other`, this is the effect above
    the noise floor; with the worked solution against the same cut before its answer, the heads
    that carry the copying of a stated answer.

    Parameters
    ----------
    sweep, other : HeadSweep
        The items present in both are compared; the heads must be the same.
    quantity, conf_level, alpha, n_flips, n_splits, random_state
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
    for name in ("heads", "outcome", "mediator"):
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
    return HeadInference(
        heads=sweep.heads,
        **_infer(
            quantity_of(sweep, quantity)[mine] - quantity_of(other, quantity)[theirs],
            labels=[_head_words(h) for h in sweep.heads],
            unit=("head", _HEADS_END),
            clusters=tuple(sweep.clusters[i] for i in mine),
            quantity=quantity,
            te=sweep.te[mine] - other.te[theirs],
            nde=None,
            conf_level=conf_level,
            alpha=alpha,
            n_flips=n_flips,
            n_splits=n_splits,
            random_state=random_state,
        ),
    )


_HEADS_END = "Effects of single heads do not add up to the joint effect of several."
_SETS_END = "Joint effects of sets do not add up to the total effect: what one passes on, another may use."


def _head_words(head: tuple[int, int]) -> str:
    return f"layer {head[0]} head {head[1]}"


def _infer(
    x: Array,
    *,
    labels: list[str],
    unit: tuple[str, str],
    clusters: Sequence[str],
    quantity: str,
    te: Array,
    nde: Array | None,
    conf_level: float,
    alpha: float,
    n_flips: int,
    n_splits: int,
    random_state: int,
) -> dict[str, Any]:
    """Everything about the columns of an items-by-mediators array but what the mediators are."""
    if not 0 < conf_level < 1 or not 0 < alpha < 1 or n_flips < 1:
        raise MediationError("conf_level and alpha lie between 0 and 1, and n_flips is at least 1")
    groups = _clusters(x, clusters)
    n_clusters = int(groups.max()) + 1
    sums, sizes = _cluster_sums(x, groups)
    # The flips' own statistic; the interval needs an error that knows one cluster may hold most items.
    t = _t(*_mean_se(sums, sizes, n=len(x)))
    mean, se, df = _mean_error(sums, sizes, n=len(x))
    half = stats.t.ppf(0.5 + conf_level / 2, df) * se
    rng = np.random.default_rng(random_state)
    p, p_fwer, used, exhaustive = _flip_p(sums, sizes, n_flips=n_flips, rng=rng)
    q = np.asarray(stats.false_discovery_control(p))
    min_p = 2.0 ** (1 - n_clusters)
    out: dict[str, Any] = {
        "quantity": quantity,
        "mean": mean,
        "standard_error": se,
        "ci_low": mean - half,
        "ci_high": mean + half,
        "t": t,
        "p_value": p,
        "p_fwer": p_fwer,
        "q_value": q,
        "nde": nde,
        "te": mean_interval(te, clusters=clusters, conf_level=conf_level),
        "n_items": len(x),
        "n_clusters": n_clusters,
        "n_flips": used,
        "exhaustive": exhaustive,
        "min_p": min_p,
        "alpha": alpha,
        "split_half": _split_half(sums, sizes, n_splits, rng) if n_clusters >= 4 and n_splits else None,
    }
    return out | {"sentence": _sentence(out, labels, unit, conf_level)}


def _sentence(r: dict[str, Any], labels: list[str], kind: tuple[str, str], conf_level: float) -> str:
    name = _NAMES[r["quantity"]]
    (what, end), m = kind, len(labels)
    joint = "joint " if what == "set" else ""
    best = int(np.argmax(np.abs(r["mean"])))
    unit = "items" if r["n_items"] == r["n_clusters"] else f"items in {r['n_clusters']} clusters"
    strong = int((r["p_fwer"] < r["alpha"]).sum())
    loose = int((r["q_value"] < r["alpha"]).sum())
    te = r["te"]
    text = (
        f"Over {r['n_items']} {unit} the total effect is {te.mean:.3g} "
        f"({percent(conf_level)} interval {te.ci_low:.3g} to {te.ci_high:.3g}). "
        f"Of {m} {what}s, {labels[best]} has the largest mean {joint}{name}, {r['mean'][best]:.3g} "
        f"({r['ci_low'][best]:.3g} to {r['ci_high'][best]:.3g}). "
        f"{strong} of them differ from zero with the familywise error held at {r['alpha']:g}, "
        f"{loose} with the false discovery rate held there. "
    )
    text += f"With {r['n_clusters']} sampling units no two-sided sign-flip p can be below {r['min_p']:.2g}"
    if r["min_p"] >= r["alpha"]:
        return text + f": at {r['alpha']:g} these items can show no {what} at all, whatever the heads do."
    floor = r["min_p"] if r["exhaustive"] else max(r["min_p"], 1 / r["n_flips"])
    if floor * m >= r["alpha"]:
        text += f"; a single {what} among {m} then cannot reach q < {r['alpha']:g}"
        text += ", and absence of a mark is no evidence"
    return f"{text}. {end}"


def _clusters(x: Array, clusters: Sequence[str] | None) -> NDArray[np.intp]:
    if not np.isfinite(x).all():
        raise MediationError(
            "the effects hold values that are not finite", hint="find the item whose logits are NaN"
        )
    if clusters is None:
        groups = np.arange(len(x))
    else:
        if len(clusters) != len(x):
            raise MediationError(f"clusters has {len(clusters)} entries for {len(x)} items")
        groups = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    if (units := len(np.unique(groups))) < 2:
        raise MediationError(
            f"an interval needs at least two sampling units, but {len(x)} items form {units}",
            hint="add items, or give each its own cluster",
        )
    return groups


def _cluster_sums(x: Array, groups: NDArray[np.intp]) -> tuple[Array, Array]:
    sums = np.zeros((groups.max() + 1, x.shape[1]))
    np.add.at(sums, groups, x)
    return sums, np.bincount(groups).astype(np.float64)


def _mean_se(sums: Array, sizes: Array, *, n: int) -> tuple[Array, Array]:
    mean = sums.sum(0) / n
    g = len(sizes)
    residual = sums - sizes[:, None] * mean
    return mean, np.sqrt(g / (g - 1) * (residual**2).sum(0)) / n


def _mean_error(sums: Array, sizes: Array, *, n: int) -> tuple[Array, Array, float]:
    """Mean, its CR2 error and Bell and McCaffrey's degrees of freedom under independent errors."""
    mean = sums.sum(0) / n
    spare = 1.0 - sizes / n
    residual = sums - sizes[:, None] * mean
    se = np.sqrt((residual**2 / spare[:, None]).sum(0)) / n
    cross = sizes**2 / spare / n**3
    squares = float((sizes**2).sum()) / n**4 + float(cross.sum() ** 2 - (cross**2).sum())
    return mean, se, (1.0 / n) ** 2 / squares


def _t(mean: Array, se: Array) -> Array:
    """Divide; a head that never moves has t = 0, one that always moves alike has infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, mean / se)


def _flip_t(signs: Array, sums: Array, sizes: Array, squares: Array) -> Array:
    """Absolute t of each pattern of signs, patterns x mediators.

    The spread is a difference of sums that nearly cancel where effects are all alike. There rounding
    would make up the order of the patterns, so all spreads below `_FLAT` of the squares are one.
    """
    g = len(sizes)
    mean = signs @ sums / sizes.sum()
    spread = squares - 2 * mean * (signs @ (sums * sizes[:, None])) + mean**2 * (sizes**2).sum()
    se = np.sqrt(g / (g - 1) * np.maximum(spread, _FLAT * squares)) / sizes.sum()
    return np.abs(_t(mean, se))


def _flip_p(
    sums: Array, sizes: Array, *, n_flips: int, rng: np.random.Generator
) -> tuple[Array, Array, int, bool]:
    """Two-sided p and step-down familywise p from sign flips of whole clusters."""
    g, m = sums.shape
    exhaustive = g <= 40 and 2 ** (g - 1) <= n_flips
    total = 2 ** (g - 1) if exhaustive else n_flips
    squares = (sums**2).sum(0)
    own = _flip_t(np.ones((1, g)), sums, sizes, squares)[0]
    order = np.argsort(-own, kind="stable")
    # Rounding must not separate a pattern from its own mirror image.
    bar = own[order] * (1 - _SAME)
    single, family = np.zeros(m), np.zeros(m)
    step = max(1, _BLOCK // max(m, g))
    for start in range(0, total, step):
        count = min(step, total - start)
        if exhaustive:
            # The last cluster keeps its sign: a pattern and its mirror image have the same |t|.
            bits = (np.arange(start, start + count)[:, None] >> np.arange(g)) & 1
            signs = np.asarray(1.0 - 2.0 * bits, dtype=np.float64)
        else:
            signs = rng.choice((-1.0, 1.0), size=(count, g))
            if start == 0:
                signs[0] = 1.0  # the sample itself is one of its patterns
        flipped = _flip_t(signs, sums, sizes, squares)[:, order]
        single += (flipped >= bar).sum(0)
        # Successive maxima from the smallest observed |t| up: the step-down of Westfall and Young.
        family += (np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1] >= bar).sum(0)
    p, p_fwer = np.empty(m), np.empty(m)
    p[order] = single / total
    p_fwer[order] = np.maximum.accumulate(family / total)
    return p, p_fwer, total, exhaustive


def _split_half(sums: Array, sizes: Array, n_splits: int, rng: np.random.Generator) -> SplitHalf:
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
    return SplitHalf(
        rank_correlation=float(np.mean(correlations)) if correlations else 0.0,
        top_overlap=float(np.mean(overlaps)),
        top=top,
        n_splits=n_splits,
    )
