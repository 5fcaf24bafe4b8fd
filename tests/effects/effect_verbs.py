"""The one verb, by the questions that these tests ask of it, and its methods on plain arrays."""

from __future__ import annotations

import numpy as np

from whyprompt import estimate_effect, heterogeneous_effects
from whyprompt.effects.methods.make import settle_plan
from whyprompt.effects.pipeline import compute
from whyprompt.effects.problem import Problem
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import Design
from whyprompt.stats.influence import clean_arrays
from whyprompt.stats.order import content_rank


def estimate_effects(frame, *, outcomes, **options):
    return estimate_effect(frame, outcome=outcomes, **options)


def ordinal_effect(frame, *, levels="sorted", **options):
    return estimate_effect(frame, levels=levels, **options)


def paired_effect(frame, **options):
    return estimate_effect(frame, design="paired", **{"treatment": "arm", **options})


def paired_effects(frame, *, outcomes, **options):
    return paired_effect(frame, outcome=outcomes, **options)


def paired_ordinal_effect(frame, *, levels="sorted", **options):
    return paired_effect(frame, levels=levels, **options)


def paired_heterogeneity(frame, **options):
    return heterogeneous_effects(frame, design="paired", **{"treatment": "arm", **options})


def fit_arrays(
    y,
    t,
    X,
    *,
    method="ipw",
    names=None,
    cluster=None,
    propensity=None,
    rank=None,
    estimand=None,
    level=0.95,
    std_error="auto",
    random_state=0,
    **options,
):
    """Estimate an effect from arrays: y, t (0/1) of shape (n,), X (n, p) without an intercept.

    `propensity` is an array of shape (n,), or what is asked of the score: a classifier or its name.
    """
    model = None
    if isinstance(propensity, str) or hasattr(propensity, "fit"):
        model, propensity = propensity, None
    vectors = {"outcome": np.asarray(y), "treatment": np.asarray(t)}
    if propensity is not None:
        vectors["propensity"] = np.asarray(propensity)
    matrix, columns, clean = clean_arrays(np.asarray(X), names, **vectors)
    outcome, given = clean["outcome"], clean.get("propensity")
    if given is not None and not ((given > 0) & (given < 1)).all():
        raise EstimationError("a propensity score given is not strictly between 0 and 1")
    if rank is None:
        places = content_rank(matrix, *([] if given is None else [given]), outcome)
    else:
        places = np.asarray(rank)
        if places.shape != outcome.shape or places.dtype.kind not in "iu":
            raise DataError(
                f"rank has shape {places.shape}; expected a whole number for each of {len(outcome)} rows"
            )
    plan = settle_plan(
        columns,
        method=method,
        options=options,
        estimand=estimand,
        propensity=model,
        level=level,
        std_error=std_error,
        random_state=random_state,
    )
    problem = Problem(
        outcome_name="outcome",
        treatment_name="treatment",
        treated=_indicator(clean["treatment"]),
        treated_level="1",
        control_level="0",
        y=outcome,
        confounders=columns,
        columns=dict(zip(columns, matrix.T, strict=True)),
        design=Design(build=lambda: matrix, names=columns, sources=columns),
        strata=None,
        limits=(),
        cluster=None if cluster is None else np.asarray(cluster),
        tie_rank=None,
        known_score=given,
        rank=places.astype(np.int64),
    )
    return compute(problem, plan)


def _indicator(t):
    values = np.unique(t)
    if not set(values.tolist()) <= {0.0, 1.0}:
        raise EstimationError(
            f"the treatment has values {', '.join(f'{v:g}' for v in values[:5])}; expected 0 and 1",
            hint="for many arms use compare_arms, for a dose dose_response",
        )
    if len(values) < 2:
        raise EstimationError(f"every row has treatment {values[0]:g}: one arm is empty")
    return np.asarray(t == 1.0)
