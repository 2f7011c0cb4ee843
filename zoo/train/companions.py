"""The models beside the one that is trained: those that its task wants, built or read."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from zoo.config import Config, UserError, nearest
from zoo.config.parse import convert
from zoo.data import Dataset
from zoo.models.attention import Attend
from zoo.models.kernels import with_attention
from zoo.pretrained.adapt import plan_change
from zoo.pretrained.load import change_model, load_pretrained
from zoo.tasks import TASKS, Companion
from zoo.tasks.distillation import has_classes
from zoo.train.models import build_model
from zoo.train.start import PRETRAINED, compare_classes, compare_tokenizers, open_source


@dataclass(frozen=True)
class Beside:
    """The models beside the one that is trained, by the names that the task has for them, and what
    reads the parameters of those that begin with published ones, or a run's."""

    models: Mapping[str, nn.Module]
    readers: Mapping[str, Callable[[], dict[str, Any]]]


def build_companions(
    config: Config, dataset: Dataset, batch: dict[str, Any], attend: Attend
) -> Beside:
    """The models of `task.models`, and those that the task names itself where they are left out.

    Raises UserError on one that the task does not know, on one that it lacks, on an unknown key,
    and on a source whose tokens are not those of the data.
    """
    task = TASKS.get(config.task.name)
    wanted: Mapping[str, Companion] = getattr(task, "companions", {})
    for name in config.task.models:
        if name not in wanted:
            raise UserError(
                f"task {config.task.name!r} has no model {name!r} beside the one that is trained"
                f"{nearest(name, wanted)}"
            )
    models: dict[str, nn.Module] = {}
    readers: dict[str, Callable[[], dict[str, Any]]] = {}
    for name, companion in wanted.items():
        key = f"task.models.{name}"
        given = read_companion(config.task.models.get(name, {}), key)
        if given.init_from is not None:
            if given.name != PRETRAINED:
                raise UserError(f"{key}: with init_from its name is {PRETRAINED!r} (leave it out)")
            opened = open_companion(config, given, companion, dataset, key)
            models[name] = with_attention(opened, attend)
            readers[name] = functools.partial(load_companion, given, head_to_load(companion))
            continue
        if given.name == PRETRAINED:
            if companion.default is None:
                raise UserError(f"{key}: set its name, or init_from: weights or a run")
            given = dataclasses.replace(given, name=companion.default)
        model = dataclasses.replace(
            config.model, name=given.name, arguments=given.arguments, lora={}
        )
        own = dataclasses.replace(config, model=model, init_from=None)
        try:
            models[name] = build_model(own, dataset, batch, attend, head=companion.head)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
    return Beside(models, readers)


@dataclass(frozen=True)
class CompanionConfig:
    """An entry of `task.models`."""

    name: str = PRETRAINED
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    init_from: str | None = None


def read_companion(values: Mapping[str, Any], key: str) -> CompanionConfig:
    """An entry of `task.models` in its types. Raises UserError on an unknown key."""
    hints = typing.get_type_hints(CompanionConfig)
    for name in values:
        if name not in hints:
            raise UserError(f"{key}.{name} is unknown{nearest(name, hints)}")
    return CompanionConfig(**{n: convert(v, hints[n], f"{key}.{n}") for n, v in values.items()})


def open_companion(
    config: Config, given: CompanionConfig, companion: Companion, dataset: Dataset, key: str
) -> nn.Module:
    """A model as it was published or trained; its parameters are read later."""
    source = str(given.init_from)
    try:
        opened = open_source(source, companion.head)
        if opened.model is None:
            raise UserError("its model is a class of your own, which only its run knows")
        fake = dataclasses.replace(config, init_from=source, init_pattern="")
        compare_tokenizers(fake, opened, dataset)
        model = change_model(opened.model, head_to_load(companion), given.arguments, key)
        check_begins(opened.model, model, companion)
        other = compare_classes(opened, dataset) if companion.same_classes else ""
        if other and has_classes(model):
            raise UserError(f"{source}: its classes are not those of {dataset.name} ({other})")
        return model
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def head_to_load(companion: Companion) -> str | None:
    """The head that a model with weights is given: a teacher's stays as it is, None."""
    return None if companion.same_classes else companion.head


def check_begins(before: Any, after: Any, companion: Companion) -> None:
    """Raises UserError where a part of a teacher, which does not learn, would begin at random."""
    fresh = sorted(plan_change(before, after).fresh) if companion.same_classes else []
    if fresh:
        raise UserError(
            f"arguments: {', '.join(fresh[:3])} would begin at random, and a teacher does not learn"
        )


def load_companion(given: CompanionConfig, head: str | None) -> dict[str, Any]:
    """The parameters of `open_companion`."""
    return load_pretrained(given.init_from, head, **given.arguments).params
