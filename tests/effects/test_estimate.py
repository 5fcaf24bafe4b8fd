"""`estimate_effect` as a whole: MatchIt's numbers, what it says, what it refuses, and what may not matter."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from whyprompt import CausalGraph, estimate_effect
from whyprompt.effects import METHODS
from whyprompt.effects.headline import headline
from whyprompt.effects.methods.make import options_of
from whyprompt.errors import DataError, EstimationError, GraphError

REFERENCE = Path(__file__).parents[1] / "reference"
COVARIATES = ["age", "educ", "race", "married", "nodegree", "re74", "re75"]


@pytest.fixture(scope="module")
def lalonde():
    return pd.read_csv(REFERENCE / "lalonde.csv")


@pytest.fixture(scope="module")
def matchit():
    return json.loads((REFERENCE / "matchit_lalonde.json").read_text())["specs"]


def effect(frame, **options):
    options = {"treatment": "treat", "outcome": "re78", "confounders": COVARIATES, **options}
    return estimate_effect(frame, **options)


def drawn(seed=0, n=300):
    """Harder items get the arm more often, and a worse score."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    size = rng.normal(size=n)
    arm = (rng.random(n) < 1 / (1 + np.exp(-0.8 * hard + 0.3 * size))).astype(int)
    return pd.DataFrame(
        {
            "id": [f"q{i:04d}" for i in range(n)],
            "arm": arm,
            "hard": hard,
            "size": size,
            "kind": rng.choice(["a", "b"], n),
            "item": np.arange(n) // 2,
            "y": 1.0 * arm - hard + 0.5 * size + rng.normal(size=n),
        }
    )


def arm_effect(frame, **options):
    options = {"treatment": "arm", "outcome": "y", "confounders": ["hard", "size"], **options}
    return estimate_effect(frame, **options)


# --------------------------------------------------------------------------------------- R's numbers

SPECIFICATIONS = {
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
    "nearest_atc": {"estimand": "atc", "replace": True},
    "nearest_mahal": {"distance": "mahalanobis"},
    "nearest_mahal_cal": {
        "distance": "mahalanobis", "mahalanobis_on": ["age", "educ", "re74", "re75"], "caliper": 0.25,
    },
    "nearest_exact": {"exact": ["race"]},
    "subclass6": {"method": "subclass"},
    "cem_default": {"method": "cem"},
    "discard_both": {"discard": "both"},
}  # fmt: skip


def test_every_specification_of_the_reference_is_here(matchit):
    assert set(SPECIFICATIONS) == set(matchit)


@pytest.mark.parametrize("key", SPECIFICATIONS)
def test_matchits_effects_rows_and_errors(lalonde, matchit, key):
    options = {"regression_adjustment": False, "std_error": "pairs", **SPECIFICATIONS[key]}
    other = "method" in options
    if not other:
        options = {"method": "nearest", "caliper": "none", **options}
    if "pairs" not in matchit[key] or options.get("replace") or other:
        del options["std_error"]
    result, wanted = effect(lalonde, **options), matchit[key]
    assert result.estimate == pytest.approx(wanted["att"], abs=1e-6)
    assert (result.n_treated, result.n_control) == (185, 429)
    assert result.n_treated_used == wanted["n_treated_matched"]
    assert result.n_control_used == wanted["n_control_matched"]
    assert result.ess_control == pytest.approx(wanted["ess_control"], rel=1e-9)
    assert result.weights == pytest.approx(np.array(wanted["weights"], dtype=float), abs=1e-9)
    assert result.std_error_method.startswith("pair-cluster-robust") is (
        {"pairs", "lm_cluster_subclass_se_HC1"} <= wanted.keys()
    )
    if result.std_error_method.startswith("pair-cluster-robust"):
        assert result.std_error == pytest.approx(wanted["lm_cluster_subclass_se_HC1"], rel=1e-4)
        assert result.df == wanted["n_treated_matched"] - 1
        q = stats.t.ppf(0.975, result.df)
        assert result.ci_high == pytest.approx(result.estimate + q * result.std_error, rel=1e-9)
        assert result.p_value == pytest.approx(
            2 * stats.t.sf(abs(result.estimate / result.std_error), result.df), rel=1e-9
        )
    assert result.mean_treated - result.mean_control == pytest.approx(result.estimate, rel=1e-9)


