"""CLIP: config and keys of transformers' files, of both towers together and of each alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.config import UserError
from zoo.models.clip import CLIP, IMAGE_OF_CLIP, TextTower
from zoo.models.vit import ViT
from zoo.pretrained.bridge import LINEAR, Row, Table, Turn, linear_rows, norm_rows
from zoo.pretrained.family import THEIR_ACTIVATIONS, Family, TheirConfig, find_prefix, head_of
from zoo.pretrained.patches import TORCH_PATCH
from zoo.pretrained.safetensors_file import Tensors

# Where a text tower is read, by its config: argmax of the ids where the end token is said to be 2,
# as in files of before transformers 4.31 (it was wrong, the highest id was meant), else at the
# first end token.
OLD_END = 2
# Our field -> their key and transformers' default.
SIZES = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden": "intermediate_size",
}
IMAGE_DEFAULTS = (768, 12, 12, 3072)
TEXT_DEFAULTS = (512, 12, 8, 2048)
# A single row.
CLASS_TOKEN = Turn(lambda x, model: x[None], lambda x, model: x[0])
IGNORED = {r".*embeddings\.position_ids": "the numbers 0, 1, 2, ..."}


def read_sizes(config: TheirConfig, defaults: Iterable[int]) -> dict[str, Any]:
    """Width, depth, heads and feed-forward width of a tower."""
    keys = zip(SIZES.items(), defaults, strict=True)
    return {ours: config.get(theirs, default) for (ours, theirs), default in keys}


def read_image(config: TheirConfig, patch_size: int) -> dict[str, Any]:
    """What an image tower is cut into."""
    side = config.get("image_size", 224)
    return {
        "patch_size": config.get("patch_size", patch_size),
        "image_size": (side, side),
        "num_channels": config.get("num_channels", 3),
    }


def read_kinds(config: TheirConfig, activation: str, epsilon: float) -> dict[str, Any]:
    """Activation and epsilon of a tower."""
    return {
        "activation": config.activation("hidden_act", activation),
        "norm_epsilon": config.get("layer_norm_eps", epsilon),
    }


def _read_texts(config: TheirConfig) -> dict[str, Any]:
    end = config.get("eos_token_id", 49407)
    return {
        "vocab_size": config.get("vocab_size", 49408),
        "num_positions": config.get("max_position_embeddings", 77),
        "pooling": "highest" if end == OLD_END else "end",
        "end_token": 49407 if end == OLD_END else end,
    }


def tower_config(config: TheirConfig, key: str) -> TheirConfig:
    """The part of a config.json for one tower, `text_config` or `vision_config`.

    An older `text_config_dict` takes its place, with all that it does not say at its default: so
    transformers reads it, and OpenAI's own ViT-L/14 has one.
    """
    old = config.values.get(f"{key}_dict")
    values = config.get(key, {}) if old is None else old
    return TheirConfig(values, f"{config.place}: {key}")


def join_towers(image: Mapping[str, Any], text: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Fields of both towers. Raises UserError where they differ in what they should share."""
    for key in ("activation", "norm_epsilon"):
        if image[key] != text[key]:
            raise UserError(
                f"{place}: the towers' {key} differ ({image[key]!r} and {text[key]!r}), ours "
                "share one"
            )
    shared = ("activation", "norm_epsilon", "vocab_size", "num_positions", "end_token")
    return {**image, **{key if key in shared else f"text_{key}": text[key] for key in text}}


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a CLIP."""
    vision, texts = tower_config(config, "vision_config"), tower_config(config, "text_config")
    image = {
        **read_sizes(vision, IMAGE_DEFAULTS),
        **read_image(vision, 32),
        **read_kinds(vision, "quick_gelu", 1e-5),
    }
    text = {
        **read_sizes(texts, TEXT_DEFAULTS),
        **_read_texts(texts),
        **read_kinds(texts, "quick_gelu", 1e-5),
    }
    fields = join_towers(image, text, config.place)
    return {**fields, "embedding_width": config.get("projection_dim", 512)}


def read_vision_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT that is CLIP's image tower."""
    return {
        **read_sizes(config, IMAGE_DEFAULTS),
        **read_image(config, 32),
        **read_kinds(config, "quick_gelu", 1e-5),
        **IMAGE_OF_CLIP,
        "num_classes": 0 if head == "none" else config.get("projection_dim", 512),
    }


