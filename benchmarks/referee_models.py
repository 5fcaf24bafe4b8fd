# transformers' models ship no type
"""Small transformers compiled from programs, so that every head's effect is known in closed form.

GPT-2 of two layers without norms: the residual stream is a sum of named subspaces, and each head and neuron
reads and writes them. Head 0.1 notes beside every token which one stands before it. Readers in layer 1 look
from the last token for what follows a mark, and write it to a slot. The MLP of layer 1 looks slots up in a
table and raises the logits of the answer. All other heads read and write at random where nobody looks.

copy     one reader; the table is the token itself
either   two readers of the same mark; one is enough
both     two readers of the same mark; both are needed
sum      two readers of two marks; the table is the sum of two digits modulo five
pointer  head 0.2 reads a word that says which of two marks the reader 1.2 looks for
cancel   head 0.2 sees a word and raises the answer; the MLP of layer 1 takes back what is beyond half of it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from whyprompt.mediation import PromptPair

if TYPE_CHECKING:
    from collections.abc import Mapping

BOS, CUE, MARK, OTHER, FIRST, SECOND = range(6)
DIGITS = 5
V, P = 6 + DIGITS, 16
TOK, POS, PREV, SLOT, SLOT_2, WHICH, OUT, JUNK = 0, 11, 27, 38, 49, 60, 62, 80
WIDTH, HEADS = 128, 4
SIZE = WIDTH // HEADS
SHARP = 60.0
"""Logits of attention between what a head looks for and all else: leakage is exp(-60)."""
Head = tuple[int, int]


@dataclass(frozen=True)
class Program:
    """A compiled model, pairs of prompts, and what is true of it."""

    name: str
    says: str
    model: Any
    pairs: list[PromptPair]
    te: float
    nie: Mapping[Head, float]
    pure_nie: Mapping[Head, float]

    def grid(self, quantity: str) -> np.ndarray:
        """Lay the truth out by layer and head; heads that are not named have none."""
        out = np.zeros((2, HEADS))
        for head, value in getattr(self, quantity).items():
            out[head] = value
        return out


def log_prob(logit: float, highest: float | None = None) -> float:
    """Log-probability of a token of this logit where one other token has `highest` and the rest 0."""
    others = V - 1 if highest is None else V - 2 + np.exp(highest)
    return float(logit - np.log(np.exp(logit) + others))


def empty(config: GPT2Config) -> Any:  # noqa: ANN401
    """Make a model of float64 whose weights are about to be written."""
    model: torch.nn.Module = GPT2LMHeadModel(config)
    return model.double().eval().requires_grad_(False)


class Compiler:
    """Writes weights; everything else is 0."""

    def __init__(self, gain: float, seed: int) -> None:
        config = GPT2Config(
            vocab_size=V,
            n_embd=WIDTH,
            n_layer=2,
            n_head=HEADS,
            n_positions=P,
            n_inner=64,
            activation_function="relu",
            tie_word_embeddings=False,
            bos_token_id=BOS,
            eos_token_id=BOS,
        )
        self.model = empty(config)
        self.eye = torch.eye(WIDTH, dtype=torch.float64)
        self.neurons = 0
        generator = torch.Generator().manual_seed(seed)
        for p in self.model.parameters():
            p.zero_()
        trunk = self.model.transformer
        trunk.wte.weight[:, TOK : TOK + V] = torch.eye(V)
        trunk.wpe.weight[:, POS : POS + P] = torch.eye(P)
        trunk.ln_f = torch.nn.Identity()
        for block in trunk.h:
            block.ln_1, block.ln_2 = torch.nn.Identity(), torch.nn.Identity()
            block.attn.c_attn.weight[: POS + P] = torch.randn(POS + P, 3 * WIDTH, generator=generator)
            block.attn.c_proj.weight[:, JUNK:] = torch.randn(WIDTH, WIDTH - JUNK, generator=generator)
        self.model.lm_head.weight[:, OUT : OUT + V] = gain * torch.eye(V)
        query, key, value, out = self.head(0, 1)
        query[POS : POS + P, :P] = SHARP * SIZE**0.5 * torch.eye(P)
        key[POS : POS + P - 1, 1:P] = torch.eye(P - 1)
        value[TOK : TOK + V, :V] = torch.eye(V)
        out[:V] = self.eye[PREV : PREV + V]

    def head(self, layer: int, head: int) -> tuple[torch.Tensor, ...]:
        """Give a head's own weights, cleared: query, key and value (width, size), out (size, width)."""
        attn = self.model.transformer.h[layer].attn
        own = slice(head * SIZE, (head + 1) * SIZE)
        parts = [attn.c_attn.weight[:, WIDTH * i : WIDTH * (i + 1)][:, own] for i in range(3)]
        parts.append(attn.c_proj.weight[own])
        for part in parts:
            part.zero_()
        return tuple(parts)

    def reader(self, head: int, mark: int, slot: int) -> None:
        """Let a head of layer 1 copy the token after a mark to a slot, or nothing where there is no mark."""
        query, key, value, out = self.head(1, head)
        query[TOK + CUE, 0] = SHARP * SIZE**0.5
        key[PREV + mark, 0] = 2.0
        key[TOK + BOS, 0] = 1.0
        value[TOK + 6 : TOK + V, :DIGITS] = torch.eye(DIGITS)
        out[:DIGITS] = self.eye[slot + 6 : slot + V]

    def pointer(self) -> None:
        """Let head 0.2 read which mark is meant, and reader 1.2 look for that one."""
        query, key, value, out = self.head(0, 2)
        query[TOK + CUE, 0] = SHARP * SIZE**0.5
        for i, word in enumerate((FIRST, SECOND)):
            key[TOK + word, 0] = 1.0
            value[TOK + word, i] = 1.0
            out[i] = self.eye[WHICH + i]
        query, key, value, out = self.head(1, 2)
        for i, mark in enumerate((MARK, OTHER)):
            query[WHICH + i, i] = SHARP * SIZE**0.5
            key[PREV + mark, i] = 1.0
        value[TOK + 6 : TOK + V, :DIGITS] = torch.eye(DIGITS)
        out[:DIGITS] = self.eye[SLOT + 6 : SLOT + V]

    def cancel(self) -> None:
        """Let head 0.2 raise a digit's logit at a word, and layer 1 take back what is beyond half."""
        query, key, value, out = self.head(0, 2)
        query[TOK + CUE, 0] = SHARP * SIZE**0.5
        key[TOK + SECOND, 0] = 2.0
        key[TOK + BOS, 0] = 1.0
        value[TOK + SECOND, 0] = 1.0
        out[0] = self.eye[WHICH] + self.eye[OUT + 6]
        self.rule([WHICH], 0.5, 6, -1.0)

    def rule(self, reads: list[int], beyond: float, token: int, weight: float = 1.0) -> None:
        """Add what some places of the residual stream sum to beyond a bar to a token's logit."""
        mlp = self.model.transformer.h[1].mlp
        for place in reads:
            mlp.c_fc.weight[place, self.neurons] += 1.0
        mlp.c_fc.bias[self.neurons] = -beyond
        mlp.c_proj.weight[self.neurons, OUT + token] = weight
        self.neurons += 1

    def straight(self, token: int) -> None:
        """Add a slot's own value to its token's logit, with no bar near any value that it takes."""
        self.rule([SLOT + token], -1.0, token)
        self.rule([], -1.0, token, -1.0)


