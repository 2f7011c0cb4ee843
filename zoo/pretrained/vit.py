"""ViT: config and keys of transformers' files, timm's, and AugReg's and big_vision's `.npz`.

timm's files are also DeiT's, distilled or not, and DINOv2's; so is what DINOv2's authors publish.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.models.vit import SIZES, ViT
from zoo.pretrained.bridge import LINEAR, SAME, Row, Table, Turn, linear_rows, norm_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    find_prefix,
    make_labels,
)
from zoo.pretrained.patches import (
    BATCHED,
    FLAX_PATCH,
    as_size,
    count_classes,
    count_layers,
    find_image_size,
    find_shape,
    flax_rows,
    read_input_size,
    read_pair,
    torch_patch_rows,
)
from zoo.pretrained.safetensors_file import Tensors

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

REGISTERS = "reg_token"  # timm's: where it has them, the tokens before the patches have no position
PATCHES_ALONE = Turn(
    lambda x, model: np.pad(x[0], ((model.num_placed(), 0), (0, 0))),
    lambda x, model: x[None, model.num_placed() :],
)


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT."""
    config.only("pooler_act", "tanh")
    config.only("pooler_output_size", config.get("hidden_size", 768))
    patch = read_pair(config, "patch_size", 16)
    return {
        "width": config.get("hidden_size", 768),
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "hidden": config.get("intermediate_size", 3072),
        "patch_size": as_size(patch),
        "image_size": read_pair(config, "image_size", 224),
        "num_channels": config.get("num_channels", 3),
        "num_classes": config.num_labels() if head == "classification" else 0,
        "pre_logits": any("pooler." in name for name in tensors.names()),
        "activation": config.activation("hidden_act", "gelu"),
        "qkv_bias": config.get("qkv_bias", True),
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
        "dropout": config.get("hidden_dropout_prob", 0.0),
    }


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
    rows = [*body_rows(p), *linear_rows(f"{p}pooler.dense", "pre_logits")]
    return Table((*rows, *linear_rows("classifier", "head")))


def body_rows(p: str, ours: str = "") -> list[Row]:
    """transformers' keys of a ViT after `p`, its pooler and head apart; ours after `ours`."""
    return [
        Row(f"{p}embeddings.cls_token", f"{ours}cls", BATCHED),
        Row(f"{p}embeddings.position_embeddings", f"{ours}pos", BATCHED),
        *torch_patch_rows(f"{p}embeddings.patch_embeddings.projection", f"{ours}embed"),
        *layer_rows(f"{p}encoder.layer.{{i}}.", f"{ours}blocks/{{i}}/"),
        *norm_rows(f"{p}layernorm", f"{ours}norm"),
    ]


def layer_rows(layer: str, block: str) -> list[Row]:
    """transformers' keys of one layer."""
    return [
        *norm_rows(f"{layer}layernorm_before", f"{block}norm1"),
        *norm_rows(f"{layer}layernorm_after", f"{block}norm2"),
        *attention_rows(layer, block),
        *linear_rows(f"{layer}intermediate.dense", f"{block}mlp/fc1"),
        *linear_rows(f"{layer}output.dense", f"{block}mlp/fc2"),
    ]


def attention_rows(layer: str, block: str) -> list[Row]:
    """transformers' keys of one layer's attention."""
    rows = linear_rows(f"{layer}attention.output.dense", f"{block}attn/out")
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
        rows += linear_rows(f"{layer}attention.attention.{theirs}", f"{block}attn/{ours}")
    return rows


def make_timm_table(model: ViT, names: list[str] | None) -> Table:
    """timm's keys, and those of DINOv2's authors, which differ in a few: `attn.qkv` holds queries,
    keys and values below each other, a gated feed-forward's first layer the gate and the rest."""
    names = names or []
    layer, block = "blocks.{i}.", "blocks/{i}/"
    first, last = ("w12", "w3") if "blocks.0.mlp.w3.weight" in names else ("fc1", "fc2")
    rows = [
        Row("cls_token", "cls", BATCHED),
        Row("dist_token", "dist", BATCHED),
        Row("mask_token", "mask"),
        Row("register_tokens" if "register_tokens" in names else REGISTERS, "registers", BATCHED),
        Row("pos_embed", "pos", PATCHES_ALONE if REGISTERS in names else BATCHED),
        *torch_patch_rows("patch_embed.proj"),
        *norm_rows(f"{layer}norm1", f"{block}norm1"),
        *norm_rows(f"{layer}norm2", f"{block}norm2"),
        *linear_rows(f"{layer}attn.proj", f"{block}attn/out"),
        Row(f"{layer}ls1.gamma", f"{block}end1/scale"),
        Row(f"{layer}ls2.gamma", f"{block}end2/scale"),
        *linear_rows(f"{layer}mlp.{last}", f"{block}mlp/fc2"),
        *norm_rows("norm", "norm"),
        *linear_rows("pre_logits.fc", "pre_logits"),
        *linear_rows("head", "head"),
        *linear_rows("head_dist", "head_dist"),
    ]
    for theirs, ours, turn in (("weight", "kernel", LINEAR), ("bias", "bias", SAME)):
        qkv = tuple(f"{block}attn/{name}/{ours}" for name in "qkv")
        parts = ("gate", "fc1") if model.gated else ("fc1",)
        fc1 = tuple(f"{block}mlp/{name}/{ours}" for name in parts)
        rows.append(Row(f"{layer}attn.qkv.{theirs}", qkv, turn))
        rows.append(Row(f"{layer}mlp.{first}.{theirs}", fc1, turn))
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
        *flax_rows(f"{layer}LayerNorm_0", f"{block}norm1", "scale"),
        *flax_rows(f"{layer}{norm2}", f"{block}norm2", "scale"),
        *flax_rows(f"{p}Transformer/encoder_norm", "norm", "scale"),
        *flax_rows(f"{p}pre_logits", "pre_logits"),
        *flax_rows(f"{p}head", "head"),
        Row(f"{pool}probe", "pool/probe", BATCHED),
        *_flax_block_rows(f"{pool}MultiHeadDotProductAttention_0", f"{pool}MlpBlock_0", "pool/"),
        *flax_rows(f"{pool}LayerNorm_0", "pool/norm", "scale"),
    ]
    ignored = {r"opt/.*": "the optimizer's state"}
    return Table(tuple(rows), ignored=ignored)


