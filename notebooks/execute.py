"""Run the notebooks, top to bottom, each in a kernel of its own.

    python notebooks/execute.py                       # in place, full size
    python notebooks/execute.py --size small --out D  # a quick check: copies into the folder D
    python notebooks/execute.py 01_example1_psm       # one of them

A notebook fails on an error, and on an exercise whose own solution does not pass its check.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
NAMES = ("00_setup_and_theory", "01_example1_psm", "02_example2_mediation")


def text_of(cell: nbformat.NotebookNode) -> str:
    """Give what a cell printed."""
    return "".join(o.get("text", "") for o in cell.get("outputs", ()) if o.output_type == "stream")


def execute(source: Path, target: Path, *, timeout: int) -> list[str]:
    """Run one notebook, write it with its outputs, and give what went wrong."""
    notebook = nbformat.read(source, as_version=4)
    problems: list[str] = []
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
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        # Progress bars and other messages of libraries are not part of the text.
        cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
        if "Not yet:" in text_of(cell):
            problems.append(f"cell {number}: the solution given does not pass: {text_of(cell).strip()}")
    nbformat.write(notebook, target)
    return problems


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
        begun = time.perf_counter()
        problems = execute(HERE / file, out / file, timeout=chosen.timeout)
        print(
            f"{file}: {time.perf_counter() - begun:.0f} s, {'FAILED' if problems else 'passed'}", flush=True
        )
        for problem in problems:
            print(problem, file=sys.stderr)
        failed = failed or bool(problems)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
