"""One class out of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError
from zoo.tasks.supervised import argument, get_inputs, init_model, run_model


@dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy on `label` `[b]`; metrics are loss and accuracy.

    `label_smoothing` as in Szegedy et al. 2016. `mixup` is the alpha of Zhang et al. 2018: images
    and targets are mixed with those of the batch read backwards, one ratio a (micro)batch.
    """

    model: nn.Module
    num_classes: int
    label_smoothing: float = argument(0.0)
    mixup: float = argument(0.0)

    @staticmethod
    def num_outputs(info: Any) -> int:
        """Raises UserError when the data has no classes."""
        if not info.num_classes:
            raise UserError(
                f"task.name='classification', but {info.name} has no classes "
                "(did you mean 'regression'?)"
            )
        return info.num_classes

    @classmethod
    def create(cls, model: nn.Module, info: Any, **arguments: Any) -> Classification:
        return cls(model, cls.num_outputs(info), **arguments)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        inputs, mask = get_inputs(batch), batch["mask"].astype(jnp.float32)
        targets = jax.nn.one_hot(batch["label"], self.num_classes)
        if key is not None:
            targets = optax.smooth_labels(targets, self.label_smoothing)
            if self.mixup:
                key, mix_key = jax.random.split(key)
                ratio = jax.random.beta(mix_key, self.mixup, self.mixup)
                # A padded row mixes with itself alone, a real one never with padding.
                real = (mask * mask[::-1])[:, None]
                ratio_of_row = 1 - (1 - ratio) * real
                targets = ratio_of_row * targets + (1 - ratio_of_row) * targets[::-1]
                shape = (-1,) + (1,) * (inputs.ndim - 1)
                ratio_of_row = ratio_of_row.reshape(shape).astype(inputs.dtype)
                inputs = ratio_of_row * inputs + (1 - ratio_of_row) * inputs[::-1]
        logits = run_model(self.model, params, inputs, key)
        losses = optax.softmax_cross_entropy(logits, targets) * mask
        correct = (logits.argmax(-1) == batch["label"]) * mask
        loss_sum = losses.sum()
        return loss_sum, {"loss": loss_sum, "correct": correct.sum(), "weight": mask.sum()}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        weight = sums["weight"]
        return {"loss": float(sums["loss"] / weight), "accuracy": float(sums["correct"] / weight)}

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, c]`."""
        return jax.nn.softmax(run_model(self.model, params, get_inputs(batch), None))
