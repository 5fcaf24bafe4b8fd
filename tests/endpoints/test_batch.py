"""Batches by OpenAI's documented protocol, from a fake server on loopback: none that has them runs here."""

from __future__ import annotations

import json
import re

import pytest
from fakeserver import MODELS, FakeServer, toy_chat

from whyprompt import dry_run, load_trials, run_study
from whyprompt._endpoint_settings import EndpointSettings
from whyprompt.errors import ModelError, WhypromptError
from whyprompt.trials.endpoints.ledger import Spent
from whyprompt.trials.endpoints.purse import Purse


class Batches:
    """The files and batches of one provider; `polls` are answered before a batch is done."""

    def __init__(self, *, polls=1, odd=None, status=500, state="completed"):
        self.files, self.batches, self.polls, self.odd, self.state = {}, {}, polls, odd, state
        self.status = status
        self.server = FakeServer(
            MODELS
            | {
                ("POST", "/v1/chat/completions"): toy_chat,
                ("POST", "/v1/files"): self.upload,
                ("POST", "/v1/batches"): self.begin,
            }
        )
        self.server.answer = self.answer

    def answer(self, method, path, raw):
        if found := re.fullmatch(r"/v1/files/(\w+)/content", path):
            return 200, self.files[found[1]].encode()
        if method == "GET" and (found := re.fullmatch(r"/v1/batches/(\w+)", path)):
            return 200, json.dumps(self.poll(found[1])).encode()
        return FakeServer.answer(self.server, method, path, raw)

    def upload(self, raw):
        # A form of two parts: what it is for, and the file.
        assert b'name="purpose"\r\n\r\nbatch' in raw
        text = raw.split(b"application/jsonl\r\n\r\n")[1].split(b"\r\n--")[0].decode()
        name = f"file{len(self.files)}"
        self.files[name] = text
        return 200, {"id": name, "object": "file"}

    def begin(self, body):
        assert body["completion_window"] == "24h"
        name = f"batch{len(self.batches)}"
        self.batches[name] = body | {"left": self.polls}
        return 200, {"id": name, "status": "validating"}

    def poll(self, name):
        batch = self.batches[name]
        batch["left"] -= 1
        if batch["left"] >= 0:
            return {"id": name, "status": "in_progress", "request_counts": {"completed": 0}}
        if self.state is None:
            return {"id": name}
        if self.state == "failed":
            return {"id": name, "status": "failed", "errors": {"data": [{"message": "no such model"}]}}
        rows = []
        for line in self.files[batch["input_file_id"]].splitlines():
            row = json.loads(line)
            assert (row["method"], row["url"]) == ("POST", batch["endpoint"])
            answer = {"status_code": 200, "body": toy_chat(row["body"])[1]}
            if self.odd and self.odd(row):
                if self.status is None:
                    continue
                code = "content_filter" if self.status == 400 else "odd"
                answer = {"status_code": self.status, "body": {"error": {"message": "odd", "code": code}}}
            rows.append({"custom_id": row["custom_id"], "response": answer, "error": None})
        # In no order, as the documentation says.
        lines = [*map(json.dumps, reversed(rows)), "", '{"custom_id": ', '{"custom_id": 1, "response": []}']
        self.files["out" + name] = "\n".join(lines)
        return {"id": name, "status": self.state, "output_file_id": "out" + name}


@pytest.fixture
def provider(monkeypatch):
    made = []

    def make(**options):
        made.append(Batches(**options))
        return made[-1]

    monkeypatch.setattr("whyprompt.trials.endpoints.batch._POLL_S", 0.01)
    yield make
    for one in made:
        one.server.close()


MODEL = {"name": "toy", "batch": True}


