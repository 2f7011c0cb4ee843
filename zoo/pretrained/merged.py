"""Parameters with corrections added: what a LoRA run and an adapter are as a plain model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from zoo.models.lora import LEAVES, LoRA, merge_kernel
from zoo.pretrained.bridge import all_finite
from zoo.pretrained.safetensors_file import Entry, Tensors


class Correction(NamedTuple):
    """What a kernel `[in, out]` is corrected by: `scale * a @ b`."""

    a: np.ndarray  # [in, rank]
    b: np.ndarray  # [rank, out]
    scale: float


class Merged(Tensors):
    """Tensors by our paths, kernels merged as they are read; `replaced` take the place of some, or
    are there beside them. It has `names` alone."""

    def __init__(
        self,
        place: str,
        base: Tensors,
        corrections: Mapping[str, Correction],
        replaced: Mapping[str, np.ndarray],
        names: Iterable[str],
    ):
        self._base, self._corrections, self._replaced = base, corrections, replaced
        entries = [
            Entry(name, replaced[name].shape, replaced[name].dtype)
            if name in replaced
            else base.entry(name)
            for name in names
        ]
        super().__init__(place, entries)

    def origins(self, name: str) -> tuple[str, ...]:
        self.entry(name)
        return (name,) if name in self._replaced else self._base.origins(name)

    def read(self, name: str) -> np.ndarray:
        self.entry(name)
        if name in self._replaced:
            return self._replaced[name]
        array = self._base.read(name)
        if name not in self._corrections or not all_finite(array):
            return array  # whoever reads numbers that are none says where they are
        return merge_kernel(array, *self._corrections[name])


def merge_run(tensors: Tensors, model: LoRA) -> Merged:
    """The leaves of a LoRA model as those of its base."""
    suffix_a, suffix_b = (f"/{leaf}" for leaf in LEAVES)
    layers = [n.removesuffix(suffix_a) for n in tensors.names() if n.endswith(suffix_a)]
    corrections = {
        f"{layer}/kernel": Correction(
            tensors.read(layer + suffix_a), tensors.read(layer + suffix_b), model.scale
        )
        for layer in layers
    }
    kept = [name for name in tensors.names() if not name.endswith((suffix_a, suffix_b))]
    return Merged(tensors.place, tensors, corrections, {}, kept)
