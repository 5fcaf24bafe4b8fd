"""Packs in parts, where workers would wait: a part gives what it gives in the whole, to the last digit.

A part computes the tokens of its own members, and their attention in the layout of the whole pack
(:func:`whyprompt.trials.models.blocks.in_layout`). What remains are functions of each number, which are alike
where no vector of a processor's ends within a token, and products of fewer rows: whether a row of a product
depends on how many there are is the processor's and its libraries' matter, and is measured.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._cache import remembered_ratio
from whyprompt._workers.queue import Queue
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.models.scoring import LEAST_ROWS, RootCache, plan_scoring, score_pack, wanted_nodes

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import torch

    from whyprompt.trials.models.local import LocalModel
    from whyprompt.trials.models.packing import Pack
    from whyprompt.trials.models.scoring import Requests, TokenScores

# Fewer workers are busy anyway, and what is measured is measured once on a machine.
MANY_WORKERS = 8
# Two vectors of 512 bits, as torch takes them; a last few numbers are computed otherwise.
_VECTORS = 32
# More tokens after which something is scored are not tried, and not parted.
_HEAD_ROWS = 128
_PARTS = (2, 3, 4, 5, 6, 8, 16)
# Parts compute more calls, and roots more often: they are to be worth it.
_SOONER = 0.95


def parts_are_exact(lm: LocalModel) -> bool:
    """Find out whether parts of packs give the digits of the whole: on some tokens, and by all products.

    By one thread: several deal numbers among them by how many there are. Remembered for a processor, a
    version of torch and the shapes of a model's products.
    """
    import torch
    import transformers

    from whyprompt._lean.products import onednn_pays

    if not (lm.packs and lm.blocks and lm.device.type == "cpu"):
        return False
    if getattr(lm.model.config, "_attn_implementation", None) != "sdpa" or torch.get_num_threads() > 1:
        return False
    products = _products(lm)
    if any(width % _VECTORS for shape, _ in products for width in shape):
        return False
    shapes = sorted((type(m).__name__, *shape) for shape, m in products)
    what = f"parts-{transformers.__version__}-{onednn_pays()}-{lm.dtype}-{type(lm.model).__name__}-{shapes}"
    return remembered_ratio(what, lambda: float(_same_scores(lm) and _same_rows(lm))) == 1


def _products(lm: LocalModel) -> list[tuple[tuple[int, ...], torch.nn.Module]]:
    """Give a product of each kind and shape of weights that the model has."""
    import torch
    from transformers.pytorch_utils import Conv1D

    found = {}
    for module in lm.model.modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            found[type(module), tuple(module.weight.shape)] = module
    return [(shape, module) for (_, shape), module in found.items()]


def _vocabulary(lm: LocalModel) -> int:
    return int(lm.model.get_input_embeddings().weight.shape[0])


def _same_rows(lm: LocalModel) -> bool:
    """Whether rows of products are the same among few and among many, as many as a pack has."""
    import torch

    from whyprompt._lean.layers import lean_layers
    from whyprompt._lean.products import round_up

    draw, vocabulary = torch.Generator().manual_seed(0), _vocabulary(lm)
    with torch.inference_mode(), lean_layers(lm.model):
        for shape, product in _products(lm):
            # GPT-2's weights are stored (inputs, outputs).
            inputs, outputs = shape[::-1] if isinstance(product, torch.nn.Linear) else shape
            # The head is given those tokens alone after which something is scored.
            most = _HEAD_ROWS if outputs == vocabulary else lm.token_budget
            x = torch.randn(most, inputs, generator=draw).to(lm.dtype)
            whole = product(x)
            sizes = sorted({round_up(n) for n in range(LEAST_ROWS, most)} | {5, 7, 13, most - 1})
            if not all(torch.equal(product(x[-n:]), whole[-n:]) for n in sizes if n <= most):
                return False
    return True


def _same_scores(lm: LocalModel) -> bool:
    """Whether a pack of some tokens gives the same scores in parts, its attention in blocks or not."""
    from whyprompt.trials.models.blocks import block_queries

    vocabulary = _vocabulary(lm)
    rng = np.random.default_rng(3)
    root, stem = rng.integers(0, vocabulary, 9).tolist(), rng.integers(0, vocabulary, 3).tolist()
    requests = []
    for k in range(6):
        tail = rng.integers(0, vocabulary, 6 + k).tolist()
        requests.append(Encoded((*root, *(stem if k % 2 else ()), *tail[:-2]), tuple(tail[-2:])))
    try:
        for queries in (8, 1000):
            with block_queries(queries):
                for pack in plan_scoring(lm, requests):
                    whole = _scores(lm, requests, [pack])
                    if any(_scores(lm, requests, pack.in_parts(n)) != whole for n in (2, len(pack.members))):
                        return False
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, AssertionError):
        return False
    return True


def _scores(lm: LocalModel, requests: Requests, packs: Sequence[Pack]) -> dict[int, tuple[float, ...]]:
    def digits(found: TokenScores) -> tuple[float, ...]:
        return (*found.log_probs.tolist(), float(found.greedy))

    cache = RootCache()
    return {i: digits(one) for pack in packs for i, one in score_pack(lm, requests, pack, cache)}


def can_be_parted(requests: Requests, pack: Pack) -> bool:
    """Say whether a pack has parts at all: its products, and those of each member, are of rows enough."""
    if len(pack.members) < 2 or pack.computed is not None:
        return False
    rows = np.unique(np.concatenate(wanted_nodes(requests, pack)))
    return LEAST_ROWS <= len(rows) <= _HEAD_ROWS and min(map(len, pack.paths)) >= LEAST_ROWS


def cut(
    packs: Sequence[Pack], alike: Sequence[Hashable], able: Sequence[bool], workers: int
) -> list[tuple[int, Pack]]:
    """Give packs, whole or in parts, so that so many workers are done soonest.

    Parameters
    ----------
    packs : sequence of Pack
    alike : sequence of hashable
        The kind of each, as the queue has it.
    able : sequence of bool
        Whether a pack can be parted.
    workers : int

    Returns
    -------
    list of (int, Pack)
        In the order of the packs, each with the number of the pack that it is of.
    """
    best = list(enumerate(packs))
    soonest = _SOONER * _done_after(best, alike, workers)
    # Parts have no fewer tokens than what they are of: nothing ends sooner than where no worker waits.
    if soonest <= sum(pack.cost for pack in packs) / workers:
        return best
    full = len(packs) // workers * workers
    for whole in {0, full}:
        for count in _PARTS:
            tried = [
                (n, part)
                for n, pack in enumerate(packs)
                for part in (pack.in_parts(count) if n >= whole and able[n] else [pack])
            ]
            after = _done_after(tried, alike, workers)
            if after < soonest:
                best, soonest = tried, after
    return best


def _done_after(packs: Sequence[tuple[int, Pack]], alike: Sequence[Hashable], workers: int) -> float:
    """Say after how many tokens the last of so many workers is done, by the queue that deals them."""
    kinds = [alike[n] for n, _ in packs]
    queue = Queue([float(pack.cost) for _, pack in packs], kinds, {})
    free = [(0.0, worker) for worker in range(workers)]
    heapify(free)
    held: dict[int, tuple[int, ...]] = {}
    last = 0.0
    while len(queue):
        at, worker = heappop(free)
        n = queue.take(worker)
        assert n is not None
        pack = packs[n][1]
        at += pack.cost
        if pack.root and held.get(worker) != pack.root:
            held[worker] = pack.root
            at += len(pack.root)
        last = max(last, at)
        heappush(free, (at, worker))
    return last