def _flax_block_rows(attention: str, mlp: str, block: str) -> list[Row]:
    rows = [
        Row(f"{attention}/out/kernel", f"{block}attn/out/kernel", HEADS_IN),
        Row(f"{attention}/out/bias", f"{block}attn/out/bias"),
        *flax_rows(f"{mlp}/Dense_0", f"{block}mlp/fc1"),
        *flax_rows(f"{mlp}/Dense_1", f"{block}mlp/fc2"),
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
    width, channels, *patch = find_shape(tensors, "ViT", "patch_embed.proj.weight", 4)
    tokens = find_shape(tensors, "ViT", "pos_embed", 3)[1]
    prefix = 0 if REGISTERS in tensors else sum(n in tensors for n in ("cls_token", "dist_token"))
    first, last = ("w12", "w3") if "blocks.0.mlp.w3.weight" in tensors else ("fc1", "fc2")
    hidden = find_shape(tensors, "ViT", f"blocks.0.mlp.{last}.weight", 2)[1]
    gated = find_shape(tensors, "ViT", f"blocks.0.mlp.{first}.weight", 2)[0] == 2 * hidden
    registers = [tensors.shape(n)[1:2] for n in names if n in (REGISTERS, "register_tokens")]
    distilled = "head" if "head_dist.weight" in tensors else "token"
    return {
        "width": width,
        "depth": count_layers(names, r"blocks\.(\d+)\.norm1\.weight"),
        "num_heads": _num_heads(width),
        "hidden": hidden,
        "gated": gated,
        "activation": "silu" if gated else "gelu",
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        "num_registers": sum(sum(shape) for shape in registers),
        "mask_token": "mask_token" in tensors,
        "distillation": distilled if "dist_token" in tensors else "none",
        "patch_size": as_size(patch),
        "image_size": find_image_size(
            tensors.place, tokens - prefix, patch, read_input_size(config)
        ),
        "num_channels": channels,
        "num_classes": count_classes(tensors, "head.weight"),
        "pre_logits": "pre_logits.fc.weight" in tensors,
        "pooling": "cls" if "cls_token" in tensors else "mean",
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    }


def read_npz(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT from the shapes in the file; the image is taken for square."""
    names = tensors.names()
    p = "params/" if any(name.startswith("params/") for name in names) else ""
    augreg = f"{p}Transformer/posembed_input/pos_embedding" in tensors
    *patch, channels, width = find_shape(tensors, "ViT", f"{p}embedding/kernel", 4)
    layer = f"{p}Transformer/encoderblock_0/"
    attention = "MultiHeadDotProductAttention_1" if augreg else "MultiHeadDotProductAttention_0"
    mlp = "MlpBlock_3" if augreg else "MlpBlock_0"
    positions = "Transformer/posembed_input/pos_embedding" if augreg else "pos_embedding"
    prefix = int(f"{p}cls" in tensors)
    tokens = find_shape(tensors, "ViT", p + positions, 3)[1]
    mapped = f"{p}MAPHead_0/probe" in tensors
    return {
        "width": width,
        "depth": count_layers(names, r".*encoderblock_(\d+)/LayerNorm_0/scale"),
        "num_heads": find_shape(tensors, "ViT", f"{layer}{attention}/query/bias", 2)[0],
        "hidden": find_shape(tensors, "ViT", f"{layer}{mlp}/Dense_0/bias", 1)[0],
        "patch_size": as_size(patch),
        "image_size": find_image_size(tensors.place, tokens - prefix, patch, None),
        "num_channels": channels,
        "num_classes": count_classes(tensors, f"{p}head/bias"),
        "pre_logits": f"{p}pre_logits/kernel" in tensors,
        "pooling": "map" if mapped else "cls" if prefix else "mean",
        "activation": "gelu_tanh",  # flax's default, which both programs take
    }


# timm's so400m and gigantic: width -> heads, none of them 64 wide.
WIDE_HEADS = {1152: 16, 1664: 16}


def _num_heads(width: int) -> int:
    """timm's files do not say: the table's number, else one a 64 of width."""
    known = {row[0]: row[2] for row in SIZES.values()} | WIDE_HEADS
    return known.get(width, max(width // 64, 1))


HEADS = {"ViTForImageClassification": "classification", "ViTModel": "none"}
VIT = Family("vit", ViT, HEADS, read_config, write_config, make_table)
# Files without transformers' config.json: read, never written.
TIMM = Family("timm", ViT, HEADS, read_timm, write_config, make_timm_table)
NPZ = Family("npz", ViT, HEADS, read_npz, write_config, make_npz_table)
