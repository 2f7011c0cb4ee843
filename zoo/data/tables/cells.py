"""The cells of a table: where each is from, and columns of them as arrays.

Every error names the file and the line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.config import DataError


@dataclass(frozen=True)
class Origin:
    """Which file and line each row of a table is from: `starts` are the first rows of the files and
    the end, `lines` the line numbers where the files have lines."""

    paths: tuple[str, ...]
    starts: np.ndarray
    lines: np.ndarray | None

    def name(self, row: int) -> str:
        """'train.csv:17', or 'train.parquet row 16'."""
        if not self.paths:
            return f"row {row}"
        file = int(np.searchsorted(self.starts[1:], row, side="right"))
        if self.lines is not None:
            return f"{self.paths[file]}:{self.lines[row]}"
        return f"{self.paths[file]} row {row - self.starts[file]}"

    def select(self, rows: np.ndarray) -> Origin:
        """Of some rows, in ascending order; where files have no lines, their rows count as such."""
        files = np.searchsorted(self.starts[1:], rows, side="right")
        lines = rows - self.starts[files] if self.lines is None else self.lines[rows]
        return Origin(self.paths, np.searchsorted(rows, self.starts), lines)


@dataclass(frozen=True)
class Table:
    """Columns by name: lists, arrays or Arrow's chunked arrays of equal length; `class_names` of
    columns that come with them."""

    columns: Mapping[str, Any]
    origin: Origin
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.origin.starts[-1])

    def select(self, rows: np.ndarray) -> Table:
        """Some rows, in ascending order."""
        columns = {
            name: [values[i] for i in rows]
            if isinstance(values, list)
            else values.take(rows)
            if hasattr(values, "chunks")  # Arrow's
            else values[rows]
            for name, values in self.columns.items()
        }
        return Table(columns, self.origin.select(rows), self.class_names)


@dataclass(frozen=True)
class Strings:
    """A column of strings, of bytes or of lists, kept by Arrow: compact, and mapped where a file
    is."""

    chunks: Any  # pyarrow.ChunkedArray

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.fromiter(self.chunks.take(indices).to_pylist(), object, len(indices))


def to_list(values: Any) -> list[Any]:
    """A column (or a part of one) as Python's own values."""
    if isinstance(values, np.ndarray):
        return values.tolist()
    return values.to_pylist() if hasattr(values, "to_pylist") else list(values)


def to_number(value: Any) -> float | None:
    """A finite number, also written as text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float | np.number) and math.isfinite(value):
        return float(value)
    return None


def read_features(table: Table, columns: Sequence[str]) -> np.ndarray:
    """`[n, d]` float32 of columns of numbers, or of lists of numbers.

    Raises UserError with the line of a value that is no finite number, and of a list of another
    length.
    """
    parts = []
    for column in columns:
        values = table.columns[column]
        if not isinstance(values, np.ndarray):
            values = to_list(values)
        try:
            if isinstance(values, list) and isinstance(next(iter(values), None), str):
                values = np.fromiter(map(float, values), np.float64, len(values))
            numbers = np.asarray(values, np.float64).astype(np.float32).reshape(len(table), -1)
        except (ValueError, TypeError):
            _refuse_numbers(to_list(values), column, table.origin)
            raise
        wrong = np.flatnonzero(~np.isfinite(numbers).all(1))
        if len(wrong):
            place = table.origin.name(int(wrong[0]))
            raise DataError(f"{place}: column {column!r} holds no finite number")
        parts.append(numbers)
    return np.concatenate(parts, axis=1)


def _refuse_numbers(values: list[Any], column: str, origin: Origin) -> None:
    """Raises UserError with the line of the first value that is no number, or no list like the
    first."""
    width = len(values[0]) if isinstance(values[0], list) else None
    for row, value in enumerate(values):
        items = value if isinstance(value, list) else [value]
        place = f"{origin.name(row)}: column {column!r} is"
        if isinstance(value, list) != (width is not None) or (width not in (None, len(items))):
            wanted = f"a list of {width} numbers" if width is not None else "a number"
            found = f"a list of {len(items)}" if isinstance(value, list) else describe_value(value)
            raise DataError(f"{place} {found}, not {wanted}")
        for item in items:
            if to_number(item) is None:
                raise DataError(f"{place} {describe_value(item)}, not a number")


def read_strings(table: Table, column: str) -> Strings:
    """A column of text. Raises UserError with the line of a value that is none."""
    import pyarrow as pa

    values = table.columns[column]
    if isinstance(values, pa.ChunkedArray):
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            if values.null_count:
                row = int(np.flatnonzero(values.is_null().to_numpy())[0])
                raise DataError(f"{table.origin.name(row)}: column {column!r} is missing")
            return Strings(values.cast(pa.large_string()).combine_chunks())
    listed = to_list(values)
    for row, value in enumerate(listed):
        if not isinstance(value, str):
            raise DataError(
                f"{table.origin.name(row)}: column {column!r} is {describe_value(value)}, not text"
            )
    return Strings(pa.chunked_array([pa.array(listed, pa.large_string())]))


def describe_value(value: Any) -> str:
    """What a person calls a value that is not what it should be."""
    if value is None or (isinstance(value, str) and not value):
        return "missing" if value is None else "empty"
    shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}..."
    return f"{shown} ({type(value).__name__})"
