"""Small tables that come with the package, for trying things on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import did_you_mean
from whyprompt.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("gaps", "log", "paired", "rollout", "texts")


def load_example(name: str) -> pd.DataFrame:
    """Read a small table that comes with the package.

    Parameters
    ----------
    name : {"gaps", "log", "paired", "rollout", "texts"}
        ``"paired"``: 600 generated questions of six families, each under both prompts of this project's
        example study, as the embedded model answered them. ``"log"``: the same items with one prompt each,
        as a router would have chosen it; what is true of them is in ``"paired"``. ``"gaps"``: the log with
        every seventh ``difficulty`` or so lost, of long questions more often. ``"rollout"``: 1,080
        simulated trials of six routes over thirty days, three of which changed their prompt, which raises
        the chance of a right answer by 0.08. ``"texts"``: 80 questions for a name in a short text,
        each answered by the embedded model when asked for the name (``"brief"``) and for a ``"sentence"``.

    Returns
    -------
    pandas.DataFrame
        One row a trial. Columns of ``"paired"`` and ``"log"``: ``item_id``; ``arm``, ``"direct"`` or
        ``"few_shot"`` (three worked examples); ``task_type``, the family; ``difficulty``, the generator's own
        number, in standard deviations of its family; ``question_tokens``; ``question_perplexity`` under the
        model; ``prompt_tokens``, which the arm changes; ``correct``, 0 or 1; ``score``, the log-probability
        of the right answer in nats. ``"log"`` also has ``drawn``, the arm that a fair coin named: the router
        mostly followed it, and gave worked examples more often to what is hard and long. ``"rollout"`` has
        ``started_at``, ``route``, ``arm``, ``difficulty`` and ``correct``. ``"texts"`` has ``item_id``,
        ``arm``, ``difficulty`` (statements in the text), ``completion``, ``completion_tokens`` and ``f1``,
        the overlap of its words with the name's, 0 to 1.

    Raises
    ------
    DataError
        If there is no such table.

    Notes
    -----
    ``python benchmarks/example_tables.py STUDY FOLDER`` made them, and says by which rule.

    Examples
    --------
    >>> from whyprompt import estimate_effect, load_example
    >>> log, both = load_example("log"), load_example("paired")
    >>> asked = {"treatment": "arm", "outcome": "score", "treated": "few_shot", "control": "direct"}
    >>> known = ["task_type", "difficulty", "question_tokens"]
    >>> plain = estimate_effect(log, **asked, method="naive").estimate
    >>> adjusted = estimate_effect(log, **asked, confounders=known, estimand="ate").estimate
    >>> truth = estimate_effect(both, **asked, design="paired").estimate
    >>> abs(adjusted - truth) < abs(plain - truth)
    True
    """
    if name not in NAMES:
        meant = did_you_mean(str(name), NAMES)
        raise DataError(f"there is no example table {name!r}{meant}", hint=f"one of: {', '.join(NAMES)}")
    import pandas as pd

    frame = pd.read_csv(Path(__file__).with_name(f"{'log' if name == 'gaps' else name}.csv"))
    if name == "gaps":
        lost = frame["question_tokens"].rank(pct=True) * 0.3
        frame.loc[np.random.default_rng(0).random(len(frame)) < lost, "difficulty"] = np.nan
    return frame
