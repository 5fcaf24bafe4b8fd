"""What the notebooks share: pictures that a code-hosting site shows, and checks of exercises.

It stands beside the notebooks and is imported from there; it needs the extras ``charts`` and ``notebooks``.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from whyprompt.examples.prepare import ExampleData
    from whyprompt.graph.model import CausalGraph

__all__ = ["NOT_YET", "RIGHT", "check", "graph_picture", "png_charts", "said_of", "small_png", "svg_picture"]

RIGHT, NOT_YET = "Right:", "Not yet:"
"""How the verdict of a check starts."""

_COLOURS = 256


def small_png(png: bytes) -> bytes:
    """Store a picture with 256 colours, a quarter of its size; charts have hardly more, soft edges aside."""
    from PIL import Image

    out = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    paper.alpha_composite(picture)
    paper.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def png_charts() -> None:
    """Show altair charts as PNG pictures, which are stored in the notebook and need no scripts."""
    import altair as alt
    from altair.utils.mimebundle import spec_to_mimebundle

    def shown(spec: dict[str, Any], **_: Any) -> Any:  # noqa: ANN401 - altair's own options and pictures
        made: Any = spec_to_mimebundle(spec, "png", mode="vega-lite", ppi=120)
        return {"image/png": small_png(made[0]["image/png"])}

    alt.renderers.register("small_png", shown)
    alt.renderers.enable("small_png")


def svg_picture(svg: str, *, scale: float = 1.5) -> Any:  # noqa: ANN401 - IPython ships no types for it here
    """Turn an SVG element into a PNG picture.

    Parameters
    ----------
    svg : str
    scale : float, default 1.5
        Pixels for each unit of the SVG.

    Returns
    -------
    IPython.display.Image
    """
    import vl_convert
    from IPython.display import Image

    picture: Any = Image  # its constructor is untyped
    return picture(data=small_png(vl_convert.svg_to_png(svg, scale=scale)))


def graph_picture(
    graph: CausalGraph, treatment: str, outcome: str, *, given: str | Collection[str] | None = None
) -> Any:  # noqa: ANN401 - IPython ships no types for it here
    """Draw a causal graph as a PNG picture.

    Parameters
    ----------
    graph : CausalGraph
    treatment, outcome : str
    given : str or collection of str, optional
        As for `CausalGraph.to_svg`.

    Returns
    -------
    IPython.display.Image
    """
    return svg_picture(graph.to_svg(treatment, outcome, given=given))


def said_of(data: ExampleData) -> str:
    """Say what was prepared and from which source; of a local one its name, and not where it lies.

    Parameters
    ----------
    data : ExampleData

    Returns
    -------
    str
    """
    path = Path(data.source)
    if data.generated or not path.exists():
        return data.sentence
    name = {"gsm8k": "GSM8K", "natural_instructions": "Natural Instructions"}[data.kind]
    said = data.sentence.replace(f"({data.source})", f"(local copy, {path.name})")
    return f"Read from REAL files of {name}. {said}"


def check(
    answer: Any,  # noqa: ANN401 - whatever the exercise asks for
    holds: Callable[[Any], bool],
    *,
    right: str | Callable[[Any], str],
    wrong: str | Callable[[Any], str],
) -> None:
    """Print the verdict on the answer to an exercise.

    Parameters
    ----------
    answer : object
        The dots (``...``) that an exercise starts with are no answer yet.
    holds : callable
        Whether an answer is right.
    right, wrong : str or callable
        What to say in either case; a callable is given the answer.

    Examples
    --------
    >>> check(2, lambda n: 1 + 1 == n, right=lambda n: f"one and one are {n}", wrong="count again")
    Right: one and one are 2
    >>> check(..., lambda n: 1 + 1 == n, right="", wrong="count again")
    Not yet: write your answer in place of the dots
    """
    if answer is ...:
        print(f"{NOT_YET} write your answer in place of the dots")
        return
    verdict, said = (RIGHT, right) if holds(answer) else (NOT_YET, wrong)
    print(f"{verdict} {said if isinstance(said, str) else said(answer)}")
