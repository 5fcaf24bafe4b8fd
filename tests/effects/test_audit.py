"""The audit: one arm an item from a known rule, held against a truth that is known by construction."""

import json

import numpy as np
import pandas as pd
import pytest
from effect_verbs import paired_effect
from scipy import stats

from whyprompt import audit, estimate_effect, one_draw
from whyprompt._progress import listening
from whyprompt._words import format_number
from whyprompt.effects import METHODS
from whyprompt.errors import DataError, EstimationError

ARMS = {"outcome": "y", "treated": "cot", "control": "direct"}


def both_arms(seed=0, n=400, effect=1.0, varying=0.0, noise=0.5):
    """Every item under both arms; harder items score lower, and gain more where effects vary."""
    rng = np.random.default_rng(seed)
    hard, length = rng.normal(size=n), rng.normal(size=n)
    base = -hard + 0.5 * length
    y0 = base + rng.normal(0, noise, n)
    y1 = base + effect + varying * hard + rng.normal(0, noise, n)
    return pd.DataFrame(
        {
            "item_id": np.repeat(np.arange(n), 2),
            "arm": ["direct", "cot"] * n,
            "hard": np.repeat(hard, 2),
            "length": np.repeat(length, 2),
            "kind": np.repeat(rng.choice(["a", "b"], n), 2),
            "y": np.column_stack([y0, y1]).ravel(),
        }
    )


RULE = {"hard": 0.8, "length": -0.4}
# The doubly robust estimate without trees, which many draws have no time for.
QUICK = {"propensity": "logit", "outcome_model": "linear", "splits": 1}


def run(frame, **options):
    return audit(frame, confounders=["hard", "length"], rule=RULE, **{**ARMS, **options})


def test_the_plain_difference_is_biased_and_adjustment_is_not():
    result = run(
        both_arms(n=500),
        draws=200,
        methods=["naive", "nearest", "ipw", "overlap", "entropy", "aipw"],
        caliper=0.1,
        **QUICK,
    )
    rows = {row.label: row for row in result.parts}
    assert rows["naive"].estimate < -0.7
    assert abs(rows["naive"].estimate) > 20 * rows["naive"].std_error
    assert rows["naive"]["coverage"] < 0.05
    for name in ("ipw", "overlap", "entropy", "aipw"):
        assert abs(rows[name].estimate) < 3 * rows[name].std_error + 0.01, name
        assert rows[name]["coverage"] > 0.9
    # A caliper leaves pairs up to its width apart: a remnant of the confounding, a tenth of it at most.
    assert abs(rows["nearest"].estimate) < 0.1 * abs(rows["naive"].estimate)
    assert all(row["n_failed"] == 0 for row in result.parts)


def test_an_audit_tells_how_many_of_its_draws_are_done_and_nothing_else():
    told = []
    with listening(lambda *step: told.append(step)):
        run(both_arms(n=120), draws=3, methods=["aipw"], **QUICK)
    assert told == [(1, 3, "audit"), (2, 3, "audit"), (3, 3, "audit")]


def test_what_the_audit_reports_is_what_its_draws_give():
    """The same draws by hand, through `estimate_effect`."""
    frame = both_arms(n=150, varying=0.5)
    result = run(frame, draws=20, methods=["ipw"], estimand="att", random_state=7)
    row = result.parts[0]
    wide = frame.pivot_table(index="item_id", columns="arm", values="y")
    items = frame.drop_duplicates("item_id").set_index("item_id")[["hard", "length"]]
    z = (items - items.mean()) / items.std(ddof=0)
    probability = 1 / (1 + np.exp(-(0.8 * z.hard - 0.4 * z.length)))
    assert result["mean_share_treated"] == pytest.approx(float(probability.mean()), rel=1e-12)
    drawn = np.random.default_rng(7).random((20, 150)) < probability.to_numpy()
    errors, covered, spreads = [], [], []
    for treated in drawn:
        table = items.assign(arm=treated, y=np.where(treated, wide.cot, wide.direct))
        one = estimate_effect(
            table, treatment="arm", outcome="y", confounders=["hard", "length"], method="ipw"
        )
        truth = float((wide.cot - wide.direct)[treated].mean())
        errors.append(one.estimate - truth)
        covered.append(one.ci_low <= truth <= one.ci_high)
        spreads.append(one.std_error)
    assert row.estimate == pytest.approx(np.mean(errors), rel=1e-9)
    assert row.std_error == pytest.approx(np.std(errors, ddof=1) / np.sqrt(20), rel=1e-9)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-9)
    assert row["coverage"] == pytest.approx(np.mean(covered))
    assert row["mean_std_error"] == pytest.approx(np.mean(spreads), rel=1e-9)
    assert row["mean_used"] == 150
    assert result.estimate == pytest.approx(paired_effect(frame, **ARMS).estimate, rel=1e-12)


