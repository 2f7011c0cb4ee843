"""A conversion needs the memory of its largest tensor, turned, split or joined as it may be."""

import tracemalloc

import numpy as np
import pytest

from zoo.models import create_model, init_params
from zoo.pretrained import bridge, safetensors_file
from zoo.pretrained.bridge import AsOurs, AsTheirs
from zoo.pretrained.describe import architecture_of
from zoo.pretrained.tensors import MemoryTensors, open_tensors, write_safetensors
from zoo.tree import named_leaves

SIZES = {"width": 512, "depth": 1, "num_heads": 8, "hidden": 2048, "vocab_size": 8}


@pytest.mark.parametrize("name", ["gpt2", "llama_7b"])  # joined queries, keys, values; transposed
def test_one_tensor_a_shard(tmp_path, monkeypatch, name):
    monkeypatch.setattr(safetensors_file, "READ_AHEAD_BYTES", 2**16)
    monkeypatch.setattr(bridge, "STRIP_BYTES", 2**16)
    grouped = {"num_kv_heads": 2} if name != "gpt2" else {}
    model = create_model(name, **SIZES, **grouped, num_positions=8)
    random = np.random.default_rng(0)
    ours = {
        path: random.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in named_leaves(init_params(model)).items()
    }
    table = architecture_of(model)[0].make_table(model, None)
    write(tmp_path / "hf", AsTheirs(MemoryTensors(ours), table, model))
    del ours["blocks/00/mlp/fc2/kernel"]  # what is compared below is enough

    theirs = open_tensors(tmp_path / "hf" / "model.safetensors.index.json")
    view = AsOurs(theirs, table, model)
    largest = 512 * 2048 * 4
    assert write(tmp_path / "zoo", view) < 1.3 * largest
    again = open_tensors(tmp_path / "zoo" / "model.safetensors.index.json")
    for path, array in ours.items():
        np.testing.assert_array_equal(again.read(path), array)

    view = AsTheirs(again, table, model)
    assert write(tmp_path / "back", view) < 1.3 * largest
    back = open_tensors(tmp_path / "back" / "model.safetensors.index.json")
    for key in theirs.names():
        np.testing.assert_array_equal(back.read(key), theirs.read(key))


def write(folder, tensors) -> int:
    """Bytes that were needed at the same time."""
    entries = [tensors.entry(key) for key in tensors.names()]
    tracemalloc.start()
    write_safetensors(folder, entries, tensors.read, max_shard_bytes=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
