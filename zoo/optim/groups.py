"""What trains, and how fast: the ordered table of the config, resolved on a model's parameters.

Depth is counted from the top, as BEiT does (Bao et al. 2022): 0 is all that lies above a stack of
layers (its final norm, poolers, heads), 1 its last layer, n its first of n, n + 1 what lies below
it (embeddings, positions, class tokens). Each stack of a model counts for itself; what two of them
share below (T5's embedding) lies below the deeper one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.config import OptimConfig, UserError, nearest
from zoo.config.parse import convert
from zoo.tree import STACK, canonical_paths, drop_leaves, make_mask, map_named, named_leaves

# The first name of a path, seen from where its stack is, that says it lies below the stack.
BELOW = re.compile(r"(embed\w*|pos|cls|dist|registers|mask|relative)$")


@dataclass(frozen=True)
class Rule:
    """A row of `optim.rules`: multipliers, or `frozen`; and the first step that moves."""

    learning_rate: float = 1.0
    weight_decay: float = 1.0
    frozen: bool = False
    from_step: int = 0


@dataclass(frozen=True)
class Groups:
    """The table by the paths of the tree as the model holds it; what is absent has the defaults.

    frozen: gets no gradient, no optimizer state, no average.
    learning_rate: multiplier of the update, a number or, of a stack, `[n, 1, ...]`, one a layer.
    weight_decay: multiplier of the decay; from_step: the first step that moves.
    lines: the table for people, a line a row, with the number of parameters.
    """

    frozen: frozenset[str] = frozenset()
    learning_rate: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    from_step: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Is everything trained alike?"""
        return not (self.frozen or self.learning_rate or self.weight_decay or self.from_step)

    def trained(self, tree: Any) -> Any:
        """A tree like the parameters without what is frozen (None there)."""
        return drop_leaves(tree, self.frozen)

    def hold_back(self, gradients: Any, step: Any) -> Any:
        """Zeros in the place of gradients whose time has not come at `step`, counted from 0."""
        if not self.from_step:
            return gradients

        def gate(path: str, gradient: Any) -> Any:
            first = self.from_step.get(path, 0)
            return jnp.where(step >= first, gradient, 0) if first else gradient

        return map_named(gate, gradients)

    def scale(self, updates: Any) -> Any:
        """Updates by their learning-rate multipliers."""

        def multiply(path: str, update: Any) -> Any:
            by = self.learning_rate.get(path)
            return update if by is None else (update * by).astype(update.dtype)

        return map_named(multiply, updates)

    def describe(self, path: str) -> str:
        """How a parameter trains, for the table of parameters: 'frozen', 'x0.5, from step 10'."""
        if path in self.frozen:
            return "frozen"
        rates = [f"{float(x):.3g}" for x in np.ravel(self.learning_rate.get(path, 1.0))]
        words = [f"x{rates[0]}" + (f" to x{rates[-1]}" if rates[0] != rates[-1] else "")]
        words += [f"decay x{self.weight_decay[path]:.3g}"] if path in self.weight_decay else []
        words += [f"from step {self.from_step[path]}"] if path in self.from_step else []
        return ", ".join(words)


def parse_rules(config: OptimConfig) -> list[tuple[str, Rule]]:
    """The rows of `optim.rules`. Raises UserError on one that cannot be."""
    rules = []
    known = list(Rule.__dataclass_fields__)
    kinds = {"learning_rate": float, "weight_decay": float, "frozen": bool, "from_step": int}
    for index, (pattern, values) in enumerate(config.rules):
        key = f"optim.rules[{index}]"
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{key}: {pattern!r} is no regex: {error}") from None
        for name, value in values.items():
            if name not in known:
                raise UserError(f"{key} ({pattern!r}): {name!r} is unknown{nearest(name, known)}")
            if isinstance(value, str) or (name == "frozen" and not isinstance(value, bool)):
                raise UserError(f"{key}.{name}={value!r} is not {kinds[name].__name__}")
        rule = Rule(**{n: convert(v, kinds[n], f"{key}.{n}") for n, v in values.items()})
        if not 0 < rule.learning_rate < math.inf:
            raise UserError(
                f"{key}.learning_rate={rule.learning_rate} must be a number above 0 "
                "('frozen': True trains nothing)"
            )
        if not 0 <= rule.weight_decay < math.inf or rule.from_step < 0:
            name = "from_step" if rule.from_step < 0 else "weight_decay"
            raise UserError(f"{key}.{name}={getattr(rule, name)} must be a number of at least 0")
        if rule.frozen and len(values) > 1:
            others = ", ".join(name for name in values if name != "frozen")
            raise UserError(f"{key} ({pattern!r}) is frozen: {others} means nothing there")
        rules.append((pattern, rule))
    return rules


