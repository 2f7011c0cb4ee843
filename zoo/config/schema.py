"""Every key a run can have: type, default, meaning."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

CACHE = "~/.cache/zoo"  # where prepared data and compiled programs are kept by default
Remat = Literal["none", "full", "dots", "offload"]


class UserError(Exception):
    """A mistake of the user's: one line that says what, where and the nearest right answer.

    The command line prints the message alone and leaves with exit code 2.
    """


class DataError(UserError):
    """A mistake that lies in the data, not in the command: what `zoo data check` looks for."""


def nearest(word: str, choices: Iterable[str], what: str = "did you mean") -> str:
    """Returns ' (did you mean ...?)' for the closest choice, or lists the choices when none is."""
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f" ({what} {close[0]!r}?)"
    return f" (choose from: {', '.join(sorted(choices))})" if 0 < len(choices) <= 12 else ""


def _key(default: Any, meaning: str, *, decides: bool = True) -> Any:
    """A field of a group. `decides=False`: a resume may change it, no arithmetic depends on it."""
    metadata = {"meaning": meaning, "decides": decides}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """Which model: a name of `zoo.list_models()`, or `my_module:MyModel`."""

    name: str = _key(
        "mlp", "name of a model, 'pretrained' (that of init_from), or 'module:Class' of your own"
    )
    arguments: dict[str, Any] = _key({}, "fields of the model that differ from its table row")
    lora: dict[str, Any] = _key(
        {}, "train corrections of init_from's model: rank, alpha, targets (regex), dropout"
    )
    scan_layers: bool = _key(False, "one compiled block scanned over stacked layers")
    remat: Remat = _key(
        "none",
        "what the backward pass computes again: nothing, all, all but matrix products (dots), "
        "which offload keeps in the host's memory",
    )
    attention: Literal["auto", "plain", "xla", "cudnn", "splash"] = _key(
        "auto",
        "auto: plain on a CPU, cudnn on a GPU in half precision without masks, splash on a TPU for "
        "long rows, else xla; or one of these by force",
        decides=False,
    )
    dtype: Literal["float32", "bfloat16", "float16"] = _key(
        "float32", "arithmetic inside the model"
    )
    param_dtype: Literal["float32", "bfloat16"] = _key("float32", "how parameters are stored")


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from and what happens to them on the way."""

    source: str = _key(
        "embedded:digits",
        "embedded:NAME, files:NAME, folder:PATH, text:PATTERN, csv:, tsv:, jsonl:, parquet:, npz: "
        "with FILES, tfds:NAME, hf:NAME, gettext:NAME, synthetic:SOURCE, or 'module:function' of "
        "your own",
    )
    mixture: dict[str, float | int] = _key({}, "source -> weight, in place of data.source")
    columns: dict[str, Any] = _key(
        {}, "of a table: our field -> its column (or columns), where they are not inferred"
    )
    folder: str | None = _key(
        None, "folder of published files (default: the variable ZOO_DATA)", decides=False
    )
    cache: str | None = _key(
        None,
        f"where prepared data and compiled programs are kept (default: {CACHE})",
        decides=False,
    )
    train_split: str = _key("train", "split to train on, also sliced as in TFDS: 'train[:90%]'")
    val_split: str | None = _key(None, "split to validate on (default: 'val'; '': none)")
    test_split: str | None = _key(
        None,
        "split to test on (default: 'test', of tfds 'validation' if that is missing; '': none)",
    )
    validation_fraction: float = _key(0.0, "part of the training examples held out as 'val'")
    test_fraction: float = _key(0.0, "part of the training examples held out as 'test'")
    fold: tuple[int, int] | None = _key(None, "(i, n): test on part i of n of all examples instead")
    transform: str = _key("", "operations on training examples, 'shift(2)|normalize(0.5, 0.5)'")
    eval_transform: str | None = _key(
        None, "operations on evaluation examples (default: transform without its random ones)"
    )
    skip_broken: bool = _key(
        False, "count and name images that cannot be decoded instead of stopping", decides=False
    )
    tokenizer: str = _key(
        "bytes",
        "of text: bytes, chars, gpt2, learned: bpe:N, wordpiece:N, unigram:N, or a file: "
        "tokenizer.json, vocab.txt, a SentencePiece .model, or a folder with one; init_from: the "
        "one beside the weights",
    )
    length: int = _key(256, "tokens of text an example")
    stride: int | None = _key(
        None,
        "tokens from one training window of text to the next (default: length), or from one window "
        "of a question's context to the next (default: half of what fits)",
    )
    packing: bool = _key(False, "whole documents side by side in rows of data.length tokens")
    buckets: tuple[int, ...] = _key(
        (), "padded lengths, the last data.length: a batch's examples are of one bucket"
    )
    num_workers: int = _key(0, "worker processes that read ahead (0: a thread)", decides=False)
    prefetch: int = _key(2, "calls of training data read ahead", decides=False)


