"""Cohen's kappa, held against statsmodels and scikit-learn, and its interval against simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from whyprompt import agreement
from whyprompt.errors import DataError, EstimationError


def pairs(n=80, kinds=2, agree=0.8, seed=0):
    rng = np.random.default_rng(seed)
    one = rng.integers(0, kinds, n)
    other = np.where(rng.random(n) < agree, one, rng.integers(0, kinds, n))
    return pd.DataFrame({"judge": one, "label": other, "item": np.arange(n) // 4})


@pytest.mark.parametrize(("n", "kinds", "agree"), [(80, 2, 0.8), (50, 3, 0.5), (200, 5, 0.1), (12, 2, 0.9)])
def test_it_is_the_published_kappa_with_its_published_error(n, kinds, agree):
    frame = pairs(n, kinds, agree, seed=n)
    found = agreement(frame, "judge", "label")
    assert found.estimate == pytest.approx(cohen_kappa_score(frame["judge"], frame["label"]), abs=1e-12)
    table = pd.crosstab(frame["judge"], frame["label"]).reindex(range(kinds), fill_value=0)
    table = table.reindex(columns=range(kinds), fill_value=0)
    theirs = cohens_kappa(table.to_numpy())
    assert found.estimate == pytest.approx(theirs.kappa, abs=1e-12)
    assert found.overall.std_error == pytest.approx(np.sqrt(theirs.var_kappa), abs=1e-12)
    assert found.overall["agree"] == np.mean(frame["judge"] == frame["label"])
    assert found.overall.ci_low < found.estimate < found.overall.ci_high


def test_it_knows_no_order_of_rows_columns_or_names():
    frame = pairs(60, 3)
    found = agreement(frame, "judge", "label")
    words = frame.replace(
        {"judge": {0: "bad", 1: "good", 2: "odd"}, "label": {0: "bad", 1: "good", 2: "odd"}}
    )
    for other in (
        agreement(frame.sample(frac=1, random_state=1), "judge", "label"),
        agreement(frame, "label", "judge"),
        agreement(words, "judge", "label"),
    ):
        assert other.estimate == pytest.approx(found.estimate, abs=1e-12)
        assert other.overall.std_error == pytest.approx(found.overall.std_error, abs=1e-12)


def test_rows_of_one_item_are_no_rows_of_their_own():
    frame = pairs(40)
    four = pd.concat([frame.assign(item=np.arange(40))] * 4)
    apart = agreement(frame, "judge", "label")
    together = agreement(four, "judge", "label", cluster="item")
    assert together.estimate == pytest.approx(apart.estimate)
    assert together.overall.std_error == pytest.approx(apart.overall.std_error * np.sqrt(40 / 39))
    assert agreement(four, "judge", "label").overall.std_error < 0.6 * apart.overall.std_error


def test_gaps_are_left_out_and_counted():
    frame = pairs(40)
    gaps = frame.assign(label=frame["label"].where(frame.index % 4 > 0))
    found = agreement(gaps, "judge", "label")
    assert found.estimate == agreement(frame[frame.index % 4 > 0], "judge", "label").estimate
    assert "10 rows without one of them left out." in found.sentence
    assert (found.overall.n_used, found.overall["n_left_out"]) == (30, 10)


def test_what_has_no_kappa_is_refused():
    frame = pairs(30)
    with pytest.raises(EstimationError, match="are '1' throughout: there is no kappa"):
        agreement(frame.assign(judge=1, label=1), "judge", "label")
    with pytest.raises(DataError, match="30 kinds of judgement"):
        agreement(frame.assign(judge=np.arange(30), label=0), "judge", "label")
    with pytest.raises(EstimationError, match="1 cluster with both"):
        agreement(frame.assign(item=0), "judge", "label", cluster="item")
    with pytest.raises(EstimationError, match="0 rows with both"):
        agreement(frame.assign(label=np.nan), "judge", "label")
    with pytest.raises(DataError, match="'lable'"):
        agreement(frame, "judge", "lable")


def test_all_agree():
    frame = pairs(30, agree=1.0)
    found = agreement(frame, "judge", "label")
    assert (found.estimate, found.overall.ci_low, found.overall.ci_high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("n", "agree", "share"), [(60, 0.6, 0.5), (60, 0.85, 0.7), (200, 0.7, 0.8)])
def test_the_interval_covers_as_often_as_it_says(n, agree, share):
    rng = np.random.default_rng(n)
    marginal = np.array([1 - share, share])
    chance = float(marginal @ marginal)
    truth = (agree + (1 - agree) * chance - chance) / (1 - chance)
    hits = 0
    draws = 600
    for _ in range(draws):
        one = (rng.random(n) < share).astype(int)
        other = np.where(rng.random(n) < agree, one, rng.random(n) < share)
        found = agreement(pd.DataFrame({"a": one, "b": other.astype(int)}), "a", "b").overall
        hits += found.ci_low <= truth <= found.ci_high
    # Within what 600 draws can show of 95%.
    assert stats.binomtest(hits, draws, 0.95).pvalue > 0.001
