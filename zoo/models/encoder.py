"""Encoders: every token sees every other.

BERT (Devlin et al. 2019): post-norm, LayerNorm epsilon 1e-12, exact GELU, learned positions and
sentence types, a norm after the embedding; initialised by a normal of deviation 0.02. ALBERT (Lan
et al. 2020): one set of parameters for all layers, an embedding narrower than the model, the tanh
form of GELU.

Dropout acts on the embedding and on each branch, not on attention weights.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import UserError
from zoo.models.attention import Attend, Attention, attend
from zoo.models.blocks import PostNormBlock
from zoo.models.decoder import join_masks
from zoo.models.layers import ACTIVATIONS, Activation, FeedForward, drop, make_norm
from zoo.models.stack import run_stack

# name -> width, depth, heads, feed-forward width: Devlin et al. 2019 and Turc et al. 2019.
BERT_SIZES = {
    "bert_tiny": (128, 2, 2, 512),
    "bert_mini": (256, 4, 4, 1024),
    "bert_small": (512, 4, 8, 2048),
    "bert_medium": (512, 8, 8, 2048),
    "bert_base": (768, 12, 12, 3072),
    "bert_large": (1024, 24, 16, 4096),
}
# The second version's published config.json files.
ALBERT = {"embedding_width": 128, "vocab_size": 30000, "num_groups": 1, "activation": "gelu_tanh"}
ALBERT_SIZES = {
    "albert_base": (768, 12, 12, 3072),
    "albert_large": (1024, 24, 16, 4096),
    "albert_xlarge": (2048, 24, 16, 8192),
    "albert_xxlarge": (4096, 12, 64, 16384),
}


class MaskedLMHead(nn.Module):
    """Dense, activation, norm, then the (tied) output matrix and a bias a token."""

    vocab_size: int
    activation: Activation
    norm_epsilon: float
    kernel_init: Any
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], table: Float[Array, "v e"] | None, width: int
    ) -> Float[Array, "b t v"]:
        """`table` is the embedding where the output is tied to it; `width` that of its rows."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.Dense(width, kernel_init=self.kernel_init, name="fc", **types)(x)
        x = ACTIVATIONS[self.activation](x)
        x = make_norm("layer", self.norm_epsilon, name="norm", **types)(x)
        bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype)
        if table is None:
            inits = {"use_bias": False, "kernel_init": self.kernel_init}
            logits = nn.Dense(self.vocab_size, name="out", **inits, **types)(x)
        else:
            table = table.astype(self.dtype)
            logits = jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
        return logits.astype(jnp.float32) + bias.astype(jnp.float32)


class Encoder(nn.Module):
    """Tokens to what the head says: logits a token or a text, or the encoded tokens."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    vocab_size: int = 30522
    num_positions: int = 512
    num_types: int = 2
    embedding_width: int | None = None  # None: width; another is projected (ALBERT)
    num_groups: int | None = None  # sets of layer parameters; None: one a layer (ALBERT has 1)
    head: Literal["masked_lm", "sequence", "token", "span", "none"] = "none"
    num_classes: int = 2  # of the heads 'sequence' and 'token'
    pooler: bool = True  # Dense and tanh on the first token; the head 'sequence' needs it
    tied: bool = True  # the output matrix of 'masked_lm' is the embedding
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-12
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
        types: Int[Array, "b t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b *t c"], dict[str, Any]]:
        """`mask` is true where a token is real; `types` says sentence A (0, the default) or B (1);
        `segments` numbers documents that must not see each other.

        Returns, in float32, by `head`: 'none' the encoded tokens `b t d`; 'masked_lm' logits
        `b t v`; 'token' `b t c`; 'span' logits of being start and end `b t 2`; 'sequence' `b c`.
        aux: `attention` `[layers, b, n, t, s]`, `hidden` `[layers, b, t, d]`, `pooled` `b d` where
        there is a pooler. Raises UserError on more tokens than positions.
        """
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dropout = self.dropout if train else 0.0
        embed = self._make_embed(self.vocab_size, "embed")
        x = self._add_places(embed(tokens), positions, types)
        x = drop(
            make_norm("layer", self.norm_epsilon, name="embed_norm", **kinds)(x), dropout, "dropout"
        )
        if self._embedding_width() != self.width:
            x = self._dense(self.width, "embed_proj")(x)
        x, aux = run_stack(
            self._block(dropout),
            self.depth,
            x,
            shared={"attn": {"mask": join_masks(mask, segments)}},
            num_groups=self.num_groups,
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        if self.pooler:
            aux["pooled"] = jnp.tanh(self._dense(self.width, "pooler")(x[:, 0]))
        return self._read_out(x, aux.get("pooled"), embed, dropout).astype(jnp.float32), aux

    def _add_places(self, x: Any, positions: Any, types: Any) -> Any:
        """Adds learned positions and sentence types to embedded tokens."""
        length = x.shape[1]
        if positions is None and length > self.num_positions:
            raise UserError(
                f"the model has {self.num_positions} positions, not {length}: shorten the text or "
                "set model.arguments.num_positions"
            )
        shape = (self.num_positions, self._embedding_width())
        pos = self.param("pos", self._init(), shape, self.param_dtype).astype(self.dtype)
        x = x + (pos[:length] if positions is None else pos[positions])
        kinds = jnp.zeros((1, length), jnp.int32) if types is None else types
        return x + self._make_embed(self.num_types, "embed_types")(kinds)

    def _read_out(self, x: Any, pooled: Any, embed: nn.Embed, dropout: float) -> Any:
        """The head."""
        if self.head == "masked_lm":
            head = MaskedLMHead(
                self.vocab_size,
                self.activation,
                self.norm_epsilon,
                self._init(),
                self.dtype,
                self.param_dtype,
                name="head",
            )
            return head(x, embed.embedding if self.tied else None, self._embedding_width())
        if self.head == "none":
            return x
        if self.head == "sequence":
            if pooled is None:
                raise UserError("head='sequence' reads the pooler: set pooler=True")
            x = pooled
        num_outputs = 2 if self.head == "span" else self.num_classes
        return self._dense(num_outputs, "head")(drop(x, dropout, "head_dropout"))

    def _block(self, dropout: float) -> PostNormBlock:
        """The template of the stack."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype, "parent": None}
        inits = {"kernel_init": self._init(), "out_init": self._init()}
        return PostNormBlock(
            attn=Attention(self.num_heads, self.attend, **inits, **kinds),
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

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        return (jax.ShapeDtypeStruct((batch_size, self.num_positions), jnp.int32),)
