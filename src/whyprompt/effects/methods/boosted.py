"""The default learners: a line, and boosted trees of what it leaves over.

They begin with a line, to which squares and products belong, and let boosted trees say what it leaves
over: of an outcome a ridge regression and trees on its residuals, of the arm a penalised logistic regression
and trees on its working residuals (one step of Newton's from there). Where the truth is a line, or many
levels with few rows each, the line has it; what is no line the trees find as far as the rows show it. Both
are penalised, so that there may be more columns than rows, and no level of one arm alone drives a score to 0
or 1. Few rows show no trees.

Numbers of trees were settled on simulated outcomes, those of the ACIC 2016 challenge, of
`benchmarks/coverage_default.py` and of `benchmarks/default.py`, and go by the number of rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.methods.curved import Curved
from whyprompt.stats.threads import one_openmp_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.covariates import Covariates

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

BOOSTED = "boosted"
# Trees of the outcome and of the score: so many, of such a rate, of so many leaves of at least so many rows.
_OUTCOME: dict[str, Any] = {"max_iter": 200, "learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 5}
_SCORE: dict[str, Any] = {"max_iter": 150, "learning_rate": 0.08, "max_leaf_nodes": 7, "min_samples_leaf": 20}
_SHARED: dict[str, Any] = {"l2_regularization": 1.0, "early_stopping": False, "random_state": 0}
# So many rows tell twice as many trees of an outcome apart, and so many those of a score with so many leaves.
_MORE, _TWICE, _LARGER, _LEAVES = 4_000, 2, 30_000, 16
# Fewer rows show no trees; of more it is not asked how much of them is noise, in so many parts.
_FEW, _MANY, _THIRDS = 100, 2_000, 3
# Penalties of the logistic regression (the inverse of C), by the likelihood of rows left out, in so many
# parts of so many rows at most.
_COSTS, _PARTS, _TRIED = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), 4, 3_000
# A row left out is given this chance at least.
_LEAST = 1e-4
# Working residuals are of probabilities no nearer to 0 or 1 than this.
_EDGE = 0.03
# Bins of a column that trees tell apart.
_BINS = 255
_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 10))


class RidgeAndTrees:
    """A ridge regression, its penalty by leaving out one, and boosted trees on its residuals."""

    def __init__(self, share: float | None = None) -> None:
        self.share = share

    @classmethod
    @one_openmp_thread()
    def settled(cls, covariates: Covariates, rows: Bools, y: Floats) -> RidgeAndTrees:
        """Settle once for all folds how much of the trees is kept: one number says little of any row."""
        X, _ = covariates.split(rows, rows[:0], y)
        told = X.shape[1] and rows.sum() < _MANY
        return cls(cls().fit(X, y[rows]).trees.share if told else 1.0)

    def fit(self, X: Floats, y: Floats) -> RidgeAndTrees:
        """Fit to the rows of one arm."""
        from sklearn.linear_model import RidgeCV

        self.scale = Curved(X, y)
        scaled = self.scale(X)
        self.line = RidgeCV(alphas=_PENALTIES).fit(scaled, y)
        rest = y - self.line.predict(scaled)
        self.trees = _Trees(X, rest, None, _OUTCOME, self.share)
        self.range = y.min(), y.max()
        return self

    def predict(self, X: Floats) -> Floats:
        """Predict the outcome, within those that were seen."""
        line = self.line.predict(self.scale(X))
        # Beyond the outcomes seen a line goes on for ever, and rows there are those that nothing supports.
        return np.asarray(np.clip(line + self.trees.predict(X), *self.range))


class LogitAndTrees:
    """The default score: a penalised logistic regression, and boosted trees on its working residuals.

    Where rows left out are likelier so, the trees are of the log-odds themselves, without a line: a line that
    says next to nothing leaves one step of Newton's far from the score.
    """

    name = BOOSTED
    classes_ = np.array([0, 1])

    def __init__(self, cost: float | None = None, share: float | None = None, *, lined: bool = True) -> None:
        self.given, self.lined = (cost, share), lined

    @classmethod
    @one_openmp_thread()
    def settled(cls, covariates: Covariates, treated: Bools) -> LogitAndTrees:
        """Settle once for all folds the penalty, how much of the trees is kept, and whether a line is."""
        every = np.ones(len(treated), dtype=bool)
        X, _ = covariates.split(every, every[:0], treated.astype(float))
        cost = _cost(Curved(X, treated.astype(float))(X), treated)
        if len(treated) < 2 * _FEW or min(treated.sum(), (~treated).sum()) < _FEW // _THIRDS:
            return cls(cost, 0.0)
        share = cls(cost).fit(X, treated).trees.share if len(treated) < _MANY else 1.0
        rows = np.arange(len(treated))[:: len(treated) // (2 * _TRIED) + 1]
        part, loss = _dealt(treated[rows], _THIRDS), np.zeros(2)
        for k in range(_THIRDS):
            train, test = rows[part != k], rows[part == k]
            for lined in (False, True):
                p = cls(cost, share, lined=lined).fit(X[train], treated[train]).predict_proba(X[test])
                loss[int(lined)] -= np.log(np.maximum(np.where(treated[test], *p.T[::-1]), _LEAST)).sum()
        return cls(cost, share, lined=bool(loss[1] <= loss[0]))

    def fit(self, X: Floats, y: Any) -> LogitAndTrees:  # noqa: ANN401 - 0 and 1
        """Fit to rows of both arms."""
        if not self.lined:
            from sklearn.ensemble import HistGradientBoostingClassifier

            self.whole = HistGradientBoostingClassifier(**_for_rows(_SCORE, len(y)) | _SHARED).fit(X, y)
            return self
        t = np.asarray(y).astype(bool)
        self.scale = Curved(X, t.astype(float))
        scaled = self.scale(X)
        cost, share = self.given
        self.line = _logit(_cost(scaled, t) if cost is None else cost).fit(scaled, t)
        p = np.clip(self.line.predict_proba(scaled)[:, 1], _EDGE, 1 - _EDGE)
        curve = p * (1 - p)
        self.trees = _Trees(X, (t - p) / curve, curve, _SCORE, share)
        return self

    def predict_proba(self, X: Floats) -> Floats:
        """Give the probability of 0 and of 1."""
        if not self.lined:
            return np.asarray(self.whole.predict_proba(X))
        odds = self.line.decision_function(self.scale(X)) + self.trees.predict(X)
        p = 0.5 * (1.0 + np.tanh(0.5 * odds))
        return np.column_stack([1 - p, p])

    def __sklearn_clone__(self) -> LogitAndTrees:
        """Begin anew with what was given."""
        return LogitAndTrees(*self.given, lined=self.lined)


class _Trees:
    """Boosted trees, drawn towards 0 by as much as they promise more than they keep on rows left out.

    Where rows are few, trees of what a line leaves are noise as often as not, and an estimate pays for noise
    with its interval. The factor is the slope of `y` on predictions from other parts, between 0 and 1.
    """

    def __init__(
        self, X: Floats, y: Floats, weights: Floats | None, options: dict[str, Any], share: float | None
    ) -> None:
        self.share, self.model = 0.0, None
        if len(y) < _FEW or not X.shape[1]:
            return
        self.share = share if share is not None else self._kept(X, y, weights, options)
        if self.share > 0:
            self.model = _boosted(X, y, weights, options)

    @staticmethod
    def _kept(X: Floats, y: Floats, weights: Floats | None, options: dict[str, Any]) -> float:
        if len(y) >= _MANY:
            return 1.0
        drawn = np.empty(len(y))
        part = np.arange(len(y)) % _THIRDS
        for k in range(_THIRDS):
            rows = part != k
            given = None if weights is None else weights[rows]
            drawn[~rows] = _boosted(X[rows], y[rows], given, options).predict(X[~rows])
        w = np.ones(len(y)) if weights is None else weights
        size = float(w @ drawn**2)
        return float(np.clip(w @ (drawn * y) / size, 0.0, 1.0)) if size > 0 else 0.0

    def predict(self, X: Floats) -> Any:  # noqa: ANN401 - an array, or 0
        return 0.0 if self.model is None else self.share * self.model.predict(X)


@dataclass(frozen=True, slots=True, eq=False)
class _Binned:
    """Trees of the bins of columns, each with its quantiles by weight."""

    cuts: list[Floats]
    model: Any

    @staticmethod
    def told_by(cuts: list[Floats], X: Floats) -> Floats:
        return np.column_stack([np.searchsorted(cut, x) for cut, x in zip(cuts, X.T, strict=True)]) * 1.0

    def predict(self, X: Floats) -> Any:  # noqa: ANN401 - an array
        return self.model.predict(self.told_by(self.cuts, X))


def _boosted(X: Floats, y: Floats, weights: Floats | None, options: dict[str, Any]) -> Any:  # noqa: ANN401
    from sklearn.ensemble import HistGradientBoostingRegressor

    made = _for_rows(options, len(y))
    # Fewer rows are told apart by fewer trees.
    number = made["max_iter"] if len(y) >= _MANY else made["max_iter"] // 2
    model = HistGradientBoostingRegressor(**made | _SHARED | {"max_iter": number})
    if weights is None:
        return model.fit(X, y)
    # The bins are those of scikit-learn, which sorts a column anew for each of them where there are weights:
    # most of the time that a small table takes.
    cuts = [_cuts(x, weights) for x in X.T]
    return _Binned(cuts, model.fit(_Binned.told_by(cuts, X), y, sample_weight=weights))


def _for_rows(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Give options for so many rows."""
    if options is _OUTCOME and n >= _MORE:
        return options | {"max_iter": _TWICE * options["max_iter"]}
    if options is _SCORE and n >= _LARGER:
        return options | {"max_leaf_nodes": _LEAVES}
    return options


