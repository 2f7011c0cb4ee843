"""The Mixer against timm's counts and an independent forward pass in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import tree
from zoo.config import UserError

SMALL = {"width": 16, "depth": 2, "tokens_hidden": 12, "hidden": 32, "image_size": (8, 12)}
SMALL |= {"patch_size": (4, 3), "num_channels": 2, "num_classes": 5}
# timm counts its own models of these sizes; 1,000 classes, 224 pixels.
PUBLISHED = {
    "mixer_s32": 19_104_624,
    "mixer_s16": 18_528_264,
    "mixer_b32": 60_293_428,
    "mixer_b16": 59_880_472,
    "mixer_l32": 206_939_264,
    "mixer_l16": 208_196_168,
}


def make_params(model):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    return jax.tree.map(lambda x: 0.3 * random.normal(size=x.shape).astype(np.float32), shapes)


def make_images():
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, 8, 12, 2)), jnp.float32)


@pytest.mark.parametrize("name", zoo.list_models("mixer_*"))
def test_every_size_has_its_exact_count(name):
    model = zoo.create_model(name, scan_layers=True)
    assert tree.count_params(jax.eval_shape(lambda: zoo.init_params(model))) == PUBLISHED[name]


def numpy_mixer(params, images):
    """The forward pass of the paper, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(p, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def feed_forward(p, x):
        y = dense(p["fc1"], x)
        return dense(p["fc2"], y * (1 + np.vectorize(math.erf)(y / np.sqrt(2))) / 2)

    corners = [(y, x) for y in (0, 4) for x in (0, 3, 6, 9)]
    patches = [images[:, y : y + 4, x : x + 3].reshape(len(images), -1) for y, x in corners]
    x = dense(params["embed"], np.stack(patches, 1))
    for layer in params["blocks"].values():
        y = np.moveaxis(norm(layer["norm1"], x), 1, 2)
        x = x + np.moveaxis(feed_forward(layer["tokens"], y), 2, 1)
        x = x + feed_forward(layer["mlp"], norm(layer["norm2"], x))
    return dense(params["head"], norm(params["norm"], x).mean(1))


@pytest.mark.parametrize("scan", [False, True])
def test_forward_equals_numpy(scan):
    model = zoo.create_model("mixer_s16", **SMALL)
    params, images = make_params(model), make_images()
    expected = numpy_mixer(params, np.asarray(images))
    if scan:
        model, params = model.clone(scan_layers=True), tree.stack_layers(params)
    outputs, aux = jax.jit(lambda p, x: model.apply({"params": p}, x))(params, images)
    np.testing.assert_allclose(outputs, expected, atol=2e-5)
    np.testing.assert_allclose(aux["pooled"], aux["encoded"].mean(1), atol=1e-6)
    assert aux["hidden"].shape == (2, 3, 8, 16)


def test_scanned_gradients_equal_unrolled_ones():
    model = zoo.create_model("mixer_s16", **SMALL)
    scanned, params, images = model.clone(scan_layers=True), make_params(model), make_images()

    def gradient(m, p):
        return jax.jit(jax.grad(lambda p: (m.apply({"params": p}, images)[0] ** 2).sum()))(p)

    a = tree.named_leaves(tree.stack_layers(gradient(model, params)))
    b = tree.named_leaves(gradient(scanned, tree.stack_layers(params)))
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=1e-4, atol=1e-4, err_msg=path)


def test_training_mode():
    fields = {"dropout": 0.2, "stochastic_depth": 0.5, "scan_layers": True, "remat": "full"}
    model = zoo.create_model("mixer_s16", **SMALL, **fields)
    params, x = make_params(model), make_images()
    run = jax.jit(lambda k: model.apply({"params": params}, x, train=True, rngs={"dropout": k})[0])
    assert (run(jax.random.key(0)) == run(jax.random.key(0))).all()
    assert (run(jax.random.key(0)) != run(jax.random.key(1))).any()


def test_an_image_of_another_size_is_refused():
    model = zoo.create_model("mixer_s16", **SMALL)
    with pytest.raises(UserError, match=r"\(8, 12, 2\), not \(8, 8, 2\)"):
        model.init(jax.random.key(0), jnp.ones((1, 8, 8, 2)))
