"""Views of a split: at several lengths, with other numbers of classes, without its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data import Source
from zoo.data.sources import read_labels
from zoo.data.token_annotations import TokenChoices, TokenSpans, TokenTags
from zoo.data.token_sources import TokenRows

LABELS = ("token_label", "label")  # fields of classes


@dataclass(frozen=True)
class Padded:
    """Rows of tokens that may be read at any of the lengths `buckets`; `sizes` are theirs."""

    rows: Any
    sizes: np.ndarray
    buckets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def take(self, indices: np.ndarray, length: int | None = None) -> dict[str, Any]:
        return self.rows.take(indices, length)


@dataclass(frozen=True)
class Renamed:
    """Examples whose labels are the model's classes, `num_classes` of them."""

    source: Any
    places: np.ndarray
    num_classes: int

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray, length: int | None = None) -> dict[str, Any]:
        more = () if length is None else (length,)
        found = self.source.take(indices, *more)
        name = next(name for name in LABELS if name in found)
        label = np.asarray(found[name])
        if name == "label" and label.ndim == 2:  # several an example
            known = self.places >= 0
            wide = np.zeros((len(label), self.num_classes), label.dtype)
            wide[:, self.places[known]] = label[:, known]
            return {**found, name: wide}
        return {**found, name: np.where(label < 0, label, self.places[label]).astype(np.int32)}


@dataclass(frozen=True)
class TextAlone:
    """A table of labelled texts, for a model that takes no labels."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> dict[str, Any]:
        return {"text": self.source.take(indices)["text"]}


def read_classes(source: Source) -> np.ndarray:
    """The classes of all examples, or of their tokens."""
    found = read_labels(source)
    if found is None:
        found = source.take(np.arange(len(source)))["token_label"]
    return np.asarray(found)


def find_rows(source: Any) -> Any:
    """What makes the rows, below the wrappers here."""
    if isinstance(source, Padded):
        source = source.rows
    return source.source if isinstance(source, Renamed) else source


def find_sizes(rows: Any) -> np.ndarray | None:
    """How many tokens each row has, None of what is not padded to a length."""
    for kind, lines in ((TokenRows, 1), (TokenTags, 2), (TokenSpans, 3)):
        if isinstance(rows, kind):
            return np.diff(rows.tokens.offsets) // lines
    if isinstance(rows, TokenChoices):
        return np.diff(rows.rows.tokens.offsets).reshape(-1, rows.num_choices).max(axis=1)
    return None
