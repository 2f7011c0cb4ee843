"""What is measured: a run or a published model, its task, and the names of its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from zoo.config import TaskConfig, UserError
from zoo.generation.prompts import crosses_over
from zoo.models import max_tokens
from zoo.models.kernels import UNDIVIDED, choose_attend, with_attention
from zoo.parallel import share_context
from zoo.pretrained import Pretrained
from zoo.pretrained.family import head_of
from zoo.pretrained.recipe import Recipe
from zoo.tasks import TASKS
from zoo.tasks.classification import has_several
from zoo.tasks.distillation import has_classes
from zoo.use.jobs import open_source
from zoo.use.predict import find_scores, label_names, rename, run_names

# The task of a head, where it is the only one.
OF_HEADS = {
    "lm": "causal_lm",
    "masked_lm": "masked_lm",
    "classification": "classification",
    "distilled": "classification",
    "token": "token_classification",
    "span": "span",
    "multiple_choice": "multiple_choice",
}
BUILT_IN = {*OF_HEADS.values(), "regression"}
PROBES = ["The quick brown fox, 12.5 %", "naïve Ünïcode: 你好 ß", "def f(x):\n    return x"]
LONGEST = 1024  # tokens of a window where a model's positions have no end


@dataclass(frozen=True)
class Subject:
    """A source that has been loaded. `named`: somebody gave its `classes` their names. `several`:
    an example may have several of them."""

    loaded: Pretrained
    task: TaskConfig
    recipe: Recipe | None
    classes: tuple[str, ...]
    named: bool
    own_tokenizer: bool
    several: bool = False

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.loaded.card.source

    @property
    def model(self) -> Any:
        """As it was loaded."""
        return self.loaded.model

    def model_on(self, mesh: Mesh) -> Any:
        """With the attention of the mesh's devices, as in training."""
        attend = choose_attend(mesh.devices.flat[0])
        shared = share_context(attend, mesh, undivided=attend in UNDIVIDED)
        return with_attention(self.model, shared)

    @property
    def tokenizer(self) -> Any:
        """That of the source, or the one given in its place."""
        return self.loaded.tokenizer

    @property
    def length(self) -> int:
        """The most tokens of an example."""
        most = max_tokens(self.model)
        if self.recipe is not None:
            return min(self.recipe.data.length, most or self.recipe.data.length)
        return most or LONGEST


def open_subject(
    source: Any,
    task: str | None = None,
    tokenizer: Any = None,
    labels: Sequence[str] | None = None,
) -> Subject:
    """Loads a source, unless it is.

    Raises UserError on a model without a head that can be measured, on a tokenizer that is not
    its, and on names of classes that are not as many.
    """
    loaded = open_source(source)
    own = tokenizer is None
    if not own:
        given = open_source(loaded, tokenizer)
        check_tokenizer(loaded, given)
        loaded = given
    recipe = loaded.card.recipe
    if recipe is None:
        config = find_task(loaded, task)
    else:
        config = begin_as_trained(loaded, measured_as(recipe.task, loaded.model))
    if recipe is not None and task not in (None, config.name):
        raise UserError(f"task={task!r}: {loaded.card.source} was trained with {config.name!r}")
    classes, named = find_classes(loaded, recipe, config.name)
    if labels is not None:
        classes, named = rename(classes, labels, loaded.card.source), True
    if recipe is not None:
        several = has_several(recipe.dataset)
    else:
        several = config.name == "classification" and gives_several(loaded)
    return Subject(loaded, config, recipe, classes, named, own, several)


def gives_several(loaded: Pretrained) -> bool:
    """Does config.json say that each output is a label by itself?"""
    return loaded.card.config.get("problem_type") == "multi_label_classification"


def begin_as_trained(loaded: Pretrained, task: TaskConfig) -> TaskConfig:
    """The task of a run, its targets behind the token that it was trained with."""
    begin = loaded.card.config.get("decoder_start_token_id")
    if task.name != "seq2seq" or begin is None:
        return task
    return dataclasses.replace(task, arguments={**task.arguments, "begin": begin})


