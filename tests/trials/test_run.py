"""A study on tiny models, held against a plain transformers computation."""

import json
import math
import shutil
import sqlite3
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from whyprompt import dry_run, load_model, load_trials, repeat_variance, run_study, verify_study
from whyprompt.errors import DataError, PromptError, StoreError, StudyError
from whyprompt.study import load_study
from whyprompt.trials import export, run, writing
from whyprompt.trials.items.load import items_of
from whyprompt.trials.models.generation import completions
from whyprompt.trials.models.local import LocalModel
from whyprompt.trials.models.locate import locate_model
from whyprompt.trials.plan import make_plan
from whyprompt.trials.store import TrialStore

ARMS = """\
arms:
  direct: {kind: direct}
  few_shot: {kind: few_shot, shots: 2, draw: per_item}
  asked: {kind: chain_of_thought, reasoning: asked_only}
  worked: {kind: chain_of_thought, reasoning: worked}
  cut: {kind: chain_of_thought, reasoning: cut}
  other: {kind: chain_of_thought, reasoning: other}
  json: {kind: format, format: json}
  mine: {kind: template, template: "Q: {{ question }}"}
"""


@pytest.fixture
def study_file(tmp_path, tiny_model, items_writer):
    items_writer(tmp_path / "items.jsonl")

    def make(body, *, model=tiny_model, size=8, name="s", columns=""):
        path = tmp_path / f"{name}.yaml"
        head = f"""\
            name: {name}
            question: What does it do?
            model: {{name: "{model}", device: cpu, threads: 1}}
            items:
              - source: file
                path: items.jsonl
                size: {size}
                shot_pool: 6
                columns: {{item_id: id, task_type: kind, difficulty: level, solution: why{columns}}}
            """
        path.write_text(textwrap.dedent(head) + textwrap.dedent(body), encoding="utf-8")
        return path

    return make


