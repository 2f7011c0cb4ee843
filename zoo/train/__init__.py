"""Training: `fit(config, workdir)`, from a config to a `Result`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from etils import epath

from zoo.checkpoint import Checkpoints
from zoo.config import Config, UserError
from zoo.config.checks import check_config
from zoo.console import align
from zoo.data import from_arrays, resplit
from zoo.gpu import set_memory_share
from zoo.models import CLASSES
from zoo.models.lora import LoRA, describe_targets
from zoo.parallel import tell_all
from zoo.pretrained.describe import describe_model
from zoo.pretrained.sources import MODEL_FILE, OF_SEED
from zoo.train.build import Parts, build
from zoo.train.curves import draw_curves
from zoo.train.loop import Loop, flops_per_step
from zoo.train.progress import Progress
from zoo.train.result import Result
from zoo.train.rows import NO_METRICS, read_rows
from zoo.train.seeds import list_seeds
from zoo.train.state import State
from zoo.train.stop import NonFiniteLoss, Stopped
from zoo.train.wandb_writer import require_wandb
from zoo.train.workdir import check_same_data, check_seen, claim_workdir, write_json
from zoo.tree import COMPANIONS, count_params, named_leaves, overview, own_params

__all__ = ["NonFiniteLoss", "Result", "Stopped", "fit", "read_rows"]


def fit(
    config: Config,
    workdir: Any = None,
    *,
    train: tuple[Any, Any] | None = None,
    test: tuple[Any, Any] | None = None,
) -> Result:
    """Trains what the config says and returns the result.

    `workdir` is a folder on disk or object storage; a run that is there is resumed. Without one
    nothing is written. `train` and `test` are `(inputs, labels)` arrays that take the place of
    `data.source`: images `[n, y, x(, ch)]` or rows `[n, d]`, labels `[n]`.

    Raises UserError on a mistake, NonFiniteLoss, or Stopped after saving on SIGTERM or Ctrl-C.
    """
    check_config(config)
    too_late = set_memory_share(config.parallel.gpu_memory_share)
    folder = None if workdir is None else epath.Path(workdir)
    require_wandb(config, folder)
    dataset = None
    if train is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source="arrays"))
        classes = config.task.name == "classification"
        dataset = resplit(from_arrays(train, test, classes=classes), config.data)
    elif test is not None:
        raise UserError("fit was given test arrays without train arrays")
    parts = build(config, dataset)
    check_same_data(parts.dataset)
    progress = Progress(
        config.train.num_steps,
        config.train.batch_size * config.train.num_seeds,
        flops_per_step(parts),
        show=config.log.progress,
    )
    if too_late:
        progress.tell(too_late)
    if folder is not None:
        shapes, tell = parts.programs.batch_shapes, progress.tell
        mark = tell_all(lambda: claim_workdir(folder, config, parts.dataset, shapes, tell))
        check_seen(folder, mark)
    loop = Loop(parts, folder, progress)
    state = loop.find_stopped()
    if state is None:
        state = first_state(parts, loop.checkpoints, progress)
        describe(parts, folder, progress)
        state = loop.run(state)
    return finish(loop, state)


def first_state(parts: Parts, checkpoints: Checkpoints | None, progress: Progress) -> State:
    """The newest checkpoint's state, or a fresh one (from `init_from` where that is set)."""
    programs = parts.programs
    restored = checkpoints.restore(programs.abstract_state) if checkpoints else None
    if restored is not None:
        progress.tell(f"resuming from step {restored[0]}")
        return restored[1]
    if parts.start is None and not parts.beside.readers:
        return programs.init_state()
    seeds = list_seeds(parts.config)
    each = [read_given(parts, seed) for seed in seeds]
    return programs.start_from(
        each[0] if len(each) == 1 else jax.tree.map(lambda *x: np.stack(x), *each)
    )


def read_given(parts: Parts, seed: int) -> dict[str, Any]:
    """The parameters that a seed does not draw but is given; what `init_from` leaves anew is drawn
    as in its single run."""
    given = {} if parts.start is None else parts.start.load(seed)
    if parts.beside.readers:
        given[COMPANIONS] = {name: read() for name, read in parts.beside.readers.items()}
    return given


