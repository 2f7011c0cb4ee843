"""Squared, absolute and Huber's error of several targets, by hand and by torch's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import TaskConfig, UserError
from zoo.tasks import make_task
from zoo.train.step import accumulate

RANDOM = np.random.default_rng(0)
MODEL = zoo.create_model("mlp", widths=(4,), num_outputs=2, input_shape=(5,))
LABEL = (RANDOM.normal(size=(12, 2)) * [3.0, 40.0] + [5.0, 300.0]).astype(np.float32)
BATCH = {
    "features": jnp.asarray(RANDOM.normal(size=(12, 5)), jnp.float32),
    "label": jnp.asarray(LABEL),
    "mask": jnp.asarray(np.arange(12) < 9, jnp.float32),
}


class Info:
    name, num_classes = "toy", None
    statistics = {"label": (LABEL.mean(0), LABEL.std(0))}  # noqa: RUF012


def make(**arguments):
    return make_task(TaskConfig("regression", arguments), {"model": MODEL}, Info)


@pytest.mark.parametrize("error", ["squared", "absolute", "huber"])
def test_by_hand(error):
    task = make(error=error, **({"delta": 0.7} if error == "huber" else {}))
    params = jax.jit(task.init)(jax.random.key(0))
    key = jax.random.key(1)
    loss, seen, predicted, *gradients = jax.jit(
        lambda p: (
            task.loss(p, BATCH, None)[0],
            task.observe(p, BATCH)["loss"],
            task.predict(p, BATCH),
            accumulate(task.loss, p, BATCH, key, 1)[0],
            accumulate(task.loss, p, BATCH, key, 3)[0],
        )
    )(params)
    e = np.abs((np.asarray(predicted, np.float64) - LABEL) / LABEL.std(0))
    huber = np.where(e < 0.7, e**2 / 2, 0.7 * (e - 0.35))
    wanted = {"squared": e**2, "absolute": e, "huber": huber}[error].mean(1)
    np.testing.assert_allclose(seen, wanted, rtol=1e-4)
    assert float(loss) == pytest.approx(wanted[:9].sum(), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), *gradients)


def test_loss_at_the_start_is_the_variance():
    """A model that says the mean: the squares are the variance, 1 in these units."""
    task = make()
    params = jax.tree.map(lambda x: x * 0.01, jax.jit(task.init)(jax.random.key(0)))
    whole = {**BATCH, "mask": jnp.ones(12)}
    assert float(task.loss(params, whole, None)[0]) / 12 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": 2.0}, "delta is for task.arguments.error='huber'"),
        ({"error": "huber", "delta": 0.0}, "delta=0.0 should be above 0"),
        ({"error": "hubber"}, "did you mean 'huber'"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        make(**arguments)
