"""Probes of frozen features against scikit-learn and NumPy on `zoo.embed`'s vectors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import SMALL_VIT, small_config
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import zoo
from zoo.cli import main
from zoo.config import DataConfig, ModelConfig, OptimConfig, TrainConfig, UserError
from zoo.data.sources import open_raw
from zoo.evaluation.labelled import find_input

FEW = "--train_split=train[:60] --split=train[60:64]"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small ViT after a few steps on the digits, and its vectors of both splits."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    config = small_config(
        model=ModelConfig("vit_ti4", {**SMALL_VIT, "pooling": "mean"}),
        data=DataConfig("embedded:digits", transform="normalize(0.5, 0.5)"),
        optim=OptimConfig("adam", 3e-3),
        train=TrainConfig(64, 50, eval_batch_size=360),
    )
    splits = zoo.fit(config, folder).parts.dataset.splits
    loaded = zoo.load_pretrained(folder)
    vectors, labels = {}, {}
    for name, source in splits.items():
        examples = source.take(np.arange(len(source)))
        vectors[name] = zoo.embed(loaded, list(examples["image"]), batch_size=64)
        labels[name] = examples["label"]
    return folder, loaded, vectors, labels


def test_neighbours_vote(digits):
    """By brute force; what was learned in a few steps is far above chance."""
    _, loaded, vectors, labels = digits
    found = zoo.probe(loaded, kind="knn", batch_size=64, samples=20)
    cosine = vectors["test"] @ vectors["train"].T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :20]
    weights = np.exp(np.take_along_axis(cosine, nearest, 1) / 0.07)
    votes = np.zeros((len(cosine), 10))
    for row, places in enumerate(nearest):
        np.add.at(votes[row], labels["train"][places], weights[row])
    votes /= votes.sum(1, keepdims=True)
    made = np.exp(found.records["logits"].astype(np.float64))
    np.testing.assert_allclose(made, votes, atol=1e-4)
    right = (votes.argmax(1) == labels["test"]).mean()
    assert found.metrics["accuracy"].value == pytest.approx(right, abs=0.01)
    assert found.metrics["accuracy"].low > 0.5
    assert found.num_examples == 360
    assert "loss" not in found.metrics  # a vote is no probability model


def test_linear_and_against(digits):
    _, loaded, vectors, labels = digits
    found = zoo.probe(loaded, kind="linear", by="label", batch_size=64, samples=20, against=loaded)
    scaler = StandardScaler().fit(vectors["train"].astype(np.float64))
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(vectors["train"].astype(np.float64)), labels["train"])
    expected = model.predict_log_proba(scaler.transform(vectors["test"].astype(np.float64)))
    np.testing.assert_allclose(found.records["logits"], expected, atol=1e-2)
    loss = -expected[np.arange(360), labels["test"]].mean()
    assert found.metrics["loss"].value == pytest.approx(loss, abs=1e-3)
    assert len(found.slices) == 10
    assert found.against.metrics["accuracy"].p_value == 1.0


def test_few_shot(digits):
    """The mean and deviation of draws, the same for the same seed; more examples are better."""
    folder, loaded, _, _ = digits
    names = ["accuracy"]
    found = zoo.few_shot(loaded, shots=(1, 10), draws=2, metrics=names, batch_size=64)
    few, many = found.shots
    assert 0.1 < few.mean["accuracy"] < many.mean["accuracy"]
    assert few.deviation["accuracy"] > 0
    split = {"train_split": "train[:200]", "split": "train[200:260]"}
    command = [
        "eval",
        str(folder),
        *(f"--{k}={v}" for k, v in split.items()),
        "--probe=few_shot",
        "--shots=1,2",
        "--metrics=accuracy",
    ]
    assert main([*command, "--batch_size=64"]) == 0
    written = json.loads((folder / "eval_few_shot.json").read_text())
    again = zoo.few_shot(loaded, shots=(1,), metrics=names, batch_size=64, **split)
    assert written["shots"][0]["mean"] == again.shots[0].mean
    assert [row["shots"] for row in written["shots"]] == [1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--probe=kn", "--probe='kn' is unknown (did you mean 'knn'?)"),
        ("--probe=knn --shots=3", "--shots goes with --probe=few_shot"),
        ("--probe=knn --worst=3", "--worst does not go with --probe"),
        ("--train_split=train", "--train_split goes with --probe=knn or linear or few_shot"),
        ("--probe=few_shot --shots=1,a", "should be numbers with commas between"),
        (f"--probe=few_shot --shots=50 {FEW}", "examples to learn from"),
        ("--probe=knn --data=embedded:wine", "takes images; embedded:wine has features, label"),
        ("--probe=knn --data=embedded:diabetes", "embedded:diabetes has no classes"),
        ("--probe=knn --data=embedded:digits --split=train", "share 1,437 examples"),
        ("--probe=knn --data=embedded:digits --split=tst", "did you mean 'test'?"),
        ("--probe=knn --metrics=acuracy", "no metric 'acuracy' (did you mean 'accuracy'?)"),
        ("--template=x", "template is for CLIP and SigLIP"),
    ],
)
def test_mistakes(digits, flags, message, capsys):
    assert main(["eval", str(digits[0]), *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_data_without_a_split_to_test_on(digits):
    images = np.zeros((6, 8, 8, 1), np.uint8)
    data = images, np.arange(6) % 2
    with pytest.raises(UserError, match="has no split to test on: name two"):
        zoo.probe(digits[1], data)
    found = zoo.probe(digits[1], data, train_split="train[:4]", split="train[4:]", samples=5)
    assert found.num_examples == 2


def test_a_model_of_texts_takes_no_pictures():
    dataset = open_raw(DataConfig("embedded:digits"))
    with pytest.raises(UserError, match="run takes texts; embedded:digits has image, label"):
        find_input(dataset, {"text"}, "run")
