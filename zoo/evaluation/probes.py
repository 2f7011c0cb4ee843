"""What frozen features are worth: the vectors of `zoo.embed` told apart by simple classifiers.

They are made once of a training split and a test split; no weight of the model is learned.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zoo.config import UserError, nearest
from zoo.data import Dataset, Source
from zoo.evaluation import SAMPLES, Evaluation, Settings, describe
from zoo.evaluation.against import compare_outputs
from zoo.evaluation.examples import Examples
from zoo.evaluation.labelled import (
    find_input,
    make_examples,
    make_outputs,
    make_subject,
    name_classes,
    need_labels,
    open_labelled,
    read_items,
)
from zoo.evaluation.measure import Outputs
from zoo.evaluation.result import FewShot, Shots
from zoo.evaluation.subject import Subject
from zoo.metrics import METRICS, find_metrics
from zoo.pretrained import Pretrained
from zoo.use.batches import BATCH_SIZE
from zoo.use.embed import Embedder, make_embedder
from zoo.use.jobs import open_source

NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the votes, as in DINO (Caron et al. 2021)
DRAWS = 5


@dataclass(frozen=True)
class Features:
    """Vectors `[n, d]` and labels `[n]` of a split; `rows` are their places in it."""

    vectors: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    def take(self, chosen: np.ndarray) -> Features:
        """Some of them."""
        return Features(self.vectors[chosen], self.labels[chosen], self.rows[chosen])


def probe(
    source: Any,
    data: Any = None,
    kind: Literal["knn", "linear"] = "knn",
    *,
    train_split: str | None = None,
    split: str | None = None,
    columns: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = (),
    against: Any = None,
    pooling: str | None = None,
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
    samples: int = SAMPLES,
) -> Evaluation:
    """Measures a classifier on the frozen features of a model.

    'knn' is a vote of the 20 nearest by cosine, weighted by exp(cosine / 0.07) (Caron et al. 2021);
    'linear' is scikit-learn's logistic regression (C = 1) on features of mean 0 and deviation 1.

    Args:
      source: what `zoo.embed` takes: models of images, texts and rows of numbers.
      data: images, texts or rows with classes, as in `zoo.evaluate`; of a run by default its own.
      train_split: what the classifier learns from, by default 'train'.
      split: what it is measured on, by default 'test', else 'val'.
      columns, metrics, by, against, samples: as in `zoo.evaluate`.
      pooling, tokenizer, batch_size: as in `zoo.embed`.

    Raises UserError on data of another kind or without classes, and on splits that overlap.
    """
    if kind not in ("knn", "linear"):
        raise UserError(f"kind={kind!r} is unknown{nearest(kind, ('knn', 'linear'))}")
    for name in metrics or ():
        METRICS.get(name)  # an unknown one is an error before anything is read
    how = {"pooling": pooling, "tokenizer": tokenizer, "batch_size": batch_size}
    opened = _open(source, data, train_split, split, columns, **how)
    first = _run(opened, kind)
    by = (by,) if isinstance(by, str) else tuple(by)
    settings = Settings(metrics, by, 0, columns, batch_size, None, samples)
    found = describe(*first, settings)
    if against is None:
        return found
    other = _open(against, opened.data, None, None, None, **how)
    compared = compare_outputs(found.measured, first, _run(other, kind), samples)
    return dataclasses.replace(found, against=compared)


def _run(opened: _Opened, kind: str) -> tuple[Subject, Examples, Outputs]:
    fit = vote if kind == "knn" else fit_linear
    test, classes = opened.test, opened.classes
    logits = fit(opened.train, test.vectors, len(classes))
    outputs = make_outputs(logits, test.labels, test.rows, loss=kind == "linear")
    note = f"{kind}: a classifier on the frozen features of {len(opened.train.labels):,} examples"
    examples = make_examples(opened.data, opened.data.splits["test"], opened.split, classes, note)
    return make_subject(opened.loaded, classes), examples, outputs


def few_shot(
    source: Any,
    data: Any = None,
    shots: Sequence[int] = (1, 5, 10),
    *,
    draws: int = DRAWS,
    seed: int = 0,
    train_split: str | None = None,
    split: str | None = None,
    columns: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    pooling: str | None = None,
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
) -> FewShot:
    """`probe` by logistic regression on few examples a class, drawn `draws` times from `seed`.

    Raises UserError also on a class with fewer examples than that.
    """
    if draws < 1 or not shots or min(shots) < 1:
        raise UserError(f"shots={list(shots)} and draws={draws} must be at least 1")
    for name in metrics or ():
        METRICS.get(name)  # an unknown one is an error before anything is read
    opened = _open(source, data, train_split, split, columns, pooling, tokenizer, batch_size)
    rows = []
    for count in shots:
        found = []
        for draw in range(draws):
            generator = np.random.default_rng([seed, count, draw])
            some = opened.train.take(_draw(opened.train.labels, count, opened.classes, generator))
            logits = fit_linear(some, opened.test.vectors, len(opened.classes))
            records = make_outputs(logits, opened.test.labels, opened.test.rows, loss=True).records
            found.append({m.name: m.value(records) for m in find_metrics(records, metrics)})
        values = {name: np.array([one[name] for one in found]) for name in found[0]}
        deviation = {k: float(v.std(ddof=1)) if draws > 1 else 0.0 for k, v in values.items()}
        rows.append(Shots(count, {k: float(v.mean()) for k, v in values.items()}, deviation))
    name, number = opened.loaded.card.source, len(opened.test.labels)
    return FewShot(name, opened.data.name, opened.split, number, draws, tuple(rows))


@dataclass(frozen=True)
class _Opened:
    """A source, its data, and the features of both splits."""

    loaded: Pretrained
    data: Dataset
    split: str
    classes: tuple[str, ...]
    train: Features
    test: Features


def _open(
    source: Any,
    data: Any,
    train_split: str | None,
    split: str | None,
    columns: Mapping[str, Any] | None,
    pooling: str | None,
    tokenizer: Any,
    batch_size: int,
) -> _Opened:
    loaded = open_source(source, tokenizer)
    embedder = make_embedder(loaded, pooling)
    dataset, name = open_labelled(loaded, data, columns, train_split, split)
    takes = {job.wanted.takes: key for key, job in embedder.jobs.items()}
    fields = find_input(dataset, set(takes), loaded.card.source)
    key = takes.get("text" if fields[0].startswith("text") else fields[0], "")  # type: ignore[call-overload]
    train, test = (
        embed_split(embedder, dataset.splits[part], fields, key, batch_size)
        for part in ("train", "test")
    )
    if len(np.unique(train.labels)) < 2:
        raise UserError(f"{dataset.name}: the training split has fewer than two classes")
    classes = name_classes(dataset)
    return _Opened(loaded, dataset, name, classes, train, test)


def embed_split(
    embedder: Embedder, source: Source, fields: tuple[str, ...], takes: str, batch_size: int
) -> Features:
    """Vectors of length 1 of all examples that can be read."""
    vectors: list[np.ndarray] = []
    rows: list[int] = []
    done = 0
    for items in read_items(source, fields, takes):
        for row, made in enumerate(embedder.stream(items, batch_size), done):
            if made.problem is None:
                vectors.append(made.vector)
                rows.append(row)
        done += len(items)
    if not rows:
        raise UserError("no example of the split can be read")
    return Features(np.stack(vectors), need_labels(source)[rows], np.array(rows))


def vote(train: Features, vectors: np.ndarray, classes: int) -> np.ndarray:
    """Logarithms of the shares `[n, c]` of the nearest neighbours' votes."""
    from sklearn.neighbors import KNeighborsClassifier

    def weigh(distance: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp((1 - distance) / TEMPERATURE))

    nearest_ones = KNeighborsClassifier(
        min(NEIGHBOURS, len(train.labels)), metric="cosine", algorithm="brute", weights=weigh
    ).fit(train.vectors, train.labels)
    with np.errstate(divide="ignore"):
        share = np.log(nearest_ones.predict_proba(vectors))
    return _spread_classes(share, nearest_ones.classes_, classes)


def fit_linear(train: Features, vectors: np.ndarray, classes: int) -> np.ndarray:
    """Log-probabilities `[n, c]` of a logistic regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 1,000 steps are near enough
        model.fit(train.vectors.astype(np.float64), train.labels)
    found = model.predict_log_proba(vectors.astype(np.float64))
    return _spread_classes(found, model.classes_, classes)


def _spread_classes(found: np.ndarray, known: np.ndarray, classes: int) -> np.ndarray:
    """Columns of all classes; one that was not learned has the probability 0."""
    out = np.full((len(found), classes), -np.inf)
    out[:, known] = found
    return out


def _draw(
    labels: np.ndarray, count: int, classes: Sequence[str], generator: np.random.Generator
) -> np.ndarray:
    chosen = []
    for label in np.unique(labels):
        rows = np.nonzero(labels == label)[0]
        if len(rows) < count:
            raise UserError(
                f"shots={count}: class {classes[label]!r} has {len(rows)} examples to learn from"
            )
        chosen.append(generator.choice(rows, count, replace=False))
    return np.concatenate(chosen)
