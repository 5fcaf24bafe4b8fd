"""Run DoWhy and CausalML on one job. Another interpreter runs this file: it imports nothing of whyprompt.

    python run_peers.py FOLDER

The folder holds ``job.json`` and ``arrays.npz`` (``X``, ``treated``, ``outcome``); ``found.json`` and
``scores.npz`` are written there. What a tool cannot do is written down as its message, not raised: that a
tool fails on a table is a finding about the tool.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Job = dict[str, Any]
Row = dict[str, Any]


class Ledger:
    """What was found, in order, with what failed and how long each took."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.scores: dict[str, Any] = {}

    @contextlib.contextmanager
    def row(self, tool: str, key: str, estimand: str) -> Iterator[Row]:
        """Open a row; an exception becomes its ``failed``."""
        row: Row = {"tool": tool, "key": key, "estimand": estimand}
        began = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield row
            said = [
                str(w.message).strip().splitlines()[0] for w in caught if "Convergence" in w.category.__name__
            ]
            if said:
                row["warnings"] = list(dict.fromkeys(said))
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is what it answers
            row["failed"] = f"{type(error).__name__}: {str(error).strip() or 'no message'}"[:300]
        row["seconds"] = round(time.perf_counter() - began, 3)
        self.rows.append(row)


def by_dowhy(job: Job, frame: pd.DataFrame, names: list[str], ledger: Ledger) -> None:
    """Identify, match, weight and refute."""
    import networkx as nx
    from dowhy import CausalModel

    estimand, draws, seed = job["estimand"], job["draws"], job["random_state"]

    def fresh() -> tuple[Any, Any]:
        # DoWhy writes a column `propensity_score` into the frame it is given, and a later model on that
        # frame takes it for its own: every model gets a frame of its own.
        model = CausalModel(data=frame.copy(), treatment="treated", outcome="outcome", common_causes=names)
        return model, model.identify_effect(proceed_when_unidentifiable=True)

    if job["graph"] is not None:
        graph = nx.DiGraph([tuple(edge) for edge in job["graph"]["edges"]])
        columns = dict.fromkeys(job["graph"]["observed"], frame["outcome"])
        treatment, outcome = job["graph"]["treatment"], job["graph"]["outcome"]
        with ledger.row("DoWhy", "identification", estimand) as row:
            model = CausalModel(
                data=pd.DataFrame(columns | {treatment: frame["treated"], outcome: frame["outcome"]}),
                treatment=treatment,
                outcome=outcome,
                graph=graph,
            )
            named = model.identify_effect(proceed_when_unidentifiable=True)
            row["backdoor"] = sorted(named.get_backdoor_variables() or [])
            row["identified"] = bool(named.estimands.get("backdoor"))
    for key, method in (
        ("dowhy_matching", "backdoor.propensity_score_matching"),
        ("dowhy_weighting", "backdoor.propensity_score_weighting"),
    ):
        with ledger.row("DoWhy", key, estimand) as row:
            model, identified = fresh()
            made = model.estimate_effect(identified, method_name=method, target_units=estimand)
            row["estimate"] = float(made.value)
            ledger.scores[key] = np.asarray(made.propensity_scores, dtype=float)
    if draws:
        model, identified = fresh()
        made = model.estimate_effect(
            identified, method_name="backdoor.propensity_score_weighting", target_units=estimand
        )
        for key, method, more in (
            ("placebo", "placebo_treatment_refuter", {"placebo_type": "permute"}),
            ("random_cause", "random_common_cause", {}),
            ("subset", "data_subset_refuter", {"subset_fraction": 0.8}),
        ):
            with ledger.row("DoWhy", f"refuter_{key}", estimand) as row:
                # The score of the real arm would otherwise serve for the placebo as well.
                model._data = frame.copy()  # noqa: SLF001 - there is no public way
                done = model.refute_estimate(
                    identified,
                    made,
                    method_name=method,
                    num_simulations=draws,
                    random_seed=seed,
                    **more,
                )
                row["estimate"] = float(done.new_effect)
                p = (done.refutation_result or {}).get("p_value")
                row["p_value"] = None if p is None else float(np.ravel(p)[0])


