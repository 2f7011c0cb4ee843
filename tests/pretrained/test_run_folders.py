"""A run's folder as a source: what the run evaluates is what is loaded."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from conftest import SMALL_VIT, run_command, small_config

import zoo
from zoo.config import DataConfig, ModelConfig, OptimConfig, TaskConfig, UserError
from zoo.tree import named_leaves

VIT = ModelConfig("vit_s4", SMALL_VIT, scan_layers=True)


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"optim": OptimConfig("adam", 1e-3, ema_decay=0.5)},
        {"optim": OptimConfig("schedule_free_adamw", 1e-2)},
        {"model": VIT},
    ],
    ids=["plain", "average", "schedule_free", "scanned"],
)
def test_what_the_run_evaluates_is_loaded(tmp_path, groups):
    result = zoo.fit(small_config(**groups), tmp_path / "run")
    loaded = zoo.load_pretrained(tmp_path / "run")
    expected, found = named_leaves(result.params), named_leaves(loaded.params)
    assert expected.keys() == found.keys()
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, atol=1e-6, err_msg=path)
    inputs = jax.numpy.ones((2, 8, 8, 1))
    if not groups.get("model"):
        inputs = inputs.reshape(2, 64) if loaded.model.input_shape == (64,) else inputs
    outputs = [
        jax.jit(m.apply)({"params": p}, inputs)[0]
        for m, p in ((result.model, result.params), (loaded.model, loaded.params))
    ]
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_a_run_of_text_brings_its_tokenizer_and_converts(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 200)
    config = small_config(
        model=ModelConfig("gpt2", {"width": 16, "depth": 1, "num_heads": 2, "num_positions": 8}),
        data=DataConfig(f"text:{tmp_path}/text.txt", tokenizer="chars", length=8),
        task=TaskConfig("causal_lm"),
    )
    zoo.fit(config, tmp_path / "run")
    loaded = zoo.load_pretrained(tmp_path / "run")
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("not to be")) == "not to be"
    done = run_command("-m", "zoo", "convert", f"{tmp_path}/run", f"{tmp_path}/hf")
    assert done.returncode == 0, done.stderr
    again = zoo.load_pretrained(tmp_path / "hf")
    for path, leaf in named_leaves(loaded.params).items():
        np.testing.assert_array_equal(named_leaves(again.params)[path], leaf)


def test_a_folder_without_what_a_run_writes(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"zoo\.json is missing"):
        zoo.load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["convert", "nowhere", "there"], "there is no nowhere"),
        (["convert", "nowhere"], "zoo convert SRC DST"),
        (["convert", "a", "b", "--too=hf"], "no flag --too (did you mean 'to'?)"),
        (["parity", "a", "b"], "zoo parity SRC"),
        (["parity", "a", "--tolerance=small"], "is not a number"),
    ],
)
def test_wrong_words(words, told, capsys):
    from zoo.cli import main

    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
