"""Several random views of each image, made where the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Views:
    """`count` crops of an image, `size` pixels each, of `least` to `most` of its area.

    The aspect is 3/4 to 4/3, even in its logarithm, each made to fit into the image, and pixels are
    interpolated linearly. With `flip` half of them are mirrored left to right; `jitter` multiplies
    the pixels by up to 1 +- itself and adds up to as much.
    """

    count: int
    size: tuple[int, int]
    least: float
    most: float
    flip: bool = False
    jitter: float = 0.0

    def draw(self, keys: jax.Array, images: Float[Array, "b y x ch"]) -> Any:
        """`[b, v, y, x, ch]` of images `[b, y, x, ch]`, from a key for each image."""

        def draw_all(key: jax.Array, image: jax.Array) -> jax.Array:
            return jax.vmap(lambda k: self.draw_one(k, image))(jax.random.split(key, self.count))

        return jax.vmap(draw_all)(keys, images)

    def draw_one(self, key: jax.Array, image: Float[Array, "y x ch"]) -> Any:
        """One view."""
        height, width = image.shape[:2]
        area, aspect, top, left, mirror, gain, shift = jax.random.uniform(key, (7,))
        pixels = (self.least + area * (self.most - self.least)) * height * width
        ratio = (3 / 4) * (16 / 9) ** aspect
        wide = jnp.minimum(jnp.sqrt(pixels * ratio), width)
        tall = jnp.minimum(jnp.sqrt(pixels / ratio), height)
        scale = jnp.stack([self.size[0] / tall, self.size[1] / wide])
        corner = jnp.stack([top * (height - tall), left * (width - wide)])
        view = jax.image.scale_and_translate(
            image, (*self.size, image.shape[2]), (0, 1), scale, -corner * scale, "linear"
        )
        if self.flip:
            view = jnp.where(mirror < 0.5, view[:, ::-1], view)
        if self.jitter:
            view = view * (1 + self.jitter * (2 * gain - 1)) + self.jitter * (2 * shift - 1)
        return view
