"""A Mixer's files: timm's keys, the authors' `.npz`, our own layout."""

import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import zoo
from zoo.config import UserError
from zoo.pretrained import convert
from zoo.tree import named_leaves

SMALL = {"width": 16, "depth": 2, "tokens_hidden": 12, "hidden": 32, "image_size": (8, 8)}
MODEL = zoo.create_model("mixer_s4", **SMALL, num_classes=5)
# Ours -> timm's, the authors'; dense layers are `fc1`, `Dense_0` and so on.
TIMM = {"embed": "stem.proj", r"(\d\d/)tokens": r"\1mlp_tokens", r"(\d\d/)mlp/": r"\1mlp_channels/"}
FLAX = {
    "embed": "stem",
    "^norm": "pre_head_layer_norm",
    r"blocks/0(\d)": r"MixerBlock_\1",
    "norm1": "LayerNorm_0",
    "norm2": "LayerNorm_1",
    "tokens": "token_mixing",
    r"/mlp": r"/channel_mixing",
    "fc1": "Dense_0",
    "fc2": "Dense_1",
}


def make_leaves():
    random = np.random.default_rng(0)
    shapes = named_leaves(jax.eval_shape(lambda: zoo.init_params(MODEL)))
    return {path: random.normal(size=x.shape).astype("f4") for path, x in shapes.items()}


def rename(path, names):
    for ours, theirs in names.items():
        path = re.sub(ours, theirs, path)
    return path


def write_timm(leaves, path):
    made = {}
    for name, x in leaves.items():
        key = rename(name, TIMM).replace("blocks/0", "blocks.").replace("/", ".")
        if name == "embed/kernel":
            x = x.reshape(4, 4, 3, 16).transpose(3, 2, 0, 1)
        made[re.sub(r"kernel|scale", "weight", key)] = x.T if x.ndim == 2 else x
    save_file({key: np.ascontiguousarray(x) for key, x in made.items()}, path)


def write_npz(leaves, path):
    made = {rename(name, FLAX): x for name, x in leaves.items()}
    np.savez(path, **{**made, "stem/kernel": made["stem/kernel"].reshape(4, 4, 3, 16)})


@pytest.mark.parametrize("write", [write_timm, write_npz])
def test_files(tmp_path, write):
    path = tmp_path / ("mixer.npz" if write is write_npz else "mixer.safetensors")
    leaves = make_leaves()
    write(leaves, path)
    loaded = zoo.load_pretrained(path)
    activation = "gelu_tanh" if write is write_npz else "gelu"
    assert loaded.model == MODEL.clone(activation=activation)
    convert(path, tmp_path / "zoo", "zoo")
    for found in (loaded.params, zoo.load_pretrained(tmp_path / "zoo").params):
        found = named_leaves(found)
        assert found.keys() == leaves.keys()
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_what_no_file_of_a_mixer_can_say(tmp_path):
    save_file({"stem.proj.weight": np.zeros((4, 3, 2, 2), "f4")}, tmp_path / "resmlp.safetensors")
    with pytest.raises(UserError, match=r"no Mixer \(blocks.0.mlp_tokens.fc1.weight of 2 axes"):
        zoo.load_pretrained(tmp_path / "resmlp.safetensors")
    write_npz(make_leaves(), tmp_path / "mixer.npz")
    with pytest.raises(UserError, match="transformers has no class for a Mixer"):
        convert(tmp_path / "mixer.npz", tmp_path / "hf", "hf")
    # The token mixing knows how many tokens there are.
    with pytest.raises(UserError, match="tokens/fc1/kernel: 4x12 -> 16x12"):
        zoo.load_pretrained(tmp_path / "mixer.npz", image_size=(16, 16))
