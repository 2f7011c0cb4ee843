"""Text as one long row of tokens on disk, and windows of it.

A corpus is tokenised once, into a file in the cache named after the text and the tokenizer, and
mapped into memory from there. Window number i begins at token `i * stride`; which windows make up a
batch is decided by the pipeline from (seed, step), as for any other source.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.config import DataConfig, UserError
from zoo.data.published import PUBLISHED, read_checked
from zoo.data.sources import Dataset, Examples, Source, cache_folder, hash_tokenizer
from zoo.data.tokenizers import Tokenizer, make_tokenizer

Documents = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class TokenFile:
    """Tokens `start` to `stop` of a file of numbers. Pickled by name, mapped where it is read."""

    path: str
    dtype: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, places: np.ndarray) -> np.ndarray:
        """The tokens at these places, int32."""
        return _map_file(self.path, self.dtype)[self.start + places].astype(np.int32)

    def part(self, start: int, stop: int) -> TokenFile:
        return TokenFile(self.path, self.dtype, self.start + start, self.start + stop)


@functools.lru_cache(maxsize=16)
def _map_file(path: str, dtype: str) -> np.ndarray:
    return np.memmap(path, np.dtype(dtype), mode="r")


@dataclass(frozen=True)
class TokenWindows:
    """Windows of `length` tokens and the one after them, each `stride` after the one before.

    With `whole` only full windows count (training); otherwise the last one is filled up, and `real`
    `[n, length]` is true where the token to be predicted exists: every token but the first is
    predicted exactly once.
    """

    tokens: TokenFile
    length: int
    stride: int
    whole: bool

    def __len__(self) -> int:
        if self.whole:
            return max((len(self.tokens) - 1 - self.length) // self.stride + 1, 0)
        return max(-(-(len(self.tokens) - 1) // self.length), 0)

    def take(self, indices: np.ndarray) -> Examples:
        places = indices[:, None] * self.stride + np.arange(self.length + 1)
        last = len(self.tokens) - 1
        out = {"tokens": self.tokens.read(np.minimum(places, last))}
        return out if self.whole else {**out, "real": places[:, 1:] <= last}

    def hold_out(self, fraction: float) -> tuple[TokenWindows, TokenWindows]:
        """Windows of the text but its last part, and of that: no token is in both."""
        size = len(self.tokens)
        cut = size - round(size * fraction)
        kept, held = self.tokens.part(0, cut), self.tokens.part(cut, size)
        return (
            TokenWindows(kept, self.length, self.stride, True),
            TokenWindows(held, self.length, self.length, False),
        )


def open_corpus(name: str, splits: Mapping[str, Documents], config: DataConfig) -> Dataset:
    """A dataset of windows; the tokenizer learns from the training documents, 'chars' from all.

    Raises UserError when a split has not even one window.
    """
    texts = splits.values() if config.tokenizer == "chars" else [splits["train"]]
    tokenizer = make_tokenizer(config, (text for read in texts for text in read()))
    identity = hash_tokenizer(tokenizer)
    length, stride = config.length, config.stride or config.length
    windows: dict[str, Source] = {}
    digest = hashlib.sha256(identity.encode())
    for split, read in splits.items():
        content = hash_documents(read)
        digest.update(f"{split}:{content}".encode())
        tokens = tokenize(read, tokenizer, f"{content[:24]}-{identity[:24]}", config)
        if len(tokens) < length + 1:
            raise UserError(
                f"{name}: split {split!r} has {len(tokens)} tokens, too few for a window of "
                f"data.length={length}"
            )
        train = split == "train"
        windows[split] = TokenWindows(tokens, length, stride if train else length, train)
    return Dataset(name, windows, fingerprint=digest.hexdigest(), tokenizer=tokenizer)


def hash_documents(read: Documents) -> str:
    """sha256 over the documents, their borders included."""
    digest = hashlib.sha256()
    for text in read():
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def tokenize(read: Documents, tokenizer: Tokenizer, key: str, config: DataConfig) -> TokenFile:
    """All documents as one file of tokens in the cache, made once, in one move.

    Raises UserError when the cache cannot be written.
    """
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    path = Path(cache_folder(config)) / "tokens" / f"{key}.{dtype}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Under a name of its own: several processes may tokenise at once, each moves a whole
            # file to the same place.
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
                for text in read():
                    stream.write(tokenizer.encode(text).astype(dtype).tobytes())
                    if tokenizer.end is not None:
                        stream.write(np.array(tokenizer.end, dtype).tobytes())
            os.replace(stream.name, path)
        return TokenFile(str(path), dtype, 0, path.stat().st_size // np.dtype(dtype).itemsize)
    except OSError as error:
        raise UserError(f"cannot write tokens to {path.parent} (data.cache): {error}") from None


def open_shakespeare(name: str, config: DataConfig) -> Dataset:
    """`files:tinyshakespeare`: the first nine tenths of the characters train, the rest is 'val'."""
    (file,) = PUBLISHED[name][1]
    text = read_checked(name, file, config).decode()
    cut = int(len(text) * 0.9)
    parts = {"train": text[:cut], "val": text[cut:]}
    readers: dict[str, Documents] = {
        split: functools.partial(list, [part]) for split, part in parts.items()
    }
    return open_corpus(f"files:{name}", readers, config)


def open_stdlib(config: DataConfig) -> Dataset:
    """`embedded:stdlib`: the source of Python's own library, tests left out, a file a document.

    About a tenth of its packages, chosen by a hash of their names, is 'val'. The text differs
    between versions of Python: the fingerprint in data.json tells.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files: dict[str, list[Path]] = {"train": [], "val": []}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _left_out(parts):
            continue
        package = parts[0].removesuffix(".py")
        tenth = hashlib.sha256(package.encode()).digest()[0] % 10
        files["val" if tenth == 0 else "train"].append(path)
    readers = {split: functools.partial(map, read_source, part) for split, part in files.items()}
    return open_corpus("embedded:stdlib", readers, config)


def _left_out(parts: tuple[str, ...]) -> bool:
    """Tests, installed packages and this machine's own settings are no part of the library."""
    return any(
        p in ("test", "tests", "idle_test", "site-packages", "dist-packages")
        or p.startswith(("_sysconfigdata", "sitecustomize"))
        for p in parts
    )


def read_source(path: Path) -> str:
    """A Python file, decoded as it declares."""
    import tokenize as python_tokenize

    with python_tokenize.open(path) as stream:
        return stream.read()


def open_files(pattern: str, config: DataConfig) -> Dataset:
    """`text:PATTERN`: the files of a shell pattern (`**` for any depth), each a document.

    Raises UserError when none matches or one is not UTF-8.
    """
    import glob

    paths = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
    if not paths:
        raise UserError(f"data.source='text:{pattern}': no file matches")

    def read() -> Iterator[str]:
        for path in paths:
            try:
                yield Path(path).read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path} is not UTF-8 text: {error.reason}") from None

    return open_corpus(f"text:{pattern}", {"train": read}, config)


def encode_text(dataset: Dataset, config: DataConfig) -> Dataset:
    """The dataset, its text as tokens."""
    return dataset
