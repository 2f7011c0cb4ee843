"""Which tokens of a text another model has replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError
from zoo.tasks.companions import Companion, init_models
from zoo.tasks.cross_entropy import is_best
from zoo.tasks.masked_lm import Hidden, check_corpus, find_hidden, guess_tokens
from zoo.tasks.supervised import apply_model, argument
from zoo.tree import COMPANIONS, own_params

SHARED = ("embed", "embed_norm", "embed_types", "pos")
"""What generator and discriminator have in common: tokens, types, positions and their norm, as in
the paper's published code."""


@dataclass(frozen=True)
class ReplacedToken:
    """ELECTRA (Clark et al. 2020): a small masked language model, the generator, fills the tokens
    that `data.transform='mask_tokens(0.15, mask=1, random=0)'` hides with what it draws from its
    softmax, and the model tells of each real token whether it was replaced.

    Both are trained at once, on their own losses: no gradient goes through what is drawn. A token
    drawn right counts as not replaced. The embedding is one parameter, the model's, with the
    gradients of both; the generator's tree does not have it. Only the model leaves the run.

    The loss of a row is its number of real tokens times (the generator's mean cross-entropy at its
    hidden places + `discriminator_weight` times the model's mean binary cross-entropy), and
    `weight` counts real tokens: over rows of like sizes that is the paper's sum of two means, and
    for rows of any sizes it adds up over microbatches and devices.

    Metrics are of each of the two: `generator_loss` and `generator_accuracy` a hidden token,
    `discriminator_loss` and `accuracy` a real one, and precision and recall of 'replaced'.

    In evaluation the noise of the drawing is the same in every row, so that what is drawn is a
    function of the row and of its place in no batch.
    """

    head: ClassVar[str] = "replaced_token"
    hides: ClassVar[str] = "mask_tokens(0.15, mask=1, random=0)"  # the operation in the paper
    companions: ClassVar[dict[str, Companion]] = {
        "generator": Companion("masked_lm", "electra_small_generator")
    }

    model: nn.Module
    generator: nn.Module
    discriminator_weight: float = argument(50.0)

    @staticmethod
    def num_outputs(info: Any) -> int:
        """The vocabulary. Raises UserError when the data is no text, or text of another kind."""
        return check_corpus(info, "replaced_token")

    @classmethod
    def create(
        cls,
        model: nn.Module,
        info: Any,
        generator: nn.Module | None,
        discriminator_weight: float = 50.0,
    ) -> ReplacedToken:
        """Raises UserError without a generator, which a finished run has not kept, and where the
        two cannot have one embedding."""
        cls.num_outputs(info)
        if generator is None:
            raise UserError(
                "task.name='replaced_token': the generator, whose tokens are to be told, does not "
                "leave its run (fine-tune the model, init_from=RUN, and measure that)"
            )
        check_embeddings(model, generator)
        return cls(model, generator, discriminator_weight)

    def init(self, key: jax.Array) -> dict[str, Any]:
        params = init_models(self.model, key, generator=self.generator)
        own = {k: v for k, v in params[COMPANIONS]["generator"].items() if k not in SHARED}
        return {**params, COMPANIONS: {"generator": own}}

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The sum of both losses; `weight` counts real tokens, `hidden` hidden ones."""
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        own = own_params(params)
        theirs = {**params[COMPANIONS]["generator"], **{k: own[k] for k in SHARED if k in own}}
        hidden = find_hidden(batch)
        logits = guess_tokens(self.generator, theirs, batch, hidden.places, keys[0])
        drawn = draw_tokens(logits, keys[1])
        tokens = replace_tokens(batch, hidden, drawn)
        replaced = tokens != batch["targets"]
        told, _ = apply_model(self.model, own, {**batch, "tokens": tokens}, keys[2])
        real = batch["token_mask"] * batch["mask"].astype(jnp.float32)[:, None]
        guesses = optax.softmax_cross_entropy_with_integer_labels(logits, hidden.targets)
        guesses = (guesses * hidden.counts).sum(axis=1)
        calls = optax.sigmoid_binary_cross_entropy(told, replaced) * real
        # As much weight to a row's hidden places as to its real tokens.
        share = real.sum(axis=1) / jnp.maximum(hidden.counts.sum(axis=1), 1)
        loss_sum = (guesses * share).sum() + self.discriminator_weight * calls.sum()
        flagged, replaced = (told > 0) * real, replaced * real
        return loss_sum, {
            "loss": loss_sum,
            "weight": real.sum(),
            "hidden": hidden.counts.sum(),
            "generator_loss": guesses.sum(),
            "generator_correct": (is_best(logits, hidden.targets) * hidden.counts).sum(),
            "discriminator_loss": calls.sum(),
            "correct": ((flagged == replaced) * real).sum(),
            "replaced": replaced.sum(),
            "flagged": flagged.sum(),
            "found": (flagged * replaced).sum(),
        }

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        """Precision and recall are 0 where nothing was flagged, or replaced."""
        rows = {
            "loss": ("loss", "weight"),
            "generator_loss": ("generator_loss", "hidden"),
            "generator_accuracy": ("generator_correct", "hidden"),
            "discriminator_loss": ("discriminator_loss", "weight"),
            "accuracy": ("correct", "weight"),
            "precision": ("found", "flagged"),
            "recall": ("found", "replaced"),
        }
        return {
            name: float(sums[above]) / max(float(sums[by]), 1.0)
            for name, (above, by) in rows.items()
        }


def draw_tokens(logits: jax.Array, key: jax.Array | None) -> jax.Array:
    """A token from the softmax of each `logits` `[b, m, v]`, by Gumbel noise, which without a key
    is fixed, and the same in every row: `[b, m]`. No gradient passes."""
    shape = logits.shape if key is not None else logits.shape[1:]
    noise = jax.random.gumbel(jax.random.key(0) if key is None else key, shape)
    return jax.lax.stop_gradient(logits + noise).argmax(-1)


def replace_tokens(batch: Mapping[str, Any], hidden: Hidden, drawn: jax.Array) -> jax.Array:
    """The original tokens `[b, t]` with `drawn` `[b, m]` in the hidden places."""
    rows = jnp.arange(len(drawn))[:, None]
    put = jnp.where(hidden.counts > 0, drawn, hidden.targets)
    return batch["targets"].at[rows, hidden.places].set(put.astype(batch["targets"].dtype))


def check_embeddings(model: nn.Module, generator: nn.Module) -> None:
    """Raises UserError where the two have not the same embedding."""
    ours, theirs = describe_embedding(model), describe_embedding(generator)
    for name, value in ours.items():
        if theirs[name] != value:
            raise UserError(
                f"task.models.generator.arguments.{name} is {theirs[name]}, that of the model "
                f"{value}: their embedding is one (set it to {value})"
            )


def describe_embedding(model: Any) -> dict[str, Any]:
    """The fields of a model that make its embedding."""
    names = ("vocab_size", "num_positions", "num_types", "padding_position", "norm_epsilon")
    fields = {name: getattr(model, name, None) for name in names}
    width = getattr(model, "embedding_width", None) or getattr(model, "width", None)
    return {**fields, "embedding_width": width}
