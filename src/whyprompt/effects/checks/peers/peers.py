"""The other interpreter: where it is, and one run of `run_peers.py` in it.

DoWhy and CausalML have requirements that an environment with current releases cannot meet, write into the
frame they are given and draw from numpy's global stream. So they run in a process of their own, on copies.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PYTHON_VARIABLE = "WHYPROMPT_CROSSCHECK_PYTHON"
"""Environment variable with the interpreter that has DoWhy and CausalML."""

_HINT = (
    "make an environment for them: python -m venv .venv-crosscheck, then .venv-crosscheck/bin/python -m pip"
    " install dowhy==0.14 causalml==0.15.5; and give python='.venv-crosscheck/bin/python', or set"
    f" {PYTHON_VARIABLE}"
)


def find_python(python: str | os.PathLike[str] | None) -> str:
    """Give the interpreter that is to run DoWhy and CausalML.

    The caller's; else that of the environment variable; else this one, where they are installed.
    """
    named = python if python is not None else os.environ.get(PYTHON_VARIABLE) or None
    if named is not None:
        found = shutil.which(os.fspath(named))
        if found is None:
            source = "python" if python is not None else PYTHON_VARIABLE
            raise EstimationError(
                f"{source}={os.fspath(named)!r} is no program that can be run",
                hint="name the python of an environment with dowhy and causalml",
            )
        return found
    if any(importlib.util.find_spec(name) is not None for name in ("dowhy", "causalml")):
        return sys.executable
    raise EstimationError("neither DoWhy nor CausalML is installed here", hint=_HINT)


def run_peers(
    job: dict[str, Any], arrays: dict[str, NDArray[Any]], *, python: str, timeout: float
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Run the job in the other interpreter, on ``X``, ``treated`` and ``outcome``, within `timeout` seconds.

    Gives what it found (``versions`` and ``rows``) and the propensities that the tools estimated. A run that
    ends without a result, or takes too long, is refused.
    """
    with tempfile.TemporaryDirectory(prefix="whyprompt-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub takes a flag there
        # A copy beside nothing else: a script's own folder comes first on its path.
        script = folder / "run" / "run_peers.py"
        script.parent.mkdir()
        shutil.copy(Path(__file__).with_name("run_peers.py"), script)
        # A notebook's backend names a module that the other environment lacks.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        # Of several valid adjustment sets DoWhy takes the one that comes first in a hash's order.
        environment |= {"MPLBACKEND": "Agg", "PYTHONHASHSEED": "0"}
        try:
            done = subprocess.run(  # noqa: S603 - the interpreter is the caller's, and no shell is used
                [python, str(script), str(folder)],
                check=False,
                capture_output=True,
                text=True,
                timeout=timeout,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            raise EstimationError(
                f"DoWhy and CausalML did not finish in {timeout:g} s",
                hint="raise timeout, set draws=0, or give fewer rows",
            ) from None
        written = folder / "found.json"
        if done.returncode or not written.exists():
            last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise EstimationError(
                f"{python} ended with exit code {done.returncode}: {last}",
                hint="it must be the python of an environment with pandas, and dowhy or causalml",
            )
        found = json.loads(written.read_text(encoding="utf-8"))
        with np.load(folder / "scores.npz") as held:
            scores = {key: np.asarray(held[key], dtype=np.float64) for key in held.files}
    return found, scores
