"""The examples of an evaluation: a split of some data, on training's way into the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import DataConfig, UserError, nearest
from zoo.data import (
    AtLength,
    Dataset,
    Op,
    Source,
    SubsetSource,
    from_arrays,
    parse_ops,
    read_eval,
)
from zoo.data.sources import WITH_COLUMNS, open_raw
from zoo.data.splits import NoSplit, parse_split, select_slices
from zoo.data.text import encode_text, find_text
from zoo.data.token_sources import TokenWindows
from zoo.evaluation.classes import align_classes, count_classes
from zoo.evaluation.images import adapt_ops, process_ops
from zoo.evaluation.rows import (
    Padded,
    Renamed,
    TextAlone,
    find_rows,
    find_sizes,
    read_classes,
)
from zoo.evaluation.subject import Subject
from zoo.tasks import TASKS
from zoo.use.texts import make_buckets

USUAL = ("test", "val", "train")
MADE = ("length", "label")  # what slices are made by without a column
TABLES = tuple(kind for kind in WITH_COLUMNS if kind != "tfds")  # they keep columns


@dataclass(frozen=True)
class Examples:
    """A split as a subject's model takes it.

    `data` holds them, as its split 'train', before any token is made, `source` those that the
    operations `ops` get: row i of one is row i of the other, unless the data is a corpus. `classes`
    are those of the model as a person knows them.
    """

    name: str
    split: str
    data: Dataset
    source: Source
    dataset: Dataset
    ops: tuple[Op, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    skip_broken: bool = False

    @property
    def raw(self) -> Source:
        """The examples as the data has them."""
        return self.data.splits["train"]

    def raw_row(self, row: int) -> int:
        """The example of the data that a row is of: a long context has several."""
        owners = getattr(find_rows(self.source), "owners", None)
        return row if owners is None else int(owners[row])

    @property
    def is_corpus(self) -> bool:
        """Are the examples windows of a text, not the rows of the data?"""
        shapes = self.dataset.shapes
        windows = "tokens" in shapes and "token_mask" not in shapes
        return windows and "text" in self.raw.take(np.array([0]))

    def batches(
        self, batch_size: int, rows: slice | np.ndarray
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Host batches, every example once, and the places in the split of the global batch's
        rows. Texts of a published model are read in a few lengths, each with those that fit it."""
        for places, source in self._portions():
            start = 0
            for batch in read_eval(
                source, self.ops, batch_size, rows, skip_broken=self.skip_broken
            ):
                at = np.arange(start, start + batch_size)
                yield batch, places[np.minimum(at, len(places) - 1)]
                start += batch_size

    def _portions(self) -> Iterator[tuple[np.ndarray, Source]]:
        every = np.arange(len(self.source))
        if not isinstance(self.source, Padded):
            yield every, self.source
            return
        owner = np.searchsorted(self.source.buckets, self.source.sizes)
        for number, length in enumerate(self.source.buckets):
            places = np.flatnonzero(owner == number)
            if len(places):
                yield places, SubsetSource(AtLength(self.source, length), places)


def open_examples(
    subject: Subject,
    data: Any = None,
    split: str | None = None,
    columns: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    length: int | None = None,
) -> Examples:
    """Opens the data (None: the run's own) for a subject.

    Raises UserError on data that is not there, of another kind than the model takes, of classes
    that it does not know, and on an empty split.
    """
    config = make_data_config(subject, data, columns or {}, keep, length)
    try:
        if data is None:
            opened = open_own(subject, config, split)
        else:
            opened = open_other(subject, data, config, split)
    except UserError as error:
        raise UserError(rename_keys(str(error))) from None
    dataset, source, classes, notes = opened.dataset, opened.source, subject.classes, opened.notes
    check_labels(subject, dataset)
    if classes and dataset.num_classes:
        counts = count_labels(source, subject, dataset.num_classes)
        names = dataset.class_names or ("",) * len(counts)
        where = f"{dataset.name}, split {opened.split!r},"
        found = align_classes(classes, names, counts, subject.name, where, subject.named)
        classes, notes = found.names, (*notes, *found.notes)
        same = np.array_equal(found.places, np.arange(len(found.places)))
        if not same or (subject.several and len(found.places) < len(classes)):
            source = Renamed(source, found.places, len(classes))
    owners = getattr(find_rows(source), "owners", None)
    if owners is not None and len(np.unique(owners)) < len(owners):
        told = f"{len(owners):,} windows of {len(np.unique(owners)):,} contexts: each is an example"
        notes = (*notes, told)
    sizes = find_sizes(find_rows(source))
    if subject.recipe is None and sizes is not None:
        source = Padded(source, sizes, make_buckets(int(sizes.max())))
    return dataclasses.replace(opened, source=source, classes=classes, notes=notes)


