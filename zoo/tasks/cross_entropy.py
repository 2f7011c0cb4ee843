"""Cross-entropy over a vocabulary, of which the logits `[b, t, v]` are never there at once.

Of GPT-2 the logits of 4 x 1,024 tokens are 823 MB, and their gradient as much again: more than all
the rest. But each place's loss is its own. So the places are read out a few at a time, and where a
gradient is wanted that of a few is taken right behind their logits: nothing is computed twice, and
nothing of size `v` but the gradient of the output matrix stays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ReadOut = Callable[[Any, Any], Any]  # a part of the stream `[b, s, d]` and its number -> logits


def score_tokens(
    logits: Float[Array, "*n v"], targets: Int[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The cross-entropy of each target, and log Z, the logarithm of the softmax's denominator."""
    log_z = jax.nn.logsumexp(logits, axis=-1)
    return log_z - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0], log_z


def is_best(logits: Float[Array, "*n v"], targets: Int[Array, "*n"]) -> Bool[Array, "*n"]:
    """Is the target the token that `argmax` gives: no logit is higher, and no earlier one equal?

    XLA's argmax on a CPU took longer than the loss of 8,000 tokens and its gradient; this takes a
    third of that.
    """
    own = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    earlier = jnp.arange(logits.shape[-1]) < targets[..., None]
    return ~((logits > own) | ((logits == own) & earlier)).any(axis=-1)


def sum_losses(
    logits: Float[Array, "*n v"],
    targets: Int[Array, "*n"],
    counts: Float[Array, "*n"],
    z_loss: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, "*n"]]:
    """What is minimised, and the cross-entropy of each target, 0 where `counts` is 0.

    Minimised is the sum over the targets that count of the cross-entropy plus `z_loss` times
    log²(Z), which keeps the logits from drifting (PaLM, Chowdhery et al. 2022, section 5).
    """
    losses, log_z = score_tokens(logits, targets)
    losses = losses * counts
    penalty = z_loss * (jnp.square(log_z) * counts).sum() if z_loss else 0.0
    return losses.sum() + penalty, losses


def sum_losses_in_parts(
    read_out: ReadOut,
    stream: Float[Array, "b t d"],
    targets: Int[Array, "b t"],
    counts: Float[Array, "b t"],
    places: int,
    z_loss: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, "b t"]]:
    """`sum_losses` of the logits that `read_out` makes of a stream, of `places` of each row at a
    time (of all rows, so that each device always has its own to work on).

    `read_out(x, number)` gives logits `[b, places, v]` of part `number`; what it closes over is
    differentiated too. A gradient comes from what is minimised alone: the losses beside it have
    none.
    """
    places = min(places, stream.shape[1])
    count = math.ceil(stream.shape[1] / places)
    parts = [_cut(x, count, places) for x in (stream, targets, counts)]
    shapes = jax.ShapeDtypeStruct(parts[0].shape[1:], stream.dtype), jnp.arange(1)[0]
    closed, weights = jax.closure_convert(read_out, *shapes)
    total, losses = _sum_parts(closed, z_loss, parts, weights)
    losses = losses.swapaxes(0, 1).reshape(len(stream), -1)[:, : stream.shape[1]]
    return total, jax.lax.stop_gradient(losses)


def _cut(x: Any, count: int, places: int) -> Any:
    """`[b, t, ...]` as `[count, b, places, ...]`, filled up with zeros."""
    room = [(0, 0), (0, count * places - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
    return jnp.pad(x, room).reshape(len(x), count, places, *x.shape[2:]).swapaxes(0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_parts(
    read_out: Callable[..., Any], z_loss: float, parts: list[Any], weights: list[Any]
) -> tuple[Any, Any]:
    """The sum of what is minimised, and the losses `[count, b, places]`."""

    def body(total: Any, inputs: Any) -> tuple[Any, Any]:
        number, (x, targets, counts) = inputs
        value, losses = sum_losses(read_out(x, number, *weights), targets, counts, z_loss)
        return total + value, losses

    numbers = jnp.arange(len(parts[0]))
    return jax.lax.scan(body, jnp.zeros((), jnp.float32), (numbers, parts))


def _sum_parts_forward(
    read_out: Callable[..., Any], z_loss: float, parts: list[Any], weights: list[Any]
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The same, and the gradients of the sum: the parts' own, and of the weights, added up in
    float32 at least."""

    def body(carried: Any, inputs: Any) -> tuple[Any, Any]:
        number, (x, targets, counts) = inputs

        def find_loss(x: Any, weights: list[Any]) -> tuple[Any, Any]:
            return sum_losses(read_out(x, number, *weights), targets, counts, z_loss)

        take = jax.value_and_grad(find_loss, argnums=(0, 1), has_aux=True)
        (value, losses), (of_x, of_weights) = take(x, weights)
        total, so_far = carried
        return (total + value, jax.tree.map(jnp.add, so_far, of_weights)), (losses, of_x)

    zeros = [jnp.zeros(w.shape, jnp.promote_types(w.dtype, jnp.float32)) for w in weights]
    numbers = jnp.arange(len(parts[0]))
    start = jnp.zeros((), jnp.float32), zeros
    (total, of_weights), (losses, of_stream) = jax.lax.scan(body, start, (numbers, parts))
    of_weights = [g.astype(w.dtype) for g, w in zip(of_weights, weights, strict=True)]
    return (total, losses), (of_stream, of_weights)


def _sum_parts_backward(
    read_out: Callable[..., Any], z_loss: float, found: tuple[Any, Any], cotangents: tuple[Any, Any]
) -> tuple[Any, Any]:
    of_stream, of_weights = jax.tree.map(lambda g: (g * cotangents[0]).astype(g.dtype), found)
    return [of_stream, None, None], of_weights


_sum_parts.defvjp(_sum_parts_forward, _sum_parts_backward)
