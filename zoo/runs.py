"""All runs under a folder side by side: `zoo runs DIR`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from zoo.config import Config, UserError, to_dict
from zoo.config.show import flatten
from zoo.console import align, terminal_width
from zoo.train.curves import draw_runs, metric_names
from zoo.train.rows import Row, read_rows

MAX_DEPTH = 3  # folders below DIR in which runs are looked for
NONE = "-"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its name (the path below DIR), config by dotted key, rows of metrics."""

    name: str
    config: dict[str, Any]
    rows: list[Row]

    def last(self, split: str) -> Row:
        """The newest row of a split, or an empty one."""
        return next((row for row in reversed(self.rows) if row["split"] == split), {})

    @property
    def progress(self) -> str:
        """'120/500': the newest step that is logged, of how many."""
        step = max((row["step"] for row in self.rows), default=0)
        return f"{step}/{self.config.get('train.num_steps', '?')}"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table; a header may have several lines."""

    header: list[str]
    cells: list[str]
    right: bool = True
    limit: int = 24  # a longer cell goes on in the next line

    @property
    def width(self) -> int:
        return max(max(map(len, self.header)), min(max(map(len, self.cells)), self.limit))


def print_runs(folder: str) -> int:
    """Prints the table, draws FOLDER/runs.png; returns how many runs had to be left out.

    Raises UserError when there is no folder, no run in it, or the picture cannot be written.
    """
    root = epath.Path(folder)
    if not root.is_dir():
        raise UserError(f"no folder {folder!r}")
    runs, problems = find_runs(root)
    if not runs:
        left_out = f" that can be read: {'; '.join(problems)}" if problems else ""
        hint = "" if problems else " (a run is a folder with config.json)"
        raise UserError(f"no run in {folder!r}{left_out}{hint}")
    # The picture before the text: `zoo runs DIR | head` ends us while we print.
    refused = _draw(runs, root / "runs.png", folder)
    print(f"{len(runs)} run{'s' * (len(runs) > 1)} in {folder}\n")
    for line in show_table(make_columns(runs), terminal_width()):
        print(line)
    for problem in problems:
        print(f"left out: {problem}")
    if refused:
        raise UserError(refused)
    if any(run.rows for run in runs):
        print(f"curves: {root / 'runs.png'}")
    return len(problems)


def _draw(runs: Sequence[Run], path: epath.Path, title: str) -> str:
    """Draws all curves; returns why it could not, or ''."""
    if any(run.rows for run in runs):
        try:
            draw_runs({run.name: run.rows for run in runs}, path, title)
        except OSError as error:
            return f"cannot write {path}: {error.strerror or error}"
    return ""


def find_runs(root: epath.Path) -> tuple[list[Run], list[str]]:
    """The runs under a folder, in the order of their names, and a line for each left out."""
    runs, problems = [], []
    for folder in _run_folders(root, MAX_DEPTH):
        name = str(folder)[len(str(root)) :].strip("/") or root.resolve().name
        try:
            config = read_config(folder / "config.json")
            rows = [row for row in read_rows(folder) if isinstance(row.get("split"), str)]
            runs.append(Run(name, config, rows))
        except (ValueError, OSError) as error:
            problems.append(f"{name}: {error}")
    return sorted(runs, key=lambda run: _natural(run.name)), sorted(problems)


def _run_folders(folder: epath.Path, depth: int) -> Iterable[epath.Path]:
    if (folder / "config.json").exists():
        yield folder
    elif depth:
        for child in sorted(folder.iterdir()):
            # A link to a run beside it ('latest') would show that run twice.
            if child.is_dir() and not os.path.islink(child) and not child.name.startswith("."):
                yield from _run_folders(child, depth - 1)


def _natural(name: str) -> list[tuple[float, str]]:
    """'run10' comes after 'run9', 'lr0.001' after 'lr0.0003'."""
    words = re.split(r"(\d+(?:\.\d+)?)", name)  # every second one is a number
    return [(float(w), "") if i % 2 else (-1.0, w) for i, w in enumerate(words)]


def read_config(path: epath.Path) -> dict[str, Any]:
    """A run's config by dotted key, the entries of model.arguments and its like each by their own.

    Raises ValueError with a reason when the file is no config of a run.
    """
    try:
        tree = json.loads(path.read_text())
    except ValueError:
        raise ValueError("config.json is not readable JSON") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("train"), dict):
        raise ValueError("config.json is not that of a run")
    return _spread(flatten(tree))


def _spread(config: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            out |= {f"{key}.{name}": entry for name, entry in value.items()}
        else:
            out[key] = value
    return out


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted key -> its value in each run, for the keys in which the runs differ.

    A key that an older run does not have counts as its default, an argument not given as '-'.
    """
    default = _spread(flatten(to_dict(Config())))
    keys = dict.fromkeys([*(key for run in runs for key in run.config), *default])
    out = {}
    for key in keys:
        values = [run.config.get(key, default.get(key, NONE)) for run in runs]
        if len({json.dumps(value, sort_keys=True) for value in values}) > 1:
            out[key] = values
    return out


