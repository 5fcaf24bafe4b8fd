"""What of a completion is taken for the answer, and what it is then worth."""

import ast
import collections
import re
import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from whyprompt.errors import DataError, StudyError
from whyprompt.study import OutcomeSettings, load_study
from whyprompt.trials.items.item import Item
from whyprompt.trials.outcomes.score import Scored, check_outcomes, score_outcomes
from whyprompt.trials.outcomes.text import find_number, numbers, parse_number, same_code, token_f1


def scored(name, completion, answer="7", *, choices=(), **settings):
    outcome = OutcomeSettings(name=name, **settings)
    item = Item(item_id="a", question="q", answer=answer, task_type="t", choices=choices)
    check_outcomes([outcome], [item])
    found = score_outcomes([outcome], item, completion=completion, where="arm 'x', item 'a'")
    return found.values[name], found.extracted.get(name, "whole")


# ------------------------------------------------------------------------------------- extraction
@pytest.mark.parametrize(
    ("extract", "completion", "expected"),
    [
        ({"marker": "The answer is"}, "3 + 4. The answer is 7.", "7."),
        ({"marker": "the answer is"}, "THE ANSWER IS: **7**\nNext question: 5", "7**"),
        ({"marker": "The answer is"}, "The answer is 5. No: the answer is 7\n8", "7"),
        ({"marker": "Answer:"}, "Answer:\n 7 apples\n9", "7 apples"),
        ({"marker": "The answer is"}, "It is 7.", None),
        ({"marker": "The answer is"}, "so the answer is", None),
        ({"regex": r"x = (\d+)"}, "x = 3, then x = 7", "7"),
        ({"regex": r"\d+"}, "3 and 7", "7"),
        ({"regex": r"y = (\d+)"}, "x = 3", None),
        ({"regex": r"x(\d*)"}, "x", None),
        ("last_number", "3 and 4 are 7.", "7"),
        ("first_number", "3 and 4 are 7.", "3"),
        ("last_number", "seven", None),
        ({"json": "answer"}, 'I think {"answer": 7}', "7"),
        ({"json": "answer"}, '{"answer": 3} and {"answer": "7"} and {"other": 1}', "7"),
        ({"json": "a.b"}, '{"a": {"b": [1, 2]}}', "[1, 2]"),
        ({"json": "a"}, '{"b": {"a": 1}}', None),
        ({"json": "a"}, '{"a": 1', None),
        ({"json": "a"}, "{" * 3000 + '"a":' * 3, None),
        ({"json": "a"}, '{"a":' * 3000 + "1" + "}" * 3000, None),
        ("code", "Try:\n```python\nx = 7\n```\nor\n```\nx = 8\n```\ndone", "x = 8\n"),
        ("code", "```python\nx = 7", "x = 7"),
        ("code", "x = 7", "x = 7"),
        ([{"marker": "The answer is"}, "first_number"], "3. The answer is 7, as 3 + 4 = 7 and not 8.", "7"),
        ([{"json": "answer"}, "last_number"], '{"answer": "about 7"}', "7"),
        ([{"marker": "answer is"}, "last_number"], "12 is wrong.", None),
    ],
)
def test_what_is_extracted(extract, completion, expected):
    assert scored("string_match", completion, extract=extract)[1] == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. black cat", "B"),
        ("**B**", "B"),
        ("The answer is (b).", "B"),
        ("A cat is not it. The answer is B", "B"),
        ("I think option C: dog", "C"),
        ("A cat sat there", "A"),  # named by its text, not by its article
        ("black cat", "B"),
        ("The answer is a dog.", "C"),
        ("The answer is D", None),  # there is no fourth
        ("A or B or C, who knows", None),
        ("cat? dog?", None),
        ("I do not know", None),
        ("", None),
        ("(A) is wrong, so (C)", "C"),
    ],
)
def test_the_letter_of_a_choice(completion, expected):
    choices = ("cat", "red fox", "dog") if "A cat sat" in completion else ("cat", "black cat", "dog")
    if completion == "black cat":
        assert scored("string_match", completion, extract="choice", choices=choices)[1] == "B"
        return
    found = scored("string_match", completion, extract="choice", choices=choices)[1]
    assert found == expected


