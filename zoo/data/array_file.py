"""Several arrays in one file of the cache: written once, moved in place whole, mapped by name.

    the arrays, one after another, each from a multiple of 8 bytes on
    a table in JSON: name -> [dtype, number of entries, place of the first byte]
    8 bytes, the table's length, little-endian; 8 bytes, a mark

The table stands last, so that arrays of unknown length can be written as they are made. A file
without its end is none: it is made again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from zoo.config import UserError

_MARK = b"zoo-arr1"


class ArrayWriter:
    """Writes arrays into an open file: `begin` one, `append` to it, `begin` the next."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._table: dict[str, list[Any]] = {}
        self._place = 0

    def begin(self, name: str, dtype: str) -> None:
        """What is appended from now on belongs to the array of this name."""
        self._write(bytes(-self._place % 8))
        self._table[name] = [dtype, 0, self._place]

    def append(self, values: np.ndarray) -> None:
        """Adds the entries of a flat array. Raises UserError on numbers that the dtype lacks."""
        entry = next(reversed(self._table.values()))
        self._write(np.ascontiguousarray(values, entry[0]).tobytes())
        entry[1] += len(values)

    def add(self, name: str, values: np.ndarray) -> None:
        """A whole array."""
        self.begin(name, str(values.dtype))
        self.append(values)

    def close(self) -> None:
        """Writes the table."""
        table = json.dumps(self._table).encode()
        self._write(table + len(table).to_bytes(8, "little") + _MARK)

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._place += len(content)


def make_array_file(path: Path, write: Callable[[ArrayWriter], None]) -> None:
    """Makes a file unless it is there, in one move: other processes see the whole or nothing.

    Raises UserError when it cannot be written; what was there before is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and read_table(path) is not None:
            return
        # Under a name of its own: several processes may write at once, each moves a whole file to
        # the same place.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            try:
                writer = ArrayWriter(stream)
                write(writer)
                writer.close()
                stream.flush()
                os.replace(stream.name, path)
                _map_arrays.cache_clear()  # of a damaged file that lay there before
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(stream.name)
                raise
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} (data.cache): {error}") from None


def read_table(path: Path) -> dict[str, list[Any]] | None:
    """The table of a file, None where it has no whole one."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - 16, 0))
        end = stream.read()
        length = int.from_bytes(end[:8], "little")
        if len(end) < 16 or end[8:] != _MARK or length > size - 16:
            return None
        stream.seek(size - 16 - length)
        return json.loads(stream.read(length))


def map_array(path: str, name: str) -> np.ndarray:
    """One array of a file, mapped: its entries are read when they are looked at."""
    return _map_arrays(path)[name]


@functools.lru_cache(maxsize=64)
def _map_arrays(path: str) -> dict[str, np.ndarray]:
    table = read_table(Path(path))
    if table is None:
        raise UserError(f"{path} is damaged: delete it, and it is made again")
    arrays = {}
    for name, (dtype, size, place) in table.items():
        # An empty array cannot be mapped.
        made = np.memmap(path, dtype, "r", place, (size,)) if size else np.zeros(0, dtype)
        arrays[name] = made
    return arrays
