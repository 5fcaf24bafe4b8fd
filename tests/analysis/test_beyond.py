"""A study's heads beyond their sweep: outcomes of another scale, flips of what is written, directions."""

import json

import numpy as np
import pytest

from whyprompt import load_trials, run_study, study_mediation, write_report
from whyprompt.answers import load_mediation, run_mediation
from whyprompt.answers.beyond import flip, flips_of
from whyprompt.answers.saved import Saved
from whyprompt.errors import MediationError, StudyError
from whyprompt.mediation import Site, Sweep
from whyprompt.page.beyond import directions, flips
from whyprompt.study import Contrast, OutcomeSettings, load_study
from whyprompt.trials.models.load import load_model


@pytest.fixture
def ran(tiny_study, tmp_path):
    study = load_study(tiny_study)
    run_study(study, tmp_path / "out")
    return study, tmp_path / "out"


def asking(study, **keys):
    return study.model_copy(update={"mediation": study.mediation.model_copy(update=keys)})


@pytest.mark.parametrize("outcomes", ["[log_prob, exact_match]", "[log_prob, string_match]"])
def test_what_is_written_is_scored_as_the_study_scores_it(tiny_study, tmp_path, outcomes, monkeypatch):
    text = tiny_study.read_text().replace("[log_prob, exact_match]", outcomes)
    tiny_study.write_text(text.replace("items_per_task: 4", "items_per_task: 4, flips: 2"))
    study, folder = load_study(tiny_study), tmp_path / "out"
    run_study(study, folder)
    frame, told = load_trials(study, folder), []
    answer = study_mediation(study, folder, frame, progress=lambda *step: told.append(step[2]))
    name = outcomes.strip("[]").split(", ")[1]
    sweep = Saved.open(study, folder, frame).further("flips2")
    stored = frame.pivot_table(index="item_id", columns="arm", values=name).loc[list(sweep.item_ids)]
    # Both levels write the same texts: the clean ones are the stored trials.
    np.testing.assert_array_equal(sweep.y00, stored["direct"])
    np.testing.assert_array_equal(sweep.y11, stored["few_shot"])
    assert sweep.outcome == f"generated {name}"
    assert sweep.labels[-1] == "all together"
    assert len(sweep.labels) == 3
    assert any("8 items x (2 + 6 x 2) rows x at most" in text for text in told)
    found = answer.flips
    assert len(found.parts) == 6
    assert f"On {name} of what the model writes (risk differences)" in found.sentence
    assert found.sentence in answer.summary()
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=False))["flips"]["sentence"] == found.sentence
    assert found.to_dict() == load_mediation(study, folder, frame).flips.to_dict()
    shown = flips(found)
    assert len(shown[-1].rows) == 6
    assert shown[1].text == found.sentence
    page = write_report(tiny_study, folder).read_text()
    assert "What is written under a patch" in page
    assert f"on {answer.main.sweep.scale.split(' (')[0]}".replace("'", "&#39;") in page
    # Asked of sites by their names, nothing else is run again.
    with monkeypatch.context() as context:
        context.setattr("whyprompt.answers.internal.site_sweep", lambda *_, **__: pytest.fail("swept again"))
        other = study_mediation(asking(study, flips=["mlp 1"]), folder, frame)
    assert [row.label for row in other.flips.parts] == ["mlp 1"] * 2
    assert flips(None) == directions(None) == []


def test_a_patch_that_turns_right_into_wrong_lowers_the_score():
    """Ten items: all right under prompt 1, none under prompt 0; a head breaks three, and mends one."""
    lost, mended = np.arange(10) < 3, np.arange(10) == 9
    sweep = Sweep(
        y00=np.zeros(10),
        y11=np.ones(10),
        y10=1.0 - lost[:, None],
        y01=1.0 * mended[:, None],
        outcome="generated exact_match",
        item_ids=tuple("abcdefghij"),
        clusters=tuple("abcdefghij"),
        sets={"head 0.1": (Site("head", 0, 1),)},
    )
    found = flips_of(sweep, Contrast(treated="b", control="a"), level=0.95, random_state=0)
    nie, pure = (found.part("head 0.1", by=way) for way in ("NIE", "pure NIE"))
    assert (nie.estimate, nie["items_up"], nie["items_down"]) == (pytest.approx(0.3), 3, 0)
    assert (pure.estimate, pure["items_up"], pure["items_down"]) == (pytest.approx(0.1), 1, 0)
    assert "0 of 10 are right under 'a' and 10 of 10 are right under 'b'" in found.sentence
    set_under, other_way = found.sentence.split("set under 'b' to what it gives under 'a'")[1].split(
        "the other way round"
    )
    assert "raises the score of 0 items and lowers that of 3: NIE 0.3 (" in set_under
    assert "raises the score of 1 item and lowers that of 0: pure NIE 0.1 (" in other_way


