"""Weights of rows, and a metric by its name: what the tests of metrics share."""

import numpy as np

from zoo.metrics import find_metrics


def draw_weights(seed, n=40):
    """The unit weights, fractions, counts with zeros, and a part."""
    rng = np.random.default_rng(seed)
    return np.stack([np.ones(n), rng.random(n), rng.integers(0, 4, n), rng.integers(0, 2, n)]) * 1.0


def only(name, records):
    (metric,) = find_metrics(records, [name])
    return metric
