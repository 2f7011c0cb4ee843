"""Encoders: every token sees every other.

All are post-norm, with a norm after the embedding and learned positions; GELU is exact and the
LayerNorm epsilon 1e-12 unless said otherwise; initialised by a normal of deviation 0.02.

- BERT (Devlin et al. 2019): sentence types; the pooler, Dense and tanh on the first token.
- ALBERT (Lan et al. 2020): one set of parameters for all layers, an embedding narrower than the
  model, the tanh form of GELU.
- RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020): one type, epsilon 1e-5, positions
  counted over the real tokens.
- ELECTRA (Clark et al. 2020): a discriminator that says which tokens a generator, a masked
  language model, has replaced; its classifiers pool by GELU.
- DistilBERT (Sanh et al. 2019): half of BERT's layers, no types; its classifiers pool by ReLU.

What a classifier computes before its last layer, Dense and an activation on the first token, is the
pooler in all of them, whatever their files call it. Dropout acts on the embedding and on each
branch, and as `attention_dropout` on attention weights.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import Remat, UserError
from zoo.models.attention import Attend, Attention, attend, widen_mask
from zoo.models.blocks import PostNormBlock
from zoo.models.heads import MaskedLMHead, ReplacedTokenHead
from zoo.models.layers import ACTIVATIONS, Activation, FeedForward, drop, make_norm
from zoo.models.stack import run_stack

# name -> width, depth, heads, feed-forward width, vocabulary (30522), embedding width (the width):
# Devlin et al. 2019, Turc et al. 2019, Wang et al. 2020, and the published config.json files.
BERT_SIZES = {
    "bert_tiny": (128, 2, 2, 512),
    "bert_mini": (256, 4, 4, 1024),
    "bert_small": (512, 4, 8, 2048),
    "bert_medium": (512, 8, 8, 2048),
    "bert_base": (768, 12, 12, 3072),
    "bert_base_cased": (768, 12, 12, 3072, 28996),
    "bert_base_multilingual_uncased": (768, 12, 12, 3072, 105879),
    "bert_base_multilingual_cased": (768, 12, 12, 3072, 119547),
    "bert_base_chinese": (768, 12, 12, 3072, 21128),
    "bert_large": (1024, 24, 16, 4096),
    "bert_large_cased": (1024, 24, 16, 4096, 28996),
    "minilm_l6_h384": (384, 6, 12, 1536),
    "minilm_l12_h384": (384, 12, 12, 1536),
}
# The second version's published config.json files.
ALBERT = {"embedding_width": 128, "vocab_size": 30000, "num_groups": 1, "activation": "gelu_tanh"}
ALBERT_SIZES = {
    "albert_base": (768, 12, 12, 3072),
    "albert_large": (1024, 24, 16, 4096),
    "albert_xlarge": (2048, 24, 16, 8192),
    "albert_xxlarge": (4096, 12, 64, 16384),
}
# Table places 0 and 1 hold no real token: 512 tokens fit.
ROBERTA = {"num_positions": 514, "num_types": 1, "padding_position": 1, "norm_epsilon": 1e-5}
ROBERTA_SIZES = {
    "roberta_base": (768, 12, 12, 3072, 50265),
    "roberta_large": (1024, 24, 16, 4096, 50265),
    "distilroberta_base": (768, 6, 12, 3072, 50265),
    "xlm_roberta_base": (768, 12, 12, 3072, 250002),
    "xlm_roberta_large": (1024, 24, 16, 4096, 250002),
}
# Without a head that pools there is no pooler.
ELECTRA = {"pooler": False, "pooler_activation": "gelu"}
ELECTRA_SIZES = {
    "electra_small": (256, 12, 4, 1024, 30522, 128),
    "electra_base": (768, 12, 12, 3072),
    "electra_large": (1024, 24, 16, 4096),
}
GENERATOR_SIZES = {
    "electra_small_generator": (256, 12, 4, 1024, 30522, 128),
    "electra_base_generator": (256, 12, 4, 1024, 30522, 768),
    "electra_large_generator": (256, 24, 4, 1024, 30522, 1024),
}
DISTILBERT = {"num_types": 0, "pooler": False, "pooler_activation": "relu"}
DISTILBERT_SIZES = {
    "distilbert_base": (768, 6, 12, 3072),
    "distilbert_base_cased": (768, 6, 12, 3072, 28996),
    "distilbert_base_multilingual_cased": (768, 6, 12, 3072, 119547),
}
COLUMNS = ("width", "depth", "num_heads", "hidden", "vocab_size", "embedding_width")
ROWS: dict[str, dict[str, Any]] = {
    name: {**common, **dict(zip(COLUMNS, row, strict=False))}
    for sizes, common in (
        (BERT_SIZES, {}),
        (ALBERT_SIZES, ALBERT),
        (ROBERTA_SIZES, ROBERTA),
        (ELECTRA_SIZES, {**ELECTRA, "head": "replaced_token"}),
        (GENERATOR_SIZES, {**ELECTRA, "head": "masked_lm"}),
        (DISTILBERT_SIZES, DISTILBERT),
    )
    for name, row in sizes.items()
}
"""name -> fields of the Encoder; ELECTRA's have the head they were published with."""

