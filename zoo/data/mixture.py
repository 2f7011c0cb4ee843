"""Several sources in one stream of training examples, by weight.

The weights become small whole numbers, their sum is a block: of the positions of a block of the
stream each source has exactly its number, in an order shuffled by (seed, block). Each source goes
through its own epochs. So any position is found at once, and nothing depends on what was read
before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from zoo.config import DataConfig, UserError
from zoo.data.order import Order, make_order
from zoo.data.sources import ConcatenatedSource, Dataset, Source, open_raw
from zoo.data.splits import resplit

MOST = 10_000  # positions of a block
FAR = 0x9E3779B97F4A7C15  # an odd number far from others: seeds of the sources' own orders


@dataclass(frozen=True)
class MixtureOrder:
    """Which example of the concatenated sources is at each position of the stream."""

    parts: tuple[Order, ...]
    counts: tuple[int, ...]  # of each source in a block
    starts: tuple[int, ...]  # of each source in the concatenation
    seed: int

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """int64, like `positions`."""
        positions = np.asarray(positions, np.int64)
        blocks, places = np.divmod(positions, sum(self.counts))
        out = np.empty_like(positions)
        unique, inverse = np.unique(blocks, return_inverse=True)
        owners, ranks = self._arrange(unique)
        owner, rank = owners[inverse, places], ranks[inverse, places]
        for i, part in enumerate(self.parts):
            mine = np.flatnonzero(owner == i)
            if len(mine):
                own = part.indices(blocks[mine] * self.counts[i] + rank[mine])
                out[mine] = np.where(own < 0, own, own + self.starts[i])
        return out

    def _arrange(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of every place in these blocks the source, and how many of that source precede it in the
        block: `[blocks, places]` each."""
        size = sum(self.counts)
        words = -(-size // 4)  # a counter of Philox gives four numbers
        keys = np.empty((len(blocks), words * 4), np.uint64)
        # One generator for each run of neighbouring blocks.
        for run in np.split(np.arange(len(blocks)), np.flatnonzero(np.diff(blocks) > 1) + 1):
            if len(run):
                counter = [int(blocks[run[0]]) * words, 0, 0, 1]
                generator = np.random.Philox(key=[self.seed, 0], counter=counter)
                keys[run] = generator.random_raw(len(run) * words * 4).reshape(len(run), -1)
        pattern = np.repeat(np.arange(len(self.counts)), self.counts)
        owners = pattern[np.argsort(keys[:, :size], axis=1, kind="stable")]
        ranks = np.empty_like(owners)
        for i in range(len(self.counts)):
            seen = owners == i
            ranks[seen] = (np.cumsum(seen, axis=1) - 1)[seen]
        return owners, ranks


@dataclass(frozen=True)
class MixtureSource(ConcatenatedSource):
    """Sources one after another, of which training reads `counts` each in every block."""

    counts: tuple[int, ...]

    def make_order(self, seed: int, batch_size: int) -> MixtureOrder:
        parts = tuple(
            make_order(source, (seed + i * FAR) % 2**64, batch_size)
            for i, source in enumerate(self.sources)
        )
        if any(hasattr(part, "length") for part in parts):
            raise UserError("data.mixture and data.buckets do not go together: set one of them")
        starts = tuple(int(start) for start in self.starts[:-1])
        return MixtureOrder(parts, self.counts, starts, seed)


def count_weights(weights: Sequence[float | int]) -> tuple[int, ...]:
    """The smallest whole numbers in the ratio of some weights: (0.5, 0.25) -> (2, 1).

    Raises UserError on a weight that is not positive, and on ratios of very large numbers.
    """
    for weight in weights:
        if not (weight > 0 and math.isfinite(weight)):
            raise UserError(f"data.mixture: weight {weight} is not a positive number")
    fractions = [Fraction(repr(float(weight))) for weight in weights]
    scale = math.lcm(*(f.denominator for f in fractions))
    counts = [int(f * scale) for f in fractions]
    common = math.gcd(*counts)
    counts = [count // common for count in counts]
    if sum(counts) > MOST:
        raise UserError(
            f"data.mixture: weights {', '.join(map(str, weights))} are in the ratio of "
            f"{':'.join(map(str, counts))}; a block of more than {MOST:,} is too long: round them"
        )
    return tuple(counts)


def open_mixture(config: DataConfig) -> Dataset:
    """`data.mixture`: training examples by weight; 'val' and 'test' are those of all sources, held
    out by `validation_fraction` and `test_fraction` of the sources that have none.

    Raises UserError where the sources differ in their fields, their sizes or their classes.
    """
    counts = count_weights(list(config.mixture.values()))
    if config.fold:
        raise UserError("data.fold is for one source, not for data.mixture")
    if config.columns:
        raise UserError("data.columns is for one source: name the columns of data.mixture alike")
    parts = [_open_part(source, config) for source in config.mixture]
    for part in parts[1:]:
        _refuse_difference(parts[0], part)
    return mix(parts, counts)


def _open_part(source: str, config: DataConfig) -> Dataset:
    """One source, with the parts held out that it lacks."""
    whole = dataclasses.replace(
        config, source=source, mixture={}, validation_fraction=0.0, test_fraction=0.0
    )
    part = open_raw(whole)
    lacks = {
        key: getattr(config, key)
        for key, split in (("validation_fraction", "val"), ("test_fraction", "test"))
        if split not in part.splits
    }
    return resplit(part, dataclasses.replace(whole, **lacks))


def mix(parts: Sequence[Dataset], counts: Sequence[int]) -> Dataset:
    """Datasets of the same fields as one, `counts` of each in every block of training."""
    splits: dict[str, Source] = {}
    for split in ("train", "val", "test"):
        have = tuple(part.splits[split] for part in parts if split in part.splits)
        if split == "train":
            splits[split] = MixtureSource(have, tuple(counts))
        elif have:
            splits[split] = have[0] if len(have) == 1 else ConcatenatedSource(have)
    names = " + ".join(f"{c} x {p.name}" for p, c in zip(parts, counts, strict=True))
    digest = hashlib.sha256(f"mixture:{tuple(counts)}".encode())
    for part in parts:
        digest.update(part.fingerprint.encode())
    rows = [f"{name}: {len(part.splits['train']):,}" for part in parts for name in [part.name]]
    notes = (f"mixture: {names} in every {sum(counts)} examples (train {', '.join(rows)})",)
    return dataclasses.replace(
        parts[0],
        name=names,
        splits=splits,
        fingerprint=digest.hexdigest(),
        notes=(*notes, *(note for part in parts for note in part.notes)),
    )


def _refuse_difference(first: Dataset, other: Dataset) -> None:
    """Raises UserError, naming both, where two sources do not fit together."""
    a, b = first.name, other.name
    if first.shapes.keys() != other.shapes.keys():
        mine, theirs = (", ".join(d.shapes) for d in (first, other))
        raise UserError(f"data.mixture: {a} has the fields {mine}; {b} has {theirs}")
    for field, shape in first.shapes.items():
        if field != "image" and shape != other.shapes[field]:
            raise UserError(
                f"data.mixture: {field} of {a} is {list(shape)}, of {b} {list(other.shapes[field])}"
            )
    if (first.num_classes, first.class_names) != (other.num_classes, other.class_names):
        strange = sorted(set(first.class_names) ^ set(other.class_names))[:3]
        counts = f"{first.num_classes} and {other.num_classes} classes"
        raise UserError(
            f"data.mixture: {a} and {b} differ in their classes: {counts}"
            + (f", only one has {', '.join(strange)}" if strange else "")
        )
