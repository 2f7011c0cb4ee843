"""A task of a user's own that observes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax

from zoo.tasks.supervised import apply_model, init_model


@dataclass(frozen=True)
class Bare:
    """Softmax cross-entropy of `label` `[b]`, and a metric of its own."""

    model: Any

    @staticmethod
    def num_outputs(info: Any) -> int:
        return info.num_classes

    @classmethod
    def create(cls, model: Any, info: Any) -> Bare:
        return cls(model)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(self, params: Any, batch: dict[str, Any], key: Any) -> Any:
        logits, _ = apply_model(self.model, params, batch, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        loss = (losses * batch["mask"]).sum()
        return loss, {"loss": loss, "weight": batch["mask"].sum()}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        return {"bits": float(sums["loss"] / sums["weight"]) / 0.6931471805599453}

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        return jax.nn.softmax(apply_model(self.model, params, batch, None)[0])