def test_the_plain_difference_is_welchs(lalonde):
    result = effect(lalonde, method="naive")
    a, b = (lalonde.re78[lalonde.treat == k] for k in (1, 0))
    oracle = stats.ttest_ind(a, b, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert result.estimate == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    assert (result.ci_low, result.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-3)
    assert result.p_value == pytest.approx(oracle.pvalue, rel=1e-3)
    assert result.method == "naive"
    assert result.confounders == ()


def test_with_many_clusters_the_plain_difference_is_all_but_statsmodels_cr1():
    frame = drawn()
    result = arm_effect(frame, method="naive", cluster="item")
    oracle = sm.OLS(frame.y, sm.add_constant(frame.arm)).fit(
        cov_type="cluster", cov_kwds={"groups": frame["item"]}
    )
    assert result.std_error == pytest.approx(oracle.bse["arm"], rel=0.003)
    assert 100 < result.df < 149


# -------------------------------------------------------------------------- what may not matter

ALL = [m for m in METHODS if m != "naive"]


def options_for(method):
    return {"estimand": "ato"} if method == "overlap" else {}


@pytest.mark.parametrize("method", ALL)
def test_any_frame_gives_the_same(method):
    frame = drawn()
    base = arm_effect(frame, method=method, **options_for(method))
    again = arm_effect(pa.Table.from_pandas(frame), method=method, **options_for(method))
    assert again.to_dict() == base.to_dict()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([m for m in ALL if m != "aipw"]))
def test_order_and_index_and_coding_of_the_arm_change_nothing(seed, method):
    """AIPW is left out: its folds are drawn by row."""
    frame = drawn(seed % 7)
    options = {"method": method, **options_for(method)}
    if "tie_break" in options_of(method):
        options["tie_break"] = "id"
    base = arm_effect(frame, **options)
    mixed = frame.sample(frac=1.0, random_state=seed).set_index(np.zeros(len(frame), dtype=int))
    before = mixed.copy()
    again = arm_effect(mixed, **options)
    pd.testing.assert_frame_equal(mixed, before)
    assert again.estimate == pytest.approx(base.estimate, rel=1e-7, abs=1e-10)
    assert again.std_error == pytest.approx(base.std_error, rel=1e-6)
    where = np.argsort(mixed["id"].to_numpy())
    assert again.weights[where] == pytest.approx(base.weights, abs=1e-7)
    named = frame.assign(arm=np.where(frame.arm == 1, "cot", "direct"))
    text = arm_effect(named, treated="cot", **options)
    assert text.estimate == base.estimate
    assert (text.treated, text.control) == ("cot", "direct")
    boolean = arm_effect(frame.assign(arm=frame.arm == 1), **options)
    assert boolean.estimate == base.estimate


@pytest.mark.parametrize("method", [m for m in METHODS if m not in {"overlap", "aipw", "subclass"}])
def test_the_att_and_the_atc_are_each_other_with_the_arms_exchanged(method):
    """AIPW draws folds by arm; a subclass includes its upper end, which turns over with the score."""
    frame = drawn()
    there = arm_effect(frame, method=method, estimand="att")
    back = arm_effect(frame, method=method, estimand="atc", treated=0)
    assert back.estimate == pytest.approx(-there.estimate, rel=1e-6, abs=1e-9)
    assert (back.n_treated_used, back.n_control_used) == (there.n_control_used, there.n_treated_used)


def test_two_named_arms_of_three_put_the_others_aside():
    frame = drawn(n=400)
    frame["arm"] = np.where(np.arange(400) % 4 == 0, "few_shot", np.where(frame.arm == 1, "cot", "direct"))
    two = frame[frame.arm != "few_shot"]
    rows = (frame.arm != "few_shot").to_numpy()
    matching = {"method": "nearest", "caliper": 0.2}
    quick = {"method": "aipw", "propensity": "logit", "outcome_model": "linear", "splits": 1}
    for options in (matching, quick, {"method": "ipw"}, {"method": "subclass"}):
        whole = arm_effect(frame, treated="cot", control="direct", **options)
        alone = arm_effect(two, treated="cot", **options)
        assert (whole.estimate, whole.std_error) == (alone.estimate, alone.std_error)
        assert len(whole.weights) == 400
        assert (whole.weights[~rows] == 0).all()
        assert whole.weights[rows].tolist() == alone.weights.tolist()
        assert np.isnan(whole.propensity[~rows]).all()
        assert (whole.treated_rows == (frame.arm == "cot")).all()
        assert "100 rows of other arms are put aside" in whole.warnings
    matched = arm_effect(frame, treated="cot", control="direct", **matching).matched
    assert set(frame.arm.iloc[matched.focal]) == {"cot"}
    assert set(frame.arm.iloc[matched.other]) == {"direct"}


