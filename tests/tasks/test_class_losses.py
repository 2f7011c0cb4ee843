"""Losses of classes against torch where it is there, and against NumPy by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

import zoo
from zoo.config import TaskConfig, UserError
from zoo.data.sources import ArraySource, Dataset
from zoo.tasks import make_task
from zoo.tasks.class_losses import sigmoid_losses, smooth_targets, softmax_losses
from zoo.train.step import accumulate

RANDOM = np.random.default_rng(0)
LOGITS = jnp.asarray(RANDOM.normal(size=(12, 4)) * 2, jnp.float32)
LABEL = RANDOM.permutation([0] * 6 + [1] * 3 + [2] * 2 + [3])
LABELS = (RANDOM.random((12, 4)) < 0.4).astype(np.float32)
LABELS[0], LABELS[1] = 0, 1  # of no class are there all, or none
WEIGHTS = np.array([0.5, 2.0, 1.0, 3.0])
MODEL = zoo.create_model("mlp", widths=(6,), num_outputs=4, input_shape=(5,))
MASK = (np.arange(12) < 9).astype(np.float32)
FEATURES = RANDOM.normal(size=(12, 5)).astype(np.float32)


def make(label, **arguments):
    splits = {"train": ArraySource({"features": FEATURES, "label": label})}
    info = Dataset("toy", splits, 4)
    batch = {
        "features": jnp.asarray(FEATURES),
        "label": jnp.asarray(label),
        "mask": jnp.asarray(MASK),
    }
    return make_task(TaskConfig("classification", arguments), {"model": MODEL}, info), batch


@pytest.mark.parity
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_torch(torch, smoothing):
    functional, logits = torch.nn.functional, torch.tensor(np.asarray(LOGITS))
    weights = torch.tensor(WEIGHTS, dtype=torch.float32)
    more = {"weight": weights, "label_smoothing": smoothing, "reduction": "none"}
    wanted = functional.cross_entropy(logits, torch.tensor(LABEL), **more)
    targets = smooth_targets(jnp.eye(4)[LABEL], smoothing, False)
    np.testing.assert_allclose(softmax_losses(LOGITS, targets, WEIGHTS), wanted, rtol=1e-5)
    targets = smooth_targets(jnp.asarray(LABELS), smoothing, True)
    given = logits, torch.tensor(np.asarray(targets))
    more = {"pos_weight": weights, "reduction": "none"}
    wanted = functional.binary_cross_entropy_with_logits(*given, **more).mean(1)
    np.testing.assert_allclose(sigmoid_losses(LOGITS, targets, WEIGHTS), wanted, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focus_by_hand(gamma):
    z = np.asarray(LOGITS, np.float64)
    p = (np.exp(z) / np.exp(z).sum(1, keepdims=True))[np.arange(12), LABEL]
    wanted = -WEIGHTS[LABEL] * (1 - p) ** gamma * np.log(p)
    targets = jnp.eye(4)[LABEL]
    np.testing.assert_allclose(softmax_losses(LOGITS, targets, WEIGHTS, gamma), wanted, rtol=1e-4)
    p = 1 / (1 + np.exp(-z))
    each = np.where(LABELS > 0, WEIGHTS * (1 - p) ** gamma * np.log(p), p**gamma * np.log(1 - p))
    got = sigmoid_losses(LOGITS, jnp.asarray(LABELS), WEIGHTS, gamma)
    np.testing.assert_allclose(got, -each.mean(1), rtol=1e-4)
    sure = jnp.full((1, 4), -300.0).at[0, 0].set(300.0)  # p is 1 to the last bit
    for find in (softmax_losses, sigmoid_losses):
        gradient = jax.grad(lambda z, find=find: find(z, jnp.eye(4)[:1], 1.0, gamma).sum())(sure)
        assert np.isfinite(gradient).all()


def test_several_labels():
    task, batch = make(LABELS, class_weights="balanced", focal=1.0, label_smoothing=0.1)
    params = jax.jit(task.init)(jax.random.key(0))
    sums, seen, chances = jax.jit(
        lambda p: (task.loss(p, batch, None)[1], task.observe(p, batch), task.predict(p, batch))
    )(params)
    got, real = task.summarise(jax.device_get(sums)), MASK > 0
    chosen, labels = np.asarray(chances)[real] > 0.5, LABELS[real]
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(labels, chosen))
    assert got["f1_micro"] == pytest.approx(metrics.f1_score(labels, chosen, average="micro"))
    logs = [metrics.log_loss(labels[:, c], chances[real, c], labels=[0, 1]) for c in range(4)]
    assert got["loss"] == pytest.approx(np.mean(logs), rel=1e-5)  # without weights and focus
    assert seen["loss"][real].mean() == pytest.approx(got["loss"], rel=1e-5)
    shares = LABELS.mean(0)
    np.testing.assert_allclose(task.class_weights, (1 - shares) / shares)


def test_balanced_as_scikit_learn():
    task, _ = make(LABEL, class_weights="balanced")
    wanted = compute_class_weight("balanced", classes=np.unique(LABEL), y=LABEL)
    np.testing.assert_allclose(np.array(task.class_weights)[np.unique(LABEL)], wanted)


@pytest.mark.parametrize("label", [LABEL, LABELS], ids=["one", "several"])
def test_microbatches_and_the_start(label):
    task, batch = make(label, class_weights=(0.5, 2.0, 1.0, 3.0), focal=2.0, label_smoothing=0.1)
    params = jax.tree.map(lambda x: x * 0.01, jax.jit(task.init)(jax.random.key(0)))
    whole, parts, sums = jax.jit(
        lambda p: (
            accumulate(task.loss, p, batch, jax.random.key(0), 1),
            accumulate(task.loss, p, batch, jax.random.key(0), 3),
            task.loss(p, batch, None)[1],
        )
    )(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), whole, parts)
    guessing = math.log(4) if label.ndim == 1 else math.log(2)
    assert float(sums["loss"] / sums["weight"]) == pytest.approx(guessing, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weights": "balance"}, "should be 'balanced', or a number for each of 4 classes"),
        ({"class_weights": (1.0, 2.0)}, "has 2 numbers, toy 4 classes"),
        ({"class_weights": (1.0, 2.0, -1.0, 1.0)}, "numbers from 0 on"),
        ({"focal": -1.0}, "focal=-1.0 must be at least 0"),
        ({"label_smoothing": 1.5}, r"label_smoothing=1.5 is not in \[0, 1\]"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        make(LABEL, **arguments)
