"""A pass over a split: every example exactly once, in training and for `zoo eval` alike.

The sums of a batch are added up in float64; records, where they are asked for, hold a row for each
example, which padding and broken images are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Records = dict[str, np.ndarray]


def make_eval_step(task: Any) -> Callable[[Any, Any], dict[str, Any]]:
    """Returns `eval_step(params, batch) -> {"sums": ..., "records": ...}`, dropout off.

    `sums` are the task's, and of `examples`. `records` `[b, ...]`, of a task with `observe`, are
    what it observes of each row, its `length` where it has tokens, and the batch's `mask`. Both
    come of one forward pass: the compiler merges what they share. Records that nobody keeps are
    made all the same: another program would round the sums otherwise.
    """

    def eval_step(params: Any, batch: Any) -> dict[str, Any]:
        """One batch."""
        sums = {**task.loss(params, batch, None)[1], "examples": batch["mask"].sum()}
        if not hasattr(task, "observe"):
            return {"sums": sums}
        records = {**task.observe(params, batch), "mask": batch["mask"]}
        tokens = next((batch[k] for k in ("token_mask", "real") if k in batch), None)
        if tokens is not None:
            records["length"] = tokens.sum(axis=tuple(range(1, tokens.ndim))).astype(jnp.int32)
        return {"sums": sums, "records": records}

    return eval_step


@dataclass(frozen=True)
class Seen:
    """What a pass gave: `sums` in float64, the records of the real examples, and `rows`, their
    places in the split."""

    sums: Any
    records: Records
    rows: np.ndarray

    def reorder(self) -> Seen:
        """In the order of the split."""
        order = np.argsort(self.rows, kind="stable")
        return Seen(self.sums, {k: v[order] for k, v in self.records.items()}, self.rows[order])


def run_batches(
    eval_step: Callable[[Any, Any], dict[str, Any]],
    params: Any,
    batches: Iterable[Any],
    places: Iterable[np.ndarray] | None = None,
    *,
    keep: bool = True,
) -> Seen:
    """`params` over placed batches; one is worked on while the next is read.

    With `keep` the records stay, else the sums alone. `places` gives the place in the split of each
    row of each batch, by default in order.
    """
    return run_several(eval_step, [params], batches, places, keep=keep)[0]


def run_several(
    eval_step: Callable[[Any, Any], dict[str, Any]],
    several: Sequence[Any],
    batches: Iterable[Any],
    places: Iterable[np.ndarray] | None = None,
    *,
    keep: bool = True,
) -> list[Seen]:
    """`run_batches` of the parameters of several models, each batch read once."""
    totals: list[Any] = [None] * len(several)
    kept: list[list[Records]] = [[] for _ in several]
    waiting: list[Any] = [None] * len(several)
    for batch in batches:
        begun = [eval_step(params, batch) for params in several]
        if not keep:
            begun = [{"sums": one["sums"]} for one in begun]
        totals = [_collect(*one) for one in zip(totals, kept, waiting, strict=True)]
        waiting = begun
    totals = [_collect(*one) for one in zip(totals, kept, waiting, strict=True)]
    places = None if places is None else list(places)
    return [_finish(total, own, places) for total, own in zip(totals, kept, strict=True)]


def _finish(total: Any, kept: list[Records], places: Iterable[np.ndarray] | None) -> Seen:
    if not kept:
        return Seen(total, {}, np.zeros(0, int))
    masks = [part.pop("mask") > 0 for part in kept]
    if places is None:
        places = _count_on(masks)
    rows = [place[mask] for place, mask in zip(places, masks, strict=True)]
    real = [{k: v[m] for k, v in part.items()} for part, m in zip(kept, masks, strict=True)]
    return Seen(total, join_records(real), np.concatenate(rows))


def _count_on(masks: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    start = 0
    for mask in masks:
        yield np.arange(start, start + len(mask))
        start += len(mask)


def _collect(total: Any, kept: list[Records], outputs: Any) -> Any:
    """Adds the sums of a batch to the total, in float64, and keeps its records."""
    if outputs is None:
        return total
    found = jax.device_get(outputs)
    if "records" in found:
        kept.append({name: np.asarray(x) for name, x in found["records"].items()})
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), found["sums"])
    return sums if total is None else jax.tree.map(np.add, total, sums)


def join_records(parts: Sequence[Records]) -> Records:
    """One after another. Where rows of tokens are of several lengths, the shorter ones are filled
    up: labels with -1 (no target), logits of places with -1e30 (no place), all else with 0."""
    out = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if len({x.shape[1:] for x in arrays}) > 1:
            wide = max(x.shape[1] for x in arrays)
            place = name.endswith("logits") and arrays[0].ndim == 2
            fill = -1 if name.endswith("label") else -1e30 if place else 0
            arrays = [_widen(x, wide, fill) for x in arrays]
        out[name] = np.concatenate(arrays)
    return out


def _widen(array: np.ndarray, width: int, fill: float) -> np.ndarray:
    room = [(0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(array, room, constant_values=fill)


def select_rows(records: Mapping[str, np.ndarray], rows: np.ndarray) -> Records:
    """Some rows of records."""
    return {name: values[rows] for name, values in records.items()}
