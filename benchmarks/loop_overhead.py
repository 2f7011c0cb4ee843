"""What the loop adds to a bare compiled step of about 100 ms: required under 2 %.

    python benchmarks/loop_overhead.py

The step follows a chain of dependent operations on one core for about 100 ms. So it is dispatched
in the background as any step is, and leaves the host's thread a core, as an accelerator does. (A
step that sleeps in a callback is dispatched synchronously on CPU and nothing overlaps; one that
computes on both cores varies by 15 % from turn to turn.) Both sides run the same compiled program
on the same placed shapes, in short turns in one process; the loop's side also reads and normalises
a batch of 256 MNIST digits a step, places it, logs, shows progress and checks for a stop. Prints
the median ratio over the turns, of the mean and of the median step, and its quartiles.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
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

STEPS, TURNS, SKIP = 23, 25, 3
LINKS = 8_000_000  # of the chain: about 100 ms
sys.path.insert(0, str(Path(__file__).parent))  # so that the config finds `loop_overhead:Counting`


@dataclass(frozen=True)
class Counting(Classification):
    """Classification whose step also counts for about 100 ms on one core."""

    def loss(self, params, batch, key):
        """The loss, after a chain of dependent operations that cannot be shared between cores."""
        loss_sum, sums = super().loss(params, batch, key)
        start = batch["mask"].sum()
        done = jax.lax.fori_loop(0, LINKS, lambda _, x: jnp.sin(x), start)
        return loss_sum, {**sums, "loss": sums["loss"] + 0 * done}


def make_config() -> Config:
    """A small MLP, so that the step is the chain."""
    return Config(
        model=ModelConfig("mlp", {"widths": (128,)}),
        data=DataConfig("embedded:mnist_5k", transform="normalize(0.5, 0.5)"),
        task=TaskConfig("loop_overhead:Counting"),
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
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name} step, loop / bare: {middle:.4f} (quartiles {low:.4f}, {high:.4f})")


if __name__ == "__main__":
    main()
