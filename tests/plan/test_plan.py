"""`zoo plan`: what it says of this machine, of TPUs that are not here, and of mistakes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math

import pytest
from conftest import small_config

from zoo.cli import main
from zoo.config import DataConfig, ModelConfig, ParallelConfig, TaskConfig, TrainConfig, UserError
from zoo.console import show_time
from zoo.parallel import make_mesh
from zoo.plan import describe_plan, find_target, make_plan
from zoo.plan.search import count_experts, list_meshes, search_plans
from zoo.plan.step import Memory, find_needed

MLP = "configs/mlp_digits.py:quick"


@pytest.fixture(scope="module")
def local():
    config = small_config(
        model=ModelConfig("gpt2", {"width": 64, "depth": 2, "num_heads": 4, "num_positions": 64}),
        data=DataConfig("synthetic:embedded:stdlib", tokenizer="chars", length=64),
        task=TaskConfig("causal_lm"),
        train=TrainConfig(batch_size=8, num_steps=100),
    )
    return make_plan(config, "local")


def test_arithmetic_is_the_analytic_count(local):
    assert local.costs is not None
    tokens, width, depth, length = 8 * 64, 64, 2, 64
    matrices = depth * 12 * width**2
    head = local.num_params - matrices - 64 * width - (2 * depth + 1) * 2 * width
    head -= depth * (3 + 1 + 4 + 1) * width  # biases
    analytic = 6 * tokens * (matrices + head) + 12 * depth * tokens * length * width
    assert local.costs.flops == pytest.approx(analytic, rel=0.05)


def test_memory_is_what_lies_there(local):
    memory = local.memory
    assert memory.params == memory.gradients == 4 * local.num_params
    assert memory.opt_state == pytest.approx(2 * memory.params, abs=64)  # Adam's two moments
    assert memory.total > memory.params + memory.opt_state + memory.batch
    assert local.checkpoint_bytes == pytest.approx(3 * memory.params, abs=256)


def test_it_is_told(local):
    told = describe_plan(local)
    for part in ("on local: 1 chip; mesh one device", "optimizer state", "arithmetic", "FLOP"):
        assert part in told
    assert "at best" not in told  # nobody knows how fast a CPU is


def test_json(capsys):
    assert main(["plan", MLP, "local", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_chips"] == 1
    assert told["fits"] is True
    assert told["costs"]["flops"] > 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["plan", MLP], "the target, such as v5e:16x16, is missing"),
        (["plan", MLP, "v9:4x4"], "no TPU 'v9'"),
        (["plan", MLP, "local", "--serach"], "unknown argument '--serach'"),
        (["plan", MLP, "local", "--search=0"], "how many compilations at most"),
        (["plan", MLP, "local", "--json=no"], "--json takes no value"),
        (["plan", "configs/nothing.py", "local"], "nothing.py"),
        (["plan", MLP, "local", "--config.parallel.fsdp=3"], "fsdp=3 does not fit 1 device"),
        (["train", "--config", MLP, "--plan=v5e:4"], "a slice of v5e has 2 dimensions"),
    ],
)
def test_mistakes(words, line, capsys):
    assert main(words) == 2
    assert line in capsys.readouterr().err


def test_without_the_tpu_compiler(monkeypatch, capsys):
    from jax.experimental import topologies

    def refuse(*args, **kwargs):
        raise RuntimeError("JAX TPU support not installed; cannot generate TPU topology.")

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    assert main(["plan", MLP, "v5e:4x4"]) == 2
    assert "needs the TPU compiler: pip install 'zoo-jax[plan]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0 us"), (0.0123, "12.3 ms"), (0.9997, "1 s"), (7200.0, "2 h"), (9e6, "104 days")],
)
def test_times(seconds, shown):
    assert show_time(seconds) == shown


def test_what_ran_out_of_memory_is_read():
    told = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    assert find_needed(f"{told}temporaries (724.50G) exceeds available HBM (95.74G).") == (
        724.5 * 2**30
    )
    assert find_needed("RESOURCE_EXHAUSTED: for some reason") == math.inf
    assert find_needed("INTERNAL: something else") is None


@pytest.fixture
def make_fake(local):
    """Makes a planner to which each remat and each division halves the memory."""
    return lambda room: fake_planner(local, room)


def fake_planner(local, room):

    def make(config, target):
        shares = {"none": 8.0, "dots": 4.0, "full": 2.0}
        parts = config.optim.num_microbatches * config.parallel.tensor
        needed = shares[config.model.remat] / parts
        memory = Memory(0.0, 0.0, 0.0, 0.0, needed, 0.0, needed)
        return dataclasses.replace(local, room=room, fits=needed <= room, memory=memory)

    return make


def test_a_search_takes_the_lightest_remat_that_fits(make_fake):
    config = small_config(train=TrainConfig(batch_size=64))
    told: list[str] = []
    ranked = search_plans(config, "v5e:4x4", 16, 50, told.append, make_fake(2.0))
    found = {c.parallel.tensor: (c.model.remat, c.optim.num_microbatches) for c, _ in ranked}
    assert found == {1: ("full", 1), 2: ("dots", 1), 4: ("none", 1), 8: ("none", 1)}
    assert [plan.memory.total for _, plan in ranked] == sorted(p.memory.total for _, p in ranked)
    assert len(told) == 3 + 2 + 1 + 1
    assert "too much" in told[0]
    ranked = search_plans(config, "v5e:4x4", 16, 50, told.append, make_fake(1.0))
    assert {c.optim.num_microbatches for c, _ in ranked if c.parallel.tensor == 1} == {2}
    assert len(search_plans(config, "v5e:4x4", 16, 3, told.append, make_fake(2.0))) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("mixtral_8x7b", {}, 8),
        ("gpt2", {"num_experts": 4}, 4),
        ("mixer_s16", {}, 1),
        ("mlp", {}, 1),
    ],
)
def test_experts_are_those_of_the_model(name, arguments, count):
    config = small_config(model=ModelConfig(name, arguments))
    assert count_experts(config) == count
    shared = {mesh["expert"] for mesh in list_meshes(config, 16)}
    assert shared == ({1, 8} if count == 8 else {1})


def test_meshes_divide_the_batch(make_fake):
    config = small_config(train=TrainConfig(batch_size=24))
    assert [mesh["fsdp"] for mesh in list_meshes(config, 32)] == [8, 4]
    with pytest.raises(UserError, match="cannot be shared by any mesh of 4096 chips"):
        search_plans(config, "v5p:16x16x16", 4096, 9, print, make_fake(1.0))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install '.[plan]'"
)
@pytest.mark.parametrize("target", ["v4:2x2x2", "v5e:2x4", "v5p:2x2x2", "v6e:2x4"])
def test_tpus_that_are_not_here(target):
    """A ViT for eight chips: an eighth of the parameters, and the collectives of FSDP."""
    config = small_config(
        model=ModelConfig("vit_ti4", {"width": 256, "depth": 2, "num_heads": 2, "hidden": 512}),
        train=TrainConfig(batch_size=64),
        parallel=ParallelConfig(data=1, fsdp=8),
    )
    plan = make_plan(config, target)
    assert plan.num_chips == 8
    assert plan.fits
    assert plan.memory.params < 4 * plan.num_params / 8 * 1.1
    assert plan.costs is not None
    assert plan.estimate is not None
    assert "all-gather" in plan.costs.collectives
    assert 0 < plan.estimate.best <= plan.estimate.worst
    assert "v5e" not in target or plan.estimate.mfu < 1
    whole = make_plan(dataclasses.replace(config, parallel=ParallelConfig()), target)
    assert whole.memory.params == 4 * plan.num_params


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install '.[plan]'"
)
def test_a_mesh_that_splits_an_axis_of_the_torus():
    mesh = make_mesh(ParallelConfig(fsdp=2, expert=8), find_target("v5e:4x4")[1])
    assert {axis: size for axis, size in mesh.shape.items() if size > 1} == {"fsdp": 2, "expert": 8}
    assert len({device.id for device in mesh.devices.flat}) == 16
