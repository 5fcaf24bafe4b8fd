"""Patched rows as differences from their clean run, by bfloat16 products, to float32's answer.

Every product of a patched row is W x = W x_clean + W (x - x_clean). The first is the clean run's, in float32;
the second goes by one bfloat16 product, norms and activations by their sum, in float32. What that product is
off by, e, moves the answer's log-probability by g e, to first order, where g is its gradient in the clean
run; and g e = (g W) (x - x_clean) - g (the product that was taken) is known exactly, for two products of a
vector. So it is added (a goal-oriented correction, or dual-weighted residual). What is left is of second
order: rows that may have more of it than is aimed at are run again in float32.

References
----------
Becker, R. and Rannacher, R. (2001). An optimal control approach to a posteriori error estimation in finite
element methods. Acta Numerica 10, section 2.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from whyprompt._lean.products import bfloat16_pays, bfloat16_ratio, by_bfloat16, linear
from whyprompt._lean.wide import HALF, PRODUCTS, carrying, weights_of
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.actions import set_output
from whyprompt.mediation.engine.patching import Job, Plan
from whyprompt.mediation.engine.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whyprompt.mediation.engine.attention import World
    from whyprompt.mediation.engine.patching import Part
    from whyprompt.mediation.engine.tracing import Runs, Traced

AIM = 1e-4
"""How far the log-probability of a row may be from float32's."""
# The second-order part of a row's error, over its first-order part times how far it is from its clean run.
_SECOND = 10.0
# What float32 itself may be off by in so many products.
_ROUNDING = 2e-5
_COMPARED = 8
_EXACT_TOKENS = 4096
_ROWS = 512
_TOGETHER = 1024
# A pack of which more than this share of some rows tried is in doubt goes by float32 products at once.
_TRIED, _TOO_MANY = 32, 0.3
# A larger share of weights that are held in float32 is told.
_MUCH = 0.05


