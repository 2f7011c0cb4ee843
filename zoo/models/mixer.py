"""MLP-Mixer (Tolstikhin et al. 2021): pre-norm, norm epsilon 1e-6, the tokens' mean pools.

GELU is exact, as in timm; the authors' flax code takes the tanh form, and so does what is read from
their `.npz`. Initialised as there: LeCun-normal matrices, biases and the head zero.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo.config import Remat
from zoo.models.layers import Activation, FeedForward, StochasticDepth, make_norm
from zoo.models.patches import Size, cut_patches, find_grid, image_spec
from zoo.models.stack import run_stack

# size -> width, depth, hidden width of the token mixing, of the channel mixing; table 1.
SIZES = {
    "s": (512, 8, 256, 2048),
    "b": (768, 12, 384, 3072),
    "l": (1024, 24, 512, 4096),
}
PATCHES = (16, 32)


class MixerBlock(nn.Module):
    """Mixes the tokens, feature by feature, then the features, token by token.

    `tokens` sees the transposed stream: its dense layers run along the tokens, whose number is
    therefore fixed.
    """

    norm1: nn.Module
    tokens: FeedForward
    norm2: nn.Module
    mlp: FeedForward
    stochastic_depth: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], layer: Any, cache: Any, shared: Any
    ) -> tuple[Float[Array, "b t d"], dict[str, Any]]:
        def add(x: Any, branch: Any, name: str) -> Any:
            if self.stochastic_depth:
                branch = StochasticDepth(name=name)(branch, layer["drop_rate"])
            return x + branch

        mixed = self.tokens(self.norm1(x).swapaxes(1, 2)).swapaxes(1, 2)
        x = add(x, mixed, "drop1")
        x = add(x, self.mlp(self.norm2(x)), "drop2")
        return x, {"hidden": x}


class Mixer(nn.Module):
    """Images to class logits, or to a pooled vector when `num_classes` is 0."""

    width: int = 768
    depth: int = 12
    tokens_hidden: int = 384
    hidden: int = 3072
    patch_size: Size = 16
    image_size: tuple[int, int] = (224, 224)
    num_channels: int = 3
    num_classes: int = 1000
    activation: Activation = "gelu"
    dropout: float = 0.0  # in both mixings, after the activation and at the end
    stochastic_depth: float = 0.0  # of the last layer; the first has 0, the rate grows evenly
    norm_epsilon: float = 1e-6
    scan_layers: bool = False
    remat: Remat = "none"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b y x ch"], *, train: bool = False
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """`images` normalised, of the size and channels of the fields.

        Returns logits and aux: `hidden` `[layers, b, t, d]`, `encoded` `[b, t, d]` (the last of
        them, normed), `pooled` `[b, d]`. Raises UserError on an image of another size.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        patches = cut_patches(images, self.image_size, self.patch_size, self.num_channels)
        x = nn.Dense(self.width, name="embed", **types)(patches.astype(self.dtype))
        x, aux = run_stack(
            self._block(train),
            self.depth,
            x,
            layer={"drop_rate": jnp.linspace(0.0, self.stochastic_depth, self.depth)},
            scan=self.scan_layers,
            remat=self.remat if train else "none",
        )
        x = nn.LayerNorm(self.norm_epsilon, name="norm", **types)(x)
        pooled = x.mean(axis=1)
        aux = {**aux, "encoded": x, "pooled": pooled}
        if not self.num_classes:
            return pooled.astype(jnp.float32), aux
        head = nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head", **types)
        return head(pooled).astype(jnp.float32), aux

    def _block(self, train: bool) -> MixerBlock:
        """The template of the stack."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        rate = self.dropout if train else 0.0
        lecun = nn.initializers.lecun_normal()
        inits = {"kernel_init": lecun, "out_init": lecun, "bias_init": nn.initializers.zeros}
        made = {"inner_dropout": rate, "dropout": rate, "parent": None, **inits, **types}
        return MixerBlock(
            norm1=make_norm("layer", self.norm_epsilon, **types),
            tokens=FeedForward(self.tokens_hidden, self.activation, **made),
            norm2=make_norm("layer", self.norm_epsilon, **types),
            mlp=FeedForward(self.hidden, self.activation, **made),
            stochastic_depth=train and self.stochastic_depth > 0,
            parent=None,
        )

    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches. Raises UserError when they do not fill the image."""
        return find_grid(self.image_size, self.patch_size)

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        return (image_spec(batch_size, self.image_size, self.num_channels),)
