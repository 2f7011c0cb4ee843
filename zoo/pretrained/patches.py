"""What the families of image models share: the first layer's turns, shapes read from bare files."""

from __future__ import annotations

import math
import re
from typing import Any

from zoo.config import UserError
from zoo.models.patches import as_pair
from zoo.pretrained.bridge import Row, Turn
from zoo.pretrained.family import TheirConfig
from zoo.pretrained.safetensors_file import Tensors

# torch's convolution [width, ch, y, x], flax's [y, x, ch, width], our matrix [y * x * ch, width].
TORCH_PATCH = Turn(
    lambda x, model: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x, model: x.reshape(*as_pair(model.patch_size), -1, x.shape[1]).transpose(3, 2, 0, 1),
)
FLAX_PATCH = Turn(
    lambda x, model: x.reshape(-1, x.shape[-1]),
    lambda x, model: x.reshape(*as_pair(model.patch_size), -1, x.shape[-1]),
)
# A leading axis of the batch.
BATCHED = Turn(lambda x, model: x[0], lambda x, model: x[None])


def torch_patch_rows(theirs: str, ours: str = "embed") -> list[Row]:
    """Kernel and bias of torch's convolution over patches."""
    kernel = Row(f"{theirs}.weight", f"{ours}/kernel", TORCH_PATCH)
    return [kernel, Row(f"{theirs}.bias", f"{ours}/bias")]


def flax_rows(theirs: str, ours: str, kernel: str = "kernel") -> list[Row]:
    """Kernel (a norm's scale) and bias as flax has them."""
    return [Row(f"{theirs}/{part}", f"{ours}/{part}") for part in (kernel, "bias")]


def read_pair(config: TheirConfig, key: str, default: int) -> tuple[int, int]:
    """Height and width, told as one number or two. Raises UserError on anything else."""
    value = config.values.get(key, default)
    pair = value if isinstance(value, (list, tuple)) else [value, value]
    # `type`, not isinstance: True is an int in Python.
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise UserError(f"{config.place}: {key}={value!r} should be one or two whole numbers")
    return pair[0], pair[1]


def as_size(patch: list[int] | tuple[int, int]) -> int | tuple[int, int]:
    """One number of a square patch."""
    return patch[0] if patch[0] == patch[1] else (patch[0], patch[1])


def read_input_size(config: TheirConfig) -> tuple[int, int] | None:
    """The image of timm's `pretrained_cfg`, where there is a config.json."""
    told = config.get("pretrained_cfg", {}) or config.values
    sizes = TheirConfig(told, config.place).get("input_size", [])[1:]
    if not sizes:
        return None
    return read_pair(TheirConfig({"input_size": sizes}, config.place), "input_size", 224)


def find_image_size(
    place: str, patches: int, patch: list[int], told: tuple[int, int] | None
) -> tuple[int, int]:
    """The image as told, else that of a square of patches. Raises UserError where it is none."""
    if told:
        return told
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(
            f"{place}: {patches} patches are no square, and nothing says how many "
            "rows: give a config.json with pretrained_cfg.input_size"
        )
    return side * patch[0], side * patch[1]


def find_shape(tensors: Tensors, kind: str, name: str, rank: int) -> tuple[int, ...]:
    """A tensor's shape. Raises UserError where the file lacks it: it is not of this kind."""
    if name not in tensors or len(tensors.shape(name)) != rank:
        raise UserError(f"{tensors.place}: no {kind} ({name} of {rank} axes is missing)")
    return tensors.shape(name)


def count_layers(names: list[str], pattern: str) -> int:
    """How many numbers the one group of the pattern takes in whole names."""
    return len({match[1] for name in names if (match := re.fullmatch(pattern, name))})


def count_classes(tensors: Tensors, name: str) -> int:
    """The length of a head, 0 without one."""
    shape: Any = tensors.shape(name) if name in tensors else (0,)
    return shape[0]
