"""Where a sweep's time goes, in float32 and with the same weights kept in bfloat16, and what that bounds.

Both sweep the pairs of `sweep.py` on the embedded model, one thread, by turns in one process. Counted is
processor time inside the products by type, the widening of weights, attention, the normaliser of the
vocabulary, and all that is not in these. A sweep of one head of one pair is little but a model's opening.
Amdahl's law says how much faster the second could be than the first if its bfloat16 products took no time,
and how far above the arithmetic bound of `sweep.py` the first would be if nothing but its products took any.

    python benchmarks/shares.py --pairs 16 --rounds 3

`--prefix` counts, for the contrasts of studies and without running anything, what would be spared if what
prompts begin with were kept from pack to pack: each run would then bring only the tokens that no run before
it had at the same place. (Within a pack that is so.)

    python benchmarks/shares.py --prefix studies/few_shot.yaml studies/chain_of_thought.yaml
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from arithmetic import fastest_rate, processor
from sweep import flops, make_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

FLOAT32, BFLOAT16 = "products in float32", "products in bfloat16"

spent: dict[str, float] = {}
_inside = [0.0]


def timed(own: Callable[..., Any], name: str | Callable[..., str]) -> Callable[..., Any]:
    """Count a function's own time under a name, without that of others counted inside it."""

    def run(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the function gives
        _inside.append(0.0)
        start = time.process_time()
        try:
            return own(*args, **options)
        finally:
            took = time.process_time() - start
            key = name if isinstance(name, str) else name(*args)
            spent[key] = spent.get(key, 0.0) + took - _inside.pop()
            _inside[-1] += took

    return run


def watch() -> None:
    """Count from now on."""
    from whyprompt._lean import products, wide
    from whyprompt.mediation.engine import attention, differences, engine, packing, patching, scoring

    def kind(x: torch.Tensor, *_: object) -> str:
        return BFLOAT16 if x.dtype is torch.bfloat16 else FLOAT32

    torch.nn.functional.linear = timed(torch.nn.functional.linear, kind)
    torch.nn.functional.scaled_dot_product_attention = timed(
        torch.nn.functional.scaled_dot_product_attention, "attention"
    )
    for module, function, name in (
        (products, "_onednn", FLOAT32),
        (wide, "linear", "widening of weights"),
        (wide, "wide_product_back", "gradients of clean runs"),
        (engine, "trace", "gradients of clean runs"),
        (scoring, "linear", "widening of weights"),
        (differences, "linear", "widening of weights"),
        (differences, "_scored", "the vocabulary's normaliser"),
        (engine, "scored_in_cache", "the vocabulary's normaliser"),
        (differences.Carried, "product", "differences and their correction"),
        (patching, "attend_rows", "attention"),
        (packing.Packed, "__call__", "attention"),
        (attention, "_softmax", "attention"),
    ):
        setattr(module, function, timed(getattr(module, function), name))


def prefix(path: Path) -> None:
    """Show what a prefix kept from pack to pack would spare in each of a study's sweeps, in arithmetic."""
    from types import SimpleNamespace

    import pandas as pd
    from arithmetic import shape_of

    from whyprompt import load_model
    from whyprompt.answers.pairs import chosen_items, study_contrasts, study_pairs
    from whyprompt.mediation.engine.packing import WORTHWHILE, plan_stretches
    from whyprompt.mediation.engine.runner import in_packs
    from whyprompt.study import load_study
    from whyprompt.trials.models.locate import locate_model
    from whyprompt.trials.models.packing import common_prefix

    study, lm = load_study(path), load_model("embedded", dtype="float32")
    shape = shape_of(Path(locate_model("embedded")[0]))
    assert study.mediation is not None
    budget: Any = SimpleNamespace(max_extra_bytes=1 << 40, number_bytes=4, row_width=1, by_differences=False)
    for contrast in study_contrasts(study, study.mediation):
        items = chosen_items(study, study.mediation)
        pairs = study_pairs(study, contrast, items, lm.codec, pd.DataFrame())
        packs = [*in_packs(budget, pairs, kept=lambda _: 0)]
        seen: list[tuple[int, ...]] = []
        now = kept = 0
        for pack in packs:
            runs = [((*ids, *p.answer_ids[:-1]), p.n_answer) for p in pack for ids in (p.ids0, p.ids1)]
            for (run, n), stretch in zip(runs, plan_stretches(runs), strict=True):
                alike = max((common_prefix(run[: len(run) - n], other) for other in seen), default=0)
                now += shape.tokens(range(stretch.shared, len(run))) + n * shape.logits
                kept += shape.tokens(range(alike if alike >= WORTHWHILE else 0, len(run))) + n * shape.logits
                seen.append(run)
        gains = []
        for bases in ((1,), (0, 1)):
            rows = sum(
                shape.heads * shape.row(layer, len((p.ids0, p.ids1)[base]), p.n_answer, p.n_answer)
                for p in pairs
                for base in bases
                for layer in range(shape.layers)
            )
            gains.append((now + rows) / (kept + rows))
        print(
            f"{study.name}, {contrast.treated} and {contrast.control}: {len(pairs)} pairs, "
            f"{len(packs)} packs; clean runs {now / 1e9:.0f} Gflop, {kept / 1e9:.0f} with prefixes kept"
        )
        print(f"  all heads one way {gains[0]:.3f} times as fast, both ways {gains[1]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=86)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefix", nargs="+", type=Path, default=[], metavar="STUDY")
    args = parser.parse_args()

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    for path in args.prefix:
        prefix(path)
    if args.prefix:
        return
    import transformers

    from whyprompt import head_sweep
    from whyprompt.mediation import PromptPair
    from whyprompt.trials.models.locate import locate_model

    library: Any = transformers
    library.utils.logging.disable_progress_bar()
    folder = Path(locate_model("embedded")[0])
    half = library.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    ).eval()
    models = {"float32": copy.deepcopy(half).float(), "bfloat16": half}
    raw = make_pairs(folder, args.pairs, args.tokens)
    pairs = [
        PromptPair(item_id=str(i), ids0=p["ids0"], ids1=p["ids1"], answer_ids=p["answer"])
        for i, p in enumerate(raw)
    ]

    def sweep(model: Any, *, opening: bool = False) -> float:  # noqa: ANN401 - a model ships no type
        start = time.process_time()
        if opening:
            head_sweep(model, pairs[:1], heads=[(0, 0)], directions=("nie",))
        else:
            head_sweep(model, pairs, directions=("nie",))
        return time.process_time() - start

    opened = {name: min(sweep(model, opening=True) for _ in range(2)) for name, model in models.items()}
    watch()
    best: dict[str, tuple[float, dict[str, float]]] = {}
    for _ in range(args.rounds):
        for name, model in models.items():
            spent.clear()
            took = sweep(model)
            if name not in best or took < best[name][0]:
                best[name] = took, dict(spent)
    rate = fastest_rate()
    print(f"one thread of {processor()}, {rate / 1e9:.0f} Gflop/s in float32")
    print(f"{args.pairs} pairs, processor seconds a pair, the fastest of {args.rounds} rounds")
    for name, (took, parts) in best.items():
        parts["all else"] = took - sum(parts.values())
        print(f"  {name}: {took / args.pairs:.3f} (one head of one pair: {opened[name]:.2f} s in all)")
        for part, own in sorted(parts.items(), key=lambda at: -at[1]):
            print(f"    {own / args.pairs:.3f}  {own / took:4.0%}  {part}")
    (whole, first), (other, second) = best.values()
    bound = flops(folder, raw) / rate * args.pairs
    print(
        f"  float32 takes {whole / bound:.2f} x its bound, its products alone {first[FLOAT32] / bound:.2f} x"
    )
    print(
        f"  bfloat16 is {whole / other:.2f} times as fast; were its bfloat16 products free, "
        f"{whole / (other - second[BFLOAT16]):.2f} times"
    )


if __name__ == "__main__":
    main()
