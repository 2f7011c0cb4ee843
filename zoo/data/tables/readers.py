"""One file of a table: CSV, TSV, JSONL, Parquet or NPZ, and what is wrong with it, by its line.

Each raises DataError, in one line, on what it cannot read.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import DataError
from zoo.data.tables.cells import Origin, Table


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines of a UTF-8 file, a byte order mark left out.

    Raises UserError, with the line, on another encoding or a broken archive.
    """
    try:
        with open_binary(path) as stream:
            for number, raw in enumerate(stream, 1):
                if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{path}:1: not UTF-8 but UTF-16: convert the file")
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, raw.decode()
                except UnicodeDecodeError as error:
                    before = ", the lines before it are" if number > 1 else ""
                    raise DataError(
                        f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x} at place "
                        f"{error.start + 1}){before}: convert the file"
                    ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def open_binary(path: str) -> Any:
    """A file of bytes, unpacked where it is a .gz."""
    return gzip.open(path) if path.endswith(".gz") else open(path, "rb")


def read_csv(path: str) -> Table:
    """A header, then a row an example; commas, semicolons, tabs or bars between values."""
    header = next((text for _, text in read_lines(path)), "")
    found = {d: header.count(d) for d in ",;\t|"}
    delimiter = "," if found[","] or not any(found.values()) else max(found, key=found.__getitem__)
    return _read_rows(path, delimiter, csv.QUOTE_MINIMAL)


def read_tsv(path: str) -> Table:
    """A header, then a row an example; tabs between values, no quotes."""
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
                    raise DataError(
                        f"{path}:{reader.line_num}: {len(row)} values, the header has {len(header)}"
                    )
                rows.append(row)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: {error}") from None
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
        raise DataError(f"{path} is empty")
    names = [name.strip() for name in header]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{path}:1: the header names column {twice[0]!r} twice")
    numbers = [re.fullmatch(r"-?\d+(\.\d+)?([eE]-?\d+)?", n) for n in names]
    if all(numbers):
        raise DataError(f"{path}:1: no header: the first line is numbers, not names of columns")


def read_jsonl(path: str) -> Table:
    """A JSON object a line."""
    rows, lines = [], []
    for number, text in read_lines(path):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}:{number}: bad JSON: {error}") from None
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DataError(f"{path}:{number}: a JSON {kind}, not an object: one a line is needed")
        rows.append(row)
        lines.append(number)
    if not rows:
        raise DataError(f"{path} is empty")
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
                raise DataError(f"cannot read {path}, column {name!r}: {line}") from None
        try:
            return pa.chunked_array([chunk for part in parts for chunk in part.chunks] or parts[0])
        except (pa.ArrowInvalid, TypeError):
            kinds = [f"{p}: {c.type}" for p, c in zip(self.paths, parts, strict=True)]
            raise DataError(f"column {name!r} differs in type: {', '.join(kinds[:3])}") from None


def read_parquet(paths: list[str]) -> Table:
    """Files of the same columns, of which only those asked for are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes, names = [0], None
    for path in paths:
        try:
            head = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
        with head:
            found = tuple(head.schema_arrow.names)
            names = found if names is None else names
            for column in set(names) ^ set(found):
                raise DataError(f"{paths[0]} and {path} differ in column {column!r}")
            sizes.append(head.metadata.num_rows)
    columns = _ParquetColumns(tuple(paths), names or ())
    return Table(columns, Origin(tuple(paths), np.cumsum(sizes), None))


def read_npz(path: str) -> Table:
    """Named arrays, not yet measured."""
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"cannot read {path}: it is no .npz, a zip file of named arrays")
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise DataError(f"{path}: {name!r} is no array")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not arrays:
        raise DataError(f"{path} is empty")
    return Table(arrays, Origin((path,), np.array([0, 0]), None))


def measure_arrays(table: Table) -> Table:
    """The same arrays with their size known. Raises DataError where they differ in length."""
    sizes = {name: len(array) if array.ndim else 0 for name, array in table.columns.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{table.origin.paths[0]}: arrays differ in length: {sizes}")
    origin = Origin(table.origin.paths, np.array([0, next(iter(sizes.values()))]), None)
    return Table(table.columns, origin)
