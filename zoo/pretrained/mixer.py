"""MLP-Mixer: keys of timm's files and of the authors' `.npz`. transformers has no such class."""

from __future__ import annotations

from typing import Any

from zoo.config import UserError
from zoo.models.mixer import Mixer
from zoo.pretrained.bridge import Row, Table, linear_rows, norm_rows
from zoo.pretrained.family import Family, TheirConfig
from zoo.pretrained.patches import (
    FLAX_PATCH,
    as_size,
    count_classes,
    count_layers,
    find_image_size,
    find_shape,
    flax_rows,
    read_input_size,
    torch_patch_rows,
)
from zoo.pretrained.safetensors_file import Tensors


def make_timm_table(model: Mixer, names: list[str] | None) -> Table:
    """timm's keys."""
    layer, block = "blocks.{i}.", "blocks/{i}/"
    rows = [
        *torch_patch_rows("stem.proj"),
        *norm_rows(f"{layer}norm1", f"{block}norm1"),
        *norm_rows(f"{layer}norm2", f"{block}norm2"),
        *norm_rows("norm", "norm"),
        *linear_rows("head", "head"),
    ]
    for theirs, ours in (("mlp_tokens", "tokens"), ("mlp_channels", "mlp")):
        for part in ("fc1", "fc2"):
            rows += linear_rows(f"{layer}{theirs}.{part}", f"{block}{ours}/{part}")
    return Table(tuple(rows))


def make_npz_table(model: Mixer, names: list[str] | None) -> Table:
    """The authors' keys."""
    layer, block = "MixerBlock_{i}/", "blocks/{i}/"
    rows = [
        Row("stem/kernel", "embed/kernel", FLAX_PATCH),
        Row("stem/bias", "embed/bias"),
        *flax_rows(f"{layer}LayerNorm_0", f"{block}norm1", "scale"),
        *flax_rows(f"{layer}LayerNorm_1", f"{block}norm2", "scale"),
        *flax_rows("pre_head_layer_norm", "norm", "scale"),
        *flax_rows("head", "head"),
    ]
    for theirs, ours in (("token_mixing", "tokens"), ("channel_mixing", "mlp")):
        for i in (0, 1):
            rows += flax_rows(f"{layer}{theirs}/Dense_{i}", f"{block}{ours}/fc{i + 1}")
    return Table(tuple(rows))


def read_timm(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Mixer from the shapes in the file.

    The image is `pretrained_cfg.input_size` where there is a config.json, else square.
    """
    width, channels, *patch = find_shape(tensors, "Mixer", "stem.proj.weight", 4)
    tokens_hidden, tokens = find_shape(tensors, "Mixer", "blocks.0.mlp_tokens.fc1.weight", 2)
    return {
        "width": width,
        "depth": count_layers(tensors.names(), r"blocks\.(\d+)\.norm1\.weight"),
        "tokens_hidden": tokens_hidden,
        "hidden": find_shape(tensors, "Mixer", "blocks.0.mlp_channels.fc1.bias", 1)[0],
        "patch_size": as_size(patch),
        "image_size": find_image_size(tensors.place, tokens, patch, read_input_size(config)),
        "num_channels": channels,
        "num_classes": count_classes(tensors, "head.bias"),
    }


def read_npz(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Mixer from the shapes in the file; the image is taken for square."""
    *patch, channels, width = find_shape(tensors, "Mixer", "stem/kernel", 4)
    layer = "MixerBlock_0/"
    first = find_shape(tensors, "Mixer", f"{layer}token_mixing/Dense_0/kernel", 2)
    return {
        "width": width,
        "depth": count_layers(tensors.names(), r"MixerBlock_(\d+)/LayerNorm_0/scale"),
        "tokens_hidden": first[1],
        "hidden": find_shape(tensors, "Mixer", f"{layer}channel_mixing/Dense_0/bias", 1)[0],
        "patch_size": as_size(patch),
        "image_size": find_image_size(tensors.place, first[0], patch, None),
        "num_channels": channels,
        "num_classes": count_classes(tensors, "head/bias"),
        "activation": "gelu_tanh",  # flax's default, which the authors took
    }


def write_config(model: Mixer) -> dict[str, Any]:
    """Raises UserError: these layouts are read only, and transformers has none."""
    raise UserError("a Mixer is written in our own layout only")


TIMM = Family("timm", Mixer, {}, read_timm, write_config, make_timm_table)
NPZ = Family("npz", Mixer, {}, read_npz, write_config, make_npz_table)
