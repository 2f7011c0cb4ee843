"""Texts and pairs on their way into a model: a few lengths, each a program of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.ops import Op, finish
from zoo.data.token_sources import pad_rows
from zoo.use.batches import Item, Portion, Prepared, fill_up

SHORTEST = 16
WINDOW = 32  # batches whose texts are sorted by length together


def make_buckets(longest: int) -> tuple[int, ...]:
    """16, 32, 64, ... and the longest."""
    powers = (SHORTEST << i for i in range(longest.bit_length()))
    return (*(p for p in powers if p < longest), longest)


@dataclass(frozen=True)
class TokenBatches:
    """Texts as `tokens`, `token_mask` and, where the model has sentence types, `types`.

    With the special tokens of the tokenizer's template; what is longer than `longest` tokens is cut
    and said so. `whole`: every text is padded to all of `longest` with the token `pad`.
    """

    tokenizer: Any
    longest: int
    size: int
    types: bool
    whole: bool = False
    pad: int = 0

    def __call__(self, items: Sequence[Item]) -> Prepared:
        texts = [item.content for item in items]
        made, notes = tokenize(self.tokenizer, texts), {}
        sizes = made["mask"].sum(1)
        over = sizes > self.longest
        if over.any():
            made = tokenize(self.tokenizer, texts, self.longest)
            told = f"cut from {{}} to {self.longest} tokens"
            notes = {int(i): told.format(sizes[i]) for i in np.flatnonzero(over)}
        empty = {int(i): "a text without a token" for i in np.flatnonzero(sizes == 0)}
        return Prepared(tuple(self._split(made, np.minimum(sizes, self.longest))), empty, notes)

    def _split(self, made: dict[str, np.ndarray], sizes: np.ndarray) -> Any:
        """Portions of one length each."""
        arrays = {"tokens": made["tokens"], "token_mask": made["mask"]}
        if self.types:
            arrays["types"] = made.get("types", np.zeros_like(made["tokens"]))
        buckets = (self.longest,) if self.whole else make_buckets(self.longest)
        owner = np.searchsorted(buckets, sizes)
        for number, length in enumerate(buckets):
            rows = np.flatnonzero((owner == number) & (sizes > 0))
            for start in range(0, len(rows), self.size):
                some = rows[start : start + self.size]
                cut = {k: to_length(v[some], length) for k, v in arrays.items()}
                if self.whole:
                    cut["tokens"] = np.where(cut["token_mask"], cut["tokens"], self.pad)
                yield Portion(some.tolist(), fill_up(cut, self.size))


def tokenize(
    tokenizer: Any, texts: Sequence[Any], length: int | None = None
) -> dict[str, np.ndarray]:
    """`tokens` and `mask` `[n, t]`, of pairs `types`; those of a run's bytes or characters too,
    which have no template."""
    if hasattr(tokenizer, "batch"):
        return tokenizer.batch(texts, length)
    rows, _ = tokenizer.encode_rows(texts, length or 2**30)
    sizes = np.array([len(row) for row in rows])
    mask = np.arange(sizes.max(initial=0)) < sizes[:, None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = np.concatenate(rows)
    return {"tokens": tokens, "mask": mask}


def to_length(array: np.ndarray, length: int) -> np.ndarray:
    """`[n, t]` cut or padded with zeros to `[n, length]`."""
    return np.pad(array[:, :length], ((0, 0), (0, max(length - array.shape[1], 0))))


@dataclass(frozen=True)
class RecipeTexts:
    """Texts for a run, in rows of its `data.length`, as its evaluation makes them."""

    tokenizer: Any
    ops: tuple[Op, ...]
    length: int
    pair: bool
    size: int

    def __call__(self, items: Sequence[Item]) -> Prepared:
        notes, portions = {}, []
        rows, marks = self.tokenizer.encode_rows([item.content for item in items], 2**20)
        for i, row in enumerate(rows):
            if len(row) > self.length:
                notes[i] = f"cut from {len(row)} to {self.length} tokens"
        if notes:
            rows, marks = self.tokenizer.encode_rows([i.content for i in items], self.length)
        for start in range(0, len(rows), self.size):
            numbers = range(start, min(start + self.size, len(rows)))
            some, begins = [rows[i] for i in numbers], [marks[i] for i in numbers]
            examples = pad_rows(some, begins, self.length, self.pair)
            for op in self.ops:
                examples = op(examples, None)
            portions.append(Portion(numbers, fill_up(finish(examples), self.size)))
        return Prepared(tuple(portions), {}, notes)