def check_labels(subject: Subject, dataset: Dataset) -> None:
    """Raises UserError where the labels are not there, or of another kind than the task's."""
    task, name = subject.task.name, dataset.name
    if task not in ("classification", "regression"):
        TASKS.get(task).num_outputs(dataset)  # type: ignore[attr-defined]
        return
    shape, field = dataset.shapes.get("label"), "label" if task == "classification" else "value"
    if shape is None:
        raise UserError(f"{name} has no labels: columns={{{field!r}: 'COLUMN'}} names theirs")
    if task == "regression" and dataset.num_classes:
        raise UserError(f"{name} has classes, {subject.name} gives values")
    if task == "classification" and not dataset.num_classes:
        raise UserError(f"{name} has values, {subject.name} gives classes")
    if task == "classification" and subject.several != (shape != ()):
        kinds = ("one label", "several labels")
        has, gives = kinds[shape != ()], kinds[subject.several]
        raise UserError(f"{name} has {has} an example, {subject.name} gives {gives}")


def count_labels(source: Source, subject: Subject, num_classes: int) -> np.ndarray:
    """Examples of each class of the data `[c]`."""
    labels = read_classes(source)
    return labels.sum(axis=0) if subject.several else count_classes(labels, num_classes)


def rename_keys(line: str, train_split: str = "split") -> str:
    """A line with the keys of a config under the names they have here."""
    names = {"data.train_split": train_split, "data.test_split": "split", "data.columns": "columns"}
    for key, ours in names.items():
        line = line.replace(key, ours)
    return line.removeprefix("data.").replace("data.source=", "data=")


def make_data_config(
    subject: Subject, data: Any, columns: Mapping[str, Any], keep: Sequence[str], length: int | None
) -> DataConfig:
    """The config that opens the data: a run's own where it says how text becomes tokens."""
    recipe = subject.recipe
    config = recipe.data if recipe is not None else DataConfig()
    if data is None and recipe is None:
        raise UserError(f"{subject.name} is no run, which has data of its own: give --data=SOURCE")
    if data is None and config.source == "arrays":
        raise UserError(f"{subject.name} was trained on arrays, which are not kept: give data")
    longest = subject.length
    if length is not None and not 0 < length <= longest:
        raise UserError(f"length={length}: {subject.name} takes 1 to {longest} tokens")
    config = dataclasses.replace(config, length=length or longest)
    kept = {"keep": list(keep)} if keep else {}
    shown = config.source if data is None else data if isinstance(data, str) else "the data"
    if keep and (shown.partition(":")[0] not in TABLES or config.mixture):
        raise UserError(f"by={keep[0]!r}: {shown} is no table with columns{nearest(keep[0], MADE)}")
    if data is None:
        return dataclasses.replace(config, columns={**config.columns, **columns, **kept})
    # What the columns of a table meant in training they mean here.
    known = dict(recipe.dataset.columns) if recipe is not None else {}
    chosen = {k: list(v) if len(v) > 1 else v[0] for k, v in known.items() if k not in columns}
    if not isinstance(data, str) or data.partition(":")[0] not in WITH_COLUMNS:
        chosen = {}
    source = data if isinstance(data, str) else "arrays"
    return dataclasses.replace(
        config,
        source=source,
        mixture={},
        columns={**chosen, **columns, **kept},
        val_split="",
        test_split="",
        validation_fraction=0.0,
        test_fraction=0.0,
        fold=None,
        buckets=(),
        stride=None,
    )


