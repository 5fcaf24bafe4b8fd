"""Mediation among items that ran under both arms: models of the differences within items."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from whyprompt._words import counted, format_number, percent
from whyprompt.mediation.measured.design import check_draws
from whyprompt.mediation.measured.mediate import estimate_of_draws
from whyprompt.mediation.measured.overlap import overlap_warnings
from whyprompt.mediation.measured.paired_fits import JOINTLY, bootstrap, effects_of_pairs, fitted, undone
from whyprompt.mediation.measured.pairs_of_items import differing, mediator_groups, read_pairs
from whyprompt.results import Assumption, Estimate, Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    from whyprompt.mediation.measured.paired_fits import Fit, Name
    from whyprompt.mediation.measured.pairs_of_items import ItemPairs

    Array = NDArray[np.float64]

_FEW, _RARE, _HEAVY = 10, 5, 2 / 3


def paired_mediation(
    frame: IntoDataFrame,
    *,
    treatment: str,
    mediators: str | Sequence[str] | Mapping[str, str | Sequence[str]],
    outcome: str,
    item: str,
    treated: str,
    control: str,
    covariates: Sequence[str] = (),
    cluster: str | None = None,
    interaction: bool = True,
    draws: int = 2000,
    level: float = 0.95,
    random_state: int = 0,
) -> Result:
    """Natural direct and indirect effects from a table in which every item ran under both arms.

    For an item *i* and an arm *t* the outcome is modelled as ``Y_i(t, m) = a_i + d_t + m' b_t + e_it``: the
    item has a level of its own, ``a_i``, of any kind and however it goes with the mediators. The difference
    of the two arms is free of it, and is regressed on the mediator under the treated arm and on the mediator
    under the control arm (Judd, Kenny and McClelland 2001). With ``delta``, the mean difference of the
    mediators,

    ``NIE = E[Y(1, M(1)) - Y(1, M(0))] = delta' b_1`` and ``NDE = E[Y(1, M(0)) - Y(0, M(0))] = TE - NIE``,

    and with the slopes of the control arm the pure NIE, ``delta' b_0``, and the total NDE. TE is the mean
    difference itself: no model is in it.

    Parameters
    ----------
    frame : data frame
        A row an item, arm and repetition; of repetitions the mean is taken. Any that narwhals reads.
    treatment : str
        Column of the arm.
    mediators : str, sequence of str, or mapping of str to str or sequence of str
        Numeric columns; in a mapping each name is one mediator made of its columns (a length in words and in
        its logarithm).
    outcome, item : str
    treated, control : str
        The two arms.
    covariates : sequence of str
        Facts of the item that the direct effect may go with, linearly; text is categorical.
    cluster : str, optional
        Sampling units that hold several items (a template); items by default.
    interaction : bool, default True
        Whether the mediator's slope is the arm's own. False makes both one, so that NIE and pure NIE are
        alike.
    draws : int, default 2000
        Bootstrap samples of the items, or of whole clusters.
    level : float, default 0.95
    random_state : int

    Returns
    -------
    Result
        `overall` is the total effect, and so is the part "total_effect". Parts "nie", "nde", "pure_nie",
        "total_nde", `by` the mediator taken alone; with several mediators also `by` "jointly", of all of them
        as one, and "interventional_nie" and "interventional_pure_nie" of each, which add up to the joint
        ones. "proportion" is NIE over TE. Where an effect cannot be had its estimate is None, and `note` says
        why. Figures of "nie" and "pure_nie": ``rho_at_zero``, the correlation of the two models' errors at
        which it vanishes; ``per_rho``, such that it is ``estimate - per_rho * rho / sqrt(1 - rho**2)`` at any
        other; ``robustness_value`` (below); ``delta``, the mediator's mean difference, where it is one
        column. Figures of the result: ``items``, ``units``, ``left_out``.

    Raises
    ------
    DataError
        If a column is missing, holds missing values or has two roles, an arm or an item under both arms is
        not there, a mediator or the outcome is constant, or a covariate differs within an item.
    EstimationError
        If a mediator is the arm itself or differs in one unit only, columns cannot be told apart, the outcome
        changes by the same in every item, or items or clusters are too few.

    See Also
    --------
    text_mediation : The same of texts, whose length and format are measured first.
    mediate : Of rows, where no item ran under both arms.

    Notes
    -----
    *What is not assumed.* Nothing about what items have of their own and that adds alike to both arms'
    outcomes: how hard the item is, how long its question.

    *What is assumed*, and no data can show: (1) whatever else differs between an item's two rows, beyond what
    the mediators stand for, does not go with the mediators. Two things break it: what else the arm changes in
    the answer that moves both mediator and outcome (a text is longer *and* better thought out), and an arm
    that helps some items more in other ways just where it moves the mediator more. (2) A unit of the mediator
    is worth the same from item to item, and its worth is linear over the range between the arms. For a 0/1
    outcome this is the linear probability model. (3) Sampling luck that one answer has is not shared by its
    length and its score: the mean of repetitions lessens that.

    *Several mediators.* The set as one mediator needs no assumption about arrows among its members. Each
    alone is a natural effect only if no arrow joins the mediators, and no other one confounds it: of a text's
    length and its format nobody knows that. So with several there are the interventional effects as well
    (Vansteelandt and Daniel 2017): through one mediator, the others held at their distribution under the arm,
    whichever arrows there are. In these models they are ``delta_k b_k`` of the joint model, and their sum is
    the joint NIE with nothing left over. The sequential natural effects (VanderWeele and Vansteelandt 2014)
    would need an order of the mediators.

    *Sensitivity.* The error of the outcome's difference and that of the mediator's have a correlation rho
    (Imai, Keele and Yamamoto 2010, theorem 4, here for a difference, and for any sum of slopes). The same in
    the terms of Cinelli and Hazlett (2020): a left-out cause that explains the share ``robustness_value`` of
    what is left of both brings the effect to zero, and none that explains less of both does.

    *Intervals* are percentiles of a bootstrap of items or clusters, in which all is fitted again, widened as
    Student's t is. ``python benchmarks/coverage_texts.py --reps 300`` counts what 95% intervals of NIE and
    NDE hold of skewed lengths (Monte Carlo error 1.3 points): 92 to 97% where the model is right, with 12 to
    100 items or 8 to 24 templates. Of a 0/1 outcome whose chance is logistic in the logarithm of the words,
    intervals of the NIE hold it in 96% with words and their logarithm as one mediator, and in 94, 88 and 85%
    of the samples of 30, 100 and 300 items with the words alone: `warnings` and the sentence say that. Where
    what an answer says moves its length and its score, NIE and NDE are held in 88 and 71%. Harder items have
    longer answers in all of these worlds, and `mediate` on the same rows, which compares between items too,
    is off by up to 4 standard deviations.

    References
    ----------
    Judd, Kenny and McClelland (2001). Estimating and testing mediation and moderation in within-subject
    designs. Psychological Methods 6(2). Montoya and Hayes (2017). Two-condition within-participant
    statistical mediation analysis. Psychological Methods 22(1). VanderWeele and Vansteelandt (2014).
    Mediation analysis with multiple mediators. Epidemiologic Methods 2(1). Vansteelandt and Daniel (2017).
    Interventional effects for mediation analysis with multiple mediators. Epidemiology 28(2). Imai, Keele and
    Yamamoto (2010). Identification, inference and sensitivity analysis for causal mediation effects.
    Statistical Science 25(1). Cinelli and Hazlett (2020). Making sense of sensitivity. JRSS B 82.

    Examples
    --------
    >>> import pandas as pd
    >>> i = np.arange(40.0)
    >>> hard, short, long = 9 * np.sin(i), 20 + 5 * np.sin(i), 50 + 5 * np.sin(i) + 4 * np.cos(3 * i)
    >>> rows = [
    ...     pd.DataFrame({"item": i, "arm": arm, "words": m, "score": gain + 0.02 * m - hard})
    ...     for arm, m, gain in (("short", short, 0.0), ("long", long, 0.1))
    ... ]
    >>> found = paired_mediation(
    ...     pd.concat(rows), treatment="arm", mediators="words", outcome="score", item="item",
    ...     treated="long", control="short", draws=200,
    ... )
    >>> [round(found.part(name).estimate, 2) for name in ("total_effect", "nie", "nde")]
    [0.7, 0.6, 0.1]
    """
    check_draws(draws, level)
    arms = (str(control), str(treated))
    groups = mediator_groups(mediators)
    pairs = read_pairs(
        frame,
        treatment=treatment,
        mediators=groups,
        outcome=outcome,
        item=item,
        arms=arms,
        covariates=covariates,
        cluster=cluster,
    )
    fits = fitted(pairs, interaction=interaction)
    point = {k: v[0] for k, v in effects_of_pairs(pairs, fits, np.ones((1, len(pairs.items)))).items()}
    rng = np.random.default_rng(random_state)
    drawn = bootstrap(pairs, fits, point, draws, rng)
    labels = (f"{treatment} {arms[0]}", f"{treatment} {arms[1]}")
    warnings = (
        *_left_out(pairs),
        *_few(pairs, labels),
        *_straight(pairs, outcome),
        *_overlap(pairs, labels),
    )
    parts = _parts(pairs, fits, point, drawn, arms, level)
    warnings = (*warnings, *_beyond(pairs, parts, outcome))
    overall = parts.pop(("total_effect", ""))
    made = Result(
        overall=overall,
        parts=tuple(parts.values()),
        level=level,
        warnings=warnings,
        sentence="",
        axis=f"effect on {outcome}",
        figures={
            "items": len(pairs.items),
            "units": int(pairs.units.max()) + 1,
            "left_out": pairs.left_out,
            "mediators": tuple(pairs.groups),
        },
    )
    return replace(made, assumptions=(_ignorable(made),), sentence=_sentence(made, arms, outcome))


def _parts(
    pairs: ItemPairs,
    fits: Sequence[Fit],
    point: Mapping[Name, float],
    drawn: Mapping[Name, Array],
    arms: tuple[str, str],
    level: float,
) -> dict[Name, Estimate]:
    """Make a row of every effect, with what would undo it; rows without an estimate say why."""
    n = len(pairs.items)
    out: dict[Name, Estimate] = {}

    def row(name: Name, figures: Mapping[str, float]) -> Estimate:
        made = estimate_of_draws(name[0], drawn[name], float(point[name]), level, n)
        return replace(made, by=name[1], figures=figures)

    out["total_effect", ""] = total = row(("total_effect", ""), {})
    dy = pairs.y[:, 1] - pairs.y[:, 0]
    delta = (pairs.m[:, 1] - pairs.m[:, 0]).mean(0)
    for model, asked in fits:
        for prefix, name, members in asked:
            for label, rest, places, arm in (
                ("nie", "nde", model.treated, 1),
                ("pure_nie", "total_nde", model.control, 0),
            ):
                still = [pairs.names[model.members[k]] for k in members if places[k] is None]
                for one in (label, *(() if prefix else (rest,))):
                    key = (f"{prefix}{one}", name)
                    if still:
                        why = (
                            f"{still[0]} is constant under {arms[arm]}, but for one sampling unit at most, "
                            "so nothing there shows what it does"
                        )
                        out[key] = Estimate(label=key[0], by=name, estimate=None, note=why)
                        continue
                    figures = {}
                    if one == label:
                        figures = undone(model, dy, {places[k]: delta[model.members[k]] for k in members})
                        if len(members) == 1:
                            figures["delta"] = float(delta[model.members[members[0]]])
                    out[key] = row(key, figures)
            key = ("nie", name)
            if not prefix and out[key].estimate is not None:
                if total.ends[0] <= 0 <= total.ends[1]:
                    why = "the total effect is not told from zero, and a share of nothing is no number"
                    out["proportion", name] = Estimate(label="proportion", by=name, estimate=None, note=why)
                else:
                    share = point[key] / point["total_effect", ""]
                    ratio = drawn[key] / drawn["total_effect", ""]
                    made = estimate_of_draws("proportion", ratio, float(share), level, n)
                    out["proportion", name] = replace(made, by=name)
    return out


def _beyond(pairs: ItemPairs, parts: Mapping[Name, Estimate], outcome: str) -> tuple[str, ...]:
    """Warn of effects on a chance that no chance can have."""
    too_large = [
        f"{label} by {name} is {format_number(row.estimate)}"
        for (label, name), row in parts.items()
        if pairs.binary and label != "proportion" and abs(row.estimate or 0.0) > 1
    ]
    if not too_large:
        return ()
    named = ", ".join(too_large)
    return (f"{outcome} is 0 or 1, so that no effect is beyond 1, and {named}: the line was drawn too far.",)


def _left_out(pairs: ItemPairs) -> tuple[str, ...]:
    if not pairs.left_out:
        return ()
    of = len(pairs.items) + pairs.left_out
    return (f"{pairs.left_out} of {counted(of, 'item')} are left out, which did not run under both arms.",)


def _few(pairs: ItemPairs, labels: tuple[str, str]) -> tuple[str, ...]:
    """Warn of few sampling units, and of slopes that hang on a few of them."""
    out = []
    units = int(pairs.units.max()) + 1
    of = "item" if units == len(pairs.items) else "cluster"
    if units < _FEW:
        out.append(f"With {counted(units, of)} the intervals are rough.")
    for k, name in enumerate(pairs.names):
        for arm in (0, 1):
            rare = differing(pairs.m[:, arm, k], pairs.units)
            if 1 < rare < _RARE:
                out.append(
                    f"Under {labels[arm]}, {name} differs from its usual value in {counted(rare, of)} only: "
                    "its slope there hangs on them."
                )
                continue
            squares = (pairs.m[:, arm, k] - pairs.m[:, arm, k].mean()) ** 2
            most = np.bincount(pairs.units, squares).max() / max(squares.sum(), 1e-300)
            if rare > 1 and most > _HEAVY:
                out.append(
                    f"Under {labels[arm]}, {most:.0%} of the sum of squares of {name} is one {of}'s: its "
                    f"slope there hangs on that {of}."
                )
    return tuple(out)


def _straight(pairs: ItemPairs, outcome: str) -> tuple[str, ...]:
    """Warn of a straight line for a chance, in a mediator of one column that is more than a flag."""
    lines = [
        name
        for name, columns in pairs.groups.items()
        if len(columns) == 1 and len(np.unique(pairs.m[:, :, columns[0]])) > 2
    ]
    if not pairs.binary or not lines:
        return ()
    names = " and ".join(lines)
    said = (
        f"{outcome} is 0 or 1, and its chance is taken as a straight line in {names}: where it bends, the "
        "intervals of NIE and NDE hold the truth less often than they say, the more so the more items there "
        "are. A logarithm beside, as one mediator with it, lets the line bend."
    )
    return (said,)


def _overlap(pairs: ItemPairs, labels: tuple[str, str]) -> tuple[str, ...]:
    """Say of each mediator where the arms lie apart, once of columns that order all rows alike."""
    out: list[str] = []
    for columns in pairs.groups.values():
        said: list[Array] = []
        for k in columns:
            both = (pairs.m[:, 0, k], pairs.m[:, 1, k])
            order = stats.rankdata(np.stack(both))
            if not any(np.array_equal(order, other) for other in said):
                out += overlap_warnings(both, both, labels, pairs.names[k])
            said.append(order)
    return tuple(out)


def _main(made: Result) -> str:
    names = made["mediators"]
    return JOINTLY if len(names) > 1 else str(names[0])


def _ignorable(made: Result) -> Assumption:
    row = made.part("nie", by=_main(made))
    detail = row.note
    if row.estimate is not None:
        detail = (
            f"undone by a cause that explains {100 * row['robustness_value']:.2g}% of what is left of both "
            f"differences (rho {row['rho_at_zero']:.2g})"
        )
    return Assumption(
        name="nothing else that differs within an item moves both mediator and outcome",
        status="untestable",
        check="how strong a left-out cause would undo the NIE",
        detail=detail,
    )


def _span(row: Estimate, level: float | None = None) -> str:
    low, high = row.ends
    name = "" if level is None else f"{percent(level)} interval "
    return f"{format_number(row.estimate)} ({name}{format_number(low)} to {format_number(high)})"


def _sentence(made: Result, arms: tuple[str, str], outcome: str) -> str:
    control, treated = arms
    names, main = list(made["mediators"]), _main(made)
    total = made.overall
    assert total is not None
    nie, nde = made.part("nie", by=main), made.part("nde", by=main)
    one = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} together"
    text = (
        f"{treated!r} in place of {control!r} changes {outcome} by {_span(total, made.level)}, over "
        f"{counted(made['items'], 'item')} that ran under both. "
    )
    if nie.estimate is None:
        return f"{text}How much of it goes through {one} cannot be said: {nie.note}."
    text += (
        f"Of that, {_span(nie)} would be gone if {one} were as under {control!r} (NIE), and {_span(nde)} "
        "would stay (NDE)."
    )
    share = made.part("proportion", by=main)
    if share.estimate is not None:
        low, high = share.ends
        text += f" That is {share.estimate:.0%} of the effect ({low:.0%} to {high:.0%})."
    if len(names) > 1:
        each = [(name, made.part("interventional_nie", by=name)) for name in names]
        said = [f"{_span(row)} through {name}" for name, row in each]
        text += (
            f" Of the joint part, {' and '.join(said)}, each with the others left as they are "
            "(interventional effects, which add up whatever arrows join the mediators)."
        )
    text += (
        f" What an item adds to both arms alike plays no part. But this is an effect only if {one} is worth "
        "what the fitted line says, in every item alike, and if nothing else "
        f"that differs between an item's two answers moves both {one} and {outcome}, such as what the answer "
        f"says, or how much else {treated!r} does for the item: a left-out cause that explains "
        f"{100 * nie['robustness_value']:.2g}% of what is left of both would bring the NIE to zero"
        + ("." if nie.ends[0] > 0 or nie.ends[1] < 0 else ", from which it is not told as it is.")
    )
    return " ".join([text, *made.warnings])
