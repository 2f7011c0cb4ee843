"""Tables in files: CSV, TSV, JSONL, Parquet and NPZ, each with the same fields and mistakes.

`csv:PATH` names a file, a shell pattern of files (all of them 'train', or of the splits in their
column `split`), or a folder whose files are named by split (`train.csv`, `dev.csv`,
`train-00000-of-00002.parquet`). Which column is what is decided in zoo/data/tables/columns.py.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import DataConfig, DataError, UserError, nearest
from zoo.data.sources import Dataset
from zoo.data.splits import VALIDATION_NAMES, choose_names
from zoo.data.tables.cells import Origin, Table, to_list
from zoo.data.tables.columns import make_dataset
from zoo.data.tables.readers import (
    measure_arrays,
    read_csv,
    read_jsonl,
    read_npz,
    read_parquet,
    read_tsv,
)

_SHARD = re.compile(r"(.+?)-\d+-of-\d+.*")  # train-00000-of-00002
WHOLE = 2**30  # a file of more bytes is known by its size, its beginning and its end
EDGE = 2**26


def open_csv(name: str, config: DataConfig) -> Dataset:
    """`csv:PATH`: a header, then a row an example; quoted as RFC 4180 says."""
    return open_tables("csv", name, config)


def open_tsv(name: str, config: DataConfig) -> Dataset:
    """`tsv:PATH`: values between tabs, a quote is a letter like any other."""
    return open_tables("tsv", name, config)


def open_jsonl(name: str, config: DataConfig) -> Dataset:
    """`jsonl:PATH`: a JSON object a line."""
    return open_tables("jsonl", name, config)


def open_parquet(name: str, config: DataConfig) -> Dataset:
    """`parquet:PATH`: only the columns that are used are read."""
    return open_tables("parquet", name, config)


def open_npz(name: str, config: DataConfig) -> Dataset:
    """`npz:PATH`: arrays with a leading axis of examples; `x_train`, `y_test` name their split."""
    return open_tables("npz", name, config)


def open_tables(kind: str, name: str, config: DataConfig) -> Dataset:
    """The splits that the config asks for, read and their columns found.

    Raises UserError, with file and line, on whatever cannot be read.
    """
    files = find_files(kind, name)
    if list(files) == ["train"]:
        if kind == "npz":
            tables = split_arrays([read_npz(path) for path in files["train"]])
        else:
            tables = split_rows(read_files(kind, files["train"]), config.columns)
        chosen = choose_names(config, tables, f"{kind}:{name}")
        tables = {split: tables[split] for split in chosen}
    else:
        chosen = choose_names(config, files, f"{kind}:{name}")
        tables = {split: read_files(kind, files[split]) for split in chosen}
    digest = hashlib.sha256()
    for split in sorted(set(chosen) & set(files)) or ["train"]:
        for path in files[split]:
            digest.update(f"{split}:{hash_file(path)}".encode())
    return make_dataset(f"{kind}:{name}", tables, config, digest.hexdigest())


SUFFIXES = {
    "csv": (".csv", ".csv.gz"),
    "tsv": (".tsv", ".tsv.gz", ".tab"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
    "npz": (".npz",),
}


def find_files(kind: str, name: str) -> dict[str, list[str]]:
    """Split -> its files, sorted. Raises UserError when there is none."""
    source, pattern = f"data.source='{kind}:{name}'", os.path.expanduser(name)
    if not name:
        raise UserError(f"{source}: name a file, a pattern of files or a folder")
    if not os.path.isdir(pattern):
        paths = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
        if os.path.isfile(pattern):
            paths = [pattern]
        if not paths:
            folder = os.path.dirname(pattern) or "."
            there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            guess = nearest(os.path.basename(pattern), there) if there else ""
            raise UserError(f"{source}: no such file{guess}")
        return {"train": paths}
    files: dict[str, list[str]] = {}
    for path in sorted(Path(pattern).iterdir()):
        suffix = next((s for s in SUFFIXES[kind] if path.name.endswith(s)), None)
        if suffix is None or path.name.startswith("."):
            continue
        stem = path.name.removesuffix(suffix)
        shard = _SHARD.fullmatch(stem)
        files.setdefault(shard[1] if shard else stem, []).append(str(path))
    if not files:
        endings = ", ".join(f"*{s}" for s in SUFFIXES[kind])
        raise UserError(f"{source}: the folder has no file {endings}")
    return files


def hash_file(path: str) -> str:
    """sha256 of a file; of more than 1 GiB only of its size, beginning and end."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(f"{size}:".encode())
    with open(path, "rb") as stream:
        while chunk := stream.read(EDGE):
            digest.update(chunk)
            if size > WHOLE and stream.tell() < size:
                stream.seek(max(size - EDGE, stream.tell()))
    return digest.hexdigest()


