"""Sources of every kind of field, clean, or with one defect of a kind planted into each."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from zoo.data import ArraySource, Dataset

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "runs"]


@dataclass(frozen=True)
class Files:
    """Examples that come from files."""

    arrays: dict
    folder: str

    def __len__(self):
        return len(self.arrays["label"])

    def take(self, indices):
        if self.folder == "test" and 7 in indices:
            raise OSError(5, "Input/output error")
        return {name: values[indices] for name, values in self.arrays.items()}

    def name(self, index):
        return f"{self.folder}/{index:03}.png"


def encode(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def objects(values):
    out = np.empty(len(values), object)
    out[:] = values
    return out


def make_images(seed, count):
    """Noise of many sizes, JPEG and PNG, and labels of three classes in turn."""
    random = np.random.default_rng(seed)
    sizes = random.integers(9, 40, (count, 2))
    pixels = [random.integers(0, 255, (y, x, 3), np.uint8) for y, x in sizes]
    files = [encode(p, "JPEG" if i % 2 else "PNG") for i, p in enumerate(pixels)]
    return {"image": objects(files), "label": (np.arange(count) % 3).astype(np.int32)}


def clean_images(config):
    splits = {"train": Files(make_images(0, 30), "train"), "val": Files(make_images(1, 9), "val")}
    return Dataset("images", splits, 3, ("cat", "dog", "owl"), "images")


def broken_images(config):
    train, test = make_images(0, 300), make_images(1, 12)  # more than a block
    image, label = train["image"], train["label"]
    image[4] = image[4][: len(image[4]) // 2]
    image[7] = b"no image"
    image[9] = FileNotFoundError(2, "No such file or directory")
    # The same pixels in another file, and with another label.
    grey = np.full((5, 6, 3), 77, np.uint8)
    image[20], image[270] = encode(grey), encode(grey, compress_level=0)
    label[20], label[270] = 1, 0
    test["image"][2] = image[31]
    test["label"][2] = label[31]
    test["label"][3] = 5
    test["label"][4] = -1
    splits = {"train": Files(train, "train"), "test": Files(test, "test")}
    label[label == 2] = 0
    return Dataset("images", splits, 4, ("cat", "dog", "owl", "$ant$"), "images")


def make_texts(seed, count, most=30):
    random = np.random.default_rng(seed)
    return objects([" ".join(random.choice(WORDS, random.integers(8, most))) for _ in range(count)])


def rows(train, val):
    """Texts with labels."""
    splits = {
        split: ArraySource({"text": part, "label": (np.arange(len(part)) % 2).astype(np.int32)})
        for split, part in (("train", train), ("val", val))
    }
    return Dataset("rows", splits, 2, ("bad", "good"), "rows")


def clean_texts(config):
    return rows(make_texts(0, 60), make_texts(1, 20))


def broken_texts(config):
    train, val = make_texts(0, 60), make_texts(1, 20)
    train[3], train[5], train[6] = " \n\t", None, ""
    train[10] = train[13].upper() + "  "
    train[20] = train[22].replace(" ", "\n ")
    val[2] = train[30]
    train[40] = "word " * 70
    return rows(train, val)


def pairs(config):
    splits = {
        split: ArraySource({"source": make_texts(seed, 12), "target": make_texts(seed + 1, 12)})
        for seed, split in ((0, "train"), (5, "test"))
    }
    return Dataset("pairs", splits, fingerprint="pairs")


def prompts(config):
    train = {"prompt": make_texts(0, 12), "completion": make_texts(1, 12)}
    return Dataset("prompts", {"train": ArraySource(train)}, fingerprint="prompts")


def documents(config):
    """A corpus: a document that is longer than any window is nothing wrong."""
    texts = make_texts(0, 12)
    texts[3] = "word " * 1000
    return Dataset("documents", {"train": ArraySource({"text": texts})}, fingerprint="documents")


def make_table(seed, count, shift=0.0):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 4)).astype(np.float32)
    features[:, 2] += shift
    return {"features": features, "label": features[:, 0] * 2}


def clean_table(config):
    splits = {"train": ArraySource(make_table(0, 300)), "test": ArraySource(make_table(1, 90))}
    return Dataset("table", splits)


def broken_table(config):
    train, test = make_table(0, 300), make_table(1, 90)
    train["features"][:, 3] = 7
    train["features"][3, 1] = np.nan
    train["features"][4, [0, 2]] = np.inf
    train["label"][9] = np.nan
    test["features"][5] = train["features"][50]
    test["label"][5] = train["label"][50]
    return Dataset("table", {"train": ArraySource(train), "test": ArraySource(test)})


def shifted_table(config):
    train = make_table(2, 300, shift=1.0)
    splits = {"train": ArraySource({**train, "features": train["features"].astype(np.float64)})}
    return Dataset("shifted", splits)


def several_labels(config):
    random = np.random.default_rng(3)
    label = (random.random((200, 3)) < [0.5, 0.2, 0.0]).astype(np.int32)
    label[5, 0] = 2
    features = random.normal(size=(200, 2)).astype(np.float32)
    return Dataset("several", {"train": ArraySource({"features": features, "label": label})}, 3)


def other_digits(config):
    """Half of the digits left out of most classes; names in another order, colours inverted."""
    from zoo.config import DataConfig
    from zoo.data import open_dataset

    digits = open_dataset(DataConfig("embedded:digits")).splits["train"]
    arrays = digits.take(np.arange(len(digits)))
    kept = (arrays["label"] < 5) | (np.arange(len(digits)) % 4 == 0)
    part = {"image": 255 - arrays["image"][kept], "label": arrays["label"][kept]}
    return Dataset("others", {"train": ArraySource(part)}, 10, tuple("1023456789"))
