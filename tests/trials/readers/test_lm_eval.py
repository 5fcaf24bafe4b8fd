"""Logs of lm-evaluation-harness: real ones against their results, and the layouts of other versions."""

import json
import math
import time
from datetime import UTC, datetime

import pytest

from whyprompt.errors import DataError
from whyprompt.trials.readers import lm_eval
from whyprompt.trials.readers.record import ROLES

STAMP = "2026-01-02T03-04-05.678901"


def row(doc_id, *, filter="none", score=1.0, **more):  # noqa: A002 - the harness's name
    found = {
        "doc_id": doc_id,
        "doc": {"question": f"Q{doc_id}", "answer": "long", "level": doc_id % 3, "hint": "x" * 300},
        "target": "7",
        "arguments": {"gen_args_0": {"arg_0": f"Ask: Q{doc_id}", "arg_1": {"until": ["\n"]}}},
        "resps": [["7"]],
        "filtered_resps": ["7"],
        "filter": filter,
        "metrics": ["exact_match"],
        "doc_hash": f"h{doc_id}",
        "prompt_hash": "p",
        "target_hash": "t",
        "exact_match": score,
        **more,
    }
    return {key: value for key, value in found.items() if value is not None}


def results(task="t", **more):
    return {
        "results": {task: {"alias": task, "exact_match,none": 0.5, "exact_match_stderr,none": "N/A"}},
        "configs": {task: {"task": task, "metric_list": [{"metric": "exact_match", "aggregation": "mean"}]}},
        "versions": {task: 2.0},
        "n-shot": {task: 0},
        "config": {"model": "hf", "model_args": "pretrained=a/b,dtype=float16"},
        "date": 0.0,
        **more,
    }


def write(folder, rows, beside=None, task="t"):
    path = folder / f"samples_{task}_{STAMP}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    if beside is not None:
        (folder / f"results_{STAMP}.json").write_text(json.dumps(beside, indent=2), encoding="utf-8")
    return path


def only(path):
    (log,) = lm_eval.read(path)
    return log


def sure(path):
    with path.open("rb") as file:
        return lm_eval.sniff(path, file.read(1 << 16))


def mean(found, scorer):
    return math.fsum(t.scores[scorer] for t in found) / len(found)


# ------------------------------------------------------------------------------------------ real logs
@pytest.fixture(params=["direct", "cot"])
def real(request, shared_logs):
    (path,) = shared_logs.glob(f"lm_eval/samples_gsm8k_{request.param}_*.jsonl")
    return request.param, path


def test_a_real_log_gives_the_means_that_its_results_state(real):
    arm, path = real
    log = only(path)
    found = list(log.trials())
    assert len(found) == 30
    means = {scorer: mean(found, scorer) for scorer in found[0].scores}
    assert means["exact_match,flexible-extract"] == pytest.approx(
        {"direct": 0.6333, "cot": 0.8667}[arm], abs=5e-5
    )
    assert means["exact_match,none"] == pytest.approx({"direct": 0.6333, "cot": 0.0}[arm], abs=5e-5)
    for stated in log.stated:
        values = [t.scores[stated.scorer] for t in found]
        spread = math.sqrt(sum((v - stated.mean) ** 2 for v in values) / 29 / 30)
        assert stated.mean == pytest.approx(means[stated.scorer])
        assert stated.error == pytest.approx(spread)
        assert stated.n == 30
    assert {s.scorer for s in log.stated} == set(means)


def test_a_real_document_is_one_trial_though_it_has_a_row_a_filter(real):
    """Mixed, the rows of the filters would change the sign of the difference: -0.200 for +0.233."""
    arm, path = real
    assert path.read_bytes().count(b"\n") == 60
    first = next(only(path).trials())
    assert first.question.startswith("Janet’s ducks")
    assert first.prompt == f"Q: {first.question}\nA:" + (
        " Let us think step by step." if arm == "cot" else ""
    )
    assert (first.target, first.rep, first.covariates) == ("18", 1, {})
    assert first.completion.endswith("18")
    assert first.item == "986c19252f3c7f6eaeff2229e9a5777f96a85c0ceea931a92d2289084dfd518c"


