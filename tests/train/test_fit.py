"""`zoo.fit` as a person uses it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import SMALL_VIT, small_config

import zoo
from zoo.config import (
    CheckpointConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    TaskConfig,
    TrainConfig,
    UserError,
)
from zoo.train import read_rows
from zoo.tree import named_leaves

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 300)
IMAGES = (RANDOM.normal(size=(300, 6, 6)) + 2 * LABELS[:, None, None]).astype(np.float32)


def fit_arrays(workdir=None, **groups):
    groups = {"train": TrainConfig(batch_size=30, num_steps=300, steps_per_call=20), **groups}
    config = small_config(optim=OptimConfig("adam", 1e-2), **groups)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, transform=""))
    return zoo.fit(
        config, workdir, train=(IMAGES[:200], LABELS[:200]), test=(IMAGES[200:], LABELS[200:])
    )


def test_arrays_in_predictions_out():
    result = fit_arrays()
    probabilities = result.predict(IMAGES[200:])
    assert probabilities.shape == (100, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    accuracy = (probabilities.argmax(1) == LABELS[200:]).mean()
    assert accuracy == pytest.approx(result.metrics["test"]["accuracy"])
    assert accuracy > 0.8
    np.testing.assert_allclose(result.predict(IMAGES[200:207]), probabilities[:7], atol=1e-6)
    with pytest.raises(UserError, match=r"image of shape \(5, 5, 1\), not \(6, 6, 1\)"):
        result.predict(np.zeros((2, 5, 5)))


def test_regression_predicts_in_the_units_of_the_labels():
    x = RANDOM.normal(size=(200, 4)).astype(np.float32)
    y = 500 + 100 * x @ np.array([1.0, -2.0, 0.5, 0.0])
    config = small_config(
        task=TaskConfig("regression"),
        model=ModelConfig("mlp", {"widths": (32,)}),
        optim=OptimConfig("adam", 1e-2),
        train=TrainConfig(batch_size=50, num_steps=300, steps_per_call=50),
        log=LogConfig(every_steps=300, progress=False, tensorboard=False),
    )
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, transform=""))
    result = zoo.fit(config, train=(x, y), test=(x, y))
    assert result.metrics["test"]["r2"] > 0.98
    np.testing.assert_allclose(result.predict(x)[:, 0].mean(), 500, atol=20)


def test_steps_per_call_changes_no_bit(tmp_path):
    """Also where events fall inside a block and the last block is short."""
    base = small_config(
        model=ModelConfig("vit_ti4", {**SMALL_VIT, "dropout": 0.1}),
        optim=OptimConfig("adamw", 1e-3, weight_decay=0.1, ema_decay=0.9),
        train=TrainConfig(batch_size=16, num_steps=11),
        log=LogConfig(every_steps=4, progress=False, tensorboard=False, picture=False),
    )
    results = []
    for steps in (1, 3):
        train = dataclasses.replace(base.train, steps_per_call=steps)
        config = dataclasses.replace(base, train=train)
        results.append(zoo.fit(config, tmp_path / str(steps)))
    a, b = (named_leaves(r.params) for r in results)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)
    assert read_rows(tmp_path / "1") == read_rows(tmp_path / "3")


def test_what_a_workdir_holds(tmp_path):
    config = small_config(
        log=LogConfig(every_steps=2, progress=False, profile_steps=(2, 4)),
        train=TrainConfig(batch_size=16, num_steps=6, eval_every_steps=3),
        checkpoint=CheckpointConfig(every_steps=3, best_metric="val/accuracy"),
    )
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, validation_fraction=0.25)
    )
    zoo.fit(config, tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "checkpoints", "config.json", "curves.png", "data.json", "metrics.jsonl", "parameters.txt",
        "profile", "tensorboard", "timing.jsonl", "versions.json", "zoo.json",
    }  # fmt: skip
    rows = read_rows(tmp_path)
    assert [(r["step"], r["split"]) for r in rows] == [
        (2, "train"), (3, "val"), (4, "train"), (6, "test"), (6, "train"), (6, "val"),
    ]  # fmt: skip
    assert {"loss", "accuracy", "gradient_norm", "learning_rate"} <= set(rows[0])
    assert json.loads((tmp_path / "config.json").read_text())["train"]["num_steps"] == 6
    data = json.loads((tmp_path / "data.json").read_text())
    assert data["examples"] == {"train": 72, "val": 24, "test": 40}
    assert data["example"] == {"image": [8, 8, 1], "label": [], "mask": []}
    assert "jax" in json.loads((tmp_path / "versions.json").read_text())
    assert "fc1/kernel" in (tmp_path / "parameters.txt").read_text()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert list((tmp_path / "tensorboard").iterdir())
    timing = json.loads((tmp_path / "timing.jsonl").read_text().splitlines()[-1])
    assert timing["examples_per_second"] > 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "unfinished"])
def test_a_run_falls_back_to_the_sound_checkpoint_and_ends_in_the_same_bits(
    tmp_path, capsys, damage
):
    config = small_config(
        checkpoint=CheckpointConfig(every_steps=2, keep_last=3),
        log=LogConfig(every_steps=2, tensorboard=False, picture=False),
    )
    first = zoo.fit(config, tmp_path)
    rows = read_rows(tmp_path)
    newest = tmp_path / "checkpoints" / "00000006"
    file = max((newest / "state").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    file.write_bytes(content[:-7] if damage == "truncate" else content)
    if damage == "unfinished":
        (newest / "manifest.json").unlink()
    capsys.readouterr()
    second = zoo.fit(config, tmp_path)
    told = capsys.readouterr().out
    assert "resuming from step 4" in told
    assert ("half-written" if damage == "unfinished" else "falling back to the one before") in told
    a, b = named_leaves(first.params), named_leaves(second.params)
    assert all((np.asarray(a[p]) == np.asarray(b[p])).all() for p in a)
    assert read_rows(tmp_path) == rows


def test_a_longer_run_is_taken_when_asked_for(tmp_path, capsys):
    config = small_config(optim=OptimConfig("adam", 1e-2, schedule="cosine"))
    zoo.fit(config, tmp_path)
    longer = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, num_steps=9),
        checkpoint=CheckpointConfig(extend=True),
        log=dataclasses.replace(config.log, progress=True),
    )
    zoo.fit(longer, tmp_path)
    told = " ".join(capsys.readouterr().out.split())
    assert "num_steps grows from 6 to 9: the cosine schedule is stretched" in told
    assert "learning rate at step 6 is 0.0025 instead of 0" in told
    assert read_rows(tmp_path)[-1]["step"] == 9


def test_a_run_that_never_began_does_not_hold_its_workdir(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 99}')  # cut off while it compiled
    zoo.fit(small_config(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_other_data_in_the_same_workdir_is_refused(tmp_path):
    fit_arrays(tmp_path)
    IMAGES[0] += 1
    with pytest.raises(UserError, match="was trained on other data"):
        fit_arrays(tmp_path)


def test_init_from_takes_the_parameters_of_a_run(tmp_path):
    first = zoo.fit(small_config(), tmp_path / "first")
    config = small_config(
        init_from=str(tmp_path / "first"), train=TrainConfig(batch_size=16, num_steps=0)
    )
    second = zoo.fit(config, tmp_path / "second")
    a, b = named_leaves(first.params), named_leaves(second.params)
    assert all((np.asarray(a[p]) == np.asarray(b[p])).all() for p in a)
    other = dataclasses.replace(config, model=ModelConfig("mlp", {"widths": (16, 4)}))
    with pytest.raises(UserError, match=r"cannot be made to fit .*fc2/bias: none -> 4; fc2/kernel"):
        zoo.fit(other, tmp_path / "third")


def test_fit_without_a_workdir_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zoo.fit(small_config())
    assert not list(tmp_path.iterdir())


def test_the_progress_line_says_mfu_where_the_peak_is_known(monkeypatch, capsys):
    from zoo.parallel.chips import CHIPS

    kind = jax.devices()[0].device_kind
    known = dataclasses.replace(CHIPS["v4"], flops=1e12, kinds=(kind,))
    monkeypatch.setitem(CHIPS, "this", known)
    zoo.fit(small_config(log=LogConfig(every_steps=2, tensorboard=False, picture=False)))
    told = capsys.readouterr().out
    for part in ("MFU", "steps/s", "examples/s", "ETA", "loss", "compiled 1 step a call"):
        assert part in told
