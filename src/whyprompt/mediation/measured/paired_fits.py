"""Models of the differences within items, fitted to any number of weighted samples of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from whyprompt.effects.checks.partial_r2 import robustness_value
from whyprompt.errors import EstimationError
from whyprompt.mediation.measured.counterfactual import widened
from whyprompt.mediation.measured.pairs_of_items import Model, model_of
from whyprompt.stats.resampling import draw_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.mediation.measured.pairs_of_items import ItemPairs
    from whyprompt.results import Estimate

    Array = NDArray[np.float64]

JOINTLY = "jointly"
"""The name of all mediators together, where there are several."""

RHOS = (-0.5, -0.3, -0.1, 0.1, 0.3, 0.5)
"""Correlations of the errors at which an indirect effect is shown."""
_CELLS = 1 << 22
_ATTEMPTS = 20
Name = tuple[str, str]
"""Of an effect: its label, and the mediator that it is of."""


class Fit(NamedTuple):
    """A model of the differences, and the mediators that it is asked about."""

    model: Model
    asked: tuple[tuple[str, str, tuple[int, ...]], ...]
    """Prefix of the labels, the name, and which of the model's members."""


def fitted(pairs: ItemPairs, *, interaction: bool) -> list[Fit]:
    """Build the models: of each mediator alone, and of all of them together."""
    out = []
    for name, members in pairs.groups.items():
        model = model_of(pairs, members, interaction=interaction)
        out.append(Fit(model, (("", name, tuple(range(len(members)))),)))
    if len(pairs.groups) > 1:
        every = tuple(range(len(pairs.names)))
        joint = model_of(pairs, every, interaction=interaction)
        own = [("interventional_", name, members) for name, members in pairs.groups.items()]
        out.append(Fit(joint, (("", JOINTLY, every), *own)))
    return out


def effects_of_pairs(pairs: ItemPairs, fits: Sequence[Fit], weights: Array) -> dict[Name, Array]:
    """Give the effects of each row of `weights` (draws, items); NaN where a sample has no fit."""
    w = weights / weights.sum(1, keepdims=True)
    te = w @ (pairs.y[:, 1] - pairs.y[:, 0])
    delta = w @ (pairs.m[:, 1] - pairs.m[:, 0])
    out = {("total_effect", ""): te}
    for model, asked in fits:
        slopes = _slopes(model, pairs.y[:, 1] - pairs.y[:, 0], w)
        for prefix, name, members in asked:
            for label, rest, places in (
                ("nie", "nde", model.treated),
                ("pure_nie", "total_nde", model.control),
            ):
                if any(places[k] is None for k in members):
                    continue
                terms = [slopes[:, places[k]] * delta[:, model.members[k]] for k in members]
                out[f"{prefix}{label}", name] = effect = np.sum(terms, axis=0)
                if not prefix:
                    out[rest, name] = te - effect
    return out


def _slopes(model: Model, dy: Array, w: Array) -> Array:
    """Least squares of each row of weights, draws x columns, in units of the columns themselves."""
    x, p = model.x, model.x.shape[1]
    gram = np.stack([w @ (x * x[:, [j]]) for j in range(p)], 1)
    right = w @ (x * dy[:, None])
    values = np.linalg.eigvalsh(gram)
    whole = values[:, 0] > 1e-10 * values[:, -1]
    slopes = np.full((len(w), p), np.nan)
    slopes[whole] = np.linalg.solve(gram[whole], right[whole][..., None])[..., 0] / model.scale
    return slopes


def bootstrap(
    pairs: ItemPairs,
    fits: Sequence[Fit],
    point: Mapping[Name, float],
    draws: int,
    rng: np.random.Generator,
    further: Array | None = None,
) -> dict[Name, Array]:
    """Fit all again on samples of the units, and widen the draws; a sample without a fit is drawn again.

    `further`, (items, columns), has means over the same samples, as ``("further", "0")`` and so on.
    """
    further = np.empty((len(pairs.items), 0)) if further is None else further
    units = int(pairs.units.max()) + 1
    found: list[Array] = []
    got, step = 0, max(1, min(draws, _CELLS // len(pairs.items)))
    for _ in range(_ATTEMPTS * -(-draws // step)):
        counts = draw_counts(units, step, rng)
        weights = counts[:, pairs.units]
        effects = np.stack(list(effects_of_pairs(pairs, fits, weights).values()), 1)
        effects = np.hstack([effects, weights @ further / weights.sum(1, keepdims=True)])
        found.append(effects[np.isfinite(effects).all(1)])
        got += len(found[-1])
        if got >= draws:
            break
    else:
        raise EstimationError(
            "most samples of the items cannot be fitted: a mediator differs in too few of them",
            hint="leave out what hardly varies, or use interaction=False",
        )
    centre = np.array([*map(float, point.values()), *further.mean(0)])
    wide = widened(np.concatenate(found)[:draws], centre, units, rng)
    names = [*point, *(("further", str(k)) for k in range(further.shape[1]))]
    return dict(zip(names, wide.T, strict=True))


def undone(model: Model, dy: Array, weights: Mapping[int | None, float]) -> dict[str, float]:
    """Say what would undo a sum of slopes: the correlation of the errors, and the share of what is left.

    The sum is one coefficient of the same regression in other columns, so that what is known of one
    coefficient holds for it.
    """
    x, n = model.x, len(dy)
    df = n - x.shape[1]
    along = np.zeros(x.shape[1])
    for place, weight in weights.items():
        assert place is not None
        along[place] = weight / model.scale[place]
    coef = np.linalg.lstsq(x, dy, rcond=None)[0]
    residual = dy - x @ coef
    spread = float(along @ np.linalg.solve(x.T @ x, along))
    # The error times the root of its degrees of freedom: what is left of the outcome over what is left of the
    # mediator.
    per = float(np.sqrt(residual @ residual * spread))
    ratio = float(along @ coef) / per if per > 0 else np.inf
    rho = float(ratio / np.sqrt(1 + ratio**2)) if np.isfinite(ratio) else float(np.sign(along @ coef))
    value = robustness_value(ratio * np.sqrt(df), df) if np.isfinite(ratio) else 1.0
    return {"rho_at_zero": rho, "per_rho": per, "robustness_value": value}


def at_rho(row: Estimate, rho: float) -> float:
    """Give a NIE or pure NIE of `paired_mediation` where the errors of both models have this correlation.

    Examples
    --------
    >>> from whyprompt.results import Estimate
    >>> row = Estimate(label="nie", estimate=0.5, figures={"per_rho": 0.5, "rho_at_zero": 2**-0.5})
    >>> at_rho(row, 0.0), abs(at_rho(row, 2**-0.5)) < 1e-12
    (0.5, True)
    """
    assert row.estimate is not None
    return float(row.estimate - cast("float", row["per_rho"]) * rho / np.sqrt(1 - rho**2))