POOLED = ("sequence", "multiple_choice")
"""The heads that read the pooler."""


class Encoder(nn.Module):
    """Tokens to what the head says: logits a token or a text, or the encoded tokens."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    vocab_size: int = 30522
    num_positions: int = 512
    num_types: int = 2  # 0: none (DistilBERT)
    # None: a token's position is its place in the row. A number: real tokens are counted from the
    # position after it on, padding has it (RoBERTa: 1).
    padding_position: int | None = None
    embedding_width: int | None = None  # None: width; another is projected (ALBERT)
    num_groups: int | None = None  # sets of layer parameters; None: one a layer (ALBERT has 1)
    head: Literal[
        "masked_lm", "replaced_token", "sequence", "token", "span", "multiple_choice", "none"
    ] = "none"
    num_classes: int = 2  # of the heads 'sequence' and 'token'
    pooler: bool = True  # Dense and an activation on the first token; the heads of POOLED need it
    pooler_activation: Activation = "tanh"
    tied: bool = True  # the output matrix of 'masked_lm' is the embedding
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of its weights
    initializer_range: float = 0.02
    scan_layers: bool = False
    remat: Remat = "none"
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
        types: Int[Array, "b t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        places: Int[Array, "b m"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b ..."], dict[str, Any]]:
        """`mask` is true where a token is real; `types` says sentence A (0, the default) or B (1);
        `segments` numbers documents that must not see each other; `positions` count from 0 in every
        family. Where `places` are given, heads that speak of each token speak of those there alone:
        `m` takes the place of `t` in the outputs.

        Returns, in float32, by `head`: 'none' the encoded tokens `b t d`; 'masked_lm' logits
        `b t v`; 'replaced_token' `b t`; 'token' `b t c`; 'span' logits of being start and end
        `b t 2`; 'sequence' `b c`; 'multiple_choice' `b`: each choice is a row of its own beside
        its question, those of one question lie together, and the task makes of the logits
        `[questions, choices]`.
        aux: `attention` `[layers, b, n, t, s]`, `hidden` `[layers, b, t, d]`, `pooled` `b d` where
        there is a pooler. Raises UserError on more tokens than positions.
        """
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dropout = self.dropout if train else 0.0
        embed = self._make_embed(self.vocab_size, "embed")
        x = self._add_places(embed(tokens), positions, types, mask)
        x = drop(
            make_norm("layer", self.norm_epsilon, name="embed_norm", **kinds)(x), dropout, "dropout"
        )
        if self._embedding_width() != self.width:
            x = self._dense(self.width, "embed_proj")(x)
        x, aux = run_stack(
            self._block(dropout, self.attention_dropout if train else 0.0),
            self.depth,
            x,
            shared={"attn": {"mask": widen_mask(mask), "segments": segments}},
            num_groups=self.num_groups,
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        if self.pooler:
            pool = ACTIVATIONS[self.pooler_activation]
            aux["pooled"] = pool(self._dense(self.width, "pooler")(x[:, 0]))
        if places is not None:
            x = jnp.take_along_axis(x, places[..., None], axis=1)
        return self._read_out(x, aux.get("pooled"), embed, dropout).astype(jnp.float32), aux

    def _add_places(self, x: Any, positions: Any, types: Any, mask: Any) -> Any:
        """Adds learned positions and sentence types to embedded tokens.

        transformers counts RoBERTa's real tokens by their ids, we by `mask`: there a padding token
        without a mask is passed over, here it is a token.
        """
        length, first = x.shape[1], self._first_position()
        if positions is None and length > self.num_positions - first:
            raise UserError(
                f"the model has {self.num_positions - first} positions, not {length}: shorten the "
                "text or set model.arguments.num_positions"
            )
        if positions is None and mask is not None and self.padding_position is not None:
            positions = jnp.where(mask, jnp.cumsum(mask, axis=1) - 1, -1)
        shape = (self.num_positions, self._embedding_width())
        pos = self.param("pos", self._init(), shape, self.param_dtype).astype(self.dtype)
        x = x + (pos[first : first + length] if positions is None else pos[first + positions])
        if not self.num_types:
            if types is not None:
                raise UserError("the model has no sentence types: give no types")
            return x
        kinds = jnp.zeros((1, length), jnp.int32) if types is None else types
        return x + self._make_embed(self.num_types, "embed_types")(kinds)

    def _read_out(self, x: Any, pooled: Any, embed: nn.Embed, dropout: float) -> Any:
        """The head."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype, "name": "head"}
        if self.head == "none":
            return x
        if self.head == "masked_lm":
            lm = MaskedLMHead(
                self.vocab_size, self.activation, self.norm_epsilon, self._init(), **kinds
            )
            return lm(x, embed.embedding if self.tied else None, self._embedding_width())
        if self.head == "replaced_token":
            return ReplacedTokenHead(self.activation, self._init(), **kinds)(x)
        if self.head in POOLED:
            if pooled is None:
                raise UserError(f"head={self.head!r} reads the pooler: set pooler=True")
            x = pooled
        num_outputs = {"span": 2, "multiple_choice": 1}.get(self.head, self.num_classes)
        logits = self._dense(num_outputs, "head")(drop(x, dropout, "head_dropout"))
        return logits[:, 0] if self.head == "multiple_choice" else logits

    def _block(self, dropout: float, attention_dropout: float) -> PostNormBlock:
        """The template of the stack."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype, "parent": None}
        inits = {"kernel_init": self._init(), "out_init": self._init()}
        return PostNormBlock(
            attn=Attention(
                self.num_heads, self.attend, dropout=attention_dropout, **inits, **kinds
            ),
            norm1=make_norm("layer", self.norm_epsilon, **kinds),
            mlp=FeedForward(
                self.hidden,
                self.activation,
                dropout=dropout,
                bias_init=nn.initializers.zeros,
                **inits,
                **kinds,
            ),
            norm2=make_norm("layer", self.norm_epsilon, **kinds),
            dropout=dropout,
            parent=None,
        )

    def _dense(self, width: int, name: str) -> nn.Dense:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return nn.Dense(width, kernel_init=self._init(), name=name, **types)

    def _make_embed(self, count: int, name: str) -> nn.Embed:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = self._embedding_width()
        return nn.Embed(count, width, embedding_init=self._init(), name=name, **types)

    def _init(self) -> Any:
        return nn.initializers.normal(self.initializer_range)

    def _embedding_width(self) -> int:
        return self.embedding_width or self.width

    def _first_position(self) -> int:
        """The place of a row's first token in the table of positions."""
        return 0 if self.padding_position is None else self.padding_position + 1

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        length = self.num_positions - self._first_position()
        return (jax.ShapeDtypeStruct((batch_size, length), jnp.int32),)
