"""The short forms that a study may be written in, each as the standard one that is checked and stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from whyprompt._study_settings import Problem

KINDS = {
    **dict.fromkeys(("direct", "zero_shot", "zeroshot", "baseline"), "direct"),
    **dict.fromkeys(("few_shot", "fewshot", "k_shot"), "few_shot"),
    **dict.fromkeys(("chain_of_thought", "cot", "zero_shot_cot", "step_by_step"), "chain_of_thought"),
    **dict.fromkeys(("format",), "format"),
    **dict.fromkeys(("template", "jinja", "jinja2"), "template"),
}
"""Kinds of arms by every name that is understood."""

SOURCES = {
    **dict.fromkeys(("file", "csv", "tsv", "json", "jsonl", "ndjson", "parquet"), "file"),
    **dict.fromkeys(("hub", "hf", "huggingface", "hugging_face"), "hub"),
    **dict.fromkeys(("reasoning_gym", "gsm8k", "natural_instructions"), None),
}
# Kinds that need nothing said beside their name.
_BARE = {"direct", "few_shot", "chain_of_thought"}


def plain_name(text: str) -> str:
    """Write a name as settings are written: ``Zero-Shot`` is ``zero_shot``."""
    return "_".join(text.strip().lower().replace("-", " ").split())


def standard(value: dict[str, Any]) -> dict[str, Any]:
    """Give a study's content in its standard form; what is not understood is left for the check.

    Examples
    --------
    >>> standard({"arms": ["zero_shot", {"cot": None}], "outcomes": "exact_match"})["arms"]
    {'zero_shot': {'kind': 'direct'}, 'cot': {'kind': 'chain_of_thought'}}
    """
    out = dict(value)
    if "arms" in out:
        out["arms"] = _arms(out["arms"])
    if "items" in out:
        items = out["items"]
        out["items"] = [_source(one) for one in (items if isinstance(items, list) else [items])]
    if isinstance(out.get("model"), str):
        out["model"] = {"name": out["model"]}
    if isinstance(out.get("outcomes"), str | dict):
        out["outcomes"] = [out["outcomes"]]
    if isinstance(out.get("outcomes"), list):
        out["outcomes"] = [{"name": v} if isinstance(v, str) else v for v in out["outcomes"]]
    return _with_outcome(out)


def _with_outcome(value: dict[str, Any]) -> dict[str, Any]:
    """Make the first outcome the effect's, where it names none."""
    outcomes, effect = value.get("outcomes"), value.get("effect", {})
    first = outcomes[0] if isinstance(outcomes, list) and outcomes else None
    name = first.get("name") if isinstance(first, dict) else getattr(first, "name", None)
    if not isinstance(name, str):
        return value
    if isinstance(effect, dict) and "outcome" not in effect:
        return {**value, "effect": {**effect, "outcome": name}}
    if "outcome" not in getattr(effect, "model_fields_set", {"outcome"}):
        return {**value, "effect": effect.model_copy(update={"outcome": name})}
    return value


def _arms(arms: Any) -> Any:  # noqa: ANN401 - raw input, whatever the file holds
    if isinstance(arms, list):
        named = [_named(arm) for arm in arms]
        if any(one is None for one in named):
            return arms
        arms = {name: arm for one in named if one is not None for name, arm in [one]}
    if not isinstance(arms, dict):
        return arms
    return {name: _arm(name, arm) for name, arm in arms.items()}


def _named(arm: Any) -> tuple[str, Any] | None:  # noqa: ANN401 - raw input
    """Give the name of an arm in a list, and the rest of it; None where it has none."""
    if isinstance(arm, str):
        return plain_name(arm), arm
    if not isinstance(arm, dict):
        return None
    if isinstance(arm.get("name"), str):
        return arm["name"], {key: v for key, v in arm.items() if key != "name"}
    if len(arm) == 1 and "kind" not in arm:
        return next(iter(arm.items()))
    return (plain_name(arm["kind"]), arm) if isinstance(arm.get("kind"), str) else None


def _arm(name: Any, arm: Any) -> Any:  # noqa: ANN401 - raw input
    if arm is None or arm == {} or (isinstance(arm, dict) and "kind" not in arm):
        kind = KINDS.get(plain_name(name)) if isinstance(name, str) else None
        return arm if kind is None or (not arm and kind not in _BARE) else {"kind": kind, **(arm or {})}
    if isinstance(arm, str):
        return {"kind": KINDS.get(plain_name(arm), arm)}
    if isinstance(arm, dict) and isinstance(arm["kind"], str):
        return {**arm, "kind": KINDS.get(plain_name(arm["kind"]), arm["kind"])}
    return arm


