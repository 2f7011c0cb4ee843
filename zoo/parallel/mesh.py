"""The device mesh `data, fsdp, tensor` of a config."""

from __future__ import annotations

import math

import jax
from jax.sharding import AxisType, Mesh

from zoo.config import ParallelConfig, UserError

AXES = ("data", "fsdp", "tensor")
DATA_AXES = ("data", "fsdp")  # the axes that share the batch


def make_mesh(config: ParallelConfig) -> Mesh:
    """A mesh over all devices; the axis of size -1 takes those that remain.

    Raises UserError when the sizes do not multiply to the number of devices.
    """
    sizes = [getattr(config, axis) for axis in AXES]
    num_devices = jax.device_count()
    fixed = math.prod(size for size in sizes if size != -1)
    if num_devices % fixed or (-1 not in sizes and fixed != num_devices):
        asked = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        raise UserError(
            f"parallel: {asked} does not fit {num_devices} device{'s' * (num_devices > 1)} "
            "(set one axis to -1 for the rest)"
        )
    sizes = [num_devices // fixed if size == -1 else size for size in sizes]
    # Auto: the compiler propagates shardings; Linen does not work under Explicit, the default.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))
