"""Examples with the same input, found by a hash of their content: 24 bytes an example are held."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo.data import Dataset
from zoo.look.findings import Case, Finding, Place
from zoo.look.read import Block, is_text

# What an example is told by is the rest: these are what is to be learned.
ANSWERS = ("label", "target", "completion", "tags", "answers")


class Duplicates:
    """Same pixels, same text but for case, blanks and Unicode form, or same numbers: inside a
    split, between splits, and with another label."""

    def __init__(self, dataset: Dataset):
        self._sizes = {split: len(source) for split, source in dataset.splits.items()}
        self._blocks: list[tuple[str, np.ndarray, np.ndarray]] = []

    def see(self, block: Block) -> None:
        if not len(block):
            return
        kept = ~are_empty(block.fields)
        hashes = np.stack([hash_inputs(block.fields), hash_labels(block.fields)], axis=1)
        self._blocks.append((block.split, block.indices[kept], hashes[kept]))

    @property
    def inputs(self) -> np.ndarray:
        """The hash of each example's input, sorted, each once."""
        parts = [hashes[:, 0] for _, _, hashes in self._blocks]
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, HASH)

    def groups(self) -> Iterator[tuple[list[Place], bool]]:
        """Examples with one input, in the order of the splits, and whether their labels differ."""
        if not self._blocks:
            return
        names = list(self._sizes)
        splits = np.concatenate(
            [np.full(len(indices), names.index(s)) for s, indices, _ in self._blocks]
        )
        indices = np.concatenate([indices for _, indices, _ in self._blocks])
        hashes = np.concatenate([hashes for _, _, hashes in self._blocks])
        order = np.argsort(hashes[:, 0], kind="stable")
        ordered = hashes[order]
        borders = np.flatnonzero(ordered[1:, 0] != ordered[:-1, 0]) + 1
        edges = np.concatenate([[0], borders, [len(order)]])
        many = np.flatnonzero(np.diff(edges) > 1)
        # Groups in the order in which their first example comes.
        for start, stop in sorted(
            ((edges[i], edges[i + 1]) for i in many), key=lambda e: order[e[0]]
        ):
            rows = order[start:stop]
            places = [(names[splits[r]], int(indices[r])) for r in rows]
            yield places, len(np.unique(ordered[start:stop, 1])) > 1

    def findings(self) -> list[Finding]:
        """Duplicates of each split, of each two splits, and conflicts."""
        inside: dict[str, list[Case]] = {}
        between: dict[tuple[str, str], list[Case]] = {}
        conflicts: list[Case] = []
        for places, differ in self.groups():
            by_split = {s: [p for p in places if p[0] == s] for s in self._sizes}
            for split, mine in by_split.items():
                if len(mine) > 1:
                    inside.setdefault(split, []).append(Case(tuple(mine)))
            there = [split for split, mine in by_split.items() if mine]
            for i, first in enumerate(there):
                for other in there[i + 1 :]:
                    both = by_split[first] + by_split[other]
                    between.setdefault((first, other), []).append(Case(tuple(both)))
            if differ:
                conflicts.append(Case(tuple(places)))
        return [
            *(self._inside(split, cases) for split, cases in inside.items()),
            *(self._between(*pair, cases) for pair, cases in between.items()),
            *self._conflicts(conflicts),
        ]

    def _inside(self, split: str, cases: list[Case]) -> Finding:
        count = sum(len(case.places) - 1 for case in cases)
        message = "have the input of an earlier one"
        return Finding("duplicate", split, count, self._sizes[split], message, tuple(cases))

    def _between(self, first: str, other: str, cases: list[Case]) -> Finding:
        count = sum(place[0] == other for case in cases for place in case.places)
        message = f"of {other} have the input of one of {first}"
        both = f"{first}, {other}"
        return Finding("duplicate_between", both, count, self._sizes[other], message, tuple(cases))

    def _conflicts(self, cases: list[Case]) -> list[Finding]:
        if not cases:
            return []
        splits = [s for s in self._sizes if any(p[0] == s for case in cases for p in case.places)]
        count = sum(len(case.places) for case in cases)
        total = sum(self._sizes[split] for split in splits)
        message = "have the input of another one with another label"
        return [Finding("label_conflict", ", ".join(splits), count, total, message, tuple(cases))]


HASH = np.dtype("V12")


def hash_inputs(fields: dict[str, Any]) -> np.ndarray:
    """96 bits of the content of each example but its answer, `[n]`."""
    return _hash({name: fields[name] for name in _inputs(fields)})


def _inputs(fields: dict[str, Any]) -> list[str]:
    return sorted(name for name in fields if name not in ANSWERS) or sorted(fields)


def are_empty(fields: dict[str, Any]) -> np.ndarray:
    """Which examples have nothing but empty texts for their input, `[n]`: they are told as such."""
    empty = np.ones(len(next(iter(fields.values()))), bool)
    for name in _inputs(fields):
        values = fields[name]
        empty &= [not normalise(v or "") for v in values] if is_text(values) else False
    return empty


def hash_labels(fields: dict[str, Any]) -> np.ndarray:
    """The same of `label` alone; equal everywhere where there is none."""
    if "label" in fields:
        return _hash({"label": fields["label"]})
    return np.zeros(len(next(iter(fields.values()))), HASH)


def _hash(fields: dict[str, Any]) -> np.ndarray:
    texts = {name: is_text(values) for name, values in fields.items()}
    out = np.empty(len(next(iter(fields.values()))), HASH)
    for i in range(len(out)):
        digest = hashlib.sha256()  # processors have instructions for it
        for name, values in fields.items():
            shape, content = _text(values[i]) if texts[name] else _content(values[i])
            # Sizes first, so that no border between two fields is lost.
            digest.update(f"{name} {shape} {len(content)};".encode())
            digest.update(content)
        out[i] = digest.digest()[: HASH.itemsize]
    return out


def normalise(text: Any) -> str:
    """Texts that differ only in case, blanks or Unicode form become one."""
    return " ".join(unicodedata.normalize("NFKC", str(text)).casefold().split())


def _text(value: Any) -> tuple[str, bytes]:
    return "", normalise(value).encode(errors="surrogatepass")


def _content(value: Any) -> tuple[str, Any]:
    """Shape and bytes of an array; -0.0 is 0.0, and a number's type does not matter."""
    array = np.asarray(value)
    if array.dtype == object:
        return "", repr(value).encode()
    if array.dtype.kind == "f":
        array = array.astype(np.float64) + 0.0
    elif array.dtype.kind in "iub" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    return str(array.shape), np.ascontiguousarray(array).reshape(-1).view(np.uint8)
