"""JSON in pieces: what json.loads reads whole is read the same, and what is cut is said to be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyprompt._rows import json_row
from whyprompt.errors import DataError
from whyprompt.trials.reading.chats import chat_text, content_text
from whyprompt.trials.reading.settings import flat
from whyprompt.trials.reading.stream import grouped, members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=12,
)


def cut_up(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.dictionaries(st.text(), VALUES, max_size=6), st.integers(1, 7), st.booleans())
def test_an_object_is_what_json_reads(value, size, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode("utf-8", "surrogatepass")
    assert dict(members(cut_up(data, size), "x")) == json.loads(data)


@given(st.lists(VALUES, max_size=6), st.integers(1, 7))
def test_a_list_is_what_json_reads(value, size):
    data = json.dumps(value).encode()
    assert [one for _, one in members(cut_up(data, size), "x")] == value


@given(st.lists(VALUES, max_size=4), VALUES, st.integers(1, 9))
def test_a_member_is_given_in_parts_or_passed_over(parts, other, size):
    data = json.dumps({"a": parts, "b": other, "c": parts, "d": 1}).encode()
    found = list(members(cut_up(data, size), "x", into=("a",), skip=("c",)))
    assert found == [*(("a", one) for one in parts), ("b", other), ("d", 1)]


@given(st.dictionaries(st.text(min_size=1), VALUES, min_size=1, max_size=4), st.data())
def test_what_is_cut_off_is_refused(value, data):
    whole = json.dumps(value).encode()
    end = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(DataError, match=r"^x(: not JSON| is cut off)"):
        list(members([whole[:end]], "x"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "x is empty"),
        (b"  \n", "x is empty"),
        (b'{"a": 1} 2', "more stands after its end"),
        (b'{"a" 1}', "not JSON"),
        (b'{"a": tru}', "not JSON|cut off"),
        (b"{a: 1}", "not JSON"),
        (b"[1, 2", "cut off"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "digits"),
    ],
)
def test_what_is_no_json_is_named(text, said):
    with pytest.raises(DataError, match=said):
        list(members([text], "x"))


def test_a_fault_far_from_the_end_is_found_where_it_stands():
    taken = []

    def source():
        for k in range(100):
            taken.append(k)
            yield b'{"a": [1 2' if k == 0 else b" " * 100_000

    with pytest.raises(DataError, match="not JSON"):
        list(members(source(), "x"))
    assert len(taken) < 10


def test_lines_of_a_key_are_together_however_far_apart(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"k": k, "part": part} for part in range(20) for k in (3, 1, 2)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    found = list(grouped(path, lambda line, number: json_row(line, path, number)["k"]))
    assert [g[0][1]["k"] for g in found] == [3, 1, 2]
    assert [[one["part"] for _, one in g] for g in found] == [list(range(20))] * 3
    assert [number for number, _ in found[1]][:2] == [2, 5]


def test_a_line_is_refused_by_its_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    for line, said in [
        (b'{"a": 1', r"rows.jsonl:7: not JSON: the last line is cut off"),
        (b'{"a": 1\n', r"rows.jsonl:7: not JSON"),
        (b"[1]\n", r"rows.jsonl:7: a row is an object, not list"),
        (b'{"a": "\xff"}\n', r"rows.jsonl:7: not UTF-8"),
    ]:
        with pytest.raises(DataError, match=said):
            json_row(line, path, 7)
    assert json_row(b'\xef\xbb\xbf{"a": 1}', path, 1) == {"a": 1}


def test_secrets_are_no_settings():
    given_ = {"api_key": "k", "x": {"Authorization": "b", "extra_headers": {"a": 1}, "max_tokens": 3}}
    assert dict(flat("args", given_)) == {"args.x.max_tokens": 3}


def test_parts_of_a_chat_that_are_no_text_have_a_name_of_their_own():
    def picture(data):
        return chat_text(
            [{"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image", "image": data}]}]
        )

    assert picture("aa").startswith("See\n[image ")
    assert picture("aa") == picture("aa") != picture("ab")
    assert content_text([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "7"}]) == "7"
