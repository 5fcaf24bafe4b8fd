"""Runs of HELM: a real one against its statistics, and what the real one has none of."""

import json
import math
import time

import pytest

from whyprompt.errors import DataError
from whyprompt.trials.readers import helm
from whyprompt.trials.readers.record import ROLES


def stat(name, mean, **more):
    given = {"name": {"name": name, "split": "test", **more}, "count": 0 if mean is None else 1}
    return given if mean is None else {**given, "sum": mean, "sum_squared": mean, "mean": mean}


def record(own, *stats, trial=0, **more):
    return {"instance_id": own, "train_trial_index": trial, "stats": list(stats), **more}


def state(own, *, trial=0, text="7", **more):
    instance = {
        "input": {"text": f"Q {own}"},
        "references": [{"output": {"text": "7"}, "tags": ["correct"]}, {"output": {"text": "8"}, "tags": []}],
        "split": "test",
        "id": own,
    }
    instance |= more.pop("instance", {})
    return {
        "instance": instance,
        "train_trial_index": trial,
        "request": {"prompt": f"Q {own}\nA:"},
        "result": {"success": True, "completions": [{"text": text}], "request_datetime": 0},
        **more,
    }


SPEC = {
    "name": "run",
    "scenario_spec": {"class_name": "Sums", "args": {"level": 2}},
    "adapter_spec": {
        "method": "generation",
        "instructions": "Add.",
        "max_train_instances": 3,
        "model": "a/b",
        "model_deployment": "x/b",
        "temperature": 0.0,
        "max_eval_instances": 10,
        "stop_sequences": ["\n"],
    },
    "metric_specs": [{"class_name": "Basic", "args": {"names": ["exact_match"]}}],
}


