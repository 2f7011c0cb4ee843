"""What classification and regression share: one model from inputs to outputs, labels beside."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError


def argument(default: Any) -> Any:
    """A task's field that a config may set in `task.arguments`."""
    return dataclasses.field(default=default, metadata={"argument": True})


def get_inputs(batch: dict[str, Any]) -> Any:
    """The model's input in a batch: images, or the features of table rows.

    Raises UserError when it has neither.
    """
    if "image" not in batch and "features" not in batch:
        raise UserError(f"the task takes images or features, the data has {', '.join(batch)}")
    return batch["image"] if "image" in batch else batch["features"]


def init_model(model: nn.Module, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters of a model that says its own input shapes."""
    inputs = [jnp.zeros(spec.shape, spec.dtype) for spec in model.input_specs()]  # type: ignore[attr-defined]
    return model.init(key, *inputs)["params"]


def run_model(model: nn.Module, params: Any, inputs: Any, key: jax.Array | None) -> Any:
    """Outputs of a model; with a key in training mode, dropout on."""
    return call_model(model, params, inputs, key)[0]


def call_model(
    model: nn.Module, params: Any, inputs: Any, key: jax.Array | None, **more: Any
) -> Any:
    """(outputs, aux) of a model; with a key in training mode, dropout on."""
    if key is None:
        return model.apply({"params": params}, inputs, **more)
    return model.apply({"params": params}, inputs, train=True, rngs={"dropout": key}, **more)


def score_classes(
    logits: jax.Array, targets: jax.Array, batch: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The sums `loss`, `correct` and `weight` of logits and targets `[b, c]` over the real rows;
    correct is where the largest logit is that of `label`."""
    mask = batch["mask"].astype(jnp.float32)
    losses = optax.softmax_cross_entropy(logits, targets) * mask
    correct = (logits.argmax(-1) == batch["label"]) * mask
    return {"loss": losses.sum(), "correct": correct.sum(), "weight": mask.sum()}


def mean_sums(sums: Mapping[str, Any], **fields: str) -> dict[str, float]:
    """Each metric as its field of `sums` by their weight."""
    return {name: float(sums[field] / sums["weight"]) for name, field in fields.items()}
