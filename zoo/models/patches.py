"""What every model of images does first: cuts them into patches, row by row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo.config import UserError

Size = int | tuple[int, int]  # of a patch: one number where it is square


def as_pair(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def find_grid(
    image_size: tuple[int, int], patch_size: Size, drop_rest: bool = False
) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises UserError when there are none, or when they do not fill the image and the rest is not to
    be dropped.
    """
    image, patch = image_size, as_pair(patch_size)
    rest = image[0] % patch[0] or image[1] % patch[1]
    if (rest and not drop_rest) or image[0] < patch[0] or image[1] < patch[1]:
        near = tuple(max(round(i / p), 1) * p for i, p in zip(image, patch, strict=True))
        raise UserError(
            f"image {image[0]}x{image[1]} is not divisible by patch {patch[0]}x{patch[1]} "
            f"(nearest image: {near[0]}x{near[1]})"
        )
    return image[0] // patch[0], image[1] // patch[1]


def cut_patches(
    images: Float[Array, "b y x ch"],
    image_size: tuple[int, int],
    patch_size: Size,
    channels: int,
    drop_rest: bool = False,
) -> Float[Array, "b t p"]:
    """Flattened patches, each row by row of pixels, the channels of a pixel side by side; pixels
    behind the last whole patch are dropped, or refused.

    Raises UserError on images of another size, or of other channels.
    """
    if images.shape[1:] != (*image_size, channels):
        raise UserError(
            f"the model takes images of {(*image_size, channels)}, "
            f"not {images.shape[1:]}: set image_size and num_channels"
        )
    rows, columns = find_grid(image_size, patch_size, drop_rest)
    height, width = as_pair(patch_size)
    images = images[:, : rows * height, : columns * width]
    x = images.reshape(len(images), rows, height, columns, width, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), rows * columns, -1)


def join_patches(
    patches: Float[Array, "b t p"], image_size: tuple[int, int], patch_size: Size
) -> Float[Array, "b y x ch"]:
    """The images that `cut_patches` cut. Raises UserError as `find_grid`."""
    rows, columns = find_grid(image_size, patch_size)
    x = patches.reshape(len(patches), rows, columns, *as_pair(patch_size), -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(patches), *image_size, -1)


def image_spec(batch_size: int, size: tuple[int, int], channels: int) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a batch of images."""
    return jax.ShapeDtypeStruct((batch_size, *size, channels), jnp.float32)
