"""The yardsticks' harness: what it reads, how it scores, that a stopped run goes on. On made-up folders."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import yardsticks_data
    import yardsticks_tables

    return yardsticks_data, yardsticks_tables


def write(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        frame.to_csv(file, index=False)


def confounded(n, seed, names):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(size=n) for name in names})
    treated = (rng.random(n) < 1 / (1 + np.exp(-frame[names[0]]))).astype(int)
    y0 = frame[names[0]] + rng.normal(size=n)
    return frame, treated, y0, y0 + 1 + 0.5 * frame[names[0]]


@pytest.fixture
def folder(tmp_path, harness):
    """The yardsticks' files in small."""
    data, _ = harness
    rng = np.random.default_rng(3)
    acic = tmp_path / "acic2016"
    x, z, y0, y1 = confounded(200, 1, ["x_1", "x_3"])
    x.insert(1, "x_2", rng.choice(["A", "B"], 200))
    write(acic / "x.csv.gz", x)
    rows, published = [], []
    for row in (1, 3, 5):
        both = pd.DataFrame({"y0": y0 + row, "y1": y1 + row})
        one = both.assign(z=z, y=np.where(z, both["y1"], both["y0"]))
        write(acic / "instances" / f"p{row:02d}_r001.csv.gz", one)
        satt = (y1 - y0)[z == 1].mean()
        rows.append({"row": row, "satt_y": satt, "sd_y": 2.0})
        published.append(
            {"method": "close", "row": row, "satt": satt + 0.02, "lower": satt - 1, "upper": satt + 1}
        )
        published.append(
            {"method": "far", "row": row, "satt": satt + 8, "lower": satt + 7, "upper": satt + 9}
        )
    published[-1] |= dict.fromkeys(("satt", "lower", "upper"))
    write(acic / "truth.csv", pd.DataFrame(rows))
    write(acic / "published_estimates.csv", pd.DataFrame(published))

    person = ["age", "education", "black", "hispanic", "married", "nodegree", "re74", "u74", "u75"]
    for outcome, files in data._LALONDE.items():
        for number, file in enumerate(files):
            frame, treated, before, after = confounded(120, number, person)
            both = {"re75": before, "re78": np.where(treated, after, before)}
            write(tmp_path / "lalonde" / f"{file}.csv.gz", frame.assign(treat=treated, **both))
        assert len(files) == len(set(files)) == 7, outcome
    lines = [
        {"table": table, "sample": s, "method": m, "Estimate": e, "CI_lower": e - 1, "CI_upper": e + 1}
        for table in ("est_ldw", "est_ldw_placebo")
        for k, s in enumerate(data.SAMPLES)
        for m, e in (("diff", float(k)), ("reg", k + 0.5))
    ]
    write(tmp_path / "lalonde" / "published_estimates.csv", pd.DataFrame(lines))

    for name, seed in (("lalonde_psid_sample0", 0), ("lalonde_psid_sample1", 1), ("lalonde_cps_sample0", 2)):
        frame, treated, y0, y1 = confounded(150, seed, [*person[:7], "re75"])
        one = frame.assign(t=treated.astype(float), y=np.where(treated, y1, y0), y0=y0, y1=y1)
        write(tmp_path / "realcause" / f"{name}.csv.gz", one)
    lines = [
        {"dataset": d, "meta-estimator": m, "outcome_model": "Ridge", "prop_score_model": None}
        | {"ate_bias": b, "ate_rmse": b}
        for d in ("lalonde_psid", "lalonde_cps")
        for m, b in (("standardization", 0.001), ("standardization", 5.0), ("ipw", 9.0))
    ]
    write(tmp_path / "realcause" / "published_estimators.csv.gz", pd.DataFrame(lines))
    return tmp_path


