"""Bare prototypes: the least JAX that does the same arithmetic, dicts of arrays and Optax.

They say what JAX gives on the machine at hand. Nothing of zoo is used but `keep_freed_memory`,
which both sides need, and the readers of files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Params = dict[str, Any]


def make_layers(rng: np.random.Generator, width: int, depth: int, biases: bool) -> list[Params]:
    """Parameters of `depth` blocks."""

    def dense(rows: int, columns: int) -> Params:
        kernel = {"w": rng.normal(0, 0.02, (rows, columns)).astype(np.float32)}
        return {**kernel, "b": np.zeros(columns, np.float32)} if biases else kernel

    return [
        {
            "norm1": make_norm(width, biases),
            "q": dense(width, width),
            "k": dense(width, width),
            "v": dense(width, width),
            "out": dense(width, width),
            "norm2": make_norm(width, biases),
            "fc1": dense(width, 4 * width),
            "fc2": dense(4 * width, width),
        }
        for _ in range(depth)
    ]


def make_norm(width: int, bias: bool) -> Params:
    """Scale of ones, bias of zeros."""
    scale = {"w": np.ones(width, np.float32)}
    return {**scale, "b": np.zeros(width, np.float32)} if bias else scale


def norm(p: Params, x: Any, epsilon: float) -> Any:
    """LayerNorm in float32."""
    dtype, x = x.dtype, x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    variance = (x * x).mean(-1, keepdims=True) - mean * mean
    y = (x - mean) * (jax.lax.rsqrt(variance + epsilon) * p["w"])
    return (y + p["b"] if "b" in p else y).astype(dtype)


def dense(p: Params, x: Any) -> Any:
    """x w + b."""
    y = x @ p["w"].astype(x.dtype)
    return y + p["b"].astype(x.dtype) if "b" in p else y


def gelu(x: Any, by_tanh: bool) -> Any:
    """The tanh form (GPT-2) or the exact one."""
    if by_tanh:
        return jax.nn.gelu(x, approximate=True)
    return x * (1 + jax.lax.erf(x * math.sqrt(0.5))) * 0.5


def run_layers(
    layers: list[Params], x: Any, heads: int, causal: bool, epsilon: float, by_tanh: bool
) -> Any:
    """Pre-norm blocks, unrolled, the heads beside the batch."""
    b, t, d = x.shape
    split = lambda y: y.reshape(b, t, heads, -1).swapaxes(1, 2)  # noqa: E731
    for p in layers:
        y = norm(p["norm1"], x, epsilon)
        q, k, v = (split(dense(p[name], y)) for name in "qkv")
        q = q * (d // heads) ** -0.5
        scores = jnp.einsum("bnth,bnsh->bnts", q, k, preferred_element_type=jnp.float32)
        if causal:
            scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -1e30)
        mixed = jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scores).astype(x.dtype), v)
        x = x + dense(p["out"], mixed.swapaxes(1, 2).reshape(b, t, d))
        y = dense(p["fc1"], norm(p["norm2"], x, epsilon))
        x = x + dense(p["fc2"], gelu(y, by_tanh))
    return x


def cross_entropy(logits: Any, targets: Any) -> Any:
    """The mean, in float32."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)
    return losses.mean()


def make_gpt(
    rng: np.random.Generator, vocab: int, positions: int, width: int, depth: int, biases: bool
) -> Params:
    """Parameters of a GPT-2 whose output is tied to the embedding."""
    return {
        "embed": rng.normal(0, 0.02, (vocab, width)).astype(np.float32),
        "pos": rng.normal(0, 0.02, (positions, width)).astype(np.float32),
        "layers": make_layers(rng, width, depth, biases),
        "norm": make_norm(width, biases),
    }


def make_gpt_loss(heads: int, dtype: str) -> Callable[..., Any]:
    """`loss(params, tokens)`, tokens `[b, t + 1]`."""

    def loss(p: Params, tokens: Any) -> Any:
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        table = p["embed"].astype(dtype)
        x = table[inputs] + p["pos"][: inputs.shape[1]].astype(dtype)
        x = run_layers(p["layers"], x, heads, causal=True, epsilon=1e-5, by_tanh=True)
        x = norm(p["norm"], x, 1e-5)
        logits = jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
        return cross_entropy(logits, targets)

    return loss


def make_step(loss: Callable[..., Any], optimizer: optax.GradientTransformation) -> Any:
    """`(carry, batch) -> (carry, loss)`, to be jitted or scanned."""

    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    return step


def time_bare_steps(
    loss: Callable[..., Any], params: Params, batch: tuple[Any, ...], num_steps: int
) -> Callable[[], float]:
    """Seconds a step of AdamW, one step a call, on one batch that is already placed."""
    optimizer = optax.adamw(1e-4, weight_decay=0.01)
    step = jax.jit(make_step(loss, optimizer), donate_argnums=0)
    batch = jax.tree.map(jnp.asarray, batch)
    carry = jax.tree.map(jnp.array, (params, jax.jit(optimizer.init)(params)))

    def turn() -> float:
        nonlocal carry
        start = time.perf_counter()
        for _ in range(num_steps):
            carry, value = step(carry, batch)
        jax.block_until_ready(value)
        return (time.perf_counter() - start) / num_steps

    return turn
