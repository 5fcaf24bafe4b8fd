"""What is guaranteed of runs on an endpoint (G1 to G12): the real server, a proxy that fails on purpose."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import time

import pytest
from faultproxy import Bucket

from whyprompt import load_trials, run_study
from whyprompt.answers.external import study_effect
from whyprompt.errors import InputError, ModelError, WhypromptError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("known")]
TIMING = ["latency_s", "started_at"]
KILLS = 20
SOUND = {
    "model": "smollm2",
    "choices": [{"message": {"content": "0"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}


def attempts(folder, what="count(*)", where="1"):
    with sqlite3.connect(folder / "trials.sqlite") as db:
        return db.execute(f"SELECT {what} FROM attempt WHERE {where}").fetchone()[0]  # noqa: S608


# ------------------------------------------------------------------------------------ G1, G2: kills
def killed(study, folder, proxy, after, rng):
    """Run in a process of its own, and kill it some moments after so many requests have come in."""
    before = proxy.sent
    pid = os.fork()
    if pid == 0:
        try:
            run_study(study, folder)
        finally:
            os._exit(0)
    while proxy.sent < before + after:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_killed_at_any_moment_it_goes_on_and_pays_twice_at_most_what_was_on_its_way(
    proxy, plan, tmp_path, record_property
):
    link, rng = proxy(), random.Random(5)  # noqa: S311 - moments, drawn anew alike
    study = plan(link.url, n=12)
    alone = load(run_study(study, tmp_path / "alone"), study, tmp_path / "alone")
    needed = link.sent
    assert needed == 24
    kills = sum(killed(study, tmp_path / "killed", link, rng.randint(1, 3), rng) for _ in range(KILLS))
    time.sleep(0.1)
    result = run_study(study, tmp_path / "killed")
    pd_equal(load(result, study, tmp_path / "killed"), alone)
    sent = link.sent
    assert run_study(study, tmp_path / "killed").new_trials == 0
    assert link.sent == sent  # nothing is asked for that is there
    twice = sum(n - 1 for n in link.generated.values()) - needed  # the first run asked for each once
    perhaps = attempts(tmp_path / "killed", where="outcome IS NULL")
    # Told by: --junitxml=FILE -o junit_family=xunit1
    record_property(
        "needed, sent, kills, generated twice, perhaps paid", (needed, sent, kills, twice, perhaps)
    )
    assert kills >= 5
    assert 0 <= twice <= perhaps <= 4 * kills
    assert result.paid["perhaps_paid"] == perhaps
    assert any("perhaps paid" in n for n in result.notices) == (perhaps > 0)


def load(result, study, folder):
    assert result.trials == 2 * result.items * study.reps
    return load_trials(study, folder)


def pd_equal(one, other):
    import pandas as pd

    drop = [c for c in TIMING if c in one]
    pd.testing.assert_frame_equal(one.drop(columns=drop), other.drop(columns=drop))


# ------------------------------------------------------------------------------------ G3: faults
def test_what_fails_on_the_way_is_sent_again_and_what_is_refused_is_not(
    proxy, plan, tmp_path, record_property
):
    link = proxy(faults={"503": 0.15, "reset": 0.1, "truncated": 0.1}, seed=3)
    study = plan(link.url, n=12)
    result = run_study(study, tmp_path)
    frame = load_trials(study, tmp_path)
    twice = sum(n - 1 for n in link.generated.values())
    record_property("needed, sent, faults, generated twice", (24, link.sent, dict(link.failed), twice))
    assert len(frame) == 24
    assert frame["string_match"].notna().all()
    assert min(link.failed[f] for f in ("503", "reset", "truncated")) >= 1
    assert result.paid["requests"] == link.sent == 24 + link.failed.total()
    assert attempts(tmp_path, where="outcome = 'http 503'") == link.failed["503"]
    assert result.paid["perhaps_paid"] == link.failed["reset"] + link.failed["truncated"]
    assert twice == link.failed["truncated"]


def test_a_refused_request_is_sent_once_and_says_why(proxy, plan, tmp_path):
    refusal = (400, {}, '{"error": {"message": "no such thing as polite", "type": "invalid_request_error"}}')
    link = proxy(before=lambda _n, body: refusal if "Please" in json.dumps(body) else None)
    study = plan(link.url, n=3)
    notices = run_study(study, tmp_path).notices
    frame = load_trials(study, tmp_path)
    assert link.sent == 6
    said = "without an outcome are 0 of 3 trials of arm 'direct' and 3 of 3 of arm 'polite' (http 400 3)"
    assert [n for n in notices if n.startswith(said)]
    (why,) = [n for n in notices if n.startswith("no reply to arm 'polite', item ")]
    assert why.endswith("the request is refused (400): no such thing as polite")
    assert frame["error"].isna().tolist() == (frame["arm"] == "direct").tolist()
    assert set(frame["error"].dropna()) == {"http 400"}


# ------------------------------------------------------------------------------------ G4 to G7
def test_a_rejection_lowers_the_rate_and_costs_no_attempt(proxy, plan, tmp_path, record_property):
    bucket, sound = Bucket(8.0, headers={"retry-after-ms": "150"}), (200, {}, json.dumps(SOUND))
    # Answered by the proxy itself: a server that is slow today would never be asked too fast.
    link = proxy(before=lambda n, body: bucket(n, body) or sound)
    study = plan(link.url, n=12, model={"limits": {"concurrency": 8, "attempts": 1}})
    run_study(study, tmp_path)
    assert load_trials(study, tmp_path)["string_match"].notna().all()
    record_property("needed, sent, rejected", (24, link.sent, bucket.rejected))
    assert 1 <= bucket.rejected <= 20
    assert link.sent == 24 + bucket.rejected


@pytest.mark.parametrize(
    ("headers", "kind"), [({"retry-after": "86400"}, "rate_limit"), ({}, "insufficient_quota")]
)
def test_a_daily_quota_stops_the_run_and_says_what_is_left(proxy, plan, tmp_path, headers, kind):
    over = (429, headers, json.dumps({"error": {"message": "come back tomorrow", "type": kind}}))
    link = proxy(before=lambda n, _body: over if n > 3 else None)
    study = plan(link.url, n=4)
    with pytest.raises(WhypromptError, match=r"3 of 8 trials are stored, 5 are left") as stop:
        run_study(study, tmp_path)
    assert stop.value.exit_code == 1
    assert link.sent <= 3 + 4
    link.before = None
    assert run_study(study, tmp_path).new_trials == 5


def test_a_rejection_that_names_no_wait_is_not_waited_for_without_end(proxy, plan, tmp_path):
    over = (429, {"retry-after": "0"}, json.dumps({"error": {"message": "busy", "type": "rate_limit"}}))
    study = plan(proxy(before=lambda _n, _body: over).url, n=1, model={"limits": {"wait_s": 0.5}})
    with pytest.raises(WhypromptError, match=r"and limits.wait_s is 0; 0 of 2 trials are stored"):
        run_study(study, tmp_path)


def test_an_endpoint_that_is_gone_is_not_asked_to_the_end(proxy, plan, tmp_path):
    link = proxy(before=lambda n, _body: (503, {}, "{}") if n > 4 else None)
    study = plan(link.url, n=12, model={"limits": {"attempts": 1, "concurrency": 2}})
    with pytest.raises(WhypromptError, match=r"10 requests one after the other .* 4 of 24 trials") as stop:
        run_study(study, tmp_path)
    assert stop.value.exit_code == 1
    assert 14 <= link.sent <= 15
    # One that answers now and then is there.
    link.before = lambda n, _body: (503, {}, "{}") if n % 2 else None
    assert run_study(study, tmp_path).new_trials == 20
    assert 8 <= load_trials(study, tmp_path)["error"].notna().sum() <= 12


def test_a_reply_without_a_completion_is_no_answer(proxy, plan, tmp_path):
    link = proxy(before=lambda n, _body: (200, {}, '{"choices": []}') if n <= 2 else None)
    study = plan(link.url, n=2, model={"limits": {"attempts": 1, "concurrency": 1}})
    run_study(study, tmp_path)
    assert load_trials(study, tmp_path)["error"].dropna().tolist() == ["not whole"] * 2
    assert run_study(study, tmp_path).new_trials == 2


@pytest.mark.parametrize("most", [4, 2])
def test_never_more_in_flight_than_the_study_allows(proxy, plan, tmp_path, most):
    link = proxy(on_request=lambda _n: time.sleep(0.05))
    run_study(plan(link.url, model={"limits": {"concurrency": most}}), tmp_path)
    assert link.most_in_flight == most


def test_a_budget_is_never_passed(proxy, plan, tmp_path):
    link = proxy()
    study = plan(
        link.url,
        n=8,
        model={"price": {"input": 0, "output": 0.5, "per": 1}, "budget": {"money": 10}},
        generation={"max_new_tokens": 2, "stop": []},
    )
    with pytest.raises(WhypromptError, match=r"10 of 16 trials are stored, 6 are left") as stop:
        run_study(study, tmp_path)
    assert stop.value.exit_code == 1
    assert "raise model.budget" in stop.value.hint
    assert link.sent == 10


def test_a_server_that_begins_to_count_nothing_is_charged_at_its_most(proxy, plan, tmp_path):
    free = {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    link = proxy(after=lambda _body, reply: reply | (free if link.sent > 3 else {}))
    price = {"price": {"input": 0, "output": 0.5, "per": 1}, "budget": {"money": 10}}
    with pytest.raises(WhypromptError, match=r"10 of 16 trials are stored"):
        run_study(plan(link.url, n=8, model=price), tmp_path)
    assert link.sent == 10


def small(share):
    """A server whose counts are a share of the truth, and never nothing."""

    def change(_body, reply):
        used = {k: max(1, int(v * share)) for k, v in reply["usage"].items() if isinstance(v, int)}
        return reply | {"usage": used}

    return change


LONG = {"generation": {"max_new_tokens": 40, "stop": []}}
WORDS = "one two three four five six seven eight nine ten " * 4


@pytest.mark.parametrize("honest", [0, 3])
def test_usage_that_is_too_small_for_its_text_is_not_believed(proxy, plan, tmp_path, honest):
    """No tokenizer is known: 196 characters are more than 3 tokens all the same."""
    link = proxy()
    reply = json.loads(json.dumps(SOUND))
    reply["choices"][0]["message"]["content"] = WORDS
    reply["usage"] = {"prompt_tokens": 20, "completion_tokens": 40}

    def answered(n, body):
        return 200, {}, json.dumps(reply if n <= honest else small(0.075)(body, reply))

    link.before = answered
    price = {"price": {"input": 0, "output": 1, "per": 1}, "budget": {"money": 320}}
    study = plan(link.url, n=8, model=price | {"limits": {"concurrency": 1}}, **LONG)
    with pytest.raises(WhypromptError, match=r"8 of 16 trials are stored, 8 are left") as stop:
        run_study(study, tmp_path)
    assert link.sent == 8  # of 40 tokens each
    said = "usage is counted wrong (3 tokens of a completion that has 13 or more)"
    assert stop.value.message.count(said) == 1
    study = plan(link.url, n=4, model=price | {"limits": {"concurrency": 1}}, **LONG)
    told = [n for n in run_study(study, tmp_path / "whole").notices if said in n]
    assert len(told) == 1


def test_a_reply_beyond_what_was_asked_for_is_counted_and_set_aside_for(proxy, plan, tmp_path):
    """A server that takes no max_tokens: one reply passes its most, and no further one does."""
    much = json.loads(json.dumps(SOUND)) | {"usage": {"prompt_tokens": 5, "completion_tokens": 30}}
    link = proxy(before=lambda _n, _body: (200, {}, json.dumps(much)))
    model = {"price": {"input": 0, "output": 1, "per": 1}, "budget": {"money": 100}}
    study = plan(link.url, n=4, model=model | {"limits": {"concurrency": 1}})
    with pytest.raises(WhypromptError, match=r"3 of 8 trials are stored") as stop:
        run_study(study, tmp_path)
    assert link.sent == 3
    assert "a reply used 28 tokens beyond the most that was asked for" in stop.value.message


# ------------------------------------------------------------------------------------ G8: secrets
SECRET = "sk-not-to-be-found-anywhere-1234567890"  # noqa: S105


@pytest.mark.parametrize("status", [200, 400, 401])
def test_no_secret_is_written_or_said(proxy, plan, tmp_path, monkeypatch, capsys, status):
    monkeypatch.setenv("ASKED_KEY", SECRET)
    monkeypatch.chdir(tmp_path)
    echo = json.dumps({"error": {"message": f"what of {SECRET}?"}})
    link = proxy(
        before=lambda _n, _body: None if status == 200 else (status, {}, echo),
        after=lambda _body, reply: reply | {"echo": f"Bearer {SECRET}"},
    )
    study = plan(link.url, n=2, model={"key": {"env": "ASKED_KEY"}})
    said = ""
    try:
        run_study(study, tmp_path / "runs", text="text")
        study_effect(study, load_trials(study, tmp_path / "runs"))
    except WhypromptError as error:
        said = repr(error) + str(error) + repr(error.__context__)
    assert {h["Authorization"] for h in link.headers} == {f"Bearer {SECRET}"}
    assert (status == 200) == (said == "")
    assert SECRET not in said + "".join(capsys.readouterr())
    files = [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if SECRET.encode() in p.read_bytes()]


def test_a_key_that_is_not_set_is_named(plan, tmp_path, monkeypatch):
    monkeypatch.delenv("ASKED_KEY", raising=False)
    with pytest.raises(ModelError, match="ASKED_KEY is not set"):
        run_study(plan("http://127.0.0.1:9/v1", model={"key": {"env": "ASKED_KEY"}}), tmp_path)


# ------------------------------------------------------------------------------------ G9: missing
def test_what_is_missing_has_its_reason_and_its_bounds(proxy, plan, tmp_path):
    def filtered(body, reply):
        if "Please" in json.dumps(body) and "0 plus 0" in json.dumps(body):
            reply["choices"][0]["finish_reason"] = "content_filter"
        return reply

    link = proxy(after=filtered)
    study = plan(link.url, n=6)
    run_study(study, tmp_path)
    frame = load_trials(study, tmp_path)
    assert frame["error"].dropna().tolist() == ["filtered"]
    effect = study_effect(study, frame)
    said = "An outcome is missing for 1 of 6 items under 'polite' (filtered 1) and 0 of 6 under 'direct'"
    assert said in effect.sentence
    assert "with the worst (0) and the best (1) in their place" in effect.sentence
    # On the page it is seen without opening anything.
    (warning,) = [w for w in effect.main.warnings if w.startswith(said)]
    assert "with the worst (0)" in warning


# ------------------------------------------------------------------------------------ G10: drift
def renamed(when):
    def change(body, reply):
        return reply | {"model": "another"} if when(body) else reply

    return change


def test_a_model_that_changes_within_a_run_is_told(proxy, plan, tmp_path):
    link = proxy()
    link.after = renamed(lambda _body: link.sent > 6)
    study = plan(link.url, n=6, model={"limits": {"concurrency": 1}})
    told = [n for n in run_study(study, tmp_path).notices if "changed within the run" in n]
    assert len(told) == 1
    assert "another, b0-unknown (6)" in told[0]
    load_trials(study, tmp_path)


def test_replies_that_no_longer_name_a_model_are_told(proxy, plan, tmp_path):
    link, kept = proxy(), ("choices", "usage")
    link.after = lambda _body, reply: reply if link.sent <= 6 else {k: reply[k] for k in kept}
    study = plan(link.url, n=6, model={"limits": {"concurrency": 1}})
    told = [n for n in run_study(study, tmp_path).notices if "changed within the run" in n]
    assert len(told) == 1
    assert "no model named (6)" in told[0]


def test_arms_that_different_models_answered_are_not_compared(proxy, plan, tmp_path):
    link = proxy(after=renamed(lambda body: "Please" in json.dumps(body)))
    study = plan(link.url, n=3)
    for ask in (lambda: run_study(study, tmp_path), lambda: load_trials(study, tmp_path)):
        with pytest.raises(ModelError, match="answered by different models"):
            ask()
    assert link.sent == 6  # nothing is lost, and nothing is asked for again


# ------------------------------------------------------------------------------------ G11, G12
def test_repeats_that_differ_are_counted_by_arm(proxy, plan, tmp_path):
    from whyprompt.trials.endpoints.drift import flicker

    def odd(body, reply):
        if "Please" in json.dumps(body) and "0 plus 0" in json.dumps(body):
            reply["choices"][0]["message"]["content"] = f"seed {body['seed']}"
        return reply

    link = proxy(after=odd)
    study = plan(link.url, n=3, reps=2)
    run_study(study, tmp_path)
    assert link.sent == 12  # no reply serves two repetitions
    assert flicker(load_trials(study, tmp_path)) == {"direct": (3, 0), "polite": (3, 1)}


def test_a_proxy_of_the_environment_is_used_only_where_the_study_says_so(proxy, plan, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    link = proxy()
    assert run_study(plan(link.url, n=1), tmp_path / "without").new_trials == 2
    study = plan(link.url, n=1, model={"proxy": True, "limits": {"attempts": 1}})
    run_study(study, tmp_path / "with")
    assert load_trials(study, tmp_path / "with")["error"].tolist() == ["not connected"] * 2


def test_a_redirect_is_not_followed(proxy, plan, tmp_path):
    link = proxy(before=lambda _n, _body: (307, {"location": "http://127.0.0.1:9/v1"}, ""))
    with pytest.raises(ModelError, match="sends elsewhere"):
        run_study(plan(link.url, n=1), tmp_path)
    assert issubclass(ModelError, InputError)


# ------------------------------------------------------------------------------------ the run itself
def test_arms_of_an_item_are_sent_together_in_an_order_by_lot(proxy, plan, tmp_path):
    link = proxy()
    run_study(plan(link.url, n=8, model={"limits": {"concurrency": 1}}), tmp_path)
    texts = [json.dumps(b["messages"]) for b in link.bodies]
    items = [t.partition("What is ")[2].partition("?")[0] for t in texts]
    assert items[::2] == items[1::2]
    first = ["Please" in t for t in texts[::2]]
    assert 0 < sum(first) < 8
    assert all({"temperature", "top_p", "seed", "max_tokens"} <= set(b) for b in link.bodies)


def test_what_is_spent_and_what_time_is_left_is_shown_meanwhile(proxy, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("whyprompt.trials.endpoints.sender._SHOWN_EVERY_S", 0.0)
    study = plan(proxy().url, n=3, model={"price": {"input": 0, "output": 0.5, "per": 1, "currency": "EUR"}})
    seen = []
    run_study(study, tmp_path, progress=lambda *said: seen.append(said))
    asked = [(done, text) for done, total, text in seen if text.startswith("asking, ") and total == 6]
    assert [done for done, _ in asked] == [1, 2, 3, 4, 5, 6]
    # Two tokens each, half a Euro a token.
    spent = [float(re.fullmatch(r"asking, (\S+) EUR, \d+ tokens spent, \d+ s left", t)[1]) for _, t in asked]
    assert spent == sorted(spent)
    assert spent[-1] == 6


def test_a_changed_scorer_costs_nothing(proxy, plan, tmp_path):
    link = proxy()
    run_study(plan(link.url, n=3), tmp_path)
    sent = link.sent
    study = plan(link.url, n=3, outcomes=["numeric_match"], effect={"outcome": "numeric_match"})
    assert run_study(study, tmp_path).new_trials == 6
    assert link.sent == sent
    assert load_trials(study, tmp_path)["numeric_match"].notna().all()


def test_what_failed_is_asked_for_again_by_the_next_run(proxy, plan, tmp_path):
    link = proxy(before=lambda n, _body: (503, {}, "{}") if n <= 2 else None)
    study = plan(link.url, n=2, model={"limits": {"attempts": 1, "concurrency": 1}})
    run_study(study, tmp_path)
    assert load_trials(study, tmp_path)["error"].notna().sum() == 2
    assert run_study(study, tmp_path).new_trials == 2
    assert load_trials(study, tmp_path)["string_match"].notna().all()
