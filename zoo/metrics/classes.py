"""Metrics of classes chosen by the highest logit (the first of equal ones)."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.metrics.metric import Additive, Records, divide

ROWS = ("logits", "label")
TOKENS = ("token_logits", "token_label")
_BINS = 15


def read_classes(
    records: Records, needs: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row `[m]`, logits `[m, c]`, label `[m]`) of what counts: labels of -1 do not."""
    logits, label = np.asarray(records[needs[0]]), np.asarray(records[needs[1]])
    counted = np.nonzero(label >= 0)
    return counted[0], logits[counted], label[counted]


def sum_by_row(rows: np.ndarray, columns: np.ndarray, values: Any, shape: tuple[int, int]) -> Any:
    """`[n, k]` sparse: `values` `[m]` added up where they belong."""
    from scipy.sparse import coo_array

    values = np.broadcast_to(np.asarray(values, np.float64), rows.shape)
    return coo_array((values, (rows, columns)), shape=shape).tocsr()


@dataclass(frozen=True)
class TopK(Additive):
    """The share whose label is among the k highest logits; of equal logits the first is higher."""

    k: int = 1

    def by_default(self, records: Records) -> bool:
        return self.k < np.shape(records[self.needs[0]])[-1]

    def statistics(self, records: Records) -> np.ndarray:
        rows, logits, label = read_classes(records, self.needs)
        own = np.take_along_axis(logits, label[:, None], axis=1)
        earlier = np.arange(logits.shape[1]) < label[:, None]
        ahead = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
        num_rows = len(records[self.needs[1]])
        right = np.bincount(rows, (ahead < self.k) & ~np.isnan(own[:, 0]), num_rows)
        return np.stack([right, np.bincount(rows, minlength=num_rows)], axis=1).astype(np.float64)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class ClassCounts(Additive):
    """A metric of three counts a class: right, labelled and predicted."""

    def statistics(self, records: Records) -> Any:
        """`[n, 3 * c]` sparse."""
        rows, logits, label = read_classes(records, self.needs)
        classes = np.shape(records[self.needs[0]])[-1]
        chosen = logits.argmax(axis=1)
        right = chosen == label
        rows = np.concatenate([rows[right], rows, rows])
        columns = np.concatenate([label[right], classes + label, 2 * classes + chosen])
        return sum_by_row(rows, columns, 1.0, (len(records[self.needs[1]]), 3 * classes))

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return self.combine(*np.split(sums, 3, axis=-1))

    @abc.abstractmethod
    def combine(self, right: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Values `[...]` of counts `[..., c]`."""


@dataclass(frozen=True)
class Retrieval(ClassCounts):
    """Precision, recall or F1: of one class, of all counts together, or the mean over classes.

    A class that was never predicted has precision 0, one that was never a label recall 0, and one
    that was neither is left out of the mean (all as in scikit-learn). `which` is 'micro', 'macro',
    a class's number, or '' for class 1 of two.
    """

    kind: str = "f1"
    which: str = "macro"

    def by_default(self, records: Records) -> bool:
        two = np.shape(records[self.needs[0]])[-1] == 2
        return self.which == "macro" or (self.which == "" and two)

    def combine(self, right: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        value, seen = self.compare(right, labelled, predicted)
        if self.which in ("macro", "micro"):
            return divide(np.where(seen, value, 0.0).sum(axis=-1), seen.sum(axis=-1))
        chosen = self._choose(right.shape[-1])
        rows = labelled.sum(axis=-1)
        return np.where(rows > 0, value[..., chosen], np.nan)

    def compare(self, *counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values `[..., c]` of each class ('micro': of all together), and whether it was seen."""
        if self.which == "micro":
            counts = tuple(x.sum(axis=-1, keepdims=True) for x in counts)
        right, labelled, predicted = counts
        below = {"precision": predicted, "recall": labelled, "f1": (predicted + labelled) / 2}
        return divide(right, below[self.kind], empty=0.0), predicted + labelled > 0

    def _choose(self, classes: int) -> int:
        if self.which == "" and classes != 2:
            raise UserError(
                f"metric {self.name!r} is for two classes, the records have {classes} "
                f"(did you mean '{self.kind}_macro'?)"
            )
        chosen = int(self.which or 1)
        if chosen >= classes:
            raise UserError(f"metric {self.name!r}: the classes are 0 to {classes - 1}")
        return chosen


@dataclass(frozen=True)
class Matthews(ClassCounts):
    """Matthews' correlation, of many classes Gorodkin's R_K (2004); 0 where either side is
    constant, as in scikit-learn.
    """

    def combine(self, right: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        total = labelled.sum(axis=-1)
        both = right.sum(axis=-1) * total - (labelled * predicted).sum(axis=-1)
        spread = (total**2 - (labelled**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
        value = divide(both, np.sqrt(np.maximum(spread, 0.0)), empty=0.0)
        return np.where(total > 0, value, np.nan)


@dataclass(frozen=True)
class CalibrationError(Additive):
    """Expected calibration error with 15 bins of equal width (Guo et al. 2017).

    The mean over rows of |accuracy - confidence| of the row's bin; the confidence is the highest
    softmax probability, and a bin holds its upper edge.
    """

    higher_is_better: bool = False

    def statistics(self, records: Records) -> Any:
        rows, logits, label = read_classes(records, self.needs)
        logits = logits.astype(np.float64)
        highest = logits.max(axis=1, keepdims=True)
        confidence = 1 / np.exp(logits - highest).sum(axis=1)
        right = logits.argmax(axis=1) == label
        bins = np.clip(np.ceil(confidence * _BINS) - 1, 0, _BINS - 1).astype(int)
        gaps = sum_by_row(rows, bins, right - confidence, (len(records[self.needs[1]]), _BINS + 1))
        count = sum_by_row(rows, np.full(len(rows), _BINS), 1.0, gaps.shape)
        return gaps + count

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(np.abs(sums[..., :_BINS]).sum(axis=-1), sums[..., _BINS])


def count_confusion(records: Records, weights: np.ndarray | None = None) -> np.ndarray:
    """The confusion matrix `[c, c]`: a row a label, a column a prediction; weights `[n]`, or 1.

    Of token labels each one that counts is one. Raises UserError when there are no classes.
    """
    needs = next((form for form in (ROWS, TOKENS) if set(form) <= set(records)), None)
    if needs is None:
        raise UserError(f"a confusion matrix needs classes; the records have {', '.join(records)}")
    rows, logits, label = read_classes(records, needs)
    classes = np.shape(records[needs[0]])[-1]
    cells = label * classes + logits.argmax(axis=1)
    counts = np.bincount(cells, None if weights is None else weights[rows], classes**2)
    return counts.astype(np.float64).reshape(classes, classes)


def tabulate_classes(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and number of labels of each class, `[c]`, of a confusion matrix.

    As scikit-learn's report: 0 where a precision or recall is not defined.
    """
    right, labelled, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "precision": divide(right, predicted, empty=0.0),
        "recall": divide(right, labelled, empty=0.0),
        "f1": divide(2 * right, labelled + predicted, empty=0.0),
        "labels": labelled,
    }


def make_top(k: str) -> tuple[TopK]:
    if int(k) < 1:
        raise UserError(f"metric 'top{k}': the number must be at least 1")
    return (TopK(f"top{int(k)}", ROWS, k=int(k)),)


def make_accuracy() -> tuple[TopK, ...]:
    return tuple(TopK("accuracy", needs) for needs in (ROWS, TOKENS))


def make_retrieval(kind: str, which: str | None = None) -> tuple[Retrieval, ...]:
    name = f"{kind}_{which}" if which else kind
    return tuple(Retrieval(name, needs, kind=kind, which=which or "") for needs in (ROWS, TOKENS))


def make_matthews() -> tuple[Matthews, ...]:
    return tuple(Matthews("matthews", needs) for needs in (ROWS, TOKENS))


def make_calibration_error() -> tuple[CalibrationError, ...]:
    return tuple(CalibrationError("calibration_error", needs) for needs in (ROWS, TOKENS))
