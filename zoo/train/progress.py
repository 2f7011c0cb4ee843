"""What a person sees of a run: a live line, and at the end a table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from zoo.parallel.chips import find_chip
from zoo.train.seeds import Spread


class Progress:
    """Speed of a run; a live line on a terminal, a line now and then elsewhere.

    Time spent compiling, evaluating or saving is taken out by `pause` and `go_on`.
    """

    def __init__(self, num_steps: int, batch_size: int, flops_per_step: float, *, show: bool):
        import jax
        from rich.console import Console

        self._num_steps, self._batch_size = num_steps, batch_size
        device = jax.devices()[0]
        chip = find_chip(device.device_kind)
        peak = chip.flops * jax.device_count() if chip else 0.0
        self._flops_share = flops_per_step / peak if peak else 0.0
        self._console = Console()
        self._wanted = show
        self._show = show and jax.process_index() == 0
        self._live: Any = None
        self._clock = 0.0  # seconds of training counted so far
        self._since: float | None = None
        self._steps = 0  # steps in that time
        self._waited = 0.0  # seconds of that time in which the next batches were not there yet
        self._last_line = 0.0

    def tell(self, text: str, *, everywhere: bool = False) -> None:
        """Prints a line above the live one, in the first process or in every one."""
        if self._show or (everywhere and self._wanted):
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def go_on(self) -> None:
        """Lets the clock run, if it does not already."""
        if self._since is None:
            self._since = time.perf_counter()

    def pause(self) -> None:
        """Stops the clock."""
        if self._since is not None:
            self._clock += time.perf_counter() - self._since
            self._since = None

    def advance(self, num_steps: int) -> None:
        """Counts steps."""
        self._steps += num_steps

    def waited(self, seconds: float) -> None:
        """Counts time in which the host waited for data, if the clock runs."""
        if self._since is not None:
            self._waited += seconds

    def waiting_share(self) -> float:
        """The part of the counted time in which the host waited for data. A device at work on the
        step before waits less."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self._waited / max(self._clock + running, 1e-9)

    def speeds(self) -> dict[str, float]:
        """steps/s, examples/s and, where the chip's peak is known, MFU, of this process so far."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        rate = self._steps / max(self._clock + running, 1e-9)
        out = {"steps_per_second": rate, "examples_per_second": rate * self._batch_size}
        return {**out, "mfu": rate * self._flops_share} if self._flops_share else out

    def update(self, step: int, loss: float, deviation: float | None = None) -> None:
        """Shows where the run is; at most ten times a second, off a terminal every ten seconds."""
        now = time.perf_counter()
        interval = 0.1 if self._console.is_terminal else 10.0
        if not self._show or (now - self._last_line < interval and step < self._num_steps):
            return
        self._last_line = now
        line = self._line(step, loss, deviation)
        if not self._console.is_terminal:
            self.tell(line)
            return
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=10)
            self._live.start()
        self._live.update(line)

    def _line(self, step: int, loss: float, deviation: float | None = None) -> str:
        speed = self.speeds()
        left = (self._num_steps - step) / max(speed["steps_per_second"], 1e-9)
        parts = [
            f"step {step}/{self._num_steps}",
            f"loss {loss:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"),
            f"{speed['steps_per_second']:.1f} steps/s",
            f"{speed['examples_per_second']:.0f} examples/s",
            f"ETA {int(left) // 60}:{int(left) % 60:02d}",
        ]
        if "mfu" in speed:
            parts.append(f"MFU {speed['mfu']:.1%}")
        return "  ".join(parts)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(
        self, title: str, metrics: dict[str, float], spreads: Mapping[str, Spread] | None = None
    ) -> None:
        """The final metrics; of several seeds the mean, the deviation and the interval of each."""
        from rich.table import Table

        if not self._show:
            return
        self.tell(title)
        table = Table()
        table.add_column("metric")
        heads = ("mean", "deviation", "95 % interval") if spreads else ("value",)
        for head in heads:
            table.add_column(head, justify="right")
        for name, value in metrics.items():
            cells = [f"{value:.4f}"]
            if spreads:
                spread = spreads[name]
                cells += [f"{spread.deviation:.4f}", f"{spread.low:.4f} to {spread.high:.4f}"]
            table.add_row(name, *cells)
        self._console.print(table)
