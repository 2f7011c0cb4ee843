"""What a user gives, one by one: pictures, texts and pairs, rows of tables, by name.

A file's kind is told by its ending. A folder stands for the files in it (of pictures also for those
in its folders). A table (CSV, TSV, JSONL, Parquet, NPZ) gives a row an input.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.config import DataError, UserError, nearest
from zoo.data.image_folder import SUFFIXES as IMAGE_SUFFIXES
from zoo.data.image_folder import is_image, list_images
from zoo.data.tables import SUFFIXES as TABLE_SUFFIXES
from zoo.data.tables import read_files
from zoo.data.tables.annotations import read_lists
from zoo.data.tables.cells import Table, read_features
from zoo.data.tables.columns import (
    find_columns,
    find_kind,
    read_images,
    read_strings,
)
from zoo.data.tables.readers import read_lines
from zoo.use.batches import Item

Takes = Literal["image", "text", "features"]
SHOWN = {"image": "images", "text": "texts", "features": "rows of numbers"}
TEXT_SUFFIXES = (".txt", ".text")
PAIRS = (  # columns of a table, keys of a dict
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "context"),
    ("question", "sentence"),
    ("question1", "question2"),
)


@dataclass(frozen=True)
class Wanted:
    """What a model takes: `columns` of a table where its run knew them, `width` numbers a row, and
    of texts whether they must be pairs or must not (None: both will do)."""

    takes: Takes
    name: str  # of the source, for a person
    columns: tuple[str, ...] = ()
    width: int = 0
    pairs: bool | None = None


def collect_items(inputs: Any, wanted: Wanted) -> list[Item]:
    """The inputs, named; those of a file that cannot be read are one item, which says why.

    Raises UserError on a file that is not there, a folder without any, and what is of another kind.
    """
    items: list[Item] = []
    for number, content in enumerate(_as_sequence(inputs, wanted.takes)):
        is_path = isinstance(content, os.PathLike) or (
            isinstance(content, str) and wanted.takes != "text"
        )
        if is_path:
            for path in list_files(os.path.expanduser(os.fspath(content)), wanted):
                items += read_path(path, wanted)
        else:
            made = check_content(content, number, wanted)
            items.append(Item(name_of(made, number), made))
    if not items:
        raise UserError(f"no inputs: {wanted.name} takes {SHOWN[wanted.takes]}")
    for item in items:
        if item.problem is None and wanted.pairs is isinstance(item.content, str):
            told = "pairs of texts (of a question and its context)" if wanted.pairs else "no pairs"
            raise UserError(f"{item.shown}: {wanted.name} takes {told}")
    return items


def name_of(content: Any, number: int) -> str:
    """A text is its own name."""
    if isinstance(content, str):
        return str(content)
    return " | ".join(content) if isinstance(content, tuple) else f"input {number}"


def collect_for_towers(inputs: Any, towers: Mapping[str, Wanted]) -> list[Item]:
    """The inputs of a model that takes images and texts: strings are texts, files go by their
    endings (a folder by what is in it), all else is an image. Raises UserError as above."""
    items: list[Item] = []
    for content in _as_sequence(inputs, "text"):
        path = os.path.expanduser(os.fspath(content)) if isinstance(content, os.PathLike) else ""
        is_text = isinstance(content, str) or (
            bool(path) and not os.path.isdir(path) and kind_of_file(path) in ("text", "table")
        )
        takes = "text" if is_text else "image"
        for item in collect_items([content], towers[takes]):
            name = item.name if path or is_text else f"input {len(items)}"
            items.append(dataclasses.replace(item, name=name, takes=takes))
    if not items:
        raise UserError(f"no inputs: {towers['image'].name} takes images and texts")
    return items


def _as_sequence(inputs: Any, takes: Takes) -> Iterable[Any]:
    """One input by itself is a list of one."""
    if isinstance(inputs, np.ndarray) or hasattr(inputs, "__array__"):
        single = np.ndim(inputs) == 1 and takes == "features"
        if takes == "image":
            shape = np.shape(inputs)
            single = len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3, 4))
        return [inputs] if single else inputs
    if isinstance(inputs, str | bytes | os.PathLike | Mapping) or not isinstance(inputs, Iterable):
        return [inputs]
    if isinstance(inputs, tuple) and len(inputs) == 2 and all(isinstance(x, str) for x in inputs):
        return [inputs] if takes == "text" else inputs
    return inputs


def check_content(content: Any, number: int, wanted: Wanted) -> Any:
    """An input that is no file, in the form that goes on. Raises UserError on one of another
    kind."""
    name = f"input {number}"
    if wanted.takes == "image":
        if isinstance(content, Mapping | tuple | list) or content is None:
            raise UserError(
                f"{name}: {wanted.name} takes images, not {type(content).__name__}: give a file, "
                "an array [y, x, ch] of bytes or an image of Pillow"
            )
        return content
    if wanted.takes == "text":
        return _to_text(content, name, wanted)
    return _to_row(content, name, wanted)


def _to_text(content: Any, name: str, wanted: Wanted) -> Any:
    if isinstance(content, Mapping):
        for first, second in PAIRS:
            if first in content and second in content:
                content = (content[first], content[second])
                break
        else:
            content = content.get("text")
    if isinstance(content, list) and len(content) == 2:
        content = tuple(content)
    parts = content if isinstance(content, tuple) else (content,)
    if len(parts) > 2 or not all(isinstance(part, str) for part in parts):
        raise UserError(
            f"{name}: {wanted.name} takes texts, not {type(content).__name__}: give a string, a "
            "pair of them, or a pathlib.Path of a file of texts"
        )
    return content


def _to_row(content: Any, name: str, wanted: Wanted) -> np.ndarray:
    """Numbers `[d]`, of a table of them by the names of the columns."""
    if isinstance(content, Mapping):
        if not wanted.columns:
            raise UserError(
                f"{name}: {wanted.name} knows no columns by name: give a row of {wanted.width} "
                "numbers"
            )
        check_columns(content, wanted.columns, name)
        content = np.concatenate([np.ravel(content[c]) for c in wanted.columns])
    try:
        row = np.asarray(content, np.float32)
    except (ValueError, TypeError):
        raise UserError(f"{name}: {wanted.name} takes rows of numbers") from None
    check_width(row.shape, name, wanted)
    return row


def check_width(shape: Sequence[int], name: str, wanted: Wanted) -> None:
    """Raises DataError on a row of another length."""
    if tuple(shape) != (wanted.width,):
        which = f" ({', '.join(wanted.columns)})" if wanted.columns else ""
        found = shape[0] if len(shape) == 1 else f"an array {list(shape)}"
        raise DataError(f"{name}: {found} numbers, {wanted.name} takes {wanted.width}{which}")


def check_columns(there: Iterable[Any], columns: Sequence[str], place: str) -> None:
    """Raises DataError on a column that is missing."""
    names = [str(name) for name in there]
    for column in columns:
        if column not in names:
            raise DataError(f"{place} has no column {column!r}{nearest(column, names)}")


def list_files(path: str, wanted: Wanted) -> list[str]:
    """A file, or those of a folder. Raises UserError where there is none, or none of the kind."""
    require_file(path)
    if os.path.isdir(path):
        return _list_folder(path, wanted)
    kind = kind_of_file(path)
    if kind not in ("table", wanted.takes) and (kind != "" or wanted.takes != "image"):
        shown = {"image": "is an image", "text": "is text", "": "has no ending that is known"}[kind]
        endings = f" ({', '.join(list_endings(wanted.takes))})"
        raise UserError(f"{path} {shown}, {wanted.name} takes {SHOWN[wanted.takes]}{endings}")
    return [path]


def require_file(path: str) -> None:
    """Raises UserError, with the nearest name, where there is no such file or folder."""
    if not os.path.exists(path):
        folder = os.path.dirname(path) or "."
        there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        raise UserError(f"no such file: {path}{nearest(os.path.basename(path), there)}")


def _list_folder(path: str, wanted: Wanted) -> list[str]:
    if wanted.takes == "image":
        found = [os.path.join(path, name) for name, _ in list_images(path)]
    else:
        kinds = ("table", "text") if wanted.takes == "text" else ("table",)
        files = sorted(p for p in Path(path).iterdir() if p.is_file() and p.name[0] != ".")
        found = [str(p) for p in files if kind_of_file(p.name) in kinds]
    if not found:
        endings = ", ".join(list_endings(wanted.takes))
        raise UserError(f"the folder {path} holds no file of {SHOWN[wanted.takes]} ({endings})")
    return found


def list_endings(takes: Takes) -> list[str]:
    """Of the files that hold such inputs."""
    tables = [suffixes[0] for suffixes in TABLE_SUFFIXES.values()]
    if takes == "image":
        return [*IMAGE_SUFFIXES]
    return [*(TEXT_SUFFIXES[:1] if takes == "text" else ()), *tables]


def kind_of_file(path: str) -> Literal["image", "text", "table", ""]:
    """By the ending alone."""
    if is_image(path):
        return "image"
    if path.lower().endswith(TEXT_SUFFIXES):
        return "text"
    return "table" if table_kind(path) else ""


def table_kind(path: str) -> str | None:
    """'csv', 'jsonl', ... by the ending."""
    kinds = (k for k, suffixes in TABLE_SUFFIXES.items() if path.lower().endswith(suffixes))
    return next(kinds, None)


def read_path(path: str, wanted: Wanted) -> Iterator[Item]:
    """The inputs in a file; one that says what is wrong where it cannot be read."""
    kind = kind_of_file(path)
    if kind != "table" and wanted.takes == "image":
        yield Item(path, path, file=True)  # opened when its turn comes
        return
    try:
        made = list(read_table(path, wanted) if kind == "table" else read_text(path))
    except UserError as error:
        made = [Item(path, problem=without_path(str(error), path), file=True)]
    yield from made or [Item(path, problem="it holds no inputs", file=True)]


def without_path(line: str, path: str) -> str:
    """'FILE:3: wrong' -> 'line 3: wrong', as the file is named beside it."""
    number, colon, rest = line.removeprefix(f"{path}:").partition(":")
    if line.startswith(f"{path}:") and colon and number.isdigit():
        return f"line {number}:{rest}"
    return line.removeprefix(f"{path}: ").removeprefix(f"{path} ")


def read_text(path: str) -> Iterator[Item]:
    """A text a line; lines without one are passed over."""
    for number, line in read_lines(path):
        if line.strip():
            yield Item(f"{path}:{number}", line.rstrip("\r\n"), file=True)


def read_table(path: str, wanted: Wanted) -> Iterator[Item]:
    """A row an input. Raises DataError, with the line, on what cannot be read."""
    table = read_files(str(table_kind(path)), [path])
    names = [table.origin.name(row) for row in range(len(table))]
    if wanted.takes == "features":
        columns = wanted.columns or _guess(table, path, wanted)
        check_columns(table.columns, columns, path)
        features = read_features(table, columns)
        check_width(features.shape[1:], path, wanted)
        yield from map(Item, names, features)
    elif wanted.takes == "image":
        column = (wanted.columns or _guess(table, path, wanted))[0]
        check_columns(table.columns, [column], path)
        images = read_images(table, column)
        for row, name in enumerate(names):
            content = images[np.array([row])][0]
            yield Item(name, content, file=True)
    else:
        columns = wanted.columns or _guess(table, path, wanted)
        check_columns(table.columns, columns, path)
        every = np.arange(len(table))
        texts = [read_column(table, column)[every].tolist() for column in columns]
        pairs = zip(*texts, strict=True)
        for name, content in zip(names, texts[0] if len(texts) == 1 else pairs, strict=True):
            yield Item(name, content, file=True)


def read_column(table: Table, column: str) -> Any:
    """Texts of a column; of lists of words each list as one, blanks between them."""
    if find_kind(table.columns[column]) != "strings":
        return read_strings(table, column)
    words = read_lists(table, column)[np.arange(len(table))]
    return np.fromiter((" ".join(row) for row in words), object, len(words))


def _guess(table: Table, path: str, wanted: Wanted) -> Sequence[str]:
    """The columns of the input in a table that nobody described."""
    names = list(table.columns)
    if wanted.takes == "text":
        pair = next((pair for pair in PAIRS if set(pair) <= set(names)), None)
        if pair:
            return pair
    try:
        plan = find_columns(names, lambda column: find_kind(table.columns[column]), {}, path)
    except UserError:
        plan = {}
    if wanted.takes not in plan:
        called = {"text": "text (and text_pair)", "image": "image", "features": "features"}
        raise DataError(
            f"{path}: cannot tell which column is the input ({', '.join(names[:12])}): call it "
            f"{called[wanted.takes]}"
        )
    return [column for field in (wanted.takes, "text_pair") for column in plan.get(field, ())]
