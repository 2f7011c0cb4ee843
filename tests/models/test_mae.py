"""The masked autoencoder: published counts, masking, the loss, scanned layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import tree
from zoo.config import UserError
from zoo.models.mae import choose_patches, compare_pixels
from zoo.models.patches import cut_patches

SMALL = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 24, "image_size": (8, 12)}
SMALL |= {"patch_size": 4, "num_channels": 2, "mask_ratio": 0.5, "decoder_width": 12}
SMALL |= {"decoder_depth": 2, "decoder_num_heads": 3, "decoder_hidden": 20}
# As transformers counts its own models, with the decoder and without.
PUBLISHED = {
    "mae_b16": (111_907_840, 85_798_656),
    "mae_l16": (329_541_888, 303_301_632),
    "mae_h14": (657_074_508, 630_764_800),
}


@pytest.mark.parametrize("name", zoo.list_models("mae_*"))
def test_every_size_has_its_exact_counts(name):
    for head, expected in zip(("pixels", "none"), PUBLISHED[name], strict=True):
        model = zoo.create_model(name, head=head, scan_layers=True)
        count = tree.count_params(jax.eval_shape(lambda m=model: zoo.init_params(m)))
        assert count == expected


def make(**fields):
    """A small model, its parameters all moved by noise, images, noise."""
    model, random = zoo.create_model("mae_b16", **{**SMALL, **fields}), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    params = jax.tree.map(lambda x: 0.3 * random.normal(size=x.shape).astype(np.float32), shapes)
    images = jnp.asarray(random.normal(size=(3, 8, 12, 2)), jnp.float32)
    return model, params, images, jnp.asarray(random.uniform(size=(3, 6)), jnp.float32)


def test_the_patches_of_least_noise_are_kept():
    noise = jnp.asarray([[0.5, 0.1, 0.9, 0.3], [0.2, 0.8, 0.0, 0.4]])
    keep, rank = choose_patches(noise, 0.5)
    np.testing.assert_array_equal(keep, [[1, 3], [2, 0]])
    np.testing.assert_array_equal(rank >= 2, [[1, 0, 1, 0], [0, 1, 0, 1]])


def test_scanned_gradients_equal_unrolled_ones_and_positions_have_none():
    model, params, images, noise = make()

    def gradient(m, p):
        run = lambda p: (m.apply({"params": p}, images, noise)[0] ** 2).sum()
        return jax.jit(jax.grad(run))(p)

    scanned = model.clone(scan_layers=True)
    a = tree.named_leaves(tree.stack_layers(gradient(model, params)))
    b = tree.named_leaves(gradient(scanned, tree.stack_layers(params)))
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=1e-4, atol=1e-4, err_msg=path)
        assert a[path].any() == (not path.endswith("pos")), path


def test_what_is_masked_is_not_seen_and_is_drawn():
    model, params, images, noise = make()
    run = jax.jit(lambda x: model.apply({"params": params}, x, noise))
    pixels, aux = run(images)
    assert pixels.shape == (3, 6, 4 * 4 * 2)
    assert aux["encoder"]["encoded"].shape == (3, 1 + 3, 16)
    patches = cut_patches(images, (8, 12), 4, 2).reshape(3, 2, 3, 4, 4, 2)
    hidden = jnp.where(aux["masked"].reshape(3, 2, 3, 1, 1, 1), 7.0, patches)
    other = hidden.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)
    assert (run(other)[0] == pixels).all()


def test_the_encoder_is_a_vit():
    model, params, images, noise = make(head="none")
    encoded, _ = jax.jit(lambda p: model.apply({"params": p}, images, noise))(params)
    keep, _ = choose_patches(noise, 0.5)
    run = jax.jit(lambda p: model.encoder().apply({"params": p}, images, keep=keep)[1]["encoded"])
    np.testing.assert_allclose(run(params["encoder"]), encoded, atol=1e-6)


@pytest.mark.parametrize("normed", [False, True])
def test_the_loss_by_hand(normed):
    random = np.random.default_rng(0)
    pixels, patches = random.normal(size=(2, 2, 3, 5)).astype(np.float32)
    targets = patches
    if normed:
        variance = patches.var(-1, ddof=1, keepdims=True)
        targets = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-6)
    found = compare_pixels(jnp.asarray(pixels), jnp.asarray(patches), normed)
    np.testing.assert_allclose(found, ((pixels - targets) ** 2).mean(-1), rtol=1e-5)


def test_fixed_positions_begin_as_published():
    """A quarter of the width each: sine and cosine of the column, then of the row."""
    model = zoo.create_model("mae_b16", **SMALL)
    pos = jax.jit(lambda: zoo.init_params(model)["encoder"]["pos"])()
    rates = 10_000.0 ** (-np.arange(4) / 4)
    expected = np.zeros((7, 16))
    for i in range(6):
        row, column = divmod(i, 3)
        parts = [f(place * rates) for place in (column, row) for f in (np.sin, np.cos)]
        expected[1 + i] = np.concatenate(parts)
    np.testing.assert_allclose(pos, expected, atol=1e-6)


def test_noise_comes_from_somewhere():
    model, params, images, _ = make()
    run = jax.jit(lambda k: model.apply({"params": params}, images, rngs={"dropout": k})[0])
    assert (run(jax.random.key(0)) != run(jax.random.key(1))).any()
    with pytest.raises(UserError, match="needs noise, or an rng"):
        model.apply({"params": params}, images)
