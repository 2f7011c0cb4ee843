"""Examples in which tokens, places or choices are to be told: tagged words, answers, choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zoo.data.sources import Examples
from zoo.data.token_file import TokenFile, spread
from zoo.data.token_sources import TokenExamples, TokenRows

BLOCK = 4096  # rows read at a time by what goes through a whole file


def read_lines(
    file: TokenFile, indices: np.ndarray, length: int, lines: int
) -> tuple[np.ndarray, np.ndarray]:
    """Documents that hold `lines` rows of numbers, one behind the other: the first `length` places
    of each, `[lines, n, length]` with 0 behind, and how many are there, `[n]`."""
    offsets = file.offsets
    starts = offsets[indices]
    whole = (offsets[indices + 1] - starts) // lines
    sizes = np.minimum(whole, length)
    owners, places = spread(sizes)
    out = np.zeros((lines, len(indices), length), np.int32)
    for number, line in enumerate(out):
        line[owners, places] = file.read(starts[owners] + number * whole[owners] + places)
    return out, sizes


def count_rows(file: TokenFile) -> int:
    """How many documents a file holds."""
    return len(file.offsets) - 1


def each_block(file: TokenFile) -> Iterator[np.ndarray]:
    """The numbers of all its rows, some at a time."""
    for start in range(0, count_rows(file), BLOCK):
        yield np.arange(start, min(start + BLOCK, count_rows(file)))


@dataclass(frozen=True)
class TokenTags(TokenExamples):
    """`tokens` `[n, t]`, `token_mask`, true where one is, and `token_label`: the class of a word at
    its first token, -1 at all others.

    A document of the file is its tokens, and then for each of them the number of the word, from 1,
    that begins there, or 0; `tags` are those of all words, a row's from its place in `firsts` on.
    """

    tokens: TokenFile
    tags: np.ndarray
    firsts: np.ndarray

    def __len__(self) -> int:
        return len(self.firsts)

    def _read(self, indices: np.ndarray, length: int) -> Examples:
        (tokens, words), sizes = read_lines(self.tokens, indices, length, 2)
        owners, places = np.nonzero(words)
        label = np.full(tokens.shape, -1, np.int32)
        label[owners, places] = self.tags[self.firsts[indices][owners] + words[owners, places] - 1]
        mask = np.arange(length) < sizes[:, None]
        return {"tokens": tokens, "token_mask": mask, "token_label": label}

    @property
    def identity(self) -> tuple[np.ndarray, ...]:
        """What tells these examples from others of the same texts."""
        return self.tags, self.firsts

    def count_words(self) -> int:
        """How many words have a token, and so a label."""
        length = int(np.diff(self.tokens.offsets).max(initial=0)) // 2
        found = (read_lines(self.tokens, rows, length, 2)[0][1] for rows in each_block(self.tokens))
        return sum(int((words > 0).sum()) for words in found)


@dataclass(frozen=True)
class TokenSpans(TokenExamples):
    """A question beside a window of its context: `tokens` `[n, t]`, `token_mask`, `types` (1 in the
    context, where the tokenizer tells the two apart), and the places `start` and `end` of the first
    and the last token of the answer, both 0 where the window does not hold all of it.

    A document of the file is the tokens of a window, and then, of those of the context, its first
    character and the one behind its last; elsewhere 0.
    """

    tokens: TokenFile
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def owners(self) -> np.ndarray:
        """The number of the question of each window, as the raw source counts them."""
        return self.tokens.owners

    def _read(self, indices: np.ndarray, length: int) -> Examples:
        (tokens, *_), sizes = read_lines(self.tokens, indices, length, 3)
        places = np.arange(length)
        mask = places < sizes[:, None]
        second = places >= self.tokens.marks[indices][:, None]
        return {
            "tokens": tokens,
            "token_mask": mask,
            "types": (second & mask).astype(np.int32),
            "start": self.start[indices],
            "end": self.end[indices],
        }

    @property
    def identity(self) -> tuple[np.ndarray, ...]:
        """What tells these examples from others of the same texts."""
        return self.start, self.end

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Of each token of some windows, its characters in the context, `[n, length, 2]`; 0 and 0
        of what is no token of it."""
        return np.moveaxis(read_lines(self.tokens, indices, self.length, 3)[0][1:], 0, 2)


def find_places(
    tokens: TokenFile, length: int, answers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`start` and `end` of each window; `answers` `[questions, 2]` are the characters of the
    answer in the context, from the first to behind the last, -1 of none."""
    starts, ends = [], []
    for rows in each_block(tokens):
        first, last = read_lines(tokens, rows, length, 3)[0][1:]
        begin, stop = answers[tokens.owners[rows]].T[:, :, None]
        there = last > 0
        inside = there & (last > begin) & (first < stop) & (begin >= 0)
        # All of it: a window that is cut inside the answer shows some of its tokens too.
        held = (np.where(there, first, stop).min(1) <= begin[:, 0]) & (last.max(1) >= stop[:, 0])
        held &= inside.any(axis=1)
        starts.append(np.where(held, inside.argmax(axis=1), 0))
        ends.append(np.where(held, length - 1 - inside[:, ::-1].argmax(axis=1), 0))
    return np.concatenate(starts).astype(np.int32), np.concatenate(ends).astype(np.int32)


@dataclass(frozen=True)
class TokenChoices(TokenExamples):
    """A question beside each of its `num_choices` answers: `tokens` `[n, c, t]`, `token_mask` and
    `types`, 1 in the choice. `rows` are those of all pairs, question by question."""

    rows: TokenRows
    num_choices: int

    def __len__(self) -> int:
        return len(self.rows) // self.num_choices

    def _read(self, indices: np.ndarray, length: int) -> Examples:
        every = indices[:, None] * self.num_choices + np.arange(self.num_choices)
        found = self.rows.take(every.reshape(-1), length)
        return {k: v.reshape(*every.shape, length) for k, v in found.items()}
