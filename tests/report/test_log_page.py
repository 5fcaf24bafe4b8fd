"""The page of logs: exact, self-contained, bounded, and safe with whatever stands in a log."""

from __future__ import annotations

import json
import re
import shlex
import sys

import numpy as np
import pytest
from page_reader import body, read, said_twice

import whyprompt as wp
from whyprompt.effects.headline import headline
from whyprompt.errors import DataError
from whyprompt.page.page import MAX_BYTES, write_report
from whyprompt.page.texts import TITLE

HOSTILE = (
    'Go to <a href="https://example.org/x">it</a> & </script><script>window.broken = true</script>'
    "<img src=x onerror=alert(1)> javascript:alert(2)"
)
ORDER = [
    "The answer",
    "Effects",
    "Items that changed",
    "What else differed",
    "What was read, and taken for what",
    "Items, pairing and design",
    "What may not be claimed",
    "How to reproduce it",
]


def rows(n=40, *, arms=("direct", "cot"), text=str, seed=0, reps=1):
    """Give trials of a plain table, the second arm a little better."""
    rng = np.random.default_rng(seed)
    return [
        {
            "item_id": f"q{k}",
            "question": f"{text(f'What is {k} + 1?')}",
            "arm": arm,
            "rep": rep,
            "prompt": f"{arm}: {text(f'What is {k} + 1?')}",
            "completion": text(f"{arm} says {k + 1}"),
            "task_type": "sum" if k % 2 else "word",
            "score": int(rng.random() < (0.75 if arm == arms[1] else 0.4)),
        }
        for k in range(n)
        for arm in arms
        for rep in range(1, reps + 1)
    ]


