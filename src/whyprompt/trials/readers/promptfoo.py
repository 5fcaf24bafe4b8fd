"""promptfoo's results: the JSON file, JSON Lines of one result each, and the table as CSV.

Follows promptfoo's documented output types (EvaluateSummaryV2, V3 and later) and the columns that its CSV
export writes, one block of columns a prompt under names that repeat. Read in real files of 0.123.1.

A repeat of a test has its own `testIdx`: it is the same item again, not another one. `error` is filled where
an assertion fails as well: a trial went wrong where `failureReason` is 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from whyprompt._rows import json_rows, json_value
from whyprompt.errors import DataError
from whyprompt.trials.readers import promptfoo_table
from whyprompt.trials.readers.promptfoo_tests import Tests, read_scores, score_name
from whyprompt.trials.readers.record import Log, LoggedTrial, Stated
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.chats import conversation
from whyprompt.trials.reading.fields import mapping, number_of, objects, text_of, text_or_none, whole_of
from whyprompt.trials.reading.questions import Repeats
from whyprompt.trials.reading.rows import Row, head_of
from whyprompt.trials.reading.settings import SAMPLING, by_role, pick, scalars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from whyprompt.trials.readers.record import Scalar, Values

name = "promptfoo"
_TAKEN = {
    "item": "testCase.description, else its metadata's id, else vars",
    "question": "vars",
    "target": "vars",
    "rep": "the order of testIdx within an item",
    "scores": "score, success, namedScores",
    "covariates": "vars, testCase.metadata",
    "prompt": "prompt.raw",
    "completion": "response.output",
    "prompt_tokens": "tokenUsage.prompt",
    "completion_tokens": "tokenUsage.completion",
    "cost": "cost",
    "latency_s": "latencyMs",
    "error": "error, where failureReason is 2",
}
_WENT_WRONG = 2
_ADDRESS = re.compile(r"\w+://(?:[^/@]*@)?(?P<host>[^?#]+)")


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of promptfoo."""
    del path
    if promptfoo_table.is_export(head):
        return 1.0
    keys = heads.keys(head)
    if {"evalId", "results"} <= keys or {"results", "config", "shareableUrl"} <= keys:
        return 1.0
    known = (
        {"results.version", "results.results"},
        {"version", "results", "results[].success"},
        {"version", "results", "prompts[].metrics"},
        {"results[].success", "results[].vars"},
        {"vars", "success", "score", "prompt.raw", "provider"},  # a line
    )
    return 0.95 if any(one <= keys for one in known) else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the one run in a file."""
    head = head_of(path)
    kind = heads.container(head)
    if promptfoo_table.is_export(head):
        yield promptfoo_table.table(name, path, heads.separator(head))
    elif kind == "lines" or (kind == "object" and "results" not in heads.keys(head)):
        yield _log(path, {}, partial(_lines, path))
    else:
        document = mapping(json_value(path.read_bytes(), path))
        summary = mapping(document.get("results")) or document
        results = summary.get("results")
        if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
            raise DataError(
                f"{path}: 'results' does not hold a list of results",
                hint="write the results anew: promptfoo export eval ID -o results.json",
            )
        yield _log(path, document | {"summary": summary}, partial(_placed, path, results))


_Rows = Callable[[], Iterator[tuple[str, Row]]]


def _lines(path: Path) -> Iterator[tuple[str, Row]]:
    return ((f"{path}:{line}", row) for line, row in json_rows(path))


def _placed(path: Path, results: list[Row]) -> Iterator[tuple[str, Row]]:
    return ((f"{path}, result {number}", row) for number, row in enumerate(results, start=1))


def _log(path: Path, document: Row, rows: _Rows) -> Log:
    summary, config, about = (mapping(document.get(key)) for key in ("summary", "config", "metadata"))
    head = mapping(mapping(summary.get("table")).get("head"))
    prompts = objects(summary.get("prompts") or head.get("prompts"))
    items, arms, judges = _survey(path, rows(), prompts, config)
    version = text_of(about.get("promptfooVersion"))
    return Log(
        path=path,
        format=name,
        fields=_TAKEN,
        version=version or (f"results {summary['version']}" if "version" in summary else ""),
        settings=by_role(
            judge={"assert": "; ".join(sorted(judges))} if judges else {},
            harness=pick(about, ("promptfooVersion",)) | pick(summary, ("version",), "results."),
            date=pick(summary, ("timestamp",), "results."),
            other=pick(config, ("description",), "config."),
        ),
        stated=tuple(_stated(prompts, arms)),
        notes=items.notes(),
        trials=partial(_trials, rows, items, arms),
    )


_Arm = tuple[Any, ...]


def _arm(row: Row) -> _Arm:
    provider, prompt = row.get("provider"), mapping(row.get("prompt"))
    by = {"id": provider} if isinstance(provider, str) else mapping(provider)
    found = (
        *(row.get("promptId") or prompt.get("id"), _called(prompt)),
        *(by.get("id"), by.get("label")),
    )
    index = row.get("promptIdx")
    return (index if isinstance(index, int) else None, *(text_of(each) or None for each in found))


def _survey(
    path: Path, rows: Iterable[tuple[str, Row]], prompts: list[Row], config: Row
) -> tuple[Tests, dict[_Arm, Mapping[str, Values]], set[str]]:
    items = Tests()
    arms: dict[_Arm, Mapping[str, Values]] = {}
    judges: set[str] = set()
    for where, row in rows:
        if not ("success" in row or "score" in row):
            raise DataError(
                f"{where}: has neither 'success' nor 'score'",
                hint="leave out results that promptfoo did not write",
            )
        items.meet(row)
        arm = _arm(row)
        if arm not in arms:
            arms[arm] = _settings(arm, prompts, config)
        judges.update(_judge(each) for each in _asserts(row))
    if not arms:
        raise DataError(f"{path} holds no results", hint="run the evaluation, then export it again")
    return items, arms, judges


def _asserts(row: Row) -> list[Row]:
    return objects(mapping(row.get("testCase")).get("assert"))


def _judge(each: Row) -> str:
    provider = each.get("provider")
    by = provider.get("id") if isinstance(provider, dict) else provider
    return " ".join(part for part in map(text_of, (each.get("type"), each.get("metric"), by)) if part)


def _settings(arm: _Arm, prompts: list[Row], config: Row) -> Mapping[str, Values]:
    _, identity, label, provider, shown = arm
    index = _index(arm, prompts)
    template = None if index is None else prompts[index].get("raw")
    given = objects(config.get("providers"))
    served = [p for p in given if provider in (p.get("id"), p.get("label"))]
    options = mapping(served[0].get("config")) if len(served) == 1 else {}
    # Nothing else of an address: a name and a password may stand in it.
    address = _ADDRESS.match(text_of(options.get("apiBaseUrl") or options.get("apiHost")))
    return by_role(
        prompt=pick({"label": label, "id": identity, "raw": template}, ("label", "id", "raw"), "prompt."),
        model=pick({"id": provider, "label": shown}, ("id", "label"), "provider."),
        engine={"apiBaseUrl": address["host"]} if address else {},
        sampling=pick(options, SAMPLING, "config."),
        seed=pick(options, ("seed",), "config."),
    )


def _called(prompt: Row) -> object:
    return prompt.get("label") or prompt.get("display")


def _index(arm: _Arm, prompts: list[Row]) -> int | None:
    """Give the place of an arm among the run's prompts; older layouts tell it by label and provider alone."""
    index, _, label, *provider = arm
    if index is not None:
        return index if 0 <= index < len(prompts) else None
    same = [i for i, p in enumerate(prompts) if _called(p) == label and p.get("provider") in provider]
    return same[0] if len(same) == 1 else None