# --------------------------------------------------------------------------------- what is reported


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reports_all_its_parts(method):
    frame = drawn()
    result = arm_effect(frame, method=method)
    shown = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert shown["estimate"] == result.estimate
    assert result.n_treated == int((frame.arm == 1).sum())
    assert result.n_treated_used == int((result.weights[frame.arm == 1] > 0).sum())
    assert result.n_control_used == int((result.weights[frame.arm == 0] > 0).sum())
    assert [row.covariate for row in result.balance] == ["hard", "size"]
    assert [row.smd_before for row in result.balance] != [0.0, 0.0]
    names = [a.name for a in result.assumptions]
    assert names[0] == "exchangeability"
    assert {"balance", "no interference", "independent units"} <= set(names)
    assert len(result.to_frame()) == 1
    assert len(result.balance_frame()) == 2
    assert str(result) == f"{headline(result)}\n\n{result.sentence}"
    assert "'cot'" not in result.sentence


def test_every_kind_of_plot_is_drawn_or_refused():
    frame = drawn().assign(y=lambda d: (d.y > 0).astype(int))
    result = arm_effect(frame, method="ipw", by="kind")
    for kind in ("balance", "overlap", "effect"):
        assert "description" in result.plot(kind).to_dict()
    with pytest.raises(EstimationError, match="'pie' is not known"):
        result.plot("pie")
    with pytest.raises(EstimationError, match="no propensity score to draw"):
        arm_effect(frame, method="cem").plot("overlap")
    with pytest.raises(EstimationError, match="nothing was adjusted for"):
        arm_effect(frame, confounders=None, method="naive").plot("balance")
    assert [m.label for m in result.measures] == ["risk difference", "risk ratio", "odds ratio"]
    assert [part.by for part in result.parts] == ["kind"] * len(result.parts)
    assert result.to_frame().label.tolist() == ["overall", *(part.label for part in result.parts)]


def test_a_balanced_estimate_is_an_effect_under_its_condition():
    result = arm_effect(drawn(n=2000), method="ipw", estimand="ate")
    assert result.sentence.startswith("Under '1' instead of '0', 'y' changes by")
    assert "if hard and size are all that affects both the choice of arm and the outcome" in result.sentence
    wide = drawn(n=2000).assign(**{f"x{k}": np.random.default_rng(k).normal(size=2000) for k in range(58)})
    many = arm_effect(wide, confounders=["hard", *(f"x{k}" for k in range(58))], method="ipw", estimand="ate")
    assert "if hard, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9 and 48 more are all that" in many.sentence
    assert len(many.confounders) == 59
    lot = drawn(n=2000).assign(arm=np.random.default_rng(7).integers(0, 2, 2000))
    drawn_arm = arm_effect(lot, method="ipw", estimand="ate", design="randomized")
    assert "since the arms were randomised" in drawn_arm.sentence
    assert {a.name: a.status for a in drawn_arm.assumptions}["exchangeability"] == "holds"


def test_imbalance_and_missing_overlap_forbid_the_claim(lalonde):
    crude = effect(lalonde, method="nearest", regression_adjustment=False)
    assert "may therefore not be claimed as an effect" in crude.sentence
    assert "Running both arms on the same items or randomising would settle it" in crude.sentence
    assert any(w.startswith("balance was not reached") for w in crude.warnings)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-2, 1, 150), rng.normal(2, 1, 150)])
    apart = pd.DataFrame({"arm": np.repeat([0, 1], 150), "hard": x, "y": x + rng.normal(size=300)})
    result = arm_effect(apart, confounders=["hard"], method="ipw")
    assert {a.name: a.status for a in result.assumptions}["overlap"] == "fails"
    assert "lie beyond the other arm's scores" in result.sentence
    assert "may therefore not be claimed" in result.sentence


def test_rows_left_out_are_said(lalonde):
    result = effect(lalonde, method="nearest", caliper=0.2)
    assert "72 of 185 '1' rows are not used" in " ".join(result.warnings)
    assert "113 of 185 '1' rows and 113 of 429 '0' rows are used" in result.sentence
    trimmed = effect(lalonde, method="nearest", discard="both")
    assert trimmed.settings["n_discarded"] > 0
    assert any("put aside" in a.detail for a in trimmed.assumptions if a.name == "overlap")


