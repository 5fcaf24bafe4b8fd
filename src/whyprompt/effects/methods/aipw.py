"""Augmented inverse probability weighting with cross-fitted nuisance models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt._arguments import at_least
from whyprompt._progress import tell
from whyprompt._words import counted
from whyprompt.effects.methods.boosted import BOOSTED, LogitAndTrees, RidgeAndTrees
from whyprompt.effects.methods.calibrated import calibrated
from whyprompt.effects.methods.covariates import Covariates
from whyprompt.effects.methods.curved import FEW
from whyprompt.effects.methods.folds import deal_folds, half_of_others, learned_from
from whyprompt.effects.methods.learners import (
    LINEAR,
    LOGIT,
    ROWS,
    learn_outcome,
    learn_score,
    read_learner,
    refuse_learner,
)
from whyprompt.effects.methods.method import told
from whyprompt.effects.methods.weights import Weighting, raw_weights, weighed
from whyprompt.errors import EstimationError
from whyprompt.stats.influence import cluster_codes
from whyprompt.stats.propensity import SeparatedError
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.threads import one_blas_thread, one_openmp_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.learners import OutcomeModel
    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


# Deals of the folds by default: so many, and fewer where rows are so many that one decides little. Penalised
# learners move less from deal to deal and cost more.
_SPLITS, _ROWS = 10, 100_000
_LEARNED_SPLITS, _LEARNED_ROWS = 3, 9_000
# Folds by default, and where rows are so many that two thirds of them teach as much as four fifths: at 10,000
# rows three folds cost a tenth of the accuracy, at 100,000 none was seen.
_FOLDS, _FEWER_FOLDS, _FEWER_FROM = 5, 3, 100_000
# Fewer folds leave no half of the others.
HALVED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class AIPW(Weighting):
    """Augmented inverse probability weights, cross-fitted: right if either the score or the outcome model is.

    The default of observational tables. Its score is a penalised logistic regression and its outcome model a
    ridge regression, each with boosted trees on what the line leaves over, as far as the rows show it; a
    level of one arm alone, or more columns than rows, refuse nothing. ``propensity="logit",
    outcome_model="linear"`` is the textbook's.

    Attributes
    ----------
    folds : int, optional
        Each row's score and outcomes are predicted from the rows of the other folds; 1 fits on all rows. A
        cluster is never split between folds. Default: 5, and 3 from 100,000 rows on; fewer where an arm has
        fewer rows, or there are fewer clusters.
    splits : int, optional
        How often rows are dealt to folds; estimates and influence values are averaged. With a few hundred
        rows one deal can move the estimate by half a standard error. Default: 3, and 1 beyond 4,500 rows; 10
        for least squares and the logistic score, fewer from 20,000 rows on and 1 at 100,000.
    outcome_model : {"boosted", "linear"} or scikit-learn regressor, default "boosted"
        Cloned for each arm and fold. ``"linear"`` is least squares. Written as text a regressor is its class
        and options, ``"sklearn.ensemble.RandomForestRegressor(n_estimators=200)"``.
    clip : float, default 0.01
        Scores estimated here are kept in ``[clip, 1 - clip]``, and a warning counts those that were not: a
        row's score comes from other rows and can be all but 0 or 1. DoubleML's default; 0 leaves them as
        they are. Scores that are given are never changed.
    calibrate : bool, default True
        Lower the largest of the weights that estimated scores give, to a limit that grows with the rows, and
        move them until the arms have the means of the covariates that the rows have which the effect is
        about. Where the arms overlap little this makes the error smaller; overlap is judged by the scores all
        the same. False is the textbook's, whose weights do not sum to one.
    discard : {"none", "crump"} or float, default "none"
        As in `IPW`.

    Notes
    -----
    Errors by cluster are CR2 with Satterthwaite's degrees of freedom; with ``calibrate=False`` their factor
    is G / (G - 1) and the degrees of freedom G - 1.

    The ATO is the partially linear estimate, the residual of the outcome on that of the arm, whose weights
    are those of overlap; it needs no row to have a counterpart.

    References
    ----------
    Robins, Rotnitzky and Zhao (1994). JASA 89; Chernozhukov et al. (2018). Double/debiased machine learning.
    Econometrics Journal 21, sections 4.1 and 5.1.

    Examples
    --------
    >>> AIPW(folds=2).asked
    {'folds': 2}
    """

    name = "aipw"
    estimands = ("att", "atc", "ate", "ato")
    dealt = True
    linear = False
    score = BOOSTED

    folds: int | None = None
    splits: int | None = None
    outcome_model: OutcomeModel | str | None = None
    clip: float = 0.01
    calibrate: bool = True
    discard: float | str = "none"

    def __post_init__(self) -> None:
        Weighting.__post_init__(self)
        if self.folds is not None:
            at_least(self.folds, 1, "folds")
        if self.splits is not None:
            at_least(self.splits, 1, "splits")
        if not 0 <= self.clip < 0.5:
            raise EstimationError(f"clip={self.clip}: expected a number from 0 to below 0.5")
        model = self.outcome_model
        if isinstance(model, str):
            if model not in {BOOSTED, LINEAR}:
                read_learner(model, "outcome_model")
        elif model is not None:
            refuse_learner(model, "outcome_model")

    def weigh(self, problem: Problem, plan: Plan) -> Fit:
        """Average over several deals of the folds: one deal decides too much where rows are few.

        Rows are put in the order of their content, so that neither folds nor models see that of the table.
        """
        with one_blas_thread(len(problem.y)), one_openmp_thread():
            return self._weigh(problem, plan)

    def _weigh(self, problem: Problem, plan: Plan, *, fewer: bool = False) -> Fit:
        order = np.argsort(problem.places, kind="stable")
        ordered = problem.take(order)
        codes = cluster_codes(ordered.cluster, len(order))
        folds = self.settled_folds(
            [int(ordered.treated.sum()), int((~ordered.treated).sum())],
            None if codes is None else int(codes.max()) + 1,
        )
        seeds = [plan.random_state]
        splits = self._deals(len(order), plan, known=problem.known_score is not None)
        if folds > 1 and splits > 1:
            more = np.random.SeedSequence(plan.random_state).generate_state(splits - 1, dtype=np.uint64)
            seeds += more.tolist()
        if plan.score_model is None and problem.known_score is None:
            plan = replace(plan, score_model=LogitAndTrees.settled(Covariates.of(ordered), ordered.treated))
        deals: list[_Deal] = []
        refused: list[SeparatedError] = []
        for one in seeds:
            try:
                tests = deal_folds(ordered.treated, codes, folds, one, ordered.places)
                deals.append(self._score(ordered, plan, tests, learned_from(tests, fewer=fewer)))
            except SeparatedError as error:
                refused.append(error)
            # Where most deals separate the arms, the others are lucky ones.
            if 2 * len(refused) >= len(seeds):
                raise separated_without_a_fold(refused[0])
        model = BOOSTED if self.outcome_model is None else told(self.outcome_model)
        settings = {"folds": folds, "splits": len(seeds), "outcome_model": model}
        remarks = self.remarks(
            len(order),
            max(d.clipped for d in deals),
            len(refused),
            len(seeds),
            sampled=self._samples(ordered, plan, deals[0].trains[0]),
        )
        back = np.argsort(order)

        def from_fewer(y: Floats) -> float | None:
            arms = ((True, ordered.treated), (False, ~ordered.treated))
            counts = {
                (t, k): int((test & arm).sum()) for k, test in enumerate(deals[0].tests) for t, arm in arms
            }
            if self.others_of_fewer(counts, plan.estimand, folds):
                return None
            try:
                with one_blas_thread(len(y)), one_openmp_thread():
                    return self._weigh(replace(problem, y=y), plan, fewer=True).estimate
            except EstimationError:
                # Half of the rows may tell the arms apart: that is no fault of all of them.
                return None

        def of(y: Floats) -> Fit:
            made = [self._estimate(replace(ordered, y=y[order]), plan.estimand, deal) for deal in deals]
            score, means = problem.known_score, np.array([fit.means for fit in made])
            fit = weighed(
                np.mean([fit.weights for fit in made], axis=0)[back],
                means.mean(axis=0),
                np.mean([fit.influence for fit in made if fit.influence is not None], axis=0)[back],
                np.mean([deal.score for deal in deals], axis=0)[back] if score is None else score,
                remarks,
            )
            left = np.mean([fit.residual for fit in made if fit.residual is not None], axis=0)[back]
            between = (means - means.mean(axis=0)) / np.sqrt(len(means))
            checked = (lambda: from_fewer(y)) if folds >= HALVED and not fewer else None
            return replace(fit, residual=left, between=between, settings=settings, from_fewer=checked)

        return replace(of(problem.y), again=of)

    def settled_folds(self, arms: Sequence[int], clusters: int | None = None) -> int:
        """Give the number of folds, by the rows of either arm and the clusters."""
        if self.folds is not None:
            return self.folds
        most = min(arms) if clusters is None else min(*arms, clusters)
        return max(2, min(_FOLDS if sum(arms) < _FEWER_FROM else _FEWER_FOLDS, most))

    def _deals(self, n: int, plan: Plan, *, known: bool) -> int:
        if self.splits is not None:
            return self.splits
        plain = self.outcome_model == LINEAR and (known or plan.score_model == LOGIT)
        most, rows = (_SPLITS, _ROWS) if plain else (_LEARNED_SPLITS, _LEARNED_ROWS)
        return max(1, min(most, rows // n))

    def remarks(self, n: int, clipped: int, separated: int, deals: int, *, sampled: bool) -> tuple[str, ...]:
        """Say what of the scores and of the models a reader must know."""
        out = []
        if sampled:
            out.append(
                f"what models learned from {ROWS:,} rows miss is not in the interval: beyond some million"
                " rows it is no longer small beside the standard error"
            )
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

    def _samples(self, problem: Problem, plan: Plan, train: Bools) -> bool:
        """Say whether a model is learned from fewer rows than there are."""
        arms = [int((train & arm).sum()) for arm in (problem.treated, ~problem.treated)]
        of_score = problem.known_score is None and plan.score_model != LOGIT and sum(arms) > ROWS
        return of_score or (self.outcome_model != LINEAR and max(arms) > ROWS)

    def others_of_fewer(self, counts: Mapping[tuple[bool, int], int], estimand: str, folds: int) -> bool:
        """Say whether half of an arm's rows have lines where all have curves: that says nothing of rows.

        `counts` are the rows by arm, the treated first, and fold.
        """
        if self.outcome_model not in (None, BOOSTED):
            return False
        for treated in (column == 0 for column in modelled(estimand)):
            of_fold = [counts.get((treated, fold), 0) for fold in range(folds)]
            for fold, own in enumerate(of_fold):
                half = sum(of_fold[other] for other in half_of_others(fold, folds))
                if half < FEW <= sum(of_fold) - own:
                    return True
        return False

    def error(self, problem: Problem, made: Fit) -> tuple[Floats, float | None, tuple[str, ...]]:
        """Return the influence values, summed within clusters, and what one deal of the folds adds."""
        assert made.influence is not None
        assert made.between is not None
        if self.calibrate and problem.known_score is None:
            values, df, remarks = Weighting.error(self, problem, made)
            return np.append(values, made.between[:, 0] - made.between[:, 1]), df, remarks
        # Cross-fitted residuals are not too small: nothing is made larger but by the number of clusters.
        codes = cluster_codes(problem.cluster, len(problem.y))
        values = made.influence[:, 0] - made.influence[:, 1]
        if codes is None:
            return values, None, ()
        g = int(codes.max()) + 1
        return np.bincount(codes, weights=values) * np.sqrt(g / (g - 1)), g - 1.0, few_clusters(g)

    def _score(self, problem: Problem, plan: Plan, tests: Sequence[Bools], trains: Sequence[Bools]) -> _Deal:
        """Learn the score of each fold from the others, and keep it from 0 and 1."""
        if problem.known_score is not None:
            known = problem.known_score
            return _Deal(tests, trains, known, self._weights(problem, plan.estimand, known), 0)
        treated, names = problem.treated, problem.design.names
        covariates = Covariates.of(problem, dense=plan.score_model == LOGIT)
        score, model = np.empty(len(treated)), plan.score_model
        for k, (test, train) in enumerate(zip(tests, trains, strict=True)):
            tell(k, 2 * len(tests), "learning what decides the arm")
            X, new = covariates.split(train, test, treated.astype(float))
            score[test] = learn_score(X, treated[train], new, model, names=names)
        # A score from other rows can be all but 0 or 1; one such row would then be the whole estimate.
        clipped = int(((score < self.clip) | (score > 1 - self.clip)).sum())
        score = np.clip(score, self.clip, 1 - self.clip)
        if certain := int(((score == 0) | (score == 1)).sum()):
            raise EstimationError(
                f"clip={self.clip:g}: {counted(certain, 'row')} of {len(score)} have a learned propensity of"
                " exactly 0 or 1, whose weight is infinite",
                hint="clip=0.01 is the default",
            )
        return _Deal(tests, trains, score, self._weights(problem, plan.estimand, score), clipped)

    def calibrates(self, estimand: str, *, known: bool) -> bool:
        """Say whether weights are calibrated: those of overlap are bounded, and of known chances right."""
        return self.calibrate and not known and estimand != "ato"

    def _weights(self, problem: Problem, estimand: str, score: Floats) -> Floats:
        treated = problem.treated
        weights = raw_weights(np.log(score / (1 - score)), treated, estimand).astype(float)
        if not self.calibrates(estimand, known=problem.known_score is not None):
            return weights
        about, matrix = _about(treated, estimand), Covariates.of(problem).matrix
        for arm in (treated, ~treated):
            if (arm != about).any():
                weights[arm] = calibrated(weights, arm, about, matrix)[arm] * about.sum()
        return weights

    def _estimate(self, problem: Problem, estimand: str, deal: _Deal) -> Fit:
        """Learn the outcome of each fold from the others, and put it beside the score."""
        y, treated, score = problem.y, problem.treated, deal.score
        covariates = Covariates.of(problem)
        wanted = modelled(estimand)
        arms = (treated, ~treated)
        models = [self.outcome_model, self.outcome_model]
        if self.outcome_model in (None, BOOSTED):
            rest = y - covariates.level_effects(np.ones(len(y), dtype=bool), treated, y)
            for column in wanted:
                models[column] = RidgeAndTrees.settled(covariates, arms[column], rest)
        predicted = np.zeros((len(y), 2))
        for k, (test, train) in enumerate(zip(deal.tests, deal.trains, strict=True), start=len(deal.tests)):
            tell(k, 2 * len(deal.tests), "learning the outcome")
            # What levels without columns add is taken out whole; learners see how the arms differ in it.
            common = covariates.level_effects(train, treated, y)
            rest = y - common
            for column in wanted:
                rows = train & arms[column]
                X, new = covariates.split(rows, test, rest)
                predicted[test, column] = common[test] + learn_outcome(X, rest[rows], new, models[column])
        tell(2 * len(deal.tests), 2 * len(deal.tests), "learned")
        weights = deal.weights
        if self.calibrates(estimand, known=problem.known_score is not None):
            means, influence = _by_calibrated(y, treated, weights, predicted, estimand)
        else:
            parts, size = _parts(y, treated.astype(float), score, predicted, estimand)
            means = parts.sum(axis=0) / size.sum()
            influence = (parts - size[:, None] * means) / size.sum()
        left = y - np.where(treated, predicted[:, 0], predicted[:, 1])
        return replace(weighed(weights, means, influence, score), residual=left)


def separated_without_a_fold(error: SeparatedError) -> SeparatedError:
    """Say that what separates the arms does so among the rows of the other folds."""
    return SeparatedError(
        f"without the rows of one fold, {error.message}",
        hint="a penalised score has no such limit: leave propensity='logit' out",
    )


class _Deal(NamedTuple):
    """The rows of each fold, those it learns from, the score learned, its weights, how many were clipped."""

    tests: Sequence[Bools]
    trains: Sequence[Bools]
    score: Floats
    weights: Floats
    clipped: int


def modelled(estimand: str) -> tuple[int, ...]:
    """Give the arms, 0 the treated, that need a model: not one whose outcomes are taken as they are."""
    return {"att": (1,), "atc": (0,)}.get(estimand, (0, 1))


def _parts(y: Floats, t: Floats, e: Floats, predicted: Floats, estimand: str) -> tuple[Floats, Floats]:
    """Give each row's part in the two means, shape (n, 2), and how much the row counts, shape (n,)."""
    one, none = predicted.T
    if estimand == "att":
        return np.column_stack([t * y, t * none + (1 - t) * e / (1 - e) * (y - none)]), t
    if estimand == "atc":
        return np.column_stack([(1 - t) * one + t * (1 - e) / e * (y - one), (1 - t) * y]), 1 - t
    if estimand == "ato":
        size = (t - e) ** 2
        return np.column_stack(
            [size * one + t * (1 - e) * (y - one), size * none + (1 - t) * e * (y - none)]
        ), size
    return np.column_stack([one + t * (y - one) / e, none + (1 - t) * (y - none) / (1 - e)]), np.ones(len(y))


def _by_calibrated(
    y: Floats, treated: Bools, weights: Floats, predicted: Floats, estimand: str
) -> tuple[Floats, Floats]:
    """Give the two means, shape (2,), and each row's influence on them, shape (n, 2)."""
    share = _about(treated, estimand) / _about(treated, estimand).sum()
    means, influence = np.empty(2), np.empty((len(y), 2))
    for column, arm in enumerate((treated, ~treated)):
        # The arm that the effect is about stands for itself.
        guess = np.zeros(len(y)) if (arm == (share > 0)).all() else predicted[:, column]
        w = np.where(arm, weights, 0.0) / weights[arm].sum()
        left = y - guess
        means[column] = share @ guess + w @ left
        influence[:, column] = share * (guess - share @ guess) + w * (left - w @ left)
    return means, influence


def _about(treated: Bools, estimand: str) -> Bools:
    return {"att": treated, "atc": ~treated}.get(estimand, np.ones(len(treated), dtype=bool))
