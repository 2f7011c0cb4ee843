"""Parts of an explanation as PNGs, for papers and slides."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import Any

import numpy as np

from zoo.explanation.colors import TABLES, color_of, enlarge, find_scale, lay_over
from zoo.explanation.page import fold, show_word
from zoo.explanation.result import Lens, Maps, Part, Scores

LABELLED = 48  # the most words that label the rows or columns of a map
MOST_PANELS = 160
LINE, MOST_LINES = 96, 60  # characters a line, and lines, of coloured text
MONO = "monospace"


def draw_part(part: Part, title: str) -> bytes:
    """The PNG of a part."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if isinstance(part, Scores):
        figure = _draw_picture(part) if part.axis.picture is not None else _draw_words(part)
    elif isinstance(part, Lens):
        figure = _draw_lens(part)
    else:
        figure = _draw_maps(part)
    width = figure.get_size_inches()[0]
    lines = [textwrap.fill(line, max(int(width * 11), 30)) for line in (title, part.title)]
    figure.suptitle(_plain("\n".join(lines)), fontsize=10, x=0.01, ha="left")
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a font lacks a sign of a text
        figure.savefig(buffer, dpi=120, bbox_inches="tight", pad_inches=0.15)
    return buffer.getvalue()


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def _plain(text: str) -> str:
    """matplotlib reads what stands between dollars as mathematics."""
    return text.replace("$", r"\$")


def _short(word: str, most: int = 16) -> str:
    word = show_word(word.strip() or word)
    return _plain(word if len(word) <= most else word[: most - 1] + "…")


def _table(name: str) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap(TABLES[name] / 255.0)


def _draw_maps(part: Maps) -> Any:
    layers, heads = part.weights.shape[:2]
    weights = part.weights
    if layers * heads > MOST_PANELS:
        weights, heads = weights.mean(axis=1, keepdims=True), 1
    if part.keys.grid is not None:
        return _draw_overlays(part, weights)
    if layers * heads == 1:
        return _draw_matrix(part, weights[0, 0])
    if max(weights.shape[2:]) <= LABELLED:  # the mean of all heads of the last layer, with words
        figure = _figure(1.0 * max(heads, 6) + 5.5, max(1.0 * layers, 5.5) + 0.6)
        left, right = figure.subfigures(1, 2, width_ratios=[1.0 * max(heads, 6), 5.5])
        _label(right.subplots(), part, weights[-1].mean(0), "last layer, mean of heads")
    else:
        figure = _figure(1.0 * max(heads, 6), 1.0 * layers + 0.6)
        left = figure
    axes = left.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            axis = axes[layer][head]
            matrix = weights[layer, head]
            axis.imshow(matrix, cmap=_table("POSITIVE"), vmin=0, aspect="auto")
            _name_panel(axis, layer, head, heads)
    return figure


def _name_panel(axis: Any, layer: int, head: int, heads: int) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if layer == 0:
        axis.set_title(f"head {head + 1}" if heads > 1 else "mean of heads", fontsize=7)
    if head == 0:
        axis.set_ylabel(f"layer {layer + 1}", fontsize=7)


def _draw_matrix(part: Maps, matrix: np.ndarray) -> Any:
    rows, columns = matrix.shape
    size = [min(max(0.26 * n + 1.6, 3.5), 12) for n in (columns, rows)]
    figure = _figure(size[0] + 0.8, size[1] + 0.4)
    image = _label(figure.subplots(), part, matrix, "")
    figure.colorbar(image, shrink=0.7, aspect=30)
    return figure


def _label(axis: Any, part: Maps, matrix: np.ndarray, title: str) -> Any:
    """A map with its words, as far as there is room for them."""
    image = axis.imshow(matrix, cmap=_table("POSITIVE"), vmin=0, aspect="auto")
    axis.set_title(title, fontsize=9)
    words = (part.keys.words, part.queries.words)
    if max(map(len, words)) <= LABELLED:
        size = 8 if max(map(len, words)) <= 30 else 6
        names = [[_short(word) for word in side] for side in words]
        axis.set_xticks(range(len(names[0])), names[0], rotation=90, fontsize=size, family=MONO)
        axis.set_yticks(range(len(names[1])), names[1], fontsize=size, family=MONO)
    axis.set_xlabel(f"{part.keys.name}: looked at", fontsize=8)
    axis.set_ylabel(f"{part.queries.name}: looks", fontsize=8)
    return image


