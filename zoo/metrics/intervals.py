"""Bootstrap intervals and paired tests of any metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config import UserError
from zoo.metrics.metric import Metric, Records, count_rows

_BLOCK = 4_000_000  # weights at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A value of all rows, and the bounds of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Values of A and B on the same examples; `difference` is B - A, with its interval."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


def bootstrap(
    metric: Metric, records: Records, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The percentile interval over resamplings of the rows with replacement (Efron 1979).

    Resamplings where the metric is not defined are left out. The same seed draws the same rows for
    every metric.
    """
    return bootstrap_all([metric], records, samples, seed, level)[0]


def bootstrap_all(
    metrics: Sequence[Metric],
    records: Records,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """`bootstrap` of several metrics, which share the resamplings.

    Raises UserError without rows.
    """
    num_rows = _check_rows(records)
    weighed = [metric.prepare(records) for metric in metrics]
    ones = np.ones((1, num_rows))
    values = [float(weigh(ones)[0]) for weigh in weighed]
    drawn: list[list[np.ndarray]] = [[] for _ in metrics]
    for weights in draw_counts(num_rows, samples, seed):
        for own, weigh in zip(drawn, weighed, strict=True):
            own.append(weigh(weights))
    return [
        Interval(value, *_find_bounds(own, level)) for value, own in zip(values, drawn, strict=True)
    ]


def compare(
    metric: Metric,
    records_a: Records,
    records_b: Records,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """B against A on the same examples in the same order.

    The interval is a bootstrap of the difference, a row drawn for both at once. `p_value` is that
    of the permutation test which swaps A and B within examples: how often chance alone gives a
    difference as large in either direction, with all 2^n swaps where these are no more than
    `samples`, and else with random ones (the observed one among them, so never 0).

    Raises UserError when the records are not of the same examples.
    """
    both = _join(metric, records_a, records_b)
    weigh = metric.prepare(both)
    num_rows = count_rows(both) // 2

    def differ(weights: np.ndarray, swapped: np.ndarray) -> np.ndarray:
        kept, moved = weights * (1 - swapped), weights * swapped
        of_a = weigh(np.concatenate([kept, moved], axis=1))
        return weigh(np.concatenate([moved, kept], axis=1)) - of_a

    none, one = np.zeros((1, num_rows)), np.ones((1, num_rows))
    a = float(weigh(np.concatenate([one, none], axis=1))[0])
    b = float(weigh(np.concatenate([none, one], axis=1))[0])
    drawn = [differ(counts, none) for counts in draw_counts(num_rows, samples, seed)]
    by_chance = np.concatenate([differ(one, s) for s in draw_swaps(num_rows, samples, seed)])
    extra = 0 if num_rows < samples.bit_length() else 1
    p_value = _share_as_large(by_chance, abs(b - a), extra)
    return Comparison(a, b, b - a, *_find_bounds(drawn, level), p_value)


def draw_counts(num_rows: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks `[r, n]` of `samples` resamplings: how often each row was drawn."""
    generator = np.random.default_rng(seed)
    for size in _split_samples(num_rows, samples):
        yield np.stack(
            [
                np.bincount(generator.integers(0, num_rows, num_rows), minlength=num_rows)
                for _ in range(size)
            ]
        ).astype(np.float64)


def draw_swaps(num_rows: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks `[r, n]` of 0 and 1: all 2^n where these are no more than `samples`, else random."""
    if num_rows < samples.bit_length():  # 2^n <= samples
        numbers = np.arange(2**num_rows)[:, None]
        yield (numbers >> np.arange(num_rows) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(seed)
    for size in _split_samples(num_rows, samples):
        yield generator.integers(0, 2, (size, num_rows)).astype(np.float64)


def _split_samples(num_rows: int, samples: int) -> Iterator[int]:
    size = max(_BLOCK // num_rows, 1)
    for start in range(0, samples, size):
        yield min(size, samples - start)


def _share_as_large(by_chance: np.ndarray, observed: float, extra: int) -> float:
    """How many differences are at least the observed one, up to rounding."""
    by_chance = np.abs(by_chance[np.isfinite(by_chance)])
    if not np.isfinite(observed) or not len(by_chance):
        return float("nan")
    as_large = by_chance >= observed - 1e-12 * max(1.0, observed)
    return float((as_large.sum() + extra) / (len(by_chance) + extra))


def _find_bounds(values: list[np.ndarray], level: float) -> tuple[float, float]:
    known = np.concatenate(values) if values else np.zeros(0)
    known = known[~np.isnan(known)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_rows(records: Records) -> int:
    num_rows = count_rows(records)
    if not num_rows:
        raise UserError("there are no examples to measure")
    return num_rows


def _join(metric: Metric, records_a: Records, records_b: Records) -> dict[str, np.ndarray]:
    """One table with the rows of A, then those of B."""
    if _check_rows(records_a) != count_rows(records_b):
        raise UserError(
            f"a comparison needs the same examples: {count_rows(records_a)} are not "
            f"{count_rows(records_b)}"
        )
    joined = {}
    for field in metric.needs:
        a, b = np.asarray(records_a[field]), np.asarray(records_b[field])
        if a.shape != b.shape:
            raise UserError(
                f"a comparison needs the same kind of outputs: {field} of A is "
                f"{list(a.shape[1:])}, of B {list(b.shape[1:])}"
            )
        joined[field] = np.concatenate([a, b])
    return joined
