"""The blocks of every stack, made of parts that the model composes: norms, attention, feed-forward.

Called by `run_stack` as `block(x, layer, cache, shared) -> (x, aux)`. `shared["attn"]` and
`shared["cross"]` are what attention takes beside the tokens (mask, positions, context);
a block with a `cross` has a cache of its two parts, `self` and `cross`;
`shared["kinds"]`, with a leading axis, what it takes in each kind of layer (window, positions), and
`layer["kind"]` says which kind this is; `layer["drop_rate"]` is its rate of stochastic depth. aux:
`attention` `b n t s`, `cross` likewise where there is a context, `hidden` `b t d`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from zoo.models.attention import Attention
from zoo.models.experts import MixtureOfExperts
from zoo.models.layers import FeedForward, StochasticDepth, drop


def pick_kind(shared: dict[str, Any], layer: Any) -> dict[str, Any]:
    """What attention takes in this kind of layer."""
    if "kinds" not in shared:
        return {}
    return jax.tree.map(lambda kinds: kinds[layer["kind"]], shared["kinds"])


def split_cache(cache: Any, cross: Any) -> tuple[Any, Any]:
    """The cache of a block's attention over itself, and of the one over a context."""
    return (cache, None) if cache is None or cross is None else (cache["self"], cache["cross"])


def join_cross(aux: dict[str, Any], cross_aux: dict[str, Any]) -> dict[str, Any]:
    """The aux of a block from that of its two kinds of attention."""
    joined = {**aux, "cross": cross_aux["attention"]}
    if "cache" in aux:
        joined["cache"] = {"self": aux["cache"], "cross": cross_aux["cache"]}
    return joined


class PreNormBlock(nn.Module):
    """Each branch sees the normed stream and adds to it: `x + branch(norm(x))`.

    `end1` and `end2` are what attention and feed-forward end in, where there is such a part
    (DINOv2's layer scale, Gemma's norm): `x + end1(attn(norm1(x)))`. A `MixtureOfExperts` adds its
    own aux.
    """

    norm1: nn.Module
    attn: Attention
    norm2: nn.Module
    mlp: FeedForward | MixtureOfExperts
    cross_norm: Any = None
    cross: Attention | None = None
    end1: Any = None
    end2: Any = None
    dropout: float = 0.0  # after attention; the feed-forward has its own
    stochastic_depth: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], layer: Any, cache: Any, shared: dict[str, Any]
    ) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        def add(x: Any, branch: Any, name: str, end: Any = None) -> Any:
            branch = branch if end is None else end(branch)
            if self.stochastic_depth:
                branch = StochasticDepth(name=name)(branch, layer["drop_rate"])
            return x + branch

        own, crossed = split_cache(cache, self.cross)
        y, aux = self.attn(self.norm1(x), cache=own, **shared["attn"], **pick_kind(shared, layer))
        x = add(x, drop(y, self.dropout, "dropout"), "drop1", self.end1)
        if self.cross is not None:
            y, cross_aux = self.cross(self.cross_norm(x), cache=crossed, **shared["cross"])
            x = add(x, drop(y, self.dropout, "cross_dropout"), "drop_cross")
            aux = join_cross(aux, cross_aux)
        y = self.mlp(self.norm2(x))
        y, routed = y if isinstance(y, tuple) else (y, {})
        x = add(x, y, "drop2", self.end2)
        return x, {**aux, **routed, "hidden": x}


class PostNormBlock(nn.Module):
    """Each sum of stream and branch is normed: `norm(x + branch(x))` (Vaswani et al. 2017)."""

    attn: Attention
    norm1: nn.Module
    mlp: FeedForward
    norm2: nn.Module
    cross: Attention | None = None
    cross_norm: Any = None
    dropout: float = 0.0  # after attention; the feed-forward has its own

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], layer: Any, cache: Any, shared: dict[str, Any]
    ) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        own, crossed = split_cache(cache, self.cross)
        y, aux = self.attn(x, cache=own, **shared["attn"])
        x = self.norm1(x + drop(y, self.dropout, "dropout"))
        if self.cross is not None:
            y, cross_aux = self.cross(x, cache=crossed, **shared["cross"])
            x = self.cross_norm(x + drop(y, self.dropout, "cross_dropout"))
            aux = join_cross(aux, cross_aux)
        x = self.norm2(x + self.mlp(x))
        return x, {**aux, "hidden": x}
