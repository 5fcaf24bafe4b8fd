"""Tables larger than memory: every figure and every word as in memory, and every bad input by its name."""

from __future__ import annotations

import re
import sys

import duckdb
import numpy as np
import pandas as pd
import pytest

from whyprompt import CausalGraph, estimate_effect
from whyprompt.effects.assumptions import describe_assumptions
from whyprompt.effects.large import learned, source, sweep
from whyprompt.effects.methods.folds import hashed_folds, hashed_sql
from whyprompt.effects.methods.matched import on_grid
from whyprompt.effects.methods.nearest import match_nearest
from whyprompt.errors import DataError, EstimationError, GraphError

ARMS = {"treatment": "arm", "outcome": "y", "treated": "cot", "control": "direct"}
ALL = {**ARMS, "confounders": ["x", "z", "b", "task"]}
TEXTBOOK = {
    "method": "aipw",
    "outcome_model": "linear",
    "calibrate": False,
    "propensity": "logit",
    "splits": 1,
}
# Of a table as small: passes are taken all the same.
PASSES = {"memory": "1KB"}


def frame_of(n=600, *, seed=1, binary=False):
    rng = np.random.default_rng(seed)
    x, z, b = rng.normal(size=n) * 3 + 10, rng.exponential(size=n), rng.random(n) < 0.3
    task = np.array(["math", "code", "qa"])[rng.integers(0, 3, n)]
    chance = 1 / (1 + np.exp(0.4 - 0.12 * (x - 10) - 0.4 * (z - 1) + 0.3 * b - 0.5 * (task == "code")))
    t = rng.random(n) < chance
    y = 1 + 0.3 * t + 0.5 * (x - 10) + 0.3 * z + 0.4 * (task == "qa") + rng.normal(size=n)
    if binary:
        y = (rng.random(n) < 1 / (1 + np.exp(-0.3 * t - 0.3 * (x - 10) + 0.2 * z))).astype(int)
    columns = {"arm": np.where(t, "cot", "direct"), "y": y, "x": x, "z": z, "b": b, "task": task}
    return pd.DataFrame({**columns, "site": rng.integers(0, 40, n), "share": chance})


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    out = {}
    for kind in ("number", "binary"):
        frame = frame_of(binary=kind == "binary")
        path = folder / f"{kind}.parquet"
        frame.to_parquet(path, row_group_size=250)
        out[kind] = (frame, str(path))
    return out


def close(one, other):
    """To ten digits; what is rounding of nothing may be any rounding."""
    if one is None or other is None:
        assert one is other
    else:
        assert one == pytest.approx(other, rel=1e-10, abs=1e-12)


def rounded(text):
    """Leave out figures that are rounding of nothing."""
    return re.sub(r"the largest is (0|\S+e-1\d)", "the largest is 0", text)


def same(frame, path, **asked):
    one, other = estimate_effect(frame, **asked), estimate_effect(path, **PASSES, **asked)
    for name in (
        "estimate",
        "std_error",
        "ci_low",
        "ci_high",
        "p_value",
        "df",
        "mean_treated",
        "mean_control",
    ):
        close(getattr(other.overall, name), getattr(one.overall, name))
    for name in ("n_treated", "n_control", "n_treated_used", "n_control_used", "ess_treated", "ess_control"):
        close(getattr(other, name), getattr(one, name))
    assert [r.covariate for r in other.balance] == [r.covariate for r in one.balance]
    for mine, row in zip(other.balance, one.balance, strict=True):
        for name in ("smd_before", "smd_after", "variance_ratio_before", "variance_ratio_after"):
            close(getattr(mine, name), getattr(row, name))
        assert (mine.ks_after is None) is not mine.binary
        if mine.binary:
            close(mine.ks_after, row.ks_after)
    for mine, row in zip(other.measures, one.measures, strict=True):
        for name in ("estimate", "std_error", "ci_low", "ci_high"):
            close(getattr(mine, name), getattr(row, name))
    assert other.sentence == one.sentence
    assert [rounded(str(a)) for a in other.assumptions] == [rounded(str(a)) for a in one.assumptions]
    assert other.warnings[:-1] == one.warnings
    assert "DuckDB took its sums in passes" in other.warnings[-1]
    mine = {k: v for k, v in other.settings.items() if k != "table"}
    assert mine == {
        k: pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for k, v in one.settings.items()
    }
    assert other.std_error_method == one.std_error_method
    return other


