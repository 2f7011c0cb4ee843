"""The model that a run trains: what the config leaves open, the data and the task say."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zoo.config import Config, UserError, nearest
from zoo.data import Dataset
from zoo.models import CLASSES, MODELS, create_model, make_lora, model_fields
from zoo.models.attention import Attend
from zoo.models.clip import TwoTowers
from zoo.models.encoder import POOLED
from zoo.models.mae import MAE
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.pretrained.bridge import our_leaves
from zoo.pretrained.load import Opened, change_model
from zoo.tasks import TASKS
from zoo.train.start import PRETRAINED, Start, takes_embedding

PAIRS = (Seq2Seq, Transformer)  # take a source and a target
SIDES = ("source", "target")


def add_lora(
    config: Config, model: nn.Module, start: Start | None
) -> tuple[nn.Module, frozenset[str]]:
    """The model with the corrections of `model.lora`, and the canonical paths that stay as they
    are: of all leaves those that do not begin anew. Raises UserError as `make_lora` does."""
    if not config.model.lora:
        return model, frozenset()
    if start is None:
        raise UserError("model.lora corrects a trained model: set init_from")
    return make_lora(model, config.model.lora), frozenset(our_leaves(model)) - start.fresh


def build_model(
    config: Config,
    dataset: Dataset,
    batch: dict[str, Any],
    attend: Attend,
    opened: Opened | None = None,
    head: str | None = None,
) -> nn.Module:
    """The model of the config; what it leaves open (classes, input shape, vocabulary, head) the
    data and the task say, and `attend` is the attention of the platform.

    `opened` is the source of `init_from`: the model 'pretrained' is its own, with these changes.
    `head` is that of a model beside the one that is trained.
    """
    name = config.model.name
    cls = find_class(config, opened)
    fields = model_fields(cls)
    given = dict(config.model.arguments)
    for key in ("dtype", "param_dtype", "scan_layers", "remat"):
        value, default = getattr(config.model, key), getattr(type(config.model)(), key)
        if key in fields:
            given.setdefault(key, value)
        elif value != default:
            raise UserError(f"model.{key}={value!r}: {name} has no such field")
    task = TASKS.get(config.task.name)
    outputs = task.num_outputs(dataset)  # type: ignore[attr-defined]
    inputs, known = describe_inputs(name, fields, dataset, batch)
    known |= {"num_classes": outputs, "num_outputs": outputs, "attend": attend}
    known |= choose_head(config, fields, head or getattr(task, "head", None))
    if opened is not None and "vocab_size" in known and takes_embedding(config, opened):
        # A published table may have more places than the tokenizer has tokens.
        known["vocab_size"] = max(known["vocab_size"], getattr(opened.model, "vocab_size", 0))
    for key, value in known.items():
        if key in fields:
            given.setdefault(key, value)
    unknown = [k for k in given if k not in fields]
    if unknown:
        raise UserError(f"model.arguments.{unknown[0]} is unknown{nearest(unknown[0], fields)}")
    _check_vocabulary(config, dataset, given)
    if name == PRETRAINED and opened is not None:
        model = change_model(opened.model, None, given, f"model.name={name!r}")
    else:
        model = create_model(name, **given)
    # A wrong size or width fails here, before anything runs.
    more = more_inputs(model, batch)
    jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x), *inputs, *more)
    return model


def find_factory(name: str) -> Callable[..., Any] | None:
    """What makes a named model; None of 'pretrained'. Raises UserError with the nearest name."""
    if name == PRETRAINED:
        return None
    if ":" not in name and difflib.get_close_matches(name, [PRETRAINED], cutoff=0.8):
        raise UserError(f"no model {name!r} (did you mean {PRETRAINED!r}?)")
    return MODELS.get(name)


def find_class(config: Config, opened: Opened | None) -> type:
    """The class of the model. Raises UserError on one that no task trains, and where 'pretrained'
    has no model to be."""
    name = config.model.name
    made = find_factory(name)
    if made is None:
        model = None if opened is None else opened.model
        if model is None:
            raise UserError(
                f"model.name='pretrained': init_from={config.init_from!r} does not tell its model; "
                "name your own class"
            )
        cls = type(model)
    else:
        cls = made if isinstance(made, type) else type(made())
    check_kind(name, cls, config.task.name)
    return cls


def check_kind(name: str, cls: type, task: str) -> None:
    """Raises UserError where the one of task and model is for an encoder-decoder, the other not; of
    tasks and models of the user's own nobody knows."""
    if cls in PAIRS and task != "seq2seq" and ":" not in task:
        raise UserError(
            f"model.name={name!r} is an encoder-decoder, which task.name='seq2seq' trains, "
            f"not {task!r}"
        )
    if task == "seq2seq" and cls in CLASSES.values() and cls not in PAIRS:
        raise UserError(
            f"model.name={name!r}: task.name='seq2seq' trains an encoder-decoder, such as "
            "'t5_small' or 'transformer_base'"
        )


