"""A job of several processes: who this one is, and the roll-call before JAX joins them.

`jax.distributed` connects the processes, but a process that never comes, or one of another config,
shows there as an abort of all without a name, or as a hang. So they first call each other by name,
over a plain socket at the address that JAX's coordinator takes after it.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from zoo.config import ParallelConfig, UserError

# What SLURM, Open MPI 4, Cloud TPU of several slices, and JobSet set where they start a process.
LAUNCHERS = (
    "SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri", "MEGASCALE_COORDINATOR_ADDRESS",
    "JOB_COMPLETION_INDEX",
)  # fmt: skip
HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")  # of a slice on GKE, by commas
CHIPS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")  # TPUs of a machine that Cloud started
RETRY = 0.2  # seconds
GRACE = 10.0  # seconds that the network may take

Card = dict[str, Any]


class Job(NamedTuple):
    """One process among several. `coordinator` is process 0's HOST:PORT."""

    coordinator: str
    num_processes: int
    process_id: int


def find_job(config: ParallelConfig) -> Job | None:
    """The job that this process is of, by the config and by what its launcher says; None where it
    is alone.

    Raises UserError where the config says half of it.
    """
    job = (config.coordinator, config.num_processes, config.process_id)
    if None in job and _is_launched():
        job = _ask_launcher(job, config.join_seconds)
    given = {
        f"parallel.{name}": value for name, value in zip(Job._fields, job, strict=True)
        if value is not None
    }  # fmt: skip
    if not given or (config.coordinator is None and job[1] == 1):
        return None
    missing = [f"parallel.{name}" for name in Job._fields if f"parallel.{name}" not in given]
    if missing:
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(f"{shown}, but no {' and no '.join(missing)}, nor a launcher that says it")
    found = Job(str(job[0]), int(job[1] or 0), int(job[2] or 0))
    _check(found)
    return found


def _check(job: Job) -> None:
    host, _, port = job.coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"parallel.coordinator={job.coordinator!r} must be HOST:PORT of process 0")
    if not 0 <= job.process_id < job.num_processes:
        raise UserError(
            f"parallel.process_id={job.process_id} must be from 0 to {job.num_processes - 1}: "
            f"parallel.num_processes={job.num_processes}"
        )


def _is_launched() -> bool:
    """Did somebody start this process whom JAX can ask? Looked at before JAX is: where only the TPU
    compiler is installed it would wait for Cloud's metadata."""
    if _find_launcher():
        return True
    no_tpu = os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu"
    return not no_tpu and any(glob.glob(pattern) for pattern in CHIPS)


def _find_launcher() -> str | None:
    """The variable that tells of a launcher."""
    several = [name for name in HOSTS if "," in os.environ.get(name, "")]
    return next((name for name in (*LAUNCHERS, *several) if name in os.environ), None)


def _ask_launcher(job: tuple[Any, ...], seconds: int) -> tuple[Any, ...]:
    # There is no public way to ask without joining.
    from jax._src.clusters import ClusterEnv

    try:
        return ClusterEnv.auto_detect_unset_distributed_params(*job, None, None, seconds)[:3]
    except OSError as error:  # Cloud's metadata do not answer
        name = _find_launcher()
        if name is None:  # a machine with chips of its own
            return job
        raise UserError(
            f"{name} is set, but the job cannot be found ({error}): say parallel.coordinator, "
            "parallel.num_processes and parallel.process_id"
        ) from None


@contextlib.contextmanager
def join_job(config: ParallelConfig, card: Mapping[str, Any]) -> Iterator[None]:
    """Joins the processes of a job, if this one is of any, until the end of the block.

    `card` is what all must agree on. Must come before JAX is asked for its devices. Raises
    UserError on a host that does not answer in `parallel.join_seconds`, and on what differs.
    """
    job = find_job(config)
    if job is None:
        yield
        return
    call_roll(job, card, config.join_seconds)
    jax.distributed.initialize(
        *job,
        initialization_timeout=config.join_seconds,
        heartbeat_timeout_seconds=config.heartbeat_seconds,
        shutdown_timeout_seconds=config.heartbeat_seconds,
    )
    try:
        yield
    finally:
        jax.distributed.shutdown()


