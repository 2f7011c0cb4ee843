"""A training batch of images as one picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.data import Dataset, Op
from zoo.data.decode import BrokenImage
from zoo.data.ops import Normalize
from zoo.data.pipeline import Batch
from zoo.data.sources import Examples
from zoo.look.profile import show_label
from zoo.look.read import decode_image

MOST_IMAGES, COLUMNS = 64, 8
BROKEN = (255, 0, 0)  # where an image cannot be decoded


@dataclass(frozen=True)
class FitForEye(Op):
    """Images of any kind, encoded ones too, fitted into `size` x `size` pixels, broken ones red."""

    size: int = 128

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        return {**examples, "image": np.stack([self._fit(x) for x in examples["image"]])}

    def _fit(self, image: Any) -> np.ndarray:
        from PIL import Image

        try:
            pixels = decode_image(image)
        except BrokenImage:  # `zoo data check` tells why
            pixels = np.array([[BROKEN]], np.uint8)
        if pixels.dtype != np.uint8:  # float images in [0, 1]
            pixels = np.round(pixels.clip(0, 1) * 255).astype(np.uint8)
        rgb = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
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


def draw_batch(batch: Batch, dataset: Dataset, path: Path, ops: tuple[Op, ...]) -> str:
    """Writes a PNG of the first images of a batch that `ops` made, with their labels; returns what
    it shows.

    Raises UserError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images, how = to_eye(batch["image"][:MOST_IMAGES], ops)
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    # All on one pair of axes: an image is 1 wide, as high as it is, and its label stands above.
    height = images.shape[1] / images.shape[2]
    inches = 1.3 if max(images.shape[1:3]) <= 64 else 2.0
    across, down = 1.06, height + (0.24 if inches < 1.5 else 0.16)
    figure = Figure(figsize=(columns * across * inches, rows * down * inches), facecolor="0.88")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    for i, image in enumerate(images):
        x, y = i % columns * across, -(i // columns) * down
        axes.imshow(
            image[..., 0] if image.shape[-1] != 3 else image,
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest" if max(images.shape[1:3]) < 100 else "antialiased",
            extent=(x, x + 1, y - height, y),
        )
        text = show_label(batch["label"][i], dataset) if "label" in batch else ""
        if not batch["mask"][i]:
            text = "(left out)"
        if text:
            # matplotlib reads what stands between dollars as mathematics.
            text = text.replace("$", r"\$")
            axes.text(x + 0.5, y + 0.02, text, ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-0.03, columns * across - 0.03)
    axes.set_ylim(-(rows - 1) * down - height - 0.02, down - height - 0.02)
    axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return f"the first {len(images)} of {len(batch['image'])} images, {how}"
