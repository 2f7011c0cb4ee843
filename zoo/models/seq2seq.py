"""Encoder-decoders: a target is predicted from a source and from the target's own past.

T5 (Raffel et al. 2020): pre-norm, RMSNorm epsilon 1e-6, no biases, attention scores not scaled, a
learned bias of the scores by relative position (one table a stack, none between target and source).
Version 1.0 has ReLU and the output tied to the embedding, with the decoder's stream scaled by
width ** -0.5 before it; 1.1 (and Flan) has a gated GELU in its tanh form and an output of its own.
Initialised as in Mesh TensorFlow: by normals that make up for the missing scale.

Dropout acts on the embeddings, inside the feed-forward, on each branch and at the end of each
stack, and as `attention_dropout` on attention weights.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import Remat, UserError
from zoo.models.attention import Attend, Attention, RelativePositions, attend, widen_mask
from zoo.models.blocks import PostNormBlock, PreNormBlock
from zoo.models.decoder import extend_mask, look_back
from zoo.models.layers import Activation, FeedForward, drop, make_norm
from zoo.models.stack import init_stack_cache, run_stack

# name -> width, depth of each stack, heads, head dimension, feed-forward width: Raffel et al. 2020
# and the authors' released checkpoints (v1_1).
T5_SIZES = {
    "t5_small": (512, 6, 8, 64, 2048),
    "t5_base": (768, 12, 12, 64, 3072),
    "t5_large": (1024, 24, 16, 64, 4096),
    "t5_3b": (1024, 24, 32, 128, 16384),
    "t5_11b": (1024, 24, 128, 128, 65536),
}
V1_1_SIZES = {
    "t5_v1_1_small": (512, 8, 6, 64, 1024),
    "t5_v1_1_base": (768, 12, 12, 64, 2048),
    "t5_v1_1_large": (1024, 24, 16, 64, 2816),
    "t5_v1_1_xl": (2048, 24, 32, 64, 5120),
    "t5_v1_1_xxl": (4096, 24, 64, 64, 10240),
}
# Version 1.1 trained further on instructions (Chung et al. 2022): the same models.
FLAN_SIZES = {
    f"flan_t5_{size}": V1_1_SIZES[f"t5_v1_1_{size}"]
    for size in ("small", "base", "large", "xl", "xxl")
}
# name -> the same, depth of the decoder, vocabulary; all else as in version 1.1. mT5 (Xue et al.
# 2021): version 1.1 with a vocabulary of 101 languages. ByT5 (Xue et al. 2022) reads bytes.
MT5_SIZES = {
    "mt5_small": (512, 8, 6, 64, 1024, 8, 250112),
    "mt5_base": (768, 12, 12, 64, 2048, 12, 250112),
    "mt5_large": (1024, 24, 16, 64, 2816, 24, 250112),
    "mt5_xl": (2048, 24, 32, 64, 5120, 24, 250112),
    "mt5_xxl": (4096, 24, 64, 64, 10240, 24, 250112),
    "byt5_small": (1472, 12, 6, 64, 3584, 4, 384),
    "byt5_base": (1536, 18, 12, 64, 3968, 6, 384),
    "byt5_large": (1536, 36, 16, 64, 3840, 12, 384),
    "byt5_xl": (2560, 36, 32, 64, 6720, 12, 384),
    "byt5_xxl": (4672, 36, 64, 64, 12352, 12, 384),
}
# What version 1.1 has beside its size.
V1_1 = {"activation": "gelu_tanh", "gated": True, "tied": False, "scale_logits": False}


class Tower(nn.Module):
    """One of the two stacks, on embedded tokens: the parts it is given act in the order below."""

    block: PreNormBlock | PostNormBlock
    depth: int
    dropout: float  # before the blocks
    scan: bool
    remat: str
    pos: Any = None  # adds absolute positions
    embed_norm: Any = None
    relative: RelativePositions | None = None
    norm: Any = None  # after the blocks
    end_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"] | None,
        cross: dict[str, Any],
        cache: dict[str, Any] | None = None,
    ) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        """With a cache the places of `x` follow those it holds."""
        attn: dict[str, Any] = {"mask": widen_mask(mask)}
        start, num_places = 0, x.shape[1]
        if cache is not None:
            start, seen = extend_mask(cache, x.shape[1], mask)
            num_places = seen.shape[1]
            attn = {"mask": look_back(seen, start, x.shape[1]), "start": start}
        if self.pos is not None:
            x = self.pos(x, start, num_places)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        if self.relative is not None:
            queries, keys = start + jnp.arange(x.shape[1]), jnp.arange(num_places)
            attn["bias"] = self.relative(queries, keys)
        x, aux = run_stack(
            self.block,
            self.depth,
            drop(x, self.dropout, "dropout"),
            cache=None if cache is None else cache["blocks"],
            shared={"attn": attn, "cross": cross},
            scan=self.scan,
            remat=self.remat,
        )
        if cache is not None:
            held = {"mask": seen, "length": start + x.shape[1]}
            aux["cache"] = {**cache, "blocks": aux["cache"], **held}
        if self.norm is not None:
            x = self.norm(x)
        return drop(x, self.end_dropout, "dropout_end"), aux


def run_towers(
    encoder: Tower,
    decoder: Tower,
    source: Float[Array, "b s d"] | None,
    target: Float[Array, "b t d"],
    source_mask: Bool[Array, "b s"] | None,
    target_mask: Bool[Array, "b t"] | None,
    cache: dict[str, Any] | None,
) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
    """The decoder's stream over what the encoder makes of the source, both embedded, and the aux of
    `Seq2Seq`. Raises UserError without a source where there is no cache either."""
    if source is None:
        if cache is None:
            raise UserError("an encoder-decoder without a source needs a cache that holds one")
        cross = {"context": None, "mask": widen_mask(cache["source_mask"])}
        x, decoder_aux = decoder(target, target_mask, cross, cache)
        return x, {"decoder": decoder_aux, "cache": decoder_aux.pop("cache")}
    context, encoder_aux = encoder(source, source_mask, {})
    cross = {"context": context, "mask": widen_mask(source_mask)}
    if cache is not None:
        shown = jnp.ones(source.shape[:2], bool) if source_mask is None else source_mask
        cache = {**cache, "source_mask": shown}
    x, decoder_aux = decoder(target, target_mask, cross, cache)
    aux = {"encoder": encoder_aux, "decoder": decoder_aux, "encoded": context}
    return x, aux if cache is None else {**aux, "cache": decoder_aux.pop("cache")}


def init_tower_cache(
    attn: Attention, depth: int, scan: bool, width: int, shape: tuple[int, int, int]
) -> dict[str, Any]:
    """An empty cache of a decoding tower; `shape` is rows, places and places of the source."""
    batch, length, source_length = shape

    def make_one() -> dict[str, Any]:
        own, crossed = (attn.init_cache(batch, n, width) for n in (length, source_length))
        return {"self": own, "cross": crossed}

    return {
        "blocks": init_stack_cache(make_one, depth, scan),
        "mask": jnp.zeros((batch, length), bool),
        "source_mask": jnp.zeros((batch, source_length), bool),
        "length": jnp.zeros((), jnp.int32),
    }


class Seq2Seq(nn.Module):
    """A source and a target so far to the logits of the target's next tokens."""

    width: int = 512
    depth: int = 6
    decoder_depth: int | None = None  # None: depth
    num_heads: int = 8
    head_dim: int = 64
    hidden: int = 2048
    vocab_size: int = 32128
    num_buckets: int = 32
    max_distance: int = 128
    activation: Activation = "relu"
    gated: bool = False
    tied: bool = True  # the output matrix is the embedding
    scale_logits: bool = True  # the stream times width ** -0.5 before the output
    head: Literal["lm", "none"] = "lm"
    norm_epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of its weights
    scan_layers: bool = False
    remat: Remat = "none"
    attend: Attend = attend
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        source: Int[Array, "b s"] | None,
        target: Int[Array, "b t"],
        *,
        source_mask: Bool[Array, "b s"] | None = None,
        target_mask: Bool[Array, "b t"] | None = None,
        cache: dict[str, Any] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b t v"], dict[str, Any]]:
        """`target` is the decoder's input as given: the task shifts it. Masks are true where a
        token is real. With a `cache` of `init_cache` the target follows what it holds; it keeps
        what the decoder reads of the source, which is then None, so that it is encoded once.

        Returns float32 logits (head 'none': the decoder's stream `b t d`) and aux: `encoder` and
        `decoder`, each with `attention` `[layers, b, n, t, t]` and `hidden` `[layers, b, t, d]`,
        the decoder's also with `cross` `[layers, b, n, t, s]`; `encoded` `b s d`; the new `cache`
        where one was given. Raises UserError without a source and a cache.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.normal(1.0)
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed", **types)
        encoder = self._tower("encoder", self.depth, train)
        decoder = self._tower("decoder", self.decoder_depth or self.depth, train)
        x, aux = run_towers(
            encoder,
            decoder,
            None if source is None else embed(source),
            embed(target),
            source_mask,
            target_mask,
            cache,
        )
        if self.head == "none":
            return x.astype(jnp.float32), aux
        if self.scale_logits:
            x = x * self.width**-0.5
        if self.tied:
            table = embed.embedding.astype(self.dtype)
            return jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32), aux
        own = nn.Dense(self.vocab_size, use_bias=False, kernel_init=init, name="head", **types)
        return own(x).astype(jnp.float32), aux

    def _tower(self, name: str, depth: int, train: bool) -> Tower:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dropout = self.dropout if train else 0.0
        decodes = name == "decoder"
        attention_dropout = self.attention_dropout if train else 0.0

        def norm() -> nn.Module:
            return make_norm("rms", self.norm_epsilon, **types)

        block = PreNormBlock(
            norm1=norm(),
            attn=self._attention(decodes, dropout=attention_dropout),
            norm2=norm(),
            mlp=self._feed_forward(dropout),
            cross_norm=norm() if decodes else None,
            cross=self._attention(False, True, attention_dropout) if decodes else None,
            dropout=dropout,
            parent=None,
        )
        relative = RelativePositions(
            self.num_heads,
            self.num_buckets,
            self.max_distance,
            not decodes,
            nn.initializers.normal(self.width**-0.5),
            self.param_dtype,
            parent=None,
        )
        return Tower(
            block,
            depth,
            dropout,
            self.scan_layers,
            self.remat if train else "none",
            relative=relative,
            norm=norm(),
            end_dropout=dropout,
            name=name,
        )

    def _attention(self, causal: bool, crosses: bool = False, dropout: float = 0.0) -> Attention:
        # Scores are not scaled: the queries' initialisation carries h ** -0.5.
        return Attention(
            self.num_heads,
            self.attend,
            head_dim=self.head_dim,
            causal=causal,
            crosses=crosses,
            dropout=dropout,
            scale=1.0,
            bias=False,
            out_bias=False,
            q_init=nn.initializers.normal((self.width * self.head_dim) ** -0.5),
            kernel_init=nn.initializers.normal(self.width**-0.5),
            out_init=nn.initializers.normal((self.num_heads * self.head_dim) ** -0.5),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            parent=None,
        )

    def _feed_forward(self, dropout: float) -> FeedForward:
        return FeedForward(
            self.hidden,
            self.activation,
            self.gated,
            bias=False,
            inner_dropout=dropout,
            dropout=dropout,
            kernel_init=nn.initializers.normal(self.width**-0.5),
            out_init=nn.initializers.normal(self.hidden**-0.5),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            parent=None,
        )

    def init_cache(self, batch: int, length: int, source_length: int) -> dict[str, Any]:
        """An empty cache for `length` target tokens a row and a source of `source_length`."""
        depth = self.decoder_depth or self.depth
        shape = (batch, length, source_length)
        attn = self._attention(causal=True)
        return init_tower_cache(attn, depth, self.scan_layers, self.width, shape)

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs; any length will do."""
        tokens = jax.ShapeDtypeStruct((batch_size, 512), jnp.int32)
        return tokens, tokens
