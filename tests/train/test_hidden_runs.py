"""Runs that guess hidden tokens: mistakes in a line, and what leaves them."""

import dataclasses

import pytest
from test_text_runs import text_config

import zoo
from zoo.config import ModelConfig, TaskConfig, TrainConfig, UserError
from zoo.config.parse import set_values
from zoo.train.build import build

SIZE = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "num_positions": 32}
GENERATOR = {"name": "electra_small_generator", "arguments": {**SIZE, "embedding_width": 8}}


def hidden_config(cache, name="masked_lm", transform="mask_tokens(0.15)", **groups):
    electra = name == "replaced_token"
    task = TaskConfig(name, models={"generator": GENERATOR} if electra else {})
    size = {**SIZE, "embedding_width": 8}
    config = text_config(
        cache,
        "wordpiece:300",
        **{"task": task, "model": ModelConfig("electra_small", size), **groups},
    )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, transform=transform))


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("masked_lm", {"data.transform": ""}, r"transform='' hides none.*'mask_tokens\(0.15\)"),
        ("masked_lm", {"data.eval_transform": ""}, "data.eval_transform='' hides none"),
        ("masked_lm", {"data.tokenizer": "bytes"}, "has no .MASK. or <mask> token"),
        ("masked_lm", {"model.name": "gpt2", "model.arguments.embedding_width": "None"}, "gpt2"),
        ("replaced_token", {"data.transform": ""}, r"hides none.*mask=1, random=0\)"),
        ("replaced_token", {"task.models": {}}, "generator.arguments.*num_positions is 512"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, name, changes, line):
    config = hidden_config(tmp_path, name)
    if "task.models" in changes:
        config = dataclasses.replace(config, task=TaskConfig(name))
    else:
        config = set_values(config, changes)
    with pytest.raises(UserError, match=line):
        build(config)


@pytest.mark.slow
def test_what_leaves_is_the_discriminator(tmp_path):
    config = hidden_config(tmp_path / "c", "replaced_token")
    result = zoo.fit(config, tmp_path / "run")
    assert {"precision", "recall", "generator_loss"} <= result.metrics["val"].keys()
    loaded = zoo.load_pretrained(tmp_path / "run")
    assert loaded.model.head == "replaced_token"
    with pytest.raises(UserError, match="does not leave its run"):
        zoo.evaluate(tmp_path / "run")
    on = hidden_config(
        tmp_path / "c",
        init_from=str(tmp_path / "run"),
        model=ModelConfig("pretrained"),
        train=TrainConfig(batch_size=8, num_steps=1),
    )
    again = zoo.fit(on, tmp_path / "on")
    found = zoo.evaluate(tmp_path / "on")
    assert found.metrics["accuracy"].value == pytest.approx(again.metrics["val"]["accuracy"])
