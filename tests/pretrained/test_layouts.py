"""Weights in and out: every layout that is read or written, and what comes along with them."""

from __future__ import annotations

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
import tokenizers
from compare import real_places
from safetensors.numpy import load_file, save_file
from twins import CASES, FOLDER

import zoo
from zoo.models import ViT
from zoo.models.vit import SIZES
from zoo.pretrained import convert
from zoo.pretrained.processor import Processor
from zoo.tree import is_stacked, named_leaves

RECORDED = [case.name for case in CASES if case.recorded]
FEW = ["vit_oblong", "gpt2_classifier", "bert_untied", "albert_headless", "llama_tied", "t5_v1_1"]
INPUTS = ("tokens", "types", "mask", "images", "source", "target", "source_mask", "target_mask")
INPUTS += ("masked", "noise")


def check_output(loaded, twin, tolerance):
    """The output against the recorded one, but for padding."""
    reference = load_file(FOLDER / twin / "reference.safetensors")
    inputs = {k: v.astype(bool) if "mask" in k else v for k, v in reference.items() if k in INPUTS}
    output = jax.jit(lambda p, x: loaded.model.apply({"params": p}, **x)[0])(loaded.params, inputs)
    expected = reference["output"]
    real = real_places("output", inputs, expected)
    difference = np.abs(np.asarray(output, np.float32) - expected)[real].max()
    assert difference <= tolerance * np.abs(expected[real]).max()


def assert_equal(loaded, other):
    assert loaded.model == other.model
    leaves, others = named_leaves(loaded.params), named_leaves(other.params)
    assert leaves.keys() == others.keys()
    for path, leaf in leaves.items():
        assert leaf.dtype == others[path].dtype
        np.testing.assert_array_equal(leaf, others[path], err_msg=path)


def assert_same_file(folder, twin):
    """Keys, shapes and bytes."""
    written = load_file(folder / "model.safetensors")
    recorded = load_file(FOLDER / twin / "model.safetensors")
    assert written.keys() == recorded.keys()
    if twin == "bert_untied":  # a name without effect: the bias that counts is written there too
        recorded["cls.predictions.bias"] = recorded["cls.predictions.decoder.bias"]
    for key, array in recorded.items():
        assert written[key].shape == array.shape
        assert written[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("twin", RECORDED)
def test_what_is_loaded_is_written_bit_for_bit(tmp_path, twin):
    loaded = zoo.load_pretrained(FOLDER / twin)
    zoo.save_pretrained(loaded.model, loaded.params, tmp_path)
    assert_same_file(tmp_path, twin)
    if twin in FEW:
        assert_equal(loaded, zoo.load_pretrained(tmp_path))


@pytest.mark.parametrize("twin", FEW)
def test_to_our_layout_and_back(tmp_path, twin):
    shutil.copytree(FOLDER / twin, tmp_path / "hf")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}))
    companions = {"tokenizer.json": words.to_str(), "preprocessor_config.json": "{}"}
    for name, text in companions.items():
        (tmp_path / "hf" / name).write_text(text)
    convert(tmp_path / "hf", tmp_path / "zoo")
    convert(tmp_path / "zoo", tmp_path / "again")
    assert_same_file(tmp_path / "again", twin)
    assert_equal(zoo.load_pretrained(FOLDER / twin), zoo.load_pretrained(tmp_path / "zoo"))
    for name, text in companions.items():
        assert (tmp_path / "again" / name).read_text() == text
    files = {"zoo.json", "model.safetensors", *companions}
    assert {p.name for p in (tmp_path / "zoo").iterdir()} == files


