"""Many arms: every pair of them, with p-values and intervals that account for their number.

Weights of a multinomial score bring all arms to one population, so that the contrasts add up. Matching takes
each pair by itself; its contrasts speak of different rows, and do not.
"""

from __future__ import annotations

from dataclasses import replace as changed
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import confidence
from whyprompt.effects.arms_balance import pair_balance, pair_known, without_error
from whyprompt.effects.arms_words import LOW_ESS, arms_balance, arms_overlap, arms_sentence
from whyprompt.effects.assumptions import FEW_ROWS, describe_assumptions
from whyprompt.effects.estimate import estimated
from whyprompt.effects.measures import stated
from whyprompt.effects.methods.make import make_method
from whyprompt.effects.methods.many_arms import multinomial_weights, weighted_means
from whyprompt.effects.own_chances import near_none, own_chances, own_fit, own_overlap, unused_chances
from whyprompt.effects.problem import choose_confounders, refuse_post_treatment
from whyprompt.effects.separation import explain_missing_arms
from whyprompt.effects.several import EffectsResult
from whyprompt.effects.units import NO_CLUSTER, find_units, paired_item, settle_cluster
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate, with_holm
from whyprompt.stats.clusters import clustered_means, pairwise_df
from whyprompt.stats.design import design_matrix
from whyprompt.stats.errors import interval
from whyprompt.stats.influence import cluster_codes, effective_sample_size
from whyprompt.stats.order import distinct
from whyprompt.stats.propensity import SeparatedError
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.several import max_t_of_root, normal_scores, reach
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.make import MethodLike
    from whyprompt.graph.model import CausalGraph
    from whyprompt.stats.design import Design
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    # Of the arms: their means, the covariance of these, and the degrees of freedom of each two's difference.
    Means = tuple[Floats, Floats, Floats]

# More values of a number are a dose; text is an arm however many there are, up to so many comparisons.
_MANY_ARMS, _MANY_PAIRS = 30, 20_000
# Coefficients of a multinomial score; their information has as many rows and columns.
_MANY_COEFFICIENTS = 4_000
# Methods that bring all arms to one population, and whose effects they then estimate.
_AT_ONCE = {"ipw": ("ate", "att"), "overlap": ("ato",), "naive": ("ate",)}


