"""The chain before the answer, set to the other arm's on a tiny model, against plain runs of the model."""

from __future__ import annotations

import itertools
import json
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from whyprompt import load_trials, run_study, study_mediation
from whyprompt.answers import load_mediation
from whyprompt.answers.chains import read_chains, text_study, texts_file
from whyprompt.answers.pairs import rendered
from whyprompt.answers.saved import Saved
from whyprompt.errors import StudyError
from whyprompt.mediation.texts import text_effects
from whyprompt.study import load_study
from whyprompt.trials import forced
from whyprompt.trials.forced import chain_in, format_of, n_tokens, to_format, to_length, with_chain
from whyprompt.trials.items.load import items_of
from whyprompt.trials.models.load import load_model

STUDY = """\
name: chains
question: What does the chain carry?
model: {{name: "{model}", device: cpu, threads: 1, dtype: float64}}
items:
  - source: file
    path: items.jsonl
    size: 16
    columns: {{item_id: id, task_type: kind, difficulty: level, solution: why{cluster}}}
arms:
  direct: {{kind: direct}}
  worked: {{kind: chain_of_thought, reasoning: worked}}
  other: {{kind: chain_of_thought, reasoning: other}}
  thinks: {{kind: chain_of_thought, reasoning: generated}}
outcomes: {outcomes}
generation: {{max_reasoning_tokens: 9, max_new_tokens: 3}}
mediation: {{items_per_task: 8, max_heads: 2, contrast: {contrast}, text: {text}}}
effect: {{outcome: {outcome}}}
"""


def write(folder, model, **changes):
    asked = {
        "outcomes": "[log_prob]",
        "outcome": "log_prob",
        "contrast": "{treated: worked, control: thinks}",
        "text": "[chain, length, format]",
        "cluster": "",
    } | changes
    path = folder / "study.yaml"
    path.write_text(textwrap.dedent(STUDY).format(model=model, **asked), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny_model, items_writer):
    folder = tmp_path_factory.mktemp("chains")
    path = items_writer(folder / "items.jsonl", 60)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows[::2]:
        # Half of the solutions have two lines.
        row["why"] = row["why"].replace(" so ", "\nso ")
    for k, row in enumerate(rows):
        row["template"] = f"t{k % 9}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    study = load_study(write(folder, tiny_model, cluster=", cluster: template"))
    run_study(study, folder / "out")
    frame = load_trials(study, folder / "out")
    found = study_mediation(study, folder / "out", frame)
    return SimpleNamespace(study=study, frame=frame, folder=folder, found=found, model=tiny_model)


def plain_log_prob(lm, text, answer, *, special):
    """Log-probability of an answer after a text: the model run on the tokens of both, and nothing else."""
    ids = list(lm.codec.tokens(text, special=special))
    whole = list(lm.codec.tokens(text + answer, special=special))
    assert whole[: len(ids)] == ids
    with torch.no_grad():
        logits = lm.model(torch.tensor([whole])).logits[0].double()
    log_probs = torch.log_softmax(logits, -1)
    return sum(float(log_probs[k - 1, whole[k]]) for k in range(len(ids), len(whole)))