def read_text_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a TextTower."""
    return {
        **read_sizes(config, TEXT_DEFAULTS),
        **_read_texts(config),
        **read_kinds(config, "quick_gelu", 1e-5),
        "num_classes": 0 if head == "none" else config.get("projection_dim", 512),
    }


def write_tower(model: Any, prefix: str = "") -> dict[str, Any]:
    """What `read_sizes` and `read_kinds` read, of the fields that begin with `prefix`."""
    return {
        **{theirs: getattr(model, prefix + ours) for ours, theirs in SIZES.items()},
        "hidden_act": THEIR_ACTIVATIONS[model.activation],
        "layer_norm_eps": model.norm_epsilon,
        "attention_dropout": 0.0,
    }


def write_image(model: Any) -> dict[str, Any]:
    """What `read_image` reads; transformers knows square images only."""
    return {
        "patch_size": model.patch_size,
        "image_size": model.image_size[0],
        "num_channels": model.num_channels,
    }


def _write_texts(model: Any, pooling: str) -> dict[str, Any]:
    return {
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.num_positions,
        "eos_token_id": OLD_END if pooling == "highest" else model.end_token,
    }


def write_config(model: CLIP) -> dict[str, Any]:
    """What `read_config` reads."""
    width = {"projection_dim": model.embedding_width}
    texts = _write_texts(model, model.text_pooling)
    return {
        **width,
        "vision_config": {**write_tower(model), **write_image(model), **width},
        "text_config": {**write_tower(model, "text_"), **texts, **width},
    }


def write_vision_config(model: ViT) -> dict[str, Any]:
    """What `read_vision_config` reads."""
    width = {"projection_dim": model.num_classes} if model.num_classes else {}
    return {**write_tower(model), **write_image(model), **width}


def write_text_config(model: TextTower) -> dict[str, Any]:
    """What `read_text_config` reads."""
    width = {"projection_dim": model.num_classes} if model.num_classes else {}
    return {**write_tower(model), **_write_texts(model, model.pooling), **width}


def block_rows(layer: str, block: str) -> list[Row]:
    """One layer of a tower."""
    rows = [
        *norm_rows(f"{layer}layer_norm1", f"{block}norm1"),
        *norm_rows(f"{layer}layer_norm2", f"{block}norm2"),
    ]
    for name in ("q", "k", "v", "out"):
        rows += linear_rows(f"{layer}self_attn.{name}_proj", f"{block}attn/{name}")
    for name in ("fc1", "fc2"):
        rows += linear_rows(f"{layer}mlp.{name}", f"{block}mlp/{name}")
    return rows


def image_rows(theirs: str, ours: str) -> list[Row]:
    """The image tower without its head; what one of CLIP and SigLIP lacks has no leaf."""
    return [
        Row(f"{theirs}embeddings.class_embedding", f"{ours}cls", CLASS_TOKEN),
        Row(f"{theirs}embeddings.patch_embedding.weight", f"{ours}embed/kernel", TORCH_PATCH),
        Row(f"{theirs}embeddings.patch_embedding.bias", f"{ours}embed/bias"),
        Row(f"{theirs}embeddings.position_embedding.weight", f"{ours}pos"),
        *norm_rows(f"{theirs}pre_layrnorm", f"{ours}embed_norm"),
        *block_rows(theirs + "encoder.layers.{i}.", ours + "blocks/{i}/"),
        *norm_rows(f"{theirs}post_layernorm", f"{ours}norm"),
    ]


def text_rows(theirs: str, ours: str) -> list[Row]:
    """The text tower without its head."""
    return [
        Row(f"{theirs}embeddings.token_embedding.weight", f"{ours}embed/embedding"),
        Row(f"{theirs}embeddings.position_embedding.weight", f"{ours}pos"),
        *block_rows(theirs + "encoder.layers.{i}.", ours + "blocks/{i}/"),
        *norm_rows(f"{theirs}final_layer_norm", f"{ours}norm"),
    ]


def make_table(model: CLIP, names: list[str] | None) -> Table:
    """Keys of both towers."""
    rows = [
        *image_rows("vision_model.", "image/"),
        *text_rows("text_model.", "text/"),
        Row("visual_projection.weight", "image/head/kernel", LINEAR),
        Row("text_projection.weight", "text/head/kernel", LINEAR),
        Row("logit_scale", "logit_scale"),
    ]
    return Table(tuple(rows), ignored=IGNORED)


def make_vision_table(model: ViT, names: list[str] | None) -> Table:
    """`vision_model.` is before the keys where there is a projection, and in older files."""
    p = find_prefix("vision_model.", head_of(model), names)
    head = Row("visual_projection.weight", "head/kernel", LINEAR)
    return Table((*image_rows(p, ""), head), ignored=IGNORED)


def make_text_table(model: TextTower, names: list[str] | None) -> Table:
    """Likewise with `text_model.`."""
    p = find_prefix("text_model.", head_of(model), names)
    head = Row("text_projection.weight", "head/kernel", LINEAR)
    return Table((*text_rows(p, ""), head), ignored=IGNORED)


CLIP_FAMILY = Family("clip", CLIP, {"CLIPModel": "none"}, read_config, write_config, make_table)
CLIP_VISION = Family(
    "clip_vision_model",
    ViT,
    {"CLIPVisionModelWithProjection": "classification", "CLIPVisionModel": "none"},
    read_vision_config,
    write_vision_config,
    make_vision_table,
)
CLIP_TEXT = Family(
    "clip_text_model",
    TextTower,
    {"CLIPTextModelWithProjection": "classification", "CLIPTextModel": "none"},
    read_text_config,
    write_text_config,
    make_text_table,
)