def compare_arms(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    method: MethodLike | None = None,
    estimand: str | None = None,
    focal: object | None = None,
    reference: object | None = None,
    design: str = "observational",
    propensity: str | None = None,
    unit: str | None = None,
    cluster: str | None = None,
    level: float = 0.95,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - options of estimate_effect, for methods that take pairs
) -> EffectsResult:
    """Compare every pair of many arms, or all of them with one.

    Parameters
    ----------
    frame : DataFrame
        One arm a row.
    treatment, outcome : str
        Columns. The treatment has two levels or more.
    confounders, graph, level, random_state
        As in `estimate_effect`.
    method : str, Method or mapping, optional
        ``ipw`` (inverse probability weights of a multinomial score; the default), ``overlap``, ``naive`` (the
        default of a randomised or paired design where nothing is adjusted for), or a method of
        `estimate_effect` that takes each pair by itself: ``nearest``, ``optimal``, ``full``, ``kernel``,
        ``subclass``, ``cem``, ``entropy``, ``aipw``.
    estimand : {"ate", "att", "atc", "ato"}, optional
        With ``ipw``: ``ate`` (default) or ``att`` (of `focal`). With pairs: as in `estimate_effect`, of the
        two arms compared.
    focal : object, optional
        With ``ipw`` and ``att``: the arm whose population the effects are for.
    reference : object, optional
        The arm that every other is compared with: only these comparisons are made, and adjusted for. Default:
        every pair is.
    design : {"observational", "randomized", "paired"}, default "observational"
        How rows got their arms. Paired: every item was run under every arm, equally often.
    propensity : str, optional
        Column with the chance, above 0 and up to 1, with which each row got the arm that it got, as a bandit
        or a gateway logs it: rows then weigh one over it, in place of a score. (The column of
        `estimate_effect` is of the treated arm, which of many arms says nothing of the others.)
    unit : str, optional
        In a paired design the column with the item; default the one that the table shows.
    cluster : str, optional
        Column with the sampling unit. Default: one whose values repeat, as in `estimate_effect`. In a paired
        design that is the item.
    **options
        Further options of `estimate_effect` (caliper, exact, ...), for methods that take pairs.

    Returns
    -------
    EffectsResult

    Raises
    ------
    DataError
        If a column is absent, has missing or infinite values, or is of the wrong kind.
    EstimationError
        If there is one arm, an arm has one row, options contradict each other, or no pair can be estimated.
    GraphError
        If the graph forbids a confounder.

    Notes
    -----
    Weighted means have a joint covariance, which accounts for the estimated score; from it comes the
    distribution of the largest |t| over all comparisons. Pairs matched each by itself share rows in ways for
    which no joint distribution is known; they get Holm's p-values and Bonferroni's intervals. Both kinds of
    adjusted p-values step down: they may fall below 1 - level where the interval that holds at once includes
    zero, and hold the rate of false findings all the same.

    Chances that followed earlier outcomes leave the weighted means without bias as long as no arm's chance
    comes near 0. Where it does, their intervals are too narrow, and a warning says so; weights that adapt to
    the chances (Hadad et al. 2021) would mend it and are not made here.

    References
    ----------
    Hadad, V., Hirshberg, D. A., Zhan, R., Wager, S. and Athey, S. (2021). Confidence intervals for policy
    evaluation in adaptive experiments. PNAS 118, e2014602118.
    Imbens, G. W. (2000). The role of the propensity score in estimating dose-response functions. Biometrika
    87, 706-710.
    Hothorn, T., Bretz, F. and Westfall, P. (2008). Simultaneous inference in general parametric models.
    Biometrical Journal 50, 346-363.
    Dunnett, C. W. (1955). A multiple comparison procedure for comparing several treatments with a control.
    JASA 50, 1096-1121.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> arm = rng.choice(["direct", "cot", "few_shot"], 600)
    >>> x = rng.normal(size=600)
    >>> frame = pd.DataFrame({"arm": arm, "x": x, "y": x + (arm == "cot") + rng.normal(size=600)})
    >>> result = compare_arms(frame, treatment="arm", outcome="y", confounders=["x"], reference="direct")
    >>> [(row.label, row.p_adjusted < 0.05) for row in result.parts]
    [('cot - direct', True), ('few_shot - direct', False)]
    >>> result.contrast("cot", "direct") == result.parts[0]
    True
    """
    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    confidence(level)
    if design not in {"observational", "randomized", "paired"}:
        raise EstimationError(f"design {design!r} is not known", hint="observational, randomized or paired")
    if unit is not None and design != "paired":
        raise EstimationError(
            f"unit= has no meaning in the design {design!r}",
            hint="design='paired', or cluster= for the error",
        )
    if cluster is not None and design == "paired":
        raise EstimationError(
            "cluster= has no meaning with design='paired' and many arms: the sampling unit is the item",
            hint=f"unit={cluster!r}, if that is the item",
        )
    arms, labels = _arms(table, treatment, reference)
    pairs = [(a, b) for a, b in combinations(range(len(arms)), 2) if reference is None or a == 0]
    chosen, cautions = choose_confounders(
        table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
    )
    sampling, item = find_units(table, treatment=treatment, outcomes=[outcome], covariates=chosen or ())
    named, notes = settle_cluster(unit or cluster, sampling)
    if item is not None and item.paired and design == "observational" and cluster != NO_CLUSTER:
        every = f"{item.both} of {item.count} {item.name!r} were run under every arm"
        way = "design='paired' compares each with itself, and needs no adjustment"
        notes = (*notes, f"{every}: {way}")
    if method is None:
        method = "naive" if design != "observational" and not chosen and propensity is None else "ipw"
    used = method if isinstance(method, str) else make_method(method).name
    refuse = None if propensity is None else _without_meaning(design, used, estimand, chosen)
    if refuse is not None:
        raise refuse
    if design == "paired":
        named, notes = paired_item(table, labels, named, used, chosen), ()
    known = None if propensity is None else own_chances(table, propensity)
    idle = {*(chosen or ()), treatment, outcome}
    notes = (
        *notes,
        *(unused_chances(table, labels, arms, idle) if known is None else near_none(known, arms)),
    )
    if chosen is None and known is None and used != "naive":
        raise EstimationError(
            f"method {used!r} needs to know what to adjust for",
            hint="give confounders=[...] or a graph, or method='naive' for plain differences",
        )
    names = tuple(chosen or ())
    about = {
        "of": "arms",
        "treatment": treatment,
        "outcome": outcome,
        "axis": f"difference in {outcome}",
        "method": used,
        "control": arms[0],
        "pairs": tuple((arms[b], arms[a]) for a, b in pairs),
        "confounders": names,
        "level": level,
        "sentence": "",
    }
    if used in _AT_ONCE:
        own = options if isinstance(method, str) else {**make_method(method).asked, **options}
        if own:
            raise EstimationError(
                f"option {min(own)!r} has no meaning where many arms are weighted at once",
                hint="method='nearest' compares them pair by pair, and takes its options",
            )
        result = _weighted(
            table,
            about,
            arms,
            labels,
            pairs,
            estimand=estimand,
            focal=None if focal is None else level_name(focal),
            known=known,
            cluster=named,
            random_state=random_state,
        )
    else:
        if focal is not None:
            raise EstimationError(
                "focal= is for method='ipw'", hint="with pairs, name the estimand att or atc"
            )
        refuse_post_treatment(names, treatment=treatment, outcome=outcome)
        shared = {"confounders": names, "method": method, "estimand": estimand, "level": level}
        shared |= {"cluster": named or NO_CLUSTER, "random_state": random_state, **options}
        result = _pairwise(table, about, arms, labels, shared)
    adjusted = () if used == "naive" else names
    assumptions = (
        *describe_assumptions(
            design=design,
            confounders=adjusted,
            from_graph=graph is not None,
            cautions=cautions,
            clustered=named is not None,
            overlap=arms_overlap(result) if known is None else own_overlap(known, labels, result),
        ),
        *(arms_balance(result) if known is None else (own_fit(known, labels, arms),)),
    )
    if not names and design == "observational" and known is None:
        notes = (*notes, "nothing was adjusted for")
    result = changed(
        result, assumptions=assumptions, confounders=adjusted, warnings=(*notes, *result.warnings)
    )
    text = arms_sentence(result, design, to_reference=reference is not None, chances=propensity)
    if named and cluster is None and design != "paired":
        text += f" Rows repeat {named!r}, which the intervals allow for."
    return changed(result, sentence=text)


