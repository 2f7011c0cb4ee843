"""Operations on pixels, whole blocks of images at a time: moves, crops, mirrors, holes.

They take images of one size as an array `[n, y, x, ch]`, bytes or floats, and give the same dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from zoo.config import UserError
from zoo.data.images import ImageOp, Size, as_pair, require_counts
from zoo.data.ops import OPS, Op
from zoo.data.sources import Examples


class PixelOp(Op):
    """An operation on the pixels of each image."""

    rowwise: ClassVar[bool] = True


@OPS.register("shift")
@dataclass(frozen=True)
class Shift(PixelOp):
    """Moves each image by up to `pixels` in y and in x; the edge that opens is filled with 0."""

    num_draws: ClassVar[int] = 2
    pixels: int = 1

    def __post_init__(self) -> None:
        require_counts(0, pixels=self.pixels)

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        assert uniform is not None
        images = np.asarray(examples["image"])
        padded = pad_images(images, (self.pixels, self.pixels), 0.0)
        return {**examples, "image": crop_somewhere(padded, images.shape[1:3], uniform)}


@OPS.register("random_crop")
@dataclass(frozen=True)
class RandomCrop(PixelOp):
    """`size` pixels (a number, or y and x) from anywhere in the image, after a frame of `padding`
    pixels of `value` was laid around it."""

    num_draws: ClassVar[int] = 2
    size: Size = 32
    padding: int = 0
    value: float = 0.0

    def __post_init__(self) -> None:
        require_counts(1, size=self.size)
        require_counts(0, padding=self.padding)

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        assert uniform is not None
        padded = pad_images(np.asarray(examples["image"]), (self.padding, self.padding), self.value)
        return {**examples, "image": crop_somewhere(padded, as_pair(self.size), uniform)}


@OPS.register("pad")
@dataclass(frozen=True)
class Pad(PixelOp):
    """A frame of `pixels` (a number, or y and x) of `value` around each image."""

    pixels: Size = 4
    value: float = 0.0

    def __post_init__(self) -> None:
        require_counts(0, pixels=self.pixels)

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        images = np.asarray(examples["image"])
        return {**examples, "image": pad_images(images, as_pair(self.pixels), self.value)}


@OPS.register("flip")
@dataclass(frozen=True)
class Flip(ImageOp):
    """Mirrors each image left to right with probability one half."""

    takes: ClassVar[tuple[str, ...]] = ("bytes", "floats")
    blockwise: ClassVar[bool] = True
    num_draws: ClassVar[int] = 1

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if uniform[0] < 0.5 else image

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        assert uniform is not None
        images = np.asarray(examples["image"])
        flipped = np.where(uniform[:, :1, None, None] < 0.5, images[:, :, ::-1], images)
        return {**examples, "image": flipped}


@OPS.register("erase")
@dataclass(frozen=True)
class Erase(PixelOp):
    """Random erasing (Zhong et al. 2020): with `probability` a rectangle becomes `value`.

    It covers `min_area` to `max_area` of the image, its aspect is `min_aspect` to its inverse, even
    in the logarithm, and it is made to fit into the image. After normalize, 0 is the mean colour.
    """

    num_draws: ClassVar[int] = 5
    probability: float = 0.25
    min_area: float = 0.02
    max_area: float = 1 / 3
    min_aspect: float = 0.3
    value: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise UserError(f"probability={self.probability} is not in [0, 1]")
        if not 0 < self.min_area <= self.max_area <= 1:
            raise UserError(f"0 < min_area={self.min_area} <= max_area={self.max_area} <= 1 fails")
        if not 0 < self.min_aspect <= 1:
            raise UserError(f"min_aspect={self.min_aspect} is not in (0, 1]")

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        assert uniform is not None
        images = np.array(examples["image"])
        height, width = images.shape[1:3]
        value = as_dtype(self.value, images.dtype)
        for row in np.flatnonzero(uniform[:, 0] < self.probability):
            _, area, aspect, top, left = uniform[row]
            pixels = (self.min_area + area * (self.max_area - self.min_area)) * height * width
            ratio = self.min_aspect ** (1 - 2 * aspect)
            tall = min(max(round((pixels * ratio) ** 0.5), 1), height)
            wide = min(max(round((pixels / ratio) ** 0.5), 1), width)
            y, x = int(top * (height - tall + 1)), int(left * (width - wide + 1))
            images[row, y : y + tall, x : x + wide] = value
        return {**examples, "image": images}


def as_dtype(value: float, dtype: np.dtype) -> np.ndarray:
    """A pixel's value. Raises UserError on one that bytes cannot hold."""
    if dtype == np.uint8 and not (0 <= value <= 255 and value == int(value)):
        raise UserError(
            f"value={value} is no byte, 0 to 255 (after normalize it may be any number)"
        )
    return np.asarray(value).astype(dtype)


def pad_images(images: np.ndarray, pixels: tuple[int, int], value: float) -> np.ndarray:
    """`[n, y, x, ch]` with a frame of `pixels` in y and x."""
    if not any(pixels):
        return images
    (y, x), fill = pixels, as_dtype(value, images.dtype)
    return np.pad(images, ((0, 0), (y, y), (x, x), (0, 0)), constant_values=fill)


def crop_somewhere(images: np.ndarray, size: tuple[int, ...], uniform: np.ndarray) -> np.ndarray:
    """A window of each image, its place drawn. Raises UserError where an image is smaller."""
    room = np.array(images.shape[1:3]) - size
    if (room < 0).any():
        raise UserError(
            f"random_crop: {size[0]} x {size[1]} pixels do not fit into an image of "
            f"{images.shape[1]} x {images.shape[2]}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(images, size, axis=(1, 2))
    top, left = (uniform * (room + 1)).astype(int).T
    chosen = windows[np.arange(len(images)), top, left]  # [n, ch, y, x]
    return np.ascontiguousarray(chosen.transpose(0, 2, 3, 1))
