"""Matching against MatchIt 4.7.2 and Matching 4.10.8 on the LaLonde data: pairs, weights, effects."""

import numpy as np
import pytest

from whyprompt import estimate_effect
from whyprompt.effects import Nearest
from whyprompt.effects.methods.cem import match_cem
from whyprompt.effects.methods.matching import caliper_width, common_support
from whyprompt.effects.methods.nearest import match_mahalanobis, match_nearest
from whyprompt.effects.methods.subclass import match_subclass
from whyprompt.effects.methods.variance import abadie_imbens
from whyprompt.stats.order import codes

# R's figures are of the plain difference, without a caliper that was not asked for, the score as known.
PLAIN = {"method": "nearest", "regression_adjustment": False}

SPECS = {
    "nearest_largest": {},
    "nearest_smallest": {"order": "smallest"},
    "nearest_data": {"order": "data"},
    "nearest_closest": {"order": "closest"},
    "nearest_caliper02": {"caliper": 0.2},
    "nearest_caliper01_dat": {"caliper": 0.1, "order": "data"},
    "nearest_linear_cal02": {"caliper": 0.2, "distance": "logit"},
    "nearest_replace": {"replace": True},
    "nearest_replace_cal02": {"replace": True, "caliper": 0.2},
    "nearest_replace_k3": {"replace": True, "ratio": 3},
    "nearest_ratio2": {"ratio": 2},
    "nearest_atc": {"replace": True, "estimand": "atc"},
    "nearest_mahal": {"distance": "mahalanobis"},
    "nearest_mahal_cal": {
        "distance": "mahalanobis",
        "caliper": 0.25,
        "mahalanobis_on": ["age", "educ", "re74", "re75"],
    },
    "nearest_exact": {"exact": ["race"]},
    "discard_both": {"discard": "both"},
    "subclass6": {"method": "subclass", "n_strata": 6},
    "cem_default": {"method": "cem"},
}


def array_call(job, options):
    """Make the same match from arrays."""
    t = job.treated
    kinds = {"subclass": lambda: match_subclass(job.score, t, n_strata=6)}
    kinds["cem"] = lambda: match_cem(job.columns, t)
    if options.get("method") in kinds:
        return kinds[options["method"]]()
    options = dict(options)
    distance = options.pop("distance", "logistic")
    on = options.pop("mahalanobis_on", None)
    values = job.logit if distance == "logit" else job.score
    if "caliper" in options:
        options["caliper"] = caliper_width(options["caliper"], values)
    if "exact" in options:
        options["strata"] = codes([job.columns[name] for name in options.pop("exact")])
    if "discard" in options:
        options["discarded"] = common_support(job.score, t, rule=options.pop("discard"))
    if distance == "mahalanobis":
        X = job.full.matrix if on is None else np.column_stack([job.columns[name] for name in on])
        if on is not None:
            options["score"] = job.score
        return match_mahalanobis(X, t, **options)
    return match_nearest(values, t, **options)


def r_pairs(spec):
    """Pairs by focal row; MatchIt's rows are 1-based."""
    rows = {}
    for row, taken in zip(spec["pairs"]["treated_row"], spec["pairs"]["control_rows"], strict=True):
        others = taken if isinstance(taken, list) else [taken]
        rows[row - 1] = [other - 1 for other in others if other is not None]
    return rows


def our_pairs(matched, rows):
    found = {row: [] for row in rows}
    for focal, other in zip(matched.focal.tolist(), matched.other.tolist(), strict=True):
        found[focal].append(other)
    return found


def test_every_specification_is_here(matchit):
    assert set(SPECS) == set(matchit["specs"])