def test_a_score_model_is_for_the_methods_that_have_a_score():
    frame = both_arms(n=60)
    found = run(frame, draws=3, methods=["naive", "ipw", "entropy", "aipw"], **QUICK)
    plain = run(frame, draws=3, methods=["naive", "ipw"])
    assert [row.estimate for row in found.parts[:2]] == [row.estimate for row in plain.parts]
    named = {"outcome_model": "linear", "splits": 1}
    asked = run(frame, draws=3, methods=[{"aipw": named}], propensity="logit")
    assert asked.parts[0].estimate == pytest.approx(found.parts[3].estimate, rel=1e-12)
    boosted = run(frame, draws=3, methods=[{"aipw": named}])
    assert boosted.parts[0].estimate != pytest.approx(found.parts[3].estimate, rel=1e-6)
    with pytest.raises(EstimationError, match="an audit knows its propensities"):
        run(frame, draws=3, methods=["ipw"], propensity="hard")


@pytest.mark.slow
def test_intervals_cover_when_the_items_are_new_each_time():
    """Fixed items would flatter the interval, which is for items yet to be seen; here they are drawn anew."""
    draws = 500
    hits = dict.fromkeys(["nearest", "ipw", "overlap", "aipw"], 0)
    naive_hits, bias = 0, {name: [] for name in hits}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        n = 300
        hard = rng.normal(size=n)
        arm = rng.random(n) < 1 / (1 + np.exp(-0.7 * hard))
        y = -hard + 1.0 * arm + rng.normal(size=n)
        table = pd.DataFrame({"arm": arm, "hard": hard, "y": y})
        shared = {"treatment": "arm", "outcome": "y", "confounders": ["hard"]}
        for name in hits:
            options = {"nearest": {"replace": True}, "aipw": QUICK}.get(name, {})
            one = estimate_effect(table, method=name, **shared, **options)
            hits[name] += one.ci_low <= 1.0 <= one.ci_high
            bias[name].append(one.estimate - 1.0)
        naive = estimate_effect(table, method="naive", **shared)
        naive_hits += naive.ci_low <= 1.0 <= naive.ci_high
    assert {name: h / draws for name, h in hits.items() if not 0.93 <= h / draws <= 0.97} == {}
    assert naive_hits / draws < 0.1
    for name, errors in bias.items():
        assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(draws) + 0.02, name


def test_the_truth_is_that_of_the_rows_the_estimand_names():
    frame = both_arms(n=400, varying=1.0, noise=0.0)
    rows = {e: run(frame, draws=30, methods=["ipw"], estimand=e).parts[0] for e in ("ate", "att", "atc")}
    # Harder items gain more and get the arm more often.
    assert rows["att"]["truth"] > rows["ate"]["truth"] + 0.2 > rows["atc"]["truth"] + 0.4
    paired = run(frame, draws=2).estimate
    assert rows["ate"]["truth"] == pytest.approx(paired, rel=1e-12)
    # With an outcome linear in the covariates the doubly robust estimate is the truth of every draw.
    exact = run(frame, draws=20, methods=["aipw"], estimand="ate", **QUICK).parts[0]
    assert abs(exact.estimate) < 1e-6
    overlap = run(frame, draws=100, methods=["overlap"]).parts[0]
    assert overlap["estimand"] == "ato"
    assert abs(overlap.estimate) < 3 * overlap.std_error + 0.01


