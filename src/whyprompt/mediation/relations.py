"""How heads work on each other: paths between them, what they do together, and where that is no sum."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from whyprompt._words import counted, percent
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.intervals import DRAWS, check_level, interval_words, mean_interval, units_of
from whyprompt.mediation.paths import check_paths, path_words, witnesses
from whyprompt.mediation.results import estimates, heads_of
from whyprompt.mediation.sweep import check_heads, open_runner, sweep_rows
from whyprompt.results import Assumption, Estimate, Result
from whyprompt.stats import resampling
from whyprompt.stats.clusters import cluster_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.routes import Path
    from whyprompt.mediation.engine.runner import Outcome, Tokens
    from whyprompt.mediation.engine.sites import SiteLike
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import Head, PairOutcomes, Sweep

    Array = NDArray[np.float64]

PathMediator = Literal["path", "direct_path"]
_WAYS = {"nie": "NIE", "pure_nie": "pure NIE"}
_JOINT, _ALONG, _AND = "joint", "along", " & "
_LISTED = 20
"""Paths that are rows of the result, of those in the family; `infer_heads` gives all of a sweep's."""


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
        if sweep is None or not {"nie", "pure_nie"} <= set(sweep.quantities) or not sweep.heads:
            raise MediationError(
                "there is nothing to choose heads by: no sweep of single heads in both directions",
                hint="give sweep=head_sweep(model, pairs), or heads=[(layer, head), ...]",
            )
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


def top_heads(sweep: Sweep, top: int) -> list[Head]:
    """Heads with the largest effects, either direction, from the lowest layer up."""
    size = np.abs(sweep.nie.mean(0)) + np.abs(sweep.pure_nie.mean(0))
    down = heads_of(sweep.sites[i] for i in np.argsort(-size, kind="stable").tolist())
    return sorted(down[:top])


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
    options |= {"directions": [*_WAYS], "max_extra_bytes": max_extra_bytes}
    with open_runner(model, pairs, **options) as runner:
        check_heads(chosen, runner.runtime.n_layers, runner.runtime.n_heads)
        sets = _sets(runner.runtime, chosen, senders, along)
        return sweep_rows(runner, pairs, sets, progress, on_pair, done)


def _sets(
    runtime: ModelRuntime, chosen: Sequence[Head], senders: str, along: Sequence[Path]
) -> dict[str, Any]:
    """Name the sets of paths to run; heads that are set together are paths of one head each."""
    every = [(layer, head) for layer in range(runtime.n_layers) for head in range(runtime.n_heads)]
    sets: dict[str, Any] = {_JOINT: [(head,) for head in chosen]}
    sets |= {path_words((head,)): [(head,)] for head in chosen}
    sets |= {_pair(a, b): [(a,), (b,)] for a, b in combinations(chosen, 2)}
    paths = [(a, b) for b in chosen for a in (every if senders == "all" else chosen) if a[0] < b[0]]
    sets |= {path_words(path): path for path in paths}
    if along:
        sets[_ALONG] = check_paths(along, _ALONG, runtime.n_layers, runtime.width)
        sets |= {path_words(path): [path] for path in sets[_ALONG]}
    return sets


def _pair(a: Head, b: Head) -> str:
    return _AND.join(path_words((head,)) for head in (a, b))


