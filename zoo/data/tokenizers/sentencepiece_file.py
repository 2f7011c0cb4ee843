"""SentencePiece's own model files (`spiece.model`, `tokenizer.model`), read without that library.

The file is one message of protocol buffers (sentencepiece_model.proto): pieces with scores and
types, how the text is normalised, how it was trained. It becomes a tokenizer of the `tokenizers`
library that gives the same tokens (Kudo & Richardson 2018; Unigram: Kudo 2018).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.config import UserError

SPACE = "▁"  # what a space becomes
UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


class Piece(NamedTuple):
    """One token of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceFile:
    """What a model file says. Defaults are those of its format."""

    pieces: list[Piece]
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""  # the library's compiled table of replacements
    prefix: bool = True  # a space is put before the text
    collapse: bool = True  # spaces at the ends go, several become one

    def ids(self, kind: int) -> list[int]:
        """The ids of one kind of pieces."""
        return [i for i, piece in enumerate(self.pieces) if piece.kind == kind]


def parse_sentencepiece(data: bytes) -> SentencePieceFile:
    """Raises UserError on bytes that are no such file, or of an algorithm that is not followed."""
    pieces, trainer, normalizer = [], {}, {}
    try:
        for number, value in _fields(data):
            if number == 1:
                told = dict(_fields(value))
                score = struct.unpack("<f", told.get(2, bytes(4)))[0]
                pieces.append(Piece(told[1].decode(), score, told.get(3, NORMAL)))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
        file = SentencePieceFile(
            pieces,
            algorithm=trainer.get(3, UNIGRAM),
            byte_fallback=bool(trainer.get(35, 0)),
            charsmap=b"" + normalizer.get(2, b""),  # a number there is an error
            prefix=bool(normalizer.get(3, 1)),
            collapse=bool(normalizer.get(4, 1)),
        )
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error):
        raise UserError("no SentencePiece model") from None
    if len(file.ids(UNKNOWN)) != 1:
        raise UserError("no SentencePiece model (one piece should stand for the unknown)")
    if file.algorithm not in (UNIGRAM, BPE) or file.ids(UNUSED) or trainer.get(24):
        raise UserError("a SentencePiece model of words, characters, unused pieces or suffixes")
    return file


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message: ints, or bytes. Raises IndexError where it is cut."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        if tag & 7 == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(tag & 7)
        if tag & 7 == 2:
            size, place = _varint(data, place)
        if size is None or place + size > len(data):
            raise IndexError("cut off")
        yield tag >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise IndexError("no number")


def make_backend(file: SentencePieceFile) -> Any:
    """The same tokenizer as a `tokenizers.Tokenizer`, without a template of special tokens.

    Two things differ. A control piece that is written out in a text ("<s>") is that piece to a
    Unigram model here, to the library it is characters. Where a BPE model puts a space before the
    text, it also puts one behind a user-defined piece.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    backend = Tokenizer(_make_model(file))
    steps: list[Any] = [normalizers.Precompiled(file.charsmap)] if file.charsmap else []
    if file.collapse:
        steps += [
            normalizers.Replace(Regex("^ +| +$"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    if file.prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    backend.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
    if not any(SPACE in piece.text[1:] for piece in file.pieces):
        # No piece reaches over a space: word by word is the same, and known words are quick.
        split = pre_tokenizers.Split(SPACE, "merged_with_next")
        backend.pre_tokenizer = split  # type: ignore[assignment]
    back: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if file.prefix:
        back.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(back)  # type: ignore[assignment]
    texts = {kind: [file.pieces[i].text for i in file.ids(kind)] for kind in range(1, 7)}
    backend.add_special_tokens(texts[UNKNOWN] + texts[CONTROL])
    if file.algorithm == BPE:
        # Found in the normalised text, for they may hold spaces; but a prefix would join them.
        found = not file.prefix
        backend.add_tokens([AddedToken(text, normalized=found) for text in texts[USER_DEFINED]])
    return backend


def _make_model(file: SentencePieceFile) -> Any:
    from tokenizers import models

    unknown = file.ids(UNKNOWN)[0]
    if file.algorithm == UNIGRAM:
        # User-defined pieces always win: the library scores them as so many best pieces.
        best = max((p.score for p in file.pieces if p.kind == NORMAL), default=0.0)
        vocab = [
            (p.text, len(p.text) * best - 0.1 if p.kind == USER_DEFINED else p.score)
            for p in file.pieces
        ]
        return models.Unigram(vocab, unknown, file.byte_fallback)
    ids = {piece.text: i for i, piece in enumerate(file.pieces)}
    return models.BPE(
        ids,
        _find_merges(file, ids),
        unk_token=file.pieces[unknown].text,
        fuse_unk=True,
        byte_fallback=file.byte_fallback,
    )


def _find_merges(file: SentencePieceFile, ids: dict[str, int]) -> list[tuple[str, str]]:
    """SentencePiece merges the pair whose joined piece has the best score, the leftmost first."""
    found = []
    for piece in file.pieces:
        if piece.kind != NORMAL:
            continue
        for cut in range(1, len(piece.text)):
            pair = piece.text[:cut], piece.text[cut:]
            if pair[0] in ids and pair[1] in ids:
                found.append((-piece.score, ids[pair[0]], ids[pair[1]], pair))
    return [pair for *_, pair in sorted(found)]
