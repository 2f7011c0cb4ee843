"""Parameters made to fit a model with some fields changed: classes, image size, text, vocabulary.

A leaf goes through the rules of `RULES` in order; the first that knows it says what becomes of it.
A leaf that no rule knows is an error.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from zoo.config import UserError
from zoo.models import init_params
from zoo.pretrained.bridge import our_leaves
from zoo.tree import STACK, named_leaves, unstack_layers

HEADS = ("head", "head_dist", "classifier", "pooler", "pre_logits")
# Fields that change what equal shapes mean (an equal shape is no proof that a leaf fits), and the
# part of the paths of leaves that they act on.
FIXED = {"patch_size": "embed", "num_heads": STACK, "text_num_heads": STACK}
POSSIBLE = (
    "possible are another image_size of whole patches (learned positions are resized), num_classes "
    "(the head begins anew), num_positions and vocab_size (what is there is kept)"
)

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A parameter and its shapes in the two models; None where a model has no such parameter."""

    path: str
    old: Shape | None
    new: Shape | None
    before: nn.Module
    after: nn.Module
    shared: frozenset[str]  # first parts of paths that both models have

    def changed_axis(self) -> int | None:
        """The axis that alone differs, if there is one."""
        if self.old is None or self.new is None or len(self.old) != len(self.new):
            return None
        axes = [i for i, (a, b) in enumerate(zip(self.old, self.new, strict=True)) if a != b]
        return axes[0] if len(axes) == 1 else None

    def axis_of(self, field: str) -> int | None:
        """The axis that alone differs, if it follows this field of the models."""
        axis = self.changed_axis()
        if axis is None or self.old is None or self.new is None:
            return None
        sizes = (getattr(self.before, field, None), getattr(self.after, field, None))
        return axis if (self.old[axis], self.new[axis]) == sizes else None


class _Change(NamedTuple):
    """What becomes of a leaf: a line of the report, and `make(old, fresh, key)`; None drops it."""

    line: str
    make: Callable[[Any, Any, Any], Any] | None
    fresh: bool = False  # does `make` need the leaf as `after` initialises it?


def _begin(old: Any, fresh: Any, key: Any) -> Any:
    return fresh


KEEP = _Change("", lambda old, fresh, key: old)
LEAVE = _Change("", _begin, fresh=True)  # a leaf that was not to be taken


@dataclasses.dataclass(frozen=True)
class Plan:
    """How parameters of `before` become those of `after`; known without reading one of them."""

    before: nn.Module
    after: nn.Module
    old: Mapping[str, Shape]  # of `before`, those that are taken
    changes: Mapping[str, _Change]  # of every path of `after`, and of `old`

    @property
    def kept(self) -> frozenset[str]:
        """Paths of leaves that stay as they are."""
        return frozenset(path for path, change in self.changes.items() if change is KEEP)

    @property
    def fresh(self) -> frozenset[str]:
        """Paths of leaves of `after` that begin anew, whole."""
        return frozenset(path for path, change in self.changes.items() if change.make is _begin)

    @property
    def resized(self) -> frozenset[str]:
        """Paths of leaves of which a part is kept, or that are made of the old ones."""
        made = {path for path, change in self.changes.items() if change.make is not None}
        return frozenset(made - self.kept - self.fresh)

    @property
    def report(self) -> list[str]:
        """A line a change; kernel and bias of a head say the same: once is enough."""
        return list(dict.fromkeys(c.line for c in self.changes.values() if c.line))

    def make_leaves(self, read: Callable[[str], Any], seed: int) -> Iterator[tuple[str, Any]]:
        """(path, leaf) of each leaf of `after`; `read(path)` gives one of `before`, and is asked
        for them one at a time."""
        fresh = _init_leaves(self.after, seed, [p for p, c in self.changes.items() if c.fresh])
        key = jax.random.key(seed)
        for path, change in self.changes.items():
            if change is KEEP:
                yield path, read(path)
            elif change.make is not None:
                leaf = np.asarray(read(path)) if path in self.old else None
                dtype = np.dtype(np.float32) if leaf is None else leaf.dtype
                begun = np.asarray(fresh[path]).astype(dtype) if change.fresh else None
                here = jax.random.fold_in(key, zlib.crc32(path.encode()))
                yield path, change.make(leaf, begun, here)


