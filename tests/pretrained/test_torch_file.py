"""Torch's files: read without torch, and no pickle ever runs code.

`files/zip.pt` and `files/legacy.pt` were written by torch 2.13: the state dict of `recorded()`, in
the second under 'state_dict'.
"""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from test_tensors import FILES, Evil, assert_equal

from zoo.config import UserError
from zoo.pretrained.tensors import TorchFile, open_tensors

PICKLES = ("zip.pt", "legacy.pt")


def recorded() -> dict[str, np.ndarray]:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    plain = {
        "double": "f8",
        "half": "f2",
        "bfloat16": ml_dtypes.bfloat16,
        "int": "i4",
        "short": "i2",
        "char": "i1",
        "byte": "u1",
        "bool": "?",
    }
    return {
        "matrix": base,
        "transposed": base.T,
        "column": base[1:, 2],
        "parameter": np.float32([1.5, -2.0]),
        "scalar": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "expanded": np.full((2, 3), 3, np.float32),
        **{name: np.array([0, 1, 2]).astype(dtype) for name, dtype in plain.items()},
    }


@pytest.mark.parametrize("name", PICKLES)
def test_recorded_files_of_torch(name):
    tensors = open_tensors(FILES / name)
    assert isinstance(tensors, TorchFile)
    assert_equal(tensors, recorded())


@pytest.mark.parametrize("name", PICKLES)
def test_a_torch_file_cut_anywhere_is_refused(tmp_path, name):
    whole = (FILES / name).read_bytes()
    path = tmp_path / name
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"truncated|no torch file|cut off") as caught:
            open_tensors(path)
        assert "\n" not in str(caught.value)


def test_a_member_whose_name_is_no_text(tmp_path):
    spoiled = bytearray((FILES / "zip.pt").read_bytes())
    spoiled[30] = 0x85  # the first letter of the first name
    (tmp_path / "zip.pt").write_bytes(spoiled)
    with pytest.raises(UserError, match="truncated or no torch file"):
        open_tensors(tmp_path / "zip.pt")


def test_a_packed_zip(tmp_path):
    path = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(FILES / "zip.pt") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_equal(open_tensors(path), recorded())


