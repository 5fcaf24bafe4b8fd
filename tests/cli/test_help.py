"""The help of every verb: short ways, groups, and examples that are commands."""

import re
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command

from whyprompt.cli import app

COMMANDS = {
    (*at, name): command
    for at, group in (((), get_command(app)), (("data",), get_command(app).commands["data"]))
    for name, command in group.commands.items()
    if not hasattr(command, "commands")
}


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_a_short_way(run, flag):
    for words in ((), ("effect",), ("data",), ("data", "table")):
        code, out, _ = run(*words, flag)
        assert (code, out.startswith("Usage: ")) == (0, True)


def test_the_list_of_verbs_says_of_each_what_it_does_without_being_cut(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    listed = run("-h")[1].partition("Commands:\n")[2].rstrip().splitlines()
    assert [line.split()[0] for line in listed] == list(get_command(app).commands)
    assert all(re.fullmatch(r"  [a-z]+ +[A-Z][^.]+\.", line) for line in listed), listed


def test_the_options_of_an_effect_stand_in_groups(run):
    out = run("effect", "-h")[1]
    heads = re.findall(r"^(\S.*):$", out, re.MULTILINE)
    assert heads == [
        "Arguments",
        "What is compared",
        "What is adjusted for",
        "How",
        "How sure",
        "Gaps, and checks beside the estimate",
        "What is better",
        "Logs of other tools",
        "Where",
        "Options",
        "Examples",
    ]
    # No option is lost, and none stands twice.
    shown = re.findall(r"^  (?:-h, )?(--[a-z-]+)", out, re.MULTILINE)
    known = [option.opts[0] for option in COMMANDS["effect",].params if option.param_type_name == "option"]
    assert sorted(shown) == sorted([*known, "--help"])
    between = out.partition("Options:\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"--[a-z-]+", between)) == {"--json", "--help"}


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] != "data"], ids=" ".join)
def test_every_verb_has_examples_that_its_options_can_be(words):
    command = COMMANDS[words]
    text = command.epilog.strip().replace("\\\n", " ")
    assert text
    for line in text.splitlines():
        told = shlex.split(line, comments=True)
        told = told[: told.index(">")] if ">" in told else told
        assert told[:2] == ["whyprompt", *words]
        # Refuses what the verb does not have.
        command.make_context(words[0], told[2:])


def test_completion_is_offered(run, monkeypatch):
    assert "--install-completion" in run("-h")[1]
    # A verb that begins so is completed, as a shell asks for it.
    for name, value in (
        ("_WHYPROMPT_COMPLETE", "complete_bash"),
        ("COMP_WORDS", "whyprompt ef"),
        ("COMP_CWORD", "1"),
    ):
        monkeypatch.setenv(name, value)
    assert run()[1].split() == ["effect"]
    monkeypatch.setenv("COMP_WORDS", "whyprompt effect --treat")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run()[1].split() == ["--treatment", "--treated"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("efect", "t.csv"), "Did you mean 'effect'?"),
        (("effect", "t.csv", "--treatmnt", "arm"), "--treatment"),
    ],
)
def test_a_slip_is_answered_by_what_was_meant(run, words, said):
    code, _, err = run(*words)
    assert code == 2
    assert said in err


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "whyprompt", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.startswith("whyprompt ")) == (0, True), done.stderr
