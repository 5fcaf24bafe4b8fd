import json
import re
import textwrap
import tomllib
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from whyprompt._study_forms import KINDS
from whyprompt._study_settings import Method
from whyprompt.errors import StudyError
from whyprompt.study import EffectSettings, Study, load_study, study_json_schema

STUDIES = Path(__file__).resolve().parents[1] / "studies"

YAML = """\
name: pair
question: Do shots help?
model: {name: embedded, dtype: float32}
items:
  - source: reasoning_gym
    dataset: chain_sum
    size: 4
    settings: {min_terms: 2, max_terms: 3}
    difficulty: num_digits
  - source: file
    path: items.jsonl
    columns:
      difficulty: level
      covariates: [tone]
arms:
  direct: {kind: direct}
  shots:
    kind: few_shot
    shots: 2
    temperature: {low: 0.1, high: 1.5}
outcomes: [log_prob, {name: numeric_match}]
reps: 2
graph: |
  difficulty -> log_prob
  arm -> log_prob
effect:
  contrast: {treated: shots, control: direct}
seeds: {items: 3}
"""
TOML = '''\
name = "pair"
question = "Do shots help?"
outcomes = ["log_prob", {name = "numeric_match"}]
reps = 2
graph = """
difficulty -> log_prob
arm -> log_prob
"""
model = {name = "embedded", dtype = "float32"}
seeds.items = 3

[[items]]
source = "reasoning_gym"
dataset = "chain_sum"
size = 4
settings = {min_terms = 2, max_terms = 3}
difficulty = "num_digits"

[[items]]
source = "file"
path = "items.jsonl"

[items.columns]
difficulty = "level"
covariates = ["tone"]

[arms.direct]
kind = "direct"

[arms.shots]
kind = "few_shot"
shots = 2
temperature = {low = 0.1, high = 1.5}

[effect]
contrast = {treated = "shots", control = "direct"}
'''


def write(folder, text, name="study.yaml"):
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def problem(folder, text, name="study.yaml"):
    with pytest.raises(StudyError) as caught:
        load_study(write(folder, text, name))
    return str(caught.value)


def test_yaml_and_toml_give_the_same_study(tmp_path):
    a = load_study(write(tmp_path, YAML))
    b = load_study(write(tmp_path, TOML, "study.toml"))
    assert a == b
    assert a.trial_spec() == b.trial_spec()
    assert [o.name for o in a.outcomes] == ["log_prob", "numeric_match"]
    assert a.items[1].path == str((tmp_path / "items.jsonl").resolve())


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("question: Do", "qestion: Do", 2, "qestion: unknown key"),
        ("    size: 4", "    sise: 4", 7, "items.0.sise: unknown key"),
        ("      difficulty: level", "      dificulty: level", 13, "items.1.columns.dificulty: unknown key"),
        ("    shots: 2", "    shot: 2", 19, "arms.shots.shot: unknown key"),
        (
            "    shots: 2",
            "    shots: none",
            19,
            "arms.shots.shots: 'none' is not a whole number; write shots: 3",
        ),
        ("low: 0.1", "lo: 0.1", 20, "arms.shots.temperature.lo: unknown key"),
        ("{items: 3}", "{itms: 3}", 28, "seeds.itms: unknown key"),
        (
            "dtype: float32",
            "dtype: float31",
            3,
            "model.dtype: 'float31' is not known; did you mean 'float32'?",
        ),
        ("{name: numeric_match}", "{name: nmeric_match}", 21, "no built-in outcome 'nmeric_match'"),
        ("  direct: {kind: direct}", "  direct: {kind: drect}", 16, "arms.direct.kind: 'drect' is not known"),
        ("    dataset: chain_sum\n", "", 5, "items.0.dataset: required key is missing"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(tmp_path, old, new, line, key):
    assert old in YAML
    message = problem(tmp_path, YAML.replace(old, new))
    assert f"{tmp_path / 'study.yaml'}:{line}: " in message, message
    assert key in message


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("reps = 2", "rep = 2", "rep: unknown key"),
        ("size = 4", "sise = 4", "items.0.sise: unknown key"),
        ('difficulty = "level"', 'dificulty = "level"', "items.1.columns.dificulty: unknown key"),
        ("shots = 2", "shot = 2", "arms.shots.shot: unknown key"),
        ("low = 0.1", "lo = 0.1", "arms.shots.temperature.lo: unknown key"),
        ("seeds.items", "seeds.itms", "seeds.itms: unknown key"),
    ],
)
def test_toml_mistakes_have_their_line(tmp_path, old, new, key):
    text = TOML.replace(old, new, 1)
    message = problem(tmp_path, text, "study.toml")
    line = next(n for n, row in enumerate(text.splitlines(), start=1) if new in row)
    assert f"study.toml:{line}: {key}" in message


