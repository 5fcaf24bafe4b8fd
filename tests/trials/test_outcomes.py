import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyprompt.errors import DataError, StudyError
from whyprompt.study import OutcomeSettings
from whyprompt.trials.items.item import Item
from whyprompt.trials.models.scoring import TokenScores
from whyprompt.trials.outcomes.score import (
    any_reads,
    check_outcomes,
    score_outcomes,
)
from whyprompt.trials.outcomes.text import last_number, normalise, parse_number

ITEM = Item(item_id="a", question="q", answer="7", task_type="t", choices=("7", "12", "x"))


def scores(*log_probs, greedy=True):
    return TokenScores(np.array(log_probs), greedy, None)


def value(name, observed=None, *, item=ITEM, **settings):
    outcome = OutcomeSettings(name=name, **settings)
    check_outcomes([outcome], [item])
    observed = observed or {"scores": scores(-1.0, -2.0), "ends": True, "completion": " 7"}
    return score_outcomes([outcome], item, **observed, where="arm 'x', item 'a'").values[name]


def completed(text):
    return {"scores": scores(-1.0), "ends": True, "completion": text}


def test_log_probability_and_perplexity():
    assert value("log_prob") == -3.0
    assert value("perplexity") == pytest.approx(math.exp(1.5))


@pytest.mark.parametrize(
    ("greedy", "ends", "expected"), [(True, True, 1), (True, False, 0), (False, True, 0)]
)
def test_exact_match_asks_that_the_answer_ends(greedy, ends, expected):
    assert value("exact_match", {"scores": scores(-1.0, greedy=greedy), "ends": ends}) == expected


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (" 7", "7", 1),
        (" It is 7.", "7", 1),
        ("7.0", "7", 1),
        ("14/2", "7", 1),
        (" 6 then 7\n", "7", 1),
        ("#### 7 because 3", "7", 0),
        ("1,200", "1200", 1),
        ("$1,200.50", "1200.5", 1),
        ("−7", "-7", 1),
        ("10-7", "7", 1),
        ("10 -7", "-7", 1),
        ("77", "7", 0),
        ("seven", "7", 0),
        ("", "7", 0),
        ("0.1 + 0.2 = 0.3", "0.3", 1),
        ("1e3", "1000", 1),
        ("7/0", "7", 0),
    ],
)
def test_numeric_match(completion, answer, expected):
    item = Item(item_id="a", question="q", answer=answer, task_type="t")
    assert value("numeric_match", completed(completion), item=item) == expected


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_read_back(number):
    for text in (
        f"{number}",
        f"{number:,}",
        f" so it is {number:,}.",
        f"${number:,}" if number >= 0 else "x 5",
    ):
        expected = 5 if text == "x 5" else number
        assert last_number(text) == expected
    assert parse_number(f"{number:,}") == number


def test_answers_that_are_no_numbers_are_refused_before_anything_runs():
    item = Item(item_id="z", question="q", answer="blue", task_type="t")
    with pytest.raises(DataError, match="the answer of item 'z' is 'blue', not a number"):
        value("numeric_match", item=item)


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (" The Cat!", "cat", 1),
        ("a  cat", "The cat.", 1),
        ("cats", "cat", 0),
        ("", "cat", 0),
        ("CAT", "cat", 1),
    ],
)
def test_string_match(completion, answer, expected):
    item = Item(item_id="a", question="q", answer=answer, task_type="t")
    assert value("string_match", completed(completion), item=item) == expected


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


def test_multiple_choice():
    # Totals -3, -2.9, -4; by token -1.5, -2.9, -4; by byte -3, -1.45, -4.
    choices = {"7": scores(-1.0, -2.0), "12": scores(-2.9), "x": scores(-4.0)}
    observed = {"scores": scores(-3.0), "choices": choices}
    assert value("multiple_choice", observed) == 0
    assert value("multiple_choice", observed, options={"normalise": "tokens"}) == 1
    assert value("multiple_choice", observed, options={"normalise": "bytes"}) == 0
    with pytest.raises(DataError, match="item 'b' has fewer than two choices"):
        value("multiple_choice", observed, item=Item(item_id="b", question="q", answer="7", task_type="t"))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("multiple_choice", {"normalise": "words"}, "options.normalise is 'words': use none, tokens, bytes"),
        ("multiple_choice", {"normalize": "bytes"}, "unknown option 'normalize'; it takes normalise"),
        ("log_prob", {"base": 2}, "unknown option 'base'; it takes none"),
    ],
)
def test_options_are_checked_before_anything_runs(name, options, match):
    with pytest.raises(StudyError, match=match):
        check_outcomes([OutcomeSettings(name=name, options=options)], [ITEM])


