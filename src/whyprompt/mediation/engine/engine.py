"""Exact patched runs at the price of the answer positions.

A clean run of each prompt keeps the keys and values before its window, the answer positions
or all tokens that both prompts end with, and the heads' outputs z in it. A patched run then
needs the window only. The patched runs of several pairs are rows of one batch. Every row
attends to the clean prefix of its pair, which is shared, and to its own keys and values in
the window.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.attention import LayerState, World
from whyprompt.mediation.engine.blocks import find_blocks, recording
from whyprompt.mediation.engine.clean import Recorder
from whyprompt.mediation.engine.differences import carried_scores
from whyprompt.mediation.engine.freezing import holding
from whyprompt.mediation.engine.intercept import handling
from whyprompt.mediation.engine.packing import Packed, plan_stretches
from whyprompt.mediation.engine.patching import Enough, Job, Plan, rows_in_play, split_jobs
from whyprompt.mediation.engine.rivals import over_rivals
from whyprompt.mediation.engine.scoring import scored_by_head, scored_in_cache
from whyprompt.mediation.engine.support import refuse, refusing, tolerance
from whyprompt.mediation.engine.tracing import Traced, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from whyprompt.mediation.engine.blocks import Blocks, Place
    from whyprompt.mediation.engine.clean import Observer
    from whyprompt.mediation.engine.intercept import AttentionCall
    from whyprompt.mediation.engine.patching import Part
    from whyprompt.mediation.engine.sites import Kind


@dataclass(frozen=True, slots=True)
class ModelRuntime:
    """A causal language model, probed and ready for clean and patched runs.

    Built by `opening.model_runtime`; valid only inside its context.
    """

    model: Any
    model_type: str
    trunk: Any
    trunk_output: type
    layers: list[torch.nn.Module]
    n_heads: int
    row_width: int
    max_extra_bytes: int
    token_bytes: int = 0
    """Bytes of the keys and values of one token, all layers together."""
    value_width: int = 0
    """Numbers in one head's output for a token."""
    packs_up_to: int = 0
    """Length up to which runs may be packed; 0 for never."""
    unembedding: torch.Tensor | None = None
    """Weights of the model's head, (vocabulary, hidden), where it is a product with them and no more."""
    attending: Collection[int] = ()
    """The layers that have attention."""
    whole_rows: bool = False
    """Whether patched rows carry the whole prompt, since more than keys and values is handed on in it."""
    least_row_bytes: int = 0
    """Bytes that any of those rows is taken to need at a time."""
    at_once: bool = False
    """Whether all rows enter at the first layer: same numbers, about twice the work."""
    spare: bool = True
    """Whether batches may be filled up to sizes that are multiplied faster."""
    by_differences: bool = False
    """Whether patched rows go by bfloat16 products of their differences from the clean run."""
    gated: bool = False
    """Whether a step that reads the hidden states stands between z and the output projection."""
    device: torch.device | None = None
    """Where the model takes its tokens."""
    notes: tuple[str, ...] = ()
    """What a reader of a sweep has to know of this architecture."""
    memo: dict[str, Blocks] = field(default_factory=dict)
    """The blocks, once they have been asked for."""

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @property
    def blocks(self) -> Blocks:
        """The modules behind sites other than heads, found by a run of a few tokens when first asked for."""
        if "blocks" not in self.memo:
            few = min(4, self.model.get_input_embeddings().num_embeddings)
            attend = Recorder(1, keep_layers=False)
            self.memo["blocks"] = find_blocks(
                self.model_type,
                self.layers,
                self.attending,
                attend,
                lambda h: self._run_trunk([range(few)], [range(few)], h),
            )
        return self.memo["blocks"]

    def width(self, kind: Kind, layer: int) -> int:
        """Count the heads or neurons of a layer, or the numbers that another site of it has a token."""
        heads = self.n_heads if layer in self.attending else 0
        return heads if kind == "head" else self.blocks.width((kind, layer))

    @property
    def number_bytes(self) -> int:
        """Bytes of a number that passes through: half precision is computed in float32."""
        return max(4, int(self.model.dtype.itemsize))

    # ---- clean runs -------------------------------------------------------------------

    def clean(
        self,
        ids: Sequence[int],
        answer: Sequence[int],
        *,
        keep_layers: bool = True,
        keep_weights: bool = False,
        patched: bool = True,
        item: str = "",
        window: int | None = None,
        places: Collection[Place] = (),
        rival: int | None = None,
    ) -> World:
        """Run a prompt with its answer, teacher-forced, and keep what patched runs need.

        `keep_layers`: keys, values and head outputs; `keep_weights`: the attention rows of the window;
        without `patched`, keys and values are not kept. `window` is how many last tokens patched rows carry,
        the answer positions by default; `places` are blocks whose outputs are kept there. A token outside the
        vocabulary and logits that are not finite are refused; `item` is named in errors, here and below.
        `rival` as in `World`.
        """
        tokens = self._tokens(ids, answer, item)
        n, window = len(answer), window or len(answer)
        recorder = Recorder(
            window,
            keep_layers=keep_layers,
            keep_weights=keep_weights,
            patched=patched,
            carried=len(tokens) if self.whole_rows else window,
        )
        with self._recording(places, [slice(len(tokens) - window, len(tokens))]) as (outputs,):
            hidden = self._run_trunk([tokens], [range(len(tokens))], recorder)[0, -n:]
        log_probs, scale = self.scored(hidden, answer, [rival] * n)
        check_finite(log_probs, item)
        states = self.by_layer(recorder.states)
        rest = window, outputs, rival, self.whole_rows
        return World(tokens, tuple(answer), states, hidden, log_probs, scale, *rest)

    def by_layer(self, states: list[LayerState]) -> list[LayerState]:
        """Give every layer its state, one of no heads where it has no attention."""
        if not states or len(states) == self.n_layers:
            return states
        like = states[0]
        none = LayerState(None, None, like.z[:, :0], None, None if like.weights is None else like.weights[:0])
        known = dict(zip(self.attending, states, strict=True))
        return [known.get(layer, none) for layer in range(self.n_layers)]

    def clean_many(
        self,
        runs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        keep_weights: bool = False,
        items: Sequence[str] | None = None,
        patched: Sequence[bool] | None = None,
        windows: Sequence[int] | None = None,
        places: Collection[Place] = (),
        rivals: Sequence[int | None] | None = None,
    ) -> list[World]:
        """Run several prompts with their answers, in one pass where the model allows it.

        As `clean` does, with `items`, whether each run is to be `patched` (all by default), `windows` and
        `rivals` one a run.
        """
        names = [""] * len(runs) if items is None else items
        against = [None] * len(runs) if rivals is None else rivals
        bases = [True] * len(runs) if patched is None else patched
        tokens = [self._tokens(ids, answer, name) for (ids, answer), name in zip(runs, names, strict=True)]
        spans = [len(answer) for _, answer in runs] if windows is None else windows
        stretches = plan_stretches([*zip(tokens, spans, strict=True)])
        too_long = max(map(len, tokens)) > self.packs_up_to
        width = self.number_bytes * self.row_width
        if len(runs) == 1 or too_long or stretches[-1].stop * width > self.max_extra_bytes // 2:
            return [
                self.clean(
                    *run,
                    keep_weights=keep_weights,
                    patched=base,
                    item=name,
                    window=span,
                    places=places,
                    rival=rival,
                )
                for run, name, base, span, rival in zip(runs, names, bases, spans, against, strict=True)
            ]
        handler = Packed(stretches, keep_weights=keep_weights, patched=bases)
        own = [t[s.shared :] for t, s in zip(tokens, stretches, strict=True)]
        lengths = [len(answer) for _, answer in runs]
        with self._recording(places, [slice(s.stop - s.window, s.stop) for s in stretches]) as kept:
            hidden = self._run_trunk(
                [[i for part in own for i in part]],
                [[i for t, s in zip(tokens, stretches, strict=True) for i in range(s.shared, len(t))]],
                handler,
            )[0]
        at_answer = [hidden[s.stop - n : s.stop] for s, n in zip(stretches, lengths, strict=True)]
        gold = [i for _, answer in runs for i in answer]
        others = [rival for rival, (_, answer) in zip(against, runs, strict=True) for _ in answer]
        scored, scale = self.scored(torch.cat(at_answer), gold, others)
        worlds = []
        for t, (_, answer), layers, h, log_probs, name, span, outputs, rival in zip(
            tokens,
            runs,
            handler.states,
            at_answer,
            scored.split(lengths),
            names,
            spans,
            kept,
            against,
            strict=True,
        ):
            check_finite(log_probs, name)
            states = self.by_layer(layers)
            worlds.append(World(t, tuple(answer), states, h.clone(), log_probs, scale, span, outputs, rival))
        return worlds

    def _recording(
        self, places: Collection[Place], windows: Sequence[slice]
    ) -> contextlib.AbstractContextManager[list[dict[Place, torch.Tensor]]]:
        """Keep what some blocks give in a pass; their modules are looked for only where there are any."""
        if not places:
            return contextlib.nullcontext([{} for _ in windows])
        return recording(self.blocks, places, windows)

    def observe(
        self, ids: Sequence[int], answer: Sequence[int], observer: Observer, *, item: str = ""
    ) -> None:
        """Run a prompt with its answer under an observer, which keeps what it was made for."""
        tokens = self._tokens(ids, answer, item)
        self._run_trunk([tokens], [range(len(tokens))], observer)

    def _tokens(self, ids: Sequence[int], answer: Sequence[int], item: str) -> tuple[int, ...]:
        """Input tokens of a run, checked against the vocabulary."""
        check_vocabulary(self.model, ids, answer, item)
        return (*ids, *answer[:-1])

    def log_probs(
        self, hidden: torch.Tensor, answer: Sequence[int], *, item: str = ""
    ) -> tuple[torch.Tensor, float]:
        """Log-probabilities of the answer tokens from the decoder's output (rows, answer, hidden).

        They are (rows, answer), float64, on the CPU; beside them the largest absolute logit of the first
        block.
        """
        rows, n, _ = hidden.shape
        scored, scale = self.scored(hidden.flatten(0, 1), [*answer] * rows)
        log_probs = scored.view(rows, n)
        check_finite(log_probs, item)
        return log_probs, scale

    def scored(
        self, hidden: torch.Tensor, gold: Sequence[int], rivals: Sequence[int | None] = ()
    ) -> tuple[torch.Tensor, float]:
        """Log-probability of one token after each position, and the largest logit of the first block.

        Where `rivals` names a token, the logit less that token's; where it is negative, less the best other.
        """
        target = torch.tensor(gold, device=hidden.device)
        has = [k for k, rival in enumerate(rivals) if rival is not None]
        if has:
            at, named = (torch.tensor(v, device=hidden.device) for v in (has, [rivals[k] for k in has]))
            margins, scale = over_rivals(hidden[at], target[at], named, self.unembedding, self.head)
            if len(has) == len(gold):
                return margins, scale
            without = [k for k, rival in enumerate(rivals) if rival is None]
            every = torch.empty(len(gold), dtype=torch.float64)
            every[has] = margins
            every[without], other = self.scored(hidden[without], [gold[k] for k in without])
            return every, max(scale, other)
        if self.unembedding is not None:
            return scored_in_cache(hidden, target, self.unembedding)
        vocabulary = self.model.get_input_embeddings().num_embeddings
        return scored_by_head(hidden, target, self.head, vocabulary, self.max_extra_bytes // 2)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute the model's own logits from the decoder's output, its scaling and capping included."""

        def stub(*_: object, **__: object) -> Any:  # noqa: ANN401  # the trunk's own output class
            return self.trunk_output(last_hidden_state=hidden)

        with _replaced_forward(self.trunk, stub):
            ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits

    # ---- patched runs -----------------------------------------------------------------

    def patched_many(self, jobs: Sequence[Job]) -> list[torch.Tensor]:
        """Patched runs of several clean runs, their rows in common batches within the budget.

        Gives log-probabilities of the answer tokens, (1 + rows, answer), float64, for each job. The first has
        nothing patched: what it differs from the whole run by is rounding, or the architecture is refused. Of
        several batches, the one that differs most. Rows that go by differences have there what they may be
        off by.
        """
        out = [job.base.log_probs.repeat(1 + len(job.rows), 1) for job in jobs]
        # Runs with as many answer tokens and as wide a window share batches: nothing is padded.
        shapes = [_shape(job.base) for job in jobs]
        for of in sorted(set(shapes)):
            own = [j for j, shape in enumerate(shapes) if shape == of]
            step = len(own)
            if self.by_differences:
                step = max(1, self.max_extra_bytes // max(self._traced_bytes(jobs[j].base) for j in own))
            for at in range(0, len(own), step):
                self._patch([jobs[j] for j in own[at : at + step]], [out[j] for j in own[at : at + step]])
        return out

    def _patch(self, alike: Sequence[Job], out: Sequence[torch.Tensor]) -> None:
        """Fill in what the rows of some jobs give, as in `patched_many`, and their first ones."""
        traced = self._traced(alike)
        batches = [*split_jobs(alike, self._row_bytes, self.max_extra_bytes // 2)]
        done = None if traced is None else carried_scores(self, alike, batches, traced)
        for number, parts in enumerate(batches):
            scored = self._batch_scores(alike, parts) if done is None else done[number]
            first = 0
            for j, own in parts:
                job, last = alike[j], first + 1 + len(own)
                check_finite(scored[first:last], job.item)
                if done is None:
                    self._check_sentinel(job.base, scored[first], job.item)
                rows = out[j]
                off, most = ((r - job.base.log_probs).sum().abs() for r in (scored[first], rows[0]))
                if off > most:
                    rows[0] = scored[first]
                rows[[1 + row for row in own]] = scored[first + 1 : last]
                first = last

    def read_many(self, jobs: Sequence[Job], until: int) -> None:
        """Run patched rows for what their jobs read, up to the attention of one layer; nothing is scored."""
        shapes = [_shape(job.base) for job in jobs]
        for one in sorted(set(shapes)):
            alike = [job for job, shape in zip(jobs, shapes, strict=True) if shape == one]
            for parts in split_jobs(alike, self._row_bytes, self.max_extra_bytes // 2):
                plan = Plan(alike, parts, self.n_layers, at_once=self.at_once, spare=self.spare, until=until)
                with contextlib.suppress(Enough):
                    self.run_plan(plan)

    def _batch_scores(self, jobs: Sequence[Job], parts: Sequence[Part]) -> torch.Tensor:
        plan = Plan(jobs, parts, self.n_layers, at_once=self.at_once, spare=self.spare)
        hidden, n = self.run_plan(plan), len(jobs[0].base.answer)
        gold = [i for job in plan.owners for i in job.base.answer]
        rivals = [job.base.rival for job in plan.owners for _ in range(n)]
        return self.scored(hidden[:, -n:].flatten(0, 1), gold, rivals)[0].view(-1, n)

    def _traced(self, jobs: Sequence[Job]) -> Traced | None:
        """Trace clean runs whose rows go by differences: none that are read, or in which layers are held.

        Nor rows set at several depths: what a product behind the first is off by may go into what is set
        again, and would be corrected all the same.
        """
        if not self.by_differences or any(job.read is not None or job.frozen for job in jobs):
            return None
        if any(len({site[:2] for site in row}) > 1 for job in jobs for row in job.rows):
            return None
        traced = trace(self, jobs)
        for job, row in zip(jobs, traced.log_probs, strict=True):
            self._check_sentinel(job.base, row, job.item)
        return traced

    def _row_bytes(self, base: World) -> int:
        """Bytes that a patched row takes at a time, about."""
        size = base.hidden.element_size() * (self.row_width + 4 * self.n_heads * len(base.ids))
        return max(self.least_row_bytes, base.carried * size)

    def _traced_bytes(self, base: World) -> int:
        """Bytes that a clean run takes while its gradients are traced, about: every layer, and its logits."""
        logits = 16 * len(base.answer) * int(self.model.get_input_embeddings().num_embeddings)
        return logits + 2 * self.n_layers * self._row_bytes(base)

    def run_plan(self, plan: Plan) -> torch.Tensor:
        """Give the decoder's output for a batch's rows, (rows, window, hidden)."""
        n = plan.owners[0].base.carried
        ids = [job.base.ids[-n:] for job in plan.owners]
        at = [range(len(job.base.ids) - n, len(job.base.ids)) for job in plan.owners]
        with contextlib.ExitStack() as stack:
            for place, put in plan.settings():
                stack.enter_context(self.blocks.hooked(place, put))
            if not self.at_once:
                stack.enter_context(rows_in_play(self.layers, plan))
            stack.enter_context(holding(self.layers, plan, self.model_type))
            return self._run_trunk(ids, at, plan)

    def run_rows(
        self, tokens: Sequence[Sequence[int]], at: Sequence[Sequence[int]], handler: _Handler
    ) -> torch.Tensor:
        """Run rows of tokens at their positions, (rows, tokens, hidden); the handler attends for them."""
        return self._run_trunk(tokens, at, handler)

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
        self, tokens: Sequence[Sequence[int]], at: Sequence[Sequence[int]], handler: _Handler
    ) -> torch.Tensor:
        ids, positions = (torch.tensor([[*row] for row in rows], device=self.device) for rows in (tokens, at))
        with refusing(self.model_type, "its decoder was run alone"), handling(handler):
            out = self.trunk(input_ids=ids, position_ids=positions, use_cache=False)
        hidden: torch.Tensor = out.last_hidden_state
        return hidden


def _shape(base: World) -> tuple[int, int, int]:
    return len(base.answer), base.window, base.carried


def check_vocabulary(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    ids: Sequence[int],
    answer: Sequence[int],
    item: str,
) -> None:
    """Refuse a token that the model has no embedding for."""
    vocabulary = model.get_input_embeddings().num_embeddings
    largest = max(*ids, *answer)
    if largest >= vocabulary:
        raise MediationError(
            f"item {item!r}: token id {largest} is outside the vocabulary of {vocabulary}",
            hint="were the prompts tokenised for another model?",
        )


def check_finite(values: torch.Tensor, item: str) -> None:
    """Refuse logits, or log-probabilities made of them, that are not finite."""
    if not torch.isfinite(values).all():
        raise MediationError(
            f"item {item!r}: the model's logits are not finite",
            hint="half precision overflows on some models; load the model in float32",
        )


class _Handler(Protocol):
    def __call__(self, call: AttentionCall, /) -> torch.Tensor: ...


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
