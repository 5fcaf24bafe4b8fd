"""Plain tables: the same trials from every container, long and wide; what several columns fit is refused."""

import json
import math
import random
import sys
from collections import Counter
from decimal import Decimal

import pandas as pd
import pytest

import whyprompt as wp
from whyprompt.errors import DataError
from whyprompt.trials.reading.questions import Repeats

ROWS = [
    {"item_id": "q1", "arm": "direct", "score": 1.0, "category": "maths", "cost": 0.5},
    {"item_id": "q1", "arm": "cot", "score": 0.0, "category": "maths", "cost": 1.5},
    {"item_id": "q2", "arm": "direct", "score": None, "category": "law", "cost": 0.25},
    {"item_id": "q2", "arm": "cot", "score": 0.5, "category": "law", "cost": 2.0},
]


def csv_text(rows, mark=","):
    names = list(rows[0])
    cells = [names, *([("" if row[n] is None else str(row[n])) for n in names] for row in rows)]
    return "".join(mark.join(line) + "\n" for line in cells)


def write(path, rows):
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".wrapped":
        path.write_text(json.dumps({"meta": 1, "rows": rows}, indent=1))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".xlsx":
        pytest.importorskip("openpyxl")
        pd.DataFrame(rows).to_excel(path, index=False)
    else:
        path.write_text(csv_text(rows, {".tsv": "\t", ".semi": ";", ".bar": "|"}.get(path.suffix, ",")))
    return path


@pytest.fixture
def table(tmp_path):
    def written(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def told(trials, *names):
    return [tuple(getattr(t, n) for n in names) for t in trials]


@pytest.mark.parametrize(
    "ending", ["csv", "tsv", "semi", "bar", "json", "wrapped", "jsonl", "parquet", "xlsx"]
)
def test_one_table_in_every_container(tmp_path, one_log, ending):
    path = write(tmp_path / f"t.{ending}", ROWS)
    log, trials = one_log("plain", path)
    assert told(trials, "item", "rep", "cost") == [
        ("q1", 1, 0.5),
        ("q1", 1, 1.5),
        ("q2", 1, 0.25),
        ("q2", 1, 2.0),
    ]
    assert [t.scores for t in trials] == [{"score": s} for s in (1.0, 0.0, None, 0.5)]
    assert [t.settings["prompt"]["arm"] for t in trials] == ["direct", "cot"] * 2
    assert [t.covariates for t in trials] == [{"category": c} for c in ("maths", "maths", "law", "law")]
    assert log.notes == ()
    assert list(log.trials()) == trials


def test_excel_without_its_library_says_what_to_install(tmp_path, one_log, monkeypatch):
    path = write(tmp_path / "t.xlsx", ROWS)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"needs openpyxl\n  hint: pip install 'whyprompt\[excel\]'"):
        one_log("plain", path)


def test_a_book_of_several_sheets_is_refused(tmp_path, one_log):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for sheet in (book.active, book.create_sheet("more")):
        sheet.append(["item_id", "score"])
        sheet.append(["a", 1])
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="2 sheets with rows: Sheet, more"):
        one_log("plain", tmp_path / "t.xlsx")


WELL_KNOWN = (
    "id;question;gold;prompt_version;repeat;passed;response;model_name;latency_ms;input_tokens;error;difficulty\n"
    "1;1 + 1?;2;v1;0;PASS;2;m;1500;10;;3\n"
    "1;1 + 1?;2;v1;1;FAIL;3;m;500;10;;3\n"
    "1;1 + 1?;2;v2;0;yes;2;m;500;12;;3\n"
    "1;1 + 1?;2;v2;1;;;m;;12;timeout;3\n"
)


def test_names_that_people_give(table, one_log):
    log, trials = one_log("plain", table(WELL_KNOWN))
    first, last = trials[0], trials[-1]
    assert [t.scores["passed"] for t in trials] == [1.0, 0.0, 1.0, None]
    assert [t.rep for t in trials] == [1, 2, 1, 2]
    assert (first.item, first.question, first.target) == ("1", "1 + 1?", "2")
    assert first.settings == {"prompt": {"prompt_version": "v1"}, "model": {"model_name": "m"}}
    assert (first.completion, first.latency_s, first.prompt_tokens) == ("2", 1.5, 10)
    assert first.covariates == {"difficulty": 3.0}
    assert (last.error, last.latency_s) == ("timeout", None)
    assert log.notes == ()


def test_repetitions_without_a_column_are_counted_in_their_cell(table, one_log):
    _, trials = one_log("plain", table("item_id,arm,score\na,x,1\na,y,1\na,x,0\nb,x,1\n"))
    assert [t.rep for t in trials] == [1, 1, 2, 1]


