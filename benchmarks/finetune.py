"""Fine-tuning beside transformers' `Trainer`: MiniLM on SST-2, float32, the same hyper-parameters.

    python benchmarks/finetune.py [SEEDS]       # extras: bench, parity; needs ZOO_DATA

The recipe `minilm_sst2:8k`: 8,000 sentences, one epoch, batches of 32, AdamW, linear warm-up and
decay, clipping at 1, no dropout (ours has none on attention weights, so that neither has any). Each
run is a process of its own, in turns: ours, theirs, ours... The clock runs from the first batch to
the last step; ours compiles in it, and what that took is told apart. Reading, the weights and the
test are not in it on either side. The Trainer pads each batch to its longest sentence, as its
default collator does; ours draws each batch from one bucket of lengths.

Scores are of the 872 'dev' sentences, that nothing was chosen on; the difference with its paired
bootstrap interval.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RECIPE, NUM_THREADS = "configs/minilm_sst2.py:8k", 2
SIDES = ("ours", "theirs")


class Clock:
    """Seconds, and the processors' seconds, since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "seconds": time.perf_counter() - self._start[0],
            "processors": time.process_time() - self._start[1],
        }


def read_config(seed: int) -> Any:
    from zoo.config import make_config

    return make_config(RECIPE, {"seed": str(seed), "log.progress": "False"})


def run_ours(seed: int) -> dict[str, Any]:
    """What `zoo.fit` does, its parts timed apart; `logits` `[872, 2]`."""
    from zoo.memory import keep_freed_memory

    keep_freed_memory()  # as `train.py` does
    import grain  # noqa: F401  the loop imports it when it reads; importing is not measured
    import jax

    from zoo.parallel import place_batch
    from zoo.train import first_state
    from zoo.train.build import build, eval_batches
    from zoo.train.loop import Loop
    from zoo.train.progress import Progress

    config = read_config(seed)
    parts = build(config)
    progress = Progress(config.train.num_steps, config.train.batch_size, 0.0, show=False)
    state = jax.block_until_ready(first_state(parts, None, progress))
    clock = Clock()
    state = jax.block_until_ready(Loop(parts, None, progress).run(state))
    times = {**clock.read(), "compile": parts.programs.compile_seconds}
    chances, labels = [], []
    for batch in eval_batches(parts, "test"):
        placed = place_batch(batch, parts.programs.batch_sharding)
        found = np.asarray(parts.programs.predict(state.eval_params, placed))
        chances.append(found[batch["mask"] > 0])
        labels.append(batch["label"][batch["mask"] > 0])
    logits = np.log(np.maximum(np.concatenate(chances), 1e-30))
    return {**times, "logits": logits, "label": np.concatenate(labels)}


def run_theirs(seed: int) -> dict[str, Any]:
    """The Trainer with the recipe's numbers."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from zoo.data.sources import open_raw

    torch.set_num_threads(NUM_THREADS)
    config, folder = read_config(seed), find_folder()
    optim, train = config.optim, config.train
    tokenizer = AutoTokenizer.from_pretrained(folder)

    texts = open_raw(config.data)

    def encode(split: str) -> list[dict[str, Any]]:
        rows = texts.splits[split].take(np.arange(len(texts.splits[split])))
        made = tokenizer(list(rows["text"]), truncation=True, max_length=config.data.length)
        columns = {**made, "labels": rows["label"].tolist()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    torch.manual_seed(seed)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, **dropout)
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            place,
            per_device_train_batch_size=train.batch_size,
            max_steps=train.num_steps,
            learning_rate=optim.learning_rate,
            warmup_steps=optim.warmup_steps,
            lr_scheduler_type=optim.schedule,
            weight_decay=optim.weight_decay,
            max_grad_norm=optim.clip_norm,
            seed=seed,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        collate = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model, arguments, train_dataset=encode("train"), data_collator=collate)
        clock = Clock()
        trainer.train()
        times = {**clock.read(), "compile": 0.0}
        test = trainer.predict(encode("test"))
    return {**times, "logits": test.predictions, "label": test.label_ids}


def find_folder() -> str:
    """Where the recipe's weights are."""
    from zoo.pretrained.sources import find_source

    return str(find_source(read_config(0).init_from).folder)


def run_apart(side: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run in a process of its own."""
    file = folder / f"{side}{seed}.npz"
    words = [sys.executable, __file__, "--run", side, str(seed), str(file)]
    threads = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(NUM_THREADS)}
    done = subprocess.run(words, env={**os.environ, **threads}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(np.load(file))


def read_records(runs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What the metrics take, of several runs one after another."""
    return {name: np.concatenate([run[name] for run in runs]) for name in ("logits", "label")}


def main(num_seeds: int) -> None:
    """Runs all in turns and prints."""
    from zoo.metrics import bootstrap, compare, find_metrics

    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        for seed in range(num_seeds):
            for side in SIDES:
                run = run_apart(side, seed, Path(name))
                runs[side].append(run)
                (accuracy,) = find_metrics(read_records([run]), ["accuracy"])
                score = bootstrap(accuracy, read_records([run]))
                print(
                    f"{side}, seed {seed}: accuracy {score.value:.4f} ({score.low:.4f} to "
                    f"{score.high:.4f}), {run['seconds']:.1f} s "
                    f"({run['processors']:.1f} of the processors), "
                    f"{run['compile']:.1f} of them compilation",
                    flush=True,
                )
    pairs = list(zip(runs["theirs"], runs["ours"], strict=True))
    found = compare(accuracy, read_records(runs["theirs"]), read_records(runs["ours"]))
    print(
        f"ours {found.b:.4f}, theirs {found.a:.4f}, difference {found.difference:+.4f} "
        f"({found.low:+.4f} to {found.high:+.4f})"
    )
    ratios = [float(a["seconds"] / b["seconds"]) for a, b in pairs]
    warm = [float(a["seconds"] / (b["seconds"] - b["compile"])) for a, b in pairs]
    busy = [float(a["processors"] / b["processors"]) for a, b in pairs]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"speed: {statistics.median(ratios):.2f} times theirs ({shown}), by the processors' time "
        f"{statistics.median(busy):.2f}, without compilation {statistics.median(warm):.2f}; "
        "required 1.2, goal 1.5"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        side, seed, file = sys.argv[2:]
        np.savez(file, **{"ours": run_ours, "theirs": run_theirs}[side](int(seed)))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
