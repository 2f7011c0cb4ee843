"""Where examples come from: random access to splits of named arrays, by the name in the config."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath

from zoo.config import DataConfig, UserError, nearest
from zoo.registry import import_attribute

Examples = dict[str, Any]  # field -> array with a leading example axis (or a list of arrays)


@runtime_checkable
class Source(Protocol):
    """Random access to one split."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Examples:
        """The examples at these indices, field by field."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """A split held in memory."""

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(f"arrays of one split differ in length: {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, indices: np.ndarray) -> Examples:
        return {name: array[indices] for name, array in self.arrays.items()}


@dataclass(frozen=True)
class SubsetSource:
    """Some examples of another source."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: np.ndarray) -> Examples:
        return self.source.take(self.indices[indices])


@dataclass(frozen=True)
class Dataset:
    """Named splits and what is known of them: `num_classes` is None where labels are values,
    `tokenizer` is there where the examples are windows of text."""

    name: str
    splits: dict[str, Source]
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    fingerprint: str = field(default="")
    tokenizer: Any = None

    def __post_init__(self) -> None:
        for split, source in self.splits.items():
            if not len(source):
                raise UserError(f"{self.name}: split {split!r} is empty")
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint(self.splits))

    @property
    def tokenizer_hash(self) -> str | None:
        """The identity of the tokenizer, where there is one."""
        return self.tokenizer and hash_tokenizer(self.tokenizer)

    @functools.cached_property
    def statistics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Field -> mean and deviation over the training split, in float64."""
        train = self.splits["train"]
        examples = train.take(np.arange(len(train)))
        out = {}
        for name, values in examples.items():
            values = np.asarray(values, np.float64)
            deviation = values.std(axis=0)
            out[name] = values.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
        return out

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Field -> shape of one example before any operation."""
        first = self.splits["train"].take(np.array([0]))
        return {name: np.asarray(values[0]).shape for name, values in first.items()}


