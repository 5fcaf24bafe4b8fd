"""Patched rows of several pairs in one batch: which row is in play where, and what is patched in it.

Weights are read once for all rows of a batch, so that the few rows of the lower layers cost no
more than their arithmetic. Every pair brings a row of its own that is never patched; the others
join the batch as its copies at the first layer they patch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from whyprompt._lean.products import room_for
from whyprompt.mediation.engine.attention import attend_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whyprompt.mediation.engine.actions import Action
    from whyprompt.mediation.engine.attention import World
    from whyprompt.mediation.engine.blocks import Place, Values
    from whyprompt.mediation.engine.intercept import AttentionCall
    from whyprompt.mediation.engine.sites import Site

    Given = Sequence[Mapping[tuple[int, int], torch.Tensor]]
    Reader = Callable[[int, Sequence[int], torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class Job:
    """Patched runs of one clean run: the sites that each row patches, and what a patch does.

    `action` is what a patch does, or row by row the outputs z, (answer, value_dim), that heads are given.
    `read` is told in every layer the rows in play and their outputs z, (rows, answer, heads, value_dim),
    before anything is patched there. In a row that is `frozen`, nothing but what is patched leaves its clean
    value: what else the layers add to the residual stream from the row's entry on is the unpatched row's.
    """

    base: World
    rows: Sequence[Sequence[Site]]
    action: Action | Given
    item: str = ""
    values: Values | Sequence[Values] = field(default_factory=dict)
    """What sites other than heads are set to, in all rows or row by row."""
    read: Reader | None = None
    frozen: bool = False

    def entry(self, row: int) -> int:
        """First layer that a row patches."""
        return min(site.layer for site in self.rows[row])

    def value(self, row: int, place: Place) -> torch.Tensor:
        """Give what a row sets a block to, (window, width)."""
        values = self.values if isinstance(self.values, Mapping) else self.values[row]
        return values[place]


Part = tuple[int, tuple[int, ...]]
"""Which job, and some of its rows in the order of their entry."""


def split_jobs(jobs: Sequence[Job], width: Callable[[World], int], budget: int) -> Iterator[list[Part]]:
    """Deal the rows of all jobs to batches of about one size, none far beyond the budget.

    All jobs have as many answer tokens; `width` gives the bytes that one row of a clean run takes, `budget`
    those that a batch may take.
    """
    widths = [width(job.base) for job in jobs]
    total = sum(w * len(job.rows) for w, job in zip(widths, jobs, strict=True))
    batches = -(-total // max(budget, *widths))
    dealt: list[list[Part]] = [[] for _ in range(batches)]
    before = 0
    for j, job in enumerate(jobs):
        rows: list[list[int]] = [[] for _ in range(batches)]
        for row in sorted(range(len(job.rows)), key=job.entry):
            rows[before * batches // total].append(row)
            before += widths[j]
        for batch, own in zip(dealt, rows, strict=True):
            if own:
                batch.append((j, tuple(own)))
    yield from (batch for batch in dealt if batch)


class Plan:
    """Attention of the rows of one batch: each pair's prefix, the rows' own answer positions, patches.

    `owners` is the job of every row of the batch, `unpatched` the unpatched row of every part; `in_play` the
    rows in play at every layer, in order, and `copied` where each was among those in play one layer before;
    `slices` is where every part's rows are among those in play at a layer.
    With `at_once` all rows are in play from the first layer. At the end of a layer's rows there may be
    `spare` ones, copies of the first, which fill the batch up to a number of rows that is multiplied faster.
    `held` has, for every layer, the rows of frozen jobs that have entered: each one's place, that of its
    unpatched row, and whether the layer is to hand on what the row brings and add nothing of its own.
    Nothing is run beyond the attention of layer `until`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        parts: Sequence[Part],
        n_layers: int,
        *,
        at_once: bool,
        spare: bool = True,
        until: int | None = None,
    ) -> None:
        self.held: list[list[tuple[int, int, bool]]] = [[] for _ in range(n_layers)]
        self.attends: torch.nn.Module | None = None
        """The attention module that was run last."""
        self._until = until
        self.owners: list[Job] = []
        self.unpatched: list[int] = []
        self.in_play: list[list[int]] = [[] for _ in range(n_layers)]
        self.copied: list[list[int]] = [[] for _ in range(n_layers)]
        # The layers that attend, in their order.
        self._order = iter([i for i, state in enumerate(jobs[0].base.layers) if state.z.shape[1]])
        self._jobs = [jobs[j] for j, _ in parts]
        self.slices: list[list[slice]] = [[] for _ in range(n_layers)]
        self._entries: list[list[_Entries]] = [[] for _ in range(n_layers)]
        self._set: dict[Place, list[tuple[int, int | None, torch.Tensor]]] = {}
        for j, rows in parts:
            self._add(jobs[j], rows, n_layers, at_once=at_once)
        like = self.owners[0].base.hidden
        # A trunk that is handed the whole batch is handed nothing else.
        filled = spare and not at_once
        self._spare = [room_for(len(r), len(like), like) - len(r) if filled else 0 for r in self.in_play]
        for layer, more in enumerate(self._spare):
            self.in_play[layer] += [0] * more
            self.copied[layer] += [0] * more

    def _add(self, job: Job, rows: tuple[int, ...], n_layers: int, *, at_once: bool) -> None:
        first = len(self.owners)
        self.unpatched.append(first)
        self.owners += [job] * (1 + len(rows))
        entries = [0 if at_once else job.entry(row) for row in rows]
        count = len(entries) + 1  # the trunk is handed the whole batch
        start = first
        heads: list[list[tuple[int, int]]] = [[] for _ in range(n_layers)]
        others: list[list[tuple[int, Site]]] = [[] for _ in range(n_layers)]
        for number, row in enumerate(rows, start=1):
            for site in job.rows[row]:
                if site.kind != "head":
                    others[site.layer].append((number, site))
                elif site.number is not None:
                    heads[site.layer].append((number, site.number))
        for layer in range(n_layers):
            was, count = count, 1 + bisect_right(entries, layer)
            self.copied[layer] += [start + (i if i < was else 0) for i in range(count)]
            start = len(self.in_play[layer])
            self.in_play[layer] += range(first, first + count)
            self.slices[layer].append(slice(start, start + count))
            patched = heads[layer]
            for number, site in others[layer]:
                place = site.kind, layer
                value = job.value(rows[number - 1], place)
                self._set.setdefault(place, []).append((start + number, site.number, value))
            self._entries[layer].append(_Entries(rows[: count - 1], patched))
            if job.frozen:
                here = {number for number, _ in patched}
                self.held[layer] += [
                    (start + number, start, job.entry(row) < layer and number not in here)
                    for number, row in enumerate(rows[: count - 1], start=1)
                    if job.entry(row) <= layer
                ]

    def settings(self) -> Iterator[tuple[Place, Callable[[torch.Tensor], torch.Tensor]]]:
        """Give every block that is set somewhere in this batch, and the function that sets it."""
        base = self.owners[0].base
        for place, entries in self._set.items():
            rows = torch.tensor([row for row, _, _ in entries])
            if place[0] == "neuron":
                columns = torch.tensor([number for _, number, _ in entries])
                new = torch.stack([value[:, number] for _, number, value in entries])
            else:
                columns = None
                new = torch.stack([value for _, _, value in entries])
            yield place, partial(_put, rows, columns, new, base.carried, base.window)

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        """Attend, and patch."""
        layer = next(self._order)
        self.attends = call.module
        given = {len(call.query), len(call.key), len(call.value)}
        if given != {len(self.in_play[layer])}:
            # A slice of keys of other rows may still fit the queries.
            raise ValueError(f"{len(self.in_play[layer])} rows of queries, keys and values became {given}")
        parts = zip(self._jobs, self.slices[layer], self._entries[layer], strict=True)
        done = [
            _attend(
                replace(call, query=call.query[rows], key=call.key[rows], value=call.value[rows]),
                job,
                layer,
                entries,
            )
            for job, rows, entries in parts
        ]
        if layer == self._until:
            raise Enough
        if spare := self._spare[layer]:
            done.append(done[0].new_zeros(spare, *done[0].shape[1:]))
        return done[0] if len(done) == 1 else torch.cat(done)


