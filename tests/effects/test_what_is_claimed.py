"""Whose effect it is where rows were left out, subgroups of a handful of rows, and who states what."""

import re

import numpy as np
import pandas as pd
import pytest
from effect_verbs import estimate_effects
from scipy import stats

from whyprompt import compare_arms, estimate_effect, estimate_with_imputation
from whyprompt.effects.headline import verdict
from whyprompt.effects.outlook import sure

ARM = {"treatment": "arm", "outcome": "y"}


def sparse(n=300, seed=0):
    """Treated rows at the upper end of two covariates, where controls are rare."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    arm = rng.random(n) < 1 / (1 + np.exp(-1.5 * (a + b)))
    return pd.DataFrame({"arm": arm.astype(int), "a": a, "b": b, "y": arm + a + b + rng.normal(size=n)})


@pytest.mark.parametrize(
    "options",
    [
        {"method": "cem"},
        {"method": "nearest", "caliper": 0.01},
        {"method": "optimal", "caliper": 0.01},
        {"method": "nearest", "distance": "mahalanobis", "covariate_calipers": {"a": 0.05}},
        {"method": "nearest", "discard": "both"},
        {"method": "cem", "estimand": "atc"},
        {"method": "cem", "estimand": "ate"},
    ],
)
def test_rows_that_found_no_counterpart_are_not_spoken_for(options):
    result = estimate_effect(sparse(), **ARM, confounders=["a", "b"], **options)
    used = {"att": result.n_treated_used, "atc": result.n_control_used}
    whole = {"att": result.n_treated, "atc": result.n_control}
    m = used.get(result.estimand, result.n_treated_used + result.n_control_used)
    n = whole.get(result.estimand, result.n_treated + result.n_control)
    assert m < n
    rows = {"att": "treated rows", "atc": "control rows", "ate": "rows"}[result.estimand]
    assert f"the {m} of {n} {rows} that could be matched" in result.sentence
    assert f"the average effect on the {rows}," not in result.sentence
    assert "the average effect over all rows" not in result.sentence
    (overlap,) = (a for a in result.assumptions if a.name == "overlap")
    assert f"{1 - m / n:.1%} of the rows wanted are not used" in overlap.detail
    assert overlap.status in {"doubtful", "fails"} if m < 0.9 * n else overlap.status != "fails"


def test_coarsened_exact_matching_that_loses_half_has_thin_overlap_as_a_caliper_has():
    found = {}
    rng = np.random.default_rng(1)
    frame = sparse().assign(c=rng.normal(size=300), d=rng.normal(size=300))
    for name, options in (("cem", {"method": "cem"}), ("caliper", {"method": "nearest", "caliper": 0.002})):
        result = estimate_effect(frame, **ARM, confounders=["a", "b", "c", "d"], **options)
        assert result.n_treated_used < 0.6 * result.n_treated
        found[name] = next(a for a in result.assumptions if a.name == "overlap").status
        assert (
            "rows wanted are not used" in result.sentence or "may therefore not be claimed" in result.sentence
        )
    assert found == {"cem": "doubtful", "caliper": "doubtful"}
    alike = sparse().assign(a=0.0, b=lambda d: np.arange(len(d)) % 3)
    kept = estimate_effect(alike, **ARM, confounders=["b"], method="cem")
    (overlap,) = (a for a in kept.assumptions if a.name == "overlap")
    assert (overlap.status, overlap.detail) == ("holds", "every row wanted found a counterpart")
    assert "the average effect on the treated rows, by cem" in kept.sentence


def test_weights_that_trim_speak_of_the_rows_that_are_left():
    result = estimate_effect(
        sparse(), **ARM, confounders=["a", "b"], method="ipw", estimand="ate", discard="crump"
    )
    n = result.n_treated_used + result.n_control_used
    assert f"the {n} of 300 rows that are left" in result.sentence


def test_completed_tables_say_whom_they_speak_for():
    frame = sparse()
    frame.loc[::7, "b"] = np.nan
    result = estimate_with_imputation(
        frame, **ARM, confounders=["a", "b"], method="nearest", caliper=0.05, draws=3
    )
    fewest = min(r.n_treated_used for r in result.results)
    assert f"the {fewest} of {result.overall.n_treated} treated rows that could be matched" in result.sentence


# ----------------------------------------------------------------------------------------- subgroups


def grouped(n_small, *, binary, seed=0):
    """A large group without an effect, and a small one in which every treated row succeeds."""
    rng = np.random.default_rng(seed)
    big = pd.DataFrame({"kind": "big", "arm": np.tile([0, 1], 200)})
    small = pd.DataFrame({"kind": "small", "arm": [1] * 53 + [0] * n_small})
    frame = pd.concat([big, small], ignore_index=True)
    frame["x"] = rng.normal(size=len(frame))
    if binary:
        frame["y"] = (rng.random(len(frame)) < 0.5).astype(int)
        frame.loc[frame.kind == "small", "y"] = frame.arm
        frame.loc[frame.index[frame.kind == "small"][:5], "y"] = 0
    else:
        frame["y"] = rng.normal(size=len(frame)) + 10.0 * ((frame.kind == "small") & (frame.arm == 1))
    return frame


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("method", ["naive", "overlap"])
def test_a_subgroup_with_three_rows_of_an_arm_shows_nothing(binary, method):
    frame = grouped(3, binary=binary)
    confounders = None if method == "naive" else ["x"]
    result = estimate_effect(frame, **ARM, method=method, confounders=confounders, by="kind")
    rows = {row.label: row for row in result.parts}
    assert result.few == ("kind=small",)
    assert "an arm is worth" in rows["small"].note
    assert rows["big"].note == ""
    assert "kind=small" not in result.sentence
    assert "1 subgroup of 2 has too few rows to say anything." in result.sentence
    # It does not decide whether the effects differ.
    assert result.heterogeneity == {}


@pytest.mark.parametrize("binary", [True, False])
def test_a_subgroup_with_enough_rows_shows_what_it_shows(binary):
    result = estimate_effect(grouped(30, binary=binary), **ARM, method="naive", by="kind")
    assert result.few == ()
    assert re.search(r"a difference is seen in .*kind=small", result.sentence)
    assert result.heterogeneity["kind"] < 1e-6
    assert "too few" not in result.sentence


def test_few_rows_are_a_caution_where_their_interval_fails_and_not_where_it_holds():
    """The rule's two sides by simulation: coverage of the difference of two shares of 0.9."""
    rng = np.random.default_rng(0)

    def coverage(n_few):
        held, draws, flagged = 0, 150, 0
        for _ in range(draws):
            y = (rng.random(200 + n_few) < 0.9).astype(int)
            frame = pd.DataFrame({"arm": [0] * 200 + [1] * n_few, "y": y, "g": "all"})
            result = estimate_effect(frame, **ARM, method="naive", by="g")
            row = result.part("all")
            held += row.ci_low is not None and row.ci_low <= 0 <= row.ci_high
            flagged += len(result.few)
        return held / draws, flagged / draws

    few, often = coverage(5)
    assert few < 0.85
    assert often > 0.5
    many, seldom = coverage(120)
    assert many > 0.89
    assert seldom == 0


