"""Files of weights: read tensor by tensor, checked strictly, written whole or not at all.

`files/library.safetensors` was written by the safetensors library.
"""

from __future__ import annotations

import io
import json
import math
import os
import pathlib
import pickle
import tracemalloc
import zipfile

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest

from zoo.config import UserError
from zoo.pretrained.safetensors_file import DTYPES
from zoo.pretrained.tensors import (
    Entry,
    MemoryTensors,
    NpzFile,
    SafetensorsFile,
    ShardedTensors,
    open_tensors,
    write_safetensors,
)

FILES = pathlib.Path(__file__).parent / "files"


def assert_equal(tensors, arrays):
    assert sorted(tensors.names()) == sorted(arrays)
    for name, expected in arrays.items():
        array = tensors.read(name)
        assert array.flags.c_contiguous
        assert array.shape == tensors.shape(name) == expected.shape
        assert array.dtype == tensors.dtype(name) == expected.dtype
        assert array.tobytes() == np.ascontiguousarray(expected).tobytes(), name


def write(folder, arrays, **options):
    tensors = MemoryTensors(arrays)
    entries = [tensors.entry(name) for name in tensors.names()]
    return write_safetensors(folder, entries, tensors.read, **options)


SOME = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5, dtype=np.int8),
    "c": np.array(2.5, ml_dtypes.bfloat16),
}


class Evil:
    """Pickles as a call of `os.system`."""

    def __init__(self, sentinel: pathlib.Path):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


# safetensors


@st.composite
def some_arrays(draw):
    arrays = {}
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    for name in draw(st.lists(names.filter(lambda n: n != "__metadata__"), unique=True)):
        dtype = draw(st.sampled_from(list(DTYPES.values())))
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        num_bytes = math.prod(shape) * dtype.itemsize
        # A bool may only be 0 or 1; of all other dtypes every bit pattern must survive.
        alphabet = st.integers(0, 1 if dtype.kind == "b" else 255)
        raw = bytes(draw(st.lists(alphabet, min_size=num_bytes, max_size=num_bytes)))
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
    return arrays


@hypothesis.given(some_arrays(), st.sampled_from([1, 40, 10**9]))
def test_round_trip(tmp_path_factory, arrays, max_shard_bytes):
    folder = tmp_path_factory.mktemp("round")
    names = write(folder, arrays, max_shard_bytes=max_shard_bytes)
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)
    assert_equal(open_tensors(folder / names[-1]), arrays)


@hypothesis.given(some_arrays())
def test_the_library_reads_ours_and_we_read_the_librarys(tmp_path_factory, arrays):
    library = pytest.importorskip("safetensors.numpy")
    # The library's numpy side has no 8-bit floats.
    arrays = {n: a for n, a in arrays.items() if "float8" not in str(a.dtype)}
    folder = tmp_path_factory.mktemp("library")
    write(folder, arrays)
    theirs = library.load_file(folder / "model.safetensors")
    assert_equal(MemoryTensors(theirs), arrays)
    library.save_file(arrays, folder / "theirs.safetensors", {"format": "np"})
    ours = SafetensorsFile(folder / "theirs.safetensors")
    assert_equal(ours, arrays)
    assert ours.metadata == {"format": "np"}


def test_a_recorded_file_of_the_library():
    tensors = open_tensors(FILES / "library.safetensors")
    arrays = {"a": SOME["a"], "b": np.array(5), "c": np.zeros((0, 2), np.uint8)}
    assert_equal(tensors, arrays)
    assert tensors.metadata == {"format": "np"}
    assert len(tensors) == 3
    assert "a" in tensors
    with pytest.raises(UserError, match=r"library.safetensors: no tensor 'aa' \(did you mean 'a'"):
        tensors.read("aa")


def test_every_tensor_is_aligned(tmp_path):
    write(tmp_path, {f"{i}": np.ones(3, d) for i, d in enumerate(DTYPES.values())})
    blob = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    assert length % 8 == 0
    assert header.pop("__metadata__") == {"format": "pt"}
    for row in header.values():
        assert row["data_offsets"][0] % DTYPES[row["dtype"]].itemsize == 0