CASES = [
    {"method": "naive"},
    {"method": "naive", "cluster": "site"},
    {"method": "naive", "design": "randomized"},
    {"method": "ipw"},
    {"method": "ipw", "estimand": "ate", "stabilised": True},
    {"method": "ipw", "estimand": "atc", "cluster": "site"},
    {"method": "ipw", "propensity": "share"},
    {"method": "overlap", "denominator": "weighted", "level": 0.9},
    {"method": "overlap", "cluster": "site", "denominator": "all"},
    {"method": "entropy"},
    {"method": "entropy", "estimand": "ate", "cluster": "site"},
    {"method": "entropy", "estimand": "atc", "targets": "fixed"},
    *({**TEXTBOOK, "estimand": estimand} for estimand in ("att", "atc", "ate", "ato")),
    {"method": "nearest"},
    {"method": "nearest", "estimand": "atc", "cluster": "site"},
    {"method": "nearest", "caliper": "none", "propensity": "share"},
    {"method": "nearest", "caliper": 0.1, "distance": "logit", "order": "smallest"},
    {"method": "nearest", "caliper": 0.02, "caliper_unit": "raw", "level": 0.9},
    {"method": "nearest", "propensity": "share", "regression_adjustment": False},
    {"method": "naive", "design": "randomized", "cluster": "site"},
    {**TEXTBOOK, "folds": 1, "cluster": "site"},
    {**TEXTBOOK, "folds": 1, "cluster": "site", "design": "randomized", "estimand": "ate"},
    {**TEXTBOOK, "cluster": "site", "estimand": "atc"},
    {**TEXTBOOK, "calibrate": True},
    {**TEXTBOOK, "calibrate": True, "estimand": "ate", "cluster": "site"},
    {**TEXTBOOK, "propensity": "share", "folds": 2, "random_state": 3},
]


@pytest.mark.parametrize("asked", CASES, ids=lambda a: "-".join(str(v) for v in a.values()))
def test_every_digit_and_word_is_that_of_the_rows_in_memory(tables, asked):
    kind = "binary" if asked.get("estimand", "att") in {"att", "ato"} else "number"
    same(*tables[kind], **ALL, **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "ipw"},
        {"method": "ipw", "estimand": "ate"},
        {"method": "overlap"},
        {"method": "entropy", "estimand": "atc"},
        {"method": "nearest"},
        {**TEXTBOOK, "estimand": "ate"},
    ],
    ids=lambda a: "-".join(str(v) for v in a.values()),
)
def test_what_adjusting_left_and_its_chance_are_those_of_the_rows_in_memory(tables, monkeypatch, asked):
    """A verdict has room for a wrong figure; these are the figures that it is of."""
    frame, path = tables["number"]
    seen = []

    def noted(**about):
        seen.append(about["left"])
        return describe_assumptions(**about)

    for module in ("whyprompt.effects.estimate", "whyprompt.effects.large.estimated"):
        monkeypatch.setattr(f"{module}.describe_assumptions", noted)
    estimate_effect(frame, **ALL, **asked)
    estimate_effect(path, **ALL, **asked, **PASSES)
    one, other = seen
    for name in ("moved", "chance", "error", "estimate"):
        close(getattr(other, name), getattr(one, name))
    assert one.chance > 0
    assert (other.modelled, other.curved) == (one.modelled, one.curved)


