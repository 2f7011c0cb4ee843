"""Where examples come from: random access to splits of named arrays, by the name in the config."""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath

from zoo.config import CACHE, DataConfig, UserError, nearest
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

    def labels(self) -> np.ndarray | None:
        found = read_labels(self.source)
        return None if found is None else found[self.indices]

    def name(self, index: int) -> str:
        return name_example(self.source, int(self.indices[index]))


@dataclass(frozen=True)
class ConcatenatedSource:
    """One source after another."""

    sources: tuple[Source, ...]

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Where each source begins, and the end."""
        return np.cumsum([0, *map(len, self.sources)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, indices: np.ndarray) -> Examples:
        indices = np.asarray(indices)
        owners = np.searchsorted(self.starts, indices, side="right") - 1
        found, rows = [], []
        for owner in np.unique(owners):
            mine = np.flatnonzero(owners == owner)
            found.append(self.sources[owner].take(indices[mine] - self.starts[owner]))
            rows.append(mine)
        if len(found) < 2:
            return found[0] if found else self.sources[0].take(indices)
        back = np.argsort(np.concatenate(rows), kind="stable")
        return {field: _join([part[field] for part in found], back) for field in found[0]}

    def labels(self) -> np.ndarray | None:
        found = [read_labels(source) for source in self.sources]
        return None if any(f is None for f in found) else np.concatenate(found)  # type: ignore[arg-type]

    def name(self, index: int) -> str:
        owner = int(np.searchsorted(self.starts, index, side="right")) - 1
        return name_example(self.sources[owner], int(index - self.starts[owner]))


def _join(parts: list[Any], order: np.ndarray) -> Any:
    """Values of several sources in this order; a list where images differ in size."""
    if all(isinstance(part, np.ndarray) for part in parts) and (
        len({part.shape[1:] for part in parts}) == 1
    ):
        return np.concatenate(parts)[order]
    every = [value for part in parts for value in part]
    return [every[i] for i in order]


def text_array(texts: Sequence[str]) -> np.ndarray:
    """Texts as an object array `[n]`."""
    out = np.empty(len(texts), object)
    out[:] = texts
    return out


def read_labels(source: Source) -> np.ndarray | None:
    """All labels of a split, None where it has none; `labels()` of a source reads nothing else."""
    if hasattr(source, "labels"):
        return source.labels()
    return source.take(np.arange(len(source))).get("label")


def read_column(source: Source, name: str) -> list[Any] | None:
    """A column that `data.columns={'keep': [...]}` kept, one value an example; None of none."""
    if isinstance(source, SubsetSource):
        values = read_column(source.source, name)
        return None if values is None else [values[i] for i in source.indices]
    if isinstance(source, ConcatenatedSource):
        parts = [read_column(part, name) for part in source.sources]
        found = [part for part in parts if part is not None]
        return [x for part in found for x in part] if len(found) == len(parts) else None
    return source.column(name) if hasattr(source, "column") else None


def name_example(source: Source, index: int) -> str:
    """Which file (and line) an example is from, where the source can say; otherwise its number."""
    return source.name(index) if hasattr(source, "name") else f"example {index}"


@dataclass(frozen=True)
class Dataset:
    """Named splits and what is known of them: `num_classes` is None where labels are values,
    `tokenizer` is there where the examples are windows of text, `notes` are lines that say what was
    inferred, `columns` are those of a table that became each field."""

    name: str
    splits: dict[str, Source]
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    fingerprint: str = field(default="")
    tokenizer: Any = None
    notes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        """Mean and deviation of features and labels over the training split, in float64."""
        train = self.splits["train"]
        if "features" in self.shapes:
            examples = train.take(np.arange(len(train)))
        else:
            examples = {"label": read_labels(train)}
        out = {}
        for name in ("features", "label"):
            if examples.get(name) is not None:
                values = np.asarray(examples[name], np.float64)
                mean, deviation = np.asarray(values.mean(axis=0)), values.std(axis=0)
                out[name] = mean, np.where(deviation > 0, deviation, 1.0)
        return out

    @functools.cached_property
    def class_shares(self) -> np.ndarray:
        """The part of the training examples that has each class, `[c]`, in float64."""
        labels = read_labels(self.splits["train"])
        if labels is not None and labels.ndim > 1:
            return np.asarray(labels, np.float64).mean(axis=0)
        return np.bincount(np.asarray(labels), minlength=self.num_classes or 0) / max(
            len(self.splits["train"]), 1
        )

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Field -> shape of one example before any operation; () of lists, which differ in
        length."""
        first = self.splits["train"].take(np.array([0]))
        return {
            name: () if isinstance(values[0], list | tuple) else np.asarray(values[0]).shape
            for name, values in first.items()
        }


