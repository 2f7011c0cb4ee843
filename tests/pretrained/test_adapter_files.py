"""Files in peft's layout, made by hand on recorded twins: the kernels by NumPy, and bad ones."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

import zoo
from zoo.config import UserError
from zoo.models import make_lora, param_shapes
from zoo.tree import named_leaves

TWINS = pathlib.Path(__file__).parent / "twins"
GPT2, LLAMA = TWINS / "gpt2_lm", TWINS / "llama_grouped"
C_ATTN = "transformer.h.0.attn.c_attn"


def write(folder, config, **matrices):
    """An adapter; of `module=(rank, num_in, num_out)` both matrices at random."""
    random = np.random.default_rng(3)
    tensors = {}
    for module, value in matrices.items():
        name = f"base_model.model.{module}"
        if isinstance(value, tuple):
            rank, num_in, num_out = value
            a, b = random.normal(size=(rank, num_in)), random.normal(size=(num_out, rank))
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        else:
            tensors[name] = value
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    usual = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": str(GPT2)}
    (folder / "adapter_config.json").write_text(json.dumps({**usual, **config}))
    return tensors


def test_a_fused_module_and_patterns(tmp_path):
    config = {"rank_pattern": {"mlp.c_proj": 3}, "alpha_pattern": {r"h\.1\.mlp\.c_proj": 9}}
    c_proj = "transformer.h.1.mlp.c_proj"
    written = write(tmp_path / "a", config, **{C_ATTN: (2, 16, 48), c_proj: (3, 64, 16)})
    base, found = (named_leaves(zoo.load_pretrained(s).params) for s in (GPT2, tmp_path / "a"))

    def product(module, scale):
        a, b = (written[f"base_model.model.{module}.lora_{half}.weight"] for half in "AB")
        return scale * (b @ a).T  # [in, out], as the Conv1D of GPT-2

    q, k, v = np.split(product(C_ATTN, 6 / 2), 3, axis=1)
    changed = {f"blocks/00/attn/{name}/kernel": x for name, x in zip("qkv", (q, k, v), strict=True)}
    changed["blocks/01/mlp/fc2/kernel"] = product(c_proj, 9 / 3)
    assert base.keys() == found.keys()
    for path, leaf in base.items():
        np.testing.assert_allclose(found[path], leaf + changed.get(path, 0), atol=1e-5)


def test_rank_stabilised_and_a_module_saved_whole(tmp_path):
    q = "model.layers.1.self_attn.q_proj"
    head = np.random.default_rng(0).normal(size=(5, 16))
    config = {"task_type": "SEQ_CLS", "use_rslora": True, "base_model_name_or_path": str(LLAMA)}
    written = write(tmp_path / "a", config, **{q: (2, 16, 16), "score.weight": head})
    loaded = zoo.load_pretrained(tmp_path / "a")
    assert (loaded.model.head, loaded.model.num_classes) == ("sequence", 5)
    np.testing.assert_allclose(loaded.params["head"]["kernel"], head.T, atol=1e-7)
    assert loaded.report == ()
    kernel = load_file(LLAMA / "model.safetensors")[f"{q}.weight"]
    a, b = (written[f"base_model.model.{q}.lora_{half}.weight"] for half in "AB")
    expected = (kernel + 6 / 2**0.5 * b @ a).T
    np.testing.assert_allclose(
        loaded.params["blocks"]["01"]["attn"]["q"]["kernel"], expected, atol=1e-5
    )
    # Through the file of transformers: the merged classifier.
    assert zoo.convert(tmp_path / "a", tmp_path / "hf", "hf") == []
    again = zoo.load_pretrained(tmp_path / "hf")
    for path, leaf in named_leaves(loaded.params).items():
        np.testing.assert_array_equal(named_leaves(again.params)[path], leaf)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"peft_type": "LOHA"}, "peft_type='LOHA' is not supported, only 'LORA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not supported"),
        ({"a_new_idea": 1}, "a_new_idea=1 is not supported"),
        ({"task_type": "SEQ"}, "task_type='SEQ' is none of CAUSAL_LM"),
        ({"r": "two"}, "r='two' should be of type int"),
        ({"rank_pattern": {"(": 2}}, "a pattern is no regex"),
        ({"r": 3}, r"of rank 3, lora_A is 2x16, lora_B 48x2"),
        ({"base_model_name_or_path": None}, "names no base: give base=SOURCE"),
        ({"base_model_name_or_path": "nowhere"}, r"its base: there is no nowhere .*base=SOURCE\)"),
        (
            {"base_model_name_or_path": str(LLAMA)},
            f"the adapter is of another base: no layer {C_ATTN}",
        ),
        (
            {"base_model_name_or_path": str(TWINS / "vit_classifier")},
            "a ViT in peft's layout are not supported",
        ),
    ],
)
def test_what_is_refused(tmp_path, config, told):
    write(tmp_path / "a", config, **{C_ATTN: (2, 16, 48)})
    with pytest.raises(UserError, match=told) as error:
        zoo.load_pretrained(tmp_path / "a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("matrices", "told"),
    [
        ({C_ATTN: (2, 8, 24)}, r"c_attn is 16 to 48 and its adapter of rank 2, lora_A is 2x8"),
        ({f"{C_ATTN}.lora_magnitude_vector": np.ones(3)}, "lora_magnitude_vector is not supported"),
        ({f"{C_ATTN}.lora_A.weight": np.ones((2, 16))}, "lacks its other half"),
        ({"transformer.wte.weight": np.ones((60, 16))}, "wte.weight is 60x16, there it is 50x16"),
        ({"score.weight": np.ones((3, 16))}, "score.weight is 3x16, there it is nothing"),
        ({C_ATTN: (2, 16, 48), "transformer.h.0.ln_1.weight": np.ones(3)}, "ln_1.weight is 3, "),
    ],
)
def test_tensors_of_another_base(tmp_path, matrices, told):
    write(tmp_path / "a", {}, **matrices)
    with pytest.raises(UserError, match=told) as error:
        zoo.load_pretrained(tmp_path / "a")
    assert "\n" not in str(error.value)


def make_trained(source):
    """(LoRA model over a source, parameters whose corrections are not zero)."""
    loaded = zoo.load_pretrained(source)
    model = make_lora(loaded.model, {"rank": 2})
    random, shapes = np.random.default_rng(1), named_leaves(param_shapes(model))
    params = {**named_leaves(loaded.params)}
    for path in shapes.keys() - params.keys():
        params[path] = random.normal(size=shapes[path].shape).astype(np.float32)
    return model, unflatten(params)


def unflatten(leaves):
    """Paths with slashes as a nested dict."""
    return unflatten_dict(leaves, sep="/")


def test_other_weights_of_the_same_shapes(tmp_path):
    model, params = make_trained(GPT2)
    params["norm"]["scale"] += 1  # trained too, by a row of optim.rules: stored whole
    zoo.save_adapter(model, params, tmp_path / "a", base=GPT2)
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 32)  # q and v side by side
    assert config["modules_to_save"] == ["transformer.ln_f"]
    expected = named_leaves(zoo.merge_lora(model, params)[1])
    found = named_leaves(zoo.load_pretrained(tmp_path / "a").params)
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, atol=1e-5)
    other = zoo.load_pretrained(GPT2)
    other.params["pos"] = other.params["pos"] + 1
    zoo.save_pretrained(other.model, other.params, tmp_path / "other")
    with pytest.raises(UserError, match=r"of another base: of weights with sha256 \w{16}\.\.\., "):
        zoo.load_pretrained(tmp_path / "a", base=tmp_path / "other")
    with pytest.raises(UserError, match=r"gpt2_lm is no adapter: it has no base"):
        zoo.load_pretrained(GPT2, base=GPT2)


@pytest.mark.parametrize(
    ("change", "base", "told"),
    [
        ("blocks/00/attn/q/kernel", GPT2, "blocks/00/attn/q/kernel differs there"),
        (None, TWINS / "bert_masked_lm", "the adapter is of a Decoder, .* is a Encoder"),
        (None, "nowhere", "there is no nowhere"),
    ],
)
def test_what_cannot_be_saved(tmp_path, change, base, told):
    model, params = make_trained(GPT2)
    leaves = named_leaves(params)
    if change:
        leaves[change] = leaves[change] + 1
    with pytest.raises(UserError, match=told):
        zoo.save_adapter(model, unflatten(leaves), tmp_path / "a", base=base)
    assert not (tmp_path / "a").exists()


def test_no_lora_no_adapter(tmp_path):
    loaded = zoo.load_pretrained(GPT2)
    with pytest.raises(UserError, match=r"a Decoder has no adapter: it was made without model\."):
        zoo.save_adapter(loaded.model, loaded.params, tmp_path, base=GPT2)
    with pytest.raises(UserError, match=r"gpt2_lm was not trained with model\.lora"):
        zoo.convert(GPT2, tmp_path / "a", "peft")
