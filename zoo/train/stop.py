"""Why a run ends early, and the signals that ask it to."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class NonFiniteLoss(Exception):
    """The loss, of several seeds that of `seed`, was not finite at `step`; exit code 70."""

    def __init__(self, step: int, last_good: int | None, folder: Any, seed: int | None = None):
        where = f"the last good checkpoint is step {last_good} in {folder}"
        where = where if last_good is not None else "no checkpoint was saved before it"
        whose = "" if seed is None else f" of seed {seed}"
        super().__init__(f"the loss{whose} is not finite at step {step}; {where}")
        self.step, self.last_good, self.seed = step, last_good, seed


class Stopped(Exception):
    """Saved and stopped on request; exit code 75: the same command goes on."""


class StopRequest:
    """While entered, SIGTERM and the first Ctrl-C set `asked`; a second Ctrl-C interrupts."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
