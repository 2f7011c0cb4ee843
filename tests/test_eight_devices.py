"""Runs tests/eight_devices in a process that has eight simulated devices."""

import os

from conftest import EIGHT, run_command


def test_on_eight_simulated_devices():
    if EIGHT in os.environ.get("XLA_FLAGS", ""):
        return
    done = run_command("-m", "pytest", "tests/eight_devices", env={"XLA_FLAGS": EIGHT}, timeout=590)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