def test_the_sentence_says_all_together_first_and_then_the_largest():
    lost = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]] * 3, dtype=float)
    items, names = tuple("abcdefghijkl"), ("head 0.2", "head 0.1", "all together")
    sweep = Sweep(
        y00=np.zeros(12),
        y11=np.ones(12),
        y10=1.0 - lost,
        y01=np.zeros((12, 3)),
        outcome="generated exact_match",
        item_ids=items,
        clusters=items,
        sets={name: (Site("head", 0, k),) for k, name in enumerate(names)},
    )
    told = flips_of(sweep, Contrast(treated="b", control="a"), level=0.95, random_state=0).sentence
    assert told.index("All together, set") < told.index("Head 0.1, set")
    assert "Head 0.2" not in told


@pytest.fixture
def handed(ran, monkeypatch):
    """Give what is handed to the sweep of written texts, and the model's codec."""
    study, folder = ran
    frame = load_trials(study, folder)

    def of(outcome):
        first = [o for o in study.outcomes if o.name == "log_prob"]
        asked = study.model_copy(update={"outcomes": [*first, OutcomeSettings(name=outcome)]})
        handed = {}

        def sweep(_, pairs, *__, **options):
            handed.update(options, pairs=pairs)
            raise MediationError("enough")

        monkeypatch.setattr("whyprompt.answers.beyond.generation_sweep", sweep)
        saved = Saved.open(asking(asked, flips=["mlp 1"]), folder, frame)
        lm = load_model(**study.model.model_dump())
        with pytest.raises(MediationError, match="enough"):
            flip(lm, saved, frame, lambda *_: None)
        return handed, lm.codec

    return of


def test_an_answer_that_goes_on_is_another(handed):
    given, codec = handed("exact_match")
    pair, score = given["pairs"][0], given["score"]
    (end, *_), (digit,) = codec.stop_ids, codec.tokens("7")
    right = [*pair.answer_ids]
    assert score(pair, [*right, end]) == score(pair, right) == 1
    assert score(pair, [*right, digit]) == score(pair, [digit, digit, end]) == score(pair, right[:-1]) == 0


def test_a_text_ends_where_a_trials_would(handed):
    given, codec = handed("string_match")
    (end, *_), stops = codec.stop_ids, given["stop"]
    assert stops([*codec.tokens("7"), end])
    assert stops([*codec.tokens("7\n")])
    assert not stops([*codec.tokens("7 and 8")])
    answer = [*given["pairs"][0].answer_ids]
    assert given["score"](given["pairs"][0], [*answer, *codec.tokens("\n")]) == 1


def test_a_stopped_flip_goes_on_where_it_was(ran):
    study, folder = ran
    frame, asked = load_trials(study, folder), asking(study, flips=1)
    whole = study_mediation(asked, folder, frame).flips
    lines = next(folder.glob("mediation/*/flips1.jsonl"))
    kept = lines.read_text().splitlines()
    lines.write_text("\n".join(kept[:-1]) + "\n" + kept[-1][:20])
    again = study_mediation(asked, folder, frame).flips
    assert len(lines.read_text().splitlines()) == len(kept) + 1
    assert again.to_dict() == whole.to_dict()


