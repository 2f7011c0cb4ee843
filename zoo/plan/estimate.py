"""From what a step costs a chip to how long it takes: a roofline (Williams et al. 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.config import Config
from zoo.parallel.chips import Chip
from zoo.plan.costs import Costs

ASSUMPTIONS = (
    "products at the chip's peak in bf16, memory at its full bandwidth",
    "a collective is a ring along one axis of the torus, in both directions, over ICI",
    "at best arithmetic, memory and network wait for each other never, at worst always",
    "no time for data, evaluation, checkpoints, restarts and what remat offloads to the host",
    "checkpoints are written by all hosts at once, 1 GB/s each",
)
HOST_SPEED = 1e9  # bytes a second that a host writes


@dataclass(frozen=True)
class Estimate:
    """Seconds a step by arithmetic, memory and network, and what follows.

    best, worst: seconds a step where the three overlap wholly, and not at all. mfu: model FLOPs of
    the best step, of the peak. rate: tokens (or examples, `unit`) a second at best. days: of the
    whole recipe at best.
    """

    arithmetic: float
    memory: float
    network: float
    best: float
    worst: float
    model_flops: float
    mfu: float
    rate: float
    unit: str
    days: float


def estimate_step(
    costs: Costs, chip: Chip, num_chips: int, model_flops: float, config: Config, batch: Any
) -> Estimate:
    """`model_flops`: of a step on all chips; `batch`: the shapes of a global batch by name."""
    ways = max(chip.dimensions, 1)
    arithmetic, memory = costs.flops / chip.flops, costs.num_bytes / chip.bandwidth
    network = costs.sent_bytes / (chip.link / ways) if chip.link else 0.0
    best, worst = max(arithmetic, memory, network), arithmetic + memory + network
    count, unit = count_inputs(batch, config)
    return Estimate(
        arithmetic,
        memory,
        network,
        best,
        worst,
        model_flops,
        model_flops / (best * num_chips * chip.flops),
        count / best,
        unit,
        best * config.train.num_steps / 86400,
    )


def count_inputs(batch: Any, config: Config) -> tuple[int, str]:
    """How many tokens a step reads; of data without text, how many examples."""
    texts = [name for name in ("tokens", "source", "target") if name in batch]
    if "image" in batch or not texts:
        return config.train.batch_size, "examples"
    return config.train.batch_size * config.data.length * len(texts), "tokens"
