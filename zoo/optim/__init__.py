"""The Optax chain of a config: penalties, clipping, optimizer, decoupled decay, schedule."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from zoo.config import OptimConfig, TrainConfig, UserError, nearest
from zoo.config.parse import convert
from zoo.optim.groups import Groups, begin_at, hold_back, make_groups, parse_rules
from zoo.optim.optimizers import (
    OPTIMIZERS,
    REFUSED,
    WHOLE,
    Mask,
    Optimizer,
    decay_after,
    make_sam,
)
from zoo.optim.schedules import SCHEDULES, Schedule
from zoo.tree import fill_leaves, make_mask, map_named, select

__all__ = [
    "OPTIMIZERS",
    "REFUSED",
    "SCHEDULES",
    "Groups",
    "check_steps",
    "choose_eval_params",
    "make_groups",
    "make_optimizer",
    "make_schedule",
]

MakeMask = Callable[[str, Any], Any]  # a regex and a tree -> a tree of bools

_SAM = {"base": "sgd", "base_arguments": {}}


def make_schedule(config: OptimConfig, num_steps: int) -> Schedule:
    """Step -> learning rate: linear warm-up from 0, then the named schedule to `num_steps`."""
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"optim.schedule={config.schedule!r} is unknown{nearest(config.schedule, SCHEDULES)}"
        )
    make = SCHEDULES[config.schedule]
    known = list(inspect.signature(make).parameters)[3:]
    _check_names(config.schedule_arguments, known, "optim.schedule_arguments")
    hints = typing.get_type_hints(make)
    given = {
        name: convert(value, hints[name], f"optim.schedule_arguments.{name}")
        for name, value in config.schedule_arguments.items()
    }
    steps = max(num_steps - config.warmup_steps, 1)
    after = make(float(config.learning_rate), steps, config.warmup_steps, **given)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(
    config: OptimConfig, num_steps: int, groups: Groups | None = None
) -> optax.GradientTransformation:
    """The whole chain, for the parameters that `groups` lets train (by default for all, alike).

    Decay is decoupled (Loshchilov & Hutter 2019) for every optimizer: through the optimizer's own
    `weight_decay` where Optax gives it one with a mask, beside its update otherwise. Groups of
    another decay or first step have an optimizer of their own, so that a parameter that begins
    late begins with fresh moments; a multiplier of the learning rate scales the update, decay
    included, as PyTorch's parameter groups do.

    Raises UserError on an unknown name or argument, or on what cannot go together.
    """
    _check_rules(config)
    groups = Groups() if groups is None else groups
    # Of a part of the parameters a pattern may match none: `make_groups` has seen them all.
    make = make_mask if groups.is_plain else select
    chain = []
    if config.l2:
        chain.append(optax.add_decayed_weights(config.l2, partial(make, config.decay_pattern)))
    if config.l1:
        chain.append(optax.masked(_add_sign(config.l1), partial(make, config.decay_pattern)))
    if groups.from_step:
        chain.append(hold_back(groups))
    if config.clip_norm is not None:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    chain.append(_make_parts(config, num_steps, groups, make))
    if groups.learning_rate:
        chain.append(optax.stateless(lambda updates, _: groups.scale(updates)))
    return optax.chain(*chain)


def _make_parts(
    config: OptimConfig, num_steps: int, groups: Groups, make: MakeMask
) -> optax.GradientTransformation:
    """One optimizer, or one for each pair of decay and first step."""
    if not (groups.weight_decay or groups.from_step):
        return _make_named(config, num_steps, make)

    def choose(path: str, _: Any) -> tuple[float, int]:
        return groups.weight_decay.get(path, 1.0), groups.from_step.get(path, 0)

    def name(pair: tuple[float, int]) -> str:
        return f"decay_{pair[0]:g}_from_{pair[1]}"

    paths = {*groups.weight_decay, *groups.from_step}
    pairs = {(1.0, 0), *(choose(path, None) for path in paths)}
    parts = {}
    for decay, first in sorted(pairs):
        part = dataclasses.replace(config, weight_decay=config.weight_decay * decay)
        optimizer = _make_named(part, num_steps, make, start=first)
        parts[name((decay, first))] = begin_at(optimizer, first)
    return optax.partition(
        parts, lambda tree: map_named(lambda path, leaf: name(choose(path, leaf)), tree)
    )


def _check_rules(config: OptimConfig) -> None:
    """Raises UserError on rows that cannot be, and multipliers an optimizer would get wrong."""
    rules = [rule for _, rule in parse_rules(config)]
    why = WHOLE.get(config.name)
    apart = config.unfreeze_every_steps or any(
        rule.from_step or rule.weight_decay != 1 for rule in rules
    )
    rates = config.layer_decay != 1 or any(rule.learning_rate != 1 for rule in rules)
    if why and (apart or (rates and why.rates)):
        raise UserError(
            f"optim.name={config.name!r} {why.reason}: optim.rules may only set "
            f"{'frozen' if why.rates else 'frozen and learning_rate'} with it"
            + (", and layer_decay must stay 1" if config.layer_decay != 1 and why.rates else "")
            + (", and unfreeze_every_steps 0" if config.unfreeze_every_steps else "")
        )


def check_steps(config: OptimConfig, train: TrainConfig) -> None:
    """Raises UserError where SAM would be evaluated, or end, on a climb."""
    if config.name != "sam":
        return
    period = config.arguments.get("sync_period", 2)
    for name in ("num_steps", "eval_every_steps"):
        steps = getattr(train, name)
        if steps and steps % period:
            raise UserError(
                f"train.{name}={steps} must be a multiple of SAM's sync_period={period}: "
                "between two multiples the parameters are perturbed"
            )


def choose_eval_params(opt_state: Any, params: Any) -> Any:
    """What is evaluated: schedule-free's average (Defazio et al. 2024), else `params` themselves.

    Schedule-free takes gradients at points that it does not mean to ship.
    """

    def is_found(node: Any) -> bool:
        return isinstance(node, contrib.ScheduleFreeState)

    found = [x for x in jax.tree.leaves(opt_state, is_leaf=is_found) if is_found(x)]
    if not found:
        return params
    trained = jax.tree.map(
        lambda z, p: None if z is None else p, found[0].z, params, is_leaf=lambda z: z is None
    )
    places = jax.tree.map(lambda p: p.sharding, trained)
    averaged = jax.jit(contrib.schedule_free_eval_params, out_shardings=places)(found[0], trained)
    return fill_leaves(averaged, params)


def _make_named(
    config: OptimConfig, num_steps: int, make: MakeMask, period: int = 1, start: int = 0
) -> optax.GradientTransformation:
    """The optimizer of the config's name with its decay, updated once in `period` steps, its first
    step the schedule's step `start`."""
    decays: Mask = partial(make, config.decay_pattern)

    def make_rate(peak: float) -> Schedule:
        schedule = make_schedule(dataclasses.replace(config, learning_rate=peak), num_steps)
        if period == 1 and not start:
            return schedule
        return lambda count: schedule(period * (count + 1) - 1 + start)

    if config.name == "sam" and period == 1:
        return _make_sam(config, num_steps, make)
    key = "optim.name" if period == 1 else "optim.arguments.base"
    row = _look_up(config.name, key)
    _check_rate(config, row, f"{key}={config.name!r}")
    arguments_key = "optim.arguments" if period == 1 else "optim.arguments.base_arguments"
    given = _check_arguments(config.arguments, row.arguments, arguments_key, make)
    for name, value in given.items():  # Muon's Adam has a peak of its own, on the same schedule
        if name.endswith("learning_rate") and value is not None:
            given[name] = make_rate(value)
    rate: Any = make_rate(config.learning_rate)
    if row.rate == "constant":
        rate = config.learning_rate
    if "mask" in row.decay:
        given["weight_decay"] = config.weight_decay
        given |= {row.decay: decays} if config.weight_decay else {}
    try:
        optimizer = row.make(rate, **given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}={config.name!r}: {str(error).splitlines()[0]}") from None
    if "mask" in row.decay or not config.weight_decay:
        return optimizer
    return optax.chain(optimizer, decay_after(rate, config.weight_decay, decays))