def test_limits_that_no_difference_of_risks_can_have_are_said():
    frame = pd.DataFrame({"arm": [0] * 4 + [1] * 40, "y": [0, 0, 0, 1] + [1] * 38 + [0, 0]})
    result = estimate_effect(frame, **ARM, method="naive")
    assert result.ci_high > 1
    assert any("passes 1 or -1" in w for w in result.warnings)


# ------------------------------------------------------------------------------------ who states what


def test_nobody_is_said_to_state_what_he_did_not():
    frame = sparse()
    for options in ({"method": "naive"}, {"method": "naive", "confounders": ["a"]}, {"confounders": []}):
        result = estimate_effect(frame, **ARM, **options)
        said = next(a for a in result.assumptions if a.name == "exchangeability")
        assert "nothing but nothing" not in said.detail
        assert "as the caller states" not in said.detail
        assert said.status == "untestable"
    stated = estimate_effect(frame, **ARM, confounders=["a"], method="overlap")
    detail = next(a for a in stated.assumptions if a.name == "exchangeability").detail
    assert detail == "as the caller states, nothing but a affects both the choice of arm and the outcome"


def test_methods_have_names_that_stand_in_a_sentence():
    frame = sparse().assign(z=lambda d: d.y)
    sentences = [
        estimate_effect(frame, **ARM, design="randomized").sentence,
        compare_arms(frame, **ARM, method="naive").sentence,
        estimate_effects(frame, treatment="arm", outcomes=["y", "z"], design="randomized").sentence,
    ]
    for text in sentences:
        assert "difference of means" in text
        assert not re.search(r"\bnaive\b", text)


def test_rows_that_weights_leave_out_found_no_counterpart_and_wanted_none():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=400)
    arm = rng.random(400) < 1 / (1 + np.exp(-2.5 * hard))
    frame = pd.DataFrame({"arm": arm.astype(int), "hard": hard, "y": arm - hard + rng.normal(size=400)})
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["hard"]}
    trimmed = estimate_effect(frame, **asked, method="ipw", estimand="ate", discard="crump")
    assert "rows that are left" in trimmed.sentence
    assert "counterpart" not in trimmed.sentence
    assert "could be matched" in estimate_effect(frame, **asked, method="nearest", caliper=0.05).sentence


@pytest.mark.parametrize(
    ("n", "rises", "falls", "said"),
    [(20, 5, 0, "leaves zero out"), (30, 12, 4, "leaves zero out"), (30, 8, 1, ""), (30, 6, 4, "")],
)
def test_an_exact_p_and_the_interval_that_part_are_said_to(n, rises, falls, said):
    treated = [1] * rises + [0] * (n - rises)
    control = [0] * rises + [1] * falls + [0] * (n - rises - falls)
    frame = pd.DataFrame({"item_id": [*range(n)] * 2, "arm": ["b"] * n + ["a"] * n, "y": treated + control})
    made = estimate_effect(frame, treatment="arm", outcome="y", treated="b", control="a", design="paired")
    p = stats.binomtest(rises, rises + falls).pvalue
    apart = (made.ci_low <= 0 <= made.ci_high) != (p >= 0.05)
    assert apart == bool(said)
    assert ("these items hardly decide the sign" in made.sentence) == apart
    assert said in made.sentence
    assert (verdict(made) == "undecided") == (p >= 0.05)
    assert ("McNemar" in sure(made)) == apart