def _cuts(x: Floats, weights: Floats) -> Floats:
    """Give what parts the bins of a column: quantiles by weight, or all values where they are few."""
    distinct = np.unique(x)
    if len(distinct) <= _BINS:
        return np.asarray((distinct[1:] + distinct[:-1]) / 2.0)
    order = np.argsort(x)
    x, total = x[order], np.cumsum(weights[order])
    wanted = np.linspace(0, 100, _BINS + 1)[1:-1] / 100 * total[-1]
    at = np.minimum(np.searchsorted(total, wanted), len(x) - 1)
    after = np.minimum(at + 1, len(x) - 1)
    between = total[at] - wanted <= np.finfo(float).eps
    return np.unique(np.where(between, (x[at] + x[after]) / 2.0, x[at]))


def _logit(cost: float) -> Any:  # noqa: ANN401 - a scikit-learn classifier
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=cost, max_iter=1_000)


def _cost(X: Floats, t: Bools) -> float:
    """Choose the penalty by the likelihood of rows that were left out; the same for the same rows."""
    rows = np.arange(len(t))[:: len(t) // _TRIED + 1]
    parts, loss = _dealt(t[rows], _PARTS), np.zeros(len(_COSTS))
    for k in range(_PARTS):
        train, test = rows[parts != k], rows[parts == k]
        if not 0 < t[train].sum() < len(train):
            return _COSTS[len(_COSTS) // 2]
        for c, cost in enumerate(_COSTS):
            odds = _logit(cost).fit(X[train], t[train]).decision_function(X[test])
            loss[c] += float(np.logaddexp(0.0, np.where(t[test], -odds, odds)).sum())
    return _COSTS[int(np.argmin(loss))]


def _dealt(t: Bools, parts: int) -> Ints:
    """Deal rows to parts, each arm by itself: rows of one item may follow each other arm by arm."""
    part = np.empty(len(t), dtype=np.int64)
    for arm in (t, ~t):
        part[arm] = np.arange(int(arm.sum())) % parts
    return part
