"""The same table by DoWhy, by CausalML and by us, with what explains each difference."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, seed
from whyprompt._words import format_number
from whyprompt.effects.checks.peers import why as _why
from whyprompt.effects.checks.peers.peers import find_python, run_peers
from whyprompt.effects.checks.peers.result import CrossCheck
from whyprompt.effects.checks.placebo import placebo_treatment
from whyprompt.effects.checks.random_cause import random_common_cause
from whyprompt.effects.checks.rerun import of_effect
from whyprompt.effects.checks.subset import data_subset
from whyprompt.effects.estimate import estimated
from whyprompt.effects.units import NO_CLUSTER
from whyprompt.effects.whom.heterogeneity import heterogeneous_effects
from whyprompt.effects.whom.policy import prompt_policy
from whyprompt.errors import EstimationError, GraphError
from whyprompt.results import Check, Estimate
from whyprompt.tables import open_table

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Verdict

    Floats = NDArray[np.float64]

__all__ = ["cross_check"]

_SHARES = tuple(k / 10 for k in range(1, 11))
_FEWEST_DRAWS = 10

_METHODS = {
    "dowhy_matching": "propensity score matching",
    "dowhy_weighting": "propensity score weighting",
    "causalml_matching": "nearest-neighbour matching",
    "s_learner": "S-learner (least squares)",
    "t_learner": "T-learner (least squares)",
    "x_learner": "X-learner (least squares)",
    "dr_learner": "doubly robust learner (least squares)",
}
_COMPARED = {
    "dowhy_matching": "nearest",
    "dowhy_weighting": "ipw",
    "causalml_matching": "nearest",
}
# Of the outcome's standard deviation: below this, a difference is rounding.
_ROUNDING = 1e-6


def cross_check(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    estimand: str = "att",
    treated: object | None = None,
    control: object | None = None,
    caliper: float = 0.2,
    replace: bool | None = None,
    draws: int = 20,
    uplift: bool = True,
    level: float = 0.95,
    python: str | os.PathLike[str] | None = None,
    timeout: float = 600.0,
    random_state: int = 0,
) -> CrossCheck:
    """Run DoWhy and CausalML on the same table, and say what explains each difference from our figures.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written; the tools get copies.
    treatment, outcome, confounders, graph, treated, control
        As in `estimate_effect`.
    estimand : {"att", "atc", "ate"}, default "att"
        Of matching and weighting. CausalML's learners estimate the ATE.
    caliper : float, default 0.2
        Of our matching and CausalML's, in standard deviations of the propensity; DoWhy's has none.
    replace : bool, optional
        Of our matching and CausalML's. Default as in `estimate_effect`.
    draws : int, default 20
        Simulations of each refuter; 0 for none.
    uplift : bool, default True
        Draw CausalML's uplift curve beside ours.
    level : float, default 0.95
        Of our intervals.
    python : path, optional
        Interpreter of an environment with DoWhy and CausalML. Default: the one that the environment variable
        ``WHYPROMPT_CROSSCHECK_PYTHON`` names, else this one.
    timeout : float, default 600
        Seconds that the tools may take.
    random_state : int, default 0
        Seed of everything random, theirs as well.

    Returns
    -------
    CrossCheck

    Raises
    ------
    EstimationError
        If the tools are not at hand, end without a result, or take too long; or as for `estimate_effect`.
    DataError, GraphError
        As for `estimate_effect`.

    Notes
    -----
    Both tools get the covariates as numbers, coded as ours are. Known traps are kept out: DoWhy gets a fresh
    copy for every model, since it takes a column `propensity_score` that it finds for its own; CausalML's
    isotonic calibration of the score is off. A difference is split into what our estimate moves by with the
    tool's settings, with its score as well, and a remainder, which is zero where our code, set up as the tool
    is, gives the tool's figure.

    The tools cannot share an environment with current releases of what whyprompt uses: make one for them by
    ``pip install dowhy==0.14 causalml==0.15.5``, or ``pip install 'whyprompt[crosscheck]'``.

    References
    ----------
    Sharma, A. and Kiciman, E. (2020). DoWhy: an end-to-end library for causal inference. arXiv:2011.04216.
    Chen, H. et al. (2020). CausalML: Python package for causal machine learning. arXiv:2002.11631.
    Kuenzel, S. R. et al. (2019). Metalearners for estimating heterogeneous treatment effects using machine
    learning. PNAS 116, 4156-4165.

    Examples
    --------
    >>> found = cross_check(
    ...     frame, treatment="arm", outcome="score", confounders=["difficulty"],
    ...     python=".venv-crosscheck/bin/python",
    ... )  # doctest: +SKIP
    >>> found.to_frame()[["tool", "method", "estimate", "difference", "unexplained"]]  # doctest: +SKIP
    """
    if estimand not in {"att", "atc", "ate"}:
        raise EstimationError(
            f"estimand={estimand!r} is not known to all three", hint="'att', 'atc' or 'ate'"
        )
    if draws:
        at_least(draws, _FEWEST_DRAWS, "draws")
    random_state = seed(random_state)
    if not (isinstance(timeout, int | float) and timeout > 0):
        raise EstimationError(f"timeout={timeout!r} is no time", hint="seconds, 600 for example")
    interpreter = find_python(python)
    columns = open_table(frame).columns
    what: dict[str, Any] = {
        "treatment": treatment,
        "outcome": outcome,
        "treated": treated,
        "control": control,
    }
    asked = {**what, "confounders": confounders, "graph": graph, "level": level}
    own = estimated(
        frame,
        **asked,
        method="nearest",
        estimand=estimand,
        caliper=caliper,
        replace=replace,
        random_state=random_state,
        # The peers take every row as a unit, so that is what is compared.
        cluster=NO_CLUSTER,
    )
    names = own.problem.confounders
    if not names:
        raise EstimationError(
            "there is nothing to adjust for: DoWhy and CausalML have no propensity score without a covariate",
            hint="give confounders=[...]",
        )
    settled = {**what, "confounders": list(names), "level": level, "random_state": random_state}
    settled["cluster"] = NO_CLUSTER
    replaced = own.fit.matched is not None and own.fit.matched.replace
    ours = {
        "nearest": own.result,
        "ipw": estimated(frame, method="ipw", estimand=estimand, **settled).result,
        "aipw": estimated(frame, method="aipw", estimand="ate", **settled).result,
    }
    found, scores = run_peers(
        {
            "estimand": estimand,
            "caliper": caliper,
            "replace": replaced,
            "draws": int(draws),
            "shares": list(_SHARES) if uplift else [],
            "random_state": random_state,
            "graph": None if graph is None else _graph_job(graph, columns, treatment, outcome),
        },
        {"X": own.problem.design.matrix, "treated": own.problem.treated, "outcome": own.problem.y},
        python=interpreter,
        timeout=float(timeout),
    )
    by_key = {row["key"]: row for row in found["rows"]}
    not_done = [
        f"{_METHODS.get(row['key'], row['key'].replace('_', ' '))} of {row['tool']}: {row['failed']}"
        for row in found["rows"]
        if "failed" in row
    ]
    if estimand == "ate":
        not_done.append("nearest-neighbour matching of CausalML: it matches one arm to the other, not both")
    score = own.result.propensity
    if score is None:
        raise EstimationError("our own matching gave no score", hint="give confounders that vary")
    score = score if own.rows is None else score[own.rows]
    compared = [
        _peer_row(key, by_key, ours, own.problem, score, scores, estimand, caliper, replaced)
        for key in _METHODS
        if key in by_key and "failed" not in by_key[key]
    ]
    refuters = _refuters(by_key, frame, settled, estimand, int(draws)) if draws else ()
    points, curve_not_done = _uplift(by_key, frame, settled) if uplift else ((), None)
    if curve_not_done:
        not_done.append(curve_not_done)
    shown = (*(_own_row(name, result) for name, result in ours.items()), *compared)
    warnings = dict.fromkeys(
        [
            *ours["nearest"].warnings,
            *(
                f"unexplained: {r['tool']}, {r['method']}"
                for r in compared
                if _is_unexplained(r, own.problem)
            ),
        ]
    )
    return CrossCheck(
        treatment=treatment,
        outcome=outcome,
        treated=own.result.treated,
        control=own.result.control,
        estimand=estimand,
        level=level,
        axis=f"effect on {outcome}; a point alone has no interval",
        confounders=names,
        parts=shown,
        identification=_identification(by_key, graph, treatment, outcome, names),
        refuters=refuters,
        uplift=points,
        versions=found["versions"],
        not_done=tuple(not_done),
        warnings=tuple(warnings),
        sentence=_sentence(compared, ours, own.problem, found["versions"], not_done),
    )


def _graph_job(graph: CausalGraph, columns: Sequence[str], treatment: str, outcome: str) -> dict[str, Any]:
    nodes = [n for n in graph.nodes if n not in {treatment, outcome}]
    return {
        "edges": [[parent, node] for node in graph.nodes for parent in graph.parents(node)],
        "observed": [n for n in nodes if n in set(columns) and n not in graph.unobserved],
        "treatment": treatment,
        "outcome": outcome,
    }


def _identification(
    by_key: Mapping[str, Any],
    graph: CausalGraph | None,
    treatment: str,
    outcome: str,
    names: tuple[str, ...],
) -> Check | None:
    row = by_key.get("identification")
    if graph is None or row is None or "failed" in row:
        return None
    theirs = tuple(row["backdoor"])
    verdict: Verdict = "doubtful"
    if set(theirs) == set(names):
        verdict, note = "passes", "both adjust for the same"
    elif not row["identified"]:
        note = "DoWhy finds no set to adjust for"
    else:
        try:
            graph.check_adjustment(treatment, outcome, theirs)
        except GraphError as error:
            verdict, note = "fails", f"our graph forbids DoWhy's set: {error.message}"
        else:
            note = "both sets are valid by our rules: a graph can have several, and each tool takes one"
    return Check(
        name="identification",
        verdict=verdict,
        settings={"whyprompt": names, "dowhy": theirs},
        sentence=note,
    )


def _label(tool: str, method: str, estimand: str) -> str:
    return f"{tool}: {method} ({estimand.upper()})"


def _own_row(name: str, result: EffectResult) -> Estimate:
    row = of_effect(result, _label("whyprompt", name, result.estimand))
    figures = {"tool": "whyprompt", "method": name, "estimand": result.estimand}
    return dataclasses.replace(row, figures=figures)


def _peer_row(
    key: str,
    by_key: Mapping[str, Any],
    ours: Mapping[str, EffectResult],
    problem: Problem,
    score: Floats,
    scores: Mapping[str, Floats],
    estimand: str,
    caliper: float,
    replace: bool,  # noqa: FBT001 - private, and called once
) -> Estimate:
    row = by_key[key]
    if key == "dowhy_matching":
        twin = _why.dowhy_matching(problem, score, scores[key], estimand)
    elif key == "dowhy_weighting":
        twin = _why.dowhy_weighting(problem, score, scores[key], estimand)
    elif key == "causalml_matching":
        twin = _why.causalml_matching(
            problem, score, scores["causalml"], estimand, caliper=caliper, replace=replace
        )
    else:
        twin = _why.learner(problem, key)
    base = ours[_COMPARED.get(key, "aipw")]
    value = float(row["estimate"])
    settings = None if twin.settings is None else twin.settings - base.estimate
    from_score = None if twin.both is None or twin.settings is None else twin.both - twin.settings
    left = None if twin.both is None else value - twin.both
    low, high = row.get("ci_low"), row.get("ci_high")
    return Estimate(
        label=_label(row["tool"], _METHODS[key], row["estimand"]),
        estimate=value,
        # Its interval is the normal one at 95%, whatever level was asked for here.
        std_error=None if low is None or high is None else (high - low) / (2 * 1.959963984540054),
        ci_low=low,
        ci_high=high,
        n_treated_used=row.get("n_treated_used"),
        n_control_used=row.get("n_control_used"),
        figures={
            "tool": row["tool"],
            "method": _METHODS[key],
            "estimand": row["estimand"],
            "compared_with": base.method,
            "difference": value - base.estimate,
            "from_settings": settings,
            "from_score": from_score,
            "unexplained": left,
            "tie_range": twin.ties,
            "why": (*twin.why, *(f"it warns: {text}" for text in row.get("warnings", ()))),
            "seconds": row["seconds"],
        },
    )


def _is_unexplained(row: Estimate, problem: Problem) -> bool:
    left, ties = row["unexplained"], row["tie_range"]
    if left is None or row.estimate is None:
        return False
    rounding = _ROUNDING * float(problem.y.std())
    if ties is not None:
        return not (ties[0] - rounding <= row.estimate <= ties[1] + rounding)
    return bool(abs(left) > rounding)


def _refuters(
    by_key: Mapping[str, Any],
    frame: Any,  # noqa: ANN401 - any frame
    settled: Mapping[str, Any],
    estimand: str,
    n: int,
) -> tuple[Estimate, ...]:
    options = {**settled, "method": "ipw", "estimand": estimand}
    runs: list[tuple[str, str, Callable[[], Check], str]] = [
        (
            "placebo",
            "placebo treatment",
            lambda: placebo_treatment(frame, draws=n, **options),
            "mean of placebo effects; should be zero",
        ),
        (
            "random_cause",
            "random common cause",
            lambda: random_common_cause(frame, draws=n, **options),
            "mean of estimates with a covariate of noise; should be the estimate",
        ),
        (
            "subset",
            "data subset",
            lambda: data_subset(frame, draws=n, **options),
            "mean of estimates from 80% of the rows; should be the estimate",
        ),
    ]
    out = []
    for key, name, run, note in runs:
        row = by_key.get(f"refuter_{key}", {"failed": "not run"})
        said = f"{note}; DoWhy's failed: {row['failed']}" if "failed" in row else note
        out.append(
            Estimate(
                label=name,
                by="DoWhy",
                estimate=row.get("estimate"),
                p_value=_known(row.get("p_value")),
                note=said,
            )
        )
        try:
            mine = run()
        except EstimationError as error:
            out.append(Estimate(label=name, by="whyprompt", estimate=None, note=error.message))
        else:
            mean = float(np.mean(mine.draws))
            out.append(Estimate(label=name, by="whyprompt", estimate=mean, note=mine.verdict))
    return tuple(out)


def _known(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _uplift(
    by_key: Mapping[str, Any],
    frame: Any,  # noqa: ANN401 - any frame
    settled: Mapping[str, Any],
) -> tuple[tuple[Estimate, ...], str | None]:
    row = by_key.get("uplift")
    if row is None or "failed" in row:
        return (), None
    missing = None
    curve: Sequence[Any] = [None] * len(_SHARES)
    try:
        curve = prompt_policy(heterogeneous_effects(frame, **settled)).curve
    except EstimationError as error:
        missing = f"uplift curve of ours: {error.message}"
    points = []
    for share, gain, own in zip(_SHARES, row["gain"], curve, strict=True):
        label = f"{share:.0%}"
        points.append(Estimate(label=label, at=share, by="CausalML", estimate=float(gain)))
        points.append(
            Estimate(label=label, at=share, by="whyprompt", estimate=None)
            if own is None
            else dataclasses.replace(own, label=label, at=share, by="whyprompt")
        )
    return tuple(points), missing


def _sentence(
    rows: Sequence[Estimate],
    ours: Mapping[str, EffectResult],
    problem: Problem,
    versions: Mapping[str, str],
    not_done: Sequence[str],
) -> str:
    known = (("DoWhy", "dowhy"), ("CausalML", "causalml"))
    tools = " and ".join(f"{name} {versions[key]}" for name, key in known if key in versions)
    if not rows:
        return f"{tools or 'The tools'} gave no figure: {'; '.join(not_done)}."
    base = {r.method: r for r in ours.values()}
    inside = 0
    for row in rows:
        low, high = base[row["compared_with"]].ci_low, base[row["compared_with"]].ci_high
        inside += low is not None and high is not None and low <= (row.estimate or 0.0) <= high
    traced = [r for r in rows if r["unexplained"] is not None]
    same = [r for r in traced if not _is_unexplained(r, problem)]
    far = max(rows, key=lambda r: abs(r["difference"]))
    text = (
        f"{inside} of {len(rows)} figures of {tools} lie inside whyprompt's interval for the same estimand."
        f" {len(same)} of the {len(traced)} that can be traced are whyprompt's own once it takes their score"
        f" and settings (to rounding and ties). The largest difference is {far['tool']}'s {far['method']}"
        f" ({far['estimand'].upper()}): {format_number(far.estimate)} against"
        f" {format_number(base[far['compared_with']].estimate)} by {far['compared_with']}"
    )
    if all(far[k] is not None for k in ("from_settings", "from_score", "unexplained")):
        text += (
            f"; {format_number(far['from_settings'])} of it comes from settings,"
            f" {format_number(far['from_score'])} from the score, {format_number(far['unexplained'])} from"
            " neither"
        )
    text += ". That tools agree does not show that nothing is confounded: they share every assumption."
    if not_done:
        text += f" Not done: {'; '.join(not_done)}."
    return text
