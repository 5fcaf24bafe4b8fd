from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from whyprompt import contrast_heads, infer_heads
from whyprompt.errors import MediationError
from whyprompt.mediation import Sweep, mean_interval
from whyprompt.mediation.intervals import share_interval
from whyprompt.mediation.results import column
from whyprompt.stats import resampling
from whyprompt.stats.clusters import cluster_sums, mean_df
from whyprompt.stats.several import sign_flips


def sweep(nie, clusters=None, te=None):
    """A sweep whose NIE is the given array of items x heads."""
    nie = np.asarray(nie, float)
    n, m = nie.shape
    y11 = np.zeros(n)
    return Sweep(
        mediator="head_output",
        outcome="log_prob",
        model="toy",
        item_ids=tuple(f"i{i}" for i in range(n)),
        clusters=tuple(clusters) if clusters is not None else tuple(f"i{i}" for i in range(n)),
        n_layers=m,
        n_heads=1,
        sites=tuple((j, 0) for j in range(m)),
        y00=y11 - (nie.sum(1) if te is None else te),
        y11=y11,
        y10=y11[:, None] - nie,
        y01=None,
    )


def figures(inference, name):
    """One figure of all parts."""
    return column(inference.parts, name)


def resampled_t(x, groups, counts):
    """Signed bootstrap t of one column, by making every sample and its CR2 error anew."""

    def mean_error(cells):
        y, units = np.concatenate(cells), np.repeat(np.arange(len(cells)), [len(c) for c in cells])
        n, mean = len(y), y.mean()
        sums = np.array([(y[units == u] - mean).sum() ** 2 / (1 - (units == u).mean()) for u in set(units)])
        return mean, np.sqrt(sums.sum()) / n

    cells = [x[groups == g] for g in range(groups.max() + 1)]
    center, error = mean_error(cells)
    draws = [
        mean_error([c for c, k in zip(cells, row, strict=True) for _ in range(int(k))]) for row in counts
    ]
    with np.errstate(divide="ignore"):
        return center / error, np.array([0.0 if m == center else (m - center) / e for m, e in draws])


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_and_p_values_are_those_of_samples_drawn_one_by_one(clustered):
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(14, 4)) - [1.0, 0.2, 0.0, 1.0]
    groups = np.arange(14) // 3 if clustered else np.arange(14)  # the last cluster is smaller
    sums, sizes = cluster_sums(x, groups)
    got, q_values, _ = resampling.resample(sums, sizes, level=0.9, draws=199, rng=np.random.default_rng(5))
    counts = resampling.draw_counts(len(sizes), 199, np.random.default_rng(5))
    own, star = zip(*(resampled_t(x[:, j], groups, counts) for j in range(4)), strict=True)
    own, star = np.array(own), np.array(star).T
    np.testing.assert_allclose(got["estimate"] / got["std_error"], own)
    ranked, size = np.sort(star, 0), np.sort(np.abs(star), 0)
    # 199 draws: the 10th from either end, and the 20th of the sizes from theirs.
    least = np.maximum(size[-20], stats.t.ppf(0.95, mean_df(sizes)))
    below, above = np.maximum(ranked[-10], least), np.maximum(-ranked[9], least)
    np.testing.assert_allclose(got["ci_low"], x.mean(0) - below * got["std_error"])
    np.testing.assert_allclose(got["ci_high"], x.mean(0) + above * got["std_error"])
    reach = np.abs(star)[:, :, None] >= np.abs(own) * (1 - 1e-9)  # draws x drawn x observed
    flips, family, _, _, exhaustive = sign_flips(
        sums, sizes, draws=198, rng=np.random.default_rng(0), flat=resampling.FLAT
    )
    np.testing.assert_array_equal(exhaustive, clustered)
    single = (1 + np.array([reach[:, j, j].sum() for j in range(4)])) / 200
    order, running, step_down = np.argsort(-np.abs(own)), 0.0, np.empty(4)
    for k, j in enumerate(order):
        beyond = np.abs(star)[:, order[k:]] >= np.abs(own[j]) * (1 - 1e-9)
        running = max(running, (1 + beyond.any(1).sum()) / 200)
        step_down[j] = running
    pooled = (1 + reach.sum((0, 1)) / 4) / 200
    if clustered:  # all sign patterns, so nothing of them is drawn
        np.testing.assert_allclose(got["p_value"], np.maximum(single, flips))
        q_value = stats.false_discovery_control(np.maximum(pooled, flips))
        np.testing.assert_allclose(q_values, q_value)
        np.testing.assert_allclose(got["p_adjusted"], np.maximum(np.maximum(step_down, family), q_value))
    else:
        assert (got["p_value"] >= single - 1e-12).all()
        assert (got["p_adjusted"] >= step_down - 1e-12).all()
        assert got["p_adjusted"].min() < 0.2


