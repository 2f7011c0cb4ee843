"""Heads of more than one layer that read the encoded tokens."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo.models.layers import ACTIVATIONS, Activation, make_norm


class MaskedLMHead(nn.Module):
    """Dense, activation, norm, then the (tied) output matrix and a bias a token."""

    vocab_size: int
    activation: Activation
    norm_epsilon: float
    kernel_init: Any
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], table: Float[Array, "v e"] | None, width: int
    ) -> Float[Array, "b t v"]:
        """`table` is the embedding where the output is tied to it; `width` that of its rows."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.Dense(width, kernel_init=self.kernel_init, name="fc", **types)(x)
        x = ACTIVATIONS[self.activation](x)
        x = make_norm("layer", self.norm_epsilon, name="norm", **types)(x)
        bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype)
        if table is None:
            inits = {"use_bias": False, "kernel_init": self.kernel_init}
            logits = nn.Dense(self.vocab_size, name="out", **inits, **types)(x)
        else:
            table = table.astype(self.dtype)
            logits = jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
        return logits.astype(jnp.float32) + bias.astype(jnp.float32)


class ReplacedTokenHead(nn.Module):
    """Dense, activation, then one logit a token: was it replaced? (Clark et al. 2020)."""

    activation: Activation
    kernel_init: Any
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t"]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.Dense(x.shape[-1], kernel_init=self.kernel_init, name="fc", **types)(x)
        x = ACTIVATIONS[self.activation](x)
        return nn.Dense(1, kernel_init=self.kernel_init, name="out", **types)(x)[..., 0]
