"""Ways into a model that change nothing in it.

A forward pass is watched, or a part of it replaced, by `flax.linen.intercept_methods` while it is
traced; attention weights are moved by an attention part of our own, which every model takes as its
field `attend`. All of it sees the layers one by one: `unroll` first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo.models.attention import attention_weights
from zoo.models.stack import UnrolledStack
from zoo.tree import unstack_layers

EMBEDDINGS = ("embed", "embed_target")  # what the models call their embeddings of tokens

Interceptor = Callable[[Any, Any, Any, Any], Any]


def unroll(model: Any, params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The same model and parameters with its layers one by one, not scanned."""
    if not getattr(model, "scan_layers", False):
        return model, params
    return model.clone(scan_layers=False), unstack_layers(params)


class MovedAttention:
    """The plain attention part with something added to its weights: call `i` adds `moves[i]`,
    `1 n t s`. The gradient with respect to a move of zero is that of the weights.

    For one trace: it counts its calls.
    """

    def __init__(self, moves: Sequence[Float[Array, "1 n t s"]]):
        self.rest = list(moves)

    def __call__(
        self,
        q: Float[Array, "b t n h"],
        k: Float[Array, "b s k h"],
        v: Float[Array, "b s k h"],
        mask: Any = None,
        causal: bool = False,
        bias: Any = None,
        scale: float | None = None,
        cap: float | None = None,
        segments: Any = None,
    ) -> Float[Array, "b t n h"]:
        weights = attention_weights(q, k, mask, causal, bias, scale, cap, segments) + self.rest.pop(
            0
        )
        v = jnp.repeat(v, q.shape[2] // v.shape[2], axis=2)
        return jnp.einsum("bnts,bsnh->btnh", weights.astype(v.dtype), v)


def _watch(wanted: Callable[[Any], bool], act: Callable[..., Any]) -> Any:
    """Runs `act(run)` in place of each call of a wanted module, `run()` being that call."""

    def interceptor(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__" or not wanted(context.module):
            return run(*args, **kwargs)
        return act(lambda: run(*args, **kwargs), *args)

    return nn.intercept_methods(interceptor)


def _is_embedding(module: Any) -> bool:
    return isinstance(module, nn.Embed) and module.name in EMBEDDINGS


def _is_stack(module: Any) -> bool:
    return isinstance(module, UnrolledStack)


@contextlib.contextmanager
def keep_embeddings() -> Iterator[list[Any]]:
    """Collects the embedded tokens, `b t d`, in the order of the model's calls: a source before
    its target."""
    kept: list[Any] = []

    def act(run: Any, *args: Any) -> Any:
        kept.append(run())
        return kept[-1]

    with _watch(_is_embedding, act):
        yield kept


def give_embeddings(embedded: Sequence[Any]) -> Any:
    """A context in which tokens are embedded as these, in the order of the model's calls."""
    rest = list(embedded)
    return _watch(_is_embedding, lambda run, *args: rest.pop(0))


@contextlib.contextmanager
def keep_stacks() -> Iterator[list[Any]]:
    """Collects (input, (output, aux)) of each stack of layers, an encoder's before a decoder's."""
    kept: list[Any] = []

    def act(run: Any, x: Any, *args: Any) -> Any:
        kept.append((x, run()))
        return kept[-1][1]

    with _watch(_is_stack, act):
        yield kept


def give_stacks(results: Sequence[Any]) -> Any:
    """A context in which the stacks give these (output, aux), in the order of the model's calls."""
    rest = list(results)
    return _watch(_is_stack, lambda run, *args: rest.pop(0))


@contextlib.contextmanager
def keep_pool() -> Iterator[list[Any]]:
    """Collects the weights `b n 1 s` by which a learned query pools tokens, where a model does."""
    kept: list[Any] = []

    def act(run: Any, *args: Any) -> Any:
        out, aux = run()
        kept.append(aux["attention"])
        return out, aux

    def wanted(module: Any) -> bool:
        path = getattr(module, "path", ())
        return tuple(path[-2:]) == ("pool", "attn")

    with _watch(wanted, act):
        yield kept
