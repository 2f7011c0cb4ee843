"""A subject's outputs for examples: the pass of training's evaluation, compiled for all devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.config import ParallelConfig, UserError
from zoo.evaluation.examples import Examples
from zoo.evaluation.passes import Records, make_eval_step, run_batches
from zoo.evaluation.subject import Subject, make_info
from zoo.metrics import Metric
from zoo.parallel import DATA_AXES, count_shares, local_rows, make_mesh, place_batch
from zoo.tasks import make_task
from zoo.use.batches import choose_size

BATCH_SIZE = 32


@dataclass(frozen=True)
class Outputs:
    """What a model made of a split: `records` a row an example, in its order, `rows` their places
    in it (broken images are left out), `values` the task's own metrics. Where an example is a
    window of a context, `questions` has a row a question, with its answer as a text."""

    records: Records
    rows: np.ndarray
    values: Mapping[str, float]
    num_examples: int
    questions: Outputs | None = None

    def of(self, metric: Metric) -> Outputs:
        """The rows that a metric is of: the questions, or the examples."""
        return self.questions if self.questions and "text" in metric.needs else self


def run_subject(subject: Subject, examples: Examples, batch_size: int | None = None) -> Outputs:
    """Every example once. Raises UserError on a batch size below 1."""
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be at least 1")
    mesh = make_mesh(ParallelConfig())
    num_shares = count_shares(mesh)
    size = -(-find_size(subject, examples, batch_size) // num_shares) * num_shares
    rows = local_rows(size, mesh, "batch_size")
    task = make_task(
        subject.task, {"model": subject.model_on(mesh)}, make_info(subject, examples.dataset)
    )
    whole, shared = NamedSharding(mesh, P()), NamedSharding(mesh, P(DATA_AXES))
    step = jax.jit(make_eval_step(task), in_shardings=(whole, shared), out_shardings=whole)
    places: list[np.ndarray] = []

    def placed() -> Iterator[dict[str, jax.Array]]:
        for batch, place in examples.batches(size, rows):
            places.append(place)
            yield place_batch({k: v for k, v in batch.items() if k != "broken"}, shared)

    params = jax.device_put(subject.loaded.params, whole)
    seen = run_batches(step, params, placed(), places).reorder()
    values = task.summarise(seen.sums)
    count = int(seen.sums["examples"])
    return Outputs(seen.records, seen.rows, {k: float(v) for k, v in values.items()}, count)


def find_size(subject: Subject, examples: Examples, asked: int | None) -> int:
    """Rows of a batch: a run's own `train.eval_batch_size`, so that sums round as there."""
    if asked is not None:
        return asked
    if subject.recipe is not None:
        return subject.recipe.eval_batch_size
    return choose_size(len(examples.source), BATCH_SIZE)
