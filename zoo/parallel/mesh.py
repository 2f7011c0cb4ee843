"""The device mesh of a config: `data, fsdp, tensor, context, expert`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh

from zoo.config import ParallelConfig, UserError

AXES = ("data", "fsdp", "tensor", "context", "expert")
DATA_AXES = ("data", "fsdp", "expert")  # the axes that share the batch
# From the slowest links to the fastest: `data` may cross hosts, `tensor` speaks in every layer.
ORDER = ("data", "fsdp", "expert", "context", "tensor")


def make_mesh(config: ParallelConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices, or those given; the axis of size -1 takes those that remain.

    Raises UserError when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = find_sizes(config, len(devices))
    shape = tuple(sizes[axis] for axis in ORDER)
    # Auto: the compiler propagates shardings; Linen does not work under Explicit, the default.
    auto = (AxisType.Auto,) * len(ORDER)
    try:
        return jax.make_mesh(shape, ORDER, axis_types=auto, devices=devices)
    except NotImplementedError:  # an axis that is only a part of one of the torus
        places = create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(places, ORDER, axis_types=auto)


def find_sizes(config: ParallelConfig, num_devices: int) -> dict[str, int]:
    """The size of each axis. Raises UserError as `make_mesh` does."""
    sizes = {axis: getattr(config, axis) for axis in AXES}
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if num_devices % fixed or (-1 not in sizes.values() and fixed != num_devices):
        asked = ", ".join(f"{axis}={size}" for axis, size in sizes.items() if size != 1)
        ways = (
            f"the others should divide {num_devices}"
            if -1 in sizes.values()
            else "set one axis to -1 for the rest"
        )
        raise UserError(
            f"parallel: {asked} does not fit {num_devices} device{'s' * (num_devices > 1)} ({ways})"
        )
    return {axis: num_devices // fixed if n == -1 else n for axis, n in sizes.items()}


def count_shares(mesh: Mesh) -> int:
    """How many parts the batch is divided into."""
    return math.prod(mesh.shape[axis] for axis in DATA_AXES)