def by_causalml(job: Job, frame: pd.DataFrame, names: list[str], ledger: Ledger) -> None:
    """Match within a caliper, fit the learners, and draw the uplift curve."""
    from causalml.inference.meta import BaseDRRegressor, BaseTRegressor, BaseXRegressor, LRSRegressor
    from causalml.match import NearestNeighborMatch
    from causalml.metrics import get_cumgain
    from causalml.propensity import ElasticNetPropensityModel
    from sklearn.linear_model import LinearRegression

    X = frame[names].to_numpy()
    spread = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    treated, outcome = frame["treated"].to_numpy(), frame["outcome"].to_numpy()
    seed = job["random_state"]
    with ledger.row("CausalML", "causalml_score", job["estimand"]):
        # Its default, an isotonic calibration, leaves a handful of distinct scores.
        score = ElasticNetPropensityModel(calibrate=False).fit_predict(X, treated)
        ledger.scores["causalml"] = np.asarray(score, dtype=float)
    if "causalml" not in ledger.scores:
        return
    score = ledger.scores["causalml"]
    if job["estimand"] != "ate":
        with ledger.row("CausalML", "causalml_matching", job["estimand"]) as row:
            match = NearestNeighborMatch(
                replace=job["replace"],
                ratio=1,
                caliper=job["caliper"],
                shuffle=False,
                treatment_to_control=job["estimand"] == "att",
                random_state=seed,
                n_jobs=1,
            )
            kept = match.match(data=frame.assign(score=score), treatment_col="treated", score_cols=["score"])
            means = kept.groupby("treated")["outcome"].mean()
            row["estimate"] = float(means[1] - means[0])
            row["n_treated_used"] = int(kept.index[kept["treated"] == 1].nunique())
            row["n_control_used"] = int(kept.index[kept["treated"] == 0].nunique())
    learners: list[tuple[str, Callable[[], Any], Job]] = [
        ("s_learner", LRSRegressor, {}),
        ("t_learner", lambda: BaseTRegressor(LinearRegression()), {}),
        ("x_learner", lambda: BaseXRegressor(LinearRegression()), {"p": score}),
        (
            "dr_learner",
            lambda: BaseDRRegressor(learner=LinearRegression(), treatment_effect_learner=LinearRegression()),
            {"p": score, "seed": seed},
        ),
    ]
    for key, make, more in learners:
        with ledger.row("CausalML", key, "ate") as row:
            np.random.seed(seed)  # noqa: NPY002 - CausalML draws from numpy's global stream
            mean, low, high = (
                float(np.ravel(v)[0]) for v in make().estimate_ate(X, treated, outcome, **more)
            )
            row |= {"estimate": mean, "ci_low": low, "ci_high": high}
    if job["shares"]:
        with ledger.row("CausalML", "uplift", "ate") as row:
            effect = np.ravel(BaseTRegressor(LinearRegression()).fit_predict(X, treated, outcome))
            table = pd.DataFrame({"y": outcome, "w": treated, "T-learner": effect})
            gain = get_cumgain(table)["T-learner"].to_numpy()
            n = len(table)
            row["gain"] = [float(gain[round(s * n)]) / n for s in job["shares"]]


def main(folder: Path) -> None:
    """Run the job and write what was found."""
    warnings.simplefilter("ignore")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz") as held:
        X, treated, outcome = held["X"], held["treated"], held["outcome"]
    names = [f"x{j}" for j in range(X.shape[1])]
    frame = pd.DataFrame(X, columns=names).assign(treated=treated.astype(int), outcome=outcome)
    ledger = Ledger()
    versions = {"python": platform.python_version()}
    for package in ("dowhy", "causalml", "scikit-learn", "numpy", "pandas"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    for tool, package, run in (("DoWhy", "dowhy", by_dowhy), ("CausalML", "causalml", by_causalml)):
        if package not in versions:
            ledger.rows.append(
                {"tool": tool, "key": package, "estimand": job["estimand"], "failed": "not installed"}
            )
            continue
        with ledger.row(tool, package, job["estimand"]):
            run(job, frame, names, ledger)
    np.savez(folder / "scores.npz", **ledger.scores)
    text = json.dumps({"versions": versions, "rows": ledger.rows}, allow_nan=True)
    (folder / "found.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
