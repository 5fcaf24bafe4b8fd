"""What other libraries make of a case of `yardsticks.py`; run in their own environment, without whyprompt.

Each with the settings that its documentation starts with, and five folds; an estimate of the ATT or the ATE
with its 95% interval, where it has one.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from yardsticks_data import Case

    Found = tuple[float, float | None, float | None]

SEED = 0


def _boosted(kind: str) -> Any:  # noqa: ANN401 - a model that ships no type
    return getattr(import_module("lightgbm"), f"LGBM{kind}")(n_jobs=1, verbose=-1, random_state=SEED)


def _plain(kind: str) -> Any:  # noqa: ANN401
    pipeline, linear = import_module("sklearn.pipeline"), import_module("sklearn.linear_model")
    model = linear.LinearRegression() if kind == "Regressor" else linear.LogisticRegression(max_iter=2000)
    return pipeline.make_pipeline(import_module("sklearn.preprocessing").StandardScaler(), model)


def _doubleml(case: Case, wanted: str, learner: Callable[[str], Any]) -> Found:
    doubleml = import_module("doubleml")
    np.random.seed(SEED)  # noqa: NPY002 - its folds are dealt by the global generator
    x, y = case.matrix().to_numpy(), case.frame[case.outcome].to_numpy(dtype=float)
    binary = len(np.unique(y)) == 2
    data = doubleml.DoubleMLData.from_arrays(x, y, case.arm.astype(float))
    score = {"att": "ATTE", "ate": "ATE"}[wanted]
    outcome = learner("Classifier" if binary else "Regressor")
    model = doubleml.DoubleMLIRM(data, outcome, learner("Classifier"), n_folds=5, score=score)
    model.fit()
    low, high = model.confint().to_numpy()[0]
    return float(model.coef[0]), float(low), float(high)


def _of_rows(case: Case, effects: np.ndarray, wanted: str) -> float:
    return float(effects[case.arm].mean() if wanted == "att" else effects.mean())


def _econml_dr(case: Case, wanted: str) -> Found:
    learner = import_module("econml.dr").LinearDRLearner(
        model_regression=_boosted("Regressor"),
        model_propensity=_boosted("Classifier"),
        cv=5,
        random_state=SEED,
    )
    x = case.matrix().to_numpy()
    learner.fit(case.frame[case.outcome].to_numpy(dtype=float), case.arm.astype(int), X=x)
    found = learner.effect_inference(x[case.arm] if wanted == "att" else x).population_summary(alpha=0.05)
    low, high = found.conf_int_mean()
    return float(found.mean_point), float(low), float(high)


def _econml_x(case: Case, wanted: str) -> Found:
    learner = import_module("econml.metalearners").XLearner(
        models=_boosted("Regressor"), propensity_model=_boosted("Classifier")
    )
    x = case.matrix().to_numpy()
    learner.fit(case.frame[case.outcome].to_numpy(dtype=float), case.arm.astype(int), X=x)
    return _of_rows(case, np.asarray(learner.effect(x)).ravel(), wanted), None, None


def _causallib(case: Case, wanted: str) -> Found:
    pandas = import_module("pandas")
    model = import_module("causallib.estimation").StratifiedStandardization(_boosted("Regressor"))
    x, arm = case.matrix(), pandas.Series(case.arm.astype(int))
    x.columns = [f"x{j}" for j in range(x.shape[1])]
    model.fit(x, arm, case.frame[case.outcome].astype(float))
    each = model.estimate_individual_outcome(x, arm)
    return _of_rows(case, (each[1] - each[0]).to_numpy(), wanted), None, None


def _bart(case: Case, wanted: str) -> Found:
    stochtree = import_module("stochtree")
    model, x, arm = stochtree.BARTModel(), case.matrix().to_numpy(), case.arm.astype(float)
    model.sample(
        X_train=np.column_stack([x, arm]),
        y_train=case.frame[case.outcome].to_numpy(dtype=float),
        num_gfr=10,
        # Its first draws are far off: with none left out, as its documentation begins, RMSE was .038.
        num_burnin=200,
        num_mcmc=200,
        general_params={"random_seed": SEED, "num_threads": 1},
    )
    # Means of the outcome under either arm: what an interval holds is the effect on the very rows.
    rows = x[case.arm] if wanted == "att" else x
    one, none = (
        np.asarray(model.predict(X=np.column_stack([rows, np.full(len(rows), t)]), terms="y_hat"))
        for t in (1.0, 0.0)
    )
    draws = (one - none).mean(axis=0)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(draws.mean()), float(low), float(high)


def _bcf(case: Case, wanted: str, left_out: int) -> Found:
    model = import_module("stochtree").BCFModel()
    x, arm = case.matrix().to_numpy(), case.arm
    model.sample(
        X_train=x,
        Z_train=arm.astype(float),
        y_train=case.frame[case.outcome].to_numpy(dtype=float),
        num_gfr=10,
        num_burnin=left_out,
        num_mcmc=200,
        general_params={"random_seed": SEED, "num_threads": 1},
    )
    rows = np.asarray(model.tau_hat_train)[arm if wanted == "att" else slice(None)]
    draws = rows.mean(axis=0)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(draws.mean()), float(low), float(high)


PEERS: dict[str, Callable[[Case, str], Found]] = {
    "DoubleML, LightGBM": lambda case, wanted: _doubleml(case, wanted, _boosted),
    "DoubleML, linear": lambda case, wanted: _doubleml(case, wanted, _plain),
    "EconML linear DR learner, LightGBM": _econml_dr,
    "EconML X-learner, LightGBM": _econml_x,
    "causallib standardisation, LightGBM": _causallib,
    "stochtree BART": _bart,
    "stochtree BCF": lambda case, wanted: _bcf(case, wanted, 0),
    "stochtree BCF, 200 draws left out": lambda case, wanted: _bcf(case, wanted, 200),
}


def peer(case: Case, entry: str) -> dict[str, Any]:
    """Ask a peer for the estimand of the case, or the ATE where the case asks for none."""
    wanted = case.estimand or "ate"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate, low, high = PEERS[entry](case, wanted)
    return {"estimand": wanted, "estimate": estimate, "low": low, "high": high}
