"""What is wrong in a study, in plain words: what stands there, what may, and a line to write instead."""

from __future__ import annotations

import re
import types
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag

from whyprompt._study_forms import KINDS, SOURCES, plain_name
from whyprompt._words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

# A line that can stand where a key is missing, or is of the wrong kind.
_LINES = {
    "name": "name: my_study",
    "question": "question: Do worked examples help?",
    "items": "items: [{source: file, path: questions.csv}]",
    "arms": "arms: [direct, few_shot]",
    "outcomes": "outcomes: [exact_match]",
    "source": "source: file",
    "dataset": "dataset: chain_sum",
    "path": "path: questions.csv",
    "columns": "columns: {question: question, answer: answer}",
    "kind": "kind: few_shot",
    "format": "format: json",
    "template": 'template: "{{ question }}"',
    "contrast": "contrast: {treated: few_shot, control: direct}",
    "treated": "contrast: {treated: few_shot, control: direct}",
    "control": "contrast: {treated: few_shot, control: direct}",
    "assignment": "assignment: {difficulty: 1.0}",
    "endpoint": "endpoint: https://HOST/v1",
    "key": "key: {env: OPENAI_API_KEY}",
    "env": "key: {env: OPENAI_API_KEY}",
    "low": "temperature: {low: 0.0, high: 1.0}",
    "high": "temperature: {low: 0.0, high: 1.0}",
    "input": "price: {input: 0.15, output: 0.60}",
    "output": "price: {input: 0.15, output: 0.60}",
    "model": "model: {name: embedded}",
}
_SECRET = {"key", "extra"}
_IS = {
    "int": ("a whole number", "3"),
    "float": ("a number", "0.5"),
    "finite": ("a number", "0.5"),
    "string": ("text", "text"),
    "bool": ("true or false", "true"),
    "list": ("a list", "[...]"),
    "tuple": ("a list", "[...]"),
    "dict": ("a mapping of keys", "{...}"),
    "model": ("a mapping of keys", "{...}"),
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "less than {}"),
    "too_short": ("min_length", "at least {} needed"),
    "too_long": ("max_length", "at most {} may stand here"),
    "string_too_short": ("min_length", "at least {} character(s) needed"),
    "string_too_long": ("max_length", "at most {} characters"),
}


def plain_problem(problem: ErrorDetails, root: type[BaseModel]) -> tuple[tuple[str | int, ...], str]:
    """Give where a problem that validation found is, and what it is, for who writes the file.

    The location still holds the tags of unions, which are no keys.
    """
    if problem["type"].startswith("union_tag"):
        return _of_union(problem["loc"], root, problem["input"], problem.get("ctx", {}))
    return problem["loc"], _said(problem, root)


def _said(problem: ErrorDetails, root: type[BaseModel]) -> str:
    kind, at, given = problem["type"], problem["loc"], problem["input"]
    context: Mapping[str, Any] = problem.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys(_at(root, at[:-1]))
        return f"unknown key{did_you_mean(str(at[-1]), known) or '; known are ' + ', '.join(known)}"
    if kind == "missing":
        return _line(at, root, "required key is missing")
    if kind == "literal_error":
        return f"{_shown(given, at)} is not known{_choice(str(given), _values(str(context['expected'])))}"
    if kind == "string_pattern_mismatch":
        return _pattern(str(context["pattern"]), str(given), at)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        said = f"{_shown(given, at)}: {words.format(context[name])}"
        return _line(at, root, said) if kind == "too_short" else said
    named = _IS.get(kind.partition("_")[0])
    if kind.startswith("model") and str(at[-1]) not in _LINES:
        return f"{_shown(given, at)} is not a mapping of keys; known are {', '.join(_keys(_at(root, at)))}"
    if named is not None:
        return _line(at, root, f"{_shown(given, at)} is not {named[0]}", named[1])
    return problem["msg"].removeprefix("Value error, ")


def _shown(value: object, at: Sequence[str | int] = ()) -> str:
    # Where a key may have been written by mistake, nothing is repeated.
    if _SECRET & set(at):
        return "what stands here"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _choice(given: str, known: Sequence[str]) -> str:
    near = did_you_mean(given, known)
    return f"{near or ';'} one of {', '.join(known)}"


def _values(expected: str) -> list[str]:
    """Read the values of a literal out of ``'a', 'b' or 'c'``."""
    return re.findall(r"'([^']*)'", expected)