def test_nothing_adjusted_for_is_a_comparison():
    frame = drawn()
    result = arm_effect(frame, confounders=None, method="naive")
    assert "This is a comparison and not an effect" in result.sentence
    empty = arm_effect(frame, confounders=[])
    assert empty.method == "naive"
    assert "nothing was adjusted for" in empty.warnings


def test_ties_are_said_unless_rows_are_identified(lalonde):
    assert any("follows the order of the table" in w for w in effect(lalonde, method="nearest").warnings)
    named = effect(lalonde.assign(row=np.arange(len(lalonde))), method="nearest", tie_break="row")
    assert not any("follows the order" in w for w in named.warnings)


def test_a_copied_column_changes_nothing_and_is_said():
    frame = drawn().assign(again=lambda d: 2 * d.hard + 1, flat=1.0)
    for method in ("ipw", "nearest", "overlap", "entropy"):
        base = arm_effect(frame, method=method)
        more = arm_effect(frame, method=method, confounders=["hard", "size", "again", "flat"])
        assert more.estimate == pytest.approx(base.estimate, rel=1e-7)
        assert more.std_error == pytest.approx(base.std_error, rel=1e-6)
        said = " ".join(more.warnings)
        assert "left out of the adjustment as constant or a copy of others: again, flat" in said


def test_a_small_binary_sample_is_said():
    frame = drawn(n=40).assign(y=lambda d: (d.y > 0).astype(int))
    assert any("fewer than 30 rows" in w for w in arm_effect(frame, method="ipw").warnings)


# ----------------------------------------------------------------------------------- the graph


def test_a_graph_gives_the_smallest_set_in_the_table():
    frame = drawn()
    graph = CausalGraph.parse("hard, size -> arm; hard, size -> y; arm -> y; arm -> prompt_tokens")
    result = arm_effect(frame, confounders=None, graph=graph, method="ipw")
    assert result.confounders == ("hard", "size")
    assert result.estimate == arm_effect(frame, method="ipw").estimate
    statuses = {a.name: a.status for a in result.assumptions}
    assert statuses["no post-treatment adjustment"] == "holds"
    free = CausalGraph.parse("arm -> y; hard -> y")
    alone = arm_effect(frame, confounders=None, graph=free, method="ipw")
    assert alone.method == "naive"
    assert "if the graph is right that nothing confounds the two" in alone.sentence


FORBIDDEN = [
    ("hard -> arm; hard -> y; arm -> size -> y", ["hard", "size"], "arm -> size -> y"),
    ("hard -> arm; hard -> y; arm -> y; arm -> size", ["hard", "size"], "arm -> size"),
    ("hard -> arm; hard -> y; arm -> y; y -> size", ["hard", "size"], "y -> size"),
    ("hard -> arm, y; arm -> y; arm <-> size; size <-> y", ["hard", "size"], "arm <-> size <-> y"),
    ("hard -> arm; hard -> y; size -> arm; size -> y; arm -> y", ["hard"], "arm <- size -> y"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "confounders", "path"), FORBIDDEN)
def test_the_graph_forbids_with_the_path(text, confounders, path):
    with pytest.raises(GraphError) as error:
        arm_effect(drawn(), graph=CausalGraph.parse(text), confounders=confounders)
    assert path in str(error.value)


def test_without_an_adjustment_set_it_says_what_would_help():
    frame = drawn()
    hidden = CausalGraph.parse("u -> arm; u -> y; arm -> y; u [latent]")
    with pytest.raises(EstimationError, match="no set of columns") as error:
        arm_effect(frame, confounders=None, graph=hidden)
    assert "randomise the arm, or run both arms on the same items" in str(error.value)
    absent = CausalGraph.parse("motive -> arm; motive -> y; arm -> y")
    with pytest.raises(EstimationError, match="collect motive"):
        arm_effect(frame, confounders=None, graph=absent)


