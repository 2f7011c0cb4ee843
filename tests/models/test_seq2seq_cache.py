"""Encoder-decoders that keep what they have read: the source once, the target place by place."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.tree import stack_layers

SIZES = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 32, "vocab_size": 40}
MODELS = {
    "t5": zoo.create_model("t5_small", **SIZES, head_dim=6, decoder_depth=3),
    "transformer": zoo.create_model("transformer_base", **SIZES),
    "mbart": zoo.create_model("mbart_large", **SIZES, num_positions=12, scan_layers=True),
}
SOURCE = jnp.array([[5, 17, 3, 32, 8, 8, 23], [4, 4, 30, 9, 0, 0, 0]])
SOURCE_MASK = jnp.array([[1] * 7, [1] * 4 + [0] * 3], bool)
TARGET = jnp.array([[0, 11, 2, 29, 11, 3], [0, 39, 4, 5, 6, 7]])


def noisy_params(model):
    """Random parameters, none of them zero, so that none can be lost unseen."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: zoo.init_params(model.clone(scan_layers=False)))
    params = jax.tree.map(lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype), shapes)
    return {"params": stack_layers(params) if model.scan_layers else params}


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_changes_nothing(name):
    """The source with the first two places; then three places; then one, without the source."""
    model = MODELS[name]
    params = noisy_params(model)

    @jax.jit
    def step(source, target, cache):
        mask = None if source is None else SOURCE_MASK
        logits, aux = model.apply(params, source, target, source_mask=mask, cache=cache)
        return logits, aux.get("cache")

    whole, _ = step(SOURCE, TARGET, None)
    cache, parts = model.init_cache(2, 9, 7), []
    for a, b in itertools.pairwise((0, 2, 5, 6)):
        logits, after = step(None if a else SOURCE, TARGET[:, a:b], cache)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, cache)
        cache = after
        parts.append(logits)
    assert int(cache["length"]) == 6
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=2e-5)


def test_refusals():
    model = MODELS["mbart"]
    with pytest.raises(UserError, match="the model has 12 positions, not 13"):
        model.init_cache(1, 13, 4)
    with pytest.raises(UserError, match="without a source needs a cache"):
        jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, None, TARGET))
