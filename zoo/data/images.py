"""Operations on images one by one, through Pillow: crops, sizes, RandAugment.

They take images of any sizes, as `[n, y, x, ch]` bytes or a list of `[y, x, ch]`, and give bytes.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from zoo.config import UserError
from zoo.data.ops import OPS, Op
from zoo.data.sources import Examples


class ImageOp(Op):
    """An operation on one Pillow image."""

    @abc.abstractmethod
    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        """The image, changed; `uniform` are its `num_draws` numbers."""

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        images = examples["image"]
        draws = np.zeros((len(images), 0)) if uniform is None else uniform
        changed = [
            from_pillow(self.change(to_pillow(x), u)) for x, u in zip(images, draws, strict=True)
        ]
        same = all(x.shape == changed[0].shape for x in changed)
        return {**examples, "image": np.stack(changed) if same else changed}


def to_pillow(pixels: np.ndarray) -> Image.Image:
    """`[y, x, 1]` or `[y, x, 3]` bytes -> a grey or RGB image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def from_pillow(image: Image.Image) -> np.ndarray:
    """The inverse of `to_pillow`."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@OPS.register("resize")
@dataclass(frozen=True)
class Resize(ImageOp):
    """The shorter side becomes `size` pixels, bilinear with antialiasing."""

    size: int = 256

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        scale = self.size / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        return image.resize(size, Image.Resampling.BILINEAR)


@OPS.register("central_crop")
@dataclass(frozen=True)
class CentralCrop(ImageOp):
    """The middle `size` x `size` pixels; what a smaller image lacks is black."""

    size: int = 224

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))


@OPS.register("random_resized_crop")
@dataclass(frozen=True)
class RandomResizedCrop(ImageOp):
    """A crop of random area and shape, resized to `size` x `size` (Szegedy et al. 2015).

    Area `min_area` to 1 of the image, aspect 3/4 to 4/3, each made to fit into the image.
    """

    num_draws: ClassVar[int] = 4
    size: int = 224
    min_area: float = 0.05

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        area = (self.min_area + uniform[0] * (1 - self.min_area)) * image.width * image.height
        aspect = (3 / 4) * (16 / 9) ** uniform[1]  # even in its logarithm
        width = min(max(round((area * aspect) ** 0.5), 1), image.width)
        height = min(max(round((area / aspect) ** 0.5), 1), image.height)
        left = int(uniform[2] * (image.width - width + 1))
        top = int(uniform[3] * (image.height - height + 1))
        box = (left, top, left + width, top + height)
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)


@OPS.register("randaugment")
@dataclass(frozen=True)
class RandAugment(ImageOp):
    """`layers` random distortions of strength `magnitude` of 10 (Cubuk et al. 2020).

    The fourteen of the paper; the signed ones go either way with probability one half.
    """

    num_draws: ClassVar[int] = 8
    layers: int = 2
    magnitude: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.layers <= 4:
            raise UserError(f"data.transform: randaugment: layers={self.layers} is not in 1..4")

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        for choice, sign in uniform[: 2 * self.layers].reshape(-1, 2):
            distort = DISTORTIONS[int(choice * len(DISTORTIONS))]
            strength = self.magnitude / 10
            image = distort(image, strength if sign < 0.5 else -strength)
        return image


def _enhance(kind: Any) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, s: kind(image).enhance(1 + 0.9 * s)


def _move(image: Image.Image, matrix: Sequence[float | int]) -> Image.Image:
    fill = 128 if image.mode == "L" else (128, 128, 128)
    return image.transform(
        image.size, Image.Transform.AFFINE, tuple(matrix), Image.Resampling.NEAREST, fillcolor=fill
    )


# Each takes an image and a strength in [-1, 1]; unsigned ones look at its size alone.
DISTORTIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, s: image,
    lambda image, s: ImageOps.autocontrast(image),
    lambda image, s: ImageOps.equalize(image),
    lambda image, s: image.rotate(30 * s, fillcolor=128 if image.mode == "L" else (128,) * 3),
    lambda image, s: ImageOps.solarize(image, round(256 * (1 - abs(s)))),
    lambda image, s: ImageOps.posterize(image, max(8 - round(4 * abs(s)), 1)),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    lambda image, s: _move(image, (1, 0.3 * s, 0, 0, 1, 0)),
    lambda image, s: _move(image, (1, 0, 0, 0.3 * s, 1, 0)),
    lambda image, s: _move(image, (1, 0, 0.45 * s * image.width, 0, 1, 0)),
    lambda image, s: _move(image, (1, 0, 0, 0, 1, 0.45 * s * image.height)),
)
