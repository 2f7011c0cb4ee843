"""Operations on images one by one, through Pillow: crops, sizes, colours, RandAugment.

They take images of any sizes, as `[n, y, x, ch]` bytes or a list of `[y, x, ch]`, and give bytes.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from zoo.config import UserError
from zoo.data.ops import OPS, Op
from zoo.data.sources import Examples

Size = int | tuple[int, int]  # pixels: one number for both sides, or y and x
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class ImageOp(Op):
    """An operation on one Pillow image."""

    takes: ClassVar[tuple[str, ...]] = ("bytes",)
    rowwise: ClassVar[bool] = True
    blockwise: ClassVar[bool] = False  # calling it on an array of images is as good

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
    if pixels.shape[-1] not in (1, 3):
        raise UserError(f"images of {pixels.shape[-1]} channels: this operation takes 1 or 3")
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def from_pillow(image: Image.Image) -> np.ndarray:
    """The inverse of `to_pillow`."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def as_pair(size: Size) -> tuple[int, int]:
    """y and x of a size."""
    return (size, size) if isinstance(size, int) else size


def require_counts(least: int, **sizes: Size) -> None:
    """Raises UserError on a number of pixels under `least`."""
    for name, size in sizes.items():
        if min(as_pair(size)) < least:
            raise UserError(f"{name}={size} must be at least {least}")


def resample(name: str) -> Image.Resampling:
    """Pillow's filter of that name; all but nearest look at every pixel when they shrink."""
    return Image.Resampling[name.upper()]


@OPS.register("resize")
@dataclass(frozen=True)
class Resize(ImageOp):
    """The shorter side becomes `size` pixels; two numbers are y and x, whatever the aspect."""

    size: Size = 256
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        require_counts(1, size=self.size)

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        if isinstance(self.size, int):
            scale = self.size / min(image.size)
            width, height = round(image.width * scale), round(image.height * scale)
        else:
            height, width = self.size
        return image.resize((width, height), resample(self.interpolation))


@OPS.register("central_crop")
@dataclass(frozen=True)
class CentralCrop(ImageOp):
    """The middle `size` pixels (a number, or y and x); what a smaller image lacks is black."""

    size: Size = 224

    def __post_init__(self) -> None:
        require_counts(1, size=self.size)

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        height, width = as_pair(self.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


@OPS.register("random_resized_crop")
@dataclass(frozen=True)
class RandomResizedCrop(ImageOp):
    """A crop of random area and shape, resized to `size` pixels (Szegedy et al. 2015).

    Area `min_area` to 1 of the image, aspect 3/4 to 4/3, each made to fit into the image.
    """

    num_draws: ClassVar[int] = 4
    size: Size = 224
    min_area: float = 0.05
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        require_counts(1, size=self.size)
        if not 0 < self.min_area <= 1:
            raise UserError(f"min_area={self.min_area} is not in (0, 1]")

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        area = (self.min_area + uniform[0] * (1 - self.min_area)) * image.width * image.height
        aspect = (3 / 4) * (16 / 9) ** uniform[1]  # even in its logarithm
        width = min(max(round((area * aspect) ** 0.5), 1), image.width)
        height = min(max(round((area / aspect) ** 0.5), 1), image.height)
        left = int(uniform[2] * (image.width - width + 1))
        top = int(uniform[3] * (image.height - height + 1))
        box = (left, top, left + width, top + height)
        return image.resize(as_pair(self.size)[::-1], resample(self.interpolation), box=box)


@OPS.register("color_jitter")
@dataclass(frozen=True)
class ColorJitter(ImageOp):
    """Brightness, contrast and saturation times up to 1 +- each, hue turned by up to `hue` of the
    circle, in random order (Howard 2013)."""

    num_draws: ClassVar[int] = 5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0")
        if not 0 <= self.hue <= 0.5:
            raise UserError(f"hue={self.hue} is not in [0, 0.5]")

    def change(self, image: Image.Image, uniform: np.ndarray) -> Image.Image:
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        reach = (self.brightness, self.contrast, self.saturation)
        for part in ORDERS[int(uniform[4] * len(ORDERS))]:
            sway = 2 * uniform[part] - 1
            if part == 3:
                image = turn_hue(image, sway * self.hue)
            elif reach[part]:
                image = kinds[part](image).enhance(max(1 + sway * reach[part], 0.0))
        return image


ORDERS = tuple(itertools.permutations(range(4)))


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Hues turned by a part of the circle; a grey image has none."""
    if image.mode == "L" or not turn:
        return image
    hue, saturation, value = image.convert("HSV").split()
    moved = Image.fromarray(np.asarray(hue) + np.uint8(round(turn * 255) % 256))
    return Image.merge("HSV", (moved, saturation, value)).convert("RGB")


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
            raise UserError(f"layers={self.layers} is not in 1..4")

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
