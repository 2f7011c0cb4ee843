"""From the columns of a table to the fields of examples: which is what, and what values mean.

`data.columns` says it (our field -> their column, for features a list of them); what it leaves open
is inferred where there is one plain answer, and said. Labels that are strings or whole numbers are
classes, decimals are values; a label of several columns or lists is several labels an example.
Columns of lists, and answers in a text, are read in zoo/data/tables/annotations.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import DataConfig, UserError, nearest
from zoo.data.image_folder import is_image, read_many
from zoo.data.sources import Dataset, Examples, Source
from zoo.data.splits import VALIDATION_NAMES, find_split, split_names
from zoo.data.tables.annotations import read_answers, read_choice, read_lists
from zoo.data.tables.cells import (
    Origin,
    Strings,
    Table,
    read_features,
    read_strings,
    to_list,
    to_number,
)
from zoo.data.tables.labels import Labels, fit_labels
from zoo.data.token_file import LISTS

TEXT_FIELDS = (
    "text", "text_pair", "source", "target", "prompt", "completion", "question", "context",
)  # fmt: skip
ANSWERS = ("answers", "answer", "answer_start")
FIELDS = ("image", "features", "label", "value", *TEXT_FIELDS, *LISTS, "tags", *ANSWERS)
KEEP = "keep"  # in data.columns: columns that are no field, kept beside them (zoo eval --by)
# columns of these names, all there -> our fields, tried in this order
BY_NAME: tuple[dict[str, str], ...] = (
    {"source": "source", "target": "target"},
    {"prompt": "prompt", "completion": "completion"},
    {"words": "words", "tags": "tags"},
    {"words": "tokens", "tags": "tags"},
    {"words": "tokens", "tags": "ner_tags"},
    {"words": "words"},
    {"words": "tokens"},
    {"question": "question", "context": "context", "answers": "answers"},
    {
        "question": "question",
        "context": "context",
        "answer": "answer",
        "answer_start": "answer_start",
    },
    {"question": "question", "choices": "choices"},
    {"question": "prompt", "choices": "choices"},
    {"question": "text", "choices": "choices"},
    {"text": "premise", "text_pair": "hypothesis"},
    {"text": "sentence1", "text_pair": "sentence2"},
    {"text": "text", "text_pair": "text_pair"},
    {"text": "text"},
    {"text": "sentence"},
)
LABEL_COLUMNS = ("label", "labels", "y", "class", "category")
LOOK_AT = 1000  # rows that tell what a column holds


@dataclass(frozen=True)
class TableSource:
    """A split of a table: every field an array, Arrow strings, or files of images."""

    fields: Mapping[str, Any]
    origin: Origin
    kept: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # columns beside the fields

    def __len__(self) -> int:
        return int(self.origin.starts[-1])

    def take(self, indices: np.ndarray) -> Examples:
        indices = np.asarray(indices)
        return {name: values[indices] for name, values in self.fields.items()}

    def labels(self) -> np.ndarray | None:
        return self.fields.get("label")

    def name(self, index: int) -> str:
        return self.origin.name(index)

    def column(self, name: str) -> list[Any] | None:
        return to_list(self.kept[name]) if name in self.kept else None


@dataclass(frozen=True)
class ImageFiles:
    """Encoded images by the paths in a column, relative to the table's folder."""

    paths: Strings
    folder: str

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Bytes, or the OSError of a file that cannot be read: it is a broken image, and as the
        table's line is its name, the error names the file."""
        paths = [os.path.join(self.folder, path) for path in self.paths[indices]]
        contents = read_many(paths)
        for row, error in enumerate(contents):
            if isinstance(error, OSError):
                contents[row] = type(error)(error.errno, f"{paths[row]}: {error.strerror}")
        return contents


def make_dataset(
    name: str, tables: Mapping[str, Table], config: DataConfig, fingerprint: str = ""
) -> Dataset:
    """Splits of named fields from tables; the training split says what the columns mean.

    Raises UserError on a missing column, a value of another type, a label never seen in training.
    """
    training = [find_split(n, tables) for n in split_names(config.train_split)]
    first = tables[next((n for n in training if n is not None), next(iter(tables)))]
    if not len(first):
        raise UserError(f"{name}: {', '.join(first.origin.paths[:3])} has no rows")
    given = {k: v for k, v in config.columns.items() if k != KEEP}
    kept = tuple(config.columns.get(KEEP, ()))
    plan = find_columns(first.columns, lambda column: find_kind(first.columns[column]), given, name)
    for column in kept:
        if column not in first.columns:
            guess = nearest(column, first.columns)
            raise UserError(f"data.columns: {name} has no column {column!r}{guess}")
    for split, table in tables.items():
        for column in (*(c for columns in plan.values() for c in columns), *kept):
            if column not in table.columns:
                where = table.origin.paths[0] if table.origin.paths else name
                role = "val" if split in VALIDATION_NAMES else "test"
                raise UserError(
                    f"{where} has no column {column!r}{nearest(column, table.columns)}; to leave "
                    f"{split!r} out: data.{role}_split=''"
                )
    require_partners(plan, name)
    coder = None
    if plan.keys() & {"label", "value", "tags"} and "choices" not in plan:
        fitted = [tables[n] for n in dict.fromkeys(training) if n is not None] or [first]
        wanted = next(plan[field] for field in ("tags", "label", "value") if field in plan)
        coder = fit_labels(fitted, wanted, "value" in plan)
    splits: dict[str, Source] = {
        split: make_source(table, plan, coder, kept) for split, table in tables.items()
    }
    notes = describe(plan, first, splits, coder, given)
    names = coder.names if coder else None
    return Dataset(
        name,
        splits,
        None if names is None else len(names),
        names or (),
        fingerprint,
        notes=notes,
        columns={field: tuple(columns) for field, columns in plan.items()},
    )