def pair(number: int, prompts: tuple[list[int], list[int]], answer: int) -> PromptPair:
    return PromptPair(item_id=str(number), ids0=prompts[0], ids1=prompts[1], answer_ids=[answer])


def programs(n: int = 4, gain: float = 6.0, seed: int = 0) -> list[Program]:
    """Compile all programs, with pairs that the truth is the same for."""
    rng = np.random.default_rng(seed)
    drawn = [[6 + int(d) for d in rng.permutation(DIGITS)[:4]] for _ in range(n)]
    marked = [
        pair(i, ([BOS, a, b, CUE], [BOS, a, b, MARK, x, CUE]), x) for i, (a, b, x, _) in enumerate(drawn)
    ]
    top, none = log_prob(gain), log_prob(0.0)
    effect = top - none
    out = []

    def compiled() -> Compiler:
        return Compiler(gain, seed)

    one = compiled()
    one.reader(2, MARK, SLOT)
    for token in range(6, V):
        one.straight(token)
    says = "one head copies; the rest of the model is linear, but for the softmax of the answer"
    out.append(Program("copy", says, one.model, marked, effect, {(1, 2): effect}, {(1, 2): effect}))

    for name, says in (
        ("either", "either of two heads is enough: each backs the other up"),
        ("both", "both of two heads are needed"),
    ):
        two = compiled()
        for head in (0, 2):
            two.reader(head, MARK, SLOT)
        for token in range(6, V):
            if name == "either":
                two.straight(token)
                two.rule([SLOT + token], 1.0, token, -1.0)
            else:
                two.rule([SLOT + token], 1.0, token)
        needed = dict.fromkeys([(1, 0), (1, 2)], effect)
        nie, pure = ({}, needed) if name == "either" else (needed, {})
        out.append(Program(name, says, two.model, marked, effect, nie, pure))

    total = compiled()
    total.reader(0, MARK, SLOT)
    total.reader(2, OTHER, SLOT_2)
    for x in range(DIGITS):
        for y in range(DIGITS):
            total.rule([SLOT + 6 + x, SLOT_2 + 6 + y], 1.5, 6 + (x + y) % DIGITS, 2.0)
    sums = [
        pair(
            i,
            ([BOS, a, b, CUE], [BOS, a, b, MARK, x, OTHER, y, CUE]),
            6 + (x + y - 12) % DIGITS,
        )
        for i, (a, b, x, y) in enumerate(drawn)
    ]
    needed = dict.fromkeys([(1, 0), (1, 2)], effect)
    says = "two heads bring the digits, a table adds them"
    out.append(Program("sum", says, total.model, sums, effect, needed, {}))

    points = compiled()
    points.pointer()
    for token in range(6, V):
        points.straight(token)
    chosen = [
        pair(
            i,
            ([BOS, MARK, x, OTHER, y, FIRST, CUE], [BOS, MARK, x, OTHER, y, SECOND, CUE]),
            y,
        )
        for i, (_, __, x, y) in enumerate(drawn)
    ]
    effect = top - log_prob(0.0, gain)
    way = dict.fromkeys([(0, 2), (1, 2)], effect)
    says = "a head of layer 0 says where a head of layer 1 has to look"
    out.append(Program("pointer", says, points.model, chosen, effect, way, way))

    back = Compiler(2 * gain, seed)
    back.cancel()
    seen = [pair(i, ([BOS, a, b, CUE], [BOS, a, SECOND, b, CUE]), 6) for i, (a, b, _, __) in enumerate(drawn)]
    only = {(0, 2): top - none}
    says = "a head raises the answer, and a later layer takes back all that is beyond half of it"
    out.append(Program("cancel", says, back.model, seen, top - none, only, only))
    return out
