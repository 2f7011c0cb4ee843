"""Live twins: small models of transformers, made here and now, against ours.

What `test_twins.py` holds for one recorded version is held for the installed one; and what only
torch can say: files of its own formats, and whether it reads what we write.
"""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import check_twin
from safetensors.numpy import load_file, save_file
from twins import CASES, load_reference_model, make_inputs, make_twin, run_reference

import zoo
from zoo.config import UserError
from zoo.models.mae import compare_pixels
from zoo.models.patches import cut_patches
from zoo.tree import is_stacked, named_leaves

pytestmark = [
    pytest.mark.usefixtures("torch"),
    pytest.mark.parity,
    # torch.jit is deprecated, and timm and transformers still use it.
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]
BY_NAME = {case.name: case for case in CASES}
# One of each family.
FEW = ["vit_classifier", "gpt2_lm", "bert_masked_lm", "albert_masked_lm", "llama_grouped", "t5_v1"]
FEW += ["electra_generator", "roberta_masked_lm", "distilbert_masked_lm", "gemma3_lm"]
FEW += ["marian_mt", "bart_lm", "mbart_lm", "clip_published", "siglip_pixels"]
SAME_OUTPUT = 1e-6  # of the largest magnitude: one program, one set of weights


@pytest.fixture(scope="module")
def twin(torch, tmp_path_factory):
    """Name of a case -> its folder, made once and only read."""
    root = tmp_path_factory.mktemp("twins")

    def make(name: str):
        folder = root / name
        if not folder.exists():
            make_twin(BY_NAME[name], folder)
        return folder

    return make


def load_tensors(folder):
    """The one safetensors file of a folder."""
    return load_file(folder / "model.safetensors")


def assert_equal(found, expected):
    """Two trees or tables of arrays: the same names, dtypes, bits."""
    found, expected = named_leaves(found), named_leaves(expected)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        one, other = np.asarray(found[name]), np.asarray(array)
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        assert one.tobytes() == other.tobytes(), name


# The recorded ones are compared without torch, by test_twins.py.
@pytest.mark.parametrize("name", [case.name for case in CASES if not case.recorded])
def test_outputs_and_gradients(twin, name):
    check_twin(twin(name))


@pytest.mark.parametrize("name", FEW)
def test_scanned_layers(twin, name):
    check_twin(twin(name), scan_layers=True)
    paths = named_leaves(zoo.load_pretrained(twin(name), scan_layers=True).params)
    assert any(is_stacked(path) for path in paths)
    assert not any("blocks/00" in path for path in paths)


@pytest.mark.parametrize("name", BY_NAME)
def test_transformers_loads_what_we_write(twin, tmp_path, name):
    case, folder = BY_NAME[name], twin(name)
    loaded = zoo.load_pretrained(folder)
    zoo.save_pretrained(loaded.model, loaded.params, tmp_path / "new")
    written, original = load_tensors(tmp_path / "new"), load_tensors(folder)
    aside = [line.split(":")[0] for line in loaded.report]
    assert aside == (["cls.predictions.bias"] if name == "bert_untied" else [])
    for key in aside:  # has no effect in transformers, and is written as what has one
        original[key] = original["cls.predictions.decoder.bias"]
    assert_equal(written, original)
    # XLM-R is written as RoBERTa, an mT5 is a T5 1.1.
    named = json.loads((tmp_path / "new/config.json").read_text())["architectures"]
    assert named == [case.model.removeprefix("XLM").replace("MT5", "T5")]
    theirs, _ = load_reference_model(case, folder)
    again, info = load_reference_model(case, tmp_path / "new")
    assert not any(info.values()), info
    # Classifiers find a row's end by it; a model of ours does not know its tokenizer.
    again.config.pad_token_id = getattr(theirs.config, "pad_token_id", None)
    inputs = make_inputs(case)
    outputs = run_reference(again, case, inputs)
    for key, expected in run_reference(theirs, case, inputs).items():
        difference = np.abs(outputs[key] - expected).max()
        assert difference <= SAME_OUTPUT * np.abs(expected).max(), (key, difference)


def write_torch(torch, folder, target, dtype, **options):
    """A folder with `pytorch_model.bin` in place of safetensors."""
    target.mkdir()
    shutil.copy(folder / "config.json", target)
    tensors = load_tensors(folder).items()
    state = {key: torch.tensor(array).to(dtype) for key, array in tensors}
    torch.save(state, target / "pytorch_model.bin", **options)


@pytest.mark.parametrize("layout", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["gpt2_lm", "t5_v1_1"])
def test_formats_and_dtypes(torch, twin, tmp_path, name, dtype, layout):
    folder, target = twin(name), tmp_path / "new"
    if layout == "safetensors":
        model, _ = load_reference_model(BY_NAME[name], folder)
        model.to(getattr(torch, dtype)).save_pretrained(target)
    else:
        options = {"_use_new_zipfile_serialization": layout == "zip"}
        write_torch(torch, folder, target, getattr(torch, dtype), **options)
    # Rounding to a dtype by JAX and by torch is the same.
    expected = zoo.load_pretrained(folder, dtype=dtype)
    assert_equal(zoo.load_pretrained(target).params, expected.params)


