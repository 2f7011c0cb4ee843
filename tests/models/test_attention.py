"""Attention against NumPy: both parts, grouped heads; rotary and relative positions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.config import UserError
from zoo.models.attention import (
    Attention,
    RelativePositions,
    attend,
    attention_weights,
    relative_buckets,
)
from zoo.models.kernels import attend_fused
from zoo.models.rotary import rotary_angles, rotate


def make_qkv(b=2, t=5, s=5, n=6, k=6, h=4):
    random = np.random.default_rng(0)
    shapes = [(b, t, n, h), (b, s, k, h), (b, s, k, h)]
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def make_mask(*shape):
    """Random, but every query may look at the first key."""
    return jnp.asarray(np.random.default_rng(1).random(shape) < 0.6).at[..., 0].set(True)


BIAS = np.random.default_rng(2).normal(size=(1, 6, 5, 5)).astype(np.float32)


def attend_by_hand(q, k, v, mask=None, causal=False, bias=None, scale=None, cap=None):
    """One query head of one row at a time, in float64."""
    b, t, n, h = q.shape
    s, num_kv_heads = k.shape[1:3]
    allowed = np.ones((b, 1, t, s), bool) if mask is None else np.broadcast_to(mask, (b, 1, t, s))
    out = np.zeros(q.shape)
    for row, head in itertools.product(range(b), range(n)):
        kv_head = head // (n // num_kv_heads)
        scores = q[row, :, head].astype(np.float64) @ k[row, :, kv_head].T
        scores *= 1 / np.sqrt(h) if scale is None else scale
        scores = scores if cap is None else cap * np.tanh(scores / cap)
        if bias is not None:
            scores += bias[0, head]
        scores[~allowed[row, 0]] = -np.inf
        if causal:
            scores[np.triu_indices(t, 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[row, :, head] = weights / weights.sum(-1, keepdims=True) @ v[row, :, kv_head]
    return out


GIVEN = {
    "nothing": {},
    "mask of keys": {"mask": make_mask(2, 1, 1, 5)},
    "mask of pairs": {"mask": make_mask(2, 1, 5, 5)},
    "mask of no row": {"mask": make_mask(1, 1, 5, 5)},
    "causal": {"causal": True},
    "bias": {"bias": BIAS},
    "scale": {"scale": 1.0},
    "cap": {"cap": 0.5},
    "all": {"mask": make_mask(2, 1, 1, 5), "causal": True, "bias": BIAS, "scale": 0.7, "cap": 2.0},
}


@pytest.mark.parametrize(
    ("given", "num_kv_heads"),
    [*((name, 2) for name in GIVEN), ("nothing", 6), ("all", 1), ("all", 6)],
)
def test_both_parts_by_hand(given, num_kv_heads):
    q, k, v = make_qkv(k=num_kv_heads)
    given = GIVEN[given]
    expected = attend_by_hand(q, k, v, **given)
    settings = {name: given[name] for name in ("causal", "scale", "cap") if name in given}
    arrays = {name: given[name] for name in ("mask", "bias") if name in given}
    floats = {"q": q, "k": k, "v": v, **({"bias": BIAS} if "bias" in given else {})}

    def loss(floats, part):
        out = part(**{**arrays, **floats}, **settings)
        return (out**2).sum(), out

    @jax.jit
    def run(floats):
        return [jax.grad(loss, has_aux=True)(floats, part) for part in (attend, attend_fused)]

    (plain_grads, plain), (fused_grads, fused) = run(floats)
    np.testing.assert_allclose(plain, expected, atol=2e-6)
    np.testing.assert_allclose(fused, expected, atol=2e-6)
    for name, grad in plain_grads.items():
        np.testing.assert_allclose(grad, fused_grads[name], atol=2e-5, err_msg=name)


def test_grouped_heads_are_repeated_ones():
    q, k, v = make_qkv(s=7, k=2)
    mask = make_mask(2, 1, 5, 7)
    repeated = [np.repeat(x, 3, axis=2) for x in (k, v)]

    @jax.jit
    def run(q, k, v, all_k, all_v):
        own = jax.nn.dot_product_attention(q, k, v, mask=mask)
        return own, attend(q, k, v, mask), attend(q, all_k, all_v, mask)

    own, grouped, plain = run(q, k, v, *repeated)
    np.testing.assert_allclose(grouped, plain, atol=1e-6)
    np.testing.assert_allclose(grouped, own, atol=1e-6)


def test_attention_weights_sum_to_one_and_respect_the_mask():
    q, k, _ = make_qkv(s=7, k=2)
    mask = np.ones((2, 1, 1, 7), bool)
    mask[..., 4:] = False
    weights = jax.jit(attention_weights)(q, k, mask)
    assert weights.shape == (2, 6, 5, 7)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    assert not weights[..., 4:].any()


def test_aux_weights_are_free_under_jit_when_nobody_asks():
    """XLA drops the second softmax: the program of the outputs alone has one exponential."""
    x = jnp.ones((2, 5, 8))

    def fused(q, k, v, *rest):  # an attention part that shows no weights
        return jax.nn.dot_product_attention(q, k, v, implementation="xla")

    model = Attention(2, attend=fused)
    params = jax.jit(model.init)(jax.random.key(0), x)
    both = jax.jit(lambda p: model.apply(p, x)).lower(params).compile().as_text()
    alone = jax.jit(lambda p: model.apply(p, x)[0]).lower(params).compile().as_text()
    assert 0 < alone.count(" exponential(") < both.count(" exponential(")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 3}, "width of 16 does not divide into 3 heads"),
        ({"num_heads": 4, "num_kv_heads": 3}, "4 heads cannot share 3 key/value heads"),
    ],
    ids=str,
)
def test_heads_that_do_not_divide(fields, message):
    """Else a `reshape` would mix heads and tokens in silence."""
    with pytest.raises(UserError, match=message):
        jax.eval_shape(Attention(**fields).init, jax.random.key(0), jnp.ones((1, 6, 16)))


POSITIONS = jnp.array([[0, 1, 2, 3, 4], [7, 3, 40, 0, 11]])


def test_rotary_is_a_complex_product():
    x = make_qkv(h=8)[0]
    turned = jax.jit(lambda x: rotate(x, *rotary_angles(POSITIONS, 8, 500.0)))(x)
    rates = 500.0 ** (-2 * np.arange(4) / 8)
    unit = np.exp(1j * np.asarray(POSITIONS)[..., None] * rates)[:, :, None]
    expected = (x[..., :4] + 1j * x[..., 4:]) * unit
    np.testing.assert_allclose(
        turned, np.concatenate([expected.real, expected.imag], -1), atol=1e-5
    )


def test_rotary_scores_depend_on_distances_alone():
    q, k, _ = make_qkv(h=8)

    @jax.jit
    def scores(q, k, shift):
        angles = rotary_angles(POSITIONS + shift, 8, 10_000.0)
        return jnp.einsum("btnh,bsnh->bnts", rotate(q, *angles), rotate(k, *angles))

    here, there = scores(q, k, 0), scores(q, k, 100)
    np.testing.assert_allclose(here, there, atol=1e-4)
    unturned = np.einsum("btnh,bsnh->bnts", q, k)
    np.testing.assert_allclose(
        here.diagonal(axis1=2, axis2=3), unturned.diagonal(axis1=2, axis2=3), atol=1e-5
    )
    assert np.abs(here - unturned).max() > 1


def test_rotary_with_a_cache():
    """Keys lie in the cache as they were turned: a step sees what the whole sequence sees."""
    model = Attention(4, num_kv_heads=2, causal=True)
    x = jax.random.normal(jax.random.key(0), (2, 6, 16))
    params = jax.jit(model.init)(jax.random.key(1), x)

    def angles(places):
        return rotary_angles(jnp.broadcast_to(places, (2, len(places))), 4, 100.0)

    whole, _ = jax.jit(lambda: model.apply(params, x, rotary=angles(jnp.arange(6))))()

    @jax.jit
    def step(x, cache, start):
        mask = (jnp.arange(8) <= start)[None, None, None]
        rotary = angles(start + jnp.arange(1))
        out, aux = model.apply(params, x, mask=mask, rotary=rotary, cache=cache, start=start)
        return out, aux["cache"]

    cache, parts = model.init_cache(2, 8, 16), []
    assert cache["k"].shape == (2, 2, 8, 4)
    for i in range(6):
        out, cache = step(x[:, i : i + 1], cache, i)
        parts.append(out)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def find_bucket(distance, num_buckets, max_distance, both_ways):
    """T5's rule in integers: the k-th far bucket begins at exact * (max / exact) ** (k / steps)."""
    offset = 0
    if both_ways:
        num_buckets //= 2
        offset = num_buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = num_buckets // 2
    steps = num_buckets - exact
    if distance < exact:
        return offset + distance
    begun = (distance**steps * exact**k >= max_distance**k * exact**steps for k in range(1, steps))
    return offset + exact + sum(begun)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("sizes", [(32, 128), (8, 10)], ids=str)
def test_relative_buckets(sizes, both_ways):
    distances = np.arange(-300, 301)
    expected = [find_bucket(int(d), *sizes, both_ways) for d in distances]
    assert set(expected) == set(range(sizes[0])) - ({sizes[0] // 2} if both_ways else set())
    find = jax.jit(lambda d: relative_buckets(d, *sizes, both_ways))
    np.testing.assert_array_equal(find(distances[None])[0], expected)


def test_relative_positions_are_a_table():
    module = RelativePositions(3, 32, 128, both_ways=True)
    table = jax.random.normal(jax.random.key(0), (32, 3))
    queries, keys = jnp.array([4, 90]), jnp.array([0, 4, 5, 200])
    bias = module.apply({"params": {"embedding": table}}, queries, keys)
    assert bias.shape == (1, 3, 2, 4)
    for i, j in np.ndindex(2, 4):
        bucket = find_bucket(int(keys[j] - queries[i]), 32, 128, True)
        np.testing.assert_array_equal(bias[0, :, i, j], table[bucket])