def test_a_propensity_is_a_chance(table, one_log):
    path = table("item_id,arm,score,propensity\na,x,1,0.2\nb,y,1,0.8\n")
    assert [t.propensity for t in one_log("plain", path)[1]] == [0.2, 0.8]
    with pytest.raises(DataError, match=r"t\.csv:2: 'propensity' is '0', which is no chance"):
        one_log("plain", table("item_id,arm,score,propensity\na,x,1,0\n"))


def test_a_prompt_that_items_share_is_an_arm_and_one_of_each_item_was_sent(table, one_log):
    _, trials = one_log("plain", table("id,prompt,score\n1,direct,1\n1,cot,0\n2,direct,1\n2,cot,1\n"))
    assert [t.settings["prompt"]["prompt"] for t in trials] == ["direct", "cot"] * 2
    _, trials = one_log("plain", table("id,prompt,arm,score\n1,one?,a,1\n1,one? think,b,1\n2,two?,a,0\n"))
    assert told(trials, "prompt") == [("one?",), ("one? think",), ("two?",)]


def test_an_answer_that_differs_within_an_item_is_the_models(table, one_log):
    _, trials = one_log("plain", table("question,arm,answer,correct\nq,a,4,1\nq,b,5,0\n"))
    assert told(trials, "completion", "target") == [("4", ""), ("5", "")]
    _, trials = one_log("plain", table("question,arm,answer,output,correct\nq,a,4,4,1\nq,b,4,5,0\n"))
    assert told(trials, "completion", "target") == [("4", "4"), ("5", "4")]


def test_what_may_come_of_the_arm_is_said(table, one_log):
    only = "adjusted for only where confounders=... names them"
    said = f"columns that may not be known beforehand, {only}: 'words'"
    path = table("item_id,arm,score,words,topic\na,x,1,10,t\na,y,0,90,t\n")
    log, trials = one_log("plain", path)
    assert trials[0].covariates == {"topic": "t", "words": 10.0}
    assert log.notes[0] == said
    # With one row an item nothing tells but the name.
    log, trials = one_log("plain", table("item_id,score,words,topic\na,1,10,t\nb,0,90,t\n"))
    assert trials[0].covariates == {"topic": "t", "words": 10.0}
    assert log.notes[0] == said
    # Text that is another one in every row tells rows apart.
    rows = "".join(f"{k},{k % 2},remark {k}\n" for k in range(60))
    log, trials = one_log("plain", table("item_id,score,remark\n" + rows))
    assert trials[0].covariates == {}
    assert log.notes[0] == "columns that may not be known beforehand, left out: 'remark'"


def test_scores_in_a_mapping_are_scorers(table, one_log):
    rows = [{"id": k, "arm": "a", "scores": {"exact": 1, "judge": 0.5}, "meta": {"level": 2}} for k in (1, 2)]
    _, trials = one_log("plain", table(json.dumps(rows), "t.json"))
    assert trials[0].scores == {"exact": 1.0, "judge": 0.5}


def test_without_a_known_name_every_number_is_a_scorer(table, one_log):
    _, trials = one_log("plain", table("item_id,arm,bleu,chrf\na,x,0.1,2\nb,y,0.3,4\n"))
    assert trials[0].scores == {"bleu": 0.1, "chrf": 2.0}


# --- wide -------------------------------------------------------------------------------------------------


def test_a_wide_table_has_a_trial_an_arm(table, one_log):
    path = table(
        "id,question,score_a,score_b,output_a,output_b,cost_a,difficulty\n1,one?,1,0,x,y,2,3\n2,two?,0,,u,v,4,5\n"
    )
    log, trials = one_log("plain", path)
    assert [(t.item, t.settings["prompt"]["arm"], t.scores["score"]) for t in trials] == [
        ("1", "a", 1.0),
        ("1", "b", 0.0),
        ("2", "a", 0.0),
        ("2", "b", None),
    ]
    assert told(trials, "completion", "cost") == [("x", 2.0), ("y", None), ("u", 4.0), ("v", None)]
    assert trials[2].covariates == {"difficulty": 5.0}
    assert log.notes == ("the columns 'score_a', 'score_b' are 'score' under the arms a, b",)


def test_words_and_unnamed_items_in_a_wide_table(table, one_log):
    _, trials = one_log("plain", table("correct_direct\tcorrect_cot\nyes\tno\nno\tyes\n"))
    assert [(t.item, t.settings["prompt"]["arm"], t.scores["correct"]) for t in trials] == [
        ("1", "direct", 1.0),
        ("1", "cot", 0.0),
        ("2", "direct", 0.0),
        ("2", "cot", 1.0),
    ]


