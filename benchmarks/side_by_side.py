"""Ours beside a peer on the same work, in turns: A B A B, the ratio of each pair.

    pip install -e '.[bench]'
    python benchmarks/side_by_side.py               # all entries
    python benchmarks/side_by_side.py gpt2_step     # some

Each side lives in a process of its own, so that neither's threads are in the other's way; while one
works the other waits. Prints the median ratio (peer's time / ours) with its quartiles, and that of
the processors' time, which other programs on the machine disturb less. An entry marked fresh starts
both sides anew each turn, since compilation counts.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """`ours` and `peer` are `workload:function`, which sets up and returns a turn, `() -> s`."""

    ours: str
    peer: str
    required: float | None = None
    goal: float | None = None
    turns: int = 7
    fresh: bool = False


TABLE = {
    "mlp_keras": Entry("mlp_mnist:ours", "mlp_mnist:keras", 6, 8, 3, fresh=True),
    "mlp_torch": Entry("mlp_mnist:ours", "mlp_mnist:torch", 4, 5, 3, fresh=True),
    "vit_step": Entry("vit_step:ours", "vit_step:transformers", 1.15, 1.5),
    "gpt2_step": Entry("gpt2_step:ours", "gpt2_step:transformers", 1.7, 2),
    "nanogpt": Entry("nanogpt:ours", "nanogpt:torch", 1.15, 1.5),
    "mlp_bare": Entry("mlp_mnist:ours", "mlp_mnist:bare", 0.9, 1, 3, fresh=True),
    "vit_step_bare": Entry("vit_step:ours", "vit_step:bare", 0.9, 1),
    "gpt2_step_bare": Entry("gpt2_step:ours", "gpt2_step:bare", 0.9, 1),
    "nanogpt_bare": Entry("nanogpt:ours", "nanogpt:bare", 0.9, 1),
    "vit_step_bf16": Entry("vit_step:ours_bf16", "vit_step:transformers_bf16", None, 1),
    "gpt2_step_bf16": Entry("gpt2_step:ours_bf16", "gpt2_step:transformers_bf16", None, 1),
    "nanogpt_bf16": Entry("nanogpt:ours_bf16", "nanogpt:torch_bf16", None, 1),
}


class Side:
    """A process that has set its work up and does a turn when told to."""

    def __init__(self, work: str):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--work", work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )

    def turn(self) -> tuple[float, float]:
        """Seconds of one turn as its side counts them, and the processors' seconds in it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1]), float(line.split()[2])
        raise SystemExit("a side ended before its turn")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def work(name: str) -> None:
    """The life of a side: set up, then a turn for each line read."""
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path(__file__).parent))
    turn = getattr(importlib.import_module(f"workloads.{module}"), function)()
    for _ in sys.stdin:
        before = time.process_time()
        seconds = turn()
        print(f"seconds {seconds} {time.process_time() - before}", flush=True)


def compare(name: str, entry: Entry) -> dict[str, object]:
    """Measures one entry and prints it."""
    sides = None if entry.fresh else (Side(entry.ours), Side(entry.peer))
    if sides:
        for side in sides:
            side.turn()  # a warm-up
    ratios, cpu_ratios, times = [], [], []
    for _ in range(entry.turns):
        pair = sides or (Side(entry.ours), Side(entry.peer))
        (ours, ours_cpu), (peer, peer_cpu) = pair[0].turn(), pair[1].turn()
        ratios.append(peer / ours)
        cpu_ratios.append(peer_cpu / ours_cpu)
        times.append((ours, peer))
        if not sides:
            for side in pair:
                side.close()
    for side in sides or ():
        side.close()
    low, middle, high = statistics.quantiles(ratios, n=4)
    cpu = statistics.median(cpu_ratios)
    ours, peer = (statistics.median(t) for t in zip(*times, strict=True))
    aims = ", ".join(
        f"{k} {v}" for k, v in (("required", entry.required), ("goal", entry.goal)) if v
    )
    print(
        f"{name}: {middle:.2f}x (quartiles {low:.2f}, {high:.2f}; processor time {cpu:.2f}x); "
        f"ours {ours:.3f} s, {entry.peer} {peer:.3f} s; {aims}",
        flush=True,
    )
    row = {"name": name, "ratio": middle, "low": low, "high": high, "cpu_ratio": cpu}
    return {**row, "ours": ours, "peer": peer}


def main(names: list[str]) -> None:
    """Runs the named entries, or all."""
    for name in names:
        if name not in TABLE:
            raise SystemExit(f"no entry {name!r}; choose from: {', '.join(TABLE)}")
    packages = ("jax", "flax", "torch", "transformers", "keras")
    versions = ", ".join(f"{p} {version(p)}" for p in packages)
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(versions, flush=True)
    rows = [compare(name, TABLE[name]) for name in names or TABLE]
    print(json.dumps(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2])
    else:
        main(sys.argv[1:])
