"""What the labels of the splits tell before training begins."""

from __future__ import annotations

import dataclasses

import numpy as np

from zoo.config import UserError
from zoo.data import ArraySource, Dataset, Source, SubsetSource
from zoo.data.image_folder import FolderSource
from zoo.data.sources import ConcatenatedSource
from zoo.data.tables.columns import TableSource
from zoo.data.token_sources import TokenExamples


def check_labels(dataset: Dataset) -> Dataset:
    """The dataset with notes on the classes that a split has no example of.

    Only where labels are in memory: none is read from disk for this. Raises UserError on labels
    that are no class, and where all of training is one class.
    """
    if not dataset.num_classes:
        return dataset
    counts = {}
    for split, source in dataset.splits.items():
        labels = find_labels(source)
        if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub":
            counts[split] = _count(dataset, split, labels)
    train = counts.get("train")
    if train is not None and dataset.num_classes > 1 and (train > 0).sum() == 1:
        only = _name(dataset, int(train.argmax()))
        raise UserError(
            f"{dataset.name}: every example of 'train' is of class {only}, of "
            f"{dataset.num_classes}: there is nothing to learn (is it sorted by class? "
            "data.train_split takes a part)"
        )
    notes = list(dataset.notes)
    for split, found in counts.items():
        absent = np.flatnonzero(found == 0)
        strange = np.flatnonzero((found > 0) & (train == 0)) if train is not None else absent[:0]
        if len(strange):
            notes.append(
                f"split {split!r}: {found[strange].sum():,} of {found.sum():,} examples are of "
                f"classes that training never sees: {_few(dataset, strange)}"
            )
        if len(absent):
            notes.append(
                f"split {split!r} has no example of {len(absent)} of {dataset.num_classes} "
                f"classes: {_few(dataset, absent)}"
            )
    return dataclasses.replace(dataset, notes=tuple(notes))


def find_labels(source: Source) -> np.ndarray | None:
    """All labels of a split, None where it has none or would have to read files for them."""
    if isinstance(source, ArraySource):
        return source.arrays.get("label")
    if isinstance(source, SubsetSource):
        whole = find_labels(source.source)
        return None if whole is None else whole[source.indices]
    if isinstance(source, ConcatenatedSource):
        parts = [labels for labels in map(find_labels, source.sources) if labels is not None]
        return np.concatenate(parts) if len(parts) == len(source.sources) else None
    held = isinstance(source, FolderSource | TableSource | TokenExamples)
    return source.labels() if held else None  # type: ignore[attr-defined]


def _count(dataset: Dataset, split: str, labels: np.ndarray) -> np.ndarray:
    """Examples a class `[c]`."""
    count = dataset.num_classes or 0
    wrong = labels[(labels < 0) | (labels >= count)] if labels.dtype.kind != "b" else labels[:0]
    if len(wrong):
        raise UserError(
            f"{dataset.name}: split {split!r} has the label {int(wrong[0])}, but its {count} "
            f"classes are 0 to {count - 1}"
        )
    return np.bincount(labels.astype(np.int64), minlength=count)


def _name(dataset: Dataset, number: int) -> str:
    return repr(dataset.class_names[number]) if dataset.class_names else str(number)


def _few(dataset: Dataset, numbers: np.ndarray, most: int = 5) -> str:
    shown = ", ".join(_name(dataset, int(i)) for i in numbers[:most])
    return shown + (", ..." if len(numbers) > most else "")
