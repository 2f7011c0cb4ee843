"""Operations on examples, by a string: `shift(2)|flip|normalize(0.5, 0.5)`.

An operation works on a block of examples (field -> array with a leading example axis) at once. What
a random one draws is a function of seed, operation and position in the stream of examples alone.
"""

from __future__ import annotations

import abc
import ast
import dataclasses
import inspect
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from zoo.config import UserError
from zoo.config.parse import convert
from zoo.data.sources import Dataset, Examples
from zoo.registry import Registry

OPS = Registry("operation")


class Op(abc.ABC):
    """An operation: called with a block of examples and `uniform`, numbers in [0, 1) of shape
    `[n, num_draws]` (None when `num_draws` is 0). Its arguments are dataclass fields."""

    num_draws: ClassVar[int] = 0
    field: ClassVar[str] = "image"  # what it needs
    # Random, but evaluation needs it too: its draws there are a function of the position alone.
    in_evaluation: ClassVar[bool] = False

    def fit(self, dataset: Dataset) -> Op:
        """The operation for this dataset; most need not look at it."""
        return self

    @abc.abstractmethod
    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        """The examples, changed."""


@OPS.register("normalize")
@dataclass(frozen=True)
class Normalize(Op):
    """(x / 255 - mean) / std for bytes, (x - mean) / std for floats; numbers or one a channel."""

    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return {**examples, "image": (scale_bytes(examples["image"]) - mean) / std}


@OPS.register("standardize")
@dataclass(frozen=True)
class Standardize(Op):
    """Features of mean 0 and deviation 1, as measured on the training split."""

    field: ClassVar[str] = "features"
    statistics: tuple[np.ndarray, np.ndarray] | None = dataclasses.field(default=None, init=False)

    def fit(self, dataset: Dataset) -> Standardize:
        fitted = Standardize()
        mean, std = (part.astype(np.float32) for part in dataset.statistics["features"])
        object.__setattr__(fitted, "statistics", (mean, std))
        return fitted

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        assert self.statistics is not None
        mean, std = self.statistics
        return {**examples, "features": (examples["features"] - mean) / std}


@OPS.register("shift")
@dataclass(frozen=True)
class Shift(Op):
    """Moves each image by up to `pixels` in y and in x; the edge that opens is filled with 0."""

    num_draws: ClassVar[int] = 2
    pixels: int = 1

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise UserError("pixels must be at least 0")

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        assert uniform is not None
        images, reach = examples["image"], self.pixels
        padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], axis=(1, 2))
        dy, dx = (uniform * (2 * reach + 1)).astype(int).T
        moved = windows[np.arange(len(images)), dy, dx]  # [n, ch, y, x]
        return {**examples, "image": np.ascontiguousarray(moved.transpose(0, 2, 3, 1))}


@OPS.register("flip")
@dataclass(frozen=True)
class Flip(Op):
    """Mirrors each image left to right with probability one half."""

    num_draws: ClassVar[int] = 1

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        assert uniform is not None
        images = examples["image"]
        flipped = np.where(uniform[:, :1, None, None] < 0.5, images[:, :, ::-1], images)
        return {**examples, "image": flipped}


def scale_bytes(array: np.ndarray) -> np.ndarray:
    """Bytes become float32 in [0, 1], other numbers float32 as they are."""
    scaled = np.asarray(array, np.float32)
    return scaled / np.float32(255) if array.dtype == np.uint8 else scaled


def parse_ops(text: str, dataset: Dataset) -> tuple[Op, ...]:
    """Reads a string of operations. Raises UserError on an unknown one or on wrong arguments."""
    ops = []
    for part in filter(None, (p.strip() for p in text.split("|"))):
        name, arguments, keywords = _parse_call(part)
        kind = OPS.get(name)
        try:
            given = inspect.signature(kind).bind(*arguments, **keywords).arguments
        except TypeError as error:
            raise UserError(f"data.transform: {part!r}: {error}") from None
        hints = typing.get_type_hints(kind)
        values = {k: convert(v, hints[k], f"data.transform: {name}: {k}") for k, v in given.items()}
        try:
            op = kind(**values)
        except UserError as error:
            raise UserError(f"data.transform: {part!r}: {error}") from None
        if op.field not in dataset.shapes:
            raise UserError(f"data.transform: {part!r} needs {op.field!r}, {dataset.name} has none")
        try:
            ops.append(op.fit(dataset))
        except UserError as error:
            raise UserError(f"data.transform: {part!r}: {error}") from None
    return tuple(ops)


def _parse_call(part: str) -> tuple[str, list[Any], dict[str, Any]]:
    """'shift(2, fill=0)' -> name, arguments, keywords; 'my_module:op(2)' is a name too."""
    name, bracket, rest = part.partition("(")
    try:
        call = ast.parse(f"f({rest}" if bracket else "f()", mode="eval").body
        assert isinstance(call, ast.Call)
        arguments = [ast.literal_eval(a) for a in call.args]
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UserError(
            f"data.transform: cannot read {part!r} (write name or name(1, 2))"
        ) from None
    return name.strip(), arguments, keywords


def without_random(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The operations of evaluation, when the config does not name others."""
    return tuple(op for op in ops if not op.num_draws or op.in_evaluation)


def finish(examples: Examples) -> Examples:
    """What reaches the model: images and features as float32 (bytes in [0, 1]), labels and tokens
    as they are."""
    arrays = {name: np.asarray(values) for name, values in examples.items()}
    inputs = {k: scale_bytes(v) for k, v in arrays.items() if k in ("image", "features")}
    return {**arrays, **inputs}