@pytest.mark.usefixtures("known")
def test_a_batch_gives_what_single_requests_give(provider, plan, tmp_path):
    one = provider()
    study = plan(one.server.url, n=4, model=MODEL)
    result = run_study(study, tmp_path / "batch")
    assert len(one.batches) == 1
    assert not [a for a in one.server.asked if a[1].endswith("completions")]
    assert result.paid["replies"] == 8
    assert result.paid["perhaps_paid"] == 0
    single = plan(one.server.url, n=4, model=MODEL | {"batch": False})
    run_study(single, tmp_path / "single")
    a, b = (load_trials(s, tmp_path / f) for s, f in ((study, "batch"), (single, "single")))
    assert a["completion"].tolist() == b["completion"].tolist()
    assert run_study(study, tmp_path / "batch").new_trials == 0
    assert len(one.batches) == 1


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("most", "value", "count"), [("_MOST_REQUESTS", 3, 3), ("_MOST_BYTES", 800, 4)])
def test_more_than_a_batch_takes_is_several(provider, plan, tmp_path, monkeypatch, most, value, count):
    monkeypatch.setattr(f"whyprompt.trials.endpoints.batch.{most}", value)
    one = provider()
    assert run_study(plan(one.server.url, n=4, model=MODEL), tmp_path).new_trials == 8
    assert len(one.batches) == count
    sent = [one.files[b["input_file_id"]] for b in one.batches.values()]
    assert sum(len(text.splitlines()) for text in sent) == 8
    assert most != "_MOST_BYTES" or max(map(len, sent)) <= value


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("status", "reason"), [(500, "http 500"), (400, "filtered"), (None, "not in the batch")]
)
def test_what_a_batch_leaves_out_is_in_the_next_runs(provider, plan, tmp_path, status, reason):
    """And never asked for at another price than the study says."""
    one = provider(odd=lambda row: "What is 1 plus" in json.dumps(row), status=status)
    study = plan(one.server.url, n=3, model=MODEL)
    result = run_study(study, tmp_path)
    assert not [a for a in one.server.asked if a[1].endswith("completions")]
    assert load_trials(study, tmp_path)["error"].dropna().tolist() == [reason] * 2
    # What is filtered stays so: the study provides for it.
    assert result.missing == ({} if reason == "filtered" else {reason: 2})
    one.odd = None
    result = run_study(study, tmp_path)
    assert (result.missing, result.new_trials, len(one.batches)) == ({}, 2, 2)
    assert len(one.files[one.batches["batch1"]["input_file_id"]].splitlines()) == 2
    assert load_trials(study, tmp_path)["string_match"].notna().all()


@pytest.mark.usefixtures("known")
def test_what_a_batch_leaves_out_is_asked_for_alone_where_the_study_says_so(provider, plan, tmp_path):
    """Two tokens each at 1, by batch at 0.5: 4 by batch, 2 alone."""
    one = provider(odd=lambda row: "What is 1 plus" in json.dumps(row))
    price = {"price": {"input": 0, "output": 0.5, "per": 1, "batch": 0.5}}
    alone = {"missing": {"batch": "alone"}}
    study = plan(one.server.url, n=3, model=MODEL | price | {"budget": {"money": 4}}, **alone)
    result = run_study(study, tmp_path)
    assert load_trials(study, tmp_path)["string_match"].notna().all()
    assert len([a for a in one.server.asked if a[1].endswith("completions")]) == 2
    assert result.paid["money"] == 4 * 0.5 + 2 * 1.0
    # A budget that has room for one of the two.
    study = plan(one.server.url, n=3, model=MODEL | price | {"budget": {"money": 3.5}}, **alone)
    with pytest.raises(WhypromptError, match="5 of 6 trials are stored, 1 are left"):
        run_study(study, tmp_path / "less")


