"""Metrics of classes and numbers against scikit-learn and scipy, under random weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn import metrics as sk
from weighing import draw_weights, only

from zoo.config import UserError
from zoo.metrics import Additive, count_confusion, find_metrics, tabulate_classes

NAMES = ["accuracy", "top2", "precision_macro", "recall_macro", "f1_macro", "f1_micro", "f1_1"]
NAMES += ["matthews", "calibration_error", "loss"]


def draw_classes(seed, n=40, c=4):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, c, n)
    logits = (rng.normal(size=(n, c)) + 1.5 * np.eye(c)[label]).astype(np.float32)
    return {"logits": logits, "label": label, "loss": rng.random(n)}


def draw_numbers(seed, n=40, k=3, offset=0.0):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(n, k)) + offset
    return {"prediction": target + rng.normal(size=(n, k)), "target": target, "loss": rng.random(n)}


def sk_classes(name, records, w):
    """scikit-learn's number without rows of weight 0, over whose classes it would average."""
    keep = w > 0
    label, logits, w = records["label"][keep], records["logits"][keep], w[keep]
    chosen = logits.argmax(1)
    if name == "accuracy":
        return sk.accuracy_score(label, chosen, sample_weight=w)
    if name == "top2":
        classes = range(logits.shape[1])
        return sk.top_k_accuracy_score(label, logits, k=2, sample_weight=w, labels=classes)
    if name == "matthews":
        return sk.matthews_corrcoef(label, chosen, sample_weight=w)
    if name == "loss":
        return np.average(records["loss"][keep], weights=w)
    if name == "calibration_error":
        return guo(logits, label, w)
    kind, which = name.split("_")
    score = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[kind]
    if which.isdigit():
        return score(
            label, chosen, labels=[int(which)], average=None, sample_weight=w, zero_division=0
        )[0]
    return score(label, chosen, average=which, sample_weight=w, zero_division=0)


def guo(logits, label, w):
    """The definition, bin by bin."""
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    confidence, right = p.max(1), p.argmax(1) == label
    total = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if w[inside].sum():
            accuracy = np.average(right[inside], weights=w[inside])
            gap = abs(accuracy - np.average(confidence[inside], weights=w[inside]))
            total += gap * w[inside].sum() / w.sum()
    return total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 4])
def test_classes_as_scikit_learn(name, classes):
    if (name, classes) == ("top2", 2):
        pytest.skip("always right")
    records = draw_classes(1, c=classes)
    weights = draw_weights(2)
    values = only(name, records)(records, weights)
    for value, w in zip(values, weights, strict=True):
        assert value == pytest.approx(sk_classes(name, records, w), abs=1e-12)


def test_two_classes_have_a_positive_one():
    records = draw_classes(3, c=2)
    chosen = records["logits"].argmax(1)
    assert only("f1", records).value(records) == pytest.approx(
        sk.f1_score(records["label"], chosen), abs=1e-12
    )
    assert "f1" in [m.name for m in find_metrics(records)]
    assert "f1" not in [m.name for m in find_metrics(draw_classes(3))]


def test_numbers_as_scikit_learn_and_scipy():
    for offset in (0.0, 1e7):
        records = draw_numbers(4, offset=offset)
        t, p = records["target"], records["prediction"]
        for w in draw_weights(5):
            got = {m.name: m(records, w[None])[0] for m in find_metrics(records)}
            assert got["mse"] == pytest.approx(sk.mean_squared_error(t, p, sample_weight=w))
            assert got["mae"] == pytest.approx(sk.mean_absolute_error(t, p, sample_weight=w))
            assert got["r2"] == pytest.approx(sk.r2_score(t, p, sample_weight=w), abs=1e-9)
        counts = draw_weights(5)[2].astype(int)
        t, p = np.repeat(t, counts, 0), np.repeat(p, counts, 0)
        expected = np.mean([pearsonr(t[:, i], p[:, i])[0] for i in range(3)])
        got = only("pearson", records)(records, counts[None] * 1.0)[0]
        assert got == pytest.approx(expected, abs=1e-9)


def test_text_losses_are_of_tokens():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, 30)
    records = {"loss": tokens * rng.random(30), "num_tokens": tokens, "num_bytes": tokens * 3}
    got = {m.name: m.value(records) for m in find_metrics(records)}
    mean = records["loss"].sum() / tokens.sum()
    assert got == pytest.approx(
        {"loss": mean, "perplexity": np.exp(mean), "bits_per_byte": mean / 3 / np.log(2)}
    )


