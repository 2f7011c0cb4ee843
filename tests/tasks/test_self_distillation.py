"""DINO against a computation in NumPy over two steps, and its views."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.tasks.self_distillation import SelfDistillation
from zoo.tasks.views import Views
from zoo.tree import COMPANIONS, own_params

SIZES = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "num_classes": 0}
SIZES |= {"image_size": (8, 8), "num_channels": 1, "patch_size": 2}
INFO = SimpleNamespace(shapes={"image": (8, 8, 1)}, name="squares")
SMALL = {"prototypes": 12, "hidden": 8, "bottleneck": 6, "local_views": 2, "local_size": 4}
SMALL |= {"warmup_steps": 4, "teacher_temperature": 0.07, "momentum": 0.9, "num_steps": 4}
STUDENT, FIRST, LAST = 0.1, 0.04, 0.07


@pytest.fixture(scope="module")
def task():
    return SelfDistillation.create(zoo.create_model("vit_ti2", **SIZES), INFO, **SMALL)


def make_batch(rows=5):
    images = np.random.default_rng(0).normal(size=(rows, 8, 8, 1)).astype(np.float32)
    return {"image": jnp.asarray(images), "mask": jnp.ones(rows)}


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def project(head, x):
    """The head written out."""
    from scipy.special import erf

    for name in ("fc1", "fc2", "fc3"):
        x = x @ head[name]["kernel"] + head[name]["bias"]
        x = 0.5 * x * (1 + erf(x / np.sqrt(2))) if name != "fc3" else x
    kernel = head["prototypes"]["kernel"]
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)) @ (
        kernel / np.linalg.norm(kernel, axis=0)
    )


@functools.cache
def make_runner(model):
    return jax.jit(lambda p, x: model.apply({"params": p}, x)[0])


def find_features(model, params, views):
    made = [make_runner(model)(params, views[:, v]) for v in range(views.shape[1])]
    return np.stack([np.asarray(x, np.float64) for x in made], axis=1)


def test_two_steps_by_hand(task):
    """Padding behind the five images changes nothing, and the sums of parts are those of all."""
    batch = make_batch()
    padded = {k: jnp.concatenate([x, x[:3]]) for k, x in batch.items()}
    padded["mask"] = padded["mask"].at[5:].set(0)
    random = np.random.default_rng(2)
    params = jax.jit(task.init)(jax.random.key(0))
    run = jax.jit(lambda p, b: task.loss(p, b, None)[1])
    follow = jax.jit(task.follow)
    draw = jax.jit(lambda x: task.draw_views(x, None))
    center, teacher = np.zeros(12), jax.device_get((own_params(params), params[COMPANIONS]["head"]))
    for step in range(2):
        # The student moves, as an optimizer would move it.
        noise = lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32)
        head = jax.tree.map(noise, params[COMPANIONS]["head"])
        own = jax.tree.map(noise, own_params(params))
        params = {**own, COMPANIONS: {**params[COMPANIONS], "head": head}}
        global_views, local_views = draw(batch["image"])
        student = [
            project(head, find_features(task.model, own, global_views)),
            project(head, find_features(task.local_model, task.resize_positions(own), local_views)),
        ]
        student = softmax(np.concatenate(student, axis=1) / STUDENT)
        taught = project(teacher[1], find_features(task.model, teacher[0], global_views))
        target = softmax((taught - center) / (FIRST + step / 4 * (LAST - FIRST)))
        pairs = [(t, s) for t in range(2) for s in range(4) if t != s]
        loss = np.mean([-(target[:, t] * np.log(student[:, s])).sum(-1) for t, s in pairs], axis=0)
        sums = run(params, padded)
        assert float(sums["loss"]) == pytest.approx(loss.sum(), rel=1e-4)
        entropy = -(target * np.log(target)).sum(-1).mean(1).sum()
        assert float(sums["entropy"]) == pytest.approx(entropy, rel=1e-3)
        assert float(sums["weight"]) == 5
        halves = padded["mask"].at[2:].set(0), padded["mask"].at[:2].set(0)
        parts = jax.tree.map(jnp.add, *(run(params, {**padded, "mask": half}) for half in halves))
        for name, value in parts.items():
            np.testing.assert_allclose(value, sums[name], rtol=1e-5, atol=1e-6, err_msg=name)
        center = 0.9 * center + 0.1 * taught.mean((0, 1))
        keep = 1 - 0.1 * (np.cos(np.pi * step / 4) + 1) / 2
        teacher = jax.tree.map(
            lambda t, s, keep=keep: keep * t + (1 - keep) * s, teacher, jax.device_get((own, head))
        )
        params = follow(params, sums, jnp.asarray(step))
        beside = params[COMPANIONS]
        np.testing.assert_allclose(beside["center"], center, atol=1e-5)
        found = beside["teacher"], beside["teacher_head"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, teacher)


def test_at_first_it_knows_nothing():
    """With many dimensions cosines are near 0: the loss is near the logarithm of the prototypes."""
    model = zoo.create_model("vit_ti2", **SIZES)
    more = {"prototypes": 500, "hidden": 8, "bottleneck": 2048, "teacher_temperature": 0.1}
    more |= {"warmup_temperature": 0.1, "local_views": 0}
    task = SelfDistillation.create(model, INFO, **more)
    params = jax.jit(task.init)(jax.random.key(0))
    sums = jax.device_get(jax.jit(lambda p, b: task.loss(p, b, None)[1])(params, make_batch()))
    found = task.summarise(sums)
    for name in ("loss", "teacher_entropy"):
        assert found[name] == pytest.approx(np.log(500), abs=0.1), name


def test_views_are_of_the_image_and_its_key():
    draw = jax.jit(lambda x, n: dataclasses.replace(WHOLE, jitter=0.0).draw(KEYS, x) * n)
    image = make_batch()["image"]
    whole = draw(image, 1.0)
    # Of the whole area and, where it fits, of its shape: at least one side is not cut.
    assert whole.shape == (5, 3, 8, 8, 1)
    constant = draw(jnp.full_like(image, 0.7), 1.0)
    np.testing.assert_allclose(constant, 0.7, atol=1e-5)
    assert np.abs(whole[:, 0] - whole[:, 1]).max() > 0.1


WHOLE = Views(3, (8, 8), 0.3, 1.0)
KEYS = jax.random.split(jax.random.key(3), 5)


@pytest.mark.parametrize(
    ("model", "arguments", "line"),
    [
        ({"num_classes": 3}, {}, "num_classes=3: .*leave it out"),
        ({}, {"local_size": 3}, "local_size=3: image 3x3 is not divisible by patch"),
        ({}, {"teacher_temperature": 0.0}, "teacher_temperature=0.0 must be above 0"),
        ({}, {"momentum": 1.5}, "momentum=1.5 is not in"),
        ({}, {"local_area": (0.5, 0.2)}, "local_area=.* 0 < least"),
    ],
)
def test_mistakes(model, arguments, line):
    made = zoo.create_model("vit_ti2", **{**SIZES, **model})
    with pytest.raises(UserError, match=line):
        SelfDistillation.create(made, INFO, **{**SMALL, **arguments})


def test_alone_it_is_measured_by_its_features(task):
    with pytest.raises(UserError, match="--probe=knn"):
        task.loss({}, make_batch(), None)
