"""The one bridge between published weights and ours: a table of rows, strict both ways.

A row says which key of theirs holds which leaves of ours and how it is turned. `{i}` in a pattern
stands for a number, the same in key and path; one that only the key has counts along the first axis
of ours (experts). A table is written after the keys of the *file*. What
the bridge gives is a view (`AsOurs`, `AsTheirs`): nothing is read until a tensor is asked for, and
then that one alone, so that a conversion needs the memory of one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from zoo.config import UserError
from zoo.models import param_shapes
from zoo.pretrained.safetensors_file import Entry, Tensors
from zoo.tree import named_leaves, unstack_layers


class Turn(NamedTuple):
    """How a tensor of theirs becomes ours and back: reshapes and transpositions of an array `x`.

    The second argument is the model, for its number of heads, say.
    """

    to_ours: Callable[[Any, Any], Any]
    to_theirs: Callable[[Any, Any], Any]


SAME = Turn(lambda x, model: x, lambda x, model: x)
LINEAR = Turn(lambda x, model: x.T, lambda x, model: x.T)  # torch: [out, in]; ours: [in, out]


@dataclass(frozen=True)
class Row:
    """Their key, our path (several: side by side along `axis` of theirs), and the turn between."""

    theirs: str
    ours: str | tuple[str, ...]
    turn: Turn = SAME
    axis: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours


def linear_rows(theirs: str, ours: str) -> list[Row]:
    """Kernel and bias, where the model has one, of a dense layer that torch stores [out, in]."""
    return [
        Row(f"{theirs}.weight", f"{ours}/kernel", LINEAR),
        Row(f"{theirs}.bias", f"{ours}/bias"),
    ]


def norm_rows(theirs: str, ours: str, scale: str = "weight", bias: str = "bias") -> list[Row]:
    """Scale and bias of a LayerNorm."""
    return [Row(f"{theirs}.{scale}", f"{ours}/scale"), Row(f"{theirs}.{bias}", f"{ours}/bias")]


@dataclass(frozen=True)
class Table:
    """All that may be in a file of a family."""

    rows: tuple[Row, ...]
    # A second name of a tensor, where one program writes it and another does not: it must be equal.
    copies: Mapping[str, str] = field(default_factory=dict)
    # A second name that is written as well, but has no effect where it is read.
    doubles: Mapping[str, str] = field(default_factory=dict)
    # Regex of a whole key -> why the model has no place for it; told in the report.
    ignored: Mapping[str, str] = field(default_factory=dict)


class Piece(NamedTuple):
    """A row with its numbers filled in."""

    theirs: str
    ours: tuple[str, ...]
    row: Row
    shape: tuple[int, ...]  # of theirs
    number: int | None = None  # where this lies along the first axis of ours, of several that do


def plan(table: Table, model: nn.Module) -> list[Piece]:
    """Every key of theirs that holds the model. Raises UserError with our leaves no row covers."""
    shapes = {path: leaf.shape for path, leaf in our_leaves(model).items()}
    found: dict[str, Piece] = {}
    covered: set[str] = set()
    for row in table.rows:
        patterns = [compile_pattern(path) for path in row.paths]
        for path in shapes:
            match = patterns[0].fullmatch(path)
            if not match:
                continue
            numbers = {name: int(value) for name, value in match.groupdict().items()}
            paths = tuple(fill_path(p, numbers) for p in row.paths)
            if all(p in shapes for p in paths):
                pieces = _fill_row(row, numbers, paths, [shapes[p] for p in paths], model)
                found |= {piece.theirs: piece for piece in pieces}
                covered |= set(paths)
    uncovered = [path for path in shapes if path not in covered]
    if uncovered:
        raise UserError(
            f"this layout has no place for {_list(uncovered)} of the {type(model).__name__}"
        )
    return list(found.values())


def _fill_row(
    row: Row, numbers: dict[str, int], paths: tuple[str, ...], shapes: list[Any], model: nn.Module
) -> list[Piece]:
    """One piece, or where their key has a number more, one for each row of our leaf."""
    own = set(re.findall(r"\{(\w+)\}", row.theirs)) - set(numbers)
    if not own:
        shape = _their_shape(row, shapes, model)
        return [Piece(row.theirs.format(**numbers), paths, row, shape)]
    (name,), (whole,) = own, shapes
    shape = _their_shape(row, [whole[1:]], model)
    keys = (row.theirs.format(**numbers, **{name: index}) for index in range(whole[0]))
    return [Piece(key, paths, row, shape, number) for number, key in enumerate(keys)]


def our_leaves(model: nn.Module) -> dict[str, Any]:
    """Canonical path -> shape and dtype of a model's parameters."""
    return named_leaves(jax.eval_shape(unstack_layers, param_shapes(model)))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """'blocks/{i}/norm' as a regex whose group i is a number."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(pattern)))


def fill_path(pattern: str, numbers: Mapping[str, int]) -> str:
    """Our path with its numbers, two digits or more."""
    return pattern.format(**{name: f"{number:02d}" for name, number in numbers.items()})


def _their_shape(row: Row, shapes: list[Any], model: nn.Module) -> tuple[int, ...]:
    # One zero seen from everywhere: it has every shape and takes no memory.
    zeros = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    turned = [row.turn.to_theirs(zero, model).shape for zero in zeros]
    if len(turned) == 1:
        return turned[0]
    joined = list(turned[0])
    joined[row.axis] = sum(shape[row.axis] for shape in turned)
    return tuple(joined)


class AsOurs(Tensors):
    """A file of theirs seen by our paths. Every key and every leaf is accounted for."""

    def __init__(self, theirs: Tensors, table: Table, model: nn.Module):
        """Raises UserError that lists all keys missing, left over and misshapen at once."""
        self._theirs, self._model = theirs, model
        pieces = plan(table, model)
        self.report = _check(theirs, table, pieces)
        self._parts: dict[str, tuple[Piece, int]] = {}
        self._stacks: dict[str, list[Piece]] = {}
        shapes = {path: leaf.shape for path, leaf in our_leaves(model).items()}
        for piece in pieces:
            for index, path in enumerate(piece.ours):
                self._parts[path] = (piece, index)
                if piece.number is not None:
                    self._stacks.setdefault(path, []).append(piece)
        entries = [
            Entry(path, shapes[path], theirs.dtype(self._parts[path][0].theirs)) for path in shapes
        ]
        super().__init__(theirs.place, entries)

    def read(self, name: str) -> np.ndarray:
        """One leaf of ours; a safetensors file's matrices are turned strip by strip."""
        self.entry(name)
        if name in self._stacks:
            return self._read_stack(name)
        piece, index = self._parts[name]
        turn = piece.row.turn
        if turn not in (SAME, LINEAR) or (turn is SAME and len(piece.ours) == 1):
            array = self._theirs.read(piece.theirs)
            if len(piece.ours) > 1:
                array = array[self._places(piece)[index]]
            return turn.to_ours(array, self._model)
        rows, *columns = self._places(piece)[index]
        read_rows = self._theirs.open_rows(piece.theirs)
        ours = np.empty(self.shape(name), self.dtype(name))
        fill(
            ours.T if turn is LINEAR else ours,
            lambda start, stop: read_rows(rows.start + start, rows.start + stop)[:, *columns],
        )
        return ours

    def origins(self, name: str) -> tuple[str, ...]:
        """Their keys that hold a leaf of ours."""
        self.entry(name)
        pieces = self._stacks.get(name, [self._parts[name][0]])
        return tuple(piece.theirs for piece in pieces)

    def _read_stack(self, name: str) -> np.ndarray:
        """Ours whole, and one of theirs at a time."""
        ours = np.empty(self.shape(name), self.dtype(name))
        for piece in self._stacks[name]:
            if piece.row.turn is LINEAR:
                fill(ours[piece.number].T, self._theirs.open_rows(piece.theirs))
            else:
                theirs = self._theirs.read(piece.theirs)
                ours[piece.number] = piece.row.turn.to_ours(theirs, self._model)
        return ours

    def _places(self, piece: Piece) -> list[tuple[slice, ...]]:
        return places(piece, [self.shape(path) for path in piece.ours], self._model)


