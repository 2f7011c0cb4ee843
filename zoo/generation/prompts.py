"""Prompts as the compiled programs take them: rows of a bucket's length, padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int

from zoo.config import UserError
from zoo.data.text import find_begin
from zoo.models import max_tokens
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer

DEFAULT_NEW = 64  # new tokens where nobody says how many
SMALLEST = 16  # tokens of the smallest bucket


class Prompts(NamedTuple):
    """Rows of tokens: a decoder's padded on the left, an encoder-decoder's sources on the right."""

    tokens: Int[Array, "b t"]
    mask: Bool[Array, "b t"]
    real: Bool[Array, " b"]  # rows that fill the batch up are not
    begin: Any  # the token that targets begin with; None of a decoder


def bucket_of(length: int) -> int:
    """The next power of two, at least `SMALLEST`: a program is compiled for each."""
    return max(SMALLEST, 1 << (length - 1).bit_length())


def crosses_over(model: Any) -> bool:
    """Is it an encoder-decoder?"""
    return isinstance(model, Seq2Seq | Transformer)


def encode_prompts(prompts: Sequence[Any], model: Any, tokenizer: Any) -> list[np.ndarray]:
    """The tokens of each prompt, a text or tokens already, as the model was trained to read it.

    A decoder's begins with the tokenizer's token for a beginning and does not end; a source is in
    the tokenizer's template, or has the end token behind it. Raises UserError on a text without a
    tokenizer, a prompt of no tokens, and tokens that the model does not have.
    """
    rows: list[np.ndarray] = []
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            row = _encode_text(prompt, crosses_over(model), tokenizer)
        else:
            row = np.asarray(prompt)
            if row.ndim == 0 and row.dtype.kind in "iu":
                raise UserError("a row of token ids stands in a list of rows: [[3, 5, 7]]")
            if row.ndim != 1 or (len(row) and row.dtype.kind not in "iu"):
                raise UserError(f"prompt {i} is neither a text nor a row of token ids")
        if not len(row):
            raise UserError(f"prompt {i} is empty, and the tokenizer has no token to begin with")
        strange = row[(row < 0) | (row >= model.vocab_size)]
        if len(strange):
            raise UserError(
                f"prompt {i} has token {strange[0]}, the model has {model.vocab_size:,} tokens: "
                "is the tokenizer another model's?"
            )
        rows.append(row.astype(np.int32))
    return rows


def _encode_text(text: str, crosses: bool, tokenizer: Any) -> np.ndarray:
    if tokenizer is None:
        raise UserError("the source has no tokenizer: give prompts as rows of token ids")
    if crosses and tokenizer.has_template:
        return tokenizer.encode_rows([text], 1 << 30)[0][0]
    row = tokenizer.encode(text)
    if crosses:
        return row if tokenizer.end is None else np.append(row, tokenizer.end)
    row = np.concatenate([find_begin(tokenizer), row])
    if not len(row) and tokenizer.end is not None:  # a text follows what ended the one before
        row = np.array([tokenizer.end])
    return row


def choose_lengths(model: Any, rows: Sequence[np.ndarray], max_new: int) -> tuple[int, int]:
    """(the padded length of prompts, the room for new tokens) of the bucket they fall in; prompts
    and new tokens fit the model (`fit_new_tokens`)."""
    longest = max(len(row) for row in rows)
    limit = max_tokens(model)
    if limit is None:
        return bucket_of(longest), bucket_of(max_new)
    if crosses_over(model):
        return min(bucket_of(longest), limit), min(bucket_of(max_new), limit - 1)
    room = min(bucket_of(max_new), limit - longest)
    return min(bucket_of(longest), limit - room), room


def fit_new_tokens(
    model: Any, rows: Sequence[np.ndarray], asked: int | None, slack: int = 0
) -> int:
    """How many new tokens there may be: as many as asked for, or 64 and no more than fit, with
    `slack` places behind them for what a draft guesses too much.

    Raises UserError where prompts and new tokens pass the model's positions.
    """
    longest = max((len(row) for row in rows), default=0)
    limit = max_tokens(model)
    if limit is None:
        return asked or DEFAULT_NEW
    wanted = f"max_new_tokens={asked}" + f" and draft_tokens={slack}" * (slack > 0)
    if crosses_over(model):
        if longest > limit:
            raise UserError(f"a source has {longest:,} tokens, the model {limit:,} positions")
        if 1 + (asked or 1) + slack > limit:
            raise UserError(f"{wanted}: the model has {limit:,} positions, one is the beginning")
        return asked or min(DEFAULT_NEW, limit - 1 - slack)
    if longest + slack >= limit:
        guesses = f" with draft_tokens={slack}" * (slack > 0)
        raise UserError(
            f"a prompt has {longest:,} tokens and the model {limit:,} positions: no place is left "
            f"for a new one{guesses}"
        )
    if asked and longest + asked + slack > limit:
        raise UserError(
            f"a prompt of {longest:,} tokens and {wanted} pass the model's "
            f"{limit:,} positions: at most {limit - longest} are left"
        )
    return asked or min(DEFAULT_NEW, limit - longest - slack)


def pad_prompts(rows: Sequence[np.ndarray], length: int, batch: int, begin: int | None) -> Prompts:
    """Rows in a batch of `batch` rows, the last of them repeated where there are fewer."""
    tokens = np.zeros((batch, length), np.int32)
    mask = np.zeros((batch, length), bool)
    for i in range(batch):
        row = rows[min(i, len(rows) - 1)]
        place = slice(length - len(row), None) if begin is None else slice(len(row))
        tokens[i, place] = row
        mask[i, place] = True
    return Prompts(tokens, mask, np.arange(batch) < len(rows), begin)