def choose_head(config: Config, fields: dict[str, Any], head: str | None) -> dict[str, Any]:
    """The head that the task wants, of a model that can have several; with it what it reads.

    Raises UserError where the model cannot have it.
    """
    heads = typing.get_args(fields.get("head"))
    if head is None or not heads:
        return {}
    head = config.model.arguments.get("head", head)
    if head not in heads:
        raise UserError(
            f"model.name={config.model.name!r} can have the heads {', '.join(heads)}; "
            f"task.name={config.task.name!r} wants {head!r}"
        )
    return (
        {"head": head, "pooler": True} if head in POOLED and "pooler" in fields else {"head": head}
    )


def _check_vocabulary(config: Config, dataset: Dataset, given: dict[str, Any]) -> None:
    """Raises UserError when the data has tokens that the model has no place for."""
    size, places = getattr(dataset.tokenizer, "vocab_size", 0), given.get("vocab_size")
    if places is not None and size > places:
        raise UserError(
            f"data.tokenizer={config.data.tokenizer!r} has {size:,} tokens, more than "
            f"model.arguments.vocab_size={places:,} (leave that out, or set it to {size})"
        )


def describe_inputs(
    name: str, fields: dict[str, Any], dataset: Dataset, batch: dict[str, Any]
) -> tuple[tuple[jax.ShapeDtypeStruct, ...], dict[str, Any]]:
    """The inputs of the model for one example, and the fields that follow from them.

    Raises UserError when the model is for another kind of data.
    """
    towers = "text_width" in fields
    if towers and not {"image", "tokens"} <= batch.keys():
        raise UserError(
            f"model {name!r} takes images with texts, {dataset.name} gives "
            f"{', '.join(dataset.shapes)}: data.transform='...|caption' makes texts of labels"
        )
    if "tokens" in batch and "image" not in batch:
        if "vocab_size" not in fields:
            raise UserError(f"model {name!r} takes no text, {dataset.name} is text")
        length = batch["tokens"].shape[-1] - ("token_mask" not in batch)
        own = {"vocab_size": dataset.tokenizer.vocab_size}
        return (jax.ShapeDtypeStruct((1, length), np.int32),), own
    if "source" in batch:
        if "vocab_size" not in fields:
            raise UserError(f"model {name!r} takes no text, {dataset.name} is text")
        texts = (jax.ShapeDtypeStruct((1, batch[k].shape[1]), np.int32) for k in SIDES)
        return tuple(texts), {"vocab_size": dataset.tokenizer.vocab_size}
    if "vocab_size" in fields and not towers:
        raise UserError(f"model {name!r} takes text, {dataset.name} is none")
    shape = batch["image"].shape[1:] if "image" in batch else batch["features"].shape[1:]
    known: dict[str, Any] = {"input_shape": shape}
    if towers:
        known |= describe_texts(name, dataset, batch["tokens"].shape[-1])
    if len(shape) == 3:
        known |= {"image_size": shape[:2], "num_channels": shape[2]}
    elif "image_size" in fields:
        raise UserError(
            f"model {name!r} takes images, {dataset.name} has rows of {shape[0]} numbers"
        )
    return (jax.ShapeDtypeStruct((1, *shape), np.float32),), known


def describe_texts(name: str, dataset: Dataset, length: int) -> dict[str, Any]:
    """Fields of two towers that follow from texts of so many tokens; a published model has its
    places, and knows where a text ends."""
    tokenizer = dataset.tokenizer
    known = {"vocab_size": tokenizer.vocab_size}
    if name == PRETRAINED:
        return known
    ends = tokenizer.has_template and tokenizer.end is not None
    return {
        **known,
        "num_positions": length,
        **({"text_pooling": "end", "end_token": tokenizer.end} if ends else {}),
    }


def more_inputs(model: nn.Module, batch: dict[str, Any]) -> list[jax.ShapeDtypeStruct]:
    """What a model of images takes beside them: two towers the texts of the batch, a masked
    autoencoder its noise."""
    if isinstance(model, TwoTowers):
        return [jax.ShapeDtypeStruct((1, batch["tokens"].shape[-1]), np.int32)]
    return list(model.input_specs(1)[1:]) if isinstance(model, MAE) else []
