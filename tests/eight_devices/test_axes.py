"""Each kind of stack under every axis of the mesh alone and under mixes of them: loss and gradients
are those of one device."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import zoo
from zoo.config import DataConfig, ModelConfig, ParallelConfig, TaskConfig, TrainConfig
from zoo.parallel import (
    DATA_AXES,
    choose_specs,
    constrain_activations,
    make_mesh,
    share_context,
)
from zoo.train.build import build
from zoo.train.loop import flops_per_step
from zoo.tree import named_leaves

SMALL = {"width": 16, "depth": 2, "num_heads": 4}
TEXT = {**SMALL, "hidden": 32, "vocab_size": 32}
IMAGES = {"image_size": (8, 8), "patch_size": 4}
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(0, 32, size=(8, 8)).astype(np.int32)  # divides over context and tensor
SOURCE = RANDOM.integers(0, 32, size=(8, 6)).astype(np.int32)
SEGMENTS = np.tile(np.asarray([1, 1, 1, 2, 2, 2, 2, 0], np.int32), (8, 1))  # of packed rows
PACKED = ("decoder", "encoder", "experts")
PIXELS = RANDOM.normal(size=(8, 8, 8, 3)).astype(np.float32)
TOWERS = {"text_width": 16, "text_depth": 2, "text_num_heads": 4, "text_hidden": 32}
EXPERTS = {"num_experts": 8, "gated": True, "mlp_bias": False, "num_positions": 8}
KINDS = {
    "mlp": ("mlp", {"widths": (32, 32), "num_outputs": 4, "input_shape": (8, 8, 3)}, (PIXELS,)),
    "vit": ("vit_ti16", {**SMALL, **IMAGES, "hidden": 32, "num_classes": 4}, (PIXELS,)),
    "decoder": ("llama3_8b", {**TEXT, "num_kv_heads": 2}, (TOKENS,)),
    "encoder": ("bert_base", {**TEXT, "head": "masked_lm"}, (TOKENS,)),
    "encoder_decoder": ("t5_v1_1_small", {**TEXT, "head_dim": 4}, (TOKENS, SOURCE)),
    "experts": ("gpt2", {**TEXT, **EXPERTS}, (TOKENS,)),
    "experts_of_places": ("gpt2", {**TEXT, **EXPERTS, "capacity_factor": 1.0}, (TOKENS,)),
    "two_towers": ("clip_vit_b32", {**TEXT, **IMAGES, **TOWERS}, (PIXELS, TOKENS)),
}
ALONE = ({"data": 8}, {"fsdp": 8}, {"tensor": 8}, {"context": 8}, {"expert": 8})
MIXES = ({"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "tensor": 2, "context": 2})
PAGE = pathlib.Path(__file__).with_name("specifications.txt").read_text()
PINNED = [line.split(maxsplit=2) for line in PAGE.splitlines() if line]  # stack, path, axes
PINNED = [(*words, "")[:3] for words in PINNED]
MIXES = (*MIXES, {"fsdp": 2, "context": 2, "expert": 2})


@functools.cache
def make_inputs(kind):
    """The model's class of parameters, all moved by noise, and its inputs."""
    name, fields, inputs = KINDS[kind]
    model = zoo.create_model(name, **fields, **({} if kind == "mlp" else {"scan_layers": True}))
    noise = lambda leaf: 0.4 * np.random.default_rng(1).normal(size=leaf.shape).astype(np.float32)
    return model, jax.tree.map(noise, jax.eval_shape(lambda: zoo.init_params(model))), inputs


def find_gradient(kind, how="gather", **sizes):
    """Loss and gradient by path, on a mesh of these sizes, everything placed as in training."""
    model, params, inputs = make_inputs(kind)
    devices = jax.devices()[: math.prod(sizes.values())]
    mesh = make_mesh(ParallelConfig(**{"data": 1, **sizes}), devices)
    if hasattr(model, "attend"):
        # In one of the mixes each device runs it on its own, as it would a kernel.
        alone = sizes == MIXES[0]
        model = model.clone(attend=share_context(model.attend, mesh, how, undivided=alone))
    packed = {"segments": jnp.asarray(SEGMENTS)} if kind in PACKED else {}
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), choose_specs(params, mesh))

    def loss(params, inputs):
        output, _ = model.apply({"params": params}, *inputs, **packed)
        return (output * jnp.cos(jnp.arange(output.size)).reshape(output.shape)).mean()

    rows, whole = NamedSharding(mesh, P(DATA_AXES)), NamedSharding(mesh, P())
    run = jax.value_and_grad(constrain_activations(loss, mesh))
    run = jax.jit(run, in_shardings=(places, rows), out_shardings=(whole, places))
    value, grads = run(params, inputs)
    return float(value), {path: np.asarray(x) for path, x in named_leaves(grads).items()}


