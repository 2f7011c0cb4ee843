"""What a prediction is, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Label(NamedTuple):
    """A class and how likely it is."""

    label: str
    probability: float


@dataclass(frozen=True)
class Span:
    """A part of a text: an answer, or a word with a tag. `start` and `end` are places in the text,
    as of a Python string."""

    text: str
    score: float
    start: int
    end: int
    label: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What a model says of one input.

    Of a classifier `labels`, the likeliest first; of a regression `values` by their names, in the
    units of the data; of question answering and tagging `spans`. `note` says what was done to the
    input (cut, resized), `problem` why nothing is said of it.
    """

    input: str
    labels: tuple[Label, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    note: str | None = None
    problem: str | None = None

    @property
    def label(self) -> str | None:
        """The likeliest class; None of what is no classification."""
        return self.labels[0].label if self.labels else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is empty."""
        out: dict[str, Any] = {"input": self.input}
        if self.labels:
            out["labels"] = [label._asdict() for label in self.labels]
        if self.values:
            out["values"] = dict(self.values)
        if self.spans:
            out["spans"] = [{k: v for k, v in vars(s).items() if v is not None} for s in self.spans]
        told = {"note": self.note, "problem": self.problem}
        return out | {k: v for k, v in told.items() if v is not None}


def rank(scores: np.ndarray, names: Sequence[str], top: int | None) -> tuple[Label, ...]:
    """The `top` classes (None: all) of probabilities `[c]`, of equal ones the first first."""
    order = np.argsort(-scores, kind="stable")[:top]
    return tuple(Label(names[i], float(scores[i])) for i in order)