def describe(parts: Parts, folder: epath.Path | None, progress: Progress) -> None:
    """Says what is trained; the full parameter table goes to WORKDIR/parameters.txt."""
    params = parts.programs.abstract_params
    sizes = ", ".join(f"{len(s):,} {name}" for name, s in parts.dataset.splits.items())
    count, beside = count_params(own_params(params)), count_params(params.get(COMPANIONS, {}))
    progress.tell(
        f"{parts.config.model.name}: {count:,} parameters"
        + (f" ({beside:,} beside it)" if beside else "")
        + f"; {parts.dataset.name}: {sizes}; {jax.device_count()} x {jax.devices()[0].device_kind}"
        + (f" in {jax.process_count()} processes" if jax.process_count() > 1 else "")
    )
    if parts.config.train.num_seeds > 1:
        seeds = list_seeds(parts.config)
        progress.tell(
            f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}, in one step; metrics are means over "
            f"them, and the run is read as that of seed {seeds[0]}"
            + (
                ""
                if folder is None
                else f" ({folder}{OF_SEED}{seeds[1]} is that of seed {seeds[1]})"
            )
        )
    start = () if parts.start is None else parts.start.report
    for note in (*parts.dataset.notes, show_example(parts), *start):
        progress.tell(note)
    if isinstance(parts.model, LoRA):
        progress.tell(describe_targets(parts.model))
    groups = parts.programs.groups
    for line in groups.lines:
        progress.tell(line)
    last = max(groups.from_step.values(), default=0)
    if last >= parts.config.train.num_steps:
        waiting = sum(s >= parts.config.train.num_steps for s in groups.from_step.values())
        progress.tell(
            f"train.num_steps={parts.config.train.num_steps} ends before {waiting} "
            f"array{'s' * (waiting > 1)} begin{'s' * (waiting == 1)} to train, "
            f"the last at step {last:,} (steps are counted from 0)"
        )
    if folder is None or jax.process_index():
        return
    model = parts.model.base if isinstance(parts.model, LoRA) else parts.model
    if type(model) in CLASSES.values():  # for zoo.load_pretrained
        kept = getattr(parts.task, "special_tokens", None)  # which generating has to know
        told = {**describe_model(parts.model), **({} if kept is None else {"kept": kept})}
        write_json(folder / MODEL_FILE, told)
    places = {p: str(tuple(spec)) for p, spec in named_leaves(parts.programs.specs.params).items()}
    rows = [("path", "shape", "dtype", "count", "mesh axes"), *overview(params, places)]
    if not groups.is_plain:
        rates = ("learning rate", *map(groups.describe, places))
        rows = [(*row, rate) for row, rate in zip(rows, rates, strict=True)]
    lines = align(rows)
    (folder / "parameters.txt").write_text("\n".join(lines) + f"\ntotal {count_params(params):,}\n")
    if parts.start is not None:
        rows = [("path", "from", "what"), *parts.start.rows]
        (folder / "init_from.txt").write_text("\n".join(align(rows)) + "\n")


def show_example(parts: Parts) -> str:
    """What the data gives for one example, and of how many classes or tokens."""
    fields = [
        " x ".join([name, *map(str, x.shape[1:])]).replace(" x ", " ", 1)
        for name, x in parts.programs.batch_shapes.items()
        if name != "mask"
    ]
    counts = []
    if parts.dataset.num_classes:
        counts.append(f"{parts.dataset.num_classes} classes")
    if parts.dataset.tokenizer:
        counts.append(f"a vocabulary of {parts.dataset.tokenizer.vocab_size:,}")
    return f"an example: {', '.join(fields)}" + (f"; {', '.join(counts)}" if counts else "")


def finish(loop: Loop, state: State) -> Result:
    """Evaluates on the test split, draws the curves, prints the table."""
    parts, folder, step = loop.parts, loop.workdir, int(state.step)
    metrics = {}
    try:
        if "test" in parts.dataset.splits:
            metrics["test"] = loop.evaluate("test", step, state)
    finally:
        loop.close()  # the last save may still be under way
    rows = read_rows(folder) if folder is not None else loop.writers.history
    for split in ("train", "val"):
        found = [row for row in rows if row["split"] == split]
        if found:
            metrics[split] = {k: v for k, v in found[-1].items() if k not in NO_METRICS}
    shown = next((split for split in ("test", "val") if split in metrics), "train")
    title = f"{parts.config.model.name} on {parts.dataset.name}, {shown}, step {step}"
    if shown in metrics:
        loop.progress.table(title, metrics[shown], loop.spreads.get(shown))
    if folder is not None and rows and parts.config.log.picture and jax.process_index() == 0:
        draw_curves(
            rows, folder / "curves.png", f"{parts.config.model.name} on {parts.dataset.name}"
        )
        loop.progress.tell(f"curves: {folder / 'curves.png'}")
    params = next(parts.programs.each_seed(state)).eval_params
    history = loop.writers.history
    return Result(
        parts.model, own_params(params), metrics, history, parts, params, dict(loop.spreads)
    )
