"""Rows of numbers on their way into a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.apply import apply_ops
from zoo.data.ops import Op, finish
from zoo.use.batches import Item, Portion, Prepared, fill_up


@dataclass(frozen=True)
class FeatureRows:
    """Rows `[d]` through the operations of a run's evaluation."""

    ops: tuple[Op, ...]
    size: int

    def __call__(self, items: Sequence[Item]) -> Prepared:
        features = np.stack([item.content for item in items])
        examples, _ = apply_ops(self.ops, {"features": features}, [None] * len(self.ops))
        arrays = fill_up(finish(examples), self.size)
        return Prepared((Portion(range(len(items)), arrays),))
