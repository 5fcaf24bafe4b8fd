"""What a graph says about one question, in one result: paths, roles, sets, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from whyprompt.results import Result, unlisted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd

    from whyprompt.graph.svg import Traces
    from whyprompt.graph.types import Path

__all__ = ["Identification", "identification", "stories", "traces"]

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
    strategy: Strategy
    roles: Mapping[str, tuple[str, ...]]
    paths: tuple[Path, ...]
    front_door_paths: tuple[Path, ...]
    adjustment_sets: tuple[frozenset[str], ...]
    front_door_sets: tuple[frozenset[str], ...]
    instruments: Mapping[str, frozenset[str]]
    svg: str = unlisted("")

    def to_frame(self) -> pd.DataFrame:
        """Return the paths.

        Returns
        -------
        pandas.DataFrame
            One row a path: ``path``, ``kind``, ``open``, ``blocked_by``, ``colliders``.
        """
        import pandas as pd

        rows = [
            (str(path), path.kind, path.open, ", ".join(path.blocked_by), ", ".join(path.colliders))
            for path in self.paths
        ]
        return pd.DataFrame(rows, columns=["path", "kind", "open", "blocked_by", "colliders"])


def identification(
    treatment: str,
    outcome: str,
    *,
    roles: Mapping[str, tuple[str, ...]],
    paths: tuple[Path, ...],
    adjustment_sets: tuple[frozenset[str], ...],
    front_door_sets: tuple[frozenset[str], ...],
    instruments: Mapping[str, frozenset[str]],
    moves: bool,
    notes: Sequence[str],
    svg: str,
) -> Identification:
    """Put together what a graph says of one question; `moves` where a causal path joins the two."""
    strategy: Strategy = "none"
    if not moves:
        strategy = "no effect"
    elif adjustment_sets:
        strategy = "adjustment" if adjustment_sets[0] else "nothing to adjust for"
    elif front_door_sets:
        strategy = "front-door"
    elif instruments:
        strategy = "instrument"
    causal = tuple(path for path in paths if path.kind == "causal")
    return Identification(
        treatment=treatment,
        outcome=outcome,
        strategy=strategy,
        roles=roles,
        paths=paths,
        front_door_paths=causal if front_door_sets else (),
        adjustment_sets=adjustment_sets,
        front_door_sets=front_door_sets,
        instruments=instruments,
        warnings=tuple(notes),
        sentence=_sentence(
            treatment,
            outcome,
            strategy,
            roles,
            paths,
            adjustment_sets,
            front_door_sets,
            instruments,
            notes,
        ),
        svg=svg,
    )


def _sentence(
    treatment: str,
    outcome: str,
    strategy: Strategy,
    roles: Mapping[str, tuple[str, ...]],
    paths: Sequence[Path],
    sets: Sequence[frozenset[str]],
    front: Sequence[frozenset[str]],
    instruments: Mapping[str, frozenset[str]],
    notes: Sequence[str],
) -> str:
    effect = f"the effect of {treatment!r} on {outcome!r}"
    if strategy == "no effect":
        words = (
            f"If the graph is right, {treatment!r} has no effect on {outcome!r}: no causal path joins them."
        )
    elif strategy == "nothing to adjust for":
        words = f"If the graph is right, {effect} is identified without adjustment: no other path is open."
    elif strategy == "adjustment":
        others = f" ({len(sets) - 1} other minimal sets do as well)" if len(sets) > 1 else ""
        words = f"If the graph is right, {effect} is identified by adjusting for {_braces(sets[0])}{others}."
    elif strategy == "front-door":
        words = (
            f"If the graph is right, no observed set can be adjusted for, but {effect} is identified by the"
            f" front door through {_braces(front[0])}."
        )
    elif strategy == "instrument":
        name, needed = next(iter(instruments.items()))
        given = f" given {_braces(needed)}" if needed else ""
        words = (
            f"If the graph is right, {effect} is not identified by adjustment or a front door;"
            f" {name!r}{given} is an instrument, which gives it under a further assumption"
            " (linearity, or no one moved the other way)."
        )
    else:
        words = (
            f"If the graph is right, {effect} is not identified by adjustment, a front door or an instrument:"
            " run both arms on the same items, randomise the arm, or measure the common cause."
        )
    opened = [p for p in paths if p.open and p.kind != "causal"]
    if opened and strategy not in {"no effect", "nothing to adjust for"}:
        shown = "; ".join(str(p) for p in opened[:3])
        more = f" and {len(opened) - 3} more" if len(opened) > 3 else ""
        words += f" Open without adjustment: {shown}{more}."
    never = [
        name for name, held in roles.items() if {"post-treatment", "mediator", "post-outcome"} & set(held)
    ]
    if never:
        words += f" Never adjust for {', '.join(never)}."
    if notes:
        words += f" Not looked at: {'; '.join(notes)}."
    return words


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
