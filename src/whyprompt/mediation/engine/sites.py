"""The places inside a model whose value can be set, and their names, the same in studies, calls and pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Kind = Literal["head", "attn", "mlp", "neuron", "resid"]
KINDS: tuple[Kind, ...] = get_args(Kind)

KIND_WORDS = {
    "head": "head",
    "attn": "attention output",
    "mlp": "MLP output",
    "neuron": "neuron",
    "resid": "residual stream",
    "site": "site",
    "set": "set",
    "part": "part",
    "path": "path",
}
"""What one of a kind is called in a sentence."""

_NUMBERED = ("head", "neuron")
_OF_ATTENTION = ("head", "attn")
_FORM = re.compile(rf"({'|'.join(KINDS)})(?: (\d+)(?:\.(\d+))?)?")
_HINT = "for instance 'head 14.1', 'attn 14', 'mlp 14', 'neuron 14.123', 'resid 14'; layers count from 0"


class Site(NamedTuple):
    """One place whose value can be set; a pair (layer, head) will do for a head wherever sites are asked for.

    `kind` says what lies there: "head" (a head's output z), "attn" (an attention block's output), "mlp" (a
    feed-forward block's output), "neuron" (one of the numbers that enter that block's last product), "resid"
    (the residual stream after a layer). `number` counts the heads or neurons of the layer, and is None else.

    >>> str(Site("head", 14, 1)), str(Site("resid", 14))
    ('head 14.1', 'resid 14')
    """

    kind: Kind
    layer: int
    number: int | None = None

    def __str__(self) -> str:
        at = "" if self.number is None else f".{self.number}"
        return f"{self.kind} {self.layer}{at}"


SiteLike = Site | str | tuple[int, int]
"""A site, its name, or (layer, head)."""


def as_site(given: SiteLike) -> Site:
    """Read one site; what names none, or more than one, is a `MediationError`.

    >>> as_site("mlp 14"), as_site((14, 1)).kind
    (Site(kind='mlp', layer=14, number=None), 'head')
    """
    if isinstance(given, Site):
        return given
    if isinstance(given, str):
        kind, layer, number = _parts(given)
        if layer is None or (number is None and kind in _NUMBERED):
            raise MediationError(f"{given!r} names no single site", hint=_HINT)
        return Site(kind, layer, number)
    try:
        layer, number = given
        return Site("head", int(layer), int(number))
    except (TypeError, ValueError):
        raise MediationError(f"{given!r} names no site", hint=_HINT) from None


def as_sites(given: Iterable[SiteLike]) -> tuple[Site, ...]:
    """Read several sites.

    >>> [str(site) for site in as_sites([(0, 3), "resid 0"])]
    ['head 0.3', 'resid 0']
    """
    return tuple(as_site(one) for one in given)


def check_names(names: Iterable[str]) -> None:
    """Refuse what names no sites in any model: `every_site` then asks of a model only whether it has them.

    >>> check_names(["head", "mlp 14", "neuron 14"])
    """
    for name in names:
        kind, layer, _ = _parts(name)
        if kind == "neuron" and layer is None:
            raise MediationError(
                "'neuron' alone would be every neuron of the model", hint="name the layers: 'neuron 14'"
            )


def check_beside(names: Iterable[str]) -> None:
    """Refuse names of what is to be swept beside all heads: those that name no site, and heads.

    >>> check_beside(["mlp", "neuron 14"])
    """
    for name in names:
        check_names([name])
        if _parts(name)[0] == "head":
            raise MediationError(f"{name!r} is swept anyway", hint="leave it out: every head is swept")


def refuse_streams(names: Iterable[str]) -> None:
    """Refuse residual streams where a set is searched for."""
    if stream := next((name for name in names if name.startswith("resid")), None):
        raise MediationError(
            f"{stream!r} cannot join a set: it holds all that the layers below hand on, so that alone it"
            " carries whatever they carry",
            hint="name what writes into it: head, attn, mlp, or neurons of a layer",
        )


def check_set(names: Sequence[str], beside: Sequence[str]) -> None:
    """Refuse names of what a set may be made of: residual streams, and what is not swept beside all heads.

    >>> check_set(["head", "mlp"], ["mlp 3", "resid"])
    """
    check_names(names)
    refuse_streams(names)
    swept = [_parts(name)[:2] for name in beside]
    for name in names:
        kind, layer, _ = _parts(name)
        layers = {at for other, at in swept if other == kind}
        if kind != "head" and not (layers if layer is None else layers & {layer, None}):
            raise MediationError(f"{name!r} is not swept", hint=f"add it to sites: [{name}]")


def every_site(
    given: Sequence[SiteLike], n_layers: int, width: Callable[[Kind, int], int]
) -> tuple[Site, ...]:
    """Give the sites of a model that are named: one by one, or those of a layer or a kind together.

    `width` counts the heads or neurons of a layer, and refuses a kind that the model has not; "head" and
    "attn" alone are those of the layers that have heads. Heads come first, then the others as they were
    named.

    >>> [str(s) for s in every_site(["mlp", "head 0"], 2, lambda kind, layer: 2)]
    ['head 0.0', 'head 0.1', 'mlp 0', 'mlp 1']
    """
    if isinstance(given, str) or not len(given):
        raise MediationError(f"sites is {given!r}, not a list of names", hint=_HINT)
    check_names(name for name in given if isinstance(name, str))
    out = [site for one in given for site in _those(one, n_layers, width)]
    out.sort(key=lambda site: site.kind != "head")
    if len(set(out)) != len(out):
        twice = next(site for k, site in enumerate(out) if site in out[:k])
        raise MediationError(f"{str(twice)!r} is named twice", hint="name each once")
    return tuple(out)


def those_named(given: Sequence[SiteLike], sites: Iterable[Site]) -> tuple[Site, ...]:
    """Give those of the sites that are named, one by one or a layer or a kind together, in their order.

    A name that none of them has is a `MediationError`.

    >>> [str(s) for s in those_named(["mlp", "head 1"], as_sites(["head 0.0", "head 1.0", "mlp 0"]))]
    ['head 1.0', 'mlp 0']
    """
    if isinstance(given, str) or not len(given):
        raise MediationError(f"sites is {given!r}, not a list of names", hint=_HINT)
    every = tuple(sites)
    wanted: set[Site] = set()
    for one in given:
        kind, layer, number = _parts(one) if isinstance(one, str) else as_site(one)
        found = {
            site
            for site in every
            if site.kind == kind and layer in {None, site.layer} and number in {None, site.number}
        }
        if not found:
            raise MediationError(f"{str(one)!r} was not swept", hint="sweep it, or leave it out")
        wanted |= found
    return tuple(site for site in every if site in wanted)


def check_sites(sites: Iterable[Site], n_layers: int, width: Callable[[Kind, int], int]) -> None:
    """Refuse sites that a model has not; `width` as in `every_site`."""
    for site in sites:
        if not 0 <= site.layer < n_layers:
            raise MediationError(f"{site} is out of range: the model has {n_layers} layers")
        have = width(site.kind, site.layer)
        if site.number is not None and not 0 <= site.number < have:
            raise MediationError(
                f"{site} is out of range: layer {site.layer} of the model's {n_layers} has {have} "
                f"{site.kind}s"
            )


def _those(one: SiteLike, n_layers: int, width: Callable[[Kind, int], int]) -> Iterator[Site]:
    """Give the sites that one name stands for, checked against the model."""
    kind, layer, number = _parts(one) if isinstance(one, str) else as_site(one)
    for at in range(n_layers) if layer is None else (layer,):
        if layer is None and kind in _OF_ATTENTION and not width("head", at):
            continue
        many = number is None and kind in _NUMBERED
        first = Site(kind, at, 0 if many else number)
        check_sites([first], n_layers, width)
        yield first
        yield from (Site(kind, at, i) for i in range(1, width(kind, at) if many else 1))


def _parts(name: str) -> tuple[Kind, int | None, int | None]:
    found = _FORM.fullmatch(name.strip())
    if found is None or (found[3] is not None and found[1] not in _NUMBERED):
        raise MediationError(f"{name!r} names no site", hint=_HINT)
    layer, number = (None if part is None else int(part) for part in found.groups()[1:])
    return cast("Kind", found[1]), layer, number