def _without_meaning(
    design: str, method: str, estimand: str | None, chosen: Sequence[str] | None
) -> EstimationError | None:
    """Give the refusal of what has no meaning beside the chances that decided the arms."""
    what, hint = "", "leave it out"
    if design == "paired":
        what = "with design='paired', where each item has every arm"
    elif method != "ipw":
        what = f"for method {method!r} of many arms, which does not weigh by it"
        hint = "method='ipw', or leave the method out"
    elif (estimand or "ate").lower() != "ate":
        what = f"with estimand={estimand!r}: chances of the arms that rows got give the ATE alone"
        hint = "estimand='ate'"
    elif chosen:
        what, hint = "beside confounders: what decided the arm is in the chances", "leave out either"
    return EstimationError(f"propensity= has no meaning {what}", hint=hint) if what else None


def _arms(table: Table, treatment: str, reference: object | None) -> tuple[list[str], NDArray[Any]]:
    labels = table.labels(treatment, role="treatment")
    found, code = distinct(labels)
    counts = np.bincount(code)
    if len(found) < 2:
        raise EstimationError(
            f"treatment column {treatment!r} is constant: every row is {found[0]!r}",
            hint="an effect needs two arms or more",
        )
    if len(found) > _MANY_ARMS and table.values(treatment, role="treatment").dtype != object:
        raise EstimationError(
            f"treatment column {treatment!r} has {len(found)} levels, which are numbers: too many to be arms",
            hint="a number that takes many values is a dose: use dose_response; numbers that name arms are to"
            " be written as text",
        )
    n_pairs = len(found) - 1 if reference is not None else len(found) * (len(found) - 1) // 2
    if n_pairs > _MANY_PAIRS:
        fewer = "" if reference is not None else " or compare them with one arm, reference=...;"
        raise EstimationError(
            f"treatment column {treatment!r} has {len(found)} levels: {n_pairs} comparisons are too many",
            hint=f"keep the arms with the most rows, or merge arms;{fewer} at most {_MANY_PAIRS} comparisons"
            " are adjusted for each other",
        )
    for arm, count in zip(found, counts.tolist(), strict=True):
        if count < 2:
            raise EstimationError(
                f"arm {arm!r} of treatment column {treatment!r} has one row: its spread cannot be known",
                hint="run that arm on more items, or leave its row out",
            )
    if reference is not None:
        named = level_name(reference)
        if named not in found:
            raise EstimationError(
                f"reference {named!r} is not an arm of {treatment!r}", hint=f"the arms are {', '.join(found)}"
            )
        found.remove(named)
        found.insert(0, named)
    return found, labels


