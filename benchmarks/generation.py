"""Completions: whyprompt beside transformers' own `generate`, in one run.

The same local model, the same prompts as tokens, greedy, in float32, with the same threads and the same ends.
`generate` is given batches padded at the left, in the prompts' order and by length, at several sizes;
`generate_batch`, transformers' own continuous batching, runs where it runs on this device. The ratio is to
the fastest of them. Tokens are those that were kept: what a batch computes for rows that are done counts as
time. Then each text is written alone: how many stay the same, and how far logits move by rounding.

Processor time is what is compared: on a shared machine the clock tells of its neighbours (take --threads 1).

    python benchmarks/generation.py
    python benchmarks/generation.py --items 48 --tokens 160 --threads 2
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from whyprompt import load_model
from whyprompt.study import ChainOfThoughtArm, DirectArm, FewShotArm, ReasoningGymSource
from whyprompt.trials.items.load import load_items
from whyprompt.trials.models import generation
from whyprompt.trials.models.generation import complete
from whyprompt.trials.prompts import render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whyprompt.study import Arm
    from whyprompt.trials.models.local import LocalModel

Ids = list[list[int]]


def padded(
    lm: LocalModel, prompts: Sequence[Sequence[int]], most: int, batch: int, *, by_length: bool
) -> Ids:
    """Give what `generate` writes after each prompt, in batches padded at the left."""
    special = sorted(lm.codec.stop_ids)
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n])) if by_length else range(len(prompts))
    found: dict[int, list[int]] = {}
    for at in range(0, len(prompts), batch):
        members = list(order)[at : at + batch]
        width = max(len(prompts[n]) for n in members)
        ids = torch.tensor([[special[0]] * (width - len(prompts[n])) + list(prompts[n]) for n in members])
        mask = torch.tensor([[0] * (width - len(prompts[n])) + [1] * len(prompts[n]) for n in members])
        with torch.inference_mode():
            out = lm.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=most,
                do_sample=False,
                eos_token_id=special,
                pad_token_id=special[0],
            )
        for n, row in zip(members, out[:, width:].tolist(), strict=True):
            ends = next((k for k, token in enumerate(row) if token in lm.codec.stop_ids), len(row))
            found[n] = row[:ends]
    return [found[n] for n in range(len(prompts))]


def continuous(lm: LocalModel, prompts: Sequence[Sequence[int]], most: int) -> Ids:
    """Give what transformers' continuous batching writes after each prompt."""
    from transformers import GenerationConfig

    special = sorted(lm.codec.stop_ids)
    config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers'
        max_new_tokens=most, do_sample=False, eos_token_id=special, pad_token_id=special[0]
    )
    made = lm.model.generate_batch([list(p) for p in prompts], generation_config=config)
    rows = [list(one.generated_tokens) for one in made.values()]
    return [[t for t in row if t not in lm.codec.stop_ids] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[16])
    parser.add_argument("--arms", nargs="+", choices=["direct", "few_shot", "thinks"], default=["thinks"])
    args = parser.parse_args()

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    lm = load_model(args.model, dtype="float32", threads=args.threads)
    torch.set_num_threads(args.threads)
    source = ReasoningGymSource(source="reasoning_gym", dataset="gsm_symbolic", size=args.items)
    pool = load_items([source], seed=0)
    arms: dict[str, Arm] = {
        "direct": DirectArm(kind="direct"),
        "few_shot": FewShotArm(kind="few_shot", shots=3, with_solution=True),
        "thinks": ChainOfThoughtArm(kind="chain_of_thought"),
    }
    for name in args.arms:
        prompts = []
        for item in pool.items:
            made = render(item, arms[name], name=name, pool=pool, renderer=lm.codec)
            prompts.append(lm.codec.tokens(made.reasoning_first or made.text, special=not made.chat))
        one_arm(lm, name, prompts, args.tokens, args.batches)


def one_arm(
    lm: LocalModel, name: str, prompts: Sequence[tuple[int, ...]], most: int, batches: Sequence[int]
) -> None:
    """Time one arm's prompts by every route, and say how many texts are the same."""
    routes: dict[str, Callable[[], Ids]] = {}
    for size in batches:
        for by_length in (False, True):
            name_of = f"generate, padded, {size} a batch{', by length' * by_length}"
            routes[name_of] = partial(padded, lm, prompts, most, size, by_length=by_length)
    routes["generate_batch (transformers)"] = partial(continuous, lm, prompts, most)
    complete(lm, [p[:20] for p in prompts[:2]], max_new_tokens=2)  # what is measured once is measured before
    begun = time.process_time()
    ours = complete(lm, prompts, max_new_tokens=most)
    taken = time.process_time() - begun
    count = sum(c.tokens for c in ours)
    cut = sum(c.finish == "length" for c in ours)
    print(f"{name}: {len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens,")
    print(f"  {count} tokens written, {cut} of the texts cut off at {most}")
    rate = count / taken
    print(f"  {'whyprompt':40} {rate:8.1f} tokens a processor second")
    rates = {}
    for route, write in routes.items():
        begun = time.process_time()
        try:
            found = write()
        except Exception as error:  # noqa: BLE001 - whatever keeps it from running here is said
            print(f"  {route:40} does not run: {type(error).__name__}: {str(error).splitlines()[0][:60]}")
            continue
        taken = time.process_time() - begun
        rates[route] = sum(map(len, found)) / taken
        same = sum(c.text == lm.codec.tokenizer.decode(ids) for c, ids in zip(ours, found, strict=True))
        print(
            f"  {route:40} {rates[route]:8.1f} tokens a processor second;"
            f" {same} of {len(found)} texts the same"
        )
    if rates:
        print(f"  ratio to the fastest of them: {rate / max(rates.values()):.2f}")
    for temperature in (0.0, 1.0):
        each_alone(lm, prompts, most, temperature)


def each_alone(lm: LocalModel, prompts: Sequence[tuple[int, ...]], most: int, temperature: float) -> None:
    """Say whether texts are the same when each is written alone, and how far its logits are, by rounding."""
    tops: list[dict[tuple[int, int], float]] = [{}, {}]
    take = generation._take  # noqa: SLF001 - what every token goes by

    def written(which: int, numbers: Sequence[int]) -> list[str]:
        def noted(lm: LocalModel, text: Any, best: int, logits: torch.Tensor, *rest: Any) -> bool:  # noqa: ANN401
            tops[which][numbers[text.number], len(text.written)] = float(logits.max())
            return take(lm, text, best, logits, *rest)

        with patch.object(generation, "_take", noted):
            found = complete(
                lm,
                [prompts[n] for n in numbers],
                max_new_tokens=most,
                temperatures=[temperature] * len(numbers),
                seeds=list(numbers),
                root=(),
            )
        return [one.text for one in found]

    together = written(0, range(len(prompts)))
    alone = [text for n in range(len(prompts)) for text in written(1, [n])]
    same = [n for n, (a, b) in enumerate(zip(together, alone, strict=True)) if a == b]
    apart = max(abs(top - tops[1][at]) for at, top in tops[0].items() if at[0] in same)
    print(
        f"  each written alone, temperature {temperature:g}: {len(same)} of {len(prompts)} texts the same,"
        f" the largest logit of a step within {apart:.0e}"
    )


if __name__ == "__main__":
    main()