def make_groups(
    config: OptimConfig,
    params: Any,
    frozen: frozenset[str] = frozenset(),
    constants: str | None = None,
) -> Groups:
    """Resolves the table and the shorthands by depth on a tree of arrays or shapes.

    `frozen` are canonical paths that are frozen unless a row of the table names them; those in
    which the regex `constants` occurs (a teacher's) are out of the table's reach.
    Raises UserError on a row that matches nothing, on layers of one stack that would have to be
    told apart in what they cannot, or when nothing is left to train.
    """
    rules = parse_rules(config)
    names, leaves = canonical_paths(params), named_leaves(params)
    counts = {
        path: math.prod(leaves[held].shape) // len(layers)
        for held, layers in names.items()
        for path in layers
    }
    fixed = [path for path in counts if constants and re.search(constants, path)]
    total = sum(counts.values())
    for path in fixed:
        del counts[path]
    found, lines = _match(rules, counts)
    depths = {}
    if config.layer_decay != 1 or config.unfreeze_every_steps:
        depths = find_depths(counts)
    final = dict.fromkeys(fixed, Rule(frozen=True))
    for path in counts:
        rule, depth = found.get(path, Rule(frozen=path in frozen)), depths.get(path, 0)
        final[path] = Rule(
            rule.learning_rate * config.layer_decay**depth,
            rule.weight_decay if config.weight_decay else 1.0,
            rule.frozen,
            max(rule.from_step, depth * config.unfreeze_every_steps),
        )
    first = min((rule.from_step for rule in final.values() if not rule.frozen), default=None)
    if first is None:
        raise UserError("optim.rules freezes every parameter: nothing is left to train")
    if first:
        raise UserError(f"optim.rules: nothing trains before step {first}")
    if config.weight_decay or config.l1 or config.l2:
        make_mask(config.decay_pattern, params)
    groups = _hold(names, leaves, final)
    if groups.is_plain:
        return Groups(lines=tuple(lines))
    trained = sum(count for path, count in counts.items() if not final[path].frozen)
    lines += _describe_depths(config, depths)
    lines.append(f"trains {trained:,} of {total:,} parameters")
    return Groups(
        groups.frozen, groups.learning_rate, groups.weight_decay, groups.from_step, tuple(lines)
    )


def find_depths(paths: Iterable[str]) -> dict[str, int]:
    """Canonical path -> depth from the top. Raises UserError for a model without layers."""
    paths, stacks = list(paths), dict[str, int]()
    place = re.compile(rf"^((?:.*/)?{STACK})/(\d+)/")
    for path in paths:
        if layer := place.match(path):
            stacks[layer[1]] = max(stacks.get(layer[1], 0), int(layer[2]) + 1)
    if not stacks:
        raise UserError(
            "optim.layer_decay and optim.unfreeze_every_steps go by layers: this model has no "
            f"{STACK!r}, its paths are like {paths[0]!r}: set optim.rules"
        )

    def find(path: str) -> int:
        if layer := place.match(path):
            return stacks[layer[1]] - int(layer[2])
        parts = path.split("/")
        for end in range(len(parts) - 1, -1, -1):  # the stack that is nearest
            stack = "/".join([*parts[:end], STACK])
            if stack in stacks:
                return stacks[stack] + 1 if BELOW.match(parts[end]) else 0
        return max(stacks.values()) + 1 if BELOW.match(parts[0]) else 0

    return {path: find(path) for path in paths}


def _match(
    rules: list[tuple[str, Rule]], counts: Mapping[str, int]
) -> tuple[dict[str, Rule], list[str]]:
    """Path -> the rule that decides, and a line a row."""
    found: dict[str, Rule] = {}
    taken: dict[str, int] = {}
    lines = []
    for index, (pattern, rule) in enumerate(rules):
        matched = [path for path in counts if re.search(pattern, path)]
        mine = [path for path in matched if path not in found]
        if not mine:
            why = _say_why(pattern, matched, taken, counts)
            raise UserError(f"optim.rules[{index}] ({pattern!r}) matches {why}")
        found |= dict.fromkeys(mine, rule)
        taken |= dict.fromkeys(mine, index)
        total = sum(counts[path] for path in mine)
        arrays = f"{len(mine)} array{'s' * (len(mine) > 1)}"
        lines.append(f"{pattern!r}: {_say(rule)}; {total:,} parameters in {arrays}")
    return found, lines


