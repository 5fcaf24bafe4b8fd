"""The notebooks as they are stored: run in order, without errors, with pictures, on the embedded model."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ["00_setup_and_theory", "01_example1_psm", "02_example2_mediation"]


def read(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code(name):
    return [c for c in read(name)["cells"] if c["cell_type"] == "code"]


def printed(cell):
    return "".join("".join(o["text"]) for o in cell["outputs"] if o["output_type"] == "stream")


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_ran_once_and_in_order_without_an_error(name):
    cells = code(name)
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    assert [o for c in cells for o in c["outputs"] if o["output_type"] == "error"] == []


@pytest.mark.parametrize("name", NAMES)
def test_exercises_have_checks_and_their_solutions_pass(name):
    checks = [c for c in code(name) if re.search(r"^\s*check\(", "".join(c["source"]), re.MULTILINE)]
    assert len(checks) == 3
    assert all(printed(c).startswith("Right:") for c in checks)


@pytest.mark.parametrize("name", NAMES)
def test_exercises_hide_their_solutions(name):
    cells = read(name)["cells"]
    asked = [n for n, c in enumerate(cells) if "exercise" in c["metadata"].get("tags", [])]
    assert len(asked) == 3
    for n in asked:
        question, below = "".join(cells[n]["source"]), "".join(cells[n + 1]["source"])
        variable = re.fullmatch(r"(\w+) = \.\.\.", question)[1]
        assert below.startswith("<details><summary>Solution</summary>")
        assert f"\n{variable} = " in below.split("```python")[1]


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_what_the_reader_learns_and_shows_pictures_as_png(name):
    first = "".join(read(name)["cells"][0]["source"])
    assert "What you will learn" in first
    pictures = [
        o["data"] for c in code(name) for o in c["outputs"] if "data" in o and "image/png" in o["data"]
    ]
    assert len(pictures) >= 5
    scripts = [
        key
        for c in code(name)
        for o in c["outputs"]
        for key in o.get("data", {})
        if "vega" in key or "javascript" in key
    ]
    assert scripts == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_was_run_at_full_size_on_the_embedded_model(name):
    text = "".join(printed(c) for c in code(name))
    assert "model: embedded | size: full" in text
    assert re.search(r"this notebook took \d+ s", text) is not None


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_a_machine_is_stored(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert re.findall(r"/(?:home|root|work|tmp|Users)/", text) == []


@pytest.mark.parametrize("name", NAMES)
def test_none_is_too_large_to_open(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_500_000


WORDS = {
    "00_setup_and_theory": (
        "ITE, ATE, ATT, SUTVA, positivity, unconfoundedness, backdoor, front-door, kernel, caliper, SMD, KS, "
        "MICE, MCAR, MAR, MNAR, common support, sequential ignorability, Baron and Kenny, moderation, "
        "temperature, ordinal, vocabulary, task_complexity, binning, outliers, scaling, bootstrap, Pearl, "
        "Rubin, Imbens, Rosenbaum, Stuart, Keele, Mackenzie, Schölkopf, Vaswani, Wei, Vig"
    ),
    "01_example1_psm": "ATT, ATE, SMD, bootstrap, Rosenbaum, Imbens, Stuart, Natural Instructions",
    "02_example2_mediation": (
        "sequential ignorability, Baron and Kenny, GSM8K, Vaswani, Wei, Vig, Pearl, task_complexity, thinks"
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_it_speaks_the_words_of_the_field(name):
    text = "".join("".join(c["source"]) for c in read(name)["cells"])
    assert [w for w in WORDS[name].split(", ") if w.lower() not in text.lower()] == []


def test_example_2_says_that_it_read_gsm8k_and_a_chain_that_the_model_wrote():
    text = "".join(printed(c) for c in code("02_example2_mediation"))
    assert "Read from REAL files of GSM8K" in text
    assert "chains: " in text


def test_example_1_says_that_it_read_natural_instructions():
    assert "REAL files of Natural Instructions" in "".join(printed(c) for c in code("01_example1_psm"))


def test_matching_in_example_1_balanced_every_covariate():
    text = "".join(printed(c) for c in code("01_example1_psm"))
    found = re.search(r"(\d+) of (\d+) covariates under 0\.1", text)
    assert found is not None
    assert found.group(1) == found.group(2)


def test_recorded_figures_of_other_tools_name_their_versions_and_command():
    recorded = json.loads((FOLDER / "crosscheck_example1.json").read_text(encoding="utf-8"))
    assert recorded["versions"]["dowhy"] == "0.14"
    assert recorded["versions"]["causalml"] == "0.15.5"
    assert "execute.py" in recorded["command"]
    assert {e["tool"] for e in recorded["parts"]} == {"whyprompt", "DoWhy", "CausalML"}
    assert re.fullmatch(r"[0-9a-f]{64}", recorded["log"])


def test_the_caliper_of_example_1_is_one_whose_placebo_arms_show_nothing():
    text = "".join(printed(c) for c in code("01_example1_psm"))
    assert "the widest caliper that passes: " in text
    assert "passes - With the arm drawn anew" in text or "doubtful - With the arm drawn anew" in text
