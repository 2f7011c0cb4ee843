"""ViT: config and keys of transformers' files, timm's, and AugReg's and big_vision's `.npz`."""

from __future__ import annotations

import math
import re
from typing import Any

from zoo.config import UserError
from zoo.models.vit import SIZES, ViT
from zoo.pretrained.bridge import LINEAR, SAME, Row, Table, Turn, linear_rows, norm_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    find_prefix,
    make_labels,
)
from zoo.pretrained.safetensors_file import Tensors


def _patch(model: Any) -> tuple[int, int]:
    patch = model.patch_size
    return (patch, patch) if isinstance(patch, int) else patch


# torch's convolution [width, ch, y, x], flax's [y, x, ch, width], our matrix [y * x * ch, width].
TORCH_PATCH = Turn(
    lambda x, model: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x, model: x.reshape(*_patch(model), -1, x.shape[1]).transpose(3, 2, 0, 1),
)
FLAX_PATCH = Turn(
    lambda x, model: x.reshape(-1, x.shape[-1]),
    lambda x, model: x.reshape(*_patch(model), -1, x.shape[-1]),
)
# A leading axis of the batch.
BATCHED = Turn(lambda x, model: x[0], lambda x, model: x[None])
# flax's attention has heads of its own: [d, n, h], [n, h, d] and biases [n, h].
HEADS_OUT = Turn(
    lambda x, model: x.reshape(x.shape[0], -1),
    lambda x, model: x.reshape(x.shape[0], model.num_heads, -1),
)
HEADS_IN = Turn(
    lambda x, model: x.reshape(-1, x.shape[-1]),
    lambda x, model: x.reshape(model.num_heads, -1, x.shape[-1]),
)
HEADS_BIAS = Turn(lambda x, model: x.reshape(-1), lambda x, model: x.reshape(model.num_heads, -1))


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT."""
    config.only("pooler_act", "tanh")
    config.only("pooler_output_size", config.get("hidden_size", 768))
    patch = _pair(config, "patch_size", 16)
    return {
        "width": config.get("hidden_size", 768),
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "hidden": config.get("intermediate_size", 3072),
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "image_size": _pair(config, "image_size", 224),
        "num_channels": config.get("num_channels", 3),
        "num_classes": config.num_labels() if head == "classification" else 0,
        "pre_logits": any("pooler." in name for name in tensors.names()),
        "activation": config.activation("hidden_act", "gelu"),
        "qkv_bias": config.get("qkv_bias", True),
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
        "dropout": config.get("hidden_dropout_prob", 0.0),
    }


def _pair(config: TheirConfig, key: str, default: int) -> tuple[int, int]:
    value = config.values.get(key, default)
    pair = value if isinstance(value, (list, tuple)) else [value, value]
    # `type`, not isinstance: True is an int in Python.
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise UserError(f"{config.place}: {key}={value!r} should be one or two whole numbers")
    return pair[0], pair[1]


def write_config(model: ViT) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "intermediate_size": model.hidden,
        "patch_size": model.patch_size,
        "image_size": list(model.image_size),
        "num_channels": model.num_channels,
        "hidden_act": THEIR_ACTIVATIONS[model.activation],
        "qkv_bias": model.qkv_bias,
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": 0.0,
        **(make_labels(model.num_classes) if model.num_classes else {}),
    }


def make_table(model: ViT, names: list[str] | None) -> Table:
    """transformers' keys."""
    p = find_prefix("vit.", "classification" if model.num_classes else "none", names)
    layer, block = p + "encoder.layer.{i}.", "blocks/{i}/"
    rows = [
        Row(f"{p}embeddings.cls_token", "cls", BATCHED),
        Row(f"{p}embeddings.position_embeddings", "pos", BATCHED),
        *_torch_patch_rows(f"{p}embeddings.patch_embeddings.projection"),
        *norm_rows(f"{layer}layernorm_before", f"{block}norm1"),
        *norm_rows(f"{layer}layernorm_after", f"{block}norm2"),
        *linear_rows(f"{layer}attention.output.dense", f"{block}attn/out"),
        *linear_rows(f"{layer}intermediate.dense", f"{block}mlp/fc1"),
        *linear_rows(f"{layer}output.dense", f"{block}mlp/fc2"),
        *norm_rows(f"{p}layernorm", "norm"),
        *linear_rows(f"{p}pooler.dense", "pre_logits"),
        *linear_rows("classifier", "head"),
    ]
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
        rows += linear_rows(f"{layer}attention.attention.{theirs}", f"{block}attn/{ours}")
    return Table(tuple(rows))


