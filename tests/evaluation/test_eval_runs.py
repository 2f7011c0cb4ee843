"""`zoo eval` on runs: the numbers of training, of scikit-learn, of every batch size and order."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import sklearn.metrics as reference
from conftest import small_config
from etils import epath

import zoo
from zoo.checkpoint import Checkpoints
from zoo.cli import main
from zoo.config import (
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    UserError,
)
from zoo.evaluation.report import tell_worst_slice
from zoo.train.rows import read_rows

MORE = ("matthews", "f1_macro")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run on the digits that measured further metrics, and kept the best by one of them."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    config = small_config(
        data=DataConfig(
            "embedded:digits", transform="shift(1)|normalize(0.5, 0.5)", validation_fraction=0.2
        ),
        train=TrainConfig(16, 12, eval_every_steps=4, eval_batch_size=100, metrics=MORE),
        checkpoint=CheckpointConfig(every_steps=4, keep_last=1, best_metric="val/matthews"),
    )
    return folder, zoo.fit(config, folder)


@pytest.mark.parametrize("split", ["test", "val"])
def test_the_numbers_are_those_of_the_run_itself(digits, split):
    folder, _ = digits
    row = [row for row in read_rows(folder) if row["split"] == split][-1]
    found = zoo.evaluate(folder, split=split)
    assert set(row) - {"step", "split"} == {"loss", "accuracy", *MORE}
    for name in ("loss", "accuracy", *MORE):
        assert found.metrics[name].value == row[name], name
        assert found.metrics[name].low <= row[name] <= found.metrics[name].high
    assert found.num_examples == {"test": 360, "val": 288}[split]


def test_the_numbers_are_those_of_scikit_learn(digits):
    folder, result = digits
    examples = result.parts.dataset.splits["test"].take(np.arange(360))
    chances, label = result.predict(examples["image"]), examples["label"]
    found = zoo.evaluate(folder)
    chosen = chances.argmax(1)
    expected = {
        "loss": -np.log(chances[np.arange(360), label]).mean(),
        "accuracy": reference.accuracy_score(label, chosen),
        "f1_macro": reference.f1_score(label, chosen, average="macro"),
        "matthews": reference.matthews_corrcoef(label, chosen),
    }
    for name, value in expected.items():
        assert found.metrics[name].value == pytest.approx(value, rel=1e-5), name
    # By label: of a class the accuracy is its recall.
    by = zoo.evaluate(folder, by=["label"], metrics=["accuracy"])
    recall = reference.recall_score(label, chosen, average=None)
    assert [part.value for part in by.slices] == list("0123456789")
    assert [part.metrics["accuracy"].value for part in by.slices] == pytest.approx(recall)
    assert [part.count for part in by.slices] == np.bincount(label).tolist()
    worst, _ = by.worst_slice
    assert worst.metrics["accuracy"].value == min(recall)
    assert tell_worst_slice(by).startswith(f"worst: label {np.argmin(recall)}, accuracy")
    best = dataclasses.replace(by, slices=(by.slices[np.argmax(recall)],))
    assert tell_worst_slice(best).startswith("no slice of at least 30 examples is worse than all")


def test_no_number_depends_on_the_batches_or_the_order(digits):
    folder, result = digits
    examples = result.parts.dataset.splits["test"].take(np.arange(360))
    loaded = zoo.load_pretrained(folder)
    first = zoo.evaluate(loaded, metrics=["loss", *MORE, "accuracy"])
    order = np.random.default_rng(0).permutation(360)
    shuffled = examples["image"][order], examples["label"][order]
    for data, batch_size in ((None, 1), (None, 256), (shuffled, 7)):
        again = zoo.evaluate(loaded, data, metrics=list(first.metrics), batch_size=batch_size)
        for name, interval in first.metrics.items():
            exact = {} if name == "loss" else {"rel": 0, "abs": 0}
            assert again.metrics[name].value == pytest.approx(interval.value, **exact), name
        at = np.arange(360) if data is None else order
        np.testing.assert_allclose(again.records["logits"], first.records["logits"][at], atol=1e-5)
        assert again.records["label"].tolist() == first.records["label"][at].tolist()


def test_a_part_of_a_split(digits):
    folder, result = digits
    images = result.parts.dataset.splits["test"].take(np.arange(20, 60))
    part = zoo.evaluate(folder, split="test[20:60]", worst=3)
    assert part.num_examples == 40
    assert part.records["label"].tolist() == images["label"].tolist()
    losses = part.records["loss"]
    order = np.argsort(-losses)[:3]
    assert [example.index for example in part.worst] == order.tolist()
    assert [example.loss for example in part.worst] == pytest.approx(losses[order].tolist())
    chances = result.predict(images["image"])[order]
    assert [x.probability for x in part.worst] == pytest.approx(chances.max(1), rel=1e-4)
    assert [x.prediction for x in part.worst] == [str(i) for i in chances.argmax(1)]
    assert [x.label for x in part.worst] == [str(i) for i in images["label"][order]]


def test_the_best_checkpoint_is_by_a_further_metric(digits):
    folder, _ = digits
    rows = [row for row in read_rows(folder) if row["split"] == "val"]
    assert all(set(MORE) <= set(row) for row in rows)
    config = CheckpointConfig(best_metric="val/matthews")
    best = max(rows, key=lambda row: row["matthews"])["step"]
    assert Checkpoints(epath.Path(folder) / "checkpoints", config).best() == best


def test_the_command_line(digits, tmp_path, capsys):
    folder, _ = digits
    assert main(["eval", str(folder), "--split=test[:50]", "--worst=2", "--metrics=accuracy"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{folder} on embedded:digits, split test[:50]: 50 examples"
    assert shown[2].split() == ["metric", "value", "95", "%", "interval"]
    assert shown[3].split()[0] == "accuracy"
    assert shown[-1] == str(folder / "eval.json")
    kept = json.loads((folder / "eval.json").read_text())
    assert kept["num_examples"] == 50
    assert kept["fingerprint"] == json.loads((folder / "data.json").read_text())["fingerprint"]
    assert len(kept["worst"]) == 2
    out = tmp_path / "other.json"
    assert main(["eval", str(folder), "--split=test[:50]", "--json", f"--out={out}"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(out.read_text())
    assert told["metrics"]["accuracy"]["value"] == kept["metrics"]["accuracy"]["value"]


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    """A regression, whose model learned standardised targets."""
    folder = tmp_path_factory.mktemp("diabetes") / "run"
    config = small_config(
        data=DataConfig("embedded:diabetes", transform="standardize"),
        task=TaskConfig("regression"),
        train=TrainConfig(64, 4, eval_batch_size=50, metrics=("pearson",)),
    )
    return folder, zoo.fit(config, folder)


def test_a_regression_in_the_units_of_its_data(diabetes):
    folder, result = diabetes
    row = result.metrics["test"]
    found = zoo.evaluate(folder, worst=1)
    for name, value in row.items():
        assert found.metrics[name].value == value, name
    examples = result.parts.dataset.splits["test"].take(np.arange(89))
    values = result.predict(examples["features"])[:, 0].astype(np.float64)
    target = examples["label"]
    expected = {
        "mse": reference.mean_squared_error(target, values),
        "mae": reference.mean_absolute_error(target, values),
        "r2": reference.r2_score(target, values),
        "pearson": np.corrcoef(target, values)[0, 1],
    }
    for name, value in expected.items():
        assert found.metrics[name].value == pytest.approx(value, rel=1e-4), name
    far = int(np.abs(values - target).argmax())
    assert found.worst[0].index == far
    assert float(found.worst[0].label) == pytest.approx(target[far])


def test_a_task_that_observes_nothing_keeps_its_own_numbers(tmp_path):
    config = small_config(task=TaskConfig("bare_task:Bare"))
    result = zoo.fit(config, tmp_path / "run")
    found = zoo.evaluate(tmp_path / "run")
    assert found.metrics["bits"].value == result.metrics["test"]["bits"]
    assert math.isnan(found.metrics["bits"].low)
    with pytest.raises(UserError, match=r"task 'bare_task:Bare' has no method observe"):
        zoo.evaluate(tmp_path / "run", metrics=["accuracy"])


@pytest.mark.parametrize(
    ("metrics", "task", "told"),
    [
        (("acuracy",), "classification", "no metric 'acuracy' .did you mean 'accuracy'"),
        (("perplexity",), "classification", "'perplexity' needs loss and num_tokens"),
        (("accuracy",), "bare_task:Bare", "task 'bare_task:Bare' has no method observe"),
    ],
)
def test_a_wrong_metric_is_found_before_training(tmp_path, metrics, task, told):
    config = small_config(train=TrainConfig(16, 4, metrics=metrics), task=TaskConfig(task))
    with pytest.raises(UserError, match=f"train.metrics: .*{told}"):
        zoo.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_best_metric_that_nobody_measures(tmp_path):
    config = small_config(
        data=DataConfig("synthetic:embedded:digits", validation_fraction=0.2),
        train=TrainConfig(16, 4, eval_every_steps=2),
        checkpoint=CheckpointConfig(best_metric="val/acuracy"),
    )
    with pytest.raises(UserError, match=r"best_metric='val/acuracy' is not .*'val/accuracy'"):
        zoo.fit(config, tmp_path / "run")


@pytest.mark.slow
def test_text_as_the_run_saw_it(tmp_path):
    (tmp_path / "text.txt").write_text("it was a dark and stormy night; " * 20)
    fields = {"width": 16, "depth": 1, "num_heads": 2, "num_positions": 16}
    config = small_config(
        model=ModelConfig("gpt2", fields),
        data=DataConfig(f"text:{tmp_path}/text.txt", length=16, validation_fraction=0.3),
        task=TaskConfig("causal_lm"),
        train=TrainConfig(8, 2, eval_batch_size=16),
    )
    result = zoo.fit(config, tmp_path / "run")
    found = zoo.evaluate(tmp_path / "run", worst=1)
    assert found.split == "val"
    for name, value in result.metrics["val"].items():
        assert found.metrics[name].value == value, name
    assert len(found.records["loss"]) == len(result.parts.dataset.splits["val"])
    tokens = result.parts.dataset.splits["val"].tokens
    assert found.records["num_tokens"].sum() == len(tokens) - 1
    ends = (tokens.read(np.arange(1, len(tokens))) == result.parts.dataset.tokenizer.end).sum()
    assert found.records["num_bytes"].sum() == len(tokens) - 1 - ends
    assert found.worst[0].name == f"window {found.worst[0].index}"