def open_own(subject: Subject, config: DataConfig, split: str | None) -> Examples:
    """The run's own data, its splits and its tokens as in training."""
    recipe = subject.recipe
    assert recipe is not None
    raw = open_raw(config)
    dataset = encode_text(raw, config, subject.tokenizer) if find_text(raw) else raw
    spec = split or next(name for name in USUAL if name in dataset.splits)
    same = dataset.fingerprint == recipe.dataset.fingerprint or config.length != recipe.data.length
    notes = () if same else (f"{dataset.name} is no longer what the run was trained on",)
    data = choose(raw, spec)
    if "context" in find_text(raw) and spec not in raw.splits:
        # A part of the questions: a part of all windows would be of others.
        source = encode_text(data, config, subject.tokenizer).splits["train"]
    else:
        source = count_all(choose(dataset, spec).splits["train"])
    return Examples(
        dataset.name, spec, data, source, dataset, recipe.ops, (), notes, config.skip_broken
    )


def open_other(subject: Subject, data: Any, config: DataConfig, split: str | None) -> Examples:
    """One split of other data."""
    dataset, spec = read_split(subject, data, config, split)
    made, ops, notes = make_fields(subject, dataset, config)
    source = made.splits["train"]
    return Examples(made.name, spec, dataset, source, made, ops, (), notes, config.skip_broken)


def read_split(
    subject: Subject, data: Any, config: DataConfig, split: str | None
) -> tuple[Dataset, str]:
    """One split of other data as it is, as 'train', and its name."""
    if isinstance(data, tuple):
        classes = subject.task.name == "classification"
        data = from_arrays(data, None, classes=classes)
    if isinstance(data, Dataset):
        spec = split or next((name for name in USUAL if name in data.splits), "train")
        return choose(data, spec), spec
    if isinstance(data, str):
        return open_split(subject, config, split)
    raise UserError(
        f"data is a source such as 'csv:FILE', (inputs, labels) or a Dataset, not "
        f"{type(data).__name__}"
    )


def open_split(subject: Subject, config: DataConfig, split: str | None) -> tuple[Dataset, str]:
    """The split asked for, as 'train', or the first of the usual ones that is there."""
    specs = [split] if split else USUAL
    for spec in specs:
        try:
            dataset = open_raw(dataclasses.replace(config, train_split=spec))
            return _as_task(subject, dataset, config, spec), spec
        except NoSplit:
            if spec == specs[-1]:
                raise
    raise AssertionError


def count_all(source: Any) -> Source:
    """Windows of a text in which every token counts: those of training leave out the last few."""
    if isinstance(source, TokenWindows) and source.whole:
        return dataclasses.replace(source, whole=False, stride=source.length)
    return source


def _as_task(subject: Subject, dataset: Dataset, config: DataConfig, spec: str) -> Dataset:
    """Whole numbers are classes of a table, unless the model gives values."""
    label = dataset.columns.get("label")
    if subject.task.name != "regression" or not dataset.num_classes or not label:
        return dataset
    rest = {k: v for k, v in config.columns.items() if k != "label"}
    columns = {**rest, "value": label[0]}
    return open_raw(dataclasses.replace(config, train_split=spec, columns=columns))


def choose(dataset: Dataset, spec: str) -> Dataset:
    """One split, or slices of some, as the split 'train' of a dataset."""
    parts = parse_split(spec, dataset.splits, "split")
    source = select_slices(parts, dataset.splits)
    if not len(source):
        raise UserError(f"split={spec!r} of {dataset.name} is empty")
    return dataclasses.replace(dataset, splits={"train": source})


