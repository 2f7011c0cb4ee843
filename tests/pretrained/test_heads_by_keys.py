"""A config.json without `architectures`, as of the first small BERTs: the keys tell the head."""

import json
import shutil

import numpy as np
import pytest
from twins import FOLDER

import zoo
from zoo.tree import named_leaves


def without_architectures(tmp_path, twin, **config):
    folder = tmp_path / twin
    shutil.copytree(FOLDER / twin, folder)
    values = json.loads((folder / "config.json").read_text())
    del values["architectures"]
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    return folder


@pytest.mark.parametrize(
    "twin",
    [
        "bert_headless",
        "bert_masked_lm",
        "bert_classifier",
        "bert_tagger",
        "bert_answerer",
        "gpt2_headless",
        "llama_classifier",
        "t5_v1_1",
        "deit_taught",
    ],
)
def test_the_model_is_the_one_that_was_named(tmp_path, twin):
    expected = zoo.load_pretrained(FOLDER / twin)
    found = zoo.load_pretrained(without_architectures(tmp_path, twin))
    if twin == "gpt2_headless":  # a tied head has no key of its own
        expected = zoo.load_pretrained(FOLDER / twin, head="lm")
    assert found.model == expected.model
    assert "by the keys, config.json names no architecture" in found.report[0]
    one, other = named_leaves(found.params), named_leaves(expected.params)
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[path], err_msg=path)


def test_the_head_asked_for_is_tried_first(tmp_path):
    """A chooser's keys are those of a classifier with one class."""
    folder = without_architectures(tmp_path, "bert_chooser")
    assert zoo.load_pretrained(folder, head="multiple_choice").model.head == "multiple_choice"


def test_an_architecture_that_we_lack(tmp_path):
    named = {"architectures": ["BertForNextSentencePrediction"]}
    folder = without_architectures(tmp_path, "bert_headless", **named)
    assert zoo.load_pretrained(folder, head="none").model.head == "none"
    with pytest.raises(zoo.config.UserError, match="names none of BertModel"):
        zoo.load_pretrained(folder)
