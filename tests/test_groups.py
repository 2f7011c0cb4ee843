"""The table of what trains, against AdamW written out in NumPy and depths counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SMALL_VIT

import zoo
from zoo.config import OptimConfig, UserError, set_values
from zoo.optim import OPTIMIZERS, make_groups, make_optimizer
from zoo.optim.optimizers import WHOLE
from zoo.tree import named_leaves, stack_layers

RNG = np.random.default_rng(0)
PATHS = ("embed/kernel", "blocks/00/fc/kernel", "blocks/00/fc/bias", "blocks/01/fc/kernel",
         "blocks/01/fc/bias", "head/kernel", "head/bias")  # fmt: skip
FLAT = {path: RNG.normal(size=(2, 3)).astype(np.float32) for path in PATHS}
GRADIENTS = [{p: RNG.normal(size=(2, 3)).astype(np.float32) for p in PATHS} for _ in range(6)]
RULES = (
    ("embed", {"frozen": True}),
    ("bias$", {"weight_decay": 3.0, "learning_rate": 0.25}),
    ("blocks/01", {"from_step": 2, "learning_rate": 0.5}),
    ("blocks", {"weight_decay": 0.0, "from_step": 3}),
)
ADAMW = OptimConfig(
    "adamw", 0.1, schedule="linear", weight_decay=0.3, decay_pattern=".", clip_norm=0.8, rules=RULES
)
#           learning rate, decay, first step
BY_HAND = {
    "blocks/00/fc/kernel": (1.0, 0.0, 3),
    "blocks/00/fc/bias": (0.25, 3.0, 0),
    "blocks/01/fc/kernel": (0.5, 1.0, 2),
    "blocks/01/fc/bias": (0.25, 3.0, 0),
    "head/kernel": (1.0, 1.0, 0),
    "head/bias": (0.25, 3.0, 0),
}


def nest(flat):
    out = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = out
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = jnp.asarray(leaf)
    return out


PARAMS = nest(FLAT)


def run(config, num_steps=6, form=dict):
    """Parameters after each step of the chain, of a tree in the form given."""
    whole = form(PARAMS)
    groups = make_groups(config, whole)
    optimizer = make_optimizer(config, num_steps, groups)
    params = groups.trained(whole)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    found = []
    for gradient in GRADIENTS:
        params, state = step(params, state, groups.trained(form(nest(gradient))))
        found.append({path: np.asarray(x) for path, x in named_leaves(params).items()})
    return found, state


def test_adamw_by_hand():
    """Loshchilov & Hutter's algorithm, each parameter with its own count of steps; what has not
    begun adds nothing to the norm that is clipped."""
    params = {p: FLAT[p].astype(np.float64) for p in BY_HAND}
    mean = {p: np.zeros((2, 3)) for p in BY_HAND}
    square = {p: np.zeros((2, 3)) for p in BY_HAND}
    found, state = run(ADAMW)
    for step, gradients in enumerate(GRADIENTS):
        active = [p for p in BY_HAND if step >= BY_HAND[p][2]]
        norm = np.sqrt(sum((gradients[p].astype(np.float64) ** 2).sum() for p in active))
        for path in active:
            by, decay, first = BY_HAND[path]
            count = step - first + 1
            gradient = gradients[path] * min(1, 0.8 / norm)
            mean[path] = 0.9 * mean[path] + 0.1 * gradient
            square[path] = 0.999 * square[path] + 0.001 * gradient**2
            adam = (mean[path] / (1 - 0.9**count)) / (
                np.sqrt(square[path] / (1 - 0.999**count)) + 1e-8
            )
            rate = by * 0.1 * (1 - step / 6)
            params[path] = params[path] - rate * (adam + 0.3 * decay * params[path])
        assert found[step].keys() == BY_HAND.keys()
        for path in BY_HAND:
            np.testing.assert_allclose(found[step][path], params[path], atol=5e-6, err_msg=path)
    moments = [path for path in named_leaves(state) if path.endswith("/embed/kernel")]
    assert not moments
    assert len([path for path in named_leaves(state) if path.endswith("/head/kernel")]) == 2


def test_stacked_layers_are_updated_like_unrolled_ones():
    config = OptimConfig("adamw", 0.1, weight_decay=0.3, layer_decay=0.7)
    (first, *_, unrolled), stacked = run(config)[0], run(config, form=stack_layers)[0]
    for path in PATHS:
        found = stacked[-1][path.replace("/00", "").replace("/01", "")]
        found = found[int(path[8])] if path.startswith("blocks") else found
        np.testing.assert_allclose(found, unrolled[path], atol=1e-6, err_msg=path)
    rates = {path: abs(first[path] - FLAT[path]).max() for path in PATHS}
    assert rates["blocks/01/fc/bias"] == pytest.approx(0.7 * rates["head/bias"], rel=1e-3)
    assert rates["blocks/00/fc/bias"] == pytest.approx(0.49 * rates["head/bias"], rel=1e-3)


def test_penalties_of_what_has_not_begun_are_not_clipped_with():
    """l2 on a parameter that waits would otherwise shrink everybody's gradient."""
    config = OptimConfig(
        "sgd", 1.0, l2=100.0, clip_norm=1.0, decay_pattern="^embed",
        rules=(("^embed", {"from_step": 5}),),
    )  # fmt: skip
    found, _ = run(config)
    total = sum((GRADIENTS[0][p] ** 2).sum() for p in PATHS if not p.startswith("embed"))
    expected = FLAT["head/bias"] - GRADIENTS[0]["head/bias"] / max(1.0, np.sqrt(total))
    np.testing.assert_allclose(found[0]["head/bias"], expected, rtol=1e-5)
    np.testing.assert_array_equal(found[4]["embed/kernel"], FLAT["embed/kernel"])
    assert (found[5]["embed/kernel"] != FLAT["embed/kernel"]).all()


