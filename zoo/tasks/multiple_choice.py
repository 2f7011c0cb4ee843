"""The right one of several answers to a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import optax

from zoo.config import UserError
from zoo.tasks.supervised import apply_model, init_model, mean_sums, score_classes


@dataclass(frozen=True)
class MultipleChoice:
    """Softmax cross-entropy of `label` `[b]` over the choices of each question, `tokens`
    `[b, c, t]`: each choice beside its question is a row of the model's, which gives it one logit
    (Radford et al. 2018, section 3.3; Devlin et al. 2019, section 4.4). Metrics are loss and
    accuracy.
    """

    head: ClassVar[str] = "multiple_choice"

    model: nn.Module

    @staticmethod
    def num_outputs(info: Any) -> int:
        """1, a row's. Raises UserError when the data has no choices."""
        if len(info.shapes.get("tokens", ())) != 2:
            raise UserError(
                f"task.name='multiple_choice' takes 'question', 'choices' and 'label'; {info.name} "
                f"has {', '.join(info.shapes)}"
            )
        return 1

    @classmethod
    def create(cls, model: nn.Module, info: Any) -> MultipleChoice:
        cls.num_outputs(info)
        return cls(model)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def _find_logits(self, params: Any, batch: dict[str, Any], key: jax.Array | None) -> jax.Array:
        """`[b, c]`."""
        shape = batch["tokens"].shape
        rows: dict[str, Any] = {
            name: batch[name].reshape(-1, shape[-1])
            for name in ("tokens", "token_mask", "types")
            if name in batch
        }
        logits, _ = apply_model(self.model, params, rows, key)
        return logits.reshape(shape[:2])

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy; `weight` counts questions."""
        logits = self._find_logits(params, batch, key)
        sums = score_classes(logits, jax.nn.one_hot(batch["label"], logits.shape[1]), batch)
        return sums["loss"], sums

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        return mean_sums(sums, loss="loss", accuracy="correct")

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, c]`."""
        return jax.nn.softmax(self._find_logits(params, batch, None))

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """`logits` `[b, c]`, `label` and `loss` `[b]`."""
        logits, label = self._find_logits(params, batch, None), batch["label"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return {"logits": logits, "label": label, "loss": loss}
