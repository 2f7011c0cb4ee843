"""Parts of texts: answers to questions, and words with tags.

An answer is a piece of the context; its score is the probability of its first token times that of
its last, each a softmax over the context and the first token of all, which stands for 'no answer'
(as in SQuAD's baselines: Devlin et al. 2019). Tagged tokens of one kind that follow each other are
one span, begun anew by a tag 'B-'; its score is the mean of its tokens'; 'O' is no tag. A run has
learned the tags of whole words: there blanks divide a text into words, each with the tag of its
first token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.config import UserError
from zoo.data.annotated import number_words
from zoo.data.tokenizers import PlacedTokens
from zoo.pretrained import Pretrained
from zoo.pretrained.family import head_of
from zoo.pretrained.recipe import Recipe
from zoo.tasks import make_task
from zoo.use.batches import Item, bind
from zoo.use.jobs import Job, find_longest, plan_recipe, plan_texts
from zoo.use.predict import (
    Fields,
    Predictor,
    label_names,
    predict_task,
    rename,
    run_names,
)
from zoo.use.predictions import Span

LONGEST_ANSWER = 15  # tokens


def make_span_reader(
    loaded: Pretrained, top: int | None, labels: Sequence[str] | None
) -> Predictor:
    """Of a head 'span' or 'token'."""
    model: Any = loaded.model
    wanted, make_feed = plan_texts(loaded)
    wanted = dataclasses.replace(wanted, pairs=head_of(model) == "span")
    longest, tokenizer = find_longest(model), loaded.tokenizer
    if not hasattr(tokenizer, "places"):
        raise UserError(f"{loaded.card.source}: its tokenizer does not tell where its tokens stand")
    job = Job(wanted, make_feed, bind(run_tokens, model, loaded.params))
    if head_of(model) == "span":
        if labels is not None:
            raise UserError(f"{loaded.card.source} answers questions: it has no labels")

        def answer(item: Item, output: np.ndarray) -> Fields:
            offsets, owners = tokenizer.places(item.content, longest)
            return {"spans": find_answers(item.content[1], output, offsets, owners, top or 5)}

        return Predictor(job, answer)
    names = rename(label_names(loaded, model.num_classes), labels, loaded.card.source)

    def tag(item: Item, output: np.ndarray) -> Fields:
        offsets, owners = tokenizer.places(item.content, longest)
        return {"spans": find_tagged(item.content, output, offsets, owners, names)}

    return Predictor(job, tag)


def make_run_reader(
    loaded: Pretrained, recipe: Recipe, top: int | None, labels: Sequence[str] | None
) -> Predictor:
    """Of a run of the task 'span' or 'token_classification', by that task."""
    name, dataset = loaded.card.source, recipe.dataset
    wanted, make_feed = plan_recipe(loaded, recipe)
    length, tokenizer = dataset.shapes["tokens"][-1], dataset.tokenizer
    task = make_task(recipe.task, {"model": loaded.model}, dataset)
    job = Job(wanted, make_feed, bind(predict_task, task, loaded.params))
    if recipe.task.name == "span":
        if labels is not None:
            raise UserError(f"{name} answers questions: it has no labels")

        def answer(item: Item, output: np.ndarray) -> Fields:
            row = place_tokens(tokenizer, item.content, length)
            logits = to_logits(output)
            return {
                "spans": find_answers(item.content[1], logits, row.places, row.owners, top or 5)
            }

        return Predictor(job, answer)
    names = rename(run_names(loaded.model, dataset), labels, name)

    def tag(item: Item, output: np.ndarray) -> Fields:
        words = item.content.split(" ")
        numbers = number_words(words, place_tokens(tokenizer, item.content, length))
        first = np.flatnonzero(numbers)
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        places = np.stack([ends - [len(word) for word in words], ends], axis=1)
        which, logits = numbers[first] - 1, to_logits(output[first])
        return {
            "spans": find_tagged(item.content, logits, places[which], np.zeros_like(first), names)
        }

    return Predictor(job, tag)


def to_logits(chances: np.ndarray) -> np.ndarray:
    """Whose softmax the probabilities are."""
    return np.log(np.maximum(chances, np.finfo(np.float32).tiny))


def place_tokens(tokenizer: Any, content: Any, length: int) -> PlacedTokens:
    """Where the tokens of a text or pair stand in a row of `length`, as `encode_rows` cuts it."""
    (row,) = tokenizer.encode_placed([content])
    if len(row) <= length:
        return row
    if hasattr(tokenizer, "places"):
        places, owners = tokenizer.places(content, length)
        return PlacedTokens(np.zeros(len(owners), np.int32), owners, places, 0)
    return PlacedTokens(row.ids[:length], row.owners[:length], row.places[:length], row.mark)


def run_tokens(model: Any, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Logits `[b, t, ...]`."""
    more = {"types": batch["types"]} if "types" in batch else {}
    variables = {"params": params}
    return model.apply(variables, batch["tokens"], mask=batch["token_mask"], **more)[0]


def find_answers(
    context: str, logits: np.ndarray, offsets: np.ndarray, owners: np.ndarray, top: int
) -> tuple[Span, ...]:
    """The likeliest pieces of the context; `logits` `[t, 2]` of being first and last."""
    logits = logits[: len(owners)].astype(np.float64)
    inside = owners == 1
    counted = inside.copy()
    counted[0] = True
    shifted = np.where(counted[:, None], logits - logits[counted].max(axis=0), -np.inf)
    chances = np.exp(shifted)
    chances /= chances.sum(axis=0)
    chances[~inside] = 0
    scores = np.triu(np.outer(chances[:, 0], chances[:, 1]))
    scores = scores - np.triu(scores, LONGEST_ANSWER)
    best = np.argsort(-scores, axis=None, kind="stable")[:top]
    spans = []
    for first, last in zip(*np.unravel_index(best, scores.shape), strict=True):
        if scores[first, last] <= 0:
            break
        start, end = int(offsets[first, 0]), int(offsets[last, 1])
        spans.append(Span(context[start:end], float(scores[first, last]), start, end))
    return tuple(spans)


def find_tagged(
    text: str,
    logits: np.ndarray,
    offsets: np.ndarray,
    owners: np.ndarray,
    names: Sequence[str],
) -> tuple[Span, ...]:
    """The tagged pieces of a text, in its order; `logits` `[t, c]`."""
    logits = logits[: len(owners)].astype(np.float64)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    groups: list[tuple[str, list[int]]] = []
    before = -2
    for place in np.flatnonzero(owners == 0).tolist():
        name = names[int(chances[place].argmax())]
        begins, kind = name.startswith("B-"), name[2:] if name[:2] in ("B-", "I-") else name
        if groups and before == place - 1 and groups[-1][0] == kind and not begins:
            groups[-1][1].append(place)
        else:
            groups.append((kind, [place]))
        before = place
    spans = []
    for kind, places in groups:
        if kind == "O":
            continue
        start, end = int(offsets[places[0], 0]), int(offsets[places[-1], 1])
        score = float(chances[places].max(axis=1).mean())
        spans.append(Span(text[start:end], score, start, end, kind))
    return tuple(spans)
