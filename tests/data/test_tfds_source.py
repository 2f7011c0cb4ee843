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
from zoo.data.sources import open_raw

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


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (ModuleNotFoundError("No module named 'tensorflow'"), "needs TensorFlow: pip install"),
        (OSError("not a gzip file"), "tfds:needs cannot be prepared: .*x.gz.*not a gzip file"),
    ],
)
def test_an_archive_that_cannot_be_unpacked(tmp_path, cause, message):
    from etils import epath
    from tensorflow_datasets.core.download.extractor import ExtractError

    class Unpacks:
        name = "needs"
        is_prepared = staticmethod(lambda: False)

        def download_and_prepare(self, **_):
            raise ExtractError(f"Error while extracting x.gz: {cause}") from cause

    with pytest.raises(UserError, match=message) as error:
        tfds_source.prepare(Unpacks, epath.Path(tmp_path))
    assert "\n" not in str(error.value)


def _named(name):
    return tfds.core.BuilderConfig(name=name)


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """Sentences, each with any of three labels; and their translations."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(map(_named, ("tagged", "pairs", "other")))
    ROWS = (("gut", "good", [2, 0]), ("schlecht", "bad", []), ("größer", "taller", [1]))

    def _info(self):
        text, tags = tfds.features.Text(), tfds.features.ClassLabel(names=["x", "y", "z"])
        features, keys = {
            "tagged": ({"text": text, "label": tfds.features.Sequence(tags)}, None),
            "pairs": ({"de": text, "en": text}, ("de", "en")),
            "other": ({"de": text, "en": text, "stars": np.int64}, None),
        }[self.builder_config.name]
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "validation": self._generate_examples()}

    def _generate_examples(self):
        for i, (german, english, tags) in enumerate(self.ROWS):
            every = {"text": german, "label": tags, "de": german, "en": english, "stars": i}
            yield i, {key: every[key] for key in self.info.features}


def test_texts_pairs_and_several_labels(tmp_path):
    def read(name, **changes):
        config = DataConfig(f"tfds:tiny_reviews/{name}", cache=str(tmp_path), **changes)
        dataset = open_raw(config)
        assert list(dataset.splits) == ["train", "test"]
        examples = dataset.splits["train"].take(np.arange(3))
        assert all(isinstance(v, str) for k, v in examples.items() if k != "label" for v in v)
        rows = zip(*examples.values(), strict=True)
        return dataset, [dict(zip(examples, row, strict=True)) for row in rows]

    dataset, rows = read("tagged")
    found = {row["text"]: row["label"].tolist() for row in rows}
    assert found == {"gut": [1, 0, 1], "schlecht": [0, 0, 0], "größer": [0, 1, 0]}
    assert dataset.class_names == ("x", "y", "z")
    assert dataset.splits["train"].labels().sum() == 3
    _, rows = read("pairs")
    assert {(row["source"], row["target"]) for row in rows} == {r[:2] for r in TinyReviews.ROWS}
    dataset, rows = read("other", columns={"text": "en", "value": "stars"})
    assert sorted((int(row["label"]), row["text"]) for row in rows) == [
        (0, "good"), (1, "bad"), (2, "taller")
    ]  # fmt: skip
    assert dataset.num_classes is None
    with pytest.raises(UserError, match=r"cannot tell which columns .* \(de \(text\), en \(text\)"):
        read("other")


def test_published_files_are_looked_for_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    assert tfds_source.manual_folder("mnist/3.0.1", DataConfig()) is None
    config = DataConfig(folder=str(tmp_path))
    assert tfds_source.manual_folder("mnist:3.0.1", config) == str(tmp_path)
    (tmp_path / "mnist").mkdir()
    assert tfds_source.manual_folder("mnist:3.0.1", config) == str(tmp_path / "mnist")
