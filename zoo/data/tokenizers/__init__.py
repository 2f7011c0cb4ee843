"""Tokenizers: what each of them does, and the one that `data.tokenizer` names.

Each says all that it is in one JSON text; its sha256 is the tokenizer's identity, kept beside every
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath

from zoo.config import DataConfig, UserError, nearest
from zoo.data.published import read_checked
from zoo.data.tokenizers.files import from_gpt2_files, read_tokenizer
from zoo.data.tokenizers.json_tokenizer import JsonTokenizer
from zoo.data.tokenizers.placed import PlacedTokens
from zoo.data.tokenizers.plain import ByteTokenizer, CharTokenizer
from zoo.data.tokenizers.training import TRAINERS, train_bpe, train_tokenizer

__all__ = [
    "ByteTokenizer",
    "CharTokenizer",
    "JsonTokenizer",
    "PlacedTokens",
    "Tokenizer",
    "from_gpt2_files",
    "is_file",
    "make_tokenizer",
    "read_tokenizer",
    "train_bpe",
]


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end(self) -> int | None:
        """The token between documents, or None."""
        ...

    @property
    def begin(self) -> int | None:
        """The token before a text, or None."""
        ...

    @property
    def pad(self) -> int | None:
        """The token that fills a row up, or None."""
        ...

    @property
    def mask(self) -> int | None:
        """The token in a hidden one's place, or None."""
        ...

    @property
    def sentinels(self) -> tuple[int, ...]:
        """The tokens in the place of removed spans, the first first."""
        ...

    @property
    def special(self) -> np.ndarray:
        """Which tokens are no text, `[vocab_size]` bool."""
        ...

    @property
    def continues(self) -> np.ndarray | None:
        """Which tokens go on with the word before them, `[vocab_size]` bool; None where unknown."""
        ...

    @property
    def token_bytes(self) -> np.ndarray | None:
        """How many bytes of text each token stands for, `[vocab_size]`; None where unknown."""
        ...

    def encode(self, text: str) -> np.ndarray: ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode`, on all cores."""
        ...

    @property
    def has_template(self) -> bool:
        """Does it put special tokens around a text?"""
        ...

    def encode_rows(self, texts: Sequence[Any], length: int) -> tuple[list[np.ndarray], list[int]]:
        """Texts or pairs in its template, cut to `length` tokens; and where in each row the second
        text begins (its end, where there is none)."""
        ...

    def encode_placed(self, texts: Sequence[Any]) -> list[PlacedTokens]:
        """Texts or pairs in its template, whole, each token with its place."""
        ...

    def decode(self, ids: Iterable[Any]) -> str: ...

    def to_json(self) -> str: ...


def make_tokenizer(config: DataConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer `data.tokenizer` names; `texts`, read more than once, are what 'chars',
    'bpe:N', 'wordpiece:N' and 'unigram:N' learn from.

    Raises UserError on an unknown name or unreadable file.
    """
    name = config.tokenizer
    kind, colon, size = name.partition(":")
    if name == "bytes":
        return ByteTokenizer()
    if name == "chars":
        return CharTokenizer.train(texts)
    if name == "gpt2":
        files = ("encoder.json", "vocab.bpe")
        return from_gpt2_files(*(read_checked("gpt2_vocab", f, config).decode() for f in files))
    if colon and kind in TRAINERS:
        try:
            return train_tokenizer(kind, texts, *parse_size(kind, size))
        except UserError as error:
            raise UserError(f"data.tokenizer={name!r}: {error}") from None
    if name == "init_from":
        raise UserError("data.tokenizer='init_from' is for training, from the weights of init_from")
    if not is_file(name):
        known = ["bytes", "chars", "bpe:4096", "wordpiece:8192", "unigram:8192", "gpt2"]
        raise UserError(f"data.tokenizer={name!r} is unknown{nearest(name, known)}")
    return read_tokenizer(name)


def parse_size(kind: str, size: str) -> tuple[int, int]:
    """'8192' -> (8192, 0); of unigram '8192+100' -> (8192, 100), tokens and sentinels."""
    number, plus, sentinels = size.partition("+")
    if not number.isdigit() or (plus and not (sentinels.isdigit() and kind == "unigram")):
        more = ", or unigram:N+100 with 100 sentinels" if kind == "unigram" else ""
        raise UserError(f"write {kind}:N, N tokens{more}")
    return int(number), int(sentinels or 0)


def is_file(name: str) -> bool:
    """Does `data.tokenizer` name a file or folder, there or not?"""
    return "/" in name or name.endswith((".json", ".txt", ".model")) or epath.Path(name).exists()
