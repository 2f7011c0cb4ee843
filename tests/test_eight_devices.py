"""Runs tests/eight_devices in a process that has eight simulated devices."""

import os

import pytest
from conftest import EIGHT, QUICKLY, run_command


@pytest.mark.parametrize("mark", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_eight_simulated_devices(mark):
    if EIGHT in os.environ.get("XLA_FLAGS", ""):
        return
    # Meshes are compared with each other, so the compiler may save its pains.
    flags = {"XLA_FLAGS": f"{EIGHT} {QUICKLY}"}
    words = ("-m", "pytest", "-n0", "-m", mark, "tests/eight_devices")
    done = run_command(*words, env=flags, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
