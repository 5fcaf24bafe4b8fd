# ruff: noqa: ANN401  # transformers' models ship no type
"""Approximations of what patching a head does, on plain torch autograd: no code of whyprompt.

The exact effect of a patch is Y(base, M(source)) - Y(base, M(base)): the change of the answer's
log-probability when the head's output z at the answer positions is that of the other prompt. Each function
here gives a guess of it for every head, (layers, heads). Positions before the answer's are run once for each
prompt and kept as keys and values, since no patch reaches them; so a pass here is of the answer positions.

attribution         gradient at the base times the difference of z (Nanda 2023)
graddrop            mean size of that over backward passes that leave out one layer each (Kramar et al. 2024)
integrated          mean gradient at points between the two z of a layer, the layer's heads moved together
                    (Hanna et al. 2024: integrated gradients of activations)
integrated_inputs   mean gradient at points between the two prompts' embeddings (Hanna et al. 2024: EAP-IG);
                    only of prompts of one length
magnitude           the length of the difference of z: no gradient

Of a head's query at the answer positions, another mediator: `query_exact`, one patched run a head;
`query_attribution`, gradient times difference; `query_fixed`, the attention row computed anew and the rest
linear (the QK fix of Kramar et al. 2024, which concerns queries and keys; at z there is nothing to mend).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Edit = Callable[[int, torch.Tensor], torch.Tensor]

TOKENS = 2000
"""Rows of a batch times tokens before the answer, at most."""


@dataclass(frozen=True)
class World:
    """A prompt as it is: what stands before the answer positions, and z and queries at them."""

    tokens: torch.Tensor
    answer: torch.Tensor
    past: list[tuple[torch.Tensor, torch.Tensor]]
    z: list[torch.Tensor]
    queries: list[torch.Tensor]
    y: float


def projections(model: Any) -> list[Any]:
    """Give the output projection of every layer's attention, whose input is z."""
    names = {"o_proj", "c_proj", "out_proj", "dense"}
    found = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in names and "att" in (name.split(".") or [""])[-2]
    ]
    if len(found) != len(layers(model)):
        raise ValueError(f"{type(model).__name__}: {len(found)} output projections were found")
    return found


def layers(model: Any) -> list[Any]:
    """Give the decoder's layers."""
    trunk = model.get_decoder()
    return list(trunk.h if hasattr(trunk, "h") else trunk.layers)


def query_modules(model: Any) -> list[Any]:
    """Give the module of every layer whose output begins with the queries."""
    return [m for name, m in model.named_modules() if name.rpartition(".")[2] in {"q_proj", "c_attn"}]


def heads_of(model: Any) -> int:
    return int(model.config.num_attention_heads)


def read(model: Any, ids: Sequence[int], answer: Sequence[int]) -> World:
    """Run a prompt with its answer, teacher-forced: one forward pass."""
    n = len(answer)
    tokens = torch.tensor([[*ids, *answer[:-1]]])
    cache: Any = DynamicCache()
    kept: dict[str, list[torch.Tensor]] = {"z": [], "q": []}
    with torch.no_grad():
        model(input_ids=tokens[:, :-n], cache=cache, use_cache=True, logits_to_keep=1)
        world = World(
            tokens[:, -n:], torch.tensor(answer), [(x.keys, x.values) for x in cache.layers], [], [], 0.0
        )

        def keep(of: str) -> Edit:
            def edit(_: int, x: torch.Tensor) -> torch.Tensor:
                kept[of].append(x.clone())
                return x

            return edit

        y = run(model, world, at_z=keep("z"), at_query=keep("q"))
    return replace(world, z=kept["z"], queries=kept["q"], y=float(y))


