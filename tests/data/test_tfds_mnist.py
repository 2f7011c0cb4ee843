"""The real MNIST builder, prepared offline from the published files, read without TensorFlow."""

import importlib.util
import sys

import numpy as np
import pytest
from conftest import run_command, small_config

import zoo
from zoo.config import DataConfig, ModelConfig, TrainConfig
from zoo.data import open_dataset

PREPARE = """
from zoo.config import DataConfig
from zoo.data import open_dataset
open_dataset(DataConfig("tfds:mnist", folder={folder!r}, cache={cache!r}))
"""


@pytest.mark.slow
def test_mnist_from_published_files(zoo_data, tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed (extra tfds)")
    made = run_command("-c", PREPARE.format(folder=zoo_data, cache=str(tmp_path)))
    assert made.returncode == 0, made.stderr

    config = DataConfig(
        "tfds:mnist",
        cache=str(tmp_path),
        validation_fraction=0.1,
        train_split="train[:50%]",
        transform="normalize(0.5, 0.5)",
    )
    dataset = open_dataset(config)
    assert "tensorflow" not in sys.modules
    sizes = {split: len(source) for split, source in dataset.splits.items()}
    assert sizes == {"train": 27_000, "val": 3_000, "test": 10_000}
    # The published test set, in TFDS's own order.
    published = open_dataset(DataConfig("files:mnist", folder=zoo_data)).splits["test"]
    mine, theirs = (s.take(np.arange(len(s))) for s in (dataset.splits["test"], published))
    keys = [
        sorted(zip(map(bytes, e["image"]), e["label"].tolist(), strict=True))
        for e in (mine, theirs)
    ]
    assert keys[0] == keys[1]
    np.testing.assert_array_equal(dataset.splits["test"].labels(), mine["label"])

    result = zoo.fit(
        small_config(
            data=config,
            model=ModelConfig("mlp", {"widths": (32,)}),
            train=TrainConfig(batch_size=64, num_steps=150, steps_per_call=25),
        )
    )
    assert result.metrics["test"]["accuracy"] > 0.7
    assert "tensorflow" not in sys.modules
