"""A training batch of images as one picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.data import Dataset, Op, parse_ops
from zoo.data.ops import Normalize
from zoo.data.pipeline import Batch
from zoo.data.sources import Examples
from zoo.look.read import decode_image

MOST_IMAGES, COLUMNS = 64, 8


@dataclass(frozen=True)
class FitForEye(Op):
    """Images of any kind, encoded ones too, fitted into `size` x `size` grey pixels."""

    size: int = 128

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        return {**examples, "image": np.stack([self._fit(x) for x in examples["image"]])}

    def _fit(self, image: Any) -> np.ndarray:
        from PIL import Image

        pixels = decode_image(image) if isinstance(image, bytes) else np.asarray(image, np.uint8)
        rgb = np.broadcast_to(pixels[..., :3], (*pixels.shape[:2], 3))
        fitted = Image.fromarray(np.ascontiguousarray(rgb))
        scale = self.size / max(fitted.size)
        size = [max(round(side * scale), 1) for side in fitted.size]
        canvas = Image.new("RGB", (self.size, self.size), (128, 128, 128))
        corner = ((self.size - size[0]) // 2, (self.size - size[1]) // 2)
        canvas.paste(fitted.resize((size[0], size[1])), corner)
        return np.asarray(canvas)


def to_eye(images: np.ndarray, ops: tuple[Op, ...]) -> tuple[np.ndarray, str]:
    """Float images `[n, y, x, ch]` as a batch holds them -> in [0, 1], and how that was done.

    The last `normalize` is undone; what still leaves [0, 1] is stretched to the batch's range.
    """
    undone = next((op for op in reversed(ops) if isinstance(op, Normalize)), None)
    how = "as it is"
    if undone is not None:
        images = images * np.asarray(undone.std, np.float32) + np.asarray(undone.mean, np.float32)
        how = "normalize undone"
    low, high = float(images.min()), float(images.max())
    if low < -0.02 or high > 1.02:
        images = (images - low) / max(high - low, 1e-12)
        how = f"{low:.3g} to {high:.3g} shown as black to white"
    return images.clip(0, 1), how


def draw_batch(batch: Batch, dataset: Dataset, path: Path, transform: str) -> str:
    """Writes a PNG of a batch's first images with their labels; returns what it shows.

    Raises UserError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images, how = to_eye(batch["image"][:MOST_IMAGES], parse_ops(transform, dataset))
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height, width = images.shape[1:3]
    side = 1.25 if max(height, width) <= 64 else 1.9
    figure = Figure(
        figsize=(columns * side, rows * (side * min(height / width, 3) + 0.25)),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    smooth = "nearest" if max(height, width) < 100 else "antialiased"
    for i, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, i + 1)
        shown = image[..., 0] if image.shape[-1] != 3 else image
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation=smooth)
        if "label" in batch:
            axes.set_title(show_label(batch["label"][i], dataset), fontsize=8, pad=2)
        axes.set_xticks([])
        axes.set_yticks([])
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return f"the first {len(images)} of {len(batch['image'])} images, {how}"


def show_label(label: Any, dataset: Dataset, most: int = 18) -> str:
    """A label in few letters: a class's name, the names of several, or a number."""
    names, array = dataset.class_names, np.asarray(label)
    if array.dtype.kind == "f":
        text = " ".join(f"{x:.3g}" for x in array.reshape(-1))
    else:
        numbers = np.flatnonzero(array) if array.ndim else [int(array)]
        text = ", ".join(names[i] if 0 <= i < len(names) else str(i) for i in numbers) or "none"
    # matplotlib reads what stands between dollars as mathematics.
    return (text if len(text) <= most else text[: most - 1] + "…").replace("$", r"\$")