def make_columns(runs: Sequence[Run]) -> list[Column]:
    """Name, step, what differs, the last metrics, the best of the validation."""
    columns = [
        Column(["run"], [run.name for run in runs], right=False, limit=36),
        Column(["step"], [run.progress for run in runs]),
    ]
    for key, values in differing(runs).items():
        *groups, name = key.split(".")
        text = any(isinstance(value, str) and value != NONE for value in values)
        header = [*(f"{group}." for group in groups), name]
        columns.append(Column(header, [*map(show, values)], right=not text))
    splits = ["val", "test"]
    if not all(run.last("val") or run.last("test") for run in runs):
        splits.insert(0, "train")  # a run that has just begun has nothing else
    for split in splits:
        last = [run.last(split) for run in runs]
        for name in metric_names(last):
            if name not in ("gradient_norm", "learning_rate"):
                cells = [show_metric(row.get(name)) if name in row else NONE for row in last]
                columns.append(Column([split, name.replace("_", " ")], cells))
    return [*columns, *_best_column(runs)]


def _best_column(runs: Sequence[Run]) -> list[Column]:
    """The best validation accuracy of each run and its step, or loss where there is none."""
    name = "accuracy" if any("accuracy" in run.last("val") for run in runs) else "loss"
    sign = 1 if name == "accuracy" else -1
    cells = []
    for run in runs:
        rows = [r for r in run.rows if r["split"] == "val" and _is_number(r.get(name))]
        best = max(rows, key=lambda row: sign * row[name], default=None)
        cells.append(NONE if best is None else f"{show_metric(best[name])} @{best['step']}")
    return [Column(["best val", f"{name} @step"], cells)] if set(cells) != {NONE} else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def show(value: Any) -> str:
    """A config value in a cell."""
    if isinstance(value, str) and value:
        return value
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else repr(value)


def show_metric(value: Any) -> str:
    """Four decimals; large and tiny values keep five digits. JSON's null was no finite number."""
    if not _is_number(value):
        return "nan"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4e}"


def show_table(columns: Sequence[Column], width: int) -> list[str]:
    """Lines of at most `width` where that can be: what does not fit beside the runs' names goes
    into a further table below, which names the runs again."""
    lines: list[str] = []
    for table in _pack(columns, width):
        rows: list[list[str]] = []
        height = max(len(column.header) for column in table)
        for i in range(height):
            rows.append([([""] * (height - len(c.header)) + c.header)[i] for c in table])
        rows.append(["-" * column.width for column in table])
        for i in range(len(table[0].cells)):
            folded = [_fold(column.cells[i], column.limit) for column in table]
            for j in range(max(map(len, folded))):
                rows.append([cell[j] if j < len(cell) else "" for cell in folded])
        right = {i for i, column in enumerate(table) if column.right}
        lines += [*align(rows, right), ""]
    return lines


def _pack(columns: Sequence[Column], width: int) -> list[list[Column]]:
    names, *others = columns
    tables = [[names]]
    used = names.width
    for column in others:
        if len(tables[-1]) > 1 and used + 2 + column.width > width:
            tables.append([names])
            used = names.width
        tables[-1].append(column)
        used += 2 + column.width
    return tables


def _fold(cell: str, limit: int) -> list[str]:
    return [cell[i : i + limit] for i in range(0, len(cell), limit)] or [""]
