"""The parts every model is made of.

Letters in shapes and einsums, everywhere in zoo: `b` batch, `t` query tokens, `s` key tokens,
`d` width, `f` feed-forward width, `n` heads, `k` key/value heads, `h` head dimension,
`v` vocabulary, `c` classes; images are `b y x ch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Initializer = Callable[..., Any]
Activation = Literal["sigmoid", "tanh", "relu", "gelu", "gelu_tanh", "gelu_quick", "silu"]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    # By erf: jax.nn.gelu's exact form goes by erfc, three times as slow on a CPU.
    "gelu": lambda x: x * (1 + jax.lax.erf(x * math.sqrt(0.5))) * 0.5,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_quick": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
}


class PlusOneRMSNorm(nn.Module):
    """RMSNorm times `1 + scale`, in float32 until the end; the scale begins at zero (Gemma Team
    2024)."""

    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + self.epsilon)
        return (x * (1 + scale.astype(jnp.float32))).astype(self.dtype)


Norm = Literal["layer", "rms", "rms_plus_one"]
NORMS: dict[str, Callable[..., nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
    "rms_plus_one": PlusOneRMSNorm,
}


def make_norm(kind: str, epsilon: float, **types: Any) -> nn.Module:
    """A norm, 'layer' (Ba et al. 2016), 'rms' (Zhang & Sennrich 2019) or 'rms_plus_one': a part for
    a block, or the caller's own where it is given a `name`."""
    if "name" not in types:
        types["parent"] = None
    return NORMS[kind](epsilon, **types)


class FeedForward(nn.Module):
    """Two dense layers with an activation between them, dropout after it and at the end.

    `gated`: `fc2(activation(gate(x)) * fc1(x))` (Shazeer 2020).
    """

    hidden: int
    activation: Activation = "gelu"
    gated: bool = False
    bias: bool = True
    inner_dropout: float = 0.0
    dropout: float = 0.0
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    out_init: Initializer = nn.initializers.xavier_uniform()
    bias_init: Initializer = nn.initializers.normal(1e-6)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        def dense(width: int, name: str, init: Initializer) -> nn.Dense:
            types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            inits = {"kernel_init": init, "bias_init": self.bias_init}
            return nn.Dense(width, use_bias=self.bias, name=name, **inits, **types)

        activate = ACTIVATIONS[self.activation]
        y = dense(self.hidden, "fc1", self.kernel_init)(x)
        if self.gated:
            y = activate(dense(self.hidden, "gate", self.kernel_init)(x)) * y
        else:
            y = activate(y)
        y = drop(y, self.inner_dropout, "dropout1")
        return drop(dense(x.shape[-1], "fc2", self.out_init)(y), self.dropout, "dropout2")


def drop(x: Any, rate: float, name: str) -> Any:
    """Dropout; a rate of 0, as in evaluation, asks for no random key."""
    return nn.Dropout(rate, deterministic=False, name=name)(x) if rate else x


class StochasticDepth(nn.Module):
    """Drops a residual branch of whole examples with probability `rate` (Huang et al. 2016)."""

    @nn.compact
    def __call__(self, branch: Float[Array, "b t d"], rate: Any) -> Float[Array, "b t d"]:
        keep = 1.0 - jnp.asarray(rate, jnp.float32)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (branch.shape[0], 1, 1))
        return jnp.where(kept, branch / keep.astype(branch.dtype), jnp.zeros((), branch.dtype))


class LayerScale(nn.Module):
    """Weighs the features of a branch before it is added (Touvron et al. 2021, CaiT)."""

    init: float
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, branch: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        init = nn.initializers.constant(self.init)
        scale = self.param("scale", init, (branch.shape[-1],), self.param_dtype)
        return branch * scale.astype(self.dtype)


def sincos_positions(rows: int, columns: int, width: int, ends: bool = True) -> np.ndarray:
    """Fixed 2-d sine-cosine positions, `[rows * columns, width]` (Chen et al. 2021, MoCo v3).

    `width` must be a multiple of 4: sine and cosine of the column, then of the row. The rates fall
    evenly in their logarithm from 1 to 1/10000, which is the last one where `ends`, as in
    big_vision, and comes after the last one where not, as in MoCo v3 and MAE.
    """
    if width % 4:
        raise ValueError(f"sincos positions need a width divisible by 4, not {width}")
    y, x = np.mgrid[:rows, :columns]
    steps = max(width // 4 - 1, 1) if ends else width // 4
    rates = 1.0 / 10_000 ** (np.arange(width // 4) / steps)
    angles_x, angles_y = x.reshape(-1, 1) * rates, y.reshape(-1, 1) * rates
    parts = [np.sin(angles_x), np.cos(angles_x), np.sin(angles_y), np.cos(angles_y)]
    return np.concatenate(parts, axis=1).astype(np.float32)
