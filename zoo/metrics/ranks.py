"""Metrics of ranks: sorted once, then weighed.

Equal scores are one group, so the order of rows among them is nothing. These are no sums over
rows: which pairs of rows count depends on all of them.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from zoo.config import UserError
from zoo.metrics.classes import ROWS, read_classes
from zoo.metrics.metric import Metric, Records, Weigh, divide
from zoo.metrics.numbers import read_targets

_MANY_CLASSES = 10  # each is a pass of its own over all rows in each resampling


@dataclass(frozen=True)
class Groups:
    """Rows `[m]` in ascending order of a score, and where each group of equal ones begins."""

    order: np.ndarray
    starts: np.ndarray

    def add_up(self, ordered: np.ndarray) -> np.ndarray:
        """Sums `[g, r]` of each group of what is in order `[m, r]`."""
        if len(self.starts) == len(self.order):
            return ordered
        return np.add.reduceat(ordered, self.starts, axis=0)

    def spread_out(self, values: np.ndarray) -> np.ndarray:
        """Values `[m, r]` of rows from those of their groups `[g, r]`."""
        sizes = np.diff(np.append(self.starts, len(self.order)))
        out = np.empty((len(self.order), values.shape[1]))
        out[self.order] = np.repeat(values, sizes, axis=0)
        return out


def group_scores(scores: np.ndarray) -> Groups:
    """The groups of scores `[m]`."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    new = np.ones(len(scores), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return Groups(order, np.nonzero(new)[0])


@dataclass(frozen=True)
class Ranking:
    """The examples of a class among all, from the highest score down."""

    groups: Groups
    places: np.ndarray  # `[p]`: where in order the class's examples stand

    def count(self, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        """Weights `[p, r]` of each group with an example of the class, from `[m, r]` of rows.

        Four: the group's examples of the class and all of it, then both with the groups above.
        """
        ordered = np.take(weights, self.groups.order, axis=0)
        together = self.groups.add_up(ordered)
        group_of = np.searchsorted(self.groups.starts, self.places, side="right") - 1
        holding, starts = np.unique(group_of, return_index=True)
        own = np.take(ordered, self.places, axis=0)
        if len(holding) < len(self.places):
            own = np.add.reduceat(own, starts, axis=0)
        return own, together[holding], own.cumsum(axis=0), together.cumsum(axis=0)[holding]


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
        lost = np.isnan(logits).any(axis=1).astype(np.float64)
        by_label = group_scores(label)
        present = label[by_label.order][by_label.starts]
        rankings = []
        for chosen in self._choose(np.shape(records["logits"])[-1]):
            groups = group_scores(-get_log_odds(logits, chosen))
            places = np.nonzero(label[groups.order] == chosen)[0]
            rankings.append((Ranking(groups, places), present == chosen))

        def weigh(weights: np.ndarray) -> np.ndarray:
            # A row's weights lie together: sorting moves whole rows.
            by_row = np.ascontiguousarray(weights[:, rows].T)
            sums = by_label.add_up(np.take(by_row, by_label.order, axis=0))
            values = np.empty((len(rankings), len(weights)))
            for value, (ranking, own) in zip(values, rankings, strict=True):
                sides = sums[own].sum(axis=0), sums[~own].sum(axis=0)
                value[:] = self.rank(ranking, by_row, *sides)
            return np.where(lost @ by_row > 0, np.nan, mean_known(values))

        return weigh

    def _choose(self, classes: int) -> list[int]:
        if self.which:
            if int(self.which) >= classes:
                raise UserError(f"metric {self.name!r}: the classes are 0 to {classes - 1}")
            return [int(self.which)]
        return [1] if classes == 2 else list(range(classes))

    @abc.abstractmethod
    def rank(
        self, ranking: Ranking, weights: np.ndarray, positive: np.ndarray, negative: np.ndarray
    ) -> np.ndarray:
        """Values `[r]` of a class, which and whose rest weigh `[r]`, under weights `[m, r]`."""


class Auroc(OneVersusRest):
    """The area under the ROC curve: how often an example of the class ranks above another.

    Equal scores count one half. Macro mean as scikit-learn's `multi_class='ovr'`.
    """

    def rank(
        self, ranking: Ranking, weights: np.ndarray, positive: np.ndarray, negative: np.ndarray
    ) -> np.ndarray:
        own, group, right, taken = ranking.count(weights)
        below = negative - (taken - right) + (group - own) / 2
        return divide((own * below).sum(axis=0), positive * negative)


class AveragePrecision(OneVersusRest):
    """The mean precision at the examples of the class, from the highest score down; no
    interpolation (as in scikit-learn).
    """

    def rank(
        self, ranking: Ranking, weights: np.ndarray, positive: np.ndarray, negative: np.ndarray
    ) -> np.ndarray:
        own, _, right, taken = ranking.count(weights)
        value = divide((own * divide(right, taken, empty=0.0)).sum(axis=0), positive)
        return np.where(negative > 0, value, np.nan)


def mean_known(values: np.ndarray) -> np.ndarray:
    """`[r]`: the mean over the classes of `[c, r]` that have a value, NaN where none has."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


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
        lost = (np.isnan(prediction) | np.isnan(target)).any(axis=1).astype(np.float64)
        pairs = [
            (group_scores(prediction[:, i]), group_scores(target[:, i]))
            for i in range(target.shape[1])
        ]

        def weigh(weights: np.ndarray) -> np.ndarray:
            by_row = np.ascontiguousarray(weights.T)
            values = [_correlate_ranks(a, b, by_row) for a, b in pairs]
            return np.where(lost @ by_row > 0, np.nan, np.mean(values, axis=0))

        return weigh


def _correlate_ranks(a: Groups, b: Groups, weights: np.ndarray) -> np.ndarray:
    # Ranks of repeated rows: their mean is (total + 1) / 2 whatever the ties.
    centre = (weights.sum(axis=0) + 1) / 2
    ranks_a, ranks_b = (_rank(groups, weights) - centre for groups in (a, b))

    def add_up(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.einsum("nr,nr,nr->r", weights, x, y)

    spread = np.sqrt(add_up(ranks_a, ranks_a) * add_up(ranks_b, ranks_b))
    return np.clip(divide(add_up(ranks_a, ranks_b), spread), -1.0, 1.0)


def _rank(groups: Groups, weights: np.ndarray) -> np.ndarray:
    """Mean ranks `[n, r]` of the rows."""
    own = groups.add_up(np.take(weights, groups.order, axis=0))
    return groups.spread_out(own.cumsum(axis=0) - own / 2 + 0.5)


def make_auroc(which: str = "") -> tuple[Auroc]:
    return (Auroc(f"auroc_{which}" if which else "auroc", which=which),)


def make_average_precision(which: str = "") -> tuple[AveragePrecision]:
    name = "average_precision"
    return (AveragePrecision(f"{name}_{which}" if which else name, which=which),)


def make_spearman() -> tuple[Spearman]:
    return (Spearman("spearman"),)
