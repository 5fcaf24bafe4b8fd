"""How far from missing at random the truth must be to overturn a conclusion."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import format_number
from whyprompt.charts import tipping_plot
from whyprompt.effects.gaps.estimate import estimate_with_imputation
from whyprompt.errors import EstimationError
from whyprompt.results import Check, Estimate
from whyprompt.tables import arms, open_table, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.gaps.estimate import ImputedEffect


def tipping_point(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    column: str | None = None,
    arm: Literal["treated", "control", "both"] = "both",
    deltas: Sequence[float] | None = None,
    missing_outcome: Literal["exclude", "impute"] | None = None,
    **options: Any,  # noqa: ANN401 - those of `estimate_with_imputation`
) -> Check:
    """Shift imputed values until the conclusion changes.

    Imputation takes values as missing at random. Here every imputed value of one column is moved by delta, in
    each round of the chains, and the effect is estimated again: how large a delta overturns the conclusion,
    and is it plausible?

    Parameters
    ----------
    frame, treatment, outcome
        As in `estimate_with_imputation`.
    column : str, optional
        Whose missing values are varied. Default: the outcome, which is then imputed.
    arm : {"treated", "control", "both"}, default "both"
        Rows in which they are varied. For an outcome, one arm moves the estimate; both may cancel.
    deltas : sequence of float, optional
        Default: 17 values from -2 to 2 standard deviations of the column (-3 to 3 in log-odds for two
        levels). 0 is added where it is not among them.
    missing_outcome : {"exclude", "impute"}, optional
        As in `estimate_with_imputation`; ``"impute"`` where the outcome itself is varied.
    **options
        Of `estimate_with_imputation`: confounders, graph, draws, method, estimand, treated, ...

    Returns
    -------
    Check
        Its parts are an estimate a delta, which is added to imputed values in units of the column, or to the
        log-odds of a two-level one; 0, which is `overall`, is missing at random. Its figures are ``column``
        and ``arm``; ``scale`` of delta (``"units"`` or ``"log-odds"``); ``n_varied``, the missing values that
        are varied; ``conclusion`` at delta 0 (``"positive"``, ``"negative"``, or ``"undecided"`` where the
        interval includes zero); and ``tipping_low`` and ``tipping_high``, the nearest delta below and above 0
        at which the conclusion is no longer that, by linear interpolation of the interval's limit, or None
        where none in the range does it.

    Raises
    ------
    EstimationError
        If the column has no gap in these rows, or has more than two levels.
    DataError
        As for `estimate_with_imputation`.

    References
    ----------
    Van Buuren (2018). Flexible Imputation of Missing Data, 2nd edition. CRC Press, section 3.8.
    Cro et al. (2020). Sensitivity analysis for clinical trials with missing continuous outcome data using
    controlled multiple imputation. Statistics in Medicine 39.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> arm, x = rng.integers(0, 2, 200), rng.normal(size=200)
    >>> y = 0.8 * arm + x + rng.normal(size=200)
    >>> y[rng.random(200) < 0.3] = np.nan
    >>> frame = pd.DataFrame({"arm": arm, "x": x, "y": y})
    >>> got = tipping_point(
    ...     frame, treatment="arm", outcome="y", arm="treated", confounders=["x"], deltas=[-4, -2, 0, 2],
    ...     method="ipw", estimand="ate", draws=3,
    ... )
    >>> got["conclusion"], -4 < got["tipping_low"] < 0, got["tipping_high"]
    ('positive', True, None)
    """
    name = outcome if column is None else column
    if arm not in {"treated", "control", "both"}:
        raise EstimationError(f"arm={arm!r} is not known", hint="'treated', 'control' or 'both'")
    table = open_table(frame)
    table.require([name], role="tipping")
    read = table.column(name, role="tipping")
    named: dict[str, Any] = {which: options.get(which) for which in ("treated", "control")}
    # Gaps in rows of other arms are filled and stay as they are: those rows are in no estimate.
    rows_used = None if None in named.values() else rows_of_two_arms(table, treatment, **named)
    chosen = np.ones(table.n_rows, dtype=bool) if rows_used is None else rows_used.copy()
    indicator, treated, control = arms(table.keep(chosen), treatment, **named)
    if arm != "both":
        chosen[chosen] = indicator if arm == "treated" else ~indicator
    varied = int((read.missing & chosen).sum())
    if not varied:
        raise EstimationError(
            f"column {name!r} has no missing value in the rows of arm={arm!r}: nothing to vary"
        )
    known = read.data[~read.missing]
    levels = set(known.tolist())
    logs = read.kind != "number" or levels <= {0.0, 1.0}
    if logs and len(levels) > 2:
        raise EstimationError(
            f"column {name!r} has {len(levels)} levels; only numbers and two levels can be shifted"
        )
    if deltas is None:
        spread = 3.0 if logs else 2 * float(known.std(ddof=1))
        grid = np.linspace(-spread, spread, 17)
    else:
        grid = _numbers(deltas)
        most = 1e6 if logs else 1e6 * max(float(np.abs(known).max()), 1.0)
        if np.abs(grid).max() > most:
            raise EstimationError(
                f"a delta of {np.abs(grid).max():g} is beyond a million times the values of {name!r}"
            )
    grid = np.unique(np.append(grid, 0.0))
    how = "impute" if name == outcome else missing_outcome
    if how is not None:
        options["missing_outcome"] = how
    made = [
        estimate_with_imputation(
            frame, treatment=treatment, outcome=outcome, shift={name: delta * chosen}, **options
        )
        for delta in grid.tolist()
    ]
    rows = tuple(_point(delta, one) for delta, one in zip(grid.tolist(), made, strict=True))
    at = int(np.flatnonzero(grid == 0)[0])
    conclusion = _verdict(rows[at])
    found = Check(
        sentence="",
        name="missing at random",
        verdict="untestable",
        overall=rows[at],
        parts=rows,
        level=made[0].level,
        axis="estimate of the effect",
        figures={
            "column": name,
            "arm": arm,
            "scale": "log-odds" if logs else "units",
            "n_varied": varied,
            "conclusion": conclusion,
            "tipping_low": _crossing(rows[at::-1], conclusion),
            "tipping_high": _crossing(rows[at:], conclusion),
        },
    )
    where = {"treated": f"under {treated!r}", "control": f"under {control!r}", "both": "in both arms"}
    return replace(
        found,
        sentence=_sentence(found, where[arm], (rows[0].at, rows[-1].at)),
        pictures={"deltas": lambda: tipping_plot(found)},
    )


def _numbers(deltas: object) -> NDArray[np.float64]:
    try:
        grid = np.ravel(np.array([] if isinstance(deltas, str) else deltas, dtype=np.float64))
    except (TypeError, ValueError):
        grid = np.empty(0)
    if not len(grid) or not np.isfinite(grid).all():
        raise EstimationError(f"deltas={deltas!r}: a list of finite numbers is needed", hint="[-1, 0, 1]")
    return np.asarray(grid, dtype=np.float64)


def _point(delta: float, found: ImputedEffect) -> Estimate:
    return Estimate(
        label=f"delta {delta:g}",
        at=delta,
        estimate=found.estimate,
        std_error=found.std_error,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        p_value=found.p_value,
        df=found.df,
    )


def _verdict(row: Estimate) -> str:
    low, high = row.ends
    return "positive" if low > 0 else "negative" if high < 0 else "undecided"


def _crossing(rows: Sequence[Estimate], conclusion: str) -> float | None:
    """First delta, going outwards, at which the verdict changes."""
    for before, after in pairwise(rows):
        if _verdict(after) == conclusion:
            continue
        # A decided verdict changes when its nearer limit passes zero, an undecided one when either does.
        for limit in {"positive": (0,), "negative": (1,)}.get(conclusion, (0, 1)):
            a, b = before.ends[limit], after.ends[limit]
            if (a > 0) != (b > 0):
                assert before.at is not None
                assert after.at is not None
                return float(before.at + (after.at - before.at) * a / (a - b))
    return None


def _sentence(found: Check, where: str, ends: tuple[float | None, float | None]) -> str:
    unit = " in log-odds" if found["scale"] == "log-odds" else ""
    base = {
        "positive": "a positive difference",
        "negative": "a negative difference",
        "undecided": "no decision on the sign",
    }[found["conclusion"]]
    words = (
        f"With the {found['n_varied']} missing values of {found['column']!r} {where} missing at random, the"
        f" estimate is {format_number(found.estimate)} ({format_number(found.ci_low)} to"
        f" {format_number(found.ci_high)}): {base}."
    )
    turns = [
        f"{format_number(abs(found[which]))}{unit} {side} than those of like rows"
        for which, side in (("tipping_low", "lower"), ("tipping_high", "higher"))
        if found[which] is not None
    ]
    if turns:
        return f"{words} That changes once they are {' or '.join(turns)}; is so much plausible?"
    return f"{words} No shift from {format_number(ends[0])} to {format_number(ends[1])}{unit} changes that."
