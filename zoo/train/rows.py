"""Rows of numbers as JSON lines: metrics.jsonl for results, timing.jsonl for speeds."""

from __future__ import annotations

import json
import math
from typing import Any

from etils import epath

Row = dict[str, Any]
SEEDS = "seeds"  # in a row of several seeds: metric -> values, deviation, low, high (seeds.Spread)
NO_METRICS = ("step", "split", SEEDS)


class RowWriter:
    """Appends rows to WORKDIR/NAME.jsonl; each is on disk when `write` returns.

    Object stores do not append: there every `flush` makes a part, NAME.00001.jsonl and so on.
    """

    def __init__(self, workdir: epath.Path, name: str):
        self._folder, self._name = workdir, name
        self._remote = "://" in str(workdir)
        self._waiting: list[str] = []
        path = workdir / f"{name}.jsonl"
        if not self._remote and path.exists() and path.read_bytes()[-1:] not in (b"\n", b""):
            # The line that a killed run left half-written stays, closed, and readers skip it.
            with path.open("a") as stream:
                stream.write("\n")

    def write(self, row: Row) -> None:
        """Writes one row; numbers that JSON lacks (nan, inf) become null."""
        line = json.dumps({k: _finite(v) for k, v in row.items()}) + "\n"
        if self._remote:
            self._waiting.append(line)
            return
        with (self._folder / f"{self._name}.jsonl").open("a") as stream:
            stream.write(line)

    def flush(self) -> None:
        """On an object store: writes the waiting rows as the next part. Called before each save."""
        if self._waiting:
            part = len(_parts(self._folder, self._name)) + 1
            (self._folder / f"{self._name}.{part:05d}.jsonl").write_text("".join(self._waiting))
            self._waiting.clear()


def read_rows(workdir: Any, name: str = "metrics") -> list[Row]:
    """The rows of a run, sorted by step, the last written one of each (step, split).

    A line that is no row (a kill or a full disk cut it off) is passed over.
    """
    rows: dict[tuple[int, str], Row] = {}
    for path in _parts(epath.Path(workdir), name):
        for line in path.read_bytes().decode(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # cut off by a kill; the resumed run wrote it again
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows[row["step"], row.get("split", "")] = row
    return sorted(rows.values(), key=lambda row: (row["step"], row.get("split", "")))


def _parts(folder: epath.Path, name: str) -> list[epath.Path]:
    if not folder.exists():
        return []
    found = [p for p in folder.iterdir() if p.name.startswith(f"{name}.") and p.suffix == ".jsonl"]
    return sorted(found, key=lambda p: p.name)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