def plain_log_probs(folder, text, scored, *, special=False):
    """Log-probabilities of the last `scored` characters' tokens, by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    full = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
    ids = torch.tensor([full["input_ids"]])
    with torch.no_grad():
        logits = model(ids).logits[0].double()
    log_probs = torch.log_softmax(logits, -1)
    first = next(n for n, (a, _) in enumerate(full["offset_mapping"]) if a >= len(text) - scored)
    values = [log_probs[p - 1, ids[0, p]].item() for p in range(max(first, 1), ids.shape[1])]
    greedy = all(int(logits[p - 1].argmax()) == ids[0, p] for p in range(first, ids.shape[1]))
    return values, greedy, tokenizer.decode([int(logits[-1].argmax())])


@pytest.mark.parametrize("which", ["tiny_model", "tiny_gpt2"])
def test_log_probabilities_and_covariates_equal_plain_transformers(study_file, request, tmp_path, which):
    folder = request.getfixturevalue(which)
    study = load_study(study_file(ARMS + "outcomes: [log_prob, perplexity, exact_match]\n", model=folder))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    assert len(frame) == 8 * 8
    assert ("<|user|>" in frame["prompt"][0]) == (which == "tiny_model")
    rows = [json.loads(x) for x in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    items = {r["id"]: r for r in rows}
    ending = {}
    for row in frame.itertuples():
        item = items[row.item_id]
        answer = " " + item["answer"]
        values, greedy, after = plain_log_probs(folder, row.prompt + answer, len(answer))
        assert row.log_prob == pytest.approx(sum(values), abs=1e-4)
        assert row.perplexity == pytest.approx(math.exp(-sum(values) / len(values)), rel=1e-4)
        stops = after[:1] == "<" or not after[:1].isalnum()
        assert row.exact_match == float(greedy and stops)
        ending[row.item_id] = item
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for item_id, row in frame.groupby("item_id").first().iterrows():
        item = items[item_id]
        assert row.question_tokens == len(tokenizer(item["question"]).input_ids)
        values, *_ = plain_log_probs(folder, item["question"], len(item["question"]))
        assert row.question_perplexity == pytest.approx(math.exp(-np.mean(values)), rel=1e-4)
        assert (row.task_type, row.difficulty) == (item["kind"], item["level"])
    # A covariate of the item is the same under every arm; the prompt's length is the arm's doing.
    for column in ("question_tokens", "question_perplexity", "difficulty", "task_type"):
        assert frame.groupby("item_id")[column].nunique().max() == 1
    assert frame.groupby("item_id")["prompt_tokens"].nunique().min() > 3


def test_arms_end_in_the_same_cue_and_score_the_same_answer(study_file, tmp_path):
    study = load_study(study_file(ARMS))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    same = frame[~frame["arm"].isin(["json"])]
    assert same["prompt"].str.endswith("Answer:").all()
    # No worked example is a study item.
    ids = set(frame["item_id"])
    rows = [json.loads(x) for x in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    others = {r["question"] for r in rows if r["id"] not in ids}
    own = {r["question"]: r["id"] for r in rows}
    for row in frame[frame["arm"] == "few_shot"].itertuples():
        shown = [q for q in own if f"{q}<" in row.prompt]
        assert sorted(own[q] for q in shown if q not in others) == [row.item_id]
        assert len(shown) == 3


def test_a_second_run_computes_nothing(study_file, tmp_path):
    study = load_study(study_file(ARMS))
    first = run_study(study, tmp_path / "out", text="the text")
    before = load_trials(study, tmp_path / "out")
    second = run_study(study, tmp_path / "out", text="the text")
    assert (first.trials, first.new_trials, second.new_trials) == (64, 64, 0)
    pd.testing.assert_frame_equal(before, load_trials(study, tmp_path / "out"))
    assert [text.split(" asks")[0] for text in second.notices] == ["Arm 'asked'"]  # as of every run of it


def test_two_folders_give_the_same_numbers(study_file, tmp_path):
    study = load_study(study_file(ARMS + "outcomes: [log_prob, string_match]\nreps: 2\n"))
    frames = []
    for out in ("a", "b"):
        run_study(study, tmp_path / out)
        frames.append(load_trials(study, tmp_path / out).drop(columns=["latency_s", "started_at"]))
    pd.testing.assert_frame_equal(*frames)


def test_completions_equal_generate_one_by_one(study_file, tmp_path, tiny_model):
    body = "arms: {direct: {kind: direct}, few_shot: {kind: few_shot, shots: 2}}\n"
    body += "outcomes: [string_match]\neffect: {outcome: string_match}\n"
    body += "generation: {max_new_tokens: 7, stop: []}\n"
    study = load_study(study_file(body, size=12))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    special = set(tokenizer.all_special_ids)
    for row in frame.itertuples():
        ids = tokenizer(row.prompt, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=7, do_sample=False, eos_token_id=sorted(special))
        new = out[0, ids["input_ids"].shape[1] :].tolist()
        new = new[: next((n for n, t in enumerate(new) if t in special), len(new))]
        assert row.completion == tokenizer.decode(new)
        assert row.completion_tokens == len(new)
        assert row.prompt_tokens == ids["input_ids"].shape[1]


GENERATED = """\
arms:
  direct: {kind: direct}
  own: {kind: chain_of_thought, reasoning: generated, ask: "Think."}
