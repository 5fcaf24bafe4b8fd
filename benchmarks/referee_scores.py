# ruff: noqa: ANN401  # programs are made elsewhere
"""How far an approximation is from exact effects, with intervals over items, and the referee's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from whyprompt.mediation import mean_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Score = tuple[float, float, float]
    Guesses = Mapping[tuple[str, str], Array]

TOP = 10
UNSIGNED = {"graddrop", "magnitude"}
NAMES = {"nie": "NIE", "pure_nie": "pure NIE"}
FORMS = {"rank": "{:.2f}", "sign": "{:.0%}", "error": "{:.2f}", "recall": "{:.0%}"}
BOUNDS = ("names at least", "right to within")
COLUMNS = ("", *FORMS, "list: median, most", "error of means", "recall of means", "passes", "s")
PASSES = {
    "exact": "2 F + a row a head",
    "attribution": "2 F + 1 B",
    "graddrop": "2 F + L (F + B)",
    "integrated 1": "2 F + L (F + B)",
    "integrated 5": "2 F + 5 L (F + B)",
    "integrated_inputs 5": "2 F + 5 (F + B)",
    "magnitude": "2 F",
    "random": "0",
}


def scored(exact: Array, guess: Array, top: int = TOP) -> dict[str, Array]:
    """Score effects, (rows, heads): one figure a row and score.

    rank: Spearman's correlation of the effects' sizes over all heads. Of the `top` heads that are exactly
    the largest: sign, the share that has the right one; error, the sum of absolute errors over the sum of
    sizes; recall, the share that is among the guess's own `top`; list, how long a list by the guess has to be
    to hold them all.
    """
    sizes, guesses = np.abs(exact), np.abs(guess)
    place = rankdata(-guesses, axis=1, method="max")
    a, b = (r - r.mean(1, keepdims=True) for r in (rankdata(sizes, axis=1), rankdata(guesses, axis=1)))
    best = np.argsort(-sizes, axis=1, kind="stable")[:, :top]
    e, g, p = (np.take_along_axis(x, best, 1) for x in (exact, guess, place))
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return {
        "rank": np.divide((a * b).sum(1), norm, out=np.zeros(len(a)), where=norm > 0),
        "sign": (np.sign(e) == np.sign(g)).mean(1),
        "error": np.abs(g - e).sum(1) / np.abs(e).sum(1),
        "recall": (p <= top).mean(1),
        "list": p.max(1).astype(float),
    }


def judged(exact: Array, guess: Array, top: int = TOP) -> dict[str, Score]:
    """Mean over the items of each item's own scores, with a bootstrap-t interval over items.

    NaN for ends that the items do not bound: there are too few, or they are all alike. Scores of mean effects
    have no interval here: of few items they are biased, rank correlations most, and percentiles of a
    bootstrap do not hold the score of many items.
    """
    out = {}
    for name, values in scored(exact, guess, top).items():
        if name not in FORMS:
            continue  # the length of a list has a tail that the mean of few items does not see
        found = mean_interval(values)
        ends = np.clip(found.ends, -1.0 if name == "rank" else 0.0, np.inf if name == "error" else 1.0)
        bounded = np.ptp(values) > 0 and np.isfinite(found.ends).all()
        low, high = ends if bounded else (np.nan, np.nan)
        out[name] = (float(values.mean()), float(low), float(high))
    return out


def coverage(exact: Array, guess: Array, *, n: int, reps: int = 200) -> dict[str, float]:
    """How often intervals of samples of `n` hold the score of all items, as if these were the population.

    And how often the ends hold that `verdict` names.
    """
    truth = {name: values.mean() for name, values in scored(exact, guess).items() if name in FORMS}
    rng, held = np.random.default_rng(1), dict.fromkeys([*FORMS, *BOUNDS], 0)
    for _ in range(reps):
        own = rng.integers(len(exact), size=n)
        found = judged(exact[own], guess[own])
        for name, (_, low, high) in found.items():
            held[name] += not (truth[name] < low or truth[name] > high)  # no end holds all
        held["names at least"] += not truth["recall"] < found["recall"][1]
        held["right to within"] += not truth["error"] > found["error"][2]
    return {name: count / reps for name, count in held.items()}


# ---- the page ------------------------------------------------------------------------------------

HEAD = """\
# The referee: how far approximations of patching are right