def test_text_of_several_lines_in_toml_is_no_table(tmp_path):
    text = TOML.replace("difficulty -> log_prob\n", "difficulty -> log_prob\n[nonsense]\nsize = 3\n")
    message = problem(tmp_path, text.replace('path = "items.jsonl"', 'pth = "x"'), "study.toml")
    line = next(n for n, row in enumerate(text.splitlines(), start=1) if row.startswith("path ="))
    assert f":{line}: items.1.pth: unknown key" in message


def test_every_mistake_is_reported_at_once(tmp_path):
    message = problem(tmp_path, YAML.replace("reps: 2", "rep: 2").replace("seeds:", "seed:"))
    assert "rep: unknown key" in message
    assert "seed: unknown key" in message


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name: [", "not valid YAML"),
        ("- a\n- b\n", "a study is a mapping"),
        ("", r"study\.yaml is empty"),
        ("# only a remark\n", r"study\.yaml is empty"),
        ("name: &a [*a]\n", r"study\.yaml: it holds itself"),
        ("[" * 3000, r"study\.yaml: it holds itself, by an alias \(\*\), or is nested too deeply"),
        ("name: a\nname: b\n", r"study\.yaml:2: name: key given twice"),
    ],
)
def test_what_is_no_study(tmp_path, text, match):
    with pytest.raises(StudyError, match=match):
        load_study(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(StudyError, match="no such file"):
        load_study(tmp_path / "absent.yaml")
    with pytest.raises(StudyError, match=r"\.yaml, \.yml or \.toml"):
        load_study(write(tmp_path, "x", "study.txt"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match=r"bytes\.yaml is not UTF-8 text \(byte 0\)"):
        load_study(tmp_path / "bytes.yaml")
    with pytest.raises(StudyError, match="is a folder"):
        load_study(tmp_path)
    with pytest.raises(StudyError, match="not valid TOML"):
        load_study(write(tmp_path, "a = ", "broken.toml"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"effect": {"outcome": "perplexity"}}, "'perplexity' is not among the outcomes"),
        ({"effect": {"contrast": {"treated": "shts", "control": "direct"}}}, "names the arm 'shts'"),
        ({"effect": {"contrast": {"treated": "direct", "control": "direct"}}}, "with itself"),
        ({"mediation": {"placebo": "plcebo"}}, "names the arm 'plcebo'"),
        (
            {"mediation": {"contrasts": [{"treated": "x", "control": "direct"}]}},
            r"mediation\.contrasts\.0\.treated\n +names the arm 'x'",
        ),
        ({"outcomes": ["log_prob", "log_prob"]}, "'log_prob' is listed twice"),
        ({"outcomes": [{"name": "arm", "call": "a:b"}]}, "column of the trial table"),
        ({"outcomes": [{"name": "mine", "call": "no colon"}]}, "call"),
        ({"arms": {"direct": {"kind": "direct"}, "shots": {"kind": "few_shot", "shots": 99}}}, "draws 99"),
        ({"arms": {}}, "at least 1 item"),
        ({"arms": {"bad name": {"kind": "direct"}}}, "pattern"),
        ({"items": []}, "at least 1 item"),
        ({"reps": 0}, "greater than or equal to 1"),
        (
            {"items": [{"source": "reasoning_gym", "dataset": "a", "levels": [{}], "difficulty": "b"}]},
            "both define",
        ),
        (
            {"items": [{"source": "file", "path": "a", "columns": {"covariates": ["log_prob"]}}]},
            "column of the trial table",
        ),
        (
            {
                "items": [{"source": "file", "path": "a", "columns": {"covariates": ["mine"]}}],
                "outcomes": ["log_prob", {"name": "mine", "call": "a:b"}],
            },
            "both an outcome and a covariate",
        ),
    ],
)
def test_what_does_not_fit_together(change, match):
    base = yaml.safe_load(YAML)
    del base["effect"]
    with pytest.raises(ValueError, match=match):
        Study.model_validate({**base, **change})


