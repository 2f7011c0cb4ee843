"""Qwen 2, 2.5 (biases of queries, keys and values) and 3 (norms of queries and keys) in Llama's
keys. The layers from `max_window_layers` on may have a window."""

from __future__ import annotations

from typing import Any

from zoo.config import UserError
from zoo.models.decoder import Decoder
from zoo.pretrained.family import THEIR_ACTIVATIONS, TheirConfig
from zoo.pretrained.llama import (
    make_family,
    read_body,
    read_layers,
    write_body,
    write_layers,
)
from zoo.pretrained.safetensors_file import Tensors

USUAL = {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}


def read_qwen2(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder."""
    fields = read_body(config, head, USUAL)
    biases = {"attention_bias": True, "out_bias": False}
    return {**fields, **_read_rest(config, fields["depth"]), **biases}


def read_qwen3(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder."""
    fields = read_body(config, head, {**USUAL, "head_dim": 128})
    bias = config.get("attention_bias", False)
    rest = _read_rest(config, fields["depth"])
    return {**fields, **rest, "attention_bias": bias, "query_key_norm": True}


def _read_rest(config: TheirConfig, depth: int) -> dict[str, Any]:
    """Activation and windows."""
    window = None
    if config.get("use_sliding_window", False) and "sliding_window" in config.values:
        window = config.get("sliding_window", None, int)
    elif config.get("use_sliding_window", False):
        window = 4096
    first = config.values.get("max_window_layers", 28)  # 0 is no size
    pattern = read_layers(config, depth, lambda i: window is not None and i >= first)
    if window is None and "local" in pattern:
        raise UserError(f"{config.place}: layer_types has windows, but use_sliding_window is false")
    activation = config.activation("hidden_act", "silu")
    return {"activation": activation, "window": window, "layer_pattern": pattern}


def write_qwen2(model: Decoder) -> dict[str, Any]:
    """What `read_qwen2` reads."""
    values = {**write_body(model), "hidden_act": THEIR_ACTIVATIONS[model.activation]}
    if model.window is None:
        return {**values, "use_sliding_window": False}
    return {
        **values,
        "use_sliding_window": True,
        "sliding_window": model.window,
        "layer_types": write_layers(model),
    }


def write_qwen3(model: Decoder) -> dict[str, Any]:
    """What `read_qwen3` reads."""
    return {**write_qwen2(model), "attention_bias": model.attention_bias}


QWEN2 = make_family("qwen2", "Qwen2", read_qwen2, write_qwen2)
QWEN3 = make_family("qwen3", "Qwen3", read_qwen3, write_qwen3)