@pytest.mark.parametrize("name", FEW)
def test_shards(twin, tmp_path, name):
    model, _ = load_reference_model(BY_NAME[name], twin(name))
    model.save_pretrained(tmp_path, max_shard_size="5kB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert_equal(zoo.load_pretrained(tmp_path).params, zoo.load_pretrained(twin(name)).params)


def write_variant(folder, target, tensors):
    """The folder's config beside other tensors."""
    target.mkdir()
    shutil.copy(folder / "config.json", target)
    save_file(tensors, target / "model.safetensors")
    return zoo.load_pretrained(target)


def test_gpt2_as_published(twin, tmp_path):
    """No 'transformer.' before the keys, a causal mask in each layer."""
    folder = twin("gpt2_lm")
    tensors = {k.removeprefix("transformer."): v for k, v in load_tensors(folder).items()}
    masks = {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 24, 24), np.float32)) for i in range(2)}
    loaded = write_variant(folder, tmp_path / "new", {**tensors, **masks})
    assert_equal(loaded.params, zoo.load_pretrained(folder).params)
    assert sorted(line.split(":")[0] for line in loaded.report) == sorted(masks)


def test_bert_as_published(twin, tmp_path):
    """Norms of gamma and beta, numbered positions, both pre-training heads, a pooler."""
    folder, old = twin("bert_masked_lm"), {}
    for key, array in load_tensors(folder).items():
        gamma = key.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[gamma.replace("LayerNorm.bias", "LayerNorm.beta")] = array
    random = np.random.default_rng(0)
    pooler = random.normal(size=(16, 16)).astype(np.float32)
    aside = {
        "bert.embeddings.position_ids": np.arange(24)[None],
        "cls.seq_relationship.weight": pooler[:2],
        "cls.seq_relationship.bias": pooler[0, :2],
    }
    old |= {
        **aside,
        "bert.pooler.dense.weight": pooler,
        "bert.pooler.dense.bias": pooler[0],
        "cls.predictions.decoder.weight": old["bert.embeddings.word_embeddings.weight"],
    }
    loaded = write_variant(folder, tmp_path / "new", old)
    expected = zoo.load_pretrained(folder).params
    expected |= {"pooler": {"kernel": pooler.T, "bias": pooler[0]}}
    assert_equal(loaded.params, expected)
    assert sorted(line.split(":")[0] for line in loaded.report) == sorted(aside)


def test_t5_as_published(twin, tmp_path):
    """Three copies of the embedding, and relative positions that nobody reads."""
    folder = twin("t5_v1")
    tensors = load_tensors(folder)
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    stray = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    more = {**dict.fromkeys(names, tensors["shared.weight"]), stray: np.ones((32, 2), np.float32)}
    loaded = write_variant(folder, tmp_path / "new", {**tensors, **more})
    assert_equal(loaded.params, zoo.load_pretrained(folder).params)
    assert [line.split(":")[0] for line in loaded.report] == [stray]
    differs = {"decoder.embed_tokens.weight": tensors["shared.weight"] + 1}
    with pytest.raises(UserError, match=r"decoder\.embed_tokens\.weight should be a copy"):
        write_variant(folder, tmp_path / "other", {**tensors, **differs})


def test_llama_as_published(twin, tmp_path):
    """The rotary rates of each layer."""
    folder = twin("llama_grouped")
    rates = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(2, "f4") for i in range(2)}
    loaded = write_variant(folder, tmp_path / "new", {**load_tensors(folder), **rates})
    assert_equal(loaded.params, zoo.load_pretrained(folder).params)
    assert sorted(line.split(":")[0] for line in loaded.report) == sorted(rates)


@pytest.mark.parametrize("normed", [False, True])
def test_the_loss_of_a_mae(torch, twin, normed):
    case, folder = BY_NAME["mae_pixels"], twin("mae_pixels")
    theirs, _ = load_reference_model(case, folder)
    theirs.config.norm_pix_loss = normed
    inputs = make_inputs(case)
    images, noise = inputs["images"], inputs["noise"]
    with torch.no_grad():
        turned = torch.tensor(images.transpose(0, 3, 1, 2))
        expected = theirs(pixel_values=turned, noise=torch.tensor(noise)).loss.item()
    loaded = zoo.load_pretrained(folder)

    @jax.jit
    def run(images, noise):
        pixels, aux = loaded.model.apply({"params": loaded.params}, images, noise)
        losses = compare_pixels(pixels, cut_patches(images, (16, 16), 4, 3), normed)
        return (losses * aux["masked"]).sum() / aux["masked"].sum()

    assert float(run(images, noise)) == pytest.approx(expected, rel=1e-5)


def test_imbalance_of_experts(torch, twin):
    """The loss that transformers adds to Mixtral's, with padding and without."""
    case = BY_NAME["mixtral_lm"]
    theirs, _ = load_reference_model(case, twin(case.name))
    loaded, inputs = zoo.load_pretrained(twin(case.name)), make_inputs(case)
    tokens, mask = (torch.tensor(inputs[name]).long() for name in ("tokens", "mask"))
    for padding in (None, mask):
        result = theirs(tokens, attention_mask=padding, output_router_logits=True)
        ours = None if padding is None else jnp.asarray(inputs["mask"], bool)
        _, aux = loaded.model.apply(
            {"params": loaded.params}, jnp.asarray(inputs["tokens"]), mask=ours
        )
        assert float(aux["imbalance"]) == pytest.approx(result.aux_loss.item(), rel=1e-5)
