"""The chain and the schedules against Optax calls and formulas written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.config import OptimConfig, TrainConfig, UserError
from zoo.optim import SCHEDULES, check_steps, make_optimizer, make_schedule

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


def rates(num_steps, **fields):
    """The rate of each step, by the jitted schedule."""
    schedule = make_schedule(OptimConfig(learning_rate=2.0, **fields), num_steps)
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(num_steps)))


STEPS = np.arange(100)
WARMUP = np.minimum(STEPS / 10, 1)


def vmap(schedule):
    return np.asarray(jax.vmap(schedule)(STEPS))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, vmap(optax.constant_schedule(2.0))),
        ({"warmup_steps": 10}, 2 * WARMUP),
        ({"schedule": "linear"}, vmap(optax.linear_schedule(2.0, 0.0, 100))),
        (
            {"schedule": "cosine", "warmup_steps": 10, "schedule_arguments": {"final": 0.1}},
            vmap(optax.warmup_cosine_decay_schedule(0.0, 2.0, 10, 100, end_value=0.2)),
        ),
        (
            {"schedule": "step", "schedule_arguments": {"boundaries": [30, 60], "factor": 0.5}},
            vmap(optax.piecewise_constant_schedule(2.0, {30: 0.5, 60: 0.5})),
        ),
        (  # counted from the start of training, warm-up included
            {"schedule": "step", "warmup_steps": 10, "schedule_arguments": {"boundaries": (30,)}},
            WARMUP * vmap(optax.piecewise_constant_schedule(2.0, {30: 0.1})),
        ),
        (
            {"schedule": "step", "warmup_steps": 10, "schedule_arguments": {"every": 25}},
            WARMUP * vmap(optax.exponential_decay(2.0, 25, 0.1, staircase=True)),
        ),
        (  # Vaswani et al., equation 3, its peak where the two arms meet
            {"schedule": "inverse_square_root", "warmup_steps": 10},
            2 * 10**0.5 * np.minimum(np.maximum(STEPS, 1e-9) ** -0.5, STEPS * 10**-1.5),
        ),
        (  # T5: 1 / sqrt(max(n, k))
            {"schedule": "inverse_square_root", "schedule_arguments": {"constant_steps": 16}},
            2 * 4 / np.sqrt(np.maximum(STEPS, 16)),
        ),
        (
            {
                "schedule": "warmup_stable_decay",
                "warmup_steps": 10,
                "schedule_arguments": {"decay_fraction": 0.5, "final": 0.1},
            },
            vmap(
                optax.join_schedules(
                    [
                        optax.linear_schedule(0.0, 2.0, 10),
                        optax.constant_schedule(2.0),
                        optax.linear_schedule(2.0, 0.2, 45),
                    ],
                    [10, 55],
                )
            ),
        ),
        (  # Howard & Ruder, equation 3
            {"schedule": "slanted_triangular"},
            2
            * (1 + 31 * np.where(STEPS < 10, STEPS / 10, 1 - (STEPS - 10) / (10 * (10 - 1))))
            / 32,
        ),
    ],
    ids=lambda x: repr(x)[:60],
)
def test_each_schedule(fields, expected):
    np.testing.assert_allclose(rates(100, **fields), expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 105])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_schedule_leaves_zero_to_the_peak(schedule, num_steps):
    arguments = {"step": {"every": 3}, "inverse_square_root": {"constant_steps": 2}}
    fields = {"schedule": schedule, "schedule_arguments": arguments.get(schedule, {})}
    found = rates(num_steps, **fields)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert found.max() <= 2.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimConfig("adamm"), "optim.name='adamm' is unknown .did you mean 'adam"),
        (OptimConfig("adam", arguments={"beta1": 0.9}), "optim.arguments.beta1 is unknown"),
        (OptimConfig("sign_sgd", arguments={"b1": 0.9}), "b1 is unknown .it takes none"),
        (OptimConfig(schedule="cosin"), "did you mean 'cosine'"),
        (OptimConfig(schedule="cosine", schedule_arguments={"finl": 1}), "did you mean 'final'"),
        (OptimConfig("adamw", arguments={"weight_decay": 1}), "set optim.weight_decay"),
        (OptimConfig("adafactor", arguments={"weight_decay_rate": 1}), "set optim.weight_decay"),
        (OptimConfig("lion", arguments={"mask": 1}), "set optim.decay_pattern"),
        (
            OptimConfig("adam", arguments={"mu_dtype": "bfloat17"}),
            "mu_dtype='bfloat17' is no dtype",
        ),
        (OptimConfig("muon", arguments={"ns_coeffs": "x"}), "optim.name='muon': Unknown ns_coeff"),
        (OptimConfig("lbfgs"), "optim.name='lbfgs' needs the loss function itself .*; choose from"),
        (OptimConfig("momo"), "needs the value of the loss"),
        (OptimConfig("schedule_free"), "choose schedule_free_sgd or schedule_free_adamw"),
        (OptimConfig("rprop", schedule="cosine"), "'rprop' follows no schedule"),
        (OptimConfig("optimistic_adam", warmup_steps=1), "or choose optimistic_adam_v2"),
        (OptimConfig("prodigy"), "finds its own step, optim.learning_rate multiplies it"),
        (OptimConfig("cocob"), "'cocob' has no learning rate: set optim.learning_rate=1.0"),
        (OptimConfig("cocob", 1.0, schedule="linear"), "'cocob' follows no schedule"),
        (OptimConfig("cocob", 1.0, weight_decay=0.1), "optim.weight_decay must be 0"),
        (OptimConfig("schedule_free_sgd", schedule="cosine"), "takes the place of a schedule"),
        (OptimConfig("schedule_free_sgd", ema_decay=0.9), "averages by itself"),
        (OptimConfig("schedule_free_sgd", arguments={"warmup_steps": 3}), "set optim.warmup_steps"),
        (OptimConfig("sam", ema_decay=0.9), "would average SAM's perturbed parameters"),
        (OptimConfig("sam", arguments={"base": "sdg"}), "optim.arguments.base='sdg' is unknown"),
        (OptimConfig("sam", arguments={"base": "sam"}), "base='sam' cannot be under SAM"),
        (OptimConfig("sam", arguments={"rh": 1}), "did you mean 'rho'"),
        (OptimConfig("sam", arguments={"sync_period": 1}), "must be an int of at least 2"),
        (
            OptimConfig("sam", arguments={"base_arguments": {"momentm": 1}}),
            "optim.arguments.base_arguments.momentm is unknown .did you mean 'momentum'",
        ),
        (
            OptimConfig(schedule="linear", schedule_arguments={"final": "x"}),
            "final='x' is not float",
        ),
        (OptimConfig(schedule="step"), "boundaries or every"),
        (
            OptimConfig(schedule="step", warmup_steps=3, schedule_arguments={"every": 3}),
            "must be after optim.warmup_steps=3",
        ),
        (OptimConfig(schedule="inverse_square_root"), "set optim.warmup_steps"),
        (
            OptimConfig(schedule="slanted_triangular", warmup_steps=2),
            "has a rise of its own .cut_fraction.: optim.warmup_steps=2 must be 0",
        ),
        (
            OptimConfig(schedule="slanted_triangular", schedule_arguments={"cut_frac": 0.1}),
            "did you mean 'cut_fraction'",
        ),
        (
            OptimConfig(schedule="warmup_stable_decay", schedule_arguments={"decay_fraction": 0}),
            "decay_fraction=0.0 is not in",
        ),
    ],
    ids=lambda x: repr(x)[:60],
)
def test_mistakes(config, message):
    with pytest.raises(UserError, match=message) as caught:
        make_optimizer(config, 5)
    assert "\n" not in str(caught.value)


def test_sam_ends_and_is_evaluated_where_it_is_not_perturbed():
    config = OptimConfig("sam", arguments={"sync_period": 3})
    check_steps(config, TrainConfig(num_steps=6, eval_every_steps=3))
    for name in ("num_steps", "eval_every_steps"):
        with pytest.raises(UserError, match=f"train.{name}=4 must be a multiple of .*period=3"):
            check_steps(config, TrainConfig(**{"num_steps": 6, name: 4}))


def test_a_decay_pattern_that_matches_nothing():
    optimizer = make_optimizer(OptimConfig(weight_decay=0.1, decay_pattern="kernle"), 5)
    with pytest.raises(UserError, match="'kernle' matches no parameter"):
        optimizer.init(PARAMS)