@pytest.mark.parametrize("name", SPECS)
def test_matchit(job, matchit, checker, name):
    spec, options = matchit["specs"][name], SPECS[name]
    matched = array_call(job, options)
    assert np.abs(matched.weights - np.asarray(spec["weights"], dtype=float)).max() < 1e-12
    if "pairs" in spec:
        wanted = r_pairs(spec)
        found = our_pairs(matched, wanted)
        if options.get("replace") and options.get("ratio", 1) > 1:
            # Within a row MatchIt lists equally near controls as its partial sort leaves them.
            wanted, found = ({k: sorted(v) for k, v in pairs.items()} for pairs in (wanted, found))
        assert found == wanted
    if "caliper_abs" in spec:
        assert matched.settings["caliper_width"] == pytest.approx(spec["caliper_abs"]["1"], rel=1e-6)
    widths = []
    if "caliper" in options:
        values = job.logit if options.get("distance") == "logit" else job.score
        widths.append((values, matched.settings["caliper_width"]))
    checker.check_matched_set(
        matched,
        job.treated,
        widths=widths,
        exact=[job.columns[c] for c in options.get("exact", ())],
        ratio=options.get("ratio", 1),
    )


@pytest.mark.parametrize("name", SPECS)
def test_matchit_through_the_front_door(job, matchit, name):
    spec, options = matchit["specs"][name], SPECS[name]
    before = job.frame.copy(deep=True)
    asked = {"treatment": "treat", "outcome": "re78", "confounders": job.covariates, **PLAIN}
    if "method" not in options:
        asked["caliper"] = "none"
    asked |= options
    result = estimate_effect(job.frame, **asked)
    assert job.frame.equals(before)
    assert result.estimate == pytest.approx(spec["att"], rel=1e-6)
    used = (result.n_treated_used, result.n_control_used)
    assert used == (spec["n_treated_matched"], spec["n_control_matched"])
    assert result.ess_control == pytest.approx(spec["ess_control"], rel=1e-9)
    if ("pairs" in spec and "lm_cluster_subclass_se_HC1" in spec) or name == "cem_default":
        by_sets = estimate_effect(job.frame, **asked, std_error="pairs")
        assert by_sets.std_error == pytest.approx(spec["lm_cluster_subclass_se_HC1"], rel=1e-9)


def test_the_tie_rule_is_stated_and_decides(job):
    """573 distinct scores in 614 rows: three rules, three effects."""
    found = {}
    for ties in ("sorted", "average", "first"):
        result = estimate_effect(
            job.frame,
            treatment="treat",
            outcome="re78",
            confounders=job.covariates,
            replace=True,
            ties=ties,
            **PLAIN,
        )
        assert result.settings["ties"] == ties
        found[ties] = result.estimate
    assert found["sorted"] == pytest.approx(1991.61527351351, rel=1e-9)
    assert found["average"] == pytest.approx(1933.39187577478, rel=1e-9)
    assert found["first"] == pytest.approx(1967.9396843, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ps_M1_att", {}),
        ("ps_M1_att_varcalc1", {}),
        ("ps_M1_ate", {"estimand": "ate"}),
        ("ps_M1_atc", {"estimand": "atc"}),
        ("ps_M4_att", {"ratio": 4}),
        ("ps_M1_att_cal02", {"caliper": 0.2}),
        ("linps_M1_att", {"logit": True}),
        ("mahal_M1_att", {"metric": "sample"}),
        ("mahal_M4_ate_biasadj", {"metric": "sample", "ratio": 4, "estimand": "ate"}),
        ("invvar_M1_att", {"metric": "diagonal"}),
        ("invvar_M4_ate_biasadj", {"metric": "diagonal", "ratio": 4, "estimand": "ate"}),
    ],
)
def test_matching_and_its_abadie_imbens_errors(job, matching_r, checker, name, options):
    wanted, options = matching_r[name], dict(options)
    t = job.treated
    values = job.logit if options.pop("logit", False) else job.score
    if "caliper" in options:
        options["caliper"] = caliper_width(options["caliper"], values)
    if "metric" in options:
        matched = match_mahalanobis(job.design.matrix, t, replace=True, ties="average", **options)
    else:
        matched = match_nearest(values, t, replace=True, ties="average", **options)
    checker.check_matched_set(matched, t, widths=[(values, options.get("caliper", np.inf))])
    pairs = {
        (i - 1, j - 1): weight
        for i, j, weight in zip(
            wanted["index_treated"], wanted["index_control"], wanted["weights"], strict=True
        )
    }
    ours = {}
    for i, j, share in zip(matched.focal.tolist(), matched.other.tolist(), matched.share, strict=True):
        ours[(i, j) if t[i] else (j, i)] = float(share)
    assert set(ours) == set(pairs)
    assert len(matched.focal) == wanted["n_index"]
    plain, _ = abadie_imbens(job.y, t, matched, neighbours=0)
    assert plain == pytest.approx(wanted["est_noadj"], rel=1e-9)
    estimate, variance = abadie_imbens(
        job.y,
        t,
        matched,
        score=values,
        neighbours=1 if "varcalc1" in name else 0,
        adjust=job.design.matrix if "biasadj" in name else None,
        # Matching counts rows that the caliper drops as rows with no effect; ours leave them out.
        unmatched="no_effect",
    )
    assert estimate == pytest.approx(wanted["est"], rel=1e-9)
    assert np.sqrt(variance) == pytest.approx(wanted["se_abadie_imbens"], rel=1e-9)
    _, left_out = abadie_imbens(job.y, t, matched, score=values, neighbours=0)
    assert (np.sqrt(left_out / variance) > 1.005) == ("cal02" in name)


