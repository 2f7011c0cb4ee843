"""Activations and fixed positions by hand."""

import math

import numpy as np
import pytest

from zoo.models.layers import ACTIVATIONS, sincos_positions


def test_activations_by_hand():
    x = np.linspace(-3, 3, 31)
    erf = np.vectorize(math.erf)
    by_hand = {
        "sigmoid": 1 / (1 + np.exp(-x)),
        "tanh": np.tanh(x),
        "relu": np.maximum(x, 0),
        "gelu": x * (1 + erf(x / np.sqrt(2))) / 2,
        "gelu_tanh": x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "gelu_quick": x / (1 + np.exp(-1.702 * x)),
        "silu": x / (1 + np.exp(-x)),
    }
    assert by_hand.keys() == ACTIVATIONS.keys()
    for name, expected in by_hand.items():
        np.testing.assert_allclose(ACTIVATIONS[name](x), expected, atol=2e-6, err_msg=name)


def test_sincos_positions_by_hand():
    grid = sincos_positions(2, 3, 8)
    assert grid.shape == (6, 8)
    y, x = 1, 2
    expected = [np.sin(x), np.sin(x / 1e4), np.cos(x), np.cos(x / 1e4)]
    expected += [np.sin(y), np.sin(y / 1e4), np.cos(y), np.cos(y / 1e4)]
    np.testing.assert_allclose(grid[y * 3 + x], expected, atol=1e-6)
    with pytest.raises(ValueError, match="divisible by 4"):
        sincos_positions(2, 2, 6)
