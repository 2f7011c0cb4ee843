"""BART's and Marian's files as they are published: copies, fixed positions, what is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from twins import FOLDER

import zoo
from zoo.config import UserError
from zoo.models.transformer import sinusoids
from zoo.tree import named_leaves


def write_variant(name, folder, more, config=None):
    """A twin's folder with further tensors and keys of its config."""
    folder.mkdir()
    told = json.loads((FOLDER / name / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **(config or {})}))
    tensors = load_file(FOLDER / name / "model.safetensors")
    save_file({**tensors, **more}, folder / "model.safetensors")
    return folder


def test_bart_as_published(tmp_path):
    """Three copies of the embedding, and the number of a format."""
    shared = load_file(FOLDER / "bart_lm/model.safetensors")["model.shared.weight"]
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    more = {**dict.fromkeys((*names, "lm_head.weight"), shared)}
    version = {"model.encoder.version": np.array([3.0], np.float32)}
    loaded = zoo.load_pretrained(write_variant("bart_lm", tmp_path / "new", {**more, **version}))
    expected = named_leaves(zoo.load_pretrained(FOLDER / "bart_lm").params)
    for path, leaf in named_leaves(loaded.params).items():
        np.testing.assert_array_equal(leaf, expected[path])
    assert [line.split(":")[0] for line in loaded.report] == ["model.encoder.version"]
    more["lm_head.weight"] = shared + 1
    with pytest.raises(UserError, match=r"lm_head\.weight should be a copy of model\.shared"):
        zoo.load_pretrained(write_variant("bart_lm", tmp_path / "other", more))


def test_marians_fixed_positions(tmp_path):
    """Old files hold them; half precision is near enough, another table is refused."""
    names = [f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")]
    more = dict.fromkeys(names, sinusoids(12, 8).astype(np.float16))
    loaded = zoo.load_pretrained(write_variant("marian_mt", tmp_path / "new", more))
    assert sorted(line.split(":")[0] for line in loaded.report) == sorted(names)
    more = dict.fromkeys(names, np.roll(sinusoids(12, 8), 1, axis=0))
    with pytest.raises(UserError, match=r"embed_positions\.weight are not the sines and cosines"):
        zoo.load_pretrained(write_variant("marian_mt", tmp_path / "other", more))


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("bart_lm", {"normalize_before": True}, "normalize_before=True is not supported"),
        ("bart_lm", {"decoder_ffn_dim": 8}, "encoder_ffn_dim=16 and decoder_ffn_dim=8: only equal"),
        ("bart_lm", {"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ("marian_mt", {"decoder_vocab_size": 31}, "decoder_vocab_size=31 is not supported"),
    ],
)
def test_what_is_refused(tmp_path, name, config, message):
    with pytest.raises(UserError, match=message):
        zoo.load_pretrained(write_variant(name, tmp_path / "new", {}, config))


def test_what_transformers_has_no_class_for(tmp_path):
    """The 2017 model has an epsilon of its own and no biases in attention."""
    sizes = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 8, "vocab_size": 20}
    model = zoo.create_model("transformer_base", **sizes)
    with pytest.raises(UserError, match=r"fits the model: marian has no .*attention_bias=False"):
        zoo.save_pretrained(model, zoo.init_params(model), tmp_path / "new")


def test_more_positions_and_classes(tmp_path):
    folder = tmp_path / "bart"
    shutil.copytree(FOLDER / "bart_classifier", folder)
    before = zoo.load_pretrained(folder)
    after = zoo.load_pretrained(folder, num_positions=20, num_classes=5)
    old, new = (named_leaves(x.params) for x in (before, after))
    assert new["encoder/pos/embedding"].shape == (22, 8)
    np.testing.assert_array_equal(new["encoder/pos/embedding"][:14], old["encoder/pos/embedding"])
    assert new["head/out/kernel"].shape == (8, 5)
    assert any(line.startswith("encoder/pos/embedding: 14 -> 22") for line in after.report)
