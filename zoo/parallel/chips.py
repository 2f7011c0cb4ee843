"""What the makers' data sheets say of chips, and how Cloud names slices of TPUs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from zoo.config import UserError, nearest

GB, GIB = 1e9, 2.0**30


@dataclass(frozen=True)
class Chip:
    """A chip. flops: dense bf16, a second. memory: bytes. bandwidth: of the memory, bytes a second.
    link: bytes a second that one chip sends over all its links together, of a GPU over NVLink; 0:
    not known. kinds: jax's `device_kind`."""

    name: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    kinds: tuple[str, ...]
    dimensions: int = 0  # of a slice's torus; 0: no TPU
    cores: int = 1  # that Cloud's names count for each chip
    hosts: int = 4  # chips of a host


# cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, of whose links both directions are counted there, and
# NVIDIA's data sheets.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v3", 123e12, 32 * GIB, 900 * GB, 0.0, ("TPU v3",)),
        Chip("v4", 275e12, 32 * GIB, 1228 * GB, 300 * GB, ("TPU v4",), 3, 2),
        Chip("v5e", 197e12, 16 * GIB, 819 * GB, 200 * GB, ("TPU v5 lite", "TPU v5e"), 2),
        Chip("v5p", 459e12, 95 * GIB, 2765 * GB, 600 * GB, ("TPU v5", "TPU v5p"), 3, 2),
        Chip("v6e", 918e12, 32 * GIB, 1638 * GB, 400 * GB, ("TPU v6 lite", "TPU v6e"), 2),
        Chip("a100-40g", 312e12, 40 * GIB, 1555 * GB, 300 * GB, ("NVIDIA A100-SXM4-40GB",)),
        Chip("a100-80g", 312e12, 80 * GIB, 2039 * GB, 300 * GB, ("NVIDIA A100-SXM4-80GB",)),
        Chip("h100", 989e12, 80 * GIB, 3350 * GB, 450 * GB, ("NVIDIA H100 80GB HBM3",)),
        Chip("h200", 989e12, 141 * GB, 4800 * GB, 450 * GB, ("NVIDIA H200",)),
    )
}
TPUS = tuple(name for name, chip in CHIPS.items() if chip.dimensions)
CLOUD = {"v5litepod": "v5e"}  # Cloud's names that are not ours
# The shapes that Cloud gives a slice of so many chips.
SHAPES = {
    2: {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    3: {
        **{4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8"},
        **{256: "4x8x8", 512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16", 4096: "16x16x16"},
        6144: "16x16x24",
    },
}


def find_chip(device_kind: str) -> Chip | None:
    """The chip of a jax device; None of one that is not in the table."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)


@dataclass(frozen=True)
class Slice:
    """TPU chips in a torus."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_slice(text: str) -> Slice:
    """`v5p:8x16x16`, or Cloud's `v5p-4096` (cores of v4 and v5p, chips of v5e and v6e).

    Raises UserError with the nearest right answer.
    """
    name, mark, rest = re.fullmatch(r"([^:-]*)([:-]?)(.*)", text).groups()  # type: ignore[union-attr]
    name = CLOUD.get(name, name)
    if name not in TPUS:
        raise UserError(f"no TPU {name!r}{nearest(name, [*TPUS, *CLOUD])}")
    chip = CHIPS[name]
    if mark == "-" and rest.isdigit():
        sizes = {count * chip.cores: shape for count, shape in SHAPES[chip.dimensions].items()}
        if int(rest) not in sizes:
            near = min(sizes, key=lambda count: abs(count - int(rest)))
            raise UserError(f"Cloud has no {text!r} (nearest: '{text.partition('-')[0]}-{near}')")
        rest = sizes[int(rest)]
    shape = tuple(int(size) for size in rest.split("x") if size.isdigit())
    if len(shape) != chip.dimensions or not all(shape) or rest.count("x") != len(shape) - 1:
        example = max(SHAPES[chip.dimensions].items())[1]
        raise UserError(
            f"{text!r}: a slice of {name} has {chip.dimensions} dimensions, such as "
            f"'{name}:{example}'"
        )
    return Slice(chip, shape)
