"""What happens beside the steps: rows, TensorBoard, traces, and when each is due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from zoo.config import Config
from zoo.train.rows import SEEDS, RowWriter
from zoo.train.seeds import Spread
from zoo.train.wandb_writer import WandbWriter


class Calendar:
    """At which steps something happens; a dispatch of several steps never runs across one."""

    def __init__(self, config: Config):
        self.num_steps = config.train.num_steps
        self.log = config.log.every_steps
        self.evaluate = config.train.eval_every_steps
        self.save = config.checkpoint.every_steps
        self._fixed = {self.num_steps, *(config.log.profile_steps or ())}

    def due(self, step: int, every: int | None) -> bool:
        """Is `step` a multiple of `every`, or the last?"""
        return step == self.num_steps or bool(every and step % every == 0)

    def next_event(self, step: int) -> int:
        """The first step after `step` at which the loop has something to do."""
        events = [
            step + every - step % every for every in (self.log, self.evaluate, self.save) if every
        ]
        return min(s for s in (*events, *self._fixed) if s > step)


class Writers:
    """metrics.jsonl (numbers that are functions of the step), timing.jsonl, TensorBoard, W&B."""

    def __init__(self, workdir: epath.Path | None, config: Config):
        """Writes nothing without a workdir, and only in the first of several processes.

        Raises UserError when W&B is asked for and refuses.
        """
        self._board: Any = None
        self._wandb: WandbWriter | None = None
        self._rows: dict[str, RowWriter] = {}
        self.history: list[dict[str, Any]] = []
        if workdir is None or jax.process_index():
            return
        self._rows = {name: RowWriter(workdir, name) for name in ("metrics", "timing")}
        if config.log.tensorboard:
            import tensorboardX

            self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"))
        if config.log.wandb is not None:
            self._wandb = WandbWriter(config.log.wandb, workdir, config)

    def write(
        self,
        step: int,
        split: str,
        metrics: dict[str, float],
        spreads: Mapping[str, Spread] | None = None,
    ) -> None:
        """One row of results; of several seeds `metrics` are the means, and the row says how they
        spread."""
        row: dict[str, Any] = {"step": step, "split": split, **metrics}
        scalars = {f"{split}/{k}": v for k, v in metrics.items()}
        if spreads:
            row[SEEDS] = {name: spread.to_dict() for name, spread in spreads.items()}
            scalars |= {f"{split}/{k}_deviation": s.deviation for k, s in spreads.items()}
        self.history.append(row)
        self._emit("metrics", step, row, scalars)

    def write_timing(self, step: int, values: dict[str, float]) -> None:
        """One row of speeds."""
        self._emit(
            "timing", step, {"step": step, **values}, {f"timing/{k}": v for k, v in values.items()}
        )

    def _emit(self, name: str, step: int, row: dict[str, Any], scalars: dict[str, float]) -> None:
        if self._rows:
            self._rows[name].write(row)
        if self._board is not None:
            for key, value in scalars.items():
                self._board.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.write(step, scalars)

    def flush(self) -> None:
        for rows in self._rows.values():
            rows.flush()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self.flush()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.close()


class Profiler:
    """A trace of the steps of `log.profile_steps` in WORKDIR/profile."""

    def __init__(self, config: Config, workdir: epath.Path | None):
        self._span = config.log.profile_steps if workdir is not None else None
        self._folder = workdir
        self._running = False

    def visit(self, step: int) -> None:
        """Starts or stops the trace; `step` steps are done."""
        if self._span is None:
            return
        if not self._running and self._span[0] <= step < self._span[1]:
            jax.profiler.start_trace(str(self._folder / "profile"))  # type: ignore[operator]
            self._running = True
        elif self._running and step >= self._span[1]:
            self.close()

    def close(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


def train_metrics(
    task: Any, sums: Any, step: int, schedule: Any, *, skipped: bool = False
) -> dict[str, float]:
    """A train row from the running sums of the state; the number of broken examples if wanted."""
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(sums))
    return {
        **task.summarise(sums["task"]),
        "gradient_norm": float(sums["gradient_norm"] / sums["num_steps"]),
        "learning_rate": float(schedule(step - 1)),
        **({"skipped": float(sums["skipped"])} if skipped else {}),
    }