find_gradient_alone = functools.cache(find_gradient)


def check(kind, how, sizes):
    value, grads = find_gradient(kind, how, **sizes)
    expected_value, expected = find_gradient_alone(kind)
    assert value == pytest.approx(expected_value, rel=1e-5, abs=1e-6)
    atol = 1e-5 * max(float(np.abs(grad).max()) for grad in expected.values())
    for path, grad in expected.items():
        np.testing.assert_allclose(grads[path], grad, rtol=1e-5, atol=atol, err_msg=path)


QUICK = ("vit", "encoder_decoder", "experts_of_places", "two_towers")
SLOW = [(kind, mix) for kind in KINDS for mix in MIXES if kind not in QUICK or mix != MIXES[1]]


def test_a_part_that_runs_alone_is_given_segments_where_there_are_any():
    seen = []

    def part(q, k, v, *others, **packed):
        seen.append((q.shape, {name: x.shape for name, x in packed.items()}))
        return q

    shared = share_context(part, make_mesh(ParallelConfig(data=4, tensor=2)), undivided=True)
    q = jnp.ones((8, 6, 4, 2))
    jax.eval_shape(shared, q, q, q)
    jax.eval_shape(lambda *x: shared(*x, segments=jnp.ones((8, 6))), q, q, q)
    assert seen == [((2, 6, 2, 2), {}), ((2, 6, 2, 2), {"segments": (2, 6)})]


@pytest.mark.parametrize("kind", QUICK)
def test_a_mix(kind):
    check(kind, "gather", MIXES[1])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sizes"), SLOW, ids=str)
def test_mixes(kind, sizes):
    check(kind, "gather", sizes)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ALONE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_axis_alone(kind, sizes):
    check(kind, "gather", sizes)


@pytest.mark.parametrize(
    "kind", ["decoder", pytest.param("encoder_decoder", marks=pytest.mark.slow)]
)
def test_keys_and_values_that_go_round(kind):
    check(kind, "ring", {"fsdp": 2, "tensor": 2, "context": 2})


def test_a_step_has_as_much_arithmetic_on_every_mesh():
    """MFU counts all of it, not the part of a device that a kernel or `context` runs by itself."""
    size = {"width": 16, "depth": 1, "num_heads": 2, "num_positions": 32}
    config = small_config(
        model=ModelConfig("gpt2", size),
        data=DataConfig("embedded:stdlib", tokenizer="bytes", length=32, packing=True),
        task=TaskConfig("causal_lm"),
    )
    shared = dataclasses.replace(config, parallel=ParallelConfig(data=2, context=4))
    one = build(config, devices=jax.devices()[:1])
    assert flops_per_step(build(shared)) == flops_per_step(one) > 0


@pytest.mark.parametrize("count", [2, 4, 8])
def test_memory_falls_with_the_devices(count):
    """Parameters and optimizer state of one device, of a model whose every matrix divides."""
    config = small_config(
        model=ModelConfig("mlp", {"widths": (256, 256)}),
        parallel=ParallelConfig(data=8 // count, fsdp=count),
        train=TrainConfig(batch_size=16),
    )
    state = build(config).programs.init_state()
    held = whole = 0
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        held += leaf.addressable_shards[0].data.nbytes
        whole += leaf.nbytes
    assert whole / count <= held < whole / count * 1.05  # biases are whole on each


@pytest.mark.parametrize("kind", KINDS)
def test_every_specification(kind):
    """The mesh axes of each dimension of each parameter, as specifications.txt has them."""
    _, params, _ = make_inputs(kind)
    sizes = {"data": 1, "fsdp": 2, "tensor": 2, "expert": 2}
    specs = named_leaves(choose_specs(params, make_mesh(ParallelConfig(**sizes))))
    assert {path: " ".join(axis or "-" for axis in spec) for path, spec in specs.items()} == {
        path: axes for stack, path, axes in PINNED if stack == kind
    }
