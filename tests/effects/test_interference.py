"""Repeats, batches and order: variance components, permutation tests, and a scoring function under test."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from whyprompt.effects.checks.batches import batch_interference
from whyprompt.effects.checks.consistency import batch_consistency
from whyprompt.effects.checks.repeats import error_of_mean, repeat_variance
from whyprompt.errors import DataError, EstimationError

# ------------------------------------------------------------------------------------------------- repeats


def test_variance_components_by_hand():
    # Means 0.5, 4, 7.5; within (0.25 * 2 + 0 + 0.25 * 2) / 3 = 1/3; between 2 * 24.5 / 2 = 24.5.
    frame = pd.DataFrame({"item": [1, 1, 2, 2, 3, 3], "y": [0.0, 1.0, 4.0, 4.0, 8.0, 7.0]})
    got = repeat_variance(frame, unit="item", outcome="y").parts[0]
    assert got["sd_repeats"] ** 2 == pytest.approx(1 / 3)
    assert got["sd_items"] ** 2 == pytest.approx((24.5 - 1 / 3) / 2)
    assert got.estimate == pytest.approx((1 / 3) / (1 / 3 + (24.5 - 1 / 3) / 2))
    assert (got["n_items"], got["n_trials"], got["n_changed"], got["largest_range"], got["repeats"]) == (
        3,
        6,
        2,
        1.0,
        2.0,
    )
    ratio = 24.5 * 3
    low = ratio / stats.f.ppf(0.975, 2, 3)
    assert got.ci_high == pytest.approx(1 - (low - 1) / (low + 1))
    assert error_of_mean(got, 10, 4) == pytest.approx(
        np.sqrt((got["sd_items"] ** 2 + got["sd_repeats"] ** 2 / 4) / 10)
    )


def test_variance_components_equal_the_restricted_likelihood_of_a_balanced_design():
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(0)
    item = np.repeat(np.arange(40), 5)
    y = rng.normal(0, 2, 40)[item] + rng.normal(size=200)
    frame = pd.DataFrame({"item": item, "y": y})
    got = repeat_variance(frame, unit="item", outcome="y").parts[0]
    fit = smf.mixedlm("y ~ 1", frame, groups="item").fit(reml=True)
    assert got["sd_repeats"] ** 2 == pytest.approx(fit.scale, rel=1e-4)
    assert got["sd_items"] ** 2 == pytest.approx(float(fit.cov_re.iloc[0, 0]), rel=1e-3)


def test_the_interval_for_the_share_of_repeats_covers():
    hits = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        item = np.repeat(np.arange(15), 3)
        y = rng.normal(size=15)[item] + 0.7 * rng.normal(size=45)
        row = repeat_variance(pd.DataFrame({"i": item, "y": y}), unit="i", outcome="y").parts[0]
        hits += row.ci_low <= 0.49 / 1.49 <= row.ci_high
    assert 0.93 <= hits / 500 <= 0.97


def test_arms_are_looked_at_one_by_one_and_deterministic_ones_said_to_be():
    item = np.tile(np.repeat(["p", "q", "r"], 2), 2)
    arm = np.repeat(["cot", "direct"], 6)
    y = [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.3, 0.3, 0.1, 0.1, 0.7, 0.7]
    frame = pd.DataFrame({"item": item, "arm": arm, "y": y})
    got = repeat_variance(frame, unit="item", outcome="y", treatment="arm")
    cot, direct = got.parts
    assert (cot.label, cot["n_changed"], cot["worst_item"]) == ("cot", 1, "p")
    # Means of 0.1 + 0.1 and the like are rounded; equal outcomes are equal all the same.
    assert (direct["n_changed"], direct["sd_repeats"], direct.estimate, direct["worst_item"]) == (
        0,
        0.0,
        0.0,
        None,
    )
    assert "Under 'direct' 3 items keep their 'y' in 6 trials: repeats add nothing" in got.sentence
    assert len(got.to_frame()) == 2
    json.dumps(got.to_dict())
    alone = pd.concat([frame, pd.DataFrame({"item": ["s"], "arm": ["cot"], "y": [1.0]})])
    assert repeat_variance(alone, unit="item", outcome="y", treatment="arm").parts[0]["n_single"] == 1
    with pytest.raises(EstimationError, match=r"0 item\(s\) are repeated; at least two are needed"):
        repeat_variance(frame.iloc[[0, 2, 4]], unit="item", outcome="y")
    with pytest.raises(DataError, match="'y' has 1 missing"):
        repeat_variance(frame.assign(y=[np.nan, *y[1:]]), unit="item", outcome="y")


def repeated(values, arm="direct"):
    items, reps = values.shape
    return pd.DataFrame(
        {
            "item_id": np.repeat([f"i{k}" for k in range(items)], reps),
            "arm": arm,
            "rep": np.tile(np.arange(reps), items),
            "y": values.ravel(),
        }
    )


def over_reps(frame):
    return repeat_variance(frame, unit="item_id", outcome="y", treatment="arm", rep="rep").parts


def test_against_the_analysis_of_variance_of_statsmodels():
    rng = np.random.default_rng(0)
    frame = repeated(rng.normal(size=(9, 1)) + 0.7 * rng.normal(size=(9, 4)))
    anova = anova_lm(ols("y ~ C(item_id)", frame).fit())
    mean_squares = anova["sum_sq"] / anova["df"]
    (found,) = over_reps(frame.sample(frac=1, random_state=1))
    assert found["sd_repeats"] ** 2 == pytest.approx(mean_squares["Residual"])
    assert found["sd_items"] ** 2 == pytest.approx(
        (mean_squares["C(item_id)"] - mean_squares["Residual"]) / 4
    )
    assert found["mean"] == pytest.approx(frame["y"].mean())
    assert found["rep_means"] == pytest.approx(tuple(frame.groupby("rep")["y"].mean()))
    assert found["sd_rep_means"] == pytest.approx(frame.groupby("rep")["y"].mean().std(ddof=1))


def test_known_variance_components_are_found():
    # Between 4, within 0.25: the mean of 300 estimates is within four of its standard errors.
    rng = np.random.default_rng(1)
    found = [
        over_reps(repeated(2 * rng.normal(size=(20, 1)) + 0.5 * rng.normal(size=(20, 3))))[0]
        for _ in range(300)
    ]
    for name, truth in (("sd_repeats", 0.25), ("sd_items", 4.0)):
        values = np.array([f[name] ** 2 for f in found])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(300)


def test_arms_stand_apart():
    a, b = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    frame = pd.concat([repeated(b, "few_shot"), repeated(a, "direct")])
    direct, few = over_reps(frame)
    assert (few.label, direct.label) == ("few_shot", "direct")
    assert (direct["sd_repeats"], direct["sd_items"], direct["sd_rep_means"]) == (0, 0, 0)
    assert few["sd_repeats"] ** 2 == pytest.approx(0.5)
    assert few["sd_rep_means"] == pytest.approx(np.sqrt(0.5))


def test_the_variance_between_items_is_never_negative():
    frame = repeated(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert over_reps(frame)[0]["sd_items"] == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.drop(columns="y"), "'y' is not in the table"),
        (lambda f: f[f["rep"] == 0], r"3 item\(s\) in 1 repetition\(s\)"),
        (lambda f: f[f["item_id"] == "i0"], r"1 item\(s\) in 2 repetition\(s\)"),
        (lambda f: f.iloc[1:], "'y' is missing for an item in some repetition"),
        (lambda f: f.assign(y=[np.nan, *f["y"][1:]]), "'y' has 1 missing"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "an item occurs twice in one repetition"),
    ],
)
def test_tables_that_have_no_such_variance(change, match):
    with pytest.raises(DataError, match=match):
        over_reps(change(repeated(np.arange(6.0).reshape(3, 2))))


# ------------------------------------------------------------------------------------------------- batches


def trials(rng, *, items=12, repeats=4, size=4, batch_sd=0.0, noise=1.0, padding=0.0):
    """Items in batches drawn anew for each repeat."""
    tokens = rng.integers(5, 60, items)
    base = rng.normal(0, 3, items)
    rows = []
    for rep in range(repeats):
        for b, chunk in enumerate(np.array_split(rng.permutation(items), items // size)):
            shock = batch_sd * rng.normal()
            for i in chunk:
                others = np.mean([tokens[j] for j in chunk if j != i])
                y = base[i] + shock + padding * others + noise * rng.normal()
                rows.append(
                    {"item": f"q{i}", "rep": rep, "batch": f"{rep}.{b}", "tokens": int(tokens[i]), "y": y}
                )
    return pd.DataFrame(rows)


def test_the_exact_test_enumerates_by_hand():
    frame = pd.DataFrame(
        {
            "item": ["a", "a", "b", "b", "c", "c"],
            "batch": ["1", "2", "1", "2", "2", "1"],
            "y": [0.0, 1.0, 2.0, 3.0, 9.0, 7.0],
        }
    )
    got = batch_interference(frame, unit="item", outcome="y", batch="batch")
    assert (got["exact"], got["arrangements"]) == (True, 8)
    # All three items are higher in batch 2: only this arrangement and its mirror are as extreme.
    assert got.parts[0].p_value == 2 / 8
    signs = [0.5, 0.5, 1.0]
    values = [
        2 * sum(s * v for s, v in zip(pick, signs, strict=True)) ** 2 / 3
        for pick in itertools.product((1, -1), repeat=3)
    ]
    assert got.parts[0].estimate == pytest.approx(max(values))
    assert (got["n_items"], got["n_trials"], got["n_batches"], got["n_changed"], got["largest_range"]) == (
        3,
        6,
        2,
        3,
        2.0,
    )


def test_drawn_and_enumerated_arrangements_agree(monkeypatch):
    frame = trials(np.random.default_rng(1), items=6, repeats=3, size=3, batch_sd=1.0)
    monkeypatch.setattr("whyprompt.effects.checks.batches._EXACT", 10**6)
    exact = batch_interference(frame, unit="item", outcome="y", batch="batch", features=["tokens"])
    assert (exact["exact"], exact["arrangements"]) == (True, 6**6)
    monkeypatch.setattr("whyprompt.effects.checks.batches._EXACT", 1)
    drawn = batch_interference(
        frame, unit="item", outcome="y", batch="batch", features=["tokens"], draws=4999
    )
    assert not drawn["exact"]
    for one, other in zip(exact.parts, drawn.parts, strict=True):
        assert one.estimate == other.estimate
        # Monte Carlo error of a share over 4,999 draws is at most 0.0071.
        assert one.p_value == pytest.approx(other.p_value, abs=0.03)


def test_the_test_keeps_its_size_for_a_skewed_outcome_and_finds_a_batch_effect():
    p = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        frame = trials(rng)
        frame["y"] = np.exp(frame["y"] / 3)
        got = batch_interference(
            frame, unit="item", outcome="y", batch="batch", features=["tokens"], draws=99, random_state=seed
        )
        p.append([t.p_value for t in got.parts])
    p = np.array(p)
    for column in p.T:
        assert stats.kstest(column - 0.005, "uniform").pvalue > 0.001
        assert np.mean(column <= 0.05) < 0.12
    found = [
        batch_interference(
            trials(np.random.default_rng(s), batch_sd=1.0), unit="item", outcome="y", batch="batch", draws=199
        )
        for s in range(30)
    ]
    assert np.mean([g.parts[0].p_value <= 0.05 for g in found]) > 0.8
    assert "An item's outcome is not its own" in found[0].sentence
    # The components are unbiased: batch 1, repeats 1.
    assert np.mean([g["sd_batch"] ** 2 for g in found]) == pytest.approx(1.0, abs=0.45)
    assert np.mean([g["sd_repeats"] ** 2 for g in found]) == pytest.approx(1.0, abs=0.2)


def test_padding_by_long_neighbours_is_found_by_their_length():
    frame = trials(np.random.default_rng(3), items=24, padding=0.1, noise=0.3)
    got = batch_interference(frame, unit="item", outcome="y", batch="batch", features=["tokens"], draws=999)
    by_name = {t.label: t for t in got.parts}
    assert by_name["tokens"].p_value == 0.001
    assert by_name["tokens"].estimate > 0.5
    assert "the neighbours mean of 'tokens'" in got.sentence
    arrow = batch_interference(
        pa.Table.from_pandas(frame), unit="item", outcome="y", batch="batch", features=["tokens"], draws=999
    )
    assert arrow == got


def test_components_equal_least_squares_in_a_crossed_design():
    """Every item once in every batch: the two-way analysis of variance."""
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(5)
    item, batch = (v.ravel() for v in np.meshgrid(np.arange(8), np.arange(5), indexing="ij"))
    y = rng.normal(0, 3, 8)[item] + rng.normal(0, 2, 5)[batch] + rng.normal(size=40)
    frame = pd.DataFrame({"item": item, "batch": batch, "y": y})
    got = batch_interference(frame, unit="item", outcome="y", batch="batch", draws=99)
    table = anova_lm(smf.ols("y ~ C(item) + C(batch)", frame).fit())
    assert got["sd_repeats"] ** 2 == pytest.approx(table.loc["Residual", "mean_sq"])
    expected = (table.loc["C(batch)", "mean_sq"] - table.loc["Residual", "mean_sq"]) / 8
    assert got["sd_batch"] ** 2 == pytest.approx(expected)
    assert got.parts[0].estimate == pytest.approx(table.loc["C(batch)", "sum_sq"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_names_order_and_shifts_of_items_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    frame = trials(rng, items=6, repeats=2, size=3)
    base = batch_interference(frame, unit="item", outcome="y", batch="batch")
    shift = dict(zip(frame["item"].unique(), rng.normal(0, 100, 6), strict=True))
    changed = frame.assign(
        y=frame["y"] + frame["item"].map(shift), batch=frame["batch"].map(lambda b: f"b{hash(b) % 1000}{b}")
    ).sample(frac=1, random_state=seed)
    got = batch_interference(changed, unit="item", outcome="y", batch="batch")
    assert got.parts[0].p_value == base.parts[0].p_value
    assert got.parts[0].estimate == pytest.approx(base.parts[0].estimate)


def test_what_never_changes_and_what_never_moved():
    frame = trials(np.random.default_rng(2), noise=0.0)
    still = batch_interference(frame, unit="item", outcome="y", batch="batch", draws=99)
    assert (still["n_changed"], still.parts[0].p_value, still["sd_batch"]) == (0, 1.0, 0.0)
    assert "no sign of interference" in still.sentence
    frame["one"] = frame["item"]
    with pytest.raises(EstimationError, match="no item was run in two values of 'one'"):
        batch_interference(frame, unit="item", outcome="y", batch="one")
    extra = pd.concat([frame, frame.iloc[:2].assign(item="lone", batch="0.0")])
    assert batch_interference(extra, unit="item", outcome="y", batch="batch", draws=99)["n_left_out"] == 2
    # The same item under another arm is another item.
    arms = frame.assign(arm=np.where(frame["rep"] < 2, "a", "b"))
    got = batch_interference(arms, unit="item", outcome="y", batch="batch", treatment="arm", draws=99)
    assert got["n_items"] == 24
    assert len(got.to_frame()) == 1
    json.dumps(got.to_dict())
    # Units numbered anew in each repetition are told apart by both columns.
    split = frame.assign(unit=frame["batch"].str.split(".").str[1])
    both = batch_interference(split, unit="item", outcome="y", batch=["rep", "unit"], draws=99)
    assert both == still
    with pytest.raises(EstimationError, match="batch names no column"):
        batch_interference(split, unit="item", outcome="y", batch=[])
    with pytest.raises(EstimationError, match="the neighbours' mean of 'flat' does not change"):
        batch_interference(frame.assign(flat=1.0), unit="item", outcome="y", batch="batch", features=["flat"])


# ---------------------------------------------------------------------------------------- a scoring function


class Scorer:
    """Lengths of texts, with a fault to be found, counting its calls."""

    def __init__(self, fault="none"):
        self.fault, self.calls, self.rng = fault, [], np.random.default_rng(0)

    def __call__(self, batch):
        self.calls.append(list(batch))
        out = np.array([float(len(text)) for text in batch])
        if self.fault == "padding":
            out += 0.5 * (out.max() - out)
        if self.fault == "noise":
            out += self.rng.normal(size=len(out))
        if self.fault == "first":
            out[0] += 2.0 * (len(batch) > 1)
        return out.tolist()


TEXTS = ["a" * k for k in (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)]


def test_a_function_of_the_item_alone_is_consistent_and_called_as_promised():
    score = Scorer()
    got = batch_consistency(score, TEXTS, batch_size=4, draws=2)
    assert (got.verdict, got["largest"], got["largest_order"], got["n_beyond"]) == ("passes", 0.0, 0.0, 0)
    sizes = [len(call) for call in score.calls]
    assert sizes == [1] * 20 + [4, 4, 2] * 3
    assert score.calls[20] == TEXTS[:4]
    assert sorted(itertools.chain(*score.calls[23:26])) == sorted(TEXTS)
    assert score.calls[23:26] != score.calls[20:23]
    assert [row["alone"] for row in got.parts] == [len(t) for t in TEXTS]
    assert "neighbours do not change an item's score" in got.sentence
    assert len(got.to_frame()) == 10
    json.dumps(got.to_dict())


def test_padding_position_and_noise_are_told_apart():
    padded = batch_consistency(Scorer("padding"), TEXTS, batch_size=5, draws=4)
    assert padded.verdict == "fails"
    assert 0 < padded["largest"] <= 4.0
    away = [max(abs(v) for v in (row.estimate, *row.ends)) for row in padded.parts]
    assert away[padded["worst"]] == padded["largest"] == max(away)
    assert padded.parts[padded["worst"]].label == f"item {padded['worst']}"
    assert padded["largest_repeat"] == 0.0
    assert "depends on its neighbours" in padded.sentence
    first = batch_consistency(Scorer("first"), TEXTS, batch_size=5, draws=3)
    assert (first["largest"], first["largest_order"]) == (2.0, 2.0)
    noisy = batch_consistency(Scorer("noise"), TEXTS, batch_size=5)
    assert noisy.verdict == "doubtful"
    assert "neighbours cannot be blamed" in noisy.sentence
    assert batch_consistency(Scorer("padding"), TEXTS, tolerance=10.0).verdict == "passes"


def test_a_scoring_function_that_misbehaves_is_named():
    with pytest.raises(DataError, match=r"score returned 2 numbers for 1 items \(alone\)"):
        batch_consistency(lambda batch: [0.0, 1.0], TEXTS)  # noqa: ARG005 - what is tested
    with pytest.raises(DataError, match=r"score returned nan for item 0 \(in order\)"):
        batch_consistency(lambda batch: [np.nan if len(batch) > 1 else 0.0] * len(batch), TEXTS)
    with pytest.raises(EstimationError, match=r"1 item\(s\)"):
        batch_consistency(Scorer(), TEXTS[:1])
    with pytest.raises(EstimationError, match="batch_size=1"):
        batch_consistency(Scorer(), TEXTS, batch_size=1)


def test_the_packed_scoring_of_a_real_model_is_consistent(tiny_model):
    """Prompts that share prefixes are packed together: the case where neighbours could leak."""
    import torch

    from whyprompt import load_model
    from whyprompt.trials.models.local import Encoded
    from whyprompt.trials.models.scoring import score

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        lm = load_model(str(tiny_model), device="cpu")
        rng = np.random.default_rng(0)
        stem = tuple(rng.integers(10, 200, 12).tolist())
        made = [(*stem[: 4 + i % 9], *rng.integers(10, 200, 3 + i).tolist()) for i in range(10)]
        requests = [Encoded(ids[: 4 + i % 3], ids[4 + i % 3 :]) for i, ids in enumerate(made)]
        got = batch_consistency(
            lambda batch: [one.total for one in score(lm, batch)],
            requests,
            batch_size=5,
            draws=2,
            tolerance=1e-3,
        )
    finally:
        torch.set_num_threads(before)
    assert got.verdict == "passes", got.sentence
    # The scores differ between items by far more than between companies.
    assert np.std([row["alone"] for row in got.parts]) > 100 * got["largest"]
