"""The next token from those before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.config import UserError
from zoo.tasks.supervised import call_model, init_model, run_model


@dataclass(frozen=True)
class CausalLM:
    """Softmax cross-entropy of each token of `tokens` `[b, t + 1]` but the first.

    `real` `[b, t]`, where the batch has it, is false at targets that do not count; `segments` and
    `positions` `[b, t + 1]` of packed documents are the model's, so that none looks at another.
    Metrics are the
    loss in nats a token, perplexity, and bits a byte of the text that the tokens stand for, which
    is comparable between tokenizers (tokens between documents cost bits and are no bytes).

    A model with experts is also trained to choose them alike: `balance` times its aux `imbalance`
    is added to each token's loss (of each part of an accumulated batch by itself), and is in no
    metric.
    """

    head: ClassVar[str] = "lm"  # of models that have several

    model: nn.Module
    token_bytes: np.ndarray | None
    balance: float = field(default=0.01, metadata={"argument": True})

    @staticmethod
    def num_outputs(info: Any) -> int:
        """The vocabulary. Raises UserError when the data is no text, or text of another kind."""
        if info.tokenizer is None:
            raise UserError(f"task.name='causal_lm', but {info.name} is no text")
        if "tokens" not in info.shapes or "token_mask" in info.shapes:
            raise UserError(
                f"task.name='causal_lm' takes a corpus ('text' alone) or 'prompt' and "
                f"'completion'; {info.name} has {', '.join(info.shapes)}"
            )
        return info.tokenizer.vocab_size

    @classmethod
    def create(cls, model: nn.Module, info: Any, balance: float = 0.01) -> CausalLM:
        cls.num_outputs(info)
        return cls(model, info.tokenizer.token_bytes, balance)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy, in training with the experts' balance; `weight` counts targets."""
        losses, counts, aux = self._score(params, batch, key)
        loss_sum = losses.sum()
        sums = {"loss": loss_sum, "weight": counts.sum()}
        if self.token_bytes is not None:
            sums["bytes"] = self._count_bytes(batch, counts).sum()
        if key is not None and "imbalance" in aux:
            loss_sum = loss_sum + self.balance * aux["imbalance"] * counts.sum()
        return loss_sum, sums

    def _score(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        """The loss of each target `[b, t]`, 1 where it counts, and the model's aux."""
        inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        counts = jnp.broadcast_to(batch["mask"].astype(jnp.float32)[:, None], targets.shape)
        if "real" in batch:
            counts = counts * batch["real"]
        packed = {k: batch[k][:, :-1] for k in ("segments", "positions") if k in batch}
        logits, aux = call_model(self.model, params, inputs, key, **packed)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets) * counts
        return losses, counts, aux

    def _count_bytes(self, batch: dict[str, Any], counts: jax.Array) -> jax.Array:
        """Bytes that each target stands for, `[b, t]`."""
        return jnp.asarray(self.token_bytes, jnp.float32)[batch["tokens"][:, 1:]] * counts

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """Of each row `loss`, in nats summed over its targets, `num_tokens`, how many they are, and
        `num_bytes`, what they stand for, where the tokenizer tells."""
        losses, counts, _ = self._score(params, batch, None)
        found = {"loss": losses.sum(axis=1), "num_tokens": counts.sum(axis=1)}
        if self.token_bytes is not None:
            found["num_bytes"] = self._count_bytes(batch, counts).sum(axis=1)
        return found

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        loss = float(sums["loss"] / sums["weight"])
        out = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if "bytes" in sums:
            out["bits_per_byte"] = float(sums["loss"] / sums["bytes"].clip(1) / math.log(2))
        return out

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, v]` of the token that follows each row of `tokens`."""
        logits = run_model(self.model, params, batch["tokens"], None)
        return jax.nn.softmax(logits[:, -1])