def _source(item: Any) -> Any:  # noqa: ANN401 - raw input
    if isinstance(item, str):
        return {"source": "file", "path": item}
    if not isinstance(item, dict):
        return item
    out = dict(item)
    if isinstance(out.get("source"), str):
        named = plain_name(out["source"])
        out["source"] = SOURCES.get(named) or (named if named in SOURCES else out["source"])
    elif "source" not in out and isinstance(out.get("path"), str) and Path(out["path"]).suffix:
        out["source"] = "file"
    elif "source" not in out and "dataset" in out:
        out["source"] = "reasoning_gym"
    if out.get("size") == "all" and out.get("source") != "reasoning_gym":  # which never ends
        del out["size"]
    return out


def told_twice(arms: Any) -> Iterator[Problem]:  # noqa: ANN401 - raw input
    """Find arms of a list that have one name."""
    names = [named[0] for arm in arms if (named := _named(arm)) is not None] if isinstance(arms, list) else []
    for i, name in enumerate(names):
        if name in names[:i]:
            why = f"two arms are called {name!r}: give each a name of its own, {{name: second, kind: ...}}"
            yield ("arms", i), why


# --------------------------------------------------------------------------- the same, said to an editor
_TEXT = {"type": "string"}


def with_short_forms(schema: dict[str, Any]) -> dict[str, Any]:
    """Let the JSON schema of the standard form accept the short ones; names are offered in small letters."""
    defs, keys = dict(schema["$defs"]), dict(schema["properties"])
    items, outcomes, model, arms = (keys[key] for key in ("items", "outcomes", "model", "arms"))
    for name in _refs(items["items"]):
        defs[name] = _source_schema(defs[name])
    defs["Source"] = {"anyOf": [*items["items"]["oneOf"], _TEXT]}
    keys["items"] = _one_or(items, {"$ref": "#/$defs/Source"})
    keys["outcomes"] = _one_or(outcomes, outcomes["items"])
    keys["model"] = {**model, "oneOf": [*model["oneOf"], _TEXT]}
    ((pattern, arm),) = arms["patternProperties"].items()
    bare = {"enum": [name for kind in sorted(_BARE) for name in _called(KINDS, kind)]}
    whole: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    by_name: dict[str, Any] = {}
    for name in _refs(arm):
        kind = defs[name]["properties"]["kind"]["const"]
        names = _called(KINDS, kind)
        part = _told_by(defs[name], "kind", names)
        defs[name] = {**part, "properties": {**part["properties"], "name": _TEXT}}
        # A name stands in a list, and the kind where no name tells it.
        ref = {"$ref": f"#/$defs/{name}"}
        unnamed = {**ref, "properties": {"name": False}}
        whole.append({**unnamed, "required": ["kind"]})
        called = {"required": ["name"], "properties": {"name": {"enum": names}}}
        listed.append({**ref, "anyOf": [{"required": ["kind"]}, called]})
        nothing = [{"type": "null"}] if kind in _BARE else []
        by_name[f"^({'|'.join(names)})$"] = {"anyOf": [{"$ref": "#/$defs/Arm"}, unnamed, *nothing]}
    defs["Arm"] = {"anyOf": [*whole, bare]}
    by_name[f"^(?!({'|'.join(KINDS)})$){pattern.removeprefix('^')}"] = {"$ref": "#/$defs/Arm"}
    mapping = {**arms, "patternProperties": by_name}
    one = {"anyOf": [bare, *listed, {**mapping, "maxProperties": 1}]}
    keys["arms"] = {"anyOf": [mapping, {"type": "array", "minItems": 1, "items": one}]}
    return {**schema, "$defs": defs, "properties": keys}


def _one_or(many: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{**many, "items": one}, one]}


def _refs(union: dict[str, Any]) -> list[str]:
    return [one["$ref"].rpartition("/")[2] for one in union["oneOf"]]


def _called(known: Mapping[str, str | None], standard_name: str) -> list[str]:
    """Give the names that are understood for one, with hyphens too."""
    names = [name for name, means in known.items() if (means or name) == standard_name]
    return list(dict.fromkeys(form for name in names for form in (name, name.replace("_", "-"))))


def _told_by(part: dict[str, Any], key: str, names: list[str]) -> dict[str, Any]:
    """Let the key that tells a part have any of its names, or be left out."""
    return {
        **part,
        "properties": {**part["properties"], key: {"enum": names}},
        "required": [other for other in part["required"] if other != key],
    }


def _source_schema(part: dict[str, Any]) -> dict[str, Any]:
    name = part["properties"]["source"]["const"]
    part = _told_by(part, "source", _called(SOURCES, name))
    if name == "file":
        part["anyOf"] = [{"required": ["source"]}, {"properties": {"path": {"pattern": r"\.[^./\\]+$"}}}]
    elif name != "reasoning_gym":
        part["required"] = ["source", *part["required"]]
    if name != "reasoning_gym":
        size = part["properties"]["size"]
        part["properties"]["size"] = {**size, "anyOf": [*size["anyOf"], {"const": "all"}]}
    return part
