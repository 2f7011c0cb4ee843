"""The task of a masked autoencoder: what is hidden, padding, accumulation, pictures."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.models.patches import cut_patches, join_patches
from zoo.tasks.image_keys import make_keys
from zoo.tasks.masked_image import MaskedImage

SIZES = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "image_size": (8, 12)}
SIZES |= {"patch_size": 4, "num_channels": 1, "mask_ratio": 0.5, "decoder_width": 8}
SIZES |= {"decoder_depth": 1, "decoder_num_heads": 2, "decoder_hidden": 16}
INFO = SimpleNamespace(shapes={"image": (8, 12, 1)}, name="stripes")


def make(**fields):
    model = zoo.create_model("mae_b16", **{**SIZES, **fields})
    task = MaskedImage.create(model, INFO)
    return task, jax.jit(task.init)(jax.random.key(0))


def make_batch(rows=6):
    images = np.random.default_rng(0).normal(size=(rows, 8, 12, 1)).astype(np.float32)
    return {"image": jnp.asarray(images), "mask": jnp.ones(rows)}


def test_the_sums_of_parts_are_those_of_the_whole():
    task, params = make()
    run = jax.jit(lambda p, b, k: task.loss(p, b, k)[1])
    batch = make_batch()
    whole = run(params, batch, None)
    assert float(whole["weight"]) == 6 * 3
    padded = {**batch, "mask": batch["mask"].at[4:].set(0)}
    rest = {k: jnp.roll(x, 2, axis=0) for k, x in batch.items()}
    rest["mask"] = rest["mask"].at[2:].set(0)
    parts = jax.tree.map(jnp.add, run(params, padded, None), run(params, rest, None))
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, err_msg=name)
    first, second = (run(params, batch, jax.random.key(i))["loss"] for i in (0, 1))
    assert first != second
    losses = jax.jit(task.observe)(params, batch)["loss"]
    assert float(losses.mean()) == pytest.approx(float(whole["loss"] / whole["weight"]), rel=1e-5)


def test_evaluation_hides_the_same_patches_of_an_image_wherever_it_stands():
    images = make_batch()["image"]
    keys = jax.random.key_data(jax.jit(lambda x: make_keys(None, x))(images))
    turned = jax.random.key_data(jax.jit(lambda x: make_keys(None, x))(images[::-1]))
    np.testing.assert_array_equal(keys, turned[::-1])
    assert len(np.unique(keys, axis=0)) == 6
    # A pixel in another place, or a little brighter, is another image.
    other = images.at[0].set(jnp.roll(images[0], 1, axis=1)).at[1, 0, 0].add(1e-3)
    changed = jax.random.key_data(make_keys(None, other))
    assert [bool((a == b).all()) for a, b in zip(keys, changed, strict=True)] == [False] * 2 + [
        True
    ] * 4


@pytest.mark.parametrize("normed", [False, True])
def test_a_picture_keeps_what_was_seen(normed):
    task, params = make(normed_pixels=normed)
    batch = make_batch()
    drawn = jax.jit(task.predict)(params, batch)
    same = cut_patches(1.0 * (drawn == batch["image"]), (8, 12), 4, 1).all(-1)
    np.testing.assert_array_equal(same.sum(1), 3)
    patches = cut_patches(batch["image"], (8, 12), 4, 1)
    np.testing.assert_array_equal(join_patches(patches, (8, 12), 4), batch["image"])


def test_mistakes():
    vit = zoo.create_model("vit_ti4", image_size=(8, 12), num_channels=1)
    with pytest.raises(UserError, match=r"trains a masked autoencoder.*not a ViT"):
        MaskedImage.create(vit, INFO)
    with pytest.raises(UserError, match=r"mask_ratio=0.95 shows 0 of 6 patches"):
        make(mask_ratio=0.95)
    with pytest.raises(UserError, match="is for images, wine has features"):
        MaskedImage.num_outputs(SimpleNamespace(shapes={"features": (13,)}, name="wine"))
