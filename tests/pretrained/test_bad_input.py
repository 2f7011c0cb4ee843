"""Every mistake is one line, loads nothing, writes nothing and runs nothing."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import re
import shutil
import zipfile

import huggingface_hub
import huggingface_hub.constants
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from twins import FOLDER

import zoo
from zoo.config import UserError
from zoo.models import init_params
from zoo.pretrained import convert
from zoo.pretrained.processor import Processor

LAYER = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 32}
VIT = {**LAYER, "image_size": (8, 8), "patch_size": 4, "num_classes": 3}
TEXT = {**LAYER, "vocab_size": 50, "num_positions": 8}


def copy_twin(folder: pathlib.Path, twin: str, tensors=None, **config) -> pathlib.Path:
    """A twin with other values in config.json (None: without) and tensors given to a function."""
    folder = folder / twin
    folder.mkdir()
    values = {**json.loads((FOLDER / twin / "config.json").read_text()), **config}
    values = {k: v for k, v in values.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(values))
    if tensors is None:
        shutil.copy(FOLDER / twin / "model.safetensors", folder)
    else:
        arrays = load_file(FOLDER / twin / "model.safetensors")
        tensors(arrays)
        save_file(arrays, folder / "model.safetensors")
    return folder


def make_zeros(model):
    shapes = jax.eval_shape(lambda: init_params(model))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def refuse(call, *args, **kwargs) -> str:
    """The one line that the call ends with."""
    with pytest.raises(UserError) as error:
        call(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


CONFIGS = [
    ("bert_masked_lm", {"model_type": "brt"}, "model_type='brt' is none of vit, gpt2, llama"),
    ("bert_masked_lm", {"model_type": ["bert"]}, "is none of vit, gpt2"),
    ("bert_masked_lm", {"model_type": None}, "has neither model_type nor"),
    ("bert_masked_lm", {"hidden_size": "16"}, "hidden_size='16' should be of type int"),
    ("bert_masked_lm", {"hidden_size": True}, "hidden_size=True should be of type int"),
    ("bert_masked_lm", {"hidden_size": 16.0}, "hidden_size=16.0 should be of type int"),
    ("bert_masked_lm", {"hidden_size": -16}, "hidden_size=-16 should be a size, 1 or more"),
    ("bert_masked_lm", {"hidden_size": 0}, "hidden_size=0 should be a size, 1 or more"),
    ("bert_masked_lm", {"vocab_size": 10**12}, "vocab_size=1000000000000 should be a size"),
    ("bert_masked_lm", {"vocab_size": 51}, r"word_embeddings.weight is 50x16 in the file, 51x16"),
    ("bert_masked_lm", {"layer_norm_eps": "1e-12"}, "should be of type float"),
    ("bert_masked_lm", {"layer_norm_eps": -1.0}, "should be a number, 0 or more"),
    ("bert_masked_lm", {"layer_norm_eps": float("nan")}, "should be a number, 0 or more"),
    ("bert_masked_lm", {"num_attention_heads": 3}, "width of 16 does not divide into 3 heads"),
    ("bert_masked_lm", {"hidden_act": "gleu"}, r"no activation 'gleu' \(did you mean 'gelu'\?\)"),
    ("bert_masked_lm", {"hidden_act": ["gelu"]}, "should be of type str"),
    ("bert_masked_lm", {"position_embedding_type": "relative_key"}, "only 'absolute'"),
    ("bert_masked_lm", {"is_decoder": True}, "is_decoder=True is not supported, only False"),
    ("bert_masked_lm", {"architectures": ["BertLMHeadModel"]}, "names none of BertModel, "),
    (
        "bert_masked_lm",
        {"architectures": [], "vocab_size": 51},
        r"should name one of BertModel, .*fit none of them \(taken for 'none': .*1 misshapen: bert",
    ),
    ("bert_masked_lm", {"architectures": None, "hidden_size": -16}, "should be a size, 1 or more"),
    ("bert_masked_lm", {"architectures": 3}, "architectures=3 should be of type list"),
    ("bert_masked_lm", {"architectures": [["x"]]}, "names none of BertModel, "),
    ("bert_masked_lm", {"id2label": 3}, "id2label=3 should be of type dict"),
    ("albert_masked_lm", {"inner_group_num": 2}, "inner_group_num=2 is not supported, only 1"),
    ("albert_masked_lm", {"num_hidden_groups": 2}, "3 layers cannot share 2 groups"),
    ("vit_classifier", {"patch_size": "4"}, "should be one or two whole numbers"),
    ("vit_classifier", {"patch_size": 3}, "8x8 is not divisible by patch 3x3"),
    ("vit_classifier", {"image_size": 3.5}, "should be one or two whole numbers"),
    ("vit_classifier", {"image_size": [8, 8, 8]}, "should be one or two whole numbers"),
    ("vit_classifier", {"pooler_act": "relu"}, "pooler_act='relu' is not supported, only 'tanh'"),
    ("gpt2_lm", {"n_head": 3}, "a width of 16 does not divide into 3 heads"),
    ("gpt2_lm", {"n_inner": 1.5}, "n_inner=1.5 should be of type int"),
    ("gpt2_lm", {"scale_attn_by_inverse_layer_idx": True}, "is not supported, only False"),
    (
        "llama_lm",
        {"rope_parameters": {"rope_type": "longrope"}},
        r"\('longrope'\) are not supported",
    ),
    ("llama_lm", {"rope_parameters": {"rope_type": "llama3"}}, "low_freq_factor is missing"),
    (
        "llama_lm",
        {"rope_parameters": None, "rope_scaling": {"type": "linear"}},
        "factor is missing",
    ),
    ("qwen2_tied", {"layer_types": ["local"] * 2}, "layer_types should name one of"),
    ("mistral_lm", {"layer_types": ["full_attention"] * 2}, "layer_types"),
    ("gemma3_lm", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping=5.0 is not supported"),
    ("llama_lm", {"rope_parameters": {"rope_theta": "x"}}, "should be of type float"),
    ("llama_lm", {"num_key_value_heads": 3}, "4 heads cannot share 3 key/value heads"),
    ("t5_v1", {"feed_forward_proj": "gated-swosh"}, "no activation 'swosh'"),
    ("t5_v1", {"num_decoder_layers": 1}, "13 left over: decoder.block.1"),
]


@pytest.mark.parametrize(
    ("twin", "config", "match"), CONFIGS, ids=[f"{t}-{c}"[:40] for t, c, _ in CONFIGS]
)
def test_a_wrong_config(tmp_path, twin, config, match):
    folder = copy_twin(tmp_path, twin, **config)
    message = refuse(zoo.load_pretrained, folder)
    assert re.search(match, message), message
    assert message.startswith(str(folder))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "config.json is no JSON: Expecting value"),
        (b"{", "config.json is no JSON"),
        (b"\xff\xfe\x00", "config.json is no JSON"),
        (b"[" * 100_000, "config.json is no JSON"),
        (b"[1]", "config.json should hold a JSON object, not list"),
        (b'{"architecture": "vit_base"}', "no ViT (patch_embed.proj.weight of 4 axes is missing)"),
    ],
)
def test_a_config_that_is_none(tmp_path, text, match):
    folder = copy_twin(tmp_path, "bert_masked_lm")
    (folder / "config.json").write_bytes(text)
    assert match in refuse(zoo.load_pretrained, folder)


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1])
def test_a_truncated_file(tmp_path, length):
    file = copy_twin(tmp_path, "bert_masked_lm") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    assert "truncated: it ends at byte" in refuse(zoo.load_pretrained, file.parent)


def test_files_that_hold_no_model(tmp_path):
    for name, match in (
        ("text.safetensors", "no safetensors file"),
        ("text.npz", "no .npz of plain arrays"),
        ("text.bin", "text.bin"),
        ("text.doc", "no known kind of weights"),
    ):
        (tmp_path / name).write_text("no numbers here" * 9)
        assert match in refuse(zoo.load_pretrained, tmp_path / name)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    assert "no ViT" in refuse(zoo.load_pretrained, tmp_path / "other.npz")
    np.savez(tmp_path / "object.npz", a=np.array([print]))
    assert "dtype object" in refuse(zoo.load_pretrained, tmp_path / "object.npz")
    reference = FOLDER / "bert_masked_lm" / "reference.safetensors"
    assert "give the folder that holds config.json" in refuse(zoo.load_pretrained, reference)


def test_places_where_nothing_is(tmp_path):
    assert "there is no" in refuse(zoo.load_pretrained, tmp_path / "nothing")
    assert "a path or a hub id, not None" in refuse(zoo.load_pretrained, None)
    assert "OWNER/NAME" in refuse(zoo.load_pretrained, "nothing")
    assert "(it is empty)" in refuse(zoo.load_pretrained, tmp_path)
    folder = copy_twin(tmp_path, "gpt2_lm")
    (folder / "config.json").unlink()
    assert "config.json is missing" in refuse(zoo.load_pretrained, folder)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert "(it holds weights.safetensors)" in refuse(zoo.load_pretrained, folder)


def test_a_hub_id_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refuse(zoo.load_pretrained, "openai-community/gpt2")
    assert message.startswith("there is no folder openai-community/gpt2 here, and the hub")
    for error in (OSError("no route\n\nto host"), RuntimeError("")):

        def fail(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        assert type(error).__name__ in refuse(zoo.load_pretrained, "openai-community/gpt2")


def test_a_missing_shard(tmp_path):
    loaded = zoo.load_pretrained(FOLDER / "gpt2_lm")
    zoo.save_pretrained(loaded.model, loaded.params, tmp_path, max_shard_bytes=10_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[1].unlink()
    message = refuse(zoo.load_pretrained, tmp_path)
    assert f"1 of {len(shards)} files missing: ['{shards[1].name}']" in message


class Evil:
    """What a pickle calls when it is loaded."""

    def __init__(self, path: pathlib.Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code(tmp_path):
    folder = copy_twin(tmp_path, "bert_masked_lm")
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Evil(tmp_path / "made")}))
        archive.writestr("archive/version", "3")
    assert "mkdir: refused, no code was run" in refuse(zoo.load_pretrained, folder)
    assert not (tmp_path / "made").exists()


def test_what_is_not_finite_is_listed(tmp_path):
    names = ("bert.embeddings.LayerNorm.bias", "cls.predictions.transform.dense.weight")
    ours = ("embed_norm/bias", "head/fc/kernel")

    def spoil(arrays):
        for name, value in zip(names, (np.nan, np.inf), strict=True):
            arrays[name].flat[0] = value

    folder = copy_twin(tmp_path, "bert_masked_lm", spoil)
    for call in (
        lambda: zoo.load_pretrained(folder),
        lambda: convert(folder, tmp_path / "zoo"),
    ):
        message = refuse(call)
        assert "NaN or infinity in" in message
        assert all(name in message for name in ours)
    good = zoo.load_pretrained(FOLDER / "bert_masked_lm")
    params = jax.tree.map(np.array, good.params)
    params["embed_norm"]["bias"][0] = np.nan
    params["head"]["fc"]["kernel"][0, 0] = -np.inf
    message = refuse(zoo.save_pretrained, good.model, params, tmp_path / "hf")
    assert all(name in message for name in names)
    assert not [*(tmp_path / "zoo").iterdir(), *(tmp_path / "hf").iterdir()]


def test_too_few_and_too_many_layers(tmp_path):
    few = refuse(zoo.load_pretrained, copy_twin(tmp_path, "gpt2_lm", n_layer=4))
    assert "24 missing: " in few
    assert len(re.findall(r"transformer\.h\.[23]\.\S+ \(blocks/0[23]/\S+", few)) == 24
    many = refuse(zoo.load_pretrained, copy_twin(tmp_path, "bert_headless", num_hidden_layers=1))
    assert "16 left over: " in many
    assert many.count("encoder.layer.1.") == 16


def test_missing_left_over_and_misshapen_at_once(tmp_path):
    def spoil(arrays):
        del arrays["transformer.ln_f.bias"]
        arrays["extra.weight"] = np.zeros(3, np.float32)
        arrays["transformer.wpe.weight"] = np.zeros((23, 16), np.float32)

    message = refuse(zoo.load_pretrained, copy_twin(tmp_path, "gpt2_lm", spoil))
    assert message.endswith(
        "1 missing: transformer.ln_f.bias (norm/bias); 1 left over: extra.weight; 1 misshapen: "
        "transformer.wpe.weight is 23x16 in the file, 24x16 in the model"
    )


def test_a_name_of_two_lines(tmp_path):
    def spoil(arrays):
        arrays["two\nlines\x1b"] = np.zeros(3, np.float32)

    message = refuse(zoo.load_pretrained, copy_twin(tmp_path, "gpt2_lm", spoil))
    assert message.endswith(r"1 left over: 'two\nlines\x1b'")


def test_a_tied_head_that_differs(tmp_path):
    def spoil(arrays):
        arrays["lm_head.weight"] = arrays["transformer.wte.weight"] + 1

    message = refuse(zoo.load_pretrained, copy_twin(tmp_path, "gpt2_lm", spoil))
    assert "lm_head.weight should be a copy of transformer.wte.weight" in message


@pytest.mark.parametrize(
    ("twin", "changes", "match"),
    [
        ("bert_masked_lm", {"head": "lm"}, "head='lm' is not 'masked_lm'"),
        ("vit_classifier", {"head": "lm"}, "has the heads 'classification' and 'none'"),
        ("vit_pooler", {"head": "classification"}, "needs num_classes: the source has no head"),
        ("gpt2_lm", {"num_position": 4}, "did you mean 'num_positions'?"),
        ("gpt2_lm", {"vocab_size": "x"}, "vocab_size='x' is not int"),
        ("gpt2_lm", {"vocab_size": 0}, "these sizes make no Decoder"),
        ("gpt2_lm", {"num_positions": -5}, "num_positions=-5 should be 0 or more"),
        ("vit_classifier", {"num_classes": -1}, "num_classes=-1 should be 0 or more"),
        ("clip_published", {"head": "classification"}, "a CLIP has no head"),
        ("gpt2_lm", {"dtype": "float3"}, "dtype='float3' is none of"),
        ("gpt2_lm", {"dtype": "int32"}, "dtype='int32' is none of"),
        ("gpt2_lm", {"num_heads": 2}, "num_heads: 4 -> 2, must stay; possible are"),
        ("gpt2_lm", {"num_heads": 3}, "a width of 16 does not divide into 3 heads"),
        ("vit_classifier", {"patch_size": 2}, "patch_size: 4 -> 2, must stay; embed/kernel"),
        ("vit_classifier", {"image_size": (9, 9)}, "9x9 is not divisible by patch 4x4"),
        ("vit_classifier", {"pooling": "mean"}, "cls: 1x16 -> none; pos: 5x16 -> 4x16"),
    ],
)
def test_changes_that_cannot_be_followed(twin, changes, match):
    assert match in refuse(zoo.load_pretrained, FOLDER / twin, **changes)


@pytest.mark.parametrize(
    ("name", "fields", "match"),
    [
        ("mlp", {"widths": (4,)}, "no class for a MLP"),
        ("vit_b16", {**VIT, "pooling": "mean"}, "vit has no pooling='mean'"),
        ("gpt2", {**TEXT, "norm": "rms"}, "gpt2 has no norm='rms'"),
    ],
)
def test_models_that_transformers_has_not(tmp_path, name, fields, match):
    model = zoo.create_model(name, **fields)
    assert match in refuse(zoo.save_pretrained, model, make_zeros(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_must_not_be_written(tmp_path):
    model, deeper = (
        zoo.create_model("gpt2", **TEXT),
        zoo.create_model("gpt2", **TEXT | {"depth": 3}),
    )
    params, out = make_zeros(model), tmp_path / "out"
    message = refuse(zoo.save_pretrained, model, make_zeros(deeper), out)
    assert "not the model's parameters: blocks/02/attn/k/bias is (16,), the model wants" in message
    cropped = Processor((8, 12), crop=0.9)
    assert "a crop" in refuse(zoo.save_pretrained, model, params, out, processor=cropped)
    assert not out.exists()
    zoo.save_pretrained(model, params, out)
    before = (out / "model.safetensors").read_bytes()
    assert "holds model.safetensors already" in refuse(zoo.save_pretrained, model, params, out)
    assert "holds model.safetensors already" in refuse(convert, FOLDER / "t5_v1", out)
    assert "did you mean 'hf'" in refuse(convert, out, tmp_path / "new", "hff")
    assert "is a file" in refuse(convert, out, out / "config.json")
    assert (out / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    assert not (tmp_path / "new").exists()


def test_our_own_layout(tmp_path):
    convert(FOLDER / "gpt2_lm", tmp_path)
    values = json.loads((tmp_path / "zoo.json").read_text())
    fields = values["fields"]
    for change, match in (
        ({"class": "Decodr"}, "zoo.json: no class 'Decodr' (did you mean 'Decoder'?)"),
        ({"class": ["Decoder"]}, "zoo.json: no class"),
        ({"format": 2}, "zoo.json: format 2 is not 1"),
        ({"fields": 3}, "zoo.json: 'fields' is no table"),
        ({"fields": {**fields, "colour": 1}}, "zoo.json has no field 'colour'"),
        ({"fields": {**fields, "width": "x"}}, "width='x' is not int"),
        ({"fields": {**fields, "depth": 3}}, "blocks/02/attn/k/bias is missing, the model wants"),
    ):
        (tmp_path / "zoo.json").write_text(json.dumps({**values, **change}))
        assert match in refuse(zoo.load_pretrained, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("preprocessor_config.json", "{", "is no JSON"),
        ("preprocessor_config.json", '{"resample": 9}', "its processor: no interpolation '9'"),
        ("preprocessor_config.json", '{"image_mean": ["x"]}', "should be a number a channel"),
        ("preprocessor_config.json", '{"image_std": [1, 0, 1]}', "do not go together"),
        ("tokenizer.json", "{}", "is no tokenizer"),
        ("tokenizer.json", "[]", "is no tokenizer"),
    ],
)
def test_what_lies_beside(tmp_path, name, text, match):
    folder = copy_twin(tmp_path, "vit_classifier")
    (folder / name).write_text(text)
    assert match in refuse(zoo.load_pretrained, folder)


def test_vocabularies_that_are_none(tmp_path):
    folder = copy_twin(tmp_path, "gpt2_lm")
    (folder / "vocab.json").write_text("[")
    (folder / "merges.txt").write_text("#version\na b\n")
    assert "no tokenizer can be made" in refuse(zoo.load_pretrained, folder)
    (folder / "vocab.json").write_bytes(b"\xff")
    assert "no tokenizer can be made" in refuse(zoo.load_pretrained, folder)
