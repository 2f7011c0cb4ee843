"""Several seeds in one compiled step: a state, a batch and a key with a leading seed axis.

Nothing of the loop or of the step is written twice: `jax.vmap` maps the step over the axis. The
number of the step is one for all seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.config import Config
from zoo.train.state import State

SEED_AXES = State(step=None, params=0, ema=0, opt_state=0, sums=0, first_bad_step=0)
LEVEL = 0.95  # of the intervals


def list_seeds(config: Config) -> range:
    """The seeds that a run trains: `seed`, `seed + 1`, ..."""
    return range(config.seed, config.seed + config.train.num_seeds)


def make_keys(config: Config) -> jax.Array:
    """The keys `[seeds]` of the seeds, each that of its single run."""
    return jnp.stack([jax.random.key(seed) for seed in list_seeds(config)])


def map_step(train_step: Callable[..., Any], keys: jax.Array) -> Callable[..., Any]:
    """`train_step` for a state and a batch `[seeds, b, ...]` of all seeds; the values of its report
    are `[seeds]`."""

    def step_all(state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
        mapped = jax.vmap(train_step, in_axes=(SEED_AXES, 0, 0), out_axes=(SEED_AXES, 0))
        return mapped(state, batch, keys)

    return step_all


def place_seeds(shardings: State) -> State:
    """The shardings of a state of several seeds, each of which lies as one alone."""

    def widen(sharding: NamedSharding) -> NamedSharding:
        return NamedSharding(sharding.mesh, P(None, *sharding.spec))

    return dataclasses.replace(jax.tree.map(widen, shardings), step=shardings.step)


def pick_seed(state: State, index: Any) -> State:
    """The state of one seed, that of a single run."""
    one = jax.tree.map(lambda x: x[index], dataclasses.replace(state, step=None))
    return dataclasses.replace(one, step=state.step)


@dataclasses.dataclass(frozen=True)
class Spread:
    """A metric over seeds: a value a seed, their mean and sample deviation, and the interval in
    which the mean over all seeds lies with 95 % (Student's t with one degree of freedom less than
    there are seeds, which takes the seeds' values as normal)."""

    values: tuple[float, ...]
    mean: float
    deviation: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """As a row of metrics.jsonl has it, beside the mean."""
        return {
            "values": list(self.values),
            "deviation": self.deviation,
            "low": self.low,
            "high": self.high,
        }


def measure_spread(values: Sequence[float]) -> Spread:
    """Of two seeds or more. What is not finite makes all of it nan."""
    from scipy.special import stdtrit

    if not np.isfinite(values).all():
        return Spread(tuple(values), *[math.nan] * 4)
    count = len(values)
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (count - 1))
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * deviation / math.sqrt(count)
    return Spread(tuple(values), mean, deviation, mean - half, mean + half)


def spread_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """The spread of each metric, from a row of metrics a seed."""
    return {name: measure_spread([float(row[name]) for row in rows]) for name in rows[0]}
