"""Messages of the library in the words of the command line: one rule, held over every message there is."""

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.main import get_command

from whyprompt.cli import app
from whyprompt.cli.effect import inside_options
from whyprompt.cli.flags import in_flags

SOURCE = Path(__file__).parents[2] / "src" / "whyprompt" / "effects"
EFFECT = typer.Context(get_command(app).commands["effect"])
OPTIONS = {option.name: option for option in EFFECT.command.params if option.param_type_name == "option"}
# The library's name of an option that has another.
OWN_NAMES = {"random_state": "seed", "m": "impute"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("give confounders=[...] or a graph", "give --confounders A,B or a graph"),
        ("or method='naive' for the plain difference", "or --method naive for the plain difference"),
        ("items from one template need cluster=", "items from one template need --cluster"),
        (
            "give tie_break=, or ties='average'",
            "give --method NAME:tie_break=, or --method NAME:ties=average",
        ),
        ("method='ipw' or 'overlap' brings", "--method ipw or overlap brings"),
        (
            "(replace=False), or replace=True.",
            "(--method NAME:replace=false), or --method NAME:replace.",
        ),
        (
            "set neighbours=0; ratio=-1 is too few",
            "set --method NAME:neighbours=0; --method NAME:ratio=-1 is too few",
        ),
        ("give levels=[lowest, ..., highest]", "give --as ordered:levels=lowest+...+highest"),
        ("std_error='abadie_imbens' and random_state='x'", "--std-error abadie_imbens and --seed x"),
        ("within=['a', 'b'] and auxiliary=", "--check placebo:within=a+b and --impute M:auxiliary="),
        ("missing_outcome='impute', m=1", "--impute M:missing_outcome=impute, --impute 1"),
        ("stabilised=True, or clip=0.05", "--method NAME:stabilised, or --method NAME:clip=0.05"),
        ("confounders=['a', 'b'] leaves 'c' out", "--confounders a,b leaves 'c' out"),
        ("confounders=['my column'] is empty", "--confounders 'my column' is empty"),
        # No option of this verb; a name of the caller's own; no argument at all.
        ("trim= and alpha=0.05", "trim= and alpha=0.05"),
        ("columns 'cluster=' and \"it's method='x'\"", "columns 'cluster=' and \"it's method='x'\""),
        ("the arm's cluster= is missing", "the arm's --cluster is missing"),
        ("x.method='naive' and level==0.9, by=c", "x.method='naive' and level==0.9, by=c"),
        ("sensitivity=True is no option that is switched", "sensitivity=True is no option that is switched"),
        ("a=b method=naive 0.5=level=", "a=b method=naive 0.5=level="),
    ],
)
def test_arguments_are_options_and_all_else_is_left(text, said):
    assert in_flags(text, EFFECT, inside_options()) == said


def messages():
    """Give every text of the code, docstrings left out; 'value' and 1 stand for what is filled in."""

    def text(node):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            parts = node.values  # noqa: PD011 - of a syntax tree
            return "".join(
                p.value if isinstance(p, ast.Constant) else "'value'" if p.conversion == ord("r") else "1"
                for p in parts
            )
        return None

    for file in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        left = {id(part) for n in nodes if isinstance(n, ast.JoinedStr) for part in n.values}  # noqa: PD011
        left |= {id(n.value) for n in nodes if isinstance(n, ast.Expr)}
        yield from ((file.name, said) for n in nodes if id(n) not in left and (said := text(n)))


def test_no_message_of_the_library_speaks_of_an_option_in_python():
    """Whatever is written ``name=`` where the verb has that option becomes an option that exists."""
    found = []
    known = {flag for option in OPTIONS.values() for flag in (*option.opts, *option.secondary_opts)}
    for file, text in messages():
        said = in_flags(text, EFFECT, inside_options())
        if said == text:
            # Nothing to translate, unless an argument's form was not understood.
            outside = re.sub(r"(?<!\w)'[^']*'|\"[^\"]*\"", "", text)
            missed = re.findall(r"(?<![\w.'{-])([a-z_]+)=(?!=)", outside)
            assert not {OWN_NAMES.get(n, n) for n in missed} & {*OPTIONS, *inside_options()}, (file, text)
            continue
        flags = set(re.findall(r"--[a-z-]+", said))
        assert flags <= known, (file, said)
        found += [(file, said)]
    assert len(found) > 40


def test_errors_assumptions_and_warnings_are_said_in_options(tmp_path, monkeypatch, capsys):
    from whyprompt.cli import main

    def told(*words):
        monkeypatch.setattr("sys.argv", ["whyprompt", "effect", str(tmp_path / "t.csv"), *words])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr()

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"arm": ["a", "b"] * 30, "x": [0, 1, 1, 0] * 15, "y": rng.normal(size=60)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = ("--treatment", "arm", "--outcome", "y", "--treated", "b", "--control", "a")
    code, printed = told(*asked)
    assert code == 2
    assert "give --confounders A,B or a graph, or --method naive for the plain difference" in printed.err
    code, printed = told(*asked, "--confounders", "x", "--method", "nearest")
    assert code == 0
    assert "--method NAME:tie_break=" in printed.out
    assert " tie_break=" not in printed.out
    frame.assign(item_id=np.repeat(np.arange(30), 2)).to_csv(tmp_path / "t.csv", index=False)
    code, printed = told(*asked, "--design", "paired")
    assert code == 0
    assert "items from one template need --cluster [" in printed.out
    # JSON has the library's own words: its keys are the library's too.
    code, printed = told(*asked, "--design", "paired", "--json")
    assert "need cluster=" in printed.out
