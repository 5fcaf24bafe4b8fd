"""From the estimates of `yardsticks.py` to its tables and its page, in Markdown."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from yardsticks_data import EXPERIMENT, ITEMS, RULES, SAMPLES, SIMULATED, Places, questions
from yardsticks_hidden import hidden
from yardsticks_peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Record = dict[str, Any]

# On all 385 sets of the challenge: RMSE in standard deviations of the outcome, and coverage.
WHOLE_CHALLENGE = {
    "BART on the score": (0.013, 0.91),
    "BART-TMLE": (0.015, 0.93),
    "BART": (0.016, 0.81),
    "targeted learning with a super learner": (0.051, 0.86),
    "super learner": (0.055, 0.83),
    "stratified trees": (0.063, 0.87),
    "covariate balancing score": (0.114, 1.00),
    "propensity matching": (0.118, 0.46),
    "linear model": (0.132, 0.23),
    "inverse weights": (0.202, 0.39),
}
OTHERS = {"out4": "CPS", "out5": "PSID", "out6": "CPS, trimmed", "out7": "PSID, trimmed"}
TITLES = {
    "out1": "experiment",
    "out2": "experiment, trimmed as CPS",
    "out3": "experiment, trimmed as PSID",
    **OTHERS,
}
COIN = "coin"
CLAIMS = "claims one"
THEIRS = " (published)"
HEAD = """\
# Yardsticks: our estimates in the field's tables

Made by `python benchmarks/yardsticks.py --write`, which reads data with a known truth or a published table
and estimates each by `estimate_effect(frame, treatment=, outcome=, confounders=)`. In bold type whyprompt
{version}: {own}. **default** names no method. {peers}Every estimate was made in a process with one thread;
seconds are the processor's. What nobody reports stands as a dash.
"""
HONESTY = """\
## Misses that nothing flags, and refusals without need

A miss is unflagged where the 95% interval misses the truth, the sentence does not decline, and no
assumption is said to fail or to be doubtful. Of 95% intervals 5% may miss.
"""
ACIC = """\
{n} data sets of 4,802 rows, 58 covariates with their rare levels; the effect on the treated of the set
itself (SATT), errors in standard deviations of the outcome. An interval of ours is for the population's
effect and may be longer than the set's own would be. `overlap` and `naive` answer other questions and are
held to the SATT all the same. Data and published estimates: Dorie, Hill, Shalit, Scott and Cervone (2019),
Statistical Science 34, 43-68.
"""
ACIC_END = """\
An RMSE of at most .0135 with a coverage of at least 93% is reached by {both} on these sets. On all 385 sets
of the challenge (RMSE, coverage):
"""
REALCAUSE = """\
The published error of an estimator is the root of its mean squared distance from the generator's ATE over
samples drawn from it. Ours is the same over the samples here, which are few: the ATE is taken to be the
mean of all their y1 - y0. The ATT is that of each sample. Data and published estimators: Neal, Huang and
Raghupathi (2020), arXiv:2011.15007.
"""
REALCAUSE_ATE = """\
The ATE asks what thousands of survey rows would have earned under a programme whose fewer than 200 rows are
hardly like any of them. It rests on what a model says where there are no rows, and moves far from sample to
sample: of the default's {n} estimates {declined} decline, as overlap fails. The best published is the best of
some 500 by this very truth, and nothing in the data names it.
"""
LALONDE = """\
The treated of a randomised job-training programme, beside its own controls and beside those of two surveys,
as they are and trimmed to where the arms overlap; in dollars, with 95% intervals. The covariates are those
of the published table. Data and published estimates: Imbens and Xu (2024), LaLonde (1986) after nearly four
decades: lessons learned.
"""
PROMPTS = """\
*simulated*: {items:,} questions drawn from {pool:,} real ones (GSM8K and thirteen tasks of Natural
Instructions; their lengths, numbers and difficulty), a right or wrong answer drawn from a made-up law in
which families differ, and examples help most at middle difficulty. Truth and interval are of the pool. The
others are items of a study that ran both arms, {studies}, of which one arm each is kept; the truth is that
of the very items, so that intervals, which count the sampling of items, should cover more than 95%. All
adjust for the same under every rule: family, difficulty, length and one more column.