def _line(at: Sequence[str | int], root: type[BaseModel], said: str, sample: str | None = None) -> str:
    """Add a line to write: one that is known for the key, else the key with its default or a sample."""
    while at and (isinstance(at[-1], int) or at[-1][0] in "(["):
        at = at[:-1]
    if not at:
        return said
    key = str(at[-1])
    field = _field(root, at)
    default = getattr(field, "default", None)
    if isinstance(default, bool):
        sample = str(default).lower()
    elif isinstance(default, int | float | str):
        sample = str(default)
    line = _LINES.get(key) or (f"{key}: {sample}" if sample is not None else "")
    return f"{said}; write {line}" if line else said


def _pattern(pattern: str, given: str, at: Sequence[str | int]) -> str:
    if at[-1] == "env":
        return f"{_shown(given, at)} is no name of an environment variable; write {_LINES['env']}"
    if ":" in pattern:
        return f"{given!r} is no function: write package.module:function"
    made = re.sub(r"\W+", "_", given.strip()).strip("_")
    made = made if re.fullmatch(pattern, made) else f"a_{made}" if re.fullmatch(pattern, f"a_{made}") else ""
    said = f"{given!r} is no name: a letter first, then letters, digits and _"
    return f"{said}; write {made}" if made else said


def _of_union(
    at: Sequence[str | int], root: type[BaseModel], given: object, context: Mapping[str, Any]
) -> tuple[tuple[str | int, ...], str]:
    """Say it of the key that tells members of a union apart: an arm's kind, an item's source."""
    key = str(context.get("discriminator", "")).strip("'")
    known = list(_tags(_at(root, at)))
    if not isinstance(given, dict):
        what = f"{_shown(given, at)} is not known{_choice(plain_name(str(given)), known)}"
        return tuple(at), _line((*at, key), root, what)
    if key not in given:
        return (*at, key), f"required key is missing; one of {', '.join(known)}; write {_LINES.get(key, key)}"
    value = str(given[key])
    near = did_you_mean(plain_name(value), KINDS if key == "kind" else SOURCES) or ";"
    return (*at, key), f"{given[key]!r} is not known{near} one of {', '.join(known)}"


# ------------------------------------------------------------------------------ what a location may hold
def _members(annotation: Any) -> list[tuple[Any, tuple[str, ...]]]:  # noqa: ANN401 - any type
    """Give the members of a type (itself, where it is no union), each with the tags that choose it."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        tags = tuple(m.tag for m in metadata if isinstance(m, Tag))
        return [(one, tags or own) for one, own in _members(inner)]
    if get_origin(annotation) in {Union, types.UnionType}:
        return [pair for part in get_args(annotation) for pair in _members(part)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        own = [get_args(fields[k].annotation) for k in ("kind", "source") if k in fields]
        return [(annotation, own[0] if own else ())]
    return [(annotation, ())]


def _tags(annotation: Any) -> list[str]:  # noqa: ANN401 - any type
    return [tag for _, tags in _members(annotation) for tag in tags]


def _at(annotation: Any, at: Sequence[str | int]) -> Any:  # noqa: ANN401 - any type
    """Give the type of what stands at a location; None where it is none that is known."""
    for part in at:
        members = _members(annotation)
        chosen = next((one for one, tags in members if part in tags), None)
        if chosen is not None:
            annotation = chosen
            continue
        found = [_step(one, part) for one, _ in members]
        annotation = next((one for one in found if one is not None), None)
        if annotation is None:
            return None
    return annotation


def _step(annotation: Any, part: str | int) -> Any:  # noqa: ANN401 - any type
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return None if field is None else field.annotation
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in {list, tuple} and isinstance(part, int):
        return args[0]
    return args[1] if origin is dict else None


def _keys(annotation: Any) -> tuple[str, ...]:  # noqa: ANN401 - any type
    models = [one for one, _ in _members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return tuple(dict.fromkeys(name for model in models for name in model.model_fields))


def _field(root: type[BaseModel], at: Sequence[str | int]) -> Any:  # noqa: ANN401 - pydantic's FieldInfo
    """Give the field that a location names, None where it is none of a model."""
    for model, _ in _members(_at(root, at[:-1])) if at else ():
        if isinstance(model, type) and issubclass(model, BaseModel):
            return model.model_fields.get(str(at[-1]))
    return None
