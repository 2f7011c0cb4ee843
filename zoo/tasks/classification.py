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
        """Summed cross-entropy; smoothing and mixup only with a key."""
        inputs, mask = get_inputs(batch), batch["mask"].astype(jnp.float32)
        targets = jax.nn.one_hot(batch["label"], self.num_classes)
        if key is not None:
            targets = optax.smooth_labels(targets, self.label_smoothing)
            if self.mixup:
                key, mix_key = jax.random.split(key)
                inputs, targets = mix(mix_key, self.mixup, inputs, targets, mask)
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


def mix(
    key: jax.Array, alpha: float, inputs: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixes each row with its opposite in the batch, by one ratio from Beta(alpha, alpha).

    A row opposite padding stays as it is.
    """
    both_real = mask * mask[::-1]
    ratio = 1 - (1 - jax.random.beta(key, alpha, alpha)) * both_real

    def blend(x: jax.Array) -> jax.Array:
        share = ratio.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)
        return share * x + (1 - share) * x[::-1]

    return blend(inputs), blend(targets)
