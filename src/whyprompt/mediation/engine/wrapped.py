"""The transformers model inside what TransformerLens or nnsight wrap it in."""

from __future__ import annotations

import copy
from typing import Any

import torch

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.support import tolerance

_LIKE_ITSELF = 1e-3
_INNER = "_original_component"


def plain_model(model: Any) -> Any:  # noqa: ANN401  # what it wraps is known when it is looked at
    """Give the transformers model of a TransformerBridge or of nnsight's model; any other is given back.

    Neither package is imported: a wrapper is known by the package of its class. A bridge puts modules of its
    own in the model's place, with attention that transformers cannot route; the model is put together again
    from its own modules, without a copy of its weights. The bridge is left as it is.

    Parameters
    ----------
    model : object

    Returns
    -------
    object

    Raises
    ------
    MediationError
        If the wrapper holds no transformers model, or none yet, or a bridge computes something else than the
        model that it was made of.
    """
    # An envoy of nnsight hands unknown attributes on, so the class alone is asked.
    names = {c.__module__.partition(".")[0]: c for c in reversed(type(model).__mro__)}
    if "nnsight" in names:
        return _of_nnsight(model)
    if "transformer_lens" in names:
        return _of_lens(model)
    return model


def _of_nnsight(model: Any) -> Any:  # noqa: ANN401  # nnsight ships no type
    own = vars(model)
    if own.get("dispatched") is False or vars(type(model)).get("dispatched") is False:
        raise MediationError(
            f"the weights of this {type(model).__name__} of nnsight are not loaded yet",
            hint="call its dispatch(), or make it with dispatch=True",
        )
    inner = own.get("_module", own.get("_model"))  # the latter before nnsight 0.4
    if not isinstance(inner, torch.nn.Module):
        raise MediationError(
            f"this {type(model).__name__} of nnsight holds no model of transformers",
            hint="load the checkpoint by AutoModelForCausalLM.from_pretrained(...)",
        )
    return inner


def _of_lens(model: Any) -> Any:  # noqa: ANN401  # TransformerLens ships no type
    name = type(model).__name__
    bridged: Any = getattr(model, "original_model", None)
    if not hasattr(bridged, "get_decoder"):
        what = "converted weights, not a" if "Hooked" in name else "no"
        raise MediationError(
            f"this {name} of TransformerLens holds {what} model of transformers",
            hint="give TransformerBridge.boot_transformers(...), or the checkpoint itself by "
            "AutoModelForCausalLM.from_pretrained(...)",
        )
    plain = _own_modules(bridged, {})
    tokens = torch.arange(min(8, bridged.get_input_embeddings().num_embeddings), device=bridged.device)[None]
    training = bridged.training
    try:
        with torch.inference_mode():
            theirs, own = (
                torch.log_softmax(m.eval()(input_ids=tokens).logits.float(), -1) for m in (bridged, plain)
            )
    finally:
        bridged.train(training)
        plain.train(training)
    off, most = float((theirs - own).abs().max()), float(own.abs().max())
    # In half precision a bridge's own attention is a few roundings away.
    if not off <= max(_LIKE_ITSELF, tolerance(torch.finfo(bridged.dtype).eps)) * max(1.0, most):
        raise MediationError(
            f"this {name} gives log-probabilities that differ by {off:.2g} from those of the model it was "
            "made of: its weights were changed, or a hook of its own is at work",
            hint="give one without hooks, as boot_transformers made it, before enable_compatibility_mode()",
        )
    return plain


def _own_modules(module: Any, seen: dict[int, Any]) -> Any:  # noqa: ANN401  # modules of any kind
    """Give a module with the bridge's parts taken out, its parameters and buffers shared."""
    while _INNER in vars(module).get("_modules", {}):
        module = vars(module)["_modules"][_INNER]
    if id(module) in seen:
        return seen[id(module)]
    new = seen[id(module)] = copy.copy(module)
    for name, value in vars(new).items():
        if name.startswith("_") and isinstance(value, dict):
            vars(new)[name] = copy.copy(value)  # hooks put on one are not on the other
    parts = {name: part and _own_modules(part, seen) for name, part in vars(module)["_modules"].items()}
    vars(new)["_modules"] = parts
    return new
