"""Formats are told by content: each real log by its own reader alone, whatever its name ends in."""

import json
import shutil
import time
from importlib import import_module
from pathlib import Path

import pytest

from whyprompt.trials.readers import find
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.rows import has_lines, head_of, rows_of

FOLDER = Path(find.__file__).parent
READERS = [
    module
    for module in (
        import_module(f"whyprompt.trials.readers.{p.stem}") for p in sorted(FOLDER.glob("[a-z]*.py"))
    )
    if hasattr(module, "sniff")
]
# The logs in each folder, and whose they are; what lies beside them is read with them, or no log.
LOGS = {
    "promptfoo": ("promptfoo", ("*.json", "*.jsonl", "*.csv")),
    "dspy": ("DSPy", ("*",)),
    "inspect_ai": ("Inspect", ("*",)),
    "lm_eval": ("lm-eval", ("samples_*.jsonl",)),
    "helm": ("HELM", ("*/per_instance_stats.json",)),
    "every_eval_ever": ("every_eval_ever", ()),
}


def claims(path):
    head = head_of(path)
    return {module.name: sure for module in READERS if (sure := module.sniff(path, head))}


def test_no_format_claims_anothers_file(shared_logs):
    """Of every file the reader of its format is surest; only a plain table may stand below it."""
    for folder, (owner, patterns) in LOGS.items():
        logs = {path for pattern in patterns for path in (shared_logs / folder).glob(pattern)}
        assert logs or not patterns
        for path in (p for p in (shared_logs / folder).rglob("*") if p.is_file()):
            found = claims(path)
            plain = found.pop("a plain table", 0.0)
            assert set(found) <= {owner}, path
            assert plain < found.get(owner, 0.01), path
            assert (found.get(owner, 0.0) >= 0.5) == (path in logs), path


def test_detection_is_fast(shared_logs):
    for path in (p for p in shared_logs.rglob("*") if p.is_file()):
        claims(path)  # imports
        for cached in (heads.container, heads.keys, heads.header, heads.separator):
            cached.cache_clear()
        start = time.process_time()
        claims(path)
        assert time.process_time() - start < 0.2, path


@pytest.mark.parametrize(
    "file", ["promptfoo/small.json", "promptfoo/small.csv", "dspy/dspy_cot.csv", "dspy/dspy_cot.json"]
)
def test_a_wrong_ending_changes_nothing(shared_logs, tmp_path, file):
    copy = tmp_path / "log.parquet"
    shutil.copy(shared_logs / file, copy)
    assert claims(copy) == claims(shared_logs / file)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b'\xef\xbb\xbf{"a": 1}\n{"a": 2}', "lines"),
        (b'{"a": "}\\n{"}', "object"),
        (b'{\n "a": 1\n}\n', "object"),
        (b'  [{"a": 1}', "list"),
        (b"a,b\n1,2\n", "delimited"),
        (b"first, second\nonly one\nand one\n", ""),
        (b"name: x\nother: y\n", ""),
        (b"PAR1\x00", "parquet"),
        (b"PK\x03\x04", "zip"),
        (b"\x89PNG\r\n\x1a\n\x00", ""),
    ],
)
def test_containers(head, kind):
    assert heads.container(head) == kind


def test_the_keys_of_a_cut_text_are_those_of_the_whole():
    whole = {"a": [{"b": 'q"{[', "c": {"d": 1}}], "e": "x" * 50, "f": None}
    text = json.dumps(whole).encode()
    assert heads.keys(text) == {"a", "a[].b", "a[].c", "a[].c.d", "e", "f"}
    for end in range(len(text)):
        assert heads.keys(text[:end]) <= heads.keys(text)


def test_a_quoted_line_break_in_a_table_is_no_row():
    assert heads.container(b'a,b\n"one\ntwo, three",2\n') == "delimited"
    assert heads.separator(b"a;b;c\n1,5;2;3\n") == ";"


def test_lines_longer_than_what_is_looked_at(tmp_path):
    rows = [{"item_id": k, "score": k, "completion": "x" * heads.HEAD_BYTES} for k in (0, 1)]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert has_lines(path, head_of(path))
    assert claims(path) == {"a plain table": 0.2}
    assert [row for _, row in rows_of(path)] == rows
    path.write_text(json.dumps({"rows": rows}))
    assert not has_lines(path, head_of(path))
    assert [row for _, row in rows_of(path)] == rows
