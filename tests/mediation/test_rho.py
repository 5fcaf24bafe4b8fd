"""Sensitivity to correlated errors: R's figures, known worlds, closed forms."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from whyprompt import mediate, mediation_sensitivity
from whyprompt.errors import DataError, EstimationError

REFERENCE = Path(__file__).parents[1] / "reference"
FRAMING = {
    "treatment": "treat",
    "mediator": "emo",
    "outcome": "cong_mesg",
    "confounders": ["age", "hs", "sc", "ba", "female", "income"],
    "outcome_model": "probit",
}
KNOWN = {"treatment": "t", "mediator": "m", "outcome": "y", "confounders": ["c"]}


@pytest.fixture(scope="module")
def framing():
    frame = pd.read_csv(REFERENCE / "framing.csv")
    frame["female"] = (frame["gender"] == "female").astype(float)
    for name, level in (("hs", "high school"), ("sc", "some college"), ("ba", "bachelor's degree or higher")):
        frame[name] = (frame["educ"] == level).astype(float)
    return frame


@pytest.fixture(scope="module")
def medsens():
    return json.loads((REFERENCE / "mediation_framing.json").read_text())["probit_medsens"]


def test_deterministic_parts_equal_those_of_r(framing, medsens):
    got = mediation_sensitivity(framing, **FRAMING, draws=2)
    np.testing.assert_allclose(got.to_frame()["at"], medsens["rho"], atol=1e-12)
    np.testing.assert_allclose(got["r2_mediator"], medsens["r.square.m"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(got["r2_outcome"], np.ravel(medsens["r.square.y"])[0], rtol=0, atol=1e-6)
    # R gives its products at the nearest rho of its grid.
    at = got.to_frame().set_index("at").loc[medsens["err.cr.d"][0]]
    np.testing.assert_allclose(at["r2_star_product"], medsens["R2star.d.thresh"][0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(at["r2_tilde_product"], medsens["R2tilde.d.thresh"][0], rtol=0, atol=1e-6)


def test_the_curve_of_r_has_a_slip_and_ours_is_its_curve_without_it(framing, medsens):
    """R's error correlation s / (1 + |s|) put in place of s / sqrt(1 + s^2) gives R's curve."""
    fit = mediate(framing, **FRAMING, draws=2)
    a, b, sigma = fit.mediator_fit.coef, fit.outcome_fit.coef, fit.mediator_fit.sigma
    x = np.column_stack([np.ones(len(framing)), framing[["treat", *FRAMING["confounders"]]]]).astype(float)
    arms = [x.copy(), x.copy()]
    arms[0][:, 1], arms[1][:, 1] = 0, 1
    rho = np.array(medsens["rho"])

    def curves(a, b, sigma, rho12):
        """Both arms' effects, by the steps of R's code, for one set of coefficients."""
        total = b[:-1] * np.sqrt(1 - rho12**2) + a * rho12 / sigma
        gamma = (-rho + rho12 * np.sqrt((1 - rho**2) / (1 - rho12**2))) / sigma
        shift = gamma * a[1] / np.sqrt(gamma**2 * sigma**2 + 2 * gamma * rho * sigma + 1)
        eta = [(z @ total)[:, None] for z in arms]
        return np.stack(
            [
                (norm.cdf(eta[0] + shift) - norm.cdf(eta[0])).mean(0),
                (norm.cdf(eta[1]) - norm.cdf(eta[1] - shift)).mean(0),
            ]
        )

    s = b[-1] * sigma
    got = mediation_sensitivity(framing, **FRAMING, draws=1000)
    right = curves(a, b, sigma, s / np.sqrt(1 + s**2))
    np.testing.assert_allclose(
        [got.to_frame()["acme_control"], got.to_frame()["acme_treated"]], right, atol=1e-12
    )
    # R reports means of draws.
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(1000):
        aa = rng.multivariate_normal(a, fit.mediator_fit.covariance)
        bb = rng.multivariate_normal(b, fit.outcome_fit.covariance)
        sd = sigma * np.sqrt(257 / rng.chisquare(257))
        draws.append([curves(aa, bb, sd, v / d) for v in [bb[-1] * sd] for d in (1 + abs(v), np.hypot(1, v))])
    draws = np.array(draws)  # draws, slipped or right, arm, rho
    want = np.array([medsens["d0"], medsens["d1"]])
    off = np.abs(draws.mean(0) - want) / (draws.std(0) * np.sqrt(2 / 1000))
    assert off[0].max() < 4
    assert off[1].max() > 20
    # The interval of the curve without the slip, from the same kind of draws.
    low, high = np.quantile(draws[:, 1].mean(1), [0.025, 0.975], axis=0)
    frame = got.to_frame()
    np.testing.assert_allclose((frame["ci_high"] - frame["ci_low"]) / (high - low), 1, atol=0.1)
    # Ours meets the effect that `mediate` reports at rho = 0, and R's own mediate; R's curve does not.
    at_zero = got.to_frame()["at"] == 0
    np.testing.assert_allclose(got.to_frame()["acme_control"][at_zero].item(), 0.0821, atol=0.003)
    assert medsens["d0"][9] < 0.05


def world(kind, rho, n=60_000, seed=0):
    rng = np.random.default_rng(seed)
    t, c, e2, v = rng.integers(0, 2, n).astype(float), rng.normal(size=n), *rng.normal(size=(2, n))
    e3 = rho * e2 + np.sqrt(1 - rho**2) * v
    if kind == "probit outcome":

        def mediator(t):
            return 0.8 * t + 0.3 * c + 1.5 * e2

        def outcome(t, m):
            return (-0.3 + 0.4 * t + 0.5 * m + 0.2 * c + e3 > 0).astype(float)
    else:

        def mediator(t):
            return (-0.2 + 0.8 * t + 0.3 * c + e2 > 0).astype(float)

        def outcome(t, m):
            return 0.4 * t + 0.9 * m + 0.2 * c + 1.5 * e3

    m = mediator(t)
    frame = pd.DataFrame({"t": t, "m": m, "y": outcome(t, m), "c": c})
    truth = [(outcome(s, mediator(1)) - outcome(s, mediator(0))).mean() for s in (0, 1)]
    return frame, truth


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.4])
@pytest.mark.parametrize("kind", ["probit outcome", "probit mediator"])
def test_a_known_correlation_is_undone(kind, rho):
    frame, truth = world(kind, rho)
    model = {"outcome_model": "probit"} if kind == "probit outcome" else {"mediator_model": "probit"}
    got = mediation_sensitivity(frame, **KNOWN, **model, rho=[0, rho], draws=2)
    assert abs(got.to_frame()["acme_control"][1] - truth[0]) < 0.02
    assert abs(got.to_frame()["acme_treated"][1] - truth[1]) < 0.02
    naive = mediate(frame, **KNOWN, **model, draws=2)
    np.testing.assert_allclose(got.to_frame()["estimate"][0], mean_of_plug_in(naive, frame, kind), atol=2e-3)
    if rho:
        assert (
            abs(got.to_frame()["estimate"][0] - np.mean(truth)) > 0.04
        )  # what the correlation would have cost


def r_probit_mediator(frame, rho, power):
    """R's steps for a probit mediator, with the residual's variance to a power as the weight."""
    a = mediate(frame, **KNOWN, mediator_model="probit", draws=2).mediator_fit.coef
    x = np.column_stack([np.ones(len(frame)), frame[["t", "c"]]])
    m, y = frame["m"].to_numpy(), frame["y"].to_numpy()
    eta, side = x @ a, 2 * m - 1
    mills = side * norm.pdf(eta) / norm.cdf(side * eta)
    w = (1 - rho**2 * mills * (mills + eta)) ** power
    full = np.column_stack([x, m])

    root, df = np.sqrt(w)[:, None], len(y) - full.shape[1]
    both = np.column_stack([y, rho * mills])
    # Each step regresses y - sigma * rho * mills, so that two regressions give all steps.
    b = np.linalg.lstsq(full * root, both * root, rcond=None)[0]
    left = (both - full @ b) * root
    moments, sigma = left.T @ left / df, 1.0
    for _ in range(2000):
        sigma = np.sqrt(np.array([1, -sigma]) @ moments @ np.array([1, -sigma]))
    b = b @ np.array([1, -sigma])
    arms = [x.copy(), x.copy()]
    arms[0][:, 1], arms[1][:, 1] = 0, 1
    return b[-1] * (norm.cdf(arms[1] @ a) - norm.cdf(arms[0] @ a)).mean()


def test_the_curve_of_r_for_a_probit_mediator_has_its_weights_upside_down():
    frame, truth = world("probit mediator", 0.4)
    ours = dict(
        zip(
            (0, 0.4, 0.7),
            mediation_sensitivity(
                frame, **KNOWN, mediator_model="probit", rho=[0, 0.4, 0.7], draws=2
            ).to_frame()["estimate"],
            strict=True,
        )
    )
    for power in (1, -1):
        assert abs(r_probit_mediator(frame, 0, power) - ours[0]) < 1e-9
    for rho in (0.4, 0.7):
        assert abs(r_probit_mediator(frame, rho, -1) - ours[rho]) < 0.002
    assert abs(ours[0.4] - truth[0]) < 0.01
    # With R's weights what a correlation takes is less, and no row more mends it.
    assert r_probit_mediator(frame, 0.4, 1) - ours[0.4] > 0.02
    assert r_probit_mediator(frame, 0.7, 1) > 0.1
    assert ours[0.7] < 0


def mean_of_plug_in(result, frame, kind):
    a, b = result.mediator_fit.to_dict(), result.outcome_fit.to_dict()
    base = a["(Intercept)"] + a["c"] * frame["c"]
    if kind == "probit mediator":
        return b["m"] * (norm.cdf(base + a["t"]) - norm.cdf(base)).mean()
    root = np.sqrt(1 + (b["m"] * result.mediator_fit.sigma) ** 2)
    eta = b["(Intercept)"] + b["c"] * frame["c"]
    return np.mean(
        [
            (
                norm.cdf((eta + b["t"] * t + b["m"] * (base + a["t"])) / root)
                - norm.cdf((eta + b["t"] * t + b["m"] * base) / root)
            ).mean()
            for t in (0, 1)
        ]
    )


@pytest.mark.parametrize("kind", ["probit outcome", "probit mediator", "linear"])
def test_the_effect_vanishes_at_rho_at_zero_and_the_interval_holds_the_curve(kind):
    frame, _ = world("probit outcome" if kind != "probit mediator" else kind, 0.3, n=800)
    model = {"probit outcome": {"outcome_model": "probit"}, "probit mediator": {"mediator_model": "probit"}}
    options = KNOWN | model.get(kind, {})
    got = mediation_sensitivity(frame, **options, draws=60)
    at = mediation_sensitivity(frame, **options, rho=[got["rho_at_zero"]], draws=2)
    np.testing.assert_allclose(at.to_frame()["estimate"], 0, atol=1e-9)
    assert all(part.ci_low < part.estimate < part.ci_high for part in got.parts)
    assert f"{got['rho_at_zero']:.3g}" in got.sentence
    frame = got.to_frame()
    np.testing.assert_allclose(frame["r2_star_product"], got.to_frame()["at"] ** 2)
    tilde = np.interp(got["rho_at_zero"] ** 2, frame["r2_star_product"][9:], frame["r2_tilde_product"][9:])
    np.testing.assert_allclose(tilde, got["r2_tilde_product"], rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rho": [1.0]}, "strictly between"),
        ({"outcome_model": "logit"}, "no sensitivity analysis for a linear mediator and a logit outcome"),
        ({"outcome_model": "probit"}, "'y' must hold 0 and 1"),
        ({"treatment": "text"}, "'text' is categorical"),
        ({"rho": []}, "at least one rho"),
        ({"rho": [np.nan]}, "strictly between"),
        ({"draws": 1}, "draws is at least 2"),
        ({"level": 95}, "the level is 95; it lies between 0 and 1"),
        ({"control": 1}, "both 1.0: nothing is compared"),
        ({"treated": "x"}, "treated 'x' is not a finite number"),
        ({"confounders": ["m"]}, "column 'm' is mediator and confounder"),
        ({"mediator": "t"}, "column 't' is treatment and mediator"),
        ({"outcome": "one"}, "column 'one' is constant"),
        ({"interaction": True}, "no sensitivity analysis for an interaction"),
    ],
)
def test_bad_input_is_named(changes, match):
    frame, _ = world("probit mediator", 0, n=100)
    frame["text"] = np.where(frame["t"] > 0, "a", "b")
    frame["one"] = 1.0
    with pytest.raises(DataError, match=match):
        mediation_sensitivity(frame, **KNOWN | {"draws": 2} | changes)


@pytest.mark.parametrize("kind", ["linear", "probit mediator", "probit outcome"])
def test_clusters_widen_the_interval_and_leave_the_curve(kind):
    """Every row four times is four rows of a cluster: the interval is that of the rows once."""
    frame, _ = world("probit outcome" if kind == "probit outcome" else "probit mediator", 0.2, n=300)
    names = {"probit mediator": "mediator_model", "probit outcome": "outcome_model"}
    model = {names[kind]: "probit"} if kind in names else {}
    options = KNOWN | model | {"rho": [0.0, 0.3], "draws": 300}
    once = mediation_sensitivity(frame, **options)
    again = pd.concat([frame.assign(g=range(300))] * 4, ignore_index=True)
    wrong = mediation_sensitivity(again, **options)
    right = mediation_sensitivity(again, **options, cluster="g")
    np.testing.assert_allclose(right.to_frame()["estimate"], once.to_frame()["estimate"], rtol=0.02)
    np.testing.assert_allclose(right.to_frame()["estimate"], wrong.to_frame()["estimate"], rtol=1e-12)
    frames = [r.to_frame() for r in (once, wrong, right)]
    widths = [f["ci_high"] - f["ci_low"] for f in frames]
    np.testing.assert_allclose(widths[2] / widths[0], 1, atol=0.2)
    assert (widths[1] < 0.65 * widths[0]).all()
    with pytest.raises(EstimationError, match="'few' holds 3 clusters"):
        mediation_sensitivity(again.assign(few=again["g"] % 3), **options, cluster="few")
