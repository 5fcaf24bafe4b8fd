"""Text columns of many levels: the figures of their dummies, which are not made; many text arms."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from whyprompt import compare_arms, estimate_effect
from whyprompt.effects.caused import moves_with_arm
from whyprompt.effects.checks.balance import balance_table, covariate_balance
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats import absorb
from whyprompt.stats.design import design_matrix
from whyprompt.stats.order import codes, content_rank
from whyprompt.stats.propensity import SeparatedError

EVERY = [("ipw", "ate"), ("ipw", "att"), ("ipw", "atc"), ("overlap", None)]
EVERY += [("entropy", "ate"), ("entropy", "att"), ("entropy", "atc")]


def table(n, levels, *, seed=0, effect=1.0):
    """Make rows whose arm and outcome depend on a text's level and on a number; no level is one-armed."""
    rng = np.random.default_rng(seed)
    task = rng.integers(0, levels, n)
    x = rng.normal(size=n)
    lean = rng.normal(size=levels)
    arm = rng.random(n) < 1 / (1 + np.exp(-(0.5 * x + 0.7 * lean[task])))
    arm[:levels], arm[levels : 2 * levels] = True, False
    task[:levels] = task[levels : 2 * levels] = np.arange(levels)
    y = effect * arm + x + lean[task] + rng.normal(size=n)
    names = np.array([f"template {k:05d}" for k in range(levels)], dtype=object)
    return pd.DataFrame({"arm": arm, "y": y, "x": x, "task": names[task]})


def run(frame, method, confounders=("x", "task"), **options):
    named = {"treatment": "arm", "outcome": "y", "cluster": "none"}
    return estimate_effect(frame, confounders=list(confounders), method=method, **named, **options)


@pytest.mark.parametrize(("method", "estimand"), EVERY)
def test_absorbed_levels_give_the_figures_of_their_dummies(monkeypatch, method, estimand):
    frame = table(700, 14)
    frame["lang"] = np.random.default_rng(1).choice(["de", "en", "fr"], 700)
    frame["length"] = frame["task"].str[-1].astype(float)  # a number that the level determines
    asked = ("x", "lang", "task", "length")
    dummies = run(frame, method, asked, estimand=estimand)
    monkeypatch.setattr(absorb, "MANY_LEVELS", 5)
    found = run(frame, method, asked, estimand=estimand)
    assert found.estimate == pytest.approx(dummies.estimate, rel=1e-10)
    assert found.std_error == pytest.approx(dummies.std_error, rel=1e-10)
    assert found.weights == pytest.approx(dummies.weights, rel=1e-8)
    assert any("length" in text for text in found.warnings if "left out of the adjustment" in text)


@pytest.mark.parametrize("method", ["nearest", "subclass", "full"])
def test_matching_on_a_score_with_absorbed_levels_is_that_on_the_dummies_score(monkeypatch, method):
    frame = table(500, 14)
    dummies = run(frame, method)
    monkeypatch.setattr(absorb, "MANY_LEVELS", 5)
    found = run(frame, method)
    assert found.estimate == pytest.approx(dummies.estimate, rel=1e-9)
    assert found.propensity == pytest.approx(dummies.propensity, rel=1e-8)


def test_levels_alone_are_weighted_as_poststratification():
    frame = table(4_000, 200)
    found = run(frame, "ipw", ("task",), estimand="ate")
    cells = [rows.groupby("task")["y"].mean() for _, rows in frame.groupby("arm")]
    share = frame["task"].value_counts(normalize=True)
    assert found.estimate == pytest.approx(float(((cells[1] - cells[0]) * share).sum()), rel=1e-10)
    balanced = run(frame, "entropy", ("task",), estimand="ate")
    assert balanced.estimate == pytest.approx(found.estimate, rel=1e-10)


def test_the_logit_with_absorbed_levels_is_that_of_statsmodels():
    import statsmodels.api as sm

    frame = table(600, 60)
    dummies = pd.get_dummies(frame["task"]).to_numpy(float)
    fit = sm.Logit(frame["arm"].to_numpy(float), np.column_stack([frame["x"], dummies])).fit(
        disp=0, tol=1e-13
    )
    found = run(frame, "ipw")
    assert found.propensity == pytest.approx(fit.predict(), rel=1e-7)


