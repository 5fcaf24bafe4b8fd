"""Logs of Inspect: real ones against what they state of themselves, and the layouts of other versions."""

import json
import math
import sys
import time
import tracemalloc
import zipfile

import pytest

from whyprompt import read_trials
from whyprompt.errors import DataError
from whyprompt.trials.readers import inspect_log
from whyprompt.trials.readers.record import ROLES

QUESTION = "How many?"


def zstd():
    """Real logs of 2026 are packed with zstandard."""
    if sys.version_info < (3, 14):
        pytest.importorskip("backports.zstd", reason="backports.zstd is not installed")


def sample(number, epoch=1, **more):
    return {
        "id": number,
        "epoch": epoch,
        "input": QUESTION,
        "target": "3",
        "messages": [
            {"role": "user", "content": f"{QUESTION} Think.", "source": "input"},
            {"role": "assistant", "content": "3", "source": "generate"},
        ],
        "output": {"model": "m", "choices": [{"message": {"content": "3"}, "stop_reason": "stop"}]},
        "scores": {"match": {"value": "C"}},
        "metadata": {"level": 2, "of": {"kind": "sum"}, "tags": ["a"]},
        **more,
    }


def header(**more):
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": "2026-01-01T00:00:00+00:00",
            "task": "t",
            "dataset": {"name": "d", "samples": 1},
            "model": "p/m",
            "config": {},
        },
        "plan": {"steps": [{"solver": "generate", "params": {}}], "config": {}},
        "results": {"scores": [{"name": "match", "scorer": "match", "metrics": {}}]},
        **more,
    }


