"""Hiding tokens to be guessed: BERT's masks, ELECTRA's, T5's spans.

Each draws its own numbers for every token, a function of seed and position, and in evaluation of
the position alone: there the same tokens are hidden every time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from zoo.config import UserError
from zoo.data.ops import OPS, Op
from zoo.data.sources import Dataset, Examples
from zoo.data.tokenizers import Tokenizer

Fitted = Any  # a field that `fit` fills in, not the user


def _fitted() -> Any:
    return dataclasses.field(default=None, init=False, repr=False)


@dataclass(frozen=True)
class TokenOp(Op):
    """An operation on `tokens`: windows `[n, t + 1]`, of which it takes `t`, or rows `[n, t]`."""

    field: ClassVar[str] = "tokens"
    in_evaluation: ClassVar[bool] = True
    draws_per_token: ClassVar[int] = 0
    tokenizer: Fitted = _fitted()
    length: Fitted = _fitted()

    def fit(self, dataset: Dataset) -> TokenOp:
        op = dataclasses.replace(self)
        extra = 0 if "token_mask" in dataset.shapes else 1
        object.__setattr__(op, "tokenizer", dataset.tokenizer)
        object.__setattr__(op, "length", dataset.shapes["tokens"][0] - extra)
        op.check(dataset.tokenizer)
        return op

    def check(self, tokenizer: Tokenizer) -> None:
        """Raises UserError where the tokenizer lacks what is needed."""

    @property
    def num_draws(self) -> int:  # type: ignore[override]
        """The draws of one token follow each other: they are the same in a row that is cut."""
        return self.draws_per_token * (self.length or 1)

    def split(
        self, examples: Examples, uniform: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens `[n, t]`, which of them are real, and draws `[n, t, draws_per_token]`."""
        assert uniform is not None
        tokens = examples["tokens"]
        if "token_mask" in examples:
            real = examples["token_mask"]
        else:
            tokens = tokens[:, :-1]
            real = np.ones(tokens.shape, bool)
            if "segments" in examples:
                real = examples["segments"][:, :-1] > 0
            elif "real" in examples:  # a token is there if it was one to be predicted
                real[:, 1:] = examples["real"][:, :-1]
        draws = uniform.reshape(len(tokens), -1, self.draws_per_token)
        return tokens, real, draws[:, : tokens.shape[1]]


