"""Compile time of a scanned decoder: 96 layers against 12, required at most 1.2 times.

    python benchmarks/compile_time.py

The training step of a GPT 64 wide, compiled as `train.py` compiles it, each depth in turns, nothing
executed. Prints the median ratio over the turns and its quartiles.
"""

from __future__ import annotations

import statistics
import time

import jax
from workloads.steps import random_tokens

from zoo.config import Config, ModelConfig, OptimConfig, TaskConfig, TrainConfig
from zoo.train.build import build

TURNS = 7


def compile_seconds(depth: int) -> float:
    """Seconds from the traced step to the program."""
    jax.clear_caches()
    size = {"width": 64, "depth": depth, "num_heads": 4, "num_positions": 64}
    config = Config(
        model=ModelConfig("gpt2", size, scan_layers=True),
        task=TaskConfig("causal_lm"),
        optim=OptimConfig("adamw", 1e-3, weight_decay=0.1, clip_norm=1.0),
        train=TrainConfig(batch_size=8, num_steps=10),
    )
    programs = build(config, random_tokens(500, 8, 64)).programs
    start = time.perf_counter()
    programs.train_program(1)
    return time.perf_counter() - start


def main() -> None:
    """Measures A B A B."""
    compile_seconds(12)  # what only the first compilation costs
    ratios = []
    for turn in range(TURNS):
        shallow, deep = compile_seconds(12), compile_seconds(96)
        ratios.append(deep / shallow)
        print(f"turn {turn}: 12 layers {shallow:.2f} s, 96 layers {deep:.2f} s")
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"96 layers / 12 layers: {middle:.3f} (quartiles {low:.3f}, {high:.3f})")


if __name__ == "__main__":
    main()
