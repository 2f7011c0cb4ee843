"""Inputs through a model, a fixed number at a time: one compiled program a shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

BATCH_SIZE = 32


@dataclass(frozen=True)
class Item:
    """One input: its name (a file, a file's line, 'input 3') and what it holds, or why nothing. Of
    a `file` that is broken a line is told; a wrong object that a program gave is an error. `takes`
    says which of two towers it is for."""

    name: str
    content: Any = None
    problem: str | None = None
    file: bool = False
    takes: str = ""

    @property
    def shown(self) -> str:
        """The name, of a text by itself no more than its beginning."""
        return shorten(self.name)


def shorten(name: str, most: int = 60) -> str:
    """A line of at most so many characters."""
    line = " ".join(name.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


@dataclass(frozen=True)
class Portion:
    """Arrays `[batch, ...]` whose first rows are of the inputs with these numbers."""

    rows: Sequence[int]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """Some inputs as the model takes them; of an input by its number, why it cannot be taken, and
    what was done to it that a person should know."""

    portions: Sequence[Portion]
    problems: Mapping[int, str] = field(default_factory=dict)
    notes: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """An input and the model's outputs for it, a tree of arrays without the batch axis; None where
    there is a problem."""

    item: Item
    output: Any
    problem: str | None
    note: str | None


def run_items(
    items: Sequence[Item],
    prepare: Callable[[Sequence[Item]], Prepared],
    compute: Callable[[Mapping[str, np.ndarray]], Any],
    window: int,
) -> Iterator[Done]:
    """Every item in order. `prepare` gets `window` of them at a time; while the device works on one
    window the next is read."""
    waiting: tuple[Any, ...] | None = None
    for start in range(0, len(items), window):
        some = items[start : start + window]
        sound = [i for i, item in enumerate(some) if item.problem is None]
        made = prepare([some[i] for i in sound]) if sound else Prepared(())
        begun = some, sound, made, [compute(portion.arrays) for portion in made.portions]
        if waiting is not None:
            yield from _collect(*waiting)
        waiting = begun
    if waiting is not None:
        yield from _collect(*waiting)


def _collect(
    items: Sequence[Item], sound: Sequence[int], made: Prepared, outputs: Sequence[Any]
) -> Iterator[Done]:
    """The rows of some outputs, as soon as they are there, in the order of the items."""
    found: dict[int, Any] = {}
    for portion, output in zip(made.portions, outputs, strict=True):
        leaves, tree = jax.tree.flatten(jax.device_get(output))
        for place, row in enumerate(portion.rows):
            found[sound[row]] = jax.tree.unflatten(tree, [leaf[place] for leaf in leaves])
    problems = {sound[row]: why for row, why in made.problems.items()}
    notes = {sound[row]: note for row, note in made.notes.items()}
    for i, item in enumerate(items):
        yield Done(item, found.get(i), item.problem or problems.get(i), notes.get(i))


def fill_up(arrays: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """`[n, ...]` to `[size, ...]` by the last row again; `mask` `[size]` is 0 there."""
    count = len(next(iter(arrays.values())))
    full = {k: np.concatenate([v, np.repeat(v[-1:], size - count, 0)]) for k, v in arrays.items()}
    return {**full, "mask": (np.arange(size) < count).astype(np.float32)}


def choose_size(count: int, most: int) -> int:
    """Rows of a batch for `count` inputs: `most`, or a smaller power of two that holds all, so that
    one picture does not cost as much as many."""
    return min(most, 1 << max(count - 1, 0).bit_length())


def bind(function: Callable[..., Any], model: Any, params: Any) -> Callable[..., Any]:
    """`batch -> function(model, params, batch)`, compiled once for each shape of a batch, by
    whoever asks for it."""
    try:
        program = _compile(function, model)
    except TypeError:  # a model or a task of the user's own that has no hash
        program = jax.jit(functools.partial(function, model))
    return functools.partial(program, params)


@functools.lru_cache(maxsize=16)
def _compile(function: Callable[..., Any], model: Any) -> Any:
    return jax.jit(functools.partial(function, model))