class AsTheirs(Tensors):
    """Tensors of ours seen by their keys."""

    def __init__(self, ours: Tensors, table: Table, model: nn.Module):
        """Raises UserError with leaves that the table has no row for."""
        self._ours, self._model = ours, model
        self._pieces = {piece.theirs: piece for piece in plan(table, model)}
        doubles = table.doubles.items()
        self._pieces |= {d: self._pieces[o]._replace(theirs=d) for d, o in doubles}
        entries = [Entry(p.theirs, p.shape, ours.dtype(p.ours[0])) for p in self._pieces.values()]
        super().__init__(ours.place, entries)

    def read(self, name: str) -> np.ndarray:
        """One tensor of theirs, from one leaf of ours or several side by side."""
        self.entry(name)
        piece = self._pieces[name]
        turn = piece.row.turn
        if piece.number is not None:
            ours = self._ours.open_rows(piece.ours[0])(piece.number, piece.number + 1)[0]
            if turn is not LINEAR:
                return turn.to_theirs(ours, self._model)
            theirs = np.empty(piece.shape, self.dtype(name))
            fill(theirs.T, lambda start, stop: ours[start:stop])
            return theirs
        if turn is SAME and len(piece.ours) == 1:
            return self._ours.read(piece.ours[0])
        theirs = np.empty(piece.shape, self.dtype(name))
        shapes = [self._ours.shape(path) for path in piece.ours]
        for path, place in zip(piece.ours, places(piece, shapes, self._model), strict=True):
            if turn in (SAME, LINEAR):
                fill(
                    theirs[place].T if turn is LINEAR else theirs[place], self._ours.open_rows(path)
                )
            else:
                theirs[place] = turn.to_theirs(self._ours.read(path), self._model)
        return theirs


