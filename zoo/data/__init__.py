"""Data: sources, operations, and batches that are a pure function of (seed, step)."""

from zoo.data import images as _images  # noqa: F401  (registers its operations)
from zoo.data.ops import OPS, Op, parse_ops, without_random
from zoo.data.pipeline import TrainStream, read_ahead, read_eval
from zoo.data.sources import (
    ArraySource,
    Dataset,
    Source,
    array_inputs,
    from_arrays,
    open_dataset,
    resplit,
)

__all__ = [
    "OPS",
    "ArraySource",
    "Dataset",
    "Op",
    "Source",
    "TrainStream",
    "array_inputs",
    "from_arrays",
    "open_dataset",
    "parse_ops",
    "read_ahead",
    "read_eval",
    "resplit",
    "without_random",
]
