"""Tables in files: CSV, TSV, JSONL, Parquet and NPZ, each with the same fields and mistakes.

`csv:PATH` names a file, a shell pattern of files (all of them 'train', or of the splits in their
column `split`), or a folder whose files are named by split (`train.csv`, `dev.csv`,
`train-00000-of-00002.parquet`). Which column is what is decided in zoo/data/tables/columns.py.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import glob
import gzip
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import DataConfig, UserError, nearest
from zoo.data.sources import Dataset
from zoo.data.splits import VALIDATION_NAMES, choose_names
from zoo.data.tables.cells import Origin, Table, to_list
from zoo.data.tables.columns import make_dataset

_SHARD = re.compile(r"(.+?)-\d+-of-\d+.*")  # train-00000-of-00002
WHOLE = 2**30  # a file of more bytes is known by its size, its beginning and its end
EDGE = 2**26


def open_csv(name: str, config: DataConfig) -> Dataset:
    """`csv:PATH`: a header, then a row an example; quoted as RFC 4180 says."""
    return open_tables("csv", name, config)


def open_tsv(name: str, config: DataConfig) -> Dataset:
    """`tsv:PATH`: values between tabs, a quote is a letter like any other."""
    return open_tables("tsv", name, config)


def open_jsonl(name: str, config: DataConfig) -> Dataset:
    """`jsonl:PATH`: a JSON object a line."""
    return open_tables("jsonl", name, config)


def open_parquet(name: str, config: DataConfig) -> Dataset:
    """`parquet:PATH`: only the columns that are used are read."""
    return open_tables("parquet", name, config)


def open_npz(name: str, config: DataConfig) -> Dataset:
    """`npz:PATH`: arrays with a leading axis of examples; `x_train`, `y_test` name their split."""
    return open_tables("npz", name, config)


def open_tables(kind: str, name: str, config: DataConfig) -> Dataset:
    """The splits that the config asks for, read and their columns found.

    Raises UserError, with file and line, on whatever cannot be read.
    """
    files = find_files(kind, name)
    if list(files) == ["train"]:
        if kind == "npz":
            tables = split_arrays([_read_npz(path) for path in files["train"]])
        else:
            tables = split_rows(read_files(kind, files["train"]), config.columns)
        chosen = choose_names(config, tables, f"{kind}:{name}")
        tables = {split: tables[split] for split in chosen}
    else:
        chosen = choose_names(config, files, f"{kind}:{name}")
        tables = {split: read_files(kind, files[split]) for split in chosen}
    digest = hashlib.sha256()
    for split in sorted(set(chosen) & set(files)) or ["train"]:
        for path in files[split]:
            digest.update(f"{split}:{hash_file(path)}".encode())
    return make_dataset(f"{kind}:{name}", tables, config, digest.hexdigest())


SUFFIXES = {
    "csv": (".csv", ".csv.gz"),
    "tsv": (".tsv", ".tsv.gz", ".tab"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
    "npz": (".npz",),
}


def find_files(kind: str, name: str) -> dict[str, list[str]]:
    """Split -> its files, sorted. Raises UserError when there is none."""
    source, pattern = f"data.source='{kind}:{name}'", os.path.expanduser(name)
    if not name:
        raise UserError(f"{source}: name a file, a pattern of files or a folder")
    if not os.path.isdir(pattern):
        paths = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
        if os.path.isfile(pattern):
            paths = [pattern]
        if not paths:
            folder = os.path.dirname(pattern) or "."
            there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            guess = nearest(os.path.basename(pattern), there) if there else ""
            raise UserError(f"{source}: no such file{guess}")
        return {"train": paths}
    files: dict[str, list[str]] = {}
    for path in sorted(Path(pattern).iterdir()):
        suffix = next((s for s in SUFFIXES[kind] if path.name.endswith(s)), None)
        if suffix is None or path.name.startswith("."):
            continue
        stem = path.name.removesuffix(suffix)
        shard = _SHARD.fullmatch(stem)
        files.setdefault(shard[1] if shard else stem, []).append(str(path))
    if not files:
        endings = ", ".join(f"*{s}" for s in SUFFIXES[kind])
        raise UserError(f"{source}: the folder has no file {endings}")
    return files


def hash_file(path: str) -> str:
    """sha256 of a file; of more than 1 GiB only of its size, beginning and end."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(f"{size}:".encode())
    with open(path, "rb") as stream:
        while chunk := stream.read(EDGE):
            digest.update(chunk)
            if size > WHOLE and stream.tell() < size:
                stream.seek(max(size - EDGE, stream.tell()))
    return digest.hexdigest()


