"""Models of the effect: what modifiers say of it by the scores of rows, and no more than these show.

The default is a convex combination of one number for all rows, a ridge regression, a forest and, where the
modifiers are all that was adjusted for, the difference of the two arms' outcome models. Shares go by how well
each predicts the scores of left-out rows, and begin with 85% for the one number. Scores are noisy:
shares that predict them best, as in stacking, are shares chosen among noise where rows are few, and shrinking
what was chosen takes back what is true with what is not. Shares that change slowly with the evidence do
neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whyprompt.effects.methods.learners import fit_outcome, read_learner, refuse_learner
from whyprompt.errors import EstimationError
from whyprompt.stats.design import moments
from whyprompt.stats.threads import one_openmp_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from whyprompt.effects.methods.learners import Fitted, OutcomeModel
    from whyprompt.effects.whom.evidence import Evidence

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


# Ridge penalties, in units of a column's variance: the heaviest leaves a tenth of a slope. They are judged on
# so many parts of the rows.
_PENALTIES, _PARTS = np.geomspace(0.003, 10.0, 20), 20
# A tree has leaves of so many rows at least, and sees half of the rows, or so many where that is fewer.
_TREES, _LEAF, _ROWS = 100, 20, 5_000
# The share of one number for all before any evidence. With half of it, and twice the temperature, predictions
# for 300 rows whose effects are all the same were worse by a tenth (`benchmarks/heterogeneity.py`).
_PRIOR = 0.85
# The share that one number for all leaves to the others: it moves no prediction, and keeps rows in an order.
_LEAST = 0.02
# How many of its variances a left-out score is worth: 2 would be its likelihood.
_TEMPERATURE = 4.0
# Scores are rounded to this share of their spread, so that rounding decides no split of a tree.
_DIGITS = 9


class Predicts(Protocol):
    """A model that was fitted."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - as scikit-learn
        """Predict the effect from modifiers, shape (n, q)."""


def read_effect_model(model: OutcomeModel | str, design: str) -> OutcomeModel | str:
    """Give a model by its name, or make the one that a text names; what is none is refused."""
    if model == "x_learner" and design == "paired":
        raise EstimationError(
            "effect_model='x_learner' has no meaning with design='paired': it fills in the outcome of the arm"
            " that a row did not have, and here each item had both",
            hint="effect_model='stacked', 'linear' or 'forest'",
        )
    if isinstance(model, str):
        return model if model in EFFECT_MODELS else read_learner(model, "effect_model")
    refuse_learner(model, "effect_model")
    return model


def fit_effect(model: OutcomeModel | str, seen: Evidence) -> Predicts:
    """Fit a model of the effect to the evidence; one that is given is cloned, and left as it was."""
    if isinstance(model, str):
        return _FITS[model](seen)
    from sklearn.base import clone

    fitted: OutcomeModel = clone(model)
    with one_openmp_thread():
        try:
            fitted.fit(seen.modifiers, seen.effect)
        except (ValueError, TypeError) as error:
            raise EstimationError(
                f"effect_model {type(model).__name__} could not be fitted to {len(seen.effect)} rows:"
                f" {str(error).strip().partition(chr(10))[0]}",
                hint="effect_model='stacked', the default, or more rows",
            ) from None
    return fitted


def predict_effect(model: Predicts, modifiers: Floats) -> Floats:
    """Predict, shape (n,); what is not one finite number a row is refused.

    Predictions that agree to rounding are made equal: equal rows have equal effects.
    """
    given = np.asarray(model.predict(modifiers))
    predicted = given.astype(np.float64).reshape(-1) if given.dtype.kind in "fiub" else np.empty(0)
    if len(predicted) != len(modifiers) or not np.isfinite(predicted).all():
        raise EstimationError(
            f"effect_model {type(model).__name__} gives predictions that are not one finite number for each"
            " row",
            hint="effect_model='stacked', the default, or another regressor",
        )
    size = float(np.abs(predicted).max())
    if size == 0:
        return predicted
    unit = 10.0 ** np.floor(np.log10(size))
    return np.asarray(np.round(predicted / unit, _DIGITS) * unit)


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A ridge regression; `held` are each row's predictions by fits without its part of the rows."""

    at: float
    centre: Floats
    slopes: Floats
    held: Floats

    def predict(self, X: Floats) -> Floats:
        return np.asarray(self.at + (X - self.centre) @ self.slopes)


