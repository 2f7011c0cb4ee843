"""Which mesh, how many microbatches and what remat: those that fit, the fastest first."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from zoo.config import Config, UserError
from zoo.console import show_bytes, show_time
from zoo.plan import Plan, make_plan
from zoo.train.models import find_factory

TENSOR, EXPERT, CONTEXT = (1, 2, 4, 8), (1, 8), (1, 4)
REMAT = ("none", "dots", "full")  # from the fastest to the smallest
MICROBATCHES = (1, 2, 4, 8)
LONG = 4096  # tokens of a row from which on it is worth to share them


def search_plans(
    config: Config,
    target: str,
    num_chips: int,
    limit: int,
    tell: Callable[[str], None],
    make: Callable[[Config, str], Plan] = make_plan,
) -> list[tuple[Config, Plan]]:
    """Plans that fit, the fastest first (by the mean of best and worst), after at most `limit`
    compilations, each of which is told of.

    Of a mesh the lightest remat that fits is taken, and more microbatches where none does. Raises
    UserError where no mesh divides the batch.
    """
    found: list[tuple[Config, Plan]] = []
    meshes = list(list_meshes(config, num_chips))
    if not meshes:
        raise UserError(
            f"train.batch_size={config.train.batch_size} cannot be shared by any mesh of "
            f"{num_chips} chips that shares tokens or products by at most {TENSOR[-1]}"
        )
    left = limit
    for mesh in meshes:
        for attempt in list_attempts(config, mesh):
            if not left:
                return rank(found)
            left -= 1
            try:
                plan = make(attempt, target)
            except UserError as error:
                tell(f"{describe(attempt)}: {error}")
                break
            tell(f"{describe(attempt)}: {describe_result(plan)}")
            if plan.fits:
                found.append((attempt, plan))
                break
    return rank(found)


def list_meshes(config: Config, num_chips: int) -> Iterator[dict[str, int]]:
    """Meshes of so many chips on which the batch divides: few ways of sharing products first."""
    experts = [size for size in EXPERT if size == 1 or count_experts(config) % size == 0]
    contexts = CONTEXT if config.data.length >= LONG else (1,)
    for context, expert, tensor in itertools.product(contexts, experts, TENSOR):
        shares, rest = divmod(num_chips, tensor * context)
        if rest or shares % expert or config.train.batch_size % shares:
            continue
        yield {
            "data": 1,
            "fsdp": shares // expert,
            "tensor": tensor,
            "context": context,
            "expert": expert,
        }


def count_experts(config: Config) -> int:
    """Experts of each feed-forward; 1 where it is one. Of a class of the user's own only what the
    config says is known."""
    given = config.model.arguments.get("num_experts")
    factory = None if ":" in config.model.name else find_factory(config.model.name)
    return given or getattr(factory() if factory else None, "num_experts", None) or 1


def list_attempts(config: Config, mesh: dict[str, int]) -> Iterator[Config]:
    """The config on a mesh, from what is fastest to what needs least memory."""
    shares = mesh["fsdp"] * mesh["expert"]
    parallel = dataclasses.replace(config.parallel, **mesh)  # type: ignore[arg-type]
    for count, remat in ((1, "none"), (1, "dots"), *((n, "full") for n in MICROBATCHES)):
        if config.train.batch_size % (count * shares):
            continue
        yield dataclasses.replace(
            config,
            parallel=parallel,
            model=dataclasses.replace(config.model, remat=remat),  # type: ignore[arg-type]
            optim=dataclasses.replace(config.optim, num_microbatches=count),
        )


def rank(found: list[tuple[Config, Plan]]) -> list[tuple[Config, Plan]]:
    """The fastest first; without a speed the smallest."""

    def key(pair: tuple[Config, Plan]) -> Any:
        plan = pair[1]
        times = plan.estimate
        return (times.best + times.worst) / 2 if times else plan.memory.total

    return sorted(found, key=key)


def describe(config: Config) -> str:
    """What an attempt sets, as flags."""
    axes = vars(config.parallel)
    flags = [
        f"--config.parallel.{axis}={axes[axis]}"
        for axis in ("data", "fsdp", "tensor", "context", "expert")
        if axes[axis] != 1 or axis == "data"
    ]
    flags += [
        f"--config.model.remat={config.model.remat}",
        f"--config.optim.num_microbatches={config.optim.num_microbatches}",
    ]
    return " ".join(flags)


def describe_result(plan: Plan) -> str:
    """A plan in a few words."""
    needed, times = show_bytes(plan.memory.total), plan.estimate
    if not plan.fits:
        return f"{needed}, too much"
    if times is None:
        return needed
    return f"{needed}, a step {show_time(times.best)} to {show_time(times.worst)}"