def parts(value) -> bytes:
    """The opcodes that make a value, without beginning and end."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(
    kind="torch FloatStorage", key="0", numel=6, start=0, shape=(2, 3), strides=(3, 1), extra=()
) -> bytes:
    """The opcodes of one tensor as torch writes them."""
    module, name = kind.split()
    pid = b"(" + parts("storage") + f"c{module}\n{name}\n".encode() + parts(key) + parts("cpu")
    storage = pid + parts(numel) + b"tQ"
    rest = b"".join(parts(x) for x in (start, shape, strides, False, None, *extra))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def state_dict(**values: bytes) -> bytes:
    items = b"".join(parts(name) + value for name, value in values.items())
    return b"\x80\x02}(" + items + b"u."


def save(path, layout, pickled, storage=bytes(24), order=b"little", keys=("0",)) -> pathlib.Path:
    """A torch file around a hand-written pickle with one storage."""
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", pickled)
            archive.writestr("x/byteorder", order)
            for key in keys:
                archive.writestr(f"x/data/{key}", storage)
        return path
    system = {"little_endian": order == b"little"}
    heads = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system)]
    stored = [(len(storage) // 4).to_bytes(8, "little") + storage] * len(keys)
    path.write_bytes(b"".join([*heads, pickled, pickle.dumps(list(keys), 2), *stored]))
    return path


LAYOUTS = pytest.mark.parametrize("layout", ["zip", "legacy"])


@LAYOUTS
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_wants_to_run_code(tmp_path, layout, protocol):
    sentinel = tmp_path / "it ran"
    evil = Evil(sentinel)
    for value in (evil, {"a": evil}, {"model": {"a": [evil]}}):
        path = save(tmp_path / "evil.bin", layout, pickle.dumps(value, protocol))
        with pytest.raises(UserError) as caught:
            open_tensors(path)
        assert str(caught.value).startswith(f"{path}: its pickle wants to call posix.system: ref")
        assert not sentinel.exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()  # the pickle is a real one


def test_code_in_every_pickle_of_the_old_layout(tmp_path):
    sentinel = tmp_path / "it_ran"
    evil = pickle.dumps(Evil(sentinel), 2)
    good = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    good += [state_dict(a=tensor()), pickle.dumps(["0"], 2)]
    for position in range(5):
        path = tmp_path / "evil.bin"
        path.write_bytes(b"".join([*good[:position], evil, *good[position:]]))
        with pytest.raises(UserError, match="refused, no code was run"):
            open_tensors(path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch.storage _load_from_bytes",
        "torch.storage UntypedStorage",
        "torch UntypedStorage",
        "torch._utils _rebuild_tensor_v3",
        "torch load",
        "__builtin__ eval",
        "builtins getattr",
        "collections OrderedDict.fromkeys",
        "numpy.core.multiarray _reconstruct",
    ],
)
@LAYOUTS
def test_names_that_are_refused(tmp_path, layout, name):
    module, attribute = name.split()
    pickled = f"\x80\x02c{module}\n{attribute}\n(tR.".encode("latin-1")
    with pytest.raises(UserError, match=f"wants to call {module}.{attribute}: refused"):
        open_tensors(save(tmp_path / "x.bin", layout, pickled))


@pytest.mark.parametrize(
    "opcodes",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n" + parts({"_make": 1}) + b"b",  # BUILD on ours
        b"ctorch._utils\n_rebuild_tensor_v2\nN" + parts({"_make": 1}) + b"\x86b",
        b"ccollections\nOrderedDict\n" + parts({"a": 1}) + b"b",
        b"ctorch\nFloatStorage\n" + parts({"a": 1}) + b"b",
        b"ctorch\nFloatStorage\n)R",  # a storage class is nothing to call
        b"ctorch\nFloatStorage\n)\x81",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"\x82\x01",  # an extension code
        parts(("storage", "torch.FloatStorage", 1, "cpu", 6)) + b"Q",
        parts(("module", "a", "b", "c")) + b"Q",
        parts("storage") + b"Q",
    ],
)
def test_opcodes_that_would_change_or_call_something(tmp_path, opcodes):
    path = save(tmp_path / "x.bin", "zip", state_dict(a=opcodes))
    with pytest.raises(UserError, match="its pickle is cut off or damaged"):
        open_tensors(path)
    assert_equal(open_tensors(FILES / "zip.pt"), recorded())


@LAYOUTS
def test_a_tensor_written_by_hand(tmp_path, layout):
    data = np.arange(6, dtype=np.float32)
    pickled = state_dict(
        a=tensor(), b=tensor(shape=(3, 2), strides=(1, 3)), c=tensor(start=5, shape=(), strides=())
    )
    tensors = open_tensors(save(tmp_path / "x.pth", layout, pickled, data.tobytes()))
    matrix = data.reshape(2, 3)
    assert_equal(tensors, {"a": matrix, "b": matrix.T, "c": data[5].reshape(())})


@LAYOUTS
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 1}, "'a' needs 7 elements of a storage of 6, the file holds 6"),
        ({"shape": (3, 3)}, "'a' needs 9 elements"),
        ({"strides": (4, 1)}, "'a' needs 7 elements"),
        ({"numel": 7}, "of a storage of 7, the file holds 6"),
        ({"start": -1}, "damaged"),
        ({"shape": (-2, 3)}, "without storage, shape or strides"),
        ({"strides": (-3, 1)}, "without storage, shape or strides"),
        ({"strides": (1,)}, "strides do not fit its shape"),
        ({"shape": 3}, "without storage, shape or strides"),
        ({"extra": ({"conj": True},)}, "marked {'conj': True}"),
        ({"kind": "torch ComplexFloatStorage"}, "wants to call torch.ComplexFloatStorage"),
        ({"kind": "torch Size"}, "an unknown kind of storage"),
    ],
)
def test_a_tensor_out_of_bounds(tmp_path, layout, changes, message):
    with pytest.raises(UserError, match=message):
        open_tensors(save(tmp_path / "x.bin", layout, state_dict(a=tensor(**changes))))


@LAYOUTS
@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (state_dict(a=tensor(), epoch=parts(3)), r"no tensors: 'epoch' \(int\) .save the state"),
        (state_dict(model=state_dict(a=tensor())[2:-1], x=parts(3)), r"'model' \(dict\), 'x' \(i"),
        (b"\x80\x02" + tensor() + b".", "holds a tensor, expected a state dict"),
        (b"\x80\x02]" + tensor() + b"a.", "holds a list, expected a state dict"),
        (state_dict(a=tensor(), b=tensor("torch IntStorage")), "a storage of two types"),
    ],
)
def test_what_is_no_state_dict(tmp_path, layout, pickled, message):
    with pytest.raises(UserError, match=message):
        open_tensors(save(tmp_path / "x.bin", layout, pickled))


@LAYOUTS
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_inside(tmp_path, layout, key):
    pickled = state_dict(**{key: state_dict(a=tensor())[2:-1]})
    tensors = open_tensors(save(tmp_path / "x.bin", layout, pickled))
    assert_equal(tensors, {"a": np.zeros((2, 3), np.float32)})


@LAYOUTS
def test_storages_that_are_not_there_and_the_other_byte_order(tmp_path, layout):
    pickled = state_dict(a=tensor())
    with pytest.raises(UserError, match=r"damaged: .* storage"):
        open_tensors(save(tmp_path / "x.bin", layout, pickled, keys=()))
    with pytest.raises(UserError, match="big-endian"):
        open_tensors(save(tmp_path / "x.bin", layout, pickled, order=b"big"))


def test_reading_in_threads():
    for name in ("zip.pt", "legacy.pt"):
        tensors = open_tensors(FILES / name)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            read = list(pool.map(tensors.read, ["matrix", "transposed"] * 50))
        assert all(np.array_equal(a, b.T) for a, b in zip(read[::2], read[1::2], strict=True))


def test_shards_of_torch(tmp_path):
    for name in PICKLES:
        (tmp_path / f"{name}.bin").write_bytes((FILES / name).read_bytes())
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(recorded(), "zip.pt.bin")}))
    assert_equal(open_tensors(index), recorded())
