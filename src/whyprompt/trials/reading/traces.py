"""What exports of observability tools have in common: calls and experiments with scores beside them."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from whyprompt.trials.readers.record import score_value
from whyprompt.trials.reading.fields import mapping, parsed
from whyprompt.trials.reading.questions import KNOWN
from whyprompt.trials.reading.settings import SAMPLING, scalars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from whyprompt.trials.readers.record import Scalar, Values
    from whyprompt.trials.reading.rows import Row

_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What people write down of a run, by the role that it has.
_ROLES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("arm", "variant", "prompt", "prompt_name", "prompt_version", "prompt_id", "prompt_label"),
            *("prompt_template", "template", "system_prompt", "lc_hub_repo", "lc_hub_commit_hash"),
        ),
        "prompt",
    ),
    **dict.fromkeys(("model", "model_name", "model_id", "ls_model_name", "deployment"), "model"),
    **dict.fromkeys(("provider", "ls_provider"), "engine"),
    **dict.fromkeys((*SAMPLING, "ls_temperature", "ls_max_tokens", "ls_stop"), "sampling"),
    "seed": "seed",
}


def snake(row: Row) -> Row:
    """Name a row's fields as files do, where an interface names them otherwise: `traceId` is `trace_id`.

    Examples
    --------
    >>> snake({"traceId": 1, "name": 2})
    {'trace_id': 1, 'name': 2}
    """
    return {_UPPER.sub("_", key).lower(): value for key, value in row.items()}


def noted(metadata: object, prefix: str = "metadata.") -> tuple[dict[str, Values], dict[str, Scalar]]:
    """Part what was written beside a trial into settings by role, and what was known of its item.

    What is neither by its name may have come after the answer: it is left out.
    """
    settings: defaultdict[str, dict[str, Scalar]] = defaultdict(dict)
    known: dict[str, Scalar] = {}
    for key, value in mapping(parsed(metadata)).items():
        role = _ROLES.get(key.lower())
        if role is not None and value not in (None, "") and isinstance(value, str | int | float | bool):
            settings[role][f"{prefix}{key}"] = value
        elif key.lower() in KNOWN:
            known |= scalars({key: value})
    return dict(settings), known


def together(*settings: Mapping[str, Values]) -> dict[str, Values]:
    """Put settings together, role by role."""
    found: dict[str, Values] = {}
    for one in settings:
        for role, values in one.items():
            found[role] = {**found.get(role, {}), **values}
    return found


def named_scores(found: Iterable[tuple[str, Iterable[object]]]) -> dict[str, float | None]:
    """Read scores with what else they are told by: of a number and a label, the first that is a score."""
    return {
        name: next((score for value in values if (score := score_value(value)) is not None), None)
        for name, values in found
        if name
    }


def seconds(start: object, end: object) -> float | None:
    """Give the time between two instants, None where one is none."""
    first, last = moment(start), moment(end)
    return None if first is None or last is None else (last - first).total_seconds()


def moment(value: object) -> datetime | None:
    """Read an instant: as text, in seconds, or as what a table holds; without a zone it is UTC."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError):
        return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def opened(row: Row, names: Iterable[str]) -> Any:  # noqa: ANN401 - any JSON
    """Give the first of some fields that a row has, read where it is JSON in a cell."""
    return next((parsed(row[name]) for name in names if row.get(name) not in (None, "")), None)