def make_source(
    table: Table, plan: Mapping[str, Sequence[str]], coder: Labels | None, kept: Sequence[str] = ()
) -> TableSource:
    """The fields of one table, and some of its columns as they are."""
    fields: dict[str, Any] = {}
    for name, columns in plan.items():
        if name == "features":
            fields[name] = read_features(table, columns)
        elif name == "image":
            fields[name] = read_images(table, columns[0])
        elif name in TEXT_FIELDS:
            fields[name] = read_strings(table, columns[0])
        elif name in LISTS:
            fields[name] = read_lists(table, columns[0])
        elif name in ANSWERS:
            fields["answers"] = read_answers(table, plan)
    if "choices" in plan:
        fields["label"] = read_choice(table, plan["label"][0])
    elif "tags" in plan and coder is not None:
        fields["tags"] = coder.encode_tags(table)
    elif coder is not None:
        fields["label"] = coder.encode(table)
    return TableSource(fields, table.origin, {name: table.columns[name] for name in kept})


# field -> those without which it says nothing
PARTNERS = {
    "words": ("tags",),
    "tags": ("words",),
    "choices": ("question", "label"),
    "context": ("question", "answers"),
    "answers": ("question", "context"),
    "answer": ("answer_start",),
    "answer_start": ("answer",),
}


def require_partners(plan: Collection[str], name: str) -> None:
    """Raises UserError on a field whose partner has no column."""
    there = {*plan, *(("answers",) if "answer" in plan else ())}
    for field in plan:
        for partner in PARTNERS.get(field, ()):
            if partner not in there:
                raise UserError(
                    f"{name}: {field!r} needs {partner!r} beside it: set data.columns, e.g. "
                    f"{{{partner!r}: 'COLUMN'}}"
                )


def find_columns(
    columns: Collection[str], kind_of: Callable[[str], str], given: Mapping[str, Any], name: str
) -> dict[str, list[str]]:
    """Our field -> their columns, as given or inferred; `kind_of` tells what a column holds.

    Raises UserError on an unknown field, a missing column, or where there is no one answer.
    """
    plan: dict[str, list[str]] = {}
    for field, wanted in given.items():
        if field not in FIELDS:
            raise UserError(f"data.columns: no field {field!r}{nearest(field, FIELDS)}")
        plan[field] = [wanted] if isinstance(wanted, str) else list(wanted)
        if not plan[field] or (len(plan[field]) > 1 and field not in ("features", "label")):
            raise UserError(f"data.columns: {field!r} is of one column, not {wanted!r}")
        for column in plan[field]:
            if column not in columns:
                raise UserError(
                    f"data.columns: {name} has no column {column!r}{nearest(str(column), columns)}"
                )
    if "label" in plan and "value" in plan:
        raise UserError("data.columns: 'label' is classes and 'value' a number: name one of them")
    used = {column for wanted in plan.values() for column in wanted}
    free = [column for column in columns if column not in used]
    label = next((c for c in LABEL_COLUMNS if c in free), None)
    if label and not {"label", "value", "target", "completion", "tags"} & plan.keys():
        plan["label"] = [label]
        free.remove(label)
    if plan.keys() <= {"label", "value", "tags"}:
        inputs = {c: kind_of(c) for c in free if c not in LABEL_COLUMNS}
        plan = {**_find_inputs(inputs, name), **plan}
    if "words" in plan and "label" in plan:
        plan.setdefault("tags", plan["label"])
    if "choices" in plan and "label" not in plan and "answer" in free:
        plan["label"] = ["answer"]
    # The answer of a question is no class, whatever column is called so.
    spare = "label" if {"words", "answers", "answer"} & plan.keys() else ""
    return {field: wanted for field, wanted in plan.items() if field != spare}


