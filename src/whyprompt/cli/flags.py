"""The library's messages in the words of the command line: its arguments as the options of a verb."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from whyprompt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import typer


# What is quoted is the caller's own, a column's name for instance, unless an argument stands before it. An
# apostrophe inside a word opens no quotation.
_VALUE = (
    r"(?:'[\w-]+'(?:(?:,| or) '[\w-]+')*|\[[^\]]*\]|True\b|False\b|-?\d+(?:\.\d+)?(?![\w.])|(?=[\s,;:.)]|$))"
)
_SAID = re.compile(
    rf"""(?P<quoted>(?<!\w)'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?<![\w.=-])(?P<name>[a-z_]+)=(?P<value>{_VALUE})"""
)
# The arguments that an option gives another name.
_OTHER_NAMES = {"random_state": "seed", "m": "impute"}


def in_flags(text: str, ctx: typer.Context, inside: Mapping[str, str] | None = None) -> str:
    """Write arguments of the library, ``method='naive'``, as options of a verb, ``--method naive``.

    Arguments without an option of their own stay as they are, as does what is quoted. ``inside`` has those
    that stand inside an option, each with what goes before it: ``{"caliper": "--method NAME:"}``.

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
        if option is None or getattr(option, "is_flag", False) or found["value"] in {"True", "False"}:
            return found[0]
        return f"{option.opts[0]} {_listed(found['value'], ',')}".rstrip()

    return _SAID.sub(said, text)


def _listed(value: str, joint: str) -> str:
    """Write a value without Python's quotes, and a list joined as the command line joins names."""
    if not value.startswith("["):
        return value.replace("'", "")
    columns = [part.strip("'") for part in value[1:-1].split(", ")]
    if columns == ["..."]:
        return joint.join("AB")
    return shlex.quote(joint.join(columns)) if columns[0] else ""


@contextmanager
def said_in_flags(ctx: typer.Context, inside: Mapping[str, str] | None = None) -> Iterator[None]:
    """Put the errors that the library raises inside the block into the words of a verb (`in_flags`)."""
    try:
        yield
    except InputError as error:
        hint = None if error.hint is None else in_flags(error.hint, ctx, inside)
        InputError.__init__(error, in_flags(error.message, ctx, inside), hint=hint)
        raise
