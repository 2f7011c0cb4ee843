"""What the loop adds to a bare compiled step of about 100 ms: required under 2 %.

    python benchmarks/loop_overhead.py

The step waits 100 ms instead of computing: on two shared cores a step that computes varies by 15 %
from turn to turn, which hides what is looked for. Both sides run the same compiled program on the
same placed shapes, in turns in one process; the loop's side also reads and normalises a batch of
256 MNIST digits a step, places it, logs, shows progress and checks for a stop. Prints the median
ratio over the turns, of the mean and of the median step, and its spread.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from etils import epath

from zoo.config import (
    Config,
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    TaskConfig,
    TrainConfig,
)
from zoo.parallel import place_batch
from zoo.tasks import Classification
from zoo.train.build import build
from zoo.train.loop import Loop, flops_per_step
from zoo.train.progress import Progress

STEPS, TURNS, SKIP = 63, 5, 3
sys.path.insert(0, str(Path(__file__).parent))  # so that the config finds `loop_overhead:Waiting`


@dataclass(frozen=True)
class Waiting(Classification):
    """Classification whose step also waits 100 ms without using a core, as for an accelerator."""

    def loss(self, params, batch, key):
        """The loss, after the wait."""
        loss_sum, sums = super().loss(params, batch, key)
        done = jax.pure_callback(wait, jax.ShapeDtypeStruct((), np.float32), batch["mask"].sum())
        return loss_sum, {**sums, "loss": sums["loss"] + 0 * done}


def wait(x):
    """Sleeps 100 ms."""
    time.sleep(0.1)
    return np.float32(0 * x)


def make_config() -> Config:
    """A small MLP, so that the step is the wait."""
    return Config(
        model=ModelConfig("mlp", {"widths": (128,)}),
        data=DataConfig("embedded:mnist_5k", transform="normalize(0.5, 0.5)"),
        task=TaskConfig("loop_overhead:Waiting"),
        optim=OptimConfig("adamw", 1e-3),
        train=TrainConfig(batch_size=256, num_steps=STEPS),
        log=LogConfig(every_steps=10),
    )


class TimedLoop(Loop):
    """The loop, noting when each step was seen to be done."""

    def _look_at(self, step, report):
        super()._look_at(step, report)
        if report is not None:
            self.times.append(time.perf_counter())


def time_bare(parts, state, batch):
    """Seconds of each compiled step, the next one dispatched before one is waited for."""
    program = parts.programs.train_program(1)
    times, waiting = [], None
    for _ in range(STEPS):
        state, report = program(state, batch)
        if waiting is not None:
            jax.block_until_ready(waiting)
            times.append(time.perf_counter())
        waiting = report
    jax.block_until_ready(waiting)
    return np.diff(times)[SKIP:], state


def time_loop(parts, workdir):
    """Seconds of each step in the loop, its writers included; without its start-up."""
    config = parts.config
    progress = Progress(STEPS, config.train.batch_size, flops_per_step(parts), show=True)
    loop = TimedLoop(parts, workdir, progress)
    loop.checkpoints = None  # saving is work of its own
    loop.times = []
    loop.run(parts.programs.init_state())
    loop.close()
    return np.diff(loop.times)[SKIP:]


def main() -> None:
    """Measures A B A B."""
    parts = build(make_config())
    state = parts.programs.init_state()
    batch = place_batch(parts.stream[0], parts.programs.blocks_sharding)
    _, state = time_bare(parts, state, batch)
    means, medians, steps = [], [], []
    for turn in range(TURNS):
        bare, state = time_bare(parts, state, batch)
        with tempfile.TemporaryDirectory() as folder:
            ours = time_loop(parts, epath.Path(folder))
        means.append(ours.mean() / bare.mean())
        medians.append(np.median(ours) / np.median(bare))
        steps.append(1e3 * np.median(bare))
        print(
            f"turn {turn}: bare step {steps[-1]:.1f} ms, loop / bare: mean {means[-1]:.4f}, ",
            end="",
        )
        print(f"median {medians[-1]:.4f}")
    for name, ratios in (("mean", means), ("median", medians)):
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"{name} step, loop / bare: {middle:.4f} (from {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
