"""Hidden tokens from all the others."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.config import UserError
from zoo.tasks.cross_entropy import is_best
from zoo.tasks.supervised import apply_model, init_model


class Hidden(NamedTuple):
    """What is to be guessed: at `places` `[b, m]` of each row the `targets`, where `counts` is 1;
    it is 0 where nothing is hidden, and in padding rows."""

    places: jax.Array
    targets: jax.Array
    counts: jax.Array


def find_hidden(batch: Mapping[str, Any]) -> Hidden:
    """The places of a batch that `mask_tokens` made; where it does not name few of them, all."""
    every = jnp.broadcast_to(jnp.arange(batch["real"].shape[1]), batch["real"].shape)
    places = batch.get("places", every)
    real, targets = (jnp.take_along_axis(batch[k], places, axis=1) for k in ("real", "targets"))
    return Hidden(places, targets, real * batch["mask"].astype(jnp.float32)[:, None])


def guess_tokens(
    model: nn.Module,
    params: Any,
    batch: Mapping[str, Any],
    places: jax.Array,
    key: jax.Array | None,
) -> jax.Array:
    """A model's logits `[b, m, v]` at `places` `[b, m]`.

    Our encoders read no others: the matrix product with the vocabulary is the largest of a small
    model, and six of seven tokens are not asked for.
    """
    if "places" in inspect.signature(type(model).__call__).parameters:
        return apply_model(model, params, batch, key, places=places)[0]
    logits, _ = apply_model(model, params, batch, key)
    return jnp.take_along_axis(logits, places[..., None], axis=1)


def check_corpus(info: Any, name: str) -> int:
    """The vocabulary of text in which tokens can be hidden. Raises UserError on other data."""
    if info.tokenizer is None:
        raise UserError(f"task.name={name!r}, but {info.name} is no text")
    if len(info.shapes.get("tokens", ())) != 1:
        raise UserError(
            f"task.name={name!r} takes a corpus ('text' alone) or rows of text; {info.name} has "
            f"{', '.join(info.shapes)}"
        )
    return info.tokenizer.vocab_size


@dataclass(frozen=True)
class MaskedLM:
    """Softmax cross-entropy of the tokens that `data.transform='mask_tokens(0.15)'` hides (Devlin
    et al. 2019).

    How they are hidden is the operation's: 80/10/10 or masks alone, single tokens or
    `whole_word`s. RoBERTa (Liu et al. 2019) is this on a corpus of windows that ends of documents
    do not cut; masks are drawn anew each time an example is read, as there, and are the same ones
    in every evaluation. There is no prediction of next sentences.

    `weight` counts the hidden tokens of the batch. Metrics are loss (nats a token), accuracy and
    perplexity, and beside them what knows nothing of the text: `unigram_accuracy` of always
    guessing the token that is the commonest at these places, and `unigram_loss`, their entropy,
    which no distribution that is the same everywhere goes below. Both are best in hindsight, so a
    model that beats them has learned from the text; over few tokens they flatter the unigram.
    """

    head: ClassVar[str] = "masked_lm"
    hides: ClassVar[str] = "mask_tokens(0.15)"  # the operation in the paper

    model: nn.Module
    vocab_size: int

    @staticmethod
    def num_outputs(info: Any) -> int:
        """The vocabulary. Raises UserError when the data is no text, or text of another kind."""
        return check_corpus(info, "masked_lm")

    @classmethod
    def create(cls, model: nn.Module, info: Any) -> MaskedLM:
        return cls(model, cls.num_outputs(info))

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def _score(
        self, params: Any, batch: Mapping[str, Any], key: jax.Array | None
    ) -> tuple[Hidden, jax.Array, jax.Array]:
        """What is hidden, the loss at each place and whether it was guessed, `[b, m]`."""
        hidden = find_hidden(batch)
        logits = guess_tokens(self.model, params, batch, hidden.places, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, hidden.targets)
        correct = is_best(logits, hidden.targets)
        return hidden, losses * hidden.counts, correct * hidden.counts

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy of the hidden tokens; `targets` `[v]` counts each token there."""
        hidden, losses, correct = self._score(params, batch, key)
        loss_sum = losses.sum()
        table = jnp.zeros(self.vocab_size).at[hidden.targets].add(hidden.counts)
        sums = {"loss": loss_sum, "correct": correct.sum(), "weight": hidden.counts.sum()}
        return loss_sum, {**sums, "targets": table}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        weight, shares = sums["weight"], sums["targets"] / sums["targets"].sum()
        loss = float(sums["loss"] / weight)
        present = shares[shares > 0]
        return {
            "loss": loss,
            "accuracy": float(sums["correct"] / weight),
            "perplexity": math.exp(min(loss, 700.0)),
            "unigram_loss": -float((present * np.log(present)).sum()),
            "unigram_accuracy": float(shares.max()),
        }

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """Of each row `loss`, in nats summed over its hidden tokens, `num_tokens`, how many they
        are, and `num_correct`, how many were guessed."""
        hidden, losses, correct = self._score(params, batch, None)
        sums = {"loss": losses, "num_tokens": hidden.counts, "num_correct": correct}
        return {name: values.sum(axis=1) for name, values in sums.items()}
