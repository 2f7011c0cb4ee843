"""Published files read from one folder, `data.folder` or the variable ZOO_DATA."""

from __future__ import annotations

import gzip
import hashlib
import os

import numpy as np
from etils import epath

from zoo.config import DataConfig, UserError, nearest
from zoo.data.sources import ArraySource, Dataset, Source

MNIST_HOME = "http://yann.lecun.com/exdb/mnist/"
# sha256 of each published file, by dataset
MNIST_DIGESTS = {
    "train-images": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# dataset -> (where it is published, file -> sha256)
PUBLISHED = {
    "mnist": (
        MNIST_HOME,
        {
            f"{name}-idx{3 if 'images' in name else 1}-ubyte.gz": digest
            for name, digest in MNIST_DIGESTS.items()
        },
    ),
    "tinyshakespeare": (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",
        {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
    ),
    "gpt2_vocab": (
        "https://openaipublic.blob.core.windows.net/gpt-2/models/124M/",
        {
            "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        },
    ),
}


def open_published(name: str, config: DataConfig) -> Dataset:
    """`files:NAME`. Raises UserError on an unknown name and a missing or altered file."""
    from zoo.data import documents

    openers = {"mnist": open_mnist, "tinyshakespeare": documents.open_shakespeare}
    if name not in openers:
        raise UserError(f"no published files {name!r}{nearest(name, openers)}")
    return openers[name](name, config)


def open_mnist(name: str, config: DataConfig) -> Dataset:
    """Images and labels of four idx files."""
    contents = {file: read_checked(name, file, config) for file in PUBLISHED[name][1]}
    splits: dict[str, Source] = {
        split: ArraySource(
            {
                "image": read_idx(contents[f"{prefix}-images-idx3-ubyte.gz"])[..., None],
                "label": read_idx(contents[f"{prefix}-labels-idx1-ubyte.gz"]).astype(np.int32),
            }
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }
    digest = hashlib.sha256("".join(PUBLISHED[name][1].values()).encode()).hexdigest()
    return Dataset(f"files:{name}", splits, 10, tuple("0123456789"), digest)


def read_checked(name: str, file: str, config: DataConfig) -> bytes:
    """Bytes of FOLDER/NAME/FILE (or FOLDER/FILE), their sha256 compared with the published one."""
    home, digests = PUBLISHED[name]
    origin = f"sha256 {digests[file]}, published at {home}{file}"
    folder = config.folder or os.environ.get("ZOO_DATA")
    if not folder:
        raise UserError(
            f"files:{name} needs {file} ({origin}): put it into a folder and name that "
            "in data.folder or ZOO_DATA"
        )
    for path in (epath.Path(folder) / name / file, epath.Path(folder) / file):
        if path.exists():
            content = path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != digests[file]:
                raise UserError(f"{path} is altered: its sha256 is {found}, not {digests[file]}")
            return content
    raise UserError(f"missing file {epath.Path(folder) / name / file} ({origin})")


def read_idx(content: bytes) -> np.ndarray:
    """An idx file of bytes: 2 zero bytes, type 8, rank, big-endian sizes, data."""
    content = gzip.decompress(content)
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
