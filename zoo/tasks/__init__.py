"""Tasks: what is learned. Pure functions of parameters and a batch, around models they are given.

A task is a frozen dataclass whose first field is its model; `head` of the class, where it has one,
names the head that it wants of a model that can have several. Its methods:

- `num_outputs(info) -> int`: how many outputs the data asks of the model.
- `create(model, info, **companions, **arguments)`: the task for this data.
- `init(key) -> params`
- `loss(params, batch, key) -> (loss_sum, sums)`: `loss_sum` is a *sum* over the batch's real
  examples; `sums` are summable metrics, among them `loss` (that sum) and `weight`, what it is
  divided by. `key` is None in evaluation. The sums of a batch's parts add up to those of the whole.
- `summarise(sums) -> {name: number}`: metrics from the sums of any number of batches.
- `predict(params, batch) -> outputs` as a person wants them, where there is such a thing.
- `observe(params, batch) -> {field: array}`, which a task need not have: for each row `[b]` of the
  batch what metrics are made of (zoo/metrics names the fields), padding included.

A batch is a dict of arrays; `mask` `[b]` is 0 where a row is padding.

A task that has other models beside the one that is trained (a generator, a teacher) names them in
`companions: ClassVar[Mapping[str, Companion]]`, is given them by `create`, and holds their
parameters, and arrays of its own, in `params["companions"]`; what lies outside of it is the model's
own and all that leaves a run. Where a run is measured afterwards, they may be None. Such a task may
have

- `constants: ClassVar[str]`: regex of the paths that no gradient trains (a teacher's).
- `begin(params) -> params`: sets those that follow from others (a teacher that is a copy), at the
  start; `init` gives what it gives.
- `follow(params, sums, step) -> params`: the same after each step, from the parameters and the
  sums of the whole batch. Both change constants alone.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from zoo.config import TaskConfig, UserError, nearest
from zoo.config.parse import convert
from zoo.registry import Registry
from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.classification import Classification
from zoo.tasks.companions import Companion
from zoo.tasks.contrastive import Contrastive
from zoo.tasks.distillation import Distillation
from zoo.tasks.masked_image import MaskedImage
from zoo.tasks.masked_lm import MaskedLM
from zoo.tasks.multiple_choice import MultipleChoice
from zoo.tasks.regression import Regression
from zoo.tasks.replaced_token import ReplacedToken
from zoo.tasks.self_distillation import SelfDistillation
from zoo.tasks.seq2seq import SequenceToSequence
from zoo.tasks.span import SpanPrediction
from zoo.tasks.token_classification import TokenClassification

__all__ = ["TASKS", "Companion", "make_task"]

TASKS = Registry("task")
TASKS.add("classification", Classification)
TASKS.add("regression", Regression)
TASKS.add("causal_lm", CausalLM)
TASKS.add("masked_lm", MaskedLM)
TASKS.add("replaced_token", ReplacedToken)
TASKS.add("seq2seq", SequenceToSequence)
TASKS.add("masked_image", MaskedImage)
TASKS.add("contrastive", Contrastive)
TASKS.add("self_distillation", SelfDistillation)
TASKS.add("distillation", Distillation)
TASKS.add("token_classification", TokenClassification)
TASKS.add("span", SpanPrediction)
TASKS.add("multiple_choice", MultipleChoice)


def make_task(config: TaskConfig, models: Mapping[str, Any], info: Any) -> Any:
    """The task of a config around its models (`model`, and its companions by their names), for
    data that `info` describes.

    Raises UserError on an unknown task or argument, or a value of a wrong type.
    """
    cls = TASKS.get(config.name)
    hints = typing.get_type_hints(cls)
    settable = [f.name for f in dataclasses.fields(cls) if f.metadata.get("argument", False)]  # type: ignore[arg-type]
    arguments = {}
    for key, value in config.arguments.items():
        if key not in settable:
            raise UserError(f"task {config.name!r} has no argument {key!r}{nearest(key, settable)}")
        arguments[key] = convert(value, hints[key], f"task.arguments.{key}")
    wanted = getattr(cls, "companions", {})
    beside = {name: models.get(name) for name in wanted}
    return cls.create(models["model"], info, **beside, **arguments)  # type: ignore[attr-defined]