def _make_sam(config: OptimConfig, num_steps: int, make: MakeMask) -> optax.GradientTransformation:
    known = [*_SAM, *list(inspect.signature(make_sam).parameters)[1:]]
    given = {**_SAM, **_check_arguments(config.arguments, known, "optim.arguments", make)}
    name, arguments = given.pop("base"), given.pop("base_arguments")
    if config.ema_decay is not None:
        raise UserError("optim.ema_decay would average SAM's perturbed parameters: set it to None")
    if name == "sam" or (name in OPTIMIZERS and OPTIMIZERS[name].rate == "warmup"):
        raise UserError(f"optim.arguments.base={name!r} cannot be under SAM")
    period = given.get("sync_period", 2)
    if not isinstance(period, int) or period < 2:
        raise UserError(f"optim.arguments.sync_period={period!r} must be an int of at least 2")
    base = dataclasses.replace(config, name=name, arguments=arguments)
    return make_sam(_make_named(base, num_steps, make, period), **given)


def _look_up(name: str, key: str) -> Optimizer:
    names = sorted([*OPTIMIZERS, "sam"])
    if name in REFUSED:
        raise UserError(f"{key}={name!r} {REFUSED[name]}; choose from {', '.join(names)}")
    if name not in OPTIMIZERS:
        raise UserError(f"{key}={name!r} is unknown{nearest(name, names)}")
    return OPTIMIZERS[name]


