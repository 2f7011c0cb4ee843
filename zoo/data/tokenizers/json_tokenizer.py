"""Tokenizers of the `tokenizers` library, each by the text of its tokenizer.json."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.tokenizers.placed import PlacedTokens
from zoo.data.tokenizers.plain import whole_texts

END_OF_TEXT = "<|endoftext|>"
# What the families call their special tokens; the first that a vocabulary has is its own.
ENDS = (END_OF_TEXT, "</s>", "[SEP]", "<eos>", "<|end_of_text|>", "<|im_end|>")
BEGINS = ("[CLS]", "<s>", "<bos>", "<|begin_of_text|>")
PADS = ("[PAD]", "<pad>")
MASKS = ("[MASK]", "<mask>")
SPACE = "▁"  # SentencePiece's
WHITE_BYTES = "ĠĊĉč"  # space, line feed, tab and carriage return in a byte-level vocabulary


@dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer of the `tokenizers` library, by its tokenizer.json."""

    text: str

    @functools.cached_property
    def _backend(self) -> Any:
        import tokenizers

        backend = tokenizers.Tokenizer.from_str(self.text)
        backend.no_padding()
        backend.no_truncation()
        # "<|endoftext|>" in a corpus is a piece of text, not the end of it.
        backend.encode_special_tokens = True
        return backend

    @functools.cached_property
    def _table(self) -> dict[str, Any]:
        return json.loads(self.text)

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text}

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size()

    def find(self, *names: str) -> int | None:
        """The id of the first of these tokens that the vocabulary has."""
        ids = (self._backend.token_to_id(name) for name in names)
        return next((i for i in ids if i is not None), None)

    @functools.cached_property
    def end(self) -> int | None:
        return self.find(*ENDS)

    @functools.cached_property
    def begin(self) -> int | None:
        """The token before a text, or None."""
        return self.find(*BEGINS)

    @functools.cached_property
    def pad(self) -> int | None:
        """The token that fills a row up, or None."""
        return self.find(*PADS)

    @functools.cached_property
    def mask(self) -> int | None:
        """The token in a hidden one's place, or None."""
        return self.find(*MASKS)

    @functools.cached_property
    def sentinels(self) -> tuple[int, ...]:
        """T5's tokens in the place of removed spans: `<extra_id_0>`, `<extra_id_1>` and on."""
        out: list[int] = []
        while (found := self.find(f"<extra_id_{len(out)}>")) is not None:
            out.append(found)
        return tuple(out)

    @functools.cached_property
    def special(self) -> np.ndarray:
        """Which tokens are no text, `[vocab_size]` bool."""
        out = np.zeros(self.vocab_size, bool)
        out[[t["id"] for t in self._table["added_tokens"] if t["special"]]] = True
        return out

    @functools.cached_property
    def continues(self) -> np.ndarray | None:
        """Which tokens go on with the word before them, `[vocab_size]` bool; None: it does not
        say."""
        kind = self._table["model"].get("type")
        tokens = [self._backend.id_to_token(i) or "" for i in range(self.vocab_size)]
        if kind == "WordPiece":
            prefix = self._table["model"]["continuing_subword_prefix"]
            return np.array([token.startswith(prefix) for token in tokens])
        if self.is_byte_level:
            return np.array([token[:1] not in WHITE_BYTES for token in tokens]) & ~self.special
        if any(token.startswith(SPACE) for token in tokens):
            return np.array([not token.startswith(SPACE) for token in tokens]) & ~self.special
        return None

    @property
    def is_byte_level(self) -> bool:
        """Is every character of a token one byte of text?"""
        # CLIP's '</w>' is no text.
        suffix = self._table["model"].get("end_of_word_suffix")
        return "ByteLevel" in json.dumps(self._table.get("decoder")) and not suffix

    @functools.cached_property
    def token_bytes(self) -> np.ndarray | None:
        if not self.is_byte_level:
            return None
        tokens = [self._backend.id_to_token(i) or "" for i in range(self.vocab_size)]
        sizes = np.array([len(token) for token in tokens])
        return np.where(self.special, 0, sizes)

    def encode(self, text: str) -> np.ndarray:
        with whole_texts():
            ids = self._backend.encode(text, add_special_tokens=False).ids
        return np.asarray(ids, np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode`, on all cores."""
        with whole_texts():
            rows = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(row.ids, np.int32) for row in rows]

    def encode_rows(self, texts: Sequence[Any], length: int) -> tuple[list[np.ndarray], list[int]]:
        """Texts or pairs with the special tokens of the tokenizer's own template, cut to `length`
        tokens; and where in each row the second text begins (its end, where there is none)."""
        with whole_texts():
            rows = _cutting(self, length).encode_batch_fast(list(texts))
        marks = [row.type_ids.index(1) if 1 in row.type_ids else len(row.ids) for row in rows]
        return [np.asarray(row.ids, np.int32) for row in rows], marks

    @functools.cached_property
    def has_template(self) -> bool:
        """Does it put special tokens around a text?"""
        return self._backend.num_special_tokens_to_add(False) > 0

    def decode(self, ids: Iterable[Any]) -> str:
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def token(self, index: int) -> str:
        """A token as the vocabulary writes it; '' of a number that is none."""
        return self._backend.id_to_token(int(index)) or ""

    def show(self, index: int) -> str:
        """A token as a piece of text, special ones too."""
        return self._backend.decode([int(index)], skip_special_tokens=False)

    def places(self, text: Any, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each token of a text (or pair) in the template, cut to `length`: where in its text it
        stands, `[t, 2]`, and which text that is, 0 or 1; -1 of the template's own tokens."""
        backend = copy.deepcopy(self._backend)
        backend.enable_truncation(length)
        (row,) = backend.encode_batch([text])
        owners = [-1 if owner is None else owner for owner in row.sequence_ids]
        return np.asarray(row.offsets, np.int64).reshape(-1, 2), np.asarray(owners, np.int64)

    def encode_placed(self, texts: Sequence[Any]) -> list[PlacedTokens]:
        """Texts or pairs in the template, whole, each token with its place, on all cores."""
        with whole_texts():
            rows = self._backend.encode_batch(list(texts))
        out = []
        for row in rows:
            owners = [-1 if owner is None else owner for owner in row.sequence_ids]
            mark = row.type_ids.index(1) if 1 in row.type_ids else len(row.ids)
            places = np.asarray(row.offsets, np.int64).reshape(-1, 2)
            out.append(
                PlacedTokens(np.asarray(row.ids, np.int32), np.asarray(owners), places, mark)
            )
        return out

    def to_json(self) -> str:
        return self.text

    def batch(self, texts: Sequence[Any], length: int | None = None) -> dict[str, np.ndarray]:
        """Texts (or pairs) as a model takes them: `tokens` and `mask`, `[b, t]`, for pairs `types`.

        An encoder takes types for 0 where none are given, a decoder knows none. With the special
        tokens that the tokenizer's own template adds, cut to `length` tokens and padded on the
        right with token 0 to the longest. A special token written in a text, such as [MASK], is
        that token.
        """
        backend = copy.deepcopy(self._backend)
        backend.no_padding()
        if length is None:
            backend.no_truncation()
        else:
            backend.enable_truncation(length)
        with whole_texts():
            rows = backend.encode_batch(list(texts))
        longest = max((len(row.ids) for row in rows), default=0)
        made = {"tokens": np.int32, "types": np.int32, "mask": bool}
        batch = {name: np.zeros((len(rows), longest), dtype) for name, dtype in made.items()}
        for i, row in enumerate(rows):
            batch["tokens"][i, : len(row.ids)] = row.ids
            batch["types"][i, : len(row.ids)] = row.type_ids
            batch["mask"][i, : len(row.ids)] = True
        return batch if batch["types"].any() else {k: batch[k] for k in ("tokens", "mask")}


@functools.lru_cache(maxsize=4)
def _cutting(tokenizer: JsonTokenizer, length: int) -> Any:
    """Its backend, which cuts rows; of a pair the longer text first."""
    backend = copy.deepcopy(tokenizer._backend)
    backend.encode_special_tokens = True
    backend.enable_truncation(length)
    return backend
