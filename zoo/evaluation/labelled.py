"""Data with classes for a model without a head for them: its splits, its inputs one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zoo.config import DataConfig, TaskConfig, UserError
from zoo.data import Dataset, Source, from_arrays
from zoo.data.sources import open_raw, read_labels
from zoo.data.splits import choose_splits
from zoo.data.text import find_text
from zoo.evaluation.examples import USUAL, Examples, choose, open_split, rename_keys
from zoo.evaluation.measure import Outputs
from zoo.evaluation.subject import Subject
from zoo.pretrained import Pretrained
from zoo.use.batches import Item
from zoo.use.inputs import SHOWN

CHUNK = 1024  # inputs read at a time


def open_labelled(
    loaded: Pretrained,
    data: Any,
    columns: Mapping[str, Any] | None,
    train_split: str | None,
    split: str | None,
) -> tuple[Dataset, str]:
    """The dataset with the splits 'train' and 'test' as asked for, and the name of the tested one.

    By default that is 'test', else 'val', and 'train' beside it. Raises UserError on a split that
    is not there, on two that share examples, and on data without classes.
    """
    recipe, name = loaded.card.recipe, loaded.card.source
    if data is None and (recipe is None or recipe.data.source == "arrays"):
        raise UserError(f"{name} is no run whose data is kept: give --data=SOURCE")
    try:
        if data is None:
            assert recipe is not None
            named = {**recipe.data.columns, **(columns or {})}
            dataset = open_raw(dataclasses.replace(recipe.data, columns=named))
        elif isinstance(data, str):
            parts = {"train_split": train_split or "train", "test_split": split}
            dataset = open_raw(DataConfig(source=data, columns=dict(columns or {}), **parts))  # type: ignore[arg-type]
            train_split, split = None, "test" if split else None
        else:
            dataset = data if isinstance(data, Dataset) else from_arrays(data, None, classes=True)
        tested = split or next((s for s in ("test", "val") if s in dataset.splits), None)
        if tested is None:
            raise UserError(
                f"{dataset.name} has no split to test on: name two, as --train_split='train[:80%]' "
                "and --split='train[80%:]'"
            )
        parts = {"train_split": train_split or "train", "test_split": tested, "val_split": ""}
        dataset = choose_splits(dataset, DataConfig(**parts))  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(rename_keys(str(error), "train_split")) from None
    require_classes(dataset)
    return dataset, tested


def open_tested(
    loaded: Pretrained, data: Any, columns: Mapping[str, Any] | None, split: str | None
) -> tuple[Dataset, str]:
    """The dataset, with the split asked for as its only one, 'train', and the name of that.

    By default the data is that of a run, and the split the first of 'test', 'val' and 'train' there
    is. Raises UserError as above.
    """
    recipe = loaded.card.recipe
    if data is None and (recipe is None or recipe.data.source == "arrays"):
        raise UserError(f"{loaded.card.source} is no run, which has data of its own: give --data")
    if data is None and recipe is not None:
        named = {**recipe.data.columns, **(columns or {})}
        data = open_raw(dataclasses.replace(recipe.data, columns=named))
    try:
        if isinstance(data, str):
            config = DataConfig(
                source=data, columns=dict(columns or {}), val_split="", test_split=""
            )
            dataset, spec = open_split(make_subject(loaded, ()), config, split)
            dataset = choose(dataset, "train")
        else:
            dataset = data if isinstance(data, Dataset) else from_arrays(data, None, classes=True)
            spec = split or next((name for name in USUAL if name in dataset.splits), "train")
            dataset = choose(dataset, spec)
    except UserError as error:
        raise UserError(rename_keys(str(error))) from None
    require_classes(dataset)
    return dataset, spec


def require_classes(dataset: Dataset) -> None:
    """Raises UserError on data without them."""
    if not dataset.num_classes or dataset.shapes.get("label") != ():
        raise UserError(f"{dataset.name} has no classes, one an example: nothing to tell apart")


def find_input(dataset: Dataset, takes: set[str], name: str) -> tuple[str, ...]:
    """The fields of the input. Raises UserError where the model takes none of the kind."""
    texts = find_text(dataset)
    fields = texts or tuple(f for f in ("image", "features") if f in dataset.shapes)[:1]
    kind = "text" if texts else fields[0] if fields else "none"
    if kind not in takes or (texts and texts[0] != "text"):
        wanted = " or ".join(SHOWN[kind] for kind in sorted(takes))  # type: ignore[index]
        raise UserError(f"{name} takes {wanted}; {dataset.name} has {', '.join(dataset.shapes)}")
    return fields


def read_items(source: Source, fields: tuple[str, ...], takes: str) -> Iterator[list[Item]]:
    """The inputs of a split, some at a time, named by their number."""
    for start in range(0, len(source), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(source)))
        found = source.take(rows)
        columns = [found[field] for field in fields]
        contents = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        yield [
            Item(f"example {row}", content, file=True, takes=takes)
            for row, content in zip(rows, contents, strict=True)
        ]


def need_labels(source: Source) -> np.ndarray:
    """The labels `[n]` of a split that has them."""
    labels = read_labels(source)
    assert labels is not None
    return np.asarray(labels)


def name_classes(dataset: Dataset) -> tuple[str, ...]:
    """The classes of the data; their numbers where they have no names."""
    return dataset.class_names or tuple(map(str, range(dataset.num_classes or 0)))


def make_subject(loaded: Pretrained, classes: tuple[str, ...]) -> Subject:
    """The source as one that tells these classes apart."""
    return Subject(loaded, TaskConfig("classification"), loaded.card.recipe, classes, True, True)


def make_examples(
    dataset: Dataset, source: Source, split: str, classes: tuple[str, ...], note: str
) -> Examples:
    """The tested split as slices, comparisons and the worst examples are made of."""
    alone = dataclasses.replace(dataset, splits={"train": source})
    return Examples(dataset.name, split, alone, source, alone, (), classes, (note,))


def make_outputs(
    logits: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, loss: bool
) -> Outputs:
    """Records of `logits` `[n, c]`; with `loss` the cross-entropy, where they are meant so."""
    records = {"logits": logits.astype(np.float32), "label": labels}
    if loss:
        logits = logits.astype(np.float64)
        highest = logits.max(axis=1)
        total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        records["loss"] = total - logits[np.arange(len(labels)), labels]
    return Outputs(records, rows, {}, len(labels))
