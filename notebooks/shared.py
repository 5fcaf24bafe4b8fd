"""What the notebooks share: pictures that a code-hosting site shows, and checks of exercises.

It stands beside the notebooks and is imported from there; it needs the extras ``charts`` and ``notebooks``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from whyprompt.graph.model import CausalGraph

__all__ = ["NOT_YET", "RIGHT", "check", "graph_picture", "png_charts", "svg_picture"]

RIGHT, NOT_YET = "Right:", "Not yet:"
"""How the verdict of a check starts."""


def png_charts() -> None:
    """Show altair charts as PNG pictures, which are stored in the notebook and need no scripts."""
    import altair as alt

    alt.renderers.enable("png", ppi=120)


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
    return picture(data=vl_convert.svg_to_png(svg, scale=scale))


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


def check(passed: bool, *, right: str, wrong: str) -> None:  # noqa: FBT001 - the condition under test
    """Print the verdict on an exercise.

    Parameters
    ----------
    passed : bool
    right, wrong : str
        What to say in either case.

    Examples
    --------
    >>> check(1 + 1 == 2, right="one and one are two", wrong="count again")
    Right: one and one are two
    """
    print(f"{RIGHT} {right}" if passed else f"{NOT_YET} {wrong}")
