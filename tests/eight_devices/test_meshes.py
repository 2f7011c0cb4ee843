"""On eight simulated devices: every mesh computes what one device computes."""

import dataclasses
import functools
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL_VIT, small_config
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import zoo
from zoo.checkpoint import Checkpoints
from zoo.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    TaskConfig,
    TrainConfig,
    UserError,
)
from zoo.evaluation.passes import run_batches
from zoo.parallel import (
    DATA_AXES,
    choose_specs,
    constrain_activations,
    make_mesh,
    place_batch,
)
from zoo.train.build import build, eval_batches
from zoo.train.compile import Programs
from zoo.train.rows import read_rows
from zoo.tree import named_leaves

SMALL_GPT = {"width": 16, "depth": 2, "num_heads": 2, "num_positions": 16}
MORE = {"layer_scale": 0.5, "gated": True, "num_registers": 2, "distillation": "head"}
SMALL_MIXER = {"width": 16, "depth": 2, "tokens_hidden": 8, "hidden": 32}
WINDOWS = {"window": 4, "layer_pattern": ("local", "global"), "positions": "rotary"}
WINDOWS |= {"query_key_norm": True, "post_norms": True}
EXPERTS = {"num_experts": 4, "gated": True, "mlp_bias": False}
# Two layers: how one's output lies is what the next one's kernels meet.
VIT = ModelConfig("vit_ti4", SMALL_VIT)
MODELS = {
    "vit": VIT,
    "vit_mean_scanned": ModelConfig("vit_ti4", {**SMALL_VIT, "pooling": "mean"}, scan_layers=True),
    "vit_map": ModelConfig("vit_ti4", {**SMALL_VIT, "pooling": "map"}),
    # Layer scale, a gated feed-forward, registers, both heads.
    "vit_more": ModelConfig("vit_ti4", {**SMALL_VIT, **MORE}),
    "mixer": ModelConfig("mixer_s4", SMALL_MIXER),
    "mixer_scanned": ModelConfig("mixer_s4", SMALL_MIXER, scan_layers=True),
    "mlp": ModelConfig("mlp", {"widths": (32, 16)}),
    "gpt": ModelConfig("gpt2", SMALL_GPT),
    "gpt_scanned": ModelConfig("gpt2", SMALL_GPT, scan_layers=True),
    "gpt_windows": ModelConfig("gpt2", {**SMALL_GPT, **WINDOWS}, scan_layers=True),
    "gpt_experts": ModelConfig("gpt2", {**SMALL_GPT, **EXPERTS}, scan_layers=True),
}
TEXT = {
    "data": DataConfig("synthetic:embedded:stdlib", tokenizer="chars", length=16),
    "task": TaskConfig("causal_lm"),
}


def slow(*case):
    """A case of the slow tests."""
    return pytest.param(*case, marks=pytest.mark.slow)


def make_config(parallel, model=VIT):
    return small_config(
        model=model,
        # Not Adam: it makes whole steps out of the rounding errors of gradients that are zero.
        optim=OptimConfig("sgd", 0.3, {"momentum": 0.9}, num_microbatches=2, ema_decay=0.9),
        train=TrainConfig(batch_size=32, num_steps=3, eval_batch_size=13),
        parallel=parallel,
        **(TEXT if model.name == "gpt2" else {}),
    )


def run(parts, programs):
    """Three steps from parameters all moved by noise, and an evaluation."""
    random = np.random.default_rng(0)
    state = programs.init_state()
    shapes = jax.tree.map(np.asarray, state.params)
    moved = jax.tree.map(lambda x: x + 0.05 * random.normal(size=x.shape).astype(x.dtype), shapes)
    state = dataclasses.replace(
        state, params=jax.device_put(moved, programs.state_shardings.params)
    )
    for i in range(3):
        batch = place_batch(parts.stream[i], programs.blocks_sharding)
        state, report = programs.train(state, batch, 1)
    split = "test" if "test" in parts.dataset.splits else "val"
    placed = (place_batch(b, programs.batch_sharding) for b in eval_batches(parts, split))
    seen = run_batches(programs.evaluate, state.params, placed)
    return state, report, parts.task.summarise(seen.sums)


@functools.cache
def run_alone(name):
    """The same on a mesh of one device."""
    config = make_config(ParallelConfig(), MODELS[name])
    parts = build(config)
    mesh = make_family_mesh((1, 1, 1))
    return run(parts, Programs(config, parts.task, mesh, parts.programs.batch_shapes))


