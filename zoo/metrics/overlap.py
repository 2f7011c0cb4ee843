"""Metrics of generated texts: how many n-grams they share with references."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from zoo.metrics.answers import TEXTS, TextScore, read_texts
from zoo.metrics.metric import Additive, Records, divide

_ORDERS = 4
_CHAR_ORDERS = 6
_BETA = 2
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Bleu(Additive):
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002): the n-grams of one of sacrebleu's tokenizers.

    Its signature is `nrefs:var|case:mixed|eff:no|tok:TOKENIZE|smooth:exp`: an order without a match
    counts as 1 / 2, 1 / 4, ... of one. `13a` divides at spaces; Chinese has none and needs `zh`.
    """

    needs: tuple[str, ...] = TEXTS
    tokenize: str = "13a"

    def statistics(self, records: Records) -> np.ndarray:
        """Of each row 1, its length, that of the nearest reference, matches and all n-grams."""
        from sacrebleu.metrics import BLEU

        # With effective_order it counts alike and does not warn of single sentences.
        count = BLEU(tokenize=self.tokenize, effective_order=True)
        rows = []
        for text, references in read_texts(records):
            found = count.sentence_score(text, references)
            rows.append([1, found.sys_len, found.ref_len, *found.counts, *found.totals])
        return np.asarray(rows, np.float64).reshape(-1, 3 + 2 * _ORDERS)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        rows, length, reference = sums[..., 0], sums[..., 1], sums[..., 2]
        matches, totals = np.split(sums[..., 3:], 2, axis=-1)
        missing = (matches == 0).cumsum(axis=-1)
        smoothed = np.where(matches == 0, 0.5**missing, matches)
        with np.errstate(divide="ignore"):
            precision = np.log(divide(smoothed, totals, empty=0.0))
            penalty = np.minimum(1 - divide(reference, length, empty=np.inf), 0.0)
        value = 100 * np.exp(penalty + precision.mean(axis=-1))
        value = np.where(matches.any(axis=-1), value, 0.0)
        return np.where(rows > 0, value, np.nan)


@dataclass(frozen=True)
class Chrf(Additive):
    """Corpus chrF2, 0 to 100 (Popović 2015): F-score of character n-grams up to 6, recall doubled.

    Spaces do not count. Of several references that with the highest chrF2 of the row is taken.
    """

    needs: tuple[str, ...] = TEXTS

    def statistics(self, records: Records) -> np.ndarray:
        """Of each row 1, and the n-grams of the text, of the reference and of both."""
        rows = []
        for text, references in read_texts(records):
            states = np.array([count_characters(text, reference) for reference in references])
            rows.append(states[np.argmax(self.finish(states))])
        return np.asarray(rows, np.float64).reshape(-1, 1 + 3 * _CHAR_ORDERS)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        own, reference, both = np.split(sums[..., 1:], 3, axis=-1)
        known = (own > 0) & (reference > 0)
        orders = known.sum(axis=-1)
        precision, recall = (
            divide(np.where(known, divide(both, n, empty=0.0), 0.0).sum(axis=-1), orders, empty=0.0)
            for n in (own, reference)
        )
        value = divide((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall, 0.0)
        return np.where(sums[..., 0] > 0, 100 * value, np.nan)


def count_characters(text: str, reference: str) -> list[float]:
    """The state of chrF `[19]` of one pair; n-grams count where the reference has any as long."""
    text, reference = "".join(text.split()), "".join(reference.split())
    own, theirs, both = [], [], []
    for n in range(1, _CHAR_ORDERS + 1):
        a, b = count_ngrams(text, n), count_ngrams(reference, n)
        own.append(float(a.total() if b else 0))
        theirs.append(float(b.total()))
        both.append(float((a & b).total()))
    return [1.0, *own, *theirs, *both]


def count_ngrams(items: Sequence[str], n: int) -> Counter[Sequence[str]]:
    """How often each run of n items occurs; a string's items are its characters."""
    return Counter(items[i : i + n] for i in range(len(items) - n + 1))


def split_words(text: str) -> tuple[str, ...]:
    """ROUGE's words: runs of a-z and 0-9, not stemmed. A text in another script has none."""
    return tuple(_WORD.findall(text.lower()))


def score_ngrams(text: str, reference: str, n: int) -> float:
    """F-score of ROUGE-n (Lin 2004)."""
    a, b = count_ngrams(split_words(text), n), count_ngrams(split_words(reference), n)
    return 2 * (a & b).total() / max(a.total() + b.total(), 1)


def score_subsequence(text: str, reference: str) -> float:
    """F-score of ROUGE-L (Lin 2004): of the longest common subsequence of words."""
    a, b = split_words(text), split_words(reference)
    return 2 * measure_subsequence(a, b) / max(len(a) + len(b), 1)


def measure_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence: a row of the usual table is one whole number,
    whose bits are 0 where the row grows (Allison and Dix 1986, Hyyrö 2004).
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    all_places = (1 << len(a)) - 1
    row = all_places
    for word in b:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & all_places
    return len(a) - row.bit_count()


def make_bleu(tokenize: str = "") -> tuple[Bleu]:
    return (Bleu(f"bleu_{tokenize}", tokenize=tokenize) if tokenize else Bleu("bleu"),)


def make_chrf() -> tuple[Chrf]:
    return (Chrf("chrf"),)


def make_rouge(which: str) -> tuple[TextScore]:
    score = score_subsequence if which == "L" else partial(score_ngrams, n=int(which))
    return (TextScore(f"rouge{which}", score=score),)