def test_arms_may_have_the_separator_in_their_names(table, one_log):
    _, trials = one_log("plain", table("id,score_v1_short,score_v1_long\n1,1,0\n2,0,1\n"))
    assert {t.settings["prompt"]["arm"] for t in trials} == {"v1_short", "v1_long"}


def test_the_only_family_is_taken_whatever_its_stem(table, one_log):
    _, trials = one_log("plain", table("id,helped.old,helped.new\n1,1,0\n2,0,1\n"))
    assert {tuple(t.scores) for t in trials} == {("helped",)}


def test_families_of_other_arms_are_listed(table, one_log):
    with pytest.raises(DataError, match=r"rating \(rating_c, rating_d\); score \(score_a, score_b\)"):
        one_log("plain", table("id,score_a,score_b,rating_c,rating_d\n1,1,1,1,1\n2,0,0,0,1\n"))
    with pytest.raises(DataError, match=r"more than one family"):
        one_log("plain", table("id,foo_a,foo_b,bar_a,bar_b\n1,1,1,1,1\n2,0,0,0,1\n"))


def test_a_scores_parts_are_scorers_and_no_arms(table, one_log):
    _, trials = one_log("plain", table("id,score_fluency,score_relevance\n1,1,0\n2,0,1\n"))
    assert {tuple(t.scores) for t in trials} == {("fluency", "relevance")}
    _, trials = one_log("plain", table("id,score,rouge_1,rouge_2\n1,1,0.5,0.2\n2,0,0.1,0.1\n"))
    assert {tuple(t.scores) for t in trials} == {("score",)}


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question_id,task_id,arm,score\n1,a,1,1\n2,b,1,0\n", "'question_id' or 'task_id' may be the item"),
        ("arm,score\na,1\nb,0\n", "no column names the item\n  hint: call the column item_id, or question"),
        (
            "item_id,arm,note\n1,a,good\n2,b,bad\n",
            "a score: 'note' has 'good' and 'bad', no scores\n  hint: call the",
        ),
        ("item_id,arm,score\n1,a,1\n2,b,perhaps\n", r"t\.csv:3: 'score' is 'perhaps', which is no score"),
        ("item_id,arm,score\n1,a,1\n,b,1\n", r"t\.csv:3: 'item_id' is empty"),
        ('item_id,arm,score\n1,a,"0,5"\n2,b,1\n', r"'score' is '0,5', which.*\n.*decimals with a point"),
        ("item_id,arm,score\n1,a,1\n2,b\n", r"t\.csv:3: 2 fields, where the first line names 3"),
        ("item_id,score,score\n1,1,1\n2,0,0\n", "more than one column named 'score'"),
        ("item_id,arm,score\n", "holds no rows"),
        ("", "is empty"),
        (b"item_id,arm,score\n1,a\xe9,1\n2,b,0\n", r"t\.csv:\d: not UTF-8 text"),
        (
            "item_id,arm,score\n1,a,1\n2,b,1\n".encode("utf-16"),
            r"t\.csv:1: not UTF-8 text.*\n.*save it as UTF-8",
        ),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_place(table, one_log, text, message):
    with pytest.raises(DataError, match=message):
        one_log("plain", table(text))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"item_id": 1, "score": 1}', '{"item_id": 2, "sco'], r"t\.jsonl:2: not JSON"),
        (['{"item_id": 1, "score": 1}', "[1]"], r"t\.jsonl:2: a row is an object, not list"),
        (['{"item_id": 1, "score": 1}', '{"score": 1}'], r"t\.jsonl:2: 'item_id' is empty"),
        (['{"item_id": 1, "score": 1, "score": 2}'], "more than one column named 'score'"),
        (['{"item_id": 1, "score": NaN}', '{"item_id": 2, "score": "x"}'], r"no column holds a score"),
    ],
)
def test_damaged_lines_are_named(table, one_log, lines, message):
    with pytest.raises(DataError, match=message):
        one_log("plain", table("\n".join(lines) + "\n", "t.jsonl"))


def test_rows_of_another_kind_far_down_are_refused(table, one_log):
    lines = [json.dumps({"item_id": k, "score": 1}) for k in range(1001)] + [
        '{"item_id": 1, "score": 1, "arm": "b"}'
    ]
    with pytest.raises(DataError, match=r"t\.jsonl:1002: has 'arm', which none of the first 1000 rows has"):
        one_log("plain", table("\n".join(lines), "t.jsonl"))


def test_decimals_and_empty_cells_of_parquet(tmp_path, one_log):
    rows = [
        {"item_id": k, "arm": a, "score": Decimal("0.5"), "top_k": k or math.nan}
        for k in (0, 1)
        for a in "ab"
    ]
    _, trials = one_log("plain", write(tmp_path / "t.parquet", rows))
    assert {t.scores["score"] for t in trials} == {0.5}
    assert [t.settings.get("sampling") for t in trials] == [None, None, {"top_k": 1.0}, {"top_k": 1.0}]


