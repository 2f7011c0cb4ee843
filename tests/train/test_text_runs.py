"""Runs on text: what the workdir keeps, and tokenizers that do not belong together."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from conftest import small_config

import zoo
from zoo.config import Config, DataConfig, ModelConfig, TaskConfig, TrainConfig, UserError
from zoo.data import ArraySource, Dataset
from zoo.data.documents import text_array
from zoo.data.tokenizers import read_tokenizer, train_bpe
from zoo.train.build import build

SMALL_GPT = {"width": 16, "depth": 1, "num_heads": 2, "num_positions": 32}


def text_config(cache, tokenizer="bytes", **groups):
    """Four steps of a small GPT on synthetic text."""
    data = DataConfig("synthetic:embedded:stdlib", tokenizer=tokenizer, length=32, cache=str(cache))
    defaults = {
        "model": ModelConfig("gpt2", SMALL_GPT),
        "data": data,
        "task": TaskConfig("causal_lm"),
        "train": TrainConfig(batch_size=8, num_steps=4, eval_every_steps=2),
    }
    return small_config(**{**defaults, **groups})


def corpus(folder: pathlib.Path, **changes) -> DataConfig:
    """The user's own files and a tokenizer of their own."""
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("some words of a text, and some more words of it\n" * 60)
    path = folder / "tokenizer.json"
    path.write_text(train_bpe(iter(["some words of a text"] * 9), 270).to_json())
    fields = {"tokenizer": str(path), "length": 16, "validation_fraction": 0.2}
    return DataConfig(f"text:{folder}/*.txt", cache=str(folder / "c"), **{**fields, **changes})


def test_a_run_on_text(tmp_path):
    result = zoo.fit(text_config(tmp_path, "chars"), tmp_path / "run")
    assert result.metrics["val"].keys() == {"loss", "perplexity", "bits_per_byte"}
    # Before it has learned anything, every token costs about log(vocabulary).
    tokenizer = result.parts.dataset.tokenizer
    assert result.metrics["val"]["loss"] == pytest.approx(np.log(tokenizer.vocab_size), rel=0.1)
    kept = read_tokenizer(tmp_path / "run" / "tokenizer.json")
    assert kept.to_json() == tokenizer.to_json()
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["tokenizer"] == result.parts.dataset.tokenizer_hash
    (manifest,) = (tmp_path / "run" / "checkpoints").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["tokenizer"] == data["tokenizer"]
    probabilities = result.predict([tokenizer.encode("ba de ki")])
    assert probabilities.shape == (1, tokenizer.vocab_size)
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)


def test_another_tokenizer_is_refused_early(tmp_path, monkeypatch):
    config = text_config(
        tmp_path, data=corpus(tmp_path / "text"), train=TrainConfig(batch_size=8, num_steps=1)
    )
    zoo.fit(config, tmp_path / "run")
    path = tmp_path / "text" / "tokenizer.json"
    path.write_text(train_bpe(iter(["some other words " * 9]), 270).to_json())
    # Nothing is compiled before the mistake is told.
    monkeypatch.setattr(
        "zoo.train.compile.Programs.init_state", lambda self: pytest.fail("compiled")
    )
    with pytest.raises(UserError, match="was trained with another tokenizer: its tokenizer"):
        zoo.fit(config, tmp_path / "run")
    monkeypatch.undo()
    start = dataclasses.replace(config, init_from=str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"another tokenizer than data.tokenizer=.*: set data.tok"):
        zoo.fit(start, tmp_path / "other")
    path.write_text((tmp_path / "run" / "tokenizer.json").read_text())
    zoo.fit(start, tmp_path / "other")


@pytest.mark.parametrize(
    ("tokenizer", "transform", "packing"),
    [
        ("wordpiece:300", "mask_tokens(0.15)", False),
        ("wordpiece:300", "mask_tokens(0.15)", True),
        ("unigram:300+20", "corrupt_spans(0.15, 3)", False),
    ],
)
def test_hidden_tokens_are_not_for_the_next_one(tmp_path, tokenizer, transform, packing):
    config = text_config(tmp_path, tokenizer)
    data = dataclasses.replace(config.data, transform=transform, packing=packing)
    with pytest.raises(UserError, match=r"predicts the next token, and data.transform='.*' hides"):
        build(dataclasses.replace(config, data=data))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"model": ModelConfig("mlp")}, "model 'mlp' takes no text"),
        ({"task": TaskConfig("classification")}, "has no classes and no field 'label'"),
        ({"model": ModelConfig("gpt2", {**SMALL_GPT, "num_positions": 16})},
         "the model has 16 positions, not 32"),
        ({"model": ModelConfig("gpt2", {**SMALL_GPT, "vocab_size": 100})},
         "data.tokenizer='bytes' has 257 tokens, more than model.arguments.vocab_size=100"),
        ({"data": DataConfig("test_text_runs:make_pairs")}, "'causal_lm' takes a corpus .* source"),
        ({"data": DataConfig("test_text_runs:make_labelled")}, "takes a corpus .* token_mask"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, groups, message):
    config = text_config(tmp_path, **groups)
    data = dataclasses.replace(config.data, cache=str(tmp_path))
    with pytest.raises(UserError, match=message):
        build(dataclasses.replace(config, data=data))


