# ruff: noqa: ANN401  # a model ships no type
"""Outcomes beyond the log-probability, measured: what a margin and a written text cost, and their intervals.

On the embedded model, with one thread: a margin over a foil of one token by one run of each prompt, beside
two runs with the vocabulary normalised, which is what longer foils take; and texts written under patches,
beside a naive loop that computes the whole sequence anew with hooks at every step, and whether both write the
same. Then how often intervals of effects on an outcome of 0 or 1 hold the truth, of items drawn with known
chances of a flip either way, alone and in clusters, with its Monte Carlo error: it needs no model.

    python benchmarks/outcomes.py
    python benchmarks/outcomes.py --only coverage --reps 40
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
from scipy.special import ndtr

CHANCES = ((0.02, 0.0), (0.1, 0.0), (0.1, 0.1), (0.3, 0.05), (0.4, 0.0))
SIZES = (8, 10, 20, 40)


def say(text: str) -> None:
    print(text, flush=True)


def coverage(reps: int, *, clustered: bool, columns: int = 20) -> None:
    """Count how often the interval of one set's NIE, of `columns` at a time, holds the mean."""
    from whyprompt import infer_heads
    from whyprompt.mediation import Site, Sweep

    of = "clusters of 1 to 4 items that go together" if clustered else "items"
    say(f"chance of a right text made wrong, a wrong one right; by {of}, share of 95% intervals that hold")
    rng = np.random.default_rng(int(clustered))

    def uniform(units: Any, more: int) -> Any:
        if not clustered:
            return rng.random((len(units), more))
        own, shared = (rng.normal(size=(size, more)) for size in (len(units), units[-1] + 1))
        return ndtr((own + shared[units]) / np.sqrt(2))

    for down, up in CHANCES:
        cells = []
        for n in SIZES:
            hits = []
            for _ in range(reps):
                units = np.repeat(np.arange(n), rng.integers(1, 5, n) if clustered else 1)
                y11 = (uniform(units, 1)[:, 0] < 0.5).astype(float)  # so each kind of flip has half of them
                move = uniform(units, columns)
                flips = np.where(y11[:, None] == 1, move < 2 * down, move < 2 * up)
                y10 = np.where(flips, 1 - y11[:, None], y11[:, None])
                sweep = Sweep(
                    y00=np.zeros(len(units)),
                    y11=y11,
                    y10=y10,
                    outcome="generated right",
                    item_ids=tuple(map(str, range(len(units)))),
                    clusters=tuple(map(str, units)),
                    sets={str(k): (Site("head", 0, k),) for k in range(columns)},
                )
                found = infer_heads(sweep, draws=1000, n_splits=0)
                hits += [part.ends[0] <= down - up <= part.ends[1] for part in found.parts]
            share = float(np.mean(hits))
            # Columns of one sweep share their items' outcomes, so a sweep counts as one draw.
            by_sweep = np.reshape(hits, (reps, columns)).mean(1)
            cells.append(f"{n}: {share:.3f} ({by_sweep.std(ddof=1) / reps**0.5:.3f})")
        say(f"  {down:.2f}, {up:.2f}   {'   '.join(cells)}")


def pairs_of(lm: Any, count: int) -> list[Any]:
    """Pairs of sums, with two examples before one prompt; answer and foil are one token each."""
    from whyprompt import pair_from_text

    return [
        pair_from_text(
            lm.codec.tokenizer,
            item_id=f"{a}",
            prompt0=[("question", f"{a} + 3 =")],
            prompt1=[("examples", "1 + 1 = 2\n2 + 5 = 7\n"), ("question", f"{a} + 3 =")],
            answer=f" {a + 3}",
            foil=f" {a + 4}",
        )
        for a in range(1, 1 + count)
    ]


def seconds(run: Any) -> tuple[Any, float]:
    began = time.process_time()
    found = run()
    return found, time.process_time() - began


