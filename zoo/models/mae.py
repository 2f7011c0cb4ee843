"""Masked autoencoders (He et al. 2022): a ViT sees a quarter of the patches, a small decoder draws
the others.

Pre-norm, exact GELU, norm epsilon 1e-12 as transformers has it (the authors' code: 1e-6). Positions
are sine-cosine, held as parameters that never learn. Initialised as a ViT; the mask token of
deviation 0.02.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import Remat, UserError
from zoo.models.attention import Attend, Attention, attend
from zoo.models.blocks import PreNormBlock
from zoo.models.layers import Activation, FeedForward, make_norm
from zoo.models.patches import Size, as_pair, cut_patches, find_grid, image_spec, join_patches
from zoo.models.stack import run_stack
from zoo.models.vit import ViT, fixed_positions

# name -> size of the encoder, patch. All decoders are 512 wide, 8 deep.
ROWS = {"mae_b16": ("b", 16), "mae_l16": ("l", 16), "mae_h14": ("h", 14)}


def choose_patches(
    noise: Float[Array, "b p"], mask_ratio: float
) -> tuple[Int[Array, "b m"], Int[Array, "b p"]]:
    """Keeps the patches of the smallest noise, `int(p * (1 - mask_ratio))` of each image.

    Returns the places of those kept, in the order of their noise, and of each patch its rank: one
    whose rank is not below the number kept is masked.
    """
    order = jnp.argsort(noise, axis=1)
    return order[:, : int(noise.shape[1] * (1 - mask_ratio))], jnp.argsort(order, axis=1)


def compare_pixels(
    pixels: Float[Array, "b p f"], patches: Float[Array, "b p f"], normed: bool
) -> Float[Array, "b p"]:
    """The mean squared error of each patch, as `cut_patches` cuts it out.

    `normed`: the target is a patch less its mean, over its deviation (unbiased, 1e-6 added to the
    variance). The paper's loss is the mean over the masked patches.
    """
    if normed:
        mean, deviation = _mean_and_deviation(patches)
        patches = (patches - mean) / deviation
    return jnp.square(pixels - patches).mean(-1)


def _mean_and_deviation(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    variance = patches.var(-1, keepdims=True, ddof=1)
    return patches.mean(-1, keepdims=True), jnp.sqrt(variance + 1e-6)


class MAEDecoder(nn.Module):
    """Encoded patches, among mask tokens in the places of the others, to pixels of all."""

    width: int
    depth: int
    num_heads: int
    hidden: int
    num_pixels: int
    grid: tuple[int, int]
    activation: Activation
    qkv_bias: bool
    norm_epsilon: float
    scan_layers: bool
    remat: str
    attend: Attend
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t e"], rank: Int[Array, "b p"]
    ) -> tuple[Float[Array, "b p f"], dict[str, Any]]:
        """`x` is the class token and the kept patches, `rank` tells which of them a patch is."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.Dense(self.width, name="embed", **types)(x)
        token = self.param("mask", nn.initializers.normal(0.02), (1, self.width), self.param_dtype)
        missing = (len(x), rank.shape[1] + 1 - x.shape[1], self.width)
        tokens = jnp.broadcast_to(token.astype(self.dtype), missing)
        patches = jnp.concatenate([x[:, 1:], tokens], axis=1)
        patches = jnp.take_along_axis(patches, rank[..., None], axis=1)
        x = jnp.concatenate([x[:, :1], patches], axis=1)
        pos = fixed_positions(self, x.shape[1], *self.grid, self.width, self.param_dtype)
        block = PreNormBlock(
            norm1=make_norm("layer", self.norm_epsilon, **types),
            attn=Attention(self.num_heads, self.attend, bias=self.qkv_bias, parent=None, **types),
            norm2=make_norm("layer", self.norm_epsilon, **types),
            mlp=FeedForward(self.hidden, self.activation, parent=None, **types),
            parent=None,
        )
        x, aux = run_stack(
            block,
            self.depth,
            x + pos.astype(self.dtype),
            shared={"attn": {}},
            scan=self.scan_layers,
            remat=self.remat,
        )
        x = nn.LayerNorm(self.norm_epsilon, name="norm", **types)(x)
        return nn.Dense(self.num_pixels, name="head", **types)(x)[:, 1:].astype(jnp.float32), aux


