"""From words, contexts and choices to tokens, each with what is to be told of it.

- `words` and `tags`, lists of one length: a word's tag counts at its first token (as in
  transformers' example of token classification). The words are one text, blanks between them.
- `question`, `context` and `answers`: windows of the context, each beside the question, so that no
  answer is lost to `data.length` (Devlin et al. 2019, section 4.2 and 4.3: where a window does not
  hold the answer it is at place 0). A window begins `data.stride` tokens behind the one before, by
  default half of what fits.
- `question`, `choices` and `label`: the question beside each choice (Zellers et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zoo.config import DataError, UserError
from zoo.data.sources import Source, name_example
from zoo.data.token_annotations import TokenChoices, TokenSpans, TokenTags, find_places
from zoo.data.token_file import Encoded, TokenFile
from zoo.data.token_sources import TokenRows
from zoo.data.tokenizers import PlacedTokens, Tokenizer

KINDS = (("words",), ("question", "context"), ("question", "choices"))
BESIDE = ("tags", "answers")  # what belongs to these texts and is no field of a batch by itself


def read_column(source: Source, field: str) -> Iterator[tuple[int, Any]]:
    """(index, value) of a field of every example."""
    for start in range(0, len(source), 4096):
        indices = np.arange(start, min(start + 4096, len(source)))
        yield from zip(indices.tolist(), source.take(indices)[field], strict=True)


def encode_words(tokenizer: Tokenizer, length: int) -> Callable[[list[Any]], Encoded]:
    """Lists of words as the documents of `TokenTags`."""

    def encode(chunk: list[Any]) -> Encoded:
        rows = []
        for words, row in zip(
            chunk, tokenizer.encode_placed([" ".join(words) for words in chunk]), strict=True
        ):
            around = int((row.owners < 0).sum())
            row = row.cut(0, max(length - around, 0))
            rows.append(np.concatenate([row.ids[:length], number_words(words, row)[:length]]))
        return Encoded(rows, [len(row) // 2 for row in rows])

    return encode


def number_words(words: Sequence[str], row: PlacedTokens) -> np.ndarray:
    """For each token the number of the word, from 1, whose first token it is; 0 of others. A token
    of several words is of the first."""
    sizes = np.array([len(word) for word in words], np.int64)
    begins = np.cumsum(sizes + 1) - sizes - 1
    mine = np.flatnonzero(row.owners == 0)
    # The first token that ends behind the word's first character; it begins before its last.
    found = np.searchsorted(row.places[mine, 1], begins, side="right")
    there = (found < len(mine)) & (sizes > 0)
    there[there] = row.places[mine[found[there]], 0] < (begins + sizes)[there]
    out = np.zeros(len(row), np.int32)
    numbers = np.flatnonzero(there)[::-1]  # of several words at one token the first is written last
    out[mine[found[numbers]]] = numbers + 1
    return out


def make_tags(
    source: Source, tokens: TokenFile, length: int, split: str, num_classes: int
) -> tuple[Any, str]:
    """The examples, and a line on words that were cut off ('': none).

    Raises UserError, with the example, where there are not as many tags as words, and on a tag that
    is no class.
    """
    words = read_column(source, "words")
    tags: list[np.ndarray] = []
    for (index, texts), (_, classes) in zip(words, read_column(source, "tags"), strict=True):
        if len(texts) != len(classes):
            raise DataError(
                f"{name_example(source, index)}: {len(texts)} words and {len(classes)} tags"
            )
        tags.append(np.asarray(classes, np.int32))
        strange = tags[-1][(tags[-1] < 0) | (tags[-1] >= num_classes)]
        if len(strange):
            raise DataError(
                f"{name_example(source, index)}: tag {strange[0]} is no class (0 to "
                f"{num_classes - 1})"
            )
    sizes = np.array([len(row) for row in tags])
    made = TokenTags(length, {}, None, tokens, np.concatenate(tags), np.cumsum(sizes) - sizes)
    lost = int(sizes.sum()) - made.count_words()
    line = f"split {split!r}: {lost:,} of {sizes.sum():,} words have no token in data.length="
    return made, f"{line}{length}: their tags do not count" if lost else ""


def encode_contexts(
    tokenizer: Tokenizer, length: int, stride: int | None
) -> Callable[[list[Any]], Encoded]:
    """Questions and contexts as the documents of `TokenSpans`. A question takes at most half of
    the places."""

    def encode(chunk: list[Any]) -> Encoded:
        rows: list[np.ndarray] = []
        marks, owners = [], []
        for owner, row in enumerate(tokenizer.encode_placed(chunk)):
            around = int((row.owners < 0).sum())
            row = row.cut(0, max((length - around) // 2, 0))
            room = max(length - int((row.owners != 1).sum()), 1)
            for window in row.windows(1, room, min(stride or max(room // 2, 1), room)):
                places = np.where(window.owners[:, None] == 1, window.places, 0)[:length]
                rows.append(np.concatenate([window.ids[:length], *places.T]))
                marks.append(window.mark)
                owners.append(owner)
        return Encoded(rows, marks, owners)

    return encode


def find_answers(source: Source) -> np.ndarray:
    """The characters of each first answer in its context, `[n, 2]`, without blanks around; -1 of a
    question without one.

    Raises UserError, with the example, on an answer that does not stand where it says.
    """
    out = np.full((len(source), 2), -1, np.int64)
    contexts = read_column(source, "context")
    for (index, context), (_, answers) in zip(
        contexts, read_column(source, "answers"), strict=True
    ):
        for text, start in answer_pairs(answers):
            found = context[start : start + len(text)] if start >= 0 else ""
            if found != text:
                at = context.find(text)
                guess = f" (it stands at {at})" if at >= 0 else ", and it stands nowhere in it"
                raise DataError(
                    f"{name_example(source, index)}: the answer {text[:40]!r} is not at "
                    f"{start} of the context, there is {found[:40]!r}{guess}"
                )
            if out[index, 0] < 0 and text.strip():
                begin = start + len(text) - len(text.lstrip())
                out[index] = begin, begin + len(text.strip())
    return out


def answer_pairs(answers: Any) -> list[tuple[str, int]]:
    """(text, place) of every answer that SQuAD's form of them tells."""
    texts = [t.decode() if isinstance(t, bytes) else str(t) for t in answers["text"]]
    return list(zip(texts, map(int, answers["answer_start"]), strict=True))