def make_timm_table(model: ViT, names: list[str] | None) -> Table:
    """timm's keys: `attn.qkv` holds queries, keys and values below each other."""
    layer, block = "blocks.{i}.", "blocks/{i}/"
    rows = [
        Row("cls_token", "cls", BATCHED),
        Row("pos_embed", "pos", BATCHED),
        *_torch_patch_rows("patch_embed.proj"),
        *norm_rows(f"{layer}norm1", f"{block}norm1"),
        *norm_rows(f"{layer}norm2", f"{block}norm2"),
        *linear_rows(f"{layer}attn.proj", f"{block}attn/out"),
        *linear_rows(f"{layer}mlp.fc1", f"{block}mlp/fc1"),
        *linear_rows(f"{layer}mlp.fc2", f"{block}mlp/fc2"),
        *norm_rows("norm", "norm"),
        *linear_rows("pre_logits.fc", "pre_logits"),
        *linear_rows("head", "head"),
    ]
    for theirs, ours, turn in (("weight", "kernel", LINEAR), ("bias", "bias", SAME)):
        qkv = tuple(f"{block}attn/{name}/{ours}" for name in "qkv")
        rows.append(Row(f"{layer}attn.qkv.{theirs}", qkv, turn))
    return Table(tuple(rows))


def make_npz_table(model: ViT, names: list[str] | None) -> Table:
    """Flax's keys: AugReg's (`LayerNorm_2`, `MlpBlock_3`) or big_vision's (`params/...`)."""
    names = names or []
    p = "params/" if any(name.startswith("params/") for name in names) else ""
    augreg = f"{p}Transformer/posembed_input/pos_embedding" in names
    layer, block = p + "Transformer/encoderblock_{i}/", "blocks/{i}/"
    positions = "Transformer/posembed_input/pos_embedding" if augreg else "pos_embedding"
    attention, norm2, mlp = (
        ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
        if augreg
        else ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
    )
    pool = f"{p}MAPHead_0/"
    rows = [
        Row(f"{p}cls", "cls", BATCHED),
        Row(p + positions, "pos", BATCHED),
        Row(f"{p}embedding/kernel", "embed/kernel", FLAX_PATCH),
        Row(f"{p}embedding/bias", "embed/bias"),
        *_flax_block_rows(f"{layer}{attention}", f"{layer}{mlp}", block),
        *_flax_rows(f"{layer}LayerNorm_0", f"{block}norm1", "scale"),
        *_flax_rows(f"{layer}{norm2}", f"{block}norm2", "scale"),
        *_flax_rows(f"{p}Transformer/encoder_norm", "norm", "scale"),
        *_flax_rows(f"{p}pre_logits", "pre_logits"),
        *_flax_rows(f"{p}head", "head"),
        Row(f"{pool}probe", "pool/probe", BATCHED),
        *_flax_block_rows(f"{pool}MultiHeadDotProductAttention_0", f"{pool}MlpBlock_0", "pool/"),
        *_flax_rows(f"{pool}LayerNorm_0", "pool/norm", "scale"),
    ]
    ignored = {r"opt/.*": "the optimizer's state"}
    return Table(tuple(rows), ignored=ignored)


def _torch_patch_rows(theirs: str) -> list[Row]:
    kernel = Row(f"{theirs}.weight", "embed/kernel", TORCH_PATCH)
    return [kernel, Row(f"{theirs}.bias", "embed/bias")]


def _flax_rows(theirs: str, ours: str, kernel: str = "kernel") -> list[Row]:
    return [Row(f"{theirs}/{part}", f"{ours}/{part}") for part in (kernel, "bias")]


def _flax_block_rows(attention: str, mlp: str, block: str) -> list[Row]:
    rows = [
        Row(f"{attention}/out/kernel", f"{block}attn/out/kernel", HEADS_IN),
        Row(f"{attention}/out/bias", f"{block}attn/out/bias"),
        *_flax_rows(f"{mlp}/Dense_0", f"{block}mlp/fc1"),
        *_flax_rows(f"{mlp}/Dense_1", f"{block}mlp/fc2"),
    ]
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
        rows += [
            Row(f"{attention}/{theirs}/kernel", f"{block}attn/{ours}/kernel", HEADS_OUT),
            Row(f"{attention}/{theirs}/bias", f"{block}attn/{ours}/bias", HEADS_BIAS),
        ]
    return rows