def test_interval_of_many_items_is_the_t_interval():
    x = np.random.default_rng(0).normal(1, 2, 2000)
    got = mean_interval(x, level=0.9)
    want = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    np.testing.assert_allclose([got.ci_low, got.ci_high], [want.low, want.high], rtol=0.01)


def test_the_interval_reaches_to_the_side_of_the_long_tail():
    x = stats.expon.ppf((np.arange(20) + 0.5) / 20)
    got = mean_interval(x)
    assert got.ci_high - got.estimate > 1.2 * (got.estimate - got.ci_low)
    turned = mean_interval(-x)
    assert (turned.ci_low, turned.ci_high) == pytest.approx((-got.ci_high, -got.ci_low), rel=0.05)


@pytest.mark.parametrize("x", [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]])
def test_items_that_do_not_bound_a_mean_give_no_interval_and_say_so(x):
    got = mean_interval(x)
    assert (got.ci_low, got.ci_high) == (-np.inf, np.inf)
    sentence = infer_heads(sweep(np.array(x)[:, None])).sentence
    assert "no 95% interval: so few items that differ do not bound it" in sentence
    assert "inf" not in sentence


def test_clustered_error_with_clusters_of_one_size_is_that_of_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    groups = rng.permutation(np.arange(9).repeat(7))
    x = rng.normal(size=63) + rng.normal(size=9)[groups]
    got = mean_interval(x, cluster=[f"g{g}" for g in groups])
    # statsmodels' small-sample factor is G/(G-1) * (n-1)/(n-k); with k = 1 the last part is 1.
    fit = sm.OLS(x, np.ones(63)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True}, use_t=True
    )
    np.testing.assert_allclose(got.std_error, fit.bse[0], rtol=1e-10)


def test_clustered_error_is_cr2_by_matrices():
    groups = np.arange(4).repeat([1, 2, 3, 9])
    x = np.random.default_rng(3).normal(size=15) + groups
    centred = np.eye(15) - 1 / 15
    # Each cluster's residuals times (I - H_gg)^(-1/2), as Bell and McCaffrey define it.
    a = np.zeros((15, 4))
    for g in range(4):
        rows = groups == g
        values, vectors = np.linalg.eigh(centred[np.ix_(rows, rows)])
        a[rows, g] = vectors @ (vectors.T.sum(1) / np.sqrt(values)) / 15
    inner = a.T @ centred @ a
    df = np.trace(inner) ** 2 / (inner**2).sum()
    sizes = np.array([1.0, 2.0, 3.0, 9.0])
    assert mean_df(sizes) == pytest.approx(df, rel=1e-10)
    got = mean_interval(x, cluster=[f"g{g}" for g in groups])
    assert got.std_error == pytest.approx(np.sqrt(((a.T @ centred @ x) ** 2).sum()), rel=1e-10)
    head = infer_heads(sweep(x[:, None], [f"g{g}" for g in groups]))
    assert head.parts[0].ends == pytest.approx((got.ci_low, got.ci_high))


def test_interval_covers_where_one_cluster_holds_most_items():
    groups = np.arange(12).repeat([1] * 11 + [30])
    names, hits = [f"g{g}" for g in groups], 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        got = mean_interval(rng.normal(size=12)[groups] + rng.normal(size=41), cluster=names)
        hits += got.ci_low <= 0 <= got.ci_high
    assert hits >= 276


