"""A first study: its file as text, from a file of questions or from none, with what each key does."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._study_forms import KINDS, plain_name
from whyprompt._words import did_you_mean
from whyprompt.errors import DataError, StudyError
from whyprompt.trials.items.files import read_rows
from whyprompt.trials.readers.plain_names import NAMES
from whyprompt.trials.reading.fields import empty
from whyprompt.trials.reading.questions import ITEMS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_QUESTION = (*(name for rank in NAMES["question"] for name in rank), "q", "prompt")
_SOLUTIONS = ("solution", "rationale", "explanation", "worked_solution")
_CHOICES = ("choices", "options")
_TASKS = ("task_type", "task", "category", "subject", "topic", "domain")
# Of a task family with fewer items than this nothing can be said, and no examples be kept out.
_FEWEST, _MOST_TASKS = 8, 20
_NUMBER = re.compile(r"-?\$?\d[\d,]*(\.\d+)?%?")
_ARMS = {
    "direct": ("kind: direct", "the question alone"),
    "few_shot": ("kind: few_shot, shots: {shots}", "worked examples first, of items kept out of the study"),
    "chain_of_thought": ("kind: chain_of_thought", "the model writes its reasoning first, then its answer"),
    "json": ("kind: format, format: json", "the answer as JSON; also plain, role, question_answer"),
}


_AN = {"question": "a question", "answer": "an answer"}


class Questions(NamedTuple):
    """What a file of questions holds: its columns by meaning, its rows, and what its answers are."""

    path: Path
    columns: dict[str, str]
    others: tuple[str, ...]
    size: int
    least: int  # of the items of one task family
    numbers: bool
    gsm8k: bool


def look_at_questions(
    path: Path, *, question_column: str | None = None, answer_column: str | None = None
) -> Questions:
    """Say which columns of a file hold what; the two that must be there may be named.

    Raises
    ------
    DataError, StudyError
        If the file cannot be read, or no column can be told for one of the two.
    """
    rows = list(read_rows(path))
    if not rows:
        raise DataError(f"{path} holds no questions", hint="a row of names of columns, then a row a question")
    names = list(dict.fromkeys(name for row in rows for name in row))
    plain = {plain_name(name): name for name in reversed(names)}
    found = {
        "question": _named(path, names, "question", question_column) or _first(plain, _QUESTION),
        "answer": _named(path, names, "answer", answer_column) or _first(plain, (*TARGETS, "a")),
    }
    for what, column in found.items():
        if column is None:
            raise StudyError(
                f"{path}: no column is called as {_AN[what]} is; it has {', '.join(names) or 'none'}",
                hint=f"say which it is with {what}_column=",
            )
    columns = {what: str(column) for what, column in found.items()}
    for what, column in columns.items():
        gaps = [n for n, row in enumerate(rows, 1) if empty(row.get(column)) or not str(row[column]).strip()]
        if gaps:
            more = f", and {len(gaps) - 1} more" if len(gaps) > 1 else ""
            raise DataError(
                f"{path}: row {gaps[0]} has an empty {what} ({column!r}){more}",
                hint="fill it in, or drop the row; the first row below the names of the columns is row 1",
            )
    taken = set(columns.values())
    for what, called in (("item_id", ITEMS), ("solution", _SOLUTIONS), ("choices", _CHOICES)):
        column = _first({k: v for k, v in plain.items() if v not in taken}, called)
        if column is not None and (what != "item_id" or _distinct(rows, column) == len(rows)):
            columns[what] = column
    difficulty = plain.get("difficulty") or plain.get("level") or ""
    if difficulty not in {"", *taken} and all(_is_number(row.get(difficulty)) for row in rows):
        columns["difficulty"] = difficulty
    least = len(rows)
    for name in (plain[task] for task in _TASKS if task in plain and plain[task] not in taken):
        sizes = _sizes(rows, name)
        if 1 < len(sizes) <= _MOST_TASKS and min(sizes.values()) >= _FEWEST:
            columns["task_type"], least = name, min(sizes.values())
            break
    answers = [str(row.get(columns["answer"], "")).strip() for row in rows]
    return Questions(
        path=path,
        columns=columns,
        others=tuple(name for name in names if name not in columns.values()),
        size=len(rows),
        least=least,
        numbers=all(_NUMBER.fullmatch(text) for text in answers),
        gsm8k=path.suffix == ".jsonl" and all("####" in text for text in answers),
    )


def _named(path: Path, names: Sequence[str], what: str, asked: str | None) -> str | None:
    if asked is not None and asked not in names:
        raise StudyError(
            f"{path}: {what}_column={asked!r} is no column{did_you_mean(asked, names)}",
            hint=f"it has {', '.join(names)}",
        )
    return asked


def _first(plain: Mapping[str, str], called: Sequence[str]) -> str | None:
    return next((plain[name] for name in called if name in plain), None)


def _sizes(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for row in rows:
        value = str(row.get(column))
        sizes[value] = sizes.get(value, 0) + 1
    return sizes


def _distinct(rows: Sequence[Mapping[str, Any]], column: str) -> int:
    return len(_sizes(rows, column))


def _is_number(value: object) -> bool:
    try:
        return abs(float(str(value))) < float("inf")
    except ValueError:
        return False


# ----------------------------------------------------------------------------------------- the file
def study_text(
    questions: Questions | None,
    *,
    target: Path,
    arms: Sequence[str] = ("direct", "few_shot"),
    outcomes: Sequence[str] | None = None,
    question: str | None = None,
    model: str = "embedded",
    endpoint: str | None = None,
    key_env: str | None = None,
) -> str:
    """Write a study in YAML that runs as it stands, with a comment at what each key does.

    `target` is where it will lie: paths are as seen from there. Arms are named by their kinds, or by any name
    that is understood for one. `endpoint` is the base URL of an OpenAI-compatible server, `key_env` the
    environment variable with its key.

    Raises
    ------
    StudyError
        If an arm is of no kind that needs nothing more said, or there are no two of different names.
    """
    if len({plain_name(arm) for arm in arms}) < max(2, len(arms)):
        raise StudyError(
            f"arms {', '.join(arms)}: a study compares two or more, each named once",
            hint=f"two of: {', '.join(_ARMS)}",
        )
    kinds = [_kind(arm) for arm in arms]
    if questions is not None and questions.size < 2 and "few_shot" in kinds:
        raise StudyError(
            f"{questions.path} holds one question, and few_shot shows others as examples",
            hint="give more questions, or other arms: direct and cot",
        )
    if outcomes is None:
        read = "numeric_match" if questions is None or questions.numbers else "string_match"
        if questions is not None and "choices" in questions.columns:
            read = "choice_match"
        outcomes = [read] if endpoint is not None else ["log_prob", "exact_match"]
    asked = question or f"Does {_in_words(kinds[-1])} change {_measured(outcomes[0])}?"
    shots = 3 if questions is None or questions.least >= 12 else 1
    shown = shlex.quote(target.name)
    lines = [
        "# A study: what does a change of prompt change? This file is all of it.",
        f"#   whyprompt run {shown} --dry-run   counts what it would take, and runs nothing",
        f"#   whyprompt run {shown}             runs it; stopped at any moment, it goes on from there",
        f"#   whyprompt effect {shown}          answers it; then: whyprompt report {shown}",
        *_line(f"name: {_name(target)}", f"its results lie in runs/{_name(target)}"),
        *_line(f"question: {json.dumps(asked, ensure_ascii=False)}", "in your own words"),
        "",
        *_items(questions, target, shots),
        "",
        *_model(model, endpoint, key_env),
        "",
        "arms:  # the prompts that are compared: the second against the first, unless a contrast names two",
        *(_arm(arm, kind, shots) for arm, kind in zip(arms, kinds, strict=True)),
        "",
        *_line(f"outcomes: [{', '.join(outcomes)}]", "what is measured; the effect is of the first"),
        *_line("# reps: 3", "how often each item is run under each arm, with new seeds"),
        "",
        "effect:",
        *_line("  by: task_type", "the effect in subgroups too"),
        *_line(f"  # contrast: {{treated: {plain_name(arms[-1])}, control: {plain_name(arms[0])}}}", ""),
        *(
            []
            if endpoint is not None
            else _line("# mediation: {items_per_task: 8}", "which heads carry it: whyprompt mediate")
        ),
        *_line("seeds: {items: 1, shots: 2, sampling: 3, analysis: 4}", "every source of chance"),
    ]
    return "\n".join(lines) + "\n"


def _line(text: str, why: str) -> list[str]:
    return [f"{text:<42}  # {why}" if why else text]


def _name(target: Path) -> str:
    made = re.sub(r"\W+", "_", target.stem, flags=re.ASCII).strip("_")[:60]
    return made if re.match(r"[A-Za-z]", made) else f"study_{made}".rstrip("_")


def _kind(arm: str) -> str:
    kind = KINDS.get(plain_name(arm), plain_name(arm))
    if kind not in _ARMS:
        understood = [*_ARMS, *(name for name, means in KINDS.items() if means in _ARMS)]
        raise StudyError(
            f"arm {arm!r} is no kind that needs nothing more said{did_you_mean(plain_name(arm), understood)}",
            hint=f"one of: {', '.join(_ARMS)}; others are written into the file",
        )
    return kind


def _arm(arm: str, kind: str, shots: int) -> str:
    settings, why = _ARMS[kind]
    return _line(f"  {plain_name(arm)}: {{{settings.format(shots=shots)}}}", why)[0]


def _in_words(kind: str) -> str:
    words = {
        "few_shot": "showing worked examples",
        "chain_of_thought": "reasoning before the answer",
        "json": "asking for JSON",
    }
    return words.get(kind, "the second prompt")


def _measured(outcome: str) -> str:
    right = outcome != "log_prob"
    return "how often the answer is right" if right else "the log-probability of the right answer"


def _items(questions: Questions | None, target: Path, shots: int) -> list[str]:
    if questions is None:
        return [
            "items:  # what is asked: here tasks that a generator makes; or a file of your own questions:",
            "#  - {source: file, path: questions.csv, columns: {question: question, answer: answer}}",
            "  - source: reasoning_gym",
            *_line("    dataset: chain_sum", "also letter_counting, simple_equations, gsm_symbolic, ..."),
            *_line("    size: 24", "items in the study; examples are drawn from others"),
            *_line("    settings: {min_terms: 2, max_terms: 4, min_digits: 1, max_digits: 2}", ""),
            *_line("    difficulty: num_terms", "what of an item measures its difficulty"),
        ]
    path = json.dumps(os.path.relpath(questions.path, target.parent), ensure_ascii=False)
    size = "all, but examples that arms show" if shots else "all"
    if questions.gsm8k:
        return [
            "items:  # what is asked",
            "  - source: gsm8k  # a question, and an answer that ends in #### and the number",
            *_line(f"    path: {path}", "as seen from this file"),
            *_line("    # size: 50", f"so many, drawn by seed; without it {size}"),
        ]
    told = "also item_id, task_type, difficulty, solution, choices, cluster"
    written = ", ".join(
        f"{key}: {json.dumps(name, ensure_ascii=False)}" for key, name in questions.columns.items()
    )
    rest = [f"    #   covariates: [..] of {', '.join(questions.others)}"] if questions.others else []
    return [
        "items:  # what is asked, a row an item",
        "  - source: file",
        *_line(f"    path: {path}", "as seen from this file"),
        f"    # which column holds what; {told}",
        *rest,
        f"    columns: {{{written}}}",
        *_line("    # size: 50", f"so many, drawn by seed; without it {size}"),
    ]


def _model(model: str, endpoint: str | None, key_env: str | None) -> list[str]:
    if endpoint is None:
        return [
            *_line(f"model: {{name: {json.dumps(model)}}}", "embedded: comes along; or gpt2, a folder, ..."),
            "# model: {endpoint: https://HOST/v1, name: MODEL, key: {env: OPENAI_API_KEY}}  # an interface",
        ]
    key = f"\n  key: {{env: {key_env}}}  # the name of the variable, never the key" if key_env else ""
    return [
        "model:  # behind an OpenAI-compatible interface: whyprompt doctor --model shows what it can do",
        f"  endpoint: {json.dumps(endpoint)}",
        f"  name: {json.dumps(model)}{key}",
        "  # price: {input: 0.15, output: 0.60}  # of a million tokens; with it --dry-run says the cost",
        "  # budget: {money: 1.00}               # a run stops before it costs more",
    ]
