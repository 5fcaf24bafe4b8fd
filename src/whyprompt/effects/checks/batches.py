"""Whether the outcome of an item changes with the batch that it was run in."""

from __future__ import annotations

from functools import partial
from itertools import permutations, product
from math import factorial, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import generator
from whyprompt._words import format_number, p_words
from whyprompt.charts import count_plot
from whyprompt.errors import EstimationError
from whyprompt.results import Check, Estimate, with_holm
from whyprompt.stats.rules import p_of_draws
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


# Up to this many arrangements are enumerated; beyond it they are drawn.
_EXACT = 20_000
# Of the verdict, after adjustment for the number of tests.
_LEVEL = 0.05


def batch_interference(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str,
    outcome: str,
    batch: str | Sequence[str],
    treatment: str | None = None,
    features: Sequence[str] = (),
    draws: int = 4999,
    random_state: int = 0,
) -> Check:
    """Test whether an item's outcome changes with its neighbours in the batch.

    Parameters
    ----------
    frame : DataFrame
        One row a trial, items repeated in batches of changed composition; pandas, polars or pyarrow. It is
        read and never written.
    unit, outcome : str
        Columns.
    batch : str or sequence of str
        Column, or columns that name a batch together: a set of trials that were run together. In a whyprompt
        store ``unit`` is one, numbered anew in each arm and repetition: ``["arm", "rep", "unit"]``.
    treatment : str, optional
        Column; the same item under another arm counts as another item.
    features : sequence of str
        Numeric columns, such as ``question_tokens``: does the outcome follow the mean of the other trials in
        the batch? A long neighbour means more padding.
    draws : int, default 4999
        Arrangements drawn where they are too many to enumerate (over 20,000).
    random_state : int, default 0
        For the draws.

    Returns
    -------
    Check
        A test a part, by permutation within items: of any difference between batches (``"batch"``: the sum of
        squares between batches after items are taken out), and of each of the neighbours' features (the
        within-item correlation with their mean). p is adjusted for the number of tests; it ``"fails"`` where
        one is below 0.05. Its figures:

        - ``exact``: whether all arrangements were enumerated; ``arrangements`` enumerated or drawn;
        - ``n_items``, ``n_trials``, ``n_batches`` that carry information: items run in at least two batches;
          ``n_left_out``: trials of items that were in one batch only;
        - ``n_changed``: items whose outcome is not the same in all trials; ``largest_range`` between two
          trials of one item;
        - ``sd_batch`` and ``sd_repeats``: standard deviation of batch effects, and of trials around item and
          batch.

    Raises
    ------
    DataError
        If a column is absent, missing values or of the wrong kind.
    EstimationError
        If no item was run in two batches.

    Notes
    -----
    If the batch does not matter, the trials of one item are exchangeable, so its outcomes may be permuted
    among the batches that it was in: the test is exact, whatever the distribution of the outcome. It says
    nothing of a batch effect that all trials of an item share.

    References
    ----------
    Good (2005). Permutation, Parametric and Bootstrap Tests of Hypotheses, 3rd edition. Springer, section 3.
    Searle, Casella and McCulloch (1992). Variance Components. Wiley, section 5.5 (Henderson's method III).
    Phipson and Smyth (2010). Permutation p-values should never be zero. Statistical Applications in Genetics
    and Molecular Biology 9.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame(
    ...     {
    ...         "item": [1, 2, 3, 4] * 2,
    ...         "batch": ["a", "a", "b", "b", "c", "d", "c", "d"],
    ...         "y": [1.0, 2.0, 3.0, 4.0] * 2,
    ...     }
    ... )
    >>> found = batch_interference(frame, unit="item", outcome="y", batch="batch")
    >>> found.verdict, found["n_changed"], found.parts[0].p_value
    ('passes', 0, 1.0)
    """
    if draws < 99:
        raise EstimationError(f"draws={draws}: at least 99 are needed")
    table = open_table(frame)
    labels = table.labels(unit, role="unit").astype(str)
    if treatment is not None:
        labels = np.array(
            [f"{a}\0{b}" for a, b in zip(labels, table.labels(treatment, role="arm").tolist(), strict=True)]
        )
    y = table.numbers(outcome, role="outcome")
    where = _labels(table, batch)
    neighbours = {f: _neighbours(table.numbers(f, role="feature"), where, f) for f in features}
    pairs = np.unique(np.column_stack([labels, where]), axis=0)
    names, batches = np.unique(pairs[:, 0], return_counts=True)
    moved = np.isin(labels, names[batches >= 2])
    if not moved.any():
        raise EstimationError(
            f"no item was run in two values of {_name(batch)}: its neighbours never changed",
            hint="run repeats in batches of changed composition",
        )
    code = np.unique(labels[moved], return_inverse=True)[1]
    order = np.argsort(code, kind="stable")
    code = code[order]
    y, place = y[moved][order], np.unique(where[moved][order], return_inverse=True)[1]
    centred = _centre(y, code)
    spread = ranges(y, code)
    statistics = [_between(centred, place)]
    slopes = []
    for name, values in neighbours.items():
        z = _centre(values[moved][order], code)
        if not z.any():
            raise EstimationError(f"the neighbours' mean of {name!r} does not change within any item")
        slopes.append(z / np.sqrt(z @ z))
        statistics.append(abs(float(centred @ slopes[-1])))
    p_values, exact, done = _permute(centred, code, place, slopes, statistics, draws, random_state)
    total = np.sqrt(centred @ centred)
    shown = [statistics[0]] + [float(centred @ z / total) if total > 0 else 0.0 for z in slopes]
    tests = with_holm(
        [
            Estimate(label=name, estimate=value, p_value=p)
            for name, value, p in zip(["batch", *neighbours], shown, p_values, strict=True)
        ]
    )
    sd_batch, sd_repeats = _components(y, code, place)
    # The least adjusted p that drawn arrangements can show; all of them have no floor.
    floor = None if exact else p_of_draws(len(tests) - 1, done)
    figures = {
        "exact": exact,
        "arrangements": done,
        "n_items": len(spread),
        "n_trials": len(y),
        "n_batches": int(place.max()) + 1,
        "n_left_out": int((~moved).sum()),
        "n_changed": int((spread > 0).sum()),
        "sd_batch": sd_batch,
        "sd_repeats": sd_repeats,
        "largest_range": float(spread.max()),
    }
    bars = [
        {"label": "between batches", "value": sd_batch, "group": ""},
        {"label": "between trials of an item", "value": sd_repeats, "group": ""},
    ]
    p = p_words(tests[0].p_adjusted, least=floor)
    title = f"standard deviation of {outcome} (p of no difference between batches: {p})"
    return Check(
        name="batch interference",
        verdict="fails" if any(_below(t) for t in tests) else "passes",
        parts=tests,
        settings={"outcome": outcome},
        axis="statistic of the test",
        figures=figures,
        pictures={"spread": partial(count_plot, bars, title=title)},
        sentence=_sentence(outcome, tests, floor, figures),
    )


