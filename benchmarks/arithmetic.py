"""What must be computed, in floating-point operations, and how fast this machine multiplies: the bounds.

The bound of a run is the operations that its scheme cannot avoid at the fastest rate that one thread's
float32 matrix products reach here, on shapes from 256 to 2,048 and on the models' own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Interpreters of other environments import this file: nothing but the standard library at the top.


class Shape(NamedTuple):
    """A decoder's shape, and the operations of its parts for one token."""

    layers: int
    heads: int
    width: int
    qkv: int
    """The products before attention, in one layer."""
    rest: int
    """Those after it: output projection and feed-forward block."""
    logits: int

    def tokens(self, positions: Iterable[int]) -> int:
        """Count tokens at some positions, through every layer; each attends to all before it and itself."""
        own = self.qkv + self.rest
        return self.layers * sum(own + 4 * self.width * (at + 1) for at in positions)

    def row(self, layer: int, base: int, tokens: int, answers: int) -> int:
        """Count a patched row of so many tokens from a layer's attention up, on a prompt of `base` tokens."""
        above = (self.layers - 1 - layer) * (self.qkv + self.rest + 4 * self.width * base)
        return tokens * (self.rest + above) + answers * self.logits


def shape_of(folder: Path) -> Shape:
    """Read a model's shape from its configuration: GPT-2's, or one of Llama's kind."""
    config = json.loads((folder / "config.json").read_text())
    gpt2 = config["model_type"] == "gpt2"
    heads = config["n_head" if gpt2 else "num_attention_heads"]
    width = config["n_embd" if gpt2 else "hidden_size"]
    inner = 4 * width if gpt2 else config["intermediate_size"]
    kv = heads if gpt2 else config["num_key_value_heads"]
    return Shape(
        layers=config["n_layer" if gpt2 else "num_hidden_layers"],
        heads=heads,
        width=width,
        qkv=2 * width * (width + 2 * width * kv // heads),
        rest=2 * width * width + 2 * width * inner * (2 if gpt2 else 3),
        logits=2 * width * config["vocab_size"],
    )


def scored(shape: Shape, requests: Iterable[tuple[Sequence[int], Sequence[int]]]) -> int:
    """Count what log-probabilities of answers after prompts take: every distinct beginning once.

    Logits are counted once for every distinct beginning that an answer's token is predicted after.
    """
    runs = [((*ids, *answer[:-1]), len(ids) - 1) for ids, answer in requests]
    total = 0
    before: tuple[int, ...] = ()
    predicting: set[tuple[int, ...]] = set()
    for run, last in sorted(runs):
        alike = next((k for k, (a, b) in enumerate(zip(run, before, strict=False)) if a != b), None)
        total += shape.tokens(range(min(len(run), len(before)) if alike is None else alike, len(run)))
        predicting |= {run[: at + 1] for at in range(last, len(run))}
        before = run
    return total + len(predicting) * shape.logits


def fastest_rate() -> float:
    """Operations a second of the fastest float32 matrix product on one thread, by either routine."""
    import torch

    from whyprompt._lean.products import linear

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = 0.0
    for m, k, n in (
        *((s, s, s) for s in (256, 512, 1024, 2048)),
        (96, 576, 1536),
        (270, 576, 1536),
        (270, 1536, 576),
        (144, 768, 3072),
        (270, 576, 49152),
    ):
        a, b = torch.randn(m, k), torch.randn(n, k)
        with torch.inference_mode():
            for product in (torch.nn.functional.linear, linear):
                for _ in range(6):
                    start = time.process_time()
                    for _ in range(repeat := max(1, int(2e9 / (2 * m * k * n)))):
                        product(a, b)
                    best = max(best, 2 * m * k * n * repeat / (time.process_time() - start))
    torch.set_num_threads(threads)
    return best


def processor() -> str:
    """Name the processor: what it calls itself, its family and what it has for half precision."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or told.get("CPU part") or "an unnamed processor"
    family = f", family {told['cpu family']}" if "cpu family" in told else ""
    has = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in told.get("flags", "").split()]
    return f"{name}{family}{''.join(f', {flag}' for flag in has)}"
