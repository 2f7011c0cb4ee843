"""Metrics of `train.metrics`: known before training starts, measured at each of its evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.config import Config, UserError
from zoo.metrics import find_metrics


def measure_records(records: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, float]:
    """The named metrics of some records."""
    if not names:
        return {}
    size = len(next(iter(records.values())))
    ones = np.ones((1, size))
    return {m.name: float(m(records, ones)[0]) for m in find_metrics(records, names)}


def check_metrics(config: Config, task: Any, params: Any, batch: Mapping[str, Any]) -> None:
    """Raises UserError on a metric of `train.metrics` that is unknown or not for what this task
    gives, and on a `checkpoint.best_metric` that is none of those measured.

    `params` and `batch` are shapes and dtypes.
    """
    names = config.train.metrics
    if not names:
        return
    if not hasattr(task, "observe"):
        raise UserError(
            f"train.metrics: task {config.task.name!r} has no method observe(params, batch), which "
            f"{names[0]!r} is made of"
        )
    shapes = jax.eval_shape(task.observe, params, dict(batch))
    blank = {name: np.zeros((2, *x.shape[1:]), x.dtype) for name, x in shapes.items()}
    try:
        find_metrics(blank, names)
    except UserError as error:
        raise UserError(f"train.metrics: {error}") from None
