"""A recipe run and compared with the number it states: `zoo reproduce`, a row in RESULTS.md."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from etils import epath

from zoo.checkpoint import Checkpoints
from zoo.config import Config, Expected, UserError, load_expected, make_config, nearest
from zoo.config.show import deciding
from zoo.train import Result, fit
from zoo.train.workdir import find_versions

FREE = ("seed", "init_from", "train.num_seeds")  # that decide, and leave the recipe what it is
COLUMNS = (
    "recipe", "metric", "result", "stated", "tolerance", "verdict", "minutes", "config", "data",
    "versions", "hardware", "date",
)  # fmt: skip
HEADER = (
    "# Recipes run again\n\nWritten by `zoo reproduce`, a row a run.\n\n"
    f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
)


def reproduce(spec: str, values: Mapping[str, str], workdir: str | None, results: str) -> bool:
    """Runs a recipe, appends the row, prints it; returns whether the stated number was reached.

    Raises UserError on a mistake, before anything is run where that can be known, and what `fit`
    raises; then no row is written.
    """
    expected = load_expected(spec)
    config = make_config(spec, values)
    check_values(config, make_config(spec, {}))
    table = Path(results).expanduser()
    read_table(table)
    name = Path(spec.partition(".py:")[0]).stem + spec.partition(".py:")[2].replace(",", "_")
    folder = epath.Path(workdir or f"runs/reproduce/{name}")
    begun = max(Checkpoints(folder / "checkpoints").steps(), default=0)
    start = time.perf_counter()
    result = fit(config, folder)
    minutes = f"{(time.perf_counter() - start) / 60:.1f}"
    minutes += f" from step {begun}" if begun else ""
    found = find_metric(result, expected.metric)
    shown = " ".join([spec, *(f"--config.{key}={value}" for key, value in values.items())])
    row = make_row(shown, expected, found, minutes, config, result)
    append_row(table, row)
    print("\n".join(f"{column}: {cell}" for column, cell in zip(COLUMNS, row, strict=True)))
    return expected.is_reached(found)


def check_values(config: Config, plain: Config) -> None:
    """Raises UserError on a changed key that makes it another recipe than the one that states the
    number."""
    mine, theirs = deciding(config), deciding(plain)
    changed = [key for key in mine if mine[key] != theirs[key] and key not in FREE]
    if changed:
        raise UserError(
            f"--config.{changed[0]} makes another recipe, whose number nobody states "
            f"(of what decides, only {', '.join(FREE)} may change)"
        )


def find_metric(result: Result, metric: str) -> float:
    """Raises UserError on a metric that the run does not have."""
    split, _, name = metric.partition("/")
    known = [f"{s}/{n}" for s, values in result.metrics.items() for n in values]
    if metric not in known:
        raise UserError(
            f"the recipe states {metric!r}, which is not measured{nearest(metric, known)}"
        )
    return float(result.metrics[split][name])


def make_row(
    spec: str, expected: Expected, found: float, minutes: str, config: Config, result: Result
) -> tuple[str, ...]:
    """The cells of a row."""
    split, _, name = expected.metric.partition("/")
    spread = result.spreads.get(split, {}).get(name)
    told = f"{found:.4f}"
    if spread is not None:
        told += f" (95 %: {spread.low:.4f} to {spread.high:.4f}, {len(spread.values)} seeds)"
    versions = find_versions()
    packages = ("python", "zoo-jax", "jax", "flax", "optax")
    return (
        spec,
        expected.metric,
        told,
        f"{expected.value:g}",
        f"{expected.tolerance:g}",
        "reached" if expected.is_reached(found) else "not reached",
        minutes,
        hash_config(config),
        result.parts.dataset.fingerprint[:12],
        ", ".join(f"{p} {versions[p]}" for p in packages if p in versions),
        f"{versions['devices']}, {os.cpu_count()} cores",
        datetime.date.today().isoformat(),
    )


def hash_config(config: Config) -> str:
    """The first 12 digits of the sha256 of the keys that decide."""
    text = json.dumps(deciding(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_table(path: Path) -> bytes:
    """The file as it is, or a header where there is none.

    Raises UserError on a file that does not end in our table, and on a place where none can be.
    """
    header = HEADER.encode()
    if not path.exists():
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise UserError(f"cannot write {path}: no folder {path.parent} to write to")
        return header
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    head, lines = header.split(b"\n")[-3], content.rstrip().splitlines()
    if head not in lines or not all(line.startswith(b"|") for line in lines[lines.index(head) :]):
        raise UserError(
            f"{path} does not end in a table of zoo reproduce: name another file by --results"
        )
    return content if content.endswith(b"\n") else content + b"\n"


def append_row(path: Path, row: tuple[str, ...]) -> None:
    """Writes the file with one row more, in one move; what was there stays byte by byte."""
    cells = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row)
    draft = path.with_name(f"{path.name}.part")
    try:
        draft.write_bytes(read_table(path) + f"| {cells} |\n".encode())
        draft.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