@pytest.mark.parametrize(("name", "metric"), [("mahal", "sample"), ("invvar", "diagonal")])
def test_bias_correction_is_reached_from_the_effect(job, matching_r, name, metric):
    wanted = matching_r[f"{name}_M4_ate_biasadj"]
    method = Nearest(
        distance="mahalanobis",
        metric=metric,
        ratio=4,
        ties="average",
        neighbours=0,
        exact=(),
    )
    asked = {"treatment": "treat", "outcome": "re78", "confounders": job.covariates, "estimand": "ate"}
    # Ours gives every level of a text column its own column in the distance; R has one fewer.
    frame = job.frame.assign(
        race_hispan=(job.frame.race == "hispan").astype(float),
        race_white=(job.frame.race == "white").astype(float),
    )
    asked["confounders"] = [*(c for c in job.covariates if c != "race"), "race_hispan", "race_white"]
    result = estimate_effect(frame, **asked, method=method, cluster="none", std_error="abadie_imbens")
    assert result.estimate == pytest.approx(wanted["est"], rel=1e-9)
    assert result.settings["estimate_without_regression_adjustment"] == pytest.approx(
        wanted["est_noadj"], rel=1e-9
    )
    assert result.mean_treated - result.mean_control == pytest.approx(result.estimate, rel=1e-12)
    assert result.std_error == pytest.approx(wanted["se_abadie_imbens"], rel=1e-9)
    assert result.std_error_method.startswith("Abadie-Imbens (2011), bias corrected")
    # A linear outcome without noise: the correction leaves nothing of what pairs differ by.
    exact = frame.assign(re78=1000.0 * frame.treat + 10.0 * frame.age - 5.0 * frame.educ)
    for options in ({"estimand": "att"}, {"estimand": "atc"}, {"estimand": "ate"}):
        found = estimate_effect(exact, **{**asked, **options}, method="nearest", replace=True, cluster="none")
        assert found.estimate == pytest.approx(1000.0, abs=1e-6)
        assert found.matched.replace
        assert abs(found.settings["estimate_without_regression_adjustment"] - 1000.0) > 1


def test_matching_without_replacement_by_random_ties_is_not_reproduced(job, matching_r):
    """Matching breaks ties by a random number there; ours are reproducible from a seed."""
    first = match_nearest(job.score, job.treated, order="random", random_state=3)
    again = match_nearest(job.score, job.treated, order="random", random_state=3)
    other = match_nearest(job.score, job.treated, order="random", random_state=4)
    assert (first.other == again.other).all()
    assert (first.focal != other.focal).any()
    assert matching_r["ps_M1_att_noreplace"]["se_abadie_imbens"] is None
