"""SigLIP, and SigLIP 2 of a fixed resolution: config and keys of transformers' files, of both
towers together and of each alone."""

from __future__ import annotations

from typing import Any

from zoo.models.clip import IMAGE_OF_SIGLIP, TEXT_OF_SIGLIP, SigLIP, TextTower
from zoo.models.vit import ViT
from zoo.pretrained.bridge import LINEAR, SAME, Row, Table, Turn, linear_rows, norm_rows
from zoo.pretrained.clip import (
    IGNORED,
    IMAGE_DEFAULTS,
    image_rows,
    join_towers,
    read_image,
    read_kinds,
    read_sizes,
    text_rows,
    tower_config,
    write_image,
    write_tower,
)
from zoo.pretrained.family import Family, TheirConfig, find_prefix
from zoo.pretrained.patches import BATCHED
from zoo.pretrained.safetensors_file import Tensors

# A scalar of theirs is an array of one.
SCALAR = Turn(lambda x, model: x.reshape(()), lambda x, model: x.reshape(1))


def _read_image_tower(config: TheirConfig) -> dict[str, Any]:
    config.only("vision_use_head", True)
    return {
        **read_sizes(config, IMAGE_DEFAULTS),
        **read_image(config, 16),
        **read_kinds(config, "gelu_pytorch_tanh", 1e-6),
    }


def _read_text_tower(config: TheirConfig) -> dict[str, Any]:
    return {
        **read_sizes(config, IMAGE_DEFAULTS),
        **read_kinds(config, "gelu_pytorch_tanh", 1e-6),
        "vocab_size": config.get("vocab_size", 32000),
        "num_positions": config.get("max_position_embeddings", 64),
    }


def _read_embedding_width(config: TheirConfig) -> int:
    return config.get("projection_size", config.get("hidden_size", 768))


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a SigLIP."""
    vision, texts = tower_config(config, "vision_config"), tower_config(config, "text_config")
    fields = join_towers(_read_image_tower(vision), _read_text_tower(texts), config.place)
    return {**fields, "embedding_width": _read_embedding_width(texts)}


def read_vision_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT that is SigLIP's image tower."""
    return {**_read_image_tower(config), **IMAGE_OF_SIGLIP}


def read_text_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a TextTower."""
    return {
        **_read_text_tower(config),
        **TEXT_OF_SIGLIP,
        "num_classes": _read_embedding_width(config),
    }


def _write_text_tower(model: Any, prefix: str, embedding_width: int) -> dict[str, Any]:
    return {
        **write_tower(model, prefix),
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.num_positions,
        "projection_size": embedding_width,
    }


def write_config(model: SigLIP) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
        "vision_config": write_vision_config(model),
        "text_config": _write_text_tower(model, "text_", model.embedding_width),
    }


def write_vision_config(model: Any) -> dict[str, Any]:
    """What `read_vision_config` reads."""
    return {**write_tower(model), **write_image(model)}


def write_text_config(model: TextTower) -> dict[str, Any]:
    """What `read_text_config` reads."""
    return _write_text_tower(model, "", model.num_classes)


def _pool_rows(theirs: str, ours: str) -> list[Row]:
    """The image tower's head; its attention has queries, keys and values below each other."""
    rows = [
        Row(f"{theirs}probe", f"{ours}probe", BATCHED),
        *linear_rows(f"{theirs}attention.out_proj", f"{ours}attn/out"),
        *norm_rows(f"{theirs}layernorm", f"{ours}norm"),
        *linear_rows(f"{theirs}mlp.fc1", f"{ours}mlp/fc1"),
        *linear_rows(f"{theirs}mlp.fc2", f"{ours}mlp/fc2"),
    ]
    for part, leaf, turn in (("weight", "kernel", LINEAR), ("bias", "bias", SAME)):
        qkv = tuple(f"{ours}attn/{name}/{leaf}" for name in "qkv")
        rows.append(Row(f"{theirs}attention.in_proj_{part}", qkv, turn))
    return rows


def make_table(model: SigLIP, names: list[str] | None) -> Table:
    """Keys of both towers."""
    rows = [
        *image_rows("vision_model.", "image/"),
        *_pool_rows("vision_model.head.", "image/pool/"),
        *text_rows("text_model.", "text/"),
        *linear_rows("text_model.head", "text/head"),
        Row("logit_scale", "logit_scale", SCALAR),
        Row("logit_bias", "logit_bias", SCALAR),
    ]
    return Table(tuple(rows), ignored=IGNORED)


def make_vision_table(model: ViT, names: list[str] | None) -> Table:
    """`vision_model.` is before the keys of older files."""
    p = find_prefix("vision_model.", "none", names)
    return Table((*image_rows(p, ""), *_pool_rows(f"{p}head.", "pool/")), ignored=IGNORED)


def make_text_table(model: TextTower, names: list[str] | None) -> Table:
    """Likewise with `text_model.`."""
    p = find_prefix("text_model.", "none", names)
    return Table((*text_rows(p, ""), *linear_rows(f"{p}head", "head")), ignored=IGNORED)


SIGLIP = Family("siglip", SigLIP, {"SiglipModel": "none"}, read_config, write_config, make_table)
SIGLIP_VISION = Family(
    "siglip_vision_model",
    ViT,
    {"SiglipVisionModel": "none"},
    read_vision_config,
    write_vision_config,
    make_vision_table,
)
SIGLIP_TEXT = Family(
    "siglip_text_model",
    TextTower,
    {"SiglipTextModel": "classification"},
    read_text_config,
    write_text_config,
    make_text_table,
)
