"""Opening a model: probe it, check that interception leaves its logits alone, lend it out."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from whyprompt.errors import MediationError
from whyprompt.mediation.engine import ModelRuntime, Recorder, check_finite, check_vocabulary
from whyprompt.mediation.intercept import handling, intercept
from whyprompt.mediation.packing import WORTHWHILE, Packed, plan_stretches
from whyprompt.mediation.support import refuse, refuse_known, tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whyprompt.mediation.intercept import AttentionCall

__all__ = ["model_runtime"]


@contextlib.contextmanager
def model_runtime(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    *,
    check: tuple[Sequence[int], Sequence[int]] | None = None,
    item: str = "",
    max_extra_bytes: int = 256 << 20,
) -> Iterator[ModelRuntime]:
    """Probe a model, check that interception leaves its logits alone, and lend it out.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model.
    check : (ids, answer), optional
        A prompt and answer on which the model's own logits must be met; the longest is best,
        since windows and chunks show only there.
    item : str
        The item that `check` belongs to, named in errors.
    max_extra_bytes : int
        Budget for the activations of a batch of patched rows.

    Yields
    ------
    ModelRuntime

    Raises
    ------
    MediationError
        If the architecture cannot be analysed; the message names it. If the model's logits are not finite.
    """
    model_type = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    module = isinstance(model, torch.nn.Module)
    if not module or not hasattr(model, "get_decoder"):
        raise MediationError(
            f"model is a {type(model).__name__}, not a causal language model of transformers",
            hint="give what AutoModelForCausalLM.from_pretrained returns, or load_model(...).model",
        )
    refuse_known(model, model_type)
    ids, answer = check if check is not None else ((0, 1, 2, 3), (1,))
    check_vocabulary(model, ids, answer, item)
    tokens = torch.tensor([[*ids, *answer[:-1]]], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            trunk, output, own = _find_trunk(model, model_type, tokens, len(answer))
    finally:
        model.train(was_training)
    # Before the comparison: what is not a number is never the same, whatever the architecture does.
    check_finite(own, item)
    with torch.inference_mode(), intercept(model):
        recorder = Recorder(len(answer), keep_layers=False)
        probe = _Probe(recorder, tokens[0].tolist(), len(answer))
        positions = torch.arange(tokens.shape[1], device=model.device)[None]
        with handling(probe):
            out = trunk(input_ids=tokens, position_ids=positions, use_cache=False)
        hidden = out.last_hidden_state[:, -len(answer) :]
        layers = _decoder_layers(model, model_type, recorder)
        runtime = ModelRuntime(
            model,
            model_type,
            trunk,
            output,
            layers,
            recorder.heads[0],
            _row_width(layers[0]),
            max_extra_bytes,
            recorder.token_bytes,
        )
        logits = runtime.head(hidden)
        off = float((logits - own).abs().max())
        limit = tolerance(torch.finfo(logits.dtype).eps) * max(1.0, float(own.abs().max()))
        if not off <= limit:
            raise refuse(
                model_type,
                f"its logits change by {off:.2g} under a registered attention function ({limit:.2g} allowed)",
            )
        runtime = _with_plain_head(runtime, hidden, logits)
        yield _try_packing(runtime, probe, tokens.shape[1])


class _Probe:
    """Attention of a whole run, and how far that of two runs in a pack is from it, layer by layer.

    The second run of the pack begins inside the first: their own tokens, one behind the other, are
    the whole run's. So both attend to the same queries, keys and values, and no pass is made twice.
    """

    def __init__(self, recorder: Recorder, tokens: list[int], n_answer: int) -> None:
        self.recorder = recorder
        self.off = 0.0
        half = max((len(tokens) - n_answer) // 2, WORTHWHILE) + 1
        runs = [(tokens[:half], 1), (tokens, n_answer)]
        self._stretches = plan_stretches(runs) if half < len(tokens) - n_answer else []

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        z = self.recorder(call)
        if self.recorder.plain and self._stretches:
            # Anew for each layer, so that nothing is kept of the last one.
            packed = Packed(self._stretches, keep_weights=False, patched=[False, False])(call)
            limit = tolerance(torch.finfo(z.dtype).eps) * max(1.0, float(z.abs().max()))
            self.off = max(self.off, float((packed - z).abs().max()) / limit)
        return z

    @property
    def packs(self) -> bool:
        """Whether runs may be packed: every mask is plainly causal, and a pack gives the same."""
        return self.recorder.plain and bool(self._stretches) and self.off <= 1


def _with_plain_head(runtime: ModelRuntime, hidden: torch.Tensor, logits: torch.Tensor) -> ModelRuntime:
    """Note the head's weights where it is one product with them: no bias, scaling or capping."""
    head = runtime.model.get_output_embeddings()
    plain: bool = type(head) is torch.nn.Linear and head.bias is None
    if not plain:
        return runtime
    again = torch.nn.functional.linear(hidden, head.weight)
    limit = 8 * torch.finfo(logits.dtype).eps * max(1.0, float(logits.abs().max()))
    same = again.shape == logits.shape and float((again - logits).abs().max()) <= limit
    return replace(runtime, unembedding=head.weight) if same else runtime


