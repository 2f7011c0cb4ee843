"""Models that stand beside the one that is trained."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_config

import zoo
from zoo.config import ModelConfig, OptimConfig, TaskConfig, UserError
from zoo.config.parse import set_values
from zoo.train.build import build
from zoo.tree import COMPANIONS, named_leaves, own_params

SMALL = {"widths": (8,)}


def make_config(**changes):
    config = small_config(
        model=ModelConfig("mlp", SMALL),
        task=TaskConfig(
            "following_task:Following", models={"teacher": {"name": "mlp", "arguments": SMALL}}
        ),
        optim=OptimConfig("sgd", 0.05, ema_decay=0.5, rules=((".", {"learning_rate": 2.0}),)),
    )
    return set_values(config, changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, result)"""
    folder = tmp_path_factory.mktemp("beside") / "run"
    return folder, zoo.fit(make_config(), folder)


def test_constants_get_no_gradient_and_follow():
    parts = build(make_config())
    programs, task = parts.programs, parts.task
    state = programs.init_state()
    assert not [p for p in named_leaves((state.ema, state.opt_state)) if COMPANIONS in p]
    batch = parts.stream[0]
    first = jax.device_get(state.params)

    def mean_loss(own):
        loss, sums = task.loss({**own, COMPANIONS: first[COMPANIONS]}, one, None)
        return loss / sums["weight"]

    one = jax.tree.map(lambda x: jnp.asarray(x[0]), batch)
    gradient = jax.jit(jax.grad(mean_loss))(own_params(first))
    # The rule that takes every path takes the model's own: 2 * 0.05.
    expected = optax.apply_updates(own_params(first), jax.tree.map(lambda g: -0.1 * g, gradient))
    state, _ = programs.train(state, jax.device_put(batch), 1)
    after = jax.device_get(state.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), own_params(after), expected
    )
    jax.tree.map(
        lambda new, old, own: np.testing.assert_allclose(new, old + 0.25 * (own - old), atol=1e-6),
        after[COMPANIONS]["teacher"],
        first[COMPANIONS]["teacher"],
        own_params(after),
    )
    assert after[COMPANIONS]["seen"] == len(batch["mask"][0])


def test_what_leaves_the_run_is_the_model(run):
    folder, result = run
    loaded = zoo.load_pretrained(folder)
    assert COMPANIONS not in result.params
    jax.tree.map(np.testing.assert_array_equal, loaded.params, jax.device_get(result.params))
    assert "companions" in (folder / "parameters.txt").read_text()


def test_a_teacher_begins_as_it_was_trained(run):
    folder, result = run
    config = make_config(**{"task.models.teacher.init_from": str(folder)})
    config = dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, models={"teacher": {"init_from": str(folder)}}),
    )
    taught = zoo.fit(set_values(config, {"train.num_steps": 1, "optim.learning_rate": 1e-9}))
    student = own_params(taught._all_params)
    at_first = jax.tree.map(
        lambda now, own: (now - 0.25 * own) / 0.75,
        taught._all_params[COMPANIONS]["teacher"],
        student,
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), at_first, result.params)


@pytest.mark.parametrize(
    ("models", "line"),
    [
        ({"teachr": {}}, "no model 'teachr' beside .*did you mean 'teacher'"),
        ({}, r"task.models.teacher: set its name, or init_from"),
        ({"teacher": {"nam": "mlp"}}, r"task.models.teacher.nam is unknown .*'name'"),
        ({"teacher": {"name": "mpl"}}, r"task.models.teacher: .*'mlp'"),
        ({"teacher": {"init_from": "/nowhere"}}, r"task.models.teacher: init_from='/nowhere'"),
        ({"teacher": {"name": "mlp", "init_from": "/nowhere"}}, "leave it out"),
    ],
)
def test_mistakes(models, line):
    config = make_config()
    task = dataclasses.replace(config.task, models=models)
    with pytest.raises(UserError, match=line):
        build(dataclasses.replace(config, task=task))


def test_a_run_goes_on_with_its_teacher(tmp_path, run):
    whole = run[1]
    config = make_config()
    short = set_values(config, {"train.num_steps": config.train.num_steps // 2})
    zoo.fit(short, tmp_path / "run")
    again = zoo.fit(set_values(config, {"checkpoint.extend": True}), tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again._all_params, whole._all_params)
