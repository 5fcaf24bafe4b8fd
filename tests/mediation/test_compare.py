"""Statistical beside interventional mediation: against `mediate`, and in worlds where the truth is known."""

import time

import numpy as np
import pandas as pd
import planted
import pytest

from whyprompt import capture_attention, compare_mediation, head_sweep, mediate
from whyprompt.errors import MediationError
from whyprompt.mediation import AttentionCapture, Sweep
from whyprompt.mediation.results import column


def world(n=60, m=4, *, confounding=0.0, effect=1.0, seed=0, both=True, noise=0.3, clusters=None):
    """Masses with a known effect on the outcome, and a cause of both that only intervening sees through.

    Head 0 carries `effect` a unit of mass; an item's difficulty moves head 0's mass and the outcome.
    """
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    mass = rng.uniform(0.2, 0.4, size=(n, 2, m))
    mass[:, 1] += 0.3
    mass[:, 1, 0] += 0.05 * hard
    if not both:
        mass[:, 0] = 0
    y11 = -2 + effect * mass[:, 1, 0] + confounding * hard + noise * rng.normal(size=n)
    y00 = y11 - effect * (mass[:, 1, 0] - mass[:, 0, 0]) - 0.5
    nie = np.zeros((n, m))
    nie[:, 0] = effect * (mass[:, 1, 0] - mass[:, 0, 0])
    ids = tuple(f"i{i}" for i in range(n))
    groups = ids if clusters is None else tuple(f"c{i % clusters}" for i in range(n))
    heads = tuple((j, 0) for j in range(m))
    sweep = Sweep(
        mediator="head_output",
        outcome="log_prob",
        model="toy",
        item_ids=ids,
        clusters=groups,
        n_layers=m,
        n_heads=1,
        sites=heads,
        y00=y00,
        y11=y11,
        y10=y11[:, None] - nie,
        y01=y00[:, None] + nie,
    )
    full = np.stack([mass, 1 - mass], -1)
    if not both:
        full[:, 0, :, 0] = np.nan
    capture = AttentionCapture(
        item_ids=ids,
        clusters=groups,
        heads=heads,
        segments=("reasoning", "(other)"),
        mass=full,
        entropy=np.ones((n, 2, m)),
    )
    return sweep, capture, hard


def as_frame(sweep, capture, head):
    n = len(sweep.item_ids)
    return pd.DataFrame(
        {
            "t": np.repeat([0.0, 1.0], n),
            "m": np.nan_to_num(capture.mass[:, :, head, 0]).T.ravel(),
            "y": np.concatenate([sweep.y00, sweep.y11]),
            "item": np.tile(sweep.clusters, 2),
        }
    )


@pytest.mark.parametrize("quantity", ["nie", "pure_nie"])
@pytest.mark.parametrize("clusters", [None, 15])
def test_every_head_is_what_mediate_gives_for_it(quantity, clusters):
    sweep, capture, _ = world(confounding=0.4, clusters=clusters)
    got = compare_mediation(sweep, capture, "reasoning", quantity=quantity, draws=4000)
    arm = "acme_treated" if quantity == "nie" else "acme_control"
    for h in range(4):
        want = mediate(
            as_frame(sweep, capture, h),
            treatment="t",
            mediator="m",
            outcome="y",
            interaction=True,
            cluster="item",
            method="bootstrap",
            draws=4000,
        ).part(arm)
        np.testing.assert_allclose(got.acme[h].estimate, want.estimate, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            got.acme[h].ends,
            [want.ci_low, want.ci_high],
            atol=0.3 * want.std_error,
        )
    np.testing.assert_allclose(column(got.nie, "estimate"), getattr(sweep, quantity).mean(0), atol=1e-12)


