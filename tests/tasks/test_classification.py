import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import zoo
from zoo.config import TaskConfig, UserError
from zoo.tasks import make_task


class Info:
    name, num_classes, statistics = "toy", 3, None


MODEL = zoo.create_model("mlp", widths=(4,), num_outputs=3, input_shape=(5,))
RANDOM = np.random.default_rng(0)
BATCH = {
    "features": jnp.asarray(RANDOM.normal(size=(20, 5)), jnp.float32),
    "label": jnp.asarray(RANDOM.integers(0, 3, 20)),
    "mask": jnp.asarray(np.arange(20) < 17, jnp.float32),
}


def make(**arguments):
    return make_task(TaskConfig("classification", arguments), {"model": MODEL}, Info)


def test_metrics_equal_scikit_learn():
    task = make()
    params = task.init(jax.random.key(0))
    _, sums = task.loss(params, BATCH, None)
    got = task.summarise(jax.device_get(sums))
    labels, probabilities = BATCH["label"][:17], np.asarray(task.predict(params, BATCH))[:17]
    assert got["loss"] == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-5
    )
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(labels, probabilities.argmax(1)))


def test_sums_of_parts_are_sums_of_the_whole():
    task = make()
    params = task.init(jax.random.key(0))
    whole = task.loss(params, BATCH, None)[1]
    parts = [
        task.loss(params, {k: v[i : i + 5] for k, v in BATCH.items()}, None)[1]
        for i in range(0, 20, 5)
    ]
    added = jax.tree.map(lambda *xs: sum(xs), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, added)


def test_label_smoothing_by_hand():
    task = make(label_smoothing=0.1)
    params = task.init(jax.random.key(0))
    logits = MODEL.apply({"params": params}, BATCH["features"])[0]
    targets = np.eye(3)[BATCH["label"]] * 0.9 + 0.1 / 3
    expected = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(1)[:17].sum()
    loss, _ = task.loss(params, BATCH, jax.random.key(1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    evaluated, _ = task.loss(params, BATCH, None)
    assert abs(float(evaluated - loss)) > 1e-3  # evaluation is without smoothing


def test_mixup_mixes_real_rows_only():
    task = make(mixup=0.5)
    params = task.init(jax.random.key(0))
    changed = {**BATCH, "features": BATCH["features"].at[17:].set(1e3)}
    key = jax.random.key(3)
    np.testing.assert_allclose(
        task.loss(params, BATCH, key)[0], task.loss(params, changed, key)[0], rtol=1e-6
    )
    assert task.loss(params, BATCH, key)[0] != task.loss(params, BATCH, jax.random.key(4))[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TaskConfig("clasification"), "did you mean 'classification'"),
        (TaskConfig("classification", {"smoothing": 0.1}), "did you mean 'label_smoothing'"),
        (
            TaskConfig("classification", {"mixup": "much"}),
            "task.arguments.mixup='much' is not float",
        ),
        (TaskConfig("regression"), "has 3 classes"),
    ],
)
def test_mistakes(config, message):
    with pytest.raises(UserError, match=message):
        make_task(config, {"model": MODEL}, Info)
