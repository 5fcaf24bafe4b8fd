"""The exceptions of whyprompt, each with the exit code a command line gives it.

::

    WhypromptError                  exit code 1: a failure that is not the user's
    └── InputError                  exit code 2: something the user can mend
        ├── StudyError              a study file
        ├── DataError               a table, a column, an item
        ├── PromptError             an arm, a template, an answer that cannot be scored
        ├── ModelError              a model that cannot be loaded or used
        ├── StoreError              a store of trials
        ├── GraphError              a causal graph, or what it forbids
        ├── EstimationError         an effect that cannot be estimated
        └── MediationError          a mediation that is not defined
"""

from __future__ import annotations

import re
from typing import ClassVar

from whyprompt._words import did_you_mean

_UNKNOWN = re.compile(r"'([^']+)' is not known$")


class WhypromptError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message : str
        What is wrong, naming the column, file or key.
    hint : str, optional
        What to do about it. Where a name is not known, it ends in the one that was probably meant.

    Examples
    --------
    >>> WhypromptError("method 'neerest' is not known", hint="one of: naive, nearest").hint
    "one of: naive, nearest; did you mean 'nearest'?"
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        if (unknown := _UNKNOWN.search(message)) is not None and hint and "did you mean" not in hint:
            hint += did_you_mean(unknown[1], re.findall(r"[\w-]{2,}", hint))
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


class InputError(WhypromptError):
    """Something the caller gave is wrong, and the caller can mend it."""

    exit_code = 2


class StudyError(InputError):
    """A study file is not valid."""


class DataError(InputError):
    """A table, a column or an item is missing or malformed."""


class PromptError(InputError):
    """A prompt cannot be rendered, or its answer cannot be scored."""


class ModelError(InputError):
    """A model cannot be loaded or used as asked."""


class StoreError(InputError):
    """A store of trials cannot be opened, read or written."""


class GraphError(InputError):
    """A causal graph is malformed, or forbids what was asked."""


class EstimationError(InputError):
    """An effect cannot be estimated from these data."""


class MediationError(InputError):
    """A mediation analysis is not defined for these prompts or this model."""
