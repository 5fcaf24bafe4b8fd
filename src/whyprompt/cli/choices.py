"""A choice with options of its own as one word of a command line: ``nearest:caliper=0.2,replace``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from whyprompt._words import did_you_mean
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import typer


# A comma that no bracket holds: the options of a learner written as text have commas of their own.
_OUTSIDE = re.compile(r",(?![^(]*\))")


def names(text: str | None) -> list[str] | None:
    """Split columns at their commas; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def refuse(listed: str, where: str) -> None:
    """Refuse options that mean nothing there, where any are listed."""
    if listed:
        raise EstimationError(f"{listed} has no meaning {where}", hint="leave it out")


def given_options(ctx: typer.Context) -> set[str]:
    """Names of the parameters that the caller wrote, so that one without meaning is refused, not ignored."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def refuse_written(unwanted: Iterable[str], where: str) -> None:
    """Refuse parameters by the names of their options."""
    refuse(", ".join(f"--{name.strip('_').replace('_', '-')}" for name in sorted(unwanted)), where)


def read_choice(
    text: str, flag: str, known: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[str, dict[str, Any]]:
    """Read ``NAME``, or ``NAME:key=value,...``: the name and its options.

    An option without a value is on; several names are joined by ``+``. ``known`` has the names there are,
    each with its options and what they take (`read_value`). Without it any name and any option is taken, and
    values stay as they are written, None where there is none. A name or an option that is not known, is
    written twice, or has a value of the wrong kind is refused under ``flag``.

    Examples
    --------
    >>> read_choice("placebo:draws=99,within=race+age", "--check",
    ...             {"placebo": {"draws": "count", "within": "columns"}})
    ('placebo', {'draws': 99, 'within': ['race', 'age']})
    """
    name, colon, rest = (part.strip() for part in text.partition(":"))
    if known is not None and name not in known:
        raise EstimationError(f"{flag} {name!r} is not known", hint=f"one of: {', '.join(known)}")
    options: dict[str, Any] = {}
    for one in _OUTSIDE.split(rest) if colon else ():
        key, equals, value = (part.strip() for part in one.partition("="))
        if not key:
            raise EstimationError(
                f"{flag} {text}: an option has no name", hint=f"{flag} {name}:option=value,option=value"
            )
        if known is not None and key not in known[name]:
            own = ", ".join(known[name])
            raise EstimationError(
                f"{flag} {name} has no option {key!r}{did_you_mean(key, known[name])}",
                hint=f"it has {own}" if own else "it has none",
            )
        if key in options:
            raise EstimationError(f"{flag} {name} names {key!r} twice")
        written = value if equals else None
        options[key] = (
            written if known is None else read_value(written, known[name][key], f"{flag} {name}:{key}")
        )
    return name, options


def read_value(text: str | None, kind: str, where: str) -> Any:  # noqa: ANN401 - as its kind is
    """Read the value of an option; None where the option stands by itself.

    The kinds are switch, count, number, number or text, columns, sizes, dates (one, or one for each of some
    names), text, and object, which has no text.

    Examples
    --------
    >>> read_value("age:5+educ:1", "sizes", "--method nearest:covariate_calipers")
    {'age': 5, 'educ': 1}
    >>> read_value("search:2025-03-01+chat:2025-04-01T14:00", "dates", "--design rollout:changed")
    {'search': '2025-03-01', 'chat': '2025-04-01T14:00'}
    """
    if kind == "object":
        raise EstimationError(f"{where} is an object of Python, which has no text", hint="leave it out")
    if kind == "switch":
        if text is not None and text.lower() not in {"true", "false", "yes", "no"}:
            raise EstimationError(f"{where} is {text!r}; it is true or false")
        return text is None or text.lower() in {"true", "yes"}
    if not text:
        raise EstimationError(f"{where} has no value", hint=f"{where}=VALUE")
    if kind == "columns":
        return [part.strip() for part in text.split("+") if part.strip()]
    if kind == "dates":
        dates = [part.strip() for part in text.split("+")]
        # A date begins with its year, and a name with a colon behind it.
        named = [re.fullmatch(r"(?!\d{4}-)([^:]+):(.+)", part) for part in dates]
        if len(dates) == 1 and named[0] is None:
            return text if "-" in text[1:] else _number(text, where, strictly=False)
        if not all(named):
            raise EstimationError(f"{where} gives a date to each name", hint=f"{where}=chat:2025-03-01+...")
        return {m[1].strip(): m[2].strip() for m in named if m}
    if kind == "sizes":
        pairs = [part.partition(":") for part in text.split("+")]
        if not all(colon for _, colon, _ in pairs):
            raise EstimationError(f"{where} gives a size to each column", hint=f"{where}=age:5+educ:1")
        return {name.strip(): _size(size.strip(), where) for name, _, size in pairs}
    if kind == "count":
        return _whole(text, where)
    if kind in {"number", "number or text"}:
        return _number(text, where, strictly=kind == "number")
    return text


def _whole(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise EstimationError(f"{where} is {text!r}; it is a whole number") from None


def _number(text: str, where: str, *, strictly: bool) -> float | str:
    try:
        return float(text)
    except ValueError:
        if strictly:
            raise EstimationError(f"{where} is {text!r}; it is a number") from None
        return text


def _size(text: str, where: str) -> int | float | str:
    # Cut points are a number of bins, or the name of a rule.
    return int(text) if text.isdecimal() else _number(text, where, strictly=False)
