import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.models.attention import Attention, attend, attention_weights, choose_attend
from zoo.models.layers import ACTIVATIONS, sincos_positions


def make_qkv(b=2, t=5, s=7, n=3, h=4):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(b, t, n, h), (b, s, n, h), (b, s, n, h)]
    return [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]


def test_attention_equals_jax_own():
    q, k, v = make_qkv()
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (2, 1, 5, 7)).at[..., 0].set(True)
    for given in (None, mask):
        expected = jax.nn.dot_product_attention(q, k, v, mask=given)
        np.testing.assert_allclose(attend(q, k, v, given), expected, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [None, (2, 1, 1, 5), (2, 1, 5, 5), (1, 1, 5, 5)], ids=str)
def test_the_attention_of_every_platform_is_one_function(causal, shape):
    q, k, v = make_qkv(s=5)
    mask = None
    if shape:
        mask = jax.random.bernoulli(jax.random.key(1), 0.6, shape).at[..., 0].set(True)
    plain, fused = (choose_attend(platform) for platform in ("cpu", "gpu"))
    assert plain is not fused

    def squares(attend):
        return lambda q, k, v: (attend(q, k, v, mask, causal) ** 2).sum()

    for function in (plain, fused):
        expected = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
        np.testing.assert_allclose(function(q, k, v, mask, causal), expected, atol=1e-6)
    grads = [jax.grad(squares(f), argnums=(0, 1, 2))(q, k, v) for f in (plain, fused)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *grads)


def test_attention_weights_sum_to_one_and_respect_the_mask():
    q, k, _ = make_qkv()
    mask = jnp.ones((2, 1, 1, 7), bool).at[..., 4:].set(False)
    weights = attention_weights(q, k, mask)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    assert not weights[..., 4:].any()


def test_aux_weights_are_free_under_jit_when_nobody_asks():
    """XLA drops the second softmax: the program of the outputs alone has one exponential."""
    x = jnp.ones((2, 5, 8))

    def fused(q, k, v, *rest):  # an attention part that shows no weights
        return jax.nn.dot_product_attention(q, k, v, implementation="xla")

    model = Attention(2, attend=fused)
    params = model.init(jax.random.key(0), x)
    both = jax.jit(lambda p: model.apply(p, x)).lower(params).compile().as_text()
    alone = jax.jit(lambda p: model.apply(p, x)[0]).lower(params).compile().as_text()
    assert 0 < alone.count(" exponential(") < both.count(" exponential(")


def test_activations_by_hand():
    x = np.linspace(-3, 3, 31)
    erf = np.vectorize(__import__("math").erf)
    by_hand = {
        "sigmoid": 1 / (1 + np.exp(-x)),
        "tanh": np.tanh(x),
        "relu": np.maximum(x, 0),
        "gelu": x * (1 + erf(x / np.sqrt(2))) / 2,
        "gelu_tanh": x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
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
