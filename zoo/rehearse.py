"""A recipe as a real job of several processes on this machine, with a host lost and one stopped."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

from zoo.config import UserError, make_config
from zoo.train.rows import read_rows

EVERY = 4  # steps between checkpoints
HEARTBEAT = 10  # seconds
LIMIT = 900  # seconds that a part of the rehearsal may take
POLL = 0.05
MISTAKE, STOPPED = 2, 75  # exit codes
TOLERANCE = {"float32": 1e-5}  # of a loss; other types round more where more devices add up
COARSE = 2e-2


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What is rehearsed: `flags` of the recipe, processes and the simulated devices of each."""

    recipe: str
    flags: dict[str, str]
    processes: int
    devices: int
    folder: pathlib.Path
    tolerance: float


class Team:
    """The processes of one start of the job, in WORKDIR, their output in NAME.PROCESS.log."""

    def __init__(self, plan: Rehearsal, name: str, processes: int, devices: int, workdir: str):
        self.workdir = plan.folder / workdir
        self.logs = [plan.folder / f"{name}.{i}.log" for i in range(processes)]
        shared = {**plan.flags, "parallel.num_processes": str(processes)}
        shared["parallel.coordinator"] = f"127.0.0.1:{find_port()}"
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        self.members = []
        for number, log in enumerate(self.logs):
            words = [sys.executable, "-m", "zoo", "train", f"--config={plan.recipe}"]
            words.append(f"--workdir={self.workdir}")
            own = {**shared, "parallel.process_id": str(number)}
            words += [f"--config.{key}={value}" for key, value in own.items()]
            with log.open("w") as out:
                self.members.append(
                    subprocess.Popen(words, stdout=out, stderr=out, env=environment)
                )

    def wait(self) -> list[int]:
        """Their exit codes. Raises UserError with what one said that found a mistake."""
        try:
            codes = [member.wait(LIMIT) for member in self.members]
        except subprocess.TimeoutExpired:
            raise UserError(f"not done in {LIMIT} s; what they said: {self.logs[0]}") from None
        finally:
            for member in self.members:
                member.kill()
        if MISTAKE in codes:
            lines = self.logs[codes.index(MISTAKE)].read_text().splitlines()
            said = [line for line in lines if line.startswith("error: ")]
            raise UserError(said[-1].removeprefix("error: ") if said else lines[-1])
        return codes

    def signal(self, number: int, which: signal.Signals, when: Callable[[], bool]) -> bool:
        """Sends a signal to a member once `when()` holds; False where the team ended before."""
        until = time.monotonic() + LIMIT
        while not when():
            if time.monotonic() > until or any(m.poll() is not None for m in self.members):
                return False
            time.sleep(POLL)
        self.members[number].send_signal(which)
        return True


def rehearse(
    recipe: str,
    values: Mapping[str, str],
    processes: int,
    devices: int,
    kill: bool,
    folder: str | None = None,
    tell: Callable[[str], None] = print,
) -> bool:
    """Trains `recipe` (its `quick` where no option is named) alone and as a job of `processes` with
    `devices` simulated devices each; with `kill` once more with a process killed and one stopped,
    going on with fewer. Does every loss agree, and did all stop together?

    Raises UserError on a mistake in the recipe or in what it is asked to do.
    """
    recipe = recipe if ":" in recipe else f"{recipe}:quick"
    flags = choose_flags(recipe, values, processes * devices, 40 if kill else 20)
    tolerance = TOLERANCE.get(make_config(recipe, flags).model.dtype, COARSE)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        place = pathlib.Path(folder or scratch)
        if folder and place.exists() and any(place.iterdir()):
            raise UserError(f"workdir {folder} is not empty: a rehearsal begins anew")
        place.mkdir(parents=True, exist_ok=True)
        plan = Rehearsal(recipe, flags, processes, devices, place, tolerance)
        tell(f"{recipe}, {flags['train.num_steps']} steps of {flags['train.batch_size']} examples")
        expect(Team(plan, "alone", 1, processes * devices, "alone"), 0)
        tell(f"1 process with {processes * devices} devices: done")
        expect(Team(plan, "together", processes, devices, "together"), 0)
        same = compare(plan, "together", tell)
        return rehearse_loss(plan, tell) and same if kill else same


