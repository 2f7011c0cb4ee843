import gzip
import shutil

import numpy as np
import pytest

from zoo.config import DataConfig, UserError
from zoo.data import ArraySource, from_arrays, open_dataset
from zoo.data.embedded import TABLE
from zoo.data.published import PUBLISHED, read_idx
from zoo.data.sources import fingerprint
from zoo.data.synthetic import TWINS


def take_all(source):
    return source.take(np.arange(len(source)))


@pytest.mark.parametrize(
    ("name", "train", "test", "classes", "shape"),
    [
        ("digits", 1437, 360, 10, (8, 8, 1)),
        ("mnist_5k", 4000, 1000, 10, (28, 28, 1)),
        ("diabetes", 353, 89, None, (10,)),
        ("breast_cancer", 455, 114, 2, (30,)),
        ("wine", 142, 36, 3, (13,)),
    ],
)
def test_embedded(name, train, test, classes, shape):
    dataset = open_dataset(DataConfig(source=f"embedded:{name}"))
    assert [len(s) for s in dataset.splits.values()] == [train, test]
    assert dataset.num_classes == classes
    assert (dataset.shapes.get("image") or dataset.shapes["features"]) == shape
    if classes:
        for source in dataset.splits.values():  # stratified
            counts = np.bincount(take_all(source)["label"], minlength=classes) / len(source)
            overall = np.bincount(take_all(dataset.splits["train"])["label"]) / train
            np.testing.assert_allclose(counts, overall, atol=0.03)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    dataset = open_dataset(DataConfig(source="embedded:digits"))
    images = np.concatenate([take_all(s)["image"] for s in dataset.splits.values()])
    expected = load_digits().images
    back = np.round(images[..., 0] * (16 / 255))
    assert sorted(map(bytes, back.astype(np.uint8))) == sorted(
        map(bytes, expected.astype(np.uint8))
    )


def test_splits_are_disjoint_and_reproducible():
    config = DataConfig(source="embedded:diabetes", validation_fraction=0.25)
    a, b = open_dataset(config), open_dataset(config)
    assert a.fingerprint == b.fingerprint
    rows = [tuple(r) for s in a.splits.values() for r in take_all(s)["features"]]
    assert len(set(rows)) == len(rows) == 442
    assert [len(a.splits[s]) for s in ("train", "val", "test")] == [264, 89, 89]


def test_folds_cover_everything_once():
    tests = []
    for i in range(5):
        dataset = open_dataset(DataConfig(source="embedded:wine", fold=(i, 5)))
        tests.append(take_all(dataset.splits["test"])["features"])
        assert sum(map(len, dataset.splits.values())) == 178
    assert len({tuple(r) for r in np.concatenate(tests)}) == 178


def test_statistics_are_of_the_training_split():
    dataset = open_dataset(DataConfig(source="embedded:diabetes"))
    mean, deviation = dataset.statistics["label"]
    labels = take_all(dataset.splits["train"])["label"]
    np.testing.assert_allclose([mean, deviation], [labels.mean(), labels.std()], rtol=1e-5)


@pytest.mark.parametrize("name", TWINS)
def test_synthetic_twins(name):
    dataset = open_dataset(DataConfig(source=f"synthetic:{name}"))
    shape, classes = TWINS[name]
    assert dataset.num_classes == classes
    assert set(dataset.shapes.values()) == {shape, ()}
    if name.startswith("embedded:"):
        real = open_dataset(DataConfig(source=name))
        assert (real.shapes, real.num_classes) == (dataset.shapes, classes)
        for field, values in take_all(real.splits["train"]).items():
            assert take_all(dataset.splits["train"])[field].dtype == values.dtype


def test_every_embedded_source_has_a_twin():
    assert {f"embedded:{name}" for name in TABLE} <= set(TWINS)


def test_published_mnist(zoo_data):
    dataset = open_dataset(DataConfig(source="files:mnist", folder=zoo_data))
    assert [len(s) for s in dataset.splits.values()] == [60_000, 10_000]
    np.testing.assert_array_equal(take_all(dataset.splits["test"])["label"][:5], [7, 2, 1, 0, 4])
    assert take_all(dataset.splits["train"])["image"].mean() == pytest.approx(33.318, abs=0.01)


def test_mnist_5k_is_part_of_the_training_set(zoo_data):
    full = open_dataset(DataConfig(source="files:mnist", folder=zoo_data)).splits["train"]
    part = open_dataset(DataConfig(source="embedded:mnist_5k")).splits["test"]
    known = {image.tobytes() for image in take_all(full)["image"]}
    assert {image.tobytes() for image in take_all(part)["image"]} <= known


def test_a_missing_file_is_named_with_its_home(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    with pytest.raises(
        UserError, match=r"train-images.*sha256 440fca.*published at http.*ZOO_DATA"
    ):
        open_dataset(DataConfig(source="files:mnist"))
    with pytest.raises(
        UserError, match=r"missing file .*mnist/train-images-idx3-ubyte.gz .*sha256"
    ):
        open_dataset(DataConfig(source="files:mnist", folder=str(tmp_path)))


def test_an_altered_file_is_refused(tmp_path, zoo_data):
    shutil.copytree(f"{zoo_data}/mnist", tmp_path / "mnist")
    file = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"t10k-labels.* is altered"):
        open_dataset(DataConfig(source="files:mnist", folder=str(tmp_path)))


def test_idx():
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)])
    np.testing.assert_array_equal(read_idx(gzip.compress(content)), np.arange(6).reshape(2, 3))
    assert set(PUBLISHED["mnist"][1]) >= {"train-images-idx3-ubyte.gz"}


def test_arrays_of_the_user():
    x, y = np.zeros((6, 4, 4)), np.arange(6) % 3
    dataset = from_arrays((x, y), (x[:2], y[:2]), classes=True)
    assert dataset.shapes["image"] == (4, 4, 1)
    assert dataset.num_classes == 3
    assert from_arrays((np.zeros((6, 4)), y * 0.5), None, classes=False).num_classes is None
    other = from_arrays((x + 1, y), None, classes=True)
    assert other.fingerprint != from_arrays((x, y), None, classes=True).fingerprint


def test_the_fingerprint_sees_one_changed_number():
    x = np.zeros((5, 3))
    before = fingerprint({"train": ArraySource({"x": x})})
    x[4, 2] = 1e-9
    assert fingerprint({"train": ArraySource({"x": x})}) != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("embedded:digit", "did you mean 'digits'"),
        ("embeded:digits", r"cannot import 'embeded': .* \(did you mean 'embedded:digits'\?\)$"),
        ("no_module:digits", "cannot import 'no_module': No module named 'no_module'$"),
        ("some/rows.csv", r"unknown \(did you mean 'csv:some/rows.csv'\?\)"),
        ("digits", "data.source='digits' is unknown"),
        ("files:mnits", "did you mean 'mnist'"),
        ("synthetic:embedded:what", "no synthetic twin"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(UserError, match=message):
        open_dataset(DataConfig(source=source))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 2)), np.zeros(3, int), "differ in length"),
        (np.zeros((4, 2)), np.array([0.5] * 4), "whole numbers"),
        (np.zeros((4, 2)), np.array([-1] * 4), "whole numbers from 0"),
        (np.zeros(4), np.zeros(4, int), "neither rows"),
        (np.zeros((0, 2)), np.zeros(0, int), "empty"),
    ],
)
def test_wrong_arrays(x, y, message):
    with pytest.raises(UserError, match=message):
        from_arrays((x, y), None, classes=True)
