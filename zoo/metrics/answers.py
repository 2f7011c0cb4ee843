"""Metrics of answers: a predicted text or span against what is right."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.metrics.metric import Additive, Records, divide

TEXTS = ("text", "references")
SPANS = ("start_logits", "end_logits", "start", "end")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower case without punctuation, articles and superfluous spaces (Rajpurkar et al. 2016)."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def match_exactly(text: str, reference: str) -> float:
    """1 where the normalised texts are the same."""
    return float(normalise_answer(text) == normalise_answer(reference))


def score_tokens(text: str, reference: str) -> float:
    """F1 of the words of the normalised texts; 1 where both are empty, 0 where one is (SQuAD 2)."""
    a, b = normalise_answer(text).split(), normalise_answer(reference).split()
    if not a or not b:
        return float(a == b)
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b))


@dataclass(frozen=True)
class TextScore(Additive):
    """The mean over rows of the best score of `text` against one of its `references`."""

    needs: tuple[str, ...] = TEXTS
    score: Callable[[str, str], float] = match_exactly

    def statistics(self, records: Records) -> np.ndarray:
        best = [
            max(self.score(text, reference) for reference in references)
            for text, references in read_texts(records)
        ]
        return np.stack([np.asarray(best, np.float64), np.ones(len(best))], axis=1)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1])


def read_texts(records: Records) -> Iterator[tuple[str, Sequence[str]]]:
    """(text, references) of each row; without any reference the right text is the empty one."""
    for text, references in zip(records["text"], records["references"], strict=True):
        several = [references] if isinstance(references, str) else list(references)
        yield str(text), several or [""]


@dataclass(frozen=True)
class SpanAccuracy(Additive):
    """The share of rows whose best span has the right `places`, 'start', 'end' or both.

    The best span has the highest sum of two logits of all that do not end before they start.
    """

    needs: tuple[str, ...] = SPANS
    places: tuple[str, ...] = ("start", "end")

    def statistics(self, records: Records) -> np.ndarray:
        logits = (np.asarray(records[field]) for field in SPANS[:2])
        chosen = dict(zip(("start", "end"), choose_spans(*logits), strict=True))
        right = np.all([chosen[place] == records[place] for place in self.places], axis=0)
        return np.stack([right, np.ones(len(right))], axis=1).astype(np.float64)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1])


def choose_spans(start_logits: np.ndarray, end_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start `[n]`, end `[n]`) of the highest sum of logits `[n, t]` with start <= end."""
    best = np.maximum.accumulate(start_logits, axis=1)
    end = (best + end_logits).argmax(axis=1)
    reach = np.arange(start_logits.shape[1]) <= end[:, None]
    return np.where(reach, start_logits, -np.inf).argmax(axis=1), end


def make_exact_match() -> tuple[TextScore]:
    return (TextScore("exact_match", score=match_exactly),)


def make_token_f1() -> tuple[TextScore]:
    return (TextScore("token_f1", score=score_tokens),)


def make_span_accuracy(place: str = "") -> tuple[SpanAccuracy]:
    if not place:
        return (SpanAccuracy("accuracy"),)
    return (SpanAccuracy(f"{place}_accuracy", places=(place,)),)
