"""Encoder-decoders with absolute positions: the Transformer of 2017 and its descendants.

Transformer (Vaswani et al. 2017): post-norm, LayerNorm, ReLU, sines and cosines added to the
embedding times sqrt(width), one matrix for source, target and output, no biases in attention (the
paper's formulas have none). The norm's epsilon is that of the authors' code, 1e-6; the paper names
none. Matrices by Xavier's uniform, the embedding by a normal of deviation width ** -0.5, biases
zero.

Marian (Junczys-Dowmunt et al. 2018; the weights of OPUS-MT, Tiedemann & Thottingal 2020): the same
with SiLU, biases in attention, a bias a token at the output; epsilon 1e-5. BART (Lewis et al.
2020): learned positions, a norm after the embedding, exact GELU, the embedding not scaled; epsilon
1e-5, normals of deviation 0.02. mBART (Liu et al. 2020): BART with pre-norm, a norm at the end of
each stack and the embedding scaled.

Dropout acts on the embedding (after its norm) and on each branch, as in the paper, and as
`attention_dropout` on attention weights, as in the authors' code.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from zoo.config import Remat, UserError
from zoo.models.attention import Attend, Attention, attend
from zoo.models.blocks import PostNormBlock, PreNormBlock
from zoo.models.decoder import pick_last
from zoo.models.layers import Activation, FeedForward, Initializer, make_norm
from zoo.models.seq2seq import Tower, init_tower_cache, run_towers

# What descendants have beside their size.
MARIAN = {
    "activation": "silu",
    "attention_bias": True,
    "output_bias": True,
    "norm_epsilon": 1e-5,
    "initializer_range": 0.02,
}
BART = {
    **MARIAN,
    "activation": "gelu",
    "positions": "learned",
    "position_offset": 2,
    "scale_embedding": False,
    "embed_norm": True,
}
MBART = {**BART, "scale_embedding": True, "pre_norm": True}
# name -> width, depth of each stack, heads, feed-forward width, vocabulary, positions, the rest:
# table 3 of Vaswani et al. 2017 and the published config.json files. OPUS-MT has a vocabulary for
# each pair of languages; here English to German.
SIZES: dict[str, tuple[Any, ...]] = {
    "transformer_base": (512, 6, 8, 2048, 37000, 1024, {}),
    "transformer_big": (1024, 6, 16, 4096, 37000, 1024, {}),
    "marian_base": (512, 6, 8, 2048, 58101, 512, MARIAN),
    "bart_base": (768, 6, 12, 3072, 50265, 1024, BART),
    "bart_large": (1024, 12, 16, 4096, 50265, 1024, BART),
    "mbart_large": (1024, 12, 16, 4096, 250027, 1024, MBART),
}


def sinusoids(length: int, width: int) -> Float[np.ndarray, "t d"]:
    """Fixed positions: sines of place * 10,000 ** (-2 i / width), then the cosines.

    The paper's formula has the two alternate. That is the same model with the features in another
    order, and nothing in it knows their order; in halves they are in the authors' code and Marian.
    """
    if width % 2:
        raise UserError(f"sines and cosines need an even width, not {width}")
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class Sinusoids(nn.Module):
    """Adds fixed positions, of any number, to places from `start` on of `num_places`."""

    def __call__(
        self, x: Float[Array, "b t d"], start: Any, num_places: int
    ) -> Float[Array, "b t d"]:
        table = jnp.asarray(sinusoids(num_places, x.shape[2]), x.dtype)
        return x + jax.lax.dynamic_slice_in_dim(table, start, x.shape[1])


class LearnedPositions(nn.Module):
    """Adds a row of a table for each place, from `start` on of `num_places`."""

    num_positions: int
    offset: int = 0  # rows ahead of those for places, which nobody reads
    embedding_init: Initializer = nn.initializers.normal(0.02)
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], start: Any, num_places: int
    ) -> Float[Array, "b t d"]:
        check_places(num_places, self.num_positions)
        shape = (self.offset + self.num_positions, x.shape[-1])
        table = self.param("embedding", self.embedding_init, shape, self.param_dtype)
        rows = jax.lax.dynamic_slice_in_dim(table, self.offset + start, x.shape[1])
        return x + rows.astype(x.dtype)


def check_places(count: int, num_positions: int) -> None:
    """Raises UserError where there are more places than learned positions."""
    if count > num_positions:
        raise UserError(
            f"the model has {num_positions} positions, not {count}: shorten the text or set "
            "model.arguments.num_positions"
        )


class VocabularyHead(nn.Module):
    """The stream to logits, by the embedding it is given or by a matrix of its own."""

    vocab_size: int
    bias: bool
    kernel_init: Initializer
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], table: Float[Array, "v d"] | None
    ) -> Float[Array, "b t v"]:
        if table is None:
            shape = (x.shape[-1], self.vocab_size)
            kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        else:
            kernel = table.T
        kernel = kernel.astype(self.dtype)
        logits = jnp.einsum("btd,dv->btv", x, kernel, preferred_element_type=jnp.float32)
        if self.bias:
            zeros = nn.initializers.zeros
            logits += self.param("bias", zeros, (self.vocab_size,), self.param_dtype)
        return logits.astype(jnp.float32)


class ClassifierHead(nn.Module):
    """Dense, tanh, dense."""

    num_classes: int
    kernel_init: Initializer
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b c"]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        inits = {"kernel_init": self.kernel_init, **types}
        x = jnp.tanh(nn.Dense(x.shape[-1], name="fc", **inits)(x))
        return nn.Dense(self.num_classes, name="out", **inits)(x)


class Transformer(nn.Module):
    """A source and a target so far to the logits of the target's next tokens."""

    width: int = 512
    depth: int = 6
    decoder_depth: int | None = None  # None: depth
    num_heads: int = 8
    hidden: int = 2048
    vocab_size: int = 37000
    target_vocab_size: int | None = None  # None: source and target share one embedding
    num_positions: int = 1024  # of the learned ones; the others have no end
    positions: Literal["sincos", "learned"] = "sincos"
    position_offset: int = 0  # rows of learned positions that nobody reads (BART has 2)
    scale_embedding: bool = True  # times sqrt(width)
    embed_norm: bool = False
    pre_norm: bool = False
    attention_bias: bool = False
    activation: Activation = "relu"
    tied: bool = True  # the output matrix is the target's embedding
    output_bias: bool = False
    head: Literal["lm", "sequence", "span", "none"] = "lm"
    num_classes: int = 2  # of the head 'sequence'
    norm_epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of its weights
    initializer_range: float | None = None  # None: as in the paper
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
    ) -> tuple[Float[Array, "b *t v"], dict[str, Any]]:
        """`target` is the decoder's input as given: the task shifts it. Masks are true where a
        token is real; a `cache` as a `Seq2Seq` takes it.

        Returns, in float32, by `head`: 'lm' logits `b t v`; 'sequence' `b c`, read at the target's
        last real place (BART: of the source shifted, where the source ends); 'span' logits of
        being start and end `b t 2`; 'none' the decoder's stream `b t d`. aux as a `Seq2Seq`'s.
        Raises UserError on more tokens than learned positions, and without a source and a cache.
        """
        embed = self._make_embed(self.vocab_size, "embed")
        embed_target = embed
        if self.target_vocab_size is not None:
            embed_target = self._make_embed(self.target_vocab_size, "embed_target")
        scale = self.width**0.5 if self.scale_embedding else 1.0
        encoder = self._tower("encoder", self.depth, train)
        decoder = self._tower("decoder", self.decoder_depth or self.depth, train)
        embedded = None if source is None else embed(source) * scale
        inputs = (embedded, embed_target(target) * scale)
        x, aux = run_towers(encoder, decoder, *inputs, source_mask, target_mask, cache)
        return self._read_out(x, embed_target, target_mask).astype(jnp.float32), aux

    def _read_out(self, x: Any, embed: nn.Embed, mask: Any) -> Any:
        """The head."""
        made = {"kernel_init": self._kernel_init(), "name": "head", **self._types()}
        if self.head == "lm":
            head = VocabularyHead(embed.num_embeddings, self.output_bias, **made)
            return head(x, embed.embedding if self.tied else None)
        if self.head == "sequence":
            x = x[:, -1] if mask is None else pick_last(x, mask)
            return ClassifierHead(self.num_classes, **made)(x)
        return nn.Dense(2, **made)(x) if self.head == "span" else x

    def _tower(self, side: str, depth: int, train: bool) -> Tower:
        dropout = self.dropout if train else 0.0
        decodes = side == "decoder"
        attention_dropout = self.attention_dropout if train else 0.0
        norm = functools.partial(make_norm, "layer", self.norm_epsilon, **self._types())
        kind: Any = PreNormBlock if self.pre_norm else PostNormBlock
        block = kind(
            attn=self._attention(decodes, dropout=attention_dropout),
            norm1=norm(),
            cross=self._attention(False, True, attention_dropout) if decodes else None,
            cross_norm=norm() if decodes else None,
            mlp=self._feed_forward(dropout),
            norm2=norm(),
            dropout=dropout,
            parent=None,
        )
        return Tower(
            block,
            depth,
            dropout,
            self.scan_layers,
            self.remat if train else "none",
            pos=self._make_positions(),
            embed_norm=norm() if self.embed_norm else None,
            norm=norm() if self.pre_norm else None,
            name=side,
        )

    def _make_positions(self) -> nn.Module:
        if self.positions == "sincos":
            return Sinusoids(parent=None)
        return LearnedPositions(
            self.num_positions,
            self.position_offset,
            self._embedding_init(),
            self.param_dtype,
            parent=None,
        )

    def _attention(self, causal: bool, crosses: bool = False, dropout: float = 0.0) -> Attention:
        return Attention(
            self.num_heads,
            self.attend,
            causal=causal,
            crosses=crosses,
            dropout=dropout,
            bias=self.attention_bias,
            out_bias=self.attention_bias,
            kernel_init=self._kernel_init(),
            out_init=self._kernel_init(),
            parent=None,
            **self._types(),
        )

    def _feed_forward(self, dropout: float) -> FeedForward:
        return FeedForward(
            self.hidden,
            self.activation,
            dropout=dropout,
            kernel_init=self._kernel_init(),
            out_init=self._kernel_init(),
            bias_init=nn.initializers.zeros,
            parent=None,
            **self._types(),
        )

    def _make_embed(self, count: int, name: str) -> nn.Embed:
        init = self._embedding_init()
        return nn.Embed(count, self.width, embedding_init=init, name=name, **self._types())

    def _embedding_init(self) -> Initializer:
        return nn.initializers.normal(self.initializer_range or self.width**-0.5)

    def _kernel_init(self) -> Initializer:
        if self.initializer_range is None:
            return nn.initializers.xavier_uniform()
        return nn.initializers.normal(self.initializer_range)

    def _types(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def init_cache(self, batch: int, length: int, source_length: int) -> dict[str, Any]:
        """An empty cache for `length` target tokens a row and a source of `source_length`. Raises
        UserError on more than learned positions."""
        if self.positions == "learned":
            check_places(max(length, source_length), self.num_positions)
        depth = self.decoder_depth or self.depth
        shape = (batch, length, source_length)
        attn = self._attention(causal=True)
        return init_tower_cache(attn, depth, self.scan_layers, self.width, shape)

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        length = min(512, self.num_positions)
        tokens = jax.ShapeDtypeStruct((batch_size, length), jnp.int32)
        return tokens, tokens