def write(folder, records, states=(), stats=(), spec=SPEC):
    files = {"per_instance_stats": records, "stats": list(stats), "run_spec": spec}
    files["scenario_state"] = {"adapter_spec": {}, "request_states": list(states)} if states else None
    for file, content in files.items():
        if content:
            (folder / f"{file}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder / "per_instance_stats.json"


def only(path):
    (log,) = helm.read(path)
    return log


def sure(path):
    with path.open("rb") as file:
        return helm.sniff(path, file.read(1 << 16))


# ----------------------------------------------------------------------------------------- a real run
@pytest.fixture
def real(shared_logs):
    (path,) = shared_logs.glob("helm/*/per_instance_stats.json")
    return path


def test_a_real_run_gives_the_means_that_it_states(real):
    log = only(real)
    found = list(log.trials())
    assert len(found) == 10
    assert {t.rep for t in found} == {1}
    means = {scorer: math.fsum(t.scores[scorer] for t in found) / 10 for scorer in found[0].scores}
    assert means["exact_match"] == pytest.approx(0.3)
    # 17 of the 27 statistics count and time.
    assert len(means) == 10
    assert {s.scorer for s in log.stated} == set(means)
    for stated in log.stated:
        assert stated.mean == pytest.approx(means[stated.scorer])
        assert stated.n == 10
        assert stated.where.items() <= found[0].settings["items"].items()


def test_a_real_run_says_what_was_asked(real):
    first = next(only(real).trials())
    assert first.item == "id44874"
    assert first.question.startswith("Personal Care and Style:")
    assert first.question in first.prompt
    assert len(first.choices) == 4
    assert first.target == first.choices[2]
    assert (first.completion, first.prompt_tokens, first.completion_tokens) == (" B", 718, 1)
    assert first.latency_s == pytest.approx(18.7498, abs=1e-4)
    assert first.started_at == "2025-07-05T15:39:58+00:00"
    assert first.covariates == {"num_references": 4}
    assert (first.error, first.stop_reason) == (None, None)


def test_a_real_run_says_what_it_was(real):
    log = only(real)
    settings = log.settings
    assert set(settings) <= set(ROLES)
    assert settings["model"] == {"adapter_spec.model": "eleutherai/pythia-1b-v0"}
    assert settings["engine"] == {"adapter_spec.model_deployment": "huggingface/pythia-1b-v0"}
    assert settings["few_shot"]["adapter_spec.max_train_instances"] == 5
    assert settings["prompt"]["adapter_spec.instructions"].startswith("The following are multiple")
    assert settings["sampling"]["adapter_spec.temperature"] == 0.0
    assert settings["items"]["scenario_spec.class_name"].endswith("HellaSwagScenario")
    assert "quasi_exact_match" in settings["judge"]["metric_specs"]
    (note,) = log.notes
    assert "no scores are left out: batch_size, finish_reason_endoftext" in note
    assert "exact_match" not in note


def test_a_run_is_read_from_its_folder_or_any_of_its_files(real):
    for path in (real.parent, *real.parent.iterdir()):
        assert only(path).path == real


def test_every_real_file_is_known_at_once(shared_logs):
    for path in shared_logs.rglob("*"):
        if path.is_file():
            start = time.perf_counter()
            known = sure(path)
            assert time.perf_counter() - start < 0.2
            # In the folder of a run the statistics are taken, and what lies beside by them.
            assert (known > 0.5) == (path.name == "per_instance_stats.json"), path


# ------------------------------------------------------------------------------------------ what else
def test_records_of_one_instance_are_one_trial(tmp_path):
    """A record for each class of metrics, those of one class together."""
    records = [record(own, stat("exact_match", 1.0), stat("num_references", 2)) for own in ("a", "b")]
    records += [
        record(own, stat("f1", 0.5), stat("num_references", 2), stat("bleu", None)) for own in ("a", "b")
    ]
    found = list(only(write(tmp_path, records, [state("a"), state("b")])).trials())
    assert [t.item for t in found] == ["a", "b"]
    assert all(t.scores == {"exact_match": 1.0, "f1": 0.5, "bleu": None} for t in found)
    assert all((t.question, t.target, t.choices) == (f"Q {t.item}", "7", ()) for t in found)


def test_trials_are_repetitions_and_perturbations_items_of_their_own(tmp_path):
    typos = {"name": "typos", "computed_on": "perturbed"}
    records = [record("a", stat("exact_match", k / 2), trial=k) for k in (0, 1)]
    records.append(record("a", stat("exact_match", 0.0, perturbation=typos), perturbation=typos))
    states = [state("a", trial=k) for k in (0, 1)]
    states.append(state("a", instance={"perturbation": typos, "input": {"text": "Q aa"}}))
    stats = [
        stat("exact_match", 0.25),
        stat("num_instances", 1),
        stat("exact_match", 0.0, perturbation=typos),
        stat("exact_match", 0.9, perturbation={**typos, "computed_on": "worst"}),
        stat("f1", 0.5),
    ]
    log = only(write(tmp_path, records, states, stats))
    found = list(log.trials())
    assert [(t.item, t.rep, t.question) for t in found] == [
        ("a", 1, "Q a"),
        ("a", 2, "Q a"),
        ("a (typos)", 1, "Q aa"),
    ]
    plain, perturbed = log.stated
    assert (plain.mean, plain.n, plain.where["instance.perturbation"]) == (0.25, 1, "")
    assert (perturbed.mean, perturbed.where["instance.perturbation"]) == (0.0, "typos")
    for stated in log.stated:
        own = [t for t in found if stated.where.items() <= t.settings["items"].items()]
        assert math.fsum(t.scores["exact_match"] for t in own) / len(own) == stated.mean


def test_of_a_request_a_reference_the_chosen_is_what_was_answered(tmp_path):
    records = [record("a", stat("exact_match", 1.0), stat("predicted_index", 1.0))]
    states = [state("a", text=f" {k}", reference_index=k, request_mode="original") for k in (0, 1)]
    (found,) = only(write(tmp_path, records, states)).trials()
    assert (found.completion, found.choices, found.scores) == (" 1", ("7", "8"), {"exact_match": 1.0})


def test_a_shortened_prompt_a_failure_and_how_it_ended_are_told(tmp_path):
    ends = (
        stat("finish_reason_length", 1.0),
        stat("finish_reason_stop", 0.0),
        stat("num_train_instances", 1),
    )
    records = [
        record("a", stat("exact_match", 0.0), *ends),
        record("b", stat("exact_match", None), stat("num_train_instances", 3)),
    ]
    failed = state("b") | {"result": {"success": False, "error": "refused", "completions": []}}
    path = write(tmp_path, records, [state("a"), failed])
    first, second = only(path).trials()
    assert first.stop_reason == "length"
    assert (second.error, second.scores, second.completion) == ("refused", {"exact_match": None}, None)
    assert "1 of 2 prompts had fewer than 3 worked examples" in only(path).notes


def test_without_what_lies_beside_it_the_statistics_are_read(tmp_path):
    log = only(write(tmp_path, [record("a", stat("exact_match", 1.0))], spec=None))
    assert [note.split(" lies")[0] for note in log.notes] == ["no scenario_state.json", "no run_spec.json"]
    assert (log.settings, log.stated) == ({}, ())
    assert [(t.item, t.question, t.scores) for t in log.trials()] == [("a", "", {"exact_match": 1.0})]


def test_texts_of_old_are_no_objects(tmp_path):
    old = state("a", instance={"input": "Q old", "references": [{"output": "7", "tags": ["correct"]}]})
    (found,) = only(write(tmp_path, [record("a", stat("exact_match", 1.0))], [old])).trials()
    assert (found.question, found.target) == ("Q old", "7")


# ------------------------------------------------------------------------------------- damaged input
def test_a_score_that_is_two_things_is_refused(tmp_path):
    path = write(tmp_path, [record("a", stat("exact_match", 1.0)), record("a", stat("exact_match", 0.0))])
    with pytest.raises(
        DataError, match=r"per_instance_stats\.json: record 2: 'exact_match' of instance 'a' is 0, and was 1"
    ):
        only(path)


def test_damaged_files_are_named(tmp_path):
    path = write(tmp_path, [record("a", stat("exact_match", 1.0))], [state("a")], [stat("exact_match", 1.0)])
    for name in ("per_instance_stats", "stats", "scenario_state", "run_spec"):
        file = tmp_path / f"{name}.json"
        whole = file.read_bytes()
        file.write_bytes(whole[:-10])
        with pytest.raises(DataError, match=rf"{name}\.json is cut off"):
            list(only(path).trials())
        file.write_bytes(whole)
    path.write_text('[{"instance_id": "a"}]', encoding="utf-8")
    with pytest.raises(DataError, match=r"record 1 has no 'stats'"):
        only(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="is empty: it has no record"):
        only(path)


def test_a_folder_without_statistics_is_named(tmp_path):
    (tmp_path / "run_spec.json").write_text(json.dumps(SPEC), encoding="utf-8")
    assert sure(tmp_path / "run_spec.json") == 0.0
    with pytest.raises(DataError, match=r"has no per_instance_stats\.json"):
        only(tmp_path)
