"""``whyprompt effect`` on tables: MatchIt's numbers by command line, its JSON, and every bad input."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from whyprompt import (
    compare_arms,
    dose_response,
    estimate_effect,
    estimate_with_imputation,
    heterogeneous_effects,
    placebo_treatment,
    prompt_policy,
    refute,
    sensitivity_report,
)
from whyprompt.cli import main

REFERENCE = Path(__file__).parents[1] / "reference"
LALONDE = REFERENCE / "lalonde.csv"
COVARIATES = "age,educ,race,married,nodegree,re74,re75"
KEYS = {
    "estimand", "estimate", "std_error", "ci_low", "ci_high", "n_treated", "n_control", "n_treated_used",
    "n_control_used", "balance", "assumptions", "warnings", "sentence",
}  # fmt: skip
BALANCE_KEYS = {"covariate", "smd_before", "smd_after", "variance_ratio_after"}


@pytest.fixture
def run(run):
    """The same of `whyprompt effect`."""
    return partial(run, "effect")


@pytest.fixture(scope="module")
def matchit():
    return json.loads((REFERENCE / "matchit_lalonde.json").read_text())["specs"]


def lalonde(*extra):
    return (LALONDE, "--treatment", "treat", "--outcome", "re78", "--confounders", COVARIATES, *extra)


# R compares the means of the matches as they are.
PLAIN = "regression_adjustment=no"


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("nearest_largest", [f"nearest:{PLAIN},caliper=none"]),
        ("nearest_data", [f"nearest:{PLAIN},caliper=none,order=data"]),
        ("nearest_caliper02", [f"nearest:{PLAIN},caliper=0.2"]),
        ("nearest_linear_cal02", [f"nearest:{PLAIN},caliper=0.2,distance=logit"]),
        ("nearest_replace", [f"nearest:{PLAIN},replace"]),
        ("nearest_replace_k3", [f"nearest:{PLAIN},replace=true,ratio=3"]),
        ("nearest_ratio2", [f"nearest: {PLAIN}, caliper=none, ratio=2, replace=no"]),
        ("nearest_atc", [f"nearest:{PLAIN},replace=yes", "--estimand", "atc"]),
        ("nearest_exact", [f"nearest:{PLAIN},caliper=none,exact=race"]),
        ("nearest_mahal", [f"nearest:{PLAIN},distance=mahalanobis"]),
        (
            "nearest_mahal_cal",
            [f"nearest:{PLAIN},distance=mahalanobis,mahalanobis_on=age+educ+re74+re75,caliper=0.25"],
        ),
        ("subclass6", [f"subclass:{PLAIN}"]),
        ("cem_default", [f"cem:{PLAIN}"]),
        ("discard_both", [f"nearest:{PLAIN},caliper=none,discard=both"]),
    ],
)
def test_the_command_gives_matchits_numbers(run, matchit, key, options):
    wanted = matchit[key]
    by_pairs = {"pairs", "lm_cluster_subclass_se_HC1"} <= wanted.keys()
    asked = ["--method", *options, *(["--std-error", "pairs"] if by_pairs else [])]
    code, out, err = run(*lalonde(*asked, "--json"))
    assert code == 0, err
    assert err == ""
    found = json.loads(out)
    assert set(found) >= KEYS
    assert found["estimate"] == pytest.approx(wanted["att"], abs=1e-6)
    assert (found["n_treated"], found["n_control"]) == (185, 429)
    assert found["n_treated_used"] == wanted["n_treated_matched"]
    assert found["n_control_used"] == wanted["n_control_matched"]
    if by_pairs:
        assert found["std_error_method"].startswith("pair-cluster-robust")
        assert found["std_error"] == pytest.approx(wanted["lm_cluster_subclass_se_HC1"], rel=1e-4)
    assert found["ci_low"] < found["estimate"] < found["ci_high"]
    assert [row["covariate"] for row in found["balance"]][:3] == ["age", "educ", "race_black"]
    assert all(set(row) >= BALANCE_KEYS for row in found["balance"])
    assert all(set(a) == {"name", "status", "check", "detail"} for a in found["assumptions"])


def test_the_command_and_the_library_give_the_same(run):
    method = ("--method", "aipw:outcome_model=linear,splits=2", "--propensity", "logit")
    _, out, _ = run(*lalonde(*method, "--estimand", "ate", "--seed", "3", "--by", "race", "--json"))
    library = estimate_effect(
        pd.read_csv(LALONDE),
        treatment="treat",
        outcome="re78",
        confounders=COVARIATES.split(","),
        method={"aipw": {"outcome_model": "linear", "splits": 2}},
        propensity="logit",
        estimand="ate",
        random_state=3,
        by=["race"],
    )
    assert json.loads(out) == json.loads(json.dumps(library.to_dict()))
    assert len(json.loads(out)["parts"]) == 3


def test_in_a_process_of_its_own(tmp_path):
    asked = [str(word) for word in lalonde("--method", f"nearest:{PLAIN},caliper=0.2")]
    done = subprocess.run(
        [sys.executable, "-m", "whyprompt.cli", "effect", *asked],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    if done.returncode == 1 and "No module named whyprompt.cli.__main__" in done.stderr:
        done = subprocess.run(
            [sys.executable, "-c", "from whyprompt.cli import main; main()", "effect",
             *asked],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a difference of 1572" in done.stdout
    assert "race_hispan" in done.stdout
    assert "FAILS        balance" in done.stdout
    assert "72 of 185 '1' rows are not used" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (["--method", "neerest"], "nearest"),
        (["--method", "nearest:calliper=0.2"], "caliper"),
        (["--design", "pared"], "paired"),
        (["--check", "sensitivty"], "sensitivity"),
        (["--check", "placebo:drows=99"], "draws"),
        (["--as", "all_arms"], "all-arms"),
        (["--std-error", "bootstrp"], "bootstrap"),
        (["--estimand", "atx"], "att"),
        (["--denominator", "poled"], "pooled"),
        (["--by", "rase"], "race"),
        (["--confounders", "age,eduk"], "educ"),
        (["--treated", "11"], "1"),
        (["--method", "nearest:order=larger"], "largest"),
    ],
)
def test_a_slip_in_a_name_is_answered_by_the_one_that_was_meant(run, options, meant):
    code, _, err = run(*lalonde(*options))
    assert code == 2
    assert f"did you mean {meant!r}?" in err


@pytest.mark.parametrize(("mark", "file"), [(";", "t.csv"), ("\t", "t.csv"), ("|", "t.csv"), (",", "t.tsv")])
def test_a_delimited_table_is_read_whatever_separates_its_columns(run, tmp_path, mark, file):
    pd.read_csv(LALONDE).to_csv(tmp_path / file, index=False, sep=mark)
    assert run(tmp_path / file, *lalonde()[1:], "--json") == run(*lalonde(), "--json")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_decimal_commas_are_read_where_no_comma_separates_the_columns(run, tmp_path, mark):
    frame = pd.read_csv(LALONDE)
    frame["re74"] += 0.25
    frame.loc[3, "re75"] = None
    point, comma = tmp_path / "point.csv", tmp_path / "comma.csv"
    frame.to_csv(point, index=False)
    frame.to_csv(comma, index=False, sep=mark, decimal=",")
    asked = ["--treatment", "treat", "--outcome", "re78", "--method", "ipw", "--json"]
    asked += ["--confounders", "race,age,educ,re74"]
    assert run(comma, *asked) == run(point, *asked)
    # Each of these may part thousands: they stay text, and none is taken for a number.
    text = frame.assign(re74=[f"1,{i:03d}" for i in range(len(frame))])
    text.to_csv(comma, index=False, sep=mark)
    code, _, err = run(comma, *asked)
    assert (code, "re74" in err) == (2, True), err


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "json"])
def test_every_kind_of_file_gives_the_same(run, tmp_path, kind):
    frame = pd.read_csv(LALONDE)
    path = tmp_path / f"trials.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=kind == "jsonl")
    code, out, err = run(path, *lalonde("--method", f"nearest:{PLAIN},caliper=0.2", "--json")[1:])
    assert code == 0, err
    assert json.loads(out)["estimate"] == pytest.approx(1571.74445442478, abs=1e-6)


GRAPH = "race, age, educ -> treat, re78; treat -> re78"


@pytest.mark.parametrize("form", ["text", "file", "dot"])
def test_a_graph_chooses_the_confounders(run, tmp_path, form):
    graph = GRAPH
    if form == "file":
        graph = tmp_path / "graph.txt"
        graph.write_text(GRAPH)
    elif form == "dot":
        graph = tmp_path / "graph.dot"
        edges = "; ".join(f"{v} -> {w}" for v in ("race", "age", "educ") for w in ("treat", "re78"))
        graph.write_text(f"digraph {{ {edges}; treat -> re78 }}")
    asked = ("--treatment", "treat", "--outcome", "re78", "--method", "ipw", "--json")
    code, out, err = run(LALONDE, *asked, "--graph", graph)
    assert code == 0, err
    found = json.loads(out)
    assert found["confounders"] == ["age", "educ", "race"]
    assert {a["name"]: a["status"] for a in found["assumptions"]}["no post-treatment adjustment"] == "holds"


def paired_table(path, n=20, **columns):
    rng = np.random.default_rng(0)
    base = rng.normal(size=n)
    pd.DataFrame(
        {
            "q": np.tile(np.arange(n), 2),
            "arm": ["direct"] * n + ["cot"] * n,
            "score": np.concatenate([base, base + rng.normal(0.5, 1, n)]),
            "right": rng.integers(0, 2, 2 * n),
            "template": np.tile(np.arange(n) // 4, 2),
            **{name: np.tile(values, 2) for name, values in columns.items()},
        }
    ).to_csv(path, index=False)
    return path


PAIRED = (
    "--treatment",
    "arm",
    "--treated",
    "cot",
    "--control",
    "direct",
    "--design",
    "paired",
    "--unit",
    "q",
)


def test_a_paired_design(run, tmp_path):
    path = paired_table(tmp_path / "trials.csv")
    code, out, err = run(path, *PAIRED, "--outcome", "score", "--cluster", "template", "--json")
    assert code == 0, err
    found = json.loads(out)
    library = estimate_effect(
        pd.read_csv(path), treatment="arm", outcome="score", treated="cot", control="direct",
        design="paired", unit="q", cluster="template",
    )  # fmt: skip
    assert set(found) >= KEYS
    assert found["estimate"] == library.estimate
    assert found["std_error"] == library.std_error
    assert (found["n_treated"], found["n_treated_used"], found["balance"]) == (20, 20, [])
    code, out, _ = run(path, *PAIRED, "--outcome", "right", "--by", "template")
    assert code == 0
    assert "risk ratio" in out
    assert "exact McNemar p" in out
    assert "these 20 items detect an effect of" in out
    assert "Subgroups:" in out
    code, out, _ = run(path, *PAIRED, "--outcome", "right", "--outcome", "score", "--json")
    assert code == 0
    assert [row["label"] for row in json.loads(out)["parts"]] == ["right", "score"]


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ((), "higher"),
        (("--better", "lower"), "worse"),
        (("--better", "higher"), "better"),
        (("--margin", "9", "--level", "0.99999"), "alike"),
    ],
)
def test_what_is_better_and_still_no_worse_is_stated_of_a_table(run, tmp_path, options, verdict):
    path = paired_table(tmp_path / "trials.csv")
    code, out, err = run(path, *PAIRED, "--outcome", "score", *options)
    assert code == 0, err
    assert f": {verdict}" in out.splitlines()[0]


def test_several_outcomes_are_adjusted_for_their_number(run):
    code, out, _ = run(*lalonde("--outcome", "married", "--outcome", "re75", "--json"))
    assert code == 2, "an outcome may not be a confounder as well"
    assert out == ""
    options = ("--treatment", "treat", "--confounders", "age,educ,race", "--method", "ipw")
    code, out, _ = run(LALONDE, *options, "--outcome", "re78", "--outcome", "re75", "--json")
    assert code == 0
    library = estimate_effect(
        pd.read_csv(LALONDE), treatment="treat", outcome=["re78", "re75"],
        confounders=["age", "educ", "race"], method="ipw",
    )  # fmt: skip
    assert json.loads(out) == json.loads(json.dumps(library.to_dict()))
    code, listed, _ = run(LALONDE, *options, "--outcome", "re78,re75", "--json")
    assert (code, listed) == (0, out)
    code, out, _ = run(LALONDE, *options, "--outcome", "re78", "--outcome", "re75")
    assert code == 0
    assert "p (max-T)" in out
    code, _, err = run(LALONDE, *options, "--outcome", "re78,re75,re78")
    assert (code, "names 're78' twice" in err) == (2, True)
    code, _, err = run(LALONDE, *options, "--outcome", ",")
    assert (code, "--outcome names no column" in err) == (2, True)


def test_whom_the_arm_helps_and_which_to_choose_are_the_librarys(run, tmp_path):
    asked = (
        "--treatment",
        "treat",
        "--outcome",
        "re78",
        "--confounders",
        "age,educ,race,re74",
        "--seed",
        "2",
    )
    options = ("--method", "ipw", "--check", "whom:modifiers=age+re74,effect_model=linear,folds=5,cost=500")
    code, out, err = run(LALONDE, *asked, *options, "--json")
    assert code == 0, err
    found = heterogeneous_effects(
        pd.read_csv(LALONDE), treatment="treat", outcome="re78", modifiers=["age", "re74"],
        confounders=["age", "educ", "race", "re74"], random_state=2, effect_model="linear", folds=5,
    )  # fmt: skip
    got = json.loads(out)
    assert got["heterogeneity"] == json.loads(json.dumps(found.to_dict()))
    assert got["policy"] == json.loads(json.dumps(prompt_policy(found, cost=500).to_dict()))
    code, out, _ = run(LALONDE, *asked, *options)
    assert code == 0
    assert "Whom the arm helps and harms:" in out
    assert "Which arm for which row:" in out
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"item_id": np.repeat(np.arange(40), 2), "arm": ["p", "q"] * 40})
    items["hard"] = np.repeat(rng.normal(size=40), 2)
    items["y"] = items["hard"] * (items["arm"] == "q") + rng.normal(size=80)
    path = tmp_path / "items.csv"
    items.to_csv(path, index=False)
    paired = (
        "--treatment",
        "arm",
        "--outcome",
        "y",
        "--design",
        "paired",
        "--treated",
        "q",
        "--control",
        "p",
    )
    code, out, err = run(path, *paired, "--check", "whom:modifiers=hard,better=lower", "--json")
    assert code == 0, err
    assert json.loads(out)["policy"]["better"] == "lower"


def test_checks_beside_the_estimate_are_the_librarys(run):
    options = ("--confounders", "age,educ,race", "--method", "ipw", "--by", "married", "--seed", "3")
    asked = ("--treatment", "treat", "--outcome", "re78")
    written = ("sensitivity", "placebo:within=race,draws=20", "refute:negative_controls=re75,draws=20")
    checks = [part for text in written for part in ("--check", text)]
    code, out, err = run(LALONDE, *asked, *options, *checks, "--json")
    assert code == 0, err
    frame = pd.read_csv(LALONDE)
    shared = {
        "treatment": "treat", "outcome": "re78", "confounders": ["age", "educ", "race"], "method": "ipw",
        "random_state": 3,
    }  # fmt: skip
    library = estimate_effect(frame, **shared, by=["married"])
    expected = library.to_dict() | {
        "sensitivity": sensitivity_report(frame, library).to_dict(),
        "placebo": placebo_treatment(frame, **shared, within=["race"], draws=20).to_dict(),
        "refutation": refute(frame, **shared, negative_controls=["re75"], draws=20).to_dict(),
    }
    assert json.loads(out) == json.loads(json.dumps(expected))
    code, out, _ = run(LALONDE, *asked, *options, *checks)
    assert code == 0
    for title in ("Hidden confounding:", "Placebo arm:", "Refutation:", "negative control outcome ("):
        assert title in out


def test_gaps_are_imputed_as_the_library_does(run, tmp_path):
    frame = pd.read_csv(LALONDE)
    frame.loc[np.random.default_rng(0).random(len(frame)) < 0.15, "educ"] = np.nan
    path = tmp_path / "gaps.csv"
    frame.to_csv(path, index=False)
    asked = ("--treatment", "treat", "--outcome", "re78", "--confounders", "age,educ", "--method", "ipw")
    code, _, err = run(path, *asked)
    assert (code, "column 'educ' has" in err) == (2, True)
    code, _, err = run(path, *asked, "--impute", "0")
    assert (code, "--impute 0" in err) == (2, True), err
    code, out, err = run(path, *asked, "--impute", "3:auxiliary=re75", "--seed", "1", "--json")
    assert code == 0, err
    library = estimate_with_imputation(
        frame, treatment="treat", outcome="re78", confounders=["age", "educ"], method="ipw", draws=3,
        auxiliary=["re75"], random_state=1,
    )  # fmt: skip
    got = json.loads(out)
    assert got["estimate"] == pytest.approx(library.estimate, rel=1e-9)
    assert got["fmi"] == pytest.approx(library.overall["fmi"], rel=1e-9)
    code, out, _ = run(path, *asked, "--impute", "3:auxiliary=re75", "--seed", "1")
    assert code == 0
    assert "Rubin's rules, 3 imputations" in out
    assert "complete rows alone" in out


MULTI = REFERENCE / "synth_multi.csv"
X = ("--confounders", "difficulty,log_len,is_math")


def test_every_pair_of_many_arms(run):
    options = ("--treatment", "variant", "--outcome", "score", *X, "--as", "all-arms:reference=direct")
    code, out, err = run(MULTI, *options, "--json")
    assert code == 0, err
    library = compare_arms(
        pd.read_csv(MULTI), treatment="variant", outcome="score",
        confounders=["difficulty", "log_len", "is_math"], reference="direct",
    )  # fmt: skip
    assert json.loads(out) == json.loads(json.dumps(library.to_dict()))
    code, out, _ = run(MULTI, *options, "--method", "nearest:caliper=0.1")
    assert code == 0
    assert "cot - direct" in out
    assert "need not add up" in out


def test_a_dose(run):
    options = (
        "--treatment",
        "dose",
        "--outcome",
        "score_dose",
        *X,
        "--as",
        "dose:knots=3,reference=1",
    )
    code, out, err = run(MULTI, *options, "--json")
    assert code == 0, err
    library = dose_response(
        pd.read_csv(MULTI), treatment="dose", outcome="score_dose",
        confounders=["difficulty", "log_len", "is_math"], knots=3, reference=1.0,
    )  # fmt: skip
    assert json.loads(out) == json.loads(json.dumps(library.to_dict()))
    code, out, _ = run(MULTI, *options)
    assert code == 0
    assert "Balance (correlation of the dose with each covariate):" in out


def test_ordered_levels(run, tmp_path):
    frame = trials(grade=np.random.default_rng(0).choice(["bad", "fair", "good"], N))
    path = tmp_path / "trials.csv"
    frame.to_csv(path, index=False)
    options = (
        "--treatment",
        "arm",
        "--outcome",
        "grade",
        "--confounders",
        "x",
        "--method",
        "ipw",
    )
    code, out, err = run(path, *options, "--as", "ordered:levels=bad+fair+good", "--json")
    assert code == 0, err
    library = estimate_effect(
        pd.read_csv(path), treatment="arm", outcome="grade", confounders=["x"], method="ipw",
        levels=["bad", "fair", "good"],
    )  # fmt: skip
    assert json.loads(out) == json.loads(json.dumps(library.to_dict()))
    code, out, _ = run(path, *options, "--as", "ordered:levels=bad+fair+good")
    assert code == 0
    assert "at least" in out
    code, _, err = run(path, *options, "--as", "ordered")
    assert (code, "which level is higher is not known" in err) == (2, True)
    both = paired_table(tmp_path / "paired.csv")
    code, out, err = run(both, *PAIRED, "--outcome", "right", "--as", "ordered", "--json")
    assert code == 0, err
    assert json.loads(out)["method"] == "paired"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--as", "arms"], "--as 'arms' is not known"),
        (["--as", "dose:focal=a"], "--as dose has no option 'focal'"),
        (["--as", "dose:knots=many"], "--as dose:knots is 'many'; it is a whole number"),
        (["--as", "dose:knots=3,knots=4"], "--as dose names 'knots' twice"),
        (["--as", "dose:knots"], "--as dose:knots has no value"),
        (["--as", "dose:=3"], "an option has no name"),
        (["--as", "dose:reference=a"], "--as dose:reference is 'a'; it is a number"),
        (["--unit", "q"], "--unit has no meaning without --design paired"),
        (["--out", "x"], "--out has no meaning with a table"),
        (["--as", "dose", "--method", "naive", "--by", "x"], "--by has no meaning with --as dose"),
        (["--as", "all-arms", "--by", "x"], "--by has no meaning with --as all-arms"),
        (["--as", "dose", "--outcome", "x"], "can be given once"),
        (["--design", "paired", "--as", "all-arms"], "no meaning with --as all-arms --design paired"),
        (["--design", "paired", "--as", "dose"], "a paired design compares arms, and no doses"),
        (["--as", "ordered", "--by", "kind"], "--by is not made for ordered outcomes"),
        (["--method", "ipw:caliper=0.1"], "a caliper has no meaning for method 'ipw'"),
        (["--method", "nearest:calliper=0.1"], "option 'calliper' is not known"),
        (["--method", "nearest:caliper=wide"], "caliper 'wide' is not known"),
        (["--method", "nearest:ratio=1.5"], "--method nearest:ratio is '1.5'; it is a whole number"),
        (["--method", "nearest:replace=maybe"], "--method nearest:replace is 'maybe'; it is true or false"),
        (["--method", "nearest:covariate_calipers=x"], "gives a size to each column"),
        (["--method", "aipw:outcome_model=Ridge"], "outcome_model 'Ridge' is not known"),
        (["--method", "nearest:ratio=0"], "--method NAME:ratio=0: at least 1"),
        (["--std-error", "bootstrap:draw=9"], "--std-error bootstrap has no option 'draw'"),
        (["--check", "placebos"], "--check 'placebos' is not known"),
        (["--check", "placebo:negative_controls=x"], "--check placebo has no option 'negative_controls'"),
        (["--check", "placebo", "--check", "placebo:draws=20"], "--check placebo is given twice"),
        (["--check", "placebo:draws=9"], "--check placebo:draws=9: at least 10"),
        (["--check", "placebo:within=nothing"], "within column 'nothing' is not in the table"),
        (["--check", "sensitivity:draws=9"], "--check sensitivity has no option 'draws'"),
        (["--check", "whom"], "--check whom needs the columns to look at"),
        (["--check", "whom:modifiers=x,effect_model=best"], "effect_model 'best' is not known"),
        (["--impute", "many"], "--impute 'many' is no number of imputations"),
        (["--impute", "3:aux=x"], "--impute 3 has no option 'aux'"),
        (["--impute", "3"], "no value is missing in the columns of this estimate"),
        (["--impute", "3", "--check", "refute"], "--check refute has no meaning with --impute"),
        (["--check", "refute", "--as", "dose"], "--check refute has no meaning but for one outcome and two"),
        (["--check", "sensitivity", "--as", "all-arms"], "--check sensitivity has no meaning but for one"),
        (["--check", "placebo", "--design", "paired"], "--check placebo has no meaning but for one outcome"),
        (["--better", "more"], "what is better is 'more', which is not known"),
        (["--margin", "-1"], "--margin -1.0 is no margin"),
        (["--margin", "1", "--as", "dose"], "--margin has no meaning but for one outcome and two arms"),
        (["--impute", "3", "--by", "kind"], "--by has no meaning with --impute"),
        (["--impute", "3", "--as", "dose"], "--impute has no meaning but for one outcome and two arms"),
        (["--check", "whom:modifiers=kind,better=best"], "--check whom:better=best is not known"),
        (["--check", "whom:modifiers=kind", "--as", "dose"], "--check whom has no meaning but for one"),
        (["--check", "whom:modifiers=kind", "--impute", "3"], "--check whom has no meaning with --impute"),
        (["--check", "whom:modifiers=nothing"], "'nothing' is not in the table"),
        (["--check", "cross-check", "--design", "paired"], "--check cross-check has no meaning but for one"),
        (["--check", "cross-check", "--impute", "3"], "--check cross-check has no meaning with --impute"),
        (
            ["--check", "cross-check", "--method", "nearest:caliper=1,caliper_unit=raw"],
            "no meaning with --method NAME:caliper_unit=",
        ),
        (["--design", "instrument"], "--design instrument needs"),
        (["--design", "instrument:column=z"], "--design instrument has no option 'column'"),
        (["--design", "rollout:changed=5"], "--design rollout needs --design rollout:time="),
        (["--design", "rollout:time=x,changed=a:5+7"], "--design rollout:changed gives a date to each name"),
        (["--design", "rollout:time=x,leads=many"], "--design rollout:leads is 'many'; it is a whole number"),
        (["--design", "rollout:time=x", "--cluster", "x"], "--cluster has no meaning with --design rollout"),
        (["--design", "paired:instrument=z"], "--design paired has no option 'instrument'"),
        (["--design", "instrument:instrument=x", "--impute", "3"], "--impute has no meaning with --design"),
        (["--design", "instrument:instrument=x", "--unit", "x"], "--unit has no meaning with --design inst"),
        (["--check", "cross-check"], "WHYPROMPT_CROSSCHECK_PYTHON='/no/python' is no program"),
    ],
)  # fmt: skip
def test_an_option_without_meaning_is_refused_and_not_ignored(run, tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("WHYPROMPT_CROSSCHECK_PYTHON", "/no/python")
    path = tmp_path / "trials.csv"
    trials(kind=["a", "b"] * 20, grade=[1, 2, 3, 3] * 10).to_csv(path, index=False)
    base = ("--treatment", "arm", "--outcome", "grade", "--confounders", "x")
    code, out, err = run(path, *base, *options)
    assert (code, out) == (2, "")
    assert message in err


def test_other_tools_beside_ours(run, monkeypatch):
    """An interpreter without the tools will do: what is ours is shown, and what is missing is named."""
    monkeypatch.setenv("WHYPROMPT_CROSSCHECK_PYTHON", sys.executable)
    asked = (
        "--treatment",
        "treat",
        "--outcome",
        "re78",
        "--confounders",
        "age,educ,re74",
        "--method",
        f"nearest:caliper=0.1,{PLAIN}",
    )
    code, out, err = run(LALONDE, *asked, "--check", "cross-check", "--json")
    assert code == 0, err
    found = json.loads(out)
    ours = {row["method"]: row["estimate"] for row in found["cross_check"]["parts"]}
    assert list(ours) == ["nearest", "ipw", "aipw"]
    assert ours["nearest"] == found["estimate"]
    code, out, _ = run(LALONDE, *asked, "--check", "cross-check")
    assert code == 0
    assert "Beside DoWhy and CausalML:" in out
    assert "dowhy of DoWhy: not installed" in out


# ------------------------------------------------------------------------------------------- bad input


def trials(**change):
    rng = np.random.default_rng(1)
    n = 40
    x = rng.normal(size=n)
    columns = {
        "arm": (rng.random(n) < 1 / (1 + np.exp(-x))).astype(int),
        "x": x,
        "y": x + rng.normal(size=n),
        "prompt_tokens": rng.integers(5, 50, n),
    }
    return pd.DataFrame({**columns, **change})


N = 40
ALMOST = [1] + [0] * (N - 1)
BAD = {
    "constant treatment": ({"arm": [1] * N}, [], "treatment column 'arm' is constant: every row is '1'"),
    "one arm empty": ({}, ["--treated", "2"], "has the level '2': that arm is empty"),
    "one arm of three empty": (
        {"arm": ["a", "b"] * 19 + ["c"] * 2}, ["--treated", "d", "--control", "a"], "that arm is empty",
    ),
    "one row": ({"arm": ALMOST}, [], "arm '1' of treatment column 'arm' has one row"),
    "three arms, none named": ({"arm": ["a", "b"] * 19 + ["c"] * 2}, [], "has 3 levels (a, b, c)"),
    "text arms, none named": ({"arm": ["a", "b"] * 20}, [], "not known which one is the treated arm"),
    "separated": ({"x": [0.0] * 20 + [1.0] * 20, "arm": [0] * 20 + [1] * 20}, [], "x = 0 (20 rows, all '0')"),
    "missing confounder": ({"x": [np.nan] + [0.5] * (N - 1)}, [], "column 'x' has 1 missing value(s)"),
    "missing outcome": ({"y": [np.nan] * 3 + [0.5] * (N - 3)}, [], "column 'y' has 3 missing value(s)"),
    "missing treatment": ({"arm": [np.nan] + [0, 1, 1] * 13}, [], "column 'arm' has 1 missing value(s)"),
    "infinite confounder": ({"x": [np.inf] + [0.5] * (N - 1)}, [], "'x' has 1 infinite value(s)"),
    "infinite outcome": ({"y": [-np.inf] + [0.5] * (N - 1)}, [], "'y' has 1 infinite value(s)"),
    "text outcome": ({"y": ["good", "bad"] * 20}, [], "outcome column 'y' is text (for example 'good')"),
    "unknown treatment": ({}, ["--treatment", "amr"], "column 'amr' is not in the table; did you mean 'arm'"),
    "unknown outcome": ({}, ["--outcome", "z"], "outcome column 'z' is not in the table"),
    "unknown confounder": ({}, ["--confounders", "x,xx"], "'xx' is not in the table; did you mean 'x'"),
    "unknown cluster": ({}, ["--cluster", "g"], "cluster column 'g' is not in the table"),
    "unknown subgroup": ({}, ["--by", "g"], "subgroup column 'g' is not in the table"),
    "unknown exact": ({}, ["--method", "nearest:exact=g"], "exact column 'g' is not in the table"),
    "confounder twice": ({}, ["--confounders", "x,x"], "confounder 'x' is named twice"),
    "post-treatment": ({}, ["--confounders", "x,prompt_tokens"], "'prompt_tokens' cannot be a confounder"),
    "post-treatment exact": (
        {}, ["--method", "nearest:exact=prompt_tokens"], "'prompt_tokens' cannot be a confounder",
    ),
    "post-treatment subgroup": ({}, ["--by", "prompt_tokens"], "'prompt_tokens' cannot be a confounder"),
    "an identifier": ({"x": [f"id{i}" for i in range(N)]}, [], "it identifies rows"),
    "no confounders": ({}, ["--confounders", ""], None),
    "unknown method": ({}, ["--method", "nearst"], "method 'nearst' is not known"),
    "unknown estimand": ({}, ["--estimand", "atx"], "estimand 'atx' is not known"),
    "unknown design": ({}, ["--design", "parallel"], "design 'parallel' is not known"),
    "contradicting options": ({}, ["--method", "ipw:caliper=0.1"], "no meaning for method 'ipw'"),
    "impossible caliper": ({}, ["--method", "nearest:caliper=-1"], "caliper"),
    "impossible level": ({}, ["--level", "95"], "level"),
    "bootstrap that fails": (
        {}, ["--method", "nearest:replace", "--std-error", "bootstrap"], "not valid for nearest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_exit_code_2(run, tmp_path, case):
    change, options, message = BAD[case]
    path = tmp_path / "trials.csv"
    trials(**change).to_csv(path, index=False)
    base = {"--treatment": "arm", "--outcome": "y", "--confounders": "x"}
    for name, value in zip(options[::2], options[1::2], strict=False):
        if name in base:
            base[name] = value
    extra = [o for o in options if o not in base and o not in base.values()]
    code, out, err = run(path, *[part for pair in base.items() for part in pair], *extra, "--json")
    if message is None:
        # Nothing to adjust for is allowed, and said.
        assert code == 0
        assert "nothing was adjusted for" in json.loads(out)["warnings"]
        return
    assert code == 2, out
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("error:") == 1
    assert "Traceback" not in err


def table_error(run, path, *options):
    code, out, err = run(path, "--treatment", "arm", "--outcome", "y", *options)
    assert code == 2, out
    assert out == ""
    return err


def test_a_column_twice_is_named_in_every_format(run, tmp_path):
    csv = tmp_path / "t.csv"
    csv.write_text("arm,x,y,x\n0,1,2,3\n1,2,3,4\n")
    assert "more than one column named 'x'" in table_error(run, csv, "--confounders", "x")
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"arm": 1, "x": 1, "x": 2, "y": 1}\n')
    assert "more than one column named 'x'" in table_error(run, lines, "--confounders", "x")
    import pyarrow as pa
    from pyarrow import parquet

    twice = pa.table([[0, 1], [1.0, 2.0], [1.0, 2.0], [2.0, 3.0]], names=["arm", "x", "x", "y"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    assert "more than one column named 'x'" in table_error(run, tmp_path / "t.parquet", "--confounders", "x")


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("x -> arm; arm -> y; y -> x", "cycle"),
        ("x -> arm -> m -> y; x -> y", None),
        ("u [latent] -> arm, y; arm -> y; x -> y", "no set of columns"),
        ("x -> arm; x -> z", "y"),
        ("graph.txt", "neither a file nor arrow text"),
        ("x => arm; x -> y", "cannot read"),
    ],
)
def test_graphs(run, tmp_path, graph, message):
    path = tmp_path / "trials.csv"
    trials().to_csv(path, index=False)
    if message is None:
        code, _, err = run(path, "--treatment", "arm", "--outcome", "y", "--graph", graph)
        assert code == 0, err
        return
    err = table_error(run, path, "--graph", graph)
    assert message in err


@pytest.mark.parametrize(
    ("graph", "confounders", "path_named"),
    [
        ("x -> arm; x -> y; arm -> m -> y", "x,m", "arm -> m -> y"),
        ("x -> arm; x -> y; arm -> y; arm -> c <- y", "x,c", "arm -> c"),
        ("x -> arm; x -> y; arm -> y; a -> c <- b; a -> arm; b -> y", "x,c", "c"),
        ("x -> arm; w -> arm; x -> y; w -> y; arm -> y", "x", "arm <- w -> y"),
    ],
)
def test_the_graph_forbids_with_the_path(run, tmp_path, graph, confounders, path_named):
    rng = np.random.default_rng(0)
    path = tmp_path / "trials.csv"
    trials(m=rng.normal(size=N), c=rng.normal(size=N), w=rng.normal(size=N)).to_csv(path, index=False)
    err = table_error(run, path, "--graph", graph, "--confounders", confounders)
    assert path_named in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "there is no such file"),
        ("empty.csv", "", "empty.csv"),
        ("only_header.csv", "arm,x,y\n", "no rows"),
        ("ragged.csv", "arm,x,y\n1,2,3\n1,2,3,4,5\n", "ragged.csv:3: 5 fields, where the first line names 3"),
        ("binary.csv", b"\xff\xfe\x00arm", "not UTF-8"),
        ("broken.jsonl", '{"arm": 1}\n{"arm": \n', "broken.jsonl:2: not JSON"),
        ("object.json", '{"arm": 1}', "does not hold records"),
        ("not.parquet", "arm,x,y\n", "not a Parquet file"),
        ("table.xlsx", "x", "neither a table nor a study"),
    ],
)
def test_files_that_cannot_be_read_are_named(run, tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    assert message in table_error(run, path, "--confounders", "x")


def test_options_that_have_no_meaning_together(run, tmp_path):
    path = paired_table(tmp_path / "trials.csv")
    code, _, err = run(path, *PAIRED, "--outcome", "score", "--confounders", "template")
    assert (code, "no meaning in a paired design" in err) == (2, True)
    code, _, err = run(path, "--treatment", "arm", "--outcome", "score", "--design", "paired", "--unit", "q")
    assert (code, "names of both arms" in err) == (2, True)
    code, _, err = run(path, "--treatment", "arm")
    assert (code, "hint: whyprompt effect" in err, "--outcome " in err) == (2, True, True)
    code, _, err = run(path, "--outcome", "score")
    assert (code, "hint: whyprompt effect" in err, "--treatment " in err) == (2, True, True)
    study = tmp_path / "study.yaml"
    study.write_text("name: s\n")
    code, _, err = run(study, "--treatment", "arm")
    assert (code, "names its own arms" in err) == (2, True)


def test_two_of_three_arms_by_name(run, tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "trials.csv"
    trials(arm=rng.choice(["direct", "cot", "few_shot"], N)).to_csv(path, index=False)
    options = ("--treatment", "arm", "--outcome", "y", "--confounders", "x", "--method", "ipw")
    code, out, err = run(path, *options, "--treated", "cot", "--control", "direct", "--json")
    assert code == 0, err
    found = json.loads(out)
    frame = pd.read_csv(path)
    alone = estimate_effect(
        frame[frame.arm != "few_shot"],
        treatment="arm",
        outcome="y",
        confounders=["x"],
        method="ipw",
        treated="cot",
    )
    assert found["estimate"] == pytest.approx(alone.estimate, rel=1e-12)
    others = int((frame.arm == "few_shot").sum())
    assert f"{others} rows of other arms are put aside" in found["warnings"]
    assert found["n_treated"] + found["n_control"] == N - others


def test_a_study_is_answered_by_its_own_names(run, monkeypatch, capsys, tiny_study, tmp_path):
    out = tmp_path / "results"
    monkeypatch.setattr(sys, "argv", ["whyprompt", "run", str(tiny_study), "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    capsys.readouterr()
    code, text, err = run(tiny_study, "--out", out, "--json")
    assert code == 0, err
    found = json.loads(text)
    assert {"estimate", "std_error", "ci_low", "ci_high", "sentence", "assumptions", "warnings"} <= set(found)
    assert found["design"] == "paired"
    code, text, _ = run(tiny_study, "--out", out)
    assert code == 0
    assert "On 12 items run under both arms, 'few_shot' instead of 'direct'" in text


def test_a_separator_of_lines_within_a_text_does_not_end_a_line(run, tmp_path):
    rows = [
        {"arm": i % 2, "correct": i % 3, "x": i % 5, "said": f"a{mark}b"}
        for i, mark in enumerate("\u2028\u2029\u0085" * 8)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    options = (
        "--treatment",
        "arm",
        "--outcome",
        "correct",
        "--confounders",
        "x",
        "--method",
        "ipw",
        "--json",
    )
    answers = []
    # The mark of UTF-8 at the start of a file, which editors on Windows write, changes nothing.
    for mark in ("", "\ufeff"):
        (tmp_path / "t.jsonl").write_text(mark + text, encoding="utf-8", newline="\n")
        answers.append(run(tmp_path / "t.jsonl", *options))
        (tmp_path / "t.json").write_text(mark + json.dumps(rows), encoding="utf-8")
        answers.append(run(tmp_path / "t.json", *options))
    assert all(code == 0 for code, _, _ in answers), answers
    assert len({out for _, out, _ in answers}) == 1


# ---------------------------------------------------------------------------- designs nobody named


@pytest.fixture
def both_arms(tmp_path):
    """Forty items, each run under both arms, and under four in another table."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=40)
    frame = pd.concat(
        pd.DataFrame(
            {
                "doc_id": np.arange(40),
                "arm": arm,
                "hard": hard,
                "score": 3 * hard + k / 3 + rng.normal(size=40),
                "passed": (hard + rng.normal(size=40) > 0).astype(int),
            }
        )
        for k, arm in enumerate(["direct", "cot", "shots", "role"])
    )
    four, two = tmp_path / "four.csv", tmp_path / "two.csv"
    frame.to_csv(four, index=False)
    frame[frame.arm.isin(["direct", "cot"])].to_csv(two, index=False)
    return four, two


