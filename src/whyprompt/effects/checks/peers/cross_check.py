"""The same table by DoWhy, by CausalML and by us, with what explains each difference."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, seed
from whyprompt._summary import grid, reach
from whyprompt._words import format_number
from whyprompt.charts import interval_plot, uplift_plot
from whyprompt.effects.checks.peers import why as _why
from whyprompt.effects.checks.peers.peers import find_python, run_peers
from whyprompt.effects.checks.placebo import placebo_treatment
from whyprompt.effects.checks.random_cause import random_common_cause
from whyprompt.effects.checks.rerun import of_effect
from whyprompt.effects.checks.subset import data_subset
from whyprompt.effects.estimate import estimated
from whyprompt.effects.units import NO_CLUSTER
from whyprompt.effects.whom.heterogeneity import heterogeneous_effects
from whyprompt.effects.whom.policy import prompt_policy
from whyprompt.errors import EstimationError, GraphError
from whyprompt.results import Check, Estimate, Result
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
_COMPARED = {"dowhy_matching": "nearest", "dowhy_weighting": "ipw", "causalml_matching": "nearest"}
# Of the outcome's standard deviation: below this, a difference is rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class CrossCheck(Result):
    """DoWhy's and CausalML's figures beside ours.

    Attributes
    ----------
    parts : tuple of Estimate
        One tool's figure each, ours first; without an error and an interval where the tool gives none. Their
        figures, of which ours have the first three and None:

        - ``tool``, ``method`` and ``estimand``;
        - ``compared_with``, our method that estimates the same, and ``difference`` from its estimate, the sum
          of the next three;
        - ``from_settings``: what our estimate changes by when our code takes the tool's settings (or its
          model), with our score; ``from_score``: when it takes the tool's propensity score as well;
        - ``unexplained``: what is left, zero where our code with the tool's score and settings gives the
          tool's figure; with ties, the choice among rows equally near;
        - ``tie_range``: of rows equally near a tool may take any, the smallest and the largest estimate that
          it could give;
        - ``why``: the same in words, with what else a reader should know; ``seconds``, the tool's own time.
    treatment, outcome, treated, control : str
    estimand : str
    confounders : tuple of str
    identification : Check or None
        Whether the graph says the same is to be adjusted for by both; `settings` hold the two sets. None
        without a graph.
    refuters : tuple of Estimate
        Of each refutation of the weighted estimate, the mean of the refuted estimates by each tool (`by`):
        DoWhy's with its p-value, small where the refutation fails; ours with the verdict as its note.
    uplift : tuple of Estimate
        By tool (`by`), what the treated arm gains a row when a share of the rows gets it, those predicted to
        gain most first. CausalML's: arms' means compared as they are, on the rows learned from. Ours: doubly
        robust, each row ranked by rows of earlier folds.
    versions : mapping of str to str
        Of the other environment.
    not_done : tuple of str
        What failed or does not apply, with the reason.
    """

    treatment: str
    outcome: str
    treated: str
    control: str
    estimand: str
    confounders: tuple[str, ...]
    identification: Check | None
    refuters: tuple[Estimate, ...]
    uplift: tuple[Estimate, ...]
    versions: Mapping[str, str]
    not_done: tuple[str, ...]

    def _blocks(self) -> list[str]:
        rows, words = [], []
        for row in self.parts:
            name = (row["tool"], row["method"])
            apart = [row[k] for k in ("from_settings", "from_score", "unexplained")]
            rows.append(
                [
                    ": ".join(name),
                    row["estimand"].upper(),
                    format_number(row.estimate),
                    reach(row.ci_low, row.ci_high) if row.ci_low is not None else "none",
                    *("" if v is None else format_number(v) for v in apart),
                ]
            )
            if row["why"]:
                words.append(f"  {', '.join(name)}: {'; '.join(row['why'])}.")
        header = ["tool", "of", "estimate", "interval", "by settings", "by score", "left"]
        return ["\n".join([grid(header, rows), "", *words])]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        rows = [
            {"label": row.label, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
            for row in self.parts
            if row.estimate is not None
        ]
        return {"estimates": lambda: interval_plot(rows, title=self.axis), "uplift": self._uplift}

    def _uplift(self) -> Any:  # noqa: ANN401 - a chart
        if not self.uplift:
            raise EstimationError(
                "there is no uplift curve",
                hint=next((t for t in self.not_done if t.startswith("uplift")), None),
            )
        ours = {point.at: point for point in self.uplift if point.by == "whyprompt"}
        rows = [
            {
                "share": point.at,
                "CausalML": point.estimate,
                "whyprompt": ours[point.at].estimate,
                "low": ours[point.at].ci_low,
                "high": ours[point.at].ci_high,
            }
            for point in self.uplift
            if point.by == "CausalML"
        ]
        return uplift_plot(rows, title=f"gain in {self.outcome} a row")


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
    frame, treatment, outcome, confounders, graph, treated, control, level
        As in `estimate_effect`; the tools get copies of the frame.
    estimand : {"att", "atc", "ate"}, default "att"
        Of matching and weighting. CausalML's learners estimate the ATE.
    caliper : float, default 0.2
        Of our matching and CausalML's, in standard deviations of the propensity; DoWhy's has none. The means
        of the matches are compared as they are, without regression adjustment, as theirs are.
    replace : bool, optional
        Of our matching and CausalML's. Default as in `estimate_effect`.
    draws : int, default 20
        Simulations of each refuter; 0 for none.
    uplift : bool, default True
        Draw CausalML's uplift curve beside ours.
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
    settled: dict[str, Any] = {
        "treatment": treatment,
        "outcome": outcome,
        "treated": treated,
        "control": control,
        "level": level,
        "random_state": random_state,
        # The peers take every row as a unit, so that is what is compared.
        "cluster": NO_CLUSTER,
    }
    options: dict[str, Any] = {"estimand": estimand, "caliper": caliper, "replace": replace}
    # The peers compare the means of the matches, so that is what is compared.
    options["regression_adjustment"] = False
    own = estimated(frame, method="nearest", confounders=confounders, graph=graph, **options, **settled)
    names = own.problem.confounders
    if not names:
        raise EstimationError(
            "there is nothing to adjust for: DoWhy and CausalML have no propensity score without a covariate",
            hint="give confounders=[...]",
        )
    settled["confounders"] = list(names)
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
            "graph": None if graph is None else _graph_job(graph, frame, treatment, outcome),
        },
        {"X": own.problem.design.matrix, "treated": own.problem.treated, "outcome": own.problem.y},
        python=interpreter,
        timeout=float(timeout),
    )
    by_key = {row["key"]: row for row in found["rows"] if "failed" not in row}
    failed = {row["key"]: row for row in found["rows"] if "failed" in row}
    not_done = [
        f"{_METHODS.get(key, key.replace('_', ' '))} of {row['tool']}: {row['failed']}"
        for key, row in failed.items()
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
        if key in by_key
    ]
    points, curve_not_done = (
        _uplift(by_key["uplift"]["gain"], frame, settled) if "uplift" in by_key else ((), [])
    )
    not_done += curve_not_done
    unexplained = [row for row in compared if _is_unexplained(row, own.problem)]
    warnings = [f"unexplained: {row['tool']}, {row['method']}" for row in unexplained]
    return CrossCheck(
        treatment=treatment,
        outcome=outcome,
        treated=own.result.treated,
        control=own.result.control,
        estimand=estimand,
        level=level,
        axis=f"effect on {outcome}; a point alone has no interval",
        confounders=names,
        parts=(*(_own_row(name, result) for name, result in ours.items()), *compared),
        identification=_identification(by_key.get("identification"), graph, treatment, outcome, names),
        refuters=_refuters(by_key, failed, frame, settled, estimand, draws) if draws else (),
        uplift=points,
        versions=found["versions"],
        not_done=tuple(not_done),
        warnings=tuple(dict.fromkeys([*own.result.warnings, *warnings])),
        sentence=_sentence(compared, ours, own.problem, found["versions"], not_done),
    )


def _graph_job(
    graph: CausalGraph,
    frame: Any,  # noqa: ANN401 - any frame
    treatment: str,
    outcome: str,
) -> dict[str, Any]:
    known = set(open_table(frame).columns) - {treatment, outcome, *graph.unobserved}
    return {
        "edges": [[parent, node] for node in graph.nodes for parent in graph.parents(node)],
        "observed": [n for n in graph.nodes if n in known],
        "treatment": treatment,
        "outcome": outcome,
    }


def _identification(
    row: Mapping[str, Any] | None,
    graph: CausalGraph | None,
    treatment: str,
    outcome: str,
    names: tuple[str, ...],
) -> Check | None:
    if graph is None or row is None:
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


_FIGURES = (
    *("tool", "method", "estimand", "compared_with", "difference", "from_settings", "from_score"),
    *("unexplained", "tie_range", "why", "seconds"),
)


def _label(tool: str, method: str, estimand: str) -> str:
    return f"{tool}: {method} ({estimand.upper()})"


def _own_row(name: str, result: EffectResult) -> Estimate:
    row = of_effect(result, _label("whyprompt", name, result.estimand))
    figures: dict[str, Any] = {"tool": "whyprompt", "method": name, "estimand": result.estimand, "why": ()}
    return dataclasses.replace(row, figures={**dict.fromkeys(_FIGURES), **figures})


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
    if key == "causalml_matching":
        twin = _why.causalml_matching(
            problem, score, scores["causalml"], estimand, caliper=caliper, replace=replace
        )
    elif key in scores:
        tool = _why.dowhy_matching if key == "dowhy_matching" else _why.dowhy_weighting
        twin = tool(problem, score, scores[key], estimand)
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
    failed: Mapping[str, Any],
    frame: Any,  # noqa: ANN401 - any frame
    settled: Mapping[str, Any],
    estimand: str,
    draws: int,
) -> tuple[Estimate, ...]:
    options = {**settled, "method": "ipw", "estimand": estimand}
    runs: tuple[tuple[str, str, Callable[..., Check], str], ...] = (
        ("placebo", "placebo treatment", placebo_treatment, "mean of placebo effects; should be zero"),
        (
            *("random_cause", "random common cause", random_common_cause),
            "mean of estimates with a covariate of noise; should be the estimate",
        ),
        (
            *("subset", "data subset", data_subset),
            "mean of estimates from 80% of the rows; should be the estimate",
        ),
    )
    out = []
    for key, name, check, note in runs:
        row = by_key.get(f"refuter_{key}", {})
        reason = failed.get(f"refuter_{key}", {"failed": "not run"})["failed"]
        p = row.get("p_value")
        theirs = Estimate(
            label=name,
            by="DoWhy",
            estimate=row.get("estimate"),
            p_value=None if p is None or not np.isfinite(p) else float(p),
            note=note if row else f"{note}; DoWhy's failed: {reason}",
        )
        mine = Estimate(label=name, by="whyprompt", estimate=None)
        try:
            found = check(frame, draws=draws, **options)
        except EstimationError as error:
            mine = dataclasses.replace(mine, note=error.message)
        else:
            mine = dataclasses.replace(mine, estimate=float(np.mean(found.draws)), note=found.verdict)
        out += [theirs, mine]
    return tuple(out)


def _uplift(
    gains: Sequence[float],
    frame: Any,  # noqa: ANN401 - any frame
    settled: Mapping[str, Any],
) -> tuple[tuple[Estimate, ...], list[str]]:
    missing = []
    curve: Sequence[Estimate] = [Estimate(label="", estimate=None)] * len(_SHARES)
    try:
        curve = prompt_policy(heterogeneous_effects(frame, **settled)).curve
    except EstimationError as error:
        missing.append(f"uplift curve of ours: {error.message}")
    points = []
    for share, gain, own in zip(_SHARES, gains, curve, strict=True):
        label = f"{share:.0%}"
        points.append(Estimate(label=label, at=share, by="CausalML", estimate=float(gain)))
        points.append(dataclasses.replace(own, label=label, at=share, by="whyprompt"))
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
