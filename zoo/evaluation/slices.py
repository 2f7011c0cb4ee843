"""Parts of the examples by what they have in common: where a model does worse, and whether that is
more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import UserError, nearest
from zoo.data.sources import read_column
from zoo.data.tables.cells import to_number
from zoo.evaluation.examples import MADE, Examples
from zoo.evaluation.json_numbers import interval_to_dict
from zoo.evaluation.measure import Outputs
from zoo.evaluation.passes import select_rows
from zoo.metrics import Interval, Metric, bootstrap_all

FEW = 30  # examples of a slice below which its numbers say little
MOST = 200  # different values of a field
DISTINCT = 8  # numbers of more different values go by quartile


@dataclass(frozen=True)
class Slice:
    """The examples whose `field` has a `value`: how many, and their metrics."""

    field: str
    value: str
    count: int
    metrics: Mapping[str, Interval]

    @property
    def is_small(self) -> bool:
        """Are they too few to judge by?"""
        return self.count < FEW

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        told = {name: interval_to_dict(interval) for name, interval in self.metrics.items()}
        return {
            "field": self.field,
            "value": self.value,
            "count": self.count,
            "small": self.is_small,
            "metrics": told,
        }


def make_slices(
    examples: Examples,
    outputs: Outputs,
    metrics: Sequence[Metric],
    fields: Sequence[str],
    samples: int,
) -> tuple[Slice, ...]:
    """The slices of each field, in the order of their values. Raises UserError on a field that is
    not there, and on one of too many values."""
    made = []
    for field in fields:
        values = read_field(examples, outputs, field)
        for value, rows in split_values(field, values, examples.classes).items():
            part = select_rows(outputs.records, rows)
            found = bootstrap_all(metrics, part, samples=samples)
            named = {m.name: i for m, i in zip(metrics, found, strict=True)}
            made.append(Slice(field, value, len(rows), named))
    return tuple(made)


def read_field(examples: Examples, outputs: Outputs, field: str) -> list[Any]:
    """What each example has of a field: its length in tokens, its class, a column of the data."""
    column = None if examples.is_corpus else read_column(examples.raw, field)
    if column is not None:
        return [column[examples.raw_row(int(row))] for row in outputs.rows]
    records = outputs.records
    if field == "length" and "length" in records:
        return records["length"].tolist()
    if field == "label" and "label" in records and records["label"].ndim == 1:
        labels = records["label"].tolist()
        if not examples.classes:
            return labels
        return [examples.classes[label] for label in labels]
    if field == "label" and "labels" in records:
        raise UserError(f"by='label': an example of {examples.name} has several")
    there = [name for name in MADE if name in records]
    raise UserError(f"by={field!r}: {examples.name} has no such column{nearest(field, there)}")


def split_values(
    field: str, values: Sequence[Any], classes: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The rows of each value, classes in their order, others sorted; numbers of many values go by
    quartile, equal ones together."""
    numbers = [to_number(value) for value in values]
    distinct = {_show(value) for value in values}
    if field != "label" and len(distinct) > DISTINCT and None not in numbers:
        return _by_quartile(np.array(numbers, float))
    if len(distinct) > MOST:
        raise UserError(
            f"by={field!r}: {len(distinct):,} different values are too many (at most {MOST})"
        )
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(_show(value), []).append(row)
    places = {name: float(i) for i, name in enumerate(classes)} if field == "label" else {}

    def order(name: str) -> tuple[float, str]:
        number = places.get(name, to_number(name))
        return (math.inf if number is None else number, name)

    return {name: np.array(rows[name]) for name in sorted(rows, key=order)}


def _show(value: Any) -> str:
    """A value as the name of its slice."""
    if value is None or value == "":
        return "(none)"
    return str(value)


def _by_quartile(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Four parts about alike in number, named by their smallest and largest value."""
    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75], method="inverted_cdf"))
    owner = np.searchsorted(edges, numbers)  # a part holds its upper edge
    out = {}
    for part in np.unique(owner):
        rows = np.flatnonzero(owner == part)
        low, high = numbers[rows].min(), numbers[rows].max()
        out[f"{low:g}" if low == high else f"{low:g} to {high:g}"] = rows
    return out


def find_worst(
    slices: Sequence[Slice], metric: Metric, whole: Interval
) -> tuple[Slice, bool] | None:
    """The worst slice by a metric, of those large enough to judge, and whether its whole interval
    is on the worse side of the value of all examples. None where no slice is."""
    judged = [s for s in slices if not s.is_small and not math.isnan(s.metrics[metric.name].value)]
    if not judged:
        return None
    sign = 1 if metric.higher_is_better else -1
    worst = min(judged, key=lambda s: sign * s.metrics[metric.name].value)
    found = worst.metrics[metric.name]
    beyond = found.high < whole.value if sign > 0 else found.low > whole.value
    return worst, beyond
