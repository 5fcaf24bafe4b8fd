"""Charts hold exactly the values of the results, and draw."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from report_study import make_mediation, rows_with, values

import whyprompt as wp
from whyprompt import charts, estimate_effect
from whyprompt.effects.headline import verdict
from whyprompt.effects.outlook import sure
from whyprompt.errors import DataError, EstimationError, MediationError, WhypromptError
from whyprompt.results import Estimate, Result

OKABE_ITO = {"#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"}


def every_chart(small):
    e, m = small.effect, small.mediation
    d = e.draw.adjusted
    hard = e.draw.table["difficulty"]
    levels = [{"item_id": "a", "task": "t", "external": 1.0, "internal": 1.1}]
    dose = [{"dose": x, "estimate": x**2, "low": x**2 - 1, "high": x**2 + 1} for x in (0.0, 0.5, 1.0)]
    ways = [
        {"path": p, "estimate": x, "low": x - 1, "high": None, "sure": x > 0.5}
        for p, x in (("0.1 -> 3.0", 0.7), ("0.1 -> 1.2 -> 3.0", -0.2))
    ]
    specs = [{"estimate": 1.0, "ci_low": 0.5, "ci_high": 1.5, "method": "ipw"}]
    return {
        "forest": charts.forest_plot(e.main),
        "draw": charts.draw_plot(e.draw),
        "bias": charts.audit_plot(e.audit),
        "coverage": charts.audit_plot(e.audit, what="coverage"),
        "gain_harm": charts.gain_harm_plot(e.main),
        "love": charts.love_plot(d.balance),
        "overlap": charts.overlap_plot(d.propensity, d.treated_rows, d.weights),
        "density": charts.density_plot(hard, d.treated_rows, d.weights, name="difficulty"),
        "ecdf": charts.ecdf_plot(hard, d.treated_rows, d.weights, name="difficulty"),
        "heatmap": charts.head_heatmap(m.main.inference),
        "layers": charts.layer_plot(m.main.inference),
        "search": charts.search_plot(m.search),
        "paths": charts.path_plot(ways, {"3.0": 1.0}, title="NIE on the outcome"),
        "head_items": charts.head_items_plot(m.main.sweep, (1, 1), m.item_tasks),
        "attention": charts.attention_plot(m.attention[1], (1, 1)),
        "statistical": charts.statistical_vs_interventional(m.comparison.to_frame()),
        "levels": charts.levels_plot(levels),
        "dose": charts.dose_response_plot(dose),
        "specification": charts.specification_plot(specs, choices=["method"]),
    }


def test_every_chart_describes_itself_titles_its_axes_and_draws(small, tmp_path):
    for name, chart in every_chart(small).items():
        values(chart)
        spec = chart.to_dict()
        assert len(spec["description"]) > 30, name
        assert "nan" not in spec["description"].lower(), name
        path = wp.save_chart(chart, tmp_path / f"{name}.svg")
        svg = path.read_text()
        assert svg.startswith("<svg"), name
        assert "NaN" not in svg, name
        # Labels with words: every picture has at least one axis title.
        assert svg.count("<text") >= 3, name


def test_colours_are_okabe_and_itos(small):
    import json
    import re

    neutral = {"#1B1F24", "#57606A", "#D8DEE4", "#8A8F98", "#FFFFFF"}
    for name, chart in every_chart(small).items():
        used = set(re.findall(r"#[0-9A-Fa-f]{6}\b", json.dumps(chart.to_dict())))
        assert used <= OKABE_ITO | neutral, (name, used)


def test_forest_plot_holds_the_estimates_and_the_truth(small):
    e = small.effect
    chart = charts.forest_plot(e.main, beside={"logs": (e.draw.adjusted, e.draw.truth)})
    rows = {r["label"]: r for r in rows_with(chart, "estimate", "low", "high")}
    assert rows["all items"]["estimate"] == e.main.estimate
    assert (rows["all items"]["low"], rows["all items"]["high"]) == (e.main.ci_low, e.main.ci_high)
    for part in e.main.parts:
        assert (rows[part.label]["estimate"], rows[part.label]["low"]) == (part.estimate, part.ci_low)
    assert rows["logs"]["estimate"] == e.draw.adjusted.estimate
    assert rows_with(chart, "truth") == [
        {"label": "logs", "truth": e.draw.truth, "words": rows_with(chart, "truth")[0]["words"]}
    ]


def test_forest_plot_takes_every_kind_of_result(small):
    several = estimate_effect(
        small.frame, treatment="arm", outcome=["log_prob", "exact_match"], treated="shots", control="direct",
        design="paired",
    )  # fmt: skip
    rows = rows_with(charts.forest_plot(several), "estimate")
    assert [r["label"] for r in rows] == ["log_prob", "exact_match"]
    assert [r["estimate"] for r in rows] == [r.estimate for r in several.parts]
    with pytest.raises(DataError, match="no estimates"):
        charts.forest_plot(SimpleNamespace())


def test_forest_plot_leaves_out_what_has_no_estimate():
    result = Result(sentence="", parts=(Estimate(label="y", estimate=None, note="one arm only"),))
    with pytest.raises(EstimationError, match="no estimate to draw"):
        charts.forest_plot(result)


def test_plot_methods_of_results_draw(small):
    assert rows_with(small.effect.main.plot(), "estimate")[0]["estimate"] == small.effect.main.estimate
    adjusted = small.effect.draw.adjusted
    for kind, column in (("balance", "smd"), ("overlap", "arm"), ("effect", "estimate")):
        assert rows_with(adjusted.plot(kind), column)


def test_love_plot_holds_absolute_differences(small):
    balance = small.effect.draw.adjusted.balance
    rows = rows_with(charts.love_plot(balance), "smd", "when")
    found = {(r["covariate"], r["when"]): r["smd"] for r in rows}
    for row in balance:
        assert found[row.covariate, "before"] == abs(row.smd_before)
        assert found[row.covariate, "after"] == abs(row.smd_after)
    nothing = [SimpleNamespace(covariate="x", smd_before=None, smd_after=None)]
    with pytest.raises(EstimationError, match="no covariate"):
        charts.love_plot(nothing)


def test_path_plot_holds_every_edge_and_draws_the_largest_paths():
    ways = [
        {"path": f"0.{k} -> 2.0", "estimate": (-1) ** k * k, "low": k - 1, "high": k + 1, "sure": k > 5}
        for k in range(1, 15)
    ]
    ways.append({"path": "0.0 -> 1.0 -> 2.0", "estimate": 20.0, "low": None, "high": None, "sure": False})
    chart = charts.path_plot(ways, {"2.0": -3.0}, title="NIE")
    edges = rows_with(chart, "size", "sign", "sure")
    assert len(edges) == 2 + 11
    assert [(e["layer"], e["to"], e["size"]) for e in edges[:2]] == [(0, 1, 20.0), (1, 2, 20.0)]
    assert edges[2] | {"y": 0, "y2": 0} == {
        "layer": 0, "to": 2, "y": 0, "y2": 0, "size": 14.0, "sign": "raises", "sure": "told from zero",
        "words": "0.14 -> 2.0: 14.0 (13.0 to 15.0), told from zero",
    }  # fmt: skip
    assert "The 12 largest of 15 are drawn." in chart.to_dict()["description"]
    nodes = {n["head"]: n for n in rows_with(chart, "head")}
    assert nodes["2.0"]["words"] == "2.0: -3.00 by itself"
    assert nodes["2.0"]["own"] == 3.0
    places = [(n["layer"], n["y"]) for n in nodes.values()]
    assert len(set(places)) == len(places)
    with pytest.raises(EstimationError, match="no path to draw"):
        charts.path_plot([ways[0] | {"estimate": None}], {}, title="NIE")


def test_overlap_plot_counts_every_row_once():
    score = np.array([0.05, 0.06, 0.5, 0.95, 0.94, 0.52, np.nan])
    treated = np.array([False, False, False, True, True, True, True])
    weights = np.array([0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 1.0])
    rows = rows_with(charts.overlap_plot(score, treated, weights), "from", "to")
    count = {}
    for r in rows:
        key = (r["arm"], r["state"])
        count[key] = count.get(key, 0) + abs(r["to"] - r["from"])
        assert (r["to"] >= 0) == (r["arm"] == "treated")
    assert count == {
        ("treated", "used"): 2,
        ("treated", "left out"): 1,
        ("control", "used"): 2,
        ("control", "left out"): 1,
    }


@pytest.mark.parametrize(
    ("score", "treated", "error", "words"),
    [
        ([0.2, 1.2], [True, False], DataError, "between 0 and 1"),
        ([0.2, 0.3], [True, True], EstimationError, "both arms"),
        ([0.2, np.inf], [True, False], DataError, "infinite"),
        ([0.2, 0.3, 0.4], [True, False], DataError, "same length"),
    ],
)
def test_overlap_plot_refuses_what_is_no_score(score, treated, error, words):
    with pytest.raises(error, match=words):
        charts.overlap_plot(score, treated)


def test_ecdf_plot_is_the_weighted_distribution_function():
    x = np.array([1.0, 2.0, 2.0, 4.0, 1.0, 3.0])
    treated = np.array([True, True, True, True, False, False])
    weights = np.array([1.0, 1.0, 0.0, 2.0, 1.0, 3.0])
    rows = rows_with(charts.ecdf_plot(x, treated, weights, name="x"), "height")
    after = [(r["value"], r["height"]) for r in rows if (r["arm"], r["stage"]) == ("treated", "after")]
    # Weights 1, 1 + 0, 2 of 4: steps at 1, 2, 4.
    assert after == [(1.0, 0.0), (1.0, 0.25), (2.0, 0.5), (4.0, 1.0)]
    control = [(r["value"], r["height"]) for r in rows if (r["arm"], r["stage"]) == ("control", "after")]
    assert control == [(1.0, 0.0), (1.0, 0.25), (3.0, 1.0)]


def test_density_plot_integrates_to_one_and_follows_the_weights():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 400), rng.normal(3, 1, 400)])
    treated = np.arange(800) >= 400
    # All control weight on the rows near the treated: its curve moves there.
    weights = np.where(treated, 1.0, np.exp(2 * x))
    rows = rows_with(charts.density_plot(x, treated, weights, name="x"), "height")
    means = {}
    for arm in ("treated", "control"):
        for stage in ("before", "after"):
            curve = [(r["value"], r["height"]) for r in rows if (r["arm"], r["stage"]) == (arm, stage)]
            at, height = np.array(curve).T
            assert np.trapezoid(height, at) == pytest.approx(1, abs=0.01)
            means[arm, stage] = np.trapezoid(at * height, at)
    assert means["control", "before"] == pytest.approx(0, abs=0.15)
    assert means["control", "after"] > 1.2
    with pytest.raises(EstimationError, match="does not vary"):
        charts.density_plot([1.0, 1.0, 2.0], [True, True, False])


def test_draw_plot_sets_naive_adjusted_and_truth_side_by_side(small):
    d = small.effect.draw
    rows = rows_with(charts.draw_plot(d), "estimate", "label")
    assert [r["estimate"] for r in rows] == [d.naive.estimate, d.adjusted.estimate, d.truth, d.truth_all]
    assert rows[1]["low"] == d.adjusted.ci_low
    assert rows[2]["low"] is None


def test_audit_plot_draws_monte_carlo_error(small):
    a = small.effect.audit
    for what in ("bias", "coverage"):
        rows = {r["label"]: r for r in rows_with(charts.audit_plot(a, what=what), "estimate", "label")}
        for row in a.parts:
            value, error = row.estimate, row.std_error
            if what == "coverage":
                value, error = row["coverage"], row["coverage_error"]
            if value is None:
                assert row.label not in rows
                continue
            assert rows[row.label]["estimate"] == value
            assert rows[row.label]["high"] - value == pytest.approx(1.96 * error, rel=1e-3)


def test_gain_harm_plot_has_every_item_sorted_within_its_group(small):
    main = small.effect.main
    tasks = dict(zip(small.frame["item_id"], small.frame["task_type"], strict=True))
    rows = rows_with(charts.gain_harm_plot(main, tasks), "change", "group")
    assert len(rows) == main.n_pairs
    change = dict(zip(main.items.units, main.items.treated - main.items.control, strict=True))
    for row in rows:
        item = row["words"].split(":")[0]
        assert row["change"] == change[item]
        assert row["group"] == tasks[item]
        # Scored outcomes of fixed prompts: each difference is the item's own.
        assert row["state"] == ("gain" if change[item] > 0 else "are harmed")
    for task in set(tasks.values()):
        part = [r["change"] for r in rows if r["group"] == task]
        assert part == sorted(part, reverse=True)
    assert sum(r["state"] == "gain" for r in rows) == main.items.higher == main.items.gain_at_least
    bare = pd.DataFrame({"arm": [0, 0, 1, 1], "y": [1.0, 2.0, 3.0, 5.0]})
    other = estimate_effect(bare, treatment="arm", outcome="y", method="naive")
    with pytest.raises(EstimationError, match="both arms"):
        charts.gain_harm_plot(other)


def test_head_heatmap_holds_every_head_and_marks_those_below_the_level(small):
    inference = small.mediation.main.inference
    rows = rows_with(charts.head_heatmap(inference, outcome="log_prob"), "effect", "mark")
    assert [(r["layer"], r["head"]) for r in rows] == list(inference.heads)
    np.testing.assert_array_equal([r["effect"] for r in rows], inference.mean)
    np.testing.assert_array_equal([r["mark"] for r in rows], inference.q_value < inference.alpha)
    # The two planted heads, and the sign of each.
    assert rows[4]["mark"]
    assert rows[8]["mark"]
    assert rows[4]["effect"] > 0 > rows[8]["effect"]
    spec = charts.head_heatmap(inference).to_dict()
    low, middle, high = spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert low == -high
    assert middle == 0
    assert high == float(np.abs(inference.mean).max())
    sideways = charts.head_heatmap(inference, transpose=True).to_dict()
    assert sideways["layer"][0]["encoding"]["y"]["field"] == "layer"


def test_layer_plot_holds_heads_and_intervals_of_the_largest(small):
    inference = small.mediation.main.inference
    chart = charts.layer_plot(inference)
    named = rows_with(chart, "name")
    top = np.argsort(-np.abs(inference.mean))[:5]
    assert {r["name"] for r in named} == {"{}.{}".format(*inference.heads[i]) for i in top}
    for row in named:
        i = inference.heads.index(tuple(map(int, row["name"].split("."))))
        assert (row["low"], row["high"]) == inference.parts[i].ends


def test_search_plot_holds_both_curves_and_the_interval(small):
    s = small.mediation.search
    chart = charts.search_plot(s)
    rows = rows_with(chart, "share", "items")
    held = [r["share"] for r in rows if r["items"] == "held-out items"]
    assert held == s.held_out_share.tolist()
    assert rows_with(chart, "low", "high") == [{"heads": 1, "low": s.least.ci_low, "high": s.least.ci_high}]


def test_head_items_plot_holds_every_item(small):
    sweep = small.mediation.main.sweep
    rows = rows_with(charts.head_items_plot(sweep, (1, 1), small.mediation.item_tasks), "effect", "item")
    found = {r["item"]: r["effect"] for r in rows}
    assert found == dict(zip(sweep.item_ids, sweep.nie[:, 4].tolist(), strict=True))
    with pytest.raises(MediationError, match=r"no head 9\.0"):
        charts.head_items_plot(sweep, (9, 0))


def test_attention_plot_holds_weights_and_segments(small):
    picture = small.mediation.attention[1]
    rows = rows_with(charts.attention_plot(picture, (2, 2)), "weight", "segment")
    np.testing.assert_allclose([r["weight"] for r in rows], picture.mean_weights[8])
    assert [r["segment"] for r in rows] == [s or "no segment" for s in picture.segments]
    assert sum(bool(r["label"]) for r in rows) == 6
    with pytest.raises(MediationError, match=r"no head 0\.7"):
        charts.attention_plot(picture, (0, 7))


def test_statistical_vs_interventional_says_where_the_two_differ(small):
    c = small.mediation.comparison
    rows = {
        r["name"]: r
        for r in rows_with(charts.statistical_vs_interventional(c.to_frame()), "state", "acme_low")
    }
    for i, (layer, head) in enumerate(c.heads):
        if c.acme[i].estimate is None:
            assert f"{layer}.{head}" not in rows
            continue
        row = rows[f"{layer}.{head}"]
        assert (row["acme"], row["nie"]) == (c.acme[i].estimate, c.nie[i].estimate)
        assert row["nie_high"] == c.nie[i].ci_high
        assert (row["state"] == "differ") == c.disagree[i]
    words = charts.statistical_vs_interventional(c.to_frame()).to_dict()["description"]
    assert f"in {int(c.disagree.sum())} the two differ. 1 head has no statistical effect." in words


def test_statistical_vs_interventional_takes_a_frame():
    keys = ("acme", "acme_low", "acme_high", "nie", "nie_low", "nie_high")
    frame = pd.DataFrame(
        [(0, 0, 0.2, 0.1, 0.3, 0.25, 0.2, 0.4), (0, 1, 0.2, 0.1, 0.3, 0.9, 0.8, 1.0)],
        columns=["layer", "head", *keys],
    )
    rows = rows_with(charts.statistical_vs_interventional(frame), "state", "acme_low")
    assert {r["name"]: r["state"] for r in rows} == {"0.0": "intervals meet", "0.1": "intervals apart"}
    with pytest.raises(DataError, match="no column 'nie_high'"):
        charts.statistical_vs_interventional(frame.drop(columns="nie_high"))
    with pytest.raises(EstimationError, match="no head has a statistical effect"):
        charts.statistical_vs_interventional(frame.assign(acme=np.nan))


def test_specification_plot_sorts_and_counts_what_failed():
    frame = pd.DataFrame(
        {
            "estimate": [2.0, 1.0, np.nan],
            "ci_low": [1.5, np.nan, np.nan],
            "ci_high": [2.5, np.nan, np.nan],
            "method": ["ipw", "nearest", "full"],
        }
    )
    chart = charts.specification_plot(frame, choices=["method"], truth=1.5)
    rows = rows_with(chart, "rank", "estimate")
    assert [(r["rank"], r["estimate"], r["low"]) for r in rows] == [(1, 1.0, None), (2, 2.0, 1.5)]
    assert "1 specifications gave none" in chart.to_dict()["description"]
    with pytest.raises(EstimationError, match="no specification"):
        charts.specification_plot(frame.iloc[2:], choices=["method"])


def test_a_number_that_is_not_finite_is_refused_by_name():
    dose = [{"dose": 0.0, "estimate": math.nan, "low": 0.0, "high": 1.0}]
    with pytest.raises(DataError, match="'estimate' holds nan"):
        charts.dose_response_plot(dose)
    with pytest.raises(EstimationError, match="empty"):
        charts.dose_response_plot([])


def test_save_chart_writes_png_and_svg_and_nothing_else(small, tmp_path):
    chart = charts.forest_plot(small.effect.main)
    png = wp.save_chart(chart, tmp_path / "a.png", scale=1).read_bytes()
    assert png.startswith(b"\x89PNG")
    with pytest.raises(DataError, match=r"'.pdf'"):
        wp.save_chart(chart, tmp_path / "a.pdf")


def test_save_chart_says_what_is_missing(small, tmp_path, monkeypatch):
    monkeypatch.setattr("whyprompt.charts.render.can_render", lambda: False)
    with pytest.raises(WhypromptError, match=r"whyprompt\[charts\]"):
        wp.save_chart(charts.forest_plot(small.effect.main), tmp_path / "a.png")


def test_the_package_is_light_until_used():
    import subprocess
    import sys

    code = "import sys, whyprompt.page; print([m for m in ('altair', 'torch', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_strength_follows_its_rule(small):
    frame = pd.DataFrame({"item_id": list(range(8)) * 2, "arm": ["a"] * 8 + ["b"] * 8})
    noise = np.array([0.1, -0.1, 0.05, -0.05, 0.02, -0.02, 0.08, -0.08])
    for shift, scale, said in (
        (1.0, 1.0, "So is the size, to within"),
        (1.0, 12.0, "The size is not: the interval reaches"),
        (0.01, 10.0, "do not settle the sign"),
    ):
        frame["y"] = np.concatenate([np.zeros(8), shift + scale * noise])
        made = estimate_effect(frame, treatment="arm", outcome="y", treated="b", control="a", design="paired")
        assert said in sure(made)
    assert verdict(small.effect.draw.naive) == "no effect"
    assert sure(small.effect.draw.naive).startswith("Not at all, whatever the numbers")


@pytest.mark.parametrize("width", [346, 700])
def test_the_picture_of_the_answer_draws_both_means_and_the_interval_of_the_change(width, tmp_path):
    chart = charts.change_plot(
        0.42,
        0.38,
        (-0.14, 0.06),
        names=("direct", "cot"),
        labels=("42%", "38%"),
        interval="95% interval of the change",
        title="right",
        shares=True,
        width=width,
    )
    both = rows_with(chart, "arm", "at", "colour")
    assert [(row["arm"], row["at"]) for row in both] == [("direct", 0.42), ("cot", 0.38)]
    (interval,) = rows_with(chart, "arm", "at", "to")
    assert interval["at"] == pytest.approx(0.28)
    assert interval["to"] == pytest.approx(0.48)
    assert interval["arm"] == "cot"
    ((dashed,),) = [rows for rows in values(chart) if set(rows[0]) == {"at"}]
    assert dashed["at"] == 0.42
    assert chart.to_dict()["description"].startswith("right under direct: 42%; under cot: 38%.")
    # No share is drawn beyond those that there are, and no tick there has a number.
    for before, ends, drawn in ((0.12, (-0.33, 0.53), (0.0, 0.65)), (0.68, (-0.2, 0.34), (0.48, 1.0))):
        edge = charts.change_plot(
            before,
            before + 0.1,
            ends,
            names=("a", "b"),
            labels=("x", "y"),
            interval="95%",
            title="right",
            shares=True,
            width=width,
        )
        (interval,) = rows_with(edge, "arm", "at", "to")
        assert (interval["at"], interval["to"]) == pytest.approx(drawn)
        svg = wp.save_chart(edge, tmp_path / "edge.svg").read_text(encoding="utf-8")
        written = re.sub(r"<[^>]*>", " ", svg).replace("−", "-")
        told = [float(text) for text in re.findall(r"(-?[\d.]+)%(?= )", written)]
        assert told
        assert all(0 <= value <= 100 for value in told)
    # At an edge the interval's words stay inside.
    for ends in ((0.9, 1.0), (-1.0, -0.9)):
        far = charts.change_plot(
            0.0,
            ends[1],
            ends,
            names=("a", "b"),
            labels=("0", "1"),
            interval="95% interval of the change",
            title="y",
            width=width,
        )
        spec = json.dumps(far.to_dict())
        least, most = json.loads(re.search(r'"domain": (\[-?[\d.]+, -?[\d.]+\])', spec)[1])
        (written,) = [rows for rows in values(far) if set(rows[0]) == {"arm", "at", "label"}]
        half = 0.5 * 160 / (width - 110) * (most - least)
        assert least + half - 0.02 <= written[0]["at"] <= most - half + 0.02
    bare = charts.change_plot(
        0.4, 0.4, None, names=("a", "b"), labels=("0.4", "0.4"), interval="", title="y", width=width
    )
    assert len(values(bare)) < len(values(chart))


def test_site_plot_holds_every_site_beside_the_heads(small):
    beside = ["attn 0", "mlp 2", "resid 3", "resid 4", "neuron 2.11"]
    inference = make_mediation(small.frame, beside=beside).main.inference
    chart = charts.site_plot(inference)
    rows = {r["site"]: r for r in rows_with(chart, "site", "low")}
    assert list(rows) == beside
    for name, row in rows.items():
        part = inference.part(name)
        assert (row["effect"], row["low"], row["high"]) == (part.estimate, *part.ends)
    assert rows["resid 4"]["effect"] == pytest.approx(inference.estimate)
    assert [{"at": inference.estimate}] in values(chart)
    assert "The largest of each kind: attn 0: NIE" in chart.to_dict()["description"]
    heads = charts.head_heatmap(inference)
    assert len(rows_with(heads, "head", "mark")) == len(inference.heads)
