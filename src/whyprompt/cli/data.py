"""``whyprompt data``: small tables to try things on, and the data of the two worked examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whyprompt._files import whole_file
from whyprompt.cli.common import AsJson, put, say
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from whyprompt.examples.prepare import ExampleData

app = typer.Typer(
    help="Save a small table to try things on; prepare and explore the data of the two worked examples.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

_Out = Annotated[Path, typer.Option("--out", help="Folder that gets the data set's folder.", metavar="DIR")]
_Examples = Annotated[
    int, typer.Option(min=0, max=100_000, help="Items kept out, from which worked examples are drawn.")
]
_Words = Annotated[int, typer.Option(min=1, help="Longer questions are left out, and counted.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of the draw, and of generators.")]
_Charts = Annotated[bool, typer.Option("--charts/--no-charts", help="Draw the exploration as PNG files.")]


@app.command()
def table(
    name: Annotated[
        str, typer.Argument(help="'log', 'gaps', 'paired', 'rollout' or 'texts'.", metavar="NAME")
    ],
    path: Annotated[Path, typer.Argument(help="Gets it: .csv or .parquet.", metavar="FILE")],
    as_json: AsJson = False,
) -> None:
    """Save one of the tables that come with the package: whyprompt data table log logs.csv."""
    from whyprompt.examples.tables import load_example

    frame = load_example(name)
    if path.suffix not in {".csv", ".parquet"}:
        raise DataError(f"{path} ends in neither .csv nor .parquet")
    with whole_file(path) as file:
        if path.suffix == ".csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file, index=False)
    content = {"file": str(path), "rows": len(frame), "columns": list(frame.columns)}
    put(content, f"{len(frame)} rows in {path}: {', '.join(frame.columns)}", as_json=as_json)


@app.command()
def example1(
    source: Annotated[
        str | None,
        typer.Option(
            help="Folder of Natural Instructions task files, a name on the hub, or 'generated'. Default: "
            "Natural Instructions from the hub, else P3 from the hub, else generated tasks."
        ),
    ] = None,
    out: _Out = Path(),
    size: Annotated[int, typer.Option(min=1, max=100_000, help="Items of each task.")] = 60,
    examples: _Examples = 8,
    max_question_words: _Words = 150,
    max_answer_words: Annotated[
        int, typer.Option(min=1, help="Items with longer answers are left out, and counted.")
    ] = 6,
    seed: _Seed = 0,
    charts: _Charts = True,
    as_json: AsJson = False,
) -> None:
    """Prepare Example 1, instruction formats: Example1_Dataset/instruction_format_data.csv."""
    from whyprompt.examples.prepare import prepare_example1

    data = prepare_example1(
        out,
        source=source,
        size=size,
        examples=examples,
        max_question_words=max_question_words,
        max_answer_words=max_answer_words,
        seed=seed,
    )
    _explored(data, charts=charts, as_json=as_json)


@app.command()
def example2(
    source: Annotated[
        str | None,
        typer.Option(
            help="File in the layout of GSM8K or folder with test.jsonl, a name on the hub, or 'generated'. "
            "Default: GSM8K from the hub, else generated problems."
        ),
    ] = None,
    out: _Out = Path(),
    size: Annotated[int, typer.Option(min=1, max=100_000, help="Items.")] = 120,
    examples: _Examples = 16,
    max_question_words: _Words = 150,
    seed: _Seed = 0,
    charts: _Charts = True,
    as_json: AsJson = False,
) -> None:
    """Prepare Example 2, reasoning: Example2_Dataset/attention_reasoning_data.csv."""
    from whyprompt.examples.prepare import prepare_example2

    data = prepare_example2(
        out, source=source, size=size, examples=examples, max_question_words=max_question_words, seed=seed
    )
    _explored(data, charts=charts, as_json=as_json)


def _explored(data: ExampleData, *, charts: bool, as_json: bool) -> None:
    from whyprompt.examples.charts import exploration_charts
    from whyprompt.examples.explore import explore

    # Which data these are is the first thing to know: said before anything else can fail.
    for notice in data.notices:
        say(f"note: {notice}")
    if data.generated:
        say(f"NOTE: the items of {data.example} were GENERATED ({data.source}); no published data set")
    found = explore(data.frame, data.examples)
    table = data.path.with_name("exploration.csv")
    with whole_file(table) as file:
        found.to_frame().to_csv(file, index=False)
    pictures: dict[str, str] = {}
    if charts:
        from whyprompt.charts.render import save_chart

        pictures = {
            name: str(save_chart(chart, data.path.with_name(f"exploration_{name}.png")))
            for name, chart in exploration_charts(data.frame, data.examples).items()
        }
    content = {**data.to_dict(), "exploration": found.to_dict(), "table": str(table), "charts": pictures}
    files = f"Exploration: {', '.join([str(table), *pictures.values()])}"
    put(content, f"{data.sentence}\n\n{found.summary()}\n\n{files}", as_json=as_json)