def make_fields(
    subject: Subject, dataset: Dataset, config: DataConfig
) -> tuple[Dataset, tuple[Op, ...], tuple[str, ...]]:
    """The dataset with tokens for text, the operations, and lines on what was done."""
    text, recipe = find_text(dataset), subject.recipe
    takes_text = hasattr(subject.model, "vocab_size")
    if takes_text != bool(text):
        kind = "text" if text else f"no text ({', '.join(dataset.shapes)})"
        raise UserError(f"{dataset.name} is {kind}; {subject.name} takes {_tell_inputs(subject)}")
    if text:
        return make_tokens(subject, dataset, config)
    if "image" in dataset.shapes and hasattr(subject.model, "image_size"):
        if recipe is None:
            return dataset, process_ops(subject.loaded, dataset), ()
        return dataset, *adapt_ops(recipe, dataset)
    wanted = recipe.dataset.shapes if recipe is not None else {}
    columns, known = dataset.columns.get("features"), recipe and recipe.column_names("features")
    if columns and known and tuple(columns) != known:
        raise UserError(
            f"{dataset.name} gives the columns {', '.join(columns)}; {subject.name} takes "
            f"{', '.join(known)}"
        )
    for name, shape in dataset.shapes.items():
        if name in ("image", "features") and wanted.get(name) != shape:
            raise UserError(
                f"{dataset.name} has {name} of shape {shape}; {subject.name} takes "
                f"{_tell_inputs(subject)}"
            )
    return dataset, recipe.ops if recipe is not None else (), ()


def _tell_inputs(subject: Subject) -> str:
    """What a model takes, for a person."""
    if hasattr(subject.model, "vocab_size"):
        return "text"
    if subject.recipe is None:
        return "images"
    shapes = subject.recipe.dataset.shapes
    return " and ".join(f"{k} of shape {v}" for k, v in shapes.items() if k != "label")


def make_tokens(
    subject: Subject, dataset: Dataset, config: DataConfig
) -> tuple[Dataset, tuple[Op, ...], tuple[str, ...]]:
    """Text as tokens of the subject's tokenizer."""
    if subject.tokenizer is None:
        told = [line for line in subject.loaded.report if "tokenizer" in line]
        why = f" ({told[0]})" if told else ""
        raise UserError(f"{subject.name} has no tokenizer{why}: give one, --tokenizer=FILE")
    if subject.task.name == "causal_lm" and {"text", "label"} <= set(dataset.shapes):
        alone = TextAlone(dataset.splits["train"])
        dataset = dataclasses.replace(dataset, splits={"train": alone}, num_classes=None)
    if find_text(dataset) != ("text",) or "label" in dataset.shapes or config.packing:
        encoded = encode_text(dataset, config, subject.tokenizer)
        return encoded, choose_token_ops(subject, encoded), _tell_cut(encoded, config.length)
    # A text shorter than the model's longest window is a window by itself.
    encoded = encode_text(dataset, dataclasses.replace(config, length=1), subject.tokenizer)
    windows: Any = encoded.splits["train"]
    length = min(config.length, len(windows.tokens) - 1)
    windows = dataclasses.replace(windows, length=length, stride=length, whole=False)
    encoded = dataclasses.replace(encoded, splits={"train": windows})
    return encoded, choose_token_ops(subject, encoded), ()


def choose_token_ops(subject: Subject, encoded: Dataset) -> tuple[Op, ...]:
    """Those of a run; what hides tokens for a published model that guesses them."""
    if subject.recipe is not None:
        return subject.recipe.ops
    return parse_ops(getattr(TASKS.get(subject.task.name), "hides", ""), encoded, "data")


def _tell_cut(encoded: Dataset, length: int) -> tuple[str, ...]:
    sizes = find_sizes(encoded.splits["train"])
    if sizes is None:
        return ()
    full = int((sizes >= length).sum())
    return (f"{full:,} texts fill all {length:,} tokens: longer ones are cut",) if full else ()
