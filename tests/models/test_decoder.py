"""GPT-2 and Llama against arithmetic written out in NumPy, their tables, their caches."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.models.decoder import Decoder
from zoo.models.decoder_sizes import ROTARY_SIZES, SIZES
from zoo.tree import count_params, named_leaves, stack_layers

SMALL = Decoder(width=24, depth=2, num_heads=3, vocab_size=50, num_positions=16)
TOKENS = jax.random.randint(jax.random.key(0), (2, 10), 0, 50)


@pytest.fixture(scope="module")
def params():
    params = jax.jit(SMALL.init)(jax.random.key(1), TOKENS)["params"]
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32), params)


def apply(model, params, tokens, **inputs):
    """Compiled: one program is quicker than many operations."""
    return jax.jit(model.apply)({"params": params}, tokens, **inputs)


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def gpt2_by_hand(params, tokens, heads):
    """One sequence, one head at a time, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = p["embed"]["embedding"][tokens] + p["pos"][: len(tokens)]
    for block in p["blocks"].values():
        y = norm(x, block["norm1"])
        q, k, v = (dense(y, block["attn"][name]) for name in "qkv")
        size, mixed = q.shape[1] // heads, []
        for part in (slice(i * size, (i + 1) * size) for i in range(heads)):
            scores = q[:, part] @ k[:, part].T / np.sqrt(size)
            scores[np.triu_indices(len(tokens), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        x = x + dense(np.concatenate(mixed, -1), block["attn"]["out"])
        y = dense(norm(x, block["norm2"]), block["mlp"]["fc1"])
        y = y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))) / 2
        x = x + dense(y, block["mlp"]["fc2"])
    return norm(x, p["norm"]) @ p["embed"]["embedding"].T


def test_by_hand(params):
    logits, _ = apply(SMALL, params, TOKENS)
    for row, tokens in zip(logits, TOKENS, strict=True):
        np.testing.assert_allclose(row, gpt2_by_hand(params, tokens, 3), atol=2e-4, rtol=1e-4)


def test_scanned_equals_unrolled(params):
    a, aux_a = apply(SMALL, params, TOKENS)
    b, aux_b = apply(SMALL.clone(scan_layers=True), stack_layers(params), TOKENS)
    np.testing.assert_allclose(a, b, atol=1e-5)
    for name in ("attention", "hidden"):
        np.testing.assert_allclose(aux_a[name], aux_b[name], atol=1e-5)


@pytest.mark.parametrize(
    ("scan", "cuts"), [(False, (0, 4, 5, 10)), (True, tuple(range(11)))], ids=str
)
def test_the_cache_changes_nothing(params, scan, cuts):
    model = SMALL.clone(scan_layers=scan)
    own = {"params": stack_layers(params) if scan else params}
    step = jax.jit(model.apply)
    whole, _ = step(own, TOKENS)
    cache, parts = model.init_cache(2, 12), []
    for a, b in itertools.pairwise(cuts):
        logits, aux = step(own, TOKENS[:, a:b], cache=cache)
        assert jax.tree.structure(aux["cache"]) == jax.tree.structure(cache)
        cache = aux["cache"]
        parts.append(logits)
    assert int(cache["length"]) == 10
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=2e-5)


def test_padding_is_not_looked_at(params):
    """Left padding with its own positions gives what the text alone gives."""
    alone, _ = apply(SMALL, params, TOKENS[:1])
    padded = jnp.concatenate([jnp.full((1, 3), 7), TOKENS[:1]], axis=1)
    mask = jnp.arange(13)[None] >= 3
    positions = jnp.maximum(jnp.arange(13) - 3, 0)[None]
    out, _ = apply(SMALL, params, padded, mask=mask, positions=positions)
    np.testing.assert_allclose(out[:, 3:], alone, atol=2e-5)
    cached, _ = apply(
        SMALL, params, padded, mask=mask, positions=positions, cache=SMALL.init_cache(1, 13)
    )
    np.testing.assert_allclose(cached[:, 3:], alone, atol=2e-5)


