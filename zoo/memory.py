"""The C library's way with memory, before JAX starts its threads."""

from __future__ import annotations

import ctypes
import importlib.util
import platform

# mallopt's parameters, from glibc's malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8

ACCELERATORS = ("jax_plugins", "libtpu")  # how JAX finds GPUs and TPUs: packages beside it


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory for its next allocation; True where it took effect.

    XLA on a CPU asks for the temporaries of a step (1 GB for a ViT-Ti at batch 16) at each call and
    gives them back at its end. glibc returns blocks that large to the kernel, which clears every
    page anew: a fifth of such a step. One arena, because only the main one can grow past 64 MiB.
    Where JAX has an accelerator the large arrays are there, and nothing is changed. Only for a
    process of our own, not for a user's: its memory stays at its peak.
    """
    accelerated = any(importlib.util.find_spec(name) for name in ACCELERATORS)
    if platform.libc_ver()[0] != "glibc" or accelerated:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 1 << 20}
    return all(mallopt(parameter, value) for parameter, value in settings.items())
