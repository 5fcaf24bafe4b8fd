# ruff: noqa: ANN401  # a model ships no type
"""How far approximations of patching are right, judged by exact effects: docs/explanation/referee.md.

Attribution patching, GradDrop and the QK fix of AtP*, integrated gradients between activations and between
inputs, the size of the difference, and lists of heads, on the embedded model over several contrasts of
prompts, and on small models compiled from programs, where the truth is known in closed form.

    python benchmarks/referee.py --coverage --write docs/explanation/referee.md
    python benchmarks/referee.py --contrasts names --items 16
    python benchmarks/referee.py --contrasts              # the compiled programs alone: seconds
    python benchmarks/referee.py --heads lists.json       # {"name": [[14, 1], ...]}: lists of your own
    python benchmarks/referee.py --contrasts names --items 60 --guesses attribution --coverage

Contrasts: `names` swaps two names (prompts of one length), `worked` inserts the last line of a worked
solution, `examples` puts three solved examples before the question. What was measured is a line each of
`--keep`, and a run that was stopped goes on where it was; lines of another engine are not read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import referee_methods as methods
import torch
from coverage_heads import task_pairs
from referee_models import programs
from referee_scores import (
    BOUNDS,
    FORMS,
    HEAD,
    NAMES,
    SCORES,
    SHORT,
    TOP,
    UNSIGNED,
    contrast_section,
    coverage,
    figure,
    in_short,
    of_others,
    program_rows,
    query_section,
    table,
)

from whyprompt import head_sweep, load_model, pair_from_text, set_sweep
from whyprompt.mediation.intervals import share_interval

ROOT = Path(__file__).parents[1]
CONTRASTS = {
    "names": """\
Who gave, so who got: one name is swapped for the other ("When Mary and John went to the park, John gave
a ring to" against "..., Mary gave a ring to", the answer " Mary"); prompts of one length.""",
    "worked": """\
A grade-school question with the last line of its worked solution inserted, against the question alone.""",
    "examples": """\
Three solved examples before a question that counts letters, against the question alone.""",
}
PEOPLE = ("Mary", "John", "Tom", "James", "Sarah", "Anna", "Paul", "Mark", "Lisa", "Peter", "David", "Emma")
PLACES = ("store", "park", "school", "office", "library", "station")
THINGS = ("drink", "book", "key", "ring", "letter", "gift")
QUERIES = ("query_exact", "query_attribution", "query_fixed")
Lines = list[dict[str, Any]]
Heads = list[tuple[int, int]]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- pairs -----------------------------------------------------------------------------------------


def names_pairs(lm: Any, n: int) -> list[Any]:
    tokenizer = lm.codec.tokenizer
    people = [p for p in PEOPLE if len(tokenizer.encode(" " + p, add_special_tokens=False)) == 1]
    rng = np.random.default_rng(7)
    out: list[Any] = []
    seen: set[str] = set()
    while len(out) < n:
        who = [str(p) for p in rng.permutation(people)[:2]]
        place, thing = str(rng.choice(PLACES)), str(rng.choice(THINGS))
        text = f"When {who[0]} and {who[1]} went to the {place},"
        got, gave = who if rng.random() < 0.5 else who[::-1]
        if (name := f"{got} {gave} {place} {thing}") in seen:
            continue
        seen.add(name)
        ends = [f"{text} {giver} gave a {thing} to" for giver in (got, gave)]
        out.append(
            pair_from_text(
                tokenizer,
                item_id=name,
                prompt0=[("text", ends[0])],
                prompt1=[("text", ends[1])],
                answer=f" {got}",
            )
        )
    return out


def worked_pairs(_: Any, n: int) -> list[Any]:
    from sweep import make_pairs

    from whyprompt.mediation import PromptPair
    from whyprompt.trials.models.locate import locate_model

    folder, _ = locate_model("embedded")
    return [
        PromptPair(item_id=str(i), ids0=p["ids0"], ids1=p["ids1"], answer_ids=p["answer"])
        for i, p in enumerate(make_pairs(folder, n, 86))
    ]


def examples_pairs(lm: Any, n: int) -> list[Any]:
    return task_pairs(lm, "letter_counting", n)


PAIRS = {"names": names_pairs, "worked": worked_pairs, "examples": examples_pairs}


# ---- measuring -------------------------------------------------------------------------------------


def stamp() -> str:
    """Name the code that the figures come from."""
    files = sorted((ROOT / "src" / "whyprompt" / "mediation" / "engine").glob("*.py"))
    files.append(Path(methods.__file__))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def timed(work: Any) -> tuple[Any, float]:
    began = time.process_time()
    return work(), time.process_time() - began


