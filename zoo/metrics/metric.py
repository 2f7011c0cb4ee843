"""What a metric is: a function of records and of weights on their rows.

Records are a dict of arrays with one row an example, without padding; which fields a task gives
is said in each metric's `needs`. Weights `[r, n]` are r ways of counting the same n rows: how often
a bootstrap drew each, or 0 and 1 for a part of the data. A weight of 0 is the same as an absent
row, a weight of 2 the same as the row twice. A value that is not defined (no rows, no examples of
a class) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Records = Mapping[str, Any]
Weigh = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A named number of records; a subclass writes `prepare`.

    `needs` are the fields of the records that it reads.
    """

    name: str
    needs: tuple[str, ...]
    higher_is_better: bool = True

    def prepare(self, records: Records) -> Weigh:
        """Weights `[r, n]` to values `[r]`, float64; what no weight changes is done once, here."""
        raise NotImplementedError

    def __call__(self, records: Records, weights: np.ndarray) -> np.ndarray:
        """Values `[r]` under weights `[r, n]`."""
        return self.prepare(records)(weights)

    def value(self, records: Records) -> float:
        """The value of all rows, each counted once."""
        return float(self(records, np.ones((1, count_rows(records))))[0])

    def by_default(self, records: Records) -> bool:
        """Whether it is told when nobody named a metric; its fields are there."""
        return True


class Additive(Metric):
    """A metric of sums over rows: the sums of parts add up to those of the whole."""

    def statistics(self, records: Records) -> Any:
        """`[n, k]` float64, an array or a `scipy.sparse.csr_array`."""
        raise NotImplementedError

    def finish(self, sums: np.ndarray) -> np.ndarray:
        """Values `[...]` of sums `[..., k]`."""
        raise NotImplementedError

    def prepare(self, records: Records) -> Weigh:
        statistics = self.statistics(records)
        if not isinstance(statistics, np.ndarray) or np.isfinite(statistics).all():
            return lambda weights: self.finish(weights @ statistics)
        # 0 times infinity is NaN: a row that does not count would spoil the rest.
        lost = (~np.isfinite(statistics)).astype(np.float64)
        finite = np.where(lost, 0.0, statistics)
        return lambda weights: self.finish(np.where(weights @ lost > 0, np.nan, weights @ finite))


def count_rows(records: Records) -> int:
    """How many examples the records have."""
    return len(next(iter(records.values())))


def divide(a: Any, b: Any, empty: float = np.nan) -> np.ndarray:
    """`a / b`, and `empty` where `b` is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b == 0, empty, a / b)
