"""OpenTelemetry's spans of generative models, as the OTLP JSON that collectors and exporters write.

Follows the OTLP JSON encoding and the semantic conventions for generative AI: spans with `gen_ai.*`
attributes, and evaluations as events `gen_ai.evaluation.result`, of a span or as log records that name one.
A file is one object, or one a line. Tested on files made by hand.

A trial is a span of the operation that was evaluated; where none was, a call of a model.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._rows import json_rows, json_value
from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads, traces
from whyprompt.trials.reading.chats import conversation, last_said
from whyprompt.trials.reading.fields import mapping, parsed, text_of, text_or_none, whole_of
from whyprompt.trials.reading.questions import Repeats, question_of
from whyprompt.trials.reading.rows import has_lines, head_of
from whyprompt.trials.reading.settings import SAMPLING, by_role, pick

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from whyprompt.trials.readers.record import Values
    from whyprompt.trials.reading.rows import Row

name = "OpenTelemetry"
_TAKEN = {
    "question": "gen_ai.input.messages, the user's last",
    "scores": "gen_ai.evaluation.result",
    "prompt": "gen_ai.input.messages",
    "completion": "gen_ai.output.messages",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "latency_s": "the span's start to its end",
    "started_at": "the span's start",
    "error": "error.type, or the span's status",
}
_CALLS = frozenset({"chat", "text_completion", "generate_content"})
_RESULT = "gen_ai.evaluation.result"
# The names of conventions of other ages for the same thing, the present one first.
_SENT = ("gen_ai.input.messages", "gen_ai.prompt")
_CAME = ("gen_ai.output.messages", "gen_ai.completion")
_USED = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_MADE = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_ROLES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("gen_ai.prompt.name", "gen_ai.prompt.version", "gen_ai.system_instructions"),
    "model": ("gen_ai.request.model", "gen_ai.response.model"),
    "engine": ("gen_ai.provider.name", "gen_ai.system", "server.address"),
    "sampling": tuple(f"gen_ai.request.{key}" for key in SAMPLING),
    "seed": ("gen_ai.request.seed",),
    "harness": ("service.name", "service.version"),
}
_Scores = dict[str, float | None]


class _Span(NamedTuple):
    """A span or a log record with its attributes, its resource's, and those of its evaluations."""

    row: Row
    attributes: Row
    resource: Row
    results: list[Row]


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file holds spans of generative models."""
    del path
    keys = heads.keys(head)
    if not keys & {"resourceSpans", "resourceLogs", "resource_spans", "resource_logs"}:
        return 0.0
    return 1.0 if b"gen_ai." in head else 0.6


def read(path: Path) -> Iterator[Log]:
    """Give the spans in a file, as one log."""
    scores: defaultdict[str, _Scores] = defaultdict(dict)
    operations: dict[str, str] = {}
    n = 0
    for kind, one in _signals(path):
        found = one.attributes
        if kind == "log":
            if _event_name(one.row) == _RESULT:
                scores[_whose(one.row, found)] |= _score(found)
            continue
        n += 1
        span = _span_id(one.row)
        operations[span] = _operation(found)
        for result in one.results:
            scores[span] |= _score(result)
        if "gen_ai.evaluation.name" in found:
            # Some write an evaluation as a span of its own, under the one that it is of.
            scores[text_of(one.row.get("parentSpanId"))] |= _score(found)
    if not n:
        raise DataError(f"{path} holds no spans", hint="export the traces too, not the logs alone")
    evaluated = {operations[span] for span in scores if span in operations}
    yield Log(
        path=path,
        format=name,
        fields=_TAKEN,
        trials=partial(_trials, path, dict(scores), frozenset(evaluated) or _CALLS),
    )


def _signals(path: Path) -> Iterator[tuple[str, _Span]]:
    """Give the spans and log records of a file, each with its kind."""
    if has_lines(path, head_of(path)):
        documents = ((f"{path}:{line}", row) for line, row in json_rows(path))
    else:
        whole = json_value(path.read_bytes(), path)
        several = whole if isinstance(whole, list) else [whole]
        documents = ((f"{path}, object {k}", one) for k, one in enumerate(several, start=1))
    for where, document in documents:
        try:
            yield from _parts(_renamed(document))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DataError(
                f"{where}: is not as OTLP JSON is", hint="export with the OTLP JSON or file exporter"
            ) from None


def _renamed(document: Row) -> Row:
    """Name the parts of a document as OTLP JSON does, where protocol buffers' names were kept."""
    return {_CAMEL.get(key, key): value for key, value in document.items()}


_CAMEL = {"resource_spans": "resourceSpans", "resource_logs": "resourceLogs"}