@pytest.mark.parametrize("clustered", [False, True])
def test_exhaustive_sign_flips_equal_brute_force(clustered):
    rng = np.random.default_rng(2)
    x = rng.normal((1.5, 0.8, 0, 0, 0.3), 1, size=(12, 5))
    units = np.arange(12) // 2 if clustered else np.arange(12)
    g = units.max() + 1
    sums, sizes = cluster_sums(x, units)
    p, p_fwer, _, used, exhaustive = sign_flips(sums, sizes, draws=2**11, rng=rng, flat=resampling.FLAT)
    assert exhaustive
    assert used == 2 ** (g - 1)

    def t_of(y):
        mean = y.mean(0)
        u = np.stack([(y[units == k] - mean).sum(0) for k in range(g)])
        return np.abs(mean / (np.sqrt(g / (g - 1) * (u**2).sum(0)) / len(y)))

    t = t_of(x)
    patterns = np.array([t_of(x * np.array(s)[units][:, None]) for s in product((1, -1), repeat=g)])
    np.testing.assert_allclose(p, (patterns >= t * (1 - 1e-9)).mean(0))
    order, running = np.argsort(-t), 0.0
    for k, j in enumerate(order):
        running = max(running, (patterns[:, order[k:]].max(1) >= t[j] * (1 - 1e-9)).mean())
        np.testing.assert_allclose(p_fwer[j], running)
    got = infer_heads(sweep(x, [f"c{u}" for u in units]))
    assert got.min_p == 2 / 2**g
    assert (figures(got, "p_value") >= p - 1e-12).all()
    assert (figures(got, "p_adjusted") >= p_fwer - 1e-12).all()


SHAPES = {
    "normal": lambda rng, size: rng.normal(size=size),
    "t3": lambda rng, size: rng.standard_t(3, size=size),
    "exponential": lambda rng, size: rng.exponential(size=size) - 1,
    "lognormal": lambda rng, size: rng.lognormal(size=size) - np.exp(0.5),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [8, 20])
def test_the_error_rates_are_held_for_effects_of_mean_zero_however_skewed(shape, n):
    """Heads of mean zero: sign flips alone name one in 45 to 90% of such sweeps where they are skewed."""
    rng, reps, family, discovery = np.random.default_rng(3), 60, 0, 0
    for rep in range(reps):
        x = SHAPES[shape](rng, (n, 40)) + 0.3 * SHAPES[shape](rng, (n, 1))  # heads that go together
        got = infer_heads(sweep(x), draws=400, n_splits=0, random_state=rep)
        family += bool((figures(got, "p_adjusted") < 0.05).any())
        discovery += bool((got.q_value < 0.05).any())
    # 60 draws at 0.05: the 99.9% binomial bound is 9.
    assert family <= 9
    assert discovery <= 9


def test_a_skewed_head_with_an_effect_is_found():
    rng = np.random.default_rng(3)
    x = rng.exponential(size=(20, 50)) - 1
    x[:, 7] += 2.5
    got = infer_heads(sweep(x))
    assert got.parts[7].p_adjusted < 0.05
    assert got.q_value[7] < 0.05
    assert got.to_frame().iloc[0]["layer"] == 7
    assert "head 7.0" in got.sentence
    assert "1 of them can be told from zero with the familywise error held at 0.05" in got.sentence


def test_drawn_sign_flips_approach_the_exhaustive_ones():
    rng = np.random.default_rng(4)
    x, sizes = rng.normal(0.4, 1, size=(12, 6)), np.ones(12)
    exact, _, _, _, all_of_them = sign_flips(x, sizes, draws=2**11, rng=rng)
    drawn, _, _, _, not_all = sign_flips(x, sizes, draws=2**11 - 1, rng=rng)
    assert all_of_them
    assert not not_all
    np.testing.assert_allclose(drawn, exact, atol=0.05)
    assert drawn.min() > 0


def test_heads_that_never_move_are_not_marked():
    x = np.zeros((8, 3))
    x[:, 1] = 1.0
    got = infer_heads(sweep(x))
    assert got.to_frame().sort_values("layer")["t"].tolist() == [0.0, np.inf, 0.0]
    assert figures(got, "p_value").tolist() == [1.0, 2 / 2**8, 1.0]
    assert got.parts[1].p_adjusted == got.q_value[1] == 3 * 2 / 2**8


def test_the_sentence_says_what_so_few_items_cannot_show():
    x = np.random.default_rng(5).normal(3, 0.1, size=(5, 4))
    got = infer_heads(sweep(x))
    assert got.min_p == 0.0625
    assert "can show no head at all" in got.sentence
    got = infer_heads(sweep(np.random.default_rng(5).normal(3, 0.1, size=(8, 40))))
    assert "absence of a mark is no evidence" in got.sentence


