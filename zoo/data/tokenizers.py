"""Tokenizers: bytes, characters, byte-level BPE, GPT-2's published files, any tokenizer.json.

Each says all that it is in one JSON text; its sha256 is the tokenizer's identity, kept beside every
checkpoint.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from etils import epath

from zoo.config import DataConfig, UserError, nearest
from zoo.data.published import read_checked

END_OF_TEXT = "<|endoftext|>"


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
    def token_bytes(self) -> np.ndarray | None:
        """How many bytes of text each token stands for, `[vocab_size]`; None where unknown."""
        ...

    def encode(self, text: str) -> np.ndarray: ...

    def decode(self, ids: Iterable[Any]) -> str: ...

    def to_json(self) -> str: ...


@dataclass(frozen=True)
class ByteTokenizer:
    """UTF-8 bytes, 0 to 255, and 256 between documents."""

    vocab_size: ClassVar[int] = 257
    end: ClassVar[int] = 256

    @property
    def token_bytes(self) -> np.ndarray:
        return np.array([1] * 256 + [0])

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[Any]) -> str:
        return bytes(int(i) for i in ids if i < 256).decode(errors="replace")

    def to_json(self) -> str:
        return json.dumps({"zoo": "bytes"})


@dataclass(frozen=True)
class CharTokenizer:
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


@dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer of the `tokenizers` library, by its tokenizer.json."""

    text: str

    @functools.cached_property
    def _backend(self) -> Any:
        import tokenizers

        backend = tokenizers.Tokenizer.from_str(self.text)
        # "<|endoftext|>" in a corpus is a piece of text, not the end of it.
        backend.encode_special_tokens = True
        return backend

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text}

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size()

    @functools.cached_property
    def end(self) -> int | None:
        return self._backend.token_to_id(END_OF_TEXT)

    @functools.cached_property
    def token_bytes(self) -> np.ndarray | None:
        # In a byte-level vocabulary every character of a token is one byte.
        if "ByteLevel" not in json.dumps(json.loads(self.text).get("decoder")):
            return None
        if json.loads(self.text)["model"].get("end_of_word_suffix"):
            return None  # CLIP's '</w>' is no text
        special = {t["id"] for t in json.loads(self.text)["added_tokens"] if t["special"]}
        tokens = [self._backend.id_to_token(i) or "" for i in range(self.vocab_size)]
        return np.array([0 if i in special else len(t) for i, t in enumerate(tokens)])

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self._backend.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: Iterable[Any]) -> str:
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

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
        rows = backend.encode_batch(list(texts))
        longest = max((len(row.ids) for row in rows), default=0)
        made = {"tokens": np.int32, "types": np.int32, "mask": bool}
        batch = {name: np.zeros((len(rows), longest), dtype) for name, dtype in made.items()}
        for i, row in enumerate(rows):
            batch["tokens"][i, : len(row.ids)] = row.ids
            batch["types"][i, : len(row.ids)] = row.type_ids
            batch["mask"][i, : len(row.ids)] = True
        return batch if batch["types"].any() else {k: batch[k] for k in ("tokens", "mask")}


def train_bpe(texts: Iterator[str], vocab_size: int) -> JsonTokenizer:
    """Byte-level BPE as in GPT-2 (Radford et al. 2019), learned from texts."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    backend = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    assert isinstance(backend, tokenizers.Tokenizer)
    return JsonTokenizer(backend.to_str())


def from_gpt2_files(encoder: str, merges: str) -> JsonTokenizer:
    """The tokenizer of GPT-2's `encoder.json` and `vocab.bpe`, given their contents."""
    backend = make_byte_bpe(encoder, merges)
    backend.add_special_tokens([END_OF_TEXT])
    return JsonTokenizer(backend.to_str())


def make_byte_bpe(vocab: str, merges: str) -> Any:
    """The library's byte-level BPE of a vocabulary and its merges, without special tokens."""
    from tokenizers import models

    pairs = [(a, b) for a, _, b in (x.partition(" ") for x in merges.splitlines()[1:]) if b]
    return _byte_level(models.BPE(json.loads(vocab), pairs))


def _byte_level(model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return backend


def read_tokenizer(path: Any) -> Tokenizer:
    """A tokenizer from its JSON file, or from a folder that holds tokenizer.json or GPT-2's pair.

    Raises UserError when there is none or it cannot be read.
    """
    path = epath.Path(path).expanduser()
    if path.is_dir():
        if (path / "encoder.json").exists() and (path / "vocab.bpe").exists():
            parts = [(path / name).read_text() for name in ("encoder.json", "vocab.bpe")]
            return from_gpt2_files(*parts)
        path = path / "tokenizer.json"
    if not path.exists():
        raise UserError(f"data.tokenizer: there is no {path}")
    text = path.read_text()
    try:
        kind = json.loads(text).get("zoo")
        if kind == "bytes":
            return ByteTokenizer()
        if kind == "characters":
            return CharTokenizer(json.loads(text)["alphabet"])
        tokenizer = JsonTokenizer(text)
        assert tokenizer.vocab_size
        return tokenizer
    except Exception as error:  # the library raises bare Exceptions
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"data.tokenizer: {path} is no tokenizer: {line}") from None


def make_tokenizer(config: DataConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer `data.tokenizer` names; `texts` are what 'chars' and 'bpe:N' learn from.

    Raises UserError on an unknown name or unreadable file.
    """
    name = config.tokenizer
    if name == "bytes":
        return ByteTokenizer()
    if name == "chars":
        return CharTokenizer.train(texts)
    if name == "gpt2":
        files = ("encoder.json", "vocab.bpe")
        return from_gpt2_files(*(read_checked("gpt2_vocab", f, config).decode() for f in files))
    if name.startswith("bpe:"):
        size = name.removeprefix("bpe:")
        if not size.isdigit() or int(size) < 257:
            raise UserError(f"data.tokenizer={name!r}: write bpe:N, N at least 257 tokens")
        return train_bpe(iter(texts), int(size))
    if not is_file(name):
        known = ["bytes", "chars", "bpe:4096", "gpt2"]
        raise UserError(f"data.tokenizer={name!r} is unknown{nearest(name, known)}")
    return read_tokenizer(name)


def is_file(name: str) -> bool:
    """Does `data.tokenizer` name a file or folder, there or not?"""
    return "/" in name or name.endswith(".json") or epath.Path(name).exists()
