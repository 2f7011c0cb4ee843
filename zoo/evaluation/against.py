"""Two models on the same examples: which is better, and whether that is more than chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.evaluation.examples import Examples
from zoo.evaluation.json_numbers import finite
from zoo.evaluation.measure import Outputs
from zoo.evaluation.passes import Records, select_rows
from zoo.evaluation.subject import Subject
from zoo.metrics import Comparison, Metric, compare

LEVEL = 0.05


@dataclass(frozen=True)
class Against:
    """Another model `source` (B) beside the one that is evaluated (A); `better` says for each
    metric 'A', 'B' or '' where the difference may be chance."""

    source: str
    metrics: Mapping[str, Comparison]
    better: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        told = {
            name: {**{k: finite(v) for k, v in vars(c).items()}, "better": self.better[name]}
            for name, c in self.metrics.items()
        }
        return {"source": self.source, "metrics": told}


def compare_outputs(
    metrics: Sequence[Metric],
    first: tuple[Subject, Examples, Outputs],
    second: tuple[Subject, Examples, Outputs],
    samples: int,
) -> Against:
    """B against A, paired by example. Raises UserError where they are not of the same examples or
    do not speak of the same classes."""
    (a, examples, outputs), (b, others, found) = first, second
    if a.task.name != b.task.name:
        raise UserError(f"{a.name} is of {a.task.name}, {b.name} of {b.task.name}")
    if examples.is_corpus and not _same_windows(examples, others):
        raise UserError(
            f"{a.name} and {b.name} cut the text into other windows (other tokenizers or lengths): "
            "evaluate each alone and compare bits_per_byte"
        )
    records = reorder_classes(examples, others, found.records, a.name, b.name)
    told = {}
    for metric in metrics:
        ours, theirs = outputs.of(metric), found.of(metric)
        if ours is outputs:
            if outputs.questions and not _same_windows(examples, others):
                continue  # a window of one is another part of the text than that of the other
            theirs = dataclasses.replace(found, records=records)
        pair = pair_rows(ours, theirs)
        if not len(pair[0]["rows"]):
            raise UserError(f"{a.name} and {b.name} have no example in common")
        if _comparable(metric, *pair):
            told[metric.name] = compare(metric, *pair, samples=samples)
    better = {m.name: _tell_better(m, told[m.name]) for m in metrics if m.name in told}
    return Against(b.name, told, better)


def pair_rows(a: Outputs, b: Outputs) -> tuple[Records, Records]:
    """The records of the examples, numbered by `rows`, that both have."""
    shared, rows, columns = np.intersect1d(a.rows, b.rows, return_indices=True)
    return (
        {**select_rows(a.records, rows), "rows": shared},
        {**select_rows(b.records, columns), "rows": shared},
    )


def _same_windows(a: Examples, b: Examples) -> bool:
    """Is row i of one the same text as row i of the other?"""
    if len(a.source) != len(b.source) or a.dataset.tokenizer_hash != b.dataset.tokenizer_hash:
        return False
    return a.dataset.shapes == b.dataset.shapes


def reorder_classes(
    a: Examples, b: Examples, records: Records, name_a: str, name_b: str
) -> Records:
    """B's records with A's order of classes. Raises UserError on other classes."""
    if "logits" not in records or a.classes == b.classes:
        return records
    if sorted(a.classes) != sorted(b.classes):
        only = sorted(set(a.classes) ^ set(b.classes))
        raise UserError(
            f"{name_a} and {name_b} do not speak of the same classes: one alone has "
            f"{', '.join(map(repr, only[:4]))}{', ...' if len(only) > 4 else ''}"
        )
    order = np.array([b.classes.index(name) for name in a.classes])
    moved = {**records, "logits": records["logits"][:, order]}
    if "labels" in records:
        return {**moved, "labels": records["labels"][:, order]}
    back, label = np.argsort(order), records["label"]
    return {**moved, "label": np.where(label < 0, label, back[label])}


def _comparable(metric: Metric, a: Records, b: Records) -> bool:
    """Does it mean the same in both? A regression's loss is in units of its training data."""
    if metric.name == "loss" and "prediction" in a:
        return False
    return all(name in a and name in b for name in metric.needs)


def _tell_better(metric: Metric, found: Comparison) -> str:
    if not found.p_value < LEVEL or found.difference == 0:
        return ""
    return "B" if (found.difference > 0) == metric.higher_is_better else "A"
