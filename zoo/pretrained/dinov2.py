"""DINOv2, with and without registers: ViTs with layer scale and a mask token.

Pre-norm, exact GELU or (g) SiLU-gated, norm epsilon 1e-6. transformers resizes positions as it runs
(without registers not antialiased), here the adapter does when `image_size` is changed at loading.
"""

from __future__ import annotations

import functools
from typing import Any

from zoo.models.vit import ViT
from zoo.pretrained.bridge import LINEAR, SAME, Row, Table, linear_rows, norm_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    find_prefix,
    head_of,
    make_labels,
)
from zoo.pretrained.patches import BATCHED, as_size, read_pair, torch_patch_rows
from zoo.pretrained.safetensors_file import Tensors
from zoo.pretrained.vit import attention_rows

PATCHES = {"dinov2": 14, "dinov2_with_registers": 16}  # transformers' defaults


def read_config(
    config: TheirConfig, head: str, tensors: Tensors, *, name: str = "dinov2"
) -> dict[str, Any]:
    """Fields of a ViT."""
    width = config.get("hidden_size", 768)
    gated = config.get("use_swiglu_ffn", False)
    registers = name == "dinov2_with_registers"
    return {
        "width": width,
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "hidden": find_hidden(width, config.get("mlp_ratio", 4), gated),
        "patch_size": as_size(read_pair(config, "patch_size", PATCHES[name])),
        "image_size": read_pair(config, "image_size", 224),
        "num_channels": config.get("num_channels", 3),
        "num_classes": config.num_labels() if head == "classification" else 0,
        "pooling": "cls_mean" if head == "classification" else "cls",
        "num_registers": config.get("num_register_tokens", 4) if registers else 0,
        "mask_token": registers or config.get("use_mask_token", True),
        "activation": "silu" if gated else config.activation("hidden_act", "gelu"),
        "gated": gated,
        "layer_scale": config.get("layerscale_value", 1.0),
        "qkv_bias": config.get("qkv_bias", True),
        "norm_epsilon": config.get("layer_norm_eps", 1e-6),
        "dropout": config.get("hidden_dropout_prob", 0.0),
        "stochastic_depth": config.get("drop_path_rate", 0.0),
    }


def find_hidden(width: int, ratio: int, gated: bool) -> int:
    """The feed-forward's width; a gated one has two thirds, rounded up to a multiple of 8."""
    return (int(width * ratio * 2 / 3) + 7) // 8 * 8 if gated else width * ratio


def write_config(model: ViT, *, name: str = "dinov2") -> dict[str, Any]:
    """What `read_config` reads; of a width that no whole ratio gives, the nearest ratio's."""
    near = max(round((1.5 if model.gated else 1) * model.hidden / model.width), 1)
    # Where the width is rounded up, the ratio may be the one below.
    fits = [r for r in (near, near - 1) if find_hidden(model.width, r, model.gated) == model.hidden]
    config = {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "mlp_ratio": fits[0] if fits else near,
        "patch_size": model.patch_size,
        "image_size": list(model.image_size),
        "num_channels": model.num_channels,
        "hidden_act": "gelu" if model.gated else THEIR_ACTIVATIONS[model.activation],
        "use_swiglu_ffn": model.gated,
        "layerscale_value": 1.0 if model.layer_scale is None else model.layer_scale,
        "qkv_bias": model.qkv_bias,
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": model.dropout,
        "drop_path_rate": model.stochastic_depth,
        "attention_probs_dropout_prob": 0.0,
        **(make_labels(model.num_classes) if model.num_classes else {}),
    }
    if name == "dinov2":
        return {**config, "use_mask_token": model.mask_token}
    return {**config, "num_register_tokens": max(model.num_registers, 1)}


def make_table(model: ViT, names: list[str] | None, *, name: str = "dinov2") -> Table:
    """transformers' keys."""
    p = find_prefix(f"{name}.", head_of(model), names)
    layer, block = p + "encoder.layer.{i}.", "blocks/{i}/"
    rows = [
        Row(f"{p}embeddings.cls_token", "cls", BATCHED),
        Row(f"{p}embeddings.mask_token", "mask"),
        Row(f"{p}embeddings.register_tokens", "registers", BATCHED),
        Row(f"{p}embeddings.position_embeddings", "pos", BATCHED),
        *torch_patch_rows(f"{p}embeddings.patch_embeddings.projection"),
        *norm_rows(f"{layer}norm1", f"{block}norm1"),
        *norm_rows(f"{layer}norm2", f"{block}norm2"),
        *attention_rows(layer, block),
        Row(f"{layer}layer_scale1.lambda1", f"{block}end1/scale"),
        Row(f"{layer}layer_scale2.lambda1", f"{block}end2/scale"),
        *norm_rows(f"{p}layernorm", "norm"),
        *linear_rows("classifier", "head"),
    ]
    if model.gated:  # the gate and what it lets through, below each other
        for theirs, ours, turn in (("weight", "kernel", LINEAR), ("bias", "bias", SAME)):
            both = (f"{block}mlp/gate/{ours}", f"{block}mlp/fc1/{ours}")
            rows.append(Row(f"{layer}mlp.weights_in.{theirs}", both, turn))
        rows += linear_rows(f"{layer}mlp.weights_out", f"{block}mlp/fc2")
    else:
        rows += linear_rows(f"{layer}mlp.fc1", f"{block}mlp/fc1")
        rows += linear_rows(f"{layer}mlp.fc2", f"{block}mlp/fc2")
    return Table(tuple(rows))


def _make_family(name: str, start: str) -> Family:
    heads = {f"{start}ForImageClassification": "classification", f"{start}Model": "none"}
    return Family(
        name,
        ViT,
        heads,
        functools.partial(read_config, name=name),
        functools.partial(write_config, name=name),
        functools.partial(make_table, name=name),
    )


DINOV2 = _make_family("dinov2", "Dinov2")
DINOV2_REGISTERS = _make_family("dinov2_with_registers", "Dinov2WithRegisters")