def test_a_segment_that_one_prompt_lacks_has_no_mass_there():
    sweep, capture, _ = world(both=False, confounding=0.4)
    got = compare_mediation(sweep, capture, "reasoning")
    want = mediate(as_frame(sweep, capture, 0), treatment="t", mediator="m", outcome="y", draws=2)
    slopes = want.mediator_fit.to_dict()["t"] * want.outcome_fit.to_dict()["m"]
    np.testing.assert_allclose(got.acme[0].estimate, slopes, rtol=1e-9)
    with pytest.raises(MediationError, match="prompt 0 the mass on 'reasoning' does not vary"):
        compare_mediation(sweep, capture, "reasoning", quantity="pure_nie")


def test_without_a_confounder_the_two_agree_and_with_one_they_do_not():
    sweep, capture, _ = world(n=200, effect=2.0)
    clean = compare_mediation(sweep, capture, "reasoning")
    assert not clean.disagree.any()
    assert clean.acme[0].ci_low < clean.nie[0].estimate < clean.acme[0].ci_high
    assert "which is no evidence that they agree: the largest difference, in head" in clean.sentence
    assert "to be told from zero" in clean.sentence
    sweep, capture, hard = world(n=200, effect=2.0, confounding=1.0, seed=1)
    biased = compare_mediation(sweep, capture, "reasoning")
    assert biased.disagree.tolist() == [True, False, False, False]
    assert biased.acme[0].estimate > 2 * biased.nie[0].estimate
    assert "They differ in 1 head with" in biased.sentence
    assert "head 0.0" in biased.sentence
    assert "sequential ignorability" in biased.sentence
    frame = biased.to_frame()
    assert frame.iloc[0][["layer", "head", "disagree"]].tolist() == [0, 0, True]
    assert set(frame) >= {"acme", "acme_low", "acme_high", "nie", "nie_low", "nie_high", "p_adjusted"}
    # Measuring the confounder mends the statistics.
    mended = compare_mediation(sweep, capture, "reasoning", confounders=hard)
    assert not mended.disagree.any()
    assert mended.acme[0].ci_low < mended.nie[0].estimate < mended.acme[0].ci_high


def test_covariates_enter_the_slope_as_a_regression_has_them():
    sweep, capture, hard = world(confounding=0.7)
    other = np.random.default_rng(9).normal(size=60)
    got = compare_mediation(sweep, capture, "reasoning", confounders=np.column_stack([hard, other]))
    for h in range(4):
        m = capture.mass[:, :, h, 0]
        x = np.column_stack([np.ones(60), m[:, 1], hard, other])
        slope = np.linalg.lstsq(x, sweep.y11, rcond=None)[0][1]
        np.testing.assert_allclose(got.acme[h].estimate, slope * (m[:, 1] - m[:, 0]).mean(), rtol=1e-9)


def test_the_familywise_error_of_disagreement_is_held_and_intervals_cover():
    false, covered, reps = 0, 0, 120
    for rep in range(reps):
        # The truth: masses without effect, and a null difference in every head.
        sweep, capture, _ = world(n=40, m=12, effect=0.0, confounding=0.0, seed=rep, noise=1.0)
        got = compare_mediation(sweep, capture, "reasoning", draws=400, random_state=rep)
        false += bool(got.disagree.any())
        covered += sum(e.ci_low < 0 < e.ci_high for e in got.acme)
    assert false <= 15  # 99.9% bound of a binomial (120, 0.05) is 15
    assert 0.91 <= covered / (12 * reps) <= 0.98


def test_a_head_whose_mass_never_varies_has_no_statistics_and_says_so():
    sweep, capture, _ = world()
    capture.mass[:, :, 2, 0] = 0.5
    got = compare_mediation(sweep, capture, "reasoning")
    assert got.acme[2].estimate is None
    assert not got.disagree[2]
    assert "In 1 head the mass does not vary" in got.sentence
    assert np.isfinite(np.delete(column(got.acme, "estimate"), 2)).all()


def test_few_items_are_said():
    few, enough = (compare_mediation(*world(n=n)[:2], "reasoning", draws=50).sentence for n in (8, 10))
    assert "With 8 sampling units the statistical side's intervals are rough." in few
    assert "are rough" not in enough


