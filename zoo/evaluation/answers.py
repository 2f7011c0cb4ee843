"""Answers to questions: of all windows of a context the best span, as a text.

As in the evaluation of SQuAD (Rajpurkar et al. 2016, 2018): an answer is the span of the largest
sum of two logits, of at most 30 tokens, all of the context; windows are compared by that sum. Where
some questions of a split have no answer, '' is the answer to one whose place 0 has, in the window
where it has least, a larger sum than its best span.
"""

from __future__ import annotations

import numpy as np

from zoo.data.annotated import answer_pairs
from zoo.data.token_annotations import TokenSpans
from zoo.evaluation.examples import Examples
from zoo.evaluation.measure import Outputs
from zoo.evaluation.rows import find_rows

MOST = 30  # tokens of an answer
BLOCK = 1024  # windows looked at together
METRICS = ("exact_match", "token_f1")


def answer_questions(examples: Examples, outputs: Outputs) -> Outputs | None:
    """A row a question: `text`, `references` (all answers, none where there is no answer) and
    `length`, the tokens of its longest window; None where the examples are no windows."""
    windows = find_rows(examples.source)
    if not isinstance(windows, TokenSpans) or "start_logits" not in outputs.records:
        return None
    owners = windows.owners[outputs.rows]
    questions, group = np.unique(owners, return_inverse=True)
    raw = examples.raw.take(questions)
    told = [[text for text, _ in answer_pairs(answers)] for answers in raw["answers"]]
    references = [tuple(dict.fromkeys(t for t in texts if t.strip())) for texts in told]
    score, null, spans = score_windows(windows, outputs)
    best = np.lexsort((-score, group))[np.searchsorted(np.sort(group), np.arange(len(questions)))]
    least = np.full(len(questions), np.inf)
    np.minimum.at(least, group, null)
    silent = np.isneginf(score[best])
    if not all(references):
        silent |= least > score[best]
    texts = [
        "" if nothing else context[begin:end]
        for nothing, context, (begin, end) in zip(silent, raw["context"], spans[best], strict=True)
    ]
    length = np.zeros(len(questions), int)
    np.maximum.at(length, group, outputs.records["length"])
    records = {
        "text": np.fromiter(texts, object, len(texts)),
        "references": np.fromiter(references, object, len(texts)),
        "length": length,
    }
    return Outputs(records, questions, {}, len(questions))


def score_windows(
    windows: TokenSpans, outputs: Outputs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each window the score of its best span `[n]`, that of no answer `[n]`, and the characters
    of the span in the context, `[n, 2]`."""
    scores, nulls, spans = [], [], []
    for begin in range(0, len(outputs.rows), BLOCK):
        part = slice(begin, begin + BLOCK)
        places = windows.places(outputs.rows[part])
        width = min(places.shape[1], outputs.records["start_logits"].shape[1])
        places = places[:, :width]
        start, end = (
            np.asarray(outputs.records[name][part, :width], np.float64)
            for name in ("start_logits", "end_logits")
        )
        score, first, last = find_best(start, end, places[..., 1] > 0)
        every = np.arange(len(score))
        scores.append(score)
        nulls.append(start[:, 0] + end[:, 0])
        spans.append(np.stack([places[every, first, 0], places[every, last, 1]], axis=1))
    return np.concatenate(scores), np.concatenate(nulls), np.concatenate(spans)


def find_best(
    start: np.ndarray, end: np.ndarray, there: np.ndarray, most: int = MOST
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, first, last) `[n]` of the span with the largest sum of logits `[n, t]`, both of its
    ends `there` `[n, t]`, of at most `most` tokens; of equal ones the shortest. -inf of none."""
    start, end = np.where(there, start, -np.inf), np.where(there, end, -np.inf)
    count, width = start.shape
    every = np.arange(count)
    score, first, last = np.full(count, -np.inf), np.zeros(count, int), np.zeros(count, int)
    for more in range(min(most, width)):
        sums = start[:, : width - more] + end[:, more:]
        place = sums.argmax(axis=1)
        better = sums[every, place] > score
        score = np.where(better, sums[every, place], score)
        first = np.where(better, place, first)
        last = np.where(better, place + more, last)
    return score, first, last


def tell_questions(questions: Outputs, num_windows: int) -> str:
    """A line on what a row is."""
    some = not all(questions.records["references"])
    without = "; '' is right where there is no answer" if some else ""
    return (
        f"{questions.num_examples:,} questions in {num_windows:,} windows: {' and '.join(METRICS)} "
        f"are of questions{without}"
    )
