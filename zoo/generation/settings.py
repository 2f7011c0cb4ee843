"""How text is generated: what the user says, and what the source says of its special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zoo.config import UserError
from zoo.generation.sampling import Rules


@dataclass(frozen=True)
class Settings:
    """The options of `zoo.generate`."""

    max_new_tokens: int | None = None  # None: 64, or what the positions leave of them
    min_new_tokens: int = 0
    temperature: float = 0.0  # 0: the likeliest token each time
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0  # of beams: scores are divided by length ** this
    early_stopping: bool | Literal["never"] = False  # of beams, as in transformers
    num_return: int = 1  # the n best beams, or n samples, of each prompt
    stop: tuple[str, ...] = ()  # texts that end a row; they are not part of it
    draft_tokens: int = 4  # guesses of a draft model at a time

    def __post_init__(self) -> None:
        """Raises UserError on a value that makes no sense, alone or beside another."""
        most = self.max_new_tokens
        self._check("max_new_tokens", most is None or most >= 1, "at least 1")
        for name in ("num_beams", "num_return", "draft_tokens"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("min_new_tokens", self.min_new_tokens >= 0, "at least 0")
        self._check("temperature", 0 <= self.temperature < float("inf"), "at least 0")
        self._check("top_k", self.top_k is None or self.top_k >= 1, "at least 1")
        self._check("length_penalty", abs(self.length_penalty) < float("inf"), "a finite number")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            self._check(name, value is None or 0 < value <= 1, "above 0 and at most 1")
        self._check("repetition_penalty", self.repetition_penalty > 0, "above 0")
        if most is not None and self.min_new_tokens > most:
            raise UserError(
                f"min_new_tokens={self.min_new_tokens} is more than max_new_tokens={most}"
            )
        self._check_company()

    def _check(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UserError(f"{name}={getattr(self, name)!r} should be {wanted}")

    def _check_company(self) -> None:
        given = [n for n in ("top_k", "top_p", "min_p") if getattr(self, n) is not None]
        if given and not self.temperature:
            raise UserError(f"{given[0]} is for sampling: set temperature above 0 (1.0) with it")
        if self.num_beams > 1 and self.temperature:
            raise UserError("beams take the likeliest: leave temperature out, or num_beams")
        if self.num_return > self.num_beams and not self.temperature:
            raise UserError(
                f"num_return={self.num_return} of {self.num_beams} beam"
                f"{'s' * (self.num_beams > 1)}: raise num_beams, or temperature to draw samples"
            )
        if self.num_beams == 1 and (self.length_penalty != 1 or self.early_stopping):
            raise UserError("length_penalty and early_stopping are for beams: set num_beams too")


@dataclass(frozen=True)
class Specials:
    """The special tokens of a source, as far as they concern generation."""

    ends: tuple[int, ...]
    begin: int | None  # what an encoder-decoder's targets begin with
    first: int | None  # what they must go on with (mBART's language)
    last: int | None  # what stands at their last place where they come to the full length (BART)
    banned: tuple[int, ...]


def find_specials(config: Mapping[str, Any], tokenizer: Any, crosses: bool) -> Specials:
    """From the source's configs (`Card.config`), or from its tokenizer where they are silent.

    Raises UserError where an encoder-decoder does not say what targets begin with.
    """
    ends = config.get("eos_token_id")
    if ends is None and tokenizer is not None:
        ends = tokenizer.end
    ends = () if ends is None else tuple(ends) if isinstance(ends, list) else (ends,)
    # Whole words of several tokens are not followed; a token alone is what Marian bans (padding).
    bad = [words[0] for words in config.get("bad_words_ids") or () if len(words) == 1]
    # An end stays possible, or no row would have one.
    banned = (*(b for b in bad if b not in ends), *(config.get("suppress_tokens") or ()))
    last = config.get("forced_eos_token_id")
    last = last[0] if isinstance(last, list) else last
    if not crosses:
        return Specials(ends, None, None, last, banned)
    known = [config.get(k) for k in ("decoder_start_token_id", "bos_token_id", "pad_token_id")]
    known += [getattr(tokenizer, name, None) for name in ("begin", "pad")]
    begin = next((token for token in known if token is not None), None)
    if begin is None:
        raise UserError("the source names no token that targets begin with: decoder_start_token_id")
    return Specials(ends, begin, config.get("forced_bos_token_id"), last, banned)


def make_rules(settings: Settings, specials: Specials, vocab_size: int, limit: int) -> Rules:
    """The rules in use, as arrays, where a row has at most `limit` new tokens."""

    def number(value: Any, unused: Any, dtype: Any = np.float32) -> Any:
        return None if value == unused else np.asarray(value, dtype)

    banned = None
    if specials.banned:
        banned = np.zeros(vocab_size, bool)
        banned[list(specials.banned)] = True
    last = None
    if specials.last is not None:
        last = (np.int32(specials.last), np.int32(limit - 1))
    return Rules(
        ends=np.array(specials.ends, np.int32),
        min_new=number(settings.min_new_tokens, 0, np.int32),
        banned=banned,
        first=number(specials.first, None, np.int32),
        last=last,
        repetition_penalty=number(settings.repetition_penalty, 1.0),
        temperature=number(settings.temperature, 0.0),
        top_k=number(settings.top_k and min(settings.top_k, vocab_size), None, np.int32),
        top_p=number(settings.top_p, None),
        min_p=number(settings.min_p, None),
    )