@given(st.text(max_size=200))
def test_nothing_extracted_is_ever_an_empty_text_or_an_error(text):
    steps = ["last_number", "first_number", "choice", "code", {"marker": "a"}, {"regex": "."}, {"json": "a"}]
    for step in steps:
        found = scored("string_match", text, extract=step, choices=("x", "y"))[1]
        assert found is None or found.strip() or step == {"regex": "."}


def test_a_completion_of_the_wrong_format_is_worth_what_the_study_says_and_is_told():
    assert scored("numeric_match", "I cannot say") == (0.0, None)
    assert scored("numeric_match", "7 or so", extract={"marker": "The answer is"}) == (0.0, None)
    assert scored("token_f1", "x", extract="last_number", wrong_format=-1.0) == (-1.0, None)
    assert scored("choice_match", "what?", choices=("7", "8")) == (0.0, None)
    assert scored("well_formed", "what?", extract="last_number") == (0.0, None)
    assert scored("well_formed", "8", extract="last_number") == (1.0, "8")
    assert scored("string_match", "what?") == (0.0, "whole")


def test_the_last_token_is_never_taken_instead():
    # The last word is the gold answer, and not where the answer was asked to be.
    assert scored("string_match", "it could be cat", "cat", extract={"marker": "Answer:"}) == (0.0, None)
    assert scored("string_match", "Answer: dog, not cat", "cat", extract={"marker": "Answer:"})[0] == 0.0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"extract": {"regex": "("}}, "extract.regex '\\(' is no pattern"),
        ({"extract": {"call": "nothing"}}, "extract.call is 'nothing': write 'package.module:function'"),
        ({"extract": {"marker": "x", "regex": "y"}}, "at most 1"),
        ({"extract": {"markr": "x"}}, "'marker', 'regex', 'json' or 'call'"),
        ({"extract": "last"}, "'last_number', 'first_number', 'choice' or 'code'"),
        ({"extract": []}, "at least 1"),
        ({"extract": {"marker": ""}}, "at least 1 character"),
        ({"extract": 3}, "'last_number'"),
    ],
)
def test_malformed_steps_are_refused_when_a_study_is_read(settings, match):
    with pytest.raises(ValidationError, match=match):
        OutcomeSettings(name="string_match", **settings)


@pytest.mark.parametrize(
    ("name", "settings", "kind", "match"),
    [
        (
            "log_prob",
            {"extract": "last_number"},
            StudyError,
            "reads no completion: there is nothing to extract",
        ),
        ("well_formed", {}, StudyError, "'extract' is missing"),
        ("string_match", {"extract": "choice"}, DataError, "item 'a' has fewer than two choices"),
        ("choice_match", {}, DataError, "outcome 'choice_match': item 'a' has fewer than two choices"),
        (
            "numeric_match",
            {"extract": "last_number", "options": {"units": {"km": 1}}},
            StudyError,
            "gives the number without its unit",
        ),
        ("numeric_match", {"options": {"tolerance": -1}}, StudyError, "options.tolerance is -1"),
        ("numeric_match", {"options": {"relative": "1%"}}, StudyError, "options.relative is '1%'"),
        ("numeric_match", {"options": {"units": {"km": 0}}}, StudyError, "what one of it is worth"),
        ("numeric_match", {"options": {"units": ["km"]}}, StudyError, "what one of it is worth"),
        ("string_match", {"extract": {"call": "no_such:thing"}}, StudyError, "cannot be imported"),
    ],
)
def test_what_cannot_be_read_of_these_items_is_refused_before_anything_runs(name, settings, kind, match):
    with pytest.raises(kind, match=match):
        scored(name, "x", **settings)


def test_choices_have_letters():
    many = tuple(map(str, range(27)))
    with pytest.raises(DataError, match="27 choices, and there are 26 letters"):
        scored("choice_match", "x", choices=many)
    with pytest.raises(DataError, match="neither one of its choices nor the letter"):
        scored("choice_match", "x", "9", choices=("7", "8"))


