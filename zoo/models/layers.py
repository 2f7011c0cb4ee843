"""The parts every model is made of.

Letters in shapes and einsums, everywhere in zoo: `b` batch, `t` query tokens, `s` key tokens,
`d` width, `f` feed-forward width, `n` heads, `k` key/value heads, `h` head dimension,
`v` vocabulary, `c` classes; images are `b y x ch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Attend = Callable[..., Any]
"""An attention part, `(q, k, v, mask, causal) -> out`: q `b t n h`, k and v `b s n h`, mask
`b 1 t s` true where a query may look, or None; `causal` (t equals s): at itself and back only."""

Initializer = Callable[..., Any]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    # By erf: jax.nn.gelu's exact form goes by erfc, three times as slow on a CPU.
    "gelu": lambda x: x * (1 + jax.lax.erf(x * math.sqrt(0.5))) * 0.5,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
}


def attention_weights(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s n h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
) -> Float[Array, "b n t s"]:
    """Softmax of scaled products, in float32; rows sum to one (Vaswani et al. 2017)."""
    q, k = q.swapaxes(1, 2), k.swapaxes(1, 2)  # heads beside the batch: on CPU much the faster form
    scores = jnp.einsum("bnth,bnsh->bnts", q, k, preferred_element_type=jnp.float32)
    scores = scores * (q.shape[-1] ** -0.5)
    if causal:
        back = jnp.tril(jnp.ones((1, 1, *scores.shape[2:]), bool))
        mask = back if mask is None else mask & back
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores, axis=-1)


def attend(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s n h"],
    v: Float[Array, "b s n h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
) -> Float[Array, "b t n h"]:
    """The plain attention part, the fastest on a CPU."""
    weights = attention_weights(q, k, mask, causal).astype(v.dtype)
    return jnp.einsum("bnts,bnsh->bnth", weights, v.swapaxes(1, 2)).swapaxes(1, 2)


def attend_fused(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s n h"],
    v: Float[Array, "b s n h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
) -> Float[Array, "b t n h"]:
    """The attention part that JAX fuses for an accelerator."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


def choose_attend(platform: str) -> Attend:
    """The fastest attention part of a platform: 'cpu', 'gpu', 'tpu'."""
    return attend if platform == "cpu" else attend_fused


class Attention(nn.Module):
    """Multi-head attention of `x` over itself, or over `context`."""

    num_heads: int
    attend: Attend = attend
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    out_init: Initializer = nn.initializers.xavier_uniform()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: Float[Array, "b s d"] | None = None,
        mask: Bool[Array, "#b 1 #t l"] | None = None,
        causal: bool = False,
        cache: dict[str, Any] | None = None,
        start: Any = 0,
    ) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        """Returns the mixed tokens and aux with `attention`, weights `b n t s`.

        With a `cache` (`init_cache`) the new keys and values take its places from `start` on, the
        queries look at all places that `mask` allows, and aux holds the new `cache`.
        """
        width = x.shape[-1]

        def project(name: str, inputs: Any, init: Initializer) -> Any:
            types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            return nn.Dense(width, kernel_init=init, name=name, **types)(inputs)

        def split(y: Any) -> Any:
            return y.reshape(*y.shape[:2], self.num_heads, -1)

        source = x if context is None else context
        q = split(project("q", x, self.kernel_init))
        k = split(project("k", source, self.kernel_init))
        v = split(project("v", source, self.kernel_init))
        aux = {}
        if cache is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cache["k"], k, start, axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(cache["v"], v, start, axis=1)
            aux["cache"] = {"k": k, "v": v}
        mixed = self.attend(q, k, v, mask, causal)
        # Beside the attention part, which may be a fused kernel: under jit it costs nothing unless
        # somebody asks for it.
        aux["attention"] = attention_weights(q, k, mask, causal)
        return project("out", mixed.reshape(*x.shape[:2], width), self.out_init), aux

    def init_cache(self, batch: int, length: int, width: int) -> dict[str, Any]:
        """Empty places for the keys and values of `length` tokens, `b s n h` each."""
        shape = (batch, length, self.num_heads, width // self.num_heads)
        return {"k": jnp.zeros(shape, self.dtype), "v": jnp.zeros(shape, self.dtype)}


class FeedForward(nn.Module):
    """Two dense layers with an activation between them, dropout after it and at the end."""

    hidden: int
    activation: str = "gelu"
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
            return nn.Dense(width, kernel_init=init, bias_init=self.bias_init, name=name, **types)

        y = ACTIVATIONS[self.activation](dense(self.hidden, "fc1", self.kernel_init)(x))
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


def sincos_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Fixed 2-d sine-cosine positions, `[rows * columns, width]` (Chen et al. 2021, MoCo v3).

    `width` must be a multiple of 4: sine and cosine of the column, then of the row.
    """
    if width % 4:
        raise ValueError(f"sincos positions need a width divisible by 4, not {width}")
    y, x = np.mgrid[:rows, :columns]
    rates = 1.0 / 10_000 ** (np.arange(width // 4) / max(width // 4 - 1, 1))
    angles_x, angles_y = x.reshape(-1, 1) * rates, y.reshape(-1, 1) * rates
    parts = [np.sin(angles_x), np.cos(angles_x), np.sin(angles_y), np.cos(angles_y)]
    return np.concatenate(parts, axis=1).astype(np.float32)
