"""CLIP and SigLIP: published sizes, stacks, where a text is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import tree
from zoo.config import UserError
from zoo.models import TextTower

# transformers' own count of the published configs. SigLIP 2's largest: 1.87e9 with both towers.
PUBLISHED = {
    "clip_vit_b16": 149_620_737,
    "clip_vit_b32": 151_277_313,
    "clip_vit_l14": 427_616_513,
    "clip_vit_l14_336": 427_944_193,
    "siglip_b16_224": 203_155_970,
    "siglip_b16_256": 203_202_050,
    "siglip_b16_384": 203_447_810,
    "siglip_b16_512": 203_791_874,
    "siglip_l16_256": 652_150_786,
    "siglip_l16_384": 652_478_466,
    "siglip_so400m_14_224": 877_415_602,
    "siglip_so400m_14_384": 877_960_498,
    "siglip2_b32_256": 376_856_066,
    "siglip2_b16_224": 375_187_970,
    "siglip2_b16_256": 375_234_050,
    "siglip2_b16_384": 375_479_810,
    "siglip2_b16_512": 375_823_874,
    "siglip2_l16_256": 881_526_786,
    "siglip2_l16_384": 881_854_466,
    "siglip2_l16_512": 882_313_218,
    "siglip2_so400m_14_224": 1_135_463_602,
    "siglip2_so400m_14_384": 1_136_008_498,
    "siglip2_so400m_16_256": 1_135_670_962,
    "siglip2_so400m_16_384": 1_136_039_602,
    "siglip2_so400m_16_512": 1_136_555_698,
    "siglip2_g16_256": 1_871_393_906,
    "siglip2_g16_384": 1_871_885_426,
}
SMALL = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 32, "patch_size": 4}
SMALL |= {f"text_{name}": SMALL[name] for name in ("width", "depth", "num_heads", "hidden")}
SMALL |= {"image_size": (8, 12), "vocab_size": 30, "num_positions": 6, "embedding_width": 16}
TOKENS = np.array([[3, 29, 0, 0], [5, 7, 29, 0], [29, 4, 29, 1]], np.int32)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_size_has_its_exact_count(name):
    model = zoo.create_model(name, scan_layers=True)  # fewer leaves to trace, the same count
    count = tree.count_params(jax.eval_shape(lambda: zoo.init_params(model)))
    assert count == PUBLISHED[name]


def test_the_list():
    names = {*zoo.list_models("clip*"), *zoo.list_models("siglip*")}
    assert names == set(PUBLISHED)


def make_noisy(name, seed=0):
    """A small model and its parameters, all moved."""
    model = zoo.create_model(name, **SMALL)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    random = np.random.default_rng(seed)
    noise = lambda leaf: (0.3 * random.normal(size=leaf.shape)).astype(np.float32)
    return model, jax.tree.map(noise, shapes)


@pytest.mark.parametrize("name", ["clip_vit_b32", "siglip_b16_224"])
def test_scanned_equals_unrolled(name):
    model, params = make_noisy(name)
    scanned = model.clone(scan_layers=True)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 12, 3)), jnp.float32)
    tokens = jnp.asarray(TOKENS)

    def run(model, params):
        return jax.jit(lambda p: model.apply({"params": p}, images, tokens, mask=tokens > 0))(
            params
        )

    logits, aux = run(model, params)
    other, other_aux = run(scanned, tree.stack_layers(params))
    assert logits.shape == (2, 3)
    np.testing.assert_allclose(logits, other, atol=1e-5)
    for side in ("image", "text"):
        np.testing.assert_allclose(aux[side]["hidden"], other_aux[side]["hidden"], atol=3e-4)
        lengths = np.linalg.norm(aux[side]["embedding"], axis=-1)
        np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


def test_a_fresh_model_begins_as_published():
    def begin(name):  # under jit the other leaves cost nothing
        params = zoo.init_params(zoo.create_model(name, **SMALL))
        head = params["image"].get("head", params["text"]["head"])["kernel"]
        return params["logit_scale"], params.get("logit_bias"), jnp.abs(head).max()

    scale, _, largest = jax.jit(lambda: begin("clip_vit_b32"))()
    assert float(scale) == pytest.approx(2.6592, abs=1e-4)
    assert largest > 0
    scale, bias, _ = jax.jit(lambda: begin("siglip_b16_224"))()
    assert (np.exp(scale), bias) == (pytest.approx(10, rel=1e-5), -10)


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({"pooling": "highest"}, [1, 2, 0]),
        ({"pooling": "end", "end_token": 7}, [0, 1, 0]),
        ({"pooling": "last", "causal": False}, [3, 3, 3]),
    ],
    ids=str,
)
def test_where_a_text_is_read(fields, places):
    sizes = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 32, "vocab_size": 30}
    tower = TextTower(**sizes, num_positions=6, num_classes=0, **fields)
    params = jax.jit(lambda: zoo.init_params(tower))()
    out, aux = jax.jit(lambda p, t: tower.apply({"params": p}, t))(params, jnp.asarray(TOKENS))
    np.testing.assert_array_equal(out, aux["encoded"][np.arange(3), np.array(places)])


def test_causal_or_not():
    """A later token changes an earlier place of SigLIP's texts, and none of CLIP's."""
    tokens = jnp.asarray(TOKENS)
    changed = tokens.at[:, -1].set(9)
    for name, moves in (("clip_vit_b32", False), ("siglip_b16_224", True)):
        model, params = make_noisy(name)
        run = jax.jit(
            lambda p, t, model=model: model.apply({"params": p}, t, method="encode_text")[1]
        )
        before, after = run(params, tokens)["hidden"], run(params, changed)["hidden"]
        assert (np.abs(before - after)[:, :, :-1].max() > 1e-4) == moves


def test_mistakes():
    model, params = make_noisy("clip_vit_b32")
    with pytest.raises(UserError, match="6 positions, not 7"):
        model.apply({"params": params}, jnp.ones((1, 7), jnp.int32), method="encode_text")
    with pytest.raises(UserError, match="not divisible by patch"):
        zoo.init_params(zoo.create_model("clip_vit_b32", **{**SMALL, "image_size": (8, 3)}))


def test_pixels_behind_the_last_patch_have_no_effect():
    """so400m at 384 pixels has patches of 14."""
    assert zoo.create_model("siglip_so400m_14_384").grid() == (27, 27)
    model = zoo.create_model("siglip_b16_224", **{**SMALL, "image_size": (9, 14)})
    assert model.grid() == (2, 3)
    params = jax.jit(lambda: zoo.init_params(model))()
    run = jax.jit(lambda x: model.apply({"params": params}, x, method="encode_image")[0])
    images = jnp.ones((1, 9, 14, 3))
    np.testing.assert_array_equal(run(images), run(images.at[:, 8:].set(5).at[:, :, 12:].set(5)))