def test_every_world_is_a_plain_run_of_the_prompt_with_the_other_arms_chain(ran):
    """Prompts put together here from their pieces: what comes before the chain, the chain, the cue."""
    study, frame = ran.study, ran.frame
    lm = load_model(**study.model.model_dump())
    effects = {name: [] for name in ("nie", "nde", "pure_nie", "total_nde")}
    for item in items_of(study).items:
        if item.item_id not in ran.found.main.sweep.item_ids:
            continue
        prompts = [
            rendered(study, arm, item, items_of(study), lm.codec, frame) for arm in ("thinks", "worked")
        ]
        pieces = []
        for prompt in prompts:
            chain = chain_in(prompt)
            head, tail = prompt.text.split(f"{chain}\nAnswer:")
            assert tail == ""
            pieces.append((head, chain))
        y = {
            (arm, of): plain_log_prob(
                lm, f"{pieces[arm][0]}{pieces[of][1]}\nAnswer:", f" {item.answer}", special=False
            )
            for arm, of in itertools.product((0, 1), (0, 1))
        }
        effects["nie"].append(y[1, 1] - y[1, 0])
        effects["nde"].append(y[1, 0] - y[0, 0])
        effects["pure_nie"].append(y[0, 1] - y[0, 0])
        effects["total_nde"].append(y[1, 1] - y[0, 1])
    for name, values in effects.items():
        assert len(values) == len(ran.found.main.sweep.item_ids) > 12
        assert ran.found.texts.set.part(name, by="chain").estimate == pytest.approx(np.mean(values), abs=1e-9)
    # One quantity by two routes: the trial table's own difference.
    wide = frame.pivot_table(index="item_id", columns="arm", values="log_prob")
    wide = wide.loc[list(ran.found.main.sweep.item_ids)]
    total = (wide["worked"] - wide["thinks"]).mean()
    assert ran.found.texts.set.estimate == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("by", ["chain", "length", "format"])
def test_effects_add_up_to_the_total_in_both_directions(ran, by):
    found = ran.found.texts.set
    for indirect, direct in (("nie", "nde"), ("pure_nie", "total_nde")):
        both = found.part(indirect, by=by).estimate + found.part(direct, by=by).estimate
        assert both == pytest.approx(found.estimate, abs=1e-12)


def test_the_measured_answer_stands_beside_the_one_that_was_set(ran):
    texts = ran.found.texts
    held = texts.beside.part("nie", by="length")
    assert held["set"] == pytest.approx(texts.set.part("nie", by="length").estimate)
    by = "interventional_nie" if len(texts.measured["mediators"]) > 1 else "nie"
    assert held["measured"] == pytest.approx(texts.measured.part(by, by="length").estimate)
    assert held.estimate == pytest.approx(held["measured"] - held["set"])
    assert held.ci_low < held.estimate < held.ci_high
    assert texts.set.sentence in ran.found.summary()
    assert texts.beside.sentence in ran.found.summary()
    json.dumps(ran.found.to_dict(), allow_nan=False)


def test_the_order_of_the_items_changes_nothing(ran):
    """What was set and what was measured are of the same items in the same draws."""
    saved = Saved.open(ran.study, ran.folder / "out", ran.frame)
    found = read_chains(saved)
    turned = found._replace(
        **{name: getattr(found, name)[::-1] for name in ("item_ids", "clusters", "chains", "tokens")},
        own={name: y[::-1] for name, y in found.own.items()},
        worlds={k: {name: y[::-1] for name, y in world.items()} for k, world in found.worlds.items()},
    )
    once, again = text_study(saved, found).beside, text_study(saved, turned).beside
    assert once.parts
    for row, other in zip(once.parts, again.parts, strict=True):
        np.testing.assert_allclose([other.estimate, *other.ends], [row.estimate, *row.ends], atol=1e-12)


def test_items_of_one_template_are_one_sampling_unit(ran):
    template = {item.item_id: item.cluster for item in items_of(ran.study).items}
    of = [template[item] for item in ran.found.main.sweep.item_ids]
    assert len(set(of)) < len(of)
    for found in (ran.found.texts.set, ran.found.texts.measured):
        assert (found["items"], found["units"]) == (len(of), len(set(of)))


def test_what_was_computed_is_read_again_and_a_damaged_file_computed_again(ran):
    study, folder, frame = ran.study, ran.folder / "out", ran.frame
    path = texts_file(Saved.open(study, folder, frame))
    again = load_mediation(study, folder, frame)
    assert again.texts.set == ran.found.texts.set
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert load_mediation(study, folder, frame).texts is None
    mended = study_mediation(study, folder, frame)
    assert mended.texts.set == ran.found.texts.set
    assert path.read_bytes() == whole


