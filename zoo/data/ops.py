"""Operations on examples, by a string: `shift(2)|flip|normalize(0.5, 0.5)`.

An operation works on a block of examples (field -> array with a leading example axis) at once. What
a random one draws is a function of seed, operation and position in the stream of examples alone.
Images come in three kinds, and which operation can follow which is checked when a run starts:
'encoded' (the bytes of a JPEG, a PNG, ...), 'bytes' (pixels as uint8) and 'floats'.
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

from zoo.config import DataConfig, UserError
from zoo.config.parse import convert
from zoo.data.sources import Dataset, Examples
from zoo.registry import Registry

OPS = Registry("operation")


class Op(abc.ABC):
    """An operation: called with a block of examples and `uniform`, numbers in [0, 1) of shape
    `[n, num_draws]` (None when `num_draws` is 0). Its arguments are dataclass fields."""

    num_draws: ClassVar[int] = 0
    field: ClassVar[str] = "image"  # what it needs
    takes: ClassVar[tuple[str, ...]] = ("bytes", "floats")  # kinds of images
    gives: ClassVar[str | None] = None  # the kind that it makes of them; None: the same
    # It changes nothing but the images, each by itself: it may be run image by image, in threads.
    rowwise: ClassVar[bool] = False
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

    gives: ClassVar[str | None] = "floats"
    rowwise: ClassVar[bool] = True
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5

    def __post_init__(self) -> None:
        if not np.all(np.asarray(self.std) > 0):
            raise UserError(f"std={self.std} is not above 0")

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        images = np.ascontiguousarray(examples["image"])
        width, channels = images.shape[-2:]
        scaled = scale_bytes(images)
        if scaled is images:
            scaled = images.copy()
        # Whole rows at a time: loops over three channels would be slow.
        rows = scaled.reshape(-1, width * channels)
        rows -= self._row("mean", width, channels)
        rows /= self._row("std", width, channels)
        return {**examples, "image": scaled}

    def _row(self, name: str, width: int, channels: int) -> np.ndarray:
        numbers = np.atleast_1d(np.asarray(getattr(self, name), np.float32))
        if len(numbers) not in (1, channels):
            raise UserError(
                f"normalize: {name} has {len(numbers)} numbers, the images have {channels} channels"
            )
        return np.tile(numbers, width * channels // len(numbers))


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


def scale_bytes(array: np.ndarray) -> np.ndarray:
    """Bytes become float32 in [0, 1], other numbers float32 as they are."""
    scaled = np.asarray(array, np.float32)
    if array.dtype == np.uint8:
        scaled /= np.float32(255)
    return scaled


def parse_ops(text: str, dataset: Dataset, key: str = "data.transform") -> tuple[Op, ...]:
    """Reads a string of operations, the value of `key`.

    Raises UserError on an unknown one, on wrong arguments and on an order that cannot work.
    """
    ops, maker = [], ""
    kind = find_kind(dataset)
    for part in split_ops(text):
        op = _make_op(part, key)
        if op.field not in dataset.shapes:
            raise UserError(f"{key}: {part!r} needs {op.field!r}, {dataset.name} has none")
        if op.field == "image":
            _check_kind(op, part, kind, maker, dataset.name, key)
            if op.gives:
                kind, maker = op.gives, part
        try:
            ops.append(op.fit(dataset))
        except UserError as error:
            raise UserError(f"{key}: {part!r}: {error}") from None
    if kind == "encoded":
        raise UserError(
            f"{key}={text!r}: the images of {dataset.name} are encoded files: begin with decode"
        )
    return tuple(ops)


def split_ops(text: str) -> list[str]:
    """Each operation of a string of them."""
    return [part for part in (p.strip() for p in text.split("|")) if part]


def read_ops(text: str, key: str = "data.transform") -> list[Op]:
    """The operations of a string before there is data for them. Raises UserError on an unknown one
    and on wrong arguments."""
    return [_make_op(part, key) for part in split_ops(text)]


def _make_op(part: str, key: str) -> Op:
    name, arguments, keywords = _parse_call(part, key)
    try:
        made = OPS.get(name)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    try:
        given = inspect.signature(made).bind(*arguments, **keywords).arguments
    except TypeError as error:
        raise UserError(f"{key}: {part!r}: {error}") from None
    hints = typing.get_type_hints(made)
    values = {k: convert(v, hints[k], f"{key}: {name}: {k}") for k, v in given.items()}
    try:
        return made(**values)
    except UserError as error:
        raise UserError(f"{key}: {part!r}: {error}") from None


def find_kind(dataset: Dataset) -> str | None:
    """Which kind of images a dataset has, before any operation; None: it has none."""
    if "image" not in dataset.shapes:
        return None
    first = dataset.splits["train"].take(np.array([0]))["image"][0]
    if not isinstance(first, np.ndarray):
        return "encoded"
    return "bytes" if first.dtype == np.uint8 else "floats"


def _check_kind(op: Op, part: str, kind: str | None, maker: str, name: str, key: str) -> None:
    """Raises UserError where the images that reach an operation are of a kind it cannot take."""
    if kind in op.takes:
        return
    if kind == "encoded":
        why = f"the images of {name} are encoded files until decode: write 'decode|{part}'"
    elif op.takes == ("encoded",):
        why = f"the images {f'are pixels after {maker!r}' if maker else f'of {name} are pixels'}"
        why += ": leave it out"
    else:
        why = f"it takes bytes, and the images {f'after {maker!r}' if maker else f'of {name}'} are "
        why += "floats" + (": put it before" if maker else "")
    raise UserError(f"{key}: {part!r}: {why}")


def _parse_call(part: str, key: str) -> tuple[str, list[Any], dict[str, Any]]:
    """'shift(2, fill=0)' -> name, arguments, keywords; 'my_module:op(2)' is a name too."""
    name, bracket, rest = part.partition("(")
    try:
        call = ast.parse(f"f({rest}" if bracket else "f()", mode="eval").body
        assert isinstance(call, ast.Call)
        arguments = [ast.literal_eval(a) for a in call.args]
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UserError(f"{key}: cannot read {part!r} (write name or name(1, 2))") from None
    return name.strip(), arguments, keywords


def without_random(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The operations of evaluation, when the config does not name others."""
    return tuple(op for op in ops if not op.num_draws or op.in_evaluation)


def choose_ops(config: DataConfig, dataset: Dataset) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """Operations for training and for evaluation. Raises UserError as `parse_ops` does, and on a
    random one in `data.eval_transform`."""
    ops = parse_ops(config.transform, dataset)
    if config.eval_transform is None:
        return ops, without_random(ops)
    eval_ops = parse_ops(config.eval_transform, dataset, "data.eval_transform")
    if len(without_random(eval_ops)) < len(eval_ops):
        raise UserError(f"data.eval_transform={config.eval_transform!r} has a random operation")
    return ops, eval_ops


def finish(examples: Examples) -> Examples:
    """What reaches the model: images and features as float32 (bytes in [0, 1]), labels and tokens
    as they are. Raises UserError on images of different sizes."""
    images = examples.get("image")
    if isinstance(images, list):
        sizes = sorted({" x ".join(map(str, np.shape(x))) for x in images})
        if len(sizes) > 1:
            raise UserError(
                f"images of different sizes reach the batch, {sizes[0]} and {sizes[-1]}: give them "
                "one by resize((y, x)), central_crop or random_resized_crop"
            )
    arrays = {name: np.asarray(values) for name, values in examples.items()}
    inputs = {k: scale_bytes(v) for k, v in arrays.items() if k in ("image", "features")}
    return {**arrays, **inputs}
