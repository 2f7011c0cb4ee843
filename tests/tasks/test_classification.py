import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import zoo
from zoo.config import TaskConfig, UserError
from zoo.tasks import make_task
from zoo.tasks.classification import Classification, mix


class Info:
    name, num_classes, statistics, shapes = "toy", 3, None, {"features": (5,)}


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
    params = jax.jit(task.init)(jax.random.key(0))
    _, sums = task.loss(params, BATCH, None)
    got = task.summarise(jax.device_get(sums))
    labels, probabilities = BATCH["label"][:17], np.asarray(task.predict(params, BATCH))[:17]
    assert got["loss"] == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-5
    )
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(labels, probabilities.argmax(1)))


def test_sums_of_parts_are_sums_of_the_whole():
    task = make()
    params = jax.jit(task.init)(jax.random.key(0))
    whole = task.loss(params, BATCH, None)[1]
    parts = [
        task.loss(params, {k: v[i : i + 5] for k, v in BATCH.items()}, None)[1]
        for i in range(0, 20, 5)
    ]
    added = jax.tree.map(lambda *xs: sum(xs), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, added)


def test_label_smoothing_by_hand():
    task = make(label_smoothing=0.1)
    params = jax.jit(task.init)(jax.random.key(0))
    logits = MODEL.apply({"params": params}, BATCH["features"])[0]
    targets = np.eye(3)[BATCH["label"]] * 0.9 + 0.1 / 3
    expected = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(1)[:17].sum()
    loss, _ = task.loss(params, BATCH, jax.random.key(1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    evaluated, _ = task.loss(params, BATCH, None)
    assert abs(float(evaluated - loss)) > 1e-3  # evaluation is without smoothing


def test_mixup_mixes_real_rows_only():
    task = make(mixup=0.5)
    params = jax.jit(task.init)(jax.random.key(0))
    changed = {**BATCH, "features": BATCH["features"].at[17:].set(1e3)}
    key = jax.random.key(3)
    np.testing.assert_allclose(
        task.loss(params, BATCH, key)[0], task.loss(params, changed, key)[0], rtol=1e-6
    )
    assert task.loss(params, BATCH, key)[0] != task.loss(params, BATCH, jax.random.key(4))[0]


@pytest.fixture(scope="module")
def shares():
    """What rows of 12 x 12 pixels keep of themselves in 4,000 batches of mixup and cutmix."""
    task = Classification(MODEL, 3, mixup=0.3, cutmix=1.0)
    draw = jax.jit(jax.vmap(lambda key: task.draw_share(key, (12, 12, 1))))
    return np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))


def find_windows(shares):
    """Those of cutmix, windows without a pixel left out."""
    flat = shares.reshape(len(shares), -1)
    return shares[flat.min(1) < flat.max(1)]


def test_each_batch_takes_mixup_or_cutmix(shares):
    windows = find_windows(shares)
    assert set(np.unique(windows)) == {0, 1}
    assert 1700 < len(windows) < 2100  # half of them, less the windows without a pixel


def test_cutmix_pastes_a_rectangle_and_shares_targets_by_its_area(shares):
    images = jnp.asarray(RANDOM.normal(size=(5, 12, 12, 2)), jnp.float32)
    targets = jnp.eye(5)  # each row a class of its own: what it holds of which row is seen
    mask = jnp.array([1.0, 1, 1, 1, 0])
    mix_once, areas = jax.jit(mix), set()
    for share in find_windows(shares)[:30]:
        hole = share[..., 0] == 0
        assert hole.sum() == hole.any(1).sum() * hole.any(0).sum()  # a rectangle
        mixed, shared = (np.asarray(x) for x in mix_once(share, images, targets, mask))
        for row in range(5):
            other = row if row in (0, 4) else 4 - row  # rows 0 and 4: one of the pair is padding
            expected = np.where(hole[..., None], images[other], images[row])
            np.testing.assert_array_equal(mixed[row], expected)
            weights = np.zeros(5)
            weights[row] += 1 - hole.mean()
            weights[other] += hole.mean()
            np.testing.assert_allclose(shared[row], weights, atol=1e-6)
        areas.add(int(hole.sum()))
    assert len(areas) > 8


def test_cutmix_areas_are_those_of_beta(shares):
    # Sides sqrt(u) of the image, u even in (0, 1) as Beta(1, 1) is, and a centre anywhere; what
    # lies inside the image is alike in y and x and, given the side, independent.
    half = np.floor(np.sqrt((np.arange(1000) + 0.5) / 1000) * 12) // 2
    half = half[half > 0]  # a window has a pixel
    centres = np.arange(12)
    low = np.maximum(centres[None] - half[:, None], 0)
    high = np.minimum(centres[None] + half[:, None], 12)
    expected = ((high - low).mean(1) ** 2).mean() / 12**2
    np.testing.assert_allclose((find_windows(shares) == 0).mean(), expected, atol=0.01)


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
        (TaskConfig("classification", {"cutmix": 1.0}), "cutmix is for images, toy has none"),
        (TaskConfig("classification", {"mixup": -1.0}), "mixup=-1.0 must be at least 0"),
    ],
)
def test_mistakes(config, message):
    with pytest.raises(UserError, match=message):
        make_task(config, {"model": MODEL}, Info)
