"""Tiny random models of many architectures, and a plain hook loop as the oracle."""

from __future__ import annotations

import contextlib
import sys

import torch
import transformers
from packaging.version import Version
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from whyprompt.mediation.engine.sites import as_sites

VOCAB = 61
_BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "n_inner": 48}
_NO_KV = {k: v for k, v in _BASE.items() if k not in {"num_key_value_heads", "head_dim"}}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
# Latent attention: values are narrower than queries and keys.
_MLA = _NO_KV | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
_ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_GEMMA_SHARED = _BASE | {
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "num_kv_shared_layers": 1,  # the last layer attends to the keys and values of an earlier one
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 8,
}

ARCHITECTURES = {
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "llama": _BASE,
    "mistral": _BASE | {"sliding_window": 6},
    "qwen2": _BASE,
    "qwen3": _BASE,
    "gemma": _BASE,
    "gemma2": _BASE | {"sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": _BASE
    | {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "phi": _NO_KV,
    "phi3": _BASE | {"sliding_window": 6},
    "gpt_neox": _NO_KV,
    "opt": {**_NO_KV, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "olmo": _BASE,
    "olmo2": _BASE,
    "stablelm": _BASE,
    "cohere": _BASE | {"logit_scale": 0.3},
    "starcoder2": _BASE | {"sliding_window": 6},
    "granite": _BASE | {"attention_multiplier": 0.3, "residual_multiplier": 0.7, "logits_scaling": 2.0},
    "glm": _BASE,
    "smollm3": _BASE,
    "mixtral": _BASE | _MOE,
    "qwen3_moe": _BASE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "biogpt": _NO_KV,
    "exaone4": _BASE | {"sliding_window": 5, "sliding_window_pattern": 2},
    "helium": _BASE,
    "ministral": _BASE | {"sliding_window": 6},
    "gpt_oss": _BASE
    | _MOE
    | {"sliding_window": 6, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "deepseek_v2": _MLA | _ROUTED,
    "deepseek_v3": _MLA | _ROUTED,
}

# Some are of newer versions of transformers only.
ARCHITECTURES |= {
    name: config
    for name, config in {
        "axk1": _MLA | _ROUTED | {"mlp_layer_types": ["dense", "sparse", "sparse"]},
        "glm4_moe_lite": _MLA | _ROUTED | {"mlp_layer_types": ["dense", "sparse", "sparse"]},
        "minicpm3": _MLA,
        "sarvam_mla": _MLA | _ROUTED,
        "youtu": _MLA,
        "gemma3n_text": _GEMMA_SHARED
        | {
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "intermediate_size": [48] * 3,
            "activation_sparsity_pattern": [0.5, 0.0, 0.0],
            "laurel_rank": 4,
        },
        "gemma4_text": _GEMMA_SHARED,
        "llama4_text": _BASE
        | _MOE
        | {
            "intermediate_size_mlp": 48,
            "no_rope_layers": [1, 0, 1],
            "layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
            "attention_chunk_size": 6,
            "moe_layers": [1],
        },
    }.items()
    if name in CONFIG_MAPPING
}

# These two call the interface since transformers 5.24, and never did before.
if Version(transformers.__version__) >= Version("5.24"):
    ARCHITECTURES |= {"gptj": _GPT | {"rotary_dim": 4}, "codegen": _GPT | {"rotary_dim": 4}}

NEVER = {
    "gpt_neo": {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "bloom": {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mpt": {"vocab_size": VOCAB, "d_model": 32, "n_layers": 2, "n_heads": 4},
}

OTHER = {"bert": _NO_KV}

# Layers with attention beside layers that keep a state; the layers here that have heads.
_MIXED = _BASE | {"num_hidden_layers": 4}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 3,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_d_conv": 3,
    "mamba_n_groups": 2,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_CONV = {"layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3}
_LATENT = (
    _MLA
    | _EXPERTS
    | {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "mlp_layer_types": ["dense"] * 4,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "num_expert_group": 2,
        "topk_group": 1,
    }
)
HYBRIDS = {
    name: config
    for name, config in {
        "qwen3_next": _MIXED | _DELTA | _EXPERTS,
        "qwen3_5_text": _MIXED | _DELTA,
        "qwen3_5_moe_text": _MIXED | _DELTA | _EXPERTS,
        "olmo_hybrid": _MIXED | _DELTA,
        "minimax": _MIXED | _MOE | {"layer_types": _DELTA["layer_types"], "block_size": 8},
        "kimi_linear": _LATENT,
        "bailing_hybrid": _LATENT,
        "granitemoehybrid": _MIXED
        | _MAMBA
        | {
            "layer_types": ["mamba", "attention"] * 2,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "shared_intermediate_size": 48,
        },
        "jamba": _MIXED
        | {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_d_state": 8,
            "mamba_d_conv": 3,
        },
        "bamba": _MIXED | _MAMBA | {"attn_layer_indices": [1, 3]},
        "falcon_h1": _MIXED | _MAMBA | {"mamba_d_ssm": 64},
        "nemotron_h": _MIXED
        | {
            "layers_block_type": ["mamba", "attention", "mlp", "attention"],
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "conv_kernel": 3,
            "chunk_size": 8,
        },
        "zamba2": _MIXED
        | {"mamba_d_state": 8, "n_mamba_heads": 8, "layers_block_type": ["mamba", "hybrid"] * 2},
        "recurrent_gemma": _MIXED
        | {"block_types": ["recurrent", "attention"], "attention_window_size": 6, "lru_width": 32},
        "lfm2": _MIXED | _CONV | {"block_auto_adjust_ff_dim": False},
        "lfm2_moe": _MIXED | _CONV | _EXPERTS | {"num_dense_layers": 2},
        "lfm3": _MIXED | _CONV,
    }.items()
    if name in CONFIG_MAPPING
}
WITH_HEADS = {name: [0, 1, 2, 3] if name == "falcon_h1" else [1, 3] for name in HYBRIDS}

_PROJECTIONS = ("o_proj", "c_proj", "out_proj", "dense")


def make(model_type, *, dtype=torch.float64, seed=0, **changes):
    """Random model of an architecture, with weights large enough for heads to matter."""
    config = AutoConfig.for_model(
        model_type, **(ARCHITECTURES | HYBRIDS | NEVER | OTHER)[model_type] | changes
    )
    # Their eager attention rounds queries and keys to float32, which would blur the oracle.
    implementation = "sdpa" if model_type in {"gptj", "codegen"} else "eager"
    config._attn_implementation = implementation
    config._experts_implementation = "eager"
    transformers.set_seed(seed)
    model = (
        AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=implementation)
        .to(dtype)
        .eval()
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim >= 2 or float(p.abs().max()) == 0:
                p.copy_(
                    torch.randn(p.shape, generator=generator, dtype=torch.float64)
                    * (0.25 if p.ndim >= 2 else 0.1)
                )
    for _, module in attentions(model) if model_type in HYBRIDS else ():
        module.seen = torch.nn.Identity()
    return model


def attentions(model):
    """The attention modules of a hybrid's layers, each with the number of its layer."""
    found = []
    for layer in WITH_HEADS[model.config.model_type]:
        own = [
            module
            for module in model.get_decoder().layers[layer].modules()
            if hasattr(module, "k_proj") or hasattr(module, "kv_b_proj")
        ]
        assert len(own) == 1
        found.append((layer, own[0]))
    return found


@contextlib.contextmanager
def seeing(model):
    """Hand what a hybrid's eager attention gives through a module of its own: a gate may stand behind it."""
    if model.config.model_type not in HYBRIDS:
        yield
        return
    code = sys.modules[type(attentions(model)[0][1]).__module__]
    own = code.eager_attention_forward

    def attend(module, *args, **kwargs):
        z, weights = own(module, *args, **kwargs)
        return module.seen(z.flatten(2)).view(z.shape), weights

    code.eager_attention_forward = attend
    try:
        yield
    finally:
        code.eager_attention_forward = own


def projections(model):
    """The output projection of every attention module, in order."""
    out = []
    for name, module in model.named_modules():
        parent = name.rsplit(".", 2)[-2] if name.count(".") else ""
        if (name.rsplit(".", 1)[-1] in _PROJECTIONS and "attn" in parent) or (
            "attention" in parent and name.endswith("dense")
        ):
            out.append(module)
    return out


@contextlib.contextmanager
def exact_softmax():
    """Eager attention takes its softmax in float32; the oracle wants the model's own dtype."""
    own = torch.nn.functional.softmax

    def softmax(x, dim=None, _stacklevel=3, dtype=None):
        return own(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype)

    torch.nn.functional.softmax = softmax
    try:
        yield
    finally:
        torch.nn.functional.softmax = own


_LAYERS = ("model.layers", "model.decoder.layers", "transformer.h", "gpt_neox.layers", "biogpt.layers")
_PARTS = {
    "attn": ("self_attn", "attn", "attention"),
    "mlp": ("mlp", "feed_forward", "fc2", "shared_mlp", "block_sparse_moe", "mlp_block"),
    "neuron": (
        "mlp.down_proj",
        "feed_forward.down_proj",
        "mlp.c_proj",
        "mlp.dense_4h_to_h",
        "mlp.fc_out",
        "mlp.fc2",
        "fc2",
    ),
}


def block(model, kind, layer):
    """The module whose output (of neurons: input) a site is, by the names that the architectures use."""
    if kind in {"head", "attn"} and model.config.model_type in HYBRIDS:
        own = dict(attentions(model))[layer]
        return own.seen if kind == "head" else own
    if kind == "head":
        return projections(model)[layer]

    def first(root, names):
        found = []
        for name in names:
            with contextlib.suppress(AttributeError):
                found.append(root.get_submodule(name))
        return found[0]

    own = first(model, _LAYERS)[layer]
    return own if kind == "resid" else first(own, _PARTS[kind])


def hook_loop(model, base, source, answer, site_sets, window=None):
    """Log-probability of the answer after `base`, with each set's sites taken from `source`."""
    gold = torch.tensor(answer)[:, None]
    return [
        float(torch.log_softmax(logits, -1).gather(-1, gold).sum())
        for logits in hook_logits(model, base, source, answer, site_sets, window)
    ]


def hook_text(model, base, source, sites, most, end):
    """Greedy text after `base`, the whole of it computed anew at every step with hooks on the modules.

    From the prompt's last token on, sites are set to what they give after `source` with the same text.
    """
    written = []
    while len(written) < most and (not written or written[-1] != end):
        logits = hook_logits(model, base, source, [*written, 0], [sites])[0]
        written.append(int(logits[-1].argmax()))
    return tuple(written)


def hook_logits(model, base, source, answer, site_sets, window=None):
    """Logits before each answer token after `base`, with each set's sites taken from `source`.

    One full forward for each set, by hooks on the modules. `window` is how many last tokens of the prompt
    and the answer are set: the answer positions by default.
    """
    n, window = len(answer), window or len(answer)
    n_heads = getattr(model.config, "num_attention_heads", None) or model.config.n_head

    def run(ids, changes):
        handles = []
        for (kind, layer), change in changes.items():
            module = block(model, kind, layer)
            if kind in {"head", "neuron"}:
                handles.append(module.register_forward_pre_hook(lambda _, a, f=change: (f(a[0]), *a[1:])))
            else:
                handles.append(
                    module.register_forward_hook(
                        lambda _, __, y, f=change: (f(y[0]), *y[1:]) if isinstance(y, tuple) else f(y)
                    )
                )
        try:
            with torch.no_grad(), exact_softmax(), seeing(model):
                logits = model(torch.tensor([[*ids, *answer[:-1]]]), use_cache=False).logits[0, -n:]
        finally:
            for h in handles:
                h.remove()
        return logits

    places = {site[:2] for sites in site_sets for site in as_sites(sites)}
    kept = {}

    def keep(place):
        def change(x):
            kept[place] = x.reshape(-1, x.shape[-1])[-window:].clone()
            return x

        return change

    run(source, {place: keep(place) for place in places})

    def put(place, numbers):
        def change(x):
            x = x.clone()
            flat = x.view(-1, x.shape[-1])
            width = {"head": x.shape[-1] // n_heads, "neuron": 1}.get(place[0], x.shape[-1])
            for k in numbers:
                at = slice((k or 0) * width, ((k or 0) + 1) * width)
                flat[-window:, at] = kept[place][:, at]
            return x

        return change

    out = []
    for sites in site_sets:
        here = {}
        for site in as_sites(sites):
            here.setdefault(site[:2], []).append(site.number)
        out.append(run(base, {place: put(place, numbers) for place, numbers in here.items()}))
    return out