def test_split_half_tells_signal_from_noise():
    rng = np.random.default_rng(6)
    noise = rng.normal(size=(20, 60))
    signal = noise * 0.1 + rng.normal(size=60)
    strong, weak = infer_heads(sweep(signal)).split_half, infer_heads(sweep(noise)).split_half
    assert strong.part("rank correlation").estimate > 0.95
    assert strong.part("agreement on the largest").estimate > 0.8
    assert abs(weak.part("rank correlation").estimate) < 0.3
    assert infer_heads(sweep(noise[:3])).split_half is None


def test_a_contrast_is_of_the_items_by_their_names():
    rng = np.random.default_rng(4)
    x, z = rng.normal(size=(2, 9, 2))
    one, other = sweep(x), sweep(z)
    at = [7, 2, 8, 0, 5, 3, 6]  # in another order, and two of them missing
    turned = {name: getattr(other, name)[at] for name in ("y00", "y11", "y10")}
    names = tuple(other.item_ids[k] for k in at)
    other = replace(other, **turned, item_ids=names, clusters=names)
    got, both = contrast_heads(one, other), sorted(at)
    np.testing.assert_allclose(got.mean, (x - z)[both].mean(0), atol=1e-12)
    assert got.estimate == pytest.approx((x - z)[both].sum(1).mean())
    assert got.parts[0].n_used == 7


def test_contrast_subtracts_item_by_item():
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 5, size=(10, 1))  # the items' own level, the same in both
    a, b = sweep(rng.normal(1, 0.1, (10, 3)) + noise), sweep(rng.normal(0, 0.1, (10, 3)) + noise)
    got = contrast_heads(a, b)
    np.testing.assert_allclose(got.mean, (a.nie - b.nie).mean(0))
    assert (figures(got, "p_adjusted") < 0.05).all()
    assert not (figures(infer_heads(a), "p_adjusted") < 0.05).any()
    with pytest.raises(MediationError, match="differ in sites"):
        contrast_heads(a, sweep(rng.normal(size=(10, 2))))


def test_bad_input():
    with pytest.raises(MediationError, match="at least two sampling units, but 3 items form 1"):
        infer_heads(sweep(np.ones((3, 2)), clusters=["a"] * 3))
    with pytest.raises(MediationError, match="not finite"):
        mean_interval([1.0, np.nan])
    with pytest.raises(MediationError, match="unknown quantity 'ate'"):
        infer_heads(sweep(np.ones((3, 2))), quantity="ate")
    with pytest.raises(MediationError, match="pure_nie needs y01"):
        infer_heads(sweep(np.ones((3, 2))), quantity="pure_nie")


@pytest.mark.parametrize("draws", [10_000, 200])
def test_effects_that_are_nearly_alike_in_every_item_have_no_p_of_zero(draws):
    """Rounding of a spread that nearly cancels must not make the sample rarer than it is."""
    x = np.full((9, 4), 0.7)
    x[:, 1] = 0.3 + 1e-12 * np.arange(9)
    x[:, 2] = 0.3 + 1e-8 * np.arange(9)
    x[:, 3] = 1 + 1e-4 * np.random.default_rng(0).normal(size=9)
    got = infer_heads(sweep(x), draws=draws)
    if draws > 256:
        assert figures(got, "p_value").tolist() == figures(got, "p_adjusted").tolist() == [2 / 2**9] * 4
    assert figures(got, "p_value").min() >= min(got.min_p, 1 / draws)


@pytest.mark.parametrize("agreeing", [1, 10])
def test_a_head_that_moves_on_one_item_only_is_no_mark_and_takes_none_from_ten_that_agree(agreeing):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 30))
    x[:, 10 : 10 + agreeing] += 3
    x[:, 9] = 0
    x[4, 9] = 5.0
    got = infer_heads(sweep(x))
    family = figures(got, "p_adjusted")
    assert family[9] > 0.3
    # One that agrees with no other may be such an item's doing, seen in a sample that holds it twice.
    assert (family[10 : 10 + agreeing] < 0.05).all() == (agreeing == 10)
    assert (family >= got.q_value).all()


@pytest.mark.parametrize("kind", ["real", "near zero"])
def test_a_share_is_bounded_where_the_whole_is_told_from_zero(kind):
    rng = np.random.default_rng(0)
    whole = rng.normal(2.0 if kind == "real" else 0.1, 1, size=12)
    part = 0.5 * whole + 0.1 * rng.normal(size=12)
    low, high = share_interval(part, whole)
    if kind == "real":
        assert 0.4 < low < part.mean() / whole.mean() < high < 0.6
    else:
        assert (low, high) == (-np.inf, np.inf)
    # Turning both, or the sign of the part alone, turns the interval with them.
    assert share_interval(-part, -whole) == pytest.approx((low, high))
    assert share_interval(-part, whole) == pytest.approx((-high, -low), rel=0.1)


