"""The pipeline behind `estimate_effect`, on arrays: score, match or weigh, estimate, standard error.

The bootstrap and the audit call it on resampled or redrawn rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted
from whyprompt.effects.methods.full import match_full
from whyprompt.effects.methods.kernel import match_kernel
from whyprompt.effects.methods.nearest import caliper_width, common_support, match_mahalanobis, match_nearest
from whyprompt.effects.methods.optimal import match_optimal
from whyprompt.effects.methods.strata import match_cem, match_subclass
from whyprompt.effects.methods.variance import refuse_naive_bootstrap
from whyprompt.effects.options import WEIGHTING
from whyprompt.effects.uncertainty import with_error as _with_error
from whyprompt.errors import EstimationError
from whyprompt.stats import errors as inference
from whyprompt.stats.design import design_matrix
from whyprompt.stats.order import cluster_places
from whyprompt.stats.propensity import crossfit_propensity, fit_logistic
from whyprompt.stats.rules import few_clusters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.options import Options
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.regression import Fit

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

# A standard error below this share of the outcome's range, or of its size, is rounding.
_NOTHING, _ROUNDING = 1e-10, 1e-15

__all__ = [
    "Core",
    "Score",
    "bootstrapped",
    "compute",
    "if_known",
    "with_outcome",
]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Score:
    """A propensity score, its fit where there is one, and what is matched on."""

    propensity: Floats
    fit: Fit | None
    along: Floats


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Core:
    """An estimate with its error and the weights it came from.

    `means` are those of the treated and the control arm; `df` are the degrees of freedom of the interval,
    None for the normal distribution; `mean_draws`, shape (draws, 2), are the bootstrap's; `rank` are the
    places of the rows that folds were dealt by.
    """

    estimate: float
    std_error: float | None
    ci: tuple[float | None, float | None]
    se_method: str
    weights: Floats
    discarded: Bools
    means: tuple[float, float]
    df: float | None = None
    rank: Ints | None = None
    mean_draws: Floats | None = None
    matched: MatchedSet | None = None
    score: Score | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def compute(problem: Problem, options: Options, *, with_error: bool = True) -> Core:
    """Estimate from arrays.

    Parameters
    ----------
    problem : Problem
    options : Options
    with_error : bool, default True
        False leaves the standard error out, for a bootstrap.

    Returns
    -------
    Core
        Without a standard error where the sample shows no spread to judge it by: outcomes that do not
        differ within an arm, or an arm whose rows are all in one cluster.
    """
    core = _compute(problem, options, with_error=with_error)
    return if_known(problem, core) if with_error else core


def if_known(problem: Problem, core: Core) -> Core:
    """Take away a standard error that only says that the sample cannot show one.

    Parameters
    ----------
    problem : Problem
    core : Core

    Returns
    -------
    Core
    """
    if core.std_error is None:
        return core
    arms = [arm & (core.weights > 0) for arm in (problem.treated, ~problem.treated)]
    why = ""
    if all(bool((problem.y[arm] == problem.y[arm][0]).all()) for arm in arms):
        why = (
            "the outcome does not differ within either arm: the spread is zero in this sample, not in the"
            " population, and no standard error can be given"
        )
        # What is left of a difference of equal means is rounding.
        means = (float(problem.y[arms[0]][0]), float(problem.y[arms[1]][0]))
        core = replace(core, estimate=means[0] - means[1], means=means)
    elif problem.cluster is not None:
        count = [len(set(problem.cluster[arm].tolist())) for arm in arms]
        if min(count) == 1:
            name = problem.arms.treated if count[0] == 1 else problem.arms.control
            why = f"all rows of {name!r} are in one cluster: no standard error can be given"
    nothing = max(_NOTHING * float(np.ptp(problem.y)), _ROUNDING * float(np.abs(problem.y).max()))
    if not why and (core.std_error or 0.0) <= nothing:
        why = (
            "what is left of the outcome, or of its means by cluster, does not differ in this sample: no"
            " standard error can be given"
        )
    if not why:
        return core
    return replace(core, std_error=None, ci=(None, None), df=None, warnings=(*core.warnings, why))


def _compute(problem: Problem, options: Options, *, with_error: bool) -> Core:
    if options.method == "naive":
        return _naive(problem, options)
    if options.method in WEIGHTING:
        return _weighting(problem, options)
    score = None
    by_score = options.distance != "mahalanobis" or options.caliper is not None or options.discard != "none"
    if options.method != "cem" and by_score:
        score = _score(problem, options)
    matched, discarded = _match(problem, options, score)
    core = Core(
        estimate=float("nan"),
        std_error=None,
        ci=(None, None),
        se_method="none",
        weights=matched.weights,
        discarded=discarded,
        means=(float("nan"), float("nan")),
        matched=matched,
        score=score,
        settings=dict(matched.settings),
        warnings=_tie_warning(problem, options, matched, score),
    )
    return _after_matching(problem, options, core, matched, with_error=with_error)


def _after_matching(
    problem: Problem, options: Options, core: Core, matched: MatchedSet, *, with_error: bool = True
) -> Core:
    t, w = problem.treated, matched.weights
    means = tuple(float(np.average(problem.y[arm], weights=w[arm])) for arm in (t, ~t))
    core = replace(core, estimate=means[0] - means[1], means=(means[0], means[1]))
    if with_error and options.se != "bootstrap":
        return _with_error(problem, options, core, matched)
    return core


def with_outcome(problem: Problem, options: Options, core: Core, y: Floats) -> Core:
    """Estimate again for another outcome of the same rows, with the matches already made.

    Parameters
    ----------
    problem : Problem
    options : Options
    core : Core
        Of the first outcome.
    y : ndarray, shape (n,)
        The other outcome, or the derivative of a functional by row (see `_uncertainty`). A derivative may
        be the same in every row, so that its error is nil; for an outcome see `if_known`.

    Returns
    -------
    Core
    """
    other = replace(problem, y=y, rank=core.rank if problem.rank is None else problem.rank)
    if core.matched is None:
        return _compute(other, options, with_error=True)
    bare = replace(core, warnings=_tie_warning(problem, options, core.matched, core.score), df=None)
    return _after_matching(other, options, bare, core.matched)


def _naive(problem: Problem, options: Options) -> Core:
    y, t = problem.y, problem.treated
    means = (float(y[t].mean()), float(y[~t].mean()))
    estimate = means[0] - means[1]
    n = len(y)
    warnings: tuple[str, ...] = ()
    if problem.cluster is not None:
        _, error, free = inference.clustered_difference(y, t, np.ones(n), problem.cluster)
        warnings = few_clusters(len(np.unique(problem.cluster.astype(str))), free)
        name = "CR2 by cluster, Satterthwaite df"
    else:
        parts = [float(y[arm].var(ddof=1)) / int(arm.sum()) for arm in (t, ~t)]
        error = float(np.sqrt(sum(parts)))
        sizes = (int(t.sum()), int((~t).sum()))
        # Welch's degrees of freedom
        below = sum(p**2 / (m - 1) for p, m in zip(parts, sizes, strict=True))
        free = sum(parts) ** 2 / below if below > 0 else n - 2.0
        name = "unequal variances (Welch)"
    return Core(
        estimate=estimate,
        std_error=error,
        ci=inference.interval(estimate, error, level=options.level, df=free),
        se_method=name,
        weights=np.ones(n),
        discarded=np.zeros(n, dtype=bool),
        means=means,
        df=free,
        warnings=warnings,
    )


def _weighting(problem: Problem, options: Options) -> Core:
    from whyprompt.effects.methods.two_arms import weight_estimate

    if options.se not in {"auto", "bootstrap"}:
        raise EstimationError(
            f"standard error {options.se!r} is for matching; weighting has that of its estimating equations",
            hint="leave se='auto'",
        )
    given = problem.known_score
    crossfitted = given is None and not isinstance(options.distance, str)
    rank = problem.places if crossfitted or options.method == "aipw" else None
    if crossfitted:
        given = crossfit_propensity(
            problem.design.matrix,
            problem.treated,
            options.distance,
            random_state=options.random_state,
            rank=rank,
        )
    method: Any = options.method
    estimand: Any = options.estimand
    fit = weight_estimate(
        problem.y,
        problem.treated,
        problem.design.matrix,
        method=method,
        estimand=estimand,
        cluster=problem.cluster,
        names=problem.design.names,
        propensity=given,
        trim="crump" if options.discard == "crump" else None,
        level=options.level,
        random_state=options.random_state,
        rank=rank,
    )
    score = None
    if fit.propensity is not None and bool(np.isfinite(fit.propensity).all()):
        score = Score(propensity=fit.propensity, fit=None, along=fit.propensity)
    return Core(
        estimate=fit.estimate,
        std_error=fit.std_error,
        ci=(fit.ci_low, fit.ci_high),
        se_method="stacked estimating equations, score estimated"
        + (", cluster-robust" if problem.cluster is not None else ""),
        weights=np.where(fit.kept, fit.weights, 0.0),
        discarded=~fit.kept,
        means=(fit.mean_treated, fit.mean_control),
        df=fit.df,
        score=score,
        rank=rank,
        warnings=tuple(fit.warnings),
    )


def _score(problem: Problem, options: Options) -> Score:
    if problem.known_score is not None:
        p, fit = problem.known_score, None
    elif isinstance(options.distance, str):
        fit = fit_logistic(problem.design.matrix, problem.treated, names=problem.design.names)
        p = fit.fitted
    else:
        fit = None
        p = crossfit_propensity(
            problem.design.matrix,
            problem.treated,
            options.distance,
            random_state=options.random_state,
            rank=problem.places,
        )
    along = p
    if options.distance == "logit":
        along = fit.linear if fit is not None else np.log(p / (1.0 - p))
    return Score(propensity=p, fit=fit, along=along)


def _match(problem: Problem, options: Options, score: Score | None) -> tuple[MatchedSet, Bools]:
    t = problem.treated
    out = np.zeros(len(t), dtype=bool)
    if score is not None and options.discard != "none":
        out = common_support(score.propensity, t, rule=options.discard)
    shared: dict[str, Any] = {"estimand": options.estimand, "discarded": out}
    shared["strata"] = problem.strata
    if options.method == "cem":
        columns = dict(problem.columns)
        return match_cem(columns, t, cutpoints=options.cutpoints, **shared), out
    if options.method == "subclass":
        assert score is not None
        return match_subclass(score.along, t, n_strata=options.n_strata, **shared), out
    if options.method == "kernel":
        assert score is not None
        matched = match_kernel(score.along, t, kernel=options.kernel, bandwidth=options.bandwidth, **shared)
        return matched, out
    width, limits = _caliper(problem, options, score)
    shared |= {"ratio": options.ratio, "caliper": width, "limits": limits}
    full = _metric(problem, options) if options.distance == "mahalanobis" else None
    along = None if score is None else score.along
    if options.method in {"optimal", "full"}:
        where = {"score": along} if full is None else {"X": full}
        if full is not None and width is not None and along is not None:
            shared |= {"caliper": None, "limits": [*limits, (along, width)]}
        return _by_distance(problem, options, where, shared), out
    shared |= {
        "replace": options.replace,
        "order": options.order,
        "tie_rank": problem.tie_rank if options.order != "random" else _shuffled(problem, options),
        "random_state": options.random_state,
    }
    if full is not None:
        by = along if width is not None else None
        return match_mahalanobis(full, t, score=by, ties=options.ties, **shared), out
    assert along is not None
    return match_nearest(along, t, ties=options.ties, **shared), out


def _shuffled(problem: Problem, options: Options) -> Ints:
    """Places drawn by the seed for rows in the order of their content; also decides between equal matches."""
    n = len(problem.y)
    places = np.empty(n, dtype=np.int64)
    places[np.argsort(problem.places, kind="stable")] = np.random.default_rng(
        [options.random_state, 1]
    ).permutation(n)
    return places


def _by_distance(
    problem: Problem, options: Options, where: dict[str, Any], shared: dict[str, Any]
) -> MatchedSet:
    """Match optimally or fully, on rows in the order of the tie-break column where there is one."""
    t = problem.treated
    # Equally good solutions differ by the order of tied rows, which that column settles.
    order = None if problem.tie_rank is None else np.argsort(problem.tie_rank)
    if order is not None:
        where = {name: values[order] for name, values in where.items()}
        t = t[order]
        strata = shared["strata"]
        shared = shared | {
            "discarded": shared["discarded"][order],
            "strata": None if strata is None else strata[order],
            "limits": [(values[order], width) for values, width in shared["limits"]],
        }
    if options.method == "full":
        shared = {name: value for name, value in shared.items() if name != "ratio"}
        matched = match_full(t, **where, **shared)
    else:
        matched = match_optimal(t, **where, **shared)
    if order is None:
        return matched
    back = np.argsort(order)
    return replace(
        matched,
        weights=matched.weights[back],
        focal=order[matched.focal],
        other=order[matched.other],
        stratum=None if matched.stratum is None else matched.stratum[back],
        discarded=matched.discarded[back],
    )


def _metric(problem: Problem, options: Options) -> Floats:
    names = options.mahalanobis_on if options.mahalanobis_on is not None else problem.confounders
    for name in names:
        if name not in problem.columns:
            raise EstimationError(
                f"mahalanobis_on names {name!r}, which is not a confounder",
                hint=f"the confounders are {', '.join(problem.confounders)}",
            )
    # Every level has its own column, so that no level is nearer to the reference than to another.
    return design_matrix({name: problem.columns[name] for name in names}, full=True).matrix


def _caliper(
    problem: Problem, options: Options, score: Score | None
) -> tuple[float | None, list[tuple[Floats, float]]]:
    limits = list(problem.limits)
    if options.caliper is None or score is None:
        return None, limits
    unit = options.caliper_unit.removesuffix("_logit")
    if unit == options.caliper_unit:
        return caliper_width(options.caliper, score.along, unit=unit), limits
    logit = np.log(score.propensity / (1.0 - score.propensity))
    limits.append((logit, caliper_width(options.caliper, logit, unit=unit)))
    return None, limits


def _tie_warning(
    problem: Problem, options: Options, matched: MatchedSet, score: Score | None
) -> tuple[str, ...]:
    follows_rows = problem.tie_rank is None and matched.settings.get("ties", "sorted") != "average"
    # In random order the seed decides between equal rows as well.
    follows_rows &= options.order != "random"
    if options.method not in {"nearest", "optimal", "full"} or not follows_rows:
        return ()
    if options.distance == "mahalanobis":
        n_tied = len(problem.y) - len(np.unique(_metric(problem, options), axis=0))
        what = "covariates"
    else:
        assert score is not None
        n_tied = len(score.along) - len(np.unique(np.round(score.along, 12)))
        what = "score"
    if n_tied == 0:
        return ()
    way_out = "give tie_break= a column that identifies rows"
    if matched.replace:
        way_out += ", or ties='average'"
    text = (
        f"{n_tied} rows share their {what} with another row: which of them is matched follows the order of"
        f" the table; {way_out}"
    )
    return (text,)


def bootstrapped(problem: Problem, options: Options, core: Core) -> Core:
    """Replace the standard error by a bootstrap that refits the whole pipeline.

    Rows (or clusters) are resampled, the score is fitted again, and rows are matched again.

    Returns
    -------
    Core

    Raises
    ------
    EstimationError
        Where the bootstrap is not valid, or too many samples cannot be estimated.
    """
    if core.matched is not None:
        refuse_naive_bootstrap(core.matched)
    rng = np.random.default_rng(options.random_state)
    n, whole = len(problem.y), problem
    if problem.tie_rank is not None:
        # A sample holds rows more than once and cannot be told apart by the column: ties go by its order.
        problem = problem.take(np.argsort(problem.tie_rank))
    places = problem.places
    problem = replace(problem, rank=places)
    own = np.argsort(places, kind="stable")
    groups = None
    if problem.cluster is not None:
        _, label = np.unique(problem.cluster.astype(str), return_inverse=True)
        order = np.argsort(label, kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(label))[:-1])
        groups = [
            groups[g] for g in np.argsort(cluster_places(2 * places + problem.treated, label), kind="stable")
        ]
    values: list[tuple[float, float]] = []
    failed = 0
    for _ in range(options.draws):
        if groups is None:
            # In the order of the table: memory is read in order, and ties stay as they were.
            rows = np.sort(own[rng.integers(0, n, n)])
        else:
            rows = np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])
        try:
            values.append(compute(problem.take(rows), options, with_error=False).means)
        except EstimationError:
            failed += 1
    if failed > 0.1 * options.draws or len(values) < 2:
        raise EstimationError(
            f"{failed} of {options.draws} bootstrap samples could not be estimated (an arm or level is lost)",
            hint="use the analytical standard error, se='auto'",
        )
    drawn = np.asarray(values)
    effects = drawn[:, 0] - drawn[:, 1]
    low, high = np.quantile(effects, [0.5 - options.level / 2, 0.5 + options.level / 2])
    note = (f"{failed} of {options.draws} bootstrap samples could not be estimated",) if failed else ()
    made = replace(
        core,
        std_error=float(np.std(effects, ddof=1)),
        ci=(float(low), float(high)),
        df=None,
        mean_draws=drawn,
        se_method=f"bootstrap of the whole pipeline, {counted(options.draws, 'draw')}, percentile interval",
        warnings=(*core.warnings, *note),
    )
    return if_known(whole, made)