def test_several_files_and_a_pattern_are_one_table(tables, tmp_path):
    frame, path = tables["number"]
    for k in range(3):
        frame.iloc[200 * k : 200 * (k + 1)].to_parquet(tmp_path / f"part{k}.parquet")
    whole = estimate_effect(path, method="ipw", **ALL, **PASSES)
    parts = [str(tmp_path / f"part{k}.parquet") for k in range(3)]
    for given in (str(tmp_path / "part*.parquet"), parts):
        close(estimate_effect(given, method="ipw", **ALL, **PASSES).estimate, whole.estimate)
    found = estimate_effect(parts, method="ipw", **ALL)
    assert (found.settings["table"], found.weights.shape) == ("read whole", (600,))
    close(found.std_error, whole.std_error)


def test_columns_may_be_called_as_those_of_the_queries_are(tables, tmp_path):
    frame = tables["number"][0].rename(columns={"x": "t", "z": "w", "b": "x0", "task": "e", "site": "c"})
    path = str(tmp_path / 't "of" it\'s.parquet')
    frame.rename(columns={"w": 'w "1"'}).to_parquet(path)
    same(
        frame.rename(columns={"w": 'w "1"'}),
        path,
        method="ipw",
        **ARMS,
        confounders=["t", 'w "1"', "x0", "e"],
    )
    frame.assign(T=1.0).to_parquet(path)
    with pytest.raises(DataError, match="the names 'T', 't' differ by capital letters alone"):
        estimate_effect(path, method="ipw", **ARMS, confounders=["t"], **PASSES)


def test_levels_of_one_arm_items_other_arms_and_a_graph(tables, tmp_path):
    frame = tables["number"][0].copy()
    frame.loc[(frame["arm"] == "direct") & (frame.index < 30), "task"] = "law"
    frame.loc[frame.index % 97 == 0, "arm"] = "other"
    frame["copy"], frame["item_id"] = 2.0 * frame["x"] - 1.0, frame.index // 2
    path = str(tmp_path / "t.parquet")
    frame.to_parquet(path)
    asked = {**ARMS, "confounders": ["x", "copy", "task"], "base_levels": {"task": "qa"}}
    found = same(frame, path, method="overlap", **asked)
    assert found.settings["cluster"] == "item_id"
    assert any("'law'" in text for text in found.warnings)
    same(frame, path, method="ipw", cluster="none", **asked)
    graph = CausalGraph.read("x -> arm; x -> y; task -> arm; task -> y; arm -> y; arm -> z")
    same(frame, path, method="overlap", cluster="none", graph=graph, **ARMS)
    with pytest.raises(GraphError):
        estimate_effect(path, method="ipw", graph=graph, confounders=["x", "z"], **ARMS, **PASSES)
    for shown, more in ((frame, {}), (path, PASSES)):
        with pytest.raises(EstimationError, match="levels that one arm has alone: task = 'law'"):
            estimate_effect(shown, method="ipw", estimand="ate", cluster="none", **asked, **more)