def test_embedding_similarity_is_the_cosine(monkeypatch):
    from whyprompt.trials.outcomes import embedding

    class Encoder:
        def __init__(self, name):
            assert name == "mine"

        def encode(self, texts, *, normalize_embeddings, show_progress_bar):
            assert normalize_embeddings
            assert not show_progress_bar
            table = {" 7": [1.0, 0.0], "7": [0.6, 0.8]}
            return np.array([table[t] for t in texts])

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Encoder
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    embedding._encoder.cache_clear()
    assert value("embedding_similarity", options={"model": "mine"}) == pytest.approx(0.6)
    embedding._encoder.cache_clear()

    def absent(name):
        raise OSError(f"{name} is not here\nmore")

    module.SentenceTransformer = absent
    with pytest.raises(StudyError, match=r"the model 'mine' cannot be loaded: mine is not here\n"):
        value("embedding_similarity", options={"model": "mine"})
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(StudyError, match="needs sentence-transformers") as caught:
        value("embedding_similarity", options={"model": "mine"})
    assert caught.value.hint == 'pip install "whyprompt[embedding]"'


# --------------------------------------------------------------------------------------- callables
@pytest.fixture
def module(monkeypatch, tmp_path):
    (tmp_path / "my_outcomes.py").write_text(
        "def stars(*, completion, answer, item, top=5):\n"
        "    return min(top, len(completion.strip()))\n"
        "def worst(*, log_probs, answer, item):\n"
        "    return log_probs.min()\n"
        "def right(*, completion, answer, item):\n"
        "    return completion.strip() == answer\n"
        "def text(**_):\n"
        "    return 'five'\n"
        "def nothing(**_):\n"
        "    return float('nan')\n"
        "def fails(*, completion, answer, item):\n"
        "    raise KeyError('oops')\n"
        "number = 3\n"
        "class Judge:\n"
        "    @staticmethod\n"
        "    def grade(**_):\n"
        "        return 2\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_outcomes", raising=False)


@pytest.mark.usefixtures("module")
def test_callables_by_import_path():
    text = completed(" abcdefgh")
    assert value("stars", text, call="my_outcomes:stars") == 5
    assert value("stars", text, call="my_outcomes:stars", options={"top": 3}) == 3
    assert value("worst", call="my_outcomes:worst", needs="scores") == -2
    assert value("right", call="my_outcomes:right") == 1.0
    assert value("grade", call="my_outcomes:Judge.grade") == 2.0


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("call", "match"),
    [
        ("my_outcomes:absent", "cannot be imported: AttributeError"),
        ("no_such_module:x", "cannot be imported: ModuleNotFoundError"),
        ("my_outcomes:number", "'my_outcomes:number' is not callable"),
        ("my_outcomes:text", r"gave 'five' for arm 'x', item 'a': an outcome is a number"),
        ("my_outcomes:nothing", r"gave nan for arm 'x', item 'a': an outcome is finite"),
        ("my_outcomes:fails", r"failed on arm 'x', item 'a': KeyError: 'oops'"),
    ],
)
def test_callables_that_fail_name_the_trial(call, match):
    with pytest.raises(StudyError, match=match):
        value("mine", call=call)


def test_a_module_that_breaks_on_import(monkeypatch, tmp_path):
    (tmp_path / "broken_outcomes.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match="cannot be imported: ZeroDivisionError"):
        value("mine", call="broken_outcomes:f")


def test_several_outcomes_are_kept_as_they_are():
    outcomes = [
        OutcomeSettings(name="log_prob"),
        OutcomeSettings(name="exact_match"),
        OutcomeSettings(name="string_match"),
    ]
    found = score_outcomes(outcomes, ITEM, scores(-1.5), ends=True, completion="8", where="w")
    assert found.values == {"log_prob": -1.5, "exact_match": 1.0, "string_match": 0.0}
    assert found.extracted == {}


def test_what_outcomes_read():
    def made(name, **settings):
        return OutcomeSettings(name=name, **settings)

    assert not any_reads([made("log_prob"), made("exact_match"), made("multiple_choice")], "completion")
    for name in ("numeric_match", "string_match", "embedding_similarity"):
        assert any_reads([made(name)], "completion")
    assert any_reads([made("mine", call="a:b")], "completion")
    assert not any_reads([made("mine", call="a:b", needs="scores")], "completion")
    assert any_reads([made("exact_match")], "ending")
    assert not any_reads([made("log_prob")], "ending")
    assert any_reads([made("multiple_choice")], "choices")
    assert not any_reads([made("log_prob")], "choices")