def test_a_real_log_says_what_the_run_was(real):
    arm, path = real
    log = only(path)
    settings = log.settings
    assert (log.version, log.status) == ("0.4.13", "complete")
    assert set(settings) <= set(ROLES)
    assert settings["prompt"]["configs.task"] == f"gsm8k_{arm}_local"
    assert settings["prompt"]["configs.doc_to_text"].startswith("Q: {{question}}\nA:")
    assert settings["few_shot"]["n-shot"] == 0
    assert settings["model"] == {"config.model_args.model": "mock-1"}
    assert settings["engine"]["config.model"] == "local-chat-completions"
    assert settings["engine"]["config.model_args.base_url"].startswith("http://127.0.0.1")
    assert settings["sampling"]["configs.generation_kwargs.max_gen_toks"] == 32
    assert settings["seed"]["config.random_seed"] == 1234
    assert settings["items"]["config.limit"] == 30.0
    assert settings["chat_format"] == {"fewshot_as_multiturn": True}
    assert settings["date"]["date"] == datetime.fromtimestamp(1795487839.5865223, UTC).isoformat()


def test_only_the_prompt_differs_between_the_real_logs(shared_logs):
    logs = [only(path).settings for path in sorted(shared_logs.glob("lm_eval/samples*.jsonl"))]
    differ = {role for role in ROLES if logs[0].get(role) != logs[1].get(role)}
    assert differ == {"prompt"}


def test_real_results_lead_to_their_samples(shared_logs):
    (path,) = shared_logs.glob("lm_eval/results*.json")
    assert {log.path.name for log in lm_eval.read(path)} == {
        p.name for p in path.parent.glob("samples*.jsonl")
    }
    # In a folder the samples are taken, and the results by them.
    assert sure(path) < 0.5 < sure(next(path.parent.glob("samples*.jsonl")))


def test_every_real_file_is_known_at_once(shared_logs):
    for path in shared_logs.rglob("*"):
        if path.is_file():
            start = time.perf_counter()
            known = sure(path) > 0
            assert time.perf_counter() - start < 0.2
            assert known == (path.parent.name == "lm_eval" and path.suffix != ".yaml"), path


# ------------------------------------------------------------------------------------- other layouts
def test_filters_are_scores_of_one_trial(tmp_path):
    rows = [row(k, filter=f, score=float(f == "b")) for f in ("a", "b") for k in (3, 1, 2)]
    found = list(only(write(tmp_path, rows)).trials())
    assert [t.item for t in found] == ["h3", "h1", "h2"]
    assert all(t.scores == {"exact_match,a": 0.0, "exact_match,b": 1.0} for t in found)


def test_without_results_the_samples_are_read_and_a_note_says_what_is_not_known(tmp_path):
    log = only(write(tmp_path, [row(1)]))
    assert "no file of results" in log.notes[0]
    assert (log.stated, log.status) == ((), "")
    assert log.settings == {"prompt": {"configs.task": "t"}}


def test_covariates_are_what_is_short_and_no_answer(tmp_path):
    (found,) = only(write(tmp_path, [row(4)])).trials()
    assert found.covariates == {"level": 1}