def measured_as(task: TaskConfig, model: Any) -> TaskConfig:
    """The task by which a run is measured: a distilled student with classes is alone a
    classifier."""
    distilled = task.name == "distillation" and has_classes(model)
    return TaskConfig("classification") if distilled else task


def find_task(loaded: Pretrained, asked: str | None) -> TaskConfig:
    """The task of a published model: by its head, or the one asked for."""
    head, name = head_of(loaded.model), loaded.card.source
    config = loaded.card.config
    if head == "lm" and crosses_over(loaded.model):
        raise UserError(f"{name} is an encoder-decoder: it is compared with another one")
    found = OF_HEADS.get(head)
    if head == "sequence":
        count = loaded.model.num_classes  # type: ignore[attr-defined]
        scores = find_scores(config.get("problem_type"), count)
        value = scores == "value" or (count == 1 and config.get("problem_type") is None)
        found = "regression" if value else "classification"
    if asked is not None:
        TASKS.get(asked)
        if found is not None and not _gives(head, asked):
            raise UserError(
                f"task={asked!r}: {name} has the head {head!r}, which is for {found!r} "
                "(leave it out)"
            )
        found = asked if found is not None or asked not in BUILT_IN else None
    if found is None:
        heads = ", ".join(sorted([*OF_HEADS, "sequence"]))
        raise UserError(
            f"{name} has the head {head!r}, which is not measured: it takes one of {heads}, "
            "or a run fine-tuned from it"
        )
    if found not in TASKS.names() and ":" not in found:
        raise UserError(f"{name} has the head {head!r}: there is no task {found!r}")
    # A published model's outputs are in the data's own units.
    arguments = {"standardize": False} if found == "regression" else {}
    return TaskConfig(found, arguments)


def _gives(head: str, task: str) -> bool:
    """Are a head's outputs those that a task measures? Of tasks of the user's own nobody knows."""
    values = head in ("sequence", "classification") and task in ("classification", "regression")
    return task not in BUILT_IN or values or OF_HEADS.get(head) == task


def find_classes(
    loaded: Pretrained, recipe: Recipe | None, task: str
) -> tuple[tuple[str, ...], bool]:
    """Names of the classes, and whether somebody gave them; none where there are no classes."""
    if recipe is not None:
        names = run_names(loaded.model, recipe.dataset)
        return names, names == recipe.dataset.class_names and bool(names)
    if "classification" not in task:
        return (), False
    count = loaded.model.num_classes  # type: ignore[attr-defined]
    names = label_names(loaded, count)
    placeholders = tuple(f"LABEL_{i}" for i in range(count))
    return names, names not in (placeholders, tuple(map(str, range(count))))


def check_tokenizer(loaded: Pretrained, given: Pretrained) -> None:
    """Raises UserError where a tokenizer that was given is not the one of the source."""
    own, other, name = loaded.tokenizer, given.tokenizer, loaded.card.source
    places = getattr(loaded.model, "vocab_size", None)
    if places is None:
        raise UserError(f"tokenizer: {name} takes no text")
    if other.vocab_size > places:
        raise UserError(
            f"tokenizer: it has {other.vocab_size:,} tokens, more than the {places:,} of {name}: "
            "it is of another model"
        )
    if own is not None and not _same(own, other):
        raise UserError(
            f"tokenizer: it is not the one {name} was trained with ({own.vocab_size:,} tokens, "
            f"this one {other.vocab_size:,}); leave it out"
        )


def _same(own: Any, other: Any) -> bool:
    """Do two tokenizers, whatever their files, make the same tokens?"""
    if own.to_json() == other.to_json():
        return True
    if own.vocab_size != other.vocab_size:
        return False
    pairs = zip(own.encode_batch(PROBES), other.encode_batch(PROBES), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def make_info(subject: Subject, dataset: Any) -> Any:
    """The data as the task of the subject should see it: with the model's classes."""
    if subject.recipe is not None:
        return subject.recipe.dataset
    if not subject.classes:
        return dataclasses.replace(dataset, num_classes=None)
    return dataclasses.replace(
        dataset, num_classes=len(subject.classes), class_names=subject.classes
    )
