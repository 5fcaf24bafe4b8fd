"""Which model answered: a change within a run is told, one between arms makes them incomparable.

Arms of an item are asked for together, so a model that is replaced in the middle of a run is replaced under
all arms. A provider that sends one arm's prompts to another model is another matter: what it changes and what
the prompt changes are then one difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt._words import counted, p_words
from whyprompt.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd

_P = 1e-3
_UNNAMED = "no model named"


def drift(frame: pd.DataFrame) -> list[str]:
    """Tell who answered, where it was more than one.

    Parameters
    ----------
    frame : pandas.DataFrame
        A trial table, with ``arm`` and ``answered_by`` (the model, its fingerprint and its provider).

    Raises
    ------
    ModelError
        If an arm was answered by a model that another was not, or who answered goes with the arm.
    """
    if "answered_by" not in frame:
        return []
    # A reply that names no model may be another's: it counts as one of its own.
    seen = frame
    if "error" in frame:
        seen = frame[frame["answered_by"].notna() | frame["error"].isna()]
    seen = seen.assign(answered_by=seen["answered_by"].fillna(_UNNAMED))
    counts = seen["answered_by"].value_counts()
    if len(counts) < 2:
        return []
    from scipy import stats

    models = seen["answered_by"].str.partition(", ")[0]
    by_arm = {str(arm): set(some) for arm, some in models.groupby(seen["arm"])}
    listed = ", ".join(f"{name} ({n})" for name, n in counts.items())
    if len({frozenset(names) for names in by_arm.values()}) > 1:
        told = "; ".join(f"{arm!r}: {', '.join(sorted(names))}" for arm, names in by_arm.items())
        raise ModelError(
            f"the arms were answered by different models ({told}): what the prompt does and what the model"
            " does is one difference",
            hint="name a model that does not move (a dated name, one provider), and run into a new folder",
        )
    import pandas as pd

    table = pd.crosstab(seen["arm"], seen["answered_by"]).to_numpy()
    p = float(stats.chi2_contingency(table).pvalue) if min(table.shape) > 1 else 1.0
    if p < _P:
        raise ModelError(
            f"who answered goes with the arm (p {p_words(p)}): {listed}",
            hint="name a model and a provider that do not move, and run into a new folder",
        )
    versions = counted(len(counts), "version")
    alike = f"under all arms alike (p {p_words(p)} of no relation to the arm)"
    return [f"the model changed within the run: {versions} answered ({listed}), {alike}"]


def flicker(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Count, by arm, the items that were asked more than once at temperature 0, and those that vary.

    Parameters
    ----------
    frame : pandas.DataFrame
        A trial table with ``completion``.

    Returns
    -------
    dict
        Arm to the number of such items and of those whose completions differ.
    """
    if "completion" not in frame:
        return {}
    cold = frame[(frame["temperature"] == 0) & frame["completion"].notna()]
    found = {}
    for arm, rows in cold.groupby("arm", sort=False):
        texts = rows.groupby("item_id")["completion"].agg(["size", "nunique"])
        many = texts[texts["size"] > 1]
        if len(many):
            found[str(arm)] = len(many), int((many["nunique"] > 1).sum())
    return found
