"""A sweep as plain arrays by item, layer and head, as other tools hold them, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_CLEAN = ("y00", "y11")
# A patched outcome, the effect that says the same, and the clean outcome it is counted from.
_PATCHED = {"y10": ("nie", "y11"), "y01": ("pure_nie", "y00")}
WORDS = ("outcome", "mediator", "tokens", "model")


def laid_out(values: Array, heads: Sequence[tuple[int, int]], n_layers: int, n_heads: int) -> Array:
    """Lay values, items x heads, out as items x layers x heads; NaN where a head is not among them."""
    out = np.full((len(values), n_layers, n_heads), np.nan)
    layers, columns = np.array(heads, dtype=np.intp).reshape(-1, 2).T
    out[:, layers, columns] = values
    return out


def fields_of(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a sweep from the arrays that `Sweep.from_arrays` takes, checked."""
    clean = {name: _numbers(arrays, name, 1) for name in _CLEAN}
    grids: dict[str, Array] = {}
    for name, (effect, base) in _PATCHED.items():
        if name in arrays:
            grids[name] = _numbers(arrays, name, 3)
        elif effect in arrays:
            sign = 1.0 if base == "y00" else -1.0
            grids[name] = clean[base][:, None, None] + sign * _numbers(arrays, effect, 3)
    if not grids:
        raise MediationError(
            "no array says what patching did: y10, y01, nie and pure_nie are all missing",
            hint="give y10, the outcome of prompt 1 with a head from prompt 0: items x layers x heads",
        )
    first, shape = next((name, grid.shape) for name, grid in grids.items())
    ids = _names(arrays, "item_ids", [str(i) for i in range(shape[0])])
    for name, n in (*((k, len(v)) for k, v in clean.items()), ("item_ids", len(ids))):
        if n != shape[0]:
            raise MediationError(f"{name} has {n} items but {first} has {shape[0]}")
    if len(set(ids)) != len(ids):
        twice = next(item for k, item in enumerate(ids) if item in ids[:k])
        raise MediationError(f"item_ids names item {twice!r} twice", hint="one row an item")
    heads = _swept(grids, first)
    layers, columns = np.array(heads).T
    return {
        **clean,
        **{name: grid[:, layers, columns] for name, grid in grids.items()},
        **{name: str(np.asarray(arrays[name])[()]) for name in WORDS if name in arrays},
        "item_ids": ids,
        "clusters": _names(arrays, "clusters", ids),
        "n_layers": shape[1],
        "n_heads": shape[2],
        "sites": heads,
    }


def _numbers(arrays: Mapping[str, Any], name: str, ndim: int) -> Array:
    """Read one array of numbers with so many axes; a tensor will do."""
    shapes = {1: "items", 3: "items x layers x heads"}
    if name not in arrays:
        raise MediationError(
            f"the array {name} is missing",
            hint=f"the outcome of prompt {name[-1]} as it is, one number an item",
        )
    value = arrays[name]
    # In double, for numpy has no bfloat16.
    value = value.detach().cpu().double() if hasattr(value, "detach") else value
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise MediationError(f"{name} does not hold numbers: {e}") from e
    if array.ndim != ndim or not array.size:
        raise MediationError(
            f"{name} has the shape {array.shape}, and has to be {shapes[ndim]}",
            hint="of a single item, give array[None]; a mean over items has lost what intervals need",
        )
    if ndim == 1 and not np.isfinite(array).all():
        raise MediationError(f"{name} holds values that are not finite", hint="leave the items out")
    return array


def _names(arrays: Mapping[str, Any], name: str, default: Sequence[str]) -> tuple[str, ...]:
    own = np.asarray(arrays.get(name, default))
    if own.ndim != 1 or len(own) != len(default):
        raise MediationError(f"{name} has the shape {own.shape}, and has to name {len(default)} items")
    names = own.tolist()
    for at, one in enumerate(names):
        if one is None or (isinstance(one, float) and np.isnan(one)):
            raise MediationError(
                f"{name} has {one} at {at}, which names no item or cluster",
                hint=f"name each, or leave {name} out",
            )
    return tuple(map(str, names))


def _swept(grids: Mapping[str, Array], first: str) -> tuple[tuple[int, int], ...]:
    """Heads that have a number for every item; one that has it for some items only is refused."""
    for name, grid in grids.items():
        if grid.shape != grids[first].shape:
            raise MediationError(f"{name} has the shape {grid.shape} but {first} has {grids[first].shape}")
        if np.isinf(grid).any():
            raise MediationError(f"{name} holds values that are infinite", hint="leave the items out")
    gaps = np.stack([np.isnan(grid) for grid in grids.values()])
    some = gaps.any((0, 1))
    if (some & ~gaps.all((0, 1))).any():
        layer, head = np.argwhere(some & ~gaps.all((0, 1)))[0]
        raise MediationError(
            f"head {layer}.{head} is NaN for some items and a number for others",
            hint="NaN says that a head was not swept, so it has to be NaN for every item",
        )
    if some.all():
        raise MediationError(f"{first} holds no number at all")
    return tuple((int(layer), int(head)) for layer, head in np.argwhere(~some))