def test_a_study_that_asks_for_no_text_reads_the_same_sweep(ran):
    study = ran.study.model_copy(update={"mediation": ran.study.mediation.model_copy(update={"text": []})})
    found = load_mediation(study, ran.folder / "out", ran.frame)
    assert found.texts is None
    assert found.main.sweep.item_ids == ran.found.main.sweep.item_ids


def test_outcomes_of_0_and_1_that_no_item_changes_bound_an_effect_and_do_not_make_it_nothing():
    """Twelve items that are all right whatever is set: one in four of the others may not be."""
    ones, some = np.ones(12), np.repeat([1.0, 0.0], 6)
    asked = {"clusters": list("abcdefghijkl"), "outcome": "right", "treated": "b", "control": "a"}
    found = text_effects({"chain": (ones, ones, some, some)}, **asked)
    low, high = found.part("nie").ends
    assert found.part("nie").estimate == 0
    assert low < -0.2
    assert high > 0.2
    assert found.overall.ends == found.part("nde").ends
    # Of a score that is no 0 or 1, effects that are alike are what they are.
    found = text_effects({"chain": (2 * ones, 2 * ones, some, some)}, **asked)
    assert found.part("nie").ends == (0, 0)


def test_items_twice_over_in_a_cluster_say_no_more_than_once():
    rng = np.random.default_rng(0)
    worlds = tuple(level + rng.normal(size=20) for level in (4, 2, 1, 0))
    asked = {"outcome": "score", "treated": "b", "control": "a"}
    one = text_effects({"chain": worlds}, clusters=range(20), **asked)
    doubled = tuple(np.repeat(y, 2) for y in worlds)
    two = text_effects({"chain": doubled}, clusters=np.repeat(range(20), 2), **asked)
    assert np.isfinite(one.part("proportion").ends).all()
    for row, other in zip((one.overall, *one.parts), (two.overall, *two.parts), strict=True):
        np.testing.assert_allclose([other.estimate, *other.ends], [row.estimate, *row.ends], rtol=1e-9)


@pytest.mark.parametrize("key", ["generation", "sampling", "text"])
def test_what_texts_depend_on_is_not_taken_from_what_was_computed_otherwise(ran, key):
    study = ran.study
    longer = study.generation.model_copy(update={"max_new_tokens": 9})
    changed = {
        "generation": {"generation": longer},
        "sampling": {"seeds": study.seeds.model_copy(update={"sampling": 77})},
        "text": {"mediation": study.mediation.model_copy(update={"text": ["chain"]})},
    }[key]
    saved = Saved.open(study, ran.folder / "out", ran.frame)
    other = replace(saved, study=study.model_copy(update=changed))
    if key == "text":
        other = replace(other, settings=changed["mediation"])
    assert texts_file(other) != texts_file(saved)
    assert texts_file(replace(saved, study=study.model_copy(update={"name": "another"}))) == texts_file(saved)


def test_an_arm_without_a_chain_is_given_one_and_a_written_answer_is_scored(ran, tmp_path, items_writer):
    items_writer(tmp_path / "items.jsonl", 60)
    file = write(
        tmp_path,
        ran.model,
        outcomes="[log_prob, exact_match, numeric_match]",
        outcome="numeric_match",
        contrast="{treated: worked, control: direct}",
        text="[length, chain, format]",
    )
    study = load_study(file)
    run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    found = study_mediation(study, tmp_path / "out", frame).texts
    wide = frame.pivot_table(index="item_id", columns="arm", values="numeric_match")
    wide = wide.loc[list(study_mediation(study, tmp_path / "out", frame).main.sweep.item_ids)]
    assert found.set.estimate == pytest.approx((wide["worked"] - wide["direct"]).mean(), abs=1e-12)
    assert found.set["set"] == ("length", "chain")
    assert any("format" in note for note in found.notes)


