"""What two choices of the objectives cost or give in time, as ratios in one process.

    python benchmarks/objectives.py places     # logits read out in parts, against all at once
    python benchmarks/objectives.py seeds      # eight seeds in one step, against eight single steps

`places`: a step of a GPT-2 of four layers 256 wide, 8 windows of 256 tokens, with vocabularies of
8,192 and 50,257 tokens and so many places of each row at a time. `seeds`: the models of the recipes
`mlp_digits` and `vit_digits`. Compiled steps run in turns, the median of ratios is told.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

from zoo.config import Config, make_config
from zoo.config.parse import set_values
from zoo.parallel import place_batch
from zoo.train.build import Parts, build

TURNS = 9
SIZE = {"width": 256, "depth": 4, "num_heads": 4, "num_positions": 256}


class Stepper:
    """A compiled step with its state and a batch, run a few times a turn."""

    def __init__(self, parts: Parts, steps: int):
        self.steps, self.programs = steps, parts.programs
        block = parts.stream[0]
        shape = {name: x[:1] for name, x in block.items()}
        self.batch = place_batch(shape, self.programs.blocks_sharding)
        self.state = self.programs.init_state()
        self.run()  # compiles

    def run(self) -> float:
        """Seconds of one step."""
        start = time.perf_counter()
        for _ in range(self.steps):
            self.state, report = self.programs.train(self.state, self.batch, 1)
        jax.block_until_ready(report)
        return (time.perf_counter() - start) / self.steps

    @property
    def temporaries(self) -> int:
        """Bytes beside arguments and outputs."""
        return self.programs.train_program(1).memory_analysis().temp_size_in_bytes


def compare(*steppers: Stepper) -> list[tuple[float, float]]:
    """Seconds of each, and its ratio to the first, medians over turns."""
    turns = np.array([[stepper.run() for stepper in steppers] for _ in range(TURNS)])
    ratios = turns / turns[:, :1]
    return [
        (statistics.median(turns[:, i]), statistics.median(ratios[:, i]))
        for i in range(len(steppers))
    ]


def make_gpt(vocab_size: int, places: int) -> Config:
    """A step whose logits are read out `places` of a row at a time."""
    values: dict[str, Any] = {
        "data.source": "synthetic:embedded:stdlib",
        "data.length": 256,
        "train.batch_size": 8,
        "train.steps_per_call": 1,
    }
    config = set_values(make_config("configs/gpt_stdlib.py", {}), values)
    model = dataclasses.replace(config.model, arguments={**SIZE, "vocab_size": vocab_size})
    task = dataclasses.replace(config.task, arguments={"places": places})
    return dataclasses.replace(config, model=model, task=task)


def compare_places() -> None:
    """Prints a line for each vocabulary and number of places."""
    for vocab_size in (8192, 50257):
        counts = (0, 32, 64, 128)
        steppers = [Stepper(build(make_gpt(vocab_size, count)), 1) for count in counts]
        found = zip(counts, steppers, compare(*steppers), strict=True)
        for count, stepper, (seconds, ratio) in found:
            held = stepper.temporaries / 2**20
            print(
                f"vocabulary {vocab_size:6,}  {count or 'all':>4} places  {seconds:.3f} s a step, "
                f"{ratio:.2f} of all at once, {held:,.0f} MiB of temporaries",
                flush=True,
            )


def compare_seeds(num_seeds: int = 8) -> None:
    """Prints a line for each recipe."""
    for recipe, steps in (("mlp_digits", 200), ("vit_digits", 10)):
        config = make_config(f"configs/{recipe}.py", {"train.steps_per_call": "1"})
        train = dataclasses.replace(config.train, num_seeds=num_seeds)
        several = Stepper(build(dataclasses.replace(config, train=train)), steps)
        alone = Stepper(build(config), steps)
        (_, _), (seconds, ratio) = compare(alone, several)
        print(
            f"{recipe}: {num_seeds} seeds {1000 * seconds:.2f} ms a step, {ratio:.2f} single ones: "
            f"{num_seeds / ratio:.2f} times as fast as one after another",
            flush=True,
        )


if __name__ == "__main__":
    chosen = {"places": compare_places, "seeds": compare_seeds}
    for name in sys.argv[1:] or chosen:
        chosen[name]()