def test_the_interval_of_a_share_covers_with_few_items():
    hits, reps = 0, 300
    rng = np.random.default_rng(1)
    for _ in range(reps):
        whole = rng.exponential(size=8) + 2
        part = 0.7 * whole + rng.exponential(size=8) - 1
        low, high = share_interval(part, whole)
        hits += low <= 0.7 <= high
    assert hits / reps >= 0.92


def test_the_interval_of_a_share_knows_that_one_cluster_may_hold_most_items():
    rng = np.random.default_rng(0)
    clusters = [f"c{max(0, i - 19)}" for i in range(25)]  # one of 20, five of one
    part, whole = rng.normal(1, 1, 25), rng.normal(2, 0.1, 25)
    wide, narrow = (share_interval(part, whole, cluster=c) for c in (clusters, None))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_split_half_names_fewer_heads_than_there_are():
    x = np.random.default_rng(0).normal(size=(20, 6))
    got = infer_heads(sweep(x)).split_half
    assert "of their 3 largest heads" in got.sentence
    assert got.part("agreement on the largest").estimate < 1


def layers(nie):
    """The same numbers as joint effects of named sets."""
    s = sweep(nie)
    return Sweep(
        mediator=s.mediator,
        outcome=s.outcome,
        model=s.model,
        item_ids=s.item_ids,
        clusters=s.clusters,
        n_layers=s.n_layers,
        n_heads=2,
        sets={f"layer {j}": ((j, 0), (j, 1)) for j in range(len(s.heads))},
        y00=s.y00,
        y11=s.y11,
        y10=s.y10,
        y01=None,
    )