@pytest.mark.parametrize("denominator", ["pooled", "treated", "control", "all", "weighted"])
def test_balance_of_levels_is_that_of_their_dummies(denominator):
    frame = table(300, 12)
    frame["two"] = np.random.default_rng(2).choice(["a", "b"], 300)
    columns = {name: frame[name].to_numpy(object if name != "x" else float) for name in ("task", "x", "two")}
    arm, weights = frame["arm"].to_numpy(), np.random.default_rng(3).random(300)
    shown = design_matrix(columns, full=True)
    wanted = balance_table(shown.matrix, arm, weights, names=shown.names, denominator=denominator)
    found = covariate_balance(columns, arm, weights, denominator=denominator)
    assert [row.covariate for row in found] == [row.covariate for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.binary == other.binary
        for name in ("smd_before", "smd_after", "ks_before", "ks_after", "variance_ratio_after"):
            value = getattr(other, name)
            assert getattr(one, name) == (value if value is None else pytest.approx(value, abs=1e-12))


def test_of_very_many_levels_those_that_differ_most_are_shown():
    frame = table(6_000, 1_500)
    frame.loc[:40, ["task", "arm"]] = ["template 00007", True]
    columns = {"task": frame["task"].to_numpy(object)}
    arm = frame["arm"].to_numpy()
    shown = covariate_balance(columns, arm, np.ones(6_000), denominator="pooled")
    assert len(shown) == 1_000
    worst = max(shown, key=lambda row: abs(row.smd_before))
    assert worst.covariate == "task_template 00007"


def test_the_order_of_rows_by_content_is_that_of_the_dummies():
    from whyprompt.effects.problem import prepare

    frame = table(400, 9)
    frame["lang"] = np.random.default_rng(4).choice(["de", "en", "fr"], 400)
    problem = prepare(
        frame,
        treatment="arm",
        outcome="y",
        confounders=["task", "lang"],
        base_levels={"task": "template 00003"},
    )
    assert problem.places.tolist() == content_rank(problem.design.matrix, problem.y).tolist()


def test_a_drawn_arm_that_moves_a_level_is_named():
    rng = np.random.default_rng(5)
    task = np.array([f"k{k}" for k in rng.integers(0, 80, 4_000)], dtype=object)
    arm = rng.random(4_000) < 0.5
    assert moves_with_arm({"task": task}, arm, None) == ()
    arm[task == "k7"] = True
    (told,) = moves_with_arm({"task": task}, arm, None)
    assert told.startswith("task_k7 ")
    assert moves_with_arm({"task": task}, arm, np.arange(4_000))[0].startswith("task_k7 ")


def peak(function):
    tracemalloc.start()
    try:
        value = function()
        return value, tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", ["cem", "ipw", "overlap", "entropy", "nearest"])
def test_thousands_of_levels_take_no_dummies(method):
    frame = table(20_000, 1_000, effect=1.0)
    found, mib = peak(lambda: run(frame, method))
    # Dummies would take 160 MB each time that they are made.
    assert mib < 120
    # Without a caliper nearest pairs are far apart where half of the rows are treated: a matter of its own.
    assert method == "nearest" or abs(found.estimate - 1.0) < 4 * found.std_error


def test_very_many_categories_are_named():
    n = 220_000
    frame = pd.DataFrame({"arm": np.arange(n) % 2 == 0, "y": np.arange(n) % 7, "user": np.arange(n) // 3 * 3})
    frame["user"] = frame["user"].astype(str)
    frame.loc[0, "user"] = "alone"
    with pytest.raises(SeparatedError, match="levels that one arm has alone: user = "):
        run(frame, "ipw", ("user",))


def test_dummies_that_do_not_fit_are_refused_with_a_way_that_works():
    frame = table(3_000, 600)
    frame["other"] = np.random.default_rng(6).permutation(frame["task"].to_numpy())
    columns = {"task": frame["task"].to_numpy(object)}
    design = design_matrix({"task": np.tile(columns["task"], 200)})
    with pytest.raises(DataError, match=r"'task' has 600 levels: .* would take 3 GiB") as caught:
        design.matrix  # noqa: B018 - it is made where it is asked for
    assert "exact=['task']" in caught.value.hint


def test_levels_that_one_arm_has_alone_are_counted():
    frame = table(2_000, 100)
    frame.loc[frame["task"] == "template 00042", "arm"] = True
    with pytest.raises(SeparatedError, match="task = 'template 00042'") as caught:
        run(frame, "ipw")
    assert "exact=['task']" in caught.value.hint
    # The hint works: the level's rows are left out, and said so.
    found = run(frame, "nearest", exact=["task"], caliper=0.1)
    assert abs(found.estimate - 1.0) < 4 * found.std_error
    with pytest.raises(EstimationError, match=r"1 level of 'task' that weigh have no row of '0'"):
        run(frame, "entropy")


def test_long_texts_are_numbered_by_their_hash():
    texts = np.array(["a" * 5_000, "b" * 5_000, "c"], dtype=object)[np.arange(30_000) % 3]
    found, mib = peak(lambda: codes([texts]))
    assert found[:4].tolist() == [0, 1, 2, 0]
    assert mib < 20  # of fixed width the column would take 600 MB


def test_level_effects_are_those_of_least_squares_with_dummies():
    rng = np.random.default_rng(7)
    n, rows = 500, np.arange(500) < 420
    codes = np.column_stack([rng.integers(0, 30, n), rng.integers(0, 12, n)])
    codes[450:, 0] = 30  # a level that no fitted row has
    rest = rng.normal(size=(n, 2))
    y = rest @ [1.0, -2.0] + rng.normal(size=31)[codes[:, 0]] + rng.normal(size=12)[codes[:, 1]]
    y += 0.1 * rng.normal(size=n)
    found = absorb.level_effects(codes, rest, y, rows)
    dummies = np.column_stack([np.eye(30)[np.minimum(codes[:, 0], 29)], np.eye(12)[codes[:, 1]]])
    design = np.column_stack([rest, dummies])
    coef = np.linalg.lstsq(design[rows], y[rows], rcond=None)[0]
    wanted = dummies[rows] @ coef[2:]
    assert found[rows] == pytest.approx(wanted - wanted.mean(), abs=1e-8)
    one = absorb.level_effects(codes[:, :1], rest, y, rows)
    assert one[450:] == pytest.approx(0.0, abs=1e-12)


def test_means_of_levels_are_drawn_as_far_as_variance_components_say():
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(9)
    code = np.repeat(np.arange(300), 4)
    y = rng.normal(size=300)[code] + 1.5 * rng.normal(size=1_200)
    _, new = absorb.drawn_means(code, y, np.arange(301))
    # Balanced groups: the best linear prediction of a random intercept (REML is the analysis of variance).
    fit = smf.mixedlm("y ~ 1", pd.DataFrame({"y": y, "code": code}), groups=code).fit()
    wanted = [fit.random_effects[k].iloc[0] + fit.fe_params["Intercept"] for k in range(300)]
    assert new[:300] == pytest.approx(wanted, abs=0.01)
    assert new[300] == pytest.approx(y.mean())
    # What is learned from does not hold the row's own outcome.
    noise = rng.normal(size=1_200)
    own, _ = absorb.drawn_means(code, noise + 0.3 * rng.normal(size=300)[code], np.arange(300))
    assert abs(np.corrcoef(own, noise)[0, 1]) < 0.1
    flat, everywhere = absorb.drawn_means(code, np.tile([1.0, -1.0, 1.0, -1.0], 300), np.arange(300))
    assert not flat.any()
    assert not everywhere.any()


@pytest.mark.parametrize("outcome_model", ["boosted", "linear"])
def test_the_doubly_robust_estimate_takes_out_what_levels_of_few_rows_do(outcome_model):
    # Means of levels that are drawn towards each other leave four standard errors of bias here.
    frame = table(4_000, 400, seed=8)
    found = run(frame, "aipw", estimand="ate", splits=1, outcome_model=outcome_model)
    plain = run(frame, "aipw", ("x",), estimand="ate", splits=1, outcome_model=outcome_model)
    assert abs(found.estimate - 1.0) < 2.5 * found.std_error
    assert abs(plain.estimate - 1.0) > 5 * plain.std_error


# ----------------------------------------------------------------------------------------- many text arms


def many_arms(k, n, *, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    arm = rng.integers(0, k, n)
    y = x + 0.02 * arm + rng.normal(size=n)
    return pd.DataFrame({"template": [f"t{a:03d}" for a in arm], "number": arm, "x": x, "y": y})


def test_over_thirty_texts_are_arms_and_numbers_a_dose():
    frame = many_arms(31, 3_000)
    found = compare_arms(frame, treatment="template", outcome="y", confounders=["x"], reference="t000")
    assert len(found.parts) == 30
    last = found.contrast("t030", "t000")
    assert last.ci_low < 0.6 < last.ci_high
    assert last.simultaneous_low < last.ci_low
    with pytest.raises(EstimationError, match="31 levels, which are numbers") as caught:
        compare_arms(frame, treatment="number", outcome="y", confounders=["x"])
    assert "dose_response" in caught.value.hint


def test_every_pair_of_forty_arms_is_compared_as_two_by_two():
    frame = many_arms(40, 4_000)
    found = compare_arms(frame, treatment="template", outcome="y", method="naive")
    assert len(found.parts) == 780
    from scipy import stats

    one, other = (frame.loc[frame["template"] == name, "y"] for name in ("t007", "t003"))
    row = found.contrast("t007", "t003")
    assert row.p_value == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue, rel=1e-9)
    # Tukey's studentised range, but for unequal variances.
    wide = (row.simultaneous_high - row.simultaneous_low) / (2 * row.std_error)
    assert wide == pytest.approx(stats.studentized_range.ppf(0.95, 40, 3_960) / np.sqrt(2), rel=0.03)


def test_more_comparisons_than_can_be_adjusted_for_are_refused():
    frame = many_arms(300, 3_000)
    with pytest.raises(EstimationError, match="44850 comparisons are too many") as caught:
        compare_arms(frame, treatment="template", outcome="y", method="naive")
    assert "reference=" in caught.value.hint
    found = compare_arms(frame, treatment="template", outcome="y", method="naive", reference="t000")
    assert len(found.parts) == 299


def test_a_multinomial_score_of_too_many_coefficients_is_refused_with_a_way_that_works():
    frame = many_arms(12, 6_000)
    frame["task"] = [f"k{k % 500}" for k in range(6_000)]
    asked = {"treatment": "template", "outcome": "y", "confounders": ["x", "task"], "cluster": "none"}
    with pytest.raises(EstimationError, match=r"5511 coefficients: .* \(500 levels of 'task'") as caught:
        compare_arms(frame, **asked)
    assert "'cem'" in caught.value.hint
    frame = frame[frame["template"] < "t003"]
    assert compare_arms(frame, method="cem", **asked).parts[0].estimate is not None