def test_documents_of_one_row_do_not_see_each_other(params):
    alone = [apply(SMALL, params, TOKENS[:1, a:b])[0] for a, b in ((0, 4), (4, 10))]
    segments = jnp.array([[0] * 4 + [1] * 6])
    positions = jnp.array([[*range(4), *range(6)]])
    packed, _ = apply(SMALL, params, TOKENS[:1], segments=segments, positions=positions)
    np.testing.assert_allclose(packed, jnp.concatenate(alone, axis=1), atol=2e-5)


def count_by_hand(width, depth, positions, vocab=50257):
    block = 12 * width**2 + 13 * width  # 4 + 8 matrices, their biases, two norms
    return (vocab + positions) * width + depth * block + 2 * width


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    """Exact counts; the scanned form, so that 96 layers are traced as one."""
    model = zoo.create_model(name, scan_layers=True)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    width, depth, _, positions = SIZES[name]
    assert count_params(shapes) == count_by_hand(width, depth, positions)


@pytest.mark.parametrize(
    ("name", "count"),
    [("gpt2", 124_439_808), ("gpt2_medium", 354_823_168), ("gpt2_large", 774_030_080),
     ("gpt2_xl", 1_557_611_200)],
)  # fmt: skip
def test_published_counts(name, count):
    width, depth, _, positions = SIZES[name]
    assert count_by_hand(width, depth, positions) == count


@pytest.mark.parametrize("name", [n for n in SIZES if n.startswith("gpt3")])
def test_gpt3_is_as_large_as_its_name(name):
    number = name.removeprefix("gpt3_")
    nominal = float(number[:-1]) * {"m": 1e6, "b": 1e9}[number[-1]]
    width, depth, _, positions = SIZES[name]
    assert count_by_hand(width, depth, positions) == pytest.approx(nominal, rel=0.02)


def test_initialisation_is_the_papers():
    model = Decoder(width=128, depth=8, num_heads=4, vocab_size=500, num_positions=64)
    leaves = named_leaves(jax.jit(lambda: zoo.init_params(model))())
    for path, leaf in leaves.items():
        if path.endswith("bias"):
            assert not leaf.any(), path
        elif path.endswith("scale"):
            assert (leaf == 1).all(), path
        else:
            residual = path.endswith(("attn/out/kernel", "mlp/fc2/kernel"))
            expected = 0.02 / 4 if residual else 0.02  # sqrt(2 * 8)
            assert float(leaf.std()) == pytest.approx(expected, rel=0.05), path


def test_too_many_tokens():
    with pytest.raises(UserError, match="has 16 positions, not 17"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 17), jnp.int32))
    with pytest.raises(UserError, match="has 16 positions, not 40"):
        SMALL.init_cache(1, 40)


def test_bfloat16_is_near(params):
    exact, _ = apply(SMALL, params, TOKENS)
    near, _ = apply(SMALL.clone(dtype=jnp.bfloat16), params, TOKENS)
    assert near.dtype == jnp.float32
    assert 0 < np.abs(near - exact).max() < 0.15 * np.abs(exact).max()


