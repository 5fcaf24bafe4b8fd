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
from whyprompt.stats import resampling
from whyprompt.stats.intervals import DRAWS, MeanInterval, interval_words, mean_interval, units_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.mediation.results import HeadSweep, SetSweep

    Array = NDArray[np.float64]

__all__ = [
    "HeadInference",
    "SetInference",
    "SplitHalf",
    "contrast_heads",
    "infer_heads",
    "infer_sets",
]

_NAMES = {"nie": "NIE", "nde": "NDE", "pure_nie": "pure NIE", "total_nde": "total NDE"}


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
    mean, std_error, ci_low, ci_high, t : ndarray, shape (heads,)
        Cluster-robust error (CR2); bootstrap-t intervals, for one head at a time, infinite where the
        items do not bound the mean.
    p_value : ndarray
        Two-sided p of the head's own \|t\|.
    p_fwer : ndarray
        Step-down p of the largest \|t\|: familywise, using the heads' dependence; nowhere below `q_value`,
        so that a name held to the familywise error is one that the false discovery rate gives too.
    q_value : ndarray
        False discovery rate: how many heads' \|t\| would be as large by chance, of those that are. By
        chance is counted over all heads, since a skewed head's \|t\| is large more often than another's.
        Each p is the larger of two: that of a studentised bootstrap of whole clusters, which takes the
        effects as skewed as they are, and that of sign flips, which is exact where they are symmetric.
    nde : ndarray or None
        Mean direct effect beside each `nie`.
    te : MeanInterval or None
        Total effect.
    n_items, n_clusters, draws : int
        Bootstrap samples, and sign patterns where not all of them are used.
    exhaustive : bool
        Whether all sign patterns were used.
    min_p : float
        No p can be smaller with so few clusters, since none of two-sided sign flips can:
        ``2 / 2**n_clusters``.
    alpha : float
    split_half : SplitHalf or None
        None with fewer than four clusters.
    sentence : str
    """

    quantity: str
    heads: tuple[tuple[int, int], ...]
    mean: Array
    std_error: Array
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
    draws: int
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
            Columns layer, head, the quantity's name, nde (beside nie), std_error, ci_low,
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


_COLUMNS = ("std_error", "ci_low", "ci_high", "t", "p_value", "p_fwer", "q_value")


@dataclass(frozen=True, kw_only=True, eq=False)
class SetInference:
    """Joint effects of sets of heads, a layer's for instance, and how sure one may be.

    Attributes
    ----------
    quantity : str
    names : tuple of str
    sets : tuple of tuples of (layer, head)
    mean, std_error, ci_low, ci_high, t, p_value, p_fwer, q_value : ndarray, shape (sets,)
        As in `HeadInference`; the family is that of the sets.
    nde : ndarray or None
        Mean direct effect beside each `nie`.
    te : MeanInterval
        Total effect.
    n_items, n_clusters, draws : int
    exhaustive : bool
    min_p, alpha : float
    split_half : SplitHalf or None
    sentence : str
    """

    quantity: str
    names: tuple[str, ...]
    sets: tuple[tuple[tuple[int, int], ...], ...]
    mean: Array
    std_error: Array
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
    draws: int
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
            Columns set, n_heads, the quantity's name, nde (beside nie), std_error, ci_low,
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
        rows = [{str(k): _finite(v) for k, v in row.items()} for row in self.to_frame().to_dict("records")]
        return {
            "quantity": self.quantity,
            "sets": rows,
            "total_effect": {
                "estimate": self.te.mean,
                "ci_low": _finite(self.te.ci_low),
                "ci_high": _finite(self.te.ci_high),
            },
            "n_items": self.n_items,
            "n_clusters": self.n_clusters,
            "smallest_possible_p": self.min_p,
            "sentence": self.sentence,
        }


def infer_heads(
    sweep: HeadSweep,
    *,
    quantity: str = "nie",
    level: float = 0.95,
    alpha: float = 0.05,
    draws: int = DRAWS,
    n_splits: int = 100,
    random_state: int = 0,
) -> HeadInference:
    """Intervals, familywise p-values and false-discovery q-values of every head in a sweep.

    Effects of heads on items are skewed: most items show little and a few much. A test that takes them to
    be symmetric about zero, as sign flips do, calls the skewness an effect. So each p here asks a
    studentised bootstrap as well, and a head has to be beyond chance by both.

    Parameters
    ----------
    sweep : HeadSweep
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
            level=level,
            alpha=alpha,
            draws=draws,
            n_splits=n_splits,
            random_state=random_state,
        ),
    )


