"""The panel of a chosen head: its effect by item and its attention over the tokens, for any head."""

from __future__ import annotations

import base64
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.charts.heads import head_words
from whyprompt.charts.levels import segment_colours
from whyprompt.page.blocks import Cell, Panel, num, table

if TYPE_CHECKING:
    from whyprompt.answers.internal import StudyMediation
    from whyprompt.mediation.capture import HeadCapture
    from whyprompt.page.blocks import Run

ATTENTION_BYTES = 1_100_000
"""Of a page of 3 MB: where all heads' attention takes more, only the strongest keep theirs."""

_OTHER = "other"


def head_panel(found: StudyMediation) -> Panel:
    """Show the head with the largest effect; the page's script shows any other."""
    inference, sweep = found.main.inference.of_kind("head"), found.main.sweep.of_kind("head")
    order = np.argsort(-np.abs(inference.mean), kind="stable").tolist()
    best = order[0]
    effect = sweep.nie[:, best]
    most = float(np.abs(sweep.nie).max()) or 1.0
    downward = np.argsort(-effect, kind="stable").tolist()
    items = [
        (
            sweep.item_ids[i],
            found.item_tasks.get(sweep.item_ids[i], ""),
            Cell(num(float(effect[i])).text, float(effect[i]) / most),
            num(float(sweep.te[i])),
        )
        for i in downward
    ]
    mass = [
        (name, *("none" if v is None else f"{100 * v:.1f}%" for v in arms))
        for name, *arms in zip(found.capture.segments, *_mean_mass(found, inference.heads[best]), strict=True)
    ]
    return Panel(
        options=tuple((i, "head {}.{}".format(*inference.heads[i])) for i in order),
        words=head_words(inference, best),
        order=tuple(downward),
        items=table("Its effect, item by item", ("item", "task", "NIE", "total effect"), items),
        strips=tuple(
            _strip(picture, inference.heads[best])
            for picture in found.attention
            if inference.heads[best] in picture.heads
        ),
        mass=table(
            f"Attention by segment, mean over {len(found.capture.item_ids)} items",
            ("segment", found.main.contrast.control, found.main.contrast.treated),
            mass,
        ),
    )


def _mean_mass(found: StudyMediation, head: tuple[int, int]) -> list[list[float | None]]:
    """Average one head's mass over items, arms x segments; None where an arm has no such segment."""
    capture = found.capture
    if head not in capture.heads:
        return [[None] * len(capture.segments)] * 2
    mass = capture.mass[:, :, capture.heads.index(head)]
    has = ~np.isnan(mass)
    count = has.sum(0)
    mean = np.where(has, mass, 0.0).sum(0) / np.maximum(count, 1)
    return [
        [float(v) if n else None for v, n in zip(*arm, strict=True)] for arm in zip(mean, count, strict=True)
    ]


def _strip(
    picture: HeadCapture, head: tuple[int, int]
) -> tuple[str, str, tuple[Run, ...], tuple[tuple[str, str, float], ...]]:
    weight = picture.mean_weights[picture.heads.index(head)]
    most = float(weight.max()) or 1.0
    colours = {**segment_colours(picture.segments), _OTHER: "var(--grid)"}
    segments = [s or _OTHER for s in picture.segments]
    tokens = [
        Cell(_visible(text), float(np.sqrt(w / most)), f"{text!r}: weight {w:.3f}")
        for text, w in zip(picture.tokens, weight.tolist(), strict=True)
    ]
    runs = tuple(
        (name, colours[name], tuple(token for _, token in run))
        for name, run in groupby(zip(segments, tokens, strict=True), key=lambda pair: pair[0])
    )
    mass = tuple(
        (name, colours[name], float(weight[[s == name for s in segments]].sum()))
        for name in dict.fromkeys(segments)
    )
    return picture.item_id, str(picture.arm), runs, mass


def _visible(token: str) -> str:
    """Show what a reader would not see."""
    return token.replace("\n", "↵\n") if token.strip(" ") else token.replace(" ", "␣")


def head_data(found: StudyMediation | None, *, room: int = ATTENTION_BYTES) -> dict[str, Any] | None:
    """Give what the page's script needs to show any head: its effect by item and its attention.

    Weights are one byte each, in base64. Where those of all heads would take more than `room` bytes, the
    strongest heads keep theirs.
    """
    if found is None:
        return None
    inference, sweep = found.main.inference.of_kind("head"), found.main.sweep.of_kind("head")
    order = np.argsort(-np.abs(inference.mean), kind="stable").tolist()
    tokens = sum(len(p.tokens) for p in found.attention)
    fit = len(order) if tokens == 0 else max(1, int(room * 3 / 4) // tokens)
    kept = sorted(order[:fit])
    pictures = []
    for p in found.attention:
        at = {head: i for i, head in enumerate(p.heads)}
        rows = [i for i in kept if inference.heads[i] in at]
        block = np.round(p.mean_weights[[at[inference.heads[i]] for i in rows]] * 255).astype(np.uint8)
        pictures.append(
            {
                "n": len(p.tokens),
                "rows": {str(i): k for k, i in enumerate(rows)},
                "segments": [s or _OTHER for s in p.segments],
                "tokens": list(p.tokens),
                "weights": base64.b64encode(block.tobytes()).decode(),
            }
        )
    return {
        "heads": [list(h) for h in inference.heads],
        "words": [head_words(inference, i) for i in range(len(inference.heads))],
        # Twice the digits shown: rounded again on the page, they read as the tables do.
        "nie": [[float(f"{v:.6g}") for v in row] for row in sweep.nie.T.tolist()],
        "mass": [
            [[None if v is None else float(f"{v:.6f}") for v in arm] for arm in _mean_mass(found, head)]
            for head in inference.heads
        ],
        "chosen": order[0],
        "pictures": pictures,
    }
