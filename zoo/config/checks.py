"""Which values and combinations of a config cannot be."""

from __future__ import annotations

import dataclasses
import re

from zoo.config.schema import Config, DataConfig, UserError


def check_config(config: Config) -> Config:
    """Returns the config, or raises UserError on a value or combination that cannot be."""
    c = config
    _require_positive(config)
    _check_start(config)
    batch, parts = c.train.batch_size, c.optim.num_microbatches
    if batch % parts:
        raise UserError(
            f"train.batch_size={batch} is not divisible by optim.num_microbatches={parts} "
            f"(nearest: {max(batch // parts, 1) * parts} or {(batch // parts + 1) * parts})"
        )
    if not 0 <= c.data.validation_fraction < 1:
        raise UserError(f"data.validation_fraction={c.data.validation_fraction} is not in [0, 1)")
    if not 0 <= c.data.test_fraction < 1 - c.data.validation_fraction:
        raise UserError(
            f"data.test_fraction={c.data.test_fraction} must be at least 0 and, with "
            "data.validation_fraction, below 1"
        )
    if c.data.mixture and c.data.source not in ("", DataConfig().source):
        raise UserError(
            f"data.mixture takes the place of data.source={c.data.source!r}: set one of the two "
            "(data.source='' is none)"
        )
    if c.data.fold and not (0 <= c.data.fold[0] < c.data.fold[1] >= 2):
        raise UserError(f"data.fold={c.data.fold}: (i, n) needs 0 <= i < n, n at least 2")
    _check_attention(config)
    _check_buckets(config)
    if c.optim.warmup_steps > c.train.num_steps:
        raise UserError(
            f"optim.warmup_steps={c.optim.warmup_steps} is more than "
            f"train.num_steps={c.train.num_steps}"
        )
    if c.optim.ema_decay is not None and not 0 <= c.optim.ema_decay < 1:
        raise UserError(f"optim.ema_decay={c.optim.ema_decay} is not in [0, 1)")
    if not 0 < c.optim.layer_decay <= 1:
        raise UserError(f"optim.layer_decay={c.optim.layer_decay} is not in (0, 1]")
    span = c.log.profile_steps
    if span and not 0 <= span[0] < span[1]:
        raise UserError(f"log.profile_steps={span}: (a, b) needs 0 <= a < b")
    share = c.parallel.gpu_memory_share
    if share is not None and not 0 < share <= 1:
        raise UserError(f"parallel.gpu_memory_share={share} is not in (0, 1]")
    axes = dataclasses.asdict(c.parallel)
    open_axes = [a for a, size in axes.items() if size == -1]
    if len(open_axes) > 1:
        raise UserError(f"parallel: only one axis may be -1, here {' and '.join(open_axes)} are")
    shared = [a for a in ("fsdp", "tensor", "context", "expert") if axes[a] != 1]
    if c.parallel.backend == "pmap" and shared:
        raise UserError(
            f"parallel.backend='pmap' shares the batch alone: set parallel.{shared[0]}=1, not "
            f"{axes[shared[0]]}"
        )
    _check_evaluation(config)
    return config


def _check_evaluation(config: Config) -> None:
    """What asks for evaluations during training, where there are none."""
    c = config
    best = c.checkpoint.best_metric
    if best and not best.startswith("val/"):
        raise UserError(
            f"checkpoint.best_metric={best!r} is no metric of the validation split "
            f"(did you mean {'val/' + best.rsplit('/', 1)[-1]!r}?)"
        )
    if best and not c.train.eval_every_steps:
        raise UserError(f"checkpoint.best_metric={best!r} needs train.eval_every_steps")
    if c.train.patience is not None and not c.train.eval_every_steps:
        raise UserError(f"train.patience={c.train.patience} needs train.eval_every_steps")
    saves, evals = c.checkpoint.every_steps, c.train.eval_every_steps
    if c.checkpoint.best_metric and saves and evals and saves % evals:
        raise UserError(
            f"checkpoint.every_steps={saves} must be a multiple of train.eval_every_steps={evals} "
            "for checkpoint.best_metric to be known when a checkpoint is saved"
        )


def _check_start(config: Config) -> None:
    pattern = config.init_pattern
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f"init_pattern={pattern!r} is no regex: {error}") from None
    if config.init_from is not None:
        return
    if pattern:
        raise UserError(f"init_pattern={pattern!r} needs init_from: the source it takes a part of")
    if config.model.name == "pretrained":
        raise UserError("model.name='pretrained' needs init_from: the weights it is the model of")
    twin = config.data.source.startswith("synthetic:")
    if config.data.tokenizer == "init_from" and not twin:
        raise UserError("data.tokenizer='init_from' needs init_from: the weights it lies beside")


def _check_attention(config: Config) -> None:
    if config.model.attention != "cudnn":
        return
    if config.model.dtype == "float32":
        raise UserError("model.attention='cudnn' needs model.dtype='bfloat16' or 'float16'")
    if config.train.num_seeds > 1:
        raise UserError(
            "model.attention='cudnn' cannot train several seeds at once: train.num_seeds=1, or "
            "model.attention='auto'"
        )


def _check_buckets(config: Config) -> None:
    buckets, length = config.data.buckets, config.data.length
    if not buckets:
        return
    if buckets[0] < 1 or list(buckets) != sorted(set(buckets)) or buckets[-1] != length:
        raise UserError(f"data.buckets={buckets} must grow from at least 1 to data.length={length}")
    if config.train.num_seeds > 1:
        raise UserError(
            f"data.buckets needs train.num_seeds=1, not {config.train.num_seeds}: batches of "
            "different lengths are no one step (data.buckets=() pads all to data.length)"
        )
    if config.train.steps_per_call > 1:
        raise UserError(
            f"data.buckets needs train.steps_per_call=1, not {config.train.steps_per_call}: steps "
            "of different lengths are no one call"
        )


_MAY_BE_ZERO = {
    "num_workers", "learning_rate", "warmup_steps", "weight_decay", "l1", "l2", "ema_decay",
    "validation_fraction", "test_fraction", "seed", "num_steps", "unfreeze_every_steps",
    "process_id",
}  # fmt: skip


def _require_positive(config: Config) -> None:
    """Counts are at least 1, rates at least 0; a mesh axis may be -1."""
    for group_name in (f.name for f in dataclasses.fields(config)):
        group = getattr(config, group_name)
        values = vars(group) if dataclasses.is_dataclass(group) else {group_name: group}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if group_name == "parallel" and value == -1:
                continue
            low = 0 if name in _MAY_BE_ZERO else 1 if isinstance(value, int) else 0
            if not value >= low or (low == 0 and value == float("inf")):
                path = name if group is value else f"{group_name}.{name}"
                raise UserError(f"{path}={value} must be a number of at least {low}")
