"""DeiT and DINOv2: published counts, what their fields do, scanned layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL_VIT

import zoo
from zoo import tree
from zoo.config import UserError

SMALL = {**SMALL_VIT, "image_size": (8, 12), "num_channels": 2, "num_classes": 5}
DINOV2 = {"pooling": "cls_mean", "num_registers": 3, "mask_token": True, "layer_scale": 0.5}
GATED = {"gated": True, "activation": "silu"}
# As transformers counts its own models; DeiT with 1,000 classes.
PUBLISHED = {
    "deit_tiny16": 5_717_416,
    "deit_small16": 22_050_664,
    "deit_base16": 86_567_656,
    "deit_tiny16_distilled": 5_910_800,
    "deit_small16_distilled": 22_436_432,
    "deit_base16_distilled": 87_338_192,
    "dinov2_s14": 22_056_576,
    "dinov2_b14": 86_580_480,
    "dinov2_l14": 304_368_640,
    "dinov2_g14": 1_136_480_768,
    "dinov2_s14_reg": 22_058_112,
    "dinov2_b14_reg": 86_583_552,
    "dinov2_l14_reg": 304_372_736,
    "dinov2_g14_reg": 1_136_486_912,
}


@pytest.mark.parametrize("name", zoo.list_models("deit_*") + zoo.list_models("dinov2_*"))
def test_every_size_has_its_exact_count(name):
    model = zoo.create_model(name, scan_layers=True)
    count = tree.count_params(jax.eval_shape(lambda: zoo.init_params(model)))
    assert count == PUBLISHED[name]


def make(**fields):
    """A small model, its parameters all moved by noise, images."""
    model, random = zoo.create_model("vit_s4", **{**SMALL, **fields}), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    params = jax.tree.map(lambda x: 0.3 * random.normal(size=x.shape).astype(np.float32), shapes)
    return model, params, jnp.asarray(random.normal(size=(3, 8, 12, 2)), jnp.float32)


@pytest.mark.parametrize("fields", [{**DINOV2, **GATED}, {"distillation": "head"}], ids=len)
def test_scanned_gradients_equal_unrolled_ones(fields):
    model, params, images = make(**fields)
    masked = jnp.arange(6) % 3 == jnp.arange(3)[:, None] if "mask_token" in fields else None

    def gradient(m, p):
        run = lambda p: (m.apply({"params": p}, images, masked=masked)[0] ** 2).sum()
        return jax.jit(jax.grad(run))(p)

    scanned = model.clone(scan_layers=True)
    a = tree.named_leaves(tree.stack_layers(gradient(model, params)))
    b = tree.named_leaves(gradient(scanned, tree.stack_layers(params)))
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=1e-4, atol=1e-4, err_msg=path)
        assert np.abs(a[path]).max() > 0, path  # nothing is left out


def test_two_heads_and_their_mean():
    model, params, images = make(distillation="head")
    logits, aux = jax.jit(lambda p: model.apply({"params": p}, images))(params)
    for name, place, given in (
        ("head", 0, "class_logits"),
        ("head_dist", 1, "distillation_logits"),
    ):
        by_hand = aux["encoded"][:, place] @ params[name]["kernel"] + params[name]["bias"]
        np.testing.assert_allclose(aux[given], by_hand, atol=1e-5)
    np.testing.assert_allclose(
        logits, (aux["class_logits"] + aux["distillation_logits"]) / 2, atol=1e-6
    )


def test_class_token_beside_the_mean_of_the_patches():
    model, params, images = make(**DINOV2)
    _, aux = jax.jit(lambda p: model.apply({"params": p}, images))(params)
    assert aux["encoded"].shape == (3, 1 + 3 + 6, 16)
    expected = np.concatenate([aux["encoded"][:, 0], aux["encoded"][:, 4:].mean(1)], -1)
    np.testing.assert_allclose(aux["pooled"], expected, atol=1e-6)


def test_kept_patches_are_all_that_is_seen():
    model, params, images = make(num_registers=2, num_classes=0)
    keep = jnp.asarray([[4, 1], [0, 5], [2, 3]])
    run = jax.jit(lambda x: model.apply({"params": params}, x, keep=keep)[0])
    changed = images.at[0, :4, 8:].add(1.0)  # patch 2 of image 0, which is not kept
    assert (run(images)[0] == run(changed)[0]).all()
    changed = images.at[0, :4, 4:8].add(1.0)  # patch 1
    assert (run(images)[0] != run(changed)[0]).any()


def test_masking_needs_a_mask_token():
    model, params, images = make()
    with pytest.raises(UserError, match="mask_token=True"):
        model.apply({"params": params}, images, masked=jnp.zeros((3, 6), bool))
