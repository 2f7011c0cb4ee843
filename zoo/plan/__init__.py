"""What a run would need and take on machines that need not be there: `zoo plan`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from zoo.config import Config, UserError
from zoo.config.checks import check_config
from zoo.console import align, show_bytes, show_count, show_time
from zoo.parallel.chips import GIB, Chip, find_chip, parse_slice
from zoo.plan.costs import Costs
from zoo.plan.estimate import ASSUMPTIONS, HOST_SPEED, Estimate, estimate_step
from zoo.plan.step import CompiledStep, Memory, compile_step, count_model, count_saved, make_devices
from zoo.train.loop import flops_per_step

LOCAL = "local"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `make_plan` found out. `room`: a chip's memory in bytes, 0 where it is not known;
    `estimate` None where the chip's speed is not known or the step does not fit."""

    model: str
    num_params: int
    target: str
    num_chips: int
    num_hosts: int
    mesh: dict[str, int]
    room: float
    fits: bool
    memory: Memory
    costs: Costs | None
    estimate: Estimate | None
    num_steps: int
    checkpoint_bytes: float
    compile_seconds: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "assumptions": ASSUMPTIONS}


def make_plan(config: Config, target: str) -> Plan:
    """Compiles a step of the config for `target`: a slice of TPUs (`v5p:8x16x16`, `v5p-4096`), or
    `local`, the devices of this machine.

    Where the data is not here, shapes are those of its synthetic twin. Raises UserError on an
    unknown target, without the TPU compiler, and as a run with this config would.
    """
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps_per_call=1))
    check_config(config)
    chip, devices, room, hosts = find_target(target)
    step, notes = compile_with_twin(config, devices, room)
    estimate = None
    if step.costs is not None and chip is not None:
        batch = step.parts.programs.batch_shapes
        flops = flops_per_step(step.parts)
        estimate = estimate_step(step.costs, chip, len(devices), flops, config, batch)
    return Plan(
        config.model.name,
        count_model(step.parts),
        target,
        len(devices),
        hosts,
        {axis: size for axis, size in step.parts.programs.mesh.shape.items() if size > 1},
        room,
        step.fits,
        step.memory,
        step.costs,
        estimate,
        config.train.num_steps,
        count_saved(step.parts),
        step.seconds,
        notes,
    )


def find_target(target: str) -> tuple[Chip | None, Any, float, int]:
    """The chip, the devices, a chip's memory in bytes (0: not known) and the number of hosts."""
    if target == LOCAL:
        devices = jax.devices()
        chip = find_chip(devices[0].device_kind)
        told = devices[0].memory_stats() or {}
        room = float(told.get("bytes_limit", 0) or (chip.memory if chip else 0))
        return chip, devices, room, jax.process_count()
    cut = parse_slice(target)
    return cut.chip, make_devices(cut), cut.chip.memory, -(-cut.num_chips // cut.chip.hosts)


def compile_with_twin(
    config: Config, devices: Any, room: float
) -> tuple[CompiledStep, tuple[str, ...]]:
    """The compiled step, with the synthetic twin of data that is not here."""
    room = room or float("inf")
    try:
        return compile_step(config, devices, room), ()
    except UserError as error:
        source = config.data.source
        if config.data.mixture or source.startswith("synthetic:"):
            raise
        data = dataclasses.replace(config.data, source=f"synthetic:{source}")
        try:
            step = compile_step(dataclasses.replace(config, data=data), devices, room)
        except UserError:
            raise error from None
        return step, (f"shapes are those of the data's synthetic twin, for {error}",)


def describe_plan(plan: Plan) -> str:
    """A plan as lines for people."""
    mesh = ", ".join(f"{axis}={size}" for axis, size in plan.mesh.items()) or "one device"
    lines = [
        f"{plan.model}, {plan.num_params:,} parameters, on {plan.target}: {plan.num_chips:,} "
        f"chip{'s' * (plan.num_chips > 1)}; mesh {mesh}",
        *plan.notes,
        "",
        *describe_memory(plan),
        "",
    ]
    if plan.costs is not None:
        lines += [*describe_costs(plan), ""]
    if plan.estimate is not None:
        lines += [*describe_times(plan), ""]
    seconds = plan.checkpoint_bytes / (HOST_SPEED * plan.num_hosts)
    lines += [
        f"a checkpoint: {show_bytes(plan.checkpoint_bytes)}, {show_time(seconds)} to write; "
        f"compiled in {show_time(plan.compile_seconds)}",
    ]
    if plan.estimate is not None:
        lines += ["assumed:", *(f"  {line}" for line in ASSUMPTIONS)]
    return "\n".join(lines)


def describe_memory(plan: Plan) -> list[str]:
    """The table of memory, and whether it is enough."""
    memory = plan.memory
    parts = {
        "parameters": memory.params,
        "optimizer state, average": memory.opt_state,
        "batch": memory.batch,
        "gradients": memory.gradients,
        "activations, temporaries": max(memory.temporaries - memory.gradients, 0.0),
        "code": memory.code,
        "in all": memory.total,
    }
    rows = [("memory a chip", ""), *((name, show_bytes(x)) for name, x in parts.items())]
    lines = align(rows, right=(1,))
    if not plan.room:
        return lines
    share = memory.total / plan.room
    verdict = (
        f"{share:.0%} of {plan.room / GIB:.0f} GiB: it fits"
        if plan.fits
        else (
            f"it does not fit into {plan.room / GIB:.0f} GiB: more of parallel.fsdp or "
            "parallel.tensor, model.remat='full', a smaller batch or more optim.num_microbatches"
        )
    )
    return [*lines, verdict]


def describe_costs(plan: Plan) -> list[str]:
    """The table of a step's arithmetic, memory traffic and collectives."""
    costs, times = plan.costs, plan.estimate
    assert costs is not None

    def show(seconds: float | None) -> str:
        return "" if seconds is None else show_time(seconds)

    rows = [
        ("a step, a chip", "times", "amount", "at least"),
        (
            "arithmetic",
            "",
            f"{show_count(costs.flops)}FLOP",
            show(times.arithmetic if times else None),
        ),
        ("memory", "", f"{show_count(costs.num_bytes)}B", show(times.memory if times else None)),
        *(
            (kind, f"{count:,.0f}", f"{show_count(sent)}B", "")
            for kind, (count, sent) in costs.collectives.items()
        ),
    ]
    if costs.collectives:
        sent = f"{show_count(costs.sent_bytes)}B"
        rows += [("network", "", sent, show(times.network if times else None))]
    lines = align(rows, right=(1, 2, 3))
    if costs.unknown_loops:
        lines += [f"{costs.unknown_loops} loops whose number of turns is not known count once"]
    if costs.kernels:
        lines += [f"{costs.kernels} kernels whose arithmetic is not known count none"]
    return lines


def describe_times(plan: Plan) -> list[str]:
    """What the roofline says."""
    times = plan.estimate
    assert times is not None
    return [
        f"a step: {show_time(times.best)} at best, {show_time(times.worst)} where nothing overlaps",
        f"{times.rate:,.0f} {times.unit}/s at best, MFU at most {times.mfu:.1%}",
        f"{plan.num_steps:,} steps: {show_time(plan.num_steps * times.best)} at best, "
        f"{show_time(plan.num_steps * times.worst)} where nothing overlaps",
    ]
