"""Metrics of `train.metrics`: known before training starts, measured at each of its evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.config import Config, UserError, nearest
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
    if names and not hasattr(task, "observe"):
        raise UserError(
            f"train.metrics: task {config.task.name!r} has no method observe(params, batch), which "
            f"{names[0]!r} is made of"
        )
    if names:
        shapes = jax.eval_shape(task.observe, params, dict(batch))
        blank = {name: np.zeros((2, *x.shape[1:]), x.dtype) for name, x in shapes.items()}
        try:
            find_metrics(blank, names)
        except UserError as error:
            raise UserError(f"train.metrics: {error}") from None
    best = config.checkpoint.best_metric
    if best is not None:
        known = [f"val/{name}" for name in (*own_metrics(task, params, batch), *names)]
        if best not in known:
            raise UserError(
                f"checkpoint.best_metric={best!r} is not measured{nearest(best, known)}; "
                "train.metrics names further metrics"
            )


def own_metrics(task: Any, params: Any, batch: Mapping[str, Any]) -> list[str]:
    """The names of the metrics that a task itself gives."""
    sums = jax.eval_shape(lambda p, b: task.loss(p, b, None)[1], params, dict(batch))
    ones = {name: np.ones(x.shape) for name, x in sums.items()}
    with np.errstate(all="ignore"):
        return list(task.summarise(ones))