def _line(seen: Evidence) -> _Line:
    """Fit the weighted ridge regression of the penalty that predicts left-out units best.

    Sums over the parts give those of all rows but one part's, so that the rows are gone through once.
    """
    centre, scale = moments(seen.modifiers)
    live = scale > 0
    X, y, w = (seen.modifiers[:, live] - centre[live]) / scale[live], seen.effect, seen.weight
    part = _parts(seen.unit)
    sums = [_sums(X[part == k], y[part == k], w[part == k]) for k in range(int(part.max()) + 1)]
    whole = tuple(sum(column) for column in zip(*sums, strict=True))
    held = np.full((len(y), len(_PENALTIES)), whole[2] / whole[0])
    for k, own in enumerate(sums if len(sums) > 1 else ()):
        here = part == k
        at, mean, slopes = _ridge(*(a - b for a, b in zip(whole, own, strict=True)))
        held[here] = at + (X[here] - mean) @ slopes
    best = int(np.argmin(w @ (held - y[:, None]) ** 2)) if len(sums) > 1 else len(_PENALTIES) - 1
    at, mean, slopes = _ridge(*whole)
    back, middle = np.zeros(len(scale)), centre.copy()
    back[live], middle[live] = slopes[:, best] / scale[live], centre[live] + mean * scale[live]
    return _Line(at, middle, back, held[:, best])


def _parts(unit: Ints) -> Ints:
    """Deal units to parts, whole."""
    units = int(unit.max()) + 1
    return (np.random.default_rng(0).permutation(units) % _PARTS)[unit] if units > 1 else 0 * unit


def _sums(X: Floats, y: Floats, w: Floats) -> tuple[Any, ...]:
    weighed = X * w[:, None]
    return w.sum(), weighed.sum(axis=0), w @ y, X.T @ weighed, y @ weighed


def _ridge(total: float, x: Floats, y: float, xx: Floats, xy: Floats) -> tuple[float, Floats, Floats]:
    """Give the mean of y, those of X, and the slopes at every penalty, shape (q, penalties)."""
    at, mean = y / total, x / total
    d, V = np.linalg.eigh(xx / total - np.outer(mean, mean))
    along = V.T @ (xy / total - at * mean)
    return at, mean, V @ (along[:, None] / (np.maximum(d, 0.0)[:, None] + _PENALTIES))


@dataclass(frozen=True, slots=True, eq=False)
class _Forest:
    """The mean of trees; `held` are each row's predictions by those that did not see its unit."""

    at: float
    size: float
    trees: tuple[Any, ...]
    held: Floats

    def predict(self, X: Floats) -> Floats:
        return np.asarray(self.at + self.size * np.mean([tree.predict(X) for tree in self.trees], axis=0))


