"""The logit lens (nostalgebraist 2020): what each layer would answer if it were the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.explanation.probe import give_stacks, keep_stacks
from zoo.explanation.result import Lens, Part
from zoo.explanation.subject import Subject

RANKS = 5


def check_lens(subject: Subject) -> None:
    """Raises UserError on a model without an output matrix."""
    if subject.head not in ("tokens", "classes") or not hasattr(subject.model, "depth"):
        head = getattr(subject.model, "head", None)
        told = f" (head {head!r})" if isinstance(head, str) else ""
        raise UserError(
            f"the lens needs an output matrix, and this {type(subject.model).__name__}{told} has "
            "none of classes or tokens"
        )


@dataclass(frozen=True)
class Layers:
    """The best answers of each layer at each place, the embedding's first and the model's own
    last: `[layers + 1, places, ranks]`, and the probability of the model's own first answer."""

    indices: np.ndarray
    probabilities: np.ndarray
    followed: np.ndarray  # `[layers + 1, places]`


def read_layers(subject: Subject, ranks: int = RANKS) -> tuple[np.ndarray, Layers]:
    """The model's outputs, and each layer's stream read through its own last norm and head.

    Raises UserError on a model without an output matrix.
    """
    check_lens(subject)

    @jax.jit
    def run(params: Any, inputs: Any) -> Any:
        """The outputs; then of every stream its best answers, and the share of the model's own."""
        with keep_stacks() as kept:
            outputs, _ = subject.apply(params, inputs)
        first, (_, aux) = kept[-1]  # of encoder and decoder the latter
        others = [result for _, result in kept[:-1]]
        streams = jnp.concatenate([first[None].astype(aux["hidden"].dtype), aux["hidden"]])
        answer = outputs.argmax(-1)

        def read(stream: Any) -> Any:
            with give_stacks([*others, (stream, dict(aux))]):
                logits, _ = subject.apply(params, inputs)
            chances = jax.nn.softmax(logits, axis=-1)
            values, indices = jax.lax.top_k(chances, min(ranks, logits.shape[-1]))
            followed = jnp.take_along_axis(chances, answer[..., None], axis=-1)[..., 0]
            return indices, values, followed

        return outputs, jax.lax.map(read, streams)

    outputs, found = run(subject.params, subject.inputs)
    # [layers, b, ...] with b of one; of a classifier there is one place.
    indices, values, followed = (np.asarray(x) for x in found)
    shape = (len(indices), -1, indices.shape[-1])
    layers = Layers(indices.reshape(shape), values.reshape(shape), followed.reshape(shape[:2]))
    return np.asarray(outputs, np.float32), layers


def explain_lens(subject: Subject, found: Layers) -> list[Part]:
    """`lens`: the first answers of every layer at every place."""
    indices = found.indices
    layers = ("embedding", *(f"layer {i + 1}" for i in range(len(indices) - 1)))
    if subject.head == "classes":
        places: tuple[str, ...] = (subject.axes[next(iter(subject.inputs))].name,)
    else:
        places = subject.axes[subject.text].words
    ids = subject.ids(subject.text) if subject.is_vocabulary else []
    named: dict[tuple[int, int], str] = {}

    def name(index: int, place: int) -> str:
        if not subject.is_vocabulary:
            return subject.name_class(index)
        key = (index, ids[place])
        if key not in named:
            named[key] = subject.name_token(index, place)
        return named[key]

    words = tuple(
        tuple(tuple(name(int(i), p) for i in row) for p, row in enumerate(layer))
        for layer in indices
    )
    title = "Answers of the layers"
    parts = (found.probabilities, found.followed)
    return [Lens("lens", title, layers, places, words, *parts)]