def test_shards(tmp_path):
    loaded = zoo.load_pretrained(FOLDER / "gpt2_lm")
    zoo.save_pretrained(loaded.model, loaded.params, tmp_path, max_shard_bytes=10_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    sharded = zoo.load_pretrained(tmp_path)
    assert_equal(loaded, sharded)
    files = sorted(tmp_path.glob("model-*.safetensors"))
    lines = [f"{f.name} {hashlib.sha256(f.read_bytes()).hexdigest()}\n" for f in files]
    assert sharded.card.source_hash == hashlib.sha256("".join(lines).encode()).hexdigest()


# --- files of flax and timm, written from a twin's tensors -----------------------------------


def flax_dense(weight, bias):
    return {"kernel": weight.T, "bias": bias}


def flax_attention(theirs, start, num_heads):
    """[d, n, h] and [n, h] of queries, keys and values; [n, h, d] of the output."""
    made = {}
    for name in ("query", "key", "value"):
        weight = theirs[f"{start}attention.{name}.weight"]
        split = weight.reshape(num_heads, -1, weight.shape[1])
        bias = theirs[f"{start}attention.{name}.bias"].reshape(num_heads, -1)
        made[name] = {"kernel": np.moveaxis(split, 2, 0), "bias": bias}
    weight = theirs[f"{start}output.dense.weight"]
    split = weight.reshape(len(weight), num_heads, -1)
    made["out"] = {"kernel": np.moveaxis(split, 0, 2), "bias": theirs[f"{start}output.dense.bias"]}
    return made


def flax_vit(twin, names, num_heads=2):
    """A twin as flax holds it: nested, under the names of attention, second norm and MLP."""
    theirs = {
        k.removeprefix("vit."): v for k, v in load_file(FOLDER / twin / "model.safetensors").items()
    }

    def norm(key):
        return {"scale": theirs[f"{key}.weight"], "bias": theirs[f"{key}.bias"]}

    def dense(key):
        return flax_dense(theirs[f"{key}.weight"], theirs[f"{key}.bias"])

    attention, norm2, mlp = names
    projection = "embeddings.patch_embeddings.projection"
    tree = {
        "cls": theirs["embeddings.cls_token"],
        "embedding": {
            "kernel": theirs[f"{projection}.weight"].transpose(2, 3, 1, 0),
            "bias": theirs[f"{projection}.bias"],
        },
        "Transformer": {"encoder_norm": norm("layernorm")},
    }
    for i in range(2):
        layer = f"encoder.layer.{i}."
        tree["Transformer"][f"encoderblock_{i}"] = {
            "LayerNorm_0": norm(f"{layer}layernorm_before"),
            attention: flax_attention(theirs, f"{layer}attention.", num_heads),
            norm2: norm(f"{layer}layernorm_after"),
            mlp: {
                "Dense_0": dense(f"{layer}intermediate.dense"),
                "Dense_1": dense(f"{layer}output.dense"),
            },
        }
    if "pooler.dense.weight" in theirs:
        tree["pre_logits"] = dense("pooler.dense")
    if "classifier.weight" in theirs:
        tree["head"] = dense("classifier")
    return tree, theirs["embeddings.position_embeddings"]


AUGREG = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
BIG_VISION = ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


@pytest.mark.parametrize("twin", ["vit_classifier", "vit_pooler"])
@pytest.mark.parametrize("names", [AUGREG, BIG_VISION], ids=["augreg", "big_vision"])
def test_flax_files(tmp_path, twin, names):
    tree, positions = flax_vit(twin, names)
    if names == AUGREG:
        tree["Transformer"]["posembed_input"] = {"pos_embedding": positions}
    else:
        tree = {"params": {**tree, "pos_embedding": positions}, "opt": {"step": np.zeros(1)}}
    np.savez(tmp_path / "vit.npz", **named_leaves(tree))
    original = zoo.load_pretrained(FOLDER / twin)
    # flax's own are 1e-6 and the tanh form, the twins' are not
    own = {name: getattr(original.model, name) for name in ("norm_epsilon", "activation")}
    loaded = zoo.load_pretrained(tmp_path / "vit.npz", **own)
    told = ("opt/step: left aside, the optimizer's state",) if names == BIG_VISION else ()
    assert loaded.report == told
    assert_equal(original, loaded)
    plain = zoo.load_pretrained(tmp_path / "vit.npz").model
    assert (plain.norm_epsilon, plain.activation) == (1e-6, "gelu_tanh")
    # What transformers' layout can say, it says.
    convert(tmp_path / "vit.npz", tmp_path / "hf", "hf")
    assert_same_file(tmp_path / "hf", twin)


def pool_by_hand(x, head):
    """big_vision's MAPHead on `[b, t, d]`: a query's attention, then a residual MLP."""
    attention, norm = head["MultiHeadDotProductAttention_0"], head["LayerNorm_0"]

    def project(name, y):
        part = attention[name]
        return np.einsum("btd,dnh->bnth", y, part["kernel"]) + part["bias"][:, None]

    scores = np.einsum("bnth,bnsh->bnts", project("query", head["probe"]), project("key", x))
    weights = np.exp(scores / np.sqrt(attention["query"]["bias"].shape[1]))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bnts,bnsh->btnh", weights, project("value", x))
    out = attention["out"]
    y = np.einsum("btnh,nhd->btd", mixed, out["kernel"]) + out["bias"]
    z = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    z = z * norm["scale"] + norm["bias"]
    first, second = head["MlpBlock_0"]["Dense_0"], head["MlpBlock_0"]["Dense_1"]
    z = np.asarray(jax.nn.gelu(z @ first["kernel"] + first["bias"], approximate=True))
    return (y + z @ second["kernel"] + second["bias"])[:, 0]


def test_the_pooling_of_big_vision(tmp_path):
    tree, positions = flax_vit("vit_classifier", BIG_VISION)
    random = np.random.default_rng(0)

    def draw(*shape):
        return random.normal(size=shape, scale=0.5).astype(np.float32)

    part = {"kernel": draw(16, 2, 8), "bias": draw(2, 8)}
    pool = {
        "probe": draw(1, 1, 16),
        "MultiHeadDotProductAttention_0": {
            **{name: {k: draw(*v.shape) for k, v in part.items()} for name in ("query", "key")},
            "value": part,
            "out": {"kernel": draw(2, 8, 16), "bias": draw(16)},
        },
        "LayerNorm_0": {"scale": draw(16), "bias": draw(16)},
        "MlpBlock_0": {
            "Dense_0": {"kernel": draw(16, 32), "bias": draw(32)},
            "Dense_1": {"kernel": draw(32, 16), "bias": draw(16)},
        },
    }
    del tree["cls"]
    tree = {**tree, "pos_embedding": positions[:, 1:], "MAPHead_0": pool}
    np.savez(tmp_path / "map.npz", **named_leaves({"params": tree}))
    loaded = zoo.load_pretrained(tmp_path / "map.npz")
    assert loaded.model == ViT(
        16, 2, 2, 32, 4, (8, 8), num_classes=5, pooling="map", activation="gelu_tanh"
    )
    images = load_file(FOLDER / "vit_classifier" / "reference.safetensors")["images"]
    logits, aux = jax.jit(loaded.model.apply)({"params": loaded.params}, images)
    pooled = pool_by_hand(np.asarray(aux["encoded"]), pool)
    np.testing.assert_allclose(aux["pooled"], pooled, atol=2e-6)
    by_hand = pooled @ tree["head"]["kernel"] + tree["head"]["bias"]
    np.testing.assert_allclose(logits, by_hand, atol=5e-6)


def timm_vit(twin):
    """A twin by timm's keys: queries, keys and values below each other."""
    names = {
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "vit.encoder.layer": "blocks",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "vit.layernorm": "norm",
        "classifier": "head",
    }
    made = {}
    for key, array in load_file(FOLDER / twin / "model.safetensors").items():
        for theirs, timms in names.items():
            key = key.replace(theirs, timms)
        made[key] = array
    for i in range(2):
        for part in ("weight", "bias"):
            parts = (
                f"blocks.{i}.attention.attention.{n}.{part}" for n in ("query", "key", "value")
            )
            made[f"blocks.{i}.attn.qkv.{part}"] = np.concatenate([made.pop(p) for p in parts])
    return made


def test_timm_files(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "twin", (16, 2, 2, 32))  # where the number of heads is looked up
    save_file(timm_vit("vit_classifier"), tmp_path / "vit.safetensors")
    original = zoo.load_pretrained(FOLDER / "vit_classifier")
    loaded = zoo.load_pretrained(tmp_path / "vit.safetensors", norm_epsilon=1e-12)
    assert_equal(original, loaded)
    # A folder, as the hub has it; what is no square only config.json can say.
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(timm_vit("vit_oblong"), folder / "model.safetensors")
    told = {"input_size": [3, 8, 12], "mean": [0.1, 0.2, 0.3], "std": [1, 2, 4]}
    told |= {"interpolation": "bicubic", "crop_pct": 0.8, "crop_mode": "center"}
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": told}
    (folder / "config.json").write_text(json.dumps(config))
    changes = {"norm_epsilon": 1e-12, "activation": "gelu_tanh"}
    loaded = zoo.load_pretrained(folder, **changes)
    assert_equal(zoo.load_pretrained(FOLDER / "vit_oblong"), loaded)
    expected = Processor((8, 12), (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), "bicubic", 0.8)
    assert loaded.processor == expected == loaded.card.processor


# --- changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("twin", "head", "changes", "report", "shapes"),
    [
        (
            "vit_classifier",
            None,
            {"num_classes": 3, "image_size": (16, 8)},
            ["pos: 2x2 -> 4x2 grid, bicubic; 1 prefix token kept", "head: 5 -> 3 classes, init"],
            {"head/kernel": (16, 3), "head/bias": (3,), "pos": (9, 16)},
        ),
        ("vit_classifier", "none", {}, ["head: not in the new model, dropped"], {}),
        (
            "vit_pooler",
            "classification",
            {"num_classes": 4},
            ["head: not in the old model, initialised anew"],
            {"head/kernel": (16, 4), "head/bias": (4,)},
        ),
        (
            "gpt2_lm",
            None,
            {"vocab_size": 53, "num_positions": 30},
            ["embed/embedding: vocabulary 50 -> 53, 3 rows added", "pos: 24 -> 30 positions"],
            {"embed/embedding": (53, 16), "pos": (30, 16)},
        ),
        (
            "gpt2_lm",
            "sequence",
            {"num_classes": 4},
            ["head: not in the old model, initialised anew"],
            {"head/kernel": (16, 4)},
        ),
        ("bert_masked_lm", "none", {}, ["head: not in the new model, dropped"], {}),
        (
            "bert_masked_lm",
            "sequence",
            {"num_classes": 3},
            ["head/fc/kernel", "pooler: not in the old model", "head/kernel: not in the old model"],
            {
                "pooler/kernel": (16, 16),
                "pooler/bias": (16,),
                "head/kernel": (16, 3),
                "head/bias": (3,),
            },
        ),
        (
            "bert_headless",
            "sequence",
            {},
            ["head: not in the old model, initialised anew"],
            {"head/kernel": (16, 2), "head/bias": (2,)},
        ),
        ("t5_v1_1", "none", {}, ["head: not in the new model, dropped"], {}),
    ],
)
def test_a_changed_model(twin, head, changes, report, shapes):
    original = zoo.load_pretrained(FOLDER / twin)
    loaded = zoo.load_pretrained(FOLDER / twin, head, **changes)
    for line in report:
        assert any(told.startswith(line) for told in loaded.report), loaded.report
    before, after = named_leaves(original.params), named_leaves(loaded.params)
    for path, shape in shapes.items():
        assert after[path].shape == shape
    for path, leaf in after.items():
        if path not in shapes:
            np.testing.assert_array_equal(leaf, before[path], err_msg=path)


