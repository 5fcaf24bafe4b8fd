"""Transformers built by hand, whose answer travels through known heads.

GPT-2 without norms: the residual stream is a sum of named subspaces, and every head reads and
writes them. Tokens: BOS, CUE, MARK and five contents. The prompt with reasoning inserts
``MARK x``; a previous-token head (0, 1) marks what follows MARK, copying heads in layer 1 look
for that from the cue and write x to OUT. All other heads are random and write to JUNK. Where copying heads
are *told*, they look for it only at a cue where the telling head (0, 2) has written that the prompt has a
MARK: by the residual stream, or by the feed-forward block of layer 0, which copies what it reads there.
"""

from __future__ import annotations

import torch
import transformers

V, P, D, HEAD = 8, 16, 64, 16
BOS, CUE, MARK = 0, 1, 2
TOK, POS, PREV, OUT, FINAL = 0, 8, 24, 32, 40
JUNK, SAID, AGAIN = 48, 62, 63
SHARP = 60.0  # leakage of attention is exp(-SHARP)


def build(copy_heads, *, gate=None, gain=2.0, seed=0, told=None):
    """Model whose layer-1 heads `copy_heads` ({head: weight}) copy the token after MARK.

    The logit of a copied token is `gain` times the sum s of the weights; with the gate "or" times the
    smaller of s and 1, so that one head of weight 1 suffices; with the gate "and" times what s has beyond
    1, so that two heads of weight 1 are both needed. `told` by the "stream" or the "block" makes the path
    from head (0, 2) to the copying heads.
    """
    config = transformers.GPT2Config(
        vocab_size=V,
        n_embd=D,
        n_layer=2,
        n_head=4,
        n_positions=P,
        n_inner=2 * V,
        activation_function="relu",
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=BOS,
    )
    model = transformers.GPT2LMHeadModel(config).double().eval()
    g = torch.Generator().manual_seed(seed)
    eye = torch.eye(D, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        trunk = model.transformer
        trunk.wte.weight[:, TOK : TOK + V] = torch.eye(V)
        trunk.wpe.weight[:, POS : POS + P] = torch.eye(P)
        trunk.ln_f = torch.nn.Identity()
        for block in trunk.h:
            block.ln_1, block.ln_2 = torch.nn.Identity(), torch.nn.Identity()
            # Every head at first: random reading of tokens and positions, writing to JUNK.
            block.attn.c_attn.weight[: POS + P] = torch.randn(POS + P, 3 * D, generator=g)
            block.attn.c_proj.weight[:, JUNK:SAID] = torch.randn(D, SAID - JUNK, generator=g)

        def head(layer, h):
            attn = trunk.h[layer].attn
            out = attn.c_proj.weight[h * HEAD : (h + 1) * HEAD]
            q, k, v = (attn.c_attn.weight[:, s + h * HEAD : s + (h + 1) * HEAD] for s in (0, D, 2 * D))
            for part in (q, k, v, out):
                part.zero_()
            return q, k, v, out

        q, k, v, o = head(0, 1)  # previous token: TOK at i - 1 goes to PREV at i
        q[POS : POS + P] = SHARP * HEAD**0.5 * torch.eye(P)
        k[POS : POS + P - 1, 1:] = torch.eye(P - 1)
        v[TOK : TOK + V, :V] = torch.eye(V)
        o[:V] = eye[PREV : PREV + V]
        if told is not None:
            q, k, v, o = head(0, 2)
            q[TOK + CUE, 0] = SHARP * HEAD**0.5
            k[TOK + MARK, 0], k[TOK + BOS, 0] = 2.0, 1.0
            v[TOK + MARK, 0] = 1.0
            o[0] = eye[SAID]
            block = trunk.h[0].mlp
            block.c_fc.weight[SAID, 0] = block.c_proj.weight[0, AGAIN] = 1.0
        for h, weight in copy_heads.items():
            q, k, v, o = head(1, h)
            q[TOK + CUE, 1] = SHARP * HEAD**0.5
            q[{None: TOK + CUE, "stream": SAID, "block": AGAIN}[told], 0] = SHARP * HEAD**0.5
            k[PREV + MARK, 0] = 2.0
            k[TOK + BOS, 1] = 1.0  # where nothing follows MARK, rest on BOS, which says nothing
            v[TOK : TOK + V, :V] = torch.eye(V)
            v[TOK + BOS] = 0
            o[:V] = weight * eye[OUT : OUT + V]
        mlp = trunk.h[1].mlp
        if gate is not None:  # relu(s) - relu(s - 1) = min(s, 1), or relu(s - 1)
            for j in range(V):
                mlp.c_fc.weight[OUT + j, 2 * j : 2 * j + 2] = 1.0
                mlp.c_fc.bias[2 * j + 1] = -1.0
                mlp.c_proj.weight[2 * j, FINAL + j] = {"or": 1.0, "and": 0.0}[gate]
                mlp.c_proj.weight[2 * j + 1, FINAL + j] = {"or": -1.0, "and": 1.0}[gate]
            model.lm_head.weight[:, FINAL : FINAL + V] = gain * torch.eye(V)
        else:
            model.lm_head.weight[:, OUT : OUT + V] = gain * torch.eye(V)
    return model


def log_prob(logit):
    """Log-probability of a token with this logit where all others have 0."""
    z = torch.tensor(float(logit), dtype=torch.float64)
    return float(z - torch.log(torch.exp(z) + V - 1))