def choose_flags(
    recipe: str, values: Mapping[str, str], num_devices: int, num_steps: int
) -> dict[str, str]:
    """The recipe at the size of a rehearsal; the user's own `values` come first."""
    config = make_config(recipe, dict(values))
    parts = config.optim.num_microbatches
    unit = parts * num_devices
    mine = {
        "train.num_steps": str(num_steps),
        "train.batch_size": str(-(-config.train.batch_size // unit) * unit),
        "train.steps_per_call": "1",
        "log.every_steps": "1",
        "log.tensorboard": "False",
        "log.picture": "False",
        "checkpoint.every_steps": str(EVERY),
        "parallel.heartbeat_seconds": str(HEARTBEAT),
        "parallel.join_seconds": "120",
    }
    return {**mine, **values}


def rehearse_loss(plan: Rehearsal, tell: Callable[[str], None]) -> bool:
    """A process killed; half as many go on, one of them is asked to stop; one alone ends it."""
    last = plan.processes - 1
    team = Team(plan, "killed", plan.processes, plan.devices, "killed")
    saved = team.workdir / "checkpoints" / f"{EVERY:08d}" / "manifest.json"
    sent = team.signal(last, signal.SIGKILL, saved.exists)
    began = time.monotonic()
    codes = team.wait()
    if not sent or 0 in codes:
        tell(f"too fast to kill: more steps, --config.train.num_steps (exit codes {codes})")
        return False
    tell(f"process {last} killed; the others stopped {time.monotonic() - began:.0f} s later")
    half = max(plan.processes // 2, 1)
    team = Team(plan, "stopped", half, plan.devices, "killed")
    log = team.logs[0]
    team.signal(half - 1, signal.SIGTERM, lambda: "resuming from" in log.read_text())
    codes = team.wait()
    said = {path.read_text().splitlines()[-1] for path in team.logs}
    agreed = set(codes) == {STOPPED} and len(said) == 1
    tell(f"{half} went on; SIGTERM to process {half - 1}: exit codes {codes}, {'; '.join(said)}")
    expect(Team(plan, "resumed", 1, plan.devices, "killed"), 0)
    tell(f"1 process with {plan.devices} devices went on to the end")
    return compare(plan, "killed", tell) and agreed


def expect(team: Team, code: int) -> None:
    """Waits for a team. Raises UserError where a member ended otherwise."""
    codes = team.wait()
    if set(codes) != {code}:
        bad = next(i for i, found in enumerate(codes) if found != code)
        tail = team.logs[bad].read_text().splitlines()[-1:]
        raise UserError(f"process {bad} ended with {codes[bad]}: {' '.join(tail)}")


def compare(plan: Rehearsal, workdir: str, tell: Callable[[str], None]) -> bool:
    """Are the losses of every row those of the run alone?"""
    rows, expected = (
        {(row["step"], row["split"]): row["loss"] for row in read_rows(plan.folder / name)}
        for name in (workdir, "alone")
    )
    away = {key: abs(rows[key] - loss) for key, loss in expected.items() if key in rows}
    worst = max(away, key=lambda key: away[key])
    same = rows.keys() == expected.keys() and all(
        off <= plan.tolerance * max(1.0, abs(expected[key])) for key, off in away.items()
    )
    tell(
        f"{'equal' if same else 'NOT EQUAL'} to one process in {len(rows)} of {len(expected)} "
        f"rows: losses at most {away[worst]:.1e} apart (step {worst[0]}, {worst[1]})"
    )
    return same


def find_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