def test_a_table_with_both_arms_of_every_item_is_compared_item_by_item_and_says_so(run, both_arms):
    four, two = both_arms
    what = ("--treatment", "arm", "--outcome", "score", "--treated", "cot")
    code, asked, _ = run(two, *what, "--control", "direct", "--design", "paired", "--unit", "doc_id")
    assert code == 0
    note = "every 'doc_id' was run under both arms: analysed as paired, each compared with itself"
    for table, options in (
        (two, what),
        (two, (*what, "--confounders", "hard")),
        (four, (*what, "--control", "direct")),
    ):
        code, out, _ = run(table, *options)
        assert code == 0
        assert out.splitlines()[0] == asked.splitlines()[0]
        assert note in out
        assert "--design paired --unit doc_id" in out
        assert "name a --design or a --method" in out
    code, out, _ = run(two, *what, "--json")
    found = json.loads(out)
    assert found["n_used"] == 40
    assert found["warnings"][0].startswith(note)
    code, out, _ = run(two, "--treatment", "arm", "--outcome", "score,passed", "--treated", "cot")
    assert code == 0
    assert note in out


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "naive"),
        ("--design", "randomized"),
        ("--design", "observational", "--confounders", "hard"),
        ("--confounders", "hard", "--method", "nearest:caliper=0.5"),
    ],
)
def test_what_is_asked_for_is_done_and_the_paired_analysis_is_named(run, both_arms, options):
    code, out, _ = run(both_arms[1], "--treatment", "arm", "--outcome", "score", "--treated", "cot", *options)
    assert code == 0
    assert "items run under both arms" not in out.splitlines()[0]
    assert "every 'doc_id' was run under both arms: a paired analysis" in out
    assert "'doc_id' repeats (40 in 80 rows)" in out