def read_files(kind: str, paths: list[str]) -> Table:
    """All files of a split as one table; they must have the same columns."""
    if kind == "parquet":
        return _read_parquet(paths)
    if kind == "npz":
        parts = [_measure(_read_npz(path)) for path in paths]
    else:
        read = {"csv": _read_csv, "tsv": _read_tsv, "jsonl": _read_jsonl}[kind]
        parts = [read(path) for path in paths]
    return join_tables(parts)


def join_tables(tables: list[Table]) -> Table:
    """One table after another. Raises UserError when a column is missing in one of them."""
    first = tables[0]
    for table in tables[1:]:
        for a, b in ((first, table), (table, first)):
            for column in a.columns:
                if column not in b.columns:
                    raise UserError(
                        f"{b.origin.paths[0]} has no column {column!r}, which "
                        f"{a.origin.paths[0]} has{nearest(column, b.columns)}"
                    )
    if len(tables) == 1:
        return first
    columns = {
        name: np.concatenate([t.columns[name] for t in tables])
        if isinstance(first.columns[name], np.ndarray)
        else [value for t in tables for value in t.columns[name]]
        for name in first.columns
    }
    sizes = [len(t) for t in tables]
    lines = [t.origin.lines for t in tables]
    return Table(
        columns,
        Origin(
            tuple(t.origin.paths[0] for t in tables),
            np.cumsum([0, *sizes]),
            None if lines[0] is None else np.concatenate(lines),  # type: ignore[arg-type]
        ),
    )


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines of a UTF-8 file, a byte order mark left out.

    Raises UserError, with the line, on another encoding or a broken archive.
    """
    try:
        with open_binary(path) as stream:
            for number, raw in enumerate(stream, 1):
                if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise UserError(f"{path}:1: not UTF-8 but UTF-16: convert the file")
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, raw.decode()
                except UnicodeDecodeError as error:
                    before = ", the lines before it are" if number > 1 else ""
                    raise UserError(
                        f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x} at place "
                        f"{error.start + 1}){before}: convert the file"
                    ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def open_binary(path: str) -> Any:
    """A file of bytes, unpacked where it is a .gz."""
    return gzip.open(path) if path.endswith(".gz") else open(path, "rb")


def _read_csv(path: str) -> Table:
    header = next((text for _, text in read_lines(path)), "")
    found = {d: header.count(d) for d in ",;\t|"}
    delimiter = "," if found[","] or not any(found.values()) else max(found, key=found.__getitem__)
    return _read_rows(path, delimiter, csv.QUOTE_MINIMAL)


def _read_tsv(path: str) -> Table:
    return _read_rows(path, "\t", csv.QUOTE_NONE)


def _read_rows(path: str, delimiter: str, quoting: Any) -> Table:
    """Columns of strings under a header."""
    with _long_fields():
        texts = (text for _, text in read_lines(path))
        reader = csv.reader(texts, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            header = next(reader, [])
            _check_header(path, header)
            rows, lines = [], []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(
                        f"{path}:{reader.line_num}: {len(row)} values, the header has {len(header)}"
                    )
                rows.append(row)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: {error}") from None
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    origin = Origin((path,), np.array([0, len(rows)]), np.array(lines, np.int64))
    names = [name.strip() for name in header]
    return Table({n: list(c) for n, c in zip(names, columns, strict=True)}, origin)


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """A document may be one value of a table."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(path: str, header: list[str]) -> None:
    """Raises UserError when the first line is missing, names a column twice, or is numbers."""
    if not any(header):
        raise UserError(f"{path} is empty")
    names = [name.strip() for name in header]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UserError(f"{path}:1: the header names column {twice[0]!r} twice")
    numbers = [re.fullmatch(r"-?\d+(\.\d+)?([eE]-?\d+)?", n) for n in names]
    if all(numbers):
        raise UserError(f"{path}:1: no header: the first line is numbers, not names of columns")


