"""The names that columns of plain tables go by, and which values are scores."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from whyprompt.trials.readers.record import score_value
from whyprompt.trials.reading.fields import missing
from whyprompt.trials.reading.questions import ITEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The names of one meaning, in ranks: of a rank all fit alike, and a better rank is asked first.
NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "item": (("item_id",), tuple(n for n in ITEMS if n not in {"item_id", "id"}), ("id",)),
    "rep": (
        ("rep",),
        ("epoch", "repeat", "repetition", "replicate", "repetition_number"),
        ("run", "attempt", "seed"),
    ),
    "question": (("question",), ("query", "problem", "instruction", "user_input"), ("input", "text")),
    "target": (
        ("target",),
        ("gold", "gold_answer", "expected", "expected_output", "reference", "reference_answer"),
        ("ground_truth", "correct_answer", "ideal"),
    ),
    "prompt": (("prompt",), ("full_prompt", "prompt_text", "rendered_prompt", "messages")),
    "completion": (
        ("completion",),
        ("output", "response", "generation", "model_output", "prediction", "model_answer", "reply"),
    ),
    "model": (("model",), ("model_name", "model_id", "llm")),
    "error": (("error",), ("error_message", "exception")),
    "cost": (("cost",), ("cost_usd", "total_cost", "price_usd")),
    "latency_s": (("latency_s",), ("latency", "latency_seconds", "duration_s", "elapsed_s")),
    "latency_ms": (("latency_ms", "duration_ms", "elapsed_ms"),),
    "prompt_tokens": (("prompt_tokens",), ("input_tokens", "tokens_in", "n_prompt_tokens")),
    "completion_tokens": (("completion_tokens",), ("output_tokens", "tokens_out", "n_completion_tokens")),
    "started_at": (("started_at",), ("timestamp", "created_at", "start_time"), ("date", "datetime")),
    "propensity": (
        ("propensity",),
        (
            *("propensity_score", "pscore", "assignment_probability", "action_probability", "action_prob"),
            *("arm_probability", "arm_prob", "logging_probability", "logging_prob", "logged_probability"),
            *("behavior_probability", "sampling_probability"),
        ),
    ),
}
# Without a table of its own a meaning is that of the whole file, or is left out.
NEEDED = frozenset({"item"})
# An arm goes by many names: all that there are of the best rank are settings of the prompt.
ARMS = (
    ("arm",),
    (
        *("variant", "condition", "treatment", "prompt_version", "prompt_name", "prompt_variant"),
        *("prompt_label", "prompt_id", "prompt_type", "prompt_template", "system_prompt"),
    ),
    ("prompt", "version", "group", "strategy", "template", "experiment"),
)
OUTCOMES = frozenset(
    (
        *("score", "correct", "is_correct", "passed", "pass", "is_pass", "success", "accuracy", "acc"),
        *("exact_match", "em", "f1", "reward", "rating", "outcome", "grade", "result", "win", "preference"),
        *("log_prob", "quality", "verdict", "judgment", "judgement", "hit", "match"),
    )
)
WORDY = frozenset({"outcome", "grade", "result", "verdict", "judgment", "judgement", "match", "quality"})
# Data sets that items are of.
SETS = frozenset(("dataset", "dataset_name", "task", "task_name", "benchmark", "subset", "split"))
# What a score may be of: after "score_" they name a scorer, and no arm.
SCORED = OUTCOMES | frozenset(
    (
        *("fluency", "relevance", "coherence", "helpfulness", "faithfulness", "correctness", "groundedness"),
        *("precision", "recall", "bleu", "rouge", "rougel", "harmlessness", "safety", "toxicity"),
        *("mean", "std", "min", "max", "total", "sum", "normalized", "overall", "average"),
    )
)


def scored(values: Iterable[Any]) -> bool:
    """Say whether all the values that there are can be scores, and one is there."""
    found = [v for v in values if not missing(v)]
    return bool(found) and all(map(is_score, found))


def is_score(value: object) -> bool:
    """Say whether a value can be a score."""
    # A decimal comma is told where it is read.
    text = value.replace(",", ".") if isinstance(value, str) else value
    return isinstance(text, Decimal) or score_value(text) is not None