@pytest.mark.parametrize("column", ["prompt_tokens", "completion_chars", "latency_ms", "cost", "answer"])
def test_columns_that_an_arm_causes_are_refused_everywhere_unless_a_graph_has_them(column):
    frame = drawn().assign(**{column: np.arange(300.0) % 7})
    for options in (
        {"confounders": ["hard", column]},
        {"method": "nearest", "exact": [column]},
        {"method": "nearest", "covariate_calipers": {column: 1.0}},
        {"by": column},
    ):
        with pytest.raises(EstimationError, match=f"'{column}' cannot be a confounder"):
            arm_effect(frame, **options)
    for graph, options in (
        (f"arm -> {column} -> y; arm -> y; hard -> y", {"method": "nearest", "exact": [column]}),
        (f"arm -> {column} -> y; arm -> y; hard -> y", {"by": column}),
    ):
        with pytest.raises(
            EstimationError, match=f"'{column}' cannot be a confounder: it is caused by 'arm'"
        ):
            arm_effect(frame, confounders=["hard"], graph=CausalGraph.parse(graph), **options)
    graph = CausalGraph.parse(f"{column} -> arm; {column} -> y; arm -> y")
    result = arm_effect(frame, confounders=None, graph=graph, method="ipw")
    assert result.confounders == (column,)
    (said,) = (a for a in result.assumptions if a.name == "no post-treatment adjustment")
    assert said.status == "doubtful"
    assert f"{column!r} is not caused by the arm as the graph has it" in said.detail


# ------------------------------------------------------------------------------------ bad input

NEAREST = {"method": "nearest"}
AROUND_KIND = {"distance": "mahalanobis", "mahalanobis_on": ["kind"]}


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"arm": 1}, {}, EstimationError, "constant: every row is '1'"),
        ({"arm": [1] + [0] * 299}, {}, EstimationError, "arm '1' of treatment column 'arm' has one row"),
        ({"arm": [0] + [1] * 299}, {}, EstimationError, "arm '0' of treatment column 'arm' has one row"),
        ({}, {"treated": 7}, EstimationError, "has the level '7': that arm is empty"),
        ({}, {"treated": 1, "control": 1}, EstimationError, "both '1'"),
        ({"arm": ["a", "b", "c"] * 100}, {}, DataError, "has 3 levels"),
        ({"arm": ["a", "b", "c"] * 100}, {"treated": "a", "control": "z"}, EstimationError, "arm is empty"),
        ({"hard": np.nan}, {}, DataError, "'hard' has 300 missing"),
        ({"y": np.nan}, {}, DataError, "'y' has 300 missing"),
        ({"hard": np.inf}, {}, DataError, "'hard' has 300 infinite"),
        ({"y": "right"}, {}, DataError, "'y' is text"),
        ({}, {"confounders": ["hard", "hard"]}, EstimationError, "named twice"),
        ({}, {"confounders": "hard"}, EstimationError, "a list of columns is needed"),
        ({}, {"confounders": ["arm"]}, EstimationError, "'arm' is the treatment"),
        ({}, {"confounders": ["y"]}, EstimationError, "'y' is the outcome"),
        ({}, {"confounders": ["hrad"]}, DataError, "did you mean 'hard'"),
        ({}, {"confounders": ["id"]}, EstimationError, "'id' has 300 levels"),
        ({}, {"confounders": None}, EstimationError, "needs to know what to adjust for"),
        ({}, {"outcome": "arm"}, EstimationError, "both the treatment and the outcome"),
        ({}, {"method": "psm"}, EstimationError, "method 'psm' is not known"),
        ({}, {"estimand": "late"}, EstimationError, "estimand 'late'"),
        ({}, NEAREST | {"estimand": "ato"}, EstimationError, "overlap weights"),
        ({}, {"design": "paired"}, EstimationError, "no meaning with design='paired'"),
        ({}, {"level": 95}, EstimationError, "level is 95"),
        ({}, {"std_error": "jackknife"}, EstimationError, "'jackknife' is not known"),
        ({}, {"caliper": 0.1, "method": "ipw"}, EstimationError, "no meaning for method 'ipw'"),
        ({}, NEAREST | {"caliper": -0.1}, EstimationError, "caliper"),
        ({}, NEAREST | {"caliper_unit": "percent"}, EstimationError, "'percent'"),
        ({}, NEAREST | {"covariate_calipers": {"hard": 0}}, EstimationError, "caliper on 'hard' is 0"),
        ({}, NEAREST | {"distance": "euclid"}, EstimationError, "distance 'euclid'"),
        ({}, NEAREST | {"mahalanobis_on": ["hard"]}, EstimationError, "distance='mahalanobis'"),
        ({}, NEAREST | AROUND_KIND, EstimationError, "not a confounder"),
        ({}, {"discard": "some"}, EstimationError, "some"),
        ({}, {"denominator": "mine"}, EstimationError, "mine"),
        ({}, NEAREST | {"tie_break": "item"}, DataError, "does not identify rows"),
        ({}, {"propensity": "hard"}, DataError, "strictly between 0 and 1"),
        ({}, NEAREST | {"replace": True, "std_error": "bootstrap"}, EstimationError, "and Imbens 2008"),
        ({}, {"method": "subclass", "std_error": "abadie_imbens"}, EstimationError, "leave std_error='auto'"),
        ({}, {"method": "ipw", "std_error": "pairs"}, EstimationError, "is for matching"),
        ({}, {"base_levels": {"kind": "z"}, "confounders": ["kind", "hard"]}, DataError, "z"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, options, error, message):
    with pytest.raises(error, match=message):
        arm_effect(drawn().assign(**change), **options)