@pytest.fixture
def asked(tmp_path):
    """Questions of two families, in the layouts of their sources."""
    root = tmp_path / "questions"
    (root / "gsm8k").mkdir(parents=True)
    (root / "natural_instructions").mkdir()
    rng = np.random.default_rng(4)
    lines = [
        {"question": f"{'Ann has ' * rng.integers(1, 30)}{k} eggs", "answer": "<<1>>" * rng.integers(1, 6)}
        for k in range(60)
    ]
    (root / "gsm8k" / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    instances = [
        {"input": "Where? " * rng.integers(1, 40), "output": ["a b c"[: rng.integers(1, 6)]]}
        for _ in range(60)
    ]
    text = json.dumps({"Instances": instances})
    (root / "natural_instructions" / "task033_where.json").write_text(text)
    return root


def test_cases_are_read_with_their_truth(folder, harness):
    data, _ = harness
    places = data.Places(data=folder, questions=folder)
    assert data.names("acic2016", places, draws=9) == ["p01_r001", "p03_r001", "p05_r001"]
    assert data.names("acic2016", places, draws=9, every=2) == ["p01_r001", "p05_r001"]
    assert data.names("realcause", places, draws=9, every=2)[:2] == [
        "lalonde_cps_sample0/ate",
        "lalonde_cps_sample0/att",
    ]
    one = data.case("acic2016", "p03_r001", places)
    known = pd.read_csv(folder / "acic2016" / "truth.csv").set_index("row")
    assert one.truths["att"] == pytest.approx(known.loc[3, "satt_y"])
    assert one.confounders == ("x_1", "x_2", "x_3")
    assert list(one.matrix()) == ["x_1", "x_3", "x_2_B"]

    assert len(data.names("lalonde", places, draws=9)) == 14
    one, placebo = (data.case("lalonde", f"{what}/out6", places) for what in ("re78", "re75"))
    assert set(one.confounders) - set(placebo.confounders) == {"re75", "u75"}
    # Trimmed as CPS, held to the experiment trimmed so.
    assert (one.truths, placebo.truths) == ({"att": 1.0}, {"att": 0.0})

    one = data.case("realcause", "lalonde_psid_sample0/ate", places)
    both = [pd.read_csv(folder / "realcause" / f"lalonde_psid_sample{k}.csv.gz") for k in (0, 1)]
    assert one.truths["ate"] == pytest.approx(np.mean([(b["y1"] - b["y0"]).mean() for b in both]))
    assert one.truths["att"] == pytest.approx((both[0]["y1"] - both[0]["y0"])[both[0]["t"] == 1].mean())


def test_what_is_not_there_is_said(tmp_path, harness):
    data, _ = harness
    places = data.Places(data=tmp_path, questions=tmp_path)
    assert all("is not there: name the folder with --data" in data.missing(y, places) for y in data.YARDS[:3])
    assert "--questions" in data.missing("prompts", places)
    done = run("--data", str(tmp_path), "--methods", "naive")
    assert done.returncode == 0
    assert done.stdout.count("Not measured: its data were not there.") == 4


@pytest.mark.parametrize("rule", ["coin", "difficulty", "family", "length", "all"])
def test_simulated_logs_have_the_truth_they_state(rule, folder, asked, harness):
    """Weighed by the chances that the rule had, many logs give the stated effects of all four estimands."""
    data, _ = harness
    places = data.Places(data=folder, questions=asked)
    items, _, _ = data._pool(asked)
    found = {name: [] for name in ("att", "ate", "atc", "ato")}
    every, decide = data.chances(items, rule), ("task", "difficulty", "question_chars")
    chance = dict(zip(zip(*(items[c] for c in decide), strict=True), every, strict=True))
    for draw in range(60):
        one = data.case("prompts", f"simulated/{rule}/{draw}", places)
        assert len(one.frame) == data.ITEMS
        e = np.array([chance[row] for row in zip(*(one.frame[c] for c in decide), strict=True)])
        t, y = one.arm, one.frame["correct"].to_numpy()
        for name, h in (("ate", e * 0 + 1), ("att", e), ("atc", 1 - e), ("ato", e * (1 - e))):
            means = [np.average(y[a], weights=(h / p)[a]) for a, p in ((t, e), (~t, 1 - e))]
            found[name].append(means[0] - means[1])
    for name, values in found.items():
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - one.truths[name]) < 4 * error, name
    again = data.case("prompts", f"simulated/{rule}/59", places)
    pd.testing.assert_frame_equal(one.frame, again.frame)
    assert rule != "coin" or np.ptp(every) == 0


def test_of_a_study_of_both_arms_one_is_kept(folder, asked, harness, tmp_path):
    data, _ = harness
    rng = np.random.default_rng(5)
    n = 40
    items = pd.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(n)],
            "task_type": rng.choice(["sum", "word"], n),
            "difficulty": rng.normal(size=n),
            "question_tokens": rng.integers(5, 50, n),
            "question_perplexity": rng.normal(30, 5, n),
        }
    )
    arms = [items.assign(arm=a, log_prob=rng.normal(m, 1, n)) for a, m in (("direct", 0), ("few_shot", 1))]
    trials = pd.concat([*arms, *(a.assign(log_prob=a["log_prob"] + 2) for a in arms)])
    trials.to_csv(tmp_path / "trials.csv", index=False)
    places = data.Places(data=folder, questions=asked, trials=(tmp_path / "trials.csv",))
    assert "trials/all/0" in data.names("prompts", places, draws=1)
    one = data.case("prompts", "trials/difficulty/3", places)
    effect = (arms[1]["log_prob"] - arms[0]["log_prob"]).to_numpy()
    np.testing.assert_allclose(np.sort(one.effect), np.sort(effect))
    assert one.truths["ate"] == pytest.approx(effect.mean())
    assert one.truths["att"] == pytest.approx(one.effect[one.arm].mean())
    kept = {round(v, 9) for a in arms for v in a["log_prob"] + 1}
    assert {round(v, 9) for v in one.frame["log_prob"]} <= kept


