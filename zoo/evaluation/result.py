"""What an evaluation found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.evaluation.against import Against
from zoo.evaluation.passes import Records
from zoo.evaluation.plain import interval_to_dict
from zoo.evaluation.slices import Slice, find_worst
from zoo.evaluation.worst import Example
from zoo.metrics import Interval, Metric


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on a split.

    `metrics` are values with 95 % intervals (NaN bounds where a number has none); `records` hold a
    row an example, whose place in the split is `rows`; `settings` are the arguments.
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

    @property
    def main(self) -> Metric | None:
        """The metric that slices are judged by."""
        usable = [m for m in self.measured if m.name != "loss"] or list(self.measured)
        return usable[0] if usable else None

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
