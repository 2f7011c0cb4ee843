"""State dicts of PyTorch (`.bin`, `.pt`, `.pth`), read without torch and without running code.

Such a file is a pickle, and a pickle is a program. This one's program may use the names of two
tables, which make plain data here; any other name is refused before anything is called. The pickle
tells only where each tensor lies; the numbers are read from the file when they are asked for.

Two layouts: a zip with `NAME/data.pkl` and one member a storage (torch 1.6 and later), and the
older one: five pickles one after another, then the storages.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from zoo.config import UserError
from zoo.pretrained.safetensors_file import Entry, PathLike, Tensors, read_span

STORAGES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
# What the standard library raises for a damaged zip.
# The last: a name of a member that is no text.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, UnicodeError)


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    numel: int


class _View(NamedTuple):
    """A tensor: `shape` and `strides` (in elements) over a storage, from element `start`."""

    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def reach(self) -> int:
        """How many elements of the storage the tensor spans, from `start`."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))


class _Span(NamedTuple):
    """Where a storage lies: in the file itself or, where `member` is named, in a packed member."""

    start: int
    num_bytes: int
    member: str = ""


class TorchFile(Tensors):
    """A file of `torch.save(state_dict)`; the state dict may lie under 'state_dict' or 'model'."""

    def __init__(self, path: PathLike):
        """Raises UserError for a file that is cut off, is no state dict, or wants to run code."""
        self._path, place = epath.Path(path), str(path)
        with self._path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            size = self._path.stat().length
            loaded, self._spans = (_open_zip if is_zip else _open_legacy)(place, file, size)
        self._views = _find_state_dict(place, loaded)
        for name, view in self._views.items():
            _check_view(place, name, view, self._spans)
        entries = [Entry(n, v.shape, v.storage.dtype) for n, v in self._views.items()]
        super().__init__(place, entries)

    def read(self, name: str) -> np.ndarray:
        entry, view = self.entry(name), self._views[name]
        itemsize = entry.dtype.itemsize
        flat = self._read_bytes(
            self._spans[view.storage.key], view.start * itemsize, view.reach() * itemsize
        ).view(entry.dtype)
        if 0 in view.shape:
            return flat.reshape(view.shape)
        strides = [stride * itemsize for stride in view.strides]
        strided = np.lib.stride_tricks.as_strided(flat, view.shape, strides, writeable=False)
        # `reshape`: ascontiguousarray makes a vector of a scalar.
        return np.ascontiguousarray(strided).reshape(view.shape)

    def _read_bytes(self, span: _Span, start: int, num_bytes: int) -> np.ndarray:
        if not span.member:
            return read_span(self._path, span.start + start, num_bytes)
        try:
            with self._path.open("rb") as file, zipfile.ZipFile(file) as archive:
                whole = archive.read(span.member)
        except ZIP_ERRORS as error:
            raise UserError(f"{self.place}: {span.member!r} is damaged: {error}") from error
        return np.frombuffer(whole, np.uint8)[start : start + num_bytes]


class _Callable:
    """A name that a pickle may call. Nothing in it can be set by a pickle's BUILD."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function is given a state")


class _Dict(dict):
    """An OrderedDict of the file; torch hangs version notes on it, which we have no use for."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _rebuild_tensor(
    storage: Any, start: Any, shape: Any, strides: Any, grad: Any = 0, hooks: Any = 0, meta: Any = 0
) -> _View:
    if not isinstance(storage, _Storage) or not _is_counts(shape) or not _is_counts(strides):
        raise pickle.UnpicklingError("a tensor without storage, shape or strides")
    if not _is_counts([start]) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor whose strides do not fit its shape")
    if meta:
        raise pickle.UnpicklingError(f"a tensor that is marked {meta}")  # conjugated or negated
    return _View(storage, start, tuple(shape), tuple(strides))


def _is_counts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(type(n) is int and n >= 0 for n in value)


