"""Every ability is shown before it is relied on: on the real server, and where a server lies."""

from __future__ import annotations

import asyncio
import json
import math
import re
import sqlite3
from pathlib import Path

import pytest
from fakeserver import FakeServer, toy_routes

from whyprompt import dry_run, run_study
from whyprompt._endpoint_settings import EndpointSettings
from whyprompt.errors import ModelError, PromptError, StudyError, WhypromptError
from whyprompt.trials.endpoints.asking import Asking, Prompted, Purpose
from whyprompt.trials.endpoints.client import connected
from whyprompt.trials.endpoints.ledger import Ledger
from whyprompt.trials.endpoints.offers import offered, tokenized
from whyprompt.trials.endpoints.probe import probe
from whyprompt.trials.endpoints.scoring import Given, ask_score, read_score

NAME = "smollm2"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "endpoints.md"
TOY = {"name": "toy", "limits": {"attempts": 1}}


def asked(url, work=probe, **settings):
    async def run():
        model = EndpointSettings.model_validate({"endpoint": url, "name": NAME, **settings})
        async with connected(model, Ledger(None)) as client:
            return await work(client)

    return asyncio.run(run())


def table(abilities):
    return {c.name: (c.verdict, c.sentence) for c in abilities.checks}


@pytest.fixture
def fake():
    made = []

    def make(routes=None, **options):
        made.append(FakeServer(routes, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


# ------------------------------------------------------------------------------------ the real server
@pytest.mark.slow
def test_the_table_of_the_real_server(server):
    found = asked(f"{server}/v1")
    rows = table(found)
    assert [n for n, (verdict, _) in rows.items() if verdict == "doubtful"] == [
        "scoring: echo",
        "scoring: prompt_logprobs",
    ]
    assert not [n for n, (verdict, _) in rows.items() if verdict == "fails"]
    assert found.scoring == "token_grammar"
    assert found.asking.api == "completions"
    assert found.asking.neutral["top_k"] == 0  # llama.cpp's own defaults are switched off
    assert rows["context"] == ("passes", "2048 tokens")
    # What the page shows, the size of the gap aside.
    page = re.sub(r"\de-\d\d", "", PAGE.read_text(encoding="utf-8"))
    assert not [n for n, (_, s) in rows.items() if f"{n}: {re.sub(r'[0-9]e-[0-9]+', '', s)}" not in page]


@pytest.mark.slow
def test_a_given_answer_is_scored_as_one_token_after_the_other(server):
    """By the token grammar in one request, by the whole of the vocabulary token by token."""
    url, text = f"{server}/v1", "Question: What is 7 plus 5?\nAnswer:"

    async def work(client):
        offers = await offered(client)
        asking, rows = Asking(client.settings, "completions"), []
        ids = await tokenized(client, offers, text, special=True)
        for answer in (" 12", " forty-two"):
            answer_ids = (await tokenized(client, offers, text + answer, special=True))[len(ids) :]
            given = Given(text, answer, ids, answer_ids)
            request = ask_score(asking, "token_grammar", given, Purpose("", "", 0, answer), ahead=True)
            found = read_score("token_grammar", given, await client.ask(request), ahead=True)
            one_by_one = []
            for k, token in enumerate(answer_ids):
                prompt = Prompted({"prompt": [*ids, *answer_ids[:k]]}, len(ids) + k)
                body = asking.completion(
                    prompt, Purpose("", "", k, answer), most=1, temperature=0.0, seed=0, top=49152
                )
                top = (await client.ask(body)).answer.tokens[0].top
                one_by_one.append({t[0]: t[2] for t in top}[token])
            rows.append((found, one_by_one))
        return rows

    for found, one_by_one in asked(url, work):
        assert len(found.scores.log_probs) == len(one_by_one)
        assert max(abs(a - b) for a, b in zip(found.scores.log_probs, one_by_one, strict=True)) < 3e-5
        assert math.fsum(one_by_one) < -3


@pytest.mark.slow
def test_a_study_of_scores_counts_before_it_runs(server, plan, tmp_path):
    """Tokens and money at their most; what is then spent is no more."""
    study = plan(
        f"{server}/v1",
        n=2,
        model={"api": "auto", "price": {"input": 1.0, "output": 2.0, "per": 1}},
        outcomes=["log_prob", "exact_match", "string_match"],
        covariates=["question_tokens"],
    )
    count = dry_run(study)
    assert count.paid["requests"] == 8
    result = run_study(study, tmp_path)
    probing = result.paid["requests"] - 8
    assert 5 <= probing <= 15
    assert {c.name for c in count.checks} == {c.name for c in result.checks}
    frame = __import__("whyprompt").load_trials(study, tmp_path)
    assert frame["log_prob"].lt(0).all()
    assert set(frame["exact_match"]) <= {0.0, 1.0}
    assert frame["cost"].sum() <= count.paid["money"]
    assert (frame["question_tokens"] > 3).all()


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_prompt_beyond_the_context_is_refused_before_anything_runs(server, plan, tmp_path, api):
    arms = {"direct": {"kind": "direct"}, "long": {"kind": "direct", "instruction": "very " * 2100}}
    study = plan(f"{server}/v1", n=2, model={"api": api}, arms=arms)
    with pytest.raises(
        PromptError, match=r"arm 'long', item 'q0': .* context is 2048; in all 2 trials of 'long'"
    ):
        run_study(study, tmp_path)


# ------------------------------------------------------------------------------------ servers that lie
def test_nothing_there(plan, tmp_path):
    with pytest.raises(ModelError, match=r"127.0.0.1:9/v1/models cannot be reached"):
        run_study(plan("http://127.0.0.1:9/v1"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_page_of_html(fake, plan, tmp_path):
    with pytest.raises(ModelError, match="answers with no JSON, but perhaps a page of HTML"):
        run_study(plan(fake(html=True).url), tmp_path)


ODD = [None, 5, "x", [], {}, [None], [5], {"a": []}]


@pytest.mark.parametrize("odd", ODD)
def test_odd_json_where_a_server_says_what_it_has_is_no_traceback(fake, plan, odd):
    for path, said in (
        ("/v1/models", odd),
        ("/v1/models", {"data": odd}),
        ("/v1/models", {"data": [{"id": "toy", "meta": odd}]}),
        ("/props", {"default_generation_settings": odd}),
        ("/tokenize", odd),
        ("/apply-template", odd),
    ):
        verb = "POST" if path in {"/tokenize", "/apply-template"} else "GET"
        routes = {**toy_routes(), (verb, path): lambda _body, said=said: (200, said)}
        study = plan(fake(routes).url, n=1, model=TOY)
        if path == "/v1/models" and not isinstance(said, dict):
            with pytest.raises(ModelError, match="answers with no JSON"):
                dry_run(study)
        else:
            assert dry_run(study).trials == 2


@pytest.mark.parametrize("later", ["<html>gone</html>", {"oops": 1}, {"tokens": ["7"]}])
def test_a_server_that_no_longer_tokenises_is_named(fake, plan, later):
    asked_before = iter(range(100))
    tokens = lambda _body: (200, {"tokens": [1, 2]} if next(asked_before) < 5 else later)  # noqa: E731 - a route
    server = fake(toy_routes(tokenizes=True) | {("POST", "/tokenize"): tokens})
    with pytest.raises(ModelError, match="/tokenize answers with"):
        dry_run(plan(server.url, n=1, model=TOY | {"api": "completions"}))


def test_another_model_than_the_one_asked_for(fake):
    with pytest.raises(ModelError, match="asked for the model 'smollm2' and answers as 'toy'"):
        asked(fake(toy_routes()).url)


def test_a_model_that_is_not_there(fake):
    gone = lambda _body: (404, {"error": {"message": "no model smollm2"}})  # noqa: E731 - a route
    with pytest.raises(ModelError, match=r"not there \(404\): no model smollm2"):
        asked(fake(toy_routes() | {("POST", "/v1/chat/completions"): gone}).url)


@pytest.mark.parametrize("way", ["echo", "prompt_logprobs"])
def test_ways_of_other_servers_by_their_protocol(fake, way):
    """vLLM's forms, from a toy that follows its documentation."""
    server = fake(toy_routes(tokenizes=way == "prompt_logprobs"))
    found = asked(server.url, **TOY, api="completions", scoring=way)
    assert found.scoring == way
    assert table(found)[f"scoring: {way}"][0] == "passes"


def shifted(reply):
    """As a server that reports the token after the answer."""
    told = reply["choices"][0].get("logprobs")
    if told and len(told["tokens"]) > 3:
        told.update({k: v[-1:] for k, v in told.items()})
    return reply


def blurred(reply):
    told = reply["choices"][0].get("logprobs")
    if told and len(told["tokens"]) > 3:
        told["token_logprobs"] = [None if v is None else v + 0.01 for v in told["token_logprobs"]]
    return reply


@pytest.mark.parametrize(
    ("change", "said"), [(shifted, "did not come back"), (blurred, "differs by 2.0e-02")]
)
def test_scores_that_are_not_the_answers_are_refused(fake, plan, tmp_path, change, said):
    server = fake(toy_routes(change=change))
    found = asked(server.url, **TOY, api="completions")
    assert found.scoring is None
    assert said in table(found)["scoring: echo"][1]
    study = plan(server.url, model=TOY | {"api": "completions"}, outcomes=["log_prob"], effect={})
    with pytest.raises(
        StudyError, match="outcome 'log_prob' needs the log-probability of a given answer"
    ) as refusal:
        run_study(study, tmp_path / "new")
    assert "numeric_match" in refusal.value.hint
    assert not (tmp_path / "new").exists()


def test_one_token_answers_of_a_chat(fake, plan, tmp_path):
    from whyprompt import load_trials

    study = plan(fake(toy_routes()).url, n=13, model=TOY, outcomes=["log_prob"], effect={})
    run_study(study, tmp_path)
    frame = load_trials(study, tmp_path)
    told = frame.set_index(["item_id", "arm"])
    # The answers 7 and 12 are among the toy's most probable tokens, the others are not.
    seven = frame[frame["log_prob"].notna()]
    assert set(seven["log_prob"].round(6)) == {-0.3, -1.0}
    assert set(told["error"].dropna()) == {"not scored"}


def test_usage_that_lies_is_not_believed(fake, plan, tmp_path):
    def lying(reply):
        reply["usage"]["completion_tokens"] = 1
        return reply

    server = fake(toy_routes(change=lying))
    model = TOY | {"api": "completions", "price": {"input": 0, "output": 1, "per": 1}}
    found = asked(server.url, **model)
    assert table(found)["usage"] == (
        "fails",
        "wrong (1 tokens where 4 came back): every reply is charged at its most",
    )
    result = run_study(plan(server.url, n=2, model=model, generation={"max_new_tokens": 5}), tmp_path)
    assert result.paid["money"] >= 4 * 5


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_server_that_tokenises_is_held_to_its_own_count(proxy, plan, tmp_path, api):
    """Half the truth, told once the probe is over: the budget is kept as if nothing had been said."""

    def halved(_body, reply):
        if link.sent > probing:
            reply["usage"] |= {k: reply["usage"][k] // 2 for k in ("prompt_tokens", "completion_tokens")}
        return reply

    link = proxy()
    price = {"price": {"input": 0, "output": 1, "per": 1}, "api": api, "limits": {"concurrency": 1}}
    one = plan(link.url, n=1, model=price | {"budget": {"money": 2000}}, generation={"max_new_tokens": 40})
    honest = run_study(one, tmp_path / "honest")
    assert not [n for n in honest.notices if "usage is counted" in n]
    probing = link.sent - 2
    assert honest.paid["replies"] == link.sent
    paid = {key: json.loads(body)["usage"]["completion_tokens"] for key, body in bodies(tmp_path / "honest")}
    assert honest.paid["money"] == sum(paid.values())

    link.sent, link.after = 0, halved
    few = plan(link.url, n=8, model=price | {"budget": {"money": 250}}, generation={"max_new_tokens": 40})
    with pytest.raises(WhypromptError, match="usage is counted wrong") as stop:
        run_study(few, tmp_path / "halved")
    assert re.search(r"\(\d+ tokens of a (prompt|completion) that has \d+ or more\)", stop.value.message)
    truth = sum(2 * json.loads(body)["usage"]["completion_tokens"] for _, body in bodies(tmp_path / "halved"))
    assert truth <= 250


def bodies(folder):
    with sqlite3.connect(folder / "trials.sqlite") as db:
        return db.execute("SELECT request_hash, body FROM response").fetchall()


def test_a_temperature_that_is_ignored(fake, plan, tmp_path):
    cold = lambda body: toy_routes()["POST", "/v1/chat/completions"](body | {"temperature": 0})  # noqa: E731
    server = fake(toy_routes() | {("POST", "/v1/chat/completions"): cold})
    assert table(asked(server.url, **TOY))["sampling"][0] == "fails"
    arms = {"direct": {"kind": "direct"}, "warm": {"kind": "direct", "temperature": 0.7}}
    with pytest.raises(ModelError, match="arm 'warm' sets a temperature, and the probe saw"):
        run_study(plan(server.url, model=TOY, arms=arms), tmp_path)


def test_a_temperature_is_tried_without_a_seed_too(fake):
    drawn = iter(range(100))

    def random(body):
        return toy_routes()["POST", "/v1/chat/completions"](body | {"temperature": 1, "seed": next(drawn)})

    server = fake(toy_routes() | {("POST", "/v1/chat/completions"): random})
    rows = table(asked(server.url, **TOY, sampling={"seed": "none"}))
    assert rows["sampling"] == ("fails", "temperature 0 gives different texts: it is not honoured")


def test_log_probabilities_that_are_no_numbers_prove_nothing(fake):
    def nothing(reply):
        told = reply["choices"][0].get("logprobs")
        if told and len(told["tokens"]) == 1:
            told["top_logprobs"] = [dict.fromkeys(told["top_logprobs"][0])]
        return reply

    assert asked(fake(toy_routes(change=nothing)).url, **TOY, api="completions").scoring is None


def test_parameters_by_their_newer_names(fake):
    def newer(body):
        if "max_tokens" in body:
            return 400, {
                "error": {"message": "Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead."}
            }
        if "logprobs" in body:
            return 400, {"error": {"message": "logprobs are not available with this model"}}
        return toy_routes()["POST", "/v1/chat/completions"](
            body | {"max_tokens": body["max_completion_tokens"]}
        )

    found = asked(fake(toy_routes() | {("POST", "/v1/chat/completions"): newer}).url, **TOY)
    assert found.asking.limit == "max_completion_tokens"
    assert table(found)["log-probabilities"][0] == "doubtful"


def test_an_item_beyond_the_context_leaves_every_arm(fake, plan, tmp_path):
    from whyprompt import load_trials
    from whyprompt.answers.external import study_effect

    long = "{% if item_id == 'q0' %}{% for i in range(600) %}very {% endfor %}{% endif %}{{ question }}"
    arms = {"direct": {"kind": "direct"}, "long": {"kind": "template", "template": long}}
    server, model = fake(toy_routes(tokenizes=True)), TOY | {"api": "completions"}
    study = plan(server.url, n=5, model=model, arms=arms, missing={"overflow": "drop_item"})
    result = run_study(study, tmp_path)
    assert any("1 item leaves every arm, with a prompt beyond the context" in n for n in result.notices)
    frame = load_trials(study, tmp_path)
    assert frame[frame["error"].notna()][["item_id", "arm"]].to_numpy().tolist() == [
        ["q0", "direct"],
        ["q0", "long"],
    ]
    found = study_effect(study, frame).main
    assert "1 item has a prompt beyond the context: the effect is that on the others." in found.sentence
    assert "An outcome is missing" not in found.sentence
    with pytest.raises(PromptError, match="context is 512"):
        run_study(plan(server.url, n=5, model=model, arms=arms), tmp_path)


def test_an_item_that_the_server_finds_too_long_leaves_every_arm_where_the_study_says_so(
    fake, plan, tmp_path
):
    from whyprompt import load_trials
    from whyprompt.answers.external import study_effect

    def bounded(body):
        if "Please" in json.dumps(body) and "What is 0" in json.dumps(body):
            said = "This model's maximum context length is 512 tokens."
            return 400, {"error": {"message": said, "code": "context_length_exceeded"}}
        return toy_routes()["POST", "/v1/chat/completions"](body)

    server = fake(toy_routes() | {("POST", "/v1/chat/completions"): bounded})
    found = {}
    for what in ("drop_item", "refuse_plan"):
        study = plan(server.url, n=5, model=TOY, missing={"overflow": what})
        told = run_study(study, tmp_path / what).notices
        assert any("1 of 5 of arm 'polite' (overflow 1)" in n for n in told)
        frame = load_trials(study, tmp_path / what)
        found[what] = study_effect(study, frame).main.sentence, frame["string_match"].notna().sum()
    sentence, there = found["drop_item"]
    assert there == 8
    assert "1 item has a prompt beyond the context: the effect is that on the others." in sentence
    assert "An outcome is missing" not in sentence
    sentence, there = found["refuse_plan"]
    assert there == 9
    assert "An outcome is missing for 1 of 5 items under 'polite' (overflow 1)" in sentence


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_chain_is_written_first_and_stands_before_the_answer(fake, plan, tmp_path, api):
    from whyprompt import load_trials

    arms = {"direct": {"kind": "direct"}, "thinks": {"kind": "chain_of_thought", "reasoning": "generated"}}
    server = fake(toy_routes())
    study = plan(server.url, n=2, model=TOY | {"api": api}, arms=arms)
    run_study(study, tmp_path)
    sent = [
        json.loads(raw) for _, path, raw in server.asked if path.endswith("completions") and b"What is" in raw
    ]
    made = [b for b in sent if "logprobs" not in b]
    thought = "12 12 12"
    after = [b for b in made if thought in json.dumps(b)]
    assert (len(made), len(after)) == (6, 2)
    if api == "chat":
        assert all([m["role"] for m in b["messages"]] == ["user", "assistant", "user"] for b in after)
        assert {b["messages"][-1]["content"] for b in after} == {"Answer:"}
    frame = load_trials(study, tmp_path)
    assert frame.groupby("arm")["reasoning_tokens"].count().to_dict() == {"direct": 0, "thinks": 2}
    assert frame.loc[frame["arm"] == "thinks", "prompt"].str.contains(thought).all()
