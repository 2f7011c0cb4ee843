"""Documents as one long row of tokens on disk: made once, mapped, read at random.

The file lies in the cache, named after the text and the tokenizer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from zoo.config import DataConfig, UserError
from zoo.data.array_file import ArrayWriter, make_array_file, map_array
from zoo.data.sources import Source, cache_folder

LISTS = ("words", "choices")  # fields of lists of texts
CHUNK_CHARACTERS = 4_000_000  # about as much text is in memory at a time, and goes to all cores


class Encoded(NamedTuple):
    """The tokens of some documents, and in each row the place of the mark; `owners` are the numbers
    of the documents where one may have several rows."""

    rows: Sequence[np.ndarray]
    marks: Sequence[int]
    owners: Sequence[int] | None = None


# Texts, or tuples of texts, of some documents -> what is `Encoded` of them, in order.
Encode = Callable[[list[Any]], tuple[Any, ...]]


@dataclass(frozen=True)
class TokenFile:
    """Tokens `start` to `stop` of a file. Pickled by name, mapped where it is read.

    `marks` tell where in each document something begins: the second text of a pair, or a
    completion.
    """

    path: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, places: np.ndarray) -> np.ndarray:
        """The tokens at these places, int32."""
        return map_array(self.path, "tokens")[self.start + places].astype(np.int32)

    def read_windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """`length` tokens from each place on, all of them inside, `[n, length]` int32.

        A view of all windows at once: each is copied as it lies, not token by token.
        """
        tokens = map_array(self.path, "tokens")
        shape = (len(tokens) - length + 1, length)
        windows = np.lib.stride_tricks.as_strided(
            tokens, shape, tokens.strides * 2, writeable=False
        )
        return windows[self.start + starts].astype(np.int32)

    def part(self, start: int, stop: int) -> TokenFile:
        return TokenFile(self.path, self.start + start, self.start + stop)

    @property
    def offsets(self) -> np.ndarray:
        """Where each document begins, and the end, `[documents + 1]`; of a part, the documents
        that have a token in it, cut at its borders."""
        offsets = map_array(self.path, "offsets")
        if self.start == 0 and self.stop == offsets[-1]:
            return offsets
        inside = offsets[(offsets > self.start) & (offsets < self.stop)]
        return np.concatenate([[self.start], inside, [self.stop]]) - self.start

    @property
    def marks(self) -> np.ndarray:
        """The mark of each document of the whole file, counted from its first token."""
        return map_array(self.path, "marks")

    @property
    def owners(self) -> np.ndarray:
        """Of a whole file in which documents may have several rows: the document of each row."""
        return map_array(self.path, "owners")


def spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[2, 0, 3]` -> owners `[0, 0, 2, 2, 2]` and places `[0, 1, 0, 1, 2]`."""
    owners = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return owners, np.arange(len(owners)) - starts[owners]


def read_texts(source: Source, fields: Sequence[str]) -> Iterator[list[Any]]:
    """All examples in order, a chunk at a time: the text of one field, or tuples of several; of a
    field of lists tuples of texts."""
    start, count = 0, 16
    while start < len(source):
        stop = min(start + count, len(source))
        examples = source.take(np.arange(start, stop))
        columns = [[_check_text(value, field) for value in examples[field]] for field in fields]
        chunk: list[Any] = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        size = sum(len(text) for column in columns for texts in column for text in flatten(texts))
        start = stop
        count = int(np.clip(CHUNK_CHARACTERS * len(chunk) // max(size, 1), 1, 2 * count))
        yield chunk


def _check_text(value: Any, field: str) -> Any:
    lists = field in LISTS and isinstance(value, list | tuple)
    for text in value if lists else (value,):
        if not isinstance(text, str):
            raise UserError(f"the field {field!r} holds {text!r}, which is no text")
    return tuple(value) if lists else value


def flatten(texts: Any) -> Iterator[str]:
    """The texts in a text, a tuple of them, or a tuple of such tuples."""
    if isinstance(texts, str):
        yield texts
        return
    for part in texts:
        yield from flatten(part)


def hash_texts(source: Source, fields: Sequence[str]) -> str:
    """sha256 over the texts, their borders included."""
    digest = hashlib.sha256()
    for chunk in read_texts(source, fields):
        for texts in chunk:
            for part in (texts,) if isinstance(texts, str) else texts:
                if not isinstance(part, str):
                    digest.update(f"list of {len(part)}:".encode())
                for text in flatten(part):
                    content = _to_bytes(text)
                    digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair of UTF-16, as a broken JSON may hold it
        raise UserError(f"{text[:40]!r} is no Unicode text") from None


def make_token_file(
    source: Source, fields: Sequence[str], encode: Encode, vocab_size: int, key: str,
    config: DataConfig,
) -> TokenFile:  # fmt: skip
    """All documents as one file in the cache, named `key`, made once, in one move.

    Raises UserError when the cache cannot be written.
    """
    dtype = "uint16" if vocab_size <= 2**16 else "uint32"
    path = Path(cache_folder(config)) / "tokens" / f"{key}.tokens"

    def write(writer: ArrayWriter) -> None:
        sizes, marks = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)]
        owners, done = [np.zeros(0, np.int64)], 0
        writer.begin("tokens", dtype)
        with ProgressBar("tokens", len(source)) as bar:
            for chunk in read_texts(source, fields):
                made = Encoded(*encode(chunk))
                writer.append(np.concatenate(made.rows))
                sizes.append(np.array([len(row) for row in made.rows], np.int64))
                marks.append(np.asarray(made.marks, np.int64))
                if made.owners is not None:
                    owners.append(np.asarray(made.owners, np.int64) + done)
                done += len(chunk)
                bar.advance(len(chunk))
        writer.add("offsets", np.cumsum(np.concatenate(sizes)))
        writer.add("marks", np.concatenate(marks))
        if len(owners) > 1:
            writer.add("owners", np.concatenate(owners))

    make_array_file(path, write)
    return TokenFile(str(path), 0, int(map_array(str(path), "offsets")[-1]))


class ProgressBar:
    """A bar on a terminal, once it has taken more than two seconds; elsewhere nothing."""

    def __init__(self, name: str, total: int):
        self._name, self._total, self._done = name, total, 0
        self._began = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def advance(self, count: int) -> None:
        """Counts what is done."""
        self._done += count
        if self._bar is None and time.monotonic() - self._began > 2:
            from rich.console import Console
            from rich.progress import Progress

            console = Console(stderr=True)
            self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
            self._bar.start()
            self._bar.add_task(self._name, total=self._total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
