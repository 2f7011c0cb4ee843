"""`pmap` over the same pure step: what `jit` computes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL_VIT, small_config

from zoo.config import ModelConfig, OptimConfig, ParallelConfig, TrainConfig, UserError
from zoo.config.checks import check_config
from zoo.parallel import make_mesh, place_batch
from zoo.train.build import build
from zoo.train.compile import Programs
from zoo.tree import named_leaves


def make_config(backend, **changes):
    return small_config(
        model=ModelConfig("vit_ti4", SMALL_VIT),
        optim=OptimConfig("sgd", 0.01, {"momentum": 0.0}),
        train=TrainConfig(batch_size=24, num_steps=10, steps_per_call=1),
        parallel=ParallelConfig(backend=backend),
        **changes,
    )


def follow(config):
    """After each of ten steps: the loss, and the gradients, which a momentum of 0 keeps."""
    parts = build(config)
    state, seen = parts.programs.init_state(), []
    for step in range(10):
        block = place_batch(parts.stream[step], parts.programs.blocks_sharding)
        # Padding on some devices only: they weigh less.
        block["mask"] = block["mask"].at[:, step:11].set(0)
        state, report = parts.programs.train(state, block, 1)
        seen.append((float(report["loss"]), jax.device_get(named_leaves(state.opt_state))))
    return seen, jax.device_get(state)


@pytest.mark.parametrize("parts", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_jit_and_pmap_agree_at_each_step(parts):
    def run(backend):
        config = make_config(backend)
        optim = dataclasses.replace(config.optim, num_microbatches=parts)
        return follow(dataclasses.replace(config, optim=optim))

    (jitted, state), (mapped, other) = run("jit"), run("pmap")
    for (loss, gradients), (expected, wanted) in zip(mapped, jitted, strict=True):
        assert loss == pytest.approx(expected, abs=1e-6)
        assert any(path.endswith("attn/q/kernel") for path in gradients)
        for path, leaf in gradients.items():
            np.testing.assert_allclose(leaf, wanted[path], atol=1e-6, err_msg=path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), other, state)


class Draws:
    """A task that draws a number."""

    def init(self, key):
        return {"scale": jnp.ones(3)}

    def loss(self, params, batch, key):
        drawn, weight = jax.random.uniform(key), batch["mask"].sum()
        sums = {"loss": weight, "weight": weight, "first": drawn, "second": drawn**2}
        return params["scale"].sum() * weight, sums


def test_each_replica_draws_for_itself():
    config = small_config(parallel=ParallelConfig(backend="pmap"))
    batch = {"mask": jax.ShapeDtypeStruct((16,), np.float32)}
    programs = Programs(config, Draws(), make_mesh(config.parallel), batch)
    block = place_batch({"mask": np.ones((1, 16), np.float32)}, programs.blocks_sharding)
    sums = jax.device_get(programs.train(programs.init_state(), block, 1)[0].sums["task"])
    assert sums["weight"] == 16
    assert sums["second"] / 8 - (sums["first"] / 8) ** 2 > 0.01  # the variance over devices


@pytest.mark.parametrize("axis", ["fsdp", "tensor", "context", "expert"])
def test_it_shares_the_batch_alone(axis):
    config = dataclasses.replace(
        make_config("pmap"), parallel=ParallelConfig(backend="pmap", **{axis: 2})
    )
    with pytest.raises(UserError, match=f"'pmap' shares the batch alone: set parallel.{axis}=1"):
        check_config(config)
