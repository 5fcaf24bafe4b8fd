"""The library's messages in the words of the command line: its arguments as options, or as a study's keys.

There is one door: a verb says its errors through `said_in_flags`, and what a result says beside its numbers
by ``result.summary(words=said)``.
"""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from whyprompt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import typer


# What is quoted is the caller's own, a column's name for instance, unless an argument stands before it. An
# apostrophe inside a word opens no quotation.
_VALUE = (
    r"(?:'[\w-]+'(?:(?:,| or) '[\w-]+')*|\[[^\]]*\]|True\b|False\b|-?\d+(?:\.\d+)?(?![\w.])"
    r"|\.\.\.|(?=[\s,;:.)]|$))"
)
_QUOTED = r"""(?P<quoted>(?<!\w)'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_SAID = re.compile(rf"{_QUOTED}|(?<![\w.=:-])(?P<name>[a-z_]+)=(?P<value>{_VALUE})")
_STUDIES = {".yaml", ".yml", ".toml"}
_OF_STUDY = re.compile(r"\b(whyprompt (?:run|mediate)) STUDY\b")
_TWICE = re.compile(r"(--[a-z-]+ \S+) \1:")
# The arguments that an option gives another name.
_OTHER_NAMES = {"random_state": "seed", "m": "impute"}
# What an argument gives, where a verb has no option for it.
_GIVEN = {"cluster": "a column of clusters"}
# What a verb does that Python has a function for.
_VERBS = {
    "compare_arms": "--as all-arms",
    "dose_response": "--as dose",
    "estimate_with_imputation": "--impute 20",
    "placebo_treatment": "--check placebo",
    "sensitivity_report": "--check sensitivity",
    "heterogeneous_effects": "--check whom:modifiers=A+B",
    "estimate_effect": "whyprompt effect",
    "log_effect": "whyprompt effect",
    "text_mediation": "whyprompt mediate",
    "paired_mediation": "whyprompt mediate",
    "read_trials": "whyprompt import",
    "compare_runs": "whyprompt compare",
    "run_study": "whyprompt run",
    "write_report": "whyprompt report",
}
# Keys of a study that the settings of its effect and its mediation do not name themselves.
_KEYS = {
    "treated": "effect.contrast.treated",
    "control": "effect.contrast.control",
    "cluster": "items.columns.cluster",
    "random_state": "seeds.analysis",
    "graph": "graph",
    "design": "design",
}
_SPEAKS: ContextVar[Callable[[str], str]] = ContextVar("speaks", default=str)


def said(text: str) -> str:
    """Put a message of the library into the words of the verb that is running; of none, leave it."""
    return _SPEAKS.get()(text)


def in_flags(text: str, ctx: typer.Context, inside: Mapping[str, str] | None = None) -> str:
    """Write arguments of the library, ``method='naive'``, as options of a verb, ``--method naive``.

    Arguments without an option of their own stay as they are, as does what is quoted. ``inside`` has those
    that stand inside an option, each with what goes before it: ``{"caliper": "--method NAME:"}``. A function
    is the verb or the option that does what it does.

    Examples
    --------
    >>> import typer
    >>> from whyprompt.cli import app
    >>> effect = typer.Context(typer.main.get_command(app).commands["effect"])
    >>> in_flags("give confounders=[...] or a graph, or method='naive'", effect)
    'give --confounders A,B or a graph, or --method naive'
    >>> in_flags("column 'cluster=' is missing; set replace=False, or folds=5", effect,
    ...          {"replace": "--method NAME:"})
    "column 'cluster=' is missing; set --method NAME:replace=false, or folds=5"
    >>> in_flags("for a dose there is dose_response", effect)
    'for a dose there is --as dose'
    """
    options = {option.name: option for option in ctx.command.params if option.param_type_name == "option"}

    def said(found: re.Match[str]) -> str:
        name = found["name"]
        if inside is not None and name in inside:
            key, value = f"{inside[name]}{name}", found["value"]
            if value == "True":
                return key
            return f"{key}={value.lower() if value == 'False' else _listed(value, '+')}"
        option = None if name is None else options.get(_OTHER_NAMES.get(name, name))
        if option is None and not found["value"]:
            return _GIVEN.get(name, found[0])
        if option is not None and option.secondary_opts:
            return (option.secondary_opts if found["value"] == "False" else option.opts)[0]
        if option is None or getattr(option, "is_flag", False) or found["value"] in {"True", "False"}:
            return found[0]
        return f"{option.opts[0]} {_listed(found['value'], ',')}".rstrip()

    # What does a function's work, before an argument that stands inside it: --impute 20 --impute 20:...
    return _TWICE.sub(r"\1:", _SAID.sub(said, _in_verbs(text, _VERBS)))


def in_keys(text: str) -> str:
    """Write arguments of the library as keys of a study file.

    Examples
    --------
    >>> in_keys("give confounders=[...], or method='naive'; templates need cluster=")
    'give effect.confounders: [A, B], or effect.method: naive; templates need items.columns.cluster'
    """

    def said(found: re.Match[str]) -> str:
        key = None if found["name"] is None else _study_keys().get(found["name"])
        if key is None:
            return found[0]
        value = found["value"].replace("'", "").replace("[...]", "[A, B]").removeprefix("...")
        value = value.lower() if value in {"True", "False"} else value
        return f"{key}: {value}" if value else key

    return _SAID.sub(said, _in_verbs(text, {}))


@cache
def _study_keys() -> dict[str, str]:
    """Give the library's arguments that a study has a key for."""
    from whyprompt.effects.methods.make import METHODS, options_of
    from whyprompt.study import EffectSettings, MediationSettings

    found = {
        option: f"effect.method.{method}.{option}" for method in METHODS for option in options_of(method)
    }
    found |= {name: f"mediation.{name}" for name in MediationSettings.model_fields}
    return found | {name: f"effect.{name}" for name in EffectSettings.model_fields} | _KEYS


