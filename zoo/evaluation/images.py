"""Images of any data on their way into a model: as its run's evaluation, or its processor, says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from zoo.config import UserError
from zoo.data import Dataset, Op
from zoo.data.decode import Decode
from zoo.data.images import CentralCrop, ImageOp, Resize
from zoo.data.ops import find_kind
from zoo.data.sources import Examples
from zoo.pretrained import Pretrained
from zoo.pretrained.processor import Processor
from zoo.pretrained.recipe import Recipe
from zoo.use.images import decoder_of


@dataclass(frozen=True)
class Recolour(ImageOp):
    """Grey images as RGB, or the other way."""

    num_channels: int = 3

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        return image.convert("L" if self.num_channels == 1 else "RGB")


@dataclass(frozen=True)
class Process(Op):
    """A published model's own processor."""

    rowwise: ClassVar[bool] = True
    gives: ClassVar[str | None] = "floats"
    processor: Processor

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        return {**examples, "image": self.processor(list(examples["image"]))}


def process_ops(loaded: Pretrained, dataset: Dataset) -> tuple[Op, ...]:
    """For a published model. Raises UserError where it has no processor, and on floats."""
    name, model, kind = loaded.card.source, loaded.model, find_kind(dataset)
    if loaded.processor is None:
        raise UserError(f"{name} does not tell how its images are prepared: it has no processor")
    if kind == "floats":
        raise UserError(f"{dataset.name} has images of floats, whose range {name} does not know")
    decode = decoder_of(model.num_channels, name)  # type: ignore[attr-defined]
    before = (decode.fit(dataset),) if kind == "encoded" else ()
    return (*before, Process(loaded.processor))


def adapt_ops(recipe: Recipe, dataset: Dataset) -> tuple[tuple[Op, ...], tuple[str, ...]]:
    """A run's operations of evaluation, for images that may be of another kind than those it was
    trained on, and lines on what was done to them.

    Raises UserError on floats where it knew bytes, or the other way.
    """
    wanted, found = find_kind(recipe.dataset), find_kind(dataset)
    if "floats" in (wanted, found) and wanted != found:
        raise UserError(f"{dataset.name} has images of {found}, the run was trained on {wanted}")
    shape, name = recipe.dataset.shapes["image"], recipe.dataset.name
    ops: list[Any] = list(recipe.ops)
    if wanted == found == "encoded" or (wanted == found and dataset.shapes["image"] == shape):
        return recipe.ops, ()
    notes: list[str] = []
    if wanted == "encoded":  # and these are pixels
        ops = [op for op in ops if not isinstance(op, Decode)]
        channels = next(
            (1 if op.mode == "grey" else 3 for op in recipe.ops if isinstance(op, Decode)), 3
        )
    else:
        channels = shape[-1]
    sized = any(isinstance(op, Resize | CentralCrop) for op in ops)
    if not sized and wanted == "bytes" and dataset.shapes["image"][:2] != shape[:2]:
        ops.insert(0, Resize((shape[0], shape[1])))
        notes.append(f"images are resized to {shape[0]} x {shape[1]}, what the run was trained on")
    if found == "encoded":
        ops.insert(0, decoder_of(channels, name).fit(dataset))
    elif dataset.shapes["image"][-1] != channels:
        ops.insert(0, Recolour(channels))
        notes.append(f"images are turned {'grey' if channels == 1 else 'RGB'}")
    return tuple(ops), tuple(notes)
