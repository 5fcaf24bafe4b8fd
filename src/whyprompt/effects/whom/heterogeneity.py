"""Whom an arm helps and whom it harms: effects on groups of rows that were formed without their outcomes.

An effect is predicted for each row from other rows; rows are grouped by the prediction, and the effect on a
group is the mean of its rows' own scores. Had the rows' outcomes chosen the groups, the largest group effect
would be large by selection alone; so its interval is honest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, confidence, names, seed
from whyprompt.effects.assumptions import describe_assumptions, judge_overlap
from whyprompt.effects.methods.learners import score_column, score_model
from whyprompt.effects.paired import paired_effect
from whyprompt.effects.pairs import item_labels, named_arms, paired_differences, refuse_adjustment
from whyprompt.effects.problem import choose_confounders, prepare, refuse_post_treatment
from whyprompt.effects.units import find_units, settle_cluster
from whyprompt.effects.whom.groups import (
    calibration,
    effect_drivers,
    group_effect,
    group_effects,
    places,
    profile_of,
)
from whyprompt.effects.whom.models import Stacked, read_effect_model
from whyprompt.effects.whom.result import HeterogeneousEffects
from whyprompt.effects.whom.scores import paired_scores, row_scores
from whyprompt.effects.whom.words import GROUPING, sentence
from whyprompt.errors import EstimationError
from whyprompt.stats.design import design_matrix
from whyprompt.stats.influence import effective_sample_size
from whyprompt.stats.order import content_rank
from whyprompt.stats.rules import few_clusters
from whyprompt.tables import open_table, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.learners import OutcomeModel
    from whyprompt.effects.whom.scores import RowScores
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Figure
    from whyprompt.stats.design import Design
    from whyprompt.tables import Table

_FEW_IN_GROUP = 10


def heterogeneous_effects(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    modifiers: Sequence[str] | None = None,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    treated: object | None = None,
    control: object | None = None,
    design: str = "observational",
    propensity: Any = None,  # noqa: ANN401 - a column or any scikit-learn classifier
    unit: str | None = None,
    cluster: str | None = None,
    n_groups: int = 4,
    folds: int | None = None,
    outcome_model: OutcomeModel | str | None = None,
    effect_model: OutcomeModel | str = "stacked",
    level: float = 0.95,
    random_state: int = 0,
) -> HeterogeneousEffects:
    """Find whom an arm helps and whom it harms.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome : str
        Columns.
    modifiers : sequence of str, optional
        Columns, known before the arm was chosen, by which the effect may differ. Default: the confounders.
    confounders, graph, treated, control, cluster, level
        As in `estimate_effect`.
    design : {"observational", "randomized", "paired"}, default "observational"
        How rows got their arms; a randomised design needs no confounders. Paired: every item was run under
        both arms, and nothing is adjusted for.
    propensity : str or scikit-learn classifier, optional
        As in `estimate_effect`: a column with known propensities, or what estimates them.
    unit : str, optional
        In a paired design the column with the item, ``item_id`` by default; repeats of an item under an arm
        are averaged.
    n_groups : int, default 4
        Groups of rows by predicted effect.
    folds : int, optional
        Of rows (or clusters), in sequence: a row's effect is predicted from the folds before its own. The
        first three tenths of the folds only teach. Default: 10, and as few as 4 where an arm has fewer rows.
    outcome_model : str or scikit-learn regressor, optional
        As in `AIPW`. A random one needs a seed of its own.
    effect_model : {"stacked", "linear", "forest", "x_learner"} or scikit-learn regressor
        What predicts a row's effect from its modifiers. ``"linear"`` is a ridge regression of the rows'
        scores, ``"forest"`` a random forest of them. ``"stacked"``, the default, is a convex combination of
        both, of one number for all rows and, where the modifiers are all that is adjusted for and the outcome
        model is the default, of the difference of the two arms' outcome models; shares go by how well each
        predicts left-out scores, so that it is hardly ever worse than one number: `found["shares"]` has
        them. ``"x_learner"`` fills in the outcome of the arm
        that a row did not have, by the outcome model.
    random_state : int, default 0
        Seed of the folds, which are dealt to rows by what they hold.

    Returns
    -------
    HeterogeneousEffects

    Raises
    ------
    DataError
        If a column is absent, has missing or infinite values, or is of the wrong kind; in a paired design
        also if a modifier varies within an item.
    EstimationError
        If no modifier varies, an arm or a fold has too few rows, scores are separated, or a covariate is
        caused by the arm.
    GraphError
        If the graph forbids a confounder.

    Notes
    -----
    Rows are scored by the doubly robust score of the ATE; scores outside 0.01 to 0.99 are moved to its ends.
    Models with a name weigh a row by e (1 - e), the precision of its score (e is the propensity).
    Modifiers are held fixed in the propensity and the outcome models as well.
    The interval of a group is of the mean effect on rows grouped as these were: by models that saw earlier
    folds. No interval is of a single row's effect. Intervals rest on a normal distribution of weighted scores
    within a group: give groups 100 rows or more.

    References
    ----------
    Chernozhukov, V., Demirer, M., Duflo, E. and Fernandez-Val, I. (2025). Fisher-Schultz lecture: Generic
    machine learning inference on heterogeneous treatment effects in randomized experiments. Econometrica 93.
    Imai, K. and Li, M. L. (2025). Statistical inference for heterogeneous treatment effects discovered by
    generic machine learning in randomized experiments. Journal of Business and Economic Statistics 43.
    Semenova, V. and Chernozhukov, V. (2021). Debiased machine learning of conditional average treatment
    effects and other causal functions. The Econometrics Journal 24, 264-289.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=1000)
    >>> arm = rng.random(1000) < 1 / (1 + np.exp(-hard))
    >>> y = arm * (0.2 + hard) - hard + rng.normal(size=1000)
    >>> frame = pd.DataFrame({"arm": arm, "hard": hard, "y": y})
    >>> found = heterogeneous_effects(frame, treatment="arm", outcome="y", confounders=["hard"])
    >>> [row.ci_low < true < row.ci_high for row, true in zip(found.parts, [-1.07, -0.12, 0.52, 1.47])]
    [True, True, True, True]
    >>> items = pd.DataFrame({"item_id": np.tile(np.arange(400), 2), "hard": np.tile(hard[:400], 2)})
    >>> items["arm"] = np.repeat(["direct", "cot"], 400)
    >>> items["score"] = np.r_[-hard[:400], -0.5 * hard[:400]] + rng.normal(size=800)
    >>> found = heterogeneous_effects(
    ...     items, treatment="arm", outcome="score", treated="cot", control="direct", modifiers=["hard"],
    ...     design="paired",
    ... )
    >>> found.parts[0].ci_high < 0 < found.parts[-1].ci_low
    True
    """
    confidence(level)
    at_least(n_groups, 2, "n_groups")
    if folds is not None:
        at_least(folds, 2, "folds")
    seed(random_state)
    learned: dict[str, Any] = {"folds": folds, "random_state": random_state}
    learned["effect_model"] = read_effect_model(effect_model, design)
    about: dict[str, Any] = {"treatment": treatment, "outcome": outcome, "design": design}
    about["level"] = level
    table = open_table(frame)
    if design == "paired":
        given = {"confounders": confounders, "graph": graph, "propensity": propensity}
        refuse_adjustment(given | {"outcome_model": outcome_model})
        by = names(modifiers, "modifiers")
        _refuse_modifiers(by, treatment=treatment, outcome=outcome)
        arms = named_arms(table, treatment, treated, control)
        about |= {"treated": arms[0], "control": arms[1]}
        return _paired(table, by, unit or "item_id", cluster, n_groups, learned, about)
    if design not in {"observational", "randomized"}:
        raise EstimationError(f"design {design!r} is not known", hint="observational, randomized or paired")
    if unit is not None:
        raise EstimationError(
            f"unit= has no meaning in the design {design!r}",
            hint="design='paired', or cluster= for its error",
        )
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    if treated is not None and control is not None:
        rows = rows_of_two_arms(table, treatment, treated=treated, control=control)
        table = table if rows is None else table.keep(rows)
    chosen, cautions = choose_confounders(
        table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
    )
    if chosen is None and design != "randomized":
        raise EstimationError(
            "it is not said what to adjust for",
            hint="give confounders=[...], a graph, or design='randomized'",
        )
    adjusted = chosen or ()
    by = adjusted if modifiers is None else names(modifiers, "modifiers")
    _refuse_modifiers(by, treatment=treatment, outcome=outcome)
    if graph is not None:
        for name in by:
            if name in graph.nodes and name in graph.descendants(treatment):
                raise EstimationError(
                    f"modifier {name!r} is caused by {treatment!r} in the graph",
                    hint="the effect can be said to differ by what is known before the arm is chosen",
                )
    covered = tuple(dict.fromkeys([*adjusted, *by]))
    sampling, _ = find_units(table, treatment=treatment, outcomes=[outcome], covariates=covered)
    named, notes = settle_cluster(cluster, sampling)
    problem = prepare(
        table,
        treatment=treatment,
        outcome=outcome,
        confounders=covered,
        treated=treated,
        control=control,
        cluster=named,
        propensity=score_column(propensity),
        graph=graph,
    )
    columns = {name: problem.columns[name] for name in by}
    shown = _coded(columns)
    learned |= {"outcome_model": outcome_model, "score_model": score_model(propensity)}
    scores = row_scores(problem, tuple(by), shown, **learned)
    warnings = list(notes)
    if scores.clipped:
        warnings.append(f"{scores.clipped} propensities were moved to 0.01 or 0.99: these rows say little")
    assert scores.propensity is not None
    t = problem.treated
    inverse = 1.0 / np.where(t, scores.propensity, 1.0 - scores.propensity)
    overlap = judge_overlap(
        scores.propensity,
        t,
        estimand="ate",
        weights=np.ones(len(t)),
        discarded=np.zeros(len(t), dtype=bool),
        ess=(effective_sample_size(inverse[t]), effective_sample_size(inverse[~t])),
    )
    assumptions = describe_assumptions(
        design=design,
        confounders=adjusted,
        from_graph=graph is not None,
        cautions=cautions,
        clustered=named is not None,
        overlap=overlap,
    )
    return _report(
        scores,
        columns,
        shown,
        n_groups,
        warnings,
        **about,
        treated=problem.treated_level,
        control=problem.control_level,
        confounders=adjusted,
        assumptions=(*assumptions, GROUPING),
    )


def _paired(
    table: Table,
    by: tuple[str, ...],
    unit: str,
    cluster: str | None,
    n_groups: int,
    learned: dict[str, Any],
    about: dict[str, Any],
) -> HeterogeneousEffects:
    """Tell apart items that had both arms, by what is known of them before the arm is chosen.

    The share of items whose outcome rises or falls is `estimate_effect`'s; one trial an arm, it holds the
    noise of sampling. `learned` is of the scores, `about` are fields of the result.
    """
    shared = {name: about[name] for name in ("treatment", "outcome", "treated", "control")}
    shared["unit"] = unit
    pairs = paired_differences(table, **shared)
    overall = paired_effect(table, cluster=cluster, level=about["level"], **shared)
    columns = {}
    for name in by:
        item_labels(table, name, unit, pairs, role="modifier")
        columns[name] = table.values(name, role="modifier")[pairs.first_row]
    label = None if cluster is None else item_labels(table, cluster, unit, pairs, role="cluster")
    shown = _coded(columns)
    held = [shown.matrix, pairs.treated + pairs.control, np.abs(pairs.treated - pairs.control)]
    rank = content_rank(*held, *(() if label is None else (label,)))
    return _report(
        paired_scores(pairs, by, shown, label, rank, **learned),
        columns,
        shown,
        n_groups,
        [w for w in overall.warnings if "standard error" not in w],
        **about,
        confounders=(),
        assumptions=(*overall.assumptions, GROUPING),
    )


def _refuse_modifiers(by: Sequence[str], *, treatment: str, outcome: str) -> None:
    if not by:
        raise EstimationError(
            "no modifier is named", hint="modifiers=[...]: columns by which the effect may differ"
        )
    refuse_post_treatment(by, treatment=treatment, outcome=outcome)


def _coded(columns: Mapping[str, NDArray[Any]]) -> Design:
    shown = design_matrix(columns)
    if shown.matrix.shape[1] == 0 or not (np.ptp(shown.matrix, axis=0) > 0).any():
        raise EstimationError(
            f"no modifier varies: {', '.join(columns)}", hint="name columns with more than one value"
        )
    return shown


def _report(
    scores: RowScores,
    columns: Mapping[str, NDArray[Any]],
    shown: Design,
    n_groups: int,
    warnings: list[str],
    *,
    level: float,
    **about: Any,  # noqa: ANN401 - fields of the result
) -> HeterogeneousEffects:
    """Group the rows by their scores; `shown` are the modifiers, which are `columns` as read, as numbers."""
    place = places(scores, n_groups)
    groups, spread = group_effects(scores, place, n_groups, level=level)
    gain, lose = (
        group_effect(name, scores, here, level=level) if here.sum() > 1 else None
        for name, here in (
            ("predicted to gain", scores.predicted > 0),
            ("predicted to lose", scores.predicted < 0),
        )
    )
    if spread is None:
        warnings.append("every row has the same predicted effect: there are no groups to compare")
    if min(row.n_used or 0 for row in groups) < _FEW_IN_GROUP:
        warnings.append(f"a group has fewer than {_FEW_IN_GROUP} rows: its interval is approximate")
    if scores.cluster is not None:
        warnings.extend(few_clusters(len(np.unique(scores.cluster.astype(str)))))
    drivers, differs = effect_drivers(scores, shown, level=level)
    profile, means = profile_of(design_matrix(columns, full=True), place, scores.cluster, level=level)
    every = group_effect("all rows", scores, np.ones(len(place), dtype=bool), level=level)
    result = HeterogeneousEffects(
        **about,
        overall=replace(every, at=float(np.nanmean(scores.predicted))),
        parts=groups,
        level=level,
        modifiers=tuple(columns),
        n_folds=int(scores.fold.max()) + 1,
        n_judged=int(scores.judged.sum()),
        gain=gain,
        harmed=lose,
        most_minus_least=spread,
        calibration=calibration(scores, level=level),
        drivers=drivers,
        differs_p=differs,
        profile=profile,
        profile_means=means,
        warnings=tuple(dict.fromkeys(warnings)),
        sentence="",
        figures=_shares(scores),
        rows=scores,
    )
    return replace(result, sentence=sentence(result))


def _shares(scores: RowScores) -> dict[str, Figure]:
    """Say what the stacked model of all rows is made of."""
    return {"shares": dict(scores.model.shares)} if isinstance(scores.model, Stacked) else {}
