"""Pictures of runs: one panel a metric, one line a split or, of many runs, one line a run."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

from etils import epath

from zoo.train.rows import NO_METRICS, SEEDS, Row

_COLORS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}
_RUN_COLORS = [f"C{i}" for i in range(10)]
_RUN_STYLES = ("-", "--", ":", "-.")
_MARKERS = {"-": "o", "--": "s", ":": "^", "-.": "D"}  # a dot tells the same runs apart
_LAST = ("gradient_norm", "learning_rate")  # of less interest than what was learned


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a panel; `points` are (step, value). A single point is drawn as a dot. `band`, of
    several seeds, are the (step, low, high) of a deviation on either side."""

    label: str
    color: str
    points: list[tuple[int, float]]
    style: str = "-"
    band: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)


def draw_curves(rows: list[Row], path: epath.Path, title: str) -> None:
    """Writes a PNG of all metrics of a run over steps; a single value is a dot with its number."""
    splits = sorted({row["split"] for row in rows}, key=_split_order)
    panels: dict[str, list[Line]] = {}
    for name in metric_names(rows):
        for split in splits:
            points = _points(rows, split, name)
            if points:
                label = split if len(points) > 1 else f"{split} {points[0][1]:.4g}"
                color = _COLORS.get(split, "tab:gray")
                line = Line(label, color, points, band=_band(rows, split, name))
                panels.setdefault(name.replace("_", " "), []).append(line)
    draw_panels(panels, path, title)


def draw_runs(runs: Mapping[str, list[Row]], path: epath.Path, title: str) -> None:
    """Writes a PNG that compares runs: a panel a metric of a split, a line a run."""
    rows = [row for own in runs.values() for row in own]
    splits = sorted({row["split"] for row in rows}, key=_split_order)
    names = metric_names(rows)
    # What was learned of each split first, then what only describes the training.
    order = [(s, n) for s in splits for n in names if n not in _LAST]
    order += [(s, n) for s in splits for n in names if n in _LAST]
    panels: dict[str, list[Line]] = {}
    for split, name in order:
        for i, (label, own) in enumerate(runs.items()):
            points = _points(own, split, name)
            if points:
                color = _RUN_COLORS[i % len(_RUN_COLORS)]
                style = _RUN_STYLES[i // len(_RUN_COLORS) % len(_RUN_STYLES)]
                panel = panels.setdefault(f"{split} {name.replace('_', ' ')}", [])
                panel.append(Line(label, color, points, style))
    draw_panels(panels, path, title, one_legend=True)


def draw_panels(
    panels: Mapping[str, list[Line]], path: epath.Path, title: str, *, one_legend: bool = False
) -> None:
    """Writes a PNG with up to three panels a row; the legend is each panel's own or the figure's.

    Raises OSError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(max(len(panels), 1), 3)
    num_rows = max(-(-len(panels) // columns), 1)
    figure = Figure(figsize=(4.2 * columns, 3.2 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    handles: dict[str, Any] = {}
    for i, (name, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(num_rows, columns, i + 1)
        # Runs with a single value each, at the same step: side by side instead.
        beside = one_legend and all(len(line.points) == 1 for line in lines)
        for j, line in enumerate(lines):
            drawn = _draw_line(axes, line, j if beside else None)
            if line.label not in handles or len(line.points) > 1:
                handles[line.label] = drawn
        axes.set_title(name)
        axes.set_xlabel("run" if beside else "step")
        if beside:
            axes.set_xticks([])
        axes.grid(alpha=0.3)
        if len(lines) > 1 and not one_legend:
            axes.legend()
    if one_legend and handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    path.write_bytes(buffer.getvalue())


def _draw_line(axes: Any, line: Line, place: int | None) -> Any:
    """Draws a line, or its single value as a dot, at x = `place` where that is given."""
    steps, values = zip(*line.points, strict=True)
    options: dict[str, Any] = {"color": line.color, "label": line.label}
    if len(steps) > 1:
        if line.band:
            axes.fill_between(*zip(*line.band, strict=True), color=line.color, alpha=0.2, lw=0)
        return axes.plot(steps, values, linestyle=line.style, linewidth=1.4, **options)[0]
    x = steps[0] if place is None else place
    return axes.plot([x], values, marker=_MARKERS[line.style], linestyle="none", **options)[0]


def metric_names(rows: list[Row]) -> list[str]:
    """The metrics of rows in the order they appear; gradient norm and learning rate come last."""
    names = list(dict.fromkeys(k for row in rows for k in row if k not in NO_METRICS))
    return [n for n in names if n not in _LAST] + [n for n in _LAST if n in names]


def _points(rows: list[Row], split: str, name: str) -> list[tuple[int, float]]:
    return [
        (row["step"], row[name])
        for row in rows
        if row["split"] == split and isinstance(row.get(name), int | float)
    ]


def _band(rows: list[Row], split: str, name: str) -> list[tuple[int, float, float]]:
    """A deviation over seeds on either side of the mean, of the rows that have several."""
    return [
        (row["step"], row[name] - spread["deviation"], row[name] + spread["deviation"])
        for row in rows
        if row["split"] == split
        and (spread := row.get(SEEDS, {}).get(name)) is not None
        and None not in (spread["deviation"], row.get(name))
    ]


def _split_order(split: str) -> tuple[int, str]:
    known = list(_COLORS)
    return (known.index(split) if split in known else len(known), split)