def _weighted(
    table: Table,
    about: dict[str, Any],
    arms: list[str],
    labels: NDArray[Any],
    pairs: list[tuple[int, int]],
    *,
    estimand: str | None,
    focal: str | None,
    known: Floats | None,
    cluster: str | None,
    random_state: int,
) -> EffectsResult:
    """Bring all arms to one population, and compare their means; `about` are fields of the result."""
    method, names, level = about["method"], about["confounders"], about["level"]
    y = table.numbers(about["outcome"], role="outcome")
    units = None if cluster is None else table.labels(cluster, role="cluster")
    columns = {name: table.values(name, role="confounder") for name in names}
    wanted: Any = (estimand or ("ato" if method == "overlap" else "ate")).lower()
    if wanted not in _AT_ONCE[method]:
        raise EstimationError(
            f"method {method!r} does not estimate {wanted!r} of many arms",
            hint=f"it estimates {', '.join(_AT_ONCE[method])}",
        )
    weights = np.ones(len(y))
    if known is not None:
        weights = 1.0 / known
        chosen = np.column_stack([labels == arm for arm in arms]).astype(float)
        found = weighted_means(y, chosen, weights, cluster_codes(units, len(y)))
    elif method == "naive" or not names:
        found = _plain_means(y, labels, arms, units)
    else:
        design = design_matrix(columns)
        _refuse_large(arms, design)
        try:
            _, weights, weighted = multinomial_weights(
                labels,
                design.matrix,
                y=y,
                estimand=wanted,
                focal=focal,
                reference=arms[0],
                names=design.names,
                cluster=units,
            )
        except SeparatedError as error:
            raise explain_missing_arms(columns, labels, error) from None
        assert weighted is not None
        found = weighted
    here = [labels == arm for arm in arms]
    counts = [int(rows.sum()) for rows in here]
    sizes = [effective_sample_size(weights[rows]) for rows in here]
    balance, apart = pair_balance(
        columns, labels, arms=arms, weights=weights, focal=focal, weighted_spread=wanted == "ato"
    )
    blind = without_error(y, labels, arms, units)
    rows = _contrasts(arms, counts, found, pairs, level, random_state, balance_of=apart, blind=blind)
    warnings = [
        f"the weights of arm {arm!r} are worth {ess:.0f} of {n} rows: its mean rests on few of them"
        for arm, ess, n in zip(arms, sizes, counts, strict=True)
        if ess < min(LOW_ESS * n, FEW_ROWS if wanted == "ato" else np.inf)
    ]
    if units is not None:
        free = [float(found[2][a, b]) for a, b in pairs]
        warnings.extend(few_clusters(len(np.unique(units.astype(str))), min(free)))
    warnings.extend(f"no standard error of arm {arm!r}: {why}" for arm, why in blind.items())
    warnings.extend(
        f"{row.label}: all differ by one amount: the spread is zero in this sample, not in the population"
        for row in rows
        if row.std_error is None and not blind
    )
    errors = np.sqrt(np.diag(found[1]))
    return EffectsResult(
        **about,
        estimand=wanted,
        focal=focal,
        parts=rows,
        means=tuple(
            Estimate(label=a, estimate=float(m), std_error=None if a in blind else float(s), n_used=n)
            for a, n, m, s in zip(arms, counts, found[0], errors, strict=True)
        ),
        ess=dict(zip(arms, sizes, strict=True)),
        balance=balance,
        adjustment="the joint distribution of the contrasts (largest |t|)",
        warnings=tuple(warnings),
        std_error_method=(
            f"stacked estimating equations, {'score estimated' if known is None else 'chances known'}"
            + (", cluster-robust" if cluster is not None else "")
            if method != "naive" and (names or known is not None)
            else "unequal variances (Welch)"
            if cluster is None
            else "CR2 by cluster, Satterthwaite df"
        ),
        weights=weights,
    )


