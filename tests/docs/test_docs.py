"""What the README and the documentation say is so: links, names, flags, files, and code that runs."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import follow
import pytest
import yaml

import whyprompt as wp

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
PUBLIC = (
    "whyprompt",
    "whyprompt.answers",
    "whyprompt.effects",
    "whyprompt.graph",
    "whyprompt.mediation",
    "whyprompt.charts",
    "whyprompt.study",
    "whyprompt.trials",
    "whyprompt.trials.prompts",
)


def name(path):
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else str(path)


def blocks(path, language):
    """Give the code blocks of a page in one language; '' is a block that names none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [code for kind, code in found if kind == language]


def commands(path):
    """Give every command line of a page, from blocks and from inline code, as a list of words."""
    text = path.read_text(encoding="utf-8")
    lines = [line for code in blocks(path, "") for line in code.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"(?<!`)`((?:whyprompt|make) [^`\n]+)`", text)
    for line in lines:
        for part in line.split("#")[0].split("&&"):
            if part.strip().startswith(("whyprompt ", "make ")):
                yield shlex.split(part)


def verbs():
    """Give every verb of the command line with the options it takes."""
    import typer

    from whyprompt.cli import app

    root = typer.main.get_command(app)
    found = {}
    for verb, command in root.commands.items():
        inner = getattr(command, "commands", None)
        for key, one in {verb: command}.items() if inner is None else inner.items():
            words = verb if inner is None else f"{verb} {key}"
            found[words] = {o for p in one.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
    return found


# ------------------------------------------------------------------------------------------- prose
@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in heads}
            assert anchor in slugs, f"{target}: {sorted(slugs)}"


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_files_that_are_named_are_there(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:src|tests|studies|notebooks|benchmarks|docs)/[\w./-]*", text)
    for file in {n.rstrip("./") for n in named}:
        assert (ROOT / file).exists(), file


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in PAGES:
        assert f": {path.relative_to(ROOT / 'docs')}\n" in menu, path


# --------------------------------------------------------------------------------------- reference
def documented():
    pages = "\n".join(p.read_text(encoding="utf-8") for p in PAGES)
    return re.findall(r"^::: (\S+)$", pages, re.MULTILINE)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_holds_every_public_name(module):
    own = set(importlib.import_module(module).__all__) - {"__version__"}
    # What the front door has is written under that name, whichever part it comes from.
    names = {f"whyprompt.{n}" if n in wp.__all__ else f"{module}.{n}" for n in own}
    assert sorted(names - set(documented())) == []


def test_what_the_reference_holds_exists_once():
    found = documented()
    assert len(found) == len(set(found))
    for one in found:
        module, _, member = one.rpartition(".")
        assert hasattr(importlib.import_module(module), member), one


# ------------------------------------------------------------------------------------ command line
@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_commands_have_verbs_and_options_that_exist(path):
    known = verbs()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for tool, *words in commands(path):
        plain = [w for w in words if not w.startswith("-") and "=" not in w]
        if tool == "make":
            assert set(plain) <= targets, words
            continue
        if words[0] in {"VERB", "--help", "--install-completion"}:
            continue
        verb = next((v for v in known if words[: len(v.split())] == v.split()), None)
        assert verb is not None or words == ["data"], words
        for option in (w.split("=")[0] for w in words if w.startswith("--")):
            assert option in known[verb] | {"--help"}, f"{verb} {option}"


def test_make_help_gives_each_target_a_line_as_it_is_written():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = dict(re.findall(r"^([a-z-]+):.*## +(.*)$", text, re.MULTILINE))
    assert any(":" in words for words in told.values())
    out = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    assert dict(line.split(maxsplit=1) for line in out.splitlines()) == told


def test_the_page_of_the_command_line_names_every_option_and_no_other():
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    sections = {
        "init": ["init"],
        "run": ["run"],
        "effect": ["effect"],
        "mediate and report": ["mediate", "report"],
        "compare": ["compare"],
        "import": ["import"],
        "export": ["export"],
        "data": ["data table", "data example1", "data example2"],
        "schema, doctor and skill": ["schema", "doctor", "skill"],
    }
    assert set(parts) == set(sections)
    known = verbs()
    assert sorted(itertools.chain(*sections.values())) == sorted(known)
    for section, of in sections.items():
        written = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", parts[section]))
        assert written == set().union(*(known[v] for v in of)), section


def test_the_page_of_the_command_line_names_every_option_of_a_method_a_design_and_a_check():
    from whyprompt.cli.effect_checks import CHECKS
    from whyprompt.effects.designs.make import DESIGNS, design_options
    from whyprompt.effects.methods.make import METHODS, option_kinds

    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for method in METHODS:
        told = " ".join(row for row in rows if f"`{method}`" in row)
        for option, kind in option_kinds(method).items():
            assert kind == "object" or re.search(rf"`{option}\b", told), f"{method} {option}"
    for design in DESIGNS:
        told = next(row for row in rows if f"`--design {design}:" in row)
        assert all(re.search(rf"\b{option}\b", told) for option in design_options(design)), design
    for check, options in CHECKS.items():
        told = next(row for row in rows if f"`--check {check}" in row)
        assert all(re.search(rf"\b{option}\b", told) for option in options), check


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_options_of_benchmarks_exist(path):
    for script, line in re.findall(r"python (benchmarks/\w+\.py)([^`\n]*)", path.read_text(encoding="utf-8")):
        code = (ROOT / script).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z-]+", line):
            assert f'"{option}"' in code, f"{script} {option}"