WAYS: dict[str, Any] = {
    "attribution": lambda m, b, s, _: methods.attribution(m, b, s),
    "graddrop": lambda m, b, s, _: methods.graddrop(m, b, s),
    "integrated 1": lambda m, b, s, _: methods.integrated(m, b, s, 1),
    "integrated 5": lambda m, b, s, _: methods.integrated(m, b, s, 5),
    "integrated_inputs 5": lambda m, b, s, ids: methods.integrated_inputs(m, b, s, ids, 5),
    "magnitude": lambda m, b, s, _: methods.magnitude(m, b, s),
    "random": lambda m, b, _, ids: np.random.default_rng(ids[0]).normal(size=(len(b.z), methods.heads_of(m))),
    "query_exact": lambda m, b, s, _: methods.query_exact(m, b, s),
    "query_attribution": lambda m, b, s, _: methods.query_attribution(m, b, s),
    "query_fixed": lambda m, b, s, _: methods.query_fixed(m, b, s),
}


def guesses(model: Any, pair: Any, ways: list[str]) -> list[tuple[str, str, Any, float]]:
    """Give (method, quantity, values by head, processor seconds) of one item."""
    ids = (tuple(pair.ids0), tuple(pair.ids1))
    worlds, reading = timed(lambda: [methods.read(model, one, pair.answer_ids) for one in ids])
    out = []
    for quantity, at in (("nie", 1), ("pure_nie", 0)):
        for name in ways:
            way = WAYS[name]
            if name in QUERIES and quantity != "nie":
                continue
            given = model, worlds[at], worlds[1 - at], (ids[at], ids[1 - at])
            values, seconds = timed(lambda way=way, given=given: way(*given))
            # An NIE is what is lost by the patch, a pure NIE what is won.
            signed = -values if quantity == "nie" and name not in UNSIGNED else values
            out.append((name, quantity, signed, reading + seconds))
    return out


def can(way: str, pair: Any) -> bool:
    """Whether a way has anything to say of a pair."""
    return not way.startswith("integrated_inputs") or len(pair.ids0) == len(pair.ids1)


def known_as(pair: Any) -> str:
    """Name an item by what is run of it."""
    prompts = repr((tuple(pair.ids0), tuple(pair.ids1), tuple(pair.answer_ids)))
    return f"{pair.item_id} {hashlib.sha256(prompts.encode()).hexdigest()[:8]}"


def measure(
    lm: Any, contrast: str, pairs: list[Any], ways: list[str], *, keep: Path | None, known: Lines
) -> Lines:
    """Measure what is not known of a contrast: exact effects of all its items, and the guesses of each."""
    mark = {"stamp": stamp(), "contrast": contrast}
    names = [known_as(pair) for pair in pairs]
    of_these = {*ways, "exact", "te"}
    mine = [line for line in known if line["contrast"] == contrast and line["item"] in names]
    mine = [line for line in mine if line["method"] in of_these]
    have = {(line["item"], line["method"], line["quantity"]) for line in mine}

    def add(item: str, method: str, quantity: str, values: Any, seconds: float) -> None:
        line = mark | {"item": item, "method": method, "quantity": quantity, "cpu": seconds}
        mine.append(line | {"values": np.asarray(values).ravel().tolist()})
        if keep:
            with keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(mine[-1]) + "\n")

    for quantity in NAMES:
        new = [(n, p) for n, p in zip(names, pairs, strict=True) if (n, "exact", quantity) not in have]
        if not new:
            continue
        given = [pair for _, pair in new]
        sweep, seconds = timed(lambda q=quantity, g=given: head_sweep(lm.model, g, directions=(q,)))
        for i, (name, _) in enumerate(new):
            add(name, "exact", quantity, sweep.effect(quantity)[i], seconds / len(new))
            add(name, "te", quantity, sweep.te[i], 0.0)
    for i, (name, pair) in enumerate(zip(names, pairs, strict=True)):
        wanted = [way for way in ways if can(way, pair)]
        asked = {way: ("nie",) if way in QUERIES else tuple(NAMES) for way in wanted}
        left = [w for w in wanted if any((name, w, quantity) not in have for quantity in asked[w])]
        for one in guesses(lm.model, pair, left) if left else ():
            add(name, *one)
        if left:
            say(f"{contrast}: {i + 1} of {len(pairs)} items")
    return mine