def write_eval(path, samples, head=None, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, one in enumerate(samples):
            name = (
                f"samples/{one['id']}_epoch_{one['epoch']}.json"
                if isinstance(one, dict)
                else f"samples/raw{number}_epoch_1.json"
            )
            archive.writestr(name, json.dumps(one) if isinstance(one, dict) else one)
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/") + ".json", json.dumps(content))
        if head is not False:
            archive.writestr("header.json", json.dumps(head or header()))
    return path


def only(path):
    (log,) = inspect_log.read(path)
    return log


def trials(path):
    return list(only(path).trials())


def mean(found, scorer):
    return math.fsum(t.scores[scorer] for t in found if t.scores.get(scorer) is not None) / sum(
        t.scores.get(scorer) is not None for t in found
    )


def sure(path):
    with path.open("rb") as file:
        return inspect_log.sniff(path, file.read(1 << 16))


# ------------------------------------------------------------------------------------------ real logs
@pytest.fixture(params=["direct", "cot"])
def real(request, shared_logs):
    zstd()
    (path,) = shared_logs.glob(f"inspect_ai/*gsm8k-{request.param}_*.eval")
    return request.param, path


def test_a_real_log_gives_the_mean_that_it_states(real):
    arm, path = real
    log, found = only(path), trials(path)
    assert len(found) == 50
    assert mean(found, "match") == {"direct": 0.68, "cot": 0.76}[arm]
    (stated,) = log.stated
    assert (stated.scorer, stated.n) == ("match", 25)
    assert stated.mean == pytest.approx(mean(found, "match"))
    # The error that it states is that of the means of items.
    by_item = {t.item: t.scores["match"] for t in found}
    spread = math.sqrt(sum((v - stated.mean) ** 2 for v in by_item.values()) / 24 / 25)
    assert stated.error == pytest.approx(spread)
    assert log.version == "0.3.285 (schema 2)"
    assert log.status == "complete"
    assert log.notes == ()


def test_a_real_log_says_what_the_run_was(real):
    arm, path = real
    settings = only(path).settings
    assert set(settings) <= set(ROLES)
    assert settings["prompt"]["eval.task_args.arm"] == arm
    assert settings["prompt"]["eval.tags"] == f"{arm}, eco-sample"
    assert settings["prompt"]["plan.steps[0].params.template"].startswith("{prompt}\n\n")
    assert settings["model"] == {"eval.model": "openai-api/mock/mock-1"}
    assert settings["sampling"] == {"eval.model_generate_config.temperature": 0.7}
    assert settings["seed"] == {"eval.model_generate_config.seed": 42}
    assert settings["judge"]["eval.scorers[0].name"] == "match"
    assert settings["harness"] == {"eval.packages.inspect_ai": "0.3.285"}
    assert settings["date"]["eval.created"].startswith("2026-11-24T02:33:3")


def test_the_size_of_the_data_set_is_not_the_number_of_trials(real):
    """40 in the data set, 25 run, 50 rows."""
    _, path = real
    assert only(path).settings["items"]["eval.dataset.samples"] == 40
    assert len({t.item for t in trials(path)}) == 25


def test_epochs_are_repetitions_and_these_are_copies(real):
    _, path = real
    found = trials(path)
    assert sorted({t.rep for t in found}) == [1, 2]
    twice = {t.item: set() for t in found}
    for t in found:
        twice[t.item].add((t.scores["match"], t.completion))
    assert {len(seen) for seen in twice.values()} == {1}


def test_the_question_is_that_before_the_template_and_the_prompt_what_was_sent(real):
    arm, path = real
    first = trials(path)[0]
    ask = {"direct": "Answer with a number only.", "cot": "Let us think step by step."}[arm]
    assert first.prompt == f"{first.question}\n\n{ask}"
    assert first.completion
    assert (first.target, first.prompt_tokens, first.stop_reason) == ("18", 77, "stop")
    assert first.latency_s > 0
    assert first.started_at.startswith("2026-11-24T02:33:3")
    assert first.covariates == {"n_steps": 2, "n_chars": 280}


def test_its_entries_are_packed_with_zstandard(real):
    _, path = real
    assert {info.compress_type for info in zipfile.ZipFile(path).infolist()} == {93}


def test_json_and_parquet_say_the_same_as_the_archive(shared_logs):
    zstd()
    folder = shared_logs / "inspect_ai"
    archives = {
        arm: {(t.item, t.rep): t for t in trials(next(folder.glob(f"*-{arm}_*.eval")))}
        for arm in ("direct", "cot")
    }
    some = trials(folder / "gsm8k_cot_first6_noevents.json")
    assert len(some) == 6
    assert all(t == archives["cot"][t.item, t.rep] for t in some)
    frames = {
        log.settings["prompt"]["eval.task_args.arm"]: log
        for log in inspect_log.read(folder / "samples_df.parquet")
    }
    assert set(frames) == {"direct", "cot"}
    for arm, log in frames.items():
        found = list(log.trials())
        assert len(found) == 50
        for t in found:
            own = archives[arm][t.item, t.rep]
            for field in (
                "question",
                "target",
                "scores",
                "covariates",
                "completion",
                "prompt_tokens",
                "latency_s",
            ):
                assert getattr(t, field) == getattr(own, field), field
        assert log.settings["model"] == {"eval.model": "openai-api/mock/mock-1"}
        assert log.settings["seed"] == {"eval.model_generate_config.seed": 42}


def test_every_real_file_is_known_at_once(shared_logs):
    import pyarrow.parquet  # noqa: F401 - loaded once a session

    for path in sorted((shared_logs / "inspect_ai").iterdir()):
        start = time.perf_counter()
        assert sure(path) > 0.8, path
        assert time.perf_counter() - start < 0.2
    for path in shared_logs.rglob("*"):
        if path.is_file() and path.parent.name != "inspect_ai":
            assert sure(path) == 0.0, path


# ------------------------------------------------------------------------------------- other layouts
def test_scores_are_words_numbers_and_several_values(tmp_path):
    scores = {
        "word": {"value": "P"},
        "none": {"value": "N"},
        "number": {"value": 0.25},
        "parts": {"value": {"a": "C", "b": 3, "c": None}},
        "list": {"value": [1, "I"]},
        "unscored": {"value": float("nan")},
        "text": {"value": "well said"},
    }
    (only_,) = trials(write_eval(tmp_path / "a.eval", [sample(1, scores=scores)]))
    assert only_.scores == {
        "word": 0.5,
        "none": 0.0,
        "number": 0.25,
        "parts.a": 1.0,
        "parts.b": 3.0,
        "parts.c": None,
        "list.0": 1.0,
        "list.1": 0.0,
        "unscored": None,
        "text": None,
    }


def test_targets_and_inputs_may_be_lists(tmp_path):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image", "image": "data:1"}]},
    ]
    given = sample(1, input=chat, target=["3", "three"], choices=["1", "3"])
    given["messages"] = [*chat, {"role": "assistant", "content": "3"}]
    (found,) = trials(write_eval(tmp_path / "a.eval", [given]))
    assert found.question.startswith("system:\nBe brief.\n\nuser:\nSee\n[image ")
    assert found.prompt == found.question
    assert (found.target, found.choices, found.item) == ("3,three", ("1", "3"), "1")
    assert found.covariates == {"level": 2, "of.kind": "sum"}


