"""A part of a model as a model of its own: the encoder of a masked autoencoder."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zoo.models.mae import MAE
from zoo.models.vit import ViT
from zoo.pretrained.load import Opened
from zoo.pretrained.safetensors_file import Entry, Tensors


class Part(Tensors):
    """The tensors under `prefix/`, by the rest of their names."""

    def __init__(self, whole: Tensors, prefix: str):
        self._whole, self._start = whole, f"{prefix}/"
        names = [name for name in whole.names() if name.startswith(self._start)]
        entries = [
            Entry(name.removeprefix(self._start), whole.shape(name), whole.dtype(name))
            for name in names
        ]
        super().__init__(whole.place, entries)

    def origins(self, name: str) -> tuple[str, ...]:
        return self._whole.origins(self._start + self.entry(name).name)

    def read(self, name: str) -> np.ndarray:
        return self._whole.read(self._start + self.entry(name).name)


def take_part(opened: Opened, after: Any) -> Opened:
    """The source, or its part that a model of another class can begin with: of a masked autoencoder
    the encoder, which is a ViT."""
    if not isinstance(opened.model, MAE) or not isinstance(after, ViT):
        return opened
    return dataclasses.replace(
        opened,
        model=opened.model.encoder(),
        tensors=Part(opened.tensors, "encoder"),
        report=(*opened.report, "of the masked autoencoder its encoder, a ViT without a head"),
    )