def hash_tokenizer(tokenizer: Any) -> str:
    """sha256 of all that a tokenizer is."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()


def cache_folder(config: DataConfig) -> epath.Path:
    """Where prepared data is kept: `data.cache`, or ~/.cache/zoo."""
    return epath.Path(config.cache or "~/.cache/zoo").expanduser()


def fingerprint(splits: Mapping[str, Source], most: int = 100_000) -> str:
    """sha256 over names, sizes, dtypes and the first `most` examples of every split."""
    digest = hashlib.sha256()
    for split, source in splits.items():
        digest.update(f"{split}:{len(source)}".encode())
        examples = source.take(np.arange(min(len(source), most)))
        for name, values in examples.items():
            values = np.ascontiguousarray(values)
            digest.update(f"{name}:{values.dtype}:{values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def open_dataset(config: DataConfig) -> Dataset:
    """Opens `data.source` and makes its splits: 'train', 'test' and, where asked for, 'val'.

    Raises UserError on an unknown, missing or unreadable source, in one line.
    """
    from zoo.data import embedded, published, synthetic, text, tfds_source

    kind, _, name = config.source.partition(":")
    openers: dict[str, Callable[[str, DataConfig], Dataset]] = {
        "embedded": embedded.open_embedded,
        "files": published.open_published,
        "synthetic": synthetic.open_synthetic,
        "text": text.open_files,
        "tfds": tfds_source.open_tfds,
    }
    if kind in openers:
        dataset = openers[kind](name, config)
    elif name:
        dataset = import_attribute(config.source, "data.source")(config)
    else:
        raise UserError(f"data.source={config.source!r} is unknown{nearest(kind, openers)}")
    if kind not in ("tfds", "synthetic") and (config.train_split, config.test_split) != (
        "train",
        None,
    ):
        raise UserError(
            f"data.train_split and data.test_split are for tfds:, not {config.source!r}"
        )
    default = DataConfig()
    for key in ("tokenizer", "stride"):
        if not dataset.tokenizer and getattr(config, key) != getattr(default, key):
            raise UserError(f"data.{key} is for text, {dataset.name} is none")
    return resplit(dataset, config)


def resplit(dataset: Dataset, config: DataConfig) -> Dataset:
    """Applies `data.fold` and `data.validation_fraction`: stratified where there are classes, the
    last part of a text."""
    if config.fold and dataset.tokenizer:
        raise UserError(f"data.fold: {dataset.name} is text, which is not divided into folds")
    if config.fold:
        dataset = _fold(dataset, *config.fold)
    if config.validation_fraction:
        dataset = _hold_out(dataset, config.validation_fraction)
    return dataset


def _fold(dataset: Dataset, index: int, num_folds: int) -> Dataset:
    """Part `index` of all examples becomes the test split, shuffled by seed 0."""
    from sklearn.model_selection import KFold, StratifiedKFold

    every = _concatenate(list(dataset.splits.values()))
    kind = StratifiedKFold if dataset.num_classes else KFold
    folds = kind(num_folds, shuffle=True, random_state=0)
    labels = every.arrays["label"]
    train, test = list(folds.split(labels.reshape(len(labels), -1), labels))[index]
    splits: dict[str, Source] = {
        "train": SubsetSource(every, train),
        "test": SubsetSource(every, test),
    }
    return dataclasses.replace(dataset, splits=splits, fingerprint="")


def _concatenate(sources: list[Source]) -> ArraySource:
    parts = [source.take(np.arange(len(source))) for source in sources]
    return ArraySource({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def _hold_out(dataset: Dataset, fraction: float) -> Dataset:
    """Moves a part of 'train' to 'val': of a text its end, of examples some chosen by seed 0."""
    train = dataset.splits["train"]
    if "val" in dataset.splits:
        raise UserError(
            f"data.validation_fraction={fraction}: {dataset.name} has a 'val' split of its own"
        )
    if hasattr(train, "hold_out"):
        parts = dict(zip(("train", "val"), train.hold_out(fraction), strict=True))
        return dataclasses.replace(dataset, splits={**dataset.splits, **parts})
    labels = np.asarray(train.take(np.arange(len(train)))["label"]) if dataset.num_classes else None
    kept, held = split_indices(len(train), fraction, labels)
    splits: dict[str, Source] = {
        "train": SubsetSource(train, kept),
        "val": SubsetSource(train, held),
    }
    splits |= {name: s for name, s in dataset.splits.items() if name not in splits}
    return dataclasses.replace(dataset, splits=splits)


def split_indices(
    size: int, part: float | int, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the larger and the smaller part, stratified by labels, seed 0."""
    from sklearn.model_selection import train_test_split

    try:
        kept, held = train_test_split(
            np.arange(size), test_size=part, random_state=0, stratify=labels
        )
    except ValueError as error:
        raise UserError(f"cannot hold out {part} of {size} examples: {error}") from None
    return np.sort(kept), np.sort(held)


def from_arrays(train: tuple[Any, Any], test: tuple[Any, Any] | None, *, classes: bool) -> Dataset:
    """A dataset of the user's own `(inputs, labels)`: images `[n, y, x(, ch)]` or rows `[n, d]`.

    With `classes` the labels are the numbers 0 ... n - 1 of classes. Raises UserError otherwise.
    """
    splits: dict[str, Source] = {"train": array_split(*train)}
    if test is not None:
        splits["test"] = array_split(*test)
    if not classes:
        return Dataset("arrays", splits)
    labels = np.concatenate([np.asarray(part[1]) for part in (train, test) if part is not None])
    if not labels.size:
        return Dataset("arrays", splits)  # which says that a split is empty
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.ndim != 1:
        raise UserError(
            f"classification needs labels [n] of whole numbers from 0, not {labels.dtype} "
            f"{labels.shape[1:]} from {labels.min()} (for values: task.name='regression')"
        )
    return Dataset("arrays", splits, int(labels.max()) + 1)


def array_split(inputs: Any, labels: Any) -> ArraySource:
    """Names a split's arrays by their rank. Raises UserError on a rank that is no image or row."""
    fields = array_inputs(inputs)
    return ArraySource({**fields, "label": np.asarray(labels)})


def array_inputs(inputs: Any) -> dict[str, np.ndarray]:
    """`{"image": [n, y, x, ch]}` or `{"features": [n, d]}`."""
    inputs = np.asarray(inputs)
    if inputs.ndim == 2:
        return {"features": inputs}
    if inputs.ndim == 3:
        return {"image": inputs[..., None]}
    if inputs.ndim == 4:
        return {"image": inputs}
    raise UserError(
        f"inputs of shape {inputs.shape} are neither rows [n, d] nor images [n, y, x(, ch)]"
    )
