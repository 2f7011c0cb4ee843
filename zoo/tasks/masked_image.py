"""Images of which most is hidden (masked autoencoders, He et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.config import UserError
from zoo.tasks.image_keys import make_keys
from zoo.tasks.supervised import call_model, init_model, mean_sums


@dataclass(frozen=True)
class MaskedImage:
    """The squared error of the pixels of hidden patches, its mean over them; `normed_pixels` and
    `mask_ratio` are fields of the model.

    Which patches are hidden is drawn from the key in training, for each image anew, and in
    evaluation from the image's own pixels: the same ones every time.
    """

    head: ClassVar[str] = "pixels"

    model: nn.Module

    @staticmethod
    def num_outputs(info: Any) -> int:
        """None. Raises UserError where the data is no images."""
        require_images(info, "masked_image")
        return 0

    @classmethod
    def create(cls, model: nn.Module, info: Any) -> MaskedImage:
        """Raises UserError on another model, and one that hides all or nothing."""
        if not hasattr(model, "mask_ratio"):
            raise UserError(
                f"task.name='masked_image' trains a masked autoencoder, such as "
                f"model.name='mae_b16', not a {type(model).__name__}"
            )
        shown, patches = int(patches_of(model) * (1 - model.mask_ratio)), patches_of(model)
        if not 0 < shown < patches:
            raise UserError(
                f"model.arguments.mask_ratio={model.mask_ratio} shows {shown} of {patches} patches"
            )
        return cls(model)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed over the hidden patches of real images; `weight` is their number."""
        _, losses, masked = self._draw(params, batch, key)
        hidden = masked * batch["mask"].astype(jnp.float32)[:, None]
        loss = (losses * hidden).sum()
        return loss, {"loss": loss, "weight": hidden.sum()}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        return mean_sums(sums, loss="loss")

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """`loss` `[b]`, the mean over the hidden patches of an image."""
        _, losses, masked = self._draw(params, batch, None)
        return {"loss": (losses * masked).sum(-1) / masked.sum(-1)}

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Images `[b, y, x, ch]` with the hidden patches as the model draws them. Of a model of
        normed pixels each has the mean and the deviation of the patch that it stands for."""
        model: Any = self.model
        pixels, _, masked = self._draw(params, batch, None)
        return model.fill_in(batch["image"], pixels, masked)

    def _draw(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Pixels `[b, p, f]` of all patches, their losses `[b, p]`, and which are hidden."""
        model: Any = self.model
        images = batch["image"]
        keys = make_keys(key, images)
        noise = jax.vmap(lambda k: jax.random.uniform(k, (patches_of(model),)))(keys)
        dropout = None if key is None else jax.random.fold_in(key, 1)
        pixels, aux = call_model(model, params, images, dropout, noise=noise)
        return pixels, model.pixel_losses(pixels, images), aux["masked"]


def patches_of(model: Any) -> int:
    """How many patches an image has."""
    rows, columns = model.grid()
    return rows * columns


def require_images(info: Any, name: str) -> None:
    """Raises UserError where the data of a task of images has none."""
    if "image" not in info.shapes:
        raise UserError(
            f"task.name={name!r} is for images, {info.name} has {', '.join(info.shapes)}"
        )