def test_seeds_on_a_mesh_are_their_single_runs():
    config = make_config(ParallelConfig(data=2, fsdp=2, tensor=2), MODELS["mlp"])
    train = dataclasses.replace(config.train, num_seeds=2)
    both = zoo.fit(dataclasses.replace(config, train=train)).history
    for index in range(2):
        alone = zoo.fit(dataclasses.replace(config, seed=config.seed + index)).history
        for mine, one in zip(both, alone, strict=True):
            value = mine["seeds"]["loss"]["values"][index]
            assert value == pytest.approx(one["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        slow("vit", (2, 4, 1)),
        slow("vit_mean_scanned", (8, 1, 1)),
        ("vit_mean_scanned", (1, 4, 2)),
        slow("vit_mean_scanned", (2, 2, 2)),
        slow("vit_map", (2, 2, 2)),
        slow("vit_more", (2, 2, 2)),
        slow("mixer", (2, 2, 2)),
        slow("mixer_scanned", (1, 4, 2)),
        slow("mlp", (1, 2, 4)),
        ("mlp", (2, 2, 2)),
        slow("gpt", (2, 2, 2)),
        slow("gpt_scanned", (1, 4, 2)),
        slow("gpt_scanned", (2, 2, 2)),
        slow("gpt_windows", (2, 2, 2)),
        ("gpt_experts", (2, 2, 2)),
    ],
    ids=str,
)
def test_every_mesh_trains_alike(name, sizes):
    alone = run_alone(name)
    parts = build(make_config(ParallelConfig(*sizes), MODELS[name]))
    state, report, metrics = run(parts, parts.programs)
    np.testing.assert_allclose(report["loss"], alone[1]["loss"], rtol=1e-5)
    assert metrics == pytest.approx(alone[2], rel=1e-5)
    expected = named_leaves(alone[0].params)
    for path, leaf in named_leaves(state.params).items():
        np.testing.assert_allclose(leaf, expected[path], atol=5e-6, err_msg=path)


@pytest.mark.parametrize("scan", [False, True])
def test_what_lies_where(scan):
    programs = build(
        make_config(ParallelConfig(2, 2, 2), dataclasses.replace(VIT, scan_layers=scan))
    ).programs
    state = programs.init_state()
    prefix, lead = ("blocks/", [None]) if scan else ("blocks/00/", [])
    params = named_leaves(state.params)
    expected = {
        "attn/q/kernel": ("fsdp", "tensor"),
        "attn/out/kernel": ("tensor", "fsdp"),
        "mlp/fc1/kernel": ("fsdp", "tensor"),
        "mlp/fc1/bias": ("tensor",),
        "norm1/scale": (),
    }
    for path, axes in expected.items():
        leaf = params[prefix + path]
        assert tuple(leaf.sharding.spec) == (*lead, *axes), path
    kernel = params[prefix + "mlp/fc1/kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    # Optimizer state and average lie where their parameter lies.
    whole = named_leaves({"opt": state.opt_state, "ema": state.ema})
    for path, leaf in whole.items():
        for name, param in params.items():
            if path.endswith(f"/{name}"):
                assert leaf.sharding == param.sharding, path


def test_a_checkpoint_moves_to_another_mesh(tmp_path):
    source = build(make_config(ParallelConfig(2, 4, 1))).programs
    state = source.init_state()
    checkpoints = Checkpoints(epath.Path(tmp_path))
    checkpoints.save(0, state)
    checkpoints.wait()
    target = build(make_config(ParallelConfig(1, 4, 2))).programs
    _, moved = checkpoints.restore(target.abstract_state)
    for (path, a), b in zip(named_leaves(state).items(), jax.tree.leaves(moved), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=path)
    specs = named_leaves(target.state_shardings)
    assert all(leaf.sharding.spec == specs[p].spec for p, leaf in named_leaves(moved).items())


def test_resume_on_another_mesh_keeps_the_order(tmp_path):
    """The same rows to rounding, half of the run on each of two meshes."""
    config = make_config(ParallelConfig(8, 1, 1))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=4))
    config = dataclasses.replace(
        config, checkpoint=dataclasses.replace(config.checkpoint, every_steps=2)
    )
    zoo.fit(config, tmp_path / "a")
    zoo.fit(config, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "00000004")
    (tmp_path / "b" / "metrics.jsonl").unlink()
    zoo.fit(dataclasses.replace(config, parallel=ParallelConfig(2, 2, 2)), tmp_path / "b")
    first = {(r["step"], r["split"]): r for r in read_rows(tmp_path / "a")}
    again = read_rows(tmp_path / "b")
    assert [(r["step"], r["split"]) for r in again] == [(4, "test"), (4, "train")]
    for row in again:
        expected = first[row.pop("step"), row.pop("split")]
        assert row == pytest.approx({k: expected[k] for k in row}, rel=1e-4)