@cache
def _functions() -> re.Pattern[str]:
    import whyprompt as wp

    names = "|".join(name for name in wp.__all__ if name.islower() and "_" in name)
    return re.compile(rf"{_QUOTED}|(?<![\w.])(?P<function>{names})\b(?:\((?P<given>[^()]*)\))?")


def _in_verbs(text: str, verbs: Mapping[str, str]) -> str:
    """Name the verb that does what a function does; one that has none is said to be Python's."""

    def said(found: re.Match[str]) -> str:
        if found["function"] is None:
            return found[0]
        verb = verbs.get(found["function"])
        if verb is None:
            return f"{found[0]} (in Python)"
        return f"{verb} {found['given']}" if found["given"] else verb

    return _functions().sub(said, text) if "_" in text else text


def _listed(value: str, joint: str) -> str:
    """Write a value without Python's quotes, and a list joined as the command line joins names."""
    if not value.startswith("["):
        return value.replace("'", "").replace("...", "NAME")
    columns = [part.strip("'") for part in value[1:-1].split(", ")]
    if columns == ["..."]:
        return joint.join("AB")
    return shlex.quote(joint.join(columns)) if columns[0] else ""


def speak(ctx: typer.Context | None, inside: Mapping[str, str] | None = None) -> None:
    """Have messages said from now on in options of a verb, or (without a context) in a study's keys."""
    _SPEAKS.set(in_keys if ctx is None else partial(in_flags, ctx=ctx, inside=inside))


def _with_study(text: str, ctx: typer.Context) -> str:
    """Name the study that the verb was given, so that a command which is said can be pasted."""
    named = [value for name, value in ctx.params.items() if name != "out"]
    listed = [path for value in named for path in (value if isinstance(value, list) else [value])]
    studies = [path for path in listed if isinstance(path, Path) and path.suffix.lower() in _STUDIES]
    if len(studies) != 1:
        return text
    out = ctx.params.get("out")
    words = shlex.join([str(studies[0]), *(["--out", str(out)] if out is not None else [])])
    return _OF_STUDY.sub(lambda found: f"{found[1]} {words}", text)


@contextmanager
def said_in_flags(ctx: typer.Context) -> Iterator[None]:
    """Put the errors that the library raises inside the block into the words of a verb."""
    token = _SPEAKS.set(partial(in_flags, ctx=ctx))
    try:
        yield
    except InputError as error:
        hint = None if error.hint is None else _with_study(said(error.hint), ctx)
        InputError.__init__(error, said(error.message), hint=hint)
        raise
    finally:
        _SPEAKS.reset(token)
