"""Data: sources, operations, and batches that are a pure function of (seed, step)."""

from zoo.data import captions as _captions  # noqa: F401  (these five register operations)
from zoo.data import decode as _decode  # noqa: F401
from zoo.data import images as _images  # noqa: F401
from zoo.data import masking as _masking  # noqa: F401
from zoo.data import pixels as _pixels  # noqa: F401
from zoo.data.ops import OPS, Op, choose_ops, parse_ops, without_random
from zoo.data.order import AtLength
from zoo.data.pipeline import StackedStream, TrainStream, read_ahead, read_eval
from zoo.data.sources import (
    ArraySource,
    Dataset,
    Source,
    SubsetSource,
    array_inputs,
    from_arrays,
    open_dataset,
)
from zoo.data.splits import resplit

__all__ = [
    "OPS",
    "ArraySource",
    "AtLength",
    "Dataset",
    "Op",
    "Source",
    "StackedStream",
    "SubsetSource",
    "TrainStream",
    "array_inputs",
    "choose_ops",
    "from_arrays",
    "open_dataset",
    "parse_ops",
    "read_ahead",
    "read_eval",
    "resplit",
    "without_random",
]