@pytest.mark.parametrize(
    "name", ["adafactor", "adan", "lamb", "lars", "lion", "novograd", "rmsprop", "sm3", "adamaxw"]
)
def test_a_multiplier_is_another_learning_rate(name):
    """Decay included; for all of them, tried once, and those of WHOLE refuse it."""
    halved, _ = run(OptimConfig(name, 0.05, weight_decay=0.1))
    rules = ((".", {"learning_rate": 0.5}),)
    multiplied, _ = run(OptimConfig(name, 0.1, weight_decay=0.1, rules=rules))
    for path in PATHS:
        np.testing.assert_allclose(multiplied[-1][path], halved[-1][path], rtol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_an_optimizer_of_all_parameters_together_refuses(name):
    assert name == "sam" or name in OPTIMIZERS
    for key, value in [("from_step", 3), ("weight_decay", 0.5), ("learning_rate", 0.5)]:
        config = OptimConfig(name, rules=(("head", {key: value}),))
        if key == "learning_rate" and not WHOLE[name].rates:
            continue
        with pytest.raises(UserError, match=f"optim.name='{name}' .*optim.rules may only set"):
            make_optimizer(config, 5)


def rates_of(model, **fields):
    """Canonical path -> multiplier, and first step."""
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    groups = make_groups(OptimConfig(**fields), shapes)
    return {
        path: (np.ravel(groups.learning_rate.get(path, 1.0)), groups.from_step.get(path, 0))
        for path in named_leaves(shapes)
    }


def test_depth_of_a_vit():
    """BEiT's table: the head and the last norm 1, the last layer 0.5, all below the first 0.5^3."""
    model = zoo.create_model("vit_ti4", **SMALL_VIT, image_size=(8, 8), num_classes=3)
    found = rates_of(model, layer_decay=0.5, unfreeze_every_steps=10)
    depths = {"blocks/00": 2, "blocks/01": 1, "cls": 3, "pos": 3, "embed": 3, "norm": 0, "head": 0}
    for path, (rate, first) in found.items():
        depth = next(depth for start, depth in depths.items() if path.startswith(start))
        assert (float(rate[0]), first) == (0.5**depth, 10 * depth), path


def test_each_stack_has_its_own_depth_scanned_or_not():
    fields = {"width": 16, "num_heads": 2, "head_dim": 8, "hidden": 32, "vocab_size": 32}
    depths = {"depth": 2, "decoder_depth": 3}
    for scan in (False, True):
        model = zoo.create_model("t5_v1_1_small", **fields, **depths, scan_layers=scan)
        found = {path: list(rate) for path, (rate, _) in rates_of(model, layer_decay=0.5).items()}
        if scan:
            assert found["encoder/blocks/attn/q/kernel"] == [0.25, 0.5]
            assert found["decoder/blocks/mlp/fc1/kernel"] == [0.125, 0.25, 0.5]
        else:
            assert found["encoder/blocks/01/attn/q/kernel"] == [0.5]
            assert found["decoder/blocks/00/mlp/fc1/kernel"] == [0.125]
        assert found["encoder/relative/embedding"] == [0.125]
        assert found["decoder/relative/embedding"] == found["embed/embedding"] == [0.0625]
        assert found["encoder/norm/scale"] == found["head/kernel"] == [1.0]


def test_further_frozen_paths_yield_to_the_table():
    """What LoRA freezes trains where a row names it."""
    config = OptimConfig(rules=(("blocks/01/fc/bias", {}),))
    frozen = frozenset(path for path in PATHS if path.startswith("blocks"))
    groups = make_groups(config, PARAMS, frozen)
    assert groups.frozen == frozen - {"blocks/01/fc/bias"}
    assert groups.lines[-1] == "trains 24 of 42 parameters"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rules": (("emebd", {"frozen": True}),)}, r"rules\[0\] \('emebd'\) matches no .*'embed'"),
        (
            {"rules": (("bl", {}), ("blocks/00", {"frozen": True}))},
            r"rules\[1\] .*only what earlier rows took \(row 0\)",
        ),
        ({"rules": (("(", {}),)}, r"rules\[0\]: '\(' is no regex: missing \)"),
        ({"rules": (("e", {"lr": 1.0}),)}, r"rules\[0\] \('e'\): 'lr' is unknown"),
        ({"rules": (("e", {"freeze": True}),)}, "unknown .did you mean 'frozen'"),
        ({"rules": (("e", {"frozen": 1}),)}, r"rules\[0\].frozen=1 is not bool"),
        ({"rules": (("e", {"learning_rate": "fast"}),)}, "learning_rate='fast' is not float"),
        ({"rules": (("e", {"learning_rate": True}),)}, "learning_rate=True is not float"),
        ({"rules": (("e", {"from_step": 1.5}),)}, "from_step=1.5 is not int"),
        ({"rules": (("e", {"from_step": -1}),)}, "from_step=-1 must be a number of at least 0"),
        ({"rules": (("e", {"weight_decay": -0.1}),)}, "weight_decay=-0.1 must be a number"),
        ({"rules": (("e", {"learning_rate": 0}),)}, "above 0 .'frozen': True trains nothing"),
        ({"rules": (("e", {"learning_rate": float("nan")}),)}, "learning_rate=nan must be"),
        ({"rules": (("e", {"frozen": True, "from_step": 3}),)}, "frozen: from_step means nothing"),
        ({"rules": ((".", {"frozen": True}),)}, "freezes every parameter"),
        ({"rules": ((".", {"from_step": 9}),)}, "nothing trains before step 9"),
        ({"weight_decay": 0.1, "decay_pattern": "kernle"}, "pattern 'kernle' matches no parameter"),
    ],
)  # fmt: skip
def test_mistakes(fields, message):
    with pytest.raises(UserError, match=message) as error:
        make_groups(OptimConfig(**fields), PARAMS)
    assert "\n" not in str(error.value)


