"""Clean runs at their answer positions: every product of theirs, and the answer's gradient there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from whyprompt._lean.wide import carrying, weights_of, wide_product, wide_product_back
from whyprompt.mediation.engine.patching import Plan
from whyprompt.mediation.engine.rivals import logits_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.mediation.engine.attention import World
    from whyprompt.mediation.engine.patching import Job


class Runs(Protocol):
    """What is asked of the model's runtime."""

    @property
    def model(self) -> Any:  # noqa: ANN401
        """A model of transformers."""

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The decoder layers."""

    @property
    def unembedding(self) -> torch.Tensor | None:
        """Weights of the head, where it is a product with them and no more."""

    @property
    def at_once(self) -> bool:
        """Whether all rows enter at the first layer."""

    @property
    def spare(self) -> bool:
        """Whether batches may be filled up."""

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Give logits of the decoder's output."""

    def run_plan(self, plan: Plan) -> torch.Tensor:
        """Give the decoder's output for a batch's rows, (rows, answer, hidden)."""

    def scored(
        self, hidden: torch.Tensor, gold: Sequence[int], rivals: Sequence[int | None] = ()
    ) -> tuple[torch.Tensor, float]:
        """Give log-probabilities of one token after each position, or its margins over rivals."""


@dataclass(slots=True)
class _Product:
    """One product in the clean runs: what went in and came out, and the answer's gradient by both.

    (runs, positions, width) each; the gradient by what went in is that through this product alone.
    """

    x: torch.Tensor
    y: torch.Tensor
    by_y: torch.Tensor | None = None
    by_x: torch.Tensor | None = None


class Traced:
    """Clean runs at the positions that rows run: each product of theirs, and the answer's gradient there."""

    piece: tuple[int, int] | None = None

    def __init__(self, runs: int, window: int, n_answer: int) -> None:
        self.runs = runs
        # The model's head is given the answer positions of a window alone.
        self._tokens = {runs * window, runs * n_answer}
        self.products: dict[int, _Product] = {}
        self.log_probs = torch.empty(0)
        self._more_than_once: set[int] = set()

    def product(self, layer: Any, x: torch.Tensor, /) -> torch.Tensor | None:  # noqa: ANN401 - Linear or Conv1D
        """Multiply, and keep what went in, what came out and, later, the gradients."""
        if x.shape[:-1].numel() not in self._tokens:
            return None
        y: torch.Tensor = _Kept.apply(x, layer, self)
        return y

    def keep(self, layer: Any, x: torch.Tensor, y: torch.Tensor) -> None:  # noqa: ANN401 - Linear or Conv1D
        """Note one product."""
        if id(layer) in self.products:
            self._more_than_once.add(id(layer))
        self.products[id(layer)] = _Product(x.detach(), y.detach())

    def finish(self) -> None:
        """Drop what cannot be used, and give the rest its shape."""
        for key in [*self.products]:
            known = self.products[key]
            if known.by_y is None or key in self._more_than_once:
                del self.products[key]
                continue
            for name in ("x", "y", "by_y", "by_x"):
                value = getattr(known, name)
                setattr(known, name, value.reshape(self.runs, -1, value.shape[-1]).contiguous())


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Any, traced: Traced) -> torch.Tensor:  # noqa: ANN401
        ctx.layer, ctx.traced = layer, traced
        y = wide_product(x, weights_of(layer), layer.bias)
        traced.keep(layer, x, y)
        return y.clone()  # the model may change what it is given

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:  # noqa: ANN401
        known = ctx.traced.products[id(ctx.layer)]
        known.by_y = grads[0]
        known.by_x = wide_product_back(grads[0], weights_of(ctx.layer))
        return known.by_x, None, None


def trace(runtime: Runs, jobs: Sequence[Job]) -> Traced:
    """Run the answer positions of some clean runs, alike in length, and their gradients."""
    n = len(jobs[0].base.answer)
    traced = Traced(len(jobs), jobs[0].base.window, n)
    with torch.inference_mode(mode=False), torch.enable_grad():
        # What inference mode has made knows no gradient; copies do.
        plain = [replace(job, rows=(), base=_plain(job.base)) for job in jobs]
        plan = Plan(plain, [(j, ()) for j in range(len(jobs))], runtime.n_layers, at_once=True, spare=False)
        start: list[torch.Tensor] = []

        def leaf(_: torch.nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            start.append(output.detach().clone().requires_grad_())
            return start[-1]

        handle = runtime.model.get_input_embeddings().register_forward_hook(leaf)
        try:
            with carrying(traced):
                hidden = runtime.run_plan(plan)
                logits = runtime.head(hidden[:, -n:])
        finally:
            handle.remove()
        scored = torch.stack([_outcome(own, job.base) for own, job in zip(logits, jobs, strict=True)])
        torch.autograd.grad(scored.sum(), start[:1])
    traced.log_probs = scored.detach().double().cpu()
    traced.finish()
    return traced


def _outcome(logits: torch.Tensor, base: World) -> torch.Tensor:
    """Log-probabilities of the answer tokens, (answer,), or their margins over a rival."""
    gold = torch.tensor(base.answer, device=logits.device)
    if base.rival is None:
        return torch.log_softmax(logits.float(), -1).gather(-1, gold[:, None])[:, 0]
    return logits_over(logits, gold, torch.full_like(gold, base.rival))


def _plain(base: World) -> World:
    layers = [
        replace(
            state,
            **{
                name: value.clone()
                for name in ("keys", "values", "z", "mask")
                if (value := getattr(state, name)) is not None
            },
        )
        for state in base.layers
    ]
    return replace(base, layers=layers)