def test_known_chances_that_do_not_fit_or_lie_unused_and_a_moved_covariate_are_said(tables, tmp_path):
    frame = tables["number"][0].assign(other=lambda t: 1.0 - t["share"])
    path = str(tmp_path / "t.parquet")
    frame.to_parquet(path)
    asked = {**ARMS, "confounders": ["x"], "method": "ipw", "cluster": "none"}
    assert any("other" in text for text in same(frame, path, propensity="other", **asked).warnings)
    named = frame.rename(columns={"share": "propensity"})
    named.to_parquet(path)
    assert any("propensity" in text for text in same(named, path, **asked).warnings)
    apart = frame.assign(x=frame["x"] + 2.0 * (frame["arm"] == "cot"))
    apart.to_parquet(path)
    found = same(apart, path, **{**asked, "method": "naive", "design": "randomized"})
    assert any("x" in str(a) and a.status == "fails" for a in found.assumptions)
    items = apart.assign(item_id=np.arange(len(apart)) // 2)
    items["arm"] = np.where(items.index % 2, "cot", "direct")
    items["x"] = items["z"] + 2.0 * (items["arm"] == "cot") + 0.1 * (items.index % 3)
    items.to_parquet(path)
    for shown, more in ((items, {}), (path, PASSES)):
        with pytest.raises(EstimationError, match=r"the arm moves x .* in the same 'item_id'"):
            estimate_effect(shown, **{**ARMS, "confounders": ["x"], "method": "ipw"}, **more)


def test_known_chances_need_no_curves_and_a_heavy_row_is_said_as_in_memory(tmp_path):
    frame, path = frame_of(900), str(tmp_path / "t.parquet")
    frame.to_parquet(path)
    asked = {**ARMS, "confounders": ["x", "z"], "propensity": "share"}
    found = same(frame, path, **asked, method="aipw", splits=1)
    assert "functional form" not in {a.name for a in found.assumptions}
    control = np.flatnonzero(frame["arm"] == "direct")[0]
    frame.loc[control, "share"] = 0.99
    frame.to_parquet(path)
    found = same(frame, path, **asked, method="ipw")
    (overlap,) = (a for a in found.assumptions if a.name == "overlap")
    assert "one row carries" in overlap.detail


LEARNED = [
    {},
    {"design": "randomized", "cluster": "site"},
    {"method": "aipw", "estimand": "ate", "cluster": "site"},
    {"method": "aipw", "estimand": "ato", "random_state": 2},
    {"method": "aipw", "propensity": "logit", "calibrate": False, "estimand": "atc"},
    {"method": "aipw", "outcome_model": "linear", "folds": 2},
    {
        "method": "aipw",
        "propensity": "sklearn.naive_bayes.GaussianNB()",
        "outcome_model": "sklearn.linear_model.Ridge()",
    },
]


@pytest.mark.parametrize("asked", LEARNED, ids=lambda a: "-".join(str(v) for v in a.values()))
def test_the_default_is_that_of_memory_where_no_model_has_more_rows_than_a_sample(tmp_path, asked):
    """One deal of the folds, which memory has unasked from 4,501 rows on."""
    asked = {**asked, "splits": 1} if "method" in asked else asked
    frame = frame_of(900 if "method" in asked else 4_600, seed=3, binary=asked.get("design") == "randomized")
    path = str(tmp_path / "t.parquet")
    frame.to_parquet(path, row_group_size=1_000)
    found = same(frame, path, **ALL, **asked)
    assert "samples" not in found.sentence


def curved(n, *, seed=1, bent=2.0):
    """Arm and outcome go by the signs of three columns at once, which few rows teach."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    curve = np.sign(x[:, 0] * x[:, 1] * x[:, 2]) - np.abs(x[:, 3])
    t = rng.random(n) < 1 / (1 + np.exp(-curve))
    y = t + bent * curve + rng.normal(size=n)
    return pd.DataFrame(x, columns=list("abcd")).assign(arm=np.where(t, "cot", "direct"), y=y)


@pytest.mark.parametrize(
    "asked", [{}, {"estimand": "ate"}, {"propensity": "logit", "estimand": "atc"}], ids=["", "ate", "logit"]
)
def test_half_as_many_rows_teach_what_they_teach_in_memory(tmp_path, asked):
    frame, path = curved(5_000), str(tmp_path / "t.parquet")
    frame.to_parquet(path, row_group_size=1_000)
    asked = {**ARMS, "confounders": list("abcd"), "method": "aipw", "splits": 1, **asked}
    found = same(frame, path, **asked)
    (form,) = (a for a in found.assumptions if a.name == "functional form")
    assert "half as many to learn from would have" in form.detail


def test_rows_whose_half_has_lines_alone_are_held_to_none_in_passes_either(tmp_path):
    frame, path = curved(700), str(tmp_path / "t.parquet")
    frame.to_parquet(path, row_group_size=200)
    asked = {**ARMS, "confounders": list("abcd"), "method": "aipw", "splits": 1, "estimand": "ate"}
    found = same(frame, path, **asked)
    (form,) = (a for a in found.assumptions if a.name == "functional form")
    assert (form.status, "half as many" in form.detail) == ("doubtful", False)


def test_of_samples_half_as_many_rows_are_half_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(learned, "ROWS", 4_000)
    path, sizes, read = str(tmp_path / "t.parquet"), [], learned._Sample.of

    def counted(self, where):
        found = read(self, where)
        sizes.append((where, len(found[2])))
        return found

    monkeypatch.setattr(learned._Sample, "of", counted)
    curved(20_000).to_parquet(path)
    found = estimate_effect(path, **ARMS, confounders=list("abcd"), **PASSES)
    halves = [n for where, n in sizes if "fold in" in where and "t" not in where.split("fold")[0]]
    assert len(halves) == 5
    assert all(abs(n - 2_000) < 200 for n in halves)
    assert {a.name: a.status for a in found.assumptions}["functional form"] == "fails"
    assert "may therefore not be claimed" in found.sentence


def test_the_default_asks_elsewhere_where_treated_rows_have_no_counterpart(tmp_path):
    frame = frame_of(4_600, seed=4)
    likely = 1 / (1 + np.exp(-3.0 * (frame["x"] - 10)))
    frame["arm"] = np.where(np.random.default_rng(0).random(len(frame)) < likely, "cot", "direct")
    path = str(tmp_path / "t.parquet")
    frame.to_parquet(path)
    found = same(frame, path, **ALL)
    assert found.estimand == "ato"
    assert any("the effect on the treated rows" in text for text in found.warnings)


def test_models_of_many_rows_are_fitted_to_a_sample_and_the_sentence_says_so(tmp_path, monkeypatch):
    """A sample of 2,000 stands for that of 200,000: the truth is a curve that lines miss."""
    monkeypatch.setattr(learned, "ROWS", 2_000)
    rng, n = np.random.default_rng(5), 30_000
    x, z = rng.normal(size=(2, n))
    t = rng.random(n) < 1 / (1 + np.exp(0.8 - np.abs(x) - 0.5 * x * z))
    frame = pd.DataFrame({"x": x, "z": z, "arm": np.where(t, "cot", "direct")})
    frame["y"] = 0.3 * t + 1.5 * np.abs(x) + x * z + rng.normal(size=n)
    path = str(tmp_path / "t.parquet")
    frame.to_parquet(path)
    asked = {**ARMS, "confounders": ["x", "z"], "estimand": "ate", **PASSES}
    found = estimate_effect(path, **asked)
    assert abs(found.estimate - 0.3) < 3 * found.std_error < 0.1
    assert "were learned from samples of" in found.sentence
    lines = estimate_effect(path, method={"aipw": {"outcome_model": "linear"}}, propensity="logit", **asked)
    assert lines.estimate - 0.3 > 10 * lines.std_error
    assert "samples" not in lines.sentence
    frame.sample(frac=1.0, random_state=0).to_parquet(path)
    close(estimate_effect(path, **asked).estimate, found.estimate)


def test_pairs_are_those_of_memory_however_rows_lie_in_blocks(tmp_path, monkeypatch):
    """Scores alone, all different, few different or both; blocks of few rows; a caliper, or none."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        monkeypatch.setattr(sweep, "_BLOCK", int(rng.integers(2, 40)))
        n, share = int(rng.integers(4, 60)), rng.choice([0.2, 0.5, 0.8])
        treated = rng.random(n) < share
        treated[:2] = True, False
        few, all_different = rng.integers(1, rng.choice([6, 20]), n) / 20, rng.uniform(0.05, 0.95, n)
        score = on_grid(np.where(rng.random(n) < rng.choice([0.0, 0.5, 1.0]), few, all_different))
        value, width = on_grid(np.log(score / (1 - score))), float(rng.choice([0.1, 0.4, np.inf]))
        order, estimand = rng.choice(["largest", "smallest"]), rng.choice(["att", "atc"])
        asked = {"estimand": estimand, "order": order, "caliper": (value, width)}
        at = np.lexsort((np.arange(n), score))
        place = np.argsort(at)
        arms = []
        for k, arm in enumerate((treated, ~treated)):
            rows = at[arm[at]]
            path = tmp_path / str(k)
            path.write_bytes(sweep.Sorted.bytes_of(score[rows], value[rows], place[rows], rows))
            arms.append(sweep.Sorted(path, len(rows)))
        arms = arms if estimand == "att" else arms[::-1]
        found = list(sweep.swept(*arms, width, largest=order == "largest", memory=10**6))
        pairs = [np.concatenate([part[k] for part in found]).tolist() for k in (0, 1)]
        try:
            one = match_nearest(score, treated, **asked)
        except EstimationError:
            assert pairs == [[], []]
        else:
            assert pairs == [one.focal.tolist(), one.other.tolist()]


def test_more_free_rows_in_a_caliper_than_memory_holds_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_BLOCK", 50)
    arms = []
    for k, score in enumerate((np.linspace(0.1, 0.2, 60), np.linspace(0.3, 0.9, 400))):
        n = len(score)
        path = tmp_path / str(k)
        path.write_bytes(sweep.Sorted.bytes_of(score, score, np.arange(n), np.arange(n)))
        arms.append(sweep.Sorted(path, n))
    assert len(list(sweep.swept(*arms, np.inf, largest=True, memory=20_000))) == 3
    with pytest.raises(EstimationError, match="rows that are still free lie within a caliper"):
        list(sweep.swept(*arms, np.inf, largest=True, memory=1_000))
    arms[0] = arms[0]._replace(path=arms[1].path)
    (tmp_path / "1").write_bytes(
        sweep.Sorted.bytes_of(np.full(400, 0.5), np.zeros(400), np.arange(400), np.arange(400))
    )
    # In lists they take more than on disk, those that choose as those that are chosen from.
    for several in ((arms[1], arms[0]), (arms[0]._replace(n_rows=1), arms[1])):
        with pytest.raises(EstimationError, match="more rows share a score than memory holds"):
            list(sweep.swept(*several, np.inf, largest=True, memory=20_000))


def test_equal_rows_are_matched_in_the_order_of_the_table_or_of_a_column(tables, tmp_path):
    frame = tables["number"][0].assign(x=lambda t: (t["x"] > 10) * 1.0, z=lambda t: t["z"].round())
    frame["key"] = np.random.default_rng(1).permutation(len(frame)).astype(str)
    # One row alone has its level in the matched sample: its regression goes through it.
    frame["rare"] = np.where(frame.index == 7, "r", "s")
    path = str(tmp_path / "t.parquet")
    frame.to_parquet(path, row_group_size=100)
    asked = {**ARMS, "confounders": ["x", "z", "b"], "method": "nearest"}
    by_table = same(frame, path, **asked)
    assert any("rows share their score" in text for text in by_table.warnings)
    by_key = same(frame, path, tie_break="key", **asked)
    assert not any("rows share their score" in text for text in by_key.warnings)
    assert by_key.estimate != by_table.estimate
    same(frame, path, **{**asked, "confounders": ["x", "z", "rare"]}, propensity="share", caliper=0.5)
    with pytest.raises(DataError, match="'site' does not identify rows"):
        estimate_effect(path, tie_break="site", **asked, **PASSES)


def test_rows_are_dealt_alike_by_place_where_they_are_very_many(tables, monkeypatch):
    """Beyond so many rows folds follow from places, in memory and not; here from the first row on."""
    frame, path = tables["number"]
    drawn = estimate_effect(frame, **ALL, **TEXTBOOK).estimate
    for module in ("methods.folds", "large.dealt"):
        monkeypatch.setattr(sys.modules[f"whyprompt.effects.{module}"], "HASHED", 10)
    assert same(frame, path, **ALL, **TEXTBOOK).estimate != drawn
    same(frame, path, cluster="site", **ALL, **TEXTBOOK)
    # What is larger is sorted in parts, by ranges of the first key.
    monkeypatch.setattr(sys.modules["whyprompt.effects.large.dealt"], "_AT_A_TIME", 1e-4)
    for names in (["x", "z"], ["task", "x"], ["b", "z"]):
        same(frame, path, **ARMS, confounders=names, **TEXTBOOK)
    shuffled = estimate_effect(frame.sample(frac=1.0, random_state=0), **ALL, **TEXTBOOK).estimate
    close(shuffled, estimate_effect(frame, **ALL, **TEXTBOOK).estimate)
    made = duckdb.sql("from range(20000) t(i)").project(hashed_sql("(i + 7)", 5, 3)).fetchall()
    folds = np.array([row[0] for row in made])
    np.testing.assert_array_equal(folds, hashed_folds(7, 20_000, 5, 3))
    assert np.abs(np.bincount(folds) / 4_000 - 1).max() < 0.06


def test_a_table_without_a_spread_and_a_separated_one_say_so_as_in_memory(tables, tmp_path):
    frame = tables["number"][0].copy()
    path = str(tmp_path / "t.parquet")
    frame["flat"], frame["apart"] = 2.0, np.where(frame["arm"] == "cot", 1.0, -1.0) * frame["z"]
    frame["same"] = np.where(frame["arm"] == "cot", 1.0, 0.0)
    frame.to_parquet(path)
    asked = {**ARMS, "confounders": ["x"], "method": "ipw", "outcome": "same"}
    assert same(frame, path, **asked).std_error is None
    same(frame, path, **{**asked, "outcome": "y", "confounders": ["x", "flat"]})
    for columns in (["apart", "x"], ["x", "same"]):
        messages = []
        for shown, more in ((frame, {}), (path, PASSES)):
            with pytest.raises(EstimationError) as error:
                estimate_effect(shown, **{**asked, "outcome": "y", "confounders": columns}, **more)
            messages.append(str(error.value))
        assert messages[0] == messages[1]
        assert "separated" in messages[0]


BAD = [
    ({"outcome": "gap"}, "outcome column 'gap' has 1 missing value"),
    ({"outcome": "infinite"}, "has 1 infinite value(s), the first in row 3"),
    ({"outcome": "task"}, "outcome column 'task' is text"),
    ({"outcome": "yy"}, "outcome column 'yy' is not in the table"),
    ({"confounders": ["when"]}, "confounder column 'when' holds"),
    ({"confounders": ["name"]}, "confounder 'name' has 600 levels in 600 rows"),
    ({"confounders": ["latency_ms"]}, "'latency_ms' cannot be a confounder"),
    ({"treatment": "one", "treated": None, "control": None}, "treatment column 'one' is constant"),
    ({"treatment": "task", "treated": None, "control": None}, "has 3 levels (code, math, qa)"),
    ({"treated": "none"}, "no row of treatment column 'arm' has the level 'none'"),
    ({"propensity": "x"}, "must lie strictly between 0 and 1"),
    ({"base_levels": {"task": "law"}, "confounders": ["task"]}, "reference level 'law' does not occur"),
    ({"estimand": "atx"}, "estimand 'atx' is not known"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_columns_are_refused_in_the_words_of_memory(tables, tmp_path, change, said):
    frame = tables["number"][0].copy()
    frame["gap"], frame["infinite"], frame["one"] = frame["y"], frame["y"], "cot"
    frame.loc[5, "gap"], frame.loc[3, "infinite"] = None, np.inf
    frame["when"], frame["name"] = pd.Timestamp("2025-01-01"), [f"n{k}" for k in range(len(frame))]
    frame["latency_ms"] = frame["x"]
    path = str(tmp_path / "t.parquet")
    frame.to_parquet(path)
    messages = []
    for shown, more in ((frame, {}), (path, PASSES)):
        with pytest.raises((DataError, EstimationError)) as error:
            estimate_effect(shown, **{**ARMS, "confounders": ["x"], "method": "ipw", **change}, **more)
        messages.append(str(error.value))
    assert said in messages[0]
    # pandas calls a date by a name of its own.
    assert messages[1] == messages[0].replace("Timestamp", "datetime")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "kernel"}, "method 'kernel' is not offered"),
        ({"method": "nearest", "exact": ["task"]}, "method 'nearest' with exact=('task',) is not offered"),
        ({"method": "nearest", "ratio": 2}, "method 'nearest' with ratio=2 is not offered"),
        ({"method": "nearest", "order": "closest"}, "with order='closest' is not offered"),
        ({"method": "nearest", "estimand": "ate"}, "needs replacement for the ATE"),
        ({"method": "nearest", "regression_adjustment": False}, "the error of an estimated score without"),
        ({"method": "aipw", "splits": 3}, "its rows are dealt to folds once"),
        ({"method": "ipw", "propensity": "boosted"}, "a learned score needs its rows"),
        ({"method": "ipw", "truncate": 0.99}, "truncate= sorts its scores"),
        ({"method": "ipw", "std_error": "bootstrap"}, "std_error='bootstrap' is not offered"),
        ({"method": "ipw", "by": "task"}, "by= is not offered"),
        ({"method": "ipw", "outcome": ["y", "z"]}, "several outcomes is not offered"),
        ({"design": "paired"}, "design='paired' is not offered"),
    ],
)
def test_what_needs_rows_is_refused_with_what_is_offered(tables, asked, said):
    with pytest.raises(EstimationError) as error:
        estimate_effect(tables["number"][1], **{**ALL, **asked}, **PASSES)
    assert said in error.value.message
    assert re.search("may take 0 MB|cluster|larger than memory", error.value.message)
    if "kernel" in said:
        assert "naive, ipw, overlap, entropy" in str(error.value.hint)


