"""Images and texts that belong together, told from those that do not (CLIP, SigLIP)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from zoo.config import UserError
from zoo.tasks.masked_image import require_images
from zoo.tasks.supervised import init_model, mean_sums

LOG_LIMIT = math.log(100.0)  # of CLIP's scale (Radford et al. 2021, section 2.5)
NEVER = -1e30  # the logit of padding


@jax.custom_vjp
def limit_scale(log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """The logarithm of the scale, at most log(100).

    From the limit on only a gradient that leads back passes, so that a scale that has reached it
    can fall again, and does not go on growing.
    """
    return jnp.minimum(log_scale, LOG_LIMIT)


def _limit_forward(log_scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    return limit_scale(log_scale), log_scale


def _limit_backward(log_scale: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    away = (log_scale >= LOG_LIMIT) & (gradient < 0)
    return (jnp.where(away, 0.0, gradient),)


limit_scale.defvjp(_limit_forward, _limit_backward)


@dataclass(frozen=True)
class Contrastive:
    """Of CLIP the symmetric cross-entropy over the images and the texts of a batch (Radford et al.
    2021), of SigLIP a sigmoid for each pair of an image and a text (Zhai et al. 2023).

    Every other example of the batch is a negative, on whatever device it lies; padding is none. Of
    accumulated microbatches each has its own negatives alone, which makes another loss than that of
    the whole batch. Two examples with the same text are negatives of each other too, as in the
    papers; `accuracy` counts an image as right whose best text is its own, or one of the same
    tokens.

    In evaluation too the loss and the accuracy depend on what else is in a batch, so on
    `train.eval_batch_size`: they show the course of a run. What a model is worth is its zero-shot
    accuracy, `zoo eval RUN --data=SOURCE`.
    """

    compares_examples: ClassVar[bool] = True

    model: Any  # of two towers

    @staticmethod
    def num_outputs(info: Any) -> int:
        """None. Raises UserError where the data is no images."""
        require_images(info, "contrastive")
        return 0

    @classmethod
    def create(cls, model: Any, info: Any) -> Contrastive:
        """Raises UserError on another model, and on texts that it cannot read."""
        if not hasattr(model, "encode_text"):
            raise UserError(
                "task.name='contrastive' trains two towers, such as model.name='clip_vit_b32' or "
                f"'siglip_b16_224', not a {type(model).__name__}"
            )
        tokenizer = info.tokenizer
        ends = tokenizer.has_template and tokenizer.end is not None
        if not model.pairwise and not ends:
            raise UserError(
                "CLIP reads a text at its end token, which this data.tokenizer puts behind none "
                "('wordpiece:512' does)"
            )
        if model.pairwise and tokenizer.pad is None:
            raise UserError(
                "SigLIP reads a text at its last place, behind padding, for which this "
                "data.tokenizer has no token ('wordpiece:512' has)"
            )
        return cls(model)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed over the real examples, each with all texts and images of the batch."""
        mask = batch["mask"].astype(jnp.float32)
        logits = self.compare(params, batch, key)
        real = (mask[:, None] * mask) > 0
        if self.model.pairwise:
            signs = 2 * jnp.eye(len(mask)) - 1
            losses = -jnp.where(real, jax.nn.log_sigmoid(signs * logits), 0.0).sum(1)
        else:
            losses = (_own_entropy(logits, real) + _own_entropy(logits.T, real)) / 2 * mask
        best = jnp.where(real, logits, NEVER).argmax(1)
        same = (batch["tokens"][best] == batch["tokens"]).all(1)
        sums = {"loss": losses.sum(), "correct": (same * mask).sum(), "weight": mask.sum()}
        return sums["loss"], sums

    def compare(self, params: Any, batch: dict[str, Any], key: jax.Array | None) -> jax.Array:
        """Logits `[b, b]`, a row an image, a column a text."""
        model, rngs = self.model, {} if key is None else {"dropout": key}
        if not model.pairwise:
            params = {**params, "logit_scale": limit_scale(params["logit_scale"])}
        # SigLIP's texts are padded to all of its positions, and read at the last.
        whole, length = model.pairwise, batch["tokens"].shape[1]
        if whole and length != model.num_positions:
            raise UserError(
                f"SigLIP reads a text at the last of its {model.num_positions} places, and texts "
                f"are {length} tokens: write caption(..., length={model.num_positions})"
            )
        logits, _ = model.apply(
            {"params": params},
            batch["image"],
            batch["tokens"],
            mask=None if whole else batch["token_mask"],
            train=key is not None,
            rngs=rngs,
        )
        return logits

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        return mean_sums(sums, loss="loss", accuracy="correct")

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Logits `[b, b]` of each image for each text of the batch."""
        return self.compare(params, batch, None)


def _own_entropy(logits: jax.Array, real: jax.Array) -> jax.Array:
    """Cross-entropy `[b]` of each row with the column of its own number."""
    labels = jnp.arange(len(logits))
    return optax.softmax_cross_entropy_with_integer_labels(
        jnp.where(real | jnp.eye(len(logits), dtype=bool), logits, NEVER), labels
    )