def _say_why(
    pattern: str, matched: list[str], taken: Mapping[str, int], counts: Mapping[str, int]
) -> str:
    if matched:
        rows = ", ".join(str(index) for index in sorted({taken[path] for path in matched}))
        return f"only what earlier rows took (row {rows}): the first that matches decides"
    starts = {
        "/".join(parts[:end])
        for parts in (path.split("/") for path in counts)
        for end in range(1, len(parts) + 1)
    }
    hint = nearest(pattern.strip("^$/"), starts)
    return f"no parameter{hint or f' (paths are like {next(iter(counts))!r})'}"


def _say(rule: Rule) -> str:
    if rule.frozen:
        return "frozen"
    words = [f"learning rate x{rule.learning_rate:.3g}", f"decay x{rule.weight_decay:.3g}"]
    return ", ".join([*words, *([f"from step {rule.from_step:,}"] if rule.from_step else [])])


def _describe_depths(config: OptimConfig, depths: Mapping[str, int]) -> list[str]:
    lines, deepest = [], max(depths.values(), default=0)
    if config.layer_decay != 1:
        lowest = config.layer_decay**deepest
        lines.append(
            f"layer_decay={config.layer_decay}: learning rate x1 above the layers, "
            f"x{config.layer_decay:.3g} in the last, x{lowest:.3g} below the first"
        )
    if config.unfreeze_every_steps:
        first, last = config.unfreeze_every_steps, deepest * config.unfreeze_every_steps
        lines.append(
            f"unfreeze_every_steps={first}: what is above the layers from step 0, the last layer "
            f"from step {first:,}, everything from step {last:,}"
        )
    return lines


def _hold(
    names: Mapping[str, tuple[str, ...]], leaves: Mapping[str, Any], final: Mapping[str, Rule]
) -> Groups:
    """From canonical paths to those of the tree as it is held."""
    frozen: set[str] = set()
    rates: dict[str, Any] = {}
    decays: dict[str, float] = {}
    steps: dict[str, int] = {}
    for held, layers in names.items():
        rules = [final[path] for path in layers]
        for name in ("frozen", "from_step", "weight_decay"):
            if rules[0].frozen and name != "frozen":
                break
            if len({getattr(rule, name) for rule in rules}) > 1:
                raise UserError(
                    f"optim: {held} is one array of {len(layers)} layers, which differ in {name}: "
                    "set model.scan_layers=False"
                )
        if rules[0].frozen:
            frozen.add(held)
            continue
        by = [rule.learning_rate for rule in rules]
        if any(x != 1 for x in by):
            shape = (len(by), *(1,) * (len(leaves[held].shape) - 1))
            rates[held] = by[0] if len(set(by)) == 1 else np.array(by, np.float32).reshape(shape)
        decays |= {held: rules[0].weight_decay} if rules[0].weight_decay != 1 else {}
        steps |= {held: rules[0].from_step} if rules[0].from_step else {}
    return Groups(frozenset(frozen), rates, decays, steps)


class Waiting(NamedTuple):
    """State of what begins later."""

    count: Any
    inner: Any


def hold_back(groups: Groups) -> optax.GradientTransformation:
    """`Groups.hold_back` as a link of the chain, which counts its steps."""

    def update(gradients: Any, count: Any, params: Any = None) -> tuple[Any, Any]:
        return groups.hold_back(gradients, count), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def begin_at(optimizer: optax.GradientTransformation, step: int) -> optax.GradientTransformation:
    """Nothing moves before `step`, where the optimizer begins with a fresh state of its own."""
    if not step:
        return optimizer

    def init(params: Any) -> Waiting:
        return Waiting(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(gradients: Any, state: Waiting, params: Any = None) -> tuple[Any, Waiting]:
        updates, inner = optimizer.update(gradients, state.inner, params)
        has_begun = state.count >= step
        updates = jax.tree.map(lambda u: jnp.where(has_begun, u, 0), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(has_begun, new, old), inner, state.inner)
        return updates, Waiting(state.count + 1, inner)

    return optax.GradientTransformation(init, update)
