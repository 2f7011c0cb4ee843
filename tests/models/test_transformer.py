"""The Transformer of 2017 and its descendants: sizes, torch's own, every form of the stacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.models.transformer import sinusoids
from zoo.tree import count_params, named_leaves, stack_layers, unstack_layers

# The paper's table 3 says 65 and 213 million. Per layer of width d and feed-forward width f, by
# hand: attention 4 d^2 (no biases), feed-forward 2 d f + f + d, each norm 2 d; an encoder's layer
# has one attention and two norms, a decoder's two and three; one embedding of 37,000 rows.
PUBLISHED = {
    "transformer_base": 63_045_632,
    "transformer_big": 214_171_648,
    # As transformers counts, with the bias a token of the output, a buffer there (58,101 and so
    # on), and without Marian's fixed positions (2 * 512 * 512, which it counts).
    "marian_base": 74_410_496 - 2 * 512 * 512 + 58_101,
    "bart_base": 139_420_416 + 50_265,
    "bart_large": 406_291_456 + 50_265,
    "mbart_large": 610_851_840 + 250_027,
}
SIZES = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 32, "vocab_size": 40}
BASE = zoo.create_model("transformer_base", **SIZES)
BART = zoo.create_model("bart_base", **SIZES, num_positions=12)
SOURCE = jnp.array([[5, 17, 3, 32, 8, 8, 23], [4, 4, 30, 9, 7, 11, 2]])
TARGET = jnp.array([[0, 11, 2, 29, 11], [0, 39, 4, 5, 6]])
# Forms are compared with each other, so the compiler may save its pains.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.cache
def shapes_of(model):
    return jax.eval_shape(lambda: zoo.init_params(model))


@functools.cache
def noisy_params(model):
    """Random parameters, none of them zero, so that none can be lost unseen."""
    random = np.random.default_rng(0)
    noise = lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype)
    return jax.tree.map(noise, shapes_of(model))


def run(model, source, target, params=None, **masks):
    given = {"params": noisy_params(model) if params is None else params}
    return jax.jit(model.apply, compiler_options=QUICKLY)(given, source, target, **masks)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes(name):
    """Exact counts; the scanned form, so that 12 layers are traced as one."""
    assert count_params(shapes_of(zoo.create_model(name, scan_layers=True))) == PUBLISHED[name]


def test_every_size_is_counted():
    names = [n for glob in ("transformer_*", "marian_*", "*bart_*") for n in zoo.list_models(glob)]
    assert set(PUBLISHED) == set(names)


def test_positions_are_the_papers_with_the_features_in_halves():
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) the cosine."""
    paper = np.array(
        [
            [(np.sin, np.cos)[j % 2](place / 10_000 ** (2 * (j // 2) / 6)) for j in range(6)]
            for place in range(300)
        ]
    )
    np.testing.assert_allclose(sinusoids(300, 6), paper[:, [0, 2, 4, 1, 3, 5]], atol=1e-7)
    with pytest.raises(UserError, match="even width, not 5"):
        sinusoids(3, 5)


def test_initialisation():
    """Embedding times sqrt(width): of deviation 1. Xavier's uniform for matrices, biases zero."""
    model = zoo.create_model("transformer_base", depth=1, vocab_size=2000, attention_bias=True)
    leaves = named_leaves(jax.jit(lambda: zoo.init_params(model))())
    assert float(leaves["embed/embedding"].std()) == pytest.approx(512**-0.5, rel=0.01)
    fc1 = leaves["decoder/blocks/00/mlp/fc1/kernel"]
    bound = (6 / (512 + 2048)) ** 0.5
    assert 0.999 * bound < float(abs(fc1).max()) <= bound
    assert float(fc1.std()) == pytest.approx(bound / 3**0.5, rel=0.01)
    assert not any(leaf.any() for path, leaf in leaves.items() if path.endswith("bias"))


def results(model, params):
    """What a model computes and its gradient, in one program."""

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(params):
        def loss(params):
            # train=True: only there is the stack rematerialised; nothing is dropped.
            output, aux = model.apply({"params": params}, SOURCE, TARGET, train=True)
            return (output**2).mean(), {"output": output, **aux}

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, outputs), grads = run(params)
    return named_leaves(outputs), grads


def test_every_form_of_the_stacks_computes_the_same():
    """Post-norm; for pre-norm see T5."""
    params = noisy_params(BART)
    outputs, grads = results(BART, params)
    assert outputs["output"].shape == (2, 5, 40)
    assert outputs["decoder/cross"].shape == (2, 2, 2, 5, 7)
    scanned = BART.clone(scan_layers=True, remat="full")
    stacked = stack_layers(params)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, shapes_of(scanned))
    found, own_grads = results(scanned, stacked)
    for path, expected in outputs.items():
        atol = 1e-5 * max(1, float(abs(expected).max()))
        np.testing.assert_allclose(found[path], expected, atol=atol, err_msg=path)
    own_grads = named_leaves(unstack_layers(own_grads))
    # A key's bias moves all scores of a query alike: its gradient is nothing but rounding.
    overall = max(float(abs(g).max()) for g in named_leaves(grads).values())
    for path, expected in named_leaves(grads).items():
        scale = overall if path.endswith("k/bias") else float(abs(expected).max())
        np.testing.assert_allclose(own_grads[path], expected, atol=1e-4 * scale, err_msg=path)


@pytest.mark.parametrize("model", [BASE, BART], ids=["sincos", "learned"])
def test_who_sees_whom(model):
    """The target looks back only; padding on the right, of whatever tokens, changes nothing."""
    here = TARGET.at[:, 3].set(7)
    before, aux = run(model, SOURCE, TARGET)
    after, _ = run(model, SOURCE, here)
    assert not (after - before)[:, :3].any()
    assert jnp.abs(after - before)[:, 3:].max(-1).min() > 1e-4
    assert aux["decoder"]["cross"].min() > 0
    longer = [jnp.pad(x, ((0, 0), (0, 3)), constant_values=9) for x in (SOURCE, TARGET)]
    masks = {
        "source_mask": jnp.arange(10)[None] < jnp.array([[7], [7]]),
        "target_mask": jnp.arange(8)[None] < jnp.array([[5], [5]]),
    }
    padded, aux = run(model, *longer, **masks)
    np.testing.assert_allclose(padded[:, :5], before, atol=2e-5)
    assert not aux["decoder"]["cross"][..., 7:].any()


def test_heads():
    """A text's class is read at the last real place of the target."""
    model = BART.clone(head="sequence", num_classes=3)
    mask = jnp.arange(5)[None] < jnp.array([[5], [3]])
    logits, _ = run(model, SOURCE, TARGET, target_mask=mask)
    cut, _ = run(model, SOURCE[1:], TARGET[1:, :3])
    assert logits.shape == (2, 3)
    np.testing.assert_allclose(logits[1:], cut, atol=1e-5)
    assert run(BART.clone(head="span"), SOURCE, TARGET)[0].shape == (2, 5, 2)
    own = BART.clone(target_vocab_size=11)
    assert run(own, SOURCE, TARGET % 11)[0].shape == (2, 5, 11)


def test_learned_positions_end():
    with pytest.raises(UserError, match="the model has 12 positions, not 13"):
        BART.apply({"params": noisy_params(BART)}, jnp.zeros((1, 13), int), TARGET[:1])


def test_dropout_only_in_training():
    model = BASE.clone(dropout=0.5, scan_layers=True)
    given = {"params": stack_layers(noisy_params(BASE))}

    @jax.jit
    def train(key):
        return model.apply(given, SOURCE, TARGET, train=True, rngs={"dropout": key})[0]

    evaluated, _ = jax.jit(model.apply)(given, SOURCE, TARGET)
    np.testing.assert_allclose(evaluated, run(BASE, SOURCE, TARGET)[0], atol=2e-5)
    first, again, other = (train(jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("pre_norm", [False, True])
def test_as_torchs_transformer(pre_norm):
    """`torch.nn.Transformer` between our embedding and our output, on the same parameters."""
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    model = BASE.clone(attention_bias=True, pre_norm=pre_norm, norm_epsilon=1e-5)
    params = noisy_params(model)
    sizes = {"d_model": 16, "nhead": 2, "dim_feedforward": 32, "dropout": 0.0}
    depths = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    peer = torch.nn.Transformer(**sizes, **depths, batch_first=True, norm_first=pre_norm).double()
    if not pre_norm:  # torch has a norm more than the paper
        peer.encoder.norm = peer.decoder.norm = None
    peer.eval().load_state_dict(name_as_torch(torch, params, pre_norm))
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    found, aux = jax.jit(model.apply)({"params": params}, SOURCE, TARGET, source_mask=mask)

    table = np.asarray(params["embed"]["embedding"], np.float64)
    embed = lambda x: torch.tensor(table[np.asarray(x)] * 4 + sinusoids(x.shape[1], 16))
    padding = torch.tensor(~np.asarray(mask))
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    # Without gradients torch takes a path of its own, by nested tensors.
    encoded = peer.encoder(embed(SOURCE), src_key_padding_mask=padding)
    sees = {"tgt_mask": causal, "memory_key_padding_mask": padding}
    stream = peer.decoder(embed(TARGET), encoded, **sees)
    real = np.asarray(mask)
    np.testing.assert_allclose(aux["encoded"][real], encoded.detach().numpy()[real], atol=2e-5)
    expected = stream.detach().numpy() @ table.T
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


def name_as_torch(torch, params, pre_norm):
    """Our parameters by the keys of `torch.nn.Transformer`."""
    state = {}

    def put(key, part):
        weight = part.get("scale", part.get("kernel"))
        state[f"{key}weight"], state[f"{key}bias"] = weight.T, part["bias"]

    for side in ("encoder", "decoder"):
        parts = {"attn": "self_attn", "cross": "multihead_attn"}
        norms = ("norm1", "norm2") if side == "encoder" else ("norm1", "cross_norm", "norm2")
        for number, block in params[side]["blocks"].items():
            layer = f"{side}.layers.{int(number)}."
            for ours, theirs in parts.items():
                if ours in block:
                    joined = {
                        leaf: jnp.concatenate([block[ours][n][leaf] for n in "qkv"], axis=-1)
                        for leaf in ("kernel", "bias")
                    }
                    put(f"{layer}{theirs}.in_proj_", joined)
                    put(f"{layer}{theirs}.out_proj.", block[ours]["out"])
            put(f"{layer}linear1.", block["mlp"]["fc1"])
            put(f"{layer}linear2.", block["mlp"]["fc2"])
            for i, name in enumerate(norms, 1):
                put(f"{layer}norm{i}.", block[name])
        if pre_norm:
            put(f"{side}.norm.", params[side]["norm"])
    return {key: torch.tensor(np.asarray(leaf, np.float64)) for key, leaf in state.items()}
