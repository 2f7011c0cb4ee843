"""What a label column means: classes with names, values, or several labels an example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.config import DataError, nearest
from zoo.data.tables.cells import Strings, Table, describe_value, read_features, to_list


@dataclass(frozen=True)
class Labels:
    """How labels become numbers, as the training split shows it.

    `names` are the classes, None where labels are values; `ids` their numbers by value; `many` says
    that an example has several: an example's label is then a row of zeros and ones.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...] | None
    ids: dict[Any, int] = field(default_factory=dict)
    many: bool = False

    def encode(self, table: Table) -> np.ndarray:
        """int32 `[n]`, 0/1 `[n, k]`, or float32 `[n]`.

        Raises UserError with file and line of a label that training never saw or that is none.
        """
        if len(self.columns) > 1 or self.names is None:
            numbers = read_features(table, self.columns)
            if self.names is None and numbers.shape[1] == 1:
                return numbers[:, 0]
            if self.names is not None:
                for row, column in np.argwhere((numbers != 0) & (numbers != 1)):
                    raise DataError(
                        f"{table.origin.name(int(row))}: column {self.columns[column]!r} is "
                        f"{numbers[row, column]:g}; of several labels each is 0 or 1"
                    )
            return numbers
        values = to_list(table.columns[self.columns[0]])
        if not self.many:
            found: dict[Any, int] = {}
            for row, value in enumerate(values):
                if value not in found:
                    found[value] = self._find(value, row, table)
            return np.array([found[value] for value in values], np.int32)
        out = np.zeros((len(values), len(self.ids)), np.float32)
        for row, several in enumerate(values):
            if not isinstance(several, list):
                raise DataError(
                    f"{table.origin.name(row)}: label {several!r} is no list, others are"
                )
            for value in several:
                out[row, self._find(value, row, table)] = 1
        return out

    def encode_tags(self, table: Table) -> Strings:
        """The class of each word, a list a row.

        Raises UserError with file and line of what is no list, and as `encode` does.
        """
        import pyarrow as pa

        (column,) = self.columns
        found: dict[Any, int] = {}
        rows: list[list[int]] = []
        for row, tags in enumerate(to_list(table.columns[column])):
            if not isinstance(tags, list):
                place = f"{table.origin.name(row)}: column {column!r}"
                raise DataError(f"{place} is {describe_value(tags)}, not a list of tags")
            for tag in tags:
                if tag.__hash__ is None or tag not in found:
                    found[tag] = self._find(tag, row, table)
            rows.append([found[tag] for tag in tags])
        return Strings(pa.chunked_array([pa.array(rows, pa.large_list(pa.int32()))]))

    def _find(self, value: Any, row: int, table: Table) -> int:
        """The number of a class."""
        try:
            return self.ids[_to_class(value)]
        except (KeyError, TypeError):
            pass
        place = table.origin.name(row)
        if value is None or value == "":
            raise DataError(f"{place}: column {self.columns[0]!r} is empty")
        known = [str(name) for name in self.names or ()]
        raise DataError(
            f"{place}: label {value!r} was never seen in training{nearest(str(value), known)}"
        )

    def describe(self, field: str = "label") -> str:
        """The line that says what was inferred of a field, 'label' or 'tags'."""
        if self.names is None:
            return f"label: values of {', '.join(self.columns)}"
        most = 10
        shown = ", ".join(map(str, self.names[:most])) + (", ..." if len(self.names) > most else "")
        many = field == "label" and (self.many or len(self.columns) > 1)
        several = "several of " if many else ""
        return f"{field}: {several}{len(self.names)} classes ({shown})"


def fit_labels(tables: Sequence[Table], columns: Sequence[str], as_values: bool) -> Labels:
    """What the labels of the training tables are. Raises UserError with the line of an empty one,
    and where decimals and words are mixed."""
    if as_values:
        return Labels(tuple(columns), None)
    if len(columns) > 1:
        return Labels(tuple(columns), tuple(columns))
    (column,) = columns
    declared = tables[0].class_names.get(column)
    if declared:
        many = isinstance(next(iter(to_list(tables[0].columns[column][:1])), None), list)
        return Labels((column,), tuple(declared), {i: i for i in range(len(declared))}, many)
    known, many = _find_classes(tables, column)
    decimals = [k for k in known if isinstance(k, float)]
    words = [k for k in known if isinstance(k, str)]
    if decimals and words and len(words) > len(decimals):
        decimals = []  # words, a few of which look like numbers
    if decimals and words:
        table, row = known[words[0]]
        raise DataError(
            f"{table.origin.name(row)}: label {words[0]!r} among numbers such as {decimals[0]:g}"
        )
    if decimals and not many:
        return Labels((column,), None)
    ordered = sorted(known, key=(lambda k: (isinstance(k, str), k)) if not words else str)
    names = tuple(str(k).lower() if isinstance(k, bool) else str(k) for k in ordered)
    return Labels((column,), names, {k: i for i, k in enumerate(ordered)}, many)


def _find_classes(
    tables: Sequence[Table], column: str
) -> tuple[dict[Any, tuple[Table, int]], bool]:
    """Each class and where it is first, and whether an example has several."""
    known: dict[Any, tuple[Table, int]] = {}
    seen: set[Any] = set()
    many = False
    for table in tables:
        values = to_list(table.columns[column])
        many = many or any(isinstance(v, list) for v in values[:1])
        for row, several in enumerate(values):
            for value in several if many and isinstance(several, list) else (several,):
                made = None if isinstance(value, list | dict) else value
                if made in seen:
                    continue
                seen.add(made)
                made = _to_class(made)
                if made is None:
                    raise DataError(
                        f"{table.origin.name(row)}: column {column!r} is {describe_value(value)}, "
                        "not a label"
                    )
                known.setdefault(made, (table, row))
    return known, many


def _to_class(value: Any) -> Any:
    """'3' -> 3, '2.5' -> 2.5, other text ('007', 'nan') as it is; None for what is missing."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"0|-?[1-9]\d*", text):
            return int(text)
        if re.fullmatch(r"-?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?", text):
            return float(text)
        return text or None
    return None if value is None or value != value else value