def hash_tokenizer(tokenizer: Any) -> str:
    """sha256 of all that a tokenizer is."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()


def cache_folder(config: DataConfig) -> epath.Path:
    """Where prepared data is kept: `data.cache`, or ~/.cache/zoo."""
    return epath.Path(config.cache or CACHE).expanduser()


def fingerprint(splits: Mapping[str, Source], most: int = 100_000) -> str:
    """sha256 over names, sizes, dtypes and the first `most` examples of every split."""
    digest = hashlib.sha256()
    for split, source in splits.items():
        digest.update(f"{split}:{len(source)}".encode())
        examples = source.take(np.arange(min(len(source), most)))
        for name, values in examples.items():
            if isinstance(values, list) or values.dtype == object:
                digest.update(name.encode())
                for value in values:
                    digest.update(_identify(value))
                continue
            values = np.ascontiguousarray(values)
            digest.update(f"{name}:{values.dtype}:{values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def _identify(value: Any) -> bytes:
    """The bytes of a string, of bytes, or of an array, after what tells them apart."""
    if isinstance(value, str | bytes):
        content = value.encode() if isinstance(value, str) else value
        return f"{type(value).__name__}:{len(content)}:".encode() + content
    array = np.ascontiguousarray(value)
    return f"{array.dtype}:{array.shape}:".encode() + array.tobytes()


def open_dataset(config: DataConfig, tokenizer: Any = None) -> Dataset:
    """Opens `data.source` (or `data.mixture`), text as tokens, with the splits 'train' and, where
    they are there or asked for, 'val' and 'test'. A `tokenizer` takes the place of the one that
    `data.tokenizer` names.

    Raises UserError on an unknown, missing or unreadable source, in one line.
    """
    from zoo.data.captions import add_tokenizer
    from zoo.data.text import encode_text

    dataset = encode_text(open_raw(config), config, tokenizer)
    dataset = add_tokenizer(dataset, config, tokenizer)
    default = DataConfig()
    for key in ("tokenizer", "stride", "packing", "buckets"):
        if not dataset.tokenizer and getattr(config, key) != getattr(default, key):
            raise UserError(f"data.{key} is for text, {dataset.name} is none")
    return dataset


def open_raw(config: DataConfig) -> Dataset:
    """`data.source` (or `data.mixture`) with its splits chosen, text still as text."""
    from zoo.data.mixture import open_mixture
    from zoo.data.splits import choose_splits, fit_twin, resplit

    if config.mixture:
        return open_mixture(config)
    kind, _, name = config.source.partition(":")
    openers = find_openers()
    if kind in openers:
        dataset = openers[kind](name, config)
    elif name:
        dataset = _import_opener(config.source, openers)(config)
    else:
        ending = kind.rpartition(".")[2]
        meant = f" (did you mean '{ending}:{kind}'?)" if ending in set(openers) - {kind} else None
        meant = meant or nearest(kind, openers)
        raise UserError(f"data.source={config.source!r} is unknown{meant}")
    if config.columns and kind not in WITH_COLUMNS:
        raise UserError(
            f"data.columns is for tables ({', '.join(WITH_COLUMNS)}), not {config.source!r}"
        )
    if kind == "synthetic":
        config = fit_twin(dataset, config)
    tests = ("test", "validation") if kind == "tfds" else ("test",)
    return resplit(choose_splits(dataset, config, tests), config)


def _import_opener(source: str, kinds: Iterable[str]) -> Callable[[DataConfig], Dataset]:
    """The user's own function, 'my_module:function'. Raises UserError, with the kind of source
    that may have been meant."""
    try:
        return import_attribute(source, "data.source")
    except UserError as error:
        kind, _, name = source.partition(":")
        close = difflib.get_close_matches(kind, kinds, n=1, cutoff=0.7)
        meant = f" (did you mean '{close[0]}:{name}'?)" if close else ""
        raise UserError(f"{error}{meant}") from None


WITH_COLUMNS = ("csv", "tsv", "jsonl", "parquet", "npz", "hf", "tfds")


def find_openers() -> dict[str, Callable[[str, DataConfig], Dataset]]:
    """Kind of source -> what opens `KIND:NAME`."""
    from zoo.data import (
        catalogs,
        documents,
        embedded,
        hub,
        image_folder,
        published,
        synthetic,
        tables,
        tfds_source,
    )

    return {
        "embedded": embedded.open_embedded,
        "files": published.open_published,
        "folder": image_folder.open_folder,
        "synthetic": synthetic.open_synthetic,
        "text": documents.open_files,
        "tfds": tfds_source.open_tfds,
        "csv": tables.open_csv,
        "tsv": tables.open_tsv,
        "jsonl": tables.open_jsonl,
        "parquet": tables.open_parquet,
        "npz": tables.open_npz,
        "hf": hub.open_hub,
        "gettext": catalogs.open_gettext,
    }


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
