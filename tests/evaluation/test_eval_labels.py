"""`zoo eval` where an example has several labels: a run's numbers are its own, and scikit-learn's;
of a published model the labels are matched by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as reference
from conftest import small_config
from published import WORDS, copy_twin, name_labels, write_wordpiece

import zoo
from zoo.cli import main
from zoo.config import DataConfig, TaskConfig, TrainConfig, UserError
from zoo.pretrained.recipe import keep_meaning
from zoo.pretrained.sources import find_source
from zoo.train.rows import read_rows

TOPICS = ("sport", "news", "music")


def write_rows(path, topics, count=80, numbers=True):
    """Rows that have any of the topics, of four numbers that tell them, or of a few words."""
    random = np.random.default_rng(0)
    has = random.random((count, len(topics))) < 0.4
    with path.open("w") as file:
        for row in has:
            made = {"label": [topic for topic, is_so in zip(topics, row, strict=True) if is_so]}
            noise = random.normal(size=4)
            noise[: len(row)] += 2 * row
            more = {f"x{i}": float(x) for i, x in enumerate(noise)}
            text = {"text": " ".join(random.choice(WORDS, 5))}
            file.write(json.dumps({**made, **(more if numbers else text)}) + "\n")
    return has


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    write_rows(root / "rows.jsonl", TOPICS)
    config = small_config(
        data=DataConfig(f"jsonl:{root / 'rows.jsonl'}", transform="standardize", test_fraction=0.5),
        task=TaskConfig("classification"),
        train=TrainConfig(16, 30, eval_batch_size=16, metrics=("f1_macro", "auroc")),
    )
    return root, zoo.fit(config, root / "run")


def test_a_runs_numbers_are_its_own_and_scikit_learns(run):
    root, _ = run
    row = [row for row in read_rows(root / "run") if row["split"] == "test"][-1]
    found = zoo.evaluate(root / "run", worst=3)
    assert set(row) - {"step", "split"} == {"loss", "accuracy", "f1_micro", "f1_macro", "auroc"}
    for name in ("loss", "accuracy", "f1_micro", "f1_macro", "auroc"):
        assert found.metrics[name].value == pytest.approx(row[name], rel=1e-12), name
    labels, logits = found.records["labels"], found.records["logits"]
    chosen = logits > 0
    assert found.metrics["accuracy"].value == reference.accuracy_score(labels, chosen)
    assert found.metrics["f1_micro"].value == pytest.approx(
        reference.f1_score(labels, chosen, average="micro")
    )
    losses = np.logaddexp(0, np.where(labels > 0, -logits, logits)).mean(axis=1)
    assert found.metrics["loss"].value == pytest.approx(losses.mean(), rel=1e-5)
    worst = found.worst[0]
    at = found.rows.tolist().index(worst.index)
    assert at == losses.argmax()
    named = [name for name, is_so in zip(found.classes, labels[at], strict=True) if is_so]
    assert worst.label == (", ".join(named) or "(none)")
    assert worst.probability is None


def test_the_command_line_and_its_mistakes(run, tmp_path, monkeypatch, capsys):
    root, _ = run
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(root / "run"), "--worst=2"]) == 0
    out = capsys.readouterr().out
    assert "f1_micro" in out
    assert "average_precision" in out
    one = tmp_path / "one.jsonl"
    rows = [{"label": "news", **{f"x{i}": 0.5 for i in range(4)}}] * 4
    one.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for words, told in (
        ([f"--data=jsonl:{one}"], "has one label an example"),
        (["--by=label"], "an example of"),
        (["--confusion=a.png"], "gives no classes"),
        (["--metrics=matthews"], "needs logits and label"),
    ):
        assert main(["eval", str(root / "run"), *words]) == 2, words
        error = capsys.readouterr().err
        assert told in error
        assert len(error.strip().splitlines()) == 1


def test_a_published_model_of_several_labels(tmp_path):
    problem = {"problem_type": "multi_label_classification"}
    names = name_labels("news", "sport", "music")
    folder = copy_twin("bert_classifier", tmp_path / "bert", **names, **problem)
    write_wordpiece(folder, 50)
    has = write_rows(tmp_path / "texts.jsonl", ("music", "sport"), numbers=False)
    found = zoo.evaluate(folder, f"jsonl:{tmp_path / 'texts.jsonl'}")
    np.testing.assert_array_equal(found.records["labels"], np.pad(has[:, ::-1], [(0, 0), (1, 0)]))
    assert found.metrics["loss"].value == pytest.approx(
        np.logaddexp(
            0, np.where(found.records["labels"] > 0, -1, 1) * found.records["logits"]
        ).mean(),
        rel=1e-5,
    )
    assert any("no example of news" in note for note in found.notes)
    same = zoo.evaluate(folder, f"jsonl:{tmp_path / 'texts.jsonl'}", against=folder)
    assert same.against is not None
    assert all(found.difference == 0 for found in same.against.metrics.values())
    plain = copy_twin("bert_classifier", tmp_path / "plain", **names)
    write_wordpiece(plain, 50)
    with pytest.raises(UserError, match=r"has several labels an example, .* gives one label"):
        zoo.evaluate(plain, f"jsonl:{tmp_path / 'texts.jsonl'}")


def test_its_meaning_leaves_with_it(run):
    """transformers and `zoo predict` read a sigmoid each from config.json."""
    told, lines = keep_meaning(find_source(str(run[0] / "run")))
    assert (told, lines) == ({"problem_type": "multi_label_classification"}, ())
