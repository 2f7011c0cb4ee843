"""From a config to the parts of a run: data, model, task, optimizer, programs."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zoo.config import Config, UserError, nearest
from zoo.data import (
    AtLength,
    Dataset,
    Op,
    Source,
    SubsetSource,
    TrainStream,
    choose_ops,
    open_dataset,
    read_eval,
)
from zoo.evaluation.in_training import check_metrics
from zoo.models import MODELS, check_lora, create_model, make_lora, model_fields
from zoo.models.attention import Attend, choose_attend
from zoo.models.encoder import POOLED
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.optim import check_steps, make_optimizer, make_schedule
from zoo.parallel import DATA_AXES, local_rows, make_mesh
from zoo.pretrained.bridge import our_leaves
from zoo.pretrained.load import Opened, change_model
from zoo.tasks import TASKS, make_task
from zoo.train.compile import Programs
from zoo.train.labels import check_labels
from zoo.train.start import (
    PRETRAINED,
    Start,
    choose_tokenizer,
    make_start,
    open_source,
    takes_embedding,
)


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    config: Config
    dataset: Dataset
    model: nn.Module
    task: Any
    stream: TrainStream
    eval_ops: tuple[Op, ...]
    eval_rows: slice
    eval_batch_size: int
    schedule: Any
    programs: Programs
    start: Start | None = None  # of `init_from`


def build(config: Config, dataset: Dataset | None = None) -> Parts:
    """Builds all parts, the cheap checks first. Raises UserError on what does not fit together."""
    head = getattr(TASKS.get(config.task.name), "head", None)
    find_factory(config.model.name)
    make_optimizer(config.optim, config.train.num_steps)  # its mistakes before any data is read
    check_steps(config.optim, config.train)
    check_lora(config.model.lora)
    schedule = jax.jit(make_schedule(config.optim, config.train.num_steps))
    mesh = make_mesh(config.parallel)
    num_shares = int(np.prod([mesh.shape[axis] for axis in DATA_AXES]))
    micro = config.train.batch_size // config.optim.num_microbatches
    local_rows(micro, num_shares, _batch_key(config))
    rows = local_rows(config.train.batch_size, num_shares, "train.batch_size")

    opened = None if config.init_from is None else open_source(config.init_from, head)
    if dataset is None:
        dataset = open_dataset(config.data, choose_tokenizer(config, opened))
    dataset = check_labels(dataset)
    if config.train.eval_every_steps and "val" not in dataset.splits:
        raise UserError(
            f"train.eval_every_steps={config.train.eval_every_steps} needs a 'val' split: "
            "set data.validation_fraction"
        )
    ops, eval_ops = choose_ops(config.data, dataset)
    stream = TrainStream(
        dataset.splits["train"],
        ops,
        config.train.batch_size,
        config.train.num_steps,
        config.train.steps_per_call,
        config.seed,
        rows,
        config.data.skip_broken,
    )
    try_images(config, dataset, ops, eval_ops)
    shorter, batch = plan_shapes(config, dataset.splits["train"], ops)
    _check_hidden_tokens(config, dataset, batch)
    attend = choose_attend(mesh.devices.flat[0].platform)
    model = build_model(config, dataset, batch, attend, opened)
    start = None if opened is None else make_start(config, opened, model, dataset)
    model, frozen = add_lora(config, model, start)
    task = make_task(config.task, {"model": model}, dataset)
    # Padding fills it up to a multiple of the devices: any size works, every example counts once.
    unit = int(np.lcm(num_shares, jax.process_count()))
    eval_batch_size = -(-config.train.eval_batch_size // unit) * unit
    programs = Programs(config, task, mesh, batch, shorter, frozen)
    check_metrics(config, task, programs.abstract_state.params, batch)
    return Parts(
        config,
        dataset,
        model,
        task,
        stream,
        eval_ops,
        local_rows(eval_batch_size, num_shares, "train.eval_batch_size"),
        eval_batch_size,
        schedule,
        programs,
        start,
    )


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


def _check_hidden_tokens(config: Config, dataset: Dataset, batch: dict[str, Any]) -> None:
    """Raises UserError where the next token is to be predicted in rows that `mask_tokens` or
    `corrupt_spans` made."""
    made = batch.keys() - dataset.shapes.keys()
    if config.task.name == "causal_lm" and made & {"targets", "target"}:
        raise UserError(
            f"task.name='causal_lm' predicts the next token, and data.transform="
            f"{config.data.transform!r} hides tokens: leave that out, or name a task of your own"
        )


def _batch_key(config: Config) -> str:
    parts = config.optim.num_microbatches
    return "train.batch_size" if parts == 1 else f"train.batch_size / {parts} microbatches"


def try_images(
    config: Config, dataset: Dataset, ops: tuple[Op, ...], eval_ops: tuple[Op, ...]
) -> None:
    """Runs a few images of each split through its operations.

    Raises UserError on images of several sizes, and where those of evaluation are not of the size
    trained on.
    """
    if "image" not in dataset.shapes:
        return
    shapes = {}
    for split in sorted(dataset.splits, key=lambda split: split != "train"):
        source = dataset.splits[split]
        key = "data.transform" if split == "train" else "data.eval_transform"
        few = SubsetSource(source, np.unique(np.linspace(0, len(source) - 1, 4).astype(int)))
        # A broken one is told of when its turn comes.
        stream = TrainStream(few, ops, len(few), 1, skip_broken=True)
        batches = read_eval(few, eval_ops, len(few), skip_broken=True)
        try:
            images = stream[0]["image"][0] if split == "train" else next(batches)["image"]
            shapes[split] = images.shape[1:]
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
        if shapes[split] != shapes["train"]:
            raise UserError(
                f"{key}: images of split {split!r} become {_show_size(shapes[split])}, those of "
                f"'train' {_show_size(shapes['train'])}"
            )


def _show_size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def batch_specs(source: Source, ops: tuple[Op, ...], batch_size: int) -> dict[str, Any]:
    """Shapes and dtypes of a global batch, from one real example."""
    example = TrainStream(source, ops, 1, 1, skip_broken=True).read(0, 1)
    return {
        name: jax.ShapeDtypeStruct(
            (batch_size, *x.shape[2:]), jax.dtypes.canonicalize_dtype(x.dtype)
        )
        for name, x in example.items()
        if name != "broken"
    }


def plan_shapes(
    config: Config, source: Source, ops: tuple[Op, ...]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The shapes of the training batches: of shorter buckets, where there are any, and the
    longest."""
    size = config.train.batch_size
    if not config.data.buckets:
        return [], batch_specs(source, ops, size)
    *shorter, longest = (batch_specs(AtLength(source, n), ops, size) for n in config.data.buckets)
    return shorter, longest