def read_timm(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT from the shapes in the file; heads and epsilon are those of timm's ViTs.

    The image is `pretrained_cfg.input_size` where there is a config.json, else square.
    """
    names = tensors.names()
    width, channels, *patch = _shape(tensors, "patch_embed.proj.weight", 4)
    told = config.get("pretrained_cfg", {}) or config.values
    sizes = TheirConfig(told, config.place).get("input_size", [])[1:]
    if sizes:
        sizes = _pair(TheirConfig({"input_size": sizes}, config.place), "input_size", 224)
    prefix = int("cls_token" in tensors)
    return {
        "width": width,
        "depth": _count(names, r"blocks\.(\d+)\.norm1\.weight"),
        "num_heads": _num_heads(width),
        "hidden": _shape(tensors, "blocks.0.mlp.fc1.bias", 1)[0],
        "patch_size": patch[0] if patch[0] == patch[1] else (patch[0], patch[1]),
        "image_size": _image_size(tensors, "pos_embed", prefix, patch, sizes),
        "num_channels": channels,
        "num_classes": tensors.shape("head.weight")[0] if "head.weight" in tensors else 0,
        "pre_logits": "pre_logits.fc.weight" in tensors,
        "pooling": "cls" if prefix else "mean",
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    }


def read_npz(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT from the shapes in the file; the image is taken for square."""
    names = tensors.names()
    p = "params/" if any(name.startswith("params/") for name in names) else ""
    augreg = f"{p}Transformer/posembed_input/pos_embedding" in tensors
    *patch, channels, width = _shape(tensors, f"{p}embedding/kernel", 4)
    layer = f"{p}Transformer/encoderblock_0/"
    attention = "MultiHeadDotProductAttention_1" if augreg else "MultiHeadDotProductAttention_0"
    mlp = "MlpBlock_3" if augreg else "MlpBlock_0"
    positions = "Transformer/posembed_input/pos_embedding" if augreg else "pos_embedding"
    prefix = int(f"{p}cls" in tensors)
    mapped = f"{p}MAPHead_0/probe" in tensors
    return {
        "width": width,
        "depth": _count(names, r".*encoderblock_(\d+)/LayerNorm_0/scale"),
        "num_heads": _shape(tensors, f"{layer}{attention}/query/bias", 2)[0],
        "hidden": _shape(tensors, f"{layer}{mlp}/Dense_0/bias", 1)[0],
        "patch_size": patch[0] if patch[0] == patch[1] else (patch[0], patch[1]),
        "image_size": _image_size(tensors, p + positions, prefix, patch, ()),
        "num_channels": channels,
        "num_classes": tensors.shape(f"{p}head/bias")[0] if f"{p}head/bias" in tensors else 0,
        "pre_logits": f"{p}pre_logits/kernel" in tensors,
        "pooling": "map" if mapped else "cls" if prefix else "mean",
        "activation": "gelu_tanh",  # flax's default, which both programs take
    }


def _shape(tensors: Tensors, name: str, rank: int) -> tuple[int, ...]:
    if name not in tensors or len(tensors.shape(name)) != rank:
        raise UserError(f"{tensors.place}: no ViT ({name} of {rank} axes is missing)")
    return tensors.shape(name)


def _count(names: list[str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.fullmatch(pattern, name))})


# timm's so400m and gigantic: width -> heads, none of them 64 wide.
WIDE_HEADS = {1152: 16, 1664: 16}


def _num_heads(width: int) -> int:
    """timm's files do not say: the table's number, else one a 64 of width."""
    known = {row[0]: row[2] for row in SIZES.values()} | WIDE_HEADS
    return known.get(width, max(width // 64, 1))


def _image_size(
    tensors: Tensors, name: str, prefix: int, patch: list[int], told: Any
) -> tuple[int, int]:
    if told:
        return told[0], told[1]
    patches = _shape(tensors, name, 3)[1] - prefix
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(
            f"{tensors.place}: {name} has {patches} patches, no square, and nothing says how many "
            "rows: give a config.json with pretrained_cfg.input_size"
        )
    return side * patch[0], side * patch[1]


HEADS = {"ViTForImageClassification": "classification", "ViTModel": "none"}
VIT = Family("vit", ViT, HEADS, read_config, write_config, make_table)
# Files without transformers' config.json: read, never written.
TIMM = Family("timm", ViT, HEADS, read_timm, write_config, make_timm_table)
NPZ = Family("npz", ViT, HEADS, read_npz, write_config, make_npz_table)