def test_mistakes_of_depth():
    with pytest.raises(UserError, match=r"go by layers: this model has no 'blocks', its paths"):
        make_groups(OptimConfig(layer_decay=0.5), {"fc1": {"kernel": jnp.ones(2)}})
    stacked = {"blocks": {"fc": {"kernel": jnp.ones((2, 3))}}, "head": {"kernel": jnp.ones(2)}}
    same = "blocks/fc/kernel is one array of 2 layers, which differ in {}: set model.scan_layers=F"
    for fields, name in [
        ({"rules": (("blocks/00", {"frozen": True}),)}, "frozen"),
        ({"rules": (("blocks/00", {"weight_decay": 0.0}),), "weight_decay": 1.0}, "weight_decay"),
        ({"unfreeze_every_steps": 2}, "from_step"),
    ]:
        with pytest.raises(UserError, match=same.format(name)):
            make_groups(OptimConfig(**fields), stacked)
    both = OptimConfig(rules=(("blocks/", {"frozen": True}),), unfreeze_every_steps=2)
    assert make_groups(both, stacked).frozen == {"blocks/fc/kernel"}


def test_the_table_from_a_command_line():
    text = '(("^embed", {"frozen": True}), ["head", {"learning_rate": 2, "from_step": 3}])'
    config = set_values(zoo.config.Config(), {"optim.rules": text})
    assert config.optim.rules == (
        ("^embed", {"frozen": True}),
        ("head", {"learning_rate": 2, "from_step": 3}),
    )
    for wrong in ('("^embed", {"frozen": True})', "^embed", '(("^embed", 3),)'):
        with pytest.raises(UserError, match=r"optim.rules=.* is not tuple") as caught:
            set_values(zoo.config.Config(), {"optim.rules": wrong})
        meant = "(did you mean (('^embed', {'frozen': True}),)?)"  # only a comma was missing
        assert (meant in str(caught.value)) == (wrong[0] == "(" and wrong[1] == '"')
