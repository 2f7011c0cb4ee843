"""Masked tokens: a reaction comes back from rxnmapper's ALBERT, and what is refused."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
from conftest import find_folder
from published import copy_twin, write_wordpiece

import zoo
from zoo.cli import main
from zoo.config import UserError

# The published split of a SMILES text into atoms, bonds and brackets (Schwaller et al. 2021).
ATOMS = r"\[[^\]]+\]|Br?|Cl?|[NOSPFIbcnops]|[().=#\-+\\/:~@?*$]|>>?|%[0-9]{2}|[0-9]"
REACTION = "CC(=O)Cl.Nc1ccccc1>>CC(=O)Nc1ccccc1"


def write_smiles_tokenizer(vocabulary, path):
    """tokenizer.json of whole atoms, as rxnmapper's own code splits them."""
    import tokenizers
    from tokenizers import Regex, models, pre_tokenizers, processors

    ids = {token: i for i, token in enumerate(vocabulary.read_text().splitlines())}
    backend = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(ATOMS), behavior="isolated")
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    ends = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    backend.save(str(path))


@pytest.mark.slow
def test_a_reaction_comes_back(tmp_path, capsys):
    folder = find_folder(
        "rxnmapper", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
    )
    write_smiles_tokenizer(folder / "vocab.txt", tmp_path / "smiles.json")
    atoms = re.findall(ATOMS, REACTION)
    texts = ["".join([*atoms[:i], "[MASK]", *atoms[i + 1 :]]) for i in range(len(atoms))]
    found = zoo.fill_mask(folder, texts, 1, tokenizer=str(tmp_path / "smiles.json"), batch_size=33)
    assert [one.masks[0][0].token for one in found] == atoms
    assert all(one.masks[0][0].probability > 0.3 for one in found)
    words = ["fill", str(folder), f"--prompt={texts[0]}"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "vocab.txt: not read as a tokenizer" in err
    assert "--tokenizer=" in err
    assert main([*words, f"--tokenizer={tmp_path}/smiles.json", "--top=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[-2] == "C"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = copy_twin("bert_masked_lm", tmp_path_factory.mktemp("bert") / "bert")
    return folder, write_wordpiece(folder, 50)


def test_two_masks_at_once(bert, capsys):
    folder, words = bert
    text = "the [MASK] sat [MASK]"
    loaded = zoo.load_pretrained(folder)
    inputs = loaded.tokenizer.batch([text])
    run = jax.jit(lambda p, x: jax.nn.softmax(loaded.model.apply({"params": p}, **x)[0]))
    chances = np.asarray(run(loaded.params, inputs))[0]
    (found,) = zoo.fill_mask(loaded, text, top=3)
    for tokens, place in zip(found.masks, (2, 4), strict=True):
        best = np.argsort(-chances[place])[:3]
        assert [token.id for token in tokens] == best.tolist()
        assert [token.token for token in tokens] == [words[i] for i in best]
        np.testing.assert_allclose([t.probability for t in tokens], chances[place][best], atol=1e-6)
    assert main(["fill", str(folder), f"--prompt={text}", "--json", "--top=3"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [t["id"] for t in row["masks"][1]] == [t.id for t in found.masks[1]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no mask here", r"no mask here: no mask token in it: write '\[MASK\]'$"),
        ("a <mask>", r"write '\[MASK\]', not '<mask>'"),
        (3, "takes texts, not int"),
        ([], "no inputs"),
    ],
)
def test_a_text_without_a_mask(bert, text, told):
    with pytest.raises(UserError, match=told):
        zoo.fill_mask(bert[0], text)


def test_a_mask_behind_the_last_position_is_said(bert):
    (found,) = zoo.fill_mask(bert[0], "the cat " * 12 + "[MASK]")
    assert found.masks == ()
    assert found.problem == "the text was cut before its mask token"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpt2_lm", "see zoo generate"),
        ("bert_headless", "see zoo embed"),
        ("bert_classifier", "see zoo predict"),
        ("vit_classifier", "see zoo predict"),
    ],
)
def test_a_model_without_the_head(tmp_path, name, told):
    folder = copy_twin(name, tmp_path / name)
    with pytest.raises(UserError, match=told):
        zoo.fill_mask(folder, "a [MASK]")
