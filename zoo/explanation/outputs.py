"""Which number of a model's outputs is explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError, nearest
from zoo.explanation.result import Output
from zoo.explanation.subject import Subject
from zoo.models.clip import CLIP, SigLIP, TextTower
from zoo.models.encoder import POOLED, Encoder

MOST_PREDICTIONS = 5


@dataclass(frozen=True)
class Choice:
    """The output that is explained, how to read it off the model's outputs, and its rivals."""

    output: Output
    score: Callable[[Any], Any]  # outputs -> `[b]`
    predictions: tuple[tuple[str, float], ...]


def rows_of(subject: Subject, outputs: Any, place: int | None, end: bool = False) -> Any:
    """Rivals of one another, `[b, c]`: classes, tokens at a place, or places of a span."""
    if subject.head == "match":
        return jnp.diagonal(outputs)[:, None]
    if subject.head == "span":
        return outputs[:, :, int(end)]
    if subject.head == "choice":
        return outputs[:, None] if outputs.ndim == 1 else outputs
    if subject.head == "replaced":
        return outputs[:, place][:, None]
    return outputs if subject.head == "classes" else outputs[:, place]


def score_rows(rows: Any, index: int) -> Any:
    """The logit, less the mean of all where there are several: softmax sees no more than that."""
    return rows[:, index] - rows.mean(-1) if rows.shape[-1] > 1 else rows[:, index]


def choose_output(
    subject: Subject, outputs: np.ndarray, wanted: str | int | None, place: int | None
) -> Choice | None:
    """The output asked for, by default the model's first answer; None where the model has none, or
    a masked language model nothing to fill in.

    Raises UserError on an unknown class, what is no token, or a place beyond the text.
    """
    if subject.head == "none":
        if wanted is not None:
            raise UserError("the model has no output to choose from: it ends in a vector")
        return None
    place = _find_place(subject, outputs, place)
    if place is None and subject.head in ("tokens", "replaced"):
        if wanted is not None:
            raise UserError("which place? write the mask token in the text, or give --place")
        return None
    end = subject.head == "span" and wanted == "end"
    wanted = None if subject.head == "span" and wanted in ("start", "end") else wanted
    rows = np.asarray(rows_of(subject, outputs, place, end))
    index = int(rows[0].argmax()) if wanted is None else _find_index(subject, wanted, rows)
    name = _namer(subject, place)
    several = rows.shape[-1] > 1
    chances = np.asarray(jax.nn.softmax(rows[0])) if several else None
    predictions: tuple[tuple[str, float], ...] = ()
    if chances is not None:
        best = np.argsort(-chances, kind="stable")[:MOST_PREDICTIONS]
        predictions = tuple((name(int(i)), float(chances[i])) for i in best)
    probability = None if chances is None else float(chances[index])
    if subject.head == "replaced" or isinstance(subject.model, SigLIP):
        probability = float(jax.nn.sigmoid(rows[0, 0]))
    output = Output(
        _say_what(subject, place, end),
        name(index),
        float(score_rows(rows, index)[0]),
        probability,
        index,
        index if subject.head == "span" else place,
    )
    return Choice(output, lambda x: score_rows(rows_of(subject, x, place, end), index), predictions)


def _find_place(subject: Subject, outputs: np.ndarray, place: int | None) -> int | None:
    """The place at which an output is read; None: it is that of the whole input, or unknown."""
    if subject.head not in ("tokens", "replaced"):
        if place is not None:
            raise UserError("--place is for models with an output at each token")
        return None
    ids = subject.ids(subject.text)
    if place is not None:
        if not -len(ids) <= place < len(ids):
            raise UserError(f"--place={place}: the text has the places 0 to {len(ids) - 1}")
        return place % len(ids)
    if subject.kind == "pair" or subject.model.head == "lm":
        return len(ids) - 1
    if subject.head == "replaced":
        return int(outputs[0].argmax())
    if subject.model.head == "masked_lm":
        mask = subject.loaded.tokenizer.mask
        return ids.index(mask) if mask in ids else None
    special = subject.loaded.tokenizer.special
    return next((i for i, token in enumerate(ids) if not special[token]), 0)


