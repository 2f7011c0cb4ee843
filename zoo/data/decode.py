"""From the bytes of a JPEG, PNG, WebP, ... to pixels."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo.config import UserError
from zoo.data.images import from_pillow
from zoo.data.ops import OPS, Op
from zoo.data.sources import Dataset, Examples, name_example

ORIENTATION = 0x0112  # the EXIF tag, and how each value of it is made upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TRIED = 16  # images looked at for one that can be decoded


class BrokenImage(Exception):
    """An image that cannot be decoded, and why."""


@OPS.register("decode")
@dataclass(frozen=True)
class Decode(Op):
    """Encoded images become pixels of 3 channels, or 1 with `mode='grey'`.

    All that Pillow reads: grey, palettes and CMYK are converted, images are turned upright as their
    EXIF says, what is transparent lies over `background` (a grey or an RGB colour; white), 16 bits
    keep their upper 8, of an animation the first picture counts.
    """

    takes: ClassVar[tuple[str, ...]] = ("encoded",)
    gives: ClassVar[str | None] = "bytes"
    rowwise: ClassVar[bool] = True
    mode: Literal["rgb", "grey"] = "rgb"
    background: int | tuple[int, int, int] = 255
    # What stands in for a broken image: black, of this size, y and x.
    blank: tuple[int, int] = dataclasses.field(default=(1, 1), init=False)

    def __post_init__(self) -> None:
        if not 0 <= min(self.colour) <= max(self.colour) <= 255:
            raise UserError(f"background={self.background} is not in 0..255")

    @property
    def colour(self) -> tuple[int, int, int]:
        """The background as RGB."""
        b = self.background
        return (b, b, b) if isinstance(b, int) else b

    def fit(self, dataset: Dataset) -> Decode:
        """With the size of an image that can be decoded. Raises UserError where none can."""
        source, line = dataset.splits["train"], ""
        for index in range(min(len(source), TRIED)):
            try:
                image = self.decode(source.take(np.array([index]))["image"][0])
            except BrokenImage as error:
                line = line or f"{name_example(source, index)}: {error}"
                continue
            fitted = dataclasses.replace(self)
            object.__setattr__(fitted, "blank", (image.height, image.width))
            return fitted
        raise UserError(f"none of the first images can be decoded; {line}")

    def decode(self, content: Any) -> Image.Image:
        """The image in some bytes. Raises BrokenImage, also where a source gave an error instead
        of bytes."""
        if isinstance(content, Exception):
            raise BrokenImage(getattr(content, "strerror", None) or str(content))
        try:
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                return self.convert(turn_upright(image))
        except UnidentifiedImageError:
            why = "it is no image" if len(content) else "it is empty"
            raise BrokenImage(why) from None
        except Exception as error:  # a decoder of Pillow may raise anything
            raise BrokenImage(str(error).splitlines()[0] if str(error) else repr(error)) from None

    def make_blank(self) -> Image.Image:
        """What stands in for a broken image."""
        return Image.new("L" if self.mode == "grey" else "RGB", self.blank[::-1])

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        return {**examples, "image": [from_pillow(self.decode(x)) for x in examples["image"]]}

    def convert(self, image: Image.Image) -> Image.Image:
        """An image of any mode as grey or RGB. Raises BrokenImage on pixels of no stated range."""
        mode = "L" if self.mode == "grey" else "RGB"
        if image.mode == "F":
            raise BrokenImage("its pixels are floats, of no stated range")
        if image.mode.startswith("I"):
            wide = np.clip(np.asarray(image, np.int64), 0, 2**16 - 1)
            return Image.fromarray((wide >> 8).astype(np.uint8)).convert(mode)
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            below = Image.new("RGBA", image.size, (*self.colour, 255))
            image = Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")
        return image if image.mode == mode else image.convert(mode)


def turn_upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation wants it seen; EXIF that cannot be read says nothing."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as above
        return image
    return image if turn is None else image.transpose(turn)