def build_model(
    config: Config,
    dataset: Dataset,
    batch: dict[str, Any],
    attend: Attend,
    opened: Opened | None = None,
) -> nn.Module:
    """The model of the config; what it leaves open (classes, input shape, vocabulary, head) the
    data and the task say, and `attend` is the attention of the platform.

    `opened` is the source of `init_from`: the model 'pretrained' is its own, with these changes.
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
    known |= choose_head(config, fields, getattr(task, "head", None))
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
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x), inputs)
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
    if cls in (Seq2Seq, Transformer):
        raise UserError(
            f"model.name={name!r}: no task trains a {cls.__name__} yet; zoo.load_pretrained and "
            "model.apply use one"
        )
    return cls


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
) -> tuple[jax.ShapeDtypeStruct, dict[str, Any]]:
    """One input of the model, and the fields that follow from it.

    Raises UserError when the model is for another kind of data.
    """
    if "tokens" in batch:
        if "vocab_size" not in fields:
            raise UserError(f"model {name!r} takes no text, {dataset.name} is text")
        length = batch["tokens"].shape[-1] - ("token_mask" not in batch)
        known = {"vocab_size": dataset.tokenizer.vocab_size}
        return jax.ShapeDtypeStruct((1, length), np.int32), known
    if "source" in batch:
        raise UserError(f"{dataset.name} is pairs of texts: no task trains on them yet")
    if "vocab_size" in fields:
        raise UserError(f"model {name!r} takes text, {dataset.name} is none")
    shape = batch["image"].shape[1:] if "image" in batch else batch["features"].shape[1:]
    known = {"input_shape": shape}
    if len(shape) == 3:
        known |= {"image_size": shape[:2], "num_channels": shape[2]}
    elif "image_size" in fields:
        raise UserError(
            f"model {name!r} takes images, {dataset.name} has rows of {shape[0]} numbers"
        )
    return jax.ShapeDtypeStruct((1, *shape), np.float32), known


def eval_batches(parts: Parts, split: str) -> Any:
    """Host batches of a split, every example once."""
    source = parts.dataset.splits[split]
    return read_eval(
        source,
        parts.eval_ops,
        parts.eval_batch_size,
        parts.eval_rows,
        skip_broken=parts.config.data.skip_broken,
    )
