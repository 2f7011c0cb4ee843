"""Mistral and Mixtral: Llama's keys, a window in all layers, or experts.

A Mistral without a window is written as a Llama.
"""

from __future__ import annotations

from typing import Any

from zoo.models.decoder import Decoder
from zoo.pretrained.family import THEIR_ACTIVATIONS, TheirConfig
from zoo.pretrained.llama import make_family, read_body, write_body
from zoo.pretrained.safetensors_file import Tensors

USUAL = {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
USUAL_MIXTRAL = {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1_000_000.0,
}


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder. A window of null is none."""
    config.only("layer_types", None)
    return {
        **read_body(config, head, USUAL),
        "activation": config.activation("hidden_act", "silu"),
        "window": TheirConfig({**USUAL, **config.values}, config.place).get(
            "sliding_window", None, int
        ),
    }


def write_config(model: Decoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
        **write_body(model),
        "hidden_act": THEIR_ACTIVATIONS[model.activation],
        "sliding_window": model.window,
    }


def read_mixtral(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder."""
    return {
        **read_body(config, head, USUAL_MIXTRAL),
        "activation": config.activation("hidden_act", "silu"),
        "window": config.get("sliding_window", None, int),
        "num_experts": config.get("num_local_experts", 8),
        "experts_per_token": config.get("num_experts_per_tok", 2),
    }


def write_mixtral(model: Decoder) -> dict[str, Any]:
    """What `read_mixtral` reads."""
    return {
        **write_config(model),
        "num_local_experts": model.num_experts,
        "num_experts_per_tok": model.experts_per_token,
    }


MIXTRAL = make_family("mixtral", "Mixtral", read_mixtral, write_mixtral)
MISTRAL = make_family("mistral", "Mistral", read_config, write_config)
