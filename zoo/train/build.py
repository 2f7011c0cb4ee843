"""From a config to the parts of a run: data, model, task, optimizer, programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zoo.config import Config, UserError
from zoo.data import (
    AtLength,
    Dataset,
    Op,
    Source,
    StackedStream,
    SubsetSource,
    TrainStream,
    choose_ops,
    open_dataset,
    read_eval,
)
from zoo.evaluation.in_training import check_metrics
from zoo.models import check_lora
from zoo.models.kernels import FORMS, UNDIVIDED, choose_attend, with_attention
from zoo.optim import check_steps, make_optimizer, make_schedule
from zoo.parallel import count_shares, local_rows, make_mesh, share_context
from zoo.tasks import TASKS, make_task
from zoo.train.companions import Beside, build_companions
from zoo.train.compile import Programs
from zoo.train.fields import check_fields
from zoo.train.labels import check_labels
from zoo.train.models import add_lora, build_model, find_factory
from zoo.train.replicas import check_alone
from zoo.train.seeds import list_seeds
from zoo.train.start import (
    Start,
    begin_as_source,
    choose_tokenizer,
    make_start,
    open_source,
)


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    config: Config
    dataset: Dataset
    model: nn.Module
    task: Any
    plain_task: Any  # with plain attention, whose products can be counted
    stream: TrainStream | StackedStream  # of several seeds
    eval_ops: tuple[Op, ...]
    eval_rows: slice | np.ndarray
    eval_batch_size: int
    schedule: Any
    programs: Programs
    beside: Beside
    start: Start | None = None  # of `init_from`


def build(
    config: Config, dataset: Dataset | None = None, devices: Sequence[Any] | None = None
) -> Parts:
    """Builds all parts, the cheap checks first, for all devices or those given, which may be of a
    machine that is not there. Raises UserError on what does not fit together."""
    head = getattr(TASKS.get(config.task.name), "head", None)
    _check_alone(config)
    schedule = jax.jit(make_schedule(config.optim, config.train.num_steps))
    mesh = make_mesh(config.parallel, devices)
    num_shares = count_shares(mesh)
    micro = config.train.batch_size // config.optim.num_microbatches
    local_rows(micro, mesh, _batch_key(config))
    rows = local_rows(config.train.batch_size, mesh, "train.batch_size")

    opened = None if config.init_from is None else open_source(config.init_from, head)
    if dataset is None:
        dataset = open_dataset(config.data, choose_tokenizer(config, opened))
    dataset = check_labels(dataset)
    _check_validation(config, dataset)
    ops, eval_ops = choose_ops(config.data, dataset)
    stream = make_stream(config, dataset.splits["train"], ops, rows)
    try_images(config, dataset, ops, eval_ops)
    shorter, batch = plan_shapes(config, dataset.splits["train"], ops)
    check_fields(config, dataset, batch, eval_ops)
    several = config.train.num_seeds > 1
    attend = choose_attend(mesh.devices.flat[0], config.model.attention, several)
    undivided = attend in UNDIVIDED and config.parallel.backend == "jit"
    attend = share_context(attend, mesh, config.parallel.context_attention, undivided)
    model = build_model(config, dataset, batch, attend, opened)
    start = None if opened is None else make_start(config, opened, model, dataset)
    model, frozen = add_lora(config, model, start)
    beside = build_companions(config, dataset, batch, attend)
    settings = begin_as_source(config.task, opened)
    models = {"model": model, **beside.models}
    task = make_task(settings, models, dataset)
    plain_task = task
    if attend is not FORMS["plain"]:
        plain = {name: with_attention(one, FORMS["plain"]) for name, one in models.items()}
        plain_task = make_task(settings, plain, dataset)
    if config.parallel.backend == "pmap":
        check_alone(task)
    # Padding fills it up to a multiple of the devices: any size works, every example counts once.
    eval_batch_size = -(-config.train.eval_batch_size // num_shares) * num_shares
    programs = Programs(config, task, mesh, batch, shorter, frozen)
    check_metrics(config, task, programs.abstract_params, batch)
    return Parts(
        config,
        dataset,
        model,
        task,
        plain_task,
        stream,
        eval_ops,
        local_rows(eval_batch_size, mesh, "train.eval_batch_size"),
        eval_batch_size,
        schedule,
        programs,
        beside,
        start,
    )


def make_stream(
    config: Config, source: Source, ops: tuple[Op, ...], rows: slice | np.ndarray
) -> TrainStream | StackedStream:
    """The training data, of several seeds each in its own order."""
    streams = tuple(
        TrainStream(
            source,
            ops,
            config.train.batch_size,
            config.train.num_steps,
            config.train.steps_per_call,
            seed,
            rows,
            config.data.skip_broken,
        )
        for seed in list_seeds(config)
    )
    return StackedStream(streams) if len(streams) > 1 else streams[0]


def _check_alone(config: Config) -> None:
    """Raises UserError on the mistakes of a config that show before any data is read."""
    find_factory(config.model.name)
    make_optimizer(config.optim, config.train.num_steps)
    check_steps(config.optim, config.train)
    check_lora(config.model.lora)


def _check_validation(config: Config, dataset: Dataset) -> None:
    """Raises UserError where a run is to be evaluated and there is nothing to do it on."""
    if config.train.eval_every_steps and "val" not in dataset.splits:
        raise UserError(
            f"train.eval_every_steps={config.train.eval_every_steps} needs a 'val' split: "
            "set data.validation_fraction"
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
