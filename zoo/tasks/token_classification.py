"""A class for each word of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError
from zoo.tasks.supervised import apply_model, check_outputs, init_model, mean_sums


@dataclass(frozen=True)
class TokenClassification:
    """Softmax cross-entropy of `token_label` `[b, t]` where that is no -1 (Devlin et al. 2019,
    section 5.3: the first token of a word tells its class).

    `weight` counts the labelled tokens of the batch; metrics are loss and accuracy, both a labelled
    token.
    """

    head: ClassVar[str] = "token"

    model: nn.Module
    num_classes: int

    @staticmethod
    def num_outputs(info: Any) -> int:
        """Raises UserError when the data has no tagged words."""
        if "token_label" not in info.shapes or not info.num_classes:
            raise UserError(
                f"task.name='token_classification' takes 'words' and 'tags'; {info.name} has "
                f"{', '.join(info.shapes)}"
            )
        return info.num_classes

    @classmethod
    def create(cls, model: nn.Module, info: Any) -> TokenClassification:
        count = cls.num_outputs(info)
        check_outputs(model, count, info.name, "classes of tags")
        return cls(model, count)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def _score(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Logits `[b, t, c]`, losses `[b, t]`, and which tokens count `[b, t]`, as 0 and 1."""
        logits, _ = apply_model(self.model, params, batch, key)
        label = batch["token_label"]
        counts = (label >= 0) * batch["mask"].astype(jnp.float32)[:, None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
        return logits, losses * counts, counts

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy of the labelled tokens."""
        logits, losses, counts = self._score(params, batch, key)
        correct = (logits.argmax(-1) == batch["token_label"]) * counts
        loss_sum = losses.sum()
        return loss_sum, {"loss": loss_sum, "correct": correct.sum(), "weight": counts.sum()}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        return mean_sums(sums, loss="loss", accuracy="correct")

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, t, c]`."""
        return jax.nn.softmax(apply_model(self.model, params, batch, None)[0])

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """`token_logits` `[b, t, c]`, `token_label` `[b, t]`, and `loss` `[b]`, the mean of a row's
        labelled tokens (0 of none)."""
        logits, losses, counts = self._score(params, batch, None)
        loss = losses.sum(axis=1) / jnp.maximum(counts.sum(axis=1), 1)
        return {"token_logits": logits, "token_label": batch["token_label"], "loss": loss}