def _put(
    rows: torch.Tensor,
    columns: torch.Tensor | None,
    new: torch.Tensor,
    carried: int,
    window: int,
    x: torch.Tensor,
) -> torch.Tensor:
    """Set some rows of what a block gives, (rows, carried, width) or flat; of neurons, one column of each."""
    out = x.reshape(-1, carried, x.shape[-1]).clone()
    last = slice(-window, None)
    at = (rows.to(x.device), last) if columns is None else (rows.to(x.device), last, columns.to(x.device))
    out[at] = new.to(out)
    return out.view(x.shape)


class Enough(Exception):  # noqa: N818  # no error: what was wanted is there
    """Ends a run that nothing more is wanted of."""


@dataclass(frozen=True, slots=True)
class _Entries:
    """One job's rows in one layer: those in play, by their number in the job, and what is patched.

    `patched` are (row, head), where a row's number is its place behind the unpatched one.
    """

    playing: tuple[int, ...]
    patched: list[tuple[int, int]]

    def given(self, values: Given, layer: int) -> torch.Tensor:
        """Stack the outputs that the patched heads are given."""
        return torch.stack([values[self.playing[n - 1]][layer, head] for n, head in self.patched])


def _attend(call: AttentionCall, job: Job, layer: int, entries: _Entries) -> torch.Tensor:
    """Attention of one pair's rows in one layer."""
    state = job.base.layers[layer]
    window = job.base.window
    z, weights = attend_rows(call, state, window)
    if job.read is not None:
        job.read(layer, entries.playing, z[1:, -window:])
    if job.frozen:
        z[1:] = z[:1].clone()
    if not entries.patched:
        return z
    # Made on the processor: which device a layer is on, it alone knows.
    rows, heads = (torch.tensor(at).to(z.device) for at in zip(*entries.patched, strict=True))
    new: torch.Tensor | None
    if callable(job.action):
        new, changed = job.action(layer, rows, heads, weights)
    else:
        new, changed = entries.given(job.action, layer).to(z.device), None
    if changed is not None:
        values = state.prefix()[1]
        n_kv, prefix, _ = values.shape
        kv = heads // (z.shape[2] // n_kv)
        w = changed.to(z.dtype)
        new = torch.empty(len(rows), window, z.shape[3], dtype=z.dtype, device=z.device)
        for j in range(n_kv):
            at = (kv == j).nonzero()[:, 0]
            new[at] = w[at, :, :prefix] @ values[j] + w[at, :, prefix:] @ call.value[rows[at], j]
    assert new is not None
    z[rows, -window:, heads] = new.to(z.dtype)
    return z


