"""A user's jinja2 template: a function of its item, which neither hangs nor eats the memory."""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


# Characters that a template may make, passes of its loops, and the largest number it may hand to a function.
_MOST = 1_000_000
_MOST_BITS = 14_000  # of a whole number: Python writes none of more than 4,300 digits

ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
"""How Python prints what has no text of its own: by its place in memory, another in every run."""


def _fits(value: object, what: str) -> None:
    if isinstance(value, int) and abs(value) > _MOST:
        raise SecurityError(f"{what} takes a number above {_MOST:,}")


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any filter
        for value in (*args[1:], *kwargs.values()):
            _fits(value, f"the filter {name!r}")
        return function(*args, **kwargs)

    return call


@jinja2.pass_context
def _counted(context: jinja2.runtime.Context, values: Iterable[Any]) -> Iterator[Any]:
    passes = context["_passes"]
    for value in values:
        if next(passes) > _MOST:
            raise SecurityError(f"its loops make more than {_MOST:,} passes")
        yield value


class Sandbox(SandboxedEnvironment):
    """jinja2's sandbox without what differs from run to run, and with an end to loops and sizes."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, autoescape=False)
        # Two renderings would differ: a resumed run would mix prompts, and a sweep use other ones.
        del self.filters["random"], self.globals["lipsum"]
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}
        self.filters["_counted"] = _counted

    def parse(self, source: str, name: str | None = None, filename: str | None = None) -> nodes.Template:
        """Parse a template, its loops counted."""
        tree = super().parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        return tree

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - any values
        """Compute a product or a power that fits."""
        whole = isinstance(left, int) and isinstance(right, int)
        if whole and operator == "**" and left.bit_length() * right > _MOST_BITS:
            raise SecurityError("a power has more than 4,000 digits")
        if whole and operator == "*" and left.bit_length() + right.bit_length() > _MOST_BITS:
            raise SecurityError("a product has more than 4,000 digits")
        for text, times in ((left, right), (right, left)):
            if hasattr(text, "__len__") and isinstance(times, int) and len(text) * times > _MOST:
                raise SecurityError(f"a repetition has more than {_MOST:,} characters")
        return super().call_binop(context, operator, left, right)

    def call(self, context: jinja2.runtime.Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Call a function with numbers that fit."""
        for value in (*args, *kwargs.values()):
            _fits(value, f"{getattr(obj, '__name__', 'a call')}()")
        return super().call(context, obj, *args, **kwargs)


@functools.lru_cache(maxsize=64)
def compiled(text: str) -> jinja2.Template:
    """Compile a template, once for all items; raises jinja2's TemplateSyntaxError where it is malformed."""
    environment = Sandbox()
    return environment.from_string(environment.parse(text))


def filled(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """Render a template of `compiled`.

    Raises whatever computes in it raises, `SecurityError` where it makes too much.
    """
    pieces: list[str] = []
    length = 0
    for piece in template.generate({**variables, "_passes": itertools.count(1)}):
        pieces.append(piece)
        length += len(piece)
        if length > _MOST:
            raise SecurityError(f"its text has more than {_MOST:,} characters")
    return "".join(pieces)
