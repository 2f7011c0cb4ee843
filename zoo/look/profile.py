"""What is measured of a split while its examples pass by: fields, labels, numbers.

Sums and ranges are of all examples; distributions are of a sample that fits into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.data import Dataset
from zoo.data.pipeline import draw_uniform
from zoo.look.read import Block, describe_encoded, is_encoded, is_text

MOST_ROWS, MOST_CELLS = 20_000, 10_000_000  # of a sample

CountTokens = Callable[[str], int]


def count_with(tokenizer: Any) -> CountTokens:
    """Counts a text's tokens, without those that mark its ends."""
    return lambda text: len(tokenizer.encode(text))


class Numbers:
    """Count, mean, deviation and range of the finite ones of `[n, d]` numbers, by column, and a
    sample of the rows."""

    def __init__(self, width: int):
        self.count, self.non_finite = np.zeros(width, int), np.zeros(width, int)
        self.mean, self._squares = np.zeros(width), np.zeros(width)
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        self._rows: list[np.ndarray] = []

    def add(self, values: np.ndarray, sampled: np.ndarray) -> None:
        """Adds `values` `[n, d]`; rows where `sampled` `[n]` is true are kept."""
        values = np.asarray(values, np.float64)
        finite = np.isfinite(values)
        count = finite.sum(axis=0)
        mean = np.where(finite, values, 0).sum(axis=0) / count.clip(1)
        squares = (np.where(finite, values - mean, 0) ** 2).sum(axis=0)
        total = (self.count + count).clip(1)
        # Chan et al. 1983: sums of squares of two parts, each about its own mean.
        self._squares += squares + (mean - self.mean) ** 2 * self.count * count / total
        self.mean += (mean - self.mean) * count / total
        self.low = np.minimum(self.low, np.where(finite, values, np.inf).min(axis=0))
        self.high = np.maximum(self.high, np.where(finite, values, -np.inf).max(axis=0))
        self.count += count
        self.non_finite += len(values) - count
        self._rows.append(values[sampled])

    @property
    def deviation(self) -> np.ndarray:
        return np.sqrt(self._squares / self.count.clip(1))

    @property
    def sample(self) -> np.ndarray:
        """`[rows, d]`, in the order of the split."""
        return np.concatenate(self._rows) if self._rows else np.zeros((0, len(self.count)))


class Field:
    """dtype, smallest and largest shape, and the first example of a field."""

    def __init__(self, kind: str, shape: tuple[int, ...], example: str):
        self.kinds = Counter({kind: 1})
        self.low = self.high = shape
        self.example = example

    def add(self, kind: str, shape: tuple[int, ...]) -> None:
        self.kinds[kind] += 1
        if len(shape) == len(self.low):
            self.low = tuple(map(min, self.low, shape))
            self.high = tuple(map(max, self.high, shape))

    @property
    def dtypes(self) -> set[str]:
        return set(self.kinds)

    @property
    def dtype(self) -> str:
        return ", ".join(kind for kind, _ in self.kinds.most_common())

    @property
    def shape(self) -> str:
        """'8x8x1', '32..500x32..400x3', '-' for a number."""
        parts = [
            f"{a}" if a == b else f"{a}..{b}" for a, b in zip(self.low, self.high, strict=True)
        ]
        return "x".join(parts) or "-"