@pytest.mark.parametrize("estimand", ["att", "atc"])
def test_the_truth_is_that_of_the_rows_that_a_caliper_leaves(estimand):
    """A caliper leaves out the hardest items of one arm, which gain most: theirs is no part of the truth."""
    frame = both_arms(n=150, varying=1.0)
    options = {"caliper": 0.05, "estimand": estimand}
    nearest = {"method": "nearest", "random_state": 3, **options}
    row = run(frame, draws=20, methods=["nearest"], random_state=3, **options).parts[0]
    wide = frame.pivot_table(index="item_id", columns="arm", values="y")
    items = frame.drop_duplicates("item_id").set_index("item_id")[["hard", "length"]]
    z = (items - items.mean()) / items.std(ddof=0)
    probability = 1 / (1 + np.exp(-(0.8 * z.hard - 0.4 * z.length)))
    drawn = np.random.default_rng(3).random((20, 150)) < probability.to_numpy()
    gain = (wide.cot - wide.direct).to_numpy()
    truths, all_wanted, errors, covered, used = [], [], [], [], []
    for treated in drawn:
        table = items.assign(arm=treated, y=np.where(treated, wide.cot, wide.direct))
        one = estimate_effect(
            table,
            treatment="arm",
            outcome="y",
            confounders=["hard", "length"],
            **nearest,
        )
        wanted = treated if estimand == "att" else ~treated
        kept = wanted & (one.weights > 0)
        assert kept.sum() < wanted.sum()
        truths.append(gain[kept].mean())
        all_wanted.append(gain[wanted].mean())
        errors.append(one.estimate - truths[-1])
        covered.append(one.ci_low <= truths[-1] <= one.ci_high)
        used.append((one.weights > 0).sum())
    assert abs(np.mean(truths) - np.mean(all_wanted)) > 0.1
    assert row["truth"] == pytest.approx(np.mean(truths), rel=1e-9)
    assert row.estimate == pytest.approx(np.mean(errors), rel=1e-9)
    assert row["coverage"] == pytest.approx(np.mean(covered))
    assert row["mean_used"] == pytest.approx(np.mean(used))
    # And of one draw, which is shown by itself.
    shown = one_draw(frame, **ARMS, confounders=["hard", "length"], rule=RULE, **nearest)
    assert shown.truth == pytest.approx(truths[0], rel=1e-9)
    assert abs(shown.truth - all_wanted[0]) > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_audited(method):
    result = run(both_arms(n=200), draws=2 if method == "aipw" else 5, methods=[method], caliper=0.5)
    row = result.parts[0]
    assert (row.label, row.n_used, row["n_failed"]) == (method, result["draws"], 0)
    assert np.isfinite(row.estimate)
    assert 0 <= row["coverage"] <= 1
    assert 0 < row["mean_used"] <= 200
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_rule_may_be_a_function_and_exact_columns_hold():
    frame = both_arms(n=300)

    def by_hardness(covariates):
        return np.where(covariates["hard"] > 0, 0.7, 0.3)

    result = audit(
        frame,
        confounders=["hard", "length", "kind"],
        rule=by_hardness,
        draws=40,
        methods=["naive", "nearest"],
        exact=["kind"],
        caliper=0.1,
        **ARMS,
    )
    assert result["rule"] == "the function by_hardness"
    assert abs(result.parts[1].estimate) < abs(result.parts[0].estimate) / 2
    assert len(result.to_frame()) == 3
    assert result.sentence.startswith("Run under both arms, the 300 items show an effect of")
    # Each method's figures stand together: what it gives, what its own items show, and the difference.
    for row in result.parts:
        shown = [format_number(v) for v in (row["mean_estimate"], row["truth"], row.estimate)]
        what = row["estimand"].upper()
        assert (
            f"{row.label} gives {shown[0]} where its items show {shown[1]} ({what}): off by {shown[2]}"
            in result.sentence
        )
        assert row["mean_estimate"] - row["truth"] == pytest.approx(row.estimate, abs=1e-12)
    assert result.plot().to_dict()["description"]
    assert result.plot("coverage").to_dict()["description"]