def _forest(seen: Evidence) -> _Forest:
    """Grow trees on half of the units each or fewer, drawn without replacement.

    scikit-learn's forests draw rows, by their weight, so that a heavy one is left out of no tree.

    References: Wager, S. and Athey, S. (2018). JASA 113, 1228-1242.
    """
    from sklearn.tree import DecisionTreeRegressor

    X, unit = seen.modifiers, seen.unit
    at, size = float(seen.effect.mean()), float(seen.effect.std()) or 1.0
    y = np.round((seen.effect - at) / size, _DIGITS)
    weight = np.round(seen.weight / seen.weight.max(), _DIGITS)
    units = int(unit.max()) + 1
    drawn = int(np.ceil(units * min(0.5, _ROWS / len(y))))
    rng = np.random.default_rng(0)
    trees, total, times = [], np.zeros(len(y)), np.zeros(len(y))
    for k in range(_TREES):
        half = (rng.permutation(units) < drawn)[unit]
        tree = DecisionTreeRegressor(min_samples_leaf=_LEAF, max_features=1 / 3, random_state=k)
        trees.append(tree.fit(X[half], y[half], sample_weight=weight[half]))
        if not half.all():
            total[~half] += tree.predict(X[~half])
            times[~half] += 1.0
    return _Forest(at, size, tuple(trees), at + size * total / np.maximum(times, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Arms:
    """The difference of the outcome models of the treated and of the control rows."""

    treated: Fitted
    control: Fitted

    def predict(self, X: Floats) -> Floats:
        return np.asarray(self.treated.predict(X) - self.control.predict(X))


def unshrunk(model: Predicts, predicted: Floats) -> Floats:
    """Take back the share of one number for all from what a model predicted: what its models say alone.

    Effects are known better when drawn towards their average. Which of two arms to take is not: where rows
    are few, what all are drawn towards is itself hardly told from 0, and every row would follow it.
    """
    if not isinstance(model, Stacked):
        return predicted
    return model.at + (predicted - model.at) / (1.0 - model.shares["one number"])


def _arms(seen: Evidence) -> _Arms | None:
    """Fit the outcome models to the rows seen, where these are enough to tell."""
    if seen.arms is None or seen.y is None or seen.treated is None:
        return None
    by_arm = (seen.treated, ~seen.treated)
    if min(arm.sum() for arm in by_arm) < _LEAF:
        return None
    return _Arms(
        *(
            fit_outcome(seen.modifiers[arm], seen.y[arm], model)
            for arm, model in zip(by_arm, seen.arms, strict=True)
        )
    )


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """One number for all and the models, by shares that sum to 1: the number's, then each model's."""

    shares: dict[str, float]
    at: float
    models: tuple[Predicts, ...]

    def predict(self, X: Floats) -> Floats:
        """Predict the effect from modifiers."""
        one, *others = self.shares.values()
        return np.asarray(
            one * self.at + sum(k * m.predict(X) for k, m in zip(others, self.models, strict=True))
        )


def _stacked(seen: Evidence) -> Stacked:
    """Give each model its share by its likelihood on left-out scores, tempered.

    The mean of the models is one of those judged: it is often better than each of them.

    References: Dalalyan, A. S. and Tsybakov, A. B. (2008). Machine Learning 72, 39-61 (exponential weights;
    at a temperature of 4 variances, as here, or more, their mean is about as good as the best). Lan, H. and
    Syrgkanis, V. (2024). Causal Q-aggregation for CATE model selection. AISTATS, PMLR 238 (of scores).
    """
    y, w, n = seen.effect, seen.weight / seen.weight.sum(), len(seen.effect)
    at, line, forest = float(y.mean()), _line(seen), _forest(seen)
    made: dict[str, tuple[Predicts, Floats]] = {"linear": (line, line.held), "forest": (forest, forest.held)}
    arms = _arms(seen)
    if arms is not None and seen.between is not None:
        made["outcome models"] = (arms, seen.between)
    part = _parts(seen.unit)
    size = np.bincount(part)
    others = (y.sum() - np.bincount(part, weights=y)) / np.maximum(n - size, 1)
    one = np.where(n > size, others, at)[part]
    held = np.column_stack([one, *(x for _, x in made.values())])
    held = np.column_stack([held, held[:, 1:].mean(axis=1)])
    loss = w @ (held - y[:, None]) ** 2
    # Rows of a unit say less than as many rows of their own.
    off = w * (y - one)
    alike = max(float((np.bincount(seen.unit, weights=off) ** 2).sum() / ((off @ off) or 1.0)), 1.0)
    k = len(made)
    prior = np.r_[_PRIOR, np.full(k + 1, (1.0 - _PRIOR) / (k + 1))]
    shares = prior * np.exp((1.0 - loss / (loss.min() or 1.0)) * n / (_TEMPERATURE * alike))
    shares /= shares.sum()
    each = shares[1:-1] + shares[-1] / k
    each += max(0.0, _LEAST - float(each.sum())) / k
    named = {"one number": 1.0 - float(each.sum())} | dict(zip(made, each.tolist(), strict=True))
    return Stacked(named, at, tuple(model for model, _ in made.values()))


@dataclass(frozen=True, slots=True, eq=False)
class _XLearner:
    """The effect among the treated and among the control rows, weighed by the score."""

    by_treated: Fitted
    by_control: Fitted
    share: Fitted

    def predict(self, X: Floats) -> Floats:
        share = np.clip(self.share.predict(X), 0.0, 1.0)
        return np.asarray(share * self.by_control.predict(X) + (1.0 - share) * self.by_treated.predict(X))


def _x_learner(seen: Evidence) -> _XLearner:
    """Fill in the outcome of the arm that a row did not have by a model of that arm's rows.

    Unlike the doubly robust score, what is filled in leans on the outcome model alone.

    References: Kuenzel, S. R. et al. (2019). PNAS 116, 4156-4165.
    """
    t, y, X, model = seen.treated, seen.y, seen.modifiers, seen.outcome_model
    covariates = seen.covariates
    assert t is not None
    assert y is not None
    assert seen.score is not None
    assert covariates is not None

    def other(arm: Bools) -> Floats:
        """Predict, for the rows of one arm, the outcome under the other."""
        Z, new = covariates.split(~arm, arm, y)
        return fit_outcome(Z, y[~arm], model).predict(new)

    had, lacked = y[t] - other(t), other(~t) - y[~t]
    # Any weights between 0 and 1 will do: the score's, as far as modifiers tell it.
    share = fit_outcome(X, seen.score, model)
    return _XLearner(fit_outcome(X[t], had, model), fit_outcome(X[~t], lacked, model), share)


_FITS: Mapping[str, Callable[[Evidence], Predicts]] = {
    "stacked": _stacked,
    "linear": _line,
    "forest": _forest,
    "x_learner": _x_learner,
}
EFFECT_MODELS = tuple(_FITS)
"""The models that have a name; any regressor of scikit-learn is one as well."""