def test_the_price_of_what_a_batch_leaves_out_is_asked_for(provider, plan):
    url = provider().server.url
    price = {"price": {"input": 0, "output": 0.5, "per": 1}, "budget": {"money": 4}}
    with pytest.raises(ValueError, match=r"a budget needs both: batch: 0\.5"):
        plan(url, model=MODEL | price, missing={"batch": "alone"})
    with pytest.raises(ValueError, match=r"model\.batch is not set"):
        plan(url, model={"name": "toy"}, missing={"batch": "alone"})


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("left_out", "share"), [("missing", 0.5), ("alone", 1.0)])
def test_a_dry_run_counts_what_batches_cost_at_most(provider, plan, left_out, share):
    price = {"price": {"input": 0, "output": 0.5, "per": 1, "batch": 0.5}}
    study = plan(provider().server.url, n=3, model=MODEL | price, missing={"batch": left_out})
    found = dry_run(study)
    assert found.paid["money"] == share * 6 * 2 * 0.5
    assert (
        len([n for n in found.notices if "what one leaves out" in n or "what a batch leaves out" in n]) == 1
    )


@pytest.mark.usefixtures("known")
def test_a_run_that_ended_goes_on_waiting_for_its_batch(provider, plan, tmp_path, monkeypatch):
    one = provider(polls=10**9)
    study = plan(one.server.url, n=3, model=MODEL)

    async def ended(_seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("whyprompt.trials.endpoints.batch.asyncio.sleep", ended)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, tmp_path)
    one.batches["batch0"]["left"] = 0
    assert run_study(study, tmp_path).new_trials == 6
    assert len(one.batches) == 1


@pytest.mark.usefixtures("known")
def test_a_batch_stays_within_the_budget(provider, plan, tmp_path):
    one = provider()
    model = MODEL | {"price": {"input": 0, "output": 0.5, "per": 1}, "budget": {"money": 3}}
    with pytest.raises(WhypromptError, match="3 of 8 trials are stored, 5 are left"):
        run_study(plan(one.server.url, n=4, model=model), tmp_path)
    assert len(one.files["file0"].splitlines()) == 3


@pytest.mark.usefixtures("known")
def test_a_batch_that_is_refused_says_why(provider, plan, tmp_path):
    with pytest.raises(ModelError, match="refuses the batch: no such model"):
        run_study(plan(provider(state="failed").server.url, n=2, model=MODEL), tmp_path)


@pytest.mark.usefixtures("known")
def test_what_answers_without_batches_is_not_waited_for(provider, plan, tmp_path):
    study = plan(provider(state=None).server.url, n=2, model=MODEL)
    with pytest.raises(ModelError, match="does not say how batch 'batch0' stands"):
        run_study(study, tmp_path)


@pytest.mark.usefixtures("known")
def test_a_batch_is_judged_once_and_counted_once(provider, plan, tmp_path, monkeypatch):
    """Of a run that ended while it waited, too; what the batch left out alone is within the budget."""
    (tmp_path / "counting.py").write_text(
        "seen = []\ndef call(prompt):\n    seen.append(prompt)\n    return 'yes'\n"
    )
    monkeypatch.chdir(tmp_path)
    one = provider(polls=10**9, odd=lambda row: "What is 1 plus" in json.dumps(row))
    judge = {
        "call": "counting:call",
        "prompt": "{{ completion }} yes or no?",
        "verdicts": {"yes": 1, "no": 0},
    }
    study = plan(
        one.server.url,
        n=3,
        model=MODEL | {"price": {"input": 0, "output": 0.5, "per": 1, "batch": 1}, "budget": {"money": 6}},
        missing={"batch": "alone"},
        outcomes=[{"name": "good", "judge": judge}],
        effect={"outcome": "good"},
    )

    async def ended(_seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("whyprompt.trials.endpoints.batch.asyncio.sleep", ended)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, tmp_path / "runs")
    one.batches["batch0"]["left"] = 0
    assert run_study(study, tmp_path / "runs").paid["money"] == 6
    assert len(__import__("counting").seen) == 6


def test_what_was_perhaps_paid_counts_against_the_budget():
    settings = EndpointSettings.model_validate({"endpoint": "http://127.0.0.1:9/v1", "name": "toy"})
    purse = Purse(settings, Spent(1.0, 10, 1, 2.0, 20, 1))
    assert (purse.money, purse.tokens) == (3.0, 30)