def _refuse_large(arms: Sequence[str], design: Design) -> None:
    """Refuse a multinomial score of more coefficients than can be estimated, or held in memory."""
    size = (len(arms) - 1) * (len(design.names) + 1)
    if size <= _MANY_COEFFICIENTS:
        return
    longest = max(design.levels, key=lambda name: len(design.levels[name]), default="")
    columns = f" ({len(design.levels[longest])} levels of {longest!r} among them)" if longest else ""
    raise EstimationError(
        f"the multinomial score has {size} coefficients: {len(arms)} arms by {len(design.names)} columns"
        f"{columns} are more than the {_MANY_COEFFICIENTS} that it can have",
        hint="method='nearest', 'cem' or 'aipw' compares pair by pair; or merge levels or arms, or give fewer"
        " confounders",
    )


def _plain_means(y: Floats, labels: NDArray[Any], arms: list[str], units: NDArray[Any] | None) -> Means:
    n = len(y)
    indicator = np.column_stack([labels == arm for arm in arms])
    counts = indicator.sum(axis=0).astype(float)
    codes = cluster_codes(units, n)
    if codes is not None:
        means, sums, df = clustered_means(y, indicator, np.ones(n), codes)
        return means, sums.T @ sums, pairwise_df(df, len(arms))
    means = indicator.T @ y / counts
    own = ((indicator * (y[:, None] - means)) ** 2).sum(axis=0) / (counts - 1.0) / counts
    return means, np.diag(own), _welch(own, counts)


def _welch(own: Floats, counts: Floats) -> Floats:
    """Welch's degrees of freedom of each difference of two means with the variances `own`."""
    both = own[:, None] + own[None, :]
    below = own**2 / (counts - 1.0)
    below = below[:, None] + below[None, :]
    return np.asarray(np.divide(both**2, below, out=np.full(both.shape, np.inf), where=below > 0))


