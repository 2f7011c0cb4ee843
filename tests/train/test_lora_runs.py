"""A run with model.lora: what trains, what it costs, and what its folder is."""

from __future__ import annotations

import json
import pathlib
import re

import jax
import numpy as np
import pytest
from conftest import small_config
from tokenizers import Tokenizer, models, pre_tokenizers

import zoo
from zoo.config import DataConfig, ModelConfig, OptimConfig, TaskConfig, UserError
from zoo.config.checks import check_config
from zoo.config.parse import set_values
from zoo.models.flops import count_flops
from zoo.train.build import build
from zoo.train.compile import Programs
from zoo.train.loop import flops_per_step
from zoo.tree import named_leaves, unstack_layers

LORA = {"rank": 2, "targets": "attn/(q|v)$|fc2$"}
BASE = pathlib.Path(__file__).parents[1] / "pretrained" / "twins" / "gpt2_lm"


def make_config(folder, **changes):
    """The recorded GPT-2 of width 16 on a few lines."""
    text = folder / "text.txt"
    text.write_text("to be or not to be\n" * 100)
    words = {word: i for i, word in enumerate(("to", "be", "or", "not", "?"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "words.json"))
    config = small_config(
        model=ModelConfig("pretrained", lora=LORA, scan_layers=True),  # one block to compile
        data=DataConfig(f"text:{text}", tokenizer=f"{folder}/words.json", length=8),
        task=TaskConfig("causal_lm"),
        optim=OptimConfig("adamw", 1e-2, weight_decay=0.1),
        init_from=str(BASE),
    )
    return set_values(config, changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, result) of a few steps."""
    folder = tmp_path_factory.mktemp("lora")
    return folder / "run", zoo.fit(make_config(folder), folder / "run")


def is_correction(path):
    return path.endswith(("/lora_a", "/lora_b"))


def test_only_corrections_train(run):
    _, result = run
    base = named_leaves(zoo.load_pretrained(BASE).params)
    found = named_leaves(unstack_layers(result.params))
    assert {path for path in found if not is_correction(path)} == base.keys()
    for path, leaf in base.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    corrections = {path: leaf for path, leaf in found.items() if is_correction(path)}
    assert len(corrections) == 2 * 3 * 2  # two matrices at three layers of two blocks
    assert all(np.any(leaf) for leaf in corrections.values())


def test_memory_and_arithmetic_of_a_step(run):
    """The optimizer holds two moments of the corrections alone, in its state and in the compiled
    program; and no gradient of a frozen kernel is computed."""
    _, result = run
    programs, state = result.parts.programs, result.parts.programs.abstract_state
    sizes = {path: leaf.size for path, leaf in named_leaves(state.params).items()}
    trained = sum(size for path, size in sizes.items() if is_correction(path))
    assert trained == 2 * (2 * 2 * (16 + 16) + 2 * (64 + 16))
    held = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    assert 2 * trained <= held <= 2 * trained + 8  # and the counts of steps
    program = programs.train_program(1)
    batch = 4 * sum(np.prod(x.shape) for x in programs.batch_shapes.values())
    words = 4 * (sum(sizes.values()) + 2 * trained) + batch
    assert words <= program.memory_analysis().argument_size_in_bytes <= words + 256
    products = re.findall(r"f32\[([\d,]+)\]\S* dot\(", program.as_text())
    assert products
    assert not {"16,64", "64,16"} & set(products)  # the gradient of a feed-forward kernel
    # Against the same step with everything trained: what is missing are the gradients of twelve d^2
    # a block and of the output matrix, and below the first corrections those of the stream.
    parts = result.parts
    every = Programs(parts.config, parts.task, programs.mesh, programs.batch_shapes)
    missing = count_step(every) - count_step(programs)
    tokens = 16 * 8
    assert missing >= 2 * tokens * (2 * 12 * 16**2 + 50 * 16)
    assert missing <= 2 * tokens * (2 * 12 * 16**2 + 50 * 16 + 4 * 16**2)
    # MFU counts what is done, not three forward passes.
    assert flops_per_step(parts) == count_step(programs)


def count_step(programs):
    """FLOPs of the products in a training step."""
    shapes = programs.expected_shapes(1).items()
    batches = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes}
    return count_flops(programs.jit_train(), programs.abstract_state, batches)


def test_the_folder_is_the_merged_model(run, tmp_path):
    folder, result = run
    assert json.loads((folder / "zoo.json").read_text())["lora"]["rank"] == 2
    tokens = jax.numpy.asarray([[1, 2, 3, 4, 5, 6, 7, 8]])

    def outputs(model, params):
        return np.asarray(jax.jit(model.apply)({"params": params}, tokens)[0])

    expected = outputs(result.model, result.params)
    loaded = zoo.load_pretrained(folder)
    assert type(loaded.model).__name__ == "Decoder"
    np.testing.assert_allclose(outputs(loaded.model, loaded.params), expected, atol=1e-6)
    # Published, whole and as an adapter: the same kernels.
    zoo.convert(folder, tmp_path / "hf")
    zoo.convert(folder, tmp_path / "adapter", "peft")
    for source in ("hf", "adapter"):
        again = named_leaves(zoo.load_pretrained(tmp_path / source).params)
        for path, leaf in named_leaves(unstack_layers(loaded.params)).items():
            np.testing.assert_allclose(again[path], leaf, atol=1e-6, err_msg=path)


def test_it_is_resumed_and_started_from(run, tmp_path):
    """A run with LoRA is a start as every other: the merged model, with new corrections."""
    folder, _ = run
    config = make_config(tmp_path, init_from=str(folder))
    parts = build(check_config(config))
    merged = named_leaves(unstack_layers(zoo.load_pretrained(folder).params))
    for path, leaf in named_leaves(unstack_layers(parts.start.load())).items():
        np.testing.assert_array_equal(leaf, merged[path])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"init_from": None, "model.name": "gpt2", "model.arguments": {"width": 12}},
            r"model\.lora corrects a trained model: set init_from",
        ),
        ({"model.lora.ranks": "2"}, r"model\.lora\.ranks is unknown \(did you mean 'rank'\?\)"),
        ({"model.lora.rank": "two"}, r"model\.lora\.rank='two' is not int"),
        ({"model.lora.targets": "query"}, r"targets='query' matches no dense layer"),
    ],
)
def test_mistakes(tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        zoo.fit(make_config(tmp_path, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_adapter_of_a_run_knows_its_classes_only_with_the_runs_head(tmp_path):
    rows = [{"text": f"{word} {i}", "label": word} for i in range(8) for word in ("up", "down")]
    more = [*rows, *({"text": f"left {i}", "label": "left"} for i in range(8))]
    other = [{**row, "label": {"up": "yes", "down": "no"}[row["label"]]} for row in rows]
    for name, table in (("rows", rows), ("more", more), ("other", other)):
        text = "".join(json.dumps(row) + "\n" for row in table)
        (tmp_path / f"{name}.jsonl").write_text(text)
    sizes = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 16, "num_positions": 8}
    first = small_config(
        model=ModelConfig("bert_tiny", sizes),
        data=DataConfig(f"jsonl:{tmp_path}/rows.jsonl", tokenizer="wordpiece:60", length=8),
    )
    zoo.fit(first, tmp_path / "base")
    expected = {"rows": {"up", "down"}, "more": {"0", "1", "2"}, "other": {"0", "1"}}
    for name, labels in expected.items():
        data = DataConfig(f"jsonl:{tmp_path}/{name}.jsonl", tokenizer="init_from", length=8)
        model = ModelConfig("pretrained", lora={"rank": 2})
        base = str(tmp_path / "base")
        result = zoo.fit(small_config(model=model, data=data, init_from=base), tmp_path / name)
        zoo.save_adapter(result.model, result.params, tmp_path / f"a_{name}", base=base)
        (found,) = zoo.predict(tmp_path / f"a_{name}", ["up 1"])
        assert {label.label for label in found.labels} == labels, name
        (run,) = zoo.predict(tmp_path / name, ["up 1"])
        scores = [[label.probability for label in said.labels] for said in (found, run)]
        np.testing.assert_allclose(*scores, rtol=1e-5)