@dataclass(frozen=True)
class TaskConfig:
    """What is learned."""

    name: str = _key("classification", "name of a task, or 'module:Class' of your own")
    arguments: dict[str, Any] = _key({}, "fields of the task that differ from their defaults")
    models: dict[str, dict[str, Any]] = _key(
        {}, "models beside the one that trains: 'teacher' -> {name, arguments, init_from}"
    )


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, schedule, decay, clipping, accumulation and averaging."""

    name: str = _key("adamw", "optimizer, by its Optax name; zoo/optim/optimizers.py lists them")
    learning_rate: float = _key(
        1e-3, "peak learning rate; multiplies the step of an optimizer that finds its own"
    )
    arguments: dict[str, Any] = _key({}, "further arguments of the Optax optimizer")
    schedule: str = _key(
        "constant",
        "after the warm-up: constant, linear, cosine, step, inverse_square_root, "
        "warmup_stable_decay or slanted_triangular",
    )
    schedule_arguments: dict[str, Any] = _key({}, "further arguments, e.g. final=0.1 (of the peak)")
    warmup_steps: int = _key(0, "steps of linear warm-up from 0")
    weight_decay: float = _key(0.0, "decoupled decay, multiplied by the learning rate")
    decay_pattern: str = _key(
        "kernel$", "regex of the parameter paths that decay, l1 and l2 act on"
    )
    rules: tuple[tuple[str, dict[str, Any]], ...] = _key(
        (),
        "(regex of canonical paths, {learning_rate: x, weight_decay: x, frozen: bool, from_step: "
        "n}): the first that matches a path decides; the two x multiply",
    )
    layer_decay: float = _key(
        1.0, "the learning rate is multiplied by this once for each layer down from the head"
    )
    unfreeze_every_steps: int = _key(
        0, "what is above the layers trains first, one layer more each time (0: all at once)"
    )
    l1: float = _key(0.0, "l1 * sum |w| is added to the loss that is minimised")
    l2: float = _key(0.0, "l2 / 2 * sum w^2 is added to the loss that is minimised")
    clip_norm: float | None = _key(None, "gradients are scaled to at most this global norm")
    num_microbatches: int = _key(1, "gradients of this many parts of a batch are accumulated")
    ema_decay: float | None = _key(None, "exponential average of the parameters, used to evaluate")


@dataclass(frozen=True)
class TrainConfig:
    """How long, in what portions, and when to evaluate."""

    batch_size: int = _key(64, "examples a step, over all devices and hosts")
    num_steps: int = _key(1000, "optimizer steps")
    steps_per_call: int = _key(1, "steps in one dispatch of the compiled loop", decides=False)
    eval_every_steps: int | None = _key(
        None, "evaluate on 'val' this often (default: at the end only)", decides=False
    )
    patience: int | None = _key(
        None,
        "end after this many evaluations without a better checkpoint.best_metric (default: "
        "val/loss) than the best, which is what the run then gives",
        decides=False,
    )
    eval_batch_size: int = _key(256, "examples an evaluation batch", decides=False)
    metrics: tuple[str, ...] = _key(
        (), "further metrics of every evaluation, beside the task's own", decides=False
    )
    num_seeds: int = _key(
        1,
        "trains the seeds `seed`, `seed + 1`, ... in one compiled step, each as its own run would",
    )


@dataclass(frozen=True)
class ParallelConfig:
    """The device mesh. One of the axes may be -1: all devices that remain."""

    data: int = _key(-1, "devices that share the batch", decides=False)
    fsdp: int = _key(1, "devices that share the batch and the parameters", decides=False)
    tensor: int = _key(1, "devices that share each matrix product", decides=False)
    context: int = _key(1, "devices that share the tokens of a sequence", decides=False)
    expert: int = _key(
        1, "devices that share the batch and the experts of a mixture", decides=False
    )
    backend: Literal["jit", "pmap"] = _key(
        "jit", "jit: shardings by the table; pmap: the step on each device's rows", decides=False
    )
    context_attention: Literal["gather", "ring"] = _key(
        "gather",
        "over `context` keys and values are gathered whole, or sent round a part at a time",
        decides=False,
    )
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = _key(
        (), "(path regex, mesh axis of each dimension) tried before the table", decides=False
    )
    coordinator: str | None = _key(
        None, "HOST:PORT of process 0, where no launcher says it", decides=False
    )
    num_processes: int | None = _key(
        None, "processes of the job, where no launcher says it", decides=False
    )
    process_id: int | None = _key(
        None, "this process, from 0, where no launcher says it", decides=False
    )
    join_seconds: int = _key(
        300, "how long all processes are waited for at the start", decides=False
    )
    heartbeat_seconds: int = _key(
        100, "a process that is silent for so long is lost, and the others stop", decides=False
    )
    gpu_memory_share: float | None = _key(
        None, "part of each GPU's memory that jax takes, in (0, 1] (default: jax's)", decides=False
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep. The last step is always saved."""

    every_steps: int | None = _key(None, "save this often", decides=False)
    keep_last: int = _key(2, "newest checkpoints kept", decides=False)
    keep_every_steps: int | None = _key(
        None, "checkpoints at multiples of this stay", decides=False
    )
    best_metric: str | None = _key(
        None, "also keep the best by this metric, e.g. 'val/accuracy'", decides=False
    )
    best_mode: Literal["max", "min"] = _key("max", "whether more or less is better", decides=False)
    extend: bool = _key(
        False, "resume although train.num_steps has grown: the schedule stretches", decides=False
    )