_CALLABLE = {
    "torch._utils._rebuild_tensor_v2": _Callable(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Callable(lambda data, *grad_and_hooks: data),
    "collections.OrderedDict": _Callable(_Dict),
    "torch.Size": _Callable(tuple),
}


class _Unpickler(pickle.Unpickler):
    """Makes dicts, numbers, strings and `_View`s, and nothing else.

    Whatever an opcode calls or builds comes from `find_class`, so what that refuses is never run.
    """

    def __init__(self, file: Any, place: str):
        super().__init__(file, encoding="utf-8")  # files written under Python 2 hold byte strings
        self.place = place
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in STORAGES:
            return full  # a string stands for the class: nothing can be done with it
        if full not in _CALLABLE:
            raise UserError(
                f"{self.place}: its pickle wants to call {full}: refused, no code was run"
                " (save the state dict alone, or take the model's .safetensors)"
            )
        return _CALLABLE[full]

    def persistent_load(self, pid: Any) -> _Storage:
        # ("storage", class, key, device, elements), in the old layout also a view on a storage,
        # which torch has not written since 0.4.
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or any(pid[5:]):
            raise pickle.UnpicklingError("an unknown kind of storage")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, str) or kind not in STORAGES or not isinstance(key, str):
            raise pickle.UnpicklingError("an unknown kind of storage")
        if not _is_counts([count]):
            raise pickle.UnpicklingError("a storage without a size")
        storage = _Storage(key, STORAGES[kind], count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError("a storage of two types")
        return storage


def _load(unpickler: _Unpickler) -> Any:
    """One object of the pickle. Raises UserError for a damaged or a refused one."""
    try:
        return unpickler.load()
    except UserError:
        raise
    # Damaged opcodes raise almost anything, and none of it is a bug of ours.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{unpickler.place}: its pickle is cut off or damaged: {reason}") from error


def _open_zip(place: str, file: Any, size: int) -> tuple[Any, dict[str, _Span]]:
    """The pickled object and the storages of the newer layout."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            roots = [n.removesuffix("data.pkl") for n in members if n.endswith("/data.pkl")]
            if len(roots) != 1:
                raise UserError(f"{place}: no torch file (a zip without data.pkl)")
            if f"{roots[0]}constants.pkl" in members:
                raise UserError(f"{place}: a TorchScript program (save its state_dict() alone)")
            order = f"{roots[0]}byteorder"
            if order in members and archive.read(order) != b"little":
                raise UserError(f"{place}: written on a big-endian machine, which is not supported")
            with archive.open(f"{roots[0]}data.pkl") as pickled:
                unpickler = _Unpickler(pickled, place)
                loaded = _load(unpickler)
            spans = {}
            for key in unpickler.storages:
                info = members.get(f"{roots[0]}data/{key}")
                if info is None:
                    raise UserError(f"{place}: damaged: no storage {key!r} in the zip")
                spans[key] = _find_member(place, file, info, size)
    except ZIP_ERRORS as error:
        raise UserError(f"{place}: truncated or no torch file: {error}") from error
    return loaded, spans


def _find_member(place: str, file: Any, info: zipfile.ZipInfo, size: int) -> _Span:
    if info.compress_type != zipfile.ZIP_STORED:
        return _Span(0, info.file_size, info.filename)
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise UserError(f"{place}: damaged: no member {info.filename!r} where the zip says")
    # The local name and extra field may be longer than the directory's: torch pads with them.
    start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    if start + info.file_size > size:
        raise UserError(f"{place}: truncated in {info.filename!r}")
    return _Span(start, info.file_size)


def _open_legacy(place: str, file: Any, size: int) -> tuple[Any, dict[str, _Span]]:
    """The pickled object and the storages of the older layout."""
    if file.read(1) != b"\x80":  # the opcode with which all of torch's pickles begin
        raise UserError(f"{place}: no torch file (neither a zip nor a pickle)")
    file.seek(0)
    if _load(_Unpickler(file, place)) != LEGACY_MAGIC:
        raise UserError(f"{place}: no torch file (a pickle without torch's magic number)")
    version, system = _load(_Unpickler(file, place)), _load(_Unpickler(file, place))
    if version != LEGACY_VERSION:
        raise UserError(f"{place}: torch layout {version}, known is {LEGACY_VERSION}")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError(f"{place}: written on a big-endian machine, which is not supported")
    unpickler = _Unpickler(file, place)
    loaded, keys = _load(unpickler), _load(_Unpickler(file, place))
    known = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not known or set(keys) != set(unpickler.storages):
        raise UserError(f"{place}: damaged: its list of storages does not fit its tensors")
    spans, start = {}, file.tell()
    for key in keys:
        file.seek(start)
        head = file.read(8)
        count = int.from_bytes(head, "little", signed=True)
        num_bytes = max(count, 0) * unpickler.storages[key].dtype.itemsize
        end = start + 8 + num_bytes
        if len(head) < 8 or end > size:
            raise UserError(f"{place}: truncated: it ends at byte {size}, in a storage up to {end}")
        spans[key] = _Span(start + 8, num_bytes)
        start = end
    return loaded, spans


def _find_state_dict(place: str, loaded: Any) -> dict[str, _View]:
    """The tensors by name. Raises UserError where something else is among them."""
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and list(loaded) == [key] and isinstance(loaded[key], dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise UserError(f"{place}: holds a {_describe(loaded)}, expected a state dict")
    strange = [
        f"{name!r} ({_describe(value)})"
        for name, value in loaded.items()
        if not isinstance(name, str) or not isinstance(value, _View)
    ]
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise UserError(
            f"{place}: no tensors: {', '.join(strange[:5])}{more} (save the state dict alone)"
        )
    return dict(loaded)


def _describe(value: Any) -> str:
    ours = {_View: "tensor", _Dict: "dict", _Storage: "storage", _Callable: "function"}
    return ours.get(type(value), type(value).__name__)


def _check_view(place: str, name: str, view: _View, spans: dict[str, _Span]) -> None:
    storage = view.storage
    stored = spans[storage.key].num_bytes // storage.dtype.itemsize
    if stored < storage.numel or view.start + view.reach() > stored:
        raise UserError(
            f"{place}: damaged: {name!r} needs {view.start + view.reach()} elements"
            f" of a storage of {storage.numel}, the file holds {stored}"
        )