def arrays_of(lines: Lines) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], float]]:
    """Values by method and quantity, (items, heads), and mean processor seconds an item."""
    values: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    seconds: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for line in lines:
        values[line["method"], line["quantity"]][line["item"]] = line["values"]
        seconds[line["method"], line["quantity"]][line["item"]] = line["cpu"]
    order = sorted(values["exact", "nie"])
    arrays = {key: np.array([own[item] for item in order]) for key, own in values.items()}
    return arrays, {key: float(np.mean(list(own.values()))) for key, own in seconds.items()}


# ---- lists of heads --------------------------------------------------------------------------------


def named(values: Any, heads: int, top: int = TOP) -> Heads:
    """Give the largest heads of mean effects."""
    best = np.argsort(-np.abs(values.mean(0)), kind="stable")[:top]
    return [divmod(int(i), heads) for i in best]


def joint(lm: Any, pairs: list[Any], lists: dict[str, Heads], exact: Any) -> list[list[object]]:
    """What the heads of each list carry together: joint effects over the total effect."""
    sweep = set_sweep(lm.model, pairs, lists)
    heads = methods.heads_of(lm.model)
    rows: list[list[object]] = []
    for i, (name, own) in enumerate(lists.items()):
        best = set(named(exact, heads, len(own)))
        cells = []
        for quantity in NAMES:
            part = sweep.effect(quantity)[:, i]
            cells.append(figure((part.mean() / sweep.te.mean(), *share_interval(part, sweep.te)), "{:.0%}"))
        rows.append([name, len(own), f"{len(best & set(own)) / len(own):.0%}", *cells])
    return rows


def read_lists(path: Path, shape: tuple[int, int]) -> dict[str, Heads]:
    """Read lists of heads written by hand: an object of lists of [layer, head], or one such list."""
    given = json.loads(path.read_text(encoding="utf-8"))
    given = given if isinstance(given, dict) else {path.stem: given}
    out = {}
    for name, heads in given.items():
        try:
            own = [(int(layer), int(head)) for layer, head in heads]
        except (TypeError, ValueError):
            raise SystemExit(f"{path}: {name!r} is no list of [layer, head]") from None
        outside = [h for h in own if not (0 <= h[0] < shape[0] and 0 <= h[1] < shape[1])]
        if not own or outside or len(set(own)) < len(own):
            raise SystemExit(
                f"{path}: {name!r} names {outside or 'no head, or one twice'}; the model has {shape[0]} "
                f"layers of {shape[1]} heads"
            )
        out[name] = own
    return out


# ---- the page --------------------------------------------------------------------------------------


def program_table() -> list[str]:
    """Hold the guesses to the closed forms of compiled programs, and the engine, to nine digits."""
    ways: dict[str, Any] = {
        "attribution": methods.attribution,
        "graddrop": methods.graddrop,
        **{f"integrated {k}": partial(methods.integrated, steps=k) for k in (4, 5, 64)},
    }
    rows: list[list[object]] = []
    said, rest = [], 0.0
    for program in programs():
        sweep = head_sweep(program.model, program.pairs)
        for quantity in NAMES:
            off = np.abs(sweep.grid(quantity) - program.grid(quantity)).max()
            if not off < 1e-9:
                raise SystemExit(f"{program.name}: the engine's {quantity} is off by {off:.1g}")
        pair = program.pairs[0]
        worlds = [methods.read(program.model, ids, pair.answer_ids) for ids in (pair.ids0, pair.ids1)]
        found = {}
        for name, way in ways.items():
            sign = 1 if name in UNSIGNED else -1
            found[name, "nie"] = sign * way(program.model, worlds[1], worlds[0])
            found[name, "pure_nie"] = way(program.model, worlds[0], worlds[1])
        rows += program_rows(program, found, list(ways))
        rest = max(rest, of_others(program, found))
        said.append(f"- `{program.name}`: {program.says}.")
    head = ["program", "effect", "head", "truth", *(f"`{w}`" for w in ways)]
    others = f"No other head has an effect, and no guess gives one of them more than {rest:.1g}."
    return [*said, "", *table(head, rows), others, ""]


