"""What a person may get wrong, case by case: one message that says what and where, exit code 2, no file made.

Every case here once gave a traceback, hung, used up the memory, or passed without a word.
"""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass, field

import pandas as pd
import pytest

from whyprompt import cli

# A hang is a failure; the limit is far from what any case needs, so that a busy machine does not reach it.
pytestmark = pytest.mark.timeout(120)

TABLE = "arm,correct,long\n" + "".join(f"{i % 2},{int(i % 3 == 0)},{i % 5}\n" for i in range(40))
RECORDS = [{"arm": i % 2, "correct": int(i % 3 == 0), "long": i % 5} for i in range(40)]
EFFECT = ("--treatment", "arm", "--outcome", "correct", "--confounders", "long", "--method", "ipw")


@dataclass(frozen=True)
class Case:
    """Files in an empty folder, a command in it, and words of its message, in their order."""

    name: str
    command: tuple[str, ...]
    words: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)


def table(name: str, content: str | bytes, *words: str, file: str = "t.csv", options=EFFECT) -> Case:
    """A table that ``whyprompt effect`` refuses."""
    return Case(name, ("effect", file, *options), words, {file: content})


def lines(rows, **changes) -> str:
    first, *rest = rows
    return "\n".join(json.dumps(r) for r in [{**first, **changes}, *rest])


def damaged_parquet() -> bytes:
    """A Parquet file whose first page is overwritten."""
    made = io.BytesIO()
    pd.DataFrame({"question": [f"What is {i}?" for i in range(50)], "answer": "1"}).to_parquet(made)
    content = bytearray(made.getvalue())
    content[4:200] = b"\xff" * 196
    return bytes(content)


TABLES = [
    table(
        "comma at every line's end",
        TABLE.replace("\n", ",\n").replace("long,\n", "long\n", 1),
        "t.csv:2: 4 fields, where the first line names 3 columns",
        "drop the separator at the end of the line",
    ),
    table(
        "column of row names without a name",
        "arm,correct,long\n" + "".join(f"{i},{i % 2},{i % 3},{i % 5}\n" for i in range(1, 9)),
        "t.csv:2: 4 fields, where the first line names 3 columns",
        "name every column",
    ),
    table("one row too long", TABLE + "1,0,2,9\n", "t.csv:42: 4 fields, where the first line names 3"),
    table("one row too short", TABLE + "1,0\n", "t.csv:42: 2 fields, where the first line names 3"),
    table("semicolons", TABLE.replace(",", ";"), "t.csv is separated by semicolons, not by commas"),
    table("tabs in a .csv", TABLE.replace(",", "\t"), "t.csv is separated by tabs", ".tsv"),
    table("commas in a .tsv", TABLE, "t.tsv is separated by commas, not by tabs", file="t.tsv"),
    table("bytes in a later line", TABLE.encode() + b"1,0,\xff\n", "t.csv:", "not UTF-8"),
    table("nested without end", "[" * 200_000, "t.jsonl:1: the JSON is nested too deeply", file="t.jsonl"),
    table(
        "a number of 400 digits",
        lines(RECORDS, long=10**400),
        "column 'long' holds a whole number of more than 308 digits",
        file="t.jsonl",
    ),
    table(
        "a number of 5,000 digits",
        '{"arm": 1, "correct": 1, "long": ' + "1" * 5000 + "}",
        "t.jsonl:1: holds a whole number of more than 4,300 digits",
        file="t.jsonl",
    ),
    table(
        "half a character as an arm",
        '{"arm": "\\ud800", "correct": 1, "long": 1}\n' + lines(RECORDS, arm="b"),
        "t.jsonl, record 1: column 'arm' holds half a character (a lone surrogate, U+D800)",
        file="t.jsonl",
    ),
    table(
        "half a character in every arm",
        '{"arm": "\\ud83d", "correct": 1, "long": 1}\n{"arm": "b", "correct": 1, "long": 1}\n' * 9,
        "t.jsonl, record 1: column 'arm' holds half a character (a lone surrogate, U+D83D)",
        file="t.jsonl",
    ),
    table(
        "damaged Parquet",
        damaged_parquet(),
        "t.parquet is not a Parquet file, or is damaged",
        file="t.parquet",
    ),
    Case("a name of 300 letters", ("effect", "a" * 300 + ".csv", *EFFECT), ("there is no such file",)),
    Case(
        "a graph of 300 letters",
        ("effect", "t.csv", "--treatment", "arm", "--outcome", "correct", "--graph", "a" * 300),
        ("is neither a file nor arrow text",),
        {"t.csv": TABLE},
    ),
]


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Run a command in a folder of its own, check how it is refused, and give the message."""
    monkeypatch.chdir(tmp_path)

    def run(case: Case) -> str:
        for name, content in case.files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name).write_bytes(data)
        before = sorted(p.name for p in tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["whyprompt", *case.command])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        assert code == 2, (code, out[-500:], err)
        assert out == ""
        assert "Traceback" not in err
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1, err
        assert sorted(p.name for p in tmp_path.rglob("*")) == before
        return err

    return run


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.name)
def test_a_table_that_is_refused(case, refused):
    said = refused(case)
    for word in case.words:
        assert word in said, said


def test_a_pipe_is_no_table(refused, tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    assert "t.csv: there is no such file" in refused(Case("pipe", ("effect", "t.csv", *EFFECT), ()))