class MAE(nn.Module):
    """Images to the pixels of their patches, most of them never seen.

    For fine-tuning: `model.encoder()` is the ViT of `params["encoder"]`.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    patch_size: Size = 16
    image_size: tuple[int, int] = (224, 224)
    num_channels: int = 3
    head: Literal["pixels", "none"] = "pixels"  # 'none': without the decoder
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    decoder_hidden: int = 2048
    mask_ratio: float = 0.75
    normed_pixels: bool = False  # the decoder draws them less their mean, over their deviation
    activation: Activation = "gelu"
    qkv_bias: bool = True
    dropout: float = 0.0  # of the encoder
    attention_dropout: float = 0.0  # of the encoder's weights
    norm_epsilon: float = 1e-12
    scan_layers: bool = False
    remat: Remat = "none"
    attend: Attend = attend
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b y x ch"],
        noise: Float[Array, "b p"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "b t f"], dict[str, Any]]:
        """`images` normalised; `noise` says which patches are kept (`choose_patches`), drawn
        uniformly by the rng `dropout` where it is None.

        Returns pixels `[b, p, y * x * ch]`, without a decoder the encoded class token and kept
        patches, and aux: `encoder` as of the ViT, `decoder` with `attention` and `hidden`, `masked`
        `[b, p]` true where a patch was not seen. Raises UserError without noise and rng.
        """
        rows, columns = self.grid()
        if noise is None:
            if not self.has_rng("dropout"):
                raise UserError("a masked autoencoder needs noise, or an rng named dropout")
            key = self.make_rng("dropout")
            noise = jax.random.uniform(key, (len(images), rows * columns))
        keep, rank = choose_patches(noise, self.mask_ratio)
        _, encoder = self.encoder(name="encoder")(images, keep=keep, train=train)
        aux = {"encoder": encoder, "masked": rank >= keep.shape[1]}
        if self.head == "none":
            return encoder["encoded"].astype(jnp.float32), aux
        height, width = as_pair(self.patch_size)
        decoder = MAEDecoder(
            self.decoder_width,
            self.decoder_depth,
            self.decoder_num_heads,
            self.decoder_hidden,
            height * width * self.num_channels,
            (rows, columns),
            name="decoder",
            **{**self._shared(), "remat": self.remat if train else "none"},
        )
        pixels, aux["decoder"] = decoder(encoder["encoded"], rank)
        return pixels, aux

    def encoder(self, **fields: Any) -> ViT:
        """The ViT that sees the kept patches; a part of nothing unless it is given a name."""
        sizes = ("width", "depth", "num_heads", "hidden")
        rates = ("dropout", "attention_dropout")
        names = (*sizes, "patch_size", "image_size", "num_channels", *rates)
        own = {name: getattr(self, name) for name in names}
        made = {"positions": "fixed", "num_classes": 0, **own, **self._shared(), **fields}
        return ViT(**made if "name" in made else {**made, "parent": None})

    def _shared(self) -> dict[str, Any]:
        """What encoder and decoder have alike."""
        names = ("activation", "qkv_bias", "norm_epsilon", "scan_layers", "remat", "attend")
        return {name: getattr(self, name) for name in (*names, "dtype", "param_dtype")}

    def pixel_losses(
        self, pixels: Float[Array, "b p f"], images: Float[Array, "b y x ch"]
    ) -> Float[Array, "b p"]:
        """Of each patch of the images what `compare_pixels` says of those that were drawn."""
        return compare_pixels(pixels, self._cut(images), self.normed_pixels)

    def fill_in(
        self,
        images: Float[Array, "b y x ch"],
        pixels: Float[Array, "b p f"],
        masked: Bool[Array, "b p"],
    ) -> Float[Array, "b y x ch"]:
        """The images with the masked patches as they were drawn. Normed pixels get the mean and
        the deviation of the patch that they stand for."""
        patches = self._cut(images)
        if self.normed_pixels:
            mean, deviation = _mean_and_deviation(patches)
            pixels = pixels * deviation + mean
        whole = jnp.where(masked[..., None], pixels, patches)
        return join_patches(whole, self.image_size, self.patch_size)

    def _cut(self, images: Float[Array, "b y x ch"]) -> Float[Array, "b p f"]:
        return cut_patches(images, self.image_size, self.patch_size, self.num_channels)

    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches. Raises UserError when they do not fill the image."""
        return find_grid(self.image_size, self.patch_size)

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs: images and noise."""
        rows, columns = self.grid()
        noise = jax.ShapeDtypeStruct((batch_size, rows * columns), jnp.float32)
        return image_spec(batch_size, self.image_size, self.num_channels), noise