def _parts(document: Row) -> Iterator[tuple[str, _Span]]:
    for kind, outer, inner, last in (
        ("span", "resourceSpans", "scopeSpans", "spans"),
        ("log", "resourceLogs", "scopeLogs", "logRecords"),
    ):
        for resource in document.get(outer) or ():
            about = _attributes((resource.get("resource") or {}).get("attributes"))
            for scope in resource.get(inner) or ():
                for row in scope.get(last) or ():
                    found = [e for e in row.get("events") or () if e.get("name") == _RESULT]
                    results = [_attributes(event.get("attributes")) for event in found]
                    yield kind, _Span(row, _attributes(row.get("attributes")), about, results)


def _attributes(given: Any) -> dict[str, Any]:  # noqa: ANN401 - a list of keys and values
    return {one["key"]: _value(one.get("value") or {}) for one in given or () if isinstance(one["key"], str)}


def _value(given: Row) -> Any:  # noqa: ANN401 - any JSON
    for kind, value in given.items():
        if kind == "intValue":
            return int(value)  # written as text, so that no digit is lost
        if kind == "arrayValue":
            return [_value(one) for one in value.get("values") or ()]
        if kind == "kvlistValue":
            return _attributes(value.get("values"))
        return value
    return None


def _span_id(row: Row) -> str:
    return text_of(row.get("spanId"))


def _event_name(row: Row) -> str:
    older = _attributes(row.get("attributes")).get("event.name")
    return text_of(row.get("eventName") or older)


def _whose(row: Row, found: Row) -> str:
    """Say of which span a record is: by its id, else by that of the response."""
    return _span_id(row) or f"response {found.get('gen_ai.response.id')}"


def _score(found: Row) -> _Scores:
    value, label = found.get("gen_ai.evaluation.score.value"), found.get("gen_ai.evaluation.score.label")
    if found.get("error.type"):
        value = label = None
    return traces.named_scores([(text_of(found.get("gen_ai.evaluation.name")), (value, label))])


def _operation(found: Row) -> str:
    given = found.get("gen_ai.operation.name")
    # Older conventions name no operation; a call names the model that it asks for.
    return text_of(given) or ("chat" if "gen_ai.request.model" in found else "")


def _trials(path: Path, scores: dict[str, _Scores], operations: frozenset[str]) -> Iterator[LoggedTrial]:
    met = Repeats()
    for kind, (row, found, resource, _) in _signals(path):
        if kind == "log" or _operation(found) not in operations or "gen_ai.evaluation.name" in found:
            continue
        sent = traces.opened(found, _SENT) or _indexed(found, "gen_ai.prompt")
        came = traces.opened(found, _CAME) or _indexed(found, "gen_ai.completion")
        told = parsed(found.get("gen_ai.system_instructions"))
        whole = [{"role": "system", "content": told}, *sent] if told and isinstance(sent, list) else sent
        settings = _settings(resource | found)
        question = question_of(sent)[1]
        wrong = _error(row, found)
        own = scores.get(f"response {found.get('gen_ai.response.id')}", {}) | scores.get(_span_id(row), {})
        start, end = (_nanoseconds(row.get(key)) for key in ("startTimeUnixNano", "endTimeUnixNano"))
        begun = None if start is None else traces.moment(start / 1e9)
        yield LoggedTrial(
            question=question,
            rep=met.next(question, text_of(settings)),
            scores=dict.fromkeys(own) if wrong else own,
            settings=settings,
            prompt=conversation(whole),
            completion=last_said(came, "assistant") if isinstance(came, list) else text_or_none(came),
            prompt_tokens=whole_of(traces.opened(found, _USED)),
            completion_tokens=whole_of(traces.opened(found, _MADE)),
            latency_s=None if start is None or end is None else (end - start) / 1e9,
            started_at=begun.isoformat() if begun else None,
            error=wrong,
        )


def _settings(found: Row) -> dict[str, Values]:
    return by_role(**{role: pick(found, names) for role, names in _ROLES.items()})


def _error(row: Row, found: Row) -> str | None:
    status = mapping(row.get("status"))
    failed = text_of(status.get("code")) in {"2", "STATUS_CODE_ERROR"}
    if not failed and not found.get("error.type"):
        return None
    return text_of(status.get("message") or found.get("error.type")) or "error without a message"


def _nanoseconds(value: object) -> int | None:
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return None


def _indexed(found: Row, start: str) -> list[Row] | None:
    """Read a conversation that is spread over attributes, as instrumentations wrote before it had a form."""
    messages: defaultdict[int, Row] = defaultdict(dict)
    for key, value in found.items():
        place, _, field = key.removeprefix(f"{start}.").partition(".")
        if key.startswith(f"{start}.") and place.isdigit() and field in {"role", "content"}:
            messages[int(place)][field] = value
    return [messages[place] for place in sorted(messages)] or None