@OPS.register("mask_tokens")
@dataclass(frozen=True)
class MaskTokens(TokenOp):
    """Of each row a share of the tokens is to be guessed: `mask` of them are [MASK], `random` of
    them any other token, the rest as they were (Devlin et al. 2019).

    Gives `tokens` `[n, t]`, the originals as `targets`, and `real`, true where one is to be
    guessed: `round(rate * tokens)` of a row, at least one. Special tokens never are. With
    `whole_word` all pieces of a word are, until that number is reached; without, the tokens to be
    guessed are among `places` `[n, m]`, as many as a row can have. ELECTRA's generator (Clark et
    al. 2020) sees `mask_tokens(0.15, mask=1, random=0)`.

    An example is masked anew each time that it is read (RoBERTa's dynamic masks, Liu et al. 2019).
    """

    draws_per_token: ClassVar[int] = 3
    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    whole_word: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError(f"rate={self.rate} is not in (0, 1)")
        if min(self.mask, self.random) < 0 or self.mask + self.random > 1:
            raise UserError(
                f"mask={self.mask} and random={self.random} are "
                "shares of the chosen tokens, together at most 1"
            )

    def check(self, tokenizer: Tokenizer) -> None:
        if self.mask and tokenizer.mask is None:
            raise UserError(
                "the tokenizer has no [MASK] or <mask> token "
                "(one of BERT's kind has: data.tokenizer='wordpiece:8192')"
            )
        if self.whole_word and tokenizer.continues is None:
            raise UserError("whole_word: the tokenizer does not say which tokens go on with a word")

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        tokens, real, draws = self.split(examples, uniform)
        chosen = self._choose(tokens, real & ~self.tokenizer.special[tokens], draws[..., 0])
        regular = np.flatnonzero(~self.tokenizer.special)
        others = regular[(draws[..., 2] * len(regular)).astype(int)]
        hidden = np.where(draws[..., 1] < self.mask + self.random, others, tokens)
        if self.mask:
            hidden = np.where(draws[..., 1] < self.mask, self.tokenizer.mask, hidden)
        out: Examples = {
            "tokens": np.where(chosen, hidden, tokens).astype(np.int32),
            "targets": tokens,
            "real": chosen,
            "token_mask": real,
        }
        if not self.whole_word:  # of which the last word may go beyond the number
            most = int(self._count(np.array([tokens.shape[1]]))[0])
            out["places"] = np.argsort(~chosen, axis=1, kind="stable")[:, :most].astype(np.int32)
        cut: Examples = {k: examples[k][:, :-1] for k in ("segments", "positions") if k in examples}
        return {**examples, **cut, **out}

    def _choose(self, tokens: np.ndarray, eligible: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """The tokens with the lowest draws; of a word the draw of its first token counts."""
        keys = np.where(eligible, draws, 2.0)
        first = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        if self.whole_word:
            begins = ~self.tokenizer.continues[tokens] | ~eligible
            begins[:, 1:] |= ~eligible[:, :-1]
            begins[:, 0] = True
            first = np.maximum.accumulate(np.where(begins, first, 0), axis=1)
            keys = np.take_along_axis(keys, first, axis=1)
        order = np.argsort(keys, axis=1, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(tokens.shape[1])[None], axis=1)
        wanted = self._count(eligible.sum(axis=1))
        return eligible & (np.take_along_axis(ranks, first, axis=1) < wanted[:, None])

    def _count(self, sizes: np.ndarray) -> np.ndarray:
        """How many tokens are to be guessed in rows of these sizes."""
        return np.where(sizes > 0, np.maximum(np.rint(sizes * self.rate), 1), 0)


@OPS.register("corrupt_spans")
@dataclass(frozen=True)
class CorruptSpans(TokenOp):
    """Spans of `mean_length` tokens, `rate` of all, are cut out (Raffel et al. 2020).

    Gives `source`, the text with a sentinel in the place of each span, and `target`, each sentinel
    with what it stands for, both with the end token; `source_mask` and `target_mask` are true where
    a token is. A row of so many tokens has always the same numbers of both.
    """

    draws_per_token: ClassVar[int] = 2
    rate: float = 0.15
    mean_length: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.mean_length < 1:
            raise UserError(
                f"rate={self.rate} must be in (0, 1), mean_length={self.mean_length} at least 1"
            )

    def fit(self, dataset: Dataset) -> TokenOp:
        if "segments" in dataset.shapes:
            raise UserError("packed documents cannot be corrupted: leave data.packing out")
        return super().fit(dataset)

    def check(self, tokenizer: Tokenizer) -> None:
        needed = int(self.count(np.array([self.length]))[1][0])
        if len(tokenizer.sentinels) < needed or tokenizer.end is None:
            raise UserError(
                f"{self.length} tokens need {needed} sentinels, "
                f"<extra_id_0> and on, and an end token; the tokenizer has "
                f"{len(tokenizer.sentinels)} (data.tokenizer='unigram:8192+100' has 100)"
            )

    def count(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many tokens are cut out of rows of these sizes, in how many spans."""
        removed = np.minimum(np.maximum(np.rint(sizes * self.rate), 1), np.maximum(sizes - 1, 0))
        spans = np.maximum(np.rint(removed / self.mean_length), 1)
        return removed.astype(int), np.minimum(spans, np.minimum(removed, sizes - removed)).astype(
            int
        )

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        tokens, real, draws = self.split(examples, uniform)
        sizes = real.sum(axis=1)
        removed, spans = self.count(sizes)
        noise = interleave(
            cut_randomly(sizes - removed, spans, draws[..., 0]),
            cut_randomly(removed, spans, draws[..., 1]),
            tokens.shape[1],
        )
        noise &= real
        begins = noise.copy()
        begins[:, 1:] &= ~noise[:, :-1]
        number = np.cumsum(begins, axis=1)  # of the span, from 1
        sentinels = np.array([*self.tokenizer.sentinels, 0])[np.maximum(number - 1, 0)]
        every = np.arange(tokens.shape[1] + 1)
        most, parts = self.count(every)
        widths = int((every - most + parts).max()) + 1, int((most + parts).max()) + 1
        kept = real & (~noise | begins)
        source = [(kept, np.cumsum(kept, axis=1) - 1, np.where(begins, sentinels, tokens))]
        place = np.cumsum(noise, axis=1) - 1 + number
        target = [(noise, place, tokens), (begins, place - 1, sentinels)]
        dropped = {"tokens", "real", "token_mask", "types"}
        out = {name: values for name, values in examples.items() if name not in dropped}
        for name, pieces, width in (("source", source, widths[0]), ("target", target, widths[1])):
            out |= write_rows(name, pieces, width, self.tokenizer.end)
        return out


def write_rows(name: str, pieces: list[Any], width: int, end: int) -> Examples:
    """Rows of `width`: of each piece `(which, places, values)` the values at their places, then
    the end; and their mask."""
    num_rows = len(pieces[0][0])
    out, sizes = np.zeros((num_rows, width), np.int32), np.zeros(num_rows, int)
    for which, places, values in pieces:
        rows, columns = np.nonzero(which)
        out[rows, places[rows, columns]] = values[rows, columns]
        sizes += which.sum(axis=1)
    out[np.arange(num_rows), sizes] = end
    return {name: out, f"{name}_mask": np.arange(width) <= sizes[:, None]}


def cut_randomly(totals: np.ndarray, parts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Each total as a sum of so many whole numbers of at least 1, all such sums alike probable:
    `[n, most parts]`, with zeros behind."""
    gaps = np.arange(draws.shape[1]) + 1
    keys = np.where(gaps < totals[:, None], draws, 2.0)
    ranked = np.sort(keys, axis=1)
    cuts = np.maximum(parts - 1, 0)
    last = np.take_along_axis(ranked, np.maximum(cuts - 1, 0)[:, None], axis=1)
    cut = (keys <= last) & (cuts > 0)[:, None]
    part = np.cumsum(cut, axis=1) - cut  # which part each token is of: the cut is behind it
    out = np.zeros((len(totals), max(int(parts.max(initial=0)), 1)), int)
    rows, columns = np.nonzero(gaps <= totals[:, None])
    np.add.at(out, (rows, part[rows, columns]), 1)
    return out


def interleave(kept: np.ndarray, removed: np.ndarray, length: int) -> np.ndarray:
    """True at the places of `removed`, where parts of the two follow each other in turn."""
    borders = np.cumsum(np.stack([kept, removed], axis=2).reshape(len(kept), -1), axis=1)
    changes = np.zeros((len(kept), length + 1), int)
    np.add.at(changes, (np.arange(len(kept))[:, None], borders), 1)
    return np.cumsum(changes, axis=1)[:, :length] % 2 == 1
