"""What the aggregate of every_eval_ever says of a run: its settings, those of a result, stated means."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from whyprompt.trials.readers.record import Stated
from whyprompt.trials.reading.fields import mapping, number_of, whole_of
from whyprompt.trials.reading.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from whyprompt.trials.readers.record import Scalar

_PROMPT = re.compile(r"^arm$|prompt|template|instruction|system_message|chain_of_thought|\bcot\b")


def run_settings(content: Mapping[str, Any], first: Mapping[str, Any]) -> Settings:
    """Give the settings of all trials: model, engine, harness, date."""
    out = Settings()
    model = mapping(content.get("model_info")) or {"id": first.get("model_id")}
    for key, value in model.items():
        out.put("model" if key in {"name", "id", "developer"} else "engine", f"model_info.{key}", value)
    out.put("harness", "eval_library", content.get("eval_library"))
    out.put("date", "evaluation_timestamp", content.get("evaluation_timestamp"))
    return out


def result_id(result: Mapping[str, Any]) -> str:
    """Give what a result, and each of its samples, is called by."""
    return str(result.get("evaluation_result_id") or result.get("evaluation_name", ""))


def metric_of(result: Mapping[str, Any]) -> str:
    """Name the metric of a result."""
    config = mapping(result.get("metric_config"))
    return str(config.get("metric_name") or config.get("metric_id") or "score")


def result_settings(result: Mapping[str, Any]) -> Settings:
    """Give the settings of a result's trials."""
    out = Settings()
    config = mapping(result.get("generation_config"))
    for key, value in mapping(config.get("generation_args")).items():
        prompt = key in {"prompt_template", "reasoning", "agentic_eval_config", "eval_plan"}
        out.put("prompt" if prompt else "sampling", f"generation_args.{key}", value)
    for key, value in mapping(config.get("additional_details")).items():
        out.put("prompt" if _PROMPT.search(key) else "other", f"generation_config.{key}", value)
    out.put(
        "items",
        "source_data",
        {k: v for k, v in mapping(result.get("source_data")).items() if k != "sample_ids"},
    )
    judge = {k: v for k, v in mapping(result.get("metric_config")).items() if k == "llm_scoring"}
    out.put("judge", "metric_config", judge)
    return out


def stated_means(results: Sequence[Mapping[str, Any]], scorers: Mapping[str, str]) -> Iterator[Stated]:
    """Give the means that results state; a percentage is not on the scale of its samples."""
    alike = Counter(scorers[result_id(one)] for one in results)
    for one in results:
        scorer = scorers[result_id(one)]
        config, details = mapping(one.get("metric_config")), mapping(one.get("score_details"))
        spread = mapping(details.get("uncertainty"))
        mean = number_of(details.get("score"))
        if mean is None or config.get("metric_unit") == "percent" or config.get("max_score") == 100:
            continue
        arm = mapping(mapping(one.get("generation_config")).get("additional_details")).get("arm")
        where: dict[str, Scalar] = {}
        if arm is not None:
            where["metadata.arm"] = str(arm)
        elif alike[scorer] > 1:
            where["evaluation_name"] = str(one.get("evaluation_name", ""))
        error = number_of(mapping(spread.get("standard_error")).get("value"))
        yield Stated(scorer, mean, where, whole_of(spread.get("num_samples")), error)