def test_a_temperature_range_is_ordered():
    base = yaml.safe_load(YAML)
    base["arms"]["shots"]["temperature"] = {"low": 1.0, "high": 0.5}
    with pytest.raises(ValueError, match="'low' must be below 'high'"):
        Study.model_validate(base)


def test_one_arm_compares_with_nothing():
    base = yaml.safe_load(YAML)
    del base["effect"], base["arms"]["shots"]
    with pytest.raises(StudyError, match="nothing to compare"):
        _ = Study.model_validate(base).contrast


def test_what_decides_the_trials_and_what_does_not(tmp_path):
    study = load_study(write(tmp_path, YAML))
    for text in (
        YAML.replace("Do shots help?", "Do they?"),
        YAML.replace("difficulty -> log_prob", "difficulty -> arm"),
        YAML.replace("{items: 3}", "{items: 3, analysis: 9}"),
        YAML.replace("name: embedded, dtype: float32", "name: embedded"),  # the model has its own fingerprint
    ):
        assert load_study(write(tmp_path, text)).trial_spec() == study.trial_spec()
    for text in (
        YAML.replace("shots: 2", "shots: 3"),
        YAML.replace("{items: 3}", "{items: 4}"),
        YAML.replace("reps: 2", "reps: 3"),
        YAML.replace("{name: numeric_match}", "{name: string_match}"),
    ):
        assert load_study(write(tmp_path, text)).trial_spec() != study.trial_spec()


def test_a_moved_study_keeps_its_trials(tmp_path):
    (tmp_path / "there").mkdir()
    here, there = load_study(write(tmp_path, YAML)), load_study(write(tmp_path / "there", YAML))
    assert here.trial_spec() == there.trial_spec()


def test_the_published_schema_is_the_models():
    assert json.loads((STUDIES / "schema.json").read_text(encoding="utf-8")) == study_json_schema()


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_studies_are_valid_and_match_the_schema(path):
    study = load_study(path)
    assert study.name == path.stem
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), study_json_schema())


def test_the_schema_accepts_and_refuses_what_the_model_does():
    check = jsonschema.Draft202012Validator(study_json_schema())
    check.check_schema(study_json_schema())
    assert check.is_valid(yaml.safe_load(YAML))
    assert check.is_valid(tomllib.loads(TOML))
    for old, new in (("reps: 2", "rep: 2"), ("[log_prob,", "[log_prb,"), ("kind: few_shot", "kind: fw_shot")):
        assert not check.is_valid(yaml.safe_load(YAML.replace(old, new)))


def test_the_arms_of_the_chain_of_thought_study():
    study = load_study(STUDIES / "chain_of_thought.yaml")
    assert {n: getattr(a, "reasoning", None) for n, a in study.arms.items()} == {
        "direct": None,
        "worked": "worked",
        "cut": "cut",
        "other": "other",
        "thinks": "generated",
    }
    assert study.mediation.placebo == "other"


def test_the_methods_of_a_study_are_those_of_the_library():
    from whyprompt.effects import METHODS

    assert get_args(Method) == METHODS


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (7.0, "arms.shots.temperature: 7.0: at most 5.0"),
        ("hot", "arms.shots.temperature: 'hot' is not a number; write temperature: 0.0"),
        (
            {"low": 0.1},
            "arms.shots.temperature.high: required key is missing; write temperature: {low: 0.0, high: 1.0}",
        ),
        ({"low": 1.0, "high": 0.5}, "arms.shots.temperature: 'low' must be below 'high'"),
    ],
)
def test_a_temperature_is_judged_as_what_it_is_written_as(tmp_path, value, said):
    base = yaml.safe_load(YAML)
    base["arms"]["shots"]["temperature"] = value
    message = problem(tmp_path, yaml.safe_dump(base))
    assert message.count("\n") == 0
    assert message.endswith(said)


