"""Dropout of attention weights: how much, that it is unbiased, and where it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.attention import Attention, attend, attention_weights, mix_values
from zoo.tree import stack_layers

RATE = 0.25
SMALL = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 32, "vocab_size": 20}
MODELS = {
    "gpt2": {**SMALL, "num_positions": 8},
    "bert_base": {**SMALL, "num_positions": 8},
    "t5_small": {**SMALL, "head_dim": 8},
    "transformer_base": SMALL,
    "vit_b16": {k: v for k, v in SMALL.items() if k != "vocab_size"}
    | {"patch_size": 4, "image_size": (8, 8), "num_channels": 1, "num_classes": 0},
}


def test_mixing_is_the_plain_part_to_the_bit():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 6, 4))
    k, v = k[:, :, :3], v[:, :, :3]
    plain = jax.jit(attend)(q, k, v)
    mixed = jax.jit(lambda *x: mix_values(attention_weights(*x[:2]), x[2]))(q, k, v)
    np.testing.assert_array_equal(plain, mixed)


def test_the_share_that_is_dropped_and_the_mean():
    length, width = 64, 8
    x = jax.random.normal(jax.random.key(0), (4, length, width)) * 0.1
    module = Attention(2, dropout=RATE)
    params = module.init({"params": jax.random.key(1), "dropout": jax.random.key(2)}, x)
    # The values of a head tell by themselves which weights are left: all are one.
    params = jax.tree.map(jnp.zeros_like, params)
    params["params"]["v"]["bias"] += 1.0
    params["params"]["out"]["kernel"] = jnp.eye(width)

    def run(x, rate, key):
        rngs = {"dropout": key} if rate else {}
        return dataclasses.replace(module, dropout=rate).apply(params, x, rngs=rngs)

    out, aux = jax.jit(run, static_argnums=1)(x, RATE, jax.random.key(3))
    # Each is a mean of 64 weights, kept with 3/4 and divided by it.
    counts = np.asarray(out[..., 0]) * length * (1 - RATE)
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-2)
    share = 1 - counts.mean() / length
    error = np.sqrt(RATE * (1 - RATE) / (length * counts.size))
    assert abs(share - RATE) < 5 * error
    assert counts.std() == pytest.approx(np.sqrt(length * RATE * (1 - RATE)), rel=0.2)
    # What an onlooker sees is whole; without the rate so is what is mixed.
    np.testing.assert_allclose(aux["attention"], 1 / length, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(run, static_argnums=1)(x, 0.0, None)[0], 1.0, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_drop_in_training_alone(name):
    model = zoo.create_model(name, **{**MODELS[name], "dropout": 0.0, "attention_dropout": RATE})
    both = name in ("t5_small", "transformer_base")
    inputs = [jnp.arange(12).reshape(2, 6)] * (1 + both)
    if name == "vit_b16":
        inputs = [jax.random.normal(jax.random.key(2), (2, 8, 8, 1))]
    params = jax.jit(model.init)(jax.random.key(0), *inputs)["params"]
    # Wide enough that the weights of attention matter.
    params = jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, params)
    scanned = model.clone(scan_layers=True)

    def run(model, params, key=None):
        more = {} if key is None else {"train": True, "rngs": {"dropout": key}}
        return model.apply({"params": params}, *inputs, **more)[0]

    @jax.jit
    def run_all(params, key):
        def pick(params):
            outputs = run(model, params, key)
            return outputs[0, ..., 0].reshape(-1)[-1], outputs

        gradients, dropped = jax.grad(pick, has_aux=True)(params)
        plain = run(model.clone(attention_dropout=0.0), params, key)
        stacked = stack_layers(params)
        return (
            (plain, run(model, params), run(scanned, stacked)),
            (dropped, run(scanned, stacked, key)),
            gradients,
        )

    (plain, *same), dropped, gradients = run_all(params, jax.random.key(1))
    for outputs in same:
        np.testing.assert_allclose(outputs, plain, atol=1e-4)
    # Far more than the rounding that the same numbers above are allowed.
    for outputs in dropped:
        assert np.abs(outputs - plain).max() > 1e-3
    leaves = {jax.tree_util.keystr(p): g for p, g in jax.tree_util.tree_leaves_with_path(gradients)}
    assert all(np.isfinite(g).all() for g in leaves.values())
    queries = [g for path, g in leaves.items() if "'q'" in path and "kernel" in path]
    assert queries
    assert all(np.abs(g).max() > 0 for g in queries)