# As the publishers' code counts.
COUNTS = {
    "llama_7b": 6_738_415_616,
    "llama_13b": 13_015_864_320,
    "llama_33b": 32_528_943_616,
    "llama_65b": 65_285_660_672,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3.1_8b": 8_030_261_248,
    "llama3.1_70b": 70_553_706_496,
    "llama3.1_405b": 405_853_388_800,
    "llama3.2_1b": 1_235_814_400,
    "llama3.2_3b": 3_212_749_824,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1.7b": 1_711_376_384,
    "mistral_7b_v0.1": 7_241_732_096,
    "mistral_7b_v0.2": 7_241_732_096,
    "mistral_7b_v0.3": 7_248_023_552,
    "mixtral_8x7b": 46_702_792_704,
    "mixtral_8x22b": 140_620_634_112,
    "qwen2_0.5b": 494_032_768,
    "qwen2_1.5b": 1_543_714_304,
    "qwen2_7b": 7_615_616_512,
    "qwen2_72b": 72_706_203_648,
    "qwen2.5_0.5b": 494_032_768,
    "qwen2.5_1.5b": 1_543_714_304,
    "qwen2.5_3b": 3_085_938_688,
    "qwen2.5_7b": 7_615_616_512,
    "qwen2.5_14b": 14_770_033_664,
    "qwen2.5_32b": 32_763_876_352,
    "qwen2.5_72b": 72_706_203_648,
    "qwen3_0.6b": 596_049_920,
    "qwen3_1.7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
    "gemma_2b": 2_506_172_416,
    "gemma_7b": 8_537_680_896,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "gemma3_4b": 3_880_263_168,
    "gemma3_12b": 11_766_034_176,
    "gemma3_27b": 27_009_346_304,
}
LLAMA = zoo.create_model(
    "llama3_8b", width=24, depth=2, num_heads=6, num_kv_heads=2, hidden=40, vocab_size=50
).clone(rotary_base=50.0, num_positions=16)


@functools.cache
def llama_params():
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: zoo.init_params(LLAMA))
    return jax.tree.map(lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype), shapes)


@functools.cache
def run_llama():
    return apply(LLAMA, llama_params(), TOKENS)


@pytest.mark.parametrize("name", [name for table in ROTARY_SIZES for name in table])
def test_rotary_sizes(name):
    model = zoo.create_model(name, scan_layers=True)
    assert count_params(jax.eval_shape(lambda: zoo.init_params(model))) == COUNTS[name]


