"""The same draw, estimated by DoWhy and CausalML.

They cannot share whyprompt's environment, so this script runs in one of its own and imports no whyprompt:

    python -m venv .venv-crosscheck
    .venv-crosscheck/bin/python -m pip install dowhy==0.14 causalml==0.15.5
    .venv-crosscheck/bin/python notebooks/crosscheck.py notebooks/runs/example1_draw.csv \
        --out notebooks/crosscheck_example1.json

The CSV has a column `treated` (0 or 1), a column `outcome`, and confounders; text columns are coded by
reference coding. The JSON holds the estimates, the versions, and the SHA-256 of the CSV they belong to.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

warnings.simplefilter("ignore")


def read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read the draw and code its text columns."""
    frame = pd.read_csv(path, keep_default_na=False).drop(columns="item_id", errors="ignore")
    confounders = [c for c in frame.columns if c not in {"treated", "outcome"}]
    text = [c for c in confounders if not pd.api.types.is_numeric_dtype(frame[c])]
    coded = pd.get_dummies(frame, columns=text, drop_first=True, dtype=float)
    coded = coded.astype({"treated": int, "outcome": float})
    return coded, [c for c in coded.columns if c not in {"treated", "outcome"}]


def by_dowhy(frame: pd.DataFrame, confounders: list[str]) -> list[dict[str, object]]:
    """Match and weight on DoWhy's own propensity score."""
    from dowhy import CausalModel

    model = CausalModel(
        data=frame.assign(treated=frame["treated"].astype(bool)),
        treatment="treated",
        outcome="outcome",
        common_causes=confounders,
    )
    estimand = model.identify_effect(proceed_when_unidentifiable=True)
    rows: list[dict[str, object]] = []
    for name, units in [
        ("propensity_score_matching", "att"),
        ("propensity_score_matching", "ate"),
        ("propensity_score_weighting", "ate"),
    ]:
        found = model.estimate_effect(estimand, method_name=f"backdoor.{name}", target_units=units)
        rows.append(
            {
                "tool": "DoWhy",
                "method": name.replace("_", " "),
                "estimand": units,
                "estimate": float(found.value),
                "std_error": None,
            }
        )
    return rows


def by_causalml(frame: pd.DataFrame, confounders: list[str]) -> list[dict[str, object]]:
    """Match without replacement within a caliper, and fit two learners of the effect."""
    from causalml.inference.meta import BaseDRRegressor, LRSRegressor
    from causalml.match import NearestNeighborMatch
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x = StandardScaler().fit_transform(frame[confounders])
    treated, outcome = frame["treated"].to_numpy(), frame["outcome"].to_numpy()
    score = LogisticRegression(C=1e6, max_iter=2000).fit(x, treated).predict_proba(x)[:, 1]
    table = frame.assign(score=score)
    pairs = NearestNeighborMatch(replace=False, ratio=1, caliper=0.2, shuffle=False, random_state=0).match(
        data=table, treatment_col="treated", score_cols=["score"]
    )
    of = pairs.groupby("treated")["outcome"].mean()
    rows: list[dict[str, object]] = [
        {
            "tool": "CausalML",
            "method": "nearest-neighbour match, caliper 0.2",
            "estimand": "att",
            "estimate": float(of[1] - of[0]),
            "std_error": None,
            "n_treated_used": int((pairs["treated"] == 1).sum()),
        }
    ]
    found, low, high = LRSRegressor().estimate_ate(x, treated, outcome)
    rows.append(
        {
            "tool": "CausalML",
            "method": "S-learner, linear regression",
            "estimand": "ate",
            "estimate": float(np.ravel(found)[0]),
            "std_error": float((np.ravel(high)[0] - np.ravel(low)[0]) / (2 * 1.959964)),
        }
    )
    np.random.seed(0)  # noqa: NPY002 - CausalML draws from numpy's global stream
    learner = BaseDRRegressor(learner=LinearRegression(), treatment_effect_learner=LinearRegression())
    found, low, high = learner.estimate_ate(x, treated, outcome, p=score, seed=0)
    rows.append(
        {
            "tool": "CausalML",
            "method": "doubly robust learner",
            "estimand": "ate",
            "estimate": float(np.ravel(found)[0]),
            "std_error": float((np.ravel(high)[0] - np.ravel(low)[0]) / (2 * 1.959964)),
        }
    )
    return rows


def main() -> None:
    """Estimate, and print or write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    frame, confounders = read(chosen.csv)
    found = {
        "command": "python notebooks/crosscheck.py notebooks/runs/example1_draw.csv "
        "--out notebooks/crosscheck_example1.json",
        "csv_sha256": hashlib.sha256(chosen.csv.read_bytes()).hexdigest(),
        "rows": len(frame),
        "confounders": confounders,
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("dowhy", "causalml", "scikit-learn", "numpy", "pandas")},
        },
        "estimates": [*by_dowhy(frame, confounders), *by_causalml(frame, confounders)],
    }
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    if chosen.out is None:
        sys.stdout.write(text)
    else:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
