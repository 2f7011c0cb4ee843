"""What an evaluation found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.evaluation.against import Against
from zoo.evaluation.json_numbers import finite, interval_to_dict
from zoo.evaluation.passes import Records
from zoo.evaluation.slices import Slice, find_worst
from zoo.evaluation.worst import Example
from zoo.metrics import Interval, Metric, count_confusion


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on a split.

    `metrics` are values with 95 % intervals (NaN bounds where a number has none); `records` hold a
    row an example, whose place in the split is `rows`, and `questions`, where these are windows
    of contexts, a row a question; `settings` are the arguments.
    """

    source: str
    task: str
    data: str
    split: str
    fingerprint: str
    num_examples: int
    metrics: Mapping[str, Interval]
    records: Records = field(repr=False)
    rows: Any = field(repr=False)
    classes: tuple[str, ...] = ()
    slices: tuple[Slice, ...] = ()
    worst: tuple[Example, ...] = ()
    against: Against | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    measured: tuple[Metric, ...] = field(default=(), repr=False)
    questions: Records | None = field(default=None, repr=False)

    @property
    def main(self) -> Metric | None:
        """The metric that slices are judged by."""
        usable = [m for m in self.measured if m.name != "loss"] or list(self.measured)
        return usable[0] if usable else None

    @property
    def confusion(self) -> np.ndarray | None:
        """`[c, c]`, a row a label, a column a prediction; None where there are no classes."""
        if not self.classes or not {"logits", "label"} <= set(self.records):
            return None
        return count_confusion(self.records)

    @property
    def worst_slice(self) -> tuple[Slice, bool] | None:
        """The slice with the worst main metric, and whether that is more than chance; None where
        there is none that is large enough."""
        if self.main is None:
            return None
        return find_worst(self.slices, self.main, self.metrics[self.main.name])

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what is not a finite number is None."""
        out: dict[str, Any] = {
            "source": self.source,
            "task": self.task,
            "data": self.data,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "num_examples": self.num_examples,
            "settings": dict(self.settings),
            "metrics": {
                name: interval_to_dict(interval) for name, interval in self.metrics.items()
            },
            "notes": list(self.notes),
        }
        if self.classes:
            out["classes"] = list(self.classes)
        if self.slices:
            worst = self.worst_slice
            out["slices"] = [part.to_dict() for part in self.slices]
            if worst is not None and self.main is not None:
                out["worst_slice"] = {
                    "field": worst[0].field,
                    "value": worst[0].value,
                    "metric": self.main.name,
                    "beyond_chance": worst[1],
                }
        if self.worst:
            out["worst"] = [example.to_dict() for example in self.worst]
        if self.against is not None:
            out["against"] = self.against.to_dict()
        return out


@dataclass(frozen=True)
class Shots:
    """Of `shots` examples a class: each metric's mean over draws of them, and its deviation."""

    shots: int
    mean: Mapping[str, float]
    deviation: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what is not a finite number is None."""
        mean = {name: finite(value) for name, value in self.mean.items()}
        deviation = {name: finite(value) for name, value in self.deviation.items()}
        return {"shots": self.shots, "mean": mean, "deviation": deviation}


@dataclass(frozen=True)
class FewShot:
    """A linear classifier on few examples, drawn `draws` times."""

    source: str
    data: str
    split: str
    num_examples: int
    draws: int
    shots: tuple[Shots, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        rows = [row.to_dict() for row in self.shots]
        return {**vars(self), "shots": rows, "probe": "few_shot"}
