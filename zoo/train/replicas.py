"""The classic data parallelism: every device has all parameters and runs the step on its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from zoo.config import UserError

REPLICAS = "replicas"


def map_replicas(train_steps: Callable[..., Any], mesh: Mesh, axis: int) -> Callable[..., Any]:
    """`train_steps`, made for the mapped axis `REPLICAS`, by `jax.pmap` over the devices of a mesh.

    It takes and gives what it did before: a state that all devices have, and batches whose rows lie
    on `axis`.
    """
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(train_steps, REPLICAS, in_axes=(None, axis), out_axes=None, devices=devices)

    def run(state: Any, batches: Any) -> Any:
        def divide(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:axis], len(devices), -1, *x.shape[axis + 1 :])

        return mapped(state, jax.tree.map(divide, batches))

    return run


def check_alone(task: Any) -> None:
    """Raises UserError on a task whose loss is no sum over the parts of a batch, and in a job of
    several processes."""
    if jax.process_count() > 1:
        raise UserError(
            "parallel.backend='pmap' is for the devices of one process, and this is one of "
            f"{jax.process_count()} (leave it 'jit')"
        )
    if getattr(task, "compares_examples", False):
        raise UserError(
            "parallel.backend='pmap': each device has its own rows alone, and "
            f"{type(task).__name__} compares all examples of a batch (leave it 'jit')"
        )
