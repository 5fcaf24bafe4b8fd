"""Columns that the arm causes: known by the field's names, or by what drawn and paired arms show."""

import numpy as np
import pandas as pd
import pytest

from whyprompt import CausalGraph, compare_arms, dose_response, estimate_effect, heterogeneous_effects
from whyprompt.effects.caused import caused_by_arm, doubt_of, moved_within_items, moves_with_arm
from whyprompt.errors import EstimationError
from whyprompt.trials.readers.plain_names import NAMES


def names(text):
    return text.split()


CAUSED = names(
    """
    prompt prompt_tokens completion completion_tokens latency_s cost prompt_chars prompt_length prompt_words
    completion_chars completion_length output_tokens output_length n_output_tokens response_length
    response_tokens response_words generated_tokens n_tokens num_tokens total_tokens input_tokens
    usage.prompt_tokens usage.completion_tokens usage_total_tokens latency latency_ms duration_ms elapsed
    response_time time_ms generationTime cost_usd total_cost price finish_reason cached answer prediction
    judge_score reasoning_tokens is_correct exact_match predicted_label
    tokens_out out_tokens tokensOut n_tokens_out out_len chars_out gen_len gen_tokens resp_tokens n_toks
    tok_out tokens_in in_tokens n_in_tokens tokens_used total_ms ms error exception full_prompt
    """
)
SETTINGS = ["n_shots", "num_fewshot", "temperature", "max_tokens", "top_p", "system_prompt"]
ITEM = names(
    """
    question_tokens question_chars question_length prompt_id prompt_version difficulty task task_type task_id
    hard length log_len n_options answer_type answer_format correct_answer gold_answer expected_output
    reference_length context_tokens document_words item_price time_of_day timestamp date time_limit model
    user_id language topic target_tokens source score is_math steps hour template_id
    words_in_question tokens_in_context words_out_of_vocabulary time_out n_words seconds
    """
)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    n = 400
    hard = rng.normal(size=n)
    arm = rng.integers(0, 2, n)
    return pd.DataFrame({"arm": arm, "hard": hard, "y": arm - hard + rng.normal(size=n)})


ARM = {"treatment": "arm", "outcome": "y"}


@pytest.mark.parametrize("name", CAUSED)
def test_the_names_that_the_field_gives_to_what_an_arm_causes_are_refused(drawn, name):
    frame = drawn.assign(**{name: np.arange(400).astype(str)})
    with pytest.raises(EstimationError, match="cannot be a confounder") as error:
        estimate_effect(frame, **ARM, confounders=["hard", name])
    assert repr(name) in error.value.message
    assert "say so with a graph" in error.value.hint


def test_what_a_reader_takes_for_the_answer_or_its_price_no_estimate_adjusts_for():
    """The names of columns in plain logs, and the words that a table's confounders are judged by, agree."""
    came_after = ("prompt", "completion", "error", "cost", "latency_s", "latency_ms")
    every = [n for key in (*came_after, "prompt_tokens", "completion_tokens") for r in NAMES[key] for n in r]
    assert [n for n in every if caused_by_arm(n) is None] == []
    before = [n for key in ("item", "question", "target", "propensity") for r in NAMES[key] for n in r]
    assert [n for n in before if caused_by_arm(n) is not None] == []


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_the_call_is_taken_with_a_doubt_that_names_it(drawn, name):
    assert caused_by_arm(name) is None
    frame = drawn.assign(**{name: np.tile([1.0, 2.0, 4.0, 8.0], 100)})
    result = estimate_effect(frame, **ARM, confounders=["hard", name], method="overlap")
    (said,) = (a for a in result.assumptions if a.name == "no post-treatment adjustment")
    assert said.status == "doubtful"
    assert f"{name!r} is a setting of the call" in said.detail


@pytest.mark.parametrize("name", ITEM)
def test_what_belongs_to_the_item_is_taken_without_a_word(name):
    assert caused_by_arm(name) is None
    assert doubt_of(name) is None


def test_the_length_of_an_answer_is_doubted_unless_a_graph_settles_it(drawn):
    frame = drawn.assign(answer_chars=np.arange(400) % 9)
    options = {**ARM, "confounders": ["hard", "answer_chars"], "method": "overlap"}
    graph = CausalGraph.parse("hard -> arm; hard -> y; answer_chars -> arm; answer_chars -> y; arm -> y")
    for asked, status in ((None, "doubtful"), (graph, "holds")):
        result = estimate_effect(frame, **options, graph=asked)
        (said,) = (a for a in result.assumptions if a.name == "no post-treatment adjustment")
        assert said.status == status
        assert ("'answer_chars' may be of the model's answer" in said.detail) == (asked is None)


