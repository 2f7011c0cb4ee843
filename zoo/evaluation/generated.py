"""Generated texts beside those that are right: encoder-decoders on pairs, decoders on prompts.

Of an encoder-decoder that a run of ours trained on pairs, the task's own metrics are told beside
them: those of each token given the true ones before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.config import TaskConfig, UserError, nearest
from zoo.data import Dataset
from zoo.data.sources import open_raw
from zoo.data.text import encode_text, find_text
from zoo.evaluation.examples import (
    USUAL,
    Examples,
    choose,
    make_data_config,
    read_split,
    rename_keys,
)
from zoo.evaluation.measure import BATCH_SIZE, Outputs, run_subject
from zoo.evaluation.subject import Subject, begin_as_trained, check_tokenizer
from zoo.generation import generate
from zoo.generation.prompts import crosses_over, encode_prompts
from zoo.generation.settings import Settings as GenerationSettings
from zoo.generation.writer import open_source as open_writer
from zoo.metrics import find_metrics, is_of_texts
from zoo.models import max_tokens
from zoo.models.decoder import Decoder
from zoo.pretrained import Pretrained
from zoo.pretrained.family import head_of
from zoo.use.jobs import need_tokenizer, open_source

FIELDS = {True: ("source", "target"), False: ("prompt", "completion")}  # by `crosses_over`
METRICS = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "token_f1")
SCORED = ("loss", "num_tokens", "num_correct", "num_bytes")  # of a run's own task
TASK = "generation"


def answers_in_texts(loaded: Pretrained, generation: Mapping[str, Any] | None = None) -> bool:
    """Is it an encoder-decoder that is measured by the texts it generates? One that a run trained
    on spans cut out of a text is so only where settings of generation are given."""
    recipe = loaded.card.recipe
    if not crosses_over(loaded.model) or head_of(loaded.model) != "lm":
        return False
    return recipe is None or "source" in recipe.dataset.shapes or generation is not None


def wants_texts(
    model: Any, metrics: Sequence[str] | None, generation: Mapping[str, Any] | None
) -> bool:
    """Are texts to be generated: of a decoder where a metric of texts is asked for, or settings of
    generation are given."""
    if generation is not None:
        return True
    decodes = isinstance(model, Decoder) and head_of(model) == "lm"
    return decodes and any(is_of_texts(name) for name in metrics or ())


def check_generation(loaded: Pretrained, generation: Mapping[str, Any] | None) -> None:
    """Raises UserError on settings that `zoo.generate` does not have or that make no sense, and
    where the model does not generate."""
    if generation is None:
        return
    open_writer(loaded)
    known = [f.name for f in dataclasses.fields(GenerationSettings) if f.name != "num_return"]
    for name in generation:
        if name not in known:
            raise UserError(f"generation has no setting {name!r}{nearest(name, known)}")
    generate(loaded, [], **generation)  # it checks them


def open_answering(
    loaded: Pretrained,
    task: str | None = None,
    tokenizer: Any = None,
    labels: Sequence[str] | None = None,
) -> Subject:
    """An encoder-decoder as a subject. Raises UserError on what is for models with other heads, and
    on a tokenizer that is not its own."""
    name = loaded.card.source
    for key, value in (("task", task), ("labels", labels)):
        if value is not None:
            raise UserError(f"{key}: {name} is measured by the texts that it generates")
    if tokenizer is not None:
        given = open_source(loaded, tokenizer)
        check_tokenizer(loaded, given)
        loaded = given
    need_tokenizer(loaded)
    recipe = loaded.card.recipe
    config = TaskConfig(TASK) if recipe is None else begin_as_trained(loaded, recipe.task)
    return Subject(loaded, config, recipe, (), False, tokenizer is None)


def open_pairs(
    subject: Subject,
    data: Any,
    split: str | None,
    columns: Mapping[str, Any] | None,
    keep: Sequence[str],
    length: int | None,
) -> Examples:
    """The examples with their texts as they are. Raises UserError on data that is not there or has
    no pairs of texts, and on an empty split."""
    config = make_data_config(subject, data, columns or {}, keep, length)
    try:
        if data is None:
            raw = open_raw(config)
            spec = split or next(name for name in USUAL if name in raw.splits)
            dataset = choose(raw, spec)
        else:
            dataset, spec = read_split(subject, data, config, split)
        check_fields(subject, dataset)
    except UserError as error:
        told, unclear, _ = str(error).partition("set data.columns")
        first, second = FIELDS[True]
        hint = f"--columns={first}=COLUMN,{second}=COLUMN" if unclear else ""
        raise UserError(rename_keys(told) + hint) from None
    source = dataset.splits["train"]
    return Examples(dataset.name, spec, dataset, source, dataset, (), (), ())


def check_fields(subject: Subject, dataset: Dataset) -> tuple[str, str]:
    """The fields that are read and answered. Raises UserError where they are not there."""
    fields = FIELDS[crosses_over(subject.model)]
    if find_text(dataset) != fields:
        first, second = fields
        there = ", ".join(dataset.shapes) or "none"
        raise UserError(
            f"{subject.name} generates from {first!r} what {second!r} should be; {dataset.name} "
            f"has {there}: --columns={first}=COLUMN,{second}=COLUMN"
        )
    return fields


def write_texts(
    subject: Subject,
    examples: Examples,
    rows: np.ndarray,
    generation: Mapping[str, Any] | None,
    batch_size: int | None,
    length: int | None,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """`text`, `references` and `length` (in tokens of what is read) of some rows, and lines on what
    was cut. A source that is too long loses its end, as in training."""
    loaded, (first, second) = subject.loaded, check_fields(subject, examples.data)
    found = examples.raw.take(rows)
    prompts = encode_prompts(list(found[first]), loaded.model, need_tokenizer(loaded))
    notes: tuple[str, ...] = ()
    most = length or max_tokens(loaded.model)
    if subject.recipe is not None:
        most = length or subject.length
    if crosses_over(loaded.model) and most is not None:
        long = sum(len(row) > most for row in prompts)
        prompts = [r if len(r) <= most else np.append(r[: most - 1], r[-1]) for r in prompts]
        notes = (f"{long:,} sources have more than {most:,} tokens: they are cut",) if long else ()
    size = BATCH_SIZE if batch_size is None else batch_size
    made = generate(loaded, prompts, batch_size=size, **(generation or {}))
    records = {
        "text": np.fromiter((one.text for one in made), object, len(made)),
        "references": np.fromiter(((text,) for text in found[second]), object, len(made)),
        "length": np.array([len(row) for row in prompts]),
    }
    return records, notes


def add_texts(
    subject: Subject,
    examples: Examples,
    outputs: Outputs,
    generation: Mapping[str, Any] | None,
    batch_size: int | None,
) -> Outputs:
    """A decoder's outputs with the texts that it generates after each prompt."""
    written, _ = write_texts(subject, examples, outputs.rows, generation, batch_size, None)
    return dataclasses.replace(outputs, records={**written, **outputs.records})


