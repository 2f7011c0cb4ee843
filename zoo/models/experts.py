"""A mixture of experts: each token goes through the few feed-forwards that a router chooses.

Mixtral (Jiang et al. 2024): gated experts, the weights of the chosen ones sum to one. The letters
are those of `layers.py`; `e` experts, `m` tokens of all rows or of one expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.models.layers import ACTIVATIONS, Activation, Initializer, drop

Product = Callable[[Any, Any], Any]  # (tokens, kernels `e d f`) -> each token by its expert's


class Kernels(nn.Module):
    """One matrix for each expert, `[experts, in, out]`."""

    shape: tuple[int, int, int]
    init: Initializer
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self) -> Float[Array, "e d f"]:
        return self.param("kernel", self.init, self.shape, self.param_dtype)


class Experts(nn.Module):
    """Gated feed-forwards of one shape, no biases: `fc2(activation(gate(x)) * fc1(x))`."""

    num_experts: int
    hidden: int
    activation: Activation
    kernel_init: Initializer
    out_init: Initializer
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Any, multiply: Product) -> Any:
        def dense(x: Any, width: int, name: str, init: Initializer) -> Any:
            shape = (self.num_experts, x.shape[-1], width)
            kernels = Kernels(shape, init, self.param_dtype, name=name)()
            return multiply(x.astype(self.dtype), kernels.astype(self.dtype))

        y = dense(x, self.hidden, "fc1", self.kernel_init)
        gate = dense(x, self.hidden, "gate", self.kernel_init)
        y = ACTIVATIONS[self.activation](gate) * y
        return dense(y, x.shape[-1], "fc2", self.out_init)


class MixtureOfExperts(nn.Module):
    """A router and its experts, in the place of a `FeedForward`.

    With a `capacity_factor` an expert has places for so many times its even share of a row's
    tokens; first choices come first, and what finds no place adds nothing (Lepikhin et al. 2021).
    Padding takes places too. Without one every token finds all its experts.
    """

    num_experts: int
    num_chosen: int
    hidden: int
    activation: Activation = "silu"
    capacity_factor: float | None = None
    dropout: float = 0.0
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    out_init: Initializer = nn.initializers.xavier_uniform()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        """The mixed outputs, and aux with `router`, its logits `b t e`."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        inits = {"kernel_init": self.kernel_init, "out_init": self.out_init}
        router = nn.Dense(
            self.num_experts, use_bias=False, kernel_init=self.kernel_init, name="router", **types
        )
        experts = Experts(
            self.num_experts, self.hidden, self.activation, name="experts", **inits, **types
        )
        logits = router(x).astype(jnp.float32)
        weights, chosen = jax.lax.top_k(jax.nn.softmax(logits), self.num_chosen)
        weights = (weights / weights.sum(-1, keepdims=True)).astype(self.dtype)
        if self.capacity_factor is None:
            y = mix_all(experts, x, weights, chosen)
        else:
            even = x.shape[1] * self.num_chosen / self.num_experts
            y = mix_fitting(experts, x, weights, chosen, math.ceil(even * self.capacity_factor))
        return drop(y, self.dropout, "dropout2"), {"router": logits}


def mix_all(
    experts: Experts, x: Float[Array, "b t d"], weights: Any, chosen: Int[Array, "b t c"]
) -> Float[Array, "b t d"]:
    """Tokens sorted by expert, one ragged product for each matrix: none is dropped."""
    num_chosen, flat = chosen.shape[-1], x.reshape(-1, x.shape[-1])
    order = jnp.argsort(chosen.reshape(-1))
    sizes = jnp.bincount(chosen.reshape(-1), length=experts.num_experts)
    rows = order // num_chosen
    y = experts(flat[rows], lambda x, kernels: jax.lax.ragged_dot(x, kernels, sizes))
    y = y * weights.reshape(-1)[order, None]
    return jnp.zeros(flat.shape, y.dtype).at[rows].add(y).reshape(x.shape)


def mix_fitting(
    experts: Experts, x: Float[Array, "b t d"], weights: Any, chosen: Any, capacity: int
) -> Float[Array, "b t d"]:
    """Tokens at numbered places of each expert, which the compiler can lay over devices."""
    b, t, num_chosen = chosen.shape
    goes = jax.nn.one_hot(chosen, experts.num_experts, dtype=jnp.int32)  # b t c e
    by_choice = goes.swapaxes(1, 2).reshape(b, num_chosen * t, -1)
    before = (jnp.cumsum(by_choice, axis=1) - by_choice).reshape(b, num_chosen, t, -1)
    place = (before.swapaxes(1, 2) * goes).sum(-1)
    places = jax.nn.one_hot(place, capacity, dtype=x.dtype)  # all zero beyond the last
    goes = goes.astype(x.dtype)
    taken = jnp.einsum("btce,btcp->btep", goes, places)
    inputs = jnp.einsum("btep,btd->ebpd", taken, x).reshape(experts.num_experts, -1, x.shape[-1])
    y = experts(inputs, lambda x, kernels: jnp.einsum("emd,edf->emf", x, kernels))
    shares = jnp.einsum("btce,btcp,btc->btep", goes, places, weights.astype(x.dtype))
    return jnp.einsum("btep,ebpd->btd", shares, y.reshape(experts.num_experts, b, capacity, -1))


def find_imbalance(
    router: Float[Array, "l b t e"], num_chosen: int, mask: Bool[Array, "b t"] | None
) -> Float[Array, ""]:
    """What to add to a loss, by a small factor, so that experts are chosen alike: `e` times the sum
    over experts of share of choices times mean probability, over all layers and real tokens; it is
    `num_chosen` at balance (Fedus et al. 2021, equations 4 to 6; transformers' Mixtral)."""
    probabilities = jax.nn.softmax(router)
    _, chosen = jax.lax.top_k(probabilities, num_chosen)
    choices = jax.nn.one_hot(chosen, router.shape[-1]).sum(-2)
    real = jnp.ones(router.shape[1:3]) if mask is None else mask.astype(jnp.float32)
    weights = jnp.broadcast_to(real[None, ..., None], (*router.shape[:3], 1))
    share, mean = ((x * weights).sum((0, 1, 2)) / weights.sum() for x in (choices, probabilities))
    return router.shape[-1] * (share * mean).sum()
