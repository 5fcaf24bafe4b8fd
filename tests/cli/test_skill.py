"""What an assistant is told is so: commands, flags and names exist, and the example runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.resources import files

import pytest
import typer

import whyprompt as wp
from whyprompt.cli import app

TEXT = files("whyprompt.cli").joinpath("skill.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for line in re.findall(r"`(whyprompt [^`]+)`", TEXT)]


def test_it_is_printed_whole(run):
    code, out, err = run("skill")
    assert (code, out.strip(), err) == (0, TEXT.strip(), "")
    assert json.loads(run("skill", "--json")[1]) == {"skill": TEXT.strip()}
    assert len(TEXT.split()) < 900, "a short text"
    assert re.match(r"---\nname: whyprompt\ndescription: .{80,1024}\n---\n", TEXT)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_parses(words):
    """Each by the parser itself: an unknown verb or flag, or a missing argument, is refused there."""
    root = typer.main.get_command(app)
    command = root.commands[words[1]]
    command.make_context(words[1], words[2:]).close()


def test_every_flag_and_name_exists():
    root = typer.main.get_command(app)
    known = {o for c in root.commands.values() for p in c.params for o in (*p.opts, *p.secondary_opts)}
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT))
    assert flags
    assert flags <= known
    names = {name for code in CODE for name in re.findall(r"\bwp\.(\w+)", code)}
    names |= set(re.findall(r"`([a-z]+_[a-z_]+)`", TEXT))
    assert {"load_example", "estimate_effect", "specification_curve"} <= names
    assert names <= set(wp.__all__)
    checks = re.findall(r"--check (\w+)", TEXT)
    from whyprompt.cli.effect_checks import CHECKS

    assert set(checks) <= set(CHECKS)


def test_a_flag_that_is_not_there_would_be_seen():
    command = typer.main.get_command(app).commands["effect"]
    with pytest.raises(Exception, match=r"--confounder\b"):
        command.make_context("effect", ["logs.csv", "--confounder", "a"])


def test_every_design_in_the_table_is_one():
    from whyprompt.effects.designs.make import DESIGNS

    asked = re.findall(r"--design (\w+)", TEXT)
    assert set(asked) <= {*DESIGNS, "paired", "randomized", "observational"}
    assert len(set(asked)) == 3


def test_the_example_runs_as_it_stands(tmp_path):
    (code,) = CODE
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "95% interval" in done.stdout
