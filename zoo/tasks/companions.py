"""Models that a task has beside the one that is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from zoo.tasks.supervised import init_model
from zoo.tree import COMPANIONS


@dataclass(frozen=True)
class Companion:
    """What a task asks of such a model.

    head: the head it needs, of a model that can have several (None: that of the task).
    default: a model's name where the config names none (None: it has to).
    same_classes: a teacher: its head is the one it was trained with, and where that tells classes,
      they are the data's, in their order.
    """

    head: str | None = None
    default: str | None = None
    same_classes: bool = False


def init_models(model: nn.Module, key: jax.Array, **beside: nn.Module) -> dict[str, Any]:
    """Fresh parameters of a model, and of its companions by their names."""
    params = init_model(model, key)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(beside))
    made = {n: init_model(m, k) for (n, m), k in zip(beside.items(), keys, strict=True)}
    return {**params, COMPANIONS: made}
