"""What goes out with a release says one version and one thing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import whyprompt as wp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_everywhere():
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "src/whyprompt/_version.py"
    cited = yaml.safe_load(read("CITATION.cff"))
    latest, date = re.findall(r"^## \[(\d[\w.]*)\] - (\d{4}-\d\d-\d\d)$", read("CHANGELOG.md"), re.MULTILINE)[
        0
    ]
    assert wp.__version__ == cited["version"] == latest
    assert cited["date-released"] == date
    # Each version's documentation says which it is, on every page.
    assert f"whyprompt {wp.__version__}" in read("mkdocs.yml")
    # And is laid under that name; `.ci/docs` does so, and looks at it in a browser.
    words = [shutil.which("make"), "--dry-run", "--directory", ROOT, "docs-version"]
    asked = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"mike deploy --update-aliases {wp.__version__} latest" in asked.stdout


def test_the_citation_has_what_its_format_asks_for():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)
    assert cited["license"] == PROJECT["project"]["license"]
    assert [one["name"] for one in cited["authors"]] == [one["name"] for one in PROJECT["project"]["authors"]]


def test_the_changelog_has_the_usual_form():
    text = read("CHANGELOG.md")
    assert re.match(r"# Changelog\n", text)
    heads = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert heads
    assert set(heads) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_forms_for_issues_are_readable_and_ask_for_what_there_is():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 4
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem == "config":
            continue
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids))
        assert all(part["attributes"]["label"] for part in form["body"])


def test_every_python_that_is_declared_is_in_the_table_of_the_release():
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert declared[0] == lowest
    table = read("CONTRIBUTING.md")
    for version in declared:
        assert re.search(rf"^\|[^|]*\b{re.escape(version)}\b", table, re.MULTILINE), version


CLIENT = """
import whyprompt as wp

result = wp.estimate_effect(wp.load_example("paired"), treatment="arm", outcome="score", design="paired",
                            treated="few_shot", control="direct")
reveal_type(result.conf_int())
reveal_type(result.sentence)
wp.load_example(3)
"""


def test_a_type_checker_sees_the_types(tmp_path):
    assert (ROOT / "src" / "whyprompt" / "py.typed").exists()
    (tmp_path / "client.py").write_text(CLIENT, encoding="utf-8")
    # With the project's settings and cache: what `make types` has read is not read again.
    words = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, str(tmp_path / "client.py")],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"client\.py:(\d+): \w+: (.+)", done.stdout)
    assert [line for line, _ in found] == ["6", "7", "8"], done.stdout
    assert "DataFrame" in found[0][1]
    assert "str" in found[1][1]
    assert "incompatible type" in found[2][1]
