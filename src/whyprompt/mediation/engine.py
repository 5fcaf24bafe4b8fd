"""Exact patched runs at the price of the answer positions.

A clean run of each prompt keeps the keys and values before the answer positions, and the
heads' outputs z at them. A patched run then needs the answer positions only. All patched
runs are rows of one batch: row 0 is never patched, the others join the batch as its copies
at the first layer they patch. Every row attends to the clean prefix, which is shared, and
to its own keys and values at the answer positions.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from whyprompt.errors import MediationError
from whyprompt.mediation.attention import LayerState, attend_blockwise, attend_rows, attention_weights
from whyprompt.mediation.intercept import AttentionCall, grow_rows, handling, intercept
from whyprompt.mediation.support import ENTER_AT_BOTTOM, refuse, refuse_known, tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whyprompt.mediation.actions import Action

    HeadSet = Sequence[tuple[int, int]]

__all__ = ["ModelRuntime", "World", "model_runtime"]

_LOGITS_BYTES = 56 << 20


@dataclass(frozen=True, slots=True)
class World:
    """A clean run of one prompt with the answer after it.

    Attributes
    ----------
    ids : tuple of int
        Input tokens: the prompt and all answer tokens but the last.
    answer : tuple of int
        Tokens predicted at the answer positions.
    layers : list of LayerState
        Empty where only the outcome was asked for.
    hidden : Tensor, shape (answer, hidden)
        Output of the decoder at the answer positions.
    log_probs : Tensor, shape (answer,)
        Log-probability of each answer token, float64.
    scale : float
        Largest absolute logit, which sets the scale of rounding.
    """

    ids: tuple[int, ...]
    answer: tuple[int, ...]
    layers: list[LayerState]
    hidden: torch.Tensor
    log_probs: torch.Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class ModelRuntime:
    """A causal language model, probed and ready for clean and patched runs.

    Built by `model_runtime`; valid only inside its context.
    """

    model: Any
    model_type: str
    trunk: Any
    trunk_output: type
    layers: list[torch.nn.Module]
    n_heads: int
    row_width: int
    max_extra_bytes: int

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    # ---- clean runs -------------------------------------------------------------------

    def clean(
        self,
        ids: Sequence[int],
        answer: Sequence[int],
        *,
        keep_layers: bool = True,
        keep_weights: bool = False,
        item: str = "",
    ) -> World:
        """Run a prompt with its answer and keep what patched runs need.

        Parameters
        ----------
        ids : sequence of int
            The prompt.
        answer : sequence of int
            The answer to score, teacher-forced.
        keep_layers : bool, default True
            Whether to keep keys, values and head outputs.
        keep_weights : bool, default False
            Whether to keep the attention rows of the answer positions.
        item : str
            Named in errors.

        Returns
        -------
        World

        Raises
        ------
        MediationError
            If a token is outside the vocabulary or the logits are not finite.
        """
        tokens = (*ids, *answer[:-1])
        vocabulary = self.model.get_input_embeddings().num_embeddings
        if max(*tokens, *answer) >= vocabulary:
            raise MediationError(
                f"item {item!r}: token id {max(*tokens, *answer)} is outside the vocabulary of {vocabulary}",
                hint="were the prompts tokenised for another model?",
            )
        n = len(answer)
        recorder = _Recorder(n, keep_layers=keep_layers, keep_weights=keep_weights)
        hidden = self._run_trunk(tokens, 0, recorder)[0, -n:]
        log_probs, scale = self.log_probs(hidden[None], answer, item=item)
        return World(tokens, tuple(answer), recorder.states, hidden, log_probs[0], scale)

    def log_probs(
        self, hidden: torch.Tensor, answer: Sequence[int], *, item: str = ""
    ) -> tuple[torch.Tensor, float]:
        """Log-probabilities of the answer tokens from the decoder's output.

        Parameters
        ----------
        hidden : Tensor, shape (rows, answer, hidden)
        answer : sequence of int
        item : str
            Named in errors.

        Returns
        -------
        log_probs : Tensor, shape (rows, answer), float64, on the CPU
        scale : float
            Largest absolute logit met.
        """
        gold = torch.tensor(answer, device=hidden.device)[None, :, None]
        vocabulary = self.model.get_input_embeddings().num_embeddings
        # Small blocks of logits are reused by the allocator; large ones are mapped afresh each time.
        per_row = len(answer) * vocabulary * (hidden.element_size() + 4)
        step = max(1, min(self.max_extra_bytes // 2, _LOGITS_BYTES) // per_row)
        out, scale = [], 0.0
        for start in range(0, hidden.shape[0], step):
            logits = self.head(hidden[start : start + step])
            picked = logits.gather(-1, gold.expand(logits.shape[0], -1, -1))[..., 0].double()
            dtype = torch.promote_types(logits.dtype, torch.float32)
            few = max(1, _LOGITS_BYTES // (16 * per_row)) if hidden.device.type == "cpu" else logits.shape[0]
            norm = torch.cat([torch.logsumexp(part.to(dtype), -1) for part in logits.split(few)])
            if start == 0:
                scale = float(logits[0].abs().max())
            out.append((picked - norm.double()).cpu())
        log_probs = torch.cat(out)
        if not torch.isfinite(log_probs).all():
            raise MediationError(
                f"item {item!r}: the model's logits are not finite",
                hint="half precision overflows on some models; load the model in float32",
            )
        return log_probs, scale

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute the model's own logits from the decoder's output, its scaling and capping included.

        Parameters
        ----------
        hidden : Tensor, shape (rows, tokens, hidden)

        Returns
        -------
        Tensor, shape (rows, tokens, vocabulary)
        """

        def stub(*_: object, **__: object) -> Any:  # noqa: ANN401  # the trunk's own output class
            return self.trunk_output(last_hidden_state=hidden)

        with _replaced_forward(self.trunk, stub):
            ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits

    # ---- patched runs -----------------------------------------------------------------

    def patched(
        self, base: World, rows: Sequence[HeadSet], action: Action, *, item: str = ""
    ) -> torch.Tensor:
        """Log-probabilities of the answer tokens, one patched run a row.

        Parameters
        ----------
        base : World
            The clean run that is patched.
        rows : sequence of head sets
            The (layer, head) pairs that each row patches.
        action : Action
            What a patch does.
        item : str
            Named in errors.

        Returns
        -------
        Tensor, shape (rows, answer), float64

        Raises
        ------
        MediationError
            If the unpatched row does not reproduce the clean run, or logits are not finite.
        """
        n = len(base.answer)
        order = sorted(range(len(rows)), key=lambda i: min(layer for layer, _ in rows[i]))
        width = n * base.hidden.element_size() * (self.row_width + 4 * self.n_heads * len(base.ids))
        step = max(1, self.max_extra_bytes // (2 * width))
        out = torch.empty(len(rows), n, dtype=torch.float64)
        for start in range(0, len(order), step):
            chosen = order[start : start + step]
            plan = _Plan(base, [rows[i] for i in chosen], action, self.n_layers)
            hidden = self._run_plan(base, plan)
            log_probs, _ = self.log_probs(hidden, base.answer, item=item)
            self._check_sentinel(base, log_probs[0], item)
            out[chosen] = log_probs[1:]
        return out

    def _run_plan(self, base: World, plan: _Plan) -> torch.Tensor:
        n = len(base.answer)
        tokens = base.ids[-n:]
        offset = len(base.ids) - n
        if self.model_type in ENTER_AT_BOTTOM:
            return self._run_trunk(tokens, offset, plan, rows=1 + sum(plan.entering))
        with grow_rows(self.layers, plan.entering):
            return self._run_trunk(tokens, offset, plan)

    def _check_sentinel(self, base: World, row: torch.Tensor, item: str) -> None:
        off = float((row - base.log_probs).abs().max())
        limit = tolerance(torch.finfo(base.hidden.dtype).eps) * max(1.0, base.scale)
        if not off <= limit:
            raise refuse(
                self.model_type,
                f"with nothing patched, the answer positions alone give log-probabilities that differ by "
                f"{off:.2g} from the whole run's (at most {limit:.2g} allowed; item {item!r})",
            )

    def _run_trunk(
        self, tokens: Sequence[int], offset: int, handler: _Handler, *, rows: int = 1
    ) -> torch.Tensor:
        device = self.model.device
        ids = torch.tensor([tokens], device=device).expand(rows, -1)
        positions = torch.arange(offset, offset + len(tokens), device=device)[None].expand(rows, -1)
        with handling(handler):
            out = self.trunk(input_ids=ids, position_ids=positions, use_cache=False)
        hidden: torch.Tensor = out.last_hidden_state
        return hidden


class _Handler(Protocol):
    def __call__(self, call: AttentionCall, /) -> torch.Tensor: ...


class _Recorder:
    """Attention of a clean run; keeps the answer positions' share of each layer."""

    def __init__(self, n_answer: int, *, keep_layers: bool, keep_weights: bool) -> None:
        self.n = n_answer
        self.keep_layers = keep_layers
        self.keep_weights = keep_weights
        self.states: list[LayerState] = []
        self.modules: list[torch.nn.Module] = []
        self.heads: list[int] = []
        self._masks: dict[tuple[int, int | None], tuple[torch.Tensor, bool, torch.Tensor | None]] = {}
        self._alive: list[torch.Tensor | None] = []  # an id is unique only while its tensor lives

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        self.modules.append(call.module)
        self.heads.append(call.query.shape[1])
        visible, causal, additive = self._mask(call)
        if call.softcap is None and call.sinks is None:
            z = torch.nn.functional.scaled_dot_product_attention(
                call.query,
                call.key,
                call.value,
                attn_mask=None if causal else visible,
                is_causal=causal,
                scale=call.scaling,
                enable_gqa=call.query.shape[1] != call.key.shape[1],
            ).transpose(1, 2)
        else:
            z = attend_blockwise(call, visible)
        if self.keep_layers:
            t = call.key.shape[2] - self.n
            weights = None
            if self.keep_weights:
                weights = attention_weights(call, call.query[:, :, t:], additive)[0]
            self.states.append(
                LayerState(
                    call.key[0, :, :t].contiguous(),
                    call.value[0, :, :t].contiguous(),
                    z[0, t:].clone(),
                    additive,
                    weights,
                )
            )
        return z.contiguous()

    def _mask(self, call: AttentionCall) -> tuple[torch.Tensor, bool, torch.Tensor | None]:
        """Visible (boolean or additive), whether it is plainly causal, and the answer rows."""
        key = (id(call.mask), call.window if call.mask is None else None)
        if key not in self._masks:
            self._alive.append(call.mask)
            t = call.key.shape[2]
            causal = torch.ones(t, t, dtype=torch.bool, device=call.query.device).tril()
            if call.mask is None:
                visible = causal
                if call.window is not None:
                    visible = visible & ~causal.tril(-call.window)
            elif call.mask.shape[0] != 1 or call.mask.shape[1] != 1:
                raise MediationError(
                    f"{type(call.module).__name__} has a mask for each head, which is not supported"
                )
            else:
                visible = call.mask[0, 0, :, :t]
            plain = visible.dtype == torch.bool and torch.equal(visible, causal)
            rows = visible[-self.n :]
            if rows.dtype == torch.bool:
                dtype = call.query.dtype
                rows = torch.zeros(rows.shape, dtype=dtype, device=rows.device).masked_fill_(
                    ~rows, torch.finfo(dtype).min
                )
            self._masks[key] = (visible, plain, rows.clone() if bool((rows != 0).any()) else None)
        return self._masks[key]


class _Plan:
    """Attention of the patched rows of one chunk: shared prefix, own answer positions, patches."""

    def __init__(self, base: World, rows: Sequence[HeadSet], action: Action, n_layers: int) -> None:
        self.base = base
        self.action = action
        self.entering = [0] * n_layers
        self._at = 0
        entries: list[list[tuple[int, int]]] = [[] for _ in range(n_layers)]
        for number, row in enumerate(rows, start=1):
            self.entering[min(layer for layer, _ in row)] += 1
            for layer, head in row:
                entries[layer].append((number, head))
        device = base.hidden.device
        self._entries = [
            tuple(torch.tensor(column, device=device) for column in zip(*layer, strict=True))
            if layer
            else None
            for layer in entries
        ]

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        layer = self._at
        self._at += 1
        state = self.base.layers[layer]
        entries = self._entries[layer]
        z, weights = attend_rows(call, state)
        if entries is not None:
            rows, heads = entries
            new = self.action.output(layer, heads)
            if new is None:
                n_kv = state.values.shape[0]
                kv = heads // (z.shape[2] // n_kv)
                prefix = state.values.shape[1]
                old = weights(rows, heads)
                w = self.action.weights(layer, heads, old).to(z.dtype)
                new = torch.empty(len(rows), z.shape[1], z.shape[3], dtype=z.dtype, device=z.device)
                for j in range(n_kv):
                    at = (kv == j).nonzero()[:, 0]
                    new[at] = (
                        w[at, :, :prefix] @ state.values[j] + w[at, :, prefix:] @ call.value[rows[at], j]
                    )
            z[rows, :, heads] = new.to(z.dtype)
        return z


@contextlib.contextmanager
def _replaced_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


@contextlib.contextmanager
def model_runtime(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    *,
    check: tuple[Sequence[int], Sequence[int]] | None = None,
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
    max_extra_bytes : int
        Budget for the activations of a batch of patched rows.

    Yields
    ------
    ModelRuntime

    Raises
    ------
    MediationError
        If the architecture cannot be analysed; the message names it.
    """
    model_type = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    refuse_known(model, model_type)
    ids, answer = check if check is not None else ((0, 1, 2, 3), (1,))
    tokens = torch.tensor([[*ids, *answer[:-1]]], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            trunk, output, own = _find_trunk(model, model_type, tokens, len(answer))
    finally:
        model.train(was_training)
    with torch.inference_mode(), intercept(model):
        recorder = _Recorder(len(answer), keep_layers=False, keep_weights=False)
        with handling(recorder):
            hidden = trunk(input_ids=tokens, use_cache=False).last_hidden_state[:, -len(answer) :]
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
        )
        logits = runtime.head(hidden)
        off = float((logits - own).abs().max())
        limit = tolerance(torch.finfo(logits.dtype).eps) * max(1.0, float(own.abs().max()))
        if not off <= limit:
            raise refuse(
                model_type,
                f"its logits change by {off:.2g} under a registered attention function ({limit:.2g} allowed)",
            )
        yield runtime


def _find_trunk(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    model_type: str,
    tokens: torch.Tensor,
    n: int,
) -> tuple[Any, type, torch.Tensor]:
    """Find the decoder whose output the model's head reads, its output class, and the model's own logits."""
    candidates = [model.get_decoder(), model.base_model]
    for trunk in candidates:
        if trunk is model:
            continue
        seen: list[Any] = []
        handle = trunk.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out))
        try:
            model(input_ids=tokens[:, :1], use_cache=False)
        finally:
            handle.remove()
        if seen and hasattr(seen[0], "last_hidden_state"):
            runtime = ModelRuntime(model, model_type, trunk, type(seen[0]), [], 0, 0, 0)
            # All logits of a long prompt would not fit; the head is checked on its first tokens.
            few = tokens[:, :8]
            logits = model(input_ids=few, use_cache=False).logits
            again = runtime.head(trunk(input_ids=few, use_cache=False).last_hidden_state)
            if logits.shape != again.shape or not torch.allclose(logits, again, rtol=1e-5, atol=1e-5):
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
    recorder: _Recorder,
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
