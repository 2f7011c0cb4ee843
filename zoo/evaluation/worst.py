"""The examples with the largest loss, as a person can look them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.sources import name_example
from zoo.evaluation.examples import Examples
from zoo.evaluation.measure import Outputs
from zoo.evaluation.passes import Records
from zoo.evaluation.subject import Subject
from zoo.metrics import find_metrics

SHOWN = 200  # characters of a text


@dataclass(frozen=True)
class Example:
    """One example: its place in the split, where it is from, its loss, what is right, what the
    model says (of classes with its probability), and the beginning of its text."""

    index: int
    name: str
    loss: float
    label: str = ""
    prediction: str = ""
    probability: float | None = None
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is empty."""
        return {k: v for k, v in vars(self).items() if v not in ("", None)}


def find_largest(
    subject: Subject, examples: Examples, outputs: Outputs, count: int
) -> tuple[Example, ...]:
    """The `count` examples of the largest loss, the largest first; of a text by the token, of texts
    that were generated, without one, by 1 - token F1."""
    records = outputs.records
    if not count or not {"loss", "text"} & set(records):
        return ()
    if "loss" in records:
        losses = np.asarray(records["loss"], np.float64)
    else:
        losses = 1 - find_metrics(records, ["token_f1"])[0].statistics(records)[:, 0]  # type: ignore[attr-defined]
    if "num_tokens" in records:
        losses = losses / np.maximum(records["num_tokens"], 1)
    order = np.argsort(-np.where(np.isnan(losses), np.inf, losses), kind="stable")[:count]
    return tuple(
        Example(
            int(outputs.rows[i]),
            tell_name(examples, int(outputs.rows[i])),
            float(losses[i]),
            **tell_answer(examples, outputs, int(i)),
            text=tell_text(subject, examples, int(outputs.rows[i])),
        )
        for i in order
    )


def tell_name(examples: Examples, row: int) -> str:
    """The file (and line), or which example or window of the split it is."""
    if examples.is_corpus:
        return f"window {row}"
    return name_example(examples.raw, examples.raw_row(row))


def tell_answer(examples: Examples, outputs: Outputs, i: int) -> dict[str, Any]:
    """What is right and what the model says."""
    records = outputs.records
    if "labels" in records:
        sides = records["labels"][i] > 0, records["logits"][i] > 0
        names = examples.classes or tuple(map(str, range(len(sides[0]))))
        shown = (
            ", ".join(name for name, has in zip(names, side, strict=True) if has) for side in sides
        )
        return dict(zip(("label", "prediction"), (x or "(none)" for x in shown), strict=True))
    if "logits" in records:
        logits = np.asarray(records["logits"][i], np.float64)
        chances = np.exp(logits - logits.max())
        best = int(logits.argmax())
        names = examples.classes or tuple(map(str, range(len(logits))))
        return {
            "label": names[int(records["label"][i])],
            "prediction": names[best],
            "probability": float(chances[best] / chances.sum()),
        }
    if "prediction" in records:
        return {
            "label": _show_numbers(records["target"][i]),
            "prediction": _show_numbers(records["prediction"][i]),
        }
    if outputs.questions is not None:
        question = np.searchsorted(outputs.questions.rows, examples.raw_row(int(outputs.rows[i])))
        return tell_texts(outputs.questions.records, int(question))
    return tell_texts(records, i) if "text" in records else {}


def tell_texts(records: Records, i: int) -> dict[str, Any]:
    """A text that is right and the one that the model wrote."""
    right = records["references"][i]
    shown = (_begin(right[0] if right else ""), _begin(records["text"][i]))
    return dict(zip(("label", "prediction"), (text or "(none)" for text in shown), strict=True))


def _show_numbers(values: Any) -> str:
    return ", ".join(f"{x:.6g}" for x in np.ravel(values))


def tell_text(subject: Subject, examples: Examples, row: int) -> str:
    """The beginning of an example's text; '' of what is none."""
    if examples.is_corpus:
        tokens = examples.source.take(np.array([row]))["tokens"][0]
        return _begin(subject.tokenizer.decode(tokens.tolist()))
    found = examples.raw.take(np.array([examples.raw_row(row)]))
    texts = []
    for values in found.values():
        first = values[0]
        if isinstance(first, str):
            texts.append(first)
        elif isinstance(first, list | tuple) and all(isinstance(x, str) for x in first):
            texts.append(" ".join(first))
    return _begin(" | ".join(texts))


def _begin(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."
