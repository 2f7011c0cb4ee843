"""TFDS through `tfds.data_source`: ArrayRecord files, random access, no TensorFlow to read.

A dataset is prepared once into `data.cache`; preparing most published ones needs TensorFlow (extra
`tfds`), reading never does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from zoo.config import DataConfig, UserError
from zoo.data.sources import Dataset, Examples, Source, cache_folder


@dataclass(frozen=True)
class TfdsSource:
    """One split of a prepared builder; images of one size are stacked, others stay a list."""

    records: Any

    def __len__(self) -> int:
        return len(self.records)

    def take(self, indices: np.ndarray) -> Examples:
        rows = self.records.__getitems__([int(i) for i in indices])
        out: Examples = {}
        for name in ("image", "features", "label"):
            if name in rows[0]:
                values = [np.asarray(row[name]) for row in rows]
                same = all(v.shape == values[0].shape for v in values)
                out[name] = np.stack(values) if same else values
        return out


def open_tfds(name: str, config: DataConfig) -> Dataset:
    """`tfds:NAME`, with `data.train_split` and `data.test_split` as TFDS writes them.

    Raises UserError on an unknown dataset, one that needs TensorFlow to prepare, or a wrong split.
    """
    import tensorflow_datasets as tfds

    cache = cache_folder(config) / "tfds"

    def make_builder() -> Any:
        return tfds.builder(name, data_dir=cache, file_format="array_record")

    try:
        builder = prepare(make_builder, cache)
    except tfds.core.registered.DatasetNotFoundError:
        raise UserError(f"TFDS has no dataset {name!r}") from None
    info = builder.info
    # imagenet2012 and others keep the labels of their test set secret.
    usual = "test" if "test" in info.splits else "validation"
    train, test = config.train_split, config.test_split or usual
    try:
        splits: dict[str, Source] = {
            ours: TfdsSource(builder.as_data_source(split))
            for ours, split in (("train", train), ("test", test))
        }
    except (ValueError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"tfds:{name}: no split {train!r} or {test!r}: {line}") from None
    has_labels = "label" in info.features  # tfds's own mapping has no `get`
    label: Any = info.features["label"] if has_labels else None
    num_classes = getattr(label, "num_classes", None)
    names = tuple(label.names) if num_classes else ()
    identity = f"{info.full_name}:{train}:{test}:{[s.num_examples for s in info.splits.values()]}"
    checksums = [str(sorted(s.shard_lengths)) for s in info.splits.values()]
    digest = hashlib.sha256((identity + "".join(checksums)).encode()).hexdigest()
    return Dataset(f"tfds:{name}", splits, num_classes, names, digest)


def prepare(make_builder: Callable[[], Any], cache: epath.Path) -> Any:
    """The builder, its data downloaded and prepared.

    That is done once: a lock makes other processes wait, and then read what is there.
    """
    import filelock

    builder = make_builder()
    if builder.is_prepared():
        return builder
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(str(cache / f"{builder.name}.lock")):
        builder = make_builder()  # anew: it may have been prepared while we waited
        if builder.is_prepared():
            return builder
        try:
            builder.download_and_prepare()
        except ImportError as error:
            missing = "TensorFlow" if "tensorflow" in str(error).lower() else str(error)
            raise UserError(
                f"tfds:{builder.name} is not prepared in {cache}, and preparing it needs "
                f"{missing}: pip install 'zoo-jax[tfds]' once, reading needs it no more"
            ) from None
        except (OSError, AssertionError) as error:  # no network; files to be fetched by hand
            line = str(error).splitlines()[0][:300]
            raise UserError(f"tfds:{builder.name} cannot be prepared: {line}") from None
    return builder
