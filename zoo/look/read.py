"""The examples of a split in blocks, those that cannot be read named instead of raised."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data import Dataset, Source
from zoo.data.decode import BrokenImage, Decode
from zoo.data.documents import CorpusPart
from zoo.data.images import from_pillow
from zoo.data.sources import Examples

DECODE = Decode()
BLOCK = 256  # examples; of encoded photographs some 100 MB decoded


@dataclass(frozen=True)
class Block:
    """Examples of one split: `fields` hold those at `indices`; `broken` are (index, reason)."""

    split: str
    indices: np.ndarray
    fields: Examples
    broken: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.indices)


def read_blocks(
    split: str, source: Source, indices: np.ndarray | None = None, *, decode: bool = True
) -> Iterator[Block]:
    """All examples of a split, or those at `indices`, in order, a few hundred at a time.

    With `decode` encoded images come as `[y, x, ch]` bytes.
    """
    every = np.arange(len(source)) if indices is None else indices
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(every), BLOCK):
            for block in _take(split, source, every[start : start + BLOCK]):
                encoded = decode and is_encoded(block.fields.get("image", ()))
                yield _decode(block, pool) if encoded else block


def _take(split: str, source: Source, indices: np.ndarray) -> Iterator[Block]:
    """One block; where reading fails, halves of it, down to the example that is at fault."""
    try:
        yield Block(split, indices, source.take(indices))
    except Exception as error:  # whatever a source of the user's raises
        if len(indices) == 1:
            yield Block(split, indices[:0], {}, ((int(indices[0]), one_line(error)),))
            return
        half = len(indices) // 2
        yield from _take(split, source, indices[:half])
        yield from _take(split, source, indices[half:])


def _decode(block: Block, pool: ThreadPoolExecutor) -> Block:
    images = list(pool.map(_try_decode, block.fields["image"]))
    good = [i for i, image in enumerate(images) if isinstance(image, np.ndarray)]
    broken = tuple(
        (int(block.indices[i]), image)
        for i, image in enumerate(images)
        if not isinstance(image, np.ndarray)
    )
    fields = {name: pick(values, good) for name, values in block.fields.items()}
    fields["image"] = [images[i] for i in good]
    return Block(block.split, block.indices[good], fields, block.broken + broken)


def _try_decode(data: Any) -> np.ndarray | str:
    try:
        return decode_image(data)
    except BrokenImage as error:
        return one_line(error)


def decode_image(data: Any) -> np.ndarray:
    """Every pixel of a JPEG, PNG, ... as `[y, x, 3]` bytes, as training decodes it; pixels stay.

    Raises BrokenImage, also where a source gave an error in the place of a file.
    """
    if isinstance(data, bytes | Exception):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            return from_pillow(DECODE.decode(data))
    return np.asarray(data)


def describe_encoded(data: Any) -> tuple[str, tuple[int, int, int]]:
    """Format and `(y, x, ch)` of an encoded image from its header alone.

    Raises what Pillow raises on a broken file.
    """
    from PIL import Image

    if isinstance(data, Exception):
        raise data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
        # EXIF orientations 5 to 8 lie on their side.
        width, height = image.size[:: -1 if image.getexif().get(0x0112, 1) > 4 else 1]
        return image.format or "image", (height, width, len(image.getbands()))


def is_encoded(images: Any) -> bool:
    """Are these images the bytes of files (or errors, of files that cannot be read)?"""
    return any(isinstance(image, bytes | Exception) for image in images)


def is_text(values: Any) -> bool:
    """Is this a field of strings? One that lacks some of them still is."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.dtype.kind == "U"
    return any(isinstance(value, str) for value in values)


def pick(values: Any, rows: Any) -> Any:
    """Some rows of a field."""
    return values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]


def one_line(error: Exception) -> str:
    """An error as a short reason; what names an object in memory is cut off."""
    said = getattr(error, "strerror", None) or str(error)  # a file's name is told beside it
    text = said.split(" <_io.")[0].strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def name_example(source: Source, split: str, index: int) -> str:
    """The name that a source gives to an example, such as its file; else 'train[3]'."""
    name = getattr(source, "name", None)
    return str(name(index)) if callable(name) else f"{split}[{index}]"


def whole_splits(dataset: Dataset) -> dict[str, Source]:
    """The splits, each text once: parts that are held out of one by its tokens are the whole of it
    while it is text."""
    return {group[0]: dataset.splits[group[0]] for group in group_splits(dataset)}


def group_splits(dataset: Dataset) -> list[list[str]]:
    """The names of the splits; those that are parts of one text, cut by its tokens, together."""
    groups: list[tuple[Any, list[str]]] = []
    for split, source in dataset.splits.items():
        whole: Any = source
        while isinstance(whole, CorpusPart):
            whole = whole.documents
        same = [group for other, group in groups if other is whole and whole is not source]
        if same:
            same[0].append(split)
        else:
            groups.append((whole, [split]))
    return [group for _, group in groups]


def describe_sizes(dataset: Dataset) -> str:
    """'1,437 train, 360 test'; '24 train and test (parts of one text)'."""
    sizes = []
    for group in group_splits(dataset):
        parts = " (parts of one text)" if len(group) > 1 else ""
        sizes.append(f"{len(dataset.splits[group[0]]):,} {' and '.join(group)}{parts}")
    return ", ".join(sizes)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; gives the function that moves it on."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
