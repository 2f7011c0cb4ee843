"""Tensors by name, one at a time, and the safetensors files that hold them.

The format is read and written by us, tensor by tensor: a model larger than half the memory can be
converted, which the library's `save_file` (it wants the whole dict) does not allow. No file is
mapped, because mapped pages count as memory of the process.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from zoo.config import UserError, nearest

PathLike = str | os.PathLike

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
MAX_HEADER_BYTES = 100_000_000  # the library's own limit
READ_AHEAD_BYTES = 64 * 2**20  # larger tensors are read one at a time
PARTIAL = ".partial"  # the suffix of a file that is not whole yet


@dataclass(frozen=True)
class Entry:
    """What is known of a tensor before it is read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Tensors(abc.ABC):
    """Tensors by name, read one at a time; `place` is what errors name. Safe to read in threads."""

    def __init__(self, place: str, entries: Iterable[Entry]):
        self.place = place
        self._entries = {entry.name: entry for entry in entries}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """All names, in the order of the file."""
        return list(self._entries)

    def entry(self, name: str) -> Entry:
        """Name, shape and dtype of one tensor. Raises UserError where there is no such name."""
        if name not in self._entries:
            raise UserError(f"{self.place}: no tensor {name!r}{nearest(name, self._entries)}")
        return self._entries[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor. Raises UserError where there is no such name."""
        return self.entry(name).shape

    def dtype(self, name: str) -> np.dtype:
        """The dtype of one tensor (of `ml_dtypes` for bfloat16 and the 8-bit floats).

        Raises UserError where there is no such name.
        """
        return self.entry(name).dtype

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """One tensor in C-contiguous memory; no other tensor's bytes are read.

        Raises UserError where there is no such name, or where the file has been cut since.
        """

    def origins(self, name: str) -> tuple[str, ...]:
        """The keys of the file that a tensor is made of."""
        return (self.entry(name).name,)

    def open_rows(self, name: str) -> Callable[[int, int], np.ndarray]:
        """A function that gives rows `start` to `stop` of a tensor.

        So a large one can be turned without standing there twice, where the kind of file allows it.
        """
        array = self.read(name)
        return lambda start, stop: array[start:stop]


class SafetensorsFile(Tensors):
    """One `.safetensors` file, its header checked in full when it is opened."""

    def __init__(self, path: PathLike):
        """Raises UserError for a file that is cut off or breaks a rule of the format."""
        self._path = epath.Path(path)
        place, size = str(path), self._path.stat().length
        length = int.from_bytes(_read_head(self._path, size, 0, 8).tobytes(), "little")
        if length > MAX_HEADER_BYTES:
            raise UserError(f"{place}: no safetensors file (a header of {length} bytes)")
        header = _parse_header(place, _read_head(self._path, size, 8, length).tobytes())
        self.metadata: dict[str, str] = _check_metadata(place, header.pop("__metadata__", {}))
        spans = {name: _check_entry(place, name, row) for name, row in header.items()}
        _check_spans(place, spans, 8 + length, size)
        self._starts = {name: 8 + length + start for name, (_, start) in spans.items()}
        super().__init__(place, [entry for entry, _ in spans.values()])

    def read(self, name: str) -> np.ndarray:
        entry = self.entry(name)
        flat = read_span(self._path, self._starts[name], entry.nbytes)
        return flat.view(entry.dtype).reshape(entry.shape)

    def open_rows(self, name: str) -> Callable[[int, int], np.ndarray]:
        entry, begin = self.entry(name), self._starts[name]
        row = entry.nbytes // max(entry.shape[0], 1)

        def read_rows(start: int, stop: int) -> np.ndarray:
            flat = read_span(self._path, begin + start * row, (stop - start) * row)
            return flat.view(entry.dtype).reshape(stop - start, *entry.shape[1:])

        return read_rows


def read_span(path: epath.Path, start: int, num_bytes: int) -> np.ndarray:
    """Bytes of a file as a fresh uint8 array `[num_bytes]`.

    Every call has a handle of its own, so threads never share a position.
    Raises UserError where the file ends before.
    """
    flat = np.empty(num_bytes, np.uint8)
    rest = flat.data
    with path.open("rb") as file:
        file.seek(start)
        while rest:
            count = file.readinto(rest)
            if not count:
                raise _truncated(str(path), path.stat().length, start + num_bytes)
            rest = rest[count:]
    return flat


def write_safetensors(
    folder: PathLike,
    entries: Sequence[Entry],
    read: Callable[[str], np.ndarray],
    *,
    stem: str = "model",
    max_shard_bytes: int = 5 * 10**9,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Writes `STEM.safetensors`, or numbered shards and their index, tensor by tensor.

    `read(name)` is called once a tensor. A small one (64 MiB) is read by a thread while the one
    before is written; of large ones one is in memory at a time. All files lie under temporary
    names until the last is whole, so that an error leaves none; the index gets its name last.

    Args:
      folder: is made where it does not exist; files of the same names are replaced.
      entries: what to write. A shard holds neighbours, a tensor is never split.
      max_shard_bytes: a shard is larger only where one tensor is.
      metadata: the header's strings; by default `{"format": "pt"}`, which transformers asks for.

    Returns:
      The names of the files, the index last.

    Raises UserError for a dtype that the format does not know, ValueError where two entries have
    one name or `read` returns another shape or dtype than its entry says.
    """
    _check_entries(entries)
    root = epath.Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    shards = _split(entries, max_shard_bytes)
    count = len(shards)
    files = [f"{stem}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    if count == 1:
        files = [f"{stem}.safetensors"]
    names = files if count == 1 else [*files, f"{stem}.safetensors.index.json"]
    header = {"format": "pt"} if metadata is None else dict(metadata)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            arrays = _read_ahead(pool, read, [e for shard in shards for e in shard])
            for file, shard in zip(files, shards, strict=True):
                _write_shard(root / f"{file}{PARTIAL}", shard, arrays, header)
        if count > 1:
            (root / f"{names[-1]}{PARTIAL}").write_text(_make_index(files, shards))
        for name in names:
            (root / f"{name}{PARTIAL}").replace(root / name)
    except BaseException:
        for name in names:
            (root / f"{name}{PARTIAL}").unlink(missing_ok=True)
        raise
    return names


def _truncated(place: str, end: int, promised: int) -> UserError:
    return UserError(f"{place}: truncated: it ends at byte {end}, its header promises {promised}")


def _read_head(path: epath.Path, size: int, start: int, num_bytes: int) -> np.ndarray:
    # Before the buffer is made: a damaged length must not ask for memory.
    if start + num_bytes > size:
        raise _truncated(str(path), size, start + num_bytes)
    return read_span(path, start, num_bytes)


def _parse_header(place: str, text: bytes) -> dict[str, Any]:
    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is there twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=no_twins)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: no safetensors file (its header is no JSON: {error})") from error
    if not isinstance(header, dict):
        raise UserError(f"{place}: no safetensors file (its header is no JSON object)")
    return header


def _check_metadata(place: str, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise UserError(f"{place}: __metadata__ must map strings to strings")
    return metadata


def _check_entry(place: str, name: str, row: Any) -> tuple[Entry, int]:
    """A row of the header as an entry and its first byte. Raises UserError where it is wrong."""
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise UserError(f"{place}: {name!r} must have dtype, shape and data_offsets in the header")
    if not isinstance(row["dtype"], str) or row["dtype"] not in DTYPES:
        known = ", ".join(DTYPES)
        raise UserError(f"{place}: {name!r} has dtype {row['dtype']!r} (known are: {known})")
    if not _is_counts(row["shape"]) or not _is_counts(row["data_offsets"]):
        raise UserError(f"{place}: shape and data_offsets of {name!r} must be lists of counts")
    entry = Entry(name, tuple(row["shape"]), DTYPES[row["dtype"]])
    start, *end = row["data_offsets"] or [0]
    if end != [start + entry.nbytes]:
        shape, size = row["shape"], entry.nbytes
        offsets = row["data_offsets"]
        raise UserError(
            f"{place}: {name!r} {shape} is {size} bytes, its data_offsets are {offsets}"
        )
    return entry, start


def _is_counts(value: Any) -> bool:
    # `type`, not isinstance: True is an int in Python, but no count in JSON.
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_spans(place: str, spans: dict[str, tuple[Entry, int]], first: int, size: int) -> None:
    """Raises UserError unless the tensors fill the rest of the file without hole or overlap."""
    end = 0
    for entry, start in sorted(spans.values(), key=lambda s: (s[1], s[0].nbytes)):
        if start != end:
            what = "a hole before" if start > end else "an overlap at"
            raise UserError(f"{place}: {what} {entry.name!r} (byte {start}, expected {end})")
        end = start + entry.nbytes
    if first + end > size:
        raise _truncated(place, size, first + end)
    if first + end < size:
        raise UserError(f"{place}: {size - first - end} bytes after the last tensor")


def _check_entries(entries: Sequence[Entry]) -> None:
    counts = collections.Counter(["__metadata__", *(entry.name for entry in entries)])
    twins = [name for name, count in counts.items() if count > 1]
    if twins:
        raise ValueError(f"tensors of one name, or of a name that is taken: {twins}")
    known = set(DTYPES.values())
    for entry in entries:
        if entry.dtype not in known:
            raise UserError(
                f"{entry.name!r}: safetensors has no dtype {entry.dtype}"
                f" (it has {', '.join(str(d) for d in DTYPES.values())})"
            )


def _split(entries: Sequence[Entry], max_shard_bytes: int) -> list[list[Entry]]:
    """Shards of neighbours; within each the widest dtype first, which keeps all data aligned."""
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.nbytes
    return [sorted(shard, key=lambda e: -e.dtype.itemsize) for shard in shards]


def _read_ahead(
    pool: concurrent.futures.Executor,
    read: Callable[[str], np.ndarray],
    entries: list[Entry],
) -> Iterator[np.ndarray]:
    """Arrays in order; a small one is read while the caller writes the one before.

    Two large ones at a time would pass the memory of a shard that holds but one.
    """
    ahead = None
    for entry, following in itertools.zip_longest(entries, entries[1:]):
        array = read(entry.name) if ahead is None else ahead.result()
        small = following is not None and max(entry.nbytes, following.nbytes) < READ_AHEAD_BYTES
        ahead = pool.submit(read, following.name) if small else None
        yield array
        del array  # so that the next one's reading finds its memory free


def _write_shard(
    path: epath.Path, shard: list[Entry], arrays: Iterator[np.ndarray], metadata: dict[str, str]
) -> None:
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for entry in shard:
        start, end = end, end + entry.nbytes
        row = {"dtype": codes[entry.dtype], "shape": list(entry.shape)}
        header[entry.name] = {**row, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin on a multiple of eight
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in shard:
            array = next(arrays)
            if array.shape != entry.shape or array.dtype != entry.dtype:
                got = f"{array.dtype} {list(array.shape)}"
                raise ValueError(
                    f"{entry.name!r} is {got}, expected {entry.dtype} {list(entry.shape)}"
                )
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            del array


def _make_index(files: list[str], shards: list[list[Entry]]) -> str:
    homes = {e.name: file for file, shard in zip(files, shards, strict=True) for e in shard}
    total = sum(entry.nbytes for shard in shards for entry in shard)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(homes.items()))}
    return json.dumps(index, indent=2) + "\n"
