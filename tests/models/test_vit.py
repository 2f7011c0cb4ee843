"""The ViT against the published sizes and an independent forward pass in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL_VIT

import zoo
from zoo import tree
from zoo.config import UserError
from zoo.models import MODELS
from zoo.models.layers import sincos_positions

SMALL = {
    **SMALL_VIT,
    "image_size": (8, 12),
    "patch_size": (4, 3),
    "num_channels": 2,
    "num_classes": 5,
}

# As the publishers' code counts: 1,000 classes, 224 pixels, class token, learned positions.
PUBLISHED = {
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_s32": 22_878_952,
    "vit_b16": 86_567_656,
    "vit_b32": 88_224_232,
    "vit_l16": 304_326_632,
    "vit_h14": 632_045_800,
    "vit_g14": 1_012_611_432,
}


def count_by_hand(width, depth, hidden, patch, classes=1000, image=224):
    tokens = (image // patch) ** 2 + 1
    block = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
    embed = patch * patch * 3 * width + width + width + tokens * width
    return embed + depth * block + 2 * width + width * classes + classes


@pytest.mark.parametrize("name", zoo.list_models("vit_*"))
def test_every_size_has_its_exact_count(name):
    patch = int("".join(c for c in name if c.isdigit()))
    model = zoo.create_model(name, scan_layers=True)  # a third of the tracing, the same count
    count = tree.count_params(jax.eval_shape(lambda: zoo.init_params(model)))
    assert count == count_by_hand(model.width, model.depth, model.hidden, patch)
    assert count == PUBLISHED.get(name, count)


def test_the_list():
    assert len(zoo.list_models("vit_b*")) == 4
    assert "mlp" in zoo.list_models()
    assert set(PUBLISHED) <= set(zoo.list_models())


def noisy_params(model, seed=0):
    """Every parameter moved, so that none can be lost unseen."""
    params = zoo.init_params(model, seed)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def numpy_vit(params, images, model):
    """The forward pass of the paper, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def attention(p, x, context):
        heads, size = model.num_heads, model.width // model.num_heads
        out = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            q = dense(p["q"], x)[..., part]
            k, v = dense(p["k"], context)[..., part], dense(p["v"], context)[..., part]
            out.append(softmax(q @ k.swapaxes(-1, -2) / np.sqrt(size)) @ v)
        return dense(p["out"], np.concatenate(out, -1))

    def feed_forward(p, x):
        y = dense(p["fc1"], x)
        return dense(p["fc2"], y * (1 + np.vectorize(math.erf)(y / np.sqrt(2))) / 2)

    rows, columns = model.grid()
    height, width = images.shape[1] // rows, images.shape[2] // columns
    patches = [
        images[:, i * height : (i + 1) * height, j * width : (j + 1) * width].reshape(
            len(images), -1
        )
        for i in range(rows)
        for j in range(columns)
    ]
    x = dense(params["embed"], np.stack(patches, 1))
    fixed = sincos_positions(rows, columns, model.width) if model.positions == "sincos" else None
    if model.pooling == "cls":
        x = np.concatenate([np.broadcast_to(params["cls"], (len(x), 1, model.width)), x], 1)
        fixed = None if fixed is None else np.concatenate([np.zeros((1, model.width)), fixed])
    x = x + (params["pos"] if fixed is None else fixed)
    for layer in params["blocks"].values():
        y = norm(layer["norm1"], x)
        x = x + attention(layer["attn"], y, y)
        x = x + feed_forward(layer["mlp"], norm(layer["norm2"], x))
    x = norm(params["norm"], x)
    if model.pooling == "map":
        pool = params["pool"]
        y = attention(pool["attn"], np.broadcast_to(pool["probe"], (len(x), 1, model.width)), x)
        x = (y + feed_forward(pool["mlp"], norm(pool["norm"], y)))[:, 0]
    else:
        x = x[:, 0] if model.pooling == "cls" else x.mean(1)
    return dense(params["head"], x) if model.num_classes else x


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pooling": "mean", "positions": "sincos"},
        {"pooling": "map"},
        {"positions": "sincos", "num_classes": 0},
    ],
    ids=str,
)
def test_forward_equals_numpy(fields, scan):
    model = zoo.create_model("vit_ti16", **{**SMALL, **fields})
    params = noisy_params(model)
    images = np.random.default_rng(0).normal(size=(3, 8, 12, 2)).astype(np.float32)
    expected = numpy_vit(params, images, model)
    if scan:
        model, params = model.clone(scan_layers=True), tree.stack_layers(params)
        shapes = jax.eval_shape(lambda: zoo.init_params(model))
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    outputs, aux = jax.jit(lambda p, x: model.apply({"params": p}, x))(params, images)
    np.testing.assert_allclose(outputs, expected, atol=2e-5)
    np.testing.assert_allclose(aux["attention"].sum(-1), 1.0, atol=1e-5)
    assert aux["hidden"].shape[0] == model.depth