def test_directions_of_a_study(ran):
    study, folder = ran
    frame, asked = load_trials(study, folder), asking(study, directions=2)
    assert load_mediation(asked, folder, frame) is None
    answer = study_mediation(asked, folder, frame)
    found = answer.directions
    assert len(found["directions"]) == 2
    assert found.sentence in answer.summary()
    assert answer.to_dict()["directions"]["sentence"] == found.sentence
    again = load_mediation(asked, folder, frame)
    assert again.directions.to_dict() == found.to_dict()
    rows = directions(found)[-1].blocks[0].rows
    assert len(rows) == 4
    # A damaged file is computed again, and said.
    path, told = next(folder.glob("mediation/*/directions2.json")), []
    path.write_text("{}")
    mended = study_mediation(asked, folder, frame, progress=lambda *step: told.append(step[2]))
    assert any("is damaged" in text for text in told)
    assert mended.directions.estimate == pytest.approx(found.estimate, abs=1e-6)


@pytest.mark.parametrize("outcome", ["prob", "first_token"])
def test_a_study_on_another_scale(ran, outcome):
    study, folder = ran
    frame = load_trials(study, folder)
    answer = study_mediation(asking(study, outcome=outcome, relate=2), folder, frame)
    assert answer.outcome == outcome
    assert answer.main.sweep.scale in answer.sentence
    assert "risk differences" in answer.relations.sentence
    if outcome == "prob":
        plain = study_mediation(study, folder, frame).main.sweep
        np.testing.assert_allclose(answer.main.sweep.y10, np.exp(plain.y10), rtol=1e-4)
    assert load_mediation(asking(study, outcome=outcome), folder, frame).sentence == answer.sentence


def test_the_command_line_asks_for_all_of_it(tiny_study, tmp_path, run):
    out = str(tmp_path / "out")
    assert run("run", tiny_study, "--out", out)[0] == 0
    asked = ["--outcome", "prob", "--flips", "head 0.1,mlp 1", "--directions", "1"]
    content = json.loads(run("mediate", tiny_study, "--out", out, "--json", *asked)[1])
    assert content["outcome"] == "prob"
    assert {row["label"] for row in content["flips"]["parts"]} == {"head 0.1", "mlp 1", "all together"}
    assert len(content["directions"]["directions"]) == 1
    for wrong, said in (
        (["--outcome", "probability"], "--outcome 'probability' is not known"),
        (["--flips", "0"], "flips is 0"),
        (["--flips", "head 1"], "'head 1' names no single site"),
        (["--directions", "0"], "greater than or equal to 1"),
    ):
        code, _, err = run("mediate", tiny_study, "--out", out, *wrong)
        assert code == 2
        assert said in " ".join(err.split())


def test_what_cannot_be_asked_is_refused_before_the_model_is_loaded(ran, tiny_study, monkeypatch):
    study, folder = ran
    frame = load_trials(study, folder)
    for keys, said in (
        ("flips: 0", "mediation.flips"),
        ("flips: [head 1]", "'head 1' names no single site"),
        ("flips: []", "name at least one site"),
        ("directions: 0", "mediation.directions"),
        ("outcome: accuracy", "mediation.outcome"),
    ):
        tiny_study.with_name("other.yaml").write_text(
            tiny_study.read_text().replace("items_per_task: 4", f"items_per_task: 4, {keys}")
        )
        with pytest.raises(StudyError, match=said):
            load_study(tiny_study.with_name("other.yaml"))
    with pytest.raises(MediationError, match="has no wrong choice beside its answer"):
        study_mediation(asking(study, outcome="margin"), folder, frame)
    monkeypatch.setattr(
        "whyprompt.trials.models.load.load_model", lambda **_: pytest.fail("the model was loaded")
    )
    bare = study.model_copy(update={"outcomes": [o for o in study.outcomes if o.name == "log_prob"]})
    monkeypatch.setattr(Saved, "read", lambda _: None)
    saved = Saved.open(asking(study, flips=1), folder, frame)
    from whyprompt.answers.beyond import written_outcome

    assert written_outcome(saved.study).name == "exact_match"
    with pytest.raises(StudyError, match="no outcome of the study reads that"):
        written_outcome(bare)
    with pytest.raises(MediationError, match="flips is"):
        run_mediation(tiny_study, folder, flips=[])