def _namer(subject: Subject, place: int | None) -> Callable[[int], str]:
    if subject.is_vocabulary:
        return lambda i: subject.name_token(i, place)
    if subject.head == "span":
        words = subject.axes["tokens"].words
        return lambda i: f"{words[i].strip()} (place {i})"
    if subject.head == "match":
        return lambda i: "image and text go together"
    if subject.head == "replaced":
        return lambda i: "replaced"
    return subject.name_class


def _say_what(subject: Subject, place: int | None, end: bool) -> str:
    if subject.kind == "pair" or getattr(subject.model, "head", "") == "lm":
        last = place == len(subject.ids(subject.text)) - 1
        return "next token" if last else f"token after place {place}"
    if subject.head == "match":
        return "logit"
    if subject.head == "span":
        return "end of the answer" if end else "start of the answer"
    return "class" if place is None else f"token at place {place}"


def _find_index(subject: Subject, wanted: str | int, rows: np.ndarray) -> int:
    """A class or token by its name or number."""
    count = rows.shape[-1]
    text = str(wanted)
    if subject.is_vocabulary and not isinstance(wanted, int):
        return _find_token(subject, text)
    if subject.head not in ("classes", "tokens"):
        known = ["start", "end"] if subject.head == "span" else []
        raise UserError(f"--output={text!r} is no output of this model{nearest(text, known)}")
    names = [str(subject.name_class(i)) for i in range(count)]
    if text in names:
        return names.index(text)
    if text.isdigit() and int(text) < count:
        return int(text)
    told = nearest(text, names) or f" (give a name, or a number from 0 to {count - 1})"
    raise UserError(f"there is no class {text!r}{told}")


def _find_token(subject: Subject, text: str) -> int:
    """One token, as it stands at the beginning of a text or after a blank."""
    tokenizer = subject.loaded.tokenizer
    find = getattr(tokenizer, "find", None)
    exact = find(text) if find is not None else None
    if exact is not None:
        return exact
    for form in (text, f" {text}"):
        ids = tokenizer.encode(form)
        if len(ids) == 1:
            return int(ids[0])
    parts = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
    raise UserError(f"--output={text!r} should be one token, it is {len(parts)}: {parts}")


def read_out(subject: Subject, choice: Choice | None, pool: Any = None) -> np.ndarray:
    """How much each place of the last layer counts for what the model says, `[s]`, in sum one.

    `pool`: weights of a learned query. Where a model has no head, or its output is that of no one
    place, the mean of all.
    """
    model, place = subject.model, choice.output.place if choice is not None else None
    if subject.kind in ("image", "towers"):
        return _read_image_out(subject, pool)
    ids = np.asarray(subject.inputs[subject.text])[0]
    if isinstance(model, TextTower):
        place = find_text_place(model.pooling, model.end_token, ids)
    elif place is None and isinstance(model, Encoder) and model.head in POOLED:
        place = 0
    elif place is None and not isinstance(model, Encoder):
        place = len(ids) - 1
    return np.full(len(ids), 1 / len(ids)) if place is None else np.eye(len(ids))[place]


def read_text_tower(subject: Subject) -> np.ndarray:
    """As `read_out`, of the text beside an image."""
    model, ids = subject.model, np.asarray(subject.inputs["tokens"])[0]
    is_clip = isinstance(model, CLIP)
    place = find_text_place(model.text_pooling, model.end_token, ids) if is_clip else -1
    return np.eye(len(ids))[place]


def find_text_place(pooling: str, end_token: int, ids: np.ndarray) -> int:
    """Where a text tower is read (see `TextTower.pooling`)."""
    if pooling == "last":
        return len(ids) - 1
    return int((ids if pooling == "highest" else ids == end_token).argmax())


def _read_image_out(subject: Subject, pool: Any) -> np.ndarray:
    axis, model = subject.axes["images"], subject.model
    if pool is not None:
        return np.asarray(pool)[0].mean(0)[0]
    pooling = getattr(model, "pooling", "cls" if isinstance(model, CLIP) else "mean")
    mean = np.where(np.arange(len(axis)) >= axis.before, 1.0, 0.0)
    mean /= mean.sum()
    first = np.eye(len(axis))[0]
    return {"cls": first, "mean": mean, "cls_mean": (first + mean) / 2}.get(pooling, mean)