def test_the_numbers_of_a_frames_rows_are_no_column(tmp_path, one_log, reader):
    frame = pd.DataFrame(ROWS)
    path = tmp_path / "t.csv"
    frame.to_csv(path)
    expected = one_log("plain", write(tmp_path / "plain.csv", ROWS))[1]
    assert reader("plain").sniff(path, path.read_bytes()) == 0.2
    assert one_log("plain", path)[1] == expected
    pd.read_csv(path).to_csv(path, index=False)  # "Unnamed: 0"
    assert one_log("plain", path)[1] == expected


def test_fields_in_a_mapping_go_by_their_own_names(table, one_log):
    rows = [
        {"input": {"question": f"{k}?"}, "metadata": {"item_id": k, "model": "m"}, "arm": a, "score": 1}
        for k in (1, 2)
        for a in "ab"
    ]
    _, trials = one_log("plain", table(json.dumps(rows), "t.json"))
    assert told(trials[:1], "item", "question") == [("1", "1?")]
    assert trials[0].settings["model"] == {"metadata.model": "m"}


def test_a_damaged_parquet_file_is_named(tmp_path, one_log):
    path = write(tmp_path / "t.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t\.parquet is not a Parquet file, or is damaged"):
        one_log("plain", path)


def test_repetitions_are_counted_in_each_cell_under_any_number_of_arms():
    met, by_hand = Repeats(), Counter()
    draw = random.Random(0)  # noqa: S311 - cells to count
    for _ in range(5000):
        cell = draw.randrange(40), draw.randrange(100)
        by_hand[cell] += 1
        assert met.next(*cell) == by_hand[cell]


@pytest.mark.parametrize("name", ["score", "verdict", "judge", "judge_verdict", "score_judge", "label"])
def test_words_that_are_no_scores_are_shown(tmp_path, name):
    path = tmp_path / "words.csv"
    path.write_text(
        f"item_id,arm,text,{name}\n" + "".join(f"{k},a,a text {k},GOOD\n{k},b,,BAD\n" for k in range(9))
    )
    with pytest.raises(DataError, match=f"no column holds a score: '{name}' has 'GOOD' and 'BAD', no scores"):
        wp.read_trials(path)


@pytest.mark.parametrize("answers", [(7, 8), ("yes", "no")])
def test_an_answer_is_no_score_however_like_one(tmp_path, answers):
    for name in ("a", "b"):
        rows = [f"what is {i}?,{answers[i % 2]}" for i in range(8)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["question,answer", *rows]))
    with pytest.raises(DataError, match="no column holds a score"):
        wp.read_trials(tmp_path / "a.csv", tmp_path / "b.csv")


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_decimal_commas_are_read_where_no_comma_separates_the_columns(table, one_log, mark):
    rows = [
        {"item_id": "q1", "arm": "direct", "score": "1", "completion": "3,5", "cost": "0,50", "hard": "7,1"},
        {"item_id": "q1", "arm": "cot", "score": "0,25", "completion": "4", "cost": "1,500", "hard": "7,1"},
        {"item_id": "q2", "arm": "direct", "score": None, "completion": "2,0", "cost": "2", "hard": "6"},
        {"item_id": "q2", "arm": "cot", "score": "0,5", "completion": "2", "cost": "NA", "hard": "6"},
    ]
    _, trials = one_log("plain", table(csv_text(rows, mark)))
    assert [t.scores["score"] for t in trials] == [1.0, 0.25, None, 0.5]
    # One of a column shows that its commas are decimal; an answer is what was written.
    assert [t.cost for t in trials] == [0.5, 1.5, 2.0, None]
    assert [t.covariates["hard"] for t in trials] == [7.1, 7.1, 6.0, 6.0]
    assert [t.completion for t in trials] == ["3,5", "4", "2,0", "2"]

    wide = table(csv_text([{"item_id": "q1", "score_a": "0,5", "score_b": "1"}], mark), "wide.csv")
    assert [t.scores for t in one_log("plain", wide)[1]] == [{"score": 0.5}, {"score": 1.0}]


@pytest.mark.parametrize("scores", [("1,500", "2,000"), ("0,5", "0.5")])
def test_a_comma_that_may_be_either_is_refused(table, one_log, scores):
    rows = [{"item_id": f"q{k}", "arm": "ab"[k], "score": score} for k, score in enumerate(scores)]
    with pytest.raises(DataError, match="which is no score") as refused:
        one_log("plain", table(csv_text(rows, ";")))
    assert refused.value.hint == "write decimals with a point"
