"""What must hold of every matched set, whatever the method: one checker for all of them.

Each check would have caught a defect of a package in use: pairs beyond the caliper, rows used twice without
replacement, exact columns that differ, weights that do not sum to what the estimand says, results that
follow the order or the index of the table, columns written into the caller's frame.
"""

from __future__ import annotations

import numpy as np


def check_matched_set(
    matched,
    treated,
    *,
    widths=(),
    exact=(),
    ratio=None,
    discarded=None,
    every_focal_row=False,
    pair_width_factor=1.0,
):
    """Check the invariants of one `MatchedSet`.

    Parameters
    ----------
    matched : MatchedSet
    treated : ndarray of bool, shape (n,)
    widths : sequence of (ndarray of shape (n,), float)
        Calipers that every pair keeps.
    exact : sequence of ndarray, each shape (n,)
        Columns equal within pairs and strata.
    ratio : int, optional
        Most matches of a focal row (without averaged ties).
    discarded : ndarray of bool, optional
        Rows that must not be used.
    every_focal_row : bool
        Whether no focal row may be missing.
    pair_width_factor : float
        For full matching, whose caliper is on joined rows: two rows of a set of the other arm may lie twice
        as far apart.
    """
    n = len(treated)
    w = matched.weights
    used = w > 0
    assert w.shape == (n,)
    assert np.isfinite(w).all()
    assert (w >= 0).all()
    if discarded is not None:
        assert not (used & discarded).any(), "a discarded row is used"
        assert (matched.discarded == discarded).all()
    _check_weights(matched, treated)
    if matched.n_pairs:
        _check_pairs(matched, treated, widths, exact, ratio)
    if matched.stratum is not None:
        _check_strata(matched, treated, widths, exact, pair_width_factor)
    if every_focal_row:
        side = {"att": treated, "atc": ~treated}.get(matched.estimand, np.ones(n, dtype=bool))
        eligible = side if discarded is None else side & ~discarded
        assert used[eligible].all(), "a row whose counterfactual is looked for was lost"


def _check_weights(matched, treated):
    """ATT: treated weigh 1; ATC: controls do; every arm's weights sum to its number of rows used."""
    w = matched.weights
    for arm in (treated, ~treated):
        assert (w[arm] > 0).any(), "an arm is empty"
        assert np.isclose(w[arm].sum(), (w[arm] > 0).sum(), rtol=1e-9)
    focal = {"att": treated, "atc": ~treated}.get(matched.estimand)
    if focal is not None:
        inside = focal & (w > 0)
        assert np.allclose(w[inside], 1.0, rtol=1e-9), "a focal row does not weigh 1"


def _check_pairs(matched, treated, widths, exact, ratio):
    focal, other, share = matched.focal, matched.other, matched.share
    n = len(treated)
    assert len(focal) == len(other) == len(share)
    assert (treated[focal] != treated[other]).all(), "a pair within an arm"
    if matched.estimand == "att":
        assert treated[focal].all()
    if matched.estimand == "atc":
        assert not treated[focal].any()
    pairs = np.column_stack([focal, other])
    assert len(np.unique(pairs, axis=0)) == len(pairs), "a pair twice"
    totals = np.bincount(focal, weights=share, minlength=n)
    assert np.allclose(totals[np.unique(focal)], 1.0), "shares of a focal row do not sum to 1"
    if not matched.replace:
        assert len(np.unique(other)) == len(other), "a row used twice without replacement"
    if ratio is not None:
        assert np.bincount(focal).max() <= ratio
    for values, width in widths:
        gap = np.abs(values[focal] - values[other])
        assert (gap <= width * (1 + 1e-9) + 1e-12).all(), "a pair beyond the caliper"
    for column in exact:
        assert (column[focal] == column[other]).all(), "an exact column differs within a pair"
    # The weights are those of the pairs: the estimate is the same either way.
    probe = np.random.default_rng(0).normal(size=n)
    by_pairs = np.bincount(focal, weights=share * (probe[focal] - probe[other]), minlength=n)
    sign = np.where(treated, 1.0, -1.0)
    direct = float((sign * by_pairs).sum() / len(np.unique(focal)))
    w = matched.weights
    weighted = np.average(probe[treated], weights=w[treated]) - np.average(
        probe[~treated], weights=w[~treated]
    )
    assert np.isclose(direct, weighted, rtol=1e-9, atol=1e-12)


