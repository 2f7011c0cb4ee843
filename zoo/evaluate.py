"""Evaluation: every example of a split exactly once, sums added up in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np


def evaluate(
    eval_step: Callable[[Any, Any], dict[str, Any]],
    summarise: Callable[[dict[str, Any]], dict[str, float]],
    params: Any,
    batches: Iterable[Any],
) -> dict[str, float]:
    """Metrics of `params` over placed batches; one is worked on while the next is read."""
    total: Any = None
    waiting: Any = None
    for batch in batches:
        sums = eval_step(params, batch)
        total = _add(total, waiting)
        waiting = sums
    return summarise(_add(total, waiting))


def _add(total: Any, sums: Any) -> Any:
    if sums is None:
        return total
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(sums))
    return sums if total is None else jax.tree.map(np.add, total, sums)