An entry is held to the truth of the rows that its sentence speaks of. *claims*: the sentence calls it an
effect and the interval excludes 0. *declines*: it says that the difference may not be claimed, or gives
nothing. *misses unflagged*: the interval misses, and no assumption is said to fail or to be doubtful.
"""


# ------------------------------------------------------------------------------------------------ scores


def truth(one: Record) -> float | None:
    """Give the truth that an estimate claims to be near: that of its rows, else that of its estimand."""
    own = one.get("own")
    value = one.get("truths", {}).get(one.get("estimand")) if own is None else own
    return None if value is None else float(value)


def misses(one: Record, target: float | None) -> bool | None:
    """Say whether the interval misses; None where there is no interval, or no truth."""
    low, high = one.get("low"), one.get("high")
    if target is None or low is None or high is None or np.isnan(low) or np.isnan(high):
        return None
    return not low <= target <= high


def said(one: Record) -> str:
    """Say what is made of an estimate: an effect, by an interval without zero that no sentence takes back."""
    if one.get("estimate") is None:
        return "-"
    if one.get("declines"):
        return "declines"
    return {None: "no interval", True: CLAIMS, False: "covers 0"}[misses(one, 0.0)]


def silent(one: Record) -> bool:
    """Say whether an estimate's interval misses its own truth, and nothing told of an estimate warns."""
    return bool(misses(one, truth(one))) and not one.get("declines") and not one.get("flags")


def score(
    records: Sequence[Record], targets: Sequence[float | None], units: Sequence[float] | None = None
) -> dict[str, float]:
    """Hold estimates to their targets, in units of each: bias, RMSE, median error, coverage, and shares."""
    units = [1.0] * len(records) if units is None else units
    held = [
        (r, t, u) for r, t, u in zip(records, targets, units, strict=True) if r.get("estimate") is not None
    ]
    errors = np.array([(r["estimate"] - t) / u for r, t, u in held if t is not None])
    missed = np.array([m for r, t, _ in held if (m := misses(r, t)) is not None], dtype=float)
    n, nan = len(records), float("nan")
    cover = 1 - missed.mean() if len(missed) else nan
    # Two more of each: that all of a few cover leaves an error too.
    near = ((1 - missed).sum() + 2) / (len(missed) + 4)
    seconds = [r["seconds"] for r in records if "seconds" in r and "failed" not in r]
    return {
        "n": n,
        "bias": float(errors.mean()) if len(errors) else nan,
        "bias_error": float(errors.std(ddof=1) / np.sqrt(len(errors))) if len(errors) > 1 else nan,
        "rmse": float(np.sqrt(np.mean(errors**2))) if len(errors) else nan,
        "median": float(np.median(np.abs(errors))) if len(errors) else nan,
        "coverage": cover,
        "coverage_error": float(np.sqrt(near * (1 - near) / (len(missed) + 4))) if len(missed) else nan,
        "claims": float(np.mean([said(r) == CLAIMS for r, *_ in held])) if len(missed) else nan,
        "declines": sum(bool(r.get("declines")) or "failed" in r for r in records) / n,
        "silent": sum(silent(r) for r, *_ in held) / n,
        "failed": 1 - len(held) / n,
        "seconds": float(np.mean(seconds)) if seconds else nan,
    }


# ------------------------------------------------------------------------------------------------- words


def number(value: float | None, digits: int = 3) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:,.{digits}f}"


def share(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.0%}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    line = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return [*line, ""]


def shown(entry: str) -> str:
    """Write whose an entry is: ours in bold type, others by their names."""
    return (
        entry
        if entry in PEERS or entry.endswith(THEIRS)
        else "**default**"
        if entry == "default"
        else f"**`{entry}`**"
    )


def by_entry(records: Sequence[Record]) -> dict[str, list[Record]]:
    out: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        out[one["entry"]].append(one)
    return out


def failures(records: Sequence[Record]) -> list[str]:
    """Say what failed and why, the commonest reason of each entry."""
    out = []
    for entry, group in by_entry(records).items():
        reasons = [str(one["failed"]) for one in group if "failed" in one]
        if reasons:
            most = max(set(reasons), key=reasons.count)
            out.append(f"{shown(entry)} gave nothing in {len(reasons)} of {len(group)}: {most[:200]}")
    return [f"- {line}" for line in out] + ([""] if out else [])


# ------------------------------------------------------------------------------------------------ tables


