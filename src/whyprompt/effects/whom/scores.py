"""Scores of single rows: unbiased for the outcome under either arm, and an effect predicted beforehand.

Rows are dealt to folds, and the folds are put in order. The effect on a row is predicted from the folds
before its own; the first folds only teach. Predicting each fold from all others would use every row, but
where effects hardly differ all those predictions lean the same way by chance, and intervals that take the
folds for independent are too short. In sequence each fold is a fresh sample given what came before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.methods.boosted import BOOSTED, LogitAndTrees, RidgeAndTrees
from whyprompt.effects.methods.covariates import Covariates
from whyprompt.effects.methods.folds import deal_folds
from whyprompt.effects.methods.learners import LINEAR, LOGIT, learn_outcome, learn_score
from whyprompt.effects.whom.evidence import Evidence, in_sequence
from whyprompt.effects.whom.models import fit_effect, predict_effect, unshrunk
from whyprompt.errors import EstimationError
from whyprompt.stats.design import design_matrix
from whyprompt.stats.order import cluster_places
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from whyprompt.effects.methods.learners import OutcomeModel
    from whyprompt.effects.pairs import PairedItems
    from whyprompt.effects.problem import Problem
    from whyprompt.effects.whom.models import Predicts
    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_CLIP = 0.01
_FOLDS, _FEWEST = 10, 4
# Share of the folds that only teach the first model of the effect.
_TEACH = 0.3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowScores:
    """Scores of the rows, effects predicted for them, and the model of the effect for rows to come.

    `arms`, shape (n, 2), is the outcome under the treated and under the control arm: seen in a paired design,
    else the doubly robust score, whose mean over any group of rows is that group's mean outcome. `predicted`
    is the effect by a model that saw earlier folds alone, NaN for rows that only teach, and `unshrunk` the
    same without the default's share of one number for all; `ahead` and `upto` are the shares of all rows for
    which that model predicts less than for this row, and at most as much.
    """

    arms: Floats
    predicted: Floats
    unshrunk: Floats
    ahead: Floats
    upto: Floats
    fold: Ints
    cluster: NDArray[Any] | None
    size: float  # of the largest outcome, which tells a spread from rounding
    modifiers: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    model: Predicts  # fitted to the scores of all rows
    propensity: Floats | None = None
    clipped: int = 0  # propensities moved away from 0 and 1

    @property
    def effect(self) -> Floats:
        """The score of the effect on each row."""
        return np.asarray(self.arms[:, 0] - self.arms[:, 1])

    @property
    def judged(self) -> Bools:
        """Mask of the rows whose effect was predicted."""
        return np.isfinite(self.predicted)

    def predict(self, frame: Any) -> Floats:  # noqa: ANN401 - any frame
        """Predict the effect on each row of a table that has the modifiers, shape (n,)."""
        table = open_table(frame)
        columns = {name: table.values(name, role="modifier") for name in self.modifiers}
        matrix = design_matrix(columns, levels=self.levels).matrix
        return predict_effect(self.model, matrix)


def row_scores(
    problem: Problem,
    by: tuple[str, ...],
    shown: Design,
    *,
    folds: int | None,
    score_model: Any,  # noqa: ANN401 - any scikit-learn classifier, or as `learn_score` has it
    outcome_model: OutcomeModel | str | None,
    effect_model: OutcomeModel | str,
    random_state: int,
) -> RowScores:
    """Score rows that had one arm each; `shown` are the modifiers `by` as numbers.

    Rows are taken in their places by content, so that the order of the table is irrelevant. Raises
    `EstimationError` if there are too few rows (or clusters) for the folds, or arms are separated in one.

    References: Kennedy, E. H. (2023). Electronic Journal of Statistics 17, 3008-3049 (scores). Luedtke, A. R.
    and van der Laan, M. J. (2016). Annals of Statistics 44, 713-742; Wager, S. (2024). arXiv 2405.05534
    (folds in sequence).
    """
    order = np.argsort(problem.places, kind="stable")
    problem = problem.take(order)
    y, treated, known = problem.y, problem.treated, problem.known_score
    codes = None if problem.cluster is None else _codes(problem.cluster)
    of_arm = Covariates.of(problem, dense=score_model == LOGIT)
    of_outcome = Covariates.of(problem, dense=outcome_model == LINEAR)
    n, by_arm = len(y), (treated, ~treated)
    folds = folds or _folds(int(min(treated.sum(), n - treated.sum())), codes)
    tests = deal_folds(treated, codes, folds, random_state, problem.places)
    of_score = score_model
    if score_model is None and known is None:
        of_score = LogitAndTrees.settled(of_arm, treated)
    models: list[OutcomeModel | str | None] = [outcome_model, outcome_model]
    told = None
    if outcome_model in (None, BOOSTED):
        settled = [RidgeAndTrees.settled(of_outcome, arm, y) for arm in by_arm]
        models = [*settled]
        # They look at all that is adjusted for, and text of many levels has no columns there.
        if set(by) == set(problem.columns) and not of_outcome.codes.shape[1]:
            told = (settled[0], settled[1])
    fold, score, one_none = np.empty(n, dtype=np.int64), np.empty(n), np.empty((n, 2))
    for k, test in enumerate(tests):
        fold[test] = k
        if known is None:
            X, new = of_arm.split(~test, test, treated.astype(float))
            score[test] = learn_score(X, treated[~test], new, of_score, names=problem.design.names)
        else:
            score[test] = known[test]
        for column, arm in enumerate(by_arm):
            X, new = of_outcome.split(~test & arm, test, y)
            one_none[test, column] = learn_outcome(X, y[~test & arm], new, models[column])
    kept = np.clip(score, _CLIP, 1.0 - _CLIP) if known is None else score
    had = np.column_stack([treated / kept, ~treated / (1.0 - kept)])
    arms = one_none + had * (y[:, None] - one_none)
    seen = Evidence(
        modifiers=shown.matrix[order],
        effect=arms[:, 0] - arms[:, 1],
        unit=np.arange(n) if codes is None else in_sequence(codes),
        weight=np.clip(kept * (1.0 - kept), _CLIP * (1.0 - _CLIP), None),
        covariates=of_outcome,
        y=y,
        treated=treated,
        score=score,
        outcome_model=outcome_model,
        between=None if told is None else one_none[:, 0] - one_none[:, 1],
        arms=told,
    )
    back = np.argsort(order)
    return RowScores(
        **_in_sequence(arms, seen, fold, effect_model, order),
        cluster=None if problem.cluster is None else problem.cluster[back],
        size=float(np.abs(y).max()),
        modifiers=by,
        levels=dict(shown.levels),
        propensity=score[back],
        clipped=0 if known is not None else int(((score < _CLIP) | (score > 1.0 - _CLIP)).sum()),
    )


def paired_scores(
    items: PairedItems,
    by: tuple[str, ...],
    shown: Design,
    cluster: NDArray[Any] | None,
    rank: Ints,
    *,
    folds: int | None,
    effect_model: OutcomeModel | str,
    random_state: int,
) -> RowScores:
    """Score items that had both arms, as `row_scores` does rows; `rank` are their places by content.

    Raises `EstimationError` if there are too few items (or clusters) for the folds.
    """
    order = np.argsort(rank, kind="stable")
    both = np.column_stack([items.treated, items.control])
    units = np.arange(len(both)) if cluster is None else _codes(cluster)[order]
    place = rank[order] if cluster is None else cluster_places(rank[order], units)
    n_units = int(units.max()) + 1
    what = "items" if cluster is None else "clusters"
    folds = folds or _folds(n_units, None)
    if not 2 <= folds <= n_units:
        raise EstimationError(
            f"folds={folds}: there are {n_units} {what}, choose 2 to {n_units}",
            hint="an effect is predicted for items from others",
        )
    fold_of = np.empty(n_units, dtype=np.int64)
    members = np.argsort(place, kind="stable")
    fold_of[np.random.default_rng(random_state).permutation(members)] = np.arange(n_units) % folds
    both = both[order]
    seen = Evidence(
        modifiers=shown.matrix[order],
        effect=both[:, 0] - both[:, 1],
        unit=in_sequence(units),
        weight=np.ones(len(both)),
    )
    return RowScores(
        **_in_sequence(both, seen, fold_of[units], effect_model, order),
        cluster=cluster,
        size=float(np.abs(both).max()),
        modifiers=by,
        levels=dict(shown.levels),
    )


def _folds(units: int, codes: NDArray[np.intp] | None) -> int:
    """Choose the number of folds: fewer where there is little to deal, too many where there is nothing."""
    return max(_FEWEST, min(_FOLDS, units if codes is None else int(codes.max()) + 1))


def _codes(cluster: NDArray[Any]) -> NDArray[np.intp]:
    return np.unique(cluster.astype(str), return_inverse=True)[1]


def _in_sequence(
    arms: Floats, seen: Evidence, fold: Ints, effect_model: OutcomeModel | str, order: Ints
) -> dict[str, Any]:
    """Predict fold after fold, fit the model of all rows, and put rows back into the order of the table.

    Everything given is in `order`.
    """
    from scipy import stats

    n, folds = len(arms), int(fold.max()) + 1
    predicted, alone, ahead, upto = (np.full(n, np.nan) for _ in range(4))
    for k in range(max(1, round(_TEACH * folds)), folds):
        test = fold == k
        # The rank is among the modifiers of all rows, which say nothing of their outcomes.
        model = fit_effect(effect_model, seen.take(fold < k))
        drawn = predict_effect(model, seen.modifiers)
        predicted[test], alone[test] = drawn[test], unshrunk(model, drawn[test])
        ahead[test] = (stats.rankdata(drawn, "min")[test] - 1.0) / n
        upto[test] = stats.rankdata(drawn, "max")[test] / n
    made = {
        "arms": arms,
        "predicted": predicted,
        "unshrunk": alone,
        "ahead": ahead,
        "upto": upto,
        "fold": fold,
    }
    back = np.argsort(order)
    return {name: values[back] for name, values in made.items()} | {"model": fit_effect(effect_model, seen)}