@pytest.mark.parametrize(
    ("parallel", "train", "message"),
    [
        (
            ParallelConfig(3, 1, 1),
            TrainConfig(24),
            "parallel: data=3 does not fit 8 devices",
        ),
        (
            ParallelConfig(),
            TrainConfig(12),
            r"batch_size=12 is not divisible by the 8 .*nearest: 8 or 16",
        ),
        (ParallelConfig(rules=(("q/kernel", ("rows",)),)), TrainConfig(16), "no mesh axis 'rows'"),
    ],
)
def test_mistakes(parallel, train, message):
    config = small_config(model=VIT, train=train, parallel=parallel)
    with pytest.raises(UserError, match=message):
        build(config)


SMALL = {"width": 16, "depth": 2, "hidden": 32, "vocab_size": 32}
TOKENS, SOURCE = np.random.default_rng(0).integers(0, 32, size=(2, 8, 6)).astype(np.int32)
MAE = {"patch_size": 4, "image_size": (8, 8), "num_heads": 4, "decoder_width": 16}
MAE |= {"decoder_depth": 2, "decoder_num_heads": 4, "decoder_hidden": 32}
NOISE = np.random.default_rng(2).uniform(size=(8, 4)).astype(np.float32)
PIXELS = np.random.default_rng(3).normal(size=(8, 8, 8, 3)).astype(np.float32)
TOWERS = {"num_heads": 4, "text_width": 16, "text_depth": 2, "text_num_heads": 4}
TOWERS |= {"text_hidden": 32, "image_size": (8, 8), "patch_size": 4, "embedding_width": 16}
FAMILIES = {
    "bert": ("bert_base", {"num_heads": 4, "head": "masked_lm"}, (TOKENS,)),
    "bert_sequence": (
        "bert_base",
        {"num_heads": 4, "head": "sequence", "num_classes": 4},
        (TOKENS,),
    ),
    "albert": (
        "albert_base",
        {"num_heads": 4, "embedding_width": 8, "head": "masked_lm"},
        (TOKENS,),
    ),
    "electra": ("electra_small", {"num_heads": 4, "embedding_width": 8}, (TOKENS,)),
    "llama": ("llama3_8b", {"num_heads": 4, "num_kv_heads": 2}, (TOKENS,)),
    "t5": ("t5_v1_1_small", {"num_heads": 4, "head_dim": 4}, (TOKENS, SOURCE)),
    "bart": ("bart_base", {"num_heads": 4, "target_vocab_size": 32}, (TOKENS, SOURCE)),
    "mae": ("mae_b16", MAE, (PIXELS, NOISE)),
    "clip": ("clip_vit_b32", TOWERS, (PIXELS, TOKENS)),
    "siglip": ("siglip_b16_224", TOWERS, (PIXELS, TOKENS)),
}


@functools.cache
def make_family(name, scan):
    """The model, its parameters all moved by noise, its inputs."""
    row, fields, inputs = FAMILIES[name]
    own = {k: v for k, v in SMALL.items() if k != "vocab_size" or name != "mae"}
    model = zoo.create_model(row, **own, **fields, scan_layers=scan)
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    noise = lambda leaf: 0.4 * random.normal(size=leaf.shape).astype(np.float32)
    return model, jax.tree.map(noise, shapes), inputs


def find_gradient(name, scan, mesh):
    """Loss and gradient on a mesh, everything placed as in training."""
    model, params, inputs = make_family(name, scan)
    specs = choose_specs(params, mesh)
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    rows = NamedSharding(mesh, P(DATA_AXES))

    def loss(params, inputs):
        output, _ = model.apply({"params": params}, *inputs)
        return (output * jnp.cos(jnp.arange(output.size)).reshape(output.shape)).sum()

    run = jax.jit(
        jax.value_and_grad(constrain_activations(loss, mesh)),
        in_shardings=(places, rows),
        out_shardings=(NamedSharding(mesh, P()), places),
    )
    value, grads = run(params, inputs)
    return float(value), {path: np.asarray(x) for path, x in named_leaves(grads).items()}


