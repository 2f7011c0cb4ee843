"""Runs in which a part trains: what stays, what moves when, what it costs, and that it resumes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SMALL_VIT, small_config
from etils import epath

import zoo
from zoo.checkpoint import Checkpoints
from zoo.config import CheckpointConfig, ModelConfig, OptimConfig, TrainConfig, UserError
from zoo.parallel import place_batch
from zoo.train import describe, fit
from zoo.train.build import build
from zoo.train.progress import Progress
from zoo.tree import named_leaves, stack_layers, unstack_layers

PROBE = (("^(?!head)", {"frozen": True}),)
VIT = ModelConfig("vit_ti4", SMALL_VIT)


def read(workdir):
    return Checkpoints(epath.Path(workdir) / "checkpoints").restore_leaves()


def test_a_linear_probe(tmp_path):
    """All but the head frozen: logistic regression on the features, by the same optimizer; its
    checkpoints, its average, its resumption."""
    config = small_config(
        model=ModelConfig("mlp", {"widths": (16,)}),
        optim=OptimConfig("adam", 0.05, rules=PROBE, ema_decay=0.8),
        train=TrainConfig(16, 6, eval_batch_size=16),
        checkpoint=CheckpointConfig(every_steps=3, keep_last=9),
    )
    result = fit(config, tmp_path / "whole")
    parts = result.parts
    start = named_leaves(parts.programs.init_state().params)
    end = read(tmp_path / "whole")
    for name in ("kernel", "bias"):  # to the bit
        np.testing.assert_array_equal(end[f"params/fc1/{name}"], start[f"fc1/{name}"])
    assert not [p for p in end if p.startswith(("opt_state", "ema")) and "fc1" in p]

    features = lambda images: np.maximum(
        images.reshape(len(images), -1) @ start["fc1/kernel"] + start["fc1/bias"], 0
    )
    head = {name: start[f"head/{name}"] for name in ("kernel", "bias")}
    average, optimizer = head, optax.adam(0.05)
    state = optimizer.init(head)

    def loss(head, x, labels):
        logits = x @ head["kernel"] + head["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    for step in range(6):
        block = parts.stream.read(step, 1)
        x, labels = features(block["image"][0]), block["label"][0]
        updates, state = optimizer.update(jax.grad(loss)(head, x, labels), state)
        head = optax.apply_updates(head, updates)
        rate = 1 - min(0.8, (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, p, rate=rate: a + rate * (p - a), average, head)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(end[f"params/head/{name}"], head[name], atol=1e-5)
        np.testing.assert_allclose(result.params["head"][name], average[name], atol=1e-5)
        np.testing.assert_array_equal(result.params["fc1"][name], start[f"fc1/{name}"])

    # What ships is whole, and a run cut off in the middle ends in the same bits.
    shipped = named_leaves(zoo.load_pretrained(tmp_path / "whole").params)
    expected = named_leaves(result.params)
    assert shipped.keys() == expected.keys()
    for path, leaf in shipped.items():
        np.testing.assert_array_equal(leaf, expected[path])
    epath.Path(tmp_path / "whole" / "checkpoints" / "00000006").rmtree()
    fit(config, tmp_path / "whole")
    again = read(tmp_path / "whole")
    assert again.keys() == end.keys()
    for path in end:
        np.testing.assert_array_equal(again[path], end[path], err_msg=path)
    table = (tmp_path / "whole" / "parameters.txt").read_text().splitlines()
    assert table[0].split()[-2:] == ["learning", "rate"]
    assert [line.split()[-1] for line in table[1:-1]] == ["frozen", "frozen", "x1", "x1"]


def test_frozen_leaves_cost_no_gradient_and_no_moments():
    """By the memory analysis of the compiled step: a middle of 1024 x 1024 trained, or frozen."""
    model, size = ModelConfig("mlp", {"widths": (1024, 1024)}), 4 * 1024 * 1024
    found = {}
    for name, rules in [("trained", ()), ("frozen", (("^fc2", {"frozen": True}),))]:
        optim = OptimConfig("adam", 1e-3, rules=rules, ema_decay=0.9, num_microbatches=2)
        programs = build(small_config(model=model, optim=optim)).programs
        found[name] = programs.train_program(1).memory_analysis()
    arguments, temporaries = (
        getattr(found["trained"], field) - getattr(found["frozen"], field)
        for field in ("argument_size_in_bytes", "temp_size_in_bytes")
    )
    assert 3 * size <= arguments < 3.1 * size  # two moments, the average
    assert temporaries >= size  # the gradient


@pytest.fixture(scope="module")
def dataset():
    return build(small_config(model=VIT)).dataset


def train(config, dataset, params=None):
    """The parts, the parameters before and after each step by path, norms, the parameters."""
    parts = build(config, dataset)
    programs = parts.programs
    state = programs.init_state()
    if params is not None:
        given = stack_layers(params) if config.model.scan_layers else params
        state = programs.start_from(given)
    found, norms = [unstack_layers(jax.device_get(state.params))], []
    for step in range(config.train.num_steps):
        block = place_batch(parts.stream.read(step, 1), programs.blocks_sharding)
        state, _ = programs.train(state, block, 1)
        found.append(unstack_layers(jax.device_get(state.params)))
        norms.append(float(state.sums["gradient_norm"]))
    return parts, [named_leaves(params) for params in found], norms, found


@pytest.mark.slow
def test_layers_begin_one_after_the_other(dataset):
    """Howard & Ruder's gradual unfreezing: above the layers from the first step, then the last
    layer, then the first, then the embedding, each with a first step of Adam: one rate long."""
    optim = OptimConfig("adam", 1e-3, unfreeze_every_steps=2)
    config = small_config(model=VIT, optim=optim, train=TrainConfig(16, 8))
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, every_steps=1))
    found = train(config, dataset)[1]
    starts = {"head": 0, "norm": 0, "blocks/01": 2, "blocks/00": 4}
    for path in found[0]:
        first = next((s for start, s in starts.items() if path.startswith(start)), 6)
        changes = [np.abs(b[path] - a[path]) for a, b in itertools.pairwise(found)]
        assert not any(change.any() for change in changes[:first]), path
        # No gradient but rounding reaches a key's bias, none the norm below a head of zeros.
        if "/k/bias" not in path and not path.startswith("norm"):
            np.testing.assert_allclose(changes[first].max(), 1e-3, rtol=0.01, err_msg=path)


def test_what_waits_is_not_in_the_norm_that_is_logged():
    rules = (("^fc1", {"from_step": 1}),)
    config = small_config(optim=OptimConfig("adam", 1e-3, rules=rules), train=TrainConfig(16, 3))
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, every_steps=1))
    parts, found, norms, trees = train(config, None)
    for step, waiting in enumerate(["fc1", "none", "none"]):
        batch = jax.tree.map(lambda x: jnp.asarray(x[0]), parts.stream.read(step, 1))
        find_loss = lambda params, batch=batch: parts.task.loss(params, batch, None)[0] / 16
        gradient = named_leaves(jax.grad(find_loss)(trees[step]))
        squares = [(x**2).sum() for path, x in gradient.items() if not path.startswith(waiting)]
        np.testing.assert_allclose(norms[step], np.sqrt(sum(squares)), rtol=1e-5)
        for path in found[0]:
            moved = (found[step + 1][path] != found[step][path]).any()
            assert moved == (not path.startswith(waiting)), path


@pytest.mark.slow
def test_layer_decay_of_scanned_layers_is_that_of_unrolled_ones(dataset):
    optim = OptimConfig("sgd", 0.5, {"momentum": 0.9}, layer_decay=0.5, weight_decay=0.1)
    config = small_config(model=VIT, optim=optim, train=TrainConfig(16, 3))
    _, unrolled, _, trees = train(config, dataset)
    scanned = dataclasses.replace(config, model=dataclasses.replace(VIT, scan_layers=True))
    _, again, _, _ = train(scanned, dataset, trees[0])
    for path, leaf in unrolled[-1].items():
        np.testing.assert_allclose(again[-1][path], leaf, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("name", ["sam", "schedule_free_adamw"])
def test_optimizers_that_keep_parameters_may_freeze(name):
    optim = OptimConfig(name, 0.01, warmup_steps=1, rules=(("^fc1", {"frozen": True}),))
    parts = build(small_config(optim=optim))
    state = parts.programs.init_state()
    start = jax.device_get(state.params)
    for step in range(4):
        block = place_batch(parts.stream.read(step, 1), parts.programs.blocks_sharding)
        state, _ = parts.programs.train(state, block, 1)
    np.testing.assert_array_equal(state.eval_params["fc1"]["kernel"], start["fc1"]["kernel"])
    assert (state.eval_params["head"]["kernel"] != start["head"]["kernel"]).any()


def test_a_table_of_another_model_is_refused_before_training():
    config = small_config(optim=OptimConfig(rules=(("^fc9", {"frozen": True}),)))
    with pytest.raises(UserError, match=r"optim.rules\[0\] \('\^fc9'\) matches no parameter.*fc1"):
        fit(config)


def test_the_table_is_told():
    rules = (("^fc1", {"learning_rate": 0.5}), ("bias$", {"frozen": True}))
    config = small_config(optim=OptimConfig(rules=rules))
    lines = build(config).programs.groups.lines
    assert lines == (
        "'^fc1': learning rate x0.5, decay x1; 1,040 parameters in 2 arrays",
        "'bias$': frozen; 10 parameters in 1 array",
        "trains 1,200 of 1,210 parameters",
    )


def test_what_never_begins_to_train_is_told(capsys):
    optim = OptimConfig(rules=(("^fc1", {"from_step": 9}),))
    config = small_config(optim=optim, train=TrainConfig(batch_size=8, num_steps=2))
    describe(build(config), None, Progress(2, 8, 0.0, show=True))
    told = " ".join(capsys.readouterr().out.split())
    assert "num_steps=2 ends before 2 arrays begin to train, the last at step 9" in told
