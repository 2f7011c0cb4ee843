"""What each process of a job reads, how its rows become one global array, and what one of them
finds out for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.config import UserError
from zoo.parallel.mesh import DATA_AXES, count_shares


def local_rows(batch_size: int, mesh: Mesh, what: str) -> slice | np.ndarray:
    """The rows of a global batch that this process reads: those of its devices, in order. Two
    processes whose devices share a row (over `tensor` or `context`) both read it.

    Raises UserError when the devices cannot share the batch evenly.
    """
    num_shares = count_shares(mesh)
    if batch_size % num_shares:
        low = batch_size // num_shares * num_shares
        near = f"{low} or {low + num_shares}" if low else f"{num_shares}"
        raise UserError(
            f"{what}={batch_size} is not divisible by the {num_shares} devices that share it "
            f"(nearest: {near})"
        )
    if jax.process_count() == 1:  # of all devices, also those of a machine that is not there
        return slice(None)
    places = NamedSharding(mesh, P(DATA_AXES)).addressable_devices_indices_map((batch_size,))
    rows = np.arange(batch_size)
    return np.unique(np.concatenate([rows[index] for index in places.values() if index]))


def place_batch(batch: dict[str, Any], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows -> global arrays on the devices (the copy runs in the background)."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def tell_all(find: Callable[[], Any]) -> Any:
    """What process 0 finds (JSON), in every process; a UserError of it is raised in every one."""
    if jax.process_count() == 1:
        return find()
    told: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            told = {"found": find()}
        except UserError as error:
            told = {"error": str(error)}
    letters = np.frombuffer(json.dumps(told).encode(), np.uint8)
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(letters))))
    letters = np.resize(letters, count)  # of the others only the shape counts
    told = json.loads(multihost_utils.broadcast_one_to_all(letters).astype(np.uint8).tobytes())
    if "error" in told:
        raise UserError(told["error"])
    return told["found"]


def gather_digests(digest: str) -> list[str]:
    """The hexadecimal digests (of one length) of all processes, in every one."""
    if jax.process_count() == 1:
        return [digest]
    mine = np.frombuffer(bytes.fromhex(digest), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(mine)).astype(np.uint8)
    return [theirs.tobytes().hex() for theirs in every]
