"""Augmented inverse probability weighting with cross-fitted nuisance models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whyprompt._arguments import at_least
from whyprompt.effects.methods.weights import Weighting, raw_weights, weighed
from whyprompt.errors import EstimationError
from whyprompt.stats.influence import cluster_codes, with_intercept
from whyprompt.stats.order import cluster_places
from whyprompt.stats.propensity import SeparatedError, fit_logistic
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.threads import one_openmp_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


# Deals of the folds by default: so many, and fewer where rows are so many that one decides little.
_SPLITS, _ROWS = 10, 100_000


class OutcomeModel(Protocol):
    """What is asked of an outcome model: scikit-learn's ``fit`` and ``predict``."""

    def fit(self, X: Any, y: Any) -> object:  # noqa: ANN401 - scikit-learn's own types
        """Fit to the rows of one arm."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - scikit-learn's own types
        """Predict the outcome."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AIPW(Weighting):
    """Augmented inverse probability weights, cross-fitted: right if either the score or the outcome model is.

    Attributes
    ----------
    folds : int, default 5
        Each row's score and outcomes are predicted from the rows of the other folds; 1 fits on all rows. A
        cluster is never split between folds; the factor of its error is G / (G - 1) and the degrees of
        freedom are G - 1.
    splits : int, optional
        How often rows are dealt to folds; estimates and influence values are averaged. With a few hundred
        rows one deal can move the estimate by half a standard error. Default: 10, and fewer from 20,000 rows
        on, where one says it all at 100,000.
    outcome_model : scikit-learn regressor, optional
        Cloned for each arm and fold. Default: least squares.
    clip : float, default 0.01
        Scores estimated here are kept in ``[clip, 1 - clip]``, and a warning counts those that were not: a
        row's score comes from other rows and can be all but 0 or 1. DoubleML's default; 0 leaves them as
        they are. Scores that are given are never changed.
    discard : {"none", "crump"} or float, default "none"
        As in `IPW`.

    References
    ----------
    Robins, Rotnitzky and Zhao (1994). JASA 89; Chernozhukov et al. (2018). Double/debiased machine learning.
    Econometrics Journal 21, section 5.1.

    Examples
    --------
    >>> AIPW(folds=2).asked
    {'folds': 2}
    """

    name = "aipw"
    estimands = ("att", "atc", "ate")
    dealt = True

    folds: int = 5
    splits: int | None = None
    outcome_model: OutcomeModel | None = None
    clip: float = 0.01
    discard: float | str = "none"

    def __post_init__(self) -> None:
        Weighting.__post_init__(self)
        at_least(self.folds, 1, "folds")
        if self.splits is not None:
            at_least(self.splits, 1, "splits")
        if not 0 <= self.clip < 0.5:
            raise EstimationError(f"clip={self.clip}: expected a number from 0 to below 0.5")

    def weigh(self, problem: Problem, plan: Plan) -> Fit:
        """Average over several deals of the folds: one deal decides too much where rows are few.

        Rows are put in the order of their content, so that neither folds nor models see that of the table.
        """
        order = np.argsort(problem.places, kind="stable")
        back = np.argsort(order)
        given, ordered = problem.known_score, problem.take(order)
        codes = cluster_codes(ordered.cluster, len(order))
        seeds = [plan.random_state]
        splits = max(1, min(_SPLITS, _ROWS // len(problem.y))) if self.splits is None else self.splits
        if self.folds > 1 and splits > 1:
            more = np.random.SeedSequence(plan.random_state).generate_state(splits - 1, dtype=np.uint64)
            seeds += more.tolist()
        made: list[Fit] = []
        refused: list[SeparatedError] = []
        clipped = 0
        for one in seeds:
            try:
                fitted, moved = self._deal(ordered, codes, plan.estimand, one)
                made.append(fitted)
                clipped = max(clipped, moved)
            except SeparatedError as error:
                refused.append(error)
            # Where most deals separate the arms, the others are lucky ones.
            if 2 * len(refused) >= len(seeds):
                raise SeparatedError(
                    f"without the rows of one fold, {refused[0].message}",
                    hint="method='ipw' or 'overlap' fits one score to all rows; a penalised score"
                    " (propensity=LogisticRegression()) has no such limit",
                )
        scores = [fit.propensity for fit in made if fit.propensity is not None]
        return weighed(
            np.mean([fit.weights for fit in made], axis=0)[back],
            np.mean([fit.means for fit in made], axis=0),
            np.mean([fit.influence for fit in made if fit.influence is not None], axis=0)[back],
            given if given is not None else np.mean(np.stack(scores), axis=0)[back],
            self._remarks(len(problem.y), clipped, len(refused), len(seeds)),
        )

    def _remarks(self, n: int, clipped: int, separated: int, deals: int) -> tuple[str, ...]:
        out = []
        if clipped:
            out.append(
                f"{clipped} of {n} cross-fitted propensity scores lay beyond {self.clip:g} or "
                f"{1 - self.clip:g} and were set to it: there the arms hardly overlap"
            )
        if separated:
            out.append(
                f"in {separated} of {deals} deals of the folds the rest of the rows tells the arms apart;"
                " the estimate is the mean over the others: overlap is thin"
            )
        return tuple(out)

    def error(self, problem: Problem, made: Fit) -> tuple[Floats, float | None, tuple[str, ...]]:
        """Return the influence values, summed within clusters: cross-fitted residuals are not too small."""
        assert made.influence is not None
        codes = cluster_codes(problem.cluster, len(problem.y))
        values = made.influence[:, 0] - made.influence[:, 1]
        if codes is None:
            return values, None, ()
        g = int(codes.max()) + 1
        return np.bincount(codes, weights=values) * np.sqrt(g / (g - 1)), g - 1.0, few_clusters(g)

    def _deal(
        self, problem: Problem, codes: NDArray[np.intp] | None, estimand: str, random_state: int
    ) -> tuple[Fit, int]:
        """Fit with one deal of the folds; also return how many scores were moved away from 0 and 1."""
        y, treated, matrix, given = problem.y, problem.treated, problem.design.matrix, problem.known_score
        n = len(y)
        clipped = 0
        score = np.empty(n) if given is None else given
        predicted = np.empty((n, 2))
        for test in deal_folds(treated, codes, self.folds, random_state, problem.places):
            train = ~test if self.folds > 1 else test
            if given is None:
                fit = fit_logistic(matrix[train], treated[train], names=problem.design.names)
                score[test] = 1.0 / (1.0 + np.exp(-(fit.coef[0] + matrix[test] @ fit.coef[1:])))
            for column, arm in enumerate((treated, ~treated)):
                predicted[test, column] = predict_outcome(matrix, y, train & arm, test, self.outcome_model)
        if given is None:
            # A score from other rows can be all but 0 or 1; one such row would then be the whole estimate.
            clipped = int(((score < self.clip) | (score > 1 - self.clip)).sum())
            score = np.clip(score, self.clip, 1 - self.clip)
        t = treated.astype(float)
        parts = np.column_stack(
            [
                predicted[:, 0] + t * (y - predicted[:, 0]) / score,
                predicted[:, 1] + (1 - t) * (y - predicted[:, 1]) / (1 - score),
            ]
        )
        if estimand == "att":
            other = t * predicted[:, 1] + (1 - t) * score / (1 - score) * (y - predicted[:, 1])
            parts = np.column_stack([t * y, other])
        elif estimand == "atc":
            other = (1 - t) * predicted[:, 0] + t * (1 - score) / score * (y - predicted[:, 0])
            parts = np.column_stack([other, (1 - t) * y])
        size = {"att": t, "atc": 1 - t}.get(estimand, np.ones(n))
        means = parts.sum(axis=0) / size.sum()
        influence = (parts - size[:, None] * means) / size.sum()
        weights = raw_weights(np.log(score / (1 - score)), treated, estimand).astype(float)
        return weighed(weights, means, influence, score), clipped


def deal_folds(
    treated: Bools,
    codes: NDArray[np.intp] | None,
    folds: int,
    random_state: int,
    rank: NDArray[np.int64],
) -> list[Bools]:
    """Deal units (rows, or whole clusters) to folds, each arm separately so that shares agree.

    The deal depends on what units hold and on the seed: not on their order, on the names of clusters, or on
    which arm is called treated.
    """
    n = len(treated)
    if folds == 1:
        return [np.ones(n, dtype=bool)]
    units = np.arange(n) if codes is None else codes
    n_units = int(units.max()) + 1
    smallest = int(min(treated.sum(), n - treated.sum()))
    most = min(n_units, smallest)
    if not 2 <= folds <= most:
        what = f"{smallest} rows in an arm" if most == smallest else f"{n_units} clusters"
        raise EstimationError(
            f"folds={folds}: with {what}, choose 1 to {most}",
            hint="cross-fitting needs units to fit on and units to predict; ipw and overlap do not",
        )
    rng = np.random.default_rng(random_state)
    # A cluster goes by the arm of most of its rows; those with as many of each are dealt by themselves.
    lean = np.sign(np.bincount(units, weights=treated - 0.5))
    place = rank if codes is None else cluster_places(2 * rank + treated, codes)
    groups = [np.flatnonzero(lean == side) for side in (1.0, -1.0, 0.0)]
    groups = [members[np.argsort(place[members], kind="stable")] for members in groups]
    # The larger group is dealt first; of two equal ones, that whose units come first.
    groups.sort(key=lambda members: (-len(members), place[members].tolist()))
    fold_of = np.empty(n_units, dtype=int)
    offset = 0
    for ordered in groups:
        members = rng.permutation(ordered)
        fold_of[members] = (np.arange(len(members)) + offset) % folds
        offset += len(members)
    return [fold_of[units] == k for k in range(folds)]


def predict_outcome(
    matrix: Floats, y: Floats, train: Bools, test: Bools, model: OutcomeModel | None
) -> Floats:
    """Predict the rows of `test` from those of `train`, by least squares where no model is given.

    A model is cloned, and left as it was.
    """
    if not train.any():
        raise EstimationError(
            "a fold leaves an arm without rows to fit its outcome model", hint="use fewer folds"
        )
    if model is not None:
        from sklearn.base import clone

        fitted = clone(model)
        with one_openmp_thread(int(train.sum())):
            fitted.fit(matrix[train], y[train])
            return np.asarray(fitted.predict(matrix[test]), dtype=float)
    centre = matrix[train].mean(axis=0)
    scale = np.where(matrix[train].std(axis=0) > 0, matrix[train].std(axis=0), 1.0)
    coef = np.linalg.lstsq(with_intercept((matrix[train] - centre) / scale), y[train], rcond=1e-10)[0]
    return np.asarray(with_intercept((matrix[test] - centre) / scale) @ coef)
