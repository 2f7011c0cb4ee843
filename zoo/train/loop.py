"""The training loop: the only one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from zoo.checkpoint import Checkpoints
from zoo.data import read_ahead
from zoo.evaluation.in_training import measure_records
from zoo.evaluation.passes import run_several
from zoo.models.flops import count_flops
from zoo.parallel import place_batch
from zoo.train.build import Parts, eval_batches
from zoo.train.hooks import Calendar, Profiler, Writers, train_metrics
from zoo.train.patience import Patience, watched
from zoo.train.progress import Progress
from zoo.train.rows import read_rows
from zoo.train.seeds import Spread, list_seeds, spread_metrics
from zoo.train.state import State
from zoo.train.stop import NonFiniteLoss, Stopped, StopRequest
from zoo.tree import fill_leaves


class Loop:
    """Runs a built run from a state to `train.num_steps`, logging, evaluating and saving as due."""

    def __init__(self, parts: Parts, workdir: epath.Path | None, progress: Progress):
        config = parts.config
        self.parts, self.programs, self.workdir = parts, parts.programs, workdir
        self.calendar = Calendar(config)
        self.writers = Writers(workdir, config)
        self.profiler = Profiler(config, workdir)
        self.progress = progress
        self.spreads: dict[str, dict[str, Spread]] = {}  # of several seeds, the newest of a split
        self._broken: set[str] = set()  # told of
        self.patience = Patience(config)
        self._best: State | None = None  # where no checkpoint holds it
        self.checkpoints: Checkpoints | None = None
        if workdir is not None:
            self.checkpoints = Checkpoints(
                workdir / "checkpoints",
                watched(config),
                progress.tell,
                parts.dataset.tokenizer_hash,
            )

    def run(self, state: State) -> State:
        """Trains to the last step, or until the end of `train.patience`. Raises NonFiniteLoss, or
        Stopped after saving on request."""
        step = int(state.step)
        if self.workdir is not None:
            self.patience.recall(read_rows(self.workdir), step)
        report: Any = None
        try:
            with StopRequest() as request:
                for batches, num_steps in self._portions(step):
                    self.profiler.visit(step)
                    new_state, new_report = self._dispatch(step, state, batches, num_steps)
                    # The device is busy with the new call while the one before is looked at.
                    self._look_at(step, report)
                    state, report, step = new_state, new_report, step + num_steps
                    if step == self.calendar.next_event(step - 1):
                        self._look_at(step, report)
                        report = None
                        self._attend(step, state)
                        if self.patience.outcome()[1] is not None:
                            return self._take_best(step) or state
                    asked = request.reached()
                    if asked and step < self.calendar.num_steps:
                        self._look_at(step, report)
                        self._stop(step, state, asked)
            return state
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends what runs beside the steps: the live line, a trace, TensorBoard, the last save."""
        self.progress.close()
        self.profiler.close()
        self.writers.close()
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def _portions(self, step: int) -> Iterator[tuple[Any, int]]:
        """Placed batches, one dispatch each: whole blocks, or single steps of a block inside which
        an event falls or the run begins."""
        size = self.parts.stream.steps_per_block
        for first, block, steps in self._blocks(step // size):
            start = max(step - first, 0)
            whole = start == 0 and self.calendar.next_event(first) >= first + steps
            if whole:
                yield block, steps
                continue
            for i in range(start, steps):
                yield jax.tree.map(lambda x, i=i: x[i : i + 1], block), 1

    def _blocks(self, first: int) -> Iterator[tuple[int, Any, int]]:
        """(first step, placed block, number of steps), placed while the one before is in use."""
        data, stream = self.parts.config.data, self.parts.stream
        if first >= len(stream):
            return
        waiting = None
        blocks = read_ahead(stream, first, num_workers=data.num_workers, prefetch=data.prefetch)
        for number, block in enumerate(self._timed(blocks), start=first):
            steps = len(block["mask"])
            placed = place_batch(self._pass_over(block), self.programs.blocks_sharding)
            if waiting is not None:
                yield waiting
            waiting = (number * stream.steps_per_block, placed, steps)
        if waiting is not None:
            yield waiting

    def _timed(self, blocks: Iterator[Any]) -> Iterator[Any]:
        """The same blocks; how long each let us wait is counted."""
        while True:
            start = time.perf_counter()
            block = next(blocks, None)
            self.progress.waited(time.perf_counter() - start)
            if block is None:
                return
            yield block

    def _pass_over(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Takes the names of broken examples out of a batch, and tells of each once."""
        for line in batch.get("broken", ()):
            if line not in self._broken:
                self._broken.add(line)
                self.progress.tell(f"passed over a broken image: {line}", everywhere=True)
        return {name: values for name, values in batch.items() if name != "broken"}

    def _dispatch(self, step: int, state: State, batches: Any, num_steps: int) -> tuple[State, Any]:
        change = self.programs.find_change(num_steps, batches)
        if change:
            self.progress.tell(f"step {step + 1}: the step is compiled again, since {change}")
        before = self.programs.compile_seconds
        self.programs.train_program(num_steps, batches)
        seconds = self.programs.compile_seconds - before
        if seconds:
            self.progress.pause()
            self.progress.tell(
                f"compiled {num_steps} step{'s' * (num_steps > 1)} a call in {seconds:.1f} s"
            )
        self.progress.go_on()
        new_state, report = self.programs.train(state, batches, num_steps)
        self.progress.advance(num_steps)
        return new_state, report

    def _look_at(self, step: int, report: Any) -> None:
        """Waits for a dispatch and checks its loss, which was that of steps up to `step`."""
        if report is None:
            return
        losses, bad = np.atleast_1d(report["loss"]), np.atleast_1d(report["first_bad_step"])
        if (bad >= 0).any():
            last = self.checkpoints.last_step() if self.checkpoints else None
            first = min(np.flatnonzero(bad >= 0), key=lambda i: bad[i])
            seed = list_seeds(self.parts.config)[first] if len(bad) > 1 else None
            folder = self.workdir and self.workdir / "checkpoints"
            raise NonFiniteLoss(int(bad[first]), last, folder, seed)
        deviation = float(losses.std(ddof=1)) if len(losses) > 1 else None
        self.progress.update(step, float(losses.mean()), deviation)

    def _attend(self, step: int, state: State) -> None:
        """Log, evaluate, save: in this order, so that a checkpoint implies the rows before it."""
        self.progress.pause()
        parts, calendar = self.parts, self.calendar
        if calendar.due(step, calendar.log):
            skipped = parts.config.data.skip_broken
            self._write(
                step,
                "train",
                [
                    train_metrics(parts.task, sums, step, parts.schedule, skipped=skipped)
                    for sums in self._split_sums(state)
                ],
            )
            seconds = {"compile_seconds": self.programs.compile_seconds}
            seconds["waiting_for_data"] = self.progress.waiting_share()
            self.writers.write_timing(step, {**self.progress.speeds(), **seconds})
        metrics: dict[str, float] = {}
        if "val" in parts.dataset.splits and calendar.due(step, calendar.evaluate):
            values = self.evaluate("val", step, state)
            metrics = {f"val/{name}": value for name, value in values.items()}
        best = self._watch(step, state, metrics)
        if self.checkpoints is not None and (best or calendar.due(step, calendar.save)):
            self.writers.flush()
            self.checkpoints.save(step, state, metrics)
        self.progress.go_on()

    def _watch(self, step: int, state: State, metrics: dict[str, float]) -> bool:
        """Is this evaluation the best, where `train.patience` asks?"""
        if not metrics or not self.patience.see_row(step, metrics):
            return False
        if self.checkpoints is None:
            self._best = jax.tree.map(jax.numpy.copy, state)  # the state itself is donated
        return True

    def find_stopped(self) -> State | None:
        """The best state of a run that `train.patience` has ended before."""
        if self.workdir is None or self.checkpoints is None or self.patience.limit is None:
            return None
        self.patience.recall(read_rows(self.workdir))
        best, stop = self.patience.outcome()
        if stop is None or best not in self.checkpoints.steps():
            return None
        return self._take_best(stop)

    def _take_best(self, step: int) -> State | None:
        """Ends at `step`: the state of the best evaluation, which is then the newest saved; None
        where none was a number."""
        best = self.patience.outcome()[0]
        self.progress.tell(
            f"stopped at step {step}: {self.patience.limit} evaluations without a better "
            f"{self.patience.metric} than that of step {best}, which is what the run gives"
        )
        if best is None:
            return None
        if self.checkpoints is None:
            return self._best
        self.checkpoints.drop_after(best)
        restored = self.checkpoints.restore(self.programs.abstract_state, best)
        return None if restored is None else restored[1]

    def evaluate(self, split: str, step: int, state: State) -> dict[str, float]:
        """Metrics of a split, of several seeds their means, written as a row."""
        config = self.parts.config
        placed = (
            place_batch(self._pass_over(batch), self.programs.batch_sharding)
            for batch in eval_batches(self.parts, split)
        )
        named = config.train.metrics
        # The program of one seed, for each: a seed's row is that of `zoo eval`, to the bit.
        several = [one.eval_params for one in self.programs.each_seed(state)]
        rows = []
        for seen in run_several(self.programs.evaluate, several, placed, keep=bool(named)):
            metrics = self.parts.task.summarise(seen.sums)
            metrics |= measure_records(seen.records, named)
            if config.data.skip_broken:
                size = len(self.parts.dataset.splits[split])
                metrics["skipped"] = float(size - seen.sums["examples"])
            rows.append(metrics)
        return self._write(step, split, rows)

    def _split_sums(self, state: State) -> list[Any]:
        """The running sums of each seed."""
        sums, count = jax.device_get(state.sums), self.programs.num_seeds
        if count == 1:
            return [sums]
        return [jax.tree.map(lambda x, i=i: x[i], sums) for i in range(count)]

    def _write(self, step: int, split: str, rows: list[dict[str, float]]) -> dict[str, float]:
        """Writes a row of the metrics of all seeds; returns their means, of one seed its own."""
        if len(rows) == 1:
            self.writers.write(step, split, rows[0])
            return rows[0]
        self.spreads[split] = spread_metrics(rows)
        means = {name: spread.mean for name, spread in self.spreads[split].items()}
        self.writers.write(step, split, means, self.spreads[split])
        return means

    def _stop(self, step: int, state: State, signal_name: str) -> None:
        if self.checkpoints is None:
            raise Stopped(
                f"{signal_name}: stopped at step {step}; without a workdir nothing is saved"
            )
        self.writers.flush()
        self.checkpoints.save(step, state)
        self.checkpoints.wait()
        raise Stopped(
            f"{signal_name}: saved step {step} and stopped; the same command goes on from there"
        )


def flops_per_step(parts: Parts) -> float:
    """Arithmetic of one training step, of all seeds: three times the forward pass, or less where
    frozen leaves and teachers need no gradient. What remat repeats is never counted above that."""
    programs, task = parts.programs, parts.plain_task
    params, batch, groups = programs.abstract_params, programs.batch_shapes, programs.groups

    def find_gradients(params: Any, batch: Any) -> Any:
        def find_loss(trained: Any) -> Any:
            return task.loss(fill_leaves(trained, params), batch, None)

        return jax.grad(find_loss, has_aux=True)(groups.trained(params))

    flops = 3 * count_flops(lambda p, b: task.loss(p, b, None), params, batch)
    if groups.frozen:
        flops = min(flops, count_flops(find_gradients, params, batch))
    return float(programs.num_seeds * flops)
