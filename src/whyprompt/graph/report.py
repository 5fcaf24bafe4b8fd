"""What a graph says about one question, in one result: paths, roles, sets, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from whyprompt.results import Result, unlisted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import pandas as pd

    from whyprompt.graph.svg import Traces
    from whyprompt.graph.types import Path

Strategy = Literal["no effect", "nothing to adjust for", "adjustment", "front-door", "instrument", "none"]


@dataclass(frozen=True, kw_only=True)
class Identification(Result):
    """Whether and how an effect can be had from what is observed.

    Its warnings say what was not looked at, and why.

    Attributes
    ----------
    treatment, outcome : str
        The question.
    strategy : str
        ``"no effect"`` where no causal path joins the two; ``"nothing to adjust for"``; ``"adjustment"``;
        ``"front-door"``; ``"instrument"`` (which needs an assumption on the form of the effect as well); or
        ``"none"`` of these.
    roles : mapping of str to tuple of str
        Of every variable.
    paths : tuple of Path
        Without adjustment: causal, backdoor and other non-causal ones.
    front_door_paths : tuple of Path
        The causal paths, all of which a front-door set intercepts; empty where there is none.
    adjustment_sets, front_door_sets : tuple of frozenset of str
        Minimal ones, small before large.
    instruments : mapping of str to frozenset of str
        Conditional ones included, each with what must be adjusted for.
    svg : str
        The graph with its paths drawn, the smallest adjustment set taken as adjusted for.
    """

    treatment: str
    outcome: str
    strategy: Strategy = "none"
    roles: Mapping[str, tuple[str, ...]]
    paths: tuple[Path, ...]
    front_door_paths: tuple[Path, ...]
    adjustment_sets: tuple[frozenset[str], ...]
    front_door_sets: tuple[frozenset[str], ...]
    instruments: Mapping[str, frozenset[str]]
    svg: str = unlisted("")

    def to_frame(self) -> pd.DataFrame:
        """Return the paths, a row each: ``path``, ``kind``, ``open``, ``blocked_by``, ``colliders``."""
        import pandas as pd

        rows = [
            (str(path), path.kind, path.open, ", ".join(path.blocked_by), ", ".join(path.colliders))
            for path in self.paths
        ]
        return pd.DataFrame(rows, columns=["path", "kind", "open", "blocked_by", "colliders"])


def strategy_of(found: Identification, *, moves: bool) -> Strategy:
    """Say by which way the effect is to be had; `moves` where a causal path joins the two."""
    if not moves:
        return "no effect"
    if found.adjustment_sets:
        return "adjustment" if found.adjustment_sets[0] else "nothing to adjust for"
    return "front-door" if found.front_door_sets else "instrument" if found.instruments else "none"


def told(found: Identification) -> str:
    """Give the sentence of what a graph says of one question."""
    return " ".join([_how(found), *_besides(found)])


def _how(found: Identification) -> str:
    """Say how the effect is identified."""
    effect = f"the effect of {found.treatment!r} on {found.outcome!r}"
    if found.strategy == "no effect":
        return (
            f"If the graph is right, {found.treatment!r} has no effect on {found.outcome!r}: no causal path"
            " joins them."
        )
    if found.strategy == "nothing to adjust for":
        return f"If the graph is right, {effect} is identified without adjustment: no other path is open."
    if found.strategy == "adjustment":
        first, *rest = found.adjustment_sets
        others = f" ({len(rest)} other minimal sets do as well)" if rest else ""
        return f"If the graph is right, {effect} is identified by adjusting for {_braces(first)}{others}."
    if found.strategy == "front-door":
        return (
            f"If the graph is right, no observed set can be adjusted for, but {effect} is identified by the"
            f" front door through {_braces(found.front_door_sets[0])}."
        )
    if found.strategy == "instrument":
        name, needed = next(iter(found.instruments.items()))
        given = f" given {_braces(needed)}" if needed else ""
        return (
            f"If the graph is right, {effect} is not identified by adjustment or a front door;"
            f" {name!r}{given} is an instrument, which gives it under a further assumption"
            " (linearity, or no one moved the other way)."
        )
    return (
        f"If the graph is right, {effect} is not identified by adjustment, a front door or an instrument:"
        " run both arms on the same items, randomise the arm, or measure the common cause."
    )


def _besides(found: Identification) -> Iterator[str]:
    """Say which paths are open, what to keep away from, and what was not looked at."""
    opened = [str(p) for p in found.paths if p.open and p.kind != "causal"]
    if opened and found.strategy not in {"no effect", "nothing to adjust for"}:
        more = f" and {len(opened) - 3} more" if len(opened) > 3 else ""
        yield f"Open without adjustment: {'; '.join(opened[:3])}{more}."
    after = {"post-treatment", "mediator", "post-outcome"}
    never = [name for name, held in found.roles.items() if after & set(held)]
    if never:
        yield f"Never adjust for {', '.join(never)}."
    if found.warnings:
        yield f"Not looked at: {'; '.join(found.warnings)}."


def _braces(names: Collection[str]) -> str:
    return "{" + ", ".join(sorted(names)) + "}"


def traces(paths: Sequence[Path]) -> Traces:
    """Say of every edge on a path what runs along it: causal before open before blocked."""
    rank = {"causal": 0, "open": 1, "blocked": 2}
    out: Traces = {}
    for path in paths:
        kind = "causal" if path.kind == "causal" and path.open else "open" if path.open else "blocked"
        for a, arrow, b in zip(path.nodes[:-1], path.arrows, path.nodes[1:], strict=True):
            keys = {"->": [(a, "->", b)], "<-": [(b, "->", a)], "<->": [(a, "<->", b), (b, "<->", a)]}[arrow]
            for key in keys:
                if key not in out or rank[kind] < rank[out[key]]:
                    out[key] = kind
    return out


def stories(paths: Sequence[Path]) -> tuple[str, ...]:
    """Tell the open paths in words, for the accessible description of a drawing."""
    told = [f"Causal path: {p}." for p in paths if p.kind == "causal" and p.open]
    told += [f"Open path that is not causal: {p}." for p in paths if p.kind != "causal" and p.open]
    return tuple(told[:20])
