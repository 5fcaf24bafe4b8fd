"""Greedy decoding with sites set to what they give under the other prompt, with the same text behind it.

A patched text is written in two rows side by side: one reads the prompt that it follows, the other the other
prompt, and both read what the patched row has written so far. In every layer the first takes over from the
second what is patched. Keys and values of the prompts are kept and shared by all texts; those of what is
written are each row's own.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from whyprompt._lean.products import linear
from whyprompt.mediation.engine.attention import attend_rows
from whyprompt.mediation.engine.scoring import LOGITS_BYTES
from whyprompt.mediation.engine.support import refuse, tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whyprompt.mediation.engine.attention import World
    from whyprompt.mediation.engine.blocks import Place
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.intercept import AttentionCall
    from whyprompt.mediation.engine.sites import Site


class Text(NamedTuple):
    """A text to write: after which prompt, and which sites are set as under which other one.

    Both worlds are clean runs with as many tokens after the prompt as may be written, whatever they are:
    their masks say what each of them sees.
    """

    base: World
    source: World | None = None
    sites: tuple[Site, ...] = ()
    item: str = ""


def write(
    runtime: ModelRuntime,
    texts: Sequence[Text],
    *,
    most: int,
    stop: Callable[[Sequence[int]], bool],
) -> list[tuple[int, ...]]:
    """Write each text token by token, the most probable one each time, until it stops or has `most` tokens.

    `stop` is asked after every token, which it is given among those of the text.
    """
    out: list[tuple[int, ...]] = []
    # The own keys and values of two rows, and what passes through.
    width = 2 * (most * runtime.token_bytes + 2 * runtime.row_width * runtime.number_bytes)
    width += 8 * runtime.n_heads * max((len(t.base.ids) for t in texts), default=0)
    step = max(1, runtime.max_extra_bytes // (2 * width))
    for start in range(0, len(texts), step):
        out += _Side(runtime, texts[start : start + step], most).written(stop)
    return out


class _Side:
    """Attention of some texts written side by side: patched rows first, their sources after them."""

    def __init__(self, runtime: ModelRuntime, texts: Sequence[Text], most: int) -> None:
        self.runtime, self.texts, self.most = runtime, texts, most
        self.open = [*range(len(texts))]
        self.tokens: list[list[int]] = [[] for _ in texts]
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._layer = self._step = 0
        self._rows: list[tuple[int, World]] = []
        self._into: dict[Place, list[tuple[int, int, int]]] = {}

    def written(self, stop: Callable[[Sequence[int]], bool]) -> list[tuple[int, ...]]:
        """Write all of them."""
        while self.open:
            self._lay_out()
            last = [self.tokens[t][-1] if self._step else world.ids[-self.most] for t, world in self._rows]
            at = [len(world.ids) - self.most + self._step for _, world in self._rows]
            self._layer = 0
            with ExitStack() as stack:
                for place in self._into:
                    if place[0] != "head":
                        stack.enter_context(
                            self.runtime.blocks.hooked(place, partial(self._taken_over, place))
                        )
                hidden = self.runtime.run_rows([[i] for i in last], [[i] for i in at], self)[:, 0]
            if not self._step:
                self._check(hidden)
            for t, token in zip(self.open, self._first_choices(hidden[: len(self.open)]), strict=True):
                self.tokens[t].append(token)
            self._step += 1
            self._close({t for t in self.open if stop(self.tokens[t])})
        return [tuple(tokens) for tokens in self.tokens]

    def _lay_out(self) -> None:
        """Give every open text its rows, and every place in the model what goes from which row to which."""
        sources = [t for t in self.open if self.texts[t].source is not None]
        worlds = [(t, self.texts[t].source) for t in sources]
        self._rows = [(t, self.texts[t].base) for t in self.open]
        self._rows += [(t, world) for t, world in worlds if world is not None]
        at = {t: len(self.open) + k for k, t in enumerate(sources)}
        self._into = {}
        for row, t in enumerate(self.open):
            for kind, layer, number in self.texts[t].sites:
                self._into.setdefault((kind, layer), []).append((row, at[t], number or 0))

    def _close(self, done: set[int]) -> None:
        """Let texts go that are done, and what was kept for them."""
        if self._step >= self.most:
            done = set(self.open)
        if not done:
            return
        stay = torch.tensor([k for k, (t, _) in enumerate(self._rows) if t not in done], dtype=torch.long)
        self._own = [(k[stay.to(k.device)], v[stay.to(v.device)]) for k, v in self._own]
        self.open = [t for t in self.open if t not in done]

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        """Attend, each row to its prompt and to what was written after it, and patch."""
        layer = self._layer
        self._layer += 1
        if {len(call.query), len(call.key), len(call.value)} != {len(self._rows)}:
            raise ValueError(f"{len(self._rows)} rows of queries, keys and values became others")
        if not self._step:
            self._own.append((call.key, call.value))
        else:
            kept = zip(self._own[layer], (call.key, call.value), strict=True)
            keys, values = (torch.cat(pair, 2) for pair in kept)
            self._own[layer] = keys, values
        keys, values = self._own[layer]
        alike: dict[int, list[int]] = {}
        for row, (_, world) in enumerate(self._rows):
            alike.setdefault(id(world), []).append(row)
        parts, order = [], []
        for rows in alike.values():
            state = self._rows[rows[0]][1].layers[layer]
            seen = state.prefix()[0].shape[1] + self._step + 1
            mask = None if state.mask is None else state.mask[self._step : self._step + 1, :seen]
            at = torch.tensor(rows, device=call.query.device)
            own = replace(call, query=call.query[at], key=keys[at], value=values[at])
            parts.append(attend_rows(own, replace(state, mask=mask))[0])
            order += rows
        z = torch.empty_like(torch.cat(parts))
        z[torch.tensor(order, device=z.device)] = torch.cat(parts)
        if ("head", layer) in self._into:
            into, source, heads = self._at(("head", layer), z)
            z[into, :, heads] = z[source, :, heads]
        return z

    def _taken_over(self, place: Place, x: torch.Tensor) -> torch.Tensor:
        """Give what a block gives, (rows, 1, width) or flat, with patched rows' from their sources'."""
        out = x.reshape(-1, x.shape[-1]).clone()
        into, source, number = self._at(place, x)
        if place[0] == "neuron":
            out[into, number] = out[source, number]
        else:
            out[into] = out[source]
        return out.view(x.shape)

    def _at(self, place: Place, like: torch.Tensor) -> list[torch.Tensor]:
        """Which rows take over at a place, from which rows, and which head or neuron."""
        return [torch.tensor(v, device=like.device) for v in zip(*self._into[place], strict=True)]

    def _check(self, hidden: torch.Tensor) -> None:
        """Hold rows in which nothing is patched against the whole runs of their prompts."""
        for (t, world), row in zip(self._rows, hidden, strict=True):
            if self.texts[t].sites and world is self.texts[t].base:
                continue
            whole = world.hidden[0]
            off = float((row - whole).abs().max())
            limit = tolerance(torch.finfo(whole.dtype).eps) * max(1.0, float(whole.abs().max()))
            if not off <= limit:
                raise refuse(
                    self.runtime.model_type,
                    f"with nothing patched, the last token alone gives a hidden state that differs by "
                    f"{off:.2g} from the whole run's (at most {limit:.2g} allowed; item "
                    f"{self.texts[t].item!r})",
                )

    def _first_choices(self, hidden: torch.Tensor) -> list[int]:
        """Give the most probable next token of each row."""
        weights = self.runtime.unembedding
        vocabulary = self.runtime.model.get_input_embeddings().num_embeddings
        out: list[int] = []
        for rows in hidden.split(max(1, LOGITS_BYTES // (4 * vocabulary))):
            logits = self.runtime.head(rows[:, None])[:, 0] if weights is None else linear(rows, weights)
            out += logits.argmax(-1).tolist()
        return out
