"""Runs tests/eight_devices in a process that has eight simulated devices."""

import os

from conftest import EIGHT, run_command

# Meshes are compared with each other, so the compiler may save its pains.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def test_on_eight_simulated_devices():
    if EIGHT in os.environ.get("XLA_FLAGS", ""):
        return
    flags = {"XLA_FLAGS": f"{EIGHT} {QUICKLY}"}
    done = run_command("-m", "pytest", "-n0", "tests/eight_devices", env=flags, timeout=590)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