@contextmanager
def rows_in_play(layers: Sequence[torch.nn.Module], plan: Plan) -> Iterator[None]:
    """Hand each layer the rows in play, of the hidden states and of all that comes with them."""
    whole = len(plan.owners)

    def hook(copied: list[int], in_play: list[int]) -> Callable[..., Any]:
        into, own = torch.tensor(copied), torch.tensor(in_play)

        def pick(value: Any) -> Any:  # noqa: ANN401  # positions, rotary phases, masks, in any nesting
            if isinstance(value, torch.Tensor):
                fits = value.ndim >= 2 and len(value) == whole
                return value[own.to(value.device)] if fits else value
            if type(value) in {tuple, list}:
                return type(value)(pick(v) for v in value)
            return {k: pick(v) for k, v in value.items()} if type(value) is dict else value

        def choose(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden = hidden[into.to(hidden.device)]
            if args:
                return (hidden, *map(pick, args[1:])), {k: pick(v) for k, v in kwargs.items()}
            return args, {k: hidden if k == "hidden_states" else pick(v) for k, v in kwargs.items()}

        return choose

    def without_spare(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401  # or a tuple with it
        return output[:whole] if isinstance(output, torch.Tensor) else (output[0][:whole], *output[1:])

    handles = [
        layer.register_forward_pre_hook(hook(copied, in_play), with_kwargs=True)
        for layer, copied, in_play in zip(layers, plan.copied, plan.in_play, strict=True)
    ]
    # What comes after the last layer is given as many rows as the trunk was.
    handles.append(layers[-1].register_forward_hook(without_spare))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