def test_a_function_of_ones_own_reads_it(tmp_path, monkeypatch):
    (tmp_path / "my_readers.py").write_text(
        "def last_word(completion):\n    return completion.split()[-1] if completion.split() else None\n"
        "def seven(completion):\n    return 7\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_readers", raising=False)
    assert scored("string_match", "a b cat", "cat", extract={"call": "my_readers:last_word"}) == (1.0, "cat")
    assert scored("string_match", "", "cat", extract={"call": "my_readers:last_word"}) == (0.0, None)
    with pytest.raises(
        StudyError, match=r"extract.call gave 7 for arm 'x', item 'a': it gives a text, or None"
    ):
        scored("string_match", "x", extract={"call": "my_readers:seven"})


def test_a_study_without_code_names_no_function_to_read_with(tiny_study):
    text = tiny_study.read_text(encoding="utf-8").replace(
        "outcomes: [log_prob, exact_match]",
        "outcomes: [log_prob, {name: string_match, extract: [code, {call: 'a.b:c'}]}]",
    )
    tiny_study.write_text(text, encoding="utf-8")
    load_study(tiny_study)
    with pytest.raises(StudyError, match=r"outcomes.1.extract: imports and runs 'a.b:c'"):
        load_study(tiny_study, code=False)


# ---------------------------------------------------------------------------------------- numbers
@pytest.mark.parametrize(
    ("completion", "answer", "options", "expected"),
    [
        ("6.95", "7", {}, 0),
        ("6.95", "7", {"tolerance": 0.05}, 1),
        ("6.94", "7", {"tolerance": 0.05}, 0),
        ("0.07", "0.06", {"tolerance": 0.01}, 1),  # not in binary
        ("693", "700", {"relative": 0.01}, 1),
        ("692.9", "700", {"relative": 0.01}, 0),
        ("-693", "-700", {"relative": 0.01}, 1),
        ("0.1", "0", {"relative": 0.5}, 0),
        ("1/2", "0.5", {}, 1),
        ("2 1/2", "2.5", {}, 1),
        ("-2 1/2 apples", "-2.5", {}, 1),
        (r"$\frac{1}{2}$", "0.5", {}, 1),
        (r"-\dfrac{1}{2}", "-0.5", {}, 1),
        (r"2\frac{1}{2}", "2.5", {}, 1),
        ("50%", "50", {}, 1),
        ("50%", "0.5", {}, 0),
        ("50%", "0.5", {"units": {"%": 0.01}}, 1),
        ("0.5", "50%", {"units": {"%": 0.01}}, 0),  # a number without a unit is in the gold answer's
        ("50", "50%", {"units": {"%": 0.01}}, 1),
        ("1.2 km", "1200 m", {"units": {"km": 1000, "m": 1}}, 1),
        ("1200", "1200 m", {"units": {"km": 1000, "m": 1}}, 1),
        ("1200", "1.2 km", {"units": {"km": 1000, "m": 1}}, 0),
        ("It is 1.2km, in 3 hours.", "1200 m", {"units": {"km": 1000, "m": 1}}, 1),
        ("3 miles", "3 km", {"units": {"km": 1000, "m": 1}}, 1),  # a unit that is not known is none
        ("12 apples", "12", {}, 1),
    ],
)
def test_numbers_to_a_tolerance_in_their_units(completion, answer, options, expected):
    assert scored("numeric_match", completion, answer, options=options)[0] == expected


def test_an_answer_with_a_unit_needs_to_know_it():
    with pytest.raises(DataError, match="the answer of item 'a' is '7 km', not a number"):
        scored("numeric_match", "7", "7 km")


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(0, 999))
def test_fractions_are_read_back(top, bottom, whole):
    text = f"so {top}/{bottom} it is"
    assert [value for value, *_ in numbers(text)] == [parse_number(f"{top}/{bottom}")]
    assert float(parse_number(f"{top}/{bottom}")) == pytest.approx(top / bottom)
    if 0 < top < bottom:
        assert float(parse_number(f"{whole} {top}/{bottom}")) == pytest.approx(whole + top / bottom)


@given(st.text(alphabet="0123456789 /-.,\n\teE%$−", max_size=30))
def test_whatever_looks_like_numbers_is_read(text):
    for value, start, stop in numbers(text):
        assert 0 <= start < stop <= len(text)
        assert parse_number(text[start:stop]) == value


