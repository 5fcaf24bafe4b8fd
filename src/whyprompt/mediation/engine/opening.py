"""Opening a model: probe it, check that interception leaves its logits alone, lend it out."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from whyprompt._attention import entry_device
from whyprompt._lean.wide import Narrowed, is_half, wide_layers, wide_product
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.actions import set_output
from whyprompt.mediation.engine.attention import World
from whyprompt.mediation.engine.clean import Recorder
from whyprompt.mediation.engine.differences import choose_products
from whyprompt.mediation.engine.engine import ModelRuntime, check_finite, check_vocabulary
from whyprompt.mediation.engine.intercept import handling, intercept
from whyprompt.mediation.engine.packing import WORTHWHILE, Packed, plan_stretches
from whyprompt.mediation.engine.patching import Job
from whyprompt.mediation.engine.sites import Site
from whyprompt.mediation.engine.support import WHOLE_ROWS, refuse, refuse_known, refusing, tolerance
from whyprompt.mediation.engine.wrapped import plain_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whyprompt.mediation.engine.intercept import AttentionCall

_STAGES = 8
_PLAIN = {torch.nn.Parameter, torch.Tensor}
# So many tensors as large as the largest are taken to be there at a time.
_ALIVE = 4


@contextlib.contextmanager
def model_runtime(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    *,
    check: tuple[Sequence[int], Sequence[int]] | None = None,
    item: str = "",
    max_extra_bytes: int = 256 << 20,
) -> Iterator[ModelRuntime]:
    """Probe a model, check that interception leaves its logits alone, and lend it out.

    The model's own logits must be met on `check`, a prompt's ids and an answer's (those of `item`); the
    longest is best, since windows and chunks show only there. `max_extra_bytes` is the budget for the
    activations of a batch of patched rows. An architecture that cannot be analysed is refused by name, as are
    logits that are not finite.
    """
    model = plain_model(model)
    model_type = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    module = isinstance(model, torch.nn.Module)
    if not module or not hasattr(model, "get_decoder"):
        raise MediationError(
            f"model is a {type(model).__name__}, not a causal language model of transformers",
            hint="give what AutoModelForCausalLM.from_pretrained returns, or load_model(...).model",
        )
    refuse_known(model, model_type)
    device = _entry_device(model, model_type)
    ids, answer = check if check is not None else ((0, 1, 2, 3), (1,))
    check_vocabulary(model, ids, answer, item)
    tokens = torch.tensor([[*ids, *answer[:-1]]], device=device)
    half = is_half(model)
    with (
        wide_layers(model, whole=_narrows(model, tokens)) if half else contextlib.nullcontext(),
        _opened(model, model_type, tokens, answer, item, max_extra_bytes) as (opened, whole),
    ):
        runtime = opened
        if half:
            by_differences, note = choose_products(opened, whole, item)
            runtime = replace(opened, by_differences=by_differences, notes=(note, *opened.notes))
        whole.layers.clear()
        yield runtime


def _narrows(model: Any, tokens: torch.Tensor) -> bool:  # noqa: ANN401  # a transformers model ships no type
    """Whether a model's own code casts to the type of its weights, so that all of them have to be float32."""
    was_training = model.training
    model.eval()
    try:
        with wide_layers(model), torch.inference_mode():
            model(input_ids=tokens[:, :2], use_cache=False)
    except (Narrowed, RuntimeError, TypeError):
        return True
    finally:
        model.train(was_training)
    return False


