"""Runs tests/eight_devices in a process that has eight simulated devices."""

import os

from conftest import EIGHT, QUICKLY, run_command


def test_on_eight_simulated_devices():
    if EIGHT in os.environ.get("XLA_FLAGS", ""):
        return
    flags = {"XLA_FLAGS": f"{EIGHT} {QUICKLY}"}
    done = run_command("-m", "pytest", "-n0", "tests/eight_devices", env=flags, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