def read_files(kind: str, paths: list[str]) -> Table:
    """All files of a split as one table; they must have the same columns."""
    if kind == "parquet":
        return read_parquet(paths)
    if kind == "npz":
        parts = [measure_arrays(read_npz(path)) for path in paths]
    else:
        read = {"csv": read_csv, "tsv": read_tsv, "jsonl": read_jsonl}[kind]
        parts = [read(path) for path in paths]
    return join_tables(parts)


def join_tables(tables: list[Table]) -> Table:
    """One table after another. Raises UserError when a column is missing in one of them."""
    first = tables[0]
    for table in tables[1:]:
        for a, b in ((first, table), (table, first)):
            for column in a.columns:
                if column not in b.columns:
                    raise DataError(
                        f"{b.origin.paths[0]} has no column {column!r}, which "
                        f"{a.origin.paths[0]} has{nearest(column, b.columns)}"
                    )
    if len(tables) == 1:
        return first
    columns = {
        name: np.concatenate([t.columns[name] for t in tables])
        if isinstance(first.columns[name], np.ndarray)
        else [value for t in tables for value in t.columns[name]]
        for name in first.columns
    }
    sizes = [len(t) for t in tables]
    lines = [t.origin.lines for t in tables]
    return Table(
        columns,
        Origin(
            tuple(t.origin.paths[0] for t in tables),
            np.cumsum([0, *sizes]),
            None if lines[0] is None else np.concatenate(lines),  # type: ignore[arg-type]
        ),
    )


def split_rows(table: Table, columns: Mapping[str, Any]) -> dict[str, Table]:
    """The rows of each split that a column `split` names, unless `columns` makes that a field.

    Raises UserError, with the line, on a word that is no split.
    """
    if "split" not in table.columns or "split" in _flatten(columns.values()):
        return {"train": table}
    words = to_list(table.columns["split"])
    known = ("train", *VALIDATION_NAMES, "test")
    rows: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        if word not in known:
            raise DataError(
                f"{table.origin.name(row)}: column 'split' says {word!r}"
                f"{nearest(str(word), known)}; if it is no split, set data.columns"
            )
        rows.setdefault(word, []).append(row)
    rest = Table({k: v for k, v in table.columns.items() if k != "split"}, table.origin)
    rest = dataclasses.replace(rest, class_names=table.class_names)
    return {split: rest.select(np.array(mine)) for split, mine in rows.items()}


def _flatten(values: Iterable[Any]) -> list[str]:
    return [x for value in values for x in ([value] if isinstance(value, str) else value)]


def split_arrays(tables: list[Table]) -> dict[str, Table]:
    """Arrays `x_train`, `y_train`, `x_test`, ... of one file as splits; others are all 'train'."""
    endings = ("train", "val", "valid", "validation", "dev", "test")
    names = list(tables[0].columns)
    pairs = {name: name.rpartition("_") for name in names}
    if len(tables) > 1 or not all(p[0] and p[2] in endings for p in pairs.values()):
        return {"train": join_tables([measure_arrays(t) for t in tables])}
    out: dict[str, dict[str, Any]] = {}
    for name, (field, _, split) in pairs.items():
        out.setdefault(split, {})[field] = tables[0].columns[name]
    return {split: measure_arrays(Table(c, tables[0].origin)) for split, c in out.items()}
