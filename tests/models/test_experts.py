"""A mixture of experts against NumPy: dropless, with a capacity, its imbalance; in a decoder."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.models.experts import MixtureOfExperts, find_imbalance
from zoo.models.flops import count_flops
from zoo.tree import stack_layers

EXPERTS = MixtureOfExperts(4, 2, 6)
X = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)


def make_params(model, *inputs):
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda x: jnp.asarray(0.7 * random.normal(size=x.shape), x.dtype), shapes)


PARAMS = make_params(EXPERTS, X)


def mix_by_hand(capacity):
    """First choices of a row take their places, token by token, then the second ones."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
    kernels = {name: p["experts"][name]["kernel"] for name in ("gate", "fc1", "fc2")}
    out = np.zeros(X.shape)
    for row, x in enumerate(X.astype(np.float64)):
        logits = x @ p["router"]["kernel"]
        best = np.argsort(-logits, axis=1)[:, :2]
        weights = np.exp(np.take_along_axis(logits, best, 1))
        weights /= weights.sum(1, keepdims=True)
        places = dict.fromkeys(range(4), capacity)
        for choice, token in itertools.product(range(2), range(7)):
            expert = int(best[token, choice])
            if places[expert]:
                places[expert] -= 1
                gate, y = (x[token] @ kernels[name][expert] for name in ("gate", "fc1"))
                y = (gate / (1 + np.exp(-gate)) * y) @ kernels["fc2"][expert]
                out[row, token] += weights[token, choice] * y
    return out


@pytest.mark.parametrize(("factor", "capacity"), [(None, 99), (2.0, 7), (0.8, 3), (0.1, 1)])
def test_by_hand(factor, capacity):
    """7 tokens choose twice among 4: an even share is 3.5."""
    run = jax.jit(EXPERTS.clone(capacity_factor=factor).apply)
    found, _ = run({"params": PARAMS}, X)
    np.testing.assert_allclose(found, mix_by_hand(capacity), atol=1e-5)


def test_gradients_of_both_ways():
    def loss(params, x, factor):
        y, _ = EXPERTS.clone(capacity_factor=factor).apply({"params": params}, x)
        return (y**2).sum()

    both = jax.jit(lambda p, x: [jax.grad(loss, (0, 1))(p, x, factor) for factor in (None, 2.0)])
    sorted_, placed = both(PARAMS, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), sorted_, placed)


def test_imbalance():
    """Even choices give the number of choices; what is padded does not count."""
    even = jnp.log(jnp.eye(4)[None, None] * 0.4 + 0.15)
    assert float(find_imbalance(even, 1, None)) == pytest.approx(1.0)
    router = jnp.concatenate([even, jnp.full((1, 1, 3, 4), 1.0).at[..., 2].set(9.0)], axis=2)
    mask = jnp.arange(7)[None] < 4
    assert float(find_imbalance(router, 1, mask)) == pytest.approx(1.0)
    assert float(find_imbalance(router, 1, None)) > 1.3


def test_operations_are_those_of_the_chosen():
    def run(p, x):
        return EXPERTS.apply({"params": p}, x)[0]

    assert count_flops(run, PARAMS, X) == 2 * 14 * (5 * 4 + 2 * 3 * 5 * 6)


def test_a_decoder_with_experts():
    """Scanned equals unrolled, with a cache as without; refusals."""
    model = zoo.create_model(
        "mixtral_8x7b", width=16, depth=2, num_heads=4, num_kv_heads=2, hidden=8, vocab_size=50
    ).clone(num_positions=16, num_experts=4)
    tokens = jax.random.randint(jax.random.key(0), (2, 8), 0, 50)
    params = make_params(model, tokens)
    expected, aux = jax.jit(model.apply)({"params": params}, tokens)
    assert aux["router"].shape == (2, 2, 8, 4)
    scanned, own = model.clone(scan_layers=True), {"params": stack_layers(params)}
    step = jax.jit(scanned.apply)
    found, own_aux = step(own, tokens)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert float(own_aux["imbalance"]) == pytest.approx(float(aux["imbalance"]), rel=1e-5)
    cache, parts = scanned.init_cache(2, 8), []
    for a, b in ((0, 5), (5, 8)):
        logits, aux = step(own, tokens[:, a:b], cache=cache)
        cache = aux["cache"]
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), expected, atol=2e-5)
    with pytest.raises(UserError, match="no token can have 5 of 4 experts"):
        zoo.init_params(model.clone(experts_per_token=5))
