"""Metrics of losses and of predicted numbers: all are sums over rows."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.metrics.metric import Additive, Records, Weigh, divide


@dataclass(frozen=True)
class Ratio(Additive):
    """The sum of one field `[n]` over that of another, or over the number of rows."""

    def statistics(self, records: Records) -> np.ndarray:
        columns = [np.asarray(records[field], np.float64) for field in self.needs[:2]]
        if len(columns) == 1:
            columns.append(np.ones_like(columns[0]))
        return np.stack(columns, axis=1)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1])


class TokenLoss(Ratio):
    """The mean over labelled tokens of a `loss` `[n]` that is a row's mean over its own."""

    def statistics(self, records: Records) -> np.ndarray:
        count = (np.asarray(records["token_label"]) >= 0).sum(axis=1).astype(np.float64)
        return np.stack([np.asarray(records["loss"], np.float64) * count, count], axis=1)


class Perplexity(Ratio):
    """`exp` of the loss in nats a token; a loss over 700 counts as 700 (float64 ends at 709)."""

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(np.minimum(super().finish(sums), 700.0)))


class BitsPerByte(Ratio):
    """Bits of loss a byte of text, comparable between tokenizers."""

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(super().finish(sums), np.log(2))


def make_loss() -> tuple[Ratio, ...]:
    """The mean loss: of tokens where `loss` is the sum of a row's `num_tokens`, or the mean of its
    labelled ones, else of rows.
    """
    return (
        Ratio("loss", ("loss", "num_tokens"), higher_is_better=False),
        TokenLoss("loss", ("loss", "token_label"), higher_is_better=False),
        Ratio("loss", ("loss",), higher_is_better=False),
    )


def make_token_accuracy() -> tuple[Ratio]:
    """The share of a row's `num_tokens` that are right."""
    return (Ratio("accuracy", ("num_correct", "num_tokens")),)


def make_perplexity() -> tuple[Perplexity]:
    return (Perplexity("perplexity", ("loss", "num_tokens"), higher_is_better=False),)


def make_bits_per_byte() -> tuple[BitsPerByte]:
    return (BitsPerByte("bits_per_byte", ("loss", "num_bytes"), higher_is_better=False),)


@dataclass(frozen=True)
class Errors(Additive):
    """The mean squared or absolute error over rows and targets, in the data's units (squared)."""

    needs: tuple[str, ...] = ("prediction", "target")
    higher_is_better: bool = False
    power: int = 2

    def statistics(self, records: Records) -> np.ndarray:
        prediction, target = read_targets(records)
        errors = np.abs(prediction - target) ** self.power
        return np.stack([errors.mean(axis=1), np.ones(len(errors))], axis=1)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class Moments(Additive):
    """What is made of first and second moments of predictions and targets, mean over the targets.

    Neither R² nor a correlation changes when all numbers are moved, so a call moves them to where
    the targets' mean is 0 and loses no digits to a large offset.
    """

    needs: tuple[str, ...] = ("prediction", "target")

    def prepare(self, records: Records) -> Weigh:
        prediction, target = read_targets(records)
        centre = target.mean(axis=0) if len(target) else 0.0
        return super().prepare({"prediction": prediction - centre, "target": target - centre})

    def statistics(self, records: Records) -> np.ndarray:
        """Of each target the number of rows, p, t, p², t², pt and (p - t)²."""
        p, t = read_targets(records)
        return np.concatenate([np.ones_like(p), p, t, p * p, t * t, p * t, (p - t) ** 2], axis=1)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return np.asarray(self.combine(*np.split(sums, 7, axis=-1)).mean(axis=-1))

    @abc.abstractmethod
    def combine(self, *moments: np.ndarray) -> np.ndarray:
        """Values `[..., k]` of the seven moments `[..., k]`."""


class R2(Moments):
    """The share of the targets' variance that is explained.

    As in scikit-learn, a constant target gives 1 where all predictions are right and else 0, and
    fewer than two rows give NaN.
    """

    def combine(self, *moments: np.ndarray) -> np.ndarray:
        count, _, t, _, tt, _, squared = moments
        spread = _spread(count, t, tt)
        value = 1 - divide(squared, spread, empty=1.0)
        value = np.where((spread == 0) & (squared == 0), 1.0, value)
        return np.where(count < 2, np.nan, value)


class Pearson(Moments):
    """The correlation; NaN where predictions or targets are constant (as in scipy)."""

    def combine(self, *moments: np.ndarray) -> np.ndarray:
        count, p, t, pp, tt, pt, _ = moments
        spread = np.sqrt(_spread(count, p, pp) * _spread(count, t, tt))
        return np.clip(divide(pt - divide(p * t, count), spread), -1.0, 1.0)


def make_mse() -> tuple[Errors]:
    return (Errors("mse"),)


def make_mae() -> tuple[Errors]:
    return (Errors("mae", power=1),)


def make_r2() -> tuple[R2]:
    return (R2("r2"),)


def make_pearson() -> tuple[Pearson]:
    return (Pearson("pearson"),)


def _spread(count: np.ndarray, x: np.ndarray, xx: np.ndarray) -> np.ndarray:
    """Sum of squares around the mean; what is only rounding is 0."""
    spread = xx - divide(x * x, count)
    return np.where(spread <= 1e-13 * xx, 0.0, spread)


def read_targets(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets `[n, k]`, float64."""

    def read(field: Any) -> np.ndarray:
        return np.asarray(field, np.float64).reshape(len(field), -1)

    return read(records["prediction"]), read(records["target"])
