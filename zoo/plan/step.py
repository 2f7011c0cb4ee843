"""The real training step compiled for devices that need not be there."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from zoo.config import Config, UserError
from zoo.parallel.chips import Slice
from zoo.plan.costs import Costs, find_costs
from zoo.plan.hlo import parse_module
from zoo.train.build import Parts, build
from zoo.tree import count_params, own_params

# libtpu asks Cloud's metadata server what machine it is on; here there is none.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a chip. `gradients`, at the precision of the parameters, are a part of `temporaries`;
    `total` is arguments + outputs - aliased + temporaries + code. Where the compiler gave up for
    want of memory only `total` is known."""

    params: float
    gradients: float
    opt_state: float
    batch: float
    temporaries: float
    code: float
    total: float


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What the compiler says of one training step."""

    parts: Parts
    memory: Memory
    costs: Costs | None  # None where it does not fit
    seconds: float
    fits: bool


def make_devices(target: Slice) -> Sequence[Any]:
    """The devices of a slice of TPUs, by the TPU compiler. Raises UserError without it, and on a
    shape that it does not know."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    # Two cores of a v4 are one device, as on Cloud; of a v5p they are by default.
    more = {"chip_config_name": "megacore"} if target.chip.name == "v4" else {}
    try:
        return topologies.get_topology_desc(str(target), platform="tpu", **more).devices
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "not installed" in text or "libtpu.so" in text:
            raise UserError(
                f"a plan for {target} needs the TPU compiler: pip install 'zoo-jax[plan]'"
            ) from None
        raise UserError(f"{target}: {text}") from None


def compile_step(config: Config, devices: Sequence[Any], room: float) -> CompiledStep:
    """Compiles one training step of the config; `room` is a chip's memory in bytes."""
    parts = build(config, devices=devices)
    programs = parts.programs
    start = time.perf_counter()
    specs = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=programs.blocks_sharding)
        for name, (shape, dtype) in programs.expected_shapes(1).items()
    }
    lowered = programs.jit_train().lower(programs.abstract_state, specs)
    state = programs.abstract_state
    shares = {
        "params": count_share(state.params),
        "gradients": count_share(programs.groups.trained(state.params)),
        "opt_state": count_share((state.opt_state, state.ema)),
        "batch": count_share(specs),
    }
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = find_needed(str(error))
        if needed is None:
            raise
        memory = Memory(**shares, temporaries=needed, code=0.0, total=needed)
        return CompiledStep(parts, memory, None, time.perf_counter() - start, False)
    seconds = time.perf_counter() - start
    found = compiled.memory_analysis()
    temporaries = float(found.temp_size_in_bytes)
    code = float(found.generated_code_size_in_bytes)
    kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    total = kept + temporaries + code
    memory = Memory(**shares, temporaries=temporaries, code=code, total=total)
    costs = find_costs(parse_module(compiled.as_text()))
    return CompiledStep(parts, memory, costs, seconds, memory.total <= room)


def count_share(tree: Any) -> float:
    """Bytes of a tree of placed shapes on one device."""
    total = 0.0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += float(np.prod(shape, dtype=np.float64)) * _width(leaf.dtype)
    return total


def _width(dtype: Any) -> int:
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else np.dtype(dtype).itemsize


def find_needed(message: str) -> float | None:
    """The bytes that a compiler which ran out of memory would have needed; None of another error:
    '... memory required for HLO temporaries (724.07G) exceeds available HBM (95.74G).'"""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = re.search(r"\(([\d.]+)([KMGT])\) exceeds|[Uu]sed ([\d.]+)([KMGT]) of", message)
    if found is None:
        return float("inf")
    number, unit = (part for part in found.groups() if part)
    return float(number) * 1024.0 ** ("KMGT".index(unit) + 1)


def count_saved(parts: Parts) -> float:
    """Bytes of a checkpoint."""
    leaves = jax.tree.leaves(parts.programs.abstract_state)
    return sum(float(np.prod(x.shape, dtype=np.float64)) * _width(x.dtype) for x in leaves)


def count_model(parts: Parts) -> int:
    """Parameters of the model that is trained."""
    return count_params(own_params(parts.programs.abstract_params))
