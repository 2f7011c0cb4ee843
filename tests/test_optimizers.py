"""Each optimizer of the table against the Optax call written by hand; none is forgotten."""

import dataclasses
import functools
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_config
from jax.sharding import PartitionSpec as P
from optax import contrib

from zoo.config import OptimConfig, TrainConfig, UserError
from zoo.optim import OPTIMIZERS, REFUSED, choose_eval_params, make_optimizer
from zoo.parallel import place_batch
from zoo.parallel.rules import like_params
from zoo.train import fit
from zoo.train.build import build
from zoo.tree import named_leaves, stack_layers, unstack_layers

NAMES = sorted([*OPTIMIZERS, "sam"])
RATE, DECAY, NUM_STEPS = 0.05, 0.3, 6
PARAMS = {
    "fc": {"kernel": jnp.cos(jnp.arange(12.0)).reshape(4, 3), "bias": jnp.array([1.0, -1.0, 2.0])},
    "head": {"kernel": jnp.sin(jnp.arange(6.0)).reshape(3, 2)},
}
MASK = {"fc": {"kernel": True, "bias": False}, "head": {"kernel": True}}
HIDDEN = {"fc": {"kernel": contrib.MuonDimensionNumbers(0, 1), "bias": None}}
HIDDEN["head"] = {"kernel": None}


def assert_close(a, b, tolerance=1e-5):
    a, b = named_leaves(a), named_leaves(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=tolerance, atol=1e-7, err_msg=path)


def run(optimizer, params=PARAMS, num_steps=NUM_STEPS):
    """Parameters and state after a few steps of made-up gradients that depend on the parameters."""
    state = optimizer.init(params)
    # Muon has loops that would be compiled at every step; the others are quicker outside jit.
    has_muon = isinstance(optax.tree_utils.tree_get(state, "ns_coeffs"), jax.Array)
    update = jax.jit(optimizer.update) if has_muon else optimizer.update
    for index in range(num_steps):
        gradients = jax.tree.map(lambda p, i=index: jnp.sin(3 * p + i) + 0.1 * p, params)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def make(name, **fields):
    return make_optimizer(make_config(name, **fields), NUM_STEPS)


def make_config(name, **fields):
    free = name in OPTIMIZERS and OPTIMIZERS[name].rate in ("factor", "none")
    return OptimConfig(name, fields.pop("learning_rate", 1.0 if free else RATE), **fields)


BY_HAND = {  # where the call is more than `optax.NAME(rate)`
    "noisy_sgd": functools.partial(optax.noisy_sgd, key=0),
    "muon": functools.partial(contrib.muon, muon_weight_dimension_numbers=HIDDEN),
    "galore": functools.partial(
        contrib.galore,
        weight_dimension_numbers={
            "fc": {"kernel": contrib.GaLoreDimensionNumbers(), "bias": None},
            "head": {"kernel": None},
        },
    ),
    "sm3": lambda rate: optax.chain(
        optax.sm3(1.0), optax.scale_by_learning_rate(rate, flip_sign=False)
    ),
    "sam": lambda rate: contrib.sam(
        optax.sgd((lambda n: rate(2 * n + 1)) if callable(rate) else rate),
        optax.chain(contrib.normalize(), optax.sgd(0.05)),
    ),
}


