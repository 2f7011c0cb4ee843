"""Killed with SIGKILL at random moments, also during a save, a run ends in the same bits."""

from __future__ import annotations

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import EIGHT, ROOT, run_command, user_environment
from etils import epath

from zoo.checkpoint import Checkpoints
from zoo.train.rows import read_rows
from zoo.tree import leaves_below

ALL_ON = [
    "--config.data.transform=shift(1)|normalize(0.5, 0.5)",
    "--config.model.arguments.dropout=0.2",
    "--config.optim.ema_decay=0.99",
    "--config.optim.num_microbatches=2",
    "--config.data.validation_fraction=0.1",
    "--config.train.batch_size=32",
]
MLP = ["configs/mlp_digits.py", *ALL_ON, "--config.train.num_steps=1200",
       "--config.train.steps_per_call=5",
       "--config.log.every_steps=10", "--config.checkpoint.every_steps=30",
       "--config.train.eval_every_steps=120"]  # fmt: skip
VIT = ["configs/vit_digits.py", *ALL_ON, "--config.train.num_steps=240",
       "--config.train.steps_per_call=4",
       "--config.log.every_steps=5", "--config.checkpoint.every_steps=12",
       "--config.train.eval_every_steps=60", "--config.model.scan_layers=True",
       "--config.model.arguments.stochastic_depth=0.1"]  # fmt: skip

GPT = ["configs/gpt_stdlib.py", "--config.data.tokenizer=bytes", "--config.data.stride=64",
       "--config.data.length=64",
       "--config.model.arguments.width=32", "--config.model.arguments.num_heads=4",
       "--config.model.arguments.depth=2",
       "--config.model.arguments.dropout=0.1", "--config.optim.ema_decay=0.99",
       "--config.optim.num_microbatches=2", "--config.train.batch_size=16",
       "--config.train.num_steps=240", "--config.train.steps_per_call=4",
       "--config.log.every_steps=5", "--config.checkpoint.every_steps=12",
       "--config.train.eval_every_steps=120"]  # fmt: skip


def command(recipe, workdir):
    return ["train.py", "--config", *recipe, "--workdir", str(workdir)]


def start(recipe, workdir, env):
    return subprocess.Popen(
        [sys.executable, *command(recipe, workdir)],
        cwd=ROOT, env=user_environment(env),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def is_saving(workdir):
    folder = workdir / "checkpoints"
    places = [p for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []
    return any(not (p / "manifest.json").exists() for p in places)


def last_step(workdir) -> int:
    """The step of the newest row."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    complete = [line for line in lines if line.endswith("}\n")]
    return json.loads(complete[-1])["step"] if complete else 0


def kill_when(process, workdir, step, during_save, delay) -> bool:
    """SIGKILLs the process some time after `step`: in a save, or after a delay. False: it ended."""
    while process.poll() is None:
        if last_step(workdir) >= step and (not during_save or is_saving(workdir)):
            time.sleep(0 if during_save else delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.001)
    return False


def read_state(workdir):
    checkpoints = Checkpoints(epath.Path(workdir) / "checkpoints")
    parts = ("params", "ema", "opt_state", "sums")
    leaves = checkpoints.restore_leaves()
    return checkpoints.last_step(), {part: leaves_below(part, leaves) for part in parts}


def assert_same_run(a: pathlib.Path, b: pathlib.Path):
    (step_a, state_a), (step_b, state_b) = read_state(a), read_state(b)
    assert step_a == step_b
    for part in state_a:
        assert state_a[part], part
        assert state_a[part].keys() == state_b[part].keys()
        for path, leaf in state_a[part].items():
            np.testing.assert_array_equal(
                np.asarray(leaf), np.asarray(state_b[part][path]), err_msg=path
            )
    rows = read_rows(a)
    assert {row["split"] for row in rows} >= {"train", "val"}
    assert rows == read_rows(b)


def cached(folder):
    """Where a start compiles nothing that one before it did: most of a start is compilation."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def check_kills(recipe, folder, env, seed):
    calm, killed = folder / "calm", folder / "killed"
    done = run_command(*command(recipe, calm), env=env, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    num_steps, chance, told = last_step(calm), random.Random(seed), ""
    kills = half_written = 0
    while kills < 5 or not half_written:
        process = start(recipe, killed, env)
        # Spread over the run, at random in each sixth of it.
        target = num_steps * min(kills + chance.uniform(0.5, 1), 5) / 6
        during_save = kills % 2 == 1 and not half_written
        hit = kill_when(process, killed, target, during_save, chance.uniform(0, 0.1))
        told += process.communicate()[0]
        assert hit, f"the run ended before kill {kills + 1}: {told}"
        kills += 1
        half_written += is_saving(killed)
    done = run_command(*command(recipe, killed), env=env, timeout=550)
    told += done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert told.count("removed a half-written checkpoint") >= half_written
    assert told.count("resuming from step") >= 4, told
    assert_same_run(calm, killed)


@pytest.mark.timeout(900)
def test_mlp_killed_five_times(tmp_path):
    check_kills(MLP, tmp_path, cached(tmp_path), seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_gpt_killed_five_times(tmp_path):
    check_kills(GPT, tmp_path, cached(tmp_path), seed=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_vit_killed_five_times_on_eight_devices(tmp_path):
    recipe = [*VIT, "--config.parallel.fsdp=4", "--config.train.num_steps=120"]
    check_kills(
        [w for w in recipe if w != "--config.train.num_steps=240"],
        tmp_path,
        {"XLA_FLAGS": EIGHT, **cached(tmp_path)},
        seed=2,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_request_to_stop_saves_and_the_same_command_goes_on(tmp_path, number):
    recipe = [*MLP, "--config.checkpoint.every_steps=None"]
    recipe = [w for w in recipe if w != "--config.checkpoint.every_steps=30"]
    process = start(recipe, tmp_path / "run", {})
    while last_step(tmp_path / "run") < 75:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 75
    assert f"{number.name}: saved step" in told
    assert "Traceback" not in told
    step, _ = read_state(tmp_path / "run")
    done = run_command(*command(recipe, tmp_path / "run"))
    assert done.returncode == 0
    assert f"resuming from step {step}" in done.stdout


@pytest.mark.slow
def test_a_run_with_its_own_average_for_a_teacher_goes_on(tmp_path):
    """DINO's teacher, centre and temperature are of the state."""
    recipe = ["configs/dino_mnist.py:quick", "--config.train.steps_per_call=1",
              "--config.task.arguments.warmup_steps=6"]  # fmt: skip
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for workdir, steps in ((whole, 6), (halves, 3), (halves, 6)):
        keys = [f"--config.train.num_steps={steps}", f"--config.checkpoint.extend={steps == 6}"]
        done = run_command(*command([*recipe, *keys], workdir), env=cached(tmp_path), timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    (_, one), (_, other) = read_state(whole), read_state(halves)
    for part, leaves in one.items():
        assert leaves.keys() == other[part].keys()
        for path, leaf in leaves.items():
            np.testing.assert_array_equal(leaf, other[part][path], err_msg=path)
    teacher = {path: leaf for path, leaf in one["params"].items() if "teacher_head" in path}
    for path, leaf in teacher.items():
        assert np.any(leaf != one["params"][path.replace("teacher_head", "head")]), path
    (center,) = (leaf for path, leaf in one["params"].items() if path.endswith("center"))
    assert np.any(center)
