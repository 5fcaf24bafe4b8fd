"""An effect from a table with gaps: estimated in each completed table, pooled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._arguments import names
from whyprompt._progress import steps
from whyprompt._summary import figures, grid, measure_lines, reach
from whyprompt._words import counted, format_number, percent
from whyprompt.effects.checks.rerun import effect_options, estimate_or_why, of_effect
from whyprompt.effects.condition import all_there_is
from whyprompt.effects.estimate import MOVED, estimated
from whyprompt.effects.gaps.chained import impute
from whyprompt.effects.gaps.pooling import in_words, rubin
from whyprompt.effects.headline import estimand_words, method_words
from whyprompt.effects.problem import choose_confounders
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Assumption, Estimate, Result, unlisted
from whyprompt.stats.rules import SMD_LIMIT
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.gaps.chained import Imputation
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.tables import Column

MissingOutcome = Literal["raise", "exclude", "impute"]


@dataclass(frozen=True, kw_only=True)
class ImputedEffect(Result):
    """An effect pooled over completed tables; the parts are those of complete rows and of each table.

    Attributes
    ----------
    overall : Estimate
        By Rubin's rules, with the figures of `pool_estimates`; its arms' rows are those in the estimate,
        before matching.
    treatment, outcome, treated, control, estimand, method : str
        As in `EffectResult`.
    imputation : Imputation
        What was filled and how.
    results : tuple of EffectResult
        One from each completed table. Not part of `to_dict`.
    complete_case : EffectResult or None
        From the complete rows alone, for comparison; None where it cannot be had.
    n_rows, n_complete : int
        Rows of the table, and those complete in all columns used.
    n_excluded : int
        Rows with a missing outcome, used for the imputation and left out of the estimate on request.
    n_outcome_imputed : int
        Rows whose outcome was imputed on request.
    worst_balance : mapping of str to float or None
        Largest absolute standardised mean difference after adjustment over the tables, a covariate.
    measures : tuple of Estimate
        Of a 0/1 outcome: risk difference, and risk and odds ratios pooled by their logarithms.
    assumptions : tuple of Assumption
        Of the first table, the worst verdict of any table taken for each, and that of the imputation.
    """

    overall: Estimate
    treatment: str
    outcome: str
    treated: str
    control: str
    estimand: str
    method: str
    imputation: Imputation
    results: tuple[EffectResult, ...] = unlisted()
    complete_case: EffectResult | None
    n_rows: int
    n_complete: int
    n_excluded: int
    n_outcome_imputed: int
    worst_balance: Mapping[str, float | None]
    measures: tuple[Estimate, ...]

    def _blocks(self) -> list[str]:
        rules = f"Rubin's rules, {counted(self.overall['draws'], 'imputation')}"
        out = [
            figures(self.overall, level=self.level, how=rules),
            f"fraction of information missing {format_number(self.overall['fmi'], digits=2)}",
        ]
        alone = self.complete_case
        if alone is not None:
            out.append(
                f"complete rows alone ({self.n_complete} of {self.n_rows}): {format_number(alone.estimate)},"
                f" {percent(alone.level)} interval {reach(alone.ci_low, alone.ci_high)}"
            )
        out += measure_lines(self.measures)
        rows = [[name, format_number(value, digits=2)] for name, value in self.worst_balance.items()]
        if rows:
            worst = grid(["covariate", "worst after"], rows)
            out.append(f"Balance (largest standardised mean difference of any completed table):\n{worst}")
        return out


def estimate_with_imputation(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    auxiliary: Sequence[str] = (),
    missing_outcome: MissingOutcome = "raise",
    draws: int = 20,
    iterations: int = 10,
    methods: Mapping[str, str] | None = None,
    by_arm: bool = False,
    donors: int = 5,
    shift: Mapping[str, Any] | None = None,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> ImputedEffect:
    """Estimate an effect from a table with gaps in its covariates.

    Gaps are filled `draws` times by chained equations whose models hold the treatment, the outcome, the
    confounders and the auxiliary columns; `estimate_effect` runs on each completed table (score, matching and
    all), and the estimates are pooled by Rubin's rules.

    Parameters
    ----------
    frame, treatment, outcome, confounders, graph
        As in `estimate_effect`.
    auxiliary : sequence of str
        Columns that help to fill gaps and are not adjusted for.
    missing_outcome : {"raise", "exclude", "impute"}, default "raise"
        What to do with rows whose outcome is missing. ``"exclude"`` uses them to fill covariates and leaves
        them out of the estimate (von Hippel 2007); ``"impute"`` fills the outcome as well.
    draws, iterations, methods, donors, shift, random_state
        As in `impute`.
    by_arm : bool, default False
        Whether each arm has imputation models of its own, which allows for effects that differ with
        covariates.
    **options
        Of `estimate_effect`: estimand, method, caliper, ...; its `draws`, of a bootstrap, are
        `bootstrap_draws` here.

    Raises
    ------
    DataError
        If the treatment is missing anywhere, the outcome is and it was not said what to do, or a column is
        absent or of the wrong kind.
    EstimationError
        If an estimate has no standard error, or as for `estimate_effect`.
    GraphError
        If the graph forbids a confounder.

    References
    ----------
    Rubin (1987). Multiple Imputation for Nonresponse in Surveys. Wiley.
    Leyrat et al. (2019). Propensity score analysis with partially observed covariates: How should multiple
    imputation be used? Statistical Methods in Medical Research 28 (estimates are pooled, and not scores).
    Von Hippel (2007). Regression with missing Ys. Sociological Methodology 37.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(1)
    >>> arm = rng.integers(0, 2, 400)
    >>> hard = rng.normal(size=400) + arm
    >>> y = 2.0 * arm - hard + rng.normal(size=400)
    >>> hard[rng.random(400) < 0.2] = np.nan
    >>> frame = pd.DataFrame({"arm": arm, "y": y, "hard": hard})
    >>> got = estimate_with_imputation(
    ...     frame, treatment="arm", outcome="y", confounders=["hard"], method="ipw", estimand="ate", draws=5
    ... )
    >>> got.ci_low < 2.0 < got.ci_high, got.n_complete < 400
    (True, True)
    """
    if missing_outcome not in {"raise", "exclude", "impute"}:
        raise EstimationError(
            f"missing_outcome={missing_outcome!r} is not known", hint="'raise', 'exclude' or 'impute'"
        )
    if options.get("by") is not None:
        raise EstimationError(
            "by= is not made for imputed tables", hint="estimate the subgroups one by one, on their rows"
        )
    options = effect_options(options)
    auxiliary = names(auxiliary, "auxiliary")
    options["exact"] = names(options.get("exact"), "exact")
    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    chosen, _ = choose_confounders(
        table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
    )
    covariates = chosen or ()
    # Columns that the estimate reads must not have gaps it would meet: they are imputed as well, or refused.
    extra = tuple(dict.fromkeys([*auxiliary, *options.get("exact", ())]))
    used = tuple(dict.fromkeys([treatment, outcome, *covariates, *extra]))
    read = table.read(used, role="estimation")
    no_outcome = _check_gaps(read, treatment, outcome, missing_outcome)
    made = impute(
        frame,
        columns=used,
        draws=draws,
        iterations=iterations,
        methods=methods,
        by=treatment if by_arm else None,
        donors=donors,
        shift=shift,
        random_state=random_state,
    )
    options = {**options, "treatment": treatment, "outcome": outcome, "random_state": random_state}
    # A graph has given or checked the confounders; passing it on lets the assumptions say so.
    options |= {"confounders": confounders, "graph": graph}
    kept = ~no_outcome if missing_outcome == "exclude" else np.ones(len(no_outcome), dtype=bool)
    results = _each(made.frames, kept, options)
    other = _of_all(results) if options.get("estimand") is None else ""
    if other:
        # Effects on other rows are no estimates of one number.
        options["estimand"] = "ato"
        results = tuple(
            one if one.estimand == "ato" else _one(k, open_table(filled).rows(kept), options)
            for k, (one, filled) in enumerate(zip(results, made.frames, strict=True), start=1)
        )
    first = results[0]
    # What complete data would have: rows less two means. Smaller than n, so on the safe side of normal.
    df = max(min(r.n_treated_used + r.n_control_used for r in results) - 2, 1)
    pooled = rubin(
        [r.estimate for r in results],
        [r.std_error**2 for r in results if r.std_error is not None],
        df_complete=df,
        level=first.level,
    )
    whole = ~np.any([column.missing for column in read.values()], axis=0)
    # The comparison is a courtesy; that it cannot be had is itself worth a line.
    tried = estimate_or_why(table.rows(whole), **options) if whole.any() else "no row is complete"
    alone, why_not = (None, tried) if isinstance(tried, str) else (tried, "")
    named = [] if alone is None else [of_effect(alone, "complete rows")]
    named += [of_effect(one, f"table {k}") for k, one in enumerate(results, start=1)]
    found = ImputedEffect(
        sentence="",
        overall=replace(pooled, n_treated=first.n_treated, n_control=first.n_control),
        parts=tuple(named),
        level=first.level,
        axis=f"difference in {outcome}, {first.treated} minus {first.control}",
        treatment=treatment,
        outcome=outcome,
        treated=first.treated,
        control=first.control,
        estimand=first.estimand,
        method=first.method,
        imputation=made,
        results=results,
        complete_case=alone,
        n_rows=table.n_rows,
        n_complete=int(whole.sum()),
        n_excluded=int((~kept).sum()),
        n_outcome_imputed=int(no_outcome.sum()) if missing_outcome == "impute" else 0,
        worst_balance=_worst_balance(results),
        measures=_measures(results, df),
        assumptions=_assumptions(results, made),
    )
    warnings = (*((other,) if other else ()), *_warnings(found, why_not))
    return replace(found, warnings=warnings, sentence=_sentence(found))


def _of_all(results: Sequence[EffectResult]) -> str:
    """Say why the ATO is taken for all tables, "" where none of them took it."""
    many = sum(one.estimand == "ato" for one in results)
    if not many:
        return ""
    return (
        f"in {many} of {len(results)} completed tables the effect on the treated rows is hardly to be had:"
        " all are estimated on rows that could have had either arm, weighted by how far they could (ATO);"
        " estimand='att' asks for the other all the same"
    )


def _each(
    frames: Sequence[Any], kept: NDArray[np.bool_], options: Mapping[str, Any]
) -> tuple[EffectResult, ...]:
    """Estimate in each completed table, and tell who listens how many are done."""
    out: list[EffectResult] = []
    with steps(len(frames), "estimated in completed tables") as one_more:
        for k, one in enumerate(frames, start=1):
            out.append(_one(k, open_table(one).rows(kept), options))
            one_more()
    return tuple(out)


def _one(number: int, frame: Any, options: Mapping[str, Any]) -> EffectResult:  # noqa: ANN401
    try:
        found = estimated(frame, **options).result
    except EstimationError as error:
        raise EstimationError(f"completed table {number}: {error.message}", hint=error.hint) from error
    if found.std_error is None or not found.std_error > 0:
        raise EstimationError(
            f"imputation {number} has an estimate without a standard error: it cannot be pooled",
            hint="take a method with one (ipw, aipw, overlap, nearest with more pairs)",
        )
    return found


def _check_gaps(
    read: Mapping[str, Column], treatment: str, outcome: str, missing_outcome: MissingOutcome
) -> NDArray[np.bool_]:
    gaps = read[treatment].n_missing
    if gaps:
        raise DataError(
            f"treatment column {treatment!r} has {gaps} missing value(s): an arm that is not known is not"
            " imputed",
            hint="remove those rows on purpose (drop_incomplete counts and describes them)",
        )
    gone = read[outcome].missing
    if gone.any() and missing_outcome == "raise":
        raise DataError(
            f"outcome column {outcome!r} has {int(gone.sum())} missing value(s); an outcome is not imputed"
            " unasked",
            hint="missing_outcome='exclude' leaves those rows out of the estimate and counts them;"
            " 'impute' fills them as well",
        )
    if not any(column.missing.any() for column in read.values()):
        raise EstimationError(
            "no value is missing in the columns of this estimate", hint="use estimate_effect"
        )
    return gone


def _measures(results: Sequence[EffectResult], df: float) -> tuple[Estimate, ...]:
    out = []
    for k, first in enumerate(results[0].measures):
        every = [r.measures[k] for r in results if len(r.measures) > k]
        values = [(m.estimate, m.std_error) for m in every]
        if len(every) < len(results) or any(e is None or s is None or not s > 0 for e, s in values):
            none: dict[str, Any] = dict.fromkeys(("estimate", "std_error", "ci_low", "ci_high"))
            out.append(replace(first, **none, note="not defined in every completed table"))
            continue
        logs = first.label.endswith("ratio")
        q = np.array([e for e, _ in values], dtype=float)
        u = np.array([s for _, s in values], dtype=float) ** 2
        pooled = rubin(np.log(q) if logs else q, u, df_complete=df, level=results[0].level)
        three = np.array([pooled.estimate, pooled.ci_low, pooled.ci_high])
        middle, low, high = (float(v) for v in (np.exp(three) if logs else three))
        out.append(replace(first, estimate=middle, std_error=pooled.std_error, ci_low=low, ci_high=high))
    return tuple(out)


def _worst_balance(results: Sequence[EffectResult]) -> dict[str, float | None]:
    worst: dict[str, float | None] = {}
    for one in results:
        for row in one.balance:
            value = None if row.smd_after is None else abs(row.smd_after)
            before = worst.get(row.covariate, 0.0)
            worst[row.covariate] = None if value is None or before is None else max(value, before)
    return worst


def _assumptions(results: Sequence[EffectResult], made: Imputation) -> tuple[Assumption, ...]:
    severity = {"fails": 0, "doubtful": 1, "not checked": 2, "untestable": 3, "holds": 4}
    out = []
    for name in dict.fromkeys(a.name for r in results for a in r.assumptions):
        every = [a for r in results for a in r.assumptions if a.name == name]
        out.append(min(every, key=lambda a: severity[a.status]))
    out.append(
        Assumption(
            name="missing at random",
            status="untestable",
            check="none is possible from these data; see tipping_point",
            detail=f"gaps in {', '.join(map(repr, made.methods))} are filled as if, given"
            f" {', '.join(made.predictors)}, they had nothing to do with the values that are missing",
        )
    )
    return tuple(out)


def _warnings(found: ImputedEffect, why_not: str) -> tuple[str, ...]:
    out = list(found.imputation.warnings)
    m = len(found.results)
    # Why the estimand is another is said once for all tables.
    seen = Counter(w for one in found.results for w in one.warnings if not w.startswith(MOVED))
    out += [w if n == m else f"{w} (in {n} of {m} tables)" for w, n in seen.items()]
    if found.n_excluded:
        out.append(f"{found.n_excluded} rows without {found.outcome!r} are left out of the estimate")
    if found.n_outcome_imputed:
        out.append(f"{found.outcome!r} itself was imputed in {counted(found.n_outcome_imputed, 'row')}")
    fmi = found.overall["fmi"]
    if fmi > 0.5:
        out.append(
            f"{fmi:.0%} of the information on the effect is missing: the imputation model decides much"
        )
    if why_not:
        out.append(f"no estimate from complete rows alone: {why_not}")
    return tuple(out)


def _whose(results: Sequence[EffectResult]) -> str:
    """Say whose average effect it is; completed tables may leave out different rows."""
    used = [(r.n_treated_used, r.n_control_used) for r in results]
    first = results[0]
    fewest = min(used, key=sum)
    text = estimand_words(
        first.estimand,
        fewest,
        (first.n_treated, first.n_control),
        "could be matched" if first.matched is not None else "are left",
    )
    varies = (
        " in the completed table with the fewest" if len(set(used)) > 1 and str(fewest[0]) in text else ""
    )
    return text + varies


def _sentence(found: ImputedEffect) -> str:
    first, made, alone = found.results[0], found.imputation, found.complete_case
    estimate = format_number(found.estimate)
    interval = f"{percent(found.level)} interval {reach(found.ci_low, found.ci_high)}"
    unbalanced = [c for c, v in found.worst_balance.items() if v is None or v > SMD_LIMIT]
    failed = [a for a in found.assumptions if a.status == "fails"]
    arms = f"{found.treated!r} instead of {found.control!r}"
    if not first.confounders:
        start = (
            f"Rows under {found.treated!r} and under {found.control!r} differ in"
            f" {found.outcome!r} by {estimate} ({interval}); nothing was adjusted for,"
            " so this is a comparison."
        )
    elif unbalanced or failed:
        reason = (
            f"the arms still differ in {', '.join(unbalanced[:4])} in at least one completed table"
            if unbalanced
            else failed[0].detail.rstrip(".")
        )
        start = (
            f"Comparing {arms} gives a difference of {estimate} in {found.outcome!r}"
            f" ({interval}) by {method_words(found.method)} for {_whose(found.results)}, but {reason}: it may"
            " not be claimed as an effect of the arm."
        )
    else:
        start = (
            f"Under {arms}, {found.outcome!r} changes by {estimate} ({interval}),"
            f" {_whose(found.results)}, by {method_words(found.method)}, {all_there_is(first.confounders)}."
        )
    gaps = ", ".join(f"{name!r} ({n})" for name, n in made.n_missing.items())
    start += (
        f" Missing values of {gaps} were imputed {counted(made.draws, 'time')} given"
        f" {', '.join(made.predictors)}, as missing at random; they account for"
        f" {in_words(found.overall['lambda'])} of the variance. No row was dropped for a missing covariate."
    )
    if found.n_excluded:
        start += f" {found.n_excluded} rows without an outcome are left out of the estimate, as asked."
    if found.n_outcome_imputed:
        start += f" The outcome itself was imputed in {counted(found.n_outcome_imputed, 'row')}, as asked."
    if alone is not None:
        start += f" The {found.n_complete} complete rows alone give {format_number(alone.estimate)}."
    return start