def _read_jsonl(path: str) -> Table:
    rows, lines = [], []
    for number, text in read_lines(path):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}:{number}: bad JSON: {error}") from None
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise UserError(f"{path}:{number}: a JSON {kind}, not an object: one a line is needed")
        rows.append(row)
        lines.append(number)
    if not rows:
        raise UserError(f"{path} is empty")
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
    return Table(columns, Origin((path,), np.array([0, len(rows)]), np.array(lines, np.int64)))


@dataclass(frozen=True)
class _ParquetColumns(Mapping[str, Any]):
    """The columns of some Parquet files, each read when it is asked for."""

    paths: tuple[str, ...]
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names  # without reading it

    def __getitem__(self, name: str) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = []
        for path in self.paths:
            try:
                parts.append(pq.read_table(path, columns=[name]).column(name))
            except (OSError, ValueError) as error:  # Arrow's own are both
                line = str(error).splitlines()[0]
                raise UserError(f"cannot read {path}, column {name!r}: {line}") from None
        try:
            return pa.chunked_array([chunk for part in parts for chunk in part.chunks] or parts[0])
        except (pa.ArrowInvalid, TypeError):
            kinds = [f"{p}: {c.type}" for p, c in zip(self.paths, parts, strict=True)]
            raise UserError(f"column {name!r} differs in type: {', '.join(kinds[:3])}") from None


def _read_parquet(paths: list[str]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes, names = [0], None
    for path in paths:
        try:
            head = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
        with head:
            found = tuple(head.schema_arrow.names)
            names = found if names is None else names
            for column in set(names) ^ set(found):
                raise UserError(f"{paths[0]} and {path} differ in column {column!r}")
            sizes.append(head.metadata.num_rows)
    columns = _ParquetColumns(tuple(paths), names or ())
    return Table(columns, Origin(tuple(paths), np.cumsum(sizes), None))


def _read_npz(path: str) -> Table:
    try:
        if not zipfile.is_zipfile(path):
            raise UserError(f"cannot read {path}: it is no .npz, a zip file of named arrays")
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise UserError(f"{path}: {name!r} is no array")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not arrays:
        raise UserError(f"{path} is empty")
    return Table(arrays, Origin((path,), np.array([0, 0]), None))


def split_rows(table: Table, columns: Mapping[str, Any]) -> dict[str, Table]:
    """The rows of each split that a column `split` names, unless `columns` makes that a field.

    Raises UserError, with the line, on a word that is no split.
    """
    if "split" not in table.columns or "split" in _flatten(columns.values()):
        return {"train": table}
    words = to_list(table.columns["split"])
    known = ("train", *VALIDATION_NAMES, "test")
    rows: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        if word not in known:
            raise UserError(
                f"{table.origin.name(row)}: column 'split' says {word!r}"
                f"{nearest(str(word), known)}; if it is no split, set data.columns"
            )
        rows.setdefault(word, []).append(row)
    rest = Table({k: v for k, v in table.columns.items() if k != "split"}, table.origin)
    rest = dataclasses.replace(rest, class_names=table.class_names)
    return {split: rest.select(np.array(mine)) for split, mine in rows.items()}


def _flatten(values: Iterable[Any]) -> list[str]:
    return [x for value in values for x in ([value] if isinstance(value, str) else value)]


def split_arrays(tables: list[Table]) -> dict[str, Table]:
    """Arrays `x_train`, `y_train`, `x_test`, ... of one file as splits; others are all 'train'."""
    endings = ("train", "val", "valid", "validation", "dev", "test")
    names = list(tables[0].columns)
    pairs = {name: name.rpartition("_") for name in names}
    if len(tables) > 1 or not all(p[0] and p[2] in endings for p in pairs.values()):
        return {"train": join_tables([_measure(t) for t in tables])}
    out: dict[str, dict[str, Any]] = {}
    for name, (field, _, split) in pairs.items():
        out.setdefault(split, {})[field] = tables[0].columns[name]
    return {split: _measure(Table(c, tables[0].origin)) for split, c in out.items()}


def _measure(table: Table) -> Table:
    """The same arrays with their size known. Raises UserError where they differ in length."""
    sizes = {name: len(array) if array.ndim else 0 for name, array in table.columns.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{table.origin.paths[0]}: arrays differ in length: {sizes}")
    origin = Origin(table.origin.paths, np.array([0, next(iter(sizes.values()))]), None)
    return Table(table.columns, origin)
