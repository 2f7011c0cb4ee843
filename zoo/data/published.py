"""Published files read from one folder, `data.folder` or the variable ZOO_DATA."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import re

import numpy as np
from etils import epath

from zoo.config import DataConfig, UserError, nearest
from zoo.data.sources import ArraySource, Dataset, Source, text_array
from zoo.data.splits import choose_names

MNIST_HOME = "http://yann.lecun.com/exdb/mnist/"
# sha256 of each published file, by dataset
MNIST_DIGESTS = {
    "train-images": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MULTI30K_HOME = "https://github.com/multi30k/dataset/raw/master/data/task1/raw/"
MULTI30K_DIGESTS = {
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2017_flickr.en.gz": "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
    "test_2017_flickr.de.gz": "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
}
# dataset -> (where it is published, a folder or an archive; file -> sha256)
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
    "multi30k": (MULTI30K_HOME, MULTI30K_DIGESTS),
    "sst2": (
        "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
        {
            "SST-2/train.tsv": "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1",
            "SST-2/dev.tsv": "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0",
        },
    ),
    "cola": (
        "https://dl.fbaipublicfiles.com/glue/data/CoLA.zip",
        {
            "CoLA/train.tsv": "cb368ebeb9f27d7ad03720d27ddc95687a311bdb100781a2fe59a5f5b1bc0624",
            "CoLA/dev.tsv": "8c013e21dc39957cac37378d87bebe225b694a0d5fe13eded66c2856628833fd",
        },
    ),
    "wikitext2": (
        "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/"
        "wikitext-2/",
        {
            "valid.txt": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            "test.txt": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        },
    ),
}
# dataset -> the folder it is usually in, where that has another name
FOLDERS = {"sst2": "glue", "cola": "glue", "wikitext2": "wikitext-2"}


def open_published(name: str, config: DataConfig) -> Dataset:
    """`files:NAME`. Raises UserError on an unknown name and a missing or altered file."""
    from zoo.data import documents

    openers = {
        "mnist": open_mnist,
        "tinyshakespeare": documents.open_shakespeare,
        "multi30k": open_multi30k,
        "sst2": open_glue,
        "cola": open_glue,
        "wikitext2": open_wikitext,
    }
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


def open_multi30k(name: str, config: DataConfig) -> Dataset:
    """English captions and their German translations (Elliott et al. 2016): train, val and two
    tests, 'test_2016_flickr' (the usual one) and 'test_2017_flickr'."""
    available = list(dict.fromkeys(file.split(".")[0] for file in PUBLISHED[name][1]))
    usual = {"test": "test_2016_flickr"}
    chosen = choose_names(config, [*available, *usual], f"files:{name}")
    splits: dict[str, Source] = {}
    for split in chosen:
        texts = [
            gzip.decompress(read_checked(name, f"{usual.get(split, split)}.{language}.gz", config))
            for language in ("en", "de")
        ]
        english, german = (text.decode().removesuffix("\n").split("\n") for text in texts)
        splits[split] = ArraySource({"source": text_array(english), "target": text_array(german)})
    return Dataset(f"files:{name}", splits)


GLUE_CLASSES = {"sst2": ("negative", "positive"), "cola": ("unacceptable", "acceptable")}


def open_glue(name: str, config: DataConfig) -> Dataset:
    """SST-2 (Socher et al. 2013) and CoLA (Warstadt et al. 2018) as GLUE publishes them: text and
    label. The labels of the test files are secret: 'dev' is what one compares on, here 'val'."""
    available = {file.split("/")[1].split(".")[0]: file for file in PUBLISHED[name][1]}
    splits: dict[str, Source] = {}
    for split in choose_names(config, available, f"files:{name}"):
        lines = read_checked(name, available[split], config).decode().removesuffix("\n")
        rows = [line.split("\t") for line in lines.split("\n")]
        # SST-2: sentence, label, under a header; CoLA: source, label, mark, sentence, without one
        text, label = (0, 1) if name == "sst2" else (3, 1)
        rows = rows[1:] if name == "sst2" else rows
        texts = text_array([row[text] for row in rows])
        labels = np.array([int(row[label]) for row in rows], np.int32)
        splits["val" if split == "dev" else split] = ArraySource({"text": texts, "label": labels})
    return Dataset(f"files:{name}", splits, 2, GLUE_CLASSES[name])


def open_wikitext(name: str, config: DataConfig) -> Dataset:
    """WikiText-2 (Merity et al. 2016), 'valid' and 'test': an article is a document."""
    available = {file.split(".")[0]: file for file in PUBLISHED[name][1]}
    splits: dict[str, Source] = {}
    for split in choose_names(config, available, f"files:{name}"):
        text = read_checked(name, available[split], config).decode()
        splits[split] = ArraySource({"text": text_array(split_articles(text))})
    return Dataset(f"files:{name}", splits)


def split_articles(text: str) -> list[str]:
    """Pieces that begin with a title, ` = Title = `; together they are the text."""
    starts = [m.start() for m in re.finditer(r"(?m)^ = [^=\n].* = $\n^ $", text)]
    bounds = [0, *starts[1:], len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


def read_checked(name: str, file: str, config: DataConfig) -> bytes:
    """Bytes of a published file, their sha256 compared with the published one."""
    home, digests = PUBLISHED[name]
    origin = f"sha256 {digests[file]}, published at {home}{file if home.endswith('/') else ''}"
    folder = config.folder or os.environ.get("ZOO_DATA")
    if not folder:
        raise UserError(
            f"files:{name} needs {file} ({origin}): put it into a folder and name that "
            "in data.folder or ZOO_DATA"
        )
    places = list_places(folder, name, file)
    for path in places:
        if path.exists():
            content = path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != digests[file]:
                raise UserError(f"{path} is altered: its sha256 is {found}, not {digests[file]}")
            return content
    raise UserError(f"missing file {places[0]} ({origin})")


def list_places(folder: str, name: str, file: str) -> list[epath.Path]:
    """Where a file of the dataset may lie: in its usual folder, in FOLDER/NAME, in FOLDER."""
    home = epath.Path(folder)
    return [home / FOLDERS.get(name, name) / file, home / name / file, home / file]


def read_idx(content: bytes) -> np.ndarray:
    """An idx file of bytes: 2 zero bytes, type 8, rank, big-endian sizes, data."""
    content = gzip.decompress(content)
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