def test_a_file_cut_anywhere_is_refused(tmp_path):
    write(tmp_path, SOME)
    whole = (tmp_path / "model.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=f"truncated: it ends at byte {end}, its header prom"):
            open_tensors(path)


def test_a_file_cut_after_it_was_opened(tmp_path):
    write(tmp_path, SOME)
    tensors = open_tensors(tmp_path / "model.safetensors")
    os.truncate(tmp_path / "model.safetensors", 100)
    with pytest.raises(UserError, match="truncated: it ends at byte 100"):
        tensors.read("b")


def row(dtype="U8", shape=(2,), offsets=(0, 2)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": row()}, None),
        ({"a": row(), "b": row(offsets=(2, 4))}, "truncated: it ends at byte"),
        ({"a": row(shape=(1,), offsets=(0, 1))}, "1 bytes after the last tensor"),
        ({"a": row(shape=(1,), offsets=(1, 2))}, "a hole before 'a'"),
        ({"a": row(), "b": row(offsets=(0, 2))}, "an overlap at 'b'"),
        ({"a": row(offsets=(0, 1))}, r"'a' \[2\] is 2 bytes, its data_offsets are \[0, 1\]"),
        ({"a": row(offsets=())}, "its data_offsets are"),
        ({"a": row("F128")}, "'a' has dtype 'F128' .known are: F64"),
        ({"a": row(["U8"])}, "'a' has dtype"),
        ({"a": row(shape=(-2,))}, "lists of counts"),
        ({"a": row(shape=(True, 2))}, "lists of counts"),
        ({"a": {"dtype": "U8"}}, "must have dtype, shape and data_offsets"),
        ({"a": 3}, "must have dtype, shape and data_offsets"),
        ({"__metadata__": {"x": 1}}, "__metadata__ must map strings"),
        ('{"a": 1, "a": 2}', "a name is there twice"),
        ("{" * 100_000, "its header is no JSON"),
        ('{"a":' * 100_000, "its header is no JSON"),
        ("[]", "no JSON object"),
        (b"\xff\xfe", "its header is no JSON"),
    ],
)
def test_a_header_that_breaks_a_rule(tmp_path, header, message):
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"ab")
    if message is None:
        assert SafetensorsFile(path).read("a").tobytes() == b"ab"
        return
    with pytest.raises(UserError, match=message) as caught:
        SafetensorsFile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_absurd_header_length(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="no safetensors file"):
        open_tensors(path)


def test_shards(tmp_path):
    arrays = {f"{i:02d}": np.full((5, i), i, np.float32) for i in range(9)}
    names = write(tmp_path, arrays, max_shard_bytes=300)
    count = len(names) - 1
    assert names[:-1] == [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    assert names[-1] == "model.safetensors.index.json"
    index = json.loads((tmp_path / names[-1]).read_text())
    assert index["metadata"] == {"total_size": sum(a.nbytes for a in arrays.values())}
    tensors = open_tensors(tmp_path / names[-1])
    assert isinstance(tensors, ShardedTensors)
    assert_equal(tensors, arrays)
    for name in names[:-1]:
        shard = open_tensors(tmp_path / name)
        assert sum(shard.entry(n).nbytes for n in shard.names()) <= 300
    with pytest.raises(UserError, match=r"index.json: no tensor '99'"):
        tensors.read("99")


def damage_shards(folder, index, what):
    homes = index["weight_map"]
    if what == "missing":
        (folder / homes["b"]).unlink()
        (folder / homes["c"]).unlink()
    elif what == "promised":
        homes["bb"] = homes["b"]
    elif what == "outside":
        homes["b"] = "../model.safetensors"
    elif what == "kind":
        homes["b"] = "model.safetensors.index.json"
    elif what == "table":
        index["weight_map"] = ["a"]
    elif what == "none":
        del index["weight_map"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"2 of 3 files missing: \['model-00002-of-00003.*model-00003-of-00003.*"),
        ("promised", r"'bb' is not in model-00002-of-00003.safetensors \(did you mean 'b'"),
        ("outside", "no name of a file beside it"),
        ("kind", "is no kind of shard"),
        ("table", "must map names"),
        ("none", "no index of shards"),
    ],
)
def test_an_index_that_does_not_fit(tmp_path, what, message):
    names = write(tmp_path, SOME, max_shard_bytes=1)
    index = json.loads((tmp_path / names[-1]).read_text())
    damage_shards(tmp_path, index, what)
    (tmp_path / names[-1]).write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        open_tensors(tmp_path / names[-1])


def test_a_tensor_that_the_index_does_not_know(tmp_path):
    write(tmp_path, SOME)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys("ab", "model.safetensors")}))
    with pytest.raises(UserError, match=r"model.safetensors holds 'c', which the index does not"):
        open_tensors(index)


# writing


