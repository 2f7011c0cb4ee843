"""Early stopping: when a metric of the evaluations has not improved for a while."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zoo.config import CheckpointConfig, Config, UserError


def watched(config: Config) -> CheckpointConfig:
    """What is saved and kept: with `train.patience` also the best evaluation, by default by
    val/loss."""
    checkpoint = config.checkpoint
    if config.train.patience is None or checkpoint.best_metric is not None:
        return checkpoint
    return dataclasses.replace(checkpoint, best_metric="val/loss", best_mode="min")


def find_stop(
    values: Sequence[tuple[int, float]], patience: int, mode: str
) -> tuple[int | None, int | None]:
    """(step of the best, step at which `patience` evaluations in a row had not been better than it;
    None where that has not come) of the evaluations `(step, value)`. Of equals the first is the
    best; what is not a number is never better (Prechelt 1998)."""
    best: tuple[int | None, float] = (None, -math.inf)
    since = 0
    sign = 1 if mode == "max" else -1
    for step, value in values:
        if sign * value > best[1]:
            best, since = (step, sign * value), 0
        else:
            since += 1
        if since >= patience:
            return best[0], step
    return best[0], None


class Patience:
    """The evaluations of a run so far."""

    def __init__(self, config: Config):
        self.limit = config.train.patience
        kept = watched(config)
        self.metric, self._mode = str(kept.best_metric), kept.best_mode
        self._every = config.train.eval_every_steps or 1
        self._values: dict[int, float] = {}

    def recall(self, rows: Iterable[Mapping[str, Any]], last: int | None = None) -> None:
        """Takes the rows of a run that goes on, up to the step `last`, in place of all before; that
        at an end between two evaluations is none of a longer run's."""
        self._values = {}
        name = self.metric.removeprefix("val/")
        for row in rows:
            step = row["step"]
            if row.get("split") != "val" or step % self._every or name not in row:
                continue
            if last is None or step <= last:
                self.see(step, row[name])

    def see(self, step: int, value: float | None) -> None:
        """One evaluation; a row has None for what is not a number."""
        self._values[step] = math.nan if value is None else value

    def see_row(self, step: int, metrics: Mapping[str, float]) -> bool:
        """An evaluation's metrics, by 'val/NAME'. Is it the best, where anybody asks?"""
        if self.limit is None or step % self._every:
            return False
        if self.metric not in metrics:
            raise UserError(
                f"train.patience: {self.metric!r} is not measured: set checkpoint.best_metric"
            )
        self.see(step, metrics[self.metric])
        return self.outcome()[0] == step

    def outcome(self) -> tuple[int | None, int | None]:
        """`find_stop` of what was seen."""
        if self.limit is None:
            return None, None
        return find_stop(sorted(self._values.items()), self.limit, self._mode)
