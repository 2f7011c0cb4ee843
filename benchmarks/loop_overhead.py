"""What the loop adds to a bare compiled step of about 100 ms: required under 2 %.

    python benchmarks/loop_overhead.py

Both sides run the same compiled program on the same placed shapes, in turns in one process; the
loop's side also reads data, places it, logs, shows progress and checks for a stop. Prints the
median ratio over the turns and its spread.
"""

from __future__ import annotations

import statistics
import tempfile
import time

import jax
from etils import epath

from zoo.config import Config, DataConfig, LogConfig, ModelConfig, OptimConfig, TrainConfig
from zoo.parallel import place_batch
from zoo.train.build import build
from zoo.train.loop import Loop, flops_per_step
from zoo.train.progress import Progress

STEPS, TURNS = 50, 7


def make_config() -> Config:
    """An MLP whose step takes about 100 ms on 2 cores."""
    return Config(
        model=ModelConfig("mlp", {"widths": (1024, 1024)}),
        data=DataConfig("embedded:mnist_5k", transform="shift(2)|normalize(0.5, 0.5)"),
        optim=OptimConfig("adamw", 1e-3),
        train=TrainConfig(batch_size=2048, num_steps=STEPS),
        log=LogConfig(every_steps=10),
    )


def time_bare(parts, state, batch):
    """Seconds of the compiled steps alone, one after the other."""
    program = parts.programs.train_program(1)
    start = time.perf_counter()
    for _ in range(STEPS):
        state, report = program(state, batch)
    jax.block_until_ready(report)
    return time.perf_counter() - start, state


def time_loop(parts, workdir):
    """Seconds of the same steps in the loop, its writers included."""
    config = parts.config
    progress = Progress(STEPS, config.train.batch_size, flops_per_step(parts), show=True)
    loop = Loop(parts, workdir, progress)
    loop.checkpoints = None  # saving is work of its own
    state = parts.programs.init_state()
    jax.block_until_ready(state)
    start = time.perf_counter()
    state = loop.run(state)
    jax.block_until_ready(state)
    return time.perf_counter() - start


def main() -> None:
    """Measures A B A B."""
    parts = build(make_config())
    state = parts.programs.init_state()
    batch = place_batch(parts.stream[0], parts.programs.blocks_sharding)
    _, state = time_bare(parts, state, batch)
    ratios, bare = [], []
    for turn in range(TURNS):
        seconds, state = time_bare(parts, state, batch)
        with tempfile.TemporaryDirectory() as folder:
            ratios.append(time_loop(parts, epath.Path(folder)) / seconds)
        bare.append(seconds / STEPS)
        print(f"turn {turn}: bare step {1e3 * bare[-1]:.1f} ms, loop / bare {ratios[-1]:.4f}")
    middle = statistics.median(ratios)
    print(f"median loop / bare {middle:.4f} (from {min(ratios):.4f} to {max(ratios):.4f}), ")
    print(f"bare step {1e3 * statistics.median(bare):.1f} ms")


if __name__ == "__main__":
    main()
