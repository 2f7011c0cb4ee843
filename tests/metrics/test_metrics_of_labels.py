"""Metrics of several labels an example against scikit-learn, under random weights."""

import numpy as np
import pytest
from sklearn import metrics as sk
from weighing import draw_weights, only

from zoo.config import UserError
from zoo.metrics import Additive, bootstrap, find_metrics

CLASSES = 4
COUNTS = ["precision_macro", "recall_micro", "f1_macro", "f1_micro", "precision_2", "f1_0"]
NAMES = ["accuracy", *COUNTS, "auroc", "auroc_1", "average_precision", "average_precision_3"]


def draw_labels(seed, n=40):
    """Three labels of which an example has any number, and one that is rare; logits with ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, CLASSES)) < [0.5, 0.3, 0.7, 0.1]).astype(np.float32)
    logits = np.round(rng.normal(size=labels.shape) + 2 * labels - 1, 1)
    return {"logits": logits.astype(np.float32), "labels": labels, "loss": rng.random(n)}


def compute_expected(name, records, w):
    labels, logits = records["labels"], records["logits"]
    chosen = logits > 0
    if name == "accuracy":
        return sk.accuracy_score(labels, chosen, sample_weight=w)
    kind, _, which = name.rpartition("_") if name[-1].isdigit() else (name, "", "")
    if kind in ("auroc", "average_precision"):
        score = {"auroc": sk.roc_auc_score, "average_precision": sk.average_precision_score}[kind]
        columns = slice(None) if not which else [int(which)]
        return score(labels[:, columns], logits[:, columns], average="macro", sample_weight=w)
    kind, _, which = name.partition("_")
    score = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[kind]
    if which.isdigit():
        found = score(labels, chosen, average=None, sample_weight=w, zero_division=0)
        return found[int(which)]
    return score(labels, chosen, average=which, sample_weight=w, zero_division=0)


@pytest.mark.parametrize("name", NAMES)
def test_as_scikit_learn(name):
    records = draw_labels(1)
    weights = draw_weights(2)
    values = only(name, records)(records, weights)
    for value, w in zip(values, weights, strict=True):
        assert value == pytest.approx(compute_expected(name, records, w), abs=1e-12)
    metric, every = only(name, records), np.ones((1, 40))
    if isinstance(metric, Additive):
        whole, order = metric.value(records), np.random.default_rng(0).permutation(40)
        moved = {key: values[order] for key, values in records.items()}
        assert metric(moved, every)[0] == pytest.approx(whole, abs=1e-12)
    interval = bootstrap(metric, records, samples=50)
    assert interval.low <= interval.value <= interval.high
    assert np.isnan(metric(records, 0 * every)[0])


def test_labels_that_nobody_has_or_predicts():
    records = draw_labels(3)
    records["labels"][:, 3], records["logits"][:, 3] = 0, -1.0
    chosen = records["logits"] > 0
    for average in ("macro", "micro"):
        expected = sk.f1_score(records["labels"], chosen, average=average, zero_division=0)
        assert only(f"f1_{average}", records).value(records) == pytest.approx(expected, abs=1e-12)
    rest = {**records, "labels": records["labels"][:, :3], "logits": records["logits"][:, :3]}
    for name in ("auroc", "average_precision"):  # it has no curve
        assert only(name, records).value(records) == only(name, rest).value(rest)
        assert np.isnan(only(f"{name}_3", records).value(records))


def test_what_is_told_by_default_and_what_is_not_there():
    records = draw_labels(0)
    told = [metric.name for metric in find_metrics(records)]
    assert told[:2] == ["loss", "accuracy"]
    assert {"f1_macro", "f1_micro", "auroc", "average_precision"} <= set(told)
    assert not {"top5", "matthews", "calibration_error", "f1"} & set(told)
    with pytest.raises(UserError, match="did you mean 'f1_macro'"):
        only("f1", records).value(records)
    with pytest.raises(UserError, match="the classes are 0 to 3"):
        only("f1_9", records).value(records)
    with pytest.raises(UserError, match="metric 'matthews' needs logits and label"):
        find_metrics(records, ["matthews"])