@pytest.mark.parametrize("twin", ["vit_oblong", "llama_tied", "t5_v1_1"])
def test_scanned_layers_compute_the_same(twin):
    loaded = zoo.load_pretrained(FOLDER / twin, scan_layers=True)
    assert loaded.report == ()
    assert any(is_stacked(path) for path in named_leaves(loaded.params))
    check_output(loaded, twin, 1e-5)


def test_another_dtype():
    loaded = zoo.load_pretrained(FOLDER / "gpt2_lm", dtype="bfloat16", num_positions=30)
    assert {x.dtype.name for x in jax.tree.leaves(loaded.params)} == {"bfloat16"}
    check_output(loaded, "gpt2_lm", 0.05)


# --- what lies beside the weights ------------------------------------------------------------


def test_the_card(tmp_path):
    folder = tmp_path / "vit"
    shutil.copytree(FOLDER / "vit_classifier", folder)
    readme = '---\ntags: [x]\nlicense: "apache-2.0"\n---\n# A model\nlicense: none\n'
    (folder / "README.md").write_text(readme)
    told = {"image_mean": [0, 0.5, 1], "image_std": [0.5, 1, 2], "resample": 3, "size": 224}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    loaded = zoo.load_pretrained(folder, image_size=(16, 12))
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.card.source_hash == expected
    assert (loaded.card.source, loaded.card.licence) == (str(folder), "apache-2.0")
    # The size is that of the model as it is now.
    assert loaded.processor == Processor((16, 12), (0.0, 0.5, 1.0), (0.5, 1.0, 2.0), "bicubic")
    zoo.save_pretrained(loaded.model, loaded.params, tmp_path / "out", processor=loaded.processor)
    assert zoo.load_pretrained(tmp_path / "out").processor == loaded.processor
    bare = zoo.load_pretrained(FOLDER / "vit_grey")
    assert bare.card.licence is None
    assert bare.processor == Processor((8, 8), (0.5,), (0.5,))
    assert zoo.load_pretrained(FOLDER / "gpt2_lm").processor is None
