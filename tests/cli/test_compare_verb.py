"""``whyprompt compare``: real logs of four tools, A/A pairs made of them, and a third run that separates."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
OWN = os.environ.get("WHYPROMPT_SHARED")
LOGS = Path(OWN).parent / "logs" if OWN else ROOT.parent / "shared" / "logs"
PAGE = ROOT / "docs" / "howto" / "logs.md"
needs_logs = pytest.mark.skipif(not LOGS.exists(), reason="the logs of other tools are not here")


def compared(run, *arguments):
    code, out, err = run("compare", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def differing(found):
    """Give the paths that differ, by role and verdict."""
    out = {}
    for d in found["differences"]:
        out.setdefault((d["role"], d["verdict"]), set()).update(d["settings"])
    return out


# ----------------------------- the real logs
@needs_logs
def test_lm_eval_differs_in_the_template_alone(run):
    found = compared(run, LOGS / "lm_eval", "--scorer", "exact_match,flexible-extract")
    assert differing(found) == {("prompt", "arm"): {"configs.task", "configs.doc_to_text"}}
    text = {d: v for one in found["differences"] for d, v in one["settings"].items()}["configs.doc_to_text"]
    assert text["gsm8k_cot_local"] == ["Q: {{question}}\nA: Let us think step by step."]
    assert (found["gains"], found["regressions"], found["items"]) == (8, 1, 30)
    assert found["mcnemar_p"] == pytest.approx(0.0391, abs=5e-5)
    assert (found["strategy"], "expected" in found) == ("nothing to adjust for", False)
    assert "... Let us think step by step." in run("compare", LOGS / "lm_eval")[1]


@needs_logs
def test_inspect_differs_in_the_argument_of_the_task_and_its_date(run):
    pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    found = compared(run, LOGS / "inspect_ai" / "*.eval")
    seen = differing(found)
    assert {"eval.task_args.arm", "plan.steps[0].params.template"} <= seen["prompt", "arm"]
    assert set(seen) == {("prompt", "arm"), ("date", "aligned"), ("other", "arm")}
    assert (found["gains"], found["regressions"]) == (7, 5)
    assert "the repeats were copies" in found["sentence"]
    assert "date [latent]" in found["graph"]


@needs_logs
def test_promptfoo_and_dspy(run):
    found = compared(run, LOGS / "promptfoo" / "small.json")
    assert differing(found) == {("prompt", "arm"): {"prompt.label", "prompt.id", "prompt.raw"}}
    assert (found["gains"], found["regressions"], found["items"]) == (3, 1, 8)
    found = compared(run, *sorted(LOGS.glob("dspy/*.csv"), reverse=True))
    assert (found["differences"], found["gains"], found["regressions"]) == ([], 1, 0)
    assert "Of the model and sampling the logs tell nothing" in found["sentence"]
    (gain,) = found["changed"]["gains"]
    assert gain["item_id"] == "gsm8k-3"
    assert gain["question"].startswith("James decides to run 3 sprints")
    assert (gain["completion_control"], "540" in gain["completion_treated"]) == ("0", True)


@needs_logs
def test_epochs_of_one_arm_are_an_a_a_comparison(run, tmp_path):
    whole = json.loads((LOGS / "promptfoo" / "small.json").read_text())
    results = whole["results"]["results"]
    for turn in (0, 1):
        whole["results"]["results"] = [r for r in results if r["promptIdx"] == 1 and r["testIdx"] % 2 == turn]
        whole["results"]["prompts"] = []
        (tmp_path / f"run_{turn}.json").write_text(json.dumps(whole))
    found = compared(run, tmp_path / "run_0.json", tmp_path / "run_1.json")
    assert "this is an A/A comparison" in found["sentence"]
    assert (found["flips"], found["items"], found["low"], found["high"]) == (0, 8, 0, 4)
    frame = pd.read_parquet(LOGS / "inspect_ai" / "samples_df.parquet")
    for epoch, rows in frame[frame["task_arg_arm"] == "cot"].groupby("epoch"):
        rows.assign(epoch=1).to_parquet(tmp_path / f"epoch_{epoch}.parquet")
    found = compared(run, tmp_path / "epoch_1.parquet", tmp_path / "epoch_2.parquet")
    assert (found["differences"], found["gains"], found["regressions"], found["items"]) == ([], 0, 0, 25)


@needs_logs
def test_the_third_run_of_the_page_separates_prompt_and_model(run, tmp_path, monkeypatch):
    log = json.loads((LOGS / "inspect_ai" / "gsm8k_cot_first6_noevents.json").read_text())
    log["results"] = None
    for name in ("old_small", "new_large", "new_small"):
        prompt, model = name.split("_")
        log["eval"]["task_args"]["arm"] = log["eval"]["task"] = prompt
        log["eval"]["model"] = model
        log["plan"]["steps"][0]["params"]["template"] = f"{{prompt}} {prompt}"
        (tmp_path / f"{name}.eval").write_text(json.dumps(log))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(whyprompt compare old.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    command = shlex.split(blocks[0])[2:]
    alone = compared(run, *command[:2])
    assert ("model", "aligned") in differing(alone)
    assert "The prompt and the model are one treatment here" in alone["sentence"]
    three = compared(run, *command)
    assert ("model", "overlapping") in differing(three)
    assert "compare old_small.eval and new_small.eval alone" in three["sentence"]
    assert three["strategy"] == "adjustment"
    assert "one treatment here" in run("effect", *command[:2])[1]


# ----------------------------- tables, and the graph that is given on
@pytest.fixture
def table(tmp_path):
    def write(name, rows):
        pd.DataFrame(rows, columns=["item_id", "arm", "model", "score"]).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def test_the_graph_is_read_by_effect_and_refuses_what_cannot_be_told(run, table, tmp_path):
    """Planted: the arm adds 0.2, the second model 0.5, and goes with the arm in four rows of five."""
    rows = [
        (f"q{k}", arm, model, 0.01 * (k % 7) + 0.2 * (arm == "new") + 0.5 * (model == "m-2"))
        for k in range(60)
        for arm in ("direct", "new")
        for model in ("m-1", "m-2")
        if k % 5 == 0 or (model == "m-2") == (arm == "new")
    ]
    path = table("part.csv", rows)
    found = compared(run, path)
    assert ("model", "overlapping") in differing(found)
    graph = tmp_path / "graph.txt"
    graph.write_text(found["graph"])
    of_rows = ("--treatment", "arm", "--outcome", "score", "--treated", "new", "--design", "observational")
    code, out, err = run("effect", path, *of_rows, "--graph", graph, "--method", "cem", "--json")
    assert code == 0, err
    assert json.loads(out)["estimate"] == pytest.approx(0.2, abs=0.01)
    path = table("all.csv", [row for row in rows if (row[2] == "m-2") == (row[1] == "new")])
    graph.write_text(compared(run, path)["graph"])
    code, _, err = run("effect", path, *of_rows, "--graph", graph)
    assert (code, "gives no set of columns" in err) == (2, True)


def test_changed_items_are_listed_in_the_width_of_the_screen(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    path = tmp_path / "log.jsonl"
    rows = [
        {
            "item_id": k,
            "arm": arm,
            "score": int(arm == "b"),
            "question": f"{k}? {'long ' * 40}",
            "completion": arm,
        }
        for k in range(30)
        for arm in "ab"
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = run("compare", path, "--changed")
    assert code == 0
    listed = out[out.index("Gains in these trials (30)") :]
    assert max(map(len, listed.splitlines())) <= 60
    assert "and 10 more, in --json" in listed
    assert "    before: a\n    after: b\n" in listed
    assert "Regressions in these trials (0):" in listed
    assert compared(run, path)["changed"]["gains"][0]["question"] == f"0? {'long ' * 40}"


def test_what_cannot_be_compared_ends_with_2(run, table):
    one = table("one.csv", [(f"q{k}", "a", "m", 1.0) for k in range(4)])
    for arguments, words in (
        ([one], "all trials are of one arm"),
        ([one, one], "all trials are of one arm"),
        ([one.with_name("none.csv")], "none.csv"),
        ([one, "--level", "95"], "level"),
    ):
        code, out, err = run("compare", *arguments)
        assert (code, out) == (2, ""), arguments
        assert words in err
        assert "Traceback" not in err
    apart = table("apart.csv", [(f"q{k}", "ab"[k % 2], "m", 1.0) for k in range(8)])
    assert run("compare", apart)[0] == 0
    code, _, err = run("compare", apart, "--changed")
    assert (code, "--changed lists items" in err) == (2, True)
