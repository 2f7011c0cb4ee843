"""Tokenizers that need no library: bytes and characters."""

from __future__ import annotations

import abc
import contextlib
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from zoo.config import UserError
from zoo.data.tokenizers.placed import PlacedTokens


@contextlib.contextmanager
def whole_texts() -> Iterator[None]:
    """Raises UserError where a tokenizer meets what is no text: bytes of a command line that are
    no UTF-8 come as lone surrogates."""
    try:
        yield
    except (TypeError, UnicodeEncodeError):
        raise UserError("a text is none, or holds bytes that are no UTF-8") from None


class PlainTokenizer(abc.ABC):
    """What bytes and characters share: no special tokens but the end."""

    begin: ClassVar[None] = None
    pad: ClassVar[None] = None
    mask: ClassVar[None] = None
    sentinels: ClassVar[tuple[int, ...]] = ()
    continues: ClassVar[None] = None
    has_template: ClassVar[bool] = False
    end: ClassVar[int | None]

    @property
    def special(self) -> np.ndarray:
        """Which tokens are no text, `[vocab_size]` bool."""
        return np.arange(self.vocab_size) == (-1 if self.end is None else self.end)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text."""
        return [self.encode(text) for text in texts]

    def encode_rows(self, texts: Sequence[Any], length: int) -> tuple[list[np.ndarray], list[int]]:
        """Texts or pairs, the end between the two, cut to `length` tokens; and where in each row
        the second text begins (its end, where there is none)."""
        rows, marks = [], []
        between = np.array([] if self.end is None else [self.end], np.int32)
        for text in texts:
            first, *second = (text,) if isinstance(text, str) else text
            row = self.encode(first)
            if second:
                row = np.concatenate([row, between])
            marks.append(min(len(row), length))
            rows.append(np.concatenate([row, *map(self.encode, second)])[:length])
        return rows, marks

    def encode_placed(self, texts: Sequence[Any]) -> list[PlacedTokens]:
        """Texts or pairs, whole, the end between the two, each token with its place."""
        out = []
        for text in texts:
            parts = (text,) if isinstance(text, str) else text
            (row,), (mark,) = self.encode_rows([text], 2**30)
            owners, places = np.full(len(row), -1), np.zeros((len(row), 2), np.int64)
            for owner, part in enumerate(parts):
                start = mark if owner else 0
                number = np.repeat(np.arange(len(part)), self._sizes(part))
                owners[start : start + len(number)] = owner
                places[start : start + len(number)] = np.stack([number, number + 1], axis=1)
            out.append(PlacedTokens(row, owners, places, mark))
        return out

    def _sizes(self, text: str) -> np.ndarray:
        """How many tokens each character is."""
        return np.ones(len(text), int)

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """How many tokens there are."""

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int32."""


@dataclass(frozen=True)
class ByteTokenizer(PlainTokenizer):
    """UTF-8 bytes, 0 to 255, and 256 between documents."""

    end: ClassVar[int] = 256

    @property
    def vocab_size(self) -> int:
        return 257

    @property
    def token_bytes(self) -> np.ndarray:
        return np.array([1] * 256 + [0])

    def encode(self, text: str) -> np.ndarray:
        with whole_texts():
            return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def _sizes(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        return 1 + np.searchsorted([0x80, 0x800, 0x10000], codes, side="right")

    def decode(self, ids: Iterable[Any]) -> str:
        return bytes(int(i) for i in ids if i < 256).decode(errors="replace")

    def to_json(self) -> str:
        return json.dumps({"zoo": "bytes"})


@dataclass(frozen=True)
class CharTokenizer(PlainTokenizer):
    """One token a character of an alphabet, in the order of the code points; none for the end."""

    alphabet: str
    end: ClassVar[None] = None

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharTokenizer:
        """The alphabet of some texts."""
        found: set[str] = set()
        return cls("".join(sorted(found.union(*texts))))

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    @functools.cached_property
    def _codes(self) -> np.ndarray:
        return np.array([ord(c) for c in self.alphabet], np.uint32)

    @property
    def token_bytes(self) -> np.ndarray:
        return np.array([len(c.encode()) for c in self.alphabet])

    def encode(self, text: str) -> np.ndarray:
        """Raises UserError on a character outside the alphabet."""
        with whole_texts():
            codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ids = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        strange = np.flatnonzero(self._codes[ids] != codes)
        if len(strange):
            raise UserError(
                f"the tokenizer's alphabet of {self.vocab_size} characters lacks "
                f"{chr(codes[strange[0]])!r}"
            )
        return ids.astype(np.int32)

    def decode(self, ids: Iterable[Any]) -> str:
        return "".join(self.alphabet[i] for i in ids)

    def to_json(self) -> str:
        return json.dumps({"zoo": "characters", "alphabet": self.alphabet})