@pytest.fixture
def written(tmp_path):
    def write(trials, name="log.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, trials)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def page_of(tmp_path):
    def make(*paths, **options):
        found = wp.read_trials(*paths)
        effect = wp.log_effect(found, **options)
        path = write_report(found, effect, target=tmp_path / "page.html")
        text = path.read_text(encoding="utf-8")
        return found, effect, text, read(text)

    return make


def test_the_page_is_a_studys_as_far_as_logs_bear_it(written, page_of):
    _, effect, text, page = page_of(written(rows()))
    assert [words for tag, words in page.headings if tag == "h2"] == ORDER
    assert len([1 for tag, _ in page.headings if tag == "h1"]) == 1
    assert len(page.ids) == len(set(page.ids))
    for tag, name, value in page.attributes:
        if name == "href" and value.startswith("#"):
            assert value[1:] in page.ids, (tag, value)
        elif name in {"for", "aria-labelledby"}:
            assert set(value.split()) <= set(page.ids)
    assert said_twice(page) == []
    assert headline(effect, arms=False) in page.words
    assert json.loads(page.scripts["head-data"]) is None
    results = json.loads(page.scripts["results"])
    assert results["effect"] == json.loads(json.dumps(effect.to_dict()))
    assert len(text.encode()) < MAX_BYTES / 4


def test_its_figures_are_those_of_the_result(written, page_of):
    found, effect, _, page = page_of(written(rows()))
    for sentence in effect.sentence.split("\n"):
        assert " ".join(sentence.split()) in page.words
    tables = page.tables
    assert body(tables["effects"])["all items"] == [
        effect.n_pairs, effect.estimate, effect.ci_low, effect.ci_high, effect.p_value,
    ]  # fmt: skip
    for part in effect.parts:
        assert body(tables["effects"])[part.label][:2] == [part.n_used, part.estimate]
    assert {part.label for part in effect.parts} == {"sum", "word"}
    assert body(tables["measures"])["risk ratio"] == [
        effect.measures[1].estimate, effect.measures[1].ci_low, effect.measures[1].ci_high,
    ]  # fmt: skip
    (log,) = body(tables["logs"]).values()
    assert log[3:5] == [80, 80]
    assert body(tables["design"])["items under every arm"] == [40]
    gains, falls = int((effect.items.changes > 0).sum()), int((effect.items.changes < 0).sum())
    assert f"Items whose outcome is higher under 'cot': {gains}" in page.words
    assert f"Items whose outcome is lower under 'cot': {falls}" in page.words
    assert found.sources[0]["file"] in page.words


def answered(n=40, arms=("direct", "cot")):
    """Give trials whose answers have lengths of their own, and go with them."""
    rng = np.random.default_rng(5)
    found = []
    for row in rows(n, arms=arms):
        words = int(rng.integers(3, 9)) + 3 * (row["arm"] != arms[0])
        score = round(0.02 * words + 0.1 * rng.normal(), 3)
        found.append(row | {"completion": " ".join(["so"] * words), "score": score})
    return found


def test_the_answers_length_has_a_part_with_the_figures_of_its_analysis(written, page_of):
    found, _, _, page = page_of(written(answered()))
    heads = [words for tag, words in page.headings if tag == "h2"]
    assert heads == [*ORDER[:3], TITLE, *ORDER[3:]]
    same = wp.text_mediation(found)
    nie, nde, pure, rest = (same.part(name, by="length") for name in ("nie", "nde", "pure_nie", "total_nde"))
    share = None if (part := same.part("proportion")).estimate is None else part.estimate
    assert body(page.tables["answers"])["length"] == [
        *(nie.estimate, nie.ci_low, nie.ci_high, nde.estimate),
        *(pure.estimate, pure.ci_low, pure.ci_high, rest.estimate, share),
    ]
    at = [nie.estimate - nie["per_rho"] * r / (1 - r * r) ** 0.5 for r in (-0.5, -0.3, -0.1, 0.1, 0.3, 0.5)]
    undone = body(page.tables["undone"])["length, NIE"]
    assert undone == pytest.approx([nie["robustness_value"], nie["rho_at_zero"], *at])
    assert " ".join(same.sentence.removeprefix(same["read"]).split()) in page.words
    results = json.loads(page.scripts["results"])
    assert results["answers"] == json.loads(json.dumps(same.to_dict()))
    assert said_twice(page) == []


def test_a_page_of_logs_that_were_read_without_texts_is_the_same(written, tmp_path):
    path = written(answered())
    pages = []
    for texts in (True, False):
        found = wp.read_trials(path, texts=texts)
        page = write_report(found, wp.log_effect(found), target=tmp_path / f"{texts}.html").read_text()
        pages.append(body(read(page).tables["answers"]))
    assert pages[0] == pages[1]


def test_answers_of_other_lengths_have_the_reason_and_no_figure(written, page_of):
    trials = [
        row | {"completion": "so" if row["arm"] == "direct" else row["completion"]} for row in answered()
    ]
    page = page_of(written(trials))[3]
    assert "answers" not in page.tables
    assert (
        "How much of it goes through the length of the answers cannot be said: the words of an" in page.words
    )
    assert json.loads(page.scripts["results"])["answers"] is None


def test_each_of_several_arms_has_its_answers_length(written, tmp_path):
    found = wp.read_trials(written(answered(arms=("direct", "cot", "json"))))
    effect = wp.log_effect(found, reference="direct")
    page = read(write_report(found, effect, target=tmp_path / "page.html").read_text())
    for place, arm in enumerate([arm for arm in found.arms if arm != "direct"], start=1):
        nie = wp.text_mediation(found, treated=arm, control="direct").part("nie")
        assert body(page.tables[f"answers-{place}"])["length"][:3] == [nie.estimate, nie.ci_low, nie.ci_high]
    assert [one is None for one in json.loads(page.scripts["results"])["answers"]] == [False, False]
    assert len(page.ids) == len(set(page.ids))


def test_changed_items_have_their_texts_and_scores(written, page_of):
    _, effect, text, _ = page_of(written(rows()))
    k = int(np.flatnonzero(effect.items.changes > 0)[0])
    unit = effect.items.units[k]
    part = text[text.index(f"<summary>{unit}: 0 → 1.00</summary>") :]
    part = part[: part.index("</details>")]
    number = int(unit[1:])
    for words in (f"What is {number} + 1?", f"direct says {number + 1}", f"cot says {number + 1}"):
        assert words in part
    # The prompts show what was asked; where they do not, it is said.
    assert "What was asked:" not in part
    bare = [row | {"prompt": f"{row['arm']} prompt of {row['item_id']}"} for row in rows()]
    text = page_of(written(bare, "bare.jsonl"))[2]
    part = text[text.index(f"<summary>{unit}: 0 → 1.00</summary>") :]
    assert "What was asked:" in part[: part.index("</details>")]
    text = page_of(written(rows()))[2]
    same = effect.items.units[int(np.flatnonzero(effect.items.changes == 0)[0])]
    assert f"<summary>{same}: " not in text


def test_what_stands_in_a_log_is_text_and_nothing_else(written, page_of):
    trials = rows(12, text=lambda said: f"{said} {HOSTILE} \x00\u202e")
    for trial in trials:
        trial["task_type"] = HOSTILE
    _, _, text, page = page_of(written(trials, "l<b>og.jsonl"))
    assert HOSTILE not in text
    assert HOSTILE in page.words
    assert not {"\x00", "\u202e"} & set(text)
    assert "window.broken" not in page.scripts[""]
    assert not {tag for tag, _, _ in page.attributes} & {"img", "iframe", "form", "object"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"href", "src"}:
            assert value.startswith(("#", "data:")), (tag, value)
    assert "default-src 'none'" in text


def test_a_long_text_is_cut_and_the_whole_stands_behind_it(written, page_of):
    trials = rows(12)
    long = "step " * 2_000 + "the end"
    for trial in trials:
        trial["completion"] = long
    _, _, text, page = page_of(written(trials))
    assert f"<summary>All {len(long):,} characters</summary>" in text
    assert f"{long[:700].rstrip()}…" in text
    assert long in page.words


def test_a_page_of_ten_thousand_items_with_long_texts_is_bounded_and_says_what_it_lists(written, page_of):
    long = "'<&>" * 2_000
    trials = rows(10_000, text=lambda said: said)
    for place, trial in enumerate(trials):
        if place < 1_500:
            trial["completion"] = long
    _, effect, text, page = page_of(written(trials))
    assert len(text.encode()) < MAX_BYTES
    for word, side in (("higher", 1), ("lower", -1)):
        n = int((side * effect.items.changes > 0).sum())
        assert n > 1_000
        assert f"Items whose outcome is {word} under 'cot': {n}" in page.words
    listed = re.findall(r"Listed are the (\d+) with the largest change", page.words)
    assert len(listed) == 2
    assert sum(map(int, listed)) == len(re.findall(r"<summary>q\d+: ", text)) > 20
    # Where there is no more room for a whole text the page says where it is.
    assert f"The text has {len(long):,} characters. The whole is in its log." in page.words


def test_missing_outcomes_have_their_test_and_bounds(written, page_of):
    trials = rows(30)
    for k in (1, 5, 9, 13):
        trials[2 * k + 1] |= {"score": None, "error": "time-out"}
    found, effect, _, page = page_of(written(trials))
    assert found.missing["cot"] == {"time-out": 4}
    assert [text for text, _ in page.tables["missing"][1]] == ["cot", "time-out", "4"]
    bounds = body(page.tables["bounds"])
    test = effect["missing"]
    assert list(bounds.values()) == [[test["p"]], [test["low"]], [test["high"]]]
    assert body(page.tables["gone"]) == {"direct": [0, 30], "cot": [4, 30]}


def test_rows_without_an_item_in_common_have_balance_and_sensitivity(written, page_of):
    rng = np.random.default_rng(3)
    trials = [t for t in rows(300) if (t["arm"] == "cot") == (int(t["item_id"][1:]) % 3 > 0)]
    for trial in trials:
        trial["question"] += " Then add 7." * int(rng.integers(0, 4))
        trial.pop("prompt")
    _, effect, _, page = page_of(written(trials))
    assert effect.items is None
    titles = [words for tag, words in page.headings if tag == "h2"]
    assert {"Overlap and balance", "Sensitivity"} <= set(titles)
    assert "Items that changed" not in titles
    assert said_twice(page) == []
    balance = body(page.tables["balance-main"])
    for row in effect.balance:
        assert balance[row.covariate][:2] == [row.smd_before, row.smd_after]
    assert "sensitivity" in page.tables
    assert "Items whose outcome is higher" not in page.words


def test_the_same_prompts_under_both_labels_are_no_effect(written, page_of):
    trials = rows(30)
    for trial in trials:
        trial["prompt"] = trial["question"]
        trial["score"] = int(trial["arm"] == "cot")
    found, _, _, page = page_of(written(trials))
    assert found["same_prompts"]
    assert "noise, for both arms were sent the same prompts." in page.words
    assert "How sure. Not at all, whatever the numbers" in page.words
    assert "The sign is settled" not in page.words
    assert "that there is an effect of a prompt: both arms were sent the same prompts." in page.words


def test_repeats_that_differ_are_counted_by_arm(written, page_of):
    found, _, _, page = page_of(written(rows(20, reps=2)))
    flicker = body(page.tables["flicker"])
    assert flicker == {arm: [f["cells"], f["vary"]] for arm, f in found.flicker.items()}


def test_what_differs_beside_the_arm_is_shown_with_its_graph(written, page_of):
    trials = rows(20)
    for trial in trials:
        trial["model"] = "m-2" if trial["arm"] == "cot" else "m-1"
    found, effect, _, page = page_of(written(trials))
    compared = wp.compare_runs(found)
    told = {row[0][0]: [text for text, _ in row[1:]] for row in page.tables["differs"][1:]}
    assert told["model"] == ["model", "m-1", "m-2", "no"]
    for line in compared.sentence.split("\n")[1:]:
        assert " ".join(line.split()) in page.words
    assert "model" in compared.graph.unobserved
    assert "run causes model." in page.words
    assert json.loads(page.scripts["results"])["comparison"]["differences"]
    assert effect.sentence.split("\n")[1] in page.words


def test_an_effect_of_other_logs_and_a_page_in_the_place_of_a_log_are_refused(written, tmp_path):
    path = written(rows())
    found = wp.read_trials(path)
    effect = wp.log_effect(found)
    other = wp.read_trials(written(rows(20), "other.jsonl"))
    with pytest.raises(DataError, match="not of these logs"):
        write_report(other, effect, target=tmp_path / "p.html")
    with pytest.raises(DataError, match="is one of the logs"):
        write_report(found, effect, target=path)
    with pytest.raises(DataError, match="effect of one arm against another"):
        write_report(found, tmp_path)
    assert path.read_text().startswith("{")


# --------------------------------------------------------------------------------------- the command line
def test_the_verb_takes_logs_and_its_page_has_the_command_that_makes_it_again(
    run, written, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    written(rows())
    code, out, err = run("report", "log.jsonl", "--out", "page.html")
    assert (code, err) == (0, "")
    assert str(tmp_path / "page.html") in out
    first = (tmp_path / "page.html").read_text(encoding="utf-8")
    command = re.search(r"<pre[^>]*>(whyprompt report [^<]+)</pre>", first)[1].replace("&#39;", "'")
    code, out, err = run(*shlex.split(command)[1:], "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["report"] == "report.html"
    again = json.loads(read((tmp_path / "report.html").read_text(encoding="utf-8")).scripts["results"])
    before = json.loads(read(first).scripts["results"])
    assert again["effect"]["estimate"] == before["effect"]["estimate"]
    assert again["effect"]["ci_low"] == before["effect"]["ci_low"]


def test_a_reference_is_the_control_of_the_page(run, written, tmp_path):
    path = written(rows())
    code, _, err = run("report", path, "--reference", "cot", "--out", tmp_path / "p.html")
    assert (code, err) == (0, "")
    assert "Does 'direct' instead of 'cot' change 'score'?" in read((tmp_path / "p.html").read_text()).words


@pytest.mark.parametrize("gaps", [0, 3])
def test_more_than_two_arms_have_a_page_against_one_of_them(run, written, tmp_path, monkeypatch, gaps):
    monkeypatch.chdir(tmp_path)
    trials = rows(30, arms=("direct", "cot", "long"))
    for k in range(gaps):
        trials[9 * k + 2] |= {"score": None, "error": "time-out"}
    path = written(trials)
    code, _, err = run("report", path, "--reference", "direct")
    assert (code, err) == (0, "")
    first = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = read(first)
    assert len(page.ids) == len(set(page.ids))
    found = wp.read_trials(path)
    several = wp.log_effect(found, reference="direct")
    assert [words for tag, words in page.headings if tag == "h2"] == [
        "The answer", "Effects", "'cot' instead of 'direct'", "'long' instead of 'direct'",
        "What was read, and taken for what", *(["Missing outcomes"] if gaps else []),
        "What may not be claimed", "How to reproduce it",
    ]  # fmt: skip
    for sentence in several.sentence.split("\n"):
        assert " ".join(sentence.split()) in page.words
    shown = body(page.tables["effects"])
    for row in several.parts:
        assert shown[row.label][1:] == [
            row.estimate, row.ci_low, row.ci_high, row.simultaneous_low, row.simultaneous_high,
            row.p_value, row.p_adjusted,
        ]  # fmt: skip
    for place, arm in enumerate(("cot", "long"), start=1):
        one = wp.log_effect(found, treated=arm, control="direct")
        assert body(page.tables[f"effects-{place}"])["all items"][1:4] == [
            one.estimate, one.ci_low, one.ci_high,
        ]  # fmt: skip
        gains = int((one.items.changes > 0).sum())
        assert f"Items whose outcome is higher under {arm!r}: {gains}" in page.words
        assert (f"bounds-{place}" in page.tables) == (gaps > 0 and arm == "long")
    assert len(json.loads(page.scripts["results"])["comparison"]) == 2
    command = re.search(r"<pre[^>]*>(whyprompt report [^<]+)</pre>", first)[1].replace("&#39;", "'")
    assert "--reference direct" in command
    assert run(*shlex.split(command)[1:])[0] == 0
    again = json.loads(read((tmp_path / "report.html").read_text(encoding="utf-8")).scripts["results"])
    assert again["effect"]["parts"] == json.loads(page.scripts["results"])["effect"]["parts"]


def test_words_on_groups_are_those_of_the_log(written, page_of):
    trials = rows()
    _, _, text, _ = page_of(written(trials))
    assert "sorted within its task<" in text
    for trial in trials:
        trial.pop("task_type")
    _, _, text, page = page_of(written(trials, "other.jsonl"))
    assert "family" not in page.words
    assert "<h3>Every item&#39;s change, sorted</h3>" in text.replace("’", "&#39;")
    assert "<h3>The effect, over all items</h3>" in text


def test_what_means_nothing_is_refused(run, written, tmp_path):
    path = written(rows(10, arms=("a", "b", "c")))
    for arguments, message in (
        ((path,), "there are 3 arms"),
        ((path, "--reference", "a", "--by", "x"), "--by has no meaning on the page of more than two arms"),
        ((path, "--no-code"), "--no-code has no meaning with logs"),
        ((path, "--out", tmp_path), "is a folder"),
        ((path, "--reference", "a", "--better", "lower"), "--better has no meaning but for one outcome"),
        ((tmp_path / "s.yaml", "--margin", "1"), "--margin has no meaning with a study"),
        ((tmp_path / "s.yaml", "--arm", "file"), "--arm has no meaning with a study"),
        ((tmp_path / "s.yaml", "a.html", "b.html"), "b.html: a study is followed by the page"),
        ((tmp_path / "absent.eval",), "absent.eval"),
    ):
        code, out, err = run("report", *arguments)
        assert (code, out) == (2, ""), arguments
        assert message in err
        assert "Traceback" not in err
    assert run("report", path, "--treated", "c", "--control", "a", "--out", tmp_path / "p.html")[0] == 0


def test_what_is_better_is_stated_of_logs_and_stands_in_the_command_that_gives_the_page_again(
    run, written, tmp_path
):
    path, page = written(rows(200)), tmp_path / "p.html"
    stated = ("--better", "lower", "--margin", "0.05")
    assert ": higher, by " in run("effect", path)[1]
    assert ": worse, by " in run("effect", path, *stated)[1]
    assert run("report", path, *stated, "--out", page)[0] == 0
    text = page.read_text(encoding="utf-8")
    assert ": worse, by " in text
    assert "--better lower --margin 0.05" in text


@pytest.mark.parametrize("pattern", ["inspect_ai/*.eval", "lm_eval", "promptfoo/small.json", "dspy/*.json"])
def test_real_logs_have_a_page_with_the_answer_and_a_command_that_gives_it_again(
    run, shared_logs, tmp_path, monkeypatch, pattern
):
    if pattern.endswith(".eval"):
        pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    monkeypatch.chdir(tmp_path)
    paths = sorted(shared_logs.glob(pattern))
    code, _, err = run("report", *paths)
    assert (code, err) == (0, "")
    page = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    result = json.loads(page.scripts["results"])
    code, out, _ = run("effect", *paths, "--json")
    assert result["effect"]["estimate"] == json.loads(out)["estimate"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    command = re.search(r"<pre[^>]*>(whyprompt report [^<]+)</pre>", text)[1]
    for sign, real in (("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        command = command.replace(sign, real)
    assert run(*shlex.split(command)[1:])[0] == 0
    again = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert json.loads(again.scripts["results"])["effect"]["estimate"] == result["effect"]["estimate"]
