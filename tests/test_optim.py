"""Each chain against the Optax call written by hand, and the decoupled decay against arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.config import OptimConfig, UserError
from zoo.optim import make_optimizer, make_schedule

PARAMS = {"fc": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([1.0, 1.0])}}
MASK = {"fc": {"kernel": True, "bias": False}}
GRADS = [jax.tree.map(lambda p, s=s: jnp.cos(p * s), PARAMS) for s in range(1, 6)]


def run(optimizer, params=PARAMS):
    state = optimizer.init(params)
    for gradient in GRADS:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OptimConfig("sgd", 0.1), optax.sgd(0.1)),
        (
            OptimConfig("sgd", 0.1, {"momentum": 0.9, "nesterov": True}),
            optax.sgd(0.1, momentum=0.9, nesterov=True),
        ),
        (OptimConfig("adam", 0.01, {"b2": 0.95}), optax.adam(0.01, b2=0.95)),
        (OptimConfig("adamw", 0.01), optax.adam(0.01)),
        (
            OptimConfig("adamw", 0.01, weight_decay=0.3),
            optax.adamw(0.01, weight_decay=0.3, mask=MASK),
        ),
        (
            OptimConfig("adam", 0.01, weight_decay=0.3),
            optax.adamw(0.01, weight_decay=0.3, mask=MASK),
        ),
        (
            OptimConfig("sgd", 0.1, clip_norm=0.5),
            optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
        ),
        (
            OptimConfig("adam", 0.1, schedule="cosine", warmup_steps=2),
            optax.adam(optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 5)),
        ),
    ],
    ids=lambda x: repr(x)[:40],
)
def test_equals_optax(config, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        run(make_optimizer(config, num_steps=5)),
        run(expected),
    )


def test_decoupled_decay_by_hand():
    """SGD with decay: p - lr * (g + wd * p), the bias left alone."""
    got = run(make_optimizer(OptimConfig("sgd", 0.1, weight_decay=0.5), 5))
    kernel, bias = np.asarray(PARAMS["fc"]["kernel"]), np.asarray(PARAMS["fc"]["bias"])
    for gradient in GRADS:
        kernel = kernel - 0.1 * (np.asarray(gradient["fc"]["kernel"]) + 0.5 * kernel)
        bias = bias - 0.1 * np.asarray(gradient["fc"]["bias"])
    np.testing.assert_allclose(got["fc"]["kernel"], kernel, rtol=1e-5)
    np.testing.assert_allclose(got["fc"]["bias"], bias, rtol=1e-5)


def test_penalties_are_gradients_of_the_penalty():
    config = OptimConfig("sgd", 1.0, l1=0.2, l2=0.3)
    optimizer = make_optimizer(config, 5)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zero, optimizer.init(PARAMS), PARAMS)

    def penalty(params):
        w = params["fc"]["kernel"]
        return 0.2 * jnp.abs(w).sum() + 0.15 * (w**2).sum()

    expected = jax.tree.map(lambda g: -g, jax.grad(penalty)(PARAMS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


def test_schedules_at_their_corners():
    def at(step, **fields):
        return float(make_schedule(OptimConfig(learning_rate=2.0, **fields), 100)(step))

    assert at(77) == 2.0
    assert at(5, warmup_steps=10) == 1.0
    assert at(10, warmup_steps=10, schedule="linear") == 2.0
    assert at(55, warmup_steps=10, schedule="linear") == pytest.approx(1.0)
    assert at(100, schedule="cosine", schedule_arguments={"final": 0.1}) == pytest.approx(0.2)
    assert at(50, schedule="cosine") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimConfig("adamm"), "optim.name='adamm' is unknown .did you mean 'adam"),
        (OptimConfig("adam", arguments={"beta1": 0.9}), "optim.arguments.beta1 is unknown"),
        (OptimConfig(schedule="cosin"), "did you mean 'cosine'"),
        (OptimConfig(schedule="cosine", schedule_arguments={"finl": 1}), "did you mean 'final'"),
        (OptimConfig("adamw", arguments={"weight_decay": 1}), "set optim.weight_decay"),
    ],
)
def test_mistakes(config, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(config, 5)


def test_a_decay_pattern_that_matches_nothing():
    optimizer = make_optimizer(OptimConfig(weight_decay=0.1, decay_pattern="kernle"), 5)
    with pytest.raises(UserError, match="'kernle' matches no parameter"):
        optimizer.init(PARAMS)
