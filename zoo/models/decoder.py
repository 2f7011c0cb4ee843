"""Decoders: a token is predicted from those before it.

GPT-2 (Radford et al. 2019): pre-norm, LayerNorm epsilon 1e-5, the tanh form of GELU, learned
positions, the output tied to the embedding. Initialised as in the paper: normal of deviation 0.02
(`initializer_range`), divided by sqrt(2 * depth) for the matrices that write into the residual
stream; biases zero. (OpenAI's code draws the positions with 0.01; here 0.02.)

Llama (Touvron et al. 2023): pre-norm, RMSNorm epsilon 1e-5 or 1e-6, gated SiLU, rotary positions,
no biases, an output of its own, key/value heads shared by groups of query heads in the larger ones.
Initialised like GPT-2.

Llama's form with less or more: Mistral (Jiang et al. 2023), a window; Qwen 2 and 3 (Yang et al.
2024, 2025), biases of queries, keys and values, or norms of queries and keys; Gemma 1, 2 and 3
(Gemma Team 2024, 2025), an embedding times sqrt(width) that is the output too, RMSNorm of epsilon
1e-6 times `1 + scale`, the tanh form of GELU, and from 2 on norms after the branches, capped scores
or norms of queries and keys, windows in some of the layers; Mixtral (Jiang et al. 2024), experts.

Dropout acts on the embedding and on each branch, and as `attention_dropout` on attention weights.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from zoo.config import Remat, UserError
from zoo.models.attention import Attend, Attention, attend, widen_mask
from zoo.models.blocks import PreNormBlock
from zoo.models.experts import MixtureOfExperts, find_imbalance
from zoo.models.layers import Activation, FeedForward, Norm, drop, make_norm
from zoo.models.rotary import RotaryScaling, rotary_angles
from zoo.models.stack import init_stack_cache, run_stack

NO_WINDOW = 2**31 - 1  # of layers that look at all places, beside others that do not


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
    local_rotary_base: float | None = None  # of local layers, unscaled; None: as the others
    window: int | None = None  # local layers look at less than so many places back; None: at all
    layer_pattern: tuple[Literal["local", "global"], ...] = ("local",)  # again and again
    norm: Norm = "layer"
    norm_epsilon: float = 1e-5
    activation: Activation = "gelu_tanh"
    gated: bool = False
    post_norms: bool = False  # of each branch, before it is added
    query_key_norm: bool = False  # over the head dimension, before rotary positions
    score_width: int | None = None  # its root divides the scores; None: the head dimension
    score_cap: float | None = None  # scores become cap * tanh(scores / cap)
    logit_cap: float | None = None  # and so do the logits
    scaled_embedding: bool = False  # times sqrt(width)
    attention_bias: bool = True
    out_bias: bool | None = None  # of attention's output; None: as attention_bias
    mlp_bias: bool = True
    num_experts: int | None = None  # of each feed-forward; None: it is one
    experts_per_token: int = 2
    capacity_factor: float | None = None  # places of an expert; None: no token is dropped
    tied: bool = True  # the output matrix is the embedding
    head: Literal["lm", "sequence", "none"] = "lm"
    num_classes: int = 2  # of the head 'sequence'
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of its weights
    initializer_range: float = 0.02
    scan_layers: bool = False
    remat: Remat = "none"
    attend: Attend = attend
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.normal(self.initializer_range)
        self.embed = nn.Embed(self.vocab_size, self.width, embedding_init=init, **types)
        size = self.vocab_size if self.head == "lm" else self.num_classes
        self.out = nn.Dense(size, use_bias=False, kernel_init=init, name="head", **types)

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
        other. With a `cache` of `init_cache` the tokens follow those it holds, and their positions
        count the real tokens before, so that rows may be padded on the left.

        Returns float32 logits `b t v` (head 'sequence': `b c`, read at the last real token; 'none':
        the normed stream `b t d`) and aux: `attention` `[layers, b, n, t, s]`, `hidden`
        `[layers, b, t, d]`, `stream` `[b, t, d]` (what `read_out` makes logits of), with experts
        `router` (logits `[layers, b, t, e]`) and `imbalance` (a loss, `find_imbalance`), and the
        new `cache` where one was given. Raises UserError on more tokens than positions.
        """
        dropout = self.dropout if train else 0.0
        self._check_length(tokens.shape[1])
        start, seen = 0, None
        if cache is not None:
            start, seen = extend_mask(cache, tokens.shape[1], mask)
            if positions is None:
                positions = count_positions(seen, start, tokens.shape[1])
        x = self.embed(tokens)
        if self.scaled_embedding:
            x = x * jnp.asarray(math.sqrt(self.width), x.dtype)  # rounded, as Gemma's code does
        if self.positions == "learned":
            x = x + self._learned_positions(x.shape[1], positions)
        shown = widen_mask(mask)
        if seen is not None:
            shown, segments = look_back(seen, start, tokens.shape[1]), None
        if positions is None:
            positions = jnp.arange(x.shape[1])[None]
        shared, layer = self._make_sights(positions)
        shared["attn"] |= {"mask": shown, "segments": segments, "start": start}
        x, aux = run_stack(
            self._block(dropout, self.attention_dropout if train else 0.0),
            self.depth,
            drop(x, dropout, "dropout"),
            cache=None if cache is None else cache["blocks"],
            layer=layer,
            shared=shared,
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        if self.num_experts is not None:
            aux["imbalance"] = find_imbalance(aux["router"], self.experts_per_token, mask)
        if cache is not None:
            length = start + tokens.shape[1]
            aux["cache"] = {"blocks": aux["cache"], "mask": seen, "length": length}
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = make_norm(self.norm, self.norm_epsilon, name="norm", **types)(x)
        aux["stream"] = x
        if self.head == "sequence":
            x = x[:, -1] if mask is None else pick_last(x, mask)
        return self.read_out(x), aux

    def _learned_positions(self, length: int, positions: Any) -> Any:
        """What is added to the stream."""
        init = nn.initializers.normal(self.initializer_range)
        pos = self.param("pos", init, (self.num_positions, self.width), self.param_dtype)
        return (pos[:length] if positions is None else pos[positions]).astype(self.dtype)

    def _make_sights(self, positions: Any) -> tuple[dict[str, Any], Any]:
        """Rotary positions and windows: what the blocks share, and the kind of each layer where
        local and global ones take turns."""
        far: dict[str, Any] = {"window": NO_WINDOW}
        near: dict[str, Any] = {"window": self.window or NO_WINDOW}
        if self.positions == "rotary":
            head_dim, base = self._head_dim(), self.rotary_base
            far["rotary"] = rotary_angles(positions, head_dim, base, self.rotary_scaling)
            near["rotary"] = far["rotary"]
            if self.local_rotary_base is not None:
                near["rotary"] = rotary_angles(positions, head_dim, self.local_rotary_base)
        kinds = self.layer_kinds()
        differ = self.window is not None or self.local_rotary_base is not None
        if not differ or "local" not in kinds:
            return {"attn": {**far, "window": None}}, None
        if "global" not in kinds:
            return {"attn": {**near, "window": self.window}}, None
        stacked = jax.tree.map(lambda *sights: jnp.stack(sights), near, far)
        return {"attn": {}, "kinds": stacked}, {
            "kind": np.array([k == "global" for k in kinds], int)
        }

    def layer_kinds(self) -> tuple[str, ...]:
        """'local' or 'global' of each layer."""
        return tuple(self.layer_pattern[i % len(self.layer_pattern)] for i in range(self.depth))

    def read_out(self, x: Float[Array, "*n d"], train: bool = False) -> Float[Array, "*n v"]:
        """What the head makes of the normed stream, in float32: of each place by itself, so that
        a task may ask for a few at a time. `train` is nothing to it."""
        if self.head == "none":
            return x.astype(jnp.float32)
        if self.head == "lm" and self.tied:
            table = self.embed.embedding.astype(self.dtype)
            out = jnp.einsum("...d,vd->...v", x, table, preferred_element_type=jnp.float32)
        else:
            out = self.out(x).astype(jnp.float32)
        if self.head == "lm" and self.logit_cap is not None:
            out = self.logit_cap * jnp.tanh(out / self.logit_cap)
        return out

    def _block(self, dropout: float, attention_dropout: float) -> PreNormBlock:
        """The template of the stack."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        into_stream = self.initializer_range / math.sqrt(2 * self.depth)
        inits = {
            "kernel_init": nn.initializers.normal(self.initializer_range),
            "out_init": nn.initializers.normal(into_stream),
        }
        norm = functools.partial(make_norm, self.norm, self.norm_epsilon, **types)
        return PreNormBlock(
            norm1=norm(),
            attn=self._attention(dropout=attention_dropout, **inits),
            norm2=norm(),
            end1=norm() if self.post_norms else None,
            end2=norm() if self.post_norms else None,
            mlp=self._feed_forward(dropout, **inits, **types),
            dropout=dropout,
            parent=None,
        )

    def _feed_forward(self, dropout: float, **made: Any) -> FeedForward | MixtureOfExperts:
        hidden = self.hidden or 4 * self.width
        made |= {"dropout": dropout, "parent": None}
        if self.num_experts is None:
            made["bias_init"] = nn.initializers.zeros
            return FeedForward(hidden, self.activation, self.gated, self.mlp_bias, **made)
        if not self.gated or self.mlp_bias:
            raise UserError("experts are gated and have no biases: gated=True, mlp_bias=False")
        if not 1 <= self.experts_per_token <= self.num_experts:
            raise UserError(
                f"no token can have {self.experts_per_token} of {self.num_experts} experts"
            )
        counts = (self.num_experts, self.experts_per_token, hidden, self.activation)
        return MixtureOfExperts(*counts, self.capacity_factor, **made)

    def _attention(self, **made: Any) -> Attention:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = functools.partial(make_norm, self.norm, self.norm_epsilon, **types)
        return Attention(
            self.num_heads,
            self.attend,
            self.num_kv_heads,
            self.head_dim,
            causal=True,
            scale=None if self.score_width is None else self.score_width**-0.5,
            cap=self.score_cap,
            make_norm=norm if self.query_key_norm else None,
            bias=self.attention_bias,
            out_bias=self.attention_bias if self.out_bias is None else self.out_bias,
            parent=None,
            **made,
            **types,
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


def extend_mask(
    cache: dict[str, Any], length: int, mask: Bool[Array, "b t"] | None
) -> tuple[Any, Bool[Array, "b s"]]:
    """The place in a cache where `length` new tokens begin, and which places hold real ones then.
    What lay behind that place (guesses that were not taken) counts as nothing."""
    start, held = cache["length"], cache["mask"]
    new = jnp.ones((len(held), length), bool) if mask is None else mask
    held = held & (jnp.arange(held.shape[1]) < start)
    return start, jax.lax.dynamic_update_slice_in_dim(held, new, start, axis=1)


def count_positions(seen: Bool[Array, "b s"], start: Any, length: int) -> Int[Array, "b t"]:
    """The number of real tokens before each of the places `start`, `start + 1`, ..."""
    before = jnp.cumsum(seen, axis=1) - 1
    return jnp.maximum(jax.lax.dynamic_slice_in_dim(before, start, length, axis=1), 0)


def look_back(seen: Bool[Array, "b s"], start: Any, num_queries: int) -> Bool[Array, "b 1 t s"]:
    """The mask of queries at places `start`, `start + 1`, ... of a cache."""
    places = jnp.arange(seen.shape[1])
    back = places <= start + jnp.arange(num_queries)[:, None]
    return seen[:, None, None, :] & back