class Profile:
    """Measures one split of `size` examples.

    `fields` by name; `labels` counts classes (of several labels each that is set); `numbers` by
    what they are: 'features', 'label', 'text words', ..., with `pixels` also 'image mean' and
    'image deviation'.
    """

    def __init__(self, size: int, count_tokens: CountTokens | None = None, *, pixels: bool = False):
        self.size, self.seen = size, 0
        self.fields: dict[str, Field] = {}
        self.labels: Counter[int] = Counter()
        self.numbers: dict[str, Numbers] = {}
        self.unreadable = 0
        self._count_tokens, self._pixels = count_tokens, pixels

    def add(self, block: Block) -> None:
        """Measures a block of examples."""
        self.unreadable += len(block.broken)
        if not len(block):
            return
        self.seen += len(block)
        for name, values in block.fields.items():
            self._describe(name, values)
            if name == "label":
                self._add_labels(np.asarray(values), block)
            elif name == "tags":
                self.labels.update(tag for tags in values for tag in np.asarray(tags).tolist())
            elif name == "image":
                self._add_images(values, block)
            elif is_text(values):
                self._add_texts(name, values, block)
            elif name == "features":
                self._add(name, np.asarray(values).reshape(len(block), -1), block)

    def _describe(self, name: str, values: Any) -> None:
        stacked = isinstance(values, np.ndarray) and values.dtype != object
        for value in values[:1] if stacked else values:  # stacked ones cannot differ
            kind, shape = _kind_and_shape(value)
            if name in self.fields:
                self.fields[name].add(kind, shape)
            else:
                self.fields[name] = Field(kind, shape, show_value(name, value))

    def _add_labels(self, labels: np.ndarray, block: Block) -> None:
        if labels.dtype.kind in "iub" and labels.ndim == 1:
            self.labels.update(labels.tolist())
        elif labels.dtype.kind in "iub" and labels.ndim == 2:
            counts = (labels != 0).sum(axis=0)
            self.labels.update({i: int(count) for i, count in enumerate(counts)})
        elif labels.dtype.kind == "f":
            self._add("label", labels.reshape(len(block), -1), block)

    def _add_images(self, images: Any, block: Block) -> None:
        encoded = is_encoded(images)
        shapes = [_kind_and_shape(image)[1] or (np.nan, np.nan) for image in images]
        for i, side in enumerate(("height", "width")):
            self._add(f"image {side}", np.array([[shape[i]] for shape in shapes]), block)
        if self._pixels and not encoded:
            moments = np.array([mean_and_deviation(np.asarray(image)) for image in images])
            self._add("image mean", moments[:, :1], block)
            self._add("image deviation", moments[:, 1:], block)

    def _add_texts(self, name: str, texts: Any, block: Block) -> None:
        texts = [text if isinstance(text, str) else "" for text in texts]
        counts = {"words": [len(t.split()) for t in texts], "characters": [*map(len, texts)]}
        if self._count_tokens is not None:
            counts["tokens"] = [self._count_tokens(text) for text in texts]
        for unit, values in counts.items():
            self._add(f"{name} {unit}", np.array(values)[:, None], block)

    def _add(self, name: str, values: np.ndarray, block: Block) -> None:
        if name not in self.numbers:
            self.numbers[name] = Numbers(values.shape[1])
        self.numbers[name].add(values, self._is_sampled(block.indices, values.shape[1]))

    def _is_sampled(self, indices: np.ndarray, width: int) -> np.ndarray:
        most = min(MOST_ROWS, max(MOST_CELLS // max(width, 1), 1))
        if self.size <= most:
            return np.ones(len(indices), bool)
        # By the number of the example alone, whatever the blocks.
        first, last = int(indices.min()), int(indices.max())
        drawn = draw_uniform(0, 0, first, last - first + 1, 1)[indices - first, 0]
        return drawn < most / self.size


def mean_and_deviation(image: np.ndarray) -> tuple[float, float]:
    """Of all numbers of an image, bytes as parts of 255."""
    if image.dtype != np.uint8:
        return float(image.mean()), float(image.std())
    # Whole numbers are exact, and several times faster than `std`.
    total = int(image.sum(dtype=np.uint64))
    squares = int(np.square(image, dtype=np.uint32).sum(dtype=np.uint64))
    variance = (squares * image.size - total**2) / image.size**2
    return total / image.size / 255, variance**0.5 / 255


def _kind_and_shape(value: Any) -> tuple[str, tuple[int, ...]]:
    if isinstance(value, bytes):
        try:
            return describe_encoded(value)
        except Exception:  # `zoo data check` tells why
            return "unreadable bytes", ()
    if isinstance(value, str):
        return "text", ()
    if is_texts(value):
        return "texts", (len(value),)
    array = np.asarray(value)
    return (type(value).__name__ if array.dtype == object else array.dtype.name), array.shape


def is_texts(value: Any) -> bool:
    """Is this a list of texts?"""
    return isinstance(value, list | tuple) and any(isinstance(text, str) for text in value)


def show_value(name: str, value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if is_texts(value):
        whole = " ".join(map(repr, value))
        return whole if len(whole) <= 60 else whole[:57] + "..."
    array = np.asarray(value)
    if array.dtype == object:
        return repr(value)[:60]
    if name == "image" and array.size:
        return f"values {array.min():.4g} to {array.max():.4g}"
    shown = " ".join(f"{x:.6g}" for x in array.reshape(-1)[:6])
    return shown + (" ..." if array.size > 6 else "")


def show_label(label: Any, dataset: Dataset, most: int = 18) -> str:
    """A label in few letters: a class's name, the names of several, or a number."""
    names, array = dataset.class_names, np.asarray(label)
    if array.dtype.kind == "f":
        text = " ".join(f"{x:.3g}" for x in array.reshape(-1))
    else:
        numbers = np.flatnonzero(array) if array.ndim else [int(array)]
        text = ", ".join(names[i] if 0 <= i < len(names) else str(i) for i in numbers) or "none"
    return text if len(text) <= most else text[: most - 1] + "…"
