"""Zero-shot classification: pictures compared with the names of the data's classes (Radford et al.
2021, section 3.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.evaluation import Evaluation, Settings, describe
from zoo.evaluation.against import compare_outputs
from zoo.evaluation.examples import Examples
from zoo.evaluation.labelled import (
    find_input,
    make_examples,
    make_outputs,
    make_subject,
    name_classes,
    need_labels,
    open_tested,
    read_items,
)
from zoo.evaluation.measure import Outputs
from zoo.evaluation.subject import Subject
from zoo.models.clip import SigLIP, TwoTowers
from zoo.pretrained import Pretrained
from zoo.use.batches import BATCH_SIZE, bind
from zoo.use.jobs import Job, open_source, plan_images
from zoo.use.predict import rename
from zoo.use.zero_shot import embed_labels, fill_template, score_images

TEMPLATE = "a photo of a {}."


def run_zero_shot(
    loaded: Pretrained,
    data: Any,
    split: str | None = None,
    columns: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    batch_size: int | None = None,
) -> tuple[Subject, Examples, Outputs]:
    """CLIP or SigLIP on images with classes: of each picture a logit a class.

    The text of a class is its name, or that of `labels`, with spaces for underscores in the place
    of `{}` in the template. The cross-entropy is CLIP's own; SigLIP judges each text by itself and
    has none. Raises UserError on data that is not there or has no classes or images, and on classes
    without names.
    """
    name = loaded.card.source
    dataset, tested = open_tested(loaded, data, columns, split)
    fields = find_input(dataset, {"image"}, name)
    if not dataset.class_names and labels is None:
        raise UserError(f"{dataset.name} does not name its classes: --labels='a cat,a dog,...'")
    classes = rename(name_classes(dataset), labels, dataset.name)
    template = TEMPLATE if template is None else template
    texts = fill_template([one.replace("_", " ") for one in classes], template)
    wanted, make_feed = plan_images(loaded)
    params = loaded.params, embed_labels(loaded, texts)
    job = Job(wanted, make_feed, bind(score_images, loaded.model, params))
    source = dataset.splits["train"]
    found: dict[int, np.ndarray] = {}
    done = 0
    for items in read_items(source, fields, ""):
        for row, one in enumerate(job.run(items, batch_size or BATCH_SIZE), done):
            if one.problem is None:
                found[row] = one.output
        done += len(items)
    if not found:
        raise UserError(f"no example of {dataset.name} can be read")
    rows = np.array(list(found))
    logits = np.stack(list(found.values()))
    loss = not isinstance(loaded.model, SigLIP)
    outputs = make_outputs(logits, need_labels(source)[rows], rows, loss=loss)
    note = f"zero-shot: the text of a class is {template!r}"
    examples = make_examples(dataset, source, tested, classes, note)
    return make_subject(loaded, classes), examples, outputs


def measure_zero_shot(
    loaded: Pretrained,
    data: Any,
    split: str | None,
    labels: Sequence[str] | None,
    template: str | None,
    against: Any,
    settings: Settings,
) -> Evaluation:
    """`run_zero_shot`, and another source on the same pictures and texts."""
    size = settings.batch_size
    first = run_zero_shot(loaded, data, split, settings.columns, labels, template, size)
    found = describe(*first, settings)
    if against is None:
        return found
    other = open_source(against)
    if not isinstance(other.model, TwoTowers):
        raise UserError(f"{loaded.card.source} compares images with texts, {against} does not")
    classes = first[1].classes
    second = run_zero_shot(other, first[1].data, None, None, classes, template, size)
    compared = compare_outputs(found.measured, first, second, settings.samples)
    return dataclasses.replace(found, against=compared)
