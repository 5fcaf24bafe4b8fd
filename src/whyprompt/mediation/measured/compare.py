"""Statistical and interventional mediation of the same heads, beside each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from whyprompt._words import counted, percent
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.inference import infer_heads
from whyprompt.mediation.measured.counterfactual import widened
from whyprompt.mediation.measured.overlap import ENOUGH, share_inside
from whyprompt.mediation.results import column, columns_of, estimates, heads_of
from whyprompt.results import Result
from whyprompt.stats.several import normal_scores, reach, step_down

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from whyprompt.mediation.capture import AttentionCapture
    from whyprompt.mediation.engine.sites import SiteLike
    from whyprompt.mediation.results import Head, Sweep
    from whyprompt.results import Estimate

    Array = NDArray[np.float64]

_ATTEMPTS = 20
_FEW_CLUSTERS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class MediationComparison(Result):
    """Both answers for every head, and where they differ.

    The parts are the differences ``acme - nie``, a head each, whose `p_adjusted` is the familywise p of a
    difference of zero, by max-|t| over the bootstrap of the differences.

    Attributes
    ----------
    segment : str
        The segment whose attention mass is the measured mediator.
    quantity : {"nie", "pure_nie"}
        The interventional effect; the statistical one beside it is the ACME of the treated arm
        or of the control arm.
    heads : tuple of (layer, head)
    acme : tuple of Estimate
        Statistical mediation effect and its bootstrap interval, one head at a time. None where
        the head's mass does not vary between items, so that no slope can be had.
    nie : tuple of Estimate
        Mean interventional effect and its bootstrap-t interval, one head at a time.
    overlap : ndarray, shape (heads,)
        Share of the items whose mass under the other prompt lies inside the range of the masses under the
        prompt whose slope is taken: where it is small, the ACME extrapolates.
    rank_correlation : float
        Spearman, over the heads with an ACME; 0 with fewer than three.
    alpha : float
        Familywise level at which heads are said to disagree.
    n_clusters : int
    """

    segment: str
    quantity: str
    heads: tuple[Head, ...]
    acme: tuple[Estimate, ...]
    nie: tuple[Estimate, ...]
    overlap: Array
    rank_correlation: float
    alpha: float
    n_clusters: int

    @property
    def disagree(self) -> NDArray[np.bool_]:
        """Where the familywise p is below `alpha`, shape (heads,)."""
        return column(self.parts, "p_adjusted") < self.alpha

    def to_frame(self) -> pd.DataFrame:
        """One row a head, the surest disagreement first, and the largest among equally sure ones.

        Returns
        -------
        pandas.DataFrame
            Columns layer, head, acme, acme_low, acme_high, overlap, nie, nie_low, nie_high, difference,
            p_adjusted, disagree.
        """
        import pandas as pd

        columns: dict[str, Any] = {**columns_of(as_sites(self.heads), {}), **_effects("acme", self.acme)}
        columns |= {"overlap": self.overlap, **_effects("nie", self.nie)}
        columns["difference"] = column(self.parts, "estimate")
        columns["p_adjusted"] = column(self.parts, "p_adjusted")
        size = np.nan_to_num(np.abs(columns["difference"]), nan=-1.0)
        order = np.lexsort((-size, columns["p_adjusted"]))
        return pd.DataFrame(columns | {"disagree": self.disagree}).iloc[order].reset_index(drop=True)

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import statistical_vs_interventional

        return {"heads": lambda: statistical_vs_interventional(self.to_frame())}


def _effects(name: str, parts: tuple[Estimate, ...]) -> dict[str, Array]:
    ends = {f"{name}_{end}": column(parts, f"ci_{end}") for end in ("low", "high")}
    return {name: column(parts, "estimate"), **ends}


def compare_mediation(
    sweep: Sweep,
    capture: AttentionCapture,
    segment: str,
    *,
    quantity: Literal["nie", "pure_nie"] = "nie",
    heads: Sequence[SiteLike] | None = None,
    confounders: ArrayLike | None = None,
    draws: int = 1000,
    level: float = 0.95,
    alpha: float = 0.05,
    random_state: int = 0,
) -> MediationComparison:
    """For each head, mediation by its measured attention beside mediation by intervention.

    The statistical side treats a head's attention mass on a segment as any measured mediator:
    what an analyst could do who may look but not touch. Each item gives two rows, one an arm;
    the mediator's model and the outcome's are linear with a treatment-mediator interaction, so
    the ACME of the treated arm is ``(mean mass 1 - mean mass 0) * slope of the outcome on the
    mass among items under prompt 1``. It is `mediate` with ``interaction=True``, for all heads at
    once. A segment that a prompt lacks has mass zero there: the slope is then drawn out from the masses of
    one prompt to a value that it never has, which `overlap` and the sentence say.

    The interventional side is the sweep's own: computed, not estimated, and free of assumptions
    about what else drives the mediator. Where the two differ, that is what sequential
    ignorability costs here: among items, a head's attention goes with other things that move
    the outcome (how hard the item is, what other heads do), and its mass need not be the channel
    by which it acts.

    Parameters
    ----------
    sweep : Sweep
        Interventional effects.
    capture : AttentionCapture
        Attention mass by segment, of the same items.
    segment : str
        Which segment's mass is the mediator.
    quantity : {"nie", "pure_nie"}
        `nie` goes with the ACME of the treated arm, `pure_nie` with that of the control arm,
        which needs a segment that prompt 0 has.
    heads : sequence of (layer, head) or str, optional
        All heads in both by default.
    confounders : array-like, shape (items, columns), optional
        Facts of the items known before the prompt, in the sweep's order of items, adjusted for
        in the slope.
    draws : int, default 1000
        Bootstrap draws of whole clusters, the same for all heads.
    level : float, default 0.95
    alpha : float, default 0.05
        Familywise level at which heads are said to disagree.
    random_state : int

    Returns
    -------
    MediationComparison

    Raises
    ------
    MediationError
        If a head, an item or the segment is missing on one side, there are too few items, or no
        head's mass varies.

    References
    ----------
    Imai, Keele and Tingley (2010). A general approach to causal mediation analysis.
    Psychological Methods 15(4), eq. 8 (linear models with interaction).
    Romano and Wolf (2005). Exact and approximate stepdown methods for multiple hypothesis
    testing. JASA 100 (max-|t| bootstrap).

    Examples
    --------
    >>> sweep = head_sweep(model, pairs)  # doctest: +SKIP
    >>> compare_mediation(sweep, capture_attention(model, pairs), "reasoning").sentence  # doctest: +SKIP
    """
    if quantity not in {"nie", "pure_nie"}:
        raise MediationError(f"unknown quantity {quantity!r}", hint="nie or pure_nie")
    if sweep.tokens != "answer":
        raise MediationError(
            "the sweep set heads at every token of the suffix; attention is measured at the answer positions",
            hint="compare with a sweep whose tokens are 'answer'",
        )
    if draws < 2 or not 0 < level < 1 or not 0 < alpha < 1:
        raise MediationError("draws is at least 2; level and alpha lie between 0 and 1")
    chosen, in_sweep, in_capture = _heads(sweep, capture, heads)
    rows = _items(sweep, capture)
    mass = _mass(capture, segment, rows)[:, :, in_capture]
    own = 1 if quantity == "nie" else 0
    effect = sweep.effect(quantity)[:, in_sweep]
    y = np.asarray(sweep.y11 if quantity == "nie" else sweep.y00)
    c = _confounders(confounders, len(y))
    units = np.unique(np.asarray(sweep.clusters), return_inverse=True)[1]
    g, needed = int(units.max()) + 1, c.shape[1] + 2
    if g <= needed:
        raise MediationError(
            f"{g} sampling units are too few for a slope with {c.shape[1]} columns and its interval",
            hint=f"at least {needed + 1}",
        )
    spread = np.ptp(mass[:, own], axis=0)
    varies = spread > 1e-12
    if not varies.any():
        raise MediationError(
            f"under prompt {own} the mass on {segment!r} does not vary between items, for any head",
            hint="take a segment that this prompt has"
            + ("" if own else ", or quantity='nie', which uses prompt 1"),
        )
    seen = (mass[..., varies], y, c, own)
    acme = np.full(len(chosen), np.nan)
    acme[varies] = _acme(*seen, np.ones((1, len(y))))[0]
    rng = np.random.default_rng(random_state)
    weights = _bootstrap_weights(units, g, needed, draws, rng)
    drawn = _acme(*seen, weights)
    tail = (1 - level) / 2
    low, high = np.full((2, len(chosen)), np.nan)
    low[varies], high[varies] = np.quantile(widened(drawn, acme[varies], g, rng), [tail, 1 - tail], axis=0)
    inference = infer_heads(sweep, quantity=quantity, level=level, n_splits=0)
    nie = tuple(inference.parts[at] for at in in_sweep)
    difference = acme - column(nie, "estimate")
    p, tellable = np.ones(len(chosen)), np.full(len(chosen), np.nan)
    p[varies], tellable[varies] = _max_t(
        drawn - weights @ effect[:, varies] / weights.sum(1, keepdims=True),
        difference[varies],
        df=g - needed,
        alpha=alpha,
    )
    labels = [part.label for part in nie]
    out = MediationComparison(
        parts=estimates(labels, len(y), estimate=difference, p_adjusted=p),
        level=level,
        sentence="",
        axis=f"statistical less interventional effect on {sweep.outcome}",
        segment=segment,
        quantity=quantity,
        heads=chosen,
        acme=estimates(labels, len(y), estimate=acme, ci_low=low, ci_high=high),
        nie=nie,
        overlap=share_inside(mass[:, 1 - own], mass[:, own]),
        rank_correlation=_spearman(acme[varies], column(nie, "estimate")[varies]),
        alpha=alpha,
        n_clusters=g,
    )
    return replace(out, sentence=_sentence(out, tellable))


def _acme(mass: Array, y: Array, confounders: Array, own: int, weights: Array) -> Array:
    """ACME of each head under each row of weights of the items, draws x heads; mass: items x arms x heads."""
    m, p = mass[:, own], confounders.shape[1] + 1
    # Centred once, so that the products lose no digits to a common level.
    m, y = m - m.mean(0), y - y.mean()
    x = np.column_stack([np.ones(len(y)), confounders])
    total = weights.sum(1, keepdims=True)
    mm, my = weights @ m**2, weights @ (m * y[:, None])
    xx = np.stack([weights @ (x * x[:, [j]]) for j in range(p)], 1)
    xm = np.stack([weights @ (m * x[:, [j]]) for j in range(p)], 1)
    xy = weights @ (x * y[:, None])
    inverse = np.linalg.pinv(xx, hermitian=True)
    explained = np.einsum("djk,dkh->djh", inverse, xm)
    slope = (my - np.einsum("dj,djh->dh", xy, explained)) / (mm - np.einsum("djh,djh->dh", xm, explained))
    return np.asarray(weights @ (mass[:, 1] - mass[:, 0]) / total * slope)


def _heads(
    sweep: Sweep, capture: AttentionCapture, heads: Sequence[SiteLike] | None
) -> tuple[tuple[Head, ...], list[int], list[int]]:
    places = [{h: i for i, h in enumerate(sites)} for sites in (sweep.sites, as_sites(capture.heads))]
    chosen = tuple(site for site in sweep.sites if site in places[1]) if heads is None else as_sites(heads)
    if not chosen:
        raise MediationError("the sweep and the capture have no head in common, or heads is empty")
    for name, place in zip(("sweep", "capture"), places, strict=True):
        missing = [h for h in chosen if h not in place]
        if missing:
            raise MediationError(f"the {name} does not hold {missing[0]}", hint="run it on all heads")
    return heads_of(chosen), [places[0][h] for h in chosen], [places[1][h] for h in chosen]


def _items(sweep: Sweep, capture: AttentionCapture) -> list[int]:
    at = {item: i for i, item in enumerate(capture.item_ids)}
    missing = [item for item in sweep.item_ids if item not in at]
    if missing:
        raise MediationError(
            f"the capture has no item {missing[0]!r}", hint="run both on the same pairs of prompts"
        )
    return [at[item] for item in sweep.item_ids]


def _mass(capture: AttentionCapture, segment: str, rows: list[int]) -> Array:
    """Mass on the segment, items x arms x heads; zero where a prompt does not have it."""
    if segment not in capture.segments:
        raise MediationError(
            f"the capture has no segment {segment!r}", hint=f"it has: {', '.join(capture.segments)}"
        )
    mass = capture.mass[rows][..., capture.segments.index(segment)]
    return np.where(np.isnan(mass), 0.0, mass)


def _confounders(given: ArrayLike | None, n: int) -> Array:
    if given is None:
        return np.empty((n, 0))
    c = np.asarray(given, dtype=np.float64)
    c = c[:, None] if c.ndim == 1 else c
    if c.shape[0] != n or not np.isfinite(c).all():
        raise MediationError(f"confounders must be finite, with one row for each of the {n} items")
    spread = c.std(0)
    if not (spread > 0).all():
        raise MediationError(f"column {int(np.argmin(spread))} of confounders is constant")
    return np.asarray((c - c.mean(0)) / spread)


def _bootstrap_weights(
    units: NDArray[np.intp], g: int, needed: int, draws: int, rng: np.random.Generator
) -> Array:
    """How often each item is sampled; samples of too few clusters for a slope are sampled again."""
    counts = np.empty((0, g))
    for _ in range(_ATTEMPTS):
        sampled = rng.multinomial(g, np.full(g, 1 / g), draws).astype(np.float64)
        counts = np.vstack([counts, sampled[(sampled > 0).sum(1) > needed]])
        if len(counts) >= draws:
            return np.asarray(counts[:draws][:, units])
    raise MediationError(f"{g} sampling units are too few for a bootstrap", hint="add items")


def _max_t(draws: Array, difference: Array, *, df: int, alpha: float) -> tuple[Array, Array]:
    """Step-down max-|t| p of each difference, from bootstrap draws of all, and the size that one must have.

    The draws have one standard error, so they scatter as normal ones do, and the sample's own t, whose error
    is estimated, as t does: it is turned into the normal one with the same tail.
    """
    se = draws.std(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference == 0, 0.0, np.abs(difference) / se)
        null = np.where(se > 0, np.abs(draws - difference) / se, 0.0)
    t = normal_scores(t, [df] * len(t))
    return step_down(t, null), reach(float(np.quantile(null.max(1), 1 - alpha)), df) * se


def _spearman(a: Array, b: Array) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def _sentence(r: MediationComparison, tellable: Array) -> str:
    name = "NIE" if r.quantity == "nie" else "pure NIE"
    acme, nie, size = (column(parts, "estimate") for parts in (r.acme, r.nie, r.parts))
    known, size = np.isfinite(acme), np.abs(size)
    disagree = int(r.disagree.sum())
    stat, real = (sum(i.ends[0] > 0 or i.ends[1] < 0 for i in parts) for parts in (r.acme, r.nie))
    text = (
        f"Attention to the segment {r.segment!r}, taken as a measured mediator, has an effect whose "
        f"{percent(r.level)} interval excludes zero in {stat} of {len(known)} heads; intervening on "
        f"the heads shows such an {name} in {real}. The two rank the heads with a correlation of "
        f"{r.rank_correlation:.2f}. "
    )
    if disagree:
        worst = int(np.argmax(np.where(r.disagree, size, -1)))
        text += (
            f"They differ in {counted(disagree, 'head')} with the familywise error held at {r.alpha:g} "
            "(the others need not agree: nothing is known of them), "
            f"most in {r.nie[worst].label} ({acme[worst]:.3g} by statistics, "
            f"{nie[worst]:.3g} by intervention): so much do sequential ignorability and a straight line "
            "cost there."
        )
    else:
        most = int(np.nanargmax(size))
        text += (
            f"In no head can these {r.n_clusters} sampling units tell the two apart with the familywise "
            f"error held at {r.alpha:g}, which is no evidence that they agree: the largest difference, in "
            f"{r.nie[most].label}, is {acme[most]:.3g} by statistics against {nie[most]:.3g} "
            f"by intervention, and one there would have to be {tellable[most]:.3g} to be told from zero."
        )
    text += _extrapolated(r.overlap[known], r.segment, 1 if r.quantity == "nie" else 0)
    if r.n_clusters < _FEW_CLUSTERS:
        text += f" With {r.n_clusters} sampling units the statistical side's intervals are rough."
    if (~known).any():
        still = counted(int((~known).sum()), "head")
        text += f" In {still} the mass does not vary, so statistics have no answer."
    return text


def _extrapolated(overlap: Array, segment: str, own: int) -> str:
    """Say in how many heads the slope is drawn out to masses that its prompt hardly has."""
    apart = int((overlap < ENOUGH).sum())
    if not apart:
        return ""
    return (
        f" In {apart} of {len(overlap)} heads most items' mass on {segment!r} under prompt {1 - own} lies "
        f"outside the range seen under prompt {own}, as where only one prompt has that segment. There the "
        "statistical effect extrapolates: it rests on a line drawn out to values without data, so neither "
        "a difference from the intervention nor the want of one says much."
    )