def test_rows_of_old_have_no_filter_and_may_be_a_list(tmp_path):
    """Version 0.4.0: one JSON list in a file that is called .jsonl, results.json beside it."""
    args = [["Ask: Q", {"until": ["\n"]}]]
    old = [
        row(k, filter=None, metrics=None, doc_hash=None, score=score, arguments=args)
        for score in (0.0, 1.0)
        for k in (0, 1)
    ]
    path = tmp_path / "pretrained__a_b_t.jsonl"
    path.write_text(json.dumps(old, indent=2), encoding="utf-8")
    made = results()
    made["configs"]["t"]["filter_list"] = [{"name": "strict"}, {"name": "flexible"}]
    made["results"]["t"] = {
        "exact_match,strict": 0.0,
        "exact_match,flexible": 1.0,
        "exact_match_stderr,strict": 0.1,
    }
    (tmp_path / "results.json").write_text(json.dumps(made), encoding="utf-8")
    assert sure(path) == 1.0
    log = only(path)
    found = list(log.trials())
    assert [t.item for t in found] == ["0", "1"]
    assert found[0].scores == {"exact_match,strict": 0.0, "exact_match,flexible": 1.0}
    assert found[0].prompt == "Ask: Q"
    assert [(s.scorer, s.mean, s.error) for s in log.stated] == [
        ("exact_match,strict", 0.0, 0.1),
        ("exact_match,flexible", 1.0, None),
    ]
    assert "in the order strict, flexible" in log.notes[0]
    assert [one.path for one in lm_eval.read(tmp_path / "results.json")] == [path]


def test_a_score_of_old_has_no_filter_in_its_name(tmp_path):
    made = results()
    made["results"]["t"] = {"acc": 0.25, "acc_stderr": 0.1}
    del made["configs"]
    log = only(write(tmp_path, [row(0, filter=None, metrics=None, exact_match=None, acc=1.0)], made))
    assert [t.scores for t in log.trials()] == [{"acc": 1.0}]
    assert [(s.scorer, s.mean, s.error) for s in log.stated] == [("acc", 0.25, 0.1)]


def test_multiple_choice_has_its_choices_and_nothing_that_was_said(tmp_path):
    args = {f"gen_args_{k}": {"arg_0": "Q:", "arg_1": f" {c}"} for k, c in enumerate("ab")}
    more = {
        "arguments": args,
        "resps": [[["-1.0", "True"]], [["-2.0", "False"]]],
        "acc": True,
        "metrics": ["acc", "f1"],
    }
    asked = [
        row(
            0,
            doc={"ctx": "C", "endings": ["x", "y"], "label": 1},
            f1=[0, 1],
            **more,
        ),
        row(1, doc={"goal": "G", "choices": {"text": ["u", "v"], "label": ["A", "B"]}}, **more),
        row(2, doc={"odd": "O"}, **more),
    ]
    first, second, third = only(write(tmp_path, asked)).trials()
    assert (first.question, first.choices, first.scores) == ("C", ("x", "y"), {"acc,none": 1.0})
    assert (second.question, second.choices) == ("G", ("u", "v"))
    assert (third.question, third.choices) == ('{"odd": "O"}', (" a", " b"))
    assert {t.completion for t in (first, second, third)} == {None}


def test_rows_of_a_fork_have_the_prompt_alone(tmp_path):
    fork = row(0, doc=None, arguments=None, metrics=None, input="Ask", token_counts=[{"n": 1}])
    (found,) = only(write(tmp_path, [fork])).trials()
    assert (found.prompt, found.question, found.scores) == ("Ask", "Ask", {"exact_match,none": 1.0})


def test_repeats_with_a_score_each_are_repetitions(tmp_path):
    many = row(
        0,
        resps=[["7", "8", "9"]],
        exact_match=[1, 0, 1],
        metrics=["exact_match", "pass@3"],
        **{"pass@3": 1.0},
    )
    found = list(only(write(tmp_path, [many])).trials())
    assert [(t.rep, t.completion) for t in found] == [(1, "7"), (2, "8"), (3, "9")]
    assert [t.scores for t in found] == [
        {"exact_match,none": 1.0, "pass@3,none": 1.0},
        {"exact_match,none": 0.0},
        {"exact_match,none": 1.0},
    ]


def test_repeats_with_one_score_are_one_trial(tmp_path):
    (found,) = only(write(tmp_path, [row(0, resps=[["7", "8"]])])).trials()
    assert (found.rep, found.completion, found.scores) == (1, "7", {"exact_match,none": 1.0})


