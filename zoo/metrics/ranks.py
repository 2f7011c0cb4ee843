"""Metrics of ranks: sorted once, then weighed.

Equal scores are one group, so the order of rows among them is nothing. These are no sums over
rows: which pairs of rows count depends on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.config import UserError
from zoo.metrics.classes import ROWS, read_classes
from zoo.metrics.metric import Metric, Records, Weigh, divide
from zoo.metrics.numbers import read_targets

_MANY_CLASSES = 20  # each is a pass of its own over all rows in each resampling


@dataclass(frozen=True)
class Groups:
    """Rows `[m]` in ascending order of a score, and where each group of equal ones begins."""

    order: np.ndarray
    starts: np.ndarray

    def add_up(self, weights: np.ndarray) -> np.ndarray:
        """Sums `[r, g]` of weights `[r, m]` in each group."""
        weights = weights[:, self.order]
        if len(self.starts) == len(self.order):
            return weights
        return np.add.reduceat(weights, self.starts, axis=1)

    def spread_out(self, values: np.ndarray) -> np.ndarray:
        """Values `[r, m]` of rows from those of their groups `[r, g]`."""
        sizes = np.diff(np.append(self.starts, len(self.order)))
        out = np.empty((len(values), len(self.order)))
        out[:, self.order] = np.repeat(values, sizes, axis=1)
        return out


def group_scores(scores: np.ndarray) -> Groups:
    """The groups of scores `[m]`."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    new = np.ones(len(scores), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return Groups(order, np.nonzero(new)[0])


@dataclass(frozen=True)
class OneVersusRest(Metric):
    """A metric of how the examples of a class rank among all, by the class's probability.

    Of two classes it is that of class 1; of more the mean over the classes, each against the rest.
    A class none or all of whose examples count has no value and is left out of the mean
    (scikit-learn refuses such data, or counts 0 in average precision). `which` asks for one class.
    """

    needs: tuple[str, ...] = ROWS
    which: str = ""

    def by_default(self, records: Records) -> bool:
        return np.shape(records["logits"])[-1] <= _MANY_CLASSES

    def prepare(self, records: Records) -> Weigh:
        rows, logits, label = read_classes(records, self.needs)
        lost = np.isnan(logits).any(axis=1)
        parts = [
            (group_scores(get_log_odds(logits, chosen)), label == chosen)
            for chosen in self._choose(np.shape(records["logits"])[-1])
        ]

        def weigh(weights: np.ndarray) -> np.ndarray:
            weights = weights[:, rows]
            values = np.empty((len(parts), len(weights)))
            for value, (groups, positive) in zip(values, parts, strict=True):
                of_class = groups.add_up(weights * positive)
                value[:] = self.rank(of_class, groups.add_up(weights) - of_class)
            known = ~np.isnan(values)
            mean = divide(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))
            return np.where(weights @ lost > 0, np.nan, mean)

        return weigh

    def _choose(self, classes: int) -> list[int]:
        if self.which:
            if int(self.which) >= classes:
                raise UserError(f"metric {self.name!r}: the classes are 0 to {classes - 1}")
            return [int(self.which)]
        return [1] if classes == 2 else list(range(classes))

    def rank(self, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        """Values `[r]` of the weights `[r, g]` of each group, of ascending scores."""
        raise NotImplementedError


class Auroc(OneVersusRest):
    """The area under the ROC curve: how often an example of the class ranks above another.

    Equal scores count one half. Macro mean as scikit-learn's `multi_class='ovr'`.
    """

    def rank(self, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        below = negative.cumsum(axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        return divide((positive * below).sum(axis=1), pairs)


class AveragePrecision(OneVersusRest):
    """The mean precision at the examples of the class, from the highest score down; no
    interpolation (as in scikit-learn).
    """

    def rank(self, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        right = positive[:, ::-1].cumsum(axis=1)
        taken = right + negative[:, ::-1].cumsum(axis=1)
        precision = divide(right, taken, empty=0.0)
        value = divide((positive[:, ::-1] * precision).sum(axis=1), positive.sum(axis=1))
        return np.where(negative.sum(axis=1) > 0, value, np.nan)


def get_log_odds(logits: np.ndarray, chosen: int) -> np.ndarray:
    """Log-odds `[m]` of one class, which rank as its probability does and never round to 1."""
    logits = logits.astype(np.float64)
    others = np.delete(logits, chosen, axis=1)
    highest = others.max(axis=1, initial=-np.inf)
    with np.errstate(invalid="ignore"):  # nothing beside the class: it is sure
        summed = np.exp(others - highest[:, None]).sum(axis=1)
        odds = (logits[:, chosen] - highest) - np.log(summed)
    return np.where(np.isneginf(highest), np.inf, odds)


@dataclass(frozen=True)
class Spearman(Metric):
    """The correlation of ranks, mean over the targets; equal numbers share their mean rank.

    NaN where predictions or targets are constant (as in scipy).
    """

    needs: tuple[str, ...] = ("prediction", "target")

    def prepare(self, records: Records) -> Weigh:
        prediction, target = read_targets(records)
        lost = (np.isnan(prediction) | np.isnan(target)).any(axis=1)
        pairs = [
            (group_scores(prediction[:, i]), group_scores(target[:, i]))
            for i in range(target.shape[1])
        ]

        def weigh(weights: np.ndarray) -> np.ndarray:
            values = [_correlate_ranks(a, b, weights) for a, b in pairs]
            return np.where(weights @ lost > 0, np.nan, np.mean(values, axis=0))

        return weigh


def _correlate_ranks(a: Groups, b: Groups, weights: np.ndarray) -> np.ndarray:
    # Ranks of repeated rows: their mean is (total + 1) / 2 whatever the ties.
    centre = (weights.sum(axis=1, keepdims=True) + 1) / 2
    ranks_a, ranks_b = (_rank(groups, weights) - centre for groups in (a, b))

    def add_up(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray((weights * x * y).sum(axis=1))

    spread = np.sqrt(add_up(ranks_a, ranks_a) * add_up(ranks_b, ranks_b))
    return np.clip(divide(add_up(ranks_a, ranks_b), spread), -1.0, 1.0)


def _rank(groups: Groups, weights: np.ndarray) -> np.ndarray:
    own = groups.add_up(weights)
    return groups.spread_out(own.cumsum(axis=1) - own / 2 + 0.5)


def make_auroc(which: str = "") -> tuple[Auroc]:
    return (Auroc(f"auroc_{which}" if which else "auroc", which=which),)


def make_average_precision(which: str = "") -> tuple[AveragePrecision]:
    name = "average_precision"
    return (AveragePrecision(f"{name}_{which}" if which else name, which=which),)


def make_spearman() -> tuple[Spearman]:
    return (Spearman("spearman"),)