def acic2016(records: Sequence[Record], places: Places) -> list[str]:
    folder = places.data / "acic2016"
    known = pd.read_csv(folder / "truth.csv").set_index("row")
    rows = sorted({int(one["case"][1:3]) for one in records})
    published = pd.read_csv(folder / "published_estimates.csv").query("row in @rows")
    groups = by_entry(records)
    for method, group in published.groupby("method"):
        groups[f"{method}{THEIRS}"] = [
            {"case": f"p{row:02d}", "estimate": None if np.isnan(satt) else satt, "low": low, "high": high}
            for row, satt, low, high in group[["row", "satt", "lower", "upper"]].itertuples(index=False)
        ]

    def held(here: Sequence[Record]) -> dict[str, float]:
        at = [int(one["case"][1:3]) for one in here]
        return score(here, known.loc[at, "satt_y"].tolist(), known.loc[at, "sd_y"].tolist())

    # What was run on some of the sets alone is held to the others on these.
    some = {entry for entry, here in groups.items() if len(here) < len(rows)}
    lines = {entry: held(here) for entry, here in groups.items() if entry not in some}
    # An entry that refuses some sets is not ranked with those that answer on all.
    ranked = sorted(lines, key=lambda name: (lines[name]["failed"], lines[name]["rmse"]))
    theirs = [name for name in ranked if name.endswith(THEIRS)]
    cells = [
        [
            "-" if one["failed"] else str(rank),
            shown(name),
            number(one["rmse"], 4),
            share(one["coverage"]),
            number(one["median"], 4),
            *(
                ["-", "-"]
                if name in theirs or name in PEERS
                else [share(one["silent"]), share(one["declines"])]
            ),
            share(one["failed"]),
            number(one["seconds"], 1),
        ]
        for rank, (name, one) in enumerate(((name, lines[name]) for name in ranked), 1)
    ]
    both = [
        n.removesuffix(THEIRS)
        for n in theirs
        if lines[n]["rmse"] <= 0.0135 and lines[n]["coverage"] >= 0.93 and not lines[n]["failed"]
    ]
    return [
        ACIC.format(n=len(rows)),
        *table(
            (
                *("rank", "entry", "RMSE", "coverage", "median error"),
                *("misses unflagged", "declines", "failed", "s"),
            ),
            cells,
        ),
        *failures(records),
        *_on_some(groups, some, held),
        ACIC_END.format(both=", ".join(both) or "no published method"),
        *table(
            ("published method", "RMSE", "coverage"),
            [[name, number(rmse), share(cover)] for name, (rmse, cover) in WHOLE_CHALLENGE.items()],
        ),
    ]


def _on_some(
    groups: Mapping[str, list[Record]],
    some: set[str],
    held: Callable[[Sequence[Record]], dict[str, float]],
) -> list[str]:
    """Hold entries that were run on some of the sets to all others on those that they share."""
    if not some:
        return []
    sets = set.intersection(*({one["case"][:3] for one in groups[entry]} for entry in some))
    lines = {
        entry: held([one for one in here if one["case"][:3] in sets])
        for entry, here in groups.items()
        if entry in some or entry in PEERS or entry == "default" or entry.startswith("bart")
    }
    cells = [
        [
            *(shown(name), number(one["rmse"], 4), share(one["coverage"])),
            *(number(one["median"], 4), number(one["seconds"], 1)),
        ]
        for name, one in sorted(lines.items(), key=lambda pair: pair[1]["rmse"])
    ]
    who = "; ".join(map(shown, sorted(some)))
    text = f"On {len(sets)} of these sets, on which alone some were run ({who}; settings in"
    return [
        text,
        "`benchmarks/yardsticks_peers.py`):",
        "",
        *table(("entry", "RMSE", "coverage", "median error", "s"), cells),
    ]