def test_a_study_in_python_is_held_to_the_same(tmp_path):
    base = yaml.safe_load(YAML)
    for change in (
        {"seeds": {"items": -1}},
        {"seeds": {"items": True}},
        {"effect": {"level": float("nan")}},
        {"question": "half \ud83d"},
        {"items": [{"source": "reasoning_gym", "dataset": "a", "settings": {"x": float("inf")}}]},
    ):
        with pytest.raises(ValueError, match="validation error"):
            Study.model_validate({**base, **change})
    study = load_study(write(tmp_path, YAML))
    where = f"{tmp_path / 'study.yaml'}:"
    assert str(study.refusal([(("seeds", "items"), "is odd")])) == f"{where}28: seeds.items: is odd"
    # What the file does not hold stands where the keys around it do.
    assert str(study.refusal([(("effect", "by"), "is odd")])) == f"{where}26: effect.by: is odd"
    assert str(Study.model_validate(base).refusal([(("reps",), "is odd")])) == "study 'pair': reps: is odd"


def test_a_study_that_imports_code_is_refused_where_it_may_not(tmp_path):
    text = YAML.replace("{name: numeric_match}", '{name: mine, call: "a.b:c"}')
    assert load_study(write(tmp_path, text)).outcomes[1].call == "a.b:c"
    with pytest.raises(StudyError, match=r"study\.yaml:21: outcomes\.1\.call: imports and runs 'a\.b:c'"):
        load_study(write(tmp_path, text), code=False)
    load_study(write(tmp_path, YAML), code=False)


@pytest.mark.parametrize("where", ["audit", "effect"])
def test_an_estimand_that_the_method_has_not_is_refused_at_its_key(tmp_path, where):
    study = yaml.safe_load(YAML)
    if where == "audit":
        study["effect"]["audit"] = {"assignment": {"difficulty": 1.0}, "method": "optimal", "estimand": "ate"}
    else:
        study |= {
            "design": "observational",
            "effect": {**study["effect"], "method": {"optimal": {"ratio": 2}}},
        }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    with pytest.raises(StudyError, match=r"estimand: ate is not what optimal estimates: att, atc"):
        load_study(path)


SHORT = """\
name: short
question: Which of these helps?
items: questions.csv
model: gpt2
arms: [zero-shot, few_shot, cot, {kind: direct, name: warm, temperature: 0.7}, {terse: {kind: direct}}]
outcomes: [exact_match, numeric_match]
"""


def test_short_forms_are_stored_as_the_standard_ones(tmp_path):
    study = load_study(write(tmp_path, SHORT))
    assert {name: arm.kind for name, arm in study.arms.items()} == {
        "zero_shot": "direct",
        "few_shot": "few_shot",
        "cot": "chain_of_thought",
        "warm": "direct",
        "terse": "direct",
    }
    assert study.arms["warm"].temperature == 0.7
    assert study.effect.outcome == "exact_match"
    assert study.model.name == "gpt2"
    assert study.items[0].source == "file"
    assert study.items[0].size is None
    # A file in the long form says the same, to the letter.
    long = study.model_dump(mode="json", exclude={"items", "model"})
    again = Study.model_validate({**long, "items": [{"source": "csv", "path": "questions.csv"}]})
    assert again.trial_spec() == study.trial_spec()


