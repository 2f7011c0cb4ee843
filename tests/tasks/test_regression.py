import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import zoo
from zoo.config import TaskConfig
from zoo.tasks import make_task

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("standardize", [True, False])
def test_metrics_equal_scikit_learn(targets, standardize):
    labels = 1000 + 30 * RANDOM.normal(size=(24, targets))
    labels = labels[:, 0] if targets == 1 else labels

    class Info:
        name, num_classes = "toy", None
        statistics = {"label": (labels.mean(0), labels.std(0))}  # noqa: RUF012

    model = zoo.create_model("mlp", widths=(4,), num_outputs=targets, input_shape=(5,))
    task = make_task(TaskConfig("regression", {"standardize": standardize}), {"model": model}, Info)
    params = jax.jit(task.init)(jax.random.key(0))
    batch = {
        "features": jnp.asarray(RANDOM.normal(size=(24, 5)), jnp.float32),
        "label": jnp.asarray(labels, jnp.float32),
        "mask": jnp.asarray(np.arange(24) < 20, jnp.float32),
    }
    parts = [
        task.loss(params, {k: v[i : i + 8] for k, v in batch.items()}, None)[1] for i in (0, 8, 16)
    ]
    sums = jax.tree.map(lambda *xs: np.sum([np.asarray(x, np.float64) for x in xs], axis=0), *parts)
    got = task.summarise(sums)
    predicted = np.asarray(task.predict(params, batch), np.float64).reshape(labels.shape)[:20]
    labels = labels[:20]
    assert got["mse"] == pytest.approx(metrics.mean_squared_error(labels, predicted), rel=1e-4)
    assert got["mae"] == pytest.approx(metrics.mean_absolute_error(labels, predicted), rel=1e-4)
    assert got["r2"] == pytest.approx(metrics.r2_score(labels, predicted), rel=1e-3)
    if standardize:
        scaled = ((predicted - labels) / Info.statistics["label"][1]) ** 2
        assert got["loss"] == pytest.approx(scaled.mean(), rel=1e-4)
