"""Numbers from inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError
from zoo.tasks.supervised import apply_model, argument, check_outputs, init_model, refuse_annotated


@dataclass(frozen=True)
class Regression:
    """Squared, absolute or Huber's error on `label` `[b]` or `[b, k]`.

    The last (Huber 1964) is half the square up to `delta` and a line from there on, with `delta` in
    units of the training deviation. The model learns targets of mean 0 and deviation 1 (of the
    training set); `loss` is in these units, `mse`, `mae`, `r2` (mean over the k targets) and
    predictions are in the data's own.
    """

    head: ClassVar[str] = "sequence"  # of models that have several

    model: nn.Module
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    standardize: bool = argument(True)
    error: Literal["squared", "absolute", "huber"] = argument("squared")
    delta: float = argument(1.0)

    @staticmethod
    def num_outputs(info: Any) -> int:
        """Raises UserError when the labels are classes."""
        refuse_annotated(info, "regression")
        if info.num_classes:
            raise UserError(
                f"task.name='regression', but {info.name} has {info.num_classes} classes "
                "(did you mean 'classification'?)"
            )
        return int(info.statistics["label"][0].size)

    @classmethod
    def create(
        cls, model: nn.Module, info: Any, standardize: bool = True, **arguments: Any
    ) -> Regression:
        if not 0 < arguments.get("delta", 1.0) < math.inf:
            raise UserError(f"task.arguments.delta={arguments['delta']} should be above 0")
        if "delta" in arguments and arguments.get("error") != "huber":
            raise UserError("task.arguments.delta is for task.arguments.error='huber'")
        check_outputs(model, cls.num_outputs(info), info.name, "values an example")
        mean, deviation = (tuple(map(float, part.reshape(-1))) for part in info.statistics["label"])
        if not standardize:
            mean, deviation = (0.0,) * len(mean), (1.0,) * len(mean)
        return cls(model, mean, deviation, standardize, **arguments)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed error in units of the training deviation, mean over the targets."""
        mask = batch["mask"].astype(jnp.float32)[:, None]
        values, targets = self._compare(params, batch, key)
        errors = (values - targets) * mask
        loss_sum = self._losses(errors).sum()
        sums = {
            "loss": loss_sum,
            "weight": mask.sum(),
            "squared": jnp.square(errors).sum(axis=0),
            "absolute": jnp.abs(errors).sum(axis=0),
            "target": (targets * mask).sum(axis=0),
            "target_squared": (jnp.square(targets) * mask).sum(axis=0),
        }
        return loss_sum, sums

    def _compare(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Values and targets `[b, k]`, both in the data's units around the training mean: the sums
        behind R² lose no digits to a large offset."""
        outputs, _ = apply_model(self.model, params, batch, key)
        targets = batch["label"].astype(jnp.float32).reshape(outputs.shape)
        return outputs * jnp.asarray(self.deviation), targets - jnp.asarray(self.mean)

    def _losses(self, errors: jax.Array) -> jax.Array:
        """Losses `[b]` of errors in units of the training deviation, mean over the targets."""
        errors = errors / jnp.asarray(self.deviation)
        if self.error == "absolute":
            losses = jnp.abs(errors)
        elif self.error == "huber":
            losses = optax.huber_loss(errors, delta=self.delta)
        else:
            losses = jnp.square(errors)
        return losses.mean(axis=1)

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """`prediction` and `target` `[b, k]` in the data's units, and `loss` `[b]`."""
        values, targets = self._compare(params, batch, None)
        return {
            "prediction": values + jnp.asarray(self.mean),
            "target": batch["label"].astype(jnp.float32).reshape(values.shape),
            "loss": self._losses(values - targets),
        }

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        weight = sums["weight"]
        spread = sums["target_squared"] - sums["target"] ** 2 / weight
        return {
            "loss": float(sums["loss"] / weight),
            "mse": float((sums["squared"] / weight).mean()),
            "mae": float((sums["absolute"] / weight).mean()),
            "r2": float((1 - sums["squared"] / spread.clip(1e-12)).mean()),
        }

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Values `[b, k]` in the data's own units."""
        outputs, _ = apply_model(self.model, params, batch, None)
        return outputs * jnp.asarray(self.deviation) + jnp.asarray(self.mean)
