"""The share of GPU memory, and finding GPUs, on a machine that need not have one."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, small_config

import zoo
from zoo import gpu
from zoo.cli import guard, train
from zoo.config import LogConfig, ParallelConfig, UserError
from zoo.config.checks import check_config

SHARE, NEWER = gpu.SHARE, gpu.NEWER_SHARE


@pytest.fixture
def no_share(monkeypatch):
    """The environment without a share, and put back afterwards."""
    for name in (SHARE, NEWER, "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores what the test leaves
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_is_in_0_1(share):
    config = small_config(parallel=ParallelConfig(gpu_memory_share=share))
    with pytest.raises(UserError, match=r"parallel\.gpu_memory_share=\S+ "):
        check_config(config)


def test_train_sets_the_share_before_jax_is_imported(tmp_path):
    code = """
import os, sys
import zoo.cli, zoo.gpu

def spy(share):
    assert "jax" not in sys.modules
    real(share)
    raise zoo.cli.UserError(f"seen {os.environ[zoo.gpu.SHARE]}")

real, zoo.gpu.set_memory_share = zoo.gpu.set_memory_share, spy
sys.exit(zoo.cli.guard(zoo.cli.train, sys.argv[1:]))
"""
    words = ["--config", "configs/mlp_digits.py:quick", "--workdir", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--config.parallel.gpu_memory_share=0.5"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, SHARE: ""},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: seen 0.5\n")


def test_no_share_leaves_the_environment_alone(no_share):
    assert gpu.set_memory_share(None) is None
    assert SHARE not in os.environ


def test_a_share_takes_the_place_of_what_the_environment_says(no_share):
    no_share.setenv(NEWER, "0.9")
    assert gpu.set_memory_share(0.25) is None  # jax runs here, but on no GPU
    assert os.environ[SHARE] == "0.25"
    assert NEWER not in os.environ  # jax refuses both


def test_too_late_is_one_line(no_share, capsys):
    no_share.setattr(gpu, "gpu_has_started", lambda: True)
    config = small_config(
        parallel=ParallelConfig(gpu_memory_share=0.5),
        log=LogConfig(progress=True, tensorboard=False, picture=False),
    )
    zoo.fit(config)
    told = [line for line in capsys.readouterr().out.splitlines() if "gpu_memory_share" in line]
    assert len(told) == 1
    assert "parallel.gpu_memory_share=0.5 cannot be applied: jax has already started" in told[0]
    assert SHARE not in os.environ
    # The share that is in effect already is no news.
    no_share.setenv(SHARE, "0.5")
    assert gpu.set_memory_share(0.5) is None


def test_a_wrong_share_is_told_by_the_command(tmp_path, capsys):
    words = ["--config", "configs/mlp_digits.py:quick", "--workdir", str(tmp_path / "run")]
    assert guard(train, [*words, "--config.parallel.gpu_memory_share=2"]) == 2
    assert capsys.readouterr().err == "error: parallel.gpu_memory_share=2.0 is not in (0, 1]\n"


def test_the_share_in_effect(no_share):
    assert gpu.describe_share() == "jax's share, 0.75, taken at the start"
    no_share.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    no_share.setenv(NEWER, "0.3")
    assert gpu.describe_share() == "a share of 0.3, taken as needed"
    for value in ("2", "much"):
        no_share.setenv(NEWER, value)
        with pytest.raises(ValueError, match="is not in"):
            gpu.describe_share()
    no_share.setenv(SHARE, "0.3")
    with pytest.raises(ValueError, match="only one"):
        gpu.describe_share()


def test_gpus_that_nvidia_smi_tells_of(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1234)'\n"
        "echo 'GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-5678)'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu.find_gpus() == ["NVIDIA H200", "NVIDIA A100-SXM4-80GB"]
    # A tool without a driver says nothing of use: other places are asked.
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert "NVIDIA-SMI has failed" not in gpu.find_gpus()
