"""T5: its table, both stacks in every form, and who sees whom."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.attention import attend
from zoo.models.kernels import attend_fused
from zoo.tree import count_params, named_leaves, stack_layers, unstack_layers

# As the publishers' code counts.
PUBLISHED = {
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_11b": 11_307_321_344,
    "t5_v1_1_small": 76_961_152,
    "t5_v1_1_base": 247_577_856,
    "t5_v1_1_large": 783_150_080,
    "t5_v1_1_xl": 2_849_757_184,
    "t5_v1_1_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
    "byt5_small": 299_637_760,
    "byt5_base": 581_653_248,
    "byt5_large": 1_228_183_552,
    "byt5_xl": 3_737_801_728,
    "byt5_xxl": 12_906_899_328,
}
SIZES = {"width": 16, "depth": 2, "num_heads": 2, "head_dim": 6, "hidden": 32, "vocab_size": 50}
T5 = zoo.create_model("t5_small", **SIZES)
V1_1 = zoo.create_model("t5_v1_1_small", **SIZES, decoder_depth=3)
# One row a place, so that each row may change in its own place.
SOURCE = jnp.tile(jnp.array([[5, 17, 3, 42, 8, 8, 23, 31]]), (8, 1))
TARGET = jnp.tile(jnp.array([[0, 11, 2, 29, 11, 40, 9, 6]]), (8, 1))
HERE = jnp.eye(8, dtype=bool)


@functools.cache
def shapes_of(model):
    return jax.eval_shape(lambda: zoo.init_params(model))


@functools.cache
def noisy_params(model):
    """Random parameters, none of them zero, so that none can be lost unseen."""
    random = np.random.default_rng(0)
    noise = lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype)
    return jax.tree.map(noise, shapes_of(model))


@functools.cache
def program(model):
    """Compiled once for all that is asked of it: every input is always given."""
    return jax.jit(model.apply)


def run(source, target, source_mask=None, target_mask=None, model=T5):
    masks = {
        "source_mask": jnp.ones(source.shape, bool) if source_mask is None else source_mask,
        "target_mask": jnp.ones(target.shape, bool) if target_mask is None else target_mask,
    }
    return program(model)({"params": noisy_params(T5)}, source, target, **masks)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes(name):
    """Exact counts; the scanned form, so that 24 layers are traced as one."""
    assert count_params(shapes_of(zoo.create_model(name, scan_layers=True))) == PUBLISHED[name]


def test_every_size_is_counted():
    names = [n for glob in ("t5_*", "mt5_*", "byt5_*") for n in zoo.list_models(glob)]
    assert set(PUBLISHED) == set(names)


@pytest.mark.parametrize("size", ["small", "base", "large", "xl", "xxl"])
def test_flan_is_version_1_1(size):
    assert zoo.create_model(f"flan_t5_{size}") == zoo.create_model(f"t5_v1_1_{size}")


# Forms are compared with each other, so the compiler may save its pains.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def results(model, params):
    """What a model computes and its gradient, in one program."""

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(params):
        def loss(params):
            # train=True: only there is the stack rematerialised; nothing is dropped.
            output, aux = model.apply({"params": params}, SOURCE[:2], TARGET[:2, :5], train=True)
            return (output**2).mean(), {"output": output, **aux}

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, outputs), grads = run(params)
    return named_leaves(outputs), grads


def test_every_form_of_the_stacks_computes_the_same():
    params = noisy_params(V1_1)
    outputs, grads = results(V1_1, params)
    shapes = {path: leaf.shape for path, leaf in outputs.items()}
    assert shapes == {
        "output": (2, 5, 50),
        "encoded": (2, 8, 16),
        "encoder/attention": (2, 2, 2, 8, 8),
        "encoder/hidden": (2, 2, 8, 16),
        "decoder/attention": (3, 2, 2, 5, 5),
        "decoder/cross": (3, 2, 2, 5, 8),
        "decoder/hidden": (3, 2, 5, 16),
    }
    scanned = V1_1.clone(scan_layers=True, remat="full")
    stacked = stack_layers(params)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, shapes_of(scanned))
    found, own_grads = results(scanned, stacked)
    for path, expected in outputs.items():
        atol = 1e-5 * max(1, float(abs(expected).max()))
        np.testing.assert_allclose(found[path], expected, atol=atol, err_msg=path)
    own_grads = named_leaves(unstack_layers(own_grads))
    for path, expected in named_leaves(grads).items():
        assert expected.any(), path
        atol = 1e-4 * float(abs(expected).max())
        np.testing.assert_allclose(own_grads[path], expected, atol=atol, err_msg=path)


def test_the_target_looks_back_only():
    before, after = run(SOURCE, TARGET)[0], run(SOURCE, jnp.where(HERE, 7, TARGET))[0]
    changes = np.abs(after - before).max(-1)  # row j: what target token j does to each place
    assert not np.tril(changes, -1).any()
    assert changes[np.triu_indices(8)].min() > 1e-4


def test_every_source_token_matters_to_every_target_place():
    before, aux = run(SOURCE, TARGET)
    after, _ = run(jnp.where(HERE, 7, SOURCE), TARGET)
    assert jnp.abs(after - before).max(-1).min() > 1e-5
    assert aux["encoder"]["attention"].min() > 0
    assert aux["decoder"]["cross"].min() > 0


def test_padding_changes_nothing():
    """On the right, and on the left: only distances count."""
    mask = jnp.broadcast_to(jnp.arange(8) < 5, SOURCE.shape)
    expected, _ = run(SOURCE[:, :5], TARGET[:, :5])
    padded, aux = run(SOURCE, TARGET, mask, mask)
    np.testing.assert_allclose(padded[:, :5], expected, atol=2e-5)
    assert not aux["decoder"]["cross"][..., 5:].any()
    again, _ = run(SOURCE.at[:, 5:].set(1), TARGET.at[:, 5:].set(1), mask, mask)
    np.testing.assert_array_equal(again[:, :5], padded[:, :5])
    ahead, aux = run(*(jnp.roll(x, 3, axis=1) for x in (SOURCE, TARGET, mask, mask)))
    np.testing.assert_allclose(ahead[:, 3:], expected, atol=2e-5)
    assert not aux["decoder"]["attention"][..., 3:, :3].any()


def test_outputs():
    """Tied or own, scaled or not: one product of the decoder's stream."""
    kernel = jax.random.normal(jax.random.key(3), (16, 50))
    params = {**noisy_params(T5), "head": {"kernel": kernel}}

    def apply(**fields):
        model = T5.clone(**fields)
        own = {k: v for k, v in params.items() if k != "head" or not model.tied}
        return model.apply({"params": own}, SOURCE[:1], TARGET[:1])[0]

    forms = list(itertools.product((True, False), (True, False)))
    stream, logits = jax.jit(
        lambda: (apply(head="none"), [apply(tied=a, scale_logits=b) for a, b in forms])
    )()
    assert stream.shape == (1, 8, 16)
    for (tied, scaled), found in zip(forms, logits, strict=True):
        matrix = params["embed"]["embedding"].T if tied else kernel
        np.testing.assert_allclose(found, stream @ matrix * (0.25 if scaled else 1), atol=1e-5)
    assert T5.tied
    assert T5.scale_logits
    assert not V1_1.tied
    assert not V1_1.scale_logits


@pytest.mark.parametrize("part", [attend, attend_fused])
def test_bfloat16_is_near(part):
    exact, _ = run(SOURCE, TARGET)
    near, aux = run(SOURCE, TARGET, model=T5.clone(dtype=jnp.bfloat16, attend=part))
    assert near.dtype == jnp.float32
    assert aux["encoded"].dtype == jnp.bfloat16
    assert 0 < np.abs(near - exact).max() < 0.15 * np.abs(exact).max()


def test_dropout_only_in_training():
    model = T5.clone(dropout=0.5, scan_layers=True)
    given = {"params": stack_layers(noisy_params(T5))}

    @jax.jit
    def train(key):
        _, aux = model.apply(given, SOURCE, TARGET, train=True, rngs={"dropout": key})
        return [aux["encoder"]["hidden"], aux["decoder"]["hidden"]]

    evaluated, _ = jax.jit(model.apply)(given, SOURCE, TARGET)
    np.testing.assert_allclose(evaluated, run(SOURCE, TARGET)[0], atol=2e-5)
    runs = [train(jax.random.key(i)) for i in (0, 0, 1)]
    for first, again, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, again)
        for layer in range(2):
            assert (first[layer] != other[layer]).any()
