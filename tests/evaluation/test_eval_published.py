"""`zoo eval` on published models: what they say of each text alone, by hand."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import WORDS, copy_twin, name_labels, write_json_tokenizer, write_wordpiece
from safetensors.numpy import load_file, save_file

import zoo

NAMES = ("bad", "fine", "good")
MAIN = ["accuracy", "loss"]


def write_reviews(path, count=60, labels=NAMES):
    """A table of texts of several lengths, with a language and a rating."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(count):
        words = random.choice(WORDS, (2, 8, 12, 19, 29)[i % 5])
        row = {"text": " ".join(words), "label": labels[i % len(labels)]}
        rows.append({**row, "language": ("en", "de", "en")[i % 3], "stars": float(i % 20)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """(folder of a classifier with names, table of texts, its rows)."""
    root = tmp_path_factory.mktemp("bert")
    folder = copy_twin("bert_classifier", root / "bert", **name_labels("good", "bad", "fine"))
    write_wordpiece(folder, 50)
    return folder, root / "reviews.jsonl", write_reviews(root / "reviews.jsonl")


def classify_alone(folder, rows):
    """Logits `[n, c]` of each text by itself, without padding."""
    loaded = zoo.load_pretrained(folder)
    apply = jax.jit(lambda p, t: loaded.model.apply({"params": p}, t)[0])
    found = {}
    for row in rows:
        tokens, _ = loaded.tokenizer.encode_rows([row["text"]], 24)
        found.setdefault(row["text"], apply(loaded.params, jnp.asarray(tokens[0])[None])[0])
    return np.stack([found[row["text"]] for row in rows]).astype(np.float64)


def cross_entropy(logits, label):
    """`[n]`."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(label)), label]


def test_texts_of_all_lengths_are_what_they_are_alone(bert):
    folder, table, rows = bert
    found = zoo.evaluate(folder, f"jsonl:{table}", batch_size=7, worst=4, samples=50)
    logits = classify_alone(folder, rows)
    np.testing.assert_allclose(found.records["logits"], logits, atol=2e-6)
    # The model's order of classes is not the table's, which is sorted.
    label = np.array([("good", "bad", "fine").index(row["label"]) for row in rows])
    assert found.records["label"].tolist() == label.tolist()
    assert found.classes == ("good", "bad", "fine")
    losses = cross_entropy(logits, label)
    assert found.metrics["loss"].value == pytest.approx(losses.mean(), rel=1e-5)
    assert found.metrics["accuracy"].value == (logits.argmax(1) == label).mean()
    assert any("another order" in note for note in found.notes)
    assert any("fill all 24 tokens" in note for note in found.notes)
    order = np.argsort(-losses)[:4]
    assert [example.index for example in found.worst] == order.tolist()
    assert [example.name for example in found.worst] == [f"{table}:{i + 1}" for i in order]
    assert [example.label for example in found.worst] == [rows[i]["label"] for i in order]
    assert all(rows[x.index]["text"].startswith(x.text[:40]) for x in found.worst)


@pytest.mark.slow
def test_slices_are_the_numbers_of_their_rows_alone(bert, tmp_path):
    folder, table, rows = bert
    fields = ["language", "length", "stars"]
    loaded = zoo.load_pretrained(folder)
    found = zoo.evaluate(loaded, f"jsonl:{table}", by=fields, metrics=MAIN, samples=50)
    by = {field: [part for part in found.slices if part.field == field] for field in fields}
    assert [(part.value, part.count) for part in by["language"]] == [("de", 20), ("en", 40)]
    (tmp_path / "de.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows if row["language"] == "de")
    )
    alone = zoo.evaluate(loaded, f"jsonl:{tmp_path}/de.jsonl", metrics=MAIN, samples=50)
    for name, interval in by["language"][0].metrics.items():
        assert interval.value == pytest.approx(alone.metrics[name].value, rel=1e-6)
        assert (interval.low, interval.high) == pytest.approx(
            (alone.metrics[name].low, alone.metrics[name].high), rel=1e-6
        )
    # Quartiles, equal values together.
    lengths = [(part.value, part.count) for part in by["length"]]
    assert lengths == [("4", 12), ("10", 12), ("14", 12), ("21", 12), ("24", 12)]
    assert [part.value for part in by["stars"]] == ["0 to 4", "5 to 9", "10 to 14", "15 to 19"]
    assert [part.count for part in by["stars"]] == [15, 15, 15, 15]
    # The worst of those that are large enough to judge by.
    worst, _ = found.worst_slice
    assert worst.count >= 30
    large = [part for part in found.slices if part.count >= 30]
    assert worst.metrics["accuracy"].value == min(p.metrics["accuracy"].value for p in large)


@pytest.mark.slow
def test_against_itself_with_its_classes_in_another_order(bert, tmp_path):
    folder, table, _ = bert
    other = copy_twin("bert_classifier", tmp_path / "other", **name_labels(*NAMES))
    write_wordpiece(other, 50)
    tensors = load_file(other / "model.safetensors")
    order = [1, 2, 0]  # bad, fine, good of good, bad, fine
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][order]
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    found = zoo.evaluate(folder, f"jsonl:{table}", against=other, samples=50)
    assert {"loss", "accuracy", "f1_macro", "matthews"} <= set(found.against.metrics)
    for name, compared in found.against.metrics.items():
        assert compared.a == pytest.approx(found.metrics[name].value, rel=1e-6), name
        assert compared.difference == pytest.approx(0, abs=1e-6), name
    assert set(found.against.better.values()) == {""}
    # One that always says 'good' is another matter.
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = np.zeros_like(tensors[name])
    tensors["classifier.bias"][2] = 9
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    worse = zoo.evaluate(folder, f"jsonl:{table}", against=other, samples=200).against
    assert worse.metrics["loss"].b == pytest.approx(6.0, abs=0.01)
    assert worse.better["loss"] == "A"
    assert worse.metrics["loss"].p_value < 0.01


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = copy_twin("gpt2_lm", tmp_path_factory.mktemp("gpt2") / "gpt2")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *WORDS]
    tokens += [f"<unused{i}>" for i in range(50 - len(tokens))]
    write_json_tokenizer(folder, tokens, ("<s>", "</s>"), "<pad>")
    return folder


@pytest.mark.slow
def test_a_text_in_windows_of_the_model(gpt2, tmp_path):
    random = np.random.default_rng(0)
    text = " ".join(random.choice(WORDS, 100))
    (tmp_path / "text.txt").write_text(text)
    loaded = zoo.load_pretrained(gpt2)
    apply = jax.jit(lambda p, t: loaded.model.apply({"params": p}, t)[0])
    for length in (None, 10):
        found = zoo.evaluate(
            loaded, f"text:{tmp_path}/text.txt", length=length, batch_size=3, samples=20
        )
        tokens = loaded.tokenizer.encode_batch([text])[0]
        if loaded.tokenizer.end is not None:
            tokens = np.append(tokens, loaded.tokenizer.end)
        size, losses = length or 24, []
        for start in range(0, len(tokens) - 1, size):
            window = tokens[start : start + size + 1]
            logits = apply(loaded.params, jnp.asarray(window[:-1])[None])[0]
            losses.append(cross_entropy(np.asarray(logits, np.float64), window[1:]).sum())
        np.testing.assert_allclose(found.records["loss"], losses, rtol=1e-5)
        mean = sum(losses) / (len(tokens) - 1)
        assert found.metrics["loss"].value == pytest.approx(mean, rel=1e-6)
        assert found.metrics["perplexity"].value == pytest.approx(math.exp(mean), rel=1e-5)


def test_a_text_shorter_than_a_window(gpt2, tmp_path):
    (tmp_path / "short.txt").write_text("the cat sat on the mat")
    found = zoo.evaluate(gpt2, f"text:{tmp_path}/short.txt", worst=1, samples=20)
    assert found.num_examples == 1
    assert found.records["num_tokens"].tolist() in ([5], [6])
    assert found.worst[0].text.startswith("the cat sat")
