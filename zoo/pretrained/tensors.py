"""Every file of weights as a table of tensors that are read one at a time: `open_tensors(path)`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from zoo.config import UserError, nearest
from zoo.pretrained.safetensors_file import (
    DTYPES,
    Entry,
    PathLike,
    SafetensorsFile,
    Tensors,
    write_safetensors,
)
from zoo.pretrained.torch_file import ZIP_ERRORS, TorchFile

__all__ = [
    "Entry",
    "MemoryTensors",
    "NpzFile",
    "SafetensorsFile",
    "ShardedTensors",
    "Tensors",
    "TorchFile",
    "open_tensors",
    "write_safetensors",
]

INDEX = ".index.json"
_SUFFIXES: dict[str, Callable[[PathLike], Tensors]] = {
    ".safetensors": SafetensorsFile,
    ".bin": TorchFile,
    ".pt": TorchFile,
    ".pth": TorchFile,
}


class MemoryTensors(Tensors):
    """Arrays that are in memory already."""

    def __init__(self, arrays: Mapping[str, Any], place: str = "memory"):
        self._arrays = dict(arrays)
        super().__init__(place, [Entry(n, a.shape, a.dtype) for n, a in self._arrays.items()])

    def read(self, name: str) -> np.ndarray:
        shape = self.entry(name).shape
        return np.ascontiguousarray(self._arrays[name]).reshape(shape)


class NpzFile(Tensors):
    """An `.npz` file of plain arrays, their headers read when it is opened."""

    def __init__(self, path: PathLike):
        """Raises UserError for a damaged file, and for arrays of objects, strings or records."""
        self._path = epath.Path(path)
        place, entries = str(path), []
        try:
            with self._path.open("rb") as file, zipfile.ZipFile(file) as archive:
                for member in archive.namelist():
                    with archive.open(member) as stream:
                        shape, _, dtype = _read_npy_header(stream)
                    entries.append(Entry(member.removesuffix(".npy"), shape, _plain(dtype)))
        except (*ZIP_ERRORS, ValueError) as error:
            raise UserError(f"{place}: truncated or no .npz of plain arrays: {error}") from error
        super().__init__(place, entries)

    def read(self, name: str) -> np.ndarray:
        """One array in native byte order. Raises UserError on a damaged one too."""
        entry = self.entry(name)
        try:
            with (
                self._path.open("rb") as file,
                zipfile.ZipFile(file) as archive,
                archive.open(f"{name}.npy") as stream,
            ):
                array = np.lib.format.read_array(stream, allow_pickle=False)
        except (*ZIP_ERRORS, ValueError, KeyError) as error:
            raise UserError(f"{self.place}: {name!r} is damaged: {error}") from error
        if array.dtype.kind == "V":
            array = array.view(entry.dtype)
        # Also swaps the bytes of a big-endian array.
        return np.ascontiguousarray(array, entry.dtype).reshape(entry.shape)


class ShardedTensors(Tensors):
    """Several files behind one `*.index.json`, whose `weight_map` says which tensor is where."""

    def __init__(self, path: PathLike):
        """Raises UserError unless every shard is there and holds what the index says, no more."""
        index, place = epath.Path(path), str(path)
        homes = _read_index(place, index)
        files = sorted(set(homes.values()))
        missing = [file for file in files if not (index.parent / file).exists()]
        if missing:
            raise UserError(f"{place}: {len(missing)} of {len(files)} files missing: {missing}")
        shards = {file: _open_shard(place, index.parent / file) for file in files}
        for file, shard in shards.items():
            promised = {name for name, home in homes.items() if home == file}
            for name in sorted(promised - set(shard.names())):
                raise UserError(f"{place}: {name!r} is not in {file}{nearest(name, shard.names())}")
            for name in sorted(set(shard.names()) - promised):
                raise UserError(f"{place}: {file} holds {name!r}, which the index does not know")
        self._homes = {name: shards[file] for name, file in homes.items()}
        super().__init__(place, [shard.entry(name) for name, shard in self._homes.items()])

    def read(self, name: str) -> np.ndarray:
        self.entry(name)  # an unknown name is an error that names the index
        return self._homes[name].read(name)

    def open_rows(self, name: str) -> Callable[[int, int], np.ndarray]:
        self.entry(name)
        return self._homes[name].open_rows(name)


def open_tensors(path: PathLike) -> Tensors:
    """Opens a file of weights by what it holds: safetensors, torch, npz or an index of shards.

    Headers are read and checked, no numbers. Raises UserError for a missing, damaged or unknown
    file, and for one whose pickle wants to run code.
    """
    place = epath.Path(path)
    if place.is_dir():
        names = [p.name for p in place.iterdir() if p.name.endswith((INDEX, ".npz", *_SUFFIXES))]
        raise UserError(f"{path}: is a folder, name a file of weights in it: {sorted(names)}")
    if not place.exists():
        beside = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        raise UserError(f"{path}: no such file{nearest(place.name, beside)}")
    if place.name.endswith(INDEX):
        return ShardedTensors(path)
    with place.open("rb") as file:
        head = file.read(40)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a pointer of Git LFS, not the file itself (run: git lfs pull)")
    # What it holds comes first; the suffix decides where a file is cut too short to tell.
    if head[8:9] == b"{":
        return SafetensorsFile(path)
    if head.startswith(b"PK\x03\x04"):
        return NpzFile(path) if place.suffix == ".npz" else TorchFile(path)
    if head.startswith(b"\x80"):
        return TorchFile(path)
    kind = {**_SUFFIXES, ".npz": NpzFile}.get(place.suffix)
    if kind is None:
        known = ", ".join([*_SUFFIXES, ".npz", INDEX])
        raise UserError(f"{path}: no known kind of weights (known are: {known})")
    return kind(path)


def _open_shard(place: str, shard: epath.Path) -> Tensors:
    if shard.suffix not in _SUFFIXES:
        raise UserError(f"{place}: {shard.name} is no kind of shard ({', '.join(_SUFFIXES)})")
    return _SUFFIXES[shard.suffix](shard)


def _read_index(place: str, index: epath.Path) -> dict[str, str]:
    """The `weight_map`: name of a tensor -> name of a file in the index's own folder."""
    try:
        homes = json.loads(index.read_text())["weight_map"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{place}: no index of shards (no JSON with a weight_map)") from error
    if not isinstance(homes, dict) or not all(isinstance(file, str) for file in homes.values()):
        raise UserError(f"{place}: its weight_map must map names of tensors to names of files")
    for file in homes.values():
        # Somebody else's index must not lead out of its folder.
        if file in ("", ".", "..") or "/" in file or "\\" in file:
            raise UserError(f"{place}: {file!r} is no name of a file beside it")
    return homes


def _read_npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"array format {version}")


def _plain(dtype: np.dtype) -> np.dtype:
    """The dtype of the array as we return it. Raises ValueError for what is no plain number."""
    # numpy has no bfloat16 of its own: AugReg's files have it as two bytes without a meaning.
    if dtype == np.dtype("V2"):
        return np.dtype(ml_dtypes.bfloat16)
    native = dtype.newbyteorder("<")
    if native not in DTYPES.values():
        raise ValueError(f"dtype {dtype}")
    return native