def _contrasts(
    arms: Sequence[str],
    counts: Sequence[int],
    found: Means,
    pairs: list[tuple[int, int]],
    level: float,
    random_state: int,
    *,
    balance_of: dict[tuple[int, int], float | None],
    blind: dict[str, str],
) -> tuple[Estimate, ...]:
    means, joint, df = found
    first, second = np.array(pairs).T
    estimates = means[second] - means[first]
    # A root of the differences' covariance from one of the means', which are fewer.
    values, vectors = np.linalg.eigh(joint)
    of_means = vectors * np.sqrt(np.clip(values, 0.0, None))
    root = of_means[second] - of_means[first]
    errors = np.linalg.norm(root, axis=1)
    # What is left of the root of a variance that is zero is rounding: arms that differ by one amount.
    errors[errors <= 1e-7 * np.sqrt(max(float(values[-1]), 0.0))] = 0.0
    apart = errors > 0 if errors.any() else np.ones(len(pairs), dtype=bool)
    t = np.divide(estimates, errors, out=np.zeros(len(pairs)), where=errors > 0)
    free = [float(df[a, b]) for a, b in pairs]
    root /= np.where(errors > 0, errors, 1.0)[:, None]
    family, critical, _ = max_t_of_root(normal_scores(t, free), root, level=level, random_state=random_state)
    known = [pair_known(blind, arms[a], arms[b]) and bool(apart[k]) for k, (a, b) in enumerate(pairs)]
    rows = [
        stated(
            f"{arms[b]} - {arms[a]}",
            float(estimates[k]),
            float(errors[k]) if known[k] else None,
            free[k],
            level=level,
            n_treated=counts[b],
            n_control=counts[a],
            n_treated_used=counts[b],
            n_control_used=counts[a],
            mean_treated=float(means[b]),
            mean_control=float(means[a]),
            largest_smd=balance_of.get((a, b)),
        )
        for k, (a, b) in enumerate(pairs)
    ]
    out = []
    for k, row in enumerate(with_holm(rows)):
        if row.std_error is None:
            out.append(row)
            continue
        estimate, wide = float(estimates[k]), reach(critical, row.df) * row.std_error
        p = float(family[k])
        low, high = estimate - wide, estimate + wide
        out.append(changed(row, p_adjusted=p, simultaneous_low=low, simultaneous_high=high))
    return tuple(out)


def _pairwise(
    table: Table, about: dict[str, Any], arms: list[str], labels: NDArray[Any], shared: dict[str, Any]
) -> EffectsResult:
    """Compare each pair by itself, with options of `estimate_effect`; `about` are fields of the result."""
    found: list[Estimate] = []
    warnings: list[str] = []
    std_error_methods: list[str] = []
    wanted = shared["estimand"]
    for b, a in about["pairs"]:
        label = f"{b} - {a}"
        counts: dict[str, Any] = {
            "n_treated": int((labels == b).sum()),
            "n_control": int((labels == a).sum()),
        }
        try:
            one = estimated(
                table, treatment=about["treatment"], outcome=about["outcome"], treated=b, control=a, **shared
            ).result
        except EstimationError as error:
            nothing = {**counts, "n_treated_used": 0, "n_control_used": 0}
            found.append(Estimate(label=label, estimate=None, note=error.message, **nothing))
            continue
        wanted = one.estimand
        std_error_methods.append(one.std_error_method)
        sizes = [None if r.smd_after is None else abs(r.smd_after) for r in one.balance]
        largest = None if None in sizes else max((s for s in sizes if s is not None), default=None)
        found.append(changed(one.overall, label=label, largest_smd=largest, **counts))
        warnings.extend(
            f"{b} against {a}: {text}" for text in one.warnings if "other arms are put aside" not in text
        )
    if all(row.estimate is None for row in found):
        raise EstimationError(f"no pair of arms could be estimated; the first: {found[0].note}")
    rows = []
    strict = 1.0 - (1.0 - about["level"]) / len(found)
    for row in with_holm(found):
        low = high = None
        if row.estimate is not None:
            low, high = interval(row.estimate, row.std_error, level=strict, df=row.df)
        rows.append(changed(row, simultaneous_low=low, simultaneous_high=high))
    if len(arms) > 2:
        warnings.append(
            "each pair is matched by itself: the contrasts speak of different rows and need not add up;"
            " method='ipw' or 'overlap' brings all arms to one population"
        )
    return EffectsResult(
        **about,
        estimand=wanted or "att",
        parts=tuple(rows),
        adjustment="Bonferroni",
        warnings=tuple(dict.fromkeys(warnings)),
        std_error_method="; ".join(dict.fromkeys(std_error_methods)),
    )
