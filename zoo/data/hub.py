"""Hugging Face datasets: a folder on disk, or a hub id that the user named (extra `hf`)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from zoo.config import DataConfig, UserError
from zoo.data.sources import Dataset, fingerprint
from zoo.data.splits import choose_names
from zoo.data.tables.cells import Origin, Table
from zoo.data.tables.columns import make_dataset


def open_hub(name: str, config: DataConfig) -> Dataset:
    """`hf:FOLDER` (of `save_to_disk`, or of data files) or `hf:OWNER/NAME[:CONFIG]` of the hub.

    The hub is asked only for what is named, and not at all with HF_HUB_OFFLINE. Raises UserError
    where the package `datasets` is missing, nothing is found or there is no network.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"hf:{name} is read by the package datasets, which is not installed: "
            "pip install 'zoo-jax[hf]'"
        ) from None
    loaded = _load(datasets, name)
    if not isinstance(loaded, dict):
        loaded = {"train": loaded}
    chosen = choose_names(config, loaded, f"hf:{name}")
    tables = {split: _make_table(datasets, name, split, loaded[split]) for split in chosen}
    dataset = make_dataset(f"hf:{name}", tables, config, "unknown")
    # Images are many bytes: of them the first thousand, of all else a hundred thousand.
    most = 1000 if "image" in dataset.shapes else 100_000
    content = fingerprint(dataset.splits, most)
    digest = hashlib.sha256(f"{content}:{dataset.class_names}".encode()).hexdigest()
    return dataclasses.replace(dataset, fingerprint=digest)


def _load(datasets: Any, name: str) -> Any:
    """A dataset, or a dict of them by split."""
    path, _, part = name.partition(":")
    folder = os.path.expanduser(path)
    try:
        if not name:
            raise ValueError("name a folder or a hub id")
        saved = ("dataset_dict.json", "state.json")
        if any(os.path.exists(os.path.join(folder, file)) for file in saved):
            return datasets.load_from_disk(folder)
        if not os.path.isdir(folder) and (path.startswith((".", "/", "~")) or path.count("/") > 1):
            raise ValueError("no such folder")
        where = folder if os.path.isdir(folder) else path
        return datasets.load_dataset(where, part or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"data.source='hf:{name}' cannot be opened: {line[:300]}") from None


def _make_table(datasets: Any, name: str, split: str, found: Any) -> Table:
    """The Arrow columns of a split, images as they are encoded, and the names of its classes."""
    whole = found.with_format("arrow")[:]
    classes = {}
    for column, feature in found.features.items():
        inner = getattr(feature, "feature", feature)  # of a list of labels
        if isinstance(inner, datasets.ClassLabel) and inner.names:
            classes[column] = tuple(inner.names)
    columns = {column: whole.column(column) for column in whole.column_names}
    origin = Origin((f"hf:{name} {split}",), np.array([0, len(found)]), None)
    return Table(columns, origin, classes)
