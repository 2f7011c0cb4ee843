"""Documents of a corpus that come as files: Python's own library, tiny-shakespeare, any text."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.config import DataConfig, DataError, UserError
from zoo.data.published import PUBLISHED, read_checked
from zoo.data.sources import ArraySource, Dataset, Examples, Source, name_example, text_array


@dataclass(frozen=True)
class Corpus:
    """Documents that are one text: its last part is held out, wherever that begins."""

    documents: Source

    def __len__(self) -> int:
        return len(self.documents)

    def take(self, indices: np.ndarray) -> Examples:
        return self.documents.take(indices)

    def name(self, index: int) -> str:
        return name_example(self.documents, index)

    def hold_out(self, fraction: float) -> tuple[CorpusPart, CorpusPart]:
        """The text but its last part, and that: a fraction of its tokens."""
        return CorpusPart(self, fraction, held=False), CorpusPart(self, fraction, held=True)


@dataclass(frozen=True)
class CorpusPart(Corpus):
    """The last `fraction` of the tokens of a corpus, or all before it.

    Where that begins is known only when there are tokens: as raw text, both parts are the whole.
    """

    documents: Corpus
    fraction: float
    held: bool


@dataclass(frozen=True)
class FileSource:
    """A file a document."""

    paths: tuple[str, ...]
    python: bool = False  # decoded as Python source declares

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: np.ndarray) -> Examples:
        read = read_python if self.python else read_text
        return {"text": text_array([read(self.paths[i]) for i in indices])}

    def name(self, index: int) -> str:
        return self.paths[index]


def read_text(path: str) -> str:
    """A file of UTF-8 text. Raises UserError on another."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def read_python(path: str) -> str:
    """A Python file, decoded as it declares."""
    import tokenize

    with tokenize.open(path) as stream:
        return stream.read()


def open_shakespeare(name: str, config: DataConfig) -> Dataset:
    """`files:tinyshakespeare`: the first nine tenths of the characters train, the rest is 'val'."""
    (file,) = PUBLISHED[name][1]
    text = read_checked(name, file, config).decode()
    cut = int(len(text) * 0.9)
    return open_texts(f"files:{name}", {"train": [text[:cut]], "val": [text[cut:]]})


def open_texts(name: str, texts: dict[str, list[str]]) -> Dataset:
    """A corpus of documents in memory."""
    splits = {s: Corpus(ArraySource({"text": text_array(part)})) for s, part in texts.items()}
    return Dataset(name, {**splits}, fingerprint="documents")


def open_stdlib(config: DataConfig) -> Dataset:
    """`embedded:stdlib`: the source of Python's own library, tests left out, a file a document.

    About a tenth of its packages, chosen by a hash of their names, is 'val'. The text differs
    between versions of Python: the fingerprint in data.json tells.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files: dict[str, list[str]] = {"train": [], "val": []}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _left_out(parts):
            continue
        package = parts[0].removesuffix(".py")
        tenth = hashlib.sha256(package.encode()).digest()[0] % 10
        files["val" if tenth == 0 else "train"].append(str(path))
    splits = {split: Corpus(FileSource(tuple(part), True)) for split, part in files.items()}
    return Dataset("embedded:stdlib", {**splits}, fingerprint="documents")


def _left_out(parts: tuple[str, ...]) -> bool:
    """Tests, installed packages and this machine's own settings are no part of the library."""
    return any(
        p in ("test", "tests", "idle_test", "site-packages", "dist-packages")
        or p.startswith(("_sysconfigdata", "sitecustomize"))
        for p in parts
    )


def open_files(pattern: str, config: DataConfig) -> Dataset:
    """`text:PATTERN`: the files of a shell pattern (`**` for any depth), each a document.

    Raises UserError when none matches; reading one that is not UTF-8 does too.
    """
    import glob

    paths = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
    if not paths:
        raise UserError(f"data.source='text:{pattern}': no file matches")
    splits: dict[str, Source] = {"train": Corpus(FileSource(tuple(paths)))}
    return Dataset(f"text:{pattern}", splits, fingerprint="documents")
