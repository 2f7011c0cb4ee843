"""`zoo convert` on 2 GB: time beside a plain read and write of the same bytes, and peak memory.

    python benchmarks/convert.py [GIGABYTES] [DTYPE]

Writes a Llama of random numbers (matrices of 2,048 x 5,632, one file) into a temporary folder,
then in turns copies its bytes by read and write of 16 MB, and converts it to our layout and back.
Prints the median ratios of time, and the peak memory above the started process: beside the file,
and beside its largest tensor, which is the least that a shard can hold.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORK = """
import re, sys, time
from zoo.pretrained import convert
import jax; jax.devices()
def status(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before, start = status("VmRSS"), time.perf_counter()
convert(sys.argv[1], sys.argv[2], sys.argv[3])
print(time.perf_counter() - start, status("VmHWM") - before)
"""


def make_llama(folder: Path, gigabytes: float, dtype: str) -> None:
    """A Hugging Face folder of about that many bytes."""
    import jax
    import numpy as np

    from zoo.models import make_model
    from zoo.pretrained.bridge import plan
    from zoo.pretrained.describe import architecture_of
    from zoo.pretrained.family import TheirConfig
    from zoo.pretrained.llama import LLAMA
    from zoo.pretrained.safetensors_file import Entry, write_safetensors
    from zoo.pretrained.tensors import MemoryTensors

    fields = {"width": 2048, "num_heads": 16, "num_kv_heads": 8, "hidden": 5632}
    fields |= {"vocab_size": 32000, "depth": 1}
    item = jax.numpy.dtype(dtype).itemsize
    layer = (2048 * 2048 * 3 + 3 * 2048 * 5632) * item
    fields["depth"] = max(round((gigabytes * 1e9 - 2 * 32000 * 2048 * item) / layer), 1)
    usual = LLAMA.read_config(TheirConfig({}, ""), "lm", MemoryTensors({}))
    model = make_model(LLAMA.model_class, {**usual, **fields}, "benchmark")
    pieces = plan(LLAMA.make_table(model, None), model)
    entries = [Entry(p.theirs, p.shape, np.dtype(jax.numpy.dtype(dtype))) for p in pieces]
    random = np.random.default_rng(0)

    def read(name: str):
        entry = next(e for e in entries if e.name == name)
        return random.random(entry.shape, np.float32).astype(entry.dtype)

    write_safetensors(folder, entries, read, max_shard_bytes=10**12)
    (folder / "config.json").write_text(json.dumps(architecture_of(model)[1]))


def copy(source: Path, target: Path) -> float:
    """Seconds of a plain read and write."""
    start = time.perf_counter()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while piece := reader.read(16 * 2**20):
            writer.write(piece)
    return time.perf_counter() - start


def convert(source: Path, target: Path, layout: str) -> tuple[float, float]:
    """(seconds, bytes above the started process)."""
    words = [sys.executable, "-c", WORK, str(source), str(target), layout]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    seconds, kilobytes = done.stdout.split()
    return float(seconds), float(kilobytes) * 1024


def main(gigabytes: float, dtype: str, turns: int = 3) -> None:
    """Measures and prints."""
    from zoo.pretrained.tensors import open_tensors

    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        root = Path(name)
        make_llama(root / "hf", gigabytes, dtype)
        file = root / "hf" / "model.safetensors"
        size = file.stat().st_size
        tensors = open_tensors(file)
        largest = max(tensors.entry(key).nbytes for key in tensors.names())
        rows: dict[str, list[tuple[float, float]]] = {"hf -> zoo": [], "zoo -> hf": []}
        for turn in range(turns):
            base = copy(file, root / "copy")
            for label, source, layout in (("hf -> zoo", "hf", "zoo"), ("zoo -> hf", "zoo", "hf")):
                target = root / layout if layout == "zoo" else root / f"back{turn}"
                seconds, peak = convert(root / source, target, layout)
                rows[label].append((seconds / base, peak / size))
            (root / f"back{turn}" / "model.safetensors").unlink()
            (root / "zoo" / "model.safetensors").unlink()
        print(f"{size / 1e9:.2f} GB {dtype}; copy {base:.2f} s; medians of {turns} turns")
        for label, found in rows.items():
            ratio, peak = (statistics.median(x) for x in zip(*found, strict=True))
            of_largest = peak * size / largest
            print(
                f"{label}: {ratio:.2f} times a copy, peak {peak:.3f} of the file, "
                f"{of_largest:.2f} of its largest tensor"
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0, (sys.argv[2:] or ["float32"])[0])