def _trials(rows: _Rows, items: Tests, arms: dict[_Arm, Mapping[str, Values]]) -> Iterator[LoggedTrial]:
    met = Repeats()
    for where, row in rows():
        item, question, target, rest = items.of(row)
        arm = _arm(row)
        given = row.get("response")
        response = {"output": given} if isinstance(given, str) else mapping(given)
        used = mapping(response.get("tokenUsage") or row.get("tokenUsage"))
        wrong = _error(row, response)
        latency = number_of(row.get("latencyMs"))
        yield LoggedTrial(
            item=item,
            question=question,
            target=target,
            rep=items.rep(row, arm, met),
            scores=_scores(row, where, went=wrong is None),
            covariates=scalars(rest) | _about(row),
            settings=arms[arm],
            prompt=conversation(mapping(row.get("prompt")).get("raw")),
            completion=text_or_none(response.get("output")),
            prompt_tokens=whole_of(used.get("prompt")),
            completion_tokens=whole_of(used.get("completion")),
            cost=number_of(row.get("cost")),
            # What came out of promptfoo's cache took no time.
            latency_s=None if latency is None or response.get("cached") else latency / 1000,
            error=wrong,
        )


def _about(row: Row) -> dict[str, Scalar]:
    about = scalars(mapping(mapping(row.get("testCase")).get("metadata")))
    return {key: value for key, value in about.items() if key not in {"id", "item_id"}}


def _error(row: Row, response: Row) -> str | None:
    reason = row.get("failureReason")
    # Older layouts have no reason: what was graded went well.
    wrong = (
        reason == _WENT_WRONG
        if reason is not None
        else bool(row.get("error")) and not row.get("gradingResult")
    )
    if not wrong:
        return None
    return text_of(row.get("error") or response.get("error")) or "error without a message"


def _scores(row: Row, where: str, *, went: bool) -> dict[str, float | None]:
    # What went wrong has none of the scores that were asked for.
    asked = () if went else (each.get("metric") for each in _asserts(row))
    named: Row = dict.fromkeys(metric for metric in asked if metric and isinstance(metric, str))
    named |= mapping(row.get("namedScores") or mapping(row.get("gradingResult")).get("namedScores"))
    return read_scores(row.get("score"), row.get("success"), named, where, went=went)


def _stated(prompts: list[Row], arms: dict[_Arm, Mapping[str, Values]]) -> Iterator[Stated]:
    """Give the means of each prompt; trials that went wrong count as 0 in its sums, and are none of its n."""
    for index, prompt in enumerate(prompts):
        mine = [settings for arm, settings in arms.items() if _index(arm, prompts) == index]
        metrics = mapping(prompt.get("metrics"))
        passed, failed = (whole_of(metrics.get(f"test{k}Count")) for k in ("Pass", "Fail"))
        n = (passed or 0) + (failed or 0)
        if passed is None or not n or len(mine) != 1 or sum(s == mine[0] for s in arms.values()) != 1:
            continue
        where = {**mine[0].get("prompt", {}), **mine[0].get("model", {})}
        if (total := number_of(metrics.get("score"))) is not None:
            yield Stated("score", total / n, where, n)
        yield Stated("success", passed / n, where, n)
        counted = mapping(metrics.get("namedScoresCount"))
        for key, given in mapping(metrics.get("namedScores")).items():
            # Counted otherwise, it is a mean of other than one a trial.
            if counted.get(key) == n and (total := number_of(given)) is not None:
                yield Stated(score_name(key), total / n, where, n)
