"""A judge behind an endpoint, beside a local model or another endpoint: what it is shown and costs."""

import json
import sqlite3

import pytest
from fakeserver import FakeServer, toy_chat, toy_routes
from pydantic import ValidationError

import whyprompt as wp
from whyprompt import load_trials, run_study
from whyprompt.errors import ModelError, StudyError, WhypromptError
from whyprompt.study import OutcomeSettings, Study, load_study
from whyprompt.trials import writing
from whyprompt.trials.run import dry_run

SHOWN = "Question: {{ question }} Response: {{ completion }} Right? Reply yes or no."
KEY = "sk-verysecret0123456789"


def judge(url, *, prompt=SHOWN, temperature=0.0, reps=1, max_tokens=4, **model):
    return {
        "model": {"endpoint": url, "name": "toy", "api": "chat", **model},
        "prompt": prompt,
        "temperature": temperature,
        "reps": reps,
        "max_tokens": max_tokens,
    }


def said(text):
    """What the toy judge thinks of what it is shown: of even questions yes."""
    return "No, no." if number_in(text) % 2 else "I say: Yes."


def number_in(text):
    return int(text.split("What is ")[1].split(" ")[0])


@pytest.fixture
def bench():
    """A judge by OpenAI's protocol, and what it was shown; `refuses` gives what it answers to some of it."""
    made = []

    def make(refuses=lambda _text: None):
        shown = []

        def chat(body):
            text = body["messages"][-1]["content"]
            if "Response:" not in text:
                return toy_chat(body)
            shown.append(text)
            if (refused := refuses(text)) is not None:
                return refused
            reply = {"message": {"role": "assistant", "content": said(text)}, "finish_reason": "stop"}
            usage = {"prompt_tokens": len(text.split()), "completion_tokens": 2}
            return 200, {"model": "toy", "choices": [reply], "usage": usage}

        server = FakeServer({**toy_routes(), ("POST", "/v1/chat/completions"): chat})
        made.append(server)
        return server, shown

    yield make
    for server in made:
        server.close()


@pytest.fixture
def local(tiny_study):
    """A study of the tiny model whose completions are judged as told: twelve items, two arms."""
    study = load_study(tiny_study)

    def make(settings, **more):
        outcomes = ["string_match", {"name": "helpful", "judge": settings}]
        base = study.model_dump(exclude={"mediation"})
        given = {"outcomes": outcomes, "effect": {"outcome": "helpful"}, "generation": {"max_new_tokens": 3}}
        return Study.model_validate({**base, **given, **more})

    return make


def responses(folder):
    with sqlite3.connect(folder / "trials.sqlite") as db:
        return db.execute("SELECT request_hash, arm, purpose FROM response ORDER BY 1").fetchall()


def cost(folder):
    with sqlite3.connect(folder / "trials.sqlite") as db:
        return db.execute("SELECT total(cost) FROM response").fetchone()[0]


def test_a_local_models_completions_are_judged_each_once_and_without_the_arm(
    bench, local, tmp_path, monkeypatch
):
    monkeypatch.setenv("JUDGES_KEY", KEY)
    server, shown = bench()
    study = local(judge(server.url, key={"env": "JUDGES_KEY"}))
    found = run_study(study, tmp_path / "run")
    table = load_trials(study, tmp_path / "run")
    for row in table.itertuples():
        # Item "q7" asks what 7 plus something is.
        assert row.helpful == 1 - int(row.item_id[1:]) % 2
        assert row.helpful_extracted == ("yes" if row.helpful else "no")
    # What two arms wrote alike of an item is asked, and paid for, once.
    different = len({(r.item_id, r.completion.strip()) for r in table.itertuples()})
    assert len(shown) == different
    kept = [r for r in responses(tmp_path / "run") if r[2] == "judge helpful"]
    assert (len(kept), {arm for _, arm, _ in kept}) == (different, {""})
    assert any("the judge 'helpful'" in n and f"{different + 7} replies stored" in n for n in found.notices)
    # A second run asks nothing.
    before = len(shown)
    assert run_study(study, tmp_path / "run").new_trials == 0
    assert len(shown) == before
    for file in (tmp_path / "run").iterdir():
        assert KEY.encode() not in file.read_bytes()