def _labels(table: Table, batch: str | Sequence[str]) -> NDArray[Any]:
    names = [batch] if isinstance(batch, str) else list(batch)
    if not names:
        raise EstimationError("batch names no column")
    parts = [table.labels(name, role="batch").astype(str).tolist() for name in names]
    return np.array(["\0".join(row) for row in zip(*parts, strict=True)])


def _name(batch: str | Sequence[str]) -> str:
    return repr(batch) if isinstance(batch, str) else ", ".join(map(repr, batch))


def _neighbours(values: Floats, where: NDArray[Any], name: str) -> Floats:
    code = np.unique(where, return_inverse=True)[1]
    count = np.bincount(code)
    if (count == 1).all():
        raise EstimationError(f"every batch holds one trial: the neighbours' {name!r} is not defined")
    total = np.bincount(code, weights=values)
    others = count[code] - 1
    # A trial alone has no neighbour: it takes its own value, as if padded to its own length.
    return np.asarray(np.where(others > 0, (total[code] - values) / np.maximum(others, 1), values))


def _centre(y: Floats, code: Ints) -> Floats:
    """Take item means out; items whose values are equal become exactly zero."""
    out = y - (np.bincount(code, weights=y) / np.bincount(code))[code]
    return np.where(ranges(y, code)[code] > 0, out, 0.0)


def ranges(y: Floats, code: Ints) -> Floats:
    """Give the largest less the smallest value of each item."""
    k = int(code.max()) + 1
    low, high = np.full(k, np.inf), np.full(k, -np.inf)
    np.minimum.at(low, code, y)
    np.maximum.at(high, code, y)
    return np.asarray(high - low)


def _between(centred: Floats, place: Ints) -> float:
    sums = np.bincount(place, weights=centred)
    return float((sums**2 / np.bincount(place)).sum())