@contextlib.contextmanager
def hooked(model: Any, at_z: Edit | None, at_query: Edit | None, drop: bool) -> Iterator[None]:  # noqa: FBT001
    """Let functions of a layer change z and queries; with `drop`, row l has no gradient by layer l."""

    def before(layer: int) -> Any:
        return lambda _, args: (at_z(layer, args[0]), *args[1:]) if at_z else None

    def queries(layer: int) -> Any:
        return lambda _, __, out: at_query(layer, out) if at_query else None

    def cut(layer: int) -> Any:
        def hook(_: Any, args: Any, kwargs: Any, out: Any) -> Any:
            came = args[0] if args else kwargs["hidden_states"]
            left = out[0] if isinstance(out, tuple) else out
            mine = (torch.arange(len(left)) == layer)[:, None, None]
            left = torch.where(mine, came + (left - came).detach(), left)
            return (left, *out[1:]) if isinstance(out, tuple) else left

        return hook

    handles = [p.register_forward_pre_hook(before(i)) for i, p in enumerate(projections(model))]
    handles += [m.register_forward_hook(queries(i)) for i, m in enumerate(query_modules(model))]
    if drop:
        handles += [m.register_forward_hook(cut(i), with_kwargs=True) for i, m in enumerate(layers(model))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(
    model: Any,
    world: World,
    *,
    rows: int = 1,
    at_z: Edit | None = None,
    at_query: Edit | None = None,
    drop: bool = False,
) -> torch.Tensor:
    """Run the answer positions, in some rows: the log-probability of the whole answer in each."""
    cache = DynamicCache()
    for layer, (key, value) in enumerate(world.past):
        cache.update(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1), layer)
    with hooked(model, at_z, at_query, drop):
        logits = model(input_ids=world.tokens.expand(rows, -1), cache=cache, use_cache=True).logits
    return outcome(logits, world.answer)


