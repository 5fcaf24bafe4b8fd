"""The library's messages in the words of the command line: its arguments as the options of a verb."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from whyprompt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer

__all__ = ["in_flags", "said_in_flags"]

# What is quoted is the caller's own, a column's name for instance, unless an argument stands before it. An
# apostrophe inside a word opens no quotation.
_VALUE = (
    r"(?:'[\w-]+'(?:(?:,| or) '[\w-]+')*|\[[^\]]*\]|True\b|False\b|-?\d+(?:\.\d+)?(?![\w.])|(?=[\s,;:.)]|$))"
)
_SAID = re.compile(
    rf"""(?P<quoted>(?<!\w)'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?<![\w.=-])(?P<name>[a-z_]+)=(?P<value>{_VALUE})"""
)
# The arguments that an option gives another name.
_OTHER_NAMES = {"random_state": "seed"}


def in_flags(text: str, ctx: typer.Context) -> str:
    """Write arguments of the library, ``method='naive'``, as options of a verb, ``--method naive``.

    Arguments without an option of their own stay as they are, as does what is quoted.

    Parameters
    ----------
    text : str
        A message or a hint.
    ctx : typer.Context
        Of the verb.

    Returns
    -------
    str

    Examples
    --------
    >>> import typer
    >>> from whyprompt.cli import app
    >>> effect = typer.Context(typer.main.get_command(app).commands["effect"])
    >>> in_flags("give confounders=[...] or a graph, or method='naive'", effect)
    'give --confounders A,B or a graph, or --method naive'
    >>> in_flags("column 'cluster=' is missing; set replace=False, or folds=5", effect)
    "column 'cluster=' is missing; set --no-replace, or folds=5"
    """
    options = {option.name: option for option in ctx.command.params if option.param_type_name == "option"}

    def said(found: re.Match[str]) -> str:
        name = found["name"]
        option = None if name is None else options.get(_OTHER_NAMES.get(name, name))
        if option is None:
            return found[0]
        value = found["value"]
        if value in {"True", "False"}:
            # An option that is on or off; one that takes a value has no such words.
            flags = option.opts if value == "True" else option.secondary_opts
            return flags[0] if option.secondary_opts else found[0]
        if getattr(option, "is_flag", False):
            return found[0]
        if value.startswith("["):
            columns = [part.strip("'") for part in value[1:-1].split(", ")]
            value = "A,B" if columns == ["..."] else shlex.quote(",".join(columns)) if columns[0] else ""
        else:
            value = value.replace("'", "")
        return f"{option.opts[0]} {value}".rstrip()

    return _SAID.sub(said, text)


@contextmanager
def said_in_flags(ctx: typer.Context) -> Iterator[None]:
    """Put the errors that the library raises inside the block into the words of a verb.

    Parameters
    ----------
    ctx : typer.Context
        Of the verb.
    """
    try:
        yield
    except InputError as error:
        hint = None if error.hint is None else in_flags(error.hint, ctx)
        InputError.__init__(error, in_flags(error.message, ctx), hint=hint)
        raise
