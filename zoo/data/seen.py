"""The data of a run as its folder tells it: enough to treat new examples as its evaluation does.

`describe_fields` is what data.json says of it; `recall_dataset` makes of that a dataset with one
blank example, which operations and tasks can be made for as for the data itself.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from zoo.config import UserError
from zoo.data.ops import find_kind
from zoo.data.sources import ArraySource, Dataset

Statistics = dict[str, tuple[np.ndarray, np.ndarray]]


def describe_fields(dataset: Dataset) -> dict[str, Any]:
    """Shapes before any operation, the kind of images, and means and deviations where an operation
    or the task has asked for them, in full precision."""
    asked: Statistics = vars(dataset).get("statistics", {})  # kept there once they are computed
    return {
        "shapes": {name: list(shape) for name, shape in dataset.shapes.items()},
        "images": find_kind(dataset),
        "statistics": {k: [part.tolist() for part in pair] for k, pair in asked.items()},
    }


@dataclass(frozen=True)
class SeenDataset(Dataset):
    """A dataset that is no longer there: its fields, classes and statistics. Its one split, of one
    blank example, says what an example is like."""

    measured: Statistics = field(default_factory=dict)

    @property
    def statistics(self) -> Statistics:  # type: ignore[override]
        """As measured when the run began. Raises UserError where data.json holds none."""
        if not self.measured:
            raise UserError(
                f"data.json of this run does not tell the mean and deviation of {self.name}: start "
                "the same training command once more, it writes them"
            )
        return self.measured

    @property
    def class_shares(self) -> np.ndarray:  # type: ignore[override]
        """All alike: they weigh the loss of training, which is over."""
        count = self.num_classes or 1
        return np.full(count, 1 / count)


def recall_dataset(values: Mapping[str, Any], tokenizer: Any) -> SeenDataset:
    """From what data.json says. Raises UserError on a file of an older zoo, which does not say how
    examples look."""
    if "shapes" not in values:
        raise UserError(
            "data.json does not tell the shapes of the examples (an older zoo wrote it): start the "
            "same training command once more, it writes them"
        )
    example = {
        name: make_blank(name, tuple(shape), values.get("images"))
        for name, shape in values["shapes"].items()
    }
    pairs = values.get("statistics", {})
    return SeenDataset(
        str(values.get("name")),
        {"train": ArraySource(example)},
        values.get("num_classes"),
        tuple(values.get("class_names") or ()),
        str(values.get("fingerprint")),
        tokenizer,
        columns={k: tuple(v) for k, v in values.get("columns", {}).items()},
        measured={k: (np.asarray(a), np.asarray(b)) for k, (a, b) in pairs.items()},
    )


def make_blank(name: str, shape: tuple[int, ...], images: str | None) -> np.ndarray:
    """One example's field, zero: `[1, *shape]`."""
    if name == "image" and images == "encoded":
        out = np.empty(1, object)
        out[0] = encode_png(Image.new("L", (1, 1)))
        return out
    if name == "image":
        return np.zeros((1, *shape), np.uint8 if images == "bytes" else np.float32)
    return np.zeros((1, *shape), np.float32 if name == "features" else np.int32)


def encode_png(image: Image.Image) -> bytes:
    """A file's bytes that hold the image's pixels as they are."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