def test_scanned_gradients_equal_unrolled_ones():
    model = zoo.create_model("vit_ti16", **SMALL)
    scanned = model.clone(scan_layers=True)
    params, x = noisy_params(model), jnp.ones((2, 8, 12, 2))

    def gradient(m, p):
        return jax.jit(jax.grad(lambda p: (m.apply({"params": p}, x)[0] ** 2).sum()))(p)

    a = tree.named_leaves(tree.stack_layers(gradient(model, params)))
    b = tree.named_leaves(gradient(scanned, tree.stack_layers(params)))
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=1e-4, atol=1e-4, err_msg=path)


@pytest.mark.parametrize("scan", [False, True])
def test_training_mode(scan):
    fields = {
        **SMALL,
        "dropout": 0.2,
        "stochastic_depth": 0.5,
        "scan_layers": scan,
        "remat": "full",
    }
    model = zoo.create_model("vit_ti16", **fields)
    params, x = zoo.init_params(model), jnp.ones((4, 8, 12, 2))
    params["head"]["kernel"] += 1.0
    run = jax.jit(lambda k: model.apply({"params": params}, x, train=True, rngs={"dropout": k})[0])
    assert (run(jax.random.key(0)) == run(jax.random.key(0))).all()
    assert (run(jax.random.key(0)) != run(jax.random.key(1))).any()


def test_stochastic_depth_keeps_the_mean():
    from zoo.models.layers import StochasticDepth

    out = StochasticDepth().apply(
        {}, jnp.ones((20_000, 1, 1)), jnp.float32(0.3), rngs={"dropout": jax.random.key(0)}
    )
    np.testing.assert_allclose(sorted(set(np.unique(out).tolist())), [0, 1 / 0.7], atol=1e-6)
    assert abs(float(out.mean()) - 1) < 0.02


def test_dtypes_apart():
    model = zoo.create_model("vit_ti16", **SMALL, dtype="bfloat16")
    params = zoo.init_params(model)
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"float32"}
    outputs, aux = model.apply({"params": params}, jnp.ones((1, 8, 12, 2)))
    assert aux["hidden"].dtype == jnp.bfloat16
    assert outputs.dtype == jnp.float32
    stored = zoo.init_params(zoo.create_model("vit_ti16", **SMALL, param_dtype="bfloat16"))
    assert {str(x.dtype) for x in jax.tree.leaves(stored)} == {"bfloat16"}


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("vit_b16", {"widht": 3}, "did you mean 'width'"),
        ("vit_q16", {}, "no model 'vit_q16'"),
        ("vit_b16", {"depth": "deep"}, "model.arguments.depth='deep' is not int"),
        ("vit_b16", {"pooling": "max"}, "pooling"),
        ("vit_b15", {}, "nearest image: 225x225"),
    ],
)
def test_mistakes(name, fields, message):
    with pytest.raises(UserError, match=message):
        zoo.init_params(zoo.create_model(name, **fields))


def test_an_image_of_another_size_is_refused():
    model = zoo.create_model("vit_ti16", **SMALL)
    with pytest.raises(UserError, match=r"\(8, 12, 2\), not \(8, 8, 2\)"):
        model.init(jax.random.key(0), jnp.ones((1, 8, 8, 2)))


def test_any_patch_is_made():
    assert MODELS.get("vit_s7")().patch_size == 7
