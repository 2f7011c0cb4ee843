"""Why a run ends early, and the signals that ask it to."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


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
    """While entered, SIGTERM and the first Ctrl-C ask for a stop; a second Ctrl-C interrupts.

    In a job of several processes the signal reaches one of them or a few, and all must stop after
    the same step: JAX's own handler of SIGTERM, in place since the process joined, tells the others
    and finds the first step that none has passed.
    """

    def __init__(self) -> None:
        self._asked: str | None = None
        self._before: dict[int, Any] = {}
        self._together = jax.process_count() > 1
        self._visits = 0

    def __enter__(self) -> StopRequest:
        numbers = (signal.SIGINT,) if self._together else (signal.SIGTERM, signal.SIGINT)
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def reached(self) -> str | None:
        """The signal to stop for, here. Every process asks after each of its dispatches."""
        if not self._together:
            return self._asked
        self._visits += 1
        return "SIGTERM" if multihost_utils.reached_preemption_sync_point(self._visits) else None

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number).name
        if self._together:
            signal.raise_signal(signal.SIGTERM)