class Carried:
    """Products of patched rows by their differences, and what is known of their error.

    `off` is what the answer's log-probability of each row is off by, to first order; `squares` the sum of
    the squares of its parts, one a product.
    """

    def __init__(self, traced: Traced, plan: Plan, runs: Sequence[int]) -> None:
        self.piece: tuple[int, int] | None = None
        self._traced, self._plan, self._runs = traced, plan, runs
        self._window = plan.owners[0].base.window
        self._layer: int | None = None
        device = plan.owners[0].base.hidden.device
        self.off, self.squares = torch.zeros(2, len(plan.owners), device=device)

    @contextmanager
    def watching(self, layers: Sequence[torch.nn.Module]) -> Iterator[None]:
        """Know at which layer the rows are; products elsewhere are left alone."""

        def at(layer: int | None) -> Any:  # noqa: ANN401 - a hook
            def hook(*_: object) -> None:
                self._layer = layer

            return hook

        handles = [layer.register_forward_pre_hook(at(i)) for i, layer in enumerate(layers)]
        handles.append(layers[-1].register_forward_hook(at(None)))
        try:
            with carrying(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def product(self, layer: Any, x: torch.Tensor, /) -> torch.Tensor | None:  # noqa: ANN401 - Linear or Conv1D
        """Give the clean run's product and that of the difference."""
        if self._layer is None or (known := self._traced.products.get(id(layer))) is None:
            return None
        n, tokens = self._window, x.shape[:-1].numel()
        start, stop = self.piece or (0, len(self._plan.in_play[self._layer]) * n)
        if tokens != stop - start:
            return None
        assert known.by_x is not None and known.by_y is not None  # noqa: PT018  # for mypy
        flat = x.reshape(tokens // n, n, -1)
        parts = list(self._parts(start // n, stop // n))
        differences = torch.empty_like(flat)
        differences[parts[-1][1].stop if parts else 0 :] = 0  # spare rows
        for run, here, _ in parts:
            torch.sub(flat[here], known.x[run], out=differences[here])
        y = by_bfloat16(differences.flatten(0, 1), weights_of(layer)).view(tokens // n, n, -1)
        for run, here, rows in parts:
            own = y[here]
            off = torch.mv(differences[here].flatten(1), known.by_x[run].view(-1))
            off -= torch.mv(own.flatten(1), known.by_y[run].view(-1))
            off = off.to(self.off.device)  # the last layer's; a model may lie on several
            self.off[rows] += off
            self.squares[rows] += off.square_()
            own += known.y[run]
        return y.view(*x.shape[:-1], -1)

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Give each run with rows among some in play, where those are among them, and where in the batch."""
        assert self._layer is not None
        for run, first, place in zip(
            self._runs, self._plan.unpatched, self._plan.slices[self._layer], strict=True
        ):
            a, b = max(start, place.start), min(stop, place.stop)
            if a < b:
                ahead = first - place.start
                yield run, slice(a - start, b - start), slice(a + ahead, b + ahead)


def carried_scores(
    runtime: Runs, jobs: Sequence[Job], batches: Sequence[Sequence[Part]], traced: Traced
) -> list[torch.Tensor] | None:
    """Log-probabilities of the rows of each batch, (rows, answer), float64; None where too many are in doubt.

    The first row of a part is its clean run, moved by the most that the others may be off by.
    """
    every_row = [(j, row) for parts in batches for j, own in parts for row in own]
    most = max(sum(len(own) for _, own in parts) for parts in batches)  # what the budget holds
    if len(every_row) > _TRIED * 4:
        tried = every_row[:: len(every_row) // _TRIED]
        failed = 0
        for start in range(0, len(tried), most):
            few = tried[start : start + most]
            some = [(j, tuple(r for k, r in few if k == j)) for j in sorted({j for j, _ in few})]
            _, doubt, firsts = _carried(runtime, jobs, some, traced)
            doubt[firsts] = 0.0
            failed += int((doubt > AIM / 2).sum())
        if failed > _TOO_MANY * len(tried):
            return None
    found: list[torch.Tensor] = []
    doubts, rows = [], []
    for parts in batches:
        scored, doubt, firsts = _carried(runtime, jobs, parts, traced)
        before = sum(len(scores) for scores in found)
        found.append(scored)
        doubts.append(doubt)
        for (j, own), first in zip(parts, firsts, strict=True):
            at = torch.arange(len(own)) + (before + first + 1)
            rows.append(torch.stack([torch.full_like(at, j), torch.tensor(own), at], 1))
    every = torch.cat(found)
    together = min(_TOGETHER, most)
    off = _again(runtime, jobs, traced, torch.cat(rows), every, torch.cat(doubts), together)
    out = list(every.split([len(scored) for scored in found]))
    for parts, scored in zip(batches, out, strict=True):
        first = 0
        for j, own in parts:
            clean = jobs[j].base.log_probs
            rounding = float((traced.log_probs[j] - clean).sum().abs())
            scored[first] = clean + max(off, rounding) / len(clean)
            first += 1 + len(own)
    return out


def _carried(
    runtime: Runs, jobs: Sequence[Job], parts: Sequence[Part], traced: Traced
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Log-probabilities of a batch's rows by their differences, their doubt, and where each part's begin."""
    n = len(jobs[0].base.answer)
    plan = Plan(jobs, parts, runtime.n_layers, at_once=runtime.at_once, spare=runtime.spare)
    runs = [j for j, _ in parts]
    carried = Carried(traced, plan, runs)
    with carried.watching(runtime.layers):
        hidden = runtime.run_plan(plan)[:, -n:]
    scored, doubt = _scored(runtime, hidden, plan, runs, traced)
    scored += carried.off.cpu().double()[:, None] / n
    doubt += _SECOND * carried.squares.cpu().double().sqrt() * _distance(hidden, plan)
    return scored, doubt, plan.unpatched


def _distance(hidden: torch.Tensor, plan: Plan) -> torch.Tensor:
    """How far each row's last hidden state is from its clean run's, relative to that."""
    out = torch.zeros(len(hidden), dtype=torch.float64)
    for first, stop in pairwise([*plan.unpatched, len(hidden)]):
        clean = plan.owners[first].base.hidden
        apart = (hidden[first:stop] - clean).norm(dim=-1) / clean.norm(dim=-1)
        out[first:stop] = apart.amax(-1).double().cpu()
    return out


def _again(
    runtime: Runs,
    jobs: Sequence[Job],
    traced: Traced,
    rows: torch.Tensor,
    scored: torch.Tensor,
    doubt: torch.Tensor,
    together: int,
) -> float:
    """Run the rows in doubt again in float32, and some others to compare; how far the rest may be off.

    `rows` has each one's job, its number in it, and where it is scored; so many are run `together`. How far
    the rest may be off is the doubt that is left, at the largest rate at which any row compared was off.
    """
    order = rows[doubt[rows[:, 2]].argsort(descending=True)]
    wanted = int((doubt[order[:, 2]] > AIM / 2).sum())
    # The most doubtful of those that would be left, and some of all others.
    compared = min(len(order), wanted + _COMPARED)
    others = order[compared :: max(1, (len(order) - compared) // _COMPARED)][:_COMPARED]
    again = torch.cat([order[:compared], others])
    at = again[:, 2]
    before = scored[at].sum(-1)
    scored[at] = torch.cat([_exact(runtime, jobs, traced, some) for some in again.split(together)])
    if len(again) == len(order):
        return 0.0
    off, finite = (scored[at].sum(-1) - before).abs(), doubt[at].isfinite()
    rate = float((off / (doubt[at] + _ROUNDING))[finite].max())
    return rate * (float(doubt[order[compared, 2]]) + _ROUNDING)


def _exact(runtime: Runs, jobs: Sequence[Job], traced: Traced, rows: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of some rows, in their order, by float32 products."""
    n = len(jobs[0].base.answer)
    own: dict[int, list[tuple[int, int, int]]] = {}
    for place, (j, row, _) in enumerate(rows.tolist()):
        own.setdefault(j, []).append((jobs[j].entry(row), row, place))
    dealt = [(j, sorted(some)) for j, some in own.items()]
    parts = [(j, tuple(row for _, row, _ in some)) for j, some in dealt]
    plan = Plan(jobs, parts, runtime.n_layers, at_once=runtime.at_once, spare=runtime.spare)
    hidden = runtime.run_plan(plan)[:, -n:]
    scored, rest = _scored(runtime, hidden, plan, [j for j, _ in parts], traced)
    if len(far := (rest > AIM / 10).nonzero()[:, 0]):
        gold = [i for row in far.tolist() for i in plan.owners[row].base.answer]
        scored[far] = runtime.scored(hidden[far].flatten(0, 1), gold)[0].view(-1, n)
    patched = torch.ones(len(scored), dtype=torch.bool)
    patched[plan.unpatched] = False
    out = torch.empty(len(rows), n, dtype=torch.float64)
    out[[place for _, some in dealt for *_, place in some]] = scored[patched]
    return out


def _scored(
    runtime: Runs, hidden: torch.Tensor, plan: Plan, runs: Sequence[int], traced: Traced
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the rows' answer tokens, and how far those may be off.

    Where the head is one product, its normaliser is the clean run's and the change of it: exactly for the
    tokens that are likely in the clean runs, to first order for all others, which are taken to move as the
    least likely half of those do beyond it.
    """
    rows, n, _ = hidden.shape
    known = traced.products.get(id(runtime.model.get_output_embeddings()))
    rivals = [job.base.rival for job in plan.owners for _ in range(n)]
    if runtime.unembedding is None or known is None or any(rival is not None for rival in rivals):
        gold = [i for job in plan.owners for i in job.base.answer]
        scored = runtime.scored(hidden.flatten(0, 1), gold, rivals)[0]
        return scored.view(rows, n), torch.zeros(rows, dtype=torch.float64)
    weights = runtime.unembedding
    assert known.by_x is not None
    chances = torch.softmax(known.y[runs], -1)
    likely = chances.mean((0, 1)).topk(min(_EXACT_TOKENS, chances.shape[-1])).indices
    exact = weights[likely].float()
    half = len(likely) // 2
    out = torch.empty(rows, n, dtype=torch.float64)
    doubt = torch.zeros(rows, dtype=torch.float64)
    for k, (run, (first, stop)) in enumerate(zip(runs, pairwise([*plan.unpatched, rows]), strict=True)):
        base = plan.owners[first].base
        answer = weights[torch.tensor(base.answer, device=weights.device)].float()
        mean = answer - known.by_x[run]
        p = chances[k][:, likely]
        beyond = (1 - p.sum(-1)).clamp_(min=0) / p[:, half:].sum(-1).clamp_(min=1e-30)
        for at in range(first, stop, _ROWS):
            here = slice(at, min(stop, at + _ROWS))
            d = hidden[here] - known.x[run]
            change = linear(d, exact)
            change = torch.expm1(change).sub_(change).mul_(p)
            rest = change[..., half:].sum(-1) * beyond
            norm = torch.log1p((d * mean).sum(-1) + change.sum(-1) + rest)
            out[here] = base.log_probs + ((d * answer).sum(-1) - norm).double().cpu()
            doubt[here] = rest.sum(-1).double().cpu()
    # A row so far off that its normaliser is no number, to first order, is in doubt.
    return out, doubt.where(out.isfinite().all(-1), torch.inf)


def _widened(model: torch.nn.Module) -> float:
    """Give the share of a widened model's weights that are held in float32."""
    own = [(p.numel(), p.dtype) for p in model.parameters()]
    return sum(n for n, dtype in own if dtype is torch.float32) / sum(n for n, _ in own)


def choose_products(runtime: Runs, whole: World, item: str) -> tuple[bool, str]:
    """Say whether patched rows of a half-precision model go by differences, and what a reader has to know."""
    layers = [layer for layer in runtime.layers[0].modules() if type(layer) in PRODUCTS]
    weight = next((layer.weight for layer in layers if layer.weight.dtype in HALF), None)
    if weight is None:
        return False, "computed in float32, its weights too: its code takes no others than its numbers' type"
    name, wide = str(weight.dtype).removeprefix("torch."), _widened(runtime.model)
    some = f" (but for {wide:.0%}, of no plain linear layer or embedding, held in float32 beside)"
    kept = f"weights stay in {name}{some if wide >= _MUCH else ''} and all sums are float32's"
    exact = f"{kept}; products in float32"
    if whole.whole_rows:
        return False, f"{exact}: rows carry whole prompts"
    if weight.dtype is not torch.bfloat16:
        return False, f"{exact}: bfloat16 does not hold these weights"
    if weight.device.type == "cpu":
        ratio = bfloat16_ratio()
        why = f"bfloat16 products measured {ratio:.2f} times as fast here"
        if not bfloat16_pays():
            return False, f"{exact}: {why}"
    elif weight.device.type == "cuda" and torch.cuda.get_device_capability(weight.device) >= (8, 0):
        why = "this GPU has bfloat16 products"
    else:
        return False, f"{exact}: bfloat16 ones were not tried on this device"
    try:
        trace(runtime, [Job(whole, (), set_output(whole.layers), item)])
    except (MediationError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return False, f"{exact}: this model gives no gradient ({reason[0]})"
    return True, (
        f"{kept}; a patched row is its clean run and a difference from it, which goes by bfloat16 products "
        f"({why}), corrected to first order; rows expected to be further than {AIM / 2:.0e} from float32's "
        "are run in float32"
    )
