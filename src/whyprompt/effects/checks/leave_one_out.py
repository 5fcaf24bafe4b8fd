"""One confounder less: how much the estimate rests on each."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt._words import format_number
from whyprompt.effects.checks.rerun import Base, estimate_or_why, excludes_zero, of_effect
from whyprompt.errors import EstimationError
from whyprompt.results import Check, Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph

_SIGN = "the sign is the other"
_ZERO = "whether the interval includes zero is the other"


def leave_one_covariate_out(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> Check:
    """Estimate without each confounder in turn.

    The estimates without one are not better ones: a true confounder left out biases them. They show how much
    the answer rests on it, and so how much an unmeasured one of the same strength could do.

    Parameters
    ----------
    frame, treatment, outcome, confounders, graph, **options
        As in `refute`.

    Returns
    -------
    Check
        A part each, ``"without <confounder>"``, the most influential first; its note says whether the sign
        changes without it, or the interval then includes zero where it did not (or the reverse), or why
        nothing can be estimated without it. It is ``"doubtful"`` where there is such a change.

    Raises
    ------
    EstimationError
        If there are fewer than two confounders.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 500))
    >>> arm = (2 * a + rng.normal(size=500) > 0).astype(int)
    >>> frame = pd.DataFrame({"arm": arm, "y": arm - 3 * a + b + rng.normal(size=500), "a": a, "b": b})
    >>> found = leave_one_covariate_out(
    ...     frame, treatment="arm", outcome="y", confounders=["a", "b"], method="overlap"
    ... )
    >>> found.parts[0].label, found.parts[0].note
    ("without 'a'", 'the sign is the other')
    """
    base = Base(frame, treatment, outcome, confounders, graph, options)
    names = base.confounders or ()
    if len(names) < 2 or base.result.method == "naive":
        raise EstimationError(f"{len(names)} confounder(s) adjusted for: leaving one out needs at least two")
    whole = base.result
    rows, lost = [], []
    for name in names:
        one = estimate_or_why(frame, **base.options, confounders=[c for c in names if c != name])
        label = f"without {name!r}"
        if isinstance(one, str):
            lost.append(name)
            rows.append(Estimate(label=label, estimate=None, by=name, note=one))
            continue
        note = (
            _SIGN
            if one.estimate * whole.estimate < 0
            else _ZERO
            if excludes_zero(one) != excludes_zero(whole)
            else ""
        )
        rows.append(replace(of_effect(one, label), by=name, note=note))
    rows.sort(key=lambda row: math.inf if row.estimate is None else -abs(row.estimate - whole.estimate))
    hangs = [row for row in rows if row.estimate is not None and row.note]
    return Check(
        name="leave one covariate out",
        verdict="not checked" if len(lost) == len(rows) else "doubtful" if hangs else "passes",
        overall=of_effect(whole, "with all"),
        parts=tuple(rows),
        level=whole.level,
        n_failed=len(lost),
        sentence=_sentence(whole, rows, names, lost),
    )


def _sentence(
    whole: EffectResult, rows: Sequence[Estimate], names: Sequence[str], lost: Sequence[str]
) -> str:
    top = rows[0]
    if top.estimate is None:
        return f"Without any one of {', '.join(map(repr, lost))} nothing can be estimated."
    change = top.estimate - whole.estimate
    scaled = (
        f" ({format_number(change / whole.std_error, digits=2)} standard errors)" if whole.std_error else ""
    )
    words = (
        f"The estimate of {format_number(whole.estimate)} rests most on {top.by!r}: without it, it"
        f" would be {format_number(top.estimate)}, a change of {format_number(change)}{scaled}."
    )
    # In the order that they were given, as one names them.
    noted = {row.by: row.note for row in rows if row.estimate is not None}
    signs, others = ([n for n in names if noted.get(n) == what] for what in (_SIGN, _ZERO))
    if signs:
        words += f" Without {', '.join(map(repr, signs))} its sign would be the other."
    if others:
        words += f" Whether the interval includes zero hangs on {', '.join(map(repr, others))}."
    words += " An unmeasured confounder as strong could move it as much."
    if lost:
        words += f" It cannot be estimated without {', '.join(map(repr, lost))}."
    return words
