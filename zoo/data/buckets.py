"""Buckets of lengths: the examples of a batch are of like length, so that little of it is padding.

Which examples are in which bucket follows from the lengths alone, is found once and lies in the
cache. Every epoch shuffles each bucket, cuts it into batches, and shuffles these.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.config import DataConfig
from zoo.data.array_file import ArrayWriter, make_array_file, map_array
from zoo.data.order import draw_permutation
from zoo.data.sources import cache_folder


@dataclass(frozen=True)
class Buckets:
    """`plan` is a file: the examples bucket by bucket, and where each bucket begins."""

    lengths: tuple[int, ...]  # what rows are padded to
    plan: str

    def make_order(self, seed: int, batch_size: int) -> BucketOrder:
        """The order of training."""
        return BucketOrder(self, seed, batch_size)


def make_buckets(sizes: np.ndarray, lengths: tuple[int, ...], config: DataConfig) -> Buckets:
    """Examples of these sizes, each in the first bucket it fits into (or in the last).

    Raises UserError when the cache cannot be written.
    """
    digest = hashlib.sha256(np.ascontiguousarray(sizes, np.int64).tobytes()).hexdigest()[:40]
    name = f"{digest}-{'-'.join(map(str, lengths))}.buckets"
    path = Path(cache_folder(config)) / "plans" / name

    def write(writer: ArrayWriter) -> None:
        bucket = np.searchsorted(lengths[:-1], sizes)
        writer.add("examples", np.argsort(bucket, kind="stable"))
        counts = np.bincount(bucket, minlength=len(lengths))
        writer.add("starts", np.concatenate([[0], np.cumsum(counts)]))

    make_array_file(path, write)
    return Buckets(lengths, str(path))


@dataclass(frozen=True)
class BucketOrder:
    """Every example once an epoch; only the epoch's last batch may have empty rows."""

    buckets: Buckets
    seed: int
    batch_size: int

    @property
    def num_batches(self) -> int:
        """Batches an epoch."""
        return -(-len(map_array(self.buckets.plan, "examples")) // self.batch_size)

    def indices(self, positions: np.ndarray) -> np.ndarray:
        epochs, places = np.divmod(positions, self.num_batches * self.batch_size)
        out = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            out[chosen] = _deal(self, int(epoch))[0].reshape(-1)[places[chosen]]
        return out

    def length(self, step: int) -> int:
        """The padded length of the batch of a step."""
        epoch, batch = divmod(step, self.num_batches)
        return int(_deal(self, epoch)[1][batch])


@functools.lru_cache(maxsize=4)
def _deal(order: BucketOrder, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The batches of an epoch, `[batches, batch_size]` examples (-1: none), and their lengths."""
    examples = map_array(order.buckets.plan, "examples")
    starts = map_array(order.buckets.plan, "starts")
    size, longest = order.batch_size, order.buckets.lengths[-1]
    left = np.zeros(0, np.int64)  # what does not fill a batch moves up to the next bucket
    batches, lengths = [], []
    for number, length in enumerate(order.buckets.lengths):
        own = examples[starts[number] : starts[number + 1]]
        if not len(own):
            continue
        own = own[draw_permutation(order.seed, epoch, len(own), number + 1)]
        pool, longest = np.concatenate([left, own]), length
        full = len(pool) // size
        batches.append(pool[: full * size].reshape(full, size))
        lengths += [length] * full
        left = pool[full * size :]
    shuffled = draw_permutation(order.seed, epoch, len(lengths), 0)
    batches = [np.concatenate(batches)[shuffled]]
    dealt = np.array(lengths, np.int64)[shuffled]
    if len(left):
        empty = np.full(size - len(left), -1)
        batches.append(np.concatenate([left, empty])[None])
        dealt = np.append(dealt, longest)
    return np.concatenate(batches), dealt