def test_fractions_with_spaces_and_numbers_on_two_lines():
    assert parse_number("7 / 2") == parse_number("7/2") == parse_number("3.5")
    assert parse_number("-1 1 / 2") == parse_number("-1.5")
    assert find_number("1\n1/2") == "1/2"
    assert find_number("12 /\n") == "12"


def test_two_numbers_are_not_one():
    assert find_number("in step 1 7/2") == "7/2"
    assert find_number("7/0 3 1/0") == "3"
    assert parse_number("1 2") is None
    assert parse_number("") is None


# -------------------------------------------------------------------------------------- free text
def squad_f1(prediction, truth):
    """The published scorer of SQuAD 2.0 (Rajpurkar et al. 2018), its functions in one."""

    def normalised(s):
        s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())

    predicted, true = normalised(prediction).split(), normalised(truth).split()
    if not predicted or not true:
        return int(predicted == true)
    same = sum((collections.Counter(predicted) & collections.Counter(true)).values())
    if same == 0:
        return 0
    precision, recall = same / len(predicted), same / len(true)
    return 2 * precision * recall / (precision + recall)


words = st.lists(st.sampled_from(["the", "a", "cat", "Cat.", "sat", "on", "mat", "mats!", "an"]), max_size=8)


@given(words, words)
def test_token_f1_is_squads(one, other):
    a, b = " ".join(one), " ".join(other)
    assert token_f1(a, b) == pytest.approx(squad_f1(a, b))


def test_token_f1_as_an_outcome():
    assert scored("token_f1", "The black cat", "cat")[0] == pytest.approx(2 / 3)


# ------------------------------------------------------------------------------------------- code
@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("def f(x):\n    return x+1", "def f( x ):\n\n  return (x + 1)  # more", True),
        ("```python\nx = 1\n```", "x=1", True),
        ("x = 1", "x = 2", False),
        ("x = 1", "y = 1", False),
        ("a = 1; b = 2", "a = 1\nb = 2", True),
        ("f('a')", 'f("a")', True),
        ("SELECT  *\nFROM t", "SELECT * FROM t", True),
        ("SELECT * FROM t", "SELECT * FROM u", False),
        ("x = 'a  b'", "x = 'a b'", False),  # spaces inside a literal are meant
        ("def f(:", "def f( :", False),
        ("x = (" * 500, "x", False),
        ("-" * 50_000 + "1", "1", False),
        ("x = '\\d'", "x = '\\d'", True),
    ],
)
def test_code_is_compared_and_never_run(text, answer, expected):
    assert scored("code_match", text, answer)[0] == expected


def test_nothing_is_run(monkeypatch):
    ran = []
    monkeypatch.setattr("builtins.exec", lambda *_: ran.append("exec"))
    monkeypatch.setattr("builtins.eval", lambda *_: ran.append("eval"))
    assert same_code("import os; os.abort()", "import os\nos.abort()")
    assert ran == []


@given(st.sampled_from(["x = 1\ny = [x, 2]", "def f(a, *, b=2):\n    return a if b else {1: 'x'}"]))
def test_code_is_its_own_unparsed_form(code):
    assert same_code(code, ast.unparse(ast.parse(code)))


# ---------------------------------------------------------------------------------------- choices
def test_choice_match():
    choices = ("7", "8", "9")
    assert scored("choice_match", "The answer is (A)", "7", choices=choices) == (1.0, "A")
    assert scored("choice_match", "B", "7", choices=choices) == (0.0, "B")
    assert scored("choice_match", "9", "9", choices=choices) == (1.0, "C")
    assert scored("choice_match", "(C)", "c", choices=choices) == (1.0, "C")
    marked = {"marker": "Final:"}
    assert scored("choice_match", "(A) no. Final: (B)", "8", choices=choices, extract=marked) == (1.0, "B")


def test_what_is_scored_without_a_model_needs_no_scores():
    found = score_outcomes(
        [OutcomeSettings(name="numeric_match"), OutcomeSettings(name="string_match")],
        Item(item_id="a", question="q", answer="7", task_type="t"),
        completion="7 it is",
        where="w",
    )
    assert found == Scored({"numeric_match": 1.0, "string_match": 0.0}, {"numeric_match": "7"})