def test_intervals_of_few_items_cover_as_those_of_many():
    """Masses without effect: of the heads' 95% intervals more than 91% hold zero, with 8 items as with 12."""
    for n in (8, 12):
        held = 0
        for rep in range(40):
            sweep, capture, _ = world(n=n, m=20, effect=0.0, seed=rep, noise=1.0)
            got = compare_mediation(sweep, capture, "reasoning", draws=400, random_state=rep)
            held += sum(e.ci_low < 0 < e.ci_high for e in got.acme)
        assert held / 800 >= 0.91


def test_masses_that_the_other_prompt_never_has_are_said():
    """A segment that one prompt lacks has mass zero there by construction: the slope is drawn out to it."""
    sweep, capture, _ = world(both=False)
    got = compare_mediation(sweep, capture, "reasoning", draws=50)
    assert got.overlap.tolist() == [0, 0, 0, 0]
    assert got.to_frame()["overlap"].tolist() == [0, 0, 0, 0]
    assert (
        "In 4 of 4 heads most items' mass on 'reasoning' under prompt 0 lies outside the range seen under "
        "prompt 1, as where only one prompt has that segment. There the statistical effect extrapolates"
    ) in got.sentence
    # Of heads whose masses mingle nothing is said; of one among them it is.
    capture.mass[:, 0, :, 0] = np.random.default_rng(5).permuted(capture.mass[:, 1, :, 0], axis=0)
    mingled = compare_mediation(sweep, capture, "reasoning", draws=50)
    assert (mingled.overlap > 0.9).all()
    assert "extrapolates" not in mingled.sentence
    capture.mass[:, 0, 2, 0] -= 0.3
    assert "In 1 of 4 heads" in compare_mediation(sweep, capture, "reasoning", draws=50).sentence
    # The control arm's slope is asked about the treated arm's masses.
    capture.mass[:40, 0, 1, 0] -= 0.5
    swapped = compare_mediation(sweep, capture, "reasoning", quantity="pure_nie", draws=50)
    assert compare_mediation(sweep, capture, "reasoning", draws=50).overlap[1] < 0.4
    assert swapped.overlap[1] > 0.8
    assert "under prompt 1 lies outside the range seen under prompt 0" in swapped.sentence


def test_270_heads_take_a_moment():
    sweep, capture, _ = world(n=120, m=270)
    compare_mediation(sweep, capture, "reasoning", draws=10)
    start = time.process_time()
    compare_mediation(sweep, capture, "reasoning", draws=1000)
    assert time.process_time() - start < 4


def test_on_a_planted_model():
    """The copying head attends to the reasoning wholly and always: looking cannot tell what touching can."""
    from test_planted import pairs

    model, items = planted.build({2: 1.0}), pairs(16)
    sweep, capture = head_sweep(model, items), capture_attention(model, items)
    got = compare_mediation(sweep, capture, "reasoning", draws=200)
    copying = got.heads.index((1, 2))
    assert got.nie[copying].estimate > 1
    assert got.acme[copying].estimate is None
    assert "statistics have no answer" in got.sentence


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"segment": "shots"}, "no segment 'shots'"),
        ({"quantity": "te"}, "unknown quantity 'te'"),
        ({"heads": [(9, 0)]}, r"sweep does not hold head 9\.0"),
        ({"heads": []}, "heads is empty"),
        ({"draws": 1}, "draws is at least 2"),
        ({"confounders": np.ones(60)}, "column 0 of confounders is constant"),
        ({"confounders": np.ones((3, 1))}, "one row for each of the 60 items"),
    ],
)
def test_bad_input_is_named(changes, match):
    sweep, capture, _ = world()
    with pytest.raises(MediationError, match=match):
        compare_mediation(sweep, capture, **{"segment": "reasoning", **changes})


def test_too_few_items_and_items_of_another_run_are_named():
    sweep, capture, _ = world(n=2)
    with pytest.raises(MediationError, match="2 sampling units are too few"):
        compare_mediation(sweep, capture, "reasoning")
    _, other, _ = world(n=1)
    with pytest.raises(MediationError, match="the capture has no item 'i1'"):
        compare_mediation(sweep, other, "reasoning")
