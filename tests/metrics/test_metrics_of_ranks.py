"""AUROC, average precision and Spearman against scikit-learn and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn import metrics as sk
from weighing import draw_weights, only

from zoo.config import UserError
from zoo.metrics import find_metrics


def draw_scores(seed, n=50, c=3, steps=4):
    """Logits of few values, so that many are equal."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, c, n)
    return {"logits": (rng.integers(0, steps, (n, c)) / 2).astype(np.float32), "label": label}


def softmax(logits):
    p = np.exp(logits.astype(np.float64))
    return np.round(p / p.sum(1, keepdims=True), 12)  # equal odds are equal here too


@pytest.mark.parametrize("steps", [4, 10**6])
@pytest.mark.parametrize("classes", [2, 3])
def test_ranks_as_scikit_learn(classes, steps):
    records = draw_scores(1, c=classes, steps=steps)
    p, label = softmax(records["logits"] / steps), records["label"]
    records["logits"] = records["logits"] / steps
    for w in draw_weights(2, 50):
        score = p[:, 1] if classes == 2 else p
        expected = sk.roc_auc_score(label, score, sample_weight=w, multi_class="ovr")
        assert only("auroc", records)(records, w[None])[0] == pytest.approx(expected, abs=1e-12)
        expected = [
            sk.average_precision_score(label == k, p[:, k], sample_weight=w)
            for k in ([1] if classes == 2 else range(classes))
        ]
        got = only("average_precision", records)(records, w[None])[0]
        assert got == pytest.approx(np.mean(expected), abs=1e-12)


def test_one_class_and_absent_classes():
    records = draw_scores(3)
    p = softmax(records["logits"])
    one = only("auroc_2", records).value(records)
    assert one == pytest.approx(sk.roc_auc_score(records["label"] == 2, p[:, 2]))
    gone = {k: v[records["label"] != 2] for k, v in records.items()}
    assert np.isnan(only("auroc_2", gone).value(gone))
    both = [only(f"auroc_{k}", gone).value(gone) for k in (0, 1)]
    assert only("auroc", gone).value(gone) == pytest.approx(np.mean(both))
    alone = {k: v[records["label"] == 1] for k, v in records.items()}
    for name in ("auroc", "average_precision"):
        assert np.isnan(only(name, alone).value(alone))
        assert np.isnan(only(name, records)(records, np.zeros((1, 50)))[0])
    with pytest.raises(UserError, match="the classes are 0 to 2"):
        only("auroc_3", records).value(records)


def test_sure_predictions_still_rank():
    """Probabilities that round to 1 in any float still have an order."""
    logits = np.array([[0.0, 800.0], [0.0, 900.0], [0.0, 1000.0], [0.0, 700.0]])
    records = {"logits": logits, "label": np.array([0, 1, 1, 0])}
    assert only("auroc", records).value(records) == 1.0


def test_a_score_that_is_no_number_has_no_rank():
    records = draw_scores(4)
    records["logits"][7, 0] = np.nan
    weights = np.ones((2, 50))
    weights[1, 7] = 0
    values = only("auroc", records)(records, weights)
    assert np.isnan(values[0])
    assert np.isfinite(values[1])


def test_many_classes_rank_when_named():
    records = draw_scores(5, c=30)
    assert "auroc" not in [m.name for m in find_metrics(records)]
    assert np.isfinite(only("auroc", records).value(records))


def test_spearman_as_scipy():
    rng = np.random.default_rng(6)
    target = rng.integers(0, 5, (50, 2)) * 1.0
    records = {"target": target, "prediction": target + rng.integers(0, 9, (50, 2))}
    counts = rng.integers(0, 4, (3, 50))
    values = only("spearman", records)(records, counts * 1.0)
    for value, own in zip(values, counts, strict=True):
        t, p = (np.repeat(records[k], own, 0) for k in ("target", "prediction"))
        expected = np.mean([spearmanr(t[:, i], p[:, i])[0] for i in range(2)])
        assert value == pytest.approx(expected, abs=1e-12)
    flat = {"target": np.ones((4, 1)), "prediction": np.arange(4.0)[:, None]}
    assert np.isnan(only("spearman", flat).value(flat))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
def test_weights_rows_and_order(seed, n):
    rng = np.random.default_rng(seed)
    records = draw_scores(seed, n) | {
        "target": rng.integers(0, 4, (n, 2)) * 1.0,
        "prediction": rng.integers(0, 4, (n, 2)) * 1.0,
    }
    counts, order = rng.integers(0, 3, n), rng.permutation(n)
    counts[0] += 1
    repeated = {k: np.repeat(v, counts, 0) for k, v in records.items()}
    moved = {k: v[order] for k, v in records.items()}
    for metric in find_metrics(records, ["auroc", "average_precision", "spearman"]):
        value = metric(records, counts[None] * 1.0)[0]
        assert value == pytest.approx(metric.value(repeated), abs=1e-12, nan_ok=True), metric.name
        again = metric(moved, counts[order][None] * 1.0)[0]
        assert value == pytest.approx(again, abs=1e-12, nan_ok=True), metric.name
