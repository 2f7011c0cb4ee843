"""Distributions as lines of text with bars."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from zoo.console import align, terminal_width

MOST_BINS, BAR, MOST_NAME = 10, 24, 24  # bins; columns of a full bar; letters of a class


def bar(share: float, width: int = BAR) -> str:
    """A bar of `share` (0 to 1) of the width, in eighths of a column where the console can."""
    if not can_print("█▏"):
        return "#" * round(share * width)
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def can_print(text: str) -> bool:
    """Can stdout show these characters? A pipe in the C locale cannot."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def histogram(title: str, columns: dict[str, np.ndarray]) -> list[str]:
    """Lines: a bin each, with the count and a bar for each of the columns (split -> values).

    Bins are equally wide, or of doubling width where the largest value is far from the median.
    """
    values = {name: v[np.isfinite(v)] for name, v in columns.items()}
    every = np.concatenate([*values.values()])
    if not every.size:
        return []
    edges = make_edges(every)
    whole = _are_whole(every) and _are_whole(edges)
    counts = {name: np.histogram(v, edges)[0] for name, v in values.items()}
    highest = max((c / max(c.sum(), 1)).max() for c in counts.values())
    rows: list[list[str | float]] = [[title, *(cell for name in counts for cell in (name, ""))]]
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        rows.append([_show_bin(low, high, whole, last=i == len(edges) - 2)])
        for count in counts.values():
            rows[-1] += [f"{count[i]:,}", count[i] / max(count.sum(), 1) / highest]
    return align_bars(rows, {0, *range(1, len(rows[0]), 2)})


def align_bars(rows: list[list[str | float]], right: Collection[int]) -> list[str]:
    """Straight columns; numbers from 0 to 1 become bars, as long as the console leaves room for."""
    bare = align([[cell if isinstance(cell, str) else "" for cell in row] for row in rows], right)
    num_bars = max(sum(isinstance(cell, float) for cell in row) for row in rows)
    room = terminal_width() - max(map(len, bare)) - 2 * num_bars
    width = min(max(room // max(num_bars, 1), 4), BAR)
    return align(
        [[cell if isinstance(cell, str) else bar(cell, width) for cell in row] for row in rows],
        right,
    )


def make_edges(values: np.ndarray) -> np.ndarray:
    """Edges of at most `MOST_BINS` bins over the range of some finite values, whole where they are.

    The last bin holds its upper edge too.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low, high])
    if low >= 0 and high > 20 * max(float(np.median(values)), 1):
        last = int(np.ceil(np.log2(high)))
        powers = 2.0 ** np.arange(max(last - MOST_BINS + 1, 0), last)
        return np.concatenate([[0], powers, [high]])
    if not _are_whole(values):
        return np.linspace(low, high, MOST_BINS + 1)
    step = max(-(-(high - low + 1) // MOST_BINS), 1)
    return np.append(np.arange(low, high + 1, step), high)


def _are_whole(values: np.ndarray) -> bool:
    return bool(np.all(values == np.round(values)))


def _show_bin(low: float, high: float, whole: bool, *, last: bool) -> str:
    if whole:
        top = high if last else high - 1
        return f"{low:,.0f}" if low >= top else f"{low:,.0f}-{top:,.0f}"
    return f"{low:.4g} to {high:.4g}"


def summary(values: np.ndarray) -> str:
    """'1 to 503, median 12, mean 14.2, 95 % up to 41'."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "no finite value"
    low, median, most, high = np.quantile(finite, [0, 0.5, 0.95, 1])
    if low == high:
        return f"always {show_number(low)}"
    return (
        f"{show_number(low)} to {show_number(high)}, median {show_number(median)}, "
        f"mean {show_number(finite.mean())}, 95 % up to {show_number(most)}"
    )


def show_number(number: float) -> str:
    """Four digits; thousands whole: 0.1235, 12.3, 76,636, 1.5e+12."""
    return f"{number:,.0f}" if 1e3 <= abs(number) < 1e9 else f"{number:.4g}"


def balance(names: Sequence[str], counts: Mapping[str, Sequence[int]], most: int = 20) -> list[str]:
    """Lines: a class each with count, share and bar for each split; of many classes those with the
    most and the fewest examples of the first split."""
    totals = {split: max(sum(column), 1) for split, column in counts.items()}
    highest = max(
        (count / totals[split] for split, column in counts.items() for count in column), default=0
    )
    first = next(iter(counts.values()))
    order = sorted(range(len(names)), key=lambda i: -first[i]) if len(names) > most else None
    shown: list[int | None] = list(range(len(names)))
    if order is not None:
        half = most // 2
        shown = [*order[:half], None, *order[-half:]]
    rows: list[list[str | float]] = [["label", *(c for s in counts for c in (s, "", ""))]]
    for i in shown:
        if i is None:
            rows.append([f"({len(names) - most:,} more)", *[""] * (3 * len(counts))])
            continue
        rows.append([names[i] if len(names[i]) <= MOST_NAME else names[i][: MOST_NAME - 1] + "…"])
        for split, column in counts.items():
            share = column[i] / totals[split]
            rows[-1] += [f"{column[i]:,}", f"{share:.1%}", share / (highest or 1)]
    return align_bars(rows, {i for i in range(1, 1 + 3 * len(counts)) if i % 3})