def test_what_is_written_after_its_own_chain_is_the_first_trial(ran, tmp_path, items_writer, monkeypatch):
    items_writer(tmp_path / "items.jsonl", 60)
    changes = {"outcomes": "[log_prob, numeric_match]", "outcome": "numeric_match", "text": "[chain]"}
    file = write(tmp_path, ran.model, contrast="{treated: worked, control: other}", **changes)
    text = file.read_text().replace("reasoning: worked}", "reasoning: worked, temperature: 1.5}")
    file.write_text(text.replace("reasoning: other}", "reasoning: other, temperature: 0.9}") + "reps: 2\n")
    study = load_study(file)
    run_study(study, tmp_path / "out")
    frame, written = load_trials(study, tmp_path / "out"), []

    def kept(*args, **options):
        written.append([one.text for one in complete(*args, **options)])
        return complete(*args, **options)

    complete = forced.complete
    monkeypatch.setattr(forced, "complete", kept)
    items = study_mediation(study, tmp_path / "out", frame).main.sweep.item_ids
    stored = frame.set_index(["rep", "item_id", "arm"])["completion"]
    assert written[0] == [stored[0, item, arm] for item in items for arm in ("other", "worked")]
    assert written[0] != [stored[1, item, arm] for item in items for arm in ("other", "worked")]


def test_a_chain_set_to_itself_changes_nothing_and_an_empty_one_takes_its_line(ran):
    lm = load_model(**ran.study.model.model_dump())
    pool = items_of(ran.study)
    for name in ran.study.arms:
        prompt = rendered(ran.study, name, pool.items[0], pool, lm.codec, ran.frame)
        chain = chain_in(prompt)
        assert with_chain(prompt, chain) == prompt
        bare = with_chain(prompt, "")
        assert chain_in(bare) == ""
        assert bare.text == prompt.text.replace(f"{chain}\n", "") if chain else bare == prompt
        put = with_chain(bare, "so 3 then")
        assert chain_in(put) == "so 3 then"
        assert put.text.endswith("so 3 then\nAnswer:")
        assert {n: put.text[a:b] for n, a, b in put.segments}["cue"] == "Answer:"


@pytest.mark.parametrize("text", ["so one plus two is three then think", "7", ""])
def test_a_chain_is_cut_and_padded_to_a_number_of_tokens(ran, text):
    codec = load_model(**ran.study.model.model_dump()).codec
    for length in (0, 1, 3, 6, 40):
        made = to_length(text, length, codec)
        if n_tokens(text, codec) >= length:
            assert text.startswith(made)
            assert n_tokens(made, codec) <= length
        else:
            assert made.startswith(text)
            assert set(made[len(text) :]) <= {" ", "."}
            assert n_tokens(made, codec) >= length
            assert n_tokens(made.removesuffix(" ..."), codec) < length or made == "..."


def test_steps_are_the_same_in_every_format():
    steps = ["3 + 4 = 7.", "7 * 2 = 14."]
    forms = {
        "lines": "\n".join(steps),
        "line": " ".join(steps),
        "list": "\n".join(f"- {s}" for s in steps),
        "json": json.dumps({"steps": steps}),
    }
    for (one, text), (two, wanted) in itertools.product(forms.items(), forms.items()):
        assert format_of(text) == one
        assert to_format(text, two) == wanted
    assert to_format("", "list") == ""
    assert to_format("a", "") == "a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrast": "{treated: direct, control: direct}"}, "itself"),
        ({"text": "[chain, chain]"}, "names one twice"),
        ({"text": "[tone]"}, "tone"),
    ],
)
def test_what_cannot_be_set_is_refused_before_anything_runs(tmp_path, tiny_model, changes, message):
    with pytest.raises(StudyError, match=message):
        load_study(write(tmp_path, tiny_model, **changes))


def test_arms_without_a_chain_are_refused(tmp_path, tiny_model):
    file = write(tmp_path, tiny_model, contrast="{treated: shots, control: direct}")
    file.write_text(
        file.read_text().replace(
            "  other: {kind: chain_of_thought, reasoning: other}", "  shots: {kind: few_shot}"
        )
    )
    with pytest.raises(StudyError, match="neither 'shots' nor 'direct' has one"):
        load_study(file)
