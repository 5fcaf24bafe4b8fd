"""Log-probabilities of answers: whyprompt beside lm-evaluation-harness, in one run.

The same local model, the same items, the same prompts as text, the same threads; tokenising is part of the
time on both sides. lm-eval runs its `hf` backend on log-likelihood requests, at its default batch size of 1
and at larger ones; the ratio is to the fastest of them. Repetitions alternate, and the ratio is of medians.

Beside the time on the clock stands the processor time of the same calls, which tells more where the machine
is shared (take --threads 1 then: threads that wait for a processor count as busy).

The arithmetic bound is that of `sweep.py`, for scores: every distinct beginning of the prompts with their
answers once, and the vocabulary's logits once after each beginning that an answer's token is predicted from,
at the fastest rate that one thread's matrix products reach on this machine. The time that stands beside it is
the processor's, tokenising included.

    python benchmarks/scoring.py                 # needs lm-eval: pip install "lm-eval[hf]"
    python benchmarks/scoring.py --items 96 --repeats 3 --threads 2
    python benchmarks/scoring.py --alone --threads 1       # against the bound, without lm-eval
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from arithmetic import fastest_rate, processor, scored, shape_of

from whyprompt import load_model
from whyprompt.study import DirectArm, FewShotArm, ReasoningGymSource
from whyprompt.trials.items.load import load_items
from whyprompt.trials.models.locate import locate_model
from whyprompt.trials.models.scoring import score
from whyprompt.trials.prompts import Prompt, render

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

    from whyprompt.study import Arm
    from whyprompt.trials.models.local import LocalModel


class Clock:
    """Seconds on the clock and of the processor since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def ours(lm: LocalModel, prompts: list[Prompt]) -> tuple[tuple[float, float], list[float]]:
    clock = Clock()
    scores = score(lm, [lm.codec.encode(p) for p in prompts])
    return clock.read(), [s.total for s in scores]


def theirs(harness: HFLM, prompts: list[Prompt], batch_size: int) -> tuple[tuple[float, float], list[float]]:
    from lm_eval.api.instance import Instance

    harness.batch_size_per_gpu = batch_size
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=(p.text, p.answer), idx=i)
        for i, p in enumerate(prompts)
    ]
    clock = Clock()
    answers = harness.loglikelihood(requests, disable_tqdm=True)
    return clock.read(), [float(log_prob) for log_prob, _greedy in answers]


def beside(
    peer: dict[int, list[tuple[float, float]]], median: float, cpu: float, worst: float
) -> dict[str, Any]:
    """Show lm-eval's times beside ours, and give what is kept of them."""
    medians = {b: statistics.median(t[0] for t in times) for b, times in peer.items()}
    cpus = {b: statistics.median(t[1] for t in times) for b, times in peer.items()}
    best = min(medians, key=lambda b: medians[b])
    cpu_ratio = min(cpus.values()) / cpu
    print(
        "  lm-eval "
        + ", ".join(f"{t:.2f} s at batch {b}" for b, t in medians.items())
        + f"; {medians[best] / median:.1f} times as fast as lm-eval at its fastest (batch {best}), "
        f"{cpu_ratio:.1f} times by processor time; log-probabilities differ by at most {worst:.1e}"
    )
    return {
        "lm_eval_s": medians,
        "ratio_to_fastest": medians[best] / median,
        "ratio_to_default_batch_1": medians[1] / median if 1 in medians else None,
        "lm_eval_cpu_s": cpus,
        "cpu_ratio_to_fastest": cpu_ratio,
        "largest_difference": worst,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--arms", nargs="+", choices=["direct", "few_shot"], default=["direct", "few_shot"])
    parser.add_argument("--alone", action="store_true", help="without lm-eval")
    args = parser.parse_args()

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.disable(logging.WARNING)
    lm = load_model(args.model, dtype="float32", threads=args.threads)
    folder, _ = locate_model(args.model)
    harness: HFLM | None = None
    if not args.alone:
        from lm_eval.models import huggingface

        harness = huggingface.HFLM(
            pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, add_bos_token=False
        )
    torch.set_num_threads(args.threads)
    source = ReasoningGymSource(
        source="reasoning_gym",
        dataset="letter_counting",
        size=args.items,
        settings={"min_words": 2, "max_words": 4},
    )
    pool = load_items([source], seed=5)
    arms: dict[str, Arm] = {
        "direct": DirectArm(kind="direct"),
        "few_shot": FewShotArm(kind="few_shot", shots=3),
    }
    rate = fastest_rate()
    print(f"{processor()}, {args.threads} threads; one multiplies {rate / 1e9:.0f} Gflop/s in float32")
    report: dict[str, Any] = {"items": args.items, "threads": args.threads, "notes": list(lm.notes)}
    report |= {"processor": processor(), "rate": rate}
    for name in args.arms:
        prompts = [render(i, arms[name], name=name, pool=pool, renderer=lm.codec) for i in pool.items]
        encoded = [lm.codec.encode(p) for p in prompts]
        bound = scored(shape_of(folder), [(e.ids, e.answer_ids) for e in encoded]) / rate
        mine: list[tuple[float, float]] = []
        peer: dict[int, list[tuple[float, float]]] = (
            {} if harness is None else {b: [] for b in args.batch_sizes}
        )
        ours(lm, prompts[:8])
        if harness is not None:
            theirs(harness, prompts[:8], 1)
        worst = 0.0
        for _ in range(args.repeats):
            seconds, values = ours(lm, prompts)
            mine.append(seconds)
            for batch, times in peer.items():
                assert harness is not None
                seconds, reference = theirs(harness, prompts, batch)
                times.append(seconds)
                worst = max(worst, float(np.max(np.abs(np.subtract(values, reference)))))
        median, cpu = (statistics.median(t[k] for t in mine) for k in (0, 1))
        report[name] = {"whyprompt_s": median, "whyprompt_cpu_s": cpu, "bound_s": bound}
        print(
            f"{name}: whyprompt {median:.2f} s, {cpu:.2f} of the processor; arithmetic bound {bound:.2f} s, "
            f"{cpu / bound:.2f} x its bound"
        )
        if peer:
            report[name] |= beside(peer, median, cpu, worst)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