Made by `python benchmarks/referee.py --coverage --write docs/explanation/referee.md`. A sweep of
whyprompt gives the exact effect of every head, so it can say how far a guess is off. The guesses are
written anew in `benchmarks/referee_methods.py`, in plain torch, and held to finite differences in
`tests/test_referee.py`:

- `attribution`: attribution patching (Nanda 2023), the gradient by the head's output *z* times the
  difference of *z*;
- `graddrop`: its mean size over backward passes that leave out one layer each (AtP*, Kramár et al.
  2024); no sign;
- `integrated m`: the mean of *m* gradients between the two values of a layer's *z* (Hanna et al. 2024,
  activations);
- `integrated_inputs m`: the mean of *m* gradients between the prompts' embeddings (EAP-IG, Hanna et al.
  2024), which needs prompts of one length;
- `magnitude`: how far *z* moves; `random`: drawn numbers.

All are of one mediator, *z* at the answer positions, and of the log-probability of the whole gold
answer. Of AtP*'s two parts the QK fix concerns queries and keys; at *z* there is nothing to mend, and it
is judged on queries below.
"""
SCORES = """\
Scores of each item, their means over the items with 95% bootstrap-t intervals; none where the items do
not bound it. *rank*: Spearman's correlation of the sizes of all heads. Of the {top} heads that are
exactly the largest on an item: *sign*, the share that has the right one; *error*, the sum of absolute
errors over the sum of sizes; *recall*, the share that is among the guess's own {top}; *list*, how many
heads the guess has to name until all {top} are among them, the median and the most of these items.
*error of means* and *recall of means* are of the mean effects over these items, and say nothing of other
items. *s*: processor seconds an item on one thread, both prompts included; a guess runs the answer
positions only where it can, as the sweep does. *passes*, as the method is written: F forward, B
backward, L layers. `magnitude` is little more than the two forward passes by torch's own products, which
every guess pays for; the sweep packs them and multiplies by faster routines.
"""
SHORT = """\
The worst of the contrasts below, with 97.5% confidence each, on the average over items: what share of an
item's {top} largest heads a guess names among its own {top}, how far it is off on them (of the sum of
their sizes), and what it costs. How often those of `attribution` hold is counted at the end of this
page. What a guess costs is of this model, whose answers are short: the exact sweep runs a row a head, and
each row is as long as the answer.
"""


def figure(value: Score, form: str = "{:.2f}") -> str:
    one, low, high = (form.format(v) for v in value)
    return f"{one} ({low} to {high})" if np.isfinite(value[1:]).all() else one


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows), ""]


def verdict(method: str, found: Mapping[str, Score], ratio: float) -> str:
    """Say what an approximation is good for on an item, by the worse ends of its intervals."""

    def least(name: str, end: int, words: str) -> str:
        bound = found[name][end]
        if np.isfinite(bound):
            return f"{words} {bound:.0%}"
        return f"{found[name][0]:.0%} (which these items do not bound)"

    text = f"names {least('recall', 1, 'at least')} of an item's {TOP} largest heads"
    if method not in UNSIGNED:
        text += f", gives {least('sign', 1, 'at least')} of them the right sign"
        text += f", and is right to within {least('error', 2, '').strip()}"
    return f"{text}; it costs {ratio:.1f} times the exact sweep"


def lists(exact: Array, guess: Array) -> str:
    lengths = scored(exact, guess)["list"]
    return f"{np.median(lengths):.0f}, {lengths.max():.0f}"


def in_short(
    arrays: Mapping[str, Mapping[tuple[str, str], Array]],
    seconds: Mapping[str, Mapping[tuple[str, str], float]],
) -> list[str]:
    """One row a guess: the worst of its bounds over the contrasts, and what it costs."""
    rows = []
    for method in PASSES:
        if method in {"exact", "random"} or not any((method, "nie") in own for own in arrays.values()):
            continue
        cells: list[object] = [f"`{method}`"]
        ratios = []
        for quantity in NAMES:
            bounds = []
            for contrast, own in arrays.items():
                if (method, quantity) not in own:
                    continue
                found = judged(own["exact", quantity], own[method, quantity])
                bounds.append((found["recall"][1], found["error"][2]))
                spent = seconds[contrast]
                ratios.append(spent[method, quantity] / spent["exact", quantity])
            recall, error = np.array(bounds).T
            cells.append(f"{recall.min():.0%}" if np.isfinite(recall).all() else "-")
            shown = method not in UNSIGNED and np.isfinite(error).all()
            cells.append(f"{error.max():.0%}" if shown else "-")
        span = f"{min(ratios):.1f} to {max(ratios):.1f}"
        rows.append([*cells, span])
    head = ["", "NIE: names at least", "is right to within", "pure NIE: names at least", "is right to within"]
    return table([*head, "times the exact sweep's seconds"], rows)


def contrast_section(
    what: str, arrays: Mapping[tuple[str, str], Array], seconds: Mapping[tuple[str, str], float], te: Array
) -> list[str]:
    """Tables and verdicts of one contrast."""
    n, heads = next(iter(arrays.values())).shape
    out = [f"{what} {n} items, {heads} heads, a mean total effect of {te.mean():.2f} nats.", ""]
    for quantity, name in NAMES.items():
        exact, whole = arrays["exact", quantity], seconds["exact", quantity]
        rows: list[list[object]] = [
            ["exact", 1, "100%", 0, "100%", f"{TOP}, {TOP}", 0, "100%", PASSES["exact"], f"{whole:.2f}"]
        ]
        words = []
        for method, passes in PASSES.items():
            if method == "exact" or (method, quantity) not in arrays:
                continue
            guess, cost = arrays[method, quantity], seconds[method, quantity]
            found, drawn = judged(exact, guess), method == "random"
            means = {k: float(v[0]) for k, v in scored(exact.mean(0)[None], guess.mean(0)[None]).items()}
            cells = {key: figure(found[key], form) for key, form in FORMS.items()}
            cells["list"] = lists(exact, guess)
            cells |= {"mean error": f"{means['error']:.2f}", "mean recall": f"{means['recall']:.0%}"}
            if method in UNSIGNED:
                cells["sign"] = "-"
            if method in UNSIGNED or drawn:
                cells["error"] = cells["mean error"] = "-"
            rows.append([f"`{method}`", *cells.values(), passes, "0" if drawn else f"{cost:.2f}"])
            if not drawn:
                words.append(f"- `{method}` {verdict(method, found, cost / whole)}.")
        out += [f"**{name}**", "", *table(COLUMNS, rows)]
        out += ["With 97.5% confidence each, on the average over items:", "", *words, ""]
    return out


def query_section(
    arrays: Mapping[tuple[str, str, str], Array], seconds: Mapping[tuple[str, str], float]
) -> list[str]:
    """The query of a head as mediator: the linear guess, and with the attention row computed anew."""
    rows = []
    for contrast in dict.fromkeys(key[0] for key in arrays):
        exact = arrays[contrast, "query_exact", "nie"]
        for method, words in (("query_attribution", "linear"), ("query_fixed", "with the QK fix")):
            found = judged(exact, arrays[contrast, method, "nie"])
            rows.append(
                [
                    f"`{contrast}`",
                    words,
                    *(figure(found[name], form) for name, form in FORMS.items()),
                    lists(exact, arrays[contrast, method, "nie"]),
                    f"{seconds[contrast, method]:.2f}",
                    f"{seconds[contrast, 'query_exact']:.2f}",
                ]
            )
    return table(["contrast", "guess", *FORMS, "list: median, most", "s", "s, exact"], rows)


def program_rows(
    program: Any, guesses: Mapping[tuple[str, str], Array], methods: Sequence[str]
) -> list[list[object]]:
    """One row a head that is part of the program."""
    rows: list[list[object]] = []
    for quantity, name in NAMES.items():
        truth = program.grid(quantity)
        for head in named_heads(program):
            cells = [f"{guesses[m, quantity][head]:.2f}".replace("-0.00", "0.00") for m in methods]
            rows.append([f"`{program.name}`", name, f"{head[0]}.{head[1]}", f"{truth[head]:.2f}", *cells])
    return rows


def named_heads(program: Any) -> list[tuple[int, int]]:
    return sorted({*program.nie, *program.pure_nie})


def of_others(program: Any, guesses: Guesses) -> float:
    """Largest guess for a head that is no part of the program."""
    others = np.ones(program.grid("nie").shape, dtype=bool)
    others[tuple(np.array(named_heads(program)).T)] = False
    return max(float(np.abs(values[others]).max()) for values in guesses.values())