def places(
    piece: Piece, shapes: list[tuple[int, ...]], model: nn.Module
) -> list[tuple[slice, ...]]:
    """Where each leaf of ours, of these shapes, lies in theirs."""
    if len(shapes) == 1:
        return [tuple(slice(0, size) for size in piece.shape)]
    axis, found, end = piece.row.axis, [], 0
    for shape in shapes:
        start, end = end, end + _their_shape(piece.row, [shape], model)[axis]
        place = [slice(0, size) for size in piece.shape]
        place[axis] = slice(start, end)
        found.append(tuple(place))
    return found


STRIP_BYTES = 2**20


def fill(target: np.ndarray, read_rows: Callable[[int, int], np.ndarray]) -> None:
    """Copies rows into an array, or a view of one, in strips: a transposed copy is several times
    as fast as NumPy's own, and what is copied need not be in memory whole."""
    row = max(target[:1].nbytes, 1)
    step = max(STRIP_BYTES // row, 64)  # at least a few cache lines of a transposed target
    for start in range(0, len(target), step):
        stop = min(start + step, len(target))
        target[start:stop] = read_rows(start, stop)


def _check(theirs: Tensors, table: Table, pieces: list[Piece]) -> tuple[str, ...]:
    """What was left aside, and why; or everything that is wrong in one error."""
    wanted = {piece.theirs: piece for piece in pieces}
    names = set(theirs.names())
    missing = [f"{p.theirs} ({', '.join(p.ours)})" for p in pieces if p.theirs not in names]
    misshapen = [
        f"{p.theirs} is {_shape(theirs.shape(p.theirs))} in the file, "
        f"{_shape(p.shape)} in the model"
        for p in pieces
        if p.theirs in names and theirs.shape(p.theirs) != p.shape
    ]
    left, report = [], []
    for name in theirs.names():
        if name in wanted:
            continue
        why = next((w for key, w in table.ignored.items() if re.fullmatch(key, name)), None)
        if name in table.doubles:
            report.append(f"{name}: left aside, {table.doubles[name]} is what counts")
        elif name in table.copies and table.copies[name] in names:
            _compare_copy(theirs, name, table.copies[name])
        elif why is not None:
            report.append(f"{name}: left aside, {why}")
        else:
            left.append(name)
    wrong = [("missing", missing), ("left over", left), ("misshapen", misshapen)]
    if any(found for _, found in wrong):
        told = "; ".join(f"{len(found)} {what}: {_list(found)}" for what, found in wrong if found)
        raise UserError(f"{theirs.place} does not fit the model of its config: {told}")
    return tuple(report)


def _compare_copy(theirs: Tensors, name: str, original: str) -> None:
    one, other = theirs.read(name), theirs.read(original)
    if one.shape != other.shape or not np.array_equal(one, other):
        raise UserError(
            f"{theirs.place}: {name} should be a copy of {original} (the config ties them) and "
            "differs: set tie_word_embeddings to false in config.json to keep both"
        )


def read_tree(tensors: Tensors, convert: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """All tensors as a nested dict, each checked for NaN and infinity and then converted.

    Raises UserError that lists the tensors that hold such a number.
    """
    tree: dict[str, Any] = {}
    bad = []
    for name in tensors.names():
        array = tensors.read(name)
        if not all_finite(array):
            bad.append(name)
            continue
        *folders, leaf = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = convert(array)
    if bad:
        raise UserError(f"{tensors.place}: NaN or infinity in {_list(bad)}")
    return tree


def all_finite(array: np.ndarray) -> bool:
    """Is every number finite? A sum is looked at first: it is quick and mostly enough."""
    if array.dtype.kind not in "fV" and "float" not in array.dtype.name:
        return True
    with np.errstate(all="ignore"):
        wide = np.float32 if array.dtype.itemsize < 4 else array.dtype
        if np.isfinite(array.sum(dtype=wide)):
            return True
        return bool(np.isfinite(array.astype(wide, copy=False)).all())


def _list(names: Iterable[str]) -> str:
    """A damaged header may hold any sign; an error is one line."""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
