"""Run the notebooks, top to bottom, each in a kernel of its own.

    python notebooks/execute.py                       # in place, full size
    python notebooks/execute.py --size small --out D  # a quick check: copies into the folder D
    python notebooks/execute.py 01_example1_psm       # one of them

An exercise is a cell with dots in place of an answer; its solution is folded away in the text below it. That
is what runs here in place of the dots, which stay in what is stored. A notebook fails on an error, and on an
exercise whose own solution does not pass its check.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
NAMES = ("00_setup_and_theory", "01_example1_psm", "02_example2_mediation")


SOLUTION = re.compile(r"<details>.*?```python\n(.*?)```.*?</details>", re.DOTALL)


def solutions(notebook: nbformat.NotebookNode) -> dict[int, str]:
    """Give the solution of each exercise, by the number of its cell."""
    found: dict[int, str] = {}
    for number, (cell, below) in enumerate(itertools.pairwise(notebook.cells)):
        if "exercise" in cell.metadata.get("tags", ()):
            folded = SOLUTION.search(below.source)
            if folded is None:
                raise ValueError(f"cell {number} is an exercise, and no solution is folded below it")
            found[number] = folded.group(1)
    return found


def text_of(cell: nbformat.NotebookNode) -> str:
    """Give what a cell printed."""
    return "".join(o.get("text", "") for o in cell.get("outputs", ()) if o.output_type == "stream")


def execute(source: Path, target: Path, *, timeout: int) -> list[str]:
    """Run one notebook, write it with its outputs, and give what went wrong."""
    notebook = nbformat.read(source, as_version=4)
    problems: list[str] = []
    asked = {}
    for number, solution in solutions(notebook).items():
        asked[number], notebook.cells[number].source = notebook.cells[number].source, solution
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(target.parent)}},
        record_timing=False,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        problems.append(str(error))
    for number, question in asked.items():
        notebook.cells[number].source = question
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        # Progress bars and other messages of libraries are not part of the text.
        cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
        if "Not yet:" in text_of(cell):
            problems.append(f"cell {number}: the solution given does not pass: {text_of(cell).strip()}")
    nbformat.write(notebook, target)
    return problems


def _processor_seconds() -> float:
    """Give the processor time of the kernels that have ended."""
    used = os.times()
    return used.children_user + used.children_system


def main() -> None:
    """Run what is asked for and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME")
    parser.add_argument("--size", choices=["full", "small"], default="full")
    parser.add_argument("--out", type=Path, help="Folder for copies; in place by default.")
    parser.add_argument("--timeout", type=int, default=1800, help="Seconds that one cell may take.")
    chosen = parser.parse_args()
    os.environ["WHYPROMPT_NOTEBOOK_SIZE"] = chosen.size
    out = HERE if chosen.out is None else chosen.out
    if out != HERE:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("shared.py", "crosscheck.py", "crosscheck_example1.json"):
            if (HERE / name).exists():
                shutil.copy(HERE / name, out / name)
    failed = False
    for name in chosen.names:
        file = f"{name.removesuffix('.ipynb')}.ipynb"
        begun, spent = time.perf_counter(), _processor_seconds()
        problems = execute(HERE / file, out / file, timeout=chosen.timeout)
        took = f"{time.perf_counter() - begun:.0f} s, {_processor_seconds() - spent:.0f} of a processor"
        print(f"{file}: {took}, {'FAILED' if problems else 'passed'}", flush=True)
        for problem in problems:
            print(problem, file=sys.stderr)
        failed = failed or bool(problems)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
