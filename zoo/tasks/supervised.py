"""What classification and regression share: one model from inputs to outputs, labels beside."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError


def argument(default: Any) -> Any:
    """A task's field that a config may set in `task.arguments`."""
    return dataclasses.field(default=default, metadata={"argument": True})


def find_input(batch: Mapping[str, Any]) -> str:
    """The field of a batch that is the model's input: images, features of table rows, or texts.

    Raises UserError when it has none of them.
    """
    text = ("tokens",) if "token_mask" in batch else ()
    found = next((name for name in ("image", "features", *text) if name in batch), None)
    if found is None:
        raise UserError(
            f"the task takes images, features or rows of text, the data has {', '.join(batch)}"
        )
    return found


def refuse_annotated(info: Any, name: str) -> None:
    """Raises UserError where what is to be told is of tokens, places or choices, which is another
    task's than `name`."""
    shapes = getattr(info, "shapes", None) or {}
    other = "token_classification" if "token_label" in shapes else ""
    other = other or ("span" if "start" in shapes else "")
    other = other or ("multiple_choice" if len(shapes.get("tokens", ())) == 2 else "")
    if other:
        raise UserError(f"task.name={name!r}: {info.name} is for the task {other!r}")


def check_outputs(model: Any, count: int, name: str, what: str) -> None:
    """Raises UserError on a model of zoo's own with other than `count` outputs, `what` of them the
    data `name` has."""
    for field in ("num_classes", "num_outputs"):
        found = getattr(model, field, count)
        if isinstance(found, int) and found != count:
            raise UserError(
                f"model.arguments.{field}={found}: {name} has {count} {what} (leave it out)"
            )


def init_model(model: nn.Module, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters of a model that says its own input shapes."""
    inputs = [jnp.zeros(spec.shape, spec.dtype) for spec in model.input_specs()]  # type: ignore[attr-defined]
    return model.init(key, *inputs)["params"]


def apply_model(
    model: nn.Module, params: Any, batch: Mapping[str, Any], key: jax.Array | None, **more: Any
) -> Any:
    """(outputs, aux) of any model on a batch; with a key in training mode, dropout on.

    Of texts the model is told which tokens are real and, where it has several sentence types, which
    of two texts each is of; of packed documents which is which. `more` is told as well.
    """
    if "token_mask" in batch:
        more["mask"] = batch["token_mask"]
        more |= {name: batch[name] for name in ("segments", "positions") if name in batch}
        if "types" in batch and getattr(model, "num_types", 0) > 1:
            more["types"] = batch["types"]
    return call_model(model, params, batch[find_input(batch)], key, **more)


def run_model(model: nn.Module, params: Any, inputs: Any, key: jax.Array | None) -> Any:
    """Outputs of a model; with a key in training mode, dropout on."""
    return call_model(model, params, inputs, key)[0]


def call_model(
    model: nn.Module, params: Any, inputs: Any, key: jax.Array | None, **more: Any
) -> Any:
    """(outputs, aux) of a model; with a key in training mode, dropout on."""
    if key is None:
        return model.apply({"params": params}, inputs, **more)
    return model.apply({"params": params}, inputs, train=True, rngs={"dropout": key}, **more)


def score_classes(
    logits: jax.Array, targets: jax.Array, batch: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The sums `loss`, `correct` and `weight` of logits and targets `[b, c]` over the real rows;
    correct is where the largest logit is that of `label`."""
    mask = batch["mask"].astype(jnp.float32)
    losses = optax.softmax_cross_entropy(logits, targets) * mask
    correct = (logits.argmax(-1) == batch["label"]) * mask
    return {"loss": losses.sum(), "correct": correct.sum(), "weight": mask.sum()}


def mean_sums(sums: Mapping[str, Any], **fields: str) -> dict[str, float]:
    """Each metric as its field of `sums` by their weight."""
    return {name: float(sums[field] / sums["weight"]) for name, field in fields.items()}