def lalonde(records: Sequence[Record], places: Places) -> list[str]:
    published = pd.read_csv(places.data / "lalonde" / "published_estimates.csv")
    groups = {f"{r['case']}/{r['entry']}": r for r in records}
    for name, sample, method, estimate, low, high in published[
        ["table", "sample", "method", "Estimate", "CI_lower", "CI_upper"]
    ].itertuples(index=False):
        outcome = "re75" if name.endswith("placebo") else "re78"
        groups[f"{outcome}/{sample}/{method}{THEIRS}"] = {"estimate": estimate, "low": low, "high": high}
    entries = list(dict.fromkeys([*(r["entry"] for r in records), *(published["method"] + THEIRS)]))
    out = [LALONDE]
    for outcome, title in (
        ("re78", "### Earnings in 1978: the experiment knows the effect"),
        ("re75", "### The placebo: earnings in 1975, before the programme, on which its effect is 0"),
    ):
        cells = [
            [
                shown(entry),
                *(_interval(groups.get(f"{outcome}/{sample}/{entry}")) for sample in SAMPLES),
            ]
            for entry in entries
        ]
        out += [title, "", *table(("entry", *(TITLES[s] for s in SAMPLES)), cells)]
    cells = []
    for entry in entries:
        inside = []
        for sample in ("out6", "out7"):
            one, trusted = (
                groups.get(f"re78/{sample}/{entry}"),
                groups[f"re78/{EXPERIMENT[sample]}/diff{THEIRS}"],
            )
            got = None if one is None or one.get("estimate") is None else misses(trusted, one["estimate"])
            inside.append("-" if got is None else "no" if got else "yes")
        placebo = [said(groups.get(f"re75/{sample}/{entry}", {})) for sample in OTHERS]
        cells.append([shown(entry), *inside, *placebo])
    head = ["entry", *(f"{OTHERS[s]}: inside the experiment's interval" for s in ("out6", "out7"))]
    head += [f"{title}: placebo" for title in OTHERS.values()]
    out += ["### What is claimed", "", *table(head, cells), *failures(records)]
    mine = [r for r in records if r["case"] == "re78/out7" and r["entry"] not in PEERS]
    known = groups[f"re78/{EXPERIMENT['out7']}/diff{THEIRS}"]["estimate"]
    held = sum(misses(one, known) is False for one in mine)
    claimed = sum(said(one) == CLAIMS for one in mine)
    text = f"Of {len(mine)} intervals of ours on {OTHERS['out7']}, {held} hold the experiment's estimate"
    return [*out, f"{text}, and {claimed} claim an effect.", "", *hidden(places)]


def _interval(one: Record | None) -> str:
    if one is None or one.get("estimate") is None:
        return "failed" if one else "-"
    low, high = one.get("low"), one.get("high")
    ends = "" if low is None or high is None else f" ({low:,.0f} to {high:,.0f})"
    return f"{one['estimate']:,.0f}{ends}{'; declines' if one.get('declines') else ''}"


def realcause(records: Sequence[Record], places: Places) -> list[str]:
    published = pd.read_csv(places.data / "realcause" / "published_estimators.csv.gz").dropna(
        subset=["ate_rmse"]
    )
    out = [REALCAUSE]
    ours = [one for one in records if one["entry"] == "default" and one["case"].endswith("/ate")]
    if ours:
        declined = sum(bool(one.get("declines")) for one in ours)
        out.append(REALCAUSE_ATE.format(n=len(ours), declined=declined))
    for data in ("lalonde_psid", "lalonde_cps"):
        theirs = published[published["dataset"] == data]
        here = [one for one in records if one["case"].startswith(data)]
        lines = []
        for entry, group in by_entry(here).items():
            first, second = (
                score(part, [one["truths"].get(name) if _asked(one, name) else None for one in part])
                for name in ("ate", "att")
                for part in [[one for one in group if one["case"].endswith(f"/{name}")]]
            )
            better = int((theirs["ate_rmse"] < first["rmse"]).sum())
            rank = "-" if not np.isfinite(first["rmse"]) else f"{better + 1}"
            lines.append(
                (
                    first["rmse"],
                    [
                        shown(entry),
                        number(first["rmse"], 0),
                        number(first["bias"], 0),
                        share(first["coverage"]),
                        rank,
                        number(second["rmse"], 0),
                        share(second["coverage"]),
                        number(first["seconds"], 1),
                    ],
                )
            )
        for name, rows in theirs.sort_values("ate_rmse").groupby("meta-estimator"):
            best = rows.iloc[0]
            which = (
                best["outcome_model"] if isinstance(best["outcome_model"], str) else best["prop_score_model"]
            )
            cells = [f"{name}, {which} (best of {len(rows)} published)", number(best["ate_rmse"], 0)]
            rank = str(int((theirs["ate_rmse"] < best["ate_rmse"]).sum()) + 1)
            lines.append((best["ate_rmse"], [*cells, number(best["ate_bias"], 0), "-", rank, "-", "-", "-"]))
        lines.sort(key=lambda line: (not np.isfinite(line[0]), line[0]))
        samples = len({one["case"].split("/")[0] for one in here})
        out += [
            f"### {data}: {samples} samples, {len(theirs)} published estimators",
            "",
            *table(
                (
                    "entry",
                    "ATE: RMSE",
                    "bias",
                    "coverage",
                    "rank among the published",
                    "ATT: RMSE",
                    "coverage",
                    "s",
                ),
                [cells for _, cells in lines],
            ),
            *failures(here),
        ]
    return out


def _asked(one: Record, estimand: str) -> bool:
    """Say whether an estimate is of what was asked for: some methods answer one question alone."""
    return one.get("estimand") == estimand