def margins(lm: Any, pairs: list[Any]) -> None:
    from whyprompt import head_sweep

    last = [pair.answer_ids[-1:] for pair in pairs], [pair.foil_ids[-1:] for pair in pairs]
    # The separator is the prompt's last token, so that what is scored is one digit.
    short = [
        replace(
            p,
            ids0=(*p.ids0, *p.answer_ids[:-1]),
            ids1=(*p.ids1, *p.answer_ids[:-1]),
            answer_ids=a,
            foil_ids=f,
        )
        for p, a, f in zip(pairs, *last, strict=True)
    ]
    head_sweep(lm.model, short[:1], outcome="margin", heads=[(0, 0)])
    once, cpu = seconds(lambda: head_sweep(lm.model, short, outcome="margin"))
    with mock.patch("whyprompt.mediation.engine.runner.Runner._scored", _both):
        twice, slow = seconds(lambda: head_sweep(lm.model, short, outcome="margin"))
    off = max(np.abs(getattr(once, y) - getattr(twice, y)).max() for y in ("y00", "y11", "y10", "y01"))
    n = len(short)
    say(
        f"margin, {len(once.sites)} heads, both ways, {n} pairs: {cpu / n:.2f} s a pair by one run of each "
        f"prompt, {slow / n:.2f} s by two with the vocabulary: {slow / cpu:.1f} times as long; largest "
        f"difference {off:.1e}"
    )


def _both(_: Any, pair: Any) -> list[Any]:
    """Run answer and foil each by itself."""
    return [(pair.answer_ids, None), (pair.foil_ids, None)]


def texts(lm: Any, pairs: list[Any], most: int) -> None:
    import torch

    from whyprompt.mediation import generation_sweep

    heads = [(14, 1), (20, 5), (20, 6)]
    written: list[tuple[int, ...]] = []

    def kept(_: Any, ids: Any) -> float:
        written.append(tuple(ids))
        return 0.0

    options: dict[str, Any] = {"score": kept, "max_new_tokens": most, "stop": lambda _: False}
    _, cpu = seconds(lambda: generation_sweep(lm.model, pairs, heads, **options))

    def naive() -> list[tuple[int, ...]]:
        layers, n_heads = lm.model.model.layers, lm.model.config.num_attention_heads
        out = []
        for p in pairs:
            ways: list[tuple[Any, Any, Any]] = [(p.ids0, p.ids0, None), (p.ids1, p.ids1, None)]
            ways += [(*ids, head) for ids in ((p.ids1, p.ids0), (p.ids0, p.ids1)) for head in heads]
            for base, source, head in ways:
                text: list[int] = []
                while len(text) < most:
                    out_now = _step(lm, layers, n_heads, base, source, head, text)
                    text.append(out_now)
                out.append(tuple(text))
        return out

    with torch.inference_mode():
        wanted, slow = seconds(naive)
    same = sum(a == b for a, b in zip(written, wanted, strict=True))
    say(
        f"texts, {len(heads)} heads, both ways, {len(pairs)} pairs, {most} tokens: {cpu:.1f} s, a naive loop "
        f"{slow:.1f} s: {slow / cpu:.0f} times as long; {same} of {len(wanted)} texts the same"
    )


def _step(lm: Any, layers: Any, n_heads: int, base: Any, source: Any, head: Any, text: list[int]) -> int:
    """Compute the whole sequence with one head's output taken from the other prompt's run."""
    import torch

    n = len(text) + 1
    kept: dict[str, Any] = {}

    def run(ids: Any, hook: Any) -> Any:
        handle = None
        if head is not None:
            handle = layers[head[0]].self_attn.o_proj.register_forward_pre_hook(hook)
        logits = lm.model(torch.tensor([[*ids, *text]]), use_cache=False).logits[0, -1]
        if handle is not None:
            handle.remove()
        return logits

    def put(_: Any, args: Any) -> Any:
        x = args[0].clone()
        d = x.shape[-1] // n_heads
        x[0, -n:, head[1] * d : (head[1] + 1) * d] = kept["x"][:, head[1] * d : (head[1] + 1) * d]
        return (x, *args[1:])

    if head is not None:
        run(source, lambda _, args: kept.update(x=args[0][0, -n:].clone()))
    return int(run(base, put).argmax())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("margins", "texts", "coverage"), help="one of the three alone")
    parser.add_argument("--reps", type=int, default=25, help="sweeps of 20 sets a cell")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=6)
    args = parser.parse_args()
    if args.only != "coverage":
        import torch

        from whyprompt import load_model

        torch.set_num_threads(1)
        lm = load_model("embedded", dtype="float32")
        pairs = pairs_of(lm, args.pairs)
        if args.only != "texts":
            margins(lm, pairs)
        if args.only != "margins":
            texts(lm, pairs, args.tokens)
    if args.only in {None, "coverage"}:
        for clustered in (False, True):
            coverage(args.reps, clustered=clustered)


if __name__ == "__main__":
    main()