def make_family_mesh(sizes):
    return make_mesh(ParallelConfig(*sizes), jax.devices()[: math.prod(sizes)])


find_gradient_alone = functools.cache(
    lambda name, scan: find_gradient(name, scan, make_family_mesh((1, 1, 1)))
)


@pytest.mark.parametrize(
    ("name", "scan", "sizes"),
    [
        slow("bert", False, (2, 2, 2)),
        slow("bert", True, (1, 4, 2)),
        ("bert_sequence", False, (1, 2, 4)),
        slow("albert", True, (2, 2, 2)),
        slow("electra", False, (2, 2, 2)),
        ("llama", False, (1, 2, 4)),  # half a key/value head a device
        slow("llama", True, (2, 2, 2)),
        slow("mae", False, (2, 2, 2)),
        slow("mae", True, (1, 4, 2)),
        slow("t5", False, (2, 2, 2)),
        slow("t5", True, (1, 4, 2)),
        slow("bart", False, (2, 2, 2)),
        slow("siglip", False, (2, 2, 2)),
        slow("clip", True, (1, 4, 2)),
    ],
    ids=str,
)
def test_every_family_has_the_same_gradient(name, scan, sizes):
    value, grads = find_gradient(name, scan, make_family_mesh(sizes))
    expected_value, expected = find_gradient_alone(name, scan)
    assert value == pytest.approx(expected_value, rel=1e-4, abs=1e-3)
    for path, grad in expected.items():
        atol = 2e-5 * max(1.0, float(np.abs(grad).max()))
        np.testing.assert_allclose(grads[path], grad, atol=atol, err_msg=path)


def test_every_matrix_of_a_t5_block_is_divided_in_both_directions():
    _, params, _ = make_family("t5", True)
    specs = choose_specs(params, make_family_mesh((2, 2, 2)))["decoder"]["blocks"]
    outward, inward = P(None, "fsdp", "tensor"), P(None, "tensor", "fsdp")
    for part in ("attn", "cross"):
        found = {name: leaf["kernel"] for name, leaf in specs[part].items()}
        assert found == {"q": outward, "k": outward, "v": outward, "out": inward}
    found = {name: leaf["kernel"] for name, leaf in specs["mlp"].items()}
    assert found == {"fc1": outward, "gate": outward, "fc2": inward}


@pytest.mark.slow
def test_a_frozen_part_and_layers_at_their_own_rate_train_alike_on_every_mesh():
    """Moments and average of what trains lie with it; what is frozen has neither."""
    rules = (("^(embed|pos|cls)", {"frozen": True}), ("^head", {"from_step": 1}))
    optim = OptimConfig("sgd", 0.3, {"momentum": 0.9}, ema_decay=0.9, layer_decay=0.5, rules=rules)
    model = dataclasses.replace(VIT, scan_layers=True)
    config = dataclasses.replace(make_config(ParallelConfig(2, 2, 2), model), optim=optim)
    parts = build(config)
    state, report, _ = run(parts, parts.programs)
    mesh = make_family_mesh((1, 1, 1))
    programs = Programs(config, parts.task, mesh, parts.programs.batch_shapes)
    alone, expected, _ = run(parts, programs)
    np.testing.assert_allclose(report["loss"], expected["loss"], rtol=1e-5)
    found = {"params": state.params, "ema": state.ema, "eval": state.eval_params}
    wanted = {"params": alone.params, "ema": alone.ema, "eval": alone.eval_params}
    wanted = named_leaves(wanted)
    for path, leaf in named_leaves(found).items():
        np.testing.assert_allclose(leaf, wanted[path], atol=5e-6, err_msg=path)
    params = named_leaves(state.params)
    kept = {path: leaf for path, leaf in named_leaves(state.opt_state).items() if leaf.ndim}
    for path, leaf in (*kept.items(), *named_leaves(state.ema).items()):
        name = next(name for name in params if path == name or path.endswith(f"/{name}"))
        assert leaf.sharding == params[name].sharding, path
        assert not name.startswith(("embed", "pos", "cls")), path
    again = parts.programs.start_from(jax.device_get(state.params))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: x.sharding, again) == jax.tree.map(lambda x: x.sharding, state)