def test_draws_that_cannot_be_estimated_are_counted_by_reason():
    frame = both_arms(n=12)
    result = audit(frame, confounders=["hard"], rule={"intercept": -2.0}, draws=40, methods=["ipw"], **ARMS)
    row = result.parts[0]
    assert row["n_failed"] > 0
    assert sum(row["failures"].values()) == row["n_failed"]
    assert any("fewer than two rows" in reason for reason in row["failures"])
    assert any("could not estimate in" in w for w in result.warnings)


def test_no_estimate_at_all_is_said_and_not_a_number():
    frame = both_arms(n=6)
    result = audit(frame, confounders=["hard"], rule={"intercept": -4.5}, draws=10, methods=["ipw"], **ARMS)
    assert result.parts[0].estimate is None
    assert "ipw never gave an estimate" in result.sentence
    assert any("hardly ever change arm" in w for w in result.warnings)
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_draw_is_the_estimate_beside_the_truth():
    frame = both_arms(n=400, varying=0.3)
    one = one_draw(frame, confounders=["hard", "length"], rule=RULE, method="ipw", random_state=3, **ARMS)
    assert abs(one.naive.estimate - one.truth_all) > 3 * abs(one.adjusted.estimate - one.truth)
    again = estimate_effect(
        one.table, treatment="arm", outcome="y", confounders=["hard", "length"], method="ipw", treated="cot"
    )
    assert again.estimate == one.adjusted.estimate
    wide = frame.pivot_table(index="item_id", columns="arm", values="y")
    treated = one.table.arm.to_numpy() == "cot"
    assert one.truth == pytest.approx(float((wide.cot - wide.direct)[treated].mean()), rel=1e-12)
    assert "and its interval holds it" in one.sentence
    assert one.adjusted.ci_low <= one.truth <= one.adjusted.ci_high
    assert one.to_frame().label.tolist() == [
        "adjusted (ipw)",
        "plain difference",
        "truth, same items",
        "truth, all items",
    ]
    assert one.plot().to_dict()["description"]
    assert str(one) == one.sentence
    json.dumps(one.to_dict(), allow_nan=False)


def test_the_same_seed_gives_the_same_audit_in_any_row_order():
    frame = both_arms(n=100)
    base = run(frame, draws=10, methods=["ipw"])
    assert run(frame, draws=10, methods=["ipw"]).to_dict() == base.to_dict()
    swapped = frame.sort_values(["item_id", "arm"]).set_index(np.zeros(len(frame), dtype=int))
    before = swapped.copy()
    assert run(swapped, draws=10, methods=["ipw"]).parts[0].estimate == pytest.approx(
        base.parts[0].estimate, rel=1e-9
    )
    pd.testing.assert_frame_equal(swapped, before)


