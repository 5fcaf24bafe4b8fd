"""The external level of a study: what its arms do to its outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._summary import grid
from whyprompt._words import counted, format_number, p_words
from whyprompt.answers.family import family_rows, family_words
from whyprompt.answers.missing import missing_words
from whyprompt.effects.checks.audit import audit, one_draw
from whyprompt.effects.designs.make import DESIGNS
from whyprompt.effects.effect import estimate_effect
from whyprompt.effects.gaps.bounds import missing_items, missing_rows
from whyprompt.effects.headline import headline
from whyprompt.effects.methods.make import estimand_of, options_of
from whyprompt.errors import EstimationError, StudyError
from whyprompt.graph.model import CausalGraph
from whyprompt.results import AroundResult, Estimate, Result, plain
from whyprompt.study import Contrast
from whyprompt.trials.endpoints.plan import OVERFLOW
from whyprompt.trials.outcomes.score import any_reads
from whyprompt.trials.told import asked_only, judged, lacking

if TYPE_CHECKING:
    import pandas as pd

    from whyprompt.effects.checks.audit import OneDraw
    from whyprompt.effects.result import EffectResult
    from whyprompt.study import AuditSettings, Study

_ITEM_COVARIATES = ("task_type", "difficulty", "question_tokens")
_AUDITED = ("naive", "ipw", "overlap", "aipw")


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyEffect(AroundResult):
    """What a study says about its contrast.

    Attributes
    ----------
    study, question, design : str
    contrast : Contrast
        The arms compared.
    outcome : str
        The outcome of the contrast.
    main : EffectResult
    outcomes : mapping of str to EffectResult
        The same contrast on every other outcome of the study.
    arms : mapping of str to EffectResult
        Every further arm against the same control, on the main outcome.
    spread : Result or None
        The effect in each repetition, a part each, and as `overall` their variance: how far the effect moves
        with the seeds of shots and sampling. None with one repetition.
    draw : OneDraw or None
        One confounded draw of one arm an item: naive, adjusted and true, side by side.
    audit : Result or None
        The same over many draws.
    confounders : tuple of str
        What the draw and the audit adjust for.
    frame : pandas.DataFrame
        The trial table.
    """

    study: str
    question: str
    design: str
    contrast: Contrast
    outcome: str
    main: EffectResult
    outcomes: dict[str, EffectResult]
    arms: dict[str, EffectResult]
    spread: Result | None
    draw: OneDraw | None
    audit: Result | None
    confounders: tuple[str, ...]
    frame: pd.DataFrame

    def _held(self) -> Result:
        return self.main

    def _said(self) -> str:
        return f"{headline(self.main)}\n\n{self.sentence}"

    @property
    def sentence(self) -> str:
        """The answer to the study's question at the external level, with the number of questions asked."""
        return self.main.sentence + family_words(self.family, level=self.main.level)

    @property
    def family(self) -> tuple[Estimate, ...]:
        """Every overall comparison of the study, the main one first, adjusted for their number."""
        treated = self.contrast.treated
        asked = {(self.outcome, treated): self.main}
        asked |= {(name, treated): r for name, r in self.outcomes.items()}
        asked |= {(self.outcome, name): r for name, r in self.arms.items()}
        return family_rows(asked, control=self.contrast.control)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as values that JSON can hold.

        Returns
        -------
        dict
            The main result's keys, and one key each for the further results.
        """
        return {
            "study": self.study,
            "question": self.question,
            "design": self.design,
            **self.main.to_dict(),
            "outcomes": {name: r.to_dict() for name, r in self.outcomes.items()},
            "arms": {name: r.to_dict() for name, r in self.arms.items()},
            "family": [plain(row) for row in self.family],
            "spread_over_reps": None if self.spread is None else self.spread.to_dict(),
            "confounded_draw": None if self.draw is None else self.draw.to_dict(),
            "audit": None if self.audit is None else self.audit.to_dict(),
        }

    def summary(self) -> str:
        """Return the answer as text for a terminal.

        Returns
        -------
        str
        """
        blocks = [self.question.strip(), self._said()]
        rows = self.main.parts
        if rows:
            what = "items" if self.design == "paired" else "rows"
            head = ("", what, "effect", "interval", "p (Holm)")
            blocks.append(grid(head, [_subgroup(r) for r in rows]))
        if len(self.family) > 1:
            lines = [
                (
                    row.label,
                    format_number(row.estimate),
                    _span(row.ci_low, row.ci_high),
                    _span(row.simultaneous_low, row.simultaneous_high),
                    p_words(row.p_adjusted),
                    row.by,
                )
                for row in self.family
            ]
            titles = ("all questions", "effect", "interval", "at once", "p (Holm)", "arms")
            blocks.append(grid(titles, lines))
        if self.spread is not None:
            blocks.append(self.spread.sentence)
        if self.draw is not None:
            blocks.append("If one had only logs: " + self.draw.sentence)
        if self.audit is not None:
            found = [
                (
                    row.label,
                    format_number(row.estimate),
                    format_number(row["mean_std_error"]),
                    "n/a" if row["coverage"] is None else f"{row['coverage']:.0%}",
                    f"{row['n_failed']}/{self.audit['draws']}",
                )
                for row in self.audit.parts
            ]
            blocks.append(
                f"{counted(self.audit['draws'], 'such draw')} against the truth ({self.audit['rule']}):\n"
                + grid(("method", "bias", "std. error", "coverage", "failed"), found)
            )
        if self.main.warnings:
            blocks.append("\n".join(f"note: {w}" for w in self.main.warnings))
        return "\n\n".join(blocks)


def _subgroup(row: Estimate) -> tuple[str, ...]:
    used = (row.n_treated_used or 0) + (row.n_control_used or 0) if row.n_used is None else row.n_used
    return (
        row.label,
        str(used),
        format_number(row.estimate),
        _span(row.ci_low, row.ci_high),
        p_words(row.p_adjusted),
    )


def _span(low: float | None, high: float | None) -> str:
    return "no interval" if low is None else f"{format_number(low)} to {format_number(high)}"


def adjustment(study: Study, frame: pd.DataFrame) -> tuple[tuple[str, ...], CausalGraph | None]:
    """Say what a study adjusts for where it must: its own list, its graph's, or its items' covariates.

    Columns of the trial table, and the graph where there is one. A graph that has no node ``arm``, or lets
    nothing be identified, is a `StudyError`.
    """
    graph = None if study.graph is None else CausalGraph.parse(study.graph)
    outcome = study.effect.outcome
    if graph is not None:
        for node in ("arm", outcome):
            if node not in graph.nodes:
                raise StudyError(
                    f"study {study.name!r}: the graph has no node {node!r}",
                    hint=f"its nodes are {', '.join(graph.nodes)}; the treatment is called 'arm'",
                )
    if study.effect.confounders:
        if graph is not None:
            graph.check_adjustment("arm", outcome, study.effect.confounders)
        return tuple(study.effect.confounders), graph
    if graph is not None:
        observed = [n for n in graph.nodes if n in frame.columns and n not in graph.unobserved]
        sets = graph.adjustment_sets("arm", outcome, observed=observed)
        if not sets:
            raise StudyError(
                f"study {study.name!r}: no measured columns identify the effect of 'arm' on {outcome!r}",
                hint="measure what confounds them, or run both arms on every item (design: paired)",
            )
        # In the order of the table, so that results do not depend on a set's order.
        return tuple(c for c in frame.columns if c in sets[0]), graph
    return tuple(c for c in _ITEM_COVARIATES if c in frame.columns and _varies(frame, c)), None


def _varies(frame: pd.DataFrame, column: str) -> bool:
    values = frame[column]
    return bool((values != values.iloc[0]).any())


def study_effect(study: Study, frame: pd.DataFrame) -> StudyEffect:
    """Answer a study's question at the external level.

    Parameters
    ----------
    study : Study
    frame : pandas.DataFrame
        Its trial table, from :func:`whyprompt.trials.load_trials`.

    Returns
    -------
    StudyEffect

    Raises
    ------
    StudyError
        If the study names a column that the table lacks.
    EstimationError
        If the contrast cannot be estimated.
    """
    effect, contrast = study.effect, study.contrast
    by = effect.by if effect.by in frame.columns and _varies(frame, str(effect.by)) else None
    if effect.by is not None and effect.by not in frame.columns and effect.by != "task_type":
        raise StudyError(
            f"study {study.name!r}: effect.by names {effect.by!r}, which is not a column of the trial table",
            hint=f"columns are {', '.join(frame.columns)}",
        )
    # Items run under both arms are their own controls: only the audit, which hides one, has to adjust.
    of_log = study.design_name in DESIGNS
    confounders, graph = (
        (tuple(effect.confounders), None)
        if of_log
        else ((), None)
        if study.design == "paired" and effect.audit is None
        else adjustment(study, frame)
    )

    def compare(outcome: str, against: Contrast, *, subgroups: bool = False) -> EffectResult:
        shared: dict[str, Any] = {
            "treatment": "arm",
            "outcome": outcome,
            "treated": against.treated,
            "control": against.control,
            "by": by if subgroups else None,
            "design": study.design_name,
            "level": effect.level,
        }
        found: EffectResult
        if of_log:
            shared |= {"by": None, **study.design_options}
            shared |= {} if study.design_name == "rollout" else {"cluster": sampling_column(frame)}
            if study.graph is not None and study.design_name != "rollout":
                shared["graph"] = CausalGraph.parse(study.graph)
            found = estimate_effect(frame, confounders=confounders or None, **shared)
            return found
        if study.design == "paired":
            noise = _noise(study, outcome, against)
            found = estimate_effect(frame, cluster=sampling_column(frame), noise=noise, **shared)
            return _with_missing(found, frame, outcome, against, study.design_name)
        both = frame[frame["arm"].isin([against.treated, against.control]) & frame[outcome].notna()]
        method: Any = "naive" if study.design == "randomized" else effect.method
        found = estimate_effect(
            both,
            confounders=confounders,
            graph=graph if outcome == effect.outcome else None,
            estimand=effect.estimand,
            propensity=effect.propensity,
            method=method,
            cluster=sampling_column(frame) or ("item_id" if both["item_id"].duplicated().any() else None),
            random_state=study.seeds.analysis,
            **shared,
        )
        return _with_missing(found, frame, outcome, against, study.design_name)

    def told(outcome: str, against: Contrast, *, subgroups: bool = False) -> EffectResult:
        # With what must be said of answers that the model wrote in these arms, or had no room to write.
        found, arms = compare(outcome, against, subgroups=subgroups), (against.treated, against.control)
        asked = asked_only(study, arms)
        lacks = [*lacking(study, frame, arms=arms, outcome=outcome), *judged(study, frame, outcome=outcome)]
        sentence = " ".join([found.sentence, *(f"{text}." for text in asked)])
        return replace(found, sentence=sentence, warnings=(*found.warnings, *asked, *lacks))

    main = told(effect.outcome, contrast, subgroups=True)
    main = main.judged(better=effect.better, margin=effect.margin)
    further = [Contrast(treated=a, control=contrast.control) for a in study.arms]
    ran = set(frame["arm"].unique())
    draw = checked = None
    if study.design == "paired" and effect.audit is not None:
        draw, checked = _audit(study, frame, effect.audit, confounders)
    return StudyEffect(
        study=study.name,
        question=study.question,
        design=study.design_name,
        contrast=contrast,
        outcome=effect.outcome,
        main=main,
        outcomes={
            o.name: told(o.name, contrast)
            for o in study.outcomes
            if o.name != effect.outcome and o.name in frame.columns
        },
        arms={
            c.treated: told(effect.outcome, c)
            for c in further
            if c.treated not in {contrast.treated, contrast.control} and c.treated in ran
        },
        spread=_spread(study, frame, contrast) if study.design == "paired" else None,
        draw=draw,
        audit=checked,
        confounders=confounders,
        frame=frame,
    )


def _with_missing(
    made: EffectResult, frame: pd.DataFrame, outcome: str, against: Contrast, design: str
) -> EffectResult:
    """Add what is missing by arm, why, and what bounds that leaves. Only an endpoint leaves trials out."""
    rows = frame[frame["arm"].isin([against.treated, against.control])]
    if not rows[outcome].isna().any():
        return made
    note, left = "", rows
    if "error" in rows:
        # Items that leave every arm are no gap: the effect is said to be that on the others.
        left = rows[rows["error"] != OVERFLOW]
        if n := rows["item_id"].nunique() - left["item_id"].nunique():
            have = "has a prompt" if n == 1 else "have prompts"
            note = f" {counted(n, 'item')} {have} beyond the context: the effect is that on the others."
    y, treated = left[outcome].to_numpy(dtype=float), left["arm"].to_numpy() == against.treated
    if design == "paired":
        missing = missing_items(np.unique(left["item_id"], return_inverse=True)[1], treated, y)
    else:
        missing = missing_rows(treated, y, drawn=design == "randomized")
    reasons: dict[str, dict[str, int]] = {}
    if "error" in left:
        gone = left[left[outcome].isna()].fillna({"error": "no outcome"})
        for arm, some in gone.groupby("arm")["error"]:
            reasons[str(arm)] = {str(k): int(v) for k, v in some.value_counts().items()}
    words = missing_words(missing, made, treated=against.treated, control=against.control, reasons=reasons)
    figures = {**made.figures, "missing_reasons": reasons}
    if missing is not None:
        figures["missing"] = {k: v for k, v in missing._asdict().items() if v is not None}
    # On the page the sentence stands in a part that is closed at first: what is missing is to be seen before.
    warned = tuple(text.strip().rstrip(".") for text in (note, words) if text)
    return replace(
        made, sentence=f"{made.sentence}{note}{words}", warnings=(*made.warnings, *warned), figures=figures
    )


def _noise(study: Study, outcome: str, against: Contrast) -> Literal["independent", "shared", "none"]:
    """Say what makes trials of one item and arm differ: only then can single items be spoken of."""
    arms = [study.arms[name] for name in (against.treated, against.control)]
    draws = {getattr(arm, "draw", "fixed") for arm in arms if getattr(arm, "shots", 0)}
    told = next(o for o in study.outcomes if o.name == outcome)
    # What reads no completion is a function of the prompt: nothing is sampled.
    scored = told.call is None and not any_reads([told], "completion")
    made = {getattr(arm, "reasoning", None) for arm in arms}
    if (
        scored
        and "generated" not in made
        and (study.reps == 1 or (draws <= {"fixed"} and "other" not in made))
    ):
        return "none"
    # One set of shots for all items of a task: a lucky set lifts them together.
    return "shared" if "per_rep" in draws else "independent"


def sampling_column(frame: pd.DataFrame) -> str | None:
    """Name the column of sampling units, where items share them."""
    if "cluster" not in frame.columns:
        return None
    return "cluster" if frame["cluster"].nunique() < frame["item_id"].nunique() else None


def _spread(study: Study, frame: pd.DataFrame, contrast: Contrast) -> Result | None:
    reps = sorted(int(r) for r in frame["rep"].unique())
    if len(reps) < 2:
        return None
    parts, values = [], []
    for rep in reps:
        one = estimate_effect(
            frame[frame["rep"] == rep],
            treatment="arm",
            outcome=study.effect.outcome,
            design="paired",
            treated=contrast.treated,
            control=contrast.control,
        )
        parts.append(replace(one.overall, label=f"repetition {rep}"))
        values.append(one.estimate)
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return Result(
        parts=tuple(parts),
        overall=Estimate(label="variance between repetitions", estimate=variance),
        sentence=f"By repetition (new seeds each): {', '.join(map(format_number, values))}; variance"
        f" {format_number(variance)}.",
    )


def _audit(
    study: Study, frame: pd.DataFrame, settings: AuditSettings, confounders: tuple[str, ...]
) -> tuple[OneDraw, Result | None]:
    contrast = study.contrast
    ruled = tuple(c for c in settings.assignment if c in frame.columns)
    method, options = settings.method_name, settings.method_options
    exact = options.get("exact", ())
    adjusted = tuple(dict.fromkeys([*confounders, *ruled, *exact]))
    missing = [c for c in (*settings.assignment, *exact) if c not in frame.columns]
    if missing:
        raise StudyError(
            f"study {study.name!r}: effect.audit names {missing[0]!r}, which is no column of the trial table",
            hint=f"columns are {', '.join(frame.columns)}",
        )
    shared: dict[str, Any] = {
        "outcome": study.effect.outcome,
        "treated": contrast.treated,
        "control": contrast.control,
        "confounders": adjusted,
        "rule": {**settings.assignment, "intercept": settings.intercept},
        "random_state": study.seeds.analysis,
    }
    draw = one_draw(
        frame,
        method=method,
        estimand=estimand_of(method, settings.estimand),
        level=study.effect.level,
        **shared,
        **({"tie_break": "item_id"} if "tie_break" in options_of(method) else {}) | options,
    )
    if settings.draws < 2:
        if settings.draws == 1:
            raise EstimationError("effect.audit.draws is 1; an audit needs at least two, or 0 for none")
        return draw, None
    methods = dict.fromkeys(["naive", method, *_AUDITED])
    checked = audit(
        frame,
        draws=settings.draws,
        methods=tuple(methods),
        estimand=settings.estimand,
        level=study.effect.level,
        **shared,
        **options,
    )
    return draw, checked
