"""Gemma 1, 2 and 3 (text) in Llama's keys: a scaled embedding, norms of `1 + weight`, the tanh form
of GELU; from 2 on windows, norms after the branches and capped scores; 3 has norms of queries and
keys, and another rotary base in the layers with a window."""

from __future__ import annotations

from typing import Any

from zoo.config import UserError
from zoo.models.decoder import Decoder
from zoo.models.decoder_sizes import GEMMA as STYLE
from zoo.pretrained.family import TheirConfig
from zoo.pretrained.llama import make_family, read_body, read_layers, write_body, write_layers
from zoo.pretrained.rotary import read_scaling
from zoo.pretrained.safetensors_file import Tensors

USUAL = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
USUAL2 = {
    **USUAL,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
USUAL3 = {
    **USUAL2,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "rope_theta": 1_000_000.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
THEIR_GELU = "gelu_pytorch_tanh"


def read_gemma(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder. 'gelu' in the oldest files means the tanh form."""
    activation = config.activation("hidden_act", THEIR_GELU)
    return {
        **_read_common(config, head, USUAL),
        "activation": "gelu_tanh" if activation == "gelu" else activation,
    }


def read_gemma2(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder: every second layer has a window."""
    return _read_newer(config, head, USUAL2, lambda i: (i + 1) % 2 != 0)


def read_gemma3(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder: by default every sixth layer has no window."""
    config.only("attn_logit_softcapping", None)  # transformers has the key, and no cap
    period = config.get("sliding_window_pattern", 6)
    tables = config.get("rope_parameters", {})
    whole, local = (tables.get(k) or {} for k in ("full_attention", "sliding_attention"))
    old = {"rope_theta": config.values.get("rope_local_base_freq")}
    base = TheirConfig({**old, **local}, config.place).get("rope_theta", 10_000.0)
    if read_scaling(local, config, 1) is not None:
        raise UserError(f"{config.place}: rotary positions of layers with a window are not scaled")
    flat = TheirConfig({**config.values, "rope_parameters": whole}, config.place)
    fields = _read_newer(flat, head, USUAL3, lambda i: (i + 1) % period != 0)
    return {**fields, "local_rotary_base": base, "query_key_norm": True}


def _read_common(config: TheirConfig, head: str, usual: dict[str, Any]) -> dict[str, Any]:
    config.only("use_bidirectional_attention", False, None)
    bias = config.get("attention_bias", False)
    style = {k: v for k, v in STYLE.items() if k not in ("tied", "head_dim")}  # as the file says
    return {**read_body(config, head, usual), **style, "attention_bias": bias}


def _read_newer(config: TheirConfig, head: str, usual: Any, is_local: Any) -> dict[str, Any]:
    """What 2 and 3 have in common."""
    fields = _read_common(config, head, usual)
    filled = TheirConfig({**usual, **config.values}, config.place)
    return {
        **fields,
        "activation": config.activation("hidden_activation", THEIR_GELU),
        "post_norms": True,
        "score_width": filled.get("query_pre_attn_scalar", 256),
        "score_cap": filled.get("attn_logit_softcapping", None, float),
        "logit_cap": filled.get("final_logit_softcapping", None, float),
        "window": filled.get("sliding_window", None, int),
        "layer_pattern": read_layers(config, fields["depth"], is_local),
    }


def write_gemma(model: Decoder) -> dict[str, Any]:
    """What `read_gemma` reads."""
    return {
        **write_body(model),
        "hidden_act": THEIR_GELU,
        "attention_bias": model.attention_bias,
    }


def write_gemma2(model: Decoder) -> dict[str, Any]:
    """What `read_gemma2` reads."""
    return {
        **write_body(model),
        "hidden_activation": THEIR_GELU,
        "attention_bias": model.attention_bias,
        "query_pre_attn_scalar": model.score_width,
        "attn_logit_softcapping": model.score_cap,
        "final_logit_softcapping": model.logit_cap,
        "sliding_window": model.window,
        "layer_types": write_layers(model),
    }


def write_gemma3(model: Decoder) -> dict[str, Any]:
    """What `read_gemma3` reads."""
    return {**write_gemma2(model), "rope_local_base_freq": model.local_rotary_base}


GEMMA = make_family("gemma", "Gemma", read_gemma, write_gemma)
GEMMA2 = make_family("gemma2", "Gemma2", read_gemma2, write_gemma2)
GEMMA3 = make_family(
    "gemma3_text", "Gemma3", read_gemma3, write_gemma3, "TextModel", "TextForSequenceClassification"
)