@contextlib.contextmanager
def _opened(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    model_type: str,
    tokens: torch.Tensor,
    answer: Sequence[int],
    item: str,
    max_extra_bytes: int,
) -> Iterator[tuple[ModelRuntime, World]]:
    """Probe a model on one run, and lend it out with that run."""
    n, device = len(answer), tokens.device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            trunk, output, own = _find_trunk(model, model_type, tokens, n)
    finally:
        model.train(was_training)
    # Before the comparison: what is not a number is never the same, whatever the architecture does.
    check_finite(own, item)
    with torch.inference_mode(), intercept(model):
        recorder = Recorder(n, keep_layers=True)
        probe = _Probe(recorder, tokens[0].tolist(), n)
        positions = torch.arange(tokens.shape[1], device=device)[None]
        with refusing(model_type, "its decoder was run alone"), handling(probe), probe.watching(model):
            out = trunk(input_ids=tokens, position_ids=positions, use_cache=False)
        hidden = out.last_hidden_state[:, -n:]
        layers, attending = _decoder_layers(model, model_type, recorder)
        runtime = ModelRuntime(
            model,
            model_type,
            trunk,
            output,
            layers,
            recorder.heads[0],
            max(map(_row_width, layers)),
            max_extra_bytes,
            recorder.token_bytes,
            recorder.states[0].z.shape[-1],
            device=device,
            attending=attending,
            gated=bool(probe.notes),
            notes=(*_precision_note(recorder.states[0].z.dtype), *probe.notes),
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
        log_probs, scale = runtime.log_probs(hidden, answer, item=item)
        states = runtime.by_layer(recorder.states)
        whole = World(tuple(tokens[0].tolist()), tuple(answer), states, hidden[0], log_probs[0], scale, n)
        try:
            runtime = _try_packing(_try_stages(runtime, whole, item), probe, tokens.shape[1])
        except MediationError as error:
            runtime, whole = _try_whole_rows(runtime, whole, item, error)
        yield runtime, whole


class _Largest(TorchDispatchMode):
    """How many bytes the largest tensor takes that a run makes: scans in plain torch make very large ones."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.nbytes = 0
        own = (t for t in (*model.parameters(), *model.buffers()) if type(t) in _PLAIN)
        self._weights = {t.untyped_storage().data_ptr() for t in own}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        _: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever the operation gives
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, list | tuple) else (out,):
            if type(value) in _PLAIN:
                own = value.untyped_storage()
                if own.data_ptr() not in self._weights:
                    self.nbytes = max(self.nbytes, own.nbytes())
        return out


def _try_whole_rows(
    runtime: ModelRuntime, whole: World, item: str, error: MediationError
) -> tuple[ModelRuntime, World]:
    """Let rows carry the whole prompt, where the answer positions alone do not give the answer."""
    runtime = replace(runtime, whole_rows=True, notes=(*runtime.notes, WHOLE_ROWS))
    try:
        with _Largest(runtime.model) as largest:
            again = runtime.clean(whole.ids[: len(whole.ids) - whole.window + 1], whole.answer, item=item)
        runtime = replace(runtime, least_row_bytes=_ALIVE * largest.nbytes)
        return _try_stages(runtime, again, item), again
    except MediationError:
        raise error from None


def _precision_note(dtype: torch.dtype) -> tuple[str, ...]:
    """Say what half precision does to effects."""
    if torch.finfo(dtype).eps < 1e-4:
        return ()
    name = str(dtype).removeprefix("torch.")
    note = (
        f"the model was run in {name}, whose rounding can be as large as the effect of a head and turn its "
        "sign; load it in float32"
    )
    return (note,)


def _entry_device(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    model_type: str,
) -> torch.device:
    """Where the model takes its tokens; weights that have no values and that nobody will load are refused."""
    without = (
        name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.device.type == "meta"
    )
    if (name := next(without, None)) and not any(hasattr(m, "_hf_hook") for m in model.modules()):
        raise MediationError(
            f"{name!r} of {model_type!r} holds no values (it is on the device 'meta')",
            hint="load the model's weights, for example by load_model(...)",
        )
    return entry_device(model)


class _Probe:
    """Attention of a whole run, and how far that of two runs in a pack is from it, layer by layer.

    The second run of the pack begins inside the first: their own tokens, one behind the other, are
    the whole run's. So both attend to the same queries, keys and values, and no pass is made twice.
    """

    def __init__(self, recorder: Recorder, tokens: list[int], n_answer: int) -> None:
        self.recorder = recorder
        self.off = 0.0
        self._last: tuple[set[int], torch.Tensor] | None = None
        self._handed_on: list[list[bool]] = []
        half = max((len(tokens) - n_answer) // 2, WORTHWHILE) + 1
        runs = [(tokens[:half], 1), (tokens, n_answer)]
        self._stretches = plan_stretches(runs) if half < len(tokens) - n_answer else []

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        z = self.recorder(call)
        self._last = {id(m) for m in call.module.modules()}, z
        self._handed_on.append([])
        if self.recorder.plain and self._stretches:
            # Anew for each layer, so that nothing is kept of the last one.
            packed = Packed(self._stretches, keep_weights=False, patched=[False, False])(call)
            limit = tolerance(torch.finfo(z.dtype).eps) * max(1.0, float(z.abs().max()))
            self.off = max(self.off, float((packed - z).abs().max()) / limit)
        return z

    @contextlib.contextmanager
    def watching(self, model: torch.nn.Module) -> Iterator[None]:
        """See whether the products inside the attention modules that come after z are given z itself."""
        handles = [
            module.register_forward_pre_hook(self._see)
            for module in model.modules()
            if isinstance(weight := getattr(module, "weight", None), torch.Tensor) and weight.ndim >= 2
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._last = None

    def _see(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if self._last is None or id(module) not in self._last[0] or not args:
            return
        x, z = args[0], self._last[1]
        alike = (x.numel(), x.dtype) == (z.numel(), z.dtype)
        same = alike and torch.equal(x.reshape(-1), z.reshape(-1).to(x.device))
        self._handed_on[-1].append(same)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which z is meant, where the output projection is given something else."""
        between = sum(bool(seen) and not any(seen) for seen in self._handed_on)
        if not between:
            return ()
        some = "" if between == len(self._handed_on) else f" in {between} of {len(self._handed_on)} layers"
        note = (
            "z is what the attention of a head gives, before the gate, norm or other step that stands "
            f"between it and the output projection{some}"
        )
        return (note,)

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
    weight: Any = head.weight
    # Quantised weights know few operations; a layer on another device moves what it is given.
    if type(weight) not in _PLAIN or weight.device != hidden.device:
        return runtime
    narrow = weight.dtype != hidden.dtype
    again = wide_product(hidden, weight) if narrow else torch.nn.functional.linear(hidden, weight)
    limit = 8 * torch.finfo(logits.dtype).eps * max(1.0, float(logits.abs().max()))
    same = again.shape == logits.shape and float((again - logits).abs().max()) <= limit
    return replace(runtime, unembedding=weight) if same else runtime


def _try_packing(runtime: ModelRuntime, probe: _Probe, length: int) -> ModelRuntime:
    """Allow packed runs, up to the length that was tried, where they give a whole run's numbers."""
    return replace(runtime, packs_up_to=length) if probe.packs else runtime


def _try_stages(runtime: ModelRuntime, whole: World, item: str) -> ModelRuntime:
    """Let rows join at the layer they patch where that gives what rows that all enter at the bottom give.

    Some models hand more from layer to layer than their hidden states: keys and values that later layers
    use again, or several streams. Rows that join at some layers, the last among them, without those layers'
    heads, show it; another pair's rows after them change their places in the batch.
    """
    attending = [*runtime.attending]
    count = min(_STAGES, len(attending))
    at = sorted({attending[round(i * (len(attending) - 1) / max(1, count - 1))] for i in range(count)})
    rows = [[Site("head", layer, head) for head in range(runtime.n_heads)] for layer in at]
    nothing = set_output([replace(state, z=torch.zeros_like(state.z)) for state in whole.layers])
    jobs = [Job(whole, rows, nothing, item), Job(whole, rows[:1] + rows[-1:], nothing, item)]
    at_once = replace(runtime, at_once=True)
    wanted = torch.cat(at_once.patched_many(jobs))
    try:
        # Spare rows would make the sizes of some layers alike that are not.
        staged = torch.cat(replace(runtime, spare=False).patched_many(jobs))
    except MediationError:
        return at_once
    limit = tolerance(torch.finfo(whole.hidden.dtype).eps) * max(1.0, whole.scale)
    return runtime if float((staged - wanted).abs().max()) <= limit else at_once


def _find_trunk(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    model_type: str,
    tokens: torch.Tensor,
    n: int,
) -> tuple[Any, type, torch.Tensor]:
    """Find the decoder whose output the model's head reads, its output class, and the model's last logits."""
    candidates = model.get_decoder(), model.base_model, getattr(model, "model", None)
    for trunk in dict.fromkeys(candidates):
        if trunk is model or not isinstance(trunk, torch.nn.Module):
            continue
        watched = _Watched(n)
        with watched.on(trunk), refusing(model_type, "it was run on tokens alone"):
            logits = model(input_ids=tokens, use_cache=False).logits
        if len(watched.outputs) != 1:
            continue
        given, output = watched.given[0], watched.outputs[0]
        if given != (tokens.shape[1], 0):
            raise refuse(
                model_type,
                f"it hands its decoder more than the prompt ({given[0]} tokens and {given[1]} cached ones "
                f"for {tokens.shape[1]}), as prompt and prefix tuning do; a sweep would leave their virtual "
                "tokens out",
                hint="write the tuned prompt as text, or use the model without it",
            )
        again = ModelRuntime(model, model_type, trunk, type(output), [], 0, 0, 0).head(
            output.last_hidden_state
        )
        if logits.shape == again.shape and torch.allclose(
            logits, again, rtol=1e-5, atol=1e-5, equal_nan=True
        ):
            return trunk, type(output), logits
    raise refuse(model_type, "no decoder was found whose output its language-model head reads")


class _Watched:
    """What a decoder is given and gives in a run of the whole model, of which the last positions go on.

    All logits of a long prompt would not fit.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.given: list[tuple[int, int]] = []
        """Tokens, and tokens whose keys and values are handed over ready."""
        self.outputs: list[Any] = []

    @contextlib.contextmanager
    def on(self, trunk: torch.nn.Module) -> Iterator[None]:
        """Watch a decoder."""
        handles = (
            trunk.register_forward_pre_hook(self._before, with_kwargs=True),
            trunk.register_forward_hook(self._after),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = [kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args]
        count = next(x.shape[1] for x in named if isinstance(x, torch.Tensor) and x.ndim >= 2)
        cached = [x.get_seq_length() for x in kwargs.values() if hasattr(x, "get_seq_length")]
        self.given.append((count, max(map(int, cached), default=0)))

    def _after(self, _: torch.nn.Module, __: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401  # the decoder's own class
        if not hasattr(output, "last_hidden_state"):
            return output
        output.last_hidden_state = output.last_hidden_state[:, -self.n :]
        self.outputs.append(output)
        return output


def _decoder_layers(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    model_type: str,
    recorder: Recorder,
) -> tuple[list[torch.nn.Module], list[int]]:
    """List the decoder layers, and say which call the attention function, in the order in which they do."""
    if not recorder.modules:
        raise refuse(model_type, "it never calls a registered attention function")
    if len({id(m) for m in recorder.modules}) != len(recorder.modules):
        raise refuse(model_type, "it calls the attention function more than once a layer")
    names = {id(m): name for name, m in model.named_modules()}
    stack: Any = None
    attending: list[int] = []
    for module in recorder.modules:
        parts = names[id(module)].split(".")
        for i in range(1, len(parts) + 1):
            parent = model.get_submodule(".".join(parts[: i - 1]))
            if isinstance(parent, torch.nn.ModuleList):
                if parent is stack or stack is None:
                    stack = parent
                    attending.append(int(parts[i - 1]))
                break
    if sorted(set(attending)) != attending or len(attending) != len(recorder.modules):
        raise refuse(model_type, "its attention layers are not one a decoder layer")
    if len(set(recorder.heads)) != 1:
        raise refuse(model_type, f"its layers have different numbers of heads: {recorder.heads}")
    return [*stack], attending


def _row_width(layer: torch.nn.Module) -> int:
    """Numbers that one row holds at a time inside one layer, about."""
    shapes = [p.shape for p in layer.parameters() if p.ndim >= 2]
    return 6 * max((max(s[-2:]) for s in shapes), default=1)