def test_a_judge_that_gives_nothing_leaves_a_gap_with_its_reason_and_is_asked_again(
    bench, local, tmp_path, monkeypatch
):
    broken = [True]

    def refuses(text):
        if not broken[0]:
            return None
        if number_in(text) % 3 == 0:
            return 400, {"error": {"message": "filtered", "code": "content_filter"}}
        if number_in(text) % 3 == 1:
            reply = {"message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}
            return 200, {
                "model": "toy",
                "choices": [reply],
                "usage": {"prompt_tokens": 9, "completion_tokens": 1},
            }
        return None

    server, shown = bench(refuses)
    study = local(judge(server.url, limits={"attempts": 1}))
    notices = run_study(study, tmp_path / "run").notices
    (told,) = [n for n in notices if n.startswith("the judge 'helpful' has no reply to arm ")]
    assert told.endswith("the request is refused (400): filtered")
    table = load_trials(study, tmp_path / "run")
    gaps = table[table["helpful"].isna()]
    assert set(gaps["error"]) <= {"judge 'helpful': filtered", "judge 'helpful': no verdict"}
    assert gaps["string_match"].notna().all()
    assert table.loc[table["helpful"].notna(), "error"].isna().all()
    filtered = gaps["error"] == "judge 'helpful': filtered"
    assert 0 < filtered.sum() < len(gaps) < len(table)
    # What was refused is asked for again; a reply without a verdict was paid for, and stays one.
    broken[0], before = False, len(shown)
    # The model writes nothing again.
    monkeypatch.setattr(writing, "completions", None)
    assert run_study(study, tmp_path / "run").new_trials == len(gaps)
    again = load_trials(study, tmp_path / "run")
    assert again["helpful"].isna().sum() == (~filtered).sum()
    with sqlite3.connect(tmp_path / "run" / "trials.sqlite") as db:
        kept = {row[:2] for row in db.execute("SELECT item_id, arm FROM texts")}
    assert set(zip(*(again[again["helpful"].isna()][c] for c in ("item_id", "arm")), strict=True)) <= kept
    assert 0 < len(shown) - before <= filtered.sum()


def test_a_judge_that_fails_ends_the_run_where_the_study_says_so(bench, local, tmp_path):
    server, _ = bench(lambda _text: (500, {"error": {"message": "down"}}))
    study = local(judge(server.url, limits={"attempts": 1}), missing={"error": "stop"})
    with pytest.raises(WhypromptError, match="the judge 'helpful': ") as stopped:
        run_study(study, tmp_path / "run")
    assert "run again" in stopped.value.hint


def test_the_judges_budget_is_its_own_and_is_never_passed(bench, local, tmp_path):
    server, shown = bench()
    price = {"input": 1, "output": 1, "per": 1}
    run_study(local(judge(server.url, price=price)), tmp_path / "whole")
    most = 0.7 * cost(tmp_path / "whole")
    shown.clear()
    study = local(judge(server.url, price=price, budget={"money": most}, limits={"concurrency": 1}))
    with pytest.raises(WhypromptError, match="the budget is used up") as stopped:
        run_study(study, tmp_path / "run")
    assert stopped.value.exit_code == 1
    assert 0 < cost(tmp_path / "run") <= most
    before = len(shown)
    more = local(judge(server.url, price=price, budget={"money": 2 * most}, limits={"concurrency": 1}))
    run_study(more, tmp_path / "run")
    table = load_trials(more, tmp_path / "run")
    # How much a judge may cost moves no trial; what it had judged is not asked again.
    assert table["helpful"].notna().all()
    assert len(shown) == len({(r.item_id, r.completion.strip()) for r in table.itertuples()})
    assert before < len(shown)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no worker is ready")
def test_workers_have_their_completions_judged_by_the_driver(bench, local, tmp_path):
    server, _ = bench()
    study = local(judge(server.url))
    run_study(study, tmp_path / "one")
    with wp.workers("processes", count=1):
        run_study(study, tmp_path / "two")
    one, two = (load_trials(study, tmp_path / name) for name in ("one", "two"))
    apart = ["latency_s", "started_at"]
    assert one.drop(columns=apart).equals(two.drop(columns=apart))


def test_what_a_judge_may_cost_is_told_before_and_what_it_cannot_do_is_refused(bench, local, tmp_path):
    server, shown = bench()
    count = dry_run(local(judge(server.url, price={"input": 1, "output": 2})))
    assert any(
        n.startswith("the judge 'helpful' is asked 24 times at most:") and "USD" in n for n in count.notices
    )
    assert any(c.name == "judge 'helpful', model" for c in count.checks)
    assert not shown
    with pytest.raises(ModelError, match="the variable NOWHERE is not set"):
        run_study(local(judge(server.url, key={"env": "NOWHERE"})), tmp_path / "run")
    with pytest.raises(ModelError, match="cannot be reached"):
        run_study(local(judge("http://127.0.0.1:9/v1", limits={"attempts": 1})), tmp_path / "run")
    cold = FakeServer(
        {**toy_routes(), ("POST", "/v1/chat/completions"): lambda body: toy_chat({**body, "temperature": 0})}
    )
    with pytest.raises(ModelError, match="the judge 'helpful' has a temperature, and the probe saw"):
        run_study(local(judge(cold.url, temperature=0.7, reps=3)), tmp_path / "run")
    cold.close()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"batch": True}, "leave 'batch' out"),
        ({"endpoint": "http://example.com/v1"}, "unencrypted"),
        ({"budget": {"money": 1}}, "no 'price'"),
    ],
)
def test_the_settings_of_a_judge_are_those_of_an_endpoint(settings, match):
    whole = judge("https://example.com/v1")
    whole["model"] |= settings
    with pytest.raises(ValidationError, match=match):
        OutcomeSettings(name="helpful", judge=whole)


