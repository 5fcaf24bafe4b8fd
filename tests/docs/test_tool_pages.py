"""The pages on tools: every command on them runs, in order, and prints what stands below it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from tool_logs import MADE, REAL, place_for

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "howto" / "tools"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")


def plain(text):
    return " ".join(text.split())


def steps(path):
    """Give each command of a page with what the page shows of its output."""
    text = path.read_text(encoding="utf-8")
    every = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [block for language, block in every if not language]
    for place, block in enumerate(found):
        if not block.startswith("whyprompt "):
            continue
        shown = found[place + 1] if place + 1 < len(found) else ""
        for line in block.splitlines():
            yield shlex.split(line)[1:], "" if shown.startswith("whyprompt ") else shown


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_command_runs_and_prints_what_the_page_shows(path, run, tmp_path, monkeypatch, request):
    logs = None
    if path.stem in REAL:
        logs = request.getfixturevalue("shared_logs")
        if path.stem == "inspect":
            pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    place_for(path.stem, tmp_path, logs)
    monkeypatch.chdir(tmp_path)
    for code in re.findall(
        r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        exec(compile(code, path.name, "exec"), {})  # noqa: S102 - the page's own
    some = list(steps(path))
    assert some[0][0][0] == "effect"
    assert "95% interval" in some[0][1]
    for words, shown in some:
        code, out, err = run(*words)
        assert (code, err) == (0, ""), words
        for part in shown.split("\n...\n"):
            assert plain(part) in plain(out), words
        # What is warned of is not kept from the reader.
        if shown and "Warnings:" in out:
            assert plain(out[out.index("Warnings:") :]) in plain(shown), words


def test_every_tool_has_a_page_that_the_index_names():
    assert {path.stem for path in PAGES} == {*MADE, *REAL}
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    logs = (ROOT / "docs" / "howto" / "logs.md").read_text(encoding="utf-8")
    for path in PAGES:
        assert f"({path.name})" in index
    assert "(tools/index.md)" in logs


def test_every_reader_has_its_tool_in_the_index():
    from whyprompt.trials.readers.find import readers

    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    names = {"lm-eval": "lm-evaluation-harness", "a plain table": "a spreadsheet"}
    for reader in readers():
        assert names.get(reader.name, reader.name) in index, reader.name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_the_parts_that_a_reader_looks_for(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# I have ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        *("Write the log" + "s" * (path.stem == "inspect"), "The answer"),
        *("What is taken for what", "Look out for"),
    ]
    assert len(text.splitlines()) < 90


def test_the_report_of_logs_is_written_by_the_command_of_its_page(run, tmp_path, monkeypatch, shared_logs):
    pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    place_for("inspect", tmp_path, shared_logs)
    monkeypatch.chdir(tmp_path / "logs")
    text = (ROOT / "docs" / "howto" / "report.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^whyprompt report .*\.eval .*$", text, re.MULTILINE)
    code, _, err = run(*shlex.split(command)[1:])
    assert (code, err) == (0, "")
    assert "'cot' instead of 'direct'" in Path("page.html").read_text(encoding="utf-8").replace("&#39;", "'")
    code_block = next(
        b for b in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if "read_trials" in b
    )
    Path("page.html").unlink()
    exec(compile(code_block, "report.md", "exec"), {})  # noqa: S102 - the page's own code
    assert Path("page.html").stat().st_size > 10_000