def page(args: argparse.Namespace) -> str:
    out = [HEAD, "## Programs whose circuit is known", "", PROGRAMS, *program_table()]
    if not args.contrasts:
        return "\n".join(out).rstrip()
    lm = load_model("embedded", dtype="float32")
    lm.model.requires_grad_(False)
    shape = (len(methods.layers(lm.model)), methods.heads_of(lm.model))
    lists = read_lists(args.heads, shape) if args.heads else {}
    known = []
    if args.keep and args.keep.exists():
        lines = [json.loads(line) for line in args.keep.read_text(encoding="utf-8").splitlines()]
        known = [line for line in lines if line["stamp"] == stamp()]
    every: dict[str, Any] = {}
    spent: dict[str, Any] = {}
    tables: list[str] = []
    queries: dict[tuple[str, str, str], Any] = {}
    query_seconds: dict[tuple[str, str], float] = {}
    joints: list[str] = []
    covered: list[list[object]] = []
    elsewhere: dict[str, Any] = {}
    for contrast in args.contrasts:
        pairs = PAIRS[contrast](lm, args.items)
        arrays, seconds = arrays_of(measure(lm, contrast, pairs, args.guesses, keep=args.keep, known=known))
        te = arrays.pop(("te", "nie"))[:, 0]
        del arrays["te", "pure_nie"]
        for name in (name for name in QUERIES if name in args.guesses):
            queries[contrast, name, "nie"] = arrays.pop((name, "nie"))
            query_seconds[contrast, name] = seconds[name, "nie"]
        every[contrast], spent[contrast] = arrays, seconds
        tables += [f"### `{contrast}`", "", *contrast_section(CONTRASTS[contrast], arrays, seconds, te)]
        both = {m: np.concatenate([arrays[m, q] for q in NAMES]) for m, _ in arrays}
        own = {f"`{m}`": named(values, shape[1]) for m, values in both.items()}
        own |= {f"exact, of `{other}`": named(values, shape[1]) for other, values in elsewhere.items()}
        elsewhere[contrast] = both["exact"]
        rows = joint(lm, pairs, own | lists, both["exact"])
        joints += [f"**`{contrast}`**", "", *table(["list", "heads", "shared", "NIE", "pure NIE"], rows)]
        for quantity in NAMES if args.coverage and "attribution" in args.guesses else ():
            held = coverage(arrays["exact", quantity], arrays["attribution", quantity], n=12)
            covered.append(
                [f"`{contrast}`", NAMES[quantity], len(pairs), *(f"{v:.2f}" for v in held.values())]
            )
    out += ["## The embedded model, in short", "", SHORT.format(top=TOP), *in_short(every, spent)]
    out += ["## The embedded model, contrast by contrast", "", SCORES.format(top=TOP), *tables]
    out += ["## Lists of heads", "", LISTS.format(top=TOP), *joints]
    if set(QUERIES) <= set(args.guesses):
        out += ["## Queries, and the QK fix", "", FIX, *query_section(queries, query_seconds)]
    if covered:
        head = ["contrast", "effect", "items", *FORMS, *BOUNDS]
        out += ["## Do the intervals hold?", "", HOLD, *table(head, covered)]
    return "\n".join(out).rstrip()


PROGRAMS = """\
Small transformers compiled by hand (`benchmarks/referee_models.py`), so that the truth is a closed form,
which the engine meets to nine digits. The answer's logit is 6 where it is found: its softmax is full, as
it often is. Some programs switch halfway between the two prompts, where the middle point of an odd
number of steps lies.
"""
LISTS = """\
What the {top} heads that each guess names carry together, patched at once: the joint effect over the
total effect, with 95% bootstrap-t intervals; on the items that they were named on. *shared*: how many of
them are among as many that are exactly the largest, by the mean of NIE and pure NIE. `--heads
lists.json` adds lists of your own, such as a published circuit.
"""
HOLD = """\
The share of 200 samples of 12 items, drawn from a contrast's items as if these were the population,
whose intervals for `attribution` hold the score of the population (Monte Carlo error at most 0.035). A
verdict rests on one end of an interval, with 97.5% confidence: how often that end holds is in the last two
columns.
"""
FIX = """\
Another mediator: the query of a head at the answer positions (before positions are put in), one patched
run a head as the truth. *linear* is the gradient times the difference; the QK fix computes the attention
row anew and takes the rest as linear. NIE.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contrasts", nargs="*", choices=list(CONTRASTS), default=list(CONTRASTS))
    parser.add_argument("--guesses", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--items", type=int, default=12, help="items of each contrast")
    parser.add_argument(
        "--heads", type=Path, help="a JSON file of lists of heads to judge beside the guesses'"
    )
    parser.add_argument("--keep", type=Path, help="what was measured, a line each; a run goes on from there")
    parser.add_argument("--coverage", action="store_true", help="count how often the intervals hold")
    parser.add_argument("--write", type=Path, help="the page to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    text = page(args)
    print(text)
    say(f"{time.process_time() - began:.0f} processor seconds")
    if args.write:
        args.write.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
