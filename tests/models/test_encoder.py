"""Encoders: their tables, one stack in every form, heads, positions, and who sees whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.models import encoder
from zoo.tree import count_params, named_leaves, stack_layers, unstack_layers

# As transformers counts its headless models, the pooler included where there is one; ELECTRA with
# the head of its pre-training.
PUBLISHED = {
    "bert_tiny": 4_385_920,
    "bert_mini": 11_170_560,
    "bert_small": 28_763_648,
    "bert_medium": 41_373_184,
    "bert_base": 109_482_240,
    "bert_base_cased": 108_310_272,
    "bert_base_multilingual_uncased": 167_356_416,
    "bert_base_multilingual_cased": 177_853_440,
    "bert_base_chinese": 102_267_648,
    "bert_large": 335_141_888,
    "bert_large_cased": 333_579_264,
    "minilm_l6_h384": 22_713_216,
    "minilm_l12_h384": 33_360_000,
    "albert_base": 11_683_584,
    "albert_large": 17_683_968,
    "albert_xlarge": 58_724_864,
    "albert_xxlarge": 222_595_584,
    "roberta_base": 124_645_632,
    "roberta_large": 355_359_744,
    "distilroberta_base": 82_118_400,
    "xlm_roberta_base": 278_043_648,
    "xlm_roberta_large": 559_890_432,
    "electra_small": 13_549_057,
    "electra_base": 109_483_009,
    "electra_large": 335_142_913,
    "electra_small_generator": 13_546_682,
    "electra_base_generator": 33_740_602,
    "electra_large_generator": 51_295_290,
    "distilbert_base": 66_362_880,
    "distilbert_base_cased": 65_190_912,
    "distilbert_base_multilingual_cased": 134_734_080,
}
SIZES = {"width": 16, "num_heads": 2, "hidden": 32, "vocab_size": 50, "num_positions": 10}
BERT = zoo.create_model("bert_base", **SIZES, depth=2)
ALBERT = zoo.create_model("albert_base", **SIZES, depth=4, embedding_width=8)
# Ten tokens fit, as in the others.
ROBERTA = zoo.create_model("roberta_base", **{**SIZES, "num_positions": 12}, depth=2)
ELECTRA = zoo.create_model("electra_small", **SIZES, depth=2, embedding_width=8, head="none")
DISTILBERT = zoo.create_model("distilbert_base", **SIZES, depth=2)
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
    assert set(PUBLISHED) == set(encoder.ROWS)


@pytest.mark.parametrize(
    ("name", "fields", "count"),
    [
        ("bert_l8_h256", {}, 14_329_600),  # of the 24 of Turc et al.
        ("bert_base", {"head": "multiple_choice"}, 109_483_009),
        ("roberta_base", {"head": "masked_lm", "pooler": False}, 124_697_433),
        ("roberta_base", {"head": "sequence"}, 124_647_170),
        ("xlm_roberta_base", {"head": "masked_lm", "pooler": False}, 278_295_186),
        ("electra_small", {"head": "none"}, 13_483_008),
        ("electra_small", {"head": "sequence"}, 13_549_314),
        ("distilbert_base", {"head": "masked_lm"}, 66_985_530),
        ("distilbert_base", {"head": "sequence"}, 66_955_010),
    ],
    ids=str,
)
def test_heads_are_counted(name, fields, count):
    assert count_params(shapes_of(zoo.create_model(name, **fields, scan_layers=True))) == count


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


def test_roberta_counts_real_tokens():
    """Padding on the left changes nothing, and nothing given counts from 0."""
    model, tokens = ROBERTA.clone(depth=1), TOKENS[:2]
    apply = functools.partial(jax.jit(model.apply), {"params": noisy_params(model)})
    padded, _ = apply(tokens, mask=jnp.broadcast_to(jnp.arange(10) >= 4, tokens.shape))
    alone, _ = apply(tokens[:, 4:])
    np.testing.assert_allclose(padded[:, 4:], alone, atol=1e-5)
    counted, _ = apply(tokens[:, 4:], positions=jnp.broadcast_to(jnp.arange(6), (2, 6)))
    np.testing.assert_allclose(counted, alone, atol=1e-5)


def test_a_model_without_types():
    kernel = noisy_params(DISTILBERT)
    assert "embed_types" not in kernel
    with pytest.raises(UserError, match="no sentence types"):
        jax.eval_shape(DISTILBERT.apply, {"params": kernel}, TOKENS, types=TOKENS)


@pytest.mark.parametrize(
    ("base", "activation"), [(BERT, jnp.tanh), (ELECTRA, encoder.ACTIVATIONS["gelu"])]
)
def test_choices_are_rows(base, activation):
    model = base.clone(head="multiple_choice", pooler=True)
    params = noisy_params(model)
    output, aux = jax.jit(model.apply)({"params": params}, TOKENS[:6])
    assert output.shape == (6,)
    pooler = aux["hidden"][-1, :, 0] @ params["pooler"]["kernel"] + params["pooler"]["bias"]
    expected = activation(pooler) @ params["head"]["kernel"][:, 0] + params["head"]["bias"]
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("base", [BERT, ALBERT], ids=["bert", "albert"])
@pytest.mark.parametrize(
    ("head", "shape"),
    [
        ("none", (3, 10, 16)),
        ("masked_lm", (3, 10, 50)),
        ("replaced_token", (3, 10)),
        ("multiple_choice", (3,)),
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
    if head not in encoder.POOLED:
        _, aux = jax.eval_shape(bare.apply, {"params": shapes_of(bare)}, TOKENS[:3])
        assert "pooled" not in aux


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_positions": 9}, "has 9 positions, not 10"),
        ({"head": "sequence", "pooler": False}, "set pooler=True"),
        ({"padding_position": 1}, "has 8 positions, not 10"),
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
