"""The page of two studies: the difference of their effects, item by item where items are the same."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from page_reader import body, read
from report_study import make_frame, make_study
from scipy import stats

from whyprompt import study_effect
from whyprompt._words import format_number
from whyprompt.answers.two_studies import compare_effects, study_differences
from whyprompt.errors import DataError
from whyprompt.page.page import write_comparison

NAMES = ("first", "second")
CONTRAST = {"contrast": {"treated": "shots", "control": "direct"}}


def answered(name, *, seed=3, shift=0.0, **changes):
    study = make_study(
        name=name,
        mediation=None,
        effect={"outcome": "log_prob", "by": None, "contrast": {"treated": "shots", "control": "direct"}},
        **changes,
    )
    frame = make_frame(seed=seed)
    frame.loc[frame["arm"] == "shots", "log_prob"] += shift
    return study, frame, study_effect(study, frame)


def test_the_same_items_are_each_compared_with_themselves():
    one, other = answered("first")[2], answered("second", shift=0.3)[2]
    found = compare_effects(one, other, names=NAMES, same_items=True)
    change = other.main.items.changes - one.main.items.changes
    # All moved by the same: no spread is left, and so no error.
    assert found.overall is None
    rng = np.random.default_rng(1)
    frame = other.frame.copy()
    moved = frame["arm"] == "shots"
    frame.loc[moved, "log_prob"] += rng.normal(0, 0.2, int(moved.sum()))
    other = study_effect(answered("second")[0], frame)
    found = compare_effects(one, other, names=NAMES, same_items=True)
    change = other.main.items.changes - one.main.items.changes
    test = stats.ttest_1samp(change, 0)
    low, high = test.confidence_interval(0.95)
    row = found.overall
    assert [row.estimate, row.ci_low, row.ci_high] == pytest.approx([change.mean(), low, high])
    assert row.p_value == pytest.approx(test.pvalue)
    assert "Each of 48 items that both ran is compared with itself." in found.sentence
    # The same items held against themselves show more than two independent samples.
    apart = compare_effects(one, other, names=NAMES)
    assert apart.overall.std_error == pytest.approx(np.hypot(one.main.std_error, other.main.std_error))
    assert apart.overall.std_error > 2 * row.std_error
    assert "taken as independent" in apart.sentence
    back = compare_effects(other, one, names=NAMES[::-1], same_items=True)
    assert back.overall.estimate == pytest.approx(-row.estimate)


def test_the_difference_is_said_in_points_of_a_share_and_in_the_outcomes_own_units():
    one, other = answered("first")[2], answered("second", seed=4, shift=0.3)[2]
    found = compare_effects(one, other, names=NAMES)
    size = format_number(found.overall.estimate)
    assert f"is {size} higher in 'second' than in 'first' (95% interval " in found.sentence
    back = compare_effects(other, one, names=NAMES[::-1]).sentence
    assert f"is {size} lower in 'first' than in 'second' (95% interval -" in back
    settings = {"outcome": "exact_match", **CONTRAST}
    study = make_study(graph=None, mediation=None, effect=settings, outcomes=["exact_match"], reps=1)
    some = [study_effect(study, make_frame(seed=seed, reps=1)) for seed in (3, 4)]
    found = compare_effects(*some, names=NAMES)
    row = found.overall
    points = [format_number(100 * end) for end in (row.estimate, row.ci_low, row.ci_high)]
    assert found.sentence.startswith(
        f"The effect on 'exact_match' is {points[0]} points higher in 'second' than in 'first'"
        f" (95% interval {points[1]} to {points[2]} points, p "
    )


def test_different_outcomes_have_no_difference():
    one = answered("first")[2]
    study = make_study(
        graph=None,
        mediation=None,
        effect={"outcome": "exact_match", "contrast": {"treated": "shots", "control": "direct"}},
    )
    other = study_effect(study, make_frame())
    found = compare_effects(one, other, names=NAMES)
    assert found.overall is None
    assert "different outcomes, 'log_prob' and 'exact_match'" in found.sentence


@pytest.fixture
def run_both(tmp_path, monkeypatch):
    frames = {}
    for name, seed in zip(NAMES, (3, 4), strict=True):
        study, frame, _ = answered(name, seed=seed, reps=2 if name == "first" else 3)
        frames[name] = frame
        plan = study.model_dump(mode="json", exclude_defaults=True)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        (tmp_path / "runs" / name).mkdir(parents=True)
    monkeypatch.setattr("whyprompt.trials.run.load_trials", lambda study, _folder: frames[study.name])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_verb_writes_one_page_of_two_studies(run_both, run, monkeypatch):
    before = (run_both / "second.yaml").read_text()
    code, out, err = run("report", "first.yaml", "second.yaml")
    assert (code, err) == (0, "")
    assert "report.html" in out
    # The second study is no page to write.
    assert (run_both / "second.yaml").read_text() == before
    page = read((run_both / "report.html").read_text(encoding="utf-8"))
    assert ("h1", "Do 'first' and 'second' differ in their effect?") in page.headings
    assert [text for tag, text in page.headings if tag == "h2"][:3] == [
        "The answer", "Effects", "In what the studies differ",
    ]  # fmt: skip
    effects = [answered(name, seed=seed)[2].main for name, seed in zip(NAMES, (3, 4), strict=True)]
    rows = body(page.tables["two"])
    assert [rows[name][0] for name in NAMES] == [e.estimate for e in effects]
    assert rows["difference"][0] == pytest.approx(effects[1].estimate - effects[0].estimate)
    assert [text for text, _ in page.tables["differs"][1]] == ["reps", "2", "3"]
    assert len(page.ids) == len(set(page.ids))
    with pytest.raises(DataError, match="is one of the studies"):
        write_comparison(["first.yaml", "second.yaml"], ["runs/first", "runs/second"], target="first.yaml")
    monkeypatch.undo()
    monkeypatch.chdir(run_both)
    code, _, err = run("report", "first.yaml", "second.yaml")
    assert (code, "hint: run the study first: whyprompt run first.yaml" in err) == (2, True)
    code, _, err = run("report", "first.yaml", "first.yaml")
    assert (code, "first.yaml is given twice" in err) == (2, True)
    assert "What of it makes the effects differ, two studies cannot tell." in page.words


def test_what_a_difference_may_come_from_is_listed():
    one, other = make_study(), make_study(reps=3, seeds={"items": 4})
    assert [key for key, *_ in study_differences(one, other)] == ["reps", "seeds"]
    assert study_differences(one, make_study(name="x", question="y")) == []
