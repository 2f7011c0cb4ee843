"""BERT and ALBERT: their tables, one stack in every form, and who sees whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.tree import count_params, named_leaves, stack_layers, unstack_layers

# As the publishers' code counts, the pooler included.
PUBLISHED = {
    "bert_tiny": 4_385_920,
    "bert_mini": 11_170_560,
    "bert_small": 28_763_648,
    "bert_medium": 41_373_184,
    "bert_base": 109_482_240,
    "bert_large": 335_141_888,
    "albert_base": 11_683_584,
    "albert_large": 17_683_968,
    "albert_xlarge": 58_724_864,
    "albert_xxlarge": 222_595_584,
}
SIZES = {"width": 16, "num_heads": 2, "hidden": 32, "vocab_size": 50, "num_positions": 10}
BERT = zoo.create_model("bert_base", **SIZES, depth=2)
ALBERT = zoo.create_model("albert_base", **SIZES, depth=4, embedding_width=8)
# One row a place, so that each row may change in its own place.
TOKENS = jnp.tile(jnp.array([[5, 17, 3, 42, 8, 8, 23, 31, 2, 11]]), (10, 1))
OTHER = jnp.where(jnp.eye(10, dtype=bool), 7, TOKENS)


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


def run(model, tokens, **inputs):
    usual = {
        "types": jnp.zeros_like(tokens),
        "segments": jnp.zeros_like(tokens),
        "mask": jnp.ones(tokens.shape, bool),
        "positions": jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape),
    }
    return program(model)({"params": noisy_params(model)}, tokens, **{**usual, **inputs})


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes(name):
    """Exact counts; the scanned form, so that 24 layers are traced as one."""
    assert count_params(shapes_of(zoo.create_model(name, scan_layers=True))) == PUBLISHED[name]


def test_every_size_is_counted():
    assert set(PUBLISHED) == set(zoo.list_models("bert_*") + zoo.list_models("albert_*"))


def test_the_published_masked_lm_is_counted():
    """bert-base-uncased with its head and without the pooler."""
    model = zoo.create_model("bert_base", head="masked_lm", pooler=False, scan_layers=True)
    assert count_params(shapes_of(model)) == 109_514_298
    untied = model.clone(tied=False)
    assert count_params(shapes_of(untied)) == 109_514_298 + 30522 * 768


# Forms are compared with each other, so the compiler may save its pains.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def results(model, params):
    """What a model computes and its gradient, in one program."""

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(params):
        def loss(params):
            # train=True: only there is the stack rematerialised; nothing is dropped.
            output, aux = model.apply({"params": params}, TOKENS[:2], train=True)
            return (output**2).sum() + (aux["pooled"] ** 2).sum(), (output, aux)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (output, aux)), grads = run(params)
    return {"output": output, **aux}, grads


@pytest.mark.parametrize(
    ("model", "num_groups", "forms"),
    [
        (BERT, None, [{"scan_layers": True}, {"remat": "dots"}]),
        (ALBERT, 2, [{"scan_layers": True, "remat": "full"}]),
    ],
    ids=["bert", "albert of two groups"],
)
def test_every_form_of_the_stack_computes_the_same(model, num_groups, forms):
    model = model.clone(num_groups=num_groups)
    params = noisy_params(model)
    assert len(params["blocks"]) == (num_groups or model.depth)
    outputs, grads = results(model, params)
    assert outputs["hidden"].shape[0] == outputs["attention"].shape[0] == model.depth
    for fields in forms:
        form = model.clone(**fields)
        own = stack_layers(params) if form.scan_layers else params
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, shapes_of(form))
        found, own_grads = results(form, own)
        assert found.keys() == outputs.keys()
        for name, expected in outputs.items():
            np.testing.assert_allclose(found[name], expected, atol=2e-5, err_msg=name)
        own_grads = named_leaves(unstack_layers(own_grads))
        for path, expected in named_leaves(grads).items():
            atol = 1e-5 * max(1, float(abs(expected).max()))
            np.testing.assert_allclose(own_grads[path], expected, atol=atol, err_msg=path)


def test_every_token_sees_every_other():
    before, after = run(BERT, TOKENS)[0], run(BERT, OTHER)[0]
    changes = jnp.abs(after - before).max(-1)  # row j: what token j does to each place
    assert changes.min() > 1e-4


def test_nothing_given_is_one_text_of_one_sentence():
    bare, _ = jax.jit(BERT.apply)({"params": noisy_params(BERT)}, TOKENS)
    np.testing.assert_allclose(bare, run(BERT, TOKENS)[0], atol=1e-5)


@pytest.mark.parametrize("model", [BERT, ALBERT], ids=["bert", "albert"])
def test_padding_changes_nothing(model):
    mask = jnp.broadcast_to(jnp.arange(10) < 6, TOKENS.shape)
    padded, aux = run(model, TOKENS, mask=mask)
    again, _ = run(model, TOKENS.at[:, 6:].set(0), mask=mask)
    np.testing.assert_array_equal(padded[:, :6], again[:, :6])
    assert not aux["attention"][..., 6:].any()
    alone, _ = run(model, TOKENS[:, :6])
    np.testing.assert_allclose(padded[:, :6], alone, atol=1e-5)


def test_documents_of_one_row_do_not_see_each_other():
    segments = jnp.broadcast_to((jnp.arange(10) >= 4).astype(jnp.int32), TOKENS.shape)
    places = jnp.broadcast_to(jnp.array([*range(4), *range(6)]), TOKENS.shape)
    packed, aux = run(BERT, TOKENS, segments=segments, positions=places)
    assert not aux["attention"][:, :, :, :4, 4:].any()
    assert not aux["attention"][:, :, :, 4:, :4].any()
    first, _ = run(BERT, TOKENS, mask=segments == 0)
    np.testing.assert_allclose(packed[:, :4], first[:, :4], atol=1e-5)
    swapped = jnp.roll(TOKENS, -4, axis=1)
    second, _ = run(BERT, swapped, mask=jnp.broadcast_to(jnp.arange(10) < 6, TOKENS.shape))
    np.testing.assert_allclose(packed[:, 4:], second[:, :6], atol=1e-5)


def test_types_matter():
    """One token of sentence B is seen from every place."""
    before = run(BERT, TOKENS)[0]
    after = run(BERT, TOKENS, types=jnp.eye(10, dtype=jnp.int32))[0]
    assert jnp.abs(after - before).max(-1).min() > 1e-4


@pytest.mark.parametrize("base", [BERT, ALBERT], ids=["bert", "albert"])
@pytest.mark.parametrize(
    ("head", "shape"),
    [
        ("none", (3, 10, 16)),
        ("masked_lm", (3, 10, 50)),
        ("token", (3, 10, 5)),
        ("span", (3, 10, 2)),
        ("sequence", (3, 5)),
    ],
)
def test_heads(head, shape, base):
    model = base.clone(head=head, num_classes=5, dtype=jnp.bfloat16)
    output, aux = jax.eval_shape(model.apply, {"params": shapes_of(model)}, TOKENS[:3])
    assert (output.shape, output.dtype) == (shape, jnp.float32)
    assert aux["pooled"].shape == (3, 16)
    assert aux["hidden"].shape == (model.depth, 3, 10, 16)
    assert aux["attention"].shape == (model.depth, 3, 2, 10, 10)
    bare = model.clone(pooler=False)
    if head != "sequence":
        _, aux = jax.eval_shape(bare.apply, {"params": shapes_of(bare)}, TOKENS[:3])
        assert "pooled" not in aux


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_positions": 9}, "has 9 positions, not 10"),
        ({"head": "sequence", "pooler": False}, "set pooler=True"),
        ({"depth": 3, "num_groups": 2}, "3 layers cannot share 2 groups"),
        ({"num_heads": 3}, "width of 16 does not divide into 3 heads"),
    ],
    ids=str,
)
def test_mistakes(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(BERT.clone(**fields).init, jax.random.key(0), TOKENS)


def test_dropout_only_in_training():
    model = BERT.clone(dropout=0.5, scan_layers=True)
    given = {"params": stack_layers(noisy_params(BERT))}
    evaluated, _ = jax.jit(model.apply)(given, TOKENS)
    np.testing.assert_allclose(evaluated, run(BERT, TOKENS)[0], atol=2e-5)
    train = jax.jit(
        lambda key: model.apply(given, TOKENS, train=True, rngs={"dropout": key})[1]["hidden"]
    )
    first, again, other = (train(jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    for layer in range(2):
        assert (first[layer] != other[layer]).any()
    assert (train(jax.random.key(0))[-1] != evaluated).any()