def test_sets_have_the_statistics_of_heads():
    import json

    x = np.random.default_rng(8).normal((2.0, 0, 0.5), 1, size=(10, 3))
    heads, sets = infer_heads(sweep(x)), infer_heads(layers(x))
    for name in ("estimate", "ci_low", "ci_high", "p_value", "p_adjusted"):
        np.testing.assert_array_equal(figures(sets, name), figures(heads, name))
    for name in ("mean", "q_value", "nde"):
        np.testing.assert_array_equal(getattr(sets, name), getattr(heads, name))
    assert sets.overall == heads.overall
    frame = sets.to_frame()
    assert frame["set"].tolist() == ["layer 0", "layer 1", "layer 2"]
    assert frame["n_sites"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(frame["nie"], x.mean(0))
    assert "Of 3 sets, layer 0 has the largest mean joint NIE" in sets.sentence
    assert "do not add up to the total effect" in sets.sentence
    assert json.loads(json.dumps(sets.to_dict()))["parts"][0]["label"] == "layer 0"
    with pytest.raises(MediationError, match="pure_nie needs y01"):
        infer_heads(layers(x), quantity="pure_nie")
    with pytest.raises(MediationError, match="unknown quantity 'te'"):
        infer_heads(layers(x), quantity="te")


def test_joint_effects_are_drawn_with_their_intervals_beside_the_total(tmp_path):
    from whyprompt import save_chart
    from whyprompt.charts import joint_plot

    sets = infer_heads(layers(np.random.default_rng(8).normal((2.0, 0, 0.5), 1, size=(10, 3))))
    chart = joint_plot(sets, outcome="log_prob")
    spec = chart.to_dict()
    drawn = [row for rows in spec["datasets"].values() for row in rows if "words" in row]
    assert [row["set"] for row in drawn] == ["0", "1", "2"]
    np.testing.assert_allclose([row["effect"] for row in drawn], sets.mean)
    np.testing.assert_allclose([row["low"] for row in drawn], figures(sets, "ci_low"))
    assert {"at": sets.estimate, "line": "total effect"} in [
        r for rows in spec["datasets"].values() for r in rows
    ]
    assert spec["description"].startswith("Joint NIE of 3 layers, beside a total effect of")
    assert "layer 0: NIE" in spec["description"]
    assert save_chart(chart, tmp_path / "joint.svg").read_text().startswith("<svg")


def test_sweeps_of_sets_survive_a_round_trip():
    import json

    given = layers(np.random.default_rng(8).normal(size=(4, 3)))
    again = Sweep.from_dict(json.loads(json.dumps(given.to_dict())))
    assert again.sets == given.sets
    assert again.labels == given.labels == ("layer 0", "layer 1", "layer 2")
    np.testing.assert_array_equal(again.nie, given.nie)


@pytest.mark.parametrize("quantity", ["ate", "te"])
def test_a_contrast_of_what_is_no_effect_is_refused(quantity):
    with pytest.raises(MediationError, match=f"unknown quantity '{quantity}'"):
        contrast_heads(sweep(np.ones((3, 2))), sweep(np.ones((3, 2))), quantity=quantity)


@pytest.mark.parametrize("level", [95, 0.0, 1.0, np.nan])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(MediationError, match="between 0 and 1"):
        mean_interval([1.0, 2.0, 3.0], level=level)
    with pytest.raises(MediationError, match="between 0 and 1"):
        infer_heads(sweep(np.random.default_rng(0).normal(size=(5, 2))), level=level)


def of_sites(nie, sites, te=None, **options):
    return replace(sweep(nie, te=te), sites=sites, **options)


def test_sites_of_a_kind_keep_their_own_effects():
    x = np.random.default_rng(6).normal(size=(8, 4))
    every = of_sites(x, ["mlp 0", "head 1.0", "attn 1", "head 0.2"])
    inferred = infer_heads(every, draws=200)
    for kinds, at in ((("head",), [1, 3]), (("mlp", "attn"), [0, 2])):
        some, found = every.of_kind(*kinds), inferred.of_kind(*kinds)
        assert some.labels == tuple(every.labels[k] for k in at)
        np.testing.assert_array_equal(some.nie, every.nie[:, at])
        np.testing.assert_array_equal(found.mean, inferred.mean[at])
        np.testing.assert_array_equal(found.q_value, inferred.q_value[at])
        assert found.parts == tuple(inferred.parts[k] for k in at)


def test_all_sites_of_a_sweep_are_one_family():
    """A head's familywise p allows for the blocks beside it, as for other heads."""
    x = np.random.default_rng(5).normal((0.8, *(0,) * 11), 1, (12, 12))
    names = [*((0, k) for k in range(4)), *(f"mlp {k}" for k in range(4)), *(f"attn {k}" for k in range(4))]
    heads, every = infer_heads(sweep(x[:, :4])), infer_heads(of_sites(x, names))
    alike = infer_heads(sweep(x))
    np.testing.assert_array_equal(figures(every, "p_adjusted"), figures(alike, "p_adjusted"))
    np.testing.assert_array_equal(every.q_value, alike.q_value)
    assert figures(every, "p_adjusted")[0] > figures(heads, "p_adjusted")[0]
    assert every.heads == tuple((0, k) for k in range(4))
    assert every.to_frame()["site"].tolist()[0] == "head 0.0"
    assert every.part("mlp 2").estimate == pytest.approx(x[:, 6].mean())
    assert (
        "Of 12 sites, the largest mean NIE of each kind is that of head 0.0 among 4 heads" in every.sentence
    )
    assert "among 4 MLP outputs" in every.sentence
    assert all(f"{kind} " in every.summary() for kind in ("head", "mlp", "attn"))
    assert every.sentence.endswith("do not add up: what one passes on, a later one holds too.")


def test_of_the_residual_stream_it_is_said_from_where_on_it_holds_the_effect():
    rng = np.random.default_rng(6)
    te = rng.normal(2, 0.3, 10)
    x = te[:, None] * [0.1, 0.6, 0.3, 0.5, 0.9, 1.0]
    sites = [f"resid {k}" for k in range(6)]
    stream = infer_heads(of_sites(x, sites, te=te))
    assert "holds half of it or more from resid 3 on" in stream.sentence
    assert "Of 6 residual streams, resid 5 has the largest mean NIE" in stream.sentence
    mixed = infer_heads(of_sites(x, [(0, 0), *sites[1:]], te=te, tokens="suffix"))
    assert "holds half of it or more from resid 3 on" in mixed.sentence
    assert mixed.sentence.endswith("every token that the two prompts end with, and at the answer positions.")
    unsure = infer_heads(of_sites(x - te.mean(), sites, te=te - te.mean()))
    assert "half of it" not in unsure.sentence
    with pytest.raises(MediationError, match="differ in tokens"):
        contrast_heads(of_sites(x, sites), of_sites(x, sites, tokens="suffix"))