def relations(
    sweep: Sweep,
    *,
    picked: bool,
    level: float = 0.95,
    alpha: float = 0.05,
    draws: int = DRAWS,
    random_state: int = 0,
) -> Result:
    """Say what a `relation_sweep` shows; `picked` where its items chose the heads too."""
    at = {name: k for k, name in enumerate(sweep.sets)}
    chosen = heads_of(sweep.sets[_JOINT])
    told = partial(_told, sweep, level=level, draws=draws, random_state=random_state)
    names = {"path": [name for name in at if "->" in name], "interaction": [n for n in at if _AND in n]}
    own = {path_words((head,)) for head in chosen}
    along = [path_words(path) for path in sweep.paths.get(_ALONG, ())]
    parts: list[Estimate] = []
    for way, word in _WAYS.items():
        x, te = sweep.effect(way), sweep.te
        parts += told({name: x[:, at[name]] for name in at if name in own}, f"head, {word}")
        joint = x[:, at[_JOINT]]
        parts += told({_JOINT: joint, "rest": te - joint}, f"joint, {word}")
        if along:
            each = {name: x[:, at[name]] for name in along}
            all_ = x[:, at[_ALONG]]
            rest = {"shared": all_ - np.sum([*each.values()], 0), "rest": te - all_}
            parts += told(each | rest, f"along, {word}")
    kept: dict[str, list[Estimate]] = {}
    for kind, some in names.items():
        family: dict[str, Array] = {}
        for way in _WAYS:
            x = sweep.effect(way)
            for name in some:
                y = x[:, at[name]]
                if kind == "interaction":
                    y = y - sum(x[:, at[single]] for single in name.split(_AND))
                family[f"{way}:{name}"] = y
        rows = told(family, "", family=True) if family else []
        kept[kind] = [
            replace(row, label=row.label.split(":", 1)[1], by=f"{kind}, {_WAYS[row.label.split(':', 1)[0]]}")
            for row in rows
        ]
    listed = _largest(kept["path"])
    parts += [row for row in kept["path"] if row.label in listed] + kept["interaction"]
    out = Result(
        sentence="",
        overall=replace(mean_interval(sweep.te, cluster=sweep.clusters, level=level), label="total effect"),
        parts=tuple(parts),
        level=level,
        axis=f"effect on {sweep.outcome}",
        assumptions=_assumptions(sweep, picked=picked),
        warnings=_warnings(sweep, alpha),
        figures={
            "heads": tuple(path_words((head,)) for head in chosen),
            "mediator": sweep.mediator,
            "paths": float(len(names["path"])),
            "pairs": float(len(names["interaction"])),
        },
    )
    out = replace(out, sentence=_sentence(out, sweep, kept, alpha))
    return replace(out, pictures=_pictures(out, alpha))


def _told(
    sweep: Sweep,
    columns: Mapping[str, Array],
    by: str,
    *,
    level: float,
    draws: int,
    random_state: int,
    family: bool = False,
) -> list[Estimate]:
    """Give the mean of each column with its interval and p; of a family, p for all of them too."""
    x = np.stack([*columns.values()], 1)
    sums, sizes = cluster_sums(x, units_of(x, sweep.clusters))
    rng = np.random.default_rng(random_state)
    figures, q_value, _ = resampling.resample(sums, sizes, level=level, draws=draws, rng=rng)
    if not family:
        del figures["p_adjusted"]
    rows = estimates([*columns], len(x), by, **figures)
    if not family:
        return list(rows)
    return [replace(row, figures={"q_value": float(q)}) for row, q in zip(rows, q_value, strict=True)]


def _largest(paths: Sequence[Estimate]) -> set[str]:
    """Name the paths with the largest effects in either direction."""
    size: dict[str, float] = {}
    for row in paths:
        size[row.label] = max(size.get(row.label, 0.0), abs(row.estimate or 0.0))
    return set(sorted(size, key=lambda name: -size[name])[:_LISTED])


def _assumptions(sweep: Sweep, *, picked: bool) -> tuple[Assumption, ...]:
    own = witnesses(path for paths in sweep.paths.values() for path in paths)
    names = ", ".join(path_words((head,)) for head in own[:8]) + (", ..." if len(own) > 8 else "")
    out = []
    if own:
        out.append(
            Assumption(
                name="no recanting witness",
                status="fails",
                check="whether a head on a path reaches the answer by other ways too",
                detail=f"{names}: along the path such a head has one value and everywhere else another, "
                "which the model can be made to compute, and no change of a prompt or of a whole head can "
                "bring about; so a path's effect says how the model computes, and none could be had from "
                "outcomes",
            )
        )
    if picked:
        out.append(
            Assumption(
                name="heads chosen apart from these items",
                status="fails",
                check="whether the sweep that chose the heads has these items",
                detail="the heads with the largest effects on these very items: their own and joint effects "
                "are too large by what chance chose; find_heads scores a set on held-out items",
            )
        )
    return tuple(out)


def _warnings(sweep: Sweep, alpha: float) -> tuple[str, ...]:
    units = len(set(sweep.clusters))
    least = 2.0 ** (1 - units)
    few = (f"With {units} sampling units no p can be below {least:.2g}, so none is below {alpha:g}.",)
    return (few if least >= alpha else ()) + sweep.notes


