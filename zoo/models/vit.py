"""The Vision Transformer (Dosovitskiy et al. 2021): pre-norm, exact GELU, norm epsilon 1e-6.

Initialised as in the paper's code: Xavier-uniform matrices, positions of deviation 0.02, a head
of zeros.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from zoo.config import UserError
from zoo.models.attention import Attend, Attention, attend
from zoo.models.blocks import PreNormBlock
from zoo.models.layers import Activation, FeedForward, drop, make_norm, sincos_positions
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


class ViT(nn.Module):
    """Images to class logits, or to a pooled vector when `num_classes` is 0."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    patch_size: int | tuple[int, int] = 16
    image_size: tuple[int, int] = (224, 224)
    num_channels: int = 3
    num_classes: int = 1000
    pooling: Literal["cls", "mean", "map"] = "cls"
    pre_logits: bool = False  # Dense and tanh before the head, as in the paper's pre-training
    positions: Literal["learned", "sincos"] = "learned"
    activation: Activation = "gelu"
    qkv_bias: bool = True
    embed_bias: bool = True
    embed_norm: bool = False  # a norm before the blocks (CLIP)
    head_bias: bool = True  # without one the head is a projection, as of CLIP
    drop_rest: bool = False  # pixels behind the last whole patch are left out, not refused
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    norm_epsilon: float = 1e-6
    scan_layers: bool = False
    remat: Literal["none", "full", "dots"] = "none"
    attend: Attend = attend
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b y x ch"], *, train: bool = False
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """`images` normalised, of the size and channels of the fields.

        Returns logits and aux: `attention` `[layers, b, n, t, s]`, `hidden` `[layers, b, t, d]`,
        `encoded` `[b, t, d]` (the last of them, normed), `pooled` `[b, d]`. Raises UserError on an
        image of another size.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dropout = self.dropout if train else 0.0
        x = drop(self._embed(images), dropout, "dropout")
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
        # A projection must not begin at zero: it is divided by its length.
        init = nn.initializers.zeros if self.head_bias else nn.initializers.normal(self.width**-0.5)
        inits = {"use_bias": self.head_bias, "kernel_init": init}
        head = nn.Dense(self.num_classes, name="head", **inits, **types)
        return head(pooled).astype(jnp.float32), aux

    def _embed(self, images: Float[Array, "b y x ch"]) -> Float[Array, "b t d"]:
        """Patches and positions, normed where `embed_norm` is set."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        inits = {"use_bias": self.embed_bias, "kernel_init": nn.initializers.lecun_normal()}
        embed = nn.Dense(self.width, name="embed", **inits, **types)
        x = self._add_positions(embed(self._cut(images).astype(self.dtype)))
        if self.embed_norm:
            x = make_norm("layer", self.norm_epsilon, name="embed_norm", **types)(x)
        return x

    def _block(self, dropout: float, train: bool) -> PreNormBlock:
        """The template of the stack."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        rates = {"inner_dropout": dropout, "dropout": dropout}
        return PreNormBlock(
            norm1=make_norm("layer", self.norm_epsilon, **types),
            attn=Attention(self.num_heads, self.attend, bias=self.qkv_bias, parent=None, **types),
            norm2=make_norm("layer", self.norm_epsilon, **types),
            mlp=FeedForward(self.hidden, self.activation, parent=None, **rates, **types),
            dropout=dropout,
            stochastic_depth=train and self.stochastic_depth > 0,
            parent=None,
        )

    def _cut(self, images: Float[Array, "b y x ch"]) -> Float[Array, "b t p"]:
        """Cuts images into flattened patches, row by row."""
        if images.shape[1:] != (*self.image_size, self.num_channels):
            raise UserError(
                f"the model takes images of {(*self.image_size, self.num_channels)}, "
                f"not {images.shape[1:]}: set image_size and num_channels"
            )
        rows, columns = self.grid()
        height, width = self._patch()
        images = images[:, : rows * height, : columns * width]
        x = images.reshape(len(images), rows, height, columns, width, self.num_channels)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), rows * columns, -1)

    def _add_positions(self, x: Float[Array, "b t d"]) -> Float[Array, "b s d"]:
        """Adds positions, and the class token before the patches when that pools."""
        rows, columns = self.grid()
        if self.pooling == "cls":
            token = self.param("cls", nn.initializers.zeros, (1, self.width), self.param_dtype)
            token = jnp.broadcast_to(token.astype(self.dtype), (len(x), 1, self.width))
            x = jnp.concatenate([token, x], axis=1)
        if self.positions == "learned":
            init = nn.initializers.normal(0.02)
            pos = self.param("pos", init, (x.shape[1], self.width), self.param_dtype)
        else:
            grid = sincos_positions(rows, columns, self.width)
            pos = jnp.asarray(np.pad(grid, ((x.shape[1] - len(grid), 0), (0, 0))))
        return x + pos.astype(self.dtype)

    def _pool(self, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
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
        return x[:, 0] if self.pooling == "cls" else x.mean(axis=1)

    def _patch(self) -> tuple[int, int]:
        patch = self.patch_size
        return (patch, patch) if isinstance(patch, int) else patch

    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches. Raises UserError when they do not fill the image and
        `drop_rest` is not set, or when there are none."""
        image, patch = self.image_size, self._patch()
        rest = image[0] % patch[0] or image[1] % patch[1]
        if (rest and not self.drop_rest) or image[0] < patch[0] or image[1] < patch[1]:
            near = tuple(max(round(i / p), 1) * p for i, p in zip(image, patch, strict=True))
            raise UserError(
                f"image {image[0]}x{image[1]} is not divisible by patch {patch[0]}x{patch[1]} "
                f"(nearest image: {near[0]}x{near[1]})"
            )
        return image[0] // patch[0], image[1] // patch[1]

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        shape = (batch_size, *self.image_size, self.num_channels)
        return (jax.ShapeDtypeStruct(shape, jnp.float32),)