def test_the_schema_accepts_the_short_forms_and_no_slip_in_them():
    check = jsonschema.Draft202012Validator(study_json_schema())
    check.check_schema(study_json_schema())
    short = yaml.safe_load(SHORT)
    right = [
        {},
        {"arms": {"direct": None, "cot": {"temperature": 0.5}, "mine": {"kind": "zero-shot"}, "x": "cot"}},
        {"arms": [{"name": "cot", "instruction": "Think."}, {"few_shot": {"shots": 5}}, {"kind": "direct"}]},
        {"items": [{"path": "a.csv", "size": "all"}, {"source": "csv", "path": "b"}], "outcomes": "log_prob"},
        {"items": {"dataset": "chain_sum"}},
    ]
    wrong = [
        {"arms": {"mine": None}},
        {"arms": {"format": None}},
        {"arms": {"mine": {"shots": 5}}},
        {"arms": ["direct", "cott"]},
        {"arms": [{"name": "mine"}]},
        {"arms": {"few_shot": {"shot": 5}}},
        {"items": {"path": "a"}},
        {"items": {"dataset": "chain_sum", "size": "all"}},
        {"outcomes": "log_prb"},
        {"model": 3},
    ]
    for said in right:
        Study.model_validate({**short, **said})
        assert check.is_valid({**short, **said}), said
    for said in wrong:
        with pytest.raises(ValidationError):
            Study.model_validate({**short, **said})
        assert not check.is_valid({**short, **said}), said


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_name_of_a_kind_is_known_to_the_schema(kind):
    check = jsonschema.Draft202012Validator(study_json_schema())
    more = {"format": {"format": "json"}, "template": {"template": "{{ question }}"}}.get(KINDS[kind], {})
    assert check.is_valid({**yaml.safe_load(SHORT), "arms": {"a": {"kind": kind, **more}, kind: more}})


@pytest.mark.parametrize("kind", ["cot", "COT", "chain-of-thought", "Chain of Thought", "zero_shot_cot"])
def test_a_kind_goes_by_the_names_that_the_field_has(kind):
    base = yaml.safe_load(YAML)
    del base["effect"]
    study = Study.model_validate({**base, "arms": {"direct": None, "thinks": {"kind": kind}, "cot": None}})
    assert [arm.kind for arm in study.arms.values()] == ["direct", "chain_of_thought", "chain_of_thought"]