def test_a_prompt_of_a_few_wordings_is_a_factor_and_one_a_row_is_what_was_sent(drawn):
    for factor in (np.tile([0, 1], 200), np.tile(["short", "long"], 200)):
        result = estimate_effect(
            drawn.assign(prompt=factor), **ARM, confounders=["hard", "prompt"], method="overlap"
        )
        assert "prompt" in result.confounders
    sent = drawn.assign(prompt=[f"Question {k}: {k % 11} + 1?" for k in range(400)])
    with pytest.raises(
        EstimationError, match="'prompt' cannot be a confounder: the prompt is written by the arm"
    ):
        estimate_effect(sent, **ARM, confounders=["hard", "prompt"])


def test_every_estimator_refuses_them(drawn):
    frame = drawn.assign(latency_ms=1.0 + np.arange(400) % 7)
    options = {**ARM, "confounders": ["hard", "latency_ms"]}
    for call in (compare_arms, heterogeneous_effects):
        with pytest.raises(EstimationError, match="'latency_ms' cannot be a confounder"):
            call(frame, **options)
    with pytest.raises(EstimationError, match="'latency_ms' cannot be a confounder"):
        dose_response(frame, treatment="hard", outcome="y", confounders=["latency_ms"])


def test_a_covariate_that_a_lot_did_not_balance_forbids_the_claim(drawn):
    honest = estimate_effect(drawn, **ARM, confounders=["hard"], design="randomized")
    assert "since the arms were randomised" in honest.sentence
    moved = drawn.assign(mood=drawn.arm * 0.8 + np.random.default_rng(1).normal(size=400))
    result = estimate_effect(moved, **ARM, confounders=["hard", "mood"], design="randomized")
    (said,) = (a for a in result.assumptions if a.name == "no post-treatment adjustment")
    assert said.status == "fails"
    assert said.detail.startswith("the arms differ in mood (")
    assert "hard" not in said.detail
    assert "may therefore not be claimed" in result.sentence
    # A known lot that depends on the covariate explains it.
    known = moved.assign(p=1 / (1 + np.exp(-0.8 * (moved.mood - 0.4))))
    weighed = estimate_effect(
        known, **ARM, confounders=["hard", "mood"], design="randomized", propensity="p", method="ipw"
    )
    assert all(a.status != "fails" for a in weighed.assumptions if a.name == "no post-treatment adjustment")


def test_the_lots_test_holds_its_size_over_many_covariates():
    rng = np.random.default_rng(0)
    said = 0
    for _ in range(300):
        X = np.column_stack([rng.normal(size=(200, 8)), rng.random((200, 4)) < 0.1])
        said += bool(moves_with_arm({f"x{k}": X[:, k] for k in range(12)}, rng.random(200) < 0.5, None))
    # 0.001 of 300 trials is 0.3; four or more have a chance below 1 in 3,000.
    assert said < 4


def test_the_lots_test_takes_repeated_rows_as_one_unit():
    rng = np.random.default_rng(0)
    said = 0
    for _ in range(60):
        x, arm = np.repeat(rng.normal(size=40), 50), np.repeat(rng.random(40) < 0.5, 50)
        said += bool(moves_with_arm({"x": x}, arm, np.repeat(np.arange(40), 50)))
    assert said == 0


def test_a_covariate_that_moves_within_items_is_refused_by_name():
    rng = np.random.default_rng(0)
    item = np.repeat(np.arange(80), 2)
    arm = np.tile([0, 1], 80)
    hard, noise = rng.normal(size=80)[item], rng.normal(size=160)
    frame = pd.DataFrame({"item_id": item, "arm": arm, "hard": hard, "noise": noise})
    frame["y"] = arm - hard + rng.normal(size=160)
    frame["zeal"] = 3.0 * arm + rng.normal(size=160)
    frame["shift"] = hard + arm
    for name in ("zeal", "shift"):
        with pytest.raises(EstimationError, match=f"the arm moves {name} ") as error:
            estimate_effect(frame, **ARM, confounders=["hard", name], method="ipw")
        assert "in the same 'item_id'" in error.value.message
    assert estimate_effect(frame, **ARM, confounders=["hard", "noise"], method="ipw").n_treated == 80
    graph = CausalGraph.parse("hard -> arm; hard -> y; zeal -> arm; zeal -> y; arm -> y")
    told = estimate_effect(frame, **ARM, confounders=["hard", "zeal"], graph=graph, method="ipw")
    assert told.confounders == ("hard", "zeal")
    few = moved_within_items(
        {"z": np.array([1.0, 0.0] * 4)}, np.repeat(np.arange(4), 2), np.tile([True, False], 4)
    )
    assert few == ()