outcomes: [log_prob, exact_match]
generation: {max_reasoning_tokens: 9}
"""


def test_the_models_own_chain_comes_first_and_stands_in_the_prompt(study_file, tmp_path, tiny_model):
    study = load_study(study_file(GENERATED))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    special = sorted(tokenizer.all_special_ids)
    rows = [json.loads(x) for x in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {r["id"]: r["answer"] for r in rows}
    for row in frame[frame["arm"] == "own"].itertuples():
        head, mark, rest = row.prompt.partition("<|assistant|>\n")
        ids = tokenizer(head + mark, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=9, do_sample=False, eos_token_id=special)
        new = [t for t in out[0, ids["input_ids"].shape[1] :].tolist() if t not in special]
        assert rest == f"{tokenizer.decode(new).strip() or '...'}\nAnswer:"
        answer = " " + answers[row.item_id]
        values, *_ = plain_log_probs(tiny_model, row.prompt + answer, len(answer))
        assert row.log_prob == pytest.approx(sum(values), abs=1e-4)
    # Only what is known before the chain is written can be scored again alone.
    found = verify_study(study, tmp_path / "out")
    assert found.overall.n_used == 8
    assert found.verdict == "passes"


def test_the_models_own_chain_has_a_random_stream_of_its_own(study_file, tmp_path, monkeypatch):
    """Else the completion would repeat the draws that wrote the chain before it."""
    body = GENERATED.replace('ask: "Think."', "temperature: 1.0").replace(
        "log_prob, ", "string_match, log_prob, "
    )
    study = load_study(study_file(body + "reps: 2\n", size=4))
    seeds = {"chain": [], "completion": []}

    def spied(lm, prompts, *, max_new_tokens, **rest):
        kind = "chain" if max_new_tokens == 9 else "completion"
        seeds[kind] += [s for s, t in zip(rest["seeds"], rest["temperatures"], strict=True) if t > 0]
        return completions(lm, prompts, max_new_tokens=max_new_tokens, **rest)

    monkeypatch.setattr(writing, "completions", spied)
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    own = frame.loc[frame["arm"] == "own", "seed"].tolist()
    assert sorted(seeds["completion"]) == sorted(own)
    assert len(seeds["chain"]) == len(set(seeds["chain"])) == len(own) == 8
    assert not set(seeds["chain"]) & set(own)


def test_a_unit_that_was_laid_otherwise_keeps_the_trials_that_are_there(study_file, tmp_path, monkeypatch):
    """A version that lays units otherwise finds some of them half done; it adds what is missing."""
    study = load_study(study_file(ARMS + "reps: 2\n"))
    out = tmp_path / "out"
    real = TrialStore.add

    def killed(self, study_, model, **rows):
        if len(self.done_trials(study_, model)) > 20:
            raise KeyboardInterrupt
        real(self, study_, model, **rows)

    monkeypatch.setattr(LocalModel, "token_budget", 160)
    monkeypatch.setattr(TrialStore, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, out)
    monkeypatch.setattr(TrialStore, "add", real)
    query = "SELECT item_id, arm, rep, outcomes, unit, started_at FROM trials"
    with sqlite3.connect(out / "trials.sqlite") as db:
        before = db.execute(query).fetchall()
        units = {u for (u,) in db.execute("SELECT DISTINCT unit FROM trials")}
    db.close()
    monkeypatch.setattr(LocalModel, "token_budget", 2000)
    lm = load_model(study.model.name, device="cpu", threads=1)
    keys = {row[:3] for row in before}
    plan = make_plan(study, items_of(study), lm.codec, budget=2000)
    halves = [{plan.trials[n].key in keys for p in unit for n in p.members} for unit in plan.units]
    assert {True, False} in halves
    assert len(units) > 1
    result = run_study(study, out)
    assert (result.trials, result.new_trials) == (128, 128 - len(before))
    with sqlite3.connect(out / "trials.sqlite") as db:
        after = db.execute(query).fetchall()
    db.close()
    assert after[: len(before)] == before
    assert len({row[:3] for row in after}) == len(after) == 128


@pytest.mark.parametrize("when", ["items", "trials", "last", "manifest"])
def test_a_folder_deleted_under_a_run_is_no_success(study_file, tmp_path, monkeypatch, when):
    study = load_study(
        study_file("arms: {direct: {kind: direct}, asked: {kind: chain_of_thought, reasoning: asked_only}}\n")
    )
    out = tmp_path / "out"
    real = TrialStore.add

    def deleting(self, study_, model, *, items=(), trials=(), **rest):
        done = len(self.done_trials(study_, model)) + len(trials)
        real(self, study_, model, items=items, trials=trials, **rest)
        here = {"items": bool(items), "trials": done < 16, "last": done == 16}
        if here.get(when) and out.exists():
            shutil.rmtree(out)

    monkeypatch.setattr(TrialStore, "add", deleting)
    if when == "manifest":
        saved = run.save_manifest

        def deleting_last(*given, new_trials=None, **rest):
            saved(*given, new_trials=new_trials, **rest)
            if new_trials is not None:
                shutil.rmtree(out)

        monkeypatch.setattr(run, "save_manifest", deleting_last)
    with pytest.raises(StoreError, match=r"was deleted, moved or replaced|cannot be written") as caught:
        run_study(study, out)
    assert caught.value.exit_code == 2
    assert not out.exists()


def test_a_damaged_manifest_is_written_anew(study_file, tmp_path):
    study = load_study(study_file("arms: {direct: {kind: direct}}\n"))
    run_study(study, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    for damage in (
        b"",
        b"\xff\xfe",
        b"[1]",
        b"[" * 9999,
        *(
            json.dumps({**whole, "runs": runs}).encode()
            for runs in ([1], 7, None, {"a": 1}, [None, whole["runs"][0]])
        ),
    ):
        path.write_bytes(damage)
        run_study(study, tmp_path / "out")
        again = json.loads(path.read_text(encoding="utf-8"))
        assert again["trials"] == 8
        assert all(isinstance(r, dict) for r in again["runs"])
    assert [r["new_trials"] for r in again["runs"]] == [8, 0]


def test_temperature_as_a_continuous_treatment(study_file, tmp_path):
    body = """\
        arms:
          cold: {kind: direct}
          warm: {kind: direct, temperature: {low: 0.5, high: 1.5}}
        outcomes: [string_match, log_prob]
        reps: 3
        """
    study = load_study(study_file(body))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    warm = frame[frame["arm"] == "warm"]
    assert (frame.loc[frame["arm"] == "cold", "temperature"] == 0).all()
    assert warm["temperature"].between(0.5, 1.5).all()
    assert warm["temperature"].nunique() == 24
    assert warm["seed"].nunique() == 24
    # Greedy completions of one prompt agree; sampled ones differ.
    assert frame[frame["arm"] == "cold"].groupby("item_id")["completion"].nunique().max() == 1
    assert warm.groupby("item_id")["completion"].nunique().max() > 1
    bad = load_study(study_file(body.replace("string_match, ", ""), name="bad"))
    with pytest.raises(StudyError, match="arm 'warm' sets a temperature, and no outcome reads a completion"):
        run_study(bad, tmp_path / "bad")


def test_repetitions_draw_shots_anew_and_their_variance_is_reported(study_file, tmp_path):
    body = "arms: {direct: {kind: direct}, few_shot: {kind: few_shot, shots: 2, draw: per_rep}}\nreps: 4\n"
    study = load_study(study_file(body))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    found = repeat_variance(frame, unit="item_id", outcome="log_prob", treatment="arm", rep="rep")
    direct, shots = found.parts
    assert (direct.label, direct["repeats"], direct["n_items"]) == ("direct", 4, 8)
    assert direct["sd_repeats"] ** 2 == pytest.approx(0, abs=1e-10)
    assert direct["sd_rep_means"] == pytest.approx(0, abs=1e-6)
    table = frame[frame["arm"] == "few_shot"].pivot_table(index="item_id", columns="rep", values="log_prob")
    assert shots["sd_repeats"] ** 2 == pytest.approx(table.var(axis=1, ddof=1).mean())
    assert shots["sd_repeats"] ** 2 > 1e-4
    assert shots["sd_rep_means"] == pytest.approx(table.mean().std(ddof=1))
    # Another seed draws other shots: the direct arm stays, the few-shot arm moves.
    other = load_study(study_file(body + "seeds: {shots: 1}\n"))
    run_study(other, tmp_path / "out")
    again = load_trials(other, tmp_path / "out")
    same = frame["arm"] == "direct"
    np.testing.assert_allclose(again["log_prob"][same], frame["log_prob"][same], atol=1e-5)
    assert np.abs(again["log_prob"][~same] - frame["log_prob"][~same]).max() > 1e-2


def test_changes_are_noticed_and_named_and_nothing_is_mixed(study_file, tmp_path, model_maker):
    two = "arms: {direct: {kind: direct}, few_shot: {kind: few_shot, shots: 2}}\n"
    out = tmp_path / "out"
    first = load_study(study_file(two))
    run_study(first, out)
    before = load_trials(first, out)

    changed = load_study(study_file(two.replace("shots: 2", "shots: 3")))
    with pytest.raises(StoreError, match="another version of study 's'"):
        load_trials(changed, out)
    result = run_study(changed, out)
    assert result.notices == ("study 's' changed: arms.few_shot.shots: 2 -> 3",)
    assert result.new_trials == 16

    # The same file with other content is another study.
    items = (tmp_path / "items.jsonl").read_text(encoding="utf-8")
    (tmp_path / "items.jsonl").write_text(items.replace("What is", "How much is"), encoding="utf-8")
    result = run_study(first, out)
    assert result.new_trials == 16
    assert any("data:" in n for n in result.notices), result.notices
    (tmp_path / "items.jsonl").write_text(items, encoding="utf-8")

    # Another model: named, and its trials stand apart.
    model = model_maker(tmp_path / "second", seed=5)
    second = load_study(study_file(two, model=model))
    run_study(first, out)
    with pytest.raises(StoreError, match="was last run on the model"):
        load_trials(second, out)
    result = run_study(second, out)
    assert result.new_trials == 16
    assert any(n.startswith("model changed: name:") for n in result.notices), result.notices
    assert any(n.startswith("model changed: files:") for n in result.notices), result.notices
    with_second = load_trials(second, out)
    assert not np.allclose(with_second["log_prob"], before["log_prob"], atol=1e-2)
    with pytest.raises(StoreError, match="was last run on the model"):
        load_trials(first, out)

    # Back to the first: nothing is computed, and its own trials come back.
    result = run_study(first, out)
    assert result.new_trials == 0
    pd.testing.assert_frame_equal(load_trials(first, out), before)


def test_an_incomplete_table_is_not_handed_out(study_file, tmp_path):
    study = load_study(study_file(ARMS))

    class Stop(Exception):  # noqa: N818 - a signal of this test
        pass

    def stop(done, _total, text):
        if text.startswith("arm") and done >= 10:
            raise Stop

    with pytest.raises(Stop):
        run_study(study, tmp_path / "out", progress=stop)
    with pytest.raises(StoreError, match=r"holds \d+ of the 64 trials of study 's'") as caught:
        load_trials(study, tmp_path / "out")
    assert "goes on where it stopped" in caught.value.hint
    assert (tmp_path / "out" / "manifest.json").is_file()
    result = run_study(study, tmp_path / "out")
    assert 0 < result.new_trials < 64
    assert len(load_trials(study, tmp_path / "out")) == 64


def test_dry_run_counts_what_a_run_stores(study_file, tmp_path):
    study = load_study(study_file(ARMS))
    count = dry_run(study)
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    assert (count.trials, count.items) == (64, 8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(study.model.name)
    rows = [json.loads(x) for x in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {r["id"]: len(tokenizer(" " + r["answer"]).input_ids) for r in rows}
    tokens = frame["prompt_tokens"] + frame["item_id"].map(answers)
    assert count.arms == tokens.groupby(frame["arm"]).sum().to_dict()
    assert count.tokens == tokens.sum()


def test_verify_finds_a_number_that_was_changed(study_file, tmp_path):
    study = load_study(study_file(ARMS))
    run_study(study, tmp_path / "out")
    found = verify_study(study, tmp_path / "out", sample=64)
    assert found.overall.n_used == 64
    assert found.verdict == "passes"
    assert found.estimate < 1e-4
    with sqlite3.connect(tmp_path / "out" / "trials.sqlite") as db:
        db.execute(
            "UPDATE trials SET outcomes = json_set(outcomes, '$.log_prob', "
            "json_extract(outcomes, '$.log_prob') + 0.5) "
            "WHERE item_id = (SELECT min(item_id) FROM trials) AND arm = 'cut'"
        )
    db.close()
    found = verify_study(study, tmp_path / "out", sample=64)
    assert found.verdict == "fails"
    assert found.estimate == pytest.approx(0.5, abs=1e-3)
    assert "arm 'cut'" in found.overall.label


def test_verify_needs_log_probabilities(study_file, tmp_path):
    body = "arms: {direct: {kind: direct}}\noutcomes: [exact_match]\neffect: {outcome: exact_match}\n"
    study = load_study(study_file(body))
    run_study(study, tmp_path / "out")
    with pytest.raises(StoreError, match="'log_prob' is not among the outcomes"):
        verify_study(study, tmp_path / "out")


def test_the_manifest_says_what_made_the_results(study_file, tmp_path, tiny_model):
    path = study_file(ARMS + "seeds: {items: 1, shots: 2, sampling: 3, analysis: 4}\n")
    text = path.read_text(encoding="utf-8")
    study = load_study(path)
    result = run_study(study, tmp_path / "out", text=text)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["study_text"] == text
    assert manifest["study_fingerprint"] == result.study
    assert manifest["model"]["fingerprint"] == result.model
    assert manifest["model"]["files_sha256"] == locate_model(str(tiny_model))[1]
    assert (manifest["model"]["dtype"], manifest["model"]["device"]) == ("float32", "cpu")
    assert manifest["threads"] == 1
    assert manifest["seeds"] == {
        "items": 1,
        "shots": 2,
        "sampling": 3,
        "analysis": 4,
        "python": 3,
        "numpy": 3,
        "torch": 3,
        "cuda": 3,
    }
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["versions"]["transformers"] == transformers.__version__
    assert len(manifest["data_fingerprint"]) == 64
    assert manifest["trials"] == 64
    assert [r["new_trials"] for r in manifest["runs"]] == [64]
    # A run that computes nothing leaves the record of the one that did.
    run_study(study, tmp_path / "out", text=text)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [r["new_trials"] for r in manifest["runs"]] == [64, 0]
    run_study(study, tmp_path / "out", text=text)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [r["new_trials"] for r in manifest["runs"]] == [64, 0]


def test_the_global_generators_are_seeded(study_file, tmp_path):
    import random

    study = load_study(study_file("arms: {direct: {kind: direct}}\nseeds: {sampling: 8}\n"))
    seen = []
    for out in ("a", "b"):
        run_study(study, tmp_path / out)
        seen.append((random.random(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002, S311
    assert seen[0] == seen[1]


def test_a_prompt_longer_than_the_context_is_refused_before_anything_is_written(
    study_file, tmp_path, model_maker
):
    model = model_maker(tmp_path / "short", context=60)
    study = load_study(study_file(ARMS, model=model))
    with pytest.raises(PromptError, match=r"arm '\w+', item '\w+': prompt and answer have \d+ tokens"):
        run_study(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # Room for what is yet to be written counts too.
    model = model_maker(tmp_path / "longer", context=110)
    body = "arms: {direct: {kind: direct}}\noutcomes: [log_prob, string_match]\n"
    body += "generation: {max_new_tokens: 90}\n"
    with pytest.raises(PromptError, match="and 90 more may be written"):
        run_study(load_study(study_file(body, model=model)), tmp_path / "out")


def test_a_question_of_one_token_has_no_perplexity(study_file, tmp_path):
    path = tmp_path / "items.jsonl"
    study = load_study(study_file("arms: {direct: {kind: direct}}\n", size=2))
    rows = [{"id": "a", "question": "What", "answer": "1", "kind": "t", "level": 1, "why": "x"}]
    rows.append({**rows[0], "id": "b", "question": "What seven eight"})
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    with pytest.raises(DataError, match="item 'a': its question is one token"):
        run_study(study, tmp_path / "out")
    study = load_study(study_file("arms: {direct: {kind: direct}}\ncovariates: [question_tokens]\n", size=2))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    assert frame["question_tokens"].tolist() == [1, 3]
    assert "question_perplexity" not in frame


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_holds_the_whole_table(study_file, tmp_path, suffix):
    study = load_study(study_file(ARMS))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    export(frame, tmp_path / f"t.{suffix}")
    if suffix == "csv":
        back = pd.read_csv(tmp_path / "t.csv", dtype={"item_id": str})
    else:
        back = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    with pytest.raises(StoreError, match=r"exported as \.csv or \.parquet"):
        export(frame, tmp_path / "t.xlsx")


@pytest.mark.model
def test_the_embedded_model_scores_chat_prompts_as_transformers_does(study_file, tmp_path):
    body = "arms: {direct: {kind: direct}, few_shot: {kind: few_shot, shots: 2}}\n"
    study = load_study(study_file(body, model="embedded", size=3))
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    assert frame["prompt"].str.startswith("<|im_start|>system").all()
    folder = locate_model("embedded")[0]
    rows = [json.loads(x) for x in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {r["id"]: " " + r["answer"] for r in rows}
    for row in frame.itertuples():
        answer = answers[row.item_id]
        values, *_ = plain_log_probs(folder, row.prompt + answer, len(answer))
        assert row.log_prob == pytest.approx(sum(values), abs=1e-4)
