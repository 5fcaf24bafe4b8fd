"""The search for how heads work on each other: what is run of some heads, and on which."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import counted
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.intervals import DRAWS, check_level
from whyprompt.mediation.paths import check_paths, path_words
from whyprompt.mediation.relations import ALONG, AND, JOINT, WAYS, relations
from whyprompt.mediation.results import heads_of
from whyprompt.mediation.sweep import check_heads, open_runner, sweep_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.routes import Path
    from whyprompt.mediation.engine.runner import Outcome, Tokens
    from whyprompt.mediation.engine.sites import SiteLike
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import Head, PairOutcomes, Sweep
    from whyprompt.results import Result

PathMediator = Literal["path", "direct_path"]


def relate_heads(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    sweep: Sweep | None = None,
    heads: Sequence[SiteLike] | None = None,
    top: int = 4,
    senders: Literal["chosen", "all"] = "chosen",
    along: Sequence[Path] = (),
    mediator: PathMediator = "path",
    outcome: Outcome | None = None,
    tokens: Tokens | None = None,
    level: float = 0.95,
    alpha: float = 0.05,
    draws: int = DRAWS,
    max_extra_bytes: int = 256 << 20,
    random_state: int = 0,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
) -> Result:
    """Take a few heads apart: paths into each, the interaction of each two, and what all do together.

    Everything is had in both directions, taken out of prompt 1 (`nie`) and put into prompt 0
    (`pure_nie`), by running the model; only which items were drawn is uncertain.

    A *path* A to B is the effect of setting B to what it computes where A alone has its value under the
    other prompt, see `set_sweep`. The *interaction* of A and B is the effect of both set together, less
    that of A alone and that of B alone. Where either suffices (a backup head) it is positive in `nie` and
    negative in `pure_nie`; where both are needed, the other way round; where one works through the other,
    negative in `nie` and not positive in `pure_nie`. On the log-probability, saturation alone makes joint
    effects fall short of the sum, or exceed it.

    Parameters
    ----------
    model, pairs, outcome, tokens, max_extra_bytes, progress, on_pair, done
        As in `head_sweep`; those of a finished sweep are its own.
    sweep : Sweep, optional
        A finished sweep of heads in both directions, which chooses the heads.
    heads : sequence of (layer, head), optional
        The heads, at least two, or their names ("head 14.1"); by default the `top` ones of `sweep`, by
        the mean size of their effect in both directions.
    top : int, default 4
    senders : {"chosen", "all"}
        Whether paths begin in the chosen heads, or in every head below the one they lead to: k times
        all heads below, at about twice the price of the sweep of all heads, both directions.
    along : sequence of paths, optional
        Paths, (layer, head) pairs in ascending layers each, along which the total effect is decomposed.
        Paths that meet in a head which would need two values at once are refused.
    mediator : {"path", "direct_path"}
        Whether what lies between two heads passes on what the first one does, or is held.
    level, alpha, draws, random_state
        As in `infer_heads`.

    Returns
    -------
    Result
        `overall` is the total effect. `parts` name in `by` what they are and the direction: "head",
        "joint" (all chosen heads set together, and "rest": the total effect less that), "path",
        "interaction", and "along" (each path by itself, "shared": all of them together less their sum,
        and "rest"), each followed by ", NIE" or ", pure NIE". `p_adjusted` is familywise over all paths in
        both directions, and over all pairs in both; the largest 20 paths are rows. Figures: ``heads``,
        ``mediator``, ``paths`` and ``pairs`` (how many there are).

    Raises
    ------
    MediationError
        As in `set_sweep`; if there are fewer than two heads, or neither heads nor a sweep in both
        directions.

    References
    ----------
    Pearl (2001). Direct and indirect effects. UAI, section 4.
    Avin, Shpitser and Pearl (2005). Identifiability of path-specific effects. IJCAI.
    VanderWeele (2015). Explanation in causal inference. Oxford, chapter 5 (several mediators), and 9
    (interaction).
    Wang et al. (2023). Interpretability in the wild. ICLR, section 3.1 (path patching).

    Examples
    --------
    >>> print(relate_heads(model, pairs, sweep=sweep, top=3).summary())  # doctest: +SKIP
    """
    check_level(level)
    chosen = _chosen(sweep, heads, top)
    if senders not in {"chosen", "all"} or mediator not in {"path", "direct_path"}:
        raise MediationError(
            f"unknown senders {senders!r} or mediator {mediator!r}",
            hint="senders is chosen or all, mediator is path or direct_path",
        )
    given: dict[str, Any] = {"outcome": outcome, "tokens": tokens}
    own: dict[str, Any] = {"outcome": "log_prob", "tokens": "answer"}
    if sweep is not None:
        own = {name: getattr(sweep, name) for name in own}
        for name, value in own.items():
            if given[name] not in {None, value}:
                raise MediationError(
                    f"the sweep's {name} is {value!r}, but {given[name]!r} was asked for",
                    hint="leave the option out, or give `heads` in place of the sweep",
                )
    found = relation_sweep(
        model,
        pairs,
        chosen,
        senders=senders,
        along=along,
        mediator=mediator,
        outcome=outcome or own["outcome"],
        tokens=tokens or own["tokens"],
        max_extra_bytes=max_extra_bytes,
        progress=progress,
        on_pair=on_pair,
        done=done,
    )
    return relations(
        found,
        picked=heads is None,
        level=level,
        alpha=alpha,
        draws=draws,
        random_state=random_state,
    )


def _chosen(sweep: Sweep | None, heads: Sequence[SiteLike] | None, top: int) -> list[Head]:
    """Give the chosen heads, from the lowest layer up."""
    if heads is None:
        if top < 2:
            raise MediationError(f"top is {top}, but relations are of two heads or more")
        return top_heads(sweep, top)
    if len(heads) < 2:
        raise MediationError(
            f"heads names {counted(len(heads), 'head')}, but relations are of two or more",
            hint="the effect of one head: head_sweep",
        )
    sites = as_sites(heads)
    if other := [site for site in sites if site.kind != "head"]:
        raise MediationError(
            f"{other[0]} is no head, and relations are of heads", hint="set_sweep takes any site"
        )
    return sorted(heads_of(sites))


def top_heads(sweep: Sweep | None, top: int) -> list[Head]:
    """Heads with the largest effects, the mean size over both directions, from the lowest layer up."""
    return sorted(ranked_heads(sweep)[:top])


def ranked_heads(sweep: Sweep | None, items: Sequence[str] | None = None) -> tuple[Head, ...]:
    """Heads by their mean effect on some items, the mean size over both directions, the largest first."""
    if sweep is None or not {"nie", "pure_nie"} <= set(sweep.quantities) or not sweep.heads:
        raise MediationError(
            "there is nothing to choose heads by: no sweep of single heads in both directions",
            hint="give sweep=head_sweep(model, pairs), or heads=[(layer, head), ...]",
        )
    at = {item: i for i, item in enumerate(sweep.item_ids)}
    asked = sweep.item_ids if items is None else items
    if missing := [item for item in asked if item not in at]:
        raise MediationError(f"the sweep has no item {missing[0]!r}", hint="run it on all, or give heads")
    rows = [at[item] for item in asked]
    size = np.abs(sweep.nie[rows].mean(0)) + np.abs(sweep.pure_nie[rows].mean(0))
    return heads_of(sweep.sites[i] for i in np.argsort(-size, kind="stable").tolist())


def relation_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    chosen: Sequence[Head],
    *,
    senders: str = "chosen",
    along: Sequence[Path] = (),
    mediator: PathMediator = "path",
    outcome: Outcome = "log_prob",
    tokens: Tokens = "answer",
    max_extra_bytes: int = 256 << 20,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
) -> Sweep:
    """Sweep everything that `relations` reads of some heads, in one go."""
    options: dict[str, Any] = {"mediator": mediator, "outcome": outcome, "tokens": tokens}
    options |= {"directions": [*WAYS], "max_extra_bytes": max_extra_bytes}
    with open_runner(model, pairs, **options) as runner:
        check_heads(chosen, runner.runtime.n_layers, runner.runtime.width)
        sets = _sets(runner.runtime, chosen, senders, along)
        return sweep_rows(runner, pairs, sets, progress, on_pair, done)


def _sets(
    runtime: ModelRuntime, chosen: Sequence[Head], senders: str, along: Sequence[Path]
) -> dict[str, Any]:
    """Name the sets of paths to run; heads that are set together are paths of one head each."""
    every = [(layer, head) for layer in runtime.attending for head in range(runtime.n_heads)]
    sets: dict[str, Any] = {JOINT: [(head,) for head in chosen]}
    sets |= {path_words((head,)): [(head,)] for head in chosen}
    sets |= {_pair(a, b): [(a,), (b,)] for a, b in combinations(chosen, 2)}
    paths = [(a, b) for b in chosen for a in (every if senders == "all" else chosen) if a[0] < b[0]]
    sets |= {path_words(path): path for path in paths}
    if along:
        sets[ALONG] = check_paths(along, ALONG, runtime.n_layers, runtime.width)
        sets |= {path_words(path): [path] for path in sets[ALONG]}
    return sets


def _pair(a: Head, b: Head) -> str:
    return AND.join(path_words((head,)) for head in (a, b))
