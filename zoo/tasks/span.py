"""The place of an answer in a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError
from zoo.tasks.supervised import apply_model, init_model, mean_sums

HIDDEN = -1e30  # the logit of a place that is padding


@dataclass(frozen=True)
class SpanPrediction:
    """Two softmax cross-entropies over the tokens of a row, of the answer's first token `start`
    `[b]` and of its last, `end` `[b]`; the loss is their mean. Both are 0, the first token of all,
    where there is no answer (Devlin et al. 2019, sections 4.2 and 4.3). Padding is no place.

    An example is one window of a context. Metrics are the loss, `accuracy` (both places right) and
    that of each place; predicted are the two that are likeliest together, the end not before the
    start.
    """

    head: ClassVar[str] = "span"

    model: nn.Module

    @staticmethod
    def num_outputs(info: Any) -> int:
        """2. Raises UserError when the data has no answers in texts."""
        if not {"start", "end", "token_mask"} <= set(info.shapes):
            raise UserError(
                f"task.name='span' takes 'question', 'context' and 'answers'; {info.name} has "
                f"{', '.join(info.shapes)}"
            )
        return 2

    @classmethod
    def create(cls, model: nn.Module, info: Any) -> SpanPrediction:
        cls.num_outputs(info)
        return cls(model)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def _find_logits(self, params: Any, batch: dict[str, Any], key: jax.Array | None) -> jax.Array:
        """`[b, t, 2]`, of being the first and the last token."""
        logits, _ = apply_model(self.model, params, batch, key)
        return jnp.where(batch["token_mask"][..., None], logits, HIDDEN)

    def _find_losses(self, logits: jax.Array, batch: dict[str, Any]) -> jax.Array:
        """`[b]`."""
        places = jnp.stack([batch["start"], batch["end"]], axis=1)
        by_place = logits.swapaxes(1, 2)
        return optax.softmax_cross_entropy_with_integer_labels(by_place, places).mean(axis=1)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy; `weight` counts windows."""
        mask = batch["mask"].astype(jnp.float32)
        logits = self._find_logits(params, batch, key)
        start, end = choose_places(logits)
        right = {"start": start == batch["start"], "end": end == batch["end"]}
        right["correct"] = right["start"] & right["end"]
        loss_sum = (self._find_losses(logits, batch) * mask).sum()
        counted = {name: (hits * mask).sum() for name, hits in right.items()}
        return loss_sum, {"loss": loss_sum, **counted, "weight": mask.sum()}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        names = {"accuracy": "correct", "start_accuracy": "start", "end_accuracy": "end"}
        return mean_sums(sums, loss="loss", **names)

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, t, 2]` of being the first and the last token of the answer."""
        return jax.nn.softmax(self._find_logits(params, batch, None), axis=1)

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """`start_logits` and `end_logits` `[b, t]`, `start`, `end` and `loss` `[b]`."""
        logits = self._find_logits(params, batch, None)
        return {
            "start_logits": logits[..., 0],
            "end_logits": logits[..., 1],
            "start": batch["start"],
            "end": batch["end"],
            "loss": self._find_losses(logits, batch),
        }


def choose_places(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and last token `[b]` of the largest sum of two logits `[b, t, 2]`, in order."""
    starts, ends = logits[..., 0], logits[..., 1]
    end = (jax.lax.cummax(starts, axis=1) + ends).argmax(axis=1)
    before = jnp.arange(starts.shape[1]) <= end[:, None]
    return jnp.where(before, starts, -jnp.inf).argmax(axis=1), end
