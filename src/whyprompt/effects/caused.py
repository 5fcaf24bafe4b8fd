"""Columns that the arm causes: known by their names, and by what a table with drawn or paired arms shows.

Adjusting for what the arm does removes part of its effect, or opens a path that biases it. Only a graph can
say for certain which columns those are; without one, the names that the field gives to prompts, completions,
their sizes, their times and their costs say it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number, p_words
from whyprompt.stats.order import distinct
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


# Levels of a text column that are tested where each test takes a pass over all clusters.
_MOST_LEVELS = 1_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ITEM_WORDS = _words(
    "article context difficulty doc document documents example expected gold instruction issue item label"
    " labels option options paragraph passage problem puzzle query question questions reference source"
    " subject target task ticket topic truth"
)
"""Words in the name of a column that belongs to the item, whatever the arm is."""

_TIMES = _words("duration elapsed latency runtime tpot ttft walltime")
_CLOCK = _words(
    "answer api completion cpu first generation inference ms processing request response run s sec"
    " seconds secs taken total wall"
)
_COSTS = _words("cost costs dollars price spend spent usd")
_ENDS = _words("cached finish truncated usage")
# Whole names of the same.
_ENDED = {("stop", "reason"), ("cache", "hit"), ("error",), ("error", "message"), ("exception",)}
_PREDICTED = _words("pred predicted prediction predictions preds")
_WRITTEN = _words(
    "answer answers completion completions generated generation generations output outputs reply response"
    " responses"
)
_THOUGHT = _words("cot explanation prompt rationale reasoning thinking thought thoughts")
_JUDGED = _words("correct grader hallucinated judge judgement judgment logprob logprobs verdict")
_SIZES = _words(
    "byte bytes char characters chars count len length lines ntokens sentences size tok token tokens toks"
    " word words"
)
_TOKENS = _words("ntokens tok token tokens toks")
# Beside a size these say that it is of what came back: tokens_out, gen_len.
_BACK = _words("compl gen out resp")
_UNITS = _words("ms s sec seconds secs")
_SENT = _words("input message messages prompts rendered total")
_ANSWERS = _words("answer answers")
_SENT_WHOLE = {("prompt", "text"), ("full", "prompt"), ("rendered", "prompt"), ("messages",)}
# What an output is meant to be is known before the arm.
_KINDS = _words("category choices format id kind schema type")
_SETTINGS = _words(
    "few_shot fewshot k_shot max_new_tokens max_output_tokens max_tokens n_examples n_fewshot n_shot n_shots"
    " num_examples num_fewshot num_shots shots system_prompt temperature top_k top_p"
)
# A prompt with no more wordings than this is a factor that was varied, and not the text that was sent.
_WORDINGS = 10
# In one trial of a thousand whose covariates are all balanced by the lot, one is said not to be.
_ALPHA = 0.001


def name_words(name: str) -> tuple[str, ...]:
    """Split a column's name into its words, in small letters.

    >>> name_words("usage.promptTokens"), name_words("Latency (ms)")
    (('usage', 'prompt', 'tokens'), ('latency', 'ms'))
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return tuple(word for word in re.split(r"[^0-9a-z]+", apart.lower()) if word)


def doubt_of(name: str) -> str | None:
    """Say why a column may be one that the arm causes, where its name leaves that open.

    >>> doubt_of("n_shots")
    'is a setting of the call: where the arm prescribes it, adjusting for it takes part of the effect away'
    >>> doubt_of("question_tokens") is None
    True
    """
    words = frozenset(name_words(name))
    if "_".join(name_words(name)) in _SETTINGS:
        return (
            "is a setting of the call: where the arm prescribes it, adjusting for it takes part of the effect"
            " away"
        )
    if words & _ANSWERS and words & _SIZES and not words & ITEM_WORDS:
        return (
            "may be of the model's answer, which the arm causes, or of the right one, which it does not: a"
            " graph can say so"
        )
    return None


def caused_by_arm(name: str, values: NDArray[Any] | None = None) -> str | None:
    """Say why the arm causes a column, judging by its name; None where it says nothing of the kind.

    The values tell a prompt that was sent from a factor of that name with a few levels.

    >>> caused_by_arm("latency_ms")
    'it is a time, caused by what the arm makes the model read and write'
    >>> caused_by_arm("question_tokens"), caused_by_arm("prompt_id")
    (None, None)
    """
    listed = name_words(name)
    words = frozenset(listed)
    if doubt_of(name) is not None or not listed:
        return None
    of_item = listed[0] in ITEM_WORDS
    measured = words <= _CLOCK and words & _UNITS and (len(words) > 1 or "ms" in words)
    if words & _TIMES or ("time" in words and words & _CLOCK) or measured:
        return "it is a time, caused by what the arm makes the model read and write"
    if words & _COSTS and not of_item:
        return "it is a cost, caused by what the arm makes the model read and write"
    if (words & _ENDS or listed in _ENDED) and not of_item:
        return "it is recorded when the model has answered or failed, and the arm causes that"
    if words & _PREDICTED:
        return "it is what the model answered, which the arm causes"
    if words & ITEM_WORDS or words & _KINDS or (words & _ANSWERS and words & {"correct", "true"}):
        return None
    return _by_content(words, listed, values)