@pytest.mark.parametrize("fail_at", range(4))
@pytest.mark.parametrize("max_shard_bytes", [1, 10**9])
def test_an_error_in_the_middle_leaves_nothing(tmp_path, fail_at, max_shard_bytes):
    names = [f"{i}" for i in range(4)]

    def read(name):
        if name == names[fail_at]:
            raise KeyboardInterrupt
        return np.zeros(3, np.float32)

    entries = [Entry(name, (3,), np.dtype("f4")) for name in names]
    with pytest.raises(KeyboardInterrupt):
        write_safetensors(tmp_path, entries, read, max_shard_bytes=max_shard_bytes)
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_its_name_before_all_is_written(tmp_path):
    seen = []

    def read(name):
        seen.extend(p.name for p in tmp_path.iterdir())
        return SOME[name]

    entries = [MemoryTensors(SOME).entry(name) for name in SOME]
    write_safetensors(tmp_path, entries, read, max_shard_bytes=1)
    assert all(name.endswith(".partial") for name in seen)


def test_an_array_that_is_not_what_its_entry_says(tmp_path):
    entry = Entry("a", (2, 3), np.dtype("f4"))
    for array in (np.zeros((3, 2), "f4"), np.zeros((2, 3), "f8"), np.zeros((2, 3), ">f4")):
        with pytest.raises(ValueError, match=r"'a' is .*, expected float32 \[2, 3\]"):
            write_safetensors(tmp_path, [entry], lambda name, array=array: array)
    with pytest.raises(ValueError, match="of one name"):
        write_safetensors(tmp_path, [entry, entry], SOME.__getitem__)
    with pytest.raises(UserError, match="'z': safetensors has no dtype complex64"):
        write(tmp_path, {"z": np.zeros(2, np.complex64)})
    assert list(tmp_path.iterdir()) == []


def test_an_array_in_another_order_of_memory(tmp_path):
    write(tmp_path, {"t": SOME["a"].T})
    assert_equal(open_tensors(tmp_path / "model.safetensors"), {"t": SOME["a"].T})


def test_memory_holds_two_tensors_at_most(tmp_path):
    size, count = 4_000_000, 12
    write(tmp_path, {f"{i}": np.full(size, i, np.uint8) for i in range(count)})
    tensors = open_tensors(tmp_path / "model.safetensors")
    entries = [tensors.entry(name) for name in tensors.names()]
    tracemalloc.start()
    write_safetensors(tmp_path / "again", entries, tensors.read)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.3 * size


# npz and what is neither


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save_npz):
    half = np.arange(4).astype(ml_dtypes.bfloat16)
    arrays = {
        "a/kernel": SOME["a"],
        "fortran": np.asfortranarray(SOME["a"]),
        "scalar": np.array(3),
        "big": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 2), np.float16),
        "bfloat16": half.view("V2"),
    }
    save_npz(tmp_path / "x.npz", **arrays)
    tensors = open_tensors(tmp_path / "x.npz")
    assert isinstance(tensors, NpzFile)
    assert_equal(tensors, {**arrays, "big": np.arange(3, dtype="<i4"), "bfloat16": half})


def test_npz_of_objects_and_cut(tmp_path):
    path = tmp_path / "x.npz"
    for array in (np.array([Evil(tmp_path / "it_ran")]), np.array(["text"])):
        np.savez(path, a=array)
        with pytest.raises(UserError, match=r"no .npz of plain arrays: dtype"):
            open_tensors(path)
    assert not (tmp_path / "it_ran").exists()
    np.savez(path, **SOME)
    whole = path.read_bytes()
    for end in range(0, len(whole), 11):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="truncated"):
            open_tensors(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"hello", r"no known kind of weights \(known are: .safetensors, .bin"),
        ("x.bin", b"hello", "no torch file"),
        ("x.bin", b"", "no torch file"),
        ("x.bin", pickle.dumps({"a": 1}, 2), "a pickle without torch's magic number"),
        ("x.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_files_of_other_kinds(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_tensors(tmp_path / name)


def test_zips_of_other_kinds(tmp_path):
    for names, message in (
        (["a.txt"], "a zip without data.pkl"),
        (["x/data.pkl", "x/constants.pkl"], "a TorchScript program"),
    ):
        blob = io.BytesIO()
        with zipfile.ZipFile(blob, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        (tmp_path / "x.pt").write_bytes(blob.getvalue())
        with pytest.raises(UserError, match=message):
            open_tensors(tmp_path / "x.pt")


def test_no_such_file(tmp_path):
    write(tmp_path, SOME)
    with pytest.raises(UserError, match=r"no such file \(did you mean 'model.safetensors'"):
        open_tensors(tmp_path / "modle.safetensors")
    with pytest.raises(UserError, match=r"is a folder, .*'model.safetensors'"):
        open_tensors(str(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        open_tensors(tmp_path / "no" / "folder.bin")
