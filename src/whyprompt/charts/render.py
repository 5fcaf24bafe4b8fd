"""Charts as PNG and SVG, by vl-convert: no browser, no network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whyprompt._files import whole_file
from whyprompt.errors import DataError, InputError, WhypromptError

if TYPE_CHECKING:
    from types import ModuleType

    import altair as alt

_KINDS = {".svg", ".png"}
# vl-convert brings several releases of Vega-Lite; altair says which one it writes for.
_HINT = "pip install 'whyprompt[charts]'"


def can_render() -> bool:
    """Say whether charts can be turned into pictures here."""
    return find_spec("vl_convert") is not None


@cache
def _renderer() -> ModuleType:
    """Give vl-convert, once it is known that its engine can start here.

    V8 reserves address space by the dozen GiB as it starts, and where a limit forbids that it ends the
    process. So where there is a limit it is first tried in another one; `InputError` if it cannot.
    """
    import vl_convert

    try:
        import resource
    except ImportError:  # a system without such limits
        return vl_convert
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        draw = "import vl_convert; vl_convert.vega_to_svg({})"
        tried = subprocess.run([sys.executable, "-c", draw], capture_output=True, check=False)  # noqa: S603 - fixed
        if tried.returncode < 0:
            raise InputError(
                "charts cannot be drawn: their engine, V8, reserves more address space than the "
                f"{limit / 1e9:.3g} GB that this process is limited to",
                hint="lift that limit: ulimit -v unlimited; limits on memory in use do no harm",
            )
    return vl_convert


def _spec(chart: alt.TopLevelMixin) -> tuple[dict[str, Any], str]:
    import altair as alt

    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return json.loads(chart.to_json()), version


def save_chart(chart: alt.TopLevelMixin, path: str | Path, *, scale: float = 2.0) -> Path:
    """Write a chart as PNG or SVG.

    Parameters
    ----------
    chart : altair.Chart
        From any of this package's functions.
    path : str or Path
        Ends in ``.png`` or ``.svg``.
    scale : float, default 2
        Pixels of a PNG for each pixel of the chart.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    DataError
        If the ending is neither.
    WhypromptError
        If vl-convert is not installed.
    InputError
        If a limit on address space keeps it from starting.

    Examples
    --------
    >>> save_chart(forest_plot(result), "forest.png")  # doctest: +SKIP
    """
    target = Path(path)
    if target.suffix.lower() not in _KINDS:
        raise DataError(f"{str(path)!r} ends in {target.suffix!r}", hint="save a chart as .png or .svg")
    if not can_render():
        raise WhypromptError("pictures of charts need the package vl-convert-python", hint=_HINT)
    spec, version = _spec(chart)
    vl_convert = _renderer()
    if target.suffix.lower() == ".svg":
        picture = vl_convert.vegalite_to_svg(spec, vl_version=version).encode()
    else:
        picture = vl_convert.vegalite_to_png(spec, vl_version=version, scale=scale)
    with whole_file(target) as file:
        file.write(picture)
    return target


def inline_svg(chart: alt.TopLevelMixin, *, prefix: str, interactive: bool = False) -> str:
    """Draw a chart as an SVG element for a page: no background, ids that no other chart has, short.

    A mark's words stay with it, as ``data-say``; where marks are to be chosen, as its accessible name.
    """
    spec, version = _spec(chart)
    vl_convert = _renderer()
    spec["background"] = "transparent"
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=version)
    # Two charts on one page would otherwise share "clip0", and the second be cut by the first's. Numbered
    # anew: vl-convert counts over its lifetime, and a page is the same however it came to be written.
    names = {old: f"{prefix}-{k}" for k, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))}
    for old, new in names.items():
        svg = svg.replace(f'id="{old}"', f'id="{new}"').replace(f"url(#{old})", f"url(#{new})")
        svg = svg.replace(f'href="#{old}"', f'href="#{new}"')
    return _short(svg[svg.index("<svg") :], interactive=interactive)


def _short(svg: str, *, interactive: bool) -> str:
    # The drawing's numbers to a hundredth of a pixel; what marks say is left as it is.
    svg = re.sub(
        r' (?:d|transform|fill|[xy][12]?|width|height)="[^"]*"',
        lambda found: re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", found[0]),
        svg,
    )
    svg = re.sub(r' role="graphics-(?:object|document)" aria-roledescription="[^"]*"', "", svg)
    mark = r' role="graphics-symbol" aria-roledescription="[^"]*"'
    if interactive:
        return re.sub(mark, ' role="img"', svg)
    return re.sub(mark, "", svg).replace(' aria-label="', ' data-say="')
