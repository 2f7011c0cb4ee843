"""timm's files: of recorded twins by timm's keys, and (extra `parity`) from timm itself."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from twins import FOLDER

import zoo
from zoo.models.vit import SIZES
from zoo.pretrained.describe import architecture_of
from zoo.pretrained.dinov2 import find_hidden
from zoo.tree import named_leaves

OUTPUT = 1e-5  # of the largest magnitude
# What timm imports of torchvision, which has no build beside this torch. A ViT needs none of it.
TORCHVISION = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)

# transformers' DINOv2 and DeiT -> timm's keys, the same in the files of DINOv2's authors.
NAMES = {
    "dinov2_with_registers.": "",
    "deit.": "",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.distillation_token": "dist_token",
    "embeddings.": "",
    "encoder.layer": "blocks",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "norm",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
}


def by_timms_keys(twin, **more):
    """A twin's tensors; `more` further names."""
    made = {}
    for key, array in load_file(FOLDER / twin / "model.safetensors").items():
        for theirs, timms in {**NAMES, **more}.items():
            key = key.replace(theirs, timms)
        made[key] = array
    for i in range(2):
        for part in ("weight", "bias"):
            old = [f"blocks.{i}.attention.attention.{n}.{part}" for n in ("query", "key", "value")]
            made[f"blocks.{i}.attn.qkv.{part}"] = np.concatenate([made.pop(n) for n in old])
    return made


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Tensors -> what is loaded from a file that holds them and nothing else."""
    monkeypatch.setitem(SIZES, "twin", (16, 2, 2, 32))  # where the number of heads is looked up

    def load(tensors, **changes):
        save_file(tensors, tmp_path / "model.safetensors")
        return zoo.load_pretrained(tmp_path / "model.safetensors", **changes)

    return load


def assert_same(loaded, original, *apart):
    """The same parameters but for some, and fields."""
    one, other = named_leaves(loaded.params), named_leaves(original.params)
    assert one.keys() == other.keys()
    for path in one.keys() - set(apart):
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)
    assert loaded.model.clone(layer_scale=None) == original.model.clone(layer_scale=None)


def test_a_distilled_deit(load):
    loaded = load(by_timms_keys("deit_taught"), norm_epsilon=1e-12)
    assert_same(loaded, zoo.load_pretrained(FOLDER / "deit_taught"))


def test_the_authors_dinov2(load):
    """Positions of the class token too, the mask token, a gated feed-forward by other names."""
    loaded = load(by_timms_keys("dinov2_headless"))
    assert_same(loaded, zoo.load_pretrained(FOLDER / "dinov2_headless"))
    tensors = by_timms_keys("registers_gated", weights_in="w12", weights_out="w3")
    tensors = {k: x for k, x in tensors.items() if not k.startswith("classifier")}
    original = zoo.load_pretrained(FOLDER / "registers_gated", head="none", pooling="cls")
    assert_same(load(tensors), original)


def test_timms_dinov2_with_registers(load):
    """The class token has its position added already."""
    names = {"weights_in": "fc1", "weights_out": "fc2", "register_tokens": "reg_token"}
    tensors = by_timms_keys("registers_gated", **names)
    tensors = {k: x for k, x in tensors.items() if not k.startswith("classifier")}
    del tensors["mask_token"]
    positions = tensors.pop("pos_embed")
    tensors |= {"cls_token": tensors["cls_token"] + positions[:, :1]}
    tensors |= {"pos_embed": np.ascontiguousarray(positions[:, 1:])}
    loaded = load(tensors)
    assert not loaded.params["pos"][0].any()
    reference = load_file(FOLDER / "registers_gated" / "reference.safetensors")
    _, aux = jax.jit(loaded.model.apply)({"params": loaded.params}, reference["images"])
    expected = reference["hidden/01"]
    np.testing.assert_allclose(aux["hidden"][-1], expected, atol=OUTPUT * abs(expected).max())


@pytest.mark.parametrize(("width", "ratio"), [(16, 1), (6, 3), (16, 4)])
def test_the_ratio_of_a_gated_dinov2(width, ratio):
    """Rounded up to a multiple of 8, the width must not be taken for that of the next ratio."""
    fields = {"width": width, "num_heads": 2, "hidden": find_hidden(width, ratio, True)}
    model = zoo.create_model("dinov2_g14", **fields)
    written = architecture_of(model)[1]["mlp_ratio"]
    assert find_hidden(width, written, True) == model.hidden


@pytest.fixture
def torch():
    """torch, or a skip."""
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    torch.set_num_threads(1)
    return torch


# torch.jit is deprecated, and timm still uses it.
LIVE = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]


def live(test):
    """Marks a test beside timm itself."""
    for mark in LIVE:
        test = mark(test)
    return test


class Stub(types.ModuleType):
    """A module of which everything can be imported."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return mock.MagicMock()


