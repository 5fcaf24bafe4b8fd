"""Drawing a graph: a small layered layout (Sugiyama, Tagawa and Toda 1981) and its SVG."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

Edges = list[tuple[str, str, str]]
"""Tail, arrow and head of each, causes and effects before unobserved common causes."""

Traces = dict[tuple[str, str, str], str]
"""What runs along an edge (tail, arrow, head): ``"causal"``, ``"open"`` or ``"blocked"``."""

# Okabe and Ito's palette, lightened for fills so that black text keeps a contrast above 7:1; the word under
# the name says the same, so no one depends on colour.
FILLS = {
    "treatment": "#9fd0ee",
    "outcome": "#f6c667",
    "mediator": "#bfe6d5",
    "confounder": "#f2b48f",
    "on a backdoor path": "#f7d9c6",
    "instrument": "#f5ee9b",
    "precision": "#cfe3f5",
    "collider": "#e6bfd5",
    "descendant of a collider": "#f3dfea",
    "post-treatment": "#dcefe7",
    "post-outcome": "#e4e4e4",
    "unrelated": "#f4f4f4",
}
PLAIN = "#f4f4f4"
FONT = "font-family='system-ui, sans-serif'"
HEIGHT, GAP_X, GAP_Y, MARGIN, CHARACTER = 46.0, 70.0, 30.0, 24.0, 7.6
SWEEPS = 8
# Colour, width and words of a drawn path; widths differ as well, so that no one depends on colour.
STROKES = {
    "causal": ("#0072b2", 2.5, "on a causal path"),
    "open": ("#d55e00", 4.5, "on an open path that is not causal"),
    "blocked": ("#9a9a9a", 1.5, "on blocked paths only"),
    "": ("#333", 1.5, "on no path between the two"),
}
LEGEND = 20.0


class _Box(NamedTuple):
    x: float
    y: float
    width: float


def _layers(nodes: tuple[str, ...], directed: list[tuple[str, str]]) -> dict[str, int]:
    """Put a node right of its last cause, and one without causes by their first effect."""
    layer = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for a, b in directed:
            layer[b] = max(layer[b], layer[a] + 1)
    caused = {b for _, b in directed}
    for node in nodes:
        effects = [layer[b] for a, b in directed if a == node]
        if node not in caused and effects:
            layer[node] = min(effects) - 1
    return layer


def _ordered(layer: dict[str, int], edges: list[tuple[str, str]]) -> list[list[str]]:
    """Order each layer by the mean position of its neighbours, sweeping right and left."""
    columns: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node, at in layer.items():
        columns[at].append(node)
    place = {node: float(i) for column in columns for i, node in enumerate(column)}
    for sweep in range(SWEEPS):
        rightwards = sweep % 2 == 0
        for column in columns if rightwards else columns[::-1]:
            means = {}
            for node in column:
                near = [place[a] for a, b in edges if b == node] if rightwards else []
                near = near or [place[b] for a, b in edges if a == node]
                means[node] = sum(near) / len(near) if near else place[node]
            column.sort(key=lambda node: means[node])
            for i, node in enumerate(column):
                place[node] = i - (len(column) - 1) / 2
    return columns


def draw(
    nodes: tuple[str, ...],
    edges: Edges,
    roles: dict[str, tuple[str, ...]],
    traces: Traces | None = None,
    stories: tuple[str, ...] = (),
) -> str:
    """Draw the graph as one SVG element, with the paths that run along its edges where they are given."""
    directed = [(a, b) for a, arrow, b in edges if arrow == "->"]
    layer = _layers(nodes, directed)
    # An edge across several layers gets a bend in each, so that it does not run through boxes.
    bends: dict[tuple[str, str], list[str]] = {}
    pieces: list[tuple[str, str]] = []
    for number, (a, b) in enumerate(directed):
        inner = [f"\0{number}.{at}" for at in range(layer[a] + 1, layer[b])]
        layer.update({name: layer[a] + 1 + i for i, name in enumerate(inner)})
        bends[a, b] = inner
        pieces += list(zip([a, *inner], [*inner, b], strict=True))
    columns = _ordered(layer, pieces)
    boxes = _place(columns, nodes, roles)
    width = max((box.x + box.width / 2 for box in boxes.values()), default=0.0) + MARGIN
    height = max((box.y + HEIGHT / 2 for box in boxes.values()), default=0.0) + MARGIN

    kinds = traces or {}
    drawn = [kinds.get(edge, "") for edge in edges]
    shapes = [
        _edge(boxes, a, bends[a, b], b, kind) if arrow == "->" else _arc(boxes[a], boxes[b], kind)
        for (a, arrow, b), kind in zip(edges, drawn, strict=True)
    ]
    shapes += [_node(node, boxes[node], roles.get(node, ())) for node in nodes]
    title, description = _words(nodes, edges, roles)
    description = " ".join([description, *stories])
    if traces is not None:
        used = [k for k in STROKES if k in drawn]
        shapes += [_legend(k, height + (i + 0.5) * LEGEND) for i, k in enumerate(used)]
        height += len(used) * LEGEND + 8
        longest = max((len(STROKES[k][2]) for k in used), default=0)
        width = max(width, MARGIN + 48 + longest * CHARACTER)
    # Arcs may rise above the top row.
    rise = 60.0 if len(directed) < len(edges) else 0.0
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 {-rise:.0f} {width:.0f} {height + rise:.0f}' "
        f"width='{width:.0f}' height='{height + rise:.0f}' role='img' aria-labelledby='wp-title wp-desc'>"
    )
    heads = {_head(k): STROKES[k][0] for k in ["", *sorted({k for k in kinds.values() if k})]}
    marker = (
        "<defs>"
        + "".join(
            f"<marker id='{name}' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='12' "
            "markerHeight='12' markerUnits='userSpaceOnUse' "
            f"orient='auto-start-reverse'><path d='M0 0 10 5 0 10z' fill='{colour}'/></marker>"
            for name, colour in heads.items()
        )
        + "</defs>"
    )
    return "\n".join(
        [
            head,
            f"<title id='wp-title'>{escape(title)}</title>",
            f"<desc id='wp-desc'>{escape(description)}</desc>",
            marker,
            *shapes,
            "</svg>",
        ]
    )


def _place(
    columns: list[list[str]], nodes: tuple[str, ...], roles: dict[str, tuple[str, ...]]
) -> dict[str, _Box]:
    def label_width(node: str) -> float:
        longest = max(len(node), len(_caption(roles.get(node, ()))))
        return longest * CHARACTER + 24 if node in nodes else 0.0

    tallest = max((len(column) for column in columns), default=0) * (HEIGHT + GAP_Y)
    boxes, left = {}, MARGIN
    for column in columns:
        wide = max(map(label_width, column), default=0.0)
        top = MARGIN + (tallest - len(column) * (HEIGHT + GAP_Y)) / 2
        for i, node in enumerate(column):
            middle = top + i * (HEIGHT + GAP_Y) + HEIGHT / 2
            boxes[node] = _Box(left + wide / 2, middle, label_width(node) if node in nodes else wide)
        left += wide + GAP_X
    return boxes


def _caption(roles: tuple[str, ...]) -> str:
    shown = [role for role in roles if role != "unobserved"][:1]
    return ", ".join([*shown, *(["unobserved"] if "unobserved" in roles else [])])


def _head(kind: str) -> str:
    return f"wp-head-{kind}" if kind else "wp-head"


def _legend(kind: str, y: float) -> str:
    colour, wide, words = STROKES[kind]
    return (
        f"<g><line x1='{MARGIN:.0f}' y1='{y:.1f}' x2='{MARGIN + 32:.0f}' y2='{y:.1f}' stroke='{colour}' "
        f"stroke-width='{wide}'/><text x='{MARGIN + 40:.0f}' y='{y + 4:.1f}' {FONT} font-size='11'"
        f" fill='#111'>{escape(words)}</text></g>"
    )


def _edge(boxes: dict[str, _Box], a: str, bends: list[str], b: str, kind: str) -> str:
    start, end = boxes[a], boxes[b]
    # Flat across the column that a bend stands in: a curve there would run behind the column's boxes.
    flats = [(boxes[bend].x, boxes[bend].y, boxes[bend].width) for bend in bends]
    flats.append((end.x - 2, end.y, end.width))
    x0, y0 = start.x + start.width / 2, start.y
    path = [f"M{x0:.1f} {y0:.1f}"]
    for number, (middle, y1, wide) in enumerate(flats, start=1):
        x1 = middle - wide / 2
        half = (x1 - x0) / 2
        path.append(f"C{x0 + half:.1f} {y0:.1f} {x1 - half:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
        x0, y0 = middle + wide / 2, y1
        if number < len(flats):
            path.append(f"H{x0:.1f}")
    colour, wide, _ = STROKES[kind]
    return (
        f"<path d='{' '.join(path)}' fill='none' stroke='{colour}' stroke-width='{wide}' "
        f"marker-end='url(#{_head(kind)})'/>"
    )


def _arc(a: _Box, b: _Box, kind: str) -> str:
    x0, y0, x1, y1 = a.x, a.y - HEIGHT / 2 - 2, b.x, b.y - HEIGHT / 2 - 2
    top = min(y0, y1) - 44
    colour, wide, _ = STROKES[kind]
    return (
        f"<path d='M{x0:.1f} {y0:.1f} C{x0:.1f} {top:.1f} {x1:.1f} {top:.1f} {x1:.1f} {y1:.1f}' fill='none' "
        f"stroke='{colour}' stroke-width='{wide}' stroke-dasharray='6 4' "
        f"marker-start='url(#{_head(kind)})' marker-end='url(#{_head(kind)})'/>"
    )


def _node(name: str, box: _Box, roles: tuple[str, ...]) -> str:
    dash = " stroke-dasharray='4 3'" if "unobserved" in roles else ""
    heavy = "2.5" if roles[:1] in {("treatment",), ("outcome",)} else "1.2"
    fill = FILLS.get(roles[0], PLAIN) if roles else PLAIN
    caption = _caption(roles)
    drop = -3 if caption else 4
    shapes = [
        (
            f"<g><rect x='{box.x - box.width / 2:.1f}' y='{box.y - HEIGHT / 2:.1f}' width='{box.width:.1f}' "
            f"height='{HEIGHT:.0f}' rx='8' fill='{fill}' stroke='#333' stroke-width='{heavy}'{dash}/>"
        ),
        (
            f"<text x='{box.x:.1f}' y='{box.y + drop:.1f}' text-anchor='middle' {FONT} font-size='13' "
            f"font-weight='600' fill='#111'>{escape(name)}</text>"
        ),
    ]
    if caption:
        shapes.append(
            f"<text x='{box.x:.1f}' y='{box.y + 14:.1f}' text-anchor='middle' {FONT} font-size='11' "
            f"fill='#111'>{escape(caption)}</text>"
        )
    return "".join(shapes) + "</g>"


def _words(nodes: tuple[str, ...], edges: Edges, roles: dict[str, tuple[str, ...]]) -> tuple[str, str]:
    ends = [[n for n in nodes if roles.get(n, ())[:1] == (role,)] for role in ("treatment", "outcome")]
    title = "Causal graph"
    if ends[0] and ends[1]:
        title = f"Causal graph for the effect of {ends[0][0]} on {ends[1][0]}"
    sentences = [
        f"{a} causes {b}." if arrow == "->" else f"{a} and {b} share an unobserved cause."
        for a, arrow, b in edges
    ]
    sentences += [f"{n}: {', '.join(roles[n])}." for n in nodes if n in roles]
    return title, " ".join(sentences)
