"""The machine's GPUs before JAX looks at them, and the share of their memory that it takes.

Nothing here imports JAX: a share must be set before its GPU backend starts.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
NEWER_SHARE = "XLA_CLIENT_MEM_FRACTION"  # jax refuses to start when both are set
NVIDIA_VENDOR, DISPLAY_CLASS = "0x10de", "0x03"


def set_memory_share(share: float | None) -> str | None:
    """Asks JAX to take `share` (in (0, 1]) of each GPU's memory; None leaves the environment alone.

    Returns None, or one line that says why it came too late.
    """
    if share is None or os.environ.get(SHARE) == str(share):
        return None
    if gpu_has_started():
        return (
            f"parallel.gpu_memory_share={share} cannot be applied: jax has already started on the "
            f"GPU with {describe_share()}; start a new process, or call zoo.fit first"
        )
    os.environ.pop(NEWER_SHARE, None)
    os.environ[SHARE] = str(share)
    return None


def gpu_has_started() -> bool:
    """Has JAX, in this process, already opened a GPU?"""
    if "jax" not in sys.modules:
        return False
    import jax
    from jax._src import xla_bridge  # there is no public way to ask without starting one

    return xla_bridge.backends_are_initialized() and jax.devices()[0].platform == "gpu"


def describe_share() -> str:
    """The share of GPU memory that the environment asks for, as a person reads it.

    Raises ValueError when it asks for something that JAX refuses or that is no share.
    """
    given = {name: os.environ[name] for name in (SHARE, NEWER_SHARE) if os.environ.get(name)}
    if len(given) == 2:
        raise ValueError(f"{SHARE} and {NEWER_SHARE} are both set; jax takes only one")
    for name, text in given.items():
        try:
            wrong = not 0 < float(text) <= 1
        except ValueError:
            wrong = True
        if wrong:
            raise ValueError(f"{name}={text} is not in (0, 1]")
    share = f"a share of {next(iter(given.values()))}" if given else "jax's share, 0.75"
    grows = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() in ("false", "0")
    return f"{share}, {'taken as needed' if grows else 'taken at the start'}"


def find_gpus() -> list[str]:
    """The NVIDIA GPUs of this machine, asked of nvidia-smi, the driver and the PCI bus in turn."""
    if shutil.which("nvidia-smi"):
        try:
            done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0 and done.stdout.strip():
            # "GPU 0: NVIDIA H200 (UUID: ...)"
            names = [line.partition(": ")[2] for line in done.stdout.splitlines()]
            return [name.partition(" (UUID")[0] for name in names if name]
    driver = pathlib.Path("/proc/driver/nvidia/gpus")
    if driver.is_dir():
        found = [f"NVIDIA GPU at {card.name}" for card in sorted(driver.iterdir())]
        if found:
            return found
    return [
        f"NVIDIA GPU at {card.name} (no driver)"
        for card in sorted(pathlib.Path("/sys/bus/pci/devices").glob("*"))
        if _read(card / "vendor") == NVIDIA_VENDOR
        and _read(card / "class").startswith(DISPLAY_CLASS)
    ]


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
