"""Attention: parts for each platform, relative positions, one Linen module.

The letters of the shapes are those of `layers.py`. A key/value head (`k`) is shared by the `n / k`
query heads that lie side by side (Ainslie et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import UserError
from zoo.models.layers import drop
from zoo.models.rotary import Rotary, rotate

Attend = Callable[..., Any]
"""An attention part, `(q, k, v, mask, causal, bias, scale, cap, segments) -> out`: q `b t n h`, k
and v `b s k h`; mask `b 1 t s` true where a query may look, or None; `causal` (t equals s): at
itself and back only; bias `1 n t s`, added to the scores, or None; scale of the scores, None:
`h ** -0.5`; cap: the scaled scores become `cap * tanh(scores / cap)` before the bias, or None;
segments `b t` (t equals s): a query looks at its own only. They are given where there are any."""

Initializer = Callable[..., Any]


def attention_weights(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s k h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#b n t s"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
    segments: Int[Array, "b t"] | None = None,
) -> Float[Array, "b n t s"]:
    """Softmax of scaled products, in float32; rows sum to one (Vaswani et al. 2017)."""
    b, t, n, h = q.shape
    s, num_kv_heads = k.shape[1:3]
    # Heads beside the batch: on CPU much the faster form. The queries of one key head are one
    # longer sequence.
    q = q.swapaxes(1, 2).reshape(b, num_kv_heads, -1, h)
    scores = jnp.einsum("bkth,bksh->bkts", q, k.swapaxes(1, 2), preferred_element_type=jnp.float32)
    scores = scores.reshape(b, n, t, s) * (h**-0.5 if scale is None else scale)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    if bias is not None:
        scores = scores + bias
    mask = join_segments(mask, segments)
    if causal:
        back = jnp.tril(jnp.ones((1, 1, t, s), bool))
        mask = back if mask is None else mask & back
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores, axis=-1)


def attend(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s k h"],
    v: Float[Array, "b s k h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#b n t s"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
    segments: Int[Array, "b t"] | None = None,
) -> Float[Array, "b t n h"]:
    """The plain attention part, the fastest on a CPU."""
    return mix_values(attention_weights(q, k, mask, causal, bias, scale, cap, segments), v)


def join_segments(
    mask: Bool[Array, "#b 1 #t s"] | None, segments: Int[Array, "b t"] | None
) -> Bool[Array, "#b 1 #t s"] | None:
    """The mask that keeps queries within their segments too."""
    if segments is None:
        return mask
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return same if mask is None else same & mask


def mix_values(
    weights: Float[Array, "b n t s"], v: Float[Array, "b s k h"]
) -> Float[Array, "b t n h"]:
    """The values by their weights."""
    b, n, t, s = weights.shape
    num_kv_heads, h = v.shape[2:]
    weights = weights.astype(v.dtype).reshape(b, num_kv_heads, -1, s)
    mixed = jnp.einsum("bkts,bksh->bkth", weights, v.swapaxes(1, 2))
    return mixed.reshape(b, n, t, h).swapaxes(1, 2)


def widen_mask(mask: Bool[Array, "b t"] | None) -> Bool[Array, "b 1 1 t"] | None:
    """Of keys, the same for all heads and queries."""
    return None if mask is None else mask[:, None, None, :]


class Attention(nn.Module):
    """Multi-head attention of `x` over itself, or over `context`."""

    num_heads: int
    attend: Attend = attend
    num_kv_heads: int | None = None  # None: as many as query heads
    head_dim: int | None = None  # None: width / num_heads
    causal: bool = False
    crosses: bool = False  # over a context: a cache holds all its keys and values
    scale: float | None = None  # of the scores; None: head_dim ** -0.5
    cap: float | None = None  # of the scaled scores (Gemma Team 2024)
    # Makes the norms of queries and keys over the head dimension, before rotary positions, by name
    # (Henry et al. 2020).
    make_norm: Callable[..., nn.Module] | None = None
    bias: bool = True
    out_bias: bool = True
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    q_init: Initializer | None = None  # None: kernel_init
    out_init: Initializer = nn.initializers.xavier_uniform()
    # Of the weights, each for itself, after the softmax (Vaswani et al. 2017's code, BERT, GPT-2).
    # The plain part runs then whatever `attend` is: fused kernels have no such dropout.
    dropout: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: Float[Array, "b s e"] | None = None,
        mask: Bool[Array, "#b 1 #t l"] | None = None,
        segments: Int[Array, "b t"] | None = None,
        bias: Float[Array, "#b n t l"] | None = None,
        rotary: Rotary | None = None,
        window: Any = None,
        cache: dict[str, Any] | None = None,
        start: Any = 0,
    ) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        """Returns the mixed tokens and aux with `attention`, weights `b n t s` before dropout.

        Queries look within their `segments`; `bias` is added to the scores, `rotary`
        (`rotary_angles`) turns queries and keys; a `window`: less than so many places back. With a
        `cache` (`init_cache`) the new keys and values take its places from `start` on, the queries
        look where `mask` allows, and aux holds the new `cache`. One that `crosses` fills its cache
        from the context, and looks there where none is given. Raises UserError on heads that do
        not divide the width, or key/value heads that do not divide the heads.
        """
        width = x.shape[-1]
        head_dim, num_kv_heads = self._divide(width)

        def project(name: str, inputs: Any, num_heads: int, init: Initializer) -> Any:
            made = {"use_bias": self.bias, "kernel_init": init, "name": name, **types}
            y = nn.Dense(num_heads * head_dim, **made)(inputs)
            return y.reshape(*y.shape[:2], num_heads, head_dim)

        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def turn(y: Any, name: str) -> Any:
            y = y if self.make_norm is None else self.make_norm(name=name)(y)
            return y if rotary is None else rotate(y, *rotary)

        q = turn(project("q", x, self.num_heads, self.q_init or self.kernel_init), "q_norm")
        if self.crosses and context is None and cache is not None:
            k, v = (cache[name].swapaxes(1, 2) for name in ("k", "v"))
        else:
            source = x if context is None else context
            k = turn(project("k", source, num_kv_heads, self.kernel_init), "k_norm")
            v = project("v", source, num_kv_heads, self.kernel_init)
        aux: dict[str, Any] = {}
        if cache is not None:
            aux["cache"] = held = hold(k, v, None if self.crosses else cache, start)
            k, v = held["k"].swapaxes(1, 2), held["v"].swapaxes(1, 2)
        if window is not None:
            near = is_near(window, start, q.shape[1], k.shape[1])
            mask = near if mask is None else mask & near
        how = (mask, self.causal and cache is None, bias, self.scale, self.cap)
        packed = {} if segments is None else {"segments": segments}
        # Beside the part, which may be a kernel: under jit free unless somebody asks for it.
        aux["attention"] = attention_weights(q, k, *how, **packed)
        dropped = drop(aux["attention"], self.dropout, "dropout")
        mixed = mix_values(dropped, v) if self.dropout else self.attend(q, k, v, *how, **packed)
        mixed = mixed.reshape(*x.shape[:2], -1)
        out = nn.Dense(
            width, use_bias=self.out_bias, kernel_init=self.out_init, name="out", **types
        )
        return out(mixed), aux

    def init_cache(self, batch: int, length: int, width: int) -> dict[str, Any]:
        """Empty places for the keys and values of `length` tokens, `b k s h` each: as attention
        multiplies them on a CPU, so that no step turns the whole cache round."""
        head_dim, num_kv_heads = self._divide(width)
        shape = (batch, num_kv_heads, length, head_dim)
        return {"k": jnp.zeros(shape, self.dtype), "v": jnp.zeros(shape, self.dtype)}

    def _divide(self, width: int) -> tuple[int, int]:
        """The head dimension and the number of key/value heads."""
        num_kv_heads = self.num_kv_heads or self.num_heads
        if self.head_dim is None and width % self.num_heads:
            raise UserError(f"a width of {width} does not divide into {self.num_heads} heads")
        if self.num_heads % num_kv_heads:
            raise UserError(f"{self.num_heads} heads cannot share {num_kv_heads} key/value heads")
        return self.head_dim or width // self.num_heads, num_kv_heads


def hold(
    k: Float[Array, "b s k h"], v: Float[Array, "b s k h"], cache: dict[str, Any] | None, start: Any
) -> dict[str, Any]:
    """Keys and values as a cache holds them, at its places from `start` on; without one they are
    all of it."""
    new = {"k": k.swapaxes(1, 2), "v": v.swapaxes(1, 2)}
    if cache is None:
        return new
    return {
        name: jax.lax.dynamic_update_slice_in_dim(cache[name], new[name], start, axis=2)
        for name in new
    }


def is_near(window: Any, start: Any, num_queries: int, num_keys: int) -> Bool[Array, "1 1 t s"]:
    """Which keys lie less than `window` places before each query; queries begin at `start`."""
    queries = start + jnp.arange(num_queries)[:, None]
    return (queries - jnp.arange(num_keys) < window)[None, None]


def relative_buckets(
    distances: Int[Array, "t s"], num_buckets: int, max_distance: int, both_ways: bool
) -> Int[Array, "t s"]:
    """The bucket of each distance, key place less query place (Raffel et al. 2020).

    Half of the buckets are exact small distances, the others grow by a factor up to `max_distance`.
    `both_ways` gives one half of all to the keys ahead; otherwise those count as distance 0.
    """
    offset = jnp.zeros_like(distances)
    if both_ways:
        num_buckets //= 2
        offset = jnp.where(distances > 0, num_buckets, 0)
        distances = jnp.abs(distances)
    else:
        distances = jnp.maximum(-distances, 0)
    exact = num_buckets // 2
    share = jnp.log(jnp.maximum(distances, 1) / exact) / math.log(max_distance / exact)
    far = exact + (share * (num_buckets - exact)).astype(distances.dtype)
    return offset + jnp.where(distances < exact, distances, jnp.minimum(far, num_buckets - 1))


class RelativePositions(nn.Module):
    """A learned bias of the scores for each head and bucket of distances (Raffel et al. 2020)."""

    num_heads: int
    num_buckets: int
    max_distance: int
    both_ways: bool
    embedding_init: Initializer = nn.initializers.normal(1.0)
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, query_places: Int[Array, " t"], key_places: Int[Array, " s"]
    ) -> Float[Array, "1 n t s"]:
        shape = (self.num_buckets, self.num_heads)
        table = self.param("embedding", self.embedding_init, shape, self.param_dtype)
        distances = key_places[None, :] - query_places[:, None]
        buckets = relative_buckets(distances, self.num_buckets, self.max_distance, self.both_ways)
        return table.astype(jnp.float32)[buckets].transpose(2, 0, 1)[None]
