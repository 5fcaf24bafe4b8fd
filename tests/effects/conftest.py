"""Fixtures for the effects: the LaLonde data with R's figures, and the checker of matched sets."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

REFERENCE = Path(__file__).parents[1] / "reference"
COVARIATES = ("age", "educ", "race", "married", "nodegree", "re74", "re75")


@pytest.fixture(scope="session")
def checker():
    """Load the module of invariant checks; tests are no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("checker", Path(__file__).with_name("checker.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def job():
    """Return the LaLonde data as arrays, with our propensity score."""
    from whyprompt.stats.design import design_matrix
    from whyprompt.stats.propensity import fit_logistic

    frame = pd.read_csv(REFERENCE / "lalonde.csv")
    columns = {name: frame[name].to_numpy(object if name == "race" else float) for name in COVARIATES}
    treated = frame["treat"].to_numpy() == 1
    design = design_matrix(columns)
    fit = fit_logistic(design.matrix, treated, names=design.names)
    return SimpleNamespace(
        frame=frame,
        columns=columns,
        covariates=list(COVARIATES),
        treated=treated,
        y=frame["re78"].to_numpy(float),
        design=design,
        full=design_matrix(columns, full=True),
        fit=fit,
        score=fit.fitted,
        logit=fit.linear,
    )


@pytest.fixture(scope="session")
def matchit():
    return json.loads((REFERENCE / "matchit_lalonde.json").read_text())


@pytest.fixture(scope="session")
def matching_r():
    return json.loads((REFERENCE / "abadie_imbens_lalonde.json").read_text())


@pytest.fixture(scope="session")
def cobalt():
    return json.loads((REFERENCE / "balance_lalonde.json").read_text())


@pytest.fixture
def simulated():
    """Return a maker of tables with two covariates, an arm that depends on them, and a known effect."""

    def make(seed, n=300, *, effect=1.0, varies=0.0, strength=0.4, intercept=-1.2):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 2))
        share = 1.0 / (1.0 + np.exp(-(intercept + strength * (x[:, 0] + 0.75 * x[:, 1]))))
        treated = rng.random(n) < share
        gain = effect + varies * x[:, 0]
        y = x[:, 0] + 0.5 * x[:, 1] + gain * treated + rng.normal(size=n)
        return SimpleNamespace(x=x, treated=treated, y=y, share=share, gain=gain)

    return make
