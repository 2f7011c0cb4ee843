"""The picture of a confusion matrix."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

_NUMBERED = 30  # of more classes, cells are too small for a number
_NAMED = 100  # of more classes, too small for a name
_SIDE = 18.0  # inches
_LETTERS = 24


def draw_confusion(matrix: np.ndarray, names: Sequence[str], path: epath.PathLike) -> None:
    """Writes a PNG of a confusion matrix `[c, c]`: a row a label, a column a prediction.

    A colour is the share of the row's label (on a scale of square roots), so that rare classes and
    rare mistakes are seen as well; a number is the count. More than 30 classes have no numbers,
    more than 100 no names. Raises OSError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(matrix)
    labels = [_shorten(name) for name in names]
    cell = 0.42 if count <= _NUMBERED else 0.16
    margin = 0.9 + 0.075 * max(map(len, labels), default=0)
    side = min(max(cell * count, 2.0), _SIDE)
    figure = Figure(figsize=(side + margin + 0.9, side + margin + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0))
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, label="share of the label")
    if count <= _NAMED:
        size = 9 if count <= _NUMBERED else 6
        axes.set_xticks(range(count), labels, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(count), labels, fontsize=size, parse_math=False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    right = matrix.trace() / max(matrix.sum(), 1e-12)
    axes.set_title(f"accuracy {right:.4g}", fontsize=10)
    if count <= _NUMBERED:
        _write_counts(axes, matrix, share)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as boxes
        figure.savefig(buffer, format="png", dpi=120)
    epath.Path(path).write_bytes(buffer.getvalue())


def _write_counts(axes: Any, matrix: np.ndarray, share: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if value:
            colour = "white" if share[row, column] > 0.3 else "black"
            text = f"{value:.0f}" if value < 10_000 else f"{value / 1000:.0f}k"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)


def _shorten(name: str) -> str:
    """A name of no more than 24 letters on one line."""
    name = " ".join(name.split())
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
