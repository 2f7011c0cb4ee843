"""Mistral: Llama's keys, a window in all layers. Without one it is written as a Llama."""

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


MISTRAL = make_family("mistral", "Mistral", read_config, write_config)
