"""Decoders: a token is predicted from those before it.

GPT-2 (Radford et al. 2019): pre-norm, LayerNorm epsilon 1e-5, the tanh form of GELU, learned
positions, the output tied to the embedding. Initialised as in the paper: normal of deviation 0.02
(`initializer_range`), divided by sqrt(2 * depth) for the matrices that write into the residual
stream; biases zero. (OpenAI's code draws the positions with 0.01; here 0.02.)

Llama (Touvron et al. 2023): pre-norm, RMSNorm epsilon 1e-5 or 1e-6, gated SiLU, rotary positions,
no biases, an output of its own, key/value heads shared by groups of query heads in the larger ones.
Initialised like GPT-2.

Dropout acts on the embedding and on each branch, not on attention weights.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import UserError
from zoo.models.attention import Attend, Attention, attend
from zoo.models.blocks import PreNormBlock
from zoo.models.layers import Activation, FeedForward, drop, make_norm
from zoo.models.rotary import RotaryScaling, rotary_angles
from zoo.models.stack import init_stack_cache, run_stack


class Decoder(nn.Module):
    """Tokens to the logits of the next token at every place."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    num_kv_heads: int | None = None  # None: as many as heads
    head_dim: int | None = None  # None: width / num_heads
    hidden: int | None = None  # feed-forward width; None: 4 * width
    vocab_size: int = 50257
    num_positions: int = 1024
    positions: Literal["learned", "rotary"] = "learned"
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None
    norm: Literal["layer", "rms"] = "layer"
    norm_epsilon: float = 1e-5
    activation: Activation = "gelu_tanh"
    gated: bool = False
    attention_bias: bool = True
    mlp_bias: bool = True
    tied: bool = True  # the output matrix is the embedding
    head: Literal["lm", "sequence", "none"] = "lm"
    num_classes: int = 2  # of the head 'sequence'
    dropout: float = 0.0
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
    ) -> tuple[Float[Array, "b *t v"], dict[str, Any]]:
        """`mask` is true where a token is real; `segments` numbers documents that must not see each
        other. With a `cache` of `init_cache` the tokens follow those it holds.

        Returns float32 logits `b t v` (head 'sequence': `b c`, read at the last real token; 'none':
        the normed stream `b t d`) and aux: `attention` `[layers, b, n, t, s]`, `hidden`
        `[layers, b, t, d]`, and the new `cache` where one was given. Raises UserError on more
        tokens than positions.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.normal(self.initializer_range)
        dropout = self.dropout if train else 0.0
        self._check_length(tokens.shape[1])
        start = 0 if cache is None else cache["length"]
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed", **types)
        x, rotary = self._add_positions(embed(tokens), positions, start)
        shared: dict[str, Any] = {"mask": join_masks(mask, segments), "start": start}
        if rotary is not None:
            shared["rotary"] = rotary
        if cache is not None:
            seen = jnp.ones(tokens.shape, bool) if mask is None else mask
            seen = jax.lax.dynamic_update_slice_in_dim(cache["mask"], seen, start, axis=1)
            shared["mask"] = look_back(seen, start, tokens.shape[1])
        x, aux = run_stack(
            self._block(dropout),
            self.depth,
            drop(x, dropout, "dropout"),
            cache=None if cache is None else cache["blocks"],
            shared={"attn": shared},
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        if cache is not None:
            length = start + tokens.shape[1]
            aux["cache"] = {"blocks": aux["cache"], "mask": seen, "length": length}
        x = make_norm(self.norm, self.norm_epsilon, name="norm", **types)(x)
        return self._read_out(x, embed, mask), aux

    def _add_positions(self, x: Any, positions: Any, start: Any) -> tuple[Any, Any]:
        """Learned positions are added to the stream, rotary ones go to every attention."""
        if self.positions == "rotary":
            if positions is None:
                positions = start + jnp.arange(x.shape[1])[None]
            how = (self._head_dim(), self.rotary_base, self.rotary_scaling)
            return x, rotary_angles(positions, *how)
        init = nn.initializers.normal(self.initializer_range)
        pos = self.param("pos", init, (self.num_positions, self.width), self.param_dtype)
        if positions is None:
            here = jax.lax.dynamic_slice_in_dim(pos, start, x.shape[1])
        else:
            here = pos[positions]
        return x + here.astype(self.dtype), None

    def _read_out(self, x: Any, embed: nn.Embed, mask: Any) -> Any:
        """The head."""
        if self.head == "none":
            return x.astype(jnp.float32)
        if self.head == "sequence":
            x = x[:, -1] if mask is None else pick_last(x, mask)
        if self.head == "lm" and self.tied:
            table = embed.embedding.astype(self.dtype)
            return jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
        return nn.Dense(
            self.vocab_size if self.head == "lm" else self.num_classes,
            use_bias=False,
            kernel_init=nn.initializers.normal(self.initializer_range),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="head",
        )(x).astype(jnp.float32)

    def _block(self, dropout: float) -> PreNormBlock:
        """The template of the stack."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        into_stream = self.initializer_range / math.sqrt(2 * self.depth)
        inits = {
            "kernel_init": nn.initializers.normal(self.initializer_range),
            "out_init": nn.initializers.normal(into_stream),
        }
        return PreNormBlock(
            norm1=make_norm(self.norm, self.norm_epsilon, **types),
            attn=self._attention(**inits),
            norm2=make_norm(self.norm, self.norm_epsilon, **types),
            mlp=FeedForward(
                self.hidden or 4 * self.width,
                self.activation,
                self.gated,
                self.mlp_bias,
                dropout=dropout,
                bias_init=nn.initializers.zeros,
                parent=None,
                **inits,
                **types,
            ),
            dropout=dropout,
            parent=None,
        )

    def _attention(self, **inits: Any) -> Attention:
        return Attention(
            self.num_heads,
            self.attend,
            self.num_kv_heads,
            self.head_dim,
            causal=True,
            bias=self.attention_bias,
            out_bias=self.attention_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            parent=None,
            **inits,
        )

    def _head_dim(self) -> int:
        return self.head_dim or self.width // self.num_heads

    def init_cache(self, batch: int, length: int) -> dict[str, Any]:
        """An empty cache for `length` tokens a row. Raises UserError on more than positions."""
        self._check_length(length)
        return {
            "blocks": init_stack_cache(
                lambda: self._attention().init_cache(batch, length, self.width),
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


def pick_last(x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """The last real place of each row."""
    places = jnp.arange(mask.shape[1])
    last = jnp.max(jnp.where(mask, places, 0), axis=1)
    return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]


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
