"""A task of a user's own: a label for each text, by a decoder with the head 'sequence'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax

from zoo.tasks.supervised import call_model, init_model


@dataclass(frozen=True)
class TextClassification:
    """Softmax cross-entropy of `label` `[b]`."""

    model: Any

    @staticmethod
    def num_outputs(info: Any) -> int:
        return info.num_classes

    @classmethod
    def create(cls, model: Any, info: Any) -> TextClassification:
        return cls(model)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def _logits(self, params: Any, batch: dict[str, Any], key: Any) -> jax.Array:
        return call_model(self.model, params, batch["tokens"], key, mask=batch["token_mask"])[0]

    def loss(self, params: Any, batch: dict[str, Any], key: Any) -> Any:
        logits = self._logits(params, batch, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        loss = (losses * batch["mask"]).sum()
        return loss, {"loss": loss, "weight": batch["mask"].sum()}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        return {"loss": float(sums["loss"] / sums["weight"])}

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        return jax.nn.softmax(self._logits(params, batch, None))