def test_tokens_count_where_they_have_a_label():
    rng = np.random.default_rng(6)
    label = rng.integers(-1, 3, (12, 7))
    label[3] = -1  # a row without any
    records = {"token_logits": rng.normal(size=(12, 7, 3)), "token_label": label}
    counted = label >= 0
    losses = rng.random((12, 7)) * counted
    records["loss"] = losses.sum(1) / np.maximum(counted.sum(1), 1)
    assert only("loss", records).value(records) == pytest.approx(losses.sum() / counted.sum())
    flat = {"logits": records["token_logits"][counted], "label": label[counted]}
    for w in draw_weights(7, 12):
        flat_w = np.broadcast_to(w[:, None], label.shape)[counted]
        for name in ("accuracy", "f1_macro", "matthews", "calibration_error"):
            got = only(name, records)(records, w[None])[0]
            assert got == pytest.approx(sk_classes(name, flat, flat_w), abs=1e-12)


def test_confusion_as_scikit_learn():
    records = draw_classes(8)
    records["label"][records["label"] == 3] = 2  # a class that is predicted only
    chosen = records["logits"].argmax(1)
    for w in (None, draw_weights(9)[1]):
        expected = sk.confusion_matrix(records["label"], chosen, labels=range(4), sample_weight=w)
        confusion = count_confusion(records, w)
        assert confusion == pytest.approx(expected)
        report = sk.precision_recall_fscore_support(
            records["label"], chosen, labels=range(4), sample_weight=w, zero_division=0
        )
        for got, want in zip(tabulate_classes(confusion).values(), report, strict=True):
            assert got == pytest.approx(want)
    label = np.array([[0, -1], [2, 1]])
    tokens = {"token_logits": np.eye(3)[[[0, 1], [2, 2]]], "token_label": label}
    assert count_confusion(tokens).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert count_confusion(tokens, np.array([0.0, 2.0])).sum() == 4
    with pytest.raises(UserError, match="needs classes; the records have loss"):
        count_confusion({"loss": np.ones(3)})


def test_degenerate_records():
    """One class everywhere, constant numbers, no rows: what scikit-learn says, or NaN."""
    same = {"logits": np.tile([[1.0, 0.0, 0.0]], (5, 1)), "label": np.zeros(5, int)}
    assert only("matthews", same).value(same) == 0.0
    assert only("f1_macro", same).value(same) == 1.0
    flat = {"prediction": np.ones((5, 1)), "target": np.full((5, 1), 3.0)}
    assert only("r2", flat).value(flat) == 0.0
    assert np.isnan(only("pearson", flat).value(flat))
    right = {"prediction": np.full((5, 1), 3.0), "target": np.full((5, 1), 3.0)}
    assert only("r2", right).value(right) == 1.0
    ties = {"logits": np.zeros((3, 3)), "label": np.arange(3)}
    assert only("accuracy", ties).value(ties) == pytest.approx(1 / 3)
    assert only("top2", ties).value(ties) == pytest.approx(2 / 3)
    for records in (draw_classes(0), draw_numbers(0)):
        for metric in find_metrics(records):
            assert np.isnan(metric(records, np.zeros((1, 40)))[0]), metric.name


def test_a_row_that_does_not_count_cannot_spoil_a_sum():
    records = {"loss": np.array([1.0, np.inf, 3.0])}
    values = only("loss", records)(records, np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))
    assert values[0] == 2.0
    assert np.isnan(values[1])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(5, 12),
    draw=st.sampled_from([draw_classes, draw_numbers]),
)
def test_weights_rows_and_order(seed, n, draw):
    """Counts are repeated rows, order is nothing, the sums of parts are those of the whole."""
    records = draw(seed, n)
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, n)
    counts[0] += 1
    order = rng.permutation(n)
    repeated = {k: np.repeat(v, counts, 0) for k, v in records.items()}
    moved = {k: v[order] for k, v in records.items()}
    for metric in find_metrics(records):
        value = metric(records, counts[None] * 1.0)[0]
        assert value == pytest.approx(metric.value(repeated), abs=1e-11, rel=1e-8, nan_ok=True), (
            metric.name
        )
        again = metric(moved, counts[order][None] * 1.0)[0]
        assert value == pytest.approx(again, abs=1e-11, rel=1e-8, nan_ok=True), metric.name
        if isinstance(metric, Additive):
            parts = [{k: v[s] for k, v in records.items()} for s in (slice(1), slice(1, None))]
            sums = sum(metric.statistics(part).sum(axis=0) for part in parts)
            assert metric.finish(sums) == pytest.approx(
                metric.value(records), abs=1e-9, rel=1e-8, nan_ok=True
            )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["acuracy"], "no metric 'acuracy' .did you mean 'accuracy'"),
        (["mse"], "metric 'mse' needs prediction and target; the records have label, logits, loss"),
        (["f1"], "'f1' is for two classes, the records have 4 .did you mean 'f1_macro'"),
        (["f1_9"], "the classes are 0 to 3"),
        (["top0"], "must be at least 1"),
    ],
)
def test_mistakes(names, message):
    records = draw_classes(0)
    with pytest.raises(UserError, match=message):
        find_metrics(records, names)[0].value(records)