def make_spans(source: Source, tokens: TokenFile, length: int, split: str) -> tuple[Any, str]:
    """The windows, and a line on them where contexts are longer than one.

    Raises UserError as `find_answers` does, and where every answer of the split is lost.
    """
    answers = find_answers(source)
    start, end = find_places(tokens, length, answers)
    made = TokenSpans(length, {}, None, tokens, start, end)
    told = int((answers[:, 0] >= 0).sum())
    lost = told - len(np.unique(tokens.owners[end > 0]))
    if lost and lost == told:
        raise UserError(
            f"split {split!r}: no window of data.length={length} holds one of its {told:,} answers "
            "whole: set data.length higher"
        )
    line = ""
    if len(made) > len(source) or lost:
        line = f"split {split!r}: {len(source):,} contexts in {len(made):,} windows"
        line += f"; {lost:,} answers are in no window whole and count as none" if lost else ""
    return made, line


def make_choices(
    source: Source, encode: Callable[[], TokenFile], length: int, label: np.ndarray
) -> TokenChoices:
    """The examples, their tokens made by `encode` of all pairs.

    Raises UserError, with the example, where one has another number of choices than the first, or a
    label that is none of them.
    """
    count = None
    for index, choices in read_column(source, "choices"):
        count = len(choices) if count is None else count
        name = name_example(source, index)
        if len(choices) != count or count < 2:
            other = f", others {count}" if count >= 2 else ": two are the fewest"
            raise DataError(f"{name} has {len(choices)} choices{other}")
        if not 0 <= label[index] < count:
            raise DataError(f"{name}: label {label[index]} is no choice (0 to {count - 1})")
    rows = TokenRows(length, {}, None, encode(), True)
    return TokenChoices(length, {}, None, rows, count or 0)


def encode_choices(tokenizer: Tokenizer, length: int) -> Callable[[list[Any]], Encoded]:
    """Questions with their choices as rows of pairs, question by question."""

    def encode(chunk: list[Any]) -> Encoded:
        pairs = [(question, choice) for question, choices in chunk for choice in choices]
        return Encoded(*tokenizer.encode_rows(pairs, length))

    return encode
