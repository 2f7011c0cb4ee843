"""Examples made of tokens: windows of a long text, rows, pairs, prompts with completions."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.buckets import Buckets
from zoo.data.order import Order, Shuffle
from zoo.data.sources import Examples
from zoo.data.token_file import TokenFile, spread


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
        if self.whole:
            return {"tokens": self.tokens.read_windows(indices * self.stride, self.length + 1)}
        places = indices[:, None] * self.stride + np.arange(self.length + 1)
        last = len(self.tokens) - 1
        tokens = self.tokens.read(np.minimum(places, last))
        return {"tokens": tokens, "real": places[:, 1:] <= last}


@dataclass(frozen=True)
class TokenExamples(abc.ABC):
    """What rows, pairs and prompts share: `length` places (all, or those of a bucket), and fields
    beside the text, such as labels."""

    length: int
    others: Mapping[str, np.ndarray]
    buckets: Buckets | None

    def make_order(self, seed: int, batch_size: int) -> Order:
        """By buckets where there are any."""
        if self.buckets is None:
            return Shuffle(seed, len(self))
        return self.buckets.make_order(seed, batch_size)

    @abc.abstractmethod
    def __len__(self) -> int: ...

    def labels(self) -> np.ndarray | None:
        """All labels, where there are any."""
        return self.others.get("label")

    def take(self, indices: np.ndarray, length: int | None = None) -> Examples:
        """The examples, padded to `length` (None: all of `self.length`)."""
        made = self._read(indices, self.length if length is None else length)
        return {**made, **{name: values[indices] for name, values in self.others.items()}}

    @abc.abstractmethod
    def _read(self, indices: np.ndarray, length: int) -> Examples:
        """The fields made of tokens."""


@dataclass(frozen=True)
class TokenRows(TokenExamples):
    """`tokens` `[n, t]`, `token_mask`, true where one is, and, of pairs, `types`, 1 in the second
    text."""

    tokens: TokenFile
    pair: bool

    def __len__(self) -> int:
        return len(self.tokens.offsets) - 1

    def _read(self, indices: np.ndarray, length: int) -> Examples:
        tokens, sizes = read_padded(self.tokens, indices, length)
        marks = self.tokens.marks[indices] if self.pair else None
        return describe_rows(tokens, sizes, marks)


@dataclass(frozen=True)
class TokenPairs(TokenExamples):
    """`source` `[n, s]`, `target` `[n, t]`, and masks that are true where a token is."""

    source: TokenFile
    target: TokenFile

    def __len__(self) -> int:
        return len(self.source.offsets) - 1

    def _read(self, indices: np.ndarray, length: int) -> Examples:
        out: Examples = {}
        for name, file in (("source", self.source), ("target", self.target)):
            tokens, sizes = read_padded(file, indices, length)
            out |= {name: tokens, f"{name}_mask": np.arange(length) < sizes[:, None]}
        return out


@dataclass(frozen=True)
class TokenPrompts(TokenExamples):
    """`tokens` `[n, t + 1]`, and `real` `[n, t]`, true at targets that are of the completion."""

    tokens: TokenFile

    def __len__(self) -> int:
        return len(self.tokens.offsets) - 1

    def _read(self, indices: np.ndarray, length: int) -> Examples:
        tokens, sizes = read_padded(self.tokens, indices, length + 1)
        places = np.arange(1, length + 1)
        begun = places >= self.tokens.marks[indices][:, None]
        return {"tokens": tokens, "real": begun & (places < sizes[:, None])}


def describe_rows(tokens: np.ndarray, sizes: np.ndarray, marks: np.ndarray | None) -> Examples:
    """The fields of padded rows `[n, t]`, the first `sizes` of whose tokens are real; `marks` is
    where the second text of each pair begins."""
    places = np.arange(tokens.shape[1])
    out: Examples = {"tokens": tokens, "token_mask": places < sizes[:, None]}
    if marks is not None:
        second = places >= marks[:, None]
        out["types"] = (second & out["token_mask"]).astype(np.int32)
    return out


def pad_rows(rows: Sequence[np.ndarray], marks: Sequence[int], length: int, pair: bool) -> Examples:
    """The fields of `TokenRows` of what a tokenizer's `encode_rows` gives."""
    tokens = np.zeros((len(rows), length), np.int32)
    for out, row in zip(tokens, rows, strict=True):
        out[: len(row)] = row
    sizes = np.array([len(row) for row in rows], int)
    return describe_rows(tokens, sizes, np.asarray(marks) if pair else None)


def read_padded(file: TokenFile, indices: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `length` tokens of these documents, `[n, length]` with 0 behind, and how many."""
    offsets = file.offsets
    starts = offsets[indices]
    sizes = np.minimum(offsets[indices + 1] - starts, length)
    owners, places = spread(sizes)
    out = np.zeros((len(indices), length), np.int32)
    out[owners, places] = file.read(starts[owners] + places)
    return out, sizes
