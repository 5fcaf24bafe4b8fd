"""The command line on an endpoint: what is printed, and with which exit code it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from fakeserver import FakeServer, toy_chat, toy_routes

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def toy():
    server = FakeServer(toy_routes())
    yield server
    server.close()


@pytest.fixture
def study(plan, tmp_path):
    def write(url, **model):
        made = plan(url, n=4, model={"name": "toy"} | model, reps=2)
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
        return path

    return write


def test_the_probe_the_count_and_the_run(run, study, toy, tmp_path):
    path = study(toy.url, price={"input": 1, "output": 2, "currency": "EUR"})
    code, out, _ = run("doctor", "--model", path, "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    assert {"name": "model", "status": "ok", "detail": "replies say 'toy'"} in json.loads(out)["checks"]
    code, out, _ = run("run", path, "--dry-run")
    assert code == 0
    assert "16 trials of 4 items" in out
    assert "By an estimate of three bytes of text a token, at most 16 requests, " in out
    assert "EUR, the probe's few aside." in out
    assert "  ok  sampling: temperature is honoured" in out
    code, out, err = run("run", path, "--out", tmp_path / "runs")
    assert code == 0
    assert "16 new" in out
    assert "requests sent; in all" in out
    assert "flicker, polite: 0 of 4 items got another text at temperature 0" in out
    assert "note: the probe leaves in doubt: tokens: an estimate" in err
    code, out, _ = run("run", path, "--out", tmp_path / "runs", "--json")
    said = json.loads(out)
    assert (said["new_trials"], said["paid"]["requests"], said["currency"]) == (0, 0, "EUR")
    code, out, _ = run("effect", path, "--out", tmp_path / "runs")
    assert (code, "4 items run under both arms" in out) == (0, True)


@pytest.mark.parametrize("enough", [True, False])
def test_a_budget_below_what_all_can_cost_is_told_before(run, plan, toy, tmp_path, enough):
    price = {"price": {"input": 0, "output": 1, "per": 1}, "budget": {"money": 400 if enough else 300}}
    made = plan(toy.url, n=20, model={"name": "toy"} | price, generation={"max_new_tokens": 10})
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    code, out, _ = run("run", path, "--dry-run")
    told = "The study's budget is 300 USD: the run may end before all trials are there."
    assert (code, "400 USD, the probe's few aside" in out, told in out) == (0, True, not enough)


@pytest.mark.parametrize("verb", [["run"], ["run", "--dry-run"], ["doctor", "--model"]])
def test_nothing_there_is_one_message(run, study, verb):
    code, out, err = run(*verb, study("http://127.0.0.1:9/v1"))
    assert (code, out) == (2, "")
    assert "http://127.0.0.1:9/v1/models cannot be reached" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_study_that_asks_an_endpoint_runs_as_it_stands(run, server, tmp_path):
    """But for the port, and for fewer items."""
    text = (STUDIES / "endpoint.yaml").read_text(encoding="utf-8")
    assert text.count("http://127.0.0.1:8080/v1") == 1
    few = re.sub(r"size: \d+", "size: 4", text.replace("http://127.0.0.1:8080", server))
    path = tmp_path / "endpoint.yaml"
    path.write_text(few, encoding="utf-8")
    code, out, _ = run("run", path, "--dry-run")
    assert (code, "At most 48 requests, " in out) == (0, True)
    code, out, err = run("run", path, "--out", tmp_path / "runs")
    assert (code, "48 new" in out) == (0, True), err
    code, out, _ = run("effect", path, "--out", tmp_path / "runs")
    assert (code, "12 items run under both arms" in out) == (0, True)


def test_a_budget_that_is_used_up_is_no_mistake_of_the_study(run, study, toy, tmp_path):
    path = study(toy.url, price={"input": 0, "output": 1, "per": 1}, budget={"money": 64})
    code, _, err = run("run", path, "--out", tmp_path / "runs")
    assert code == 1
    assert "the budget is used up: " in err
    assert "trials are stored" in err
    assert "raise model.budget" in err


def failing(found):
    """The toy; what asks politely gets no answer while there is something in `found`."""

    def answered(body):
        if found and "Please" in json.dumps(body):
            return found[0]
        return toy_chat(body)

    return FakeServer(toy_routes() | {("POST", "/v1/chat/completions"): answered})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((503, {}), "http 503 8"),
        ((400, {"error": {"message": "no such thing"}}), "http 400 8"),
        ((200, {"choices": []}), "not whole 8"),
    ],
)
def test_a_run_that_leaves_trials_without_an_outcome_does_not_end_with_0(run, study, tmp_path, said, reason):
    found = [said]
    server = failing(found)
    path, out = study(server.url, limits={"attempts": 1}), tmp_path / "runs"
    code, text, err = run("run", path, "--out", out)
    assert (code, "16 new" in text, "8 without an outcome." in text) == (1, True, True), err
    last = err.strip().splitlines()[-2:]
    assert last[0] == f"error: 8 of 16 trials have no outcome ({reason})"
    assert "run again" in last[1]
    code, text, _ = run("run", path, "--out", out, "--json")
    assert (code, json.loads(text)["missing"]) == (1, {reason[:-2]: 8})
    assert json.loads(text)["new_trials"] == 8
    # What is there can be estimated from all the same; the same command goes on with the rest alone.
    assert run("effect", path, "--out", out)[0] in {0, 2}
    found.clear()
    sent = len(server.asked)
    code, text, err = run("run", path, "--out", out, "--json")
    assert (code, json.loads(text)["missing"], json.loads(text)["new_trials"]) == (0, {}, 8)
    assert len([a for a in server.asked[sent:] if b"Please" in a[2]]) == 8
    server.close()


def test_repetitions_are_told_of_the_items_that_have_them_all(run, study, tmp_path):
    def answered(body):
        return (400, {}) if "Please" in (text := json.dumps(body)) and "What is 1" in text else toy_chat(body)

    server = FakeServer(toy_routes() | {("POST", "/v1/chat/completions"): answered})
    code, out, _ = run("run", study(server.url), "--out", tmp_path / "runs")
    assert code == 1
    assert "string_match, direct: mean " in out
    assert "string_match, polite (of 3 of 4 items): mean " in out
    server.close()


@pytest.mark.parametrize("finish", ["content_filter", "refusal"])
def test_what_a_study_provides_for_is_no_failure(run, plan, tmp_path, finish):
    def answered(body):
        status, reply = toy_chat(body)
        if "Please" in json.dumps(body):
            reply["choices"][0]["finish_reason"] = finish
        return status, reply

    server = FakeServer(toy_routes() | {("POST", "/v1/chat/completions"): answered})
    made = plan(server.url, n=3, model={"name": "toy"}, missing={"refusal": "missing"})
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    code, out, err = run("run", path, "--out", tmp_path / "runs")
    assert (code, "without an outcome" in out) == (0, False), err
    assert "without an outcome are 0 of 3 trials of arm 'direct' and 3 of 3 of arm 'polite'" in err
    server.close()


def test_what_needs_a_local_model_says_so(run, study, toy, tmp_path):
    path = study(toy.url)
    run("run", path, "--out", tmp_path / "runs")
    code, _, err = run("run", path, "--out", tmp_path / "runs", "--verify")
    assert (code, "the model is behind an endpoint" in err) == (2, True)
    code, _, err = run("mediate", path, "--out", tmp_path / "runs")
    assert (code, "endpoint" in err or "mediation" in err) == (2, True)
    local = tmp_path / "local.yaml"
    local.write_text(
        path.read_text(encoding="utf-8").replace(f"endpoint: {toy.url}", "revision: x"), encoding="utf-8"
    )
    code, _, err = run("doctor", "--model", local)
    assert code == 2
