"""The Vision Transformer (Dosovitskiy et al. 2021): pre-norm, exact GELU, norm epsilon 1e-6.

Initialised as in the paper's code: Xavier-uniform matrices, positions of deviation 0.02, a head
of zeros. DeiT, DINOv2 and the encoder of a masked autoencoder are this class with other fields;
their own initialisers (truncated normals of deviation 0.02) are not taken over.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from zoo.config import Remat, UserError
from zoo.models.attention import Attend, Attention, attend
from zoo.models.blocks import PreNormBlock
from zoo.models.layers import Activation, FeedForward, LayerScale, drop, make_norm, sincos_positions
from zoo.models.patches import Size, cut_patches, find_grid, image_spec
from zoo.models.stack import run_stack

# size -> width, depth, heads, feed-forward width: ViT (2021) for b, l, h; DeiT (2021) for ti, s;
# "Scaling Vision Transformers" (2022) for g.
SIZES = {
    "ti": (192, 12, 3, 768),
    "s": (384, 12, 6, 1536),
    "b": (768, 12, 12, 3072),
    "l": (1024, 24, 16, 4096),
    "h": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
}
PATCHES = (8, 14, 16, 32)


# DeiT (Touvron et al. 2021) trains ViTs of these sizes, with and without a distillation token.
DEIT_SIZES = {"tiny": "ti", "small": "s", "base": "b"}
DEIT = {"distillation": "head"}
# Bodies without a head (Oquab et al. 2023).
DINOV2_SIZES = {**{size: SIZES[size] for size in "sbl"}, "g": (1536, 40, 24, 4096)}
DINOV2 = {
    "image_size": (518, 518),
    "num_classes": 0,
    "mask_token": True,
    "layer_scale": 1e-5,
}
DINOV2_GATED = {"gated": True, "activation": "silu"}  # of g


class AttentionPool(nn.Module):
    """Pools tokens by a learned query, then a residual feed-forward (Zhai et al. 2022)."""

    num_heads: int
    hidden: int
    activation: Activation
    norm_epsilon: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.xavier_uniform()
        probe = self.param("probe", init, (1, x.shape[-1]), self.param_dtype)
        query = jnp.broadcast_to(probe.astype(self.dtype), (x.shape[0], *probe.shape))
        x, _ = Attention(self.num_heads, name="attn", **types)(query, context=x)
        y = nn.LayerNorm(self.norm_epsilon, name="norm", **types)(x)
        return (x + FeedForward(self.hidden, self.activation, name="mlp", **types)(y))[:, 0]


def fixed_positions(
    module: nn.Module, length: int, rows: int, columns: int, width: int, dtype: Any
) -> Any:
    """The parameter `pos` of a module, `[t, d]`: zeros, then sine-cosine of the patches; it never
    has a gradient. (A `decay_pattern` that takes it in would still move it.)"""

    def init(key: Any, shape: tuple[int, int], dtype: Any) -> Any:
        grid = sincos_positions(rows, columns, width, ends=False)
        return jnp.asarray(np.pad(grid, ((length - len(grid), 0), (0, 0))), dtype)

    return jax.lax.stop_gradient(module.param("pos", init, (length, width), dtype))


class ViT(nn.Module):
    """Images to class logits, or to a pooled vector when `num_classes` is 0.

    Before the patches stand the class token, the distillation token and the registers, as far as
    the model has them; registers have no position.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    patch_size: Size = 16
    image_size: tuple[int, int] = (224, 224)
    num_channels: int = 3
    num_classes: int = 1000
    # The class token, the mean of the patches, the two side by side, or a learned query.
    pooling: Literal["cls", "mean", "cls_mean", "map"] = "cls"
    pre_logits: bool = False  # Dense and tanh before the head, as in the paper's pre-training
    # A second token beside the class token, and a head of its own where there are classes (DeiT).
    distillation: Literal["none", "token", "head"] = "none"
    num_registers: int = 0  # tokens to think with (Darcet et al. 2024)
    mask_token: bool = False  # stands for patches that are hidden from the model
    # A parameter, computed, or a parameter that begins as computed and never learns (MAE).
    positions: Literal["learned", "sincos", "fixed"] = "learned"
    activation: Activation = "gelu"
    gated: bool = False  # `fc2(activation(gate(x)) * fc1(x))`
    layer_scale: float | None = None  # a learned factor of each feature of a branch, begins so
    qkv_bias: bool = True
    embed_bias: bool = True
    embed_norm: bool = False  # a norm before the blocks (CLIP)
    head_bias: bool = True  # without one the head is a projection, as of CLIP
    drop_rest: bool = False  # pixels behind the last whole patch are left out, not refused
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of its weights
    stochastic_depth: float = 0.0
    norm_epsilon: float = 1e-6
    scan_layers: bool = False
    remat: Remat = "none"
    attend: Attend = attend
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b y x ch"],
        *,
        masked: Bool[Array, "b p"] | None = None,
        keep: Int[Array, "b m"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """`images` normalised, of the size and channels of the fields; `masked` true where the mask
        token stands for a patch; `keep` the places of the patches that are seen, all if None.

        Returns logits and aux: `attention` `[layers, b, n, t, s]`, `hidden` `[layers, b, t, d]`,
        `encoded` `[b, t, d]` (the last of them, normed), `pooled` `[b, d]`. Of a distilled model
        the logits are the mean of two heads, `class_logits` and `distillation_logits` in aux.
        Raises UserError on an image of another size, or `masked` without a mask token.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dropout = self.dropout if train else 0.0
        x = drop(
            self._add_tokens(self._hide(self._embed(images), masked), keep), dropout, "dropout"
        )
        x, aux = run_stack(
            self._block(dropout, train),
            self.depth,
            x,
            shared={"attn": {}},
            layer={"drop_rate": jnp.linspace(0.0, self.stochastic_depth, self.depth)},
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        x = nn.LayerNorm(self.norm_epsilon, name="norm", **types)(x)
        pooled = self._pool(x)
        if self.pre_logits:
            pooled = jnp.tanh(nn.Dense(self.width, name="pre_logits", **types)(pooled))
        aux = {**aux, "encoded": x, "pooled": pooled}
        if not self.num_classes:
            return pooled.astype(jnp.float32), aux
        return self._classify(x, pooled, aux)

    def _embed(self, images: Float[Array, "b y x ch"]) -> Float[Array, "b p d"]:
        """The patches."""
        sizes = (self.image_size, self.patch_size, self.num_channels, self.drop_rest)
        patches = cut_patches(images, *sizes).astype(self.dtype)
        inits = {"use_bias": self.embed_bias, "kernel_init": nn.initializers.lecun_normal()}
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return nn.Dense(self.width, name="embed", **inits, **types)(patches)

    def _classify(
        self, x: Float[Array, "b t d"], pooled: Float[Array, "b e"], aux: dict[str, Any]
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """Logits of the head, or the mean of both heads."""
        # A projection must not begin at zero: it is divided by its length.
        init = nn.initializers.zeros if self.head_bias else nn.initializers.normal(self.width**-0.5)

        def head(name: str, x: Any) -> Any:
            types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            inits = {"use_bias": self.head_bias, "kernel_init": init}
            return nn.Dense(self.num_classes, name=name, **inits, **types)(x).astype(jnp.float32)

        logits = head("head", pooled)
        if self.distillation != "head":
            return logits, aux
        taught = head("head_dist", x[:, int(self._has_class_token())])
        aux = {**aux, "class_logits": logits, "distillation_logits": taught}
        return (logits + taught) / 2, aux

    def _block(self, dropout: float, train: bool) -> PreNormBlock:
        """The template of the stack."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        made = {"parent": None, **types}
        rates = {"inner_dropout": dropout, "dropout": dropout}
        attention = {"bias": self.qkv_bias, "dropout": self.attention_dropout if train else 0.0}
        scales = {}
        if self.layer_scale is not None:
            scales = {k: LayerScale(self.layer_scale, **made) for k in ("end1", "end2")}
        return PreNormBlock(
            norm1=make_norm("layer", self.norm_epsilon, **types),
            attn=Attention(self.num_heads, self.attend, **attention, **made),
            norm2=make_norm("layer", self.norm_epsilon, **types),
            mlp=FeedForward(self.hidden, self.activation, self.gated, **rates, **made),
            dropout=dropout,
            stochastic_depth=train and self.stochastic_depth > 0,
            parent=None,
            **scales,
        )

    def _hide(
        self, x: Float[Array, "b p d"], masked: Bool[Array, "b p"] | None
    ) -> Float[Array, "b p d"]:
        """Puts the mask token in the place of masked patches."""
        if not self.mask_token:
            if masked is not None:
                raise UserError("masked patches need a model with mask_token=True")
            return x
        token = self.param("mask", nn.initializers.zeros, (1, self.width), self.param_dtype)
        if masked is None:
            return x
        return jnp.where(masked[..., None], token.astype(self.dtype), x)

    def _add_tokens(
        self, x: Float[Array, "b p d"], keep: Int[Array, "b m"] | None
    ) -> Float[Array, "b t d"]:
        """Adds positions, and the tokens before the patches; leaves the patches of `keep`."""

        def token(name: str, init: Any, count: int = 1) -> Any:
            value = self.param(name, init, (count, self.width), self.param_dtype)
            return jnp.broadcast_to(value.astype(self.dtype), (len(x), count, self.width))

        tokens, zeros = [], nn.initializers.zeros
        if self._has_class_token():
            tokens.append(token("cls", zeros))
        if self.distillation != "none":
            tokens.append(token("dist", zeros))
        x = jnp.concatenate([*tokens, x], axis=1)
        x = x + self._positions(x.shape[1]).astype(self.dtype)
        if keep is not None:
            chosen = jnp.take_along_axis(x, keep[..., None] + len(tokens), axis=1)
            x = jnp.concatenate([x[:, : len(tokens)], chosen], axis=1)
        if self.num_registers:
            registers = token("registers", nn.initializers.normal(1e-6), self.num_registers)
            x = jnp.concatenate([x[:, : len(tokens)], registers, x[:, len(tokens) :]], axis=1)
        if self.embed_norm:
            types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            x = make_norm("layer", self.norm_epsilon, name="embed_norm", **types)(x)
        return x

    def _positions(self, length: int) -> Any:
        """`[t, d]`, of the tokens before the patches and of the patches."""
        if self.positions == "learned":
            init = nn.initializers.normal(0.02)
            return self.param("pos", init, (length, self.width), self.param_dtype)
        rows, columns = self.grid()
        if self.positions == "fixed":
            return fixed_positions(self, length, rows, columns, self.width, self.param_dtype)
        grid = sincos_positions(rows, columns, self.width)
        return jnp.asarray(np.pad(grid, ((length - len(grid), 0), (0, 0))))

    def _pool(self, x: Float[Array, "b t d"]) -> Float[Array, "b e"]:
        if self.pooling == "map":
            return AttentionPool(
                self.num_heads,
                self.hidden,
                self.activation,
                self.norm_epsilon,
                self.dtype,
                self.param_dtype,
                name="pool",
            )(x)
        if self.pooling == "cls":
            return x[:, 0]
        mean = x[:, self.num_placed() + self.num_registers :].mean(axis=1)
        return mean if self.pooling == "mean" else jnp.concatenate([x[:, 0], mean], axis=-1)

    def num_placed(self) -> int:
        """Tokens before the patches that have positions: class and distillation token."""
        return int(self._has_class_token()) + (self.distillation != "none")

    def _has_class_token(self) -> bool:
        return self.pooling in ("cls", "cls_mean")

    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches. Raises UserError when they do not fill the image."""
        return find_grid(self.image_size, self.patch_size, self.drop_rest)

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        return (image_spec(batch_size, self.image_size, self.num_channels),)
