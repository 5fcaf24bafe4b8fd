"""The one verb, by the questions that these tests ask of it."""

from __future__ import annotations

from whyprompt import estimate_effect, heterogeneous_effects


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