def _by_content(words: frozenset[str], listed: tuple[str, ...], values: NDArray[Any] | None) -> str | None:
    """Judge the names of what was sent and what came back, of their sizes and of their verdicts."""
    if words & _SIZES:
        if words & (_WRITTEN | _THOUGHT) - {"prompt"} or (words & _BACK and "of" not in words):
            return "a completion's length is caused by the arm (reasoning is longer)"
        if (
            words & _SENT
            or "prompt" in words
            or "in" in {listed[0], listed[-1]}
            or any(one == "in" and after in _TOKENS for one, after in pairwise(listed))
            or (words & _TOKENS and words <= _SIZES | {"n", "num", "used"})
        ):
            return "a prompt's length is caused by the arm (a few-shot prompt is longer)"
    if words & _WRITTEN:
        return "it is what the model wrote, which the arm causes"
    if words & _JUDGED or listed in {("exact", "match"), ("log", "prob")}:
        return "it is a judgement of what the model wrote, which the arm causes"
    alone = len(listed) == 1 and listed[0] in _THOUGHT
    sent = alone or listed in _SENT_WHOLE
    if sent and (values is None or not _few_wordings(values)):
        model = "it is what the model wrote, which the arm causes"
        return "the prompt is written by the arm" if words & {"prompt", "messages"} else model
    return None


def _few_wordings(values: NDArray[Any]) -> bool:
    if values.dtype != object:
        return True
    return all(isinstance(v, str) for v in values) and len(set(values.tolist())) <= _WORDINGS


def moves_with_arm(
    columns: Mapping[str, NDArray[Any]], treated: NDArray[np.bool_], cluster: NDArray[Any] | None
) -> tuple[str, ...]:
    """Name the covariates that differ between arms that were drawn by lot, by more than a lot would do.

    Each with its p, times the number of covariates (Bonferroni), where that is below 0.001; of text every
    level but the first is one. Of clustered rows the thousand most frequent levels are looked at.
    """
    coded = {name: distinct(values) for name, values in columns.items() if values.dtype == object}
    count = sum(len(coded[name][0]) - 1 if name in coded else 1 for name in columns)
    out: list[str] = []
    for name, values in columns.items():
        if name not in coded:
            out += _differs(name, np.asarray(values, dtype=np.float64), treated, cluster, count)
            continue
        levels, code = coded[name]
        for k in _worth_a_test(code, len(levels), treated, cluster):
            out += _differs(f"{name}_{levels[k]}", (code == k).astype(float), treated, cluster, count)
    return tuple(out)


def _worth_a_test(
    code: NDArray[np.int64], k: int, treated: NDArray[np.bool_], cluster: NDArray[Any] | None
) -> list[int]:
    """Give the levels, the first apart, whose shares may differ by more than a lot would do."""
    counts = [np.bincount(code[arm], minlength=k) for arm in (treated, ~treated)]
    both = counts[0] + counts[1]
    if cluster is not None:
        often = np.sort(np.argsort(-both, kind="stable")[:_MOST_LEVELS])
        return [int(j) for j in often if j > 0]
    p = both / len(code)
    error = np.sqrt(p * (1.0 - p) * (1.0 / treated.sum() + 1.0 / (~treated).sum()))
    gap = np.abs(counts[0] / treated.sum() - counts[1] / (~treated).sum())
    # No difference of fewer errors has a p below 0.001.
    return [int(j) for j in np.flatnonzero(gap > 3.0 * error) if j > 0]


def _differs(
    name: str, column: Floats, treated: NDArray[np.bool_], cluster: NDArray[Any] | None, count: int
) -> list[str]:
    from whyprompt.stats import errors as inference

    gap = float(column[treated].mean() - column[~treated].mean())
    if cluster is None:
        sizes = (int(treated.sum()), int((~treated).sum()))
        return differs(name, gap, float(column.var()), sizes, count)
    _, error, df = inference.clustered_difference(column, treated, np.ones(len(treated)), cluster)
    return differs_by(name, gap, error, df, count)


def differs_by(name: str, gap: float, error: float, df: float, count: int) -> list[str]:
    """Say what `differs` does, by the error of the difference."""
    return _moved(name, gap, two_sided_p(gap, error, df) if error > 0 else None, count)


def differs(name: str, gap: float, variance: float, sizes: tuple[int, int], count: int) -> list[str]:
    """Say that arms drawn by lot, of so many rows, differ in a column, one of `count`, by too much."""
    # With no difference both arms have one variance, which is what a shuffle of the arms would give.
    n = sum(sizes)
    error = float(np.sqrt(variance * n / (n - 2) * (1.0 / sizes[0] + 1.0 / sizes[1]))) if n > 2 else 0.0
    return _moved(name, gap, two_sided_p(gap, error, n - 2.0) if error > 0 else None, count)


def _moved(name: str, gap: float, p: float | None, count: int) -> list[str]:
    if p is None or p * count >= _ALPHA:
        return []
    return [f"{name} ({format_number(gap)} between the arms, p {p_words(p * count)})"]


def moved_within_items(
    columns: Mapping[str, Floats], items: NDArray[np.intp], treated: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Name the columns that differ between the arms of the same items, whose numbers are from 0.

    As `moves_with_arm`, by the t test of the items' differences; a difference that is the same in every item
    is one.
    """
    out: list[str] = []
    counts = [np.bincount(items[arm], minlength=int(items.max()) + 1) for arm in (treated, ~treated)]
    both = (counts[0] > 0) & (counts[1] > 0)
    n = int(both.sum())
    for name, column in columns.items():
        sums = [
            np.bincount(items[arm], weights=column[arm], minlength=len(both)) for arm in (treated, ~treated)
        ]
        d = sums[0][both] / counts[0][both] - sums[1][both] / counts[1][both]
        if n >= 2 and d.any():
            out += moved_by(name, float(d.mean()), float(d.std(ddof=1) / np.sqrt(n)), n, len(columns))
    return tuple(out)


def moved_by(name: str, gap: float, error: float, n: int, count: int) -> list[str]:
    """Say how far the arm moves a column in the same `n` items, one column of `count`."""
    p = 2.0 ** (1 - n) if error <= 1e-12 * abs(gap) else two_sided_p(gap, error, n - 1.0)
    return _moved(name, gap, p, count)
