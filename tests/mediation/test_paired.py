"""Mediation within items: closed forms, statsmodels, known truths, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from whyprompt import mediation_sensitivity, paired_mediation
from whyprompt.errors import DataError, EstimationError, WhypromptError
from whyprompt.mediation.measured.paired_fits import bootstrap, effects_of_pairs, fitted
from whyprompt.mediation.measured.pairs_of_items import read_pairs

ASKED = {"treatment": "arm", "outcome": "y", "item": "item", "treated": "b", "control": "a"}


def table(n=80, seed=0, **columns):
    """Two rows an item, whose own level moves mediators and outcome."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    kind = rng.choice(["x", "y", "z"], n)
    rows = []
    for arm in (0, 1):
        words = np.exp(3 + 0.5 * arm + 0.4 * hard + 0.5 * rng.normal(size=n))
        bullets = (rng.random(n) < 0.3 + 0.3 * arm).astype(float)
        y = -3 * hard + 0.4 * arm + 0.03 * words * (1 + 0.5 * arm) + 0.5 * bullets + 0.3 * rng.normal(size=n)
        rows.append(
            pd.DataFrame(
                {"item": [f"i{k:03d}" for k in range(n)], "arm": "ab"[arm], "words": words, "list": bullets}
                | {"y": y, "kind": kind, "size": hard, "block": np.arange(n) // 4}
            )
        )
    return pd.concat(rows, ignore_index=True).assign(**columns)


def wide(frame):
    both = frame.pivot_table(index="item", columns="arm", values=["words", "list", "y"])
    out = pd.DataFrame({f"{name}_{arm}": both[name, arm] for name in ("words", "list", "y") for arm in "ab"})
    out["dy"] = out["y_b"] - out["y_a"]
    return out


def test_the_estimates_are_those_of_the_regression_of_differences():
    frame = table()
    found = paired_mediation(frame, mediators=["words", "list"], draws=50, **ASKED)
    w = wide(frame)
    fit = smf.ols("dy ~ words_b + words_a + list_b + list_a", w).fit()
    delta = {name: (w[f"{name}_b"] - w[f"{name}_a"]).mean() for name in ("words", "list")}
    for name, by in delta.items():
        given = found.part("interventional_nie", by=name).estimate
        assert given == pytest.approx(fit.params[f"{name}_b"] * by, abs=1e-10)
        given = found.part("interventional_pure_nie", by=name).estimate
        assert given == pytest.approx(-fit.params[f"{name}_a"] * by, abs=1e-10)
    alone = smf.ols("dy ~ words_b + words_a", w).fit()
    nie = found.part("nie", by="words")
    assert nie.estimate == pytest.approx(alone.params["words_b"] * delta["words"])
    assert nie["delta"] == pytest.approx(delta["words"])
    share = found.part("proportion", by="words").estimate
    assert share == pytest.approx(nie.estimate / w["dy"].mean())
    assert found.estimate == pytest.approx(w["dy"].mean(), abs=1e-12)
    shared = paired_mediation(frame, mediators="words", interaction=False, draws=50, **ASKED)
    one = smf.ols("dy ~ d", w.assign(d=w["words_b"] - w["words_a"])).fit()
    assert shared.part("nie").estimate == pytest.approx(one.params["d"] * delta["words"], abs=1e-10)
    assert shared.part("pure_nie").estimate == shared.part("nie").estimate


def test_covariates_enter_the_differences():
    frame = table()
    found = paired_mediation(frame, mediators="words", covariates=["kind", "size"], draws=50, **ASKED)
    facts = frame[frame["arm"] == "a"].set_index("item")[["kind", "size"]]
    fit = smf.ols("dy ~ words_b + words_a + kind + size", wide(frame).join(facts)).fit()
    delta = (wide(frame)["words_b"] - wide(frame)["words_a"]).mean()
    assert found.part("nie").estimate == pytest.approx(fit.params["words_b"] * delta, abs=1e-10)


@pytest.mark.parametrize("interaction", [True, False])
def test_the_total_effect_is_the_sum_in_every_direction(interaction):
    found = paired_mediation(table(), mediators=["words", "list"], interaction=interaction, draws=50, **ASKED)
    for by in ("words", "list", "jointly"):
        for indirect, direct in (("nie", "nde"), ("pure_nie", "total_nde")):
            both = found.part(indirect, by=by).estimate + found.part(direct, by=by).estimate
            assert both == pytest.approx(found.estimate, abs=1e-12)
    for label in ("nie", "pure_nie"):
        parts = sum(found.part(f"interventional_{label}", by=by).estimate for by in ("words", "list"))
        assert parts == pytest.approx(found.part(label, by="jointly").estimate, abs=1e-12)


def test_swapped_arms_and_shuffled_rows_change_signs_and_nothing_else():
    frame = table()
    found = paired_mediation(frame, mediators="words", draws=50, **ASKED)
    other = paired_mediation(
        frame.sample(frac=1, random_state=1),
        mediators="words",
        draws=50,
        **ASKED | {"treated": "a", "control": "b"},
    )
    assert other.part("pure_nie").estimate == pytest.approx(-found.part("nie").estimate, abs=1e-10)
    assert other.part("total_nde").estimate == pytest.approx(-found.part("nde").estimate, abs=1e-10)
    again = paired_mediation(frame.sample(frac=1, random_state=2), mediators="words", draws=50, **ASKED)
    assert [p.to_dict() for p in again.parts] == [p.to_dict() for p in found.parts]


def test_what_an_item_adds_to_both_arms_changes_nothing():
    frame = table()
    level = frame["item"].str[1:].astype(int) ** 2 / 100
    moved = frame.assign(y=frame["y"] + level)
    before, after = (paired_mediation(f, mediators="words", draws=50, **ASKED) for f in (frame, moved))
    for one, two in zip(before.parts, after.parts, strict=True):
        assert one.estimate == pytest.approx(two.estimate, abs=1e-9)


def test_repetitions_are_averaged():
    frame = table()
    twice = pd.concat([frame.assign(y=frame["y"] + 0.2), frame.assign(y=frame["y"] - 0.2)])
    one, two = (paired_mediation(f, mediators="words", draws=50, **ASKED) for f in (frame, twice))
    assert two.part("nie").estimate == pytest.approx(one.part("nie").estimate, abs=1e-10)
    assert two["items"] == 80


def test_items_of_one_cluster_are_drawn_together():
    """Each item three times over, in a cluster of its own, says no more than once."""
    frame = table(n=30)
    thrice = pd.concat([frame.assign(block=frame["item"], item=frame["item"] + f"-{k}") for k in range(3)])
    once = paired_mediation(frame, mediators="words", draws=200, **ASKED)
    found = paired_mediation(thrice, mediators="words", cluster="block", draws=200, **ASKED)
    assert (found["items"], found["units"]) == (90, 30)
    for one, other in zip(once.parts, found.parts, strict=True):
        np.testing.assert_allclose(other.ends, one.ends, rtol=1e-9, err_msg=one.label)


def test_what_is_held_beside_is_of_the_same_samples():
    """The mean difference of the outcome is the total effect, in every one of them."""
    names = {name: ASKED[name] for name in ("treatment", "outcome", "item")}
    asked = {"mediators": {"words": ["words"]}, "arms": ("a", "b"), "covariates": (), "cluster": "block"}
    pairs = read_pairs(table(), **names, **asked)
    fits = fitted(pairs, interaction=True)
    once = effects_of_pairs(pairs, fits, np.ones((1, len(pairs.items))))
    point = {name: values[0] for name, values in once.items()}
    beside = pairs.y[:, 1:] - pairs.y[:, :1]
    drawn = bootstrap(pairs, fits, point, 50, np.random.default_rng(0), further=beside)
    np.testing.assert_allclose(drawn["further", "0"], drawn["total_effect", ""], atol=1e-12)


def test_sensitivity_is_that_of_the_differences():
    """With one slope the design is Imai's on the differences, with a treatment that all items have."""
    frame = table()
    found = paired_mediation(frame, mediators="words", interaction=False, draws=50, **ASKED)
    w = wide(frame)
    d, y = w["words_b"] - w["words_a"], w["dy"]
    row = found.part("nie")
    assert row["rho_at_zero"] == pytest.approx(np.corrcoef(d, y)[0, 1], abs=1e-10)
    fit = smf.ols("y ~ d", pd.DataFrame({"d": d, "y": y})).fit()
    t, df = fit.tvalues["d"], fit.df_resid
    f2 = t**2 / df
    assert row["robustness_value"] == pytest.approx((np.sqrt(f2**2 + 4 * f2) - f2) / 2, abs=1e-10)
    # Each difference once as it is and once turned round is a table as Imai's: no intercept.
    both = [pd.DataFrame({"t": t, "m": s * d, "y": s * y}) for t, s in ((1.0, 1.0), (0.0, -1.0))]
    asked = {"treatment": "t", "mediator": "m", "outcome": "y", "draws": 20, "rho": [0.0, 0.3, -0.6]}
    curve = mediation_sensitivity(pd.concat(both, ignore_index=True), **asked)
    for part in curve.parts:
        ours = row.estimate - row["per_rho"] * part.at / np.sqrt(1 - part.at**2)
        assert ours == pytest.approx(part.estimate / 2, abs=1e-9)


def test_a_left_out_cause_of_the_strength_that_is_named_undoes_the_effect():
    """A cause with the partial R squared of the robustness value on both sides brings the NIE to zero."""
    frame = table(n=400)
    w = wide(frame)
    found = paired_mediation(frame, mediators="words", draws=50, **ASKED)
    value = found.part("nie")["robustness_value"]
    x = np.column_stack([np.ones(len(w)), -w["words_a"]])
    left = {}
    for name, column in (("m", w["words_b"]), ("y", w["dy"])):
        design = x if name == "m" else np.column_stack([x, w["words_b"]])
        left[name] = column - design @ np.linalg.lstsq(design, column, rcond=None)[0]
    m, y = (np.asarray(left[name] / np.linalg.norm(left[name])) for name in ("m", "y"))
    # A direction that leaves both with the share `value` of their squares: corr with m, and with y given m.
    noise = np.random.default_rng(0).normal(size=len(w))
    basis = np.column_stack([x, w["words_b"], y])
    noise -= basis @ np.linalg.lstsq(basis, noise, rcond=None)[0]
    noise /= np.linalg.norm(noise)
    given_m = np.sqrt(value) * y + np.sqrt(1 - value) * noise
    cause = np.sqrt(value) * m + np.sqrt(1 - value) * given_m
    fit = smf.ols("dy ~ words_b + words_a + u", w.assign(u=cause)).fit()
    sign = np.sign(found.part("nie").estimate)
    assert sign * fit.params["words_b"] == pytest.approx(0, abs=1e-9)


def test_a_mediator_that_one_arm_does_not_vary_has_effects_one_way():
    frame = table()
    frame.loc[frame["arm"] == "a", "words"] = 1.0
    found = paired_mediation(frame, mediators="words", draws=50, **ASKED)
    w = wide(frame)
    slope = smf.ols("dy ~ words_b", w).fit().params["words_b"]
    assert found.part("nie").estimate == pytest.approx(slope * (w["words_b"] - 1).mean(), abs=1e-10)
    assert found.part("pure_nie").estimate is None
    assert "constant under a" in found.part("pure_nie").note
    assert any("extrapolates" in warning for warning in found.warnings)


def test_one_item_that_differs_has_no_slope_with_an_error():
    """Its samples hold it or are drawn again, so that the interval would be of the item alone."""
    frame = table()
    first = frame["item"] == "i000"
    b = frame["arm"] == "b"
    frame["list"] = np.where(first & b, 1.0, 0.0)
    with pytest.raises(EstimationError, match="'list' has one value under each arm, but for one sampling"):
        paired_mediation(frame, mediators="list", draws=50, **ASKED)
    frame["words"] = frame["words"].where(~b, 3.0 + first)
    found = paired_mediation(frame, mediators="words", draws=50, **ASKED)
    assert found.part("nie").estimate is None
    assert "but for one sampling unit at most" in found.part("nie").note
    assert found.part("pure_nie").estimate is not None
    by_block = frame.assign(words=np.where(b, 3.0 + (frame["block"] == 0) * frame["words"], frame["words"]))
    assert paired_mediation(by_block, mediators="words", draws=50, **ASKED).part("nie").estimate is not None
    found = paired_mediation(by_block, mediators="words", cluster="block", draws=50, **ASKED)
    assert found.part("nie").estimate is None
    moved = frame.assign(words=frame["size"] + np.where(b, 0.1 + 0.2 * first, 0.0))
    with pytest.raises(EstimationError, match="by the same in every item, or in all but one"):
        paired_mediation(moved, mediators="words", interaction=False, draws=50, **ASKED)


def test_what_differs_in_the_last_digit_is_constant():
    """Repetitions' means of one value are it but for rounding, and a slope of that is a slope of nothing."""
    frame = table()
    noise = 1 + 1e-15 * np.random.default_rng(0).normal(size=len(frame))
    with pytest.raises(DataError, match=r"'words' is 0\.7 in every row"):
        paired_mediation(frame.assign(words=0.7 * noise), mediators="words", draws=50, **ASKED)
    still = frame.assign(words=np.where(frame["arm"] == "a", 0.7 * noise, frame["words"]))
    assert paired_mediation(still, mediators="words", draws=50, **ASKED).part("pure_nie").estimate is None


def test_a_slope_that_hangs_on_few_items_is_warned_of():
    frame = table()
    said = paired_mediation(frame, mediators="words", draws=50, **ASKED).warnings
    assert not any("hangs on" in warning for warning in said)
    giant = frame.assign(words=frame["words"].where(frame.index != 85, 50_000.0))
    (said,) = paired_mediation(giant, mediators="words", draws=50, **ASKED).warnings
    assert said.startswith("Under arm b, 99% of the sum of squares of words is one item's")
    few = frame.assign(list=((frame["arm"] == "b") & (frame["item"] < "i003")).astype(float))
    found = paired_mediation(few, mediators="list", draws=50, **ASKED)
    assert "Under arm b, list differs from its usual value in 3 items only" in found.sentence


def test_a_straight_line_for_a_chance_is_said():
    """Of words alone: their logarithm beside lets the line bend, and a flag has no more than two values."""
    frame = table()
    frame["y"] = (frame["y"] > frame["y"].median()).astype(float)
    frame["log"] = np.log(frame["words"])

    def said(mediators, table=frame):
        found = paired_mediation(table, mediators=mediators, draws=50, **ASKED)
        return "its chance is taken as a straight line in words" in found.sentence

    assert said("words")
    assert said(["words", "list"])
    assert not said({"length": ["words", "log"]})
    assert not said("list")
    assert not said("words", frame.assign(y=frame["y"] * 2))


def test_lengths_that_one_arm_alone_has_are_said():
    frame = table()
    near = paired_mediation(frame, mediators="words", draws=50, **ASKED)
    frame["words"] += 1000.0 * (frame["arm"] == "b")
    far = paired_mediation(frame, mediators="words", draws=50, **ASKED)
    told = [[text for text in found.warnings if "outside the range" in text] for found in (near, far)]
    assert not told[0]
    assert told[1]
    assert told[1][0] in far.sentence
    assert far.summary().count("outside the range seen under arm a") == 1
    frame["log"], frame["odd"] = np.log(frame["words"]), -(frame["words"] % 7) - 100 * (frame["arm"] == "b")
    curve = paired_mediation(frame, mediators={"length": ["words", "log"]}, draws=50, **ASKED)
    assert curve.sentence.count("outside the range seen under arm a") == 1
    two = paired_mediation(frame, mediators={"length": ["words", "odd"]}, draws=50, **ASKED)
    assert two.sentence.count("outside the range seen under arm a") == 2


def test_arms_that_are_numbers_are_named_by_numbers():
    frame = table()
    found = paired_mediation(frame, mediators="words", draws=50, **ASKED)
    numbers = frame.assign(arm=(frame["arm"] == "b").astype(int), item=frame["item"].str[1:].astype(int))
    same = paired_mediation(numbers, mediators="words", draws=50, **ASKED | {"treated": 1, "control": 0})
    assert [p.estimate for p in same.parts] == pytest.approx([p.estimate for p in found.parts])
    assert "'1' in place of '0'" in same.sentence


def test_items_of_one_arm_are_left_out_and_counted():
    frame = table()
    found = paired_mediation(frame.iloc[:-10], mediators="words", draws=50, **ASKED)
    assert (found["items"], found["left_out"]) == (70, 10)
    assert "10 of 80 items are left out" in found.sentence


def test_a_share_of_nothing_is_no_number():
    frame = table()
    rng = np.random.default_rng(1)
    noise = frame.assign(y=rng.normal(size=len(frame)))
    share = paired_mediation(noise, mediators="words", draws=200, **ASKED).part("proportion")
    assert share.estimate is None
    assert "not told from zero" in share.note


def one_value(frame, column, values):
    return frame.assign(**{column: frame["arm"].map(values)})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.assign(words=3.0), {}, "'words' is 3 in every row"),
        (
            lambda f: one_value(f, "words", {"a": 0.0, "b": 1.0}),
            {},
            "'words' is the arm itself, 0 under a and 1 under b",
        ),
        (lambda f: f.assign(words=f["words"].where(f.index > 3)), {}, "words"),
        (lambda f: f.assign(y=1.0), {}, "outcome 'y' is constant"),
        (lambda f: f.assign(y=f["item"].str[1:].astype(int) + 0.1), {}, "'y' changes by 0 in every item"),
        (lambda f: f.assign(y=f["size"] + (f["arm"] == "b")), {}, "'y' changes by 1 in every item"),
        (
            lambda f: f.assign(more=f["words"] + 1e-4 * f["y"]),
            {"mediators": ["words", "more"]},
            "all but a function of the other columns",
        ),
        (lambda f: f.assign(item=np.arange(len(f))), {}, "no item ran under both 'a' and 'b'"),
        (lambda f: f[f["item"] < "i004"], {}, "4 sampling units"),
        (lambda f: f[f["item"] < "i008"], {"mediators": ["words", "list"]}, "8 items are too few"),
        (lambda f: f.assign(more=2 * f["words"] + 1), {"mediators": ["words", "more"]}, "all but a function"),
        (lambda f: f, {"mediators": []}, "names no column"),
        (lambda f: f, {"mediators": ["words", "words"]}, "'words' twice"),
        (lambda f: f, {"mediators": "y"}, "'y' is outcome and mediator"),
        (lambda f: f, {"mediators": "none"}, "none"),
        (lambda f: f, {"treated": "c"}, "holds no 'c'"),
        (lambda f: f, {"treated": "a"}, "both 'a'"),
        (lambda f: f, {"covariates": ["list"]}, "differs between rows of one item"),
        (lambda f: f, {"covariates": "kind"}, "give a list"),
        (lambda f: f.assign(block=f["block"] + (f["arm"] == "a")), {"cluster": "block"}, "two clusters"),
        (lambda f: f, {"draws": 1}, "draws"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(change, options, message):
    with pytest.raises(WhypromptError) as caught:
        paired_mediation(change(table()), **ASKED | {"mediators": "words", "draws": 50} | options)
    assert isinstance(caught.value, DataError | EstimationError)
    assert message in f"{caught.value} {caught.value.hint}"


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Short here; ``benchmarks/coverage_texts.py`` has the figures."""
    held = []
    for seed in range(60):
        frame = table(n=40, seed=seed)
        found = paired_mediation(frame, mediators="words", covariates=(), draws=300, **ASKED)
        # The truth of the sample's own law: slope 0.045 times the mean difference of the lengths.
        mean = [np.exp(3 + 0.5 * arm + 0.5 * (0.4**2 + 0.5**2)) for arm in (0, 1)]
        low, high = found.part("nie").ends
        held.append(low <= 0.045 * (mean[1] - mean[0]) <= high)
    assert np.mean(held) > 0.86
