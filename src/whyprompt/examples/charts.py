"""Charts of a prepared table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt.charts.style import BLUE, GREY, VERMILION, data, finish
from whyprompt.examples.explore import explore, table_columns

if TYPE_CHECKING:
    import altair as alt


def exploration_charts(
    frame: Any,  # noqa: ANN401 - any frame library's type
    examples: Any = None,  # noqa: ANN401 - any frame library's type
    *,
    width: int = 480,
) -> dict[str, alt.TopLevelMixin]:
    """Draw a table of items: its categories, its lengths, its empty cells.

    Parameters
    ----------
    frame, examples : DataFrame
        As for `explore`.
    width : int, default 480
        Of each picture's plotting area, in pixels.

    Returns
    -------
    dict of str to altair chart
        ``categories``, ``lengths`` and ``missing``.

    Raises
    ------
    DataError
        As `explore`.
    """
    import altair as alt

    found = explore(frame, examples)
    columns = table_columns(frame)
    sizes = found.categories.set_index("task_type")[["n_items", "n_examples"]]
    order = sizes.index.tolist()
    bars = [
        {"task": task, "role": role, "count": int(n)}
        for task, *counts in sizes.itertuples()
        for role, n in zip(("item", "example kept out"), counts, strict=True)
    ]
    categories = (
        alt.Chart(data(bars))
        .mark_bar()
        .encode(
            x=alt.X("count:Q", title="rows"),
            y=alt.Y("task:N", title=None, sort=order),
            color=alt.Color(
                "role:N", title=None, scale=alt.Scale(domain=["item", "example kept out"], range=[BLUE, GREY])
            ),
            order=alt.Order("role:N", sort="descending"),
        )
        .properties(width=width)
    )
    texts = found.lengths["column"].tolist()
    ticks = [
        {"task": task, "text": column, "words": len(str(value).split())}
        for column in texts
        for task, value in zip(columns["task_type"], columns[column], strict=True)
        if value is not None
    ]
    lengths = (
        alt.Chart(data(ticks))
        .mark_boxplot(extent="min-max", color=BLUE, size=9)
        .encode(
            x=alt.X("words:Q", title="words"),
            y=alt.Y("task:N", title=None, sort=order),
        )
        .properties(width=width // len(texts))
        .facet(column=alt.Column("text:N", title=None, sort=texts))
        .resolve_scale(x="independent")
    )
    cells = [{"column": name, "share": n / total} for name, (n, total) in found.missing.items()]
    missing = (
        alt.Chart(data(cells))
        .mark_bar(color=VERMILION)
        .encode(
            x=alt.X(
                "share:Q",
                title="share of cells that are empty",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%"),
            ),
            y=alt.Y("column:N", title=None, sort=list(found.missing)),
        )
        .properties(width=width)
    )
    return {
        "categories": finish(categories, description="Rows of each task, items and examples kept out"),
        "lengths": finish(lengths, description="Length in words of each text column, by task"),
        "missing": finish(missing, description="Share of empty cells in each column"),
    }
