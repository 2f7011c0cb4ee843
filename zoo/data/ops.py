"""Operations on examples, by a string: `shift(2)|flip|normalize(0.5, 0.5)`.

An operation takes a block of examples (field -> array with a leading example axis) and, when it is
random, draws that are a function of seed, operation and position in the stream of examples alone.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.data.sources import Dataset, Examples
from zoo.registry import Registry

OPS = Registry("operation")


@dataclass(frozen=True)
class Op:
    """`apply(examples, uniform)`: `uniform` `[n, num_draws]` in [0, 1), None when `num_draws` is 0."""

    apply: Callable[[Examples, Any], Examples]
    num_draws: int = 0


@OPS.register("normalize")
def make_normalize(dataset: Dataset, mean: Any = 0.5, std: Any = 0.5) -> Op:
    """(x / 255 - mean) / std for bytes, (x - mean) / std for floats; numbers or one a channel."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def apply(examples: Examples, _: Any) -> Examples:
        return {**examples, "image": (scale_bytes(examples["image"]) - mean) / std}

    return Op(apply)


@OPS.register("standardize")
def make_standardize(dataset: Dataset) -> Op:
    """Features of mean 0 and deviation 1, as measured on the training split."""
    mean, std = (part.astype(np.float32) for part in dataset.statistics["features"])

    def apply(examples: Examples, _: Any) -> Examples:
        return {**examples, "features": (examples["features"] - mean) / std}

    return Op(apply)


@OPS.register("shift")
def make_shift(dataset: Dataset, pixels: int = 1) -> Op:
    """Moves each image by up to `pixels` in y and in x; the edge that opens is filled with 0."""
    if not isinstance(pixels, int) or pixels < 0:
        raise UserError(f"shift({pixels!r}): pixels must be a whole number of at least 0")

    def apply(examples: Examples, uniform: Any) -> Examples:
        images = examples["image"]
        pad = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
        padded = np.pad(images, pad)
        windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], axis=(1, 2))
        dy, dx = (uniform * (2 * pixels + 1)).astype(int).T
        moved = windows[np.arange(len(images)), dy, dx]  # [n, ch, y, x]
        return {**examples, "image": np.ascontiguousarray(moved.transpose(0, 2, 3, 1))}

    return Op(apply, num_draws=2)


@OPS.register("flip")
def make_flip(dataset: Dataset) -> Op:
    """Mirrors each image left to right with probability one half."""

    def apply(examples: Examples, uniform: Any) -> Examples:
        images = examples["image"]
        flipped = np.where(uniform[:, :1, None, None] < 0.5, images[:, :, ::-1], images)
        return {**examples, "image": flipped}

    return Op(apply, num_draws=1)


def scale_bytes(array: np.ndarray) -> np.ndarray:
    """Bytes become float32 in [0, 1], other numbers float32 as they are."""
    scaled = np.asarray(array, np.float32)
    return scaled / np.float32(255) if array.dtype == np.uint8 else scaled


def parse_ops(text: str, dataset: Dataset) -> tuple[Op, ...]:
    """Reads a string of operations. Raises UserError on an unknown one or on wrong arguments."""
    ops = []
    for part in filter(None, (p.strip() for p in text.split("|"))):
        name, arguments, keywords = _parse_call(part)
        make = OPS.get(name)
        try:
            inspect.signature(make).bind(dataset, *arguments, **keywords)
        except TypeError as error:
            raise UserError(f"data.transform: {part!r}: {error}") from None
        field = "features" if name == "standardize" else "image"
        if name in OPS.names() and field not in dataset.shapes:
            raise UserError(f"data.transform: {part!r} needs {field!r}, {dataset.name} has none")
        ops.append(make(dataset, *arguments, **keywords))
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
        raise UserError(f"data.transform: cannot read {part!r} (write name or name(1, 2))") from None
    return name.strip(), arguments, keywords


def without_random(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The operations of evaluation, when the config does not name others."""
    return tuple(op for op in ops if not op.num_draws)


def finish(examples: Examples) -> Examples:
    """What reaches the model: float32 inputs (bytes in [0, 1]) and labels, as arrays."""
    return {
        name: np.asarray(values) if name == "label" else scale_bytes(np.asarray(values))
        for name, values in examples.items()
    }