def _find_inputs(kinds: Mapping[str, str], name: str) -> dict[str, list[str]]:
    """Fields of the columns that are no label, by their names, then by what they hold."""
    of = {kind: [c for c in kinds if kinds[c] == kind] for kind in ("image", "text", "numbers")}
    images = [c for c in of["image"] if c == "image"] or of["image"]
    named = next((names for names in BY_NAME if _are_there(names, kinds)), None)
    if named and not images:
        return {field: [column] for field, column in named.items()}
    if len(images) == 1 and not named:
        return {"image": images}
    if not images and len(of["text"]) == 1:
        return {"text": of["text"]}
    if not images and not of["text"] and of["numbers"]:
        return {"features": of["numbers"]}
    shown = ", ".join(f"{c} ({kinds[c]})" for c in list(kinds)[:12]) or "none beside the label"
    raise UserError(
        f"{name}: cannot tell which columns are the input ({shown}): set data.columns, "
        "e.g. {'text': 'COLUMN'} or {'features': ['A', 'B']}"
    )


def _are_there(names: Mapping[str, str], kinds: Mapping[str, str]) -> bool:
    """Are all of these columns there, words as lists of texts?"""
    return all(
        column in kinds and (field != "words" or kinds[column] == "strings")
        for field, column in names.items()
    )


def find_kind(values: Any) -> str:
    """'numbers', 'text', 'strings' (lists of them), 'image' or 'other', by most of the first
    rows."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return "image" if values.ndim > 2 else "numbers"
    sample = [v for v in to_list(values[:LOOK_AT]) if v is not None and v != ""]
    if not sample:
        return "other"

    def most(test: Any) -> bool:
        return sum(map(test, sample)) * 2 >= len(sample)

    if most(lambda v: isinstance(v, bytes) or (isinstance(v, dict) and "bytes" in v)):
        return "image"
    if most(lambda v: isinstance(v, str) and is_image(v)):
        return "image"
    if most(lambda v: to_number(v) is not None):
        return "numbers"
    if most(lambda v: isinstance(v, list) and v != [] and all(to_number(x) is not None for x in v)):
        return "numbers"
    if most(lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v)):
        return "strings"
    return "text" if most(lambda v: isinstance(v, str)) else "other"


def read_images(table: Table, column: str) -> Any:
    """Arrays `[n, y, x, ch]`, encoded bytes, or the files that a column names."""
    import pyarrow as pa

    values = table.columns[column]
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        if values.dtype != np.uint8 or values.ndim not in (3, 4):
            raise UserError(
                f"{table.origin.paths[0]}: images are [n, y, x(, ch)] uint8, {column!r} is "
                f"{list(values.shape)} {values.dtype}"
            )
        return values if values.ndim == 4 else values[..., None]
    if isinstance(values, pa.ChunkedArray) and pa.types.is_struct(values.type):
        encoded = pa.chunked_array([chunk.field("bytes") for chunk in values.chunks])
        if not encoded.null_count:
            values = encoded
        else:  # {"bytes": None, "path": ...}
            values = pa.chunked_array([chunk.field("path") for chunk in values.chunks])
    if isinstance(values, pa.ChunkedArray) and (
        pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    ):
        if values.null_count:
            row = int(np.flatnonzero(values.is_null().to_numpy())[0])
            raise UserError(f"{table.origin.name(row)}: column {column!r} is missing")
        return Strings(values.cast(pa.large_binary()))
    paths = read_strings(Table({column: values}, table.origin), column)
    folder = os.path.dirname(table.origin.paths[0]) if table.origin.paths else ""
    files = ImageFiles(paths, folder)
    first = files[np.arange(1)][0]  # a wrong folder is found now
    if isinstance(first, OSError):
        raise UserError(f"{table.origin.name(0)}: cannot read image {first.strerror}")
    return files


def describe(
    plan: Mapping[str, Sequence[str]],
    table: Table,
    splits: Mapping[str, Source],
    coder: Labels | None,
    given: Collection[str],
) -> tuple[str, ...]:
    """A line for what was inferred of columns, one for classes."""
    lines = []
    shown = "; ".join(f"{field}: {_shorten(columns)}" for field, columns in plan.items())
    used = {column for columns in plan.values() for column in columns}
    unused = [str(column) for column in table.columns if column not in used]
    rest = f"; not used: {_shorten(unused)}" if unused else ""
    if set(plan) - set(given) or unused:
        lines.append(f"columns: {shown}{rest}")
    if coder is not None:
        lines.append(coder.describe("tags" if "tags" in plan else "label"))
    return tuple(lines)


def _shorten(words: Iterable[str], most: int = 8) -> str:
    """'a, b, c', of many only the first and how many there are."""
    words = list(words)
    rest = f", ... ({len(words)})" if len(words) > most else ""
    return ", ".join(words[:most]) + rest
