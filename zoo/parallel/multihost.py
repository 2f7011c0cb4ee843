"""What each process of a job reads, and how its rows become one global array."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import NamedSharding

from zoo.config import UserError


def local_rows(batch_size: int, num_shares: int, what: str) -> slice:
    """The rows of a global batch that this process reads.

    Raises UserError when `num_shares` devices cannot share the batch evenly.
    """
    unit = math.lcm(num_shares, jax.process_count())
    if batch_size % unit:
        low = batch_size // unit * unit
        near = f"{low} or {low + unit}" if low else f"{unit}"
        raise UserError(
            f"{what}={batch_size} is not divisible by the {unit} devices that share it "
            f"(nearest: {near})"
        )
    rows = batch_size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def place_batch(batch: dict[str, Any], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows -> global arrays on the devices (the copy runs in the background)."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
