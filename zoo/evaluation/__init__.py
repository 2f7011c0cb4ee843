"""Evaluation: what a model gets right on data that it has not seen, and how sure that number is.

`passes.py` is the one pass over a split, training's and this verb's; `subject.py` loads a model,
`examples.py` opens data for it, and around its outputs are metrics, slices and comparisons.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.config import UserError
from zoo.evaluation.against import Against, compare_outputs
from zoo.evaluation.answers import METRICS as OF_QUESTIONS
from zoo.evaluation.answers import answer_questions, tell_questions
from zoo.evaluation.classes import count_classes, tell_absent
from zoo.evaluation.examples import MADE, Examples, open_examples
from zoo.evaluation.generated import METRICS as OF_TEXTS
from zoo.evaluation.generated import (
    add_texts,
    answers_in_texts,
    check_generation,
    open_answering,
    open_pairs,
    run_generated,
    scores_pairs,
    wants_texts,
)
from zoo.evaluation.measure import Outputs, run_subject
from zoo.evaluation.result import Evaluation
from zoo.evaluation.slices import Slice, make_slices
from zoo.evaluation.subject import Subject, open_subject
from zoo.evaluation.worst import Example, find_largest
from zoo.metrics import METRICS, Interval, Metric, bootstrap_all, find_metrics, is_of_texts
from zoo.models.clip import TwoTowers
from zoo.use.jobs import open_source

__all__ = ["Against", "Evaluation", "Example", "Slice", "evaluate"]

SAMPLES = 1000  # resamplings of an interval


def evaluate(
    source: Any,
    data: Any = None,
    *,
    split: str | None = None,
    columns: Mapping[str, Any] | None = None,
    task: str | None = None,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = (),
    worst: int = 0,
    against: Any = None,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    tokenizer: Any = None,
    batch_size: int | None = None,
    length: int | None = None,
    samples: int = SAMPLES,
    generation: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Measures a trained or published model on a split of some data.

    Args:
      source: what `zoo.load_pretrained` takes, or what it returned.
      data: as `data.source`, `(inputs, labels)`, or a `Dataset`; of a run by default its own.
      split: 'test', 'train[:100]', ...; by default the first of 'test', 'val', 'train' there is.
      columns: of a table, our field -> its column, as `data.columns`; by default a run's own.
      task: of a published model whose head does not tell it.
      metrics: names; by default those that fit the task.
      by: slices: 'length' (in tokens), 'label', and columns of the data.
      worst: how many examples of the largest loss are told.
      against: another source, on the same examples.
      labels: names of the model's classes, in their order.
      template: of CLIP and SigLIP, the text of a class: by default 'a photo of a {}.'.
      tokenizer: of a source that has none, or a file of one.
      batch_size: by default a run's `train.eval_batch_size`, else 32; no number depends on it.
      length: tokens of an example, or of a text's windows; by default as many as the model takes.
      samples: resamplings of the bootstrap.
      generation: settings of `zoo.generate`, where texts are measured ({}: also a decoder's).

    A run's data goes through its evaluation's operations, tokenizer and classes, a published one's
    through its processor and tokenizer. What does not fit is a UserError of one line.
    """
    by = [by] if isinstance(by, str) else by
    metrics = [metrics] if isinstance(metrics, str) else metrics
    settings = Settings(metrics, tuple(by), worst, columns, batch_size, length, samples, generation)
    loaded = open_source(source)
    if isinstance(loaded.model, TwoTowers):
        from zoo.evaluation.zero_shot import measure_zero_shot

        loaded = open_source(loaded, tokenizer)
        return measure_zero_shot(loaded, data, split, labels, template, against, settings)
    if template is not None:
        raise UserError(f"template is for CLIP and SigLIP, {loaded.card.source} is neither")
    check_generation(loaded, generation)
    if answers_in_texts(loaded, generation):
        subject = open_answering(loaded, task, tokenizer, labels)
        return _measure_texts(subject, data, split, against, settings)
    subject = open_subject(loaded, task, tokenizer, labels)
    other = None if against is None else open_subject(against, task)
    return _measure(subject, other, data, split, settings)


def _measure_texts(
    subject: Subject, data: Any, split: str | None, against: Any, settings: Settings
) -> Evaluation:
    """An encoder-decoder by the texts that it generates, and another beside it."""
    keep = [name for name in settings.by if name not in MADE]
    examples = open_pairs(subject, data, split, settings.columns, keep, settings.length)
    theirs = None if against is None else _open_other(subject, against, settings)
    if settings.metrics is None and not all(map(scores_pairs, filter(None, (subject, theirs)))):
        settings = dataclasses.replace(settings, metrics=OF_TEXTS)
    first = run_generated(subject, examples, settings)
    found = describe(*first, settings)
    if theirs is None:
        return found
    beside = open_pairs(theirs, examples.data, None, None, (), settings.length)
    compared = compare_outputs(
        found.measured, first, run_generated(theirs, beside, settings), settings.samples
    )
    return dataclasses.replace(found, against=compared)


def _open_other(subject: Subject, against: Any, settings: Settings) -> Subject:
    """Another encoder-decoder. Raises UserError where it is none."""
    other = open_source(against)
    if not answers_in_texts(other, settings.generation or {}):
        raise UserError(f"{subject.name} is an encoder-decoder, {other.card.source} is none")
    return open_answering(other)


def observe(subject: Subject, examples: Examples, settings: Settings) -> Outputs:
    """A model's outputs, with the texts that it writes or finds where metrics are of them."""
    outputs = run_subject(subject, examples, settings.batch_size)
    if wants_texts(subject.model, settings.metrics, settings.generation):
        return add_texts(subject, examples, outputs, settings.generation, settings.batch_size)
    return dataclasses.replace(outputs, questions=answer_questions(examples, outputs))