def test_a_chat_is_its_text(tmp_path):
    chat = json.dumps([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])
    for number, given in enumerate(([chat], chat, [json.loads(chat)])):
        folder = tmp_path / str(number)
        folder.mkdir()
        (found,) = only(write(folder, [row(0, arguments={"gen_args_0": {"arg_0": given}})])).trials()
        assert found.prompt == "system:\nS\n\nuser:\nU"


def test_means_are_stated_of_means_alone(tmp_path):
    made = results()
    made["results"]["t"] |= {"ppl,none": 9.0, "other,none": 0.1, "exact_match_stderr,none": 0.05}
    made["configs"]["t"]["metric_list"].append({"metric": "ppl", "aggregation": "perplexity"})
    log = only(write(tmp_path, [row(0, ppl=1.0, metrics=["exact_match", "ppl"])], made))
    assert [(s.scorer, s.mean, s.error) for s in log.stated] == [("exact_match,none", 0.5, 0.05)]
    (note,) = log.notes
    assert note == (
        "a document's 'ppl' is what its perplexity is made of, not a part of a mean: it is taken as"
        " 'ppl_log_likelihood', and where that rises the perplexity falls"
    )


def test_a_metric_of_the_harness_that_is_no_mean_is_none_without_being_told(tmp_path):
    made = results()
    made["results"]["t"] |= {"perplexity,none": math.e}
    made["configs"]["t"]["metric_list"].append({"metric": "perplexity"})
    log = only(write(tmp_path, [row(0, perplexity=-1.0, metrics=["exact_match", "perplexity"])], made))
    assert [s.scorer for s in log.stated] == ["exact_match,none"]
    assert "it is taken as 'log_likelihood', and where that rises the perplexity falls" in log.notes[0]
    assert [set(t.scores) for t in log.trials()] == [{"exact_match,none", "log_likelihood,none"}]


def test_scores_that_numpy_left_as_text_are_scores(tmp_path):
    """The harness writes what JSON does not know by `str`: a truth value or a short float of numpy."""
    rows = [row(0, score="True"), row(1, score="False"), row(2, score="0.5"), row(3, score="C")]
    found = [t.scores for t in only(write(tmp_path, rows)).trials()]
    assert found == [{"exact_match,none": 1.0}, {"exact_match,none": 0.0}, {"exact_match,none": 0.5}, {}]


def test_a_rolling_task_has_the_log_likelihood_of_each_document(tmp_path):
    """As `loglikelihood_rolling` writes it: a pair of the log-likelihood and the words or bytes, a metric."""
    names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    made = results()
    made["results"]["t"] = {f"{name},none": 9.0 for name in names}
    made["configs"]["t"]["metric_list"] = [{"metric": name} for name in names]
    pairs = {"word_perplexity": [-60.0, 20], "byte_perplexity": [-60.0, 120], "bits_per_byte": [-60.0, 120]}
    rows = [row(k, metrics=list(names), exact_match=None, resps=[[-60.0]], **pairs) for k in range(3)]
    log = only(write(tmp_path, rows, made))
    for trial in log.trials():
        assert trial.scores == {"log_likelihood_per_word,none": -3.0, "log_likelihood_per_byte,none": -0.5}
    assert log.stated == ()
    assert [note.split("'")[2] for note in log.notes] == ["word_perplexity", "byte_perplexity"]


def test_seeds_shots_and_parts_of_model_args_have_their_roles(tmp_path):
    made = results(system_instruction_sha="s", chat_template_sha="c", git_hash="g")
    made["n-shot"]["t"] = 5
    made["config"] |= {
        "model_args": "pretrained=a/b,revision=main,dtype=float16,max_length=2048",
        "gen_kwargs": "temperature=0.7,seed=3",
        "fewshot_seed": 8,
    }
    made["configs"]["t"]["fewshot_config"] = {"sampler": "first_n", "task": "t"}
    settings = only(write(tmp_path, [row(0)], made)).settings
    assert settings["model"] == {"config.model_args.pretrained": "a/b", "config.model_args.revision": "main"}
    assert settings["engine"] == {"config.model": "hf", "config.model_args.dtype": "float16"}
    assert settings["sampling"] == {
        "config.model_args.max_length": "2048",
        "config.gen_kwargs.temperature": "0.7",
    }
    assert settings["seed"] == {"config.gen_kwargs.seed": "3"}
    assert settings["few_shot"] == {
        "n-shot": 5,
        "configs.fewshot_config.sampler": "first_n",
        "config.fewshot_seed": 8,
    }
    assert settings["prompt"]["system_instruction_sha"] == "s"
    assert settings["chat_format"] == {"chat_template_sha": "c"}
    assert settings["harness"] == {"git_hash": "g"}


