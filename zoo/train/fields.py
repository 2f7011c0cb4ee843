"""Do the data and its operations give what the task takes?"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.config import Config, UserError
from zoo.data import Dataset, Op, SubsetSource, read_eval
from zoo.tasks import TASKS


def check_fields(
    config: Config, dataset: Dataset, batch: dict[str, Any], eval_ops: tuple[Op, ...]
) -> None:
    """Raises UserError where tokens are hidden and should not be, or should be and are not, and
    where there is no source with its target.

    `batch` has the fields of a training batch.
    """
    name, made = config.task.name, batch.keys() - dataset.shapes.keys()
    if name == "causal_lm" and made & {"targets", "target"}:
        raise UserError(
            f"task.name='causal_lm' predicts the next token, and data.transform="
            f"{config.data.transform!r} hides tokens: leave that out, or set task.name="
            f"{'masked_lm' if 'targets' in made else 'seq2seq'!r}"
        )
    if name == "seq2seq" and not {"source", "target"} <= batch.keys():
        raise UserError(
            "task.name='seq2seq' takes pairs of texts, 'source' and 'target', or a text with "
            f"data.transform='corrupt_spans()'; {dataset.name} has {', '.join(dataset.shapes)}"
        )
    if hasattr(TASKS.get(name), "hides"):
        _check_hidden(config, dataset, batch, eval_ops)


def _check_hidden(
    config: Config, dataset: Dataset, batch: dict[str, Any], eval_ops: tuple[Op, ...]
) -> None:
    """Raises UserError where hidden tokens are guessed, and none are hidden."""
    task: Any = TASKS.get(config.task.name)
    task.num_outputs(dataset)
    evaluated = batch.keys()
    if config.data.eval_transform is not None:
        source = SubsetSource(dataset.splits["train"], np.arange(1))
        evaluated = next(read_eval(source, eval_ops, 1)).keys()
    for key, fields in (("transform", batch.keys()), ("eval_transform", evaluated)):
        if "targets" not in fields:
            raise UserError(
                f"task.name={config.task.name!r} guesses hidden tokens, and data.{key}="
                f"{getattr(config.data, key)!r} hides none: set it to {task.hides!r}"
            )