def test_worked_examples_of_an_assistant_are_part_of_the_prompt(tmp_path):
    given = sample(1)
    given["messages"] = [
        {"role": "user", "content": "1 + 1", "source": "input"},
        {"role": "assistant", "content": "2", "source": "input"},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "3", "source": "generate"},
        {"role": "user", "content": "Sure?"},
    ]
    (found,) = trials(write_eval(tmp_path / "a.eval", [given]))
    assert found.prompt == f"user:\n1 + 1\n\nassistant:\n2\n\nuser:\n{QUESTION}\n\nuser:\nSure?"


def test_an_arm_that_asks_again_was_not_sent_the_same(tmp_path):
    """As self_critique does: the first words are those of the other arm."""
    paths = []
    for solver, more in (("generate", []), ("self_critique", [{"role": "user", "content": "Sure?"}])):
        samples = [sample(k, input=f"{k} + 1") for k in range(1, 5)]
        for one in samples:
            one["messages"] += [{"role": "tool", "content": solver}, *more]
        head = header(plan={"name": "plan", "steps": [{"solver": solver, "params": {}}], "config": {}})
        paths.append(write_eval(tmp_path / f"{solver}.eval", samples, head))
    found = read_trials(*paths)
    assert found.arms == ("generate", "self_critique")
    assert not found["same_prompts"]
    assert not any("A/A" in text for text in (found.sentence, *found.warnings))


def test_attachments_are_put_back_and_events_passed_over(tmp_path):
    given = sample(1, input="attachment://ab", events=[{"input": "attachment://none"}] * 3)
    given["messages"][0]["content"] = "attachment://ab"
    given["output"]["completion"] = "attachment://cd"
    given["attachments"] = {"ab": QUESTION, "cd": "3!"}
    (found,) = trials(write_eval(tmp_path / "a.eval", [given]))
    assert (found.question, found.prompt, found.completion) == (QUESTION, QUESTION, "3!")


def test_a_sample_in_parts_is_put_together(tmp_path):
    shell = sample(7, epoch=2, message_refs=[[1, 2], [0, 1]], input="attachment://1")
    del shell["messages"]
    folder = "samples__7_epoch_2__"
    parts = {
        f"{folder}sample": shell,
        f"{folder}metadata": {"level": 5},
        f"{folder}messages__0": [{"role": "assistant", "content": "3"}],
        f"{folder}messages__1": [{"role": "user", "content": "attachment://0"}],
        f"{folder}attachments__0": ["Sent"],
        f"{folder}attachments__1": ["Asked"],
        f"{folder}events__0": [{}],
    }
    log = only(write_eval(tmp_path / "a.eval", [sample(1)], header(version=3), **parts))
    whole, found = sorted(log.trials(), key=lambda t: t.item)
    assert (whole.item, found.item, found.rep) == ("1", "7", 2)
    assert (found.prompt, found.question, found.covariates) == ("Sent", "Asked", {"level": 5})
    assert log.notes == ()


def test_the_first_schema_has_one_score_and_one_scorer(tmp_path):
    old = sample(
        1,
        score={"value": "I"},
        transcript={"events": [{}], "content": {"ab": "Old"}},
        input="attachment://ab",
    )
    del old["scores"]
    head = header(
        version=1,
        results={
            "scorer": {"name": "includes", "params": {}},
            "metrics": {"accuracy": {"name": "accuracy", "value": 0.0}},
        },
    )
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**head, "logging": [{"message": "x"}], "samples": [old]}), encoding="utf-8")
    assert sure(path) > 0.8
    log = only(path)
    assert [(s.scorer, s.mean, s.n) for s in log.stated] == [("includes", 0.0, None)]
    assert log.settings["judge"] == {"eval.scorers[0].name": "includes"}
    (found,) = log.trials()
    assert (found.scores, found.question) == ({"includes": 0.0}, "Old")


