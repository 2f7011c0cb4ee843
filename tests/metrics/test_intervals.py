"""Bootstrap intervals against scipy and simulation, paired tests against enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from zoo.config import UserError
from zoo.metrics import bootstrap, bootstrap_all, compare, find_metrics, intervals


def draw_classes(seed, n=12, skill=1.0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    logits = rng.normal(size=(n, 2)) + skill * np.eye(2)[label]
    return {"logits": logits.astype(np.float32), "label": label, "loss": rng.random(n)}


def only(name, records):
    (metric,) = find_metrics(records, [name])
    return metric


def test_interval_as_scipy():
    records = {"loss": np.random.default_rng(0).gamma(2.0, size=60)}
    ours = bootstrap(only("loss", records), records, samples=4000)
    theirs = stats.bootstrap(
        (records["loss"],), np.mean, n_resamples=4000, method="percentile", rng=1
    )
    within = 0.2 * theirs.standard_error
    assert ours.value == pytest.approx(records["loss"].mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=within)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=within)
    narrow = bootstrap(only("loss", records), records, samples=4000, level=0.5)
    assert ours.low < narrow.low < narrow.value < narrow.high < ours.high


def test_interval_covers_the_truth():
    """Of 200 samples of 100 draws, about 95 % of intervals hold the probability."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        records = {"loss": (rng.random(100) < 0.7) * 1.0}
        interval = bootstrap(only("loss", records), records, samples=250)
        held += interval.low <= 0.7 <= interval.high
    assert 0.90 < held / 200 < 0.98


def test_blocks_and_company_change_nothing(monkeypatch):
    records = draw_classes(2, n=40)
    metrics = find_metrics(records)
    before = bootstrap_all(metrics, records, samples=50)
    assert before == [bootstrap(metric, records, samples=50) for metric in metrics]
    other = {k: v[::-1] for k, v in records.items()}
    compared = compare(metrics[0], records, other, samples=50)
    monkeypatch.setattr(intervals, "_BLOCK", 100)
    again = bootstrap_all(metrics, records, samples=50)
    for one, two in zip(before, again, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))
    assert compare(metrics[0], records, other, samples=50).p_value == compared.p_value


@pytest.mark.parametrize("name", ["accuracy", "auroc", "loss"])
def test_every_swap_of_few_examples(name):
    """The p-value of all 2^8 swaps, made with whole records."""
    a, b = draw_classes(3, n=8, skill=0.2), draw_classes(4, n=8, skill=1.5)
    metric = only(name, a)
    observed = metric.value(b) - metric.value(a)
    as_large = []
    for swap in itertools.product([False, True], repeat=8):
        moved = [
            {k: np.where(np.reshape(swap, (8,) + (1,) * (a[k].ndim - 1)), y[k], x[k]) for k in a}
            for x, y in ((a, b), (b, a))
        ]
        difference = metric.value(moved[1]) - metric.value(moved[0])
        as_large.append(abs(difference) >= abs(observed) - 1e-9)
    found = compare(metric, a, b)
    assert found.p_value == pytest.approx(np.mean(as_large))
    assert found.difference == pytest.approx(observed)
    assert (found.a, found.b) == (pytest.approx(metric.value(a)), pytest.approx(metric.value(b)))
    assert found.low <= found.difference <= found.high
    sampled = compare(metric, a, b, samples=200)  # too few for all swaps
    assert sampled.p_value == pytest.approx(found.p_value, abs=0.12)
    assert sampled.p_value != found.p_value


def test_no_difference_is_as_likely_as_any():
    """Of pairs alike, p-values are about uniform; of a better run they are small."""
    alike = []
    for seed in range(120):
        a, b = draw_classes(2 * seed, n=30), draw_classes(2 * seed + 1, n=30)
        alike.append(compare(only("loss", a), a, b, samples=99).p_value)
    assert stats.kstest(alike, "uniform").pvalue > 0.01
    assert min(alike) >= 0.01  # never 0: the observed swap is one of them
    better = compare(only("accuracy", a), a, draw_classes(9, n=30, skill=5.0))
    assert better.p_value < 0.05
    assert better.low > 0


def test_a_run_against_itself():
    records = draw_classes(5, n=30)
    for metric in find_metrics(records):
        same = compare(metric, records, dict(records), samples=50)
        assert (same.difference, same.p_value) == (0.0, 1.0), metric
        assert (same.low, same.high) == pytest.approx((0.0, 0.0), abs=1e-12), metric


def test_resamplings_without_a_value_are_left_out():
    records = draw_classes(6, n=2)  # half of the resamplings have one class only
    interval = bootstrap(only("auroc", records), records, samples=50)
    assert np.isfinite([interval.low, interval.high]).all()
    one = {k: v[:1] for k, v in records.items()}
    interval = bootstrap(only("auroc", one), one, samples=5)
    assert np.isnan([interval.value, interval.low, interval.high]).all()
    assert np.isnan(compare(only("auroc", one), one, one, samples=5).p_value)


def test_mistakes():
    a = draw_classes(7)
    metric = only("accuracy", a)
    with pytest.raises(UserError, match="no examples"):
        bootstrap(metric, {k: v[:0] for k, v in a.items()})
    with pytest.raises(UserError, match="the same examples: 12 are not 5"):
        compare(metric, a, {k: v[:5] for k, v in a.items()})
    wide = a | {"logits": np.zeros((12, 3))}
    with pytest.raises(UserError, match=r"logits of A is \[2\], of B \[3\]"):
        compare(metric, a, wide)
