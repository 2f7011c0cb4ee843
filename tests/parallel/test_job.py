"""Who a process is, by flags or its launcher, and what the roll-call finds before any joins."""

import concurrent.futures
import socket
import time

import pytest
from conftest import run_command

from zoo.config import ParallelConfig, UserError
from zoo.parallel.job import HOSTS, LAUNCHERS, Job, call_roll, find_job, join_job
from zoo.rehearse import find_port

SLURM = {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "node[07-09,12]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
JOBSET = {  # a slice of four hosts on GKE
    "TPU_WORKER_HOSTNAMES": "localhost,host-1,host-2,host-3",
    "TPU_WORKER_ID": "2",
    # Else JAX asks Cloud's metadata.
    "TPU_SKIP_MDS_QUERY": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "",
    "MEGASCALE_NUM_SLICES": "1",
    "MEGASCALE_SLICE_ID": "0",
}
COLAB = {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}  # has no metadata


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in (*LAUNCHERS, *HOSTS, *SLURM, *OPEN_MPI, *JOBSET):
        monkeypatch.delenv(name, raising=False)


def test_alone():
    assert find_job(ParallelConfig()) is None
    with join_job(ParallelConfig(), {}):
        pass


def test_by_flags():
    config = ParallelConfig(coordinator="host:5000", num_processes=3, process_id=2)
    assert find_job(config) == Job("host:5000", 3, 2)


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        # The port is JAX's choice: 61,440 and the job's number modulo 4,096.
        (SLURM, Job("node07:61586", 4, 3)),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (OPEN_MPI, Job(f"10.96.0.1:{61440 + 1531576320 // 4096 % 4096}", 8, 5)),
        (JOBSET, Job("localhost:8482", 4, 2)),
        ({**JOBSET, "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        (COLAB, None),
    ],
    ids=["slurm", "slurm alone", "open mpi", "gke", "gke alone", "colab"],
)
def test_by_the_launcher(environment, job, monkeypatch):
    from jax._src.clusters import cloud_tpu_cluster

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    on_tpu = "TPU_WORKER_ID" in environment  # JAX looked for a TPU when it was imported
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", on_tpu)
    assert find_job(ParallelConfig()) == job


def test_a_job_that_cannot_be_found_is_not_run_alone(monkeypatch):
    from jax._src.clusters import ClusterEnv

    def fail(*arguments):
        raise ConnectionError("no metadata")

    monkeypatch.setattr(ClusterEnv, "auto_detect_unset_distributed_params", fail)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    with pytest.raises(UserError, match="TPU_WORKER_HOSTNAMES is set, but the job cannot be found"):
        find_job(ParallelConfig())


def test_flags_go_before_the_launcher(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert find_job(ParallelConfig(coordinator="head:9000")) == Job("head:9000", 4, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_processes": 2}, "no parallel.coordinator and no parallel.process_id"),
        ({"coordinator": "a:1", "process_id": 0}, "no parallel.num_processes"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "from 0 to 1"),
    ],
)
def test_half_a_job(fields, message):
    with pytest.raises(UserError, match=message):
        find_job(ParallelConfig(**fields))


def call(processes, numbers, cards=None, seconds=30.0, wait=0.0):
    """What each process hears that takes part: '' or the error."""
    coordinator = f"localhost:{find_port()}"

    def take_part(place):
        time.sleep(wait * (numbers[place] == 0))
        try:
            card = cards[place] if cards else {}
            call_roll(Job(coordinator, processes, numbers[place]), card, seconds)
        except UserError as error:
            return str(error)
        return ""

    with concurrent.futures.ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(take_part, range(len(numbers))))


def test_all_come():
    assert call(4, [0, 1, 2, 3]) == [""] * 4
    assert call(2, [1, 0], wait=1.0) == [""] * 2  # process 0 last


def test_the_missing_are_named():
    errors = call(4, [0, 2], seconds=1.0)
    assert errors[0] == errors[1]
    host = socket.gethostname()
    assert "of 4 processes 2 did not come in 1 s: 1, 3; there are 0 on " + host in errors[0]


def test_nobody_listens():
    (error,) = call(2, [1], seconds=0.5)
    assert "process 1 of 2" in error
    assert "did not reach process 0" in error


def test_each_difference_is_named():
    cards = [{"seed": 0, "jax": "1"}, {"seed": 0, "jax": "1"}, {"seed": 1, "jax": "2"}]
    errors = call(3, [0, 1, 2], cards)
    assert len(set(errors)) == 1
    assert "jax is '1' in process 0" in errors[0]
    assert "'2' in process 2" in errors[0]
    assert "seed is 0 in process 0" in errors[0]


def test_two_of_one_number():
    errors = call(3, [0, 1, 1])
    assert all("two processes are both number 1" in error for error in errors)


def test_a_probe_of_the_port_is_not_a_process():
    port = find_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(call_roll, Job(f"localhost:{port}", 2, 0), {}, 30.0)
        while True:
            try:
                socket.create_connection(("localhost", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        call_roll(Job(f"localhost:{port}", 2, 1), {}, 30.0)
        first.result()


def test_a_port_in_use():
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at port {port}"):
            call_roll(Job(f"localhost:{port}", 2, 0), {}, 1.0)


def test_processes_of_different_configs_end_before_they_join(tmp_path):
    job = f"--config.parallel.coordinator=localhost:{find_port()} --config.parallel.num_processes=2"
    words = ["train.py", "--config=configs/vit_digits.py:quick", f"--workdir={tmp_path / 'run'}"]
    own = (["--config.parallel.fsdp=1"], ["--config.parallel.fsdp=2", "--config.seed=3"])

    def train(number):
        flags = [*job.split(), f"--config.parallel.process_id={number}", *own[number]]
        return run_command(*words, *flags)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in pool.map(train, range(2)):
            assert done.returncode == 2
            (line,) = [x for x in done.stderr.splitlines() if "error" in x]
            assert "parallel.fsdp is 1 in process 0" in line
            assert "seed is 0 in process 0" in line
    assert not (tmp_path / "run").exists()
