"""What a family is to the bridge: its config read and written, its heads, its key table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from zoo.config import UserError, nearest
from zoo.pretrained.bridge import LINEAR, Row, Table
from zoo.pretrained.safetensors_file import Tensors

# Their names of activations -> ours. 'gelu_new', 'gelu_fast' and 'gelu_pytorch_tanh' are one form.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
THEIR_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}


class TheirConfig:
    """A config.json; every value that matters is asked for by its key."""

    def __init__(self, values: Mapping[str, Any], place: str):
        self.values, self.place = values, place

    def get(self, key: str, default: Any, kind: type | None = None) -> Any:
        """A value; `default`, transformers' own, where the file is silent.

        Raises UserError on one of another kind than the default (`kind`, where that is None), and
        on a number that is none: whole ones are sizes, 1 or more.
        """
        value = self.values.get(key)
        if value is None:
            return default
        kind = kind or type(default)
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{self.place}: {key}={value!r} should be of type {kind.__name__}")
        if kind is int and not 1 <= value < 2**31:
            raise UserError(f"{self.place}: {key}={value} should be a size, 1 or more")
        if kind is float and not 0 <= value < math.inf:
            raise UserError(f"{self.place}: {key}={value} should be a number, 0 or more")
        return kind(value)

    def only(self, key: str, *allowed: Any) -> None:
        """Raises UserError when the file sets a key to what our model cannot do."""
        value = self.values.get(key, allowed[0])
        if value not in allowed:
            raise UserError(
                f"{self.place}: {key}={value!r} is not supported, "
                f"only {' or '.join(map(repr, allowed))}"
            )

    def activation(self, key: str, default: str) -> str:
        """Our name of an activation of theirs."""
        name = self.get(key, default)
        if name not in ACTIVATIONS:
            raise UserError(f"{self.place}: no activation {name!r}{nearest(name, ACTIVATIONS)}")
        return ACTIVATIONS[name]

    def num_labels(self) -> int:
        """Classes of a classifier: 2 where the file is silent, as in transformers."""
        return len(self.get("id2label", {})) or self.get("num_labels", 2)


@dataclass(frozen=True)
class Family:
    """One file format: a family of transformers' models, and our model class for it."""

    name: str  # `model_type` in config.json
    model_class: type
    heads: Mapping[str, str]  # `architectures` in config.json -> our head
    # (config, head, tensors) -> fields of our model
    read_config: Callable[[TheirConfig, str, Tensors], dict[str, Any]]
    # model -> config.json, without model_type and architectures
    write_config: Callable[[Any], dict[str, Any]]
    # (model, names in the file; None: as transformers writes them) -> the table
    make_table: Callable[[Any, list[str] | None], Table]

    def find_heads(self, config: TheirConfig, asked: str | None = None) -> list[str]:
        """Our heads that the file may have: the one that config.json names. Where it names none,
        as the oldest files, or one we lack and a head is asked for, all: the keys will tell.

        Raises UserError on an architecture that we lack.
        """
        named = config.get("architectures", [])
        known = [head for architecture, head in self.heads.items() if architecture in named]
        if known:
            return known[:1]
        if named and asked is None:
            names = ", ".join(self.heads)
            raise UserError(f"{config.place}: architectures={named!r} names none of {names}")
        return sorted(dict.fromkeys(self.heads.values()), key=lambda head: head != asked)

    def architecture(self, model: nn.Module) -> str:
        """The class of transformers for a model of ours."""
        head = head_of(model)
        return next(a for a, h in self.heads.items() if h == head)


def head_of(model: Any) -> str:
    """The head a model has, by name."""
    if hasattr(model, "head"):
        return model.head
    if not getattr(model, "num_classes", 0):
        return "none"
    return "distilled" if getattr(model, "distillation", "") == "head" else "classification"


def find_prefix(prefix: str, head: str, names: list[str] | None) -> str:
    """What the keys of the body begin with: nothing where a model was saved without its head."""
    if names is None:
        return "" if head == "none" else prefix
    return prefix if any(name.startswith(prefix) for name in names) else ""


def decoder_head(model: Any, embedding: str) -> tuple[Row, dict[str, str]]:
    """The row of a decoder's head, and the copy of the embedding that a tied one may be."""
    name = "score.weight" if model.head == "sequence" else "lm_head.weight"
    tied = model.head == "lm" and model.tied
    return Row(name, "head/kernel", LINEAR), {"lm_head.weight": embedding} if tied else {}


def make_labels(num_classes: int) -> dict[str, Any]:
    """The keys by which config.json tells the number of classes."""
    names = [f"LABEL_{i}" for i in range(num_classes)]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
