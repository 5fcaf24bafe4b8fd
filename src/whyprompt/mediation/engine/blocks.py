"""The blocks of a model's layers, whose outputs are sites beside the heads: found by running it once.

No architecture is looked up. The attention block is the module that calls the attention function; the
feed-forward block is the one other part of a layer that holds products with weights and gives as many numbers
as the residual stream has, or, where a layer has none, the one product of its own that does. A neuron is a
number that enters the last product of a feed-forward block, the module whose output is the block's. What a
layer has not, or has more than once, is refused by the architecture's name, where it is asked for.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from whyprompt.mediation.engine.intercept import AttentionCall, Handler
    from whyprompt.mediation.engine.sites import Kind

    Place = tuple[Kind | Literal["into"], int]
    """A kind of block, and its layer; "into" is what a feed-forward block is given, to look at."""
    Values = Mapping[Place, torch.Tensor]
    """What blocks gave at the positions of a window, (window, width); for neurons, all of a block's."""

# What a part of a layer is called that is a feed-forward block, or one of several that make it up.
_FEED_FORWARD = ("mlp", "moe", "ffn", "feed", "expert")


class Blocks:
    """The modules behind the sites of every layer or, for a kind and layer, why there is none."""

    def __init__(self, model_type: str) -> None:
        self._model_type = model_type
        self._found: dict[Place, tuple[torch.nn.Module, int]] = {}
        self._lacking: dict[Place, str] = {}

    def note(self, place: Place, module: torch.nn.Module | None, width: int, lacking: str) -> None:
        """Keep a module and the width of what it gives (for neurons, is given); or why there is none."""
        if module is None:
            self._lacking[place] = lacking
        else:
            self._found[place] = module, width

    def module(self, place: Place) -> torch.nn.Module:
        """Give the module, or refuse the architecture by name."""
        if place in self._lacking:
            kind, layer = place
            why = f"{kind} {layer} cannot be set, since {self._lacking[place]}"
            raise MediationError(
                f"architecture {self._model_type!r}: {why}",
                hint="leave this kind of site out",
            )
        return self._found[place][0]

    def width(self, place: Place) -> int:
        """Count the numbers that a token has there, or refuse the architecture by name."""
        self.module(place)
        return self._found[place][1]

    @contextmanager
    def hooked(self, place: Place, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Put what a block gives or, of neurons, its last product is given through a function for a while."""

        def after(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401  # or a tuple with it
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        def before(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return change(args[0]), *args[1:]

        module = self.module(place)
        enters = place[0] in {"neuron", "into"}
        handle = module.register_forward_pre_hook(before) if enters else module.register_forward_hook(after)
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def recording(
    blocks: Blocks, places: Collection[Place], windows: Sequence[slice]
) -> Iterator[list[dict[Place, torch.Tensor]]]:
    """Keep what blocks give in one clean pass, at the window of every run that lies in it."""
    kept: list[dict[Place, torch.Tensor]] = [{} for _ in windows]

    def keeper(place: Place) -> Callable[[torch.Tensor], torch.Tensor]:
        def keep(x: torch.Tensor) -> torch.Tensor:
            flat = x.reshape(-1, x.shape[-1])
            for run, window in zip(kept, windows, strict=True):
                run[place] = flat[window].clone()
            return x

        return keep

    with ExitStack() as stack:
        for place in places:
            stack.enter_context(blocks.hooked(place, keeper(place)))
        yield kept


def find_blocks(
    model_type: str,
    layers: Sequence[torch.nn.Module],
    attending: Collection[int],
    attend: Handler,
    run: Callable[[Handler], object],
) -> Blocks:
    """Find the blocks of every layer by one run of a few tokens, under a handler that attends."""
    seen = _Seen(attend)
    with seen.watching(layers):
        run(seen)
    out = Blocks(model_type)
    attentions = dict(zip(attending, seen.attentions, strict=True))
    for at, layer in enumerate(layers):
        attention = attentions.get(at)
        given = seen.given[id(layer)]
        stream, width = given[-3:], given[-1]

        def fits(module: torch.nn.Module, stream: torch.Size = stream) -> bool:
            gave = seen.gave.get(id(module), torch.Size())
            return seen.calls[id(module)] == 1 and gave.numel() == stream.numel() and gave[-1:] == stream[-1:]

        whole = given == stream == seen.gave.get(id(layer))
        out.note(("resid", at), layer if whole else None, width, "layers hand on several streams")
        projected = attention is not None and fits(attention) and seen.projects[id(attention)]
        why = f"{type(attention).__name__} does not give what is added to the residual stream"
        why = "the layer has no attention" if attention is None else why
        out.note(("attn", at), attention if projected else None, width, why)
        block, why = _feed_forward(layer, attention, fits)
        out.note(("mlp", at), block, width, why)
        out.note(("into", at), block, width, why)
        last, inner = (None, 0) if block is None else seen.last.get(id(block), (None, 0))
        why = why or f"{type(block).__name__} does not end in one product with weights"
        out.note(("neuron", at), last, inner, why)
    return out


def _feed_forward(
    layer: torch.nn.Module, attention: torch.nn.Module | None, fits: Callable[[torch.nn.Module], bool]
) -> tuple[torch.nn.Module | None, str]:
    """Give the feed-forward block of a layer, or why there is none."""
    parts = {name: m for name, m in layer.named_children() if attention not in set(m.modules()) and fits(m)}
    blocks = {name: m for name, m in parts.items() if not _is_product(m) and _holds_products(m)}
    named = {name: m for name, m in blocks.items() if any(word in name for word in _FEED_FORWARD)}
    # Something else may be learned beside the block; and some layers hold its products themselves.
    alone = blocks or {name: m for name, m in parts.items() if _is_product(m)}
    # What stands in the place of attention is no feed-forward block.
    found = named if len(blocks) > 1 or attention is None else alone
    if len(found) == 1:
        return next(iter(found.values())), ""
    if len(named) > 1:
        return None, f"the layer has several feed-forward blocks ({', '.join(named)})"
    return None, "the layer has no one feed-forward block"


def _is_product(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim >= 2


def _holds_products(module: torch.nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters())


class _Seen:
    """What the parts of a model's layers were given and gave in one run."""

    def __init__(self, attend: Handler) -> None:
        self.attend = attend
        self.attentions: list[torch.nn.Module] = []
        self.projects: dict[int, bool] = {}
        """Whether an attention module multiplies its heads' outputs by weights."""
        self.given: dict[int, torch.Size] = {}
        self.gave: dict[int, torch.Size] = {}
        self.calls: dict[int, int] = {}
        self.last: dict[int, tuple[torch.nn.Module, int]] = {}
        """The product whose output is a module's own, and the width of what that product was given."""
        self._product: tuple[torch.nn.Module, int, torch.Tensor] | None = None

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        self.attentions.append(call.module)
        self.projects[id(call.module)] = False
        return self.attend(call)

    @contextmanager
    def watching(self, layers: Sequence[torch.nn.Module]) -> Iterator[None]:
        """Watch some layers and all their parts."""
        with ExitStack() as stack:
            for module in dict.fromkeys(m for layer in layers for m in layer.modules()):
                self.calls[id(module)] = 0
                stack.callback(module.register_forward_hook(self._after, with_kwargs=True).remove)
            yield
        self._product = None

    def _after(
        self,
        module: torch.nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,  # noqa: ANN401  # whatever it gives
    ) -> None:
        x = args[0] if args else kwargs.get("hidden_states")
        y = output[0] if isinstance(output, tuple) and output else output
        key = id(module)
        self.calls[key] += 1
        if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
            return
        self.given[key], self.gave[key] = x.shape, y.shape
        if _is_product(module):
            self._product = module, x.shape[-1], y
            if self.attentions and module in set(self.attentions[-1].modules()):
                self.projects[id(self.attentions[-1])] = True
        if self._product is None:
            return
        last, width, own = self._product
        alike = own.numel() == y.numel() and torch.equal(own.reshape(-1), y.reshape(-1))
        if alike and last in set(module.modules()) and self.calls[id(last)] == 1:
            self.last[key] = last, width