def _sentence(r: Result, sweep: Sweep, kept: Mapping[str, Sequence[Estimate]], alpha: float) -> str:
    total = cast("Estimate", r.overall)
    n, units = len(sweep.item_ids), len(set(sweep.clusters))
    unit = "items" if n == units else f"items in {units} clusters"
    joint = [r.part(_JOINT, by=f"{_JOINT}, {word}") for word in _WAYS.values()]
    each = " and ".join(
        f"{row.estimate:.3g} ({interval_words(*row.ends)}) {moved}"
        for row, moved in zip(joint, ("taken out of prompt 1", "put into prompt 0"), strict=True)
    )
    chosen = [path_words((head,)) for head in heads_of(sweep.sets[_JOINT])]
    text = (
        f"Over {n} {unit} the total effect on {sweep.scale} is {total.estimate:.3g} "
        f"({interval_words(*total.ends, percent(r.level))}). {counted(len(chosen), 'head')} "
        f"({', '.join(chosen)}; layer.head) together have {each}."
    )
    held = ", all else between held" if sweep.mediator == "direct_path" else ""
    for kind, what, verb in (
        ("path", f"paths from head to head{held},", "is the largest"),
        ("interaction", "pairs", "has the largest interaction"),
    ):
        rows = kept[kind]
        if not rows:
            text += " No head lies above another, so there is no path." if kind == "path" else ""
            continue
        sure = {row.label for row in rows if (row.p_adjusted or 0.0) < alpha}
        best = max(rows, key=lambda row: abs(row.estimate or 0.0)).label
        both = "; ".join(
            f"{row.by.split(', ')[1]} {row.estimate:.3g} ({interval_words(*row.ends)})"
            for row in rows
            if row.label == best
        )
        text += (
            f" Of {len(rows) // 2} {what} {best} {verb}: {both}. {len(sure) or 'None'} of them can be told "
            f"from zero with the familywise error held at {alpha:g}, both directions together."
        )
        if kind == "interaction":
            text += _kind_of(best, rows, alpha)
    return text + " Paths, heads and pairs do not add up: what one passes on, another may use."


def _kind_of(best: str, rows: Sequence[Estimate], alpha: float) -> str:
    """Name what an interaction looks like, where both directions can be told from zero."""
    own = [row for row in rows if row.label == best]
    if any((row.p_adjusted or 0.0) >= alpha for row in own):
        return ""
    signs = tuple((row.estimate or 0.0) > 0 for row in own)
    looks = {
        (True, False): "either of the two suffices",
        (False, True): "both are needed",
        (False, False): "one works through the other, or both do one work",
    }
    return f" That is the pattern where {looks[signs]}." if signs in looks else ""


def _drawn(row: Estimate) -> dict[str, float | None]:
    """Give what a chart draws of a row; where the items do not bound an end, nothing is drawn."""
    low, high = (end if np.isfinite(end) else None for end in row.ends)
    return {"estimate": row.estimate, "low": low, "high": high}


def _pictures(r: Result, alpha: float) -> dict[str, Callable[[], Any]]:
    from whyprompt import charts

    def rows(word: str) -> list[dict[str, Any]]:
        return [
            {
                "path": row.label,
                **_drawn(row),
                "sure": (row.p_adjusted or 0.0) < alpha,
            }
            for row in r.parts
            if row.by == f"path, {word}"
        ]

    def interactions() -> Any:  # noqa: ANN401  # a chart
        pairs = [row for row in r.parts if row.by.startswith("interaction")]
        lines = [
            {
                "label": f"{row.label}, {row.by.split(', ')[1]}",
                **_drawn(row),
            }
            for row in pairs
        ]
        return charts.interval_plot(lines, title=f"interaction, {r.axis}")

    out: dict[str, Callable[[], Any]] = {}
    if rows("NIE"):
        for name, word in (("paths", "NIE"), ("pure_paths", "pure NIE")):
            own = {row.label: cast("float", row.estimate) for row in r.parts if row.by == f"head, {word}"}
            out[name] = partial(charts.path_plot, rows(word), own, title=f"{word}: {r.axis}")
    return out | {"interactions": interactions}
