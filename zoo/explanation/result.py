"""What an explanation holds, whatever the method: maps, scores, a lens over the layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Axis:
    """What stands at the places of a stream: the tokens of a text, or the patches of a picture."""

    name: str  # 'image', 'text', 'source', 'target'
    words: tuple[str, ...]  # a place
    picture: np.ndarray | None = None  # uint8 `y x 3`, as the model sees it, as far as patches go
    grid: tuple[int, int] | None = None  # rows and columns of patches
    before: int = 0  # tokens ahead of the patches: of the class, registers

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class Maps:
    """Weights from each query (rows) to each key: `[layers, heads, t, s]`."""

    name: str
    title: str
    queries: Axis
    keys: Axis
    weights: np.ndarray
    start: int | None = None  # the query that is shown first; None: the mean of all


@dataclass(frozen=True)
class Scores:
    """How much each token, patch (`[s]`) or pixel (`[y, x]`) counts for what is explained."""

    name: str
    title: str
    axis: Axis
    values: np.ndarray
    signed: bool


@dataclass(frozen=True)
class Lens:
    """What each layer would answer: the first tokens or classes and their probabilities."""

    name: str
    title: str
    layers: tuple[str, ...]
    places: tuple[str, ...]  # tokens; of a classifier one, the input
    words: tuple[tuple[tuple[str, ...], ...], ...]  # layer, place, rank
    probabilities: np.ndarray  # `[layers, places, rank]`, falling
    followed: np.ndarray  # `[layers, places]`: of the model's own first answer at that place


Part = Maps | Scores | Lens


@dataclass(frozen=True)
class Output:
    """The one number that is explained."""

    what: str  # 'class', 'next token', ...
    label: str
    score: float  # its logit, less the mean of all logits where there are several
    probability: float | None
    index: int
    place: int | None = None  # of the token whose output it is


@dataclass(frozen=True)
class Explanation:
    """All that the page shows; `write` makes it and the PNGs beside it."""

    method: str
    source: str
    model: str
    input: str
    output: Output | None  # None: the method explains no single output, or the model has none
    predictions: tuple[tuple[str, float], ...]  # labels with probabilities, the best first
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    def part(self, name: str) -> Any:
        """The part of a name, such as 'attention' or 'cross'. Raises KeyError."""
        return {part.name: part for part in self.parts}[name]

    def write(self, path: str | Path) -> list[Path]:
        """Writes the page and, beside it, a PNG a part; returns all paths, the page first.

        Raises UserError on a path that does not end in .html, or cannot be written.
        """
        from zoo.explanation.page import write_page

        return write_page(self, Path(path))
