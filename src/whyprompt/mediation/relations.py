"""What a sweep of paths and sets of heads shows: paths, joint effects, and where these are no sum."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from whyprompt._words import counted, percent
from whyprompt.mediation.intervals import DRAWS, bound_alike, interval_words, mean_interval, units_of
from whyprompt.mediation.paths import path_words, witnesses
from whyprompt.mediation.results import estimates, heads_of
from whyprompt.results import Assumption, Estimate, Result
from whyprompt.stats import resampling
from whyprompt.stats.clusters import cluster_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.mediation.results import Sweep

    Array = NDArray[np.float64]

WAYS = {"nie": "NIE", "pure_nie": "pure NIE"}
JOINT, ALONG, AND = "joint", "along", " & "
"""Names of the sets that a sweep of relations has: all heads, all paths asked for, and of two heads."""
_LISTED = 20
"""Paths that are rows of the result, of those in the family; `infer_heads` gives all of a sweep's."""


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
    chosen = heads_of(sweep.sets[JOINT])
    told = partial(_told, sweep, level=level, draws=draws, random_state=random_state)
    names = {"path": [name for name in at if "->" in name], "interaction": [n for n in at if AND in n]}
    own = {path_words((head,)) for head in chosen}
    along = [path_words(path) for path in sweep.paths.get(ALONG, ())]
    parts: list[Estimate] = []
    for way, word in WAYS.items():
        x, te = sweep.effect(way), sweep.te
        parts += told({name: x[:, at[name]] for name in at if name in own}, f"head, {word}")
        joint = x[:, at[JOINT]]
        parts += told({JOINT: joint, "rest": te - joint}, f"joint, {word}")
        if along:
            each, by = {name: x[:, at[name]] for name in along}, f"along, {word}"
            all_ = x[:, at[ALONG]]
            parts += told(each, by)
            parts += told({"shared": all_ - np.sum([*each.values()], 0)}, by, reach=len(each))
            parts += told({"rest": te - all_}, by)
    kept: dict[str, list[Estimate]] = {}
    for kind, some in names.items():
        family: dict[str, Array] = {}
        for way in WAYS:
            x = sweep.effect(way)
            for name in some:
                y = x[:, at[name]]
                if kind == "interaction":
                    y = y - sum(x[:, at[single]] for single in name.split(AND))
                family[f"{way}:{name}"] = y
        reach = 2.0 if kind == "interaction" else 1.0
        rows = told(family, "", reach=reach, family=True) if family else []
        kept[kind] = [
            replace(row, label=row.label.split(":", 1)[1], by=f"{kind}, {WAYS[row.label.split(':', 1)[0]]}")
            for row in rows
        ]
    listed = _largest(kept["path"])
    parts += [row for row in kept["path"] if row.label in listed] + kept["interaction"]
    total = mean_interval(sweep.te, cluster=sweep.clusters, level=level, binary=sweep.binary)
    out = Result(
        sentence="",
        overall=replace(total, label="total effect"),
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
    reach: float = 1.0,
    family: bool = False,
) -> list[Estimate]:
    """Give the mean of each column with its interval and p; of a family, p for all of them too.

    `reach` is the furthest that a column can be where outcomes are 0 or 1.
    """
    x = np.stack([*columns.values()], 1)
    sums, sizes = cluster_sums(x, units_of(x, sweep.clusters))
    rng = np.random.default_rng(random_state)
    figures, q_value, _ = resampling.resample(sums, sizes, level=level, draws=draws, rng=rng)
    if sweep.binary:
        bound_alike(figures, x, len(sizes), level, reach)
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
    joint = [r.part(JOINT, by=f"{JOINT}, {word}") for word in WAYS.values()]
    each = " and ".join(
        f"{row.estimate:.3g} ({interval_words(*row.ends)}) {moved}"
        for row, moved in zip(joint, ("taken out of prompt 1", "put into prompt 0"), strict=True)
    )
    chosen = [path_words((head,)) for head in heads_of(sweep.sets[JOINT])]
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