def prompts(records: Sequence[Record], places: Places) -> list[str]:
    sizes: dict[str, int] = {}
    for one in records:
        log = one["case"].split("/")[0]
        sizes[log] = max(sizes.get(log, 0), one.get("rows", 0))
    studies = (
        ", ".join(f"*{log}* ({n:,} items)" for log, n in sizes.items() if log != SIMULATED) or "none here"
    )
    pool = len(questions(places.questions))
    out = [PROMPTS.format(items=ITEMS, pool=pool, studies=studies)]
    for log in sizes:
        for rule in RULES:
            here = [one for one in records if one["case"].startswith(f"{log}/{rule}/")]
            if not here:
                continue
            lines = []
            for entry, group in by_entry(here).items():
                one = score(group, [truth(r) for r in group])
                asked = {r["estimand"].upper() for r in group if "estimand" in r}
                lines.append(
                    (
                        one["rmse"],
                        [
                            shown(entry),
                            str(len(group)),
                            ", ".join(sorted(asked)) or "-",
                            f"{number(one['bias'])} ({number(one['bias_error'])})",
                            number(one["rmse"]),
                            f"{share(one['coverage'])} ({share(one['coverage_error'])})",
                            share(one["claims"]),
                            share(one["declines"]),
                            "-" if entry in PEERS else share(one["silent"]),
                            share(one["failed"]),
                            number(one["seconds"], 2),
                        ],
                    )
                )
            lines.sort(key=lambda line: (not np.isfinite(line[0]), line[0]))
            head = ("entry", "logs", "estimand", "bias", "RMSE", "coverage", "claims", "declines")
            out += [
                f"### {log}, arm by {rule} (in brackets the Monte Carlo error)",
                "",
                *table((*head, "misses unflagged", "failed", "s"), [cells for _, cells in lines]),
                *failures(here),
            ]
    return out


_COIN, _LOGS = "coin-flip logs", "confounded logs"
_PARTS = ("ACIC 2016", "RealCause", "LaLonde's placebo", _LOGS, _COIN, "")


def _part(one: Record) -> str:
    """Say where a miss is counted; earnings in 1978 have no truth but another estimate."""
    if one["yard"] == "prompts":
        return _COIN if f"/{COIN}/" in one["case"] else _LOGS
    placebo = "LaLonde's placebo" if one["case"].startswith("re75/") else ""
    return {"acic2016": "ACIC 2016", "realcause": "RealCause", "lalonde": placebo}[one["yard"]]


def honesty(records: Sequence[Record]) -> list[str]:
    """Count, for each of our entries, what nothing flags and what is refused without need."""
    cells = []
    for entry, group in by_entry(records).items():
        if entry in PEERS:
            continue
        parts: dict[str, list[Record]] = {name: [] for name in _PARTS}
        for one in group:
            parts[_part(one)].append(one)
        missed = [np.mean([silent(one) for one in part]) if part else np.nan for part in parts.values()]
        refused = [
            score(parts[name], [None] * len(parts[name]))["declines"] if parts[name] else np.nan
            for name in (_COIN, _LOGS)
        ]
        cells.append([shown(entry), *(share(float(value)) for value in (*missed[:-1], *refused))])
    head = ["entry", *(f"misses unflagged: {name}" for name in _PARTS[:-1])]
    head += [f"declines: {_COIN} (false refusals)", f"declines: {_LOGS}"]
    return table(head, cells)


SECTIONS = {
    "acic2016": ("The 2016 data challenge", acic2016),
    "lalonde": ("LaLonde after four decades", lalonde),
    "realcause": ("RealCause", realcause),
    "prompts": ("Prompt logs with the truth from both arms", prompts),
}


def page(
    records: Sequence[Record],
    places: Places,
    *,
    notes: Mapping[str, str],
    entries: Sequence[str],
    skipped: Mapping[str, str],
) -> str:
    """Write the page; it says no more than its tables."""
    own = [shown(entry) for entry in entries if entry not in PEERS]
    peers = f"Other libraries, run on the same data here: {notes['peers']}. " if notes["peers"] else ""
    out = [HEAD.format(version=notes["whyprompt"], own=", ".join(own), peers=peers)]
    out += [HONESTY, *honesty(records)] if records else []
    for yard, (title, section) in SECTIONS.items():
        here = [one for one in records if one["yard"] == yard]
        if here:
            out += [f"## {title}", "", *section(here, places)]
        elif yard in skipped:
            out += [f"## {title}", "", "Not measured: its data were not there.", ""]
    return "\n".join(out).rstrip()
