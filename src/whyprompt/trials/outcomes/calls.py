"""Functions of the user's own, by import path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whyprompt.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def load_call(path: str, *, outcome: str) -> Callable[..., Any]:
    """Import ``package.module:function``; modules in the current folder are found too.

    Raises
    ------
    StudyError
        If it cannot be imported or is no function; the message names the outcome.
    """
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        target: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except Exception as error:
        # Importing runs the user's module: whatever it raises is theirs to see.
        raise StudyError(
            f"outcome {outcome!r}: {path!r} cannot be imported: {type(error).__name__}: {error}",
            hint="modules are found on Python's path and in the current folder",
        ) from error
    if not callable(target):
        raise StudyError(f"outcome {outcome!r}: {path!r} is not callable")
    result: Callable[..., Any] = target
    return result


def called(path: str, given: Mapping[str, Any] | str, *, outcome: str, where: str) -> Any:  # noqa: ANN401 - what it gives
    """Call a function of the user's own, by its keywords or with one text.

    Any failure is theirs to see, with the trial it happened on.

    Raises
    ------
    StudyError
        Naming the outcome and the trial.
    """
    call = load_call(path, outcome=outcome)
    try:
        return call(given) if isinstance(given, str) else call(**given)
    except Exception as error:
        raise StudyError(f"outcome {outcome!r} failed on {where}: {type(error).__name__}: {error}") from error