@dataclass(frozen=True)
class LogConfig:
    """What is told, where and how often."""

    every_steps: int = _key(50, "a train row sums the steps since the last multiple", decides=False)
    progress: bool = _key(True, "a live line on the console", decides=False)
    tensorboard: bool = _key(True, "TensorBoard events in the workdir", decides=False)
    picture: bool = _key(True, "curves.png in the workdir", decides=False)
    wandb: str | None = _key(None, "Weights & Biases project that gets the rows", decides=False)
    profile_steps: tuple[int, int] | None = _key(
        None, "(a, b): a profiler trace of steps a+1 to b", decides=False
    )


@dataclass(frozen=True)
class Config:
    """A recipe: everything that decides a run."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    init_from: str | None = _key(
        None,
        "where the parameters begin: a run's workdir, a folder or file of published weights, "
        "package:NAME, or OWNER/NAME on the hub",
    )
    init_pattern: str = _key("", "regex of the parameter paths that init_from gives (default: all)")
    seed: int = _key(0, "seed of parameters, dropout, order and augmentation")


def shorten(buckets: tuple[int, ...], length: int) -> tuple[int, ...]:
    """Buckets up to another length."""
    return (*(b for b in buckets if b < length), length) if buckets else ()


def quick(config: Config) -> Config:
    """Returns the recipe as a few steps on the synthetic twin of its data: a first look, or CI.

    A named model begins at random, without the weights of `init_from`.
    """

    def twin(source: str) -> str:
        return source if source.startswith("synthetic:") else f"synthetic:{source}"

    source, mixture = config.data.source, config.data.mixture
    replace = dataclasses.replace
    if config.model.name != "pretrained":
        model = replace(config.model, lora={})
        config = replace(config, init_from=None, init_pattern="", model=model)
    return replace(
        config,
        data=replace(
            config.data,
            source=source if mixture else twin(source),
            mixture={twin(name): weight for name, weight in mixture.items()},
            length=min(config.data.length, 32),
            buckets=shorten(config.data.buckets, min(config.data.length, 32))[-2:],
            num_workers=0,
        ),
        train=replace(
            config.train,
            num_steps=4,
            batch_size=8 * config.optim.num_microbatches,
            eval_batch_size=16,
            steps_per_call=min(config.train.steps_per_call, 2),
            eval_every_steps=2 if config.train.eval_every_steps else None,
        ),
        optim=replace(
            config.optim,
            warmup_steps=min(config.optim.warmup_steps, 2),
            unfreeze_every_steps=min(config.optim.unfreeze_every_steps, 1),
        ),
        checkpoint=replace(config.checkpoint, every_steps=None),
        log=replace(config.log, every_steps=2),
    )
