"""CLIP and SigLIP: their processors, tokenizer, old configs, and what cannot be followed."""

import json

import jax
import numpy as np
import pytest
from tokenizers import pre_tokenizers

import zoo
from zoo.config import UserError
from zoo.data.tokenizers.files import from_clip_files
from zoo.models import CLIP
from zoo.pretrained.clip import read_config
from zoo.pretrained.describe import architecture_of
from zoo.pretrained.family import TheirConfig
from zoo.pretrained.load import default_processor
from zoo.pretrained.processor import Processor
from zoo.pretrained.tensors import MemoryTensors
from zoo.pretrained.text import find_tokenizer

MERGES = ["a n", "an d</w>", "t h", "th e</w>", "c a", "ca t</w>", "' s</w>", "Ã ©</w>"]
TEXTS = ["The  cat's café,\tAND 12 dogs", "", "don't! 日本 x2y"]


def make_files():
    """A small vocab.json and merges.txt as CLIP's."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*bytes_, *(b + "</w>" for b in bytes_), *joined, "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return json.dumps(vocab), "\n".join(["#version: 0.2", *MERGES]) + "\n"


def test_tokenizer_by_hand():
    vocab, merges = make_files()
    tokenizer, ids = from_clip_files(vocab, merges), json.loads(vocab)
    words = ["<|startoftext|>", "the</w>", "cat</w>", "'s</w>", "1</w>", "2</w>", "<|endoftext|>"]
    row = tokenizer.batch(["The  CAT's 12"])["tokens"][0]
    assert row.tolist() == [ids[word] for word in words]
    assert tokenizer.decode(row) == "the cat 's 1 2"
    assert tokenizer.token_bytes is None


def test_a_clip_folder_gets_its_own_tokenizer(tmp_path):
    vocab, merges = make_files()
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    clip, _ = find_tokenizer(zoo_path(tmp_path), {"model_type": "clip_text_model"})
    assert clip.decode(clip.encode("THE cat")) == "the cat"


def zoo_path(path):
    from etils import epath

    return epath.Path(path)


@pytest.mark.parity
def test_tokenizer_is_that_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[parity]'")
    vocab, merges = make_files()
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    theirs = transformers.CLIPTokenizerFast.from_pretrained(tmp_path)
    ours = from_clip_files(vocab, merges)
    for text in TEXTS:
        expected = theirs(text)["input_ids"]
        row = ours.batch([text])["tokens"][0].tolist()
        assert row == expected
        assert ours.decode(row) == theirs.decode(expected, skip_special_tokens=True)


def test_processors():
    """Old and new files of CLIP, SigLIP's, and none at all."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = Processor((224, 224), mean, std, "bicubic", 1.0)
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224}
    old |= {"do_center_crop": True, "resample": 3, "image_mean": [*mean], "image_std": [*std]}
    assert Processor.from_hf(old, (224, 224)) == expected
    silent = {"image_processor_type": default_processor({"model_type": "clip_vision_model"})}
    assert Processor.from_hf(silent, (224, 224)) == expected
    assert Processor.from_hf(expected.to_hf(), (224, 224)) == expected
    siglip = Processor.from_hf({"image_processor_type": "SiglipImageProcessor"}, (384, 384))
    assert siglip == Processor((384, 384), interpolation="bicubic")
    larger = {**old, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    made = Processor.from_hf(larger, (224, 224))
    assert made.to_hf()["size"] == {"shortest_edge": 256}


def test_a_crop_gives_back_the_length_it_was_read_from():
    for side in range(14, 400, 70):
        for short in range(side, side + 200):
            told = {"size": short, "crop_size": side, "do_center_crop": True}
            assert Processor.from_hf(told, (side, side)).to_hf()["size"]["shortest_edge"] == short


def read(**values):
    config = TheirConfig({"model_type": "clip", **values}, "config.json")
    return read_config(config, "none", MemoryTensors({}))


def test_where_a_text_is_read_by_config():
    assert read(text_config={"eos_token_id": 2})["text_pooling"] == "highest"
    said = read(text_config={"eos_token_id": 7})
    assert (said["text_pooling"], said["end_token"]) == ("end", 7)
    # The older part takes the place of the newer one, with what it does not say at its default.
    said = read(text_config={"eos_token_id": 2, "hidden_size": 8}, text_config_dict={})
    assert (said["text_pooling"], said["text_width"]) == ("end", 512)


def test_towers_that_differ_are_refused():
    with pytest.raises(UserError, match="the towers' activation differ"):
        read(text_config={"hidden_act": "gelu"})


def test_what_transformers_cannot_say_is_named():
    with pytest.raises(UserError, match="image_size"):
        architecture_of(CLIP(image_size=(64, 32)))
    with pytest.raises(UserError, match="pooling='mean'"):
        architecture_of(zoo.create_model("vit_ti16", pooling="mean"))


def test_another_image_size(tmp_path):
    from conftest import ROOT

    folder = ROOT / "tests/pretrained/twins/clip_published"
    loaded = zoo.load_pretrained(folder, image_size=(12, 12), num_positions=12)
    assert loaded.params["image"]["pos"].shape == (10, 8)
    assert loaded.params["text"]["pos"].shape == (12, 12)
    assert loaded.processor.size == (12, 12)
    shapes = jax.eval_shape(lambda: zoo.init_params(loaded.model))
    assert jax.tree.map(np.shape, loaded.params) == jax.tree.map(lambda x: x.shape, shapes)
