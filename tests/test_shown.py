"""Every result that a public function gives back shows itself: none is a wall of fields."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re

import pandas as pd
import pytest

import whyprompt as wp
from whyprompt._display import Shown
from whyprompt.errors import EstimationError
from whyprompt.results import Result

PARTS = ("", *(f".{name}" for name in ("answers", "effects", "graph", "mediation", "study", "trials")))
# What is given back to be handed on, and is no result: each says why.
NO_RESULTS = {
    "CausalGraph": "the question's graph, which prints as its arrows",
    "Estimate": "one number of a result: `told_repr` writes it",
    "BalanceRow": "one row of a result's table: `told_repr` writes it",
    "Implication": "one row of a result's table: `told_repr` writes it",
    "Path": "one row of a result's table: it prints as its arrows",
    "LocalModel": "a model",
    "PromptPair": "an input of the sweeps",
    "Method": "options, which their repr repeats",
    "Fit": "what a method hands to `estimate_effect`",
    "MatchedSet": "arrays that `Method.fit` hands on",
    "Recipe": "steps that are kept to be done again",
    "Step": "one of them",
    "Study": "a study's settings",
    "StudyError": "an error",
    "Floats": "arrays",
}


def given_back():
    """Give the names of the package's own classes that public functions and methods say they return."""
    found = set()
    for part in PARTS:
        module = importlib.import_module(f"whyprompt{part}")
        for name in module.__all__:
            one = getattr(module, name)
            calls = [one] if inspect.isfunction(one) else []
            if inspect.isclass(one):
                methods = inspect.getmembers(one, lambda f: inspect.isfunction(f) or inspect.ismethod(f))
                calls = [
                    f for key, f in methods if not key.startswith("_") and "whyprompt" in (f.__module__ or "")
                ]
            for call in calls:
                returned = str(inspect.signature(call).return_annotation)
                found |= set(re.findall(r"(?<![.\w])[A-Z]\w+", returned))
    return found - {
        "Any",
        "Array",
        "Bools",
        "Caliper",
        "DataFrame",
        "Head",
        "Iterator",
        "None",
        "Self",
        "Texts",
    }


def classes(kind):
    return {kind.__name__: kind} | {k: v for sub in kind.__subclasses__() for k, v in classes(sub).items()}


def test_every_result_that_is_given_back_is_shown():
    names = given_back()
    assert {"EffectResult", "HeadSearch", "StudyEffect", "RunResult", "Sweep"} <= names
    shown = classes(Shown)
    assert names - set(shown) - set(NO_RESULTS) - {"NDArray"} == set()
    for name in names & set(shown):
        assert dataclasses.is_dataclass(shown[name])
        assert shown[name].__repr__ is Shown.__repr__, f"{name} has a repr of its own"


def judged():
    rows = {"judge": [1, 1, 0, 0, 1, 0, 1, 0], "label": [1, 1, 0, 0, 1, 0, 0, 1]}
    return wp.agreement(pd.DataFrame(rows), "judge", "label")


def test_graphs_and_agreement_show_themselves(shows_itself):
    graph = wp.CausalGraph.parse("difficulty -> arm, score; arm -> score; arm -> prompt_tokens")
    shows_itself(graph.identify("arm", "score"))
    shows_itself(judged())
    assert judged().conf_int().iloc[0].tolist() == [judged().ci_low, judged().ci_high]


def test_a_study_and_its_answers_show_themselves(tiny_study, tmp_path, shows_itself):
    study = wp.load_study(tiny_study)
    shows_itself(wp.dry_run(study))
    shows_itself(wp.run_study(study, tmp_path / "out"))
    effect = wp.study_effect(study, wp.load_trials(study, tmp_path / "out"))
    inside = wp.study_mediation(study, tmp_path / "out", wp.load_trials(study, tmp_path / "out"))
    for found in (effect, inside, inside.main, inside.main.sweep, inside.capture, *inside.attention):
        shows_itself(found)
    assert effect.conf_int().equals(effect.main.conf_int())
    assert inside.plot().to_dict() == inside.main.inference.plot().to_dict()
    assert effect.plot("forest").to_dict() == effect.main.plot("effect").to_dict()


def test_logs_that_were_read_show_themselves(tmp_path, shows_itself):
    rows = [{"item_id": i, "arm": a, "score": (i + k) % 2} for i in range(20) for k, a in enumerate("ab")]
    pd.DataFrame(rows).to_csv(tmp_path / "log.csv", index=False)
    found = wp.read_trials(tmp_path / "log.csv")
    shows_itself(found)
    shows_itself(wp.log_effect(found))


def test_prepared_examples_show_themselves(tmp_path, shows_itself):
    from whyprompt.examples.explore import explore
    from whyprompt.examples.prepare import prepare_example1

    made = prepare_example1(tmp_path, source="generated", size=6, examples=2)
    shows_itself(made)
    shows_itself(explore(made.frame, made.examples))


def test_text_of_data_is_escaped_and_long_tables_end(shows_itself):
    rows = [wp.Estimate(label=f"<script>{k}", estimate=k / 7) for k in range(30)]
    found = Result(sentence="'a' < 'b' & more", parts=tuple(rows), warnings=("<b>careful</b>",))
    shows_itself(found)
    page = found._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "'a' &lt; 'b' &amp; more" in page
    assert "and 18 more rows" in page


def test_charts_go_by_the_fields_names_too():
    table = pd.DataFrame({"arm": [0, 1] * 40, "x": range(80), "y": [k % 7 for k in range(80)]})
    found = wp.estimate_effect(table, treatment="arm", outcome="y", confounders=["x"], method="ipw")
    assert found.plot("love").to_dict() == found.plot("balance").to_dict() == found.plot().to_dict()
    with pytest.raises(EstimationError, match="did you mean 'balance'") as error:
        found.plot("balence")
    assert (
        error.value.hint == "one of: balance (or love), overlap (or propensity, support), effect (or forest)"
    )
    with pytest.raises(EstimationError, match="did you mean 'forest'"):
        found.plot("forrest")
    # Where nothing was adjusted for there is no balance: the estimate is drawn unasked.
    plain = wp.estimate_effect(table, treatment="arm", outcome="y", method="naive")
    assert plain.plot().to_dict() == plain.plot("effect").to_dict()
    with pytest.raises(EstimationError, match="nothing was adjusted for"):
        plain.plot("love")
