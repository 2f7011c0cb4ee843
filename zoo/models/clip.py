"""Two towers: images and texts in one space, compared by the cosine of their embeddings.

CLIP (Radford et al. 2021): pre-norm towers, LayerNorm epsilon 1e-5, the quick form of GELU. The
image tower is a ViT with a class token, a norm before the blocks and patches without a bias; the
text tower is causal and is read at its end token; both end in a projection without a bias. The
scale begins at 1 / 0.07.

SigLIP (Zhai et al. 2023; Tschannen et al. 2025 for SigLIP 2 of a fixed resolution): pre-norm, norm
epsilon 1e-6, the tanh form of GELU. The image tower is a ViT without a class token, pooled by
attention; the text tower sees both ways and is read at its last place, padded or not (texts were
always padded to all of its positions), by a dense layer with a bias. The scale begins at 10, the
bias of the logits at -10.

Text towers are initialised as in CLIP's code: normals of deviation 0.02 (tokens), 0.01 (positions),
width ** -0.5 (queries, keys, values, head), (2 * width) ** -0.5 (fc1), and for what writes into the
stream width ** -0.5 / sqrt(2 * depth); image towers as a ViT (`vit.py`).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import Remat, UserError
from zoo.models.attention import Attend, Attention, attend, widen_mask
from zoo.models.blocks import PreNormBlock
from zoo.models.layers import Activation, FeedForward, make_norm
from zoo.models.stack import run_stack
from zoo.models.vit import ViT

# name -> the image tower's width, depth, heads, patch and image size, the text tower's width, depth
# and heads, the embedding's width: OpenAI's published config.json files. A feed-forward is four
# times as wide as its tower.
CLIP_SIZES = {
    "clip_vit_b32": (768, 12, 12, 32, 224, 512, 12, 8, 512),
    "clip_vit_b16": (768, 12, 12, 16, 224, 512, 12, 8, 512),
    "clip_vit_l14": (1024, 24, 16, 14, 224, 768, 12, 12, 768),
    "clip_vit_l14_336": (1024, 24, 16, 14, 336, 768, 12, 12, 768),
}
# size -> width, depth, heads, feed-forward width of a tower.
SIGLIP_TOWERS = {
    "b": (768, 12, 12, 3072),
    "l": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "g": (1536, 40, 16, 6144),
}
# name -> size of the image tower, of the text tower, patch and image size, vocabulary: Google's
# published config.json files.
SIGLIP_SIZES = {
    "siglip_b16_224": ("b", "b", 16, 224, 32_000),
    "siglip_b16_256": ("b", "b", 16, 256, 32_000),
    "siglip_b16_384": ("b", "b", 16, 384, 32_000),
    "siglip_b16_512": ("b", "b", 16, 512, 32_000),
    "siglip_l16_256": ("l", "l", 16, 256, 32_000),
    "siglip_l16_384": ("l", "l", 16, 384, 32_000),
    "siglip_so400m_14_224": ("so400m", "so400m", 14, 224, 32_000),
    "siglip_so400m_14_384": ("so400m", "so400m", 14, 384, 32_000),
    "siglip2_b32_256": ("b", "b", 32, 256, 256_000),
    "siglip2_b16_224": ("b", "b", 16, 224, 256_000),
    "siglip2_b16_256": ("b", "b", 16, 256, 256_000),
    "siglip2_b16_384": ("b", "b", 16, 384, 256_000),
    "siglip2_b16_512": ("b", "b", 16, 512, 256_000),
    "siglip2_l16_256": ("l", "l", 16, 256, 256_000),
    "siglip2_l16_384": ("l", "l", 16, 384, 256_000),
    "siglip2_l16_512": ("l", "l", 16, 512, 256_000),
    "siglip2_so400m_14_224": ("so400m", "so400m", 14, 224, 256_000),
    "siglip2_so400m_14_384": ("so400m", "so400m", 14, 384, 256_000),
    "siglip2_so400m_16_256": ("so400m", "so400m", 16, 256, 256_000),
    "siglip2_so400m_16_384": ("so400m", "so400m", 16, 384, 256_000),
    "siglip2_so400m_16_512": ("so400m", "so400m", 16, 512, 256_000),
    "siglip2_g16_256": ("g", "so400m", 16, 256, 256_000),
    "siglip2_g16_384": ("g", "so400m", 16, 384, 256_000),
}


class TextTower(nn.Module):
    """Texts to embeddings, or to a pooled vector when `num_classes` is 0."""

    width: int = 512
    depth: int = 12
    num_heads: int = 8
    hidden: int = 2048
    vocab_size: int = 49408
    num_positions: int = 77
    num_classes: int = 512  # width of the embedding
    causal: bool = True
    # Read at the highest token id, at the first `end_token` (place 0 where there is none), or at
    # the last place.
    pooling: Literal["highest", "end", "last"] = "highest"
    end_token: int = 49407
    head_bias: bool = False
    activation: Activation = "gelu_quick"
    norm_epsilon: float = 1e-5
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
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """`mask` is true where a token is real.

        Returns embeddings, not normalised, and aux: `attention` `[layers, b, n, t, t]`, `hidden`
        `[layers, b, t, d]`, `encoded` `[b, t, d]` (the last of them, normed), `pooled` `[b, d]`.
        Raises UserError on more tokens than positions.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if tokens.shape[1] > self.num_positions:
            raise UserError(
                f"the model has {self.num_positions} positions, not {tokens.shape[1]}: shorten the "
                "text or set num_positions"
            )
        init = nn.initializers.normal(0.02)
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed", **types)(
            tokens
        )
        shape = (self.num_positions, self.width)
        pos = self.param("pos", nn.initializers.normal(0.01), shape, self.param_dtype)
        x, aux = run_stack(
            self._block(),
            self.depth,
            x + pos[: tokens.shape[1]].astype(self.dtype),
            shared={"attn": {"mask": widen_mask(mask)}},
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        x = make_norm("layer", self.norm_epsilon, name="norm", **types)(x)
        pooled = self._pool(x, tokens)
        aux = {**aux, "encoded": x, "pooled": pooled}
        if not self.num_classes:
            return pooled.astype(jnp.float32), aux
        inits = {"use_bias": self.head_bias, "kernel_init": self._init()}
        head = nn.Dense(self.num_classes, name="head", **inits, **types)
        return head(pooled).astype(jnp.float32), aux

    def _pool(self, x: Float[Array, "b t d"], tokens: Int[Array, "b t"]) -> Float[Array, "b d"]:
        if self.pooling == "last":
            return x[:, -1]
        found = tokens if self.pooling == "highest" else tokens == self.end_token
        return jnp.take_along_axis(x, jnp.argmax(found, axis=1)[:, None, None], axis=1)[:, 0]

    def _block(self) -> PreNormBlock:
        """The template of the stack."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        into_stream = nn.initializers.normal((2 * self.depth * self.width) ** -0.5)
        return PreNormBlock(
            norm1=make_norm("layer", self.norm_epsilon, **types),
            attn=Attention(
                self.num_heads,
                self.attend,
                causal=self.causal,
                kernel_init=self._init(),
                out_init=into_stream,
                parent=None,
                **types,
            ),
            norm2=make_norm("layer", self.norm_epsilon, **types),
            mlp=FeedForward(
                self.hidden,
                self.activation,
                kernel_init=nn.initializers.normal((2 * self.width) ** -0.5),
                out_init=into_stream,
                bias_init=nn.initializers.zeros,
                parent=None,
                **types,
            ),
            parent=None,
        )

    def _init(self) -> Any:
        return nn.initializers.normal(self.width**-0.5)

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        return (jax.ShapeDtypeStruct((batch_size, self.num_positions), jnp.int32),)


class TwoTowers(nn.Module):
    """Images and texts to how well each image goes with each text. A subclass makes the towers."""

    # Whether a logit is that of a sigmoid, each pair for itself, or one of a softmax.
    pairwise: ClassVar[bool] = False

    width: int = 768  # of the image tower, as what follows
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    patch_size: int = 16
    image_size: tuple[int, int] = (224, 224)
    num_channels: int = 3
    text_width: int = 768
    text_depth: int = 12
    text_num_heads: int = 12
    text_hidden: int = 3072
    vocab_size: int = 32000
    num_positions: int = 64
    embedding_width: int = 768
    activation: Activation = "gelu_tanh"
    norm_epsilon: float = 1e-6
    scan_layers: bool = False
    remat: Remat = "none"
    attend: Attend = attend
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        # The attributes' names are those of the parameters.
        self.image, self.text = self._make_image(), self._make_text()
        self.logit_scale = self._scalar("logit_scale", self.first_scale())

    def __call__(
        self,
        images: Float[Array, "b y x ch"],
        tokens: Int[Array, "q t"],
        *,
        mask: Bool[Array, "q t"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b q"], dict[str, Any]]:
        """`images` normalised, `tokens` of any number of texts, `mask` true where a token is real.

        Returns float32 logits, a row an image and a column a text (the logits of each text are the
        transpose), and aux: `image` and `text`, what each tower tells (`hidden`, `attention`,
        `encoded`, `pooled`) with its `embedding` `[b, c]` of length 1. Raises UserError as the
        towers do.
        """
        image, image_aux = self.encode_image(images, train=train)
        text, text_aux = self.encode_text(tokens, mask=mask, train=train)
        image, text = normalise(image), normalise(text)
        logits = self._compare(jnp.einsum("bc,qc->bq", image, text))
        aux = {
            "image": {**image_aux, "embedding": image},
            "text": {**text_aux, "embedding": text},
        }
        return logits, aux

    def encode_image(
        self, images: Float[Array, "b y x ch"], *, train: bool = False
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """Embeddings of images, not normalised, and aux: `model.apply(..., method="encode_image")`
        needs no text."""
        return self.image(images, train=train)

    def encode_text(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """Embeddings of texts, not normalised, and aux."""
        return self.text(tokens, mask=mask, train=train)

    def _compare(self, cosines: Float[Array, "b q"]) -> Float[Array, "b q"]:
        return cosines * jnp.exp(self.logit_scale)

    def _scalar(self, name: str, value: float) -> Any:
        init = nn.initializers.constant(value)
        return self.param(name, init, (), self.param_dtype).astype(jnp.float32)

    def first_scale(self) -> float:
        """Where the logarithm of the scale begins."""
        raise NotImplementedError

    def _make_image(self) -> ViT:
        raise NotImplementedError

    def _make_text(self) -> TextTower:
        raise NotImplementedError

    def _shared(self) -> dict[str, Any]:
        """What both towers have."""
        names = ("activation", "norm_epsilon", "scan_layers", "remat", "attend")
        return {name: getattr(self, name) for name in (*names, "dtype", "param_dtype")}

    def _image_sizes(self) -> dict[str, Any]:
        names = ("width", "depth", "num_heads", "hidden", "patch_size", "image_size")
        return {name: getattr(self, name) for name in (*names, "num_channels")}

    def _text_sizes(self) -> dict[str, Any]:
        names = ("width", "depth", "num_heads", "hidden")
        sizes = {name: getattr(self, f"text_{name}") for name in names}
        return {**sizes, "vocab_size": self.vocab_size, "num_positions": self.num_positions}

    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches. Raises UserError when there are none."""
        return ViT(**self._image_sizes(), drop_rest=True, parent=None).grid()

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        shape = (batch_size, *self.image_size, self.num_channels)
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        return images, jax.ShapeDtypeStruct((batch_size, self.num_positions), jnp.int32)


# What a ViT must be to be the image tower of CLIP and of SigLIP.
IMAGE_OF_CLIP: dict[str, Any] = {
    "pooling": "cls",
    "embed_bias": False,
    "embed_norm": True,
    "head_bias": False,
    "drop_rest": True,
}
IMAGE_OF_SIGLIP: dict[str, Any] = {"pooling": "map", "num_classes": 0, "drop_rest": True}
TEXT_OF_SIGLIP: dict[str, Any] = {"causal": False, "pooling": "last", "head_bias": True}


class CLIP(TwoTowers):
    """CLIP; the defaults are those of ViT-B/32."""

    patch_size: int = 32
    text_width: int = 512
    text_num_heads: int = 8
    text_hidden: int = 2048
    vocab_size: int = 49408
    num_positions: int = 77
    embedding_width: int = 512
    text_pooling: Literal["highest", "end"] = "highest"  # see TextTower.pooling
    end_token: int = 49407
    activation: Activation = "gelu_quick"
    norm_epsilon: float = 1e-5

    def first_scale(self) -> float:
        """As in the paper."""
        return math.log(1 / 0.07)

    def _make_image(self) -> ViT:
        sizes = {**self._image_sizes(), "num_classes": self.embedding_width}
        return ViT(**sizes, **IMAGE_OF_CLIP, **self._shared())

    def _make_text(self) -> TextTower:
        sizes = {**self._text_sizes(), "num_classes": self.embedding_width}
        place = {"pooling": self.text_pooling, "end_token": self.end_token}
        return TextTower(**sizes, **place, **self._shared())


class SigLIP(TwoTowers):
    """SigLIP; the defaults are those of ViT-B/16 at 224 pixels."""

    pairwise: ClassVar[bool] = True

    def setup(self) -> None:
        super().setup()
        self.logit_bias = self._scalar("logit_bias", -10.0)

    def first_scale(self) -> float:
        """As in the paper."""
        return math.log(10)

    def _compare(self, cosines: Float[Array, "b q"]) -> Float[Array, "b q"]:
        return cosines * jnp.exp(self.logit_scale) + self.logit_bias

    def _make_image(self) -> ViT:
        return ViT(**self._image_sizes(), **IMAGE_OF_SIGLIP, **self._shared())

    def _make_text(self) -> TextTower:
        if self.embedding_width != self.width:
            raise UserError(
                f"embedding_width={self.embedding_width}: SigLIP's images have no projection, so "
                f"it is their width, {self.width}"
            )
        sizes = {**self._text_sizes(), "num_classes": self.embedding_width}
        return TextTower(**sizes, **TEXT_OF_SIGLIP, **self._shared())


def normalise(x: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """Rows of length 1."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
