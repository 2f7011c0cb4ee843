"""The published text sets, byte for byte, with the splits they are published with."""

import gzip
import pathlib

import numpy as np
import pytest

from zoo.config import DataConfig, UserError
from zoo.data.published import PUBLISHED, split_articles
from zoo.data.sources import open_raw


def take_all(source):
    return source.take(np.arange(len(source)))


def open_there(folder, name, **changes):
    return open_raw(DataConfig(f"files:{name}", folder=folder, **changes))


def sizes(dataset):
    return {split: len(source) for split, source in dataset.splits.items()}


def test_multi30k(zoo_data):
    dataset = open_there(zoo_data, "multi30k")
    assert sizes(dataset) == {"train": 29_000, "val": 1_014, "test": 1_000}
    last = dataset.splits["test"].take(np.array([-1]))
    for language, field in (("en", "source"), ("de", "target")):
        file = pathlib.Path(zoo_data, "multi30k", f"test_2016_flickr.{language}.gz")
        lines = gzip.decompress(file.read_bytes()).decode().splitlines()
        assert [lines[-1]] == last[field].tolist()
        assert len(lines) == 1000
    later = open_there(zoo_data, "multi30k", test_split="test_2017_flickr")
    assert sizes(later)["test"] == 1_000
    assert later.fingerprint != dataset.fingerprint
    both = open_there(zoo_data, "multi30k", test_split="test_2016_flickr+test_2017_flickr")
    assert sizes(both)["test"] == 2_000


@pytest.mark.parametrize(
    ("name", "train", "val", "positive", "first"),
    [
        ("sst2", 67_349, 872, 0.5578, "hide new secretions from the parental units "),
        ("cola", 8_551, 1_043, 0.7044, "Our friends won't buy this analysis, let alone the next "),
    ],
)
def test_glue(zoo_data, name, train, val, positive, first):
    dataset = open_there(zoo_data, name)
    assert sizes(dataset) == {"train": train, "val": val}
    examples = take_all(dataset.splits["train"])
    assert examples["text"][0].startswith(first)
    assert examples["label"].mean() == pytest.approx(positive, abs=1e-4)
    assert dataset.num_classes == 2
    named = open_there(zoo_data, name, test_split="dev", train_split="train[100:]")
    assert sizes(named) == {"train": train - 100, "test": val}


def test_wikitext_has_the_splits_that_are_published(zoo_data):
    with pytest.raises(UserError, match=r"no split 'train' \(choose from: test, valid\)"):
        open_there(zoo_data, "wikitext2")
    dataset = open_there(zoo_data, "wikitext2", train_split="valid")
    assert sizes(dataset) == {"train": 60, "test": 60}
    for split, file in (("train", "valid"), ("test", "test")):
        text = pathlib.Path(zoo_data, "wikitext-2", f"{file}.txt").read_bytes().decode()
        assert "".join(take_all(dataset.splits[split])["text"]) == text
    part = open_there(zoo_data, "wikitext2", train_split="valid[:50]", val_split="valid[50:]")
    assert sizes(part) == {"train": 50, "val": 10, "test": 60}


def test_articles_begin_with_titles():
    text = " \n = One = \n \n text = no \n = = Part = = \n \n more \n \n = Two = \n \n end \n"
    pieces = split_articles(text)
    assert "".join(pieces) == text
    assert [piece.strip()[:7] for piece in pieces] == ["= One =", "= Two ="]


@pytest.mark.parametrize("name", ["multi30k", "sst2", "cola", "wikitext2"])
def test_a_missing_file_is_one_line(tmp_path, name):
    first = next(iter(PUBLISHED[name][1])).split("/")[-1].split(".")[0]
    with pytest.raises(UserError, match=r"missing file .*sha256 \w{64}, published at ht") as error:
        open_there(str(tmp_path), name, train_split=first)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["files:multi30k", "files:sst2", "files:cola", "gettext:en-de"])
def test_twins_have_the_same_fields(name, zoo_data):
    twin = open_raw(DataConfig(f"synthetic:{name}"))
    if name.startswith("files:"):
        real = open_there(zoo_data, name.removeprefix("files:"))
        assert (real.shapes, real.class_names) == (twin.shapes, twin.class_names)
        assert real.splits.keys() == twin.splits.keys()
    words = [len(text.split()) for text in next(iter(take_all(twin.splits["train"]).values()))]
    assert min(words) > 2


def test_a_twin_fits_the_recipe():
    config = DataConfig("synthetic:files:sst2", test_split="dev", validation_fraction=0.25)
    assert sizes(open_raw(config)) == {"train": 72, "val": 24, "test": 40}
    slices = {"train_split": "train[5000:]", "val_split": "train[:5000]"}
    config = DataConfig("synthetic:files:mnist", **slices)
    assert sizes(open_raw(config)) == {"train": 72, "val": 24, "test": 40}
    config = DataConfig("synthetic:files:wikitext2", train_split="valid")
    assert sizes(open_raw(config)) == {"train": 2}
