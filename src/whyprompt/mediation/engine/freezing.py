"""Rows in which nothing moves but what is patched, and what that adds to the residual stream."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from whyprompt.mediation.engine.support import refuse, tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whyprompt.mediation.engine.patching import Plan

INSTEAD = "use mediator='path', which freezes nothing"


@contextmanager
def holding(layers: Sequence[torch.nn.Module], plan: Plan, model_type: str) -> Iterator[None]:
    """Hold what layers add to the residual stream of the plan's frozen rows at the unpatched row's.

    In the layer that a row enters, that is all but attention, of which the row's outputs z are set head by
    head; in later ones also what attention adds, where the row patches no head. Such a layer has to hand on
    what the row brings: one that does not, but for a factor, has parts that were not found, and is refused.
    """
    handles: list[Any] = []
    for layer, held, playing in zip(layers, plan.held, plan.in_play, strict=True):
        if not held:
            continue
        total = len(playing)
        handed = _Handed([(at, own) for at, own, through in held if through], total, model_type)
        handles += [
            layer.register_forward_pre_hook(handed.before, with_kwargs=True),
            layer.register_forward_hook(handed.after),
        ]
        handles += [
            part.register_forward_hook(_held(plan, part, held, total, model_type))
            for part in layer.children()
            if any(p.ndim >= 2 for p in part.parameters())  # a norm adds nothing by itself
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _held(
    plan: Plan, part: torch.nn.Module, held: Sequence[tuple[int, int, bool]], total: int, model_type: str
) -> Callable[..., Any]:
    """Give a part of a layer the hook that replaces what it gives for frozen rows by the unpatched row's."""
    inside = {id(module) for module in part.modules()}

    def hook(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401  # or a tuple with it
        attention = id(plan.attends) in inside
        rows = [(at, own) for at, own, through in held if through or not attention]
        x = output if isinstance(output, torch.Tensor) else output[0]
        if not rows or not isinstance(x, torch.Tensor):
            return output
        n = plan.owners[0].base.carried
        if len(x) not in {total, total * n}:
            raise refuse(model_type, f"a part of its layers gives {len(x)} rows for {total}")
        y = x.clone().reshape(total, -1)
        into, own = (torch.tensor(at, device=x.device) for at in zip(*rows, strict=True))
        y[into] = y[own]
        y = y.reshape(x.shape)
        return y if isinstance(output, torch.Tensor) else (y, *output[1:])

    return hook


class _Handed:
    """By what frozen rows differ from the unpatched one, before and after a layer: the same, scaled."""

    def __init__(self, rows: Sequence[tuple[int, int]], total: int, model_type: str) -> None:
        self.rows, self.total, self.model_type = rows, total, model_type
        self._came: torch.Tensor | None = None

    def before(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See what comes."""
        self._came = self._difference(args[0] if args else kwargs["hidden_states"])[0]

    def after(self, _: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401  # or a tuple with it
        """See what goes."""
        went, scale = self._difference(output if isinstance(output, torch.Tensor) else output[0])
        came = self._came
        if came is None or not len(went):
            return
        came = came.to(went.device)  # a layer may be on another device than the one before it
        squares = float((came * came).sum())
        factor = float((went * came).sum()) / squares if squares else 0.0
        off = float((went - factor * came).abs().max())
        if not off <= tolerance(torch.finfo(went.dtype).eps) * max(1.0, scale):
            raise refuse(
                self.model_type,
                "with all that its layers add held fast, the residual stream still changes from one to the "
                f"next by {off:.2g}: not all that they add was found",
                hint=INSTEAD,
            )

    def _difference(self, hidden: torch.Tensor) -> tuple[torch.Tensor, float]:
        if hidden.ndim != 3 or len(hidden) < self.total:
            raise refuse(self.model_type, "its layers hand on more than one residual stream", hint=INSTEAD)
        if not self.rows:
            return hidden[:0], 0.0
        into, own = (torch.tensor(at, device=hidden.device) for at in zip(*self.rows, strict=True))
        return hidden[into] - hidden[own], float(hidden.abs().max())
