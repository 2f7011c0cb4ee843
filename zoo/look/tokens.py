"""Examples of a training batch of text, decoded, with what counts in the loss marked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data import Dataset
from zoo.data.pipeline import Batch
from zoo.look.bars import can_print
from zoo.look.profile import show_label

MOST_EXAMPLES, MOST_CHARACTERS = 4, 600  # printed of a batch; of a stretch of alike tokens


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tokens of one document that all count in the loss, or all do not."""

    text: str
    counts: bool
    note: bool = False  # about the tokens, not of them


class Speller:
    """Tokens as text, those that mean no text by their names."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._names = special_names(tokenizer)

    def spell(self, ids: list[int], before: list[int]) -> str:
        """The text of `ids` where they stand behind `before`."""
        out, start = "", 0
        for special, group in itertools.groupby(range(len(ids)), lambda i: ids[i] in self._names):
            places = list(group)
            if special:
                out += "".join(self._names[ids[i]] for i in places)
            else:
                head = before if start == 0 else []
                head = [i for i in head if i not in self._names]
                out += self._decode(ids[places[0] : places[-1] + 1], head)
            start = places[-1] + 1
        return out

    def _decode(self, ids: list[int], before: list[int]) -> str:
        """A decoder may drop the blank before the first token: decoded with what stands before."""
        head, whole = (self._tokenizer.decode(part) for part in (before, before + ids))
        return whole[len(head) :] if whole.startswith(head) else self._tokenizer.decode(ids)


def special_names(tokenizer: Any) -> dict[int, str]:
    """Tokens that stand for no text -> how they are shown."""
    content = json.loads(tokenizer.to_json())
    added = content.get("added_tokens") or []
    names = {token["id"]: token["content"] for token in added if token.get("special")}
    if tokenizer.end is not None:
        names.setdefault(tokenizer.end, "<end>")
    return names


def print_examples(batch: Batch, dataset: Dataset, most: int = MOST_EXAMPLES) -> None:
    """The first examples of a batch, decoded; colours only on a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    opening, closing = ("⟦", "⟧") if can_print("⟦⟧") else ("[[", "]]")
    speller = Speller(dataset.tokenizer)
    console.print(f"{opening}counts in the loss{closing}", markup=False)
    for i in range(min(len(batch["mask"]), most)):
        label = ""
        if "label" in batch:
            label = f", label {show_label(batch['label'][i], dataset, 60)}"
        if not batch["mask"][i]:
            label = ": an empty row, left out of the loss"
        console.print(f"\nexample {i}{label}", markup=False, style="bold")
        for title, stretches in describe_row({k: v[i] for k, v in batch.items()}, speller.spell):
            line = Text(f"{title}: " if title else "", style="")
            for stretch in stretches:
                text = plain(stretch.text)
                if stretch.counts:
                    line.append(f"{opening}{text}{closing}", style="green")
                else:
                    line.append(text, style="dim")
            for part in line.split("\n"):
                console.print(Text("  ") + part)


Spell = Callable[[list[int], list[int]], str]
Line = tuple[str, list[Stretch]]


def describe_row(row: dict[str, np.ndarray], spell: Spell) -> Iterator[Line]:
    """(title, stretches) of one row of a batch: a line for each text or packed document of it."""
    if "target" in row:
        for name in ("source", "target"):
            ids = row[name]
            real = row.get(f"{name}_mask", np.ones(len(ids), bool)).astype(bool)
            yield name, cut_stretches(ids, real & (name == "target"), real, spell)
        return
    ids = row["tokens"]
    if ids.ndim > 1:  # choices
        for number in range(len(ids)):
            one = {k: v[number] for k, v in row.items() if np.shape(v) == ids.shape}
            for title, stretches in describe_row(one, spell):
                yield f"choice {number}" + (f", {title}" if title else ""), stretches
        return
    counts, present = what_counts(row)
    for title, part in split_row(row, present):
        targets = row["targets"][part] if "targets" in row else None
        stretches = cut_stretches(ids[part], counts[part], present[part], spell, targets)
        yield title, stretches


def what_counts(row: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of a row are predicted with weight, and which are there at all, `[t]` bool."""
    ids = row["tokens"]
    real = row.get("real")
    if real is None:
        counts = np.zeros(len(ids), bool)
        if "label" not in row and "token_mask" not in row:
            counts[1:] = True
    elif len(real) == len(ids):
        counts = real.astype(bool)
    else:  # of targets: each token but the first
        counts = np.concatenate([[False], real.astype(bool)])
    if "token_label" in row:
        counts = row["token_label"] >= 0
    if "start" in row and row["end"]:  # of no answer both are the first token
        counts[row["start"] : row["end"] + 1] = True
    if "token_mask" in row:
        return counts, row["token_mask"].astype(bool)
    if "segments" in row:
        return counts, counts | (row["segments"] > 0)
    # Padding is one token over and over at the end, and does not count.
    last = np.flatnonzero(counts | (ids != ids[-1]))
    size = last[-1] + 1 if len(last) else len(ids)
    present = np.ones(len(ids), bool)
    if len(ids) - size > 1:
        present[size:] = False
    return counts, present


def split_row(row: dict[str, np.ndarray], present: np.ndarray) -> Iterator[tuple[str, slice]]:
    """Packed documents, the two texts of a pair, or the whole row."""
    for name, title in (("segments", "document {}"), ("types", "text {}")):
        if name not in row:
            continue
        marks = np.where(present, row[name], -1)
        if name == "types" and not row[name].any():
            continue
        start = 0
        for number, group in enumerate(itertools.groupby(marks.tolist()), 1):
            stop = start + len(list(group[1]))
            yield ("" if group[0] < 0 else title.format(number)), slice(start, stop)
            start = stop
        return
    yield "", slice(0, len(present))


def cut_stretches(
    ids: np.ndarray,
    counts: np.ndarray,
    present: np.ndarray,
    spell: Spell,
    targets: np.ndarray | None = None,
) -> list[Stretch]:
    """Tokens cut where `counts` changes; a token that stands for another is shown 'this→that'."""
    out: list[Stretch] = []
    changed = (ids != targets) & counts if targets is not None else np.zeros(len(ids), bool)
    keys = [
        (bool(p), bool(c), i if x else -1)
        for i, (p, c, x) in enumerate(zip(present, counts, changed, strict=True))
    ]
    start = 0
    for (there, counted, place), group in itertools.groupby(keys):
        stop = start + len(list(group))
        part, before = ids[start:stop].tolist(), ids[:start].tolist()
        if not there:
            out.append(Stretch(f" ({stop - start} tokens of padding)", False, note=True))
        elif place >= 0 and targets is not None:
            meant = targets[place : place + 1].tolist()
            text = f"{spell(part, before).strip()}→{spell(meant, before).strip()}"
            out.append(Stretch(text, True))
        else:
            out.append(Stretch(shorten(spell(part, before)), counted))
        start = stop
    return out


def shorten(text: str, most: int = MOST_CHARACTERS) -> str:
    """A long text without its middle."""
    left = len(text) - most
    half = most // 2
    return text if left < most // 4 else f"{text[:half]} ... {left:,} characters ... {text[-half:]}"


def plain(text: str) -> str:
    """Characters that would move the cursor or colour the console, escaped."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
