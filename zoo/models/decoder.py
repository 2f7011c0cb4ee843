"""Decoders: a token is predicted from those before it. GPT-2 (Radford et al. 2019).

Pre-norm, norm epsilon 1e-5, the tanh form of GELU, learned positions, the output tied to the
embedding. Initialised as in the paper: normal of deviation 0.02 (`initializer_range`), divided by
sqrt(2 * depth) for the matrices that write into the residual stream; biases zero. (OpenAI's code
draws the positions with 0.01; here 0.02.) Dropout acts on the embedding and on each branch, not on
attention weights.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import UserError
from zoo.models.layers import Attend, Attention, FeedForward, Initializer, attend, drop
from zoo.models.stack import init_stack_cache, run_stack

# name -> width, depth, heads, positions; vocabulary 50,257 and feed-forward 4 * width throughout.
# GPT-2: the four published sizes. GPT-3: table 2.1 of Brown et al. 2020, dense attention in all
# layers; its 24 heads of 128 in a width of 2,048 (XL) and its width of 5,140 (13B) do not add up to
# the table's own totals, 16 heads and 5,120 do.
SIZES = {
    "gpt2": (768, 12, 12, 1024),
    "gpt2_medium": (1024, 24, 16, 1024),
    "gpt2_large": (1280, 36, 20, 1024),
    "gpt2_xl": (1600, 48, 25, 1024),
    "gpt3_125m": (768, 12, 12, 2048),
    "gpt3_350m": (1024, 24, 16, 2048),
    "gpt3_760m": (1536, 24, 16, 2048),
    "gpt3_1.3b": (2048, 24, 16, 2048),
    "gpt3_2.7b": (2560, 32, 32, 2048),
    "gpt3_6.7b": (4096, 32, 32, 2048),
    "gpt3_13b": (5120, 40, 40, 2048),
    "gpt3_175b": (12288, 96, 96, 2048),
}


class Block(nn.Module):
    """A pre-norm transformer block that looks back."""

    num_heads: int
    hidden: int
    dropout: float
    norm_epsilon: float
    kernel_init: Initializer
    out_init: Initializer
    attend: Attend
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], layer: None, cache: Any, shared: dict[str, Any]
    ) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        """`shared` has `mask`, and `start`: the first place of these tokens in the cache."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        inits = {"kernel_init": self.kernel_init, "out_init": self.out_init}
        y = nn.LayerNorm(self.norm_epsilon, name="norm1", **types)(x)
        y, aux = Attention(self.num_heads, self.attend, name="attn", **inits, **types)(
            y, mask=shared["mask"], causal=cache is None, cache=cache, start=shared["start"]
        )
        x = x + drop(y, self.dropout, "dropout")
        y = nn.LayerNorm(self.norm_epsilon, name="norm2", **types)(x)
        x = x + FeedForward(
            self.hidden,
            "gelu_tanh",
            dropout=self.dropout,
            bias_init=nn.initializers.zeros,
            name="mlp",
            **inits,
            **types,
        )(y)
        return x, {**aux, "hidden": x}


class Decoder(nn.Module):
    """Tokens to the logits of the next token at every place."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int | None = None  # feed-forward width; None: 4 * width
    vocab_size: int = 50257
    num_positions: int = 1024
    dropout: float = 0.0
    norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scan_layers: bool = False
    remat: Literal["none", "full", "dots"] = "none"
    attend: Attend = attend
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        positions: Int[Array, "b t"] | None = None,
        segments: Int[Array, "b t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        cache: dict[str, Any] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b t v"], dict[str, Any]]:
        """`mask` is true where a token is real; `segments` numbers documents that must not see each
        other. With a `cache` of `init_cache` the tokens follow those it holds.

        Returns float32 logits and aux: `attention` `[layers, b, n, t, s]`, `hidden`
        `[layers, b, t, d]`, and the new `cache` where one was given. Raises UserError on more
        tokens than positions.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.normal(self.initializer_range)
        dropout = self.dropout if train else 0.0
        self._check_length(tokens.shape[1])
        start = 0 if cache is None else cache["length"]
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed", **types)
        pos = self.param("pos", init, (self.num_positions, self.width), self.param_dtype)
        if positions is None:
            here = jax.lax.dynamic_slice_in_dim(pos, start, tokens.shape[1])
        else:
            here = pos[positions]
        x = drop(embed(tokens) + here.astype(self.dtype), dropout, "dropout")
        shared: dict[str, Any] = {"mask": join_masks(mask, segments), "start": start}
        if cache is not None:
            seen = jnp.ones(tokens.shape, bool) if mask is None else mask
            seen = jax.lax.dynamic_update_slice_in_dim(cache["mask"], seen, start, axis=1)
            shared["mask"] = look_back(seen, start, tokens.shape[1])
        x, aux = run_stack(
            self._block(dropout),
            self.depth,
            x,
            cache=None if cache is None else cache["blocks"],
            shared=shared,
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        if cache is not None:
            length = start + tokens.shape[1]
            aux["cache"] = {"blocks": aux["cache"], "mask": seen, "length": length}
        x = nn.LayerNorm(self.norm_epsilon, name="norm", **types)(x)
        table = embed.embedding.astype(self.dtype)
        return jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32), aux

    def _block(self, dropout: float) -> Block:
        """The template of the stack."""
        return Block(
            self.num_heads,
            self.hidden or 4 * self.width,
            dropout,
            self.norm_epsilon,
            nn.initializers.normal(self.initializer_range),
            nn.initializers.normal(self.initializer_range / math.sqrt(2 * self.depth)),
            self.attend,
            self.dtype,
            self.param_dtype,
            parent=None,
        )

    def init_cache(self, batch: int, length: int) -> dict[str, Any]:
        """An empty cache for `length` tokens a row. Raises UserError on more than positions."""
        self._check_length(length)
        attention = Attention(self.num_heads, dtype=self.dtype, parent=None)
        return {
            "blocks": init_stack_cache(
                lambda: attention.init_cache(batch, length, self.width),
                self.depth,
                self.scan_layers,
            ),
            "mask": jnp.zeros((batch, length), bool),
            "length": jnp.zeros((), jnp.int32),
        }

    def _check_length(self, length: int) -> None:
        if length > self.num_positions:
            raise UserError(
                f"the model has {self.num_positions} positions, not {length}: shorten the text "
                "(data.length) or set model.arguments.num_positions"
            )

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        return (jax.ShapeDtypeStruct((batch_size, self.num_positions), jnp.int32),)


def join_masks(
    mask: Bool[Array, "b t"] | None, segments: Int[Array, "b t"] | None
) -> Bool[Array, "b 1 #t t"] | None:
    """What may be looked at: real tokens, of the same segment."""
    joined = None if mask is None else mask[:, None, None, :]
    if segments is None:
        return joined
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return same if joined is None else same & joined


def look_back(seen: Bool[Array, "b s"], start: Any, num_queries: int) -> Bool[Array, "b 1 t s"]:
    """The mask of queries at places `start`, `start + 1`, ... of a cache."""
    places = jnp.arange(seen.shape[1])
    back = places <= start + jnp.arange(num_queries)[:, None]
    return seen[:, None, None, :] & back