def test_scores(harness):
    _, tables = harness
    whole = {"estimand": "att", "truths": {"att": 1.0}, "seconds": 2.0}
    good = whole | {"estimate": 1.2, "low": 0.2, "high": 2.2}
    off = whole | {"estimate": 3.0, "low": 2.5, "high": 3.5}
    records = [
        good,
        off,
        off | {"flags": {"overlap": "doubtful"}},
        off | {"declines": True},
        {"failed": "no"},
    ]
    found = tables.score(records, [tables.truth(r) for r in records], [0.5, 1.0, 1.0, 1.0, 1.0])
    errors = np.array([0.4, 2.0, 2.0, 2.0])
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert found["bias"] == pytest.approx(errors.mean())
    assert found["median"] == pytest.approx(2.0)
    assert found["coverage"] == pytest.approx(0.25)
    assert found["coverage_error"] == pytest.approx(np.sqrt(3 / 8 * 5 / 8 / 8))
    assert [found["silent"], found["failed"]] == pytest.approx([1 / 5, 1 / 5])
    assert found["declines"] == pytest.approx(2 / 5)
    assert found["claims"] == pytest.approx(3 / 4)
    assert found["seconds"] == pytest.approx(2.0)
    # Rows that were left out have a truth of their own.
    assert not tables.silent(off | {"own": 3.1})
    words = [
        tables.said(one) for one in (good, good | {"low": -0.1}, good | {"low": None}, records[3], records[4])
    ]
    assert words == ["claims one", "covers 0", "no interval", "declines", "-"]
    nothing = tables.score([{"failed": "no"}], [None])
    assert nothing["failed"] == 1
    assert np.isnan(nothing["rmse"])


def run(*words):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(BENCHMARKS / "yardsticks.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_its_page_holds_the_published_beside_ours(folder, asked, tmp_path):
    keep, page = tmp_path / "lines.jsonl", tmp_path / "page.md"
    words = ["--data", str(folder), "--questions", str(asked), "--draws", "2", "--methods", "naive", "none"]
    words += ["--keep", str(keep), "--write", str(page)]
    first = run(*words)
    assert first.returncode == 0, first.stderr
    lines = keep.read_text().splitlines()
    assert len(lines) == 2 * (3 + 14 + 6 + 2 * 5)
    keep.write_text("\n".join([*lines[:-3], lines[-2][:40]]))
    second = run(*words)
    assert "3/3, 0 s left" in second.stderr
    text = page.read_text()
    # But for the seconds, the last column.
    one, other = (re.sub(r"[\d.]+ \|$", "", done.stdout, flags=re.MULTILINE) for done in (first, second))
    assert one == other
    assert second.stdout == text

    assert "| 1 | close (published) | 0.0100 | 100% | 0.0100 | - | - | 0% | - |" in text
    assert "| - | far (published) | 4.0000 | 0% | 4.0000 | - | - | 33% | - |" in text
    assert "is reached by close on these sets" in text
    assert "method 'none' is not known" in text
    assert re.search(r"\| reg \(published\) \| 0 \(-0 to 2\) \|", text)
    assert "standardization, Ridge (best of 2 published) | 0 | 0 | - | 1 |" in text
    assert text.count("### simulated, arm by") == 5
    # A difference of means is never called an effect of logs, whatever drew their arms.
    assert f"| **`naive`** | {'0% | ' * 5}100% | 100% |" in text


def test_data_that_cannot_be_read_are_no_failure_of_a_method(folder):
    file = folder / "acic2016" / "instances" / "p03_r001.csv.gz"
    write(file, pd.read_csv(file).drop(columns="y1"))
    done = run("--data", str(folder), "--only", "acic2016", "--methods", "naive")
    assert done.returncode == 1
    assert "the data cannot be used" in done.stderr
    assert "p03_r001" in done.stderr
    assert "y1" in done.stderr


def test_the_covariates_are_those_of_the_published_table(shared_data, harness):
    """Least squares and the difference of means give the published figures to the digit, in all samples."""
    data, _ = harness
    folder = shared_data / "yardsticks"
    if not folder.is_dir():
        pytest.skip(f"no yardsticks at {folder}")
    places = data.Places(data=folder, questions=shared_data)
    published = pd.read_csv(folder / "lalonde" / "published_estimates.csv")
    published = published.set_index(["table", "sample", "method"])["Estimate"]
    for name in data.names("lalonde", places, draws=1):
        one = data.case("lalonde", name, places)
        y, arm = one.frame[one.outcome].to_numpy(float), one.arm
        design = np.column_stack([np.ones(len(y)), arm, one.matrix()])
        outcome, sample = name.split("/")
        table = "est_ldw" if outcome == "re78" else "est_ldw_placebo"
        slope = np.linalg.lstsq(design, y, rcond=None)[0][1]
        assert slope == pytest.approx(published[table, sample, "reg"], abs=1e-5)
        assert y[arm].mean() - y[~arm].mean() == pytest.approx(published[table, sample, "diff"], abs=1e-5)
