"""What the results of lm-evaluation-harness say of a task: settings by role, and the means they state."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from whyprompt.trials.readers.record import Stated
from whyprompt.trials.reading.fields import mapping, number_of, whole_of
from whyprompt.trials.reading.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PROMPT = (
    *("task", "doc_to_text", "doc_to_target", "doc_to_choice", "description", "target_delimiter"),
    *("fewshot_delimiter", "gen_prefix", "use_prompt"),
)
_ITEMS = ("dataset_path", "dataset_name", "dataset_kwargs", "test_split", "validation_split", "process_docs")
_JUDGE = ("metric_list", "filter_list", "process_results", "should_decontaminate", "output_type")
_MODEL = ("pretrained", "model", "peft", "delta", "revision", "subfolder", "tokenizer", "path", "engine")
_SEEDS = ("random_seed", "numpy_seed", "torch_seed")
_HARNESS = ("lm_eval_version", "git_hash", "upper_git_hash", "transformers_version")
# Metrics that the harness does not average unless a task says so (its registry of metrics, 0.4.13).
_OWN = {
    "brier_score": "brier_score",
    "perplexity": "perplexity",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
    "mcc": "matthews_corrcoef",
    **{name: name for name in ("bypass", "f1", "bleu", "chrf", "ter")},
}
_LENGTH = ("max_gen_toks", "max_length", "truncation", "temperature", "top_p", "top_k", "enable_thinking")


def run_settings(results: Mapping[str, Any], task: str) -> Settings:
    """Give the settings of a task, from the results of its run."""
    out = Settings()
    task_config = mapping(mapping(results.get("configs")).get(task))
    config = mapping(results.get("config"))
    for role, keys in (("prompt", _PROMPT), ("items", _ITEMS), ("judge", _JUDGE)):
        for key in keys:
            out.put(role, f"configs.{key}", task_config.get(key))
    if not task_config:
        out.put("prompt", "configs.task", task)
    out.put("prompt", "versions", mapping(results.get("versions")).get(task))
    for key in ("system_instruction", "system_instruction_sha"):
        out.put("prompt", key, results.get(key))
    shots = mapping(results.get("n-shot")).get(task, task_config.get("num_fewshot"))
    out.put("few_shot", "n-shot", shots)
    for key in ("fewshot_split", "fewshot_config"):
        found = task_config.get(key)
        # The template of an example is the prompt's, where it is not its own.
        if isinstance(found, dict):
            found = {k: v for k, v in found.items() if v != task_config.get(k)}
        out.put("few_shot", f"configs.{key}", found)
    out.put("few_shot", "config.fewshot_seed", config.get("fewshot_seed") if shots else None)
    for key in ("chat_template_sha", "fewshot_as_multiturn", "apply_chat_template"):
        out.put("chat_format", key, results.get(key, config.get(key)))
    _model(out, results, config)
    out.put("sampling", "configs.generation_kwargs", _parsed(task_config.get("generation_kwargs")))
    out.put("sampling", "config.gen_kwargs", _parsed(config.get("gen_kwargs")))
    out.put("sampling", "configs.repeats", task_config.get("repeats"))
    for path in [p for p in out.get("sampling", {}) if p.endswith(".seed")]:
        out.put("seed", path, out["sampling"].pop(path))
    for key in _SEEDS:
        out.put("seed", f"config.{key}", config.get(key))
    out.put("items", "config.limit", config.get("limit"))
    out.put("items", "n-samples", mapping(results.get("n-samples")).get(task))
    for key in _HARNESS:
        out.put("harness", key, results.get(key))
    when = results.get("date")
    if (seconds := number_of(when)) is not None:
        when = datetime.fromtimestamp(seconds, UTC).isoformat()
    out.put("date", "date", when)
    return out


def _model(out: Settings, results: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    out.put("engine", "config.model", config.get("model", results.get("model_source")))
    args = _parsed(config.get("model_args"))
    for key, value in args.items():
        role = "model" if key in _MODEL else "sampling" if key in _LENGTH else "engine"
        out.put(role, f"config.model_args.{key}", value)
    if not any(key in args for key in _MODEL):
        out.put("model", "model_name", results.get("model_name"))
    for key in ("model_revision", "model_sha", "model_num_parameters"):
        out.put("model", f"config.{key}", config.get(key))
    for key in ("model_dtype", "batch_size", "device"):
        out.put("engine", f"config.{key}", config.get(key))


def _parsed(value: object) -> Mapping[str, Any]:
    """Read arguments that are an object, or a text of ``key=value`` with commas between."""
    if isinstance(value, str):
        parts = (part.partition("=") for part in value.split(",") if part.strip())
        return {key.strip(): given for key, mark, given in parts if mark}
    return mapping(value)


def no_mean(results: Mapping[str, Any], task: str, scorer: str) -> str | None:
    """Give how a metric is made of its documents where it is not their mean, as most are."""
    metric = scorer.partition(",")[0]
    how = _OWN.get(metric, "mean")
    listed = mapping(mapping(results.get("configs")).get(task)).get("metric_list")
    for one in listed if isinstance(listed, list) else ():
        if mapping(one).get("metric") == metric:
            how = str(mapping(one).get("aggregation") or how)
    return None if how in {"mean", "nanmean"} else how


def stated_means(results: Mapping[str, Any], task: str, scorers: Collection[str]) -> tuple[Stated, ...]:
    """Give the means that results state for the scorers that have a number a document.

    An aggregation that is no mean (a perplexity, F1 of all documents) is none of them.
    """
    found = mapping(mapping(results.get("results")).get(task))
    n = whole_of(found.get("sample_len", found.get("samples")))
    if n is None:
        n = whole_of(mapping(mapping(results.get("n-samples")).get(task)).get("effective"))
    out = []
    for scorer in scorers:
        metric, _, key = scorer.partition(",")
        # Before 2024 no filter stood in the name.
        called = scorer if scorer in found or key not in {"", "none"} else metric
        mean = number_of(found.get(called))
        if mean is not None and no_mean(results, task, scorer) is None:
            error = number_of(found.get(called.replace(metric, f"{metric}_stderr", 1)))
            out.append(Stated(scorer=scorer, mean=mean, n=n, error=error))
    return tuple(out)