def infer_sets(
    sweep: SetSweep,
    *,
    quantity: str = "nie",
    level: float = 0.95,
    alpha: float = 0.05,
    draws: int = DRAWS,
    n_splits: int = 100,
    random_state: int = 0,
) -> SetInference:
    """Intervals, familywise p-values and q-values of joint effects: of each layer, of named sets.

    Parameters
    ----------
    sweep : SetSweep
        From `layer_sweep`, `set_sweep` or `joint_effect`.
    quantity, level, alpha, draws, n_splits, random_state
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
            level=level,
            alpha=alpha,
            draws=draws,
            n_splits=n_splits,
            random_state=random_state,
        ),
    )


def contrast_heads(
    sweep: HeadSweep,
    other: HeadSweep,
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
    sweep, other : HeadSweep
        The items present in both are compared; the heads must be the same.
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
            level=level,
            alpha=alpha,
            draws=draws,
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
    level: float,
    alpha: float,
    draws: int,
    n_splits: int,
    random_state: int,
) -> dict[str, Any]:
    """Everything about the columns of an items-by-mediators array but what the mediators are."""
    if not 0 < level < 1 or not 0 < alpha < 1 or draws < 100:
        raise MediationError("level and alpha lie between 0 and 1, and draws is at least 100")
    groups = units_of(x, clusters)
    n_clusters = int(groups.max()) + 1
    sums, sizes = resampling.cluster_sums(x, groups)
    rng = np.random.default_rng(random_state)
    got = resampling.resample(sums, sizes, level=level, draws=draws, rng=rng)
    out: dict[str, Any] = {
        "quantity": quantity,
        "mean": got.mean,
        "std_error": got.std_error,
        "ci_low": got.low,
        "ci_high": got.high,
        "t": got.t,
        "p_value": got.p_value,
        "p_fwer": got.p_fwer,
        "q_value": got.q_value,
        "nde": nde,
        "te": mean_interval(te, cluster=clusters, level=level),
        "n_items": len(x),
        "n_clusters": n_clusters,
        "draws": draws,
        "exhaustive": got.exhaustive,
        "min_p": 2.0 ** (1 - n_clusters),
        "alpha": alpha,
        "split_half": _split_half(sums, sizes, n_splits, rng) if n_clusters >= 4 and n_splits else None,
    }
    return out | {"sentence": _sentence(out, labels, unit, level)}


def _sentence(r: dict[str, Any], labels: list[str], kind: tuple[str, str], level: float) -> str:
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
        f"({interval_words(te.ci_low, te.ci_high, percent(level))}). "
        f"Of {m} {what}s, {labels[best]} has the largest mean {joint}{name}, {r['mean'][best]:.3g} "
        f"({interval_words(r['ci_low'][best], r['ci_high'][best])}). "
        f"{strong} of them differ{'s' if strong == 1 else ''} from zero with the familywise error held at "
        f"{r['alpha']:g}, {loose} with the false discovery rate held there, both by a bootstrap, which takes "
        "the effects as skewed as they are, and by sign flips, exact for effects symmetric about zero. "
    )
    text += f"With {r['n_clusters']} sampling units no p can be below {r['min_p']:.2g}"
    if r["min_p"] >= r["alpha"]:
        return text + f": at {r['alpha']:g} these items can show no {what} at all, whatever the heads do."
    floor = max(r["min_p"], 1 / r["draws"])
    if floor * m >= r["alpha"]:
        text += f"; a single {what} among {m} then cannot be told from zero at {r['alpha']:g}"
        text += ", and absence of a mark is no evidence"
    return f"{text}. {end}"


def _finite(value: Any) -> Any:  # noqa: ANN401  # a cell
    """Give a cell that JSON can hold: None where the items do not bound it."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


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