def call_optax(name, rate, **arguments):
    function = BY_HAND.get(name) or getattr(optax, name, None) or getattr(contrib, name)
    if "weight_decay" in inspect.signature(function).parameters:
        arguments = {"weight_decay": 0.0, **arguments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of optimistic_adam
        return function(rate, **arguments)


# Decay by Optax's own argument, which is not the same as decay beside the update.
OWN_DECAY = {
    "lamb": {"mask": MASK},
    "lars": {"weight_decay_mask": MASK},
    "dog": {"mask": MASK},
    "dowg": {"mask": MASK},
    "adamw": {"mask": MASK},
    "lion": {"mask": MASK},
    "galore": {"mask": MASK},
}
NO_MASK = ("schedule_free_sgd", "schedule_free_adamw", "prodigy", "dadapt_adamw")


@pytest.mark.parametrize("name", [*OWN_DECAY, *NO_MASK])
def test_decay_of_their_own(name):
    masked = name in OWN_DECAY
    arguments = {"estim_lr0": 0.1} if name in ("prodigy", "dadapt_adamw") else {}
    config = make_config(
        name,
        weight_decay=DECAY,
        decay_pattern="kernel$" if masked else ".",
        arguments=arguments,
    )
    by_hand = call_optax(
        name, config.learning_rate, weight_decay=DECAY, **OWN_DECAY.get(name, {}), **arguments
    )
    assert_close(run(make_optimizer(config, NUM_STEPS))[0], run(by_hand)[0])


@pytest.mark.parametrize("name", NO_MASK)
def test_a_mask_that_optax_does_not_have(name):
    """One step: kernels as with decay everywhere, the bias as without."""
    arguments = {"estim_lr0": 0.1} if name in ("prodigy", "dadapt_adamw") else {}
    config = make_config(name, weight_decay=DECAY, arguments=arguments)
    rate = config.learning_rate
    got = run(make_optimizer(config, NUM_STEPS), num_steps=1)[0]
    plain = run(call_optax(name, rate, **arguments), num_steps=1)[0]
    decayed = run(call_optax(name, rate, weight_decay=DECAY, **arguments), num_steps=1)[0]
    assert not np.allclose(plain["fc"]["kernel"], decayed["fc"]["kernel"])
    assert_close(got, jax.tree.map(lambda m, a, b: a if m else b, MASK, decayed, plain))


BESIDE = [
    name
    for name, row in OPTIMIZERS.items()
    if row.decay != "none" and name not in {*OWN_DECAY, *NO_MASK, "cocob"} and row.rate != "factor"
]


@pytest.mark.parametrize("name", BESIDE)
def test_decay_beside_the_update_by_hand(name):
    """p - rate(step) * decay * p on the kernels, whatever the optimizer does."""
    config = make_config(name, weight_decay=DECAY)
    rate = config.learning_rate
    if OPTIMIZERS[name].rate == "schedule":
        config = dataclasses.replace(config, schedule="cosine")
        rate = optax.cosine_decay_schedule(rate, NUM_STEPS)
    plain = call_optax(name, rate)

    def update(gradients, state, params):
        count, inner = state
        updates, inner = plain.update(gradients, inner, params)
        now = rate(count) if callable(rate) else rate
        decayed = jax.tree.map(lambda u, p, m: u - m * now * DECAY * p, updates, params, MASK)
        return decayed, (count + 1, inner)

    by_hand = optax.GradientTransformation(lambda p: (jnp.zeros((), int), plain.init(p)), update)
    assert_close(run(make_optimizer(config, NUM_STEPS))[0], run(by_hand)[0])


WITHOUT_DECAY = {*NAMES} - {*BESIDE} | {"adamaxw", "nadamw"}


@pytest.mark.parametrize("name", sorted(WITHOUT_DECAY))
def test_the_others_are_those_of_optax(name):
    """On a cosine where it follows a schedule, without decay: ours decides, not Optax's default."""
    config = make_config(name)
    rate = config.learning_rate
    follows = name == "sam" or OPTIMIZERS[name].rate in ("schedule", "factor")
    if follows:
        config = dataclasses.replace(config, schedule="cosine")
        rate = optax.cosine_decay_schedule(rate, NUM_STEPS)
    assert_close(run(make_optimizer(config, NUM_STEPS))[0], run(call_optax(name, rate))[0])


def test_sm3_at_one_rate_is_that_of_optax():
    assert_close(run(make("sm3"))[0], run(optax.sm3(RATE))[0])


def test_arguments_are_converted():
    """Dtypes by name, lists of JSON, a pattern as a mask."""
    state = run(make("adam", arguments={"mu_dtype": "bfloat16"}))[1]
    assert {x.dtype for p, x in named_leaves(state).items() if "/mu/" in p} == {jnp.bfloat16.dtype}
    assert_close(
        run(make("prodigy", arguments={"betas": [0.8, 0.9], "beta3": None}))[0],
        run(contrib.prodigy(1.0, betas=(0.8, 0.9)))[0],
    )
    assert_close(
        run(make("lars", arguments={"trust_ratio_mask": "kernel$"}))[0],
        run(optax.lars(RATE, trust_ratio_mask=MASK))[0],
    )


def test_the_two_rates_of_muon():
    """Adam's has the same schedule, and decay follows the rate of each group."""
    config = make_config(
        "muon", schedule="linear", weight_decay=DECAY, arguments={"adam_learning_rate": 0.01}
    )
    rate, adam_rate = (optax.linear_schedule(r, 0.0, NUM_STEPS) for r in (RATE, 0.01))
    muon = BY_HAND["muon"](rate, adam_learning_rate=adam_rate)
    by_hand = optax.chain(
        muon,
        optax.add_decayed_weights(
            lambda n: -DECAY * rate(n),
            {"fc": {"kernel": True, "bias": False}, "head": {"kernel": False}},
        ),
        optax.add_decayed_weights(
            lambda n: -DECAY * adam_rate(n),
            {"fc": {"kernel": False, "bias": False}, "head": {"kernel": True}},
        ),
    )
    assert_close(run(make_optimizer(config, NUM_STEPS))[0], run(by_hand)[0])


def blocks(num_layers=2):
    """A tree like a model's, unstacked."""
    keys = iter(jax.random.split(jax.random.key(0), 20))
    layers = {
        f"{i:02d}": {
            "attn": {"q": {"kernel": jax.random.normal(next(keys), (4, 4)), "bias": jnp.ones(4)}},
            "mlp": {"fc1": {"kernel": jax.random.normal(next(keys), (4, 6))}},
        }
        for i in range(num_layers)
    }
    return {
        "embed": {"kernel": jax.random.normal(next(keys), (5, 4))},
        "blocks": layers,
        "head": {"kernel": jax.random.normal(next(keys), (4, 3))},
    }


def test_muon_treats_each_layer_of_a_stack_by_itself():
    params = blocks()
    optimizer = make("muon", weight_decay=0.1)
    unrolled = run(optimizer, params)[0]
    stacked, state = run(optimizer, stack_layers(params))
    assert_close(unstack_layers(stacked), unrolled)
    of_muon = {p for p in named_leaves(state) if "/muon/" in p and "/mu/" in p}
    assert {p.split("/mu/")[1] for p in of_muon} == {
        "blocks/attn/q/kernel",
        "blocks/mlp/fc1/kernel",
    }


def test_galore_refuses_a_stack_and_muon_a_model_without_hidden_matrices():
    params = blocks()
    make("galore").init(params)
    with pytest.raises(UserError, match=r"cannot project blocks/attn/q/kernel.*scan_layers=False"):
        make("galore").init(stack_layers(params))
    with pytest.raises(UserError, match="finds no hidden matrix"):
        make("muon").init({"head": {"kernel": jnp.ones((3, 2))}})


def test_sam_by_hand():
    """Foret et al.: w - rate * g(w + rho * g / |g|), a rate and a decay once in two steps."""
    config = make_config(
        "sam",
        schedule="linear",
        weight_decay=DECAY,
        arguments={"rho": 0.2, "base": "sgd", "base_arguments": {"momentum": 0.9}},
    )
    got = run(make_optimizer(config, NUM_STEPS))[0]
    base = optax.sgd(optax.constant_schedule(1.0), momentum=0.9)
    params, state = PARAMS, base.init(PARAMS)

    def gradient(params, index):
        return jax.tree.map(lambda p: jnp.sin(3 * p + index) + 0.1 * p, params)

    for index in range(0, NUM_STEPS, 2):
        first = gradient(params, index)
        norm = optax.tree.norm(first)
        climbed = jax.tree.map(lambda p, g: p + 0.2 * g / norm, params, first)  # noqa: B023
        updates, state = base.update(gradient(climbed, index + 1), state, params)
        rate = RATE * (1 - (index + 1) / NUM_STEPS)
        params = jax.tree.map(
            lambda p, u, m: p + rate * u - m * rate * DECAY * p,  # noqa: B023
            params,
            updates,
            MASK,
        )
    assert_close(got, params)


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_schedule_free_is_evaluated_at_its_average(name):
    """Defazio et al.: x is the average of z, weighted by the square of the largest rate so far."""
    optimizer = make(name, warmup_steps=2, clip_norm=1.0)
    params, state = run(optimizer)
    inner = contrib.__dict__[name](RATE, warmup_steps=2)
    by_hand, inner_state = run(optax.chain(optax.clip_by_global_norm(1.0), inner))
    assert_close(params, by_hand)
    expected = contrib.schedule_free_eval_params(inner_state[1], by_hand)
    assert_close(choose_eval_params(state, params), expected)
    assert not np.allclose(expected["fc"]["kernel"], params["fc"]["kernel"])
    assert choose_eval_params(optax.EmptyState(), params) is params


def test_a_run_is_evaluated_at_the_average(tmp_path):
    """The result, and what the next run starts from, hold the same bits after a restore."""
    config = small_config(
        optim=make_config("schedule_free_adamw", warmup_steps=2),
        train=TrainConfig(16, 6, eval_batch_size=16),
    )
    result = fit(config, tmp_path / "run")
    again = fit(config, tmp_path / "run")  # nothing left to train: restored, evaluated
    assert_close(result.params, again.params, 0)
    assert result.metrics["test"] == again.metrics["test"]
    programs = result.parts.programs
    state = programs.start_from(result.params)
    assert {p: x.sharding for p, x in named_leaves(state.eval_params).items()} == {
        p: x.sharding for p, x in named_leaves(state.params).items()
    }


def test_a_state_begins_anew_from_other_parameters():
    """SAM keeps a copy of them: it must not go back to those it was made with."""
    parts = build(small_config(optim=make_config("sam")), small_dataset())
    state = parts.programs.init_state()
    moved = jax.tree.map(lambda x: x + 1, state.params)
    new = parts.programs.start_from(moved)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert_close(optax.tree_utils.tree_get(new.opt_state, "cache"), moved, 0)
    block = place_batch(parts.stream.read(0, 1), parts.programs.blocks_sharding)
    for _ in range(2):  # donated: what was given stays whole
        new, _ = parts.programs.train(new, block, 1)
    assert not np.isnan(moved["fc1"]["kernel"]).any()


@functools.cache
def small_dataset():
    return build(small_config()).dataset


@pytest.mark.parametrize("name", NAMES)
def test_every_state_can_be_placed_and_saved(name):
    """Shapes only: leaves like a parameter lie like it; none is a typed key, which is no array."""
    decay = 0.0 if name == "cocob" else 0.1
    config = small_config(optim=make_config(name, weight_decay=decay))
    programs = build(config, small_dataset()).programs
    for path, leaf in named_leaves(programs.abstract_state).items():
        assert leaf.sharding is not None, path
        assert not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key), path
    params = programs.abstract_state.params
    opt_state = programs.abstract_state.opt_state
    specs = {p: P(p) for p in named_leaves(params)}  # a spec that names its parameter
    tree = jax.tree.unflatten(jax.tree.structure(params), list(specs.values()))
    found = named_leaves(
        jax.tree.map(str, like_params(tree, params, opt_state), is_leaf=lambda x: isinstance(x, P))
    )
    for path, leaf in named_leaves(opt_state).items():
        owners = [p for p in specs if path.endswith(f"/{p}")]
        same = owners and named_leaves(params)[owners[0]].shape == leaf.shape
        assert found[path] == str(specs[owners[0]] if same else P()), path