def make_prompts(config: DataConfig) -> Dataset:
    """Forty prompts and completions, of 4 to 30 tokens."""
    fields = {
        "prompt": text_array(["p" * (1 + i % 15) for i in range(40)]),
        "completion": text_array(["c" * (2 + i % 14) for i in range(40)]),
    }
    return Dataset("prompts", {"train": ArraySource(fields)}, fingerprint="raw")


def make_pairs(config: DataConfig) -> Dataset:
    """One pair."""
    fields = {name: text_array(["some words"]) for name in ("source", "target")}
    splits = {split: ArraySource(fields) for split in ("train", "val")}
    return Dataset("pairs", splits, fingerprint="raw")


def make_labelled(config: DataConfig) -> Dataset:
    """Two texts of two classes."""
    fields = {"text": text_array(["one", "two"]), "label": np.arange(2)}
    splits = {split: ArraySource(fields) for split in ("train", "val")}
    return Dataset("labelled", splits, 2, fingerprint="raw")


def bucket_config(cache) -> Config:
    data = DataConfig(
        "test_text_runs:make_prompts", length=32, buckets=(8, 16, 32), cache=str(cache)
    )
    return text_config(cache, data=data, train=TrainConfig(batch_size=8, num_steps=7))


def test_planned_shapes_are_expected(tmp_path):
    parts = build(bucket_config(tmp_path))
    blocks = [parts.stream[step] for step in range(7)]
    assert {block["tokens"].shape for block in blocks} == {(1, 8, n + 1) for n in (8, 16, 32)}
    for block in blocks:
        assert parts.programs.find_change(1, block) == ""
    blocks[0]["tokens"] = blocks[0]["tokens"][..., :5]
    assert "tokens was int32[1,8,33], now int32[1,8,5]" in parts.programs.find_change(1, blocks[0])
    assert parts.programs.batch_shapes["tokens"].shape == (8, 33)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["packing", "buckets"])
def test_a_planned_run_resumes(tmp_path, kind, capsys):
    """Cut off after three steps and begun again: the same parameters to the bit."""
    config = bucket_config(tmp_path / "c")
    if kind == "packing":
        data = corpus(tmp_path / "text", packing=True, length=32)
        train = TrainConfig(batch_size=4, num_steps=7)
        config = text_config(tmp_path, data=data, train=train)
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, progress=True))
    whole = zoo.fit(config, tmp_path / "whole")
    shown = capsys.readouterr().out
    assert "compiled again" not in shown
    assert ("% filled" in shown) == (kind == "packing")
    short = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=3))
    zoo.fit(short, tmp_path / "parts")
    more = dataclasses.replace(config.checkpoint, extend=True)
    rest = zoo.fit(dataclasses.replace(config, checkpoint=more), tmp_path / "parts")
    for a, b in zip(*map(jax.tree.leaves, (whole.params, rest.params)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_are_no_text():
    config = small_config(model=ModelConfig("gpt2", SMALL_GPT))
    with pytest.raises(UserError, match="model 'gpt2' takes text"):
        build(config)
    with pytest.raises(UserError, match="is no text"):
        build(dataclasses.replace(config, task=TaskConfig("causal_lm")))


def test_an_unexpected_recompilation_is_told(tmp_path, monkeypatch, capsys):
    """A source whose later batches are of another dtype: the step is compiled anew, and says so."""
    config = text_config(tmp_path, log=dataclasses.replace(small_config().log, progress=True))
    from zoo.data import TrainStream

    read = TrainStream.read

    def read_oddly(self, first_step, num_steps):
        block = read(self, first_step, num_steps)
        if first_step >= 2:
            block["tokens"] = block["tokens"].astype(np.int16)
        return block

    monkeypatch.setattr(TrainStream, "read", read_oddly)
    zoo.fit(config)
    told = capsys.readouterr().out
    assert (
        "step 3: the step is compiled again, since tokens was int32[1,8,33], now int16[1,8,33]"
        in told
    )
    assert told.count("compiled again") == 1
    assert told.count("compiled 1 step a call") == 2