def test_a_task_is_found_by_its_name_whole(tmp_path):
    made = results("gsm8k_cot", configs={"cot": {"task": "cot"}, "gsm8k_cot": {"task": "gsm8k_cot"}})
    log = only(write(tmp_path, [row(0)], made, task="gsm8k_cot"))
    assert log.settings["prompt"]["configs.task"] == "gsm8k_cot"


# ------------------------------------------------------------------------------------- damaged input
def test_results_without_samples_say_which_are_missing(tmp_path):
    path = tmp_path / f"results_{STAMP}.json"
    path.write_text(json.dumps(results()), encoding="utf-8")
    assert sure(path) == 0.9
    with pytest.raises(DataError, match=rf"results_.*samples_TASK_{STAMP}\.jsonl of t\)") as caught:
        only(path)
    assert "--log_samples" in caught.value.hint


def test_results_of_which_some_samples_are_missing_say_so(tmp_path):
    write(tmp_path, [row(0)], results(configs={"t": {"task": "t"}, "u": {"task": "u"}}))
    log = only(tmp_path / f"results_{STAMP}.json")
    assert "no samples lie beside its results of u" in log.notes


def test_a_half_written_line_is_named(tmp_path):
    path = write(tmp_path, [row(0), row(1)])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"samples_t_.*\.jsonl:2: not JSON: the last line is cut off"):
        list(only(path).trials())


def test_a_line_that_is_no_utf8_is_named(tmp_path):
    path = write(tmp_path, [row(0)])
    path.write_bytes(
        path.read_bytes() + json.dumps(row(1, target="\xe9"), ensure_ascii=False).encode("latin-1") + b"\n"
    )
    with pytest.raises(DataError, match=r":2: not UTF-8"):
        list(only(path).trials())


def test_rows_of_two_versions_are_refused(tmp_path):
    path = write(tmp_path, [row(0), row(1, filter=None)])
    with pytest.raises(DataError, match=r":2: the row has no 'filter'"):
        list(only(path).trials())


def test_a_document_that_is_there_twice_is_refused(tmp_path):
    path = write(tmp_path, [row(0), row(1), row(0)])
    with pytest.raises(DataError, match=r":3: document 0 has 'exact_match,none' twice"):
        list(only(path).trials())
    path = write(tmp_path, [row(0, filter=None), row(0, filter=None)])
    with pytest.raises(DataError, match=r":2: 2 rows are of document 0, and none names its filter") as caught:
        list(only(path).trials())
    assert "results.json" in caught.value.hint


def test_rows_of_something_else_are_refused(tmp_path):
    path = write(tmp_path, [row(0), {"question": "?"}])
    with pytest.raises(DataError, match=r":2: no 'doc_id'"):
        list(only(path).trials())


def test_results_that_are_cut_off_are_named(tmp_path):
    path = write(tmp_path, [row(0)], results())
    beside = tmp_path / f"results_{STAMP}.json"
    beside.write_bytes(beside.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"results_.*\.json is cut off"):
        only(path)


def test_a_long_file_of_two_filters_is_read_without_being_held(tmp_path):
    import tracemalloc

    text = "w" * 4000
    rows = [row(k, filter=f, resps=[[text]]) for f in ("a", "b") for k in range(2000)]
    path = write(tmp_path, rows)
    assert path.stat().st_size > 16e6
    tracemalloc.start()
    try:
        n = sum(1 for _ in only(path).trials())
        mib = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert n == 2000
    assert mib < 4