def test_the_effect_is_of_the_first_outcome_unless_another_is_named():
    base = yaml.safe_load(YAML)
    for effect in ({}, {"by": None}, EffectSettings(by=None)):
        study = Study.model_validate({**base, "outcomes": ["numeric_match", "log_prob"], "effect": effect})
        assert study.effect.outcome == "numeric_match"
    named = {**base, "outcomes": ["numeric_match", "log_prob"], "effect": {"outcome": "log_prob"}}
    assert Study.model_validate(named).effect.outcome == "log_prob"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outcome": ["log_prob"]}, "outcome: unknown key; did you mean 'outcomes'?"),
        (
            {"arms": {"a": {"kind": "direct"}, "b": {"kind": "few shots"}}},
            "arms.b.kind: 'few shots' is not known; did you mean 'few_shot'?",
        ),
        (
            {"arms": {"a": {"kind": "direct"}, "b": {}}},
            "arms.b.kind: required key is missing; one of direct, few_shot",
        ),
        ({"arms": {"a": {"kind": "direct"}, "b": {"cue": "A:"}}}, "write kind: few_shot"),
        ({"arms": ["direct", "direct"]}, "arms.1: two arms are called 'direct': give each a name of its own"),
        ({"arms": 3}, "arms: 3 is not a mapping of keys; write arms: [direct, few_shot]"),
        (
            {"arms": {"bad name": {"kind": "direct"}}},
            "'bad name' is no name: a letter first, then letters, digits and _; write bad_name",
        ),
        (
            {"items": [{"source": "fil", "path": "x.csv"}]},
            "items.0.source: 'fil' is not known; did you mean 'file'?",
        ),
        ({"items": [{"dataset": "chain_sum", "sise": 3}]}, "items.0.sise: unknown key; did you mean 'size'?"),
        ({"outcomes": ["exact"]}, "no built-in outcome 'exact'; did you mean 'exact_match'?"),
        (
            {"effect": {"outcome": "log-prob"}},
            "'log-prob' is not among the outcomes (log_prob, exact_match); did you mean 'log_prob'?",
        ),
        (
            {"effect": {"contrast": {"treated": "shot", "control": "direct"}}},
            "the arms are direct, shots; did you mean 'shots'?",
        ),
        ({"question": None}, "question: nothing is not text; write question: Do worked examples help?"),
        ({"seeds": 3}, "seeds: 3 is not a mapping of keys; known are items, shots, sampling, analysis"),
        ({"arms": ["direct", "cott"]}, "'cott' is not known; did you mean 'cot'? one of direct, few_shot"),
        ({"design": "pairs"}, "design: 'pairs' is not known; did you mean 'paired'?"),
        ({"mediation": {"items_per_task": 0}}, "mediation.items_per_task: 0: at least 1"),
        (
            {"mediation": {"sites": ["mlp 3", "neuron 2"], "set_of": ["head", "mlp", "attn"]}},
            "mediation: set_of: 'attn' is not swept: add it to sites: [attn]",
        ),
        (
            {"mediation": {"sites": ["mlp 3"], "set_of": ["mlp 4"]}},
            "mediation: set_of: 'mlp 4' is not swept",
        ),
        (
            {"mediation": {"sites": ["resid"], "set_of": ["resid 4"]}},
            "mediation: set_of: 'resid 4' cannot join a set",
        ),
        ({"mediation": {"set_of": []}}, "mediation.set_of"),
        (
            {"mediation": {"relate": 3, "along": [["head 1.0", "head 0.1"]]}},
            "mediation.along: the path 'along': nothing goes from head 1.0 to head 0.1",
        ),
        (
            {"mediation": {"relate": 3, "along": [["head 1"]]}},
            "mediation.along: 'head 1' names no single site",
        ),
        ({"mediation": {"relate": 3, "along": [["mlp 1"]]}}, "mlp 1 is no head, and paths are of heads"),
        ({"mediation": {"relate": 3, "along": [[]]}}, "mediation.along: a path of 'along' has no head"),
        ({"mediation": {"along": [["head 1.0"]]}}, "mediation: along takes heads apart that relate chooses"),
        ({"mediation": {"senders": "all"}}, "mediation: senders takes heads apart that relate chooses"),
        (
            {"mediation": {"sites": ["mlp", "layer 3"]}},
            "mediation.sites: 'layer 3' names no site: for instance",
        ),
        ({"mediation": {"sites": ["neuron"]}}, "'neuron' alone would be every neuron of the model: name the"),
        ({"mediation": {"sites": ["head 1"]}}, "mediation.sites: 'head 1' is swept anyway: leave it out"),
        ({"mediation": {"sites": "mlp"}}, "mediation.sites: 'mlp' is not a list"),
        ({"mediation": {"tokens": "all"}}, "mediation.tokens: 'all' is not known; one of answer, suffix"),
    ],
)
def test_a_refusal_is_plain_and_says_what_to_write(tmp_path, change, said):
    base = {key: value for key, value in yaml.safe_load(YAML).items() if key not in {"effect", "outcomes"}}
    message = problem(tmp_path, yaml.safe_dump({**base, **change}, sort_keys=False))
    assert said in message
    assert not re.search(r"Input should|discriminator|Unable to|union|pattern|valid \w+|\[key\]", message)


@pytest.mark.parametrize("key", ["name", "question", "items", "arms"])
def test_the_line_that_a_refusal_gives_can_be_pasted(tmp_path, key):
    base = {k: v for k, v in yaml.safe_load(YAML).items() if k not in {"effect", "graph", key}}
    message = problem(tmp_path, yaml.safe_dump(base))
    line = message.partition("; write ")[2]
    assert line.startswith(f"{key}: ")
    load_study(write(tmp_path, f"{line}\n{yaml.safe_dump(base)}"))


def test_no_key_that_was_written_by_mistake_is_repeated(tmp_path):
    base = yaml.safe_load(YAML)
    secret = "sk-0123456789"  # noqa: S105 - none
    for model in (
        {"endpoint": "https://x/v1", "name": "m", "key": {"env": secret}},
        {"endpoint": "https://x/v1", "name": "m", "key": {"env": [secret]}},
        {"endpoint": "https://x/v1", "name": "m", "extra": secret},
    ):
        assert secret not in problem(tmp_path, yaml.safe_dump({**base, "model": model}))