def adapt_params(
    params: Mapping[str, Any], before: nn.Module, after: nn.Module, seed: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """Makes parameters of `before` fit `after`, a model of the same class with some fields changed.

    `params` is the canonical unstacked tree, of jax or numpy arrays; so is the result, whatever
    `scan_layers` is. Returns it with a report, one line a change. A leaf that fits is the same
    array as before; a changed one is a numpy array of the old leaf's dtype, a new one is float32.

    - A head of another number of classes, or a new head, begins anew as `init_params(after, seed)`;
      a head that `after` lacks is dropped.
    - Positions of a ViT: class token and registers are kept, the grid is resized (`resize_grid`).
    - Positions of a text model: the first ones are kept, new ones begin as in `after`.
    - Vocabulary, in every leaf outside the blocks that has it as an axis: the first entries are
      kept. New biases begin as in `after`. New rows are drawn from a normal with the mean and the
      deviation of the old rows, feature by feature: a row far shorter or longer than its fellows
      would distort the softmax of a tied output, rows of the model's own scale start as plausible
      tokens (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models", with
      the full covariance where this takes its diagonal).

    Raises UserError when the classes differ, when `params` are not of `before`, and on any other
    difference, with all leaves that do not fit.
    """
    plan = plan_change(before, after)
    given = named_leaves(params)
    _check_params(given, plan.old)
    result = dict(plan.make_leaves(given.__getitem__, seed))
    return unflatten_dict(result, sep="/"), plan.report


def plan_change(
    before: nn.Module, after: nn.Module, take: Callable[[str], bool] = lambda path: True
) -> Plan:
    """What becomes of each parameter of `before`, as `adapt_params` says; where `take(path)` is
    false a leaf of `before` is passed over and one of `after` begins anew.

    Raises UserError when the classes differ, and with all that does not fit.
    """
    if type(before) is not type(after):
        raise UserError(
            f"parameters of a {type(before).__name__} cannot be made to fit a "
            f"{type(after).__name__}: only fields may change, not the class"
        )
    old = {path: shape for path, shape in _shapes(before).items() if take(path)}
    return Plan(before, after, old, _plan(old, _shapes(after), before, after, take))


def resize_grid(grid: Any, rows: int, columns: int) -> np.ndarray:
    """Resizes an image `[rows, columns, width]` of position embeddings, in float32.

    Bicubic with Keys' kernel (a = -0.5), half-pixel centres; antialiased, which widens the kernel
    along an axis that shrinks and leaves an axis that grows alone. This equals torch's
    `interpolate(mode="bicubic", antialias=True)`, so timm's `resample_abs_pos_embed`. torch without
    antialias takes another kernel (a = -0.75); big_vision and the paper's code resize linearly,
    corner on corner (`scipy.ndimage.zoom(order=1)`).
    """
    image = np.asarray(grid).astype(np.float32)
    shape = (rows, columns, image.shape[-1])
    return np.asarray(jax.image.resize(image, shape, method="cubic", antialias=True))


def _shapes(model: nn.Module) -> dict[str, Shape]:
    """Path -> shape of the model's canonical parameters, without memory or arithmetic."""
    return {path: tuple(leaf.shape) for path, leaf in our_leaves(model).items()}


def _check_params(given: Mapping[str, Any], old: Mapping[str, Shape]) -> None:
    shapes = {path: tuple(leaf.shape) for path, leaf in given.items()}
    wrong = [
        f"{path}: {_show(shapes.get(path))}, the model has {_show(old.get(path))}"
        for path in {**old, **shapes}
        if shapes.get(path) != old.get(path)
    ]
    if wrong:
        raise UserError(f"the parameters are not of the model they come with: {'; '.join(wrong)}")


def _plan(
    old: Mapping[str, Shape],
    new: Mapping[str, Shape],
    before: nn.Module,
    after: nn.Module,
    take: Callable[[str], bool],
) -> dict[str, _Change]:
    """Path -> change. Raises UserError with all that does not fit."""
    shared = frozenset(_first(path) for path in old) & {_first(path) for path in new}
    misfits = [
        f"{field}: {getattr(before, field)} -> {getattr(after, field)}, must stay"
        for field, part in FIXED.items()
        if any(part in path for path in old)
        # A patch may be 4 or (4, 4).
        and np.any(np.asarray(getattr(before, field, 0)) != np.asarray(getattr(after, field, 0)))
    ]
    changes = {}
    for path in {**old, **new}:
        if not take(path):
            changes[path] = LEAVE
            continue
        leaf = _Leaf(path, old.get(path), new.get(path), before, after, shared)
        change = next((c for c in (rule(leaf) for rule in RULES) if c is not None), None)
        if change is None:
            misfits.append(f"{path}: {_show(leaf.old)} -> {_show(leaf.new)}")
        else:
            changes[path] = change
    if misfits:
        raise UserError(
            "the parameters cannot be made to fit the new model: "
            f"{'; '.join([*fold_layers(misfits), POSSIBLE])}"
        )
    return changes


def fold_layers(lines: Sequence[str]) -> list[str]:
    """Lines that differ in the number of a block alone as one, with a star in its place."""
    layer = re.compile(rf"(?<={STACK}/)\d+")
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(layer.sub("*", line), []).append(line)
    return [
        same[0] if len(same) == 1 else f"{folded} ({len(same)} layers)"
        for folded, same in groups.items()
    ]


def _init_leaves(model: nn.Module, seed: int, paths: list[str]) -> dict[str, Any]:
    """Some leaves as the model initialises them; under jit the others cost nothing."""

    def init() -> dict[str, Any]:
        leaves = named_leaves(unstack_layers(init_params(model, seed)))
        return {path: leaves[path] for path in paths}

    return jax.jit(init)() if paths else {}


def _fit_grid(leaf: _Leaf) -> _Change | None:
    """Positions of a ViT, by their grids: 4x6 and 6x4 have one shape and differ."""
    if not _is_grid(leaf) or leaf.old is None or leaf.new is None or leaf.old[1:] != leaf.new[1:]:
        return None
    (rows, columns), (new_rows, new_columns) = leaf.before.grid(), leaf.after.grid()  # type: ignore[attr-defined]
    prefix = leaf.old[0] - rows * columns
    if prefix != leaf.new[0] - new_rows * new_columns:
        return None
    if (rows, columns) == (new_rows, new_columns):
        return KEEP

    def make(old: Any, fresh: Any, key: Any) -> Any:
        grid = resize_grid(old[prefix:].reshape(rows, columns, -1), new_rows, new_columns)
        flat = grid.reshape(new_rows * new_columns, -1)
        return np.concatenate([old[:prefix], flat.astype(old.dtype)])

    line = f"{leaf.path}: {rows}x{columns} -> {new_rows}x{new_columns} grid, bicubic"
    if prefix:
        line += f"; {_count(prefix, 'prefix token')} kept"
    return _Change(line, make)


def _keep(leaf: _Leaf) -> _Change | None:
    return KEEP if leaf.old == leaf.new and not _is_grid(leaf) else None


def _fit_positions(leaf: _Leaf) -> _Change | None:
    """Positions of a text model."""
    if leaf.path not in ("pos", "text/pos") and not leaf.path.endswith("/pos/embedding"):
        return None
    if leaf.changed_axis() != 0 or not leaf.old or not leaf.new:
        return None
    # BART's table has rows ahead of the positions: the difference is what follows the field.
    counts = [getattr(model, "num_positions", 0) for model in (leaf.before, leaf.after)]
    if leaf.new[0] - leaf.old[0] != counts[1] - counts[0]:
        return None
    old, new = leaf.old[0], leaf.new[0]
    line = f"{leaf.path}: {old} -> {new} positions, "
    if new < old:
        return _Change(f"{line}the first {new} kept", _take_first(new, 0))
    return _Change(f"{line}{old} kept, {new - old} initialised anew", _append_fresh, fresh=True)


def _fit_vocabulary(leaf: _Leaf) -> _Change | None:
    """Embedding, output matrix and output bias; no leaf of a block has the vocabulary."""
    axis = leaf.axis_of("vocab_size")
    if axis is None or not leaf.old or not leaf.new or STACK in leaf.path.split("/"):
        return None
    old, new, bias = leaf.old[axis], leaf.new[axis], len(leaf.old) == 1
    unit = "value" if bias else ("row", "column")[axis]
    line = f"{leaf.path}: vocabulary {old} -> {new}, "
    if new < old:
        return _Change(f"{line}the first {_count(new, unit)} kept", _take_first(new, axis))
    make = _append_fresh if bias else _append_alike(new - old, axis)
    return _Change(f"{line}{_count(new - old, unit)} added", make, fresh=bias)


def _renew_head(leaf: _Leaf) -> _Change | None:
    """A head of other outputs, or one that only one of the models has."""
    head = _first(leaf.path)
    if head not in HEADS:
        return None
    name = leaf.path if head in leaf.shared else head
    if leaf.new is None:
        return _Change(f"{name}: not in the new model, dropped", None)
    if leaf.old is None:
        line = f"{name}: not in the old model, initialised anew"
    elif leaf.changed_axis() == len(leaf.old) - 1:
        line = f"{head}: {leaf.old[-1]} -> {leaf.new[-1]} classes, initialised anew"
    else:
        return None
    return _Change(line, _begin, fresh=True)


# The grid before equal shapes, the vocabulary before the head: a text head may be both.
RULES = (_fit_grid, _keep, _fit_positions, _fit_vocabulary, _renew_head)


def _append_fresh(old: Any, fresh: Any, key: Any) -> Any:
    return np.concatenate([old, fresh[len(old) :]])


def _append_alike(count: int, axis: int) -> Callable[[Any, Any, Any], Any]:
    """Appends entries drawn from a normal with the mean and deviation of those along `axis`."""

    def make(old: Any, fresh: Any, key: Any) -> Any:
        rows = np.moveaxis(old, axis, 0)
        noise = np.asarray(jax.random.normal(key, (count, *rows.shape[1:])))
        known = rows.astype(np.float32)
        drawn = known.mean(axis=0) + known.std(axis=0) * noise
        return np.moveaxis(np.concatenate([rows, drawn.astype(old.dtype)]), 0, axis)

    return make


def _take_first(count: int, axis: int) -> Callable[[Any, Any, Any], Any]:
    # A copy: a view would keep the whole old leaf in memory.
    return lambda old, fresh, key: np.take(old, np.arange(count), axis=axis)


def _is_grid(leaf: _Leaf) -> bool:
    of_images = leaf.path in ("pos", "image/pos", "encoder/pos", "decoder/pos")
    return of_images and hasattr(leaf.before, "grid")


def _first(path: str) -> str:
    return path.split("/")[0]


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"


def _show(shape: Shape | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "-"
