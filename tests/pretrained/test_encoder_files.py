"""Files of RoBERTa, ELECTRA and DistilBERT as published, and what cannot be read or written."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from twins import FOLDER

import zoo
from zoo.config import UserError
from zoo.tree import named_leaves


def write_variant(tmp_path, folder, tensors=None, **config):
    """The folder with further tensors and other values in its config.json."""
    target = tmp_path / "variant"
    shutil.copytree(folder, target)
    values = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**values, **config}))
    file = target / "model.safetensors"
    save_file({**load_file(file), **(tensors or {})}, file)
    return target


def assert_same(one, other):
    one, other = named_leaves(one), named_leaves(other)
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[path], err_msg=path)


@pytest.mark.parametrize(
    ("twin", "prefix", "copies"),
    [
        ("electra_generator", "electra.", {"generator_lm_head.weight": "word"}),
        ("distilbert_masked_lm", "distilbert.", {"vocab_projector.weight": "word"}),
        (
            "roberta_masked_lm",
            "roberta.",
            {"lm_head.decoder.weight": "word", "lm_head.decoder.bias": "lm_head.bias"},
        ),
    ],
)
def test_second_names(tmp_path, twin, prefix, copies):
    """Tied tensors under both names, numbered positions."""
    tensors = load_file(FOLDER / twin / "model.safetensors")
    tensors["word"] = tensors[f"{prefix}embeddings.word_embeddings.weight"]
    more = {name: tensors[original] for name, original in copies.items()}
    more[f"{prefix}embeddings.position_ids"] = np.arange(16)[None]
    loaded = zoo.load_pretrained(write_variant(tmp_path, FOLDER / twin, more))
    assert_same(loaded.params, zoo.load_pretrained(FOLDER / twin).params)
    assert [line.split(":")[0] for line in loaded.report] == [f"{prefix}embeddings.position_ids"]


def test_an_xlm_roberta(tmp_path):
    folder = FOLDER / "roberta_masked_lm"
    config = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForMaskedLM"]}
    loaded = zoo.load_pretrained(write_variant(tmp_path, folder, **config))
    expected = zoo.load_pretrained(folder)
    assert loaded.model == expected.model
    assert_same(loaded.params, expected.params)


def test_a_roberta_classifier_beside_a_pooler(tmp_path):
    """As roberta-large-mnli: the pooler of the pre-training is in the file, and nobody reads it."""
    loaded = zoo.load_pretrained(FOLDER / "roberta_masked_lm", head="sequence", num_classes=3)
    zoo.save_pretrained(loaded.model, loaded.params, tmp_path / "new")
    names = load_file(tmp_path / "new/model.safetensors").keys()
    assert {"classifier.dense.weight", "classifier.out_proj.weight"} <= names
    ones = np.ones((8, 8), np.float32)
    pooler = {"roberta.pooler.dense.weight": ones, "roberta.pooler.dense.bias": ones[0]}
    again = zoo.load_pretrained(write_variant(tmp_path, tmp_path / "new", pooler))
    assert_same(again.params, loaded.params)
    assert sorted(line.split(":")[0] for line in again.report) == sorted(pooler)


def test_a_new_head_has_the_pooler_of_its_family():
    loaded = zoo.load_pretrained(FOLDER / "electra_discriminator", head="multiple_choice")
    assert (loaded.model.pooler, loaded.model.pooler_activation) == (True, "gelu")
    assert {"pooler", "head"} <= set(loaded.params)


@pytest.mark.parametrize(
    ("twin", "config", "message"),
    [
        ("roberta_masked_lm", {"hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ("electra_generator", {"hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ("roberta_masked_lm", {"is_decoder": True}, "is_decoder=True is not supported"),
        (
            "electra_discriminator",
            {"architectures": ["ElectraForMultipleChoice"], "summary_type": "last"},
            "summary_type='last' is not supported",
        ),
        ("distilbert_masked_lm", {"activation": "mish"}, "no activation 'mish'"),
    ],
    ids=str,
)
def test_what_cannot_be_read(tmp_path, twin, config, message):
    with pytest.raises(UserError, match=message):
        zoo.load_pretrained(write_variant(tmp_path, FOLDER / twin, **config))


@pytest.mark.parametrize(
    ("twin", "changes", "message"),
    [
        ("roberta_masked_lm", {"activation": "relu"}, "no layout of transformers fits"),
        ("distilbert_masked_lm", {"norm_epsilon": 1e-5}, "distilbert has no norm_epsilon=1e-05"),
        ("bert_chooser", {"head": "replaced_token"}, "no layout of transformers fits"),
    ],
    ids=str,
)
def test_what_cannot_be_written(tmp_path, twin, changes, message):
    loaded = zoo.load_pretrained(FOLDER / twin, **changes)
    with pytest.raises(UserError, match=message):
        zoo.save_pretrained(loaded.model, loaded.params, tmp_path / "new")


@pytest.mark.parity
def test_left_padding_as_transformers_counts_it():
    """By tokens that are not padding there, by the mask here: the same where the two agree."""
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[parity]'")
    folder = FOLDER / "roberta_masked_lm"
    tokens = np.array([[1, 1, 1, 5, 9, 20, 11], [0, 7, 7, 3, 29, 4, 2]], np.int32)
    real = tokens != 1
    model = transformers.RobertaForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(real).long()}
    with torch.no_grad():
        expected = model.eval()(**given).logits.numpy()
    loaded = zoo.load_pretrained(folder)
    inputs = {"mask": jnp.asarray(real)}
    found, _ = loaded.model.apply({"params": loaded.params}, jnp.asarray(tokens), **inputs)
    np.testing.assert_allclose(np.asarray(found)[real], expected[real], atol=1e-5)