def test_rows_that_are_said_to_be_independent_are_taken_so(run, both_arms):
    options = ("--treatment", "arm", "--outcome", "score", "--treated", "cot", "--confounders", "hard")
    code, out, _ = run(both_arms[1], *options, "--cluster", "none", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["method"] == "aipw"
    assert not any("doc_id" in text for text in found["warnings"])


def test_every_arm_on_the_same_items(run, both_arms):
    what = ("--treatment", "arm", "--outcome", "score", "--as", "all-arms")
    code, out, _ = run(both_arms[0], *what, "--design", "paired", "--unit", "doc_id", "--json")
    assert code == 0
    frame = pd.read_csv(both_arms[0])
    found = json.loads(out)
    for (arm, reference), row in zip(found["pairs"], found["parts"], strict=True):
        one = estimate_effect(
            frame, treatment="arm", outcome="score", treated=arm, control=reference, design="paired",
            unit="doc_id",
        )  # fmt: skip
        assert row["std_error"] == pytest.approx(one.std_error, rel=1e-9)
    code, again, _ = run(both_arms[0], *what, "--design", "paired", "--json")
    assert (code, again) == (0, out)
    code, out, _ = run(both_arms[0], *what, "--design", "randomized")
    assert code == 0
    assert "nothing was adjusted for" not in out
    code, _, err = run(both_arms[0], *what, "--design", "paired", "--confounders", "hard")
    assert code == 2
    assert "--confounders has no meaning with --as all-arms --design paired" in err


def test_the_commands_of_the_page_on_designs_work_as_printed(run, tmp_path):
    """docs/which-design.md gives `--design randomized` and nothing else."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"arm": rng.integers(0, 2, 200), "y": rng.normal(size=200), "x": rng.normal(size=200)}
    )
    path = tmp_path / "log.csv"
    frame.to_csv(path, index=False)
    code, out, _ = run(path, "--treatment", "arm", "--outcome", "y", "--design", "randomized")
    assert code == 0
    assert "since the arms were randomised" in out
    assert "Warnings" not in out
    code, out, _ = run(
        path, "--treatment", "arm", "--outcome", "y", "--design", "randomized", "--confounders", "x", "--json"
    )
    found = json.loads(out)
    assert (found["method"], found["estimand"], found["n_treated_used"]) == (
        "aipw",
        "ate",
        found["n_treated"],
    )


def test_a_p_value_is_written_in_one_way(run, tmp_path):
    frame = pd.DataFrame({"item_id": np.repeat(np.arange(20), 2), "arm": [0, 1] * 20, "y": [0, 1, 1, 0] * 10})
    path = tmp_path / "same.csv"
    frame.to_csv(path, index=False)
    code, out, _ = run(path, "--treatment", "arm", "--outcome", "y")
    assert code == 0
    assert "p 1.00" not in out
    assert "p 1.0" in out


def test_the_help_names_every_method(run):
    from whyprompt.effects.methods.make import METHODS

    code, out, _ = run("--help")
    assert code == 0
    told = out[out.index("--method") : out.index("--estimand")]
    assert [name for name in METHODS if name not in told] == []


def test_a_design_with_options_is_the_librarys(run):
    asked = ["--treatment", "treat", "--outcome", "re78", "--confounders", "age,re74"]
    code, out, err = run(
        REFERENCE / "lalonde.csv", *asked, "--design", "instrument:instrument=married", "--json"
    )
    assert (code, err) == (0, "")
    found = estimate_effect(
        pd.read_csv(REFERENCE / "lalonde.csv"),
        treatment="treat",
        outcome="re78",
        confounders=["age", "re74"],
        design="instrument",
        instrument="married",
    )
    assert json.loads(out) == json.loads(json.dumps(found.to_dict()))


def test_a_change_on_a_date_needs_no_arm(run, tmp_path):
    days = np.arange(240) % 12
    route = np.arange(240) // 12 % 5
    frame = pd.DataFrame({"at": [f"2025-03-{d + 1:02d}" for d in days], "route": [f"r{g}" for g in route]})
    frame["y"] = np.sin(np.arange(240.0)) + (days >= 6) * (route < 2)
    frame.to_csv(tmp_path / "log.csv", index=False)
    asked = ("--outcome", "y", "--unit", "route", "--json")
    written = "rollout:time=at,changed=r0:2025-03-07+r1:2025-03-07T00:00,leads=2"
    code, out, err = run(tmp_path / "log.csv", *asked, "--design", written)
    assert (code, err) == (0, "")
    found = estimate_effect(
        frame,
        outcome="y",
        design="rollout",
        time="at",
        unit="route",
        changed={"r0": "2025-03-07", "r1": "2025-03-07"},
        leads=2,
    )
    assert json.loads(out) == json.loads(json.dumps(found.to_dict()))
    code, _, err = run(tmp_path / "log.csv", *asked)
    assert code == 2
    assert "--treatment must be given with a table" in err


def test_a_long_estimate_tells_how_far_it_is(run, monkeypatch):
    import importlib

    # The package's name for the module is that of its command.
    verb = importlib.import_module("whyprompt.cli.effect")
    quiet = run(*lalonde("--json"))
    monkeypatch.setattr(verb, "_LONG", 600)
    code, out, err = run(*lalonde("--json"))
    assert code == 0
    assert (quiet[1], quiet[2]) == (out, "")
    assert "lalonde.csv: learning what decides the arm 0/10" in err
    assert "lalonde.csv: learned 10/10" in err


def test_a_parquet_table_larger_than_its_memory_is_computed_in_passes(run, tmp_path):
    frame = pd.read_csv(LALONDE)
    paths = [tmp_path / f"part{k}.parquet" for k in range(2)]
    frame.iloc[:300].to_parquet(paths[0])
    frame.iloc[300:].to_parquet(paths[1])
    asked = ("--treatment", "treat", "--outcome", "re78", "--confounders", COVARIATES, "--method", "overlap")
    code, out, _ = run(*paths, *asked, "--memory", "1KB", "--json")
    found = json.loads(out)
    whole = estimate_effect(
        frame, treatment="treat", outcome="re78", confounders=COVARIATES.split(","), method="overlap"
    )
    assert (code, found["estimate"]) == (0, pytest.approx(whole.estimate, rel=1e-10))
    assert "DuckDB" in found["settings"]["table"]
    code, out, _ = run(*paths, *asked, "--json")
    assert (code, json.loads(out)["estimate"]) == (0, pytest.approx(whole.estimate, rel=1e-12))
    for extra, said in (
        (("--check", "sensitivity"), "--check has no meaning with a table that is larger than --memory"),
        (("--method", "full"), "method 'full' is not offered beyond that"),
        (("--memory", "much"), "--memory much is no amount of memory"),
    ):
        code, _, err = run(*paths, *asked, "--memory", "1KB", *extra)
        assert (code, said in err) == (2, True), err
    code, _, err = run(LALONDE, *asked, "--memory", "1KB")
    assert (code, "with a table that is not Parquet" in err) == (2, True)


@pytest.mark.parametrize("impute", [(), ("--impute", "20")])
def test_a_missing_outcome_is_told_the_whole_way_at_once(run, tmp_path, impute):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"arm": np.tile(["a", "b"], 40), "x": rng.normal(size=80), "y": rng.normal(size=80)})
    frame.loc[[3, 8], "y"] = np.nan
    frame.loc[[5, 12], "x"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = ("--treatment", "arm", "--outcome", "y", "--treated", "b", "--control", "a", "--confounders", "x")
    code, _, err = run(tmp_path / "t.csv", *asked, *impute)
    assert code == 2
    assert "outcome column 'y' has 2 missing value(s)" in err
    assert "--impute 20:missing_outcome=exclude leaves those rows out of the estimate" in err
    quick = ("--impute", "2:missing_outcome=exclude", "--method", "ipw")
    code, _, err = run(tmp_path / "t.csv", *asked, *quick)
    assert code == 0
    assert "t.csv: estimated in completed tables 1/2" in err
    assert "t.csv: estimated in completed tables 2/2" in err