def _arrangements(code: Ints, draws: int, random_state: int) -> tuple[Iterator[Ints], bool]:
    """Yield orders of rows that permute within items; all of them where they are few."""
    sizes = np.bincount(code)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    if prod(factorial(int(s)) for s in sizes) <= _EXACT:
        each = [
            [np.array(p) + start for p in permutations(range(size))]
            for size, start in zip(sizes.tolist(), starts.tolist(), strict=True)
        ]
        return (np.concatenate(chosen) for chosen in product(*each)), True
    rng = generator(random_state)
    # Rows are sorted by item, so sorting by item plus a uniform number shuffles within items.
    return (np.argsort(code + rng.random(len(code)), kind="stable") for _ in range(draws)), False


def _permute(
    centred: Floats,
    code: Ints,
    place: Ints,
    slopes: Sequence[Floats],
    statistics: Sequence[float],
    draws: int,
    random_state: int,
) -> tuple[list[float], bool, int]:
    orders, exact = _arrangements(code, draws, random_state)
    size = np.bincount(place)
    scale = float(centred @ centred)
    bars = np.array(statistics) - 1e-10 * max(scale, float(np.sqrt(scale)))
    hits, done = np.zeros(len(statistics)), 0
    for order in orders:
        moved = centred[order]
        sums = np.bincount(place, weights=moved, minlength=len(size))
        values = [float((sums**2 / size).sum()), *(abs(float(moved @ z)) for z in slopes)]
        hits += np.array(values) >= bars
        done += 1
    # The arrangement seen is among all of them; of drawn ones it is counted in.
    return [h / done if exact else p_of_draws(h, done) for h in hits.tolist()], exact, done


def _components(y: Floats, code: Ints, place: Ints) -> tuple[float, float]:
    """Batch and repeat standard deviations by fitting constants: two forms and their means."""
    k, b = int(code.max()) + 1, int(place.max()) + 1
    cells = np.zeros((k, b))
    np.add.at(cells, (code, place), 1.0)
    per_item, per_batch = cells.sum(axis=1), cells.sum(axis=0)
    gram = np.diag(per_batch) - cells.T @ (cells / per_item[:, None])
    centred = _centre(y, code)
    forms = np.array([_between(centred, place), float(centred @ centred)])
    expected = np.array(
        [
            [float((gram**2 / per_batch[:, None]).sum()), float((np.diag(gram) / per_batch).sum())],
            [float(np.trace(gram)), float(len(y) - k)],
        ]
    )
    if abs(np.linalg.det(expected)) < 1e-9 * np.abs(expected).max() ** 2:
        # Batches and repeats cannot be told apart, as with one trial a batch.
        return 0.0, float(np.sqrt(forms[1] / max(len(y) - k, 1)))
    batch, repeat = np.linalg.solve(expected, forms)
    if batch < 0:
        batch, repeat = 0.0, forms[1] / (len(y) - k)
    return float(np.sqrt(batch)), float(np.sqrt(max(repeat, 0.0)))


def _below(test: Estimate) -> bool:
    return test.p_adjusted is not None and test.p_adjusted < _LEVEL


def _sentence(
    outcome: str, tests: Sequence[Estimate], floor: float | None, figures: Mapping[str, float]
) -> str:
    items, changed = figures["n_items"], figures["n_changed"]
    if not changed:
        return (
            f"All {items} items keep their {outcome!r} in {figures['n_trials']} trials in changed batches: no"
            " sign of interference between neighbours, and none of noise."
        )
    done = figures["arrangements"]
    how = f"all {done} arrangements" if figures["exact"] else f"{done} arrangements drawn"
    words = (
        f"{changed} of {items} items change their {outcome!r} between batches, by up to"
        f" {format_number(figures['largest_range'])}."
    )
    bad = [t for t in tests if _below(t)]
    if not bad:
        least = min(t.p_adjusted for t in tests if t.p_adjusted is not None)
        return words + (
            f" Permuting outcomes within items ({how}) finds no link to the batch"
            f" (p {p_words(least, least=floor)}): the changes look like noise over repeats."
        )
    found = ", ".join(
        f"{'the batch' if t.label == 'batch' else f'the neighbours mean of {t.label!r}'}"
        f" (p {p_words(t.p_adjusted, least=floor)})"
        for t in bad
    )
    return words + (
        f" Permuting outcomes within items ({how}) links the changes to {found}; batches differ by a standard"
        f" deviation of {format_number(figures['sd_batch'])}. An item's outcome is not its own: score"
        " items alone, or in fixed batches, before comparing arms."
    )
