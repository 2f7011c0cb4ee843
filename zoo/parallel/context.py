"""Attention whose tokens are shared by the devices of the axis `context`.

Each device has a part of the queries. `gather` brings it all keys and values and runs the attention
part of the platform, as in Llama 3 (Grattafiori et al. 2024, section 3.3.2); `ring` sends them
round, a part at a time, with a running softmax, so that no device ever holds all of them (Liu et
al. 2023). Both are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from zoo.parallel.mesh import DATA_AXES, count_shares

CONTEXT = "context"
LEAST = float(jnp.finfo(jnp.float32).min)


def share_context(
    attend: Callable[..., Any], mesh: Mesh, how: str = "gather", undivided: bool = False
) -> Any:
    """`attend`, an attention part, with its tokens shared over the mesh; `how` is 'gather' or
    'ring', which has no need of `attend`. An `undivided` one is a kernel that XLA cannot lay over
    devices: each runs it on its own rows and heads.

    Lengths need not divide: the rest is padded and taken away again.
    """
    count = mesh.shape[CONTEXT]
    if mesh.size == 1 or (count == 1 and not undivided):
        return attend

    def share(
        q: Any,
        k: Any,
        v: Any,
        mask: Any = None,
        causal: bool = False,
        bias: Any = None,
        scale: float | None = None,
        cap: float | None = None,
        segments: Any = None,
    ) -> Any:
        """An attention part, of whole arrays."""
        length, num_keys = q.shape[1], k.shape[1]
        if count > 1 and segments is not None:
            same = segments[:, None, :, None] == segments[:, None, None, :]
            mask, segments = same if mask is None else mask & same, None

        def part(q: Any, k: Any, v: Any, mask: Any, bias: Any, segments: Any) -> Any:
            """What one device computes, of its part of the tokens."""
            if count == 1:
                packed = {} if segments is None else {"segments": segments}
                return attend(q, k, v, mask, causal, bias, scale, cap, **packed)
            first = jax.lax.axis_index(CONTEXT) * q.shape[1]
            if how == "ring":
                places = first + jnp.arange(q.shape[1]) if causal else None
                return attend_ring(q, k, v, mask, places, bias, scale, cap, num_keys, count)
            k, v = (gather(x)[:, :num_keys] for x in (k, v))
            if causal:
                back = jnp.arange(num_keys) <= first + jnp.arange(q.shape[1])[:, None]
                mask = back[None, None] if mask is None else mask & back
            return attend(q, k, v, mask, False, bias, scale, cap)

        tokens, table = find_specs(mesh, q, k)
        q, k, v = (pad(x, 1, count) for x in (q, k, v))
        tables = [None if x is None else pad(x, 2, count) for x in (mask, bias)]
        inputs = (q, k, v, *tables, segments)
        rows = None if segments is None else P(tokens[0])
        specs = (tokens, tokens, tokens, *map(table, tables), rows)
        # A kernel does not say over which axes what it gives varies.
        run = jax.shard_map(
            part, mesh=mesh, in_specs=specs, out_specs=tokens, check_vma=not undivided
        )
        out = run(*inputs)
        return out[:, :length]

    return share


def find_specs(mesh: Mesh, q: Any, k: Any) -> tuple[P, Callable[[Any], Any]]:
    """Where `b t n h` lies, and what says it of a mask or bias `#b #n #t s`."""
    rows = DATA_AXES if q.shape[0] % count_shares(mesh) == 0 else None
    heads = "tensor" if q.shape[2] % mesh.shape["tensor"] == 0 else None
    heads = heads if k.shape[2] % mesh.shape["tensor"] == 0 else None

    def table(x: Any) -> Any:
        if x is None:
            return None
        axes = (rows, heads, CONTEXT, None)
        return P(*(axis if size > 1 else None for axis, size in zip(axes, x.shape, strict=True)))

    return P(rows, CONTEXT, heads, None), table


def pad(x: Any, axis: int, unit: int) -> Any:
    """Zeros behind, up to a multiple of `unit`; an axis of 1, which is for all, stays."""
    missing = -x.shape[axis] % unit
    if x.shape[axis] == 1 or not missing:
        return x
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def gather(x: Any) -> Any:
    """All tokens, in their order."""
    return jax.lax.all_gather(x, CONTEXT, axis=1, tiled=True)


def attend_ring(
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    places: Any,
    bias: Any,
    scale: float | None,
    cap: float | None,
    num_keys: int,
    count: int,
) -> Any:
    """Attention of a device's queries `b t n h` over the keys of all, which pass by in `count`
    turns; `places` are those of its queries where attention is causal, and None where it is not.

    The softmax runs along (Milakov & Gimelshein 2018): with each turn the sums so far are scaled
    to the new largest score. Going back, each turn's scores are computed again.
    """
    b, t, n, h = q.shape
    size, num_kv_heads = k.shape[1:3]
    columns = count * size
    q = q.swapaxes(1, 2).reshape(b, num_kv_heads, -1, h)
    mask, bias = (
        None if x is None else jnp.pad(x, [(0, 0)] * 3 + [(0, columns - num_keys)])
        for x in (mask, bias)
    )
    me = jax.lax.axis_index(CONTEXT)

    def turn(carry: Any, index: Any) -> tuple[Any, None]:
        k, v, top, total, mixed = carry
        start = (me - index) % count * size
        keys = start + jnp.arange(size)
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=3)  # noqa: E731
        scores = jnp.einsum(
            "bkth,bksh->bkts", q, k.swapaxes(1, 2), preferred_element_type=jnp.float32
        )
        scores = scores.reshape(b, n, t, size) * (h**-0.5 if scale is None else scale)
        scores = scores if cap is None else cap * jnp.tanh(scores / cap)
        scores = scores if bias is None else scores + cut(bias)
        scores = scores if mask is None else jnp.where(cut(mask), scores, LEAST)
        if places is not None:
            scores = jnp.where(keys <= places[:, None], scores, LEAST)
        # What pads the last part is nowhere, also of a query that may look nowhere.
        scores = jnp.where(keys < num_keys, scores, -jnp.inf)
        higher = jnp.maximum(top, scores.max(-1))
        shares = jnp.exp(scores - higher[..., None])
        fade = jnp.exp(top - higher)
        grouped = shares.astype(v.dtype).reshape(b, num_kv_heads, -1, size)
        new = jnp.einsum("bkts,bksh->bkth", grouped, v.swapaxes(1, 2)).reshape(b, n, t, h)
        total = total * fade + shares.sum(-1)
        mixed = mixed * fade[..., None] + new.astype(jnp.float32)
        ring = [(i, (i + 1) % count) for i in range(count)]
        k, v = (jax.lax.ppermute(x, CONTEXT, ring) for x in (k, v))
        return (k, v, higher, total, mixed), None

    # Zeros that vary over the mesh as what is added to them does.
    zeros = jnp.zeros_like(q, jnp.float32).reshape(b, n, t, h)
    state = (k, v, zeros[..., 0] + LEAST, zeros[..., 0], zeros)
    (_, _, _, total, mixed), _ = jax.lax.scan(jax.checkpoint(turn), state, jnp.arange(count))
    return (mixed / total[..., None]).swapaxes(1, 2).astype(v.dtype)
