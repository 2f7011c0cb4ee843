"""Synthetic twins: random examples with the fields, shapes and classes of a real source.

They need nothing but NumPy. A twin can be learned: each class (or target) has a direction of its
own in the inputs, under noise; in a text, words follow each other by a rule.
"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image

from zoo.config import DataConfig, UserError, nearest
from zoo.data.sources import ArraySource, Dataset, Source, text_array

# source -> shape of an input, classes (None: one real-valued target)
TWINS: dict[str, tuple[tuple[int, ...], int | None]] = {
    "embedded:digits": ((8, 8, 1), 10),
    "embedded:mnist_5k": ((28, 28, 1), 10),
    "embedded:diabetes": ((10,), None),
    "embedded:breast_cancer": ((30,), 2),
    "embedded:wine": ((13,), 3),
    "files:mnist": ((28, 28, 1), 10),
    "tfds:mnist": ((28, 28, 1), 10),
    "tfds:fashion_mnist": ((28, 28, 1), 10),
    "tfds:cifar10": ((32, 32, 3), 10),
    "tfds:cifar100": ((32, 32, 3), 100),
    "tfds:imagenet2012": ((256, 256, 3), 1000),
    "folder": ((64, 64, 3), 10),
}
TEXTS = ("embedded:stdlib", "files:tinyshakespeare", "files:wikitext2")
PAIRS = ("files:multi30k",)
ROWS = {"files:sst2": ("negative", "positive"), "files:cola": ("unacceptable", "acceptable")}
SIZES = {"train": 96, "test": 40}
TEXT_SIZES = {"train": 2000, "val": 400}  # words a document


def open_synthetic(name: str, config: DataConfig) -> Dataset:
    """`synthetic:SOURCE`, SOURCE as in `data.source`. Raises UserError where no twin is known."""
    if name in TEXTS or name.startswith("text:"):
        return synthetic_text(name, config)
    if name.startswith("folder:"):
        return encode_images(open_synthetic("folder", config), name)
    if name in ROWS or name == "gettext:languages":
        return synthetic_rows(name, ROWS.get(name, tuple("abcd")))
    if name in PAIRS or name.startswith("gettext:"):
        return synthetic_pairs(name)
    base = name.split("/")[0]  # a TFDS name may bring its own config: imagenet2012/5.1.0
    if base not in TWINS:
        raise UserError(
            f"no synthetic twin of {name!r}{nearest(name, [*TWINS, *TEXTS, *PAIRS, *ROWS])}"
        )
    shape, num_classes = TWINS[base]
    random = np.random.Generator(np.random.Philox(0))
    # The directions of at most 16 classes; more classes share them, and their rest is noise.
    directions = random.normal(size=(min(num_classes or 1, 16), *shape)).astype(np.float32)
    splits: dict[str, Source] = {}
    for split, size in SIZES.items():
        noise = random.normal(size=(size, *shape)).astype(np.float32)
        if num_classes:
            label = (np.arange(size) % num_classes).astype(np.int32)
            inputs = noise + directions[label % len(directions)]
        else:
            label = random.normal(size=size).astype(np.float32)
            inputs = noise + label.reshape(-1, *(1,) * len(shape)) * directions
        if len(shape) == 3:
            image = np.clip(inputs * 40 + 128, 0, 255).astype(np.uint8)
            splits[split] = ArraySource({"image": image, "label": label})
        else:
            splits[split] = ArraySource({"features": inputs, "label": label})
    names = tuple(map(str, range(num_classes or 0)))
    return Dataset(f"synthetic:{name}", splits, num_classes, names)


def encode_images(dataset: Dataset, name: str) -> Dataset:
    """The same images as PNG files in memory."""
    splits: dict[str, Source] = {}
    for split, source in dataset.splits.items():
        examples = source.take(np.arange(len(source)))
        files = np.empty(len(source), object)
        for row, pixels in enumerate(examples["image"]):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
            files[row] = stream.getvalue()
        splits[split] = ArraySource({**examples, "image": files})
    return dataclasses.replace(
        dataset, name=f"synthetic:{name}", splits=splits, fingerprint=dataset.fingerprint
    )


SYLLABLES = ("ba", "de", "ki", "lo", "mu", "ra", "so", "tu")
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]


def synthetic_text(name: str, config: DataConfig) -> Dataset:
    """A few thousand words, two documents a split."""
    from zoo.data.documents import open_texts

    random = np.random.Generator(np.random.Philox(0))

    def make_document(size: int) -> str:
        # Each word is followed by one of three: enough to be learned.
        places = [0]
        for step in random.integers(1, 4, size):
            places.append((5 * places[-1] + int(step)) % len(WORDS))
        return " ".join(WORDS[p] for p in places) + "\n"

    texts = {split: [make_document(n), make_document(n)] for split, n in TEXT_SIZES.items()}
    return open_texts(f"synthetic:{name}", texts)


def synthetic_rows(name: str, classes: tuple[str, ...]) -> Dataset:
    """Sentences with a label: two words in three are of the class's own part of the words."""
    random = np.random.Generator(np.random.Philox(0))
    own = len(WORDS) // len(classes)
    splits: dict[str, Source] = {}
    for split, size in (("train", 96), ("val", 40)):
        label = (np.arange(size) % len(classes)).astype(np.int32)
        texts = []
        for of in label:
            words = random.integers(0, len(WORDS), random.integers(4, 12))
            mine = random.random(len(words)) < 2 / 3
            words = np.where(mine, of * own + words % own, words)
            texts.append(" ".join(WORDS[i] for i in words))
        splits[split] = ArraySource({"text": text_array(texts), "label": label})
    return Dataset(f"synthetic:{name}", splits, len(classes), classes)


def synthetic_pairs(name: str) -> Dataset:
    """Sentences and their translation, word by word, backwards."""
    random = np.random.Generator(np.random.Philox(0))
    splits: dict[str, Source] = {}
    for split, size in (("train", 96), ("val", 24), ("test", 24)):
        chosen = [random.integers(0, len(WORDS), random.integers(3, 9)) for _ in range(size)]
        source = [" ".join(WORDS[i] for i in words) for words in chosen]
        target = [" ".join(WORDS[len(WORDS) - 1 - i] for i in words[::-1]) for words in chosen]
        splits[split] = ArraySource({"source": text_array(source), "target": text_array(target)})
    return Dataset(f"synthetic:{name}", splits)