@pytest.mark.parametrize(
    "method", ["nearest", "ipw", "overlap", "aipw", "subclass", "kernel", "optimal", "full"]
)
def test_separated_scores_are_refused_by_name(method):
    frame = drawn()
    frame["hard"] = np.where(frame.arm == 1, 5.0, -5.0) + 0.1 * frame.hard
    options = {"propensity": "logit"} if method == "aipw" else {}
    with pytest.raises(EstimationError, match="hard predicts the arm without error"):
        arm_effect(frame, method=method, **options)


def test_where_few_treated_rows_have_a_counterpart_the_effect_is_that_where_both_arms_occur():
    frame = drawn(n=180).assign(hard=lambda d: d.hard + 1.5 * d.arm)
    frame["y"] = 1.0 * frame.arm - frame.hard + np.random.default_rng(5).normal(size=180)
    result = arm_effect(frame)
    assert (result.method, result.estimand) == ("aipw", "ato")
    assert {a.name: a.status for a in result.assumptions}["overlap"] != "fails"
    (said,) = (w for w in result.warnings if w.startswith("the effect on the treated rows cannot be had"))
    assert "estimand='att'" in said
    assert "on the rows where the arms overlap" in result.sentence
    assert result.ci_low < 1.0 < result.ci_high
    plain = {"propensity": "logit", "outcome_model": "linear", "splits": 1}
    for asked in ({"estimand": "att"}, {"method": "aipw", **plain}):
        named = arm_effect(frame, **asked)
        assert named.estimand == "att"
        assert {a.name: a.status for a in named.assumptions}["overlap"] == "fails"
        assert "may therefore not be claimed as an effect" in named.sentence


def test_a_separated_covariate_cannot_be_balanced_by_entropy():
    frame = drawn()
    frame["hard"] = np.where(frame.arm == 1, 5.0, -5.0) + 0.1 * frame.hard
    with pytest.raises(EstimationError, match="no weights balance 'hard'"):
        arm_effect(frame, method="entropy")


def test_a_frame_is_needed():
    with pytest.raises(DataError, match="expected a data frame, got dict"):
        arm_effect({"arm": [0, 1]})
    with pytest.raises(DataError, match="no rows"):
        arm_effect(drawn().iloc[:0])
    twice = pd.concat([drawn(), drawn()[["hard"]]], axis=1)
    with pytest.raises(DataError, match="more than one column named 'hard'"):
        arm_effect(twice)


def test_chance_imbalance_does_not_unmake_a_randomised_effect():
    import numpy as np
    import pandas as pd

    # Eight rows, half of them treated at random: the covariate differs by far more than 0.1.
    frame = pd.DataFrame(
        {"arm": [0, 1] * 4, "x": [0.0, 3.0, 1.0, 2.0, 0.5, 4.0, 1.5, 2.5], "y": np.arange(8.0)}
    )
    options = {"treatment": "arm", "outcome": "y", "confounders": ["x"], "method": "naive"}
    drawn = estimate_effect(frame, design="randomized", **options)
    balance = next(a for a in drawn.assumptions if a.name == "balance")
    assert balance.status == "holds"
    assert "by chance" in balance.detail
    assert "since the arms were randomised" in drawn.sentence
    assert "may therefore not be claimed" not in drawn.sentence
    logged = estimate_effect(frame, **options)
    assert next(a for a in logged.assumptions if a.name == "balance").status == "fails"
