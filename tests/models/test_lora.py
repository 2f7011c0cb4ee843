"""LoRA: the arithmetic by hand, where the parameters lie, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import zoo
from zoo.config import UserError
from zoo.models import create_model, init_params, make_lora, param_shapes
from zoo.models.flops import count_flops
from zoo.models.lora import describe_targets
from zoo.tree import named_leaves, stack_layers, unstack_layers

TOKENS = jnp.asarray([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])


def make_decoder(**fields):
    """Two layers of width 8."""
    sizes = {"width": 8, "depth": 2, "num_heads": 2, "num_positions": 6, "vocab_size": 10}
    return create_model("gpt2", **{**sizes, **fields})


def draw(model):
    """Parameters at random, of NumPy: nothing is compiled for them, and `lora_b` is not zero."""
    random = np.random.default_rng(7)
    shapes = param_shapes(model)
    return jax.tree.map(lambda x: random.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def jit(model, **more):
    """The model on TOKENS, compiled once for all parameters."""
    return jax.jit(lambda params: model.apply({"params": params}, TOKENS, **more)[0])


@pytest.fixture(scope="module")
def trained():
    """(model, params, output) of a decoder with corrections at some layers of both kinds."""
    model = make_lora(make_decoder(), {"rank": 2, "targets": "attn/q$|mlp/fc2$"})
    params = draw(model)
    return model, params, jit(model)(params)


def test_a_perceptron_by_hand():
    base = create_model("mlp", input_shape=(5,), widths=(4,), num_outputs=3, activation="relu")
    model = make_lora(base, {"rank": 2, "alpha": 3, "targets": "^fc1$"})
    params = draw(model)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
    found, _ = jax.jit(lambda p: model.apply({"params": p}, x))(params)
    leaf = {k: np.asarray(v, np.float64) for k, v in named_leaves(params).items()}
    hidden = x @ leaf["fc1/kernel"] + 1.5 * x @ leaf["fc1/lora_a"] @ leaf["fc1/lora_b"]
    hidden = np.maximum(hidden + leaf["fc1/bias"], 0)
    np.testing.assert_allclose(found, hidden @ leaf["head/kernel"] + leaf["head/bias"], rtol=1e-4)


def test_where_it_begins():
    """As in peft: one matrix uniform within 1 / sqrt(inputs), the other zero."""
    base = create_model("mlp", input_shape=(400,), widths=(30,))
    params = jax.jit(lambda: init_params(make_lora(base, {"rank": 50, "targets": "fc1"})))()
    drawn = np.asarray(params["fc1"]["lora_a"])
    assert drawn.shape == (400, 50)
    assert np.abs(drawn).max() <= 400**-0.5
    assert drawn.std() == pytest.approx((3 * 400) ** -0.5, rel=0.02)
    assert not np.any(params["fc1"]["lora_b"])


def test_alone_and_merged_and_scanned(trained):
    """With `lora_b` zero it is the base; merged into the base or scanned the same as it is."""
    model, params, expected = trained
    flat = flatten_dict(params)
    alone = {path: leaf for path, leaf in flat.items() if not path[-1].startswith("lora")}
    assert len(alone) == len(flat) - 8  # two matrices at two layers of two blocks
    zeroed = {path: leaf * (path[-1] != "lora_b") for path, leaf in flat.items()}
    run_base, run_lora = jit(model.base), jit(model)
    found = run_base(unflatten_dict(alone))
    np.testing.assert_array_equal(run_lora(unflatten_dict(zeroed)), found)
    assert np.abs(found - expected).max() > 0.1
    base, merged = zoo.merge_lora(model, params)
    assert base == model.base
    np.testing.assert_allclose(run_base(merged), expected, atol=1e-5)
    scanned = make_lora(make_decoder(scan_layers=True), {"rank": 2, "targets": model.targets})
    stacked = stack_layers(params)
    assert stacked["blocks"]["attn"]["q"]["lora_a"].shape == (2, 8, 2)
    np.testing.assert_allclose(jit(scanned)(stacked), expected, atol=1e-5)
    _, merged_too = zoo.merge_lora(scanned, stacked)
    for path, leaf in named_leaves(unstack_layers(merged_too)).items():
        np.testing.assert_array_equal(leaf, named_leaves(merged)[path])


def test_shared_layers_share_corrections_and_dropout_is_for_training():
    sizes = {"width": 8, "hidden": 8, "depth": 2, "num_heads": 2, "num_groups": 1}
    base = create_model("bert_tiny", vocab_size=10, num_positions=6, **sizes)
    model = make_lora(base, {"rank": 2, "dropout": 0.5})
    params = draw(model)
    assert sum("lora" in path for path in named_leaves(params)) == 4

    @jax.jit
    def run(params, merged, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return (
            model.apply({"params": params}, TOKENS)[0],
            base.apply({"params": merged}, TOKENS)[0],
            model.apply({"params": params}, TOKENS, train=True, rngs=rngs)[0],
        )

    _, merged = zoo.merge_lora(model, params)
    one, other = run(params, merged, 1), run(params, merged, 2)
    np.testing.assert_allclose(one[0], one[1], atol=1e-5)
    assert np.abs(one[2] - other[2]).max() > 0.01


def test_types():
    base = make_decoder(dtype="bfloat16", param_dtype="bfloat16")
    model = make_lora(base, {"rank": 2})
    params = jax.eval_shape(lambda: init_params(model))
    assert {leaf.dtype.name for p, leaf in named_leaves(params).items() if "lora" in p} == {
        "float32"
    }
    jaxpr = str(jax.make_jaxpr(lambda p: model.apply({"params": p}, TOKENS)[0])(params))
    assert "bf16[2,6,8] = dot_general" in jaxpr
    assert "f32[2,6,2] = dot_general" not in jaxpr  # the product with lora_a: in the layer's type


def test_frozen_kernels_cost_no_gradient(trained):
    """Forward and backward of the inputs alone: two forward passes, not three."""
    model, params, _ = trained
    corrections = {p: x for p, x in flatten_dict(params).items() if p[-1].startswith("lora")}
    rest = {p: x for p, x in flatten_dict(params).items() if p not in corrections}

    def loss(some):
        return model.apply({"params": unflatten_dict({**rest, **some})}, TOKENS)[0].sum()

    forward = count_flops(loss, corrections)
    every = count_flops(jax.grad(lambda p: model.apply({"params": p}, TOKENS)[0].sum()), params)
    own = count_flops(jax.grad(loss), corrections)
    assert every / forward == pytest.approx(3, abs=0.1)
    assert own / forward < 2.1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ranks": 3}, r"model\.lora\.ranks is unknown \(did you mean 'rank'\?\)"),
        ({"rank": 0}, r"rank=0 should be 1 or more"),
        ({"rank": "four"}, r"model\.lora\.rank='four' is not int"),
        ({"alpha": float("nan")}, r"alpha=nan should be a number above 0"),
        ({"dropout": 1}, r"dropout=1\.0 is not in \[0, 1\)"),
        ({"targets": "("}, r"targets='\(' is no regex"),
        ({"targets": "attn/query"}, r"matches no dense layer \(they are like blocks/00/attn/q, "),
        ({"targets": "00/attn/q$"}, r"is 1 of 2 layers of a scanned stack .*scan_layers=False"),
    ],
)
def test_mistakes(settings, told):
    with pytest.raises(UserError, match=told) as error:
        make_lora(make_decoder(scan_layers=True), settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scan", [False, True])
def test_the_layers_are_told(scan):
    model = make_lora(make_decoder(scan_layers=scan), {"rank": 2, "targets": "attn/q$|fc2$"})
    assert describe_targets(model) == (
        "model.lora: rank 2, alpha 16, beside 4 of 12 dense layers "
        "(blocks/00/attn/q, blocks/00/mlp/fc2, blocks/01/attn/q, ...)"
    )
