"""Texts that end a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.config import UserError

BROKEN = "\ufffd"  # stands for bytes that are no whole character yet


def check_stop(stop: Sequence[str], tokenizer: Any) -> None:
    """Raises UserError on a stop string that the tokenizer's tokens can never spell."""
    for text in stop:
        if not text:
            raise UserError("a stop string is empty")
        if tokenizer is None:
            raise UserError(f"stop={text!r}: the source has no tokenizer, so no text to look in")
        try:
            spelled = tokenizer.decode(tokenizer.encode(text))
        except UserError as error:
            raise UserError(f"stop={text!r} can never occur: {error}") from None
        if text.strip() not in spelled:
            raise UserError(
                f"stop={text!r} can never occur: the tokenizer spells it {spelled.strip()!r}"
            )


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where in a text the first stop string begins."""
    places = [place for place in (text.find(words) for words in stop) if place >= 0]
    return min(places, default=None)


def settle(text: str, stop: Sequence[str], ended: bool) -> str:
    """As much of a text as later tokens cannot take back: no part of a character, nothing that may
    be the beginning of a stop string, and nothing from one on."""
    place = find_stop(text, stop)
    if place is not None:
        return text[:place]
    if ended:
        return text
    text = text.rstrip(BROKEN)
    begun = [n for words in stop for n in range(1, len(words)) if text.endswith(words[:n])]
    return text[: len(text) - max(begun, default=0)]
