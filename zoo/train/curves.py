"""The picture of a run: one panel a metric, one line a split."""

from __future__ import annotations

import io
from typing import Any

from etils import epath

from zoo.train.rows import Row

_COLORS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}


def draw_curves(rows: list[Row], path: epath.Path, title: str) -> None:
    """Writes a PNG of all metrics over steps; a single value is a dot with its number."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    splits = {row["split"] for row in rows}
    names = [k for k in _metric_names(rows) if k not in ("gradient_norm", "learning_rate")]
    names += [k for k in ("gradient_norm", "learning_rate") if k in _metric_names(rows)]
    figure = Figure(
        figsize=(4.2 * min(len(names), 3), 3.2 * -(-len(names) // 3)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for i, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // 3), min(len(names), 3), i + 1)
        for split in sorted(splits, key=list(_COLORS).index):
            points = [
                (r["step"], r[name])
                for r in rows
                if r["split"] == split and r.get(name) is not None
            ]
            if points:
                _draw_line(axes, points, split)
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    path.write_bytes(buffer.getvalue())


def _draw_line(axes: Any, points: list[tuple[int, float]], split: str) -> None:
    steps, values = zip(*points, strict=True)
    if len(points) > 1:
        axes.plot(steps, values, color=_COLORS[split], label=split, linewidth=1.4)
        return
    axes.plot(steps, values, "o", color=_COLORS[split], label=f"{split} {values[0]:.4g}")


def _metric_names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(k for row in rows for k in row if k not in ("step", "split")))
