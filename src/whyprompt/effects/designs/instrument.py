"""An instrument: what moves which prompt is used, and the outcome through that alone.

A lot assigns prompts, and what is used follows it in part: a router falls back, a user opts out. Comparing
what was used is confounded by why; the assignment is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._arguments import confidence
from whyprompt._words import format_number, percent
from whyprompt.effects.caused import moves_with_arm
from whyprompt.effects.checks.balance import balance_table
from whyprompt.effects.designs.columns import (
    arm_counts,
    design_result,
    drawn,
    given_words,
    independent_units,
    read_covariates,
    read_outcome,
    read_units,
    spare_note,
)
from whyprompt.effects.measures import stated
from whyprompt.errors import DataError, EstimationError, GraphError
from whyprompt.results import Assumption
from whyprompt.stats.errors import interval, quantile
from whyprompt.stats.instruments import anderson_rubin, on_instrument, ratio_error
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.several import two_sided_p
from whyprompt.tables import arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Status
    from whyprompt.stats.instruments import Kind
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]

# Below this first-stage F the estimate leans towards the plain comparison (Staiger and Stock 1997).
_WEAK = 10.0
# What a number that is not 0/1 is read by.
_UNIT = "one unit more"
# A correlation that is rounding.
_NIL = 1e-10


def instrument_effect(
    table: Table,
    *,
    treatment: str,
    outcome: str,
    instrument: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    treated: object | None = None,
    control: object | None = None,
    cluster: str | None = None,
    level: float = 0.95,
    base_levels: Mapping[str, str] | None = None,
) -> EffectResult:
    """Estimate the effect on the rows whose arm follows an instrument, by two-stage least squares.

    Arguments and what is raised as in `estimate_effect` with ``design="instrument"``. The interval and the p
    are those of Anderson and Rubin, which hold however weak the instrument is; the standard error is that of
    2SLS.
    """
    confidence(level)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    table.require([instrument], role="instrument")
    if instrument in {treatment, outcome}:
        role = "treatment" if instrument == treatment else "outcome"
        raise EstimationError(
            f"{instrument!r} is the {role}; it cannot be the instrument as well",
            hint="name the column with what was assigned, beside the one with what was used",
        )
    confounders = _by_graph(graph, treatment, outcome, instrument, confounders, table)
    given, names = _arms(table, treatment, treated, control)
    z, high = _instrument(table, instrument, treatment, names)
    y = read_outcome(table, outcome)
    chosen, made, x, spare = read_covariates(
        table, confounders, treatment=treatment, outcome=outcome, graph=graph, base_levels=base_levels
    )
    if instrument in chosen:
        raise EstimationError(
            f"{instrument!r} is the instrument; it cannot be a confounder as well", hint="leave it out there"
        )
    used = [*chosen, instrument]
    clustered, codes, notes = read_units(
        table, cluster, treatment=treatment, outcome=outcome, covariates=used
    )
    d = given.astype(float)
    if len(y) <= x.shape[1] + 2:
        raise EstimationError(f"{len(y)} rows are too few for {x.shape[1] + 2} coefficients")
    _refuse_copy(z, d, instrument, treatment)
    found = on_instrument(y, d, z, x, codes)
    if found is None:
        raise EstimationError(
            f"instrument {instrument!r} is determined by the confounders: it has nothing of its own to move"
            " the arm with",
            hint="leave out the confounder that it is a function of",
        )
    coef, covariance, df = found
    if not covariance[1, 1] > 0 or abs(coef[1]) * z.std() <= _NIL * d.std():
        raise EstimationError(
            f"instrument {instrument!r} does not move {treatment!r} at all in these rows",
            hint="name the column that decided, in part, which arm a row got",
        )
    first_f = float(coef[1] ** 2 / covariance[1, 1])
    estimate = float(coef[0] / coef[1])
    error = ratio_error(coef, covariance)
    kind, low, top = anderson_rubin(coef, covariance, quantile(level, df))
    overall = stated(
        "overall",
        estimate,
        error,
        df,
        level=level,
        ci_low=low if kind == "interval" else -np.inf,
        ci_high=top if kind == "interval" else np.inf,
        p_value=two_sided_p(float(coef[0]), float(np.sqrt(covariance[0, 0])), df),
        **arm_counts(given),
        note=f"every effect but those between {format_number(low)} and {format_number(top)}"
        if kind == "outside"
        else "",
    )
    balance = _balance(z, made.matrix)
    usual = interval(estimate, error, level=level, df=df)
    moved = _moved(z, made.matrix, made.names, codes)
    made_of = design_result(
        overall,
        outcome,
        names,
        where=f", where the arm follows {instrument}",
        treatment=treatment,
        estimand="late",
        method="2sls",
        level=level,
        assumptions=_assumptions(instrument, chosen, first_f, moved, clustered=clustered is not None),
        warnings=(*notes, *_warnings(codes, first_f, instrument), *spare_note(spare)),
        std_error_method=f"2SLS, {'HC1' if codes is None else 'CR1 by cluster'}; interval and p of Anderson"
        " and Rubin",
        settings={"instrument": instrument} | ({} if clustered is None else {"cluster": clustered}),
        confounders=chosen,
        figures={
            "first_stage": float(coef[1]),
            "first_stage_f": first_f,
            "reduced_form": float(coef[0]),
            "wald_low": usual[0],
            "wald_high": usual[1],
            "accepted": kind,
            "balance_by_instrument": dict(zip(made.names, balance, strict=True)),
        },
        treated_rows=given,
    )
    return drawn(replace(made_of, sentence=_sentence(made_of, instrument, high, kind, (low, top))))


def _by_graph(
    graph: CausalGraph | None,
    treatment: str,
    outcome: str,
    instrument: str,
    confounders: Sequence[str] | None,
    table: Table,
) -> Sequence[str] | None:
    """Ask the graph whether it is an instrument; without confounders it says what must be adjusted for."""
    if graph is None:
        return confounders
    known = graph.instruments(treatment, outcome, observed=None, conditional=True)
    if instrument not in known:
        raise GraphError(
            f"{instrument!r} is no instrument for {treatment!r} and {outcome!r} in the graph",
            hint=f"its instruments are {', '.join(known)}" if known else "the graph has none",
        )
    wanted = tuple(sorted(known[instrument]))
    if confounders is None:
        table.require(wanted, role="confounder")
        return wanted
    lacking = [name for name in wanted if name not in confounders]
    if lacking:
        raise GraphError(
            f"{instrument!r} is an instrument only given {', '.join(wanted)}, and"
            f" {', '.join(lacking)} is not adjusted for",
            hint="leave confounders out: the graph names them",
        )
    return confounders


def _arms(
    table: Table, treatment: str, treated: object | None, control: object | None
) -> tuple[NDArray[np.bool_], tuple[str, str]]:
    levels = sorted(set(table.labels(treatment, role="treatment").tolist()))
    if len(levels) > 2:
        raise DataError(
            f"treatment column {treatment!r} has {len(levels)} levels ({', '.join(levels[:8])}): rows cannot"
            " be left out by the arm that they got, which is what the instrument is there to undo",
            hint="make it two: a column that says whether the arm in question was used",
        )
    given, *names = arms(table, treatment, treated=treated, control=control)
    return given, (names[0], names[1])


def _instrument(table: Table, instrument: str, treatment: str, names: tuple[str, str]) -> tuple[Floats, str]:
    """Read the instrument as numbers; also how its upper side is spoken of."""
    values = table.values(instrument, role="instrument")
    levels = sorted(set(values.tolist()))
    if len(levels) == 1:
        raise EstimationError(
            f"instrument {instrument!r} is constant: every row is {levels[0]!r}",
            hint=f"name a column that decided, in part, which {treatment} a row got",
        )
    if values.dtype != object:
        return values.astype(float), "1" if levels == [0.0, 1.0] else _UNIT
    if len(levels) > 2:
        raise DataError(
            f"instrument {instrument!r} has {len(levels)} levels ({', '.join(map(str, levels[:8]))}); it is a"
            " number or has two",
            hint="make a 0/1 column of the assignment in question",
        )
    top = names[0] if names[0] in levels else levels[1]
    return (values == top).astype(float), top


def _refuse_copy(z: Floats, d: Floats, instrument: str, treatment: str) -> None:
    """Refuse an instrument that is the treatment: then nothing is to be undone."""
    one = float(np.corrcoef(z, d)[0, 1])
    if len(np.unique(z)) == 2 and abs(one) > 1 - 1e-12:
        raise EstimationError(
            f"instrument {instrument!r} equals treatment {treatment!r} in every row: what was assigned was"
            " used",
            hint="design='randomized' compares the arms as they were dealt",
        )


def _halves(z: Floats) -> NDArray[np.bool_]:
    """Give the rows with more of the instrument: its upper level, or those above its median."""
    high = z > np.median(z)
    return np.asarray(high if high.any() else z == z.max(), dtype=bool)


def _balance(z: Floats, matrix: Floats) -> list[float | None]:
    if not matrix.shape[1]:
        return []
    names = [str(j) for j in range(matrix.shape[1])]
    return [row.smd_before for row in balance_table(matrix, _halves(z), np.ones(len(z)), names=names)]


def _moved(
    z: Floats, matrix: Floats, names: Sequence[str], codes: NDArray[np.intp] | None
) -> tuple[str, ...]:
    return moves_with_arm(dict(zip(names, matrix.T, strict=True)), _halves(z), codes)


def _assumptions(
    instrument: str, chosen: Sequence[str], first_f: float, moved: Sequence[str], *, clustered: bool
) -> tuple[Assumption, ...]:
    strength: Status = "holds" if first_f >= _WEAK else "doubtful"
    named = repr(instrument)
    return (
        Assumption(
            name="relevance",
            status=strength,
            check="robust F of the first stage, which is the effective F of Montiel Olea and Pflueger (2013)",
            detail=f"{named} moves the arm with F {format_number(first_f)}"
            + ("" if first_f >= _WEAK else f", below {_WEAK:g}: weak"),
        ),
        Assumption(
            name="independence",
            status="doubtful" if moved else "untestable",
            check="each covariate was compared over the instrument" if chosen else "no covariate was named",
            detail=f"covariates differ by {named} beyond chance: {', '.join(moved)}"
            if moved
            else f"{named} is taken to be as good as drawn by lot{given_words(chosen)}"
            + (
                "; no covariate differs over it beyond chance"
                if chosen
                else "; name what was known before as confounders to see whether it differs"
            ),
        ),
        Assumption(
            name="exclusion",
            status="untestable",
            check="none is possible from these data",
            detail=f"{named} is taken to move the outcome through the arm alone",
        ),
        Assumption(
            name="monotonicity",
            status="untestable",
            check="none is possible from these data",
            detail=f"{named} is taken to make no row do the opposite of what it makes others do",
        ),
        independent_units(clustered=clustered),
    )


def _warnings(codes: NDArray[np.intp] | None, first_f: float, instrument: str) -> tuple[str, ...]:
    out = [] if codes is None else list(few_clusters(int(codes.max()) + 1))
    if first_f < _WEAK:
        out.append(
            f"{instrument!r} is a weak instrument (first-stage F {format_number(first_f)}, below {_WEAK:g}):"
            " the estimate and its standard error lean towards the plain comparison; the interval of Anderson"
            " and Rubin does not"
        )
    return tuple(out)


def _sentence(made: EffectResult, instrument: str, high: str, kind: Kind, ends: tuple[float, float]) -> str:
    share, first_f = made["first_stage"], made["first_stage_f"]
    who = f"one unit more of {instrument!r}" if high == _UNIT else f"{instrument!r} at {high!r}"
    moves = (
        f"{who} {'raises' if share > 0 else 'lowers'} the share of rows under {made.treated!r} by"
        f" {format_number(abs(share))}"
    )
    span = " to ".join(format_number(end) for end in ends)
    said = {
        "interval": f"{percent(made.level)} interval {span}",
        "outside": f"{percent(made.level)} region: everything but {span}",
        "everything": f"the {percent(made.level)} region is not bounded",
    }[kind]
    text = (
        f"On the rows whose arm follows {instrument!r} ({moves}, first-stage F {format_number(first_f)}),"
        f" {made.treated!r} instead of {made.control!r} changes {made.outcome!r} by"
        f" {format_number(made.estimate)} ({said}, of Anderson and Rubin), if {instrument!r} is as good as"
        f" drawn by lot{given_words(made.confounders)}, moves {made.outcome!r} through the arm alone, and"
        " makes no row do the opposite of the others."
    )
    if kind != "interval":
        return f"{text} The instrument is too weak in these rows to bound the effect."
    if ends[0] <= 0 <= ends[1]:
        text += " The interval includes zero: the data do not decide the sign."
    moved = next(a for a in made.assumptions if a.name == "independence")
    if moved.status == "doubtful":
        text += f" That is doubtful: {moved.detail}."
    return text
