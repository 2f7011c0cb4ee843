"""The classes of the data as those of the model: by their names where both have names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config import UserError, nearest

_PLACEHOLDER = re.compile(r"(LABEL_)?\d+")  # what config.json says where nobody named the classes


@dataclass(frozen=True)
class Aligned:
    """`places[i]` is the model's class of the data's class i, -1 where there is none; `names` are
    the model's classes as a person knows them; `notes` say what was done."""

    places: np.ndarray
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def align_classes(
    model: Sequence[str],
    data: Sequence[str],
    counts: np.ndarray,
    source: str,
    name: str,
    named: bool = False,
) -> Aligned:
    """Finds the data's classes among the model's.

    Args:
      model, data: names of the classes; of data without names ''.
      counts: examples of each of the data's classes.
      source, name: of the model and of the data, for a person.
      named: whether somebody gave the model's classes their names, though they look like numbers.

    The same names win, whatever their order or case. Names that are numbers, or a model whose
    classes nobody named, go by number. Raises UserError, with the names and how many rows, on
    classes of the data that the model does not know.
    """
    found = _by_name(model, data)
    if found is None:
        found = _by_number(model, data, source, named)
    if found is None:
        _refuse(model, data, counts, np.full(len(data), -1), source, name)
    assert found is not None
    unknown = (found.places < 0) & (counts > 0)
    if unknown.any():
        _refuse(model, data, counts, found.places, source, name)
    return found


def _by_name(model: Sequence[str], data: Sequence[str]) -> Aligned | None:
    """None where no class of the data has its name among the model's."""
    exact = {name: i for i, name in enumerate(model)}
    places = np.array([exact.get(name, -1) for name in data], int)
    notes: list[str] = []
    if (places < 0).any():
        folded = {name.strip().casefold(): i for i, name in enumerate(model)}
        if len(folded) == len(model):
            again = np.array([folded.get(name.strip().casefold(), -1) for name in data], int)
            if (again >= 0).sum() > (places >= 0).sum():
                places, notes = again, ["classes: matched without regard to case"]
    if not (places >= 0).any():
        return None
    known = places[places >= 0]
    if not np.array_equal(known, np.arange(len(known))) and list(known) != sorted(known):
        notes.append("classes: the data has them in another order, matched by name")
    return Aligned(places, tuple(model), tuple(notes))


def _by_number(
    model: Sequence[str], data: Sequence[str], source: str, named: bool
) -> Aligned | None:
    """Where one side has numbers in the place of names."""
    unnamed_model = not named and all(_PLACEHOLDER.fullmatch(x) for x in model)
    numbers = [int(x) if re.fullmatch(r"\d+", x) else -1 for x in data]
    if all(x == "" for x in data):
        numbers = list(range(len(data)))
    if min(numbers, default=-1) >= 0:
        places = np.array([x if x < len(model) else -1 for x in numbers], int)
        shown = ", ".join(f"{i} is {x}" for i, x in enumerate(model[:4]))
        more = ", ..." if len(model) > 4 else ""
        told = () if unnamed_model else (f"classes: the data has numbers, {shown}{more}",)
        return Aligned(places, tuple(model), told)
    if unnamed_model and len(data) == len(model):
        pairs = ", ".join(f"{a} is {b}" for a, b in zip(model[:4], data[:4], strict=True))
        more = ", ..." if len(model) > 4 else ""
        return Aligned(
            np.arange(len(data)),
            tuple(data),
            (f"classes: {source} does not name them, taken in the data's order: {pairs}{more}",),
        )
    return None


def _refuse(
    model: Sequence[str],
    data: Sequence[str],
    counts: np.ndarray,
    places: np.ndarray,
    source: str,
    name: str,
) -> None:
    """Raises UserError on the classes without a place."""
    missing = [i for i in range(len(data)) if places[i] < 0 and counts[i]]
    rows, whole = int(counts[missing].sum()), int(counts.sum())
    shown = ", ".join(repr(data[i] or str(i)) for i in missing[:4])
    shown += f", ... ({len(missing)})" if len(missing) > 4 else ""
    several = len(missing) > 1
    told = (
        f"{name} has {len(data)} classes, the head of {source} {len(model)}"
        if len(data) > len(model)
        else f"{name} and {source} do not speak of the same classes"
    )
    raise UserError(
        f"{told}: {'classes' if several else 'class'} {shown} of {rows:,} of the {whole:,} rows "
        f"{'are' if several else 'is'} unknown to it{nearest(data[missing[0]] or '?', model)}"
    )


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Examples of each class `[c]`; labels below 0 do not count."""
    flat = np.asarray(labels).reshape(-1)
    flat = flat[flat >= 0]
    size = max(num_classes, int(flat.max(initial=-1)) + 1)
    return np.bincount(flat.astype(int), minlength=size)


def tell_absent(counts: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """A line for classes of the model of which there is no example."""
    absent = [x for x, n in zip(names, counts, strict=False) if not n]
    if not absent:
        return ()
    shown = ", ".join(absent[:6]) + (f", ... ({len(absent)})" if len(absent) > 6 else "")
    return (f"no example of {shown} here: averages over classes are over the others",)
