"""Scaled rotary positions against arithmetic written out in NumPy, and as a field of a model."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.models.rotary import RotaryScaling, rotary_angles
from zoo.pretrained.describe import describe_model, model_of

PLACES = jnp.arange(40)[None]
RATES = 100.0 ** (-np.arange(4) / 4)


def make_rates(scaling, places=PLACES):
    """The rates of a head of 8 by the angles at place 1, and the magnitude."""
    cos, sin = jax.jit(lambda x: rotary_angles(x, 8, 100.0, scaling))(places)
    return np.arctan2(sin, cos)[0, 1, :4], np.hypot(cos, sin)


def test_linear_and_dynamic():
    np.testing.assert_allclose(make_rates(RotaryScaling("linear", 4.0))[0], RATES / 4, rtol=1e-5)
    scaling = RotaryScaling("dynamic", 2.0, 16)
    base = 100.0 * (2.0 * 40 / 16 - 1) ** (8 / 6)
    np.testing.assert_allclose(make_rates(scaling)[0], base ** (-np.arange(4) / 4), rtol=1e-5)
    np.testing.assert_allclose(make_rates(scaling, PLACES[:, :16])[0], RATES, rtol=1e-5)


def test_llama3_blends_by_turns():
    rates, magnitudes = make_rates(RotaryScaling("llama3", 8.0, 64, slow=1.0, fast=4.0))
    turns = 64 * RATES / (2 * np.pi)  # 10.2, 3.2, 1.02, 0.3
    kept = np.array([1, (turns[1] - 1) / 3, (turns[2] - 1) / 3, 0])
    np.testing.assert_allclose(rates, RATES * kept + RATES / 8 * (1 - kept), rtol=1e-5)
    np.testing.assert_allclose(magnitudes, 1, rtol=1e-6)


def test_yarn_blends_by_components():
    scaling = RotaryScaling("yarn", 8.0, 64, slow=1.0, fast=4.0, magnitude=1.5)
    rates, magnitudes = make_rates(scaling)
    # 4 turns are made by component 0.81, one by 2.02.
    kept = 1 - np.clip(np.arange(4) / 3, 0, 1)
    np.testing.assert_allclose(rates, RATES * kept + RATES / 8 * (1 - kept), rtol=1e-5)
    np.testing.assert_allclose(magnitudes, 1.5, rtol=1e-6)


def test_a_field_of_values():
    """From a command line and through zoo.json."""
    words = "{'kind': 'llama3', 'factor': 8, 'length': 8192, 'fast': 4}"
    model = zoo.create_model("llama3_8b", rotary_scaling=words, num_positions=131072)
    assert model.rotary_scaling == zoo.create_model("llama3.1_8b").rotary_scaling
    small = model.clone(width=16, depth=1, num_heads=2, num_kv_heads=1, hidden=8, vocab_size=9)
    assert model_of(json.loads(json.dumps(describe_model(small))), "here") == small


@pytest.mark.parametrize(
    "value", [{"kind": "linear"}, {"kind": "linear", "factor": 2, "faktor": 3}, {"factor": 2}]
)
def test_values_that_make_none(value):
    with pytest.raises(UserError, match="rotary_scaling"):
        zoo.create_model("llama3_8b", rotary_scaling=value)
    with pytest.raises(UserError, match="needs a factor and a length"):
        RotaryScaling("yarn", 2.0)
