"""The Optax chain of a config: penalties, clipping, optimizer, decoupled decay, schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.config import OptimConfig, UserError, nearest
from zoo.tree import make_mask

Schedule = Callable[[Any], Any]

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "adam": optax.adam,
    "adamw": optax.adamw,
}
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "linear": lambda peak, steps, final=0.0: optax.linear_schedule(peak, final * peak, steps),
    "cosine": lambda peak, steps, final=0.0: optax.cosine_decay_schedule(peak, steps, alpha=final),
}


def make_schedule(config: OptimConfig, num_steps: int) -> Schedule:
    """Step -> learning rate: linear warm-up from 0, then the named schedule to `num_steps`."""
    make = _look_up(SCHEDULES, config.schedule, "optim.schedule")
    steps = max(num_steps - config.warmup_steps, 1)
    arguments = config.schedule_arguments
    _check_arguments(make, arguments, "optim.schedule_arguments", skip=2)
    after = make(config.learning_rate, steps, **arguments)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimConfig, num_steps: int) -> optax.GradientTransformation:
    """The whole chain. Raises UserError on an unknown name or argument.

    Decay is decoupled (Loshchilov & Hutter 2019) for every optimizer: through the optimizer's own
    `weight_decay` where Optax gives it one, after its update otherwise.
    """
    make = _look_up(OPTIMIZERS, config.name, "optim.name")
    schedule = make_schedule(config, num_steps)
    parameters = inspect.signature(make).parameters
    _check_arguments(make, config.arguments, "optim.arguments", skip=1)
    if "weight_decay" in config.arguments:
        raise UserError("optim.arguments.weight_decay: set optim.weight_decay instead")

    def decays(params: Any) -> Any:
        return make_mask(config.decay_pattern, params)

    chain = []
    if config.l2:
        chain.append(optax.add_decayed_weights(config.l2, decays))
    if config.l1:
        chain.append(optax.masked(_add_sign(config.l1), decays))
    if config.clip_norm is not None:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    if "weight_decay" in parameters:
        decay: dict[str, Any] = {"weight_decay": config.weight_decay}
        decay |= {"mask": decays} if config.weight_decay else {}
        chain.append(make(schedule, **decay, **config.arguments))
    elif config.weight_decay:
        # The update at rate 1 is -u: decay joins it before both meet the schedule.
        chain += [
            make(1.0, **config.arguments),
            optax.add_decayed_weights(-config.weight_decay, decays),
            optax.scale_by_schedule(schedule),
        ]
    else:
        chain.append(make(schedule, **config.arguments))
    return optax.chain(*chain)


def _add_sign(l1: float) -> optax.GradientTransformation:
    """Adds the gradient of l1 * sum |w|."""

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda g, p: g + l1 * jnp.sign(p), updates, params)

    return optax.stateless(update)


def _look_up(table: dict[str, Callable[..., Any]], name: str, key: str) -> Callable[..., Any]:
    if name not in table:
        raise UserError(f"{key}={name!r} is unknown{nearest(name, table)}")
    return table[name]


def _check_arguments(make: Callable[..., Any], given: dict[str, Any], key: str, skip: int) -> None:
    """`skip` leading parameters are ours to give."""
    known = list(inspect.signature(make).parameters)[skip:]
    for name in given:
        if name not in known:
            raise UserError(f"{key}.{name} is unknown{nearest(name, known)}")