def test_a_judges_key_in_the_file_is_refused_without_being_repeated(tiny_study):
    settings = json.dumps(judge("https://example.com/v1", key=KEY))
    text = tiny_study.read_text(encoding="utf-8").replace(
        "exact_match]", f"{{name: helpful, judge: {settings}}}]"
    )
    tiny_study.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match="a key never stands in a file") as error:
        load_study(tiny_study)
    assert KEY not in str(error.value)


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_the_real_server_judges_what_it_wrote(proxy, plan, tmp_path):
    link, asked = proxy(), proxy()
    settings = judge(link.url, temperature=1.0, reps=3, prompt=SHOWN)
    settings["model"]["name"] = "smollm2"
    study = plan(asked.url, outcomes=[{"name": "helpful", "judge": settings}], effect={"outcome": "helpful"})
    found = run_study(study, tmp_path / "run")
    table = load_trials(study, tmp_path / "run")
    judged = table[table["helpful"].notna()]
    assert len(judged) > 0
    for row in judged.itertuples():
        words = [w for w in row.helpful_extracted.split(", ") if w != "?"]
        assert row.helpful == pytest.approx(words.count("yes") / len(words))
    # Where every reply had a verdict there is no column of errors.
    left = table.reindex(columns=["helpful", "error"]).query("helpful.isna()")
    assert set(left["error"]) <= {"judge 'helpful': no verdict"}
    kept = responses(tmp_path / "run")
    assert {p for h, _, p in kept if h.startswith("judge helpful: ")} == {"judge helpful", "probe"}
    # The arm's own words are in none of the judge's requests.
    with sqlite3.connect(tmp_path / "run" / "trials.sqlite") as db:
        hashes = {h for (h,) in db.execute("SELECT request_hash FROM attempt")}
    assert any(not h.startswith("judge") for h in hashes)
    assert any("models favour their own words" in n for n in found.notices) is (asked.url == link.url)
    sent = link.sent
    assert run_study(study, tmp_path / "run").new_trials == len(table) - len(judged)
    # Stored replies are used: nothing is asked again, not even of those without a verdict.
    assert link.sent == sent
    assert json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["trials"] == 12
