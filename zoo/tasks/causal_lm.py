"""The next token from those before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.tasks.cross_entropy import sum_losses, sum_losses_in_parts
from zoo.tasks.supervised import argument, call_model, init_model, run_model

# Logits of fewer tokens are no burden beside a model's other activations.
SMALL_VOCABULARY = 8192


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
    metric. Nor is `z_loss` times log²(Z) of each token (zoo/tasks/cross_entropy.py), added too.

    Of a vocabulary from `SMALL_VOCABULARY` on, the logits of only `places` places of each row are
    there at a time, where the model can read out a few of them (0: all at once).
    """

    head: ClassVar[str] = "lm"  # of models that have several

    model: nn.Module
    token_bytes: np.ndarray | None
    balance: float = argument(0.01)
    z_loss: float = argument(0.0)
    places: int = argument(128)

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
    def create(cls, model: nn.Module, info: Any, **arguments: Any) -> CausalLM:
        cls.num_outputs(info)
        for name, value in arguments.items():
            if not 0 <= value < math.inf:
                raise UserError(f"task.arguments.{name}={value} should be 0 or more")
        return cls(model, info.tokenizer.token_bytes, **arguments)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy, in training with z-loss and the experts' balance; `weight` counts
        targets."""
        total, losses, counts, aux = self._score(params, batch, key)
        sums = {"loss": losses.sum(), "weight": counts.sum()}
        if self.token_bytes is not None:
            sums["bytes"] = self._count_bytes(batch, counts).sum()
        if key is not None and "imbalance" in aux:
            total = total + self.balance * aux["imbalance"] * counts.sum()
        return total, sums

    def _score(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """What is minimised of the targets, the loss of each `[b, t]`, 1 where it counts, and the
        model's aux."""
        inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        counts = jnp.broadcast_to(batch["mask"].astype(jnp.float32)[:, None], targets.shape)
        if "real" in batch:
            counts = counts * batch["real"]
        packed = {k: batch[k][:, :-1] for k in ("segments", "positions") if k in batch}
        # Where nobody reads the logits, they are not computed.
        logits, aux = call_model(self.model, params, inputs, key, **packed)
        z_loss = 0.0 if key is None else self.z_loss
        whole = not 0 < self.places < targets.shape[1] or logits.shape[-1] < SMALL_VOCABULARY
        if whole or "stream" not in aux:
            return *sum_losses(logits, targets, counts, z_loss), counts, aux

        def read_out(x: Any, number: Any) -> Any:
            own = None if key is None else jax.random.fold_in(key, number)
            return call_model(self.model, params, x, own, method="read_out")

        read = read_out, aux["stream"], targets, counts, self.places, z_loss
        return *sum_losses_in_parts(*read), counts, aux

    def _count_bytes(self, batch: dict[str, Any], counts: jax.Array) -> jax.Array:
        """Bytes that each target stands for, `[b, t]`."""
        return jnp.asarray(self.token_bytes, jnp.float32)[batch["tokens"][:, 1:]] * counts

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """Of each row `loss`, in nats summed over its targets, `num_tokens`, how many they are, and
        `num_bytes`, what they stand for, where the tokenizer tells."""
        _, losses, counts, _ = self._score(params, batch, None)
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