def outcome(logits: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    picked = torch.log_softmax(logits[:, -len(answer) :].to(dtype), -1)
    return picked.gather(-1, answer[None, :, None].expand(len(logits), -1, 1))[..., 0].sum(-1)


def split(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Lay the last axis out as heads x dimensions."""
    return x.reshape(*x.shape[:-1], heads_of(model), -1)


def by_head(model: Any, gradients: list[torch.Tensor], steps: list[torch.Tensor]) -> Array:
    """Sum gradient times step over positions and dimensions of each head: (rows, layers, heads)."""
    out = [split(model, g * s).sum((1, 3)) for g, s in zip(gradients, steps, strict=True)]
    return np.asarray(torch.stack(out, 1).double().numpy())


def chunks(world: World, rows: int) -> Iterator[range]:
    """Cut rows into batches that fit."""
    before = world.past[0][0].shape[2] if world.past else 1
    step = max(1, TOKENS // max(1, before))
    for start in range(0, rows, step):
        yield range(start, min(rows, start + step))


# ---- z -----------------------------------------------------------------------------------------


def differences(base: World, source: World) -> list[torch.Tensor]:
    return [s - b for b, s in zip(base.z, source.z, strict=True)]


def z_gradients(model: Any, base: World, *, drop: bool = False) -> list[torch.Tensor]:
    """Gradients of the outcome by z at the base; with `drop` one row for every layer left out."""
    rows = len(base.z) if drop else 1
    leaves = [torch.zeros_like(z).expand(rows, -1, -1).clone().requires_grad_() for z in base.z]
    y = run(model, base, rows=rows, at_z=lambda layer, x: x + leaves[layer], drop=drop)
    # What a row leaves out may be all that a layer is connected by.
    return list(torch.autograd.grad(y.sum(), leaves, materialize_grads=True))


def attribution(model: Any, base: World, source: World) -> Array:
    """Gradient at the base times the difference: 2 forward passes and 1 backward."""
    return np.asarray(by_head(model, z_gradients(model, base), differences(base, source))[0])


def graddrop(model: Any, base: World, source: World) -> Array:
    """Mean absolute attribution over the layers left out, one at a time: 2 forward, L backward; no sign."""
    each = by_head(model, z_gradients(model, base, drop=True), differences(base, source))
    return np.asarray(np.abs(each).sum(0) / max(1, len(each) - 1))


def integrated(model: Any, base: World, source: World, steps: int) -> Array:
    """Mean gradient at the middles of `steps` stretches between the two z of a layer: L x steps passes."""
    moves = differences(base, source)
    many = [(layer, (k + 0.5) / steps) for layer in range(len(moves)) for k in range(steps)]
    out = np.zeros((len(moves), heads_of(model)))
    for part in chunks(base, len(many)):
        mine = [many[i] for i in part]
        leaf = torch.zeros(len(mine), *moves[0].shape[1:], dtype=moves[0].dtype, requires_grad=True)

        def at_z(layer: int, x: torch.Tensor, mine: Any = mine, leaf: Any = leaf) -> torch.Tensor:
            share = torch.tensor([a if at == layer else 0.0 for at, a in mine], dtype=x.dtype)[:, None, None]
            here = torch.tensor([at == layer for at, _ in mine])[:, None, None]
            return torch.where(here, base.z[layer] + share * moves[layer] + leaf, x)

        y = run(model, base, rows=len(mine), at_z=at_z)
        (gradient,) = torch.autograd.grad(y.sum(), leaf)
        for row, (layer, _) in enumerate(mine):
            out[layer] += by_head(model, [gradient[row : row + 1]], [moves[layer]])[0, 0] / steps
    return out


def integrated_inputs(
    model: Any, base: World, source: World, ids: tuple[Sequence[int], Sequence[int]], steps: int
) -> Array | None:
    """Mean gradient by z at points between the prompts' embeddings: `steps` passes; None of unequal lengths.

    `ids` are those of the base and of the source.
    """
    if len(ids[0]) != len(ids[1]):
        return None
    given = base.tokens[0, 1:].tolist()  # the answer's tokens but the last
    embed = model.get_input_embeddings()
    with torch.no_grad():
        first, last = (embed(torch.tensor([[*one, *given]])) for one in ids)
    n = len(base.answer)
    share = torch.tensor([(k + 0.5) / steps for k in range(steps)], dtype=first.dtype)[:, None, None]
    leaves = [torch.zeros_like(z).expand(steps, -1, -1).clone().requires_grad_() for z in base.z]

    def at_z(layer: int, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :-n], x[:, -n:] + leaves[layer]], 1)

    with hooked(model, at_z, None, drop=False):
        logits = model(inputs_embeds=first + share * (last - first), use_cache=False).logits
    gradients = torch.autograd.grad(outcome(logits, base.answer).sum(), leaves)
    return np.asarray(by_head(model, list(gradients), differences(base, source)).mean(0))


def magnitude(model: Any, base: World, source: World) -> Array:
    """Length of the difference of z: 2 forward passes; no sign."""
    moves = split(model, torch.cat(differences(base, source)))
    return np.asarray(moves.double().pow(2).sum((1, 3)).sqrt().numpy())


# ---- queries -----------------------------------------------------------------------------------


def query_moves(base: World, source: World) -> list[torch.Tensor]:
    """Differences of the queries, which come first in what their module gives; they are as wide as z."""
    each = zip(base.queries, source.queries, base.z, strict=True)
    return [(s - b)[..., : z.shape[-1]] for b, s, z in each]


def query_exact(model: Any, base: World, source: World) -> Array:
    """What it does that one head's query at the answer positions is the other prompt's: one row a head."""
    moves, count = query_moves(base, source), heads_of(model)
    size = moves[0].shape[-1] // count
    out = np.zeros(len(moves) * count)
    for part in chunks(base, len(out)):

        def at_query(layer: int, x: torch.Tensor, part: range = part) -> torch.Tensor:
            x = x.clone()
            for row, i in enumerate(part):
                if i // count == layer:
                    own = slice(i % count * size, (i % count + 1) * size)
                    x[row, :, own] += moves[layer][0, :, own]
            return x

        with torch.no_grad():
            y = run(model, base, rows=len(part), at_query=at_query)
        out[part.start : part.stop] = y.double().numpy() - base.y
    return out.reshape(len(moves), count)


def query_attribution(model: Any, base: World, source: World) -> Array:
    """Gradient by the query times its difference: 2 forward passes and 1 backward."""
    moves = query_moves(base, source)
    leaves = [torch.zeros_like(m).requires_grad_() for m in moves]

    def at_query(layer: int, x: torch.Tensor) -> torch.Tensor:
        rest = x.shape[-1] - leaves[layer].shape[-1]
        return x + torch.nn.functional.pad(leaves[layer], (0, rest))

    gradients = torch.autograd.grad(run(model, base, at_query=at_query).sum(), leaves)
    return np.asarray(by_head(model, list(gradients), moves)[0])


def query_fixed(model: Any, base: World, source: World) -> Array:
    """Gradient by z times what the other query makes of z: attention anew, the rest linear.

    2 forward passes, 1 backward, and the attention of each layer once more.
    """
    moves = query_moves(base, source)
    made = [torch.zeros_like(z) for z in base.z]
    for part in chunks(base, len(moves)):

        def at_query(layer: int, x: torch.Tensor, part: range = part) -> torch.Tensor:
            if layer not in part:
                return x
            x = x.clone()
            x[layer - part.start, :, : moves[layer].shape[-1]] += moves[layer][0]
            return x

        def at_z(layer: int, x: torch.Tensor, part: range = part) -> torch.Tensor:
            if layer in part:
                made[layer] = x[layer - part.start : layer - part.start + 1].clone()
            return x

        with torch.no_grad():
            run(model, base, rows=len(part), at_z=at_z, at_query=at_query)
    steps = [m - z for m, z in zip(made, base.z, strict=True)]
    return np.asarray(by_head(model, z_gradients(model, base), steps)[0])
