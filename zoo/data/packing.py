"""Packing: whole documents side by side in rows of one length, none looking at another.

The plan follows from the lengths alone, is made once and lies in the cache. Its rows are then
shuffled like any examples. (Best-fit decreasing; Krell et al. 2021 pack so, by a histogram.)
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.config import DataConfig
from zoo.data.array_file import ArrayWriter, make_array_file, map_array
from zoo.data.sources import Examples, cache_folder
from zoo.data.token_file import TokenFile, spread


def pack(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of each item: the largest items first, each into the fullest bin that still has room.

    Items of one size are placed together, so the cost is in the number of different sizes. No size
    may be over the capacity.
    """
    bins = np.empty(len(sizes), np.int64)
    by_size = np.argsort(-sizes, kind="stable")
    distinct, counts = np.unique(-sizes, return_counts=True)
    rooms = _Rooms(capacity)
    place = 0
    for size, count in zip((-distinct).tolist(), counts.tolist(), strict=True):
        items = by_size[place : place + count]
        place += count
        while len(items):
            room, found = rooms.take(size, len(items))
            each = room // size  # the best fit for the next item is the bin that got the last one
            placed = min(len(items), len(found) * each)
            bins[items[:placed]] = np.repeat(found, each)[:placed]
            rooms.put(room - each * size, found[:-1])
            rooms.put(room - (placed - (len(found) - 1) * each) * size, found[-1:])
            items = items[placed:]
    return bins


class _Rooms:
    """Bins by the room that is left in them."""

    def __init__(self, capacity: int):
        self._capacity, self._num_bins = capacity, 0
        self._sorted: list[int] = []
        self._bins: dict[int, list[np.ndarray]] = {}

    def put(self, room: int, bins: np.ndarray) -> None:
        if not room or not len(bins):
            return
        if room not in self._bins:
            bisect.insort(self._sorted, room)
        self._bins.setdefault(room, []).append(bins)

    def take(self, size: int, num_items: int) -> tuple[int, np.ndarray]:
        """Bins of the least room that such an item fits into, no more than the items need."""
        place = bisect.bisect_left(self._sorted, size)
        if place == len(self._sorted):
            needed = -(-num_items // (self._capacity // size))
            first, self._num_bins = self._num_bins, self._num_bins + needed
            return self._capacity, np.arange(first, first + needed)
        room = self._sorted.pop(place)
        found = np.concatenate(self._bins.pop(room))
        needed = -(-num_items // (room // size))
        self.put(room, found[needed:])
        return room, found[:needed]


def cut_documents(offsets: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where pieces of at most `length + 1` tokens begin, and their sizes.

    A piece begins with the last token of the one before: of each document every token but the first
    is predicted exactly once. A document of one token predicts nothing and is left out.
    """
    targets = np.maximum(np.diff(offsets) - 1, 0)
    owners, places = spread(-(-targets // length))
    starts = offsets[owners] + places * length
    return starts, np.minimum(targets[owners] - places * length, length) + 1


@dataclass(frozen=True)
class PackedTokens:
    """Rows of `length + 1` tokens: pieces of documents, and padding.

    A row's `segments` number its pieces from 1 (0: padding), `positions` count from 0 in each, and
    `real` is true where a token and the one after it are of the same piece.
    """

    tokens: TokenFile
    length: int
    plan: str  # a file of piece starts and sizes, row by row, and where each row begins

    def __len__(self) -> int:
        return len(map_array(self.plan, "rows")) - 1

    @property
    def num_pieces(self) -> int:
        return len(map_array(self.plan, "starts"))

    @property
    def efficiency(self) -> float:
        """The part of all places that holds a token."""
        filled = int(map_array(self.plan, "sizes").sum())
        return filled / max(len(self) * (self.length + 1), 1)

    def take(self, indices: np.ndarray) -> Examples:
        """The rows of these numbers."""
        rows = map_array(self.plan, "rows")
        first = rows[indices]
        owners, places = spread(rows[indices + 1] - first)
        pieces = first[owners] + places
        sizes = map_array(self.plan, "sizes")[pieces]
        ends = np.cumsum(sizes)
        # Where each piece begins in its row: after those before it there.
        before = ends - sizes
        columns = before - before[np.searchsorted(owners, owners)]
        which, within = spread(sizes)
        shape = (len(indices), self.length + 1)
        at = owners[which], columns[which] + within
        out = {name: np.zeros(shape, np.int32) for name in ("tokens", "segments", "positions")}
        out["tokens"][at] = self.tokens.read(map_array(self.plan, "starts")[pieces][which] + within)
        out["segments"][at] = places[which] + 1
        out["positions"][at] = within
        same = out["segments"][:, 1:] == out["segments"][:, :-1]
        return {**out, "real": same & (out["segments"][:, 1:] > 0)}


def pack_tokens(tokens: TokenFile, length: int, config: DataConfig) -> PackedTokens:
    """The documents of a token file in rows, by the plan in the cache, made where there is none.

    Raises UserError when the cache cannot be written.
    """
    offsets = tokens.offsets
    digest = hashlib.sha256(np.ascontiguousarray(np.diff(offsets), np.int64).tobytes())
    path = Path(cache_folder(config)) / "plans" / f"{digest.hexdigest()[:40]}-{length}.packing"

    def write(writer: ArrayWriter) -> None:
        for name, values in plan_rows(np.asarray(offsets), length).items():
            writer.add(name, values)

    make_array_file(path, write)
    return PackedTokens(tokens, length, str(path))


def plan_rows(offsets: np.ndarray, length: int) -> Mapping[str, np.ndarray]:
    """The pieces of all documents, row by row: `starts`, `sizes`, and `rows`, the number of the
    first piece of each row and, last, of all pieces. In a row pieces are in the text's order."""
    starts, sizes = cut_documents(offsets, length)
    bins = pack(sizes, length + 1)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins) if len(bins) else np.zeros(0, np.int64)
    rows = np.concatenate([[0], np.cumsum(counts)])
    return {"starts": starts[order], "sizes": sizes[order], "rows": rows}