def llama_by_hand(params, tokens, heads, kv_heads, base):
    """One sequence, one head at a time, in float64; rotary positions as complex numbers."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, p):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]

    def turn(x):
        half = x.shape[1] // 2
        angles = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
        x = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
        return np.concatenate([x.real, x.imag], axis=1)

    x = p["embed"]["embedding"][tokens]
    for block in p["blocks"].values():
        y = norm(x, block["norm1"])
        q, k, v = (y @ block["attn"][name]["kernel"] for name in "qkv")
        q, k, v = np.split(q, heads, 1), np.split(k, kv_heads, 1), np.split(v, kv_heads, 1)
        mixed = []
        for i in range(heads):
            j = i * kv_heads // heads
            scores = turn(q[i]) @ turn(k[j]).T / np.sqrt(q[i].shape[1])
            scores[np.triu_indices(len(tokens), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ v[j])
        x = x + np.concatenate(mixed, -1) @ block["attn"]["out"]["kernel"]
        y, mlp = norm(x, block["norm2"]), {k: v["kernel"] for k, v in block["mlp"].items()}
        gate = y @ mlp["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ mlp["fc1"])) @ mlp["fc2"]
    return norm(x, p["norm"]) @ p["head"]["kernel"]


def test_llama_by_hand():
    for row, tokens in zip(run_llama()[0], TOKENS, strict=True):
        expected = llama_by_hand(llama_params(), tokens, 6, 2, 50.0)
        np.testing.assert_allclose(row, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("scan", [False, True])
def test_llama_scanned_or_not_with_a_cache_or_without(scan):
    """Three tokens, then four, then one by one: keys lie in the cache as they were turned."""
    expected, aux = run_llama()
    model = LLAMA.clone(scan_layers=scan)
    own = {"params": stack_layers(llama_params()) if scan else llama_params()}
    step = jax.jit(model.apply)
    if scan:
        whole, own_aux = step(own, TOKENS)
        np.testing.assert_allclose(whole, expected, atol=1e-5)
        for name in ("attention", "hidden"):
            np.testing.assert_allclose(own_aux[name], aux[name], atol=1e-5)
    cache, parts = model.init_cache(2, 12), []
    cuts = (0, 3, 7, 8, 9, 10)
    for a, b in itertools.pairwise(cuts):
        logits, aux = step(own, TOKENS[:, a:b], cache=cache)
        cache = aux["cache"]
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), expected, atol=2e-5)


# What layers of one stack may differ in, and all that acts on scores.
MIXED = LLAMA.clone(
    depth=4,
    window=3,
    layer_pattern=("local", "local", "global"),
    local_rotary_base=7.0,
    query_key_norm=True,
    score_cap=2.0,
    logit_cap=3.0,
    post_norms=True,
    norm="rms_plus_one",
    scaled_embedding=True,
)
WINDOWED = LLAMA.clone(window=3, query_key_norm=True)


@functools.cache
def make_params(model):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    return jax.tree.map(lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype), shapes)


@pytest.mark.parametrize("model", [MIXED, WINDOWED], ids=["mixed", "windowed"])
def test_windows_scanned_or_not_with_a_cache_or_without(model):
    """Whole; scanned; with a cache, three tokens, then four, then one by one."""
    params = make_params(model)
    expected, aux = apply(model, params, TOKENS)
    for local, weights in zip(model.layer_kinds(), aux["attention"], strict=True):
        far = np.tril(np.ones((10, 10)), -3).astype(bool)
        assert (weights[..., far] == 0).all() == (local == "local")
    scanned, own = model.clone(scan_layers=True), {"params": stack_layers(params)}
    whole, own_aux = apply(scanned, own["params"], TOKENS)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(own_aux["attention"], aux["attention"], atol=1e-5)
    step = jax.jit(scanned.apply)
    cache, parts = scanned.init_cache(2, 12), []
    for a, b in itertools.pairwise((0, 3, 7, 8, 9, 10)):
        logits, aux = step(own, TOKENS[:, a:b], cache=cache)
        cache = aux["cache"]
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), expected, atol=2e-5)


def test_windows_with_padding():
    """Left padding with its own positions gives what the text alone gives."""
    alone, _ = apply(MIXED, make_params(MIXED), TOKENS[:1])
    padded = jnp.concatenate([jnp.full((1, 5), 7), TOKENS[:1]], axis=1)
    mask = jnp.arange(15)[None] >= 5
    positions = jnp.maximum(jnp.arange(15) - 5, 0)[None]
    for cache in (None, MIXED.init_cache(1, 15)):
        given = {} if cache is None else {"cache": cache}
        out, _ = apply(MIXED, make_params(MIXED), padded, mask=mask, positions=positions, **given)
        np.testing.assert_allclose(out[:, 5:], alone, atol=2e-5)


@pytest.mark.parametrize("base", [SMALL, LLAMA], ids=["gpt2", "llama"])
def test_heads(base):
    """'none' is the normed stream, 'sequence' reads it at the last real token."""
    shapes = jax.eval_shape(lambda: zoo.init_params(base.clone(head="sequence", num_classes=3)))
    random = np.random.default_rng(0)
    given = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), shapes)
    bare = {k: v for k, v in given.items() if k != "head"}
    # The second row has a hole, the third is padded on the left.
    lengths = jnp.arange(10)[None] < jnp.array([[10], [7], [10]])
    mask = lengths.at[1, 2].set(False).at[2, :4].set(False)
    tokens = jnp.concatenate([TOKENS, TOKENS[:1]])

    @jax.jit
    def run(mask):
        read = base.clone(head="sequence", num_classes=3)
        stream, aux = base.clone(head="none").apply({"params": bare}, tokens, mask=mask)
        classes, _ = read.apply({"params": given}, tokens, mask=mask)
        last, _ = read.apply({"params": given}, tokens)
        unmasked, _ = base.clone(head="none").apply({"params": bare}, tokens)
        return stream, aux["hidden"][-1], classes, last, unmasked

    stream, hidden, classes, last, unmasked = run(mask)
    assert stream.shape == hidden.shape == (3, 10, 24)
    # Normed, by a scale of its own.
    assert np.abs(stream - hidden).max() > 0.1
    ends = stream[jnp.arange(3), jnp.array([9, 6, 9])]
    np.testing.assert_allclose(classes, ends @ given["head"]["kernel"], atol=1e-4)
    np.testing.assert_allclose(last, unmasked[:, -1] @ given["head"]["kernel"], atol=1e-4)