def _try_packing(runtime: ModelRuntime, probe: _Probe, length: int) -> ModelRuntime:
    """Allow packed runs, up to the length that was tried, where they give a whole run's numbers."""
    return replace(runtime, packs_up_to=length) if probe.packs else runtime


def _find_trunk(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    model_type: str,
    tokens: torch.Tensor,
    n: int,
) -> tuple[Any, type, torch.Tensor]:
    """Find the decoder whose output the model's head reads, its output class, and the model's own logits."""
    # All logits of a long prompt would not fit; the head is checked on its first tokens.
    few = tokens[:, :8]
    for trunk in (model.get_decoder(), model.base_model):
        if trunk is model:
            continue
        seen: list[Any] = []
        handle = trunk.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out))
        try:
            logits = model(input_ids=few, use_cache=False).logits
        finally:
            handle.remove()
        if seen and hasattr(seen[0], "last_hidden_state"):
            runtime = ModelRuntime(model, model_type, trunk, type(seen[0]), [], 0, 0, 0)
            again = runtime.head(seen[0].last_hidden_state)
            if logits.shape != again.shape or not torch.allclose(
                logits, again, rtol=1e-5, atol=1e-5, equal_nan=True
            ):
                continue
            return (
                trunk,
                type(seen[0]),
                runtime.head(trunk(input_ids=tokens, use_cache=False).last_hidden_state[:, -n:]),
            )
    raise refuse(model_type, "no decoder was found whose output its language-model head reads")


def _decoder_layers(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    model_type: str,
    recorder: Recorder,
) -> list[torch.nn.Module]:
    """List the decoder layers in the order in which they call the attention function."""
    if not recorder.modules:
        raise refuse(model_type, "it never calls a registered attention function")
    if len({id(m) for m in recorder.modules}) != len(recorder.modules):
        raise refuse(model_type, "it calls the attention function more than once a layer")
    names = {id(m): name for name, m in model.named_modules()}
    layers: list[torch.nn.Module] = []
    total = 0
    for module in recorder.modules:
        parts = names[id(module)].split(".")
        for i in range(1, len(parts) + 1):
            parent = model.get_submodule(".".join(parts[: i - 1]))
            if isinstance(parent, torch.nn.ModuleList):
                layers.append(model.get_submodule(".".join(parts[:i])))
                total = len(parent)
                break
    if len({id(m) for m in layers}) != len(recorder.modules):
        raise refuse(model_type, "its attention layers are not one a decoder layer")
    if total != len(layers):
        raise refuse(model_type, f"only {len(layers)} of its {total} layers call the attention function")
    if len(set(recorder.heads)) != 1:
        raise refuse(model_type, f"its layers have different numbers of heads: {recorder.heads}")
    return layers


def _row_width(layer: torch.nn.Module) -> int:
    """Numbers that one row holds at a time inside one layer, about."""
    shapes = [p.shape for p in layer.parameters() if p.ndim >= 2]
    return 6 * max((max(s[-2:]) for s in shapes), default=1)