def test_means_are_stated_of_means_alone(tmp_path):
    def score(name, scorer, reducer, **metrics):
        stated = {key: {"name": f"inspect_ai/{key}", "value": value} for key, value in metrics.items()}
        return {"name": name, "scorer": scorer, "reducer": reducer, "scored_samples": 4, "metrics": stated}

    scores = [
        score("match", "match", "mean", accuracy=0.5, stderr=0.1),
        score("match", "match", "max", accuracy=0.9),
        score("a", "parts", None, mean=2.0),
        score("b", "parts", None, var=2.0),
        score("c", "parts", None, accuracy=float("nan")),
    ]
    head = header(results={"scores": scores})
    head["eval"]["config"] = {"epochs": 2}
    log = only(write_eval(tmp_path / "a.eval", [sample(1)], head))
    assert [(s.scorer, s.mean, s.n, s.error) for s in log.stated] == [
        ("match", 0.5, 4, 0.1),
        ("parts.a", 2.0, 4, None),
    ]


def test_errors_and_limits_are_why_there_is_no_outcome(tmp_path):
    made = [
        sample(1, scores=None, error={"message": "Timeout", "traceback": "..."}),
        sample(2, scores={"match": {"value": "I"}}, limit={"type": "token", "limit": 10}),
        sample(3, scores={}, limit={"type": "time", "limit": 10}),
    ]
    failed, limited, stopped = trials(write_eval(tmp_path / "a.eval", made))
    assert (failed.error, failed.scores) == ("Timeout", {})
    assert (limited.error, limited.stop_reason, limited.scores) == (None, "limit: token", {"match": 0.0})
    assert stopped.error == "limit: time"


@pytest.mark.parametrize(
    ("status", "said"),
    [("cancelled", "cancelled"), ("error", "failed"), ("started", "cancelled"), ("success", "complete")],
)
def test_the_status_of_a_run(tmp_path, status, said):
    log = only(
        write_eval(
            tmp_path / "a.eval",
            [sample(1)],
            header(status=status, results=None, error={"message": "No\nmore"}),
        )
    )
    assert (log.status, log.stated) == (said, ())
    assert "the run ended in an error: No" in log.notes
    assert len(list(log.trials())) == 1


def test_a_log_without_scores_is_read(tmp_path):
    given = sample(1)
    del given["scores"]
    log = only(write_eval(tmp_path / "a.eval", [given], header(results=None)))
    assert [t.scores for t in log.trials()] == [{}]


def test_a_run_that_has_not_ended_has_its_start(tmp_path):
    start = {key: header()[key] for key in ("version", "eval", "plan")}
    log = only(write_eval(tmp_path / "a.eval", [sample(1)], False, _journal__start=start))
    assert log.status == "cancelled"
    assert "not ended" in log.notes[0]
    assert log.settings["model"] == {"eval.model": "p/m"}


def test_the_version_may_be_left_out(tmp_path):
    path = tmp_path / "a.json"
    content = {**header(), "samples": [sample(1)]}
    del content["version"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert sure(path) > 0.8
    assert (only(path).version, len(trials(path))) == ("", 1)


def test_a_log_without_samples_says_so(tmp_path):
    log = only(write_eval(tmp_path / "a.eval", []))
    assert "holds no samples" in log.notes[0]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**header(version=9), "invalidated": True}), encoding="utf-8")
    assert [note.split()[0] for note in only(path).notes] == ["its", "some", "it"]
    assert list(only(path).trials()) == []


def test_what_a_grader_read_is_not_what_the_model_read(tmp_path):
    usage = {
        "p/m": {"input_tokens": 5, "input_tokens_cache_read": 7, "output_tokens": 2, "total_cost": 0.5},
        "p/grader": {"input_tokens": 900, "output_tokens": 100},
    }
    (found,) = trials(write_eval(tmp_path / "a.eval", [sample(1, model_usage=usage)]))
    assert (found.prompt_tokens, found.completion_tokens, found.cost) == (12, 2, 0.5)


def test_shots_serving_and_roles_of_models_have_their_roles(tmp_path):
    head = header()
    head["eval"] |= {
        "task_args": {"fewshot": 5, "arm": "a", "api_key": "s3cret"},
        "model_generate_config": {"max_connections": 4, "system_message": "Hi", "top_p": 0.9},
        "model_roles": {"grader": {"model": "p/g"}},
        "revision": {"commit": "abc"},
    }
    settings = only(write_eval(tmp_path / "a.eval", [sample(1)], head)).settings
    assert settings["few_shot"] == {"eval.task_args.fewshot": 5}
    assert settings["engine"] == {"eval.model_generate_config.max_connections": 4}
    assert settings["prompt"]["eval.model_generate_config.system_message"] == "Hi"
    assert settings["sampling"] == {"eval.model_generate_config.top_p": 0.9}
    assert settings["judge"]["eval.model_roles.grader.model"] == "p/g"
    assert settings["harness"] == {"eval.revision.commit": "abc"}
    assert "s3cret" not in str(settings)