def _draw_overlays(part: Maps, weights: np.ndarray) -> Any:
    """One query's weights over the picture, a panel a head."""
    layers, heads = weights.shape[:2]
    picture = part.keys.picture
    assert picture is not None
    plain = enlarge(picture, 120)
    figure = _figure(1.2 * max(heads, 4), 1.3 * layers + 0.8)
    axes = figure.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            matrix = weights[layer, head]
            row = matrix.mean(0) if part.start is None else matrix[part.start]
            values = fold(part.keys, row)
            axis = axes[layer][head]
            axis.imshow(lay_over(plain, values, float(row.max()) or 1.0, signed=False))
            _name_panel(axis, layer, head, part.weights.shape[1])
    told = "mean of all queries" if part.start is None else part.queries.words[part.start]
    figure.supxlabel(f"from: {told}; each panel on a scale of its own", fontsize=8)
    return figure


def _draw_picture(part: Scores) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    assert part.axis.picture is not None
    plain, scale = enlarge(part.axis.picture), find_scale(part.values)
    figure = _figure(7.2, 3.9)
    axes = figure.subplots(1, 2)
    axes[0].imshow(plain)
    axes[1].imshow(lay_over(plain, fold(part.axis, part.values), scale, part.signed))
    for axis in axes:
        axis.set_axis_off()
    norm = Normalize(-scale if part.signed else 0, scale)
    bar = ScalarMappable(norm, _table("SIGNED" if part.signed else "HEAT"))
    figure.colorbar(bar, ax=axes[1], shrink=0.75)
    return figure


def _draw_words(part: Scores) -> Any:
    """Coloured text: a box a token, in lines of LINE characters."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    scale, boxes, x, y = find_scale(part.values), [], 0, 0
    for word, value in zip(part.axis.words, part.values.tolist(), strict=True):
        text = show_word(word)
        if x and x + len(text) > LINE:
            x, y = 0, y + 1
        boxes.append((x, y, text[:LINE], *color_of(value, scale, part.signed)))
        x += len(text)
        if "\n" in word:
            x, y = 0, y + 1
    lines = min(y + 1, MOST_LINES)
    figure = _figure(9.6, 0.3 * lines + 1.1)
    axis = figure.subplots()
    for x, y, text, back, ink in boxes:
        if y < lines:
            axis.add_patch(Rectangle((x + 0.04, y + 0.06), len(text) - 0.08, 0.88, color=back))
            place = {"ha": "center", "va": "center", "color": ink, "family": MONO, "fontsize": 9}
            axis.text(x + len(text) / 2, y + 0.5, _plain(text), **place)
    axis.set_xlim(0, LINE)
    axis.set_ylim(lines, 0)
    axis.set_axis_off()
    norm = Normalize(-scale if part.signed else 0, scale)
    bar = ScalarMappable(norm, _table("SIGNED" if part.signed else "POSITIVE"))
    figure.colorbar(bar, ax=axis, orientation="horizontal", shrink=0.4, aspect=40)
    return figure


def _draw_lens(part: Lens) -> Any:
    """Layers from below, the answers as words where there is room."""
    shares = part.probabilities[..., 0]
    layers, places = shares.shape
    with_words = places <= 28
    figure = _figure(min(0.75 * places + 1.8, 22) if with_words else 12, 0.3 * layers + 1.6)
    axis = figure.subplots()
    image = axis.imshow(
        shares, cmap=_table("POSITIVE"), vmin=0, vmax=1, aspect="auto", origin="lower"
    )
    axis.set_yticks(range(layers), part.layers, fontsize=8)
    if with_words:
        names = [_short(word, 10) for word in part.places]
        axis.set_xticks(range(places), names, fontsize=8, family=MONO)
        for i in range(layers):
            for j in range(places):
                ink = color_of(float(shares[i, j]), 1.0, signed=False)[1]
                place = {"ha": "center", "va": "center", "color": ink, "family": MONO}
                axis.text(j, i, _short(part.words[i][j][0], 9), fontsize=8, **place)
    figure.colorbar(image, shrink=0.8, label="probability")
    return figure
