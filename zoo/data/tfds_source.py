"""TFDS through `tfds.data_source`: ArrayRecord files, random access, no TensorFlow to read.

A dataset is prepared once into `data.cache`, from the published files in `data.folder` where they
are there; preparing most published ones needs TensorFlow (extra `tfds`), reading never does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from zoo.config import DataConfig, UserError
from zoo.data.sources import Dataset, Examples, Source, cache_folder, text_array
from zoo.data.tables.columns import TEXT_FIELDS, find_columns

LABELS_AT_ONCE = 10_000


@dataclass(frozen=True)
class TfdsSource:
    """One split of a prepared builder; images of one size are stacked, others stay a list.

    `fields` are the features of ours; with `num_labels` an example has several of as many labels.
    """

    records: Any
    label_records: Any  # the same, images not decoded
    fields: Mapping[str, str]
    num_labels: int | None
    shard_lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.records)

    def take(self, indices: np.ndarray) -> Examples:
        rows = self.records.__getitems__([int(i) for i in indices])
        return {name: self._field(name, [row[of] for row in rows]) for name, of in self._names()}

    def labels(self) -> np.ndarray | None:
        """All labels, with no image decoded."""
        if "label" not in self.fields:
            return None
        feature, parts = self.fields["label"], []
        for start in range(0, len(self), LABELS_AT_ONCE):
            chosen = list(range(start, min(start + LABELS_AT_ONCE, len(self))))
            rows = self.label_records.__getitems__(chosen)
            parts.append(self._field("label", [row[feature] for row in rows]))
        return np.concatenate(parts)

    def _names(self) -> list[tuple[str, str]]:
        return list(self.fields.items())

    def _field(self, name: str, values: list[Any]) -> Any:
        """One field of some rows."""
        if name in TEXT_FIELDS:
            return text_array([v.decode() if isinstance(v, bytes) else str(v) for v in values])
        if name == "answers":
            return np.fromiter(values, object, len(values))
        if name == "label" and self.num_labels is not None:
            marks = np.zeros((len(values), self.num_labels), np.float32)
            for row, several in enumerate(values):
                marks[row, np.asarray(several, int)] = 1
            return marks
        arrays = [np.asarray(value) for value in values]
        same = all(a.shape == arrays[0].shape for a in arrays)
        return np.stack(arrays) if same else arrays


def open_tfds(name: str, config: DataConfig) -> Dataset:
    """`tfds:NAME`: images, features, texts and labels by the names of the features.

    Raises UserError on an unknown dataset or one that needs TensorFlow to prepare.
    """
    import tensorflow_datasets as tfds

    cache = cache_folder(config) / "tfds"

    def make_builder() -> Any:
        return tfds.builder(name, data_dir=cache, file_format="array_record")

    try:
        builder = prepare(make_builder, cache, manual_folder(name, config))
    except tfds.core.registered.DatasetNotFoundError:
        raise UserError(f"TFDS has no dataset {name!r}") from None
    info = builder.info
    plan = find_features(info, config, name)
    label: Any = info.features[plan["label"]] if "label" in plan else None
    several = isinstance(label, tfds.features.Sequence)
    label = label.feature if several else label
    num_classes = getattr(label, "num_classes", None)
    names = tuple(label.names) if num_classes else ()
    images = [f for f in info.features if isinstance(info.features[f], tfds.features.Image)]
    as_they_are = {feature: tfds.decode.SkipDecoding() for feature in images}
    splits: dict[str, Source] = {
        split: TfdsSource(
            builder.as_data_source(split),
            builder.as_data_source(split, decoders=as_they_are),
            plan,
            num_classes if several else None,
            tuple(info.splits[split].shard_lengths),
        )
        for split in info.splits
    }
    usual = "test" if "test" in info.splits else "validation"
    train, test = config.train_split, config.test_split or usual
    identity = f"{info.full_name}:{train}:{test}:{[s.num_examples for s in info.splits.values()]}"
    checksums = [str(sorted(s.shard_lengths)) for s in info.splits.values()]
    digest = hashlib.sha256((identity + "".join(checksums)).encode()).hexdigest()
    return Dataset(f"tfds:{name}", splits, num_classes, names, digest)


def find_features(info: Any, config: DataConfig, name: str) -> dict[str, str]:
    """Our field -> the feature of this builder, by `data.columns`, by what TFDS supervises with,
    or by name and type."""
    import tensorflow_datasets as tfds

    def kind_of(feature: str) -> str:
        found = info.features[feature]
        if isinstance(found, tfds.features.Image):
            return "image"
        if isinstance(found, tfds.features.Text):
            return "text"
        kind = np.dtype(found.np_dtype).kind if isinstance(found, tfds.features.Tensor) else "O"
        return "numbers" if kind in "biuf" and len(found.shape) < 2 else "other"

    given, keys = dict(config.columns), info.supervised_keys
    if not given and keys and len(keys) == 2 and kind_of(keys[0]) == "text":
        texts = kind_of(keys[1]) == "text"
        given = dict(zip(("source", "target") if texts else ("text", "label"), keys, strict=True))
    plan = find_columns(tuple(info.features), kind_of, given, f"tfds:{name}")
    for field, features in plan.items():
        if len(features) > 1:
            raise UserError(f"tfds:{name}: {field} is one feature, not {', '.join(features)}")
    return {"label" if field == "value" else field: of[0] for field, of in plan.items()}


def manual_folder(name: str, config: DataConfig) -> str | None:
    """Where published files may lie: FOLDER/NAME, or FOLDER itself; None where there is none."""
    folder = config.folder or os.environ.get("ZOO_DATA")
    if not folder:
        return None
    own = os.path.join(folder, name.partition("/")[0].partition(":")[0])
    return next((path for path in (own, folder) if os.path.isdir(path)), None)


def prepare(
    make_builder: Callable[[], Any], cache: epath.Path, manual_dir: str | None = None
) -> Any:
    """The builder, its data downloaded and prepared; files in `manual_dir` are not downloaded.

    That is done once: a lock makes other processes wait, and then read what is there.
    """
    import filelock
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.extractor import ExtractError

    builder = make_builder()
    if builder.is_prepared():
        return builder
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(str(cache / f"{builder.name}.lock")):
        builder = make_builder()  # anew: it may have been prepared while we waited
        if builder.is_prepared():
            return builder
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        except (ImportError, ExtractError) as error:
            if isinstance(error, ExtractError) and not isinstance(error.__cause__, ImportError):
                line = str(error).splitlines()[0][:300]
                raise UserError(f"tfds:{builder.name} cannot be prepared: {line}") from None
            missing = "TensorFlow" if "tensorflow" in str(error).lower() else str(error)
            raise UserError(
                f"tfds:{builder.name} is not prepared in {cache}, and preparing it needs "
                f"{missing}: pip install 'zoo-jax[tfds]' once, reading needs it no more"
            ) from None
        except (OSError, AssertionError) as error:  # no network; files to be fetched by hand
            line = str(error).splitlines()[0][:300]
            raise UserError(f"tfds:{builder.name} cannot be prepared: {line}") from None
    return builder
