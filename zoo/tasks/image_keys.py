"""Random numbers of each image: from a key in training, from its pixels in evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

MULTIPLIER = np.uint32(2_654_435_761)  # 2^32 over the golden ratio (Knuth 1973, section 6.4)


def make_keys(key: jax.Array | None, images: Float[Array, "b y x ch"]) -> jax.Array:
    """A key for each image `[b]`.

    Without a `key` it is a function of the pixels alone: the same image is treated the same way
    whatever batch, place and device it is in.
    """
    if key is not None:
        return jax.random.split(key, len(images))
    bits = jax.lax.bitcast_convert_type(images.astype(jnp.float32), jnp.uint32)
    bits = bits.reshape(len(images), -1)
    # Sums of whole numbers modulo 2^32 do not depend on their order.
    places = np.arange(1, bits.shape[1] + 1, dtype=np.uint32) * MULTIPLIER | np.uint32(1)
    hashes = ((bits ^ (bits >> 15)) * places).sum(axis=1, dtype=jnp.uint32)
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(hashes)
