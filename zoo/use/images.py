"""Pictures on their way into a model: read, decoded, and treated as its card says.

A picture is a file, bytes of one, Pillow's, or an array of bytes `[y, x(, ch)]`. All are read as in
training (`zoo.data.decode`): turned upright, palettes and CMYK converted, what is transparent over
white, 16 bits cut to 8; a model of one channel sees grey.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from zoo.config import UserError
from zoo.data.apply import apply_ops, run_rows
from zoo.data.decode import BrokenImage, Decode, turn_upright
from zoo.data.image_folder import read_file
from zoo.data.images import CentralCrop, Resize, from_pillow
from zoo.data.ops import Op, finish
from zoo.data.seen import encode_png
from zoo.pretrained.processor import Processor
from zoo.use.batches import Item, Portion, Prepared, fill_up

IN_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def open_image(content: Any, decode: Decode) -> Image.Image:
    """A picture, grey or RGB. Raises BrokenImage on what is none."""
    if isinstance(content, str | os.PathLike):
        content = read_file(os.fspath(content))
    if isinstance(content, bytes | Exception):
        return decode.decode(content)
    image = content if isinstance(content, Image.Image) else array_to_image(content)
    return decode.convert(turn_upright(image))


def array_to_image(array: Any) -> Image.Image:
    """An array as a picture. Raises BrokenImage on another shape, and on numbers of no stated
    range."""
    pixels = np.asarray(array)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise BrokenImage(f"an array of shape {np.shape(array)} is no picture [y, x(, 1, 3 or 4)]")
    if pixels.dtype != np.uint8:
        raise BrokenImage(f"an array of {pixels.dtype}: a picture is bytes (uint8), 0 to 255")
    return Image.fromarray(np.ascontiguousarray(pixels))


def decoder_of(num_channels: int, name: str) -> Decode:
    """How files are read for a model. Raises UserError where none hold what it takes."""
    if num_channels not in (1, 3):
        raise UserError(f"{name} takes images of {num_channels} channels: files hold 1 or 3")
    return Decode("grey" if num_channels == 1 else "rgb")


def refuse(item: Item, why: str) -> str:
    """A file that is broken is passed over, with this line. Raises UserError on what a program gave
    by itself."""
    if item.file:
        return why
    raise UserError(f"{item.name}: {why}")


def open_all(
    items: Sequence[Item], decode: Decode
) -> tuple[list[int], list[Image.Image], dict[int, str]]:
    """The pictures that can be opened, by several threads: their numbers, themselves, and what is
    wrong with the others."""
    opened: list[Image.Image | str] = [""] * len(items)

    def work(row: int) -> None:
        try:
            opened[row] = open_image(items[row].content, decode)
        except BrokenImage as error:
            opened[row] = str(error)

    run_rows(work, len(items))
    problems = {i: refuse(items[i], x) for i, x in enumerate(opened) if isinstance(x, str)}
    rows = [i for i in range(len(items)) if i not in problems]
    return rows, [x for x in opened if isinstance(x, Image.Image)], problems


@dataclass(frozen=True)
class ProcessedImages:
    """Pictures for a published model, through its processor."""

    processor: Processor
    decode: Decode
    size: int

    def __call__(self, items: Sequence[Item]) -> Prepared:
        rows, pictures, problems = open_all(items, self.decode)
        if not rows:
            return Prepared((), problems)
        arrays = fill_up({"image": self.processor(pictures)}, self.size)
        return Prepared((Portion(rows, arrays),), problems)


@dataclass(frozen=True)
class RecipeImages:
    """Pictures for a run, through the operations of its evaluation. `shape` and `kind` are those of
    its examples before any operation: 'encoded', 'bytes' or 'floats'."""

    ops: tuple[Op, ...]
    kind: str
    shape: tuple[int, ...]
    name: str
    size: int

    def __call__(self, items: Sequence[Item]) -> Prepared:
        reading = {"encoded": self._encode, "bytes": self._to_bytes, "floats": self._to_floats}
        rows, images, problems, notes = reading[self.kind](items)
        if not rows:
            return Prepared((), problems)
        examples, broken = apply_ops(self.ops, {"image": images}, [None] * len(self.ops))
        problems |= {rows[i]: refuse(items[rows[i]], why) for i, why in broken.items()}
        kept = [i for i in range(len(rows)) if i not in broken]
        if not kept:
            return Prepared((), problems)
        made = finish({"image": [examples["image"][i] for i in kept]})
        arrays = fill_up(made, self.size)
        return Prepared((Portion([rows[i] for i in kept], arrays),), problems, notes)

    def _encode(self, items: Sequence[Item]) -> tuple[list[int], Any, dict[int, str], dict]:
        """The bytes of files; decoding them is the first operation."""
        contents = np.empty(len(items), object)

        def work(row: int) -> None:
            """Keeps a file's bytes, or those of a PNG of a picture that is no file."""
            content = items[row].content
            if isinstance(content, str | os.PathLike):
                contents[row] = read_file(os.fspath(content))
            elif isinstance(content, bytes | Exception):
                contents[row] = content
            else:
                try:
                    image = content if isinstance(content, Image.Image) else array_to_image(content)
                    image = turn_upright(image)
                    contents[row] = encode_png(
                        image if image.mode in IN_PNG else image.convert("RGB")
                    )
                except BrokenImage as error:
                    contents[row] = error

        run_rows(work, len(items))
        return list(range(len(items))), contents, {}, {}

    def _to_bytes(self, items: Sequence[Item]) -> tuple[list[int], Any, dict[int, str], dict]:
        """Pixels, of the size of the run's examples unless an operation gives them theirs."""
        whole = [isinstance(item.content, np.ndarray) for item in items]
        if all(whole) and all(self._fits(item.content, np.uint8) for item in items):
            images = [np.asarray(item.content).reshape(self.shape) for item in items]
            return list(range(len(items))), np.stack(images), {}, {}
        rows, pictures, problems = open_all(items, decoder_of(self.shape[-1], self.name))
        height, width = self.shape[:2]
        notes = {}
        if not any(isinstance(op, Resize | CentralCrop) for op in self.ops):
            for place, (row, picture) in enumerate(zip(rows, pictures, strict=True)):
                if picture.size != (width, height):
                    notes[row] = f"resized to {height} x {width}, what the run was trained on"
                    pictures[place] = Resize((height, width)).change(picture, np.zeros(0))
        images = [from_pillow(picture) for picture in pictures]
        same = len({image.shape for image in images}) == 1
        return rows, np.stack(images) if same else images, problems, notes

    def _to_floats(self, items: Sequence[Item]) -> tuple[list[int], Any, dict[int, str], dict]:
        """Arrays as they are: a file cannot say what range of numbers a run was trained on."""
        for item in items:
            if not isinstance(item.content, np.ndarray) or not self._fits(item.content, None):
                raise UserError(
                    f"{item.name}: {self.name} was trained on images of floats, whose range no "
                    f"file tells: give arrays {list(self.shape)}"
                )
        images = [np.asarray(item.content, np.float32).reshape(self.shape) for item in items]
        return list(range(len(items))), np.stack(images), {}, {}

    def _fits(self, array: np.ndarray, dtype: Any) -> bool:
        grey = array.shape == self.shape[:2] and self.shape[-1] == 1
        return (array.shape == self.shape or grey) and dtype in (None, array.dtype)
