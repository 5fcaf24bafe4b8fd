"""What a study may say of an endpoint; every refusal names the file, the line and the key."""

from __future__ import annotations

import pytest

from whyprompt.errors import StudyError
from whyprompt.study import Study, load_study

STUDY = """\
name: asked
question: Does it?
model:
  endpoint: https://api.example.com/v1
  name: some-model
  {line}
items: [{{source: reasoning_gym, dataset: chain_sum, size: 4}}]
arms: {{direct: {{kind: direct}}, polite: {{kind: direct, instruction: Please.}}}}
outcomes: [numeric_match]
effect: {{outcome: numeric_match}}
"""
SECRET = "sk-0123456789"  # noqa: S105


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        (f"key: {SECRET}", "model.key", "a key never stands in a file"),
        (f"key: {{env: {SECRET}}}", "model.key.env", "is no name of an environment variable"),
        (f"key: {{value: {SECRET}}}", "model.key.value", "unknown key"),
        (f"extra: {{api_key: {SECRET}}}", "model.extra", "looks like a key"),
        ("extra: {temperature: 1}", "model.extra", "set by the study itself"),
        ("budget: {money: 5}", "model", "'budget.money' is set and no 'price'"),
        ("sampling: {temperature: 0.5}", "model.sampling", "set elsewhere: arms.NAME.temperature"),
        ("api: telepathy", "model.api", "is not known; one of auto, chat"),
        ("device: cuda", "model.device", "unknown key"),
    ],
)
def test_what_is_refused_is_named_and_no_key_is_repeated(tmp_path, line, key, said):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(line=line), encoding="utf-8")
    with pytest.raises(StudyError) as refusal:
        load_study(path)
    text = str(refusal.value)
    assert f"{path}:{3 if key == 'model' else 6}: {key}: " in text
    assert said in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"https://user:{SECRET}@example.com/v1", "holds a user name or password"),
        ("http://example.com/v1", "unencrypted"),
        ("http://127.0.0.1.example.com/v1", "unencrypted"),
        ("ftp://example.com", "is no URL"),
        ("https://example.com:port/v1", "its port is no number"),
        (f"https://example.com/v1?key={SECRET}", "after [?] or #"),
    ],
)
def test_an_address_is_one_without_secrets_and_encrypted(tmp_path, url, said):
    path = tmp_path / "study.yaml"
    path.write_text(
        STUDY.format(line="api: chat").replace("https://api.example.com/v1", url), encoding="utf-8"
    )
    with pytest.raises(StudyError, match=said) as refusal:
        load_study(path)
    assert f"{path}:4: model.endpoint: " in str(refusal.value)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "http://localhost:1/v1", "http://[::1]:80/v1"])
def test_this_machine_needs_no_encryption(url):
    from whyprompt.study import EndpointSettings

    assert EndpointSettings(endpoint=url, name="m").endpoint == url


def test_what_an_endpoint_has_not_is_refused(tmp_path):
    path = tmp_path / "study.yaml"
    text = STUDY.format(line="api: chat")
    path.write_text(text + "mediation: {}\ncovariates: [question_perplexity]\n", encoding="utf-8")
    with pytest.raises(StudyError) as refusal:
        load_study(path)
    assert "mediation: needs a model's own weights" in str(refusal.value)
    assert "question_perplexity is not measured on an endpoint" in str(refusal.value)
    path.write_text(text, encoding="utf-8")
    assert load_study(path).covariates == ()


def test_a_local_model_has_no_order_and_nothing_missing(tmp_path):
    path = tmp_path / "study.yaml"
    text = STUDY.format(line="").replace(
        "endpoint: https://api.example.com/v1\n  name: some-model", "name: embedded"
    )
    path.write_text(text + "missing: {error: stop}\n", encoding="utf-8")
    with pytest.raises(StudyError, match="missing: has no meaning on a local model"):
        load_study(path)


def test_where_a_model_is_does_not_change_what_a_study_asks():
    base = {
        "name": "one",
        "question": "Does it?",
        "items": [{"source": "reasoning_gym", "dataset": "chain_sum"}],
        "arms": {"a": {"kind": "direct"}, "b": {"kind": "few_shot"}},
    }
    local = Study.model_validate(base | {"covariates": []})
    away = Study.model_validate(base | {"model": {"endpoint": "https://example.com/v1", "name": "m"}})
    assert local.trial_spec() == away.trial_spec()
