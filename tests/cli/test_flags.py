"""Messages of the library in the words of the command line: one rule, held over every message there is."""

import ast
import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.main import get_command

import whyprompt as wp
from whyprompt.cli import app
from whyprompt.cli.effect import inside_options
from whyprompt.cli.flags import in_flags, in_keys
from whyprompt.effects import METHODS
from whyprompt.errors import EstimationError
from whyprompt.study import study_json_schema

SOURCE = Path(__file__).parents[2] / "src" / "whyprompt"
# Rooms whose texts are no messages: pictures, pages, graphs' own notation, and the command line itself.
ROOMS = ("charts", "page", "examples", "cli", "graph/svg.py", "graph/notation.py")
EFFECT = typer.Context(get_command(app).commands["effect"])
OPTIONS = {option.name: option for option in EFFECT.command.params if option.param_type_name == "option"}
# The library's name of an option that has another.
OWN_NAMES = {"random_state": "seed", "m": "impute"}


def _words(page):
    text = re.sub(r"<(script|style).*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


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
        ("within=['a', 'b'] and auxiliary=", "--check placebo:within=a+b and --impute 20:auxiliary="),
        ("missing_outcome='impute', m=1", "--impute 20:missing_outcome=impute, --impute 1"),
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
        if file.relative_to(SOURCE).as_posix().startswith(ROOMS):
            continue
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
            missed = re.findall(r"(?<![\w.':{-])([a-z_]+)=(?!=)", outside)
            assert not {OWN_NAMES.get(n, n) for n in missed} & {*OPTIONS, *inside_options()}, (file, text)
            continue
        flags = set(re.findall(r"--[a-z-]+", said))
        assert flags <= known, (file, said)
        found += [(file, said)]
    assert len(found) > 40


def test_no_message_of_the_library_speaks_of_a_function_where_a_verb_does_the_same():
    """What has no verb is said to be Python's; names in quotes are the caller's own."""
    names = "|".join(name for name in wp.__all__ if name.islower() and "_" in name)
    translated = 0
    for file, text in messages():
        for said in (in_flags(text, EFFECT, inside_options()), in_keys(text)):
            outside = re.sub(r"(?<!\w)'[^']*'|\"[^\"]*\"", "", said) if " " in said else ""
            left = re.findall(rf"(?<![\w.])(?:{names})\b(?!(?:\([^()]*\))? \(in Python\))", outside)
            assert not left, (file, said)
            translated += said != text
    assert translated > 60


def test_a_study_is_spoken_to_in_its_keys():
    """Whatever a study has a key for is said as that key, and every key that is said exists."""
    schema = study_json_schema()
    seen = set()
    for file, text in messages():
        said = in_keys(text)
        for path in re.findall(r"\b(?:effect|mediation|seeds|items\.columns)(?:\.[A-Za-z_]+)+", said):
            if path in text:
                continue
            parts = [part for part in path.split(".") if part not in {"method", *METHODS}]
            assert all(f'"{part}"' in json.dumps(schema) for part in parts), (file, said)
            seen.add(path)
        outside = re.sub(r"(?<!\w)'[^']*'|\"[^\"]*\"", "", said)
        assert not re.search(r"(?<![\w.])(?:level|method|confounders|cluster|random_state)=(?!=)", outside), (
            said
        )
    assert len(seen) > 20


def test_a_study_that_cannot_be_answered_is_told_so_in_its_keys(run, tmp_path, monkeypatch):
    """From where a study is opened on, an error of any depth names keys."""
    import whyprompt.answers.verbs

    def fails(*_, **__):
        raise EstimationError("level=0.9 and caliper=0.2", hint="method='naive', or compare_arms")

    monkeypatch.setattr(whyprompt.answers.verbs, "run_effect", fails)
    study = tmp_path / "s.yaml"
    study.write_text("name: s\nquestion: q\nitems: q.csv\narms: [direct, few_shot]\n")
    code, _, err = run("effect", study)
    assert code == 2
    assert "effect.level: 0.9 and effect.method." in err
    assert "hint: effect.method: naive, or compare_arms (in Python)" in err


def test_errors_assumptions_and_warnings_are_said_in_options(tmp_path, monkeypatch, capsys):
    from whyprompt.cli import main

    def told(*words):
        monkeypatch.chdir(tmp_path)
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
    # So does a page of a log, whose verb has no such option, and Python's keeps its own.
    log = frame.assign(item_id=np.arange(60)).rename(columns={"y": "score"})
    log.assign(tone=rng.choice(["x", "y"], 60)).to_csv(tmp_path / "log.csv", index=False)
    monkeypatch.setattr("sys.argv", ["whyprompt", "report", "log.csv", "--confounders", "x"])
    with pytest.raises(SystemExit):
        main()
    page = _words(tmp_path / "report.html")
    assert "repeated items need a column of clusters" in page
    assert "log.csv: columns that may not be known beforehand" in page
    assert "only where --confounders NAME names them: 'x', 'tone'" in page
    assert "cluster=" not in page
    assert "confounders=" not in page
    found = wp.read_trials(tmp_path / "log.csv")
    effect = wp.log_effect(found, confounders=["x"])
    page = _words(wp.write_report(found, effect, target=tmp_path / "python.html"))
    assert "repeated items need cluster=" in page
    assert "only where confounders=... names them" in page
    # JSON has the library's own words: its keys are the library's too.
    capsys.readouterr()
    frame.assign(item_id=np.repeat(np.arange(30), 2)).to_csv(tmp_path / "t.csv", index=False)
    code, printed = told(*asked, "--design", "paired", "--json")
    assert "need cluster=" in printed.out