def test_files_that_are_no_table(tables, tmp_path, monkeypatch):
    frame, path = tables["number"]
    text = tmp_path / "t.parquet"
    text.write_text("a,b\n1,2\n")
    for given, said in (
        (str(text), "is not a Parquet file"),
        (str(tmp_path / "none.parquet"), "there is no such file"),
        (str(tmp_path / "*.pq"), "no file has a name of this pattern"),
    ):
        with pytest.raises(DataError, match=re.escape(said)):
            estimate_effect(given, method="ipw", **ALL)
    other = str(tmp_path / "other.parquet")
    frame.drop(columns="z").to_parquet(other)
    with pytest.raises(DataError, match="are not one table: not both have 'z'"):
        estimate_effect([path, other], method="ipw", **ALL)
    frame.iloc[:0].to_parquet(other)
    with pytest.raises(DataError, match="the table has no rows"):
        estimate_effect(other, method="ipw", **ALL)
    with pytest.raises(EstimationError, match="memory='much' is no amount"):
        estimate_effect(path, method="ipw", memory="much", **ALL)
    with pytest.raises(EstimationError, match="memory= is of a table given by its path"):
        estimate_effect(frame, method="ipw", memory="1GB", **ALL)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(DataError, match="is not installed") as error:
        estimate_effect(path, method="ipw", **ALL, **PASSES)
    assert "pip install 'whyprompt[tables]'" in str(error.value.hint)


def _sorted_without_room(table):
    with source.connected(table) as connection:
        connection.execute("set max_temp_directory_size = '1KB'")
        connection.execute(
            "create temp table t as select i, i::varchar v from range(20000000) t(i) order by v"
        )


def test_a_disk_without_room_is_named(tables):
    """A folder for what is put aside, of no size, stands for a disk that is full."""
    table = source.parquet_files(tables["number"][1], "1KB")
    with pytest.raises(DataError, match="more disk for what it puts aside") as error:
        _sorted_without_room(table)
    assert "TMPDIR" in str(error.value.hint)


def test_the_size_of_a_table_decides(tables, monkeypatch):
    table = source.parquet_files(tables["number"][1])
    assert table.size == pytest.approx(600 * 8 * 8, rel=0.4)
    assert table.fits
    monkeypatch.setattr(source, "_free", lambda: 1e9)
    assert source.bytes_of(None) == 250_000_000
    assert not source.parquet_files(tables["number"][1], table.size - 1).fits
    assert source.parquet_files(tables["number"][1], table.size).fits