def _check_rate(config: OptimConfig, row: Optimizer, name: str) -> None:
    """Raises UserError where the rate or the decay of the config would not do what it says."""
    rate = config.learning_rate
    scheduled = config.schedule != "constant"
    if row.rate in ("constant", "none") and (scheduled or config.warmup_steps):
        better = ", or choose optimistic_adam_v2" if config.name == "optimistic_adam" else ""
        raise UserError(
            f"{name} follows no schedule: set optim.schedule='constant' and "
            f"optim.warmup_steps=0{better}"
        )
    if row.rate == "warmup" and scheduled:
        raise UserError(
            f"{name} takes the place of a schedule: optim.schedule={config.schedule!r} must be "
            "'constant' (optim.warmup_steps may be set)"
        )
    if row.rate == "warmup" and config.ema_decay is not None:
        raise UserError(f"{name} averages by itself: optim.ema_decay must be None")
    if row.rate == "factor" and rate == OptimConfig().learning_rate:
        raise UserError(
            f"{name} finds its own step, optim.learning_rate multiplies it: set that "
            f"(1.0 in the paper), its default {rate} is meant for others"
        )
    if row.rate == "none" and rate != 1.0:
        raise UserError(f"{name} has no learning rate: set optim.learning_rate=1.0")
    if row.decay == "none" and config.weight_decay:
        raise UserError(
            f"{name} takes every step from the initial parameters, so that decay is forgotten: "
            "optim.weight_decay must be 0 (optim.l2 works)"
        )


def _check_arguments(
    given: dict[str, Any], known: list[str], key: str, make: MakeMask
) -> dict[str, Any]:
    """The arguments as Optax takes them."""
    ours = {
        "learning_rate": "learning_rate",
        "weight_decay": "weight_decay",
        "weight_decay_rate": "weight_decay",
        "adam_weight_decay": "weight_decay",
        "mask": "decay_pattern",
        "weight_decay_mask": "decay_pattern",
        "warmup_steps": "warmup_steps",
    }
    for name in given:
        if name in ours:
            raise UserError(f"{key}.{name}: set optim.{ours[name]} instead")
    _check_names(given, [name for name in known if name not in ours], key)
    return {name: _convert(name, value, f"{key}.{name}", make) for name, value in given.items()}


def _check_names(given: dict[str, Any], known: Iterable[str], key: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            hint = nearest(name, known) if known else " (it takes none)"
            raise UserError(f"{key}.{name} is unknown{hint}")


def _convert(name: str, value: Any, key: str, make: MakeMask) -> Any:
    """A dtype from its name, a mask from a regex, tuples from the lists of JSON."""
    if isinstance(value, list | tuple):
        return tuple(_convert(name, part, key, make) for part in value)
    if isinstance(value, str) and name.endswith("mask"):
        return partial(make, value)
    if isinstance(value, str) and "dtype" in name:
        try:
            return jnp.dtype(value)
        except TypeError:
            raise UserError(f"{key}={value!r} is no dtype (bfloat16, float32, ...)") from None
    return value


def _add_sign(l1: float) -> optax.GradientTransformation:
    """Adds the gradient of l1 * sum |w|."""

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda g, p: g + l1 * jnp.sign(p), updates, params)

    return optax.stateless(update)
