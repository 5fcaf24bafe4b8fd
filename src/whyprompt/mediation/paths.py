"""Paths of heads as they are asked for: checked before anything runs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import as_sites, every_site
from whyprompt.mediation.results import heads_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from whyprompt.mediation.engine.routes import Path
    from whyprompt.mediation.engine.sites import Kind, SiteLike
    from whyprompt.mediation.results import Head

ARROW = " -> "
_ANY = 1 << 30


def path_words(path: Path) -> str:
    """Name a path.

    >>> path_words(((0, 1), (2, 3)))
    '0.1 -> 2.3'
    """
    return ARROW.join(f"{layer}.{head}" for layer, head in path)


def check_paths(
    given: Sequence[SiteLike] | Sequence[Sequence[SiteLike]],
    name: str,
    n_layers: int,
    width: Callable[[Kind, int], int],
) -> tuple[Path, ...]:
    """Read a path, or a set of paths that are set together; `n_layers` and `width` as in `every_site`."""
    try:
        each = cast("Sequence[Sequence[SiteLike]]", given if all(map(_several, given)) else [given])
        paths = tuple(_checked(path, name, n_layers, width) for path in each)
    except (TypeError, ValueError):
        raise MediationError(
            f"the path {name!r} is {given!r}, not a sequence of heads (layer, head)",
            hint="for instance [(0, 1), (2, 3)]",
        ) from None
    if len(set(paths)) != len(paths):
        twice = next(path for k, path in enumerate(paths) if path in paths[:k])
        raise MediationError(f"the set {name!r} names the path {path_words(twice)} twice")
    _refuse_witness(paths, name)
    return paths


def check_named_paths(given: Sequence[Sequence[str]], name: str) -> None:
    """Refuse paths that are none in any model.

    >>> check_named_paths([["head 0.1", "head 2.3"], ["head 1.0"]], "along")
    """
    for path in given:
        if not path:
            raise MediationError(f"a path of {name!r} has no head", hint="for instance [head 3.1, head 7.0]")
        as_sites(path)
    if given:
        check_paths(given, name, _ANY, lambda _kind, _layer: _ANY)


def _several(one: object) -> bool:
    """Whether it is no head but holds heads."""
    return isinstance(one, tuple | list) and all(isinstance(part, tuple | list | str) for part in one)


def _checked(given: Sequence[SiteLike], name: str, n_layers: int, width: Callable[[Kind, int], int]) -> Path:
    try:
        sites = every_site(given, n_layers, width)
    except MediationError as error:
        raise MediationError(f"the path {name!r}: {error.message}", hint=error.hint) from None
    if other := [site for site in sites if site.kind != "head"]:
        raise MediationError(f"the path {name!r}: {other[0]} is no head, and paths are of heads")
    path = heads_of(sites)
    for before, after in pairwise(path):
        if after[0] <= before[0]:
            where = "in the same layer as" if after[0] == before[0] else "in a layer below"
            a, b = path_words((before,)), path_words((after,))
            raise MediationError(
                f"the path {name!r}: nothing goes from head {a} to head {b}, which lies {where} {a}",
                hint="name the heads of a path from the lowest layer up",
            )
    return path


def witnesses(paths: Iterable[Path]) -> list[Head]:
    """Heads that begin or carry a path to another one: each has one value for it and another for all else.

    >>> witnesses([((0, 1), (2, 3)), ((1, 0),)])
    [(0, 1)]
    """
    return sorted({head for path in paths for head in path[:-1]})


def _refuse_witness(paths: Sequence[Path], name: str) -> None:
    """Refuse paths that meet in a head which then needs two values along one edge, or at once."""
    known = set(paths)
    first = {path[0]: path for path in paths}
    for path in paths:
        for at, head in enumerate(path):
            word, own = path_words((head,)), path_words(path)
            if at and head in first:
                raise MediationError(
                    f"the set {name!r} has a recanting witness, head {word}: {path_words(first[head])} gives "
                    f"it its value under the other prompt, {own} what it makes of another head's",
                    hint="take the two paths apart, each as a set of its own",
                )
            for other in paths:
                if head not in other:
                    continue
                mixed = path[: at + 1] + other[other.index(head) + 1 :]
                if mixed not in known:
                    raise MediationError(
                        f"the set {name!r} has a recanting witness, head {word}: {own} and "
                        f"{path_words(other)} meet in it and ask it for two values at once",
                        hint=f"add the path {path_words(mixed)}, or take the two apart",
                    )
