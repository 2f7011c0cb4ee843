"""TFDS read without TensorFlow: a builder of our own, prepared into a cache."""

import concurrent.futures
import dataclasses
import io

import numpy as np
import pytest
from conftest import small_config

import zoo
from zoo.config import DataConfig, ModelConfig, UserError
from zoo.data import open_dataset, tfds_source

tfds = pytest.importorskip("tensorflow_datasets")


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Dark and bright squares."""

    VERSION = tfds.core.Version("1.0.0")
    prepared = 0

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 6, 1)),
            "label": tfds.features.ClassLabel(names=["dark", "bright"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        type(self).prepared += 1
        return {"train": self._generate_examples(80), "test": self._generate_examples(20)}

    def _generate_examples(self, count):
        from PIL import Image

        for i in range(count):
            pixels = np.full((6, 6), 30 + 180 * (i % 2) + i % 7, np.uint8)
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            yield i, {"image": png.getvalue(), "label": i % 2}


def test_prepare_once_read_and_train(tmp_path):
    TinyShapes.prepared = 0
    config = DataConfig(
        source="tfds:tiny_shapes", cache=str(tmp_path), transform="normalize(0.5, 0.5)"
    )
    with concurrent.futures.ThreadPoolExecutor(3) as pool:  # all ask at once, one prepares
        datasets = list(pool.map(lambda _: open_dataset(config), range(3)))
    assert TinyShapes.prepared == 1
    dataset = datasets[0]
    assert [len(s) for s in dataset.splits.values()] == [80, 20]
    assert dataset.class_names == ("dark", "bright")
    assert len({d.fingerprint for d in datasets}) == 1
    examples = dataset.splits["train"].take(np.arange(80))
    assert ((examples["image"].mean((1, 2, 3)) > 128) == (examples["label"] == 1)).all()

    result = zoo.fit(small_config(data=config, model=ModelConfig("mlp", {"widths": (8,)})))
    assert result.metrics["test"]["accuracy"] == 1.0

    halves = {"train_split": "train[:50%]", "test_split": "train[50%:]"}
    part = open_dataset(dataclasses.replace(config, **halves))
    assert [len(s) for s in part.splits.values()] == [40, 40]
    with pytest.raises(UserError, match="no split"):
        open_dataset(dataclasses.replace(config, train_split="trian"))


def test_an_unknown_dataset(tmp_path):
    with pytest.raises(UserError, match="TFDS has no dataset 'no_such_set'"):
        open_dataset(DataConfig(source="tfds:no_such_set", cache=str(tmp_path)))


def test_a_dataset_that_needs_tensorflow_says_so(tmp_path):
    class NeedsTensorFlow:
        name = "needs"
        is_prepared = staticmethod(lambda: False)

        def download_and_prepare(self, **_):
            raise ImportError("No module named 'tensorflow'")

    from etils import epath

    with pytest.raises(UserError, match=r"needs TensorFlow: pip install 'zoo-jax\[tfds\]'"):
        tfds_source.prepare(NeedsTensorFlow, epath.Path(tmp_path))