@pytest.fixture
def timm(torch, monkeypatch):
    """timm, with or without torchvision."""
    if importlib.util.find_spec("torchvision") is None:
        for name in TORCHVISION:
            monkeypatch.setitem(sys.modules, name, Stub(name))
    return pytest.importorskip("timm", reason="pip install timm")  # imports torchvision


@pytest.fixture
def make_timm(torch, timm):
    """Fields -> a small ViT of timm, every parameter moved."""
    from timm.layers import SwiGLUPacked
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    def make(gated=False, distilled=False, **fields):
        fields |= {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU} if gated else {}
        kind = VisionTransformerDistilled if distilled else VisionTransformer
        small = {"patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 1, "num_classes": 5}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = kind(**{**small, **fields}, mlp_ratio=2).eval()
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return model

    return make


def check_timm(torch, model, source, size):
    """timm's outputs and ours from its file."""
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    loaded = zoo.load_pretrained(source)
    found, _ = loaded.model.apply({"params": loaded.params}, jnp.asarray(images))
    assert found.shape == expected.shape
    difference = np.abs(found - expected).max()
    assert difference <= OUTPUT * max(np.abs(expected).max(), 1.0)
    return loaded


def write_timm(model, path):
    save_file({k: np.ascontiguousarray(v) for k, v in model.state_dict().items()}, path)


@live
@pytest.mark.parametrize(
    "fields",
    [
        {"class_token": True, "global_pool": "token"},
        {"qkv_bias": False},
        {"num_classes": 0},
        {"init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True},
        {"init_values": 0.1, "gated": True, "num_classes": 0},
        {"distilled": True},
        {"img_size": 16, "patch_size": 8, "embed_dim": 128, "num_heads": 2, "depth": 3},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_timm_file(torch, make_timm, tmp_path, fields):
    model = make_timm(**{"img_size": 8, **fields})
    write_timm(model, tmp_path / "vit.safetensors")
    side = fields.get("img_size", 8)
    check_timm(torch, model, tmp_path / "vit.safetensors", (side, side))


@live
def test_timm_folder(torch, make_timm, tmp_path):
    model = make_timm(img_size=(8, 12))
    write_timm(model, tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch4_8",
        "num_classes": 5,
        "pretrained_cfg": {
            "input_size": [3, 8, 12],
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.3, 0.4],
            "crop_pct": 0.8,
            "interpolation": "bilinear",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = check_timm(torch, model, tmp_path, (8, 12)).processor
    assert (processor.size, processor.mean, processor.std) == (
        (8, 12),
        (0.4, 0.5, 0.6),
        (0.2, 0.3, 0.4),
    )
    assert (processor.crop, processor.interpolation) == (0.8, "bilinear")


@live
@pytest.mark.parametrize("fields", [{}, {"num_classes": 0}, {"img_size": (8, 12)}], ids=str)
def test_timm_mixer(torch, timm, tmp_path, fields):
    """A bare file; a folder where the image is no square."""
    from timm.models.mlp_mixer import MlpMixer

    small = {"img_size": 8, "patch_size": 4, "num_blocks": 2, "embed_dim": 16, "num_classes": 5}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = MlpMixer(**{**small, **fields}).eval()
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    write_timm(model, tmp_path / "model.safetensors")
    if "img_size" not in fields:
        check_timm(torch, model, tmp_path / "model.safetensors", (8, 8))
        return
    config = {"architecture": "mixer_s4", "pretrained_cfg": {"input_size": [3, 8, 12]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_timm(torch, model, tmp_path, (8, 12))