# ------------------------------------------------------------------------------------------ studies
BASE = {
    "name": "base",
    "question": "Does it?",
    "items": [{"source": "reasoning_gym", "dataset": "chain_sum"}],
    "arms": {
        "direct": {"kind": "direct"},
        "few_shot": {"kind": "few_shot"},
        "worked": {"kind": "chain_of_thought", "reasoning": "worked"},
        "other": {"kind": "chain_of_thought", "reasoning": "other"},
    },
}
YAML = [
    pytest.param(path, code, id=f"{name(path)}-{number}")
    for path in TEXTS
    for number, code in enumerate(blocks(path, "yaml"))
]


@pytest.mark.parametrize(("path", "code"), YAML)
def test_studies_and_parts_of_studies_are_valid(path, code):
    from whyprompt.study import Study

    part = yaml.safe_load(code)
    whole = {"name", "question", "items", "arms"} <= set(part)
    # Items alone may leave no pool for shots.
    rest = BASE | {"arms": {"direct": {"kind": "direct"}}} if set(part) == {"items"} else BASE
    Study.model_validate(part if whole else rest | part)
    if path.name == "tutorial.md":
        from whyprompt.trials.starting import study_text

        held = yaml.safe_load(study_text(None, target=Path("sums.yaml")))
        assert part == {key: held[key] for key in part}


# ----------------------------------------------------------------------------------- code that runs
@pytest.mark.slow
@pytest.mark.parametrize("path", follow.PAGES[1:], ids=name)
def test_a_page_can_be_followed_in_an_empty_folder(path, tmp_path, monkeypatch, tiny_model):
    """Every command and every snippet, in the page's order; of models and studies small ones stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHYPROMPT_CROSSCHECK_PYTHON", str(follow.PEERS))
    follow.lay_out(tmp_path, tiny_model)
    done = follow.follow(path, tmp_path, tiny_model)
    if path.name == "report.md":
        assert {"balance.svg", "overlap.png", "for_a_colleague.html"} <= {p.name for p in tmp_path.iterdir()}
    if path.name == "effect-from-table.md":
        shown = [code.strip() for code in blocks(path, "") if code.startswith("estimate ")]
        assert shown
        assert all(line in done[0]["out"] for line in shown)


def test_what_is_not_followed_is_little_and_has_its_reason():
    every = [(kind, text) for path in follow.PAGES for kind, text in follow.steps(path)]
    for kind, reasons in (("command", follow.NOT_DONE), ("python", follow.NOT_RUN)):
        texts = [text for k, text in every if k == kind]
        assert [part for part in reasons if not any(part in text for text in texts)] == [], "said of nothing"
    code = [text for kind, text in every if kind == "python"]
    assert len([text for text in code if any(part in text for part in follow.NOT_RUN)]) <= 2 < len(code) / 10
    verbs = [text for kind, text in every if text.startswith("whyprompt ")]
    left = [text for text in verbs if any(part in text for part in follow.NOT_DONE)]
    assert len(left) <= len(verbs) / 3
    # Nothing that looks like a command escapes the reader that follows.
    for path in follow.PAGES:
        blank = "\n".join(blocks(path, "")).replace("\\\n", " ")
        shown = re.findall(r"^whyprompt .+", blank, re.MULTILINE)
        assert len(shown) <= sum(text.startswith("whyprompt ") for _, text in follow.steps(path))


def test_no_code_of_ours_stands_where_nothing_runs_it():
    """Blocks of other tools have other tags; pages whose blocks nobody follows have no Python."""
    run = {*follow.PAGES, *(ROOT / "docs" / "howto" / "tools").glob("*.md")}
    for path in TEXTS:
        found = re.findall(
            r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        for tag, code in found:
            if tag not in {"", "python"}:
                assert not re.search(r"^(import|from) whyprompt|^\s*whyprompt ", code, re.MULTILINE), path
            if tag == "python":
                assert path in run, path
        assert len(found) * 2 == len(re.findall(r"^ *```", path.read_text(encoding="utf-8"), re.MULTILINE))


SNIPPETS = blocks(ROOT / "README.md", "python")


@pytest.mark.slow
@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
def test_python_of_the_readme_runs_as_it_stands(code, tmp_path, tiny_model):
    """Each by itself, in an empty folder and a process of its own: as a reader pastes it.

    But for the embedded model, with which the heads take minutes: a tiny one stands in for it.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            code.replace('load_model("embedded")', f"load_model({str(tiny_model)!r})"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= code.count("print(") > 0
    assert "embedded" not in code or 'load_model("embedded")' in code


def test_the_recipe_of_the_textbook_gives_another_tools_figure():
    """The page's code, beside statsmodels' doubly robust estimate from models of all rows."""
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.treatment.treatment_effects import TreatmentEffect

    page = (ROOT / "docs" / "howto" / "choose-estimator.md").read_text()
    code = next(
        block
        for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if "textbook" in block
    )
    made: dict[str, object] = {}
    exec(code, made)  # noqa: S102
    rows = made["frame"]
    rows = rows[rows["arm"].isin(["few_shot", "direct"])]
    treated, y = (rows["arm"] == "few_shot").to_numpy(float), rows["correct"].to_numpy(float)
    kinds = pd.get_dummies(rows["task_type"], drop_first=True).to_numpy(float)
    X = np.column_stack([np.ones(len(rows)), kinds, rows["question_tokens"]])
    known = TreatmentEffect(sm.OLS(y, X), treated, results_select=sm.Logit(treated, X).fit(disp=0))
    assert made["textbook"].estimate == pytest.approx(known.aipw(return_results=False)[0], rel=1e-8)
