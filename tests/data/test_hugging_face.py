"""Hugging Face datasets: from a folder, without a network, with the names of their classes."""

import io
import sys

import numpy as np
import pytest

from zoo.config import DataConfig, UserError
from zoo.data.sources import open_raw


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'zoo-jax\[hf\]'"):
        open_raw(DataConfig("hf:imdb"))


@pytest.fixture
def datasets(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets", reason="the extra hf is not installed")


def take_all(source):
    return source.take(np.arange(len(source)))


def make(datasets, labels, **columns):
    names = datasets.ClassLabel(names=["bad", "good"])
    features = {key: datasets.Value("string") for key in columns} | {"label": names}
    return datasets.Dataset.from_dict(
        {**columns, "label": labels}, features=datasets.Features(features)
    )


def test_a_folder_of_save_to_disk(datasets, tmp_path):
    train = make(datasets, [1, 0, 1], sentence=["a", "b", "c"])
    parts = {
        "train": train.select([2, 0]),
        "validation": train,
        "test": make(datasets, [-1], sentence=["x"]),
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(UserError, match=r"test row 0: label -1 was never seen"):
        open_raw(DataConfig(f"hf:{tmp_path}/both"))
    config = DataConfig(f"hf:{tmp_path}/both", test_split="validation[1:]")
    dataset = open_raw(config)
    assert dataset.class_names == ("bad", "good")
    assert take_all(dataset.splits["train"])["text"].tolist() == ["c", "a"]
    assert take_all(dataset.splits["test"])["label"].tolist() == [0, 1]
    assert open_raw(config).fingerprint == dataset.fingerprint
    train.save_to_disk(str(tmp_path / "one"))
    halves = {"train_split": "train[:2]", "test_split": "train[2:]"}
    alone = open_raw(DataConfig(f"hf:{tmp_path}/one", **halves))
    assert [len(s) for s in alone.splits.values()] == [2, 1]


def test_images_stay_encoded_and_labels_may_be_several(datasets, tmp_path):
    from PIL import Image

    contents = []
    for grey in (10, 200):
        stream = io.BytesIO()
        Image.fromarray(np.full((4, 4), grey, np.uint8)).save(stream, "PNG")
        contents.append(stream.getvalue())
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "labels": datasets.Sequence(datasets.ClassLabel(names=["x", "y", "z"])),
        }
    )
    rows = {"image": [{"bytes": c, "path": None} for c in contents], "labels": [[0, 2], []]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path))
    dataset = open_raw(DataConfig(f"hf:{tmp_path}"))
    examples = take_all(dataset.splits["train"])
    assert examples["image"].tolist() == contents
    assert examples["label"].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert dataset.num_classes == 3


def test_a_folder_of_data_files(datasets, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    make(datasets, [1, 0], sentence=["a", "b"]).to_parquet(str(folder / "train.parquet"))
    dataset = open_raw(DataConfig(f"hf:{folder}"))
    assert take_all(dataset.splits["train"])["label"].tolist() == [1, 0]
    assert dataset.class_names == ("bad", "good")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "no such folder"),
        ("", "name a folder or a hub id"),
        ("nobody/nothing-of-this-name", "cannot be opened"),
    ],
)
def test_what_cannot_be_opened(datasets, name, message):
    with pytest.raises(UserError, match=message) as error:
        open_raw(DataConfig(f"hf:{name}"))
    assert "\n" not in str(error.value)