# ------------------------------------------------------------------------------------- damaged input
def test_a_truncated_archive_is_named(tmp_path):
    path = write_eval(tmp_path / "a.eval", [sample(k) for k in range(5)])
    path.write_bytes(path.read_bytes()[:-40])
    assert sure(path) > 0.8
    with pytest.raises(DataError, match=r"a\.eval is cut off or damaged") as caught:
        only(path)
    assert "copy it again" in caught.value.hint


def test_a_damaged_entry_is_named(tmp_path):
    path = write_eval(tmp_path / "a.eval", [sample(1), sample(2)])
    at = zipfile.ZipFile(path).getinfo("samples/2_epoch_1.json").header_offset
    data = bytearray(path.read_bytes())
    data[at + 80 : at + 90] = b"\0" * 10
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.eval: samples/2_epoch_1\.json: the entry is cut off or damaged"):
        trials(path)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('{"id": 1, "input": "a', "is cut off"),
        (b'{"id": "\xff"}', "not UTF-8"),
        ("", "is empty"),
        ("no", "not JSON|cut off"),
    ],
)
def test_a_sample_that_is_no_json_is_named(tmp_path, entry, said):
    path = write_eval(tmp_path / "a.eval", [sample(1), entry])
    with pytest.raises(DataError, match=rf"a\.eval: samples/raw1_epoch_1\.json.*({said})"):
        trials(path)


def test_an_archive_that_is_no_log_is_named(tmp_path):
    path = write_eval(tmp_path / "a.eval", [sample(1)], False)
    with pytest.raises(DataError, match=r"a\.eval: no log of Inspect: it has neither header\.json"):
        only(path)


def test_a_json_log_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "a.json"
    text = json.dumps({**header(), "samples": [sample(1), sample(2)]})
    path.write_text(text[:-200], encoding="utf-8")
    found = only(path).trials()
    assert next(found).item == "1"
    with pytest.raises(DataError, match=r"a\.json is cut off"):
        next(found)
    path.write_text(json.dumps({"version": 2, "samples": []}), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: no log of Inspect: it has no 'eval'"):
        only(path)
    path.write_text(json.dumps({**header(), "samples": [3]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: a sample is an object, not int"):
        trials(path)


def test_without_zstandard_the_package_is_named(shared_logs, monkeypatch):
    if sys.version_info >= (3, 14):
        pytest.skip("Python 3.14 has zstandard")
    monkeypatch.setitem(sys.modules, "backports.zstd.zipfile", None)
    path = next(shared_logs.glob("inspect_ai/*.eval"))
    with pytest.raises(DataError, match=r"header\.json: packed in a way") as caught:
        only(path)
    assert "pip install backports.zstd" in caught.value.hint


def test_samples_written_anew_are_counted_once(tmp_path):
    path = write_eval(tmp_path / "a.eval", [sample(1)])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("samples/1_epoch_1.json", json.dumps(sample(1, target="4")))
    log = only(path)
    assert log.notes == ("entries written anew, of which the last counts: 1",)
    assert [t.target for t in log.trials()] == ["4"]


# --------------------------------------------------------------------------------------------- memory
def peak(read):
    tracemalloc.start()
    try:
        n = sum(1 for _ in read())
        return n, tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_a_long_log_is_read_without_being_held(tmp_path):
    """Forty samples of a mebibyte of events each, in an archive and as one JSON text."""
    events = [{"event": "model", "text": "x" * 4000, "n": k} for k in range(256)]
    made = [sample(k, events=events) for k in range(40)]
    archive = write_eval(tmp_path / "a.eval", made)
    assert sum(info.file_size for info in zipfile.ZipFile(archive).infolist()) > 40e6
    n, mib = peak(lambda: only(archive).trials())
    assert n == 40
    assert mib < 12
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps({**header(), "samples": made}), encoding="utf-8")
    n, mib = peak(lambda: only(whole).trials())
    assert n == 40
    assert mib < 16


def test_one_long_sample_is_read_without_its_events(tmp_path):
    events = [{"event": "model", "text": "x" * 4000, "n": k} for k in range(8192)]
    archive = write_eval(tmp_path / "a.eval", [sample(1, events=events)])
    n, mib = peak(lambda: only(archive).trials())
    assert n == 1
    assert mib < 12