def _check_strata(matched, treated, widths, exact, factor):
    stratum, w = matched.stratum, matched.weights
    assert ((stratum >= 0) == (w > 0)).all(), "a row with weight and no stratum, or the reverse"
    for code in range(int(stratum.max()) + 1):
        rows = np.flatnonzero(stratum == code)
        assert treated[rows].any(), "a stratum without treated rows"
        assert not treated[rows].all(), "a stratum without control rows"
        for column in exact:
            assert len(set(column[rows].tolist())) == 1, "an exact column differs within a stratum"
        if matched.n_pairs == 0:
            if matched.method == "full":
                assert min(treated[rows].sum(), (~treated[rows]).sum()) == 1, "a set that is no star"
                for values, width in widths:
                    across = np.abs(values[rows[treated[rows]]][:, None] - values[rows[~treated[rows]]])
                    assert (across <= factor * width * (1 + 1e-9)).all(), "joined beyond the caliper"
            share = {
                "att": treated[rows].sum(),
                "atc": (~treated[rows]).sum(),
            }.get(matched.estimand, len(rows))
            # Within a stratum both arms stand for the same number of rows, up to the arms' own scales.
            for arm in (treated, ~treated):
                mine = rows[arm[rows]]
                total = w[mine].sum() / w[arm].sum()
                whole = {"att": treated, "atc": ~treated}.get(matched.estimand, np.ones(len(w), bool))
                assert np.isclose(total, share / (whole & (stratum >= 0)).sum(), rtol=1e-9)


def pair_labels(matched, labels):
    """Return the pairs, or the strata, as a set of labels that does not depend on the order of rows."""
    if matched.n_pairs:
        return {
            (labels[a], labels[b], round(float(s), 12))
            for a, b, s in zip(matched.focal, matched.other, matched.share, strict=True)
        }
    groups = {}
    for row, code in enumerate(matched.stratum):
        if code >= 0:
            groups.setdefault(int(code), set()).add(labels[row])
    return {frozenset(group) for group in groups.values()}


def check_permutation(match, columns, treated, seed=0):
    """Check that permuting the rows permutes the result.

    Parameters
    ----------
    match : callable
        Maps (columns, treated) to a `MatchedSet`; `columns` is a dict of arrays.
    columns : dict of str to ndarray
        Must hold no ties that the method breaks by the order of rows, or a ``tie_rank``.
    treated : ndarray of bool
    """
    n = len(treated)
    order = np.random.default_rng(seed).permutation(n)
    first = match(columns, treated)
    second = match({k: v[order] for k, v in columns.items()}, treated[order])
    assert pair_labels(first, np.arange(n)) == pair_labels(second, order)
    assert np.allclose(first.weights[order], second.weights, rtol=1e-9)


def check_frame(estimate, frame, *, outcome, seed=0):
    """Check that the index and the order of a frame are irrelevant, and that it is left as it was.

    Parameters
    ----------
    estimate : callable
        Maps a frame to an `EffectResult`.
    frame : pandas.DataFrame
    outcome : str
    """
    before = frame.copy(deep=True)
    result = estimate(frame)
    assert frame.equals(before), "the caller's frame was changed"
    assert list(frame.columns) == list(before.columns)
    assert frame.index.equals(before.index)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(frame))
    for other in (
        frame.set_index(np.zeros(len(frame), dtype=int)),
        frame.set_index(rng.permutation(len(frame))),
        frame.iloc[order],
        frame.iloc[order].set_index(rng.integers(0, 3, len(frame))),
    ):
        again = estimate(other)
        assert np.isclose(again.estimate, result.estimate, rtol=1e-7, atol=1e-9)
        if result.std_error is not None:
            assert np.isclose(again.std_error, result.std_error, rtol=1e-6)
        assert (again.n_treated_used, again.n_control_used) == (result.n_treated_used, result.n_control_used)
    shifted = frame.assign(**{outcome: 3.0 * frame[outcome] + 7.0})
    assert np.isclose(estimate(shifted).estimate, 3.0 * result.estimate, rtol=1e-6, atol=1e-9)
    return result