def run_generated(
    subject: Subject, examples: Examples, settings: Any
) -> tuple[Subject, Examples, Outputs]:
    """An encoder-decoder's texts for all examples, and of a run the task's own metrics, each where
    a metric of it is asked for."""
    names, trained = settings.metrics, scores_pairs(subject)
    fields = ("text", "references", "length", *(SCORED if trained else ()))
    find_metrics(dict.fromkeys(fields, ()), names)  # those asked for are there
    rows = np.arange(len(examples.source))
    size, length = settings.batch_size, settings.length
    outputs = Outputs({}, rows, {}, len(rows))
    if trained and (names is None or not all(map(is_of_texts, names))):
        outputs = score_pairs(subject, examples, size, length)
    if names is None or any(map(is_of_texts, names)):
        records, notes = write_texts(subject, examples, rows, settings.generation, size, length)
        examples = dataclasses.replace(examples, notes=(*examples.notes, *notes))
        outputs = dataclasses.replace(outputs, records={**records, **outputs.records})
    return subject, examples, outputs


def scores_pairs(subject: Subject) -> bool:
    """Did a run train it, whose task has metrics of its own?"""
    return subject.task.name == "seq2seq"


def score_pairs(
    subject: Subject, examples: Examples, batch_size: int | None, length: int | None
) -> Outputs:
    """What the task of a run tells of pairs, padded as in training's own evaluation."""
    assert subject.recipe is not None
    config = dataclasses.replace(subject.recipe.data, length=length or subject.length, buckets=())
    dataset = encode_text(examples.data, config, subject.tokenizer)
    encoded = dataclasses.replace(
        examples, source=dataset.splits["train"], dataset=dataset, ops=subject.recipe.ops
    )
    return run_subject(subject, encoded, batch_size)
