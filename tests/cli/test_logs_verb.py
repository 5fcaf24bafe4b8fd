"""``whyprompt effect LOG LOG`` and ``whyprompt import``: the answers by hand, and every bad input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
# Real logs of other tools: beside $WHYPROMPT_SHARED, or in shared/logs beside the repository.
OWN = os.environ.get("WHYPROMPT_SHARED")
LOGS = Path(OWN).parent / "logs" if OWN else ROOT.parent / "shared" / "logs"
PAGE = ROOT / "docs" / "howto" / "logs.md"
needs_logs = pytest.mark.skipif(not LOGS.exists(), reason="the logs of other tools are not here")


def found(run, *arguments):
    code, out, err = run("effect", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def logs(pattern):
    some = sorted(LOGS.glob(pattern))
    assert some
    if any(path.suffix == ".eval" for path in some):
        pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    return some


BY_HAND = {
    "lm-eval": ("lm_eval/samples_*", (), 0.2333, 0.0920, 0.0391, 30, ("flexible-extract", "'none'")),
    "lm-eval, a folder": ("lm_eval", (), 0.2333, 0.0920, 0.0391, 30, ("flexible-extract", "'none'")),
    "lm-eval, none": (
        *("lm_eval/samples_*", ("--scorer", "exact_match,none"), -0.6333, 0.0895, 3.8e-6, 30),
        ("scorer 'exact_match,none'",),
    ),
    "Inspect": ("inspect_ai/*.eval", (), 0.08, 0.1405, 0.774, 25, ("task_args.arm", "50 of 50 cells")),
    "Inspect, samples": ("inspect_ai/*.parquet", (), 0.08, 0.1405, 0.774, 25, ("50 of 50 cells",)),
    "promptfoo": ("promptfoo/small.json", (), 0.25, 0.25, 0.625, 8, ("prompt.label", "16 of 16 cells")),
    "promptfoo, lines": ("promptfoo/small.jsonl", (), 0.25, 0.25, 0.625, 8, ("16 of 16 cells",)),
    "promptfoo, table": ("promptfoo/small.csv", (), 0.25, 0.25, 0.625, 8, ("16 of 16 cells",)),
    "promptfoo, thrice": (
        "promptfoo/small.*",
        (),
        0.25,
        0.25,
        0.625,
        8,
        ("Counted once", "The prompts sent"),
    ),
    "DSPy": ("dspy/*.json", (), 0.125, 0.125, 1.0, 8, ("the file", "'<lambda>'")),
    "DSPy, tables": ("dspy/*.csv", (), 0.125, 0.125, 1.0, 8, ("the file", "'<lambda>'")),
    "DSPy, both": ("dspy", (), 0.125, 0.125, 1.0, 8, ("Counted once",)),
}


@needs_logs
@pytest.mark.parametrize("name", BY_HAND)
def test_the_answers_are_those_by_hand(run, name):
    pattern, options, effect, error, p, n, said = BY_HAND[name]
    result = found(run, *logs(pattern), *options)
    assert result["estimate"] == pytest.approx(effect, abs=5e-5)
    assert result["std_error"] == pytest.approx(error, abs=6e-5)
    assert result["p_value"] == pytest.approx(p, rel=0.02)
    assert (result["n_used"], result["logs"]["pairing"]["matched"]) == (n, n)
    for words in (*said, f"{n} items, all of them under every arm", f"On {n} items run under both arms"):
        assert words in result["sentence"]
    assert ("cot" in result["treated"], "direct" in result["control"]) == (True, True)


@needs_logs
def test_the_filter_that_reads_one_arm_only_comes_with_its_warning(run):
    result = found(run, *logs("lm_eval/samples_*"), "--scorer", "exact_match,none")
    assert any("every outcome of 'gsm8k_cot_local' is 0" in text for text in result["warnings"])


@needs_logs
def test_the_means_that_logs_state_are_held_against_their_trials(run, tmp_path):
    for path in LOGS.glob("lm_eval/*"):
        shutil.copyfile(path, tmp_path / path.name)
    stated = found(run, tmp_path)["logs"]["means_checked"]
    assert stated == 2
    results = next(tmp_path.glob("results_*.json"))
    text = results.read_text()
    assert "0.8666666666666667" in text
    results.write_text(text.replace("0.8666666666666667", "0.9"))
    code, _, err = run("effect", tmp_path)
    assert code == 2
    assert re.search(r"samples_gsm8k_cot.*the log states a mean .* of 0\.9000.*0\.8667", err)


@needs_logs
def test_every_command_of_the_page_runs_and_prints_what_it_shows(run, tmp_path, monkeypatch, capsys):
    for path, name in zip(logs("inspect_ai/*.eval"), ("direct.eval", "cot.eval"), strict=True):
        shutil.copyfile(path, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = next(block for block in blocks if "\nInspect logs" in block)
    commands = [block for block in blocks if block.startswith("whyprompt ")]
    assert len(commands) == 6
    for number, command in enumerate(commands):
        if "old_small" in command:
            continue
        code, out, err = run(*shlex.split(command)[1:])
        assert code == 0, err
        if number == 0:
            assert " ".join(shown.split()) in " ".join(out.split())
        if command.startswith("whyprompt effect"):
            assert "estimate 0.0800, standard error 0.140" in out
    capsys.readouterr()
    exec(next(block for block in blocks if block.startswith("import whyprompt")), {})  # noqa: S102
    assert "changes 'match' by 0.0800" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------- the table itself
@pytest.fixture
def long(tmp_path):
    path = tmp_path / "long.csv"
    rows = [(f"q{k}", arm, (k + (arm == "cot")) % 3 > 0) for k in range(9) for arm in ("direct", "cot")]
    pd.DataFrame(rows, columns=["item_id", "arm", "correct"]).to_csv(path, index=False)
    return path


def test_a_long_table_needs_no_option_and_its_named_columns_are_as_before(run, long):
    result = found(run, long)
    code, out, _ = run(
        *("effect", long, "--treatment", "arm", "--outcome", "correct", "--treated", "cot"),
        *("--control", "direct", "--design", "paired", "--json"),
    )
    named = json.loads(out)
    assert code == 0
    assert {k: named[k] for k in ("estimate", "ci_low", "ci_high")} == {
        k: result[k] for k in ("estimate", "ci_low", "ci_high")
    }
    assert "logs" not in named


def test_a_wide_table_has_an_arm_a_column(run, tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("item_id,score_a,score_b\n1,1,0\n2,0,0\n3,1,1\n4,1,0\n")
    result = found(run, path)
    assert (result["estimate"], result["n_used"]) == (-0.5, 4)
    assert found(run, path, "--reference", "b")["estimate"] == 0.5


def test_import_writes_the_table_and_what_was_taken_for_what(run, long, tmp_path):
    target = tmp_path / "trials.parquet"
    code, out, err = run("import", long, "--out", target)
    assert (code, err) == (0, "")
    assert "18 trials" in out
    table = pd.read_parquet(target)
    assert {"item_id", "arm", "rep", "correct", "log"} <= set(table.columns)
    record = json.loads((tmp_path / "trials.import.json").read_text())
    source = record["sources"][0]
    assert source["sha256"] == hashlib.sha256(long.read_bytes()).hexdigest()
    assert set(record["taken"]) == set(table.columns)
    code, _, err = run("import", long, "--out", target)
    assert (code, "would be overwritten" in err, "--overwrite" in err) == (2, True, True)
    assert run("import", long, "--out", target, "--overwrite")[0] == 0
    code, _, err = run("import", long, "--out", long, "--overwrite")
    assert (code, "is one of the logs" in err) == (2, True)
    code, out, _ = run(
        *("effect", target, "--treatment", "arm", "--outcome", "correct", "--treated", "cot", "--control"),
        *("direct", "--design", "paired", "--json"),
    )
    assert json.loads(out)["estimate"] == found(run, long)["estimate"]


def test_changed_items_are_listed(run, long):
    result = found(run, long, "--changed")
    gains = [row["item_id"] for row in result["changed"]["gains"]]
    assert (gains, len(result["changed"]["regressions"])) == (["q0", "q3", "q6"], 3)
    out = run("effect", long, "--changed")[1]
    assert "Gains in these trials (3):\n  q0: 0 -> 1.00\n" in out
    code, _, err = run("effect", long, "--changed", "--design", "randomized")
    assert (code, "--changed lists items that were run under both" in err) == (2, True)


def test_options_of_logs_and_of_tables_are_not_mixed(run, long):
    code, _, err = run("effect", long, "--treatment", "arm", "--outcome", "correct", "--scorer", "x")
    assert (code, "--scorer has no meaning" in err) == (2, True)
    code, _, err = run("effect", long, "--check", "placebo")
    assert (code, "--check cannot be used with logs" in err, "whyprompt import" in err) == (2, True, True)
    code, _, err = run("effect", long, long, "--treatment", "arm", "--outcome", "correct")
    assert (code, "several files are given" in err) == (2, True)
    code, _, err = run("effect", long, "--design", "rollout:time=at", "--outcome", "correct")
    assert (code, "--treatment must be given" in err) == (2, True)


# --------------------------------------------------------------------------------------------- bad input
@needs_logs
@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("inspect_ai/*direct*.eval", 90_000),
        ("promptfoo/small.json", 60_000),
        ("lm_eval/samples_gsm8k_d*", 50_001),
    ],
)
def test_a_log_that_is_cut_is_named(run, tmp_path, pattern, size):
    (path,) = logs(pattern)
    cut = tmp_path / path.name
    cut.write_bytes(path.read_bytes()[:size])
    code, _, err = run("effect", cut)
    assert code == 2
    assert path.name in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.eval", None, "absent.eval: there is no such file"),
        ("empty.jsonl", b"", "empty.jsonl is empty"),
        ("noise.bin", b"\x00\xff" * 50, "noise.bin is no log of a known format"),
        ("odd.csv", b"a,b\n1,2\n", "odd.csv"),
        ("one.jsonl", b'{"item_id": 1, "arm": "a", "score": 1}\n', "one.jsonl"),
    ],
)
def test_files_that_are_no_logs_are_named(run, tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    code, out, err = run("effect", path)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_folder_without_logs_says_so(run, tmp_path):
    (tmp_path / "readme.bin").write_bytes(b"\x00")
    code, _, err = run("effect", tmp_path)
    assert (code, "none of its 1 file is a log" in err) == (2, True)
    assert "known are logs of" in err


@pytest.mark.parametrize("verb", ["effect", "compare", "import", "report"])
def test_every_verb_names_its_own_options(run, tmp_path, verb):
    path = tmp_path / "two.jsonl"
    rows = [{"item_id": k, "arm": arm, "f1": 0.5, "em": k % 2} for k in range(4) for arm in "ab"]
    path.write_text("\n".join(map(json.dumps, rows)))
    code, out, err = run(verb, path, *(("--out", tmp_path / "t.csv") if verb == "import" else ()))
    assert code == 2
    if verb == "effect":
        # A table with an arm is asked what it asks, and the other outcome is named.
        assert "f1       left out   it is called as an outcome is" in out
        assert "--outcome em " in err
        return
    assert "more than one scorer: f1; em" in err
    assert "say which with --scorer NAME" in err


def test_a_bandit_of_three_arms_is_compared_by_its_chances(run, tmp_path):
    rows = [
        {
            "arm": arm,
            "action_prob": 0.25 if arm == "b" else 0.375,
            "score": int(k % n == 0),
            "item_id": f"{arm}{k}",
        }
        for arm, n, of in (("a", 2, 150), ("b", 3, 100), ("c", 5, 150))
        for k in range(of)
    ]
    path = tmp_path / "bandit.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    made = found(run, path, "--reference", "a")
    assert [part["label"] for part in made["parts"]] == ["b - a", "c - a"]
    assert [part["estimate"] for part in made["parts"]] == pytest.approx([34 / 100 - 0.5, 30 / 150 - 0.5])
    table = found(
        run, path, "--treatment", "arm", "--outcome", "score", "--design", "randomized",
        "--propensity", "action_prob", "--as", "all-arms:reference=a", "--cluster", "none",
    )  # fmt: skip
    assert [p["std_error"] for p in table["parts"]] == [p["std_error"] for p in made["parts"]]