# What Optax gives to build optimizers of, not to choose: gradient transformations and wrappers.
PARTS = {
    "adaptive_grad_clip", "add_noise", "apply_every", "apply_if_finite", "centralize", "chain",
    "flatten", "identity", "inject_hyperparams", "inject_stateful_hyperparams", "masked",
    "measure_with_ema", "multi_transform", "named_chain", "normalize", "normalize_by_update_norm",
    "scale", "selective_transform", "set_to_zero", "snapshot", "stateless",
    "stateless_with_tree_map", "with_extra_args_support",
}  # fmt: skip


@pytest.mark.parametrize("module", [optax, contrib], ids=lambda m: m.__name__)
def test_no_optimizer_of_optax_is_forgotten(module):
    """A function that makes a transformation is in the table, refused with a reason, or a part."""
    forgotten = []
    for name in dir(module):
        value = getattr(module, name)
        is_function = inspect.isfunction(value) or isinstance(value, functools.partial)
        if not is_function or name.startswith(("_", "scale_by_")):
            continue
        signature = inspect.signature(value)
        makes = "GradientTransformation" in str(signature.return_annotation)
        if not (makes or "learning_rate" in signature.parameters):
            continue
        if hasattr(optax.transforms, name) or name in PARTS:
            continue
        if (name in NAMES) + (name in REFUSED) != 1:
            forgotten.append(name)
    assert not forgotten
    for name in REFUSED:
        with pytest.raises(UserError, match=f"optim.name='{name}' .*; choose from .*adamw"):
            make_optimizer(OptimConfig(name), 5)
