"""A tiny study, answered at both levels through the store, and the verbs on top of it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import whyprompt as wp
from whyprompt import load_trials, run_study, study_effect, study_mediation
from whyprompt.answers import load_mediation, run_effect, run_mediation
from whyprompt.answers.family import family_rows, family_words
from whyprompt.cli import main
from whyprompt.effects.result import EffectResult
from whyprompt.errors import EstimationError, MediationError, StoreError, StudyError
from whyprompt.page.related import related
from whyprompt.study import Study, load_study


@pytest.fixture
def ran(tiny_study, tmp_path):
    study = load_study(tiny_study)
    run_study(study, tmp_path / "out")
    return study, tmp_path / "out"


def test_paired_effect_is_the_mean_of_the_stored_differences(ran):
    study, folder = ran
    frame = load_trials(study, folder)
    answer = study_effect(study, frame)
    wide = frame.pivot_table(index="item_id", columns="arm", values="log_prob")
    d = wide["few_shot"] - wide["direct"]
    assert answer.main.estimate == pytest.approx(d.mean(), abs=1e-12)
    assert answer.main.std_error == pytest.approx(d.std(ddof=1) / len(d) ** 0.5, abs=1e-12)
    content = answer.to_dict()
    for key in ("estimand", "estimate", "std_error", "ci_low", "ci_high", "n_treated_used", "sentence"):
        assert content[key] is not None
    assert content["n_treated"] == content["n_control"] == len(d)
    assert set(content["outcomes"]) == {"exact_match"}
    json.dumps(content, allow_nan=False)


def test_several_outcomes_of_a_study_are_adjusted_for_their_number(ran):
    study, folder = ran
    answer = study_effect(study, load_trials(study, folder))
    main, other = answer.family
    assert (main.label, other.label) == ("log_prob", "exact_match")
    assert main.by == other.by == "few_shot - direct"
    assert (main.ci_low, main.ci_high) == (answer.main.ci_low, answer.main.ci_high)
    content = answer.to_dict()["family"]
    assert [row["p_adjusted"] for row in content] == [row.p_adjusted for row in answer.family]
    assert "at once" in answer.summary()
    assert all(row.p_value is not None for row in answer.family)
    assert answer.sentence.startswith(answer.main.sentence)
    assert "asks 2 questions of these data. Adjusted for their number (Holm)" in answer.sentence


def test_the_family_is_holms_and_bonferronis_by_hand():
    """Three questions: p times 3, 2 and 1, and quantiles of a third of the tail."""
    asked = {
        ("score", "cot"): result(2.0, 0.9, p=0.03),
        ("length", "cot"): result(5.0, 1.0, p=0.0001),
        ("score", "few"): result(0.1, 0.5, p=0.8, df=None),
        ("flat", "cot"): result(0.0, None, p=None),
    }
    rows = family_rows(asked, control="plain")
    assert [r.p_adjusted for r in rows] == [pytest.approx(0.06), pytest.approx(0.0003), 0.8, None]
    t, z = stats.t.isf(0.025 / 3, 30), stats.norm.isf(0.025 / 3)
    assert rows[0].simultaneous_low == pytest.approx(2.0 - 0.9 * t)
    assert rows[2].simultaneous_high == pytest.approx(0.1 + 0.5 * z)
    assert rows[3].simultaneous_low is None
    words = family_words(rows, level=0.95)
    assert "asks 3 questions" in words
    assert "0.060 for score, 0.00030 for length, 0.80 for score under few" in words
    assert "Counted so, score may not be claimed" in words
    assert family_words(rows[:1], level=0.95) == ""


@pytest.mark.parametrize("cluster", [None, "family"])
def test_intervals_at_once_are_of_a_questions_own_kind_and_nowhere_that_no_difference_of_risks_can_be(
    cluster,
):
    """Of few items a t interval of five questions passes 1; all of them alike have no t interval at all."""
    control = [0, 0, 0, 0, 0, 0, 1]
    frame = pd.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(7)] * 2,
            "family": [k // 2 for k in range(7)] * 2,
            "arm": ["plain"] * 7 + ["cot"] * 7,
            "right": [*control, *[1.0] * 7],
            "every": [*[0.0] * 7, *[1.0] * 7],
        }
    )

    def effect(outcome, level):
        return wp.estimate_effect(
            frame, treatment="arm", outcome=outcome, treated="cot", control="plain", design="paired",
            unit="item_id", cluster=cluster, level=level,
        )  # fmt: skip

    asked = {(name, f"cot {k}"): effect(name, 0.95) for k in range(3) for name in ("right", "every")}
    number = sum(r.p_value is not None for r in asked.values())
    for row in family_rows(asked, control="plain"):
        strict = effect(row.label, 1 - 0.05 / number)
        assert (row.simultaneous_low, row.simultaneous_high) == (strict.ci_low, strict.ci_high)
        assert (row.simultaneous_high is None) == (cluster is not None and row.label == "every")
        assert row.simultaneous_high is None or row.ci_high <= row.simultaneous_high <= 1
    assert "passes 1 or -1" not in family_words(family_rows(asked, control="plain"), level=0.95)


def test_an_interval_at_once_that_passes_what_can_be_is_told():
    frame = pd.DataFrame({"arm": ["plain"] * 6 + ["cot"] * 6, "right": [0.0] * 5 + [1.0] * 6 + [0.0]})
    one = wp.estimate_effect(
        frame, treatment="arm", outcome="right", treated="cot", control="plain", design="randomized"
    )
    assert one.ci_high is not None
    asked = {("right", f"cot {k}"): one for k in range(20)}
    rows = family_rows(asked, control="plain")
    assert rows[0].simultaneous_high > 1
    words = family_words(rows[:2], level=0.95)
    assert "Adjusted for their number, the interval of the risk difference passes 1 or -1" in words
    assert "(right, right under cot 1)" in words


def result(estimate, error, *, p, df=30):
    low, high = (None, None) if error is None else (estimate - 2 * error, estimate + 2 * error)
    overall = wp.Estimate(
        label="overall", estimate=estimate, std_error=error, ci_low=low, ci_high=high, p_value=p, df=df
    )
    return EffectResult(
        sentence="",
        overall=overall,
        treatment="arm",
        outcome="score",
        treated="cot",
        control="plain",
        estimand="ate",
        method="ipw",
        ess_treated=9.0,
        ess_control=9.0,
        std_error_method="",
    )


def test_effect_by_task_type_is_in_the_summary(ran):
    study, folder = ran
    text = study_effect(study, load_trials(study, folder)).summary()
    assert "sum" in text
    assert "count" in text


def test_audit_holds_the_draw_against_the_same_items(ran):
    study, folder = ran
    settings = {"assignment": {"difficulty": 0.7}, "method": "overlap", "draws": 20}
    changed = study.model_copy(
        update={
            "effect": study.effect.model_validate(
                {**study.effect.model_dump(), "audit": settings, "confounders": ["difficulty"]}
            )
        }
    )
    answer = study_effect(changed, load_trials(study, folder))
    assert answer.draw is not None
    assert answer.audit is not None
    assert {r.label for r in answer.audit.parts} >= {"naive", "overlap"}
    # The truth of the audit is the paired effect of the study.
    assert answer.audit.estimate == pytest.approx(answer.main.estimate, abs=1e-12)


@pytest.mark.parametrize(
    ("outcome", "reps", "treated", "noise"),
    [
        ({"name": "log_prob"}, 1, {"kind": "few_shot", "draw": "per_item"}, "none"),
        ({"name": "log_prob"}, 3, {"kind": "few_shot"}, "none"),
        ({"name": "log_prob"}, 3, {"kind": "few_shot", "draw": "per_item"}, "independent"),
        ({"name": "log_prob"}, 3, {"kind": "few_shot", "draw": "per_rep"}, "shared"),
        ({"name": "log_prob"}, 1, {"kind": "chain_of_thought", "reasoning": "generated"}, "independent"),
        ({"name": "log_prob"}, 3, {"kind": "chain_of_thought", "reasoning": "other"}, "independent"),
        ({"name": "numeric_match"}, 1, {"kind": "format", "format": "json"}, "independent"),
        ({"name": "own", "call": "module:function", "needs": "scores"}, 1, {"kind": "direct"}, "independent"),
    ],
)
def test_only_scored_outcomes_of_fixed_prompts_are_said_to_be_without_noise(outcome, reps, treated, noise):
    arms = {"direct": {"kind": "direct"}, "changed": treated}
    rows = [
        {"item_id": f"i{k}", "arm": arm, "rep": rep, "task_type": "t", outcome["name"]: float(k + at + rep)}
        for k in range(6)
        for at, arm in enumerate(arms)
        for rep in range(reps)
    ]
    study = Study.model_validate(
        {
            "name": "noise",
            "question": "What is known of one item?",
            "items": [{"source": "reasoning_gym", "dataset": "chain_sum", "size": 6}],
            "arms": arms,
            "outcomes": [outcome],
            "reps": reps,
            "effect": {
                "outcome": outcome["name"],
                "contrast": {"treated": "changed", "control": "direct"},
            },
        }
    )
    assert study_effect(study, pd.DataFrame(rows)).main.items.noise == noise


def _audited(study, graph=None, **settings):
    audit = {"assignment": {"difficulty": 0.7}, "method": "overlap", "draws": 20, **settings}
    effect = study.effect.model_validate({**study.effect.model_dump(), "audit": audit})
    return study.model_copy(update={"effect": effect, "graph": graph})


def test_graph_chooses_what_the_audit_adjusts_for(ran):
    study, folder = ran
    text = "difficulty -> arm; difficulty -> log_prob; question_tokens -> log_prob; arm -> log_prob"
    answer = study_effect(_audited(study, graph=text), load_trials(study, folder))
    assert answer.confounders == ("difficulty",)


def test_graph_without_the_treatment_is_refused(ran):
    study, folder = ran
    changed = _audited(study, graph="difficulty -> log_prob")
    with pytest.raises(StudyError, match="no node 'arm'"):
        study_effect(changed, load_trials(study, folder))


def test_graph_that_identifies_nothing_stops_the_audit_and_not_the_pairs(ran):
    study, folder = ran
    frame = load_trials(study, folder)
    text = "skill -> arm; skill -> log_prob; arm -> log_prob"
    with pytest.raises(StudyError, match="no measured columns identify"):
        study_effect(_audited(study, graph=text), frame)
    # Both arms were run on every item: nothing hidden can confound that.
    paired = study_effect(study.model_copy(update={"graph": text}), frame)
    assert paired.main.estimate == study_effect(study, frame).main.estimate


def test_audit_settings_that_its_method_does_not_take_are_refused(ran):
    study, folder = ran
    with pytest.raises(EstimationError, match="caliper"):
        study_effect(_audited(study, method={"overlap": {"caliper": 0.2}}), load_trials(study, folder))


def test_mediation_decomposes_the_stored_total_effect(ran):
    study, folder = ran
    frame = load_trials(study, folder)
    answer = study_mediation(study, folder, frame)
    sweep = answer.main.sweep
    assert sweep.n_layers * sweep.n_heads == 8
    assert np.allclose(sweep.te[:, None], sweep.nie + sweep.nde, atol=1e-9)
    stored = frame.pivot_table(index="item_id", columns="arm", values="log_prob").loc[list(sweep.item_ids)]
    # Both levels look at the same prompts: the sweep's clean runs are the stored trials.
    assert np.allclose(sweep.te, stored["few_shot"] - stored["direct"], atol=1e-4)
    content = answer.to_dict()
    assert len(content["heads"]) == 8
    for key in ("layer", "head", "nie", "nde", "ci_low", "ci_high", "q_value"):
        assert key in content["heads"][0]
    json.dumps(content, allow_nan=False)
    assert 0 < answer.main.sweep.floor < 1e-3
    assert answer.to_dict()["numerical_floor"] == answer.main.sweep.floor
    said = f"Numerical floor {answer.main.sweep.floor:.1g}: the most by which a run with nothing patched"
    assert said in answer.summary()
    assert answer.to_dict()["notes"] == list(answer.notes)


def test_mediation_resumes_after_a_stop_with_the_same_numbers(ran, monkeypatch):
    study, folder = ran
    frame = load_trials(study, folder)
    from whyprompt.answers import saved as _saved

    undisturbed = study_mediation(study, folder, frame).main.sweep
    lines = next(folder.glob("mediation/*/few_shot-direct.jsonl"))
    kept = lines.read_text().splitlines()
    # Killed in the middle of the fourth line.
    lines.write_text("\n".join(kept[:3]) + "\n" + kept[3][:25])
    (lines.parent / "rest.json").unlink()
    written = []
    original = _saved.Saved.keeper

    def counting(self, contrast):
        keep = original(self, contrast)
        return lambda one: (written.append(one.item_id), keep(one))[1]

    monkeypatch.setattr(_saved.Saved, "keeper", counting)
    again = study_mediation(study, folder, frame).main.sweep
    assert len(written) == len(kept) - 3
    # What was kept is taken over; what is run again stands in other batches, which moves its last digits.
    order = [undisturbed.item_ids.index(i) for i in again.item_ids]
    assert np.array_equal(again.y10[:3], undisturbed.y10[order][:3])
    np.testing.assert_allclose(again.y10, undisturbed.y10[order], rtol=0, atol=1e-5)
    assert load_mediation(study, folder, frame) is not None


def test_sites_beside_the_heads_are_swept_kept_and_told(ran):
    study, folder = ran
    frame = load_trials(study, folder)
    wider = {"sites": ["mlp", "resid 1", "neuron 0.3"], "tokens": "suffix", "items_per_task": 3}
    settings = type(study.mediation).model_validate(study.mediation.model_dump() | wider)
    study = study.model_copy(update={"mediation": settings})
    answer = study_mediation(study, folder, frame)
    sweep = answer.main.sweep
    assert sweep.labels[-4:] == ("mlp 0", "mlp 1", "resid 1", "neuron 0.3")
    np.testing.assert_allclose(sweep.nde[:, sweep.labels.index("resid 1")], 0, atol=1e-5)
    assert {row["site"] for row in answer.to_dict()["sites"]} == {"mlp 0", "mlp 1", "resid 1", "neuron 0.3"}
    assert answer.to_dict()["tokens"] == "suffix"
    assert answer.comparison is None
    assert "attention is measured at the answer positions" in answer.comparison_note
    again = load_mediation(study, folder, frame)
    assert again.to_dict() == answer.to_dict()
    assert again.main.sweep.sites == sweep.sites


def test_a_set_of_a_study_may_mix_what_it_sweeps(ran):
    study, folder = ran
    frame = load_trials(study, folder)
    wider = {"sites": ["mlp", "resid"], "set_of": ["mlp", "head 0"], "max_heads": 40, "items_per_task": 4}
    settings = type(study.mediation).model_validate(study.mediation.model_dump() | wider)
    study = study.model_copy(update={"mediation": settings})
    answer = study_mediation(study, folder, frame)
    assert {name.partition(".")[0] for name in answer.search.path} <= {"mlp 0", "mlp 1", "head 0"}
    assert "mlp" in answer.search.sentence
    again = load_mediation(study, folder, frame)
    assert again.search.path == answer.search.path
    assert again.to_dict() == answer.to_dict()


def test_heads_are_related_where_a_study_asks_and_nothing_else_is_run_again(ran, monkeypatch):
    study, folder = ran
    frame = load_trials(study, folder)
    assert study_mediation(study, folder, frame).relations is None
    asked = study.model_copy(update={"mediation": study.mediation.model_copy(update={"relate": 3})})
    assert load_mediation(asked, folder, frame).relations is None
    with monkeypatch.context() as context:
        context.setattr("whyprompt.answers.internal.site_sweep", lambda *_, **__: pytest.fail("swept again"))
        answer = study_mediation(asked, folder, frame)
    found = answer.relations
    assert len(found["heads"]) == 3
    assert found["pairs"] == 3
    assert found.estimate == answer.main.inference.estimate
    for way, quantity in (("NIE", "nie"), ("pure NIE", "pure_nie")):
        for name in found["heads"]:
            one = answer.main.sweep.labels.index(f"head {name}")
            alone = answer.main.sweep.effect(quantity).mean(0)[one]
            assert found.part(name, by=f"head, {way}").estimate == pytest.approx(alone, abs=1e-5)
    assert (
        json.loads(json.dumps(answer.to_dict(), allow_nan=False))["relations"]["sentence"] == found.sentence
    )
    assert found.sentence in answer.summary()
    # Read again it is the same; a line that a kill cut short is run again, and only that.
    assert load_mediation(asked, folder, frame).relations.to_dict() == found.to_dict()
    lines = next(folder.glob("mediation/*/relate3.path.jsonl"))
    kept = lines.read_text().splitlines()
    lines.write_text("\n".join(kept[:-1]) + "\n" + kept[-1][:20])
    again = study_mediation(asked, folder, frame).relations
    assert len(lines.read_text().splitlines()) == len(kept) + 1
    assert again.estimate == pytest.approx(found.estimate, abs=1e-6)


def test_heads_are_related_by_a_study_file_and_in_place_of_its_own_keys(tiny_study, tmp_path):
    text = tiny_study.read_text()
    tiny_study.write_text(
        text.replace("items_per_task: 4", "items_per_task: 4, relate: 2, paths: direct_path")
    )
    run_study(load_study(tiny_study), tmp_path / "out")
    found = run_mediation(tiny_study, tmp_path / "out").relations
    assert found["mediator"] == "direct_path"
    other = run_mediation(tiny_study, tmp_path / "out", relate=3, paths="path").relations
    assert (len(found["heads"]), len(other["heads"]), other["mediator"]) == (2, 3, "path")
    blocks = {getattr(block, "name", None) or getattr(block, "text", ""): block for block in related(other)}
    assert other.sentence in blocks
    assert len(blocks["related-interaction"].rows) == 2 * 3
    assert len(blocks["related-joint"].rows) == 4
    assert len(blocks["related-joint"].head) == 5
    tiny_study.write_text(text.replace("items_per_task: 4", "relate: 1"))
    with pytest.raises(StudyError, match=r"mediation.relate"):
        load_study(tiny_study)


def test_paths_of_a_study_begin_where_it_says_and_the_effect_is_had_along_them(ran):
    study, folder = ran
    frame = load_trials(study, folder)
    wider = {"relate": 4, "senders": "all", "along": [["head 0.0", "head 1.1"], ["head 1.0"]]}
    settings = type(study.mediation).model_validate(study.mediation.model_dump() | wider)
    asked = study.model_copy(update={"mediation": settings})
    answer = study_mediation(asked, folder, frame)
    found = answer.relations
    n_heads = answer.main.sweep.n_heads
    # Every head below each of the four, and the path asked for where it is none of these.
    below = sum(n_heads * int(name.split(".")[0]) for name in found["heads"])
    assert found["paths"] == below + ("1.1" not in found["heads"])
    assert below > 0
    for way in ("NIE", "pure NIE"):
        rows = {row.label: row.estimate for row in found.parts if row.by == f"along, {way}"}
        assert list(rows) == ["0.0 -> 1.1", "1.0", "shared", "rest"]
        assert sum(rows.values()) == pytest.approx(found.estimate, abs=1e-9)
        alone = answer.main.sweep.effect({"NIE": "nie", "pure NIE": "pure_nie"}[way]).mean(0)
        one = alone[answer.main.sweep.labels.index("head 1.0")]
        assert rows["1.0"] == pytest.approx(one, abs=1e-5)
    assert "along, NIE" in answer.summary()
    assert load_mediation(asked, folder, frame).relations.to_dict() == found.to_dict()
    # What is asked of them is kept apart from what else was.
    plain = study.model_copy(update={"mediation": study.mediation.model_copy(update={"relate": 4})})
    assert load_mediation(plain, folder, frame).relations is None


def test_sites_and_tokens_stand_in_place_of_a_study_files_own(tiny_study, tmp_path):
    run_study(load_study(tiny_study), tmp_path / "out")
    with pytest.raises(MediationError, match="'head' is swept anyway"):
        run_mediation(tiny_study, tmp_path / "out", sites=["head"])
    answer = run_mediation(tiny_study, tmp_path / "out", sites=["resid 1"], tokens="suffix")
    assert (answer.main.sweep.labels[-1], answer.main.sweep.tokens) == ("resid 1", "suffix")
    assert any("end alike in" in note for note in answer.notes)


def test_mediation_of_changed_settings_is_not_mixed_with_the_old_one(ran):
    study, folder = ran
    frame = load_trials(study, folder)
    study_mediation(study, folder, frame)
    fewer = study.model_copy(update={"mediation": study.mediation.model_copy(update={"items_per_task": 3})})
    assert load_mediation(fewer, folder, frame) is None
    assert len(study_mediation(fewer, folder, frame).main.sweep.item_ids) == 6
    assert len(load_mediation(study, folder, frame).main.sweep.item_ids) == 8


def test_unknown_task_family_is_named(ran):
    study, folder = ran
    odd = study.model_copy(update={"mediation": study.mediation.model_copy(update={"tasks": ["poetry"]})})
    with pytest.raises(StudyError, match="'poetry'"):
        load_trials(odd, folder)


def test_arms_with_other_cues_cannot_be_compared_inside_the_model(tiny_study, tmp_path):
    text = tiny_study.read_text().replace("direct: {kind: direct}", "direct: {kind: direct, cue: 'Result:'}")
    tiny_study.write_text(text)
    with pytest.raises(StudyError, match="arm 'direct' ends in 'Result:'"):
        run_study(load_study(tiny_study), tmp_path / "out")
    # Without a mediation in the study its arms may end as they like, and cannot be swept.
    tiny_study.write_text(text.replace("mediation: {items_per_task: 4}\n", ""))
    study = load_study(tiny_study)
    run_study(study, tmp_path / "out")
    with pytest.raises(MediationError, match="cue"):
        study_mediation(study, tmp_path / "out", load_trials(study, tmp_path / "out"))


def test_nothing_was_run_yet(tiny_study, tmp_path):
    with pytest.raises(StoreError, match="run the study first"):
        run_effect(tiny_study, tmp_path / "none")
    with pytest.raises(StoreError, match="run the study first"):
        run_mediation(tiny_study, tmp_path / "none")


def _cli(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["whyprompt", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_verbs_in_order(tiny_study, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    code, text, _ = _cli(monkeypatch, capsys, "run", tiny_study, "--out", out, "--json")
    assert code == 0
    assert json.loads(text)["new_trials"] == 24
    code, text, _ = _cli(monkeypatch, capsys, "effect", tiny_study, "--out", out, "--json")
    assert code == 0
    assert json.loads(text) == json.loads((out / "effect.json").read_text())
    code, text, _ = _cli(monkeypatch, capsys, "mediate", tiny_study, "--out", out, "--json")
    assert code == 0
    heads = json.loads(text)["heads"]
    assert len(heads) == 8
    assert abs(heads[0]["nie"]) >= abs(heads[-1]["nie"])
    code, text, _ = _cli(monkeypatch, capsys, "report", tiny_study, "--out", out, "--json")
    assert code == 0
    assert json.loads(text)["bytes"] == (out / "report.html").stat().st_size
    code, text, _ = _cli(monkeypatch, capsys, "run", tiny_study, "--out", out, "--json")
    assert json.loads(text)["new_trials"] == 0


def test_mediate_before_run_is_a_message_and_exit_code_two(tiny_study, tmp_path, monkeypatch, capsys):
    code, text, message = _cli(monkeypatch, capsys, "mediate", tiny_study, "--out", tmp_path / "none")
    assert code == 2
    assert text == ""
    assert "run the study first" in message
    assert "Traceback" not in message


def test_a_randomized_study_gives_each_item_one_arm_and_a_difference_of_means(tiny_study, tmp_path):
    text = tiny_study.read_text().replace("size: 12", "size: 20") + "design: randomized\nreps: 2\n"
    tiny_study.write_text(text)
    study = load_study(tiny_study)
    result = run_study(study, tmp_path / "out")
    frame = load_trials(study, tmp_path / "out")
    assert result.trials == len(frame) == 40
    assert (frame.groupby(["item_id", "rep"])["arm"].nunique().eq(1)).all()
    assert frame["arm"].value_counts().min() >= 10  # 40 fair draws: fewer has a chance below 1 in 1,000
    answer = study_effect(study, frame)
    means = frame.groupby("arm")["log_prob"].mean()
    assert answer.main.estimate == pytest.approx(means["few_shot"] - means["direct"], abs=1e-12)
    assert "cluster" in answer.main.std_error_method
    assert "randomised" in answer.main.sentence
    assert {r.label for r in answer.main.parts} == {"sum", "count"}
    assert "rows" in answer.summary()


def test_an_observational_study_is_not_run(tiny_study, tmp_path):
    tiny_study.write_text(tiny_study.read_text() + "design: observational\n")
    with pytest.raises(StudyError, match="nothing to run"):
        run_study(load_study(tiny_study), tmp_path / "out")