def test_the_drawn_arms_follow_the_rule():
    frame = both_arms(n=2000)
    one = one_draw(
        frame, confounders=["hard", "length"], rule={"intercept": 0.5, "hard": 1.0}, method="ipw", **ARMS
    )
    z = (one.table.hard - one.table.hard.mean()) / one.table.hard.std(ddof=0)
    expected = 1 / (1 + np.exp(-(0.5 + z)))
    got = one.table.arm == "cot"
    chi = (got - expected).sum() / np.sqrt((expected * (1 - expected)).sum())
    assert abs(chi) < stats.norm.ppf(0.9999)
    assert got[z > 1].mean() > got[z < -1].mean() + 0.3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"confounders": ["y_before"]}, DataError, "'y_before' is not in the table"),
        ({"confounders": []}, EstimationError, "at least one confounder"),
        ({"confounders": ["noise"], "rule": {"noise": 1.0}}, DataError, "varies within 'item_id'"),
        ({"confounders": ["hard", "prompt_tokens"]}, EstimationError, "cannot be a confounder"),
        ({"rule": {"size": 1.0}}, EstimationError, "the rule names 'size'"),
        ({"confounders": ["hard", "flat"], "rule": {"flat": 1.0}}, EstimationError, "does not vary"),
        ({"rule": lambda _: np.full(60, 1.0)}, EstimationError, "not strictly between 0 and 1"),
        ({"rule": lambda _: np.array([0.5])}, EstimationError, "one probability an item"),
        ({"methods": ["psm"]}, EstimationError, "method 'psm' is not known"),
        ({"calliper": 0.1}, EstimationError, "option 'calliper' is not one of an audit"),
        ({"draws": 1}, EstimationError, "at least two"),
        ({"exact": ["kind"]}, EstimationError, "exact names 'kind'"),
        ({"treated": "few_shot"}, EstimationError, "no row of arm column 'arm' is 'few_shot'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(options, error, message):
    frame = both_arms(n=60).assign(noise=np.arange(120.0), prompt_tokens=1, flat=1.0)
    asked = {"confounders": ["hard"], "rule": {"hard": 1.0}, "draws": 3, **ARMS, **options}
    with pytest.raises(error, match=message):
        audit(frame, **asked)


def test_draws_without_an_interval_are_counted_and_said():
    """Six items: some draws leave arms whose outcomes do not differ, and so no spread."""
    frame = both_arms(n=6)
    items = frame.item_id
    frame["y"] = np.where(frame.arm == "cot", 1.0, 0.0) * (items < 5)
    result = run(frame, draws=60, methods=["naive"])
    row = result.parts[0]
    wide = frame.pivot_table(index="item_id", columns="arm", values="y")
    hard, length = (frame.drop_duplicates("item_id")[c].to_numpy() for c in ("hard", "length"))
    z = [(v - v.mean()) / v.std() for v in (hard, length)]
    drawn = np.random.default_rng(0).random((60, 6)) < 1 / (1 + np.exp(-0.8 * z[0] + 0.4 * z[1]))
    enough = [t for t in drawn if 2 <= t.sum() <= 4]
    still = sum(len(set(wide.cot[t])) == 1 and len(set(wide.direct[~t])) == 1 for t in enough)
    assert 0 < still < len(enough)
    assert (row["n_failed"], row["n_no_interval"]) == (60 - len(enough), still)
    assert row["coverage_error"] == pytest.approx(
        np.sqrt(row["coverage"] * (1 - row["coverage"]) / (len(enough) - still)), rel=1e-9
    )
    assert f"({still} draws gave an estimate and no interval)" in result.sentence
    assert f"({row['n_failed']} draws gave no estimate)" in result.sentence
    assert any(f"no interval in {still} of 60 draws" in w for w in result.warnings)
    assert result.to_dict()["parts"][0]["n_no_interval"] == still
    assert result.to_frame().n_no_interval.tolist()[1:] == [still]
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_audit_lists_what_it_rests_on():
    frame = both_arms(n=60)
    told = {a["name"]: a for a in run(frame, draws=5, methods=["ipw"]).to_dict()["assumptions"]}
    assert told["exchangeability"]["status"] == "holds"
    assert "x hard" in told["exchangeability"]["detail"]
    assert told["the rule of the logs"]["status"] == "untestable"
    assert told["complete pairs"]["detail"].startswith("0 of 60")
    assert told["overlap"]["status"] == "holds"
    steep = audit(
        frame.iloc[:-5],
        confounders=["hard", "length"],
        rule={"hard": 4.0},
        draws=5,
        methods=["naive"],
        **ARMS,
    )
    told = {a.name: a for a in steep.assumptions}
    assert told["overlap"].status == "doubtful"
    assert told["complete pairs"].detail.startswith("1 of 58")
