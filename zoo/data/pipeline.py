"""From a split to batches. The global batch is a pure function of (seed, step).

The order (`order.py`) says which example stands at position `p = step * batch_size + row` of the
training stream. Random operations draw from a counter-based generator at counter `p`. So nothing
depends on where a run began, how many steps are read at once, or how many processes read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.data.apply import Broken, apply_ops, share_cores
from zoo.data.ops import Op, finish
from zoo.data.order import Order, make_order
from zoo.data.sources import Examples, Source, name_example

Batch = dict[str, np.ndarray]


def draw_uniform(seed: int, stream: int, start: int, count: int, num_draws: int) -> np.ndarray:
    """Numbers in [0, 1), `[count, num_draws]`: row i is a function of (seed, stream, start + i)."""
    per_row = -(-num_draws // 4)  # one counter of Philox gives four numbers
    generator = np.random.Philox(key=[seed, stream], counter=[start * per_row, 0, 0, 0])
    raw = generator.random_raw(count * per_row * 4).reshape(count, -1)[:, :num_draws]
    return (raw >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class TrainStream:
    """Training data in blocks of `steps_per_block` steps, random access by block number.

    `rows` are the rows of every global batch that this process reads.
    """

    source: Source
    ops: tuple[Op, ...]
    batch_size: int
    num_steps: int
    steps_per_block: int = 1
    seed: int = 0
    rows: slice | np.ndarray = field(default_factory=lambda: slice(None))
    skip_broken: bool = False

    def __len__(self) -> int:
        return -(-self.num_steps // self.steps_per_block)

    def __getitem__(self, block: int) -> Batch:
        """`{field: [steps, rows, ...]}` of steps `block * steps_per_block` and on."""
        first = block * self.steps_per_block
        return self.read(first, min(self.steps_per_block, self.num_steps - first))

    @functools.cached_property
    def order(self) -> Order:
        """Which examples make the batch of a step."""
        return make_order(self.source, self.seed, self.batch_size)

    def read(self, first_step: int, num_steps: int) -> Batch:
        """The batches of `num_steps` steps from `first_step` on, stacked.

        With `skip_broken` a broken image is a row of mask 0, and `broken` names them all; without,
        it raises UserError.
        """
        start, count = first_step * self.batch_size, num_steps * self.batch_size
        mine = np.arange(count).reshape(num_steps, self.batch_size)[:, self.rows].reshape(-1)
        indices = self.order.indices(start + mine)
        examples = self._take(np.maximum(indices, 0), first_step, num_steps)
        draws = [
            draw_uniform(self.seed, stream, start, count, op.num_draws)[mine]
            if op.num_draws
            else None
            for stream, op in enumerate(self.ops, start=1)
        ]
        examples, broken = apply_ops(self.ops, examples, draws)
        batch = finish(examples)
        batch["mask"] = (indices >= 0).astype(np.float32)
        names = mask_broken(batch, broken, self.source, indices, skip=self.skip_broken)
        batch = {k: v.reshape(num_steps, -1, *v.shape[1:]) for k, v in batch.items()}
        return {**batch, **names}

    def _take(self, indices: np.ndarray, first_step: int, num_steps: int) -> Examples:
        find_length: Any = getattr(self.order, "length", None)
        if find_length is None:
            return self.source.take(indices)
        assert num_steps == 1, "steps of different lengths are read one at a time"
        source: Any = self.source
        return source.take(indices, find_length(first_step))


@dataclass(frozen=True)
class StackedStream:
    """Streams of the same steps that are read together: `{field: [steps, streams, rows, ...]}`."""

    streams: tuple[TrainStream, ...]

    @property
    def steps_per_block(self) -> int:
        """Of each stream."""
        return self.streams[0].steps_per_block

    def __len__(self) -> int:
        return len(self.streams[0])

    def __getitem__(self, block: int) -> Batch:
        parts = [stream[block] for stream in self.streams]
        broken = [part.pop("broken") for part in parts if "broken" in part]
        batch = {name: np.stack([part[name] for part in parts], 1) for name in parts[0]}
        return {**batch, "broken": np.concatenate(broken)} if broken else batch


def read_ahead(
    stream: TrainStream | StackedStream, first_block: int, *, num_workers: int, prefetch: int
) -> Iterator[Batch]:
    """Blocks from `first_block` on, prepared ahead by Grain in a thread or in worker processes."""
    import grain

    blocks = grain.MapDataset.source(stream)[first_block:]
    if num_workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["zoo"])  # Grain's workers read absl flags, which nobody here parses
        ahead = blocks.to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
        )
        options = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=prefetch)
        return iter(ahead.mp_prefetch(options, share_cores))
    return iter(
        blocks.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch))
    )


def read_eval(
    source: Source,
    ops: Sequence[Op],
    batch_size: int,
    rows: slice | np.ndarray = slice(None),
    *,
    skip_broken: bool = False,
) -> Iterator[Batch]:
    """Every example once, in order; the last batch is padded with rows of mask 0.

    Broken images are treated as in training.
    """
    size = len(source)
    for start in range(0, size, batch_size):
        positions = np.arange(start, start + batch_size)[rows]
        real = max(int((positions < size).sum()), 1)  # of no more is made a batch's padding
        indices = np.minimum(positions[:real], size - 1)
        draws = [
            draw_uniform(0, stream, start, batch_size, op.num_draws)[rows][:real]
            if op.num_draws
            else None
            for stream, op in enumerate(ops, start=1)
        ]
        examples, broken = apply_ops(ops, source.take(indices), draws)
        batch = finish(examples)
        batch["mask"] = (positions[:real] < size).astype(np.float32)
        names = mask_broken(batch, broken, source, indices, skip=skip_broken)
        batch = {k: _repeat_last(v, len(positions) - real) for k, v in batch.items()}
        batch["mask"][real:] = 0
        yield {**batch, **names}


def _repeat_last(array: np.ndarray, times: int) -> np.ndarray:
    return np.concatenate([array, np.repeat(array[-1:], times, axis=0)]) if times else array


def mask_broken(
    batch: Batch, broken: Broken, source: Source, indices: np.ndarray, *, skip: bool
) -> Batch:
    """Gives the rows of broken images mask 0 and returns their names as the field `broken`, which
    is there where they are. Raises UserError on one unless `skip`."""
    lines = [
        f"{name_example(source, int(indices[row]))}: {broken[row]}"
        for row in sorted(broken)
        if batch["mask"][row]
    ]
    if lines and not skip:
        raise UserError(f"broken image {lines[0]} (data.skip_broken=True passes over such)")
    batch["mask"][list(broken)] = 0
    return {"broken": np.array(lines)} if lines else {}
