"""What a model writes in a study: kept as it is finished, told of where it is cut off or cannot be read."""

import json
import textwrap

import pandas as pd
import pytest

from whyprompt import load_trials, run_study, study_effect, write_report
from whyprompt.study import ChainOfThoughtArm, load_study
from whyprompt.trials import writing
from whyprompt.trials.models import generation
from whyprompt.trials.store import TrialStore

TIMING = ["latency_s", "started_at"]


@pytest.fixture
def study_file(tmp_path, tiny_model, items_writer):
    items_writer(tmp_path / "items.jsonl")

    def make(body):
        path = tmp_path / "s.yaml"
        head = f"""\
            name: s
            question: What does it do?
            model: {{name: "{tiny_model}", device: cpu, threads: 1}}
            items:
              - source: file
                path: items.jsonl
                size: 20
                shot_pool: 6
                columns: {{item_id: id, task_type: kind, difficulty: level, solution: why}}
            """
        path.write_text(textwrap.dedent(head) + textwrap.dedent(body), encoding="utf-8")
        return path

    return make


BODY = """\
arms:
  direct: {kind: direct}
  own: {kind: chain_of_thought, temperature: 0.9}
outcomes: [string_match, log_prob, {name: numeric_match, extract: {regex: '[0-9]+'}}]
effect: {outcome: numeric_match}
generation: {max_new_tokens: 7, max_reasoning_tokens: 9}
reps: 2
"""


def test_the_default_chain_of_thought_lets_the_model_think():
    assert ChainOfThoughtArm(kind="chain_of_thought").reasoning == "generated"


@pytest.mark.parametrize("after", [1, 30, 61, 100])
def test_no_finished_text_is_written_twice_and_the_table_is_that_of_a_whole_run(
    study_file, tmp_path, monkeypatch, after
):
    study = load_study(study_file(BODY))
    monkeypatch.setattr(generation, "_SIDE_BY_SIDE", {"cpu": 5})
    run_study(study, tmp_path / "whole")
    whole = load_trials(study, tmp_path / "whole").drop(columns=TIMING)
    own = TrialStore.add_text
    kept = []

    def stops(self, study_, model, key, part, text):
        if len(kept) == after:
            raise KeyboardInterrupt
        own(self, study_, model, key, part, text)
        kept.append((key, part))

    monkeypatch.setattr(TrialStore, "add_text", stops)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "out")
    before = list(kept)
    monkeypatch.setattr(TrialStore, "add_text", own)
    written = []
    real = writing.completions

    def counted(lm, prompts, **rest):
        written.append(len(prompts))
        yield from real(lm, prompts, **rest)

    monkeypatch.setattr(writing, "completions", counted)
    run_study(study, tmp_path / "out")
    # 40 answers of the direct arm; 40 chains and 40 answers of the other one.
    assert len(before) == after
    assert sum(written) == 120 - after
    found = load_trials(study, tmp_path / "out").drop(columns=TIMING)
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
    with TrialStore(tmp_path / "out" / "trials.sqlite", write=False) as store:
        assert store.texts(*store.latest("s")) == {}


def test_what_has_the_wrong_format_and_what_is_cut_off_is_counted_by_arm(study_file, tmp_path):
    study = load_study(study_file(BODY))
    result = run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    gaps = frame["numeric_match_extracted"].isna()
    assert 0 < gaps.sum() < len(frame)
    assert (frame.loc[gaps, "numeric_match"] == 0).all()
    assert frame["numeric_match"].notna().all()
    for row in frame[~gaps].itertuples():
        assert row.numeric_match_extracted in row.completion
    by = {arm: int(gaps[frame["arm"] == arm].sum()) for arm in ("direct", "own")}
    said = (
        f"'numeric_match' found no answer in {by['direct']} of 40 completions of arm 'direct' and"
        f" {by['own']} of 40 of arm 'own': the wrong format, worth 0 each"
    )
    assert said in result.notices
    cut = frame[frame["arm"] == "own"]["reasoning_finish"].value_counts()
    assert set(frame["finish"]) <= {"stop", "length"}
    assert frame.loc[frame["arm"] == "direct", "reasoning_finish"].isna().all()
    assert (frame.loc[frame["finish"] == "length", "completion_tokens"] == 7).all()
    chains = f"{cut.get('length', 0)} of 40 chains of thought of arm 'own' (max_reasoning_tokens: 9)"
    assert any(text.endswith(chains) for text in result.notices)
    effect = study_effect(study, frame)
    order = f"found no answer in {by['own']} of 40 completions of arm 'own' and {by['direct']} of 40 of arm"
    assert any(order in text for text in effect.main.warnings)
    # An outcome that reads no completion is not told of the format.
    assert not any("found no answer" in text for text in effect.outcomes["log_prob"].warnings)


ASKED = """\
arms:
  direct: {kind: direct}
  cot: {kind: chain_of_thought, reasoning: asked_only}
  own: {kind: chain_of_thought}
outcomes: [log_prob]
generation: {max_reasoning_tokens: 5}
"""
WORDS = "Arm 'cot' asks the model to reason and lets it write nothing before its answer is scored"


def test_an_arm_that_is_only_asked_to_reason_is_told_of_everywhere(study_file, tmp_path, run):
    path = study_file(ASKED)
    out = tmp_path / "out"
    code, _, said = run("run", path, "--out", out)
    assert code == 0
    assert f"note: {WORDS}" in said
    code, printed, _ = run("effect", path, "--out", out)
    assert code == 0
    assert printed.count(WORDS) >= 2  # in the sentence, and among the notes
    study = load_study(path)
    effect = study_effect(study, load_trials(study, out))
    assert WORDS in effect.sentence
    assert any(text.startswith(WORDS) for text in effect.main.warnings)
    assert not any(WORDS in text for text in effect.arms["own"].warnings)
    page = write_report(path, out).read_text(encoding="utf-8")
    assert page.replace("&#39;", "'").count(WORDS) >= 2


def test_an_arm_that_thinks_is_not_warned_of(study_file, tmp_path):
    study = load_study(study_file(ASKED.replace(", reasoning: asked_only", "")))
    result = run_study(study, tmp_path / "out")
    assert not any("write nothing" in text for text in result.notices)
    effect = study_effect(study, load_trials(study, tmp_path / "out"))
    assert "write nothing" not in effect.sentence


def test_extraction_of_chains_and_answers_reaches_the_exported_table(study_file, tmp_path, run):
    path = study_file(BODY)
    out = tmp_path / "out"
    run("run", path, "--out", out)
    code, _, _ = run("export", path, tmp_path / "t.csv", "--out", out)
    assert code == 0
    table = pd.read_csv(tmp_path / "t.csv")
    assert {"finish", "reasoning_finish", "reasoning_tokens", "numeric_match_extracted"} <= set(table.columns)
    code, printed, _ = run("run", path, "--out", out, "--json")
    assert json.loads(printed)["new_trials"] == 0
    assert any("found no answer" in text for text in json.loads(printed)["notices"])