def _measure(
    subject: Subject, other: Subject | None, data: Any, split: str | None, settings: Settings
) -> Evaluation:
    """A model with a head, and another beside it."""
    length = settings.length
    if other is not None and subject.task.name == "causal_lm" and length is None:
        length = min(subject.length, other.length)
        settings = dataclasses.replace(settings, length=length)
    keep = [name for name in settings.by if name not in MADE]
    examples = open_examples(subject, data, split, settings.columns, keep, length)
    outputs = observe(subject, examples, settings)
    found = describe(subject, examples, outputs, settings)
    if other is None:
        return found
    beside = open_examples(other, examples.data, None, length=length)
    theirs = other, beside, observe(other, beside, settings)
    mine = subject, examples, outputs
    compared = compare_outputs(found.measured, mine, theirs, settings.samples)
    notes = (*found.notes, *(f"{other.name}: {note}" for note in beside.notes))
    return dataclasses.replace(found, against=compared, notes=notes)


@dataclass(frozen=True)
class Settings:
    """The arguments of an evaluation that decide its numbers."""

    metrics: Sequence[str] | None
    by: tuple[str, ...]
    worst: int
    columns: Mapping[str, Any] | None
    batch_size: int | None
    length: int | None
    samples: int
    generation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raises UserError on what is wrong before anything is read."""
        for name, value, least in (("samples", self.samples, 1), ("worst", self.worst, 0)):
            if value < least:
                raise UserError(f"{name}={value} must be at least {least}")
        for name in self.metrics or ():
            METRICS.get(name)


def describe(
    subject: Subject, examples: Examples, outputs: Outputs, settings: Settings
) -> Evaluation:
    """All that is said of one model's outputs."""
    chosen = choose_metrics(subject, outputs, settings.metrics)
    slices = slice_outputs(examples, outputs, chosen, settings)
    return Evaluation(
        source=subject.name,
        task=subject.task.name,
        data=examples.name,
        split=examples.split,
        fingerprint=examples.dataset.fingerprint,
        num_examples=outputs.num_examples,
        metrics=measure(outputs, chosen, settings.metrics, settings.samples),
        records=outputs.records,
        rows=outputs.rows,
        classes=examples.classes,
        slices=slices,
        worst=find_largest(subject, examples, outputs, settings.worst),
        notes=(*examples.notes, *tell_rows(examples, outputs)),
        settings=dataclasses.asdict(settings),
        measured=tuple(chosen),
        questions=outputs.questions.records if outputs.questions else None,
    )


def slice_outputs(
    examples: Examples, outputs: Outputs, metrics: Sequence[Metric], settings: Settings
) -> tuple[Slice, ...]:
    """The slices, of questions where a metric is of them."""
    of_questions = [m for m in metrics if outputs.of(m) is not outputs]
    if outputs.questions and of_questions:
        examples = dataclasses.replace(examples, source=examples.raw)
        outputs, metrics = outputs.questions, of_questions
    return make_slices(examples, outputs, metrics, settings.by, settings.samples)


def choose_metrics(
    subject: Subject, outputs: Outputs, names: Sequence[str] | None
) -> Sequence[Metric]:
    """The metrics asked for, or those that fit. Raises UserError on one that does not."""
    if not outputs.records:
        if names:
            raise UserError(
                f"metrics: task {subject.task.name!r} has no method observe(params, batch), which "
                f"{names[0]!r} is made of"
            )
        return ()
    try:
        if outputs.questions is None:
            return find_metrics(outputs.records, names)
        # Those of questions first: slices are judged by the first of all.
        texts = [n for n in names if is_of_texts(n)] if names is not None else OF_QUESTIONS
        rest = None if names is None else [n for n in names if n not in texts]
        found = find_metrics(outputs.questions.records, texts)
        return [*found, *find_metrics(outputs.records, rest)]
    except UserError as error:
        raise UserError(f"metrics: {error}") from None


def measure(
    outputs: Outputs, metrics: Sequence[Metric], names: Sequence[str] | None, samples: int
) -> dict[str, Interval]:
    """Values with intervals. What the task itself tells is told as it tells it, so that it is the
    number of the run's own row."""
    made: dict[str, Interval] = {}
    if metrics:
        for table in (outputs.questions, outputs):
            mine = [m for m in metrics if outputs.of(m) is table]
            if table is not None and mine:
                found = bootstrap_all(mine, table.records, samples=samples)
                made |= {m.name: i for m, i in zip(mine, found, strict=True)}
    for name, value in outputs.values.items():
        if name in made:
            made[name] = Interval(value, made[name].low, made[name].high)
        elif names is None:
            made[name] = Interval(value, math.nan, math.nan)
    return made


def tell_rows(examples: Examples, outputs: Outputs) -> tuple[str, ...]:
    """Lines on examples and classes that are not there."""
    lines = []
    if outputs.questions is not None:
        lines.append(tell_questions(outputs.questions, outputs.num_examples))
    missing = len(examples.source) - outputs.num_examples
    if missing:
        lines.append(f"{missing:,} of {len(examples.source):,} examples are broken, passed over")
    if examples.classes and "label" in outputs.records:
        counts = count_classes(outputs.records["label"], len(examples.classes))
        lines += tell_absent(counts, examples.classes)
    if examples.classes and "labels" in outputs.records:
        lines += tell_absent(outputs.records["labels"].sum(axis=0), examples.classes)
    return tuple(lines)
