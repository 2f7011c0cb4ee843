"""Order: which examples make the batch of a step, a pure function of (seed, step).

Example number `p = step * batch_size + row` of the training stream is example `indices([p])` of the
split. A source that says nothing is shuffled, every epoch in its own order, and a batch may
straddle two. One that is not read so (a mixture by weight, buckets of lengths) has a method
`make_order(seed, batch_size) -> Order`. An order is pickled for worker processes: it holds names
and numbers, no tables. What an epoch needs is computed when it is asked for and kept by a cache.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Order(Protocol):
    """Which examples a training stream gives. One whose batches differ in shape also has

    `length(step) -> int`: the padded length of the batch of that step; the source's `take` is then
    called with it, `take(indices, length)`, one step at a time (`train.steps_per_call=1`).
    """

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """The example of the split at each position of the stream; -1: none, a row of mask 0."""
        ...


@dataclass(frozen=True)
class Shuffle:
    """The examples of a split of `size`, every epoch in a new order."""

    seed: int
    size: int

    def indices(self, positions: np.ndarray) -> np.ndarray:
        epochs, places = np.divmod(positions, self.size)
        out = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            out[chosen] = permutation(self.seed, int(epoch), self.size)[places[chosen]]
        return out


def make_order(source: Any, seed: int, batch_size: int) -> Order:
    """The source's own order, or the plain shuffle."""
    if hasattr(source, "make_order"):
        return source.make_order(seed, batch_size)
    return Shuffle(seed, len(source))


@dataclass(frozen=True)
class AtLength:
    """A source read at one padded length, to see what its batches look like."""

    source: Any
    length: int

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> dict[str, Any]:
        return self.source.take(indices, self.length)


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch."""
    recent = _recent_epochs(seed, size)
    order = recent.get(epoch)
    if order is None:
        order = draw_permutation(seed, epoch, size)
        if len(recent) > 1:
            recent.pop(min(recent), None)
        recent[epoch] = order
    return order


@functools.lru_cache(maxsize=64)
def _recent_epochs(seed: int, size: int) -> dict[int, np.ndarray]:
    """Two epochs of a source, between which a batch may straddle; of a mixture, two of each."""
    return {}


def draw_permutation(seed: int, epoch: int, size: int, stream: int = 0) -> np.ndarray:
    """Random 64-bit keys, sorted; each (seed, epoch, stream) has its own.

    Philox itself is specified (Salmon et al. 2011), unlike NumPy's shuffle, which may change.
    """
    keys = np.random.Philox(key=[seed, 0], counter=[0, epoch, stream, 0]).random_raw(size)
    return np.argsort(keys, kind="stable")
