"""What can be wrong with single examples, with labels and with columns of numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from zoo.data import Dataset
from zoo.look.profile import CountTokens
from zoo.look.read import Block, is_text

Place = tuple[str, int]  # split and index
Limits = dict[tuple[str, ...], int]


@dataclass(frozen=True)
class Case:
    """One thing that is wrong: the examples it is about (none: a class, a column) and a detail."""

    places: tuple[Place, ...]
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """All cases of one kind in one split; `count` examples (or classes, columns) of `total`."""

    kind: str
    split: str
    count: int
    total: int
    message: str
    cases: tuple[Case, ...]


@runtime_checkable
class Check(Protocol):
    """Sees every example once and then says what it found."""

    def see(self, block: Block) -> None: ...

    def findings(self) -> list[Finding]:
        """Everything that was found."""
        ...


class ExampleChecks:
    """Examples that are wrong by themselves: unreadable, empty, not finite, of no known class, or
    too long, `limits` being the most tokens of some texts together."""

    MESSAGES: ClassVar[dict[str, str]] = {
        "unreadable": "cannot be read",
        "label_range": "have a label that is no class",
        "empty_text": "have an empty text",
        "non_finite": "have a number that is not finite",
        "too_long": "are cut to data.length",
    }

    def __init__(self, dataset: Dataset, count_tokens: CountTokens | None, limits: Limits):
        self._sizes = {split: len(source) for split, source in dataset.splits.items()}
        self._num_classes, self._names = dataset.num_classes, dataset.class_names
        self._count_tokens, self._limits = count_tokens, limits
        self._longest: Counter[str] = Counter()
        self._cases: dict[tuple[str, str], list[Case]] = defaultdict(list)

    def see(self, block: Block) -> None:
        for index, reason in block.broken:
            self._cases["unreadable", block.split].append(Case(((block.split, index),), reason))
        for name, values in block.fields.items():
            if name == "label":
                self._see_labels(np.asarray(values), block)
            elif is_text(values):
                self._see_texts(name, values, block)
            if name != "image" and not is_text(values):
                self._see_numbers(name, np.asarray(values), block)
        if self._count_tokens is not None:
            self._see_lengths(self._count_tokens, block)

    def findings(self) -> list[Finding]:
        out = []
        for (kind, split), cases in self._cases.items():
            total, message = self._sizes[split], self.MESSAGES[kind]
            if kind == "too_long":
                message += f", the longest has {self._longest[split]:,} tokens"
            count = len({case.places for case in cases})
            out.append(Finding(kind, split, count, total, message, tuple(cases)))
        return out

    def _add(self, kind: str, block: Block, row: Any, detail: str) -> None:
        place = (block.split, int(block.indices[row]))
        self._cases[kind, block.split].append(Case((place,), detail))

    def _see_labels(self, labels: np.ndarray, block: Block) -> None:
        if labels.dtype.kind == "f" and not self._num_classes:
            return  # values; `_see_numbers` looks at them
        if labels.dtype.kind not in "iubf":
            for i, label in enumerate(labels):
                self._add("label_range", block, i, f"label {label!r} is no number")
            return
        flat = labels.reshape(len(labels), -1)
        several = labels.ndim > 1
        top = 1 if several else (self._num_classes or np.inf) - 1
        for i, j in np.argwhere((flat < 0) | (flat > top) | (flat != np.floor(flat))):
            known = "0 or 1" if several else f"0 to {top:.0f}" if np.isfinite(top) else "0 or more"
            self._add("label_range", block, i, f"label {flat[i, j]} is not {known}")

    def _see_texts(self, name: str, texts: Any, block: Block) -> None:
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                self._add("empty_text", block, i, f"{name} is {text!r}")
            elif not text.strip():
                self._add("empty_text", block, i, f"{name} is {text[:20]!r}")

    def _see_numbers(self, name: str, values: np.ndarray, block: Block) -> None:
        if values.dtype.kind != "f":
            return
        flat = values.reshape(len(values), -1)
        bad = ~np.isfinite(flat)
        for i in np.flatnonzero(bad.any(axis=1)):
            columns = np.flatnonzero(bad[i])
            where = [f"{name}[{j}]" if values.ndim > 1 else name for j in columns[:5]]
            shown = ", ".join(f"{w} = {flat[i, j]}" for w, j in zip(where, columns, strict=False))
            more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
            self._add("non_finite", block, i, shown + more)

    def _see_lengths(self, count_tokens: CountTokens, block: Block) -> None:
        for names, most in self._limits.items():
            texts = zip(*(block.fields[name] for name in names), strict=True)
            for i, parts in enumerate(texts):
                number = sum(count_tokens(part) for part in parts if isinstance(part, str))
                if number > most:
                    title = " + ".join(names)
                    self._longest[block.split] = max(self._longest[block.split], number)
                    detail = f"{title}: {number:,} tokens, {most:,} fit"
                    self._add("too_long", block, i, detail)


def limited_fields(fields: dict[str, Any]) -> list[tuple[str, ...]]:
    """Texts that are cut to `data.length` tokens, together where they share one sequence. The
    documents of a corpus (`text` alone) are not cut."""
    there = {name for name, values in fields.items() if is_text(values)}
    if "text" in there and ("text_pair" in there or "label" in fields):
        return [("text", "text_pair") if "text_pair" in there else ("text",)]
    if {"prompt", "completion"} <= there:
        return [("prompt", "completion")]
    return [(name,) for name in ("source", "target") if name in there]


class ClassChecks:
    """Classes without an example in a split, and those that training never sees."""

    def __init__(self, dataset: Dataset):
        self._num_classes, self._names = dataset.num_classes or 0, dataset.class_names
        self._counts: dict[str, Counter[int]] = {split: Counter() for split in dataset.splits}

    def see(self, block: Block) -> None:
        labels = np.asarray(block.fields.get("label", []))
        if self._num_classes and labels.dtype.kind in "iub" and labels.ndim == 1:
            self._counts[block.split].update(labels.tolist())
        elif self._num_classes and labels.ndim == 2:
            counts = (labels == 1).sum(axis=0)
            self._counts[block.split].update(
                {i: int(count) for i, count in enumerate(counts) if count}
            )

    def findings(self) -> list[Finding]:
        """Absent classes of each split, and those of other splits that train lacks."""
        train = self._counts["train"]
        if not any(self._counts.values()):
            return []
        out = []
        for split, counts in self._counts.items():
            absent = [c for c in range(self._num_classes) if not counts[c]]
            message = "classes have no example in this split"
            out += self._finding("absent_class", split, message, absent)
            strange = [c for c in range(self._num_classes) if counts[c] and not train[c]]
            message = "classes have examples here and none in train"
            out += self._finding("untrained_class", split, message, strange)
        return out

    def _finding(self, kind: str, split: str, message: str, which: Sequence[int]) -> list[Finding]:
        if not which:
            return []
        names = (self._names[c] if c < len(self._names) else str(c) for c in which)
        cases = tuple(
            Case((), f"class {c} ({name})" if name != str(c) else f"class {c}")
            for c, name in zip(which, names, strict=True)
        )
        return [Finding(kind, split, len(which), self._num_classes, message, cases)]


class ConstantFeatures:
    """Columns of `features` with one value in all of the training split."""

    def __init__(self) -> None:
        self._low: np.ndarray | None = None
        self._high: np.ndarray | None = None
        self._rows = 0

    def see(self, block: Block) -> None:
        if block.split != "train" or "features" not in block.fields or not len(block):
            return
        values = np.asarray(block.fields["features"]).reshape(len(block), -1)
        low, high = np.fmin.reduce(values), np.fmax.reduce(values)
        self._low = low if self._low is None else np.fmin(self._low, low)
        self._high = high if self._high is None else np.fmax(self._high, high)
        self._rows += len(block)

    def findings(self) -> list[Finding]:
        if self._low is None or self._high is None or self._rows < 2:
            return []
        same = (self._low == self._high) | np.isnan(self._low)
        cases = tuple(Case((), f"features[{j}] = {self._low[j]:g}") for j in np.flatnonzero(same))
        message = "features have one value in all examples"
        found = Finding("constant_feature", "train", len(cases), len(same), message, cases)
        return [found] if cases else []
