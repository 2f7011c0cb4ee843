"""Freed memory is kept for the next allocation, in every thread."""

import importlib.util
import platform
import subprocess
import sys

import pytest

from zoo import memory

# A block of 256 MiB taken, written and freed four times in a thread of its own; prints the page
# faults of the last three.
COUNT_FAULTS = """
import ctypes, resource, sys, threading
if "keep" in sys.argv:
    from zoo.memory import keep_freed_memory
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def work():
    for i in range(4):
        if i == 1:
            start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(1 << 28)
        ctypes.memset(block, 1, 1 << 28)
        libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def count_faults(*words):
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in memory.ACCELERATORS),
    reason="JAX for an accelerator",
)
def test_pages_are_cleared_once():
    plain, kept = count_faults(), count_faults("keep")
    assert kept < plain / 20, (plain, kept)


def test_beside_an_accelerator_nothing_changes(monkeypatch):
    monkeypatch.setattr(memory, "ACCELERATORS", ("jax",))
    assert not memory.keep_freed_memory()
