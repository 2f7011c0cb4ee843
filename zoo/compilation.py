"""Compiled programs kept on disk, for the next start of the same run."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

from zoo.config import CACHE

FOLDER = "JAX_COMPILATION_CACHE_DIR"
SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE"  # bytes; what was used longest ago goes first
ENOUGH = 4 * 1024**3


def keep_compiled(cache: str | None) -> None:
    """Has JAX, which must not be imported yet, keep what it compiles under `cache` (None:
    ~/.cache/zoo), and take from there what was compiled before: after a stop a run goes on sooner.

    JAX's own variable, also an empty one (nothing is kept), has the last word. Programs for CPUs
    use what the processor can do, so each kind of processor has a folder of its own: a home may be
    shared by several. Not for a process of the user's own.
    """
    if FOLDER in os.environ:
        return
    home = os.path.expanduser(cache or CACHE)  # or a place on object storage
    os.environ[FOLDER] = os.path.join(home, "compiled", name_processor())
    os.environ.setdefault(SIZE, str(ENOUGH))


def name_processor() -> str:
    """A word for what this processor can do, the same on all of its kind."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    digest = hashlib.sha256(f"{platform.processor()} {able}".encode()).hexdigest()
    return f"{platform.machine()}-{digest[:12]}"
