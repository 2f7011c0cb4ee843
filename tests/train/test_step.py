"""The step against arithmetic written out, and its parts against each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SMALL_VIT, small_config

from zoo.config import ModelConfig, OptimConfig
from zoo.train.build import build
from zoo.train.state import init_state
from zoo.train.step import average, find_norm, make_train_step, scan_steps
from zoo.tree import named_leaves

VIT = ModelConfig("vit_ti4", SMALL_VIT)


def make(config, masked=0):
    parts = build(config)
    block = parts.stream.read(0, 4)
    if masked:
        block["mask"][:, -masked:] = 0
    optimizer = optax.sgd(0.5)
    step = make_train_step(parts.task, optimizer, config)
    batch = jax.tree.map(lambda x: x[0], block)
    state = init_state(
        parts.task, optimizer, batch, jax.random.key(0), config.optim.ema_decay is not None
    )
    return parts, step, state, block


def assert_close(a, b, tolerance):
    a, b = named_leaves(a), named_leaves(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=tolerance, atol=tolerance, err_msg=path)


def test_one_step_of_sgd_by_hand():
    parts, step, state, block = make(small_config(), masked=3)
    batch = jax.tree.map(lambda x: x[0], block)

    def mean_loss(params):
        logits, _ = parts.model.apply({"params": params}, jnp.asarray(batch["image"][:13]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"][:13]).mean()

    loss, gradient = jax.value_and_grad(mean_loss)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, gradient)
    new, report = jax.jit(step)(state, batch)
    assert_close(new.params, expected, 1e-6)
    np.testing.assert_allclose(report["loss"], loss, rtol=1e-5)
    assert int(new.step) == 1
    assert float(new.sums["task"]["weight"]) == 13
    np.testing.assert_allclose(new.sums["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)


@pytest.mark.parametrize("parts", [2, 4, 16])
@pytest.mark.parametrize("model", [ModelConfig("mlp", {"widths": (16,)}), VIT], ids=["mlp", "vit"])
def test_accumulation_equals_one_big_batch(model, parts):
    """Also when the padding falls unevenly over the microbatches."""
    results = []
    for n in (1, parts):
        config = small_config(model=model, optim=OptimConfig("sgd", num_microbatches=n))
        _, step, state, block = make(config, masked=5)
        batch = jax.tree.map(lambda x: x[0], block)
        new, report = jax.jit(step)(state, batch)
        results.append({"params": new.params, "sums": new.sums, "loss": report["loss"]})
    assert_close(*results, 1e-6)


@pytest.mark.parametrize("model", ["mlp", "vit"])
def test_scanned_steps_equal_single_ones_to_the_bit(model):
    fields = {"dropout": 0.3}
    config = small_config(
        model=ModelConfig("mlp", {"widths": (16,), **fields})
        if model == "mlp"
        else ModelConfig("vit_ti4", {**SMALL_VIT, **fields}),
        optim=OptimConfig(ema_decay=0.9),
    )
    _, step, state, block = make(config)
    together, _ = jax.jit(scan_steps(step))(state, block)
    single = jax.jit(scan_steps(step))
    for i in range(4):
        state, _ = single(state, jax.tree.map(lambda x, i=i: x[i : i + 1], block))
    assert_close(together, state, 0)


def test_sums_start_anew_after_a_multiple_of_log_every():
    config = small_config()  # log.every_steps=2
    _, step, state, block = make(config)
    weights = []
    for i in range(4):
        state, _ = jax.jit(step)(state, jax.tree.map(lambda x, i=i: x[i], block))
        weights.append(float(state.sums["task"]["weight"]))
    assert weights == [16, 32, 16, 32]


def test_the_first_bad_step_is_remembered():
    _, step, state, block = make(small_config())
    bad = []
    for i in range(4):
        batch = jax.tree.map(lambda x, i=i: x[i], block)
        if i == 1:
            batch = {**batch, "image": batch["image"] * np.nan}
        state, report = jax.jit(step)(state, batch)
        bad.append(int(report["first_bad_step"]))
    assert bad == [-1, 2, 2, 2]


def test_dropout_differs_by_step_and_seed():
    config = small_config(model=ModelConfig("mlp", {"widths": (64,), "dropout": 0.5}))
    losses = set()
    for seed, at in [(0, 0), (0, 1), (1, 0)]:
        changed = dataclasses.replace(config, seed=seed)
        _, step, state, _block = make(changed)
        batch = jax.tree.map(lambda x: x[0], make(config)[3])
        losses.add(
            float(jax.jit(step)(dataclasses.replace(state, step=jnp.int32(at)), batch)[1]["loss"])
        )
    assert len(losses) == 3


def test_the_average_by_hand():
    ema, params = {"w": jnp.array([1.0])}, {"w": jnp.array([2.0])}
    assert float(average(ema, params, 0.99, jnp.int32(0))["w"][0]) == pytest.approx(
        0.1 * 1 + 0.9 * 2
    )
    late = average(ema, params, 0.99, jnp.int32(10**6))
    assert float(late["w"][0]) == pytest.approx(0.99 * 1 + 0.01 * 2)


def test_norm_of_any_leaves():
    rng = np.random.default_rng(0)
    shapes = [(), (3,), (64,), (784, 12), (7, 5), (12, 6, 4), (2, 1)]
    leaves = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    rounded = jnp.asarray(leaves[3], jnp.bfloat16)
    exact = sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in [*leaves, rounded])
    np.testing.assert_allclose(find_norm([*leaves, rounded]), np.sqrt(exact), rtol=1e-6)