def call_roll(job: Job, card: Mapping[str, Any], seconds: float) -> None:
    """Returns in every process once all have come, with the same card.

    Raises UserError in every process that came, with those that did not, or what differs.
    """
    card = {"processes": job.num_processes, **card}
    said = {"process": job.process_id, "host": socket.gethostname(), "card": card}
    error = _listen(job, said, seconds) if job.process_id == 0 else _answer(job, said, seconds)
    if error:
        raise UserError(error)


def _listen(job: Job, said: Card, seconds: float) -> str:
    """Process 0: hears all the others, then tells them what is wrong, if anything is."""
    deadline = time.monotonic() + seconds
    said_by: dict[int, Card] = {0: said}
    lines: list[socket.socket] = []
    error = ""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_open_server(job))
        while len(said_by) < job.num_processes and not error:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                line = stack.enter_context(server.accept()[0])
            except TimeoutError:
                break
            heard = _read(line)
            if heard is None:
                continue  # not of ours: a probe of the port
            number = heard["process"]
            lines.append(line)
            if number in said_by:
                hosts = f"{said_by[number]['host']} and {heard['host']}"
                error = f"two processes are both number {number}: on {hosts}"
            said_by[number] = heard
        error = error or _find_missing(job, said_by, seconds) or _compare(said_by)
        for line in lines:
            with contextlib.suppress(OSError):
                line.sendall(json.dumps({"error": error}).encode() + b"\n")
        for line in lines:  # the others close first, so that the port is free at once
            _read(line)
    return error


def _open_server(job: Job) -> socket.socket:
    port = int(job.coordinator.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at port {port} of {socket.gethostname()}: "
            f"{error.strerror or error} (take another in parallel.coordinator)"
        ) from None


def _answer(job: Job, said: Card, seconds: float) -> str:
    """Any other process: calls process 0 until it is there, and hears what it found."""
    host, _, port = job.coordinator.rpartition(":")
    deadline = time.monotonic() + seconds
    reason: Any = ""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), GRACE) as line:
                line.sendall(json.dumps(said).encode() + b"\n")
                heard = _read(line, deadline - time.monotonic() + GRACE)
            if heard is not None:
                return heard["error"]
            reason = "what answers there is not process 0 of this job"
        except OSError as problem:
            reason = problem.strerror or problem
        time.sleep(RETRY)
    return (
        f"process {job.process_id} of {job.num_processes} ({said['host']}) did not reach process 0 "
        f"at {job.coordinator} in {seconds:g} s: {reason}"
    )


def _read(line: socket.socket, seconds: float = GRACE) -> Any:
    """One line of JSON; None where there is none."""
    line.settimeout(seconds)
    try:
        with line.makefile("r") as stream:
            return json.loads(stream.readline())
    except (OSError, ValueError):
        return None


def _find_missing(job: Job, said_by: Mapping[int, Card], seconds: float) -> str:
    missing = [number for number in range(job.num_processes) if number not in said_by]
    if not missing:
        return ""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    named = len(hosts) == job.num_processes
    shown = ", ".join(f"{n} ({hosts[n]})" if named else str(n) for n in missing)
    came = ", ".join(f"{number} on {said_by[number]['host']}" for number in sorted(said_by))
    of = os.environ.get("SLURM_STEP_NODELIST")
    return (
        f"of {job.num_processes} processes {len(missing)} did not come in {seconds:g} s: {shown}; "
        f"there are {came}" + (f"; the hosts of the job are {of}" if of else "")
    )


def _compare(said_by: Mapping[int, Card]) -> str:
    """All entries of the cards that differ from process 0's, each with the first that differs."""
    first = said_by[0]
    wrong = []
    for name in sorted({name for said in said_by.values() for name in said["card"]}):
        for number, said in sorted(said_by.items()):
            mine, theirs = first["card"].get(name), said["card"].get(name)
            if mine != theirs:
                wrong.append(
                    f"{name} is {mine!r} in process 0 ({first['host']}), "
                    f"{theirs!r} in process {number} ({said['host']})"
                )
                break
    return f"the processes do not agree: {'; '.join(wrong)}" if wrong else ""
