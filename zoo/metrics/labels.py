"""Metrics of several labels an example, each there where its logit is above 0.

Counts and curves are those of one class against the rest (zoo/metrics/classes.py, ranks.py), but
what is right of one label says nothing of the others: there is no highest logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.metrics.classes import Retrieval
from zoo.metrics.metric import Additive, Records, Weigh, divide
from zoo.metrics.ranks import (
    Auroc,
    AveragePrecision,
    OneVersusRest,
    Ranking,
    group_scores,
    mean_known,
)

SEVERAL = ("logits", "labels")


def split_labels(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Which labels were predicted and which are there, both `[n, c]`."""
    return np.asarray(records["logits"]) > 0, np.asarray(records["labels"]) > 0


@dataclass(frozen=True)
class AllRight(Additive):
    """The share of examples all of whose labels are right."""

    def statistics(self, records: Records) -> np.ndarray:
        chosen, there = split_labels(records)
        right = (chosen == there).all(axis=1)
        return np.stack([right, np.ones(len(right))], axis=1).astype(np.float64)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class RetrievalOfLabels(Retrieval):
    """Precision, recall or F1 of one label, of all counts together, or the mean over the labels.

    What is not defined is 0, also in the mean (as in scikit-learn). `which` is 'micro', 'macro' or
    a label's number.
    """

    def by_default(self, records: Records) -> bool:
        return self.which == "macro" or self.name == "f1_micro"

    def statistics(self, records: Records) -> Any:
        """`[n, 1 + 3 * c]`: one, and what is right, labelled and predicted."""
        chosen, there = split_labels(records)
        ones = np.ones((len(chosen), 1))
        return np.concatenate([ones, chosen & there, there, chosen], axis=1).astype(np.float64)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        value = self.combine(*np.split(sums[..., 1:], 3, axis=-1))
        return np.where(sums[..., 0] > 0, value, np.nan)

    def combine(self, right: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        value, _ = self.compare(right, labelled, predicted)
        if self.which in ("micro", "macro"):
            return value.mean(axis=-1)
        return value[..., self._choose(right.shape[-1])]

    def _choose(self, classes: int) -> int:
        if self.which == "":
            raise UserError(
                f"metric {self.name!r} is for two classes, the records have {classes} labels "
                f"(did you mean '{self.kind}_macro'?)"
            )
        return super()._choose(classes)


@dataclass(frozen=True)
class RankedLabels(OneVersusRest):
    """A metric of how the examples with a label rank among all by its logit, the mean over labels;
    one that all or none of the examples have is left out."""

    needs: tuple[str, ...] = SEVERAL

    def prepare(self, records: Records) -> Weigh:
        logits, there = np.asarray(records["logits"]), split_labels(records)[1]
        lost = np.isnan(logits).any(axis=1).astype(np.float64)
        chosen = self._choose(logits.shape[1])
        rankings = []
        for label in chosen:
            groups = group_scores(-logits[:, label].astype(np.float64))
            rankings.append(Ranking(groups, np.nonzero(there[groups.order, label])[0]))

        def weigh(weights: np.ndarray) -> np.ndarray:
            by_row = np.ascontiguousarray(weights.T)
            with_label = weights @ there[:, chosen]
            without = weights.sum(axis=1)[:, None] - with_label
            values = np.stack(
                [
                    self.rank(ranking, by_row, with_label[:, i], without[:, i])
                    for i, ranking in enumerate(rankings)
                ]
            )
            return np.where(lost @ by_row > 0, np.nan, mean_known(values))

        return weigh

    def _choose(self, classes: int) -> list[int]:
        return super()._choose(classes) if self.which else list(range(classes))


class AurocOfLabels(RankedLabels, Auroc):
    """The area under the ROC curve of each label; the mean as scikit-learn's 'macro'."""


class AveragePrecisionOfLabels(RankedLabels, AveragePrecision):
    """The mean precision at the examples with each label."""


def make_all_right() -> tuple[AllRight]:
    return (AllRight("accuracy", SEVERAL),)


def make_retrieval(kind: str, which: str | None = None) -> tuple[RetrievalOfLabels]:
    name = f"{kind}_{which}" if which else kind
    return (RetrievalOfLabels(name, SEVERAL, kind=kind, which=which or ""),)


def make_auroc(which: str = "") -> tuple[AurocOfLabels]:
    return (AurocOfLabels(f"auroc_{which}" if which else "auroc", which=which),)


def make_average_precision(which: str = "") -> tuple[AveragePrecisionOfLabels]:
    name = f"average_precision_{which}" if which else "average_precision"
    return (AveragePrecisionOfLabels(name, which=which),)
